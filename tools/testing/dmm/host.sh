#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Run a command in an emulated host: Debian's kernel (or the debug kernel) on a
# CPU with AMD SVM, emulated by QEMU, or with Intel VMX, emulated by Bochs, with
# our KVM modules loaded.

. "$(dirname "$0")/common.sh"

usage() {
	cat <<'U'
usage: host.sh [OPTION...] -- COMMAND [ARG...]
  --kernel stock|debug|kcsan	kernel of the host (stock)
  --npt 0|1		nested paging (with Intel: EPT) or shadow paging (1)
  --kvm amd|intel|none	load KVM, or leave it to the command (amd); intel has
			one slow CPU, whose seconds are 100 million instructions
  --smp N		CPUs (2)
  --threads		emulate the CPUs in parallel
  --icount		count instructions as nanoseconds; implies --smp 1
  --mem SIZE		memory of the host (2G)
  --timeout SECONDS	of the whole run (600)
  --modules DIR|stock	KVM modules to use (build/<release>/modules)
  --files SRC[:DEST]	copy a folder's content to DEST (/t); may be repeated
  --load MODULE		load a module of the kernel first; may be repeated
  --kit			add QEMU, a guest kernel and a guest's initramfs
  --append ARGS		for the host's kernel command line
  --out DIR		copy the host's /out here when the run is over
  --result FILE		keep what was sent to ttyS1 here
  --log FILE		keep the console's text here (build/<release>/host/last.log)
  --unload		unload all KVM modules at the end, fail if that fails
  --shell		a prompt instead of a command
The command runs as root in a busybox system, in the folder /t; /dev/dmm is a
dmmfs.  The exit status is the command's, or: 124 timeout, 125 the host died,
126 the kernel reported a problem, 127 the emulator itself died, twice.
U
	exit "${1:-0}"
}

kernel=stock npt=1 kvm=amd smp=2 threads=single icount='' mem=2G timeout=600
modules='' append='' out='' log='' last='' result='' unload='' shell='' kit=''
files=() early=()
while [ $# -gt 0 ]; do
	case $1 in
	--kernel)	kernel=$2; shift ;;
	--npt)		npt=$2; shift ;;
	--kvm)		kvm=$2; shift ;;
	--smp)		smp=$2; shift ;;
	--threads)	threads=multi ;;
	--icount)	icount=1; smp=1 ;;
	--mem)		mem=$2; shift ;;
	--timeout)	timeout=$2; shift ;;
	--modules)	modules=$2; shift ;;
	--files)	files+=("$2"); shift ;;
	--load)		early+=("$2"); shift ;;
	--kit)		kit=1 ;;
	--append)	append=$2; shift ;;
	--out)		out=$2; shift ;;
	--log)		log=$2; shift ;;
	--result)	result=$2; shift ;;
	--unload)	unload=1 ;;
	--shell)	shell=1 ;;
	--)		shift; break ;;
	-h|--help)	usage ;;
	*)		usage 2 >&2 ;;
	esac
	shift
done
[ $# -gt 0 ] || [ -n "$shell" ] || usage 2 >&2

# What the kernel says when something is wrong with it.
reports='BUG: |BUG kmalloc|WARNING: |Oops|INFO: (possible|task|rcu|trying|lockdep)|rcu: INFO|KASAN|KFENCE|UBSAN|general protection|memory leak detector disabled|(objects|pages) that nobody has|Kernel panic|possible (circular|recursive)|suspicious RCU|soft lockup|hard LOCKUP|Bad page|page allocation failure: order:0, mode:0x0|ODEBUG'

# shellcheck disable=SC2086
need_packages $PKG_HOST
# shellcheck disable=SC2086
[ "$kvm" != intel ] || need_packages $PKG_BOCHS
KREL=$(choose_release)
export KREL
"$DMM/fetch.sh"
release_dirs
hostdir=$OUT/host
mkdir -p "$hostdir"
. "$DMM/rootfs.sh"
. "$DMM/bochs.sh"

# KVM's own races are not ours to judge.
[ "$kernel" != kcsan ] || reports=${reports/BUG: /BUG: ([^K]|KCSAN: .*(dmm|_show|_store))}

case $kernel in
stock)
	image=$IMAGE/boot/vmlinuz-$KREL
	hrel=$KREL
	;;
debug|kcsan)
	image=$REL/$kernel/arch/x86/boot/bzImage
	[ -e "$image" ] || die "no $kernel kernel yet: run make check-$kernel"
	hrel=$(cat "$REL/$kernel/include/config/kernel.release")
	;;
*)	usage 2 >&2 ;;
esac
modules=${modules:-$TOP/build/$hrel/modules}
[ "$modules" = stock ] || [ -e "$modules/kvm.ko" ] || die "no kvm.ko in $modules: run make modules"

