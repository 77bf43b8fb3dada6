# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the scripts of this folder share: messages, the cache folder, Debian
# packages and the choice of the kernel release.  Sourced, never run.

set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin	# depmod, modprobe: for users too

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
DMM=$TOP/tools/testing/dmm
CACHE=${KVM_DMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvm-dmm}
JOBS=${JOBS:-$(nproc)}
SERIES=6.12
FLAVOUR=deb12-cloud-amd64

# What each kind of step needs from Debian.
PKG_BUILD="gcc-12 libc6-dev make patch xz-utils binutils libelf1 libssl3 zlib1g kmod"
PKG_HOST="qemu-system-x86 busybox-static cpio kmod xz-utils gcc libc6-dev make libjson-c-dev"
PKG_BOCHS="bochs bochs-term bochsbios vgabios grub-common grub-pc-bin xorriso mtools bsdutils"
PKG_TESTS="gcc g++ libc6-dev make patch rsync"
PKG_DEBUG="$PKG_BUILD gcc flex bison bc libelf-dev libssl-dev"

say()  { printf '  %-8s%s\n' "$1" "${*:2}"; }
die()  { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Run a command quietly, keep what it says in a log, show the log on failure.
logged() {
	local log=$1
	shift
	mkdir -p "$(dirname "$log")"
	"$@" >"$log" 2>&1 && return
	tail -n 40 "$log" >&2
	die "failed: $* (all of it in $log)"
}

# One builder of a cache folder at a time; released when the script ends.
cache_lock() {
	mkdir -p "$CACHE"
	exec 9>"$CACHE/lock"
	flock -n 9 && return
	say WAIT "for another user of $CACHE"
	flock 9
}
cache_unlock() { exec 9>&-; }

apt_updated=
apt_update() {
	[ -z "$apt_updated" ] || return 0
	[ "$(id -u)" = 0 ] || return 1
	say APT "update"
	local try
	for try in 1 2 3; do
		apt-get -q=2 update >/dev/null && { apt_updated=1; return; }
		sleep $((try * 3))
	done
	return 1
}

missing_packages() {
	local p
	for p in "$@"; do
		dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null |
			grep -qx installed || echo "$p"
	done
}

# need_packages PACKAGE...: install what is missing, or say how to.
need_packages() {
	local missing try
	command -v dpkg-query >/dev/null || die "this needs Debian 12 (no dpkg found)"
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" != 0 ]; then
		die "these Debian packages are missing, please run:
  sudo apt-get install --no-install-recommends ${missing[*]}"
	fi
	# Hosts that start side by side need the same, and apt refuses the second.
	mkdir -p "$CACHE"
	exec 6>"$CACHE/apt.lock"
	flock 6
	mapfile -t missing < <(missing_packages "$@")
	for try in 1 2 3; do
		[ ${#missing[@]} -gt 0 ] || break
		if [ "$try" = 1 ]; then
			say APT "install ${missing[*]}"
		else
			apt_updated=
			apt_update || true
		fi
		DEBIAN_FRONTEND=noninteractive apt-get -q=2 -o Dpkg::Use-Pty=0 -y \
			-o DPkg::Lock::Timeout=300 \
			install --no-install-recommends "${missing[@]}" \
			</dev/null >/dev/null 6>&- && missing=()
	done
	exec 6>&-
	[ ${#missing[@]} = 0 ] || die "apt-get could not install: ${missing[*]}"
}

# pkg_versions PACKAGE: every version apt can get, newest first.
pkg_versions() {
	apt-cache madison "$1" 2>/dev/null | awk -F '|' '{ gsub(/ /, "", $2); print $2 }'
}

# release_version KREL: the package version for which source, headers and image
# of that release all exist.
release_version() {
	local v
	for v in $(pkg_versions "linux-headers-$1"); do
		pkg_versions "linux-image-$1-unsigned" | grep -qxF "$v" || continue
		pkg_versions "linux-source-$SERIES" | grep -qxF "$v" || continue
		echo "$v"
		return
	done
	return 1
}

# Releases that apt offers, or that are complete in the cache; newest first.
apt_releases() {
	apt-cache pkgnames "linux-headers-$SERIES." 2>/dev/null |
		sed -n "s/^linux-headers-\(.*+$FLAVOUR\)\$/\1/p" | sort -rV
}
cached_releases() {
	local d
	for d in "$CACHE"/*/complete; do
		[ ! -e "$d" ] || basename "$(dirname "$d")"
	done | sort -rV
}

# The kernel release to work for: KREL=, else the newest that can be had.
choose_release() {
	local r
	if [ -n "${KREL:-}" ]; then
		[ ! -e "$CACHE/$KREL/complete" ] || { echo "$KREL"; return; }
		release_version "$KREL" >/dev/null ||
			{ apt_update >&2 && release_version "$KREL" >/dev/null; } ||
			die "KREL=$KREL: apt does not offer source, headers and image in one version
  releases that could be had: $(apt_releases | xargs)"
		echo "$KREL"
		return
	fi
	[ -n "$(apt_releases)" ] || apt_update >&2 || true
	for r in $({ apt_releases; cached_releases; } | sort -rVu); do
		if [ -e "$CACHE/$r/complete" ] || release_version "$r" >/dev/null; then
			echo "$r"
			return
		fi
	done
	die "no $SERIES cloud kernel found: is the Debian 12 security archive among apt's sources
  and was apt-get update run?"
}

# Everything of one release lies here.
release_dirs() {
	REL=$CACHE/$KREL
	SRC=$REL/src
	IMAGE=$REL/image
	KBUILD_DIR=$REL/kbuild/usr/src/linux-headers-$KREL
	OUT=$TOP/build/$KREL
}
