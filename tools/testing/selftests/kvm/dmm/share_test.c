// SPDX-License-Identifier: GPL-2.0-only
/*
 * One frame for several offsets: merging, and copies when somebody writes.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define WORDS	(DMM_PAGE / 8)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(share) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(share)
{
	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no policy test-share");

	self->mem = dmm_mem_create_exact(SIZE);
	dmm_mem_exact(&self->mem);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-share"));
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(share)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t resident(unsigned long ino)
{
	return dmm_pool_get(ino, "resident_bytes");
}

static uint64_t shared(unsigned long ino)
{
	return dmm_pool_get(ino, "shared_bytes");
}

static int merge(unsigned long ino, uint64_t to, uint64_t from)
{
	char value[64];

	snprintf(value, sizeof(value), "%lu %lu", to, from);
	return dmm_pool_set(ino, "test-share/merge", value);
}

/* The same content in @n pages, for all to see. */
static void same_content(struct dmm_mem *mem, uint64_t first, uint64_t n)
{
	while (n--)
		dmm_fill(mem->hva + (first + n) * DMM_PAGE, 0, 1, 1);
}

static uint64_t *page(struct dmm_mem *mem, uint64_t index)
{
	return mem->hva + index * DMM_PAGE;
}

DMM_TEST(share, equal_pages)
{
	same_content(&self->mem, 0, 2);
	same_content(&self->mem, 1000, 1);
	ASSERT_EQ(0, merge(self->mem.ino, 0, 1));
	EXPECT_EQ(2 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(2 * DMM_PAGE, shared(self->mem.ino));

	/* In another 2 MiB, and with what is shared already. */
	ASSERT_EQ(0, merge(self->mem.ino, 0, 1000));
	EXPECT_EQ(DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(3 * DMM_PAGE, shared(self->mem.ino));

	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 0), 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1), 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1000), 0, 1, 1));
	EXPECT_EQ(*page(&self->mem, 0), dmm_guest_peek(self->guest, DMM_GPA));
	EXPECT_EQ(*page(&self->mem, 0),
		  dmm_guest_peek(self->guest, DMM_GPA + 1000 * DMM_PAGE));
	EXPECT_EQ(DMM_PAGE, resident(self->mem.ino));
}

DMM_TEST(share, different_pages)
{
	same_content(&self->mem, 0, 2);
	page(&self->mem, 1)[WORDS - 1] ^= 1;
	EXPECT_EQ(-EINVAL, merge(self->mem.ino, 0, 1));
	EXPECT_EQ(2 * DMM_PAGE, resident(self->mem.ino));
	/* The first has been offered, with nobody else to use it. */
	EXPECT_EQ(DMM_PAGE, shared(self->mem.ino));
	page(&self->mem, 1)[WORDS - 1] ^= 1;
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1), 0, 1, 1));
	EXPECT_EQ(0, merge(self->mem.ino, 0, 1));
}

/* The guest, with both mapped for writing before, writes to one of two. */
DMM_TEST(share, guest_writes)
{
	dmm_guest_fill(self->guest, DMM_GPA, 8, 9);
	same_content(&self->mem, 0, 3);
	ASSERT_EQ(0, merge(self->mem.ino, 0, 1));
	ASSERT_EQ(0, merge(self->mem.ino, 0, 2));
	EXPECT_EQ(6 * DMM_PAGE, resident(self->mem.ino));

	dmm_guest_poke(self->guest, DMM_GPA + DMM_PAGE + 64, 5);
	EXPECT_EQ(5, page(&self->mem, 1)[8]);
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 0), 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 2), 0, 1, 1));
	EXPECT_EQ(7 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(2 * DMM_PAGE, shared(self->mem.ino));
	page(&self->mem, 1)[8] = page(&self->mem, 0)[8];
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1), 0, 1, 1));

	/* The last one takes the frame over, without a copy. */
	dmm_guest_poke(self->guest, DMM_GPA + 64, 6);
	dmm_guest_poke(self->guest, DMM_GPA + 2 * DMM_PAGE + 64, 7);
	EXPECT_EQ(6, page(&self->mem, 0)[8]);
	EXPECT_EQ(7, page(&self->mem, 2)[8]);
	EXPECT_EQ(8 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(0, shared(self->mem.ino));
	EXPECT_NE(0, dmm_pool_get(self->mem.ino, "stats/cow"));
	EXPECT_NE(0, dmm_pool_get(self->mem.ino, "stats/take_over"));
}

