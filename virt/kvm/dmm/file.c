// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: what processes do with a file of dmmfs.
 */
#include <linux/fadvise.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/highmem.h>
#include <linux/kvm_host.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/pagemap.h>
#include <linux/uio.h>

#include "dmm.h"

static struct kvm_dmm_pool *dmm_file_pool(struct file *file)
{
	return dmm_pool(file_inode(file));
}

/*
 * Wait for the page of a fault without the lock of the address space.  The next
 * try finds what came in, or the error that this one has no way to tell; the
 * kernel looks for signals in between.  To mlock() each try is the first one, so
 * it is noted here.  There is one note: another fault on the page may take it, and
 * one that fails elsewhere write over it.  Then there is one more try, which leaves
 * a note again; and who finds one that is old waits with the lock held.
 */
static vm_fault_t dmm_vm_wait(struct vm_fault *vmf, unsigned int flags)
{
	struct file *file = get_file(vmf->vma->vm_file);
	struct kvm_dmm_pool *pool = dmm_file_pool(file);
	struct page *page;
	int r;

	release_fault_lock(vmf);
	r = dmm_resolve(pool, vmf->pgoff, flags, &page, NULL);
	if (!r)
		put_page(page);
	else if (r != -EINTR)
		WRITE_ONCE(pool->vm_failed, vmf->pgoff);
	fput(file);
	return VM_FAULT_RETRY;
}

/* Does a fault for reading lock the page of zeros where a frame is to be? */
static bool dmm_vm_locks_zero(struct vm_fault *vmf, struct kvm_dmm_pool *pool,
			      unsigned int flags)
{
	vm_flags_t locked = VM_LOCKED | VM_WRITE;

	return (vmf->vma->vm_flags & locked) == locked &&
	       !(flags & DMM_WRITE) &&
	       kvm_dmm_peek(pool, vmf->pgoff, NULL) == KVM_DMM_ABSENT;
}

static bool dmm_many_refs(struct page *page)
{
	return (unsigned int)page_ref_count(page) > INT_MAX / 2;
}

/* Find the page of a fault; see change.c why it is returned locked. */
static vm_fault_t __dmm_vm_resolve(struct vm_fault *vmf, unsigned int flags,
				   struct page **pagep)
{
	struct kvm_dmm_pool *pool = dmm_file_pool(vmf->vma->vm_file);
	struct page *page;
	vm_fault_t ret;
	int r;

	/*
	 * The frame that a write would bring.  If it cannot be had at once the page
	 * of zeros has to do: mlock() goes on for ever where a fault is to be tried
	 * again and fails again.
	 */
	if (dmm_vm_locks_zero(vmf, pool, flags) &&
	    !dmm_resolve(pool, vmf->pgoff, flags | DMM_WRITE | DMM_EXACT |
			 DMM_NOWAIT, &page, NULL))
		put_page(page);

	r = dmm_resolve(pool, vmf->pgoff, flags | DMM_NOWAIT, &page, NULL);
	if (r == -EBUSY) {
		if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT)
			return VM_FAULT_RETRY;
		if (READ_ONCE(pool->vm_failed) == vmf->pgoff) {
			WRITE_ONCE(pool->vm_failed, ULONG_MAX);
		} else if (fault_flag_allow_retry_first(vmf->flags)) {
			if (vmf->flags & FAULT_FLAG_INTERRUPTIBLE)
				flags |= DMM_INTR;
			return dmm_vm_wait(vmf, flags);
		} else if (vmf->flags & FAULT_FLAG_MKWRITE) {
			/*
			 * The lock cannot be dropped from here.  With nothing
			 * mapped, the access comes back as a fault that may.
			 * If somebody reads in between, it comes here again.
			 */
			unmap_mapping_pages(vmf->vma->vm_file->f_mapping,
					    vmf->pgoff, 1, false);
			return VM_FAULT_NOPAGE;
		}
		/*
		 * The last try.  Only a fatal signal ends it: the kernel may
		 * be copying, and would fault again for ever.
		 */
		r = dmm_resolve(pool, vmf->pgoff, flags, &page, NULL);
	}
	if (r == -EHWPOISON)
		return VM_FAULT_HWPOISON;
	/* Not VM_FAULT_OOM: it would call the OOM killer; see DMM_GFP. */
	if (r)
		return VM_FAULT_SIGBUS;

	lock_page(page);
	/*
	 * It has failed since dmm_resolve() has looked.  The kernel would take it
	 * out of the page cache, where it is not.
	 */
	if (unlikely(PageHWPoison(page))) {
		ret = VM_FAULT_HWPOISON;
		goto put;
	}
	if (!dmm_current(pool, vmf->pgoff, page, flags & DMM_WRITE)) {
		ret = VM_FAULT_NOPAGE;
		goto put;
	}
	/*
	 * Each place where a process has the page of zeros, or a shared frame, is a
	 * reference, of which there can be 31 bits.
	 */
	if (unlikely(dmm_many_refs(page))) {
		unlock_page(page);
		/* Of zeros there is another place for each page of a large file. */
		if (page == pool->zero)
			unmap_mapping_pages(pool->inode.i_mapping, 0, 0, false);
		ret = dmm_many_refs(page) ? VM_FAULT_SIGBUS : VM_FAULT_NOPAGE;
		put_page(page);
		return ret;
	}
	*pagep = page;
	return VM_FAULT_LOCKED;
