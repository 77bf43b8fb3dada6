// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: FICLONE and FICLONERANGE, how a guest's memory is
 * cloned.
 *
 * Frames become shared, tokens are shared by reference, absent memory stays
 * absent.  2 MiB that come to lie at the same offset in a file that has nothing
 * there, as when all of a file is cloned to a new one, are cloned at once: as they
 * are at one moment, and without an allocation for each page, because who uses their
 * frames can be found without a list; see family.c.  All else goes page by page,
 * each as it is then: also of such 2 MiB what is merged, kept or held.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "dmm.h"

/* Take the clone's users back, of a region that could not be published. */
static void dmm_clone_undo(struct kvm_dmm_pool *dst, u64 *table)
{
	unsigned int i;

	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		if (dmm_kind(table[i]) != KVM_DMM_TOKEN)
			continue;
		atomic_long_dec(&dst->nr_tokens);
		dmm_free_token(dst, dmm_policy_id(table[i]),
			       dmm_token(table[i]));
	}
	dmm_light_undo(dst, table);
}

/*
 * Own all entries of the region that have anything, in ascending order, and
 * share the frames that can be shared at once.  False if there is nothing.
 */
static bool dmm_clone_lock(struct kvm_dmm_batch *batch, unsigned long *done,
			   u64 *table)
{
	unsigned int i;

	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		i = dmm_light_lock(batch, i, done, table);
		if (i < KVM_DMM_REGION_PAGES)
			dmm_batch_lock(batch, batch->base + i);
	}
	batch->first = 0;
	batch->end = KVM_DMM_REGION_PAGES;
	return !bitmap_empty(batch->locked, KVM_DMM_REGION_PAGES);
}

/* Share what is left of the frames, and the tokens; set what cannot be in @rest. */
static void dmm_clone_rest(struct kvm_dmm_batch *batch,
			   struct kvm_dmm_pool *dst, unsigned long *done,
			   u64 *table, unsigned long *rest)
{
	unsigned int i;
	u64 e;

	for_each_set_bit(i, rest, batch->end) {
		if (!dmm_has_page(dmm_batch_entry(batch, i)))
			continue;
		/* Most that is held is mapped by a process. */
		dmm_batch_lower(batch);
		dmm_light_add(batch, done, table);
		bitmap_andnot(rest, rest, done, KVM_DMM_REGION_PAGES);
		break;
	}
	for_each_set_bit(i, rest, batch->end) {
		e = dmm_batch_entry(batch, i);
		if (dmm_kind(e) == KVM_DMM_TOKEN &&
		    !dmm_dup_token(batch->pool, e, dst, batch->base + i,
				   &table[i]))
			atomic_long_inc(&dst->nr_tokens);
		else if (dmm_kind(e) != KVM_DMM_ABSENT)
			continue;
		__clear_bit(i, rest);
	}
}

/*
 * Give the entries back whose frames are shared now.  Those of the clone are others'
 * already: they may be busy, or have something else.
 */
static void dmm_clone_unlock(struct kvm_dmm_batch *batch, unsigned long *done)
{
	u64 *entry = batch->region->entry;
	unsigned long i, end, pfn;

	/* Guests go on reading what was only protected. */
	for_each_set_bitrange(i, end, done, KVM_DMM_REGION_PAGES)
		for (; i < end; i++) {
			pfn = dmm_pfn(READ_ONCE(entry[i]));
			dmm_unlock_deviant(&entry[i],
					   dmm_mk_shared(pfn) | DMM_CACHED);
		}
	bitmap_andnot(batch->locked, batch->locked, done, KVM_DMM_REGION_PAGES);
}

/*
 * Clone the region at @base, of which @dst has nothing.  What has to go page by
 * page is left out and set in @rest.
 *
 * Return: 0, or -EAGAIN: all of it has to go page by page.
 */
