// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: frames that several offsets share.
 *
 * Every page table has a shared frame read-only.  A write copies it, or takes
 * it over for the last user.  The frame is charged to one pool among its
 * users; when that one leaves, the charge moves on.
 */
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/rbtree.h>
#include <linux/slab.h>
#include <trace/events/kvm_dmm.h>

#include "dmm.h"

/**
 * struct dmm_shared - a shared frame; page_private() of the page points here
 * @lock: protects the rest; innermost
 * @users: tree of struct dmm_user by pool and offset
 * @nr: number of users
 * @charged: the user whose pool is charged for the frame
 *
 * Lives as long as it has users.  A user is added only by whoever owns the
 * entry of another user, and removed only by the owner of its own entry.
 */
struct dmm_shared {
	spinlock_t lock;	/* see above */
	struct rb_root users;
	unsigned long nr;
	struct dmm_user *charged;
};

struct dmm_user {
	struct rb_node node;
	struct kvm_dmm_pool *pool;
	pgoff_t index;
};

static struct kmem_cache *dmm_user_cache;

static struct dmm_shared *dmm_shared(struct page *page)
{
	return (struct dmm_shared *)page_private(page);
}

static int dmm_user_cmp(struct kvm_dmm_pool *pool, pgoff_t index,
			const struct dmm_user *user)
{
	if (pool != user->pool)
		return pool < user->pool ? -1 : 1;
	if (index != user->index)
		return index < user->index ? -1 : 1;
	return 0;
}

static void dmm_user_insert(struct dmm_shared *shared, struct dmm_user *user)
{
	struct rb_node **link = &shared->users.rb_node, *parent = NULL;

	lockdep_assert_held(&shared->lock);
	while (*link) {
		parent = *link;
		if (dmm_user_cmp(user->pool, user->index,
				 rb_entry(parent, struct dmm_user, node)) < 0)
			link = &parent->rb_left;
		else
			link = &parent->rb_right;
	}
	rb_link_node(&user->node, parent, link);
	rb_insert_color(&user->node, &shared->users);
	shared->nr++;
}

static struct dmm_user *dmm_user_find(struct dmm_shared *shared,
				      struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct rb_node *node = shared->users.rb_node;

	lockdep_assert_held(&shared->lock);
	while (node) {
		struct dmm_user *user = rb_entry(node, struct dmm_user, node);
		int cmp = dmm_user_cmp(pool, index, user);

		if (!cmp)
			return user;
		node = cmp < 0 ? node->rb_left : node->rb_right;
	}
	return NULL;
}

static struct dmm_user *dmm_user_alloc(struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct dmm_user *user = kmem_cache_alloc(dmm_user_cache, GFP_NOIO);

	if (user) {
		user->pool = pool;
		user->index = index;
	}
	return user;
}

static void dmm_user_free(struct dmm_user *user)
{
	if (user)
		kmem_cache_free(dmm_user_cache, user);
}

/*
 * Count the users to come, if the pools may share: only those that were put
 * into the same domain do.  dmm_set_domain() reads the count under the lock.
 */
static bool dmm_reserve_users(struct kvm_dmm_pool *to, bool first,
			      struct kvm_dmm_pool *from)
{
	bool ok;

	spin_lock(&dmm_names_lock);
	ok = to == from || (to->domain[0] && !strcmp(to->domain, from->domain));
	if (ok) {
		atomic_long_add(first, &to->nr_shared);
		atomic_long_inc(&from->nr_shared);
	}
	spin_unlock(&dmm_names_lock);
	return ok;
}

/* Bytes of two pages that nobody can write. */
static bool dmm_same_content(struct page *a, struct page *b)
{
	void *ka = kmap_local_page(a);
	void *kb = kmap_local_page(b);
	bool same = !memcmp(ka, kb, PAGE_SIZE);

	kunmap_local(kb);
	kunmap_local(ka);
	return same;
}

