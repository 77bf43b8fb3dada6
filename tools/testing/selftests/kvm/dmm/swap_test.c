// SPDX-License-Identifier: GPL-2.0-only
/*
 * The swap policy: a guest that is bigger than its pool.
 */
#include <linux/fs.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "swap_util.h"

FIXTURE(swap) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(swap)
{
	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");

	self->mem = swap_mem();
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(swap)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t compressed(unsigned long ino)
{
	return dmm_pool_get(ino, "compressed_bytes");
}

DMM_TEST(swap, all_kinds)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_MIXED | 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(SIZE / 512, dmm_blocks(&self->mem));
	EXPECT_EQ(PAGES * 3 / 8, stat_of(ino, "out_same"));
	EXPECT_EQ(PAGES * 5 / 8, stat_of(ino, "out_compressed"));
	/* Half of each of five in eight, and not much besides. */
	EXPECT_LE(SIZE * 5 / 16, compressed(ino));
	EXPECT_GE(SIZE * 6 / 16, compressed(ino));

	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_MIXED | 1));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_EQ(0, swapped(ino));
	EXPECT_EQ(PAGES * 3 / 8, stat_of(ino, "in_same"));
	EXPECT_EQ(PAGES * 5 / 8, stat_of(ino, "in_compressed"));
	/* Of three same-filled pages in a row the third comes with the second. */
	EXPECT_EQ(PAGES / 8, dmm_pool_get(ino, "stats/fetch_around"));
	EXPECT_EQ(PAGES * 7 / 8, stat_of(ino, "refault"));
	/* What is in memory is brought back by the vCPU that wants it. */
	EXPECT_EQ(0, dmm_guest_stat(self->guest, "dmm_wait"));
}

static void read_all(struct __test_metadata *_metadata, struct dmm_guest *guest,
		     enum dmm_op op)
{
	ASSERT_EQ(0, dmm_guest_run(guest, 0, op, DMM_GPA, PAGES, 0));
}

/* Same-filled pages that are touched in sequence come many at once. */
DMM_TEST(swap, same_in_sequence)
{
	unsigned long ino = self->mem.ino;
	uint64_t faults;

	memset(self->mem.hva, 0x5a, SIZE);
	reclaim_all(_metadata, ino);
	faults = dmm_guest_stat(self->guest, "dmm_resolved");
	read_all(_metadata, self->guest, DMM_OP_READ);
	/* With shadow paging each first access has an exit, to set a bit. */
	if (kvm_is_tdp_enabled())
		EXPECT_GE(PAGES / 16, dmm_guest_stat(self->guest,
						     "dmm_resolved") - faults);
	EXPECT_LE(PAGES * 7 / 8, dmm_pool_get(ino, "stats/fetch_around"));
	EXPECT_EQ(PAGES, stat_of(ino, "in_same"));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_TRUE(dmm_pool_ok(ino));
	EXPECT_EQ(0x5a, *(uint8_t *)self->mem.hva);
	EXPECT_EQ(0, memcmp(self->mem.hva, self->mem.hva + 1, SIZE - 1));
}

/* Those that are touched here and there come alone. */
DMM_TEST(swap, same_at_random)
{
	unsigned long ino = self->mem.ino;

	memset(self->mem.hva, 0xa5, SIZE);
	reclaim_all(_metadata, ino);
	read_all(_metadata, self->guest, DMM_OP_READ_RANDOM);
	EXPECT_GE(PAGES / 16, dmm_pool_get(ino, "stats/fetch_around"));
	EXPECT_EQ(PAGES, stat_of(ino, "in_same"));
}

DMM_TEST(swap, host_reads_and_writes)
{
	uint64_t *buf = malloc(SIZE);

	ASSERT_NE(NULL, buf);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_MIXED | 1);
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, DMM_MIXED | 1));
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(SIZE, pread(self->mem.fd, buf, SIZE, 0));
	EXPECT_EQ(0, dmm_bad_pages(buf, 0, PAGES, DMM_MIXED | 1));

	reclaim_all(_metadata, self->mem.ino);
	dmm_fill(self->mem.hva, 0, PAGES, DMM_MIXED | 2);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_MIXED | 2));
	reclaim_all(_metadata, self->mem.ino);
	dmm_fill(buf, 0, PAGES, DMM_MIXED | 3);
	ASSERT_EQ(SIZE, pwrite(self->mem.fd, buf, SIZE, 0));
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_MIXED | 3));
	free(buf);
}

