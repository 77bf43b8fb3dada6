// SPDX-License-Identifier: GPL-2.0-only
/*
 * Blocks: 2 MiB in a row, mapped as one where the MMU can, and taken apart
 * when a part of them changes.
 */
#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define LOOKED	(32UL << 20)
#define LARGE_GVA	(64UL << 30)	/* the same memory by mappings of 2 MiB */
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(huge) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_VARIANT(huge) {
	bool is_static;
};

FIXTURE_VARIANT_ADD(huge, static_pool) {
	.is_static = true,
};

FIXTURE_VARIANT_ADD(huge, fallocate) {
	.is_static = false,
};

static uint64_t huge_bytes(unsigned long ino)
{
	return dmm_pool_get(ino, "huge_bytes");
}

FIXTURE_SETUP(huge)
{
	dmm_compact();
	if (variant->is_static) {
		self->mem = dmm_mem_create_static(SIZE);
	} else {
		self->mem = dmm_mem_create(SIZE);
		ASSERT_EQ(0, huge_bytes(self->mem.ino));
		ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	}
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
	ASSERT_EQ(SIZE, huge_bytes(self->mem.ino));
	ASSERT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));
}

FIXTURE_TEARDOWN(huge)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

/* With nested paging a guest takes one fault for 512 pages. */
DMM_TEST(huge, mapped_as_one)
{
	uint64_t pages_2m;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_EQ(SIZE, huge_bytes(self->mem.ino));

	pages_2m = vm_get_stat(self->guest->vm, "pages_2m");
	if (kvm_is_tdp_enabled()) {
		EXPECT_EQ(SIZE / DMM_BLOCK, pages_2m);
	}

	/* A hole in one of them, and the other three stay. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 5 * DMM_PAGE, DMM_PAGE));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	if (kvm_is_tdp_enabled()) {
		EXPECT_EQ(SIZE / DMM_BLOCK - 1,
			  vm_get_stat(self->guest->vm, "pages_2m"));
	}
}

/* The slot isn't aligned to the file's blocks: 4 KiB mappings, same content. */
DMM_TEST(huge, misaligned_slot)
{
	const uint64_t gpa = DMM_GPA + (1UL << 30);
	uint64_t before;

	dmm_guest_del_slot(self->guest, DMM_SLOT);
	before = vm_get_stat(self->guest->vm, "pages_2m");
	dmm_guest_map(self->guest, gpa, SIZE);
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, gpa, SIZE - DMM_PAGE,
			   self->mem.hva + DMM_PAGE);
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	EXPECT_EQ(PAGES - 1, dmm_guest_nonzero_pages(self->guest, gpa, PAGES - 1));
	EXPECT_EQ(*(uint64_t *)(self->mem.hva + 600 * DMM_PAGE),
		  dmm_guest_peek(self->guest, gpa + 599 * DMM_PAGE));
	dmm_guest_poke(self->guest, gpa + 511 * DMM_PAGE, 42);
	EXPECT_EQ(42, *(uint64_t *)(self->mem.hva + 512 * DMM_PAGE));
	EXPECT_EQ(before, vm_get_stat(self->guest->vm, "pages_2m"));
}

/* Blocks are those of the file, wherever the VMM has mapped it. */
DMM_TEST(huge, misaligned_mapping)
{
	void *area, *hva;

	area = mmap(NULL, SIZE + 2 * DMM_BLOCK, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	hva = (void *)align_up((uint64_t)area, DMM_BLOCK) + 5 * DMM_PAGE;
	ASSERT_EQ(hva, mmap(hva, SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, self->mem.fd, 0));

	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, SIZE, hva);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, dmm_bad_pages(hva, 0, PAGES, 1));
	if (kvm_is_tdp_enabled()) {
		EXPECT_EQ(SIZE / DMM_BLOCK,
			  vm_get_stat(self->guest->vm, "pages_2m"));
	}
}

DMM_TEST(huge, punch_inside)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, DMM_BLOCK + 100 * DMM_PAGE,
			       DMM_PAGE));
	EXPECT_EQ(SIZE - DMM_BLOCK, huge_bytes(ino));
	EXPECT_EQ(SIZE - DMM_PAGE, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES - 1, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(PAGES - 1, dmm_nonzero_pages(self->mem.hva, PAGES));

	/* All of a block, and none of it. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 2 * DMM_BLOCK, DMM_BLOCK));
	EXPECT_EQ(SIZE - 2 * DMM_BLOCK, huge_bytes(ino));

	/* What was a whole block can become one again. */
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 2 * DMM_BLOCK, DMM_BLOCK));
	EXPECT_EQ(SIZE - DMM_BLOCK, huge_bytes(ino));
	EXPECT_EQ(513, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
}

