// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the sample policy, to begin one's own from.
 *
 * A guest leaves many pages full of zeros: it clears memory before it uses it,
 * or when it has freed it.  When memory is wanted, the policy gives back those
 * pages that were not accessed lately and have nothing in them.  They read as
 * zero as before, but take no memory.
 */
#include <linux/kvm_dmm.h>
#include <linux/module.h>

enum { SAMPLE_SKIP_YOUNG };
enum { SAMPLE_TRIED, SAMPLE_GIVEN };

static const struct kvm_dmm_tunable sample_tunables[] = {
	[SAMPLE_SKIP_YOUNG] = { .name = "skip_young", .def = 1, .max = 1 },
	{}
};

static const char *const sample_counters[] = {
	[SAMPLE_TRIED] = "tried",
	[SAMPLE_GIVEN] = "given",
	NULL
};

static int sample_attach(struct kvm_dmm_policy *policy)
{
	return 0;
}

static void sample_detach(struct kvm_dmm_policy *policy)
{
}

/* Give back what is zero in a part of one region: 2 MiB of the guest. */
static void sample_region(struct kvm_dmm_policy *policy, pgoff_t first,
			  pgoff_t last, struct kvm_dmm_reclaim *rc)
{
	pgoff_t base = round_down(first, KVM_DMM_REGION_PAGES), index;
	DECLARE_BITMAP(young, KVM_DMM_REGION_PAGES) = {};
	struct kvm_dmm_batch batch;

	if (kvm_dmm_value(policy, SAMPLE_SKIP_YOUNG))
		kvm_dmm_young(policy->pool, base, young);
	if (!kvm_dmm_batch_start(&batch, policy->pool, first))
		return;
	for (index = first; index <= last; index++)
		if (!test_bit(index - base, young))
			kvm_dmm_batch_add(&batch, index);
	kvm_dmm_policy_count(policy, SAMPLE_TRIED,
			     kvm_dmm_batch_take(&batch));
	for (index = first; index <= last && rc->nr_done < rc->nr_pages; index++)
		if (!kvm_dmm_batch_absent(&batch, index)) {
			kvm_dmm_policy_count(policy, SAMPLE_GIVEN, 1);
			rc->nr_done++;
		}
	kvm_dmm_batch_end(&batch);
}

static int sample_reclaim(struct kvm_dmm_policy *policy,
			  struct kvm_dmm_reclaim *rc)
{
	pgoff_t index = rc->first, last;

	while (rc->nr_done < rc->nr_pages &&
	       kvm_dmm_next_region(policy->pool, &index, rc->last)) {
		last = min(rc->last, index | (KVM_DMM_REGION_PAGES - 1));
		sample_region(policy, index, last, rc);
		index = last + 1;
	}
	return 0;
}

static struct kvm_dmm_policy_ops sample_ops = {
	.name = "sample",
	.owner = THIS_MODULE,
	.tunables = sample_tunables,
	.counters = sample_counters,
	.attach = sample_attach,
	.detach = sample_detach,
	.reclaim = sample_reclaim,
};

static int __init sample_init(void)
{
	return kvm_dmm_register_policy(&sample_ops);
}
module_init(sample_init);

static void __exit sample_exit(void)
{
	kvm_dmm_unregister_policy(&sample_ops);
}
module_exit(sample_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: sample policy");
MODULE_ALIAS("kvm-dmm-policy-sample");
MODULE_LICENSE("GPL");
