/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping: the parts of the policy that does everything wrong.
 */
#ifndef _KVM_DMM_TEST_BAD_H
#define _KVM_DMM_TEST_BAD_H

#include <linux/kvm_dmm.h>

/*
 * A tunable for each op says what it gets wrong, a counter with the same name
 * how often it did.
 */
enum dmm_bad_op {
	DMM_BAD_ATTACH,		/* result: see dmm_bad_result() */
	DMM_BAD_LEAVE,		/* result */
	DMM_BAD_FILL,		/* result */
	DMM_BAD_AROUND,		/* enum dmm_bad_window */
	DMM_BAD_FETCH,		/* result; 1: not kept, whatever it says */
	DMM_BAD_FETCH_AROUND,	/* enum dmm_bad_window */
	DMM_BAD_DUP_TOKEN,	/* enum dmm_bad_dup */
	DMM_BAD_LOOKUP,		/* enum dmm_bad_handle */
	DMM_BAD_MATCH,		/* enum dmm_bad_handle */
	DMM_BAD_PUBLISH,	/* enum dmm_bad_publish */
	DMM_BAD_AHEAD,		/* enum dmm_bad_ahead */
	DMM_BAD_RECLAIM,	/* enum dmm_bad_reclaim */
	DMM_BAD_TUNED,		/* milliseconds that it takes */
	DMM_BAD_NR_OPS,

	/* More tunables. */
	DMM_BAD_DUP_RESULT = DMM_BAD_NR_OPS,
	DMM_BAD_RECLAIM_RESULT,
	DMM_BAD_SLEEP_MS,	/* in each op that may sleep */

	/* More counters. */
	DMM_BAD_LOST = DMM_BAD_NR_OPS,	/* tokens without content that came back */
};

/* What to fill, copy or fetch with a page. */
enum dmm_bad_window {
	DMM_BAD_WINDOW_NONE,
	DMM_BAD_WINDOW_ALL,		/* more than a region */
	DMM_BAD_WINDOW_OTHERS,		/* another region */
	DMM_BAD_WINDOW_BACKWARDS,	/* the end before the start */
	DMM_BAD_WINDOW_BEHIND,		/* 8 pages, but not the page itself */
	DMM_BAD_WINDOW_ELSEWHERE,	/* that of another page, which it touches */
	DMM_BAD_WINDOW_BLOCK,		/* a block, where none can be */
};

enum dmm_bad_handle {
	DMM_BAD_HANDLE_NONE,
	DMM_BAD_HANDLE_ERROR,		/* an error pointer */
	DMM_BAD_HANDLE_HELD,		/* that of "hold" or of publish */
};

enum dmm_bad_publish {
	DMM_BAD_PUBLISH_FORGET,
	DMM_BAD_PUBLISH_HOLD,		/* for lookup, right or not */
};

extern struct kvm_dmm_policy_ops dmm_bad_ops;

void dmm_bad_sleep(struct kvm_dmm_policy *policy);

/* test_bad_wish.c */
void dmm_bad_want_ahead(struct kvm_dmm_policy *policy);
unsigned int dmm_bad_ahead(struct kvm_dmm_policy *policy, pgoff_t index,
			   pgoff_t *list, unsigned int max);
void dmm_bad_around(struct kvm_dmm_policy *policy,
		    struct kvm_dmm_around *around);
void dmm_bad_fetch_around(struct kvm_dmm_policy *policy, u64 token,
			  struct kvm_dmm_around *around);

/* test_bad_share.c */
int dmm_bad_hold(struct kvm_dmm_policy *policy, const char *buf);
void dmm_bad_let_go(void);
struct kvm_dmm_shared *dmm_bad_lookup(struct kvm_dmm_policy *policy, u64 token);
struct kvm_dmm_shared *dmm_bad_match(struct kvm_dmm_policy *policy,
				     pgoff_t index, struct page *page);
void dmm_bad_publish(struct kvm_dmm_policy *policy, u64 token,
		     struct kvm_dmm_shared *shared);

/* test_bad_probe.c */
int dmm_bad_probe(struct kvm_dmm_policy *policy, const char *buf);

#endif /* _KVM_DMM_TEST_BAD_H */
