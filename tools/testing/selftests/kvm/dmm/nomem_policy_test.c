// SPDX-License-Identifier: GPL-2.0-only
/*
 * Allocations fail, of writes to sysfs and of policies: a clear error, and all
 * is as it was.
 *
 * Needs a kernel with fault injection, as the debug kernel has.
 */
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "nomem_util.h"

#define SYSFS	"/sys/kernel/kvm_dmm/"

FIXTURE(policies) {
	struct dmm_mem mem;
	int fd;			/* its file "policies" */
};

FIXTURE_SETUP(policies)
{
	self->fd = -1;
	if (!nomem_setup())
		SKIP(return, "kernel without fault injection");
	self->mem = nomem_mem();
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", 2 * SIZE));
	self->fd = nomem_open(self->mem.ino, "policies");
}

FIXTURE_TEARDOWN(policies)
{
	close(self->fd);
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
}

/* It is where it was not attached. */
static bool have(const char *name)
{
	return !strcmp(name, "demand") || dmm_policy_loaded(name);
}

static void attach(struct dmm_mem *mem, const char *name)
{
	char value[64];
	int r;

	snprintf(value, sizeof(value), "+%s", name);
	r = dmm_pool_set(mem->ino, "policies", value);
	TEST_ASSERT(!r || r == -EEXIST, "Attaching %s: %d", name, r);
}

static void set(struct dmm_mem *mem, const char *file, const char *value)
{
	int r = dmm_pool_set(mem->ino, file, value);

	TEST_ASSERT(!r, "%s to %s: %d", value, file, r);
}

static void write_each(struct __test_metadata *_metadata, struct dmm_mem *mem,
		       const char *file, const char *value, const char *back)
{
	int fd = nomem_open(mem->ino, file);
	char what[80];

	snprintf(what, sizeof(what), "``%s``", file);
	FOR_EACH_FAILURE(what, BIT(ENOMEM), nomem_write(fd, value),
			 nomem_intact(mem), set(mem, file, back));
	close(fd);
}

DMM_TEST(policies, numbers)
{
	static const struct {
		const char *policy, *file, *value, *back;
	} numbers[] = {
		{ NULL, "max_bytes", "64M", "max" },
		{ NULL, "min_bytes", "1M", "0" },
		{ NULL, "domain", "a", "\n" },
		{ "demand", "fault_around_bytes", "1M", "4K" },
		{ "swap", "compressor", "zstd", "lz4" },
		{ "swap", "cold_after_ms", "100000", "default" },
		{ "share", "run", "1", "0" },
		{ "restore", "rate_bytes", "1M", "default" },
	};
	char file[64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (!numbers[i].policy) {
			write_each(_metadata, &self->mem, numbers[i].file,
				   numbers[i].value, numbers[i].back);
			continue;
		}
		if (!have(numbers[i].policy))
			continue;
		attach(&self->mem, numbers[i].policy);
		snprintf(file, sizeof(file), "%s/%s", numbers[i].policy,
			 numbers[i].file);
		write_each(_metadata, &self->mem, file, numbers[i].value,
			   numbers[i].back);
	}
}

/* For all pools. */
DMM_TEST(policies, defaults)
{
	int fd = open(SYSFS "policies/demand/rebuild_rate", O_RDWR);

	ASSERT_GE(fd, 0);
	FOR_EACH_FAILURE("``policies/demand/rebuild_rate``", BIT(ENOMEM),
			 nomem_write(fd, "1M"), nomem_intact(&self->mem),
			 nomem_write(fd, "default"));
	close(fd);

	fd = open(SYSFS "default_policies", O_RDWR);
	ASSERT_GE(fd, 0);
	FOR_EACH_FAILURE("``default_policies``", BIT(ENOMEM),
			 nomem_write(fd, "demand sample"),
			 nomem_intact(&self->mem), nomem_write(fd, "demand"));
	close(fd);
}

DMM_TEST(policies, attach)
{
	static const char * const names[] = {
		"demand", "sample", "swap", "share", "restore", "test-token",
		"test-share",
	};
	char plus[32], minus[32], what[64];
	unsigned long ino = self->mem.ino;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (!have(names[i]))
			continue;
		snprintf(plus, sizeof(plus), "+%s", names[i]);
		snprintf(minus, sizeof(minus), "-%s", names[i]);
		dmm_pool_set(ino, "policies", minus);
		snprintf(what, sizeof(what), "attaching ``%s``", names[i]);
		FOR_EACH_FAILURE(what, BIT(ENOMEM), nomem_write(self->fd, plus),
				 !dmm_has_policy(ino, names[i]) &&
				 nomem_intact(&self->mem),
				 dmm_pool_set(ino, "policies", minus));
		attach(&self->mem, names[i]);
		snprintf(what, sizeof(what), "detaching ``%s``", names[i]);
		FOR_EACH_FAILURE(what, BIT(ENOMEM),
				 nomem_write(self->fd, minus),
				 dmm_has_policy(ino, names[i]) &&
				 nomem_intact(&self->mem),
				 dmm_pool_set(ino, "policies", plus));
	}
}

