# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Initramfs of the emulated host and of its guests, made of this machine's
# busybox and QEMU.  Sourced by host.sh, after release_dirs.

# Modules of the kernel that tests and demo use, with what they depend on.
HOST_MODULES="kvm kvm-amd kvm-intel irqbypass msr cpuid zram nbd loop null_blk overlay vhost_net tun virtio_blk virtio_net virtio_balloon"
GUEST_MODULES="virtio_balloon virtio_blk virtio_net virtio_mem virtio-rng"

# pack FOLDER: to a cpio archive, owned by root
pack() { (cd "$1" && find . -print0 | sort -z | cpio --quiet -0 -o -H newc -R 0:0); }

# build_static SOURCE TARGET
build_static() {
	[ "$2" -nt "$1" ] || gcc -O2 -Wall -static -o "$2" "$1"
}

busybox_tree() {	# FOLDER
	local applet
	mkdir -p "$1"/{bin,dev,proc,sys,tmp,etc,root,run,lib,usr/bin}
	cp "$(command -v busybox)" "$1/bin/busybox"
	for applet in $(busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "$1/bin/$applet"
	done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
	echo 'nobody:x:65534:65534:nobody:/:/bin/sh' >>"$1/etc/passwd"
	echo 'root:x:0:' >"$1/etc/group"
	echo 'nogroup:x:65534:' >>"$1/etc/group"
	ln -s ../bin/busybox "$1/usr/bin/env"
}

# Modules and all they need, uncompressed, under FOLDER/lib/modules/KREL.
stock_modules() {	# FOLDER MODULE...
	local to=$1/lib/modules/$KREL name path
	shift
	[ -e "$IMAGE/lib/modules/$KREL/modules.dep" ] || depmod -b "$IMAGE" "$KREL"
	mkdir -p "$to"
	cp "$IMAGE/lib/modules/$KREL"/modules.{order,builtin,builtin.modinfo} "$to/"
	for name in "$@"; do
		modprobe -d "$IMAGE" -S "$KREL" --show-depends "$name"
	done | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r path; do
		name=${path#"$IMAGE/lib/modules/$KREL/"}
		mkdir -p "$to/$(dirname "$name")"
		case $path in
		*.xz)	xz -dc "$path" >"$to/${name%.xz}" ;;
		*)	cp "$path" "$to/$name" ;;
		esac
	done
}

debug_modules() {	# FOLDER KREL BUILD
	local path to=$1/lib/modules/$2
	mkdir -p "$to"
	cp "$3"/modules.{order,builtin,builtin.modinfo} "$to/"
	(cd "$3" && find . -name '*.ko') | while read -r path; do
		mkdir -p "$to/kernel/$(dirname "$path")"
		strip --strip-debug -o "$to/kernel/$path" "$3/$path"
	done
}

# cached FILE KEY: is the cached archive up to date?
cached() { [ -e "$1" ] && [ "$(cat "$1.key" 2>/dev/null)" = "$2" ]; }

# The host without what is under test; leaves $base_cpio and $base_root.
rootfs_base() {	# KREL of the host, and where it was built if it is not Debian's
	local key
	base_cpio=$hostdir/base-$1.cpio
	base_root=$hostdir/base-$1
	key=$(sha256sum "$DMM/rootfs.sh" "$DMM/holdvm.c" "$(command -v busybox)"
		cat "$2.stamp" 2>/dev/null || true)
	exec 7>"$hostdir/lock"
	flock 7
	if ! cached "$base_cpio" "$key"; then
		rm -rf "$base_root" "$base_cpio" "$base_cpio.key"
		busybox_tree "$base_root"
		build_static "$DMM/holdvm.c" "$base_root/bin/holdvm"
		if [ "$1" = "$KREL" ]; then
			# shellcheck disable=SC2086
			stock_modules "$base_root" $HOST_MODULES
		else
			debug_modules "$base_root" "$1" "$2"
		fi
		pack "$base_root" >"$base_cpio"
		echo "$key" >"$base_cpio.key"
	fi
	exec 7>&-
}

