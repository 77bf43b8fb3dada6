// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the restore policy.
 *
 * A file in dmmfs gets the content of an image, a raw memory file, without that
 * the image is read first: each page of data in the image becomes a token,
 * whose content is copied when it is touched, or by a worker in the background.
 * Holes of the image stay absent.  A token is the number of the page in the
 * image.
 */
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/kvm_dmm.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/workqueue.h>

#include "restore.h"

/* Runs of the worker a second, and the pages of one at most. */
#define DMM_FILLER_HZ	100
#define DMM_FILLER_MAX	4096

/* It ends this part of a pool's limit below it. */
#define DMM_FILLER_DISTANCE	16

/* Failures after which a run ends, for the disk's sake. */
#define DMM_FILLER_FAILURES	8

/**
 * struct dmm_restore - what is restored into a pool
 * @policy: the attached policy
 * @lock: serializes changes of @image
 * @image: the image, or NULL.  Changed under @lock and @order_lock, not while
 *	there are tokens or entries busy with one.
 * @template: frames that pools with the same image share; as @image
 * @total: pages that had to be restored when the image was attached
 * @remaining: tokens, those that are about to be made included
 * @step: pages between two notifications of progress
 * @filler: brings pages back in the background
 * @next: page offset where it goes on
 * @credit: bytes that it may bring back; less than 0: it has to wait; the worker's
 * @since: when that was so, in ns of ktime_get_ns(); the worker's
 * @notify: tells who polls
 * @order_lock: protects @order; within @lock
 * @order: what is read ahead of the guest, or NULL
 * @record_lock: protects @record in faults; innermost
 * @record: what is being recorded, or NULL; changed under @lock, too
 */
struct dmm_restore {
	struct kvm_dmm_policy *policy;
	struct mutex lock;	/* see above */
	struct file *image;
	struct dmm_template *template;
	unsigned long total;
	atomic_long_t remaining;
	unsigned long step;
	struct delayed_work filler;
	pgoff_t next;
	s64 credit;
	u64 since;
	struct work_struct notify;
	struct mutex order_lock;	/* see above */
	struct dmm_order *order;
	spinlock_t record_lock;		/* see above */
	struct dmm_record *record;
};

enum {
	DMM_RATE,
};

enum {
	DMM_TOUCHED,
	DMM_AHEAD,
	DMM_FILLED,
	DMM_RELEASED,
	DMM_FAILED,
};

static const char *const dmm_restore_counters[] = {
	[DMM_TOUCHED] = "touched",	/* pages read because of an access */
	[DMM_AHEAD] = "ahead",		/* pages read as the order says */
	[DMM_FILLED] = "filled",	/* pages read in the background */
	[DMM_RELEASED] = "released",	/* given up unread: a hole was punched */
	[DMM_FAILED] = "failed",	/* reads that failed */
	NULL
};

static struct workqueue_struct *dmm_restore_wq;

static void dmm_restore_notify(struct work_struct *work)
{
	struct dmm_restore *restore = container_of(work, struct dmm_restore,
						   notify);

	kvm_dmm_notify(restore->policy, "done_bytes");
	kvm_dmm_notify(restore->policy, "remaining_bytes");
	kvm_dmm_notify(restore->policy, "percent");
}

/*
 * One token less.  With the last of them the image may be let go, as soon as its
 * entry is not busy: see dmm_restore_set().
 */
static void dmm_restore_done(struct dmm_restore *restore)
{
	long left = atomic_long_dec_return(&restore->remaining);

	if (!(left % READ_ONCE(restore->step)))
		queue_work(dmm_restore_wq, &restore->notify);
}

/* An access has brought a page in. */
static void dmm_restore_record(struct dmm_restore *restore, pgoff_t index)
{
	spin_lock(&restore->record_lock);
	if (restore->record)
		dmm_record_add(restore->record, index);
	spin_unlock(&restore->record_lock);
}

