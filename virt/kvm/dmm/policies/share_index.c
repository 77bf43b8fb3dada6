// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the share policy's index of content.
 *
 * One hash table for all pools, by a hash of the content that is seeded with
 * the sharing domain: so pools of different domains do not find each other's
 * pages.  One that changes its domain does until its next pass; the core refuses
 * what it finds.  A record is either a page of a pool that is alone so far, known by
 * pool and offset, or the handle of a shared frame.  There is one for each hash;
 * whoever has the same hash with other content is not indexed.
 */
#include <linux/bitops.h>
#include <linux/highmem.h>
#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/rhashtable.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <linux/xxhash.h>

#include "share_index.h"

/**
 * struct share_record - where content is
 * @node: in share_table
 * @hash: of the content
 * @shared: handle of the frame; NULL: it is the frame of a single page
 * @pool: of that page; its policy stays as long as the record is there
 * @slot: where that pool keeps the address of this record
 * @index: page offset
 */
struct share_record {
	struct rhash_head node;
	u64 hash;
	struct kvm_dmm_shared *shared;
	struct kvm_dmm_pool *pool;
	struct share_record **slot;
	pgoff_t index;
};

/* The key is a hash already. */
static u32 share_bucket(const void *hash, u32 len, u32 seed)
{
	return *(const u64 *)hash ^ seed;
}

static const struct rhashtable_params share_params = {
	.key_len = sizeof(u64),
	.key_offset = offsetof(struct share_record, hash),
	.head_offset = offsetof(struct share_record, node),
	.hashfn = share_bucket,
	.automatic_shrinking = true,
	/* A larger table cannot be allocated, which would be tried for ever. */
	.max_size = BIT(27),
};

static struct rhashtable share_table;
static struct kmem_cache *share_cache;
static u64 share_salt;

/*
 * Each protects the records of a part of all hashes.  Taken with busy bits
 * held; nobody waits for one with it.
 */
#define SHARE_LOCKS	256
static struct mutex share_locks[SHARE_LOCKS];

static struct mutex *share_lock(u64 hash)
{
	return &share_locks[hash % SHARE_LOCKS];
}

/**
 * share_seed - what makes hashes of a sharing domain its own
 * @pool: the pool
 *
 * Return: A number that is the same for all pools of a domain.
 */
u64 share_seed(struct kvm_dmm_pool *pool)
{
	char domain[KVM_DMM_NAME_MAX + 1];
	unsigned long ino;

	kvm_dmm_pool_domain(pool, domain);
	if (*domain)
		return xxh64(domain, strlen(domain), share_salt);
	ino = kvm_dmm_pool_ino(pool);
	return xxh64(&ino, sizeof(ino), ~share_salt);
}

#define SHARE_PRIME	0x9e3779b185ebca87ULL

static u64 share_mix(u64 hash, u64 word)
{
	return rol64((hash ^ word) * SHARE_PRIME, 29);
}

/*
 * Four chains, each of which a word changes for sure, whatever it was before.
 * A collision costs no more than a comparison, so it need not be a hash that
 * nobody can cheat, and takes fewer instructions than xxh64().
 */
static u64 share_hash_words(const u64 *word, u64 seed)
{
	const u64 *end = word + PAGE_SIZE / sizeof(*word);
	u64 a = seed, b = seed + 1, c = seed + 2, d = seed + 3;

	for (; word < end; word += 8) {
		a = share_mix(share_mix(a, word[0]), word[4]);
		b = share_mix(share_mix(b, word[1]), word[5]);
		c = share_mix(share_mix(c, word[2]), word[6]);
		d = share_mix(share_mix(d, word[3]), word[7]);
	}
	a = share_mix(share_mix(a, b), share_mix(c, d));
	return a ^ a >> 32;
}

/**
 * share_hash - hash a page
 * @page: the page
 * @seed: see share_seed()
 *
 * Return: The hash; SHARE_ZERO for a page of zeros.
 */
u64 share_hash(struct page *page, u64 seed)
{
	void *kaddr = kmap_local_page(page);
	u64 hash = SHARE_ZERO;

	if (memchr_inv(kaddr, 0, PAGE_SIZE))
		hash = share_hash_words(kaddr, seed) & SHARE_HASH;
	kunmap_local(kaddr);
	return hash;
}

