/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping: who uses a shared frame.
 */
#ifndef _KVM_DMM_SHARED_H
#define _KVM_DMM_SHARED_H

#include <linux/mm.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>

#include "dmm.h"

/**
 * struct dmm_family - files that were cloned from each other
 * @lock: protects the rest, and the users of frames that only clones share
 * @pools: its members, by pool->kin; each stays until its map is empty
 *
 * Files that were cloned at the same offsets share frames at the same offsets.
 * So such a frame needs no more than a count of its users: who they are is
 * found by asking all members.  page_private() is then the pool that is charged,
 * with DMM_LIGHT set, and page->index is the count.
 */
struct dmm_family {
	spinlock_t lock;	/* see above; nests in kvm_dmm_shared.lock */
	struct list_head pools;
};

#define DMM_LIGHT	1UL

/**
 * struct kvm_dmm_shared - a shared frame with a handle
 * @lock: protects the rest
 * @ref: one for all users together, and one for each handle
 * @page: the frame, whose page_private() points here; NULL when it is dead: the
 *	last user left or took it over
 * @users: tree of struct dmm_user by pool and offset
 * @nr: number of users
 * @nr_kin: of these, users that are not in the tree but members of @family,
 *	with the offset @index
 * @family: see @nr_kin
 * @index: see @nr_kin
 * @charged: the pool that is charged for the frame, one of the users'
 * @mixed: has users in different domains, by cloning, or a pool of which nothing is
 *	to be merged: nobody may join
 * @copy: a write copies, for the last user, too
 *
 * A user is added by who owns the entry that becomes one, and removed only by
 * the owner of its entry.  A handle keeps this structure, not the frame.
 */
struct kvm_dmm_shared {
	spinlock_t lock;	/* see above */
	refcount_t ref;
	struct page *page;
	struct rb_root users;
	unsigned int nr;
	unsigned int nr_kin;
	struct dmm_family *family;
	pgoff_t index;
	struct kvm_dmm_pool *charged;
	bool mixed;
	bool copy;
};

struct dmm_user {
	struct rb_node node;
	struct kvm_dmm_pool *pool;
	pgoff_t index;
};

/*
 * Users of one frame at most: each may be in the page tables of many processes,
 * and the reference count of a page has 31 bits.
 */
#define DMM_MAX_USERS	BIT(16)

/*
 * Lock the users of a shared frame of @pool: those of the handle that is
 * returned; or, with NULL, those of a frame without one, by the family's lock.
 * It may get a handle meanwhile, and keeps it then.
 */
static inline struct kvm_dmm_shared *dmm_shared_lock(struct kvm_dmm_pool *pool,
						     struct page *page)
{
	unsigned long private = READ_ONCE(page->private);
	struct kvm_dmm_shared *shared;

	if (private & DMM_LIGHT) {
		spin_lock(&pool->family->lock);
		private = page->private;
		if (private & DMM_LIGHT)
			return NULL;
		spin_unlock(&pool->family->lock);
	}
	shared = (struct kvm_dmm_shared *)private;
	spin_lock(&shared->lock);
	return shared;
}

static inline void dmm_shared_unlock(struct kvm_dmm_pool *pool,
				     struct kvm_dmm_shared *shared)
{
	spin_unlock(shared ? &shared->lock : &pool->family->lock);
}

/*
 * Is a shared frame held by the map and page tables of processes only?  These go
 * with their reference behind the mapping: looked at in this order, a mapping that
 * goes meanwhile is one reference too many and no, never one that hides another's.
 * One that comes meanwhile can, where another pool uses the frame.
 */
static inline bool dmm_only_mapped(struct page *page)
{
	int count = page_count(page);

	/* See above. */
	smp_rmb();
	return count == 1 + folio_mapcount(page_folio(page));
}

/* The pool that is charged for a frame without a handle. */
static inline struct kvm_dmm_pool *dmm_light_charged(struct page *page)
{
	return (struct kvm_dmm_pool *)(page->private & ~DMM_LIGHT);
}

/* Has @pool the frame at @index?  Old at once, unless the entry is busy. */
static inline bool dmm_uses(struct kvm_dmm_pool *pool, pgoff_t index,
			    struct page *page)
{
	struct kvm_dmm_region *region = dmm_region(pool, index);

	return region && dmm_shares(READ_ONCE(*dmm_entry(region, index)),
				    page_to_pfn(page));
}

bool dmm_shared_held(struct kvm_dmm_pool *pool, struct page *page);
struct dmm_user *dmm_user_find(struct kvm_dmm_shared *shared,
			       struct kvm_dmm_pool *pool, pgoff_t index);
struct kvm_dmm_pool *dmm_find_heir(struct kvm_dmm_shared *shared,
				   struct kvm_dmm_pool *pool);

#endif