static int dmm_clone_region(struct kvm_dmm_pool *src, struct kvm_dmm_pool *dst,
			    pgoff_t base, unsigned long *rest)
{
	DECLARE_BITMAP(done, KVM_DMM_REGION_PAGES) = {};
	struct kvm_dmm_region *new, *region;
	struct kvm_dmm_batch batch;
	unsigned int nr;
	u64 *table;

	new = dmm_region_alloc();
	if (!new)
		return -EAGAIN;
	table = new->entry;

	/* Nothing is there, but somebody who fills has come. */
	if (!kvm_dmm_batch_start(&batch, src, base)) {
		dmm_region_free(new);
		return -EAGAIN;
	}
	if (!dmm_clone_lock(&batch, done, table)) {
		dmm_region_free(new);
		return 0;
	}
	dmm_batch_lower_guests(&batch);
	if (bitmap_andnot(rest, batch.locked, done, KVM_DMM_REGION_PAGES))
		dmm_clone_rest(&batch, dst, done, table, rest);

	/* Before the source lets go: so all users of a frame can be found. */
	nr = bitmap_weight(done, KVM_DMM_REGION_PAGES);
	atomic_long_add(nr, &dst->nr_shared);
	region = dmm_region_publish(dst, base, new);
	if (region == new) {
		this_cpu_add(dst->stats->count[DMM_STAT_clone], nr);
	} else {
		atomic_long_sub(nr, &dst->nr_shared);
		dmm_clone_undo(dst, table);
	}
	dmm_clone_unlock(&batch, done);
	kvm_dmm_batch_end(&batch);
	if (region == new)
		return 0;
	dmm_region_free(new);
	return -EAGAIN;
}

/**
 * struct dmm_clone - one page on its way from file to file
 * @src: the file that is cloned
 * @from: page offset there
 * @dst: the file that gets it
 * @to: page offset there
 * @region: that of @to
 * @batch: owns the entry of @to
 */
struct dmm_clone {
	struct kvm_dmm_pool *src;
	pgoff_t from;
	struct kvm_dmm_pool *dst;
	pgoff_t to;
	struct kvm_dmm_region *region;
	struct kvm_dmm_batch batch;
};

/* Own the entry of the destination, with nothing in it, in no page table. */
static int dmm_clone_own(struct dmm_clone *clone)
{
	u64 *entry, e;

	clone->region = dmm_region_get(clone->dst, clone->to);
	if (!clone->region)
		return -ENOMEM;
	entry = dmm_entry(clone->region, clone->to);
	for (;;) {
		e = READ_ONCE(*entry);
		/* Somebody who has the file mapped may come in between. */
		if (dmm_content(e) & ~DMM_CACHED)
			dmm_drop_range(clone->dst, clone->to, clone->to);
		else if (e & DMM_BUSY)
			dmm_wait(clone->dst, entry, TASK_UNINTERRUPTIBLE);
		else if (dmm_trylock(clone->region, entry, e))
			break;
	}
	dmm_batch_hold(&clone->batch, clone->dst, clone->region, clone->to);
	if (e & DMM_CACHED)
		dmm_batch_unmap(&clone->batch);
	return 0;
}

/* Share a frame by its handle, which is given back. */
static int dmm_clone_shared(struct dmm_clone *clone,
			    struct kvm_dmm_shared *shared)
{
	struct page *page;
	int r;

	r = dmm_clone_own(clone);
	if (r)
		goto put;
	page = dmm_shared_join(shared, clone->dst, clone->to, true);
	if (IS_ERR(page)) {
		r = PTR_ERR(page);
		/* Dead by now: the source has changed. */
		if (r == -ESTALE)
			r = -EAGAIN;
		kvm_dmm_batch_end(&clone->batch);
		goto put;
	}
	dmm_batch_set(&clone->batch, clone->to,
		      dmm_mk_shared(page_to_pfn(page)));
put:
	kvm_dmm_shared_put(shared);
	return r;
}

