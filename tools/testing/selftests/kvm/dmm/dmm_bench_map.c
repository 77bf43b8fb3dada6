// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much memory the map of a dmmfs file takes.
 *
 *	dmm_bench_map in-use|untouched
 *
 * prints bytes for each page of guest memory.
 */
#include <stdio.h>
#include <string.h>

#include "dmm_util.h"

#define REGIONS		16384UL
#define SIZE		(REGIONS * DMM_BLOCK)

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

/* Give files back for good: the kernel does so when it gets to it. */
static void map_free(struct dmm_mem *mem)
{
	dmm_mem_free(mem);
	TEST_ASSERT(dmm_pool_gone(mem->ino), "A closed file remains");
	usleep(100000);
}

/*
 * One page in each of many regions is used, so nearly all that isn't those
 * pages is the map.
 */
static double map_in_use(void)
{
	struct dmm_mem mem = dmm_mem_create(SIZE);
	double bytes = free_bytes();
	unsigned long i;

	for (i = 0; i < REGIONS; i++)
		TEST_ASSERT(pwrite(mem.fd, "", 1, i * DMM_BLOCK) == 1,
			    "pwrite() failed");

	bytes -= free_bytes();
	map_free(&mem);
	return (bytes / REGIONS - DMM_PAGE) / (DMM_BLOCK / DMM_PAGE);
}

/* Memory that is configured and mapped, but untouched. */
static double map_untouched(void)
{
	double bytes = free_bytes();
	struct dmm_mem mem = dmm_mem_create(SIZE);

	bytes -= free_bytes();
	map_free(&mem);
	return bytes / (SIZE / DMM_PAGE);
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";

	if (!strcmp(what, "in-use")) {
		printf("%.4f\n", map_in_use());
	} else if (!strcmp(what, "untouched")) {
		printf("%.4f\n", map_untouched());
	} else {
		fprintf(stderr, "usage: dmm_bench_map in-use|untouched\n");
		return 2;
	}
	return 0;
}
