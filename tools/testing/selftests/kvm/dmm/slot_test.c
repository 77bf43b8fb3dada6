// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory slots on dmmfs files, in every arrangement a VMM may think of.
 */
#include <sys/stat.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* A second place for memory, not a multiple of 2 MiB apart from the first. */
#define GPA2	(DMM_GPA + (1UL << 30) + 3 * DMM_PAGE)
#define SLOT2	(DMM_SLOT + 1)

FIXTURE(slot) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(slot)
{
	self->mem = dmm_mem_create(SIZE);
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
	dmm_guest_map(self->guest, GPA2, SIZE);
}

FIXTURE_TEARDOWN(slot)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t resident(unsigned long ino)
{
	return dmm_pool_get(ino, "resident_bytes");
}

/* One offset at two guest addresses, as with SMRAM or video memory. */
DMM_TEST(slot, alias)
{
	uint64_t i;

	dmm_guest_add_slot(self->guest, SLOT2, 0, GPA2, SIZE, self->mem.hva);

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	for (i = 0; i < PAGES; i += 37) {
		ASSERT_EQ(*(uint64_t *)(self->mem.hva + i * DMM_PAGE),
			  dmm_guest_peek(self->guest, GPA2 + i * DMM_PAGE));
	}
	dmm_guest_poke(self->guest, GPA2 + 8, 77);
	EXPECT_EQ(77, dmm_guest_peek(self->guest, DMM_GPA + 8));
	EXPECT_EQ(SIZE, resident(self->mem.ino));

	/* Both lose it. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, GPA2, PAGES));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));

	/* Zero was read at both: a write at one is seen at the other. */
	dmm_guest_poke(self->guest, GPA2 + DMM_PAGE, 5);
	EXPECT_EQ(5, dmm_guest_peek(self->guest, DMM_GPA + DMM_PAGE));
	EXPECT_EQ(DMM_PAGE, resident(self->mem.ino));

	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_poke(self->guest, GPA2 + DMM_PAGE, 6);
	EXPECT_EQ(6, *(uint64_t *)(self->mem.hva + DMM_PAGE));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, GPA2 + DMM_PAGE));
}

/* A slot begins anywhere in a file, and several take a file apart. */
DMM_TEST(slot, parts)
{
	const uint64_t third = 341 * DMM_PAGE;

	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, third,
			   self->mem.hva);
	dmm_guest_add_slot(self->guest, SLOT2, 0, DMM_GPA + third, third,
			   self->mem.hva + third);
	dmm_guest_add_slot(self->guest, SLOT2 + 1, 0, DMM_GPA + 2 * third,
			   SIZE - 2 * third, self->mem.hva + 2 * third);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));

	/* One hole across all three. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, third - DMM_PAGE,
			       third + 2 * DMM_PAGE));
	EXPECT_EQ(343, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES - 343,
		  dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
}

/*
 * SMM is a second address space with its own slots.  The handler, in 16-bit
 * code, reads a word of a file that no other slot has and reports it.
 */
#define SMRAM_GPA	0x1000000UL
#define SMRAM_SIZE	(2UL << 20)
#define SMRAM_SLOT	((1 << 16) | 20)
#define SMRAM_DATA	0x20000UL
#define SMRAM_PORT	0xe

static uint32_t run_smm(struct __test_metadata *_metadata,
			struct dmm_guest *guest)
{
	struct kvm_vcpu *vcpu = guest->cpu[0].vcpu;
	struct kvm_vcpu_events events;

	vcpu_events_get(vcpu, &events);
	events.smi.pending = 1;
	events.flags |= KVM_VCPUEVENT_VALID_SMM;
	vcpu_events_set(vcpu, &events);

	ASSERT_EQ(KVM_EXIT_IO,
		  dmm_guest_run(guest, 0, DMM_OP_PEEK, DMM_GPA, 1, 0));
	EXPECT_EQ(SMRAM_PORT, vcpu->run->io.port);
	EXPECT_EQ(4, vcpu->run->io.size);
	return *(uint32_t *)((void *)vcpu->run + vcpu->run->io.data_offset);
}

