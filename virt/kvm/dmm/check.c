// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: /sys/kernel/debug/kvm_dmm/<inode>/check, which finds
 * out whether a pool is what it should be.
 *
 * Whoever reads the file owns all entries of the pool meanwhile.  So the map
 * stands still, and the invariant holds exactly: who changes an entry owns it
 * from before the first page table loses a translation until the new value is
 * there, and a fault that has read an entry installs no more than that allows,
 * before or after the entry was taken here; see change.c.  What is found in page
 * tables is therefore compared with the map without a second look.
 *
 * The inode lock keeps clones, truncation and write() out: they count for a
 * file before its entries tell.  Other counts of what is in flight have no such
 * lock: they get some time to agree.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/kvm_host.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "shared.h"

#define DMM_CHECK_LINES	100		/* violations that are printed */
#define DMM_CHECK_SIZE	(16 << 10)	/* bytes for them: all in one go */
#define DMM_CHECK_TRIES	200		/* to find that counters add up, 5 ms apart */
#define DMM_HELD	XA_MARK_0	/* of regions: all entries are busy by the check */

/* One check at a time; protects DMM_HELD. */
static DEFINE_MUTEX(dmm_check_mutex);

/* What an entry is taken for, so that tests can see what is found. */
enum dmm_pretence {
	DMM_AS_ABSENT,
	DMM_AS_PROTECTED,	/* a frame that must not be written */
	DMM_AS_LOST,		/* a token that no policy serves */
	DMM_AS_OTHER,		/* what another offset has */
	DMM_AS_IT_IS,
};

static const char * const dmm_pretences[] = {
	[DMM_AS_ABSENT] = "absent",
	[DMM_AS_PROTECTED] = "protected",
	[DMM_AS_LOST] = "lost",
	[DMM_AS_OTHER] = "as",
};

/**
 * struct kvm_dmm_check - an open file
 * @m: what is printed to
 * @pool: the pool
 * @region: what is looked at now
 * @pretence: how one entry is judged
 * @index: page offset of that entry
 * @other: page offset of the one that it is taken for
 * @entries: entries with anything in them
 * @translations: what was found in page tables
 * @bad: violations
 */
struct kvm_dmm_check {
	struct seq_file *m;
	struct kvm_dmm_pool *pool;
	struct kvm_dmm_region *region;
	enum dmm_pretence pretence;
	pgoff_t index;
	pgoff_t other;
	unsigned long entries;
	unsigned long translations;
	unsigned long bad;
};

/* What the map has, counted. */
struct dmm_check_count {
	long resident;
	long shared;
	long tokens;
	long pending;
};

static __printf(3, 4) void dmm_bad(struct kvm_dmm_check *check, pgoff_t index,
				   const char *fmt, ...)
{
	va_list args;

	if (check->bad++ >= DMM_CHECK_LINES)
		return;
	seq_printf(check->m, "%#lx: ", index);
	va_start(args, fmt);
	seq_vprintf(check->m, fmt, args);
	va_end(args);
	seq_putc(check->m, '\n');
}

static u64 dmm_check_read(struct kvm_dmm_region *region, pgoff_t index)
{
	return region ? dmm_content(READ_ONCE(*dmm_entry(region, index))) : 0;
}

/* The content of an entry, or what it is taken for. */
static u64 dmm_check_value(struct kvm_dmm_check *check,
			   struct kvm_dmm_region *region, pgoff_t index)
{
	u64 e = dmm_check_read(region, index);

	if (likely(check->pretence == DMM_AS_IT_IS || index != check->index))
		return e;
	switch (check->pretence) {
	case DMM_AS_PROTECTED:
		return e | DMM_WP;
	case DMM_AS_LOST:
		/* The last to be given away. */
		return dmm_mk_token(DMM_MAX_POLICIES - 1, 0);
	case DMM_AS_OTHER:
		return dmm_check_read(dmm_region(check->pool, check->other),
				      check->other);
	default:
		return 0;
	}
}

