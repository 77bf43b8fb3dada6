/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping: what the files of the swap policy share.
 *
 * Order of locks: writeback_lock, codec (both mutexes), then those of zsmalloc.
 * dmm_swap_store.lock, then dmm_backing.lock.  dmm_swap.lock is taken alone.
 */
#ifndef _KVM_DMM_SWAP_H
#define _KVM_DMM_SWAP_H

#include <linux/atomic.h>
#include <linux/kvm_dmm.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "swap_age.h"

struct bio_vec;
struct file;
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
	S(out_written)		/* out: written to the backing */	\
	S(written_back)		/* compressed so far, now in the backing */ \
	S(out_kept)		/* out: the copy was still there */	\
	S(out_shared)		/* of these, shared frames */		\
	S(in_same)		/* in: filled with a word */		\
	S(in_compressed)	/* in: decompressed */			\
	S(in_read)		/* in: read from the backing */		\
	S(ahead_used)		/* read ahead, and wanted */		\
	S(ahead_unused)		/* read ahead for nothing */		\
	S(copy_dropped)		/* a kept copy had to make room */	\
	S(cold)			/* out: before memory was wanted */	\
	S(refault)		/* came back */				\
	S(refault_active)	/* came back so soon that it is active */ \
	S(reject_incompressible) /* stays: too large compressed */	\
	S(reject_full)		/* stays: max_compressed_percent */	\
	S(reject_nomem)		/* stays: the host has no memory */	\
	S(reject_backing)	/* stays: the backing is full */	\
	S(write_changed)	/* stays: used while it was written */	\
	S(write_failed)		/* stays: could not be written */	\
	S(read_failed)		/* could not be read */			\
	S(checksum_failed)	/* not what was written came back */	\
	S(wait_ns)		/* nanoseconds that accesses waited for reads */ \
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

/* Reads, of a pool, too, and writes of a backing at once. */
#define DMM_READ_DEPTH		64
#define DMM_WRITE_DEPTH		8
/*
 * Memory for a page on its way out or in, while entries are busy and others wait.
 * Without NORETRY one page never fails: it would be tried for as long as the host
 * is short, without I/O, so with little chance, and without an end by a signal.
 */
#define DMM_SWAP_GFP		(GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN)

/* The host does not freeze while a worker runs: jiffies until it lets go. */
#define DMM_SWAP_RUN		HZ

/* Pages in one write. */
#define DMM_WRITE_MAX		64U
/* Pages of a pool that are being written at once. */
#define DMM_WRITE_LIMIT		1024
/* Pages in one read, with those read ahead. */
#define DMM_READ_MAX		32U

/**
 * struct dmm_backing - a file or block device
 * @link: in the list of all
 * @refs: stores and slots that use it
 * @file: the file
 * @direct: it can do direct I/O
 * @stable: what it writes must not change meanwhile
 * @failing: the last I/O failed
 * @nr: number of slots
 * @read_wq: where it is read
 * @write_wq: where it is written
 * @lock: protects the rest
 * @used: a bit for each slot
 * @nr_used: slots in use
 * @next: where the search for slots goes on
 * @thinned: when copies in it were given up last, in jiffies
 * @stores: stores that write to it
 */
struct dmm_backing {
	struct list_head link;
	refcount_t refs;
	struct file *file;
	bool direct;
	bool stable;
	bool failing;
	unsigned long nr;
	struct workqueue_struct *read_wq;
	struct workqueue_struct *write_wq;
	spinlock_t lock;	/* see above */
	unsigned long *used;
	unsigned long nr_used;
	unsigned long next;
	unsigned long thinned;
	struct list_head stores;
};

/**
 * struct dmm_slot - content in a backing; never changes once a token leads here
 * @backing: the backing, with a reference
 * @csum: see dmm_slot_checksum()
 * @written: dmm_slot_clock when the content was there
 * @nr: number of the slot
 * @refs: tokens that lead here, of one pool or of several
 */
struct dmm_slot {
	struct dmm_backing *backing;
	u64 csum;
	u64 written;
	u32 nr;
	refcount_t refs;
};

/**
 * struct dmm_swap_store - content that has been taken out of a pool
 * @policy: the attached policy
 * @zs: compressed pages
 * @charged: pages of @zs that the pool is charged for
 * @nr_slots: tokens that are slots, those of kept copies included
 * @nr_io: writes and reads that are on their way
 * @lock: protects the rest
 * @backing: where to write to, or NULL; stays as long as there is I/O or a slot
 * @sharing: in its list of stores; protected by backing->lock, too
 * @window: the last read that was more than what was asked for, or NULL
 * @reads: reads that are on their way
 * @nr_reads: their number; read without the lock, for a guess
 * @read_next: slot that the next read in sequence begins with
 * @read_nr: pages of the last read
 */
