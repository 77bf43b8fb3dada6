// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that was never written reads as zero and costs nothing.
 */
#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(16UL << 20)
#define PAGES	(SIZE / DMM_PAGE)

FIXTURE(zero) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(zero)
{
	self->mem = dmm_mem_create(SIZE);
	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
	ASSERT_EQ(0, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

FIXTURE_TEARDOWN(zero)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

DMM_TEST(zero, guest_reads)
{
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

DMM_TEST(zero, host_maps)
{
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

DMM_TEST(zero, host_reads)
{
	uint64_t *buf = malloc(SIZE);

	ASSERT_NE(NULL, buf);
	memset(buf, 0xff, SIZE);
	ASSERT_EQ(SIZE, pread(self->mem.fd, buf, SIZE, 0));
	EXPECT_EQ(0, dmm_nonzero_pages(buf, PAGES));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

DMM_TEST(zero, populate_read)
{
	ASSERT_EQ(0, madvise(self->mem.hva, SIZE, MADV_POPULATE_READ));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

/*
 * Everybody has the page of zeros mapped when somebody writes: all have to see
 * the write, and only there.
 */
DMM_TEST(zero, write_after_read)
{
	volatile uint64_t *hva = self->mem.hva;
	const uint64_t words = DMM_PAGE / 8;
	uint64_t value = 33;

	ASSERT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, 8));
	ASSERT_EQ(0, dmm_nonzero_pages(self->mem.hva, 8));

	/* The guest writes, the host sees it. */
	dmm_guest_poke(self->guest, DMM_GPA + 1 * DMM_PAGE, 11);
	EXPECT_EQ(11, hva[1 * words]);

	/* The host writes through its mapping, the guest sees it. */
	hva[2 * words] = 22;
	EXPECT_EQ(22, dmm_guest_peek(self->guest, DMM_GPA + 2 * DMM_PAGE));

	/* The host writes by write(), both see it. */
	ASSERT_EQ(8, pwrite(self->mem.fd, &value, 8, 3 * DMM_PAGE));
	EXPECT_EQ(33, dmm_guest_peek(self->guest, DMM_GPA + 3 * DMM_PAGE));
	EXPECT_EQ(33, hva[3 * words]);

	EXPECT_EQ(0, hva[0]);
	EXPECT_EQ(0, hva[4 * words]);
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest,
					     DMM_GPA + 4 * DMM_PAGE, 4));
	EXPECT_EQ(3 * DMM_PAGE, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

/* A page read as zero in one file isn't another file's memory. */
DMM_TEST(zero, files_are_apart)
{
	struct dmm_mem other = dmm_mem_create(SIZE);

	ASSERT_EQ(0, dmm_nonzero_pages(other.hva, PAGES));
	ASSERT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES));
	dmm_fill(self->mem.hva, 0, PAGES, 9);
	EXPECT_EQ(0, dmm_nonzero_pages(other.hva, PAGES));
	EXPECT_EQ(0, dmm_pool_get(other.ino, "resident_bytes"));
	dmm_mem_free(&other);
}

/* Frames are zeroed before anybody sees them, whatever was in them. */
DMM_TEST(zero, reused_frames)
{
	int round;

	for (round = 0; round < 4; round++) {
		dmm_guest_fill(self->guest, DMM_GPA, PAGES, 10 + round);
		ASSERT_EQ(0, fallocate(self->mem.fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, 0, SIZE));
		ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
		EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));
		EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA,
						     PAGES));
	}
}

DMM_TEST(zero, seek_data_and_hole)
{
	int fd = self->mem.fd;

	EXPECT_EQ(-1, lseek(fd, 0, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(0, lseek(fd, 0, SEEK_HOLE));

	/* Reads make no data. */
	ASSERT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(-1, lseek(fd, 0, SEEK_DATA));

	dmm_guest_fill(self->guest, DMM_GPA + 7 * DMM_PAGE, 2, 1);
	dmm_guest_fill(self->guest, DMM_GPA + SIZE - DMM_PAGE, 1, 1);

	EXPECT_EQ(7 * DMM_PAGE, lseek(fd, 0, SEEK_DATA));
	EXPECT_EQ(0, lseek(fd, 0, SEEK_HOLE));
	EXPECT_EQ(7 * DMM_PAGE + 5, lseek(fd, 7 * DMM_PAGE + 5, SEEK_DATA));
	EXPECT_EQ(9 * DMM_PAGE, lseek(fd, 7 * DMM_PAGE + 5, SEEK_HOLE));
	EXPECT_EQ(SIZE - DMM_PAGE, lseek(fd, 9 * DMM_PAGE, SEEK_DATA));
	EXPECT_EQ(SIZE, lseek(fd, SIZE - DMM_PAGE, SEEK_HOLE));
	EXPECT_EQ(-1, lseek(fd, SIZE, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(-1, lseek(fd, SIZE, SEEK_HOLE));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(-1, lseek(fd, -1, SEEK_DATA));
}

TEST_HARNESS_MAIN
