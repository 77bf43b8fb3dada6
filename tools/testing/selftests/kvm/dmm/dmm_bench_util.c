// SPDX-License-Identifier: GPL-2.0-only
/*
 * What dmm_bench takes from the system that it runs on, and content for memory.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "dmm_bench.h"
#include "dmm_util.h"

#define WORDS		(DMM_PAGE / sizeof(uint64_t))
#define KSM		"/sys/kernel/mm/ksm/"
/* So many pages have the same content if it is "equal". */
#define COPIES		16

uint64_t bench_bytes(const char *s)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;
	uint64_t n = strtoull(s, &end, 0);

	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		n <<= 10 * (unit - units + 1);
		end++;
	}
	TEST_ASSERT(end != s && !*end, "'%s' is no size", s);
	return n;
}

static double counter_now(struct kvm_vcpu *vcpu, const char *name)
{
	static struct kvm_stats_header header;
	static struct kvm_stats_desc *all;
	static int fd;
	struct kvm_stats_desc *desc;
	uint64_t value;
	uint32_t i;

	if (!all) {
		fd = vcpu_get_stats_fd(vcpu);
		read_stats_header(fd, &header);
		all = read_stats_descriptors(fd, &header);
	}
	for (i = 0; i < header.num_desc; i++) {
		desc = get_stats_descriptor(all, i, &header);
		if (strcmp(desc->name, name))
			continue;
		read_stat_data(fd, &header, desc, &value, 1);
		return value;
	}
	TEST_FAIL("vCPUs have no counter %s", name);
	return 0;
}

/* Time that tasks had CPUs for; a task's is added when it leaves the CPU. */
static double busy_now(void)
{
	unsigned long long busy, total = 0;
	char line[512];
	FILE *f;

	usleep(1);
	f = fopen("/proc/schedstat", "r");
	TEST_ASSERT(f, "Can't open /proc/schedstat");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "cpu%*d %*u %*u %*u %*u %*u %*u %llu", &busy) == 1)
			total += busy;
	}
	fclose(f);
	return total;
}

double bench_now(struct kvm_vcpu *vcpu, const char *counter, bool waits)
{
	struct timespec ts;

	if (counter)
		return counter_now(vcpu, counter);
	if (waits)
		return busy_now();
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static uint64_t next(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static void make_random(uint64_t *p, uint64_t seed)
{
	uint64_t w;

	for (w = 0; w < WORDS; w++)
		p[w] = next(&seed);
}

/* The second half repeats the first. */
static void make_half(uint64_t *p, uint64_t seed)
{
	make_random(p, seed);
	memcpy(p + WORDS / 2, p, DMM_PAGE / 2);
}

/* Short runs of new words, each followed by words that the page had before. */
static void make_mixed(uint64_t *p, uint64_t seed)
{
	uint64_t w = 0, n, from;

	while (w < WORDS) {
		for (n = 1 + next(&seed) % 8; n && w < WORDS; n--)
			p[w++] = next(&seed);
		from = next(&seed) % w;
		for (n = 1 + next(&seed) % 11; n && w < WORDS; n--)
			p[w++] = p[from++];
	}
}

static void make_page(uint64_t *p, uint64_t page, uint64_t pages,
		      const char *content)
{
	uint64_t w;

	if (!strcmp(content, "half")) {
		make_half(p, page);
	} else if (!strcmp(content, "mixed")) {
		make_mixed(p, page);
	} else if (!strcmp(content, "random")) {
		make_random(p, page);
	} else if (!strcmp(content, "equal")) {
		make_random(p, page % (pages / COPIES));
	} else {
		TEST_ASSERT(!strcmp(content, "same"), "No such content: %s", content);
		for (w = 0; w < WORDS; w++)
			p[w] = 1;
	}
	p[0] = 1;
}

void bench_fill(void *mem, uint64_t size, const char *content)
{
	uint64_t i, pages = size / DMM_PAGE;

	for (i = 0; i < pages; i++)
		make_page(mem + i * DMM_PAGE, i, pages, content);
}

uint64_t bench_bad_pages(const void *mem, uint64_t size, const char *content)
{
	uint64_t page[WORDS], i, bad = 0, pages = size / DMM_PAGE;
	const uint64_t *have;

	for (i = 0; i < pages; i++) {
		have = mem + i * DMM_PAGE;
		make_page(page, i, pages, content);
		bad += !!memcmp(page + 1, have + 1, DMM_PAGE - sizeof(*page));
	}
	return bad;
}

int bench_memcg_set(const char *file, const char *value)
{
	FILE *f = fopen("/proc/self/cgroup", "r");
	char line[256] = "", *group, *path;
	int r;

	while (f && fgets(line, sizeof(line), f) && strncmp(line, "0::/", 4))
		;
	fclose(f);
	group = strtok(line + 3, "\n");
	TEST_ASSERT(group && group[1], "Not in a cgroup of its own");
	path = strdup_printf("/sys/fs/cgroup%s/%s", group, file);
	r = dmm_write_file(path, value, strlen(value));
	free(path);
	return r;
}

uint64_t bench_swapped_pages(const void *mem, uint64_t size)
{
	uint64_t i, at, entry[512], pages = size / DMM_PAGE, swapped = 0;

	for (at = 0; at < pages; at += 512) {
		dmm_pagemap(mem + at * DMM_PAGE, 512, entry);
		for (i = 0; i < 512; i++)
			swapped += entry[i] >> 62 & 1;
	}
	return swapped;
}

static void ksm_set(const char *file, const char *value)
{
	char *path = strdup_printf(KSM "%s", file);
	int r = dmm_write_file(path, value, strlen(value));

	TEST_ASSERT(!r || r == -ENOENT, "Writing %s to %s: %d", value, path, r);
	free(path);
}

static uint64_t ksm_get(const char *file)
{
	char *path = strdup_printf(KSM "%s", file);
	FILE *f = fopen(path, "r");
	uint64_t value;

	TEST_ASSERT(f && fscanf(f, "%lu", &value) == 1, "Can't read %s", path);
	fclose(f);
	free(path);
	return value;
}

/*
 * ksmd sleeps at the end of a pass, long enough to be stopped then.  It skips
 * nothing, as policies are not asked to look at what they need not.
 */
void bench_ksm(void *mem, uint64_t size, int passes)
{
	uint64_t until;
	int tries;

	TEST_ASSERT(!madvise(mem, size, MADV_MERGEABLE), "No KSM");
	ksm_set("smart_scan", "0");
	ksm_set("advisor_mode", "none");
	ksm_set("max_page_sharing", "256");
	ksm_set("pages_to_scan", "1000000");
	ksm_set("sleep_millisecs", "20");

	until = ksm_get("full_scans") + passes;
	ksm_set("run", "1");
	for (tries = 0; tries < 60000 && ksm_get("full_scans") < until; tries++)
		usleep(1000);
	ksm_set("run", "0");
	TEST_ASSERT(ksm_get("full_scans") == until, "ksmd has made %lu passes too many",
		    ksm_get("full_scans") - until);
}
