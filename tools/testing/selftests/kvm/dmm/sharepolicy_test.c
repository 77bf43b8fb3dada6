// SPDX-License-Identifier: GPL-2.0-only
/*
 * The share policy: equal pages become one page, and stay what they are.
 */
#include <dirent.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define WORDS	(DMM_PAGE / 8)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(sharing) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

static void share_on(struct dmm_mem *mem)
{
	TEST_ASSERT(!dmm_pool_set(mem->ino, "policies", "+share"),
		    "The share policy cannot be attached");
	dmm_pool_set(mem->ino, "share/full_scan_seconds", "0");
	dmm_pool_set(mem->ino, "share/max_cpu_percent", "100");
}

#define FOR_ALL	"/sys/kernel/kvm_dmm/policies/share/"

static int for_all(const char *file, const char *value)
{
	char path[96];

	snprintf(path, sizeof(path), FOR_ALL "%s", file);
	return dmm_write_file(path, value, strlen(value));
}

FIXTURE_SETUP(sharing)
{
	if (!dmm_policy_loaded("share"))
		SKIP(return, "no policy share");
	for_all("run", "default");
	for_all("pages_per_second", "default");
	self->mem = dmm_mem_create_exact(SIZE);
	share_on(&self->mem);
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(sharing)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t resident(struct dmm_mem *mem)
{
	return dmm_pool_get(mem->ino, "resident_bytes");
}

static uint64_t shared(struct dmm_mem *mem)
{
	return dmm_pool_get(mem->ino, "shared_bytes");
}

static uint64_t count(struct dmm_mem *mem, const char *name)
{
	char file[64];

	snprintf(file, sizeof(file), "share/stats/%s", name);
	return dmm_pool_get(mem->ino, file);
}

static uint64_t *page(struct dmm_mem *mem, uint64_t index)
{
	return mem->hva + index * DMM_PAGE;
}

/* Let @n whole passes begin and end. */
static void passes(struct dmm_mem *mem, unsigned int n)
{
	uint64_t until = count(mem, "passes") + n + 1;
	int tries;

	for (tries = 0; tries < 30000; tries++) {
		if (count(mem, "passes") >= until)
			return;
		usleep(10000);
	}
	TEST_FAIL("The share policy makes no passes");
}

/* @n pages with one of @kinds contents each. */
static void same_content(struct dmm_mem *mem, uint64_t first, uint64_t n,
			 uint64_t kinds)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		dmm_fill(page(mem, first + i), i % kinds, 1, 1);
}

static uint64_t bad_content(struct dmm_mem *mem, uint64_t first, uint64_t n,
			    uint64_t kinds)
{
	uint64_t i, bad = 0;

	for (i = 0; i < n; i++)
		bad += dmm_bad_pages(page(mem, first + i), i % kinds, 1, 1);
	return bad;
}

/* What the worker of a pool has taken of a CPU; less than 0: unknown. */
static long long worker_us(struct dmm_mem *mem)
{
	char path[288], name[32], comm[32];
	unsigned long long ns;
	struct dirent *d;
	long long r = -1;
	DIR *proc;
	FILE *f;

	proc = opendir("/proc");
	TEST_ASSERT(proc, "No /proc");
	snprintf(name, sizeof(name), "dmm-share/%lu", mem->ino);
	while ((d = readdir(proc))) {
		snprintf(path, sizeof(path), "/proc/%s/comm", d->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fscanf(f, "%31s", comm) != 1)
			comm[0] = 0;
		fclose(f);
		if (strcmp(comm, name))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/schedstat", d->d_name);
		f = fopen(path, "r");
		if (f && fscanf(f, "%llu", &ns) == 1)
			r = ns / 1000;
		if (f)
			fclose(f);
	}
	closedir(proc);
	return r;
}

/* How long the first pass over new pages takes with a tunable, and of a CPU. */
static uint64_t first_pass(const char *tunable, const char *value,
			   long long *cpu_us)
{
	struct dmm_mem mem = dmm_mem_create_exact(SIZE);
	uint64_t begin, passed = 0;
	int tries;

	share_on(&mem);
	TEST_ASSERT(!dmm_pool_set(mem.ino, "share/run", "0") &&
		    !dmm_pool_set(mem.ino, tunable, value), "Cannot tune");
	dmm_fill(mem.hva, 0, PAGES, 1);
	begin = dmm_now_ms();
	dmm_pool_set(mem.ino, "share/run", "1");
	for (tries = 0; tries < 30000 && !passed; tries++) {
		usleep(10000);
		if (count(&mem, "hashed") >= PAGES)
			passed = dmm_now_ms() - begin;
	}
	*cpu_us = worker_us(&mem);
	dmm_mem_free(&mem);
	TEST_ASSERT(passed, "The share policy does not look at all pages");
	return passed;
}