DMM_TEST(slot, smm)
{
	const uint32_t addr = SMRAM_GPA + SMRAM_DATA;
	struct dmm_mem smram = dmm_mem_create(SMRAM_SIZE);
	uint8_t handler[] = {
		/* mov addr, %eax */
		0x66, 0x67, 0xa1, addr & 0xff, addr >> 8 & 0xff,
		addr >> 16 & 0xff, addr >> 24,
		/* out %eax, $port */
		0x66, 0xe7, SMRAM_PORT,
		/* rsm */
		0x0f, 0xaa,
	};

	if (!kvm_has_cap(KVM_CAP_X86_SMM) ||
	    kvm_check_cap(KVM_CAP_MULTI_ADDRESS_SPACE) < 2)
		SKIP(return, "no SMM");

	memcpy(smram.hva + 0x8000, handler, sizeof(handler));
	dmm_guest_add_slot(self->guest, SMRAM_SLOT, 0, SMRAM_GPA, SMRAM_SIZE,
			   smram.hva);
	vcpu_set_msr(self->guest->cpu[0].vcpu, MSR_IA32_SMBASE, SMRAM_GPA);

	/* Zero page, then a frame, then a hole, then another frame. */
	EXPECT_EQ(0, run_smm(_metadata, self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));
	*(uint32_t *)(smram.hva + SMRAM_DATA) = 0x12345678;
	EXPECT_EQ(0x12345678, run_smm(_metadata, self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));
	ASSERT_EQ(0, fallocate(smram.fd, PUNCH, SMRAM_DATA, DMM_PAGE));
	EXPECT_EQ(0, run_smm(_metadata, self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));
	*(uint32_t *)(smram.hva + SMRAM_DATA) = 0x9abcdef0;
	EXPECT_EQ(0x9abcdef0, run_smm(_metadata, self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));

	/* The same file in both address spaces, at different offsets. */
	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, DMM_PAGE,
			   smram.hva + SMRAM_DATA);
	dmm_guest_poke(self->guest, DMM_GPA, 0x55667788);
	EXPECT_EQ(0x55667788, run_smm(_metadata, self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));
	ASSERT_EQ(0, fallocate(smram.fd, PUNCH, SMRAM_DATA, DMM_PAGE));
	EXPECT_EQ(0, run_smm(_metadata, self->guest));
	ASSERT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, DMM_GPA));

	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_del_slot(self->guest, SMRAM_SLOT);
	dmm_mem_free(&smram);
	EXPECT_TRUE(dmm_pool_gone(smram.ino));
}

/* A read-only slot: writes are the VMM's business, as on a ROM. */
DMM_TEST(slot, readonly_slot)
{
	struct kvm_run *run = self->guest->cpu[0].vcpu->run;

	dmm_fill(self->mem.hva, 0, 4, 1);
	dmm_guest_add_slot(self->guest, SLOT2, KVM_MEM_READONLY, GPA2, SIZE,
			   self->mem.hva);

	EXPECT_EQ(*(uint64_t *)self->mem.hva,
		  dmm_guest_peek(self->guest, GPA2));
	ASSERT_EQ(KVM_EXIT_MMIO,
		  dmm_guest_run(self->guest, 0, DMM_OP_POKE, GPA2, 1, 99));
	EXPECT_TRUE(run->mmio.is_write);
	EXPECT_EQ(GPA2, run->mmio.phys_addr);
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 4, 1));

	/* Absent memory, too: nothing gets allocated. */
	EXPECT_EQ(0, dmm_guest_peek(self->guest, GPA2 + 9 * DMM_PAGE));
	ASSERT_EQ(KVM_EXIT_MMIO, dmm_guest_run(self->guest, 0, DMM_OP_POKE,
					       GPA2 + 9 * DMM_PAGE, 1, 99));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(4 * DMM_PAGE, resident(self->mem.ino));

	/* The other slot may write, and this one sees it. */
	dmm_guest_poke(self->guest, DMM_GPA + 9 * DMM_PAGE, 44);
	EXPECT_EQ(44, dmm_guest_peek(self->guest, GPA2 + 9 * DMM_PAGE));
	ASSERT_EQ(KVM_EXIT_MMIO, dmm_guest_run(self->guest, 0, DMM_OP_POKE,
					       GPA2 + 9 * DMM_PAGE, 1, 99));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(44, dmm_guest_peek(self->guest, DMM_GPA + 9 * DMM_PAGE));
}