static int dmm_restore_fetch(struct kvm_dmm_policy *policy, u64 token,
			     struct page *page, unsigned int flags)
{
	struct dmm_restore *restore = policy->priv;
	bool nowait = flags & KVM_DMM_FETCH_NOWAIT;
	int r;

	r = dmm_image_read(READ_ONCE(restore->image), token, page, nowait);
	if (r) {
		if (r != -EAGAIN)
			kvm_dmm_policy_count(policy, DMM_FAILED, 1);
		return r;
	}
	if (!(flags & KVM_DMM_FETCH_AHEAD)) {
		kvm_dmm_policy_count(policy, DMM_TOUCHED, 1);
		if (unlikely(READ_ONCE(restore->record)))
			dmm_restore_record(restore, token);
	}
	dmm_restore_done(restore);
	return 0;
}

static void dmm_restore_free_token(struct kvm_dmm_policy *policy, u64 token)
{
	kvm_dmm_policy_count(policy, DMM_RELEASED, 1);
	dmm_restore_done(policy->priv);
}

static struct kvm_dmm_shared *dmm_restore_lookup(struct kvm_dmm_policy *policy,
						 u64 token)
{
	struct dmm_restore *restore = policy->priv;

	/* What is joined is not fetched, which is when it is recorded. */
	if (READ_ONCE(restore->record))
		return NULL;
	return dmm_template_find(READ_ONCE(restore->template), token);
}

static void dmm_restore_publish(struct kvm_dmm_policy *policy, u64 token,
				struct kvm_dmm_shared *shared)
{
	struct dmm_restore *restore = policy->priv;

	dmm_template_add(READ_ONCE(restore->template), token, shared);
}

/*
 * The guest has touched @index.  If that is in the order, the guest will want
 * the next pages of it: get them if they are at hand, and have those after
 * them read.
 */
static unsigned int dmm_restore_ahead(struct kvm_dmm_policy *policy,
				      pgoff_t index, pgoff_t *list,
				      unsigned int max)
{
	struct dmm_restore *restore = policy->priv;
	struct dmm_order *order;
	unsigned int i, n = 0, looked;
	pgoff_t next;
	int r;

	/* One vCPU is enough to read ahead. */
	if (!mutex_trylock(&restore->order_lock))
		return 0;
	order = restore->order;
	if (!order || !dmm_order_has(order, index))
		goto unlock;
	dmm_order_touched(order, index);
	/* What is skipped comes when it is touched, or in the background. */
	for (looked = 0; looked < max && dmm_order_next(order, &next); looked++) {
		if (kvm_dmm_has_token(policy, next) && restore->image) {
			if (!dmm_image_cached(restore->image, next)) {
				dmm_image_readahead(restore->image, next);
				continue;
			}
			r = kvm_dmm_fetch(policy->pool, next);
			if (r == -EBUSY)
				break;
			if (r > 0)
				kvm_dmm_policy_count(policy, DMM_AHEAD, 1);
		}
		dmm_order_touched(order, next);
		list[n++] = next;
	}
	for (i = 0; dmm_order_peek(order, i, &next) && i < max; i++)
		if (restore->image && !dmm_image_cached(restore->image, next))
			dmm_image_readahead(restore->image, next);
	if (!i)
		kvm_dmm_want_ahead(policy, false);
unlock:
	mutex_unlock(&restore->order_lock);
	return n;
}

/* The next page to bring back: in the order, if there is one, then all. */
static bool dmm_filler_next(struct dmm_restore *restore, pgoff_t *index)
{
	struct kvm_dmm_policy *policy = restore->policy;
	bool found = false;

	mutex_lock(&restore->order_lock);
	while (!found && restore->order &&
	       dmm_order_fill(restore->order, index)) {
		found = kvm_dmm_has_token(policy, *index);
		cond_resched();
	}
	mutex_unlock(&restore->order_lock);
	if (found)
		return true;
	if (!kvm_dmm_next_token(policy, &restore->next))
		return false;
	*index = restore->next++;
	return true;
}

