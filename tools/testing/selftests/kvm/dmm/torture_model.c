// SPDX-License-Identifier: GPL-2.0-only
/*
 * The torture's model, its actors and what they tell when something is wrong.
 */
#include <signal.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>

#include "torture.h"

#define RING		64
#define LINE		TORTURE_LINE
#define COUNTS		128
#define COMMON_TAGS	12	/* contents that many pages have */

struct torture_file torture_files[TORTURE_FILES];
uint64_t torture_seed;
bool torture_verbose;

static struct torture_actor actors[TORTURE_ACTORS];
static unsigned int nr_actors;
static __thread struct torture_actor *self;
static volatile bool stop;
static bool over;

/* Protects @owned of all files. */
static pthread_mutex_t own_mutex = PTHREAD_MUTEX_INITIALIZER;

/* Protects the ring and the counts. */
static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static char ring[RING][LINE];
static uint64_t ring_nr;
static struct {
	const char *what;
	uint64_t n;
} counts[COUNTS];

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9UL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebUL;
	return x ^ x >> 31;
}

/* Below @n.  Depends on seed, actor and number of the operation only. */
uint64_t torture_rand(uint64_t n)
{
	self->rng += 0x9e3779b97f4a7c15UL;
	return mix(self->rng) % n;
}

const struct torture_op *torture_pick(const struct torture_op *ops,
				      unsigned int n)
{
	unsigned int i, sum = 0;
	uint64_t pick;

	for (i = 0; i < n; i++)
		sum += ops[i].weight;
	pick = torture_rand(sum);
	for (i = 0; pick >= ops[i].weight; i++)
		pick -= ops[i].weight;
	return &ops[i];
}

void torture_log(const char *fmt, ...)
{
	va_list args;
	char *line;
	int n;

	pthread_mutex_lock(&log_mutex);
	line = ring[ring_nr++ % RING];
	n = snprintf(line, LINE, "%s.%u #%lu ", self->name, self->id, self->nr);
	va_start(args, fmt);
	vsnprintf(line + n, LINE - n, fmt, args);
	va_end(args);
	snprintf(self->last, sizeof(self->last), "%s", line);
	if (torture_verbose)
		printf("# %s\n", line);
	pthread_mutex_unlock(&log_mutex);
}

/* @what is a literal, or lives as long. */
void torture_count(const char *what)
{
	unsigned int i;

	pthread_mutex_lock(&log_mutex);
	for (i = 0; i < COUNTS - 1 && counts[i].what; i++)
		if (!strcmp(counts[i].what, what))
			break;
	counts[i].what = what;
	counts[i].n++;
	pthread_mutex_unlock(&log_mutex);
}

static void print_file(const char *path)
{
	char buf[4096];
	ssize_t n;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		fwrite(buf, 1, n, stdout);
	close(fd);
}

/* How to get here again, and how it came to this. */
static void tell(void)
{
	uint64_t i;

	if (over)
		return;
	over = true;
	printf("# torture failed: -s %lu\n# the last operations:\n",
	       torture_seed);
	for (i = ring_nr > RING ? ring_nr - RING : 0; i < ring_nr; i++)
		printf("#  %s\n", ring[i % RING]);
	printf("# what everybody did last:\n");
	for (i = 0; i < nr_actors; i++)
		printf("#  %s\n", actors[i].last);
	fflush(stdout);
}

void torture_fail(const char *fmt, ...)
{
	va_list args;

	pthread_mutex_lock(&log_mutex);
	printf("# FAILED in %s.%u #%lu: ", self ? self->name : "main",
	       self ? self->id : 0, self ? self->nr : 0);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
	tell();
	_exit(1);
}

static bool range_free(const struct torture_range *range)
{
	uint64_t i;

	for (i = 0; i < range->n; i++)
		if (torture_files[range->file].owned[range->first + i])
			return false;
	return true;
}

static bool try_own(const struct torture_range *range)
{
	bool mine;

	pthread_mutex_lock(&own_mutex);
	mine = range_free(range);
	if (mine)
		memset(&torture_files[range->file].owned[range->first], true,
		       range->n);
	pthread_mutex_unlock(&own_mutex);
	return mine;
}

struct torture_range torture_own_exactly(unsigned int file, uint64_t first,
					 uint64_t n)
{
	struct torture_range range = { .file = file, .first = first, .n = n };

	while (!try_own(&range))
		usleep(1000);
	return range;
}

/* Some pages of a file, or with -1 of any. */
struct torture_range torture_own(int file, uint64_t max)
{
	struct torture_range range;

	for (;;) {
		range.file = file < 0 ? torture_rand(TORTURE_FILES) : file;
		range.n = 1 + torture_rand(max);
		range.first = torture_rand(TORTURE_PAGES - range.n + 1);
		if (try_own(&range))
			return range;
		usleep(100);
	}
}

