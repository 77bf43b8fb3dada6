// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory is given back at once, also from under a running guest.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(punch) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(punch)
{
	self->mem = dmm_mem_create(SIZE);
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(punch)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t resident(unsigned long ino)
{
	return dmm_pool_get(ino, "resident_bytes");
}

DMM_TEST(punch, whole_file)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(SIZE, resident(self->mem.ino));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES));
	EXPECT_EQ(SIZE, lseek(self->mem.fd, 0, SEEK_END));
	EXPECT_EQ(0, resident(self->mem.ino));

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
}

DMM_TEST(punch, every_other_page)
{
	uint64_t i;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));

	for (i = 0; i < PAGES; i += 2) {
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, i * DMM_PAGE,
				       DMM_PAGE));
	}

	EXPECT_EQ(SIZE / 2, resident(self->mem.ino));
	EXPECT_EQ(PAGES / 2, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES / 2,
		  dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(PAGES / 2, dmm_nonzero_pages(self->mem.hva, PAGES));
	for (i = 1; i < PAGES; i += 2) {
		ASSERT_EQ(0, dmm_bad_pages(self->mem.hva + i * DMM_PAGE, i, 1, 1));
	}
}

/* A VM's statistics say what changes of the map cost it. */
DMM_TEST(punch, statistics)
{
	struct dmm_mem copy = dmm_mem_create_exact(SIZE);
	struct kvm_vm *vm = self->guest->vm;
	uint64_t unmapped, protected;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	unmapped = vm_get_stat(vm, "dmm_unmapped");
	protected = vm_get_stat(vm, "dmm_protected");
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, DMM_PAGE, 3 * DMM_PAGE));
	EXPECT_EQ(unmapped + 3, vm_get_stat(vm, "dmm_unmapped"));
	EXPECT_EQ(protected, vm_get_stat(vm, "dmm_protected"));
	ASSERT_EQ(0, ioctl(copy.fd, FICLONE, self->mem.fd));
	EXPECT_EQ(unmapped + 3, vm_get_stat(vm, "dmm_unmapped"));
	EXPECT_EQ(protected + PAGES - 3, vm_get_stat(vm, "dmm_protected"));
	dmm_mem_free(&copy);
}

/* The parts of pages at both ends of an odd hole are zeroed, not given back. */
DMM_TEST(punch, odd_range)
{
	uint8_t *mirror = malloc(SIZE);

	ASSERT_NE(NULL, mirror);
	dmm_fill(mirror, 0, PAGES, 1);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 1000, 3 * DMM_PAGE));
	memset(mirror + 1000, 0, 3 * DMM_PAGE);
	EXPECT_EQ(0, memcmp(mirror, self->mem.hva, SIZE));
	EXPECT_EQ(SIZE - 2 * DMM_PAGE, resident(self->mem.ino));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 10 * DMM_PAGE + 1, 5));
	memset(mirror + 10 * DMM_PAGE + 1, 0, 5);
	EXPECT_EQ(0, memcmp(mirror, self->mem.hva, SIZE));
	EXPECT_EQ(SIZE - 2 * DMM_PAGE, resident(self->mem.ino));

	/* A hole in a hole allocates nothing. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, DMM_PAGE + 1, 5));
	EXPECT_EQ(SIZE - 2 * DMM_PAGE, resident(self->mem.ino));

	/* Beyond the end there is nothing to punch. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, SIZE, SIZE));
	EXPECT_EQ(SIZE, lseek(self->mem.fd, 0, SEEK_END));
	EXPECT_EQ(0, memcmp(mirror, self->mem.hva, SIZE));
}

DMM_TEST(punch, zero_range)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, fallocate(self->mem.fd, FALLOC_FL_ZERO_RANGE,
			       DMM_PAGE, 100 * DMM_PAGE));
	EXPECT_EQ(PAGES - 100,
		  dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(100, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES - 100, dmm_nonzero_pages(self->mem.hva, PAGES));
	EXPECT_EQ(SIZE, lseek(self->mem.fd, 0, SEEK_END));
}

DMM_TEST(punch, allocate)
{
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, DMM_PAGE, 100 * DMM_PAGE));
	EXPECT_EQ(100 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(DMM_PAGE, lseek(self->mem.fd, 0, SEEK_DATA));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));

	/* What is there stays there. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	EXPECT_EQ(SIZE, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/*
 * Stock QEMU gives memory back like this for balloon, free page reporting and
 * virtio-mem.
 */
