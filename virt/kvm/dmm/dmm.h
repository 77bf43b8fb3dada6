/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping: what the files of the core share.
 *
 * Order of locks, outermost first:
 *
 *	pool->policy_mutex (of a new file: by trylock, with its directory locked)
 *	kvm->slots_lock, inode lock, mmap_lock
 *	  dmm_check_mutex (then all busy bits of a pool)
 *	    pool->limit_mutex
 *	      busy bits of entries (many: ascending; otherwise by trylock)
 *	        pool->bind_lock
 *	          kvm->srcu, kvm->mmu_lock
 *	        page lock of a frame or of pool->zero
 *	          i_mmap_rwsem, page table locks
 *	        shared->lock
 *	          family->lock
 */
#ifndef _KVM_DMM_DMM_H
#define _KVM_DMM_DMM_H

#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/kvm_dmm.h>
#include <linux/mm.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/srcu.h>
#include <linux/wait.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "entry.h"
#include "limit.h"

struct dmm_family;
struct kvm;
struct kvm_memory_slot;

#define DMM_LIST_MAX	128	/* characters of a list of policies */
#define DMM_REGION_SHIFT	9	/* log2(KVM_DMM_REGION_PAGES) */

/**
 * struct kvm_dmm_region - the map of 2 MiB of guest memory
 * @entry: KVM_DMM_REGION_PAGES entries, a page; see entry.h
 * @block: first page frame number of 512 contiguous, aligned frames that were
 *	allocated for this region, or 0; written with all entries busy
 * @deviants: entries that are busy or are not the writable frame of the block;
 *	kept while @block is set; at 0 the region may be mapped as 2 MiB
 * @tried: a fault has tried to make a block of it
 * @protects: how often entries of it were write-protected; as long as it stays
 *	the same, a frame that is still protected has not changed
 *
 * Regions are made on the first touch and live as long as their file: nobody
 * needs a lock or a reference to use one.
 */
struct kvm_dmm_region {
	u64 *entry;
	unsigned long block;
	atomic_t deviants;
	bool tried;
	atomic_t protects;
};

/* Counters, by cause; each is a file in pools/<ino>/stats/. */
#define DMM_STATS(S)							\
	S(fault)		/* page faults of guests and hosts */	\
	S(zero_read)		/* reads of absent memory */		\
	S(fill)			/* absent entry became a frame */	\
	S(fill_around)		/* of these, before they were touched */ \
	S(fill_block)		/* 2 MiB became frames at once */	\
	S(make_block)		/* 512 frames became a block */		\
	S(make_block_failed)						\
	S(unprotect)		/* write to a protected frame */	\
	S(cow)			/* write to a shared frame: copied */	\
	S(cow_around)		/* of these, before they were written */ \
	S(take_over)		/* the same by its last user */		\
	S(fetch)		/* token became a frame */		\
	S(fetch_around)		/* of these, before they were touched */ \
	S(fetch_failed)							\
	S(token)		/* frame became a token */		\
	S(drop)			/* frame or token given up */		\
	S(share)		/* entry joined a shared frame */	\
	S(clone)		/* entry became one by cloning */	\
	S(busy_wait)		/* slept for a busy entry */		\
	S(reject_pinned)	/* left alone: somebody holds it */	\
	S(reclaim)		/* pages taken out by policies */	\
	S(limit_wait)		/* waited at the limit */		\
	S(limit_failed)		/* waited in vain: access failed */	\
	S(eject)		/* policies ejected */

enum dmm_stat {
#define DMM_STAT_ENUM(name) DMM_STAT_##name,
	DMM_STATS(DMM_STAT_ENUM)
#undef DMM_STAT_ENUM
	DMM_NR_STATS
};

struct dmm_stats {
	u64 count[DMM_NR_STATS];
};

