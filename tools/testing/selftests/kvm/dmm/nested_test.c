// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest of a guest: L2's accesses through shadows of L1's page tables, while
 * the map changes under it.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define COUNTED	64
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(nested) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_VARIANT(nested) {
	bool npt;
	bool blocks;
};

/* L1 without nested paging: L2 runs on page tables that L1 keeps for it. */
FIXTURE_VARIANT_ADD(nested, plain) {
};

FIXTURE_VARIANT_ADD(nested, npt) {
	.npt = true,
};

FIXTURE_VARIANT_ADD(nested, npt_blocks) {
	.npt = true,
	.blocks = true,
};

FIXTURE_SETUP(nested)
{
	if (!kvm_cpu_has(X86_FEATURE_SVM))
		SKIP(return, "no nested SVM");
	if (variant->npt && !kvm_cpu_has(X86_FEATURE_NPT))
		SKIP(return, "no nested paging for L1");
	if (!dmm_policy_loaded("test-token") || !dmm_policy_loaded("test-share"))
		SKIP(return, "no test policies");

	/* A block that is rebuilt keeps its pages from being merged meanwhile. */
	self->mem = dmm_mem_create_exact(SIZE);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-share"));
	if (variant->blocks) {
		dmm_compact();
		ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	}
	self->guest = dmm_guest_create_nested(variant->npt);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(nested)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t *page(struct dmm_mem *mem, uint64_t index)
{
	return mem->hva + index * DMM_PAGE;
}

DMM_TEST(nested, content)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	dmm_fill(self->mem.hva, 0, PAGES, 2);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
}

/* Pages go out and come back while L2 counts in them. */
DMM_TEST(nested, reclaim_under_load)
{
	unsigned long ino = self->mem.ino;
	uint64_t i, rounds;

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, COUNTED, 0);
	for (i = 0; i < 100; i++) {
		dmm_guest_wait_rounds(self->guest, 0, i + 1);
		dmm_pool_set(ino, "test-token/second_chance", i & 1 ? "1" : "0");
		dmm_pool_set(ino, "test-token/keep", i & 2 ? "1" : "0");
		dmm_pool_set_bytes(ino, "reclaim", COUNTED / 2 * DMM_PAGE);
	}
	ASSERT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_NE(0, dmm_pool_get(ino, "stats/fetch"));
	rounds = self->guest->cpu[0].cmd->rounds;
	EXPECT_LE(100, rounds);
	for (i = 0; i < COUNTED; i++)
		EXPECT_EQ(rounds, *page(&self->mem, i));
}

/* L2 must not write to a shared frame, mapped for writing before. */
DMM_TEST(nested, share)
{
	unsigned long ino = self->mem.ino;
	uint64_t *a = page(&self->mem, 3), *b = page(&self->mem, 1000);
	uint64_t value;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	dmm_fill(a, 0, 1, 7);
	dmm_fill(b, 0, 1, 7);
	/* Both are in L2's page tables, writable. */
	dmm_guest_poke(self->guest, DMM_GPA + 3 * DMM_PAGE, a[0]);
	dmm_guest_poke(self->guest, DMM_GPA + 1000 * DMM_PAGE, b[0]);
	ASSERT_EQ(0, dmm_pool_set(ino, "test-share/merge", "3 1000"));
	EXPECT_EQ(2 * DMM_PAGE, dmm_pool_get(ino, "shared_bytes"));

	value = a[0];
	dmm_guest_poke(self->guest, DMM_GPA + 1000 * DMM_PAGE, value + 1);
	EXPECT_EQ(value, a[0]);
	EXPECT_EQ(value + 1, b[0]);
	EXPECT_EQ(value, dmm_guest_peek(self->guest, DMM_GPA + 3 * DMM_PAGE));
	EXPECT_EQ(value + 1,
		  dmm_guest_peek(self->guest, DMM_GPA + 1000 * DMM_PAGE));
	dmm_guest_poke(self->guest, DMM_GPA + 3 * DMM_PAGE, value + 2);
	EXPECT_EQ(value + 2, a[0]);
	EXPECT_EQ(value + 1, b[0]);
}

