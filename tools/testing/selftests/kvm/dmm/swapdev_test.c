// SPDX-License-Identifier: GPL-2.0-only
/*
 * The swap policy with a file or block device for what does not compress.
 */
#include <linux/fs.h>
#include <linux/loop.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "swap_util.h"

FIXTURE(swapdev) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
	char dir[64];
	char path[96];
	int fd;
};

FIXTURE_SETUP(swapdev)
{
	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");

	sprintf(self->dir, "/tmp/swapdev-XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	sprintf(self->path, "%s/backing", self->dir);
	self->fd = open(self->path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, ftruncate(self->fd, 2 * SIZE));

	self->mem = swap_mem();
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(swapdev)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
	close(self->fd);
	unlink(self->path);
	umount(self->dir);
	rmdir(self->dir);
}

static int set_backing(unsigned long ino, const char *path)
{
	return dmm_pool_set(ino, "swap/backing", path);
}

static uint64_t backing(unsigned long ino)
{
	return dmm_pool_get(ino, "swap/backing_bytes");
}

DMM_TEST(swapdev, round_trip)
{
	unsigned long ino = self->mem.ino;
	char path[PATH_MAX];
	uint64_t i;

	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_pool_read(ino, "swap/backing", path, sizeof(path));
	EXPECT_EQ(0, strncmp(path, self->path, strlen(self->path)));

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(PAGES, stat_of(ino, "out_written"));
	EXPECT_EQ(0, stat_of(ino, "reject_incompressible"));
	EXPECT_EQ(SIZE, backing(ino));
	EXPECT_EQ(0, dmm_pool_get(ino, "compressed_bytes"));

	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_EQ(PAGES, stat_of(ino, "in_read"));
	EXPECT_NE(0, stat_of(ino, "wait_ns"));
	/* They were written in order, and so they came back. */
	EXPECT_LE(PAGES / 2, stat_of(ino, "ahead_used"));
	EXPECT_GE(PAGES / 8, stat_of(ino, "ahead_unused"));

	/* The copies are good as long as nobody writes. */
	EXPECT_EQ(SIZE, backing(ino));
	for (i = 0; i < PAGES; i += 64) {
		dmm_guest_fill(self->guest, DMM_GPA + i * DMM_PAGE, 1, 2);
		dmm_fill(self->mem.hva + (i + 1) * DMM_PAGE, i + 1, 1, 3);
	}
	EXPECT_EQ(SIZE - PAGES / 32 * DMM_PAGE, backing(ino));
	reclaim_all(_metadata, ino);
	EXPECT_EQ(PAGES - PAGES / 32, stat_of(ino, "out_kept"));
	EXPECT_EQ(PAGES + PAGES / 32, stat_of(ino, "out_written"));
	for (i = 0; i < PAGES; i++) {
		uint64_t seed = i % 64 == 0 ? 2 : i % 64 == 1 ? 3 : 1;

		ASSERT_EQ(0, dmm_bad_pages(self->mem.hva + i * DMM_PAGE, i, 1,
					   seed));
	}
	EXPECT_EQ(0, stat_of(ino, "read_failed"));
	EXPECT_EQ(0, stat_of(ino, "checksum_failed"));
	EXPECT_EQ(0, stat_of(ino, "write_failed"));
}

/* What may not be compressed is written as well; words are not stored. */
DMM_TEST(swapdev, no_compressed_memory)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, set_backing(ino, self->path));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/max_compressed_percent", "0"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_MIXED | 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(PAGES * 3 / 8, stat_of(ino, "out_same"));
	EXPECT_EQ(PAGES * 5 / 8, stat_of(ino, "out_written"));
	EXPECT_EQ(SIZE * 5 / 8, backing(ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, DMM_MIXED | 1));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE / 2));
	EXPECT_EQ(SIZE * 5 / 16, backing(ino));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 2));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	ASSERT_EQ(0, ftruncate(self->mem.fd, 0));
	EXPECT_EQ(0, backing(ino));
}