/* As dmm_uses(), with what an entry of the pool is taken for. */
static bool dmm_check_uses(struct kvm_dmm_check *check,
			   struct kvm_dmm_pool *pool, pgoff_t index,
			   struct page *page)
{
	if (pool != check->pool)
		return dmm_uses(pool, index, page);
	return dmm_shares(dmm_check_value(check, dmm_region(pool, index), index),
			  page_to_pfn(page));
}

/* One translation, of whomever. */
static void dmm_check_translation(struct kvm_dmm_check *check, pgoff_t index,
				  unsigned long pfn, bool write,
				  const char *whose)
{
	u64 e = dmm_check_value(check, check->region, index);

	check->translations++;
	if (!dmm_may_map(e, pfn, write, page_to_pfn(check->pool->zero)))
		dmm_bad(check, index, "%s maps %#lx%s, the entry is %#llx",
			whose, pfn, write ? " writable" : "", e);
}

/**
 * kvm_dmm_walked - a translation that kvm_arch_dmm_walk() has found
 * @check: the check
 * @slot: the slot
 * @gfn: guest frame number in it
 * @pfn: page frame number
 * @write: a guest can write, or can make it so without asking the map
 *
 * Context: kvm->mmu_lock is held.
 */
void kvm_dmm_walked(struct kvm_dmm_check *check,
		    const struct kvm_memory_slot *slot, gfn_t gfn,
		    kvm_pfn_t pfn, bool write)
{
	dmm_check_translation(check, kvm_dmm_slot_ugfn(slot) +
			      (gfn - slot->base_gfn), pfn, write, "a guest");
}

/* What one process has mapped of a region. */
static void dmm_check_vma(struct kvm_dmm_check *check, pgoff_t base,
			  struct vm_area_struct *vma)
{
	pgoff_t index = max(base, vma->vm_pgoff), last;
	unsigned long flags, addr;
	pgd_t *pgd;
	p4d_t *p4d;
	pud_t *pud;
	pmd_t *pmd, pmdval;
	pte_t pte;

	last = min(base + KVM_DMM_REGION_PAGES, vma->vm_pgoff + vma_pages(vma));
	for (; index < last; index++) {
		addr = vma->vm_start + ((index - vma->vm_pgoff) << PAGE_SHIFT);
		pte = __pte(0);
		/* As host_pfn_mapping_level(): tables that are read stay. */
		local_irq_save(flags);
		pgd = pgd_offset(vma->vm_mm, addr);
		if (pgd_none(READ_ONCE(*pgd)))
			goto next;
		p4d = p4d_offset(pgd, addr);
		if (p4d_none(READ_ONCE(*p4d)))
			goto next;
		pud = pud_offset(p4d, addr);
		if (pud_none(READ_ONCE(*pud)))
			goto next;
		pmd = pmd_offset(pud, addr);
		pmdval = READ_ONCE(*pmd);
		if (pmd_none(pmdval) || !pmd_present(pmdval))
			goto next;
		pte = ptep_get(pte_offset_kernel(&pmdval, addr));
next:
		local_irq_restore(flags);
		if (pte_present(pte))
			dmm_check_translation(check, index, pte_pfn(pte),
					      pte_write(pte), "a process");
	}
}

/* The tree is augmented for a search that modules cannot call: look at all. */
static void dmm_check_processes(struct kvm_dmm_check *check, pgoff_t base)
{
	struct address_space *mapping = check->pool->inode.i_mapping;
	struct rb_node *node;

	i_mmap_lock_read(mapping);
	for (node = rb_first_cached(&mapping->i_mmap); node;
	     node = rb_next(node))
		dmm_check_vma(check, base, rb_entry(node, struct vm_area_struct,
						    shared.rb));
	i_mmap_unlock_read(mapping);
}

