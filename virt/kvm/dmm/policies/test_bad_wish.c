// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: wishes of a policy that the core must not grant.
 */
#include <linux/mutex.h>

#include "test_bad.h"

/* What is mapped ahead of a guest. */
enum dmm_bad_ahead {
	DMM_BAD_AHEAD_NONE,	/* nothing, and is not asked */
	DMM_BAD_AHEAD_MANY,	/* more than there is room for in the list */
	DMM_BAD_AHEAD_OUTSIDE,	/* what is behind the end of the file */
	DMM_BAD_AHEAD_SAME,	/* the page itself, over and over */
	DMM_BAD_AHEAD_UNSET,	/* counts what it has not put into the list */
};

static DEFINE_MUTEX(dmm_bad_ahead_lock);

/**
 * dmm_bad_want_ahead - have the ahead op called while it does something
 * @policy: the policy, which never takes it back when it goes
 */
void dmm_bad_want_ahead(struct kvm_dmm_policy *policy)
{
	mutex_lock(&dmm_bad_ahead_lock);
	kvm_dmm_want_ahead(policy, kvm_dmm_value(policy, DMM_BAD_AHEAD));
	mutex_unlock(&dmm_bad_ahead_lock);
}

unsigned int dmm_bad_ahead(struct kvm_dmm_policy *policy, pgoff_t index,
			   pgoff_t *list, unsigned int max)
{
	unsigned int i, how = kvm_dmm_value(policy, DMM_BAD_AHEAD);

	dmm_bad_sleep(policy);
	if (how == DMM_BAD_AHEAD_NONE)
		return 0;
	kvm_dmm_policy_count(policy, DMM_BAD_AHEAD, 1);
	if (how == DMM_BAD_AHEAD_UNSET)
		return max;
	for (i = 0; i < max; i++) {
		if (how == DMM_BAD_AHEAD_MANY)
			list[i] = index + 1 + i;
		else if (how == DMM_BAD_AHEAD_SAME)
			list[i] = index;
		else if (i & 1)
			list[i] = ULONG_MAX - i;
		else
			list[i] = kvm_dmm_pool_pages(policy->pool) + i;
	}
	return how == DMM_BAD_AHEAD_MANY ? UINT_MAX : max;
}

static void dmm_bad_wish(struct kvm_dmm_policy *policy, enum dmm_bad_op op,
			 struct kvm_dmm_around *around)
{
	enum dmm_bad_window window = kvm_dmm_value(policy, op);

	if (window != DMM_BAD_WINDOW_NONE)
		kvm_dmm_policy_count(policy, op, 1);
	switch (window) {
	case DMM_BAD_WINDOW_NONE:
		break;
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
	case DMM_BAD_WINDOW_BEHIND:
		around->first += 1;
		around->last += 8;
		break;
	case DMM_BAD_WINDOW_ELSEWHERE:
		around->index += KVM_DMM_REGION_PAGES;
		around->copy = !around->copy;
		around->first = around->index;
		around->last = around->index + 8;
		break;
	case DMM_BAD_WINDOW_BLOCK:
		around->block = true;
		break;
	}
}

void dmm_bad_around(struct kvm_dmm_policy *policy, struct kvm_dmm_around *around)
{
	dmm_bad_sleep(policy);
	dmm_bad_wish(policy, DMM_BAD_AROUND, around);
}

/* May not sleep. */
void dmm_bad_fetch_around(struct kvm_dmm_policy *policy, u64 token,
			  struct kvm_dmm_around *around)
{
	dmm_bad_wish(policy, DMM_BAD_FETCH_AROUND, around);
}
