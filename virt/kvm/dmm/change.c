// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: how an entry changes while everyone runs.
 *
 * The one invariant: no cached translation, in page tables of KVM or of
 * processes, ever allows more than the entry in the map allows.  To lower what
 * an entry allows:
 *
 *  1. Set its busy bit.  From now on no fault resolves it.
 *  2. In each VM with a slot on it, under mmu_lock: kvm_mmu_invalidate_begin(),
 *     zap or write-protect, flush, kvm_mmu_invalidate_end().
 *  3. Take the mappings of processes away, under the page lock of the frame.
 *  4. Where nobody else may use the frame: freeze its reference count.
 *  5. Do with the content what there is to do.  This may sleep.
 *  6. Write the new entry, which clears the busy bit, and wake waiters.
 *
 * Why no invalidation has to stay open between 2 and 6:
 *
 *	vCPU fault				change
 *	----------				------
 *	a. sample mmu_invalidate_seq		1. set busy bit
 *	b. read entry, take reference		2. mmu_lock { zap, seq++ }
 *	c. mmu_lock { seq unchanged?		6. new entry
 *	   install SPTE }
 *
 * If c is before 2, the SPTE is zapped.  If c is after 2 and a was before it,
 * the sequence has changed and the fault is tried again.  If a is after 2, so
 * is b, which therefore sees the busy bit, or what came after it.
 *
 * A process's fault has its page table entry installed after the handler has
 * returned, by the kernel:
 *
 *	process fault				change
 *	-------------				------
 *	a. lock page				1. set busy bit
 *	b. read entry: not busy			3. lock page { unmap }
 *	c. install PTE, unlock page		6. new entry
 *
 * If a is before 3, then 3 waits for c and removes the PTE.  If a is after 3,
 * b sees the busy bit.  Absent memory that was read is mapped by pool->zero,
 * whose page lock serves in the same way.
 *
 * To raise what an entry allows takes its busy bit only.
 */
#include <linux/highmem.h>
#include <linux/pagemap.h>
#include <trace/events/kvm_dmm.h>

#include "dmm.h"

#define for_each_locked(batch, i)		\
	for ((i) = (batch)->first;		\
	     (i) = find_next_bit((batch)->locked, (batch)->end, (i)),	\
	     (i) < (batch)->end; (i)++)

static unsigned int dmm_offset(pgoff_t index)
{
	return index & (KVM_DMM_REGION_PAGES - 1);
}

static void dmm_batch_init(struct kvm_dmm_batch *batch,
			   struct kvm_dmm_pool *pool,
			   struct kvm_dmm_region *region, pgoff_t index)
{
	batch->pool = pool;
	batch->region = region;
	batch->base = round_down(index, KVM_DMM_REGION_PAGES);
	batch->first = KVM_DMM_REGION_PAGES;
	batch->end = 0;
	batch->taken = false;
	bitmap_zero(batch->locked, KVM_DMM_REGION_PAGES);
	bitmap_zero(batch->frozen, KVM_DMM_REGION_PAGES);
	INIT_LIST_HEAD(&batch->gone);
	batch->nr_gone = 0;
}

/**
 * dmm_batch_insert - note that the batch owns an entry
 * @batch: the batch
 * @index: page offset of an entry that the caller has made busy
 */
void dmm_batch_insert(struct kvm_dmm_batch *batch, pgoff_t index)
{
	unsigned int i = dmm_offset(index);

	batch->first = min(batch->first, i);
	batch->end = max(batch->end, i + 1);
	__set_bit(i, batch->locked);
}

/**
 * kvm_dmm_batch_start - begin a change of entries of one region
 * @batch: the batch
 * @pool: the pool
 * @index: a page offset in the region
 *
 * Context: Any.
 * Return: False if the region has nothing in it; the batch is not started.
 */
bool kvm_dmm_batch_start(struct kvm_dmm_batch *batch,
			 struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct kvm_dmm_region *region = dmm_region(pool, index);

	if (!region)
		return false;
	dmm_batch_init(batch, pool, region, index);
	return true;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_start);