/* Turn the frozen frame at @index of @batch into one with @user as its only. */
static void dmm_shared_create(struct kvm_dmm_batch *batch, struct page *page,
			      struct dmm_shared *shared, struct dmm_user *user)
{
	spin_lock_init(&shared->lock);
	shared->users = RB_ROOT;
	shared->nr = 0;
	shared->charged = user;
	spin_lock(&shared->lock);
	dmm_user_insert(shared, user);
	spin_unlock(&shared->lock);

	page_ref_unfreeze(page, 1);
	dmm_frame_disown(page);
	set_page_private(page, (unsigned long)shared);
	dmm_count(batch->pool, DMM_STAT_share);
}

/**
 * kvm_dmm_batch_add_shared - try to own an entry that has a shared frame
 * @batch: the batch, of the region in which @index lies
 * @index: page offset
 *
 * For kvm_dmm_batch_share() only.
 *
 * Context: Any; does not sleep.
 * Return: The frame, or NULL.
 */
struct page *kvm_dmm_batch_add_shared(struct kvm_dmm_batch *batch,
				      pgoff_t index)
{
	u64 *entry = dmm_entry(batch->region, index);
	u64 e = READ_ONCE(*entry);

	if (e & DMM_BUSY || dmm_kind(e) != KVM_DMM_SHARED ||
	    !dmm_trylock(batch->region, entry, e))
		return NULL;
	dmm_batch_insert(batch, index);
	return dmm_page(e);
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_add_shared);

/* The entry at @index of @batch, 0 if the batch does not own it. */
static u64 dmm_owned(struct kvm_dmm_batch *batch, pgoff_t index)
{
	unsigned int i = index & (KVM_DMM_REGION_PAGES - 1);

	return test_bit(i, batch->locked) ?
	       dmm_content(READ_ONCE(batch->region->entry[i])) : 0;
}

/**
 * kvm_dmm_batch_share - merge two frames with the same content
 * @to: batch that owns the entry whose frame stays: either one added by
 *	kvm_dmm_batch_add_shared(), or a taken or protected frame
 * @to_index: its page offset
 * @from: batch that owns the entry whose frame goes, by kvm_dmm_batch_take();
 *	may be @to
 * @from_index: its page offset
 *
 * Both entries leave their batches.
 *
 * Context: May sleep.
 * Return: 0; -ENOENT: an entry is not in its batch; -EINVAL: it is twice the
 *	same entry, or the contents differ; -EPERM: the pools are in different
 *	domains; -EBUSY: a policy keeps a copy of a frame; -ENOMEM.  On error
 *	both stay as they were.
 */
int kvm_dmm_batch_share(struct kvm_dmm_batch *to, pgoff_t to_index,
			struct kvm_dmm_batch *from, pgoff_t from_index)
{
	struct page *old = kvm_dmm_batch_page(from, from_index);
	struct dmm_user *user, *first = NULL;
	struct dmm_shared *shared = NULL;
	u64 e = dmm_owned(to, to_index);
	struct page *page;
	bool exists;

	exists = dmm_kind(e) == KVM_DMM_SHARED;
	page = exists ? dmm_page(e) : kvm_dmm_batch_page(to, to_index);
	if (!page || !old)
		return -ENOENT;
	if (page == old || !dmm_same_content(page, old))
		return -EINVAL;
	if ((e | dmm_owned(from, from_index)) & DMM_KEPT)
		return -EBUSY;
	if (!dmm_reserve_users(to->pool, !exists, from->pool))
		return -EPERM;

	user = dmm_user_alloc(from->pool, from_index);
	if (!exists) {
		first = dmm_user_alloc(to->pool, to_index);
		shared = kmalloc(sizeof(*shared), GFP_NOIO | __GFP_ACCOUNT);
	}
	if (!user || (!exists && (!first || !shared))) {
		dmm_user_free(user);
		dmm_user_free(first);
		kfree(shared);
		atomic_long_sub(!exists, &to->pool->nr_shared);
		atomic_long_dec(&from->pool->nr_shared);
		return -ENOMEM;
	}

