#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Install the modules that "make" has built for the running kernel, or take them
# away again; nothing of the kernel's own is changed.
#
#   install.sh install|uninstall
#
#   KREL=		another release than the running one
#   DESTDIR=	below this folder instead of /, for packages; needs no root
#
#   lib/modules/<release>/updates/kvm-dmm/	modules; modprobe prefers them
#   etc/modules-load.d/kvm-dmm.conf		kvm is loaded when the host boots
#   etc/systemd/system/dev-dmm.mount		dmmfs on /dev/dmm, enabled

set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
TOP=$(cd "$(dirname "$0")/../../.." && pwd)
say() { printf '  %-8s%s\n' "$1" "${*:2}"; }
die() { printf 'make %s: %s\n' "$action" "$*" >&2; exit 1; }

action=${1:-install}
case $action in install|uninstall) ;; *) sed -n '4,15s/^# \?//p' "$0" >&2; exit 2 ;; esac
DESTDIR=${DESTDIR:-}
running=$(uname -r)
rel=${KREL:-$running}
built=$TOP/build/$rel/modules
lib=$DESTDIR/lib/modules/$rel
to=$lib/updates/kvm-dmm
conf=$DESTDIR/etc/modules-load.d/kvm-dmm.conf
unit=$DESTDIR/etc/systemd/system/dev-dmm.mount
wants=$DESTDIR/etc/systemd/system/multi-user.target.wants/dev-dmm.mount

if [ -z "$DESTDIR" ]; then
	[ "$(id -u)" = 0 ] || die "must be run as root (or with DESTDIR=)"
elif [ "${DESTDIR#/}" = "$DESTDIR" ]; then
	die "DESTDIR=$DESTDIR is not an absolute path"
fi

conf_text() {
	cat <<'C'
# Written by "make install" of kvm-dmm: dmmfs is part of kvm.
kvm
C
}

# %v is the kernel that boots: with another one the unit does nothing.
unit_text() {
	cat <<'U'
# Written by "make install" of kvm-dmm.
[Unit]
Description=Guest memory of KVM (dmmfs)
ConditionPathExists=/lib/modules/%v/updates/kvm-dmm/kvm.ko
Wants=modprobe@kvm.service
After=modprobe@kvm.service systemd-modules-load.service
Before=libvirtd.service virtqemud.service

[Mount]
What=dmmfs
Where=/dev/dmm
Type=dmmfs
Options=mode=0755

[Install]
WantedBy=multi-user.target
U
}

# modules.dep and the like, if the kernel itself is there.
index() {
	[ ! -e "$lib/modules.order" ] || depmod ${DESTDIR:+-b "$DESTDIR"} "$rel"
}

systemd() {
	[ -n "$DESTDIR" ] || [ ! -d /run/systemd/system ] || systemctl "$@"
}

# Is there a module of the release under way that another kernel was built for?
check_modules() {
	local ko magic stock want=
	if [ ! -e "$built/kvm.ko" ]; then
		for ko in "$TOP"/build/*/modules/kvm.ko; do
			[ -e "$ko" ] || continue
			die "there are no modules for $rel, $([ "$rel" != "$running" ] || echo 'the running kernel, ')only for $(basename "$(dirname "$(dirname "$ko")")"): run make KREL=$rel"
		done
		die "there are no modules for $rel yet: run make KREL=$rel"
	fi
	[ -n "$DESTDIR" ] || [ -e "$lib/modules.order" ] ||
		die "the kernel $rel is not installed: there is no $lib/modules.order"
	stock=$(find "$lib/kernel/arch/x86/kvm" -name 'kvm.ko*' 2>/dev/null | head -n 1)
	[ -z "$stock" ] || want=$(modinfo -F vermagic "$stock")
	for ko in "$built"/*.ko; do
		magic=$(modinfo -F vermagic "$ko")
		[ "${magic%% *}" = "$rel" ] ||
			die "$(basename "$ko") was built for ${magic%% *}, not for $rel: run make clean, then make KREL=$rel"
		[ -z "$want" ] || [ "${magic% }" = "${want% }" ] ||
			die "$(basename "$ko") does not match the kernel $rel:
  module: $magic
  kernel: $want"
	done
}

# write FILE FUNCTION: unless somebody has changed what we wrote
write() {
	mkdir -p "$(dirname "$1")"
	if [ -e "$1" ] && ! "$2" | cmp -s - "$1"; then
		say KEEP "$1, which is not as \"make install\" writes it"
		return
	fi
	"$2" >"$1"
	chmod 644 "$1"
}

unsigned() {
	grep -qs '\[\(integrity\|confidentiality\)\]' /sys/kernel/security/lockdown ||
		grep -qs Y /sys/module/module/parameters/sig_enforce
}

# Not the policies that are there for tests, and to learn from.
wanted() {
	case $1 in */kvm-dmm-test-*|*/kvm-dmm-sample.ko) return 1 ;; esac
}

