// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: where the swap policy keeps content.
 *
 * A page of one repeated word is nothing but a token that says so.  Any other
 * is compressed, and the token leads to an object that says where it is.  What
 * cannot be compressed goes to the backing, if there is one; the token leads to
 * the slot then.
 */
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/wait_bit.h>
#include <linux/zsmalloc.h>

#include "swap.h"

/*
 * Tokens:
 *
 *	51   50 49                                      0
 *	+------+----------------------------------------+
 *	| kind | payload                                |
 *	+------+----------------------------------------+
 */
#define DMM_TOKEN_KIND_SHIFT	50
#define DMM_TOKEN_PAYLOAD	GENMASK_ULL(DMM_TOKEN_KIND_SHIFT - 1, 0)

/**
 * enum dmm_token_kind - what a token means
 * @DMM_TOKEN_OBJECT: physical address of a struct dmm_object, in units of 8
 * @DMM_TOKEN_WORD: the page is filled with this number
 * @DMM_TOKEN_HALF: the page is filled with these 32 bits
 * @DMM_TOKEN_SLOT: physical address of a struct dmm_slot, in units of 8
 */
enum dmm_token_kind {
	DMM_TOKEN_OBJECT,
	DMM_TOKEN_WORD,
	DMM_TOKEN_HALF,
	DMM_TOKEN_SLOT,
};

/**
 * struct dmm_object - the content of a page, somewhere
 * @handle: of the compressed content
 * @word: without compressed content: what the page is filled with
 * @refs: tokens that lead here, all of the pool
 * @size: of the compressed content in bytes; 0: there is none
 * @type: enum dmm_codec_type
 *
 * Does not change as long as there is a token.
 */
struct dmm_object {
	union {
		unsigned long handle;
		u64 word;
	};
	refcount_t refs;
	u16 size;
	u8 type;
};

static struct kmem_cache *dmm_object_cache;
static unsigned int dmm_object_max;	/* a larger one would take a page */

static u64 dmm_mk_store_token(enum dmm_token_kind kind, u64 payload)
{
	return (u64)kind << DMM_TOKEN_KIND_SHIFT | payload;
}

static enum dmm_token_kind dmm_token_kind(u64 token)
{
	return token >> DMM_TOKEN_KIND_SHIFT;
}

static u64 dmm_object_token(struct dmm_object *object)
{
	return dmm_mk_store_token(DMM_TOKEN_OBJECT, virt_to_phys(object) >> 3);
}

static struct dmm_object *dmm_token_object(u64 token)
{
	return phys_to_virt((token & DMM_TOKEN_PAYLOAD) << 3);
}

/**
 * dmm_slot_token - the token that leads to a slot
 * @slot: the slot
 *
 * Return: The token.
 */
u64 dmm_slot_token(struct dmm_slot *slot)
{
	return dmm_mk_store_token(DMM_TOKEN_SLOT, virt_to_phys(slot) >> 3);
}

static struct dmm_slot *dmm_token_slot(u64 token)
{
	return phys_to_virt((token & DMM_TOKEN_PAYLOAD) << 3);
}

static u64 dmm_token_word(u64 token)
{
	u64 v = token & DMM_TOKEN_PAYLOAD;

	return dmm_token_kind(token) == DMM_TOKEN_WORD ? v : v << 32 | v;
}

/*
 * Keep the pool's charge what zsmalloc has.  Of two the first may come last, with
 * what is old by then: so each looks again, and the last one sees the truth.
 */
static void dmm_store_charge(struct dmm_swap_store *store)
{
	long now, old;

	while ((now = zs_get_total_pages(store->zs)) !=
	       atomic_long_read(&store->charged)) {
		old = atomic_long_xchg(&store->charged, now);
		kvm_dmm_charge_compressed(store->policy->pool,
					  (now - old) * (long)PAGE_SIZE);
	}
}

static bool dmm_same_filled(const u64 *p, u64 *word)
{
	const unsigned int n = PAGE_SIZE / sizeof(*p);
	u64 any = p[0], all = p[0];
	unsigned int i;

	*word = p[0];
	/* Most other pages are found out here. */
	if (p[1] != p[0] || p[n / 2] != p[0] || p[n - 1] != p[0])
		return false;
	for (i = 0; i < n; i += 8) {
		any |= p[i] | p[i + 1] | p[i + 2] | p[i + 3] |
		       p[i + 4] | p[i + 5] | p[i + 6] | p[i + 7];
		all &= p[i] & p[i + 1] & p[i + 2] & p[i + 3] &
		       p[i + 4] & p[i + 5] & p[i + 6] & p[i + 7];
	}
	return any == all;
}

