// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the demand policy.
 *
 * Memory of a guest is taken from the host when it is first written, instead of
 * all of it when the file is sized.  The core fills with zeros whatever no
 * policy has content for, so being there is all it takes; the rest is about
 * taking more than a page at once where that is going to be used.
 *
 * A first write fills a window: an aligned power of two of pages around the
 * page.  A few streams remember the last windows.  A write next to one of them
 * continues the stream: its window doubles if the one before was used, as the
 * access bits tell, and is halved if not.  A write anywhere else begins a stream
 * with a small window, whose size learns from what became of such windows.
 * When nothing around is ever used that is one page, and now and then a larger
 * one finds out whether this still holds.
 *
 * Shared frames that are written, as those of a clone, are copied by the same
 * rules, but with streams of their own, and only where a stream goes on: a frame
 * less shared costs memory for certain.
 *
 * A stream whose windows have grown to the limit gets its next region as a
 * block.  Regions that were filled page by page are made blocks in the background
 * when they are complete and most of their pages were used.
 */
#include <linux/kvm_dmm.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#define DMM_STREAMS		8
#define DMM_START_ORDER		2	/* of a new stream's window at most */
#define DMM_PROBE		64	/* how many windows of a page go by */

/*
 * A stream is one word, so that faults need no lock: the number of the last
 * window, counted in windows of its size, that size as an order, flags.
 */
#define DMM_STREAM_VALID	BIT_ULL(0)
#define DMM_STREAM_BLOCK	BIT_ULL(1)	/* a block was asked for, too */
#define DMM_STREAM_ORDER	GENMASK_ULL(7, 4)
#define DMM_STREAM_ORDER_SHIFT	4
#define DMM_STREAM_NR_SHIFT	8

/* How often, and of how many regions at most, is one looked for to rebuild? */
#define DMM_REBUILD_PERIOD	HZ
#define DMM_REBUILD_SCAN	1024
#define DMM_REBUILD_YOUNG	(KVM_DMM_REGION_PAGES / 2)
/* Periods to wait when the host has no 2 MiB in a row. */
#define DMM_REBUILD_PAUSE	15

#define DMM_BLOCK_BYTES		(KVM_DMM_REGION_PAGES * PAGE_SIZE)

enum { DMM_FAULT_AROUND, DMM_BLOCK, DMM_REBUILD_RATE };

enum { DMM_BLOCK_NEVER, DMM_BLOCK_ALWAYS, DMM_BLOCK_ADAPTIVE };

static const char *const dmm_block_choices[] = {
	[DMM_BLOCK_NEVER] = "never",
	[DMM_BLOCK_ALWAYS] = "always",
	[DMM_BLOCK_ADAPTIVE] = "adaptive",
	NULL
};

static const struct kvm_dmm_tunable dmm_demand_tunables[] = {
	[DMM_FAULT_AROUND] = {
		/* Largest window; 4K: only what is touched. */
		.name = "fault_around_bytes",
		.bytes = true,
		.def = 64 << 10,
		.min = PAGE_SIZE,
		.max = DMM_BLOCK_BYTES,
	},
	[DMM_BLOCK] = {
		/* When to take 2 MiB in one piece. */
		.name = "block",
		.choices = dmm_block_choices,
		.def = DMM_BLOCK_ADAPTIVE,
	},
	[DMM_REBUILD_RATE] = {
		/* Bytes a second to copy into blocks at most; 0: none. */
		.name = "rebuild_rate",
		.bytes = true,
		.def = 16 << 20,
		.max = 1ULL << 40,
	},
	{}
};

enum {
	DMM_AROUND_USED,
	DMM_AROUND_UNUSED,
	DMM_STREAM_HIT,
	DMM_STREAM_MISS,
	DMM_REBUILT,
	DMM_REBUILD_FAILED,
};

static const char *const dmm_demand_counters[] = {
	[DMM_AROUND_USED] = "around_used",
	[DMM_AROUND_UNUSED] = "around_unused",
	[DMM_STREAM_HIT] = "stream_hit",
	[DMM_STREAM_MISS] = "stream_miss",
	[DMM_REBUILT] = "rebuilt",
	[DMM_REBUILD_FAILED] = "rebuild_failed",
	NULL
};

/**
 * struct dmm_demand - a pool's demand policy
 * @stream: what was filled last, and what was copied last, DMM_STREAM_*
 * @next: the stream to replace next, of both kinds
 * @start: order of a new stream's window
 * @misses: windows of one page since the last larger one
 * @policy: the attached policy
 * @work: makes blocks, once a period
 * @cursor: page offset where it goes on
 * @credit: bytes that it may copy
 * @pause: periods in which it does nothing
 *
 * The first four are read and written by faults without a lock: it is all about
 * guesses.  The rest is the worker's.
 */
struct dmm_demand {
	u64 stream[2][DMM_STREAMS];
	unsigned int next;
	unsigned int start;
	unsigned int misses;

