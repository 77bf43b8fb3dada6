// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: memory slots on dmmfs files.
 *
 * A slot whose host address lies in a mapping of a dmmfs file is bound to the
 * file and offset when it is created, and from then on its faults are resolved
 * by the file's map, whatever the VMM does with its own mapping.
 *
 * The binding is of a VM, address space and slot number: KVM replaces the slot
 * object when it moves a slot or changes its flags, so the slot in use is
 * looked up when it is needed, under SRCU, as MMU notifiers do.  A binding
 * enters the tree before its slot becomes active and leaves it after no vCPU
 * can use the slot any more.
 */
#include <linux/file.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>
#include <trace/events/kvm_dmm.h>

#include "../kvm_mm.h"
#include "dmm.h"

/* Frames to look at for mapping around one; as PTE_PREFETCH_NUM. */
#define DMM_MAP_AROUND	8

/**
 * struct kvm_dmm_binding - a memory slot on a dmmfs file
 * @node: in pool->bindings, over page offsets
 * @kvm: the VM
 * @file: keeps file and mount alive
 * @as_id: address space
 * @id: slot number
 * @pgoff: page offset of the slot's first page
 * @failed: page offset that could not be resolved lately: the next fault there
 *	tells the VMM instead of starting an asynchronous page fault again
 * @writable: false if the VMM could not write the memory itself
 * @next: for kvm_dmm_unbind_all()
 */
struct kvm_dmm_binding {
	struct interval_tree_node node;
	struct kvm *kvm;
	struct file *file;
	int as_id;
	int id;
	pgoff_t pgoff;
	pgoff_t failed;
	bool writable;
	struct kvm_dmm_binding *next;
};

static struct kvm_dmm_pool *dmm_binding_pool(struct kvm_dmm_binding *binding)
{
	return dmm_pool(file_inode(binding->file));
}

static pgoff_t dmm_gfn_to_index(const struct kvm_memory_slot *slot, gfn_t gfn)
{
	return slot->dmm->pgoff + (gfn - slot->base_gfn);
}

/*
 * Find out which file the addresses of a slot belong to.
 *
 * Return: 1: all to one file, in a row; 0: none to a dmmfs file;
 *	-EINVAL: anything else, or beyond the end of the file.
 */
static int dmm_find_file(const struct kvm_memory_slot *slot,
			 struct file **filep, pgoff_t *pgoff, bool *writable)
{
	unsigned long start = slot->userspace_addr;
	unsigned long end = start + slot->npages * PAGE_SIZE;
	unsigned long addr = start;
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	struct file *file = NULL;
	bool other = false;
	int r = 0;

	mmap_read_lock(mm);
	VMA_ITERATOR(vmi, mm, start);
	for_each_vma_range(vmi, vma, end) {
		if (vma->vm_ops != &dmm_vm_ops) {
			other = true;
			continue;
		}
		if (!file) {
			file = vma->vm_file;
			*pgoff = linear_page_index(vma, start);
			*writable = true;
		}
		if (vma->vm_file->f_inode != file->f_inode ||
		    linear_page_index(vma, addr) !=
		    *pgoff + ((addr - start) >> PAGE_SHIFT) ||
		    vma->vm_start > addr) {
			other = true;
			break;
		}
		*writable &= !!(vma->vm_flags & VM_WRITE);
		addr = vma->vm_end;
	}
	if (file) {
		if (other || addr < end ||
		    *pgoff + slot->npages > dmm_pages(dmm_pool(file_inode(file))))
			r = -EINVAL;
		else
			r = 1;
	}
	if (r > 0)
		*filep = get_file(file);
	mmap_read_unlock(mm);
	if (r < 0)
		pr_info_ratelimited("kvm_dmm: slot %d of pid %d is not within one dmmfs file\n",
				    slot->id, task_tgid_nr(current));
	return r;
}

/**
 * kvm_dmm_bind - bind a new slot object to a dmmfs file, if it is on one
 * @kvm: the VM
 * @old: the slot that @new replaces, or NULL
 * @new: the slot
 *
 * Context: May sleep.  kvm->slots_lock is held; @new is not active yet.
 * Return: 0, also for other memory; -EINVAL: the range is not within one dmmfs
 *	file; -ENOMEM; for a static pool the errors of filling it.
 */
