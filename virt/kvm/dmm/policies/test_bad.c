// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: a policy for tests that does everything wrong.
 *
 * It keeps content as the policy of test_token.c does, so that there is
 * something to lose, and gets wrong what the tunables say: results of its ops,
 * counts, charges, or how long it takes.  Writing to "probe" makes the calls
 * that the interface forbids and can refuse.
 */
#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/highmem.h>
#include <linux/kvm_dmm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/xarray.h>

/* What an op returns instead of what it should. */
static const char *const dmm_bad_results[] = {
	"good", "error", "again", "busy", "interrupted", "restart", "unclean",
	"positive", "nonsense", NULL
};

static const int dmm_bad_errors[] = {
	0, -EIO, -EAGAIN, -EBUSY, -EINTR, -ERESTARTSYS, -EUCLEAN, 4, INT_MIN
};

/* What reclaim does. */
static const char *const dmm_bad_reclaims[] = {
	"good", "none", "lie", "huge", "less", "silent", "bounce", NULL
};

enum {
	DMM_BAD_RECLAIM_GOOD,
	DMM_BAD_RECLAIM_NONE,	/* find nothing, say nothing */
	DMM_BAD_RECLAIM_LIE,	/* do nothing, claim all that was asked for */
	DMM_BAD_RECLAIM_HUGE,	/* do nothing, claim as much as there can be */
	DMM_BAD_RECLAIM_LESS,	/* do nothing, take back what others did */
	DMM_BAD_RECLAIM_SILENT,	/* take pages out and do not count them */
	DMM_BAD_RECLAIM_BOUNCE,	/* bring back at once what was taken out */
};

/* What is to be fetched with a page. */
static const char *const dmm_bad_windows[] = {
	"none", "all", "others", "backwards", NULL
};

enum {
	DMM_BAD_WINDOW_NONE,
	DMM_BAD_WINDOW_ALL,		/* more than a region */
	DMM_BAD_WINDOW_OTHERS,		/* another region */
	DMM_BAD_WINDOW_BACKWARDS,	/* the end before the start */
};

enum {
	DMM_BAD_ATTACH,
	DMM_BAD_FILL,
	DMM_BAD_FETCH,
	DMM_BAD_RECLAIM_RESULT,
	DMM_BAD_RECLAIM,
	DMM_BAD_SLEEP_MS,	/* in each op */
	DMM_BAD_WINDOW,
};

static struct kvm_dmm_policy_ops dmm_bad_ops;

static int dmm_bad(struct kvm_dmm_policy *policy, unsigned int tunable)
{
	u64 ms = kvm_dmm_value(policy, DMM_BAD_SLEEP_MS);

	if (ms)
		msleep(ms);
	return dmm_bad_errors[kvm_dmm_value(policy, tunable)];
}