/* Fill pages and have them taken out, of which a policy must not be tired. */
static void take_out(struct dmm_mem *mem, const char *name, uint64_t seed)
{
	attach(mem, name);
	nomem_fill(mem, seed);
	posix_fadvise(mem->fd, OFFSET, LEN, POSIX_FADV_DONTNEED);
}

/* Pages of another region, of which some compress well. */
#define MORE	80UL

static void fill_more(struct dmm_mem *mem, uint64_t seed)
{
	TEST_ASSERT(!fallocate(mem->fd, PUNCH, SIZE - MORE * DMM_PAGE,
			       MORE * DMM_PAGE), "Punching a hole failed");
	dmm_fill(mem->hva + SIZE - MORE * DMM_PAGE, PAGES - MORE, MORE, seed);
}

static uint64_t bad_more(struct dmm_mem *mem, uint64_t seed)
{
	return dmm_bad_pages(mem->hva + SIZE - MORE * DMM_PAGE, PAGES - MORE,
			     MORE, seed);
}

/* Content goes to a policy, or stays where it is, and comes back. */
static void reclaim_by(struct __test_metadata *_metadata, struct dmm_mem *mem,
		       int fd, const char *name, const char *label,
		       uint64_t seed)
{
	int reclaim = nomem_open(mem->ino, "reclaim");
	int max = nomem_open(mem->ino, "max_bytes");
	char minus[32], bytes[24], what[64];

	snprintf(bytes, sizeof(bytes), "%lu", LEN);
	snprintf(minus, sizeof(minus), "-%s", name);
	attach(mem, name);
	nomem_fill(mem, seed);
	snprintf(what, sizeof(what), "``reclaim`` with %s", label);
	FOR_EACH_FAILURE(what, BIT(EAGAIN) | BIT(ENOMEM),
			 nomem_write(reclaim, bytes),
			 nomem_intact(mem) && !nomem_bad(mem, seed),
			 (attach(mem, name), nomem_punch(mem),
			  nomem_fill(mem, seed)));
	snprintf(what, sizeof(what), "``max_bytes``, less, with %s", label);
	snprintf(bytes, sizeof(bytes), "%lu", 64 * DMM_PAGE);
	fill_more(mem, seed);
	FOR_EACH_FAILURE(what, BIT(EBUSY) | BIT(ENOMEM),
			 nomem_write(max, bytes),
			 nomem_intact(mem) && !bad_more(mem, seed),
			 (set(mem, "max_bytes", "8M"), attach(mem, name),
			  fill_more(mem, seed)));
	EXPECT_EQ(0, bad_more(mem, seed));
	take_out(mem, name, seed);
	snprintf(what, sizeof(what), "detaching %s, which has 8 pages",
		 label);
	FOR_EACH_FAILURE(what, BIT(EBUSY) | BIT(ENOMEM), nomem_write(fd, minus),
			 dmm_has_policy(mem->ino, name) && nomem_intact(mem),
			 take_out(mem, name, seed));
	EXPECT_EQ(0, nomem_bad(mem, seed));
	close(reclaim);
	close(max);
}

DMM_TEST(policies, tokens)
{
	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no test policies");
	reclaim_by(_metadata, &self->mem, self->fd, "test-token",
		   "``test-token``", 1);
}

DMM_TEST(policies, swap)
{
	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	reclaim_by(_metadata, &self->mem, self->fd, "swap", "``swap``",
		   DMM_MIXED | 1);
	attach(&self->mem, "swap");
	set(&self->mem, "swap/compressor", "zstd");
	reclaim_by(_metadata, &self->mem, self->fd, "swap", "``swap`` by zstd",
		   DMM_HALF | 1);
}

