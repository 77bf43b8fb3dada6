// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the swap policy's compression.
 *
 * Each CPU has what compression needs besides the page.  It is locked by a
 * mutex, since the caller allocates while it holds what came out.  Memory for
 * zstd is taken when zstd is first used.
 */
#include <linux/lz4.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/slab.h>
#include <linux/zstd.h>

#include "swap.h"

/**
 * struct dmm_codec - what a CPU compresses with
 * @lock: protects the rest
 * @out: a page for what comes out
 * @lz4: LZ4's memory
 * @zstd: zstd's memory, or NULL
 * @cctx: for compressing, in @zstd
 * @dctx: for decompressing, in @zstd
 */
struct dmm_codec {
	struct mutex lock;	/* see above */
	void *out;
	void *lz4;
	void *zstd;
	zstd_cctx *cctx;
	zstd_dctx *dctx;
};

static struct dmm_codec __percpu *dmm_codecs;

/* The codec that was the first to get memory for zstd; never goes away. */
static struct dmm_codec *dmm_first_zstd;

static zstd_parameters dmm_zstd_params;

/**
 * dmm_codec_get - use a codec
 *
 * Context: May sleep.
 * Return: The codec, locked.
 */
struct dmm_codec *dmm_codec_get(void)
{
	struct dmm_codec *codec = raw_cpu_ptr(dmm_codecs);

	mutex_lock(&codec->lock);
	return codec;
}

/**
 * dmm_codec_put - end the use of a codec
 * @codec: the codec, or NULL
 */
void dmm_codec_put(struct dmm_codec *codec)
{
	if (codec)
		mutex_unlock(&codec->lock);
}

/**
 * dmm_codec_page - a page to work with
 * @codec: a codec from dmm_codec_get()
 *
 * Return: The page, the caller's until the codec is put.
 */
void *dmm_codec_page(struct dmm_codec *codec)
{
	return codec->out;
}

/* Have memory for zstd in a codec: all that is ever needed. */
static bool dmm_codec_has_zstd(struct dmm_codec *codec)
{
	size_t csize, dsize;

	lockdep_assert_held(&codec->lock);
	if (codec->zstd)
		return true;
	csize = ALIGN(zstd_cctx_workspace_bound(&dmm_zstd_params.cParams), 64);
	dsize = zstd_dctx_workspace_bound();
	codec->zstd = kvmalloc(csize + dsize, DMM_SWAP_GFP);
	if (!codec->zstd)
		return false;
	codec->cctx = zstd_init_cctx(codec->zstd, csize);
	codec->dctx = zstd_init_dctx(codec->zstd + csize, dsize);
	if (WARN_ON_ONCE(!codec->cctx || !codec->dctx)) {
		kvfree(codec->zstd);
		codec->zstd = NULL;
		return false;
	}
	/* Published with its content. */
	cmpxchg(&dmm_first_zstd, NULL, codec);
	return true;
}

/**
 * dmm_compress - compress a page
 * @codec: the codec
 * @type: in: how it should be done; out: how it was done, as there may be no
 *	memory for zstd
 * @from: the page
 * @max: how large the result may be, at most a page
 * @to: out: the result, valid until the codec is put
 *
 * Context: May sleep.
 * Return: The size, or 0: the page does not compress to @max.
 */
int dmm_compress(struct dmm_codec *codec, enum dmm_codec_type *type,
		 const void *from, unsigned int max, const void **to)
{
	size_t size;

	*to = codec->out;
	if (*type == DMM_ZSTD && dmm_codec_has_zstd(codec)) {
		size = zstd_compress_cctx(codec->cctx, codec->out, max, from,
					  PAGE_SIZE, &dmm_zstd_params);
		return zstd_is_error(size) ? 0 : size;
	}
	*type = DMM_LZ4;
	return LZ4_compress_default(from, codec->out, PAGE_SIZE, max,
				    codec->lz4);
}

/**
 * dmm_codec_get_for - use a codec for decompressing
 * @type: how content was compressed
 *
 * Never lacks memory: where zstd compressed, there is a codec that has some.
 *
 * Context: May sleep.
 * Return: The codec, locked, or NULL if none is needed.
 */
struct dmm_codec *dmm_codec_get_for(enum dmm_codec_type type)
{
	struct dmm_codec *codec;

	if (type == DMM_LZ4)
		return NULL;
	codec = dmm_codec_get();
	if (dmm_codec_has_zstd(codec))
		return codec;
	dmm_codec_put(codec);
	codec = READ_ONCE(dmm_first_zstd);
	mutex_lock(&codec->lock);
	return codec;
}

/**
 * dmm_decompress - decompress a page
 * @codec: from dmm_codec_get_for()
 * @type: how it was compressed
 * @from: the compressed page
 * @size: its size
 * @to: the page
 *
 * Context: Does not sleep.
 * Return: False if that is not a compressed page.
 */
bool dmm_decompress(struct dmm_codec *codec, enum dmm_codec_type type,
		    const void *from, unsigned int size, void *to)
{
	if (type == DMM_LZ4)
		return LZ4_decompress_safe(from, to, size, PAGE_SIZE) ==
		       PAGE_SIZE;
	return zstd_decompress_dctx(codec->dctx, to, PAGE_SIZE, from, size) ==
	       PAGE_SIZE;
}

int dmm_codec_module_init(void)
{
	struct dmm_codec *codec;
	int cpu;

	dmm_zstd_params = zstd_get_params(zstd_default_clevel(), PAGE_SIZE);
	dmm_codecs = alloc_percpu(struct dmm_codec);
	if (!dmm_codecs)
		return -ENOMEM;
	for_each_possible_cpu(cpu) {
		codec = per_cpu_ptr(dmm_codecs, cpu);
		mutex_init(&codec->lock);
		codec->out = kmalloc_node(PAGE_SIZE, GFP_KERNEL,
					  cpu_to_node(cpu));
		codec->lz4 = kmalloc_node(LZ4_MEM_COMPRESS, GFP_KERNEL,
					  cpu_to_node(cpu));
		if (!codec->out || !codec->lz4) {
			dmm_codec_module_exit();
			return -ENOMEM;
		}
	}
	return 0;
}

void dmm_codec_module_exit(void)
{
	struct dmm_codec *codec;
	int cpu;

	for_each_possible_cpu(cpu) {
		codec = per_cpu_ptr(dmm_codecs, cpu);
		kfree(codec->out);
		kfree(codec->lz4);
		kvfree(codec->zstd);
	}
	free_percpu(dmm_codecs);
}
