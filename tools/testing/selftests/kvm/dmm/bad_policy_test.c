// SPDX-License-Identifier: GPL-2.0-only
/*
 * A policy that misbehaves costs neither guest nor host more than the accesses
 * that need it.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "bad_util.h"

#define ALL	"/sys/kernel/kvm_dmm/policies/test-bad/"
#define MODULE	"kvm_dmm_test_bad"

FIXTURE(bad) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
	unsigned long ino;
};

FIXTURE_SETUP(bad)
{
	if (!dmm_policy_loaded("test-bad"))
		SKIP(return, "needs the policy test-bad");

	self->mem = dmm_mem_create_exact(SIZE);
	self->ino = self->mem.ino;
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
	/* Room for all that comes back. */
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", 2 * SIZE));
	bad_add(self->ino, "test-bad");
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
}

FIXTURE_TEARDOWN(bad)
{
	if (self->guest)
		dmm_guest_free(self->guest);
	if (self->mem.hva)
		dmm_mem_free(&self->mem);
}

static void set_all(const char *tunable, const char *value)
{
	char *path = strdup_printf(ALL "%s", tunable);
	int r = dmm_write_file(path, value, strlen(value));

	TEST_ASSERT(!r, "%s=%s: %d", path, value, r);
	free(path);
}

static void set_all_number(const char *tunable, int value)
{
	char *number = strdup_printf("%u", value);

	set_all(tunable, number);
	free(number);
}

static bool wait_detached(unsigned long ino)
{
	int i;

	for (i = 0; i < 1000 && dmm_has_policy(ino, "test-bad"); i++)
		usleep(10000);
	return !dmm_has_policy(ino, "test-bad");
}

/*
 * What fill and fetch return, and what the access gets: -EIO for what is no
 * errno of system calls, or means something else in the core.
 */
static const struct {
	int result;
	int err;
} wrong[] = {
	{ -EIO, -EIO }, { -EPERM, -EPERM }, { -ENOENT, -ENOENT },
	{ -ENOMEM, -ENOMEM }, { -EFAULT, -EFAULT }, { -EEXIST, -EEXIST },
	{ -ENOSPC, -ENOSPC }, { -ESTALE, -ESTALE }, { -EHWPOISON, -EIO },
	{ -EAGAIN, -EIO }, { -EBUSY, -EIO }, { -EINTR, -EIO },
	{ -EHWPOISON - 1, -EIO }, { -512 /* ERESTARTSYS */, -EIO },
	{ -4095 /* MAX_ERRNO */, -EIO }, { INT_MIN, -EIO }, { 1, -EIO },
	{ 2, -EIO }, { INT_MAX, -EIO },
};

/* Reading by a system call tells the error. */
static int read_page(struct dmm_mem *mem, uint64_t index)
{
	char buf[DMM_PAGE];

	return pread(mem->fd, buf, sizeof(buf), index * DMM_PAGE) < 0 ?
	       -errno : 0;
}

/* So does a clone, for which the page is filled or fetched. */
static int clone_all(struct dmm_mem *to, struct dmm_mem *from)
{
	return ioctl(to->fd, FICLONE, from->fd) ? -errno : 0;
}