int kvm_dmm_bind(struct kvm *kvm, const struct kvm_memory_slot *old,
		 struct kvm_memory_slot *new)
{
	struct kvm_dmm_binding *binding;
	struct kvm_dmm_pool *pool;
	struct file *file;
	bool writable;
	pgoff_t pgoff;
	int r;

	lockdep_assert_held(&kvm->slots_lock);
	if (old) {
		new->dmm = old->dmm;
		return 0;
	}
	r = dmm_find_file(new, &file, &pgoff, &writable);
	if (r <= 0)
		return r;

	r = -ENOMEM;
	binding = kzalloc(sizeof(*binding), GFP_KERNEL_ACCOUNT);
	if (!binding)
		goto put;
	binding->node.start = pgoff;
	binding->node.last = pgoff + new->npages - 1;
	binding->kvm = kvm;
	binding->file = file;
	binding->as_id = new->as_id;
	binding->id = new->id;
	binding->pgoff = pgoff;
	binding->failed = ULONG_MAX;
	binding->writable = writable;

	pool = dmm_binding_pool(binding);
	if (!READ_ONCE(pool->nr_lazy)) {
		r = dmm_populate(pool, binding->node.start, binding->node.last);
		/* The file was made smaller meanwhile: as if it had been before. */
		if (r == -EFAULT)
			r = -EINVAL;
		/* Other memory does not know that error here: go on where it was. */
		if (r == -EINTR)
			r = -ERESTARTNOINTR;
		if (r)
			goto free;
	}
	down_write(&pool->bind_lock);
	interval_tree_insert(&binding->node, &pool->bindings);
	up_write(&pool->bind_lock);
	new->dmm = binding;
	return 0;
free:
	kfree(binding);
put:
	fput(file);
	return r;
}

/* Take the binding from a slot, from where no change of the map finds it any more. */
static struct kvm_dmm_binding *dmm_binding_take(struct kvm_memory_slot *slot)
{
	struct kvm_dmm_binding *binding = slot->dmm;
	struct kvm_dmm_pool *pool;

	if (binding) {
		pool = dmm_binding_pool(binding);
		down_write(&pool->bind_lock);
		interval_tree_remove(&binding->node, &pool->bindings);
		up_write(&pool->bind_lock);
		WRITE_ONCE(slot->dmm, NULL);
	}
	return binding;
}

static void dmm_binding_free(struct kvm_dmm_binding *binding)
{
	if (binding) {
		fput(binding->file);
		kfree(binding);
	}
}

/**
 * kvm_dmm_unbind - forget a slot that is not, or no longer, in use
 * @slot: the slot, bound or not
 *
 * Context: May sleep.  kvm->slots_lock is held, or the VM is going away.
 */
void kvm_dmm_unbind(struct kvm_memory_slot *slot)
{
	dmm_binding_free(dmm_binding_take(slot));
}

/**
 * kvm_dmm_unbind_all - forget all slots of a VM that is going away
 * @kvm: the VM; its page tables are empty, and it has no users any more
 *
 * Waits for changes of the files' maps that are looking at the VM.  From then on
 * none does: kvm_destroy_vm() warns of an invalidation in progress, and takes
 * apart what one would need.
 *
 * Context: May sleep.
 */
void kvm_dmm_unbind_all(struct kvm *kvm)
{
	struct kvm_dmm_binding *binding, *all = NULL;
	struct kvm_memory_slot *slot;
	int i, bkt;

	for (i = 0; i < kvm_arch_nr_memslot_as_ids(kvm); i++) {
		kvm_for_each_memslot(slot, bkt, __kvm_memslots(kvm, i)) {
			binding = dmm_binding_take(slot);
			if (!binding)
				continue;
			binding->next = all;
			all = binding;
		}
	}
	if (!all)
		return;
	/*
	 * The worker of an asynchronous page fault outlives its vCPU's last step:
	 *
	 *	kvm_dmm_async_pf_failed()	here
	 *	-------------------------	----
	 *	a. srcu_read_lock()		1. slot->dmm = NULL
	 *	b. read slot->dmm		2. synchronize_srcu()
	 *	c. write binding->failed	3. free the binding
	 *	d. srcu_read_unlock()
	 *
	 * If b is before 1, then 2 waits for d.  Nobody else is left: page tables are
	 * empty, vCPUs do not run, and changes of the map are kept off by 1.
	 */
	synchronize_srcu_expedited(&kvm->srcu);
	while (all) {
		binding = all;
		all = binding->next;
		dmm_binding_free(binding);
	}
}

