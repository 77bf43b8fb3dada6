// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the share policy.  Equal pages become one page.
 *
 * A thread for each pool goes over its memory, 2 MiB at a time.  Pages that may
 * have been written since the last time are write-protected and hashed; the
 * core tells the others by a look at the map.  A hash that the index knows means
 * that two pages may be equal: the core compares them, out of all page tables,
 * before they become one.
 */
#include <linux/delay.h>
#include <linux/freezer.h>
#include <linux/kernel.h>
#include <linux/kthread.h>
#include <linux/kvm_dmm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "share.h"
#include "share_index.h"

/* Pages whose entries are busy at once, while they are hashed or compared. */
#define SHARE_BATCH	32

/* How long a thread rests between two passes at least, in ms. */
#define SHARE_PAUSE	20

/* How often it looks at numbers, of which those for all pools wake nobody, in ns. */
#define SHARE_LOOK	NSEC_PER_SEC

/* Guests wait for what the thread has busy: it must not starve beside them. */
#define SHARE_NICE	5

enum {
	SHARE_RUN,		/* look for equal pages */
	SHARE_PAGES_PER_SECOND,	/* look at no more, 0: no limit */
	SHARE_MAX_CPU_PERCENT,	/* of one CPU */
	SHARE_FULL_SCAN_SECONDS,	/* what a pass shall take, 0: no matter */
	SHARE_BREAK_BLOCKS,	/* share pages of 2 MiB blocks */
	SHARE_TIMING_SAFE,	/* a write does not tell who shares */
};

enum { SHARE_BREAK_NEVER, SHARE_BREAK_PRESSURE, SHARE_BREAK_ALWAYS };

static const char *const share_break[] = { "never", "pressure", "always", NULL };

#define SHARE_COUNTERS(C)						\
	C(passes)		/* complete passes */			\
	C(hashed)		/* pages hashed */			\
	C(merged)		/* pages that now share a frame */	\
	C(zero)			/* pages of zeros given up */		\
	C(brought_back)		/* offered for what was brought back */	\
	C(skip_changing)	/* left alone: changes often */		\
	C(skip_block)		/* left alone: in a block of 2 MiB */	\
	C(reject_busy)		/* somebody holds the page */		\
	C(reject_differs)	/* same hash, other content */		\
	C(reject_domain)	/* not for this domain (any more) */	\
	C(reject_gone)		/* the frame was gone */		\
	C(reject_memory)

enum {
#define SHARE_COUNT_ENUM(name) SHARE_COUNT_##name,
	SHARE_COUNTERS(SHARE_COUNT_ENUM)
#undef SHARE_COUNT_ENUM
};

static const char *const share_counters[] = {
#define SHARE_COUNT_NAME(name) #name,
	SHARE_COUNTERS(SHARE_COUNT_NAME)
#undef SHARE_COUNT_NAME
	NULL
};

/**
 * struct share_region - what is known of 2 MiB
 * @known: pages whose state says SHARE_KNOWN and no level: nothing to do for
 *	them as long as they are not written
 * @state: see share.h
 * @record: of pages that wait in the index for an equal one
 */
struct share_region {
	DECLARE_BITMAP(known, KVM_DMM_REGION_PAGES);
	u8 state[KVM_DMM_REGION_PAGES];
	struct share_record *record[KVM_DMM_REGION_PAGES];
};

/**
 * struct share_found - pages of a batch that may share or go
 * @index: page offset
 * @hash: of the content
 * @shared: the handle; NULL: a page of zeros
 */
struct share_found {
	pgoff_t index;
	u64 hash;
	struct kvm_dmm_shared *shared;
};

/**
 * struct share_pool - a pool with this policy
 * @policy: the policy
 * @worker: the thread; nobody else touches @regions while it runs
 * @work_mutex: held by the thread while it works on a region, and to keep it out
 * @regions: page offset / 512 to struct share_region
 * @seed: of the domain that the hashes are for
 * @fresh: pages for shared frames if timing_safe was on when the pass began, or NULL
 * @pass: number of the pass
 * @stopped: frames were separated: rest until a number is written again
 * @leaving: the same, until that has failed
 * @found: what a batch has that may share or go; protected by @work_mutex
 */
