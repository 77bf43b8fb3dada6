// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: blocks, 2 MiB of guest memory in one piece.
 *
 * A block is allocated as a whole where nothing is yet, or made of 512 frames
 * that are copied together while the guest uses them.  split_page() makes
 * ordinary pages of it at once, each freed by itself: taking a block apart later
 * is nothing but changing one entry.
 */
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "dmm.h"

/* Does a region have nothing but absent entries? */
static bool dmm_region_empty(struct kvm_dmm_region *region)
{
	unsigned int i;

	for (i = 0; i < KVM_DMM_REGION_PAGES; i++)
		if (READ_ONCE(region->entry[i]) & ~DMM_CACHED)
			return false;
	return true;
}

/* Own all entries of a region, if nothing at all is in it. */
static bool dmm_lock_region(struct kvm_dmm_batch *batch)
{
	unsigned int i;
	u64 *entry, e;

	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		entry = &batch->region->entry[i];
		e = READ_ONCE(*entry);
		if ((e && e != DMM_CACHED) ||
		    !dmm_trylock(batch->region, entry, e))
			return false;
		dmm_batch_insert(batch, i);
	}
	return true;
}

/*
 * From now on @page is the block of a region.  All entries are busy, so none of
 * them is the block's yet.
 */
static void dmm_block_set(struct kvm_dmm_batch *batch, struct page *page)
{
	WRITE_ONCE(batch->pool->has_blocks, true);
	atomic_set(&batch->region->deviants, KVM_DMM_REGION_PAGES);
	/* With the count of what deviates from it. */
	smp_store_release(&batch->region->block, page_to_pfn(page));
}

static void dmm_block_free(struct page *page)
{
	unsigned int i;

	for (i = 0; i < KVM_DMM_REGION_PAGES; i++)
		put_page(page + i);
}

/**
 * dmm_populate_block - fill a whole region, if nothing at all is in it
 * @pool: the pool
 * @base: page offset of the region
 * @gfp: how hard to try to get 512 pages in a row
 *
 * Context: As @gfp allows; no busy bit is held.
 * Return: True if the region is a block now.
 */
bool dmm_populate_block(struct kvm_dmm_pool *pool, pgoff_t base, gfp_t gfp)
{
	struct kvm_dmm_region *region;
	struct kvm_dmm_batch batch;
	struct page *page;
	unsigned int i;

	if (READ_ONCE(pool->nr_fillers))
		return false;
	region = dmm_region_get(pool, base);
	if (!region || !dmm_region_empty(region) ||
	    dmm_charge(pool, KVM_DMM_REGION_PAGES, DMM_SPARE, NULL, 0))
		return false;
	page = alloc_pages(gfp | __GFP_ZERO, DMM_REGION_SHIFT);
	if (!page)
		goto uncharge;
	split_page(page, DMM_REGION_SHIFT);

	kvm_dmm_batch_start(&batch, pool, base);
	/* The size as in dmm_fault_lock(), and who fills may be new, too. */
	if (!dmm_lock_region(&batch) || READ_ONCE(pool->nr_fillers) ||
	    base + KVM_DMM_REGION_PAGES > dmm_pages(pool))
		goto undo;
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++)
		if (region->entry[i] & DMM_CACHED)
			break;
	if (i < KVM_DMM_REGION_PAGES)
		dmm_batch_unmap(&batch);

	dmm_block_set(&batch, page);
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		dmm_frame_own(pool, page + i, base + i);
		dmm_batch_set(&batch, base + i,
			      dmm_mk_frame(page_to_pfn(page + i)));
	}
	dmm_count(pool, DMM_STAT_fill_block);
	return true;
undo:
	kvm_dmm_batch_end(&batch);
	dmm_block_free(page);
uncharge:
	dmm_uncharge(pool, KVM_DMM_REGION_PAGES);
	return false;
}

/**
 * kvm_dmm_can_make_block - could a region become a block?
 * @pool: the pool
 * @base: page offset of the region
 *
 * The answer may be old when the caller reads it.
 *
 * Context: Any.
 * Return: True if the region is none, but has 512 writable frames that nobody
 *	seems to hold.
 */
