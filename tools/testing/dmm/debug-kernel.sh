#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build a kernel for tests from the same source package into the cache folder;
# nothing to do if it is there.
#
#   debug-kernel.sh [--kcsan] [--have]
#
# It is tinyconfig plus debug.config, and with --kcsan plus kcsan.config.  --have:
# only tell whether it is there.

. "$(dirname "$0")/common.sh"

kind=debug have=''
fragments=("$DMM/debug.config")
for arg in "$@"; do
	case $arg in
	--kcsan)	kind=kcsan; fragments+=("$DMM/kcsan.config") ;;
	--have)		have=1 ;;
	*)		die "unknown option $arg" ;;
	esac
done

KREL=$(choose_release)
export KREL
"$DMM/fetch.sh"
release_dirs
to=$REL/$kind
want=$({ cat "$REL/complete"; cat "${fragments[@]}" | sha256sum; } | tr '\n' ' ')
up_to_date() { [ "$(cat "$to.stamp" 2>/dev/null)" = "$want" ]; }

if up_to_date; then exit 0; fi
[ -z "$have" ] || exit 1
# shellcheck disable=SC2086
need_packages $PKG_DEBUG
cache_lock
if up_to_date; then exit 0; fi

log=$to.log
say BUILD "$kind kernel (about 8 minutes on two cores; log: $log)"
rm -f "$to.stamp"
mkdir -p "$to"
logged "$log" make -C "$SRC" O="$to" tinyconfig
(cd "$to" && logged "$log" "$SRC/scripts/kconfig/merge_config.sh" -m -O "$to" .config "${fragments[@]}")
logged "$log" make -C "$SRC" O="$to" olddefconfig

# A symbol that Kconfig dropped would be missed only by its silence.
sed -n 's/^\(CONFIG_[A-Z0-9_]*=.*\)/\1/p' "${fragments[-1]}" | while read -r line; do
	grep -qxF "$line" "$to/.config" || echo "  ${line}"
done >"$to.dropped"
if [ -s "$to.dropped" ]; then
	say CONFIG "not in force in the $kind kernel:"
	cat "$to.dropped"
fi

# KCSAN is to watch the modules that are under test, which modules.sh builds, and
# nothing else.
make -C "$SRC" O="$to" -j"$JOBS" KCSAN_SANITIZE=n bzImage modules >"$log" 2>&1 &
make=$!
trap 'kill $make 2>/dev/null || true' EXIT
total=2700
while kill -0 $make 2>/dev/null; do
	sleep 20
	say BUILD "$(grep -cE '^  (CC|AS|LD|AR)' "$log" || true) of about $total steps"
done
trap - EXIT
wait $make || { tail -n 30 "$log" >&2; die "the $kind kernel does not build"; }
echo "$want" >"$to.stamp"
