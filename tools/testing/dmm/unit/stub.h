/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Just enough of the kernel for its pure logic to compile in user space.
 */
#ifndef _DMM_UNIT_STUB_H
#define _DMM_UNIT_STUB_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;
typedef int64_t s64;
typedef unsigned int gfp_t;
typedef unsigned long pgoff_t;

struct list_head {
	struct list_head *next, *prev;
};

struct kobject;
struct module;
struct page;

#define U64_MAX		UINT64_MAX
#define S64_MAX		INT64_MAX

#define BIT_ULL(n)	(1ULL << (n))
#define GENMASK_ULL(h, l) \
	((~0ULL << (l)) & (~0ULL >> (63 - (h))))

#define DECLARE_BITMAP(name, bits) \
	unsigned long name[((bits) + 8 * sizeof(long) - 1) / (8 * sizeof(long))]

/* As strict about types as the kernel's. */
#define __cmp(x, y, op) ({			\
	__auto_type _x = (x);			\
	__auto_type _y = (y);			\
	(void)(&_x == &_y);			\
	_x op _y ? _x : _y; })
#define min(x, y)	__cmp(x, y, <)
#define max(x, y)	__cmp(x, y, >)

#define __percpu
#define READ_ONCE(x)		(x)
#define this_cpu_add(var, n)	((var) += (n))

#define fallthrough	__attribute__((__fallthrough__))

#endif /* _DMM_UNIT_STUB_H */
