// SPDX-License-Identifier: GPL-2.0-only
/*
 * Content goes to a policy and comes back: token entries.
 */
#include <sys/uio.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(token) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(token)
{
	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");

	self->mem = dmm_mem_create_exact(SIZE);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	/* Far away, or the pool keeps a distance from its limit on its own. */
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", 2 * SIZE));
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(token)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t resident(unsigned long ino)
{
	return dmm_pool_get(ino, "resident_bytes");
}

static uint64_t swapped(unsigned long ino)
{
	return dmm_pool_get(ino, "swapped_bytes");
}

static void reclaim_all(struct __test_metadata *_metadata, unsigned long ino)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_EQ(0, resident(ino));
	EXPECT_EQ(SIZE, swapped(ino));
}

DMM_TEST(token, guest_reads_back)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(SIZE, resident(self->mem.ino));
	EXPECT_EQ(0, swapped(self->mem.ino));
}

DMM_TEST(token, guest_writes)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	dmm_guest_poke(self->guest, DMM_GPA + 3 * DMM_PAGE + 16, 99);
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(99, *(uint64_t *)(self->mem.hva + 3 * DMM_PAGE + 16));
}

DMM_TEST(token, host_maps)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	reclaim_all(_metadata, self->mem.ino);
	*(uint64_t *)(self->mem.hva + 5 * DMM_PAGE) = 7;
	EXPECT_EQ(7, dmm_guest_peek(self->guest, DMM_GPA + 5 * DMM_PAGE));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

DMM_TEST(token, host_reads_and_writes)
{
	uint64_t *buf = malloc(SIZE);

	ASSERT_NE(NULL, buf);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(SIZE, pread(self->mem.fd, buf, SIZE, 0));
	EXPECT_EQ(0, dmm_bad_pages(buf, 0, PAGES, 1));

	reclaim_all(_metadata, self->mem.ino);
	dmm_fill(buf, 0, PAGES, 2);
	/* Parts of pages need the rest of the old content. */
	ASSERT_EQ(100, pwrite(self->mem.fd, (char *)buf + 50, 100, 50));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, memcmp((char *)self->mem.hva + 50, (char *)buf + 50, 100));
	dmm_fill(buf, 0, 1, 1);
	EXPECT_EQ(0, memcmp(self->mem.hva, buf, 50));
	EXPECT_EQ(0, memcmp((char *)self->mem.hva + 150, (char *)buf + 150,
			    DMM_PAGE - 150));
}

/* Tokens are data, and a hole takes them. */
DMM_TEST(token, holes)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(0, lseek(self->mem.fd, 0, SEEK_DATA));
	EXPECT_EQ(SIZE, lseek(self->mem.fd, 0, SEEK_HOLE));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE / 2));
	EXPECT_EQ(SIZE / 2, swapped(self->mem.ino));
	EXPECT_EQ(SIZE / 2, lseek(self->mem.fd, 0, SEEK_DATA));
	EXPECT_EQ(PAGES / 2, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES / 2,
		  dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
}

/* There is no more to take than there is. */
DMM_TEST(token, reclaim_too_much)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 1);
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->mem.ino, "reclaim", SIZE));
	EXPECT_EQ(0, resident(self->mem.ino));
	EXPECT_EQ(SIZE / 2, swapped(self->mem.ino));
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->mem.ino, "reclaim", DMM_PAGE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));
}

DMM_TEST(token, truncate)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE / 2));
	EXPECT_EQ(SIZE / 2, swapped(self->mem.ino));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	EXPECT_EQ(PAGES / 2,
		  dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
}