DMM_TEST(policies, backing)
{
	const uint64_t errnos = BIT(EAGAIN) | BIT(EBUSY) | BIT(ENOMEM);
	char path[] = "/tmp/nomem-XXXXXX";
	struct dmm_mem *mem = &self->mem;
	char bytes[24];
	int fd, file;

	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	file = mkstemp(path);
	ASSERT_GE(file, 0);
	ASSERT_EQ(0, ftruncate(file, SIZE));
	attach(mem, "swap");
	fd = nomem_open(mem->ino, "swap/backing");
	FOR_EACH_FAILURE("``swap/backing``", BIT(ENOMEM), nomem_write(fd, path),
			 nomem_intact(mem), set(mem, "swap/backing", "none"));
	close(fd);
	set(mem, "swap/backing", path);

	snprintf(bytes, sizeof(bytes), "%lu", NR / 2 * DMM_PAGE);
	take_out(mem, "swap", DMM_HALF | 1);
	fd = nomem_open(mem->ino, "swap/writeback");
	FOR_EACH_FAILURE("``swap/writeback``", errnos, nomem_write(fd, bytes),
			 nomem_intact(mem) && !nomem_bad(mem, DMM_HALF | 1),
			 (nomem_bad(mem, DMM_HALF | 1),
			  take_out(mem, "swap", DMM_HALF | 1)));
	close(fd);
	/* What does not compress goes there at once. */
	fd = nomem_open(mem->ino, "reclaim");
	nomem_fill(mem, 1);
	FOR_EACH_FAILURE("``reclaim`` with ``swap`` and a backing",
			 BIT(EAGAIN) | BIT(ENOMEM), nomem_write(fd, bytes),
			 nomem_intact(mem) && !nomem_bad(mem, 1),
			 (nomem_bad(mem, 1), nomem_fill(mem, 1)));
	close(fd);
	EXPECT_EQ(0, nomem_bad(mem, 1));
	close(file);
	unlink(path);
}

static void fill_pair(struct dmm_mem *mem)
{
	nomem_fill(mem, 1);
	dmm_fill(mem->hva + (FIRST + NR - 1) * DMM_PAGE, FIRST, 1, 1);
}

/* Somebody may hold a page for a moment, who looks for others like it. */
static void set_soon(struct dmm_mem *mem, const char *file, const char *value)
{
	int r, tries;

	for (tries = 0; tries < 500; tries++) {
		r = dmm_pool_set(mem->ino, file, value);
		if (r != -EAGAIN)
			break;
		usleep(10000);
	}
	TEST_ASSERT(!r, "%s to %s: %d", value, file, r);
}

/* The last of the pages is like the first, and both have one frame. */
static void merge(struct dmm_mem *mem)
{
	char value[64];

	fill_pair(mem);
	snprintf(value, sizeof(value), "%u %u", FIRST, FIRST + NR - 1);
	set_soon(mem, "test-share/merge", value);
}

static void share_pair(struct dmm_mem *mem)
{
	attach(mem, "share");
	set(mem, "share/run", "0");
	merge(mem);
}

static bool merged_intact(struct dmm_mem *mem)
{
	void *last = mem->hva + (FIRST + NR - 1) * DMM_PAGE;

	return nomem_intact(mem) && !dmm_bad_pages(last, FIRST, 1, 1) &&
		!dmm_bad_pages(mem->hva + OFFSET, FIRST, NR - 1, 1);
}

/* A page of the pool has the frame of another one's. */
static void join(struct dmm_mem *mem, struct dmm_mem *other)
{
	char value[16];

	set(mem, "domain", "a");
	set(other, "domain", "a");
	nomem_fill(mem, 1);
	nomem_fill(other, 1);
	snprintf(value, sizeof(value), "%u", FIRST);
	set_soon(other, "test-share/hold", value);
	set_soon(mem, "test-share/join", value);
}

DMM_TEST(policies, share)
{
	struct dmm_mem other, *mem = &self->mem;
	char value[64];
	int fd;

	if (!dmm_policy_loaded("test-share") || !dmm_policy_loaded("share"))
		SKIP(return, "no policies that share");
	attach(mem, "test-share");
	snprintf(value, sizeof(value), "%u %u", FIRST, FIRST + NR - 1);
	fill_pair(mem);
	fd = nomem_open(mem->ino, "test-share/merge");
	FOR_EACH_FAILURE("merging two pages with ``test-share``", BIT(ENOMEM),
			 nomem_write(fd, value), merged_intact(mem),
			 fill_pair(mem));
	close(fd);

	share_pair(mem);
	fd = nomem_open(mem->ino, "share/unmerge");
	FOR_EACH_FAILURE("``share/unmerge``", BIT(ENOSPC) | BIT(ENOMEM),
			 nomem_write(fd, "1"), merged_intact(mem), merge(mem));
	close(fd);
	EXPECT_NE(0, dmm_pool_get(mem->ino, "shared_bytes"));
	FOR_EACH_FAILURE("detaching ``share``, with pages that are merged",
			 BIT(ENOSPC) | BIT(ENOMEM), nomem_write(self->fd, "-share"),
			 dmm_has_policy(mem->ino, "share") && merged_intact(mem),
			 share_pair(mem));

	other = nomem_mem();
	attach(&other, "test-share");
	join(mem, &other);
	fd = nomem_open(mem->ino, "domain");
	FOR_EACH_FAILURE("``domain``, with a frame that is shared",
			 BIT(ENOSPC) | BIT(ENOMEM), nomem_write(fd, "b"),
			 nomem_intact(mem) && !nomem_bad(mem, 1),
			 join(mem, &other));
	close(fd);
	EXPECT_EQ(0, nomem_bad(&other, 1));
	dmm_mem_free(&other);
}

