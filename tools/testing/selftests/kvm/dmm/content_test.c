// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest and host see the same memory, through every way to it.
 */
#include <sys/stat.h>
#include <sys/statfs.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)

FIXTURE(content) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(content)
{
	self->mem = dmm_mem_create(SIZE);
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(content)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

DMM_TEST(content, guest_writes_host_reads)
{
	uint64_t *buf = malloc(SIZE);
	void *other;

	ASSERT_NE(NULL, buf);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);

	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));

	ASSERT_EQ(SIZE, pread(self->mem.fd, buf, SIZE, 0));
	EXPECT_EQ(0, dmm_bad_pages(buf, 0, PAGES, 1));

	other = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, self->mem.fd, 0);
	ASSERT_NE(MAP_FAILED, other);
	EXPECT_EQ(0, dmm_bad_pages(other, 0, PAGES, 1));

	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "size_bytes"));
}

DMM_TEST(content, host_maps_guest_reads)
{
	dmm_fill(self->mem.hva, 0, PAGES, 2);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

DMM_TEST(content, host_writes_guest_reads)
{
	uint64_t *buf = malloc(SIZE);

	ASSERT_NE(NULL, buf);
	dmm_fill(buf, 0, PAGES, 3);
	ASSERT_EQ(SIZE, pwrite(self->mem.fd, buf, SIZE, 0));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 3));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 3));
}

/* Back and forth on pages that everybody has mapped for writing. */
DMM_TEST(content, ping_pong)
{
	volatile uint64_t *word = self->mem.hva + 5 * DMM_PAGE;
	uint64_t i, value;

	dmm_mem_exact(&self->mem);
	for (i = 1; i < 50; i++) {
		dmm_guest_poke(self->guest, DMM_GPA + 5 * DMM_PAGE, i);
		ASSERT_EQ(i, *word);
		*word = i << 32;
		ASSERT_EQ(i << 32,
			  dmm_guest_peek(self->guest, DMM_GPA + 5 * DMM_PAGE));
		value = ~i;
		ASSERT_EQ(8, pwrite(self->mem.fd, &value, 8, 5 * DMM_PAGE));
		ASSERT_EQ(~i, *word);
		ASSERT_EQ(~i, dmm_guest_peek(self->guest,
					     DMM_GPA + 5 * DMM_PAGE));
	}
	EXPECT_EQ(DMM_PAGE, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

/* read() and write() at odd places touch nothing but their bytes. */
DMM_TEST(content, unaligned_io)
{
	static const struct {
		off_t off;
		size_t len;
	} io[] = {
		{ 1, 1 }, { 4095, 2 }, { 4090, 4106 }, { 100, 3 * 4096 },
		{ 2 * 1024 * 1024 - 3, 7 }, { SIZE - 1, 1 },
	};
	uint8_t *mirror = malloc(SIZE), *buf = malloc(SIZE);
	unsigned int i;
	size_t j;

	ASSERT_TRUE(mirror && buf);
	dmm_fill(mirror, 0, PAGES, 4);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 4);

	for (i = 0; i < ARRAY_SIZE(io); i++) {
		for (j = 0; j < io[i].len; j++)
			buf[j] = i * 17 + j;
		memcpy(mirror + io[i].off, buf, io[i].len);
		ASSERT_EQ(io[i].len,
			  pwrite(self->mem.fd, buf, io[i].len, io[i].off));
		memset(buf, 0, io[i].len);
		ASSERT_EQ(io[i].len,
			  pread(self->mem.fd, buf, io[i].len, io[i].off));
		EXPECT_EQ(0, memcmp(buf, mirror + io[i].off, io[i].len));
	}
	EXPECT_EQ(0, memcmp(self->mem.hva, mirror, SIZE));

	/* A read across the end of the file is short, one beyond it empty. */
	EXPECT_EQ(10, pread(self->mem.fd, buf, 100, SIZE - 10));
	EXPECT_EQ(0, pread(self->mem.fd, buf, 100, SIZE));
}

/* Two vCPUs fault the same pages at once: nobody's writes get lost. */
DMM_TEST(content, two_vcpus_one_page)
{
	const uint64_t n = 20000;
	int i;

	for (i = 0; i < 4; i++) {
		dmm_guest_start(self->guest, 0, DMM_OP_ADD,
				DMM_GPA + i * DMM_PAGE, 1, n);
		dmm_guest_start(self->guest, 1, DMM_OP_ADD,
				DMM_GPA + i * DMM_PAGE, 1, n);
		EXPECT_EQ(0, dmm_guest_join(self->guest, 0));
		EXPECT_EQ(0, dmm_guest_join(self->guest, 1));
		EXPECT_EQ(2 * n, *(uint64_t *)(self->mem.hva + i * DMM_PAGE));
	}
	EXPECT_EQ(4 * DMM_PAGE, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

DMM_TEST(content, file_outlives_vm)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 5);
	dmm_guest_free(self->guest);
	self->guest = NULL;

	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 5));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));

	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 5));
}

/* The file has no name and no descriptor any more: the VM keeps it alive. */
DMM_TEST(content, vm_outlives_file)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 6);
	dmm_mem_free(&self->mem);

	ASSERT_TRUE(dmm_pool_exists(ino));
	dmm_guest_fill(self->guest, DMM_GPA + SIZE / 2, PAGES / 2, 6);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 6));
	EXPECT_EQ(SIZE, dmm_pool_get(ino, "resident_bytes"));

	dmm_guest_free(self->guest);
	self->guest = NULL;
	EXPECT_TRUE(dmm_pool_gone(ino));
}

DMM_TEST(content, fs_attributes)
{
	struct statfs fs;
	struct stat st;

	ASSERT_EQ(0, fstatfs(self->mem.fd, &fs));
	EXPECT_EQ(DMMFS_MAGIC, fs.f_type);

	dmm_guest_fill(self->guest, DMM_GPA, 3, 7);
	ASSERT_EQ(0, fstat(self->mem.fd, &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(SIZE, st.st_size);
	EXPECT_EQ(0, st.st_nlink);
	EXPECT_EQ(SIZE, lseek(self->mem.fd, 0, SEEK_END));
}

/* A process that writes to memory that it maps changes the file's times. */
DMM_TEST(content, times_of_mapping)
{
	struct stat before, after;

	/* Read before, and not. */
	EXPECT_EQ(0, *(volatile char *)self->mem.hva);
	ASSERT_EQ(0, fstat(self->mem.fd, &before));
	usleep(50000);
	*(char *)self->mem.hva = 1;
	ASSERT_EQ(0, fstat(self->mem.fd, &after));
	EXPECT_NE(0, memcmp(&before.st_mtim, &after.st_mtim, sizeof(after.st_mtim)));
	EXPECT_NE(0, memcmp(&before.st_ctim, &after.st_ctim, sizeof(after.st_ctim)));
	usleep(50000);
	*(char *)(self->mem.hva + SIZE / 2) = 1;
	ASSERT_EQ(0, fstat(self->mem.fd, &before));
	EXPECT_NE(0, memcmp(&before.st_mtim, &after.st_mtim, sizeof(after.st_mtim)));
}

TEST_HARNESS_MAIN