/* Dirty logging sees single pages of a block. */
DMM_TEST(huge, dirty_logging)
{
	uint64_t bitmap[PAGES / 64] = {};
	int i, n = 0;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	dmm_guest_add_slot(self->guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES,
			   DMM_GPA, SIZE, self->mem.hva);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	dmm_guest_poke(self->guest, DMM_GPA + 700 * DMM_PAGE, 1);
	kvm_vm_get_dirty_log(self->guest->vm, DMM_SLOT, bitmap);
	for (i = 0; i < PAGES / 64; i++)
		n += __builtin_popcountll(bitmap[i]);
	EXPECT_EQ(1, n);
	EXPECT_EQ(1UL << (700 % 64), bitmap[700 / 64]);
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));

	/* Logging off: a block is one again, in the map it always was. */
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, SIZE,
			   self->mem.hva);
	EXPECT_EQ(SIZE, huge_bytes(self->mem.ino));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
	if (kvm_is_tdp_enabled()) {
		EXPECT_EQ(SIZE / DMM_BLOCK,
			  vm_get_stat(self->guest->vm, "pages_2m"));
	}
}

/* Two vCPUs hammer one block while single pages of it are punched. */
DMM_TEST(huge, punch_under_load)
{
	int i;

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, 128, 0);
	dmm_guest_start(self->guest, 1, DMM_OP_STORM, DMM_GPA + 128 * DMM_PAGE,
			384, 0);
	for (i = 0; i < 384; i++) {
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH,
				       (128 + i) * DMM_PAGE, DMM_PAGE));
	}
	dmm_guest_wait_rounds(self->guest, 0, 2);
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_EQ(SIZE - DMM_BLOCK, huge_bytes(self->mem.ino));
}

/* Blocks of memory that is filled when it is touched, or that was. */
FIXTURE(lazy) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(lazy)
{
	dmm_compact();
	self->mem = dmm_mem_create(SIZE);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "demand/rebuild_rate", "0"));
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(lazy)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

/* Wait until so much memory is blocks, or more. */
static uint64_t wait_huge(unsigned long ino, uint64_t bytes)
{
	int tries;

	for (tries = 0; huge_bytes(ino) < bytes && tries < 3000; tries++)
		usleep(10000);
	return huge_bytes(ino);
}

DMM_TEST(lazy, always)
{
	unsigned long ino = self->mem.ino;
	unsigned int i;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "always"));
	for (i = 0; i < SIZE / DMM_BLOCK; i++)
		dmm_guest_poke(self->guest, DMM_GPA + i * DMM_BLOCK +
			       (77 + i) * DMM_PAGE, i + 1);
	EXPECT_EQ(SIZE, huge_bytes(ino));
	EXPECT_EQ(SIZE, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_EQ(SIZE / DMM_BLOCK, dmm_pool_get(ino, "stats/fill_block"));
	if (kvm_is_tdp_enabled()) {
		EXPECT_EQ(SIZE / DMM_BLOCK,
			  vm_get_stat(self->guest->vm, "pages_2m"));
	}
	EXPECT_EQ(SIZE / DMM_BLOCK, dmm_nonzero_pages(self->mem.hva, PAGES));
	for (i = 0; i < SIZE / DMM_BLOCK; i++)
		EXPECT_EQ(i + 1, *(uint64_t *)(self->mem.hva + i * DMM_BLOCK +
					       (77 + i) * DMM_PAGE));
}

/* A process's write does the same, and reads before leave zeros mapped. */
DMM_TEST(lazy, always_host)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "always"));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(0, dmm_pool_get(ino, "resident_bytes"));
	dmm_fill(self->mem.hva, 0, PAGES, 3);
	EXPECT_EQ(SIZE, huge_bytes(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 3));
}

/* The limit leaves no room for a block: pages then. */
DMM_TEST(lazy, always_limit)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "always"));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", DMM_BLOCK / 2));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 16, 1);
	EXPECT_EQ(0, huge_bytes(ino));
	EXPECT_EQ(SIZE / 16, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES / 16, 1));
}

