// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: start and end.
 */
#include <linux/kvm_host.h>

#include "dmm.h"

#define CREATE_TRACE_POINTS
#include <trace/events/kvm_dmm.h>

/**
 * kvm_dmm_pool_ino - inode number of a pool's file, its name in sysfs
 * @pool: the pool
 *
 * Return: The number.
 */
unsigned long kvm_dmm_pool_ino(struct kvm_dmm_pool *pool)
{
	return dmm_ino(pool);
}
EXPORT_SYMBOL_GPL(kvm_dmm_pool_ino);

/**
 * kvm_dmm_pool_pages - size of a guest's memory
 * @pool: the pool
 *
 * Return: Number of page offsets, whatever is there.
 */
unsigned long kvm_dmm_pool_pages(struct kvm_dmm_pool *pool)
{
	return dmm_pages(pool);
}
EXPORT_SYMBOL_GPL(kvm_dmm_pool_pages);

static const struct {
	int (*init)(void);
	void (*exit)(void);
} dmm_parts[] = {
	{ kvm_dmm_map_init, kvm_dmm_map_exit },
	{ kvm_dmm_frame_init, kvm_dmm_frame_exit },
	{ kvm_dmm_shared_init, kvm_dmm_shared_exit },
	{ kvm_dmm_sysfs_init, kvm_dmm_sysfs_exit },
	{ kvm_dmm_debugfs_init, kvm_dmm_debugfs_exit },
	{ kvm_dmm_pool_init, kvm_dmm_pool_exit },
	/* Last: from here on files can be made. */
	{ kvm_dmm_fs_init, kvm_dmm_fs_exit },
};

static void dmm_exit_parts(unsigned int n)
{
	while (n--)
		dmm_parts[n].exit();
}

/**
 * kvm_dmm_init - start dynamic memory mapping, with KVM's module
 *
 * Return: 0 or -errno, with nothing left behind.
 */
int kvm_dmm_init(void)
{
	unsigned int i;
	int r;

	for (i = 0; i < ARRAY_SIZE(dmm_parts); i++) {
		r = dmm_parts[i].init();
		if (r) {
			dmm_exit_parts(i);
			return r;
		}
	}
	return 0;
}

/**
 * kvm_dmm_exit - end dynamic memory mapping; no file and no policy is left
 */
void kvm_dmm_exit(void)
{
	dmm_exit_parts(ARRAY_SIZE(dmm_parts));
}
