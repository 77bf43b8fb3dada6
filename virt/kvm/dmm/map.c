// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the map from guest to machine memory (P2M).
 *
 * An xarray of regions, each with a page of 512 entries.  Whoever changes an
 * entry owns its busy bit.  Faults on different entries share no lock.
 */
#include <linux/slab.h>
#include <linux/wait_bit.h>

#include "dmm.h"

static struct kmem_cache *dmm_region_cache;

/* As DMM_GFP of frame.c: nobody is killed for it. */
#define DMM_MAP_GFP	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | \
			 __GFP_NOWARN)

/**
 * dmm_region - find the region of a page offset
 * @pool: the pool
 * @index: page offset
 *
 * Context: Any.
 * Return: The region, or NULL when nothing in it was ever touched.
 */
struct kvm_dmm_region *dmm_region(struct kvm_dmm_pool *pool, pgoff_t index)
{
	return xa_load(&pool->regions, index >> DMM_REGION_SHIFT);
}

/**
 * dmm_region_alloc - make a region that nobody knows yet
 *
 * Context: May sleep.
 * Return: The region, all absent, or NULL without memory.
 */
struct kvm_dmm_region *dmm_region_alloc(void)
{
	struct kvm_dmm_region *region;

	region = kmem_cache_zalloc(dmm_region_cache, DMM_MAP_GFP);
	if (!region)
		return NULL;
	region->entry = (u64 *)get_zeroed_page(DMM_MAP_GFP);
	if (!region->entry) {
		kmem_cache_free(dmm_region_cache, region);
		return NULL;
	}
	return region;
}

/**
 * dmm_region_free - free a region that nobody can reach
 * @region: the region
 */
void dmm_region_free(struct kvm_dmm_region *region)
{
	free_page((unsigned long)region->entry);
	kmem_cache_free(dmm_region_cache, region);
}

/**
 * dmm_region_publish - put a new region into the map
 * @pool: the pool
 * @index: page offset
 * @region: the region, from dmm_region_alloc()
 *
 * Context: May sleep, but not reclaim through policies.
 * Return: @region; that of somebody else who came first; NULL without memory.
 */
struct kvm_dmm_region *dmm_region_publish(struct kvm_dmm_pool *pool,
					  pgoff_t index,
					  struct kvm_dmm_region *region)
{
	struct kvm_dmm_region *old;

	old = xa_cmpxchg(&pool->regions, index >> DMM_REGION_SHIFT, NULL,
			 region, DMM_MAP_GFP & ~__GFP_FS & ~__GFP_IO);
	if (!old)
		return region;
	return xa_is_err(old) ? NULL : old;
}

/**
 * dmm_region_get - find or make the region of a page offset
 * @pool: the pool
 * @index: page offset
 *
 * Context: May sleep.
 * Return: The region, or NULL without memory.
 */
struct kvm_dmm_region *dmm_region_get(struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct kvm_dmm_region *region, *new;

	region = dmm_region(pool, index);
	if (likely(region))
		return region;

	new = dmm_region_alloc();
	if (!new)
		return NULL;
	region = dmm_region_publish(pool, index, new);
	if (region != new)
		dmm_region_free(new);
	return region;
}

/**
 * dmm_regions_free - free all regions of a file that nobody can reach
 * @pool: the pool; every entry is absent
 */
void dmm_regions_free(struct kvm_dmm_pool *pool)
{
	struct kvm_dmm_region *region;
	unsigned long i;

	xa_for_each(&pool->regions, i, region)
		dmm_region_free(region);
	xa_destroy(&pool->regions);
}

/* Announce a waiter.  True when there is nothing to wait for. */
static bool dmm_not_busy(u64 *entry)
{
	u64 e = READ_ONCE(*entry);

	while (e & DMM_BUSY) {
		if (e & DMM_WAITERS)
			return false;
		if (try_cmpxchg64(entry, &e, e | DMM_WAITERS))
			return false;
	}
	return true;
}

/**
 * dmm_wait - sleep until an entry is not busy
 * @pool: the pool, for its counter
 * @entry: the entry
 * @state: task state: which signals end the wait
 *
 * The waiter is on the queue before it sets DMM_WAITERS, and dmm_unlock()
 * reads that bit by the exchange that clears the busy bit: no wake-up is lost.
 *
 * Context: May sleep.  No busy bit held, or only lower ones of the same pool.
 * Return: 0 or -EINTR.
 */
int dmm_wait(struct kvm_dmm_pool *pool, u64 *entry, int state)
{
	int r;

	might_sleep();
	dmm_count(pool, DMM_STAT_busy_wait);
	switch (state) {
	case TASK_INTERRUPTIBLE:
		r = wait_var_event_interruptible(entry, dmm_not_busy(entry));
		break;
	case TASK_KILLABLE:
		r = wait_var_event_killable(entry, dmm_not_busy(entry));
		break;
	default:
		wait_var_event(entry, dmm_not_busy(entry));
		r = 0;
	}
	return r ? -EINTR : 0;
}