/* Have a pipe hold a page. */
static void hold_page(struct dmm_mem *mem, uint64_t index, int fds[2])
{
	struct iovec iov = { page(mem, index), DMM_PAGE };

	TEST_ASSERT(!pipe(fds) &&
		    vmsplice(fds[1], &iov, 1, 0) == DMM_PAGE,
		    "A page cannot be put into a pipe");
}

static void release_page(int fds[2])
{
	char buf[DMM_PAGE];

	TEST_ASSERT(read(fds[0], buf, DMM_PAGE) == DMM_PAGE,
		    "A page does not come out of its pipe");
	close(fds[0]);
	close(fds[1]);
}

/* Equal pages in one pool; what differs stays alone. */
DMM_TEST(sharing, one_pool)
{
	/* Pages that are half written may be equal, too: look afterwards. */
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	same_content(&self->mem, 0, 1000, 10);
	dmm_fill(page(&self->mem, 1000), 1000, 100, 2);
	memset(page(&self->mem, 1100), 0, 50 * DMM_PAGE);
	dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	EXPECT_EQ(110 * DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(1000 * DMM_PAGE, shared(&self->mem));
	EXPECT_EQ(990, count(&self->mem, "merged"));
	EXPECT_EQ(50, count(&self->mem, "zero"));
	EXPECT_EQ(0, bad_content(&self->mem, 0, 1000, 10));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 1000), 1000, 100, 2));
	EXPECT_EQ(1100, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(*page(&self->mem, 3),
		  dmm_guest_peek(self->guest, DMM_GPA + 993 * DMM_PAGE));
}

/* What has been hashed is not looked at again until it is written. */
DMM_TEST(sharing, looks_once)
{
	uint64_t hashed;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	passes(&self->mem, 1);
	hashed = count(&self->mem, "hashed");
	EXPECT_LE(PAGES, hashed);
	passes(&self->mem, 3);
	EXPECT_EQ(hashed, count(&self->mem, "hashed"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	passes(&self->mem, 1);
	EXPECT_EQ(hashed, count(&self->mem, "hashed"));

	/* Written by the guest and by the host. */
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	dmm_guest_fill(self->guest, DMM_GPA, 5, 2);
	dmm_fill(page(&self->mem, 700), 700, 5, 2);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 16);
	EXPECT_EQ(hashed + 10, count(&self->mem, "hashed"));
	EXPECT_EQ(0, shared(&self->mem));
}

/* Guests and hosts write to what was merged. */
DMM_TEST(sharing, writes)
{
	uint64_t value = 9, i;

	same_content(&self->mem, 0, 900, 1);
	passes(&self->mem, 2);
	EXPECT_EQ(DMM_PAGE, resident(&self->mem));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	dmm_guest_fill(self->guest, DMM_GPA, 300, 2);
	dmm_fill(page(&self->mem, 300), 300, 300, 2);
	ASSERT_EQ(8, pwrite(self->mem.fd, &value, 8, 600 * DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, 0), 0, 600, 2));
	EXPECT_EQ(9, *page(&self->mem, 600));
	EXPECT_EQ(0, bad_content(&self->mem, 601, 299, 1));
	EXPECT_EQ(602 * DMM_PAGE, resident(&self->mem));

	/* And are found again. */
	for (i = 0; i < 601; i++)
		memcpy(page(&self->mem, i), page(&self->mem, 700), DMM_PAGE);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 6);
	EXPECT_EQ(DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, 900, 1));
}

/* Only pools of one domain, and no longer than they are in it. */
DMM_TEST(sharing, domains)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);

	share_on(&other);
	same_content(&self->mem, 0, 600, 600);
	same_content(&other, 100, 600, 600);
	passes(&self->mem, 2);
	passes(&other, 2);
	EXPECT_EQ(0, shared(&self->mem));
	EXPECT_EQ(0, shared(&other));

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "one"));
	passes(&self->mem, 2);
	passes(&other, 2);
	EXPECT_EQ(600 * DMM_PAGE, resident(&self->mem) + resident(&other));
	EXPECT_EQ(600 * DMM_PAGE, shared(&other));
	EXPECT_EQ(0, bad_content(&self->mem, 0, 600, 600));
	EXPECT_EQ(0, bad_content(&other, 100, 600, 600));

	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "two"));
	passes(&other, 2);
	EXPECT_EQ(0, shared(&other));
	EXPECT_EQ(600 * DMM_PAGE, resident(&other));
	EXPECT_EQ(600 * DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(0, bad_content(&other, 100, 600, 600));
	dmm_mem_free(&other);
}

