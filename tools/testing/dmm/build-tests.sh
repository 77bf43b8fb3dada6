#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build the selftests, with the packages that takes.

. "$(dirname "$0")/common.sh"

# shellcheck disable=SC2086
need_packages $PKG_TESTS
KREL=$(choose_release)
export KREL
"$DMM/fetch.sh"
release_dirs
mkdir -p "$OUT"
exec 8>"$OUT/lock"
flock 8
say BUILD "selftests (log: build/$KREL/selftests.log)"
logged "$OUT/selftests.log" "$DMM/selftests.sh" -j "$JOBS"
