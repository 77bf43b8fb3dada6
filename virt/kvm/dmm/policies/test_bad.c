// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: a policy for tests that does everything wrong.
 *
 * It keeps content as the policy of test_token.c does, so that there is
 * something to lose, and gets wrong what the tunables say: results of its ops,
 * counts, charges, or how long it takes.  Writing to "probe" makes the calls
 * that the interface forbids and can refuse.
 *
 * A second policy is the same without the fill op, which keeps the core from
 * asking for anything else of absent memory.
 */
#include <linux/delay.h>
#include <linux/errno.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "test_bad.h"

static const char *const dmm_bad_windows[] = {
	"none", "all", "others", "backwards", "behind", "elsewhere", "block",
	NULL
};

static const char *const dmm_bad_dups[] = {
	"good", "large", "unset", "half", NULL
};

/* What dup_token makes of a token. */
enum dmm_bad_dup {
	DMM_BAD_DUP_GOOD,
	DMM_BAD_DUP_LARGE,	/* a bit too many */
	DMM_BAD_DUP_UNSET,	/* nothing, but says so by no error */
	DMM_BAD_DUP_HALF,	/* nothing of every other token */
};

static const char *const dmm_bad_handles[] = { "none", "error", "held", NULL };

static const char *const dmm_bad_publishes[] = { "forget", "hold", NULL };

static const char *const dmm_bad_aheads[] = {
	"none", "many", "outside", "same", "unset", NULL
};

static const char *const dmm_bad_reclaims[] = {
	"good", "none", "lie", "huge", "less", "silent", "bounce", NULL
};

/**
 * struct dmm_bad_store - what the policy keeps of one pool
 * @pages: token to page with the content
 * @next: where to look for the next token: one that the core may still have,
 *	because fetch has lied, is not used again soon
 */
struct dmm_bad_store {
	struct xarray pages;
	u32 next;
};

/* What reclaim does. */
enum dmm_bad_reclaim {
	DMM_BAD_RECLAIM_GOOD,
	DMM_BAD_RECLAIM_NONE,	/* find nothing, say nothing */
	DMM_BAD_RECLAIM_LIE,	/* do nothing, claim all that was asked for */
	DMM_BAD_RECLAIM_HUGE,	/* do nothing, claim as much as there can be */
	DMM_BAD_RECLAIM_LESS,	/* do nothing, take back what others did */
	DMM_BAD_RECLAIM_SILENT,	/* take pages out and do not count them */
	DMM_BAD_RECLAIM_BOUNCE,	/* bring back at once what was taken out */
};

void dmm_bad_sleep(struct kvm_dmm_policy *policy)
{
	u64 ms = kvm_dmm_value(policy, DMM_BAD_SLEEP_MS);

	if (ms)
		msleep(ms);
}

/*
 * What an op returns instead of what it should: any 32 bits, of which those of
 * 0 mean that it does what it should.
 */
static int dmm_bad_result(struct kvm_dmm_policy *policy, unsigned int tunable,
			  enum dmm_bad_op op)
{
	int r = (u32)kvm_dmm_value(policy, tunable);

	dmm_bad_sleep(policy);
	if (r)
		kvm_dmm_policy_count(policy, op, 1);
	return r;
}

static int dmm_bad_attach(struct kvm_dmm_policy *policy)
{
	struct dmm_bad_store *store;
	int r;

	dmm_bad_want_ahead(policy);
	r = dmm_bad_result(policy, DMM_BAD_ATTACH, DMM_BAD_ATTACH);
	if (r)
		return r;
	store = kzalloc(sizeof(*store), GFP_KERNEL);
	if (!store)
		return -ENOMEM;
	xa_init_flags(&store->pages, XA_FLAGS_ALLOC);
	policy->priv = store;
	return 0;
}

static int dmm_bad_leave(struct kvm_dmm_policy *policy)
{
	return dmm_bad_result(policy, DMM_BAD_LEAVE, DMM_BAD_LEAVE);
}