/*
 * What became one before two pools came into one domain becomes one with what the
 * other has, which it has @each times.
 */
static void domain_later(struct __test_metadata *_metadata,
			 FIXTURE_DATA(sharing) *self, unsigned int each,
			 const char *safe)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	const uint64_t n = each * 300;

	share_on(&other);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/timing_safe", safe));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "share/timing_safe", safe));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "one"));
	same_content(&self->mem, 0, 600, 300);
	same_content(&other, 100, n, 300);
	passes(&self->mem, 3);
	passes(&other, 3);
	EXPECT_EQ(300 * DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(300 * DMM_PAGE, resident(&other));

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "one"));
	passes(&self->mem, 3);
	passes(&other, 2);
	EXPECT_EQ(300 * DMM_PAGE, resident(&self->mem) + resident(&other));
	EXPECT_EQ(600 * DMM_PAGE, shared(&self->mem));
	EXPECT_EQ(n * DMM_PAGE, shared(&other));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(dmm_pool_ok(other.ino));
	EXPECT_EQ(0, bad_content(&self->mem, 0, 600, 300));
	EXPECT_EQ(0, bad_content(&other, 100, n, 300));

	/* And is everybody's own again. */
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "two"));
	passes(&other, 3);
	EXPECT_EQ(300 * DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(300 * DMM_PAGE, resident(&other));
	dmm_guest_fill(self->guest, DMM_GPA, 300, 7);
	EXPECT_EQ(0, bad_content(&self->mem, 300, 300, 300));
	EXPECT_EQ(0, bad_content(&other, 100, n, 300));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	dmm_mem_free(&other);
}

DMM_TEST(sharing, domain_later_single)
{
	domain_later(_metadata, self, 1, "0");
}

DMM_TEST(sharing, domain_later_both)
{
	domain_later(_metadata, self, 2, "0");
}

DMM_TEST(sharing, domain_later_timing_safe)
{
	domain_later(_metadata, self, 1, "1");
}

DMM_TEST(sharing, unmerge)
{
	same_content(&self->mem, 0, PAGES, 4);
	passes(&self->mem, 2);
	EXPECT_EQ(4 * DMM_PAGE, resident(&self->mem));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", SIZE / 2));
	EXPECT_EQ(-ENOSPC, dmm_pool_set(self->mem.ino, "share/unmerge", "1"));
	EXPECT_EQ(0, bad_content(&self->mem, 0, PAGES, 4));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", SIZE));
	EXPECT_EQ(-EINVAL, dmm_pool_set(self->mem.ino, "share/unmerge", "0"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(self->mem.ino, "share/unmerge", "y"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(self->mem.ino, "share/unmerge", "1junk"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/unmerge", "1"));
	EXPECT_EQ(0, shared(&self->mem));
	EXPECT_EQ(SIZE, resident(&self->mem));
	usleep(200000);
	EXPECT_EQ(0, shared(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, PAGES, 4));
	/* On again. */
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	EXPECT_EQ(4 * DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, PAGES, 4));
}

DMM_TEST(sharing, blocks)
{
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/break_blocks", "never"));
	dmm_compact();
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	same_content(&self->mem, 0, PAGES, 4);
	passes(&self->mem, 2);
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "huge_bytes"));
	EXPECT_EQ(0, shared(&self->mem));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/break_blocks",
				  "pressure"));
	passes(&self->mem, 2);
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "huge_bytes"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/break_blocks",
				  "always"));
	passes(&self->mem, 2);
	EXPECT_EQ(4 * DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, PAGES, 4));
}

/* Passes that meet a block whose entries are busy leave it whole. */
DMM_TEST(sharing, busy_blocks)
{
	uint64_t until;

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/break_blocks", "never"));
	dmm_compact();
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	/* As while they are made, entries are given back one by one. */
	until = count(&self->mem, "passes") + 20;
	while (count(&self->mem, "passes") < until)
		ASSERT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "huge_bytes"));
	EXPECT_EQ(SIZE, resident(&self->mem));
}

/* A page that somebody holds is left alone, and found later. */
DMM_TEST(sharing, held_page)
{
	int fds[2];

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	same_content(&self->mem, 0, 20, 1);
	hold_page(&self->mem, 7, fds);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	EXPECT_EQ(2 * DMM_PAGE, resident(&self->mem));
	release_page(fds);
	passes(&self->mem, 2);
	EXPECT_EQ(DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, 20, 1));
}

