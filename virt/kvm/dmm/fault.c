// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: what happens when memory is touched.
 *
 * One function, dmm_resolve(), serves page faults of guests and of processes,
 * read() and write(), and all of KVM that wants a guest's page.
 */
#include <linux/highmem.h>
#include <linux/mm.h>
#include <trace/events/kvm_dmm.h>

#include "dmm.h"

/**
 * struct dmm_fault - one access on its way through dmm_resolve()
 * @pool: the pool
 * @region: the region, which exists
 * @index: page offset
 * @entry: the entry
 * @e: its value when it was read last
 * @flags: DMM_*
 */
struct dmm_fault {
	struct kvm_dmm_pool *pool;
	struct kvm_dmm_region *region;
	pgoff_t index;
	u64 *entry;
	u64 e;
	unsigned int flags;
};

static int dmm_fault_state(struct dmm_fault *fault)
{
	return fault->flags & DMM_INTR ? TASK_INTERRUPTIBLE : TASK_KILLABLE;
}

/* The host or a control group is short: do what the pool can, so often. */
static int dmm_fault_room(struct dmm_fault *fault, unsigned int *tries)
{
	if (fault->flags & DMM_NOWAIT)
		return -EBUSY;
	if (fault->flags & DMM_SPARE || (*tries)++ == DMM_HOST_TRIES)
		return -ENOMEM;
	return dmm_host_room(fault->pool, dmm_fault_state(fault),
			     fault->flags & DMM_DETACH);
}

/* Make the region of @fault, the first that touches anything in it. */
static int dmm_fault_region(struct dmm_fault *fault)
{
	unsigned int tries = 0;
	int r;

	do {
		fault->region = dmm_region_get(fault->pool, fault->index);
		if (fault->region)
			return 0;
		r = dmm_fault_room(fault, &tries);
	} while (!r);
	return r;
}

/*
 * Get a page for @fault, with DMM_* besides its own, charged and allocated before
 * the entry is locked: both may sleep for long.
 */
static struct page *dmm_fault_alloc(struct dmm_fault *fault, bool zero,
				    unsigned int flags)
{
	unsigned int tries = 0;
	struct page *page;
	int r;

	r = dmm_charge(fault->pool, 1, fault->flags | flags, fault->entry,
		       fault->e);
	if (r)
		return ERR_PTR(r);
	do {
		page = dmm_frame_alloc(zero);
		if (page)
			return page;
		r = dmm_fault_room(fault, &tries);
	} while (!r);
	dmm_uncharge(fault->pool, 1);
	return ERR_PTR(r);
}

static void dmm_fault_free(struct dmm_fault *fault, struct page *page)
{
	put_page(page);
	dmm_uncharge(fault->pool, 1);
}

/*
 * Own the entry as it was when it was read.
 *
 * The size is read under the busy bit: truncation sets the new size first and
 * then walks the map, so either the size here is the new one, or the walk waits
 * for this entry and drops what comes in now.
 *
 * Return: 0, -EAGAIN: it has changed; -EFAULT: it is beyond the end of file.
 */
static int dmm_fault_lock(struct dmm_fault *fault)
{
	if (!dmm_trylock(fault->region, fault->entry, fault->e))
		return -EAGAIN;
	if (likely(fault->index < dmm_pages(fault->pool)))
		return 0;
	dmm_unlock(fault->region, fault->entry, fault->e);
	return -EFAULT;
}

/* The entry has got a page: publish it, with a reference for the caller. */
static void dmm_fault_install(struct dmm_fault *fault, struct page *page,
			      u64 new)
{
	dmm_frame_own(fault->pool, page, fault->index);
	get_page(page);
	dmm_unlock(fault->region, fault->entry, new);
	trace_kvm_dmm_map(fault->pool, fault->index, new);
}

/* Take a busy entry out of all page tables. */
static void dmm_fault_unmap(struct dmm_fault *fault)
{
	struct kvm_dmm_batch batch;

	dmm_batch_hold(&batch, fault->pool, fault->region, fault->index);
	dmm_batch_unmap(&batch);
}

/*
 * Absent: 2 MiB at once, if nothing is in the region and the host has them at
 * hand.  Tried once for a region, since most of the work is finding out.
 */