static struct share_record *share_find(u64 hash)
{
	return rhashtable_lookup_fast(&share_table, &hash, share_params);
}

/* Take a record out; the lock of its hash is held. */
static void share_remove(struct share_record *record)
{
	rhashtable_remove_fast(&share_table, &record->node, share_params);
	if (record->shared)
		kvm_dmm_shared_put(record->shared);
	else
		WRITE_ONCE(*record->slot, NULL);
	kmem_cache_free(share_cache, record);
}

/*
 * Is what the index has for a hash good for nothing any more?  A page that was
 * written is hashed again when its pool gets to it.
 */
static bool share_stale(struct share_record *record)
{
	bool protected = false;

	if (record->shared)
		return !kvm_dmm_shared_alive(record->shared);
	return kvm_dmm_peek(record->pool, record->index, &protected) !=
	       KVM_DMM_FRAME || !protected;
}

static struct share_record *share_insert(u64 hash)
{
	struct share_record *record;

	/* Without end it would be tried otherwise, with entries busy. */
	record = kmem_cache_alloc(share_cache,
				  GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN);
	if (!record)
		return NULL;
	/*
	 * Who reads without a lock may stand on it still, as it was freed just now:
	 * the link of the node leads somewhere until the table sets it anew.
	 */
	record->hash = hash;
	record->shared = NULL;
	record->pool = NULL;
	record->index = 0;
	record->slot = NULL;
	if (rhashtable_insert_fast(&share_table, &record->node, share_params)) {
		kmem_cache_free(share_cache, record);
		return NULL;
	}
	return record;
}

/* What the index has for a hash and is good for something; its lock is held. */
static struct share_record *share_find_good(u64 hash)
{
	struct share_record *record = share_find(hash);

	if (record && share_stale(record)) {
		share_remove(record);
		record = NULL;
	}
	return record;
}

/* Make a shared frame of a page that is in no batch of the caller. */
static struct kvm_dmm_shared *share_offer(struct kvm_dmm_pool *pool,
					  pgoff_t index,
					  struct share_fresh *fresh)
{
	struct kvm_dmm_shared *shared = ERR_PTR(-EBUSY);
	struct kvm_dmm_batch batch;

	if (!kvm_dmm_batch_start(&batch, pool, index))
		return ERR_PTR(-ENOENT);
	if (kvm_dmm_batch_add(&batch, index) &&
	    (fresh ? kvm_dmm_batch_take(&batch) : kvm_dmm_batch_protect(&batch)))
		shared = share_fresh_handle(fresh, &batch, index);
	kvm_dmm_batch_end(&batch);
	return shared;
}

/* What a page of the index shares from now on, or an error. */
static struct kvm_dmm_shared *share_promote(struct share_record *record,
					    struct kvm_dmm_batch *batch,
					    struct share_fresh *fresh)
{
	struct kvm_dmm_shared *shared;

	/* Another page of the same batch is the caller's already. */
	if (record->pool == batch->pool &&
	    record->index - batch->base < KVM_DMM_REGION_PAGES &&
	    kvm_dmm_batch_page(batch, record->index))
		shared = share_fresh_handle(fresh, batch, record->index);
	else
		shared = share_offer(record->pool, record->index, fresh);
	if (IS_ERR(shared))
		return shared;
	WRITE_ONCE(*record->slot, NULL);
	record->slot = NULL;
	record->pool = NULL;
	record->shared = shared;
	return kvm_dmm_shared_get(shared);
}

/* Make a shared frame of a page that nobody else has, and index that; NULL or error. */
static struct kvm_dmm_shared *share_disguise(u64 hash, struct kvm_dmm_batch *batch,
					     pgoff_t index,
					     struct share_fresh *fresh)
{
	struct kvm_dmm_shared *shared;
	struct share_record *record;

	shared = share_fresh_handle(fresh, batch, index);
	if (IS_ERR(shared))
		return shared;
	kvm_dmm_shared_always_copy(shared);
	record = share_insert(hash);
	if (record)
		record->shared = shared;
	else
		kvm_dmm_shared_put(shared);
	return NULL;
}