DMM_TEST(share, host_writes)
{
	uint64_t value = 8;

	same_content(&self->mem, 0, 4);
	ASSERT_EQ(0, merge(self->mem.ino, 0, 1));
	ASSERT_EQ(0, merge(self->mem.ino, 0, 2));
	ASSERT_EQ(0, merge(self->mem.ino, 0, 3));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 3), 0, 1, 1));

	page(&self->mem, 1)[3] = 7;
	ASSERT_EQ(8, pwrite(self->mem.fd, &value, 8, 2 * DMM_PAGE + 24));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 0), 0, 1, 1));
	EXPECT_EQ(7, dmm_guest_peek(self->guest, DMM_GPA + DMM_PAGE + 24));
	EXPECT_EQ(8, dmm_guest_peek(self->guest, DMM_GPA + 2 * DMM_PAGE + 24));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 3), 0, 1, 1));
	EXPECT_EQ(3 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(2 * DMM_PAGE, shared(self->mem.ino));
}

/* Both vCPUs write to the same shared page at once. */
DMM_TEST(share, race_to_write)
{
	const uint64_t n = 2000;
	uint64_t i;

	for (i = 0; i < 30; i++) {
		uint64_t a = 10 + 2 * i, b = a + 1;

		*page(&self->mem, a) = 0;
		*page(&self->mem, b) = 0;
		ASSERT_EQ(0, merge(self->mem.ino, a, b));
		dmm_guest_start(self->guest, 0, DMM_OP_ADD,
				DMM_GPA + b * DMM_PAGE, 1, n);
		dmm_guest_start(self->guest, 1, DMM_OP_ADD,
				DMM_GPA + b * DMM_PAGE, 1, n);
		EXPECT_EQ(0, dmm_guest_join(self->guest, 0));
		EXPECT_EQ(0, dmm_guest_join(self->guest, 1));
		ASSERT_EQ(2 * n, *page(&self->mem, b));
		ASSERT_EQ(0, *page(&self->mem, a));
	}
}

/* Merge what a running guest may be changing right now. */
DMM_TEST(share, merge_under_load)
{
	uint64_t i, round, merged = 0;
	int r;

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, 64, 0);
	for (i = 0; i < 3000; i++) {
		if (i % 1000 == 0)
			dmm_guest_wait_rounds(self->guest, 0, i / 1000 + 1);
		r = merge(self->mem.ino, i % 64, (i * 7 + 1) % 64);
		ASSERT_TRUE(!r || r == -EAGAIN || r == -EINVAL ||
			    r == -ENOENT || r == -ESTALE);
		merged += !r;
	}
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	round = self->guest->cpu[0].cmd->rounds;
	for (i = 0; i < 64; i++) {
		ASSERT_EQ(round, page(&self->mem, i)[0]);
		ASSERT_EQ(round, page(&self->mem, i)[WORDS - 1]);
	}
	EXPECT_NE(0, merged);
}

DMM_TEST(share, punch_and_truncate)
{
	same_content(&self->mem, 0, 3);
	same_content(&self->mem, PAGES - 1, 1);
	ASSERT_EQ(0, merge(self->mem.ino, 0, 1));
	ASSERT_EQ(0, merge(self->mem.ino, 0, 2));
	ASSERT_EQ(0, merge(self->mem.ino, 0, PAGES - 1));
	EXPECT_EQ(DMM_PAGE, resident(self->mem.ino));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, DMM_PAGE));
	EXPECT_EQ(3 * DMM_PAGE, shared(self->mem.ino));
	EXPECT_EQ(DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, DMM_GPA));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1), 0, 1, 1));

	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE / 2));
	EXPECT_EQ(2 * DMM_PAGE, shared(self->mem.ino));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	EXPECT_EQ(0, *page(&self->mem, PAGES - 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 2), 0, 1, 1));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, shared(self->mem.ino));
	EXPECT_EQ(0, resident(self->mem.ino));
}

