// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping on x86: the only file of it that knows SPTEs.
 */
#include <linux/kvm_host.h>

#include "mmu.h"
#include "mmu_internal.h"
#include "mmutrace.h"
#include "tdp_iter.h"
#include "tdp_mmu.h"

/*
 * Clear the permission in one SPTE, and what would let the lockless fast path
 * give it back.  Only that and the CPU change an SPTE meanwhile.
 *
 * True if it may be in a TLB with the permission, which the SPTE need not have any
 * more.  A writable SPTE is not replaced by a read-only one, but one that KVM has
 * taken the access from, without a flush, to see accesses where the CPU has no
 * access bits, is::
 *
 *	vCPU A, reads			vCPU B, writes		here
 *	-------------			--------------		----
 *	entry protected: to be
 *	mapped read-only
 *					entry unprotected
 *					writable SPTE, in TLB
 *							access taken away
 *	read-only SPTE over it
 *								protected again:
 *								nothing to clear
 */
static __always_inline bool dmm_protect_spte(u64 *sptep, u64 mask)
{
	u64 spte = READ_ONCE(*sptep);

	if (!is_shadow_present_pte(spte))
		return false;
	if (spte & mask)
		atomic64_and(~mask, (atomic64_t *)sptep);
	return true;
}

/* The same for what one table of the TDP MMU maps of [start, end). */
static bool dmm_protect_table(u64 *table, gfn_t start, gfn_t end, u64 mask)
{
	u64 *sptep = table + (start & (SPTE_ENT_PER_PAGE - 1));
	u64 *last = sptep + (end - start);
	bool flush = false;

	for (; sptep < last; sptep++)
		flush |= dmm_protect_spte(sptep, mask);
	return flush;
}

/*
 * One root.  2 MiB mappings that overlap lose the permission for all of their
 * pages.
 */
static bool dmm_protect_root(struct kvm_mmu_page *root,
			     struct kvm_gfn_range *range)
{
	const u64 mask = PT_WRITABLE_MASK | shadow_mmu_writable_mask;
	struct tdp_iter iter;
	bool flush = false;

	rcu_read_lock();
	for_each_tdp_pte_min_level(iter, root, PG_LEVEL_2M, range->start,
				   range->end) {
		if (!is_shadow_present_pte(iter.old_spte))
			continue;
		if (is_last_spte(iter.old_spte, iter.level)) {
			flush |= dmm_protect_spte(rcu_dereference(iter.sptep), mask);
		} else if (iter.level == PG_LEVEL_2M) {
			tdp_ptep_t pt = spte_to_child_pt(iter.old_spte,
							 iter.level);

			flush |= dmm_protect_table(rcu_dereference(pt),
						   max(range->start, iter.gfn),
						   min(range->end, iter.gfn +
						       SPTE_ENT_PER_PAGE),
						   mask);
		}
	}
	rcu_read_unlock();
	return flush;
}

/*
 * Reverse maps come with the first shadow page of a VM, all of them before it is
 * known.  A slot that was being replaced just then has none, and nothing mapped by
 * shadow pages.
 */
static bool dmm_has_rmaps(struct kvm *kvm, const struct kvm_memory_slot *slot)
{
	return kvm_memslots_have_rmaps(kvm) && slot->arch.rmap[0];
}

/**
 * kvm_arch_dmm_unmap - take guest pages out of all page tables of a VM
 * @kvm: the VM
 * @range: the pages
 *
 * Context: kvm->mmu_lock is held for writing, within an invalidation.
 * Return: True if the caller has to flush TLBs.
 */
