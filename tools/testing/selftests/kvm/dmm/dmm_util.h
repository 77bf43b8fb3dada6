/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What tests of dynamic memory mapping share: a dmmfs file, its pool in sysfs,
 * and guests that do as they are told.
 */
#ifndef SELFTEST_KVM_DMM_UTIL_H
#define SELFTEST_KVM_DMM_UTIL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define DMMFS_MAGIC		0x444d4d46
#define DMM_PAGE		4096UL
#define DMM_BLOCK		(2UL << 20)
#define DMM_MAX_VCPUS		4

/* Where tests put dmmfs memory: 2 MiB aligned, away from slot 0. */
#define DMM_GPA			(4UL << 30)
#define DMM_SLOT		10

/* Emulated hosts are slow, those with a debug kernel more so. */
#define DMM_TIMEOUT		300
#define DMM_TEST(fixture, name)	TEST_F_TIMEOUT(fixture, name, DMM_TIMEOUT)

/**
 * struct dmm_mem - a dmmfs file
 * @fd: the file, -1 when closed
 * @size: its size in bytes
 * @hva: a shared mapping of all of it, NULL when unmapped
 * @ino: its inode number, by which sysfs knows its pool
 */
struct dmm_mem {
	int fd;
	uint64_t size;
	void *hva;
	unsigned long ino;
};

uint64_t dmm_blocks(struct dmm_mem *mem);
struct dmm_mem dmm_mem_create(uint64_t size);
struct dmm_mem dmm_mem_create_static(uint64_t size);
/* From now on fill only what is touched: for tests that count pages. */
void dmm_mem_exact(const struct dmm_mem *mem);
struct dmm_mem dmm_mem_create_exact(uint64_t size);
void dmm_mem_unmap(struct dmm_mem *mem);
void dmm_mem_close(struct dmm_mem *mem);
/* Has the kernel check the pool before. */
void dmm_mem_free(struct dmm_mem *mem);
const char *dmm_dir(void);
/*
 * A block device for direct I/O, of 4 MiB at least; -1 if there is none.  Its
 * content is lost.
 */
int dmm_open_scratch(void);
/* Blocks need 2 MiB in a row: have the host tidy up, if it lets us. */
void dmm_compact(void);
/*
 * Bytes of the host's memory that nobody else can have: what grows for ever has
 * leaked.  A debug kernel may hold back that much of what was freed.
 */
uint64_t dmm_host_used(void);
uint64_t dmm_host_held_back(void);

/* A pool's files in sysfs; setters return 0 or -errno. */
char *dmm_pool_path(unsigned long ino, const char *file);
uint64_t dmm_now_ms(void);	/* CLOCK_MONOTONIC */
uint64_t dmm_pool_get(unsigned long ino, const char *file);
void dmm_pool_read(unsigned long ino, const char *file, char *buf, size_t size);
int dmm_pool_set(unsigned long ino, const char *file, const char *value);
int dmm_pool_set_bytes(unsigned long ino, const char *file, uint64_t bytes);
/* What nobody may write to a file that root has opened for him. */
int dmm_pool_set_as_nobody(unsigned long ino, const char *file, const char *value);
/*
 * Is all of a file's memory resident or swapped out?  Waits for it: while a
 * worker takes pages out the numbers are not of one moment.
 */
bool dmm_pool_adds_up(const struct dmm_mem *mem);
/*
 * Have the kernel check a pool and all page tables that have its memory.  True
 * if it finds nothing wrong; what it says is in @buf.  @pretend: what is written
 * to the file before, or NULL.
 */
#define DMM_CHECK_SIZE	16384
bool dmm_pool_check(unsigned long ino, const char *pretend, char *buf);
bool dmm_pool_ok(unsigned long ino);
bool dmm_pool_exists(unsigned long ino);
bool dmm_pool_gone(unsigned long ino);
bool dmm_has_policy(unsigned long ino, const char *name);
bool dmm_policy_loaded(const char *name);
int dmm_write_file(const char *path, const void *buf, size_t len);