/* Without a device content that does not compress stays where it is. */
DMM_TEST(swap, incompressible)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_EQ(0, swapped(ino));
	EXPECT_LE(PAGES, stat_of(ino, "reject_incompressible"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));

	/* New content may compress. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
}

DMM_TEST(swap, zstd)
{
	unsigned long ino = self->mem.ino;
	uint64_t lz4;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 2,
				   POSIX_FADV_DONTNEED));
	lz4 = compressed(ino);
	EXPECT_NE(0, lz4);
	/* Both at once, each read as it was written. */
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/compressor", "zstd"));
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, SIZE / 2, SIZE / 2,
				   POSIX_FADV_DONTNEED));
	EXPECT_EQ(SIZE, swapped(ino));
	EXPECT_GT(2 * lz4 + lz4 / 8, compressed(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "swap/compressor", "gzip"));
}

/* What comes back unchanged goes out again without being stored again. */
DMM_TEST(swap, kept_copies)
{
	unsigned long ino = self->mem.ino;
	uint64_t i, n;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_NE(0, compressed(ino));

	/* Some are written, by guest and host. */
	for (i = 0; i < PAGES; i += 64) {
		dmm_guest_fill(self->guest, DMM_GPA + i * DMM_PAGE, 1,
			       DMM_HALF | 2);
		dmm_fill(self->mem.hva + (i + 1) * DMM_PAGE, i + 1, 1,
			 DMM_HALF | 3);
	}
	n = stat_of(ino, "out_compressed");
	reclaim_all(_metadata, ino);
	EXPECT_EQ(PAGES - 2 * PAGES / 64, stat_of(ino, "out_kept"));
	EXPECT_EQ(n + 2 * PAGES / 64, stat_of(ino, "out_compressed"));
	for (i = 0; i < PAGES; i++) {
		uint64_t seed = i % 64 == 0 ? 2 : i % 64 == 1 ? 3 : 1;

		ASSERT_EQ(0, dmm_bad_pages(self->mem.hva + i * DMM_PAGE, i, 1,
					   DMM_HALF | seed));
	}

	/* Holes, truncation and the end of the policy find kept content, too. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE / 4));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE / 2));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-swap"));
	EXPECT_EQ(0, compressed(ino));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES / 4));
	EXPECT_EQ(SIZE / 4, resident(ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE / 4 + 2 * DMM_PAGE,
				   PAGES / 4 + 2, 60, DMM_HALF | 1));
}

/* At the limit, copies make room before pages that are in use do. */
DMM_TEST(swap, copies_make_room)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2,
					 DMM_HALF | 1));
	/* A half and its copies, and a half that is compressed. */
	EXPECT_LT(SIZE * 7 / 8, resident(ino) + compressed(ino));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE * 7 / 8));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_NE(0, stat_of(ino, "copy_dropped"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_GE(SIZE * 7 / 8, resident(ino) + compressed(ino));
}

/* A guest twice its pool, in order and at random, on two vCPUs. */
DMM_TEST(swap, twice_the_pool)
{
	const uint64_t max = SIZE / 2;
	unsigned long ino = self->mem.ino;
	uint64_t i, page, bad = 0;
	unsigned int seed = 1;

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", max));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_MIXED | 1);
	EXPECT_GE(max, resident(ino) + compressed(ino));
	EXPECT_TRUE(dmm_pool_adds_up(&self->mem));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_MIXED | 1));
	for (i = 0; i < PAGES / 2; i++) {
		page = rand_r(&seed) % PAGES;
		ASSERT_EQ(0, dmm_guest_run(self->guest, i & 1, DMM_OP_CHECK,
					   DMM_GPA + page * DMM_PAGE, 1,
					   DMM_MIXED | 1));
		bad += self->guest->cpu[i & 1].cmd->result;
	}
	EXPECT_EQ(0, bad);
	dmm_guest_start(self->guest, 0, DMM_OP_CHECK, DMM_GPA, PAGES,
			DMM_MIXED | 1);
	dmm_guest_start(self->guest, 1, DMM_OP_CHECK, DMM_GPA, PAGES,
			DMM_MIXED | 1);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, dmm_guest_join(self->guest, i));
		EXPECT_EQ(0, self->guest->cpu[i].cmd->result);
	}
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, DMM_MIXED | 1));
	EXPECT_GE(max, resident(ino) + compressed(ino));
}