/* A frame of an offset of its own. */
static void dmm_check_frame(struct kvm_dmm_check *check, pgoff_t index, u64 e)
{
	struct page *page = dmm_page(e);

	if (page->mapping != check->pool->inode.i_mapping ||
	    page->index != index)
		dmm_bad(check, index, "the frame %#lx is that of %#lx%s",
			dmm_pfn(e), page->index,
			page->mapping == check->pool->inode.i_mapping ?
			"" : " of another file");
	if (!(e & DMM_KEPT) && page_private(page))
		dmm_bad(check, index, "the frame %#lx has %#lx left",
			dmm_pfn(e), page_private(page));
}

/* Somebody must be there to serve a token, or to be told of a write. */
static void dmm_check_policy(struct kvm_dmm_check *check, pgoff_t index, u64 e)
{
	struct kvm_dmm_pool *pool = check->pool;
	struct kvm_dmm_policy *policy;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	policy = srcu_dereference(pool->by_id[dmm_policy_id(e)],
				  &pool->policy_srcu);
	if (!policy || !policy->ops->fetch)
		dmm_bad(check, index, "nobody has the content of %#llx", e);
	srcu_read_unlock(&pool->policy_srcu, idx);
}

/* Members of a family that use a frame without being in the tree of its users. */
static unsigned long dmm_count_kin(struct kvm_dmm_check *check,
				   struct dmm_family *family,
				   struct kvm_dmm_shared *shared, pgoff_t index,
				   struct page *page)
{
	struct kvm_dmm_pool *kin;
	unsigned long n = 0;

	lockdep_assert_held(&family->lock);
	list_for_each_entry(kin, &family->pools, kin)
		if (dmm_check_uses(check, kin, index, page) &&
		    !(shared && dmm_user_find(shared, kin, index)))
			n++;
	return n;
}

/* The part of dmm_check_shared() that the first of a pool's users stands for. */
static const char *dmm_check_users(struct kvm_dmm_check *check,
				   struct kvm_dmm_shared *shared, bool *pending)
{
	struct kvm_dmm_pool *pool = check->pool;
	unsigned long kin = 0, n = 0;
	struct rb_node *node;

	for (node = rb_first(&shared->users); node; node = rb_next(node)) {
		struct dmm_user *user = rb_entry(node, struct dmm_user, node);

		n++;
		if (user->pool == pool &&
		    !dmm_check_uses(check, pool, user->index, shared->page))
			return "has a user that does not use it";
	}
	if (n + shared->nr_kin != shared->nr)
		return "has another number of users than it counts";
	if (shared->nr_kin) {
		spin_lock(&shared->family->lock);
		kin = dmm_count_kin(check, shared->family, shared,
				    shared->index, shared->page);
		spin_unlock(&shared->family->lock);
	}
	*pending = kin < shared->nr_kin;
	return kin > shared->nr_kin ? "has more clones than it counts" : NULL;
}

/*
 * Are the users of the shared frame of an entry what they should be?  @charged:
 * the pool is charged for it, and this is the entry that stands for all that it
 * has there.  @pending: it counts users that nobody has found; a clone that is
 * being made counts before it can be found, so that may be right for a moment.
 *
 * Return: What is wrong, or NULL.
 */
