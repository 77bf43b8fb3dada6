#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Static checks: what tools find without running the code.  Prints KTAP.
#
#   static.sh [CHECK...]	all of them, or some: see the functions below
#
# What is reported and stays nevertheless is in lists/static.accept, with reasons.

. "$(dirname "$0")/common.sh"

KREL=$(choose_release)
export KREL
"$DMM/fetch.sh"
release_dirs
need_packages perl python3
out=$OUT/static-checks
mkdir -p "$out"
cd "$TOP"

ours() { find arch include virt -type f -name "*.[ch]" ! -name '.*' | sort; }
tests() { find tools/testing/selftests tools/testing/dmm tools/kvm -type f -name "*.[ch]" | sort; }
hooked() { sed -n 's,^+++ b/,,p' "patches/$SERIES"/*.patch | sort -u; }

# Drop what is accepted.
accept() {
	sed -e '/^#/d' -e 's/[[:space:]]*#.*//' "$DMM/lists/static.accept" >"$out/accept"
	awk 'FNR == NR { pattern[++n] = $0; next }
		{
			place = $0
			sub(/:[0-9]+:([0-9]+:)?/, ":", place)
			for (i = 1; i <= n; i++)
				if (place ~ pattern[i])
					next
			print
		}' "$out/accept" "$1"
}

# Style, of files and of patches.
checkpatch() {
	local patch checkpatch="$SRC/scripts/checkpatch.pl --strict --no-tree --root=$SRC --terse --showfile --no-summary"
	# It leaves a file where it runs.
	# shellcheck disable=SC2086
	{ ours; tests; } | sed "s|^|$TOP/|" |
		(cd "$out" && xargs -P "$JOBS" -n 4 $checkpatch -f) | sed "s|^$TOP/||"
	# On stdin, or a file that is in git is not taken for a patch.
	for patch in patches/*/*.patch; do
		(cd "$out" && $checkpatch --no-signoff --ignore FILE_PATH_CHANGES,NO_AUTHOR_SIGN_OFF -) <"$patch" |
			sed "s|^|$(basename "$patch"): |"
	done
	return 0
}

# Comments that tools turn into documentation.
kernel_doc() {
	# shellcheck disable=SC2046
	"$SRC/scripts/kernel-doc" -none -Wall $(ours) 2>&1
}

abi_text() { "$SRC/scripts/get_abi.pl" validate --dir Documentation/ABI 2>&1; }

# The documents, with the kernel's configuration of Sphinx.
documentation() {
	need_packages python3-sphinx python3-sphinx-rtd-theme >&2
	rm -rf "$out/html"
	srctree=$TOP BUILDDIR=$out/html KERNELVERSION=$SERIES sphinx-build -q -b html \
		-D kerneldoc_bin="$SRC/scripts/kernel-doc" -D kerneldoc_srctree="$TOP" \
		-c "$SRC/Documentation" -d "$out/html/trees" \
		Documentation/virt/kvm/dmm "$out/html" 2>&1 | sed '/^Using .* theme$/d'
	return 0
}

# Compiler warnings and sparse, of what is ours and of the files that hooks change.
# Files that were compiled before are compiled again, or they would be silent.
compile() {
	local tree=$OUT/static/kbuild file
	{ ours; hooked; } | while read -r file; do rm -f "$tree/${file%.[ch]}.o"; done
	"$DMM/modules.sh" --static W=1 C=1 >"$out/compile.log" 2>&1 ||
		{ tail -n 20 "$out/compile.log"; return 1; }
	{ ours; hooked; } >"$out/files"
	# Paths are as Kbuild gives them, or below the build folder.
	sed -e "s|^$tree/||" -e 's|arch/x86/kvm/\.\./\.\./\.\./||' "$out/compile.log" |
		awk -F : 'BEGIN { while ((getline f < ARGV[2]) > 0) file[f]; ARGV[2] = "" }
			/(warning|error):/ && ($1 in file)' - "$out/files" | sort -u
	grep 'ERROR: modpost\|WARNING: modpost' "$out/compile.log"
	return 0
}

# Exported functions that none of the modules here uses.
exports() {
	local ko
	for ko in "$OUT"/modules/kvm-*.ko; do
		nm -u "$ko"
	done | awk '{ print $2 }' | sort -u >"$out/used"
	sed -n 's/^EXPORT_SYMBOL.*(\(.*\));/\1/p' virt/kvm/dmm/*.c | sort |
		comm -23 - "$out/used" | sed 's/$/: exported, but no module uses it/'
}

checks=(checkpatch kernel_doc abi_text documentation compile exports)
[ $# = 0 ] || checks=("$@")
n=0 bad=0
for check in "${checks[@]}"; do
	n=$((n + 1))
	"$check" >"$out/$check.all" && rc=0 || rc=$?
	accept "$out/$check.all" >"$out/$check"
	if [ "$rc" = 0 ] && [ ! -s "$out/$check" ]; then
		echo "ok $n $check"
	else
		head -n 40 "$out/$check" | sed 's/^/# /'
		echo "not ok $n $check # $(wc -l <"$out/$check") reports"
		bad=1
	fi
done
exit $bad