void torture_disown(const struct torture_range *range)
{
	pthread_mutex_lock(&own_mutex);
	memset(&torture_files[range->file].owned[range->first], false, range->n);
	pthread_mutex_unlock(&own_mutex);
}

void *torture_hva(const struct torture_range *range)
{
	return torture_files[range->file].mem.hva + range->first * DMM_PAGE;
}

uint64_t *torture_tags(const struct torture_range *range)
{
	return &torture_files[range->file].tag[range->first];
}

void torture_new_tags(const struct torture_range *range, uint64_t *tags)
{
	uint64_t i, kind = torture_rand(4);

	for (i = 0; i < range->n; i++) {
		tags[i] = kind ? (uint64_t)(self->id + 1) << 48 |
				 self->nr << 16 | i :
				 1 + torture_rand(COMMON_TAGS);
		if (torture_rand(2))
			tags[i] |= DMM_TAG_HALF;
	}
}

void torture_set_tags(const struct torture_range *range, const uint64_t *tags)
{
	uint64_t i;

	for (i = 0; i < range->n; i++)
		torture_tags(range)[i] = tags ? tags[i] : 0;
}

/* Tell all that can be known of the first page that is wrong. */
static void describe(const struct torture_range *range, uint64_t i,
		     const uint64_t *page, const char *where)
{
	struct torture_file *file = &torture_files[range->file];
	uint64_t w, tag = torture_tags(range)[i], n = 0;
	char path[96];

	printf("# file %u (pool %lu) page %#lx by %s, tag %#lx:\n", range->file,
	       file->mem.ino, range->first + i, where, tag);
	for (w = 0; w < DMM_PAGE / 8; w++) {
		if (page[w] == dmm_tag_word(tag, w))
			continue;
		if (n++ < 4)
			printf("#  word %lu is %#lx, not %#lx\n", w, page[w],
			       dmm_tag_word(tag, w));
	}
	printf("#  %lu words are wrong\n", n);
	for (w = 0; w < TORTURE_FILES * TORTURE_PAGES; w++) {
		uint64_t t = torture_files[w / TORTURE_PAGES]
			     .tag[w % TORTURE_PAGES];

		if (page[0] == dmm_tag_word(t, 0))
			printf("#  first word as of file %lu page %#lx, tag %#lx\n",
			       w / TORTURE_PAGES, w % TORTURE_PAGES, t);
	}
	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm_dmm/%lu/map",
		 file->mem.ino);
	print_file(path);
	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm_dmm/%lu/check",
		 file->mem.ino);
	print_file(path);
}

void torture_verify(const struct torture_range *range, const void *mem,
		    const char *where)
{
	uint64_t i, page[DMM_PAGE / 8];

	for (i = 0; i < range->n; i++) {
		if (!dmm_tag_bad(mem + i * DMM_PAGE, torture_tags(range)[i]))
			continue;
		memcpy(page, mem + i * DMM_PAGE, DMM_PAGE);
		self->catches = false;
		describe(range, i, page, where);
		torture_fail("wrong content");
	}
}

/* A guest has said so; see what the host finds there. */
void torture_wrong(const struct torture_range *range, const char *where)
{
	uint64_t i, page[DMM_PAGE / 8];

	for (i = 0; i < range->n; i++) {
		pread(torture_files[range->file].mem.fd, page, DMM_PAGE,
		      (range->first + i) * DMM_PAGE);
		if (dmm_tag_bad(page, torture_tags(range)[i]))
			describe(range, i, page, where);
	}
	torture_fail("wrong content by %s in file %u %#lx+%lu", where,
		     range->file, range->first, range->n);
}

static void sigbus(int sig, siginfo_t *info, void *context)
{
	if (self && self->catches)
		siglongjmp(self->bus, 1);
	printf("# SIGBUS at %p\n", info->si_addr);
	tell();
	_exit(1);
}

bool torture_try(void (*fn)(void *arg), void *arg)
{
	if (sigsetjmp(self->bus, 1)) {
		self->catches = false;
		return false;
	}
	self->catches = true;
	fn(arg);
	self->catches = false;
	return true;
}

void torture_pool(unsigned long ino)
{
	static const char * const files[] = {
		"policies", "max_bytes", "resident_bytes", "shared_bytes",
		"compressed_bytes", "swapped_bytes", "stats/limit_wait",
		"stats/limit_failed", "stats/fetch_failed", "stats/reject_pinned",
		"stats/eject",
	};
	unsigned int i;
	char buf[256];

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		dmm_pool_read(ino, files[i], buf, sizeof(buf));
		printf("#  pool %lu %s: %s", ino, files[i], buf);
	}
}