static const char *dmm_check_shared(struct kvm_dmm_check *check, pgoff_t index,
				    struct page *page, bool *charged,
				    bool *pending)
{
	struct kvm_dmm_pool *pool = check->pool;
	struct kvm_dmm_shared *shared;
	const char *wrong = NULL;
	struct dmm_user *user;
	struct rb_node *prev;
	unsigned long n;

	*charged = false;
	*pending = false;
	if (page->mapping)
		return "belongs to a file";
	if (!page->private || page->private == DMM_LIGHT)
		return "has no users";
	shared = dmm_shared_lock(pool, page);
	if (!shared) {
		n = dmm_count_kin(check, pool->family, NULL, index, page);
		*charged = dmm_light_charged(page) == pool;
		*pending = n < page->index;
		if (n > page->index)
			wrong = "has more clones than it counts";
		goto unlock;
	}
	if (shared->page != page) {
		wrong = "has the users of another one";
		goto unlock;
	}
	user = dmm_user_find(shared, pool, index);
	if (user) {
		prev = rb_prev(&user->node);
		/* The tree is in the order of pools. */
		if (prev && rb_entry(prev, struct dmm_user, node)->pool == pool)
			goto unlock;
		wrong = dmm_check_users(check, shared, pending);
		*charged = shared->charged == pool;
		/* Or it is a clone besides, which stands for it. */
		if (shared->nr_kin && shared->family == pool->family &&
		    !dmm_user_find(shared, pool, shared->index) &&
		    dmm_check_uses(check, pool, shared->index, page))
			*charged = false;
	} else if (!shared->nr_kin || shared->family != pool->family ||
		   shared->index != index) {
		wrong = "does not know this user";
	} else {
		wrong = dmm_check_users(check, shared, pending);
		*charged = shared->charged == pool;
	}
unlock:
	dmm_shared_unlock(pool, shared);
	return wrong;
}

static void dmm_check_entry(struct kvm_dmm_check *check, pgoff_t index)
{
	u64 e = dmm_check_value(check, check->region, index);
	bool charged, pending;
	const char *wrong;

	if (!e)
		return;
	check->entries++;
	if (!dmm_sane(e)) {
		dmm_bad(check, index, "%#llx is no entry", e);
		return;
	}
	if (index >= dmm_pages(check->pool))
		dmm_bad(check, index, "%#llx is behind the end of the file", e);
	if (dmm_kind(e) == KVM_DMM_TOKEN || (e & DMM_KEPT))
		dmm_check_policy(check, index, e);
	if (!dmm_has_page(e))
		return;
	if (!pfn_valid(dmm_pfn(e)) || !page_count(dmm_page(e))) {
		dmm_bad(check, index, "the frame %#lx is free", dmm_pfn(e));
		return;
	}
	if (dmm_kind(e) == KVM_DMM_FRAME) {
		dmm_check_frame(check, index, e);
	} else {
		wrong = dmm_check_shared(check, index, dmm_page(e), &charged,
					 &pending);
		if (wrong)
			dmm_bad(check, index, "the shared frame %#lx %s",
				dmm_pfn(e), wrong);
	}
}

static void dmm_check_region(struct kvm_dmm_check *check,
			     struct kvm_dmm_region *region, pgoff_t base)
{
	unsigned int i, lost;
	int deviants;

	check->region = region;
	for (i = 0; i < KVM_DMM_REGION_PAGES; i++)
		dmm_check_entry(check, base + i);
	/* Every entry is busy. */
	deviants = atomic_read(&region->deviants);
	if (region->block && deviants != KVM_DMM_REGION_PAGES)
		dmm_bad(check, base, "a block with all entries busy has %d deviants",
			deviants);
	lost = dmm_check_slots(check, check->pool, base);
	if (lost)
		dmm_bad(check, base, "reverse maps lack %u translations of guests",
			lost);
	dmm_check_processes(check, base);
	cond_resched();
}

/* Count again: other pools may leave us the charge for what we share. */
static void dmm_check_count(struct kvm_dmm_check *check, struct dmm_check_count *n)
{
	struct kvm_dmm_pool *pool = check->pool;
	struct kvm_dmm_region *region;
	bool charged, pending;
	unsigned long i;
	pgoff_t index;
	u64 e;

	memset(n, 0, sizeof(*n));
	xa_for_each_marked(&pool->regions, i, region, DMM_HELD) {
		index = (pgoff_t)i << DMM_REGION_SHIFT;
		do {
			e = dmm_check_value(check, region, index);
			switch (dmm_kind(e)) {
			case KVM_DMM_ABSENT:
				break;
			case KVM_DMM_FRAME:
				n->resident++;
				break;
			case KVM_DMM_SHARED:
				n->shared++;
				dmm_check_shared(check, index, dmm_page(e),
						 &charged, &pending);
				n->resident += charged;
				n->pending += pending;
				break;
			case KVM_DMM_TOKEN:
				n->tokens++;
				break;
			}
		} while (++index & (KVM_DMM_REGION_PAGES - 1));
		cond_resched();
	}
}

