// SPDX-License-Identifier: GPL-2.0-only
/*
 * What guest memory costs, on dmmfs and on other kinds of memory.
 *
 *	dmm_bench [OPTION...] MEMORY [STEP...] -- STEP... [-- STEP...]
 *
 * makes a guest with memory of some kind, does the first steps, measures the
 * second ones, does the third ones, and prints one number: nanoseconds a page,
 * or what an option says.  Where an instruction is a nanosecond, see
 * tools/testing/dmm/bench, that is the number of instructions that host and
 * guest took.  "dmm_bench -h" lists what there is.
 *
 * The exit status is 4 if what is to be measured doesn't exist here: a policy,
 * or one of its numbers, or an operation of the file system.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "dmm_bench.h"
#include "dmm_util.h"
#include "userfaultfd_util.h"

#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define CHUNK	(1UL << 20)

enum kind { ANONYMOUS, THP, SHMEM, UFFD, UFFD_MINOR, DMMFS, DMMFS_DEFAULT, NR_KINDS };

static const struct {
	const char *name;
	const char *help;
} kinds[NR_KINDS] = {
	[ANONYMOUS]	= { "anonymous", "4 KiB pages" },
	[THP]		= { "thp", "anonymous, transparent huge pages" },
	[SHMEM]		= { "shmem", "a memfd" },
	[UFFD]		= { "uffd", "anonymous, filled by userfaultfd (MISSING)" },
	[UFFD_MINOR]	= { "uffd-minor", "a memfd that is full, mapped by userfaultfd" },
	[DMMFS]		= { "dmmfs", "4 KiB pages, one a fault, unless steps say otherwise" },
	[DMMFS_DEFAULT]	= { "dmmfs-default", "dmmfs as it comes" },
};

/*
 * @kind: of its memory
 * @guest: the guest with that memory
 * @mem: the memory
 * @other: a second dmmfs file: what a clone was made of, or the clone
 * @uffd: who fills the memory
 * @image: content to fill it with
 * @out: pages that were taken out last
 */
static struct bench {
	enum kind kind;
	struct dmm_guest *guest;
	struct dmm_mem mem;
	struct dmm_mem other;
	struct uffd_desc *uffd;
	char *image;
	uint64_t out;
} b = { .other.fd = -1 };

static uint64_t size = 32UL << 20;

static bool on_dmmfs(void)
{
	return b.kind >= DMMFS;
}

static void missing(const char *what)
{
	fprintf(stderr, "dmm_bench: there is no %s\n", what);
	exit(BENCH_MISSING);
}

static int serve(int mode, int uffd, struct uffd_msg *msg)
{
	uint64_t at = msg->arg.pagefault.address & ~(DMM_PAGE - 1);
	static char zeroes[DMM_PAGE];
	struct uffdio_continue go_on = {
		.range = { .start = at, .len = DMM_PAGE },
	};
	struct uffdio_copy copy = {
		.src = (uintptr_t)zeroes,
		.dst = at,
		.len = DMM_PAGE,
	};

	if (mode == UFFDIO_REGISTER_MODE_MINOR)
		return ioctl(uffd, UFFDIO_CONTINUE, &go_on);
	if (b.image)
		copy.src = (uintptr_t)b.image + at - (uintptr_t)b.mem.hva;
	return ioctl(uffd, UFFDIO_COPY, &copy);
}

