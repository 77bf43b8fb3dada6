// SPDX-License-Identifier: GPL-2.0-only
/*
 * Locks in the fault path, as a kernel with CONFIG_LOCK_STAT counts them: faults of
 * one VM on different pages share none of dynamic memory mapping.
 */
#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(16UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define STAT	"/proc/lock_stat"
#define SWITCH	"/proc/sys/kernel/lock_stat"

/* Beginnings of the names of locks that more than one page, pool or policy has. */
static const char * const ours[] = {
	"&pool->bind_lock", "&pool->policy_mutex", "&pool->limit_mutex",
	"&family->lock", "&shared->lock", "&swap->", "&store->", "&backing->",
	"&restore->", "&share->", "dmm_",
};

/* KVM's takes part in each fault: if it is not found, nothing is. */
static const char * const mmu_lock[] = {
	"&(kvm)->mmu_lock", "&kvm->mmu_lock", "&(&kvm->mmu_lock)",
};

struct lock_count {
	uint64_t taken;
	uint64_t waited;
};

FIXTURE(lock) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_VARIANT(lock) {
	int vcpus;
};

FIXTURE_VARIANT_ADD(lock, one) {
	.vcpus = 1,
};

FIXTURE_VARIANT_ADD(lock, two) {
	.vcpus = 2,
};

FIXTURE_VARIANT_ADD(lock, four) {
	.vcpus = 4,
};

FIXTURE_SETUP(lock)
{
	if (access(STAT, R_OK | W_OK) || access(SWITCH, R_OK | W_OK))
		SKIP(return, "no lock statistics");
	self->mem = dmm_mem_create_exact(SIZE);
	self->guest = dmm_guest_create(variant->vcpus);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(lock)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static bool begins(const char *name, const char * const *with, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (!strncmp(name, with[i], strlen(with[i])))
			return true;
	return false;
}

/*
 * All classes whose names begin as one of @with.  A line is: name, bounces, times
 * waited, four times, bounces, times taken, and more.  What is read under RCU is
 * no lock.
 */
static struct lock_count count(const char * const *with, size_t n)
{
	FILE *f = fopen(STAT, "r");
	struct lock_count sum = {};
	uint64_t waited, taken;
	char line[512], *name, *numbers;

	TEST_ASSERT(f, "No " STAT);
	while (fgets(line, sizeof(line), f)) {
		numbers = strstr(line, ": ");
		if (!numbers ||
		    sscanf(numbers, ": %*u %lu %*f %*f %*f %*f %*u %lu",
			   &waited, &taken) != 2)
			continue;
		*numbers = 0;
		name = line + strspn(line, " ");
		if (strstr(name, "srcu") || !begins(name, with, n))
			continue;
		printf("# %s: taken %lu, waited for %lu times\n", name, taken,
		       waited);
		sum.taken += taken;
		sum.waited += waited;
	}
	fclose(f);
	return sum;
}

DMM_TEST(lock, first_writes)
{
	uint64_t each = PAGES / variant->vcpus;
	struct lock_count c;
	int i;

	ASSERT_EQ(0, dmm_write_file(STAT, "0", 1));
	ASSERT_EQ(0, dmm_write_file(SWITCH, "1", 1));
	for (i = 0; i < variant->vcpus; i++)
		dmm_guest_start(self->guest, i, DMM_OP_TOUCH,
				DMM_GPA + i * each * DMM_PAGE, each, 1);
	for (i = 0; i < variant->vcpus; i++)
		EXPECT_EQ(0, dmm_guest_join(self->guest, i));
	ASSERT_EQ(0, dmm_write_file(SWITCH, "0", 1));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));

	c = count(mmu_lock, ARRAY_SIZE(mmu_lock));
	EXPECT_LE(PAGES, c.taken);
	c = count(ours, ARRAY_SIZE(ours));
	EXPECT_GT(PAGES / 64, c.taken);
	EXPECT_EQ(0, c.waited);
}

TEST_HARNESS_MAIN