static struct dmm_object *dmm_object_alloc(void)
{
	struct dmm_object *object;

	object = kmem_cache_alloc(dmm_object_cache, DMM_SWAP_GFP);
	if (object)
		refcount_set(&object->refs, 1);
	return object;
}

/* One token less: forget what an object has, and the object, with the last. */
static void dmm_object_put(struct dmm_swap_store *store,
			   struct dmm_object *object)
{
	if (!refcount_dec_and_test(&object->refs))
		return;
	if (object->size) {
		zs_free(store->zs, object->handle);
		dmm_store_charge(store);
	}
	kmem_cache_free(dmm_object_cache, object);
}

static int dmm_store_same(u64 word, u64 *token)
{
	struct dmm_object *object;

	if (word <= DMM_TOKEN_PAYLOAD) {
		*token = dmm_mk_store_token(DMM_TOKEN_WORD, word);
		return 0;
	}
	if (word >> 32 == (u32)word) {
		*token = dmm_mk_store_token(DMM_TOKEN_HALF, (u32)word);
		return 0;
	}
	object = dmm_object_alloc();
	if (!object)
		return -ENOMEM;
	object->word = word;
	object->size = 0;
	*token = dmm_object_token(object);
	return 0;
}

/* How many pages of memory compressed content may take. */
static unsigned long dmm_store_max(struct dmm_swap_store *store)
{
	u64 percent = kvm_dmm_value(store->policy, DMM_SWAP_MAX_COMPRESSED);

	return kvm_dmm_pool_max(store->policy->pool) * percent / 100;
}

static bool dmm_store_full(struct dmm_swap_store *store)
{
	return atomic_long_read(&store->charged) >= dmm_store_max(store);
}

/**
 * dmm_store_excess - should compressed content take less memory?
 * @store: the store
 *
 * Context: Any.
 * Return: Pages of memory above seven eighths of what it may take.
 */
unsigned long dmm_store_excess(struct dmm_swap_store *store)
{
	unsigned long max = dmm_store_max(store);
	unsigned long now = atomic_long_read(&store->charged);

	max -= max / 8;
	return now > max ? now - max : 0;
}

/**
 * dmm_store_has_room - is there a backing with room?
 * @store: the store
 *
 * Context: Any.
 * Return: True if so.
 */
bool dmm_store_has_room(struct dmm_swap_store *store)
{
	bool room;

	spin_lock(&store->lock);
	room = store->backing && !dmm_backing_crowded(store->backing);
	spin_unlock(&store->lock);
	return room;
}

/**
 * dmm_store_wants_room - should copies in the backing go?
 * @store: the store
 *
 * Context: Any.
 * Return: True if there is a backing, and it is still rather full.
 */
bool dmm_store_wants_room(struct dmm_swap_store *store)
{
	bool wants;

	spin_lock(&store->lock);
	wants = store->backing && dmm_backing_wants_room(store->backing);
	spin_unlock(&store->lock);
	return wants;
}

static int dmm_store_compressed(struct dmm_swap_store *store, const void *kaddr,
				u64 *token)
{
	enum dmm_codec_type type = kvm_dmm_value(store->policy,
						 DMM_SWAP_COMPRESSOR);
	struct dmm_object *object;
	struct dmm_codec *codec;
	unsigned long handle;
	const void *data;
	unsigned int size;
	int r = -ENOMEM;
	void *to;

	if (dmm_store_full(store))
		return -ENOSPC;
	object = dmm_object_alloc();
	if (!object)
		return -ENOMEM;
	codec = dmm_codec_get();
	size = dmm_compress(codec, &type, kaddr, dmm_object_max, &data);
	if (!size) {
		r = -E2BIG;
		goto put;
	}
	handle = zs_malloc(store->zs, size, DMM_SWAP_GFP | __GFP_HIGHMEM |
			   __GFP_MOVABLE);
	if (IS_ERR_VALUE(handle))
		goto put;
	to = zs_map_object(store->zs, handle, ZS_MM_WO);
	memcpy(to, data, size);
	zs_unmap_object(store->zs, handle);
	dmm_codec_put(codec);
	dmm_store_charge(store);

	object->handle = handle;
	object->size = size;
	object->type = type;
	*token = dmm_object_token(object);
	return 0;
put:
	dmm_codec_put(codec);
	kmem_cache_free(dmm_object_cache, object);
	return r;
}

