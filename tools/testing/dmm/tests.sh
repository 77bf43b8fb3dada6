#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Run the tests that tools/testing/dmm/lists names in emulated hosts, as many as
# possible in one boot, and sum up.

. "$(dirname "$0")/common.sh"

usage() {
	cat <<'U'
usage: tests.sh [OPTION...] [NAME-PATTERN...]
  --set quick|full|long	the lists' rows to run: full adds to quick, long are
			those only that take longer than CI may (quick)
  --only-new		with --set full: leave the rows of quick out
  --kernel stock|debug|kcsan|intel|local	where (stock); intel: the stock kernel
			on a CPU of Intel in Bochs; local: on this machine
  --npt 0|1		only nested (1: NPT, EPT) or only shadow paging (0)
  --deadline SECONDS	start no test later than this (epoch)
  --again		run what fails once more, and say so, if the kernel reported
			nothing
  --no-summary		the caller sums up by "tests.sh --summary"
  --new			forget earlier results
  --summary		only print what the results so far amount to

Rows of lists/*.list:   SET KERNELS NPT TIMEOUT NAME COMMAND...
  SET		quick, full or long
  KERNELS	stock, debug, both, all (both, and local), kcsan (and what both has),
		intel or local
  NPT		1, 0 or any
  TIMEOUT	seconds on the stock kernel; debug and kcsan get four times that
  COMMAND	a shell command; test programs are in /t.  One that contains @
		is run for each program that the pattern NAME matches in /t.
		One whose first word begins with guest runs in a host of its own,
		with QEMU and a guest's kernel (see guest --help).
Rows of lists/upstream.list:   SET TIMEOUT NPT1 NPT0 PROGRAM ARG...
  NPT1, NPT0	the verdict that must come: pass, fail, skip, or none: not run
U
	exit "${1:-0}"
}

set=quick only_new='' kernel=stock only_npt='' deadline='' again='' summary=1 new='' run=1
patterns=()
while [ $# -gt 0 ]; do
	case $1 in
	--set)		set=$2; shift ;;
	--only-new)	only_new=1 ;;
	--kernel)	kernel=$2; shift ;;
	--npt)		only_npt=$2; shift ;;
	--deadline)	deadline=$2; shift ;;
	--again)	again=1 ;;
	--no-summary)	summary= ;;
	--new)		new=1 ;;
	--summary)	run= ;;
	-h|--help)	usage ;;
	-*)		usage 2 >&2 ;;
	*)		patterns+=("$1") ;;
	esac
	shift
done

KREL=$(choose_release)
export KREL
release_dirs
results=$OUT/results
mkdir -p "$OUT"
unstable=$OUT/results.unstable	# what failed, but was run once more
[ -z "$new" ] || rm -f "$results" "$unstable"
touch "$results" "$unstable"

print_summary() {
	local p f s
	echo
	# A test that ran again counts by its last result.
	awk '{ last[$1 " " $2] = $0 } END { for (i in last) print last[i] }' "$results" |
		sort >"$results.last"
	awk '$4 > 0 { name = $1 " " $2; $1 = $2 = $3 = $4 = $5 = $6 = ""; sub(/^ */, "");
		printf "FAILED  %-48s %s\n", name, $0 }' "$results.last"
	sed 's/^/UNSTABLE  /' "$unstable"
	awk '/ not run, / { printf "NOT RUN  %s %s\n", $1, $2 }' "$results.last"
	read -r p f s < <(awk '{ p += $3; f += $4; s += $5 }
		END { print p + 0, f + 0, s + 0 }' "$results.last")
	echo "$p passed, $f failed, $s skipped"
	[ "$f" = 0 ] && [ "$p" -gt 0 ]
}

