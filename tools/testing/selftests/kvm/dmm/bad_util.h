/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of policies that misbehave have in common.
 */
#ifndef SELFTEST_KVM_DMM_BAD_UTIL_H
#define SELFTEST_KVM_DMM_BAD_UTIL_H

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* Which of the two a pool has; NULL: none (any more). */
static const char *bad_policy(unsigned long ino)
{
	if (dmm_has_policy(ino, "test-bad"))
		return "test-bad";
	if (dmm_has_policy(ino, "test-bad-nofill"))
		return "test-bad-nofill";
	return NULL;
}

static void bad_set(unsigned long ino, const char *tunable, const char *value)
{
	char *file = strdup_printf("%s/%s", bad_policy(ino), tunable);
	int r = dmm_pool_set(ino, file, value);

	TEST_ASSERT(!r, "%s=%s: %d", file, value, r);
	free(file);
}

static void bad_set_number(unsigned long ino, const char *tunable, int value)
{
	char *number = strdup_printf("%u", value);

	bad_set(ino, tunable, number);
	free(number);
}

/* How often an op got something wrong. */
static uint64_t bad_count(unsigned long ino, const char *op)
{
	char *file = strdup_printf("%s/stats/%s", bad_policy(ino), op);
	uint64_t n = dmm_pool_get(ino, file);

	free(file);
	return n;
}

static void bad_add(unsigned long ino, const char *policy)
{
	char *attach = strdup_printf("+%s", policy);
	int r = dmm_pool_set(ino, "policies", attach);

	TEST_ASSERT(!r, "Attaching %s: %d", policy, r);
	free(attach);
}

/* While it misbehaves it may refuse; returns 0 or -errno. */
static int bad_remove(unsigned long ino)
{
	char *detach = strdup_printf("-%s", bad_policy(ino));
	int r = dmm_pool_set(ino, "policies", detach);

	free(detach);
	return r;
}

static void bad_behave(unsigned long ino)
{
	static const char * const wrong[] = {
		"leave", "fill", "around", "fetch", "fetch_around",
		"dup_token", "lookup", "match", "publish", "ahead", "reclaim", "tuned",
		"dup_token_result", "reclaim_result", "sleep_ms",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		bad_set(ino, wrong[i], "default");
}

/*
 * With good behaviour again all content is there, and the policy can go.  @lost:
 * tokens without content that came back to it, by what it did.
 */
static void bad_recover_lost(struct __test_metadata *_metadata,
			     struct dmm_guest *guest, unsigned long ino,
			     uint64_t lost)
{
	EXPECT_TRUE(dmm_pool_ok(ino));
	if (bad_policy(ino))
		bad_behave(ino);
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	if (bad_policy(ino)) {
		EXPECT_EQ(lost, bad_count(ino, "lost"));
		EXPECT_EQ(0, bad_remove(ino));
	}
	EXPECT_EQ(0, dmm_pool_get(ino, "swapped_bytes"));
	EXPECT_EQ(0, dmm_pool_get(ino, "compressed_bytes"));
	EXPECT_EQ(SIZE, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	EXPECT_TRUE(dmm_pool_ok(ino));
}

static void bad_recover(struct __test_metadata *_metadata,
			struct dmm_guest *guest, unsigned long ino)
{
	bad_recover_lost(_metadata, guest, ino, 0);
}

#endif /* SELFTEST_KVM_DMM_BAD_UTIL_H */