/*
 * Is a pool so near to its limit that what comes without need would cost what is in
 * use?  Farther than policies keep it, or they would make room for all of the image.
 */
static bool dmm_filler_full(struct kvm_dmm_pool *pool)
{
	unsigned long max = kvm_dmm_pool_max(pool);

	return max < kvm_dmm_pool_pages(pool) &&
	       kvm_dmm_pool_room(pool) <= max / DMM_FILLER_DISTANCE;
}

/*
 * Bring up to @nr pages back; returns false if there is no point in going on
 * soon: the pool is full, or nothing that is left can be read.
 */
static bool dmm_filler_run(struct dmm_restore *restore, unsigned long nr)
{
	struct kvm_dmm_policy *policy = restore->policy;
	unsigned int failed = 0;
	bool wrapped = false;
	pgoff_t index;
	int r;

	while (nr && failed < DMM_FILLER_FAILURES) {
		if (dmm_filler_full(policy->pool))
			return false;
		if (!dmm_filler_next(restore, &index)) {
			if (wrapped)
				return false;
			wrapped = true;
			restore->next = 0;
			continue;
		}
		r = kvm_dmm_fetch(policy->pool, index);
		if (r == -EBUSY)
			return false;
		if (r > 0) {
			kvm_dmm_policy_count(policy, DMM_FILLED, 1);
			nr--;
		}
		failed += r < 0;
		cond_resched();
	}
	return !failed;
}

/*
 * Bring pages back if the rate allows some; returns when to ask again.  A tick is
 * longer than many rates leave between two runs, and a run may be late: so the
 * rate holds on average, but for more than a twentieth of a second is no credit,
 * and what is owed from a faster rate is forgotten but for a second.
 */
static unsigned long dmm_filler_pace(struct dmm_restore *restore, u64 rate)
{
	u64 nr, now = ktime_get_ns();
	u64 passed = min(now - restore->since, NSEC_PER_SEC);
	s64 owed = max(rate, PAGE_SIZE);

	restore->since = now;
	restore->credit += mul_u64_u64_div_u64(passed, rate, NSEC_PER_SEC);
	restore->credit = clamp_t(s64, restore->credit, -owed, rate / 20);
	if (restore->credit >= 0) {
		nr = clamp(rate / DMM_FILLER_HZ >> PAGE_SHIFT, 1,
			   DMM_FILLER_MAX);
		if (!dmm_filler_run(restore, nr))
			return HZ;
		restore->credit -= nr << PAGE_SHIFT;
	}
	if (restore->credit >= 0)
		return 0;
	return min_t(u64, DIV64_U64_ROUND_UP(-restore->credit * HZ, rate), HZ);
}

static void dmm_filler_work(struct work_struct *work)
{
	struct dmm_restore *restore = container_of(to_delayed_work(work),
						   struct dmm_restore, filler);
	u64 rate = kvm_dmm_value(restore->policy, DMM_RATE);

	if (!atomic_long_read(&restore->remaining))
		return;
	/* At rest it looks at the rate once a second: it may hold for all. */
	queue_delayed_work(dmm_restore_wq, &restore->filler,
			   rate ? dmm_filler_pace(restore, rate) : HZ);
}

/* Make tokens of all data that the image has. */
static int dmm_restore_add(struct dmm_restore *restore)
{
	struct file *image = restore->image;
	loff_t start, end = 0;
	pgoff_t first, last;
	long nr;

	for (;;) {
		start = vfs_llseek(image, end, SEEK_DATA);
		if (start == -ENXIO)
			return 0;
		if (start < 0)
			return start;
		end = vfs_llseek(image, start, SEEK_HOLE);
		if (end < 0)
			return end;
		if (end <= start)
			return -EIO;
		first = start >> PAGE_SHIFT;
		last = (end - 1) >> PAGE_SHIFT;
		/* Counted before there are any: guests do not wait for us. */
		nr = last - first + 1;
		atomic_long_add(nr, &restore->remaining);
		start = kvm_dmm_add_tokens(restore->policy, first, last, first);
		if (start < 0)
			return start;
		atomic_long_sub(nr - start, &restore->remaining);
		WRITE_ONCE(restore->total, restore->total + start);
	}
}