/* Whatever fetch returns but success fails the access that needs it only. */
DMM_TEST(bad, fetch)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned int i;
	int err;

	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	ASSERT_EQ(SIZE / 2, dmm_pool_get(self->ino, "swapped_bytes"));
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		/* It keeps the content: see kept. */
		if (wrong[i].result == 1)
			continue;
		err = wrong[i].err;
		bad_set_number(self->ino, "fetch", wrong[i].result);
		EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK,
						 DMM_GPA, 1, 0)) {
			TH_LOG("fetch: %d", wrong[i].result);
		}
		EXPECT_EQ(err, read_page(&self->mem, 0)) {
			TH_LOG("fetch: %d", wrong[i].result);
		}
		EXPECT_EQ(err, clone_all(&other, &self->mem)) {
			TH_LOG("fetch: %d", wrong[i].result);
		}
		EXPECT_LT(2 * i, bad_count(self->ino, "fetch"));
		/* The other half, and other vCPUs. */
		EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_CHECK,
					   DMM_GPA + SIZE / 2, PAGES / 2, 1));
		EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
		EXPECT_EQ(err == -ENOMEM ? -EBUSY : err, bad_remove(self->ino));
		EXPECT_TRUE(dmm_has_policy(self->ino, "test-bad"));
		EXPECT_EQ(SIZE / 2, dmm_pool_get(self->ino, "swapped_bytes"));
		bad_set(self->ino, "fetch", "0");
		EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
		/* One page has come back: the next access needs another one. */
		ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 2,
					   POSIX_FADV_DONTNEED));
	}
	dmm_mem_free(&other);
	EXPECT_EQ(0, dmm_pool_get(self->ino, "stats/eject"));
	bad_recover(_metadata, self->guest, self->ino);
}

/*
 * It says that it keeps the content, and does not: that is nobody's loss as long
 * as it does not hand the token back.
 */
DMM_TEST(bad, kept)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE));
	ASSERT_EQ(SIZE, dmm_pool_get(self->ino, "swapped_bytes"));
	bad_set(self->ino, "fetch", "1");
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES, bad_count(self->ino, "fetch"));
	EXPECT_EQ(0, bad_count(self->ino, "lost"));
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	/* A write, and a page that goes out or away, give the token back. */
	dmm_guest_fill(self->guest, DMM_GPA, 1, 1);
	EXPECT_EQ(1, bad_count(self->ino, "lost"));
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, 2 * DMM_PAGE,
				   POSIX_FADV_DONTNEED));
	EXPECT_EQ(2 * DMM_PAGE, dmm_pool_get(self->ino, "swapped_bytes"));
	EXPECT_EQ(2, bad_count(self->ino, "lost"));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, 4 * DMM_PAGE));
	EXPECT_EQ(4, bad_count(self->ino, "lost"));
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	dmm_guest_fill(self->guest, DMM_GPA, 4, 1);
	/* So does detaching, by which the counter goes. */
	bad_recover_lost(_metadata, self->guest, self->ino, 4);
}

/* Fetched for a write, the token comes back at once. */
DMM_TEST(bad, kept_write)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE));
	bad_set(self->ino, "fetch", "1");
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(PAGES, bad_count(self->ino, "fetch"));
	EXPECT_EQ(PAGES, bad_count(self->ino, "lost"));
	bad_recover_lost(_metadata, self->guest, self->ino, PAGES);
}

/* A broken store: ejected, stays for its tokens, and goes when they come. */
DMM_TEST(bad, fetch_unclean)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	bad_set_number(self->ino, "fetch", -EUCLEAN);
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK, DMM_GPA,
					 1, 0));
	EXPECT_EQ(1, dmm_pool_get(self->ino, "stats/eject"));
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->ino, "reclaim", SIZE));
	usleep(200000);
	ASSERT_TRUE(dmm_has_policy(self->ino, "test-bad"));
	bad_set(self->ino, "fetch", "0");
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	bad_recover(_metadata, self->guest, self->ino);
}