# modules.dep over the base's modules and those under test in FOLDER.
rootfs_modules_index() {	# KREL FOLDER
	local both
	both=$(mktemp -d "$hostdir/index.XXXXXX")
	mkdir -p "$both/lib"
	cp -al "$base_root/lib/modules" "$both/lib/"
	cp -a "$2/lib/modules/$1/." "$both/lib/modules/$1/"
	depmod -b "$both" "$1"
	cp "$both/lib/modules/$1"/modules.{dep,alias,symbols,softdep} "$2/lib/modules/$1/" 2>/dev/null || true
	rm -rf "$both"
}

# with_libs FOLDER PROGRAM [TARGET]: a program of this machine, at the same place
# or another, with its shared libraries
with_libs() {
	local lib to=$1${3:-$2}
	mkdir -p "$(dirname "$to")"
	cp -L "$2" "$to"
	ldd "$2" | grep -o '/[^ ]*' | while read -r lib; do
		mkdir -p "$1$(dirname "$lib")"
		[ -e "$1$lib" ] || cp -L "$lib" "$1$lib"
	done
}

# QEMU with firmware, a guest kernel and a guest's initramfs in /kit; leaves
# $kit_cpio.  The guest's init is guest-init, its worker guestmem.c.
rootfs_kit() {
	local key tree=$hostdir/kit rom
	kit_cpio=$hostdir/kit.cpio
	key=$(sha256sum "$DMM/rootfs.sh" "$DMM/guestmem.c" "$DMM/equalpages.c" "$DMM/guest" "$DMM"/guest-* \
		"$TOP"/tools/kvm/dmm/*.c \
		"$(command -v qemu-system-x86_64)" "$IMAGE/boot/vmlinuz-$KREL")
	exec 7>"$hostdir/lock"
	flock 7
	if ! cached "$kit_cpio" "$key"; then
		rm -rf "$tree" "$kit_cpio" "$kit_cpio.key" "$hostdir/guest"
		busybox_tree "$hostdir/guest"
		cp "$DMM/guest-init" "$hostdir/guest/init"
		chmod 755 "$hostdir/guest/init"
		build_static "$DMM/guestmem.c" "$hostdir/guest/bin/guestmem"
		# shellcheck disable=SC2086
		stock_modules "$hostdir/guest" $GUEST_MODULES
		depmod -b "$hostdir/guest" "$KREL"
		mkdir -p "$tree/kit" "$tree/bin" "$tree/usr/share/qemu" "$tree/usr/share/seabios"
		pack "$hostdir/guest" | gzip -1 >"$tree/kit/initrd"
		cp "$IMAGE/boot/vmlinuz-$KREL" "$tree/kit/vmlinuz"
		install -m 755 "$DMM/guest" "$DMM"/guest-{lib,restore,fork,migrate,mix,nested,swapdev,share} "$tree/bin/"
		build_static "$DMM/equalpages.c" "$tree/bin/equalpages"
		make -s -C "$TOP/tools/kvm/dmm" O="$hostdir/"
		with_libs "$tree" "$hostdir/dmm-fork" /bin/dmm-fork
		with_libs "$tree" /usr/bin/cp	# busybox's knows no holes
		with_libs "$tree" /usr/bin/qemu-system-x86_64
		for rom in bios-256k.bin bios.bin; do
			cp -L "/usr/share/seabios/$rom" "$tree/usr/share/seabios/"
		done
		for rom in kvmvapic linuxboot linuxboot_dma multiboot multiboot_dma; do
			[ ! -e "/usr/share/qemu/$rom.bin" ] ||
				cp -L "/usr/share/qemu/$rom.bin" "$tree/usr/share/qemu/"
		done
		pack "$tree" >"$kit_cpio"
		echo "$key" >"$kit_cpio.key"
	fi
	exec 7>&-
}