/* Compressed pages move on, when somebody asks or they take too much memory. */
DMM_TEST(swapdev, writeback)
{
	unsigned long ino = self->mem.ino;
	uint64_t compressed;
	int tries;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(-ENOSPC, dmm_pool_set_bytes(ino, "swap/writeback", SIZE));
	ASSERT_EQ(0, set_backing(ino, self->path));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "swap/writeback", "all"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "swap/writeback", "0x1000"));
	EXPECT_EQ(-ERANGE, dmm_pool_set(ino, "swap/writeback",
					"99999999999999999999"));
	compressed = dmm_pool_get(ino, "compressed_bytes");
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "swap/writeback", SIZE / 2));
	EXPECT_EQ(SIZE / 2, backing(ino));
	EXPECT_EQ(PAGES / 2, stat_of(ino, "written_back"));
	EXPECT_EQ(SIZE, swapped(ino));
	EXPECT_EQ(0, resident(ino));
	EXPECT_GT(compressed * 5 / 8, dmm_pool_get(ino, "compressed_bytes"));
	/* That was no access. */
	EXPECT_EQ(0, stat_of(ino, "refault"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));

	/* A guest that goes on to use more. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 2);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "swap/writeback", 2 * SIZE));
	EXPECT_EQ(SIZE, backing(ino));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 3);
	EXPECT_EQ(0, backing(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/max_compressed_percent", "4"));
	compressed = stat_of(ino, "written_back");
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	for (tries = 0; tries < 500 && stat_of(ino, "written_back") == compressed;
	     tries++)
		usleep(10000);
	EXPECT_LT(compressed, stat_of(ino, "written_back"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, DMM_HALF | 3));
}

/* And those that a clone has got, for itself. */
static void take_out(struct __test_metadata *_metadata, unsigned long ino,
		     uint64_t pages)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", resident(ino)));
	ASSERT_EQ(pages * DMM_PAGE, swapped(ino));
}

/* What was compressed before a hole was punched is no more, and nobody looks for it. */
DMM_TEST(swapdev, writeback_after_hole)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(0, set_backing(ino, self->path));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(PAGES, stat_of(ino, "out_written"));
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "swap/writeback", 2 * SIZE));
	EXPECT_EQ(0, stat_of(ino, "written_back"));

	/* What is compressed now is written once. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 3);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "swap/writeback", 2 * SIZE));
	EXPECT_EQ(PAGES, stat_of(ino, "written_back"));
	EXPECT_EQ(SIZE, backing(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, DMM_HALF | 3));
}

/*
 * What was read ahead is of no use for slots that were written since, also if the
 * checksum of both is the same.  Guests can do that: with about every other seed,
 * xxh64 takes the page that this makes for the one that was there.
 */
static void collide(uint64_t *words)
{
	words[100] ^= 1UL << 63;
	words[104] -= 0x31b7ffd240000000;
}

DMM_TEST(swapdev, window_of_before)
{
	const uint64_t slots = 64, first = slots / 2, last = slots - 2;
	unsigned long ino = self->mem.ino;
	char *mem = self->mem.hva, disk[DMM_PAGE], *page;
	uint64_t i, there = 0, bad = 0, words[DMM_PAGE / 8];

	ASSERT_EQ(0, ftruncate(self->fd, slots * DMM_PAGE));
	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_fill(mem, 0, slots, 1);
	take_out(_metadata, ino, slots);
	/* The last of these reads brings along what comes behind. */
	EXPECT_EQ(0, dmm_bad_pages(mem, 0, first, 1));

	/* All slots get new content, and those read ahead such that looks the same. */
	dmm_fill(mem, 0, first, 2);
	take_out(_metadata, ino, slots);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, first * DMM_PAGE,
			       (last - first + 1) * DMM_PAGE));
	for (i = first; i <= last; i++) {
		page = mem + i * DMM_PAGE;
		dmm_fill(page, i, 1, 1);
		collide((uint64_t *)page);
	}
	take_out(_metadata, ino, slots);

	for (i = first; i <= last; i++) {
		dmm_fill(words, i, 1, 1);
		collide(words);
		ASSERT_EQ(DMM_PAGE, pread(self->fd, disk, DMM_PAGE, i * DMM_PAGE));
		there += !memcmp(disk, words, DMM_PAGE);
		bad += !!memcmp(mem + i * DMM_PAGE, words, DMM_PAGE);
	}
	EXPECT_LT((last - first) / 2, there);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(0, stat_of(ino, "checksum_failed"));
}

