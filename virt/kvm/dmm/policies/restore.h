/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping: what the files of the restore policy share.
 */
#ifndef _KVM_DMM_RESTORE_H
#define _KVM_DMM_RESTORE_H

#include <linux/types.h>

struct file;
struct kvm_dmm_pool;
struct kvm_dmm_shared;
struct page;

/* restore_image.c */
struct file *dmm_image_open(const char *path, pgoff_t pages);
void dmm_image_readahead(struct file *image, pgoff_t nr);
bool dmm_image_cached(struct file *image, pgoff_t nr);
int dmm_image_read(struct file *image, pgoff_t nr, struct page *page,
		   bool nowait);

/* restore_order.c */
struct dmm_order;
struct dmm_record;

struct dmm_order *dmm_order_load(const char *path, pgoff_t pages);
void dmm_order_free(struct dmm_order *order);
unsigned long dmm_order_left(const struct dmm_order *order);
bool dmm_order_has(struct dmm_order *order, pgoff_t index);
void dmm_order_touched(struct dmm_order *order, pgoff_t index);
bool dmm_order_next(struct dmm_order *order, pgoff_t *index);
bool dmm_order_fill(struct dmm_order *order, pgoff_t *index);
bool dmm_order_peek(struct dmm_order *order, unsigned long n, pgoff_t *index);

struct dmm_record *dmm_record_start(const char *path, pgoff_t pages);
void dmm_record_add(struct dmm_record *record, pgoff_t index);
unsigned long dmm_record_pages(const struct dmm_record *record);
int dmm_record_finish(struct dmm_record *record);

/* restore_share.c */
struct dmm_template;

struct dmm_template *dmm_template_get(struct file *image,
				      struct kvm_dmm_pool *pool);
void dmm_template_put(struct dmm_template *template);
struct kvm_dmm_shared *dmm_template_find(struct dmm_template *template,
					 pgoff_t nr);
void dmm_template_add(struct dmm_template *template, pgoff_t nr,
		      struct kvm_dmm_shared *shared);

#endif /* _KVM_DMM_RESTORE_H */
