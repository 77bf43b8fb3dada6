/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dynamic memory mapping: when the share policy looks at which page, and how
 * long it rests.
 *
 * Pure logic: unit tests build this file in user space.
 *
 * What is known of a page is a byte:
 *
 *	 7  4    3    2   0
 *	+----+-------+-----+
 *	|    | KNOWN |level|
 *	+----+-------+-----+
 */
#ifndef _KVM_DMM_SHARE_H
#define _KVM_DMM_SHARE_H

#define SHARE_LEVEL	0x07	/* look at the page every 2^level passes */
#define SHARE_KNOWN	0x08	/* hashed, and write-protected since */

/**
 * share_look - decide about a page that is a frame
 * @state: what is known of the page; updated
 * @written: it may have been written since it was protected
 * @pass: number of the pass
 * @index: page offset; spreads the pages of a level over the passes
 *
 * A page that was written between two looks is left alone twice as long; one
 * that was not is looked at in every pass again.
 *
 * Return: True if the page is to be hashed now.
 */
static inline bool share_look(u8 *state, bool written, unsigned long pass,
			      unsigned long index)
{
	unsigned int level = *state & SHARE_LEVEL;

	if (!written && *state & SHARE_KNOWN) {
		*state = SHARE_KNOWN;
		return false;
	}
	if (*state & SHARE_KNOWN) {
		if (level < SHARE_LEVEL)
			level++;
		*state = level;
	}
	return !((pass + index) & ((1UL << level) - 1));
}

/**
 * share_rate - how many pages to look at in a second
 * @pages: size of the pool
 * @seconds: what a pass shall take; 0: no matter
 * @limit: pages per second at most; 0: no limit
 *
 * Return: Pages per second; 0: no limit.
 */
static inline u64 share_rate(u64 pages, u64 seconds, u64 limit)
{
	u64 rate = seconds ? (pages + seconds - 1) / seconds : 0;

	if (limit && (!rate || rate > limit))
		rate = limit;
	return rate;
}

/**
 * share_rest - how long to sleep after some work
 * @pages: pages that were looked at
 * @worked: how long that took, in ns
 * @rate: pages per second; 0: no limit
 * @percent: of a CPU that may be used, 1 to 100
 *
 * Return: Nanoseconds.
 */
static inline u64 share_rest(u64 pages, u64 worked, u64 rate,
			     unsigned int percent)
{
	u64 rest = worked * (100 - percent) / percent;
	u64 whole = rate ? pages * 1000000000ULL / rate : 0;

	if (whole > worked && whole - worked > rest)
		rest = whole - worked;
	return rest;
}

#endif /* _KVM_DMM_SHARE_H */
