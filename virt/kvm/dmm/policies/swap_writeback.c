// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: how compressed pages of the swap policy move on to its
 * backing, when they take as much memory as they may, or on request.
 *
 * The regions before the hand were visited the longest time ago, so what is out
 * there is the oldest.  A few pages at a time come back and go to the writer, as
 * any frame: so an access finds them at any time, and there is one way only to
 * the backing.  They are compressed no more when they are brought back, so this
 * needs little more room than the few pages.
 */
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "swap.h"

/* Pages that come back at once. */
#define DMM_WRITEBACK_CHUNK	32U

/* Bring pages back; returns how many, or -EBUSY: there is no room. */
static int dmm_writeback_fetch(struct dmm_swap *swap,
			       struct dmm_swap_region *region, pgoff_t base,
			       unsigned long *got, unsigned int max)
{
	struct kvm_dmm_pool *pool = swap->store.policy->pool;
	unsigned int i, n = 0;
	int r;

	for_each_set_bit(i, region->packed, KVM_DMM_REGION_PAGES) {
		if (n == max)
			break;
		r = kvm_dmm_fetch(pool, base + i);
		if (r == -EBUSY)
			return n ?: r;
		/* What has gone with a hole, or is in memory. */
		if (!r)
			clear_bit(i, region->packed);
		if (r <= 0)
			continue;
		__set_bit(i, got);
		n++;
	}
	return n;
}

/* Up to DMM_WRITEBACK_CHUNK pages of a region; returns how many, or -errno. */
static int dmm_writeback_region(struct dmm_swap *swap, pgoff_t base,
				struct dmm_writer *writer, unsigned long nr)
{
	struct dmm_swap_region *region = dmm_swap_region(swap, base);
	struct kvm_dmm_policy *policy = swap->store.policy;
	DECLARE_BITMAP(got, KVM_DMM_REGION_PAGES) = {};
	struct kvm_dmm_batch batch;
	int n, r = 0, done = 0;
	struct page *page;
	unsigned int i;

	if (!region)
		return 0;
	n = dmm_writeback_fetch(swap, region, base, got,
				min(nr, DMM_WRITEBACK_CHUNK));
	if (n <= 0 || !kvm_dmm_batch_start(&batch, policy->pool, base))
		return n;
	for_each_set_bit(i, got, KVM_DMM_REGION_PAGES)
		if (kvm_dmm_batch_add(&batch, base + i))
			kvm_dmm_batch_forget(&batch, policy, base + i);
	kvm_dmm_batch_take(&batch);
	for_each_set_bit(i, got, KVM_DMM_REGION_PAGES) {
		page = kvm_dmm_batch_page(&batch, base + i);
		if (!page)
			continue;
		r = dmm_writer_add(writer, &batch, base + i, page, false);
		if (r)
			break;
		done++;
	}
	kvm_dmm_batch_end(&batch);
	return done ?: r;
}

/**
 * dmm_writeback - move old compressed pages to the backing
 * @swap: the policy in the pool
 * @nr: how many
 * @timeout: jiffies after which no more follow what was written
 *
 * Context: May sleep until the device has done it.  No busy bit is held.
 * Return: 0; -EAGAIN: there are less; -EBUSY: there is no room in the pool to
 *	bring them back first; -ENOSPC: there is no backing, or little room in
 *	it; -EIO: it cannot be written; -ENOMEM; -EINTR.
 */
int dmm_writeback(struct dmm_swap *swap, unsigned long nr,
		  unsigned long timeout)
{
	struct kvm_dmm_pool *pool = swap->store.policy->pool;
	unsigned long end = jiffies + timeout;
	struct dmm_writer writer;
	bool wrapped = false;
	pgoff_t index, base;
	unsigned long gone;
	int r = 0;

	if (mutex_lock_interruptible(&swap->writeback_lock))
		return -EINTR;
	WRITE_ONCE(swap->writeback_by, current);
	dmm_writer_init(&writer, swap);
	writer.again = true;
	spin_lock(&swap->lock);
	index = swap->hand;
	spin_unlock(&swap->lock);
	while (nr) {
		if (signal_pending(current)) {
			r = -EINTR;
			break;
		}
		/* What comes back must be able to go on. */
		if (dmm_writer_busy(&writer)) {
			dmm_writer_wait(&writer);
			continue;
		}
		if (!dmm_store_has_room(&swap->store)) {
			r = -ENOSPC;
			break;
		}
		if (!kvm_dmm_next_region(pool, &index, ULONG_MAX)) {
			r = -EAGAIN;
			if (wrapped)
				break;
			wrapped = true;
			index = 0;
			continue;
		}
		base = round_down(index, KVM_DMM_REGION_PAGES);
		r = dmm_writeback_region(swap, base, &writer, nr);
		/*
		 * Others have filled what dmm_writer_busy() leaves free: wait above.
		 * What came back for this try is resident.
		 */
		if (r == -EAGAIN)
			continue;
		if (r < 0)
			break;
		nr -= r;
		/* The room that they have taken is free after that. */
		dmm_writer_submit(&writer);
		gone = dmm_writer_wait(&writer);
		/* What could not be written is resident now: no more of that. */
		if (r && !gone && dmm_writes_fail(swap)) {
			r = -EIO;
			break;
		}
		/* Not before: the next run looks for the first page anew. */
		if (r && time_after(jiffies, end))
			break;
		if (!r)
			index = base + KVM_DMM_REGION_PAGES;
		cond_resched();
	}
	dmm_writer_submit(&writer);
	WRITE_ONCE(swap->writeback_by, NULL);
	mutex_unlock(&swap->writeback_lock);
	return r < 0 ? r : 0;
}

void dmm_writeback_work(struct work_struct *work)
{
	struct dmm_swap *swap = container_of(work, struct dmm_swap,
					     writeback_work);
	unsigned long nr;

	/* What is free between objects is no reason to write. */
	dmm_store_compact(&swap->store);
	/* About two pages make one. */
	nr = 2 * dmm_store_excess(&swap->store);
	if (nr && !dmm_writeback(swap, nr, DMM_SWAP_RUN))
		queue_work(dmm_swap_wq, work);
}
