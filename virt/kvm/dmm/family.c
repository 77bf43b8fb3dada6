// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: frames that only clones share, at the same offset.
 *
 * They have a count instead of a list of users, see struct dmm_family: so a clone
 * costs a few instructions a page.
 */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/slab.h>

#include "shared.h"

/* A frame that becomes a shared one, with a clone for its second user. */
static __always_inline void dmm_light_start(struct page *page,
					    unsigned long private)
{
	page->mapping = NULL;
	page->index = 2;
	page->private = private;
}

/*
 * A clone at the same offset uses what a busy entry has.  Not if somebody holds
 * the frame, a process that has it mapped, for example, if a policy keeps a
 * copy, or if others than clones share it.
 */
static bool dmm_light_use(struct kvm_dmm_pool *pool, u64 e)
{
	struct page *page = dmm_page(e);

	lockdep_assert_held(&pool->family->lock);
	switch (dmm_kind(e)) {
	case KVM_DMM_FRAME:
		if (e & DMM_KEPT || page_ref_count(page) != 1)
			return false;
		dmm_light_start(page, (unsigned long)pool | DMM_LIGHT);
		atomic_long_inc(&pool->nr_shared);
		return true;
	case KVM_DMM_SHARED:
		if (!(page->private & DMM_LIGHT) ||
		    page->index >= DMM_MAX_USERS)
			return false;
		page->index++;
		return true;
	default:
		return false;
	}
}

/* Places from @run on were done, up to @i, which was not; returns the next run. */
static unsigned long dmm_run_done(unsigned long *done, unsigned long run,
				  unsigned long i)
{
	bitmap_set(done, run, i - run);
	return i + 1;
}

/**
 * dmm_light_lock - own entries of a region, for a clone at the same offsets
 * @batch: of the pool that is cloned
 * @first: where in the region to start
 * @done: in, out: places whose frame the clone uses, too; none yet from @first on
 * @table: out: entries of the clone
 *
 * One loop for what would be three, since this is most of what cloning costs:
 * own the entry, as dmm_trylock() without the count of deviants; see that nobody
 * holds the frame, who would have a reference since the entry was not busy; and
 * count the users.  What guests have mapped is to be write-protected before an
 * entry is given back.
 *
 * Context: Does not sleep.
 * Return: The place of an entry that is busy, for the caller to wait for, and
 *	to go on after it; or KVM_DMM_REGION_PAGES.
 */
unsigned int dmm_light_lock(struct kvm_dmm_batch *batch, unsigned int first,
			    unsigned long *done, u64 *table)
{
	struct kvm_dmm_pool *pool = batch->pool;
	const unsigned long private = (unsigned long)pool | DMM_LIGHT;
	struct kvm_dmm_region *region = batch->region;
	unsigned int nr = 0, deviants = 0;
	u64 *entry = region->entry, e;
	unsigned long i, k, run = first;

	spin_lock(&pool->family->lock);
	for (i = first; i < KVM_DMM_REGION_PAGES; i++) {
		e = READ_ONCE(entry[i]);
		/* Nearly all are frames with nothing special. */
		if (likely((e & ~DMM_PAYLOAD) ==
			   dmm_kind_bits(KVM_DMM_FRAME))) {
			if (!try_cmpxchg64(&entry[i], &e, e | DMM_BUSY))
				break;
			if (likely(page_ref_count(dmm_page(e)) == 1)) {
				dmm_light_start(dmm_page(e), private);
				table[i] = dmm_frame_to_shared(e);
				continue;
			}
		} else if (!e) {
			run = dmm_run_done(done, run, i);
			continue;
		} else if (e & DMM_BUSY ||
			   !try_cmpxchg64(&entry[i], &e, e | DMM_BUSY)) {
			break;
		} else if (dmm_light_use(pool, e)) {
			table[i] = dmm_mk_shared(dmm_pfn(e));
			nr++;
			continue;
		}
		__set_bit(i, batch->locked);
		run = dmm_run_done(done, run, i);
	}
	dmm_run_done(done, run, i);
	spin_unlock(&pool->family->lock);
	bitmap_or(batch->locked, batch->locked, done, KVM_DMM_REGION_PAGES);
	/* dmm_light_use() has counted itself. */
	atomic_long_add(bitmap_weight(done, i) - bitmap_weight(done, first) - nr,
			&pool->nr_shared);
	/* With an entry busy, nobody sets the block. */
	if (bitmap_empty(batch->locked, i) || !region->block)
		return i;
	e = dmm_mk_frame(region->block + first) | DMM_BUSY;
	for (k = first; k < i; k++, e += dmm_mk_frame(1) - dmm_mk_frame(0))
		if (test_bit(k, batch->locked))
			deviants += (READ_ONCE(entry[k]) & ~DMM_WAITERS) == e;
	atomic_add(deviants, &region->deviants);
	return i;
}