static bool dmm_fault_block(struct dmm_fault *fault)
{
	if (READ_ONCE(fault->region->tried) ||
	    !dmm_around_room(fault->pool, KVM_DMM_REGION_PAGES))
		return false;
	WRITE_ONCE(fault->region->tried, true);
	return dmm_populate_block(fault->pool,
				  round_down(fault->index, KVM_DMM_REGION_PAGES),
				  DMM_BLOCK_GFP & ~__GFP_RECLAIM);
}

/* Absent: a page with what a policy has for it, or zeros. */
static int dmm_fault_fill(struct dmm_fault *fault, struct page **pagep)
{
	struct kvm_dmm_around around = {
		.index = fault->index,
		.first = fault->index,
		.last = fault->index,
	};
	struct page *page;
	int r;

	if (!(fault->flags & DMM_EXACT) && dmm_may_fill_around(fault->pool))
		dmm_ask_around(fault->pool, &around);
	if (around.block && dmm_fault_block(fault))
		return -EAGAIN;

	page = dmm_fault_alloc(fault, true, 0);
	if (IS_ERR(page))
		return PTR_ERR(page);
	r = dmm_fault_lock(fault);
	if (r)
		goto free;
	if (READ_ONCE(fault->pool->nr_fillers)) {
		r = dmm_fill_content(fault->pool, fault->index, page);
		if (r && r != -ENODATA)
			goto unlock;
	}
	if (fault->e & DMM_CACHED)
		dmm_fault_unmap(fault);
	dmm_count(fault->pool, DMM_STAT_fill);
	dmm_fault_install(fault, page, dmm_mk_frame(page_to_pfn(page)));
	*pagep = page;
	dmm_fill_around(fault->pool, fault->region, &around, fault->e, false);
	return 0;
unlock:
	dmm_unlock(fault->region, fault->entry, fault->e);
free:
	dmm_fault_free(fault, page);
	return r;
}

/* Absent and read: the page of zeros. */
static int dmm_fault_zero(struct dmm_fault *fault, struct page **pagep)
{
	struct page *zero = fault->pool->zero;

	if (!(fault->e & DMM_CACHED)) {
		int r = dmm_fault_lock(fault);

		if (r)
			return r;
		dmm_unlock(fault->region, fault->entry, fault->e | DMM_CACHED);
	}
	dmm_count(fault->pool, DMM_STAT_zero_read);
	get_page(zero);
	*pagep = zero;
	return 0;
}

/* Frame that is protected and written: a policy may want to know. */
static int dmm_fault_unprotect(struct dmm_fault *fault, struct page **pagep)
{
	struct page *page = dmm_page(fault->e);
	int r;

	r = dmm_fault_lock(fault);
	if (r)
		return r;
	if (fault->e & DMM_KEPT) {
		dmm_free_token(fault->pool, dmm_policy_id(fault->e),
			       page_private(page));
		set_page_private(page, 0);
	}
	dmm_count(fault->pool, DMM_STAT_unprotect);
	get_page(page);
	dmm_unlock(fault->region, fault->entry,
		   dmm_mk_frame(page_to_pfn(page)));
	*pagep = page;
	return 0;
}

/* A page for the copy of a shared frame, if it takes no effort. */
static struct page *dmm_cow_alloc(struct dmm_fault *fault)
{
	struct page *page;

	if (dmm_charge(fault->pool, 1, DMM_SPARE, NULL, 0))
		return NULL;
	page = dmm_frame_try_alloc();
	if (!page)
		dmm_uncharge(fault->pool, 1);
	return page;
}

/*
 * Shared frame that is written.
 *
 * A frame that was never read at this offset since it is shared is in no page
 * table, and there is nothing to unmap:
 *
 *	read					write
 *	----					-----
 *	a. set DMM_CACHED, if not busy		1. set busy bit, if not DMM_CACHED
 *	b. take reference			2. new entry
 *	c. install translation
 *
 * One of a and 1 fails, and is tried again with what the other left.
 */
