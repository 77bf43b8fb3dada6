// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: how the swap policy writes frames to its backing.
 *
 * A page that is being written is still a frame.  It was taken out of all page
 * tables and is protected; a reference keeps it.  When the write is over, the
 * frame gives way to a token, unless it was used for writing meanwhile:
 *
 *	reclaim				guest, process		the write is over
 *	-------				--------------		-----------------
 *	1. take: unmap, freeze
 *	2. checksum
 *	3. pin: protect, reference
 *	4. queue the write
 *					a. read: map read-only
 *					b. write: unprotect
 *								5. own the entry
 *								6. protected?  same page?
 *								7. drop the reference, take
 *								8. token
 *
 * If b is before 5, then 6 finds the page unprotected, and it stays a frame: the
 * device may have got any mixture of old and new content, in a slot that is
 * given back.  If b is after 5, it waits until 8 and fetches the token.  Nobody
 * can protect the page again in between, see kvm_dmm_batch_pin(), so there is no
 * third case.  A hole that is punched, or a clone that is made, leaves another
 * entry; the reference keeps the page from being used for something else as
 * long as the device reads it.
 *
 * A shared frame is in nobody's way: it stays mapped, and steps 1 and 3 are no
 * more than a reference.  Its content does not change, and the reference keeps
 * the last user from taking it over: so what the entry still has in 6 is what
 * was written.
 *
 * So there is no token whose content is not on the device, and whatever goes
 * wrong with a write, the content is still where it was.  Reclaim does not wait
 * for the device at the limit and under host pressure; an access at the limit
 * waits for what comes free, as long as anything is on its way.
 */
#include <linux/bvec.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>

#include "swap.h"

/**
 * struct dmm_write - pages that are written together
 * @work: writes them
 * @swap: the policy in the pool
 * @backing: the backing, with a reference
 * @first: first slot
 * @max: slots in a row
 * @again: the pages were out before
 * @nr: pages
 * @shared: of these, shared frames
 * @page: the pages, with references
 * @bvec: the same, or copies
 * @index: their page offsets
 * @slot: where they go; has no token yet
 */
struct dmm_write {
	struct work_struct work;
	struct dmm_swap *swap;
	struct dmm_backing *backing;
	u32 first;
	unsigned int max;
	bool again;
	unsigned int nr;
	DECLARE_BITMAP(shared, DMM_WRITE_MAX);
	struct page *page[DMM_WRITE_MAX];
	struct bio_vec bvec[DMM_WRITE_MAX];
	pgoff_t index[DMM_WRITE_MAX];
	struct dmm_slot *slot[DMM_WRITE_MAX];
};

/* Pages of the region at @base, from the @i-th on, that a write has. */
static unsigned int dmm_write_group(struct dmm_write *write, unsigned int i)
{
	pgoff_t base = round_down(write->index[i], KVM_DMM_REGION_PAGES);
	unsigned int n = 0;

	while (i + n < write->nr &&
	       round_down(write->index[i + n], KVM_DMM_REGION_PAGES) == base)
		n++;
	return n;
}

/* Steps 5 to 7.  Pages that have to stay, or are shared, are set to NULL. */
static void dmm_write_take(struct dmm_write *write, struct kvm_dmm_batch *batch,
			   unsigned int i, unsigned int n)
{
	struct kvm_dmm_pool *pool = write->swap->store.policy->pool;
	struct page *page;
	unsigned int k;
	bool wp;

	for (k = i; k < i + n; k++) {
		page = write->page[k];
		if (!page)
			continue;
		wp = false;
		if (kvm_dmm_batch_add(batch, write->index[k]))
			kvm_dmm_peek(pool, write->index[k], &wp);
		if (!wp)
			write->page[k] = NULL;
		put_page(page);
	}
	kvm_dmm_batch_take(batch);
	for (k = i; k < i + n; k++) {
		/* It had a reference when the entry became busy. */
		page = write->page[k];
		if (page && kvm_dmm_batch_page(batch, write->index[k]) != page)
			write->page[k] = NULL;
	}
}