/* Guests count in their pages while the limit moves and all is taken out. */
DMM_TEST(swap, limit_moves_under_load)
{
	unsigned long ino = self->mem.ino;
	unsigned int seed = 1;
	int cpu, i, r;

	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_start(self->guest, cpu, DMM_OP_COUNT,
				DMM_GPA + cpu * (SIZE / 2), PAGES / 2, 0);
	for (i = 0; i < 60; i++) {
		uint64_t max = SIZE / 8 + rand_r(&seed) % SIZE;

		r = dmm_pool_set_bytes(ino, "max_bytes", max);
		ASSERT_TRUE(!r || r == -EBUSY);
		if (!r)
			EXPECT_GE(max, resident(ino) + compressed(ino));
		if (i % 5 == 0)
			dmm_pool_set_bytes(ino, "reclaim", SIZE);
		usleep(10000);
	}
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 2 * SIZE));
	for (cpu = 0; cpu < 2; cpu++) {
		dmm_guest_wait_rounds(self->guest, cpu, 2);
		EXPECT_EQ(0, dmm_guest_stop(self->guest, cpu));
		EXPECT_EQ(0, self->guest->cpu[cpu].cmd->result);
		EXPECT_NE(0, self->guest->cpu[cpu].cmd->rounds);
	}
}

/* The hot part of a guest stays when the cold part is asked for. */
DMM_TEST(swap, hot_pages_stay)
{
	const uint64_t hot = PAGES / 4;
	unsigned long ino = self->mem.ino;
	uint64_t before;
	int i;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	dmm_guest_start(self->guest, 0, DMM_OP_STORM, DMM_GPA + SIZE / 2, hot, 0);
	dmm_guest_wait_rounds(self->guest, 0, 10);
	for (i = 0; i < 16; i++) {
		dmm_guest_wait_rounds(self->guest, 0,
				      self->guest->cpu[0].cmd->rounds + 4);
		ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 32));
	}
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	/* Half was asked for; a quarter is hot, and may not be among it. */
	EXPECT_LE(SIZE / 2, swapped(ino) + stat_of(ino, "refault") * DMM_PAGE);
	EXPECT_GE(hot / 8, stat_of(ino, "refault"));
	before = stat_of(ino, "refault");
	ASSERT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_READ,
				   DMM_GPA + SIZE / 2, hot, 0));
	EXPECT_GE(before + hot / 8, stat_of(ino, "refault"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2,
					 DMM_HALF | 1));
}

/* What is idle goes without anybody asking; what is in use stays. */
DMM_TEST(swap, cold_pages_go)
{
	const uint64_t hot = PAGES / 8;
	unsigned long ino = self->mem.ino;
	int tries;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	EXPECT_EQ(0, dmm_pool_get(ino, "swap/cold_after_ms"));
	usleep(1500000);
	EXPECT_EQ(0, swapped(ino));

	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "1000"));
	dmm_guest_start(self->guest, 0, DMM_OP_STORM, DMM_GPA, hot, 0);
	/*
	 * New when it is passed first, idle the next four times.  Count passes, not
	 * seconds: on CPUs emulated in turns, each delay of KCSAN in the worker is a
	 * turn of the guest's CPU, 100 ms.
	 */
	for (tries = 0; tries < 600 && stat_of(ino, "cold") < PAGES * 6 / 8 &&
	     stat_of(ino, "visit") < 8 * SIZE / DMM_BLOCK; tries++)
		usleep(100000);
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_LE(PAGES * 6 / 8, stat_of(ino, "cold"));
	EXPECT_GE(hot / 4, stat_of(ino, "refault"));
	EXPECT_LE(SIZE * 6 / 8, swapped(ino) + hot / 4 * DMM_PAGE);
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "0"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA + SIZE / 2,
					 PAGES / 2, DMM_HALF | 1));

	/* Not faster than allowed. */
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE, POSIX_FADV_WILLNEED));
	EXPECT_EQ(0, swapped(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/pages_per_second", "100"));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "400"));
	usleep(3000000);
	EXPECT_GE(1000 * DMM_PAGE, swapped(ino));
}

/* A page table that KVM reads, with shadow paging, is used by the guest. */
DMM_TEST(swap, page_table)
{
	const uint64_t gva = DMM_GPA + (2UL << 30);
	unsigned long ino = self->mem.ino;

	dmm_guest_map_by(self->guest, gva, &self->mem);
	dmm_guest_poke(self->guest, gva, 42);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", 2 * DMM_PAGE));
	ASSERT_EQ(0, resident(ino));
	EXPECT_EQ(42, dmm_guest_peek(self->guest, gva));

	/* So it is not cold before others are, after five passes in ten seconds. */
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "8000"));
	usleep(4000000);
	EXPECT_NE(0, stat_of(ino, "visit"));
	EXPECT_EQ(0, stat_of(ino, "cold"));
	EXPECT_EQ(2 * DMM_PAGE, resident(ino));
}

