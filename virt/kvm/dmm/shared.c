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

#include "shared.h"

static struct kmem_cache *dmm_shared_cache;
static struct kmem_cache *dmm_user_cache;

/* With entries busy: no effort for long, and nobody is killed for it. */
#define DMM_SHARED_GFP	(GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN)

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

/**
 * dmm_user_find - the user at an offset of a pool
 * @shared: the handle, locked
 * @pool: the pool
 * @index: page offset
 *
 * Return: The user; or NULL, if it is none, or one of @shared->nr_kin.
 */
struct dmm_user *dmm_user_find(struct kvm_dmm_shared *shared,
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
	struct dmm_user *user = kmem_cache_alloc(dmm_user_cache,
						 DMM_SHARED_GFP);

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
 * Only pools that were put into the same domain share what was not cloned.
 * dmm_set_domain() changes the name under the lock and then looks for users, so
 * it finds all that came before.  Meanwhile a pool shares nothing with itself,
 * either: users of the old domain may be left in what it is charged for::
 *
 *	dmm_set_domain()			a policy of the pool
 *	----------------			--------------------
 *	name gone
 *	page 100: a frame of its own
 *						100 joins what 900 has
 *	page 900: a copy; others are
 *	left, with page 100
 */
static bool dmm_same_domain(struct kvm_dmm_pool *pool,
			    struct kvm_dmm_pool *other)
{
	bool same;

	spin_lock(&dmm_names_lock);
	same = pool == other ? !pool->moving :
	       pool->domain[0] && !strcmp(pool->domain, other->domain);
	spin_unlock(&dmm_names_lock);
	return same;
}

/* May @pool join what @shared has?  Its lock is held. */
static bool dmm_may_join(struct kvm_dmm_shared *shared,
			 struct kvm_dmm_pool *pool)
{
	struct dmm_family *family = shared->family;
	struct kvm_dmm_pool *kin;
	bool ok = true;

	lockdep_assert_held(&shared->lock);
	if (shared->mixed || PageHWPoison(shared->page) ||
	    !dmm_same_domain(pool, shared->charged))
		return false;
	if (!shared->nr_kin || family == pool->family)
		return true;
	/* Clones need not be in the domain of what they were cloned from. */
	spin_lock(&family->lock);
	list_for_each_entry(kin, &family->pools, kin) {
		ok = dmm_same_domain(pool, kin);
		if (!ok)
			break;
	}
	spin_unlock(&family->lock);
	return ok;
}

/* Two pages that nobody can write.  Four words at once: most are equal. */
static bool dmm_same_content(struct page *a, struct page *b)
{
	u64 *ka = kmap_local_page(a);
	u64 *kb = kmap_local_page(b);
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*ka); i += 4)
		if ((ka[i] ^ kb[i]) | (ka[i + 1] ^ kb[i + 1]) |
		    (ka[i + 2] ^ kb[i + 2]) | (ka[i + 3] ^ kb[i + 3]))
			break;
	kunmap_local(kb);
	kunmap_local(ka);
	return i == PAGE_SIZE / sizeof(*ka);
}

/**
 * kvm_dmm_batch_add_shared - try to own an entry that has a shared frame
 * @batch: the batch, of the region in which @index lies
 * @index: page offset
 *
 * For kvm_dmm_batch_handle(), and to look at the content.
 *
 * Context: Any; does not sleep.
 * Return: The frame, or NULL; also if its memory has failed.
 */