	struct kvm_dmm_policy *policy;
	struct delayed_work work;
	pgoff_t cursor;
	u64 credit;
	unsigned int pause;
};

static u64 dmm_mk_stream(pgoff_t nr, unsigned int order, bool block)
{
	return DMM_STREAM_VALID | (block ? DMM_STREAM_BLOCK : 0) |
	       (u64)order << DMM_STREAM_ORDER_SHIFT |
	       (u64)nr << DMM_STREAM_NR_SHIFT;
}

static unsigned int dmm_stream_order(u64 stream)
{
	return (stream & DMM_STREAM_ORDER) >> DMM_STREAM_ORDER_SHIFT;
}

static pgoff_t dmm_stream_nr(u64 stream)
{
	return stream >> DMM_STREAM_NR_SHIFT;
}

/* Does a write go on where a stream was? */
static bool dmm_stream_follows(u64 stream, pgoff_t index)
{
	unsigned int order = dmm_stream_order(stream);
	unsigned int shift = ilog2(KVM_DMM_REGION_PAGES) - order;
	pgoff_t nr = index >> order, region;

	if (!(stream & DMM_STREAM_VALID))
		return false;
	/* Next to it on either side, or in a gap that it left. */
	if (nr + 1 - dmm_stream_nr(stream) <= 2)
		return true;
	/* The same for the block, if it was to be had. */
	region = dmm_stream_nr(stream) >> shift;
	return (stream & DMM_STREAM_BLOCK) &&
	       (nr == (region + 1) << shift || nr + 1 == region << shift);
}

/* How many pages of a stream's last window were used. */
static unsigned int dmm_stream_used(struct kvm_dmm_policy *policy, u64 stream)
{
	unsigned int order = dmm_stream_order(stream), used;
	pgoff_t first = dmm_stream_nr(stream) << order;
	DECLARE_BITMAP(young, KVM_DMM_REGION_PAGES);

	used = kvm_dmm_test_young(policy->pool, first, first + BIT(order) - 1,
				  young);
	kvm_dmm_policy_count(policy, DMM_AROUND_USED, used);
	kvm_dmm_policy_count(policy, DMM_AROUND_UNUSED, BIT(order) - used);
	return used;
}

/* Order of the window that continues a stream. */
static unsigned int dmm_demand_continue(struct kvm_dmm_policy *policy,
					u64 stream, unsigned int max)
{
	unsigned int order = dmm_stream_order(stream), used;

	/* Two pages in a row say enough. */
	if (!order)
		return min(1U, max);
	used = dmm_stream_used(policy, stream);
	if (used * 4 >= 3 << order)
		order++;
	else if (used * 2 <= 1 << order)
		order--;
	return min(order, max);
}

/*
 * Order of a window where nothing is known, which replaces a stream.  The one
 * that goes tells whether such windows are any good.
 */
static unsigned int dmm_demand_begin(struct kvm_dmm_policy *policy, u64 old,
				     unsigned int max)
{
	struct dmm_demand *demand = policy->priv;
	unsigned int order = dmm_stream_order(old);
	unsigned int start = READ_ONCE(demand->start);
	unsigned int misses;

	if (order && order <= DMM_START_ORDER) {
		if (dmm_stream_used(policy, old) * 2 > 1 << order)
			start = min(start + 1, DMM_START_ORDER);
		else if (start)
			start--;
		WRITE_ONCE(demand->start, start);
	}
	if (!start) {
		misses = READ_ONCE(demand->misses) + 1;
		if (misses >= DMM_PROBE) {
			misses = 0;
			start = DMM_START_ORDER;
		}
		WRITE_ONCE(demand->misses, misses);
	}
	return min(start, max);
}

/* The window of 1 << @max pages at most for a page, and the stream to remember. */
static noinline void dmm_demand_window(struct kvm_dmm_policy *policy,
				       struct kvm_dmm_around *around, u64 block,
				       unsigned int max)
{
	struct dmm_demand *demand = policy->priv;
	u64 *streams = demand->stream[around->copy], stream;
	pgoff_t nr, index = around->index;
	unsigned int i, order;
	bool hit;

	for (i = 0; i < DMM_STREAMS; i++) {
		stream = READ_ONCE(streams[i]);
		if (dmm_stream_follows(stream, index))
			break;
	}
	hit = i < DMM_STREAMS;
	if (hit) {
		kvm_dmm_policy_count(policy, DMM_STREAM_HIT, 1);
		order = dmm_demand_continue(policy, stream, max);
	} else {
		kvm_dmm_policy_count(policy, DMM_STREAM_MISS, 1);
		i = READ_ONCE(demand->next) % DMM_STREAMS;
		WRITE_ONCE(demand->next, i + 1);
		order = around->copy ? 0 :
			dmm_demand_begin(policy, READ_ONCE(streams[i]), max);
	}
	around->block = block == DMM_BLOCK_ALWAYS ||
			(block == DMM_BLOCK_ADAPTIVE &&
			 hit && order == max &&
			 dmm_stream_order(stream) == max);
	nr = index >> order;
	WRITE_ONCE(streams[i], dmm_mk_stream(nr, order, around->block));
	around->first = nr << order;
	around->last = around->first + BIT(order) - 1;
}

