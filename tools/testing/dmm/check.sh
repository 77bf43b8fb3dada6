#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What "make check", "make check-full", "make check-debug", "make check-kcsan" and
# "make check-ept" run.

. "$(dirname "$0")/common.sh"

tests=$DMM/tests.sh
KREL=$(choose_release)
export KREL
args=()
[ -z "${DEADLINE:-}" ] || args+=(--deadline "$DEADLINE")

debug() {
	if [ -n "${DEADLINE:-}" ] && [ $((DEADLINE - $(date +%s))) -lt 1500 ] &&
	   ! "$DMM/debug-kernel.sh" --have; then
		echo "# no time left to build the debug kernel"
		echo "debug all 0 0 1 0 not run, no time left" >>"$TOP/build/$KREL/results"
		return
	fi
	"$DMM/debug-kernel.sh"
	"$DMM/modules.sh" --debug
	"$tests" --no-summary --kernel debug "${args[@]}" "$@"
}

case ${1:-quick} in
quick)
	"$tests" --no-summary --new --kernel local
	"$tests" --no-summary "${args[@]}"
	;;
full)
	"$tests" --no-summary --new --kernel local --set full
	"$tests" --no-summary --set full "${args[@]}"
	debug
	"$tests" --no-summary --kernel local --set long
	"$tests" --no-summary --set long
	;;
rest)	# what full has and quick has not, but nothing that takes longer than CI may;
	# added to quick's results.  Two hosts and a deadline leave tests less time
	# than they may want: what fails is run once more, and named in the end.
	args+=(--again)
	"$tests" --no-summary --kernel local --set full --only-new
	"$tests" --no-summary --set full --only-new "${args[@]}"
	debug
	;;
debug)
	"$tests" --no-summary --new --kernel debug --npt none
	debug --set full
	;;
kcsan)	"$DMM/debug-kernel.sh" --kcsan
	"$DMM/modules.sh" --kcsan
	"$tests" --no-summary --new --kernel kcsan 'dmm/*' 'torture/*'
	;;
ept)	"$tests" --no-summary --new --kernel intel "${args[@]}" ;;
*)	die "quick, full, rest, debug, kcsan or ept?" ;;
esac
"$tests" --summary