/* A page cannot be stored; returns why. */
static int dmm_store_reject(struct dmm_swap_store *store, int why)
{
	enum dmm_swap_stat stat = why == -E2BIG ?
		DMM_SWAP_reject_incompressible : why == -ENOSPC ?
		DMM_SWAP_reject_full : DMM_SWAP_reject_nomem;

	kvm_dmm_policy_count(store->policy, stat, 1);
	return why;
}

/* A token for what a page has; @same: it takes no memory. */
static int dmm_store_content(struct dmm_swap_store *store, struct page *page,
			     u64 *token, bool *same)
{
	void *kaddr = kmap_local_page(page);
	u64 word;
	int r;

	*same = dmm_same_filled(kaddr, &word);
	r = *same ? dmm_store_same(word, token) :
		    dmm_store_compressed(store, kaddr, token);
	kunmap_local(kaddr);
	return r;
}

/* What cannot be stored in memory, because of @why, goes to the backing. */
static int dmm_store_write(struct dmm_swap_store *store,
			   struct kvm_dmm_batch *batch, pgoff_t index,
			   struct page *page, bool shared,
			   struct dmm_writer *writer, int why)
{
	int r = dmm_writer_add(writer, batch, index, page, shared);

	if (r)
		return r == -EAGAIN ? r : dmm_store_reject(store, why);
	/* Rather than this one, older ones should go there. */
	if (why == -ENOSPC && atomic_long_read(&store->charged))
		queue_work(dmm_swap_wq, &writer->swap->writeback_work);
	return -EINPROGRESS;
}

/*
 * May the copy of a page be out of reach, in a backing that fails?  Then the frame
 * does not go for it.  Of a clone, the backing need not be the pool's own.
 */
static bool dmm_store_doubts(u64 token)
{
	return dmm_token_kind(token) == DMM_TOKEN_SLOT &&
	       READ_ONCE(dmm_token_slot(token)->backing->failing);
}

/**
 * dmm_store_page - replace a frame of a batch by a token
 * @store: the store
 * @batch: a batch after kvm_dmm_batch_take()
 * @index: page offset of a frame in it
 * @writer: takes what cannot be stored in memory
 *
 * Context: May sleep.
 * Return: 0; -EINPROGRESS: @writer has it; -E2BIG: the content does not
 *	compress; -ENOSPC: compressed content takes as much as it may; -ENOMEM;
 *	-EAGAIN: the backing has enough to do; -EBUSY: the policy is being detached.
 *	On error the frame stays.
 */
int dmm_store_page(struct dmm_swap_store *store, struct kvm_dmm_batch *batch,
		   pgoff_t index, struct dmm_writer *writer)
{
	struct dmm_swap_region *region = dmm_swap_region(writer->swap, index);
	struct kvm_dmm_policy *policy = store->policy;
	struct page *page = kvm_dmm_batch_page(batch, index);
	bool same;
	u64 token;
	int r;

	if (kvm_dmm_batch_copy(batch, policy, index, &token) &&
	    !dmm_store_doubts(token) &&
	    !kvm_dmm_batch_kept(batch, policy, index)) {
		kvm_dmm_policy_count(policy, DMM_SWAP_out_kept, 1);
		if (dmm_store_in_memory(token))
			set_bit(dmm_swap_nr(index), region->packed);
		return 0;
	}
	r = dmm_store_content(store, page, &token, &same);
	if (r)
		return dmm_store_write(store, batch, index, page, false, writer,
				       r);
	r = kvm_dmm_batch_token(batch, policy, index, token);
	if (r)
		dmm_store_free(store, token);
	else
		kvm_dmm_policy_count(policy, same ? DMM_SWAP_out_same :
				     DMM_SWAP_out_compressed, 1);
	if (!r && !same)
		set_bit(dmm_swap_nr(index), region->packed);
	return r;
}

/**
 * dmm_store_shared - replace a shared frame by tokens
 * @store: the store
 * @batch: a batch with the entry
 * @index: page offset
 * @page: the frame, which the pool is charged for
 * @writer: takes what cannot be stored in memory
 *
 * The pool gets room for itself: compressed content is charged to it, so others
 * go on using the frame, and one of them is charged for it.  What takes no
 * memory goes out for all, unless they have accessed it.
 *
 * Context: May sleep.
 * Return: As dmm_store_page(); -E2BIG also: somebody holds the page.
 */