DMM_TEST(swapdev, writeback_of_clone)
{
	unsigned long ino = self->mem.ino;
	struct dmm_mem clone = swap_mem();

	ASSERT_EQ(0, set_backing(clone.ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	ASSERT_EQ(SIZE, swapped(clone.ino));
	ASSERT_EQ(0, resident(clone.ino));
	EXPECT_LT(0, dmm_pool_get(clone.ino, "compressed_bytes"));

	ASSERT_EQ(0, dmm_pool_set_bytes(clone.ino, "swap/writeback", SIZE));
	EXPECT_EQ(SIZE, backing(clone.ino));
	EXPECT_EQ(0, dmm_pool_get(clone.ino, "compressed_bytes"));
	EXPECT_EQ(0, backing(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_EQ(0, dmm_bad_pages(clone.hva, 0, PAGES, DMM_HALF | 1));
	dmm_mem_free(&clone);
}

/* A clone that has got content in a backing gets one for what it writes. */
DMM_TEST(swapdev, backing_for_clone)
{
	unsigned long ino = self->mem.ino;
	struct dmm_mem clone = swap_mem();

	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	EXPECT_EQ(SIZE, backing(clone.ino));
	ASSERT_EQ(0, set_backing(clone.ino, self->path));
	dmm_fill(clone.hva, 0, PAGES / 2, 2);
	EXPECT_EQ(0, dmm_pool_set_bytes(clone.ino, "reclaim", SIZE / 2));
	EXPECT_EQ(0, resident(clone.ino));
	/* As with content that it has written itself. */
	EXPECT_EQ(-EBUSY, set_backing(clone.ino, "none"));
	EXPECT_EQ(0, dmm_bad_pages(clone.hva, 0, PAGES / 2, 2));
	EXPECT_EQ(0, dmm_bad_pages(clone.hva + SIZE / 2, PAGES / 2, PAGES / 2, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	dmm_mem_free(&clone);
}

/* The same again and again while guests count in these pages. */
DMM_TEST(swapdev, writeback_under_load)
{
	unsigned long ino = self->mem.ino;
	time_t begin = time(NULL);
	int cpu, i;

	ASSERT_EQ(0, set_backing(ino, self->path));
	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_start(self->guest, cpu, DMM_OP_COUNT,
				DMM_GPA + cpu * (SIZE / 2), PAGES / 2, 0);
	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_wait_rounds(self->guest, cpu, 1);
	/* A kernel that checks much is slow. */
	for (i = 0; i < 20 && (i < 5 || time(NULL) - begin < 60); i++) {
		dmm_pool_set_bytes(ino, "reclaim", SIZE);
		dmm_pool_set_bytes(ino, "swap/writeback", SIZE);
		usleep(10000);
	}
	for (cpu = 0; cpu < 2; cpu++) {
		dmm_guest_wait_rounds(self->guest, cpu, 2);
		EXPECT_EQ(0, dmm_guest_stop(self->guest, cpu));
		EXPECT_EQ(0, self->guest->cpu[cpu].cmd->result);
	}
	EXPECT_NE(0, stat_of(ino, "written_back"));
	EXPECT_EQ(0, stat_of(ino, "checksum_failed"));
}

/* What an overlay shows is not what it writes, and may be another one's. */
DMM_TEST(swapdev, overlay)
{
	char lower[96], upper[96], work[96], merged[96], path[128], options[512];
	unsigned long ino = self->mem.ino;
	int fd;

	/* Goes with all that is in it. */
	ASSERT_EQ(0, mount("swapdev", self->dir, "tmpfs", 0, NULL));
	sprintf(lower, "%s/lower", self->dir);
	sprintf(upper, "%s/upper", self->dir);
	sprintf(work, "%s/work", self->dir);
	sprintf(merged, "%s/merged", self->dir);
	ASSERT_EQ(0, mkdir(lower, 0700) | mkdir(upper, 0700) |
		     mkdir(work, 0700) | mkdir(merged, 0700));
	sprintf(path, "%s/file", lower);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	close(fd);
	sprintf(options, "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
	if (mount("swapdev", merged, "overlay", 0, options)) {
		ASSERT_EQ(ENODEV, errno);
		SKIP(return, "no overlayfs");
	}

	sprintf(path, "%s/file", merged);
	EXPECT_EQ(-EINVAL, set_backing(ino, path));
	sprintf(path, "%s/new", merged);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	close(fd);
	EXPECT_EQ(-EINVAL, set_backing(ino, path));
	EXPECT_EQ(0, umount(merged));
	sprintf(path, "%s/new", upper);
	EXPECT_EQ(0, set_backing(ino, path));
	EXPECT_EQ(0, set_backing(ino, "none"));
}

DMM_TEST(swapdev, bad_backings)
{
	unsigned long ino = self->mem.ino;
	char path[128];
	int fd;

	EXPECT_EQ(-ENOENT, set_backing(ino, "/tmp/is-not-there"));
	EXPECT_EQ(-EISDIR, set_backing(ino, "/tmp"));
	EXPECT_EQ(-EINVAL, set_backing(ino, "/dev/null"));
	sprintf(path, "/proc/self/fd/%d", self->mem.fd);
	EXPECT_EQ(-ELOOP, set_backing(ino, path));
	ASSERT_EQ(0, ftruncate(self->fd, DMM_PAGE - 1));
	EXPECT_EQ(-EINVAL, set_backing(ino, self->path));
	ASSERT_EQ(0, mount("swapdev", self->dir, "tmpfs", 0, NULL));
	fd = open(self->path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	close(fd);
	ASSERT_EQ(0, mount(NULL, self->dir, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	EXPECT_EQ(-EROFS, set_backing(ino, self->path));
	dmm_pool_read(ino, "swap/backing", path, sizeof(path));
	EXPECT_EQ(0, strcmp(path, "none\n"));
	ASSERT_EQ(0, umount(self->dir));

	/* With the rights of who writes the path. */
	ASSERT_EQ(0, ftruncate(self->fd, 2 * SIZE));
	EXPECT_EQ(-EACCES, dmm_pool_set_as_nobody(ino, "swap/backing", self->path));

	/* Not changed while there is anything on it. */
	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(-EBUSY, set_backing(ino, "none"));
	EXPECT_EQ(-EBUSY, set_backing(ino, "\n"));
	EXPECT_EQ(0, set_backing(ino, self->path));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(-EBUSY, set_backing(ino, "none"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, backing(ino));
	EXPECT_EQ(0, set_backing(ino, "none"));
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_EQ(SIZE, resident(ino));
}

DMM_TEST(swapdev, full)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, ftruncate(self->fd, SIZE / 4));
	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_EQ(SIZE / 4, swapped(ino));
	EXPECT_EQ(SIZE / 4, backing(ino));
	EXPECT_EQ(SIZE * 3 / 4, resident(ino));
	EXPECT_NE(0, stat_of(ino, "reject_backing"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	/* So full that nothing is kept. */
	EXPECT_GE(SIZE / 4 * 3 / 4, backing(ino));

	/* Holes make room. */
	dmm_pool_set_bytes(ino, "reclaim", SIZE);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE * 3 / 4));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", resident(ino)));
	EXPECT_EQ(0, resident(ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE * 3 / 4, PAGES * 3 / 4,
				   PAGES / 4, 1));
}

/* One slot in two is free, and each of them is found. */
DMM_TEST(swapdev, in_pieces)
{
	unsigned long ino = self->mem.ino;
	uint64_t i;

	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	ASSERT_EQ(0, set_backing(ino, self->path));
	for (i = 1; i <= 3; i++) {
		dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
		reclaim_all(_metadata, ino);
	}
	for (i = 0; i < PAGES; i += 2)
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, i * DMM_PAGE,
				       DMM_PAGE));
	EXPECT_EQ(SIZE / 2, backing(ino));
	for (i = 0; i < PAGES; i += 2)
		dmm_fill(self->mem.hva + i * DMM_PAGE, i, 1, 2);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 2));
	EXPECT_EQ(SIZE, backing(ino));
	EXPECT_EQ(0, stat_of(ino, "reject_backing"));
	for (i = 0; i < PAGES; i++)
		ASSERT_EQ(0, dmm_bad_pages(self->mem.hva + i * DMM_PAGE, i, 1,
					   i % 2 ? 1 : 2));
}

/* The file system has no room for what the file promises. */
DMM_TEST(swapdev, no_space)
{
	unsigned long ino = self->mem.ino;
	int fd;

	ASSERT_EQ(0, mount("swapdev", self->dir, "tmpfs", 0, "size=2m"));
	fd = open(self->path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, 2 * SIZE));
	close(fd);
	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_NE(0, stat_of(ino, "write_failed"));
	EXPECT_NE(0, swapped(ino));
	EXPECT_GE(2UL << 20, swapped(ino));
	EXPECT_EQ(swapped(ino), backing(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	ASSERT_EQ(0, set_backing(ino, "none"));
}

/* Only accesses that need what is not there fail, and only until it is back. */
DMM_TEST(swapdev, short_file)
{
	unsigned long ino = self->mem.ino;
	char *content = malloc(2 * SIZE), byte;

	ASSERT_NE(NULL, content);
	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(2 * SIZE, pread(self->fd, content, 2 * SIZE, 0));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE / 2));

	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_CHECK, DMM_GPA,
					 PAGES, 1));
	EXPECT_NE(0, stat_of(ino, "read_failed"));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	EXPECT_EQ(-EFAULT, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(-1, pread(self->mem.fd, &byte, 1, SIZE - 1));
	EXPECT_EQ(EIO, errno);
	/* It cannot be detached without losing anything. */
	EXPECT_EQ(-EIO, dmm_pool_set(ino, "policies", "-swap"));
	EXPECT_EQ(SIZE / 2, swapped(ino));

	ASSERT_EQ(2 * SIZE, pwrite(self->fd, content, 2 * SIZE, 0));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_EQ(0, swapped(ino));
	free(content);
}

/* Somebody changes the file: what is there is not given to the guest. */
DMM_TEST(swapdev, checksum)
{
	unsigned long ino = self->mem.ino;
	char *content = malloc(2 * SIZE), byte;
	uint64_t i;

	ASSERT_NE(NULL, content);
	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(2 * SIZE, pread(self->fd, content, 2 * SIZE, 0));

	/* Each slot has the content of the next. */
	ASSERT_EQ(2 * SIZE - DMM_PAGE, pwrite(self->fd, content + DMM_PAGE,
					      2 * SIZE - DMM_PAGE, 0));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_CHECK, DMM_GPA,
					 1, 1));
	EXPECT_EQ(DMM_GPA, self->guest->cpu[0].vcpu->run->memory_fault.gpa);
	for (i = 0; i < PAGES; i += 100) {
		EXPECT_EQ(-1, pread(self->mem.fd, &byte, 1, i * DMM_PAGE));
		EXPECT_EQ(EIO, errno);
	}
	EXPECT_LE(PAGES / 100, stat_of(ino, "checksum_failed"));
	EXPECT_EQ(SIZE, swapped(ino));

	/* One bit is enough. */
	content[SIZE / 2 + 77] ^= 1;
	ASSERT_EQ(2 * SIZE, pwrite(self->fd, content, 2 * SIZE, 0));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_CHECK, DMM_GPA,
					 PAGES, 1));
	content[SIZE / 2 + 77] ^= 1;
	ASSERT_EQ(2 * SIZE, pwrite(self->fd, content, 2 * SIZE, 0));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	free(content);
}