/**
 * kvm_dmm_peek - look at an entry
 * @pool: the pool
 * @index: page offset
 * @write_protected: for a frame: it was not written since it was protected
 *
 * The answer may be old when the caller reads it; only entries in a batch are
 * stable.
 *
 * Context: Any.
 * Return: What the map has at @index.
 */
enum kvm_dmm_kind kvm_dmm_peek(struct kvm_dmm_pool *pool, pgoff_t index,
			       bool *write_protected)
{
	struct kvm_dmm_region *region = dmm_region(pool, index);
	u64 e = region ? READ_ONCE(*dmm_entry(region, index)) : 0;

	if (write_protected)
		*write_protected = e & DMM_WP;
	return dmm_kind(e);
}
EXPORT_SYMBOL_GPL(kvm_dmm_peek);

/*
 * Is a region a block, apart from entries that are busy right now?  Those of a
 * block in the making are given back one by one, and so is one that somebody
 * only looks at: neither is a reason to treat the others as small pages.
 */
static bool dmm_looks_like_block(struct kvm_dmm_region *region)
{
	unsigned int i;
	u64 e;

	/* Pairs with the release that sets the block. */
	if (!smp_load_acquire(&region->block))
		return false;
	if (!atomic_read(&region->deviants))
		return true;
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		e = READ_ONCE(region->entry[i]);
		if (!(e & DMM_BUSY) &&
		    !dmm_is_block_entry(region, &region->entry[i], e))
			return false;
	}
	return true;
}

static void dmm_look_shared(struct kvm_dmm_pool *pool,
			    struct kvm_dmm_region *region,
			    unsigned long *shared)
{
	unsigned int i;

	bitmap_zero(shared, KVM_DMM_REGION_PAGES);
	/* Most pools have none. */
	if (!atomic_long_read(&pool->nr_shared))
		return;
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++)
		if (dmm_kind(READ_ONCE(region->entry[i])) == KVM_DMM_SHARED)
			__set_bit(i, shared);
}

/**
 * kvm_dmm_frames - look at the frames of a region
 * @pool: the pool
 * @base: page offset of the region
 * @frames: out: KVM_DMM_REGION_PAGES bits, set for entries with a frame of their
 *	own
 * @shared: out: the same for entries with a shared frame, a moment later; or
 *	NULL
 * @written: out: of @frames, those that may have been written since they were
 *	protected; or NULL
 * @block: out: the region is mapped as 2 MiB, or may be, at once or as soon as
 *	entries that are busy are given back; or NULL
 *
 * As kvm_dmm_peek(), for a whole region at once.
 *
 * Context: Any.
 * Return: False if nothing in the region was ever touched.
 */
bool kvm_dmm_frames(struct kvm_dmm_pool *pool, pgoff_t base,
		    unsigned long *frames, unsigned long *shared,
		    unsigned long *written, bool *block)
{
	struct kvm_dmm_region *region = dmm_region(pool, base);
	unsigned int word, bit;

	if (!region) {
		bitmap_zero(frames, KVM_DMM_REGION_PAGES);
		if (shared)
			bitmap_zero(shared, KVM_DMM_REGION_PAGES);
		return false;
	}
	for (word = 0; word < BITS_TO_LONGS(KVM_DMM_REGION_PAGES); word++) {
		u64 *entry = &region->entry[word * BITS_PER_LONG];
		unsigned long f = 0, w = 0;

		for (bit = 0; bit < BITS_PER_LONG; bit++) {
			u64 e = READ_ONCE(entry[bit]);
			unsigned long frame = dmm_kind(e) == KVM_DMM_FRAME;

			f |= frame << bit;
			w |= (e & DMM_WP ? 0 : frame) << bit;
		}
		frames[word] = f;
		if (written)
			written[word] = w;
	}
	if (shared)
		dmm_look_shared(pool, region, shared);
	if (block) {
		/*
		 * dmm_block_set() before the entries, here after them: who has
		 * seen one of a new block sees that it is one.
		 */
		smp_rmb();
		*block = dmm_looks_like_block(region);
	}
	return true;
}
EXPORT_SYMBOL_GPL(kvm_dmm_frames);

int kvm_dmm_map_init(void)
{
	dmm_region_cache = KMEM_CACHE(kvm_dmm_region, SLAB_ACCOUNT);
	return dmm_region_cache ? 0 : -ENOMEM;
}

void kvm_dmm_map_exit(void)
{
	kmem_cache_destroy(dmm_region_cache);
}