bool kvm_dmm_can_make_block(struct kvm_dmm_pool *pool, pgoff_t base)
{
	struct kvm_dmm_region *region = dmm_region(pool, base);
	struct page *page;
	unsigned int i;
	u64 e;

	if (!region ||
	    (READ_ONCE(region->block) && !atomic_read(&region->deviants)))
		return false;
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		e = READ_ONCE(region->entry[i]);
		if (e & DMM_BUSY || !dmm_writable(e))
			return false;
	}
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		e = READ_ONCE(region->entry[i]);
		/* May be freed meanwhile: then the answer is old. */
		page = dmm_page(e);
		if (!dmm_writable(e) || PageHWPoison(page) ||
		    folio_test_mlocked(page_folio(page)) ||
		    page_count(page) > 1 + folio_mapcount(page_folio(page)))
			return false;
	}
	return true;
}
EXPORT_SYMBOL_GPL(kvm_dmm_can_make_block);

/* Own all entries of a region, if each has a frame. */
static bool dmm_block_lock(struct kvm_dmm_batch *batch,
			   struct kvm_dmm_pool *pool, pgoff_t base)
{
	unsigned int i;

	if (!kvm_dmm_batch_start(batch, pool, base))
		return false;
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		if (!kvm_dmm_batch_add(batch, base + i) ||
		    READ_ONCE(batch->region->entry[i]) & DMM_KEPT)
			return false;
	}
	return true;
}

/* Let frames be written again without a fault on the entry. */
static void dmm_block_unprotect(struct kvm_dmm_region *region)
{
	unsigned int i;
	u64 *entry, e;

	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		entry = &region->entry[i];
		e = READ_ONCE(*entry);
		if (dmm_kind(e) == KVM_DMM_FRAME && (e & DMM_WP) &&
		    !(e & (DMM_BUSY | DMM_KEPT)) &&
		    dmm_trylock(region, entry, e))
			dmm_unlock(region, entry, e & ~DMM_WP);
	}
}

/*
 * Step 1: write-protect all frames.  Who has seen a page protected knows that
 * it did not change as long as it stays so, see region->protects.
 */
static bool dmm_block_protect(struct kvm_dmm_pool *pool, pgoff_t base,
			      unsigned int *protects)
{
	struct kvm_dmm_batch batch;
	bool ok;

	ok = dmm_block_lock(&batch, pool, base) &&
	     kvm_dmm_batch_protect(&batch) == KVM_DMM_REGION_PAGES;
	*protects = atomic_read(&batch.region->protects);
	kvm_dmm_batch_end(&batch);
	return ok;
}

/*
 * Step 2: copy while the guest runs.  What it writes meanwhile is copied again, and
 * what was not copied, as somebody has its entry and may give it back as it was.
 */
static void dmm_block_copy(struct kvm_dmm_region *region, struct page *block,
			   unsigned long *copied)
{
	struct page *page;
	unsigned int i;
	u64 *entry, e;

	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		entry = &region->entry[i];
		e = READ_ONCE(*entry);
		if (e & DMM_BUSY || dmm_kind(e) != KVM_DMM_FRAME)
			continue;
		/* As dmm_fault_get() does. */
		page = dmm_page(e);
		if (!get_page_unless_zero(page))
			continue;
		if (READ_ONCE(*entry) == e && !dmm_frame_copy(block + i, page))
			__set_bit(i, copied);
		put_page(page);
		cond_resched();
	}
}