int dmm_store_shared(struct dmm_swap_store *store, struct kvm_dmm_batch *batch,
		     pgoff_t index, struct page *page,
		     struct dmm_writer *writer)
{
	struct dmm_swap_region *region = dmm_swap_region(writer->swap, index);
	struct kvm_dmm_policy *policy = store->policy;
	bool same;
	u64 token;
	int r;

	r = dmm_store_content(store, page, &token, &same);
	if (r)
		return dmm_store_write(store, batch, index, page, true, writer,
				       r);
	r = kvm_dmm_batch_token_shared(batch, policy, index, token,
				       same ? KVM_DMM_USERS_OTHERS : 0);
	if (r < 0) {
		dmm_store_free(store, token);
		return r == -EBUSY ? -E2BIG : r;
	}
	kvm_dmm_policy_count(policy, same ? DMM_SWAP_out_same :
			     DMM_SWAP_out_compressed, 1);
	kvm_dmm_policy_count(policy, DMM_SWAP_out_shared, 1);
	if (!same)
		set_bit(dmm_swap_nr(index), region->packed);
	return 0;
}

static int dmm_store_decompress(struct dmm_swap_store *store,
				struct dmm_object *object, void *kaddr)
{
	struct dmm_codec *codec = dmm_codec_get_for(object->type);
	const void *from;
	bool ok;

	from = zs_map_object(store->zs, object->handle, ZS_MM_RO);
	ok = dmm_decompress(codec, object->type, from, object->size, kaddr);
	zs_unmap_object(store->zs, object->handle);
	dmm_codec_put(codec);
	return WARN_ON_ONCE(!ok) ? -EIO : 0;
}

static void dmm_store_free_slot(struct dmm_swap_store *store, u64 token)
{
	dmm_slot_put(dmm_token_slot(token));
	atomic_long_dec(&store->nr_slots);
}

static int dmm_store_fetch_slot(struct dmm_swap_store *store, u64 token,
				struct page *page, unsigned int flags)
{
	struct dmm_slot *slot = dmm_token_slot(token);
	int r = dmm_slot_fetch(store, slot, page, flags);

	if (r)
		return r;
	/* A copy there costs nothing as long as nobody else needs the room. */
	if (!dmm_backing_crowded(slot->backing))
		return 1;
	dmm_store_free_slot(store, token);
	return 0;
}

/**
 * dmm_store_fetch - bring content back
 * @store: the store
 * @token: the token
 * @page: where the content goes
 * @flags: KVM_DMM_FETCH_*
 *
 * Context: May sleep.
 * Return: 0 if the token is used up; 1 if the store would rather keep it; or as
 *	dmm_slot_fetch().
 */
int dmm_store_fetch(struct dmm_swap_store *store, u64 token, struct page *page,
		    unsigned int flags)
{
	struct kvm_dmm_policy *policy = store->policy;
	enum dmm_token_kind kind = dmm_token_kind(token);
	struct dmm_object *object = NULL;
	void *kaddr;
	int r = 0;

	if (kind == DMM_TOKEN_SLOT)
		return dmm_store_fetch_slot(store, token, page, flags);

	kaddr = kmap_local_page(page);
	if (kind == DMM_TOKEN_OBJECT)
		object = dmm_token_object(token);
	if (!object || !object->size) {
		memset64(kaddr, object ? object->word : dmm_token_word(token),
			 PAGE_SIZE / sizeof(u64));
		kvm_dmm_policy_count(policy, DMM_SWAP_in_same, 1);
		if (object)
			dmm_object_put(store, object);
	} else {
		r = dmm_store_decompress(store, object, kaddr);
		kvm_dmm_policy_count(policy, DMM_SWAP_in_compressed, 1);
		if (!r && kvm_dmm_pool_room(policy->pool) >=
			  kvm_dmm_pool_max(policy->pool) / 16)
			r = 1;
		else if (!r)
			dmm_object_put(store, object);
	}
	kunmap_local(kaddr);
	return r;
}

/**
 * dmm_store_is_same - is content one repeated word?
 * @token: the token
 *
 * Context: The token's entry is busy.
 * Return: True if so: to bring it back takes next to nothing.
 */
bool dmm_store_is_same(u64 token)
{
	switch (dmm_token_kind(token)) {
	case DMM_TOKEN_OBJECT:
		return !dmm_token_object(token)->size;
	case DMM_TOKEN_SLOT:
		return false;
	default:
		return true;
	}
}