/* The slot object of a binding now; NULL while there is none. */
static struct kvm_memory_slot *dmm_bound_slot(struct kvm_dmm_binding *binding)
{
	struct kvm_memory_slot *slot;

	slot = id_to_memslot(__kvm_memslots(binding->kvm, binding->as_id),
			     binding->id);
	return slot && slot->dmm == binding ? slot : NULL;
}

/* Zap or write-protect what one slot maps of a batch. */
static void dmm_invalidate_slot(struct kvm_dmm_batch *batch, bool protect,
				struct kvm_dmm_binding *binding)
{
	/*
	 * In one go: what was zapped is not flushed before the end, and others must
	 * not find it gone until then::
	 *
	 *	here: pages 0 and 300	a hole: page 7		vCPU
	 *	---------------------	--------------		----
	 *				entry 7 busy		has the 2 MiB in its TLB
	 *	zap 0: 2 MiB gone
	 *	(lock let go of)
	 *				zap 7: nothing there,
	 *				no flush; frame freed
	 *							writes to page 7
	 *	zap 300, flush
	 */
	struct kvm_gfn_range range = {
		.may_block = false,
		.attr_filter = KVM_FILTER_SHARED,
	};
	struct kvm *kvm = binding->kvm;
	u64 *count = protect ? &kvm->stat.generic.dmm_protected :
			       &kvm->stat.generic.dmm_unmapped;
	struct kvm_memory_slot *slot;
	unsigned int start, end;
	pgoff_t first, last;
	bool flush = false;
	int idx;

	idx = srcu_read_lock(&kvm->srcu);
	KVM_MMU_LOCK(kvm);
	/*
	 * With the lock.  Reverse maps come with the first shadow page of a VM, for
	 * the slots that there are then::
	 *
	 *	here			slot replaced		vCPU
	 *	----			-------------		----
	 *	S0 is the slot
	 *				S1 instead of S0
	 *							reverse maps, of S1
	 *							lock: map by S1
	 *	lock: S0 has none
	 *
	 * What replaces it after this gets nothing mapped before the end.
	 */
	slot = dmm_bound_slot(binding);
	if (!slot)
		goto unlock;

	range.slot = slot;
	first = max(batch->base + batch->first, binding->node.start);
	last = min(batch->base + batch->end - 1, binding->node.last);
	kvm_mmu_invalidate_begin(kvm);
	kvm_mmu_invalidate_range_add(kvm,
				     slot->base_gfn + (first - binding->pgoff),
				     slot->base_gfn + (last - binding->pgoff) + 1);
	start = batch->first;
	for_each_set_bitrange_from(start, end, batch->locked, batch->end) {
		first = max(batch->base + start, binding->node.start);
		last = min(batch->base + end - 1, binding->node.last);
		if (first > last)
			continue;
		range.start = slot->base_gfn + (first - binding->pgoff);
		range.end = slot->base_gfn + (last - binding->pgoff) + 1;
		*count += range.end - range.start;
		flush |= protect ? kvm_arch_dmm_protect(kvm, &range) :
				   kvm_arch_dmm_unmap(kvm, &range);
	}
	if (flush)
		kvm_flush_remote_tlbs(kvm);
	kvm_mmu_invalidate_end(kvm);
unlock:
	KVM_MMU_UNLOCK(kvm);
	if (slot && !protect)
		kvm_arch_guest_memory_reclaimed(kvm);
	srcu_read_unlock(&kvm->srcu, idx);
}

/**
 * dmm_invalidate_slots - lower what KVM's page tables have for a batch
 * @batch: the batch
 * @protect: leave the pages readable
 *
 * Context: May sleep.  The entries are busy: a slot that is bound after
 *	@bind_lock was taken here finds them so.
 */
void dmm_invalidate_slots(struct kvm_dmm_batch *batch, bool protect)
{
	struct kvm_dmm_pool *pool = batch->pool;
	struct interval_tree_node *node;
	pgoff_t first, last;

	first = batch->base + batch->first;
	last = batch->base + batch->end - 1;

	down_read(&pool->bind_lock);
	for (node = interval_tree_iter_first(&pool->bindings, first, last);
	     node; node = interval_tree_iter_next(node, first, last))
		dmm_invalidate_slot(batch, protect,
				    container_of(node, struct kvm_dmm_binding,
						 node));
	up_read(&pool->bind_lock);
}

