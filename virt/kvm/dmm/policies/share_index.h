/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping: the share policy's index of content.
 */
#ifndef _KVM_DMM_SHARE_INDEX_H
#define _KVM_DMM_SHARE_INDEX_H

#include <linux/kvm_dmm.h>

struct share_fresh;
struct share_record;

#define SHARE_ZERO	(~0ULL)		/* hash of a page of zeros */
#define SHARE_HASH	(SHARE_ZERO >> 1)	/* bits of all others */

u64 share_seed(struct kvm_dmm_pool *pool);
u64 share_hash(struct page *page, u64 seed);
struct kvm_dmm_shared *share_lookup(u64 hash, struct kvm_dmm_batch *batch,
				    pgoff_t index, struct share_record **slot,
				    struct share_fresh *fresh);
struct kvm_dmm_shared *share_lookup_shared(u64 hash, struct kvm_dmm_batch *batch,
					   struct kvm_dmm_shared *own,
					   struct share_fresh *fresh);
struct kvm_dmm_shared *share_match(u64 hash);
void share_drop(u64 hash, struct kvm_dmm_shared *shared);
void share_forget(struct share_record **slot);
void share_sweep(void);
int share_index_init(void);
void share_index_exit(void);

/* share_fresh.c */
struct share_fresh *share_fresh_create(void);
void share_fresh_free(struct share_fresh *fresh);
bool share_fresh_ready(struct share_fresh *fresh, struct kvm_dmm_batch *batch,
		       pgoff_t index);
struct kvm_dmm_shared *share_fresh_handle(struct share_fresh *fresh,
					  struct kvm_dmm_batch *batch,
					  pgoff_t index);

#endif /* _KVM_DMM_SHARE_INDEX_H */
