// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the files of policies in sysfs, and those they name.
 *
 * A number that can be tuned has a file in policies/<name>/, whose value holds
 * for all pools, and one in pools/<ino>/<name>/, which overrides it for that
 * pool until "default" is written.  Counters are in pools/<ino>/<name>/stats/.
 */
#include <linux/ctype.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "dmm.h"

/**
 * struct dmm_tunable_dir - directory of a policy
 * @kobj: the directory
 * @ops: the policy
 * @policy: the attached policy it is about; NULL: it is about all pools
 * @attr: an attribute for each tunable, then one for each counter
 */
struct dmm_tunable_dir {
	struct kobject kobj;
	struct kvm_dmm_policy_ops *ops;
	struct kvm_dmm_policy *policy;
	struct attribute attr[];
};

static struct dmm_tunable_dir *dmm_tunable_dir(struct kobject *kobj)
{
	return container_of(kobj, struct dmm_tunable_dir, kobj);
}

static unsigned int dmm_nr_tunables(const struct kvm_dmm_policy_ops *ops)
{
	unsigned int n = 0;

	while (ops->tunables && ops->tunables[n].name)
		n++;
	return n;
}

static unsigned int dmm_nr_counters(const struct kvm_dmm_policy_ops *ops)
{
	unsigned int n = 0;

	while (ops->counters && ops->counters[n])
		n++;
	return n;
}

static bool dmm_tunable_is_number(const struct kvm_dmm_tunable *t)
{
	return !t->show && !t->store;
}

static ssize_t dmm_show_number(const struct kvm_dmm_tunable *t, u64 v, char *buf)
{
	const char *const *choice;
	ssize_t len = 0;
	u64 i = 0;

	if (!t->choices)
		return sysfs_emit(buf, "%llu\n", v);
	for (choice = t->choices; *choice; choice++, i++)
		len += sysfs_emit_at(buf, len, i == v ? "%s[%s]" : "%s%s",
				     i ? " " : "", *choice);
	return len + sysfs_emit_at(buf, len, "\n");
}

static int dmm_parse_tunable(const struct kvm_dmm_tunable *t, const char *buf,
			     u64 *v)
{
	int r, n = 0;

	if (t->choices) {
		while (t->choices[n])
			n++;
		r = __sysfs_match_string(t->choices, n, buf);
		if (r < 0)
			return r;
		*v = r;
		return 0;
	}
	if (t->bytes)
		r = dmm_parse_size(buf, v);
	else if (isdigit(*buf))
		r = kstrtou64(buf, 10, v);
	else
		r = -EINVAL;
	if (r)
		return r;
	return *v < t->min || *v > t->max ? -ERANGE : 0;
}

static ssize_t dmm_counter_show(struct kvm_dmm_policy *policy, unsigned int nr,
				char *buf)
{
	u64 n = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		n += per_cpu_ptr(policy->count, cpu)[nr];
	return sysfs_emit(buf, "%llu\n", n);
}

static ssize_t dmm_tunable_show(struct kobject *kobj, struct attribute *attr,
				char *buf)
{
	struct dmm_tunable_dir *dir = dmm_tunable_dir(kobj);
	unsigned int i = attr - dir->attr;
	const struct kvm_dmm_tunable *t;

	if (i >= dmm_nr_tunables(dir->ops))
		return dmm_counter_show(dir->policy,
					i - dmm_nr_tunables(dir->ops), buf);
	t = &dir->ops->tunables[i];
	if (!dmm_tunable_is_number(t))
		return t->show ? t->show(dir->policy, buf) : -EIO;
	return dmm_show_number(t, dir->policy ? kvm_dmm_value(dir->policy, i) :
				  READ_ONCE(dir->ops->value[i]), buf);
}

static ssize_t dmm_tunable_store(struct kobject *kobj, struct attribute *attr,
				 const char *buf, size_t len)
{
	struct dmm_tunable_dir *dir = dmm_tunable_dir(kobj);
	unsigned int i = attr - dir->attr;
	const struct kvm_dmm_tunable *t;
	u64 v;
	int r;

	/* Whoever owns a file may make it writable; a counter still is not. */
	if (i >= dmm_nr_tunables(dir->ops))
		return -EIO;
	t = &dir->ops->tunables[i];
	if (!dmm_tunable_is_number(t)) {
		if (!t->store)
			return -EIO;
		return dmm_intr_errno(t->store(dir->policy, buf)) ?: len;
	}
	if (sysfs_streq(buf, "default")) {
		v = dir->policy ? KVM_DMM_INHERIT : t->def;
	} else {
		r = dmm_parse_tunable(t, buf, &v);
		if (r)
			return r;
	}
	if (dir->policy)
		WRITE_ONCE(dir->policy->value[i], v);
	else
		WRITE_ONCE(dir->ops->value[i], v);
	if (dir->policy && dir->ops->tuned)
		dir->ops->tuned(dir->policy);
	return len;
}

