// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the registry of policies, and which pool has which.
 */
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/kmod.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <trace/events/kvm_dmm.h>

#include "dmm.h"

static DEFINE_MUTEX(dmm_policies_lock);
static LIST_HEAD(dmm_policies);		/* protected by dmm_policies_lock */

/* Policies of new files: names with spaces; protected by dmm_policies_lock. */
static char dmm_default_policies[DMM_LIST_MAX] = "demand";

static bool dmm_valid_name(const char *name)
{
	size_t len = strnlen(name, KVM_DMM_NAME_MAX + 1);

	if (!len || len > KVM_DMM_NAME_MAX)
		return false;
	/* strspn(): the kernel's ctype has letters beyond ASCII. */
	return name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_")] ==
	       0;
}

static struct kvm_dmm_policy_ops *dmm_find_ops(const char *name)
{
	struct kvm_dmm_policy_ops *ops;

	lockdep_assert_held(&dmm_policies_lock);
	list_for_each_entry(ops, &dmm_policies, link)
		if (!strcmp(ops->name, name))
			return ops;
	return NULL;
}

/**
 * kvm_dmm_register_policy - make a policy known
 * @ops: the policy; stays until kvm_dmm_unregister_policy()
 *
 * Context: May sleep.
 * Return: 0; -EINVAL: a mandatory op or the owner is missing, or the name is
 *	not valid or that of a file of pools; -EEXIST: the name is taken; -ENOMEM.
 */
int kvm_dmm_register_policy(struct kvm_dmm_policy_ops *ops)
{
	int r;

	/* What is built in has no module. */
	if (!ops->name || !dmm_valid_name(ops->name) ||
	    (IS_MODULE(CONFIG_KVM) && !ops->owner) ||
	    !ops->attach || !ops->detach || !ops->fetch != !ops->free_token ||
	    dmm_sysfs_reserved(ops->name)) {
		pr_err("kvm_dmm: policy %.*s lacks a valid name, its owner or a mandatory op\n",
		       KVM_DMM_NAME_MAX, ops->name ?: "(none)");
		return -EINVAL;
	}
	mutex_lock(&dmm_policies_lock);
	if (dmm_find_ops(ops->name)) {
		pr_err("kvm_dmm: policy %s is registered already\n", ops->name);
		r = -EEXIST;
	} else {
		r = dmm_tunables_add_ops(ops);
		if (!r)
			list_add_tail(&ops->link, &dmm_policies);
	}
	mutex_unlock(&dmm_policies_lock);
	return r;
}
EXPORT_SYMBOL_GPL(kvm_dmm_register_policy);

/**
 * kvm_dmm_unregister_policy - forget a policy
 * @ops: the policy, of a module that is being unloaded
 *
 * Each attachment holds a reference of the module, so there is none left.  If
 * registration has failed, there is nothing to do.
 *
 * Context: May sleep.
 */
void kvm_dmm_unregister_policy(struct kvm_dmm_policy_ops *ops)
{
	struct kvm_dmm_policy_ops *other;
	bool known = false;

	mutex_lock(&dmm_policies_lock);
	list_for_each_entry(other, &dmm_policies, link)
		known |= other == ops;
	if (known)
		list_del(&ops->link);
	mutex_unlock(&dmm_policies_lock);
	/* Waits for readers of its files, which take no lock of ours. */
	if (known)
		dmm_tunables_del_ops(ops);
}
EXPORT_SYMBOL_GPL(kvm_dmm_unregister_policy);

#define DMM_LOAD_TRIES	4

/* Find a policy, loading its module if need be, with a module reference. */
static struct kvm_dmm_policy_ops *dmm_get_ops(const char *name)
{
	struct kvm_dmm_policy_ops *ops;
	int tries, r = 0;