static void dmm_check_lock(struct kvm_dmm_pool *pool,
			   struct kvm_dmm_region *region)
{
	unsigned int n;
	u64 *entry, e;

	for (n = 0; n < KVM_DMM_REGION_PAGES; n++) {
		entry = &region->entry[n];
		for (;;) {
			e = READ_ONCE(*entry);
			if (e & DMM_BUSY)
				dmm_wait(pool, entry, TASK_UNINTERRUPTIBLE);
			else if (dmm_trylock(region, entry, e))
				break;
		}
	}
}

static void dmm_check_release(struct kvm_dmm_pool *pool)
{
	struct kvm_dmm_region *region;
	unsigned long i;
	unsigned int n;
	u64 *entry;

	xa_for_each_marked(&pool->regions, i, region, DMM_HELD) {
		xa_clear_mark(&pool->regions, i, DMM_HELD);
		for (n = 0; n < KVM_DMM_REGION_PAGES; n++) {
			entry = &region->entry[n];
			dmm_unlock(region, entry,
				   dmm_content(READ_ONCE(*entry)));
		}
		cond_resched();
	}
}

static bool dmm_check_holds_all(struct kvm_dmm_pool *pool)
{
	struct kvm_dmm_region *region;
	unsigned long i;

	xa_for_each(&pool->regions, i, region)
		if (!xa_get_mark(&pool->regions, i, DMM_HELD))
			return false;
	return true;
}

/*
 * Own all entries, in ascending order.  A region that was made behind that order
 * has everything given back first.
 */
static void dmm_check_hold(struct kvm_dmm_pool *pool)
{
	struct kvm_dmm_region *region;
	unsigned long i;

	for (;;) {
		xa_for_each(&pool->regions, i, region) {
			dmm_check_lock(pool, region);
			xa_set_mark(&pool->regions, i, DMM_HELD);
			cond_resched();
		}
		if (dmm_check_holds_all(pool))
			return;
		dmm_check_release(pool);
	}
}

/* Policies whose ahead op is to be called. */
static int dmm_count_ahead(struct kvm_dmm_pool *pool)
{
	struct kvm_dmm_policy *policy;
	int idx, n = 0;

	idx = srcu_read_lock(&pool->policy_srcu);
	list_for_each_entry_srcu(policy, &pool->policies, link,
				 srcu_read_lock_held(&pool->policy_srcu))
		n += READ_ONCE(policy->ahead);
	srcu_read_unlock(&pool->policy_srcu, idx);
	return n;
}

/*
 * A fault charges its page before it finds the entry busy, and who has taken a
 * frame out uncharges it after letting the entry go: neither takes long.
 *
 * Return: False if they cannot agree, because a region came in after all others
 *	were held.
 */
