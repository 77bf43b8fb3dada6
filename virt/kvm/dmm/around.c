// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: fault-around, filling, copying or bringing back more
 * than the page that is touched.
 *
 * A policy says what; here it is filled, and kvm_dmm_map_around() has it mapped
 * with the page that was touched.  Nothing here is more than a favour: what is
 * busy, does not fit below the limit or takes an effort to allocate is left to
 * the fault that needs it.
 */
#include <linux/mm.h>
#include <linux/percpu.h>
#include <trace/events/kvm_dmm.h>

#include "dmm.h"

#define DMM_AROUND_BATCH	32	/* pages that are charged at once */

/**
 * struct dmm_filled - what a fault on this CPU filled last
 * @pool: the pool, which may be gone
 * @first: first page offset
 * @last: last page offset
 *
 * A hint for the same fault, which is about to map it.  Somebody else may have
 * run on the CPU in between, or the fault may continue on another one.
 */
struct dmm_filled {
	struct kvm_dmm_pool *pool;
	pgoff_t first;
	pgoff_t last;
};

static DEFINE_PER_CPU(struct dmm_filled, dmm_filled);

/**
 * dmm_filled_around - what was just filled with a page?
 * @pool: the pool
 * @index: page offset
 * @first: out: first page offset
 * @last: out: last page offset
 *
 * Return: False if that is not known.
 */
bool dmm_filled_around(struct kvm_dmm_pool *pool, pgoff_t index, pgoff_t *first,
		       pgoff_t *last)
{
	*first = this_cpu_read(dmm_filled.first);
	*last = this_cpu_read(dmm_filled.last);
	return this_cpu_read(dmm_filled.pool) == pool && *first <= index &&
	       index <= *last;
}

static void dmm_set_filled(struct kvm_dmm_pool *pool, pgoff_t first,
			   pgoff_t last)
{
	this_cpu_write(dmm_filled.pool, pool);
	this_cpu_write(dmm_filled.first, first);
	this_cpu_write(dmm_filled.last, last);
}

/**
 * dmm_around_room - does a pool have room that nobody has to make?
 * @pool: the pool
 * @nr: pages
 *
 * With a policy that reclaims that ends where the worker begins, which would
 * take other pages out for what may never be used.
 *
 * Return: True if so.
 */
bool dmm_around_room(struct kvm_dmm_pool *pool, unsigned long nr)
{
	unsigned long max = dmm_max(pool);

	if (READ_ONCE(pool->nr_reclaimers) && READ_ONCE(pool->max) != ULONG_MAX)
		max -= dmm_margin(max);
	return dmm_used(pool) + nr <= max;
}

/*
 * Is an entry of the kind that a window is for?  Absent ones in whose place the
 * page of zeros may be mapped would have to be unmapped first: they are left
 * alone.
 */
static bool dmm_around_like(u64 e, u64 like)
{
	if (dmm_kind(like) == KVM_DMM_ABSENT)
		return !e;
	return !(e & DMM_BUSY) && !((e ^ like) & (DMM_KIND | DMM_POLICY));
}

/* Make a frame of a page, for an entry that is absent. */
static bool dmm_around_install(struct kvm_dmm_pool *pool,
			       struct kvm_dmm_region *region, pgoff_t index,
			       struct page *page)
{
	u64 new = dmm_mk_frame(page_to_pfn(page));
	u64 *entry = dmm_entry(region, index);

	if (!dmm_trylock(region, entry, 0))
		return false;
	/* The size as in dmm_fault_lock(); the content, too, may be new. */
	if (unlikely(index >= dmm_pages(pool) ||
		     READ_ONCE(pool->nr_fillers))) {
		dmm_unlock(region, entry, 0);
		return false;
	}
	dmm_frame_own(pool, page, index);
	dmm_unlock(region, entry, new);
	trace_kvm_dmm_map(pool, index, new);
	return true;
}

/* Fill the absent entries at some places; returns how many pages that took. */
static unsigned int dmm_around_zero(struct kvm_dmm_pool *pool,
				    struct kvm_dmm_region *region, pgoff_t base,
				    const u16 *place, unsigned int nr,
				    struct page **pages)
{
	unsigned int i, used = 0;

	for (i = 0; i < nr; i++)
		used += dmm_around_install(pool, region, base + place[i],
					   pages[used]);
	this_cpu_add(pool->stats->count[DMM_STAT_fill], used);
	this_cpu_add(pool->stats->count[DMM_STAT_fill_around], used);
	return used;
}

/*
 * The same for shared frames at some places, as dmm_fault_cow() does it for one,
 * but they are taken out of the page tables together.  There are pages for @got
 * copies; what has no other user needs none.
 *
 * The size needs no look here, other than in dmm_around_install(): truncation
 * walks the map after it has set the size.  If it was here before, nothing is
 * shared any more; if not, it waits for the busy bit and drops the copy.  A slot
 * that is bound or goes meanwhile, or a change by somebody else, meets busy
 * entries as with any change: see change.c.
 */
static unsigned int dmm_around_copy(struct kvm_dmm_pool *pool,
				    struct kvm_dmm_region *region, pgoff_t base,
				    const u16 *place, unsigned int nr,
				    struct page **pages, unsigned int got)
{
	struct page *shared[DMM_AROUND_BATCH], *page;
	struct kvm_dmm_batch batch;
	unsigned int i, used = 0;
	u64 cached = 0;

