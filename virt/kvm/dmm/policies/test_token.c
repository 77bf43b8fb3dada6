// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: a policy for tests that keeps content in plain memory.
 *
 * It takes pages out in the order of their offsets and copies them into pages
 * of its own, which are charged to nobody: for the pool they are as far away as
 * a disk.  It goes through every call that a policy with tokens makes.
 */
#include <linux/highmem.h>
#include <linux/kvm_dmm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/xarray.h>

/**
 * struct dmm_store - what the policy keeps of one pool
 * @pages: token to page with the content
 * @keep: a page that comes back is remembered until it is written
 * @second_chance: pages that were accessed lately are left alone
 * @fail_fetch: errno that fetch returns, or 0
 * @fail_fill: errno that fill returns, or 0; 1: fill with a pattern
 * @fail_reclaim: errno that reclaim returns, or 0
 */
struct dmm_store {
	struct xarray pages;
	unsigned int keep;
	unsigned int second_chance;
	unsigned int fail_fetch;
	unsigned int fail_fill;
	unsigned int fail_reclaim;
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
	__free_page(page);
}

static int dmm_store_fetch(struct kvm_dmm_policy *policy, u64 token,
			   struct page *page)
{
	struct dmm_store *store = policy->priv;
	struct page *copy = xa_load(&store->pages, token);

	if (READ_ONCE(store->fail_fetch))
		return -(int)store->fail_fetch;
	if (WARN_ON(!copy))
		return -EIO;
	copy_highpage(page, copy);
	if (READ_ONCE(store->keep))
		return 1;
	dmm_store_free_token(policy, token);
	return 0;
}

static int dmm_store_fill(struct kvm_dmm_policy *policy, pgoff_t index,
			  struct page *page)
{
	struct dmm_store *store = policy->priv;
	unsigned int fail = READ_ONCE(store->fail_fill);
	u64 *kaddr;
	int i;

	if (!fail)
		return -ENODATA;
	if (fail > 1)
		return -(int)fail;
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

	if (!kvm_dmm_batch_kept(batch, policy, index, NULL))
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

static void dmm_store_region(struct kvm_dmm_policy *policy, pgoff_t first,
			     pgoff_t last, struct kvm_dmm_reclaim *rc)
{
	DECLARE_BITMAP(young, KVM_DMM_REGION_PAGES);
	struct dmm_store *store = policy->priv;
	pgoff_t base = round_down(first, KVM_DMM_REGION_PAGES);
	unsigned long want = rc->nr_pages - rc->nr_done;
	struct kvm_dmm_batch batch;
	pgoff_t index;

	bitmap_zero(young, KVM_DMM_REGION_PAGES);
	if (READ_ONCE(store->second_chance))
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
	struct dmm_store *store = policy->priv;
	pgoff_t index = rc->first, last;

	if (READ_ONCE(store->fail_reclaim))
		return -(int)store->fail_reclaim;
	while (rc->nr_done < rc->nr_pages &&
	       kvm_dmm_next_region(policy->pool, &index, rc->last)) {
		last = min(rc->last, index | (KVM_DMM_REGION_PAGES - 1));
		dmm_store_region(policy, index, last, rc);
		index = last + 1;
	}
	return 0;
}

#define DMM_STORE_TUNABLE(_name)					\
	static ssize_t _name##_show(struct kvm_dmm_policy *policy,	\
				    char *buf)				\
	{								\
		struct dmm_store *store = policy ? policy->priv : NULL;	\
									\
		return sysfs_emit(buf, "%u\n",				\
				  store ? store->_name : 0);		\
	}								\
	static int _name##_store(struct kvm_dmm_policy *policy,	\
				 const char *buf)			\
	{								\
		struct dmm_store *store = policy ? policy->priv : NULL;	\
									\
		return store ? kstrtouint(buf, 0, &store->_name) : -EPERM; \
	}

DMM_STORE_TUNABLE(keep)
DMM_STORE_TUNABLE(second_chance)
DMM_STORE_TUNABLE(fail_fetch)
DMM_STORE_TUNABLE(fail_fill)
DMM_STORE_TUNABLE(fail_reclaim)

static const struct kvm_dmm_tunable dmm_store_tunables[] = {
	{ "keep", keep_show, keep_store },
	{ "second_chance", second_chance_show, second_chance_store },
	{ "fail_fetch", fail_fetch_show, fail_fetch_store },
	{ "fail_fill", fail_fill_show, fail_fill_store },
	{ "fail_reclaim", fail_reclaim_show, fail_reclaim_store },
	{}
};

static struct kvm_dmm_policy_ops dmm_store_ops = {
	.name = "test-token",
	.owner = THIS_MODULE,
	.tunables = dmm_store_tunables,
	.attach = dmm_store_attach,
	.detach = dmm_store_detach,
	.fill = dmm_store_fill,
	.fetch = dmm_store_fetch,
	.free_token = dmm_store_free_token,
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
