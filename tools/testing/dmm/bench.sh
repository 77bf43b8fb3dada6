#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Measure what guest memory costs, in instructions of the emulated host: one
# boot per paging mode with our modules and, for guests that don't use dmmfs,
# one with Debian's own.

. "$(dirname "$0")/common.sh"

usage() {
	cat <<'U'
usage: bench.sh [OPTION...] [ROW-PATTERN...]
  --paging npt|shadow	only one of them (both)
  --runs N		runs that count, after one that doesn't (5)
  --out DIR		where results go (build/<release>/bench)
Results: bench.md and bench.json, and a summary for the eye.  The exit status is
1 if a target is not met or something could not be measured.

A row is a file bench/rows/*.row of lines KEY VALUE:
  title			what is measured
  measure		a command that prints a number; programs of the
			selftests and files of bench/ are found by their name
  against		a command to compare with, in the same boot
  against-stock		the same in a boot with Debian's own KVM modules
  target-npt, target-shadow
			what the ratio may be, or the number if there is nothing
			to compare with: 0.5 or 1/2; none: for information
  unit			of the numbers (instructions/page)
  paging		npt or shadow: measure only there (both)
U
	exit "${1:-0}"
}

only='' runs=5 out=''
patterns=()
while [ $# -gt 0 ]; do
	case $1 in
	--paging)	only=$2; shift ;;
	--runs)		runs=$2; shift ;;
	--out)		out=$2; shift ;;
	-h|--help)	usage ;;
	-*)		usage 2 >&2 ;;
	*)		patterns+=("$1") ;;
	esac
	shift
done

KREL=$(choose_release)
export KREL
release_dirs
out=${out:-$OUT/bench}
testbin=$OUT/selftests/bin
[ -e "$OUT/modules/kvm.ko" ] || die "no modules: run make modules"
[ -x "$testbin/dmm/dmm_bench" ] || die "no test programs: run make selftests"

wanted() {
	local p
	[ ${#patterns[@]} -gt 0 ] || return 0
	for p in "${patterns[@]}"; do
		# shellcheck disable=SC2053	# a pattern, indeed
		[[ $1 != $p ]] || return 0
	done
	return 1
}

# read_rows PAGING: the rows to measure, as report.awk wants them
read_rows() {
	local file name key value
	for file in "$DMM"/bench/rows/*.row; do
		name=$(basename "$file" .row)
		wanted "$name" || continue
		local title='' unit=instructions/page paging='' measure='' against='' modules=ours target=''
		while read -r key value || [ -n "$key" ]; do
			case $key in
			''|'#'*)	;;
			title)		title=$value ;;
			unit)		unit=$value ;;
			paging)		paging=$value ;;
			measure)	measure=$value ;;
			against)	against=$value ;;
			against-stock)	against=$value modules=stock ;;
			"target-$1")	target=$value ;;
			target-npt|target-shadow) ;;
			*)		die "$name.row: what is \"$key\"?" ;;
			esac
		done <"$file"
		[ -n "$title" ] || die "$name.row: no title"
		[ -n "$measure" ] || die "$name.row: nothing to measure"
		[ -z "$paging" ] || [ "$paging" = "$1" ] || continue
		printf 'row\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$title" "$unit" "$1" \
			"$measure" "$against" "$modules" "$target"
	done
}

# commands MODULES: what the rows given want to have measured there, each once
commands() {
	awk -F '\t' -v modules="$1" '
		function add(c) { if (c != "" && !seen[c]++) print c }
		modules == "ours" { add($6) }
		modules == $8 { add($7) }'
}

# boot PAGING MODULES LIST: measure, append to $tmp/values
boot() {
	local word file npt=1 args=() rc=0 n round value
	[ "$1" = npt ] || npt=0
	if [ "$2" = ours ]; then args=(--modules "$tmp/modules"); else args=(--modules stock); fi
	rm -rf "$tmp/files"
	mkdir "$tmp/files"
	cp "$3" "$tmp/files/list"
	install -m 755 "$DMM/bench/run" "$tmp/files/"
	# shellcheck disable=SC2013	# words, indeed
	for word in $(cat "$3"); do
		for file in "$testbin/$word" "$testbin/dmm/$word" "$DMM/bench/$word"; do
			[ ! -x "$file" ] || [ -d "$file" ] || cp "$file" "$tmp/files/"
		done
	done
	say BOOT "$1, modules: $2, $(wc -l <"$3") commands, $runs runs and one to warm up"
	"$DMM/host.sh" --icount --npt "$npt" --timeout 3600 --files "$tmp/files" "${args[@]}" \
		--result "$tmp/result" --log "$OUT/host/bench-$1-$2.log" \
		-- ./run list $((runs + 1)) || rc=$?
	if [ "$rc" != 0 ]; then
		echo "bench.sh: a run with $1, modules $2, ended with status $rc" >&2
		status=1
	fi
	grep '^bench ' "$tmp/result" | while read -r _ n round value; do
		[ "$round" != 0 ] || [ "$value" = failed ] || continue
		printf 'value\t%s\t%s\t%s\t%s\n' "$1" "$2" "$(sed -n "${n}p" "$3")" "$value"
	done >>"$tmp/values"
}

mkdir -p "$out"
status=0
tmp=$(mktemp -d "$OUT/bench.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
cp -r "$OUT/modules" "$tmp/modules"	# the same ones in every boot
: >"$tmp/values"
: >"$tmp/rows"
commit=$(git -C "$TOP" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
[ -z "$(git -C "$TOP" status --porcelain -uno 2>/dev/null)" ] || commit=$commit-dirty

for paging in npt shadow; do
	[ -z "$only" ] || [ "$only" = "$paging" ] || continue
	read_rows "$paging" >"$tmp/rows.$paging"
	cat "$tmp/rows.$paging" >>"$tmp/rows"
	for modules in ours stock; do
		commands "$modules" <"$tmp/rows.$paging" >"$tmp/list"
		[ ! -s "$tmp/list" ] || boot "$paging" "$modules" "$tmp/list"
	done
done
[ -s "$tmp/rows" ] || die "no such rows"

date=$(date -u +%Y-%m-%dT%H:%M:%SZ)
note="Counted are instructions of the emulated host: no misses of caches or TLBs, and
not what a real exit costs.  Each figure is the median of $runs runs in one boot; spread
is the largest difference of two runs, of the worse side."
{
	printf 'info\trelease\t%s\ninfo\tcommit\t%s\ninfo\tdate\t%s\n' "$KREL" "$commit" "$date"
	cat "$tmp/values" "$tmp/rows"
} | awk -v runs="$runs" -v json="$out/bench.json" -v markdown="$tmp/md" -v text="$tmp/text" \
	-f "$DMM/bench/report.awk" || status=1
{
	echo "# What guest memory costs"
	echo
	echo "Kernel $KREL, commit $commit, $date."
	echo
	echo "$note"
	echo
	cat "$tmp/md"
} >"$out/bench.md"
cat "$tmp/text"
echo
echo "$note"
say RESULT "${out#"$TOP"/}/bench.md, bench.json"
exit "$status"
