// SPDX-License-Identifier: GPL-2.0-only
/*
 * The arithmetic of a pool's limits.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <linux/kvm_dmm.h>

#include "limit.h"
#include "unit.h"

static const unsigned long samples[] = {
	0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 4095, 4096, 4097,
	64 * 4096 - 1, 64 * 4096, 64 * 4096 + 1, 1UL << 30, LONG_MAX,
	ULONG_MAX - 1, ULONG_MAX,
};

#define NR_SAMPLES	(sizeof(samples) / sizeof(samples[0]))

UNIT_TEST(limit_margin)
{
	unsigned long last = 0;
	size_t i;

	for (i = 0; i < NR_SAMPLES; i++) {
		unsigned long margin = dmm_margin(samples[i]);

		EXPECT(margin <= samples[i] / 64);
		EXPECT(margin <= DMM_MARGIN_MAX);
		EXPECT(margin >= last);
		last = margin;
	}

	EXPECT_EQ(dmm_margin(0), 0);
	EXPECT_EQ(dmm_margin(63), 0);
	EXPECT_EQ(dmm_margin(64), 1);
	EXPECT_EQ(dmm_margin(64 * 4096), 4096);
	EXPECT_EQ(dmm_margin(ULONG_MAX), 4096);
}

/* No sample pair may underflow into "reclaim almost everything there is". */
UNIT_TEST(limit_excess)
{
	size_t i, j;

	for (i = 0; i < NR_SAMPLES; i++) {
		for (j = 0; j < NR_SAMPLES; j++) {
			unsigned long used = samples[i], max = samples[j];
			unsigned long excess = dmm_excess(used, max);

			EXPECT(excess <= used);
			EXPECT(used - excess <= max);
			if (used <= max)
				EXPECT_EQ(excess, 0);
			else
				EXPECT_EQ(excess, used - max);
			EXPECT_EQ(dmm_spare(used, max), excess);
		}
	}
}

UNIT_TEST(limit_batch_is_sane)
{
	EXPECT(DMM_RECLAIM_BATCH > 0);
	EXPECT(DMM_RECLAIM_BATCH <= KVM_DMM_REGION_PAGES);
}

UNIT_TEST(parse_size_good)
{
	static const struct {
		const char *s;
		u64 bytes;
	} good[] = {
		{ "0", 0 },
		{ "0K", 0 },
		{ "1", 1 },
		{ "1\n", 1 },
		{ "4096", 4096 },
		{ "010", 10 },
		{ "1K", 1 << 10 },
		{ "1k", 1 << 10 },
		{ "3M", 3 << 20 },
		{ "3m\n", 3 << 20 },
		{ "2G", 2ULL << 30 },
		{ "2g", 2ULL << 30 },
		{ "00000000000000000000000000000000000001G", 1 << 30 },
		{ "9223372036854775807", INT64_MAX },
		{ "9007199254740991K", 9007199254740991ULL << 10 },
		{ "8796093022207M", 8796093022207ULL << 20 },
		{ "8589934591G", 8589934591ULL << 30 },
	};
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		u64 bytes = 0xdeadbeef;

		EXPECT_EQ(dmm_parse_size(good[i].s, &bytes), 0);
		EXPECT_EQ(bytes, good[i].bytes);
	}
}

UNIT_TEST(parse_size_bad)
{
	static const struct {
		const char *s;
		int err;
	} bad[] = {
		{ "", -EINVAL },
		{ "\n", -EINVAL },
		{ " ", -EINVAL },
		{ " 1", -EINVAL },
		{ "1 ", -EINVAL },
		{ "1 K", -EINVAL },
		{ "1\n\n", -EINVAL },
		{ "1\n2", -EINVAL },
		{ "+1", -EINVAL },
		{ "-1", -EINVAL },
		{ "-0", -EINVAL },
		{ "K", -EINVAL },
		{ "K1", -EINVAL },
		{ "1KK", -EINVAL },
		{ "1KB", -EINVAL },
		{ "1KiB", -EINVAL },
		{ "1T", -EINVAL },
		{ "1.5M", -EINVAL },
		{ "1e3", -EINVAL },
		{ "0x1000", -EINVAL },
		{ "max", -EINVAL },
		{ "1\xff", -EINVAL },
		{ "\xb1", -EINVAL },
		{ "9223372036854775808", -ERANGE },
		{ "18446744073709551615", -ERANGE },
		{ "18446744073709551616", -ERANGE },
		{ "99999999999999999999999999999999", -ERANGE },
		{ "9007199254740992K", -ERANGE },
		{ "8796093022208M", -ERANGE },
		{ "8589934592G", -ERANGE },
		{ "17179869184G", -ERANGE },	/* 2^64 */
		{ "18014398509481984K", -ERANGE },	/* 2^64 */
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		u64 bytes = 0xdeadbeef;
		int r = dmm_parse_size(bad[i].s, &bytes);

		EXPECT_EQ(r, bad[i].err);
		EXPECT_EQ(bytes, 0xdeadbeef);
		if (r != bad[i].err)
			printf("# parse_size(\"%s\") = %d\n", bad[i].s, r);
	}
}

/* The same, told in other words and with more bits than needed. */
static int reference_parse(const char *s, u64 *bytes)
{
	size_t digits = strspn(s, "0123456789"), i, len;
	unsigned __int128 value = 0;
	bool huge = false;
	const char *unit;

	if (!digits)
		return -EINVAL;

	len = strlen(s);
	if (s[len - 1] == '\n')
		len--;
	if (len > digits + 1)
		return -EINVAL;

	for (i = 0; i < digits; i++) {
		value = value * 10 + (s[i] - '0');
		if (value > UINT64_MAX)
			huge = true;
		if (huge)
			value = (unsigned __int128)1 << 64;
	}

	if (len > digits) {
		unit = strchr("kKmMgG", s[digits]);
		if (!unit)
			return -EINVAL;
		value <<= 10 * ((unit - "kKmMgG") / 2 + 1);
	}

	if (value > INT64_MAX)
		return -ERANGE;
	*bytes = value;
	return 0;
}

UNIT_TEST(parse_size_random)
{
	static const char alphabet[] = "0123456789012345678901234567890123456789KkMmGg\n x-";
	int n, i;

	for (n = 0; n < 300000; n++) {
		int len = unit_random() % 24, r, expected;
		u64 bytes = 1, expected_bytes = 1;
		char s[32];

		for (i = 0; i < len; i++)
			s[i] = alphabet[unit_random() % (sizeof(alphabet) - 1)];
		s[len] = 0;

		/* An overflow may be noticed before junk that follows it. */
		r = dmm_parse_size(s, &bytes);
		expected = reference_parse(s, &expected_bytes);
		if (r == -ERANGE && expected == -EINVAL)
			continue;
		EXPECT_EQ(r, expected);
		EXPECT_EQ(bytes, expected_bytes);
		if (r != expected)
			printf("# parse_size(\"%s\") = %d, not %d\n", s, r, expected);
	}
}