/* Let the image go; nothing depends on it. */
static void dmm_restore_put(struct dmm_restore *restore)
{
	struct dmm_template *template = restore->template;
	struct file *image = restore->image;

	lockdep_assert_held(&restore->lock);
	cancel_delayed_work_sync(&restore->filler);
	mutex_lock(&restore->order_lock);
	WRITE_ONCE(restore->image, NULL);
	WRITE_ONCE(restore->template, NULL);
	mutex_unlock(&restore->order_lock);
	dmm_template_put(template);
	if (image)
		fput(image);
	WRITE_ONCE(restore->total, 0);
}

static int dmm_restore_set(struct dmm_restore *restore, const char *path)
{
	struct kvm_dmm_policy *policy = restore->policy;
	struct dmm_template *template;
	struct file *image;
	int r;

	lockdep_assert_held(&restore->lock);
	if (atomic_long_read_acquire(&restore->remaining))
		return -EBUSY;
	/*
	 * No token is left to be dropped, but whoever had the last one may be
	 * about to put its frame into the template:
	 *
	 *	access				here
	 *	------				----
	 *	1. make the entry busy
	 *	2. fetch: none remain
	 *					a. none remain
	 *					b. wait for busy entries
	 *	3. publish: the template
	 *	4. set the entry
	 *					c. let image and template go
	 *
	 * Until 4 the entry reads as a token, so b waits for it.
	 */
	kvm_dmm_drop_tokens(policy);
	if (!*path) {
		dmm_restore_put(restore);
		return 0;
	}
	image = dmm_image_open(path, kvm_dmm_pool_pages(policy->pool));
	if (IS_ERR(image))
		return PTR_ERR(image);
	template = dmm_template_get(image, policy->pool);
	if (!template) {
		fput(image);
		return -ENOMEM;
	}
	dmm_restore_put(restore);
	mutex_lock(&restore->order_lock);
	WRITE_ONCE(restore->image, image);
	WRITE_ONCE(restore->template, template);
	mutex_unlock(&restore->order_lock);
	r = dmm_restore_add(restore);
	if (r) {
		kvm_dmm_drop_tokens(policy);
		/* What was counted without having become a token. */
		atomic_long_set(&restore->remaining, 0);
		dmm_restore_put(restore);
		return r;
	}
	WRITE_ONCE(restore->step, max(restore->total / 100, 1));
	restore->next = 0;
	queue_delayed_work(dmm_restore_wq, &restore->filler, 0);
	return 0;
}

static int dmm_restore_set_order(struct dmm_restore *restore, const char *path)
{
	struct kvm_dmm_policy *policy = restore->policy;
	struct dmm_order *order = NULL, *old;

	if (*path)
		order = dmm_order_load(path, kvm_dmm_pool_pages(policy->pool));
	if (IS_ERR(order))
		return PTR_ERR(order);
	mutex_lock(&restore->order_lock);
	old = restore->order;
	restore->order = order;
	kvm_dmm_want_ahead(policy, order && dmm_order_left(order));
	mutex_unlock(&restore->order_lock);
	dmm_order_free(old);
	return 0;
}

static int dmm_restore_set_record(struct dmm_restore *restore, const char *path)
{
	struct kvm_dmm_policy *policy = restore->policy;
	struct dmm_record *record = NULL, *old;

	lockdep_assert_held(&restore->lock);
	if (*path && restore->record)
		return -EBUSY;
	if (*path)
		record = dmm_record_start(path,
					  kvm_dmm_pool_pages(policy->pool));
	if (IS_ERR(record))
		return PTR_ERR(record);
	spin_lock(&restore->record_lock);
	old = restore->record;
	WRITE_ONCE(restore->record, record);
	spin_unlock(&restore->record_lock);
	return old ? dmm_record_finish(old) : 0;
}

