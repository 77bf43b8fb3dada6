// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: a policy for tests that keeps content in plain memory.
 *
 * It takes pages out in the order of their offsets and copies them into pages
 * of its own, which are charged to nobody: for the pool they are as far away as
 * a disk.  It goes through every call that a policy with tokens makes.
 */
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/kvm_dmm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/xarray.h>

/**
 * struct dmm_store - what the policy keeps of one pool
 * @pages: token to page with the content
 */
struct dmm_store {
	struct xarray pages;
};

enum {
	DMM_KEEP,		/* remember a page that comes back until it is written */
	DMM_SECOND_CHANCE,	/* leave pages alone that were accessed lately */
	DMM_SLOW,		/* who can do something else shall not wait for fetch */
	DMM_FAIL_FETCH,		/* errno that fetch returns, or 0 */
	DMM_FAIL_FILL,		/* errno that fill returns, or 0; 1: fill with a pattern */
	DMM_FAIL_RECLAIM,	/* errno that reclaim returns, or 0 */
};

static const struct kvm_dmm_tunable dmm_store_tunables[] = {
	[DMM_KEEP] = { .name = "keep", .max = 1 },
	[DMM_SECOND_CHANCE] = { .name = "second_chance", .max = 1 },
	[DMM_SLOW] = { .name = "slow", .max = 1 },
	[DMM_FAIL_FETCH] = { .name = "fail_fetch", .max = MAX_ERRNO },
	[DMM_FAIL_FILL] = { .name = "fail_fill", .max = MAX_ERRNO },
	[DMM_FAIL_RECLAIM] = { .name = "fail_reclaim", .max = MAX_ERRNO },
	{}
};

static int dmm_store_attach(struct kvm_dmm_policy *policy)
{
	struct dmm_store *store = kzalloc(sizeof(*store), GFP_KERNEL);

	if (!store)
		return -ENOMEM;
	xa_init_flags(&store->pages, XA_FLAGS_ALLOC);
	policy->priv = store;
	return 0;
}

static void dmm_store_detach(struct kvm_dmm_policy *policy)
{
	struct dmm_store *store = policy->priv;

	/* The core has handed back or freed every token. */
	WARN_ON(!xa_empty(&store->pages));
	xa_destroy(&store->pages);
	kfree(store);
}

static void dmm_store_free_token(struct kvm_dmm_policy *policy, u64 token)
{
	struct dmm_store *store = policy->priv;
	struct page *page = xa_erase(&store->pages, token);

	if (WARN_ON(!page))
		return;
	put_page(page);
}

static int dmm_store_fetch(struct kvm_dmm_policy *policy, u64 token,
			   struct page *page, unsigned int flags)
{
	struct dmm_store *store = policy->priv;
	struct page *copy = xa_load(&store->pages, token);
	int fail = kvm_dmm_value(policy, DMM_FAIL_FETCH);

	if (flags & KVM_DMM_FETCH_NOWAIT && kvm_dmm_value(policy, DMM_SLOW))
		return -EAGAIN;
	if (fail)
		return -fail;
	if (WARN_ON(!copy))
		return -EIO;
	copy_highpage(page, copy);
	if (kvm_dmm_value(policy, DMM_KEEP))
		return 1;
	dmm_store_free_token(policy, token);
	return 0;
}

static int dmm_store_dup_token(struct kvm_dmm_policy *policy, u64 token,
			       struct kvm_dmm_policy *to, pgoff_t index,
			       u64 *new)
{
	struct dmm_store *store = policy->priv, *other = to->priv;
	struct page *page = xa_load(&store->pages, token);
	u32 id;
	int r;

	if (WARN_ON(!page))
		return -EIO;
	/* The pages are never written: one will do for all. */
	r = xa_alloc(&other->pages, &id, page, xa_limit_32b, GFP_NOIO);
	if (r)
		return r;
	get_page(page);
	*new = id;
	return 0;
}

static int dmm_store_fill(struct kvm_dmm_policy *policy, pgoff_t index,
			  struct page *page)
{
	int fail = kvm_dmm_value(policy, DMM_FAIL_FILL);
	u64 *kaddr;
	int i;

	if (!fail)
		return -ENODATA;
	if (fail > 1)
		return -fail;
	kaddr = kmap_local_page(page);
	for (i = 0; i < PAGE_SIZE / sizeof(*kaddr); i++)
		kaddr[i] = index;
	kunmap_local(kaddr);
	return 0;
}

/* Move one frame, which nobody can reach, to the store. */
static int dmm_store_page(struct kvm_dmm_policy *policy,
			  struct kvm_dmm_batch *batch, pgoff_t index)
{
	struct page *page = kvm_dmm_batch_page(batch, index);
	struct dmm_store *store = policy->priv;
	struct page *copy;
	u32 token;
	int r;