static int dmm_bad_attach(struct kvm_dmm_policy *policy)
{
	int r = dmm_bad(policy, DMM_BAD_ATTACH);
	struct xarray *pages;

	if (r)
		return r;
	pages = kzalloc(sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	xa_init_flags(pages, XA_FLAGS_ALLOC);
	policy->priv = pages;
	return 0;
}

static void dmm_bad_detach(struct kvm_dmm_policy *policy)
{
	struct xarray *pages = policy->priv;

	dmm_bad(policy, DMM_BAD_ATTACH);
	WARN_ON(!xa_empty(pages));
	xa_destroy(pages);
	kfree(pages);
}

static void dmm_bad_free_token(struct kvm_dmm_policy *policy, u64 token)
{
	struct page *copy = xa_erase(policy->priv, token);

	if (!WARN_ON(!copy))
		__free_page(copy);
}

static int dmm_bad_fill(struct kvm_dmm_policy *policy, pgoff_t index,
			struct page *page)
{
	return dmm_bad(policy, DMM_BAD_FILL) ?: -ENODATA;
}

static int dmm_bad_fetch(struct kvm_dmm_policy *policy, u64 token,
			 struct page *page, unsigned int flags)
{
	struct page *copy = xa_load(policy->priv, token);
	int r = dmm_bad(policy, DMM_BAD_FETCH);

	if (r)
		return r;
	if (WARN_ON(!copy))
		return -EIO;
	copy_highpage(page, copy);
	dmm_bad_free_token(policy, token);
	return 0;
}

static void dmm_bad_fetch_around(struct kvm_dmm_policy *policy, u64 token,
				 struct kvm_dmm_around *around)
{
	switch (kvm_dmm_value(policy, DMM_BAD_WINDOW)) {
	case DMM_BAD_WINDOW_ALL:
		around->first = 0;
		around->last = ULONG_MAX;
		break;
	case DMM_BAD_WINDOW_OTHERS:
		around->first += KVM_DMM_REGION_PAGES;
		around->last += 2 * KVM_DMM_REGION_PAGES;
		break;
	case DMM_BAD_WINDOW_BACKWARDS:
		around->first++;
		break;
	}
}

static int dmm_bad_store_page(struct kvm_dmm_policy *policy,
			      struct kvm_dmm_batch *batch, pgoff_t index)
{
	struct page *copy = alloc_page(GFP_NOIO | __GFP_NOWARN);
	u32 token;
	int r;

	if (!copy)
		return -ENOMEM;
	r = xa_alloc(policy->priv, &token, copy, xa_limit_32b, GFP_NOIO);
	if (r)
		goto free;
	copy_highpage(copy, kvm_dmm_batch_page(batch, index));
	r = kvm_dmm_batch_token(batch, policy, index, token);
	if (!r)
		return 0;
	xa_erase(policy->priv, token);
free:
	__free_page(copy);
	return r;
}

static void dmm_bad_take(struct kvm_dmm_policy *policy,
			 struct kvm_dmm_reclaim *rc, unsigned int how)
{
	unsigned long left = rc->nr_pages - min(rc->nr_done, rc->nr_pages);
	struct kvm_dmm_batch batch;
	pgoff_t index;

	for (index = rc->first;
	     left && kvm_dmm_next_region(policy->pool, &index, rc->last);
	     index++) {
		if (!kvm_dmm_batch_start(&batch, policy->pool, index))
			continue;
		if (kvm_dmm_batch_add(&batch, index) &&
		    kvm_dmm_batch_take(&batch) &&
		    !dmm_bad_store_page(policy, &batch, index)) {
			left--;
			if (how != DMM_BAD_RECLAIM_SILENT)
				rc->nr_done++;
		}
		kvm_dmm_batch_end(&batch);
		if (how == DMM_BAD_RECLAIM_BOUNCE)
			kvm_dmm_fetch(policy->pool, index);
	}
}

static int dmm_bad_reclaim(struct kvm_dmm_policy *policy,
			   struct kvm_dmm_reclaim *rc)
{
	unsigned int how = kvm_dmm_value(policy, DMM_BAD_RECLAIM);
	int r = dmm_bad(policy, DMM_BAD_RECLAIM_RESULT);

	switch (how) {
	case DMM_BAD_RECLAIM_NONE:
		break;
	case DMM_BAD_RECLAIM_LIE:
		rc->nr_done = rc->nr_pages;
		break;
	case DMM_BAD_RECLAIM_HUGE:
		rc->nr_done = ULONG_MAX;
		break;
	case DMM_BAD_RECLAIM_LESS:
		rc->nr_done = 0;
		rc->nr_pages = 0;
		break;
	default:
		dmm_bad_take(policy, rc, how);
	}
	return r;
}

/* Say how much memory holds content, whatever the truth is. */
static int compressed_store(struct kvm_dmm_policy *policy, const char *buf)
{
	long bytes;
	int r = kstrtol(buf, 0, &bytes);

	if (!r)
		kvm_dmm_charge_compressed(policy->pool, bytes);
	return r;
}

/* What can be refused has to be, with the documented error. */
static int dmm_bad_probe_batch(struct kvm_dmm_policy *policy, pgoff_t index)
{
	struct kvm_dmm_policy stranger = { .ops = &dmm_bad_ops };
	struct kvm_dmm_batch batch;
	int r = -EPROTO;

	if (!kvm_dmm_batch_start(&batch, policy->pool, index))
		return -ENOENT;
	/* Nothing was added or taken yet. */
	if (kvm_dmm_batch_page(&batch, index) ||
	    kvm_dmm_batch_token(&batch, policy, index, 0) != -ENOENT ||
	    kvm_dmm_batch_kept(&batch, policy, index, NULL) != -ENOENT ||
	    kvm_dmm_batch_absent(&batch, index) != -ENOENT ||
	    kvm_dmm_batch_handle(&batch, index) != ERR_PTR(-ENOENT) ||
	    kvm_dmm_batch_join(&batch, index, NULL) != -ENOENT ||
	    kvm_dmm_batch_take(&batch) || kvm_dmm_batch_protect(&batch))
		goto end;
	if (!kvm_dmm_batch_add(&batch, index)) {
		r = -EAGAIN;
		goto end;
	}
	/* Twice is once; a token wants a frame that was taken. */
	if (kvm_dmm_batch_add(&batch, index) ||
	    kvm_dmm_batch_token(&batch, policy, index, 0) != -ENOENT)
		goto end;
	if (!kvm_dmm_batch_take(&batch)) {
		r = -EAGAIN;
		goto end;
	}
	if (kvm_dmm_batch_token(&batch, policy, index, U64_MAX) != -ERANGE ||
	    kvm_dmm_batch_token(&batch, policy, index,
				1ULL << KVM_DMM_TOKEN_BITS) != -ERANGE ||
	    kvm_dmm_batch_token(&batch, &stranger, index, 0) != -EINVAL ||
	    kvm_dmm_batch_kept(&batch, policy, index, NULL) != -ENOENT)
		goto end;
	r = 0;
end:
	kvm_dmm_batch_end(&batch);
	return r;
}

static int dmm_bad_probe_register(void)
{
	struct kvm_dmm_policy_ops *ops = kzalloc(sizeof(*ops), GFP_KERNEL);
	int r = -EPROTO;

	if (!ops)
		return -ENOMEM;
	if (kvm_dmm_register_policy(&dmm_bad_ops) != -EEXIST)
		goto free;
	if (kvm_dmm_register_policy(ops) != -EINVAL)
		goto free;
	*ops = (struct kvm_dmm_policy_ops) {
		.name = "test-bad",
		.owner = THIS_MODULE,
		.attach = dmm_bad_attach,
		.detach = dmm_bad_detach,
	};
	if (kvm_dmm_register_policy(ops) != -EEXIST)
		goto free;
	/* Never registered. */
	kvm_dmm_unregister_policy(ops);
	ops->name = "../bad";
	if (kvm_dmm_register_policy(ops) != -EINVAL)
		goto free;
	ops->name = "max_bytes";
	if (kvm_dmm_register_policy(ops) != -EINVAL)
		goto free;
	ops->name = "test-bad-2";
	ops->fetch = dmm_bad_fetch;	/* without free_token */
	if (kvm_dmm_register_policy(ops) != -EINVAL)
		goto free;
	ops->fetch = NULL;
	ops->owner = NULL;
	if (kvm_dmm_register_policy(ops) != -EINVAL)
		goto free;
	r = 0;
free:
	kfree(ops);
	return r;
}

static int probe_store(struct kvm_dmm_policy *policy, const char *buf)
{
	unsigned long index;
	int r = kstrtoul(buf, 0, &index);

	return r ?: dmm_bad_probe_register() ?:
	       dmm_bad_probe_batch(policy, index);
}

static const struct kvm_dmm_tunable dmm_bad_tunables[] = {
	[DMM_BAD_ATTACH] = { .name = "attach", .choices = dmm_bad_results },
	[DMM_BAD_FILL] = { .name = "fill", .choices = dmm_bad_results },
	[DMM_BAD_FETCH] = { .name = "fetch", .choices = dmm_bad_results },
	[DMM_BAD_RECLAIM_RESULT] = {
		.name = "reclaim_result",
		.choices = dmm_bad_results,
	},
	[DMM_BAD_RECLAIM] = { .name = "reclaim", .choices = dmm_bad_reclaims },
	[DMM_BAD_SLEEP_MS] = { .name = "sleep_ms", .max = 60000 },
	[DMM_BAD_WINDOW] = { .name = "window", .choices = dmm_bad_windows },
	{ .name = "compressed", .store = compressed_store },
	{ .name = "probe", .store = probe_store },
	{}
};

static struct kvm_dmm_policy_ops dmm_bad_ops = {
	.name = "test-bad",
	.owner = THIS_MODULE,
	.tunables = dmm_bad_tunables,
	.attach = dmm_bad_attach,
	.detach = dmm_bad_detach,
	.fill = dmm_bad_fill,
	.fetch = dmm_bad_fetch,
	.fetch_around = dmm_bad_fetch_around,
	.free_token = dmm_bad_free_token,
	.reclaim = dmm_bad_reclaim,
};

static int __init dmm_bad_init(void)
{
	return kvm_dmm_register_policy(&dmm_bad_ops);
}
module_init(dmm_bad_init);

static void __exit dmm_bad_exit(void)
{
	kvm_dmm_unregister_policy(&dmm_bad_ops);
}
module_exit(dmm_bad_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: test policy that misbehaves");
MODULE_ALIAS("kvm-dmm-policy-test-bad");
MODULE_LICENSE("GPL");