bool kvm_arch_dmm_unmap(struct kvm *kvm, struct kvm_gfn_range *range)
{
	lockdep_assert_held_write(&kvm->mmu_lock);
	if (dmm_has_rmaps(kvm, range->slot))
		return kvm_unmap_gfn_range(kvm, range);
	return tdp_mmu_enabled &&
	       kvm_tdp_mmu_unmap_gfn_range(kvm, range, false);
}

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
	struct kvm_mmu_page *root;
	bool flush = false;

	lockdep_assert_held_write(&kvm->mmu_lock);
	if (dmm_has_rmaps(kvm, range->slot))
		return kvm_unmap_gfn_range(kvm, range);

	list_for_each_entry(root, &kvm->arch.tdp_mmu_roots, link) {
		/* vCPUs have left those that are invalid. */
		if (!root->role.invalid &&
		    kvm_mmu_page_as_id(root) == range->slot->as_id)
			flush |= dmm_protect_root(root, range);
	}
	return flush;
}

/* Whether an SPTE was used since its access bit was cleared, which happens now. */
static __always_inline bool dmm_age_spte(u64 *sptep, u64 spte, bool clear)
{
	u64 new;

	while (is_shadow_present_pte(spte) && is_accessed_spte(spte)) {
		if (!clear)
			return true;
		if (spte_ad_enabled(spte))
			new = spte & ~shadow_accessed_mask;
		else
			new = mark_spte_for_access_track(spte);
		/* Faults run meanwhile, and a frozen SPTE is not to be changed. */
		if (try_cmpxchg64(sptep, &spte, new))
			return true;
	}
	return false;
}

/* The same for what one table of the TDP MMU maps of [start, end). */
static void dmm_young_table(u64 *table, gfn_t start, gfn_t end, bool clear,
			    unsigned long *young, unsigned int nr)
{
	u64 *sptep = table + (start & (SPTE_ENT_PER_PAGE - 1));

	for (; start < end; start++, sptep++, nr++)
		if (dmm_age_spte(sptep, READ_ONCE(*sptep), clear))
			__set_bit(nr, young);
}

static void dmm_young_tdp(struct kvm *kvm, const struct kvm_memory_slot *slot,
			  gfn_t start, gfn_t end, bool clear,
			  unsigned long *young, unsigned int nr)
{
	struct kvm_mmu_page *root;
	struct tdp_iter iter;
	gfn_t first, last;

	lockdep_assert_held(&kvm->mmu_lock);
	rcu_read_lock();
	list_for_each_entry_rcu(root, &kvm->arch.tdp_mmu_roots, link) {
		if (kvm_mmu_page_as_id(root) != slot->as_id)
			continue;
		for_each_tdp_pte_min_level(iter, root, PG_LEVEL_2M, start, end) {
			u64 *sptep = rcu_dereference(iter.sptep);

			if (!is_shadow_present_pte(iter.old_spte))
				continue;
			first = max(start, iter.gfn);
			last = min(end, iter.gfn +
				   KVM_PAGES_PER_HPAGE(iter.level));
			if (is_last_spte(iter.old_spte, iter.level)) {
				if (dmm_age_spte(sptep, iter.old_spte, clear))
					bitmap_set(young, nr + first - start,
						   last - first);
			} else if (iter.level == PG_LEVEL_2M) {
				tdp_ptep_t pt = spte_to_child_pt(iter.old_spte,
								 iter.level);

				dmm_young_table(rcu_dereference(pt), first,
						last, clear, young,
						nr + first - start);
			}
		}
	}
	rcu_read_unlock();
}

static void dmm_young_rmap(struct kvm *kvm, struct kvm_memory_slot *slot,
			   gfn_t start, gfn_t end, bool clear,
			   unsigned long *young, unsigned int nr)
{
	struct kvm_gfn_range range = { .slot = slot };
	gfn_t gfn, next;
	int level;

	lockdep_assert_held_write(&kvm->mmu_lock);
	for (gfn = start; gfn < end; gfn = next) {
		next = gfn + 1;
		/* Most of the work is finding that nothing is mapped. */
		for (level = KVM_MAX_HUGEPAGE_LEVEL; level >= PG_LEVEL_4K; level--)
			if (slot->arch.rmap[level - PG_LEVEL_4K]
			    [gfn_to_index(gfn, slot->base_gfn, level)].val)
				break;
		if (level < PG_LEVEL_4K)
			continue;
		/* One access bit for all that it maps. */
		next = min(end, round_up(next, KVM_PAGES_PER_HPAGE(level)));
		range.start = gfn;
		range.end = next;
		if (clear ? kvm_age_gfn(kvm, &range) :
			    kvm_test_age_gfn(kvm, &range))
			bitmap_set(young, nr + gfn - start, next - gfn);
	}
}