/*
 * Have the vCPU that runs here map more before it goes on, if a policy knows
 * what the guest will want.
 */
static void dmm_want_ahead(struct kvm_dmm_binding *binding, gfn_t gfn)
{
	struct kvm_vcpu *vcpu = kvm_get_running_vcpu();

	if (!vcpu || vcpu->kvm != binding->kvm || vcpu->dmm_ahead)
		return;
	vcpu->dmm_gfn = gfn;
	kvm_make_request(KVM_REQ_DMM_AHEAD, vcpu);
}

/* Where a VM has a page of a file, without dirty logging; or INVALID_GPA. */
static gpa_t dmm_index_to_gpa(struct kvm_dmm_pool *pool, struct kvm_vcpu *vcpu,
			      pgoff_t index)
{
	int as_id = kvm_arch_vcpu_memslots_id(vcpu);
	struct interval_tree_node *node;
	gpa_t gpa = INVALID_GPA;

	down_read(&pool->bind_lock);
	for (node = interval_tree_iter_first(&pool->bindings, index, index);
	     node; node = interval_tree_iter_next(node, index, index)) {
		struct kvm_dmm_binding *binding =
			container_of(node, struct kvm_dmm_binding, node);
		struct kvm_memory_slot *slot;

		if (binding->kvm != vcpu->kvm || binding->as_id != as_id)
			continue;
		slot = dmm_bound_slot(binding);
		if (!slot || kvm_slot_dirty_track_enabled(slot))
			continue;
		gpa = gfn_to_gpa(slot->base_gfn + (index - binding->pgoff));
		break;
	}
	up_read(&pool->bind_lock);
	return gpa;
}

/* A page that has failed is to be reported to who touches it, and to nobody else. */
static bool dmm_ahead_has(struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct kvm_dmm_region *region = dmm_region(pool, index);
	u64 e = region ? READ_ONCE(*dmm_entry(region, index)) : 0;

	return dmm_has_page(e) && !PageHWPoison(dmm_page(e));
}

/**
 * kvm_dmm_ahead - map what a vCPU will touch, as far as a policy knows it
 * @vcpu: the vCPU, about to enter the guest
 *
 * Maps what is a frame when it is looked at.  Where the MMU is not indexed by
 * guest physical addresses, nothing is mapped, but policies have brought the
 * content back.  To find that the slots are others by now does no harm: each
 * page is mapped as by a fault at its address, or not at all.
 *
 * Context: By @vcpu; may sleep.  kvm->srcu is held.
 */
void kvm_dmm_ahead(struct kvm_vcpu *vcpu)
{
	struct kvm_memory_slot *slot;
	pgoff_t list[KVM_DMM_AHEAD_MAX];
	struct kvm_dmm_pool *pool;
	unsigned int i, n;
	gpa_t gpa;

	slot = kvm_vcpu_gfn_to_memslot(vcpu, vcpu->dmm_gfn);
	if (!kvm_slot_is_dmm(slot))
		return;
	pool = dmm_binding_pool(slot->dmm);
	n = dmm_ask_ahead(pool, dmm_gfn_to_index(slot, vcpu->dmm_gfn), list,
			  ARRAY_SIZE(list));

	/* What is mapped here is no reason to map more. */
	vcpu->dmm_ahead = true;
	for (i = 0; i < n; i++) {
		if (!dmm_ahead_has(pool, list[i]))
			continue;
		gpa = dmm_index_to_gpa(pool, vcpu, list[i]);
		if (gpa == INVALID_GPA)
			continue;
		if (!kvm_arch_dmm_map_ahead(vcpu, gpa))
			break;
	}
	vcpu->dmm_ahead = false;
}

/**
 * kvm_dmm_async_pf_flags - how the worker of an asynchronous fault gets the page
 * @apf: the fault
 *
 * What a guest reads stays shared, or kept by a policy.
 *
 * Context: kvm->mm's mmap lock is held.
 * Return: FOLL_WRITE, or 0 for a read of a dmmfs file.
 */
