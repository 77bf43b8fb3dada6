// SPDX-License-Identifier: GPL-2.0-only
/*
 * Clones of memory files: FICLONE and FICLONERANGE.
 */
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define WORDS	(DMM_PAGE / 8)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(clone) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(clone)
{
	self->mem = dmm_mem_create_exact(SIZE);
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(clone)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t resident(struct dmm_mem *mem)
{
	return dmm_pool_get(mem->ino, "resident_bytes");
}

static uint64_t shared(struct dmm_mem *mem)
{
	return dmm_pool_get(mem->ino, "shared_bytes");
}

static uint64_t *page(struct dmm_mem *mem, uint64_t index)
{
	return mem->hva + index * DMM_PAGE;
}

static int reflink(struct dmm_mem *to, struct dmm_mem *from)
{
	return ioctl(to->fd, FICLONE, from->fd) ? -errno : 0;
}

static int reflink_range(struct dmm_mem *to, uint64_t to_offset,
			 struct dmm_mem *from, uint64_t offset, uint64_t len)
{
	struct file_clone_range range = {
		.src_fd = from->fd,
		.src_offset = offset,
		.src_length = len,
		.dest_offset = to_offset,
	};

	return ioctl(to->fd, FICLONERANGE, &range) ? -errno : 0;
}

/* A file without content. */
static struct dmm_mem empty(void)
{
	return dmm_mem_create_exact(SIZE);
}

DMM_TEST(clone, all)
{
	struct dmm_mem copy = empty();

	EXPECT_EQ(0, dmm_blocks(&copy));

	dmm_guest_fill(self->guest, DMM_GPA, PAGES - 100, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(SIZE - 100 * DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(0, resident(&copy));
	EXPECT_EQ(SIZE - 100 * DMM_PAGE, shared(&copy));
	EXPECT_EQ(SIZE - 100 * DMM_PAGE, shared(&self->mem));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES - 100, 1));
	EXPECT_EQ(0, dmm_nonzero_pages(page(&copy, PAGES - 100), 100));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES - 100, 1));
	EXPECT_EQ(0, resident(&copy));
	/* Archivers take a file without blocks for one hole. */
	EXPECT_NE(0, dmm_blocks(&copy));

	/* The guest had all of it mapped for writing. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES - 100, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
	EXPECT_EQ(SIZE, resident(&self->mem));
	EXPECT_EQ(SIZE - 100 * DMM_PAGE, resident(&copy));

	/* The clone is the last user of each, and takes it over. */
	dmm_fill(copy.hva, 0, PAGES, 3);
	EXPECT_EQ(SIZE, resident(&copy));
	EXPECT_EQ(0, shared(&copy));
	EXPECT_EQ(0, shared(&self->mem));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
	dmm_mem_free(&copy);
}

/* The clone writes first, by guest, mapping and system call. */
DMM_TEST(clone, clone_writes)
{
	struct dmm_mem copy = empty();
	struct dmm_guest *guest;
	uint64_t value = 5;

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	guest = dmm_guest_create(1);
	dmm_guest_add_mem(guest, &copy);
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	dmm_guest_fill(guest, DMM_GPA, 100, 2);
	dmm_fill(page(&copy, 100), 100, 100, 2);
	ASSERT_EQ(8, pwrite(copy.fd, &value, 8, 700 * DMM_PAGE + 8));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, 200, 2));
	EXPECT_EQ(5, dmm_guest_peek(guest, DMM_GPA + 700 * DMM_PAGE + 8));
	EXPECT_EQ(201 * DMM_PAGE, resident(&copy));
	EXPECT_EQ(SIZE, resident(&self->mem));
	dmm_guest_free(guest);
	dmm_mem_free(&copy);
}

static uint64_t stat(struct dmm_mem *mem, const char *name)
{
	char file[64];

	snprintf(file, sizeof(file), "stats/%s", name);
	return dmm_pool_get(mem->ino, file);
}