/* Step 8.  What is kept in the list of slots has no token. */
static void dmm_write_tokens(struct dmm_write *write,
			     struct kvm_dmm_batch *batch, unsigned int i,
			     unsigned int n)
{
	struct dmm_swap_region *region = dmm_swap_region(write->swap,
							 write->index[i]);
	struct dmm_swap_store *store = &write->swap->store;
	unsigned int k;
	int r;

	for (k = i; k < i + n; k++) {
		if (!write->page[k])
			continue;
		clear_bit(dmm_swap_nr(write->index[k]), region->packed);
		atomic_long_inc(&store->nr_slots);
		r = kvm_dmm_batch_token(batch, store->policy, write->index[k],
					dmm_slot_token(write->slot[k]));
		if (r)
			atomic_long_dec(&store->nr_slots);
		else
			write->slot[k] = NULL;
	}
}

/* Steps 5 to 8 for shared frames, one by one; they are set to NULL. */
static void dmm_write_shared(struct dmm_write *write, unsigned int i,
			     unsigned int n)
{
	struct dmm_swap_region *region = dmm_swap_region(write->swap,
							 write->index[i]);
	struct dmm_swap_store *store = &write->swap->store;
	struct kvm_dmm_policy *policy = store->policy;
	unsigned int k = i;

	for_each_set_bit_from(k, write->shared, i + n) {
		struct page *page = write->page[k], *now;
		struct kvm_dmm_batch batch;

		write->page[k] = NULL;
		kvm_dmm_batch_start(&batch, policy->pool, write->index[k]);
		now = kvm_dmm_batch_add_shared(&batch, write->index[k]);
		put_page(page);
		if (now != page) {
			kvm_dmm_batch_end(&batch);
			continue;
		}
		clear_bit(dmm_swap_nr(write->index[k]), region->packed);
		atomic_long_inc(&store->nr_slots);
		if (kvm_dmm_batch_token_shared(&batch, policy, write->index[k],
					       dmm_slot_token(write->slot[k]),
					       KVM_DMM_USERS_OTHERS) < 0) {
			atomic_long_dec(&store->nr_slots);
		} else {
			write->slot[k] = NULL;
			kvm_dmm_policy_count(policy, DMM_SWAP_out_shared, 1);
		}
		kvm_dmm_batch_end(&batch);
	}
}

/* Remember what has become of the pages, and give unused slots back. */
static void dmm_write_account(struct dmm_write *write, unsigned int i,
			      unsigned int n, int error)
{
	struct dmm_swap *swap = write->swap;
	struct dmm_swap_region *region = dmm_swap_region(swap, write->index[i]);
	struct kvm_dmm_policy *policy = swap->store.policy;
	unsigned int k, nr, out = 0;

	spin_lock(&swap->lock);
	WRITE_ONCE(swap->failed, error ? jiffies ?: 1 : 0);
	for (k = i; k < i + n; k++) {
		nr = dmm_swap_nr(write->index[k]);
		if (!write->slot[k]) {
			out++;
			if (write->again)
				dmm_age_set(&swap->age, &region->state[nr], 0);
			else
				region->evicted[nr] =
					dmm_age_evicted(&swap->age,
							&region->state[nr]);
		} else if (error && region->state[nr]) {
			dmm_swap_hard(swap, region, nr);
		}
		clear_bit(nr, region->writing);
	}
	spin_unlock(&swap->lock);
	for (k = i; k < i + n; k++)
		if (write->slot[k])
			dmm_slot_put(write->slot[k]);
	atomic_long_add(out, &swap->written);
	kvm_dmm_policy_count(policy, write->again ? DMM_SWAP_written_back :
			     DMM_SWAP_out_written, out);
	kvm_dmm_policy_count(policy, error ? DMM_SWAP_write_failed :
			     DMM_SWAP_write_changed, n - out);
}

static void dmm_write_finish(struct dmm_write *write, unsigned int i,
			     unsigned int n, int error)
{
	struct kvm_dmm_pool *pool = write->swap->store.policy->pool;
	struct kvm_dmm_batch batch;
	unsigned int k;

	if (error || !kvm_dmm_batch_start(&batch, pool, write->index[i])) {
		for (k = i; k < i + n; k++)
			put_page(write->page[k]);
	} else {
		dmm_write_shared(write, i, n);
		dmm_write_take(write, &batch, i, n);
		dmm_write_tokens(write, &batch, i, n);
		kvm_dmm_batch_end(&batch);
	}
	dmm_write_account(write, i, n, error);
}