/**
 * dmm_light_add - try again, with what a process had mapped
 * @batch: entries of the pool that is cloned
 * @done: in, out: as for dmm_light_lock()
 * @table: out: entries of the clone
 */
void dmm_light_add(struct kvm_dmm_batch *batch, unsigned long *done,
		   u64 *table)
{
	struct kvm_dmm_pool *pool = batch->pool;
	unsigned int i;
	u64 e;

	spin_lock(&pool->family->lock);
	for (i = batch->first; i < batch->end; i++) {
		if (!test_bit(i, batch->locked) || test_bit(i, done))
			continue;
		e = dmm_batch_entry(batch, i);
		if (!dmm_light_use(pool, e))
			continue;
		__set_bit(i, done);
		table[i] = dmm_mk_shared(dmm_pfn(e));
	}
	spin_unlock(&pool->family->lock);
}

/**
 * dmm_light_undo - users that were counted for a clone did not come
 * @pool: a member of the family
 * @table: entries of the clone
 *
 * The entries of the source are still busy, so its frames stay what they are, but
 * each may have got a handle meanwhile, which counts what did not come, too::
 *
 *	this clone of A			A's older clone B, cloned page by page
 *	---------------			--------------------------------------
 *	dmm_light_use(): page->index 3
 *					dmm_shared_of(): nr = nr_kin = 3
 *	dmm_region_publish() fails
 *	dmm_light_undo(): nr = nr_kin = 2
 */
void dmm_light_undo(struct kvm_dmm_pool *pool, u64 *table)
{
	struct kvm_dmm_shared *shared;
	struct page *page;
	unsigned int i;

	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		if (dmm_kind(table[i]) != KVM_DMM_SHARED)
			continue;
		page = dmm_page(table[i]);
		shared = dmm_shared_lock(pool, page);
		if (shared) {
			shared->nr--;
			shared->nr_kin--;
		} else {
			page->index--;
		}
		dmm_shared_unlock(pool, shared);
	}
}

static DEFINE_MUTEX(dmm_family_mutex);	/* protects pool->family */

/**
 * dmm_family_join - make two pools members of one family
 * @pool: a pool that is to be cloned
 * @clone: the pool that is to be the clone
 *
 * Context: May sleep.  The inodes are locked: neither goes away.
 * Return: True if they now are in the same family; false if they are in two,
 *	or there is no memory.
 */
bool dmm_family_join(struct kvm_dmm_pool *pool, struct kvm_dmm_pool *clone)
{
	struct dmm_family *family = NULL;

	mutex_lock(&dmm_family_mutex);
	if (!pool->family && !clone->family) {
		family = kzalloc(sizeof(*family), GFP_KERNEL_ACCOUNT);
		if (!family)
			goto unlock;
		spin_lock_init(&family->lock);
		INIT_LIST_HEAD(&family->pools);
	} else {
		family = pool->family ?: clone->family;
	}
	spin_lock(&family->lock);
	if (!pool->family) {
		pool->family = family;
		list_add_tail(&pool->kin, &family->pools);
	}
	if (!clone->family) {
		clone->family = family;
		list_add_tail(&clone->kin, &family->pools);
	}
	spin_unlock(&family->lock);
unlock:
	mutex_unlock(&dmm_family_mutex);
	return family && pool->family == clone->family;
}

/**
 * dmm_family_leave - a pool with an empty map is no member any more
 * @pool: the pool, which is going away
 */
void dmm_family_leave(struct kvm_dmm_pool *pool)
{
	struct dmm_family *family = pool->family;
	struct kvm_dmm_pool *kin;
	bool last;

	if (!family)
		return;
	mutex_lock(&dmm_family_mutex);
	spin_lock(&family->lock);
	list_del(&pool->kin);
	list_for_each_entry(kin, &family->pools, kin)
		if (kin->heir == pool)
			kin->heir = NULL;
	last = list_empty(&family->pools);
	spin_unlock(&family->lock);
	mutex_unlock(&dmm_family_mutex);
	if (last)
		kfree(family);
}