/* A VMM that can't write the memory can't let its guest do so. */
DMM_TEST(slot, readonly_mapping)
{
	void *ro;

	dmm_fill(self->mem.hva, 0, 4, 1);
	ro = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, self->mem.fd, 0);
	ASSERT_NE(MAP_FAILED, ro);

	ASSERT_EQ(0, dmm_guest_try_slot(self->guest, SLOT2, 0, GPA2, SIZE, ro));
	EXPECT_EQ(*(uint64_t *)ro, dmm_guest_peek(self->guest, GPA2));

	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_POKE, GPA2, 1, 99));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 4, 1));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 1, DMM_OP_POKE,
					 GPA2 + 9 * DMM_PAGE, 1, 9));
	EXPECT_EQ(4 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva + 4 * DMM_PAGE, PAGES - 4));
}

/* What cannot be mapped ahead is the guest's business only when it gets there. */
DMM_TEST(slot, pre_fault_is_no_exit)
{
	struct kvm_pre_fault_memory range = { .gpa = DMM_GPA + SIZE - DMM_PAGE,
					      .size = DMM_PAGE };
	struct kvm_vcpu *vcpu = self->guest->cpu[0].vcpu;
	struct kvm_run before;

	if (!kvm_is_tdp_enabled() || !kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY))
		SKIP(return, "nothing is mapped ahead");
	/* The exit that tells us that is not over yet. */
	dmm_guest_poke(self->guest, DMM_GPA, 1);
	before = *vcpu->run;
	ASSERT_EQ(KVM_EXIT_IO, before.exit_reason);
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE / 2));
	EXPECT_EQ(-1, __vcpu_ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, memcmp(&before, vcpu->run, sizeof(before)));
	EXPECT_EQ(1, dmm_guest_peek(self->guest, DMM_GPA));
}

/* A VMM that opened the file read-only can't write by its guest, either. */
DMM_TEST(slot, readonly_descriptor)
{
	char path[64];
	void *ro;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->mem.fd);
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	dmm_fill(self->mem.hva, 0, 1, 1);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED, fd, 0));
	EXPECT_EQ(EACCES, errno);
	errno = 0;
	ro = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, ro);
	ASSERT_EQ(0, dmm_guest_try_slot(self->guest, SLOT2, 0, GPA2, SIZE, ro));
	EXPECT_EQ(*(uint64_t *)ro, dmm_guest_peek(self->guest, GPA2));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_POKE, GPA2, 1, 99));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 1, 1));
	EXPECT_EQ(-1, write(fd, "x", 1));
	EXPECT_EQ(-1, fallocate(fd, PUNCH, 0, SIZE));
}

DMM_TEST(slot, move)
{
	int i;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	for (i = 0; i < 20; i++) {
		dmm_guest_add_slot(self->guest, DMM_SLOT, 0, GPA2, SIZE,
				   self->mem.hva);
		ASSERT_EQ(*(uint64_t *)(self->mem.hva + i * DMM_PAGE),
			  dmm_guest_peek(self->guest, GPA2 + i * DMM_PAGE));
		dmm_guest_poke(self->guest, GPA2 + i * DMM_PAGE, i);
		dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, SIZE,
				   self->mem.hva);
		ASSERT_EQ(i, dmm_guest_peek(self->guest, DMM_GPA + i * DMM_PAGE));
	}

	/* Changes of the file find the slot where it is now. */
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, GPA2, SIZE, self->mem.hva);
	EXPECT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_TOUCH, GPA2, PAGES, 9));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, GPA2, PAGES));
	EXPECT_EQ(0, resident(self->mem.ino));
}

