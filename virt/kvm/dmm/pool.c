// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: pools, how much machine memory each guest may use.
 *
 * A fault charges its page first.  At the limit it asks the attached policies
 * to take something out, as direct reclaim does; a worker keeps a distance from
 * the limit, so that this is rare.  A pool whose limit is the size of its file
 * never gets there and is left alone.
 */
#include <linux/ctype.h>
#include <linux/sched/signal.h>
#include <linux/shrinker.h>
#include <linux/swap.h>
#include <trace/events/kvm_dmm.h>

#include "dmm.h"

/*
 * How long an access waits for room in a pool before it fails, unless policies
 * say that some is on its way.
 */
#define DMM_LIMIT_WAIT	HZ
/* The same while policies say that they take something out. */
#define DMM_LIMIT_WAIT_BUSY	(30 * HZ)
/* How often policies are asked without getting a pool nearer to its limit. */
#define DMM_IDLE_ROUNDS	16

/* Protects dmm_pools and nr_shrinking of all pools. */
static DEFINE_MUTEX(dmm_pools_lock);
/* Protects name and domain of all pools; innermost. */
DEFINE_SPINLOCK(dmm_names_lock);
static LIST_HEAD(dmm_pools);

static struct shrinker *dmm_shrinker;
static struct workqueue_struct *dmm_wq;

/**
 * dmm_used - machine memory that a pool uses, in pages
 * @pool: the pool
 *
 * Return: Resident frames and what compressed content takes.
 */
unsigned long dmm_used(struct kvm_dmm_pool *pool)
{
	unsigned long compressed = max(atomic_long_read(&pool->compressed), 0L);

	return atomic_long_read(&pool->resident) + PFN_UP(compressed);
}

/**
 * dmm_max - limit of a pool in pages
 * @pool: the pool
 *
 * Return: What was set; otherwise the size of the file.
 */
unsigned long dmm_max(struct kvm_dmm_pool *pool)
{
	unsigned long max = READ_ONCE(pool->max);

	return max == ULONG_MAX ? dmm_pages(pool) : max;
}

/**
 * kvm_dmm_pool_max - limit of a pool in pages
 * @pool: the pool
 *
 * Context: Any.
 * Return: What was set; otherwise the size of the file.
 */
unsigned long kvm_dmm_pool_max(struct kvm_dmm_pool *pool)
{
	return dmm_max(pool);
}
EXPORT_SYMBOL_GPL(kvm_dmm_pool_max);

/**
 * kvm_dmm_pool_room - how far a pool is below its limit
 * @pool: the pool
 *
 * Context: Any.
 * Return: Pages.
 */
unsigned long kvm_dmm_pool_room(struct kvm_dmm_pool *pool)
{
	return dmm_excess(dmm_max(pool), dmm_used(pool));
}
EXPORT_SYMBOL_GPL(kvm_dmm_pool_room);

/* Have policies make room before somebody has to wait for it. */
static void dmm_watch_margin(struct kvm_dmm_pool *pool, unsigned long used,
			     unsigned long max)
{
	if (READ_ONCE(pool->nr_reclaimers) && used > max - dmm_margin(max) &&
	    READ_ONCE(pool->max) != ULONG_MAX)
		dmm_queue_work(&pool->margin_work);
}

/**
 * dmm_charge_force - charge frames, whatever the limit
 * @pool: the pool
 * @nr: number of frames
 *
 * Context: Any.
 */
void dmm_charge_force(struct kvm_dmm_pool *pool, unsigned long nr)
{
	unsigned long max = dmm_max(pool);

	atomic_long_add(nr, &pool->resident);
	dmm_watch_margin(pool, dmm_used(pool), max);
}

/**
 * dmm_uncharge - give charged frames back
 * @pool: the pool
 * @nr: number of frames
 */
void dmm_uncharge(struct kvm_dmm_pool *pool, unsigned long nr)
{
	if (!nr)
		return;
	atomic_long_add(nr << PAGE_SHIFT, &pool->freed);
	atomic_long_sub(nr, &pool->resident);
	/* wq_has_sleeper() orders the check after the subtraction. */
	if (wq_has_sleeper(&pool->wait))
		wake_up_all(&pool->wait);
}

/**
 * kvm_dmm_charge_compressed - account memory that holds a pool's content
 * @pool: the pool
 * @bytes: more of it, or less if negative
 *
 * Context: Any.
 */
