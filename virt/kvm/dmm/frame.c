// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: frames, the machine pages that guests use.
 *
 * The map owns one reference of each frame.  Page tables of KVM own none,
 * those of processes one each, and everybody who looks a frame up holds one
 * while using it.  page->mapping and page->index of an exclusive frame are the
 * reverse map to file and offset; page_private() is the token of a kept frame,
 * or the struct kvm_dmm_shared of a shared one, if it has one: see family.c for
 * those that have none.
 */
#include <asm/cpufeature.h>
#include <linux/cpuhotplug.h>
#include <linux/highmem.h>
#include <linux/local_lock.h>
#include <linux/memcontrol.h>
#include <linux/pagemap.h>

#include "dmm.h"

/* Pages that a CPU takes from the allocator at once: it has its own lists. */
#define DMM_STOCK	16

/**
 * struct dmm_stock - zeroed pages that are about to become frames
 * @lock: keeps the owning CPU's tasks apart
 * @nr: number of pages
 * @page: the pages, charged to no control group
 */
struct dmm_stock {
	local_lock_t lock;
	unsigned int nr;
	struct page *page[DMM_STOCK];
};

static DEFINE_PER_CPU(struct dmm_stock, dmm_stock) = {
	.lock = INIT_LOCAL_LOCK(lock),
};

/*
 * The OOM killer is left alone: a guest that wants memory which the host does
 * not have gets an error, and no other process dies for it.
 */
#define DMM_GFP	(GFP_HIGHUSER | __GFP_ACCOUNT | __GFP_RETRY_MAYFAIL | \
		 __GFP_NOWARN)

/* Take a page of the stock, filling it if that takes no effort. */
static struct page *dmm_stock_get(void)
{
	struct dmm_stock *stock;
	struct page *page = NULL;

again:
	local_lock(&dmm_stock.lock);
	stock = this_cpu_ptr(&dmm_stock);
	if (!stock->nr)
		stock->nr = alloc_pages_bulk_array(GFP_NOWAIT | __GFP_HIGHMEM |
						   __GFP_ZERO | __GFP_NOWARN,
						   DMM_STOCK, stock->page);
	if (stock->nr) {
		page = stock->page[--stock->nr];
		stock->page[stock->nr] = NULL;
	}
	local_unlock(&dmm_stock.lock);
	/* It has failed while it lay here; the allocator keeps it. */
	if (page && unlikely(PageHWPoison(page))) {
		__free_page(page);
		page = NULL;
		goto again;
	}
	return page;
}

/**
 * dmm_frame_alloc - allocate a page that becomes a frame
 * @zero: the page must be zeroed
 *
 * With memory control groups in use each page is allocated by itself: only so
 * is it charged to the group of who faults.
 *
 * Context: May sleep.
 * Return: The page, or NULL.
 */
struct page *dmm_frame_alloc(bool zero)
{
	struct page *page = NULL;

	/* A hardened kernel zeroes every page: then the stock serves all. */
	if (!memcg_kmem_online() && (zero || want_init_on_alloc(DMM_GFP)))
		page = dmm_stock_get();
	return page ?: alloc_page(zero ? DMM_GFP | __GFP_ZERO : DMM_GFP);
}

/**
 * dmm_frame_try_alloc - allocate a page that can be had without effort
 *
 * As dmm_frame_alloc() without zeroing.
 *
 * Context: Does not sleep.
 * Return: The page, or NULL.
 */
struct page *dmm_frame_try_alloc(void)
{
	struct page *page = NULL;

	if (!memcg_kmem_online() && want_init_on_alloc(DMM_GFP))
		page = dmm_stock_get();
	return page ?: alloc_page(GFP_NOWAIT | __GFP_HIGHMEM | __GFP_ACCOUNT |
				  __GFP_NOWARN);
}

/*
 * Up to 1 << *@order pages in a row, for one look at the lists of the allocator
 * and one charge of the control group.  Rather fewer than work to make a row;
 * out: how many there are.
 */
static struct page *dmm_row_alloc(gfp_t gfp, unsigned int *order)
{
	struct page *page;

