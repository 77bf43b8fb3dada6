// SPDX-License-Identifier: GPL-2.0-only
/*
 * The encoding of the map's entries.
 */
#include <linux/kvm_dmm.h>

#include "entry.h"
#include "unit.h"

#define PAYLOAD_MAX	((1ULL << KVM_DMM_TOKEN_BITS) - 1)

static const u64 payloads[] = {
	0, 1, 2, 511, 512, 0x100000, 0xfffffffffULL, 1ULL << 40,
	PAYLOAD_MAX - 1, PAYLOAD_MAX, 0xaaaaaaaaaaaaaULL, 0x5555555555555ULL,
};

#define NR_PAYLOADS	(sizeof(payloads) / sizeof(payloads[0]))

/* What a batch or a waiter may add to any entry. */
static const u64 owners[] = {
	0, DMM_BUSY, DMM_WAITERS, DMM_BUSY | DMM_WAITERS,
};

#define NR_OWNERS	(sizeof(owners) / sizeof(owners[0]))

UNIT_TEST(entry_fields_disjoint)
{
	static const u64 fields[] = {
		DMM_BUSY, DMM_WAITERS, DMM_KIND, DMM_WP, DMM_CACHED, DMM_KEPT,
		DMM_POLICY, DMM_PAYLOAD,
	};
	u64 seen = 0;
	size_t i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		EXPECT_EQ(seen & fields[i], 0);
		EXPECT(fields[i]);
		seen |= fields[i];
	}

	EXPECT_EQ(DMM_PAYLOAD >> DMM_PAYLOAD_SHIFT, PAYLOAD_MAX);
	EXPECT_EQ(DMM_POLICY >> DMM_POLICY_SHIFT, DMM_MAX_POLICIES - 1);
	EXPECT_EQ(DMM_KIND >> DMM_KIND_SHIFT, 3);
}

/* A fresh region is a page of zeros: it must read as absent, owned by nobody. */
UNIT_TEST(entry_zero_is_absent)
{
	EXPECT_EQ(dmm_kind(0), KVM_DMM_ABSENT);
	EXPECT(!dmm_has_page(0));
	EXPECT(!dmm_writable(0));
	EXPECT(!dmm_mappable(0));
	EXPECT_EQ(dmm_kind_bits(KVM_DMM_ABSENT), 0);
}

UNIT_TEST(entry_kinds_round_trip)
{
	int kind;

	for (kind = KVM_DMM_ABSENT; kind <= KVM_DMM_TOKEN; kind++) {
		EXPECT_EQ(dmm_kind(dmm_kind_bits(kind)), kind);
		EXPECT_EQ(dmm_kind(~DMM_KIND | dmm_kind_bits(kind)), kind);
		EXPECT_EQ(dmm_kind_bits(kind) & ~DMM_KIND, 0);
	}
}

UNIT_TEST(entry_frame)
{
	size_t i, j;

	for (i = 0; i < NR_PAYLOADS; i++) {
		for (j = 0; j < NR_OWNERS; j++) {
			u64 e = dmm_mk_frame(payloads[i]) | owners[j];

			EXPECT_EQ(dmm_kind(e), KVM_DMM_FRAME);
			EXPECT_EQ(dmm_pfn(e), payloads[i]);
			EXPECT(dmm_has_page(e));
			EXPECT(dmm_mappable(e));
			EXPECT(dmm_writable(e));
			EXPECT(!dmm_writable(e | DMM_WP));
			EXPECT_EQ(dmm_pfn(e | DMM_WP), payloads[i]);
		}
	}
}

/*
 * The policy has to hear of a write to a frame whose content it keeps: such a
 * frame can't be writable.
 */
