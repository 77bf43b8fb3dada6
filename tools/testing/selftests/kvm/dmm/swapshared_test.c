// SPDX-License-Identifier: GPL-2.0-only
/*
 * The swap policy and shared frames: those of clones, and those that one pool
 * has at several offsets.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "swap_util.h"

FIXTURE(swapshared) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
	struct dmm_mem copy;
	char path[64];
};

FIXTURE_SETUP(swapshared)
{
	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");

	self->mem = swap_mem();
	self->copy = dmm_mem_create_exact(SIZE);
	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(swapshared)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->copy);
	dmm_mem_free(&self->mem);
	if (*self->path)
		unlink(self->path);
}

static uint64_t shared(unsigned long ino)
{
	return dmm_pool_get(ino, "shared_bytes");
}

static uint64_t compressed(unsigned long ino)
{
	return dmm_pool_get(ino, "compressed_bytes");
}

static int add_swap(unsigned long ino)
{
	return dmm_pool_set(ino, "policies", "+swap");
}

static int reclaim(unsigned long ino)
{
	return dmm_pool_set_bytes(ino, "reclaim", SIZE);
}

/* The guest's memory, as it is now, becomes that of the copy. */
static void take_clone(struct __test_metadata *_metadata, struct dmm_mem *to,
		       struct dmm_mem *from)
{
	ASSERT_EQ(0, ioctl(to->fd, FICLONE, from->fd));
	ASSERT_EQ(SIZE, shared(from->ino));
}

/* A clone that does not swap goes on with the frames, and is charged for them. */
DMM_TEST(swapshared, leaves_the_clone)
{
	unsigned long ino = self->mem.ino, copy = self->copy.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	take_clone(_metadata, &self->copy, &self->mem);
	EXPECT_EQ(0, resident(copy));
	reclaim_all(_metadata, ino);
	EXPECT_EQ(PAGES, stat_of(ino, "out_shared"));
	EXPECT_EQ(PAGES, stat_of(ino, "out_compressed"));
	EXPECT_EQ(0, shared(ino));
	EXPECT_EQ(SIZE, resident(copy));
	EXPECT_TRUE(dmm_pool_ok(ino));
	EXPECT_TRUE(dmm_pool_ok(copy));

	EXPECT_EQ(0, dmm_bad_pages(self->copy.hva, 0, PAGES, DMM_HALF | 1));
	dmm_fill(self->copy.hva, 0, PAGES / 2, 2);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_EQ(0, dmm_bad_pages(self->copy.hva, 0, PAGES / 2, 2));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_EQ(SIZE, resident(copy));
}

/* A guest that has a clone goes on below a lower limit, as any other. */
DMM_TEST(swapshared, limit)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	take_clone(_metadata, &self->copy, &self->mem);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE * 3 / 4));
	EXPECT_GE(SIZE * 3 / 4, resident(ino) + compressed(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_GE(SIZE * 3 / 4, resident(ino) + compressed(ino));
	EXPECT_EQ(0, dmm_pool_get(ino, "stats/limit_failed"));

	/* What is written is a copy, and may go like any other. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 2);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 2));
	EXPECT_EQ(0, dmm_bad_pages(self->copy.hva, 0, PAGES, DMM_HALF | 1));
	EXPECT_EQ(0, dmm_pool_get(ino, "stats/limit_failed"));
}

/* Whose clone has gone has frames that are still called shared. */
DMM_TEST(swapshared, clone_has_gone)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	take_clone(_metadata, &self->copy, &self->mem);
	dmm_mem_free(&self->copy);
	self->copy = dmm_mem_create_exact(SIZE);
	EXPECT_EQ(SIZE, shared(ino));
	EXPECT_EQ(SIZE, resident(ino));
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_EQ(0, shared(ino));
}

/* One after the other, each with a copy that it is charged for. */
DMM_TEST(swapshared, both_compressed)
{
	unsigned long ino = self->mem.ino, copy = self->copy.ino;

	ASSERT_EQ(0, add_swap(copy));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	take_clone(_metadata, &self->copy, &self->mem);
	/* It is not charged: there is nothing to be had. */
	EXPECT_EQ(-EAGAIN, reclaim(copy));
	EXPECT_EQ(0, swapped(copy));
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, swapped(copy));
	EXPECT_EQ(SIZE, resident(copy));
	reclaim_all(_metadata, copy);
	EXPECT_LT(SIZE / 4, compressed(ino));
	EXPECT_LT(SIZE / 4, compressed(copy));

	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_EQ(0, dmm_bad_pages(self->copy.hva, 0, PAGES, DMM_HALF | 1));
	EXPECT_TRUE(dmm_pool_ok(ino));
	EXPECT_TRUE(dmm_pool_ok(copy));
}

