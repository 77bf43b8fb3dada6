// SPDX-License-Identifier: GPL-2.0-only
/*
 * What guest memory costs, on dmmfs and on other kinds of memory.
 *
 *	dmm_bench OPERATION MEMORY
 *
 * prints one number: nanoseconds a page, or what the operation says.  Where an
 * instruction is a nanosecond, see tools/testing/dmm/bench, that is the number
 * of instructions that host and guest took.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dmm_util.h"
#include "userfaultfd_util.h"

#define SIZE	(64UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

enum kind { ANONYMOUS, THP, UFFD, SHMEM, DMMFS, BLOCKS, NR_KINDS };

static const char * const kinds[NR_KINDS] = {
	[ANONYMOUS]	= "anonymous",
	[THP]		= "thp",
	[UFFD]		= "uffd",
	[SHMEM]		= "shmem",
	[DMMFS]		= "dmmfs",
	[BLOCKS]	= "dmmfs-blocks",
};

/* A guest with SIZE bytes of some kind of memory that nobody has touched. */
struct bench {
	enum kind kind;
	struct dmm_guest *guest;
	struct dmm_mem mem;
	struct uffd_desc *uffd;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static char zeroes[DMM_PAGE];

static int serve(int mode, int uffd, struct uffd_msg *msg)
{
	struct uffdio_copy copy = {
		.src = (uintptr_t)zeroes,
		.dst = msg->arg.pagefault.address & ~(DMM_PAGE - 1),
		.len = DMM_PAGE,
	};

	return ioctl(uffd, UFFDIO_COPY, &copy);
}

static void *aligned_map(int flags, int fd)
{
	char *p = mmap(NULL, SIZE + DMM_BLOCK, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	TEST_ASSERT(p != MAP_FAILED, "mmap() failed");
	p = (char *)(((uintptr_t)p + DMM_BLOCK - 1) & ~(DMM_BLOCK - 1));
	p = mmap(p, SIZE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	TEST_ASSERT(p != MAP_FAILED, "mmap() of guest memory failed");
	return p;
}

static void bench_begin(struct bench *b)
{
	struct dmm_mem *mem = &b->mem;
	int advice;

	switch (b->kind) {
	case ANONYMOUS:
	case THP:
	case UFFD:
		mem->hva = aligned_map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
		advice = b->kind == THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
		TEST_ASSERT(!madvise(mem->hva, SIZE, advice), "madvise() failed");
		mem->fd = -1;
		break;
	case SHMEM:
		mem->fd = kvm_memfd_alloc(SIZE, false);
		mem->hva = aligned_map(MAP_SHARED, mem->fd);
		break;
	default:
		*mem = dmm_mem_create(SIZE);
		munmap(mem->hva, SIZE);
		mem->hva = aligned_map(MAP_SHARED, mem->fd);
		TEST_ASSERT(dmm_has_policy(mem->ino, "demand"),
			    "dmmfs memory is not filled on demand");
	}
	mem->size = SIZE;

	b->guest = dmm_guest_create(1);
	dmm_guest_add_mem(b->guest, mem);
	if (b->kind == UFFD)
		b->uffd = uffd_setup_demand_paging(UFFDIO_REGISTER_MODE_MISSING,
						   0, mem->hva, SIZE, 1, serve);

	/* The guest's code, stack and command are no part of any result. */
	TEST_ASSERT(!dmm_guest_run(b->guest, 0, DMM_OP_TOUCH, DMM_GPA, 0, 0),
		    "The guest doesn't run");
	TEST_ASSERT(!dmm_guest_run(b->guest, 0, DMM_OP_READ, DMM_GPA, 0, 0),
		    "The guest doesn't run");
}

static void bench_end(struct bench *b)
{
	dmm_guest_free(b->guest);
	if (b->uffd)
		uffd_stop_demand_paging(b->uffd);
	dmm_mem_free(&b->mem);
}

/* All memory is there, but the guest has not seen it. */
static void populate(struct bench *b)
{
	uint64_t huge;

	if (b->kind == BLOCKS)
		TEST_ASSERT(!fallocate(b->mem.fd, 0, 0, SIZE), "fallocate() failed");
	TEST_ASSERT(!madvise(b->mem.hva, SIZE, MADV_POPULATE_WRITE),
		    "MADV_POPULATE_WRITE failed");
	if (b->kind != BLOCKS && b->kind != DMMFS)
		return;

	TEST_ASSERT(dmm_pool_get(b->mem.ino, "resident_bytes") == SIZE,
		    "dmmfs memory is not populated");
	huge = dmm_pool_get(b->mem.ino, "huge_bytes");
	TEST_ASSERT(huge == (b->kind == BLOCKS ? SIZE : 0),
		    "%lu bytes of dmmfs memory are blocks", huge);
}

static double touch(struct bench *b, enum dmm_op op)
{
	double begin = now();
	int r = dmm_guest_run(b->guest, 0, op, DMM_GPA, PAGES, 1);

	begin = now() - begin;
	TEST_ASSERT(!r, "The guest failed: %d", r);
	return begin / PAGES;
}

static double first_write(struct bench *b)
{
	return touch(b, DMM_OP_TOUCH);
}

static double first_read(struct bench *b)
{
	return touch(b, DMM_OP_READ);
}

/* KVM has dropped its mappings, the memory is where it was. */
static double populated_write(struct bench *b)
{
	populate(b);
	return touch(b, DMM_OP_TOUCH);
}

static double punch_whole(struct bench *b)
{
	double begin;

	touch(b, DMM_OP_TOUCH);
	begin = now();
	TEST_ASSERT(!fallocate(b->mem.fd, PUNCH, 0, SIZE), "fallocate() failed");
	return (now() - begin) / PAGES;
}

/* As QEMU's balloon does. */
static double punch_pages(struct bench *b)
{
	double begin;
	uint64_t at;
	int bad = 0;

	touch(b, DMM_OP_TOUCH);
	begin = now();
	for (at = 0; at < SIZE; at += DMM_PAGE) {
		bad |= fallocate(b->mem.fd, PUNCH, at, DMM_PAGE);
		bad |= madvise(b->mem.hva + at, DMM_PAGE, MADV_DONTNEED);
	}
	begin = now() - begin;
	TEST_ASSERT(!bad, "fallocate() or madvise() failed");
	return begin / PAGES;
}

/* Nanoseconds to lower or to raise a limit that the pool stays below. */
static double resize(struct bench *b, bool lower)
{
	char *path = dmm_pool_path(b->mem.ino, "max_bytes");
	int fd = open(path, O_WRONLY), i, rounds = 100;
	double begin, total = 0;

	TEST_ASSERT(fd >= 0, "open(%s) failed", path);
	for (i = 0; i < 2 * rounds; i++) {
		char value[32];
		int n = sprintf(value, "%lu", i & 1 ? SIZE : SIZE / 2);

		begin = now();
		TEST_ASSERT(pwrite(fd, value, n, 0) == n, "Resize failed");
		if (lower != (i & 1))
			total += now() - begin;
	}
	close(fd);
	free(path);
	return total / rounds;
}

static double resize_lower(struct bench *b)
{
	return resize(b, true);
}

static double resize_raise(struct bench *b)
{
	return resize(b, false);
}

/* Free memory, with the pages that CPUs keep at hand. */
static double free_bytes(void)
{
	FILE *f = fopen("/proc/zoneinfo", "r");
	double pages = 0, n;
	char line[128];

	TEST_ASSERT(f, "Can't open /proc/zoneinfo");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " nr_free_pages %lf", &n) == 1 ||
		    sscanf(line, " count: %lf", &n) == 1)
			pages += n;
	}
	fclose(f);
	return pages * DMM_PAGE;
}