UNIT_TEST(entry_kept_frame)
{
	unsigned int id;
	size_t i;

	for (i = 0; i < NR_PAYLOADS; i++) {
		for (id = 0; id < DMM_MAX_POLICIES; id++) {
			u64 e = dmm_mk_kept(payloads[i], id);

			EXPECT_EQ(dmm_kind(e), KVM_DMM_FRAME);
			EXPECT_EQ(dmm_pfn(e), payloads[i]);
			EXPECT_EQ(dmm_policy_id(e), id);
			EXPECT(e & DMM_KEPT);
			EXPECT(dmm_has_page(e));
			EXPECT(!dmm_writable(e));
		}
	}
}

UNIT_TEST(entry_shared_frame)
{
	size_t i, j;

	for (i = 0; i < NR_PAYLOADS; i++) {
		for (j = 0; j < NR_OWNERS; j++) {
			u64 e = dmm_mk_shared(payloads[i]) | owners[j];

			EXPECT_EQ(dmm_kind(e), KVM_DMM_SHARED);
			EXPECT_EQ(dmm_pfn(e), payloads[i]);
			EXPECT(dmm_has_page(e));
			EXPECT(!dmm_mappable(e));
			EXPECT(dmm_mappable(e | DMM_CACHED));
			EXPECT(!dmm_writable(e));
			EXPECT(!dmm_writable(e | DMM_CACHED));
			EXPECT(dmm_shares(e, payloads[i]));
			EXPECT(dmm_shares(e | DMM_CACHED, payloads[i]));
			EXPECT(!dmm_shares(e, payloads[i] ^ 1));
			EXPECT(!dmm_shares(dmm_mk_frame(payloads[i]),
					   payloads[i]));
		}
	}
}

UNIT_TEST(entry_token)
{
	unsigned int id;
	size_t i, j;

	for (i = 0; i < NR_PAYLOADS; i++) {
		for (id = 0; id < DMM_MAX_POLICIES; id++) {
			for (j = 0; j < NR_OWNERS; j++) {
				u64 e = dmm_mk_token(id, payloads[i]) | owners[j];

				EXPECT_EQ(dmm_kind(e), KVM_DMM_TOKEN);
				EXPECT_EQ(dmm_token(e), payloads[i]);
				EXPECT_EQ(dmm_policy_id(e), id);
				EXPECT(!dmm_has_page(e));
				EXPECT(!dmm_writable(e));
				EXPECT(!dmm_mappable(e));
			}
		}
	}
}

UNIT_TEST(entry_makers_leave_it_unowned)
{
	unsigned int id;
	size_t i;

	for (i = 0; i < NR_PAYLOADS; i++) {
		EXPECT_EQ(dmm_mk_frame(payloads[i]) & (DMM_BUSY | DMM_WAITERS), 0);
		EXPECT_EQ(dmm_mk_shared(payloads[i]) & (DMM_BUSY | DMM_WAITERS), 0);
		EXPECT_EQ(dmm_frame_to_shared(dmm_mk_frame(payloads[i])),
			  dmm_mk_shared(payloads[i]));
		for (id = 0; id < DMM_MAX_POLICIES; id++) {
			EXPECT_EQ(dmm_mk_token(id, payloads[i]) &
				  (DMM_BUSY | DMM_WAITERS), 0);
			EXPECT_EQ(dmm_mk_kept(payloads[i], id) &
				  (DMM_BUSY | DMM_WAITERS), 0);
		}
	}
}

/* Nobody may mistake "busy" for a change of what is there. */
UNIT_TEST(entry_content_ignores_owner)
{
	size_t i;
	int n;

	for (n = 0; n < 10000; n++) {
		u64 e = unit_random() & ~(DMM_BUSY | DMM_WAITERS);

		for (i = 0; i < NR_OWNERS; i++) {
			EXPECT_EQ(dmm_content(e | owners[i]), e);
			EXPECT_EQ(dmm_kind(e | owners[i]), dmm_kind(e));
			EXPECT_EQ(dmm_writable(e | owners[i]), dmm_writable(e));
			EXPECT_EQ(dmm_mappable(e | owners[i]), dmm_mappable(e));
		}
	}
}