put:
	unlock_page(page);
	put_page(page);
	return ret;
}

/* Who is a process, and who pays? */
static vm_fault_t dmm_vm_resolve(struct vm_fault *vmf, bool write,
				 struct page **pagep)
{
	struct kvm_vcpu *vcpu = kvm_get_running_vcpu();
	unsigned int flags = write ? DMM_WRITE : 0;
	struct mem_cgroup *memcg, *old;
	vm_fault_t ret;

	/* KVM walks the page tables of its guest, or emulates it. */
	if (vcpu && vcpu->kvm->mm == vmf->vma->vm_mm)
		return __dmm_vm_resolve(vmf, flags, pagep);
	if (!(current->flags & PF_KTHREAD))
		return __dmm_vm_resolve(vmf, flags | DMM_PROCESS, pagep);
	/*
	 * The worker of an asynchronous page fault accesses memory for a guest, and
	 * has no control group: its VMM's pays.
	 */
	memcg = get_mem_cgroup_from_mm(vmf->vma->vm_mm);
	old = set_active_memcg(memcg);
	ret = __dmm_vm_resolve(vmf, flags, pagep);
	set_active_memcg(old);
	mem_cgroup_put(memcg);
	return ret;
}

static vm_fault_t dmm_vm_fault(struct vm_fault *vmf)
{
	return dmm_vm_resolve(vmf, vmf->flags & FAULT_FLAG_WRITE, &vmf->page);
}

/* Write to a page that is mapped read-only. */
static vm_fault_t dmm_vm_page_mkwrite(struct vm_fault *vmf)
{
	struct page *page;
	vm_fault_t ret;

	/* The kernel leaves this to those who have this function. */
	file_update_time(vmf->vma->vm_file);
	ret = dmm_vm_resolve(vmf, true, &page);
	if (ret != VM_FAULT_LOCKED)
		return ret;
	/*
	 * With another page than what is mapped, the mapping was taken away:
	 * let the access fault again.
	 */
	if (page != vmf->page) {
		unlock_page(page);
		ret = VM_FAULT_NOPAGE;
	}
	put_page(page);
	return ret;
}

const struct vm_operations_struct dmm_vm_ops = {
	.fault = dmm_vm_fault,
	.page_mkwrite = dmm_vm_page_mkwrite,
};

const struct address_space_operations dmm_aops = {
	.dirty_folio = noop_dirty_folio,
};

static int dmm_mmap(struct file *file, struct vm_area_struct *vma)
{
	/* A private copy would leave the map, and with it the guest. */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff + vma_pages(vma) > dmm_pages(dmm_file_pool(file)))
		return -EINVAL;
	file_accessed(file);
	vma->vm_ops = &dmm_vm_ops;
	return 0;
}

/*
 * Nothing was done: begin again behind a signal, unless its handler says no.  At the
 * limit the wait for room would begin again, too, which has an end otherwise.
 */
static int dmm_io_errno(struct kvm_dmm_pool *pool, int r)
{
	if (r == -EINTR && dmm_used(pool) < dmm_max(pool))
		return -ERESTARTSYS;
	return dmm_intr_errno(dmm_failed_errno(r));
}

