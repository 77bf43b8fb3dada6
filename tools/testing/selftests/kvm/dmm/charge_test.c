// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who pays for a pool's memory: the control group that faults, and, when the
 * host is short, the pool above what it is guaranteed.
 */
#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define ROOT	"/sys/fs/cgroup"
#define GROUP	ROOT "/dmm-charge-test"

FIXTURE(charge) {
	struct dmm_mem mem;
};

FIXTURE_SETUP(charge)
{
	self->mem = dmm_mem_create(SIZE);
}

FIXTURE_TEARDOWN(charge)
{
	dmm_mem_free(&self->mem);
	rmdir(GROUP);
}

static int write_string(const char *path, const char *value)
{
	return dmm_write_file(path, value, strlen(value));
}

static bool make_group(void)
{
	write_string(ROOT "/cgroup.subtree_control", "+memory");
	return (!mkdir(GROUP, 0755) || errno == EEXIST) &&
	       !access(GROUP "/memory.current", R_OK);
}

static long group_current(void)
{
	FILE *f = fopen(GROUP "/memory.current", "r");
	long n = -1;

	if (f) {
		if (fscanf(f, "%ld", &n) != 1)
			n = -1;
		fclose(f);
	}
	return n;
}

/* Move a child into the group, have it write all of the memory, and exit. */
static pid_t write_in_group(void *hva, uint64_t seed)
{
	char pid[16];
	pid_t child = fork();

	if (child)
		return child;
	/* A core dump would take memory of the group, which has none left. */
	prctl(PR_SET_DUMPABLE, 0);
	snprintf(pid, sizeof(pid), "%d", getpid());
	if (write_string(GROUP "/cgroup.procs", pid))
		_exit(1);
	dmm_fill(hva, 0, PAGES, seed);
	_exit(0);
}

DMM_TEST(charge, group_that_faults)
{
	int status;

	if (!make_group())
		SKIP(return, "no memory control groups");
	ASSERT_EQ(0, write_string(GROUP "/memory.max", "max"));

	ASSERT_EQ(0, waitpid(write_in_group(self->mem.hva, 1), &status, 0) < 0);
	ASSERT_TRUE(WIFEXITED(status) && !WEXITSTATUS(status));
	EXPECT_LE(SIZE, group_current());
	/* Pages that came with others are paid for like these. */
	EXPECT_LT(0, dmm_pool_get(self->mem.ino, "stats/fill_around"));

	/* The charge ends with the memory, not with the process. */
	ASSERT_EQ(0, fallocate(self->mem.fd, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, 0, SIZE));
	EXPECT_GT(SIZE / 8, group_current());
}

/* A group at its limit: the access fails, nobody is killed for it. */
DMM_TEST(charge, group_at_limit)
{
	int status;

	if (!make_group())
		SKIP(return, "no memory control groups");
	ASSERT_EQ(0, write_string(GROUP "/memory.max", "4M"));

	ASSERT_EQ(0, waitpid(write_in_group(self->mem.hva, 1), &status, 0) < 0);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) {
		TH_LOG("status %#x", status);
	}
	EXPECT_GE(4UL << 20, group_current());
}

/* All of the memory fits into a group that has less, as pages are taken out. */
static void fits_into(struct __test_metadata *_metadata,
		      FIXTURE_DATA(charge) *self, const char *max, uint64_t seed)
{
	int status;

	ASSERT_EQ(0, write_string(GROUP "/memory.max", max));
	ASSERT_EQ(0, waitpid(write_in_group(self->mem.hva, seed), &status, 0) < 0);
	EXPECT_TRUE(WIFEXITED(status) && !WEXITSTATUS(status)) {
		TH_LOG("status %#x", status);
	}
	ASSERT_EQ(0, write_string(GROUP "/memory.max", "max"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, seed));
}

/* The same with a policy that takes pages out. */
DMM_TEST(charge, group_at_limit_with_policy)
{
	if (!make_group())
		SKIP(return, "no memory control groups");
	if (dmm_pool_set(self->mem.ino, "policies", "+test-token"))
		SKIP(return, "no test policies");
	fits_into(_metadata, self, "6M", 1);
}