/* Who locks the memory of a clone keeps it from going, for both. */
DMM_TEST(swapshared, locked)
{
	unsigned long ino = self->mem.ino;

	memset(self->mem.hva, 0x5a, SIZE);
	take_clone(_metadata, &self->copy, &self->mem);
	ASSERT_EQ(0, mlock(self->copy.hva, SIZE / 2));
	EXPECT_EQ(-EAGAIN, reclaim(ino));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	EXPECT_LE(PAGES / 2, dmm_pool_get(ino, "stats/reject_pinned"));
	ASSERT_EQ(0, munlock(self->copy.hva, SIZE / 2));
	EXPECT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 2));
	EXPECT_EQ(SIZE, swapped(ino));
	EXPECT_EQ(0, memcmp(self->mem.hva, self->copy.hva, SIZE));
}

/* What takes no memory goes out once, for all that do not use it. */
DMM_TEST(swapshared, same_filled)
{
	unsigned long ino = self->mem.ino, copy = self->copy.ino;

	ASSERT_EQ(0, add_swap(copy));
	memset(self->mem.hva, 0x5a, SIZE);
	take_clone(_metadata, &self->copy, &self->mem);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 2));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	EXPECT_EQ(SIZE / 2, swapped(copy));
	EXPECT_EQ(0, resident(copy));
	EXPECT_EQ(0, stat_of(copy, "out_same"));
	EXPECT_EQ(PAGES / 2, stat_of(ino, "out_same"));
	EXPECT_EQ(0, memcmp(self->copy.hva, self->copy.hva + 1, SIZE - 1));
	EXPECT_EQ(0x5a, *(uint8_t *)self->copy.hva);
	EXPECT_EQ(0, memcmp(self->mem.hva, self->mem.hva + 1, SIZE - 1));
	EXPECT_EQ(0x5a, *(uint8_t *)self->mem.hva);
}

/* The clone's guest has read all of it: its frames are not taken from it. */
DMM_TEST(swapshared, clone_in_use)
{
	unsigned long ino = self->mem.ino, copy = self->copy.ino;
	struct dmm_guest *guest = dmm_guest_create(1);
	uint64_t faults;

	dmm_guest_add_mem(guest, &self->copy);
	ASSERT_EQ(0, add_swap(copy));
	memset(self->mem.hva, 0x5a, SIZE);
	take_clone(_metadata, &self->copy, &self->mem);
	ASSERT_EQ(0, dmm_guest_run(guest, 0, DMM_OP_READ, DMM_GPA, PAGES, 0));
	faults = dmm_pool_get(copy, "stats/fault");
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, swapped(copy));
	EXPECT_EQ(SIZE, resident(copy));
	ASSERT_EQ(0, dmm_guest_run(guest, 0, DMM_OP_READ, DMM_GPA, PAGES, 0));
	EXPECT_EQ(faults, dmm_pool_get(copy, "stats/fault"));
	EXPECT_EQ(0, memcmp(self->mem.hva, self->copy.hva, SIZE));
	dmm_guest_free(guest);
}

static void make_backing(struct __test_metadata *_metadata,
			 FIXTURE_DATA(swapshared) *self)
{
	int fd;

	sprintf(self->path, "/tmp/swapshared-XXXXXX");
	fd = mkstemp(self->path);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, 4 * SIZE));
	close(fd);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "swap/backing", self->path));
}