/**
 * struct kvm_dmm_pool - the memory of one guest: a file in dmmfs
 * @inode: the file
 * @regions: page offset / 512 to struct kvm_dmm_region; grows only
 * @bind_lock: held for reading while slots are invalidated
 * @bindings: interval tree of the slots bound to this file, by page offset;
 *	protected by @bind_lock
 * @has_blocks: a region was once filled as a block; never cleared
 * @vm_failed: page offset where a process has waited in vain, or ULONG_MAX: the
 *	next fault there tells why
 * @zero: page of zeros, mapped for reads of absent memory
 * @resident: frames charged to this pool
 * @compressed: bytes that policies keep for this pool in machine memory
 * @freed: bytes of both that came free, ever
 * @nr_shared: entries of kind shared
 * @nr_tokens: entries of kind token
 * @max: limit for @resident and @compressed in pages; ULONG_MAX: size of file
 * @min: what pressure from others leaves, in pages
 * @limit_mutex: serializes changes of @max, @min and @domain
 * @wait: for room below @max
 * @margin_work: keeps a distance from @max
 * @policies: attached policies in order of attachment; read under
 *	@policy_srcu, written under @policy_mutex
 * @by_id: the same by the number in token entries
 * @policy_mutex: serializes attach and detach
 * @policy_srcu: keeps attached policies from going away while one of their ops
 *	runs; of the pool's own, so that an op that takes long holds up no other
 * @nr_lazy: attached policies that fill on touch
 * @nr_fillers: attached policies with a fill op
 * @nr_around: attached policies with an around op
 * @nr_reclaimers: attached policies with a reclaim op
 * @nr_sharers: attached policies with a match op
 * @nr_publishers: attached policies with a lookup or publish op
 * @nr_ahead: attached policies whose ahead op is to be called
 * @eject_work: detaches ejected policies
 * @name: of the file, NULL without one; protected by dmm_names_lock
 * @domain: sharing domain, "" for none; protected by dmm_names_lock
 * @moving: from one domain into another; protected by dmm_names_lock
 * @family: the files cloned from each other of which this is one, or NULL;
 *	protected by dmm_family_mutex; set once
 * @kin: in the list of the family; protected by its lock
 * @heir: member of the family that was charged for a frame of this pool last, or
 *	NULL; protected by its lock
 * @put_work: gives the last reference of the file back
 * @put_dir: the directory that the file was in, for @put_work
 * @link: in the list of all pools; protected by dmm_pools_lock
 * @nr_shrinking: shrinkers that use the pool; protected by dmm_pools_lock
 * @dir: directory in sysfs, a struct dmm_dir
 * @debugfs: directory in debugfs
 * @stats: counters
 */
struct kvm_dmm_pool {
	struct inode inode;
	struct xarray regions;

	struct rw_semaphore bind_lock;
	struct rb_root_cached bindings;
	bool has_blocks;
	pgoff_t vm_failed;
	struct page *zero;

	atomic_long_t resident ____cacheline_aligned_in_smp;
	atomic_long_t compressed;
	atomic_long_t freed;
	atomic_long_t nr_shared;
	atomic_long_t nr_tokens;

	unsigned long max ____cacheline_aligned_in_smp;
	unsigned long min;
	struct mutex limit_mutex;	/* see above */
	wait_queue_head_t wait;
	struct work_struct margin_work;

	struct list_head policies;
	struct kvm_dmm_policy __rcu *by_id[DMM_MAX_POLICIES];
	struct mutex policy_mutex;	/* see above */
	struct srcu_struct policy_srcu;
	unsigned int nr_lazy;
	unsigned int nr_fillers;
	unsigned int nr_around;
	unsigned int nr_reclaimers;
	unsigned int nr_sharers;
	unsigned int nr_publishers;
	atomic_t nr_ahead;
	struct work_struct eject_work;

	const char *name;
	char domain[KVM_DMM_NAME_MAX + 1];
	bool moving;
	struct dmm_family *family;
	struct list_head kin;
	struct kvm_dmm_pool *heir;
	struct work_struct put_work;
	struct inode *put_dir;
	struct list_head link;
	unsigned int nr_shrinking;
	struct kobject *dir;
	struct dentry *debugfs;
	struct dmm_stats __percpu *stats;
};

static inline struct kvm_dmm_pool *dmm_pool(struct inode *inode)
{
	return container_of(inode, struct kvm_dmm_pool, inode);
}

static inline unsigned long dmm_ino(struct kvm_dmm_pool *pool)
{
	return pool->inode.i_ino;
}

/*
 * Has nobody the file any more?  Its end waits for what is done for all of it.  The
 * flag is set before that wait begins, and who walks looks at each step: so one step
 * is all that is waited for.  What the walk has not seen, the end gives up.
 */
static inline bool dmm_pool_goes(struct kvm_dmm_pool *pool)
{
	return READ_ONCE(pool->inode.i_state) & I_FREEING;
}

