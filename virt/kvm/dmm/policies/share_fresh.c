// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: where shared frames are, if nobody is to choose.
 *
 * Memory can have flaws: who writes beside a row of it often enough flips bits in
 * others.  A guest that knows of such a place in its memory, and has what others
 * share put there, changes what they have.  So the frame is neither that of a
 * guest nor the page that the allocator gives next, which may be one that a guest
 * has just given back, but one of many that were taken from it before, at random
 * (as in VUsion: Oliverio, Razavi, Bos, Giuffrida, "Secure Page Fusion with
 * VUsion", SOSP 2017).
 */
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/random.h>
#include <linux/slab.h>

#include "share_index.h"

/* Pages to choose from, 4 MiB for a pool; with few, chance has little to choose. */
#define SHARE_FRESH		1024
#define SHARE_FRESH_LEAST	512

/**
 * struct share_fresh - pages that shared frames of a pool are made of
 * @failed: when an effort to get one was in vain, in jiffies
 * @nr: how many there are
 * @page: the pages
 */
struct share_fresh {
	unsigned long failed;
	unsigned int nr;
	struct page *page[SHARE_FRESH];
};

/**
 * share_fresh_create - begin to collect pages
 *
 * Context: May sleep.
 * Return: An empty collection, for share_fresh_free(), or NULL.
 */
struct share_fresh *share_fresh_create(void)
{
	struct share_fresh *fresh = kvzalloc(sizeof(*fresh), GFP_KERNEL);

	if (fresh)
		fresh->failed = jiffies - HZ;
	return fresh;
}

/**
 * share_fresh_free - give all pages back
 * @fresh: the collection, or NULL
 */
void share_fresh_free(struct share_fresh *fresh)
{
	if (!fresh)
		return;
	while (fresh->nr)
		__free_page(fresh->page[--fresh->nr]);
	kvfree(fresh);
}

/**
 * share_fresh_ready - are there enough pages to choose from?
 * @fresh: the pages
 * @batch: batch that has a page whose place one of them may take
 * @index: its page offset
 *
 * Context: May sleep.
 * Return: True if so.
 */
bool share_fresh_ready(struct share_fresh *fresh, struct kvm_dmm_batch *batch,
		       pgoff_t index)
{
	struct page *page;
	bool effort;

	/*
	 * Where a group is at its limit, the frame whose place the page takes is freed
	 * for the next: to find room for more each time would be in vain, and slow,
	 * with entries busy.  So it is for the least that is needed: not page by page.
	 */
	while (fresh->nr < SHARE_FRESH) {
		effort = fresh->nr <= SHARE_FRESH_LEAST &&
			 time_after_eq(jiffies, fresh->failed + HZ);
		page = kvm_dmm_batch_alloc(batch, index,
					   effort ? GFP_NOIO : GFP_NOWAIT);
		if (!page) {
			if (effort)
				fresh->failed = jiffies;
			break;
		}
		fresh->page[fresh->nr++] = page;
	}
	return fresh->nr > SHARE_FRESH_LEAST;
}

/* A page that takes the place of a frame. */
static struct page *share_fresh_get(struct share_fresh *fresh,
				    struct kvm_dmm_batch *batch, pgoff_t index)
{
	struct page *page;
	u32 i;

	share_fresh_ready(fresh, batch, index);
	while (fresh->nr > SHARE_FRESH_LEAST) {
		i = get_random_u32_below(fresh->nr);
		page = fresh->page[i];
		fresh->page[i] = fresh->page[--fresh->nr];
		if (!PageHWPoison(page))
			return page;
		/* It has failed while it lay here; the allocator keeps it. */
		__free_page(page);
	}
	return NULL;
}

/**
 * share_fresh_handle - make a shared frame of a page
 * @fresh: what to choose a page from; NULL: the frame stays where it is
 * @batch: batch that has the page, taken if @fresh is not NULL
 * @index: its page offset
 *
 * Context: May sleep.
 * Return: As kvm_dmm_batch_handle().
 */
struct kvm_dmm_shared *share_fresh_handle(struct share_fresh *fresh,
					  struct kvm_dmm_batch *batch,
					  pgoff_t index)
{
	struct kvm_dmm_shared *shared;
	struct page *page;

	if (!fresh)
		return kvm_dmm_batch_handle(batch, index);
	page = share_fresh_get(fresh, batch, index);
	if (!page)
		return ERR_PTR(-ENOMEM);
	shared = kvm_dmm_batch_handle_in(batch, index, page);
	if (IS_ERR(shared))
		__free_page(page);
	return shared;
}
