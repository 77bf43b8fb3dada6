// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the tests have in common in which allocations fail.
 */
#include <sys/mman.h>
#include <sys/stat.h>

#include "nomem_util.h"

#define DEBUGFS	"/sys/kernel/debug/"
#define CGROUP	"/sys/fs/cgroup"

/* More failures of one call than this are a loop without end. */
#define TIMES		20000
/* So many tries of a call with pages, or the slab allocator, failing. */
#define STEPS		16
#define UNLIMITED	(1 << 30)
/* No call has as many points of failure. */
#define MOST		5000

enum { SLAB, PAGE, COPY, ATTRS };

static const char * const attr_dir[ATTRS] = {
	[SLAB] = DEBUGFS "failslab",
	[PAGE] = DEBUGFS "fail_page_alloc",
	[COPY] = DEBUGFS "fail_usercopy",
};

static const struct {
	const char *file;
	long value;
} knobs[] = {
	{ "probability", 0 },
	{ "interval", 1 },
	{ "verbose", 0 },
	{ "space", 0 },
	{ "task-filter", 1 },
	/* Not all have them. */
	{ "min-order", 0 },
	{ "cache-filter", 0 },
	{ "ignore-gfp-wait", 0 },
	{ "ignore-gfp-highmem", 0 },
};

static int times_fd[ATTRS], space_fd[ATTRS], probability_fd[ATTRS];
static int tasks_fd[ATTRS];
static int nth_fd, filter_fd;

static int open_attr(int attr, const char *file)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/%s", attr_dir[attr], file);
	return open(path, O_RDWR);
}

static void put(int fd, long value)
{
	char buf[24];

	if (fd < 0)
		return;
	snprintf(buf, sizeof(buf), "%ld", value);
	TEST_ASSERT(write(fd, buf, strlen(buf)) > 0, "Cannot arm");
}

/* Such files are read once only. */
static long get(int attr, const char *file)
{
	int fd = open_attr(attr, file);
	char buf[24] = {};

	if (fd < 0)
		return TIMES;
	TEST_ASSERT(read(fd, buf, sizeof(buf) - 1) > 0, "Cannot read %s", file);
	close(fd);
	return atol(buf);
}

static void set_knobs(int attr)
{
	char value[8];
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		fd = open_attr(attr, knobs[i].file);
		if (fd < 0)
			continue;
		snprintf(value, sizeof(value), "%ld", knobs[i].value);
		TEST_ASSERT(write(fd, value, strlen(value)) > 0,
			    "Cannot set %s", knobs[i].file);
		close(fd);
	}
}

/* Whatever happens: nothing fails that runs later. */
static void reset(void)
{
	int attr;

	for (attr = 0; attr < ATTRS; attr++)
		set_knobs(attr);
	put(filter_fd, 0);
}

/*
 * As soon as there was a control group for memory, each frame is an allocation
 * of its own, rather than one of a stock.
 */
static void make_group(void)
{
	const char *path = CGROUP "/dmm-nomem-test";

	dmm_write_file(CGROUP "/cgroup.subtree_control", "+memory", 7);
	if (!mkdir(path, 0700))
		rmdir(path);
}