unsigned int kvm_dmm_async_pf_flags(const struct kvm_async_pf *apf)
{
	struct vm_area_struct *vma;

	if (kvm_arch_dmm_async_write(&apf->arch))
		return FOLL_WRITE;
	vma = vma_lookup(apf->vcpu->kvm->mm, apf->addr);
	return vma && vma->vm_ops == &dmm_vm_ops ? 0 : FOLL_WRITE;
}

/**
 * kvm_dmm_async_pf_failed - the worker of an asynchronous fault got no page
 * @apf: the fault
 *
 * Have the next fault there wait and tell, as it is not said that the vCPU looks
 * for the page when this one is over: by then it may run another task.
 *
 * Context: May sleep.
 */
void kvm_dmm_async_pf_failed(const struct kvm_async_pf *apf)
{
	struct kvm *kvm = apf->vcpu->kvm;
	gfn_t gfn = kvm_arch_dmm_async_gfn(&apf->arch);
	int idx = srcu_read_lock(&kvm->srcu);
	struct kvm_dmm_binding *binding;
	struct kvm_memory_slot *slot;

	/* Not by the vCPU's own cache of slots, which is its thread's. */
	slot = __gfn_to_memslot(kvm_vcpu_memslots(apf->vcpu), gfn);
	/* The VM may be on its way out: see kvm_dmm_unbind_all(). */
	binding = slot ? READ_ONCE(slot->dmm) : NULL;
	if (binding)
		WRITE_ONCE(binding->failed,
			   binding->pgoff + (gfn - slot->base_gfn));
	srcu_read_unlock(&kvm->srcu, idx);
}

/**
 * kvm_dmm_gfn_to_pfn - resolve a guest page by the map of its file
 * @slot: a bound slot
 * @gfn: guest frame number in it
 * @atomic: do not sleep
 * @interruptible: any signal ends a wait
 * @async: not NULL: do not wait; set if that would be needed
 * @write: the access writes
 * @writable: set to whether the page may be mapped for writing, or NULL
 *
 * Counts for the vCPU that this thread runs, where nobody else counts.  A worker
 * that resolves an asynchronous page fault has none.
 *
 * Context: As the arguments say.  kvm->srcu is held.
 * Return: The page frame number, with a reference, or a KVM_PFN_ERR_*.
 */
kvm_pfn_t kvm_dmm_gfn_to_pfn(const struct kvm_memory_slot *slot, gfn_t gfn,
			     bool atomic, bool interruptible, bool *async,
			     bool write, bool *writable)
{
	struct kvm_dmm_binding *binding = slot->dmm;
	pgoff_t index = dmm_gfn_to_index(slot, gfn);
	struct kvm_vcpu *vcpu = kvm_get_running_vcpu();
	unsigned int flags = 0;
	bool read_only = false;
	struct page *page;
	bool w;
	int r;

	if (write && !binding->writable)
		return KVM_PFN_ERR_FAULT;
	if (write)
		flags |= DMM_WRITE;
	if (atomic)
		flags |= DMM_ATOMIC;
	/* What has failed is waited for, until a signal comes. */
	if (async)
		flags |= READ_ONCE(binding->failed) == index ? DMM_INTR :
							       DMM_NOWAIT;
	if (interruptible)
		flags |= DMM_INTR;
	/* What is mapped for writing counts as dirty, if it is written or not. */
	if (kvm_slot_dirty_track_enabled(slot)) {
		flags |= DMM_EXACT;
		read_only = !write;
	}

	r = dmm_resolve(dmm_binding_pool(binding), index, flags, &page, &w);
	switch (r) {
	case 0:
		if (vcpu)
			vcpu->stat.generic.dmm_resolved++;
		if (unlikely(READ_ONCE(binding->failed) == index))
			WRITE_ONCE(binding->failed, ULONG_MAX);
		if (unlikely(atomic_read(&dmm_binding_pool(binding)->nr_ahead)))
			dmm_want_ahead(binding, gfn);
		if (writable)
			*writable = w && binding->writable && !read_only;
		return page_to_pfn(page);
	case -EBUSY:
		if (vcpu)
			vcpu->stat.generic.dmm_wait++;
		*async = true;
		return KVM_PFN_ERR_FAULT;
	case -EINTR:
		return KVM_PFN_ERR_SIGPENDING;
	case -EHWPOISON:
		return KVM_PFN_ERR_HWPOISON;
	}
	if (!atomic) {
		if (vcpu)
			vcpu->stat.generic.dmm_failed++;
		WRITE_ONCE(binding->failed, index);
	}
	return KVM_PFN_ERR_FAULT;
}

