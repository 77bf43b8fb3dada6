// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: dmmfs, the file system whose files are guests' memory.
 *
 * Names live in the dentry cache only, as in ramfs; a file is its pool.
 */
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/uaccess.h>

#include "dmm.h"

/**
 * struct dmm_options - what a mount was asked for
 * @policies: policies of new files, with colons; NULL: the defaults
 * @domain: sharing domain of new files, or NULL
 * @uid: owner of the root directory
 * @gid: its group
 * @mode: its permissions
 * @puts: files whose last reference a worker is to give back
 */
struct dmm_options {
	char *policies;
	char *domain;
	kuid_t uid;
	kgid_t gid;
	umode_t mode;
	atomic_t puts;
};

#define DMM_ROOT_MODE	0755

static struct kmem_cache *dmm_pool_cache;
static struct workqueue_struct *dmm_put_wq;
static atomic64_t dmm_last_ino = ATOMIC64_INIT(0);

static const struct inode_operations dmm_dir_operations;
static const struct inode_operations dmm_file_inode_operations;

static struct dmm_options *dmm_options(struct super_block *sb)
{
	return sb->s_fs_info;
}

static void dmm_put_work(struct work_struct *work)
{
	struct kvm_dmm_pool *pool = container_of(work, struct kvm_dmm_pool,
						 put_work);
	struct dmm_options *opts = dmm_options(pool->inode.i_sb);
	struct inode *dir = pool->put_dir;

	/* The directory's names have given their references back before. */
	inode_lock_shared(dir);
	inode_unlock_shared(dir);
	iput(dir);
	iput(&pool->inode);
	if (atomic_dec_and_test(&opts->puts))
		wake_up_var(&opts->puts);
}

/*
 * Have the last reference of a file given back when its directory is not locked
 * any more: somebody may want to look up a name there that he has written to the
 * file's sysfs::
 *
 *	rename over the file		write of a path to swap/backing
 *	--------------------		-------------------------------
 *	lock the directory
 *					the file of sysfs is in use
 *	the file goes: wait until	look the path up: wait for the
 *	its sysfs is not in use		directory
 *
 * Who may use the directory can keep it locked, so this has a queue of its own.
 */
static void dmm_put_later(struct inode *dir, struct inode *inode)
{
	struct kvm_dmm_pool *pool = dmm_pool(inode);

	ihold(dir);
	pool->put_dir = dir;
	atomic_inc(&dmm_options(inode->i_sb)->puts);
	queue_work(dmm_put_wq, &pool->put_work);
}

static struct inode *dmm_alloc_inode(struct super_block *sb)
{
	struct kvm_dmm_pool *pool;

	pool = alloc_inode_sb(sb, dmm_pool_cache, GFP_KERNEL);
	if (!pool)
		return NULL;
	/* All but the inode, which has its constructor. */
	memset((void *)pool + sizeof(pool->inode), 0,
	       sizeof(*pool) - sizeof(pool->inode));
	if (init_srcu_struct(&pool->policy_srcu)) {
		kmem_cache_free(dmm_pool_cache, pool);
		return NULL;
	}
	xa_init(&pool->regions);
	init_rwsem(&pool->bind_lock);
	pool->bindings = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&pool->policies);
	mutex_init(&pool->policy_mutex);
	INIT_WORK(&pool->eject_work, dmm_eject_work);
	INIT_WORK(&pool->put_work, dmm_put_work);
	INIT_LIST_HEAD(&pool->link);
	dmm_pool_init(pool);
	return &pool->inode;
}

static void dmm_destroy_inode(struct inode *inode)
{
	cleanup_srcu_struct(&dmm_pool(inode)->policy_srcu);
}

/* After a grace period: lookups by RCU may still see the inode. */
static void dmm_free_inode(struct inode *inode)
{
	kmem_cache_free(dmm_pool_cache, dmm_pool(inode));
}