/* As kvm_dmm_next_region(), also while the file goes. */
bool dmm_next_region(struct kvm_dmm_pool *pool, pgoff_t *index, pgoff_t last)
{
	unsigned long i = *index >> DMM_REGION_SHIFT;

	if (*index > last)
		return false;
	/* Most ranges are small, and to look one up takes less than a search. */
	if (i == last >> DMM_REGION_SHIFT)
		return xa_load(&pool->regions, i);
	if (!xa_find(&pool->regions, &i, last >> DMM_REGION_SHIFT, XA_PRESENT))
		return false;
	*index = max(*index, (pgoff_t)i << DMM_REGION_SHIFT);
	return true;
}

/**
 * kvm_dmm_next_region - find the next region with anything in it
 * @pool: the pool
 * @index: in: where to start; out: first page offset, at or after @index
 * @last: last page offset of interest
 *
 * What is done for all of a pool goes from one to the next, and has an end when the
 * file goes, which waits for it.
 *
 * Context: Any.
 * Return: False if there is none, or the file goes.
 */
bool kvm_dmm_next_region(struct kvm_dmm_pool *pool, pgoff_t *index,
			 pgoff_t last)
{
	return !dmm_pool_goes(pool) && dmm_next_region(pool, index, last);
}
EXPORT_SYMBOL_GPL(kvm_dmm_next_region);

/**
 * kvm_dmm_batch_add - try to own an entry
 * @batch: the batch, of the region in which @index lies
 * @index: page offset
 *
 * Context: Any; does not sleep.
 * Return: True if the entry has a frame of its own and now belongs to the
 *	batch.
 */
bool kvm_dmm_batch_add(struct kvm_dmm_batch *batch, pgoff_t index)
{
	u64 *entry = dmm_entry(batch->region, index);
	u64 e = READ_ONCE(*entry);

	if (e & DMM_BUSY || dmm_kind(e) != KVM_DMM_FRAME ||
	    !dmm_trylock(batch->region, entry, e))
		return false;
	dmm_batch_insert(batch, index);
	return true;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_add);

/**
 * dmm_batch_lock - own an entry, waiting for it
 * @batch: the batch; @index is higher than all that it has
 * @index: page offset
 *
 * Context: May sleep, as long as others work on the entry.
 * Return: False if the entry is absent and in no page table: nothing to do.
 */
bool dmm_batch_lock(struct kvm_dmm_batch *batch, pgoff_t index)
{
	u64 *entry = dmm_entry(batch->region, index);
	u64 e;

	for (;;) {
		e = READ_ONCE(*entry);
		if (!e)
			return false;
		if (e & DMM_BUSY) {
			dmm_wait(batch->pool, entry, TASK_UNINTERRUPTIBLE);
			continue;
		}
		if (dmm_trylock(batch->region, entry, e))
			break;
	}
	dmm_batch_insert(batch, index);
	return true;
}

/**
 * dmm_batch_hold - make a batch of one entry that the caller owns already
 * @batch: the batch
 * @pool: the pool
 * @region: the region
 * @index: page offset of the entry, busy by the caller
 */
void dmm_batch_hold(struct kvm_dmm_batch *batch, struct kvm_dmm_pool *pool,
		    struct kvm_dmm_region *region, pgoff_t index)
{
	dmm_batch_init(batch, pool, region, index);
	dmm_batch_insert(batch, index);
}

/*
 * Take one page that somebody holds out of all processes.  The page lock makes a
 * fault that already looked at the entry finish first.
 *
 * That it is not mapped does not mean that no TLB has it::
 *
 *	madvise()			here			another thread
 *	clears the PTE, mapcount 0				has it in its TLB
 *	(zaps others)			replaces the page
 *					a vCPU writes the new
 *								reads the old one
 *	flushes
 *
 * Until it flushes it holds the page, and unmapping finds that it has yet to.
 */
static void dmm_unmap_frame(struct kvm_dmm_pool *pool, struct page *page,
			    pgoff_t index)
{
	lock_page(page);
	unmap_mapping_pages(pool->inode.i_mapping, index, 1, false);
	unlock_page(page);
}