	if (!dmm_valid_name(name))
		return ERR_PTR(-EINVAL);
	/*
	 * A module that is being unloaded has no policy any more, and modprobe may
	 * take it for loaded: again, a moment later.
	 */
	for (tries = 0; tries < DMM_LOAD_TRIES && !r; tries++) {
		if (tries > 1)
			msleep(20);
		if (tries)
			r = request_module("kvm-dmm-policy-%s", name);
		mutex_lock(&dmm_policies_lock);
		ops = dmm_find_ops(name);
		if (ops && !try_module_get(ops->owner))
			ops = NULL;
		mutex_unlock(&dmm_policies_lock);
		if (ops)
			return ops;
	}
	return ERR_PTR(-ENOENT);
}

static struct kvm_dmm_policy *dmm_find_policy(struct kvm_dmm_pool *pool,
					      const char *name)
{
	struct kvm_dmm_policy *policy;

	lockdep_assert_held(&pool->policy_mutex);
	list_for_each_entry(policy, &pool->policies, link)
		if (!strcmp(policy->ops->name, name))
			return policy;
	return NULL;
}

/* What the fault path needs to know without walking the list. */
static void dmm_count_policies(struct kvm_dmm_pool *pool)
{
	unsigned int lazy = 0, fillers = 0, around = 0, reclaimers = 0;
	unsigned int sharers = 0, publishers = 0;
	struct kvm_dmm_policy *policy;

	lockdep_assert_held(&pool->policy_mutex);
	list_for_each_entry(policy, &pool->policies, link) {
		lazy += policy->ops->lazy;
		if (policy->ejected)
			continue;
		fillers += !!policy->ops->fill;
		around += !!policy->ops->around;
		reclaimers += !!policy->ops->reclaim;
		sharers += !!policy->ops->match;
		publishers += policy->ops->lookup || policy->ops->publish;
	}
	WRITE_ONCE(pool->nr_lazy, lazy);
	WRITE_ONCE(pool->nr_fillers, fillers);
	WRITE_ONCE(pool->nr_around, around);
	WRITE_ONCE(pool->nr_reclaimers, reclaimers);
	WRITE_ONCE(pool->nr_sharers, sharers);
	WRITE_ONCE(pool->nr_publishers, publishers);
}

/*
 * Make an error that a policy returns one that callers can have: what is none,
 * or is for use within the kernel, is -EIO.
 */
static int dmm_errno(int r)
{
	return r > 0 || r < -EHWPOISON ? -EIO : r;
}

/* Attach a policy behind those that the pool has; see dmm_attach(). */
static int dmm_attach_policy(struct kvm_dmm_pool *pool, const char *name)
{
	struct kvm_dmm_policy_ops *ops;
	struct kvm_dmm_policy *policy;
	unsigned int id;
	int r;

	lockdep_assert_held(&pool->policy_mutex);
	ops = dmm_get_ops(name);
	if (IS_ERR(ops))
		return PTR_ERR(ops);
	r = -EEXIST;
	if (dmm_find_policy(pool, name))
		goto put;
	r = -ENOSPC;
	for (id = 0; id < DMM_MAX_POLICIES; id++)
		if (!rcu_access_pointer(pool->by_id[id]))
			break;
	if (id == DMM_MAX_POLICIES)
		goto put;
	r = -ENOMEM;
	policy = kzalloc(sizeof(*policy), GFP_KERNEL_ACCOUNT);
	if (!policy)
		goto put;
	policy->ops = ops;
	policy->pool = pool;
	policy->id = id;
	/* No tokens before the map can find the policy. */
	policy->draining = true;
	r = dmm_tunables_init(policy);
	if (r)
		goto free;
	r = dmm_errno(ops->attach(policy));
	if (r)
		goto exit;
	r = dmm_tunables_add_policy(policy);
	if (r)
		goto detach;
	rcu_assign_pointer(pool->by_id[id], policy);
	/* With by_id: a token that is seen has a policy. */
	smp_store_release(&policy->draining, false);
	list_add_tail_rcu(&policy->link, &pool->policies);
	dmm_count_policies(pool);
	trace_kvm_dmm_attach(pool, name);
	return 0;
detach:
	ops->detach(policy);
exit:
	kvm_dmm_want_ahead(policy, false);
	dmm_tunables_exit(policy);
free:
	kfree(policy);
put:
	module_put(ops->owner);
	return r;
}