/* The same if it is the page with the same content that is held. */
DMM_TEST(sharing, held_counterpart)
{
	int fds[2];

	/* Not to be hashed while it is half written. */
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	same_content(&self->mem, 0, 1, 1);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	ASSERT_EQ(1, count(&self->mem, "hashed"));
	hold_page(&self->mem, 0, fds);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	same_content(&self->mem, 1, 1, 1);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	EXPECT_EQ(2 * DMM_PAGE, resident(&self->mem));
	EXPECT_NE(0, count(&self->mem, "reject_busy"));
	release_page(fds);
	passes(&self->mem, 2);
	EXPECT_EQ(DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, 2, 1));
}

/* A page that comes back as it went is looked at, even if it was before. */
DMM_TEST(sharing, brought_back)
{
	struct dmm_mem other;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "test-token/keep", "1"));
	same_content(&self->mem, 0, 1, 1);
	passes(&self->mem, 2);
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "reclaim", DMM_PAGE));
	ASSERT_EQ(0, resident(&self->mem));
	passes(&self->mem, 1);

	/* Meanwhile another one stands for the content. */
	other = dmm_mem_create_exact(SIZE);
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "one"));
	same_content(&other, 0, 1, 1);
	share_on(&other);
	passes(&other, 2);
	EXPECT_EQ(0, bad_content(&self->mem, 0, 1, 1));
	EXPECT_EQ(DMM_PAGE, resident(&self->mem));
	passes(&self->mem, 2);
	EXPECT_EQ(DMM_PAGE, resident(&self->mem) + resident(&other));
	EXPECT_EQ(DMM_PAGE, shared(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, 1, 1));
	EXPECT_EQ(0, bad_content(&other, 0, 1, 1));
	dmm_mem_free(&other);
}

/* Both vCPUs count in memory that is the same again and again. */
DMM_TEST(sharing, under_load)
{
	uint64_t round, i;

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, 300, 0);
	dmm_guest_start(self->guest, 1, DMM_OP_COUNT,
			DMM_GPA + 600 * DMM_PAGE, 300, 0);
	dmm_guest_wait_rounds(self->guest, 0, 30);
	dmm_guest_wait_rounds(self->guest, 1, 30);
	passes(&self->mem, 3);
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
	round = self->guest->cpu[0].cmd->rounds;
	for (i = 0; i < 300; i++) {
		ASSERT_EQ(round, page(&self->mem, i)[0]);
		ASSERT_EQ(round, page(&self->mem, i)[WORDS - 1]);
	}
	/* Each has one content now, if each was not given up as changing. */
	passes(&self->mem, 130);
	EXPECT_GE(20 * DMM_PAGE, resident(&self->mem));
	EXPECT_NE(0, count(&self->mem, "merged"));
}

/* A frame with more users than any single pool has pages here. */
DMM_TEST(sharing, ten_thousand)
{
	const uint64_t size = 48UL << 20, pages = size / DMM_PAGE;
	struct dmm_mem mem = dmm_mem_create_exact(size);
	uint64_t i;

	share_on(&mem);
	same_content(&mem, 0, pages, 1);
	passes(&mem, 2);
	EXPECT_EQ(DMM_PAGE, resident(&mem));
	EXPECT_EQ(size, shared(&mem));
	ASSERT_EQ(0, dmm_pool_set(mem.ino, "share/run", "0"));
	for (i = 0; i < pages; i++)
		*page(&mem, i) = i;
	EXPECT_EQ(size, resident(&mem));
	EXPECT_EQ(0, shared(&mem));
	for (i = 0; i < pages; i++) {
		ASSERT_EQ(i, *page(&mem, i));
		ASSERT_EQ(page(&mem, 0)[1], page(&mem, i)[1]);
	}
	dmm_mem_free(&mem);
}

static bool wait_hashed(struct dmm_mem *mem, uint64_t n)
{
	int tries;

	for (tries = 0; tries < 3000; tries++) {
		if (count(mem, "hashed") >= n)
			return true;
		usleep(10000);
	}
	return false;
}

/* Numbers for all pools matter to a worker that rests, for however long. */
DMM_TEST(sharing, numbers_for_all)
{
	ASSERT_EQ(0, for_all("run", "0"));
	usleep(200000);
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	usleep(1500000);
	EXPECT_EQ(0, count(&self->mem, "hashed"));
	ASSERT_EQ(0, for_all("pages_per_second", "1"));
	ASSERT_EQ(0, for_all("run", "1"));
	ASSERT_TRUE(wait_hashed(&self->mem, 1));
	usleep(1500000);
	EXPECT_GE(DMM_BLOCK / DMM_PAGE, count(&self->mem, "hashed"));
	ASSERT_EQ(0, for_all("pages_per_second", "0"));
	EXPECT_TRUE(wait_hashed(&self->mem, PAGES));
	for_all("run", "default");
	for_all("pages_per_second", "default");
}

