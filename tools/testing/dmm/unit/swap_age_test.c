// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which pages the swap policy takes out, against exact LRU on the same trace.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/kvm_dmm.h>

#include "policies/swap_age.h"
#include "unit.h"

#define PAGES	16384U		/* 64 MiB */
#define BATCH	32U		/* what a fault at the limit takes out */

/* A guest with PAGES pages, of which the pool holds @room. */
struct sim {
	unsigned int room;
	unsigned int resident;
	unsigned int hand;
	struct dmm_age age;
	bool here[PAGES];
	bool young[PAGES];
	bool seen[PAGES];	/* was there before: coming back is a refault */
	u8 state[PAGES];
	u16 evicted[PAGES];
	unsigned long refaults;
};

/* Pages in order of their last access, for exact LRU. */
struct lru {
	unsigned int room;
	unsigned int resident;
	unsigned int next[PAGES + 1];
	unsigned int prev[PAGES + 1];
	bool here[PAGES];
	bool seen[PAGES];
	unsigned long refaults;
};

/* The hand of swap.c, over regions of 512 pages. */
static void sim_reclaim(struct sim *sim)
{
	unsigned int want = BATCH, visits = 0, passes = 0, i, end;
	bool all = false;

	while (want) {
		end = sim->hand + KVM_DMM_REGION_PAGES;
		for (i = sim->hand; i < end; i++) {
			if (!sim->here[i])
				continue;
			if ((dmm_age_visit(&sim->age, &sim->state[i],
					   sim->young[i]) || all) && want) {
				want--;
				sim->here[i] = false;
				sim->resident--;
				sim->evicted[i] = dmm_age_evicted(&sim->age,
								  &sim->state[i]);
			}
			sim->young[i] = false;
		}
		if (!want)
			break;
		sim->hand = end % PAGES;
		if (!sim->hand)
			dmm_age_revolution(&sim->age, passes);
		if (++visits == PAGES / KVM_DMM_REGION_PAGES) {
			visits = 0;
			EXPECT(!all);
			all = ++passes >= DMM_AGE_PASSES;
		}
	}
}

static void sim_access(struct sim *sim, unsigned int page)
{
	if (!sim->here[page]) {
		if (sim->resident == sim->room)
			sim_reclaim(sim);
		sim->resident++;
		sim->here[page] = true;
		if (sim->seen[page]) {
			sim->refaults++;
			dmm_age_returned(&sim->age, &sim->state[page],
					 sim->evicted[page]);
		}
		sim->seen[page] = true;
	}
	sim->young[page] = true;
}

static void lru_unlink(struct lru *lru, unsigned int page)
{
	lru->next[lru->prev[page]] = lru->next[page];
	lru->prev[lru->next[page]] = lru->prev[page];
}

static void lru_access(struct lru *lru, unsigned int page)
{
	unsigned int last;

	if (lru->here[page]) {
		lru_unlink(lru, page);
	} else {
		if (lru->resident == lru->room) {
			last = lru->prev[PAGES];
			lru_unlink(lru, last);
			lru->here[last] = false;
			lru->resident--;
		}
		lru->here[page] = true;
		lru->resident++;
		lru->refaults += lru->seen[page];
		lru->seen[page] = true;
	}
	lru->next[page] = lru->next[PAGES];
	lru->prev[page] = PAGES;
	lru->prev[lru->next[PAGES]] = page;
	lru->next[PAGES] = page;
}

static struct sim *sim_new(unsigned int room)
{
	struct sim *sim = calloc(1, sizeof(*sim));

	sim->room = room;
	return sim;
}

static struct lru *lru_new(unsigned int room)
{
	struct lru *lru = calloc(1, sizeof(*lru));

	lru->room = room;
	lru->next[PAGES] = PAGES;
	lru->prev[PAGES] = PAGES;
	return lru;
}

/* A page of a hot fifth, scattered over memory, four times out of five. */
static unsigned int access_80_20(void)
{
	uint64_t r = unit_random();
	unsigned int i = (r >> 8) % PAGES;

	if (r % 5)
		return i / 5 * 5 % PAGES;
	return i % 5 ? i : i + 1;
}

static unsigned int access_zipf(void)
{
	double u = (double)(unit_random() >> 11) / (1ULL << 53);
	unsigned int rank = 1;
	double x;

	/* Inverse of a continuous 1/x, scattered by a multiplication. */
	x = u;
	while (x > 1.0 / 14 && rank < PAGES / 2) {
		rank *= 2;
		x -= 1.0 / 14;
	}
	rank += x * 14 * rank;
	return rank * 40503U % PAGES;
}

