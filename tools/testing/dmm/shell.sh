#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A prompt in the emulated host.  Options are those of host.sh.

. "$(dirname "$0")/common.sh"

KREL=$(choose_release)
export KREL
release_dirs
# One CPU: see run_emulated in tests.sh.
args=(--kit --smp 1 --mem 3G --shell "$@")
[ ! -d "$OUT/selftests/bin" ] || args+=(--files "$OUT/selftests/bin:/t")
exec "$DMM/host.sh" "${args[@]}" -- 'cat <<T

An emulated host with the KVM under test.  ^] X ends it at once, "exit" cleanly.

  guest                         a Linux guest on /dev/dmm, with a prompt (^A X ends it)
  guest -b -n a -w guestmem,64  the same in the background, verifying 64 MiB for ever
  tail -f /run/a.log            its console
  guest -c a info balloon       its QEMU monitor (balloon 96, info status, quit)
  ls /sys/kernel/kvm_dmm/pools  one folder for each memory file
  ls /t /t/dmm                  test programs
  dmesg -n 8                    kernel messages on this console

T'