struct share_pool {
	struct kvm_dmm_policy *policy;
	struct task_struct *worker;
	struct mutex work_mutex;	/* see above */
	struct xarray regions;
	u64 seed;
	struct share_fresh *fresh;
	unsigned long pass;
	bool stopped;
	bool leaving;
	struct share_found found[SHARE_BATCH];
};

static void share_count(struct share_pool *share, unsigned int nr)
{
	kvm_dmm_policy_count(share->policy, nr, 1);
}

static struct share_region *share_region(struct share_pool *share, pgoff_t base)
{
	unsigned long i = base / KVM_DMM_REGION_PAGES;
	struct share_region *region = xa_load(&share->regions, i);

	if (region)
		return region;
	region = kzalloc(sizeof(*region), GFP_KERNEL);
	if (region && xa_err(xa_store(&share->regions, i, region, GFP_KERNEL))) {
		kfree(region);
		region = NULL;
	}
	return region;
}

/* Forget all of a region: nothing is left of it, for example. */
static void share_forget_region(struct share_pool *share, pgoff_t base)
{
	struct share_region *region = xa_erase(&share->regions,
					       base / KVM_DMM_REGION_PAGES);
	unsigned int i;

	if (!region)
		return;
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++)
		share_forget(&region->record[i]);
	kfree(region);
}

/* Forget all that is known: the domain has changed, or the pool goes. */
static void share_forget_all(struct share_pool *share)
{
	struct share_region *region;
	unsigned long i;

	xa_for_each(&share->regions, i, region) {
		share_forget_region(share, i * KVM_DMM_REGION_PAGES);
		cond_resched();
	}
}

/*
 * What the content of a page is looked up by, or SHARE_ZERO: absent memory is faster
 * to write, so not if that tells.
 */
static u64 share_key(struct share_pool *share, struct page *page, bool safe)
{
	u64 hash = share_hash(page, share->seed);

	return safe && hash == SHARE_ZERO ? share->seed & SHARE_HASH : hash;
}

/*
 * The entry that was found is in @batch, its frame in no page table; or it is a
 * shared frame.
 *
 * Return: False if the next pass shall try again.
 */
static bool share_join(struct share_pool *share, struct kvm_dmm_batch *batch,
		       struct share_found *found, bool safe)
{
	struct page *page;
	int r;

	r = kvm_dmm_batch_join(batch, found->index, found->shared);
	switch (r) {
	case 0:
		share_count(share, SHARE_COUNT_merged);
		if (safe)
			kvm_dmm_shared_always_copy(found->shared);
		break;
	case -EMLINK:
		/* Full: from the next pass on this page stands for the content. */
		share_drop(found->hash, found->shared);
		return false;
	case -ESTALE:
		share_count(share, SHARE_COUNT_reject_gone);
		return false;
	case -EINVAL:
		/*
		 * Was it this page that has changed meanwhile, or the other?  One that
		 * is a shared frame does not.
		 */
		page = kvm_dmm_batch_page(batch, found->index);
		if (!page || share_key(share, page, safe) == found->hash)
			share_drop(found->hash, found->shared);
		share_count(share, SHARE_COUNT_reject_differs);
		break;
	case -EPERM:
		/*
		 * If it is not this pool that has changed its domain meanwhile, the
		 * frame is not for those who look here: it has clones elsewhere, or
		 * its own pool has left.  As with -EMLINK.
		 */
		if (share_seed(share->policy->pool) == share->seed)
			share_drop(found->hash, found->shared);
		share_count(share, SHARE_COUNT_reject_domain);
		return false;
	case -EBUSY:
		share_count(share, SHARE_COUNT_reject_busy);
		return false;
	default:
		share_count(share, SHARE_COUNT_reject_memory);
		return false;
	}
	return true;
}

