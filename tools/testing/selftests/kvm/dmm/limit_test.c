// SPDX-License-Identifier: GPL-2.0-only
/*
 * A pool's limit, changed while the guest runs.
 */
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(limit) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(limit)
{
	self->mem = dmm_mem_create(SIZE);
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(limit)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t max_bytes(unsigned long ino)
{
	return dmm_pool_get(ino, "max_bytes");
}

static uint64_t resident(unsigned long ino)
{
	return dmm_pool_get(ino, "resident_bytes");
}

DMM_TEST(limit, follows_size)
{
	unsigned long ino = self->mem.ino;

	EXPECT_EQ(SIZE, max_bytes(ino));
	ASSERT_EQ(0, ftruncate(self->mem.fd, 2 * SIZE));
	EXPECT_EQ(2 * SIZE, max_bytes(ino));

	/* Once written it stays, until told to follow again. */
	ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "4M"));
	EXPECT_EQ(4UL << 20, max_bytes(ino));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	EXPECT_EQ(4UL << 20, max_bytes(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "max"));
	EXPECT_EQ(SIZE, max_bytes(ino));
}

DMM_TEST(limit, units)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "1048576"));
	EXPECT_EQ(1UL << 20, max_bytes(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "2048K\n"));
	EXPECT_EQ(2UL << 20, max_bytes(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "3m"));
	EXPECT_EQ(3UL << 20, max_bytes(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "1G"));
	EXPECT_EQ(1UL << 30, max_bytes(ino));
}

DMM_TEST(limit, busy_below_resident)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(-EBUSY, dmm_pool_set_bytes(ino, "max_bytes", SIZE / 2));
	EXPECT_EQ(-EBUSY, dmm_pool_set_bytes(ino, "max_bytes", 0));
	EXPECT_EQ(SIZE, max_bytes(ino));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));

	/* Exactly what is there is fine. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE / 2));
	EXPECT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE / 2));
	EXPECT_EQ(SIZE / 2, max_bytes(ino));
}

/* At the limit a vCPU waits a while, then user space hears of it. */
DMM_TEST(limit, memory_fault)
{
	struct kvm_run *run = self->guest->cpu[0].vcpu->run;
	unsigned long ino = self->mem.ino;
	struct timespec start, took;

	dmm_mem_exact(&self->mem);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 64 * DMM_PAGE));
	dmm_guest_fill(self->guest, DMM_GPA, 64, 1);
	EXPECT_EQ(64 * DMM_PAGE, resident(ino));

	clock_gettime(CLOCK_MONOTONIC, &start);
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_FILL,
					 DMM_GPA + 64 * DMM_PAGE, 1, 1));
	took = timespec_elapsed(start);
	EXPECT_GE(took.tv_sec * 1000 + took.tv_nsec / 1000000, 500);
	EXPECT_EQ(DMM_GPA + 64 * DMM_PAGE, run->memory_fault.gpa);
	EXPECT_EQ(64 * DMM_PAGE, resident(ino));

	/* What is there, and zeros, are no matter of the limit. */
	EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_CHECK, DMM_GPA, 64, 1));
	EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
	EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_NONZERO,
				   DMM_GPA + 100 * DMM_PAGE, 100, 0));
	EXPECT_EQ(0, self->guest->cpu[1].cmd->result);

	/* With room the same access succeeds. */
	ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "max"));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 65, 1));
	EXPECT_EQ(65 * DMM_PAGE, resident(ino));
}

/* Room that comes while a vCPU waits is taken: no exit to user space. */
DMM_TEST(limit, waiter_goes_on)
{
	unsigned long ino = self->mem.ino;
	int round;

	for (round = 0; round < 2; round++) {
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
		ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 64 * DMM_PAGE));
		dmm_guest_fill(self->guest, DMM_GPA, 64, 1);
		dmm_guest_start(self->guest, 1, DMM_OP_TOUCH,
				DMM_GPA + 64 * DMM_PAGE, 8, 5);
		usleep(200000);
		if (round) {
			ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "max"));
		} else {
			ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0,
					       8 * DMM_PAGE));
		}
		EXPECT_EQ(0, dmm_guest_join(self->guest, 1));
	}
	EXPECT_EQ(72 * DMM_PAGE, resident(ino));
}

/* A host process at the limit gets SIGBUS, write() and fallocate() an error. */
DMM_TEST(limit, host_at_limit)
{
	unsigned long ino = self->mem.ino;
	char byte = 1;
	pid_t pid;
	int status;

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 4 * DMM_PAGE));
	dmm_fill(self->mem.hva, 0, 4, 1);

	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		signal(SIGBUS, SIG_DFL);
		*(volatile char *)(self->mem.hva + 5 * DMM_PAGE) = 1;
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);

	EXPECT_EQ(-1, pwrite(self->mem.fd, &byte, 1, 5 * DMM_PAGE));
	EXPECT_TRUE(errno == ENOSPC || errno == ENOMEM);
	EXPECT_EQ(-1, fallocate(self->mem.fd, 0, 0, SIZE));
	EXPECT_TRUE(errno == ENOSPC || errno == ENOMEM);
	EXPECT_EQ(4 * DMM_PAGE, resident(ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 4, 1));

	/* Writing to what is there needs no room. */
	EXPECT_EQ(1, pwrite(self->mem.fd, &byte, 1, 3 * DMM_PAGE));
}