static int dmm_fault_cow(struct dmm_fault *fault, struct page **pagep)
{
	struct kvm_dmm_around around = {
		.index = fault->index,
		.copy = true,
		.first = fault->index,
		.last = fault->index,
	};
	struct page *shared = dmm_page(fault->e);
	unsigned int flags = 0;
	struct page *page;
	int r;

	if (dmm_may_fill_around(fault->pool))
		dmm_ask_around(fault->pool, &around);
	r = dmm_fault_lock(fault);
	if (r)
		return r;
	/* Before any effort for a copy that there cannot be. */
	if (unlikely(PageHWPoison(shared))) {
		dmm_unlock(fault->region, fault->entry, fault->e);
		return -EHWPOISON;
	}
	if (dmm_shared_take_over(fault->pool, shared)) {
		dmm_count(fault->pool, DMM_STAT_take_over);
		page = shared;
		goto install;
	}
	page = dmm_cow_alloc(fault);
	if (!page) {
		/* What leaving gives back is what the copy takes. */
		if (dmm_shared_makes_room(fault->pool, shared))
			flags = DMM_FORCE;
		dmm_unlock(fault->region, fault->entry, fault->e);

		page = dmm_fault_alloc(fault, false, flags);
		if (IS_ERR(page))
			return PTR_ERR(page);
		r = dmm_fault_lock(fault);
		if (r) {
			dmm_fault_free(fault, page);
			return r;
		}
	}
	if (fault->e & DMM_CACHED)
		dmm_fault_unmap(fault);
	r = dmm_shared_copy(fault->region, fault->pool, fault->index, shared,
			    page);
	if (r) {
		dmm_unlock(fault->region, fault->entry, fault->e);
		dmm_fault_free(fault, page);
		return r;
	}
install:
	dmm_fault_install(fault, page, dmm_mk_frame(page_to_pfn(page)));
	*pagep = page;
	dmm_fill_around(fault->pool, fault->region, &around, fault->e,
			page == shared);
	return 0;
}

/*
 * May pools share what comes from tokens?  Without a domain what no other pool
 * may join is better off writable.
 */
static bool dmm_may_publish(struct kvm_dmm_pool *pool)
{
	return READ_ONCE(pool->nr_publishers) && READ_ONCE(pool->domain[0]);
}

/*
 * Busy entry with a token: use the frame of @shared for it, if that can still
 * be had.  Gives the handle back.
 */
static bool dmm_fault_join(struct dmm_fault *fault,
			   struct kvm_dmm_shared *shared, bool free_token,
			   struct page **pagep)
{
	struct kvm_dmm_pool *pool = fault->pool;
	struct page *page;

	page = dmm_shared_join(shared, pool, fault->index, false);
	kvm_dmm_shared_put(shared);
	if (IS_ERR(page))
		return false;
	if (free_token)
		dmm_free_token(pool, dmm_policy_id(fault->e),
			       dmm_token(fault->e));
	atomic_long_dec(&pool->nr_tokens);
	/* The entry is a user, so the page stays. */
	get_page(page);
	dmm_unlock(fault->region, fault->entry,
		   dmm_mk_shared(page_to_pfn(page)) | DMM_CACHED);
	*pagep = page;
	return true;
}

/* Token that is read: somebody may have the content already. */
static int dmm_fault_lookup(struct dmm_fault *fault, struct page **pagep)
{
	struct kvm_dmm_shared *shared;
	int r;

	r = dmm_fault_lock(fault);
	if (r)
		return r;
	shared = dmm_lookup_token(fault->pool, fault->e);
	if (shared && dmm_fault_join(fault, shared, true, pagep))
		return 0;
	dmm_unlock(fault->region, fault->entry, fault->e);
	return -ENOENT;
}

/*
 * Busy entry with a token that was fetched for reading: join a shared frame
 * with the same content, or become one that others can join.
 *
 * Return: True if that was done; otherwise the entry is as it was.
 */
static bool dmm_fault_share(struct dmm_fault *fault, struct page *page,
			    bool kept, struct page **pagep)
{
	struct kvm_dmm_pool *pool = fault->pool;
	struct kvm_dmm_shared *shared;

	shared = dmm_match_content(pool, fault->index, page);
	if (shared && dmm_shared_matches(shared, page)) {
		kvm_dmm_shared_put(shared);
		shared = NULL;
	}
	if (shared && dmm_fault_join(fault, shared, kept, pagep)) {
		dmm_fault_free(fault, page);
		return true;
	}
	if (!dmm_may_publish(pool) || !dmm_wants_publish(pool, fault->e))
		return false;
	shared = dmm_shared_create(pool, fault->index, page);
	if (!shared)
		return false;
	dmm_publish(pool, fault->e, shared);
	kvm_dmm_shared_put(shared);
	if (kept)
		dmm_free_token(pool, dmm_policy_id(fault->e),
			       dmm_token(fault->e));
	atomic_long_dec(&pool->nr_tokens);
	get_page(page);
	dmm_unlock(fault->region, fault->entry,
		   dmm_mk_shared(page_to_pfn(page)) | DMM_CACHED);
	*pagep = page;
	return true;
}