static int dirty_pages(const uint64_t *bitmap)
{
	unsigned int i, n = 0;

	for (i = 0; i < PAGES / 64; i++)
		n += __builtin_popcountll(bitmap[i]);
	return n;
}

DMM_TEST(slot, dirty_bitmap)
{
	uint64_t bitmap[PAGES / 64] = {};
	struct kvm_vm *vm = self->guest->vm;
	int round, i;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 1);

	for (round = 0; round < 3; round++) {
		dmm_guest_add_slot(self->guest, DMM_SLOT,
				   KVM_MEM_LOG_DIRTY_PAGES, DMM_GPA, SIZE,
				   self->mem.hva);
		kvm_vm_get_dirty_log(vm, DMM_SLOT, bitmap);
		EXPECT_EQ(0, dirty_pages(bitmap));

		/* Present, absent and only read memory. */
		for (i = 3; i < PAGES; i += 64)
			dmm_guest_poke(self->guest, DMM_GPA + i * DMM_PAGE, i);
		EXPECT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_READ, DMM_GPA,
					   PAGES, 0));
		kvm_vm_get_dirty_log(vm, DMM_SLOT, bitmap);
		for (i = 0; i < PAGES / 64; i++) {
			ASSERT_EQ(1UL << 3, bitmap[i]);
		}

		/* A page that was punched and written again is dirty again. */
		kvm_vm_get_dirty_log(vm, DMM_SLOT, bitmap);
		EXPECT_EQ(0, dirty_pages(bitmap));
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
		dmm_guest_poke(self->guest, DMM_GPA + 3 * DMM_PAGE, 1);
		kvm_vm_get_dirty_log(vm, DMM_SLOT, bitmap);
		EXPECT_EQ(1UL << 3, bitmap[0]);
		EXPECT_EQ(1, dirty_pages(bitmap));

		dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, SIZE,
				   self->mem.hva);
		dmm_guest_fill(self->guest, DMM_GPA, PAGES, round + 2);
		EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, round + 2));
	}
}

/* What is not mapped yet and only read is not dirty. */
DMM_TEST(slot, dirty_reads)
{
	uint64_t bitmap[PAGES / 64] = {};
	struct kvm_vm *vm = self->guest->vm;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_add_slot(self->guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES,
			   DMM_GPA, SIZE, self->mem.hva);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	kvm_vm_get_dirty_log(vm, DMM_SLOT, bitmap);
	EXPECT_EQ(0, dirty_pages(bitmap));

	dmm_guest_poke(self->guest, DMM_GPA + 70 * DMM_PAGE, 1);
	kvm_vm_get_dirty_log(vm, DMM_SLOT, bitmap);
	EXPECT_EQ(1UL << 6, bitmap[1]);
	EXPECT_EQ(1, dirty_pages(bitmap));
}

DMM_TEST(slot, dirty_ring)
{
	const uint32_t ring_bytes = 65536;
	struct kvm_dirty_gfn *ring;
	struct dmm_guest *guest;
	struct kvm_vcpu *vcpu;
	uint32_t found = 0, i;

	if (!kvm_check_cap(KVM_CAP_DIRTY_LOG_RING) &&
	    !kvm_check_cap(KVM_CAP_DIRTY_LOG_RING_ACQ_REL))
		SKIP(return, "no dirty ring");

	guest = dmm_guest_create_ring(1, ring_bytes);
	vcpu = guest->cpu[0].vcpu;
	dmm_guest_map(guest, DMM_GPA, SIZE);
	dmm_guest_add_slot(guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES, DMM_GPA,
			   SIZE, self->mem.hva);
	ring = vcpu_map_dirty_ring(vcpu);

	for (i = 5; i < PAGES; i += 32)
		dmm_guest_poke(guest, DMM_GPA + i * DMM_PAGE, i);

	for (i = 0; i < ring_bytes / sizeof(*ring); i++) {
		if (!(__atomic_load_n(&ring[i].flags, __ATOMIC_ACQUIRE) &
		      KVM_DIRTY_GFN_F_DIRTY))
			break;
		if (ring[i].slot == DMM_SLOT) {
			EXPECT_EQ(5 + found * 32, ring[i].offset);
			found++;
		}
		__atomic_store_n(&ring[i].flags, KVM_DIRTY_GFN_F_RESET,
				 __ATOMIC_RELEASE);
	}
	EXPECT_EQ(PAGES / 32, found);
	EXPECT_LE(found, kvm_vm_reset_dirty_ring(guest->vm));

	/* After the reset the next write is seen again. */
	dmm_guest_poke(guest, DMM_GPA + 5 * DMM_PAGE, 1);
	for (found = 0; i < ring_bytes / sizeof(*ring); i++) {
		if (!(__atomic_load_n(&ring[i].flags, __ATOMIC_ACQUIRE) &
		      KVM_DIRTY_GFN_F_DIRTY))
			break;
		if (ring[i].slot == DMM_SLOT && ring[i].offset == 5)
			found++;
	}
	EXPECT_EQ(1, found);
	dmm_guest_free(guest);
}

