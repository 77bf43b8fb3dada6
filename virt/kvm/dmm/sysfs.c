// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: /sys/kernel/kvm_dmm.
 *
 * See Documentation/ABI/testing/sysfs-kernel-kvm_dmm.  A pool's directory goes
 * away before the pool does, and waits for its readers and writers: none of
 * them needs a reference.
 */
#include <linux/kobject.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "dmm.h"

static struct kobject *dmm_root;
static struct kobject *dmm_pools_dir;
static struct kobject *dmm_policies_dir;

/**
 * struct dmm_dir - directory of a pool
 * @kobj: the directory
 * @pool: the pool
 */
struct dmm_dir {
	struct kobject kobj;
	struct kvm_dmm_pool *pool;
};

struct dmm_attr {
	struct attribute attr;
	ssize_t (*show)(struct kvm_dmm_pool *pool, char *buf);
	int (*store)(struct kvm_dmm_pool *pool, const char *buf);
};

static struct dmm_dir *dmm_dir(struct kobject *kobj)
{
	return container_of(kobj, struct dmm_dir, kobj);
}

static void dmm_dir_release(struct kobject *kobj)
{
	kfree(dmm_dir(kobj));
}

static ssize_t dmm_attr_show(struct kobject *kobj, struct attribute *attr,
			     char *buf)
{
	struct dmm_attr *a = container_of(attr, struct dmm_attr, attr);

	return a->show ? a->show(dmm_dir(kobj)->pool, buf) : -EIO;
}

static ssize_t dmm_attr_store(struct kobject *kobj, struct attribute *attr,
			      const char *buf, size_t len)
{
	struct dmm_attr *a = container_of(attr, struct dmm_attr, attr);

	/* Whoever owns a file may make it writable. */
	if (!a->store)
		return -EIO;
	return dmm_intr_errno(a->store(dmm_dir(kobj)->pool, buf)) ?: len;
}

static const struct sysfs_ops dmm_attr_ops = {
	.show = dmm_attr_show,
	.store = dmm_attr_store,
};

/* One value in pages, written as a size in bytes. */
static int dmm_parse_pages(const char *buf, unsigned long *pages)
{
	u64 bytes;
	int r;

	r = dmm_parse_size(buf, &bytes);
	if (r)
		return r;
	*pages = bytes >> PAGE_SHIFT;
	return 0;
}

static ssize_t dmm_emit_pages(char *buf, unsigned long pages)
{
	return sysfs_emit(buf, "%llu\n", (u64)pages << PAGE_SHIFT);
}

static ssize_t name_show(struct kvm_dmm_pool *pool, char *buf)
{
	const char *name;
	ssize_t len;

	spin_lock(&dmm_names_lock);
	name = pool->name ?: "";
	/* A name may have lines of its own, like those of another pool. */
	len = sysfs_emit(buf, "%*pEcs\n", (int)strlen(name), name);
	spin_unlock(&dmm_names_lock);
	return len;
}

static ssize_t size_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	return sysfs_emit(buf, "%lld\n", i_size_read(&pool->inode));
}

static ssize_t max_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	return dmm_emit_pages(buf, dmm_max(pool));
}

static int max_bytes_store(struct kvm_dmm_pool *pool, const char *buf)
{
	unsigned long pages;
	int r;

	if (sysfs_streq(buf, "max"))
		return dmm_set_max(pool, ULONG_MAX);
	r = dmm_parse_pages(buf, &pages);
	return r ?: dmm_set_max(pool, pages);
}

static ssize_t min_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	return dmm_emit_pages(buf, READ_ONCE(pool->min));
}

static int min_bytes_store(struct kvm_dmm_pool *pool, const char *buf)
{
	unsigned long pages;
	int r;

	r = dmm_parse_pages(buf, &pages);
	return r ?: dmm_set_min(pool, pages);
}

static ssize_t resident_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	return dmm_emit_pages(buf, atomic_long_read(&pool->resident));
}

static ssize_t shared_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	return dmm_emit_pages(buf, atomic_long_read(&pool->nr_shared));
}

static ssize_t compressed_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	/* What goes is counted as gone before it is counted as having come. */
	return sysfs_emit(buf, "%ld\n",
			  max(atomic_long_read(&pool->compressed), 0L));
}

static ssize_t swapped_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	return dmm_emit_pages(buf, atomic_long_read(&pool->nr_tokens));
}