/* Detaching hands every token back. */
DMM_TEST(token, detach)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-test-token"));
	EXPECT_FALSE(dmm_has_policy(self->mem.ino, "test-token"));
	EXPECT_EQ(SIZE, resident(self->mem.ino));
	EXPECT_EQ(0, swapped(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));

	/* And again. */
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	reclaim_all(_metadata, self->mem.ino);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* It can't hand back what doesn't fit: refused, nothing lost, works on. */
DMM_TEST(token, detach_without_room)
{
	int r;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", SIZE / 2));
	r = dmm_pool_set(self->mem.ino, "policies", "-test-token");
	EXPECT_EQ(-EBUSY, r);
	EXPECT_TRUE(dmm_has_policy(self->mem.ino, "test-token"));
	EXPECT_GE(SIZE / 2, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-test-token"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* The limit holds because faults reclaim; the guest notices nothing. */
DMM_TEST(token, limit_below_working_set)
{
	const uint64_t max = SIZE / 4;

	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", max));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_GE(max, resident(self->mem.ino));
	EXPECT_TRUE(dmm_pool_adds_up(&self->mem));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_GE(max, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_GE(max, resident(self->mem.ino));
}

/* Lowering the limit under a running guest takes the difference out. */
DMM_TEST(token, lower_limit_under_load)
{
	int i;

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, PAGES / 2, 0);
	dmm_guest_start(self->guest, 1, DMM_OP_COUNT, DMM_GPA + SIZE / 2,
			PAGES / 2, 0);
	for (i = 0; i < 30; i++) {
		uint64_t max = i & 1 ? SIZE : SIZE / 2 + i * DMM_PAGE;

		ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", max));
		ASSERT_GE(max, resident(self->mem.ino));
		usleep(20000);
	}
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", 2 * SIZE));
	dmm_guest_wait_rounds(self->guest, 0, 2);
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
	EXPECT_NE(0, self->guest->cpu[0].cmd->rounds);
}

/* Everything out, again and again, while two vCPUs count. */
DMM_TEST(token, reclaim_under_load)
{
	uint64_t round, i;
	int cpu;

	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_start(self->guest, cpu, DMM_OP_COUNT,
				DMM_GPA + cpu * (SIZE / 2), 256, 0);
	for (cpu = 0; cpu < 2; cpu++)
		dmm_guest_wait_rounds(self->guest, cpu, 1);
	/* Pages come back while they are taken: all that there can be, no more. */
	for (i = 0; i < 50; i++) {
		int r = dmm_pool_set_bytes(self->mem.ino, "reclaim",
					   512 * DMM_PAGE);

		/* Less than asked for is EAGAIN, as for a cgroup. */
		ASSERT_TRUE(!r || r == -EAGAIN);
	}
	for (cpu = 0; cpu < 2; cpu++) {
		dmm_guest_wait_rounds(self->guest, cpu, 2);
		EXPECT_EQ(0, dmm_guest_stop(self->guest, cpu));
		EXPECT_EQ(0, self->guest->cpu[cpu].cmd->result);
		round = self->guest->cpu[cpu].cmd->rounds;
		EXPECT_NE(0, round);
		for (i = 0; i < 256; i++) {
			ASSERT_EQ(round, *(uint64_t *)(self->mem.hva +
				  cpu * (SIZE / 2) + i * DMM_PAGE));
		}
	}
	EXPECT_NE(0, dmm_pool_get(self->mem.ino, "stats/token"));
	EXPECT_NE(0, dmm_pool_get(self->mem.ino, "stats/fetch"));
}

/**
 * struct counter - who writes to pages, round after round, until told to stop
 * @mem: where
 * @rounds: as many are done
 * @bad: pages that did not hold what the round before had written
 * @stop: set by who has enough of it
 */
struct counter {
	struct dmm_mem *mem;
	volatile uint64_t rounds;
	uint64_t bad;
	volatile bool stop;
};

static void *host_counter(void *arg)
{
	struct counter *counter = arg;
	volatile uint64_t *word;
	uint64_t i;

	while (!counter->stop) {
		for (i = 0; i < 256; i++) {
			word = counter->mem->hva + i * DMM_PAGE;
			counter->bad += *word != counter->rounds;
			*word = counter->rounds + 1;
		}
		counter->rounds++;
	}
	return NULL;
}

/* Two more of them: the second has begun behind all that was before. */
static bool two_rounds(const struct counter *counter)
{
	uint64_t end = counter->rounds + 2;
	int tries;

	for (tries = 0; counter->rounds < end && tries < 30000; tries++)
		usleep(1000);
	return counter->rounds >= end;
}

/* Reclaim against a host process that writes to the same pages. */
DMM_TEST(token, reclaim_under_host_load)
{
	struct counter counter = { .mem = &self->mem };
	pthread_t thread;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, host_counter, &counter));
	EXPECT_TRUE(two_rounds(&counter));
	for (i = 0; i < 100; i++)
		dmm_pool_set_bytes(self->mem.ino, "reclaim", SIZE);
	EXPECT_TRUE(two_rounds(&counter));
	counter.stop = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, counter.bad);
	EXPECT_NE(0, dmm_pool_get(self->mem.ino, "stats/token"));
	EXPECT_NE(0, dmm_pool_get(self->mem.ino, "stats/fetch"));
	EXPECT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_READ, DMM_GPA, 256, 0));
	EXPECT_EQ(256 * counter.rounds, self->guest->cpu[0].cmd->result);
}

