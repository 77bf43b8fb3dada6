// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: tokens of policies that have content from elsewhere.
 *
 * A policy gets most tokens for frames that it takes out, by
 * kvm_dmm_batch_token().  One that knows what absent memory holds, as that of
 * an image, hands in tokens for whole ranges: so a hole that is punched later
 * stays a hole, and who looks for data finds what there is.
 */
#include <linux/mm.h>

#include "dmm.h"

static bool dmm_is_token_of(struct kvm_dmm_policy *policy, u64 e)
{
	return dmm_kind(e) == KVM_DMM_TOKEN && dmm_policy_id(e) == policy->id;
}

/*
 * Own an entry if it is absent, waiting for whoever else does.  Entries are
 * owned in ascending order.
 */
static bool dmm_lock_absent(struct kvm_dmm_batch *batch, pgoff_t index)
{
	u64 *entry = dmm_entry(batch->region, index);
	u64 e;

	for (;;) {
		e = READ_ONCE(*entry);
		if (e & DMM_BUSY)
			dmm_wait(batch->pool, entry, TASK_UNINTERRUPTIBLE);
		else if (dmm_kind(e) != KVM_DMM_ABSENT)
			return false;
		else if (dmm_trylock(batch->region, entry, e))
			break;
	}
	dmm_batch_insert(batch, index);
	return true;
}

/* The part of a range that lies in one region; returns how many tokens. */
static long dmm_add_tokens(struct kvm_dmm_policy *policy, pgoff_t first,
			   pgoff_t last, u64 token)
{
	struct kvm_dmm_pool *pool = policy->pool;
	struct kvm_dmm_batch batch;
	bool cached = false;
	unsigned int i;
	pgoff_t index;
	long nr = 0;

	if (!dmm_region_get(pool, first))
		return -ENOMEM;
	kvm_dmm_batch_start(&batch, pool, first);
	for (index = first; index <= last; index++)
		if (dmm_lock_absent(&batch, index))
			cached |= *dmm_entry(batch.region, index) & DMM_CACHED;
	/* Pairs with the walk of dmm_detach(): either sees what the other did. */
	if (READ_ONCE(policy->draining) || READ_ONCE(policy->ejected)) {
		kvm_dmm_batch_end(&batch);
		return -EBUSY;
	}
	/* The page of zeros is not what is there any more. */
	if (cached)
		dmm_batch_unmap(&batch);

	for_each_set_bit(i, batch.locked, batch.end) {
		index = batch.base + i;
		/* The size as in dmm_fault_lock(). */
		if (index >= dmm_pages(pool))
			break;
		atomic_long_inc(&pool->nr_tokens);
		dmm_batch_set(&batch, index,
			      dmm_mk_token(policy->id, token + index - first));
		nr++;
	}
	kvm_dmm_batch_end(&batch);
	return nr;
}

/**
 * kvm_dmm_add_tokens - make tokens of what is absent in a range
 * @policy: whose tokens they are
 * @first: first page offset
 * @last: last page offset
 * @token: token for @first; that for @first + 1 is @token + 1, and so on
 *
 * What is not absent is left alone, and nothing is done beyond the end of the
 * file.  Who has read zeros there so far reads the policy's content from now
 * on.
 *
 * Context: May sleep.  No busy bit is held.
 * Return: The number of tokens that were made; -EINVAL: the policy has no fetch
 *	op; -ERANGE: a token is too large; -EBUSY: the policy is being detached;
 *	-EINTR: by a signal; -ENOMEM.  On error those that were made stay.
 */
long kvm_dmm_add_tokens(struct kvm_dmm_policy *policy, pgoff_t first,
			pgoff_t last, u64 token)
{
	pgoff_t end;
	long n, nr = 0;

	if (WARN_ON_ONCE(!policy->ops->fetch))
		return -EINVAL;
	if ((token + (last - first)) >> KVM_DMM_TOKEN_BITS)
		return -ERANGE;
	last = min(last, dmm_pages(policy->pool) - 1);
	while (first <= last && dmm_pages(policy->pool)) {
		end = min(last, first | (KVM_DMM_REGION_PAGES - 1));
		n = dmm_add_tokens(policy, first, end, token);
		if (n < 0)
			return n;
		nr += n;
		token += end + 1 - first;
		first = end + 1;
		if (signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return nr;
}
EXPORT_SYMBOL_GPL(kvm_dmm_add_tokens);

/**
 * kvm_dmm_next_token - find the next token of a policy
 * @policy: the policy
 * @index: in: where to start; out: page offset of the token, at or after @index
 *
 * The answer may be old when the caller reads it.
 *
 * Context: May sleep.
 * Return: False if there is none.
 */
bool kvm_dmm_next_token(struct kvm_dmm_policy *policy, pgoff_t *index)
{
	struct kvm_dmm_region *region;
	pgoff_t i = *index;

	while (dmm_next_region(policy->pool, &i, ULONG_MAX)) {
		region = dmm_region(policy->pool, i);
		do {
			if (dmm_is_token_of(policy,
					    READ_ONCE(*dmm_entry(region, i)))) {
				*index = i;
				return true;
			}
		} while (++i & (KVM_DMM_REGION_PAGES - 1));
		cond_resched();
	}
	return false;
}
EXPORT_SYMBOL_GPL(kvm_dmm_next_token);

/**
 * kvm_dmm_has_token - does a policy have the content of a page?
 * @policy: the policy
 * @index: page offset
 *
 * The answer may be old when the caller reads it.
 *
 * Context: Any.
 * Return: True if there is a token of the policy.
 */
bool kvm_dmm_has_token(struct kvm_dmm_policy *policy, pgoff_t index)
{
	struct kvm_dmm_region *region = dmm_region(policy->pool, index);

	return region && dmm_is_token_of(policy,
					 READ_ONCE(*dmm_entry(region, index)));
}
EXPORT_SYMBOL_GPL(kvm_dmm_has_token);

/**
 * kvm_dmm_drop_tokens - make absent what a policy has tokens for
 * @policy: the policy, whose free_token op is called for each
 *
 * To undo kvm_dmm_add_tokens().  Waits for accesses that are about to use a token
 * up: the ops that they call for it are over, publish included.
 *
 * Context: May sleep.  No busy bit is held.
 */
void kvm_dmm_drop_tokens(struct kvm_dmm_policy *policy)
{
	struct kvm_dmm_region *region;
	pgoff_t index = 0;
	u64 *entry, e;

	while (kvm_dmm_next_token(policy, &index)) {
		region = dmm_region(policy->pool, index);
		entry = dmm_entry(region, index);
		e = READ_ONCE(*entry);
		if (e & DMM_BUSY) {
			dmm_wait(policy->pool, entry, TASK_UNINTERRUPTIBLE);
			continue;
		}
		if (!dmm_is_token_of(policy, e) ||
		    !dmm_trylock(region, entry, e))
			continue;
		atomic_long_dec(&policy->pool->nr_tokens);
		policy->ops->free_token(policy, dmm_token(e));
		dmm_unlock(region, entry, 0);
		cond_resched();
	}
}
EXPORT_SYMBOL_GPL(kvm_dmm_drop_tokens);
