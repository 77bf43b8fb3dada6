// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the file or block device that the swap policy writes
 * pages to.
 *
 * A backing is a number of slots, of a page each.  Pools that are given the same
 * file or device share it.  Who has content in a slot has a struct dmm_slot, with
 * the checksum of the content: what comes back with another one is not that
 * content, whatever the reason.
 */
#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/bvec.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/xxhash.h>

#include <trace/events/kvm_dmm_swap.h>

#include "swap.h"

static DEFINE_SPINLOCK(dmm_backings_lock);
static LIST_HEAD(dmm_backings);		/* protected by dmm_backings_lock */
static struct kmem_cache *dmm_slot_cache;

/* Who has block devices for himself: all pools together. */
static const char dmm_backing_holder[] = "kvm-dmm-swap";

/* Open what a path leads to, with the rights of the caller. */
static struct file *dmm_backing_file(const char *path)
{
	struct file *file = kvm_dmm_open(path, O_RDWR, true), *bdev_file;
	int r = 0;

	if (IS_ERR(file))
		return file;
	if (IS_SWAPFILE(file->f_mapping->host))
		r = -EBUSY;
	else if (d_real_inode(file_dentry(file)) != file_inode(file))
		/* By its layers it could be somebody else's, and is not direct. */
		r = -EINVAL;
	else if (!file->f_op->read_iter || !file->f_op->write_iter)
		r = -EINVAL;
	if (r) {
		fput(file);
		return ERR_PTR(r);
	}
	if (!S_ISBLK(file_inode(file)->i_mode))
		return file;
	/* Not while a file system is on it, nor the other way round. */
	bdev_file = bdev_file_open_by_dev(file_bdev(file)->bd_dev,
					  BLK_OPEN_READ | BLK_OPEN_WRITE,
					  (void *)dmm_backing_holder, NULL);
	fput(file);
	return bdev_file;
}

static void dmm_backing_close(struct file *file)
{
	if (S_ISBLK(file->f_mapping->host->i_mode))
		bdev_fput(file);
	else
		fput(file);
}

static void dmm_backing_free(struct dmm_backing *backing)
{
	if (backing->read_wq)
		destroy_workqueue(backing->read_wq);
	if (backing->write_wq)
		destroy_workqueue(backing->write_wq);
	dmm_backing_close(backing->file);
	kvfree(backing->used);
	kfree(backing);
}

/* Takes @file over, in any case. */
static struct dmm_backing *dmm_backing_create(struct file *file)
{
	struct inode *inode = file->f_mapping->host;
	struct block_device *bdev = S_ISBLK(inode->i_mode) ? I_BDEV(inode) : NULL;
	loff_t nr = i_size_read(inode) >> PAGE_SHIFT;
	struct dmm_backing *backing;
	errseq_t since = 0;

	backing = kzalloc(sizeof(*backing), GFP_KERNEL);
	if (!backing) {
		dmm_backing_close(file);
		return ERR_PTR(-ENOMEM);
	}
	refcount_set(&backing->refs, 1);
	spin_lock_init(&backing->lock);
	INIT_LIST_HEAD(&backing->stores);
	backing->thinned = jiffies - HZ;
	backing->file = file;
	/* What others could not write is nothing to us: see dmm_backing_write(). */
	errseq_check_and_advance(&file->f_mapping->wb_err, &since);
	backing->direct = file->f_mode & FMODE_CAN_ODIRECT;
	backing->stable = bdev ? bdev_stable_writes(bdev) :
				 mapping_stable_writes(file->f_mapping);
	/* Each slot is a reference, of which there can be 31 bits; stores are others. */
	backing->nr = min_t(u64, nr, INT_MAX - U16_MAX);
	if (!backing->nr) {
		dmm_backing_free(backing);
		return ERR_PTR(-EINVAL);
	}
	backing->used = kvcalloc(BITS_TO_LONGS(backing->nr), sizeof(long),
				 GFP_KERNEL);
	/*
	 * One device that does not answer must not stop others, and nobody
	 * waits for a write as a guest waits for a read.
	 */
	backing->read_wq = alloc_workqueue("kvm_dmm_swap_read", WQ_UNBOUND |
					   WQ_MEM_RECLAIM | WQ_HIGHPRI,
					   DMM_READ_DEPTH);
	backing->write_wq = alloc_workqueue("kvm_dmm_swap_write", WQ_UNBOUND |
					    WQ_MEM_RECLAIM, DMM_WRITE_DEPTH);
	if (!backing->used || !backing->read_wq || !backing->write_wq) {
		dmm_backing_free(backing);
		return ERR_PTR(-ENOMEM);
	}
	return backing;
}

