// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: handles of shared frames that are none, or that stand
 * for something else.
 */
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/mutex.h>

#include "test_bad.h"

/* One for all pools: dead, of another domain, or of other content. */
static struct kvm_dmm_shared *dmm_bad_held;
static DEFINE_MUTEX(dmm_bad_held_lock);

/* The reference of @shared goes along. */
static void dmm_bad_set(struct kvm_dmm_shared *shared)
{
	mutex_lock(&dmm_bad_held_lock);
	swap(dmm_bad_held, shared);
	mutex_unlock(&dmm_bad_held_lock);
	kvm_dmm_shared_put(shared);
}

void dmm_bad_let_go(void)
{
	dmm_bad_set(NULL);
}

/**
 * dmm_bad_hold - hold the handle of a frame, which becomes a shared one
 * @policy: the policy
 * @buf: page offset
 *
 * Return: 0 or -errno.
 */
int dmm_bad_hold(struct kvm_dmm_policy *policy, const char *buf)
{
	struct kvm_dmm_shared *shared = ERR_PTR(-EAGAIN);
	struct kvm_dmm_batch batch;
	unsigned long index;
	int r = kstrtoul(buf, 0, &index);

	if (r)
		return r;
	if (!kvm_dmm_batch_start(&batch, policy->pool, index))
		return -ENOENT;
	if (kvm_dmm_batch_add_shared(&batch, index) ||
	    (kvm_dmm_batch_add(&batch, index) &&
	     kvm_dmm_batch_protect(&batch)))
		shared = kvm_dmm_batch_handle(&batch, index);
	kvm_dmm_batch_end(&batch);
	if (IS_ERR(shared))
		return PTR_ERR(shared);
	dmm_bad_set(shared);
	return 0;
}

static struct kvm_dmm_shared *dmm_bad_handle(struct kvm_dmm_policy *policy,
					     enum dmm_bad_op op)
{
	enum dmm_bad_handle how = kvm_dmm_value(policy, op);
	struct kvm_dmm_shared *shared = NULL;

	dmm_bad_sleep(policy);
	if (how == DMM_BAD_HANDLE_NONE)
		return NULL;
	kvm_dmm_policy_count(policy, op, 1);
	if (how == DMM_BAD_HANDLE_ERROR)
		return ERR_PTR(-EIO);
	mutex_lock(&dmm_bad_held_lock);
	if (dmm_bad_held)
		shared = kvm_dmm_shared_get(dmm_bad_held);
	mutex_unlock(&dmm_bad_held_lock);
	return shared;
}

struct kvm_dmm_shared *dmm_bad_lookup(struct kvm_dmm_policy *policy, u64 token)
{
	return dmm_bad_handle(policy, DMM_BAD_LOOKUP);
}

struct kvm_dmm_shared *dmm_bad_match(struct kvm_dmm_policy *policy,
				     pgoff_t index, struct page *page)
{
	return dmm_bad_handle(policy, DMM_BAD_MATCH);
}

void dmm_bad_publish(struct kvm_dmm_policy *policy, u64 token,
		     struct kvm_dmm_shared *shared)
{
	dmm_bad_sleep(policy);
	if (kvm_dmm_value(policy, DMM_BAD_PUBLISH) == DMM_BAD_PUBLISH_FORGET)
		return;
	kvm_dmm_policy_count(policy, DMM_BAD_PUBLISH, 1);
	dmm_bad_set(kvm_dmm_shared_get(shared));
}