void kvm_dmm_charge_compressed(struct kvm_dmm_pool *pool, long bytes)
{
	if (bytes < 0)
		atomic_long_sub(bytes, &pool->freed);
	atomic_long_add(bytes, &pool->compressed);
	if (bytes < 0 && wq_has_sleeper(&pool->wait))
		wake_up_all(&pool->wait);
}
EXPORT_SYMBOL_GPL(kvm_dmm_charge_compressed);

/**
 * dmm_forget_compressed - no policy keeps content of a pool any more
 * @pool: the pool
 *
 * Return: What policies have left charged by mistake, in bytes.
 */
long dmm_forget_compressed(struct kvm_dmm_pool *pool)
{
	long bytes = atomic_long_xchg(&pool->compressed, 0);

	if (wq_has_sleeper(&pool->wait))
		wake_up_all(&pool->wait);
	return bytes;
}

/* Charge if the limit allows. */
static bool dmm_try_charge(struct kvm_dmm_pool *pool, unsigned long nr)
{
	unsigned long used, max = dmm_max(pool);

	atomic_long_add(nr, &pool->resident);
	used = dmm_used(pool);
	if (unlikely(used > max)) {
		/* Two that fail each other here try again after reclaim. */
		atomic_long_sub(nr, &pool->resident);
		return false;
	}
	dmm_watch_margin(pool, used, max);
	return true;
}

/*
 * Ask one policy.  It counts what it has taken out, but no more is believed than
 * what came free meanwhile: callers go on as long as something does.
 */
static void dmm_reclaim_by(struct kvm_dmm_policy *policy,
			   struct kvm_dmm_reclaim *rc)
{
	unsigned long before = atomic_long_read(&policy->pool->freed);
	struct kvm_dmm_reclaim was = *rc;
	unsigned long freed;
	int r;

	r = policy->ops->reclaim(policy, rc);
	freed = atomic_long_read(&policy->pool->freed) - before;
	was.nr_done += min(dmm_excess(rc->nr_done, was.nr_done), PFN_UP(freed));
	was.nr_pending = rc->nr_pending;
	was.nr_scan = min(rc->nr_scan, was.nr_scan);
	*rc = was;
	if (r)
		dmm_eject(policy, "reclaim", r);
}

/* Ask the policies in turn, until one has taken out what was left. */
static void dmm_reclaim_all(struct kvm_dmm_pool *pool,
			    struct kvm_dmm_reclaim *rc)
{
	struct kvm_dmm_policy *policy;
	int idx;

	if (!READ_ONCE(pool->nr_reclaimers))
		return;
	idx = srcu_read_lock(&pool->policy_srcu);
	list_for_each_entry_srcu(policy, &pool->policies, link,
				 srcu_read_lock_held(&pool->policy_srcu)) {
		if (!policy->ops->reclaim || READ_ONCE(policy->ejected) ||
		    READ_ONCE(policy->draining))
			continue;
		dmm_reclaim_by(policy, rc);
		if (rc->nr_done >= rc->nr_pages)
			break;
	}
	srcu_read_unlock(&pool->policy_srcu, idx);
	this_cpu_add(pool->stats->count[DMM_STAT_reclaim], rc->nr_done);
	trace_kvm_dmm_reclaim(pool, rc->reason, rc->nr_pages, rc->nr_done);
}

/*
 * Is a policy that makes room being detached?  It is not asked meanwhile, and then
 * has given all back, or stays and is asked again: as if something were on its way.
 */
static bool dmm_draining(struct kvm_dmm_pool *pool)
{
	struct kvm_dmm_policy *policy;
	bool draining = false;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	list_for_each_entry_srcu(policy, &pool->policies, link,
				 srcu_read_lock_held(&pool->policy_srcu))
		draining |= policy->ops->reclaim && READ_ONCE(policy->draining);
	srcu_read_unlock(&pool->policy_srcu, idx);
	return draining;
}