# All rows in one form, comments and blank lines dropped:
# SET KERNELS NPT TIMEOUT EXPECT NAME COMMAND...
rows() {
	local f
	for f in "$DMM"/lists/*.list; do
		case $(basename "$f") in
		upstream.list)
			sed -e 's/#.*//' "$f" | awk 'NF >= 5 {
				name = "upstream"; cmd = "/t"
				for (i = 5; i <= NF; i++) {
					name = name (i == 5 ? "/" : ",") $i
					cmd = cmd (i == 5 ? "/" : " ") $i
				}
				for (npt = 1; npt >= 0; npt--) {
					want = npt ? $3 : $4
					if (want == "none" || want == "-") continue
					print $1, "both", npt, $2, "=" want, name, "KVM_SELFTEST_BACKING=dmmfs", cmd
				}
			}'
			;;
		*)
			sed -e 's/^#.*//' "$f" | awk 'NF >= 6 {
				printf "%s %s %s %s any", $1, $2, $3, $4
				for (i = 5; i <= NF; i++) printf " %s", $i
				print ""
			}'
			;;
		esac
	done
}

# select NPT: the rows to run, as /dmm/tests wants them
select_rows() {
	local rset kernels rnpt limit expect name command program
	rows | while read -r rset kernels rnpt limit expect name command; do
		case $set:$rset in
		"$set:$set") ;;
		full:quick) [ -z "$only_new" ] || continue ;;
		*) continue ;;
		esac
		meant "$kernels" || continue
		[ "$rnpt" = any ] || [ "$rnpt" = "$1" ] || continue
		case $kernel in debug|kcsan) limit=$((limit * 4)) ;; esac
		case $command in
		*@*)
			for program in "$testbin"/$name; do
				[ -x "$program" ] || continue
				program=${program#"$testbin"/}
				! listed "$program" || continue
				wanted "$program" || continue
				echo "$program $limit $expect ${command//@//t/$program}"
			done
			;;
		*)
			wanted "$name" || continue
			echo "$name $limit $expect $command"
			;;
		esac
	done
}

# meant KERNELS: for this kernel?
meant() {
	case $1:$kernel in
	"$kernel:$kernel"|all:stock|all:debug|all:local|both:stock|both:debug|both:kcsan) ;;
	*) return 1 ;;
	esac
}