/* A clone whose guest writes in sequence is copied ahead, and no page too much. */
DMM_TEST(clone, sequence)
{
	struct dmm_mem copy = dmm_mem_create(SIZE);
	struct dmm_guest *guest;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	guest = dmm_guest_create(1);
	dmm_guest_add_mem(guest, &copy);
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	dmm_guest_fill(guest, DMM_GPA, 40, 2);
	/* What was copied ahead is what the guest reads, not the frame it had mapped. */
	EXPECT_TRUE(dmm_pool_ok(copy.ino));
	dmm_fill(page(&copy, 40), 40, 8, 9);
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA + 40 * DMM_PAGE, 8, 9));
	dmm_guest_fill(guest, DMM_GPA, PAGES / 2, 2);
	EXPECT_EQ(SIZE / 2, resident(&copy));
	EXPECT_EQ(PAGES / 2, stat(&copy, "cow"));
	EXPECT_GT(stat(&copy, "cow_around"), PAGES / 2 * 3 / 4);
	EXPECT_EQ(0, stat(&copy, "take_over"));
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES / 2, 2));
	EXPECT_EQ(0, dmm_bad_pages(page(&copy, PAGES / 2), PAGES / 2, PAGES / 2, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(SIZE, resident(&self->mem));
	EXPECT_TRUE(dmm_pool_ok(copy.ino));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));

	/* Where pages were written already, a window has less to copy. */
	dmm_guest_fill(guest, DMM_GPA + SIZE / 4, PAGES * 3 / 4, 3);
	EXPECT_EQ(SIZE, resident(&copy));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES / 4, 2));
	dmm_guest_free(guest);
	dmm_mem_free(&copy);
}

/* What is written here and there is copied by itself, and stays shared around. */
DMM_TEST(clone, here_and_there)
{
	struct dmm_mem copy = dmm_mem_create(SIZE);
	uint64_t i, n = 0;

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	for (i = 0; i < PAGES; i += 37, n++)
		dmm_fill(page(&copy, i), i, 1, 2);
	EXPECT_EQ(n, stat(&copy, "cow"));
	EXPECT_EQ(0, stat(&copy, "cow_around"));
	EXPECT_EQ(n * DMM_PAGE, resident(&copy));
	dmm_mem_free(&copy);
}

/* The last user gets what is ahead without a copy. */
DMM_TEST(clone, sequence_of_last_user)
{
	struct dmm_mem copy = dmm_mem_create(SIZE);
	struct dmm_guest *guest;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(SIZE, shared(&copy));
	guest = dmm_guest_create(1);
	dmm_guest_add_mem(guest, &copy);
	dmm_guest_fill(guest, DMM_GPA, PAGES / 2, 3);
	EXPECT_EQ(0, stat(&copy, "cow"));
	EXPECT_EQ(PAGES / 2, stat(&copy, "take_over"));
	/* Shadow paging maps what it prefetches only. */
	if (kvm_is_tdp_enabled())
		EXPECT_LT(stat(&copy, "fault"), PAGES / 4);
	EXPECT_EQ(SIZE / 2, shared(&copy));
	EXPECT_EQ(SIZE, resident(&copy));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES / 2, 3));
	EXPECT_EQ(0, dmm_bad_pages(page(&copy, PAGES / 2), PAGES / 2, PAGES / 2, 1));
	EXPECT_TRUE(dmm_pool_ok(copy.ino));
	dmm_guest_free(guest);
	dmm_mem_free(&copy);
}

#define TRACE	"/sys/kernel/tracing/"

/* How often the pool's pages were taken out of page tables since the last time. */
static unsigned int unmapped(struct dmm_mem *mem)
{
	char line[512], wanted[64];
	unsigned int n = 0;
	FILE *f;

	snprintf(wanted, sizeof(wanted), "kvm_dmm_unmap: pool %lu ", mem->ino);
	f = fopen(TRACE "trace", "r");
	TEST_ASSERT(f, "The trace cannot be read");
	while (fgets(line, sizeof(line), f))
		n += !!strstr(line, wanted);
	fclose(f);
	/* Opened so, the trace is emptied. */
	f = fopen(TRACE "trace", "w");
	TEST_ASSERT(f, "The trace cannot be emptied");
	fclose(f);
	return n;
}