static int dmm_charge_slow(struct kvm_dmm_pool *pool, unsigned long nr,
			   unsigned int flags, const u64 *entry, u64 e)
{
	/*
	 * While a policy goes nobody makes room, and accesses that need a page wait
	 * for what becomes of that: who wants it to go gives up soon.
	 */
	const bool detach = flags & DMM_DETACH;
	const unsigned long patience = detach ? DMM_LIMIT_WAIT / 4 :
						DMM_LIMIT_WAIT;
	unsigned long end = jiffies + patience, latest = jiffies;
	unsigned long used, least = ULONG_MAX;
	struct kvm_dmm_reclaim rc;
	long freed, before;
	DEFINE_WAIT(wait);
	int state, r = 0;

	if (flags & DMM_SPARE)
		return -EBUSY;
	/*
	 * Without a limit nothing is refused.  There are never more frames than
	 * the file has pages: what is above its size is what policies keep, which
	 * they give up if they can.
	 */
	if (READ_ONCE(pool->max) == ULONG_MAX) {
		dmm_reclaim(pool, max(nr, DMM_RECLAIM_BATCH), 0, ULONG_MAX,
			    KVM_DMM_RECLAIM_LIMIT);
		if (!dmm_try_charge(pool, nr))
			dmm_charge_force(pool, nr);
		return 0;
	}
	if (flags & DMM_NOWAIT) {
		/* To make room waits for no device. */
		dmm_reclaim(pool, max(nr, DMM_RECLAIM_BATCH), 0, ULONG_MAX,
			    KVM_DMM_RECLAIM_LIMIT);
		return dmm_try_charge(pool, nr) ? 0 : -EBUSY;
	}
	state = flags & DMM_INTR ? TASK_INTERRUPTIBLE : TASK_KILLABLE;
	before = atomic_long_read(&pool->freed);
	for (;;) {
		rc = (struct kvm_dmm_reclaim) {
			.reason = KVM_DMM_RECLAIM_LIMIT,
			.last = ULONG_MAX,
			.nr_pages = max(nr, DMM_RECLAIM_BATCH),
			.nr_scan = ULONG_MAX,
		};
		dmm_reclaim_all(pool, &rc);
		/* What a device has to write first comes free later. */
		freed = atomic_long_read(&pool->freed);
		if (rc.nr_done || freed != before) {
			before = freed;
			if (dmm_try_charge(pool, nr))
				break;
			/*
			 * It goes on: a limit far below takes its time.  But
			 * what only comes and goes is not waited for without end.
			 */
			used = dmm_used(pool);
			if (used < least) {
				least = used;
				latest = jiffies + DMM_LIMIT_WAIT_BUSY;
			}
			if (time_before(jiffies, latest))
				end = jiffies + patience;
		}
		/*
		 * However long the device does not answer.  But nobody can kill a
		 * worker: the guest whose asynchronous page fault it is comes
		 * again, and waits itself.
		 */
		if ((rc.nr_pending || (!detach && dmm_draining(pool))) &&
		    !(current->flags & PF_KTHREAD))
			end = jiffies + DMM_LIMIT_WAIT;
		prepare_to_wait(&pool->wait, &wait, state);
		if (dmm_try_charge(pool, nr))
			break;
		/*
		 * Of two that want the last frame below the limit for one entry
		 * the first has got it: the other needs none any more.
		 */
		if (entry && READ_ONCE(*entry) != e) {
			r = -EAGAIN;
			break;
		}
		if (signal_pending_state(state, current)) {
			r = -EINTR;
			break;
		}
		if (time_after_eq(jiffies, end)) {
			/* With some on its way no access has failed: see above. */
			if (!rc.nr_pending && !detach && !dmm_draining(pool))
				dmm_count(pool, DMM_STAT_limit_failed);
			r = -ENOMEM;
			break;
		}
		dmm_count(pool, DMM_STAT_limit_wait);
		schedule_timeout(DMM_LIMIT_WAIT / 10);
		finish_wait(&pool->wait, &wait);
	}
	finish_wait(&pool->wait, &wait);
	return r;
}

/**
 * dmm_charge - charge frames that are about to be allocated
 * @pool: the pool
 * @nr: number of frames
 * @flags: DMM_NOWAIT, DMM_SPARE, DMM_INTR, DMM_FORCE, DMM_DETACH
 * @entry: the entry that the frame is for, or NULL
 * @e: its value: wait no longer than it has this one
 *
 * Context: May sleep; no busy bit is held.
 * Return: 0; -EAGAIN: the entry has changed; -EBUSY: with DMM_NOWAIT or
 *	DMM_SPARE at the limit; -EINTR; -ENOMEM: nothing came free for a second,
 *	or is on its way.
 */
