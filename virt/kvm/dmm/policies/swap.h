/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping: what the files of the swap policy share.
 *
 * Order of locks: codec (a mutex), then those of zsmalloc.  dmm_swap.lock is
 * taken alone.
 */
#ifndef _KVM_DMM_SWAP_H
#define _KVM_DMM_SWAP_H

#include <linux/atomic.h>
#include <linux/kvm_dmm.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "swap_age.h"

struct zs_pool;

enum dmm_swap_tunable {
	DMM_SWAP_COMPRESSOR,
	DMM_SWAP_MAX_COMPRESSED,
	DMM_SWAP_COLD_AFTER_MS,
	DMM_SWAP_PAGES_PER_SECOND,
	DMM_SWAP_REFAULTS_PER_SECOND,
};

/* Counters, by cause; each is a file in pools/<ino>/swap/stats/. */
#define DMM_SWAP_STATS(S)						\
	S(out_same)		/* out: one word all over, no storage */ \
	S(out_compressed)	/* out: compressed */			\
	S(out_kept)		/* out: the copy was still there */	\
	S(in_same)		/* in: filled with a word */		\
	S(in_compressed)	/* in: decompressed */			\
	S(copy_dropped)		/* a kept copy had to make room */	\
	S(cold)			/* out: before memory was wanted */	\
	S(refault)		/* came back */				\
	S(refault_active)	/* came back so soon that it is active */ \
	S(reject_incompressible) /* stays: too large compressed */	\
	S(reject_full)		/* stays: max_compressed_percent */	\
	S(reject_nomem)		/* stays: the host has no memory */	\
	S(visit)		/* regions that the hand has passed */

enum dmm_swap_stat {
#define DMM_SWAP_STAT_ENUM(name) DMM_SWAP_##name,
	DMM_SWAP_STATS(DMM_SWAP_STAT_ENUM)
#undef DMM_SWAP_STAT_ENUM
	DMM_SWAP_NR_STATS
};

/**
 * enum dmm_codec_type - how content is compressed
 * @DMM_LZ4: fast
 * @DMM_ZSTD: small
 */
enum dmm_codec_type {
	DMM_LZ4,
	DMM_ZSTD,
};

/**
 * struct dmm_swap_store - content that has been taken out of a pool
 * @policy: the attached policy
 * @zs: compressed pages
 * @charged: pages of @zs that the pool is charged for
 */
struct dmm_swap_store {
	struct kvm_dmm_policy *policy;
	struct zs_pool *zs;
	atomic_long_t charged;
};

/**
 * struct dmm_swap_region - what is known about the pages of a region
 * @state: of each page; see swap_age.h
 * @evicted: when it was taken out; see dmm_age_evicted()
 * @idle: see dmm_cold_pass()
 */
struct dmm_swap_region {
	u8 state[KVM_DMM_REGION_PAGES];
	u16 evicted[KVM_DMM_REGION_PAGES];
	u8 idle[KVM_DMM_REGION_PAGES];
};

/**
 * struct dmm_swap - the policy in one pool
 * @store: where content goes
 * @lock: protects the rest
 * @regions: page offset / 512 to struct dmm_swap_region; entries stay, so that
 *	looking one up takes no lock
 * @age: all pages together
 * @hand: page offset where the hand goes on
 * @nr_refaults: pages that came back since the last pass for cold pages
 * @cold_work: takes cold pages out; has @cold_need for itself
 * @cold_need: see dmm_cold_adapt()
 */
struct dmm_swap {
	struct dmm_swap_store store;
	spinlock_t lock;	/* see above */
	struct xarray regions;
	struct dmm_age age;
	pgoff_t hand;
	unsigned long nr_refaults;

	struct delayed_work cold_work;
	unsigned int cold_need;
};

/* swap_store.c */
int dmm_store_init(struct dmm_swap_store *store, struct kvm_dmm_policy *policy);
void dmm_store_exit(struct dmm_swap_store *store);
int dmm_store_page(struct dmm_swap_store *store, struct kvm_dmm_batch *batch,
		   pgoff_t index);
int dmm_store_fetch(struct dmm_swap_store *store, u64 token, struct page *page);
void dmm_store_free(struct dmm_swap_store *store, u64 token);
void dmm_store_compact(struct dmm_swap_store *store);
int dmm_store_module_init(void);
void dmm_store_module_exit(void);

/* swap_codec.c: compression */
struct dmm_codec;
struct dmm_codec *dmm_codec_get(void);
void dmm_codec_put(struct dmm_codec *codec);
int dmm_compress(struct dmm_codec *codec, enum dmm_codec_type *type,
		 const void *from, unsigned int max, const void **to);
struct dmm_codec *dmm_codec_get_for(enum dmm_codec_type type);
bool dmm_decompress(struct dmm_codec *codec, enum dmm_codec_type type,
		    const void *from, unsigned int size, void *to);
int dmm_codec_module_init(void);
void dmm_codec_module_exit(void);

#endif /* _KVM_DMM_SWAP_H */