/* The backing with this file, or @new, which is made known then. */
static struct dmm_backing *dmm_backing_find(struct file *file,
					    struct dmm_backing *new)
{
	struct dmm_backing *backing;

	spin_lock(&dmm_backings_lock);
	list_for_each_entry(backing, &dmm_backings, link) {
		if (backing->file->f_mapping == file->f_mapping) {
			refcount_inc(&backing->refs);
			goto unlock;
		}
	}
	backing = new;
	if (new)
		list_add(&new->link, &dmm_backings);
unlock:
	spin_unlock(&dmm_backings_lock);
	return backing;
}

/**
 * dmm_backing_open - use a file or block device
 * @path: its path, for the caller
 *
 * Context: May sleep.  No lock is held that is needed to make a file.
 * Return: The backing, with a reference; -EISDIR: it is a directory; -EINVAL: it
 *	is neither file nor block device, cannot be read and written, is in a
 *	file system with layers, or is smaller than a page; -ELOOP: it is in
 *	dmmfs; -EBUSY: somebody else has the device for himself, or the host swaps
 *	to the file; -ENOMEM; or an error of open().
 */
struct dmm_backing *dmm_backing_open(const char *path)
{
	struct file *file = dmm_backing_file(path);
	struct dmm_backing *backing, *new;

	if (IS_ERR(file))
		return ERR_CAST(file);
	backing = dmm_backing_find(file, NULL);
	if (backing) {
		dmm_backing_close(file);
		return backing;
	}
	new = dmm_backing_create(file);
	if (IS_ERR(new))
		return new;
	backing = dmm_backing_find(file, new);
	if (backing != new)
		dmm_backing_free(new);
	return backing;
}

/**
 * dmm_backing_put - use a backing no longer
 * @backing: the backing, or NULL
 *
 * Context: May sleep; not in its workqueues, if this may be the last reference.
 */
void dmm_backing_put(struct dmm_backing *backing)
{
	if (!backing ||
	    !refcount_dec_and_lock(&backing->refs, &dmm_backings_lock))
		return;
	list_del(&backing->link);
	spin_unlock(&dmm_backings_lock);
	WARN_ON_ONCE(backing->nr_used);
	dmm_backing_free(backing);
}

/* Slots among which a row of free ones is looked for: that takes microseconds. */
#define DMM_BACKING_RANGE	4096UL

/**
 * dmm_backing_alloc - get slots in a row
 * @backing: the backing
 * @max: how many at most
 * @first: out: the first of them
 *
 * If there is no row as long as that nearby, the next free ones are taken: where
 * a backing is in pieces, to search all of it each time would find none.
 *
 * Context: Any.
 * Return: Their number; 0: all are in use.
 */
unsigned int dmm_backing_alloc(struct dmm_backing *backing, unsigned int max,
			       u32 *first)
{
	unsigned long at, end, limit;
	unsigned int n = 0;

	spin_lock(&backing->lock);
	if (backing->nr_used == backing->nr)
		goto unlock;
	limit = min(backing->next + DMM_BACKING_RANGE, backing->nr);
	at = bitmap_find_next_zero_area(backing->used, limit, backing->next,
					max, 0);
	if (at >= limit)
		at = find_next_zero_bit(backing->used, backing->nr,
					backing->next);
	if (at >= backing->nr)
		at = find_first_zero_bit(backing->used, backing->nr);
	end = find_next_bit(backing->used, min(backing->nr, at + max), at);
	n = end - at;
	bitmap_set(backing->used, at, n);
	backing->nr_used += n;
	backing->next = end;
	*first = at;
unlock:
	spin_unlock(&backing->lock);
	return n;
}

/**
 * dmm_backing_release - give slots back
 * @backing: the backing
 * @first: the first of them
 * @n: their number
 *
 * Context: Any.
 */
