// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: a policy for tests that shares frames when told to.
 *
 * merge: "TO FROM", two page offsets, makes the second use the frame of the
 * first.  protect: a page offset whose frame is write-protected; written: "yes"
 * or "no", whether that page was written since.  hold: a page offset of whose
 * frame a handle is held from then on; join: a page offset that joins it.  The held
 * handle is also offered for all that is brought back, after match_ms
 * milliseconds.  look: so many times, all entries of each region are taken and left
 * as they are.
 */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/kvm_dmm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

/**
 * struct dmm_sharer - a pool with this policy
 * @protected: page offset last protected
 */
struct dmm_sharer {
	unsigned long protected;
};

enum {
	DMM_SHARER_MATCH_MS,
};

/* Of any pool, so that one can join what another offers. */
static struct kvm_dmm_shared *dmm_held;
static DEFINE_MUTEX(dmm_held_lock);

static struct kvm_dmm_shared *dmm_held_get(void)
{
	struct kvm_dmm_shared *shared;

	mutex_lock(&dmm_held_lock);
	shared = dmm_held ? kvm_dmm_shared_get(dmm_held) : NULL;
	mutex_unlock(&dmm_held_lock);
	return shared;
}

/* The reference of @shared goes along. */
static void dmm_held_set(struct kvm_dmm_shared *shared)
{
	mutex_lock(&dmm_held_lock);
	swap(dmm_held, shared);
	mutex_unlock(&dmm_held_lock);
	kvm_dmm_shared_put(shared);
}

static int dmm_sharer_attach(struct kvm_dmm_policy *policy)
{
	struct dmm_sharer *sharer = kzalloc(sizeof(*sharer), GFP_KERNEL);

	policy->priv = sharer;
	return sharer ? 0 : -ENOMEM;
}

static void dmm_sharer_detach(struct kvm_dmm_policy *policy)
{
	kfree(policy->priv);
}

/* A handle of the frame at an offset, which becomes a shared one. */
static struct kvm_dmm_shared *dmm_sharer_handle(struct kvm_dmm_pool *pool,
						pgoff_t index)
{
	struct kvm_dmm_shared *shared = ERR_PTR(-EAGAIN);
	struct kvm_dmm_batch batch;

	if (!kvm_dmm_batch_start(&batch, pool, index))
		return ERR_PTR(-ENOENT);
	if (kvm_dmm_batch_add_shared(&batch, index) ||
	    (kvm_dmm_batch_add(&batch, index) &&
	     kvm_dmm_batch_protect(&batch)))
		shared = kvm_dmm_batch_handle(&batch, index);
	kvm_dmm_batch_end(&batch);
	return shared;
}

static int dmm_sharer_join(struct kvm_dmm_pool *pool, pgoff_t index,
			   struct kvm_dmm_shared *shared)
{
	struct kvm_dmm_batch batch;
	int r = -EAGAIN;

	if (!kvm_dmm_batch_start(&batch, pool, index))
		return -ENOENT;
	if (kvm_dmm_batch_add(&batch, index) && kvm_dmm_batch_take(&batch))
		r = kvm_dmm_batch_join(&batch, index, shared);
	kvm_dmm_batch_end(&batch);
	return r;
}

static int dmm_sharer_merge(struct kvm_dmm_pool *pool, pgoff_t to, pgoff_t from)
{
	struct kvm_dmm_shared *shared = dmm_sharer_handle(pool, to);
	int r;

	if (IS_ERR(shared))
		return PTR_ERR(shared);
	r = dmm_sharer_join(pool, from, shared);
	kvm_dmm_shared_put(shared);
	return r;
}

static int merge_store(struct kvm_dmm_policy *policy, const char *buf)
{
	unsigned long to, from;

	if (sscanf(buf, "%lu %lu", &to, &from) != 2)
		return -EINVAL;
	if (to >= kvm_dmm_pool_pages(policy->pool) ||
	    from >= kvm_dmm_pool_pages(policy->pool))
		return -ERANGE;
	return dmm_sharer_merge(policy->pool, to, from);
}

static int hold_store(struct kvm_dmm_policy *policy, const char *buf)
{
	struct kvm_dmm_shared *shared;
	unsigned long index;
	int r;

	r = kstrtoul(buf, 0, &index);
	if (r)
		return r;
	shared = dmm_sharer_handle(policy->pool, index);
	if (IS_ERR(shared))
		return PTR_ERR(shared);
	dmm_held_set(shared);
	return 0;
}

