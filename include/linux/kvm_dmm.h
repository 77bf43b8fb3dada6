/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping for KVM: the interface between core and policies.
 *
 * A file in dmmfs is the memory of a guest.  Its map says for every 4 KiB
 * offset what is there: nothing (absent, reads as zero), a frame, a frame
 * shared with other offsets, or a token, that is, content which a policy keeps
 * somewhere else.  Policies decide what is where; only the core changes maps
 * and page tables.
 */
#ifndef _LINUX_KVM_DMM_H
#define _LINUX_KVM_DMM_H

#include <linux/bitmap.h>
#include <linux/bits.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/types.h>

struct file;
struct kvm_dmm_pool;
struct kvm_dmm_policy;
struct kvm_dmm_region;
struct kvm_dmm_shared;	/* handle of a shared frame */

#define KVM_DMM_NAME_MAX	31	/* characters of a policy or domain name */
#define KVM_DMM_REGION_PAGES	512	/* entries of a region, 2 MiB of guest */
#define KVM_DMM_TOKEN_BITS	52	/* what a policy may keep in an entry */
#define KVM_DMM_AHEAD_MAX	64	/* pages mapped ahead of a guest at once */
#define KVM_DMM_MAGIC		0x444d4d46	/* of dmmfs: "DMMF" */

/* How a policy is asked for the content of a token. */
#define KVM_DMM_FETCH_NOWAIT	BIT(0)	/* -EAGAIN rather than wait for I/O */
#define KVM_DMM_FETCH_AHEAD	BIT(1)	/* no access: kvm_dmm_fetch(), or detaching */
#define KVM_DMM_FETCH_INTR	BIT(2)	/* any signal ends a wait, not just fatal ones */
#define KVM_DMM_FETCH_PROCESS	BIT(3)	/* a process reads it, not the guest */
#define KVM_DMM_FETCH_AROUND	BIT(4)	/* because of fetch_around, not touched */

/* Whose shared frame gives way to a token, besides the users in the pool. */
#define KVM_DMM_USERS_OTHERS	BIT(0)	/* those in other pools with the policy */
#define KVM_DMM_USERS_YOUNG	BIT(1)	/* of these, what guests have accessed */

/**
 * enum kvm_dmm_kind - what the map has at an offset
 * @KVM_DMM_ABSENT: never written or given back; reads as zero
 * @KVM_DMM_FRAME: a page that belongs to this offset alone
 * @KVM_DMM_SHARED: a read-only page that several offsets use
 * @KVM_DMM_TOKEN: the content is with a policy
 */
enum kvm_dmm_kind {
	KVM_DMM_ABSENT,
	KVM_DMM_FRAME,
	KVM_DMM_SHARED,
	KVM_DMM_TOKEN,
};

/**
 * struct kvm_dmm_tunable - something that administrators may read and write
 * @name: name of the file below pools/<ino>/<policy>/; a number has one below
 *	policies/<policy>/, too, which holds for all pools that have none of
 *	their own
 * @def: a number's value at first
 * @min: lowest value
 * @max: highest value, less than U64_MAX
 * @bytes: the number is a size, written with an optional K, M or G
 * @choices: names, ended by NULL, that are written instead of 0, 1, ...; @min
 *	and @max do not matter then
 * @show: for what is not a number: print it into a page; returns its length or
 *	-errno; NULL: cannot be read
 * @store: the same: set it; returns 0 or -errno; NULL: cannot be written
 *
 * What has neither @show nor @store is a number, which kvm_dmm_value() reads.
 * Writing "default" takes it back: to the value for all pools, or to @def.
 * The callbacks may sleep.
 */
struct kvm_dmm_tunable {
	const char *name;
	u64 def;
	u64 min;
	u64 max;
	bool bytes;
	const char *const *choices;
	ssize_t (*show)(struct kvm_dmm_policy *policy, char *buf);
	int (*store)(struct kvm_dmm_policy *policy, const char *buf);
};