int dmm_charge(struct kvm_dmm_pool *pool, unsigned long nr, unsigned int flags,
	       const u64 *entry, u64 e)
{
	if (likely(dmm_try_charge(pool, nr)))
		return 0;
	if (flags & DMM_FORCE) {
		dmm_charge_force(pool, nr);
		return 0;
	}
	return dmm_charge_slow(pool, nr, flags, entry, e);
}

/**
 * dmm_reclaim - have the policies take memory out of a pool
 * @pool: the pool
 * @nr: how many pages
 * @first: first page offset that may be taken
 * @last: last page offset that may be taken
 * @reason: why
 *
 * Context: May sleep; no busy bit is held.
 * Return: The number of pages that came free.
 */
unsigned long dmm_reclaim(struct kvm_dmm_pool *pool, unsigned long nr,
			  pgoff_t first, pgoff_t last,
			  enum kvm_dmm_reason reason)
{
	struct kvm_dmm_reclaim rc = {
		.reason = reason,
		.first = first,
		.last = last,
		.nr_pages = nr,
		.nr_scan = ULONG_MAX,
	};

	dmm_reclaim_all(pool, &rc);
	return rc.nr_done;
}

/**
 * dmm_host_room - have policies make room, as the host or a control group has none
 * @pool: the pool
 * @state: task state to wait in for what a device has to write first
 * @detach: for a policy that is being detached
 *
 * Context: May sleep for DMM_LIMIT_WAIT / DMM_HOST_TRIES; no busy bit is held.
 * Return: 0: try again; -ENOMEM: they can do nothing; -EINTR.
 */
int dmm_host_room(struct kvm_dmm_pool *pool, int state, bool detach)
{
	struct kvm_dmm_reclaim rc = {
		.reason = KVM_DMM_RECLAIM_HOST,
		.last = ULONG_MAX,
		.nr_pages = DMM_RECLAIM_BATCH,
		.nr_scan = ULONG_MAX,
	};
	DEFINE_WAIT(wait);
	int r = 0;

	dmm_reclaim_all(pool, &rc);
	if (rc.nr_done)
		return 0;
	if (!rc.nr_pending && (detach || !dmm_draining(pool)))
		return -ENOMEM;
	prepare_to_wait(&pool->wait, &wait, state);
	if (signal_pending_state(state, current))
		r = -EINTR;
	else
		schedule_timeout(DMM_LIMIT_WAIT / DMM_HOST_TRIES);
	finish_wait(&pool->wait, &wait);
	return r;
}

/* What a pool uses above its limit, or above the distance kept from it. */
static unsigned long dmm_above(struct kvm_dmm_pool *pool,
			       enum kvm_dmm_reason reason)
{
	unsigned long max = dmm_max(pool);

	if (reason == KVM_DMM_RECLAIM_MARGIN)
		max -= dmm_margin(max);
	return dmm_excess(dmm_used(pool), max);
}

/*
 * Have all of that taken out.  Policies may bring back what they take out, or
 * guests may: stop when it does not become less.
 *
 * Return: 0, -EBUSY, -EINTR.
 */
static int dmm_reclaim_above(struct kvm_dmm_pool *pool,
			     enum kvm_dmm_reason reason)
{
	unsigned long above, least = ULONG_MAX;
	unsigned int idle = 0;

	while ((above = dmm_above(pool, reason))) {
		if (above < least) {
			least = above;
			idle = 0;
		} else if (++idle == DMM_IDLE_ROUNDS) {
			return -EBUSY;
		}
		if (signal_pending(current))
			return -EINTR;
		if (!dmm_reclaim(pool, above, 0, ULONG_MAX, reason))
			return -EBUSY;
		cond_resched();
	}
	return 0;
}

static void dmm_margin_work(struct work_struct *work)
{
	dmm_reclaim_above(container_of(work, struct kvm_dmm_pool, margin_work),
			  KVM_DMM_RECLAIM_MARGIN);
}

/**
 * dmm_set_max - change the limit of a pool
 * @pool: the pool
 * @max: pages; ULONG_MAX: the size of the file
 *
 * Context: May sleep.
 * Return: 0; -EINVAL: below the guarantee; -EBUSY: the policies cannot take
 *	enough out; -EINTR.  On error the limit is as before, but raised if the
 *	caller is killed while it raises it.
 */