static void dmm_write_free(struct dmm_write *write)
{
	struct dmm_swap_store *store = &write->swap->store;

	/* The store has another one, as long as there is I/O. */
	dmm_backing_put(write->backing);
	kfree(write);
	if (atomic_dec_and_test(&store->nr_io))
		wake_up_var(&store->nr_io);
}

static void dmm_write_work(struct work_struct *work)
{
	struct dmm_write *write = container_of(work, struct dmm_write, work);
	struct dmm_swap *swap = write->swap;
	unsigned int i, n;
	u64 written;
	int r;

	r = dmm_backing_io(write->backing, true, write->bvec, write->nr,
			   write->first);
	written = atomic64_inc_return(&dmm_slot_clock);
	for (i = 0; i < write->nr; i++)
		write->slot[i]->written = written;
	for (i = 0; i < write->nr; i++)
		if (write->bvec[i].bv_page != write->page[i])
			__free_page(write->bvec[i].bv_page);
	for (i = 0; i < write->nr; i += n) {
		n = dmm_write_group(write, i);
		dmm_write_finish(write, i, n, r);
	}
	atomic_long_add_return(write->nr, &swap->completed);
	wake_up_var(&swap->completed);
	/* From here on the policy may go away. */
	dmm_write_free(write);
}

static long dmm_writes_left(struct dmm_swap *swap)
{
	return atomic_long_read(&swap->submitted) -
	       atomic_long_read(&swap->completed);
}

/* Begin to gather. */
static int dmm_write_start(struct dmm_writer *writer)
{
	struct dmm_swap_store *store = &writer->swap->store;
	struct dmm_write *write;

	if (!READ_ONCE(store->backing))
		return -ENOSPC;
	if (dmm_writes_left(writer->swap) >= DMM_WRITE_LIMIT)
		return -EAGAIN;
	write = kmalloc(sizeof(*write), DMM_SWAP_GFP);
	if (!write)
		return -ENOMEM;
	spin_lock(&store->lock);
	write->backing = store->backing;
	if (write->backing) {
		refcount_inc(&write->backing->refs);
		atomic_inc(&store->nr_io);
	}
	spin_unlock(&store->lock);
	if (!write->backing) {
		kfree(write);
		return -ENOSPC;
	}
	write->swap = writer->swap;
	/* Without the lock, as this takes its time where slots are scattered. */
	write->max = dmm_backing_alloc(write->backing, DMM_WRITE_MAX,
				       &write->first);
	if (dmm_backing_crowded(write->backing))
		dmm_copies_thin(write->backing);
	if (!write->max) {
		dmm_write_free(write);
		kvm_dmm_policy_count(store->policy, DMM_SWAP_reject_backing, 1);
		return -ENOSPC;
	}
	INIT_WORK(&write->work, dmm_write_work);
	write->again = writer->again;
	write->nr = 0;
	writer->write = write;
	return 0;
}

/*
 * What is to be written of a page.  The guest may change the page meanwhile, which
 * some devices cannot bear, as they compute a checksum of it: they get a copy.
 */
static struct page *dmm_write_page(struct dmm_write *write, struct page *page,
				   bool shared)
{
	struct page *copy;

	if (shared || !write->backing->stable)
		return page;
	/* Who is in reclaim could take the last page there is, for each of many. */
	copy = alloc_page(DMM_SWAP_GFP | __GFP_NOMEMALLOC | __GFP_HIGHMEM);
	if (copy)
		copy_highpage(copy, page);
	return copy;
}

/**
 * dmm_writer_add - have a page written, and replaced by a token then
 * @writer: the writer
 * @batch: a batch after kvm_dmm_batch_take()
 * @index: page offset of a frame in it, which leaves the batch
 * @page: the frame
 * @shared: it is a shared one, of a batch that need not be taken, and stays in it
 *
 * Context: May sleep, but not for the device.
 * Return: 0; -ENOSPC: there is no backing, or it is full; -EAGAIN: as much as is
 *	allowed is being written; -ENOMEM.  On error the frame stays in the batch.
 */