struct page *kvm_dmm_batch_add_shared(struct kvm_dmm_batch *batch,
				      pgoff_t index)
{
	u64 *entry = dmm_entry(batch->region, index);
	u64 e = READ_ONCE(*entry);

	if (e & DMM_BUSY || dmm_kind(e) != KVM_DMM_SHARED ||
	    PageHWPoison(dmm_page(e)) || !dmm_trylock(batch->region, entry, e))
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

/**
 * kvm_dmm_shared_copies - do writes to a shared frame always copy?
 * @shared: the handle
 *
 * Context: Any.
 * Return: True after kvm_dmm_shared_always_copy().
 */
bool kvm_dmm_shared_copies(struct kvm_dmm_shared *shared)
{
	return READ_ONCE(shared->copy);
}
EXPORT_SYMBOL_GPL(kvm_dmm_shared_copies);

/**
 * kvm_dmm_shared_always_copy - let writes to a shared frame take the same time
 * @shared: the handle
 *
 * From now on the last user copies, too, instead of taking the frame over: the
 * time that a write takes does not tell whether anybody else has the content.
 *
 * Context: Any.
 */
void kvm_dmm_shared_always_copy(struct kvm_dmm_shared *shared)
{
	spin_lock(&shared->lock);
	WRITE_ONCE(shared->copy, true);
	spin_unlock(&shared->lock);
}
EXPORT_SYMBOL_GPL(kvm_dmm_shared_always_copy);

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

/* A handle that stands for nothing yet, with a reference for the caller. */
static struct kvm_dmm_shared *dmm_shared_alloc(struct kvm_dmm_pool *pool)
{
	struct kvm_dmm_shared *shared = kmem_cache_zalloc(dmm_shared_cache,
							  DMM_SHARED_GFP);

	if (!shared)
		return NULL;
	spin_lock_init(&shared->lock);
	refcount_set(&shared->ref, 1);
	shared->users = RB_ROOT;
	shared->charged = pool;
	return shared;
}

/* Make @page, to which nobody else can write, a shared frame with one user. */
static void dmm_shared_start(struct kvm_dmm_shared *shared, struct page *page,
			     struct dmm_user *user)
{
	spin_lock(&shared->lock);
	shared->page = page;
	dmm_user_insert(shared, user);
	spin_unlock(&shared->lock);
	refcount_inc(&shared->ref);
	atomic_long_inc(&user->pool->nr_shared);
	page->mapping = NULL;
	set_page_private(page, (unsigned long)shared);
}

/*
 * The handle of a shared frame of a busy entry of @pool, with a reference for
 * the caller.  A frame that clones share gets one now.
 */
static struct kvm_dmm_shared *dmm_shared_of(struct kvm_dmm_pool *pool,
					    pgoff_t index, struct page *page)
{
	struct kvm_dmm_shared *shared, *new = NULL;

	if (READ_ONCE(page->private) & DMM_LIGHT) {
		new = dmm_shared_alloc(pool);
		if (!new)
			return NULL;
	}
	shared = dmm_shared_lock(pool, page);
	if (shared) {
		refcount_inc(&shared->ref);
		dmm_shared_unlock(pool, shared);
		kvm_dmm_shared_put(new);
		return shared;
	}
	refcount_inc(&new->ref);
	new->page = page;
	new->nr = page->index;
	new->nr_kin = page->index;
	new->family = pool->family;
	new->index = index;
	new->charged = dmm_light_charged(page);
	/* Who finds the handle takes its lock, not the family's. */
	smp_store_release(&page->private, (unsigned long)new);
	dmm_shared_unlock(pool, NULL);
	return new;
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
	struct kvm_dmm_shared *shared = dmm_shared_alloc(pool);
	struct dmm_user *user = dmm_user_alloc(pool, index);

	if (!shared || !user) {
		kvm_dmm_shared_put(shared);
		dmm_user_free(user);
		return NULL;
	}
	dmm_shared_start(shared, page, user);
	return shared;
}

/**
 * dmm_shared_join - one user more
 * @shared: a handle
 * @pool: the pool
 * @index: page offset of a busy entry that no page table has
 * @clone: the user asked for it: whatever the domains
 *
 * Whoever comes back with a frame sets the entry to it.  The frame stays until
 * then, as the entry is its user.
 *
 * Context: May sleep, but not reclaim through policies.
 * Return: The frame; or an error: -ESTALE: the handle is dead; -EPERM: the
 *	pools are in different domains, or its memory has failed; -EMLINK: too
 *	many users; -ENOMEM.
 */
struct page *dmm_shared_join(struct kvm_dmm_shared *shared,
			     struct kvm_dmm_pool *pool, pgoff_t index,
			     bool clone)
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
	else if (clone)
		shared->mixed |= !dmm_same_domain(pool, shared->charged);
	else if (!dmm_may_join(shared, pool))
		r = -EPERM;
	if (!r) {
		dmm_user_insert(shared, user);
		atomic_long_inc(&pool->nr_shared);
	}
	spin_unlock(&shared->lock);
	if (r) {
		dmm_user_free(user);
		return ERR_PTR(r);
	}
	dmm_count(pool, clone ? DMM_STAT_clone : DMM_STAT_share);
	trace_kvm_dmm_share(pool, index, page_to_pfn(page));
	return page;
}