/* Size of the file in pages, a last part of a page included. */
static inline pgoff_t dmm_pages(struct kvm_dmm_pool *pool)
{
	return DIV_ROUND_UP_ULL(i_size_read(&pool->inode), PAGE_SIZE);
}

static inline void dmm_count(struct kvm_dmm_pool *pool, enum dmm_stat stat)
{
	this_cpu_inc(pool->stats->count[stat]);
}

static inline u64 *dmm_entry(struct kvm_dmm_region *region, pgoff_t index)
{
	return &region->entry[index & (KVM_DMM_REGION_PAGES - 1)];
}

static inline struct page *dmm_page(u64 e)
{
	return pfn_to_page(dmm_pfn(e));
}

/* Is @e what a region with a block has at @entry unless it was changed? */
static inline bool dmm_is_block_entry(struct kvm_dmm_region *region,
				      const u64 *entry, u64 e)
{
	return e == dmm_mk_frame(region->block + (entry - region->entry));
}

/**
 * dmm_trylock - own an entry if it is as expected
 * @region: the region
 * @entry: the entry
 * @expect: its value without busy bit
 *
 * The atomic exchange orders what follows after it: see dmm_resolve().
 *
 * Return: True if the caller now owns the entry.
 */
static inline bool dmm_trylock(struct kvm_dmm_region *region, u64 *entry,
			       u64 expect)
{
	if (cmpxchg64(entry, expect, expect | DMM_BUSY) != expect)
		return false;
	/*
	 * From here on KVM may not map the block.  It looks at the count under
	 * mmu_lock, and so will the caller before the entry is changed.
	 */
	if (unlikely(region->block) && dmm_is_block_entry(region, entry, expect))
		atomic_inc(&region->deviants);
	return true;
}

/**
 * dmm_unlock_deviant - dmm_unlock() for a value that is not a block's
 * @entry: an entry whose busy bit the caller owns
 * @new: its new value, not busy
 */
static inline void dmm_unlock_deviant(u64 *entry, u64 new)
{
	u64 old = xchg(entry, new) & (DMM_BUSY | DMM_WAITERS);

	if (likely(old == DMM_BUSY))
		return;
	WARN_ON_ONCE(old != (DMM_BUSY | DMM_WAITERS));
	wake_up_var(entry);
}

/**
 * dmm_unlock - set an entry, give up its ownership, wake whoever waits
 * @region: the region
 * @entry: an entry whose busy bit the caller owns
 * @new: its new value
 */
static inline void dmm_unlock(struct kvm_dmm_region *region, u64 *entry,
			      u64 new)
{
	WARN_ON_ONCE(new & (DMM_BUSY | DMM_WAITERS));
	if (unlikely(region->block) && dmm_is_block_entry(region, entry, new))
		atomic_dec(&region->deviants);
	dmm_unlock_deviant(entry, new);
}

/**
 * dmm_set_cached - note that page tables may have a shared frame
 * @entry: the entry
 * @e: its value, not busy
 *
 * Before the frame is given to whoever may map it.  While it is not noted, the
 * entry may change without a look at the page tables.
 *
 * Return: False if the entry has changed.
 */
static inline bool dmm_set_cached(u64 *entry, u64 e)
{
	return cmpxchg64(entry, e, e | DMM_CACHED) == e;
}

/* What the map has at a place of the batch, as its owner sees it. */
static inline u64 dmm_batch_entry(struct kvm_dmm_batch *batch,
				  unsigned int i)
{
	return dmm_content(READ_ONCE(batch->region->entry[i]));
}

/* map.c: regions, busy bits */
struct kvm_dmm_region *dmm_region(struct kvm_dmm_pool *pool, pgoff_t index);
struct kvm_dmm_region *dmm_region_get(struct kvm_dmm_pool *pool, pgoff_t index);
struct kvm_dmm_region *dmm_region_alloc(void);
void dmm_region_free(struct kvm_dmm_region *region);
struct kvm_dmm_region *dmm_region_publish(struct kvm_dmm_pool *pool,
					  pgoff_t index,
					  struct kvm_dmm_region *region);
void dmm_regions_free(struct kvm_dmm_pool *pool);
int dmm_wait(struct kvm_dmm_pool *pool, u64 *entry, int state);
int kvm_dmm_map_init(void);
void kvm_dmm_map_exit(void);