/* What nobody has read since it was cloned is in no page table. */
DMM_TEST(clone, unmaps_what_was_read)
{
	const char *event = TRACE "events/kvm_dmm/kvm_dmm_unmap/enable";
	struct dmm_mem copy = empty();
	struct dmm_guest *guest;

	if (access(event, W_OK))
		SKIP(return, "no trace events");
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	guest = dmm_guest_create(1);
	dmm_guest_add_mem(guest, &copy);
	/* Others may have left it off. */
	ASSERT_EQ(0, dmm_write_file(TRACE "tracing_on", "1", 1));
	ASSERT_EQ(0, dmm_write_file(event, "1", 1));
	unmapped(&copy);

	dmm_guest_fill(guest, DMM_GPA, 8, 2);
	EXPECT_EQ(0, unmapped(&copy));
	/* Those around it are mapped with it, and unmapped one by one. */
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA + 64 * DMM_PAGE, 1, 1));
	dmm_guest_fill(guest, DMM_GPA + 64 * DMM_PAGE, 1, 2);
	EXPECT_EQ(1, unmapped(&copy));
	EXPECT_EQ(0, dmm_bad_pages(page(&copy, 200), 200, 1, 1));
	dmm_guest_fill(guest, DMM_GPA + 200 * DMM_PAGE, 1, 2);
	EXPECT_EQ(1, unmapped(&copy));
	dmm_guest_fill(guest, DMM_GPA + 208 * DMM_PAGE, 1, 2);
	EXPECT_EQ(0, unmapped(&copy));

	dmm_write_file(event, "0", 1);
	dmm_guest_free(guest);
	dmm_mem_free(&copy);
}

/* Clones of clones; whoever is charged goes first. */
DMM_TEST(clone, generations)
{
	struct dmm_mem copy[4];
	uint64_t sum, i;

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	for (i = 0; i < 4; i++) {
		copy[i] = empty();
		ASSERT_EQ(0, reflink(&copy[i], i ? &copy[i - 1] : &self->mem));
	}
	dmm_fill(self->mem.hva, 0, PAGES, 9);
	dmm_fill(page(&copy[1], 0), 0, 512, 9);
	for (i = 0, sum = 0; i < 4; i++)
		sum += resident(&copy[i]);
	EXPECT_EQ(SIZE + DMM_BLOCK, sum);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, fallocate(copy[i].fd, PUNCH, 0, DMM_PAGE));
		dmm_mem_free(&copy[i]);
	}
	EXPECT_EQ(SIZE, resident(&copy[3]));
	EXPECT_EQ(SIZE, shared(&copy[3]));
	EXPECT_EQ(0, dmm_bad_pages(copy[3].hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 9));
	dmm_fill(copy[3].hva, 0, PAGES, 4);
	EXPECT_EQ(SIZE, resident(&copy[3]));
	EXPECT_EQ(0, shared(&copy[3]));
	dmm_mem_free(&copy[3]);
}

/* What the destination had is gone, also where the source has nothing. */
DMM_TEST(clone, replaces)
{
	struct dmm_mem copy = empty();

	dmm_fill(copy.hva, 0, PAGES, 7);
	dmm_fill(page(&self->mem, 3), 3, 1000, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(0, dmm_nonzero_pages(copy.hva, 3));
	EXPECT_EQ(0, dmm_bad_pages(page(&copy, 3), 3, 1000, 1));
	EXPECT_EQ(0, dmm_nonzero_pages(page(&copy, 1003), PAGES - 1003));
	EXPECT_EQ(0, resident(&copy));
	EXPECT_EQ(1000 * DMM_PAGE, resident(&self->mem));
	/* Again: nothing changes. */
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(1000 * DMM_PAGE, shared(&copy));
	EXPECT_EQ(0, resident(&copy));
	/* And back. */
	ASSERT_EQ(0, reflink(&self->mem, &copy));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 3), 3, 1000, 1));
	EXPECT_EQ(1000 * DMM_PAGE, resident(&self->mem) + resident(&copy));
	dmm_mem_free(&copy);
	EXPECT_EQ(1000 * DMM_PAGE, resident(&self->mem));
}

