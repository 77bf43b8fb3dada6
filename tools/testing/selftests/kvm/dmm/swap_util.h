/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of the swap policy have in common.
 */
#ifndef SELFTEST_KVM_DMM_SWAP_UTIL_H
#define SELFTEST_KVM_DMM_SWAP_UTIL_H

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static struct dmm_mem swap_mem(void)
{
	struct dmm_mem mem = dmm_mem_create_exact(SIZE);

	TEST_ASSERT(!dmm_pool_set(mem.ino, "policies", "+swap"),
		    "Cannot attach swap");
	/* Far away, or the pool keeps a distance from its limit on its own. */
	TEST_ASSERT(!dmm_pool_set_bytes(mem.ino, "max_bytes", 4 * SIZE),
		    "Cannot set max_bytes");
	return mem;
}

static uint64_t resident(unsigned long ino)
{
	return dmm_pool_get(ino, "resident_bytes");
}

static uint64_t swapped(unsigned long ino)
{
	return dmm_pool_get(ino, "swapped_bytes");
}

static uint64_t stat_of(unsigned long ino, const char *name)
{
	char file[64];

	snprintf(file, sizeof(file), "swap/stats/%s", name);
	return dmm_pool_get(ino, file);
}

static void reclaim_all(struct __test_metadata *_metadata, unsigned long ino)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_EQ(0, resident(ino));
	EXPECT_EQ(SIZE, swapped(ino));
}

#endif /* SELFTEST_KVM_DMM_SWAP_UTIL_H */