/**
 * kvm_dmm_mmu_seq - the sequence count by which a fault finds out what changed
 * @kvm: the VM
 * @slot: a bound slot
 * @gfn: guest frame number in it
 * @pfn: what kvm_dmm_gfn_to_pfn() has returned
 * @writable: and whether that may be mapped for writing
 * @seq: kvm->mmu_invalidate_seq as it was before that
 *
 * Copy on write counts, too.  The count may be taken anew, if the entry is read
 * once more after it::
 *
 *	here					change
 *	----					------
 *	a. read seq				1. set busy bit
 *	b. read entry				2. mmu_lock { seq++; zap }
 *	c. mmu_lock { seq is the same:		6. new entry
 *		      install SPTE }
 *
 * If b finds the entry as it was, it was before 1, and so a before 2: c sees
 * another count, or 2 zaps what c has installed.
 *
 * Not where a page may be private: the count stands for that, too.
 *
 * Context: kvm->srcu is held.
 * Return: The count.
 */
unsigned long kvm_dmm_mmu_seq(struct kvm *kvm,
			      const struct kvm_memory_slot *slot, gfn_t gfn,
			      kvm_pfn_t pfn, bool writable, unsigned long seq)
{
	unsigned long now = READ_ONCE(kvm->mmu_invalidate_seq);

	if (likely(now == seq) || kvm_arch_has_private_mem(kvm))
		return seq;
	/* a before b; pairs with the barrier of setting the busy bit. */
	smp_rmb();
	return dmm_allows(dmm_binding_pool(slot->dmm),
			  dmm_gfn_to_index(slot, gfn), pfn_to_page(pfn),
			  writable) ? now : seq;
}

/**
 * kvm_dmm_get_pages - pages that can be mapped for writing at once
 * @slot: a bound slot
 * @gfn: first guest frame number
 * @pages: out: the pages, each with a reference
 * @nr: how many at most, within the slot
 *
 * Context: Any.
 * Return: The number of pages, up to the first that would need work.
 */
int kvm_dmm_get_pages(const struct kvm_memory_slot *slot, gfn_t gfn,
		      struct page **pages, int nr)
{
	struct kvm_dmm_binding *binding = slot->dmm;
	int n;

	if (!binding->writable)
		return 0;
	for (n = 0; n < nr; n++) {
		if (dmm_resolve(dmm_binding_pool(binding),
				dmm_gfn_to_index(slot, gfn + n),
				DMM_WRITE | DMM_ATOMIC, &pages[n], NULL))
			break;
	}
	return n;
}

/**
 * kvm_dmm_map_around - map what is there around a page
 * @slot: a bound slot
 * @gfn: guest frame number that was mapped just now
 * @write: whether it was written: who writes the next one, too, would have to
 *	unmap it first if it were read-only
 * @map: for kvm_arch_dmm_map()
 *
 * What was filled together with the page; around one that was there already, a
 * few neighbours, as shadow paging does.
 *
 * Reads the entries again, without references: what is found may be mapped as
 * long as mmu_lock is held, because whoever lowers an entry zaps under the lock
 * in between:
 *
 *	here					change
 *	----					------
 *	a. mmu_lock {				1. set busy bit
 *	b.   read entry				2. mmu_lock { zap }
 *	c.   install SPTE }			6. new entry, free the frame
 *
 * If c is before 2, the SPTE is zapped in 2.  If a is after 2, then b is after
 * 1 and sees the busy bit, or what came after it.  2 takes the lock for
 * writing, so it is enough to hold it for reading here.  That a shared frame is
 * mapped is noted in b, which fails after 1: dmm_fault_cow() may be without 2.
 *
 * Context: kvm->srcu and kvm->mmu_lock are held.
 */
