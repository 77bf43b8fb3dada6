# SPDX-License-Identifier: GPL-2.0-only
#
# Build and test KVM with dynamic memory mapping.  The recipes are in
# tools/testing/dmm; "make help" lists what there is.
#
#   KREL=	kernel release (default: the newest 6.12 cloud kernel of Debian 12; with
#		install and uninstall the running one)
#   JOBS=	parallel jobs (default: all CPUs)
#   ROWS=	for "make bench": names or patterns of rows (default: all)
#   SECONDS= SEED= NPT= for "make torture" and "make load": how long (600), with
#		which random numbers (the time), nested (1) or shadow paging (0)
#   DESTDIR=	for "make install": below this folder instead of /
#   W= C=	for "make modules", as in the kernel (W=1: warnings, C=2: sparse)

DMM := tools/testing/dmm
ifdef KREL
export KREL
endif
ifdef JOBS
export JOBS
endif
ifdef SECONDS
export SECONDS
endif
ifdef SEED
export SEED
endif
ifdef NPT
export NPT
endif
ifdef DESTDIR
export DESTDIR
endif

all: modules

modules:
	@$(DMM)/modules.sh $(if $(W),W=$(W)) $(if $(C),C=$(C)) $(if $(V),V=$(V))

selftests:
	@$(DMM)/build-tests.sh

demo: modules
	@$(DMM)/demo.sh

check: modules selftests
	@$(DMM)/check.sh quick

check-full: modules selftests
	@$(DMM)/check.sh full

check-debug: selftests
	@$(DMM)/check.sh debug

check-kcsan: selftests
	@$(DMM)/check.sh kcsan

check-ept: modules selftests
	@$(DMM)/check.sh ept

torture load: modules selftests
	@$(DMM)/long.sh $@

bench: modules selftests
	@$(DMM)/bench.sh $(ROWS)

bench-doc:
	@$(DMM)/bench.sh --doc

patchset:
	@$(DMM)/patchset.sh

install uninstall:
	@$(DMM)/install.sh $@

tools:
	@$(DMM)/tools.sh

shell: modules
	@$(DMM)/shell.sh

clean:
	rm -rf build tools/kvm/dmm/dmm-fork

help:
	@echo 'make modules      kvm.ko, kvm-amd.ko, kvm-intel.ko, kvm-dmm-*.ko in build/<release>/modules'
	@echo 'make demo         guests in an emulated host: resized, swapped, shared and forked while they run'
	@echo 'make check        tests, nested and shadow paging (15 minutes)'
	@echo 'make check-full   the long tests too, and the debug kernel'
	@echo 'make check-debug  tests on a kernel with KASAN, lockdep, kmemleak, fault injection'
	@echo 'make check-kcsan  tests with the modules watched for data races'
	@echo 'make check-ept    tests on a CPU of Intel that Bochs emulates, EPT and shadow paging'
	@echo 'make torture      everything at once, against a model: SECONDS=600 SEED=<number> NPT=1|0'
	@echo 'make load         200 VMs whose policies come and go: SECONDS=600 NPT=1|0'
	@echo 'make bench        what guest memory costs, against other kinds of memory'
	@echo 'make bench-doc    put the last results of make bench into the documentation'
	@echo 'make patchset     a series for "git am", in build/<release>/patchset'
	@echo 'make install      the modules for the running kernel, dmmfs on /dev/dmm; uninstall takes them away'
	@echo 'make tools        tools/kvm/dmm/dmm-fork, which forks running guests'
	@echo 'make shell        a prompt in the emulated host, with QEMU and a guest'
	@echo 'make selftests    build the test programs only'
	@echo 'make clean        remove build/; downloads and debug kernel stay in the cache'
	@echo
	@echo 'JOBS=<number> of jobs and hosts, ROWS="<names>" for bench, DESTDIR=<folder> for install,'
	@echo 'W=1 and C=2 for modules, as in the kernel'
	@echo 'KREL=<release> chooses the kernel, now: $(or $(KREL),the newest in Debian 12)'
	@echo 'cache: $${KVM_DMM_CACHE:-$${XDG_CACHE_HOME:-~/.cache}/kvm-dmm}'

.PHONY: all modules selftests tools demo check check-full check-debug check-kcsan check-ept torture load bench bench-doc shell clean help patchset install uninstall