static ssize_t dmm_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct kvm_dmm_pool *pool = dmm_file_pool(iocb->ki_filp);
	ssize_t done = 0;
	int r = 0;

	while (iov_iter_count(to)) {
		loff_t left = i_size_read(&pool->inode) - iocb->ki_pos;
		size_t offset = offset_in_page(iocb->ki_pos);
		struct page *page;
		size_t n, copied;

		if (left <= 0)
			break;
		n = min3((size_t)(PAGE_SIZE - offset), iov_iter_count(to),
			 (size_t)min_t(loff_t, left, PAGE_SIZE));
		r = dmm_resolve(pool, iocb->ki_pos >> PAGE_SHIFT,
				DMM_PEEK | DMM_INTR | DMM_PROCESS, &page, NULL);
		if (r) {
			/* Made smaller meanwhile: this is the end. */
			if (iocb->ki_pos >= i_size_read(&pool->inode))
				r = 0;
			break;
		}
		if (page) {
			copied = copy_page_to_iter(page, offset, n, to);
			put_page(page);
		} else {
			copied = iov_iter_zero(n, to);
		}
		done += copied;
		iocb->ki_pos += copied;
		if (copied < n) {
			r = -EFAULT;
			break;
		}
		cond_resched();
	}
	file_accessed(iocb->ki_filp);
	return done ?: dmm_io_errno(pool, r);
}

/* As a file system says it that is full. */
static int dmm_write_errno(struct kvm_dmm_pool *pool, int r)
{
	return r == -ENOMEM ? -ENOSPC : dmm_io_errno(pool, r);
}

static ssize_t dmm_write(struct kvm_dmm_pool *pool, struct kiocb *iocb,
			 struct iov_iter *from)
{
	ssize_t done = 0;
	int r = 0;

	while (iov_iter_count(from)) {
		size_t offset = offset_in_page(iocb->ki_pos);
		size_t n = min(PAGE_SIZE - offset, iov_iter_count(from));
		struct page *page;
		size_t copied;

		r = dmm_resolve(pool, iocb->ki_pos >> PAGE_SHIFT,
				DMM_WRITE | DMM_EXACT | DMM_INTR, &page, NULL);
		if (r)
			break;
		copied = copy_page_from_iter(page, offset, n, from);
		put_page(page);
		done += copied;
		iocb->ki_pos += copied;
		if (copied < n) {
			r = -EFAULT;
			break;
		}
		cond_resched();
	}
	return done ?: dmm_write_errno(pool, r);
}

/* Where the last page of a file ends; the last of all has no end. */
static loff_t dmm_last_end(loff_t size)
{
	return size > MAX_LFS_FILESIZE - PAGE_SIZE ? MAX_LFS_FILESIZE :
	       round_up(size, PAGE_SIZE);
}

/* Make a file end at @size, whatever the rest of the last page is. */
static void dmm_cut(struct kvm_dmm_pool *pool, loff_t size)
{
	struct inode *inode = &pool->inode;

	/* Before the walk: see dmm_fault_lock(). */
	i_size_write(inode, size);
	unmap_mapping_range(inode->i_mapping, dmm_last_end(size), 0, 1);
	dmm_drop_range(pool, DIV_ROUND_UP_ULL(size, PAGE_SIZE), ULONG_MAX);
}

static ssize_t dmm_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	struct kvm_dmm_pool *pool = dmm_pool(inode);
	loff_t end, size;
	ssize_t r;

	inode_lock(inode);
	r = generic_write_checks(iocb, from);
	if (r <= 0)
		goto unlock;
	r = file_modified(iocb->ki_filp);
	if (r)
		goto unlock;
	size = i_size_read(inode);
	end = iocb->ki_pos + iov_iter_count(from);
	if (end > size) {
		r = dmm_set_size(pool, end);
		if (r) {
			/* What was filled is given back: not again and again. */
			r = r == -EINTR ? dmm_intr_errno(r) :
			    dmm_write_errno(pool, r);
			goto unlock;
		}
	}
	r = dmm_write(pool, iocb, from);
	/* Nothing behind what was written. */
	if (end > size && iocb->ki_pos < end)
		dmm_cut(pool, r > 0 ? max(size, iocb->ki_pos) : size);
unlock:
	inode_unlock(inode);
	return r;
}