static void dmm_bad_detach(struct kvm_dmm_policy *policy)
{
	struct dmm_bad_store *store = policy->priv;

	dmm_bad_sleep(policy);
	WARN_ON(!xa_empty(&store->pages));
	xa_destroy(&store->pages);
	kfree(store);
}

static void dmm_bad_tuned(struct kvm_dmm_policy *policy)
{
	u64 ms = kvm_dmm_value(policy, DMM_BAD_TUNED);

	dmm_bad_want_ahead(policy);
	if (!ms)
		return;
	kvm_dmm_policy_count(policy, DMM_BAD_TUNED, 1);
	msleep(ms);
}

/* Returns the token or -errno. */
static s64 dmm_bad_add(struct kvm_dmm_policy *policy, struct page *page)
{
	struct dmm_bad_store *store = policy->priv;
	u32 token;
	int r;

	r = xa_alloc_cyclic(&store->pages, &token, page, xa_limit_32b,
			    &store->next, GFP_NOIO);
	return r < 0 ? r : token;
}

static void dmm_bad_drop(struct kvm_dmm_policy *policy, u64 token)
{
	struct dmm_bad_store *store = policy->priv;
	struct page *copy = xa_erase(&store->pages, token);

	if (copy)
		put_page(copy);
	else
		kvm_dmm_policy_count(policy, DMM_BAD_LOST, 1);
}

static void dmm_bad_free_token(struct kvm_dmm_policy *policy, u64 token)
{
	dmm_bad_sleep(policy);
	dmm_bad_drop(policy, token);
}

static int dmm_bad_fill(struct kvm_dmm_policy *policy, pgoff_t index,
			struct page *page)
{
	return dmm_bad_result(policy, DMM_BAD_FILL, DMM_BAD_FILL) ?: -ENODATA;
}

static int dmm_bad_fetch(struct kvm_dmm_policy *policy, u64 token,
			 struct page *page, unsigned int flags)
{
	struct dmm_bad_store *store = policy->priv;
	struct page *copy = xa_load(&store->pages, token);
	int r = dmm_bad_result(policy, DMM_BAD_FETCH, DMM_BAD_FETCH);

	if (r && r != 1)
		return r;
	if (!copy) {
		kvm_dmm_policy_count(policy, DMM_BAD_LOST, 1);
		return -EIO;
	}
	copy_highpage(page, copy);
	dmm_bad_drop(policy, token);
	return r;
}

static int dmm_bad_dup_token(struct kvm_dmm_policy *policy, u64 token,
			     struct kvm_dmm_policy *to, pgoff_t index, u64 *new)
{
	enum dmm_bad_dup how = kvm_dmm_value(policy, DMM_BAD_DUP_TOKEN);
	struct dmm_bad_store *store = policy->priv;
	struct page *page = xa_load(&store->pages, token);
	s64 id;
	int r;

	r = dmm_bad_result(policy, DMM_BAD_DUP_RESULT, DMM_BAD_DUP_TOKEN);
	if (r)
		return r;
	if (how != DMM_BAD_DUP_GOOD)
		kvm_dmm_policy_count(policy, DMM_BAD_DUP_TOKEN, 1);
	if (how == DMM_BAD_DUP_UNSET)
		return 0;
	if (how == DMM_BAD_DUP_LARGE) {
		*new = 1ULL << KVM_DMM_TOKEN_BITS;
		return 0;
	}
	if (how == DMM_BAD_DUP_HALF && (token & 1))
		return -EIO;
	if (!page) {
		kvm_dmm_policy_count(policy, DMM_BAD_LOST, 1);
		return -EIO;
	}
	id = dmm_bad_add(to, page);
	if (id < 0)
		return id;
	get_page(page);
	*new = id;
	return 0;
}