/**
 * kvm_arch_dmm_young - find out which guest pages were accessed
 * @kvm: the VM
 * @slot: the slot
 * @start: first guest frame number
 * @end: the one after the last
 * @clear: clear the access bits
 * @young: bits to set
 * @nr: number of the bit for @start
 *
 * One lock hold and one walk for all pages of the TDP MMU, which needs the lock
 * for reading only: a fault changes an SPTE by an atomic exchange, and so does
 * this.  It is first, because kvm_age_gfn() looks there, too, page by page.
 * A 2 MiB mapping stands for all that it maps.
 *
 * Context: kvm->srcu is held.  Takes kvm->mmu_lock.
 */
void kvm_arch_dmm_young(struct kvm *kvm, struct kvm_memory_slot *slot,
			gfn_t start, gfn_t end, bool clear,
			unsigned long *young, unsigned int nr)
{
	if (tdp_mmu_enabled) {
		read_lock(&kvm->mmu_lock);
		dmm_young_tdp(kvm, slot, start, end, clear, young, nr);
		read_unlock(&kvm->mmu_lock);
	}
	if (dmm_has_rmaps(kvm, slot)) {
		write_lock(&kvm->mmu_lock);
		dmm_young_rmap(kvm, slot, start, end, clear, young, nr);
		write_unlock(&kvm->mmu_lock);
	}
}

/**
 * kvm_arch_dmm_map_ahead - map a page that a vCPU has not touched yet
 * @vcpu: the vCPU, about to enter the guest
 * @gpa: the page
 *
 * As for an asynchronous page fault, once: a page that wants to be tried again is
 * left to the guest.  Trying until it is mapped would not end, since the vCPU
 * holds what others wait for::
 *
 *	vCPU, in kvm->srcu		KVM_SET_USER_MEMORY_REGION
 *	------------------		--------------------------
 *					slot invalid, or roots obsolete
 *	RET_PF_RETRY, for ever		synchronize_srcu(), for ever
 *
 * Context: By @vcpu; may sleep.  kvm->srcu is held.
 * Return: False if it is not mapped, and nothing else is likely to be.
 */
bool kvm_arch_dmm_map_ahead(struct kvm_vcpu *vcpu, gpa_t gpa)
{
	/* Others are not indexed by guest physical addresses. */
	if (vcpu->arch.mmu->page_fault != kvm_tdp_page_fault ||
	    !vcpu->kvm->arch.pre_fault_allowed || kvm_mmu_reload(vcpu))
		return false;
	return kvm_mmu_do_page_fault(vcpu, gpa, PFERR_GUEST_FINAL_MASK, true,
				     NULL, NULL) > RET_PF_RETRY;
}

/**
 * kvm_arch_dmm_async_write - does an asynchronous page fault write?
 * @arch: what KVM remembers of it
 *
 * Context: Any.
 * Return: True if so.
 */
bool kvm_arch_dmm_async_write(const struct kvm_arch_async_pf *arch)
{
	return arch->error_code & PFERR_WRITE_MASK;
}

/**
 * kvm_arch_dmm_async_gfn - what does an asynchronous page fault wait for?
 * @arch: what KVM remembers of it
 *
 * Context: Any.
 * Return: The guest frame number.
 */
gfn_t kvm_arch_dmm_async_gfn(const struct kvm_arch_async_pf *arch)
{
	return arch->gfn;
}

/**
 * struct kvm_arch_dmm_around - mapping pages around one that was mapped
 * @vcpu: the vCPU that touched it
 * @slot: the slot
 * @sp: the last-level page table, which has @gfn
 * @gfn: the page
 */
struct kvm_arch_dmm_around {
	struct kvm_vcpu *vcpu;
	struct kvm_memory_slot *slot;
	struct kvm_mmu_page *sp;
	gfn_t gfn;
};