/**
 * dmm_token_to_frame - publish a page with the content of a token
 * @pool: the pool
 * @region: the region
 * @index: page offset of an entry that is busy
 * @e: its value, a token
 * @page: the page, charged to the pool
 * @kept: the policy keeps the content
 */
void dmm_token_to_frame(struct kvm_dmm_pool *pool,
			struct kvm_dmm_region *region, pgoff_t index, u64 e,
			struct page *page, bool kept)
{
	u64 new = dmm_mk_frame(page_to_pfn(page));

	if (kept)
		new = dmm_mk_kept(page_to_pfn(page), dmm_policy_id(e));
	atomic_long_dec(&pool->nr_tokens);
	dmm_frame_own(pool, page, index);
	if (kept)
		set_page_private(page, dmm_token(e));
	trace_kvm_dmm_map(pool, index, new);
	dmm_unlock(region, dmm_entry(region, index), new);
}

/* Token: the policy brings the content back. */
static int dmm_fault_fetch(struct dmm_fault *fault, struct page **pagep)
{
	struct kvm_dmm_pool *pool = fault->pool;
	struct kvm_dmm_around around = {
		.index = fault->index,
		.first = fault->index,
		.last = fault->index,
	};
	bool exact, write = fault->flags & DMM_WRITE;
	unsigned int flags = 0;
	struct page *page;
	int r;

	if (fault->flags & DMM_NOWAIT)
		flags |= KVM_DMM_FETCH_NOWAIT;
	if (fault->flags & (DMM_SPARE | DMM_DETACH))
		flags |= KVM_DMM_FETCH_AHEAD;
	if (fault->flags & DMM_INTR)
		flags |= KVM_DMM_FETCH_INTR;
	if ((fault->flags & DMM_PROCESS) && !write)
		flags |= KVM_DMM_FETCH_PROCESS;

	if (!write && dmm_may_publish(pool)) {
		r = dmm_fault_lookup(fault, pagep);
		if (r != -ENOENT)
			return r;
	}
	page = dmm_fault_alloc(fault, false, 0);
	if (IS_ERR(page))
		return PTR_ERR(page);
	r = dmm_fault_lock(fault);
	if (r)
		goto free;
	page->index = fault->index;
	/* Only what a guest touches says what it touches next. */
	exact = fault->flags & (DMM_PROCESS | DMM_SPARE | DMM_EXACT |
				DMM_DETACH);
	r = dmm_fetch_token(pool, fault->e, page, flags,
			    exact ? NULL : &around);
	if (r < 0) {
		/* Content that takes time: as with an entry that is busy. */
		if (r == -EAGAIN)
			r = -EBUSY;
		else if (r != -EINTR)
			dmm_count(pool, DMM_STAT_fetch_failed);
		dmm_unlock(fault->region, fault->entry, fault->e);
		goto free;
	}
	dmm_count(pool, DMM_STAT_fetch);
	if (!write && dmm_fault_share(fault, page, r, pagep))
		return 0;
	if (r > 0 && write)
		dmm_free_token(pool, dmm_policy_id(fault->e),
			       dmm_token(fault->e));
	get_page(page);
	dmm_token_to_frame(pool, fault->region, fault->index, fault->e, page,
			   r > 0 && !write);
	*pagep = page;
	if (around.first != around.last)
		dmm_fill_around(pool, fault->region, &around, fault->e, false);
	return 0;
free:
	dmm_fault_free(fault, page);
	return r;
}

/*
 * Get a reference of the frame that an entry has.  Whoever frees a frame makes
 * its entry busy first: if the entry is unchanged with the reference taken, the
 * page is still its frame.
 */
static bool dmm_fault_get(struct dmm_fault *fault, struct page **pagep)
{
	struct page *page = dmm_page(fault->e);

	if (unlikely(!get_page_unless_zero(page)))
		return false;
	if (unlikely(READ_ONCE(*fault->entry) != fault->e)) {
		put_page(page);
		return false;
	}
	*pagep = page;
	return true;
}

/*
 * Shared frame that is read.  That page tables may have it is noted before they
 * can.
 */
static int dmm_fault_shared(struct dmm_fault *fault, struct page **pagep)
{
	if (!(fault->e & DMM_CACHED)) {
		if (!dmm_set_cached(fault->entry, fault->e))
			return -EAGAIN;
		fault->e |= DMM_CACHED;
	}
	return dmm_fault_get(fault, pagep) ? 0 : -EAGAIN;
}