/* Errors of fill fail the access to absent memory, and no other. */
DMM_TEST(bad, fill)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned int i;

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, DMM_PAGE));
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		bad_set_number(self->ino, "fill", wrong[i].result);
		EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK,
						 DMM_GPA, 1, 0)) {
			TH_LOG("fill: %d", wrong[i].result);
		}
		EXPECT_EQ(wrong[i].err, read_page(&self->mem, 0)) {
			TH_LOG("fill: %d", wrong[i].result);
		}
		EXPECT_EQ(wrong[i].err, clone_all(&other, &self->mem)) {
			TH_LOG("fill: %d", wrong[i].result);
		}
		EXPECT_LT(2 * i + 1, bad_count(self->ino, "fill"));
		EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_CHECK,
					   DMM_GPA + DMM_PAGE, PAGES - 1, 1));
		EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
		EXPECT_EQ(SIZE - DMM_PAGE,
			  dmm_pool_get(self->ino, "resident_bytes"));
		bad_set(self->ino, "fill", "0");
		EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
		EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, DMM_PAGE));
	}
	dmm_mem_free(&other);
	EXPECT_EQ(0, dmm_pool_get(self->ino, "stats/eject"));
	/* What is left of a page with a hole in it is what the policy has. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 8, 8));
	EXPECT_EQ(SIZE, dmm_pool_get(self->ino, "resident_bytes"));
	dmm_guest_fill(self->guest, DMM_GPA, 1, 1);
	bad_recover(_metadata, self->guest, self->ino);
}

static void *touch_thread(void *addr)
{
	return (void *)(uintptr_t)*(volatile char *)addr;
}

/* The last page that the limit allows is on its way: who wants it waits. */
DMM_TEST(bad, filled_at_the_limit)
{
	pthread_t thread;
	int i;

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, DMM_PAGE));
	bad_set(self->ino, "sleep_ms", "2000");
	ASSERT_EQ(0, pthread_create(&thread, NULL, touch_thread, self->mem.hva));
	for (i = 0; i < 100 && dmm_pool_get(self->ino, "resident_bytes") < SIZE; i++)
		usleep(10000);
	EXPECT_EQ(SIZE, dmm_pool_get(self->ino, "resident_bytes"));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", SIZE));
	EXPECT_EQ(0, fallocate(self->mem.fd, 0, 0, DMM_PAGE));
	pthread_join(thread, NULL);
	bad_set(self->ino, "sleep_ms", "0");
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", 2 * SIZE));
	dmm_guest_fill(self->guest, DMM_GPA, 1, 1);
	bad_recover(_metadata, self->guest, self->ino);
}

/* Any error of reclaim, and what is none, ejects. */
DMM_TEST(bad, reclaim_result)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		if (i)
			bad_add(self->ino, "test-bad");
		bad_set_number(self->ino, "reclaim_result", wrong[i].result);
		/* It may do its work and fail all the same. */
		dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2);
		EXPECT_TRUE(wait_detached(self->ino)) {
			TH_LOG("reclaim_result: %d", wrong[i].result);
		}
		EXPECT_EQ(i + 1, dmm_pool_get(self->ino, "stats/eject"));
		EXPECT_EQ(0, dmm_pool_get(self->ino, "swapped_bytes"));
	}
	bad_recover(_metadata, self->guest, self->ino);
}

/* Counts that are not true: requests end, and say that nothing was done. */
DMM_TEST(bad, reclaim_counts)
{
	static const char * const how[] = { "none", "lie", "huge", "less" };
	unsigned int i;
	uint64_t start;

	for (i = 0; i < ARRAY_SIZE(how); i++) {
		bad_set(self->ino, "reclaim", how[i]);
		start = dmm_now_ms();
		EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->ino, "reclaim",
						      SIZE / 2)) {
			TH_LOG("reclaim: %s", how[i]);
		}
		EXPECT_EQ(-EBUSY, dmm_pool_set_bytes(self->ino, "max_bytes",
						     SIZE / 2)) {
			TH_LOG("reclaim: %s", how[i]);
		}
		EXPECT_GT(60000, dmm_now_ms() - start);
		EXPECT_EQ(2 * SIZE, dmm_pool_get(self->ino, "max_bytes"));
		EXPECT_EQ(0, dmm_pool_get(self->ino, "stats/reclaim"));
		EXPECT_EQ(SIZE, dmm_pool_get(self->ino, "resident_bytes"));
		EXPECT_LT(2 * i + 1, bad_count(self->ino, "reclaim"));
	}
	bad_recover(_metadata, self->guest, self->ino);
}