/**
 * share_lookup - find what a page may share, or have it found by others
 * @hash: of the page
 * @batch: batch that has the page, protected or taken
 * @index: its page offset
 * @slot: where its pool keeps its record; NULL now
 * @fresh: nobody shall find out by the time of a write whether it is shared, nor
 *	where the frame is, which is made of these pages: it becomes a shared one also
 *	if nobody else has the content so far, and who joins what was found has to
 *	see to it as well.  NULL: no matter.
 *
 * Context: May sleep.
 * Return: A handle with a reference; NULL: nothing so far; or an error, to try
 *	again: the page that has the content is busy, -ENOMEM.
 */
struct kvm_dmm_shared *share_lookup(u64 hash, struct kvm_dmm_batch *batch,
				    pgoff_t index, struct share_record **slot,
				    struct share_fresh *fresh)
{
	struct kvm_dmm_shared *shared = NULL;
	struct share_record *record;

	/*
	 * Whether or not others have the content: where only what they have became
	 * shared, for want of pages, a write would tell.
	 */
	if (fresh && !share_fresh_ready(fresh, batch, index))
		return ERR_PTR(-ENOMEM);
	mutex_lock(share_lock(hash));
	record = share_find_good(hash);
	if (!record && fresh) {
		shared = share_disguise(hash, batch, index, fresh);
	} else if (!record) {
		record = share_insert(hash);
		if (record) {
			record->pool = batch->pool;
			record->index = index;
			record->slot = slot;
			WRITE_ONCE(*slot, record);
		} else {
			shared = ERR_PTR(-ENOMEM);
		}
	} else if (record->shared) {
		shared = kvm_dmm_shared_get(record->shared);
	} else {
		shared = share_promote(record, batch, fresh);
	}
	mutex_unlock(share_lock(hash));
	return shared;
}

/**
 * share_lookup_shared - the same for what is a shared frame already
 * @hash: of the content
 * @batch: batch that has the page
 * @own: handle of the frame
 * @fresh: as for share_lookup(); what did not become a shared frame that way is not
 *	for others to join
 *
 * Context: May sleep.
 * Return: A handle with a reference, maybe @own; NULL: nothing so far; or an error,
 *	to try again.
 */
struct kvm_dmm_shared *share_lookup_shared(u64 hash, struct kvm_dmm_batch *batch,
					   struct kvm_dmm_shared *own,
					   struct share_fresh *fresh)
{
	struct kvm_dmm_shared *shared = NULL;
	struct share_record *record;

	mutex_lock(share_lock(hash));
	record = share_find_good(hash);
	if (record && record->shared) {
		shared = kvm_dmm_shared_get(record->shared);
	} else if (record) {
		shared = share_promote(record, batch, fresh);
	} else if (!fresh || kvm_dmm_shared_copies(own)) {
		record = share_insert(hash);
		if (record)
			record->shared = kvm_dmm_shared_get(own);
		else
			shared = ERR_PTR(-ENOMEM);
	}
	mutex_unlock(share_lock(hash));
	return shared;
}

/**
 * share_match - find a shared frame that may have the content of a page
 * @hash: of the page
 *
 * Context: May sleep.
 * Return: A handle with a reference, or NULL.
 */
struct kvm_dmm_shared *share_match(u64 hash)
{
	struct kvm_dmm_shared *shared = NULL;
	struct share_record *record;

	mutex_lock(share_lock(hash));
	record = share_find(hash);
	if (record && record->shared)
		shared = kvm_dmm_shared_get(record->shared);
	mutex_unlock(share_lock(hash));
	return shared;
}

/**
 * share_drop - a shared frame cannot be joined: let another one be found
 * @hash: of the content
 * @shared: its handle
 *
 * Context: May sleep.
 */
void share_drop(u64 hash, struct kvm_dmm_shared *shared)
{
	struct share_record *record;

	mutex_lock(share_lock(hash));
	record = share_find(hash);
	if (record && record->shared == shared)
		share_remove(record);
	mutex_unlock(share_lock(hash));
}

/**
 * share_forget - a page is not what it was
 * @slot: where its pool keeps its record
 *
 * Only the pool's own worker sets the slot; others clear it, with the lock.
 */
void share_forget(struct share_record **slot)
{
	struct share_record *record;
	u64 hash;

	rcu_read_lock();
	record = READ_ONCE(*slot);
	hash = record ? READ_ONCE(record->hash) : 0;
	rcu_read_unlock();
	if (!record)
		return;
	mutex_lock(share_lock(hash));
	if (*slot == record)
		share_remove(record);
	mutex_unlock(share_lock(hash));
}

