// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: reading the image that a guest is restored from.
 *
 * Pages are copied out of the image's page cache, as a fault on a mapping of
 * the image would find them: without the locks that read() takes in some file
 * systems, since whoever touches guest memory may be in write() to that file.
 */
#include <linux/fadvise.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/kvm_dmm.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/shmem_fs.h>

#include "restore.h"

/* Pages of a file, none for a last part of one. */
static pgoff_t dmm_image_pages(struct file *image)
{
	return i_size_read(file_inode(image)) >> PAGE_SHIFT;
}

/**
 * dmm_image_open - open an image with the rights of the caller
 * @path: its path
 * @pages: size that it must have
 *
 * Return: The file; -EINVAL: it is smaller than @pages, or nothing that can be
 *	read in the kernel; -EFBIG: it is larger; or as kvm_dmm_open().
 */
struct file *dmm_image_open(const char *path, pgoff_t pages)
{
	struct file *image = kvm_dmm_open(path, O_RDONLY, false);
	loff_t size;
	int r = 0;

	if (IS_ERR(image))
		return image;
	size = i_size_read(file_inode(image));
	if (size > (loff_t)pages << PAGE_SHIFT)
		r = -EFBIG;
	else if (!pages || size < (loff_t)pages << PAGE_SHIFT ||
		 !image->f_op->read_iter || image->f_op->read)
		r = -EINVAL;
	if (!r)
		return image;
	fput(image);
	return ERR_PTR(r);
}

/*
 * The folio with a page of the image, read in if need be.  Where a control group or
 * the host has no memory for it, the access fails like one that gets no frame: the
 * OOM killer would take the VMM.  So have the folio there before it is read, which
 * asks for memory without being told how.
 */
static struct folio *dmm_image_folio(struct file *image, pgoff_t nr)
{
	struct address_space *mapping = image->f_mapping;
	gfp_t gfp = mapping_gfp_mask(mapping) | __GFP_RETRY_MAYFAIL |
		    __GFP_NOWARN;
	struct folio *folio, *there;

	if (shmem_mapping(mapping))
		return shmem_read_folio_gfp(mapping, nr, gfp);
	page_cache_sync_readahead(mapping, &image->f_ra, image, nr, 1);
	filemap_invalidate_lock_shared(mapping);
	there = __filemap_get_folio(mapping, nr, FGP_CREAT | FGP_FOR_MMAP, gfp);
	folio = IS_ERR(there) ? there : read_mapping_folio(mapping, nr, image);
	filemap_invalidate_unlock_shared(mapping);
	if (!IS_ERR(there))
		folio_put(there);
	return folio;
}

/* For file systems that keep no pages of this file, overlayfs for one. */
static int dmm_image_read_file(struct file *image, pgoff_t nr,
			       struct page *page)
{
	loff_t pos = (loff_t)nr << PAGE_SHIFT;
	void *kaddr = kmap_local_page(page);
	ssize_t n;

	n = kernel_read(image, kaddr, PAGE_SIZE, &pos);
	kunmap_local(kaddr);
	if (n < 0)
		return n;
	return n == PAGE_SIZE ? 0 : -EIO;
}

static bool dmm_image_has_cache(struct file *image)
{
	return image->f_mapping->a_ops->read_folio ||
	       shmem_mapping(image->f_mapping);
}

/* The folio with a page of the image, if it is there and up to date. */
static struct folio *dmm_image_peek(struct file *image, pgoff_t nr)
{
	struct folio *folio = filemap_get_folio(image->f_mapping, nr);

	if (IS_ERR(folio))
		return NULL;
	if (folio_test_uptodate(folio))
		return folio;
	folio_put(folio);
	return NULL;
}

/**
 * dmm_image_cached - can a page of the image be had without waiting?
 * @image: the image
 * @nr: number of the page
 *
 * Context: Any.
 * Return: True if so.
 */
bool dmm_image_cached(struct file *image, pgoff_t nr)
{
	struct folio *folio = dmm_image_peek(image, nr);

	if (folio)
		folio_put(folio);
	return folio;
}

/**
 * dmm_image_readahead - start to read a page of the image
 * @image: the image
 * @nr: number of the page
 *
 * Context: May sleep, but seldom for the end of the I/O.
 */
void dmm_image_readahead(struct file *image, pgoff_t nr)
{
	vfs_fadvise(image, (loff_t)nr << PAGE_SHIFT, PAGE_SIZE,
		    POSIX_FADV_WILLNEED);
}

/**
 * dmm_image_read - copy a page of the image
 * @image: the image
 * @nr: number of the page
 * @page: where to
 * @nowait: do not wait for I/O
 *
 * Context: May sleep.
 * Return: 0; -EAGAIN: with @nowait: it would have to wait; -ENOMEM; -EIO: it
 *	cannot be read, or is not there any more.
 */
int dmm_image_read(struct file *image, pgoff_t nr, struct page *page,
		   bool nowait)
{
	struct folio *folio = dmm_image_peek(image, nr);
	unsigned int noio;
	int r = 0;

	if (!folio) {
		if (nowait)
			return -EAGAIN;
		noio = memalloc_noio_save();
		if (!dmm_image_has_cache(image)) {
			r = dmm_image_read_file(image, nr, page);
		} else {
			folio = dmm_image_folio(image, nr);
			r = PTR_ERR_OR_ZERO(folio);
		}
		memalloc_noio_restore(noio);
		if (r)
			return r == -ENOMEM ? r : -EIO;
	}
	if (folio) {
		if (PageHWPoison(folio_file_page(folio, nr)))
			r = -EIO;
		else
			copy_highpage(page, folio_file_page(folio, nr));
		folio_put(folio);
	}
	/*
	 * Truncation sets the size before it clears what is cut off: with the
	 * page within the size now, what was copied is the image's.
	 */
	smp_rmb();
	return nr < dmm_image_pages(image) ? r : -EIO;
}