DMM_TEST(punch, as_qemu_does)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, DMM_PAGE, DMM_PAGE));
	ASSERT_EQ(0, madvise(self->mem.hva + DMM_PAGE, DMM_PAGE, MADV_DONTNEED));
	EXPECT_EQ(SIZE - DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, DMM_GPA + DMM_PAGE));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* Punch holes into memory that two vCPUs use all the time. */
DMM_TEST(punch, under_load)
{
	uint64_t i, n, page;

	self->guest->cpu[0].retry_mmio = false;
	dmm_guest_start(self->guest, 0, DMM_OP_STORM, DMM_GPA, PAGES, 0);
	dmm_guest_start(self->guest, 1, DMM_OP_STORM, DMM_GPA, PAGES, 0);

	srand(1);
	for (i = 0; i < 3000; i++) {
		page = rand() % PAGES;
		n = 1 + rand() % 16;
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, page * DMM_PAGE,
				       n * DMM_PAGE));
		if (i % 500 == 0) {
			ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
		}
	}
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));

	/* No vCPU may have kept a translation of a page that is gone. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(0, resident(self->mem.ino));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 3);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 3));
}

/* A neighbour's hole doesn't hurt: the guest counts in what isn't punched. */
DMM_TEST(punch, neighbours_keep_content)
{
	const uint64_t half = SIZE / 2;
	uint64_t i;

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, PAGES / 2, 0);
	dmm_guest_start(self->guest, 1, DMM_OP_STORM, DMM_GPA + half,
			PAGES / 2, 0);
	for (i = 0; i < 300; i++) {
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, half, half));
		if (i % 100 == 0)
			dmm_guest_wait_rounds(self->guest, 0, i / 100 + 1);
	}

	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_NE(0, self->guest->cpu[0].cmd->rounds);
}

/* Truncation takes memory away; the guest's access ends in a memory fault. */
DMM_TEST(punch, truncate_under_vm)
{
	struct kvm_run *run = self->guest->cpu[0].vcpu->run;
	const uint64_t gpa = DMM_GPA + SIZE / 2;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE / 2));
	EXPECT_EQ(SIZE / 2, resident(self->mem.ino));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(self->mem.ino, "size_bytes"));

	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_POKE, gpa, 1, 1));
	EXPECT_EQ(gpa, run->memory_fault.gpa);
	EXPECT_EQ(DMM_PAGE, run->memory_fault.size);
	EXPECT_EQ(-EFAULT, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 1, DMM_OP_PEEK, gpa, 1, 0));

	/* Back comes zero, and the access that was refused goes on. */
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 1));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, gpa + DMM_PAGE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));
}

/* The rest of the last page of a file with an odd size doesn't come back. */
DMM_TEST(punch, truncate_odd)
{
	uint8_t *p = self->mem.hva;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, ftruncate(self->mem.fd, DMM_PAGE + 100));
	EXPECT_EQ(2 * DMM_PAGE, resident(self->mem.ino));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	EXPECT_NE(0, p[DMM_PAGE + 96]);
	EXPECT_EQ(0, p[DMM_PAGE + 100]);
	EXPECT_EQ(0, p[DMM_PAGE + 4095]);
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, 2, 1));
}

/* TLBs are flushed whichever of the pages a guest has. */
DMM_TEST(punch, flushes_every_run)
{
	uint64_t flushes;

	dmm_mem_exact(&self->mem);
	dmm_guest_fill(self->guest, DMM_GPA, 1, 1);
	dmm_fill(self->mem.hva + 2 * DMM_PAGE, 2, 1, 1);
	flushes = vm_get_stat(self->guest->vm, "remote_tlb_flush_requests");
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, 3 * DMM_PAGE));
	EXPECT_LT(flushes, vm_get_stat(self->guest->vm,
				       "remote_tlb_flush_requests"));
}

TEST_HARNESS_MAIN