int dmm_set_max(struct kvm_dmm_pool *pool, unsigned long max)
{
	unsigned long old;
	int r;

	/*
	 * Room that is given helps at once, also a request for less that is being
	 * worked on, or a domain that wants copies:
	 *
	 *	lowers				raises
	 *	------				------
	 *	1. lock, less
	 *	2. take out what is above
	 *					a. more
	 *	3. nothing is above: unlock
	 *					b. lock, more
	 *
	 * If 2 fails behind a, it sets what was before 1, and b sets more again.
	 */
	if (max > READ_ONCE(pool->max)) {
		WRITE_ONCE(pool->max, max);
		wake_up_all(&pool->wait);
	}
	if (mutex_lock_killable(&pool->limit_mutex))
		return -EINTR;
	old = pool->max;
	if (max < pool->min) {
		r = -EINVAL;
		goto unlock;
	}
	/* Set first, so that no fault takes what is being freed. */
	WRITE_ONCE(pool->max, max);
	r = max < old ? dmm_reclaim_above(pool, KVM_DMM_RECLAIM_USER) : 0;
	if (r)
		WRITE_ONCE(pool->max, old);
	wake_up_all(&pool->wait);
unlock:
	mutex_unlock(&pool->limit_mutex);
	return r;
}

/**
 * dmm_set_min - change what a pool is guaranteed
 * @pool: the pool
 * @min: pages
 *
 * Return: 0; -EINVAL: above the limit; -EINTR: killed while another change of
 *	the pool was being made.
 */
int dmm_set_min(struct kvm_dmm_pool *pool, unsigned long min)
{
	int r = 0;

	if (mutex_lock_killable(&pool->limit_mutex))
		return -EINTR;
	if (min > dmm_max(pool))
		r = -EINVAL;
	else
		WRITE_ONCE(pool->min, min);
	mutex_unlock(&pool->limit_mutex);
	return r;
}

/**
 * dmm_valid_domain - is this the name of a sharing domain?
 * @domain: up to KVM_DMM_NAME_MAX letters, digits, "-" and "_"; empty: none
 *
 * Return: True if it is one.
 */
bool dmm_valid_domain(const char *domain)
{
	if (strnlen(domain, KVM_DMM_NAME_MAX + 1) > KVM_DMM_NAME_MAX)
		return false;
	for (; *domain; domain++)
		if (!isascii(*domain) ||
		    (!isalnum(*domain) && *domain != '-' && *domain != '_'))
			return false;
	return true;
}

static void dmm_write_domain(struct kvm_dmm_pool *pool, const char *domain,
			     bool moving)
{
	spin_lock(&dmm_names_lock);
	strscpy(pool->domain, domain, sizeof(pool->domain));
	pool->moving = moving;
	spin_unlock(&dmm_names_lock);
}

/**
 * dmm_set_domain - put a pool into a sharing domain
 * @pool: the pool
 * @domain: the name, with or without newline; empty: none but itself
 *
 * Frames that policies have it share with other pools are separated.  Clones
 * were asked for: frames that they share without a list of users stay so.
 *
 * Context: May sleep.
 * Return: 0; -EINVAL: not a name; -ENOSPC: the copies do not fit below the
 *	limit; -EINTR.  On error the domain is as before.
 */
int dmm_set_domain(struct kvm_dmm_pool *pool, const char *domain)
{
	char name[KVM_DMM_NAME_MAX + 2], old[KVM_DMM_NAME_MAX + 1];
	int r = 0;

	if (strscpy(name, domain) < 0)
		return -EINVAL;
	if (*name && name[strlen(name) - 1] == '\n')
		name[strlen(name) - 1] = 0;
	if (!dmm_valid_domain(name))
		return -EINVAL;
	if (mutex_lock_killable(&pool->limit_mutex))
		return -EINTR;
	strscpy(old, pool->domain);
	if (strcmp(name, old)) {
		/* Out of the old one first: then nobody joins any more. */
		dmm_write_domain(pool, "", true);
		r = dmm_unshare(pool, true);
		dmm_write_domain(pool, r ? old : name, false);
	}
	mutex_unlock(&pool->limit_mutex);
	return r;
}

/**
 * kvm_dmm_pool_domain - the sharing domain of a pool
 * @pool: the pool
 * @domain: out: KVM_DMM_NAME_MAX + 1 characters; "": none but itself
 *
 * Context: Any.
 */