/* Records that are looked at in one read-side section of RCU. */
#define SHARE_SWEEP_BATCH	1024

/*
 * Look at all records: drop those of frames that are gone, and return how many.
 * What is in a bucket behind one that is dropped may be missed.
 */
static unsigned long share_sweep_once(void)
{
	struct rhashtable_iter iter;
	struct share_record *record;
	unsigned long dropped = 0;
	unsigned int n = 0;
	u64 hash;

	rhashtable_walk_enter(&share_table, &iter);
	rhashtable_walk_start(&iter);
	while ((record = rhashtable_walk_next(&iter))) {
		if (IS_ERR(record))
			continue;
		/* A handle is looked at with the lock: it may be given back. */
		if (!READ_ONCE(record->shared)) {
			if (++n % SHARE_SWEEP_BATCH)
				continue;
			rhashtable_walk_stop(&iter);
			cond_resched();
			rhashtable_walk_start(&iter);
			continue;
		}
		hash = record->hash;
		rhashtable_walk_stop(&iter);
		mutex_lock(share_lock(hash));
		record = share_find(hash);
		if (record && record->shared &&
		    !kvm_dmm_shared_alive(record->shared)) {
			share_remove(record);
			dropped++;
		}
		mutex_unlock(share_lock(hash));
		cond_resched();
		rhashtable_walk_start(&iter);
	}
	rhashtable_walk_stop(&iter);
	rhashtable_walk_exit(&iter);
	return dropped;
}

/* How often the index is swept, in seconds, for this part of a CPU at most. */
#define SHARE_SWEEP	60
#define SHARE_SWEEP_REST	20
/* How often at once, if more than this part of the records was dropped. */
#define SHARE_SWEEP_TRIES	4
#define SHARE_SWEEP_PART	16

static void share_sweep_work(struct work_struct *work);
static DECLARE_DEFERRABLE_WORK(share_sweeper, share_sweep_work);

/**
 * share_sweep - see that records of frames that are gone are dropped in a minute
 *
 * Or so: with very many it takes longer than to rest from the last time.
 *
 * Once begun it goes on as long as there are records: frames go when no pool has
 * the policy any more, too.
 *
 * Context: Any.
 */
void share_sweep(void)
{
	queue_delayed_work(system_unbound_wq, &share_sweeper, SHARE_SWEEP * HZ);
}

static void share_sweep_work(struct work_struct *work)
{
	unsigned int tries = SHARE_SWEEP_TRIES;
	unsigned long begin = jiffies;

	/* What was missed is, mostly, not missed again; and frames go all the time. */
	while (tries-- && share_sweep_once() * SHARE_SWEEP_PART >
			  atomic_read(&share_table.nelems))
		;
	/* Not earlier for a pass that has ended meanwhile. */
	if (atomic_read(&share_table.nelems))
		mod_delayed_work(system_unbound_wq, &share_sweeper,
				 max_t(unsigned long, SHARE_SWEEP * HZ,
				       (jiffies - begin) * SHARE_SWEEP_REST));
}

static void share_free_record(void *ptr, void *arg)
{
	struct share_record *record = ptr;

	kvm_dmm_shared_put(record->shared);
	kmem_cache_free(share_cache, record);
}

/**
 * share_index_init - make the index
 *
 * Return: 0 or -ENOMEM.
 */
int share_index_init(void)
{
	unsigned int i;
	int r;

	share_salt = get_random_u64();
	for (i = 0; i < SHARE_LOCKS; i++)
		mutex_init(&share_locks[i]);
	/* Who reads a record without the lock does so under RCU. */
	share_cache = KMEM_CACHE(share_record, SLAB_TYPESAFE_BY_RCU);
	if (!share_cache)
		return -ENOMEM;
	r = rhashtable_init(&share_table, &share_params);
	if (r)
		kmem_cache_destroy(share_cache);
	return r;
}

/**
 * share_index_exit - free the index, which has handles only
 */
void share_index_exit(void)
{
	cancel_delayed_work_sync(&share_sweeper);
	rhashtable_free_and_destroy(&share_table, share_free_record, NULL);
	kmem_cache_destroy(share_cache);
}
