// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: how the swap policy reads from its backing.
 *
 * A read goes into pages of its own, from where content is copied: so whoever
 * waits for it can be killed while the device still works on it, and a read
 * that is one of a sequence can bring the pages of the next accesses along.
 * The last such read is the window of the pool.  A slot may have got other
 * content since; the checksum says so, and then it is read again.
 */
#include <linux/bitops.h>
#include <linux/bvec.h>
#include <linux/completion.h>
#include <linux/highmem.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>

#include "swap.h"

/**
 * struct dmm_read - slots that are read together
 * @work: reads them
 * @store: who counts the I/O
 * @backing: the backing, which the store or a slot that was asked for keeps
 * @refs: the work, whoever waits, and the window
 * @done: when the work has done it
 * @error: valid then: -errno
 * @first: the slot that was asked for
 * @nr: pages; lowered to 1 if not all could be read
 * @used: those that were wanted; protected by store->lock
 * @bvec: the pages
 */
struct dmm_read {
	struct work_struct work;
	struct dmm_swap_store *store;
	struct dmm_backing *backing;
	refcount_t refs;
	struct completion done;
	int error;
	u32 first;
	unsigned int nr;
	u32 used;
	struct bio_vec bvec[DMM_READ_MAX];
};

static_assert(DMM_READ_MAX <= 32);	/* bits of @used */

static void dmm_read_put(struct dmm_read *read)
{
	unsigned int i;

	if (!refcount_dec_and_test(&read->refs))
		return;
	for (i = 0; i < DMM_READ_MAX && read->bvec[i].bv_page; i++)
		__free_page(read->bvec[i].bv_page);
	kfree(read);
}

static void dmm_read_work(struct work_struct *work)
{
	struct dmm_read *read = container_of(work, struct dmm_read, work);
	struct dmm_swap_store *store = read->store;
	int r;

	r = dmm_backing_io(read->backing, false, read->bvec, read->nr,
			   read->first);
	if (r && read->nr > 1) {
		/* What was not asked for is no reason to fail. */
		WRITE_ONCE(read->nr, 1);
		r = dmm_backing_io(read->backing, false, read->bvec, 1,
				   read->first);
	}
	read->error = r;
	complete_all(&read->done);
	dmm_read_put(read);
	/* From here on the policy may go away. */
	if (atomic_dec_and_test(&store->nr_io))
		wake_up_var(&store->nr_io);
}

static struct dmm_read *dmm_read_alloc(struct dmm_slot *slot, unsigned int nr)
{
	struct dmm_read *read = kzalloc(sizeof(*read), GFP_NOIO | __GFP_NOWARN);
	struct page *page;

	if (!read)
		return NULL;
	while (read->nr < nr) {
		page = alloc_page(GFP_NOIO | __GFP_NOWARN |
				  (read->nr ? __GFP_NORETRY : 0));
		if (!page)
			break;
		bvec_set_page(&read->bvec[read->nr++], page, PAGE_SIZE, 0);
	}
	if (!read->nr) {
		kfree(read);
		return NULL;
	}
	INIT_WORK(&read->work, dmm_read_work);
	init_completion(&read->done);
	read->backing = slot->backing;
	read->first = slot->nr;
	read->used = 1;
	return read;
}

/* Nobody will want anything of a window any more. */
static void dmm_window_end(struct dmm_swap_store *store,
			   struct dmm_read *window)
{
	unsigned int nr;

	if (!window)
		return;
	nr = READ_ONCE(window->nr);
	kvm_dmm_policy_count(store->policy, DMM_SWAP_ahead_unused, nr -
			     hweight32(window->used & GENMASK(nr - 1, 0)));
	dmm_read_put(window);
}

/**
 * dmm_window_drop - give back what was read ahead
 * @store: the store
 *
 * Context: May sleep.
 */
void dmm_window_drop(struct dmm_swap_store *store)
{
	struct dmm_read *window;

	spin_lock(&store->lock);
	window = store->window;
	store->window = NULL;
	spin_unlock(&store->lock);
	dmm_window_end(store, window);
}

/* The window, with a reference, if it has the slot. */
static struct dmm_read *dmm_window_get(struct dmm_swap_store *store,
				       struct dmm_slot *slot)
{
	struct dmm_read *read;
	bool ahead = false;
	u32 i;

	spin_lock(&store->lock);
	read = store->window;
	if (read) {
		i = slot->nr - read->first;
		if (read->backing == slot->backing &&
		    i < READ_ONCE(read->nr)) {
			refcount_inc(&read->refs);
			ahead = !(read->used & BIT(i));
			read->used |= BIT(i);
		} else {
			read = NULL;
		}
	}
	spin_unlock(&store->lock);
	if (ahead)
		kvm_dmm_policy_count(store->policy, DMM_SWAP_ahead_used, 1);
	return read;
}

