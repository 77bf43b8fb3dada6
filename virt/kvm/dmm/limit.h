/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Arithmetic of a pool's limits.  Pure logic: unit tests build it in user space.
 */
#ifndef _KVM_DMM_LIMIT_H
#define _KVM_DMM_LIMIT_H

#define DMM_RECLAIM_BATCH	32UL	/* pages a fault at the limit frees */
#define DMM_MARGIN_MAX		4096UL	/* pages, 16 MiB */

/* How far below its limit the worker keeps a pool: 1/64, but at most 16 MiB. */
static inline unsigned long dmm_margin(unsigned long max)
{
	return min(max / 64, DMM_MARGIN_MAX);
}

/* Pages that have to go until @used is at most @max. */
static inline unsigned long dmm_excess(unsigned long used, unsigned long max)
{
	return used > max ? used - max : 0;
}

/* Pages that pressure from others may take from a pool. */
static inline unsigned long dmm_spare(unsigned long used, unsigned long min)
{
	return dmm_excess(used, min);
}

/*
 * Read a size: digits, then at most one of K, M, G and at most one newline.
 * memparse() alone would take junk, signs, other bases and overflow.
 *
 * Return: 0 or -EINVAL, -ERANGE.
 */
static inline int dmm_parse_size(const char *s, u64 *bytes)
{
	u64 v = 0;
	int shift = 0;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (v > (U64_MAX - (*s - '0')) / 10)
			return -ERANGE;
		v = v * 10 + (*s - '0');
	}
	switch (*s) {
	case 'G':
	case 'g':
		shift += 10;
		fallthrough;
	case 'M':
	case 'm':
		shift += 10;
		fallthrough;
	case 'K':
	case 'k':
		shift += 10;
		s++;
	}
	if (*s == '\n')
		s++;
	if (*s)
		return -EINVAL;
	if (v > (u64)S64_MAX >> shift)
		return -ERANGE;
	*bytes = v << shift;
	return 0;
}

#endif /* _KVM_DMM_LIMIT_H */