/* Nobody can tell by how a write is done whether a page is shared. */
DMM_TEST(sharing, timing_safe)
{
	uint64_t take_over, cow;

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/timing_safe", "1"));
	same_content(&self->mem, 0, 20, 1);
	dmm_fill(page(&self->mem, 600), 600, 20, 2);
	memset(page(&self->mem, 1200), 0, 20 * DMM_PAGE);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	EXPECT_EQ(60 * DMM_PAGE, shared(&self->mem));
	EXPECT_EQ(22 * DMM_PAGE, resident(&self->mem));
	EXPECT_EQ(0, dmm_nonzero_pages(page(&self->mem, 1200), 20));
	take_over = dmm_pool_get(self->mem.ino, "stats/take_over");
	cow = dmm_pool_get(self->mem.ino, "stats/cow");
	dmm_guest_fill(self->guest, DMM_GPA, 20, 3);
	dmm_guest_fill(self->guest, DMM_GPA + 600 * DMM_PAGE, 20, 3);
	dmm_guest_fill(self->guest, DMM_GPA + 1200 * DMM_PAGE, 20, 3);
	EXPECT_EQ(take_over, dmm_pool_get(self->mem.ino, "stats/take_over"));
	EXPECT_EQ(cow + 60, dmm_pool_get(self->mem.ino, "stats/cow"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 20, 3));
	EXPECT_EQ(60 * DMM_PAGE, resident(&self->mem));
}

/* What was looked at before is looked at again, and written like all else. */
DMM_TEST(sharing, timing_safe_later)
{
	uint64_t cow;

	dmm_fill(page(&self->mem, 0), 0, 20, 1);
	passes(&self->mem, 2);
	cow = dmm_pool_get(self->mem.ino, "stats/cow");
	dmm_guest_fill(self->guest, DMM_GPA, 10, 2);
	EXPECT_EQ(cow, dmm_pool_get(self->mem.ino, "stats/cow"));
	passes(&self->mem, 8);

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/timing_safe", "1"));
	passes(&self->mem, 2);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	EXPECT_EQ(20 * DMM_PAGE, shared(&self->mem));
	dmm_guest_fill(self->guest, DMM_GPA, 20, 3);
	EXPECT_EQ(cow + 20, dmm_pool_get(self->mem.ino, "stats/cow"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 20, 3));
}

/*
 * Content that is made to have the hash of other content, whatever the seed: a write
 * to it does not tell whether the other is there.
 */
DMM_TEST(sharing, timing_safe_collision)
{
	uint64_t *p, cow;
	int tries;

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/timing_safe", "1"));
	same_content(&self->mem, 0, 1, 1);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	p = page(&self->mem, 1);
	same_content(&self->mem, 1, 1, 1);
	p[0] ^= 1UL << 63;
	p[4] ^= 1UL << 28;
	/* It is looked at once, and not once more. */
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/full_scan_seconds", "20"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	for (tries = 0; !count(&self->mem, "reject_differs") && tries < 6000; tries++)
		usleep(10000);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	EXPECT_EQ(1, count(&self->mem, "reject_differs"));
	cow = dmm_pool_get(self->mem.ino, "stats/cow");
	dmm_guest_poke(self->guest, DMM_GPA + DMM_PAGE, 5);
	EXPECT_EQ(cow + 1, dmm_pool_get(self->mem.ino, "stats/cow"));
	EXPECT_EQ(5, dmm_guest_peek(self->guest, DMM_GPA + DMM_PAGE));
	EXPECT_EQ(0, bad_content(&self->mem, 0, 1, 1));
}

/* Frames of pages, which are mapped for it. */
static void frames(struct dmm_mem *mem, uint64_t n, uint64_t *pfn)
{
	uint64_t i;

	for (i = 0; i < n; i++)
		(void)*(volatile uint64_t *)page(mem, i);
	dmm_pagemap(mem->hva, n, pfn);
	for (i = 0; i < n; i++)
		pfn[i] &= DMM_PAGEMAP_PFN;
}

