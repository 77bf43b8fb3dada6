/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which pages of a pool go first.  Pure logic: a unit test drives it in user
 * space with traces and compares it with exact LRU.
 *
 * A hand goes round the regions of the pool.  Where it passes, the access bits
 * of the page tables are read and cleared, and each page is
 *
 *	inactive	it came in, or was idle for long: goes when the hand
 *			finds it idle a revolution later
 *	active		it was touched again after it had come in
 *	hard		it could not be stored; left alone for long
 *
 * The fault that brings a page in sets its access bit, so the first time that
 * the hand finds a page says nothing: one sweep over much memory leaves inactive
 * pages, which go before anything else.  Active pages age only when there are
 * few inactive ones: a generation begins, and who was idle for DMM_AGE_DEPTH
 * generations becomes inactive.
 *
 * A page that comes back after fewer evictions than there are active pages would
 * have stayed if it had been one of them (the refault distance of Johannes
 * Weiner, see mm/workingset.c).  It becomes active, but not for long: unless it
 * is touched again, the next generation finds it idle.  So a working set that
 * moves takes the place of the old one, and a sweep does not.
 */
#ifndef _KVM_DMM_SWAP_AGE_H
#define _KVM_DMM_SWAP_AGE_H

#define DMM_AGE_STAMP		0x0f	/* revolution or generation, modulo 16 */
#define DMM_AGE_INACTIVE	0x10	/* stamp: revolution when it became so */
#define DMM_AGE_ACTIVE		0x20	/* stamp: generation when last accessed */
#define DMM_AGE_HARD		0x30	/* stamp: generation when it was tried */
#define DMM_AGE_NEW		0x40	/* came back; the hand has not passed yet */
#define DMM_AGE_BACK		0x50	/* the same, after few evictions */
#define DMM_AGE_KIND		0x70
#define DMM_AGE_KEPT		0x80	/* its stored copy is kept */

#define DMM_AGE_DEPTH		5U	/* generations that an active page may idle */
#define DMM_AGE_HARD_DEPTH	12U	/* generations until it is tried again */
#define DMM_AGE_SHARE		8UL	/* 1/n of the pages is to be inactive */
#define DMM_AGE_UNIT		64UL	/* evictions that a refault distance counts as one */
/* Passes after which even pages that are in use must go. */
#define DMM_AGE_PASSES		(DMM_AGE_DEPTH + 3)

/**
 * struct dmm_age - what is known about the pages of a pool as a whole
 * @rev: revolutions of the hand
 * @gen: generations of active pages
 * @nr_active: pages that are active
 * @nr_inactive: pages that are inactive
 * @nr_evicted: evictions so far, the clock of refault distances
 */
struct dmm_age {
	unsigned int rev;
	unsigned int gen;
	unsigned long nr_active;
	unsigned long nr_inactive;
	unsigned long nr_evicted;
};

static inline u8 dmm_age_kind(u8 state)
{
	return state & DMM_AGE_KIND;
}

static inline bool dmm_age_is_active(u8 state)
{
	return dmm_age_kind(state) == DMM_AGE_ACTIVE ||
	       dmm_age_kind(state) == DMM_AGE_BACK;
}

static inline bool dmm_age_is_inactive(u8 state)
{
	return dmm_age_kind(state) == DMM_AGE_INACTIVE ||
	       dmm_age_kind(state) == DMM_AGE_NEW;
}

/* Nothing is known about it yet. */
static inline bool dmm_age_is_new(u8 state)
{
	return !dmm_age_kind(state) || dmm_age_kind(state) == DMM_AGE_NEW;
}

static inline void dmm_age_set(struct dmm_age *age, u8 *state, u8 new)
{
	age->nr_active -= dmm_age_is_active(*state);
	age->nr_inactive -= dmm_age_is_inactive(*state);
	age->nr_active += dmm_age_is_active(new);
	age->nr_inactive += dmm_age_is_inactive(new);
	*state = new;
}

/* Change what a page is, now; whether a copy is kept stays. */
static inline void dmm_age_become(struct dmm_age *age, u8 *state, u8 kind)
{
	unsigned int stamp = kind == DMM_AGE_INACTIVE ? age->rev : age->gen;

	dmm_age_set(age, state, (*state & DMM_AGE_KEPT) | kind |
				(stamp & DMM_AGE_STAMP));
}

/* How long a state is old, by the clock that its stamp is of. */
static inline unsigned int dmm_age_since(unsigned int now, u8 state)
{
	return (now - state) & DMM_AGE_STAMP;
}

/**
 * dmm_age_visit - the hand passes a page that is resident
 * @age: the pool
 * @state: of the page
 * @young: it was accessed since the hand passed last
 *
 * Return: True if it may go.
 */
