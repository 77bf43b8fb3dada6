// SPDX-License-Identifier: GPL-2.0-only
/*
 * When the share policy looks at a page, and how long it rests.
 */
#include <stdbool.h>

#include <linux/kvm_dmm.h>

#include "share.h"
#include "unit.h"

#define SECOND	1000000000ULL

/* Hashed once, not again until it is written. */
UNIT_TEST(share_looks_once)
{
	u8 state = 0;
	unsigned int pass;

	EXPECT(share_look(&state, true, 1, 7));
	state |= SHARE_KNOWN;
	for (pass = 2; pass < 100; pass++)
		EXPECT(!share_look(&state, false, pass, 7));
	EXPECT_EQ(state, SHARE_KNOWN);
	/* Protected by somebody else, but never hashed. */
	state = 0;
	EXPECT(share_look(&state, false, 100, 7));
}

/* Each time that it was written it rests twice as long, up to a bound. */
UNIT_TEST(share_backs_off)
{
	unsigned int level, looks, pass = 0;
	u8 state = SHARE_KNOWN;

	for (level = 1; level < 12; level++) {
		unsigned int want = 1U << (level < SHARE_LEVEL ? level : SHARE_LEVEL);

		for (looks = 0; !share_look(&state, true, pass, 3); pass++)
			looks++;
		EXPECT(looks < want);
		EXPECT_EQ(state, level < SHARE_LEVEL ? level : SHARE_LEVEL);
		/* As long as nobody hashes it, it is due once in so many. */
		for (looks = 0; looks < want; looks++)
			EXPECT_EQ(share_look(&state, true, ++pass, 3),
				  looks == want - 1);
		state |= SHARE_KNOWN;
	}
	/* Unchanged once: as if nothing had been. */
	EXPECT(!share_look(&state, false, pass, 3));
	EXPECT_EQ(state, SHARE_KNOWN);
}

/* The pages of one level are spread over the passes. */
UNIT_TEST(share_spreads)
{
	unsigned int pass, index, due;

	for (pass = 0; pass < 16; pass++) {
		due = 0;
		for (index = 0; index < 512; index++) {
			u8 state = 3;

			due += share_look(&state, true, pass, index);
		}
		EXPECT_EQ(due, 64);
	}
}

UNIT_TEST(share_rates)
{
	EXPECT_EQ(share_rate(1000, 0, 0), 0);
	EXPECT_EQ(share_rate(1000, 10, 0), 100);
	EXPECT_EQ(share_rate(1001, 10, 0), 101);
	EXPECT_EQ(share_rate(1000, 10, 50), 50);
	EXPECT_EQ(share_rate(1000, 10, 500), 100);
	EXPECT_EQ(share_rate(1000, 0, 500), 500);
	EXPECT_EQ(share_rate(0, 10, 0), 0);
	EXPECT_EQ(share_rate(1, 86400, 0), 1);
}

UNIT_TEST(share_rests)
{
	EXPECT_EQ(share_rest(512, SECOND, 0, 100), 0);
	EXPECT_EQ(share_rest(512, SECOND, 0, 50), SECOND);
	EXPECT_EQ(share_rest(512, SECOND, 0, 1), 99 * SECOND);
	EXPECT_EQ(share_rest(512, 0, 512, 100), SECOND);
	EXPECT_EQ(share_rest(512, SECOND / 4, 512, 100), SECOND * 3 / 4);
	EXPECT_EQ(share_rest(512, 2 * SECOND, 512, 100), 0);
	/* Whichever wants more. */
	EXPECT_EQ(share_rest(512, SECOND / 2, 512, 20), 2 * SECOND);
}
