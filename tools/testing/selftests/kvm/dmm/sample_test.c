// SPDX-License-Identifier: GPL-2.0-only
/*
 * The sample policy gives back pages that are full of zeros, and no others.
 */
#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)

FIXTURE(sample) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
	unsigned long ino;
};

FIXTURE_SETUP(sample)
{
	if (!dmm_policy_loaded("sample"))
		SKIP(return, "needs the policy sample");

	self->mem = dmm_mem_create_exact(SIZE);
	self->ino = self->mem.ino;
	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
	ASSERT_EQ(0, dmm_pool_set(self->ino, "policies", "+sample"));

	/* Content, zeros, content, zeros: half a region of each. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	memset(self->mem.hva + SIZE / 4, 0, SIZE / 4);
	memset(self->mem.hva + SIZE * 3 / 4, 0, SIZE / 4);
	ASSERT_EQ(SIZE, dmm_pool_get(self->ino, "resident_bytes"));
}

FIXTURE_TEARDOWN(sample)
{
	if (self->guest)
		dmm_guest_free(self->guest);
	if (self->mem.hva)
		dmm_mem_free(&self->mem);
}

static void check(struct __test_metadata *_metadata, struct dmm_guest *guest)
{
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES / 4, 1));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(guest, DMM_GPA + SIZE / 4,
					     PAGES / 4));
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA + SIZE / 2, PAGES / 4,
					 1));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(guest, DMM_GPA + SIZE * 3 / 4,
					     PAGES / 4));
}

DMM_TEST(sample, zeros)
{
	ASSERT_EQ(0, dmm_pool_set(self->ino, "sample/skip_young", "0"));
	EXPECT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 8));
	EXPECT_EQ(SIZE - SIZE / 8, dmm_pool_get(self->ino, "resident_bytes"));
	EXPECT_EQ(SIZE / 8 / DMM_PAGE,
		  dmm_pool_get(self->ino, "sample/stats/given"));

	/* No more than there is. */
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->ino, "reclaim", SIZE));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(self->ino, "resident_bytes"));
	check(_metadata, self->guest);
	EXPECT_EQ(SIZE / 2, dmm_pool_get(self->ino, "resident_bytes"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
}

/* What was accessed since the last time stays. */
DMM_TEST(sample, young)
{
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 8));
	EXPECT_EQ(SIZE, dmm_pool_get(self->ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 8));
	EXPECT_EQ(SIZE - SIZE / 8, dmm_pool_get(self->ino, "resident_bytes"));
	check(_metadata, self->guest);
}

/* A limit below what was touched holds, as long as enough of it is zero. */
DMM_TEST(sample, limit)
{
	ASSERT_EQ(0, dmm_pool_set(self->ino, "sample/skip_young", "0"));
	EXPECT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", SIZE * 3 / 4));
	EXPECT_EQ(-EBUSY, dmm_pool_set_bytes(self->ino, "max_bytes", SIZE / 4));
	check(_metadata, self->guest);
}

TEST_HARNESS_MAIN