/*
 * Step 3 for the run of entries [first, end).
 *
 * A process that has a page mapped, or is about to map it, holds a reference of
 * it, which a fault took before it found the entry not busy.  So a page that
 * only the map holds is in no process.
 */
static void dmm_unmap_processes(struct kvm_dmm_batch *batch,
				unsigned int first, unsigned int end)
{
	struct address_space *mapping = batch->pool->inode.i_mapping;
	bool held = false, mapped = false, zero = false;
	unsigned int i;
	u64 e;

	for (i = first; i < end; i++) {
		e = dmm_batch_entry(batch, i);
		zero |= e == DMM_CACHED;
		held |= dmm_has_page(e) && page_count(dmm_page(e)) > 1;
	}
	if (!held && !zero)
		return;

	/* Most goes at once; what a fault adds now is found page by page. */
	for (i = first; i < end; i++) {
		e = dmm_batch_entry(batch, i);
		mapped |= dmm_has_page(e) && page_mapped(dmm_page(e));
	}
	if (zero)
		lock_page(batch->pool->zero);
	if (zero || mapped)
		unmap_mapping_pages(mapping, batch->base + first, end - first,
				    false);
	if (zero)
		unlock_page(batch->pool->zero);

	for (i = first; i < end; i++) {
		e = dmm_batch_entry(batch, i);
		if (dmm_has_page(e) && page_count(dmm_page(e)) > 1)
			dmm_unmap_frame(batch->pool, dmm_page(e),
					batch->base + i);
	}
}

/* Steps 2 and 3 for all entries of the batch. */
static void dmm_lower(struct kvm_dmm_batch *batch, bool protect)
{
	unsigned int first, end;

	dmm_invalidate_slots(batch, protect);
	first = batch->first;
	for_each_set_bitrange_from(first, end, batch->locked, batch->end)
		dmm_unmap_processes(batch, first, end);
}

/**
 * dmm_batch_unmap - take the entries of a batch out of all page tables
 * @batch: the batch
 *
 * Context: May sleep.
 */
void dmm_batch_unmap(struct kvm_dmm_batch *batch)
{
	trace_kvm_dmm_unmap(batch);
	dmm_lower(batch, false);
}

/**
 * dmm_batch_lower - make the entries of a batch read-only in all page tables
 * @batch: the batch
 *
 * Processes lose the pages, guests keep reading them.
 *
 * Context: May sleep.
 */
void dmm_batch_lower(struct kvm_dmm_batch *batch)
{
	trace_kvm_dmm_protect(batch);
	dmm_lower(batch, true);
}

/**
 * dmm_batch_lower_guests - make the entries of a batch read-only for guests
 * @batch: the batch
 *
 * A frame that only the map holds is in no process.  For all others
 * dmm_batch_lower() is to follow.
 *
 * Context: May sleep.
 */
void dmm_batch_lower_guests(struct kvm_dmm_batch *batch)
{
	trace_kvm_dmm_protect(batch);
	dmm_invalidate_slots(batch, true);
}

/* Give an entry back as it was. */
static void dmm_batch_undo(struct kvm_dmm_batch *batch, unsigned int i)
{
	u64 e = dmm_batch_entry(batch, i);

	if (__test_and_clear_bit(i, batch->frozen))
		page_ref_unfreeze(dmm_page(e), 1);
	__clear_bit(i, batch->locked);
	dmm_unlock(batch->region, &batch->region->entry[i], e);
}

/* A frame that somebody uses leaves the batch. */
static void dmm_batch_reject(struct kvm_dmm_batch *batch, unsigned int i)
{
	dmm_count(batch->pool, DMM_STAT_reject_pinned);
	dmm_batch_undo(batch, i);
}

/*
 * Before step 2: what is locked in memory stays by its owner's wish.  Taken out
 * of the last page table, a page is soon locked no more.
 *
 * Return: True if anything is left in the batch.
 */