run=$(mktemp -d "$hostdir/run.XXXXXX")
qemu= beat=
cleanup() {
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
	[ -z "$beat" ] || kill "$beat" 2>/dev/null || true
	[ -z "$last" ] || mv "$log" "$last" 2>/dev/null || true
	rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# The parts that seldom change are cached, the rest is made for this run.
nonce=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
mkdir -p "$run/root/dmm" "$run/root/t" "$run/root/lib/modules/$hrel/updates"
cp "$DMM/init" "$run/root/init"
chmod 755 "$run/root/init"
cat >"$run/root/dmm/run.conf" <<C
NONCE=$nonce NPT=$npt KVM=$kvm UNLOAD=$unload INTERACTIVE=$shell OUT=${out:+/out}
EARLY='${early[*]:-}' REPORTS='$reports'
C
if [ $# -gt 0 ]; then
	if [ $# = 1 ]; then echo "$1"; else printf '%q ' "$@"; fi >"$run/root/dmm/command"
fi
for f in "${files[@]}"; do
	dest=/t
	case $f in *:*) dest=${f#*:} ;; esac
	mkdir -p "$run/root$dest"
	cp -a "${f%%:*}/." "$run/root$dest/"
done
rootfs_base "$hrel" "$REL/$kernel"
[ "$modules" = stock ] || cp "$modules"/*.ko "$run/root/lib/modules/$hrel/updates/"
rootfs_modules_index "$hrel" "$run/root"
pack "$run/root" >"$run/run.cpio"
parts=("$base_cpio" "$run/run.cpio")
if [ -n "$kit" ]; then
	rootfs_kit
	parts+=("$kit_cpio")
fi
cat "${parts[@]}" >"$run/initrd"
rm -rf "$run/root" "$run/run.cpio"

# Other runs may be under way.
[ -n "$log" ] || { log=$run/console last=$hostdir/last.log; }
mkdir -p "$(dirname "$log")"

# QEMU before 8.0 takes the flags that CMPXCHG16B leaves from an operand of an
# earlier instruction, now and then.  What of them an exit of a guest saves stays in
# its flags, and with NT set the next IRET faults.  So there is no such instruction,
# except where it is to be counted.
cpu=EPYC,+svm,+npt
[ -n "$icount" ] || cpu+=,-cx16

# What the debug kernel has been built with, but does not do by itself.
[ "$kernel" != debug ] || append="page_poison=1 page_owner=on kasan_multi_shot $append"
append="console=ttyS0 quiet oops=panic panic=-1 nokaslr log_buf_len=4M $append"
args=(
	-accel "tcg,thread=$threads" -cpu "$cpu" -smp "$smp" -m "$mem"
	-nodefaults -no-user-config -display none -no-reboot
	-kernel "$image" -initrd "$run/initrd" -append "$append"
)
[ -z "$icount" ] || args+=(-icount "shift=0,sleep=off")

# An interrupt that wakes a halted CPU may get lost: emulating VMRUN and #VMEXIT,
# QEMU changes the CPU's pending interrupts without a lock, while its timers set
# one.  The next interrupt finds what is due, so see to it that there is one.
# Where instructions are counted, nothing runs side by side.
channel=(-serial "file:$run/result")
if [ -z "$icount" ] && [ "$kvm" != intel ]; then
	: >"$run/result"
	ln -s result "$run/result.out"
	mkfifo "$run/result.in"
	exec {nothing}<> <(:)
	while :; do
		read -rt 0.1 -u $nothing || true
		echo
	done 1<>"$run/result.in" &
	beat=$!
	channel=(-serial "pipe:$run/result")
fi

if [ -n "$shell" ]; then
	qemu-system-x86_64 "${args[@]}" -echr 0x1d -serial mon:stdio "${channel[@]}" \
		2> >(grep -v "doesn't support requested feature" >&2)
	exit 0
fi

[ "$kvm" != intel ] || bochs_prepare "$image" "$run/initrd" "$append" "$mem"

qemu_run() {	# SECONDS
	timeout -k 5 "$1" qemu-system-x86_64 "${args[@]}" \
		-serial stdio "${channel[@]}" \
		</dev/null 2>"$run/stderr" &
	echo $! >"$run/pid"
	wait $!
}

# Leaves the run's outcome in $status, and in $died whether the emulator died by itself.
attempt() {
	local rc console
	died=
	rm -f "$run/result" "$run/stderr" "$run/rc"
	: >"$run/result"
	# setsid: a ^C reaches this script, which ends QEMU by its id
	{
		if [ "$kvm" = intel ]; then
			bochs_run "$timeout" && rc=0 || rc=$?
		else
			qemu_run "$timeout" && rc=0 || rc=$?
		fi
		echo "$rc" >"$run/rc"
	} | sed -u '/reboot: Restarting system/d; s/\r//g; s/\x1b\[[0-9;?]*[a-zA-Z]//g; s/\x1bc//g; s/[\x00-\x08\x0b-\x1f]//g' | tee "$log" &
	console=$!
	while [ ! -s "$run/pid" ]; do sleep 0.05; done
	qemu=$(cat "$run/pid")
	wait "$console" || true
	qemu=
	rm -f "$run/pid"
	rc=$(cat "$run/rc")
	grep -v "doesn't support requested feature" "$run/stderr" >&2 || true

	if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then
		echo "host: timeout after $timeout s"
		status=124
	elif [ "$rc" != 0 ] || grep -q 'Bail out!' "$run/stderr"; then
		status=127
		died=1
	elif ! grep -q "^end $nonce [0-9]*\$" "$run/result"; then
		echo "host: died before the end of the run"
		status=125
	else
		status=$(sed -n "s/^end $nonce //p" "$run/result")
	fi
	if [ -z "$died" ] &&
	   { sed -n 's/^report //p' "$run/result"; grep -E "\\[ *[0-9]+\\.[0-9]{6}\\].*($reports)" "$log"; } |
			sort -u | grep . >"$run/reports"; then
		echo "host: the kernel reported:"
		head -n 20 "$run/reports" | sed 's/^/host:   /'
		[ "$status" = 125 ] || status=126
	fi
}

for try in 1 2; do
	attempt
	[ -n "$died" ] || break
	echo "host: the emulator itself died (attempt $try of 2), which says nothing about the code under test"
done
[ -z "$result" ] || cp "$run/result" "$result"
if [ -n "$out" ] && grep -q '^out ' "$run/result"; then
	mkdir -p "$out"
	sed -n 's/^out //p' "$run/result" | base64 -d | tar -xzf - -C "$out"
fi
exit "$status"