/* Value of a pool's tunable that follows the one for all pools. */
#define KVM_DMM_INHERIT	U64_MAX

/**
 * enum kvm_dmm_reason - why the core asks for memory
 * @KVM_DMM_RECLAIM_LIMIT: a fault found the pool at its limit
 * @KVM_DMM_RECLAIM_MARGIN: the worker keeps a distance from the limit
 * @KVM_DMM_RECLAIM_USER: written to the pool's "reclaim", or its limit lowered
 * @KVM_DMM_RECLAIM_ADVICE: POSIX_FADV_DONTNEED
 * @KVM_DMM_RECLAIM_HOST: the host is short of memory
 */
enum kvm_dmm_reason {
	KVM_DMM_RECLAIM_LIMIT,
	KVM_DMM_RECLAIM_MARGIN,
	KVM_DMM_RECLAIM_USER,
	KVM_DMM_RECLAIM_ADVICE,
	KVM_DMM_RECLAIM_HOST,
};

/**
 * struct kvm_dmm_reclaim - a request to take memory out of a pool
 * @reason: who asks
 * @first: first page offset that may be taken
 * @last: last page offset that may be taken
 * @nr_pages: how many pages are wanted
 * @nr_scan: how many pages may be looked at to find them, less than all where
 *	somebody's allocation waits; the policy subtracts, and goes on there the
 *	next time
 * @nr_done: how many pages came free; the policy counts, but no more is
 *	believed than what came free meanwhile
 * @nr_pending: how many pages come free later without anybody asking again, when
 *	a device is done; the policy adds them.  An access at the limit waits for
 *	these as long as it takes.
 */
struct kvm_dmm_reclaim {
	enum kvm_dmm_reason reason;
	pgoff_t first;
	pgoff_t last;
	unsigned long nr_pages;
	unsigned long nr_scan;
	unsigned long nr_done;
	unsigned long nr_pending;
};

/**
 * struct kvm_dmm_around - what to fill or fetch with a page that is touched
 * @index: page offset of the page
 * @copy: the page has a shared frame, and so has what else is meant: it gets
 *	frames of its own with the same content; otherwise all of it is absent,
 *	or with the @fetch_around op a token of the policy
 * @first: first page offset to fill, at first @index
 * @last: last page offset to fill, at first @index
 * @block: rather all of the region, in one piece, if nothing is in it yet; only
 *	of what is absent
 *
 * The policy sets @first, @last and @block; what it does to the others has no
 * effect.  [@first, @last] has @index in it; what lies outside its region is
 * left alone.
 */
struct kvm_dmm_around {
	pgoff_t index;
	bool copy;
	pgoff_t first;
	pgoff_t last;
	bool block;
};