/* Begin to read a slot, and with it those that are likely to be next. */
static struct dmm_read *dmm_read_start(struct dmm_swap_store *store,
				       struct dmm_slot *slot, bool alone)
{
	struct dmm_read *read, *window = NULL;
	unsigned int nr = 1;

	if (!alone) {
		spin_lock(&store->lock);
		if (slot->nr == store->read_next)
			nr = min(store->read_nr * 2, DMM_READ_MAX);
		spin_unlock(&store->lock);
		nr = dmm_backing_row(slot->backing, slot->nr, nr);
	}
	read = dmm_read_alloc(slot, nr);
	if (!read)
		return NULL;
	read->store = store;
	refcount_set(&read->refs, read->nr > 1 ? 3 : 2);
	spin_lock(&store->lock);
	store->read_next = (u64)slot->nr + read->nr;
	store->read_nr = read->nr;
	if (read->nr > 1) {
		window = store->window;
		store->window = read;
	}
	spin_unlock(&store->lock);
	dmm_window_end(store, window);
	atomic_inc(&store->nr_io);
	queue_work(slot->backing->read_wq, &read->work);
	return read;
}

static int dmm_read_wait(struct dmm_swap_store *store, struct dmm_read *read,
			 unsigned int flags)
{
	u64 start;
	int r;

	if (completion_done(&read->done))
		return 0;
	if (flags & KVM_DMM_FETCH_NOWAIT)
		return -EAGAIN;
	start = ktime_get_ns();
	if (flags & KVM_DMM_FETCH_INTR)
		r = wait_for_completion_interruptible(&read->done);
	else
		r = wait_for_completion_killable(&read->done);
	kvm_dmm_policy_count(store->policy, DMM_SWAP_wait_ns,
			     ktime_get_ns() - start);
	return r ? -EINTR : 0;
}

/*
 * Get the content of a slot out of a read, whose reference is given back.
 * -ESTALE: it is not what the slot should have.
 */
static int dmm_read_copy(struct dmm_swap_store *store, struct dmm_read *read,
			 struct dmm_slot *slot, struct page *page,
			 unsigned int flags)
{
	u32 i = slot->nr - read->first;
	struct page *from;
	int r;

	r = dmm_read_wait(store, read, flags);
	if (r)
		goto put;
	r = read->error;
	/* Not all of a window may have been read. */
	if (!r && i >= read->nr)
		r = -ESTALE;
	if (r)
		goto put;
	from = read->bvec[i].bv_page;
	if (dmm_slot_checksum(slot->nr, from) == slot->csum)
		copy_highpage(page, from);
	else
		r = -ESTALE;
put:
	dmm_read_put(read);
	return r;
}

/* Without memory for a read: as it is, without a signal being able to end it. */
static int dmm_read_page(struct dmm_slot *slot, struct page *page)
{
	struct bio_vec bvec;
	int r;

	bvec_set_page(&bvec, page, PAGE_SIZE, 0);
	r = dmm_backing_io(slot->backing, false, &bvec, 1, slot->nr);
	if (!r && dmm_slot_checksum(slot->nr, page) != slot->csum)
		r = -ESTALE;
	return r;
}

/**
 * dmm_slot_fetch - bring the content of a slot back
 * @store: the store of the pool
 * @slot: the slot, which the caller keeps
 * @page: where the content goes
 * @flags: KVM_DMM_FETCH_*
 *
 * Context: May sleep, without KVM_DMM_FETCH_NOWAIT until the device has done it.
 * Return: 0; -EAGAIN: with KVM_DMM_FETCH_NOWAIT: it would have to wait; -EINTR:
 *	a signal ended the wait; -EIO: it cannot be read, or is not what was
 *	written.
 */
int dmm_slot_fetch(struct dmm_swap_store *store, struct dmm_slot *slot,
		   struct page *page, unsigned int flags)
{
	struct dmm_read *read = dmm_window_get(store, slot);
	bool alone = read;
	int r = -ESTALE;

	if (read)
		r = dmm_read_copy(store, read, slot, page, flags);
	if (r && r != -EAGAIN && r != -EINTR) {
		if (flags & KVM_DMM_FETCH_NOWAIT)
			return -EAGAIN;
		/* After a window that is of no use, this page only. */
		read = dmm_read_start(store, slot, alone);
		r = read ? dmm_read_copy(store, read, slot, page, flags) :
			   dmm_read_page(slot, page);
	}
	switch (r) {
	case 0:
		kvm_dmm_policy_count(store->policy, DMM_SWAP_in_read, 1);
		return 0;
	case -EAGAIN:
	case -EINTR:
		return r;
	case -ESTALE:
		kvm_dmm_policy_count(store->policy, DMM_SWAP_checksum_failed,
				     1);
		return -EIO;
	default:
		kvm_dmm_policy_count(store->policy, DMM_SWAP_read_failed, 1);
		return -EIO;
	}
}