void kvm_dmm_pool_domain(struct kvm_dmm_pool *pool, char *domain)
{
	spin_lock(&dmm_names_lock);
	memcpy(domain, pool->domain, sizeof(pool->domain));
	spin_unlock(&dmm_names_lock);
}
EXPORT_SYMBOL_GPL(kvm_dmm_pool_domain);

/* Has the host less than 1/16 of its memory left? */
static bool dmm_host_short(void)
{
	return si_mem_available() < totalram_pages() / 16;
}

/**
 * kvm_dmm_short - is memory short, for a pool or for the host?
 * @pool: the pool
 *
 * Context: Any.
 * Return: True if the pool is close to its limit, or the host has less than
 *	1/16 of its memory left.
 */
bool kvm_dmm_short(struct kvm_dmm_pool *pool)
{
	unsigned long max = dmm_max(pool);

	if (READ_ONCE(pool->max) != ULONG_MAX &&
	    dmm_used(pool) > max - dmm_margin(max))
		return true;
	return dmm_host_short();
}
EXPORT_SYMBOL_GPL(kvm_dmm_short);

/* Memory that pressure from others may take out of a pool. */
static unsigned long dmm_pool_spare(struct kvm_dmm_pool *pool)
{
	if (!READ_ONCE(pool->nr_reclaimers))
		return 0;
	return min_t(unsigned long, atomic_long_read(&pool->resident),
		     dmm_spare(dmm_used(pool), READ_ONCE(pool->min)));
}

/* Pages that pressure is told of. */
#define DMM_SHRINK_MAX		(4UL << (30 - PAGE_SHIFT))
/* Pools with pages on their way that one call asks. */
#define DMM_SHRINK_PENDING	8U
/*
 * Pages that one call looks at, 8 GiB, or this part of all: an allocation waits for
 * it, or kswapd, which then does nothing else.  Twice as many after each call in vain:
 * whoever is short calls a dozen times before something is killed, and by then what
 * is in use in all pools must have been found out.
 */
#define DMM_SHRINK_SCAN		(8UL << (30 - PAGE_SHIFT))
#define DMM_SHRINK_PART		8
#define DMM_SHRINK_VAIN		10U	/* times that it doubles at most */

/* Calls in vain, and when the last one was; protected by dmm_pools_lock. */
static unsigned int dmm_shrink_vain;
static unsigned long dmm_shrink_last;

static unsigned long dmm_shrink_count(struct shrinker *shrinker,
				      struct shrink_control *sc)
{
	struct kvm_dmm_pool *pool;
	unsigned long n = 0;

	/*
	 * Frames are of any node.  For one that is short, where others have memory,
	 * kswapd would go on until no pool has anything left to give.
	 */
	if (nr_online_nodes > 1 && current_is_kswapd() && !dmm_host_short())
		return SHRINK_EMPTY;
	if (!mutex_trylock(&dmm_pools_lock))
		return 0;
	list_for_each_entry(pool, &dmm_pools, link)
		n += dmm_pool_spare(pool);
	mutex_unlock(&dmm_pools_lock);
	/*
	 * The kernel wants a part of what there is, at once: 1/32 if it believes to
	 * be short, for which a large host could be without some MiB only.
	 */
	return min(n, DMM_SHRINK_MAX) ?: SHRINK_EMPTY;
}

static unsigned long dmm_shrink_scan(struct shrinker *shrinker,
				     struct shrink_control *sc)
{
	struct kvm_dmm_reclaim rc = {};
	unsigned long nr, scan = 0, tries = 0;
	struct kvm_dmm_pool *pool;
	unsigned int pending = 0;