/* Sharing is the map's: it stays when the policy goes. */
DMM_TEST(share, detach)
{
	same_content(&self->mem, 0, 2);
	ASSERT_EQ(0, merge(self->mem.ino, 0, 1));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-test-share"));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 0), 0, 1, 1));
	dmm_guest_poke(self->guest, DMM_GPA + DMM_PAGE, 4);
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 0), 0, 1, 1));
	EXPECT_EQ(4, *page(&self->mem, 1));
	EXPECT_EQ(2 * DMM_PAGE, resident(self->mem.ino));
}

/* A page in a pipe is held by somebody: it isn't merged away. */
DMM_TEST(share, held_page)
{
	struct iovec iov;
	char *buf = malloc(DMM_PAGE);
	int fds[2];

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(0, pipe(fds));
	same_content(&self->mem, 0, 2);
	iov = (struct iovec) { page(&self->mem, 1), DMM_PAGE };
	ASSERT_EQ(DMM_PAGE, vmsplice(fds[1], &iov, 1, 0));
	EXPECT_EQ(-EAGAIN, merge(self->mem.ino, 0, 1));
	EXPECT_EQ(2 * DMM_PAGE, resident(self->mem.ino));
	ASSERT_EQ(DMM_PAGE, read(fds[0], buf, DMM_PAGE));
	EXPECT_EQ(0, merge(self->mem.ino, 0, 1));
}

/* Dirty logging and a copy: the page that was written is dirty, only it. */
DMM_TEST(share, dirty_log)
{
	uint64_t bitmap[PAGES / 64] = {};

	same_content(&self->mem, 0, 3);
	dmm_guest_add_slot(self->guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES,
			   DMM_GPA, SIZE, self->mem.hva);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	ASSERT_EQ(0, merge(self->mem.ino, 0, 1));
	ASSERT_EQ(0, merge(self->mem.ino, 0, 2));
	dmm_guest_peek(self->guest, DMM_GPA);
	dmm_guest_poke(self->guest, DMM_GPA + 2 * DMM_PAGE, 1);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	EXPECT_EQ(1UL << 2, bitmap[0]);
}

/* A write-protected frame: the policy learns of writes. */
DMM_TEST(share, protect)
{
	char written[8];

	dmm_guest_fill(self->guest, DMM_GPA, 4, 1);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "test-share/protect", "2"));
	dmm_pool_read(self->mem.ino, "test-share/written", written, 8);
	EXPECT_STREQ("no\n", written);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 4, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 4, 1));
	dmm_pool_read(self->mem.ino, "test-share/written", written, 8);
	EXPECT_STREQ("no\n", written);

	dmm_guest_poke(self->guest, DMM_GPA + 2 * DMM_PAGE, 1);
	dmm_pool_read(self->mem.ino, "test-share/written", written, 8);
	EXPECT_STREQ("yes\n", written);

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "test-share/protect", "3"));
	*page(&self->mem, 3) = 1;
	dmm_pool_read(self->mem.ino, "test-share/written", written, 8);
	EXPECT_STREQ("yes\n", written);
	EXPECT_EQ(1, dmm_guest_peek(self->guest, DMM_GPA + 3 * DMM_PAGE));
}

/* Merging or protecting inside a block of 2 MiB takes it apart. */
DMM_TEST(share, inside_block)
{
	dmm_compact();
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	ASSERT_EQ(SIZE, dmm_pool_get(self->mem.ino, "huge_bytes"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	same_content(&self->mem, 3, 2);
	ASSERT_EQ(0, merge(self->mem.ino, 3, 4));
	EXPECT_EQ(SIZE - DMM_BLOCK, dmm_pool_get(self->mem.ino, "huge_bytes"));
	EXPECT_EQ(2, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
	dmm_guest_poke(self->guest, DMM_GPA + 4 * DMM_PAGE, 77);
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 3), 0, 1, 1));

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "test-share/protect", "600"));
	EXPECT_EQ(SIZE - 2 * DMM_BLOCK,
		  dmm_pool_get(self->mem.ino, "huge_bytes"));
	dmm_guest_poke(self->guest, DMM_GPA + 600 * DMM_PAGE, 78);
	EXPECT_EQ(78, *page(&self->mem, 600));
	EXPECT_EQ(3, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
	/* Nothing but the flag was lost: all its frames are writable again. */
	EXPECT_EQ(SIZE - DMM_BLOCK, dmm_pool_get(self->mem.ino, "huge_bytes"));
}