/* A budget of less than a page for each pass is one all the same. */
DMM_TEST(swap, cold_pages_go_slowly)
{
	unsigned long ino = self->mem.ino;
	int tries;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/pages_per_second", "2"));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "1000"));
	for (tries = 0; tries < 100 && stat_of(ino, "cold") < 2; tries++)
		usleep(100000);
	EXPECT_LE(2, stat_of(ino, "cold"));
	EXPECT_GE(100, stat_of(ino, "cold"));
}

/*
 * A process that reads all memory once, as migration does, has it brought back for
 * a moment only, and what the guest does not use is as cold as before.
 */
DMM_TEST(swap, process_reads_leave)
{
	const uint64_t step = PAGES / 16;
	unsigned long ino = self->mem.ino;
	uint64_t i, out;
	uint8_t *p;
	int tries;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	dmm_pool_set_bytes(ino, "reclaim", SIZE);
	out = swapped(ino);
	ASSERT_LE(SIZE / 8 * 7, out);

	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "1000"));
	p = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, self->mem.fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	for (i = 0; i < PAGES; i++) {
		READ_ONCE(p[i * DMM_PAGE]);
		/* In several passes of the worker, each with too many refaults. */
		if (i % step == step - 1)
			usleep(250000);
	}
	EXPECT_LE(PAGES / 8 * 7, stat_of(ino, "refault"));
	EXPECT_EQ(0, stat_of(ino, "refault_active"));
	for (tries = 0; tries < 50 && swapped(ino) < out / 8 * 7; tries++)
		usleep(100000);
	EXPECT_LE(out / 8 * 7, swapped(ino));
	/* As it came: nothing was compressed again. */
	EXPECT_LE(PAGES / 8 * 7, stat_of(ino, "out_kept"));
	munmap(p, SIZE);
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/cold_after_ms", "0"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, DMM_HALF | 1));
}