/* Taken out, but not said: what was taken out stays out, and is there. */
DMM_TEST(bad, reclaim_silent)
{
	bad_set(self->ino, "reclaim", "silent");
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(self->ino, "swapped_bytes"));
	bad_recover(_metadata, self->guest, self->ino);
}

/* Has a worker stopped to take pages out? */
static bool stands_still(unsigned long ino)
{
	uint64_t n, last = UINT64_MAX;
	int i;

	for (i = 0; i < 60; i++) {
		n = dmm_pool_get(ino, "stats/token");
		if (n == last)
			return true;
		last = n;
		sleep(1);
	}
	return false;
}

/* What is taken out comes back at once: what wants memory must end. */
DMM_TEST(bad, reclaim_bounce)
{
	uint64_t start = dmm_now_ms();

	bad_set(self->ino, "reclaim", "bounce");
	/* It came free, if only for a moment. */
	EXPECT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	EXPECT_EQ(SIZE, dmm_pool_get(self->ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_pool_get(self->ino, "swapped_bytes"));
	EXPECT_EQ(PAGES / 2, dmm_pool_get(self->ino, "stats/token"));
	EXPECT_EQ(PAGES / 2, dmm_pool_get(self->ino, "stats/fetch"));
	EXPECT_EQ(1, bad_count(self->ino, "reclaim"));
	/* Above the lower limit nothing comes back. */
	EXPECT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", SIZE / 2));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(self->ino, "max_bytes"));
	EXPECT_GE(SIZE / 2, dmm_pool_get(self->ino, "resident_bytes"));
	/* With a margin that it never gets to the worker goes on; so do others. */
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", SIZE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_LT(1, bad_count(self->ino, "reclaim"));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", 2 * SIZE));
	EXPECT_TRUE(stands_still(self->ino));
	EXPECT_GT(120000, dmm_now_ms() - start);
	bad_recover(_metadata, self->guest, self->ino);
}

/* At the limit with a policy that lies: accesses fail after their time. */
DMM_TEST(bad, limit)
{
	static const char * const how[] = { "none", "lie", "huge", "less" };
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned int i;
	uint64_t start;

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE / 2));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", SIZE / 2));
	for (i = 0; i < ARRAY_SIZE(how); i++) {
		bad_set(self->ino, "reclaim", how[i]);
		start = dmm_now_ms();
		EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_POKE,
						 DMM_GPA, 1, 5)) {
			TH_LOG("reclaim: %s", how[i]);
		}
		EXPECT_GT(60000, dmm_now_ms() - start);
		EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_CHECK,
					   DMM_GPA + SIZE / 2, PAGES / 2, 1));
		EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
		/* Another guest's memory. */
		dmm_fill(other.hva, 0, PAGES, 2);
		EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 2));
	}
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", 2 * SIZE));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 1);
	dmm_mem_free(&other);
	bad_recover(_metadata, self->guest, self->ino);
}

/* Charges that are not true hold as long as the policy is there. */
DMM_TEST(bad, charges)
{
	static const char * const how[] = {
		"1000000000000", "-1000000000000", "9223372036854775807",
		"-9223372036854775807", "1",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(how); i++) {
		bad_set(self->ino, "reclaim", "none");
		bad_set(self->ino, "compressed", how[i]);
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 1));
		EXPECT_EQ(0, bad_remove(self->ino));
		EXPECT_EQ(0, dmm_pool_get(self->ino, "compressed_bytes"));
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
		dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
		bad_add(self->ino, "test-bad");
	}
	bad_recover(_metadata, self->guest, self->ino);
}