/*
 * Is there nothing?  An entry that is busy is about to have something, or is in
 * the middle of a change of what it has.
 */
static bool dmm_is_hole(struct kvm_dmm_pool *pool, pgoff_t index)
{
	struct kvm_dmm_region *region = dmm_region(pool, index);

	return !region || !(READ_ONCE(*dmm_entry(region, index)) & ~DMM_CACHED);
}

/* Zero a part of a page, if it has anything. */
static int dmm_zero_part(struct kvm_dmm_pool *pool, loff_t start, loff_t end)
{
	pgoff_t index = start >> PAGE_SHIFT;
	struct page *page;
	int r;

	if (start >= end ||
	    (dmm_is_hole(pool, index) && !READ_ONCE(pool->nr_fillers)))
		return 0;
	r = dmm_resolve(pool, index, DMM_WRITE | DMM_INTR, &page, NULL);
	if (r)
		return r;
	memzero_page(page, offset_in_page(start), end - start);
	put_page(page);
	return 0;
}

/* Make [start, end) read as zero. */
static int dmm_zero_range(struct kvm_dmm_pool *pool, loff_t start, loff_t end)
{
	loff_t first = round_up(start, PAGE_SIZE);
	loff_t last = round_down(end, PAGE_SIZE);
	int r;

	if (start >= end)
		return 0;
	/* All in one page.  Of the last of all the end cannot be told. */
	if (start >> PAGE_SHIFT == (end - 1) >> PAGE_SHIFT &&
	    (offset_in_page(start) || offset_in_page(end)))
		return dmm_zero_part(pool, start, end);
	r = dmm_zero_part(pool, start, first) ?:
	    dmm_zero_part(pool, last, end);
	if (!r && first < last)
		dmm_drop_range(pool, first >> PAGE_SHIFT,
			       (last >> PAGE_SHIFT) - 1);
	return r;
}

/**
 * dmm_set_size - make a file larger or smaller
 * @pool: the pool; its inode is locked
 * @size: the new size in bytes
 *
 * Context: May sleep.
 * Return: 0; -ENOSPC, -ENOMEM, -EINTR: a static pool cannot be filled, and
 *	keeps its size; or the error of a policy: the last page that stays cannot
 *	be had, to zero what is behind the end.
 */
int dmm_set_size(struct kvm_dmm_pool *pool, loff_t size)
{
	struct inode *inode = &pool->inode;
	loff_t old = i_size_read(inode);
	int r;

	if (size < old) {
		r = dmm_zero_part(pool, size, dmm_last_end(size));
		/* Of a page that has failed nobody reads the rest, either. */
		if (r && r != -EHWPOISON)
			return r;
		dmm_cut(pool, size);
	} else {
		i_size_write(inode, size);
	}
	if (size > old && !READ_ONCE(pool->nr_lazy)) {
		r = dmm_populate(pool, old >> PAGE_SHIFT,
				 (size - 1) >> PAGE_SHIFT);
		if (r) {
			dmm_cut(pool, old);
			return r;
		}
	}
	inode_set_mtime_to_ts(inode, inode_set_ctime_current(inode));
	return 0;
}

static long dmm_fallocate(struct file *file, int mode, loff_t offset,
			  loff_t len)
{
	struct inode *inode = file_inode(file);
	struct kvm_dmm_pool *pool = dmm_pool(inode);
	loff_t size, end = offset + len;
	long r;

	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE |
		     FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;

	inode_lock(inode);
	size = i_size_read(inode);
	/* The times follow, at the end. */
	r = file_remove_privs(file);
	if (r)
		goto unlock;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > size) {
		r = inode_newsize_ok(inode, end) ?: dmm_set_size(pool, end);
		if (r)
			goto unlock;
	}
	/* Nothing lies behind the end of the file. */
	end = min(end, dmm_last_end(i_size_read(inode)));
	r = 0;
	if (offset >= end)
		goto unlock;
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		r = dmm_full_errno(pool, dmm_zero_range(pool, offset, end));
	if (!r && !(mode & FALLOC_FL_PUNCH_HOLE))
		r = dmm_populate(pool, offset >> PAGE_SHIFT,
				 (end - 1) >> PAGE_SHIFT);
	/* As large as it was, with nothing more than it had. */
	if (r && i_size_read(inode) > size)
		dmm_cut(pool, size);
	inode_set_mtime_to_ts(inode, inode_set_ctime_current(inode));