/* frame.c: pages, from allocation to release */
struct page *dmm_frame_alloc(bool zero);
struct mem_cgroup *dmm_frame_group(struct page *page);
struct page *dmm_alloc_in(struct mem_cgroup *memcg, int nid, gfp_t gfp,
			  unsigned int order);
struct page *dmm_frame_try_alloc(void);
unsigned int dmm_frame_alloc_bulk(struct page **pages, unsigned int nr,
				  bool zero);
int dmm_frame_copy(struct page *to, struct page *from);
int kvm_dmm_frame_init(void);
void kvm_dmm_frame_exit(void);
void dmm_frame_disown(struct page *page);

/**
 * dmm_frame_own - make a page the frame of an offset
 * @pool: the pool
 * @page: a page with content; its reference goes to the map
 * @index: page offset, which the caller owns
 */
static inline void dmm_frame_own(struct kvm_dmm_pool *pool, struct page *page,
				 pgoff_t index)
{
	page->mapping = pool->inode.i_mapping;
	page->index = index;
	set_page_private(page, 0);
}

/* change.c: the protocol */
void dmm_batch_insert(struct kvm_dmm_batch *batch, pgoff_t index);
bool dmm_batch_lock(struct kvm_dmm_batch *batch, pgoff_t index);
void dmm_batch_hold(struct kvm_dmm_batch *batch, struct kvm_dmm_pool *pool,
		    struct kvm_dmm_region *region, pgoff_t index);
void dmm_batch_unmap(struct kvm_dmm_batch *batch);
void dmm_batch_lower(struct kvm_dmm_batch *batch);
void dmm_batch_lower_guests(struct kvm_dmm_batch *batch);
void dmm_batch_set(struct kvm_dmm_batch *batch, pgoff_t index, u64 new);
void dmm_drop_range(struct kvm_dmm_pool *pool, pgoff_t first, pgoff_t last);
bool dmm_next_region(struct kvm_dmm_pool *pool, pgoff_t *index, pgoff_t last);

/* fault.c */
void dmm_token_to_frame(struct kvm_dmm_pool *pool,
			struct kvm_dmm_region *region, pgoff_t index, u64 e,
			struct page *page, bool kept);

#define DMM_WRITE	BIT(0)	/* the access writes */
#define DMM_ATOMIC	BIT(1)	/* must not sleep: only what is mapped anyway */
#define DMM_NOWAIT	BIT(2)	/* -EBUSY rather than waiting for long */
#define DMM_INTR	BIT(3)	/* any signal ends a wait, not only fatal ones */
#define DMM_PEEK	BIT(4)	/* absent memory: no page at all */
#define DMM_SPARE	BIT(5)	/* -EBUSY at the limit rather than reclaim */
#define DMM_EXACT	BIT(6)	/* fill nothing else */
#define DMM_FORCE	BIT(7)	/* charge whatever the limit */
#define DMM_PROCESS	BIT(8)	/* the access is a process's, not a guest's */
#define DMM_DETACH	BIT(9)	/* no access: the policy with the content goes */

int dmm_resolve(struct kvm_dmm_pool *pool, pgoff_t index, unsigned int flags,
		struct page **page, bool *writable);

/* What system calls say of memory that has failed: the same as of a disk. */
static inline int dmm_failed_errno(int r)
{
	return r == -EHWPOISON ? -EIO : r;
}

/*
 * What a system call says that a signal has ended: nothing, but begin again, if
 * no handler is to run.  So nobody sees a stop, a debugger that comes, or a host
 * that freezes.
 */
static inline int dmm_intr_errno(int r)
{
	return r == -EINTR && signal_pending(current) ? -ERESTARTNOHAND : r;
}

bool dmm_allows(struct kvm_dmm_pool *pool, pgoff_t index, struct page *page,
		bool write);
bool dmm_current(struct kvm_dmm_pool *pool, pgoff_t index, struct page *page,
		 bool write);
int dmm_populate(struct kvm_dmm_pool *pool, pgoff_t first, pgoff_t last);

/* around.c */
bool dmm_around_room(struct kvm_dmm_pool *pool, unsigned long nr);
bool dmm_filled_around(struct kvm_dmm_pool *pool, pgoff_t index, pgoff_t *first,
		       pgoff_t *last);
void dmm_fill_around(struct kvm_dmm_pool *pool, struct kvm_dmm_region *region,
		     const struct kvm_dmm_around *around, u64 like,
		     bool last_user);