DMM_TEST(lazy, never)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "never"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, huge_bytes(ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* A long sequence gets blocks from its second region on, a single touch none. */
DMM_TEST(lazy, adaptive)
{
	unsigned long ino = self->mem.ino;

	dmm_guest_poke(self->guest, DMM_GPA + SIZE - DMM_BLOCK, 1);
	EXPECT_EQ(0, huge_bytes(ino));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(SIZE - 2 * DMM_BLOCK, huge_bytes(ino));
	EXPECT_EQ(SIZE, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* A region that was emptied may become a block again. */
DMM_TEST(lazy, punched)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "always"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, DMM_BLOCK, DMM_BLOCK));
	EXPECT_EQ(SIZE - DMM_BLOCK, huge_bytes(ino));
	dmm_guest_poke(self->guest, DMM_GPA + DMM_BLOCK, 1);
	EXPECT_EQ(SIZE, huge_bytes(ino));
	EXPECT_EQ(512, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* Pages become blocks while nobody does anything with them. */
DMM_TEST(lazy, rebuilt)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "never"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, huge_bytes(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/rebuild_rate", "1G"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "adaptive"));
	EXPECT_EQ(SIZE, wait_huge(ino, SIZE));
	EXPECT_EQ(SIZE, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_EQ(SIZE / DMM_BLOCK,
		  dmm_pool_get(ino, "demand/stats/rebuilt"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	if (kvm_is_tdp_enabled()) {
		EXPECT_EQ(SIZE / DMM_BLOCK,
			  vm_get_stat(self->guest->vm, "pages_2m"));
	}

	/* And part of a block is given up as ever. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 5 * DMM_PAGE, DMM_PAGE));
	EXPECT_EQ(SIZE - DMM_BLOCK, huge_bytes(ino));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* What is not used, not complete, or held by somebody, stays as it is. */
DMM_TEST(lazy, not_rebuilt)
{
	unsigned long ino = self->mem.ino;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "never"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	/* 0: a hole.  1: locked in memory.  2: filled, but not used. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 9 * DMM_PAGE, DMM_PAGE));
	ASSERT_EQ(0, mlock(self->mem.hva + DMM_BLOCK + 7 * DMM_PAGE, DMM_PAGE));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 2 * DMM_BLOCK, DMM_BLOCK));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/fault_around_bytes", "4K"));
	dmm_fill(self->mem.hva + 2 * DMM_BLOCK, 1024, 512, 1);
	ASSERT_EQ(0, madvise(self->mem.hva + 2 * DMM_BLOCK, DMM_BLOCK,
			     MADV_DONTNEED));

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/rebuild_rate", "1G"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "adaptive"));
	EXPECT_EQ(DMM_BLOCK, wait_huge(ino, DMM_BLOCK));
	sleep(3);
	EXPECT_EQ(DMM_BLOCK, huge_bytes(ino));

	/* Once the reason is gone. */
	dmm_fill(self->mem.hva + 9 * DMM_PAGE, 9, 1, 1);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA + 2 * DMM_BLOCK,
					 512, 1));
	EXPECT_EQ(SIZE - DMM_BLOCK, wait_huge(ino, SIZE - DMM_BLOCK));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* A page that a policy has protected keeps its region as it is until a write. */
DMM_TEST(lazy, protected_page)
{
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no policy test-share");
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-share"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "never"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set(ino, "test-share/protect", "600"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/rebuild_rate", "1G"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "adaptive"));
	EXPECT_EQ(SIZE - DMM_BLOCK, wait_huge(ino, SIZE - DMM_BLOCK));
	sleep(3);
	EXPECT_EQ(SIZE - DMM_BLOCK, huge_bytes(ino));

	dmm_guest_poke(self->guest, DMM_GPA + 600 * DMM_PAGE, 77);
	EXPECT_EQ(SIZE, wait_huge(ino, SIZE));
	EXPECT_EQ(77, dmm_guest_peek(self->guest, DMM_GPA + 600 * DMM_PAGE));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/*
 * Two vCPUs count in all pages while they become blocks and are taken apart by
 * holes, again and again.
 */
DMM_TEST(lazy, rebuilt_under_load)
{
	const uint64_t used = SIZE - DMM_BLOCK;
	unsigned long ino = self->mem.ino;
	uint64_t rebuilt;
	int i, round;

	ASSERT_EQ(0, dmm_pool_set(ino, "demand/rebuild_rate", "1G"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/fault_around_bytes", "4K"));
	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, PAGES / 4, 0);
	/* One page of the second region is not counted in. */
	dmm_guest_start(self->guest, 1, DMM_OP_COUNT,
			DMM_GPA + SIZE / 4 + DMM_PAGE, PAGES / 2 - 1, 0);
	EXPECT_EQ(used - DMM_BLOCK, wait_huge(ino, used - DMM_BLOCK));
	for (round = 0; round < 5; round++) {
		/* A hole in the block makes it pages, a write complete again. */
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, SIZE / 4, DMM_PAGE));
		*(volatile uint64_t *)(self->mem.hva + SIZE / 4) = round;
		EXPECT_EQ(used, wait_huge(ino, used));
		EXPECT_EQ(round, *(volatile uint64_t *)(self->mem.hva + SIZE / 4));
	}
	rebuilt = dmm_pool_get(ino, "stats/make_block");
	/* A page that comes back by chance makes the old block whole again. */
	EXPECT_GE(rebuilt, 3);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, dmm_guest_stop(self->guest, i));
		EXPECT_EQ(0, self->guest->cpu[i].cmd->result);
	}
}

/* An access to any page of a large mapping is an access to all of them. */
DMM_TEST(lazy, accessed_as_one)
{
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	ASSERT_EQ(SIZE, huge_bytes(ino));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/second_chance", "1"));
	/* With shadow paging the guest's tables have to have it so, too. */
	virt_map_level(self->guest->vm, LARGE_GVA, DMM_GPA, SIZE, PG_LEVEL_2M);
	dmm_guest_poke(self->guest, LARGE_GVA + DMM_BLOCK + 7 * DMM_PAGE, 1);
	EXPECT_EQ(1, vm_get_stat(self->guest->vm, "pages_2m"));

	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE, POSIX_FADV_DONTNEED));
	EXPECT_EQ(DMM_BLOCK, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_EQ(DMM_BLOCK, huge_bytes(ino));
	/* Now it was not accessed since. */
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE, POSIX_FADV_DONTNEED));
	EXPECT_EQ(0, dmm_pool_get(ino, "resident_bytes"));
	EXPECT_EQ(1, dmm_guest_peek(self->guest,
				    DMM_GPA + DMM_BLOCK + 7 * DMM_PAGE));
	EXPECT_EQ(1, dmm_nonzero_pages(self->mem.hva, PAGES));
}