/**
 * dmm_attach - attach a policy to a pool, behind those it has
 * @pool: the pool
 * @name: the policy; its module is loaded if it is not known
 *
 * Context: May sleep.
 * Return: 0; -EINVAL: not a name; -ENOENT: no such policy; -EEXIST: attached
 *	already; -ENOSPC: too many policies; -ENOMEM; -EINTR: killed while it
 *	waits; or what the policy says.
 */
int dmm_attach(struct kvm_dmm_pool *pool, const char *name)
{
	int r;

	if (mutex_lock_killable(&pool->policy_mutex))
		return -EINTR;
	r = dmm_attach_policy(pool, name);
	mutex_unlock(&pool->policy_mutex);
	return r;
}

/**
 * dmm_normalize_list - check a list of policies that is to be used later
 * @names: names, separated by spaces, colons or newlines
 * @list: out: the same with one space between two names
 * @size: of @list
 *
 * Context: May sleep, and load modules.
 * Return: 0; -EINVAL: not a name; -ENOENT: no such policy; -EEXIST: twice the
 *	same; -E2BIG; -ENOMEM.
 */
int dmm_normalize_list(const char *names, char *list, size_t size)
{
	char *copy = kstrdup(names, GFP_KERNEL);
	struct kvm_dmm_policy_ops *ops;
	char *rest = copy, *name, *p;
	size_t len = 0;
	int r = 0;

	if (!copy)
		return -ENOMEM;
	list[0] = 0;
	while (!r && (name = strsep(&rest, " :\n"))) {
		if (!*name)
			continue;
		/* The names so far, each with a space behind it. */
		for (p = list; (p = strstr(p, name)); p++)
			if ((p == list || p[-1] == ' ') &&
			    p[strlen(name)] == ' ')
				r = -EEXIST;
		if (r)
			break;
		ops = dmm_get_ops(name);
		if (IS_ERR(ops)) {
			r = PTR_ERR(ops);
			break;
		}
		module_put(ops->owner);
		len += scnprintf(list + len, size - len, "%s ", name);
		if (len + 1 >= size)
			r = -E2BIG;
	}
	kfree(copy);
	if (len)
		list[len - 1] = 0;
	return r;
}

/**
 * dmm_attach_list - attach policies to a new pool
 * @pool: the pool, whose policy_mutex is held since before anybody knew it
 * @names: from dmm_normalize_list(); NULL: the defaults
 *
 * Return: 0, or the error of the first that cannot be attached.
 */
int dmm_attach_list(struct kvm_dmm_pool *pool, const char *names)
{
	char list[DMM_LIST_MAX], *rest = list, *name;
	int r = 0;

	lockdep_assert_held(&pool->policy_mutex);
	mutex_lock(&dmm_policies_lock);
	strscpy(list, names ?: dmm_default_policies);
	mutex_unlock(&dmm_policies_lock);
	while (!r && (name = strsep(&rest, " ")))
		if (*name)
			r = dmm_attach_policy(pool, name);
	return r;
}

/* Make frames of all tokens of a policy, and have it forget its copies. */
static int dmm_give_back(struct kvm_dmm_pool *pool,
			 struct kvm_dmm_policy *policy)
{
	struct kvm_dmm_region *region;
	unsigned long i;
	struct page *page;
	unsigned int n;
	pgoff_t index;
	u64 e;
	int r;

