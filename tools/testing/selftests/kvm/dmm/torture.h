/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The torture's model: which page of which file must have which content.
 *
 * Actors are threads.  Each owns the pages that it looks at and changes, and
 * nobody else's access changes them meanwhile, so it knows what must be there.
 * Policies, slots and limits go over all pages, owned or not: to them content
 * must not matter.
 */
#ifndef SELFTEST_KVM_DMM_TORTURE_H
#define SELFTEST_KVM_DMM_TORTURE_H

#include <setjmp.h>

#include "dmm_util.h"

#define TORTURE_FILES	3
#define TORTURE_SIZE	(4 * DMM_BLOCK)
#define TORTURE_PAGES	(TORTURE_SIZE / DMM_PAGE)
#define TORTURE_VMS	3
#define TORTURE_ACTORS	16
#define TORTURE_LINE	160	/* characters of what an operation says of itself */
#define TORTURE_STUCK	240	/* seconds that one operation may take */

/**
 * struct torture_file - the memory of a guest, or of several
 * @mem: the file
 * @tag: what each page must hold
 * @owned: an actor has the page
 */
struct torture_file {
	struct dmm_mem mem;
	uint64_t tag[TORTURE_PAGES];
	bool owned[TORTURE_PAGES];
};

/**
 * struct torture_range - pages that an actor owns
 * @file: number of the file
 * @first: page offset
 * @n: number of pages
 */
struct torture_range {
	unsigned int file;
	uint64_t first;
	uint64_t n;
};

/**
 * struct torture_actor - a thread
 * @name: what it is
 * @id: its number, which makes its random numbers others'
 * @op: one operation
 * @arg: for @op
 * @nr: operations so far
 * @rng: state of the random numbers; begins anew with each operation
 * @began: when the operation began
 * @last: what it has said last
 * @thread: the thread
 * @tid: the same as the kernel calls it
 * @catches: SIGBUS goes to @bus
 * @bus: where to
 */
struct torture_actor {
	const char *name;
	unsigned int id;
	void (*op)(void *arg);
	void *arg;
	volatile uint64_t nr;
	uint64_t rng;
	volatile time_t began;
	char last[TORTURE_LINE];
	pthread_t thread;
	int tid;
	volatile bool catches;
	sigjmp_buf bus;
};

/**
 * struct torture_op - an operation of an actor
 * @weight: how often it is picked
 * @name: to count it by, or NULL
 * @on_range: does it to pages that the actor owns; or
 * @on_file: does it to a file, whoever owns the pages
 */
struct torture_op {
	unsigned int weight;
	const char *name;
	void (*on_range)(struct torture_range *range);
	void (*on_file)(unsigned int file);
};

extern struct torture_file torture_files[TORTURE_FILES];
extern uint64_t torture_seed;
extern bool torture_verbose;

/* torture_model.c */
/* @stuck is called when an operation does not end, to say what it knows. */
void torture_model_init(void (*stuck)(void));
void torture_start(const char *name, void (*op)(void *arg), void *arg);
void torture_run(unsigned int seconds);
void torture_summary(void);
/* Interrupt what actors of a name do: the end of them. */
void torture_kick(const char *name);
uint64_t torture_rand(uint64_t n);
const struct torture_op *torture_pick(const struct torture_op *ops,
				      unsigned int n);
void torture_log(const char *fmt, ...) __printf(1, 2);
void torture_count(const char *what);
void __noreturn torture_fail(const char *fmt, ...) __printf(1, 2);

struct torture_range torture_own(int file, uint64_t max);
struct torture_range torture_own_exactly(unsigned int file, uint64_t first,
					 uint64_t n);
void torture_disown(const struct torture_range *range);
void *torture_hva(const struct torture_range *range);
uint64_t *torture_tags(const struct torture_range *range);
/* Other content for a range; the model is told when it is written. */
void torture_new_tags(const struct torture_range *range, uint64_t *tags);
void torture_set_tags(const struct torture_range *range, const uint64_t *tags);
/* Does memory have what the model says of a range? */
void torture_verify(const struct torture_range *range, const void *mem,
		    const char *where);
void torture_wrong(const struct torture_range *range, const char *where);
/* Run @fn, which touches memory: false if there was none to be had. */
bool torture_try(void (*fn)(void *arg), void *arg);
/* Something failed for want of memory: let the file have all it needs. */
void torture_relieve(unsigned int file, unsigned int tries, const char *what);
void torture_check(unsigned long ino);
/* Print what sysfs says of a pool. */
void torture_pool(unsigned long ino);

/* What actors do. */
void torture_host(void *arg);
void torture_host_init(void);
void torture_admin(void *arg);
void torture_admin_init(void);
void torture_admin_exit(void);
void torture_checker(void *arg);
/* Detach all that can hold content back. */
void torture_admin_finish(unsigned int file);

#endif /* SELFTEST_KVM_DMM_TORTURE_H */