DMM_TEST(limit, min)
{
	unsigned long ino = self->mem.ino;

	EXPECT_EQ(0, dmm_pool_get(ino, "min_bytes"));
	ASSERT_EQ(0, dmm_pool_set(ino, "min_bytes", "1M"));
	EXPECT_EQ(1UL << 20, dmm_pool_get(ino, "min_bytes"));

	/* The guarantee can't be above the limit, nor the limit below it. */
	EXPECT_EQ(-EINVAL, dmm_pool_set_bytes(ino, "min_bytes", SIZE + DMM_PAGE));
	EXPECT_EQ(-EINVAL, dmm_pool_set_bytes(ino, "max_bytes", DMM_PAGE));
	EXPECT_EQ(1UL << 20, dmm_pool_get(ino, "min_bytes"));
	EXPECT_EQ(SIZE, max_bytes(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "min_bytes", "0"));
	EXPECT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", DMM_PAGE));
}

/* Up and down while a guest writes to more than fits: never more than the limit. */
DMM_TEST(limit, resize_under_load)
{
	unsigned long ino = self->mem.ino;
	unsigned int i, bound = 0;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, PAGES / 2, 0);
	for (i = 0; i < 200; i++) {
		uint64_t limit = SIZE / 8 + (i * 37 % 64) * DMM_PAGE;
		int r = dmm_pool_set_bytes(ino, "max_bytes", limit);

		ASSERT_TRUE(!r || r == -EBUSY);
		/* An attempt to charge counts for a moment. */
		if (!r) {
			bound++;
			ASSERT_LE(resident(ino), limit + 32 * DMM_PAGE);
		}
	}
	EXPECT_LT(100, bound);
	dmm_guest_wait_rounds(self->guest, 0, 2);
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
}

struct change {
	unsigned long ino;
	const char *value;
	int r;
};

static void *change_limit(void *p)
{
	struct change *change = p;

	change->r = dmm_pool_set(change->ino, "max_bytes", change->value);
	return NULL;
}

static bool limit_becomes(unsigned long ino, uint64_t bytes)
{
	uint64_t end = dmm_now_ms() + 1500;

	while (max_bytes(ino) != bytes) {
		if (dmm_now_ms() > end)
			return false;
		usleep(10000);
	}
	return true;
}

/* Room that is given does not wait for who makes room by force. */
DMM_TEST(limit, raise_while_lowered)
{
	unsigned long ino = self->mem.ino;
	struct change lower = { ino, "1M" }, raise = { ino, "max" };
	pthread_t threads[2];

	if (!dmm_policy_loaded("test-bad"))
		SKIP(return, "no policy test-bad");
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-bad"));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-bad/sleep_ms", "4000"));
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, change_limit, &lower));
	EXPECT_TRUE(limit_becomes(ino, 1UL << 20));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, change_limit, &raise));
	EXPECT_TRUE(limit_becomes(ino, SIZE));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-bad/sleep_ms", "0"));
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	/* Less than is allowed now is in use. */
	EXPECT_EQ(0, lower.r);
	EXPECT_EQ(0, raise.r);
	EXPECT_EQ(SIZE, max_bytes(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

static void on_alarm(int signal)
{
}

/* Signals do not make a wait for room endless. */
DMM_TEST(limit, write_with_signals)
{
	struct itimerval often = { { 0, 100000 }, { 0, 100000 } }, never = {};
	struct sigaction action = {
		.sa_handler = on_alarm,
		.sa_flags = SA_RESTART,
	};
	char page[DMM_PAGE] = { 1 };

	dmm_mem_exact(&self->mem);
	dmm_fill(self->mem.hva, 0, 64, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", 64 * DMM_PAGE));
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, NULL));
	EXPECT_EQ(-1, pwrite(self->mem.fd, page, DMM_PAGE, SIZE / 2));
	EXPECT_TRUE(errno == EINTR || errno == ENOSPC);
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
}

/* The file becomes smaller while somebody waits for room behind its new end. */
DMM_TEST(limit, shrinks_while_waiting)
{
	const uint64_t last = DMM_GPA + SIZE - DMM_PAGE;
	unsigned long ino = self->mem.ino;
	int i;

	dmm_mem_exact(&self->mem);
	dmm_guest_fill(self->guest, DMM_GPA + SIZE / 2, 64, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 64 * DMM_PAGE));
	dmm_guest_start(self->guest, 1, DMM_OP_TOUCH, last, 1, 5);
	for (i = 0; i < 1000 && !dmm_pool_get(ino, "stats/limit_wait"); i++)
		usleep(1000);
	ASSERT_NE(1000, i);
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE / 2));
	EXPECT_EQ(-EFAULT, dmm_guest_join(self->guest, 1));
	EXPECT_EQ(0, dmm_pool_get(ino, "stats/limit_failed"));
	EXPECT_EQ(0, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_TRUE(dmm_pool_ok(ino));
}

TEST_HARNESS_MAIN