/* Refaults once all is warm, of both, as a ratio in thousandths. */
static unsigned long versus_lru(unsigned int (*access)(void), unsigned int room)
{
	struct sim *sim = sim_new(room);
	struct lru *lru = lru_new(room);
	unsigned long i, before_sim, before_lru, ratio;
	unsigned int page;

	for (i = 0; i < 20UL * PAGES; i++) {
		page = access();
		sim_access(sim, page);
		lru_access(lru, page);
	}
	before_sim = sim->refaults;
	before_lru = lru->refaults;
	for (i = 0; i < 60UL * PAGES; i++) {
		page = access();
		sim_access(sim, page);
		lru_access(lru, page);
	}
	EXPECT(lru->refaults - before_lru > 1000);
	ratio = (sim->refaults - before_sim) * 1000 /
		(lru->refaults - before_lru);
	if (getenv("VERBOSE"))
		printf("# refaults %lu, LRU %lu: %lu/1000; %lu active, %lu not, %u, %u\n",
		       sim->refaults - before_sim, lru->refaults - before_lru,
		       ratio, sim->age.nr_active, sim->age.nr_inactive,
		       sim->age.gen, sim->age.rev);
	free(sim);
	free(lru);
	return ratio;
}

UNIT_TEST(swap_age_80_20_half)
{
	EXPECT(versus_lru(access_80_20, PAGES / 2) <= 1150);
}

UNIT_TEST(swap_age_80_20_third)
{
	EXPECT(versus_lru(access_80_20, PAGES / 3) <= 1150);
}

UNIT_TEST(swap_age_zipf)
{
	EXPECT(versus_lru(access_zipf, PAGES / 2) <= 1150);
}

static unsigned int access_uniform(void)
{
	return unit_random() % PAGES;
}

UNIT_TEST(swap_age_uniform)
{
	EXPECT(versus_lru(access_uniform, PAGES / 2) <= 1050);
}

/*
 * A hot set of 70 % of the pool is in use, with a few cold accesses; in the
 * middle one sweep over all the cold memory, @per_step pages for each hot access.
 */
static unsigned long hot_refaults(bool sweep, unsigned int per_step)
{
	const unsigned int room = PAGES / 2, hot = room * 7 / 10;
	struct sim *sim = sim_new(room);
	unsigned int cold = hot, page;
	unsigned long i, before, n = 0;

	for (i = 0; i < 100UL * PAGES; i++) {
		if (!(unit_random() % 50))
			sim_access(sim, hot + unit_random() % (PAGES - hot));
		page = unit_random() % hot;
		if (i >= 20UL * PAGES) {
			before = sim->refaults;
			sim_access(sim, page);
			n += sim->refaults - before;
		} else {
			sim_access(sim, page);
		}
		if (sweep && i >= 40UL * PAGES) {
			unsigned int k;

			for (k = 0; k < per_step && cold < PAGES; k++)
				sim_access(sim, cold++);
		}
	}
	free(sim);
	return n;
}

UNIT_TEST(swap_age_sweep)
{
	static const unsigned int speeds[] = { 1, 4, 100, PAGES };
	unsigned int i;

	for (i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++) {
		unsigned long without = hot_refaults(false, speeds[i]);
		unsigned long with = hot_refaults(true, speeds[i]);

		if (getenv("VERBOSE"))
			printf("# hot refaults: %lu, with a sweep %lu\n",
			       without, with);
		/* A few without any are no ten per cent of anything. */
		EXPECT(with <= without * 11 / 10 + PAGES / 200);
	}
}

/* The working set moves: what was hot goes, what is hot stays. */
UNIT_TEST(swap_age_working_set_moves)
{
	const unsigned int room = PAGES / 2, hot = room * 7 / 10;
	struct sim *sim = sim_new(room);
	struct lru *lru = lru_new(room);
	unsigned long i, phase, late = 0, before;
	unsigned int page;

	for (phase = 0; phase < 6; phase++) {
		for (i = 0; i < 10UL * PAGES; i++) {
			page = (phase & 1) * (PAGES / 2) + unit_random() % hot;
			before = sim->refaults;
			sim_access(sim, page);
			if (i > 5UL * PAGES)
				late += sim->refaults - before;
			lru_access(lru, page);
		}
	}
	if (getenv("VERBOSE"))
		printf("# moving: %lu, exact LRU %lu; late %lu\n", sim->refaults,
		       lru->refaults, late);
	EXPECT(sim->refaults <= lru->refaults * 3 / 2);
	EXPECT(late <= hot / 10);
	free(sim);
	free(lru);
}