struct storm {
	struct dmm_guest *guest;
	struct dmm_mem *mem;
	volatile bool stop;
};

static void *puncher(void *arg)
{
	struct storm *storm = arg;

	while (!storm->stop)
		TEST_ASSERT(!fallocate(storm->mem->fd, PUNCH, 0, SIZE),
			    "fallocate() failed");
	return NULL;
}

/*
 * Slots come, move, change and go while one vCPU uses them, another uses an
 * alias and a thread punches holes.
 */
DMM_TEST(slot, change_under_load)
{
	struct storm storm = { .guest = self->guest, .mem = &self->mem };
	pthread_t thread;
	int i;

	dmm_guest_add_slot(self->guest, SLOT2, 0, GPA2, SIZE, self->mem.hva);
	self->guest->cpu[0].retry_mmio = true;
	dmm_guest_start(self->guest, 0, DMM_OP_STORM, DMM_GPA, PAGES, 0);
	dmm_guest_start(self->guest, 1, DMM_OP_STORM, GPA2, PAGES, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, puncher, &storm));

	for (i = 0; i < 60; i++) {
		usleep(1000);
		dmm_guest_del_slot(self->guest, DMM_SLOT);
		dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, SIZE,
				   self->mem.hva);
		dmm_guest_add_slot(self->guest, DMM_SLOT,
				   KVM_MEM_LOG_DIRTY_PAGES, DMM_GPA, SIZE,
				   self->mem.hva);
		dmm_guest_add_slot(self->guest, DMM_SLOT,
				   KVM_MEM_LOG_DIRTY_PAGES, DMM_GPA + SIZE,
				   SIZE, self->mem.hva);
		dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA + SIZE,
				   SIZE, self->mem.hva);
		dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA, SIZE,
				   self->mem.hva);
	}

	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));
	storm.stop = true;
	pthread_join(thread, NULL);

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, GPA2, PAGES));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 4);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 4));
}

DMM_TEST(slot, two_vms)
{
	struct dmm_guest *other = dmm_guest_create(1);
	const uint64_t n = 30000;

	dmm_mem_exact(&self->mem);
	/* The second VM has the second half at a place of its own. */
	dmm_guest_map(other, GPA2, SIZE / 2);
	dmm_guest_add_slot(other, SLOT2, 0, GPA2, SIZE / 2,
			   self->mem.hva + SIZE / 2);

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(PAGES / 2, dmm_guest_nonzero_pages(other, GPA2, PAGES / 2));
	dmm_guest_poke(other, GPA2, 123);
	EXPECT_EQ(123, dmm_guest_peek(self->guest, DMM_GPA + SIZE / 2));

	/* Both fault the same hole at once and count to one sum. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, dmm_guest_peek(other, GPA2));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, DMM_GPA + SIZE / 2));
	dmm_guest_start(self->guest, 0, DMM_OP_ADD, DMM_GPA + SIZE / 2, 1, n);
	dmm_guest_start(other, 0, DMM_OP_ADD, GPA2, 1, n);
	EXPECT_EQ(0, dmm_guest_join(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_join(other, 0));
	EXPECT_EQ(2 * n, dmm_guest_peek(other, GPA2));
	EXPECT_EQ(DMM_PAGE, resident(self->mem.ino));

	/* One goes away, the other stays, and still loses what is punched. */
	dmm_guest_free(self->guest);
	self->guest = NULL;
	EXPECT_EQ(2 * n, dmm_guest_peek(other, GPA2));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, dmm_guest_peek(other, GPA2));
	dmm_guest_free(other);
}