struct looker {
	unsigned long ino;
	bool stop;
	int error;
};

static void *look_at_all(void *arg)
{
	struct looker *looker = arg;

	while (!looker->error && !READ_ONCE(looker->stop))
		looker->error = dmm_pool_set(looker->ino, "test-share/look", "8");
	return NULL;
}

/* What somebody else has busy while a region is copied is copied all the same. */
DMM_TEST(lazy, rebuilt_while_busy)
{
	struct dmm_mem mem = dmm_mem_create(LOOKED);
	struct looker looker = { .ino = mem.ino };
	unsigned long ino = mem.ino;
	uint64_t tried = 0;
	pthread_t thread;
	int tries;

	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no policy test-share");
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-share"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "never"));
	dmm_fill(mem.hva, 0, LOOKED / DMM_PAGE, 1);
	ASSERT_EQ(0, pthread_create(&thread, NULL, look_at_all, &looker));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/rebuild_rate", "1G"));
	ASSERT_EQ(0, dmm_pool_set(ino, "demand/block", "adaptive"));
	for (tries = 0; tried < LOOKED / DMM_BLOCK && tries < 3000; tries++) {
		usleep(10000);
		tried = dmm_pool_get(ino, "stats/make_block") +
			dmm_pool_get(ino, "stats/make_block_failed");
	}
	WRITE_ONCE(looker.stop, true);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, looker.error);
	/* Some were busy just when they were to be taken. */
	EXPECT_LT(0, huge_bytes(ino));
	EXPECT_EQ(0, dmm_bad_pages(mem.hva, 0, LOOKED / DMM_PAGE, 1));
	dmm_mem_free(&mem);
}

/* No block where the file ends within. */
DMM_TEST(lazy, always_end_of_file)
{
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "demand/block", "always"));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE - DMM_PAGE));
	dmm_guest_poke(self->guest, DMM_GPA + SIZE - DMM_BLOCK, 1);
	EXPECT_EQ(0, huge_bytes(self->mem.ino));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 1, DMM_OP_PEEK,
					 DMM_GPA + SIZE - DMM_PAGE, 1, 0));
}

TEST_HARNESS_MAIN