DMM_TEST(clone, ranges)
{
	struct dmm_mem copy = empty();

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	/* Shifted by a page, and within one file. */
	ASSERT_EQ(0, reflink_range(&copy, 0, &self->mem, 5 * DMM_PAGE,
				   700 * DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 5, 700, 1));
	EXPECT_EQ(0, dmm_nonzero_pages(page(&copy, 700), PAGES - 700));
	ASSERT_EQ(0, reflink_range(&copy, SIZE / 2, &copy, 0, 700 * DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(page(&copy, PAGES / 2), 5, 700, 1));
	EXPECT_EQ(0, resident(&copy));
	EXPECT_EQ(1400 * DMM_PAGE, shared(&copy));

	dmm_fill(copy.hva, 0, 700, 2);
	EXPECT_EQ(0, dmm_bad_pages(page(&copy, PAGES / 2), 5, 700, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	dmm_fill(self->mem.hva, 0, PAGES, 3);
	EXPECT_EQ(0, dmm_bad_pages(page(&copy, PAGES / 2), 5, 700, 1));
	EXPECT_EQ(1400 * DMM_PAGE, resident(&copy));
	dmm_mem_free(&copy);
}

/* The whole makes frames of clones, parts add users elsewhere. */
DMM_TEST(clone, mixed)
{
	struct dmm_mem a = empty(), b = empty(), c = empty();
	uint64_t sum;

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, reflink(&a, &self->mem));
	ASSERT_EQ(0, reflink_range(&b, DMM_PAGE, &a, 0, SIZE / 2));
	ASSERT_EQ(0, reflink(&c, &a));
	ASSERT_EQ(0, reflink_range(&c, SIZE / 2, &b, DMM_PAGE, SIZE / 2));
	sum = resident(&self->mem) + resident(&a) + resident(&b) + resident(&c);
	EXPECT_EQ(SIZE, sum);
	dmm_fill(a.hva, 0, PAGES, 4);
	EXPECT_EQ(0, dmm_bad_pages(page(&b, 1), 0, PAGES / 2, 1));
	EXPECT_EQ(0, dmm_bad_pages(c.hva, 0, PAGES / 2, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&c, PAGES / 2), 0, PAGES / 2, 1));
	dmm_fill(self->mem.hva, 0, PAGES, 5);
	EXPECT_EQ(SIZE / 2, resident(&b) + resident(&c));
	dmm_mem_free(&b);
	EXPECT_EQ(SIZE / 2, resident(&c));
	EXPECT_EQ(0, dmm_bad_pages(page(&c, PAGES / 2), 0, PAGES / 2, 1));
	dmm_mem_free(&a);
	dmm_mem_free(&c);
}

DMM_TEST(clone, bad_input)
{
	struct dmm_mem copy = empty();
	int fd;

	dmm_fill(self->mem.hva, 0, 8, 1);
	EXPECT_EQ(-EINVAL, reflink_range(&copy, 1, &self->mem, 0, DMM_PAGE));
	EXPECT_EQ(-EINVAL, reflink_range(&copy, 0, &self->mem, 512, DMM_PAGE));
	EXPECT_EQ(-EINVAL, reflink_range(&copy, 0, &self->mem, 0, 100));
	EXPECT_EQ(-EINVAL, reflink_range(&copy, 0, &self->mem, SIZE, DMM_PAGE));
	EXPECT_EQ(-EINVAL, reflink_range(&copy, 0, &self->mem, 0, SIZE * 2));
	EXPECT_EQ(-EINVAL, reflink_range(&copy, DMM_PAGE, &copy, 0, 2 * DMM_PAGE));
	EXPECT_EQ(0, resident(&copy));
	EXPECT_EQ(0, shared(&self->mem));

	/* Beyond the end makes the file larger. */
	ASSERT_EQ(0, reflink_range(&copy, SIZE, &self->mem, 0, 8 * DMM_PAGE));
	EXPECT_EQ(SIZE + 8 * DMM_PAGE, lseek(copy.fd, 0, SEEK_END));

	/* Not to who may not write, nor from other file systems. */
	fd = open("/proc/self/exe", O_RDONLY);
	ASSERT_LT(0, fd);
	EXPECT_EQ(-1, ioctl(copy.fd, FICLONE, fd));
	EXPECT_EQ(EXDEV, errno);
	close(fd);
	dmm_mem_free(&copy);
}

/* Somebody may still write to a page that is held: it is copied. */
DMM_TEST(clone, held_page)
{
	struct dmm_mem copy = empty();
	struct iovec iov;
	char *buf = malloc(DMM_PAGE);
	int fds[2];

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(0, pipe(fds));
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	iov = (struct iovec) { page(&self->mem, 600), DMM_PAGE };
	ASSERT_EQ(DMM_PAGE, vmsplice(fds[1], &iov, 1, 0));
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(DMM_PAGE, resident(&copy));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	dmm_fill(page(&self->mem, 600), 600, 101, 2);
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	ASSERT_EQ(DMM_PAGE, read(fds[0], buf, DMM_PAGE));
	free(buf);
	dmm_mem_free(&copy);
}

/* Blocks are written to again in pieces; the clone can be punched. */
DMM_TEST(clone, blocks)
{
	struct dmm_mem copy = empty();

	dmm_compact();
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(SIZE, dmm_pool_get(self->mem.ino, "huge_bytes"));
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "huge_bytes"));
	dmm_guest_fill(self->guest, DMM_GPA, 513, 2);
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	ASSERT_EQ(0, fallocate(copy.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, resident(&copy));
	EXPECT_EQ(SIZE, resident(&self->mem));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 513, 2));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 3);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 3));
	EXPECT_EQ(0, shared(&self->mem));
	dmm_mem_free(&copy);
}