/**
 * dmm_may_fill_around - may a fault fill more than it needs?
 * @pool: the pool
 *
 * Not what somebody may have content for.  And not below a limit that nobody
 * can make room under: a page too much may be the one that is missing later.
 *
 * Return: True if so.
 */
static inline bool dmm_may_fill_around(struct kvm_dmm_pool *pool)
{
	return READ_ONCE(pool->nr_around) && !READ_ONCE(pool->nr_fillers) &&
	       (READ_ONCE(pool->nr_reclaimers) ||
		READ_ONCE(pool->max) == ULONG_MAX ||
		READ_ONCE(pool->max) >= dmm_pages(pool));
}

/* block.c */
#define DMM_BLOCK_GFP	(GFP_HIGHUSER | __GFP_ACCOUNT | __GFP_NORETRY | \
			 __GFP_NOWARN)

bool dmm_populate_block(struct kvm_dmm_pool *pool, pgoff_t base, gfp_t gfp);

/* shared.c */
int kvm_dmm_shared_init(void);
void kvm_dmm_shared_exit(void);
struct kvm_dmm_shared *dmm_shared_create(struct kvm_dmm_pool *pool,
					 pgoff_t index, struct page *page);
struct page *dmm_shared_join(struct kvm_dmm_shared *shared,
			     struct kvm_dmm_pool *pool, pgoff_t index,
			     bool clone);
int dmm_shared_matches(struct kvm_dmm_shared *shared, struct page *page);
bool dmm_shared_take_over(struct kvm_dmm_pool *pool, struct page *page);
bool dmm_shared_makes_room(struct kvm_dmm_pool *pool, struct page *page);
int dmm_shared_copy(struct kvm_dmm_region *region, struct kvm_dmm_pool *pool,
		    pgoff_t index, struct page *shared, struct page *page);
void dmm_shared_leave(struct kvm_dmm_region *region, struct kvm_dmm_pool *pool,
		      pgoff_t index, struct page *page);
int dmm_unshare(struct kvm_dmm_pool *pool, bool foreign);

/* family.c */
unsigned int dmm_light_lock(struct kvm_dmm_batch *batch, unsigned int first,
			    unsigned long *done, u64 *table);
void dmm_light_add(struct kvm_dmm_batch *batch, unsigned long *done,
		   u64 *table);
void dmm_light_undo(struct kvm_dmm_pool *pool, u64 *table);
bool dmm_family_join(struct kvm_dmm_pool *pool, struct kvm_dmm_pool *clone);
void dmm_family_leave(struct kvm_dmm_pool *pool);

/* clone.c */
loff_t dmm_remap_file_range(struct file *file_in, loff_t pos_in,
			    struct file *file_out, loff_t pos_out, loff_t len,
			    unsigned int flags);

/* pool.c */
void dmm_pool_init(struct kvm_dmm_pool *pool);
int dmm_charge(struct kvm_dmm_pool *pool, unsigned long nr, unsigned int flags,
	       const u64 *entry, u64 e);
void dmm_charge_force(struct kvm_dmm_pool *pool, unsigned long nr);
void dmm_uncharge(struct kvm_dmm_pool *pool, unsigned long nr);
long dmm_forget_compressed(struct kvm_dmm_pool *pool);
unsigned long dmm_used(struct kvm_dmm_pool *pool);
unsigned long dmm_max(struct kvm_dmm_pool *pool);
int dmm_set_max(struct kvm_dmm_pool *pool, unsigned long max);
int dmm_set_min(struct kvm_dmm_pool *pool, unsigned long min);
/* Times that policies are asked to make room on the host for one frame. */
#define DMM_HOST_TRIES	10U
int dmm_host_room(struct kvm_dmm_pool *pool, int state, bool detach);
unsigned long dmm_reclaim(struct kvm_dmm_pool *pool, unsigned long nr,
			  pgoff_t first, pgoff_t last,
			  enum kvm_dmm_reason reason);
void dmm_pool_add(struct kvm_dmm_pool *pool);
void dmm_pool_del(struct kvm_dmm_pool *pool);
void dmm_queue_work(struct work_struct *work);
bool dmm_valid_domain(const char *domain);
int dmm_set_domain(struct kvm_dmm_pool *pool, const char *domain);
int kvm_dmm_pool_init(void);
void kvm_dmm_pool_exit(void);
extern spinlock_t dmm_names_lock;

