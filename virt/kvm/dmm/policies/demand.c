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
 */
#include <linux/kvm_dmm.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/slab.h>

#define DMM_STREAMS		8
#define DMM_START_ORDER		2	/* of a new stream's window at most */
#define DMM_PROBE		64	/* how many windows of a page go by */

/*
 * A stream is one word, so that faults need no lock: the number of the last
 * window, counted in windows of its size, that size as an order, flags.
 */
#define DMM_STREAM_VALID	BIT_ULL(0)
#define DMM_STREAM_ORDER	GENMASK_ULL(7, 4)
#define DMM_STREAM_ORDER_SHIFT	4
#define DMM_STREAM_NR_SHIFT	8

enum { DMM_FAULT_AROUND };

static const struct kvm_dmm_tunable dmm_demand_tunables[] = {
	[DMM_FAULT_AROUND] = {
		/* Largest window; 4K: only what is touched. */
		.name = "fault_around_bytes",
		.bytes = true,
		.def = 64 << 10,
		.min = PAGE_SIZE,
		.max = KVM_DMM_REGION_PAGES * PAGE_SIZE,
	},
	{}
};

enum {
	DMM_AROUND_USED,
	DMM_AROUND_UNUSED,
	DMM_STREAM_HIT,
	DMM_STREAM_MISS,
};

static const char *const dmm_demand_counters[] = {
	[DMM_AROUND_USED] = "around_used",
	[DMM_AROUND_UNUSED] = "around_unused",
	[DMM_STREAM_HIT] = "stream_hit",
	[DMM_STREAM_MISS] = "stream_miss",
	NULL
};

/**
 * struct dmm_demand - a pool's demand policy
 * @stream: what was filled last, DMM_STREAM_*
 * @next: the stream to replace next
 * @start: order of a new stream's window
 * @misses: windows of one page since the last larger one
 *
 * Read and written by faults without a lock: it is all about guesses.
 */
struct dmm_demand {
	u64 stream[DMM_STREAMS];
	unsigned int next;
	unsigned int start;
	unsigned int misses;
};

static u64 dmm_mk_stream(pgoff_t nr, unsigned int order)
{
	return DMM_STREAM_VALID | (u64)order << DMM_STREAM_ORDER_SHIFT |
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
	pgoff_t nr = index >> dmm_stream_order(stream);

	/* Next to it on either side, or in a gap that it left. */
	return (stream & DMM_STREAM_VALID) &&
	       nr + 1 - dmm_stream_nr(stream) <= 2;
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

static void dmm_demand_around(struct kvm_dmm_policy *policy,
			      struct kvm_dmm_around *around)
{
	unsigned int max = ilog2(kvm_dmm_value(policy, DMM_FAULT_AROUND) >>
				 PAGE_SHIFT);
	struct dmm_demand *demand = policy->priv;
	unsigned int i, order;
	pgoff_t nr, index = around->index;
	u64 stream;

	if (!max)
		return;
	for (i = 0; i < DMM_STREAMS; i++) {
		stream = READ_ONCE(demand->stream[i]);
		if (dmm_stream_follows(stream, index))
			break;
	}
	if (i < DMM_STREAMS) {
		kvm_dmm_policy_count(policy, DMM_STREAM_HIT, 1);
		order = dmm_demand_continue(policy, stream, max);
	} else {
		kvm_dmm_policy_count(policy, DMM_STREAM_MISS, 1);
		i = READ_ONCE(demand->next) % DMM_STREAMS;
		WRITE_ONCE(demand->next, i + 1);
		order = dmm_demand_begin(policy, READ_ONCE(demand->stream[i]),
					 max);
	}
	nr = index >> order;
	WRITE_ONCE(demand->stream[i], dmm_mk_stream(nr, order));
	around->first = nr << order;
	around->last = around->first + BIT(order) - 1;
}

static int dmm_demand_attach(struct kvm_dmm_policy *policy)
{
	struct dmm_demand *demand = kzalloc(sizeof(*demand),
					    GFP_KERNEL_ACCOUNT);

	if (!demand)
		return -ENOMEM;
	demand->start = DMM_START_ORDER;
	policy->priv = demand;
	return 0;
}

static void dmm_demand_detach(struct kvm_dmm_policy *policy)
{
	kfree(policy->priv);
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