unlock:
	inode_unlock(inode);
	return dmm_intr_errno(r);
}

/* First offset at or after @offset that has data, or that has none. */
static loff_t dmm_seek(struct kvm_dmm_pool *pool, loff_t offset, bool data)
{
	loff_t size = i_size_read(&pool->inode);
	pgoff_t index, next;

	if (offset < 0 || offset >= size)
		return -ENXIO;
	for (index = offset >> PAGE_SHIFT; index < dmm_pages(pool); index++) {
		if (!dmm_region(pool, index)) {
			if (!data)
				break;
			next = index;
			if (!kvm_dmm_next_region(pool, &next, ULONG_MAX))
				return -ENXIO;
			index = next;
		}
		if (dmm_is_hole(pool, index) != data)
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	if (index >= dmm_pages(pool))
		return data ? -ENXIO : size;
	return clamp((loff_t)index << PAGE_SHIFT, offset, size);
}

static loff_t dmm_llseek(struct file *file, loff_t offset, int whence)
{
	struct inode *inode = file_inode(file);

	if (whence == SEEK_DATA || whence == SEEK_HOLE) {
		inode_lock_shared(inode);
		offset = dmm_seek(dmm_pool(inode), offset, whence == SEEK_DATA);
		inode_unlock_shared(inode);
		return offset < 0 ? offset :
			vfs_setpos(file, offset, inode->i_sb->s_maxbytes);
	}
	return generic_file_llseek(file, offset, whence);
}

/* Bring back what policies keep of a range. */
static int dmm_willneed(struct kvm_dmm_pool *pool, pgoff_t first, pgoff_t last)
{
	pgoff_t index = first;
	struct page *page;
	int r;

	while (kvm_dmm_next_region(pool, &index, last)) {
		do {
			if (kvm_dmm_peek(pool, index, NULL) == KVM_DMM_TOKEN) {
				r = dmm_resolve(pool, index, DMM_INTR, &page,
						NULL);
				/* The file has become smaller meanwhile. */
				if (r == -EFAULT && index >= dmm_pages(pool))
					return 0;
				if (r)
					return dmm_io_errno(pool, r);
				put_page(page);
			}
		} while (index++ < last &&
			 !IS_ALIGNED(index, KVM_DMM_REGION_PAGES));
		cond_resched();
	}
	return 0;
}

static int dmm_fadvise(struct file *file, loff_t offset, loff_t len, int advice)
{
	struct kvm_dmm_pool *pool = dmm_file_pool(file);
	pgoff_t first, last;
	bool there;

	if (offset < 0 || len < 0)
		return -EINVAL;
	/* No length: to the end of the file. */
	if (!len || offset + len < offset)
		len = LLONG_MAX - offset;
	first = offset >> PAGE_SHIFT;
	last = min_t(pgoff_t, (offset + len - 1) >> PAGE_SHIFT,
		     dmm_pages(pool) - 1);
	there = dmm_pages(pool) && first <= last;

	switch (advice) {
	case POSIX_FADV_WILLNEED:
		return there ? dmm_willneed(pool, first, last) : 0;
	case POSIX_FADV_DONTNEED:
		/* It slows the guest down: not for who may only read. */
		if (!(file->f_mode & FMODE_WRITE))
			return -EPERM;
		if (there)
			dmm_reclaim(pool, last - first + 1, first, last,
				    KVM_DMM_RECLAIM_ADVICE);
		return 0;
	case POSIX_FADV_NORMAL:
	case POSIX_FADV_RANDOM:
	case POSIX_FADV_SEQUENTIAL:
	case POSIX_FADV_NOREUSE:
		return 0;
	}
	return -EINVAL;
}

const struct file_operations dmm_file_operations = {
	.llseek = dmm_llseek,
	.read_iter = dmm_read_iter,
	.write_iter = dmm_write_iter,
	.mmap = dmm_mmap,
	.fsync = noop_fsync,
	.splice_read = copy_splice_read,
	.splice_write = iter_file_splice_write,
	.fallocate = dmm_fallocate,
	.fadvise = dmm_fadvise,
	.remap_file_range = dmm_remap_file_range,
};