/*
 * Bytes that the map takes for each page of guest memory: one page in each of
 * many regions is used, so nearly all that isn't those pages is the map.
 */
#define REGIONS		16384UL
#define MAP_SIZE	(REGIONS * DMM_BLOCK)

/* Give files back for good: the kernel does so when it gets to it. */
static void map_free(struct dmm_mem *mem)
{
	dmm_mem_free(mem);
	TEST_ASSERT(dmm_pool_gone(mem->ino), "A closed file remains");
	usleep(100000);
}

static double map_in_use(struct bench *b)
{
	struct dmm_mem mem = dmm_mem_create(MAP_SIZE);
	double bytes = free_bytes();
	unsigned long i;

	for (i = 0; i < REGIONS; i++)
		TEST_ASSERT(pwrite(mem.fd, "", 1, i * DMM_BLOCK) == 1,
			    "pwrite() failed");

	bytes -= free_bytes();
	map_free(&mem);
	return (bytes / REGIONS - DMM_PAGE) / (DMM_BLOCK / DMM_PAGE);
}

/* The same for memory that is configured and mapped, but untouched. */
static double map_untouched(struct bench *b)
{
	double bytes = free_bytes();
	struct dmm_mem mem = dmm_mem_create(MAP_SIZE);

	bytes -= free_bytes();
	map_free(&mem);
	return bytes / (MAP_SIZE / DMM_PAGE);
}

static const struct operation {
	const char *name;
	double (*run)(struct bench *b);
	bool no_guest;
} operations[] = {
	{ "first-write", first_write },
	{ "first-read", first_read },
	{ "populated-write", populated_write },
	{ "punch-whole", punch_whole },
	{ "punch-pages", punch_pages },
	{ "resize-lower", resize_lower },
	{ "resize-raise", resize_raise },
	{ "map-in-use", map_in_use, true },
	{ "map-untouched", map_untouched, true },
};

int main(int argc, char **argv)
{
	const char *name = argc > 2 ? argv[2] : "dmmfs";
	const struct operation *op = operations;
	const struct operation *end = op + ARRAY_SIZE(operations);
	struct bench b = { .kind = 0 };
	double result;

	while (op < end && (argc < 2 || strcmp(op->name, argv[1])))
		op++;
	while (b.kind < NR_KINDS && strcmp(kinds[b.kind], name))
		b.kind++;
	if (op == end || b.kind == NR_KINDS) {
		fprintf(stderr, "usage: dmm_bench OPERATION MEMORY\noperations:");
		for (op = operations; op < end; op++)
			fprintf(stderr, " %s", op->name);
		fprintf(stderr, "\nmemory:");
		for (b.kind = 0; b.kind < NR_KINDS; b.kind++)
			fprintf(stderr, " %s", kinds[b.kind]);
		fprintf(stderr, "\n");
		return 2;
	}

	if (!op->no_guest)
		bench_begin(&b);
	result = op->run(&b);
	if (!op->no_guest)
		bench_end(&b);

	printf("%.4f\n", result);
	return 0;
}
