// SPDX-License-Identifier: GPL-2.0-only
/*
 * Allocations fail of what policies do in the background: no content is lost,
 * and it goes on when there is memory again.
 *
 * Needs a kernel with fault injection, as the debug kernel has.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "nomem_util.h"

/* Half of the allocations of one task fail, a few of those of all. */
#define OF_TASK		50
#define OF_ALL		10
#define SECONDS		3
#define BLOCK		(DMM_BLOCK / DMM_PAGE)

FIXTURE(work) {
	struct dmm_mem mem;
	char path[32];
	int file;
};

FIXTURE_SETUP(work)
{
	self->file = -1;
	if (!nomem_setup())
		SKIP(return, "kernel without fault injection");
	self->mem = nomem_mem();
	snprintf(self->path, sizeof(self->path), "/tmp/nomem-XXXXXX");
	self->file = mkstemp(self->path);
	ASSERT_GE(self->file, 0);
	ASSERT_EQ(0, ftruncate(self->file, SIZE));
}

FIXTURE_TEARDOWN(work)
{
	if (self->file >= 0) {
		close(self->file);
		unlink(self->path);
	}
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
}

static void set(struct dmm_mem *mem, const char *file, const char *value)
{
	int r = dmm_pool_set(mem->ino, file, value);

	TEST_ASSERT(!r, "%s to %s: %d", value, file, r);
}

/* The second 2 MiB: a region without the pages that are looked at meanwhile. */
static uint64_t bad_block(struct dmm_mem *mem, uint64_t seed)
{
	return dmm_bad_pages(mem->hva + DMM_BLOCK, BLOCK, BLOCK, seed);
}

/* Within a minute, a number in sysfs is what it should be. */
static bool becomes(struct dmm_mem *mem, const char *file, bool zero)
{
	int tries;

	for (tries = 0; tries < 6000; tries++) {
		if (!dmm_pool_get(mem->ino, file) == zero)
			return true;
		usleep(10000);
	}
	return false;
}

/* Failures of all tasks, but this one does nothing meanwhile. */
static unsigned int fail_for_a_while(pid_t pid)
{
	nomem_background(pid ? OF_TASK : OF_ALL, pid);
	sleep(SECONDS);
	return nomem_background_end();
}

static void report(const char *what, unsigned int failed)
{
	printf("# nomem in the background: %s: %u\n", what, failed);
}

static pid_t find_task(const char *name)
{
	char path[288], comm[32];
	struct dirent *d;
	pid_t pid = 0;
	DIR *proc;
	FILE *f;

	proc = opendir("/proc");
	TEST_ASSERT(proc, "opendir(/proc) failed");
	while (!pid && (d = readdir(proc))) {
		snprintf(path, sizeof(path), "/proc/%s/comm", d->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fgets(comm, sizeof(comm), f)) {
			comm[strcspn(comm, "\n")] = 0;
			if (!strcmp(comm, name))
				pid = atoi(d->d_name);
		}
		fclose(f);
	}
	closedir(proc);
	return pid;
}

/* Pages with a content that another one has, too. */
static uint64_t bad_pairs(struct dmm_mem *mem)
{
	uint64_t i, bad = 0;

	for (i = BLOCK; i < PAGES; i++)
		bad += dmm_bad_pages(mem->hva + i * DMM_PAGE, i / 2, 1, 1);
	return bad;
}

DMM_TEST(work, share)
{
	struct dmm_mem *mem = &self->mem;
	unsigned int failed;
	char name[16];
	uint64_t i;
	pid_t pid;

	if (!dmm_policy_loaded("share"))
		SKIP(return, "no policy share");
	set(mem, "policies", "+share");
	set(mem, "share/full_scan_seconds", "0");
	set(mem, "share/max_cpu_percent", "100");
	set(mem, "share/run", "0");
	for (i = BLOCK; i < PAGES; i++)
		dmm_fill(mem->hva + i * DMM_PAGE, i / 2, 1, 1);
	snprintf(name, sizeof(name), "dmm-share/%lu", mem->ino);
	pid = find_task(name);
	ASSERT_NE(0, pid);
	set(mem, "share/run", "1");
	failed = fail_for_a_while(pid);
	report("the thread of ``share``", failed);
	EXPECT_LT(0, failed);
	EXPECT_EQ(0, bad_pairs(mem));
	EXPECT_TRUE(nomem_intact(mem));
	/* All of it in the end. */
	for (i = 0; i < 6000; i++) {
		if (dmm_pool_get(mem->ino, "shared_bytes") >= DMM_BLOCK)
			break;
		usleep(10000);
	}
	EXPECT_LT(i, 6000);
	EXPECT_EQ(0, bad_pairs(mem));
	EXPECT_TRUE(nomem_intact(mem));
}

/* Pages that are not used go to memory and to a file, and from one to the other. */
DMM_TEST(work, swap)
{
	struct dmm_mem *mem = &self->mem;
	unsigned int failed;

	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	set(mem, "policies", "+swap");
	set(mem, "swap/backing", self->path);
	set(mem, "swap/max_compressed_percent", "5");
	set(mem, "swap/cold_after_ms", "500");
	dmm_fill(mem->hva + DMM_BLOCK, BLOCK, BLOCK / 2, 1);
	dmm_fill(mem->hva + DMM_BLOCK * 3 / 2, BLOCK * 3 / 2, BLOCK / 2,
		 DMM_MIXED | 1);
	failed = fail_for_a_while(0);
	report("``swap``", failed);
	EXPECT_LT(0, failed);
	EXPECT_TRUE(becomes(mem, "swapped_bytes", false));
	EXPECT_EQ(0, dmm_bad_pages(mem->hva + DMM_BLOCK, BLOCK, BLOCK / 2, 1));
	EXPECT_EQ(0, dmm_bad_pages(mem->hva + DMM_BLOCK * 3 / 2, BLOCK * 3 / 2,
				   BLOCK / 2, DMM_MIXED | 1));
	EXPECT_TRUE(nomem_intact(mem));
}

DMM_TEST(work, restore)
{
	struct dmm_mem *mem = &self->mem;
	void *buf = malloc(DMM_BLOCK);
	unsigned int failed;

	if (!dmm_policy_loaded("restore"))
		SKIP(return, "no policy restore");
	ASSERT_NE(NULL, buf);
	dmm_fill(buf, BLOCK, BLOCK, 1);
	ASSERT_EQ(DMM_BLOCK, pwrite(self->file, buf, DMM_BLOCK, DMM_BLOCK));
	free(buf);
	set(mem, "policies", "+restore");
	set(mem, "restore/rate_bytes", "512K");
	set(mem, "restore/image", self->path);
	failed = fail_for_a_while(0);
	report("the worker of ``restore``", failed);
	EXPECT_LT(0, failed);
	set(mem, "restore/rate_bytes", "64M");
	EXPECT_TRUE(becomes(mem, "restore/remaining_bytes", true));
	EXPECT_EQ(0, bad_block(mem, 1));
	EXPECT_TRUE(nomem_intact(mem));
}

TEST_HARNESS_MAIN