	if (!policy->ops->fetch)
		return 0;
	xa_for_each(&pool->regions, i, region) {
		for (n = 0; n < KVM_DMM_REGION_PAGES; n++) {
			index = ((pgoff_t)i << DMM_REGION_SHIFT) + n;
			e = READ_ONCE(region->entry[n]);
			if (dmm_kind(e) != KVM_DMM_TOKEN &&
			    !(e & (DMM_KEPT | DMM_BUSY)))
				continue;
			/* A busy entry may be about to get the token. */
			if (e & DMM_BUSY) {
				r = dmm_wait(pool, &region->entry[n],
					     TASK_INTERRUPTIBLE);
				if (r)
					return r;
				n--;
				continue;
			}
			if (dmm_policy_id(e) != policy->id)
				continue;
			/* What comes back for a file that goes is of no use. */
			if (signal_pending(current) || dmm_pool_goes(pool))
				return -EINTR;
			/* Writing takes the content over, token and all. */
			r = dmm_resolve(pool, index,
					DMM_WRITE | DMM_INTR | DMM_DETACH,
					&page, NULL);
			/*
			 * The file is being made smaller.  Whoever does that
			 * gives the tokens to the policy, which must not go
			 * before they are:
			 *
			 *	shrink			detach
			 *	------			------
			 *	1. size
			 *				a. find a token
			 *	2. own it, give it back
			 *				b. the policy goes
			 *
			 * Wait for 2 between a and b.  It needs nothing that is
			 * held here, which is the policy_mutex.
			 */
			if (r == -EFAULT && index >= dmm_pages(pool)) {
				schedule_timeout_interruptible(1);
				if (signal_pending(current))
					return -EINTR;
				n--;
				continue;
			}
			if (r)
				return r == -ENOMEM ? -EBUSY : r;
			put_page(page);
		}
		cond_resched();
	}
	return 0;
}

/* A policy that has gone must not leave the pool smaller than it was. */
static void dmm_check_compressed(struct kvm_dmm_policy *gone)
{
	struct kvm_dmm_pool *pool = gone->pool;
	struct kvm_dmm_policy *policy;
	long bytes;

	lockdep_assert_held(&pool->policy_mutex);
	list_for_each_entry(policy, &pool->policies, link)
		if (policy->ops->fetch)
			return;
	bytes = dmm_forget_compressed(pool);
	if (bytes)
		pr_warn("kvm_dmm: pool %lu: policy %s has left %ld bytes charged\n",
			dmm_ino(pool), gone->ops->name, bytes);
}

/* Take a policy without tokens off the pool, and free it. */
static void dmm_remove_policy(struct kvm_dmm_pool *pool,
			      struct kvm_dmm_policy *policy)
{
	struct kvm_dmm_policy_ops *ops = policy->ops;

	lockdep_assert_held(&pool->policy_mutex);
	list_del_rcu(&policy->link);
	RCU_INIT_POINTER(pool->by_id[policy->id], NULL);
	dmm_count_policies(pool);
	/* Waits for ops and kvm_dmm_notify(), then for readers and writers. */
	dmm_tunables_del_policy(policy);
	ops->detach(policy);
	dmm_check_compressed(policy);
	trace_kvm_dmm_detach(pool, ops->name);
	kvm_dmm_want_ahead(policy, false);
	dmm_tunables_exit(policy);
	kfree(policy);
	module_put(ops->owner);
}

static int dmm_detach_policy(struct kvm_dmm_pool *pool,
			     struct kvm_dmm_policy *policy)
{
	int r;

	lockdep_assert_held(&pool->policy_mutex);
	/*
	 * From now on kvm_dmm_batch_token() refuses: it reads this after it has
	 * made the entry busy, the walk reads the entry after the barrier.
	 */
	WRITE_ONCE(policy->draining, true);
	smp_mb();	/* pairs with the exchange of dmm_trylock() */
	r = dmm_give_back(pool, policy);
	if (!r && policy->ops->leave && !READ_ONCE(policy->ejected))
		r = dmm_errno(policy->ops->leave(policy));
	if (r) {
		WRITE_ONCE(policy->draining, false);
		if (r == -EINTR)
			return r;
		pr_info("kvm_dmm: pool %lu: policy %s stays: what it has does not fit or cannot be read (%d)\n",
			dmm_ino(pool), policy->ops->name, r);
		return r;
	}
	dmm_remove_policy(pool, policy);
	return 0;
}