	/* Policies allocate with GFP_NOIO, so they never come back here. */
	if ((sc->gfp_mask & (__GFP_IO | __GFP_FS)) != (__GFP_IO | __GFP_FS))
		return SHRINK_STOP;
	if (!mutex_trylock(&dmm_pools_lock))
		return SHRINK_STOP;
	list_for_each_entry(pool, &dmm_pools, link) {
		scan += dmm_pool_spare(pool) / DMM_SHRINK_PART;
		tries++;
	}
	/* Who is short calls again at once. */
	if (time_after(jiffies, dmm_shrink_last + HZ))
		dmm_shrink_vain = 0;
	rc.nr_scan = max(scan, DMM_SHRINK_SCAN) << dmm_shrink_vain;
	/*
	 * Where a device has to write first some may come free later: not all pools
	 * have to have something written, nor must a device that hangs end this.
	 */
	while (!rc.nr_done && rc.nr_scan && pending < DMM_SHRINK_PENDING &&
	       tries-- && !list_empty(&dmm_pools)) {
		/* The next time somebody else gives. */
		pool = list_first_entry(&dmm_pools, struct kvm_dmm_pool, link);
		list_move_tail(&pool->link, &dmm_pools);
		nr = min(dmm_pool_spare(pool), sc->nr_to_scan);
		if (!nr)
			continue;
		/*
		 * A policy may take its time: leave the list to others.  The
		 * count keeps the pool alive, see dmm_pool_del().
		 */
		pool->nr_shrinking++;
		mutex_unlock(&dmm_pools_lock);
		rc = (struct kvm_dmm_reclaim) {
			.reason = KVM_DMM_RECLAIM_HOST,
			.last = ULONG_MAX,
			.nr_pages = nr,
			.nr_scan = rc.nr_scan,
		};
		dmm_reclaim_all(pool, &rc);
		pending += !!rc.nr_pending;
		mutex_lock(&dmm_pools_lock);
		WRITE_ONCE(pool->nr_shrinking, pool->nr_shrinking - 1);
		/*
		 * dmm_pool_del() waits without the lock.  Without the barrier each
		 * could miss the other:
		 *
		 *	here				dmm_pool_del()
		 *	1. store the count		a. queue itself
		 *	2. look for who waits		b. read the count
		 */
		smp_mb();
		if (!pool->nr_shrinking)
			wake_up_var(&pool->nr_shrinking);
	}
	dmm_shrink_vain = rc.nr_done || pending ? 0 :
			  min(dmm_shrink_vain + 1, DMM_SHRINK_VAIN);
	dmm_shrink_last = jiffies;
	mutex_unlock(&dmm_pools_lock);
	/* They are no slab objects, of which the kernel would count the pages. */
	mm_account_reclaimed_pages(rc.nr_done);
	return rc.nr_done ?: SHRINK_STOP;
}

/**
 * dmm_pool_init - set up what a pool needs to count and to wait
 * @pool: the pool, zeroed
 */
void dmm_pool_init(struct kvm_dmm_pool *pool)
{
	pool->max = ULONG_MAX;
	pool->vm_failed = ULONG_MAX;
	mutex_init(&pool->limit_mutex);
	init_waitqueue_head(&pool->wait);
	INIT_WORK(&pool->margin_work, dmm_margin_work);
}

/**
 * dmm_pool_add - let pressure on the host find a pool
 * @pool: the pool, complete
 */
void dmm_pool_add(struct kvm_dmm_pool *pool)
{
	mutex_lock(&dmm_pools_lock);
	list_add_tail(&pool->link, &dmm_pools);
	mutex_unlock(&dmm_pools_lock);
}

/**
 * dmm_pool_del - take a pool back that dmm_pool_add() may have got
 * @pool: the pool
 *
 * Context: May sleep, as long as its policies are being asked for memory.
 */
void dmm_pool_del(struct kvm_dmm_pool *pool)
{
	mutex_lock(&dmm_pools_lock);
	list_del_init(&pool->link);
	while (pool->nr_shrinking) {
		mutex_unlock(&dmm_pools_lock);
		wait_var_event(&pool->nr_shrinking,
			       !READ_ONCE(pool->nr_shrinking));
		/* Whoever woke us has the lock until then. */
		mutex_lock(&dmm_pools_lock);
	}
	mutex_unlock(&dmm_pools_lock);
}

/**
 * dmm_queue_work - run work of a pool in the background
 * @work: the work
 */
void dmm_queue_work(struct work_struct *work)
{
	queue_work(dmm_wq, work);
}

int kvm_dmm_pool_init(void)
{
	dmm_wq = alloc_workqueue("kvm_dmm", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!dmm_wq)
		return -ENOMEM;
	dmm_shrinker = shrinker_alloc(0, "kvm-dmm");
	if (!dmm_shrinker) {
		destroy_workqueue(dmm_wq);
		return -ENOMEM;
	}
	dmm_shrinker->count_objects = dmm_shrink_count;
	dmm_shrinker->scan_objects = dmm_shrink_scan;
	shrinker_register(dmm_shrinker);
	return 0;
}

void kvm_dmm_pool_exit(void)
{
	shrinker_free(dmm_shrinker);
	destroy_workqueue(dmm_wq);
}