static bool dmm_batch_leave_locked(struct kvm_dmm_batch *batch)
{
	unsigned int i;
	u64 e;

	for_each_locked(batch, i) {
		e = dmm_batch_entry(batch, i);
		if (dmm_kind(e) == KVM_DMM_FRAME &&
		    unlikely(folio_test_mlocked(page_folio(dmm_page(e)))))
			dmm_batch_reject(batch, i);
	}
	return !bitmap_empty(batch->locked, KVM_DMM_REGION_PAGES);
}

/*
 * Step 4: keep the frames that only the map holds.  What is in use has a
 * reference, or has been locked in memory meanwhile.  What the memory has lost
 * is not to be read.
 */
static unsigned int dmm_batch_freeze(struct kvm_dmm_batch *batch)
{
	unsigned int i, n = 0;

	for_each_locked(batch, i) {
		u64 e = dmm_batch_entry(batch, i);
		struct page *page = dmm_page(e);

		if (dmm_kind(e) != KVM_DMM_FRAME)
			continue;
		if (!folio_test_mlocked(page_folio(page)) &&
		    !PageHWPoison(page) && page_ref_freeze(page, 1)) {
			__set_bit(i, batch->frozen);
			n++;
		} else {
			dmm_batch_reject(batch, i);
		}
	}
	return n;
}

/**
 * kvm_dmm_batch_take - get the frames of a batch for oneself
 * @batch: the batch
 *
 * Takes the frames out of all page tables.  Those that somebody else uses, for
 * I/O for example, leave the batch as they were.  Nobody can reach the content
 * of the others until the batch ends.
 *
 * Context: May sleep.
 * Return: The number of entries left in the batch.
 */
unsigned int kvm_dmm_batch_take(struct kvm_dmm_batch *batch)
{
	if (!batch->end || !dmm_batch_leave_locked(batch))
		return 0;
	dmm_batch_unmap(batch);
	batch->taken = true;
	return dmm_batch_freeze(batch);
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_take);

/**
 * kvm_dmm_batch_protect - write-protect the frames of a batch
 * @batch: the batch
 *
 * Guests keep reading them.  When the batch ends, every page that is still in
 * it is protected: as long as kvm_dmm_peek() says so, its content has not
 * changed.  The frames are frozen until then, so their content can be read or
 * compared before.
 *
 * Context: May sleep.
 * Return: The number of entries left in the batch.
 */
unsigned int kvm_dmm_batch_protect(struct kvm_dmm_batch *batch)
{
	unsigned int i, n;

	if (!batch->end || !dmm_batch_leave_locked(batch))
		return 0;
	atomic_inc(&batch->region->protects);
	dmm_batch_lower(batch);
	n = dmm_batch_freeze(batch);
	for_each_set_bit(i, batch->frozen, batch->end) {
		u64 *entry = &batch->region->entry[i];
		u64 e = READ_ONCE(*entry);

		/* Waiters may set their bit meanwhile. */
		while (!try_cmpxchg64(entry, &e, e | DMM_WP))
			;
	}
	return n;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_protect);

/**
 * kvm_dmm_batch_page - the frame at an offset
 * @batch: a batch after kvm_dmm_batch_take() or kvm_dmm_batch_protect()
 * @index: page offset
 *
 * Context: Any.
 * Return: The page, or NULL if the entry left the batch.
 */
struct page *kvm_dmm_batch_page(struct kvm_dmm_batch *batch, pgoff_t index)
{
	unsigned int i = dmm_offset(index);

	return test_bit(i, batch->frozen) ?
	       dmm_page(dmm_batch_entry(batch, i)) : NULL;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_page);

/**
 * kvm_dmm_batch_pin - have a frame go on protected, with a reference for oneself
 * @batch: a batch after kvm_dmm_batch_take() or kvm_dmm_batch_protect()
 * @index: page offset
 *
 * The entry leaves the batch, and the frame may be read by everybody.  As long
 * as the reference is held, nobody can protect the frame again, since that
 * takes a frame which only the map holds: so when the entry is still protected
 * and has this page, the content is what it was.  To find out, own the entry by
 * kvm_dmm_batch_add(), ask kvm_dmm_peek(), and give the reference back before
 * kvm_dmm_batch_take().
 *
 * Context: Any.
 * Return: The page, or NULL if the entry left the batch.
 */
