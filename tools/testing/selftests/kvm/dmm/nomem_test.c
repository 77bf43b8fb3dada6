// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every allocation fails once: a clear error, and all is as it was.
 *
 * Needs a kernel with fault injection, as the debug kernel has.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
/* Pages of two regions. */
#define FIRST	508
#define NR	8
#define GPA	(DMM_GPA + FIRST * DMM_PAGE)
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

static uint64_t bad_pages(struct dmm_mem *mem, uint64_t seed)
{
	return dmm_bad_pages(mem->hva + FIRST * DMM_PAGE, FIRST, NR, seed);
}

static void fill_pages(struct dmm_mem *mem, uint64_t seed)
{
	dmm_fill(mem->hva + FIRST * DMM_PAGE, FIRST, NR, seed);
}

static int pwrite_pages(int fd, const void *buf)
{
	ssize_t n = pwrite(fd, buf, NR * DMM_PAGE, FIRST * DMM_PAGE);

	if (n < 0)
		return -errno;
	return n == NR * DMM_PAGE ? 0 : -ENOSPC;
}

DMM_TEST(nomem, host_writes)
{
	void *buf = malloc(NR * DMM_PAGE);

	ASSERT_NE(NULL, buf);
	dmm_fill(buf, FIRST, NR, 1);
	FOR_EACH_FAILURE(pwrite_pages(self->mem.fd, buf),
			 fallocate(self->mem.fd, PUNCH, 0, SIZE));
	ASSERT_EQ(0, pwrite_pages(self->mem.fd, buf));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, GPA, NR, 1));
	EXPECT_EQ(NR * DMM_PAGE, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

/* Only KVM_RUN is to fail, not what the library does with its result. */
static int guest_fill(struct dmm_guest *guest)
{
	return dmm_guest_run_once(guest, 0, DMM_OP_FILL, GPA, NR, 1);
}

/* A vCPU that failed goes on where it was. */
DMM_TEST(nomem, guest_writes)
{
	FOR_EACH_FAILURE(guest_fill(self->guest),
			 (dmm_guest_continue(self->guest, 0),
			  fallocate(self->mem.fd, PUNCH, 0, SIZE)));
	ASSERT_EQ(0, guest_fill(self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, bad_pages(&self->mem, 1));
	EXPECT_EQ(NR * DMM_PAGE, dmm_pool_get(self->mem.ino, "resident_bytes"));
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

static int guest_check(struct dmm_guest *guest, uint64_t seed)
{
	return dmm_guest_run_once(guest, 0, DMM_OP_CHECK, GPA, NR, seed);
}

/* What cannot be stored stays, what cannot come back stays stored. */
DMM_TEST(nomem, swap)
{
	const uint64_t seed = DMM_MIXED | 1;
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+swap"));
	fill_pages(&self->mem, seed);
	FOR_EACH_FAILURE(dmm_pool_set_bytes(ino, "reclaim", NR * DMM_PAGE),
			 fill_pages(&self->mem, seed));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", NR * DMM_PAGE));
	FOR_EACH_FAILURE(guest_check(self->guest, seed),
			 (dmm_guest_continue(self->guest, 0),
			  dmm_pool_set_bytes(ino, "reclaim", NR * DMM_PAGE)));
	EXPECT_TRUE(dmm_pool_ok(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, GPA, NR, seed));
}

static int clone_file(struct dmm_mem *to, struct dmm_mem *from)
{
	return ioctl(to->fd, FICLONE, from->fd) ? -errno : 0;
}

/* Frames, tokens and what is shared already; then a write to what is shared. */
DMM_TEST(nomem, clone)
{
	const uint64_t seed = DMM_MIXED | 1;
	struct dmm_mem copy;

	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	copy = dmm_mem_create_exact(SIZE);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+swap"));
	ASSERT_EQ(0, dmm_pool_set_bytes(copy.ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(copy.ino, "policies", "+swap"));
	fill_pages(&self->mem, seed);
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, FIRST * DMM_PAGE,
				   NR / 2 * DMM_PAGE, POSIX_FADV_DONTNEED));
	FOR_EACH_FAILURE(clone_file(&copy, &self->mem),
			 fallocate(copy.fd, PUNCH, 0, SIZE));
	ASSERT_EQ(0, clone_file(&copy, &self->mem));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(dmm_pool_ok(copy.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, GPA, NR, seed));
	EXPECT_EQ(0, bad_pages(&copy, seed));

	FOR_EACH_FAILURE(guest_fill(self->guest),
			 (dmm_guest_continue(self->guest, 0),
			  clone_file(&self->mem, &copy)));
	ASSERT_EQ(0, guest_fill(self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, bad_pages(&self->mem, 1));
	EXPECT_EQ(0, bad_pages(&copy, seed));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(dmm_pool_ok(copy.ino));
	dmm_mem_free(&copy);
}

static int merge(unsigned long ino)
{
	char value[64];

	snprintf(value, sizeof(value), "%u %u", FIRST, FIRST + NR - 1);
	return dmm_pool_set(ino, "test-share/merge", value);
}

DMM_TEST(nomem, merge)
{
	void *last = self->mem.hva + (FIRST + NR - 1) * DMM_PAGE;
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no policy test-share");
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-share"));
	fill_pages(&self->mem, 1);
	dmm_fill(last, FIRST, 1, 1);
	FOR_EACH_FAILURE(merge(ino), (fill_pages(&self->mem, 1),
				      dmm_fill(last, FIRST, 1, 1)));
	ASSERT_EQ(0, merge(ino));
	EXPECT_NE(0, dmm_pool_get(ino, "shared_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(last, FIRST, 1, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, GPA, NR - 1, 1));
	EXPECT_TRUE(dmm_pool_ok(ino));
}

static void forget_image(struct dmm_mem *mem)
{
	fallocate(mem->fd, PUNCH, 0, SIZE);
	TEST_ASSERT(!dmm_pool_set(mem->ino, "restore/image", "\n"),
		    "The image is still in use");
}

/* The image is a file in which little is no hole. */
DMM_TEST(nomem, restore)
{
	char path[] = "/tmp/nomem-XXXXXX";
	unsigned long ino = self->mem.ino;
	void *buf;
	int fd;

	if (!dmm_policy_loaded("restore"))
		SKIP(return, "no policy restore");
	buf = malloc(NR * DMM_PAGE);
	fd = mkstemp(path);
	ASSERT_NE(NULL, buf);
	ASSERT_GE(fd, 0);
	dmm_fill(buf, FIRST, NR, 1);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	ASSERT_EQ(0, pwrite_pages(fd, buf));
	free(buf);
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+restore"));
	ASSERT_EQ(0, dmm_pool_set(ino, "restore/rate_bytes", "0"));

	FOR_EACH_FAILURE(dmm_pool_set(ino, "restore/image", path),
			 forget_image(&self->mem));
	ASSERT_EQ(0, dmm_pool_set(ino, "restore/image", path));
	FOR_EACH_FAILURE(guest_check(self->guest, 1),
			 (dmm_guest_continue(self->guest, 0),
			  forget_image(&self->mem),
			  dmm_pool_set(ino, "restore/image", path)));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, GPA, NR, 1));
	EXPECT_TRUE(dmm_pool_ok(ino));
	close(fd);
	unlink(path);
}

TEST_HARNESS_MAIN
