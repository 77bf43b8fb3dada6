// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the demand policy.
 *
 * Memory of a guest is taken from the host when it is first written, one page
 * at a time, instead of all of it when the file is sized.  The core fills with
 * zeros whatever no policy has content for, so being there is all it takes.
 */
#include <linux/kvm_dmm.h>
#include <linux/module.h>

static int dmm_demand_attach(struct kvm_dmm_policy *policy)
{
	return 0;
}

static void dmm_demand_detach(struct kvm_dmm_policy *policy)
{
}

static struct kvm_dmm_policy_ops dmm_demand_ops = {
	.name = "demand",
	.owner = THIS_MODULE,
	.lazy = true,
	.attach = dmm_demand_attach,
	.detach = dmm_demand_detach,
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