void torture_relieve(unsigned int file, unsigned int tries, const char *what)
{
	torture_log("file %u: %s failed, no limit any more", file, what);
	torture_count("relieved");
	if (tries > 100) {
		torture_pool(torture_files[file].mem.ino);
		torture_fail("%s fails for ever in file %u", what, file);
	}
	dmm_pool_set(torture_files[file].mem.ino, "max_bytes", "max");
	usleep(tries * 1000);
}

void torture_check(unsigned long ino)
{
	char *buf = malloc(DMM_CHECK_SIZE);

	if (!dmm_pool_check(ino, NULL, buf))
		torture_fail("pool %lu:\n%s", ino, buf);
	free(buf);
	torture_count("check");
}

void torture_checker(void *arg)
{
	torture_check(torture_files[torture_rand(TORTURE_FILES)].mem.ino);
	usleep(torture_rand(50) * 1000);
}

static void *actor_main(void *p)
{
	self = p;
	self->tid = syscall(SYS_gettid);
	while (!stop) {
		self->rng = mix(mix(torture_seed) ^ mix((uint64_t)self->id << 40 ^
							self->nr));
		self->began = now();
		self->op(self->arg);
		self->nr++;
	}
	self->began = 0;
	return NULL;
}

void torture_start(const char *name, void (*op)(void *arg), void *arg)
{
	struct torture_actor *actor = &actors[nr_actors];

	TEST_ASSERT(nr_actors < TORTURE_ACTORS, "Too many actors");
	actor->name = name;
	actor->id = nr_actors++;
	actor->op = op;
	actor->arg = arg;
}

static void kicked(int signal)
{
}

void torture_kick(const char *name)
{
	unsigned int i;

	signal(SIGUSR1, kicked);
	for (i = 0; i < nr_actors; i++)
		if (!strcmp(actors[i].name, name))
			pthread_kill(actors[i].thread, SIGUSR1);
}

static void (*tell_stuck)(void);

/* Where everybody is. */
static void print_stacks(void)
{
	unsigned int i;
	char path[64];

	for (i = 0; i < nr_actors; i++) {
		printf("# %s.%u #%lu, for %lu s\n", actors[i].name, i,
		       actors[i].nr,
		       actors[i].began ? now() - actors[i].began : 0);
		snprintf(path, sizeof(path), "/proc/self/task/%d/stack",
			 actors[i].tid);
		print_file(path);
	}
}

static void watch(void)
{
	unsigned int i;

	for (i = 0; i < nr_actors; i++) {
		time_t began = actors[i].began;

		if (!began || now() - began < TORTURE_STUCK)
			continue;
		print_stacks();
		tell_stuck();
		torture_fail("%s.%u is stuck", actors[i].name, i);
	}
}

/* What ends a program whose time is over goes to the watchdog, which tells why. */
static sigset_t end_signal;

static void *watch_main(void *p)
{
	const struct timespec second = { .tv_sec = 1 };

	while (sigtimedwait(&end_signal, NULL, &second) != SIGTERM)
		watch();
	print_stacks();
	torture_fail("told to end");
	return NULL;
}

void torture_model_init(void (*stuck)(void))
{
	struct sigaction action = {
		.sa_sigaction = sigbus,
		.sa_flags = SA_SIGINFO,
	};
	static struct torture_actor main_actor = {
		.name = "main",
		.id = TORTURE_ACTORS,
	};

	self = &main_actor;
	tell_stuck = stuck;
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGBUS, &action, NULL);
	sigemptyset(&end_signal);
	sigaddset(&end_signal, SIGTERM);
	sigprocmask(SIG_BLOCK, &end_signal, NULL);
	atexit(tell);
}

void torture_run(unsigned int seconds)
{
	time_t end = now() + seconds;
	pthread_t watchdog;
	unsigned int i;

	for (i = 0; i < nr_actors; i++)
		TEST_ASSERT(!pthread_create(&actors[i].thread, NULL, actor_main,
					    &actors[i]),
			    "pthread_create() failed");
	TEST_ASSERT(!pthread_create(&watchdog, NULL, watch_main, NULL),
		    "pthread_create() failed");
	while (now() < end)
		usleep(100000);
	stop = true;
	for (i = 0; i < nr_actors; i++)
		pthread_join(actors[i].thread, NULL);
}

void torture_summary(void)
{
	uint64_t sum = 0;
	unsigned int i;

	over = true;
	for (i = 0; i < nr_actors; i++) {
		sum += actors[i].nr;
		printf("# %s.%u: %lu operations\n", actors[i].name, i,
		       actors[i].nr);
	}
	for (i = 0; i < COUNTS && counts[i].what; i++)
		printf("# %s: %lu\n", counts[i].what, counts[i].n);
	printf("# seed %lu: %lu operations\n", torture_seed, sum);
}