/**
 * struct kvm_dmm_policy_ops - what a policy can do
 * @name: unique, up to KVM_DMM_NAME_MAX small letters, digits, "-" and "_"; module alias
 *	"kvm-dmm-policy-<name>" lets the core load it
 * @owner: THIS_MODULE
 * @lazy: absent memory is filled when it is touched.  A pool without any lazy
 *	policy is static: filled when the file is sized or a slot is bound.
 * @tunables: ends with an entry without name, or NULL
 * @counters: names, ended by NULL, of files in pools/<ino>/<policy>/stats/ for
 *	kvm_dmm_policy_count(), or NULL
 *
 * @attach: Prepare to serve policy->pool; set policy->priv.  Mandatory.
 *	May sleep.  The pool's policy mutex is held.  0 or -errno, which the
 *	user gets.
 * @leave: The user wants to detach the policy, which has no token left in the map
 *	and may add none: undo what else it has made of the map.  May sleep; a
 *	signal ends it.  The pool's policy mutex is held, other ops may run.
 *	0; or -errno, which the user gets, and the policy stays and goes on.  Not
 *	called when the file goes, or for a policy that was ejected.
 * @detach: Forget the pool.  Mandatory.  May sleep.  Called when none of the
 *	policy's tokens is left in the map and no other op is running.
 * @fill: Provide the content of an absent page that is written or, with
 *	policies that know of content, read.  @page is zeroed.  May sleep.
 *	The entry is busy.  0 when @page is filled, -ENODATA when the policy
 *	has nothing for @index and has left @page alone: the next is asked, the
 *	last resort is zero.  Any other error fails the access, and only that.
 * @around: An absent or shared page is written, by a guest or through a mapping:
 *	say what else to fill with zeros, or to copy.  It is a wish: the core
 *	does it below the limit, with what is to be had without effort.  Not
 *	called while a policy has a @fill op.  Of several policies the first is
 *	asked.  May sleep, but somebody waits.  No entry is busy.
 * @fetch: Bring the content of @token into @page; page->index is where in the
 *	file.  May sleep; allocate with GFP_NOIO.  The entry is busy.  @flags:
 *	KVM_DMM_FETCH_*; with KVM_DMM_FETCH_NOWAIT -EAGAIN has whoever accesses
 *	do something else until it is asked again without.  0: the token is used
 *	up.  1: the policy keeps the content; the core calls @free_token when
 *	the page is about to be written or goes away, and may hand the same token
 *	back by kvm_dmm_batch_kept() instead of having the content stored again.
 *	-errno: the access fails, the token stays; -EIO takes the place of what
 *	is no errno of system calls, of -EAGAIN and -EBUSY, and of -EINTR without
 *	a signal, as with @fill.  A policy whose fetch fails
 *	with -EUCLEAN is broken and is not asked for anything but fetch again.
 * @fetch_around: The guest has touched @token, which is about to be fetched:
 *	say which other tokens of the policy to fetch in the same exit.  It is a
 *	wish, as with @around.  @fetch is called for each with
 *	KVM_DMM_FETCH_NOWAIT and KVM_DMM_FETCH_AROUND; with -EAGAIN the token
 *	stays.  May not sleep.  The entry is busy.
 * @free_token: The content of @token is no longer needed.  May sleep.
 *	Mandatory with @fetch.
 * @dup_token: The file of @policy is cloned to that of @to, or a shared frame
 *	goes out for all its users: store in @new a token by which @to, which is
 *	the same policy of this or another pool, finds the content of @token at
 *	page offset @index, too.  Each is then fetched or freed for itself; they
 *	may be the same number.  May sleep; allocate with GFP_NOIO.  The entry
 *	with @token is busy.  0, or -errno: the clone fetches the content, the
 *	user keeps the frame, as without the op; so it is with any result but 0,
 *	and with a token that is too large.  After 0 the new token may come back
 *	by @free_token at once, if the clone was not made after all or the token
 *	is too large.
 * @lookup: Say which shared frame has the content of @token, if any is known:
 *	the core takes it without reading anything, for accesses that read.
 *	May sleep; allocate with GFP_NOIO.  The entry is busy, and the pool has
 *	a sharing domain.  A handle with a reference, or NULL, as which an error
 *	counts.  If the frame can still be had and the pools may share,
 *	@free_token follows; otherwise the token is fetched.
 * @match: Say which shared frame may have the content of @page, which was just
 *	fetched for reading @index; the core compares them.  Context and result
 *	as @lookup, but for tokens of any policy, and in pools without a
 *	sharing domain, too.
 * @publish: What was fetched from @token for reading has become a shared frame
 *	with the handle @shared: take a reference for @lookup by
 *	kvm_dmm_shared_get().  A write to a shared frame with one user costs no
 *	copy.  Context as @lookup.  A policy that has the op gets all that it
 *	fetches for reading as shared frames, in pools with a sharing domain.
 * @ahead: Say what the guest will touch after @index, which it has just
 *	touched: up to @max page offsets in @list.  Those that have frames are
 *	mapped before the guest goes on, so get them with kvm_dmm_fetch(), and
 *	do not wait for I/O.  Called by a vCPU, while kvm_dmm_want_ahead() says
 *	so.  May sleep.  No entry is busy.  The number of offsets, or 0; more
 *	than @max counts as @max.
 * @reclaim: Take frames out with the kvm_dmm_batch calls.  May sleep; allocate
 *	with GFP_NOIO.  May run on several CPUs at once.  No entry is busy.
 *	Wait for no device if the reason is KVM_DMM_RECLAIM_LIMIT.
 *	0, or -errno for which the policy is ejected; having found nothing is
 *	no error.
 * @tuned: A number of this pool was written, not one for all pools: look at
 *	those now and then.  May sleep.
 *
 * The ops run under SRCU: a policy goes away only when none of them runs.
 * None may attach or detach policies or touch the pool's file by system calls.
 *
 * What the core can see to be wrong it does not believe.  It cannot see whether
 * content is right, of @fill, @fetch, @lookup and the tokens of @dup_token;
 * whether a token for which @fetch has returned 1 is kept, or used for something
 * else; whether a handle that it is given has a reference, and whether @publish
 * has taken one for what it holds; and what @ahead writes beyond @max offsets.
 */