/**
 * dmm_detach - detach a policy from a pool; all it keeps comes back first
 * @pool: the pool
 * @name: the policy
 *
 * Context: May sleep.
 * Return: 0; -EINVAL: not a name; -ENOENT: not attached; -EBUSY: the content does
 *	not fit below the limit; -EINTR; or the error by which the policy cannot
 *	give content back, or leave.  On error it stays attached.
 */
int dmm_detach(struct kvm_dmm_pool *pool, const char *name)
{
	struct kvm_dmm_policy *policy;
	int r = -ENOENT;

	if (!dmm_valid_name(name))
		return -EINVAL;
	if (mutex_lock_killable(&pool->policy_mutex))
		return -EINTR;
	policy = dmm_find_policy(pool, name);
	if (policy)
		r = dmm_detach_policy(pool, policy);
	mutex_unlock(&pool->policy_mutex);
	return r;
}

/**
 * dmm_detach_all - detach all policies of a pool whose map is empty
 * @pool: the pool, which nobody can use any more
 */
void dmm_detach_all(struct kvm_dmm_pool *pool)
{
	struct kvm_dmm_policy *policy, *next;

	mutex_lock(&pool->policy_mutex);
	list_for_each_entry_safe(policy, next, &pool->policies, link)
		dmm_remove_policy(pool, policy);
	mutex_unlock(&pool->policy_mutex);
}

/**
 * dmm_eject - stop asking a policy that fails
 * @policy: the policy; one of its ops has just failed
 * @op: which
 * @err: how
 *
 * The guest goes on with what is left.  The policy is detached in the
 * background; while that fails it serves its tokens.
 *
 * Context: Any; the pool's policy_srcu is held.
 */
void dmm_eject(struct kvm_dmm_policy *policy, const char *op, int err)
{
	if (xchg(&policy->ejected, true))
		return;
	pr_warn("kvm_dmm: pool %lu: policy %s is ejected: %s failed with %d\n",
		dmm_ino(policy->pool), policy->ops->name, op, err);
	dmm_count(policy->pool, DMM_STAT_eject);
	dmm_queue_work(&policy->pool->eject_work);
}

void dmm_eject_work(struct work_struct *work)
{
	struct kvm_dmm_pool *pool = container_of(work, struct kvm_dmm_pool,
						 eject_work);
	struct kvm_dmm_policy *policy, *next;

	mutex_lock(&pool->policy_mutex);
	dmm_count_policies(pool);
	list_for_each_entry_safe(policy, next, &pool->policies, link)
		if (policy->ejected)
			dmm_detach_policy(pool, policy);
	mutex_unlock(&pool->policy_mutex);
}

/*
 * The error of an access.  To the core -EAGAIN and -EBUSY mean that an entry is
 * busy or has changed, and -EINTR that there is a signal: who gets it tries
 * again, without end if there is none.  -EHWPOISON is for frames.
 */
static int dmm_policy_error(int r)
{
	if (r == -EAGAIN || r == -EBUSY || r == -EHWPOISON ||
	    (r == -EINTR && !signal_pending(current)))
		return -EIO;
	return dmm_errno(r);
}

/**
 * dmm_fill_content - ask the policies for the content of absent memory
 * @pool: the pool
 * @index: page offset of a busy entry
 * @page: page to fill
 *
 * Return: 0; -ENODATA: nobody has any; or the error of a policy that should.
 */
int dmm_fill_content(struct kvm_dmm_pool *pool, pgoff_t index,
		     struct page *page)
{
	struct kvm_dmm_policy *policy;
	int idx, r = -ENODATA;