/* The file is gone, nobody has it mapped or bound: give all of it back. */
static void dmm_evict_inode(struct inode *inode)
{
	struct kvm_dmm_pool *pool = dmm_pool(inode);

	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	if (!S_ISREG(inode->i_mode))
		return;

	dmm_pool_del(pool);
	dmm_debugfs_del_pool(pool);
	dmm_sysfs_del_pool(pool);
	cancel_work_sync(&pool->eject_work);
	cancel_work_sync(&pool->margin_work);
	/*
	 * Policies that still run bring nothing in behind the walk: either
	 * dmm_fault_lock() sees the size, or the walk sees the entry busy.
	 */
	i_size_write(inode, 0);
	dmm_drop_range(pool, 0, ULONG_MAX);
	dmm_family_leave(pool);
	dmm_detach_all(pool);
	/* What policies did in the background until now may have queued it. */
	cancel_work_sync(&pool->eject_work);
	cancel_work_sync(&pool->margin_work);
	WARN_ON_ONCE(atomic_long_read(&pool->resident));
	WARN_ON_ONCE(atomic_long_read(&pool->nr_shared));
	WARN_ON_ONCE(atomic_long_read(&pool->nr_tokens));
	dmm_regions_free(pool);
	if (pool->zero)
		put_page(pool->zero);
	free_percpu(pool->stats);
	kfree(pool->name);
}

static struct inode *dmm_new_inode(struct super_block *sb, struct inode *dir,
				   umode_t mode)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return NULL;
	/* Not reused and the same for no two mounts: it names the pool. */
	inode->i_ino = atomic64_inc_return(&dmm_last_ino);
	inode_init_owner(&nop_mnt_idmap, inode, dir, mode);
	simple_inode_init_ts(inode);
	return inode;
}

/* A new file: the object, its pool, its files in sysfs, its policies. */
static struct inode *dmm_new_file(struct super_block *sb, struct inode *dir,
				  umode_t mode, const char *name)
{
	struct dmm_options *opts = dmm_options(sb);
	struct inode *inode = dmm_new_inode(sb, dir, mode);
	struct kvm_dmm_pool *pool;
	int r = -ENOMEM;

	if (!inode)
		return ERR_PTR(-ENOMEM);
	inode->i_op = &dmm_file_inode_operations;
	inode->i_fop = &dmm_file_operations;
	inode->i_mapping->a_ops = &dmm_aops;
	mapping_set_unevictable(inode->i_mapping);

	pool = dmm_pool(inode);
	pool->stats = alloc_percpu_gfp(struct dmm_stats, GFP_KERNEL_ACCOUNT);
	pool->zero = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!pool->stats || !pool->zero)
		goto put;
	pool->zero->mapping = NULL;
	/* Who waits for its lock does not wait for memory. */
	SetPageUptodate(pool->zero);
	if (name) {
		pool->name = kstrdup(name, GFP_KERNEL);
		if (!pool->name)
			goto put;
	}
	if (opts->domain)
		strscpy(pool->domain, opts->domain);
	/*
	 * The directory is locked.  Who detaches a policy waits for writes to its
	 * files, and they may wait for the directory: so do not wait for who
	 * detaches, but have it, when there is something to detach, wait for this.
	 * That this does not wait, lockdep knows by the trylock.
	 */
	WARN_ON_ONCE(!mutex_trylock(&pool->policy_mutex));
	r = dmm_sysfs_add_pool(pool);
	if (r) {
		mutex_unlock(&pool->policy_mutex);
		goto put;
	}
	r = dmm_attach_list(pool, opts->policies);
	mutex_unlock(&pool->policy_mutex);
	if (r) {
		pr_warn_ratelimited("kvm_dmm: a new file cannot have the policies \"%s\" (%d)\n",
				    opts->policies ?: "(default)", r);
		goto put;
	}
	dmm_debugfs_add_pool(pool);
	dmm_pool_add(pool);
	return inode;
put:
	dmm_put_later(dir, inode);
	return ERR_PTR(r);
}

/* Follow what the file is called; @name is kept, or NULL for no name. */
static void dmm_set_name(struct inode *inode, const char *name)
{
	struct kvm_dmm_pool *pool = dmm_pool(inode);
	const char *old;

	spin_lock(&dmm_names_lock);
	old = pool->name;
	pool->name = name;
	spin_unlock(&dmm_names_lock);
	kfree(old);
}