/* As dmm_failed_errno(), where it matters whether it is the pool that is full. */
static inline int dmm_full_errno(struct kvm_dmm_pool *pool, int r)
{
	return r == -ENOMEM && dmm_used(pool) >= dmm_max(pool) ?
	       -ENOSPC : dmm_failed_errno(r);
}

/* policy.c */
int dmm_attach(struct kvm_dmm_pool *pool, const char *name);
int dmm_attach_list(struct kvm_dmm_pool *pool, const char *names);
int dmm_normalize_list(const char *names, char *list, size_t size);
int dmm_detach(struct kvm_dmm_pool *pool, const char *name);
void dmm_detach_all(struct kvm_dmm_pool *pool);
void dmm_eject(struct kvm_dmm_policy *policy, const char *op, int err);
void dmm_eject_work(struct work_struct *work);
ssize_t dmm_show_policies(struct kvm_dmm_pool *pool, char *buf);
int dmm_fill_content(struct kvm_dmm_pool *pool, pgoff_t index,
		     struct page *page);
void dmm_ask_around(struct kvm_dmm_pool *pool, struct kvm_dmm_around *around);
int dmm_fetch_token(struct kvm_dmm_pool *pool, u64 e, struct page *page,
		    unsigned int flags, struct kvm_dmm_around *around);
void dmm_free_token(struct kvm_dmm_pool *pool, unsigned int id, u64 token);
int dmm_dup_token(struct kvm_dmm_pool *pool, u64 e, struct kvm_dmm_pool *to,
		  pgoff_t index, u64 *new);
struct kvm_dmm_shared *dmm_lookup_token(struct kvm_dmm_pool *pool, u64 e);
struct kvm_dmm_shared *dmm_match_content(struct kvm_dmm_pool *pool,
					 pgoff_t index, struct page *page);
bool dmm_wants_publish(struct kvm_dmm_pool *pool, u64 e);
void dmm_publish(struct kvm_dmm_pool *pool, u64 e,
		 struct kvm_dmm_shared *shared);
unsigned int dmm_ask_ahead(struct kvm_dmm_pool *pool, pgoff_t index,
			   pgoff_t *list, unsigned int max);
ssize_t dmm_show_default_policies(char *buf);
int dmm_set_default_policies(const char *names);

/* sysfs.c, debugfs.c */
int kvm_dmm_sysfs_init(void);
void kvm_dmm_sysfs_exit(void);
int dmm_sysfs_add_pool(struct kvm_dmm_pool *pool);
void dmm_sysfs_del_pool(struct kvm_dmm_pool *pool);
bool dmm_sysfs_reserved(const char *name);
struct kobject *dmm_sysfs_policies(void);
int kvm_dmm_debugfs_init(void);
void kvm_dmm_debugfs_exit(void);
void dmm_debugfs_add_pool(struct kvm_dmm_pool *pool);
void dmm_debugfs_del_pool(struct kvm_dmm_pool *pool);

/* check.c */
extern const struct file_operations dmm_check_fops;

/* tunable.c */
int dmm_tunables_add_ops(struct kvm_dmm_policy_ops *ops);
void dmm_tunables_del_ops(struct kvm_dmm_policy_ops *ops);
int dmm_tunables_init(struct kvm_dmm_policy *policy);
void dmm_tunables_exit(struct kvm_dmm_policy *policy);
int dmm_tunables_add_policy(struct kvm_dmm_policy *policy);
void dmm_tunables_del_policy(struct kvm_dmm_policy *policy);

/* dmmfs.c, file.c */
int kvm_dmm_fs_init(void);
void kvm_dmm_fs_exit(void);
extern const struct file_operations dmm_file_operations;
extern const struct vm_operations_struct dmm_vm_ops;
extern const struct address_space_operations dmm_aops;
int dmm_set_size(struct kvm_dmm_pool *pool, loff_t size);

/* bind.c */
struct kvm_dmm_binding;
struct kvm_dmm_check;
void dmm_invalidate_slots(struct kvm_dmm_batch *batch, bool protect);
bool dmm_is_young(struct kvm_dmm_pool *pool, pgoff_t index);
unsigned int dmm_check_slots(struct kvm_dmm_check *check,
			     struct kvm_dmm_pool *pool, pgoff_t base);

#endif /* _KVM_DMM_DMM_H */
