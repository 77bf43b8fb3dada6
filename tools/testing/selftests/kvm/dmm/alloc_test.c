// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where frames come from.  The first of all tests: once a control group was made
 * in a boot, pages are no more taken from the stocks that CPUs keep for it.
 */
#include <sched.h>
#include <sys/mman.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define OTHERS	(256UL << 20)	/* memory of a process, to find pages again */
#define CPU	"/sys/devices/system/cpu/cpu1/online"

static int run_on(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

FIXTURE(alloc) {
	struct dmm_mem mem;
	uint64_t *others;
};

FIXTURE_SETUP(alloc)
{
	self->mem = dmm_mem_create_exact(SIZE);
	self->others = mmap(NULL, OTHERS, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->others);
}

FIXTURE_TEARDOWN(alloc)
{
	munmap(self->others, OTHERS);
	dmm_mem_free(&self->mem);
}

/* What a CPU had in stock when it went away is not there when it comes back. */
DMM_TEST(alloc, cpu_goes)
{
	uint64_t i, wrong = 0;

	if (access(CPU, W_OK) || run_on(1))
		SKIP(return, "no second CPU that can go");
	dmm_fill(self->mem.hva, 0, 1, 1);
	ASSERT_EQ(0, run_on(0));
	ASSERT_EQ(0, dmm_write_file(CPU, "0", 1));
	/* Its pages are somebody else's now. */
	for (i = 0; i < OTHERS / sizeof(i); i++)
		self->others[i] = i;
	ASSERT_EQ(0, dmm_write_file(CPU, "1", 1));
	ASSERT_EQ(0, run_on(1));

	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva + DMM_PAGE, PAGES - 1));
	for (i = 1; i < PAGES; i++)
		*(uint64_t *)(self->mem.hva + i * DMM_PAGE) = 0;
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva + DMM_PAGE, PAGES - 1));
	dmm_fill(self->mem.hva, 0, PAGES, 2);
	for (i = 0; i < OTHERS / sizeof(i); i++)
		wrong += self->others[i] != i;
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

TEST_HARNESS_MAIN
