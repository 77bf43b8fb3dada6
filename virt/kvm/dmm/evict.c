// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: shared frames that give way to tokens.
 *
 * A policy that takes a shared frame out wants to know whether anybody gains by
 * it, and takes as many of its users along as it may.
 */
#include <linux/mm.h>
#include <linux/rbtree.h>
#include <linux/slab.h>

#include "shared.h"

/* Of users in a tree, which is in the order of pools. */
static int dmm_user_cmp_pool(const void *pool, const struct rb_node *node)
{
	const struct kvm_dmm_pool *p = rb_entry(node, struct dmm_user, node)->pool;

	if (pool == p)
		return 0;
	return pool < (const void *)p ? -1 : 1;
}

/**
 * dmm_shared_held - has anybody a reference or a lock on a shared frame?
 * @pool: the pool, which counts it
 * @page: the frame
 *
 * As in dmm_batch_freeze(), but processes may have it mapped still.
 *
 * Return: True if so.
 */
bool dmm_shared_held(struct kvm_dmm_pool *pool, struct page *page)
{
	if (!folio_test_mlocked(page_folio(page)) && dmm_only_mapped(page))
		return false;
	dmm_count(pool, DMM_STAT_reject_pinned);
	return true;
}

/**
 * kvm_dmm_batch_claims - does a pool get room when a shared frame goes?
 * @batch: the batch
 * @index: page offset of an entry added by kvm_dmm_batch_add_shared()
 * @alone: and does the host, because no other pool uses it?
 *
 * It does if the pool is charged for the frame, nobody holds it, and all that
 * the pool has of it gives way to tokens.
 *
 * Context: Any.  The answer may be old when the caller reads it.
 * Return: True if so.
 */
bool kvm_dmm_batch_claims(struct kvm_dmm_batch *batch, pgoff_t index,
			  bool alone)
{
	u64 e = dmm_batch_entry(batch, index & (KVM_DMM_REGION_PAGES - 1));
	struct kvm_dmm_pool *pool = batch->pool;
	struct page *page = dmm_page(e);
	struct kvm_dmm_shared *shared = dmm_shared_lock(pool, page);
	bool claims;

	if (shared)
		claims = shared->charged == pool &&
			 !(alone && dmm_find_heir(shared, pool));
	else
		claims = dmm_light_charged(page) == pool &&
			 !(alone && page->index > 1);
	dmm_shared_unlock(pool, shared);
	return claims && !dmm_shared_held(pool, page);
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_claims);

/**
 * kvm_dmm_batch_places - where else a pool has a shared frame
 * @batch: the batch
 * @index: page offset of an entry added by kvm_dmm_batch_add_shared()
 * @places: out: page offsets
 * @max: how many are wanted
 *
 * Context: Any.  The answer may be old when the caller reads it.
 * Return: How many were found, @max at most.
 */
unsigned int kvm_dmm_batch_places(struct kvm_dmm_batch *batch, pgoff_t index,
				  pgoff_t *places, unsigned int max)
{
	u64 e = dmm_batch_entry(batch, index & (KVM_DMM_REGION_PAGES - 1));
	struct kvm_dmm_pool *pool = batch->pool;
	struct kvm_dmm_shared *shared = dmm_shared_lock(pool, dmm_page(e));
	struct rb_node *node = NULL;
	unsigned int n = 0;

	/* Clones have it at the same offset, so a pool has it once. */
	if (shared)
		node = rb_find_first(pool, &shared->users, dmm_user_cmp_pool);
	for (; node && n < max; node = rb_next(node)) {
		struct dmm_user *user = rb_entry(node, struct dmm_user, node);

		if (user->pool != pool)
			break;
		if (user->index != index)
			places[n++] = user->index;
	}
	/* Apart from the one that was in it before it got a handle. */
	if (shared && shared->nr_kin && shared->index != index && n < max &&
	    dmm_uses(pool, shared->index, dmm_page(e)))
		places[n++] = shared->index;
	dmm_shared_unlock(pool, shared);
	return n;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_places);