/* The map is the authority: what the VMM does to its mapping is no matter. */
DMM_TEST(slot, vmm_unmaps)
{
	void *hva = self->mem.hva;
	int i;

	dmm_guest_start(self->guest, 1, DMM_OP_COUNT, DMM_GPA, PAGES / 2, 0);
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, munmap(hva, SIZE));
		usleep(1000);
		ASSERT_EQ(hva, mmap(hva, SIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_FIXED, self->mem.fd, 0));
		dmm_nonzero_pages(hva, 16);
	}

	/* Something else in its place isn't the guest's memory. */
	ASSERT_EQ(hva, mmap(hva, SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	memset(hva, 0xff, SIZE);
	dmm_guest_wait_rounds(self->guest, 1, 2);
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));
	EXPECT_EQ(0, self->guest->cpu[1].cmd->result);

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 3);
	EXPECT_EQ(-1UL, *(uint64_t *)hva);
	ASSERT_EQ(hva, mmap(hva, SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, self->mem.fd, 0));
	EXPECT_EQ(0, dmm_bad_pages(hva, 0, PAGES, 3));
}

/* A name goes, by unlink or rename, while the VM runs. */
DMM_TEST(slot, name_goes)
{
	char *old = strdup_printf("%s/slot-test-%d", dmm_dir(), getpid());
	char *new = strdup_printf("%s/slot-test-%d-renamed", dmm_dir(), getpid());
	struct dmm_guest *guest = dmm_guest_create(1);
	struct stat st;
	void *hva;
	int fd;

	fd = open(old, O_RDWR | O_CREAT | O_EXCL, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	ASSERT_EQ(0, fstat(fd, &st));
	hva = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, hva);
	dmm_guest_map(guest, DMM_GPA, SIZE);
	dmm_guest_add_slot(guest, DMM_SLOT, 0, DMM_GPA, SIZE, hva);
	dmm_guest_fill(guest, DMM_GPA, PAGES / 2, 1);

	ASSERT_EQ(0, rename(old, new));
	EXPECT_EQ(-1, access(old, F_OK));
	dmm_guest_fill(guest, DMM_GPA + SIZE / 2, PAGES / 2, 1);
	close(fd);
	munmap(hva, SIZE);

	fd = open(new, O_RDWR);
	ASSERT_GE(fd, 0);
	hva = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, hva);
	EXPECT_EQ(0, dmm_bad_pages(hva, 0, PAGES, 1));
	ASSERT_EQ(0, unlink(new));
	EXPECT_EQ(-1, access(new, F_OK));
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	close(fd);
	munmap(hva, SIZE);
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	EXPECT_TRUE(dmm_pool_exists(st.st_ino));
	dmm_guest_free(guest);
	EXPECT_TRUE(dmm_pool_gone(st.st_ino));
}

static void *protect_main(void *p)
{
	struct dmm_mem *mem = p;
	uint64_t i;

	/* Until the other thread says so. */
	for (i = 0; *(volatile uint64_t *)&mem->size; i++)
		dmm_pool_set_bytes(mem->ino, "test-share/protect", i % 64);
	return NULL;
}

/* A VM goes away while the map changes under it: the kernel must not warn. */
DMM_TEST(slot, vm_goes_while_map_changes)
{
	struct dmm_mem mem;
	pthread_t thread;
	int i;

	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no policy test-share");

	mem = dmm_mem_create(SIZE);
	ASSERT_EQ(0, dmm_pool_set(mem.ino, "policies", "+test-share"));
	dmm_fill(mem.hva, 0, 64, 1);
	ASSERT_EQ(0, pthread_create(&thread, NULL, protect_main, &mem));
	for (i = 0; i < 10; i++) {
		struct dmm_guest *guest = dmm_guest_create(1);

		dmm_guest_add_mem(guest, &mem);
		EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, 64, 1));
		dmm_guest_free(guest);
	}
	mem.size = 0;
	pthread_join(thread, NULL);
	mem.size = SIZE;
	EXPECT_EQ(0, dmm_bad_pages(mem.hva, 0, 64, 1));
	dmm_mem_free(&mem);
}