	if (!kvm_dmm_batch_kept(batch, policy, index))
		return 0;
	copy = alloc_page(GFP_NOIO | __GFP_NOWARN);
	if (!copy)
		return -ENOMEM;
	r = xa_alloc(&store->pages, &token, copy, xa_limit_32b, GFP_NOIO);
	if (r)
		goto free;
	copy_highpage(copy, page);
	r = kvm_dmm_batch_token(batch, policy, index, token);
	if (!r)
		return 0;
	xa_erase(&store->pages, token);
free:
	__free_page(copy);
	return r;
}

/* Move a shared frame to the store, for all its users. */
static bool dmm_store_shared(struct kvm_dmm_policy *policy,
			     struct kvm_dmm_batch *batch, pgoff_t index,
			     struct page *page)
{
	struct dmm_store *store = policy->priv;
	struct page *copy;
	int r = -ENOMEM;
	u32 token;

	copy = alloc_page(GFP_NOIO | __GFP_NOWARN);
	if (!copy)
		return false;
	if (xa_alloc(&store->pages, &token, copy, xa_limit_32b, GFP_NOIO))
		goto free;
	copy_highpage(copy, page);
	r = kvm_dmm_batch_token_shared(batch, policy, index, token,
				       KVM_DMM_USERS_OTHERS |
				       KVM_DMM_USERS_YOUNG);
	if (r >= 0)
		return r;
	xa_erase(&store->pages, token);
free:
	__free_page(copy);
	return false;
}

/* Shared frames, one by one. */
static void dmm_store_shared_region(struct kvm_dmm_policy *policy,
				    pgoff_t first, pgoff_t last,
				    struct kvm_dmm_reclaim *rc)
{
	struct kvm_dmm_batch batch;
	struct page *page;
	pgoff_t index;

	for (index = first; index <= last && rc->nr_done < rc->nr_pages;
	     index++) {
		if (kvm_dmm_peek(policy->pool, index, NULL) != KVM_DMM_SHARED)
			continue;
		kvm_dmm_batch_start(&batch, policy->pool, index);
		page = kvm_dmm_batch_add_shared(&batch, index);
		if (page)
			rc->nr_done += dmm_store_shared(policy, &batch, index,
							page);
		kvm_dmm_batch_end(&batch);
	}
}

static void dmm_store_region(struct kvm_dmm_policy *policy, pgoff_t first,
			     pgoff_t last, struct kvm_dmm_reclaim *rc)
{
	DECLARE_BITMAP(young, KVM_DMM_REGION_PAGES);
	pgoff_t base = round_down(first, KVM_DMM_REGION_PAGES);
	unsigned long want = rc->nr_pages - rc->nr_done;
	struct kvm_dmm_batch batch;
	pgoff_t index;

	bitmap_zero(young, KVM_DMM_REGION_PAGES);
	if (kvm_dmm_value(policy, DMM_SECOND_CHANCE))
		kvm_dmm_young(policy->pool, base, young);
	if (!kvm_dmm_batch_start(&batch, policy->pool, first))
		return;
	for (index = first; index <= last && want; index++)
		if (!test_bit(index - base, young) &&
		    kvm_dmm_batch_add(&batch, index))
			want--;
	kvm_dmm_batch_take(&batch);
	for (index = first; index <= last; index++)
		if (kvm_dmm_batch_page(&batch, index) &&
		    !dmm_store_page(policy, &batch, index))
			rc->nr_done++;
	kvm_dmm_batch_end(&batch);
}

static int dmm_store_reclaim(struct kvm_dmm_policy *policy,
			     struct kvm_dmm_reclaim *rc)
{
	int fail = kvm_dmm_value(policy, DMM_FAIL_RECLAIM);
	pgoff_t index = rc->first, last;

	if (fail)
		return -fail;
	while (rc->nr_done < rc->nr_pages &&
	       kvm_dmm_next_region(policy->pool, &index, rc->last)) {
		last = min(rc->last, index | (KVM_DMM_REGION_PAGES - 1));
		dmm_store_region(policy, index, last, rc);
		dmm_store_shared_region(policy, index, last, rc);
		index = last + 1;
	}
	return 0;
}

static struct kvm_dmm_policy_ops dmm_store_ops = {
	.name = "test-token",
	.owner = THIS_MODULE,
	.tunables = dmm_store_tunables,
	.attach = dmm_store_attach,
	.detach = dmm_store_detach,
	.fill = dmm_store_fill,
	.fetch = dmm_store_fetch,
	.free_token = dmm_store_free_token,
	.dup_token = dmm_store_dup_token,
	.reclaim = dmm_store_reclaim,
};

static int __init dmm_store_init(void)
{
	return kvm_dmm_register_policy(&dmm_store_ops);
}
module_init(dmm_store_init);

static void __exit dmm_store_exit(void)
{
	kvm_dmm_unregister_policy(&dmm_store_ops);
}
module_exit(dmm_store_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: test policy with tokens");
MODULE_ALIAS("kvm-dmm-policy-test-token");
MODULE_LICENSE("GPL");