static void *shrink_main(void *arg)
{
	const struct dmm_mem *mem = arg;

	return (void *)(long)ftruncate(mem->fd, 0);
}

/* Tokens beyond the end go back to their policy before it goes. */
DMM_TEST(token, detach_while_file_shrinks)
{
	struct dmm_mem mem = dmm_mem_create_exact(8 * SIZE);
	pthread_t thread;
	void *failed;
	int i;

	for (i = 0; i < 6; i++) {
		ASSERT_EQ(0, dmm_pool_set(mem.ino, "policies", "+test-token"));
		dmm_fill(mem.hva, 0, 8 * PAGES, 1);
		ASSERT_EQ(0, dmm_pool_set_bytes(mem.ino, "reclaim", 8 * SIZE));
		ASSERT_EQ(0, pthread_create(&thread, NULL, shrink_main, &mem));
		/* Somewhere in between. */
		usleep(900 * i);
		EXPECT_EQ(0, dmm_pool_set(mem.ino, "policies", "-test-token"));
		pthread_join(thread, &failed);
		EXPECT_EQ(NULL, failed);
		EXPECT_EQ(0, dmm_pool_get(mem.ino, "swapped_bytes"));
		ASSERT_EQ(0, ftruncate(mem.fd, 8 * SIZE));
	}
	dmm_mem_free(&mem);
}

