// SPDX-License-Identifier: GPL-2.0-only
/*
 * A policy that misbehaves costs neither guest nor host more than the accesses
 * that need it.
 */
#include <sys/syscall.h>
#include <time.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
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
	ASSERT_EQ(0, dmm_pool_set(self->ino, "policies", "+test-bad"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
}

FIXTURE_TEARDOWN(bad)
{
	if (self->guest)
		dmm_guest_free(self->guest);
	if (self->mem.hva)
		dmm_mem_free(&self->mem);
}

static void set(struct __test_metadata *_metadata, unsigned long ino,
		const char *tunable, const char *value)
{
	char *file = strdup_printf("test-bad/%s", tunable);

	ASSERT_EQ(0, dmm_pool_set(ino, file, value)) {
		TH_LOG("%s=%s", tunable, value);
	}
	free(file);
}

static void set_all(struct __test_metadata *_metadata, const char *tunable,
		    const char *value)
{
	char *path = strdup_printf(ALL "%s", tunable);

	ASSERT_EQ(0, dmm_write_file(path, value, strlen(value)));
	free(path);
}

static bool wait_detached(unsigned long ino)
{
	int i;

	for (i = 0; i < 1000 && dmm_has_policy(ino, "test-bad"); i++)
		usleep(10000);
	return !dmm_has_policy(ino, "test-bad");
}

/* With good behaviour again all content is there, and the policy can go. */
static void recover(struct __test_metadata *_metadata, struct dmm_guest *guest,
		    unsigned long ino)
{
	if (dmm_has_policy(ino, "test-bad")) {
		set(_metadata, ino, "fill", "good");
		set(_metadata, ino, "fetch", "good");
		set(_metadata, ino, "sleep_ms", "0");
	}
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	if (dmm_has_policy(ino, "test-bad"))
		EXPECT_EQ(0, dmm_pool_set(ino, "policies", "-test-bad"));
	EXPECT_EQ(0, dmm_pool_get(ino, "swapped_bytes"));
	EXPECT_EQ(0, dmm_pool_get(ino, "compressed_bytes"));
	EXPECT_EQ(SIZE, dmm_pool_get(ino, "resident_bytes"));
}

/* Whatever fetch returns but success fails the access that needs it only. */
DMM_TEST(bad, fetch)
{
	static const char * const how[] = {
		"error", "again", "busy", "interrupted", "restart", "positive",
		"nonsense",
	};
	unsigned int i;

	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	ASSERT_EQ(SIZE / 2, dmm_pool_get(self->ino, "swapped_bytes"));
	for (i = 0; i < ARRAY_SIZE(how); i++) {
		set(_metadata, self->ino, "fetch", how[i]);
		EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK,
						 DMM_GPA, 1, 0)) {
			TH_LOG("fetch: %s", how[i]);
		}
		/* The other half, and other vCPUs. */
		EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_CHECK,
					   DMM_GPA + SIZE / 2, PAGES / 2, 1));
		EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
		EXPECT_GT(0, dmm_pool_set(self->ino, "policies", "-test-bad"));
		EXPECT_TRUE(dmm_has_policy(self->ino, "test-bad"));
		set(_metadata, self->ino, "fetch", "good");
		EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
		/* One page has come back: the next access needs another one. */
		ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 2,
					   POSIX_FADV_DONTNEED));
	}
	EXPECT_EQ(0, dmm_pool_get(self->ino, "stats/eject"));
	recover(_metadata, self->guest, self->ino);
}

/* What is fetched with a page does not leave its region. */
DMM_TEST(bad, fetch_around)
{
	static const char * const window[] = { "all", "others", "backwards" };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(window); i++) {
		ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE));
		ASSERT_EQ(SIZE, dmm_pool_get(self->ino, "swapped_bytes"));
		set(_metadata, self->ino, "window", window[i]);
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 1, 1));
		EXPECT_EQ(i ? DMM_PAGE : SIZE / 2,
			  dmm_pool_get(self->ino, "resident_bytes")) {
			TH_LOG("%s", window[i]);
		}
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	}
	set(_metadata, self->ino, "window", "none");
	recover(_metadata, self->guest, self->ino);
}