/* Zero pages are given up only while they are zero. */
DMM_TEST(share, absent)
{
	dmm_guest_fill(self->guest, DMM_GPA, 4, 1);
	EXPECT_EQ(-EINVAL, dmm_pool_set(self->mem.ino, "test-share/absent", "1"));
	memset(page(&self->mem, 1), 0, DMM_PAGE);
	EXPECT_EQ(0, dmm_pool_set(self->mem.ino, "test-share/absent", "1"));
	EXPECT_EQ(3 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, DMM_GPA + DMM_PAGE));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, 4, 1));
	EXPECT_EQ(3 * DMM_PAGE, resident(self->mem.ino));
}

static int command(unsigned long ino, const char *file, uint64_t index)
{
	char path[64], value[32];

	snprintf(path, sizeof(path), "test-share/%s", file);
	snprintf(value, sizeof(value), "%lu", index);
	return dmm_pool_set(ino, path, value);
}

/* A handle lives as long as the frame has users, and no longer. */
DMM_TEST(share, handle_dies)
{
	unsigned long ino = self->mem.ino;
	uint64_t *buf;

	same_content(&self->mem, 0, 6);
	ASSERT_EQ(0, command(ino, "hold", 0));
	ASSERT_EQ(0, command(ino, "join", 1));
	EXPECT_EQ(5 * DMM_PAGE, resident(ino));
	/* The first user leaves, the second can be joined. */
	*page(&self->mem, 0) = 1;
	ASSERT_EQ(0, command(ino, "join", 2));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, DMM_PAGE, DMM_PAGE));
	/* The last takes over: dead, though the page is the same. */
	dmm_guest_poke(self->guest, DMM_GPA + 2 * DMM_PAGE + 8, 3);
	EXPECT_EQ(-ESTALE, command(ino, "join", 3));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 3), 0, 1, 1));

	/* Dead by a hole. */
	ASSERT_EQ(0, command(ino, "hold", 3));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 3 * DMM_PAGE, DMM_PAGE));
	EXPECT_EQ(-ESTALE, command(ino, "join", 4));

	/* A page that a process has mapped can be joined, too. */
	ASSERT_EQ(0, command(ino, "hold", 4));
	buf = page(&self->mem, 4);
	EXPECT_NE(0, *buf);
	EXPECT_EQ(0, command(ino, "join", 5));
	EXPECT_EQ(2 * DMM_PAGE, shared(ino));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 5), 0, 1, 1));
}

/* Two pools share if they were put into one domain, and only then. */
DMM_TEST(share, domains)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(other.ino, "policies", "+test-share"));
	same_content(&self->mem, 0, 4);
	same_content(&other, 0, 4);
	ASSERT_EQ(0, command(ino, "hold", 0));
	ASSERT_EQ(0, command(ino, "join", 1));
	EXPECT_EQ(-EPERM, command(other.ino, "join", 0));
	ASSERT_EQ(0, dmm_pool_set(ino, "domain", "a"));
	EXPECT_EQ(-EPERM, command(other.ino, "join", 0));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "b"));
	EXPECT_EQ(-EPERM, command(other.ino, "join", 0));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "a"));
	ASSERT_EQ(0, command(other.ino, "join", 0));
	ASSERT_EQ(0, command(other.ino, "join", 3));
	EXPECT_EQ(5 * DMM_PAGE, resident(ino) + resident(other.ino));

	/* No room for the copies: all stays as it was. */
	ASSERT_EQ(0, dmm_pool_set_bytes(other.ino, "max_bytes", 2 * DMM_PAGE));
	EXPECT_EQ(-ENOSPC, dmm_pool_set(other.ino, "domain", "c"));
	ASSERT_EQ(0, dmm_pool_set_bytes(other.ino, "max_bytes", SIZE));
	/* Separated, but what one pool shares with itself. */
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "\n"));
	EXPECT_EQ(0, shared(other.ino));
	EXPECT_EQ(4 * DMM_PAGE, resident(other.ino));
	EXPECT_EQ(2 * DMM_PAGE, shared(ino));
	EXPECT_EQ(3 * DMM_PAGE, resident(ino));
	EXPECT_EQ(0, dmm_bad_pages(page(&other, 0), 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&other, 3), 0, 1, 1));
	EXPECT_EQ(-EPERM, command(other.ino, "join", 0));
	dmm_mem_free(&other);
}