wanted() {
	local p
	[ ${#patterns[@]} -gt 0 ] || return 0
	for p in "${patterns[@]}"; do
		# shellcheck disable=SC2053	# a pattern, indeed
		[[ $1 != $p ]] || return 0
	done
	return 1
}

# A program with a row of its own is not run by a pattern's row.
listed() {
	local kernels
	for kernels in $(rows | awk -v n="$1" '$6 == n { print $2 }'); do
		! meant "$kernels" || return 0
	done
	return 1
}

late() { [ -n "$deadline" ] && [ "$(date +%s)" -ge "$deadline" ]; }

record() {	# WHERE NAME PASSED FAILED SKIPPED SECONDS WHY
	echo "$*" >>"$results"
}

run_one_local() {	# NAME LIMIT COMMAND
	local out=$OUT/local-${1//\//-}.out rc start why=-
	start=$(date +%s)
	echo "# $1 begins"
	(cd "$TOP" && timeout "$2" bash -c "$3") </dev/null >"$out" 2>&1 && rc=0 || rc=$?
	[ "$rc" = 0 ] || why="exit status $rc"
	# In one piece: another one may be at its end, too.
	flock "$results" cat - "$out" <<<"# $1, $(($(date +%s) - start)) s"
	# shellcheck disable=SC2046
	record local "$1" $(awk -v rc="$rc" '
		/^ok [0-9].*# *(SKIP|skip)/ { s++; next }
		/^ok [0-9]/ { p++ }
		/^not ok [0-9]/ { f++ }
		END {
			if (rc != 0 && rc != 4 && !f) f = 1
			if (!p && !f && !s) { if (rc == 4) s = 1; else p = 1 }
			print p + 0, f + 0, s + 0
		}' "$out") 0 "$why"
}

# Two at a time, as most are of one process.
run_local() {
	local name limit expect command
	select_rows any | {
		while read -r name limit expect command; do
			[ "$(jobs -pr | wc -l)" -lt 2 ] || wait -n || true
			run_one_local "$name" "$limit" "$command" &
		done
		wait
	}
}

# Boot until every test of the list had its turn: a crash costs the test that
# caused it, not those after it.
#
# Linux guests run on one CPU: with two CPUs that take turns, QEMU's emulation
# of SVM lets a guest's interrupt in while the guest has them off, sooner or
# later, and the guest hangs in a spinlock (also with Debian's own kvm.ko).
run_emulated() {	# NPT plain|guests
	local npt=$1 kind=$2 dir where rc name boots=0 hostlog args why limit cut left
	where=$kernel/npt=$npt
	[ "$kernel" != intel ] || where=intel/ept=$npt
	dir=$(mktemp -d "$OUT/tests.XXXXXX")
	mkdir -p "$dir/dmm"
	select_rows "$npt" | awk -v kind="$kind" '
		(kind == "guests") == ($4 ~ /^guest/)' >"$dir/dmm/tests"
	install -m 755 "$DMM"/{run-tests,abi-test,trace-test} "$dir/dmm/"
	cat "$TOP"/Documentation/ABI/testing/*kvm_dmm >"$dir/dmm/abi"
	while [ -s "$dir/dmm/tests" ]; do
		if late; then
			echo "# no time left for $(wc -l <"$dir/dmm/tests") tests on $where"
			break
		fi
		[ -z "$deadline" ] || echo $((deadline - $(date +%s))) >"$dir/dmm/seconds"
		[ -z "$again" ] || touch "$dir/dmm/again"
		boots=$((boots + 1))
		[ "$boots" -le 8 ] || { record "$where" boots 0 1 0 0 "the host died too often"; break; }
		say BOOT "$where, $(wc -l <"$dir/dmm/tests") programs"
		hostlog=$OUT/host/$kernel-npt$npt-$kind-$boots.log
		# The deadline may cut a test off, which is no result: it had time of its own.
		limit=$(awk '{ t += $2 } END { print t + 120 }' "$dir/dmm/tests")
		cut=
		if [ -n "$deadline" ] && [ "$limit" -gt $((deadline - $(date +%s) + 600)) ]; then
			limit=$((deadline - $(date +%s) + 600))
			cut=1
		fi
		args=(--kernel "${kernel/intel/stock}" --npt "$npt" --mem 3G --unload --timeout "$limit"
			--files "$dir/dmm:/dmm" --result "$dir/result" --log "$hostlog")
		if [ "$kernel" = intel ]; then
			args+=(--kvm intel --mem 1G)
			# It takes a second for each MiB to boot from.
			{ grep -o '/t/[^ ;]*' "$dir/dmm/tests" || true; } | sort -u | while read -r name; do
				install -D "$testbin/${name#/t/}" "$dir/programs/${name#/t/}"
			done
			[ ! -d "$dir/programs" ] || args+=(--files "$dir/programs:/t")
		elif [ -d "$testbin" ]; then
			args+=(--files "$testbin:/t")
		fi
		case $kind in
		plain)	[ "$kernel" = intel ] || args+=(--smp 2)
			args+=(--load zram)	# for direct I/O
			;;
		guests)	args+=(--smp 1 --kit) ;;
		esac
		rc=0
		: >"$dir/result"
		"$DMM/host.sh" "${args[@]}" -- /dmm/run-tests || rc=$?
		[ "$rc" != 130 ] || exit 130	# ^C, which is meant for all
		awk -v where="$where" '$1 == "test" && $2 == "end" {
			sub(/^test end/, where); print }' "$dir/result" >>"$results"
		awk -v where="$where" '$1 == "test" && $2 == "again" {
			line = where " " $3 ", after " $4 " s:"
			for (i = 5; i <= NF; i++) line = line " " $i
			print line }' "$dir/result" >>"$unstable"
		awk '$1 == "test" && $2 == "end" { print $3 }' "$dir/result" >"$dir/done"
		# What was running when the host died?
		name=$(awk '$1 == "test" && $2 == "start" { n = $3 } $1 == "test" && $2 == "end" { n = "" }
			END { print n }' "$dir/result")
		case $rc in
		0|1)	[ -z "$name" ] || die "host.sh lost a test"
			left=$(awk -v over="$dir/done" 'BEGIN { while ((getline n < over) > 0) done[n] = 1 }
				!($1 in done) { n++ } END { print n + 0 }' "$dir/dmm/tests")
			# Unless time was over: silence is failure.
			if [ "$left" -gt 0 ] && { [ -z "$deadline" ] ||
			   { [ "$rc" = 1 ] && [ ! -s "$dir/result" ]; }; }; then
				record "$where" boot 0 1 0 0 "host.sh: status $rc, $left programs have not run"
			fi
			;;
		119)	record "$where" unload 0 1 0 0 "the modules do not unload" ;;
		120|121|122|123)
			record "$where" boot 0 1 0 0 "the modules do not load ($rc)"
			break
			;;
		124)	why="timeout of the whole run"
			if [ -n "$cut" ]; then
				echo "# no time left for ${name:-the end of the run} on $where"
				break
			fi
			;;
		125)	why="the host died" ;;
		126)	why="the kernel reported a problem" ;;
		127)	why="the emulator died twice, no result" ;;
		*)	record "$where" boot 0 1 0 0 "host.sh: status $rc" ;;
		esac
		case $rc:$name in
		126:)	# Recorded already, if a test of the list was the cause.
			awk '$1 == "test" && $2 == "end" && $5 > 0 { bad = 1 } END { exit !bad }' "$dir/result" ||
				record "$where" kernel 0 1 0 0 "$why"
			break
			;;
		124:|125:|127:)
			record "$where" boot 0 1 0 0 "$why"
			break
			;;
		124:*|125:*|126:*|127:*)
			record "$where" "$name" 0 1 0 0 "$why"
			echo "$name" >>"$dir/done"
			;;
		*)	break ;;
		esac
		awk -v over="$dir/done" 'BEGIN { while ((getline n < over) > 0) done[n] = 1 }
			!($1 in done)' "$dir/dmm/tests" >"$dir/rest"
		mv "$dir/rest" "$dir/dmm/tests"
	done
	# What the deadline has cut off is not forgotten.
	if [ -n "$deadline" ]; then
		touch "$dir/done"
		awk -v over="$dir/done" 'BEGIN { while ((getline n < over) > 0) done[n] = 1 }
			!($1 in done) { print $1 }' "$dir/dmm/tests"
	fi | while read -r name; do
		record "$where" "$name" 0 0 1 0 "not run, no time left"
	done
	rm -rf "$dir"
}

run_mode() {	# NPT
	run_emulated "$1" plain
	run_emulated "$1" guests
}

# An emulated host takes one CPU and up to 3 GiB.
side_by_side() {
	[ "$JOBS" -ge 2 ] && [ "$(awk '/^MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)" -ge 7 ]
}

# Nested and shadow paging at the same time.  Each has a process group, so that
# a ^C ends what runs in it.
run_both() {
	local npt pid pids=() bad=0
	set -m
	for npt in 1 0; do
		{ run_mode "$npt" 2>&1 | sed -u "s/^/npt=$npt  /"; } </dev/null &
		pids+=($!)
	done
	set +m
	# shellcheck disable=SC2064	# these groups
	trap "kill -- ${pids[*]/#/-} 2>/dev/null; exit 130" INT TERM
	for pid in "${pids[@]}"; do wait "$pid" || bad=1; done
	trap - INT TERM
	[ "$bad" = 0 ] || die "a host could not be run"
}

testbin=$OUT/selftests/bin
modes=()
if [ -n "$run" ]; then
	if [ "$kernel" = local ]; then
		run_local
	else
		for npt in 1 0; do
			[ -z "$only_npt" ] || [ "$only_npt" = "$npt" ] || continue
			modes+=("$npt")
		done
		if [ ${#modes[@]} = 2 ] && side_by_side; then
			run_both
		else
			for npt in "${modes[@]}"; do run_mode "$npt"; done
		fi
	fi
fi
[ -z "$summary" ] || print_summary