/* Nor can anybody choose the frame that stays, or know where the next one is. */
DMM_TEST(sharing, timing_safe_frames)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	enum { N = 256 };
	uint64_t before[N], theirs[N], after[N], joined[N];
	unsigned int i, near = 0;

	share_on(&other);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "share/run", "0"));
	dmm_fill(self->mem.hva, 0, N, 1);
	dmm_fill(other.hva, 0, N, 1);
	frames(&self->mem, N, before);
	frames(&other, N, theirs);

	/* The other has what is hashed first, without timing_safe. */
	ASSERT_EQ(0, dmm_pool_set(other.ino, "share/run", "1"));
	passes(&other, 2);
	ASSERT_EQ(0, dmm_pool_set(other.ino, "share/run", "0"));
	frames(&other, N, joined);
	EXPECT_EQ(0, memcmp(theirs, joined, sizeof(theirs)));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/timing_safe", "1"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	EXPECT_EQ(N * DMM_PAGE, shared(&self->mem));
	EXPECT_EQ(N * DMM_PAGE, resident(&self->mem) + resident(&other));

	frames(&self->mem, N, after);
	frames(&other, N, joined);
	for (i = 0; i < N; i++) {
		EXPECT_NE(0, after[i]);
		EXPECT_EQ(after[i], joined[i]);
		EXPECT_NE(before[i], after[i]);
		EXPECT_NE(theirs[i], after[i]);
		near += i && after[i] - after[i - 1] + 8 <= 16;
	}
	/* One after the other they would be beside each other. */
	EXPECT_GE(N / 4, near);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, N, 1));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, N, 1));
	dmm_mem_free(&other);
}

/*
 * A frame that clones in no domain share is for nobody else, but does not keep
 * other pages with its content from each other.
 */
static void beside_a_clone(struct __test_metadata *_metadata,
			   FIXTURE_DATA(sharing) *self, uint64_t *cow)
{
	struct dmm_mem clone = dmm_mem_create_exact(SIZE), *mem = &self->mem;

	ASSERT_EQ(0, dmm_pool_set(mem->ino, "share/run", "0"));
	same_content(mem, 0, 2, 1);
	ASSERT_EQ(0, dmm_pool_set(mem->ino, "share/run", "1"));
	passes(mem, 2);
	ASSERT_EQ(DMM_PAGE, resident(mem));
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, mem->fd));

	ASSERT_EQ(0, dmm_pool_set(mem->ino, "share/run", "0"));
	same_content(mem, 2, 40, 1);
	ASSERT_EQ(0, dmm_pool_set(mem->ino, "share/run", "1"));
	passes(mem, 3);
	EXPECT_EQ(2 * DMM_PAGE, resident(mem));
	EXPECT_EQ(42 * DMM_PAGE, shared(mem));
	EXPECT_NE(0, count(mem, "reject_domain"));
	EXPECT_EQ(0, bad_content(mem, 0, 42, 1));
	EXPECT_EQ(0, bad_content(&clone, 0, 2, 1));

	/* The last of them to be written. */
	ASSERT_EQ(0, dmm_pool_set(mem->ino, "share/run", "0"));
	dmm_fill(page(mem, 2), 2, 39, 2);
	*cow = dmm_pool_get(mem->ino, "stats/cow");
	dmm_guest_poke(self->guest, DMM_GPA + 41 * DMM_PAGE, 1);
	*cow = dmm_pool_get(mem->ino, "stats/cow") - *cow;
	dmm_mem_free(&clone);
}

DMM_TEST(sharing, cloned)
{
	uint64_t cow;

	beside_a_clone(_metadata, self, &cow);
	EXPECT_EQ(0, cow);
}

DMM_TEST(sharing, cloned_timing_safe)
{
	uint64_t cow;

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/timing_safe", "1"));
	beside_a_clone(_metadata, self, &cow);
	EXPECT_EQ(1, cow);
}

/*
 * Of a pool that the policy has left nothing is merged any more: nor what it shares
 * with a clone only, which another clone had in another way meanwhile.
 */
DMM_TEST(sharing, cloned_and_left)
{
	struct dmm_mem clone = dmm_mem_create_exact(SIZE);
	struct dmm_mem again = dmm_mem_create_exact(SIZE);
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	enum { N = 64 };

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(clone.ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(again.ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "one"));
	dmm_fill(self->mem.hva, 0, N, 1);
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	ASSERT_EQ(0, ioctl(again.fd, FICLONE, self->mem.fd));
	ASSERT_EQ(0, ioctl(again.fd, FICLONE, self->mem.fd));
	dmm_fill(again.hva, 0, N, 2);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "1"));
	passes(&self->mem, 2);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-share"));

	share_on(&other);
	dmm_fill(other.hva, 0, N, 1);
	passes(&other, 3);
	EXPECT_EQ(0, shared(&other));
	EXPECT_EQ(N * DMM_PAGE, resident(&other));
	EXPECT_EQ(N * DMM_PAGE, shared(&self->mem));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_EQ(0, dmm_bad_pages(clone.hva, 0, N, 1));
	dmm_mem_free(&other);
	dmm_mem_free(&again);
	dmm_mem_free(&clone);
}