/*
 * What cannot be shared is to be written as slowly as what is, or a write tells
 * whether there was anything to share.  That is so for content that was made to
 * have the hash of other content, too.  If what was found was dropped, this page
 * stands for the content from now on.
 */
static void share_alike(struct share_pool *share, struct kvm_dmm_batch *batch,
			pgoff_t index, u64 hash, struct share_record **slot)
{
	struct kvm_dmm_shared *shared;

	if (!kvm_dmm_batch_page(batch, index))
		return;
	shared = share_lookup(hash, batch, index, slot, share->fresh);
	if (!IS_ERR_OR_NULL(shared))
		kvm_dmm_shared_put(shared);
	shared = share_fresh_handle(share->fresh, batch, index);
	if (IS_ERR(shared))
		return;
	kvm_dmm_shared_always_copy(shared);
	kvm_dmm_shared_put(shared);
}

/* Second step: take the pages that were found, and share or drop them. */
static void share_merge(struct share_pool *share, struct share_region *region,
			unsigned int nr)
{
	struct share_found *found = share->found;
	struct kvm_dmm_batch batch;
	unsigned int i;
	u8 *state;

	kvm_dmm_batch_start(&batch, share->policy->pool, found->index);
	for (i = 0; i < nr; i++)
		kvm_dmm_batch_add(&batch, found[i].index);
	kvm_dmm_batch_take(&batch);
	for (i = 0; i < nr; i++) {
		/* 0: the next pass tries again. */
		state = &region->state[found[i].index % KVM_DMM_REGION_PAGES];
		if (!kvm_dmm_batch_page(&batch, found[i].index)) {
			share_count(share, SHARE_COUNT_reject_busy);
			*state = 0;
		} else if (found[i].shared) {
			if (!share_join(share, &batch, &found[i], false))
				*state = 0;
		} else if (!kvm_dmm_batch_absent(&batch, found[i].index)) {
			share_count(share, SHARE_COUNT_zero);
		}
		kvm_dmm_shared_put(found[i].shared);
	}
	kvm_dmm_batch_end(&batch);
}

/* First step: protect and hash the pages @look, starting with *@first. */
static unsigned int share_hash_pages(struct share_pool *share,
				     struct share_region *region, pgoff_t base,
				     unsigned long *look, unsigned int *first)
{
	unsigned int i, n = 0, nr = 0, begin = *first;
	struct share_fresh *fresh = share->fresh;
	struct share_found *found = share->found;
	struct kvm_dmm_batch batch;
	struct page *page;
	u64 hash;

	if (!kvm_dmm_batch_start(&batch, share->policy->pool, base))
		return 0;
	for (i = begin; n < SHARE_BATCH; i++) {
		i = find_next_bit(look, KVM_DMM_REGION_PAGES, i);
		if (i == KVM_DMM_REGION_PAGES)
			break;
		/* The index says what it was. */
		share_forget(&region->record[i]);
		if (kvm_dmm_batch_add(&batch, base + i))
			n++;
	}
	*first = i;
	if (fresh)
		kvm_dmm_batch_take(&batch);
	else
		kvm_dmm_batch_protect(&batch);

	for (i = begin; i < *first; i++) {
		page = kvm_dmm_batch_page(&batch, base + i);
		if (!page)
			continue;
		hash = share_key(share, page, fresh);
		region->state[i] |= SHARE_KNOWN;
		share_count(share, SHARE_COUNT_hashed);
		found[nr].index = base + i;
		found[nr].shared = NULL;
		if (hash == SHARE_ZERO) {
			nr++;
			continue;
		}
		found[nr].hash = hash;
		found[nr].shared = share_lookup(hash, &batch, base + i,
						&region->record[i], fresh);
		if (IS_ERR(found[nr].shared)) {
			share_count(share, PTR_ERR(found[nr].shared) == -ENOMEM ?
				    SHARE_COUNT_reject_memory :
				    SHARE_COUNT_reject_busy);
			region->state[i] = 0;
			if (fresh)
				share_alike(share, &batch, base + i, hash,
					    &region->record[i]);
			continue;
		}
		if (!found[nr].shared)
			continue;
		if (fresh) {
			if (!share_join(share, &batch, &found[nr], true))
				region->state[i] = 0;
			kvm_dmm_shared_put(found[nr].shared);
			share_alike(share, &batch, base + i, hash,
				    &region->record[i]);
		} else {
			nr++;
		}
	}
	kvm_dmm_batch_end(&batch);
	return nr;
}