/**
 * dmm_shared_matches - does a shared frame have this content?
 * @shared: a handle
 * @page: a page that nobody can write to
 *
 * Context: Any.
 * Return: 0; -ESTALE: the handle is dead; -EINVAL: it has other content, or its
 *	memory has failed.
 */
int dmm_shared_matches(struct kvm_dmm_shared *shared, struct page *page)
{
	struct page *other;
	bool same;

	other = dmm_shared_get_page(shared);
	if (!other)
		return -ESTALE;
	same = !PageHWPoison(other) && dmm_same_content(other, page);
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

/*
 * A frame of a batch becomes a shared one; with @to, its content moves there, and
 * the reference of @to is the map's.
 */
static struct kvm_dmm_shared *dmm_batch_share(struct kvm_dmm_batch *batch,
					      pgoff_t index, struct page *to)
{
	struct page *page = kvm_dmm_batch_page(batch, index);
	struct kvm_dmm_pool *pool = batch->pool;
	struct kvm_dmm_shared *shared;
	struct dmm_user *user;
	int r = 0;

	if (!page)
		return ERR_PTR(-ENOENT);
	shared = dmm_shared_alloc(pool);
	user = dmm_user_alloc(pool, index);
	if (!shared || !user)
		r = -ENOMEM;
	else if (to)
		r = dmm_frame_copy(to, page);
	if (r) {
		kvm_dmm_shared_put(shared);
		dmm_user_free(user);
		return ERR_PTR(r);
	}
	dmm_unkeep(pool, READ_ONCE(*dmm_entry(batch->region, index)));
	page_ref_unfreeze(page, 1);
	dmm_frame_disown(page);
	dmm_shared_start(shared, to ?: page, user);
	/* What was only protected is still read. */
	dmm_batch_set(batch, index, dmm_mk_shared(page_to_pfn(to ?: page)) |
				    (batch->taken ? 0 : DMM_CACHED));
	if (to)
		put_page(page);
	return shared;
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
	u64 e;

	if (!test_bit(i, batch->locked))
		return ERR_PTR(-ENOENT);
	e = dmm_content(READ_ONCE(batch->region->entry[i]));
	if (dmm_kind(e) == KVM_DMM_SHARED)
		return dmm_shared_of(batch->pool, index, dmm_page(e)) ?:
		       ERR_PTR(-ENOMEM);
	return dmm_batch_share(batch, index, NULL);
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_handle);

/**
 * kvm_dmm_batch_handle_in - the same, and choose the page
 * @batch: a batch after kvm_dmm_batch_take()
 * @index: page offset of a frame in it, which leaves the batch
 * @to: a page from kvm_dmm_batch_alloc(); becomes the shared frame, with the
 *	content, instead of the frame that was there, which is freed
 *
 * Context: May sleep.
 * Return: The handle, for kvm_dmm_shared_put(); or an error: -ENOENT: the entry
 *	is not in the batch, or only protected; -EHWPOISON: the frame has failed;
 *	-ENOMEM.  On error it stays as it was, and @to is the caller's.
 */
struct kvm_dmm_shared *kvm_dmm_batch_handle_in(struct kvm_dmm_batch *batch,
					       pgoff_t index, struct page *to)
{
	return batch->taken ? dmm_batch_share(batch, index, to) :
			      ERR_PTR(-ENOENT);
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_handle_in);

/**
 * kvm_dmm_batch_alloc - allocate a page to use instead of a frame
 * @batch: the batch
 * @index: page offset of a frame in it
 * @gfp: GFP_NOIO, or GFP_NOWAIT for one that can be had without effort
 *
 * It is charged to the control group that the frame is charged to, on its node if
 * that has memory, and not zeroed.
 *
 * Context: May sleep with GFP_NOIO, but does not wait for I/O.
 * Return: The page, for kvm_dmm_batch_handle_in() or __free_page(); or NULL.
 */
struct page *kvm_dmm_batch_alloc(struct kvm_dmm_batch *batch, pgoff_t index,
				 gfp_t gfp)
{
	struct page *page = kvm_dmm_batch_page(batch, index);

	if (!page)
		return NULL;
	/* Entries are busy: not much effort, and nobody is killed for it. */
	return dmm_alloc_in(dmm_frame_group(page), page_to_nid(page),
			    gfp | __GFP_HIGHMEM | __GFP_ACCOUNT |
			    __GFP_NORETRY | __GFP_NOWARN, 0);
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_alloc);

/* The frame of an entry added by kvm_dmm_batch_add_shared(), or NULL. */
static struct page *dmm_batch_shared_page(struct kvm_dmm_batch *batch,
					  pgoff_t index)
{
	unsigned int i = index & (KVM_DMM_REGION_PAGES - 1);
	u64 e;

	if (!test_bit(i, batch->locked))
		return NULL;
	e = dmm_batch_entry(batch, i);
	return dmm_kind(e) == KVM_DMM_SHARED ? dmm_page(e) : NULL;
}

/**
 * kvm_dmm_batch_offered - the handle that a shared frame has
 * @batch: the batch
 * @index: page offset of an entry added by kvm_dmm_batch_add_shared()
 *
 * As kvm_dmm_batch_handle(), but for a frame that clones share among themselves, and
 * that takes no memory for it.
 *
 * Context: Any.
 * Return: The handle, for kvm_dmm_shared_put(), or NULL.
 */
struct kvm_dmm_shared *kvm_dmm_batch_offered(struct kvm_dmm_batch *batch,
					     pgoff_t index)
{
	struct page *page = dmm_batch_shared_page(batch, index);
	struct kvm_dmm_shared *shared;

	if (!page)
		return NULL;
	shared = dmm_shared_lock(batch->pool, page);
	if (shared)
		refcount_inc(&shared->ref);
	dmm_shared_unlock(batch->pool, shared);
	return shared;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_offered);

/*
 * Leave a shared frame for another one::
 *
 *	here				a fault, or who evicts one of the frames
 *	----				----------------------------------------
 *	(the entry is busy)
 *	a. nobody holds the old frame
 *	b. join the new one
 *					1. finds this user of either: busy, leaves it
 *	c. out of all page tables
 *					2. a fault waits for d
 *	d. leave the old one, set
 *
 * Who gets a reference between a and c reads the old frame, which nobody writes as
 * long as it is shared or held: as behind a copy on write.  With b begun nothing
 * fails any more, so a detach, or a kill, finds the entry with one or the other.
 */
static int dmm_batch_change(struct kvm_dmm_batch *batch, pgoff_t index,
			    struct page *old, struct kvm_dmm_shared *shared)
{
	unsigned int i = index & (KVM_DMM_REGION_PAGES - 1);
	struct kvm_dmm_pool *pool = batch->pool;
	struct page *page;
	struct kvm_dmm_batch one;
	int r;

	/* Its own frame stays, as this entry is a user. */
	if (READ_ONCE(shared->page) == old)
		return 0;
	if (dmm_shared_held(pool, old))
		return -EBUSY;
	r = dmm_shared_matches(shared, old);
	if (r)
		return r;
	page = dmm_shared_join(shared, pool, index, false);
	if (IS_ERR(page))
		return PTR_ERR(page);

	__clear_bit(i, batch->locked);
	dmm_batch_hold(&one, pool, batch->region, index);
	dmm_batch_unmap(&one);
	dmm_shared_leave(batch->region, pool, index, old);
	dmm_batch_set(&one, index, dmm_mk_shared(page_to_pfn(page)));
	return 0;
}

/**
 * kvm_dmm_batch_join - use a shared frame instead of what there is
 * @batch: a batch
 * @index: page offset of a taken frame, or of an entry added by
 *	kvm_dmm_batch_add_shared(); it leaves the batch
 * @shared: a handle
 *
 * No other entry is locked for it, so it works for any two pools.
 *
 * Context: May sleep.
 * Return: 0, also, for a shared frame, if it was that one; -ENOENT: the entry is
 *	not in the batch, or only protected; -EBUSY: somebody holds the shared
 *	frame that is there; -ESTALE: the handle is dead; -EINVAL: the contents
 *	differ; -EPERM: the pools are in different domains; -EMLINK: the frame has
 *	as many users as it can have: share another one; -ENOMEM.  On error the
 *	entry stays.
 */
int kvm_dmm_batch_join(struct kvm_dmm_batch *batch, pgoff_t index,
		       struct kvm_dmm_shared *shared)
{
	struct page *old = kvm_dmm_batch_page(batch, index);
	struct kvm_dmm_pool *pool = batch->pool;
	struct page *page;
	int r;

	page = dmm_batch_shared_page(batch, index);
	if (page)
		return dmm_batch_change(batch, index, page, shared);
	if (!old || !batch->taken)
		return -ENOENT;
	r = dmm_shared_matches(shared, old);
	if (r)
		return r;
	/* If it had died in between, it would still be dead. */
	page = dmm_shared_join(shared, pool, index, false);
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
	struct kvm_dmm_shared *shared = dmm_shared_lock(pool, page);
	unsigned long nr = shared ? shared->nr : page->index;

	if (nr > 1 || (shared && shared->copy) ||
	    !dmm_only_mapped(page)) {
		dmm_shared_unlock(pool, shared);
		return false;
	}
	if (shared) {
		WARN_ON_ONCE(shared->charged != pool);
		shared->page = NULL;
		dmm_user_free(rb_entry_safe(rb_first(&shared->users),
					    struct dmm_user, node));
	} else {
		WARN_ON_ONCE(dmm_light_charged(page) != pool);
	}
	set_page_private(page, 0);
	dmm_shared_unlock(pool, shared);

	atomic_long_dec(&pool->nr_shared);
	kvm_dmm_shared_put(shared);
	return true;
}

/* The entry is busy and no user of what it has any more. */
static void dmm_clear_entry(u64 *entry)
{
	u64 e = READ_ONCE(*entry);

	/* Waiters may set their bit meanwhile. */
	while (!try_cmpxchg64(entry, &e, e & (DMM_BUSY | DMM_WAITERS)))
		;
}

/* Heirs that are looked at for one with room, and members before a guess. */
#define DMM_HEIRS	8U

static bool dmm_has_room(struct kvm_dmm_pool *pool)
{
	return dmm_used(pool) < dmm_max(pool);
}

/*
 * A member of @family but @pool whose entry at @index uses the frame, and can be
 * charged for it: one below its limit, if that is easily found.  The next time
 * somebody else is.
 *
 * In a large family nearly all may have written what they once had in common, and
 * a clone of one of them is the only one that uses the frame: then it uses the next
 * one as well.
 */
static struct kvm_dmm_pool *dmm_find_kin(struct dmm_family *family,
					 struct kvm_dmm_pool *pool,
					 pgoff_t index, struct page *page)
{
	struct kvm_dmm_pool *kin, *guess = NULL, *heir = NULL;
	unsigned int n = 0, looked = 0;
	bool room;

	lockdep_assert_held(&family->lock);
	/* It may use what another family has cloned. */
	if (pool->family == family)
		guess = pool->heir;
	list_for_each_entry(kin, &family->pools, kin) {
		if (kin != pool && dmm_uses(kin, index, page)) {
			room = dmm_has_room(kin);
			if (room || !heir)
				heir = kin;
			if (room || ++n == DMM_HEIRS)
				break;
		}
		if (++looked == DMM_HEIRS && !heir && guess &&
		    dmm_uses(guess, index, page) && dmm_has_room(guess))
			return guess;
	}
	if (heir)
		list_move_tail(&heir->kin, &family->pools);
	if (heir && pool->family == family)
		pool->heir = heir;
	return heir;
}

/**
 * dmm_find_heir - another pool that uses a frame and can be charged for it
 * @shared: the handle, locked
 * @pool: a user
 *
 * A user leaves under the lock by which it is found, so its pool stays until
 * then.
 *
 * Return: The pool, or NULL.
 */
struct kvm_dmm_pool *dmm_find_heir(struct kvm_dmm_shared *shared,
				   struct kvm_dmm_pool *pool)
{
	struct rb_node *first = rb_first(&shared->users);
	struct rb_node *last = rb_last(&shared->users);
	struct kvm_dmm_pool *heir;

	lockdep_assert_held(&shared->lock);
	/* The tree is in the order of pools. */
	if (first && rb_entry(first, struct dmm_user, node)->pool != pool)
		return rb_entry(first, struct dmm_user, node)->pool;
	if (last && rb_entry(last, struct dmm_user, node)->pool != pool)
		return rb_entry(last, struct dmm_user, node)->pool;
	if (!shared->nr_kin)
		return NULL;
	spin_lock(&shared->family->lock);
	heir = dmm_find_kin(shared->family, pool, shared->index, shared->page);
	spin_unlock(&shared->family->lock);
	return heir;
}

/**
 * dmm_shared_makes_room - does it make room for a copy to leave a frame?
 * @pool: the pool
 * @page: the frame, of a busy entry of @pool
 *
 * Return: True if @pool is charged for the frame, and either is the last user
 *	or shares it with another pool, which is charged then.
 */
bool dmm_shared_makes_room(struct kvm_dmm_pool *pool, struct page *page)
{
	struct kvm_dmm_shared *shared = dmm_shared_lock(pool, page);
	bool room;

	if (shared)
		room = shared->charged == pool &&
		       (shared->nr == 1 || dmm_find_heir(shared, pool));
	else
		room = dmm_light_charged(page) == pool;
	dmm_shared_unlock(pool, shared);
	return room;
}

/**
 * dmm_shared_leave - one user less
 * @region: the region of @index
 * @pool: the pool
 * @index: page offset of a busy entry that no page table has any more; it gets
 *	a new value afterwards
 * @page: its shared frame; freed with its last user
 */
void dmm_shared_leave(struct kvm_dmm_region *region, struct kvm_dmm_pool *pool,
		      pgoff_t index, struct page *page)
{
	struct kvm_dmm_shared *shared = dmm_shared_lock(pool, page);
	struct kvm_dmm_pool *heir = NULL;
	struct dmm_user *user = NULL;
	bool last, charged;

	dmm_clear_entry(dmm_entry(region, index));
	if (shared) {
		user = dmm_user_find(shared, pool, index);
		if (user)
			rb_erase(&user->node, &shared->users);
		else
			WARN_ON_ONCE(!shared->nr_kin--);
		last = !--shared->nr;
		charged = shared->charged == pool;
		if (charged && !last)
			heir = dmm_find_heir(shared, pool);
		if (heir)
			shared->charged = heir;
		if (last)
			shared->page = NULL;
	} else {
		last = !--page->index;
		charged = dmm_light_charged(page) == pool;
		if (charged && !last) {
			heir = dmm_find_kin(pool->family, pool, index, page);
			WARN_ON_ONCE(!heir);
		}
		if (heir)
			set_page_private(page, (unsigned long)heir | DMM_LIGHT);
	}
	if (heir)
		dmm_charge_force(heir, 1);
	dmm_shared_unlock(pool, shared);

	atomic_long_dec(&pool->nr_shared);
	dmm_user_free(user);
	/* Without an heir the pool uses it at another offset. */
	if (charged && (heir || last))
		dmm_uncharge(pool, 1);
	if (last) {
		dmm_frame_disown(page);
		put_page(page);
		kvm_dmm_shared_put(shared);
	}
}

/**
 * dmm_shared_copy - leave a shared frame for a copy of it
 * @region: the region of @index
 * @pool: the pool
 * @index: page offset of a busy entry that no page table has any more; it gets
 *	@page afterwards
 * @shared: its shared frame
 * @page: the copy, charged to @pool
 *
 * Return: 0; -EHWPOISON: the memory has failed, and nothing was done.
 */
int dmm_shared_copy(struct kvm_dmm_region *region, struct kvm_dmm_pool *pool,
		    pgoff_t index, struct page *shared, struct page *page)
{
	int r = dmm_frame_copy(page, shared);

	if (r)
		return r;
	dmm_shared_leave(region, pool, index, shared);
	dmm_count(pool, DMM_STAT_cow);
	trace_kvm_dmm_cow(pool, index, page_to_pfn(page));
	return 0;
}

/*
 * Is the frame of a busy entry to be separated?  See dmm_unshare().  If not, as only
 * clones have it, nobody joins it from now on.
 */
static bool dmm_must_copy(struct kvm_dmm_pool *pool, pgoff_t index,
			  struct page *page, bool foreign)
{
	struct kvm_dmm_shared *shared = dmm_shared_lock(pool, page);
	struct rb_node *first, *last;
	bool copy = false;

	if (!shared)
		goto unlock;
	first = rb_first(&shared->users);
	last = rb_last(&shared->users);
	copy = first;
	if (!copy && !foreign)
		shared->mixed = true;
	/* The tree is in the order of pools. */
	if (copy && foreign)
		copy = rb_entry(first, struct dmm_user, node)->pool != pool ||
		       rb_entry(last, struct dmm_user, node)->pool != pool ||
		       (shared->nr_kin && shared->family != pool->family);
unlock:
	dmm_shared_unlock(pool, shared);
	return copy;
}

/**
 * dmm_unshare - give a pool frames of its own again
 * @pool: the pool
 * @foreign: only where other pools share the frame
 *
 * What only clones share, at the same offset, stays so: nobody looks for that.
 * What is about to be shared by others is found as long as they may not any
 * more, by the domain, or do not, as their policy was told.
 *
 * Context: May sleep.
 * Return: 0; -ENOSPC: the copies do not fit below the limit; -EINTR.  What was
 *	separated stays so.
 */
int dmm_unshare(struct kvm_dmm_pool *pool, bool foreign)
{
	struct kvm_dmm_batch batch;
	struct page *page;
	pgoff_t index;
	bool copy;
	int r;
	u64 e;

	for (index = 0; kvm_dmm_next_region(pool, &index, ULONG_MAX); index++) {
		if (IS_ALIGNED(index, KVM_DMM_REGION_PAGES)) {
			if (signal_pending(current))
				return -EINTR;
			cond_resched();
		}
		kvm_dmm_batch_start(&batch, pool, index);
		if (!dmm_batch_lock(&batch, index))
			continue;
		e = dmm_batch_entry(&batch, index & (KVM_DMM_REGION_PAGES - 1));
		copy = dmm_kind(e) == KVM_DMM_SHARED &&
		       dmm_must_copy(pool, index, dmm_page(e), foreign);
		kvm_dmm_batch_end(&batch);
		if (copy) {
			r = dmm_resolve(pool, index, DMM_WRITE | DMM_INTR,
					&page, NULL);
			/* The file was made smaller, or the content is lost. */
			if (r == -EFAULT || r == -EHWPOISON)
				continue;
			if (r)
				return r == -ENOMEM ? -ENOSPC : r;
			put_page(page);
		}
	}
	return 0;
}

/**
 * kvm_dmm_unshare - give a pool frames of its own again
 * @pool: the pool, to which the policy offers and joins nothing meanwhile
 *
 * Undoes what policies have merged.  Clones go on sharing.
 *
 * Context: May sleep.
 * Return: As dmm_unshare().
 */
int kvm_dmm_unshare(struct kvm_dmm_pool *pool)
{
	return dmm_unshare(pool, false);
}
EXPORT_SYMBOL_GPL(kvm_dmm_unshare);

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