	idx = srcu_read_lock(&pool->policy_srcu);
	list_for_each_entry_srcu(policy, &pool->policies, link,
				 srcu_read_lock_held(&pool->policy_srcu)) {
		if (!policy->ops->fill || READ_ONCE(policy->ejected))
			continue;
		r = policy->ops->fill(policy, index, page);
		if (r != -ENODATA)
			break;
	}
	srcu_read_unlock(&pool->policy_srcu, idx);
	return dmm_policy_error(r);
}

/**
 * dmm_ask_around - ask the first policy that knows what to fill or copy with a page
 * @pool: the pool
 * @around: in: the page; out: what else
 */
void dmm_ask_around(struct kvm_dmm_pool *pool, struct kvm_dmm_around *around)
{
	pgoff_t index = around->index;
	struct kvm_dmm_policy *policy;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	list_for_each_entry_srcu(policy, &pool->policies, link,
				 srcu_read_lock_held(&pool->policy_srcu)) {
		if (!policy->ops->around || READ_ONCE(policy->ejected))
			continue;
		policy->ops->around(policy, around);
		/* The region that is filled is that of the page. */
		around->index = index;
		break;
	}
	srcu_read_unlock(&pool->policy_srcu, idx);
}

/**
 * dmm_fetch_token - have a policy bring content back
 * @pool: the pool
 * @e: a busy entry with a token
 * @page: page for the content
 * @flags: KVM_DMM_FETCH_*
 * @around: in: the page; out: what else to fetch; or NULL
 *
 * Return: As the fetch op; -EAGAIN only with KVM_DMM_FETCH_NOWAIT.
 */
int dmm_fetch_token(struct kvm_dmm_pool *pool, u64 e, struct page *page,
		    unsigned int flags, struct kvm_dmm_around *around)
{
	struct kvm_dmm_policy *policy;
	int idx, r;

	idx = srcu_read_lock(&pool->policy_srcu);
	policy = srcu_dereference(pool->by_id[dmm_policy_id(e)],
				  &pool->policy_srcu);
	if (around && policy->ops->fetch_around &&
	    !READ_ONCE(policy->ejected)) {
		policy->ops->fetch_around(policy, dmm_token(e), around);
		/* As in dmm_ask_around(). */
		around->index = page->index;
	}
	r = policy->ops->fetch(policy, dmm_token(e), page, flags);
	if (r == -EUCLEAN)
		dmm_eject(policy, "fetch", r);
	srcu_read_unlock(&pool->policy_srcu, idx);
	if (r == 1 || (r == -EAGAIN && (flags & KVM_DMM_FETCH_NOWAIT)))
		return r;
	return dmm_policy_error(r);
}

/**
 * dmm_free_token - tell a policy that a token's content is not needed
 * @pool: the pool
 * @id: number of the policy
 * @token: the token, of a busy entry
 */
void dmm_free_token(struct kvm_dmm_pool *pool, unsigned int id, u64 token)
{
	struct kvm_dmm_policy *policy;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	policy = srcu_dereference(pool->by_id[id], &pool->policy_srcu);
	policy->ops->free_token(policy, token);
	srcu_read_unlock(&pool->policy_srcu, idx);
}

/**
 * dmm_dup_token - have a policy use one content for another pool, too
 * @pool: the pool
 * @e: a busy entry with a token
 * @to: the pool that gets a token, too
 * @index: at which page offset
 * @new: out: the entry for @to.  Its detaching must be kept from missing it: by
 *	the busy bit of the entry that is set to it, as in kvm_dmm_batch_token(),
 *	or by the policy mutex of @to.
 *
 * Return: 0; -EOPNOTSUPP: the policy cannot, or @to does not have it; -ERANGE:
 *	the token is too large; or what the policy returns, which may be anything.
 */
