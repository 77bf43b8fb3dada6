// SPDX-License-Identifier: GPL-2.0-only
/*
 * Allocations fail, of what KVM does with guests: a clear error, and all is as
 * it was.
 *
 * Needs a kernel with fault injection, as the debug kernel has.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "nomem_util.h"

#define GPA	(DMM_GPA + OFFSET)
#define OTHER	(DMM_GPA + (1UL << 30))

/* What a vCPU may say that gets no memory. */
#define RUN	(BIT(EFAULT) | BIT(ENOMEM))

FIXTURE(guests) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(guests)
{
	if (!nomem_setup())
		SKIP(return, "kernel without fault injection");
	self->mem = nomem_mem();
	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
	/* What it has of its own is there. */
	dmm_guest_nonzero_pages(self->guest, DMM_GPA, 1);
}

FIXTURE_TEARDOWN(guests)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
}

static int set_slot(struct dmm_guest *guest, unsigned int flags, uint64_t gpa,
		    uint64_t size, void *hva)
{
	return dmm_guest_try_slot(guest, DMM_SLOT + 1, flags, gpa, size, hva);
}

/* The memory in the usual slot is what it was for the guest, too. */
static bool guest_intact(struct dmm_guest *guest, const struct dmm_mem *mem)
{
	return nomem_intact(mem) &&
		!dmm_guest_bad_pages(guest, DMM_GPA, WITNESS, WITNESS_SEED);
}

DMM_TEST(guests, slots)
{
	const unsigned int flags = KVM_MEM_LOG_DIRTY_PAGES;
	struct dmm_guest *guest = self->guest;
	void *hva = self->mem.hva;

	FOR_EACH_FAILURE("a slot is made", BIT(ENOMEM),
			 set_slot(guest, 0, OTHER, SIZE, hva),
			 guest_intact(guest, &self->mem),
			 set_slot(guest, 0, 0, 0, NULL));
	ASSERT_EQ(0, set_slot(guest, 0, OTHER, SIZE, hva));
	FOR_EACH_FAILURE("a slot is moved", BIT(ENOMEM),
			 set_slot(guest, 0, OTHER + SIZE, SIZE, hva),
			 guest_intact(guest, &self->mem),
			 set_slot(guest, 0, OTHER, SIZE, hva));
	FOR_EACH_FAILURE("dirty logging is turned on", BIT(ENOMEM),
			 set_slot(guest, flags, OTHER, SIZE, hva),
			 guest_intact(guest, &self->mem),
			 set_slot(guest, 0, OTHER, SIZE, hva));
	FOR_EACH_FAILURE("dirty logging is turned off", BIT(ENOMEM),
			 set_slot(guest, 0, OTHER, SIZE, hva),
			 guest_intact(guest, &self->mem),
			 set_slot(guest, flags, OTHER, SIZE, hva));
	FOR_EACH_FAILURE("a slot is removed", BIT(ENOMEM),
			 set_slot(guest, 0, 0, 0, NULL),
			 guest_intact(guest, &self->mem),
			 set_slot(guest, flags, OTHER, SIZE, hva));
}

/* Binding fills what is not there. */
DMM_TEST(guests, static_slot)
{
	struct dmm_mem mem = dmm_mem_create_static(SIZE);

	dmm_fill(mem.hva, 0, WITNESS, WITNESS_SEED);
	nomem_punch(&mem);
	FOR_EACH_FAILURE("a slot is made, static pool with 8 holes",
			 BIT(ENOMEM) | BIT(ENOSPC),
			 set_slot(self->guest, 0, OTHER, SIZE, mem.hva),
			 nomem_intact(&mem),
			 (set_slot(self->guest, 0, 0, 0, NULL),
			  nomem_punch(&mem)));
	dmm_mem_free(&mem);
}

/*
 * Only KVM_RUN is to fail, not what the library does with its result.  -EPROTO:
 * it tells its failure in another way than it should.
 */
static int run_once(struct dmm_guest *guest, enum dmm_op op, uint64_t seed)
{
	struct kvm_run *run = guest->cpu[0].vcpu->run;
	int r;

	run->exit_reason = KVM_EXIT_UNKNOWN;
	r = dmm_guest_run_once(guest, 0, op, GPA, NR, seed);
	if (!r && run->exit_reason != KVM_EXIT_IO)
		return -EPROTO;
	if (r == -EFAULT && run->exit_reason != KVM_EXIT_MEMORY_FAULT)
		return -EPROTO;
	return r;
}