/* Copy what an entry of a batch has, and put a token in its place. */
static int dmm_bad_store_page(struct kvm_dmm_policy *policy,
			      struct kvm_dmm_batch *batch, pgoff_t index,
			      struct page *shared)
{
	struct page *copy = alloc_page(GFP_NOIO | __GFP_NOWARN);
	struct dmm_bad_store *store = policy->priv;
	s64 token;
	int r;

	if (!copy)
		return -ENOMEM;
	token = dmm_bad_add(policy, copy);
	if (token < 0) {
		__free_page(copy);
		return token;
	}
	copy_highpage(copy, shared ?: kvm_dmm_batch_page(batch, index));
	if (shared)
		r = kvm_dmm_batch_token_shared(batch, policy, index, token,
					       KVM_DMM_USERS_OTHERS |
					       KVM_DMM_USERS_YOUNG);
	else
		r = kvm_dmm_batch_token(batch, policy, index, token);
	if (r >= 0)
		return 0;
	xa_erase(&store->pages, token);
	__free_page(copy);
	return r;
}

static bool dmm_bad_take_page(struct kvm_dmm_policy *policy, pgoff_t index)
{
	struct kvm_dmm_batch batch;
	bool done = false;
	struct page *page;

	if (!kvm_dmm_batch_start(&batch, policy->pool, index))
		return false;
	page = kvm_dmm_batch_add_shared(&batch, index);
	if (page || (kvm_dmm_batch_add(&batch, index) &&
		     kvm_dmm_batch_take(&batch)))
		done = !dmm_bad_store_page(policy, &batch, index, page);
	kvm_dmm_batch_end(&batch);
	return done;
}

static void dmm_bad_take(struct kvm_dmm_policy *policy,
			 struct kvm_dmm_reclaim *rc, enum dmm_bad_reclaim how)
{
	unsigned long left = rc->nr_pages - min(rc->nr_done, rc->nr_pages);
	pgoff_t index;

	for (index = rc->first;
	     left && kvm_dmm_next_region(policy->pool, &index, rc->last);
	     index++) {
		if (dmm_bad_take_page(policy, index)) {
			left--;
			if (how != DMM_BAD_RECLAIM_SILENT)
				rc->nr_done++;
		}
		if (how == DMM_BAD_RECLAIM_BOUNCE)
			kvm_dmm_fetch(policy->pool, index);
	}
}

static int dmm_bad_reclaim(struct kvm_dmm_policy *policy,
			   struct kvm_dmm_reclaim *rc)
{
	enum dmm_bad_reclaim how = kvm_dmm_value(policy, DMM_BAD_RECLAIM);
	int r = dmm_bad_result(policy, DMM_BAD_RECLAIM_RESULT, DMM_BAD_RECLAIM);

