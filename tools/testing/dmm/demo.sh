#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# "make demo": patched KVM in an emulated host, two Linux guests under stock
# QEMU on dmmfs.

. "$(dirname "$0")/common.sh"

KREL=$(choose_release)
export KREL
release_dirs
mkdir -p "$OUT"
files=$(mktemp -d "$OUT/demo.XXXXXX")
trap 'rm -rf "$files"' EXIT
install -m 755 "$DMM/demo" "$files/demo"

cat <<T

  A host is emulated here: Debian's kernel $KREL on a CPU with
  AMD virtualisation, so that KVM works without hardware for it.  Inside it,
  stock QEMU starts two Linux guests whose memory are files of dmmfs.

T
status=0
"$DMM/host.sh" --kit --smp 1 --mem 2G --timeout 300 --files "$files" "$@" -- demo || status=$?
if [ "$status" = 0 ]; then
	echo "demo: passed"
else
	echo "demo: FAILED (status $status)"
fi
exit "$status"
