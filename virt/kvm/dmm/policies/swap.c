// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the swap policy.
 *
 * DOC: A guest that is bigger than its pool
 *
 * When memory is wanted, the hand of swap_age.h goes on round the regions of
 * the pool, and pages that have been idle move to the store of swap_store.c, as
 * tokens, from where an access brings them back.  What has to be written to a
 * file or device goes when that is done, see swap_write.c.
 */
#include <linux/ctype.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "../limit.h"
#include "swap.h"

#define CREATE_TRACE_POINTS
#include <trace/events/kvm_dmm_swap.h>

/* Entries that are busy at once: a guest that touches one waits for all. */
#define DMM_SWAP_CHUNK	64U

/* Same-filled pages that come back with one exit. */
#define DMM_SAME_MAX	32U

static const char * const dmm_swap_compressors[] = { "lz4", "zstd", NULL };

static ssize_t backing_show(struct kvm_dmm_policy *policy, char *buf)
{
	struct dmm_swap *swap = policy->priv;

	return dmm_store_show_backing(&swap->store, buf);
}

static int backing_store(struct kvm_dmm_policy *policy, const char *buf)
{
	struct dmm_swap *swap = policy->priv;
	char *path = kstrdup(buf, GFP_KERNEL);
	int r;

	if (!path)
		return -ENOMEM;
	path[strcspn(path, "\n")] = 0;
	r = dmm_store_set_backing(&swap->store, path);
	kfree(path);
	return r;
}

/* What the pool has in its backing. */
static ssize_t backing_bytes_show(struct kvm_dmm_policy *policy, char *buf)
{
	struct dmm_swap *swap = policy->priv;
	u64 slots = atomic_long_read(&swap->store.nr_slots);

	return sysfs_emit(buf, "%llu\n", slots << PAGE_SHIFT);
}

static int writeback_store(struct kvm_dmm_policy *policy, const char *buf)
{
	u64 bytes;
	int r;

	r = dmm_parse_size(buf, &bytes);
	if (r)
		return r;
	return dmm_writeback(policy->priv, bytes >> PAGE_SHIFT,
			     MAX_SCHEDULE_TIMEOUT);
}

static const struct kvm_dmm_tunable dmm_swap_tunables[] = {
	[DMM_SWAP_COMPRESSOR] = {
		.name = "compressor",
		.choices = dmm_swap_compressors,
		.def = DMM_LZ4,
	},
	[DMM_SWAP_MAX_COMPRESSED] = {
		.name = "max_compressed_percent",
		.def = 80,
		.max = 100,
	},
	[DMM_SWAP_COLD_AFTER_MS] = {
		.name = "cold_after_ms",
		.max = 24 * 60 * 60 * 1000,
	},
	[DMM_SWAP_PAGES_PER_SECOND] = {
		.name = "pages_per_second",
		.def = 25600,
		.max = 1 << 30,
	},
	[DMM_SWAP_REFAULTS_PER_SECOND] = {
		.name = "refaults_per_second",
		.def = 100,
		.max = 1 << 30,
	},
	{ .name = "backing", .show = backing_show, .store = backing_store },
	{ .name = "backing_bytes", .show = backing_bytes_show },
	{ .name = "writeback", .store = writeback_store },
	{}
};

static const char * const dmm_swap_counters[] = {
#define DMM_SWAP_STAT_NAME(name) #name,
	DMM_SWAP_STATS(DMM_SWAP_STAT_NAME)
#undef DMM_SWAP_STAT_NAME
	NULL
};

static struct kmem_cache *dmm_swap_region_cache;

/**
 * dmm_swap_nr - number of a page in its region
 * @index: page offset
 *
 * Return: The number.
 */
unsigned int dmm_swap_nr(pgoff_t index)
{
	return index & (KVM_DMM_REGION_PAGES - 1);
}

/**
 * dmm_swap_region - what is known about the pages around one
 * @swap: the policy in the pool
 * @index: page offset
 *
 * Context: Any.
 * Return: The region, which stays, or NULL.
 */
struct dmm_swap_region *dmm_swap_region(struct dmm_swap *swap, pgoff_t index)
{
	return xa_load(&swap->regions, index / KVM_DMM_REGION_PAGES);
}

