// SPDX-License-Identifier: GPL-2.0-only
/*
 * Many small VMs at once, whose policies come and go, for $DMM_LOAD_SECONDS if that
 * is set.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

/* The debug kernel spends some twenty times as long on a VM: fewer of them there. */
#define FEW	10
#define VMS	200
#define SIZE	(2UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define CYCLES	3	/* at least */
/* What slabs, stocks of pages and the test itself may still take after a warm-up. */
#define GROWTH	(8UL << 20)

struct load_vm {
	struct dmm_mem mem;
	struct dmm_guest *guest;
	uint64_t seed;
};

FIXTURE(load) {
	struct load_vm vm[VMS];
};

FIXTURE_SETUP(load)
{
	struct rlimit files = { .rlim_cur = 8192, .rlim_max = 8192 };

	TEST_ASSERT(!setrlimit(RLIMIT_NOFILE, &files), "setrlimit() failed");
}

FIXTURE_TEARDOWN(load)
{
}

static void begin(struct load_vm *vm, unsigned int i)
{
	vm->mem = dmm_mem_create(SIZE);
	vm->guest = dmm_guest_create(1);
	dmm_guest_add_mem(vm->guest, &vm->mem);
	vm->seed = (i + 1) | DMM_HALF;
	dmm_pool_set(vm->mem.ino, "domain", "load");
	dmm_guest_fill(vm->guest, DMM_GPA, PAGES, vm->seed);
}

static void end(struct load_vm *vm)
{
	dmm_guest_free(vm->guest);
	dmm_mem_free(&vm->mem);
}

/* Each VM has other policies in each cycle, and a limit where one can make room. */
static void switch_policies(struct __test_metadata *_metadata, struct load_vm *vm,
			    unsigned int i)
{
	static const char *const policies[][2] = {
		{ "+swap", "+share" },
		{ "-share", "-swap" },
		{ "+share", "+swap" },
		{ "-swap", "-share" },
	};
	const char *const *both = policies[i % ARRAY_SIZE(policies)];
	bool on = both[0][0] == '+';
	unsigned int n;
	int r;

	/* A policy that has content goes only if that fits. */
	if (!on)
		ASSERT_EQ(0, dmm_pool_set(vm->mem.ino, "max_bytes", "max"));
	for (n = 0; n < ARRAY_SIZE(policies[0]); n++) {
		r = dmm_pool_set(vm->mem.ino, "policies", both[n]);
		/* A VM that is new has none. */
		EXPECT_TRUE(!r || (!on && r == -ENOENT)) {
			TH_LOG("%s: %d", both[n], r);
		}
		EXPECT_EQ(on, dmm_has_policy(vm->mem.ino, both[n] + 1));
	}
	if (on)
		EXPECT_EQ(0, dmm_pool_set_bytes(vm->mem.ino, "max_bytes", SIZE / 4 * 3));
}

static uint64_t seconds(void)
{
	const char *value = getenv("DMM_LOAD_SECONDS");

	return value ? atoi_positive("DMM_LOAD_SECONDS", value) : 0;
}

/* All at once, half of them anew each time, each with its own content for ever. */
static void run(struct __test_metadata *_metadata, struct load_vm *vm, unsigned int vms)
{
	uint64_t used = 0, over = dmm_now_ms() + seconds() * 1000;
	unsigned int cycle, i;

	for (cycle = 0; cycle < CYCLES || dmm_now_ms() < over; cycle++) {
		for (i = 0; i < vms; i++)
			begin(&vm[i], i + cycle);
		for (i = 0; i < vms; i++)
			switch_policies(_metadata, &vm[i], i + cycle);
		for (i = 0; i < vms; i++)
			ASSERT_EQ(0, dmm_guest_bad_pages(vm[i].guest, DMM_GPA, PAGES,
							 vm[i].seed));
		for (i = cycle & 1; i < vms; i += 2) {
			end(&vm[i]);
			begin(&vm[i], i);
		}
		for (i = 0; i < vms; i++) {
			switch_policies(_metadata, &vm[i], i + cycle + 1);
			ASSERT_EQ(0, dmm_guest_bad_pages(vm[i].guest, DMM_GPA, PAGES,
							 vm[i].seed));
		}
		for (i = 0; i < vms; i++)
			end(&vm[i]);
		/* Pools go when the last reference to their files is gone. */
		for (i = 0; i < vms; i++)
			EXPECT_TRUE(dmm_pool_gone(vm[i].mem.ino));
		printf("# cycle %u: %lu KiB of the host's memory\n", cycle,
		       dmm_host_used() >> 10);
		if (!cycle)
			used = dmm_host_used();
		ASSERT_LT(dmm_host_used(), used + GROWTH + dmm_host_held_back());
	}
}

TEST_F_TIMEOUT(load, few_vms, 600)
{
	if (!dmm_policy_loaded("swap") || !dmm_policy_loaded("share"))
		SKIP(return, "no policy swap or share");
	run(_metadata, self->vm, FEW);
}

/* With time for what is asked for. */
TEST_F_TIMEOUT(load, many_vms, seconds() * 4 + 1200)
{
	if (!dmm_policy_loaded("swap") || !dmm_policy_loaded("share"))
		SKIP(return, "no policy swap or share");
	run(_metadata, self->vm, VMS);
}

TEST_HARNESS_MAIN