static const struct sysfs_ops dmm_tunable_sysfs_ops = {
	.show = dmm_tunable_show,
	.store = dmm_tunable_store,
};

static void dmm_tunable_release(struct kobject *kobj)
{
	kfree(dmm_tunable_dir(kobj));
}

static const struct kobj_type dmm_tunable_type = {
	.sysfs_ops = &dmm_tunable_sysfs_ops,
	.release = dmm_tunable_release,
};

/* The files of the counters, in a directory that stats is the name of. */
static int dmm_add_counters(struct dmm_tunable_dir *dir)
{
	unsigned int nr = dmm_nr_counters(dir->ops), i;
	struct attribute_group group = { .name = "stats" };
	struct attribute *attr;
	int r;

	if (!nr)
		return 0;
	group.attrs = kcalloc(nr + 1, sizeof(*group.attrs), GFP_KERNEL);
	if (!group.attrs)
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		attr = &dir->attr[dmm_nr_tunables(dir->ops) + i];
		sysfs_attr_init(attr);
		attr->name = dir->ops->counters[i];
		attr->mode = 0444;
		group.attrs[i] = attr;
	}
	r = sysfs_create_group(&dir->kobj, &group);
	/* sysfs remembers the attributes, not the list of them. */
	kfree(group.attrs);
	return r;
}

static int dmm_add_tunables(struct dmm_tunable_dir *dir)
{
	const struct kvm_dmm_tunable *t = dir->ops->tunables;
	struct attribute *attr = dir->attr;
	int r = 0;

	for (; !r && t && t->name; t++, attr++) {
		/* What is not a number exists for pools only. */
		if (!dmm_tunable_is_number(t) && !dir->policy)
			continue;
		sysfs_attr_init(attr);
		attr->name = t->name;
		attr->mode = dmm_tunable_is_number(t) ? 0644 :
			     (t->show ? 0444 : 0) | (t->store ? 0200 : 0);
		r = sysfs_create_file(&dir->kobj, attr);
	}
	return r;
}

static int dmm_tunable_dir_add(struct kvm_dmm_policy_ops *ops,
			       struct kvm_dmm_policy *policy,
			       struct kobject *parent, struct kobject **kobj)
{
	unsigned int nr = dmm_nr_tunables(ops) + dmm_nr_counters(ops);
	struct dmm_tunable_dir *dir;
	int r;

	dir = kzalloc(struct_size(dir, attr, nr), GFP_KERNEL);
	if (!dir)
		return -ENOMEM;
	dir->ops = ops;
	dir->policy = policy;
	r = kobject_init_and_add(&dir->kobj, &dmm_tunable_type, parent, "%s",
				 ops->name);
	if (!r)
		r = dmm_add_tunables(dir);
	if (!r && policy)
		r = dmm_add_counters(dir);
	if (r) {
		kobject_del(&dir->kobj);
		kobject_put(&dir->kobj);
		return r;
	}
	*kobj = &dir->kobj;
	return 0;
}

/**
 * dmm_tunables_add_ops - make the directory of a policy
 * @ops: the policy
 *
 * Return: 0; -EINVAL: a number without bounds that hold for its default;
 *	-ENOMEM and other errors of sysfs.
 */
int dmm_tunables_add_ops(struct kvm_dmm_policy_ops *ops)
{
	unsigned int i, nr = dmm_nr_tunables(ops);
	int r;

	ops->value = kcalloc(nr + 1, sizeof(*ops->value), GFP_KERNEL);
	if (!ops->value)
		return -ENOMEM;
	r = -EINVAL;
	for (i = 0; i < nr; i++) {
		const struct kvm_dmm_tunable *t = &ops->tunables[i];

		if (dmm_tunable_is_number(t) && !t->choices &&
		    (t->def < t->min || t->def > t->max || t->max == KVM_DMM_INHERIT))
			goto free;
		ops->value[i] = t->def;
	}
	r = dmm_tunable_dir_add(ops, NULL, dmm_sysfs_policies(), &ops->kobj);
	if (!r)
		return 0;
free:
	kfree(ops->value);
	return r;
}

/**
 * dmm_tunables_del_ops - remove the directory of a policy
 * @ops: the policy
 */