/* Do what a path was written for. */
static int dmm_restore_store(struct kvm_dmm_policy *policy, const char *buf,
			     int (*set)(struct dmm_restore *restore,
					const char *path))
{
	struct dmm_restore *restore = policy->priv;
	char *path;
	int r;

	path = kstrdup(buf, GFP_KERNEL);
	if (!path)
		return -ENOMEM;
	path[strcspn(path, "\n")] = 0;
	r = mutex_lock_interruptible(&restore->lock);
	if (!r) {
		r = set(restore, path);
		mutex_unlock(&restore->lock);
	}
	kfree(path);
	return r;
}

static int image_store(struct kvm_dmm_policy *policy, const char *buf)
{
	struct dmm_restore *restore = policy->priv;
	int r = dmm_restore_store(policy, buf, dmm_restore_set);

	queue_work(dmm_restore_wq, &restore->notify);
	return r;
}

static int order_store(struct kvm_dmm_policy *policy, const char *buf)
{
	return dmm_restore_store(policy, buf, dmm_restore_set_order);
}

static int record_store(struct kvm_dmm_policy *policy, const char *buf)
{
	return dmm_restore_store(policy, buf, dmm_restore_set_record);
}

/* Pages of the order that are still to be mapped ahead of the guest. */
static ssize_t order_show(struct kvm_dmm_policy *policy, char *buf)
{
	struct dmm_restore *restore = policy->priv;
	unsigned long nr = 0;

	mutex_lock(&restore->order_lock);
	if (restore->order)
		nr = dmm_order_left(restore->order);
	mutex_unlock(&restore->order_lock);
	return sysfs_emit(buf, "%lu\n", nr);
}

/* Pages recorded so far. */
static ssize_t record_show(struct kvm_dmm_policy *policy, char *buf)
{
	struct dmm_restore *restore = policy->priv;
	unsigned long nr = 0;

	spin_lock(&restore->record_lock);
	if (restore->record)
		nr = dmm_record_pages(restore->record);
	spin_unlock(&restore->record_lock);
	return sysfs_emit(buf, "%lu\n", nr);
}

static ssize_t image_show(struct kvm_dmm_policy *policy, char *buf)
{
	struct dmm_restore *restore = policy->priv;
	ssize_t len = 0;
	char *path;

	mutex_lock(&restore->lock);
	if (restore->image) {
		path = file_path(restore->image, buf, PAGE_SIZE - 1);
		if (IS_ERR(path)) {
			len = PTR_ERR(path);
		} else {
			len = strlen(path);
			memmove(buf, path, len);
		}
	}
	mutex_unlock(&restore->lock);
	if (len >= 0)
		buf[len++] = '\n';
	return len;
}

/* Pages that are restored, or were given up; and @total, those to restore. */
static unsigned long dmm_restored(struct kvm_dmm_policy *policy,
				  unsigned long *total)
{
	struct dmm_restore *restore = policy->priv;
	unsigned long left = atomic_long_read(&restore->remaining);

	*total = READ_ONCE(restore->total);
	return *total - min(left, *total);
}

static ssize_t done_bytes_show(struct kvm_dmm_policy *policy, char *buf)
{
	unsigned long total, done = dmm_restored(policy, &total);

	return sysfs_emit(buf, "%llu\n", (u64)done << PAGE_SHIFT);
}

static ssize_t remaining_bytes_show(struct kvm_dmm_policy *policy, char *buf)
{
	unsigned long total, done = dmm_restored(policy, &total);

	return sysfs_emit(buf, "%llu\n", (u64)(total - done) << PAGE_SHIFT);
}

static ssize_t percent_show(struct kvm_dmm_policy *policy, char *buf)
{
	unsigned long total, done = dmm_restored(policy, &total);

	return sysfs_emit(buf, "%lu\n", total ? done * 100 / total : 100);
}