/* Nor does the policy take memory of the group for what it needs to know. */
DMM_TEST(charge, group_at_limit_with_swap)
{
	if (!make_group())
		SKIP(return, "no memory control groups");
	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+swap"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "demand/fault_around_bytes",
				  "4K"));
	fits_into(_metadata, self, "4M", DMM_HALF | 1);
}

/* And what a backing has to write first is waited for. */
DMM_TEST(charge, group_at_limit_with_backing)
{
	char path[] = "/tmp/charge-XXXXXX";
	int fd;

	if (!make_group())
		SKIP(return, "no memory control groups");
	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	fd = mkstemp(path);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+swap"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "swap/backing", path));
	fits_into(_metadata, self, "4M", 1);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-swap"));
	close(fd);
	unlink(path);
}

/*
 * Nor is anybody killed where it is the page cache of an image that has no room.
 * Which of the two has none depends on what is there, so try several sizes.
 */
DMM_TEST(charge, group_at_limit_with_image)
{
	char path[] = "/tmp/charge-XXXXXX", max[16];
	int fd, status, i;

	if (!make_group())
		SKIP(return, "no memory control groups");
	if (!dmm_policy_loaded("restore"))
		SKIP(return, "no policy restore");
	fd = mkstemp(path);
	ASSERT_LE(0, fd);
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	for (i = 0; i < 8; i++) {
		struct dmm_mem mem = dmm_mem_create(SIZE);

		snprintf(max, sizeof(max), "%dK", 4096 + 68 * i);
		ASSERT_EQ(0, write_string(GROUP "/memory.max", max));
		ASSERT_EQ(SIZE, pwrite(fd, self->mem.hva, SIZE, 0));
		ASSERT_EQ(0, dmm_pool_set(mem.ino, "policies", "+restore"));
		ASSERT_EQ(0, dmm_pool_set(mem.ino, "restore/rate_bytes", "0"));
		ASSERT_EQ(0, dmm_pool_set(mem.ino, "restore/image", path));
		/* As if it were on a device, from which it is yet to be read. */
		ASSERT_EQ(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, 0, SIZE));
		ASSERT_EQ(0, waitpid(write_in_group(mem.hva, 1), &status, 0) < 0);
		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) {
			TH_LOG("%s: status %#x", max, status);
		}
		ASSERT_EQ(0, write_string(GROUP "/memory.max", "max"));
		dmm_mem_free(&mem);
	}
	close(fd);
	unlink(path);
}

/*
 * The map takes memory, too, a page for each 2 MiB that are touched, and gives
 * none back: the group's limit ends that with an error.  Not just once: so it is
 * the map that finds no room, not only what is in it.
 */
