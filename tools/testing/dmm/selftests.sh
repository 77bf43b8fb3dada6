#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Build KVM's selftests, upstream's and ours, for the emulated host.
#
# The kernel's selftests are copied out of the unpacked source, taught about
# dmmfs by patches/selftests, joined with tools/testing/selftests/kvm/dmm and
# linked statically, so that they run in an initramfs that holds nothing else:
#
#   build/<KREL>/selftests/tree   what make works on
#   build/<KREL>/selftests/bin    stripped test programs, in upstream's layout
#
# Nothing is rebuilt that didn't change.
set -eu

usage() {
	cat <<USAGE
usage: selftests.sh [-j JOBS] [-k KREL] [-s SOURCE] [-o OUTPUT] [TEST...]

  -j  parallel jobs (default: 2)
  -k  kernel release (default: \$KREL)
  -s  unpacked kernel source (default: src in the cache folder)
  -o  output folder (default: build/<KREL>/selftests)

Without TEST, build the programs that tools/testing/dmm/lists names and all of
our own.  A TEST is upstream's name of a program, e.g. x86_64/smm_test.
USAGE
}

die() {
	echo "selftests.sh: $*" >&2
	exit 1
}

top=$(cd "$(dirname "$0")/../../.." && pwd)
cache=${KVM_DMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvm-dmm}
krel=${KREL:-}
jobs=2
src=
out=

while getopts j:k:s:o:h opt; do
	case $opt in
	j) jobs=$OPTARG ;;
	k) krel=$OPTARG ;;
	s) src=$OPTARG ;;
	o) out=$OPTARG ;;
	h) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))

[ -n "$krel" ] || die "no kernel release: pass -k or set KREL"
src=${src:-$cache/$krel/src}
out=${out:-$top/build/$krel/selftests}
headers=$cache/$krel/headers
tree=$out/tree
kvm=$tree/tools/testing/selftests/kvm

[ -e "$src/tools/testing/selftests/kvm/Makefile" ] || die "no kernel source in $src"

# The kernel's UAPI headers, those of the distribution may be older.
if [ ! -e "$headers/include/linux/kvm.h" ]; then
	echo "  HDRINST $krel"
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	make -s -C "$src" O="$scratch/obj" INSTALL_HDR_PATH="$scratch/usr" \
		headers_install >"$scratch/log" 2>&1 ||
		{ cat "$scratch/log" >&2; die "headers_install failed"; }
	mkdir -p "$(dirname "$headers")"
	rm -rf "$headers.new"
	cp -r "$scratch/usr" "$headers.new"
	rm -rf "$headers"
	mv "$headers.new" "$headers"
fi

# A fresh copy whenever the patches change, otherwise keep what is built.
mkdir -p "$out"
want=$({ echo "$src"; cat "$top"/patches/selftests/*.patch; } | sha256sum)
if [ "$(cat "$out/stamp" 2>/dev/null)" != "$want" ]; then
	echo "  COPY    selftests"
	rm -rf "$tree" "$out/stamp"
	mkdir -p "$tree/tools/testing/selftests" "$tree/tools/arch" \
		"$tree/tools/build" "$tree/scripts" "$tree/lib"
	for item in testing/selftests/kvm testing/selftests/rseq \
		testing/selftests/lib.mk testing/selftests/kselftest.h \
		testing/selftests/kselftest_harness.h include lib \
		arch/x86 build/Build.include; do
		mkdir -p "$tree/tools/$(dirname $item)"
		cp -rp "$src/tools/$item" "$tree/tools/$item"
	done
	cp -p "$src/scripts/subarch.include" "$tree/scripts/"
	cp -p "$src/lib/rbtree.c" "$tree/lib/"
	mkdir -p "$tree/usr"
	ln -sfn "$headers/include" "$tree/usr/include"
	for patch in "$top"/patches/selftests/*.patch; do
		echo "  PATCH   $(basename "$patch")"
		patch -s -p1 -F0 -d "$tree" <"$patch" ||
			die "$(basename "$patch") doesn't apply to $src"
	done
	echo "$want" >"$out/stamp"
fi

# Our own tests: copy only what changed, make compares times.
mkdir -p "$kvm/dmm"
for file in "$top"/tools/testing/selftests/kvm/dmm/*; do
	copy=$kvm/dmm/$(basename "$file")
	cmp -s "$file" "$copy" || cp "$file" "$copy"
done
for copy in "$kvm"/dmm/*.[ch]; do
	[ -e "$copy" ] || continue
	[ -e "$top/tools/testing/selftests/kvm/dmm/$(basename "$copy")" ] || rm "$copy"
done

own=$(sed -n 's,^TEST_GEN_PROGS\(_EXTENDED\|\)_x86_64 += \(dmm/[a-z0-9_]*\)$,\2,p' \
	"$kvm/dmm/Makefile.include")
if [ $# -gt 0 ]; then
	tests=$*
else
	listed=$(sed -e 's/#.*//' "$top"/tools/testing/dmm/lists/upstream.list |
		awk 'NF { print $5 }' | sort -u)
	tests="$listed $own"
fi

# A header or the library changed: make knows, by the .d files.
set --
for test in $tests; do
	set -- "$@" "$kvm/$test"
done
make -s -C "$kvm" -j"$jobs" ARCH=x86 OUTPUT="$kvm" \
	USERCFLAGS="-Wno-unused-result ${DMM_CFLAGS:-}" USERLDFLAGS=-static "$@"

mkdir -p "$out/bin"
for test in $tests; do
	mkdir -p "$out/bin/$(dirname "$test")"
	if [ ! "$out/bin/$test" -nt "$kvm/$test" ]; then
		strip -o "$out/bin/$test" "$kvm/$test"
		touch "$out/bin/$test"
	fi
done
echo "  TESTS   $out/bin"