struct kvm_dmm_policy_ops {
	const char *name;
	struct module *owner;
	bool lazy;
	const struct kvm_dmm_tunable *tunables;
	const char *const *counters;

	int (*attach)(struct kvm_dmm_policy *policy);
	int (*leave)(struct kvm_dmm_policy *policy);
	void (*detach)(struct kvm_dmm_policy *policy);
	int (*fill)(struct kvm_dmm_policy *policy, pgoff_t index,
		    struct page *page);
	void (*around)(struct kvm_dmm_policy *policy,
		       struct kvm_dmm_around *around);
	int (*fetch)(struct kvm_dmm_policy *policy, u64 token,
		     struct page *page, unsigned int flags);
	void (*fetch_around)(struct kvm_dmm_policy *policy, u64 token,
			     struct kvm_dmm_around *around);
	void (*free_token)(struct kvm_dmm_policy *policy, u64 token);
	int (*dup_token)(struct kvm_dmm_policy *policy, u64 token,
			 struct kvm_dmm_policy *to, pgoff_t index, u64 *new);
	struct kvm_dmm_shared *(*lookup)(struct kvm_dmm_policy *policy,
					 u64 token);
	struct kvm_dmm_shared *(*match)(struct kvm_dmm_policy *policy,
					pgoff_t index, struct page *page);
	void (*publish)(struct kvm_dmm_policy *policy, u64 token,
			struct kvm_dmm_shared *shared);
	unsigned int (*ahead)(struct kvm_dmm_policy *policy, pgoff_t index,
			      pgoff_t *list, unsigned int max);
	int (*reclaim)(struct kvm_dmm_policy *policy,
		       struct kvm_dmm_reclaim *rc);
	void (*tuned)(struct kvm_dmm_policy *policy);

	/* private: */
	struct list_head link;		/* protected by dmm_policies_lock */
	struct kobject *kobj;
	u64 *value;			/* numbers that hold for all pools */
};

/**
 * struct kvm_dmm_policy - a policy attached to a pool
 * @ops: the policy
 * @pool: the pool
 * @priv: for the policy
 *
 * The rest is the core's.
 */
struct kvm_dmm_policy {
	struct kvm_dmm_policy_ops *ops;
	struct kvm_dmm_pool *pool;
	void *priv;

	/* private: */
	struct list_head link;		/* pool->policies, order of attachment */
	unsigned int id;		/* number in token entries */
	bool draining;			/* is coming or going: no new tokens */
	bool ejected;			/* asked for its tokens only */
	bool ahead;			/* wants its ahead op to be called */
	struct kobject *kobj;		/* NULL before and after its time */
	u64 *value;			/* numbers of this pool */
	u64 __percpu *count;
};