	/*
	 * As long as the entry of @to is busy its user cannot leave, so the
	 * shared frame stays until the new user is in.
	 */
	if (exists)
		shared = dmm_shared(page);
	else
		dmm_shared_create(to, page, shared, first);
	spin_lock(&shared->lock);
	dmm_user_insert(shared, user);
	spin_unlock(&shared->lock);
	dmm_count(from->pool, DMM_STAT_share);
	trace_kvm_dmm_share(from->pool, from_index, page_to_pfn(page));

	page_ref_unfreeze(old, 1);
	dmm_frame_disown(old);
	dmm_batch_set(from, from_index, dmm_mk_shared(page_to_pfn(page)));
	dmm_batch_set(to, to_index, dmm_mk_shared(page_to_pfn(page)));
	put_page(old);
	dmm_uncharge(from->pool, 1);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_share);

/**
 * dmm_shared_take_over - make a shared frame that of its last user
 * @pool: the pool
 * @page: the frame, of a busy entry of @pool
 *
 * With one user left nobody can be added: that takes the entry that the caller
 * owns.  Somebody may still hold the page for a former user, whose disk write
 * for example must not see what the last user writes: then it is not taken.
 *
 * Return: True if the frame now belongs to @pool alone; false if it is in use
 *	by others.
 */
bool dmm_shared_take_over(struct kvm_dmm_pool *pool, struct page *page)
{
	struct dmm_shared *shared = dmm_shared(page);

	spin_lock(&shared->lock);
	if (shared->nr > 1 || page_count(page) != 1 + folio_mapcount(page_folio(page))) {
		spin_unlock(&shared->lock);
		return false;
	}
	WARN_ON_ONCE(shared->charged->pool != pool);
	spin_unlock(&shared->lock);

	atomic_long_dec(&pool->nr_shared);
	dmm_user_free(shared->charged);
	kfree(shared);
	set_page_private(page, 0);
	return true;
}

/**
 * dmm_shared_leave - one user less
 * @pool: the pool
 * @index: page offset of a busy entry that no page table has any more; it gets
 *	a new value afterwards
 * @page: its shared frame; freed with its last user
 */
void dmm_shared_leave(struct kvm_dmm_pool *pool, pgoff_t index,
		      struct page *page)
{
	struct kvm_dmm_pool *charge = NULL, *uncharge = NULL;
	struct dmm_shared *shared = dmm_shared(page);
	struct dmm_user *user, *heir;
	bool last;

	spin_lock(&shared->lock);
	user = dmm_user_find(shared, pool, index);
	if (WARN_ON_ONCE(!user)) {
		spin_unlock(&shared->lock);
		return;
	}
	rb_erase(&user->node, &shared->users);
	last = !--shared->nr;
	if (shared->charged == user) {
		uncharge = pool;
		heir = rb_entry_safe(rb_first(&shared->users), struct dmm_user,
				     node);
		shared->charged = heir;
		/* The heir's pool lives as long as it is a user: charge now. */
		if (heir) {
			charge = heir->pool;
			dmm_charge_force(charge, 1);
		}
	}
	spin_unlock(&shared->lock);

	atomic_long_dec(&pool->nr_shared);
	dmm_user_free(user);
	if (uncharge)
		dmm_uncharge(uncharge, 1);
	if (last) {
		dmm_frame_disown(page);
		kfree(shared);
		put_page(page);
	}
}

int kvm_dmm_shared_init(void)
{
	dmm_user_cache = KMEM_CACHE(dmm_user, SLAB_ACCOUNT);
	return dmm_user_cache ? 0 : -ENOMEM;
}

void kvm_dmm_shared_exit(void)
{
	kmem_cache_destroy(dmm_user_cache);
}