struct mover {
	unsigned long ino;
	int r;
};

static void *move_pool(void *arg)
{
	struct mover *mover = arg;

	mover->r = dmm_pool_set(mover->ino, "domain", "two");
	return NULL;
}

/* Who leaves a domain joins nothing meanwhile, not even what is his. */
DMM_TEST(share, moves)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned long ino = self->mem.ino;
	struct mover mover = { .ino = other.ino };
	pthread_t thread;
	uint64_t waits;
	int tries;

	ASSERT_EQ(0, dmm_pool_set(other.ino, "policies", "+test-share"));
	ASSERT_EQ(0, dmm_pool_set(ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "one"));
	dmm_fill(self->mem.hva, 0, 1, 2);
	dmm_fill(self->mem.hva + DMM_PAGE, 0, 1, 1);
	dmm_fill(other.hva, 0, 1, 1);
	dmm_fill(other.hva + DMM_PAGE, 0, 1, 2);
	dmm_fill(other.hva + 2 * DMM_PAGE, 0, 1, 1);
	/* Of one frame that both have the first is charged, of one the other. */
	ASSERT_EQ(0, dmm_pool_set(ino, "test-share/hold", "0"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "test-share/join", "1"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "test-share/hold", "2"));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-share/join", "1"));
	ASSERT_EQ(2 * DMM_PAGE, resident(other.ino));

	/* It is behind page 0, and waits for room for a copy of page 1. */
	ASSERT_EQ(0, dmm_pool_set_bytes(other.ino, "max_bytes", 2 * DMM_PAGE));
	waits = dmm_pool_get(other.ino, "stats/limit_wait");
	ASSERT_EQ(0, pthread_create(&thread, NULL, move_pool, &mover));
	for (tries = 0; tries < 1000 &&
	     dmm_pool_get(other.ino, "stats/limit_wait") == waits; tries++)
		usleep(1000);
	EXPECT_EQ(-EPERM, dmm_pool_set(other.ino, "test-share/join", "0"));
	pthread_join(thread, NULL);
	EXPECT_EQ(-ENOSPC, mover.r);
	ASSERT_EQ(0, dmm_pool_set(other.ino, "max_bytes", "max"));
	EXPECT_EQ(0, dmm_pool_set(other.ino, "domain", "two"));
	EXPECT_EQ(0, shared(other.ino));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(other.hva + DMM_PAGE, 0, 1, 2));
	EXPECT_EQ(0, dmm_bad_pages(other.hva + 2 * DMM_PAGE, 0, 1, 1));
	dmm_mem_free(&other);
}