void dmm_backing_release(struct dmm_backing *backing, u32 first, unsigned int n)
{
	if (!n)
		return;
	spin_lock(&backing->lock);
	bitmap_clear(backing->used, first, n);
	backing->nr_used -= n;
	spin_unlock(&backing->lock);
}

/**
 * dmm_backing_row - slots in a row that have content
 * @backing: the backing
 * @first: the first of them, which has
 * @max: how many are of interest
 *
 * Context: Any.
 * Return: Their number, 1 to @max; it may be old when the caller reads it.
 */
unsigned int dmm_backing_row(struct dmm_backing *backing, u32 first,
			     unsigned int max)
{
	unsigned long end = min((unsigned long)first + max, backing->nr);

	return find_next_zero_bit(backing->used, end, first + 1) - first;
}

/**
 * dmm_backing_crowded - is little room left?
 * @backing: the backing
 *
 * Context: Any.
 * Return: True if more than three quarters of the slots are in use.
 */
bool dmm_backing_crowded(struct dmm_backing *backing)
{
	return READ_ONCE(backing->nr_used) > backing->nr - backing->nr / 4;
}

/**
 * dmm_backing_wants_room - should copies of resident pages go?
 * @backing: a backing that was crowded
 *
 * Context: Any.
 * Return: True if more than five eighths of the slots are in use.
 */
bool dmm_backing_wants_room(struct dmm_backing *backing)
{
	return READ_ONCE(backing->nr_used) > backing->nr - backing->nr / 8 * 3;
}

static ssize_t dmm_backing_try(struct dmm_backing *backing, bool write,
			       bool direct, struct bio_vec *bvec,
			       unsigned int n, u32 first)
{
	struct file *file = backing->file;
	struct iov_iter iter;
	struct kiocb iocb;

	init_sync_kiocb(&iocb, file);
	iocb.ki_pos = (loff_t)first << PAGE_SHIFT;
	if (direct)
		iocb.ki_flags |= IOCB_DIRECT;
	else if (write)
		/* Or nobody would tell us that it could not be written. */
		iocb.ki_flags |= IOCB_DSYNC;
	iov_iter_bvec(&iter, write ? ITER_SOURCE : ITER_DEST, bvec, n,
		      (size_t)n << PAGE_SHIFT);
	return write ? vfs_iocb_iter_write(file, &iocb, &iter) :
		       vfs_iocb_iter_read(file, &iocb, &iter);
}

/* Of files there are those that write by the page cache what is direct, too. */
static bool dmm_backing_cached(struct dmm_backing *backing)
{
	struct address_space *mapping = backing->file->f_mapping;

	return S_ISREG(mapping->host->i_mode) && mapping->nrpages;
}

/*
 * The page cache tells one error once for each file, but several workers write: an
 * error since this one began may be its own.
 */
static ssize_t dmm_backing_write(struct dmm_backing *backing, bool direct,
				 struct bio_vec *bvec, unsigned int n, u32 first)
{
	struct address_space *mapping = backing->file->f_mapping;
	loff_t start = (loff_t)first << PAGE_SHIFT;
	loff_t end = start + ((loff_t)n << PAGE_SHIFT) - 1;
	errseq_t since = filemap_sample_wb_err(mapping);
	int error = 0;
	ssize_t r;

	r = dmm_backing_try(backing, true, direct, bvec, n, first);
	if (r < 0)
		return r;
	/* What was to be direct may be in the page cache nevertheless. */
	if (direct && dmm_backing_cached(backing))
		error = file_write_and_wait_range(backing->file, start, end);
	/* Seen from now on: it would be everybody's otherwise. */
	return error ?: errseq_check_and_advance(&mapping->wb_err, &since) ?: r;
}

/**
 * dmm_backing_io - write or read slots in a row
 * @backing: the backing
 * @write: whether to write
 * @bvec: the pages
 * @n: their number
 * @first: the first slot
 *
 * Direct I/O where the file can do it; otherwise what the page cache has of it
 * is dropped again.
 *
 * Context: May sleep until the device has done it.
 * Return: 0; -ENOSPC: not all could be written; -EIO: not all could be read; or
 *	the error of the file.
 */