/* Objects in a slab of the kernel; less than 0: unknown. */
static long slab_objects(const char *slab)
{
	char path[96];
	long n = -1;
	FILE *f;

	/* Those that CPUs have at hand would count. */
	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", slab);
	dmm_write_file(path, "1", 1);
	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/objects", slab);
	f = fopen(path, "r");
	if (f && fscanf(f, "%ld", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

/*
 * What is remembered of frames goes a minute after them, also if no pool has the
 * policy by then.
 */
DMM_TEST(sharing, forgets)
{
	struct dmm_mem mem;
	int tries;

	if (slab_objects("share_record") < 0)
		SKIP(return, "no numbers of slabs");
	mem = dmm_mem_create_exact(SIZE);
	share_on(&mem);
	ASSERT_EQ(0, dmm_pool_set(mem.ino, "share/timing_safe", "1"));
	dmm_fill(mem.hva, 0, PAGES, 1);
	passes(&mem, 8);
	ASSERT_EQ(SIZE, shared(&mem));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-share"));
	ASSERT_EQ(0, dmm_pool_set(mem.ino, "policies", "-share"));
	EXPECT_LE(PAGES, slab_objects("share_record"));
	dmm_mem_free(&mem);
	EXPECT_TRUE(dmm_pool_gone(mem.ino));
	for (tries = 0; slab_objects("share_record") && tries < 100; tries++)
		sleep(1);
	EXPECT_EQ(0, slab_objects("share_record"));
}

/* Nor is anything known of pages that have gone with a hole. */
DMM_TEST(sharing, forgets_holes)
{
	long before = slab_objects("share_record");
	int tries;
	uint64_t i;

	if (before < 0)
		SKIP(return, "no numbers of slabs");
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	passes(&self->mem, 8);
	EXPECT_LE(before + (long)PAGES, slab_objects("share_record"));
	/* A page is left in each 2 MiB of the first half. */
	for (i = 0; i < PAGES / 2; i += 512)
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, (i + 1) * DMM_PAGE,
				       511 * DMM_PAGE));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, SIZE / 2, SIZE / 2));
	passes(&self->mem, 2);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	/* A debug kernel keeps what was freed for a grace period of RCU. */
	for (tries = 0; tries < 100; tries++) {
		if (slab_objects("share_record") <= before + (long)PAGES / 512)
			break;
		usleep(100000);
	}
	EXPECT_GE(before + (long)PAGES / 512, slab_objects("share_record"));
	for (i = 0; i < PAGES / 2; i += 512)
		EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, i), i, 1, 1));
}

/* As many users as a frame can have: who comes then has one frame, too. */
DMM_TEST(sharing, full_frame)
{
	const unsigned int clones = 65536 / PAGES - 1;
	struct dmm_mem clone[clones], other, more;
	unsigned int i;

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "one"));
	same_content(&self->mem, 0, PAGES, 1);
	passes(&self->mem, 2);
	ASSERT_EQ(DMM_PAGE, resident(&self->mem));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "share/run", "0"));
	for (i = 0; i < clones; i++) {
		clone[i] = dmm_mem_create_exact(SIZE);
		ASSERT_EQ(0, dmm_pool_set(clone[i].ino, "domain", "one"));
		ASSERT_EQ(0, ioctl(clone[i].fd, FICLONE, self->mem.fd));
		ASSERT_EQ(SIZE, shared(&clone[i]));
	}
	other = dmm_mem_create_exact(SIZE);
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "one"));
	same_content(&other, 0, 40, 1);
	share_on(&other);
	passes(&other, 3);
	EXPECT_EQ(DMM_PAGE, resident(&other));
	EXPECT_EQ(40 * DMM_PAGE, shared(&other));
	EXPECT_EQ(0, bad_content(&other, 0, 40, 1));
	/* So does a clone. */
	more = dmm_mem_create_exact(SIZE);
	ASSERT_EQ(0, ioctl(more.fd, FICLONE, self->mem.fd));
	EXPECT_LE(DMM_PAGE, resident(&more));
	EXPECT_EQ(0, bad_content(&more, 0, PAGES, 1));
	dmm_mem_free(&more);
	for (i = 0; i < clones; i++)
		dmm_mem_free(&clone[i]);
	dmm_mem_free(&other);
}