/* No more than its share of the pool is compressed. */
DMM_TEST(swap, compressed_pool_full)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/max_compressed_percent", "25"));
	EXPECT_EQ(-ERANGE, dmm_pool_set(ino, "swap/max_compressed_percent", "101"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_NE(0, stat_of(ino, "reject_full"));
	EXPECT_GE(SIZE / 4 + 16 * DMM_PAGE, compressed(ino));
	EXPECT_NE(0, swapped(ino));
	EXPECT_NE(0, resident(ino));

	/* It does not fit: refused, nothing lost. */
	EXPECT_EQ(-EBUSY, dmm_pool_set_bytes(ino, "max_bytes", SIZE / 4));
	EXPECT_EQ(SIZE, dmm_pool_get(ino, "max_bytes"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/max_compressed_percent", "default"));
	EXPECT_EQ(80, dmm_pool_get(ino, "swap/max_compressed_percent"));
}

/* A clone whose pool is much smaller gets no more than its share compressed. */
DMM_TEST(swap, clone_below_limit)
{
	const uint64_t max = SIZE / 8;
	struct dmm_mem clone = swap_mem();

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(0, dmm_pool_set_bytes(clone.ino, "max_bytes", max));
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	EXPECT_NE(0, compressed(clone.ino));
	/* zsmalloc takes a few pages at once. */
	EXPECT_GE(max / 100 * 80 + 16 * DMM_PAGE, compressed(clone.ino));
	ASSERT_GE(max, compressed(clone.ino));

	EXPECT_EQ(0, dmm_bad_pages(clone.hva, 0, PAGES, DMM_HALF | 1));
	dmm_fill(clone.hva, 0, 8, DMM_HALF | 2);
	dmm_fill(clone.hva + SIZE / 2, PAGES / 2, 8, DMM_HALF | 3);
	EXPECT_EQ(0, dmm_bad_pages(clone.hva, 0, 8, DMM_HALF | 2));
	EXPECT_EQ(0, dmm_bad_pages(clone.hva + SIZE / 2, PAGES / 2, 8,
				   DMM_HALF | 3));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
	EXPECT_TRUE(dmm_pool_ok(clone.ino));
	dmm_mem_free(&clone);
}

/* Who finds that nothing can be taken out of a large pool can be killed. */
DMM_TEST(swap, killed_at_limit)
{
	const uint64_t size = 96UL << 20, max = size - DMM_BLOCK;
	struct dmm_mem mem = dmm_mem_create_exact(size);
	uint64_t begin;
	int status, i;
	pid_t pid;

	ASSERT_EQ(0, dmm_pool_set(mem.ino, "policies", "+swap"));
	dmm_fill(mem.hva, 0, max / DMM_PAGE, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(mem.ino, "max_bytes", max));
	for (i = 0; i < 3; i++) {
		pid = fork();
		ASSERT_NE(-1, pid);
		if (!pid)
			exit(*(volatile char *)(mem.hva + max) = 1);
		usleep(300000);
		EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
		begin = dmm_now_ms();
		kill(pid, SIGKILL);
		EXPECT_EQ(pid, waitpid(pid, &status, 0));
		/* To try all pages takes a second or more. */
		EXPECT_GE(400, dmm_now_ms() - begin);
		EXPECT_EQ(SIGKILL, WTERMSIG(status));
	}
	dmm_mem_free(&mem);
}

DMM_TEST(swap, holes_and_truncation)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE / 2));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	EXPECT_GE(SIZE / 4 + SIZE / 32, compressed(ino));
	EXPECT_EQ(PAGES / 2,
		  dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	/* No more is there than a half. */
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	ASSERT_EQ(0, ftruncate(self->mem.fd, 0));
	EXPECT_EQ(0, swapped(ino));
	EXPECT_GE(4 * DMM_PAGE, compressed(ino));
}

DMM_TEST(swap, detach)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_MIXED | 1);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE / 2));
	EXPECT_EQ(-EBUSY, dmm_pool_set(ino, "policies", "-swap"));
	EXPECT_TRUE(dmm_has_policy(ino, "swap"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_MIXED | 1));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-swap"));
	EXPECT_FALSE(dmm_has_policy(ino, "swap"));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_EQ(0, swapped(ino));
	EXPECT_EQ(0, compressed(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_MIXED | 1));
}

/* Attached and detached again and again while guests count. */
DMM_TEST(swap, attach_under_load)
{
	unsigned long ino = self->mem.ino;
	int cpu, i, r;

	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_start(self->guest, cpu, DMM_OP_COUNT,
				DMM_GPA + cpu * (SIZE / 2), 256, 0);
	for (i = 0; i < 20; i++) {
		r = dmm_pool_set_bytes(ino, "reclaim", SIZE);
		ASSERT_TRUE(!r || r == -EAGAIN);
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-swap"));
		ASSERT_EQ(0, swapped(ino));
		ASSERT_EQ(0, compressed(ino));
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+swap"));
	}
	EXPECT_NE(0, dmm_pool_get(ino, "stats/token"));
	EXPECT_NE(0, dmm_pool_get(ino, "stats/fetch"));
	for (cpu = 0; cpu < 2; cpu++) {
		dmm_guest_wait_rounds(self->guest, cpu, 2);
		EXPECT_EQ(0, dmm_guest_stop(self->guest, cpu));
		EXPECT_EQ(0, self->guest->cpu[cpu].cmd->result);
	}
}

DMM_TEST(swap, fadvise)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_MIXED | 1);
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, SIZE / 4, SIZE / 2,
				   POSIX_FADV_DONTNEED));
	EXPECT_EQ(SIZE / 2, swapped(self->mem.ino));
	EXPECT_EQ(SIZE / 2, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 4,
					 DMM_MIXED | 1));
	EXPECT_EQ(SIZE / 2, swapped(self->mem.ino));
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE, POSIX_FADV_WILLNEED));
	EXPECT_EQ(0, swapped(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_MIXED | 1));
}

