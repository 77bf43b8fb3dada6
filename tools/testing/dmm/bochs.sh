# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154
#
# The other emulator: Bochs has VMX with EPT, which QEMU lacks.  Sourced by host.sh,
# after $run is set.

# bochs_prepare KERNEL INITRD APPEND MEMORY: a CD to boot from and a configuration
# in $run
bochs_prepare() {
	local megs=$(($(numfmt --from=iec "$4") >> 20))

	mkdir -p "$run/iso/boot/grub"
	cp "$1" "$run/iso/boot/vmlinuz"
	# Its disk is slower than its CPU.
	xz -0 --check=crc32 -T0 <"$2" >"$run/iso/boot/initrd"
	# A triple fault is the way out.  What the kernel says about retbleed reads
	# like a report of a problem.
	cat >"$run/iso/boot/grub/grub.cfg" <<C
linux /boot/vmlinuz $3 reboot=triple retbleed=off
initrd /boot/initrd
boot
C
	logged "$run/grub.log" grub-mkrescue -o "$run/boot.iso" "$run/iso" \
		--install-modules="linux normal iso9660 biosdisk search" --locales= --themes= --fonts=
	rm -r "$run/iso"
	cat >"$run/bochsrc" <<C
display_library: term
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_skylake_x, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=$megs, host=$megs
clock: sync=none, time0=utc
ata0: enabled=1
ata0-master: type=cdrom, path=$run/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$run/console
com2: enabled=1, mode=file, dev=$run/result
log: $run/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
speaker: enabled=0
C
	# Debian's has a debugger, which waits for a command.
	echo c >"$run/bochs.rc"
}

# Run it, with the console on standard output.
bochs_run() {	# SECONDS
	local pid rc
	: >"$run/console"
	# The display wants a terminal.
	timeout -k 5 "$1" script -qfec "TERM=vt100 bochs -q -f $run/bochsrc -rc $run/bochs.rc" /dev/null \
		</dev/null >/dev/null 2>"$run/stderr" &
	pid=$!
	echo $pid >"$run/pid"
	tail -s 0.2 -n +1 --pid=$pid -f "$run/console" 2>/dev/null
	wait $pid && rc=0 || rc=$?
	# This is how a run ends, and not the emulator's fault.
	! grep -q '3rd ([0-9]*) exception with no resolution' "$run/bochs.log" || rc=0
	return $rc
}