/**
 * kvm_dmm_value - a number as it holds for a pool
 * @policy: the attached policy
 * @nr: place in its array of tunables
 *
 * Context: Any.
 * Return: The number, or that of the choice.
 */
static inline u64 kvm_dmm_value(const struct kvm_dmm_policy *policy,
				unsigned int nr)
{
	u64 v = READ_ONCE(policy->value[nr]);

	return v == KVM_DMM_INHERIT ? READ_ONCE(policy->ops->value[nr]) : v;
}

/**
 * kvm_dmm_policy_count - add to a counter of a policy
 * @policy: the attached policy
 * @nr: place in its array of counters
 * @n: how much
 *
 * Context: Any.
 */
static inline void kvm_dmm_policy_count(const struct kvm_dmm_policy *policy,
					unsigned int nr, unsigned long n)
{
	this_cpu_add(policy->count[nr], n);
}

/**
 * struct kvm_dmm_batch - entries of one region that are changed together
 * @pool: the pool
 * @region: the region
 * @base: page offset of its first entry
 * @first: no entry below this number was ever in the batch
 * @end: nor this one or one above it
 * @taken: the frames are in no page table; otherwise they may be read-only
 * @locked: entries whose busy bit this batch holds
 * @frozen: of these, frames that nobody else can reach
 * @gone: frames that left the map, to be freed together
 * @nr_gone: their number
 *
 * Lives on the stack of a policy or of the core.  A batch that was started
 * must be ended; in between guests that touch its entries wait.
 */
struct kvm_dmm_batch {
	struct kvm_dmm_pool *pool;
	struct kvm_dmm_region *region;
	pgoff_t base;
	unsigned int first;
	unsigned int end;
	bool taken;
	DECLARE_BITMAP(locked, KVM_DMM_REGION_PAGES);
	DECLARE_BITMAP(frozen, KVM_DMM_REGION_PAGES);
	struct list_head gone;
	unsigned int nr_gone;
};

int kvm_dmm_register_policy(struct kvm_dmm_policy_ops *ops);
void kvm_dmm_unregister_policy(struct kvm_dmm_policy_ops *ops);

unsigned long kvm_dmm_pool_ino(struct kvm_dmm_pool *pool);
unsigned long kvm_dmm_pool_pages(struct kvm_dmm_pool *pool);
void kvm_dmm_pool_domain(struct kvm_dmm_pool *pool, char *domain);
bool kvm_dmm_short(struct kvm_dmm_pool *pool);
unsigned long kvm_dmm_pool_max(struct kvm_dmm_pool *pool);
unsigned long kvm_dmm_pool_room(struct kvm_dmm_pool *pool);
struct file *kvm_dmm_open(const char *path, int flags, bool device);
void kvm_dmm_notify(struct kvm_dmm_policy *policy, const char *name);
void kvm_dmm_want_ahead(struct kvm_dmm_policy *policy, bool want);
void kvm_dmm_charge_compressed(struct kvm_dmm_pool *pool, long bytes);

bool kvm_dmm_batch_start(struct kvm_dmm_batch *batch,
			 struct kvm_dmm_pool *pool, pgoff_t index);
bool kvm_dmm_next_region(struct kvm_dmm_pool *pool, pgoff_t *index,
			 pgoff_t last);
bool kvm_dmm_batch_add(struct kvm_dmm_batch *batch, pgoff_t index);
unsigned int kvm_dmm_batch_take(struct kvm_dmm_batch *batch);
unsigned int kvm_dmm_batch_protect(struct kvm_dmm_batch *batch);
struct page *kvm_dmm_batch_page(struct kvm_dmm_batch *batch, pgoff_t index);
struct page *kvm_dmm_batch_pin(struct kvm_dmm_batch *batch, pgoff_t index);
int kvm_dmm_batch_token(struct kvm_dmm_batch *batch,
			struct kvm_dmm_policy *policy, pgoff_t index,
			u64 token);