struct page *kvm_dmm_batch_pin(struct kvm_dmm_batch *batch, pgoff_t index)
{
	struct page *page = kvm_dmm_batch_page(batch, index);
	u64 e;

	if (!page)
		return NULL;
	e = dmm_batch_entry(batch, dmm_offset(index));
	atomic_inc(&batch->region->protects);
	page_ref_unfreeze(page, 2);
	dmm_batch_set(batch, index, e | DMM_WP);
	return page;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_pin);

/**
 * dmm_batch_set - write an entry of a batch, which leaves the batch
 * @batch: the batch
 * @index: page offset
 * @new: the new value
 */
void dmm_batch_set(struct kvm_dmm_batch *batch, pgoff_t index, u64 new)
{
	unsigned int i = dmm_offset(index);

	__clear_bit(i, batch->locked);
	__clear_bit(i, batch->frozen);
	dmm_unlock(batch->region, &batch->region->entry[i], new);
}

/* Pages that a batch keeps from being used again. */
#define DMM_BATCH_GONE	32

static void dmm_batch_free(struct kvm_dmm_batch *batch)
{
	put_pages_list(&batch->gone);
	dmm_uncharge(batch->pool, batch->nr_gone);
	batch->nr_gone = 0;
}

/* Replace a frozen frame by @new and free it. */
static void dmm_batch_replace(struct kvm_dmm_batch *batch, pgoff_t index,
			      u64 new)
{
	u64 e = dmm_batch_entry(batch, dmm_offset(index));
	struct page *page = dmm_page(e);

	page_ref_unfreeze(page, 1);
	dmm_frame_disown(page);
	dmm_batch_set(batch, index, new);
	list_add(&page->lru, &batch->gone);
	if (++batch->nr_gone == DMM_BATCH_GONE)
		dmm_batch_free(batch);
}

/**
 * kvm_dmm_batch_token - replace a frame by a token
 * @batch: a batch after kvm_dmm_batch_take()
 * @policy: whose token it is
 * @index: page offset
 * @token: of up to KVM_DMM_TOKEN_BITS bits; comes back in the ops
 *
 * The policy has the content from now on; the frame is freed.
 *
 * Context: May sleep.  From the policy's reclaim op.
 * Return: 0; -ENOENT: the entry is not in the batch; -EBUSY: the policy is
 *	being attached or detached, or was ejected, and may add no tokens;
 *	-ERANGE: @token is too large; -EINVAL: the policy has no fetch op or is
 *	not that of this pool.
 *	On error the frame stays and the token remains the caller's.
 */
int kvm_dmm_batch_token(struct kvm_dmm_batch *batch,
			struct kvm_dmm_policy *policy, pgoff_t index, u64 token)
{
	unsigned int i = dmm_offset(index);
	u64 e = dmm_batch_entry(batch, i);

	if (!batch->taken || !test_bit(i, batch->frozen))
		return -ENOENT;
	if (token >> KVM_DMM_TOKEN_BITS)
		return -ERANGE;
	if (policy->pool != batch->pool || !policy->ops->fetch)
		return -EINVAL;
	/* Pairs with the walk of dmm_detach(): either sees what the other did. */
	if (READ_ONCE(policy->draining) || READ_ONCE(policy->ejected))
		return -EBUSY;
	if (e & DMM_KEPT)
		dmm_free_token(batch->pool, dmm_policy_id(e),
			       page_private(dmm_page(e)));
	atomic_long_inc(&batch->pool->nr_tokens);
	dmm_count(batch->pool, DMM_STAT_token);
	trace_kvm_dmm_token(batch->pool, index, policy->ops->name, token);
	dmm_batch_replace(batch, index, dmm_mk_token(policy->id, token));
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_token);

/* Does @policy keep the content of a frame with the entry @e? */
static bool dmm_keeps(struct kvm_dmm_policy *policy, u64 e)
{
	return (e & DMM_KEPT) && dmm_policy_id(e) == policy->id;
}