/* Without a limit no access is refused, whatever comes on top of the frames. */
DMM_TEST(bad, charges_without_limit)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);

	bad_add(other.ino, "test-bad");
	bad_set(other.ino, "reclaim", "none");
	bad_set(other.ino, "compressed", "65536");
	dmm_fill(other.hva, 0, PAGES, 1);
	EXPECT_EQ(SIZE, dmm_pool_get(other.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_pool_get(other.ino, "stats/limit_failed"));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 1));
	EXPECT_TRUE(dmm_pool_ok(other.ino));
	dmm_mem_free(&other);
}

/* Calls that can be refused are, with the documented errors. */
DMM_TEST(bad, calls)
{
	EXPECT_EQ(0, dmm_pool_set(self->ino, "test-bad/probe", "7"));
	EXPECT_EQ(0, dmm_pool_get(self->ino, "swapped_bytes"));
	bad_recover(_metadata, self->guest, self->ino);
}

/* Of what attach and leave return, that which is no error of system calls. */
static const struct {
	int result;
	int r;
} bad_results[] = {
	{ -EIO, -EIO }, { -EAGAIN, -EAGAIN }, { -EBUSY, -EBUSY },
	{ -EINTR, -EINTR }, { -512 /* ERESTARTSYS */, -EIO },
	{ -EUCLEAN, -EUCLEAN }, { -EHWPOISON, -EHWPOISON },
	{ -EHWPOISON - 1, -EIO }, { 1, -EIO }, { INT_MAX, -EIO },
	{ INT_MIN, -EIO },
};

/* An attach that fails in any way leaves nothing behind. */
DMM_TEST(bad, attach)
{
	unsigned int i;

	ASSERT_EQ(0, bad_remove(self->ino));
	/* It is to be asked ahead of the guest, and fails then. */
	set_all("ahead", "same");
	for (i = 0; i < ARRAY_SIZE(bad_results); i++) {
		set_all_number("attach", bad_results[i].result);
		EXPECT_EQ(bad_results[i].r,
			  dmm_pool_set(self->ino, "policies", "+test-bad")) {
			TH_LOG("attach: %d", bad_results[i].result);
		}
		EXPECT_EQ(NULL, bad_policy(self->ino));
	}
	set_all("attach", "default");
	set_all("ahead", "default");
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	bad_add(self->ino, "test-bad");
	bad_recover(_metadata, self->guest, self->ino);
}

/* Who does not want to leave stays, whatever it says, and goes on. */
DMM_TEST(bad, leave)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad_results); i++) {
		ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
		bad_set_number(self->ino, "leave", bad_results[i].result);
		EXPECT_EQ(bad_results[i].r,
			  dmm_pool_set(self->ino, "policies", "-test-bad")) {
			TH_LOG("leave: %d", bad_results[i].result);
		}
		EXPECT_EQ(i + 1, bad_count(self->ino, "leave"));
		EXPECT_NE(NULL, bad_policy(self->ino));
		/* What it had is back all the same. */
		EXPECT_EQ(0, dmm_pool_get(self->ino, "swapped_bytes"));
	}
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	bad_set(self->ino, "leave", "0");
	EXPECT_EQ(0, bad_remove(self->ino));
	bad_recover(_metadata, self->guest, self->ino);
}

static void *reclaim_thread(void *ino)
{
	dmm_pool_set_bytes((unsigned long)ino, "reclaim", SIZE / 2);
	return NULL;
}

static void *tune_thread(void *ino)
{
	bad_set((unsigned long)ino, "tuned", "6000");
	return NULL;
}

/* Whoever writes a number waits for tuned, and so does who detaches the policy. */
DMM_TEST(bad, tuned)
{
	struct dmm_mem other;
	pthread_t thread;
	uint64_t start;

	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	start = dmm_now_ms();
	ASSERT_EQ(0, pthread_create(&thread, NULL, tune_thread,
				    (void *)self->ino));
	while (!bad_count(self->ino, "tuned"))
		usleep(10000);
	/* Not the guest, and no other pool. */
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_pool_get(self->ino, "swapped_bytes"));
	other = dmm_mem_create_exact(SIZE);
	bad_add(other.ino, "test-bad");
	bad_set(other.ino, "fill", "0");
	dmm_mem_free(&other);
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	EXPECT_GT(6000, dmm_now_ms() - start);
	EXPECT_EQ(0, bad_remove(self->ino));
	EXPECT_LE(6000, dmm_now_ms() - start);
	pthread_join(thread, NULL);
	bad_recover(_metadata, self->guest, self->ino);
}

