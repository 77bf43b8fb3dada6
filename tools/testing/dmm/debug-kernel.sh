#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build the debug kernel (tinyconfig plus debug.config) from the same source
# package into the cache folder; nothing to do if it is there.
#
#   debug-kernel.sh [--have]	--have: only tell whether it is there

. "$(dirname "$0")/common.sh"

KREL=$(choose_release)
export KREL
"$DMM/fetch.sh"
release_dirs
fragment=$DMM/debug.config
want=$({ cat "$REL/complete"; sha256sum <"$fragment"; } | tr '\n' ' ')
up_to_date() { [ "$(cat "$REL/debug.stamp" 2>/dev/null)" = "$want" ]; }

if up_to_date; then exit 0; fi
[ "${1:-}" != --have ] || exit 1
# shellcheck disable=SC2086
need_packages $PKG_DEBUG
cache_lock
if up_to_date; then exit 0; fi

say BUILD "debug kernel (about 8 minutes on two cores; log: $REL/debug.log)"
rm -f "$REL/debug.stamp"
mkdir -p "$DEBUG"
log=$REL/debug.log
logged "$log" make -C "$SRC" O="$DEBUG" tinyconfig
(cd "$DEBUG" && logged "$log" "$SRC/scripts/kconfig/merge_config.sh" -m -O "$DEBUG" .config "$fragment")
logged "$log" make -C "$SRC" O="$DEBUG" olddefconfig

# A symbol that Kconfig dropped would be missed only by its silence.
sed -n 's/^\(CONFIG_[A-Z0-9_]*=.*\)/\1/p' "$fragment" | while read -r line; do
	grep -qxF "$line" "$DEBUG/.config" || echo "  ${line}"
done >"$REL/debug.dropped"
if [ -s "$REL/debug.dropped" ]; then
	say CONFIG "not in force in the debug kernel:"
	cat "$REL/debug.dropped"
fi

make -C "$SRC" O="$DEBUG" -j"$JOBS" bzImage modules >"$log" 2>&1 &
make=$!
trap 'kill $make 2>/dev/null || true' EXIT
total=2700
while kill -0 $make 2>/dev/null; do
	sleep 20
	say BUILD "$(grep -cE '^  (CC|AS|LD|AR)' "$log" || true) of about $total steps"
done
trap - EXIT
wait $make || { tail -n 30 "$log" >&2; die "the debug kernel does not build"; }
echo "$want" >"$REL/debug.stamp"