static void dmm_demand_around(struct kvm_dmm_policy *policy,
			      struct kvm_dmm_around *around)
{
	u64 bytes = kvm_dmm_value(policy, DMM_FAULT_AROUND);
	u64 block = DMM_BLOCK_NEVER;

	if (!around->copy)
		block = kvm_dmm_value(policy, DMM_BLOCK);
	around->block = block == DMM_BLOCK_ALWAYS;
	/* A page a fault, if that is wanted, takes no more than this. */
	if (bytes > PAGE_SIZE)
		dmm_demand_window(policy, around, block,
				  ilog2(bytes >> PAGE_SHIFT));
}

/* Make a block of a region, if that is worth it.  False: not now. */
static bool dmm_demand_rebuild(struct kvm_dmm_policy *policy, pgoff_t base)
{
	DECLARE_BITMAP(young, KVM_DMM_REGION_PAGES);
	struct dmm_demand *demand = policy->priv;
	int r;

	if (!kvm_dmm_can_make_block(policy->pool, base) ||
	    kvm_dmm_test_young(policy->pool, base,
			       base + KVM_DMM_REGION_PAGES - 1,
			       young) < DMM_REBUILD_YOUNG)
		return true;
	r = kvm_dmm_make_block(policy->pool, base);
	kvm_dmm_policy_count(policy, r ? DMM_REBUILD_FAILED : DMM_REBUILT, 1);
	if (r == -ENOMEM) {
		demand->pause = DMM_REBUILD_PAUSE;
		return false;
	}
	demand->credit -= DMM_BLOCK_BYTES;
	return true;
}

static void dmm_demand_work(struct work_struct *work)
{
	struct dmm_demand *demand = container_of(to_delayed_work(work),
						 struct dmm_demand, work);
	struct kvm_dmm_policy *policy = demand->policy;
	u64 rate = kvm_dmm_value(policy, DMM_REBUILD_RATE);
	unsigned int n = DMM_REBUILD_SCAN;

	if (demand->pause)
		demand->pause--;
	else if (kvm_dmm_value(policy, DMM_BLOCK) != DMM_BLOCK_NEVER)
		n = 0;
	/* What was not used is not saved up, but a block must come together. */
	demand->credit = min(demand->credit + rate,
			     max(rate, (u64)DMM_BLOCK_BYTES));
	for (; rate && n < DMM_REBUILD_SCAN; n++) {
		if (demand->credit < DMM_BLOCK_BYTES)
			break;
		if (!kvm_dmm_next_region(policy->pool, &demand->cursor,
					 ULONG_MAX)) {
			demand->cursor = 0;
			break;
		}
		if (!dmm_demand_rebuild(policy, demand->cursor))
			break;
		demand->cursor += KVM_DMM_REGION_PAGES;
		cond_resched();
	}
	queue_delayed_work(system_unbound_wq, &demand->work,
			   DMM_REBUILD_PERIOD);
}

static int dmm_demand_attach(struct kvm_dmm_policy *policy)
{
	struct dmm_demand *demand = kzalloc(sizeof(*demand),
					    GFP_KERNEL_ACCOUNT);

	if (!demand)
		return -ENOMEM;
	demand->start = DMM_START_ORDER;
	demand->policy = policy;
	policy->priv = demand;
	/* An idle host need not wake up for this. */
	INIT_DEFERRABLE_WORK(&demand->work, dmm_demand_work);
	queue_delayed_work(system_unbound_wq, &demand->work,
			   DMM_REBUILD_PERIOD);
	return 0;
}

static void dmm_demand_detach(struct kvm_dmm_policy *policy)
{
	struct dmm_demand *demand = policy->priv;

	cancel_delayed_work_sync(&demand->work);
	kfree(demand);
}

static struct kvm_dmm_policy_ops dmm_demand_ops = {
	.name = "demand",
	.owner = THIS_MODULE,
	.lazy = true,
	.tunables = dmm_demand_tunables,
	.counters = dmm_demand_counters,
	.attach = dmm_demand_attach,
	.detach = dmm_demand_detach,
	.around = dmm_demand_around,
};

static int __init dmm_demand_init(void)
{
	return kvm_dmm_register_policy(&dmm_demand_ops);
}
module_init(dmm_demand_init);

static void __exit dmm_demand_exit(void)
{
	kvm_dmm_unregister_policy(&dmm_demand_ops);
}
module_exit(dmm_demand_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: demand paging");
MODULE_ALIAS("kvm-dmm-policy-demand");
MODULE_LICENSE("GPL");