/* A vCPU that failed goes on where it was. */
static void go_on(struct dmm_guest *guest)
{
	int r = dmm_guest_continue(guest, 0);

	TEST_ASSERT(!r, "The guest cannot go on: %d", r);
}

/* Other memory in its place: its map and KVM's page tables are empty. */
static void fresh(struct dmm_guest *guest, struct dmm_mem *mem)
{
	dmm_guest_del_slot(guest, DMM_SLOT);
	dmm_mem_free(mem);
	*mem = nomem_mem();
	dmm_guest_add_slot(guest, DMM_SLOT, 0, DMM_GPA, SIZE, mem->hva);
}

static void fresh_tuned(struct dmm_guest *guest, struct dmm_mem *mem,
			const char *block)
{
	fresh(guest, mem);
	TEST_ASSERT(!dmm_pool_set(mem->ino, "demand/fault_around_bytes",
				  "default") &&
		    !dmm_pool_set(mem->ino, "demand/block", block),
		    "Can't tune the demand policy");
}

DMM_TEST(guests, run)
{
	struct dmm_guest *guest = self->guest;

	FOR_EACH_FAILURE("a guest's writes, 8 pages in two regions", RUN,
			 run_once(guest, DMM_OP_FILL, 1),
			 nomem_intact(&self->mem),
			 (go_on(guest), fresh(guest, &self->mem)));
	FOR_EACH_FAILURE("a guest's reads of absent memory", RUN,
			 run_once(guest, DMM_OP_NONZERO, 0),
			 nomem_intact(&self->mem),
			 (go_on(guest), fresh(guest, &self->mem)));
	fresh_tuned(guest, &self->mem, "never");
	FOR_EACH_FAILURE("a guest's writes with fault-around", RUN,
			 run_once(guest, DMM_OP_FILL, 1),
			 nomem_intact(&self->mem),
			 (go_on(guest),
			  fresh_tuned(guest, &self->mem, "never")));
	fresh_tuned(guest, &self->mem, "always");
	FOR_EACH_FAILURE("a guest's writes with blocks of 2 MiB", RUN,
			 run_once(guest, DMM_OP_FILL, 1),
			 nomem_intact(&self->mem),
			 (go_on(guest),
			  fresh_tuned(guest, &self->mem, "always")));
	ASSERT_EQ(0, dmm_guest_run(guest, 0, DMM_OP_FILL, GPA, NR, 1));
	EXPECT_EQ(0, nomem_bad(&self->mem, 1));
}

static void clone_file(const struct dmm_mem *to, const struct dmm_mem *from)
{
	TEST_ASSERT(!ioctl(to->fd, FICLONE, from->fd), "FICLONE failed");
}

DMM_TEST(guests, run_clone)
{
	struct dmm_guest *guest = self->guest;
	struct dmm_mem copy = nomem_mem();

	nomem_fill(&copy, 2);
	clone_file(&self->mem, &copy);
	FOR_EACH_FAILURE("a guest's writes to a clone", RUN,
			 run_once(guest, DMM_OP_FILL, 1),
			 nomem_intact(&self->mem) && nomem_intact(&copy),
			 (go_on(guest), clone_file(&self->mem, &copy)));
	EXPECT_EQ(0, nomem_bad(&copy, 2));
	EXPECT_EQ(0, nomem_bad(&self->mem, 2));
	dmm_mem_free(&copy);
}

DMM_TEST(guests, run_swapped)
{
	const uint64_t seed = DMM_MIXED | 1;
	struct dmm_guest *guest = self->guest;
	int fd = self->mem.fd;

	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+swap"));
	nomem_fill(&self->mem, seed);
	posix_fadvise(fd, OFFSET, LEN, POSIX_FADV_DONTNEED);
	FOR_EACH_FAILURE("a guest's reads of what is swapped", RUN,
			 run_once(guest, DMM_OP_CHECK, seed),
			 nomem_intact(&self->mem),
			 (go_on(guest),
			  posix_fadvise(fd, OFFSET, LEN, POSIX_FADV_DONTNEED)));
	EXPECT_EQ(0, guest->cpu[0].cmd->result);
	EXPECT_EQ(0, nomem_bad(&self->mem, seed));
}

static int get_log(struct dmm_guest *guest, void *bits)
{
	struct kvm_dirty_log log = { .slot = DMM_SLOT, .dirty_bitmap = bits };

	return nomem_errno(__vm_ioctl(guest->vm, KVM_GET_DIRTY_LOG, &log));
}

