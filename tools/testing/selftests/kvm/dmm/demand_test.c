// SPDX-License-Identifier: GPL-2.0-only
/*
 * Filling more than what is touched: windows that grow with a sequence and
 * shrink when nobody uses them.
 */
#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(16UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(demand) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(demand)
{
	self->mem = dmm_mem_create(SIZE);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "demand/block", "never"));
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(demand)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t resident(struct dmm_mem *mem)
{
	return dmm_pool_get(mem->ino, "resident_bytes") / DMM_PAGE;
}

static uint64_t stat(struct dmm_mem *mem, const char *name)
{
	char file[64];

	snprintf(file, sizeof(file), "stats/%s", name);
	return dmm_pool_get(mem->ino, file);
}

static uint64_t gpa(uint64_t page)
{
	return DMM_GPA + page * DMM_PAGE;
}

/* A sequence takes far fewer faults than pages, and no page too much. */
DMM_TEST(demand, sequence)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_EQ(PAGES, resident(&self->mem));
	EXPECT_EQ(PAGES, stat(&self->mem, "fill"));
	EXPECT_GT(stat(&self->mem, "fill_around"), PAGES * 3 / 4);
	EXPECT_GT(dmm_pool_get(self->mem.ino, "demand/stats/around_used"),
		  dmm_pool_get(self->mem.ino, "demand/stats/around_unused"));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "huge_bytes"));
}

/* The same downwards. */
DMM_TEST(demand, backward)
{
	int i;

	for (i = PAGES / 4 - 1; i >= 0; i--)
		dmm_guest_poke(self->guest, gpa(i), i);
	EXPECT_EQ(PAGES / 4, resident(&self->mem));
	EXPECT_GT(stat(&self->mem, "fill_around"), PAGES / 4 / 2);
	for (i = 0; i < PAGES / 4; i++)
		ASSERT_EQ(i, *(uint64_t *)(self->mem.hva + i * DMM_PAGE));
}

DMM_TEST(demand, off)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/fault_around_bytes", "4K"));
	dmm_guest_poke(self->guest, gpa(100), 1);
	EXPECT_EQ(1, resident(&self->mem));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, stat(&self->mem, "fill_around"));
	EXPECT_EQ(PAGES, stat(&self->mem, "fill"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* No window is larger than the limit of windows. */
DMM_TEST(demand, largest_window)
{
	unsigned long ino = self->mem.ino;
	uint64_t before = resident(&self->mem), now, most = 0;
	unsigned int i;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/fault_around_bytes", "256K"));
	for (i = 0; i < PAGES; i++) {
		dmm_guest_poke(self->guest, gpa(i), 1);
		now = resident(&self->mem);
		if (now - before > most)
			most = now - before;
		before = now;
	}
	EXPECT_EQ(64, most);
	EXPECT_EQ(PAGES, resident(&self->mem));
}

/* What is around is zero, and untouched memory beyond it stays absent. */
DMM_TEST(demand, first_touch)
{
	dmm_guest_poke(self->guest, gpa(1001), 42);
	EXPECT_GT(resident(&self->mem), 1);
	EXPECT_LE(resident(&self->mem), 16);
	EXPECT_EQ(1, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(1, dmm_nonzero_pages(self->mem.hva, PAGES));
	EXPECT_EQ(42, dmm_guest_peek(self->guest, gpa(1001)));
}

/* Nothing around is ever used: nothing is filled any more. */
DMM_TEST(demand, scattered)
{
	const unsigned int stride = 16, rounds = PAGES / stride;
	unsigned long ino = self->mem.ino;
	uint64_t around, unused;
	unsigned int i;

	for (i = 0; i < rounds; i++)
		dmm_guest_poke(self->guest, gpa(i * stride), i + 1);
	around = stat(&self->mem, "fill_around");
	unused = dmm_pool_get(ino, "demand/stats/around_unused");
	EXPECT_GT(unused, 0);
	/* A few windows until it is known, and probes. */
	EXPECT_LE(around, 3 * 16 + 3 * rounds / 64);
	EXPECT_EQ(rounds + around, resident(&self->mem));
	for (i = 0; i < rounds; i++)
		ASSERT_EQ(i + 1, *(uint64_t *)(self->mem.hva +
					       i * stride * DMM_PAGE));
}

/* A guest's fault maps what it filled: with nested paging nothing faults twice. */
DMM_TEST(demand, mapped)
{
	uint64_t before = vm_get_stat(self->guest->vm, "pages_4k");

	EXPECT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_TOUCH, DMM_GPA, PAGES,
				   1));
	EXPECT_LE(before + PAGES, vm_get_stat(self->guest->vm, "pages_4k"));
	if (kvm_is_tdp_enabled()) {
		EXPECT_LT(stat(&self->mem, "fault"), PAGES / 4);
	}
}

/* Pages count as dirty when the guest writes them, not when they are filled. */
DMM_TEST(demand, dirty_logging)
{
	uint64_t bitmap[PAGES / 64] = {};
	unsigned int i;

	/* Mapped before the log begins. */
	dmm_guest_run(self->guest, 0, DMM_OP_TOUCH, DMM_GPA, 256, 1);
	dmm_guest_add_slot(self->guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES,
			   DMM_GPA, SIZE, self->mem.hva);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	dmm_guest_poke(self->guest, gpa(65), 2);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	for (i = 0; i < PAGES / 64; i++)
		EXPECT_EQ(i == 1 ? 2 : 0, bitmap[i]);

	/* Filled while it runs: the first, then its neighbours. */
	dmm_guest_poke(self->guest, gpa(1024), 2);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	for (i = 0; i < PAGES / 64; i++)
		EXPECT_EQ(i == 16 ? 1 : 0, bitmap[i]);
	dmm_guest_run(self->guest, 0, DMM_OP_TOUCH, gpa(1024), 64, 3);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	for (i = 0; i < PAGES / 64; i++)
		EXPECT_EQ(i == 16 ? ~0UL : 0, bitmap[i]);
}

/* Through a mapping as by a guest; what asks for a size gets just that. */
DMM_TEST(demand, processes)
{
	char *hva = self->mem.hva, byte = 1;

	ASSERT_EQ(1, pwrite(self->mem.fd, &byte, 1, 1000 * DMM_PAGE));
	EXPECT_EQ(1, resident(&self->mem));
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 1100 * DMM_PAGE, DMM_PAGE));
	EXPECT_EQ(2, resident(&self->mem));
	EXPECT_EQ(0, stat(&self->mem, "fill_around"));

	dmm_fill(hva, 0, PAGES / 2, 1);
	EXPECT_GT(stat(&self->mem, "fill_around"), 0);
	EXPECT_EQ(PAGES / 2, resident(&self->mem));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));
}