/* The invariant: writable implies an exclusive page, that implies mappable. */
UNIT_TEST(entry_permissions_nest)
{
	int n;

	for (n = 0; n < 100000; n++) {
		u64 e = unit_random();

		if (dmm_writable(e)) {
			EXPECT_EQ(dmm_kind(e), KVM_DMM_FRAME);
			EXPECT(dmm_has_page(e));
		}
		if (dmm_kind(e) == KVM_DMM_FRAME || (e & DMM_CACHED))
			EXPECT(dmm_mappable(e));
	}
}

UNIT_TEST(entry_cached_zero_page)
{
	u64 e = dmm_kind_bits(KVM_DMM_ABSENT) | DMM_CACHED;

	EXPECT_EQ(dmm_kind(e), KVM_DMM_ABSENT);
	EXPECT(dmm_mappable(e));
	EXPECT(!dmm_has_page(e));
	EXPECT(!dmm_writable(e));
}

/* What a page table may have, for each kind of entry, and nothing else. */
UNIT_TEST(entry_may_map)
{
	static const struct {
		u64 e;
		bool read, write, zero;
	} cases[] = {
		{ 0, false, false, false },
		{ DMM_CACHED, false, false, true },
		{ 4, false, false, false },	/* a frame, that with number 0 */
		{ 0x123004, true, true, false },
		{ 0x123014, true, false, false },	/* WP */
		{ 0x123354, true, false, false },	/* kept */
		{ 0x123008, false, false, false },	/* shared, never read */
		{ 0x123028, true, false, false },	/* shared */
		{ 0x12300c, false, false, false },	/* token */
	};
	const unsigned long pfn = 0x123, zero = 0x77;
	size_t i, j;

	EXPECT_EQ(dmm_mk_frame(pfn), 0x123004);
	EXPECT_EQ(dmm_mk_kept(pfn, 3), 0x123354);
	EXPECT_EQ(dmm_mk_shared(pfn), 0x123008);
	EXPECT_EQ(dmm_mk_token(0, pfn), 0x12300c);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (j = 0; j < NR_OWNERS; j++) {
			u64 e = cases[i].e | owners[j];

			EXPECT_EQ(dmm_may_map(e, pfn, false, zero),
				  cases[i].read);
			EXPECT_EQ(dmm_may_map(e, pfn, true, zero),
				  cases[i].write);
			EXPECT_EQ(dmm_may_map(e, zero, false, zero),
				  cases[i].zero);
			EXPECT(!dmm_may_map(e, zero, true, zero));
			EXPECT(!dmm_may_map(e, pfn + 1, false, zero));
			EXPECT(!dmm_may_map(e, pfn + 1, true, zero));
		}
	}
}

UNIT_TEST(entry_sane)
{
	static const u64 bad[] = {
		1, 2, 3,			/* owned or waited for */
		0x80, 0x1080, 0x1000,		/* absent with anything */
		0x10, 0x40, 0x100, 0x120,
		0x123024,			/* a frame that is CACHED */
		0x123044,			/* kept and not WP */
		0x123104, 0x123114,		/* of a policy and not kept */
		0x123084,
		0x123018, 0x123038, 0x123048, 0x123108, 0x123088, /* shared */
		0x12301c, 0x12302c, 0x12304c, 0x12308c,		/* token */
	};
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		EXPECT(!dmm_sane(bad[i]));
	EXPECT(dmm_sane(0));
	EXPECT(dmm_sane(DMM_CACHED));
	for (i = 0; i < NR_PAYLOADS; i++) {
		EXPECT(dmm_sane(dmm_mk_frame(payloads[i])));
		EXPECT(dmm_sane(dmm_mk_frame(payloads[i]) | DMM_WP));
		EXPECT(dmm_sane(dmm_mk_kept(payloads[i], 15)));
		EXPECT(dmm_sane(dmm_mk_shared(payloads[i])));
		EXPECT(dmm_sane(dmm_mk_shared(payloads[i]) | DMM_CACHED));
		EXPECT(dmm_sane(dmm_mk_token(15, payloads[i])));
	}
}