/**
 * dmm_store_in_memory - does a copy take memory?
 * @token: the token of a kept copy
 *
 * Return: False if it is in the backing.
 */
bool dmm_store_in_memory(u64 token)
{
	return dmm_token_kind(token) != DMM_TOKEN_SLOT;
}

/**
 * dmm_store_free - forget content
 * @store: the store
 * @token: the token
 *
 * Context: May sleep.
 */
void dmm_store_free(struct dmm_swap_store *store, u64 token)
{
	if (dmm_token_kind(token) == DMM_TOKEN_OBJECT)
		dmm_object_put(store, dmm_token_object(token));
	else if (dmm_token_kind(token) == DMM_TOKEN_SLOT)
		dmm_store_free_slot(store, token);
}

/* Copy what an object has, as it is, for another pool. */
static int dmm_object_copy(struct dmm_swap_store *store,
			   struct dmm_object *object, struct dmm_swap_store *to,
			   u64 *new)
{
	struct dmm_object *copy;
	struct dmm_codec *codec;
	const void *from;
	void *data;

	if (object->size && (dmm_store_full(to) ||
			     !kvm_dmm_pool_room(to->policy->pool)))
		return -ENOSPC;
	copy = dmm_object_alloc();
	if (!copy)
		return -ENOMEM;
	*copy = *object;
	refcount_set(&copy->refs, 1);
	if (object->size) {
		copy->handle = zs_malloc(to->zs, object->size, DMM_SWAP_GFP |
					 __GFP_HIGHMEM | __GFP_MOVABLE);
		if (IS_ERR_VALUE(copy->handle)) {
			kmem_cache_free(dmm_object_cache, copy);
			return -ENOMEM;
		}
		/* zsmalloc maps one object at a time. */
		codec = dmm_codec_get();
		data = dmm_codec_page(codec);
		from = zs_map_object(store->zs, object->handle, ZS_MM_RO);
		memcpy(data, from, object->size);
		zs_unmap_object(store->zs, object->handle);
		memcpy(zs_map_object(to->zs, copy->handle, ZS_MM_WO), data,
		       object->size);
		zs_unmap_object(to->zs, copy->handle);
		dmm_codec_put(codec);
		dmm_store_charge(to);
	}
	*new = dmm_object_token(copy);
	return 0;
}

/* Files can have more tokens than a counter has room for. */
static bool dmm_store_ref(refcount_t *refs)
{
	/* For all that look at the same time the other half is there. */
	if (refcount_read(refs) >= INT_MAX / 2)
		return false;
	refcount_inc(refs);
	return true;
}

/**
 * dmm_store_dup - have two tokens for the same content
 * @store: the store
 * @token: the token
 * @to: where it is to have another, perhaps the same store
 * @new: out: that token
 *
 * A slot is shared, and in one pool compressed content is.  For another pool it
 * is copied: it is charged to a pool, and pools come and go.
 *
 * Context: May sleep.
 * Return: 0; -ENOSPC: compressed content of @to takes as much as it may, or the
 *	pool is at its limit; -EMLINK: there are 2^30 for it; -ENOMEM.
 */
int dmm_store_dup(struct dmm_swap_store *store, u64 token,
		  struct dmm_swap_store *to, u64 *new)
{
	switch (dmm_token_kind(token)) {
	case DMM_TOKEN_OBJECT:
		if (store != to)
			return dmm_object_copy(store, dmm_token_object(token),
					       to, new);
		if (!dmm_store_ref(&dmm_token_object(token)->refs))
			return -EMLINK;
		break;
	case DMM_TOKEN_SLOT:
		if (!dmm_store_ref(&dmm_token_slot(token)->refs))
			return -EMLINK;
		atomic_long_inc(&to->nr_slots);
		break;
	default:
		break;
	}
	*new = token;
	return 0;
}

/* Have another backing; returns the old one, and takes the reference over. */
static struct dmm_backing *dmm_store_change_backing(struct dmm_swap_store *store,
						    struct dmm_backing *backing)
{
	struct dmm_backing *old = store->backing;

	lockdep_assert_held(&store->lock);
	if (old) {
		spin_lock(&old->lock);
		list_del(&store->sharing);
		spin_unlock(&old->lock);
	}
	store->backing = backing;
	if (backing) {
		spin_lock(&backing->lock);
		list_add_tail(&store->sharing, &backing->stores);
		spin_unlock(&backing->lock);
	}
	return old;
}

