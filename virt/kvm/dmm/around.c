// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: fault-around, filling or copying more than the page
 * that is touched.
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
 * Make a frame of a page.  An entry in whose place the page of zeros may be
 * mapped would have to be unmapped first: it is left alone.
 */
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
			page = pages[used++];
			dmm_shared_copy(region, pool, base + place[i],
					shared[i], page);
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

/* Fill or copy at some places; false when that is all. */
static bool dmm_around_batch(struct kvm_dmm_pool *pool,
			     struct kvm_dmm_region *region, pgoff_t base,
			     const u16 *place, unsigned int nr, bool copy,
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
		got = dmm_frame_alloc_bulk(pages, nr, !copy);
	if (copy)
		used = dmm_around_copy(pool, region, base, place, nr, pages,
				       got);
	else
		used = dmm_around_zero(pool, region, base, place, got, pages);
	dmm_uncharge(pool, charged - used);
	for (i = used; i < got; i++)
		put_page(pages[i]);
	return last_user || got == nr;
}

/* Not inlined: a fault that wants one page needs nothing of it. */
static noinline void dmm_fill_window(struct kvm_dmm_pool *pool,
				     struct kvm_dmm_region *region,
				     const struct kvm_dmm_around *around,
				     bool last_user)
{
	pgoff_t base = round_down(around->index, KVM_DMM_REGION_PAGES);
	u16 place[DMM_AROUND_BATCH];
	unsigned int nr = 0;
	pgoff_t index;
	u64 e;

	if (WARN_ON_ONCE(around->first < base ||
			 around->last >= base + KVM_DMM_REGION_PAGES))
		return;
	dmm_set_filled(pool, around->first, around->last);
	for (index = around->first; index <= around->last; index++) {
		e = READ_ONCE(*dmm_entry(region, index));
		if (around->copy ? dmm_kind(e) != KVM_DMM_SHARED : e)
			continue;
		place[nr++] = index - base;
		if (nr < DMM_AROUND_BATCH)
			continue;
		if (!dmm_around_batch(pool, region, base, place, nr,
				      around->copy, last_user))
			break;
		nr = 0;
	}
	if (nr && index > around->last)
		dmm_around_batch(pool, region, base, place, nr, around->copy,
				 last_user);
}

/**
 * dmm_fill_around - fill or copy what a policy wants to have with a page
 * @pool: the pool
 * @region: the region
 * @around: the page, which is there by now, and what else
 * @last_user: the page had a shared frame without other users; so may have those
 *	around it, which takes no memory
 *
 * Context: No busy bit is held.
 */
void dmm_fill_around(struct kvm_dmm_pool *pool, struct kvm_dmm_region *region,
		     const struct kvm_dmm_around *around, bool last_user)
{
	if (around->first == around->last)
		dmm_set_filled(pool, around->first, around->last);
	else
		dmm_fill_window(pool, region, around, last_user);
}