/* Frames that somebody holds besides the map and page tables of processes. */
static ssize_t pinned_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	struct kvm_dmm_region *region;
	unsigned long i, n = 0;
	struct page *page;
	unsigned int k;
	u64 e;

	xa_for_each(&pool->regions, i, region) {
		if (dmm_pool_goes(pool) || fatal_signal_pending(current))
			return -EINTR;
		for (k = 0; k < KVM_DMM_REGION_PAGES; k++) {
			e = READ_ONCE(region->entry[k]);
			if (dmm_kind(e) != KVM_DMM_FRAME)
				continue;
			/* May be freed meanwhile: then the answer is old. */
			page = dmm_page(e);
			n += page_count(page) > 1 + folio_mapcount(page_folio(page));
		}
		cond_resched();
	}
	return dmm_emit_pages(buf, n);
}

static ssize_t huge_bytes_show(struct kvm_dmm_pool *pool, char *buf)
{
	struct kvm_dmm_region *region;
	unsigned long i, n = 0;

	xa_for_each(&pool->regions, i, region)
		n += READ_ONCE(region->block) && !atomic_read(&region->deviants);
	return dmm_emit_pages(buf, n * KVM_DMM_REGION_PAGES);
}

static ssize_t domain_show(struct kvm_dmm_pool *pool, char *buf)
{
	ssize_t len;

	spin_lock(&dmm_names_lock);
	len = sysfs_emit(buf, "%s\n", pool->domain);
	spin_unlock(&dmm_names_lock);
	return len;
}

static int domain_store(struct kvm_dmm_pool *pool, const char *buf)
{
	return dmm_set_domain(pool, buf);
}

static ssize_t policies_show(struct kvm_dmm_pool *pool, char *buf)
{
	return dmm_show_policies(pool, buf);
}

static int policies_store(struct kvm_dmm_pool *pool, const char *buf)
{
	char name[KVM_DMM_NAME_MAX + 2];

	if (*buf != '+' && *buf != '-')
		return -EINVAL;
	if (strscpy(name, buf + 1) < 0)
		return -EINVAL;
	if (*name && name[strlen(name) - 1] == '\n')
		name[strlen(name) - 1] = 0;
	return *buf == '+' ? dmm_attach(pool, name) : dmm_detach(pool, name);
}

/* As memory.reclaim of control groups: all of it, or -EAGAIN. */
static int reclaim_store(struct kvm_dmm_pool *pool, const char *buf)
{
	unsigned long pages, done = 0, n;
	int r;

	r = dmm_parse_pages(buf, &pages);
	while (!r && done < pages) {
		n = dmm_reclaim(pool, pages - done, 0, ULONG_MAX,
				KVM_DMM_RECLAIM_USER);
		done += n;
		if (done < pages && signal_pending(current))
			r = -EINTR;
		else if (!n)
			r = -EAGAIN;
	}
	return r;
}

#define DMM_ATTR_RO(_name)						\
	static struct dmm_attr _name##_attr = {				\
		.attr = { .name = #_name, .mode = 0444 },		\
		.show = _name##_show,					\
	}
#define DMM_ATTR_RW(_name)						\
	static struct dmm_attr _name##_attr = {				\
		.attr = { .name = #_name, .mode = 0644 },		\
		.show = _name##_show,					\
		.store = _name##_store,					\
	}
#define DMM_ATTR_WO(_name)						\
	static struct dmm_attr _name##_attr = {				\
		.attr = { .name = #_name, .mode = 0200 },		\
		.store = _name##_store,					\
	}

DMM_ATTR_RO(name);
DMM_ATTR_RO(size_bytes);
DMM_ATTR_RW(max_bytes);
DMM_ATTR_RW(min_bytes);
DMM_ATTR_RO(resident_bytes);
DMM_ATTR_RO(shared_bytes);
DMM_ATTR_RO(compressed_bytes);
DMM_ATTR_RO(swapped_bytes);
DMM_ATTR_RO(pinned_bytes);
DMM_ATTR_RO(huge_bytes);
DMM_ATTR_RW(domain);
DMM_ATTR_RW(policies);
DMM_ATTR_WO(reclaim);

static struct attribute *dmm_pool_attrs[] = {
	&name_attr.attr,
	&size_bytes_attr.attr,
	&max_bytes_attr.attr,
	&min_bytes_attr.attr,
	&resident_bytes_attr.attr,
	&shared_bytes_attr.attr,
	&compressed_bytes_attr.attr,
	&swapped_bytes_attr.attr,
	&pinned_bytes_attr.attr,
	&huge_bytes_attr.attr,
	&domain_attr.attr,
	&policies_attr.attr,
	&reclaim_attr.attr,
	NULL
};

