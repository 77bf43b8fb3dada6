/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests have in common in which allocations fail.
 *
 * Needs a kernel with fault injection, as the debug kernel has.
 */
#ifndef SELFTEST_KVM_DMM_NOMEM_UTIL_H
#define SELFTEST_KVM_DMM_NOMEM_UTIL_H

#include "dmm_util.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
/* Pages of two regions, the same in bytes, and a content that compresses. */
#define FIRST	508
#define NR	8
#define OFFSET	(FIRST * DMM_PAGE)
#define LEN	(NR * DMM_PAGE)
#define SEED	(DMM_HALF | 1)

/* Pages that no call touches which may fail. */
#define WITNESS	4
#define WITNESS_SEED	(DMM_HALF | 77)

/**
 * enum nomem_mode - which allocations of a call fail
 * @NOMEM_NTH: one, of any kind, or one copy from or to user space
 * @NOMEM_PAGES: one of pages, and all of pages behind it
 * @NOMEM_SLAB: one of the slab allocator, and all of it behind that
 */
enum nomem_mode {
	NOMEM_NTH,
	NOMEM_PAGES,
	NOMEM_SLAB,
	NOMEM_MODES,
};

/**
 * struct nomem - a call that is tried with one failure after the other
 * @name: what it is
 * @errnos: what it may fail with, as a set
 * @mode: what fails
 * @n: NOMEM_NTH: which allocation; otherwise how much may be allocated before
 * @step: by how much @n grows
 * @ret: what the call returned: 0 or -errno
 * @hit: an allocation failed
 * @copy: a copy from or to user space failed
 * @endless: so many failed that it looks like a loop
 * @points: tries in which an allocation failed
 * @failed: how many of them made the call fail
 */
struct nomem {
	const char *name;
	uint64_t errnos;
	enum nomem_mode mode;
	long n;
	long step;
	int ret;
	bool hit;
	bool copy;
	bool endless;
	unsigned int points[NOMEM_MODES];
	unsigned int failed[NOMEM_MODES];
};

/* False if the kernel cannot do it. */
bool nomem_setup(void);
void nomem_begin(struct nomem *nomem, const char *name, uint64_t errnos);
/* The next try; false if there is none. */
bool nomem_more(struct nomem *nomem);
void nomem_arm(struct nomem *nomem);
void nomem_disarm(struct nomem *nomem);
/* Is what the call returned what the documentation says? */
bool nomem_as_documented(const struct nomem *nomem);
/* False if no allocation has failed of a call that should make some. */
bool nomem_report(const struct nomem *nomem);

/*
 * Have a part of the allocations of another task fail, 0: of all tasks, until
 * nomem_background_end(), which tells how many have failed.
 */
void nomem_background(unsigned int percent, pid_t pid);
unsigned int nomem_background_end(void);

/*
 * Run @call, which returns 0 or -errno, with each of its allocations failing in
 * turn, until it meets no failure.  @errnos: what it may fail with, BIT(ENOMEM)
 * for example; 0: it must not fail, and need not allocate.  @intact: what is
 * true behind a call that failed.  @undo is done after each call, and makes all
 * as it was before, whatever the call has done.
 */
#define FOR_EACH_FAILURE(what, errnos, call, intact, undo) do {		\
	struct nomem nomem__;						\
									\
	for (nomem_begin(&nomem__, what, errnos); nomem_more(&nomem__); ) { \
		nomem_arm(&nomem__);					\
		nomem__.ret = (call);					\
		nomem_disarm(&nomem__);					\
		EXPECT_TRUE(nomem_as_documented(&nomem__)) {		\
			TH_LOG("%s: %d, mode %d, %ld", nomem__.name,	\
			       nomem__.ret, nomem__.mode, nomem__.n);	\
		}							\
		if (nomem__.ret)					\
			EXPECT_TRUE(intact) {				\
				TH_LOG("%s: mode %d, %ld", nomem__.name, \
				       nomem__.mode, nomem__.n);	\
			}						\
		undo;							\
	}								\
	EXPECT_TRUE(nomem_report(&nomem__));				\
} while (0)

static inline int nomem_errno(long r)
{
	return r < 0 ? -errno : 0;
}

/* Open what is written to later, so that only the write may fail. */
int nomem_open(unsigned long ino, const char *file);
int nomem_write(int fd, const char *value);

/* A file whose pages from @WITNESS on are absent. */
struct dmm_mem nomem_mem(void);
/* Its pages are as they should be, and so are all page tables. */
bool nomem_intact(const struct dmm_mem *mem);
void nomem_punch(const struct dmm_mem *mem);

static inline void nomem_fill(const struct dmm_mem *mem, uint64_t seed)
{
	dmm_fill(mem->hva + OFFSET, FIRST, NR, seed);
}

static inline uint64_t nomem_bad(const struct dmm_mem *mem, uint64_t seed)
{
	return dmm_bad_pages(mem->hva + OFFSET, FIRST, NR, seed);
}

#endif /* SELFTEST_KVM_DMM_NOMEM_UTIL_H */
