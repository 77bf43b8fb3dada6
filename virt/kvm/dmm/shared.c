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
 * @mixed: has users in different domains, by cloning: nobody may join
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

static struct kmem_cache *dmm_shared_cache;
static struct kmem_cache *dmm_user_cache;

/*
 * Lock the users of a shared frame of @pool: those of the handle that is
 * returned; or, with NULL, those of a frame without one, by the family's lock.
 * It may get a handle meanwhile, and keeps it then.
 */
static struct kvm_dmm_shared *dmm_shared_lock(struct kvm_dmm_pool *pool,
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

static void dmm_shared_unlock(struct kvm_dmm_pool *pool,
			      struct kvm_dmm_shared *shared)
{
	spin_unlock(shared ? &shared->lock : &pool->family->lock);
}

static struct kvm_dmm_pool *dmm_light_charged(struct page *page)
{
	return (struct kvm_dmm_pool *)(page->private & ~DMM_LIGHT);
}

/* Of users in a tree, which is in the order of pools. */
static int dmm_user_cmp_pool(const void *pool, const struct rb_node *node)
{
	const struct kvm_dmm_pool *p = rb_entry(node, struct dmm_user, node)->pool;

	if (pool == p)
		return 0;
	return pool < (const void *)p ? -1 : 1;
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
 * Only pools that were put into the same domain share what was not cloned.
 * dmm_set_domain() changes the name under the lock and then looks for users, so
 * it finds all that came before.
 */
static bool dmm_same_domain(struct kvm_dmm_pool *pool,
			    struct kvm_dmm_pool *other)
{
	bool same;

	spin_lock(&dmm_names_lock);
	same = pool == other ||
	       (pool->domain[0] && !strcmp(pool->domain, other->domain));
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
	if (shared->mixed || !dmm_same_domain(pool, shared->charged))
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
	shared->copy = true;
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
							  GFP_NOIO);

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
	set_page_private(page, (unsigned long)new);
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
 *	pools are in different domains; -EMLINK: too many users; -ENOMEM.
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
	struct dmm_user *user;
	struct page *page;
	u64 e;

	if (!test_bit(i, batch->locked))
		return ERR_PTR(-ENOENT);
	e = dmm_content(READ_ONCE(batch->region->entry[i]));
	page = dmm_page(e);
	if (dmm_kind(e) == KVM_DMM_SHARED)
		return dmm_shared_of(pool, index, page) ?: ERR_PTR(-ENOMEM);
	if (!test_bit(i, batch->frozen))
		return ERR_PTR(-ENOENT);

	shared = dmm_shared_alloc(pool);
	user = dmm_user_alloc(pool, index);
	if (!shared || !user) {
		kvm_dmm_shared_put(shared);
		dmm_user_free(user);
		return ERR_PTR(-ENOMEM);
	}
	dmm_unkeep(pool, e);
	page_ref_unfreeze(page, 1);
	dmm_frame_disown(page);
	dmm_shared_start(shared, page, user);
	/* What was only protected is still read. */
	dmm_batch_set(batch, index, dmm_mk_shared(page_to_pfn(page)) |
				    (batch->taken ? 0 : DMM_CACHED));
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
	    page_count(page) != 1 + folio_mapcount(page_folio(page))) {
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

/* A member of @family but @pool whose entry at @index uses the frame. */
static struct kvm_dmm_pool *dmm_find_kin(struct dmm_family *family,
					 struct kvm_dmm_pool *pool,
					 pgoff_t index, struct page *page)
{
	struct kvm_dmm_region *region;
	struct kvm_dmm_pool *kin;
	u64 e;

	lockdep_assert_held(&family->lock);
	list_for_each_entry(kin, &family->pools, kin) {
		region = kin == pool ? NULL : dmm_region(kin, index);
		if (!region)
			continue;
		e = READ_ONCE(*dmm_entry(region, index));
		if (dmm_shares(e, page_to_pfn(page)))
			return kin;
	}
	return NULL;
}

/*
 * Another pool that uses the frame and can be charged for it, or NULL.  A user
 * leaves under the lock by which it is found, so its pool stays until then.
 */
static struct kvm_dmm_pool *dmm_find_heir(struct kvm_dmm_shared *shared,
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

/*
 * Has anybody a reference or a lock on a shared frame?  As in dmm_batch_freeze(),
 * but processes may have it mapped still.
 */
static bool dmm_shared_held(struct kvm_dmm_pool *pool, struct page *page)
{
	struct folio *folio = page_folio(page);

	if (!folio_test_mlocked(folio) &&
	    page_count(page) == 1 + folio_mapcount(folio))
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
	    dmm_region(pool, shared->index) &&
	    dmm_shares(READ_ONCE(*dmm_entry(dmm_region(pool, shared->index),
					    shared->index)),
		       page_to_pfn(dmm_page(e))))
		places[n++] = shared->index;
	dmm_shared_unlock(pool, shared);
	return n;
}
EXPORT_SYMBOL_GPL(kvm_dmm_batch_places);

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
 */
void dmm_shared_copy(struct kvm_dmm_region *region, struct kvm_dmm_pool *pool,
		     pgoff_t index, struct page *shared, struct page *page)
{
	copy_highpage(page, shared);
	dmm_shared_leave(region, pool, index, shared);
	dmm_count(pool, DMM_STAT_cow);
	trace_kvm_dmm_cow(pool, index, page_to_pfn(page));
}

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

/*
 * Own the entries of all users of a frame, or of all in @pool, but the caller's.
 * The lock of the users keeps their pools until their entries are busy, which
 * does so from then on: nobody leaves, and so no file goes away, with a busy
 * entry.
 *
 * Return: How many; up to @max.
 */
static unsigned int dmm_lock_users(struct kvm_dmm_pool *pool, pgoff_t index,
				   struct page *page, struct dmm_place *places,
				   unsigned int max, bool others)
{
	struct kvm_dmm_shared *shared = dmm_shared_lock(pool, page);
	struct dmm_family *family = pool->family;
	struct kvm_dmm_pool *kin;
	unsigned int n = 0;
	struct rb_node *node;

	if (shared) {
		family = shared->nr_kin ? shared->family : NULL;
		index = shared->index;
		node = others ? rb_first(&shared->users) :
			rb_find_first(pool, &shared->users, dmm_user_cmp_pool);
		for (; node && n < max; node = rb_next(node)) {
			struct dmm_user *user = rb_entry(node, struct dmm_user,
							 node);

			if (!others && user->pool != pool)
				break;
			if (dmm_place_trylock(user->pool, user->index, page))
				places[n++] = (struct dmm_place) {
					user->pool, user->index
				};
		}
		if (family)
			spin_lock(&family->lock);
	}
	if (family)
		list_for_each_entry(kin, &family->pools, kin)
			if (n < max && (others || kin == pool) &&
			    dmm_place_trylock(kin, index, page))
				places[n++] = (struct dmm_place) {
					kin, index
				};
	if (shared && family)
		spin_unlock(&family->lock);
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
 *	-ERANGE; -ENOMEM.  On error the token remains the caller's.
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
	places = kvmalloc_array(max, sizeof(*places), GFP_NOIO);
	if (max && !places)
		return -ENOMEM;

	new = dmm_mk_token(policy->id, token);
	n = dmm_lock_users(pool, index, page, places, max,
			   users & KVM_DMM_USERS_OTHERS);
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
		    dmm_dup_token(pool, new, place->pool, &dup)) {
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

/* Is the frame of a busy entry to be separated?  See dmm_unshare(). */
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
			/* The file was made smaller. */
			if (r == -EFAULT)
				continue;
			if (r)
				return r == -ENOMEM ? -ENOSPC : r;
			put_page(page);
		}
		cond_resched();
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

/* A frame that becomes a shared one, with a clone for its second user. */
static __always_inline void dmm_light_start(struct page *page,
					    unsigned long private)
{
	page->mapping = NULL;
	page->index = 2;
	page->private = private;
}

/*
 * A clone at the same offset uses what a busy entry has.  Not if somebody holds
 * the frame, a process that has it mapped, for example, if a policy keeps a
 * copy, or if others than clones share it.
 */
static bool dmm_light_use(struct kvm_dmm_pool *pool, u64 e)
{
	struct page *page = dmm_page(e);

	lockdep_assert_held(&pool->family->lock);
	switch (dmm_kind(e)) {
	case KVM_DMM_FRAME:
		if (e & DMM_KEPT || page_ref_count(page) != 1)
			return false;
		dmm_light_start(page, (unsigned long)pool | DMM_LIGHT);
		atomic_long_inc(&pool->nr_shared);
		return true;
	case KVM_DMM_SHARED:
		if (!(page->private & DMM_LIGHT) ||
		    page->index >= DMM_MAX_USERS)
			return false;
		page->index++;
		return true;
	default:
		return false;
	}
}

/* Places from @run on were done, up to @i, which was not; returns the next run. */
static unsigned long dmm_run_done(unsigned long *done, unsigned long run,
				  unsigned long i)
{
	bitmap_set(done, run, i - run);
	return i + 1;
}

/**
 * dmm_light_lock - own entries of a region, for a clone at the same offsets
 * @batch: of the pool that is cloned
 * @first: where in the region to start
 * @done: in, out: places whose frame the clone uses, too; none yet from @first on
 * @table: out: entries of the clone
 *
 * One loop for what would be three, since this is most of what cloning costs:
 * own the entry, as dmm_trylock() without the count of deviants; see that nobody
 * holds the frame, who would have a reference since the entry was not busy; and
 * count the users.  What guests have mapped is to be write-protected before an
 * entry is given back.
 *
 * Context: Does not sleep.
 * Return: The place of an entry that is busy, for the caller to wait for, and
 *	to go on after it; or KVM_DMM_REGION_PAGES.
 */
unsigned int dmm_light_lock(struct kvm_dmm_batch *batch, unsigned int first,
			    unsigned long *done, u64 *table)
{
	struct kvm_dmm_pool *pool = batch->pool;
	const unsigned long private = (unsigned long)pool | DMM_LIGHT;
	struct kvm_dmm_region *region = batch->region;
	unsigned int nr = 0, deviants = 0;
	u64 *entry = region->entry, e;
	unsigned long i, k, run = first;

	spin_lock(&pool->family->lock);
	for (i = first; i < KVM_DMM_REGION_PAGES; i++) {
		e = READ_ONCE(entry[i]);
		/* Nearly all are frames with nothing special. */
		if (likely((e & ~DMM_PAYLOAD) ==
			   dmm_kind_bits(KVM_DMM_FRAME))) {
			if (!try_cmpxchg64(&entry[i], &e, e | DMM_BUSY))
				break;
			if (likely(page_ref_count(dmm_page(e)) == 1)) {
				dmm_light_start(dmm_page(e), private);
				table[i] = dmm_frame_to_shared(e);
				continue;
			}
		} else if (!e) {
			run = dmm_run_done(done, run, i);
			continue;
		} else if (e & DMM_BUSY ||
			   !try_cmpxchg64(&entry[i], &e, e | DMM_BUSY)) {
			break;
		} else if (dmm_light_use(pool, e)) {
			table[i] = dmm_mk_shared(dmm_pfn(e));
			nr++;
			continue;
		}
		__set_bit(i, batch->locked);
		run = dmm_run_done(done, run, i);
	}
	dmm_run_done(done, run, i);
	spin_unlock(&pool->family->lock);
	bitmap_or(batch->locked, batch->locked, done, KVM_DMM_REGION_PAGES);
	/* dmm_light_use() has counted itself. */
	atomic_long_add(bitmap_weight(done, i) - bitmap_weight(done, first) - nr,
			&pool->nr_shared);
	/* With an entry busy, nobody sets the block. */
	if (bitmap_empty(batch->locked, i) || !region->block)
		return i;
	e = dmm_mk_frame(region->block + first) | DMM_BUSY;
	for (k = first; k < i; k++, e += dmm_mk_frame(1) - dmm_mk_frame(0))
		if (test_bit(k, batch->locked))
			deviants += (READ_ONCE(entry[k]) & ~DMM_WAITERS) == e;
	atomic_add(deviants, &region->deviants);
	return i;
}

/**
 * dmm_light_add - try again, with what a process had mapped
 * @batch: entries of the pool that is cloned
 * @done: in, out: as for dmm_light_lock()
 * @table: out: entries of the clone
 */
void dmm_light_add(struct kvm_dmm_batch *batch, unsigned long *done,
		   u64 *table)
{
	struct kvm_dmm_pool *pool = batch->pool;
	unsigned int i;
	u64 e;

	spin_lock(&pool->family->lock);
	for (i = batch->first; i < batch->end; i++) {
		if (!test_bit(i, batch->locked) || test_bit(i, done))
			continue;
		e = dmm_batch_entry(batch, i);
		if (!dmm_light_use(pool, e))
			continue;
		__set_bit(i, done);
		table[i] = dmm_mk_shared(dmm_pfn(e));
	}
	spin_unlock(&pool->family->lock);
}

/**
 * dmm_light_undo - users that were counted for a clone did not come
 * @pool: a member of the family
 * @table: entries of the clone
 */
void dmm_light_undo(struct kvm_dmm_pool *pool, u64 *table)
{
	unsigned int i;

	spin_lock(&pool->family->lock);
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++)
		if (dmm_kind(table[i]) == KVM_DMM_SHARED)
			dmm_page(table[i])->index--;
	spin_unlock(&pool->family->lock);
}

#ifdef CONFIG_DEBUG_FS
/* Members of a family that use a frame without being in the tree of its users. */
static unsigned long dmm_count_kin(struct dmm_family *family,
				   struct kvm_dmm_shared *shared, pgoff_t index,
				   struct page *page)
{
	struct kvm_dmm_region *region;
	struct kvm_dmm_pool *kin;
	unsigned long n = 0;
	u64 e;

	lockdep_assert_held(&family->lock);
	list_for_each_entry(kin, &family->pools, kin) {
		region = dmm_region(kin, index);
		if (!region)
			continue;
		e = READ_ONCE(*dmm_entry(region, index));
		if (dmm_shares(e, page_to_pfn(page)) &&
		    !(shared && dmm_user_find(shared, kin, index)))
			n++;
	}
	return n;
}

/* The part of dmm_shared_check() that the first of a pool's users stands for. */
static const char *dmm_check_users(struct kvm_dmm_shared *shared,
				   struct kvm_dmm_pool *pool, bool *pending)
{
	unsigned long pfn = page_to_pfn(shared->page);
	struct kvm_dmm_region *region;
	unsigned long kin = 0, n = 0;
	struct rb_node *node;

	for (node = rb_first(&shared->users); node; node = rb_next(node)) {
		struct dmm_user *user = rb_entry(node, struct dmm_user, node);

		n++;
		if (user->pool != pool)
			continue;
		region = dmm_region(pool, user->index);
		if (!region ||
		    !dmm_shares(READ_ONCE(*dmm_entry(region, user->index)), pfn))
			return "has a user that does not use it";
	}
	if (n + shared->nr_kin != shared->nr)
		return "has another number of users than it counts";
	if (shared->nr_kin) {
		spin_lock(&shared->family->lock);
		kin = dmm_count_kin(shared->family, shared, shared->index,
				    shared->page);
		spin_unlock(&shared->family->lock);
	}
	*pending = kin < shared->nr_kin;
	return kin > shared->nr_kin ? "has more clones than it counts" : NULL;
}

/**
 * dmm_shared_check - are the users of a shared frame what they should be?
 * @pool: the pool; all of its entries are busy by the caller
 * @index: page offset of an entry with the frame
 * @page: the frame
 * @charged: out: the pool is charged for it, and this is the entry that stands
 *	for all that it has there
 * @pending: out: it counts users that nobody has found.  A clone that is being
 *	made counts before it can be found, so that may be right for a moment
 *
 * Context: Does not sleep.
 * Return: What is wrong, or NULL.
 */
const char *dmm_shared_check(struct kvm_dmm_pool *pool, pgoff_t index,
			     struct page *page, bool *charged, bool *pending)
{
	struct kvm_dmm_shared *shared;
	const char *wrong = NULL;
	struct dmm_user *user;
	struct rb_node *prev;
	unsigned long n;

	*charged = false;
	*pending = false;
	if (page->mapping)
		return "belongs to a file";
	if (!page->private || page->private == DMM_LIGHT)
		return "has no users";
	shared = dmm_shared_lock(pool, page);
	if (!shared) {
		n = dmm_count_kin(pool->family, NULL, index, page);
		*charged = dmm_light_charged(page) == pool;
		*pending = n < page->index;
		if (n > page->index)
			wrong = "has more clones than it counts";
		goto unlock;
	}
	if (shared->page != page) {
		wrong = "has the users of another one";
		goto unlock;
	}
	user = dmm_user_find(shared, pool, index);
	if (user) {
		prev = rb_prev(&user->node);
		/* The tree is in the order of pools. */
		if (prev && rb_entry(prev, struct dmm_user, node)->pool == pool)
			goto unlock;
		wrong = dmm_check_users(shared, pool, pending);
		*charged = shared->charged == pool;
		/* Or it is a clone besides, which stands for it. */
		if (shared->nr_kin && shared->family == pool->family &&
		    !dmm_user_find(shared, pool, shared->index)) {
			struct kvm_dmm_region *region;

			region = dmm_region(pool, shared->index);
			if (region &&
			    dmm_shares(READ_ONCE(*dmm_entry(region,
							    shared->index)),
				       page_to_pfn(page)))
				*charged = false;
		}
	} else if (!shared->nr_kin || shared->family != pool->family ||
		   shared->index != index) {
		wrong = "does not know this user";
	} else {
		wrong = dmm_check_users(shared, pool, pending);
		*charged = shared->charged == pool;
	}
unlock:
	dmm_shared_unlock(pool, shared);
	return wrong;
}
#endif

static DEFINE_MUTEX(dmm_family_mutex);	/* protects pool->family */

/**
 * dmm_family_join - make two pools members of one family
 * @pool: a pool that is to be cloned
 * @clone: the pool that is to be the clone
 *
 * Context: May sleep.  The inodes are locked: neither goes away.
 * Return: True if they now are in the same family; false if they are in two,
 *	or there is no memory.
 */
bool dmm_family_join(struct kvm_dmm_pool *pool, struct kvm_dmm_pool *clone)
{
	struct dmm_family *family = NULL;

	mutex_lock(&dmm_family_mutex);
	if (!pool->family && !clone->family) {
		family = kzalloc(sizeof(*family), GFP_KERNEL_ACCOUNT);
		if (!family)
			goto unlock;
		spin_lock_init(&family->lock);
		INIT_LIST_HEAD(&family->pools);
	} else {
		family = pool->family ?: clone->family;
	}
	spin_lock(&family->lock);
	if (!pool->family) {
		pool->family = family;
		list_add_tail(&pool->kin, &family->pools);
	}
	if (!clone->family) {
		clone->family = family;
		list_add_tail(&clone->kin, &family->pools);
	}
	spin_unlock(&family->lock);
unlock:
	mutex_unlock(&dmm_family_mutex);
	return family && pool->family == clone->family;
}

/**
 * dmm_family_leave - a pool with an empty map is no member any more
 * @pool: the pool, which is going away
 */
void dmm_family_leave(struct kvm_dmm_pool *pool)
{
	struct dmm_family *family = pool->family;
	bool last;

	if (!family)
		return;
	mutex_lock(&dmm_family_mutex);
	spin_lock(&family->lock);
	list_del(&pool->kin);
	last = list_empty(&family->pools);
	spin_unlock(&family->lock);
	mutex_unlock(&dmm_family_mutex);
	if (last)
		kfree(family);
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