/* Nobody could make room again: below such a limit nothing is filled ahead. */
DMM_TEST(demand, limit)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 1001 * DMM_PAGE));
	EXPECT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_TOUCH, DMM_GPA, 1001,
				   1));
	EXPECT_EQ(1001, resident(&self->mem));
	EXPECT_EQ(0, stat(&self->mem, "fill_around"));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_TOUCH,
					 gpa(1001), 1, 1));
	EXPECT_EQ(1001, resident(&self->mem));
}

/* The end of the file, in the middle of a window. */
DMM_TEST(demand, end_of_file)
{
	struct dmm_guest *guest = self->guest;

	dmm_guest_del_slot(guest, DMM_SLOT);
	ASSERT_EQ(0, ftruncate(self->mem.fd, 1002 * DMM_PAGE));
	dmm_guest_add_slot(guest, DMM_SLOT, 0, DMM_GPA, 1002 * DMM_PAGE,
			   self->mem.hva);
	EXPECT_EQ(0, dmm_guest_run(guest, 0, DMM_OP_TOUCH, DMM_GPA, 1002, 1));
	EXPECT_EQ(1002, resident(&self->mem));
	dmm_guest_del_slot(guest, DMM_SLOT);
	ASSERT_EQ(0, ftruncate(self->mem.fd, 0));
	EXPECT_EQ(0, resident(&self->mem));
}

/* A slot whose pages lie in other page tables than the file's regions. */
DMM_TEST(demand, misaligned_slot)
{
	const uint64_t other = DMM_GPA + (1UL << 30);

	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_map(self->guest, other, SIZE);
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, other, SIZE - 5 * DMM_PAGE,
			   self->mem.hva + 5 * DMM_PAGE);
	EXPECT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_TOUCH, other,
				   PAGES - 5, 7));
	/* The guest has fewer than the file: what was filled around is bounded. */
	EXPECT_GE(resident(&self->mem), PAGES - 5);
	EXPECT_EQ(PAGES - 5, dmm_nonzero_pages(self->mem.hva, PAGES));
}

/* Guests' writes in windows that are punched at the same time. */
DMM_TEST(demand, punched_windows)
{
	const unsigned int half = PAGES / 2;
	unsigned int round, i;

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, 128, 0);
	dmm_guest_start(self->guest, 1, DMM_OP_STORM, gpa(half), half, 0);
	for (round = 0; round < 4; round++) {
		for (i = 0; i < half; i += 48)
			ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH,
					       (half + i) * DMM_PAGE,
					       24 * DMM_PAGE));
	}
	dmm_guest_wait_rounds(self->guest, 0, 2);
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, half * DMM_PAGE,
			       half * DMM_PAGE));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva + half * DMM_PAGE, half));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, gpa(half), half));
}

DMM_TEST(demand, bad_input)
{
	unsigned long ino = self->mem.ino;
	char buf[64];

	EXPECT_EQ(-ERANGE, dmm_pool_set(ino, "demand/fault_around_bytes", "0"));
	EXPECT_EQ(-ERANGE, dmm_pool_set(ino, "demand/fault_around_bytes", "4095"));
	EXPECT_EQ(-ERANGE, dmm_pool_set(ino, "demand/fault_around_bytes", "3M"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "demand/fault_around_bytes", "-4K"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "demand/fault_around_bytes", "4X"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "demand/block", "sometimes"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "demand/block", "1"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "demand/rebuild_rate", "fast"));
	EXPECT_EQ(-ERANGE, dmm_pool_set(ino, "demand/rebuild_rate", "2048G"));
	EXPECT_EQ(65536, dmm_pool_get(ino, "demand/fault_around_bytes"));
	EXPECT_EQ(16UL << 20, dmm_pool_get(ino, "demand/rebuild_rate"));
	dmm_pool_read(ino, "demand/block", buf, sizeof(buf));
	EXPECT_STREQ("[never] always adaptive\n", buf);
	EXPECT_EQ(0, dmm_pool_set(ino, "demand/block", "default"));
	dmm_pool_read(ino, "demand/block", buf, sizeof(buf));
	EXPECT_STREQ("never always [adaptive]\n", buf);

	/* Not a power of two: the next lower one. */
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "never"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/fault_around_bytes", "12K"));
	dmm_guest_poke(self->guest, gpa(1), 1);
	EXPECT_EQ(2, resident(&self->mem));
}

TEST_HARNESS_MAIN