	kvm_dmm_batch_start(&batch, pool, base);
	for (i = 0; i < nr; i++) {
		shared[i] = kvm_dmm_batch_add_shared(&batch, base + place[i]);
		if (shared[i])
			cached |= dmm_batch_entry(&batch, place[i]);
	}
	if (cached & DMM_CACHED)
		dmm_batch_unmap(&batch);
	for (i = 0; i < nr; i++) {
		page = shared[i];
		if (!page)
			continue;
		if (dmm_shared_take_over(pool, page)) {
			dmm_count(pool, DMM_STAT_take_over);
		} else if (used < got) {
			page = pages[used];
			if (dmm_shared_copy(region, pool, base + place[i],
					    shared[i], page))
				continue;
			used++;
		} else {
			continue;
		}
		dmm_frame_own(pool, page, base + place[i]);
		dmm_batch_set(&batch, base + place[i],
			      dmm_mk_frame(page_to_pfn(page)));
	}
	kvm_dmm_batch_end(&batch);
	this_cpu_add(pool->stats->count[DMM_STAT_cow_around], used);
	return used;
}

/*
 * A token is brought back, if its policy finds it worth it.
 *
 * It is in no page table, so there is nothing to unmap.  The busy bit is taken
 * without waiting, and nothing waits while it is held: a fault on this page, a
 * hole, or a detach that brings all tokens back waits for it, and then finds the
 * frame or the token.  The policy stays meanwhile, as dmm_fetch_token() holds
 * policy_srcu.
 */
static bool dmm_around_fetch_one(struct kvm_dmm_pool *pool,
				 struct kvm_dmm_region *region, pgoff_t index,
				 u64 like, struct page *page)
{
	u64 *entry = dmm_entry(region, index);
	u64 e = READ_ONCE(*entry);
	int r = -EAGAIN;

	if (!dmm_around_like(e, like) || !dmm_trylock(region, entry, e))
		return false;
	page->index = index;
	/* The size as in dmm_fault_lock(). */
	if (likely(index < dmm_pages(pool)))
		r = dmm_fetch_token(pool, e, page, KVM_DMM_FETCH_NOWAIT |
				    KVM_DMM_FETCH_AROUND, NULL);
	if (r < 0)
		dmm_unlock(region, entry, e);
	else
		dmm_token_to_frame(pool, region, index, e, page, r);
	return r >= 0;
}

static unsigned int dmm_around_fetch(struct kvm_dmm_pool *pool,
				     struct kvm_dmm_region *region,
				     pgoff_t base, const u16 *place,
				     unsigned int nr, u64 like,
				     struct page **pages)
{
	unsigned int i, used = 0;

	for (i = 0; i < nr; i++)
		used += dmm_around_fetch_one(pool, region, base + place[i],
					     like, pages[used]);
	this_cpu_add(pool->stats->count[DMM_STAT_fetch], used);
	this_cpu_add(pool->stats->count[DMM_STAT_fetch_around], used);
	return used;
}

/* Do it at some places; false when that is all. */
static bool dmm_around_batch(struct kvm_dmm_pool *pool,
			     struct kvm_dmm_region *region, pgoff_t base,
			     const u16 *place, unsigned int nr, u64 like,
			     bool last_user)
{
	unsigned int got = 0, charged = 0, used, i;
	struct page *pages[DMM_AROUND_BATCH];

	if (dmm_around_room(pool, nr) &&
	    !dmm_charge(pool, nr, DMM_SPARE, NULL, 0))
		charged = nr;
	else if (!last_user)
		return false;
	if (charged)
		got = dmm_frame_alloc_bulk(pages, nr, dmm_kind(like) ==
					   KVM_DMM_ABSENT);
	switch (dmm_kind(like)) {
	case KVM_DMM_SHARED:
		used = dmm_around_copy(pool, region, base, place, nr, pages,
				       got);
		break;
	case KVM_DMM_TOKEN:
		used = dmm_around_fetch(pool, region, base, place, got, like,
					pages);
		break;
	default:
		used = dmm_around_zero(pool, region, base, place, got, pages);
	}
	dmm_uncharge(pool, charged - used);
	for (i = used; i < got; i++)
		put_page(pages[i]);
	return last_user || got == nr;
}

/* Not inlined: a fault that wants one page needs nothing of it. */
static noinline void dmm_fill_window(struct kvm_dmm_pool *pool,
				     struct kvm_dmm_region *region,
				     const struct kvm_dmm_around *around,
				     u64 like, bool last_user)
{
	pgoff_t base = round_down(around->index, KVM_DMM_REGION_PAGES);
	/* A policy may want what it must not. */
	pgoff_t first = max(around->first, base);
	pgoff_t last = min(around->last, base + KVM_DMM_REGION_PAGES - 1);
	u16 place[DMM_AROUND_BATCH];
	unsigned int nr = 0;
	pgoff_t index;

	dmm_set_filled(pool, first, last);
	for (index = first; index <= last; index++) {
		if (!dmm_around_like(READ_ONCE(*dmm_entry(region, index)),
				     like))
			continue;
		place[nr++] = index - base;
		if (nr < DMM_AROUND_BATCH)
			continue;
		if (!dmm_around_batch(pool, region, base, place, nr, like,
				      last_user))
			break;
		nr = 0;
	}
	if (nr && index > last)
		dmm_around_batch(pool, region, base, place, nr, like,
				 last_user);
}

/**
 * dmm_fill_around - do with what is around a page as a policy wants
 * @pool: the pool
 * @region: the region
 * @around: the page, which is there by now, and what else
 * @like: the entry as it was: others are filled, copied or fetched as it was
 * @last_user: the page had a shared frame without other users; so may have those
 *	around it, which takes no memory
 *
 * Context: No busy bit is held.
 */
void dmm_fill_around(struct kvm_dmm_pool *pool, struct kvm_dmm_region *region,
		     const struct kvm_dmm_around *around, u64 like,
		     bool last_user)
{
	if (around->first == around->last)
		dmm_set_filled(pool, around->first, around->last);
	else
		dmm_fill_window(pool, region, around, like, last_user);
}