/**
 * kvm_dmm_batch_copy - what token would kvm_dmm_batch_kept() put in a frame's place?
 * @batch: a batch after kvm_dmm_batch_take()
 * @policy: the policy
 * @index: page offset
 * @token: where to store the token
 *
 * Context: Any.
 * Return: True if the frame is in the batch and kept by @policy.
 */
bool kvm_dmm_batch_copy(struct kvm_dmm_batch *batch,
			struct kvm_dmm_policy *policy, pgoff_t index, u64 *token)
{
	unsigned int i = dmm_offset(index);
	u64 e = dmm_batch_entry(batch, i);

	if (!batch->taken || !test_bit(i, batch->frozen) || !dmm_keeps(policy, e))
		return false;
	*token = page_private(dmm_page(e));
	return true;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_copy);

/**
 * kvm_dmm_batch_kept - replace a frame by the token that it came from
 * @batch: a batch after kvm_dmm_batch_take()
 * @policy: the policy
 * @index: page offset
 *
 * For frames that @policy fetched and kept, and that were not written since:
 * the content need not be stored again.
 *
 * Context: May sleep.  From the policy's reclaim op.
 * Return: 0; -ENOENT: the frame is not in the batch or not kept by @policy.
 */
int kvm_dmm_batch_kept(struct kvm_dmm_batch *batch,
		       struct kvm_dmm_policy *policy, pgoff_t index)
{
	u64 kept;

	if (!kvm_dmm_batch_copy(batch, policy, index, &kept) ||
	    READ_ONCE(policy->draining) || READ_ONCE(policy->ejected))
		return -ENOENT;
	atomic_long_inc(&batch->pool->nr_tokens);
	dmm_count(batch->pool, DMM_STAT_token);
	trace_kvm_dmm_token(batch->pool, index, policy->ops->name, kept);
	dmm_batch_replace(batch, index, dmm_mk_token(policy->id, kept));
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_kept);

/**
 * kvm_dmm_batch_forget - have a policy forget its copy of a frame that stays
 * @batch: a batch to which the entry was added; it need not be taken
 * @policy: the policy
 * @index: page offset
 *
 * Calls the policy's free_token op.  The frame stays in the batch and may be
 * written without telling the policy when it is given back.
 *
 * Context: May sleep.
 * Return: 0; -ENOENT: the entry is not in the batch or not kept by @policy.
 */
int kvm_dmm_batch_forget(struct kvm_dmm_batch *batch,
			 struct kvm_dmm_policy *policy, pgoff_t index)
{
	unsigned int i = dmm_offset(index);
	u64 *entry = &batch->region->entry[i];
	u64 e = READ_ONCE(*entry);
	struct page *page;

	if (!test_bit(i, batch->locked) || !dmm_keeps(policy, e))
		return -ENOENT;
	page = dmm_page(e);
	dmm_free_token(batch->pool, policy->id, page_private(page));
	set_page_private(page, 0);
	/* Waiters may set their bit meanwhile. */
	while (!try_cmpxchg64(entry, &e, dmm_mk_frame(page_to_pfn(page)) |
			      (e & (DMM_BUSY | DMM_WAITERS))))
		;
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_forget);

/**
 * kvm_dmm_batch_absent - give a frame up whose content is all zero
 * @batch: a batch after kvm_dmm_batch_take()
 * @index: page offset
 *
 * Context: May sleep.
 * Return: 0; -ENOENT: the entry is not in the batch; -EINVAL: the frame has
 *	content; -EPERM: a policy has a fill op, so absent memory is not what
 *	reads as zero.
 */