int dmm_backing_io(struct dmm_backing *backing, bool write,
		   struct bio_vec *bvec, unsigned int n, u32 first)
{
	bool direct = READ_ONCE(backing->direct);
	unsigned int noio = memalloc_noio_save();
	u64 start = ktime_get_ns();
	ssize_t r;

again:
	r = write ? dmm_backing_write(backing, direct, bvec, n, first) :
		    dmm_backing_try(backing, false, direct, bvec, n, first);
	if (r == -EINVAL && direct) {
		/* Pages are too small for it. */
		direct = false;
		goto again;
	}
	if (r >= 0 && !direct)
		WRITE_ONCE(backing->direct, false);
	if (!direct || dmm_backing_cached(backing))
		invalidate_mapping_pages(backing->file->f_mapping, first,
					 (pgoff_t)first + n - 1);
	memalloc_noio_restore(noio);
	if (r >= 0)
		r = r == (ssize_t)n << PAGE_SHIFT ? 0 : write ? -ENOSPC : -EIO;
	WRITE_ONCE(backing->failing, r);
	trace_kvm_dmm_swap_io(write, first, n, ktime_get_ns() - start, r);
	return r;
}

/*
 * Writes to all backings that are done.  A read that began later has what they have
 * written; of an earlier one the checksum does not tell: guests can make pages that
 * have the same::
 *
 *	write				read
 *	-----				----
 *	1. the device has done it	a. began = clock
 *	2. written = ++clock		b. queue it
 *	3. token
 *
 * If began is not before written, a is behind 2, and so b is behind 1: the increment
 * and the queueing are barriers.  Nobody looks at written before 3.
 */
atomic64_t dmm_slot_clock;

/**
 * dmm_slot_checksum - checksum of the content of a slot
 * @nr: the slot
 * @page: the content
 *
 * The same content has another one in another slot.
 *
 * Context: Any.
 * Return: The checksum, xxh64 of the page.
 */
u64 dmm_slot_checksum(u32 nr, struct page *page)
{
	void *kaddr = kmap_local_page(page);
	u64 csum = xxh64(kaddr, PAGE_SIZE, nr);

	kunmap_local(kaddr);
	return csum;
}

/**
 * dmm_slot_create - have content in a slot
 * @backing: the backing
 * @nr: a slot from dmm_backing_alloc(), taken over if this succeeds
 * @csum: checksum of the content
 *
 * Context: May sleep.
 * Return: The slot, with a reference; NULL without memory.
 */
struct dmm_slot *dmm_slot_create(struct dmm_backing *backing, u32 nr, u64 csum)
{
	struct dmm_slot *slot = kmem_cache_alloc(dmm_slot_cache, DMM_SWAP_GFP);

	if (!slot)
		return NULL;
	refcount_inc(&backing->refs);
	slot->backing = backing;
	slot->nr = nr;
	slot->csum = csum;
	refcount_set(&slot->refs, 1);
	return slot;
}

/**
 * dmm_slot_put - need content of a slot no longer
 * @slot: the slot
 *
 * Context: As dmm_backing_put().
 */
void dmm_slot_put(struct dmm_slot *slot)
{
	if (!refcount_dec_and_test(&slot->refs))
		return;
	dmm_backing_release(slot->backing, slot->nr, 1);
	dmm_backing_put(slot->backing);
	kmem_cache_free(dmm_slot_cache, slot);
}

/**
 * dmm_backing_path - print the path of a backing
 * @backing: the backing, or NULL
 * @buf: a page
 *
 * Context: May sleep.
 * Return: Length, or -ENAMETOOLONG.
 */
ssize_t dmm_backing_path(struct dmm_backing *backing, char *buf)
{
	char *path;
	size_t len;

	if (!backing)
		return sysfs_emit(buf, "none\n");
	if (S_ISBLK(backing->file->f_mapping->host->i_mode))
		return sysfs_emit(buf, "/dev/%pg\n", file_bdev(backing->file));
	path = file_path(backing->file, buf, PAGE_SIZE - 1);
	if (IS_ERR(path))
		return PTR_ERR(path);
	len = strlen(path);
	memmove(buf, path, len);
	buf[len++] = '\n';
	return len;
}

int dmm_backing_module_init(void)
{
	dmm_slot_cache = KMEM_CACHE(dmm_slot, 0);
	return dmm_slot_cache ? 0 : -ENOMEM;
}

void dmm_backing_module_exit(void)
{
	kmem_cache_destroy(dmm_slot_cache);
}