/* A page that somebody holds is left alone, and its neighbours aren't. */
DMM_TEST(token, held_page)
{
	struct iovec iov = { self->mem.hva + 2 * DMM_PAGE, 2 * DMM_PAGE };
	char *buf = malloc(2 * DMM_PAGE);
	int fds[2], r;

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(0, pipe(fds));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(2 * DMM_PAGE, vmsplice(fds[1], &iov, 1, 0));

	r = dmm_pool_set_bytes(self->mem.ino, "reclaim", SIZE);
	EXPECT_TRUE(!r || r == -EAGAIN);
	EXPECT_EQ(2 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_NE(0, dmm_pool_get(self->mem.ino, "stats/reject_pinned"));

	/* The pipe and the guest still have the same page. */
	dmm_guest_poke(self->guest, DMM_GPA + 2 * DMM_PAGE, 123);
	ASSERT_EQ(2 * DMM_PAGE, read(fds[0], buf, 2 * DMM_PAGE));
	EXPECT_EQ(123, *(uint64_t *)buf);
	r = dmm_pool_set_bytes(self->mem.ino, "reclaim", SIZE);
	EXPECT_EQ(0, resident(self->mem.ino));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/*
 * Dirty logging and reclaim: what is written after it came back is reported,
 * and nothing else.  Coming back itself may be: KVM reports a page that it maps
 * for writing, which an asynchronous page fault does.
 */
DMM_TEST(token, dirty_log)
{
	uint64_t bitmap[PAGES / 64] = {};
	int i, n = 0;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	dmm_guest_add_slot(self->guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES,
			   DMM_GPA, SIZE, self->mem.hva);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	reclaim_all(_metadata, self->mem.ino);
	dmm_guest_poke(self->guest, DMM_GPA + 5 * DMM_PAGE, 1);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	EXPECT_TRUE(bitmap[0] & (1UL << 5));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	dmm_guest_poke(self->guest, DMM_GPA + 9 * DMM_PAGE, 1);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	for (i = 0; i < PAGES / 64; i++)
		n += __builtin_popcountll(bitmap[i]);
	EXPECT_EQ(1, n);
	EXPECT_EQ(1UL << 9, bitmap[0]);
}

/* The policy keeps what came back, until it is written. */
DMM_TEST(token, keep)
{
	unsigned long ino = self->mem.ino;
	uint64_t i;

	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/keep", "1"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(SIZE, resident(ino));

	/* Guest and host write to some; the old content mustn't come back. */
	for (i = 0; i < PAGES; i += 64) {
		dmm_guest_fill(self->guest, DMM_GPA + i * DMM_PAGE, 1, 2);
		dmm_fill(self->mem.hva + (i + 1) * DMM_PAGE, i + 1, 1, 3);
	}
	reclaim_all(_metadata, ino);
	for (i = 0; i < PAGES; i++) {
		uint64_t seed = i % 64 == 0 ? 2 : i % 64 == 1 ? 3 : 1;

		ASSERT_EQ(0, dmm_bad_pages(self->mem.hva + i * DMM_PAGE, i, 1,
					   seed));
	}
	EXPECT_EQ(SIZE, resident(ino));

	/* Holes, truncation and the end of the policy find kept content, too. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE / 4));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE / 2));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-test-token"));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES / 4));
	EXPECT_EQ(SIZE / 4, resident(ino));
}

/* Content that can't be had now fails the access, not the guest. */
/* Frames of which the policy has kept the content, as debugfs shows them. */
static uint64_t kept(unsigned long ino)
{
	uint64_t first, last, n = 0;
	char path[64], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm_dmm/%lu/map", ino);
	f = fopen(path, "r");
	TEST_ASSERT(f, "cannot open %s", path);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, " kept ") &&
		    sscanf(line, "%lx-%lx", &first, &last) == 2)
			n += last - first + 1;
	fclose(f);
	return n;
}

/* What is brought back asynchronously for reading is kept no less. */
DMM_TEST(token, keep_slow)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/keep", "1"));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/slow", "1"));
	dmm_guest_fill(self->guest, DMM_GPA, 64, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", 64 * DMM_PAGE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 64, 1));
	EXPECT_LE(64, dmm_guest_stat(self->guest, "dmm_wait"));
	EXPECT_EQ(64, kept(ino));

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", 64 * DMM_PAGE));
	dmm_guest_fill(self->guest, DMM_GPA, 16, 2);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 16, 2));
	EXPECT_EQ(0, kept(ino));
	EXPECT_EQ(48, dmm_guest_bad_pages(self->guest, DMM_GPA, 64, 2));
	EXPECT_EQ(48, kept(ino));
}