/* Dirty logging sees what is written after it came back. */
DMM_TEST(swap, dirty_log)
{
	uint64_t bitmap[PAGES / 64] = {};
	int i, n = 0;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_MIXED | 1);
	dmm_guest_add_slot(self->guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES,
			   DMM_GPA, SIZE, self->mem.hva);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_MIXED | 1));
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	reclaim_all(_metadata, self->mem.ino);
	for (i = 0; i < 8; i++)
		dmm_guest_poke(self->guest, DMM_GPA + i * 77 * DMM_PAGE, 1);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	for (i = 0; i < 8; i++)
		EXPECT_TRUE(bitmap[i * 77 / 64] & 1UL << i * 77 % 64);
	for (i = 0; i < PAGES / 64; i++)
		n += __builtin_popcountll(bitmap[i]);
	EXPECT_EQ(8, n);
}

/* A process with all its memory swapped out is killed; the file goes. */
DMM_TEST(swap, killed)
{
	unsigned long ino;
	int fds[2], status;
	pid_t pid;

	ASSERT_EQ(0, pipe(fds));
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid) {
		struct dmm_mem mem = dmm_mem_create_exact(SIZE);
		struct dmm_guest *guest = dmm_guest_create(1);

		dmm_pool_set(mem.ino, "policies", "+swap");
		dmm_pool_set_bytes(mem.ino, "max_bytes", SIZE / 4);
		dmm_guest_add_mem(guest, &mem);
		dmm_guest_start(guest, 0, DMM_OP_COUNT, DMM_GPA, PAGES, 0);
		dmm_guest_wait_rounds(guest, 0, 2);
		if (write(fds[1], &mem.ino, sizeof(mem.ino)) < 0)
			exit(1);
		pause();
	}
	ASSERT_EQ(sizeof(ino), read(fds[0], &ino, sizeof(ino)));
	EXPECT_NE(0, swapped(ino));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	EXPECT_TRUE(dmm_pool_gone(ino));
}

/* What another policy keeps a copy of is no copy of one's own. */
DMM_TEST(swap, kept_by_another)
{
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no test policies");
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/keep", "1"));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/max_compressed_percent", "0"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, DMM_HALF | 1));
	ASSERT_EQ(0, dmm_pool_set(ino, "swap/max_compressed_percent", "default"));
	/* Swap is asked first. */
	reclaim_all(_metadata, ino);
	EXPECT_EQ(PAGES, stat_of(ino, "out_compressed"));
	EXPECT_EQ(0, stat_of(ino, "out_kept"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, DMM_HALF | 1));
	/* That would find copies that are left. */
	EXPECT_EQ(0, dmm_pool_set(ino, "policies", "-test-token"));
}

/* A policy that cannot go for want of room does not cost a guest that uses it all. */
DMM_TEST(swap, detach_refused_under_load)
{
	unsigned long ino = self->mem.ino;
	int cpu, i;

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE / 2));
	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_start(self->guest, cpu, DMM_OP_COUNT,
				DMM_GPA + cpu * SIZE / 2, PAGES / 2, 1000000);
	for (i = 1; i <= 10; i++) {
		dmm_guest_wait_rounds(self->guest, i & 1, i);
		EXPECT_EQ(-EBUSY, dmm_pool_set(ino, "policies", "-swap"));
	}
	/* Who wanted to detach it has failed, no access. */
	EXPECT_EQ(0, dmm_pool_get(ino, "stats/limit_failed"));
	for (cpu = 0; cpu < 2; cpu++) {
		EXPECT_EQ(0, dmm_guest_stop(self->guest, cpu));
		EXPECT_EQ(0, self->guest->cpu[cpu].cmd->result);
	}
}

/* A clone of what came back and is kept, too, leaves no copy that nobody has. */
DMM_TEST(swap, clone_of_kept)
{
	struct dmm_mem copy = dmm_mem_create_exact(SIZE);
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, DMM_HALF | 1));
	EXPECT_NE(0, dmm_pool_get(ino, "compressed_bytes"));
	ASSERT_EQ(0, ioctl(copy.fd, FICLONE, self->mem.fd));
	EXPECT_GE(4 * DMM_PAGE, dmm_pool_get(ino, "compressed_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, DMM_HALF | 1));
	dmm_mem_free(&copy);
}

TEST_HARNESS_MAIN
