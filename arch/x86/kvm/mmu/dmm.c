// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping on x86: the only file of it that knows SPTEs.
 */
#include <linux/kvm_host.h>

#include "mmu.h"
#include "mmu_internal.h"
#include "tdp_mmu.h"

/**
 * kvm_arch_dmm_protect - make guest pages read-only in all page tables of a VM
 * @kvm: the VM
 * @range: the pages
 *
 * Shadow pages lose the mapping: a read-only SPTE there keeps its
 * host-writable bit, by which FNAME(sync_spte) would give the write permission
 * back without asking the map.
 *
 * Context: kvm->mmu_lock is held for writing, within an invalidation.
 * Return: True if the caller has to flush TLBs.
 */
bool kvm_arch_dmm_protect(struct kvm *kvm, struct kvm_gfn_range *range)
{
	bool flush = false;
	gfn_t gfn;

	lockdep_assert_held_write(&kvm->mmu_lock);
	if (kvm_memslots_have_rmaps(kvm))
		return kvm_unmap_gfn_range(kvm, range);

	for (gfn = range->start; gfn < range->end; gfn++)
		flush |= kvm_tdp_mmu_write_protect_gfn(kvm, range->slot, gfn,
						       PG_LEVEL_4K);
	return flush;
}
