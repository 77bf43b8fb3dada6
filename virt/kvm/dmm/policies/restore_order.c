// SPDX-License-Identifier: GPL-2.0
/*
 * Dynamic memory mapping: the order in which a guest touches its memory.
 *
 * It is written down while one guest starts and read ahead of the next.  The
 * file is text, the number of a page in each line, so that it can be cut,
 * joined and looked at.
 */
#include <linux/bitmap.h>
#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm_dmm.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "restore.h"

/* Pages that are numbered: kvmalloc() gives no more than INT_MAX bytes. */
#define DMM_ORDER_MAX	((INT_MAX - PAGE_SIZE) / sizeof(u32))

/**
 * struct dmm_order - an order that is replayed
 * @pages: size of the guest's memory when it was read
 * @nr: number of pages
 * @next: of these, those that were mapped ahead of the guest, or tried to
 * @fill: those that were read in the background
 * @wanted: pages that are in the order and were not touched or mapped yet
 * @page: page offsets
 */
struct dmm_order {
	pgoff_t pages;
	unsigned long nr;
	unsigned long next;
	unsigned long fill;
	unsigned long *wanted;
	u32 page[];
};

/**
 * struct dmm_record - an order that is being recorded
 * @file: where it is written to at the end
 * @nr: number of pages
 * @max: room
 * @page: page offsets
 */
struct dmm_record {
	struct file *file;
	unsigned long nr;
	unsigned long max;
	u32 page[];
};

/* Add the number that a line has; each page once. */
static void dmm_order_add(struct dmm_order *order, u64 index)
{
	if (!__test_and_set_bit(index, order->wanted))
		order->page[order->nr++] = index;
}

static int dmm_order_read(struct dmm_order *order, struct file *file)
{
	char *buf = (char *)__get_free_page(GFP_KERNEL);
	bool digits = false;
	loff_t pos = 0;
	u64 index = 0;
	ssize_t n, i;
	int r = 0;

	if (!buf)
		return -ENOMEM;
	while (!r && (n = kernel_read(file, buf, PAGE_SIZE, &pos)) > 0) {
		for (i = 0; i < n && !r; i++) {
			if (isdigit(buf[i])) {
				index = index * 10 + buf[i] - '0';
				digits = true;
				/* Before it can overflow. */
				if (index >= order->pages)
					r = -ERANGE;
			} else if (buf[i] == '\n' && digits) {
				dmm_order_add(order, index);
				index = 0;
				digits = false;
			} else if (buf[i] != '\n') {
				r = -EINVAL;
			}
		}
		cond_resched();
	}
	if (!r && n < 0)
		r = n;
	if (!r && digits)
		dmm_order_add(order, index);
	free_page((unsigned long)buf);
	return r;
}

/**
 * dmm_order_load - read an order
 * @path: its file
 * @pages: size of the guest's memory
 *
 * Return: The order; -EINVAL: not an order; -ERANGE: it has pages that the guest
 *	has not; -EFBIG: the guest has too many; -ENOMEM; or as kvm_dmm_open().
 */
struct dmm_order *dmm_order_load(const char *path, pgoff_t pages)
{
	struct dmm_order *order;
	struct file *file;
	int r;

	if (pages > DMM_ORDER_MAX)
		return ERR_PTR(-EFBIG);
	file = kvm_dmm_open(path, O_RDONLY, false);
	if (IS_ERR(file))
		return ERR_CAST(file);
	r = -ENOMEM;
	order = kvzalloc(struct_size(order, page, pages), GFP_KERNEL_ACCOUNT);
	if (!order)
		goto put;
	order->wanted = kvcalloc(BITS_TO_LONGS(pages), sizeof(long),
				 GFP_KERNEL_ACCOUNT);
	if (!order->wanted)
		goto free;
	order->pages = pages;
	r = dmm_order_read(order, file);
	if (r)
		goto free;
	fput(file);
	return order;
free:
	dmm_order_free(order);
put:
	fput(file);
	return ERR_PTR(r);
}

/**
 * dmm_order_free - free an order
 * @order: the order or NULL
 */
void dmm_order_free(struct dmm_order *order)
{
	if (order)
		kvfree(order->wanted);
	kvfree(order);
}