/* One try.  -EAGAIN: the entry has changed, or is busy without being waited for. */
static int dmm_resolve_once(struct dmm_fault *fault, struct page **page)
{
	bool write = fault->flags & DMM_WRITE;

	switch (dmm_kind(fault->e)) {
	case KVM_DMM_ABSENT:
		if (fault->flags & DMM_ATOMIC)
			return -EFAULT;
		if (unlikely(READ_ONCE(fault->pool->nr_fillers)))
			return fault->flags & DMM_NOWAIT ?
			       -EBUSY : dmm_fault_fill(fault, page);
		if (write)
			return dmm_fault_fill(fault, page);
		if (fault->flags & DMM_PEEK) {
			*page = NULL;
			return 0;
		}
		return dmm_fault_zero(fault, page);
	case KVM_DMM_FRAME:
		if (likely(!write || !(fault->e & DMM_WP)))
			return dmm_fault_get(fault, page) ? 0 : -EAGAIN;
		if (fault->flags & DMM_ATOMIC)
			return -EFAULT;
		return dmm_fault_unprotect(fault, page);
	case KVM_DMM_SHARED:
		if (!write)
			return dmm_fault_shared(fault, page);
		if (fault->flags & DMM_ATOMIC)
			return -EFAULT;
		return dmm_fault_cow(fault, page);
	case KVM_DMM_TOKEN:
		if (fault->flags & DMM_ATOMIC)
			return -EFAULT;
		return dmm_fault_fetch(fault, page);
	}
	return -EFAULT;
}

/**
 * dmm_resolve - find or make the page for an access
 * @pool: the pool
 * @index: page offset
 * @flags: DMM_*
 * @page: out: the page, with a reference; or NULL, with DMM_PEEK, for zeros
 * @writable: out: whether the page may be mapped for writing, or NULL
 *
 * The caller installs the page in a page table only if the entry has not
 * changed in between: see change.c.
 *
 * Context: May sleep without DMM_ATOMIC.
 * Return: 0
 *	-EFAULT: beyond the end of the file; with DMM_ATOMIC: would sleep.
 *	-EBUSY: with DMM_NOWAIT: would have to wait.
 *	-EINTR: a signal ended a wait.
 *	-ENOMEM: the pool is at its limit or the host has no memory.
 *	-EHWPOISON: the memory has failed, and the content is lost.
 *	Other errors are those of a policy that has the content.
 */
int dmm_resolve(struct kvm_dmm_pool *pool, pgoff_t index, unsigned int flags,
		struct page **page, bool *writable)
{
	struct dmm_fault fault = {
		.pool = pool,
		.index = index,
		.flags = flags,
	};
	int r;

	if (unlikely(index >= dmm_pages(pool)))
		return -EFAULT;
	fault.region = dmm_region(pool, index);
	if (unlikely(!fault.region)) {
		if (flags & DMM_ATOMIC)
			return -EFAULT;
		if ((flags & (DMM_PEEK | DMM_WRITE)) == DMM_PEEK &&
		    !READ_ONCE(pool->nr_fillers)) {
			*page = NULL;
			return 0;
		}
		r = dmm_fault_region(&fault);
		if (r)
			return r;
	}
	fault.entry = dmm_entry(fault.region, index);

	do {
		fault.e = READ_ONCE(*fault.entry);
		if (likely(!(fault.e & DMM_BUSY))) {
			r = dmm_resolve_once(&fault, page);
		} else if (flags & DMM_ATOMIC) {
			r = -EFAULT;
		} else if (flags & DMM_NOWAIT) {
			r = -EBUSY;
		} else {
			r = dmm_wait(pool, fault.entry,
				     dmm_fault_state(&fault)) ?: -EAGAIN;
		}
	} while (r == -EAGAIN);
	/* Who has the page locked looks once more. */
	if (!r && !(flags & DMM_DETACH) && *page && unlikely(PageHWPoison(*page))) {
		put_page(*page);
		r = -EHWPOISON;
	}

	dmm_count(pool, DMM_STAT_fault);
	trace_kvm_dmm_fault(pool, index, fault.e, flags, r);
	/* What was read is writable as long as the entry stays what it was. */
	if (writable)
		*writable = (flags & DMM_WRITE) || dmm_writable(fault.e);
	return r;
}