/* May the pages of a block be shared, which takes it apart? */
static bool share_may_break(struct share_pool *share)
{
	switch (kvm_dmm_value(share->policy, SHARE_BREAK_BLOCKS)) {
	case SHARE_BREAK_ALWAYS:
		return true;
	case SHARE_BREAK_PRESSURE:
		return kvm_dmm_short(share->policy->pool);
	}
	return false;
}

/*
 * Nothing is known any more of pages that are neither frames nor shared: one that a
 * policy has taken out may come back protected, and its record can be gone by then.
 */
static void share_forget_gone(struct share_region *region,
			      const unsigned long *frames,
			      const unsigned long *shared)
{
	DECLARE_BITMAP(there, KVM_DMM_REGION_PAGES);
	unsigned int i;

	bitmap_or(there, frames, shared, KVM_DMM_REGION_PAGES);
	for_each_clear_bit(i, there, KVM_DMM_REGION_PAGES) {
		region->state[i] &= SHARE_LEVEL;
		share_forget(&region->record[i]);
	}
	bitmap_and(region->known, region->known, there, KVM_DMM_REGION_PAGES);
}

/*
 * A page that was a shared frame before this domain, or this policy, was there: see
 * that it is found, or joins what is.
 *
 * Return: False if the next pass shall try again.
 */
static bool share_look_shared(struct share_pool *share, pgoff_t index)
{
	struct kvm_dmm_shared *own = NULL;
	struct share_found found = { .index = index };
	struct kvm_dmm_batch batch;
	struct page *page;
	bool done = false;

	if (!kvm_dmm_batch_start(&batch, share->policy->pool, index))
		return false;
	page = kvm_dmm_batch_add_shared(&batch, index);
	if (!page)
		goto end;
	done = true;
	/* What clones have in common takes no memory to know who has it. */
	own = kvm_dmm_batch_offered(&batch, index);
	if (!own)
		goto end;
	found.hash = share_key(share, page, share->fresh);
	if (found.hash == SHARE_ZERO)
		goto end;
	share_count(share, SHARE_COUNT_hashed);
	found.shared = share_lookup_shared(found.hash, &batch, own, share->fresh);
	if (IS_ERR(found.shared))
		done = false;
	else if (found.shared && found.shared != own)
		done = share_join(share, &batch, &found, share->fresh);
end:
	kvm_dmm_batch_end(&batch);
	kvm_dmm_shared_put(found.shared);
	kvm_dmm_shared_put(own);
	return done;
}