/* What a policy keeps comes along. */
DMM_TEST(clone, tokens)
{
	struct dmm_mem copy;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	copy = empty();
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "reclaim", SIZE / 2));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(self->mem.ino, "swapped_bytes"));

	/* The clone has no such policy: the content comes back. */
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "swapped_bytes"));
	EXPECT_EQ(SIZE, resident(&self->mem) + resident(&copy));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	dmm_mem_free(&copy);

	/* It has: both use the one that is kept. */
	copy = empty();
	ASSERT_EQ(0, dmm_pool_set(copy.ino, "policies", "+test-token"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "reclaim", SIZE / 2));
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(self->mem.ino, "swapped_bytes"));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(copy.ino, "swapped_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES / 2, 2));
	dmm_guest_fill(self->guest, DMM_GPA, 100, 3);
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 2));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 100, 3));
	EXPECT_EQ(100, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-test-token"));
	dmm_mem_free(&copy);
}

/* What clones share goes out for all of them. */
DMM_TEST(clone, reclaim)
{
	struct dmm_mem a, b;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	a = empty();
	b = empty();
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set(a.ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set(b.ino, "policies", "+test-token"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, reflink(&a, &self->mem));
	ASSERT_EQ(0, reflink(&b, &a));
	dmm_fill(a.hva, 0, 10, 2);
	ASSERT_EQ(0, dmm_pool_set_bytes(b.ino, "reclaim", SIZE));
	EXPECT_EQ(SIZE, dmm_pool_get(b.ino, "swapped_bytes"));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "swapped_bytes"));
	EXPECT_EQ(10 * DMM_PAGE, resident(&a));
	EXPECT_EQ(0, resident(&b) + resident(&self->mem));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(a.hva, 0, 10, 2));
	EXPECT_EQ(0, dmm_bad_pages(page(&a, 10), 10, PAGES - 10, 1));
	EXPECT_EQ(0, dmm_bad_pages(b.hva, 0, PAGES, 1));
	dmm_mem_free(&a);
	dmm_mem_free(&b);
}

/* At the limit: the clone needs nothing, its writes do. */
DMM_TEST(clone, limit)
{
	struct dmm_mem copy = empty();
	uint64_t value = 1;

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(copy.ino, "max_bytes", 16 * DMM_PAGE));
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	dmm_fill(copy.hva, 0, 16, 2);
	EXPECT_EQ(-1, pwrite(copy.fd, &value, 8, 20 * DMM_PAGE));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(0, dmm_bad_pages(page(&copy, 16), 16, PAGES - 16, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	dmm_mem_free(&copy);
}

/*
 * A page was written, and a look ahead made it read-only, so that a write will
 * count as dirty: whoever wrote may do so still by what its TLB has.
 */
DMM_TEST(clone, flushes_what_was_written)
{
	struct kvm_pre_fault_memory range = { .gpa = DMM_GPA, .size = DMM_BLOCK };
	struct dmm_mem copy = empty();
	uint64_t flushes;

	if (!kvm_is_tdp_enabled() || !kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY))
		SKIP(return, "nothing is mapped ahead");
	dmm_guest_add_slot(self->guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES, DMM_GPA,
			   SIZE, self->mem.hva);
	dmm_guest_fill(self->guest, DMM_GPA, 512, 1);
	ASSERT_EQ(0, __vcpu_ioctl(self->guest->cpu[0].vcpu, KVM_PRE_FAULT_MEMORY,
				  &range));
	flushes = vm_get_stat(self->guest->vm, "remote_tlb_flush_requests");
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_LT(flushes, vm_get_stat(self->guest->vm,
				       "remote_tlb_flush_requests"));
	dmm_guest_fill(self->guest, DMM_GPA, 512, 2);
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, 512, 1));
	dmm_mem_free(&copy);
}

