#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Build the programs in tools/kvm/dmm, with the packages that takes.

. "$(dirname "$0")/common.sh"

need_packages gcc libc6-dev make libjson-c-dev
make -s -C "$TOP/tools/kvm/dmm"
say BUILT "tools/kvm/dmm/dmm-fork"
