// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: /sys/kernel/debug/kvm_dmm/<inode>/, with a pool's map
 * as ranges of offsets that have the same, and the check of check.c.
 */
#include <linux/debugfs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>

#include "dmm.h"

static struct dentry *dmm_debugfs;

/* What a range has in common: everything but page and token. */
static u64 dmm_range_class(u64 e)
{
	return dmm_content(e) & ~DMM_PAYLOAD & ~DMM_CACHED;
}

static void dmm_show_range(struct seq_file *m, pgoff_t first, pgoff_t last,
			   u64 e)
{
	static const char * const kind[] = {
		[KVM_DMM_ABSENT] = "absent",
		[KVM_DMM_FRAME] = "frame",
		[KVM_DMM_SHARED] = "shared",
		[KVM_DMM_TOKEN] = "token",
	};

	if (!e)
		return;
	seq_printf(m, "%#lx-%#lx %s%s%s", first, last, kind[dmm_kind(e)],
		   e & DMM_WP ? " protected" : "", e & DMM_KEPT ? " kept" : "");
	if (dmm_kind(e) == KVM_DMM_TOKEN || (e & DMM_KEPT))
		seq_printf(m, " policy %u", dmm_policy_id(e));
	seq_putc(m, '\n');
}

static int dmm_map_show(struct seq_file *m, void *v)
{
	struct kvm_dmm_pool *pool = m->private;
	struct kvm_dmm_region *region;
	unsigned long i, next = 0;
	pgoff_t first = 0, index;
	u64 class = 0, e;
	unsigned int n;

	xa_for_each(&pool->regions, i, region) {
		/* It is called again, with more room. */
		if (seq_has_overflowed(m) || dmm_pool_goes(pool))
			return 0;
		cond_resched();
		if (i != next) {
			dmm_show_range(m, first, (next << DMM_REGION_SHIFT) - 1,
				       class);
			class = 0;
		}
		next = i + 1;
		for (n = 0; n < KVM_DMM_REGION_PAGES; n++) {
			index = ((pgoff_t)i << DMM_REGION_SHIFT) + n;
			e = dmm_range_class(READ_ONCE(region->entry[n]));
			if (e == class)
				continue;
			dmm_show_range(m, first, index - 1, class);
			first = index;
			class = e;
		}
	}
	dmm_show_range(m, first, (next << DMM_REGION_SHIFT) - 1, class);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(dmm_map);

/**
 * dmm_debugfs_add_pool - make the debug directory of a pool
 * @pool: the pool
 */
void dmm_debugfs_add_pool(struct kvm_dmm_pool *pool)
{
	char name[24];

	snprintf(name, sizeof(name), "%lu", dmm_ino(pool));
	pool->debugfs = debugfs_create_dir(name, dmm_debugfs);
	debugfs_create_file("map", 0400, pool->debugfs, pool, &dmm_map_fops);
	if (IS_ENABLED(CONFIG_DEBUG_FS))
		debugfs_create_file("check", 0600, pool->debugfs, pool,
				    &dmm_check_fops);
}

/**
 * dmm_debugfs_del_pool - remove it, waiting for its readers
 * @pool: the pool
 */
void dmm_debugfs_del_pool(struct kvm_dmm_pool *pool)
{
	debugfs_remove_recursive(pool->debugfs);
}

/* Without debugfs everything works but dump and check. */
int kvm_dmm_debugfs_init(void)
{
	dmm_debugfs = debugfs_create_dir("kvm_dmm", NULL);
	return 0;
}

void kvm_dmm_debugfs_exit(void)
{
	debugfs_remove_recursive(dmm_debugfs);
}