/* Who gets the frames of others makes room for them, even if nobody touches it. */
DMM_TEST(clone, heir_above_limit)
{
	struct dmm_mem copy;
	int tries;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	copy = empty();
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set(copy.ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set_bytes(copy.ino, "max_bytes", SIZE / 4));
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	EXPECT_EQ(0, resident(&copy));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	for (tries = 0; resident(&copy) > SIZE / 4 && tries < 500; tries++)
		usleep(10000);
	EXPECT_GE(SIZE / 4, resident(&copy));
	EXPECT_TRUE(dmm_pool_adds_up(&copy));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	dmm_mem_free(&copy);
}

/* Of a guest that counts: each page is as it was at one moment. */
DMM_TEST(clone, under_load)
{
	struct dmm_mem copy[4];
	uint64_t round, i, j;

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, 600, 0);
	for (i = 0; i < 4; i++) {
		dmm_guest_wait_rounds(self->guest, 0, 3 * i + 1);
		copy[i] = empty();
		ASSERT_EQ(0, reflink(&copy[i], &self->mem));
	}
	dmm_guest_wait_rounds(self->guest, 0, 20);
	for (i = 0; i < 4; i++) {
		for (j = 0; j < 600; j++) {
			uint64_t first = page(&copy[i], j)[0];
			uint64_t last = page(&copy[i], j)[WORDS - 1];

			ASSERT_LE(3 * i + 1, first + 1);
			ASSERT_LE(first > last ? first - last : last - first, 1);
		}
	}
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	round = self->guest->cpu[0].cmd->rounds;
	for (j = 0; j < 600; j++) {
		ASSERT_EQ(round, page(&self->mem, j)[0]);
		ASSERT_EQ(round, page(&self->mem, j)[WORDS - 1]);
	}
	for (i = 0; i < 4; i++)
		dmm_mem_free(&copy[i]);
}

/**
 * struct writer - writes to a clone as soon as it has anything
 * @fd: of the clone
 * @last: mapping of the last page of its first 2 MiB, and of others behind it
 */
struct writer {
	int fd;
	uint64_t *last;
};

static void *write_to_clone(void *arg)
{
	struct sched_param param = { .sched_priority = 1 };
	struct writer *writer = arg;
	uint64_t word;

	/* So it comes between, on a kernel that preempts itself. */
	pthread_setschedparam(pthread_self(), SCHED_FIFO, &param);
	do {
		usleep(50);
		if (pread(writer->fd, &word, 8, DMM_BLOCK - DMM_PAGE) != 8)
			return NULL;
	} while (!word);
	*(volatile uint64_t *)writer->last = 5;
	return NULL;
}

/* A clone is written before the source has got all of its entries back. */
DMM_TEST(clone, used_at_once)
{
	const uint64_t pages = DMM_BLOCK / DMM_PAGE;
	struct writer writer;
	struct dmm_mem copy;
	pthread_t thread;
	uint64_t i, k;

	for (i = 0; i < 100; i++) {
		dmm_guest_fill(self->guest, DMM_GPA, pages, i + 1);
		copy = empty();
		writer.fd = copy.fd;
		writer.last = mmap(NULL, SIZE / 2, PROT_READ | PROT_WRITE,
				   MAP_SHARED, copy.fd, DMM_BLOCK - DMM_PAGE);
		ASSERT_NE(MAP_FAILED, writer.last);
		/* There are page tables, but nothing that is to be cloned. */
		EXPECT_EQ(0, writer.last[WORDS]);
		ASSERT_EQ(0, pthread_create(&thread, NULL, write_to_clone,
					    &writer));
		/* At another moment each time. */
		usleep(1000);
		for (k = 0; k < i * 500; k++)
			cpu_relax();
		ASSERT_EQ(0, reflink(&copy, &self->mem));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		ASSERT_EQ(5, writer.last[0]);
		ASSERT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, pages,
						 i + 1));
		ASSERT_EQ(0, dmm_bad_pages(copy.hva, 0, pages - 1, i + 1));
		ASSERT_TRUE(dmm_pool_ok(self->mem.ino));
		ASSERT_EQ(0, munmap(writer.last, SIZE / 2));
		dmm_mem_free(&copy);
	}
}