/**
 * dmm_store_set_backing - choose the file or device for what is to be written
 * @store: the store
 * @path: its path; "" or "none": no more
 *
 * Context: May sleep.  No lock is held that is needed to make a file.
 * Return: 0; -EBUSY: there is one, and content of the pool is in a backing, or on
 *	its way; or as dmm_backing_open().
 */
int dmm_store_set_backing(struct dmm_swap_store *store, const char *path)
{
	struct dmm_backing *backing = NULL;
	int r = 0;

	if (*path && strcmp(path, "none")) {
		backing = dmm_backing_open(path);
		if (IS_ERR(backing))
			return PTR_ERR(backing);
	}
	/* Nothing is read ahead that could be wanted later. */
	dmm_window_drop(store);
	spin_lock(&store->lock);
	/* Without one, what it has in others came by cloning, and may stay. */
	if (store->backing && backing != store->backing &&
	    (atomic_read(&store->nr_io) || atomic_long_read(&store->nr_slots)))
		r = -EBUSY;
	else
		backing = dmm_store_change_backing(store, backing);
	spin_unlock(&store->lock);
	dmm_backing_put(backing);
	return r;
}

/**
 * dmm_store_show_backing - print the path of the backing
 * @store: the store
 * @buf: a page
 *
 * Context: May sleep.
 * Return: Length or -errno.
 */
ssize_t dmm_store_show_backing(struct dmm_swap_store *store, char *buf)
{
	struct dmm_backing *backing;
	ssize_t len;

	spin_lock(&store->lock);
	backing = store->backing;
	if (backing)
		refcount_inc(&backing->refs);
	spin_unlock(&store->lock);
	len = dmm_backing_path(backing, buf);
	dmm_backing_put(backing);
	return len;
}

/**
 * dmm_store_compact - give memory back that lies between compressed pages
 * @store: the store
 *
 * Context: May sleep.
 */
void dmm_store_compact(struct dmm_swap_store *store)
{
	zs_compact(store->zs);
	dmm_store_charge(store);
}

/**
 * dmm_store_init - make the store of a pool
 * @store: the store
 * @policy: the policy that is being attached
 *
 * Return: 0 or -ENOMEM.
 */
int dmm_store_init(struct dmm_swap_store *store, struct kvm_dmm_policy *policy)
{
	char name[32];

	snprintf(name, sizeof(name), "kvm-dmm-%lu",
		 kvm_dmm_pool_ino(policy->pool));
	store->policy = policy;
	atomic_long_set(&store->charged, 0);
	spin_lock_init(&store->lock);
	INIT_LIST_HEAD(&store->reads);
	store->read_next = U64_MAX;
	store->zs = zs_create_pool(name);
	return store->zs ? 0 : -ENOMEM;
}

/**
 * dmm_store_drain - wait until the backing has done what it was given, and leave
 * @store: the store, which gives it no more
 *
 * Context: May sleep until the device has done it.
 */
void dmm_store_drain(struct dmm_swap_store *store)
{
	struct dmm_backing *backing;

	wait_var_event(&store->nr_io, !atomic_read(&store->nr_io));
	dmm_window_drop(store);
	spin_lock(&store->lock);
	backing = dmm_store_change_backing(store, NULL);
	spin_unlock(&store->lock);
	dmm_backing_put(backing);
}

/**
 * dmm_store_exit - remove a store without content
 * @store: the store, after dmm_store_drain()
 */
void dmm_store_exit(struct dmm_swap_store *store)
{
	WARN_ON_ONCE(atomic_long_read(&store->nr_slots));
	/* zsmalloc frees empty pages in the background. */
	kvm_dmm_charge_compressed(store->policy->pool,
				  -atomic_long_xchg(&store->charged, 0) *
				  (long)PAGE_SIZE);
	zs_destroy_pool(store->zs);
}

int dmm_store_module_init(void)
{
	struct zs_pool *zs;

	dmm_object_cache = KMEM_CACHE(dmm_object, 0);
	if (!dmm_object_cache)
		return -ENOMEM;
	/* zsmalloc works this out for the first pool. */
	zs = zs_create_pool("kvm-dmm");
	if (!zs) {
		kmem_cache_destroy(dmm_object_cache);
		return -ENOMEM;
	}
	dmm_object_max = min(zs_huge_class_size(zs) - 1, PAGE_SIZE - 1);
	zs_destroy_pool(zs);
	return 0;
}

void dmm_store_module_exit(void)
{
	kmem_cache_destroy(dmm_object_cache);
}