/* Step 3: take the frames, copy what has changed, put the block in their place. */
static bool dmm_block_replace(struct kvm_dmm_pool *pool, pgoff_t base,
			      struct page *block, unsigned int protects,
			      const unsigned long *copied)
{
	struct page *old, *gather[32];
	struct kvm_dmm_batch batch;
	unsigned int i, nr = 0;
	bool same;

	if (!dmm_block_lock(&batch, pool, base) ||
	    kvm_dmm_batch_take(&batch) != KVM_DMM_REGION_PAGES) {
		kvm_dmm_batch_end(&batch);
		return false;
	}
	same = atomic_read(&batch.region->protects) == protects;
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		if (same && test_bit(i, copied) &&
		    READ_ONCE(batch.region->entry[i]) & DMM_WP)
			continue;
		if (dmm_frame_copy(block + i,
				   kvm_dmm_batch_page(&batch, base + i))) {
			kvm_dmm_batch_end(&batch);
			return false;
		}
	}

	dmm_block_set(&batch, block);
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		old = kvm_dmm_batch_page(&batch, base + i);
		page_ref_unfreeze(old, 1);
		dmm_frame_disown(old);
		dmm_frame_own(pool, block + i, base + i);
		dmm_batch_set(&batch, base + i,
			      dmm_mk_frame(page_to_pfn(block + i)));
		gather[nr++] = old;
		if (nr == ARRAY_SIZE(gather)) {
			release_pages(gather, nr);
			nr = 0;
		}
	}
	return true;
}

/*
 * A block, charged to the control group that its first frame is charged to, and on
 * the same node.
 */
static struct page *dmm_block_alloc(struct kvm_dmm_region *region)
{
	struct mem_cgroup *memcg = NULL;
	struct page *frame;
	u64 e = READ_ONCE(region->entry[0]);

	frame = dmm_page(e);
	if (e & DMM_BUSY || !dmm_writable(e) || !get_page_unless_zero(frame))
		return NULL;
	if (READ_ONCE(region->entry[0]) == e)
		memcg = dmm_frame_group(frame);
	put_page(frame);
	return dmm_alloc_in(memcg, page_to_nid(frame), DMM_BLOCK_GFP,
			    DMM_REGION_SHIFT);
}

/**
 * kvm_dmm_make_block - copy the 512 frames of a region into a block
 * @pool: the pool
 * @base: page offset of the region
 *
 * Guests go on reading and writing.  The frames are write-protected, copied, and
 * taken, which is when what was written in between is copied again::
 *
 *	guest					here
 *	-----					----
 *						1. protect all, count of protects
 *	a. write: entry unprotected		2. copy
 *	b. page written				3. take all: busy, unmapped, frozen
 *						4. unprotected, or not copied?
 *						   Copy now
 *						5. new entries
 *
 * If a is before 3, then 4 sees it; b is over when 3 has unmapped the page.  If
 * a is after 3, it waits for 5.  Protection cannot come back unseen between 1
 * and 4, since whoever protects an entry counts that while it is busy.
 *
 * The pool's charge stays what it is; the host needs 2 MiB more for a moment.
 * Guests map the block when they touch it next.
 *
 * Context: May sleep; no busy bit is held.
 * Return: 0; -EBUSY: an entry is no writable frame, is in use by others, or
 *	changes right now; -ENOMEM: no 2 MiB in a row.
 */
int kvm_dmm_make_block(struct kvm_dmm_pool *pool, pgoff_t base)
{
	struct kvm_dmm_region *region = dmm_region(pool, base);
	DECLARE_BITMAP(copied, KVM_DMM_REGION_PAGES) = {};
	struct page *block;
	unsigned int protects;
	int r = -EBUSY;

	if (!kvm_dmm_can_make_block(pool, base))
		return -EBUSY;
	block = dmm_block_alloc(region);
	if (!block) {
		r = -ENOMEM;
		goto failed;
	}
	split_page(block, DMM_REGION_SHIFT);
	if (dmm_block_protect(pool, base, &protects)) {
		dmm_block_copy(region, block, copied);
		if (dmm_block_replace(pool, base, block, protects, copied))
			r = 0;
	}
	if (r) {
		dmm_block_unprotect(region);
		dmm_block_free(block);
		goto failed;
	}
	dmm_count(pool, DMM_STAT_make_block);
	return 0;
failed:
	dmm_count(pool, DMM_STAT_make_block_failed);
	return r;
}
EXPORT_SYMBOL_GPL(kvm_dmm_make_block);