bool kvm_dmm_batch_copy(struct kvm_dmm_batch *batch,
			struct kvm_dmm_policy *policy, pgoff_t index,
			u64 *token);
int kvm_dmm_batch_kept(struct kvm_dmm_batch *batch,
		       struct kvm_dmm_policy *policy, pgoff_t index);
int kvm_dmm_batch_forget(struct kvm_dmm_batch *batch,
			 struct kvm_dmm_policy *policy, pgoff_t index);
int kvm_dmm_batch_absent(struct kvm_dmm_batch *batch, pgoff_t index);
struct page *kvm_dmm_batch_add_shared(struct kvm_dmm_batch *batch,
				      pgoff_t index);
struct kvm_dmm_shared *kvm_dmm_batch_handle(struct kvm_dmm_batch *batch,
					    pgoff_t index);
struct kvm_dmm_shared *kvm_dmm_batch_handle_in(struct kvm_dmm_batch *batch,
					       pgoff_t index, struct page *to);
struct page *kvm_dmm_batch_alloc(struct kvm_dmm_batch *batch, pgoff_t index,
				 gfp_t gfp);
struct kvm_dmm_shared *kvm_dmm_batch_offered(struct kvm_dmm_batch *batch,
					     pgoff_t index);
int kvm_dmm_batch_join(struct kvm_dmm_batch *batch, pgoff_t index,
		       struct kvm_dmm_shared *shared);
int kvm_dmm_batch_token_shared(struct kvm_dmm_batch *batch,
			       struct kvm_dmm_policy *policy, pgoff_t index,
			       u64 token, unsigned int users);
bool kvm_dmm_batch_claims(struct kvm_dmm_batch *batch, pgoff_t index,
			  bool alone);
unsigned int kvm_dmm_batch_places(struct kvm_dmm_batch *batch, pgoff_t index,
				  pgoff_t *places, unsigned int max);
void kvm_dmm_batch_end(struct kvm_dmm_batch *batch);

long kvm_dmm_add_tokens(struct kvm_dmm_policy *policy, pgoff_t first,
			pgoff_t last, u64 token);
bool kvm_dmm_has_token(struct kvm_dmm_policy *policy, pgoff_t index);
bool kvm_dmm_next_token(struct kvm_dmm_policy *policy, pgoff_t *index);
void kvm_dmm_drop_tokens(struct kvm_dmm_policy *policy);

struct kvm_dmm_shared *kvm_dmm_shared_get(struct kvm_dmm_shared *shared);
void kvm_dmm_shared_put(struct kvm_dmm_shared *shared);
bool kvm_dmm_shared_alive(struct kvm_dmm_shared *shared);
bool kvm_dmm_shared_copies(struct kvm_dmm_shared *shared);
void kvm_dmm_shared_always_copy(struct kvm_dmm_shared *shared);
int kvm_dmm_unshare(struct kvm_dmm_pool *pool);

enum kvm_dmm_kind kvm_dmm_peek(struct kvm_dmm_pool *pool, pgoff_t index,
			       bool *write_protected);
bool kvm_dmm_frames(struct kvm_dmm_pool *pool, pgoff_t base,
		    unsigned long *frames, unsigned long *shared,
		    unsigned long *written, bool *block);
int kvm_dmm_fetch(struct kvm_dmm_pool *pool, pgoff_t index);
bool kvm_dmm_can_make_block(struct kvm_dmm_pool *pool, pgoff_t base);
int kvm_dmm_make_block(struct kvm_dmm_pool *pool, pgoff_t base);
int kvm_dmm_young(struct kvm_dmm_pool *pool, pgoff_t base,
		  unsigned long *young);
int kvm_dmm_test_young(struct kvm_dmm_pool *pool, pgoff_t first, pgoff_t last,
		       unsigned long *young);

#endif /* _LINUX_KVM_DMM_H */