DMM_TEST(swapdev, two_pools)
{
	struct dmm_mem other = swap_mem();
	int i;

	ASSERT_EQ(0, set_backing(self->mem.ino, self->path));
	ASSERT_EQ(0, set_backing(other.ino, self->path));
	for (i = 1; i <= 3; i++) {
		dmm_guest_fill(self->guest, DMM_GPA, PAGES, i);
		dmm_fill(other.hva, 0, PAGES, 10 + i);
		reclaim_all(_metadata, self->mem.ino);
		reclaim_all(_metadata, other.ino);
		EXPECT_EQ(SIZE, backing(self->mem.ino));
		EXPECT_EQ(SIZE, backing(other.ino));
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, i));
		EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 10 + i));
	}
	/* One leaves, the other stays. */
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(0, dmm_pool_set(other.ino, "policies", "-swap"));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 13));
	dmm_mem_free(&other);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 3));
}

/* Copies of a pool that does nothing make room for what another has to write. */
DMM_TEST(swapdev, copies_make_room)
{
	struct dmm_mem other = swap_mem();
	int tries;

	ASSERT_EQ(0, ftruncate(self->fd, SIZE / 8 * 12));
	ASSERT_EQ(0, set_backing(self->mem.ino, self->path));
	ASSERT_EQ(0, set_backing(other.ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	ASSERT_EQ(SIZE, backing(self->mem.ino));

	/* There is room for a half of it only. */
	dmm_fill(other.hva, 0, PAGES, 2);
	dmm_pool_set_bytes(other.ino, "reclaim", SIZE);
	for (tries = 0; tries < 100 && backing(self->mem.ino) > SIZE / 2; tries++)
		usleep(100000);
	EXPECT_GE(SIZE / 2, backing(self->mem.ino));
	EXPECT_NE(0, stat_of(self->mem.ino, "copy_dropped"));
	dmm_pool_set_bytes(other.ino, "reclaim", resident(other.ino));
	EXPECT_EQ(0, resident(other.ino));
	EXPECT_EQ(SIZE, backing(other.ino));
	EXPECT_EQ(SIZE, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 2));
	dmm_mem_free(&other);
}

/* A clone shares what is in the backing, which has no room for a copy. */
DMM_TEST(swapdev, clone)
{
	struct dmm_mem copy = swap_mem();
	uint64_t read;

	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	ASSERT_EQ(0, set_backing(self->mem.ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(0, ioctl(copy.fd, FICLONE, self->mem.fd));
	EXPECT_EQ(SIZE, swapped(self->mem.ino));
	EXPECT_EQ(SIZE, swapped(copy.ino));
	EXPECT_EQ(0, resident(copy.ino));
	EXPECT_EQ(SIZE, backing(copy.ino));

	/* Each goes its own way. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 2);
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 2));
	read = stat_of(self->mem.ino, "in_read");
	dmm_mem_free(&copy);
	ASSERT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_READ,
				   DMM_GPA + SIZE / 2, PAGES / 2, 0));
	EXPECT_EQ(read + PAGES / 2, stat_of(self->mem.ino, "in_read"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE / 2, PAGES / 2,
				   PAGES / 2, 1));
}

/* The same of compressed content, and within one file. */
DMM_TEST(swapdev, clone_compressed)
{
	struct dmm_mem copy = swap_mem();
	struct file_clone_range range = {
		.src_fd = self->mem.fd,
		.src_length = SIZE / 2,
		.dest_offset = SIZE / 2,
	};

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_MIXED | 1);
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(0, ioctl(copy.fd, FICLONE, self->mem.fd));
	EXPECT_EQ(SIZE, swapped(copy.ino));
	EXPECT_EQ(0, resident(copy.ino));
	EXPECT_EQ(0, stat_of(self->mem.ino, "in_compressed"));
	EXPECT_NE(0, dmm_pool_get(copy.ino, "compressed_bytes"));

	ASSERT_EQ(0, ioctl(self->mem.fd, FICLONERANGE, &range));
	EXPECT_EQ(SIZE, swapped(self->mem.ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE / 2, 0, PAGES / 2,
				   DMM_MIXED | 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2,
					 DMM_MIXED | 1));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, DMM_MIXED | 1));
	dmm_mem_free(&copy);
}

/* A guest twice its pool, of which nothing compresses. */
DMM_TEST(swapdev, twice_the_pool)
{
	const uint64_t max = SIZE / 2;
	unsigned long ino = self->mem.ino;
	int i;

	ASSERT_EQ(0, set_backing(ino, self->path));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", max));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_GE(max, resident(ino));
	EXPECT_TRUE(dmm_pool_adds_up(&self->mem));
	for (i = 0; i < 2; i++)
		dmm_guest_start(self->guest, i, DMM_OP_CHECK, DMM_GPA, PAGES, 1);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, dmm_guest_join(self->guest, i));
		EXPECT_EQ(0, self->guest->cpu[i].cmd->result);
	}
	ASSERT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_READ_RANDOM, DMM_GPA,
				   PAGES, 0));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_GE(max, resident(ino));
	/* Who waited for the file was told, so that others could go on. */
	EXPECT_NE(0, dmm_guest_stat(self->guest, "dmm_wait"));
}