/**
 * kvm_arch_dmm_map_around - map pages around one that was mapped
 * @vcpu: the vCPU
 * @fault: its fault, on a bound slot
 * @sptep: the SPTE of the fault
 *
 * Not while dirty pages are logged: a page counts as dirty when it is mapped for
 * writing.  Not where a page may be private: what belongs to the file may
 * change by other means than its map.  Not without access bits: they tell what
 * was only mapped from what is used.
 *
 * Context: kvm->mmu_lock is held for reading, the RCU lock, too.
 */
void kvm_arch_dmm_map_around(struct kvm_vcpu *vcpu,
			     struct kvm_page_fault *fault, u64 *sptep)
{
	struct kvm_arch_dmm_around map = {
		.vcpu = vcpu,
		.slot = fault->slot,
		.sp = sptep_to_sp(sptep),
		.gfn = fault->gfn,
	};

	lockdep_assert_held_read(&vcpu->kvm->mmu_lock);
	if (map.sp->role.level != PG_LEVEL_4K ||
	    kvm_slot_dirty_track_enabled(fault->slot) ||
	    kvm_arch_has_private_mem(vcpu->kvm) || sp_ad_disabled(map.sp))
		return;
	kvm_dmm_map_around(fault->slot, fault->gfn, fault->write, &map);
}

/**
 * kvm_arch_dmm_map - map one page that was not accessed
 * @map: where
 * @gfn: guest frame number
 * @pfn: page frame number
 * @writable: it may be written
 *
 * What is in the SPTE stays.  Others may change it, or take the table away,
 * which freezes it: then the exchange fails.
 */
void kvm_arch_dmm_map(struct kvm_arch_dmm_around *map, gfn_t gfn, kvm_pfn_t pfn,
		      bool writable)
{
	struct kvm *kvm = map->vcpu->kvm;
	u64 *sptep, old, spte;

	/* The slot's pages and the file's may be aligned differently. */
	if ((gfn ^ map->gfn) & ~(gfn_t)(SPTE_ENT_PER_PAGE - 1))
		return;
	sptep = map->sp->spt + (gfn & (SPTE_ENT_PER_PAGE - 1));
	old = READ_ONCE(*sptep);
	if (old != SHADOW_NONPRESENT_VALUE)
		return;
	/* Who accesses what has failed is to be told so. */
	if (PageHWPoison(pfn_to_page(pfn)))
		return;
	/* Pages that the guest uses as page tables come out read-only. */
	make_spte(map->vcpu, map->sp, map->slot, ACC_ALL, gfn, pfn, old, true,
		  true, writable, &spte);
	if (!try_cmpxchg64(sptep, &old, spte))
		return;
	kvm_update_page_stats(kvm, PG_LEVEL_4K, 1);
	trace_kvm_mmu_set_spte(PG_LEVEL_4K, gfn, sptep);
}

#ifdef CONFIG_DEBUG_FS
/* Show what one SPTE maps of [start, end); @gfn is the first page it maps. */
static void dmm_walk_spte(struct kvm_dmm_check *check,
			  const struct kvm_memory_slot *slot, gfn_t start,
			  gfn_t end, gfn_t gfn, u64 spte, int level, bool write)
{
	gfn_t last = min(end, gfn + KVM_PAGES_PER_HPAGE(level)), i;

	for (i = max(start, gfn); i < last; i++)
		kvm_dmm_walked(check, slot, i, spte_to_pfn(spte) + (i - gfn),
			       write);
}