/* What /proc/self/pagemap has of pages: a frame in DMM_PAGEMAP_PFN, 0 for none. */
#define DMM_PAGEMAP_PFN		((1UL << 55) - 1)
void dmm_pagemap(const void *mem, uint64_t pages, uint64_t *entries);

/*
 * Content: every page and every seed has another one, none is zero.  It does
 * not compress.  In the seed may be, besides a number below 65536:
 * DMM_HALF: half of each page is one word over and over;
 * DMM_MIXED: the same, and three pages of eight hold one word, or zeros.
 */
#define DMM_HALF		(1UL << 32)
#define DMM_MIXED		(1UL << 33)

void dmm_fill(void *mem, uint64_t first, uint64_t pages, uint64_t seed);
uint64_t dmm_bad_pages(const void *mem, uint64_t first, uint64_t pages,
		       uint64_t seed);
uint64_t dmm_nonzero_pages(const void *mem, uint64_t pages);

/*
 * Content by a number, whatever page it is in: a page with the tag 0 is zero, any
 * other number has content of its own.  DMM_TAG_HALF: half of it compresses.
 */
#define DMM_TAG_HALF		(1UL << 63)
#define DMM_TAGS_MAX		64

uint64_t dmm_tag_word(uint64_t tag, uint64_t word);
void dmm_tag_fill(void *page, uint64_t tag);
bool dmm_tag_bad(const void *page, uint64_t tag);

/**
 * enum dmm_op - what a guest can do
 * @DMM_OP_FILL: write content of @seed into pages
 * @DMM_OP_CHECK: count the pages that don't hold that content
 * @DMM_OP_NONZERO: count the pages that aren't all zero
 * @DMM_OP_PEEK: read one word
 * @DMM_OP_POKE: write @seed to one word
 * @DMM_OP_TOUCH: write @seed to the first word of pages
 * @DMM_OP_READ: sum up the first word of pages
 * @DMM_OP_JUMP: the same, @seed pages further each time, until all were read:
 *	@pages is a power of two and @seed odd
 * @DMM_OP_TOUCH_RANDOM: the same in random order, for a power of two of pages
 * @DMM_OP_READ_RANDOM: the same in random order, for a power of two of pages
 * @DMM_OP_CLI: have interrupts off from now on, so that no page fault is made
 *	asynchronous
 * @DMM_OP_ADD: atomically add one to a word, @seed times
 * @DMM_OP_COUNT: count up the first and last word of pages that began as
 *	zero, round after round until told to stop or @seed rounds are done.
 *	A count of wrong values seen on the way comes back in @result, the
 *	number of rounds in @rounds.
 * @DMM_OP_TAG_FILL: write the content of @tag into up to DMM_TAGS_MAX pages
 * @DMM_OP_TAG_CHECK: count the pages that don't hold that content
 * @DMM_OP_STORM: write to pages and read from them until told to stop, without
 *	expecting anything of their content.
 */
enum dmm_op {
	DMM_OP_FILL,
	DMM_OP_CHECK,
	DMM_OP_NONZERO,
	DMM_OP_PEEK,
	DMM_OP_POKE,
	DMM_OP_TOUCH,
	DMM_OP_READ,
	DMM_OP_JUMP,
	DMM_OP_TOUCH_RANDOM,
	DMM_OP_READ_RANDOM,
	DMM_OP_CLI,
	DMM_OP_ADD,
	DMM_OP_COUNT,
	DMM_OP_STORM,
	DMM_OP_TAG_FILL,
	DMM_OP_TAG_CHECK,
};

struct dmm_cmd {
	uint64_t op;
	uint64_t gva;
	uint64_t first;
	uint64_t pages;
	uint64_t seed;
	uint64_t result;
	uint64_t rounds;
	uint64_t stop;
	uint64_t tag[DMM_TAGS_MAX];
};