static const struct attribute_group dmm_pool_group = {
	.attrs = dmm_pool_attrs,
};

static ssize_t dmm_stat_show(struct kvm_dmm_pool *pool, char *buf,
			     enum dmm_stat stat)
{
	u64 n = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		n += per_cpu_ptr(pool->stats, cpu)->count[stat];
	return sysfs_emit(buf, "%llu\n", n);
}

#define DMM_STAT_ATTR(_name)						\
	static ssize_t stat_##_name##_show(struct kvm_dmm_pool *pool,	\
					   char *buf)			\
	{								\
		return dmm_stat_show(pool, buf, DMM_STAT_##_name);	\
	}								\
	static struct dmm_attr stat_##_name##_attr = {			\
		.attr = { .name = #_name, .mode = 0444 },		\
		.show = stat_##_name##_show,				\
	};

DMM_STATS(DMM_STAT_ATTR)

#define DMM_STAT_ATTR_PTR(_name) &stat_##_name##_attr.attr,
static struct attribute *dmm_stats_attrs[] = {
	DMM_STATS(DMM_STAT_ATTR_PTR)
	NULL
};

static const struct attribute_group dmm_stats_group = {
	.name = "stats",
	.attrs = dmm_stats_attrs,
};

static const struct attribute_group *dmm_pool_groups[] = {
	&dmm_pool_group,
	&dmm_stats_group,
	NULL
};

static const struct kobj_type dmm_pool_type = {
	.sysfs_ops = &dmm_attr_ops,
	.release = dmm_dir_release,
	.default_groups = dmm_pool_groups,
};

/**
 * dmm_sysfs_add_pool - make the directory of a pool
 * @pool: the pool
 *
 * Return: 0 or -ENOMEM.
 */
int dmm_sysfs_add_pool(struct kvm_dmm_pool *pool)
{
	struct dmm_dir *dir = kzalloc(sizeof(*dir), GFP_KERNEL);
	int r;

	if (!dir)
		return -ENOMEM;
	dir->pool = pool;
	r = kobject_init_and_add(&dir->kobj, &dmm_pool_type, dmm_pools_dir,
				 "%lu", dmm_ino(pool));
	if (r) {
		kobject_put(&dir->kobj);
		return r;
	}
	pool->dir = &dir->kobj;
	return 0;
}

/**
 * dmm_sysfs_del_pool - remove the directory of a pool
 * @pool: the pool
 */
void dmm_sysfs_del_pool(struct kvm_dmm_pool *pool)
{
	if (!pool->dir)
		return;
	/* Waits for readers and writers. */
	kobject_del(pool->dir);
	kobject_put(pool->dir);
	pool->dir = NULL;
}

/**
 * dmm_sysfs_reserved - does a pool's directory have a file of this name?
 * @name: name of a policy, which gets a directory there
 *
 * Return: True if so.
 */
bool dmm_sysfs_reserved(const char *name)
{
	struct attribute **attr;

	for (attr = dmm_pool_attrs; *attr; attr++)
		if (!strcmp((*attr)->name, name))
			return true;
	return !strcmp(dmm_stats_group.name, name);
}

/**
 * dmm_sysfs_policies - the directory of policies/
 *
 * Return: The directory.
 */
struct kobject *dmm_sysfs_policies(void)
{
	return dmm_policies_dir;
}

static ssize_t default_policies_show(struct kobject *kobj,
				     struct kobj_attribute *attr, char *buf)
{
	return dmm_show_default_policies(buf);
}

static ssize_t default_policies_store(struct kobject *kobj,
				      struct kobj_attribute *attr,
				      const char *buf, size_t len)
{
	return dmm_set_default_policies(buf) ?: len;
}

static struct kobj_attribute default_policies_attr =
	__ATTR_RW(default_policies);

int kvm_dmm_sysfs_init(void)
{
	int r = -ENOMEM;

	dmm_root = kobject_create_and_add("kvm_dmm", kernel_kobj);
	if (!dmm_root)
		return r;
	dmm_pools_dir = kobject_create_and_add("pools", dmm_root);
	dmm_policies_dir = kobject_create_and_add("policies", dmm_root);
	if (dmm_pools_dir && dmm_policies_dir)
		r = sysfs_create_file(dmm_root, &default_policies_attr.attr);
	if (r)
		kvm_dmm_sysfs_exit();
	return r;
}

void kvm_dmm_sysfs_exit(void)
{
	kobject_put(dmm_pools_dir);
	kobject_put(dmm_policies_dir);
	kobject_put(dmm_root);
}