static void *aligned_map(int flags, int fd)
{
	char *p = mmap(NULL, size + DMM_BLOCK, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	TEST_ASSERT(p != MAP_FAILED, "mmap() failed");
	p = (char *)(((uintptr_t)p + DMM_BLOCK - 1) & ~(DMM_BLOCK - 1));
	p = mmap(p, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	TEST_ASSERT(p != MAP_FAILED, "mmap() of guest memory failed");
	return p;
}

/* What a policy does not know it does not do. */
static void one_page_a_fault(unsigned long ino)
{
	int r = dmm_pool_set(ino, "demand/fault_around_bytes", "4K");

	TEST_ASSERT(!r || r == -ENOENT, "demand/fault_around_bytes: %d", r);
	r = dmm_pool_set(ino, "demand/block", "never");
	TEST_ASSERT(!r || r == -ENOENT, "demand/block: %d", r);
}

static struct dmm_mem dmmfs_create(void)
{
	struct dmm_mem mem = dmm_mem_create(size);

	dmm_mem_unmap(&mem);
	mem.hva = aligned_map(MAP_SHARED, mem.fd);
	TEST_ASSERT(dmm_has_policy(mem.ino, "demand"),
		    "dmmfs memory is not filled on demand");
	if (b.kind == DMMFS)
		one_page_a_fault(mem.ino);
	return mem;
}

/* What the guest needs beside its memory is not to be taken out with that. */
static void guest_create(void)
{
	struct userspace_mem_region *own;

	b.guest = dmm_guest_create(1);
	dmm_guest_add_mem(b.guest, &b.mem);
	own = memslot2region(b.guest->vm, 0);
	TEST_ASSERT(!mlock(own->host_mem, own->region.memory_size), "mlock() failed");
}

/* A memfd is full: that somebody else has written it is the point. */
static void fill_memfd(int fd)
{
	char *p = calloc(1, CHUNK);
	uint64_t at;

	TEST_ASSERT(p, "Out of memory");
	for (at = 0; at < size; at += CHUNK)
		TEST_ASSERT(pwrite(fd, p, CHUNK, at) == CHUNK, "pwrite() failed");
	free(p);
}

static void bench_begin(void)
{
	struct dmm_mem *mem = &b.mem;
	int advice, mode = 0;

	switch (b.kind) {
	case ANONYMOUS:
	case THP:
	case UFFD:
		mem->hva = aligned_map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
		advice = b.kind == THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
		TEST_ASSERT(!madvise(mem->hva, size, advice), "madvise() failed");
		mem->fd = -1;
		if (b.kind == UFFD)
			mode = UFFDIO_REGISTER_MODE_MISSING;
		break;
	case SHMEM:
	case UFFD_MINOR:
		mem->fd = kvm_memfd_alloc(size, false);
		mem->hva = aligned_map(MAP_SHARED, mem->fd);
		if (b.kind == UFFD_MINOR) {
			fill_memfd(mem->fd);
			mode = UFFDIO_REGISTER_MODE_MINOR;
		}
		break;
	default:
		*mem = dmmfs_create();
	}
	mem->size = size;

	guest_create();
	if (mode)
		b.uffd = uffd_setup_demand_paging(mode, 0, mem->hva, size, 1, serve);
}

static void guest_do(enum dmm_op op, uint64_t pages)
{
	int r = dmm_guest_run(b.guest, 0, op, DMM_GPA, pages, 1);

	TEST_ASSERT(!r, "The guest failed: %d", r);
}

/*
 * The guest's code, stack and command are no part of any result.  With its
 * interrupts off it waits for its memory itself: to have a kworker wait makes
 * userfaultfd by half dearer.
 */
static void guest_warm_up(void)
{
	guest_do(DMM_OP_CLI, 0);
	guest_do(DMM_OP_TOUCH, 0);
	guest_do(DMM_OP_READ, 0);
}

static void bench_end(void)
{
	dmm_guest_free(b.guest);
	if (b.uffd)
		uffd_stop_demand_paging(b.uffd);
	dmm_mem_free(&b.mem);
	dmm_mem_free(&b.other);
}

static void guest_touch(enum dmm_op op)
{
	guest_do(op, size / DMM_PAGE);
}

static void step_write(const char *arg)
{
	guest_touch(DMM_OP_TOUCH);
}

static void step_read(const char *arg)
{
	guest_touch(DMM_OP_READ);
}

static void step_write_random(const char *arg)
{
	guest_touch(DMM_OP_TOUCH_RANDOM);
}

static void step_read_random(const char *arg)
{
	guest_touch(DMM_OP_READ_RANDOM);
}

static void step_populate(const char *arg)
{
	TEST_ASSERT(!madvise(b.mem.hva, size, MADV_POPULATE_WRITE),
		    "MADV_POPULATE_WRITE failed");
}

static void step_fallocate(const char *arg)
{
	TEST_ASSERT(!fallocate(b.mem.fd, 0, 0, size), "fallocate() failed");
}

static void step_fill(const char *content)
{
	bench_fill(b.mem.hva, size, content);

	/* A VMM has mapped little of what its guest has written. */
	if (b.mem.fd >= 0)
		TEST_ASSERT(!madvise(b.mem.hva, size, MADV_DONTNEED),
			    "madvise() failed");
	guest_touch(DMM_OP_TOUCH);
}

static void step_verify(const char *content)
{
	uint64_t bad = bench_bad_pages(b.mem.hva, size, content);

	TEST_ASSERT(!bad, "%lu pages have lost their content", bad);
}

static void step_image(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *p;

	TEST_ASSERT(fd >= 0 && !ftruncate(fd, size), "Can't make %s", path);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TEST_ASSERT(p != MAP_FAILED, "mmap() of %s failed", path);
	bench_fill(p, size, "half");
	munmap(p, size);

	b.image = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	TEST_ASSERT(b.image != MAP_FAILED, "mmap() of %s failed", path);
	close(fd);
}

static void step_punch(const char *arg)
{
	TEST_ASSERT(!fallocate(b.mem.fd, PUNCH, 0, size), "fallocate() failed");
}

/* As QEMU's balloon does. */
static void step_punch_pages(const char *arg)
{
	uint64_t at;
	int bad = 0;

	for (at = 0; at < size; at += DMM_PAGE) {
		bad |= fallocate(b.mem.fd, PUNCH, at, DMM_PAGE);
		bad |= madvise(b.mem.hva + at, DMM_PAGE, MADV_DONTNEED);
	}
	TEST_ASSERT(!bad, "fallocate() or madvise() failed");
}

static uint64_t pages_out(void)
{
	if (on_dmmfs())
		return dmm_pool_get(b.mem.ino, "swapped_bytes") / DMM_PAGE;
	return bench_swapped_pages(b.mem.hva, size);
}

/* Ask for all of it until nearly all of it has gone. */
static void step_out(const char *arg)
{
	uint64_t pages = size / DMM_PAGE;
	char value[32];
	int r, tries;

	for (tries = 0; tries < 10; tries++) {
		sprintf(value, "%lu", (pages - pages_out()) * DMM_PAGE);
		if (on_dmmfs())
			r = dmm_pool_set(b.mem.ino, "reclaim", value);
		else
			r = bench_memcg_set("memory.reclaim", value);
		TEST_ASSERT(!r || r == -EAGAIN || r == -EBUSY, "Reclaim: %d", r);
		b.out = pages_out();
		if (b.out >= pages - pages / 32)
			return;
	}
	TEST_FAIL("Of %lu pages no more than %lu can be taken out", pages, b.out);
}

/* PERCENT:ROUNDS, the guest works with the last PERCENT of its memory. */
static void step_work(const char *arg)
{
	uint64_t pages = size / DMM_PAGE, percent, rounds, gpa;

	TEST_ASSERT(sscanf(arg, "%lu:%lu", &percent, &rounds) == 2 &&
		    percent && percent <= 100, "work:PERCENT:ROUNDS");
	gpa = DMM_GPA + (pages - pages * percent / 100) * DMM_PAGE;
	pages = pages * percent / 100;
	for (; rounds; rounds--) {
		dmm_guest_fill(b.guest, gpa, pages, rounds | DMM_HALF);
		TEST_ASSERT(!dmm_guest_bad_pages(b.guest, gpa, pages,
						 rounds | DMM_HALF),
			    "The guest's memory has changed");
	}
}

static void step_ksm(const char *passes)
{
	bench_ksm(b.mem.hva, size, atoi(passes));
}

static void step_clone(const char *arg)
{
	b.other = dmmfs_create();
	if (!ioctl(b.other.fd, FICLONE, b.mem.fd))
		return;
	if (errno == EOPNOTSUPP || errno == ENOTTY)
		missing("FICLONE");
	TEST_FAIL("FICLONE failed");
}

static void step_copy(const char *arg)
{
	char *p = malloc(CHUNK);
	uint64_t at;
	int bad = 0;

	b.other = dmmfs_create();
	for (at = 0; at < size; at += CHUNK) {
		bad |= pread(b.mem.fd, p, CHUNK, at) != CHUNK;
		bad |= pwrite(b.other.fd, p, CHUNK, at) != CHUNK;
	}
	TEST_ASSERT(!bad, "pread() or pwrite() failed");
	free(p);
}

/* Go on with a guest that has the clone for its memory. */
static void step_switch(const char *arg)
{
	struct dmm_mem mem = b.mem;

	dmm_guest_free(b.guest);
	b.mem = b.other;
	b.other = mem;
	guest_create();
	guest_warm_up();
}

static void step_shell(const char *command)
{
	char *pool = dmm_pool_path(b.mem.ino, "");
	int r;

	setenv("POOL", pool, 1);
	free(pool);
	r = system(command);
	if (WIFEXITED(r) && WEXITSTATUS(r) == BENCH_MISSING)
		missing(command);
	TEST_ASSERT(!r, "'%s' failed: %#x", command, r);
}

/* FILE:NUMBER, until NUMBER is reached, or FILE:+NUMBER, that much more than now */
static void step_until(const char *arg)
{
	const char *number = strrchr(arg, ':');
	uint64_t wanted = number ? strtoull(number + 1, NULL, 0) : 0;
	char *file = strndup(arg, number ? number - arg : 0);
	int tries;

	if (number && number[1] == '+')
		wanted += dmm_pool_get(b.mem.ino, file);
	for (tries = 0; tries < 60000; tries++) {
		if (dmm_pool_get(b.mem.ino, file) >= wanted)
			break;
		usleep(1000);
	}
	TEST_ASSERT(tries < 60000, "%s hasn't come to pass in a minute", arg);
	free(file);
}

/* FILE=VALUE, or FILE==NUMBER, which has to be so */
static void step_pool(const char *arg)
{
	const char *value = strchr(arg, '=') + 1;
	char *file = strndup(arg, value - 1 - arg);
	uint64_t have;
	int r;

	if (!on_dmmfs()) {
		TEST_FAIL("%s: not on dmmfs", arg);
	} else if (*value == '=') {
		have = dmm_pool_get(b.mem.ino, file);
		TEST_ASSERT(have == bench_bytes(value + 1), "%s, but it is %lu",
			    arg, have);
	} else {
		r = dmm_pool_set(b.mem.ino, file, value);
		if (r == -ENOENT)
			missing(arg);
		TEST_ASSERT(!r, "%s: %d", arg, r);
	}
	free(file);
}

/* @waits: somebody else does the work, and sleeps in between. */
static const struct step {
	const char *name;
	void (*run)(const char *arg);
	const char *help;
	bool waits;
} steps[] = {
	{ "write", step_write, "the guest writes a word to each page" },
	{ "read", step_read, "the guest reads a word of each page" },
	{ "write-random", step_write_random, "the same in random order" },
	{ "read-random", step_read_random, "the same in random order" },
	{ "fill:CONTENT", step_fill, "content, mapped by the guest: half, mixed (LZ4 compresses\n"
		"both to half, the latter with more work), random, equal (16 pages each),\n"
		"same (filled with a word)" },
	{ "verify:CONTENT", step_verify, "fail if the content isn't that" },
	{ "work:PERCENT:ROUNDS", step_work, "the guest writes the last PERCENT of its memory, all\n"
		"bytes, reads and checks them, again and again" },
	{ "populate", step_populate, "the VMM touches each page" },
	{ "fallocate", step_fallocate, "the file is allocated, by 2 MiB" },
	{ "image:PATH", step_image, "make an image file; userfaultfd fills memory from it" },
	{ "punch", step_punch, "make a hole of all of it" },
	{ "punch-pages", step_punch_pages, "page by page, as a balloon does" },
	{ "out", step_out, "reclaim all of it; now \"a page\" is one that went out" },
	{ "ksm:N", step_ksm, "N passes of ksmd", true },
	{ "clone", step_clone, "FICLONE the file" },
	{ "copy", step_copy, "read and write the file" },
	{ "switch", step_switch, "go on with the clone" },
	{ "sh:COMMAND", step_shell, "run by a shell; the pool is in ${POOL}" },
	{ "until:FILE:N", step_until, "wait until a number of the pool is N, or with +N\n"
		"N more than now", true },
	{ "FILE=VALUE", step_pool, "write to a file of the pool in sysfs" },
	{ "FILE==BYTES", step_pool, "fail if a number of the pool isn't that" },
};

static const struct step *find_step(const char *word, const char **arg)
{
	const struct step *step;
	size_t len;

	for (step = steps; step < steps + ARRAY_SIZE(steps); step++) {
		len = strcspn(step->name, ":");
		*arg = step->name[len] ? word + len + 1 : NULL;
		if (!strncmp(word, step->name, len) &&
		    word[len] == step->name[len])
			return step;
	}
	*arg = word;
	return strchr(word, '=') ? step - 1 : NULL;
}

static void usage(void)
{
	const struct step *step;
	int kind;

	printf("usage: dmm_bench [OPTION...] MEMORY [STEP...] -- STEP... [-- STEP...]\n"
	       "The steps between the dashes are measured.\n\n"
	       "-m SIZE\t\tsize of the memory (32M)\n"
	       "-n ROUNDS\tmeasure the average of that many rounds\n"
	       "-t\t\tin total, not for each page\n"
	       "-x COUNTER\tmeasure a counter of the vCPU, such as exits\n\nMEMORY:\n");
	for (kind = 0; kind < NR_KINDS; kind++)
		printf("%-15s %s\n", kinds[kind].name, kinds[kind].help);
	printf("\nSTEP:\n");
	for (step = steps; step < steps + ARRAY_SIZE(steps); step++)
		printf("%-15s %s\n", step->name, step->help);
}

/* Do steps up to the next dashes; returns what follows those. */
static char **do_steps(char **word)
{
	const char *arg;

	for (; *word && strcmp(*word, "--"); word++)
		find_step(*word, &arg)->run(arg);
	return *word ? word + 1 : word;
}

int main(int argc, char **argv)
{
	const char *counter = NULL, *arg;
	bool total = false, waits = false;
	int opt, i, parts = 0, rounds = 1;
	char **measured, **rest = NULL;
	double result;

	while ((opt = getopt(argc, argv, "+m:n:tx:h")) != -1) {
		switch (opt) {
		case 'm':
			size = bench_bytes(optarg);
			break;
		case 'n':
			rounds = atoi_positive("Rounds", optarg);
			break;
		case 't':
			total = true;
			break;
		case 'x':
			counter = optarg;
			break;
		case 'h':
			usage();
			return 0;
		default:
			return 2;
		}
	}

	while (b.kind < NR_KINDS &&
	       (optind == argc || strcmp(kinds[b.kind].name, argv[optind])))
		b.kind++;
	for (i = optind + 1; i < argc; i++) {
		const struct step *step = find_step(argv[i], &arg);

		if (!strcmp(argv[i], "--")) {
			parts++;
		} else if (!step) {
			fprintf(stderr, "dmm_bench: what is \"%s\"?\n", argv[i]);
			return 2;
		} else if (parts == 1) {
			waits |= step->waits;
		}
	}
	if (b.kind == NR_KINDS || parts < 1 || parts > 2 || !size || size % DMM_BLOCK) {
		fprintf(stderr, "dmm_bench: see dmm_bench -h\n");
		return 2;
	}

	bench_begin();
	guest_warm_up();
	measured = do_steps(argv + optind + 1);

	result = -bench_now(b.guest->cpu[0].vcpu, counter, waits);
	for (i = 0; i < rounds; i++)
		rest = do_steps(measured);
	result += bench_now(b.guest->cpu[0].vcpu, counter, waits);

	do_steps(rest);
	if (!total)
		result /= b.out ?: size / DMM_PAGE;
	bench_end();

	printf("%.4f\n", result / rounds);
	return 0;
}