static bool dmm_check_counters(struct kvm_dmm_check *check)
{
	struct kvm_dmm_pool *pool = check->pool;
	struct dmm_check_count n;
	long resident, shared, tokens, compressed;
	unsigned int tries;
	int ahead, want;

	/* What is pretended does not become so. */
	tries = check->pretence == DMM_AS_IT_IS ? DMM_CHECK_TRIES : 1;
	while (tries--) {
		dmm_check_count(check, &n);
		resident = atomic_long_read(&pool->resident);
		shared = atomic_long_read(&pool->nr_shared);
		tokens = atomic_long_read(&pool->nr_tokens);
		compressed = atomic_long_read(&pool->compressed);
		ahead = atomic_read(&pool->nr_ahead);
		want = dmm_count_ahead(pool);
		if (resident == n.resident && shared == n.shared &&
		    tokens == n.tokens && !n.pending && compressed >= 0 &&
		    ahead == want)
			return true;
		if (!dmm_check_holds_all(pool))
			return false;
		fsleep(5000);
	}
	if (resident != n.resident)
		dmm_bad(check, 0, "%ld frames are charged, there are %ld",
			resident, n.resident);
	if (shared != n.shared)
		dmm_bad(check, 0, "%ld shared entries are counted, there are %ld",
			shared, n.shared);
	if (tokens != n.tokens)
		dmm_bad(check, 0, "%ld tokens are counted, there are %ld",
			tokens, n.tokens);
	if (n.pending)
		dmm_bad(check, 0, "%ld shared frames count users that do not exist",
			n.pending);
	if (compressed < 0)
		dmm_bad(check, 0, "%ld bytes are compressed", compressed);
	if (ahead != want)
		dmm_bad(check, 0, "%d policies are counted to look ahead, there are %d",
			ahead, want);
	return true;
}

static int dmm_check_show(struct seq_file *m, void *v)
{
	struct kvm_dmm_check *check = m->private;
	struct kvm_dmm_pool *pool = check->pool;
	struct kvm_dmm_region *region;
	unsigned long i;
	int r;

	check->m = m;
	check->entries = 0;
	check->translations = 0;
	check->bad = 0;

	r = down_read_killable(&pool->inode.i_rwsem);
	if (r)
		return r;
	r = mutex_lock_killable(&dmm_check_mutex);
	if (r)
		goto unlock;
	dmm_check_hold(pool);
	while (!dmm_check_counters(check)) {
		dmm_check_release(pool);
		dmm_check_hold(pool);
	}
	xa_for_each_marked(&pool->regions, i, region, DMM_HELD)
		dmm_check_region(check, region,
				 (pgoff_t)i << DMM_REGION_SHIFT);
	dmm_check_release(pool);
	mutex_unlock(&dmm_check_mutex);

	if (check->bad)
		seq_printf(m, "BAD: %lu\n", check->bad);
	else
		seq_printf(m, "ok: %lu entries, %lu translations\n",
			   check->entries, check->translations);
unlock:
	up_read(&pool->inode.i_rwsem);
	return r;
}

/* "absent N", "protected N", "lost N", "as N M": judge page N as if it were so. */
static ssize_t dmm_check_write(struct file *file, const char __user *ubuf,
			       size_t len, loff_t *ppos)
{
	struct kvm_dmm_check *check = ((struct seq_file *)file->private_data)->private;
	unsigned long index, other = 0;
	char buf[64], word[16];
	int n, how;

	if (len >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, len))
		return -EFAULT;
	buf[len] = 0;
	n = sscanf(buf, "%15s %lu %lu", word, &index, &other);
	if (n < 2)
		return -EINVAL;
	how = match_string(dmm_pretences, ARRAY_SIZE(dmm_pretences), word);
	if (how < 0 || n != (how == DMM_AS_OTHER ? 3 : 2))
		return -EINVAL;
	check->pretence = how;
	check->index = index;
	check->other = other;
	return len;
}

static int dmm_check_open(struct inode *inode, struct file *file)
{
	struct kvm_dmm_check *check = kzalloc(sizeof(*check), GFP_KERNEL);
	int r;

	if (!check)
		return -ENOMEM;
	check->pool = inode->i_private;
	check->pretence = DMM_AS_IT_IS;
	r = single_open_size(file, dmm_check_show, check, DMM_CHECK_SIZE);
	if (r)
		kfree(check);
	return r;
}

static int dmm_check_close(struct inode *inode, struct file *file)
{
	kfree(((struct seq_file *)file->private_data)->private);
	return single_release(inode, file);
}

const struct file_operations dmm_check_fops = {
	.owner = THIS_MODULE,
	.open = dmm_check_open,
	.release = dmm_check_close,
	.read = seq_read,
	.write = dmm_check_write,
	.llseek = seq_lseek,
};