/* One look at 2 MiB. */
static void share_scan_region(struct share_pool *share, pgoff_t base)
{
	DECLARE_BITMAP(frames, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(shared, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(written, KVM_DMM_REGION_PAGES);
	struct share_region *region;
	unsigned int i, n;
	bool block;

	if (!kvm_dmm_frames(share->policy->pool, base, frames, shared, written,
			    &block))
		return;
	if (block && !share_may_break(share)) {
		kvm_dmm_policy_count(share->policy, SHARE_COUNT_skip_block,
				     KVM_DMM_REGION_PAGES);
		return;
	}
	if (bitmap_empty(frames, KVM_DMM_REGION_PAGES) &&
	    bitmap_empty(shared, KVM_DMM_REGION_PAGES)) {
		share_forget_region(share, base);
		return;
	}
	region = share_region(share, base);
	if (!region)
		return;
	share_forget_gone(region, frames, shared);
	/* Most pages in most passes: neither written nor resting. */
	bitmap_andnot(region->known, region->known, written,
		      KVM_DMM_REGION_PAGES);
	bitmap_andnot(shared, shared, region->known, KVM_DMM_REGION_PAGES);
	for_each_set_bit(i, shared, KVM_DMM_REGION_PAGES) {
		/* What became one here is known. */
		if (region->state[i] & SHARE_KNOWN ||
		    share_look_shared(share, base + i))
			__set_bit(i, region->known);
		cond_resched();
	}
	if (!bitmap_andnot(frames, frames, region->known, KVM_DMM_REGION_PAGES))
		return;
	for_each_set_bit(i, frames, KVM_DMM_REGION_PAGES) {
		if (share_look(&region->state[i], test_bit(i, written),
			       share->pass, base + i))
			continue;
		__clear_bit(i, frames);
		if (region->state[i] == SHARE_KNOWN)
			__set_bit(i, region->known);
		else
			share_count(share, SHARE_COUNT_skip_changing);
	}
	i = 0;
	while (i < KVM_DMM_REGION_PAGES && !kthread_should_stop()) {
		n = share_hash_pages(share, region, base, frames, &i);
		if (n)
			share_merge(share, region, n);
		cond_resched();
	}
}

static bool share_safe(struct share_pool *share)
{
	return kvm_dmm_value(share->policy, SHARE_TIMING_SAFE);
}

/*
 * Start of a pass.  What was hashed for another domain is worth nothing, and of what
 * was looked at before timing_safe, writes tell whether somebody else has it.
 *
 * Return: False without memory: then there is no pass.
 */
static bool share_begin_pass(struct share_pool *share)
{
	u64 seed = share_seed(share->policy->pool);
	bool forget = seed != share->seed;

	if (!share_safe(share)) {
		share_fresh_free(share->fresh);
		share->fresh = NULL;
	} else if (!share->fresh) {
		share->fresh = share_fresh_create();
		if (!share->fresh)
			return false;
		forget = true;
	}
	if (forget)
		share_forget_all(share);
	share->seed = seed;
	share->pass++;
	return true;
}

static bool share_runs(struct share_pool *share)
{
	return kvm_dmm_value(share->policy, SHARE_RUN) &&
	       !READ_ONCE(share->stopped) && !READ_ONCE(share->leaving);
}

/* For no less than @ns, but that a tunable was written; returns for how long. */
static u64 share_sleep(u64 ns)
{
	u64 begin = ktime_get_ns();

	set_current_state(TASK_INTERRUPTIBLE);
	if (!kthread_should_stop())
		schedule_timeout(nsecs_to_jiffies(ns) + 1);
	__set_current_state(TASK_RUNNING);
	return ktime_get_ns() - begin;
}

/**
 * struct share_budget - what was done in a pass since it rested
 * @pages: pages that were looked at
 * @worked: how long that took, in ns
 * @rested: how long it has rested for that, in ns, and too long before
 */
struct share_budget {
	u64 pages;
	u64 worked;
	u64 rested;
};

/* How long to rest for the budget, by the numbers as they are now. */
static u64 share_owed(struct share_pool *share, struct share_budget *budget)
{
	struct kvm_dmm_policy *policy = share->policy;
	u64 rate;

	rate = share_rate(kvm_dmm_pool_pages(policy->pool),
			  kvm_dmm_value(policy, SHARE_FULL_SCAN_SECONDS),
			  kvm_dmm_value(policy, SHARE_PAGES_PER_SECOND));
	return share_rest(budget->pages, budget->worked, rate,
			  kvm_dmm_value(policy, SHARE_MAX_CPU_PERCENT));
}

/* Sleep as long as the budget wants. */
static void share_pace(struct share_pool *share, struct share_budget *budget)
{
	u64 rest = share_owed(share, budget), rested;

	/* What was done without a bound is not owed when there is one. */
	if (!rest) {
		budget->pages = 0;
		budget->worked = 0;
	}
	/* Less than the timer can do adds up. */
	if (rest < budget->rested + TICK_NSEC)
		return;
	while (rest > budget->rested) {
		if (kthread_should_stop() || !share_runs(share))
			return;
		budget->rested += share_sleep(min(rest - budget->rested,
						  SHARE_LOOK));
		try_to_freeze();
		rest = share_owed(share, budget);
	}
	rested = budget->rested;
	memset(budget, 0, sizeof(*budget));
	/* Make up for the timer, not for a host that has no time for this. */
	budget->rested = min(rested - rest, 2 * TICK_NSEC);
}

static void share_pass(struct share_pool *share)
{
	struct kvm_dmm_pool *pool = share->policy->pool;
	struct share_budget budget = {};
	pgoff_t index = 0, base;
	bool begun;
	u64 begin;

	mutex_lock(&share->work_mutex);
	begun = share_begin_pass(share);
	mutex_unlock(&share->work_mutex);
	if (!begun) {
		share_sleep(SHARE_LOOK);
		return;
	}
	while (kvm_dmm_next_region(pool, &index, ULONG_MAX)) {
		if (kthread_should_stop() || !share_runs(share) ||
		    share_safe(share) != !!share->fresh)
			return;
		base = round_down(index, KVM_DMM_REGION_PAGES);
		begin = ktime_get_ns();
		mutex_lock(&share->work_mutex);
		if (share_runs(share))
			share_scan_region(share, base);
		mutex_unlock(&share->work_mutex);
		budget.worked += ktime_get_ns() - begin;
		budget.pages += KVM_DMM_REGION_PAGES;
		share_pace(share, &budget);
		index = base + KVM_DMM_REGION_PAGES;
		try_to_freeze();
		cond_resched();
	}
	share_count(share, SHARE_COUNT_passes);
	share_sweep();
	/* Also if there is next to nothing to look at. */
	share_sleep(SHARE_PAUSE * NSEC_PER_MSEC);
}

static int share_worker(void *data)
{
	struct share_pool *share = data;

	set_user_nice(current, SHARE_NICE);
	set_freezable();
	while (!kthread_should_stop()) {
		/* A pass of a pool that has nothing sees to it nowhere. */
		try_to_freeze();
		if (share_runs(share)) {
			share_pass(share);
			continue;
		}
		set_current_state(TASK_INTERRUPTIBLE);
		if (!kthread_should_stop() && !share_runs(share))
			schedule_timeout(nsecs_to_jiffies(SHARE_LOOK));
		__set_current_state(TASK_RUNNING);
	}
	return 0;
}

static void share_tuned(struct kvm_dmm_policy *policy)
{
	struct share_pool *share = policy->priv;

	WRITE_ONCE(share->stopped, false);
	wake_up_process(share->worker);
}

/*
 * Separate all that is merged, in a pool that was told to rest just now.  Nobody
 * merges more behind the walk::
 *
 *	here			a guest reads		a thread
 *	----			-------------		--------
 *	1. rest			a. entry busy		A. work_mutex
 *	2. work_mutex		b. match: rests?	B. rests?
 *	3. forget records	c. join, not busy	C. merge, unlock
 *	4. walk the entries
 *
 * If b is before 1, so is a, and 4 waits for c.  B is before 2, and 4 sees C, or
 * behind 4.  The thread of another pool finds pages of this one by its records, with
 * the lock of the hash held until they are shared: not behind 3.
 */
static int share_separate(struct share_pool *share)
{
	int r;

	/* 1 before 4, as a is before b. */
	smp_mb();
	mutex_lock(&share->work_mutex);
	share_forget_all(share);
	r = kvm_dmm_unshare(share->policy->pool);
	mutex_unlock(&share->work_mutex);
	return r;
}

/* Looking for more waits for the next number. */
static int share_unmerge(struct kvm_dmm_policy *policy, const char *buf)
{
	struct share_pool *share = policy->priv;
	unsigned int on;

	if (kstrtouint(buf, 0, &on) || on != 1)
		return -EINVAL;
	WRITE_ONCE(share->stopped, true);
	return share_separate(share);
}

static int share_leave(struct kvm_dmm_policy *policy)
{
	struct share_pool *share = policy->priv;
	int r;

	WRITE_ONCE(share->leaving, true);
	r = share_separate(share);
	if (r) {
		WRITE_ONCE(share->leaving, false);
		wake_up_process(share->worker);
	}
	return r;
}

static struct kvm_dmm_shared *share_offer_match(struct kvm_dmm_policy *policy,
						pgoff_t index,
						struct page *page)
{
	struct share_pool *share = policy->priv;
	struct kvm_dmm_shared *shared;
	u64 hash;

	/* Who gets a frame here is slow to write, who gets none is not. */
	if (!share_runs(share) || kvm_dmm_value(policy, SHARE_TIMING_SAFE))
		return NULL;
	hash = share_hash(page, READ_ONCE(share->seed));
	shared = hash == SHARE_ZERO ? NULL : share_match(hash);
	if (shared)
		share_count(share, SHARE_COUNT_brought_back);
	return shared;
}

static int share_attach(struct kvm_dmm_policy *policy)
{
	struct share_pool *share = kzalloc(sizeof(*share), GFP_KERNEL);

	if (!share)
		return -ENOMEM;
	share->policy = policy;
	mutex_init(&share->work_mutex);
	xa_init(&share->regions);
	share->seed = share_seed(policy->pool);
	policy->priv = share;
	share->worker = kthread_create(share_worker, share, "dmm-share/%lu",
				       kvm_dmm_pool_ino(policy->pool));
	if (IS_ERR(share->worker)) {
		kfree(share);
		return -ENOMEM;
	}
	wake_up_process(share->worker);
	return 0;
}

static void share_detach(struct kvm_dmm_policy *policy)
{
	struct share_pool *share = policy->priv;

	kthread_stop(share->worker);
	share_forget_all(share);
	share_fresh_free(share->fresh);
	xa_destroy(&share->regions);
	kfree(share);
	/* A pass that was not over has found frames, too. */
	share_sweep();
}

static const struct kvm_dmm_tunable share_tunables[] = {
	[SHARE_RUN] = { .name = "run", .def = 1, .max = 1 },
	[SHARE_PAGES_PER_SECOND] = { .name = "pages_per_second",
				     .max = U32_MAX },
	[SHARE_MAX_CPU_PERCENT] = { .name = "max_cpu_percent", .def = 20,
				    .min = 1, .max = 100 },
	[SHARE_FULL_SCAN_SECONDS] = { .name = "full_scan_seconds", .def = 120,
				      .max = 86400 },
	[SHARE_BREAK_BLOCKS] = { .name = "break_blocks",
				 .choices = share_break,
				 .def = SHARE_BREAK_PRESSURE },
	[SHARE_TIMING_SAFE] = { .name = "timing_safe", .max = 1 },
	{ .name = "unmerge", .store = share_unmerge },
	{}
};

static struct kvm_dmm_policy_ops share_ops = {
	.name = "share",
	.owner = THIS_MODULE,
	.tunables = share_tunables,
	.counters = share_counters,
	.attach = share_attach,
	.leave = share_leave,
	.detach = share_detach,
	.match = share_offer_match,
	.tuned = share_tuned,
};

static int __init share_init(void)
{
	int r = share_index_init();

	if (r)
		return r;
	r = kvm_dmm_register_policy(&share_ops);
	if (r)
		share_index_exit();
	return r;
}
module_init(share_init);

static void __exit share_exit(void)
{
	kvm_dmm_unregister_policy(&share_ops);
	share_index_exit();
}
module_exit(share_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: equal pages share a frame");
MODULE_ALIAS("kvm-dmm-policy-share");
MODULE_LICENSE("GPL");