/* Copy a page that somebody holds, or that has as many users as it can have. */
static int dmm_clone_copy(struct dmm_clone *clone)
{
	struct page *page, *copy;
	int r;

	r = dmm_resolve(clone->src, clone->from, DMM_INTR, &page, NULL);
	if (r)
		return r;
	r = dmm_charge(clone->dst, 1, DMM_INTR, NULL, 0);
	if (r)
		goto put;
	copy = dmm_frame_alloc(false);
	r = -ENOMEM;
	if (!copy)
		goto uncharge;
	r = dmm_frame_copy(copy, page) ?: dmm_clone_own(clone);
	if (r)
		goto free;
	dmm_frame_own(clone->dst, copy, clone->to);
	dmm_batch_set(&clone->batch, clone->to,
		      dmm_mk_frame(page_to_pfn(copy)));
	put_page(page);
	return 0;
free:
	put_page(copy);
uncharge:
	dmm_uncharge(clone->dst, 1);
put:
	put_page(page);
	return r;
}

/* A token that the policy has made for the destination. */
static int dmm_clone_token(struct dmm_clone *clone, u64 e)
{
	int r = dmm_clone_own(clone);

	if (r) {
		dmm_free_token(clone->dst, dmm_policy_id(e), dmm_token(e));
		return r;
	}
	atomic_long_inc(&clone->dst->nr_tokens);
	dmm_batch_set(&clone->batch, clone->to, e);
	return 0;
}

/* Have the source's policies fill or fetch a page. */
static int dmm_clone_touch(struct dmm_clone *clone)
{
	struct page *page;
	int r;

	r = dmm_resolve(clone->src, clone->from, DMM_INTR, &page, NULL);
	if (!r)
		put_page(page);
	return r;
}

/*
 * One try of one page.  -EAGAIN: the source has changed.  Policies may return any
 * other error; see dmm_policy_error().
 */
static int dmm_clone_try(struct dmm_clone *clone)
{
	struct kvm_dmm_shared *shared;
	struct kvm_dmm_batch batch;
	u64 e = 0, new;
	int r;

	if (kvm_dmm_batch_start(&batch, clone->src, clone->from) &&
	    dmm_batch_lock(&batch, clone->from))
		e = dmm_batch_entry(&batch, clone->from &
				    (KVM_DMM_REGION_PAGES - 1));
	switch (dmm_kind(e)) {
	case KVM_DMM_ABSENT:
		if (e)
			kvm_dmm_batch_end(&batch);
		if (READ_ONCE(clone->src->nr_fillers))
			return dmm_clone_touch(clone) ?: -EAGAIN;
		dmm_drop_range(clone->dst, clone->to, clone->to);
		return 0;
	case KVM_DMM_TOKEN:
		r = dmm_dup_token(clone->src, e, clone->dst, clone->to, &new);
		kvm_dmm_batch_end(&batch);
		if (!r)
			return dmm_clone_token(clone, new);
		return dmm_clone_touch(clone) ?: -EAGAIN;
	case KVM_DMM_FRAME:
		if (!kvm_dmm_batch_protect(&batch))
			return dmm_clone_copy(clone);
		break;
	case KVM_DMM_SHARED:
		break;
	}
	shared = kvm_dmm_batch_handle(&batch, clone->from);
	kvm_dmm_batch_end(&batch);
	if (IS_ERR(shared))
		return PTR_ERR(shared);
	r = dmm_clone_shared(clone, shared);
	return r == -EMLINK ? dmm_clone_copy(clone) : r;
}

static int dmm_clone_page(struct kvm_dmm_pool *src, pgoff_t from,
			  struct kvm_dmm_pool *dst, pgoff_t to)
{
	struct dmm_clone clone = {
		.src = src,
		.from = from,
		.dst = dst,
		.to = to,
	};
	int r;

	do {
		if (fatal_signal_pending(current))
			return -EINTR;
		r = dmm_clone_try(&clone);
		cond_resched();
	} while (r == -EAGAIN);
	return r;
}

/* All of [from, from + nr), which does not overlap with [to, to + nr). */
static int dmm_clone_range(struct kvm_dmm_pool *src, pgoff_t from,
			   struct kvm_dmm_pool *dst, pgoff_t to, pgoff_t nr)
{
	DECLARE_BITMAP(rest, KVM_DMM_REGION_PAGES);
	unsigned int k;
	pgoff_t i, n, next;
	bool fast;
	int r;