/* A broken store: ejected, stays for its tokens, and goes when they come. */
DMM_TEST(bad, fetch_unclean)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	set(_metadata, self->ino, "fetch", "unclean");
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK, DMM_GPA,
					 1, 0));
	EXPECT_EQ(1, dmm_pool_get(self->ino, "stats/eject"));
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->ino, "reclaim", SIZE));
	usleep(200000);
	ASSERT_TRUE(dmm_has_policy(self->ino, "test-bad"));
	set(_metadata, self->ino, "fetch", "good");
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	recover(_metadata, self->guest, self->ino);
}

/* Errors of fill fail the access to absent memory, and no other. */
DMM_TEST(bad, fill)
{
	static const char * const how[] = {
		"error", "again", "busy", "interrupted", "restart", "positive",
		"nonsense",
	};
	unsigned int i;

	ASSERT_EQ(0, fallocate(self->mem.fd, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, 0, DMM_PAGE));
	for (i = 0; i < ARRAY_SIZE(how); i++) {
		set(_metadata, self->ino, "fill", how[i]);
		EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_PEEK,
						 DMM_GPA, 1, 0)) {
			TH_LOG("fill: %s", how[i]);
		}
		EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_CHECK,
					   DMM_GPA + DMM_PAGE, PAGES - 1, 1));
		EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
		set(_metadata, self->ino, "fill", "good");
		EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
		EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
		ASSERT_EQ(0, fallocate(self->mem.fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, 0, DMM_PAGE));
	}
	dmm_guest_fill(self->guest, DMM_GPA, 1, 1);
	recover(_metadata, self->guest, self->ino);
}

/* Any error of reclaim, and what is none, ejects. */
DMM_TEST(bad, reclaim_result)
{
	static const char * const how[] = {
		"error", "again", "busy", "interrupted", "restart", "positive",
		"nonsense",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(how); i++) {
		if (i)
			ASSERT_EQ(0, dmm_pool_set(self->ino, "policies",
						  "+test-bad"));
		set(_metadata, self->ino, "reclaim_result", how[i]);
		/* It may do its work and fail all the same. */
		dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2);
		EXPECT_TRUE(wait_detached(self->ino)) {
			TH_LOG("reclaim_result: %s", how[i]);
		}
		EXPECT_EQ(i + 1, dmm_pool_get(self->ino, "stats/eject"));
		EXPECT_EQ(0, dmm_pool_get(self->ino, "swapped_bytes"));
	}
	recover(_metadata, self->guest, self->ino);
}

/* Counts that are not true: requests end, and say that nothing was done. */
DMM_TEST(bad, reclaim_counts)
{
	static const char * const how[] = { "none", "lie", "huge", "less" };
	unsigned int i;
	uint64_t start;

	for (i = 0; i < ARRAY_SIZE(how); i++) {
		set(_metadata, self->ino, "reclaim", how[i]);
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
	}
	recover(_metadata, self->guest, self->ino);
}

/* Taken out, but not said: what was taken out stays out, and is there. */
DMM_TEST(bad, reclaim_silent)
{
	set(_metadata, self->ino, "reclaim", "silent");
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(self->ino, "swapped_bytes"));
	recover(_metadata, self->guest, self->ino);
}

/* What is taken out comes back at once: lowering the limit must end. */
DMM_TEST(bad, reclaim_bounce)
{
	uint64_t start = dmm_now_ms();

	set(_metadata, self->ino, "reclaim", "bounce");
	/* Above the lower limit nothing comes back: it may succeed. */
	dmm_pool_set_bytes(self->ino, "max_bytes", SIZE / 2);
	/* With a margin that it never gets to. */
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", SIZE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_GT(120000, dmm_now_ms() - start);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", 2 * SIZE));
	recover(_metadata, self->guest, self->ino);
}

/* At the limit with a policy that lies: accesses fail after their time. */
DMM_TEST(bad, limit)
{
	static const char * const how[] = { "none", "lie", "huge", "less" };
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned int i;
	uint64_t start;

	ASSERT_EQ(0, fallocate(self->mem.fd, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, 0, SIZE / 2));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", SIZE / 2));
	for (i = 0; i < ARRAY_SIZE(how); i++) {
		set(_metadata, self->ino, "reclaim", how[i]);
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
	recover(_metadata, self->guest, self->ino);
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
		set(_metadata, self->ino, "reclaim", "none");
		set(_metadata, self->ino, "compressed", how[i]);
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 1));
		EXPECT_EQ(0, dmm_pool_set(self->ino, "policies", "-test-bad"));
		EXPECT_EQ(0, dmm_pool_get(self->ino, "compressed_bytes"));
		ASSERT_EQ(0, fallocate(self->mem.fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, 0, SIZE));
		dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
		ASSERT_EQ(0, dmm_pool_set(self->ino, "policies", "+test-bad"));
	}
	recover(_metadata, self->guest, self->ino);
}