void kvm_dmm_map_around(const struct kvm_memory_slot *slot, gfn_t gfn,
			bool write, struct kvm_arch_dmm_around *map)
{
	struct kvm_dmm_binding *binding = slot->dmm;
	bool writable = binding->writable && !(slot->flags & KVM_MEM_READONLY);
	struct kvm_dmm_pool *pool = dmm_binding_pool(binding);
	pgoff_t index = dmm_gfn_to_index(slot, gfn);
	struct kvm_dmm_region *region;
	pgoff_t first, last, i;
	u64 *entry, e;

	if (!dmm_filled_around(pool, index, &first, &last)) {
		first = round_down(index, DMM_MAP_AROUND);
		last = first + DMM_MAP_AROUND - 1;
	}
	if (first == last)
		return;
	/* Only what the slot has of it, and what the region has. */
	first = max3(first, binding->node.start,
		     round_down(index, KVM_DMM_REGION_PAGES));
	last = min3(last, binding->node.last,
		    index | (KVM_DMM_REGION_PAGES - 1));
	region = dmm_region(pool, index);
	if (!region)
		return;
	for (i = first; i <= last; i++) {
		entry = dmm_entry(region, i);
		e = READ_ONCE(*entry);
		if (i == index || e & DMM_BUSY ||
		    !(dmm_writable(e) || (!write && dmm_has_page(e))))
			continue;
		if (dmm_mappable(e) || dmm_set_cached(entry, e))
			kvm_arch_dmm_map(map, slot->base_gfn +
					 (i - binding->pgoff), dmm_pfn(e),
					 writable && dmm_writable(e));
	}
}

/**
 * kvm_dmm_is_block - may the 2 MiB around a guest page be mapped at once?
 * @slot: a bound slot
 * @gfn: guest frame number in it
 *
 * Context: kvm->mmu_lock is held if the answer is used for a mapping: whoever
 *	changes one of the entries takes it after making the entry busy, and
 *	before writing the new one.
 * Return: True if all 512 entries are writable frames in a row.
 */
bool kvm_dmm_is_block(const struct kvm_memory_slot *slot, gfn_t gfn)
{
	struct kvm_dmm_pool *pool = dmm_binding_pool(slot->dmm);
	struct kvm_dmm_region *region;

	if (!READ_ONCE(pool->has_blocks) || !slot->dmm->writable)
		return false;
	region = dmm_region(pool, dmm_gfn_to_index(slot, gfn));
	/* Pairs with the release that sets the block. */
	return region && smp_load_acquire(&region->block) &&
	       !atomic_read(&region->deviants);
}

/**
 * kvm_dmm_slot_ugfn - number of the host page behind a slot's first page
 * @slot: a slot, bound or not
 *
 * Guest and host must agree on what 2 MiB are.  For a bound slot the host's are
 * those of the file, wherever the VMM has mapped it.
 *
 * Return: Page offset in the file, or page number of the host address.
 */
unsigned long kvm_dmm_slot_ugfn(const struct kvm_memory_slot *slot)
{
	return slot->dmm ? slot->dmm->pgoff :
			   slot->userspace_addr >> PAGE_SHIFT;
}

#ifdef CONFIG_DEBUG_FS
/**
 * dmm_check_slots - show a check all that guests have mapped of a region
 * @check: the check; it owns all entries of the region
 * @pool: the pool
 * @base: page offset of the region
 *
 * Context: May sleep.
 * Return: As kvm_arch_dmm_walk().
 */
unsigned int dmm_check_slots(struct kvm_dmm_check *check,
			     struct kvm_dmm_pool *pool, pgoff_t base)
{
	pgoff_t end = base + KVM_DMM_REGION_PAGES;
	struct interval_tree_node *node;
	unsigned int lost = 0;
	int idx;

	down_read(&pool->bind_lock);
	for (node = interval_tree_iter_first(&pool->bindings, base, end - 1);
	     node; node = interval_tree_iter_next(node, base, end - 1)) {
		struct kvm_dmm_binding *binding =
			container_of(node, struct kvm_dmm_binding, node);
		pgoff_t first = max(base, node->start);
		struct kvm *kvm = binding->kvm;
		struct kvm_memory_slot *slot;
		gfn_t gfn;

		idx = srcu_read_lock(&kvm->srcu);
		slot = dmm_bound_slot(binding);
		/* What is private is no memory of the file. */
		if (slot && !kvm_slot_can_be_private(slot)) {
			gfn = slot->base_gfn + (first - binding->pgoff);
			KVM_MMU_LOCK(kvm);
			lost += kvm_arch_dmm_walk(kvm, slot, gfn, gfn +
						  (min(end, node->last + 1) -
						   first), check);
			KVM_MMU_UNLOCK(kvm);
		}
		srcu_read_unlock(&kvm->srcu, idx);
	}
	up_read(&pool->bind_lock);
	return lost;
}
#endif