static int clear_log(struct dmm_guest *guest, void *bits)
{
	struct kvm_clear_dirty_log log = {
		.slot = DMM_SLOT,
		.num_pages = PAGES,
		.dirty_bitmap = bits,
	};

	return nomem_errno(__vm_ioctl(guest->vm, KVM_CLEAR_DIRTY_LOG, &log));
}

static void log_dirty(struct dmm_guest *guest, const struct dmm_mem *mem)
{
	dmm_guest_add_slot(guest, DMM_SLOT, KVM_MEM_LOG_DIRTY_PAGES, DMM_GPA,
			   SIZE, mem->hva);
}

DMM_TEST(guests, dirty_log)
{
	struct dmm_guest *guest = self->guest;
	unsigned long bits[PAGES / 64];

	log_dirty(guest, &self->mem);
	FOR_EACH_FAILURE("a guest's writes while they are logged", RUN,
			 run_once(guest, DMM_OP_FILL, 1),
			 nomem_intact(&self->mem),
			 (go_on(guest), fresh(guest, &self->mem),
			  log_dirty(guest, &self->mem)));
	FOR_EACH_FAILURE("``KVM_GET_DIRTY_LOG``", 0, get_log(guest, bits),
			 guest_intact(guest, &self->mem),
			 dmm_guest_fill(guest, GPA, NR, 1));
	/* Of a block, which is mapped by pages of 2 MiB. */
	fresh(guest, &self->mem);
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, DMM_BLOCK, DMM_BLOCK));
	vm_enable_cap(guest->vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		      KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
	dmm_guest_fill(guest, GPA, NR, 1);
	log_dirty(guest, &self->mem);
	memset(bits, 0xff, sizeof(bits));
	FOR_EACH_FAILURE("``KVM_CLEAR_DIRTY_LOG``", 0, clear_log(guest, bits),
			 guest_intact(guest, &self->mem),
			 dmm_guest_fill(guest, GPA, NR, 1));
	EXPECT_EQ(0, nomem_bad(&self->mem, 1));
}

/* It maps what it can: as much as it did not is in what it leaves. */
static int pre_fault(struct dmm_guest *guest)
{
	struct kvm_pre_fault_memory range = { .gpa = GPA, .size = LEN };

	if (__vcpu_ioctl(guest->cpu[0].vcpu, KVM_PRE_FAULT_MEMORY, &range))
		return -errno;
	return range.size ? -ENOMEM : 0;
}

/*
 * Page tables of the guest that have been zapped are noticed by KVM_RUN only:
 * until then KVM_PRE_FAULT_MEMORY would try again for ever.
 */
static void fresh_tables(struct dmm_guest *guest, struct dmm_mem *mem)
{
	fresh(guest, mem);
	dmm_guest_nonzero_pages(guest, DMM_GPA, 1);
}

DMM_TEST(guests, pre_fault)
{
	struct dmm_guest *guest = self->guest;
	int r = pre_fault(guest);

	if (r == -EOPNOTSUPP || r == -ENOTTY || r == -EINVAL)
		SKIP(return, "no KVM_PRE_FAULT_MEMORY");
	fresh_tables(guest, &self->mem);
	FOR_EACH_FAILURE("``KVM_PRE_FAULT_MEMORY``", RUN, pre_fault(guest),
			 guest_intact(guest, &self->mem),
			 fresh_tables(guest, &self->mem));
}

static void nested_run(struct __test_metadata *_metadata, bool npt,
		       const char *what)
{
	struct dmm_guest *guest = dmm_guest_create_nested(npt);
	struct dmm_mem mem = nomem_mem();

	dmm_guest_add_mem(guest, &mem);
	dmm_guest_nonzero_pages(guest, DMM_GPA, 1);
	FOR_EACH_FAILURE(what, RUN, run_once(guest, DMM_OP_FILL, 1),
			 nomem_intact(&mem), (go_on(guest), fresh(guest, &mem)));
	dmm_guest_fill(guest, GPA, NR, 1);
	EXPECT_EQ(0, nomem_bad(&mem, 1));
	dmm_guest_free(guest);
	dmm_mem_free(&mem);
}

DMM_TEST(guests, nested)
{
	if (!kvm_cpu_has(X86_FEATURE_SVM))
		SKIP(return, "no nested SVM");
	nested_run(_metadata, false, "writes of L2");
	if (kvm_cpu_has(X86_FEATURE_NPT))
		nested_run(_metadata, true, "writes of L2 with nested paging");
}

TEST_HARNESS_MAIN