/* Ops that take long hold up nobody who does not need them. */
DMM_TEST(bad, sleep)
{
	struct dmm_mem other;
	pthread_t thread;
	uint64_t start;

	bad_set(self->ino, "sleep_ms", "12000");
	ASSERT_EQ(0, pthread_create(&thread, NULL, reclaim_thread,
				    (void *)self->ino));
	usleep(500000);
	start = dmm_now_ms();
	/* The guest, and all of another pool's life. */
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 4, 1));
	other = dmm_mem_create_exact(SIZE);
	dmm_fill(other.hva, 0, 16, 2);
	EXPECT_EQ(0, dmm_pool_set(other.ino, "policies", "-demand"));
	EXPECT_EQ(0, dmm_pool_set(other.ino, "policies", "+demand"));
	dmm_mem_free(&other);
	EXPECT_TRUE(dmm_pool_gone(other.ino));
	EXPECT_GT(9000, dmm_now_ms() - start);
	bad_set(self->ino, "sleep_ms", "0");
	pthread_join(thread, NULL);
	bad_recover(_metadata, self->guest, self->ino);
}

/* Can the module go?  Files of tests before may be on their way out. */
static bool unloaded(void)
{
	int i;

	for (i = 0; i < 100; i++) {
		if (!syscall(__NR_delete_module, MODULE, O_NONBLOCK))
			return true;
		if (errno != EWOULDBLOCK && errno != EBUSY)
			break;
		usleep(100000);
	}
	return false;
}

/* The module stays while it is attached, and goes afterwards. */
DMM_TEST(bad, unload)
{
	int i;

	bad_set(self->ino, "sleep_ms", "1");
	for (i = 0; i < 20; i++) {
		dmm_pool_set_bytes(self->ino, "reclaim", DMM_PAGE * 8);
		EXPECT_EQ(-1, syscall(__NR_delete_module, MODULE, O_NONBLOCK));
		EXPECT_TRUE(errno == EWOULDBLOCK || errno == EBUSY);
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 4, 1));
	}
	bad_recover(_metadata, self->guest, self->ino);

	EXPECT_TRUE(unloaded());
	EXPECT_EQ(-1, access(ALL, F_OK));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	/* And comes back when it is asked for. */
	EXPECT_TRUE(dmm_policy_loaded("test-bad"));
}

/* A file that goes while its policy fails takes all of it along. */
DMM_TEST(bad, file_goes)
{
	/* Nobody waits for what is lost. */
	bad_set(self->ino, "fetch", "1");
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 8, 1));
	bad_set_number(self->ino, "fetch", -EUCLEAN);
	bad_set_number(self->ino, "fill", -EIO);
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK,
					 DMM_GPA + 8 * DMM_PAGE, 1, 0));
	EXPECT_LE(9, bad_count(self->ino, "fetch"));
	EXPECT_EQ(1, dmm_pool_get(self->ino, "stats/eject"));
	EXPECT_EQ(SIZE / 2 - 8 * DMM_PAGE,
		  dmm_pool_get(self->ino, "swapped_bytes"));
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	dmm_guest_free(self->guest);
	self->guest = NULL;
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->ino));
	/* It was given all its tokens, or it would complain, and is detached. */
	EXPECT_TRUE(unloaded());
	EXPECT_TRUE(dmm_policy_loaded("test-bad"));
}

TEST_HARNESS_MAIN