/* Number of pages that are still to be mapped ahead of the guest. */
unsigned long dmm_order_left(const struct dmm_order *order)
{
	return order->nr - order->next;
}

/* Has the order a page that was neither touched nor mapped ahead? */
bool dmm_order_has(struct dmm_order *order, pgoff_t index)
{
	return index < order->pages && test_bit(index, order->wanted);
}

/* Forget a page of the order that was touched or mapped. */
void dmm_order_touched(struct dmm_order *order, pgoff_t index)
{
	__clear_bit(index, order->wanted);
}

/* The next page to map ahead of the guest; false at the end. */
bool dmm_order_next(struct dmm_order *order, pgoff_t *index)
{
	while (order->next < order->nr) {
		*index = order->page[order->next++];
		if (dmm_order_has(order, *index))
			return true;
	}
	return false;
}

/* The @n-th page after those that dmm_order_next() has given, if there is one. */
bool dmm_order_peek(struct dmm_order *order, unsigned long n, pgoff_t *index)
{
	if (n >= order->nr - order->next)
		return false;
	*index = order->page[order->next + n];
	return true;
}

/* The next page to read in the background; false at the end. */
bool dmm_order_fill(struct dmm_order *order, pgoff_t *index)
{
	/* What was mapped need not be read. */
	order->fill = max(order->fill, order->next);
	if (order->fill >= order->nr)
		return false;
	*index = order->page[order->fill++];
	return true;
}

/**
 * dmm_record_start - begin to record an order
 * @path: file to be written at the end; made if there is none, and until then
 *	left as it is
 * @pages: size of the guest's memory
 *
 * Return: The record; -EINVAL: the guest has no memory; -EFBIG: it has too many
 *	pages; -ENOMEM; or as kvm_dmm_open().
 */
struct dmm_record *dmm_record_start(const char *path, pgoff_t pages)
{
	struct dmm_record *record;
	struct file *file;

	if (!pages)
		return ERR_PTR(-EINVAL);
	if (pages > DMM_ORDER_MAX)
		return ERR_PTR(-EFBIG);
	record = kvzalloc(struct_size(record, page, pages), GFP_KERNEL_ACCOUNT);
	if (!record)
		return ERR_PTR(-ENOMEM);
	file = kvm_dmm_open(path, O_WRONLY | O_CREAT, false);
	if (IS_ERR(file)) {
		kvfree(record);
		return ERR_CAST(file);
	}
	record->max = pages;
	record->file = file;
	return record;
}

/**
 * dmm_record_add - record that a page was touched
 * @record: the record; the caller serializes
 * @index: page offset
 */
void dmm_record_add(struct dmm_record *record, pgoff_t index)
{
	if (record->nr < record->max)
		record->page[record->nr++] = index;
}

/* Number of pages recorded so far. */
unsigned long dmm_record_pages(const struct dmm_record *record)
{
	return record->nr;
}

/* As with O_TRUNC: who ends the recording need not be who opened the file. */
static int dmm_record_empty(struct dmm_record *record)
{
	const struct cred *cred = override_creds(record->file->f_cred);
	int r = vfs_truncate(&record->file->f_path, 0);

	revert_creds(cred);
	return r;
}

/**
 * dmm_record_finish - write a record into its file, and free it
 * @record: the record
 *
 * Return: 0, or the error of writing.
 */
int dmm_record_finish(struct dmm_record *record)
{
	char *buf = (char *)__get_free_page(GFP_KERNEL);
	unsigned long i = 0;
	loff_t pos = 0;
	ssize_t n;
	int len;

	if (buf)
		n = dmm_record_empty(record);
	else
		n = -ENOMEM;
	while (n >= 0 && i < record->nr) {
		/* A number and its newline take up to 11 bytes. */
		for (len = 0; i < record->nr && len < PAGE_SIZE - 12; i++)
			len += scnprintf(buf + len, PAGE_SIZE - len, "%u\n",
					 record->page[i]);
		n = kernel_write(record->file, buf, len, &pos);
		if (n >= 0 && n < len)
			n = -ENOSPC;
		cond_resched();
	}
	free_page((unsigned long)buf);
	fput(record->file);
	kvfree(record);
	return n < 0 ? n : 0;
}