	if (how != DMM_BAD_RECLAIM_GOOD)
		kvm_dmm_policy_count(policy, DMM_BAD_RECLAIM, 1);
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

static const struct kvm_dmm_tunable dmm_bad_tunables[] = {
	[DMM_BAD_ATTACH] = { .name = "attach", .max = U32_MAX },
	[DMM_BAD_LEAVE] = { .name = "leave", .max = U32_MAX },
	[DMM_BAD_FILL] = { .name = "fill", .max = U32_MAX },
	[DMM_BAD_AROUND] = { .name = "around", .choices = dmm_bad_windows },
	[DMM_BAD_FETCH] = { .name = "fetch", .max = U32_MAX },
	[DMM_BAD_FETCH_AROUND] = {
		.name = "fetch_around",
		.choices = dmm_bad_windows,
	},
	[DMM_BAD_DUP_TOKEN] = { .name = "dup_token", .choices = dmm_bad_dups },
	[DMM_BAD_LOOKUP] = { .name = "lookup", .choices = dmm_bad_handles },
	[DMM_BAD_MATCH] = { .name = "match", .choices = dmm_bad_handles },
	[DMM_BAD_PUBLISH] = { .name = "publish", .choices = dmm_bad_publishes },
	[DMM_BAD_AHEAD] = { .name = "ahead", .choices = dmm_bad_aheads },
	[DMM_BAD_RECLAIM] = { .name = "reclaim", .choices = dmm_bad_reclaims },
	[DMM_BAD_TUNED] = { .name = "tuned", .max = 60000 },
	[DMM_BAD_DUP_RESULT] = { .name = "dup_token_result", .max = U32_MAX },
	[DMM_BAD_RECLAIM_RESULT] = { .name = "reclaim_result", .max = U32_MAX },
	[DMM_BAD_SLEEP_MS] = { .name = "sleep_ms", .max = 60000 },
	{ .name = "compressed", .store = compressed_store },
	{ .name = "hold", .store = dmm_bad_hold },
	{ .name = "probe", .store = dmm_bad_probe },
	{}
};

static const char *const dmm_bad_counters[] = {
	[DMM_BAD_ATTACH] = "attach",
	[DMM_BAD_LEAVE] = "leave",
	[DMM_BAD_FILL] = "fill",
	[DMM_BAD_AROUND] = "around",
	[DMM_BAD_FETCH] = "fetch",
	[DMM_BAD_FETCH_AROUND] = "fetch_around",
	[DMM_BAD_DUP_TOKEN] = "dup_token",
	[DMM_BAD_LOOKUP] = "lookup",
	[DMM_BAD_MATCH] = "match",
	[DMM_BAD_PUBLISH] = "publish",
	[DMM_BAD_AHEAD] = "ahead",
	[DMM_BAD_RECLAIM] = "reclaim",
	[DMM_BAD_TUNED] = "tuned",
	[DMM_BAD_LOST] = "lost",
	NULL
};

struct kvm_dmm_policy_ops dmm_bad_ops = {
	.name = "test-bad",
	.owner = THIS_MODULE,
	.tunables = dmm_bad_tunables,
	.counters = dmm_bad_counters,
	.attach = dmm_bad_attach,
	.leave = dmm_bad_leave,
	.detach = dmm_bad_detach,
	.fill = dmm_bad_fill,
	.around = dmm_bad_around,
	.fetch = dmm_bad_fetch,
	.fetch_around = dmm_bad_fetch_around,
	.free_token = dmm_bad_free_token,
	.dup_token = dmm_bad_dup_token,
	.lookup = dmm_bad_lookup,
	.match = dmm_bad_match,
	.publish = dmm_bad_publish,
	.ahead = dmm_bad_ahead,
	.reclaim = dmm_bad_reclaim,
	.tuned = dmm_bad_tuned,
};

static struct kvm_dmm_policy_ops dmm_bad_nofill_ops;

static int __init dmm_bad_init(void)
{
	int r;

	dmm_bad_nofill_ops = dmm_bad_ops;
	dmm_bad_nofill_ops.name = "test-bad-nofill";
	dmm_bad_nofill_ops.fill = NULL;
	dmm_bad_nofill_ops.lazy = true;
	r = kvm_dmm_register_policy(&dmm_bad_ops);
	if (r)
		return r;
	r = kvm_dmm_register_policy(&dmm_bad_nofill_ops);
	if (r)
		kvm_dmm_unregister_policy(&dmm_bad_ops);
	return r;
}
module_init(dmm_bad_init);

static void __exit dmm_bad_exit(void)
{
	kvm_dmm_unregister_policy(&dmm_bad_nofill_ops);
	kvm_dmm_unregister_policy(&dmm_bad_ops);
	dmm_bad_let_go();
}
module_exit(dmm_bad_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: test policy that misbehaves");
MODULE_ALIAS("kvm-dmm-policy-test-bad");
MODULE_ALIAS("kvm-dmm-policy-test-bad-nofill");
MODULE_LICENSE("GPL");
