// SPDX-License-Identifier: GPL-2.0-only
/*
 * Count the equal pages in memory files, offline: by comparing all of them.
 *
 *   equalpages FILE...
 *
 * Prints how many pages have data, how many of these are all zero, and how many
 * different ones the others are.  Whoever merges all that can be merged is left
 * with the last number.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE	4096ul

struct page {
	uint64_t hash;
	const uint64_t *data;
};

static struct page *pages;
static size_t nr, zero;

static void add(const uint64_t *data)
{
	static const uint64_t none[PAGE / sizeof(*data)];
	uint64_t hash = 0;
	unsigned int i;

	if (!memcmp(data, none, PAGE)) {
		zero++;
		return;
	}
	for (i = 0; i < PAGE / sizeof(*data); i++)
		hash = ((hash << 5 | hash >> 59) ^ data[i]) * 0xff51afd7ed558ccdull;
	pages = nr & (nr + 1) ? pages : realloc(pages, 2 * (nr + 1) * sizeof(*pages));
	if (!pages)
		exit(1);
	pages[nr].hash = hash;
	pages[nr++].data = data;
}

static int compare(const void *a, const void *b)
{
	const struct page *p = a, *q = b;

	if (p->hash != q->hash)
		return p->hash < q->hash ? -1 : 1;
	return memcmp(p->data, q->data, PAGE);
}

/* Holes are not touched: a page that is read would be there afterwards. */
static int add_file(const char *path)
{
	int fd = open(path, O_RDONLY);
	off_t at = 0, end;
	struct stat st;
	char *p;

	if (fd < 0 || fstat(fd, &st))
		return -1;
	p = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -1;
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		if (end < 0)
			return -1;
		for (; at < end; at += PAGE)
			add((uint64_t *)(p + at));
	}
	return close(fd);
}

int main(int argc, char **argv)
{
	size_t i, different = 0;

	if (argc < 2)
		return 2;
	for (i = 1; i < (size_t)argc; i++) {
		if (add_file(argv[i])) {
			perror(argv[i]);
			return 1;
		}
	}
	qsort(pages, nr, sizeof(*pages), compare);
	for (i = 0; i < nr; i++)
		different += !i || compare(&pages[i - 1], &pages[i]);
	printf("%zu %zu %zu\n", nr + zero, zero, different);
	return 0;
}
