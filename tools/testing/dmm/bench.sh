#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Measure what guest memory costs, in instructions of the emulated host: one
# boot per paging mode and, for guests that don't use dmmfs, one more with our
# modules and one with Debian's own.

. "$(dirname "$0")/common.sh"

usage() {
	cat <<'U'
usage: bench.sh [OPTION...] [ROW-PATTERN...]
  --paging npt|shadow	only one of them (both)
  --runs N		runs that count, after one that doesn't (5)
  --hosts N		emulated hosts at a time (as many as CPUs, at most 2)
  --out DIR		where results go (build/<release>/bench, or bench-part
			if not everything is measured)
  --doc			measure nothing: put the results of the last full run
			into the documentation
Results: bench.md and bench.json, and a summary for the eye.  The exit status is
1 if a target is not met or something could not be measured.

A row is a file bench/rows/*.row; bench/rows/README tells how to write one.
ROW-PATTERN: name of a row without .row, or a pattern as '8?-*'.
U
	exit "${1:-0}"
}

only='' runs=5 out='' doc='' hosts=$((JOBS < 2 ? JOBS : 2))
patterns=()
while [ $# -gt 0 ]; do
	case $1 in
	--paging)	only=$2; shift ;;
	--runs)		runs=$2; shift ;;
	--hosts)	hosts=$2; shift ;;
	--out)		out=$2; shift ;;
	--doc)		doc=1 ;;
	-h|--help)	usage ;;
	-*)		usage 2 >&2 ;;
	*)		patterns+=("$1") ;;
	esac
	shift
done
case $only in ''|npt|shadow) ;; *) usage 2 >&2 ;; esac

need_packages python3
KREL=$(choose_release)
export KREL
release_dirs
report=$DMM/bench/report
if [ -z "$out" ]; then
	out=$OUT/bench
	[ ${#patterns[@]} = 0 ] && [ -z "$only" ] || out=$OUT/bench-part
fi

if [ -n "$doc" ]; then
	docs=$TOP/Documentation/virt/kvm/dmm
	[ -e "$out/bench.json" ] || die "no results: run make bench"
	"$report" into "$docs/benchmark.rst" "$out/bench.json"
	"$DMM/bench/chart" "$out/bench.json" >"$docs/benchmark.svg"
	say DOC "Documentation/virt/kvm/dmm/benchmark.rst, benchmark.svg"
	exit
fi

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

# read_rows PAGING: what to measure, as "report collect" wants it.
read_rows() {
	local file name key value line paging
	for file in "$DMM"/bench/rows/*.row; do
		name=$(basename "$file" .row)
		wanted "$name" || continue
		line=row$'\t'$1$'\t'$name
		paging=''
		while read -r key value || [ -n "$key" ]; do
			case $key in
			''|'#'*)	continue ;;
			paging)		paging=$value ;;
			title|name|unit|measure|against|against-stock|against-name|target-npt|target-shadow) ;;
			*)		die "$name.row: what is \"$key\"?" ;;
			esac
			line+=$'\t'$key=$value
		done <"$file"
		for key in title measure; do
			[[ $line == *$'\t'$key=?* ]] || die "$name.row: no $key"
		done
		[ -z "$paging" ] || [ "$paging" = "$1" ] || continue
		echo "$line"
	done
}

# commands BOOT: what the rows given want to have measured there, each once.
# Rows that compare with Debian's modules have two boots of their own, which
# differ in nothing else: what ran before leaves traces in the page allocator.
commands() {
	local keys='measure|against' stock=-v
	case $1 in
	plain)	stock='' keys=measure ;;
	stock)	stock='' keys=against-stock ;;
	esac
	{ grep $stock $'\tagainst-stock=' || true; } | tr '\t' '\n' |
		sed -nE "s/^($keys)=//p" | awk '!seen[$0]++'
}

# boot PAGING BOOT LIST: measure, append to $tmp/PAGING/values.
boot() {
	local word file npt=1 args=() rc=0 n round value dir=$tmp/$1
	[ "$1" = npt ] || npt=0
	if [ "$2" = stock ]; then args=(--modules stock); else args=(--modules "$tmp/modules"); fi
	rm -rf "$dir/files"
	mkdir "$dir/files"
	cp "$3" "$dir/files/list"
	install -m 755 "$DMM/bench/run" "$dir/files/"
	# shellcheck disable=SC2013	# words, indeed
	for word in $(cat "$3"); do
		for file in "$testbin/$word" "$testbin/dmm/$word" "$DMM/bench/$word"; do
			[ ! -x "$file" ] || [ -d "$file" ] || cp "$file" "$dir/files/"
		done
	done
	say BOOT "$1, $2: $(wc -l <"$3") commands, $runs runs and one to warm up"
	"$DMM/host.sh" --icount --npt "$npt" --mem 3G --timeout 3600 --files "$dir/files" \
		"${args[@]}" --result "$dir/result" --log "$OUT/host/bench-$1-$2.log" \
		-- ./run list $((runs + 1)) || rc=$?
	if [ "$rc" != 0 ]; then
		echo "bench.sh: a run with $1, $2, ended with status $rc" >&2
		return 1
	fi
	grep '^bench ' "$dir/result" | while read -r _ n round value; do
		case $value in
		missing|failed)	;;
		*)		[ "$round" != 0 ] || continue ;;
		esac
		printf 'value\t%s\t%s\t%s\t%s\n' "$1" "$2" "$(sed -n "${n}p" "$3")" "$value"
	done >>"$dir/values"
}

# measure PAGING: all boots with it.
measure() {
	local boot failed=0
	for boot in ours plain stock; do
		commands "$boot" <"$tmp/$1/rows" >"$tmp/$1/list"
		[ ! -s "$tmp/$1/list" ] || boot "$1" "$boot" "$tmp/$1/list" || failed=1
	done
	return $failed
}

mkdir -p "$out"
status=0
tmp=$(mktemp -d "$OUT/bench.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
cp -r "$OUT/modules" "$tmp/modules"	# the same ones in every boot
commit=$(git -C "$TOP" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
[ -z "$(git -C "$TOP" status --porcelain -uno 2>/dev/null)" ] || commit=$commit-dirty

pagings=()
for paging in npt shadow; do
	[ -z "$only" ] || [ "$only" = "$paging" ] || continue
	mkdir "$tmp/$paging"
	: >"$tmp/$paging/values"
	read_rows "$paging" >"$tmp/$paging/rows"
	[ ! -s "$tmp/$paging/rows" ] || pagings+=("$paging")
done
[ ${#pagings[@]} -gt 0 ] || die "no such rows"

# Counting is not disturbed by what runs beside it.
children=()
for paging in "${pagings[@]}"; do
	(measure "$paging") > >(sed -u "s/^/$paging: /") 2>&1 &
	children+=($!)
	[ "$hosts" -gt 1 ] || wait $! || status=1
done
if [ "$hosts" -gt 1 ]; then
	for child in "${children[@]}"; do
		wait "$child" || status=1
	done
fi

for paging in "${pagings[@]}"; do
	cat "$tmp/$paging/values" "$tmp/$paging/rows"
done | "$report" collect date="$(date -u +%Y-%m-%dT%H:%M:%SZ)" release="$KREL" commit="$commit" \
	qemu="$(qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9.]*\).*/QEMU \1/p')" \
	runs="$runs" >"$out/bench.json"
"$report" markdown "$out/bench.json" >"$out/bench.md"
"$report" text "$out/bench.json"
"$report" check "$out/bench.json" || status=1
say RESULT "${out#"$TOP"/}/bench.md, bench.json"
exit "$status"