/* The policy goes while it works, and while others wait for its pages. */
DMM_TEST(sharing, detach)
{
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	int i;

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "one"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "one"));
	same_content(&self->mem, 0, PAGES, 700);
	same_content(&other, 0, PAGES, 700);
	share_on(&other);
	for (i = 0; i < 5; i++) {
		usleep(20000);
		ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-share"));
		ASSERT_EQ(0, bad_content(&self->mem, 0, PAGES, 700));
		share_on(&self->mem);
	}
	passes(&self->mem, 2);
	/* Who is slower has not looked at all of its pages. */
	passes(&other, 2);
	EXPECT_EQ(700 * DMM_PAGE, resident(&self->mem) + resident(&other));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-share"));
	/* Its pages are its own again, and those of the other still one. */
	EXPECT_EQ(0, shared(&self->mem));
	EXPECT_EQ(SIZE, resident(&self->mem));
	EXPECT_EQ(SIZE, shared(&other));
	EXPECT_EQ(700 * DMM_PAGE, resident(&other));
	EXPECT_EQ(0, bad_content(&self->mem, 0, PAGES, 700));
	EXPECT_EQ(0, bad_content(&other, 0, PAGES, 700));
	dmm_mem_free(&other);
	EXPECT_EQ(0, bad_content(&self->mem, 0, PAGES, 700));
	EXPECT_EQ(SIZE, resident(&self->mem));
}

/* Where there is no room for that, the policy stays, and goes on. */
DMM_TEST(sharing, detach_without_room)
{
	same_content(&self->mem, 0, PAGES, 8);
	passes(&self->mem, 2);
	EXPECT_EQ(8 * DMM_PAGE, resident(&self->mem));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", SIZE / 2));
	EXPECT_EQ(-ENOSPC, dmm_pool_set(self->mem.ino, "policies", "-share"));
	EXPECT_TRUE(dmm_has_policy(self->mem.ino, "share"));
	EXPECT_GE(SIZE / 2, resident(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, PAGES, 8));
	/* Nobody has told it to stop. */
	passes(&self->mem, 3);
	EXPECT_EQ(8 * DMM_PAGE, resident(&self->mem));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "max_bytes", "max"));
	EXPECT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-share"));
	EXPECT_EQ(SIZE, resident(&self->mem));
	EXPECT_EQ(0, bad_content(&self->mem, 0, PAGES, 8));
}

/*
 * How many pages it may look at in a second, and how much of a CPU it may take.
 * After the last 2 MiB it need not rest.
 */
DMM_TEST(sharing, budget)
{
	const uint64_t least = 2000 * (SIZE - (2UL << 20)) / SIZE;
	long long cpu_us;
	uint64_t passed;
	char value[16];

	snprintf(value, sizeof(value), "%lu", PAGES / 2);
	passed = first_pass("share/pages_per_second", value, &cpu_us);
	EXPECT_LE(least, passed);
	EXPECT_GE(8000, passed);

	passed = first_pass("share/full_scan_seconds", "2", &cpu_us);
	EXPECT_LE(least, passed);
	EXPECT_GE(8000, passed);

	passed = first_pass("share/max_cpu_percent", "2", &cpu_us);
	EXPECT_GE((long long)passed * 1000 / 20, cpu_us);
}

/*
 * A file of @nr blocks, with a page in each, that is looked at without a bound, and
 * with one of @rate blocks a second when that many are done that they owe a minute.
 */
static struct dmm_mem bound_in_pass(uint64_t nr, uint64_t rate)
{
	struct dmm_mem mem = dmm_mem_create_exact(nr * DMM_BLOCK);
	char value[16];
	uint64_t i;
	int tries;

	for (i = 0; i < nr; i++)
		dmm_fill(mem.hva + i * DMM_BLOCK, i, 1, 1);
	share_on(&mem);
	for (tries = 0; count(&mem, "hashed") < 60 * rate && tries < 60000; tries++)
		usleep(1000);
	snprintf(value, sizeof(value), "%lu", rate * DMM_BLOCK / DMM_PAGE);
	TEST_ASSERT(!dmm_pool_set(mem.ino, "share/pages_per_second", value),
		    "Cannot set a bound");
	return mem;
}

/* What was done without a bound is not owed when there is one, in the same pass. */
DMM_TEST(sharing, bound_later)
{
	const uint64_t nr = 8192, rate = 8;
	struct dmm_mem mem;
	uint64_t begun;
	int tries;

	/* A pass may be over before we come to set the bound. */
	for (tries = 0; tries < 5; tries++) {
		mem = bound_in_pass(nr, rate);
		begun = count(&mem, "hashed");
		if (begun < nr - 3 * rate)
			break;
		dmm_mem_free(&mem);
	}
	ASSERT_NE(5, tries);
	for (tries = 0; count(&mem, "hashed") < begun + rate && tries < 200; tries++)
		usleep(100000);
	EXPECT_LE(begun + rate, count(&mem, "hashed"));
	dmm_mem_free(&mem);
}

TEST_HARNESS_MAIN