/* Many clones, all writing. */
DMM_TEST(clone, many)
{
	const int n = 60;
	struct dmm_mem copy[60];
	int i;

	dmm_fill(self->mem.hva, 0, 600, 1);
	for (i = 0; i < n; i++) {
		copy[i] = empty();
		ASSERT_EQ(0, reflink(&copy[i], &self->mem));
	}
	dmm_guest_fill(self->guest, DMM_GPA, 600, 2);
	for (i = 0; i < n; i++)
		dmm_fill(page(&copy[i], i), i, 8, 3 + i);
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, dmm_bad_pages(copy[i].hva, 0, i, 1));
		ASSERT_EQ(0, dmm_bad_pages(page(&copy[i], i), i, 8, 3 + i));
		ASSERT_EQ(0, dmm_bad_pages(page(&copy[i], i + 8), i + 8,
					   600 - 8 - i, 1));
	}
	for (i = 0; i < n; i++)
		dmm_mem_free(&copy[i]);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 600, 2));
	EXPECT_EQ(0, shared(&self->mem));
}

/*
 * A file whose last page is not whole, and shared, is as large as before where there
 * is no room for more, nor for a copy of that page.
 */
DMM_TEST(clone, undone_at_limit)
{
	const off_t size = 10 * DMM_PAGE + 100;
	struct dmm_mem copy = empty();
	char buf[DMM_PAGE] = { 1 };

	ASSERT_EQ(0, ftruncate(self->mem.fd, size));
	dmm_fill(self->mem.hva, 0, 10, 1);
	ASSERT_EQ(100, pwrite(self->mem.fd, buf, 100, 10 * DMM_PAGE));
	ASSERT_EQ(0, ftruncate(copy.fd, 0));
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	ASSERT_EQ(size, lseek(copy.fd, 0, SEEK_END));
	ASSERT_EQ(0, dmm_pool_set(copy.ino, "max_bytes", "0"));

	EXPECT_EQ(-1, fallocate(copy.fd, 0, 0, 1 << 20));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(size, lseek(copy.fd, 0, SEEK_END));
	EXPECT_EQ(-1, pwrite(copy.fd, buf, sizeof(buf), 20 * DMM_PAGE));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(size, lseek(copy.fd, 0, SEEK_END));
	/* Half of a page is no hole, but a page that has to be copied. */
	EXPECT_EQ(-1, fallocate(copy.fd, PUNCH, 0, 8));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, 10, 1));
	dmm_mem_free(&copy);
}

/* Have the kernel write to a page; returns the error. */
static void *write_by_kernel(void *addr)
{
	int zero = open("/dev/zero", O_RDONLY);
	long r = read(zero, addr, 1) < 0 ? errno : 0;

	close(zero);
	return (void *)r;
}

/* Who waits at the limit for a copy of what is mapped does not keep others waiting. */
DMM_TEST(clone, mmap_while_writer_waits)
{
	struct dmm_mem copy = empty();
	pthread_t thread;
	void *area, *r;
	int tries;

	dmm_fill(self->mem.hva, 0, 4, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	ASSERT_EQ(0, dmm_bad_pages(copy.hva, 0, 4, 1));
	ASSERT_EQ(0, dmm_pool_set(copy.ino, "max_bytes", "0"));
	ASSERT_EQ(0, pthread_create(&thread, NULL, write_by_kernel, copy.hva));
	for (tries = 0; !dmm_pool_get(copy.ino, "stats/limit_wait") && tries < 10000;
	     tries++)
		usleep(1000);
	area = mmap(NULL, DMM_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* It waits for a second. */
	EXPECT_EQ(0, dmm_pool_get(copy.ino, "stats/limit_failed"));
	EXPECT_NE(MAP_FAILED, area);
	pthread_join(thread, &r);
	EXPECT_EQ(EFAULT, (long)r);
	EXPECT_NE(0, dmm_pool_get(copy.ino, "stats/limit_failed"));
	munmap(area, DMM_PAGE);
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, 4, 1));
	dmm_mem_free(&copy);
}

/* What was cloned is cloned over by a file that is no relative. */
DMM_TEST(clone, of_another_family)
{
	struct dmm_mem a = empty(), x = empty(), y = empty();

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, reflink(&a, &self->mem));
	ASSERT_EQ(0, reflink(&y, &x));
	ASSERT_EQ(0, reflink(&x, &self->mem));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(dmm_pool_ok(a.ino));
	EXPECT_TRUE(dmm_pool_ok(x.ino));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	dmm_mem_free(&a);
	EXPECT_EQ(SIZE, dmm_pool_get(x.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(x.hva, 0, PAGES, 1));
	dmm_mem_free(&x);
	dmm_mem_free(&y);
}