/* The same, made if need be; NULL without memory. */
static struct dmm_swap_region *dmm_swap_region_get(struct dmm_swap *swap,
						   pgoff_t index)
{
	struct dmm_swap_region *region = dmm_swap_region(swap, index), *old;

	if (region)
		return region;
	region = kmem_cache_zalloc(dmm_swap_region_cache, DMM_SWAP_GFP);
	if (!region)
		return NULL;
	old = xa_cmpxchg(&swap->regions, index / KVM_DMM_REGION_PAGES, NULL,
			 region, DMM_SWAP_GFP);
	if (!old)
		return region;
	kmem_cache_free(dmm_swap_region_cache, region);
	return xa_is_err(old) ? NULL : old;
}

static void dmm_swap_cold_work(struct work_struct *work);

/*
 * Stands still while the host hibernates: what is in a backing is to be what the
 * image of the host believes to be there.
 */
struct workqueue_struct *dmm_swap_wq;

static int dmm_swap_attach(struct kvm_dmm_policy *policy)
{
	struct dmm_swap *swap = kzalloc(sizeof(*swap), GFP_KERNEL_ACCOUNT);
	int r;

	if (!swap)
		return -ENOMEM;
	r = dmm_store_init(&swap->store, policy);
	if (r) {
		kfree(swap);
		return r;
	}
	mutex_init(&swap->writeback_lock);
	INIT_WORK(&swap->writeback_work, dmm_writeback_work);
	spin_lock_init(&swap->lock);
	xa_init(&swap->regions);
	policy->priv = swap;
	INIT_DELAYED_WORK(&swap->copies_work, dmm_copies_work);
	INIT_DEFERRABLE_WORK(&swap->cold_work, dmm_swap_cold_work);
	swap->cold_last = ktime_get();
	queue_delayed_work(dmm_swap_wq, &swap->cold_work, HZ);
	return 0;
}

static void dmm_swap_detach(struct kvm_dmm_policy *policy)
{
	struct dmm_swap *swap = policy->priv;
	struct dmm_swap_region *region;
	unsigned long i;

	/* It takes nothing out any more, as the core refuses. */
	cancel_delayed_work_sync(&swap->cold_work);
	cancel_work_sync(&swap->writeback_work);
	dmm_store_drain(&swap->store);
	cancel_delayed_work_sync(&swap->copies_work);
	xa_for_each(&swap->regions, i, region)
		kmem_cache_free(dmm_swap_region_cache, region);
	xa_destroy(&swap->regions);
	dmm_store_exit(&swap->store);
	kfree(swap);
}

/*
 * Same-filled pages that a guest touches in sequence: to bring one back takes so
 * little that what counts are the guest's exits.  So more and more come with
 * one; what is compressed does not, as to have guessed wrong would cost more.
 */
static void dmm_swap_fetch_around(struct kvm_dmm_policy *policy, u64 token,
				  struct kvm_dmm_around *around)
{
	struct dmm_swap *swap = policy->priv;
	unsigned int nr = 1;

	if (!dmm_store_is_same(token))
		return;
	if (around->index == READ_ONCE(swap->same_next))
		nr = clamp(READ_ONCE(swap->same_nr) * 2, 1U, DMM_SAME_MAX);
	around->last = min(around->index + nr - 1,
			   around->index | (KVM_DMM_REGION_PAGES - 1));
	WRITE_ONCE(swap->same_next, around->last + 1);
	WRITE_ONCE(swap->same_nr, nr);
}

static int dmm_swap_fetch(struct kvm_dmm_policy *policy, u64 token,
			  struct page *page, unsigned int flags)
{
	struct dmm_swap *swap = policy->priv;
	struct dmm_swap_region *region = dmm_swap_region(swap, page->index);
	unsigned int i = dmm_swap_nr(page->index);
	bool active;
	int r;