static const struct kvm_dmm_tunable dmm_restore_tunables[] = {
	/* Bytes a second that are restored in the background; 0: none. */
	[DMM_RATE] = {
		.name = "rate_bytes", .bytes = true,
		.def = 256ULL << 20, .max = 1ULL << 40,
	},
	{ .name = "image", .show = image_show, .store = image_store },
	{ .name = "done_bytes", .show = done_bytes_show },
	{ .name = "remaining_bytes", .show = remaining_bytes_show },
	{ .name = "percent", .show = percent_show },
	{ .name = "order", .show = order_show, .store = order_store },
	{ .name = "record", .show = record_show, .store = record_store },
	{}
};

/* The rate has changed: do not wait for the worker to find out. */
static void dmm_restore_tuned(struct kvm_dmm_policy *policy)
{
	struct dmm_restore *restore = policy->priv;

	mutex_lock(&restore->lock);
	if (restore->image)
		mod_delayed_work(dmm_restore_wq, &restore->filler, 0);
	mutex_unlock(&restore->lock);
}

static int dmm_restore_attach(struct kvm_dmm_policy *policy)
{
	struct dmm_restore *restore;

	restore = kzalloc(sizeof(*restore), GFP_KERNEL_ACCOUNT);
	if (!restore)
		return -ENOMEM;
	restore->policy = policy;
	restore->step = 1;
	mutex_init(&restore->lock);
	mutex_init(&restore->order_lock);
	spin_lock_init(&restore->record_lock);
	INIT_DELAYED_WORK(&restore->filler, dmm_filler_work);
	INIT_WORK(&restore->notify, dmm_restore_notify);
	policy->priv = restore;
	return 0;
}

static void dmm_restore_detach(struct kvm_dmm_policy *policy)
{
	struct dmm_restore *restore = policy->priv;

	/* The core has had every token fetched, or freed. */
	WARN_ON_ONCE(atomic_long_read(&restore->remaining));
	/*
	 * The files are gone, so nobody else has the lock.  Do not wait for it
	 * in name either: detaching happens under locks in which files are made,
	 * and with the lock files are opened.
	 */
	WARN_ON_ONCE(!mutex_trylock(&restore->lock));
	dmm_restore_put(restore);
	dmm_restore_set_order(restore, "");
	/* Nobody is left to be told that it cannot be written. */
	dmm_restore_set_record(restore, "");
	mutex_unlock(&restore->lock);
	cancel_work_sync(&restore->notify);
	kfree(restore);
}

static struct kvm_dmm_policy_ops dmm_restore_ops = {
	.name = "restore",
	.owner = THIS_MODULE,
	.tunables = dmm_restore_tunables,
	.counters = dmm_restore_counters,
	.attach = dmm_restore_attach,
	.detach = dmm_restore_detach,
	.fetch = dmm_restore_fetch,
	.free_token = dmm_restore_free_token,
	.lookup = dmm_restore_lookup,
	.publish = dmm_restore_publish,
	.ahead = dmm_restore_ahead,
	.tuned = dmm_restore_tuned,
};

static int __init dmm_restore_init(void)
{
	int r;

	dmm_restore_wq = alloc_workqueue("kvm_dmm_restore",
					 WQ_UNBOUND | WQ_FREEZABLE, 0);
	if (!dmm_restore_wq)
		return -ENOMEM;
	r = kvm_dmm_register_policy(&dmm_restore_ops);
	if (r)
		destroy_workqueue(dmm_restore_wq);
	return r;
}
module_init(dmm_restore_init);

static void __exit dmm_restore_exit(void)
{
	kvm_dmm_unregister_policy(&dmm_restore_ops);
	destroy_workqueue(dmm_restore_wq);
}
module_exit(dmm_restore_exit);

MODULE_DESCRIPTION("KVM dynamic memory mapping: lazy restore");
MODULE_ALIAS("kvm-dmm-policy-restore");
MODULE_LICENSE("GPL");