/* A backing has one slot for all, and is written once. */
DMM_TEST(swapshared, backing)
{
	unsigned long ino = self->mem.ino, copy = self->copy.ino;

	make_backing(_metadata, self);
	ASSERT_EQ(0, add_swap(copy));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	take_clone(_metadata, &self->copy, &self->mem);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 2));
	EXPECT_LE(SIZE / 2, swapped(ino));
	EXPECT_EQ(swapped(ino), swapped(copy));
	EXPECT_EQ(0, resident(copy));
	EXPECT_EQ(swapped(ino) / DMM_PAGE, stat_of(ino, "out_written"));
	EXPECT_EQ(swapped(ino) / DMM_PAGE, stat_of(ino, "out_shared"));
	EXPECT_EQ(0, stat_of(copy, "out_written"));
	EXPECT_EQ(0, stat_of(ino, "write_changed"));

	/* They go separate ways from here. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(self->copy.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
	EXPECT_LE(PAGES / 2, stat_of(copy, "in_read"));
	EXPECT_TRUE(dmm_pool_ok(ino));
	EXPECT_TRUE(dmm_pool_ok(copy));
}

/* The copy is written to while the device has what both share. */
DMM_TEST(swapshared, backing_and_writes)
{
	unsigned long ino = self->mem.ino;
	unsigned int round;

	make_backing(_metadata, self);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	for (round = 1; round <= 4; round++) {
		take_clone(_metadata, &self->copy, &self->mem);
		dmm_guest_start(self->guest, 0, DMM_OP_FILL, DMM_GPA, PAGES,
				round + 1);
		reclaim(ino);
		ASSERT_EQ(0, dmm_guest_join(self->guest, 0));
		EXPECT_EQ(0, dmm_bad_pages(self->copy.hva, 0, PAGES, round));
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 round + 1));
		EXPECT_TRUE(dmm_pool_ok(ino));
		EXPECT_TRUE(dmm_pool_ok(self->copy.ino));
		/* For the next round nothing of it is there. */
		dmm_mem_free(&self->copy);
		self->copy = dmm_mem_create_exact(SIZE);
		reclaim(ino);
	}
}

static void clone_within(struct __test_metadata *_metadata, struct dmm_mem *mem)
{
	struct file_clone_range range = {
		.src_fd = mem->fd,
		.src_length = SIZE / 2,
		.dest_offset = SIZE / 2,
	};

	dmm_fill(mem->hva, 0, PAGES / 2, DMM_HALF | 1);
	ASSERT_EQ(0, ioctl(mem->fd, FICLONERANGE, &range));
	ASSERT_EQ(SIZE, shared(mem->ino));
	ASSERT_EQ(SIZE / 2, resident(mem->ino));
}

/* Frames that one pool has twice: both places have the same compressed content. */
DMM_TEST(swapshared, twice_in_a_pool)
{
	unsigned long ino = self->mem.ino;

	clone_within(_metadata, &self->mem);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 4));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	EXPECT_EQ(SIZE / 4, resident(ino));
	EXPECT_EQ(PAGES / 4, stat_of(ino, "out_compressed"));
	EXPECT_GE(SIZE * 6 / 32, compressed(ino));

	/* The one is written, the other one is what it was. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 2);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES / 2, 2));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE / 2, 0, PAGES / 2,
				   DMM_HALF | 1));
	EXPECT_TRUE(dmm_pool_ok(ino));
}

/* The same for frames that a clone had before, at one of the places. */
DMM_TEST(swapshared, twice_and_cloned)
{
	struct file_clone_range range = {
		.src_fd = self->mem.fd,
		.src_length = SIZE / 2,
		.dest_offset = SIZE / 2,
	};
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	take_clone(_metadata, &self->copy, &self->mem);
	ASSERT_EQ(0, ioctl(self->mem.fd, FICLONERANGE, &range));
	/* From the first place, and from the other one. */
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 4));
	EXPECT_EQ(SIZE / 4, resident(ino));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, SIZE / 2, SIZE / 2,
				   POSIX_FADV_DONTNEED));
	EXPECT_EQ(0, resident(ino));
	EXPECT_EQ(SIZE, swapped(ino));
	EXPECT_EQ(0, shared(ino));
	EXPECT_EQ(SIZE, resident(self->copy.ino));
	EXPECT_EQ(PAGES / 2, stat_of(ino, "out_compressed"));
	EXPECT_EQ(0, dmm_bad_pages(self->copy.hva, 0, PAGES, DMM_HALF | 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2,
					 DMM_HALF | 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE / 2, 0, PAGES / 2,
				   DMM_HALF | 1));
	EXPECT_TRUE(dmm_pool_ok(ino));
	EXPECT_TRUE(dmm_pool_ok(self->copy.ino));
}

/* Where one of the places is in use, nothing would come free: both stay. */
DMM_TEST(swapshared, twice_and_in_use)
{
	uint64_t end, used = 64, ino = self->mem.ino;

	clone_within(_metadata, &self->mem);
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/pages_per_second", "1000000"));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "4000"));
	end = dmm_now_ms() + 60000;
	while (swapped(ino) < SIZE - 2 * used * DMM_PAGE &&
	       dmm_now_ms() < end)
		ASSERT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_READ, DMM_GPA,
					   used, 0));
	for (end = dmm_now_ms() + 3000; dmm_now_ms() < end; )
		ASSERT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_READ, DMM_GPA,
					   used, 0));
	EXPECT_EQ(SIZE - 2 * used * DMM_PAGE, swapped(ino));
	EXPECT_EQ(0, stat_of(ino, "refault"));
}

TEST_HARNESS_MAIN