bool nomem_setup(void)
{
	char stack[65536];
	int attr;

	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	filter_fd = open("/proc/thread-self/make-it-fail", O_RDWR);
	if (nth_fd < 0 || filter_fd < 0 || access(attr_dir[SLAB], F_OK) ||
	    access(attr_dir[PAGE], F_OK))
		return false;
	for (attr = 0; attr < ATTRS; attr++) {
		times_fd[attr] = open_attr(attr, "times");
		space_fd[attr] = open_attr(attr, "space");
		tasks_fd[attr] = open_attr(attr, "task-filter");
		probability_fd[attr] = open_attr(attr, "probability");
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	make_group();
	atexit(reset);
	reset();
	/*
	 * What this program touches has to be there: without memory its page
	 * faults would be tried again for ever.
	 */
	memset(stack, 0, sizeof(stack));
	asm volatile("" : : "r"(stack) : "memory");
	TEST_ASSERT(!mlockall(MCL_CURRENT), "mlockall() failed");
	return true;
}

static int attr_of(enum nomem_mode mode)
{
	return mode == NOMEM_PAGES ? PAGE : SLAB;
}

void nomem_begin(struct nomem *nomem, const char *name, uint64_t errnos)
{
	*nomem = (struct nomem) {
		.name = name,
		.errnos = errnos,
		.mode = NOMEM_NTH,
		.step = 1,
	};
}

/*
 * One after the other fails, or from one on all, until the call met none.  How
 * much it allocates is found out first, to take no more than STEPS steps.
 */
bool nomem_more(struct nomem *nomem)
{
	if (!nomem->n || nomem->n == UNLIMITED) {
		nomem->n = 1;
	} else if (nomem->hit || nomem->copy) {
		TEST_ASSERT(nomem->points[nomem->mode] < MOST, "No end");
		nomem->n += nomem->step;
	} else {
		nomem->mode++;
		nomem->n = UNLIMITED;
	}
	return nomem->mode < NOMEM_MODES;
}

void nomem_arm(struct nomem *nomem)
{
	int attr;

	for (attr = 0; attr < ATTRS; attr++)
		put(times_fd[attr], TIMES);
	if (nomem->mode == NOMEM_NTH) {
		put(nth_fd, nomem->n);
		return;
	}
	attr = attr_of(nomem->mode);
	put(space_fd[attr], nomem->n);
	put(probability_fd[attr], 100);
	put(filter_fd, 1);
}

/* Copies can be made to fail, too, also those right here: then nothing had. */
static bool disarm_nth(void)
{
	char buf[16] = {};
	ssize_t n;

	n = pread(nth_fd, buf, sizeof(buf) - 1, 0);
	TEST_ASSERT(n > 0 || errno == EFAULT, "Cannot read fail-nth");
	if (n <= 0)
		return false;
	n = pwrite(nth_fd, "0", 1, 0);
	TEST_ASSERT(n > 0 || errno == EFAULT, "Cannot disarm");
	return atoi(buf) == 0;
}

void nomem_disarm(struct nomem *nomem)
{
	long used, left[ATTRS];
	bool failed;
	int attr;

	if (nomem->mode == NOMEM_NTH) {
		failed = disarm_nth();
	} else {
		put(filter_fd, 0);
		put(probability_fd[attr_of(nomem->mode)], 0);
		failed = true;
	}
	for (attr = 0; attr < ATTRS; attr++)
		left[attr] = get(attr, "times");
	nomem->copy = failed && left[COPY] < TIMES;
	nomem->hit = failed && (left[SLAB] < TIMES || left[PAGE] < TIMES);
	nomem->endless = !left[SLAB] || !left[PAGE];
	if (nomem->hit) {
		nomem->points[nomem->mode]++;
		nomem->failed[nomem->mode] += !!nomem->ret;
	}
	if (nomem->n == UNLIMITED) {
		used = UNLIMITED - get(attr_of(nomem->mode), "space");
		nomem->step = used / STEPS ?: 1;
		/* Few objects are smaller. */
		if (nomem->mode == NOMEM_SLAB && nomem->step < 16)
			nomem->step = 16;
	}
}

bool nomem_as_documented(const struct nomem *nomem)
{
	if (nomem->endless)
		return false;
	/* A copy that fails is none of the caller's allocations. */
	if (!nomem->ret || nomem->copy)
		return true;
	return nomem->hit && nomem->ret > -64 && (nomem->errnos & BIT(-nomem->ret));
}

bool nomem_report(const struct nomem *nomem)
{
	const unsigned int *points = nomem->points, *failed = nomem->failed;

	printf("# nomem: %s: %u %u, pages %u %u, slab %u %u\n", nomem->name,
	       points[NOMEM_NTH], failed[NOMEM_NTH], points[NOMEM_PAGES],
	       failed[NOMEM_PAGES], points[NOMEM_SLAB], failed[NOMEM_SLAB]);
	return !nomem->errnos || points[NOMEM_NTH] || points[NOMEM_PAGES] ||
		points[NOMEM_SLAB];
}

/* It needs no memory to begin and to end. */
void nomem_background(unsigned int percent, pid_t pid)
{
	char path[64];
	int attr;

	if (pid) {
		snprintf(path, sizeof(path), "/proc/%d/make-it-fail", pid);
		TEST_ASSERT(!dmm_write_file(path, "1", 1), "No %s", path);
	}
	for (attr = SLAB; attr <= PAGE; attr++) {
		put(tasks_fd[attr], !!pid);
		put(space_fd[attr], 0);
		put(times_fd[attr], UNLIMITED);
	}
	for (attr = SLAB; attr <= PAGE; attr++)
		put(probability_fd[attr], percent);
}

unsigned int nomem_background_end(void)
{
	unsigned int failed = 0;
	int attr;

	for (attr = SLAB; attr <= PAGE; attr++)
		put(probability_fd[attr], 0);
	for (attr = SLAB; attr <= PAGE; attr++) {
		put(tasks_fd[attr], 1);
		failed += UNLIMITED - get(attr, "times");
	}
	return failed;
}

int nomem_open(unsigned long ino, const char *file)
{
	char *path = dmm_pool_path(ino, file);
	int fd = open(path, O_WRONLY);

	TEST_ASSERT(fd >= 0, "open(%s) failed", path);
	free(path);
	return fd;
}

int nomem_write(int fd, const char *value)
{
	ssize_t n = pwrite(fd, value, strlen(value), 0);

	if (n < 0)
		return -errno;
	return n == (ssize_t)strlen(value) ? 0 : -EIO;
}

struct dmm_mem nomem_mem(void)
{
	struct dmm_mem mem = dmm_mem_create_exact(SIZE);

	dmm_fill(mem.hva, 0, WITNESS, WITNESS_SEED);
	return mem;
}

bool nomem_intact(const struct dmm_mem *mem)
{
	return !dmm_bad_pages(mem->hva, 0, WITNESS, WITNESS_SEED) &&
		dmm_pool_ok(mem->ino);
}

void nomem_punch(const struct dmm_mem *mem)
{
	TEST_ASSERT(!fallocate(mem->fd, PUNCH, OFFSET, LEN),
		    "Punching a hole failed");
}
