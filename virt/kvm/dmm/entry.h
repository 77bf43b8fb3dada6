/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One entry of the map: 64 bits that say what is at 4 KiB of guest memory.
 *
 *	63                          12 11    8 7   6    5     4   3  2  1    0
 *	+-----------------------------+-------+--+----+------+--+-----+----+----+
 *	| address of frame, or token  | policy|  |KEPT|CACHED|WP| kind|WAIT|BUSY|
 *	+-----------------------------+-------+--+----+------+--+-----+----+----+
 *
 * Pure logic without locks: unit tests build this file in user space.
 */
#ifndef _KVM_DMM_ENTRY_H
#define _KVM_DMM_ENTRY_H

#define DMM_BUSY	BIT_ULL(0)	/* whoever set it owns the entry */
#define DMM_WAITERS	BIT_ULL(1)	/* somebody sleeps until BUSY is gone */
#define DMM_KIND	GENMASK_ULL(3, 2)
#define DMM_WP		BIT_ULL(4)	/* frame: page tables allow no write */
#define DMM_CACHED	BIT_ULL(5)	/* absent, shared: may be in page tables */
#define DMM_KEPT	BIT_ULL(6)	/* frame: page_private() is a token */
#define DMM_POLICY	GENMASK_ULL(11, 8)
#define DMM_PAYLOAD	GENMASK_ULL(63, 12)

#define DMM_KIND_SHIFT		2
#define DMM_POLICY_SHIFT	8
#define DMM_PAYLOAD_SHIFT	12
#define DMM_MAX_POLICIES	16	/* values of DMM_POLICY */

static inline enum kvm_dmm_kind dmm_kind(u64 e)
{
	return (e & DMM_KIND) >> DMM_KIND_SHIFT;
}

static inline u64 dmm_kind_bits(enum kvm_dmm_kind kind)
{
	return (u64)kind << DMM_KIND_SHIFT;
}

/* An entry as its owner leaves it: who holds or waits for it is no content. */
static inline u64 dmm_content(u64 e)
{
	return e & ~(DMM_BUSY | DMM_WAITERS);
}

static inline u64 dmm_mk_frame(unsigned long pfn)
{
	return dmm_kind_bits(KVM_DMM_FRAME) | (u64)pfn << DMM_PAYLOAD_SHIFT;
}

/* A frame whose content a policy has, too: written only after telling it. */
static inline u64 dmm_mk_kept(unsigned long pfn, unsigned int policy)
{
	return dmm_mk_frame(pfn) | DMM_WP | DMM_KEPT |
	       (u64)policy << DMM_POLICY_SHIFT;
}

static inline u64 dmm_mk_shared(unsigned long pfn)
{
	return dmm_kind_bits(KVM_DMM_SHARED) | (u64)pfn << DMM_PAYLOAD_SHIFT;
}

/* The entry of a frame with nothing special, when the frame is shared. */
static inline u64 dmm_frame_to_shared(u64 e)
{
	return e ^ dmm_kind_bits(KVM_DMM_FRAME ^ KVM_DMM_SHARED);
}

static inline u64 dmm_mk_token(unsigned int policy, u64 token)
{
	return dmm_kind_bits(KVM_DMM_TOKEN) |
	       (u64)policy << DMM_POLICY_SHIFT | token << DMM_PAYLOAD_SHIFT;
}

/* Does an entry have this shared frame? */
static inline bool dmm_shares(u64 e, unsigned long pfn)
{
	return (e & (DMM_KIND | DMM_PAYLOAD)) == dmm_mk_shared(pfn);
}

static inline unsigned long dmm_pfn(u64 e)
{
	return e >> DMM_PAYLOAD_SHIFT;
}

static inline u64 dmm_token(u64 e)
{
	return e >> DMM_PAYLOAD_SHIFT;
}

static inline unsigned int dmm_policy_id(u64 e)
{
	return (e & DMM_POLICY) >> DMM_POLICY_SHIFT;
}

static inline bool dmm_has_page(u64 e)
{
	return dmm_kind(e) == KVM_DMM_FRAME || dmm_kind(e) == KVM_DMM_SHARED;
}

/* May a page table allow writing to what this entry has? */
static inline bool dmm_writable(u64 e)
{
	return dmm_kind(e) == KVM_DMM_FRAME && !(e & DMM_WP);
}

/* Could a page table, of whomever, have a translation for this entry? */
static inline bool dmm_mappable(u64 e)
{
	return dmm_kind(e) == KVM_DMM_FRAME || (e & DMM_CACHED);
}

/* May a page table map @pfn, if @write for writing?  @zero is the page of zeros. */
static inline bool dmm_may_map(u64 e, unsigned long pfn, bool write,
			       unsigned long zero)
{
	if (write && !dmm_writable(e))
		return false;
	if (!dmm_mappable(e))
		return false;
	return pfn == (dmm_has_page(e) ? dmm_pfn(e) : zero);
}

/* Is the content of an entry one that there can be? */
static inline bool dmm_sane(u64 e)
{
	u64 allowed = DMM_KIND | DMM_PAYLOAD;

	switch (dmm_kind(e)) {
	case KVM_DMM_ABSENT:
		allowed = DMM_CACHED;
		break;
	case KVM_DMM_FRAME:
		allowed |= DMM_WP;
		if ((e & DMM_KEPT) && (e & DMM_WP))
			allowed |= DMM_KEPT | DMM_POLICY;
		break;
	case KVM_DMM_SHARED:
		allowed |= DMM_CACHED;
		break;
	case KVM_DMM_TOKEN:
		allowed |= DMM_POLICY;
		break;
	}
	return !(e & ~allowed);
}

#endif /* _KVM_DMM_ENTRY_H */