/* Guests count in their pages while all of them are written, again and again. */
DMM_TEST(swapdev, written_under_load)
{
	unsigned long ino = self->mem.ino;
	unsigned int seed = 1;
	int cpu, i, r;

	ASSERT_EQ(0, set_backing(ino, self->path));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/max_compressed_percent", "0"));
	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_start(self->guest, cpu, DMM_OP_COUNT,
				DMM_GPA + cpu * (SIZE / 2), PAGES / 2, 0);
	for (i = 0; i < 40; i++) {
		uint64_t max = SIZE / 4 + rand_r(&seed) % SIZE;

		r = dmm_pool_set_bytes(ino, "max_bytes", max);
		ASSERT_TRUE(!r || r == -EBUSY);
		if (i % 5 == 0)
			dmm_pool_set_bytes(ino, "reclaim", SIZE);
		usleep(10000);
	}
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 2 * SIZE));
	for (cpu = 0; cpu < 2; cpu++) {
		dmm_guest_wait_rounds(self->guest, cpu, 2);
		EXPECT_EQ(0, dmm_guest_stop(self->guest, cpu));
		EXPECT_EQ(0, self->guest->cpu[cpu].cmd->result);
	}
	EXPECT_NE(0, stat_of(ino, "out_written"));
	EXPECT_EQ(0, stat_of(ino, "checksum_failed"));
	EXPECT_EQ(0, stat_of(ino, "read_failed"));
}