struct dmm_swap_store {
	struct kvm_dmm_policy *policy;
	struct zs_pool *zs;
	atomic_long_t charged;
	atomic_long_t nr_slots;
	atomic_t nr_io;
	spinlock_t lock;	/* see above */
	struct dmm_backing *backing;
	struct list_head sharing;
	struct dmm_read *window;
	struct list_head reads;
	unsigned int nr_reads;
	u64 read_next;
	unsigned int read_nr;
};

/**
 * struct dmm_swap_region - what is known about the pages of a region
 * @state: of each page; see swap_age.h
 * @evicted: when it was taken out; see dmm_age_evicted()
 * @idle: see dmm_cold_pass()
 * @writing: pages that are being written; atomic
 * @packed: pages that may be compressed; atomic
 * @copied: pages that may have a copy in a backing; atomic
 */
struct dmm_swap_region {
	u8 state[KVM_DMM_REGION_PAGES];
	u16 evicted[KVM_DMM_REGION_PAGES];
	u8 idle[KVM_DMM_REGION_PAGES];
	DECLARE_BITMAP(writing, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(packed, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(copied, KVM_DMM_REGION_PAGES);
};

/**
 * struct dmm_swap - the policy in one pool
 * @store: where content goes
 * @submitted: pages that were given to the backing to write
 * @completed: of these, those it is done with
 * @written: of these, those that are out
 * @failed: when the backing could not write, in jiffies; 0: it could, last; written
 *	with @lock held
 * @writeback_lock: one at a time moves compressed pages on
 * @writeback_by: who; to bring these back is no refault
 * @writeback_work: moves them on when they take too much memory
 * @copies_work: gives up copies in the backing; has @copies_next for itself
 * @copies_next: page offset where it goes on
 * @lock: protects the rest
 * @regions: page offset / 512 to struct dmm_swap_region; entries stay, so that
 *	looking one up takes no lock
 * @age: all pages together
 * @hand: page offset where the hand goes on
 * @nr_refaults: pages that came back since the last pass for cold pages
 * @same_next: page offset after the last same-filled pages that came back
 *	together; with @same_nr read and written without the lock, for a guess
 * @same_nr: how many were wanted then
 * @cold_work: takes cold pages out; has what follows for itself
 * @cold_need: see dmm_cold_adapt()
 * @cold_last: when the last pass began
 * @cold_ms: time for which it may take pages and has taken none, in milliseconds
 * @cold_next: where an unfinished pass goes on; 0: the next one is to begin
 * @cold_left: pages that it may still take
 */
struct dmm_swap {
	struct dmm_swap_store store;
	atomic_long_t submitted;
	atomic_long_t completed;
	atomic_long_t written;
	unsigned long failed;
	struct mutex writeback_lock;	/* see above */
	struct task_struct *writeback_by;
	struct work_struct writeback_work;
	struct delayed_work copies_work;
	pgoff_t copies_next;
	spinlock_t lock;	/* see above */
	struct xarray regions;
	struct dmm_age age;
	pgoff_t hand;
	unsigned long nr_refaults;
	pgoff_t same_next;
	unsigned int same_nr;

	struct delayed_work cold_work;
	unsigned int cold_need;
	ktime_t cold_last;
	u64 cold_ms;
	pgoff_t cold_next;
	unsigned long cold_left;
};

/* A page cannot go: let it be for long. */
static inline void dmm_swap_hard(struct dmm_swap *swap,
				 struct dmm_swap_region *region, unsigned int nr)
{
	lockdep_assert_held(&swap->lock);
	dmm_age_become(&swap->age, &region->state[nr], DMM_AGE_HARD);
	region->idle[nr] = 0;
}

/**
 * struct dmm_writer - gathers pages for the backing
 * @swap: the policy in the pool
 * @write: what is being gathered, or NULL
 * @queued: pages since dmm_writer_wait(), those in @write included
 * @written: swap->written at that time
 * @again: they were out before
 */
struct dmm_writer {
	struct dmm_swap *swap;
	struct dmm_write *write;
	unsigned long queued;
	unsigned long written;
	bool again;
};

/* swap.c */
extern struct workqueue_struct *dmm_swap_wq;
struct dmm_swap_region *dmm_swap_region(struct dmm_swap *swap, pgoff_t index);
unsigned int dmm_swap_nr(pgoff_t index);

/* swap_store.c */
int dmm_store_init(struct dmm_swap_store *store, struct kvm_dmm_policy *policy);
void dmm_store_drain(struct dmm_swap_store *store);
void dmm_store_exit(struct dmm_swap_store *store);
int dmm_store_page(struct dmm_swap_store *store, struct kvm_dmm_batch *batch,
		   pgoff_t index, struct dmm_writer *writer);
int dmm_store_shared(struct dmm_swap_store *store, struct kvm_dmm_batch *batch,
		     pgoff_t index, struct page *page,
		     struct dmm_writer *writer);
int dmm_store_fetch(struct dmm_swap_store *store, u64 token, struct page *page,
		    unsigned int flags);
bool dmm_store_is_same(u64 token);
bool dmm_store_in_memory(u64 token);
u64 dmm_slot_token(struct dmm_slot *slot);
int dmm_store_dup(struct dmm_swap_store *store, u64 token,
		  struct dmm_swap_store *to, u64 *new);
int dmm_store_set_backing(struct dmm_swap_store *store, const char *path);
ssize_t dmm_store_show_backing(struct dmm_swap_store *store, char *buf);
bool dmm_store_has_room(struct dmm_swap_store *store);
bool dmm_store_wants_room(struct dmm_swap_store *store);
unsigned long dmm_store_excess(struct dmm_swap_store *store);
void dmm_store_free(struct dmm_swap_store *store, u64 token);
void dmm_store_compact(struct dmm_swap_store *store);
int dmm_store_module_init(void);
void dmm_store_module_exit(void);

/* swap_backing.c: the file or device */
struct dmm_backing *dmm_backing_open(const char *path);
void dmm_backing_put(struct dmm_backing *backing);
unsigned int dmm_backing_alloc(struct dmm_backing *backing, unsigned int max,
			       u32 *first);
void dmm_backing_release(struct dmm_backing *backing, u32 first,
			 unsigned int n);
unsigned int dmm_backing_row(struct dmm_backing *backing, u32 first,
			     unsigned int max);
bool dmm_backing_crowded(struct dmm_backing *backing);
bool dmm_backing_wants_room(struct dmm_backing *backing);
int dmm_backing_io(struct dmm_backing *backing, bool write,
		   struct bio_vec *bvec, unsigned int n, u32 first);
ssize_t dmm_backing_path(struct dmm_backing *backing, char *buf);
extern atomic64_t dmm_slot_clock;
u64 dmm_slot_checksum(u32 nr, struct page *page);
struct dmm_slot *dmm_slot_create(struct dmm_backing *backing, u32 nr, u64 csum);
void dmm_slot_put(struct dmm_slot *slot);
int dmm_backing_module_init(void);
void dmm_backing_module_exit(void);

/* swap_write.c: from frames to the backing */
int dmm_writer_add(struct dmm_writer *writer, struct kvm_dmm_batch *batch,
		   pgoff_t index, struct page *page, bool shared);
void dmm_writer_submit(struct dmm_writer *writer);
bool dmm_writer_busy(struct dmm_writer *writer);
unsigned long dmm_writer_wait(struct dmm_writer *writer);
bool dmm_writes_fail(struct dmm_swap *swap);
unsigned long dmm_writes_pending(struct dmm_swap *swap);
void dmm_writer_init(struct dmm_writer *writer, struct dmm_swap *swap);

/* swap_writeback.c: from compressed memory to the backing */
int dmm_writeback(struct dmm_swap *swap, unsigned long nr,
		  unsigned long timeout);
void dmm_writeback_work(struct work_struct *work);

/* swap_copies.c: copies of pages that are back */
unsigned int dmm_copies_forget(struct dmm_swap *swap, pgoff_t base,
			       unsigned long *which);
void dmm_copies_work(struct work_struct *work);
void dmm_copies_thin(struct dmm_backing *backing);

/* swap_read.c: and back */
int dmm_slot_fetch(struct dmm_swap_store *store, struct dmm_slot *slot,
		   struct page *page, unsigned int flags);
void dmm_window_drop(struct dmm_swap_store *store);

/* swap_codec.c: compression */
struct dmm_codec;
struct dmm_codec *dmm_codec_get(void);
void dmm_codec_put(struct dmm_codec *codec);
void *dmm_codec_page(struct dmm_codec *codec);
int dmm_compress(struct dmm_codec *codec, enum dmm_codec_type *type,
		 const void *from, unsigned int max, const void **to);
struct dmm_codec *dmm_codec_get_for(enum dmm_codec_type type);
bool dmm_decompress(struct dmm_codec *codec, enum dmm_codec_type type,
		    const void *from, unsigned int size, void *to);
int dmm_codec_module_init(void);
void dmm_codec_module_exit(void);

#endif /* _KVM_DMM_SWAP_H */