int kvm_dmm_batch_absent(struct kvm_dmm_batch *batch, pgoff_t index)
{
	unsigned int i = dmm_offset(index);
	u64 e = dmm_batch_entry(batch, i);
	void *kaddr;
	bool zero;

	if (!batch->taken || !test_bit(i, batch->frozen))
		return -ENOENT;
	/*
	 * A policy that is attached right after this look finds absent what it
	 * would have found so, had it come after the batch.
	 */
	if (READ_ONCE(batch->pool->nr_fillers))
		return -EPERM;
	kaddr = kmap_local_page(dmm_page(e));
	zero = !memchr_inv(kaddr, 0, PAGE_SIZE);
	kunmap_local(kaddr);
	if (!zero)
		return -EINVAL;
	if (e & DMM_KEPT)
		dmm_free_token(batch->pool, dmm_policy_id(e),
			       page_private(dmm_page(e)));
	dmm_count(batch->pool, DMM_STAT_drop);
	dmm_batch_replace(batch, index, 0);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_absent);

/**
 * kvm_dmm_batch_end - give back all entries that are left in a batch
 * @batch: the batch
 *
 * Frees the frames that left the map.
 *
 * Context: Any.
 */
void kvm_dmm_batch_end(struct kvm_dmm_batch *batch)
{
	unsigned int i;

	for_each_locked(batch, i)
		dmm_batch_undo(batch, i);
	dmm_batch_free(batch);
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_end);

/* Pages on their way to the allocator, and what they were charged. */
struct dmm_gather {
	struct page *page[32];
	unsigned int nr;
};

static void dmm_gather_flush(struct dmm_gather *gather)
{
	release_pages(gather->page, gather->nr);
	gather->nr = 0;
}

/* Give up what an entry of the batch has; returns frames to uncharge. */
static unsigned int dmm_drop(struct kvm_dmm_batch *batch, unsigned int i,
			     struct dmm_gather *gather)
{
	struct kvm_dmm_pool *pool = batch->pool;
	pgoff_t index = batch->base + i;
	u64 e = dmm_batch_entry(batch, i);
	unsigned int nr = 0;

	switch (dmm_kind(e)) {
	case KVM_DMM_ABSENT:
		break;
	case KVM_DMM_FRAME:
		if (e & DMM_KEPT)
			dmm_free_token(pool, dmm_policy_id(e),
				       page_private(dmm_page(e)));
		dmm_frame_disown(dmm_page(e));
		gather->page[gather->nr++] = dmm_page(e);
		nr = 1;
		break;
	case KVM_DMM_SHARED:
		dmm_shared_leave(batch->region, pool, index, dmm_page(e));
		break;
	case KVM_DMM_TOKEN:
		atomic_long_dec(&pool->nr_tokens);
		dmm_free_token(pool, dmm_policy_id(e), dmm_token(e));
		break;
	}
	dmm_count(pool, DMM_STAT_drop);
	dmm_batch_set(batch, index, 0);
	if (gather->nr == ARRAY_SIZE(gather->page))
		dmm_gather_flush(gather);
	return nr;
}

/**
 * dmm_drop_range - make a range absent: a hole, or the end of the file
 * @pool: the pool
 * @first: first page offset
 * @last: last page offset
 *
 * Frames that somebody holds leave the map all the same and are freed by their
 * last user, as with any file.
 *
 * Context: May sleep.
 */
void dmm_drop_range(struct kvm_dmm_pool *pool, pgoff_t first, pgoff_t last)
{
	struct dmm_gather gather = { .nr = 0 };
	struct kvm_dmm_batch batch;
	unsigned int i, nr;
	pgoff_t index, end;

	/* Size before entries: see dmm_fault_lock(), whose exchange is the other. */
	smp_mb();
	index = first;
	while (index <= last && dmm_next_region(pool, &index, last)) {
		cond_resched();
		kvm_dmm_batch_start(&batch, pool, index);
		end = min(last, batch.base + KVM_DMM_REGION_PAGES - 1);
		/* Nothing is left of it: it may become a block once more. */
		if (index == batch.base && end - index == KVM_DMM_REGION_PAGES - 1)
			WRITE_ONCE(batch.region->tried, false);
		for (; index <= end; index++)
			dmm_batch_lock(&batch, index);
		if (!batch.end)
			continue;
		dmm_batch_unmap(&batch);
		nr = 0;
		for_each_locked(&batch, i)
			nr += dmm_drop(&batch, i, &gather);
		dmm_gather_flush(&gather);
		dmm_uncharge(pool, nr);
	}
}