/* What is brought back for reading joins what is there. */
DMM_TEST(share, match_on_fetch)
{
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	same_content(&self->mem, 0, 3);
	dmm_fill(page(&self->mem, 3), 7, 1, 1);
	same_content(&self->mem, 600, 1);
	ASSERT_EQ(0, command(ino, "hold", 600));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", 4 * DMM_PAGE));
	ASSERT_EQ(4 * DMM_PAGE, dmm_pool_get(ino, "swapped_bytes"));

	EXPECT_EQ(page(&self->mem, 600)[5],
		  dmm_guest_peek(self->guest, DMM_GPA + 40));
	EXPECT_EQ(2 * DMM_PAGE, shared(ino));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1), 0, 1, 1));
	EXPECT_EQ(3 * DMM_PAGE, shared(ino));
	EXPECT_EQ(DMM_PAGE, resident(ino));
	/* Other content, or a write, do not. */
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 3), 7, 1, 1));
	dmm_guest_poke(self->guest, DMM_GPA + 2 * DMM_PAGE, 3);
	EXPECT_EQ(3 * DMM_PAGE, shared(ino));
	EXPECT_EQ(3 * DMM_PAGE, resident(ino));
	EXPECT_EQ(0, dmm_pool_get(ino, "swapped_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 600), 0, 1, 1));
}

/* A shared frame goes out once, for all its users. */
DMM_TEST(share, reclaim)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set(ino, "domain", "a"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "policies", "+test-share"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "a"));
	same_content(&self->mem, 0, 3);
	same_content(&other, 5, 1);
	ASSERT_EQ(0, command(ino, "hold", 0));
	ASSERT_EQ(0, command(ino, "join", 1));
	ASSERT_EQ(0, command(ino, "join", 2));
	ASSERT_EQ(0, command(other.ino, "join", 5));
	dmm_guest_peek(self->guest, DMM_GPA + 2 * DMM_PAGE);

	/* The other pool does not have the policy: it keeps the frame. */
	dmm_pool_set_bytes(ino, "reclaim", DMM_PAGE);
	EXPECT_EQ(3 * DMM_PAGE, dmm_pool_get(ino, "swapped_bytes"));
	EXPECT_EQ(0, resident(ino));
	EXPECT_EQ(DMM_PAGE, resident(other.ino));
	EXPECT_EQ(0, dmm_bad_pages(page(&other, 5), 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1), 0, 1, 1));

	ASSERT_EQ(0, dmm_pool_set(other.ino, "policies", "+test-token"));
	EXPECT_EQ(DMM_PAGE, shared(ino));
	ASSERT_EQ(0, dmm_pool_set_bytes(other.ino, "reclaim", DMM_PAGE));
	EXPECT_EQ(3 * DMM_PAGE, dmm_pool_get(ino, "swapped_bytes"));
	EXPECT_EQ(DMM_PAGE, dmm_pool_get(other.ino, "swapped_bytes"));
	EXPECT_EQ(0, resident(ino) + resident(other.ino));
	EXPECT_EQ(page(&other, 5)[4],
		  dmm_guest_peek(self->guest, DMM_GPA + 32));
	EXPECT_EQ(0, dmm_bad_pages(page(&other, 5), 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 0), 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1), 0, 1, 1));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 2), 0, 1, 1));
	dmm_mem_free(&other);
}

DMM_TEST(share, junk)
{
	unsigned long ino = self->mem.ino;

	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "test-share/merge", "x"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "test-share/merge", "1"));
	EXPECT_EQ(-ERANGE, merge(ino, 0, PAGES));
	EXPECT_EQ(-ERANGE, merge(ino, -1UL, 0));
	EXPECT_NE(0, merge(ino, 0, 1));		/* both absent */
	same_content(&self->mem, 0, 1);
	EXPECT_EQ(-EAGAIN, merge(ino, 0, 0));	/* itself */
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 1, 1));
	EXPECT_EQ(DMM_PAGE, resident(ino));
}

/* A page that is mapped while it becomes a shared frame. */
DMM_TEST(share, offered_page_is_mapped)
{
	dmm_guest_fill(self->guest, DMM_GPA, 1, 1);
	same_content(&self->mem, 1, 1);
	ASSERT_EQ(0, merge(self->mem.ino, 0, 1));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	*page(&self->mem, 0) = 7;
	EXPECT_EQ(7, dmm_guest_peek(self->guest, DMM_GPA));
}

/* Who has a clone in no domain, or another, does not share what that has. */
DMM_TEST(share, clone_in_no_domain)
{
	struct dmm_mem clone = dmm_mem_create_exact(SIZE);
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(other.ino, "policies", "+test-share"));
	ASSERT_EQ(0, dmm_pool_set(ino, "domain", "a"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "a"));
	same_content(&self->mem, 0, 1);
	same_content(&other, 0, 1);
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	ASSERT_EQ(0, command(ino, "hold", 0));
	EXPECT_EQ(-EPERM, command(other.ino, "join", 0));
	ASSERT_EQ(0, dmm_pool_set(clone.ino, "domain", "a"));
	ASSERT_EQ(0, command(other.ino, "join", 0));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "b"));
	EXPECT_EQ(0, shared(other.ino));
	dmm_mem_free(&other);
	dmm_mem_free(&clone);
}

TEST_HARNESS_MAIN