static void dmm_add_entry(struct inode *dir, struct dentry *dentry,
			  struct inode *inode)
{
	d_instantiate(dentry, inode);
	dget(dentry);		/* pin the dentry in memory: the name is there */
	inode_set_mtime_to_ts(dir, inode_set_ctime_current(dir));
}

static int dmm_create(struct mnt_idmap *idmap, struct inode *dir,
		      struct dentry *dentry, umode_t mode, bool excl)
{
	struct inode *inode = dmm_new_file(dir->i_sb, dir, mode | S_IFREG,
					   dentry->d_name.name);

	if (IS_ERR(inode))
		return PTR_ERR(inode);
	dmm_add_entry(dir, dentry, inode);
	return 0;
}

static int dmm_tmpfile(struct mnt_idmap *idmap, struct inode *dir,
		       struct file *file, umode_t mode)
{
	struct inode *inode = dmm_new_file(dir->i_sb, dir, mode | S_IFREG,
					   NULL);

	if (IS_ERR(inode))
		return finish_open_simple(file, PTR_ERR(inode));
	d_tmpfile(file, inode);
	return finish_open_simple(file, 0);
}

static int dmm_mkdir(struct mnt_idmap *idmap, struct inode *dir,
		     struct dentry *dentry, umode_t mode)
{
	struct inode *inode = dmm_new_inode(dir->i_sb, dir, mode | S_IFDIR);

	if (!inode)
		return -ENOMEM;
	inode->i_op = &dmm_dir_operations;
	inode->i_fop = &simple_dir_operations;
	inc_nlink(inode);
	inc_nlink(dir);
	dmm_add_entry(dir, dentry, inode);
	return 0;
}

static int dmm_unlink(struct inode *dir, struct dentry *dentry)
{
	int r = simple_unlink(dir, dentry);

	if (!r)
		dmm_set_name(d_inode(dentry), NULL);
	return r;
}

static int dmm_rename(struct mnt_idmap *idmap, struct inode *old_dir,
		      struct dentry *old_dentry, struct inode *new_dir,
		      struct dentry *new_dentry, unsigned int flags)
{
	struct inode *inode = d_inode(old_dentry), *over = d_inode(new_dentry);
	char *name = NULL;
	int r;

	if (flags & ~RENAME_NOREPLACE)
		return -EINVAL;
	if (S_ISREG(inode->i_mode)) {
		name = kstrdup(new_dentry->d_name.name, GFP_KERNEL);
		if (!name)
			return -ENOMEM;
	}
	r = simple_rename(idmap, old_dir, old_dentry, new_dir, new_dentry,
			  flags);
	if (r) {
		kfree(name);
		return r;
	}
	if (name)
		dmm_set_name(inode, name);
	if (over && S_ISREG(over->i_mode)) {
		dmm_set_name(over, NULL);
		ihold(over);
		dmm_put_later(new_dir, over);
	}
	return 0;
}

static int dmm_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
		       struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int r;

	r = setattr_prepare(idmap, dentry, attr);
	if (r)
		return r;
	if (attr->ia_valid & ATTR_SIZE) {
		r = dmm_set_size(dmm_pool(inode), attr->ia_size);
		if (r)
			return dmm_intr_errno(r);
	}
	setattr_copy(idmap, inode, attr);
	return 0;
}

static int dmm_getattr(struct mnt_idmap *idmap, const struct path *path,
		       struct kstat *stat, u32 request_mask,
		       unsigned int query_flags)
{
	struct inode *inode = d_inode(path->dentry);
	struct kvm_dmm_pool *pool = dmm_pool(inode);

	generic_fillattr(idmap, request_mask, inode, stat);
	stat->blocks = (u64)(atomic_long_read(&pool->resident) +
			     atomic_long_read(&pool->nr_tokens)) <<
		       (PAGE_SHIFT - 9);
	/* Archivers take a file without any for one hole. */
	if (!stat->blocks && atomic_long_read(&pool->nr_shared))
		stat->blocks = 1;
	return 0;
}

static const struct inode_operations dmm_file_inode_operations = {
	.setattr = dmm_setattr,
	.getattr = dmm_getattr,
};