int dmm_dup_token(struct kvm_dmm_pool *pool, u64 e, struct kvm_dmm_pool *to,
		  pgoff_t index, u64 *new)
{
	struct kvm_dmm_policy *policy, *other;
	int idx, to_idx, r = -EOPNOTSUPP;
	u64 token = U64_MAX;	/* none, if the policy sets none */

	idx = srcu_read_lock(&pool->policy_srcu);
	to_idx = srcu_read_lock(&to->policy_srcu);
	policy = srcu_dereference(pool->by_id[dmm_policy_id(e)],
				  &pool->policy_srcu);
	list_for_each_entry_srcu(other, &to->policies, link,
				 srcu_read_lock_held(&to->policy_srcu))
		if (other->ops == policy->ops)
			break;
	if (policy->ops->dup_token &&
	    !list_entry_is_head(other, &to->policies, link) &&
	    !READ_ONCE(other->draining) && !READ_ONCE(other->ejected)) {
		r = policy->ops->dup_token(policy, dmm_token(e), other, index,
					   &token);
		if (!r && token >> KVM_DMM_TOKEN_BITS) {
			other->ops->free_token(other, token);
			r = -ERANGE;
		}
		if (!r)
			*new = dmm_mk_token(other->id, token);
	}
	srcu_read_unlock(&to->policy_srcu, to_idx);
	srcu_read_unlock(&pool->policy_srcu, idx);
	return r;
}

/* What a policy offers: an error is no handle. */
static struct kvm_dmm_shared *dmm_offered(struct kvm_dmm_shared *shared)
{
	return IS_ERR(shared) ? NULL : shared;
}

/**
 * dmm_lookup_token - is there a shared frame with the content of a token?
 * @pool: the pool
 * @e: a busy entry with a token
 *
 * Return: A handle with a reference, or NULL.
 */
struct kvm_dmm_shared *dmm_lookup_token(struct kvm_dmm_pool *pool, u64 e)
{
	struct kvm_dmm_shared *shared = NULL;
	struct kvm_dmm_policy *policy;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	policy = srcu_dereference(pool->by_id[dmm_policy_id(e)],
				  &pool->policy_srcu);
	if (policy->ops->lookup && !READ_ONCE(policy->ejected))
		shared = dmm_offered(policy->ops->lookup(policy, dmm_token(e)));
	srcu_read_unlock(&pool->policy_srcu, idx);
	return shared;
}

/**
 * dmm_match_content - ask the policies for a shared frame like this page
 * @pool: the pool
 * @index: page offset of a busy entry
 * @page: what was fetched for it
 *
 * Return: A handle with a reference, or NULL.
 */
struct kvm_dmm_shared *dmm_match_content(struct kvm_dmm_pool *pool,
					 pgoff_t index, struct page *page)
{
	struct kvm_dmm_shared *shared = NULL;
	struct kvm_dmm_policy *policy;
	int idx;

	if (!READ_ONCE(pool->nr_sharers))
		return NULL;
	idx = srcu_read_lock(&pool->policy_srcu);
	list_for_each_entry_srcu(policy, &pool->policies, link,
				 srcu_read_lock_held(&pool->policy_srcu)) {
		if (!policy->ops->match || READ_ONCE(policy->ejected))
			continue;
		shared = dmm_offered(policy->ops->match(policy, index, page));
		if (shared)
			break;
	}
	srcu_read_unlock(&pool->policy_srcu, idx);
	return shared;
}

/**
 * dmm_wants_publish - is what comes from a token to be a shared frame?
 * @pool: the pool
 * @e: a busy entry with a token
 *
 * Return: True if the policy has a publish op.
 */
bool dmm_wants_publish(struct kvm_dmm_pool *pool, u64 e)
{
	struct kvm_dmm_policy *policy;
	bool wants;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	policy = srcu_dereference(pool->by_id[dmm_policy_id(e)],
				  &pool->policy_srcu);
	wants = policy->ops->publish && !READ_ONCE(policy->ejected);
	srcu_read_unlock(&pool->policy_srcu, idx);
	return wants;
}

/**
 * dmm_publish - tell a policy the shared frame that its token has become
 * @pool: the pool
 * @e: the busy entry with the token
 * @shared: the handle
 */