/* A pipe of somebody who has given up the page since still reads what it was. */
DMM_TEST(clone, last_user_and_pipe)
{
	struct iovec iov = { self->mem.hva, DMM_PAGE };
	struct dmm_mem copy = empty();
	char buf[DMM_PAGE];
	int fds[2];

	dmm_fill(self->mem.hva, 0, 8, 1);
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(DMM_PAGE, vmsplice(fds[1], &iov, 1, 0));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, DMM_PAGE));
	dmm_fill(copy.hva, 0, 1, 2);
	ASSERT_EQ(DMM_PAGE, read(fds[0], buf, DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(buf, 0, 1, 1));
	close(fds[0]);
	close(fds[1]);
	dmm_mem_free(&copy);
}

/* Zeros that were read do not hide what is cloned there. */
DMM_TEST(clone, where_zeros_were_read)
{
	struct dmm_mem from = empty();

	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, 16));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, 16));
	dmm_fill(from.hva, 0, 16, 1);
	ASSERT_EQ(0, reflink_range(&self->mem, 0, &from, 0, 16 * DMM_PAGE));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 16, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 16, 1));
	dmm_mem_free(&from);
}

/* What a full pool shares and pays for, it may write: the copy was paid for before. */
DMM_TEST(clone, full_source_writes)
{
	struct dmm_mem copy = empty();

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", SIZE));
	ASSERT_EQ(0, reflink(&copy, &self->mem));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "stats/limit_failed"));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));
	EXPECT_EQ(SIZE, dmm_pool_get(copy.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	dmm_mem_free(&copy);
}

/*
 * A family in which nearly all have nothing of what they had in common any more, and
 * who writes shares with the last of it, which goes and is followed by another.
 */
DMM_TEST(clone, large_family)
{
	enum { N = 24 };
	struct dmm_mem clone[N], last, *writer = &clone[N / 2];
	unsigned int i;

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	for (i = 0; i < N; i++) {
		clone[i] = dmm_mem_create_exact(SIZE);
		ASSERT_EQ(0, reflink(&clone[i], &self->mem));
		ASSERT_EQ(0, fallocate(clone[i].fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, 0, SIZE));
	}
	dmm_fill(writer->hva, 0, PAGES, 2);
	for (i = 2; i < 5; i++) {
		last = dmm_mem_create_exact(SIZE);
		ASSERT_EQ(0, reflink(&last, writer));
		EXPECT_EQ(0, resident(&last));
		dmm_fill(writer->hva, 0, PAGES, i + 1);
		EXPECT_EQ(SIZE, resident(&last));
		EXPECT_EQ(SIZE, resident(writer));
		EXPECT_EQ(0, dmm_bad_pages(last.hva, 0, PAGES, i));
		EXPECT_EQ(0, dmm_bad_pages(writer->hva, 0, PAGES, i + 1));
		EXPECT_TRUE(dmm_pool_ok(last.ino));
		dmm_mem_free(&last);
		EXPECT_TRUE(dmm_pool_gone(last.ino));
	}
	EXPECT_TRUE(dmm_pool_ok(writer->ino));
	for (i = 0; i < N; i++)
		dmm_mem_free(&clone[i]);
	EXPECT_EQ(SIZE, resident(&self->mem));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* What somebody leaves is charged to those who have room, and not all to one. */
DMM_TEST(clone, heirs_with_room)
{
	struct dmm_mem copy[3];
	uint64_t sum = 0, got;
	int i;

	dmm_fill(self->mem.hva, 0, PAGES, 1);
	for (i = 0; i < 3; i++) {
		copy[i] = empty();
		ASSERT_EQ(0, dmm_pool_set_bytes(copy[i].ino, "max_bytes",
						i ? SIZE : SIZE / 4));
		ASSERT_EQ(0, reflink(&copy[i], &self->mem));
	}
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	for (i = 0; i < 3; i++) {
		got = dmm_pool_get(copy[i].ino, "resident_bytes");
		EXPECT_GE(i ? SIZE / 2 : SIZE / 4, got);
		sum += got;
	}
	EXPECT_EQ(SIZE, sum);
	for (i = 0; i < 3; i++)
		dmm_mem_free(&copy[i]);
}

TEST_HARNESS_MAIN