/* A user of a shared frame whose entry somebody else has made busy. */
struct dmm_place {
	struct kvm_dmm_pool *pool;
	pgoff_t index;
};

/* Own the entry of a user of @page, which may have left or be busy. */
static bool dmm_place_trylock(struct kvm_dmm_pool *pool, pgoff_t index,
			      struct page *page)
{
	struct kvm_dmm_region *region = dmm_region(pool, index);
	u64 *entry, e;

	if (!region)
		return false;
	entry = dmm_entry(region, index);
	e = READ_ONCE(*entry);
	return !(e & DMM_BUSY) && dmm_shares(e, page_to_pfn(page)) &&
	       dmm_trylock(region, entry, e);
}

/* The part of dmm_lock_users() for users that are not in a tree. */
static unsigned int dmm_lock_kin(struct dmm_family *family, pgoff_t index,
				 struct page *page, struct dmm_place *places,
				 unsigned int n, unsigned int max,
				 struct kvm_dmm_pool *only)
{
	struct kvm_dmm_pool *kin;

	lockdep_assert_held(&family->lock);
	list_for_each_entry(kin, &family->pools, kin) {
		if (n == max)
			break;
		if ((!only || kin == only) &&
		    dmm_place_trylock(kin, index, page))
			places[n++] = (struct dmm_place) { kin, index };
	}
	return n;
}

/*
 * Own the entries of all users of a frame but the caller's, which is the one of
 * @pool at @index; or of those in pool @only.  The lock of the users keeps their
 * pools until their entries are busy, which does so from then on: nobody leaves,
 * and so no file goes away, with a busy entry.
 *
 * Return: How many; up to @max.
 */
static unsigned int dmm_lock_users(struct kvm_dmm_pool *pool, pgoff_t index,
				   struct page *page, struct dmm_place *places,
				   unsigned int max, struct kvm_dmm_pool *only)
{
	struct kvm_dmm_shared *shared = dmm_shared_lock(pool, page);
	unsigned int n = 0;
	struct rb_node *node;

	if (!shared) {
		/* One pool has it at one place: the caller's. */
		if (!only)
			n = dmm_lock_kin(pool->family, index, page, places, n,
					 max, NULL);
		goto unlock;
	}
	node = only ? rb_find_first(only, &shared->users, dmm_user_cmp_pool) :
	       rb_first(&shared->users);
	for (; node && n < max; node = rb_next(node)) {
		struct dmm_user *user = rb_entry(node, struct dmm_user, node);

		if (only && user->pool != only)
			break;
		if (dmm_place_trylock(user->pool, user->index, page))
			places[n++] = (struct dmm_place) {
				user->pool, user->index
			};
	}
	if (shared->nr_kin) {
		spin_lock(&shared->family->lock);
		n = dmm_lock_kin(shared->family, shared->index, page, places, n,
				 max, only);
		spin_unlock(&shared->family->lock);
	}
unlock:
	dmm_shared_unlock(pool, shared);
	return n;
}

/* A busy entry with a shared frame gets a token instead. */
static void dmm_place_token(struct kvm_dmm_pool *pool, pgoff_t index,
			    struct page *page, u64 e)
{
	struct kvm_dmm_region *region = dmm_region(pool, index);
	struct kvm_dmm_batch batch;

	dmm_batch_hold(&batch, pool, region, index);
	dmm_batch_unmap(&batch);
	dmm_shared_leave(region, pool, index, page);
	atomic_long_inc(&pool->nr_tokens);
	dmm_count(pool, DMM_STAT_token);
	dmm_batch_set(&batch, index, e);
}

/* Users of one frame that leave it for a token in one go. */
#define DMM_EVICT_USERS	4096