static const struct inode_operations dmm_dir_operations = {
	.create = dmm_create,
	.lookup = simple_lookup,
	.unlink = dmm_unlink,
	.mkdir = dmm_mkdir,
	.rmdir = simple_rmdir,
	.rename = dmm_rename,
	.tmpfile = dmm_tmpfile,
};

/* Memory of the host that files could have, not what was promised to them. */
static int dmm_statfs(struct dentry *dentry, struct kstatfs *buf)
{
	int r = simple_statfs(dentry, buf);
	struct sysinfo si;

	if (r)
		return r;
	si_meminfo(&si);
	buf->f_blocks = si.totalram;
	buf->f_bfree = si_mem_available();
	buf->f_bavail = buf->f_bfree;
	return 0;
}

static int dmm_show_options(struct seq_file *m, struct dentry *root)
{
	struct dmm_options *opts = dmm_options(root->d_sb);
	char list[DMM_LIST_MAX];

	if (opts->policies) {
		strscpy(list, opts->policies);
		seq_show_option(m, "policies", strreplace(list, ' ', ':'));
	}
	if (opts->domain)
		seq_show_option(m, "domain", opts->domain);
	if (!uid_eq(opts->uid, GLOBAL_ROOT_UID))
		seq_printf(m, ",uid=%u",
			   from_kuid_munged(&init_user_ns, opts->uid));
	if (!gid_eq(opts->gid, GLOBAL_ROOT_GID))
		seq_printf(m, ",gid=%u",
			   from_kgid_munged(&init_user_ns, opts->gid));
	if (opts->mode != DMM_ROOT_MODE)
		seq_printf(m, ",mode=%04o", opts->mode);
	return 0;
}

static const struct super_operations dmm_super_operations = {
	.alloc_inode = dmm_alloc_inode,
	.destroy_inode = dmm_destroy_inode,
	.free_inode = dmm_free_inode,
	.evict_inode = dmm_evict_inode,
	.drop_inode = generic_delete_inode,
	.statfs = dmm_statfs,
	.show_options = dmm_show_options,
};

enum dmm_param { Opt_policies, Opt_domain, Opt_uid, Opt_gid, Opt_mode };

static const struct fs_parameter_spec dmm_parameters[] = {
	/* Empty: new files are static. */
	__fsparam(fs_param_is_string, "policies", Opt_policies,
		  fs_param_can_be_empty, NULL),
	fsparam_string("domain", Opt_domain),
	fsparam_uid("uid", Opt_uid),
	fsparam_gid("gid", Opt_gid),
	fsparam_u32oct("mode", Opt_mode),
	{}
};

static int dmm_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct dmm_options *opts = fc->s_fs_info;
	struct fs_parse_result result;
	char list[DMM_LIST_MAX];
	int opt, r;

	opt = fs_parse(fc, dmm_parameters, param, &result);
	switch (opt) {
	case Opt_policies:
		/* Loads modules, before the caller of mount() was asked for this. */
		if (!capable(CAP_SYS_ADMIN))
			return -EPERM;
		r = dmm_normalize_list(param->string, list, sizeof(list));
		if (r) {
			errorf(fc, "dmmfs: no such policies: \"%s\"",
			       param->string);
			return r;
		}
		kfree(opts->policies);
		opts->policies = kstrdup(list, GFP_KERNEL);
		if (!opts->policies)
			return -ENOMEM;
		break;
	case Opt_domain:
		if (!dmm_valid_domain(param->string))
			return invalf(fc, "dmmfs: bad domain name");
		kfree(opts->domain);
		opts->domain = param->string;
		param->string = NULL;
		break;
	case Opt_uid:
		opts->uid = result.uid;
		break;
	case Opt_gid:
		opts->gid = result.gid;
		break;
	case Opt_mode:
		if (result.uint_32 & ~07777)
			return invalf(fc, "dmmfs: bad mode");
		opts->mode = result.uint_32;
		break;
	default:
		return opt;
	}
	return 0;
}