DMM_TEST(token, fetch_fails)
{
	/* EAGAIN and EBUSY mean something else to the core itself. */
	const char * const errors[] = { "11", "16", "12", "5" };
	unsigned long ino = self->mem.ino;
	unsigned int i;
	char byte;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, ino);
	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fetch",
					  errors[i]));
		EXPECT_EQ(-1, pread(self->mem.fd, &byte, 1, 0));
		EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK,
						 DMM_GPA, 1, 0));
		EXPECT_EQ(0, resident(ino));
	}
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 1, DMM_OP_CHECK, DMM_GPA,
					 PAGES, 1));
	EXPECT_EQ(DMM_GPA, self->guest->cpu[1].vcpu->run->memory_fault.gpa);
	EXPECT_EQ(-1, pread(self->mem.fd, &byte, 1, 0));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(0, resident(ino));
	EXPECT_EQ(SIZE, swapped(ino));
	EXPECT_NE(0, dmm_pool_get(ino, "stats/fetch_failed"));

	/* It can't be handed back either: refused, and still attached. */
	EXPECT_NE(0, dmm_pool_set(ino, "policies", "-test-token"));
	EXPECT_TRUE(dmm_has_policy(ino, "test-token"));

	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fetch", "0"));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 1));
	EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
	EXPECT_EQ(SIZE, resident(ino));
}

/* So are the guest's own page tables, which KVM reads with shadow paging. */
DMM_TEST(token, page_table)
{
	const uint64_t gva = DMM_GPA + (2UL << 30), table = DMM_GPA + DMM_PAGE;
	unsigned long ino = self->mem.ino;

	dmm_guest_map_by(self->guest, gva, &self->mem);
	dmm_guest_poke(self->guest, gva, 42);
	EXPECT_EQ(42, *(uint64_t *)self->mem.hva);

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", 2 * DMM_PAGE));
	ASSERT_EQ(0, resident(ino));
	EXPECT_EQ(42, dmm_guest_peek(self->guest, gva));

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", 2 * DMM_PAGE));
	ASSERT_EQ(0, resident(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fetch", "5"));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK, gva, 1, 0));
	EXPECT_EQ(table, self->guest->cpu[0].vcpu->run->memory_fault.gpa);
	EXPECT_EQ(DMM_PAGE, self->guest->cpu[0].vcpu->run->memory_fault.size);
	EXPECT_EQ(0, resident(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fetch", "0"));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(42, self->guest->cpu[0].cmd->result);
}

/* A policy that knows what absent memory holds is asked, reads included. */
DMM_TEST(token, fill)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fill", "1"));
	EXPECT_EQ(7, dmm_guest_peek(self->guest, DMM_GPA + 7 * DMM_PAGE));
	EXPECT_EQ(9, *(uint64_t *)(self->mem.hva + 9 * DMM_PAGE + 64));
	dmm_guest_poke(self->guest, DMM_GPA + 11 * DMM_PAGE, 1);
	EXPECT_EQ(11, *(uint64_t *)(self->mem.hva + 11 * DMM_PAGE + 8));
	EXPECT_EQ(3 * DMM_PAGE, resident(ino));

	/* To other policies zeros are content like any other, then. */
	memset(self->mem.hva + 13 * DMM_PAGE, 0, DMM_PAGE);
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-share"));
	EXPECT_EQ(-EPERM, dmm_pool_set(ino, "test-share/absent", "13"));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, DMM_GPA + 13 * DMM_PAGE));

	/* EIO: the access fails. */
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fill", "5"));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK,
					 DMM_GPA + 20 * DMM_PAGE, 1, 0));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fill", "0"));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_EQ(7, dmm_guest_peek(self->guest, DMM_GPA + 7 * DMM_PAGE));
}

/* fadvise(): DONTNEED takes out, WILLNEED brings back. */
DMM_TEST(token, fadvise)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, SIZE / 4, SIZE / 2,
				   POSIX_FADV_DONTNEED));
	EXPECT_EQ(SIZE / 2, swapped(self->mem.ino));
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE, POSIX_FADV_WILLNEED));
	EXPECT_EQ(0, swapped(self->mem.ino));
	EXPECT_EQ(SIZE, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* A file that goes takes its tokens along. */
DMM_TEST(token, file_goes)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	reclaim_all(_metadata, self->mem.ino);
	dmm_guest_free(self->guest);
	self->guest = NULL;
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
}

TEST_HARNESS_MAIN
