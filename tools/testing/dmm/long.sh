#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# "make torture", "make load": in an emulated host for as long as one likes.
#
#   SECONDS=	how long, in the host's time (600)
#   SEED=	for the random numbers of torture (the time)
#   NPT=	1: nested paging, 0: shadow paging (1)
#   KERNEL=	stock or debug (stock); the debug kernel must have been built

# bash counts SECONDS itself, from what it finds.
seconds=$(tr '\0' '\n' </proc/$$/environ | sed -n 's/^SECONDS=//p')

. "$(dirname "$0")/common.sh"

KREL=$(choose_release)
export KREL
release_dirs
seconds=${seconds:-600}
npt=${NPT:-1}
case ${1:-} in
torture) command="dmm/torture -t $seconds ${SEED:+-s $SEED}" ;;
load)	command="DMM_LOAD_SECONDS=$seconds dmm/load_test -t many_vms" ;;
*)	die "torture or load?" ;;
esac
log=$OUT/host/$1.$npt.log
say "${1^^}" "$seconds seconds, console in $log"
exec "$DMM/host.sh" --kernel "${KERNEL:-stock}" --npt "$npt" --mem 3G --load zram --unload \
	--timeout $((seconds * 4 + 600)) --log "$log" --files "$OUT/selftests/bin:/t" -- "$command"