	if ((flags & KVM_DMM_FETCH_AROUND) && !dmm_store_is_same(token))
		return -EAGAIN;
	r = dmm_store_fetch(&swap->store, token, page, flags);
	trace_kvm_dmm_swap_in(policy->pool, page->index,
			      dmm_store_in_memory(token), flags, r);
	if (r < 0)
		return r;
	if (r && !dmm_store_in_memory(token)) {
		region = dmm_swap_region_get(swap, page->index);
		if (region)
			set_bit(i, region->copied);
	}
	if (!region)
		return r;
	/* Whatever the token was: what had set the bit may have gone with a hole. */
	clear_bit(i, region->packed);
	if (READ_ONCE(swap->writeback_by) == current)
		return r;
	spin_lock(&swap->lock);
	if (flags & (KVM_DMM_FETCH_PROCESS | KVM_DMM_FETCH_AROUND)) {
		/*
		 * Migration and dumps read everything once, and what came with
		 * another page was not accessed: that says nothing about what
		 * the guest uses.  Let the page go in the next revolution,
		 * unless the guest has accessed it by then.
		 */
		dmm_age_become(&swap->age, &region->state[i], DMM_AGE_INACTIVE);
		region->idle[i] = DMM_COLD_MAX;
		active = false;
	} else {
		active = dmm_age_returned(&swap->age, &region->state[i],
					  region->evicted[i]);
		region->idle[i] = 0;
		swap->nr_refaults++;
	}
	if (r && dmm_store_in_memory(token))
		region->state[i] |= DMM_AGE_KEPT;
	spin_unlock(&swap->lock);
	if (!(flags & KVM_DMM_FETCH_AROUND))
		kvm_dmm_policy_count(policy, DMM_SWAP_refault, 1);
	if (active)
		kvm_dmm_policy_count(policy, DMM_SWAP_refault_active, 1);
	return r;
}

static void dmm_swap_free_token(struct kvm_dmm_policy *policy, u64 token)
{
	struct dmm_swap *swap = policy->priv;

	dmm_store_free(&swap->store, token);
}

static int dmm_swap_dup_token(struct kvm_dmm_policy *policy, u64 token,
			      struct kvm_dmm_policy *to, pgoff_t index,
			      u64 *new)
{
	struct dmm_swap *swap = policy->priv, *other = to->priv;
	struct dmm_swap_region *region;
	int r;

	r = dmm_store_dup(&swap->store, token, &other->store, new);
	if (r || !dmm_store_in_memory(token) || dmm_store_is_same(token))
		return r;
	/*
	 * A hint, without which it is compressed until somebody wants it: if
	 * there is no memory, or dmm_writeback_fetch() comes before the entry
	 * has the token.  If the entry never gets it, that clears the hint.
	 */
	region = dmm_swap_region_get(other, index);
	if (region)
		set_bit(dmm_swap_nr(index), region->packed);
	return 0;
}

/**
 * struct dmm_visit - what the hand does in a region
 * @swap: the policy in the pool
 * @rc: what the core wants
 * @writer: what goes to the backing
 * @wait: wait for the backing, if that is what it takes
 * @region: the region
 * @base: page offset of its first page
 * @go: pages that go
 * @shared: of these, shared frames
 * @drop: pages that stay, but not their copies
 * @cold: passes after which a page is cold, if that is what is looked for
 * @all: take what is in use, too
 * @full: nothing can be stored
 * @crowded: pages that the backing had no time for
 */