DMM_TEST(charge, map_at_limit)
{
	struct dmm_mem mem = dmm_mem_create_exact(DMM_PAGE);
	const uint64_t blocks = 4096;
	char pid[16];
	int status, failed = 0;
	pid_t child;
	uint64_t i;

	if (!make_group())
		SKIP(return, "no memory control groups");
	ASSERT_EQ(0, write_string(GROUP "/memory.max", "4M"));
	ASSERT_EQ(0, ftruncate(mem.fd, blocks * DMM_BLOCK));
	child = fork();
	if (!child) {
		snprintf(pid, sizeof(pid), "%d", getpid());
		if (write_string(GROUP "/cgroup.procs", pid))
			_exit(1);
		for (i = 0; i < blocks && failed < 8; i++) {
			if (pwrite(mem.fd, "", 1, i * DMM_BLOCK) == 1)
				continue;
			if (errno != ENOSPC || !i)
				_exit(2);
			failed++;
		}
		_exit(failed < 8 ? 3 : 0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	dmm_mem_free(&mem);
}

/* What a worker gets for a guest is paid for by the VMM's group. */
DMM_TEST(charge, group_of_guest)
{
	unsigned long ino = self->mem.ino;
	struct dmm_guest *guest;
	char pid[16];

	if (!make_group())
		SKIP(return, "no memory control groups");
	if (dmm_pool_set(ino, "policies", "+test-token"))
		SKIP(return, "no test policies");
	ASSERT_EQ(0, write_string(GROUP "/memory.max", "max"));
	guest = dmm_guest_create(1);
	dmm_guest_add_mem(guest, &self->mem);
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	/* Waits for each page, which so is left to a worker. */
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/slow", "1"));

	snprintf(pid, sizeof(pid), "%d", getpid());
	ASSERT_EQ(0, write_string(GROUP "/cgroup.procs", pid));
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	EXPECT_LT(PAGES / 2, dmm_pool_get(ino, "stats/fetch"));
	EXPECT_LE(SIZE, group_current());
	EXPECT_EQ(0, write_string(ROOT "/cgroup.procs", pid));
	dmm_guest_free(guest);
}

/* The host's shrinkers run: pools give, down to their guarantee. */
DMM_TEST(charge, host_pressure)
{
	const uint64_t min = 2UL << 20;
	uint64_t left;

	if (dmm_pool_set(self->mem.ino, "policies", "+test-token"))
		SKIP(return, "no test policies");
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "min_bytes", min));
	ASSERT_EQ(0, write_string("/proc/sys/vm/drop_caches", "2"));

	left = dmm_pool_get(self->mem.ino, "resident_bytes");
	EXPECT_GT(SIZE, left);
	EXPECT_LE(min, left);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* Without a policy that can take anything out there is nothing to give. */
DMM_TEST(charge, host_pressure_without_policy)
{
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, write_string("/proc/sys/vm/drop_caches", "2"));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/*
 * What an allocation waits for is bounded, however large the guest and however hard
 * to store what it has: here nothing goes, so that all would be looked at, round
 * after round.
 */
DMM_TEST(charge, host_pressure_looks_at_some)
{
	const uint64_t blocks = 6144, some = 4096;
	struct dmm_mem mem = dmm_mem_create_exact(DMM_PAGE);
	uint64_t i, visits, tried = 0;
	int calls;

	if (dmm_pool_set(mem.ino, "policies", "+swap"))
		SKIP(return, "no policy swap");
	/* What else there is to give goes before. */
	ASSERT_EQ(0, write_string("/proc/sys/vm/drop_caches", "2"));
	ASSERT_EQ(0, ftruncate(mem.fd, blocks * DMM_BLOCK));
	/* Of the content of a page, which does not compress. */
	dmm_fill(self->mem.hva, 0, 1, 1);
	for (i = 0; i < blocks; i++)
		ASSERT_EQ(DMM_PAGE, pwrite(mem.fd, self->mem.hva, DMM_PAGE,
					   i * DMM_BLOCK));
	for (calls = 0; calls < 4 && tried < blocks; calls++) {
		/* So long that it is not believed to be the same shortage. */
		usleep(1500000);
		visits = dmm_pool_get(mem.ino, "swap/stats/visit");
		ASSERT_EQ(0, write_string("/proc/sys/vm/drop_caches", "2"));
		visits = dmm_pool_get(mem.ino, "swap/stats/visit") - visits;
		/*
		 * It asks again as long as others give something, and twice as many
		 * are looked at each time: 1, 1 + 2, 1 + 2 + 4, ...
		 */
		EXPECT_LT(0, visits);
		EXPECT_EQ(0, visits % some);
		EXPECT_EQ(0, (visits / some) & (visits / some + 1)) {
			TH_LOG("%lu regions", visits);
		}
		tried = dmm_pool_get(mem.ino, "swap/stats/reject_incompressible");
	}
	/* But the hand goes on: all have been tried. */
	EXPECT_EQ(blocks, tried);
	EXPECT_EQ(blocks * DMM_PAGE, dmm_pool_get(mem.ino, "resident_bytes"));
	dmm_mem_free(&mem);
}

/*
 * Nor is memory of a group nobody's when its content moves to be shared.  To have
 * pages to choose from takes 4 MiB; with @room for less, fewer have to do.
 */
static void move_in_group(struct __test_metadata *_metadata,
			  FIXTURE_DATA(charge) *self, unsigned long room)
{
	char max[24] = "max";
	int status, tries;

	if (!make_group())
		SKIP(return, "no control groups for memory");
	if (dmm_pool_set(self->mem.ino, "policies", "+share"))
		SKIP(return, "no policy share");
	ASSERT_EQ(0, write_string(GROUP "/memory.max", max));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/timing_safe", "1"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/full_scan_seconds", "0"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/break_blocks", "always"));
	waitpid(write_in_group(self->mem.hva, 1), &status, 0);
	ASSERT_EQ(0, status);
	if (room)
		snprintf(max, sizeof(max), "%lu", group_current() + room);
	ASSERT_EQ(0, write_string(GROUP "/memory.max", max));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	for (tries = 0; tries < 600; tries++) {
		if (dmm_pool_get(self->mem.ino, "shared_bytes") == SIZE)
			break;
		usleep(100000);
	}
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "shared_bytes"));
	EXPECT_LE((long)SIZE, group_current());
	ASSERT_EQ(0, write_string(GROUP "/memory.max", "max"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

DMM_TEST(charge, group_of_moved_frames)
{
	move_in_group(_metadata, self, 0);
}

DMM_TEST(charge, group_of_moved_frames_at_limit)
{
	move_in_group(_metadata, self, 3UL << 20);
}

/*
 * What is equal to a page of another pool, who must not find out: so the domain
 * comes last, or a pass that is on its way shares before it knows.
 */
static bool share_safely(unsigned long ino)
{
	return !dmm_pool_set(ino, "policies", "+share") &&
	       !dmm_pool_set(ino, "share/timing_safe", "1") &&
	       !dmm_pool_set(ino, "domain", "charge") &&
	       !dmm_pool_set(ino, "share/full_scan_seconds", "0") &&
	       !dmm_pool_set(ino, "share/break_blocks", "always");
}

/*
 * A group without room for pages to choose from shares nothing: nor what others
 * have already, by which a write would tell that they have it.
 */
DMM_TEST(charge, full_group_shares_nothing)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned long ino = self->mem.ino;
	int status, tries;
	char max[24];

	if (!make_group())
		SKIP(return, "no control groups for memory");
	if (!share_safely(other.ino))
		SKIP(return, "no policy share");
	dmm_fill(other.hva, 0, PAGES, 1);
	for (tries = 0; tries < 600; tries++) {
		if (dmm_pool_get(other.ino, "shared_bytes") == SIZE)
			break;
		usleep(100000);
	}
	ASSERT_NE(600, tries);

	ASSERT_EQ(0, write_string(GROUP "/memory.max", "max"));
	waitpid(write_in_group(self->mem.hva, 1), &status, 0);
	ASSERT_EQ(0, status);
	snprintf(max, sizeof(max), "%lu", group_current() + (64UL << 10));
	ASSERT_EQ(0, write_string(GROUP "/memory.max", max));
	ASSERT_TRUE(share_safely(ino));
	for (tries = 0; tries < 600; tries++) {
		if (dmm_pool_get(ino, "shared_bytes") ||
		    dmm_pool_get(ino, "share/stats/reject_memory") > PAGES)
			break;
		usleep(100000);
	}
	EXPECT_NE(600, tries);
	EXPECT_EQ(0, dmm_pool_get(ino, "shared_bytes"));
	/* And does when there is room. */
	ASSERT_EQ(0, write_string(GROUP "/memory.max", "max"));
	for (tries = 0; tries < 600; tries++) {
		if (dmm_pool_get(ino, "shared_bytes") == SIZE)
			break;
		usleep(100000);
	}
	EXPECT_EQ(SIZE, dmm_pool_get(ino, "shared_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	dmm_mem_free(&other);
}

/* Copies of shared frames are charged as frames are. */
DMM_TEST(charge, group_that_copies)
{
	struct dmm_mem copy = dmm_mem_create_exact(SIZE);
	int status;

	if (!make_group())
		SKIP(return, "no control groups for memory");
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, ioctl(copy.fd, FICLONE, self->mem.fd));
	waitpid(write_in_group(copy.hva, 2), &status, 0);
	ASSERT_EQ(0, status);
	EXPECT_LE((long)SIZE, group_current());
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 2));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	dmm_mem_free(&copy);
}

TEST_HARNESS_MAIN
