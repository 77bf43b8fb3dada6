// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runner of the user-space unit tests, prints KTAP.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "unit.h"

static struct unit_test *tests;
static uint64_t seed = 0x9e3779b97f4a7c15;
static unsigned int failures;

/* Keep the order of registration. */
void unit_register(struct unit_test *test)
{
	struct unit_test **link = &tests;

	while (*link)
		link = &(*link)->next;
	*link = test;
}

/* Print the first few failures of a test, count them all. */
void unit_check(bool ok, const char *expr, const char *file, int line,
		uint64_t a, uint64_t b)
{
	const char *base = strrchr(file, '/');

	if (ok || failures++ >= 5)
		return;

	printf("# %s:%d: %s (%#" PRIx64 ", %#" PRIx64 ")\n",
	       base ? base + 1 : file, line, expr, a, b);
}

/* xorshift64: the same numbers in every run. */
uint64_t unit_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

int main(void)
{
	unsigned int nr = 0, failed = 0;
	struct unit_test *test;

	for (test = tests; test; test = test->next)
		nr++;

	printf("KTAP version 1\n1..%u\n", nr);

	for (nr = 1, test = tests; test; test = test->next, nr++) {
		failures = 0;
		test->fn();
		if (failures)
			failed++;
		printf("%s %u %s\n", failures ? "not ok" : "ok", nr, test->name);
	}

	return failed || nr == 1;
}