	fast = from == to && !READ_ONCE(src->nr_fillers) &&
	       dmm_family_join(src, dst);
	for (i = 0; i < nr; i += n) {
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		next = from + i;
		if (!READ_ONCE(src->nr_fillers) &&
		    !kvm_dmm_next_region(src, &next, from + nr - 1))
			next = from + nr;
		n = next - (from + i);
		if (n) {
			dmm_drop_range(dst, to + i, to + i + n - 1);
			continue;
		}
		n = min(nr - i, KVM_DMM_REGION_PAGES -
			((from + i) & (KVM_DMM_REGION_PAGES - 1)));
		bitmap_zero(rest, KVM_DMM_REGION_PAGES);
		if (!fast || n < KVM_DMM_REGION_PAGES ||
		    dmm_region(dst, to + i) ||
		    dmm_clone_region(src, dst, to + i, rest))
			bitmap_set(rest, 0, n);
		for_each_set_bit(k, rest, n) {
			r = dmm_clone_page(src, from + i + k, dst, to + i + k);
			if (r)
				return r;
		}
	}
	return 0;
}

/**
 * dmm_remap_file_range - FICLONE, FICLONERANGE, and what copy_file_range() tries
 * @file_in: the source
 * @pos_in: where in it
 * @file_out: the destination, of this or another mount of dmmfs
 * @pos_out: where in it
 * @len: bytes; 0: to the end of the source
 * @flags: REMAP_FILE_*
 *
 * Guests and processes that use the source go on.  After an error a part may
 * have been cloned; the source has the same content in any case.
 *
 * Context: May sleep.
 * Return: Number of bytes; -EINVAL: not aligned, overlapping, or beyond the end
 *	of the source; -EOPNOTSUPP: FIDEDUPERANGE; -ENOSPC: what has to be copied
 *	does not fit below the limit of its pool; -ENOMEM: the same of what the
 *	source has to fetch, or the host has no memory; -EINTR; -EIO: the memory
 *	of a page that has to be copied has failed; or the error of a policy that
 *	has the content.
 */
loff_t dmm_remap_file_range(struct file *file_in, loff_t pos_in,
			    struct file *file_out, loff_t pos_out, loff_t len,
			    unsigned int flags)
{
	struct inode *in = file_inode(file_in), *out = file_inode(file_out);
	struct kvm_dmm_pool *src = dmm_pool(in), *dst = dmm_pool(out);
	int r;

	/* Candidates are found by the share policy, which compares, too. */
	if (flags & REMAP_FILE_DEDUP)
		return -EOPNOTSUPP;
	if (flags & ~(REMAP_FILE_DEDUP | REMAP_FILE_ADVISORY))
		return -EINVAL;

	/*
	 * No policy of the clone goes away while it is given tokens.  Before the
	 * inodes: who detaches a policy waits for who writes a path to one of its
	 * files, who may wait for a directory, for which somebody waits who removes
	 * this file and has its directory locked.
	 */
	if (mutex_lock_killable(&dst->policy_mutex))
		return -EINTR;
	lock_two_nondirectories(in, out);
	r = generic_remap_file_range_prep(file_in, pos_in, file_out, pos_out,
					  &len, flags);
	if (r || !len)
		goto unlock;
	/* Faults look at the size; what is cloned later reads as zero. */
	if (pos_out + len > i_size_read(out))
		i_size_write(out, pos_out + len);
	r = dmm_clone_range(src, pos_in >> PAGE_SHIFT, dst,
			    pos_out >> PAGE_SHIFT,
			    DIV_ROUND_UP_ULL(len, PAGE_SIZE));
unlock:
	unlock_two_nondirectories(in, out);
	mutex_unlock(&dst->policy_mutex);
	return dmm_intr_errno(dmm_full_errno(dst, r)) ?: len;
}