int dmm_writer_add(struct dmm_writer *writer, struct kvm_dmm_batch *batch,
		   pgoff_t index, struct page *page, bool shared)
{
	struct dmm_swap_region *region = dmm_swap_region(writer->swap, index);
	struct dmm_write *write;
	struct dmm_slot *slot;
	struct page *copy;
	u32 nr;
	int r;

	if (!writer->write) {
		r = dmm_write_start(writer);
		if (r)
			return r;
	}
	write = writer->write;
	nr = write->first + write->nr;
	copy = dmm_write_page(write, page, shared);
	if (!copy)
		return -ENOMEM;
	slot = dmm_slot_create(write->backing, nr, dmm_slot_checksum(nr, page));
	if (!slot) {
		if (copy != page)
			__free_page(copy);
		return -ENOMEM;
	}
	set_bit(dmm_swap_nr(index), region->writing);
	if (shared)
		get_page(page);
	else
		kvm_dmm_batch_pin(batch, index);
	__assign_bit(write->nr, write->shared, shared);
	write->page[write->nr] = page;
	bvec_set_page(&write->bvec[write->nr], copy, PAGE_SIZE, 0);
	write->index[write->nr] = index;
	write->slot[write->nr] = slot;
	writer->queued++;
	if (++write->nr == write->max)
		dmm_writer_submit(writer);
	return 0;
}

/**
 * dmm_writer_submit - have what was gathered so far written
 * @writer: the writer
 *
 * Context: May sleep, but not for the device.
 */
void dmm_writer_submit(struct dmm_writer *writer)
{
	struct dmm_write *write = writer->write;

	if (!write)
		return;
	writer->write = NULL;
	dmm_backing_release(write->backing, write->first + write->nr,
			    write->max - write->nr);
	/* Without memory for the first page: nothing to learn from the device. */
	if (!write->nr) {
		dmm_write_free(write);
		return;
	}
	atomic_long_add(write->nr, &writer->swap->submitted);
	queue_work(write->backing->write_wq, &write->work);
}

/**
 * dmm_writer_busy - should more pages wait until others are written?
 * @writer: the writer
 *
 * Context: Any.
 * Return: True if so.
 */
bool dmm_writer_busy(struct dmm_writer *writer)
{
	return dmm_writes_left(writer->swap) >=
	       DMM_WRITE_LIMIT - (long)DMM_WRITE_MAX;
}

/**
 * dmm_writer_wait - wait until what was submitted so far is written
 * @writer: the writer
 *
 * Context: May sleep until the device has done it.
 * Return: The number of pages that went out since the last time; less than are
 *	on their way if a signal came.
 */
unsigned long dmm_writer_wait(struct dmm_writer *writer)
{
	struct dmm_swap *swap = writer->swap;
	long end = atomic_long_read(&swap->submitted);
	unsigned long now, gone;

	wait_var_event_interruptible(&swap->completed,
				     atomic_long_read(&swap->completed) - end >= 0);
	now = atomic_long_read(&swap->written);
	gone = now - writer->written;
	writer->written = now;
	writer->queued = 0;
	return gone;
}

/* How long a failure is believed: it may be over, and nobody tells. */
#define DMM_FAILED	(5 * HZ)

/**
 * dmm_writes_fail - does the backing fail?
 * @swap: the policy in the pool
 *
 * Context: Any.
 * Return: True if so, when it was asked last, some seconds ago at most.
 */
bool dmm_writes_fail(struct dmm_swap *swap)
{
	unsigned long failed = READ_ONCE(swap->failed);

	return failed && time_before(jiffies, failed + DMM_FAILED);
}

/**
 * dmm_writes_pending - pages that go when the device has written them
 * @swap: the policy in the pool
 *
 * Context: Any.
 * Return: Their number; 0 as long as the device fails, so that nobody relies on
 *	them.
 */
unsigned long dmm_writes_pending(struct dmm_swap *swap)
{
	/* What was completed meanwhile may count twice. */
	return dmm_writes_fail(swap) ? 0 : max(dmm_writes_left(swap), 0L);
}

/**
 * dmm_writer_init - begin to take pages out
 * @writer: the writer
 * @swap: the policy in the pool
 */
void dmm_writer_init(struct dmm_writer *writer, struct dmm_swap *swap)
{
	writer->swap = swap;
	writer->write = NULL;
	writer->queued = 0;
	writer->again = false;
	writer->written = atomic_long_read(&swap->written);
}