/* A loop just larger than the pool: LRU misses always, this must not be worse. */
UNIT_TEST(swap_age_loop)
{
	const unsigned int room = PAGES / 2, loop = room + room / 8;
	struct sim *sim = sim_new(room);
	unsigned long i;

	for (i = 0; i < 40UL * loop; i++)
		sim_access(sim, i % loop);
	if (getenv("VERBOSE"))
		printf("# loop: %lu of %lu\n", sim->refaults, i);
	EXPECT(sim->refaults <= i);
	free(sim);
}

/*
 * Cold pages are taken out, and no more of them come back than may: a guest
 * whose pages are accessed with very different frequencies.
 */
UNIT_TEST(swap_cold_target)
{
	static u8 idle[PAGES];
	static bool here[PAGES];
	unsigned long pass, refaults = 0, late = 0, out = 0, target = 20;
	unsigned int i, need = 0, period;
	bool age_only;

	memset(here, true, sizeof(here));
	for (pass = 1; pass <= 2000; pass++) {
		need = dmm_cold_adapt(need, refaults, target);
		age_only = refaults > target;
		EXPECT(need >= DMM_COLD_PASSES && need <= DMM_COLD_MAX);
		refaults = 0;
		out = 0;
		for (i = 0; i < PAGES; i++) {
			/* From every pass to once in 4096; a few never. */
			period = 1 << i % 13;
			if (i % 16 && !(unit_random() % period)) {
				refaults += !here[i];
				here[i] = true;
				idle[i] = 0;
			} else if (here[i] &&
				   dmm_cold_pass(&idle[i], false, need) &&
				   !age_only) {
				here[i] = false;
			}
			out += !here[i];
		}
		if (pass > 1000)
			late += refaults;
	}
	if (getenv("VERBOSE"))
		printf("# cold: %lu of %u out, %lu refaults a pass, target %lu, need %u\n",
		       out, PAGES, late / 1000, target, need);
	EXPECT(out >= PAGES / 16);
	EXPECT(late / 1000 <= target);
}

UNIT_TEST(swap_cold_after)
{
	unsigned int need = dmm_cold_adapt(0, 0, 0), i;
	u8 idle = 0;

	EXPECT_EQ(need, DMM_COLD_PASSES);
	for (i = 1; i < DMM_COLD_PASSES; i++)
		EXPECT(!dmm_cold_pass(&idle, false, need));
	EXPECT(dmm_cold_pass(&idle, false, need));
	EXPECT(!dmm_cold_pass(&idle, true, need));
	EXPECT_EQ(idle, 0);
	for (i = 0; i < 1000; i++)
		dmm_cold_pass(&idle, false, need);
	EXPECT_EQ(idle, DMM_COLD_MAX);
	for (i = 0; i < 10; i++)
		need = dmm_cold_adapt(need, 1, 0);
	EXPECT_EQ(need, DMM_COLD_MAX);
	for (i = 0; i < 300; i++)
		need = dmm_cold_adapt(need, 0, 0);
	EXPECT_EQ(need, DMM_COLD_PASSES);
}

/* The hand finds no frame: one is about to come back, or there is a hole. */
UNIT_TEST(swap_age_not_there)
{
	struct dmm_age age = {};
	u8 other = 0, state = 0;

	dmm_age_become(&age, &other, DMM_AGE_ACTIVE);
	EXPECT(dmm_age_returned(&age, &state, 0));
	state |= DMM_AGE_KEPT;
	dmm_age_absent(&age, &state);
	EXPECT(dmm_age_is_active(state));
	EXPECT(state & DMM_AGE_KEPT);
	EXPECT_EQ(age.nr_active, 2);
	dmm_age_absent(&age, &state);
	EXPECT_EQ(state, DMM_AGE_KEPT);
	EXPECT_EQ(age.nr_active, 1);
	EXPECT_EQ(age.nr_inactive, 0);
}

/* The counts are those of the states, whatever happened. */
UNIT_TEST(swap_age_counts)
{
	unsigned long active = 0, inactive = 0, i;
	struct sim *sim = sim_new(PAGES / 3);

	for (i = 0; i < 10UL * PAGES; i++) {
		sim_access(sim, access_80_20());
		if (!(unit_random() % 100)) {
			unsigned int page = unit_random() % PAGES;

			if (sim->here[page])
				dmm_age_become(&sim->age, &sim->state[page],
					       DMM_AGE_HARD);
		}
	}
	for (i = 0; i < PAGES; i++) {
		active += dmm_age_is_active(sim->state[i]);
		inactive += dmm_age_is_inactive(sim->state[i]);
		if (!sim->here[i])
			EXPECT_EQ(sim->state[i], 0);
	}
	EXPECT_EQ(sim->age.nr_active, active);
	EXPECT_EQ(sim->age.nr_inactive, inactive);
	free(sim);
}