void dmm_publish(struct kvm_dmm_pool *pool, u64 e,
		 struct kvm_dmm_shared *shared)
{
	struct kvm_dmm_policy *policy;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	policy = srcu_dereference(pool->by_id[dmm_policy_id(e)],
				  &pool->policy_srcu);
	policy->ops->publish(policy, dmm_token(e), shared);
	srcu_read_unlock(&pool->policy_srcu, idx);
}

/**
 * kvm_dmm_want_ahead - have the ahead op of a policy called, or not any more
 * @policy: the attached policy
 * @want: whether
 *
 * Each fault of a guest costs more as long as it is.
 *
 * Context: Any; the policy serializes.  When it is detached, or its attach op
 *	fails, it is not wanted any more, without being taken back.
 */
void kvm_dmm_want_ahead(struct kvm_dmm_policy *policy, bool want)
{
	if (policy->ahead == want)
		return;
	policy->ahead = want;
	atomic_add(want ? 1 : -1, &policy->pool->nr_ahead);
}
EXPORT_SYMBOL_GPL(kvm_dmm_want_ahead);

/**
 * dmm_ask_ahead - ask the policies what a guest will touch next
 * @pool: the pool
 * @index: page offset that a guest has touched
 * @list: out: page offsets
 * @max: how many at most
 *
 * Context: May sleep; no busy bit is held.
 * Return: The number of page offsets.
 */
unsigned int dmm_ask_ahead(struct kvm_dmm_pool *pool, pgoff_t index,
			   pgoff_t *list, unsigned int max)
{
	struct kvm_dmm_policy *policy;
	unsigned int n = 0;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	list_for_each_entry_srcu(policy, &pool->policies, link,
				 srcu_read_lock_held(&pool->policy_srcu)) {
		if (!policy->ops->ahead || !READ_ONCE(policy->ahead) ||
		    READ_ONCE(policy->ejected) || READ_ONCE(policy->draining))
			continue;
		n = policy->ops->ahead(policy, index, list, max);
		if (n)
			break;
	}
	srcu_read_unlock(&pool->policy_srcu, idx);
	return min(n, max);
}

/**
 * dmm_show_policies - print the names of a pool's policies, in order
 * @pool: the pool
 * @buf: a page
 *
 * Return: Length.
 */
ssize_t dmm_show_policies(struct kvm_dmm_pool *pool, char *buf)
{
	struct kvm_dmm_policy *policy;
	ssize_t len = 0;
	int idx;

	idx = srcu_read_lock(&pool->policy_srcu);
	list_for_each_entry_srcu(policy, &pool->policies, link,
				 srcu_read_lock_held(&pool->policy_srcu))
		len += sysfs_emit_at(buf, len, "%s%s", len ? " " : "",
				     policy->ops->name);
	srcu_read_unlock(&pool->policy_srcu, idx);
	return len + sysfs_emit_at(buf, len, "\n");
}

/**
 * dmm_show_default_policies - print the names of the policies of new files
 * @buf: a page
 *
 * Return: Length.
 */
ssize_t dmm_show_default_policies(char *buf)
{
	ssize_t len;

	mutex_lock(&dmm_policies_lock);
	len = sysfs_emit(buf, "%s\n", dmm_default_policies);
	mutex_unlock(&dmm_policies_lock);
	return len;
}

/**
 * dmm_set_default_policies - choose the policies of new files
 * @names: with spaces; empty: new files are static
 *
 * Return: As dmm_normalize_list().
 */
int dmm_set_default_policies(const char *names)
{
	char list[DMM_LIST_MAX];
	int r;

	r = dmm_normalize_list(names, list, sizeof(list));
	if (r)
		return r;
	mutex_lock(&dmm_policies_lock);
	strscpy(dmm_default_policies, list);
	mutex_unlock(&dmm_policies_lock);
	return 0;
}