/* A write by L2 to a protected page is seen. */
DMM_TEST(nested, protect)
{
	unsigned long ino = self->mem.ino;
	char buf[16];

	dmm_guest_poke(self->guest, DMM_GPA + 5 * DMM_PAGE, 1);
	ASSERT_EQ(0, dmm_pool_set(ino, "test-share/protect", "5"));
	EXPECT_EQ(1, dmm_guest_peek(self->guest, DMM_GPA + 5 * DMM_PAGE));
	dmm_pool_read(ino, "test-share/written", buf, sizeof(buf));
	EXPECT_STREQ("no\n", buf);
	dmm_guest_poke(self->guest, DMM_GPA + 5 * DMM_PAGE, 2);
	dmm_pool_read(ino, "test-share/written", buf, sizeof(buf));
	EXPECT_STREQ("yes\n", buf);
	EXPECT_EQ(2, *page(&self->mem, 5));
}

DMM_TEST(nested, punch)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, DMM_PAGE, SIZE / 2));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA + DMM_PAGE,
					     PAGES / 2));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 1, 1));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 3);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 3));
}

/* Holes under a running L2: none of its later writes may be lost. */
DMM_TEST(nested, punch_under_load)
{
	uint64_t i;

	dmm_guest_start(self->guest, 0, DMM_OP_STORM, DMM_GPA, PAGES, 0);
	for (i = 0; i < 200; i++) {
		dmm_guest_wait_rounds(self->guest, 0, i / 20 + 1);
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH,
				       (i * 37 % PAGES) * DMM_PAGE,
				       16 * DMM_PAGE));
	}
	ASSERT_EQ(0, dmm_guest_stop(self->guest, 0));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 4);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 4));
}

/* L1's memory slot goes and comes back, between two runs of L2. */
DMM_TEST(nested, slot)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, SIZE,
			   self->mem.hva);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* Less room than memory, equal pages are one: L2 has what it wrote. */
DMM_TEST(nested, swap_and_share)
{
	uint64_t tags[DMM_TAGS_MAX], own = PAGES - DMM_TAGS_MAX, equal, i, seed;
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("swap") || !dmm_policy_loaded("share"))
		SKIP(return, "no policy swap or share");
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-test-share"));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-test-token"));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+swap"));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+share"));
	dmm_pool_set(ino, "share/full_scan_seconds", "0");
	dmm_pool_set(ino, "share/max_cpu_percent", "100");
	dmm_pool_set(ino, "share/break_blocks", "always");
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE * 3 / 4));

	equal = DMM_GPA + own * DMM_PAGE;
	for (i = 0; i < DMM_TAGS_MAX; i++)
		tags[i] = 5 | DMM_TAG_HALF;
	for (seed = 1; seed <= 4; seed++) {
		dmm_guest_fill(self->guest, DMM_GPA, own, seed | DMM_HALF);
		ASSERT_EQ(0, dmm_guest_run_tags(self->guest, 0, DMM_OP_TAG_FILL, equal,
						DMM_TAGS_MAX, tags));
		for (i = 0; i < 100 && !dmm_pool_get(ino, "shared_bytes"); i++)
			usleep(100000);
		EXPECT_NE(0, dmm_pool_get(ino, "shared_bytes"));
		dmm_pool_set_bytes(ino, "reclaim", SIZE / 2);
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, own,
						 seed | DMM_HALF));
		ASSERT_EQ(0, dmm_guest_run_tags(self->guest, 0, DMM_OP_TAG_CHECK, equal,
						DMM_TAGS_MAX, tags));
		EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
		EXPECT_TRUE(dmm_pool_ok(ino));
	}
	EXPECT_NE(0, dmm_pool_get(ino, "stats/fetch"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, own, 4 | DMM_HALF));
	for (i = own; i < PAGES; i++)
		EXPECT_FALSE(dmm_tag_bad(page(&self->mem, i), tags[0]));
}

TEST_HARNESS_MAIN
