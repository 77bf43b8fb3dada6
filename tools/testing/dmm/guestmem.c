// SPDX-License-Identifier: GPL-2.0-only
/*
 * The worker inside a guest: fill memory with values that tell where they
 * belong, change some of it again and again, and verify all of it each round.
 *
 *   guestmem MIB [SECONDS [SEED [STEP [random]]]]
 *
 * SECONDS	0 (the default): until killed
 * STEP		each round changes one page of so many (8); 0: none
 *
 * Each round prints one line, "guestmem: round N: MIB MiB hold, checksum X".
 * Every word is compared with what it must be; the checksum is over what was
 * read.  Guests with different seeds have different content.  It compresses about
 * 2:1, or not at all if it is random.
 * After a line "free" on its input, all but an eighth is given back
 * to the guest's kernel, which shows what a balloon can take.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096ul
#define WORDS	(PAGE / sizeof(uint64_t))

static uint64_t seed;
static int all_random;

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Half of a page is random, half is the page's number, unless it shall not compress. */
static uint64_t value(uint64_t page, uint64_t gen, unsigned int word)
{
	if ((word & 1) && !all_random)
		return page;
	return mix(page * WORDS + word + (gen << 48) + (seed << 40));
}

static void fill(uint64_t *mem, uint64_t page, uint64_t gen)
{
	uint64_t *p = mem + page * WORDS;
	unsigned int i;

	for (i = 0; i < WORDS; i++)
		p[i] = value(page, gen, i);
}

static int check(uint64_t *mem, uint64_t page, uint64_t gen, uint64_t *sum)
{
	volatile uint64_t *p = mem + page * WORDS;
	unsigned int i;

	for (i = 0; i < WORDS; i++) {
		if (p[i] != value(page, gen, i)) {
			printf("guestmem: WRONG: page %llu word %u is %llx, not %llx\n",
			       (unsigned long long)page, i, (unsigned long long)p[i],
			       (unsigned long long)value(page, gen, i));
			return -1;
		}
		*sum += p[i] * (i + 1);
	}
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long pages, page, seconds, round, step;
	char line[16], *end;
	time_t start = time(NULL);
	struct pollfd in = { .fd = 0, .events = POLLIN };
	uint64_t *mem, sum;
	uint16_t *gen;

	if (argc < 2)
		return 2;
	pages = strtoul(argv[1], &end, 0) << 8;
	if (*end || !pages)
		return 2;
	seconds = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
	seed = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	step = argc > 4 ? strtoul(argv[4], NULL, 0) : 8;
	all_random = argc > 5 && !strcmp(argv[5], "random");

	setlinebuf(stdout);
	mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	gen = calloc(pages, sizeof(*gen));
	if (mem == MAP_FAILED || !gen) {
		puts("guestmem: no memory");
		return 1;
	}
	for (page = 0; page < pages; page++)
		fill(mem, page, 0);
	printf("guestmem: %lu MiB filled\n", pages >> 8);

	for (round = 1; ; round++) {
		sum = 0;
		for (page = 0; page < pages; page++)
			if (check(mem, page, gen[page], &sum))
				return 1;
		printf("guestmem: round %lu: %lu MiB hold, checksum %016llx\n",
		       round, pages >> 8, (unsigned long long)sum);
		if (seconds && time(NULL) - start >= (time_t)seconds)
			return 0;
		for (page = step ? round % step : pages; page < pages; page += step)
			fill(mem, page, ++gen[page]);
		if (poll(&in, 1, 200) == 1 && fgets(line, sizeof(line), stdin) &&
		    !strcmp(line, "free\n") && pages > 8) {
			madvise((char *)mem + pages / 8 * PAGE,
				(pages - pages / 8) * PAGE, MADV_DONTNEED);
			pages /= 8;
			printf("guestmem: gave back all but %lu MiB\n", pages >> 8);
		}
	}
}
