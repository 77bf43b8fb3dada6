// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where frames come from.  The first of all tests: once a control group was made
 * in a boot, pages are no more taken from the stocks that CPUs keep for it.
 */
#include <linux/falloc.h>
#include <sched.h>
#include <sys/mman.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define OTHERS	(256UL << 20)	/* memory of a process, to find pages again */
#define CPU	"/sys/devices/system/cpu/cpu1/online"
#define FAIL	"/sys/devices/system/memory/hard_offline_page"
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define GIVEN	64	/* pages given back, more than a CPU keeps in stock */

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

static bool is_one_of(const uint64_t *pfn, uint64_t entry)
{
	unsigned int i;

	for (i = 0; i < GIVEN; i++)
		if (pfn[i] == (entry & DMM_PAGEMAP_PFN))
			return true;
	return false;
}

/*
 * Have pages fail that lie in the stock of this CPU: give some back, see that the
 * stock was filled with them, as the allocator gives first what it got last, and
 * tell all but the one that shows it.  Pages from *@next on are written, each once.
 *
 * Return: How many of them were in somebody's hands, so in the stock.
 */
static unsigned int fail_in_stock(FIXTURE_DATA(alloc) *self, uint64_t *next)
{
	void *given = self->mem.hva + *next * DMM_PAGE;
	uint64_t pfn[GIVEN], entry = 0, base = *next, i;
	unsigned int kept = 0;
	char buf[32];
	int r;

	dmm_fill(given, base, GIVEN, 1);
	dmm_pagemap(given, GIVEN, pfn);
	for (i = 0; i < GIVEN; i++)
		pfn[i] &= DMM_PAGEMAP_PFN;
	TEST_ASSERT(!fallocate(self->mem.fd, PUNCH, base * DMM_PAGE,
			       GIVEN * DMM_PAGE), "No holes can be made");
	do {
		if (*next == base + 2 * GIVEN)
			return 0;
		given = self->mem.hva + *next * DMM_PAGE;
		dmm_fill(given, *next, 1, 2);
		dmm_pagemap(given, 1, &entry);
		++*next;
	} while (!is_one_of(pfn, entry));
	for (i = 0; i < GIVEN; i++) {
		if (pfn[i] == (entry & DMM_PAGEMAP_PFN))
			continue;
		snprintf(buf, sizeof(buf), "%#lx", pfn[i] * DMM_PAGE);
		r = dmm_write_file(FAIL, buf, strlen(buf));
		/* Free pages it takes away; what somebody has it cannot. */
		kept += r == -EBUSY || r == -EIO;
	}
	return kept;
}

/* What has failed while it was in stock does not get into a file. */
DMM_TEST(alloc, poisoned_in_stock)
{
	uint64_t next = 0, i;

	if (access(FAIL, W_OK))
		SKIP(return, "memory cannot be made to fail");
	ASSERT_EQ(0, run_on(0));
	/* Others on this CPU take and give pages, too. */
	while (!fail_in_stock(self, &next)) {
		ASSERT_GT(PAGES - 4 * GIVEN, next);
	}
	for (i = next; i < next + 2 * GIVEN; i++)
		ASSERT_EQ(DMM_PAGE, pwrite(self->mem.fd, self->others, DMM_PAGE,
					   i * DMM_PAGE));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva + next * DMM_PAGE, PAGES - next));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, next, 2));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

TEST_HARNESS_MAIN