/* Pages come with others, but only such as are in the slot. */
DMM_TEST(slot, nothing_around_a_slot)
{
	const uint64_t out[] = { DMM_GPA + DMM_PAGE, DMM_GPA + 6 * DMM_PAGE };
	unsigned int i;

	dmm_mem_exact(&self->mem);
	dmm_fill(self->mem.hva, 0, 16, 1);
	dmm_guest_del_slot(self->guest, DMM_SLOT);
	dmm_guest_add_slot(self->guest, DMM_SLOT, 0, DMM_GPA + 2 * DMM_PAGE,
			   4 * DMM_PAGE, self->mem.hva + 2 * DMM_PAGE);
	dmm_guest_peek(self->guest, DMM_GPA + 3 * DMM_PAGE);
	for (i = 0; i < ARRAY_SIZE(out); i++) {
		EXPECT_EQ(KVM_EXIT_MMIO, dmm_guest_run(self->guest, 0, DMM_OP_PEEK,
						       out[i], 1, 0));
		EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	}
}

/* Nor may the guest write what comes along, where it may not write. */
DMM_TEST(slot, readonly_around)
{
	void *ro;

	dmm_fill(self->mem.hva, 0, 4, 1);
	dmm_guest_add_slot(self->guest, SLOT2, KVM_MEM_READONLY, GPA2, SIZE,
			   self->mem.hva);
	dmm_guest_peek(self->guest, GPA2);
	EXPECT_EQ(KVM_EXIT_MMIO, dmm_guest_run(self->guest, 0, DMM_OP_POKE,
					       GPA2 + DMM_PAGE, 1, 99));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 4, 1));
	dmm_guest_del_slot(self->guest, SLOT2);

	ro = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, self->mem.fd, 0);
	ASSERT_NE(MAP_FAILED, ro);
	ASSERT_EQ(0, dmm_guest_try_slot(self->guest, SLOT2, 0, GPA2, SIZE, ro));
	dmm_guest_peek(self->guest, GPA2);
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 1, DMM_OP_POKE,
					 GPA2 + DMM_PAGE, 1, 99));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 4, 1));
}

/* Memory that the VMM may write in parts only. */
DMM_TEST(slot, readonly_in_part)
{
	dmm_fill(self->mem.hva, 0, 4, 1);
	ASSERT_EQ(0, mprotect(self->mem.hva, DMM_PAGE, PROT_READ));
	dmm_guest_add_slot(self->guest, SLOT2, 0, GPA2, SIZE, self->mem.hva);
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_POKE, GPA2, 1, 99));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 1, DMM_OP_POKE,
					 GPA2 + DMM_PAGE, 1, 99));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 4, 1));
}

/* What comes along with a page is within one page table, of file and guest. */
DMM_TEST(slot, around_the_end_of_a_table)
{
	uint64_t i;

	dmm_mem_exact(&self->mem);
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	dmm_guest_add_slot(self->guest, SLOT2, 0, GPA2, SIZE - 5 * DMM_PAGE,
			   self->mem.hva + 5 * DMM_PAGE);
	/* Page 512 of the file is the one behind. */
	for (i = 505; i <= 513; i++)
		EXPECT_EQ(*(uint64_t *)(self->mem.hva + (i + 5) * DMM_PAGE),
			  dmm_guest_peek(self->guest, GPA2 + i * DMM_PAGE));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	for (i = 0; i < PAGES - 5; i += 7)
		EXPECT_EQ(*(uint64_t *)(self->mem.hva + (i + 5) * DMM_PAGE),
			  dmm_guest_peek(self->guest, GPA2 + i * DMM_PAGE));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

TEST_HARNESS_MAIN
