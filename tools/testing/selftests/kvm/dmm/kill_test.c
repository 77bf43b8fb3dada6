// SPDX-License-Identifier: GPL-2.0-only
/*
 * A process with a VM is killed at any point: its memory comes back.
 */
#include <signal.h>
#include <sys/stat.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(32UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* What a child tells its parent before it can be killed. */
struct report {
	unsigned long ino;
	volatile int ready;
};

FIXTURE(kill) {
	struct report *report;
};

FIXTURE_SETUP(kill)
{
	self->report = mmap(NULL, DMM_PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->report);
}

FIXTURE_TEARDOWN(kill)
{
	munmap(self->report, DMM_PAGE);
}

/* Run @fn in a child, kill it @usecs after it said that it is ready. */
static void kill_child(struct __test_metadata *_metadata,
		       struct report *report,
		       void (*fn)(struct report *report), unsigned int usecs)
{
	pid_t pid;
	int status, tries;

	memset(report, 0, sizeof(*report));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		/* Keep a failing child from going on as a second test. */
		fn(report);
		_exit(77);
	}
	for (tries = 0; !report->ready && tries < 60000; tries++)
		usleep(1000);
	ASSERT_TRUE(report->ready);
	usleep(usecs);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		TH_LOG("status %#x", status);
	}
	if (report->ino) {
		EXPECT_TRUE(dmm_pool_gone(report->ino));
	}
}

/* A VM with two vCPUs that write, and a thread that changes everything. */
static void busy_vm(struct report *report)
{
	struct dmm_mem mem = dmm_mem_create(SIZE);
	struct dmm_guest *guest;

	report->ino = mem.ino;
	report->ready = 1;
	guest = dmm_guest_create(2);
	dmm_guest_add_mem(guest, &mem);
	dmm_guest_start(guest, 0, DMM_OP_STORM, DMM_GPA, PAGES, 0);
	dmm_guest_start(guest, 1, DMM_OP_STORM, DMM_GPA, PAGES, 0);
	dmm_pool_set(mem.ino, "policies", "+test-token");
	for (;;) {
		fallocate(mem.fd, PUNCH, SIZE / 4, SIZE / 4);
		dmm_pool_set_bytes(mem.ino, "reclaim", SIZE / 4);
		dmm_fill(mem.hva, 0, 64, 1);
		fallocate(mem.fd, 0, SIZE / 2, SIZE / 2);
		dmm_pool_set(mem.ino, "policies", "-test-token");
		dmm_pool_set(mem.ino, "policies", "+test-token");
	}
}

DMM_TEST(kill, at_random_points)
{
	uint64_t before = 0;
	int i;

	srand(2);
	for (i = 0; i < 25; i++) {
		kill_child(_metadata, self->report, busy_vm,
			   rand() % (i < 10 ? 20000 : 300000));
		/* The first rounds warm up what is allocated only once. */
		if (i == 4)
			before = dmm_host_used();
	}
	/* 20 leaked VMs would be 640 MiB. */
	EXPECT_LT(dmm_host_used(), before + SIZE + dmm_host_held_back());
}

/* A vCPU that waits at the limit can be killed. */
static void waits_at_limit(struct report *report)
{
	struct dmm_mem mem = dmm_mem_create(SIZE);
	struct dmm_guest *guest = dmm_guest_create(1);

	report->ino = mem.ino;
	dmm_guest_add_mem(guest, &mem);
	TEST_ASSERT(!dmm_pool_set_bytes(mem.ino, "max_bytes", 16 * DMM_PAGE),
		    "no limit");
	dmm_guest_run(guest, 0, DMM_OP_TOUCH, DMM_GPA, PAGES, 1);
	TEST_ASSERT(dmm_pool_get(mem.ino, "stats/limit_wait"), "nobody has waited");
	/* That failed after a second or more: so will the next ones. */
	report->ready = 1;
	for (;;)
		dmm_guest_run(guest, 0, DMM_OP_TOUCH, DMM_GPA, PAGES, 1);
}

DMM_TEST(kill, waiting_at_limit)
{
	int i;

	for (i = 0; i < 3; i++)
		kill_child(_metadata, self->report, waits_at_limit, 300000);
}

/* Allocating a lot at once can be interrupted. */
static void allocates(struct report *report)
{
	int fd = kvm_dmmfs_alloc(4UL << 30, false);
	struct stat st;

	fstat(fd, &st);
	report->ino = st.st_ino;
	report->ready = 1;
	for (;;) {
		fallocate(fd, 0, 0, 256UL << 20);
		fallocate(fd, PUNCH, 0, 4UL << 30);
	}
}

DMM_TEST(kill, allocating)
{
	int i;

	for (i = 0; i < 5; i++)
		kill_child(_metadata, self->report, allocates, i * 30000);
}

/*
 * One of two users dies: the other, in the middle of the same memory, doesn't
 * notice.
 */
static struct dmm_mem *common;

static void second_user(struct report *report)
{
	struct dmm_guest *guest = dmm_guest_create(1);

	dmm_guest_map(guest, DMM_GPA, SIZE);
	dmm_guest_add_slot(guest, DMM_SLOT, 0, DMM_GPA, SIZE, common->hva);
	dmm_guest_start(guest, 0, DMM_OP_STORM, DMM_GPA + SIZE / 2,
			PAGES / 2, 0);
	report->ready = 1;
	for (;;)
		dmm_nonzero_pages(common->hva, PAGES);
}

DMM_TEST(kill, one_of_two_users)
{
	struct dmm_mem mem = dmm_mem_create(SIZE);
	struct dmm_guest *guest = dmm_guest_create(1);
	int i;

	common = &mem;
	dmm_guest_add_mem(guest, &mem);
	dmm_guest_start(guest, 0, DMM_OP_COUNT, DMM_GPA, 128, 0);
	for (i = 0; i < 5; i++)
		kill_child(_metadata, self->report, second_user, i * 20000);
	dmm_guest_wait_rounds(guest, 0, 2);
	EXPECT_EQ(0, dmm_guest_stop(guest, 0));
	EXPECT_EQ(0, guest->cpu[0].cmd->result);
	ASSERT_EQ(0, fallocate(mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(guest, DMM_GPA, PAGES));
	dmm_guest_free(guest);
	dmm_mem_free(&mem);
	EXPECT_TRUE(dmm_pool_gone(mem.ino));
}

TEST_HARNESS_MAIN