static void dmm_walk_tdp(struct kvm *kvm, const struct kvm_memory_slot *slot,
			 gfn_t start, gfn_t end, struct kvm_dmm_check *check)
{
	const u64 mask = PT_WRITABLE_MASK | shadow_mmu_writable_mask;
	struct kvm_mmu_page *root;
	struct tdp_iter iter;

	rcu_read_lock();
	list_for_each_entry(root, &kvm->arch.tdp_mmu_roots, link) {
		if (kvm_mmu_page_as_id(root) != slot->as_id)
			continue;
		for_each_tdp_pte_min_level(iter, root, PG_LEVEL_4K, start, end) {
			if (!is_shadow_present_pte(iter.old_spte) ||
			    !is_last_spte(iter.old_spte, iter.level))
				continue;
			/* vCPUs have left those that are invalid. */
			dmm_walk_spte(check, slot, start, end, iter.gfn,
				      iter.old_spte, iter.level,
				      (iter.old_spte & mask) &&
				      !root->role.invalid);
		}
	}
	rcu_read_unlock();
}

/* As kvm_mmu_page_get_gfn(). */
static gfn_t dmm_sp_gfn(struct kvm_mmu_page *sp, unsigned int i)
{
	if (sp->role.passthrough)
		return sp->gfn;
	if (sp->shadowed_translation)
		return sp->shadowed_translation[i] >> PAGE_SHIFT;
	return sp->gfn + i * KVM_PAGES_PER_HPAGE(sp->role.level);
}

/* One SPTE, or a list of them that only mmu.c can read. */
static bool dmm_rmap_has(struct kvm_memory_slot *slot, gfn_t gfn, int level,
			 u64 *sptep)
{
	struct kvm_rmap_head *head = &slot->arch.rmap[level - PG_LEVEL_4K]
		[gfn_to_index(gfn, slot->base_gfn, level)];

	return head->val & 1 || head->val == (unsigned long)sptep;
}

/*
 * All shadow pages, rather than what the reverse maps say: so that is checked,
 * too.  FNAME(sync_spte) makes what has the host-writable bit writable.
 */
static unsigned int dmm_walk_shadow(struct kvm *kvm,
				    struct kvm_memory_slot *slot, gfn_t start,
				    gfn_t end, struct kvm_dmm_check *check)
{
	const u64 mask = PT_WRITABLE_MASK | shadow_mmu_writable_mask |
			 shadow_host_writable_mask;
	struct kvm_mmu_page *sp;
	unsigned int i, lost = 0;
	gfn_t gfn, nr;
	int level;
	u64 spte;

	list_for_each_entry(sp, &kvm->arch.active_mmu_pages, link) {
		level = sp->role.level;
		if (kvm_mmu_page_as_id(sp) != slot->as_id ||
		    level > KVM_MAX_HUGEPAGE_LEVEL)
			continue;
		nr = KVM_PAGES_PER_HPAGE(level);
		for (i = 0; i < SPTE_ENT_PER_PAGE; i++) {
			spte = READ_ONCE(sp->spt[i]);
			if (!is_shadow_present_pte(spte) ||
			    !is_last_spte(spte, level))
				continue;
			gfn = dmm_sp_gfn(sp, i) & -nr;
			if (gfn + nr <= start || gfn >= end)
				continue;
			dmm_walk_spte(check, slot, start, end, gfn, spte, level,
				      spte & mask);
			if (!dmm_rmap_has(slot, gfn, level, &sp->spt[i]))
				lost++;
		}
	}
	return lost;
}

/**
 * kvm_arch_dmm_walk - find all translations of guest pages in a VM's page tables
 * @kvm: the VM
 * @slot: the slot
 * @start: first guest frame number
 * @end: the one after the last
 * @check: for kvm_dmm_walked(), which is called for each
 *
 * Context: kvm->srcu is held, and kvm->mmu_lock for writing.
 * Return: How many SPTEs cannot be found by the reverse maps.
 */
unsigned int kvm_arch_dmm_walk(struct kvm *kvm, struct kvm_memory_slot *slot,
			       gfn_t start, gfn_t end,
			       struct kvm_dmm_check *check)
{
	unsigned int lost = 0;

	lockdep_assert_held_write(&kvm->mmu_lock);
	if (dmm_has_rmaps(kvm, slot))
		lost = dmm_walk_shadow(kvm, slot, start, end, check);
	if (tdp_mmu_enabled)
		dmm_walk_tdp(kvm, slot, start, end, check);
	return lost;
}
#endif /* CONFIG_DEBUG_FS */