struct dmm_vcpu {
	struct kvm_vcpu *vcpu;
	struct dmm_cmd *cmd;
	pthread_t thread;
	bool retry_mmio;
	int ret;
};

/**
 * struct dmm_guest - a VM whose vCPUs wait for struct dmm_cmd
 * @vm: the VM
 * @cpu: its vCPUs
 */
struct dmm_guest {
	struct kvm_vm *vm;
	struct dmm_vcpu cpu[DMM_MAX_VCPUS];
};

struct dmm_guest *dmm_guest_create(int nr_vcpus);
struct dmm_guest *dmm_guest_create_ring(int nr_vcpus, uint32_t ring_bytes);
/* One vCPU whose commands run in L2; @npt: L1 has nested paging, too. */
struct dmm_guest *dmm_guest_create_nested(bool npt);
void dmm_guest_free(struct dmm_guest *guest);

/* Map @size bytes of guest physical memory at the same virtual address. */
void dmm_guest_map(struct dmm_guest *guest, uint64_t gpa, uint64_t size);
void dmm_guest_add_slot(struct dmm_guest *guest, uint32_t slot, uint32_t flags,
			uint64_t gpa, uint64_t size, void *hva);
int dmm_guest_try_slot(struct dmm_guest *guest, uint32_t slot, uint32_t flags,
		       uint64_t gpa, uint64_t size, void *hva);
void dmm_guest_del_slot(struct dmm_guest *guest, uint32_t slot);
/* The usual: all of a file at DMM_GPA in DMM_SLOT. */
void dmm_guest_add_mem(struct dmm_guest *guest, struct dmm_mem *mem);
void dmm_guest_map_by(struct dmm_guest *guest, uint64_t gva, struct dmm_mem *mem);

/*
 * Run a command.  0: done.  -EFAULT: KVM_EXIT_MEMORY_FAULT, dmm_guest_continue()
 * tries again.  Other -errno: of KVM_RUN.  > 0: any other exit reason.
 */
int dmm_guest_run(struct dmm_guest *guest, int cpu, enum dmm_op op,
		  uint64_t gpa, uint64_t pages, uint64_t seed);
/* No more than one KVM_RUN, whose result is returned: the command isn't over. */
int dmm_guest_run_once(struct dmm_guest *guest, int cpu, enum dmm_op op,
		       uint64_t gpa, uint64_t pages, uint64_t seed);
/* As dmm_guest_run(), for DMM_OP_TAG_*. */
int dmm_guest_run_tags(struct dmm_guest *guest, int cpu, enum dmm_op op,
		       uint64_t gpa, uint64_t pages, const uint64_t *tags);
int dmm_guest_continue(struct dmm_guest *guest, int cpu);
void dmm_guest_start(struct dmm_guest *guest, int cpu, enum dmm_op op,
		     uint64_t gpa, uint64_t pages, uint64_t seed);
int dmm_guest_join(struct dmm_guest *guest, int cpu);
void dmm_guest_wait_rounds(struct dmm_guest *guest, int cpu, uint64_t rounds);
int dmm_guest_stop(struct dmm_guest *guest, int cpu);
/* Statistics of KVM, of all vCPUs together. */
uint64_t dmm_guest_stat(struct dmm_guest *guest, const char *name);

/* Commands that have to succeed; what counts as wrong is returned. */
void dmm_guest_fill(struct dmm_guest *guest, uint64_t gpa, uint64_t pages,
		    uint64_t seed);
uint64_t dmm_guest_bad_pages(struct dmm_guest *guest, uint64_t gpa,
			     uint64_t pages, uint64_t seed);
uint64_t dmm_guest_nonzero_pages(struct dmm_guest *guest, uint64_t gpa,
				 uint64_t pages);
uint64_t dmm_guest_peek(struct dmm_guest *guest, uint64_t gpa);
void dmm_guest_poke(struct dmm_guest *guest, uint64_t gpa, uint64_t value);

#endif /* SELFTEST_KVM_DMM_UTIL_H */
