// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every allocation fails once: a clear error, and all is as it was.
 *
 * Needs a kernel with fault injection, as the debug kernel has.
 */
#include <sys/stat.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define DEBUGFS		"/sys/kernel/debug/"

static const struct {
	const char *path, *value;
} knobs[] = {
	{ DEBUGFS "failslab/ignore-gfp-wait", "N" },
	{ DEBUGFS "failslab/verbose", "0" },
	{ DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N" },
	{ DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N" },
	{ DEBUGFS "fail_page_alloc/min-order", "0" },
	{ DEBUGFS "fail_page_alloc/verbose", "0" },
	{ DEBUGFS "fail_usercopy/verbose", "0" },
};

FIXTURE(nomem) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(nomem)
{
	unsigned int i;

	if (access(FAIL_NTH, W_OK) || access(DEBUGFS "failslab", F_OK) ||
	    access(DEBUGFS "fail_page_alloc", F_OK))
		SKIP(return, "kernel without fault injection");

	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		/* The kernel may lack failures of copies. */
		if (access(knobs[i].path, F_OK))
			continue;
		ASSERT_EQ(0, dmm_write_file(knobs[i].path, knobs[i].value,
					    strlen(knobs[i].value)));
	}
	self->mem = dmm_mem_create_exact(SIZE);
	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(nomem)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
}

static void arm(int fd, int n)
{
	char buf[16];

	snprintf(buf, sizeof(buf), "%d", n);
	TEST_ASSERT(pwrite(fd, buf, strlen(buf), 0) > 0, "cannot arm");
}

/*
 * Disarm and tell whether nothing had failed.  Copies from and to user space
 * can be made to fail, too, also those right here: then nothing had.
 */
static bool disarm(int fd)
{
	char buf[16] = {};
	ssize_t n;

	n = pread(fd, buf, sizeof(buf) - 1, 0);
	TEST_ASSERT(n > 0 || errno == EFAULT, "cannot read fail-nth");
	if (n <= 0)
		return true;
	n = pwrite(fd, "0", 1, 0);
	TEST_ASSERT(n > 0 || errno == EFAULT, "cannot disarm");
	return atoi(buf) > 0;
}

/*
 * Run @call with the first allocation failing, then the second, and so on until
 * none is left to fail.  @undo makes what succeeded undone.
 */
#define FOR_EACH_FAILURE(call, undo) do {				\
	int nth__, fd__ = open(FAIL_NTH, O_RDWR), ret__ = 0;		\
	bool done__ = false;						\
	int failed__ = 0;						\
									\
	ASSERT_GE(fd__, 0);						\
	for (nth__ = 1; nth__ < 5000 && !done__; nth__++) {		\
		arm(fd__, nth__);					\
		ret__ = (call);						\
		done__ = disarm(fd__);					\
		if (!ret__) {						\
			undo;						\
			continue;					\
		}							\
		failed__++;						\
		EXPECT_TRUE(ret__ == -ENOMEM || ret__ == -EFAULT ||	\
			    ret__ == -ENOSPC || ret__ == -EAGAIN ||	\
			    ret__ == -EBUSY) {				\
			TH_LOG("failure %d: %d", nth__, ret__);		\
		}							\
	}								\
	close(fd__);							\
	EXPECT_TRUE(done__);						\
	EXPECT_EQ(0, ret__);						\
	TH_LOG("%d points of failure, %d of them mattered", nth__ - 2,	\
	       failed__);						\
} while (0)

static unsigned long last_ino;

static int create_file(void)
{
	char path[128];
	struct stat st;
	int fd, r = 0;

	snprintf(path, sizeof(path), "%s/nomem-%d", dmm_dir(), getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, SIZE))
		r = -errno;
	fstat(fd, &st);
	last_ino = st.st_ino;
	/* Without memory even this may fail, but not twice. */
	if (unlink(path) && unlink(path))
		r = -EIO;
	close(fd);
	return r;
}

DMM_TEST(nomem, create)
{
	FOR_EACH_FAILURE(create_file(), (void)0);
	EXPECT_TRUE(dmm_pool_gone(last_ino));
}

static int pwrite_pages(int fd, const void *buf)
{
	ssize_t n = pwrite(fd, buf, 8 * DMM_PAGE, 508 * DMM_PAGE);

	if (n < 0)
		return -errno;
	return n == 8 * DMM_PAGE ? 0 : -ENOSPC;
}

DMM_TEST(nomem, host_writes)
{
	void *buf = malloc(8 * DMM_PAGE);

	ASSERT_NE(NULL, buf);
	dmm_fill(buf, 508, 8, 1);
	FOR_EACH_FAILURE(pwrite_pages(self->mem.fd, buf),
			 fallocate(self->mem.fd, PUNCH, 0, SIZE));
	ASSERT_EQ(0, pwrite_pages(self->mem.fd, buf));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA + 508 * DMM_PAGE,
					 8, 1));
	EXPECT_EQ(8 * DMM_PAGE, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

/* Only KVM_RUN is to fail, not what the library does with its result. */
static int guest_fill(struct dmm_guest *guest)
{
	return dmm_guest_run_once(guest, 0, DMM_OP_FILL,
				  DMM_GPA + 508 * DMM_PAGE, 8, 1);
}

/* A vCPU that failed goes on where it was. */
DMM_TEST(nomem, guest_writes)
{
	FOR_EACH_FAILURE(guest_fill(self->guest),
			 (dmm_guest_continue(self->guest, 0),
			  fallocate(self->mem.fd, PUNCH, 0, SIZE)));
	ASSERT_EQ(0, guest_fill(self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + 508 * DMM_PAGE, 508, 8, 1));
	EXPECT_EQ(8 * DMM_PAGE, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

static int bind_slot(struct dmm_guest *guest, void *hva)
{
	return dmm_guest_try_slot(guest, DMM_SLOT + 1, 0,
				  DMM_GPA + (1UL << 30), SIZE, hva);
}

DMM_TEST(nomem, bind_slot)
{
	FOR_EACH_FAILURE(bind_slot(self->guest, self->mem.hva),
			 dmm_guest_del_slot(self->guest, DMM_SLOT + 1));
}

static int allocate(int fd)
{
	return fallocate(fd, 0, 0, SIZE) ? -errno : 0;
}

DMM_TEST(nomem, fallocate)
{
	FOR_EACH_FAILURE(allocate(self->mem.fd),
			 fallocate(self->mem.fd, PUNCH, 0, SIZE));
	ASSERT_EQ(0, allocate(self->mem.fd));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
}

DMM_TEST(nomem, attach)
{
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no test policies");
	FOR_EACH_FAILURE(dmm_pool_set(ino, "policies", "+test-token"),
			 dmm_pool_set(ino, "policies", "-test-token"));
}

/* Content is with the policy: with no memory it stays there. */
DMM_TEST(nomem, tokens)
{
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no test policies");
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	dmm_guest_fill(self->guest, DMM_GPA, 16, 1);
	/* The policy may be thrown out for want of memory: that loses nothing. */
	FOR_EACH_FAILURE(dmm_pool_set_bytes(ino, "reclaim", 16 * DMM_PAGE),
			 dmm_bad_pages(self->mem.hva, 0, 16, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 16, 1));

	dmm_pool_set(ino, "policies", "+test-token");
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", 16 * DMM_PAGE));
	FOR_EACH_FAILURE(dmm_pool_set(ino, "policies", "-test-token"),
			 (dmm_pool_set(ino, "policies", "+test-token"),
			  dmm_pool_set_bytes(ino, "reclaim", 16 * DMM_PAGE)));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 16, 1));
}

TEST_HARNESS_MAIN