DMM_TEST(swapdev, detach)
{
	unsigned long ino = self->mem.ino;
	int cpu, i, r;

	ASSERT_EQ(0, set_backing(ino, self->path));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE / 2));
	EXPECT_EQ(-EBUSY, dmm_pool_set(ino, "policies", "-swap"));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-swap"));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_EQ(0, swapped(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));

	/* While pages are being written. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_start(self->guest, cpu, DMM_OP_COUNT,
				DMM_GPA + cpu * (SIZE / 2), PAGES / 2, 0);
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+swap"));
		ASSERT_EQ(0, set_backing(ino, self->path));
		ASSERT_EQ(0, dmm_pool_set(ino, "swap/max_compressed_percent", "0"));
		r = dmm_pool_set_bytes(ino, "reclaim", SIZE);
		ASSERT_TRUE(!r || r == -EAGAIN);
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-swap"));
		ASSERT_EQ(0, swapped(ino));
	}
	for (cpu = 0; cpu < 2; cpu++) {
		dmm_guest_wait_rounds(self->guest, cpu, 2);
		EXPECT_EQ(0, dmm_guest_stop(self->guest, cpu));
		EXPECT_EQ(0, self->guest->cpu[cpu].cmd->result);
	}
}

/* Who is killed leaves nothing in the file. */
DMM_TEST(swapdev, killed)
{
	unsigned long ino;
	int fds[2], status;
	pid_t pid;

	ASSERT_EQ(0, ftruncate(self->fd, SIZE));
	ASSERT_EQ(0, set_backing(self->mem.ino, self->path));
	ASSERT_EQ(0, pipe(fds));
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid) {
		struct dmm_mem mem = swap_mem();
		struct dmm_guest *guest = dmm_guest_create(1);

		set_backing(mem.ino, self->path);
		dmm_pool_set(mem.ino, "swap/max_compressed_percent", "0");
		dmm_pool_set_bytes(mem.ino, "max_bytes", SIZE / 4);
		dmm_guest_add_mem(guest, &mem);
		dmm_guest_start(guest, 0, DMM_OP_COUNT, DMM_GPA, PAGES, 0);
		dmm_guest_wait_rounds(guest, 0, 2);
		if (write(fds[1], &mem.ino, sizeof(mem.ino)) < 0)
			exit(1);
		pause();
	}
	ASSERT_EQ(sizeof(ino), read(fds[0], &ino, sizeof(ino)));
	EXPECT_NE(0, backing(ino));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	EXPECT_TRUE(dmm_pool_gone(ino));

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(SIZE, backing(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

DMM_TEST(swapdev, block_device)
{
	unsigned long ino = self->mem.ino;
	char path[64], shown[64];
	int control, loop, fd, nr;

	control = open("/dev/loop-control", O_RDWR);
	if (control < 0 && !system("modprobe loop"))
		control = open("/dev/loop-control", O_RDWR);
	if (control < 0)
		SKIP(return, "no loop devices");
	nr = ioctl(control, LOOP_CTL_GET_FREE);
	ASSERT_LE(0, nr);
	close(control);
	sprintf(path, "/dev/loop%d", nr);
	loop = open(path, O_RDWR);
	ASSERT_LE(0, loop);
	ASSERT_EQ(0, ioctl(loop, LOOP_SET_FD, self->fd));

	ASSERT_EQ(0, set_backing(ino, path));
	dmm_pool_read(ino, "swap/backing", shown, sizeof(shown));
	EXPECT_EQ(0, strncmp(path, shown, strlen(path)));
	/* Nobody mounts it now. */
	EXPECT_EQ(-1, open(path, O_RDWR | O_EXCL));
	EXPECT_EQ(EBUSY, errno);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(SIZE, backing(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-swap"));

	fd = open(path, O_RDWR | O_EXCL);
	EXPECT_LE(0, fd);
	/* Now it is somebody else's. */
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+swap"));
	EXPECT_EQ(-EBUSY, set_backing(ino, path));
	close(fd);
	ioctl(loop, LOOP_CLR_FD);
	close(loop);
}

/* What could not go while there was no backing goes when there is one: much later. */
DMM_TEST(swapdev, cold_goes_later)
{
	unsigned long ino = self->mem.ino;
	int tries;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/pages_per_second", "1000000"));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "400"));
	for (tries = 0; tries < 600 &&
	     stat_of(ino, "reject_incompressible") < PAGES; tries++)
		usleep(100000);
	EXPECT_LE(PAGES, stat_of(ino, "reject_incompressible"));
	ASSERT_EQ(0, set_backing(ino, self->path));
	/* After 240 passes, ten in a second. */
	for (tries = 0; tries < 1200 && swapped(ino) < SIZE; tries++)
		usleep(100000);
	EXPECT_EQ(SIZE, swapped(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "0"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

TEST_HARNESS_MAIN