/* Gather which pages of [first, last], in one region, were accessed. */
static void dmm_young(struct kvm_dmm_pool *pool, pgoff_t first, pgoff_t last,
		      bool clear, unsigned long *young)
{
	unsigned int nr = first & (KVM_DMM_REGION_PAGES - 1);
	struct interval_tree_node *node;
	int idx;

	bitmap_zero(young, KVM_DMM_REGION_PAGES);
	down_read(&pool->bind_lock);
	for (node = interval_tree_iter_first(&pool->bindings, first, last);
	     node; node = interval_tree_iter_next(node, first, last)) {
		struct kvm_dmm_binding *binding =
			container_of(node, struct kvm_dmm_binding, node);
		pgoff_t start = max(first, node->start);
		pgoff_t end = min(last, node->last) + 1;
		struct kvm *kvm = binding->kvm;
		struct kvm_memory_slot *slot;
		gfn_t gfn;

		idx = srcu_read_lock(&kvm->srcu);
		slot = dmm_bound_slot(binding);
		if (slot) {
			gfn = slot->base_gfn + (start - binding->pgoff);
			kvm_arch_dmm_young(kvm, slot, gfn, gfn + (end - start),
					   clear, young, nr + start - first);
		}
		srcu_read_unlock(&kvm->srcu, idx);
	}
	up_read(&pool->bind_lock);
}

/**
 * kvm_dmm_young - which pages were accessed since the last call
 * @pool: the pool
 * @base: page offset of a region
 * @young: out: KVM_DMM_REGION_PAGES bits
 *
 * Tests and clears the access bits of all VMs that have the region, in one
 * lock hold for each.  Without a flush of TLBs a page that is in use may look
 * idle once.  Accesses by processes do not count.
 *
 * Context: May sleep.
 * Return: The number of accessed pages.
 */
int kvm_dmm_young(struct kvm_dmm_pool *pool, pgoff_t base, unsigned long *young)
{
	dmm_young(pool, base, base + KVM_DMM_REGION_PAGES - 1, true, young);
	return bitmap_weight(young, KVM_DMM_REGION_PAGES);
}
EXPORT_SYMBOL_GPL(kvm_dmm_young);

/**
 * kvm_dmm_test_young - which pages were accessed, for who only looks
 * @pool: the pool
 * @first: first page offset
 * @last: last page offset, in the same region
 * @young: out: KVM_DMM_REGION_PAGES bits, by place in the region
 *
 * As kvm_dmm_young(), but leaves the access bits to whoever clears them, and
 * counts what a process has mapped, too.
 *
 * Context: May sleep.
 * Return: The number of accessed pages.
 */
int kvm_dmm_test_young(struct kvm_dmm_pool *pool, pgoff_t first, pgoff_t last,
		       unsigned long *young)
{
	struct kvm_dmm_region *region = dmm_region(pool, first);
	unsigned int i = first & (KVM_DMM_REGION_PAGES - 1);
	u64 e;

	dmm_young(pool, first, last, false, young);
	for (; region && first <= last; first++, i++) {
		/* The frame may be freed meanwhile: then the answer is old. */
		e = READ_ONCE(region->entry[i]);
		if (dmm_has_page(e) && page_mapped(dmm_page(e)))
			__set_bit(i, young);
	}
	return bitmap_weight(young, KVM_DMM_REGION_PAGES);
}
EXPORT_SYMBOL_GPL(kvm_dmm_test_young);

/**
 * dmm_is_young - was a page accessed by a guest?
 * @pool: the pool
 * @index: page offset
 *
 * As kvm_dmm_young(), but leaves the access bits.
 *
 * Context: May sleep.
 * Return: True if so.
 */
bool dmm_is_young(struct kvm_dmm_pool *pool, pgoff_t index)
{
	DECLARE_BITMAP(young, KVM_DMM_REGION_PAGES);

	dmm_young(pool, index, index, false, young);
	return test_bit(index & (KVM_DMM_REGION_PAGES - 1), young);
}