struct dmm_visit {
	struct dmm_swap *swap;
	struct kvm_dmm_reclaim *rc;
	struct dmm_writer writer;
	bool wait;
	struct dmm_swap_region *region;
	pgoff_t base;
	DECLARE_BITMAP(go, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(shared, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(drop, KVM_DMM_REGION_PAGES);
	unsigned int cold;
	bool all;
	bool full;
	unsigned int crowded;
};

/*
 * Who does not wait for the backing tries others, which may take no room in it.  But
 * each try compresses, and where nothing does, that is for nothing: not more at once.
 */
#define DMM_SWAP_CROWD		64U

static void dmm_visit_init(struct dmm_visit *visit, struct dmm_swap *swap,
			   struct kvm_dmm_reclaim *rc, bool wait)
{
	memset(visit, 0, sizeof(*visit));
	visit->swap = swap;
	visit->rc = rc;
	visit->wait = wait;
	dmm_writer_init(&visit->writer, swap);
}

/*
 * How many pages are still wanted, besides those that are being written?  Who is
 * killed wants none: to try all of a pool takes seconds.
 */
static unsigned long dmm_visit_wants(struct dmm_visit *visit)
{
	unsigned long got = visit->rc->nr_done + visit->writer.queued;

	if (fatal_signal_pending(current))
		return 0;
	return visit->rc->nr_pages > got ? visit->rc->nr_pages - got : 0;
}

/*
 * Have what was gathered written.  Who may wait for the backing does, and learns
 * what has gone out; false if nothing has, or a signal came.
 */
static bool dmm_visit_settle(struct dmm_visit *visit)
{
	unsigned long gone, queued;

	dmm_writer_submit(&visit->writer);
	if (!visit->wait || !(visit->writer.queued || visit->crowded))
		return false;
	/* Others may have left no room for what is to go. */
	visit->crowded = 0;
	queued = visit->writer.queued;
	gone = dmm_writer_wait(&visit->writer);
	/* What others have taken out makes room, but is not what is wanted here. */
	visit->rc->nr_done += min(gone, queued);
	return gone && !signal_pending(current);
}

/* Is there no use in trying more, or none before the backing has written some? */
static bool dmm_visit_stops(struct dmm_visit *visit)
{
	return visit->full ||
	       visit->crowded >= (visit->wait ? 1 : DMM_SWAP_CROWD);
}

/* Age the pages of a region and find those that may go. */
static void dmm_swap_look(struct dmm_visit *visit, bool pressure)
{
	DECLARE_BITMAP(frames, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(young, KVM_DMM_REGION_PAGES);
	struct kvm_dmm_pool *pool = visit->swap->store.policy->pool;
	struct dmm_age *age = &visit->swap->age;
	struct kvm_dmm_reclaim *rc = visit->rc;
	/* At the limit, there is no use in trying again so soon. */
	bool skip = rc->reason == KVM_DMM_RECLAIM_LIMIT;
	unsigned int i;
	pgoff_t index;
	bool go;
	u8 *state;

	bitmap_zero(visit->go, KVM_DMM_REGION_PAGES);
	bitmap_zero(visit->drop, KVM_DMM_REGION_PAGES);
	if (kvm_dmm_frames(pool, visit->base, frames, visit->shared, NULL, NULL))
		kvm_dmm_young(pool, visit->base, young);
	else
		bitmap_zero(young, KVM_DMM_REGION_PAGES);
	bitmap_or(frames, frames, visit->shared, KVM_DMM_REGION_PAGES);

	spin_lock(&visit->swap->lock);
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++) {
		state = &visit->region->state[i];
		if (!test_bit(i, frames)) {
			if (*state)
				dmm_age_absent(age, state);
			visit->region->idle[i] = 0;
			continue;
		}
		/* It goes already. */
		if (test_bit(i, visit->region->writing))
			continue;
		index = visit->base + i;
		go = dmm_age_visit(age, state, test_bit(i, young));
		if (visit->cold)
			go = dmm_cold_pass(&visit->region->idle[i],
					   test_bit(i, young),
					   dmm_age_kind(*state) == DMM_AGE_HARD ?
					   DMM_COLD_MAX : visit->cold);
		else if (test_bit(i, young))
			visit->region->idle[i] = 0;
		if (visit->all)
			go |= !skip || dmm_age_kind(*state) != DMM_AGE_HARD;
		if (go && index >= rc->first && index <= rc->last)
			__set_bit(i, visit->go);
		else if (pressure && (*state & DMM_AGE_KEPT) &&
			 !test_bit(i, visit->shared))
			__set_bit(i, visit->drop);
	}
	spin_unlock(&visit->swap->lock);
}

/* Only what comes free for the host counts, not just for the pool. */
static bool dmm_visit_for_host(struct dmm_visit *visit)
{
	return visit->cold || visit->rc->reason == KVM_DMM_RECLAIM_HOST;
}

/*
 * One page of a region has been tried: learn what has become of it.  False if
 * there is no use in trying others.
 */
static bool dmm_visit_result(struct dmm_visit *visit, unsigned int i, int r,
			     unsigned long *gone, unsigned long *hard)
{
	trace_kvm_dmm_swap_out(visit->swap->store.policy->pool, visit->base + i,
			       r);
	switch (r) {
	case 0:
		__set_bit(i, gone);
		visit->rc->nr_done++;
		break;
	case -EINPROGRESS:
		break;
	case -E2BIG:
		__set_bit(i, hard);
		break;
	case -ENOSPC:
		/* The next may be one that takes no room. */
		break;
	case -EAGAIN:
		visit->crowded++;
		break;
	default:
		visit->full = true;
	}
	return !dmm_visit_stops(visit);
}

/* Other places of a pool that are looked at before a shared frame goes. */
#define DMM_SWAP_PLACES	32

/* Is a shared frame of the pool in use at another offset?  Then it stays. */
static bool dmm_visit_uses(struct dmm_visit *visit, struct kvm_dmm_batch *batch,
			   pgoff_t index)
{
	struct dmm_swap *swap = visit->swap;
	pgoff_t places[DMM_SWAP_PLACES];
	struct dmm_swap_region *region;
	bool uses = false;
	unsigned int i, n;
	u8 state;

	if (visit->all)
		return false;
	n = kvm_dmm_batch_places(batch, index, places, ARRAY_SIZE(places));
	spin_lock(&swap->lock);
	while (n-- && !uses) {
		region = dmm_swap_region(swap, places[n]);
		i = dmm_swap_nr(places[n]);
		state = region ? region->state[i] : 0;
		if (visit->cold)
			uses = !region || region->idle[i] < visit->cold;
		else
			uses = dmm_age_is_new(state) ||
			       dmm_age_is_active(state);
	}
	spin_unlock(&swap->lock);
	return uses;
}

/*
 * Take the shared frames of [first, end) out.  What the pool is not charged for,
 * or somebody holds, is left alone for long, like what cannot be stored: the
 * writer, too, which has it for another offset of the pool.
 */
static void dmm_swap_evict_shared(struct dmm_visit *visit, unsigned int first,
				  unsigned int end, unsigned long *gone,
				  unsigned long *hard)
{
	struct dmm_swap_store *store = &visit->swap->store;
	bool for_host = dmm_visit_for_host(visit);
	struct kvm_dmm_batch batch;
	unsigned int i = first;
	struct page *page;
	pgoff_t index;
	int r;

	for_each_set_bit_from(i, visit->shared, end) {
		index = visit->base + i;
		if (dmm_visit_stops(visit) || !test_bit(i, visit->go) ||
		    !kvm_dmm_batch_start(&batch, store->policy->pool, index))
			continue;
		page = kvm_dmm_batch_add_shared(&batch, index);
		if (!page) {
			kvm_dmm_batch_end(&batch);
			continue;
		}
		if (!kvm_dmm_batch_claims(&batch, index, for_host)) {
			if (!for_host)
				__set_bit(i, hard);
		} else if (!dmm_visit_uses(visit, &batch, index)) {
			r = dmm_store_shared(store, &batch, index, page,
					     &visit->writer);
			dmm_visit_result(visit, i, r, gone, hard);
		}
		kvm_dmm_batch_end(&batch);
	}
}

/* Take up to DMM_SWAP_CHUNK pages out, from @i on; returns where to go on. */
static unsigned int dmm_swap_evict(struct dmm_visit *visit, unsigned int i)
{
	struct kvm_dmm_pool *pool = visit->swap->store.policy->pool;
	unsigned long want = dmm_visit_wants(visit);
	DECLARE_BITMAP(gone, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(hard, KVM_DMM_REGION_PAGES);
	struct dmm_swap_region *region = visit->region;
	struct dmm_age *age = &visit->swap->age;
	unsigned int first = i, n = 0, k;
	struct kvm_dmm_batch batch;

	want = min(want, DMM_SWAP_CHUNK);
	if (!kvm_dmm_batch_start(&batch, pool, visit->base))
		return KVM_DMM_REGION_PAGES;
	for_each_set_bit_from(i, visit->go, KVM_DMM_REGION_PAGES) {
		if (n == want)
			break;
		n += test_bit(i, visit->shared) ||
		     kvm_dmm_batch_add(&batch, visit->base + i);
	}
	kvm_dmm_batch_take(&batch);

	bitmap_zero(gone, KVM_DMM_REGION_PAGES);
	bitmap_zero(hard, KVM_DMM_REGION_PAGES);
	for (k = first; k < i; k++) {
		if (!kvm_dmm_batch_page(&batch, visit->base + k))
			continue;
		if (!dmm_visit_result(visit, k,
				      dmm_store_page(&visit->swap->store, &batch,
						     visit->base + k,
						     &visit->writer),
				      gone, hard))
			break;
	}
	kvm_dmm_batch_end(&batch);
	dmm_swap_evict_shared(visit, first, i, gone, hard);

	/* Who came back meanwhile is taken for new. */
	spin_lock(&visit->swap->lock);
	for_each_set_bit(k, gone, KVM_DMM_REGION_PAGES)
		region->evicted[k] = dmm_age_evicted(age, &region->state[k]);
	for_each_set_bit(k, hard, KVM_DMM_REGION_PAGES)
		dmm_swap_hard(visit->swap, region, k);
	spin_unlock(&visit->swap->lock);
	return i;
}

/* Have pages that stay do without their copies. */
static void dmm_swap_drop(struct dmm_visit *visit)
{
	unsigned int i;
	long freed;

	freed = atomic_long_read(&visit->swap->store.charged);
	dmm_copies_forget(visit->swap, visit->base, visit->drop);
	spin_lock(&visit->swap->lock);
	for_each_set_bit(i, visit->drop, KVM_DMM_REGION_PAGES)
		visit->region->state[i] &= ~DMM_AGE_KEPT;
	spin_unlock(&visit->swap->lock);
	freed -= atomic_long_read(&visit->swap->store.charged);
	if (freed > 0)
		visit->rc->nr_done += freed;
}

/* The region where the hand is, which moves on; false if there is none. */
static bool dmm_swap_next(struct dmm_swap *swap, bool hurry, pgoff_t *base)
{
	struct kvm_dmm_pool *pool = swap->store.policy->pool;
	bool found;

	spin_lock(&swap->lock);
	*base = swap->hand;
	found = kvm_dmm_next_region(pool, base, ULONG_MAX);
	if (!found) {
		dmm_age_revolution(&swap->age, hurry);
		*base = 0;
		found = kvm_dmm_next_region(pool, base, ULONG_MAX);
	}
	if (found)
		swap->hand = *base + KVM_DMM_REGION_PAGES;
	spin_unlock(&swap->lock);
	return found;
}

/* Leave the hand where there is more to take, unless somebody moved it. */
static void dmm_swap_stay(struct dmm_swap *swap, pgoff_t base)
{
	spin_lock(&swap->lock);
	if (swap->hand == base + KVM_DMM_REGION_PAGES)
		swap->hand = base;
	spin_unlock(&swap->lock);
}

static void dmm_swap_visit(struct dmm_visit *visit, bool pressure)
{
	unsigned int i = 0;

	kvm_dmm_policy_count(visit->swap->store.policy, DMM_SWAP_visit, 1);
	dmm_swap_look(visit, pressure);
	if (!bitmap_empty(visit->drop, KVM_DMM_REGION_PAGES))
		dmm_swap_drop(visit);
	while (dmm_visit_wants(visit) && !dmm_visit_stops(visit)) {
		i = find_next_bit(visit->go, KVM_DMM_REGION_PAGES, i);
		if (i == KVM_DMM_REGION_PAGES)
			return;
		i = dmm_swap_evict(visit, i);
		cond_resched();
		if (!visit->wait)
			continue;
		if (dmm_writer_busy(&visit->writer))
			visit->crowded++;
		if (visit->crowded && !dmm_visit_settle(visit))
			break;
	}
	/* Who was crowded out here tries elsewhere the next time. */
	if (!visit->full && dmm_visit_stops(visit))
		return;
	if (!visit->cold && find_next_bit(visit->go, KVM_DMM_REGION_PAGES, i) <
			    KVM_DMM_REGION_PAGES)
		dmm_swap_stay(visit->swap, visit->base);
}

/* Who names pages wants them out. */
static void dmm_swap_reclaim_range(struct dmm_visit *visit)
{
	struct kvm_dmm_pool *pool = visit->swap->store.policy->pool;
	struct kvm_dmm_reclaim *rc = visit->rc;
	pgoff_t index = rc->first;

	visit->all = true;
	while (dmm_visit_wants(visit) && !dmm_visit_stops(visit) &&
	       kvm_dmm_next_region(pool, &index, rc->last)) {
		visit->base = round_down(index, KVM_DMM_REGION_PAGES);
		visit->region = dmm_swap_region_get(visit->swap, index);
		if (!visit->region)
			break;
		dmm_swap_visit(visit, false);
		index = visit->base + KVM_DMM_REGION_PAGES;
	}
}

/*
 * The hand goes round until it has found enough, or all has been tried, or as much as
 * may be.
 */
static void dmm_swap_reclaim_hand(struct dmm_visit *visit)
{
	enum kvm_dmm_reason reason = visit->rc->reason;
	unsigned int passes = 0;
	bool pressure, must;
	pgoff_t last = 0;

	/* These are not content with what can be spared. */
	must = reason == KVM_DMM_RECLAIM_LIMIT ||
	       reason == KVM_DMM_RECLAIM_USER;
	/* At its limit, a pool has better uses for memory than copies. */
	pressure = reason != KVM_DMM_RECLAIM_USER;

	visit->all = false;
	visit->region = NULL;
	while (dmm_visit_wants(visit) && !dmm_visit_stops(visit) &&
	       visit->rc->nr_scan) {
		if (!dmm_swap_next(visit->swap, passes, &visit->base))
			break;
		if (visit->base <= last && visit->region) {
			/* The hand has begun a new round. */
			if (visit->all || (!must && passes == DMM_AGE_PASSES))
				break;
			visit->all = passes++ == DMM_AGE_PASSES;
			dmm_store_compact(&visit->swap->store);
			if (reason == KVM_DMM_RECLAIM_USER &&
			    signal_pending(current))
				break;
		}
		last = visit->base;
		visit->region = dmm_swap_region_get(visit->swap, visit->base);
		if (!visit->region)
			break;
		dmm_swap_visit(visit, pressure);
		visit->rc->nr_scan -= min(visit->rc->nr_scan,
					  KVM_DMM_REGION_PAGES);
	}
}

static int dmm_swap_reclaim(struct kvm_dmm_policy *policy,
			    struct kvm_dmm_reclaim *rc)
{
	bool wait = rc->reason != KVM_DMM_RECLAIM_LIMIT &&
		    rc->reason != KVM_DMM_RECLAIM_HOST;
	struct dmm_visit visit;

	dmm_visit_init(&visit, policy->priv, rc, wait);
	/* What could not be written, or was used meanwhile, stays. */
	do {
		if (rc->reason == KVM_DMM_RECLAIM_ADVICE)
			dmm_swap_reclaim_range(&visit);
		else
			dmm_swap_reclaim_hand(&visit);
	} while (dmm_visit_settle(&visit) && dmm_visit_wants(&visit) &&
		 !visit.full);
	rc->nr_pending += dmm_writes_pending(policy->priv);
	return 0;
}

/*
 * A pass begins.  It may take as many pages as the budget for the @ms milliseconds
 * since the last one allows, in which @refaults pages have come back.
 */
static void dmm_cold_begin(struct dmm_swap *swap, u64 ms, unsigned long refaults)
{
	struct kvm_dmm_policy *policy = swap->store.policy;
	u64 target;

	target = DIV_ROUND_UP_ULL(ms * kvm_dmm_value(policy,
						     DMM_SWAP_REFAULTS_PER_SECOND),
				  1000);
	swap->cold_need = dmm_cold_adapt(swap->cold_need, refaults, target);
	swap->cold_left = 0;
	/* While too much comes back, pages only age. */
	if (refaults <= target) {
		/* Less than a page adds up. */
		swap->cold_ms = min(swap->cold_ms + ms, max(ms, 1000ULL));
		swap->cold_left = swap->cold_ms *
				  kvm_dmm_value(policy, DMM_SWAP_PAGES_PER_SECOND) /
				  1000;
	}
	if (swap->cold_left || refaults > target)
		swap->cold_ms = 0;
}

/* Take cold pages out, for a while.  True if the pass is over. */
static bool dmm_swap_cold(struct dmm_swap *swap)
{
	struct kvm_dmm_policy *policy = swap->store.policy;
	struct kvm_dmm_reclaim rc = {
		.last = ULONG_MAX,
		.nr_pages = swap->cold_left,
	};
	unsigned long done, end = jiffies + DMM_SWAP_RUN;
	pgoff_t index = swap->cold_next;
	struct dmm_visit visit;
	bool over = true;

	dmm_visit_init(&visit, swap, &rc, true);
	visit.cold = swap->cold_need;
	while (!visit.full &&
	       kvm_dmm_next_region(policy->pool, &index, ULONG_MAX)) {
		if (time_after(jiffies, end)) {
			over = false;
			break;
		}
		visit.base = round_down(index, KVM_DMM_REGION_PAGES);
		visit.region = dmm_swap_region_get(swap, index);
		if (!visit.region)
			break;
		done = rc.nr_done;
		dmm_swap_visit(&visit, false);
		dmm_visit_settle(&visit);
		kvm_dmm_policy_count(policy, DMM_SWAP_cold, rc.nr_done - done);
		index = visit.base + KVM_DMM_REGION_PAGES;
		cond_resched();
	}
	swap->cold_next = over ? 0 : index;
	swap->cold_left -= min(swap->cold_left, rc.nr_done);
	return over;
}

static void dmm_swap_cold_work(struct work_struct *work)
{
	struct dmm_swap *swap = container_of(to_delayed_work(work),
					     struct dmm_swap, cold_work);
	unsigned int ms = kvm_dmm_value(swap->store.policy,
					DMM_SWAP_COLD_AFTER_MS);
	ktime_t now = ktime_get(), last = swap->cold_last;
	unsigned long refaults;
	bool over = true;

	if (!ms || !swap->cold_next) {
		/* Passes take time, and the timer waits for a CPU that is awake. */
		swap->cold_last = now;
		swap->cold_next = 0;
		spin_lock(&swap->lock);
		refaults = swap->nr_refaults;
		swap->nr_refaults = 0;
		spin_unlock(&swap->lock);
		if (ms)
			dmm_cold_begin(swap, ktime_ms_delta(now, last), refaults);
	}
	/* Without it, look now and then whether it was set. */
	if (ms) {
		ms = max(ms / DMM_COLD_PASSES, 1U);
		over = dmm_swap_cold(swap);
	}
	queue_delayed_work(dmm_swap_wq, &swap->cold_work,
			   over ? msecs_to_jiffies(ms ?: 1000) : 0);
}

static struct kvm_dmm_policy_ops dmm_swap_ops = {
	.name = "swap",
	.owner = THIS_MODULE,
	.tunables = dmm_swap_tunables,
	.counters = dmm_swap_counters,
	.attach = dmm_swap_attach,
	.detach = dmm_swap_detach,
	.fetch = dmm_swap_fetch,
	.fetch_around = dmm_swap_fetch_around,
	.free_token = dmm_swap_free_token,
	.dup_token = dmm_swap_dup_token,
	.reclaim = dmm_swap_reclaim,
};

static int __init dmm_swap_init(void)
{
	int r;

	/* Not accounted: a group that is full gives nothing to make room with. */
	dmm_swap_region_cache = KMEM_CACHE(dmm_swap_region, 0);
	if (!dmm_swap_region_cache)
		return -ENOMEM;
	r = dmm_codec_module_init();
	if (r)
		goto cache;
	r = dmm_store_module_init();
	if (r)
		goto codec;
	r = dmm_backing_module_init();
	if (r)
		goto store;
	dmm_swap_wq = alloc_workqueue("kvm_dmm_swap",
				      WQ_UNBOUND | WQ_FREEZABLE, 0);
	if (!dmm_swap_wq) {
		r = -ENOMEM;
		goto backing;
	}
	r = kvm_dmm_register_policy(&dmm_swap_ops);
	if (r)
		goto queue;
	return 0;
queue:
	destroy_workqueue(dmm_swap_wq);
backing:
	dmm_backing_module_exit();
store:
	dmm_store_module_exit();
codec:
	dmm_codec_module_exit();
cache:
	kmem_cache_destroy(dmm_swap_region_cache);
	return r;
}
module_init(dmm_swap_init);

static void __exit dmm_swap_exit(void)
{
	kvm_dmm_unregister_policy(&dmm_swap_ops);
	destroy_workqueue(dmm_swap_wq);
	dmm_backing_module_exit();
	dmm_store_module_exit();
	dmm_codec_module_exit();
	kmem_cache_destroy(dmm_swap_region_cache);
}
module_exit(dmm_swap_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: swap");
MODULE_ALIAS("kvm-dmm-policy-swap");
MODULE_LICENSE("GPL");