static int join_store(struct kvm_dmm_policy *policy, const char *buf)
{
	struct kvm_dmm_shared *shared;
	unsigned long index;
	int r;

	r = kstrtoul(buf, 0, &index);
	if (r)
		return r;
	shared = dmm_held_get();
	if (!shared)
		return -ENODATA;
	r = dmm_sharer_join(policy->pool, index, shared);
	kvm_dmm_shared_put(shared);
	return r;
}

static struct kvm_dmm_shared *dmm_sharer_match(struct kvm_dmm_policy *policy,
					       pgoff_t index, struct page *page)
{
	unsigned int ms = kvm_dmm_value(policy, DMM_SHARER_MATCH_MS);

	if (ms)
		msleep(ms);
	return dmm_held_get();
}

static int protect_store(struct kvm_dmm_policy *policy, const char *buf)
{
	struct kvm_dmm_batch batch;
	struct dmm_sharer *sharer;
	unsigned long index;
	int r;

	r = kstrtoul(buf, 0, &index);
	if (r)
		return r;
	if (!kvm_dmm_batch_start(&batch, policy->pool, index))
		return -ENOENT;
	if (!kvm_dmm_batch_add(&batch, index) || !kvm_dmm_batch_protect(&batch))
		r = -EAGAIN;
	kvm_dmm_batch_end(&batch);
	sharer = policy->priv;
	if (!r)
		WRITE_ONCE(sharer->protected, index);
	return r;
}

static int look_store(struct kvm_dmm_policy *policy, const char *buf)
{
	struct kvm_dmm_pool *pool = policy->pool;
	struct kvm_dmm_batch batch;
	unsigned int i, times;
	pgoff_t base;
	int r;

	r = kstrtouint(buf, 0, &times);
	if (r)
		return r;
	for (; times; times--) {
		for (base = 0; kvm_dmm_next_region(pool, &base, ULONG_MAX);
		     base += KVM_DMM_REGION_PAGES) {
			if (!kvm_dmm_batch_start(&batch, pool, base))
				continue;
			for (i = 0; i < KVM_DMM_REGION_PAGES; i++)
				kvm_dmm_batch_add(&batch, base + i);
			kvm_dmm_batch_end(&batch);
			cond_resched();
		}
	}
	return 0;
}

static ssize_t written_show(struct kvm_dmm_policy *policy, char *buf)
{
	struct dmm_sharer *sharer = policy->priv;
	bool protected = true;

	kvm_dmm_peek(policy->pool, READ_ONCE(sharer->protected), &protected);
	return sysfs_emit(buf, "%s\n", protected ? "no" : "yes");
}

/* Give the page at an offset up if it is zero. */
static int absent_store(struct kvm_dmm_policy *policy, const char *buf)
{
	struct kvm_dmm_batch batch;
	unsigned long index;
	int r;

	r = kstrtoul(buf, 0, &index);
	if (r)
		return r;
	if (!kvm_dmm_batch_start(&batch, policy->pool, index))
		return -ENOENT;
	r = -EAGAIN;
	if (kvm_dmm_batch_add(&batch, index) && kvm_dmm_batch_take(&batch))
		r = kvm_dmm_batch_absent(&batch, index);
	kvm_dmm_batch_end(&batch);
	return r;
}

static const struct kvm_dmm_tunable dmm_sharer_tunables[] = {
	[DMM_SHARER_MATCH_MS] = { .name = "match_ms", .max = 10000 },
	{ .name = "merge", .store = merge_store },
	{ .name = "hold", .store = hold_store },
	{ .name = "join", .store = join_store },
	{ .name = "protect", .store = protect_store },
	{ .name = "look", .store = look_store },
	{ .name = "written", .show = written_show },
	{ .name = "absent", .store = absent_store },
	{}
};

static struct kvm_dmm_policy_ops dmm_sharer_ops = {
	.name = "test-share",
	.owner = THIS_MODULE,
	.tunables = dmm_sharer_tunables,
	.attach = dmm_sharer_attach,
	.detach = dmm_sharer_detach,
	.match = dmm_sharer_match,
};

static int __init dmm_sharer_init(void)
{
	return kvm_dmm_register_policy(&dmm_sharer_ops);
}
module_init(dmm_sharer_init);

static void __exit dmm_sharer_exit(void)
{
	kvm_dmm_unregister_policy(&dmm_sharer_ops);
	dmm_held_set(NULL);
}
module_exit(dmm_sharer_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: test policy that shares");
MODULE_ALIAS("kvm-dmm-policy-test-share");
MODULE_LICENSE("GPL");