/**
 * kvm_dmm_fetch - bring the content of a token back before it is touched
 * @pool: the pool
 * @index: page offset
 *
 * For reading ahead: takes no more than what the pool's limit leaves.
 *
 * Context: May sleep; no busy bit is held.
 * Return: 1: the content came back; 0: there was no token; -EBUSY: the pool is
 *	at its limit; otherwise as dmm_resolve().
 */
int kvm_dmm_fetch(struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct page *page;
	int r;

	if (kvm_dmm_peek(pool, index, NULL) != KVM_DMM_TOKEN)
		return 0;
	r = dmm_resolve(pool, index, DMM_SPARE | DMM_INTR | DMM_PEEK, &page,
			NULL);
	if (r)
		return r;
	if (!page)
		return 0;
	put_page(page);
	return 1;
}
EXPORT_SYMBOL_GPL(kvm_dmm_fetch);

/**
 * dmm_allows - may a page be mapped where an entry is?
 * @pool: the pool
 * @index: page offset, in a region that exists
 * @page: the page
 * @write: whether it is to be mapped for writing
 *
 * Context: Any.  The answer is of the moment.
 * Return: True if the entry has the page and is not busy.
 */
bool dmm_allows(struct kvm_dmm_pool *pool, pgoff_t index, struct page *page,
		bool write)
{
	u64 e = READ_ONCE(*dmm_entry(dmm_region(pool, index), index));

	return !(e & DMM_BUSY) && dmm_may_map(e, page_to_pfn(page), write,
					      page_to_pfn(pool->zero));
}

/**
 * dmm_current - is a page still what an entry has?
 * @pool: the pool
 * @index: page offset
 * @page: what dmm_resolve() returned; its lock is held
 * @write: whether it is to be mapped for writing
 *
 * Context: The page lock keeps the answer true: see change.c.
 * Return: True if the page may be mapped.
 */
bool dmm_current(struct kvm_dmm_pool *pool, pgoff_t index, struct page *page,
		 bool write)
{
	VM_WARN_ON_ONCE(!PageLocked(page));
	return dmm_allows(pool, index, page, write);
}

/* Is there no room for a page, other than for one that is on its way already? */
static bool dmm_populate_full(struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct kvm_dmm_region *region = dmm_region(pool, index);

	return dmm_used(pool) >= dmm_max(pool) &&
	       !(region && READ_ONCE(*dmm_entry(region, index)) & DMM_BUSY);
}

/**
 * dmm_populate - make frames of all that is absent in a range
 * @pool: the pool
 * @first: first page offset
 * @last: last page offset
 *
 * Context: May sleep.
 * Return: 0; -EINTR; -ENOSPC: the pool is at its limit; -ENOMEM; -EIO.  What
 *	was populated stays.
 */
int dmm_populate(struct kvm_dmm_pool *pool, pgoff_t first, pgoff_t last)
{
	pgoff_t index = first;
	pgoff_t filled = 0, skipped = 0;
	struct page *page;
	int r;

	/* Do not take the last page of the host just to find it too small. */
	if (last - first >= atomic_long_read(&pool->resident) +
			    atomic_long_read(&pool->nr_shared) +
			    atomic_long_read(&pool->nr_tokens) +
			    si_mem_available())
		return -ENOMEM;

	while (index <= last) {
		/* Who tries again after a signal gets twice as far each time. */
		if (filled > skipped ? signal_pending(current) :
				       fatal_signal_pending(current))
			return -EINTR;
		if (IS_ALIGNED(index, KVM_DMM_REGION_PAGES) &&
		    index + KVM_DMM_REGION_PAGES - 1 <= last &&
		    dmm_populate_block(pool, index, DMM_BLOCK_GFP)) {
			index += KVM_DMM_REGION_PAGES;
			filled += KVM_DMM_REGION_PAGES;
			cond_resched();
			continue;
		}
		/* Without the wait of a fault: a caller can be told at once. */
		if (kvm_dmm_peek(pool, index, NULL) == KVM_DMM_ABSENT) {
			r = dmm_resolve(pool, index, DMM_WRITE | DMM_EXACT |
					DMM_NOWAIT | DMM_INTR, &page, NULL);
			if (r == -EBUSY)
				r = dmm_populate_full(pool, index) ? -ENOSPC :
				    dmm_resolve(pool, index,
						DMM_WRITE | DMM_EXACT |
						DMM_INTR, &page, NULL);
			if (r)
				return dmm_failed_errno(r);
			put_page(page);
			filled++;
		} else {
			skipped++;
		}
		index++;
		cond_resched();
	}
	return 0;
}