static inline bool dmm_age_visit(struct dmm_age *age, u8 *state, bool young)
{
	switch (dmm_age_kind(*state)) {
	case DMM_AGE_INACTIVE:
		if (!young)
			return dmm_age_since(age->rev, *state);
		dmm_age_become(age, state, DMM_AGE_ACTIVE);
		break;
	case DMM_AGE_ACTIVE:
		if (young)
			dmm_age_become(age, state, DMM_AGE_ACTIVE);
		else if (dmm_age_since(age->gen, *state) >= DMM_AGE_DEPTH)
			dmm_age_become(age, state, DMM_AGE_INACTIVE);
		break;
	case DMM_AGE_HARD:
		/* Who was accessed may have got other content. */
		if (young || dmm_age_since(age->gen, *state) >=
			     DMM_AGE_HARD_DEPTH)
			dmm_age_become(age, state, DMM_AGE_INACTIVE);
		break;
	case DMM_AGE_BACK:
		/* As if it had been idle: it has to prove itself soon. */
		dmm_age_become(age, state, DMM_AGE_ACTIVE);
		*state = (*state & ~DMM_AGE_STAMP) |
			 ((age->gen - DMM_AGE_DEPTH + 1) & DMM_AGE_STAMP);
		break;
	default:
		dmm_age_become(age, state, DMM_AGE_INACTIVE);
	}
	return false;
}

/**
 * dmm_age_absent - the hand passes a page that is not resident
 * @age: the pool
 * @state: of the page
 *
 * It has gone with a hole, or comes back just now: what was learned then is not
 * forgotten before the hand comes again.  Nor is a copy: there may be one.
 */
static inline void dmm_age_absent(struct dmm_age *age, u8 *state)
{
	if (dmm_age_kind(*state) == DMM_AGE_NEW ||
	    dmm_age_kind(*state) == DMM_AGE_BACK)
		dmm_age_visit(age, state, false);
	else
		dmm_age_set(age, state, *state & DMM_AGE_KEPT);
}

/**
 * dmm_age_evicted - a page has gone
 * @age: the pool
 * @state: of the page
 *
 * Return: What to remember for dmm_age_returned().
 */
static inline u16 dmm_age_evicted(struct dmm_age *age, u8 *state)
{
	dmm_age_set(age, state, 0);
	return ++age->nr_evicted / DMM_AGE_UNIT;
}

/**
 * dmm_age_returned - a page comes back
 * @age: the pool
 * @state: of the page
 * @evicted: what dmm_age_evicted() said
 *
 * Return: True if it would not have gone if it had been active.
 */
static inline bool dmm_age_returned(struct dmm_age *age, u8 *state, u16 evicted)
{
	u16 distance = (u16)(age->nr_evicted / DMM_AGE_UNIT) - evicted;

	bool active = distance * DMM_AGE_UNIT < age->nr_active;

	dmm_age_become(age, state, active ? DMM_AGE_BACK : DMM_AGE_NEW);
	return active;
}

/**
 * dmm_age_revolution - the hand starts a new round
 * @age: the pool
 * @hurry: more is wanted than was found in a round
 */
static inline void dmm_age_revolution(struct dmm_age *age, bool hurry)
{
	unsigned long nr = age->nr_active + age->nr_inactive;

	age->rev++;
	if (hurry || age->nr_inactive < nr / DMM_AGE_SHARE)
		age->gen++;
}

/*
 * Taking out what is cold before anybody wants the memory: a worker passes all
 * regions DMM_COLD_PASSES times in the time after which a page is cold, and
 * takes those out that were idle as often as is needed.  How often that is
 * adapts: it doubles when more pages come back than allowed.
 */
#define DMM_COLD_PASSES		4U
#define DMM_COLD_MAX		240U

/**
 * dmm_cold_pass - the worker passes a page
 * @idle: passes that the page has been idle
 * @young: it was accessed
 * @need: passes after which it is cold
 *
 * Return: True if it is cold.
 */
static inline bool dmm_cold_pass(u8 *idle, bool young, unsigned int need)
{
	if (young)
		*idle = 0;
	else if (*idle < DMM_COLD_MAX)
		++*idle;
	return *idle >= need;
}

/**
 * dmm_cold_adapt - how often a page has to be idle from now on
 * @need: so far; 0 at first
 * @refaults: pages that came back since the last pass
 * @target: how many may
 *
 * Return: Passes, DMM_COLD_PASSES to DMM_COLD_MAX.
 */
static inline unsigned int dmm_cold_adapt(unsigned int need,
					  unsigned long refaults,
					  unsigned long target)
{
	if (refaults > target)
		return min(max(need, DMM_COLD_PASSES) * 2, DMM_COLD_MAX);
	if (refaults > target / 2)
		return max(need, DMM_COLD_PASSES);
	return need > DMM_COLD_PASSES ? need - 1 : DMM_COLD_PASSES;
}

#endif /* _KVM_DMM_SWAP_AGE_H */
