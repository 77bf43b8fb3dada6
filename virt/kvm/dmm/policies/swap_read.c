// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: how the swap policy reads from its backing.
 *
 * A read goes into pages of its own, from where content is copied: so whoever
 * waits for it can be killed while the device still works on it, and a read
 * that is one of a sequence can bring the pages of the next accesses along.
 * The last such read is the window of the pool.  A slot that has got its content
 * since is read again.
 *
 * Whoever was interrupted comes again, and finds the read that it has left: the
 * store has a list of those that are on their way.  As nobody else ends them,
 * there are only so many: who wants one more waits.
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
 * @link: in the list of those on their way; protected by store->lock
 * @backing: the backing, which is there until the work is done; a window may
 *	outlive that of a clone, so it is only compared then: should another one
 *	have got its place, its slots were written later
 * @began: dmm_slot_clock before it is read
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
	struct list_head link;
	struct dmm_backing *backing;
	u64 began;
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
	/* Nobody finds it from here on, but who has found it needs the result. */
	spin_lock(&store->lock);
	list_del(&read->link);
	store->nr_reads--;
	spin_unlock(&store->lock);
	complete_all(&read->done);
	dmm_read_put(read);
	/* Who waits looks at the number before it sleeps. */
	smp_mb();
	wake_up_var(&store->nr_reads);
	/* From here on the policy may go away. */
	if (atomic_dec_and_test(&store->nr_io))
		wake_up_var(&store->nr_io);
}

static struct dmm_read *dmm_read_alloc(struct dmm_slot *slot, unsigned int nr)
{
	struct dmm_read *read = kzalloc(sizeof(*read), DMM_SWAP_GFP);
	struct page *page;

	if (!read)
		return NULL;
	while (read->nr < nr) {
		page = alloc_page(DMM_SWAP_GFP);
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
	read->began = atomic64_read(&dmm_slot_clock);
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

static bool dmm_read_has(struct dmm_read *read, struct dmm_slot *slot)
{
	return read->backing == slot->backing && read->began >= slot->written &&
	       slot->nr - read->first < READ_ONCE(read->nr);
}

/* The read on its way that has the slot, or the window; with a reference. */
static struct dmm_read *dmm_read_get(struct dmm_swap_store *store,
				     struct dmm_slot *slot)
{
	struct dmm_read *read;
	bool ahead = false;
	u32 bit;

	spin_lock(&store->lock);
	list_for_each_entry(read, &store->reads, link)
		if (dmm_read_has(read, slot))
			goto found;
	read = store->window;
	if (!read || !dmm_read_has(read, slot)) {
		read = NULL;
		goto unlock;
	}
found:
	refcount_inc(&read->refs);
	bit = BIT(slot->nr - read->first);
	ahead = read == store->window && !(read->used & bit);
	read->used |= bit;
unlock:
	spin_unlock(&store->lock);
	if (ahead)
		kvm_dmm_policy_count(store->policy, DMM_SWAP_ahead_used, 1);
	return read;
}

/* Wait until there may be one more read.  0 or -EINTR. */
static int dmm_read_room(struct dmm_swap_store *store, unsigned int flags)
{
	unsigned int *nr = &store->nr_reads;

	/* Several may see the same room: a few more do not matter. */
	if (READ_ONCE(*nr) < DMM_READ_DEPTH)
		return 0;
	if (flags & KVM_DMM_FETCH_INTR)
		return wait_var_event_interruptible(nr, READ_ONCE(*nr) <
						    DMM_READ_DEPTH) ?
		       -EINTR : 0;
	return wait_var_event_killable(nr, READ_ONCE(*nr) < DMM_READ_DEPTH) ?
	       -EINTR : 0;
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
	list_add_tail(&read->link, &store->reads);
	store->nr_reads++;
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
	struct dmm_read *read = dmm_read_get(store, slot);
	bool alone = read;
	int r = -ESTALE;

	if (read)
		r = dmm_read_copy(store, read, slot, page, flags);
	if (r && r != -EAGAIN && r != -EINTR) {
		if (flags & KVM_DMM_FETCH_NOWAIT)
			return -EAGAIN;
		if (dmm_read_room(store, flags))
			return -EINTR;
		/* After a read that is of no use, this page only. */
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