	for (; *order; --*order) {
		page = alloc_pages(gfp & ~__GFP_RECLAIM, *order);
		if (page) {
			split_page(page, *order);
			return page;
		}
	}
	return alloc_page(gfp);
}

/**
 * dmm_frame_alloc_bulk - allocate pages that can be had without effort
 * @pages: out: the pages
 * @nr: how many are wanted
 * @zero: whether they must read as zero
 *
 * Context: Does not sleep.
 * Return: How many there are.
 */
unsigned int dmm_frame_alloc_bulk(struct page **pages, unsigned int nr,
				  bool zero)
{
	const gfp_t gfp = GFP_NOWAIT | __GFP_HIGHMEM | __GFP_NOWARN |
			  (zero ? __GFP_ZERO : 0);
	unsigned int order = PAGE_ALLOC_COSTLY_ORDER;
	unsigned int i, n = 0;
	struct page *page;

	/* alloc_pages_bulk() does not charge control groups. */
	while (n < nr) {
		order = min_t(unsigned int, order, ilog2(nr - n));
		page = dmm_row_alloc(gfp | __GFP_ACCOUNT, &order);
		if (!page)
			break;
		for (i = 0; i < 1U << order; i++)
			pages[n++] = page + i;
	}
	return n;
}

/**
 * dmm_frame_group - the control group that a frame is charged to
 * @page: the frame, which the caller owns or has a reference of
 *
 * Context: Any.
 * Return: The group, with a reference, or NULL.
 */
struct mem_cgroup *dmm_frame_group(struct page *page)
{
	struct mem_cgroup *memcg;

	rcu_read_lock();
	memcg = folio_memcg(page_folio(page));
	if (memcg && !mem_cgroup_tryget(memcg))
		memcg = NULL;
	rcu_read_unlock();
	return memcg;
}

/**
 * dmm_alloc_in - allocate pages for a control group
 * @memcg: the group, whose reference is given back, or NULL
 * @nid: the node where they are to be, if it has any
 * @gfp: with __GFP_ACCOUNT
 * @order: how many
 *
 * Context: As @gfp says.
 * Return: The pages, or NULL.
 */
struct page *dmm_alloc_in(struct mem_cgroup *memcg, int nid, gfp_t gfp,
			  unsigned int order)
{
	struct mem_cgroup *old = set_active_memcg(memcg);
	struct page *page = alloc_pages_node(nid, gfp, order);

	set_active_memcg(old);
	mem_cgroup_put(memcg);
	return page;
}

/**
 * dmm_frame_copy - copy a frame
 * @to: a new page
 * @from: the frame, or what was one, which nobody writes
 *
 * Some CPUs go on after a read of memory that has failed without anybody knowing
 * so far.  Where copy_mc_to_kernel() has a way to use that, they have this
 * feature; on all others it would be the slower way to do the same.
 *
 * Context: Any.
 * Return: 0; -EHWPOISON: the memory of @from has failed.
 */
int dmm_frame_copy(struct page *to, struct page *from)
{
	if (PageHWPoison(from))
		return -EHWPOISON;
	if (static_cpu_has(X86_FEATURE_ERMS))
		return copy_mc_highpage(to, from) ? -EHWPOISON : 0;
	copy_highpage(to, from);
	return 0;
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

static int dmm_stock_drain(unsigned int cpu)
{
	struct dmm_stock *stock = per_cpu_ptr(&dmm_stock, cpu);

	/* What is not NULL alloc_pages_bulk_array() takes for there already. */
	while (stock->nr) {
		__free_page(stock->page[--stock->nr]);
		stock->page[stock->nr] = NULL;
	}
	return 0;
}

static int dmm_stock_state;

int kvm_dmm_frame_init(void)
{
	int r = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "kvm/dmm:stock",
					  NULL, dmm_stock_drain);

	if (r < 0)
		return r;
	dmm_stock_state = r;
	return 0;
}

void kvm_dmm_frame_exit(void)
{
	unsigned int cpu;

	cpuhp_remove_state_nocalls(dmm_stock_state);
	for_each_possible_cpu(cpu)
		dmm_stock_drain(cpu);
}