do_install() {
	local ko loaded
	check_modules
	mkdir -p "$to"
	for ko in "$to"/*.ko; do
		if ! wanted "$ko" || [ ! -e "$built/$(basename "$ko")" ]; then
			rm -f "$ko"
		fi
	done
	for ko in "$built"/*.ko; do
		! wanted "$ko" || install -m 644 "$ko" "$to/"
	done
	index
	write "$conf" conf_text
	write "$unit" unit_text
	mkdir -p "$(dirname "$wants")"
	ln -sfn ../dev-dmm.mount "$wants"
	systemd daemon-reload
	say INSTALL "$(cd "$to" && echo *.ko) in $to"
	[ -z "$DESTDIR" ] || return 0
	! unsigned || say NOTE "this host loads signed modules only; these are not signed"
	[ "$rel" = "$running" ] || return 0
	loaded=$(lsmod | awk '$1 == "kvm_amd" || $1 == "kvm_intel" { print $1 }')
	if [ -d /sys/kernel/kvm_dmm ]; then
		say NOTE "the modules loaded now stay until they are loaded again, or until the next boot"
	elif [ -n "$loaded" ]; then
		say NOTE "now reboot, or end all guests and run:
          modprobe -r $loaded && modprobe $loaded && systemctl start dev-dmm.mount"
	else
		say NOTE "now run: systemctl start dev-dmm.mount"
	fi
}

# remove FILE FUNCTION: what we wrote, not what somebody has changed
remove() {
	[ -e "$1" ] || return 0
	if "$2" | cmp -s - "$1"; then
		rm -f "$1"
	else
		say KEEP "$1, which is not as \"make install\" writes it"
	fi
}

# Folders that are empty now, up to the first that is not.
prune() {
	local dir=$1
	while [ "$dir" != "${DESTDIR:-/}" ] && rmdir "$dir" 2>/dev/null; do
		dir=$(dirname "$dir")
	done
}

do_uninstall() {
	local other left=
	for other in "$DESTDIR"/lib/modules/*/updates/kvm-dmm; do
		[ ! -d "$other" ] || [ "$other" = "$to" ] || left=$other
	done
	# The kernel may have been removed before, and the modules with it.
	[ -d "$to" ] || { [ -z "$left" ] && [ -L "$wants" ]; } ||
		die "nothing of kvm-dmm is installed for $rel"
	if [ -d "$to" ]; then
		rm -f "$to"/kvm.ko "$to"/kvm-amd.ko "$to"/kvm-intel.ko "$to"/kvm-dmm-*.ko
		prune "$to"
	fi
	index
	if [ -n "$left" ]; then
		say KEEP "the unit and the list of modules, because of $left"
	else
		[ ! -L "$wants" ] || rm -f "$wants"
		remove "$unit" unit_text
		remove "$conf" conf_text
		prune "$(dirname "$wants")"
		[ -z "$DESTDIR" ] || { prune "$(dirname "$unit")"; prune "$(dirname "$conf")"; }
		systemd daemon-reload
	fi
	say REMOVE "$to"
	[ -n "$DESTDIR" ] || [ ! -d /sys/kernel/kvm_dmm ] ||
		say NOTE "what is loaded and mounted stays until the next boot"
}

"do_$action"