/* Without a limit no access is refused, whatever comes on top of the frames. */
DMM_TEST(bad, charges_without_limit)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);

	ASSERT_EQ(0, dmm_pool_set(other.ino, "policies", "+test-bad"));
	set(_metadata, other.ino, "reclaim", "none");
	set(_metadata, other.ino, "compressed", "65536");
	dmm_fill(other.hva, 0, PAGES, 1);
	EXPECT_EQ(SIZE, dmm_pool_get(other.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_pool_get(other.ino, "stats/limit_failed"));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 1));
	dmm_mem_free(&other);
}

/* Calls that can be refused are, with the documented errors. */
DMM_TEST(bad, calls)
{
	EXPECT_EQ(0, dmm_pool_set(self->ino, "test-bad/probe", "7"));
	EXPECT_EQ(0, dmm_pool_get(self->ino, "swapped_bytes"));
	recover(_metadata, self->guest, self->ino);
}

/* An attach that fails in any way leaves nothing behind. */
DMM_TEST(bad, attach)
{
	static const struct {
		const char *how;
		int r;
	} bad[] = {
		{ "error", -EIO }, { "again", -EAGAIN }, { "busy", -EBUSY },
		{ "interrupted", -EINTR }, { "restart", -EIO },
		{ "unclean", -EUCLEAN }, { "positive", -EIO },
		{ "nonsense", -EIO },
	};
	unsigned int i;

	ASSERT_EQ(0, dmm_pool_set(self->ino, "policies", "-test-bad"));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		set_all(_metadata, "attach", bad[i].how);
		EXPECT_EQ(bad[i].r, dmm_pool_set(self->ino, "policies",
						 "+test-bad")) {
			TH_LOG("attach: %s", bad[i].how);
		}
		EXPECT_FALSE(dmm_has_policy(self->ino, "test-bad"));
	}
	set_all(_metadata, "attach", "default");
	EXPECT_EQ(0, dmm_pool_set(self->ino, "policies", "+test-bad"));
	recover(_metadata, self->guest, self->ino);
}

static void *reclaim_thread(void *ino)
{
	dmm_pool_set_bytes((unsigned long)ino, "reclaim", SIZE / 2);
	return NULL;
}

/* Ops that take long hold up nobody who does not need them. */
DMM_TEST(bad, sleep)
{
	struct dmm_mem other;
	pthread_t thread;
	uint64_t start;

	set(_metadata, self->ino, "sleep_ms", "12000");
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
	set(_metadata, self->ino, "sleep_ms", "0");
	pthread_join(thread, NULL);
	recover(_metadata, self->guest, self->ino);
}

/* The module stays while it is attached, and goes afterwards. */
DMM_TEST(bad, unload)
{
	int i, r = 0;

	set(_metadata, self->ino, "sleep_ms", "1");
	for (i = 0; i < 20; i++) {
		dmm_pool_set_bytes(self->ino, "reclaim", DMM_PAGE * 8);
		r = syscall(__NR_delete_module, MODULE, O_NONBLOCK);
		EXPECT_EQ(-1, r);
		EXPECT_TRUE(errno == EWOULDBLOCK || errno == EBUSY);
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 4, 1));
	}
	recover(_metadata, self->guest, self->ino);

	/* Files of tests before may be on their way out. */
	for (i = 0; i < 100; i++) {
		r = syscall(__NR_delete_module, MODULE, O_NONBLOCK);
		if (!r || (errno != EWOULDBLOCK && errno != EBUSY))
			break;
		usleep(100000);
	}
	EXPECT_EQ(0, r);
	EXPECT_EQ(-1, access(ALL, F_OK));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	/* And comes back when it is asked for. */
	EXPECT_TRUE(dmm_policy_loaded("test-bad"));
}

/* A file that goes while its policy fails takes all of it along. */
DMM_TEST(bad, file_goes)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", SIZE / 2));
	set(_metadata, self->ino, "fetch", "unclean");
	set(_metadata, self->ino, "fill", "error");
	dmm_guest_run(self->guest, 0, DMM_OP_PEEK, DMM_GPA, 1, 0);
	dmm_guest_free(self->guest);
	self->guest = NULL;
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->ino));
}

TEST_HARNESS_MAIN
