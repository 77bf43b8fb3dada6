// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: frames, the machine pages that guests use.
 *
 * The map owns one reference of each frame.  Page tables of KVM own none,
 * those of processes one each, and everybody who looks a frame up holds one
 * while using it.  page->mapping and page->index of an exclusive frame are the
 * reverse map to file and offset; page_private() is the token of a kept frame,
 * or the struct dmm_shared of a shared one.
 */
#include <linux/memcontrol.h>
#include <linux/pagemap.h>

#include "dmm.h"

/**
 * dmm_frame_alloc - allocate a page that becomes a frame
 * @pool: the pool; the page must be charged to it already
 *
 * The OOM killer is left alone: a guest that wants memory which the host does
 * not have gets an error, and no other process dies for it.
 *
 * Context: May sleep.
 * Return: The page, not initialized, or NULL.
 */
struct page *dmm_frame_alloc(struct kvm_dmm_pool *pool)
{
	return alloc_page(GFP_HIGHUSER | __GFP_ACCOUNT | __GFP_RETRY_MAYFAIL |
			  __GFP_NOWARN);
}

/**
 * dmm_frame_own - make a page the frame of an offset
 * @pool: the pool
 * @page: a page with content; its reference goes to the map
 * @index: page offset, which the caller owns
 */
void dmm_frame_own(struct kvm_dmm_pool *pool, struct page *page, pgoff_t index)
{
	page->mapping = pool->inode.i_mapping;
	page->index = index;
	set_page_private(page, 0);
}

/**
 * dmm_frame_disown - take a frame out of the reverse map
 * @page: a frame; its entry is busy and no page table has it
 *
 * Others may still hold references.  The page lock orders this after faults
 * of processes that checked the entry before it became busy.
 */
void dmm_frame_disown(struct page *page)
{
	lock_page(page);
	page->mapping = NULL;
	set_page_private(page, 0);
	unlock_page(page);
}