void dmm_tunables_del_ops(struct kvm_dmm_policy_ops *ops)
{
	/* Waits for readers and writers. */
	kobject_del(ops->kobj);
	kobject_put(ops->kobj);
	kfree(ops->value);
}

/**
 * dmm_tunables_init - set up the numbers of a policy that is being attached
 * @policy: the policy; before its attach op is called
 *
 * Return: 0 or -ENOMEM.
 */
int dmm_tunables_init(struct kvm_dmm_policy *policy)
{
	unsigned int i, nr = dmm_nr_tunables(policy->ops);
	unsigned int counters = dmm_nr_counters(policy->ops);

	policy->value = kcalloc(nr + 1, sizeof(*policy->value),
				GFP_KERNEL_ACCOUNT);
	policy->count = __alloc_percpu(max(counters, 1u) * sizeof(u64),
				       sizeof(u64));
	if (!policy->value || !policy->count) {
		dmm_tunables_exit(policy);
		return -ENOMEM;
	}
	for (i = 0; i < nr; i++)
		policy->value[i] = KVM_DMM_INHERIT;
	return 0;
}

/**
 * dmm_tunables_exit - free what dmm_tunables_init() allocated
 * @policy: the policy; after its detach op was called
 */
void dmm_tunables_exit(struct kvm_dmm_policy *policy)
{
	free_percpu(policy->count);
	kfree(policy->value);
}

/**
 * dmm_tunables_add_policy - make the directory of a policy in a pool
 * @policy: the attached policy
 *
 * Return: 0 or -errno.
 */
int dmm_tunables_add_policy(struct kvm_dmm_policy *policy)
{
	return dmm_tunable_dir_add(policy->ops, policy, policy->pool->dir,
				   &policy->kobj);
}

/**
 * dmm_tunables_del_policy - remove the directory of a policy in a pool
 * @policy: the policy, which is not attached any more
 *
 * Context: May sleep, until no op of any policy that runs now is left.
 */
void dmm_tunables_del_policy(struct kvm_dmm_policy *policy)
{
	struct kobject *kobj = policy->kobj;

	WRITE_ONCE(policy->kobj, NULL);
	synchronize_srcu(&policy->pool->policy_srcu);
	/* Waits for readers and writers. */
	kobject_del(kobj);
	kobject_put(kobj);
}

/**
 * kvm_dmm_open - open a file that a user has named to a policy
 * @path: its path, for the caller
 * @flags: as of open(); not O_TRUNC: what the file is gets known when it is open
 * @device: block devices will do, too
 *
 * With the rights of the caller.
 *
 * Context: May sleep.  No lock is held that is needed to make a file.
 * Return: The file; -EISDIR: it is a directory; -EINVAL: it is neither a regular
 *	file nor what @device allows; -ELOOP: it is in dmmfs; or an error of
 *	open().
 */
struct file *kvm_dmm_open(const char *path, int flags, bool device)
{
	struct file *file;
	umode_t mode;
	int r = 0;

	/* Nobody may come to the other end of a fifo. */
	file = filp_open(path, flags | O_LARGEFILE | O_NONBLOCK, 0600);
	if (IS_ERR(file))
		return file;
	mode = file_inode(file)->i_mode;
	if (S_ISDIR(mode))
		r = -EISDIR;
	else if (!S_ISREG(mode) && !(device && S_ISBLK(mode)))
		r = -EINVAL;
	/* To wait for a page of it would be to wait for ourselves. */
	else if (d_real_inode(file_dentry(file))->i_sb->s_magic == KVM_DMM_MAGIC)
		r = -ELOOP;
	if (!r)
		return file;
	fput(file);
	return ERR_PTR(r);
}
EXPORT_SYMBOL_GPL(kvm_dmm_open);

/**
 * kvm_dmm_notify - wake whoever polls a file of an attached policy
 * @policy: the policy
 * @name: of the tunable
 *
 * Does nothing before and after the time of the file, so work in the background
 * need not know about it.
 *
 * Context: May sleep.
 */
void kvm_dmm_notify(struct kvm_dmm_policy *policy, const char *name)
{
	struct kobject *kobj;
	int idx;

	idx = srcu_read_lock(&policy->pool->policy_srcu);
	kobj = READ_ONCE(policy->kobj);
	if (kobj)
		sysfs_notify(kobj, NULL, name);
	srcu_read_unlock(&policy->pool->policy_srcu, idx);
}
EXPORT_SYMBOL_GPL(kvm_dmm_notify);