static void forget_image(struct dmm_mem *mem)
{
	nomem_punch(mem);
	set(mem, "restore/image", "\n");
}

static void restart(struct dmm_mem *mem, const char *path)
{
	forget_image(mem);
	set(mem, "restore/image", path);
}

static int read_image(int fd, void *buf)
{
	ssize_t n = pread(fd, buf, LEN, OFFSET);

	if (n < 0)
		return -errno;
	return n == LEN ? 0 : -ENOMEM;
}

/* The image is a file in which little is no hole. */
DMM_TEST(policies, restore)
{
	char path[] = "/tmp/nomem-XXXXXX", order[] = "/tmp/nomem-XXXXXX";
	struct dmm_mem *mem = &self->mem;
	int fd, image = mkstemp(path);
	void *buf = malloc(LEN);

	ASSERT_NE(NULL, buf);
	ASSERT_GE(image, 0);
	close(mkstemp(order));
	if (!dmm_policy_loaded("restore"))
		SKIP(return, "no policy restore");
	dmm_fill(buf, FIRST, NR, 1);
	ASSERT_EQ(0, ftruncate(image, SIZE));
	ASSERT_EQ(LEN, pwrite(image, buf, LEN, OFFSET));
	attach(mem, "restore");
	set(mem, "restore/rate_bytes", "0");

	fd = nomem_open(mem->ino, "restore/image");
	FOR_EACH_FAILURE("attaching an image", BIT(ENOMEM),
			 nomem_write(fd, path), nomem_intact(mem),
			 forget_image(mem));
	close(fd);
	set(mem, "restore/image", path);
	FOR_EACH_FAILURE("``read()`` of an image", BIT(ENOMEM),
			 read_image(mem->fd, buf),
			 nomem_intact(mem) && !nomem_bad(mem, 1),
			 restart(mem, path));
	FOR_EACH_FAILURE("detaching ``restore``, which has 8 pages",
			 BIT(EBUSY) | BIT(ENOMEM),
			 nomem_write(self->fd, "-restore"),
			 nomem_intact(mem) && dmm_has_policy(mem->ino, "restore"),
			 (attach(mem, "restore"),
			  set(mem, "restore/rate_bytes", "0"),
			  restart(mem, path)));

	fd = nomem_open(mem->ino, "restore/record");
	FOR_EACH_FAILURE("``restore/record``, begin", BIT(ENOMEM),
			 nomem_write(fd, order), nomem_intact(mem),
			 set(mem, "restore/record", "\n"));
	set(mem, "restore/record", order);
	nomem_bad(mem, 1);
	FOR_EACH_FAILURE("``restore/record``, end", BIT(ENOMEM),
			 nomem_write(fd, "\n"), nomem_intact(mem),
			 (set(mem, "restore/record", "\n"),
			  set(mem, "restore/record", order),
			  restart(mem, path), nomem_bad(mem, 1)));
	set(mem, "restore/record", "\n");
	close(fd);
	fd = nomem_open(mem->ino, "restore/order");
	FOR_EACH_FAILURE("``restore/order``", BIT(ENOMEM),
			 nomem_write(fd, order), nomem_intact(mem),
			 set(mem, "restore/order", "\n"));
	close(fd);
	EXPECT_EQ(0, nomem_bad(mem, 1));
	close(image);
	free(buf);
	unlink(path);
	unlink(order);
}

/* -EPROTO: it finds something wrong. */
static int check(const char *path, char *buf)
{
	int fd = open(path, O_RDONLY), r = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, DMM_CHECK_SIZE - 1);
	if (n < 0) {
		r = -errno;
	} else {
		buf[n] = 0;
		if (!strstr(buf, "ok: "))
			r = -EPROTO;
	}
	close(fd);
	return r;
}

DMM_TEST(policies, check)
{
	char *buf = calloc(1, DMM_CHECK_SIZE), path[64];

	ASSERT_NE(NULL, buf);
	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm_dmm/%lu/check",
		 self->mem.ino);
	memset(buf, 1, DMM_CHECK_SIZE);
	FOR_EACH_FAILURE("reading ``check``", BIT(ENOMEM), check(path, buf),
			 nomem_intact(&self->mem), (void)0);
	free(buf);
}

TEST_HARNESS_MAIN
