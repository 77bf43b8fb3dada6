// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: frames that guests restored from one image share.
 *
 * What a guest only reads of its image becomes a shared frame, and the next
 * guest that reads the same page joins it instead of copying.  The table knows
 * handles, which do not keep frames: a frame goes with its last user.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm_dmm.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/time64.h>
#include <linux/xarray.h>

#include "restore.h"

/**
 * struct dmm_template - an image that pools of one domain are restored from
 * @link: in dmm_templates
 * @inode: the image; kept by the users
 * @ctime: when it was last changed; with another time it is another image
 * @domain: sharing domain that the pools had when they got the image
 * @users: pools
 * @frames: number of a page to struct kvm_dmm_shared, with a reference
 *
 * @link and @users are protected by dmm_templates_lock.
 */
struct dmm_template {
	struct list_head link;
	struct inode *inode;
	struct timespec64 ctime;
	char domain[KVM_DMM_NAME_MAX + 1];
	unsigned int users;
	struct xarray frames;
};

static DEFINE_MUTEX(dmm_templates_lock);
static LIST_HEAD(dmm_templates);

/**
 * dmm_template_get - find or make the template of an image
 * @image: the image; stays open until dmm_template_put()
 * @pool: the pool
 *
 * Return: The template, or NULL without memory.
 */
struct dmm_template *dmm_template_get(struct file *image,
				      struct kvm_dmm_pool *pool)
{
	struct inode *inode = file_inode(image);
	struct timespec64 ctime = inode_get_ctime(inode);
	char domain[KVM_DMM_NAME_MAX + 1];
	struct dmm_template *template;

	kvm_dmm_pool_domain(pool, domain);
	mutex_lock(&dmm_templates_lock);
	list_for_each_entry(template, &dmm_templates, link)
		if (template->inode == inode &&
		    timespec64_equal(&template->ctime, &ctime) &&
		    !strcmp(template->domain, domain))
			goto found;
	template = kzalloc(sizeof(*template), GFP_KERNEL_ACCOUNT);
	if (!template)
		goto unlock;
	template->inode = inode;
	template->ctime = ctime;
	strscpy(template->domain, domain);
	xa_init(&template->frames);
	list_add(&template->link, &dmm_templates);
found:
	template->users++;
unlock:
	mutex_unlock(&dmm_templates_lock);
	return template;
}

/**
 * dmm_template_put - one user less
 * @template: the template, or NULL
 */
void dmm_template_put(struct dmm_template *template)
{
	struct kvm_dmm_shared *shared;
	unsigned long nr;
	bool last;

	if (!template)
		return;
	mutex_lock(&dmm_templates_lock);
	last = !--template->users;
	if (last)
		list_del(&template->link);
	mutex_unlock(&dmm_templates_lock);
	if (!last)
		return;
	xa_for_each(&template->frames, nr, shared) {
		kvm_dmm_shared_put(shared);
		cond_resched();
	}
	xa_destroy(&template->frames);
	kfree(template);
}

/**
 * dmm_template_find - the shared frame of a page, if it has one
 * @template: the template
 * @nr: number of the page in the image
 *
 * Context: Any.
 * Return: A handle with a reference, or NULL; its frame may be gone.
 */
struct kvm_dmm_shared *dmm_template_find(struct dmm_template *template,
					 pgoff_t nr)
{
	struct kvm_dmm_shared *shared;

	xa_lock(&template->frames);
	shared = xa_load(&template->frames, nr);
	if (shared)
		kvm_dmm_shared_get(shared);
	xa_unlock(&template->frames);
	return shared;
}

/**
 * dmm_template_add - remember the shared frame of a page
 * @template: the template
 * @nr: number of the page in the image
 * @shared: handle of the frame
 *
 * Context: May sleep.
 */
void dmm_template_add(struct dmm_template *template, pgoff_t nr,
		      struct kvm_dmm_shared *shared)
{
	struct kvm_dmm_shared *old;

	old = xa_store(&template->frames, nr, kvm_dmm_shared_get(shared),
		       GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN);
	/* Without memory nobody will find it, that is all. */
	if (xa_is_err(old))
		old = shared;
	if (old)
		kvm_dmm_shared_put(old);
}