/**
 * kvm_dmm_batch_token_shared - replace a shared frame by a token
 * @batch: the batch
 * @policy: whose token it is; with a dup_token op, if there are other users
 * @index: page offset of an entry added by kvm_dmm_batch_add_shared()
 * @token: as for kvm_dmm_batch_token(); the policy has the content, which it
 *	has read from the frame: while an entry of a shared frame is in a batch,
 *	the content does not change
 * @users: KVM_DMM_USERS_*
 *
 * All other users in the pool get a token by dup_token, too, and with
 * KVM_DMM_USERS_OTHERS those in other pools that have the same policy: the
 * content is stored once.  Those that are busy or refuse keep the frame.
 *
 * Without KVM_DMM_USERS_YOUNG, other pools keep it where their guests have
 * accessed it, by access bits that nobody has cleared since.
 *
 * Context: May sleep.  From the policy's reclaim op.
 * Return: 1: the frame is free; 0: it has users left; -ENOENT: no such entry in
 *	the batch; -EBUSY: somebody holds the page, or the policy is being
 *	detached or was ejected; -EOPNOTSUPP: there are other users and no
 *	dup_token op;
 *	-ERANGE; -EINVAL: another pool's policy, or without a fetch op;
 *	-ENOMEM.  On error the token remains the caller's.
 */
int kvm_dmm_batch_token_shared(struct kvm_dmm_batch *batch,
			       struct kvm_dmm_policy *policy, pgoff_t index,
			       u64 token, unsigned int users)
{
	bool young = users & KVM_DMM_USERS_YOUNG;
	unsigned int i = index & (KVM_DMM_REGION_PAGES - 1);
	struct kvm_dmm_pool *pool = batch->pool;
	struct kvm_dmm_shared *shared;
	struct dmm_place *places;
	unsigned int k, n, max;
	struct page *page;
	int done;
	u64 e, new;

	if (!test_bit(i, batch->locked))
		return -ENOENT;
	e = dmm_batch_entry(batch, i);
	if (dmm_kind(e) != KVM_DMM_SHARED)
		return -ENOENT;
	if (token >> KVM_DMM_TOKEN_BITS)
		return -ERANGE;
	if (policy->pool != pool || !policy->ops->fetch)
		return -EINVAL;
	/* As in kvm_dmm_batch_token(). */
	if (READ_ONCE(policy->draining) || READ_ONCE(policy->ejected))
		return -EBUSY;
	page = dmm_page(e);
	shared = dmm_shared_lock(pool, page);
	max = (shared ? shared->nr : page->index) - 1;
	dmm_shared_unlock(pool, shared);
	if (dmm_shared_held(pool, page))
		return -EBUSY;
	if (max && !policy->ops->dup_token)
		return -EOPNOTSUPP;
	max = min(max, DMM_EVICT_USERS);
	places = kvmalloc_array(max, sizeof(*places),
				GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN);
	if (max && !places)
		return -ENOMEM;

	new = dmm_mk_token(policy->id, token);
	n = dmm_lock_users(pool, index, page, places, max,
			   users & KVM_DMM_USERS_OTHERS ? NULL : pool);
	/*
	 * What is busy stays in its file, so pools do not go away.  Guests that
	 * are bound or end meanwhile are as accessed as they are; detaching sees
	 * the token, or dmm_dup_token() that it has begun.
	 */
	for (k = 0; k < n; k++) {
		struct dmm_place *place = &places[k];
		u64 *entry, dup;

		if ((!young && place->pool != pool &&
		     dmm_is_young(place->pool, place->index)) ||
		    dmm_dup_token(pool, new, place->pool, place->index, &dup)) {
			entry = dmm_entry(dmm_region(place->pool, place->index),
					  place->index);
			dmm_unlock(dmm_region(place->pool, place->index), entry,
				   dmm_content(READ_ONCE(*entry)));
		} else {
			dmm_place_token(place->pool, place->index, page, dup);
		}
	}
	kvfree(places);
	/* The last: until here its entry has kept the content. */
	shared = dmm_shared_lock(pool, page);
	done = (shared ? shared->nr : page->index) == 1;
	dmm_shared_unlock(pool, shared);
	__clear_bit(i, batch->locked);
	dmm_place_token(pool, index, page, new);
	return done;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_token_shared);
