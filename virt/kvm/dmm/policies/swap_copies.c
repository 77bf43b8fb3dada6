// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: how the swap policy gives up copies of pages that have
 * come back.
 *
 * In memory they go when that is short, see dmm_swap_drop().  In a backing they
 * cost nothing as long as there is room.  Who writes to one that is crowded has
 * all pools that use it give up theirs, idle ones too, until so much is free
 * that keeping and giving up do not alternate.
 */
#include <linux/sched.h>

#include "swap.h"

/* How long after the backing was found crowded; writes are many. */
#define DMM_COPIES_DELAY	(HZ / 4)

/**
 * dmm_copies_forget - have pages of a region do without their copies
 * @swap: the policy in the pool
 * @base: page offset of the first page of the region
 * @which: pages; out: without those that are not frames, or busy
 *
 * Context: May sleep.  No busy bit is held.
 * Return: How many had copies.
 */
unsigned int dmm_copies_forget(struct dmm_swap *swap, pgoff_t base,
			       unsigned long *which)
{
	struct kvm_dmm_policy *policy = swap->store.policy;
	struct kvm_dmm_batch batch;
	unsigned int i, n = 0;

	if (!kvm_dmm_batch_start(&batch, policy->pool, base))
		return 0;
	for_each_set_bit(i, which, KVM_DMM_REGION_PAGES) {
		if (!kvm_dmm_batch_add(&batch, base + i))
			__clear_bit(i, which);
		else if (!kvm_dmm_batch_forget(&batch, policy, base + i))
			n++;
	}
	kvm_dmm_batch_end(&batch);
	kvm_dmm_policy_count(policy, DMM_SWAP_copy_dropped, n);
	return n;
}

static void dmm_copies_region(struct dmm_swap *swap, pgoff_t base)
{
	struct dmm_swap_region *region = dmm_swap_region(swap, base);
	DECLARE_BITMAP(which, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(tried, KVM_DMM_REGION_PAGES);
	unsigned int i;

	if (!region || bitmap_empty(region->copied, KVM_DMM_REGION_PAGES))
		return;
	/* Cleared first: who comes back from now on sets its bit again. */
	bitmap_copy(which, region->copied, KVM_DMM_REGION_PAGES);
	for_each_set_bit(i, which, KVM_DMM_REGION_PAGES)
		clear_bit(i, region->copied);
	bitmap_copy(tried, which, KVM_DMM_REGION_PAGES);
	dmm_copies_forget(swap, base, which);
	/* What was busy, as it is on its way back for example, is still to be done. */
	bitmap_andnot(tried, tried, which, KVM_DMM_REGION_PAGES);
	for_each_set_bit(i, tried, KVM_DMM_REGION_PAGES)
		set_bit(i, region->copied);
}

void dmm_copies_work(struct work_struct *work)
{
	struct dmm_swap *swap = container_of(to_delayed_work(work),
					     struct dmm_swap, copies_work);
	struct kvm_dmm_pool *pool = swap->store.policy->pool;
	unsigned long end = jiffies + DMM_SWAP_RUN;
	pgoff_t index = swap->copies_next;

	swap->copies_next = 0;
	while (dmm_store_wants_room(&swap->store) &&
	       kvm_dmm_next_region(pool, &index, ULONG_MAX)) {
		if (time_after(jiffies, end)) {
			swap->copies_next = index;
			queue_delayed_work(dmm_swap_wq, &swap->copies_work, 0);
			break;
		}
		index = round_down(index, KVM_DMM_REGION_PAGES);
		dmm_copies_region(swap, index);
		index += KVM_DMM_REGION_PAGES;
		cond_resched();
	}
}

/**
 * dmm_copies_thin - have all pools give up copies in a backing
 * @backing: the backing
 *
 * Context: Any.
 */
void dmm_copies_thin(struct dmm_backing *backing)
{
	struct dmm_swap *swap;

	spin_lock(&backing->lock);
	/* There may be many pools, and nothing to give up in any of them. */
	if (time_before(jiffies, backing->thinned + DMM_COPIES_DELAY))
		goto unlock;
	backing->thinned = jiffies;
	list_for_each_entry(swap, &backing->stores, store.sharing)
		queue_delayed_work(dmm_swap_wq, &swap->copies_work,
				   DMM_COPIES_DELAY);
unlock:
	spin_unlock(&backing->lock);
}
