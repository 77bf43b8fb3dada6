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
 * struct kvm_dmm_shared - a shared frame; page_private() of the page points here
 * @lock: protects the rest; innermost but for dmm_names_lock
 * @ref: one for all users together, and one for each handle
 * @page: the frame; NULL when it is dead: the last user left or took it over
 * @users: tree of struct dmm_user by pool and offset
 * @nr: number of users
 * @charged: the user whose pool is charged for the frame
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
	struct dmm_user *charged;
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
#define DMM_MAX_USERS	(1U << 16)

static struct kmem_cache *dmm_shared_cache;
static struct kmem_cache *dmm_user_cache;

static struct kvm_dmm_shared *dmm_shared(struct page *page)
{
	return (struct kvm_dmm_shared *)page_private(page);
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

static void dmm_user_insert(struct kvm_dmm_shared *shared, struct dmm_user *user)
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

static struct dmm_user *dmm_user_find(struct kvm_dmm_shared *shared,
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
 * May @pool use a frame that @other uses?  Only pools that were put into the
 * same domain share.  A user is counted with the answer: dmm_set_domain() finds
 * all that came before it has changed the name.
 */
static bool dmm_may_share(struct kvm_dmm_pool *pool, struct kvm_dmm_pool *other)
{
	bool ok;

	spin_lock(&dmm_names_lock);
	ok = pool == other ||
	     (pool->domain[0] && !strcmp(pool->domain, other->domain));
	if (ok)
		atomic_long_inc(&pool->nr_shared);
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

/**
 * kvm_dmm_batch_add_shared - try to own an entry that has a shared frame
 * @batch: the batch, of the region in which @index lies
 * @index: page offset
 *
 * For kvm_dmm_batch_handle(), and to look at the content.
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

/**
 * kvm_dmm_shared_put - give a handle back
 * @shared: the handle; an error pointer or NULL does nothing
 *
 * Context: Any.
 */
void kvm_dmm_shared_put(struct kvm_dmm_shared *shared)
{
	if (!IS_ERR_OR_NULL(shared) && refcount_dec_and_test(&shared->ref))
		kmem_cache_free(dmm_shared_cache, shared);
}
EXPORT_SYMBOL_GPL(kvm_dmm_shared_put);

/**
 * kvm_dmm_shared_get - one more reference of a handle
 * @shared: a handle on which the caller has a reference
 *
 * Context: Any.
 * Return: @shared.
 */
struct kvm_dmm_shared *kvm_dmm_shared_get(struct kvm_dmm_shared *shared)
{
	refcount_inc(&shared->ref);
	return shared;
}
EXPORT_SYMBOL_GPL(kvm_dmm_shared_get);

/**
 * kvm_dmm_shared_alive - does a handle still stand for a frame?
 * @shared: the handle
 *
 * Once dead, a handle stays so.
 *
 * Context: Any.
 * Return: False if no user is left, or the last has taken the frame over.
 */
bool kvm_dmm_shared_alive(struct kvm_dmm_shared *shared)
{
	return READ_ONCE(shared->page);
}
EXPORT_SYMBOL_GPL(kvm_dmm_shared_alive);

/*
 * The frame of a handle, with a reference, or NULL.  The reference keeps the
 * last user from taking it over, so that the content stays: both look at the
 * count, or raise it, under the lock.
 */
static struct page *dmm_shared_get_page(struct kvm_dmm_shared *shared)
{
	struct page *page;

	spin_lock(&shared->lock);
	page = shared->page;
	if (page)
		get_page(page);
	spin_unlock(&shared->lock);
	return page;
}

/* A handle that stands for nothing yet, with a user to be. */
static struct kvm_dmm_shared *dmm_shared_alloc(struct kvm_dmm_pool *pool,
					       pgoff_t index)
{
	struct kvm_dmm_shared *shared = kmem_cache_alloc(dmm_shared_cache,
							 GFP_NOIO);

	if (!shared)
		return NULL;
	shared->charged = dmm_user_alloc(pool, index);
	if (!shared->charged) {
		kmem_cache_free(dmm_shared_cache, shared);
		return NULL;
	}
	spin_lock_init(&shared->lock);
	refcount_set(&shared->ref, 1);
	shared->users = RB_ROOT;
	shared->nr = 0;
	return shared;
}

/*
 * Make @page, to which nobody else can write, a shared frame with one user.
 * The caller gets a reference of the handle.
 */
static void dmm_shared_start(struct kvm_dmm_shared *shared, struct page *page)
{
	spin_lock(&shared->lock);
	shared->page = page;
	dmm_user_insert(shared, shared->charged);
	spin_unlock(&shared->lock);
	refcount_inc(&shared->ref);
	atomic_long_inc(&shared->charged->pool->nr_shared);
	page->mapping = NULL;
	set_page_private(page, (unsigned long)shared);
}

/**
 * dmm_shared_create - make a new page a shared frame with one user
 * @pool: the pool, which is charged for the page
 * @index: page offset of a busy entry that is set to the frame
 * @page: a page that nobody else knows
 *
 * Context: May sleep, but not reclaim through policies.
 * Return: A handle with a reference for the caller, or NULL without memory.
 */
struct kvm_dmm_shared *dmm_shared_create(struct kvm_dmm_pool *pool,
					 pgoff_t index, struct page *page)
{
	struct kvm_dmm_shared *shared = dmm_shared_alloc(pool, index);

	if (shared)
		dmm_shared_start(shared, page);
	return shared;
}

/**
 * dmm_shared_join - one user more
 * @shared: a handle
 * @pool: the pool
 * @index: page offset of a busy entry that no page table has
 *
 * Whoever comes back with 0 sets the entry to the frame, which stays until
 * then, as its user.
 *
 * Context: May sleep, but not reclaim through policies.
 * Return: The frame; or an error: -ESTALE: the handle is dead; -EPERM: the
 *	pools are in different domains; -EMLINK: too many users; -ENOMEM.
 */
struct page *dmm_shared_join(struct kvm_dmm_shared *shared,
			     struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct dmm_user *user = dmm_user_alloc(pool, index);
	struct page *page;
	int r = 0;

	if (!user)
		return ERR_PTR(-ENOMEM);
	spin_lock(&shared->lock);
	page = shared->page;
	if (!page)
		r = -ESTALE;
	else if (shared->nr >= DMM_MAX_USERS)
		r = -EMLINK;
	else if (!dmm_may_share(pool, shared->charged->pool))
		r = -EPERM;
	else
		dmm_user_insert(shared, user);
	spin_unlock(&shared->lock);
	if (r) {
		dmm_user_free(user);
		return ERR_PTR(r);
	}
	dmm_count(pool, DMM_STAT_share);
	trace_kvm_dmm_share(pool, index, page_to_pfn(page));
	return page;
}

/**
 * dmm_shared_matches - does a shared frame have this content?
 * @shared: a handle
 * @page: a page that nobody can write to
 *
 * Context: Any.
 * Return: 0; -ESTALE: the handle is dead; -EINVAL: it has other content.
 */
int dmm_shared_matches(struct kvm_dmm_shared *shared, struct page *page)
{
	struct page *other;
	bool same;

	other = dmm_shared_get_page(shared);
	if (!other)
		return -ESTALE;
	same = dmm_same_content(other, page);
	put_page(other);
	return same ? 0 : -EINVAL;
}

/* A kept frame that gets shared: nobody can hand the token back any more. */
static void dmm_unkeep(struct kvm_dmm_pool *pool, u64 e)
{
	if (e & DMM_KEPT)
		dmm_free_token(pool, dmm_policy_id(e),
			       page_private(dmm_page(e)));
}

/**
 * kvm_dmm_batch_handle - get a handle of a shared frame
 * @batch: the batch
 * @index: page offset of an entry added by kvm_dmm_batch_add_shared(), or of a
 *	protected or taken frame, which becomes a shared one
 *
 * A frame that becomes shared leaves the batch, with the offset as its only
 * user, and is read-only from then on.  The handle is good for
 * kvm_dmm_batch_join() as long as the frame has users; it does not keep it.
 *
 * Context: May sleep.
 * Return: The handle, for kvm_dmm_shared_put(); or an error: -ENOENT: the entry
 *	is not in the batch; -ENOMEM.  On error it stays as it was.
 */
struct kvm_dmm_shared *kvm_dmm_batch_handle(struct kvm_dmm_batch *batch,
					    pgoff_t index)
{
	unsigned int i = index & (KVM_DMM_REGION_PAGES - 1);
	struct kvm_dmm_pool *pool = batch->pool;
	struct kvm_dmm_shared *shared;
	struct page *page;
	u64 e;

	if (!test_bit(i, batch->locked))
		return ERR_PTR(-ENOENT);
	e = dmm_content(READ_ONCE(batch->region->entry[i]));
	page = dmm_page(e);
	if (dmm_kind(e) == KVM_DMM_SHARED)
		return kvm_dmm_shared_get(dmm_shared(page));
	if (!test_bit(i, batch->frozen))
		return ERR_PTR(-ENOENT);

	shared = dmm_shared_alloc(pool, index);
	if (!shared)
		return ERR_PTR(-ENOMEM);
	dmm_unkeep(pool, e);
	page_ref_unfreeze(page, 1);
	dmm_frame_disown(page);
	dmm_shared_start(shared, page);
	dmm_batch_set(batch, index, dmm_mk_shared(page_to_pfn(page)));
	return shared;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_handle);

/**
 * kvm_dmm_batch_join - use a shared frame instead of one of one's own
 * @batch: a batch after kvm_dmm_batch_take()
 * @index: page offset; its entry leaves the batch
 * @shared: a handle
 *
 * No other entry is locked for it, so it works for any two pools.
 *
 * Context: May sleep.
 * Return: 0; -ENOENT: the entry is not in the batch, or only protected;
 *	-ESTALE: the handle is dead; -EINVAL: the contents differ; -EPERM: the
 *	pools are in different domains; -EMLINK: the frame has as many users as
 *	it can have: share another one; -ENOMEM.  On error the entry stays.
 */
int kvm_dmm_batch_join(struct kvm_dmm_batch *batch, pgoff_t index,
		       struct kvm_dmm_shared *shared)
{
	struct page *old = kvm_dmm_batch_page(batch, index);
	struct kvm_dmm_pool *pool = batch->pool;
	struct page *page;
	int r;

	if (!old || !batch->taken)
		return -ENOENT;
	r = dmm_shared_matches(shared, old);
	if (r)
		return r;
	/* If it had died in between, it would still be dead. */
	page = dmm_shared_join(shared, pool, index);
	if (IS_ERR(page))
		return PTR_ERR(page);

	dmm_unkeep(pool, READ_ONCE(*dmm_entry(batch->region, index)));
	page_ref_unfreeze(old, 1);
	dmm_frame_disown(old);
	dmm_batch_set(batch, index, dmm_mk_shared(page_to_pfn(page)));
	put_page(old);
	dmm_uncharge(pool, 1);
	return 0;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_join);

/**
 * dmm_shared_take_over - make a shared frame that of its last user
 * @pool: the pool
 * @page: the frame, of a busy entry of @pool
 *
 * Somebody may still hold the page for a former user, whose disk write for
 * example must not see what the last user writes, or compare it with what is
 * about to join: then it is not taken.
 *
 * Return: True if the frame now belongs to @pool alone; false if it is in use
 *	by others.
 */
bool dmm_shared_take_over(struct kvm_dmm_pool *pool, struct page *page)
{
	struct kvm_dmm_shared *shared = dmm_shared(page);

	spin_lock(&shared->lock);
	if (shared->nr > 1 || page_count(page) != 1 + folio_mapcount(page_folio(page))) {
		spin_unlock(&shared->lock);
		return false;
	}
	WARN_ON_ONCE(shared->charged->pool != pool);
	shared->page = NULL;
	spin_unlock(&shared->lock);

	atomic_long_dec(&pool->nr_shared);
	dmm_user_free(shared->charged);
	set_page_private(page, 0);
	kvm_dmm_shared_put(shared);
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
	struct kvm_dmm_shared *shared = dmm_shared(page);
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
	if (last)
		shared->page = NULL;
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
		put_page(page);
		kvm_dmm_shared_put(shared);
	}
}

int kvm_dmm_shared_init(void)
{
	dmm_shared_cache = KMEM_CACHE(kvm_dmm_shared, SLAB_ACCOUNT);
	if (!dmm_shared_cache)
		return -ENOMEM;
	dmm_user_cache = KMEM_CACHE(dmm_user, SLAB_ACCOUNT);
	if (!dmm_user_cache) {
		kmem_cache_destroy(dmm_shared_cache);
		return -ENOMEM;
	}
	return 0;
}

void kvm_dmm_shared_exit(void)
{
	kmem_cache_destroy(dmm_user_cache);
	kmem_cache_destroy(dmm_shared_cache);
}
