// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: calls of a policy that the core has to refuse.
 */
#include <linux/err.h>
#include <linux/errno.h>
#include <linux/slab.h>

#include "test_bad.h"

/* What can be refused has to be, with the documented error. */
static int dmm_bad_probe_batch(struct kvm_dmm_policy *policy, pgoff_t index)
{
	struct kvm_dmm_policy stranger = { .ops = &dmm_bad_ops };
	struct kvm_dmm_batch batch;
	int r = -EPROTO;
	u64 token;

	if (kvm_dmm_add_tokens(policy, index, index,
			       1ULL << KVM_DMM_TOKEN_BITS) != -ERANGE)
		return r;
	if (!kvm_dmm_batch_start(&batch, policy->pool, index))
		return -ENOENT;
	/* Nothing was added or taken yet. */
	if (kvm_dmm_batch_page(&batch, index) ||
	    kvm_dmm_batch_token(&batch, policy, index, 0) != -ENOENT ||
	    kvm_dmm_batch_copy(&batch, policy, index, &token) ||
	    kvm_dmm_batch_kept(&batch, policy, index) != -ENOENT ||
	    kvm_dmm_batch_absent(&batch, index) != -ENOENT ||
	    kvm_dmm_batch_handle(&batch, index) != ERR_PTR(-ENOENT) ||
	    kvm_dmm_batch_handle_in(&batch, index, NULL) != ERR_PTR(-ENOENT) ||
	    kvm_dmm_batch_alloc(&batch, index, GFP_NOIO) ||
	    kvm_dmm_batch_join(&batch, index, NULL) != -ENOENT ||
	    kvm_dmm_batch_token_shared(&batch, policy, index, 0, 0) != -ENOENT ||
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
	    kvm_dmm_batch_copy(&batch, policy, index, &token) ||
	    kvm_dmm_batch_kept(&batch, policy, index) != -ENOENT)
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
		.attach = dmm_bad_ops.attach,
		.detach = dmm_bad_ops.detach,
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
	ops->name = "test-bad-3";
	ops->fetch = dmm_bad_ops.fetch;	/* without free_token */
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

/**
 * dmm_bad_probe - make the calls that the interface forbids and can refuse
 * @policy: the policy
 * @buf: page offset to make them for
 *
 * Return: 0; -EPROTO: a call was not refused as documented; or -errno.
 */
int dmm_bad_probe(struct kvm_dmm_policy *policy, const char *buf)
{
	unsigned long index;
	int r = kstrtoul(buf, 0, &index);

	return r ?: dmm_bad_probe_register() ?:
	       dmm_bad_probe_batch(policy, index);
}