static int dmm_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct dmm_options *opts = dmm_options(sb);
	struct inode *inode;

	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_magic = KVM_DMM_MAGIC;
	sb->s_op = &dmm_super_operations;
	sb->s_time_gran = 1;

	inode = dmm_new_inode(sb, NULL, S_IFDIR | opts->mode);
	if (!inode)
		return -ENOMEM;
	inode->i_uid = opts->uid;
	inode->i_gid = opts->gid;
	inode->i_op = &dmm_dir_operations;
	inode->i_fop = &simple_dir_operations;
	inc_nlink(inode);
	sb->s_root = d_make_root(inode);
	return sb->s_root ? 0 : -ENOMEM;
}

static int dmm_get_tree(struct fs_context *fc)
{
	return get_tree_nodev(fc, dmm_fill_super);
}

static bool dmm_same_option(const char *old, const char *new)
{
	return !new || (old && !strcmp(old, new));
}

/* For "mount -o remount,ro", which names all options again. */
static int dmm_reconfigure(struct fs_context *fc)
{
	struct dmm_options *old = dmm_options(fc->root->d_sb);
	struct dmm_options *new = fc->s_fs_info;

	if (!dmm_same_option(old->policies, new->policies) ||
	    !dmm_same_option(old->domain, new->domain) ||
	    !uid_eq(old->uid, new->uid) || !gid_eq(old->gid, new->gid) ||
	    old->mode != new->mode)
		return invalf(fc, "dmmfs: options of a mount cannot be changed");
	return 0;
}

static void dmm_free_options(struct dmm_options *opts)
{
	if (!opts)
		return;
	kfree(opts->policies);
	kfree(opts->domain);
	kfree(opts);
}

static void dmm_free_fc(struct fs_context *fc)
{
	dmm_free_options(fc->s_fs_info);
}

static const struct fs_context_operations dmm_context_ops = {
	.parse_param = dmm_parse_param,
	.get_tree = dmm_get_tree,
	.reconfigure = dmm_reconfigure,
	.free = dmm_free_fc,
};

static int dmm_init_fs_context(struct fs_context *fc)
{
	struct dmm_options *opts = kzalloc(sizeof(*opts), GFP_KERNEL);
	struct dmm_options *old;

	if (!opts)
		return -ENOMEM;
	opts->uid = current_fsuid();
	opts->gid = current_fsgid();
	opts->mode = DMM_ROOT_MODE;
	if (fc->purpose == FS_CONTEXT_FOR_RECONFIGURE) {
		old = dmm_options(fc->root->d_sb);
		opts->uid = old->uid;
		opts->gid = old->gid;
		opts->mode = old->mode;
	}
	fc->s_fs_info = opts;
	fc->ops = &dmm_context_ops;
	return 0;
}

static void dmm_kill_sb(struct super_block *sb)
{
	struct dmm_options *opts = dmm_options(sb);

	wait_var_event(&opts->puts, !atomic_read(&opts->puts));
	kill_litter_super(sb);
	dmm_free_options(opts);
}

static struct file_system_type dmm_fs_type = {
	.owner = THIS_MODULE,
	.name = "dmmfs",
	.init_fs_context = dmm_init_fs_context,
	.parameters = dmm_parameters,
	.kill_sb = dmm_kill_sb,
};
MODULE_ALIAS_FS("dmmfs");

static void dmm_init_once(void *pool)
{
	inode_init_once(&((struct kvm_dmm_pool *)pool)->inode);
}

int kvm_dmm_fs_init(void)
{
	int r;

	dmm_pool_cache = kmem_cache_create("kvm_dmm_pool",
					   sizeof(struct kvm_dmm_pool), 0,
					   SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT,
					   dmm_init_once);
	if (!dmm_pool_cache)
		return -ENOMEM;
	r = -ENOMEM;
	dmm_put_wq = alloc_workqueue("kvm_dmm_put", WQ_UNBOUND, 0);
	if (!dmm_put_wq)
		goto free_cache;
	r = register_filesystem(&dmm_fs_type);
	if (!r)
		return 0;
	destroy_workqueue(dmm_put_wq);
free_cache:
	kmem_cache_destroy(dmm_pool_cache);
	return r;
}

void kvm_dmm_fs_exit(void)
{
	unregister_filesystem(&dmm_fs_type);
	destroy_workqueue(dmm_put_wq);
	/* Inodes are freed after an RCU grace period. */
	rcu_barrier();
	kmem_cache_destroy(dmm_pool_cache);
}
