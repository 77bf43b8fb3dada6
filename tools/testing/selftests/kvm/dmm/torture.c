// SPDX-License-Identifier: GPL-2.0-only
/*
 * Torture: guests, processes and an administrator use the same memory, all at
 * random, against a model that knows what each page must hold.
 *
 * The same seed gives each actor the same operations in the same order.  How they
 * meet is up to the scheduler; who meets another's pages takes others.
 */
#include "torture.h"

#define PLACES		(TORTURE_VMS * TORTURE_FILES * 2)
#define PLACE_GPA	(4 * TORTURE_SIZE)	/* one place from the next */

/**
 * struct place - a memory slot of a file
 * @lock: held for writing while the slot is changed
 * @vm: number of the VM
 * @file: number of the file
 * @slot: number of the slot
 * @gpa: where the slot may be
 * @at: which of them it is, or -1 for none
 * @flags: of the slot
 */
struct place {
	pthread_rwlock_t lock;
	unsigned int vm;
	unsigned int file;
	uint32_t slot;
	uint64_t gpa[2];
	int at;
	uint32_t flags;
};

struct vcpu {
	unsigned int vm;
	unsigned int cpu;
};

/* What the disk, stocks of pages and slabs may still have in the end. */
#define GROWTH		(64UL << 20)

static struct dmm_guest *guests[TORTURE_VMS];
static struct place places[PLACES];
/*
 * The first VM has two vCPUs; the others have one, which makes them anew at times.
 * That of the last VM runs a guest of its guest.
 */
static struct vcpu vcpus[] = { { 0, 0 }, { 0, 1 }, { 1, 0 }, { 2, 0 } };
static bool keep_vms;

static void add_slot(struct place *place, int at)
{
	struct dmm_mem *mem = &torture_files[place->file].mem;
	unsigned int tries, relieved = 0;
	int r = 0;

	/* A file whose end has gone cannot be bound to it. */
	for (tries = 0; tries < 30000; tries++) {
		r = dmm_guest_try_slot(guests[place->vm], place->slot,
				       place->flags, place->gpa[at],
				       TORTURE_SIZE, mem->hva);
		if (!r) {
			place->at = at;
			return;
		}
		if (r != -EINVAL && r != -ENOSPC && r != -ENOMEM)
			break;
		if (r != -EINVAL)
			torture_relieve(place->file, relieved++, "a new slot");
		usleep(1000);
	}
	torture_fail("slot %u of file %u: %d", place->slot, place->file, r);
}

static void del_slot(struct place *place)
{
	int r = dmm_guest_try_slot(guests[place->vm], place->slot, 0,
				   place->gpa[place->at], 0, NULL);

	if (r)
		torture_fail("deleting slot %u: %d", place->slot, r);
	place->at = -1;
}

static bool is_nested(unsigned int vm)
{
	return vm == 2 && kvm_cpu_has(X86_FEATURE_SVM);
}

static struct dmm_guest *make_guest(unsigned int vm)
{
	if (is_nested(vm))
		return dmm_guest_create_nested(kvm_cpu_has(X86_FEATURE_NPT) &&
					       torture_rand(2));
	return dmm_guest_create(vm ? 1 : 2);
}

static void make_vm(unsigned int vm)
{
	unsigned int i;

	guests[vm] = make_guest(vm);
	for (i = 0; i < PLACES; i++) {
		if (places[i].vm != vm)
			continue;
		dmm_guest_map(guests[vm], places[i].gpa[0], TORTURE_SIZE);
		dmm_guest_map(guests[vm], places[i].gpa[1], TORTURE_SIZE);
		places[i].flags = 0;
		add_slot(&places[i], 0);
	}
}

/* A VM ends with all that it has mapped, and another takes its place. */
static void remake_vm(unsigned int vm)
{
	unsigned int i;

	torture_log("remake VM %u", vm);
	for (i = 0; i < PLACES; i++)
		if (places[i].vm == vm)
			pthread_rwlock_wrlock(&places[i].lock);
	dmm_guest_free(guests[vm]);
	make_vm(vm);
	for (i = 0; i < PLACES; i++)
		if (places[i].vm == vm)
			pthread_rwlock_unlock(&places[i].lock);
	torture_count("VM made anew");
}

/* Run a guest's command on the pages of a range until it gets through. */
static void guest_do(struct vcpu *vcpu, enum dmm_op op, uint64_t gpa,
		     const struct torture_range *range, const uint64_t *tags)
{
	struct dmm_guest *guest = guests[vcpu->vm];
	unsigned int tries = 0;
	int r;

	r = dmm_guest_run_tags(guest, vcpu->cpu, op, gpa, range->n, tags);
	while (r == -EFAULT) {
		torture_relieve(range->file, tries++, "a guest's access");
		r = dmm_guest_continue(guest, vcpu->cpu);
	}
	if (r)
		torture_fail("VM %u vCPU %u at %#lx, file %u %#lx+%lu: %d",
			     vcpu->vm, vcpu->cpu, gpa, range->file,
			     range->first, range->n, r);
}

static void vcpu_op(void *arg)
{
	uint64_t gpa, tags[DMM_TAGS_MAX];
	struct vcpu *vcpu = arg;
	struct torture_range range;
	struct place *place;

	if (vcpu->vm && !torture_rand(100) && !keep_vms)
		remake_vm(vcpu->vm);
	do {
		place = &places[torture_rand(PLACES)];
	} while (place->vm != vcpu->vm);
	range = torture_own(place->file, torture_rand(4) ? 8 : DMM_TAGS_MAX);

	pthread_rwlock_rdlock(&place->lock);
	if (place->at < 0)
		goto unlock;
	gpa = place->gpa[place->at] + range.first * DMM_PAGE;
	torture_log("VM %u slot %u file %u %#lx+%lu", vcpu->vm, place->slot,
		    range.file, range.first, range.n);
	guest_do(vcpu, DMM_OP_TAG_CHECK, gpa, &range, torture_tags(&range));
	if (guests[vcpu->vm]->cpu[vcpu->cpu].cmd->result)
		torture_wrong(&range, "a guest");
	torture_count(is_nested(vcpu->vm) ? "nested read" : "guest read");
	if (torture_rand(3)) {
		torture_new_tags(&range, tags);
		guest_do(vcpu, DMM_OP_TAG_FILL, gpa, &range, tags);
		torture_set_tags(&range, tags);
		torture_count(is_nested(vcpu->vm) ? "nested write" : "guest write");
	}
unlock:
	pthread_rwlock_unlock(&place->lock);
	torture_disown(&range);
}

/* Dirty logging is switched while vCPUs run. */
static void slot_flags(struct place *place)
{
	static unsigned long dirty[TORTURE_PAGES / (8 * sizeof(long))];
	struct dmm_guest *guest = guests[place->vm];

	if (place->flags && torture_rand(2)) {
		kvm_vm_get_dirty_log(guest->vm, place->slot, dirty);
		torture_count("dirty log");
		return;
	}
	place->flags ^= KVM_MEM_LOG_DIRTY_PAGES;
	add_slot(place, place->at);
	torture_count("slot flags");
}

static void slot_op(void *arg)
{
	struct place *place = &places[torture_rand(PLACES)];
	unsigned int what = torture_rand(4);

	torture_log("VM %u slot %u, %u", place->vm, place->slot, what);
	if (what < 2 && place->at >= 0) {
		pthread_rwlock_rdlock(&place->lock);
		slot_flags(place);
	} else {
		pthread_rwlock_wrlock(&place->lock);
		if (place->at < 0) {
			add_slot(place, torture_rand(2));
			torture_count("slot made");
		} else if (what == 2) {
			add_slot(place, !place->at);
			torture_count("slot moved");
		} else {
			del_slot(place);
			torture_count("slot deleted");
		}
	}
	pthread_rwlock_unlock(&place->lock);
	usleep(torture_rand(50) * 1000);
}

static void make_places(void)
{
	pthread_rwlockattr_t attr;
	unsigned int i;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr,
				      PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	for (i = 0; i < PLACES; i++) {
		struct place *place = &places[i];

		pthread_rwlock_init(&place->lock, &attr);
		place->vm = i / (TORTURE_FILES * 2);
		place->file = i % TORTURE_FILES;
		place->slot = DMM_SLOT + i;
		/* One that 2 MiB mappings fit, and one that they do not. */
		place->gpa[0] = DMM_GPA + 2 * i * PLACE_GPA;
		place->gpa[1] = DMM_GPA + (2 * i + 1) * PLACE_GPA + DMM_PAGE;
	}
}

/* Everything by every way, with all policies and without any. */
static void verify_all(void)
{
	struct vcpu vcpu = { 0, 0 };
	struct torture_range range;
	unsigned int file, i, pass;
	void *buf;

	buf = malloc(TORTURE_SIZE);
	TEST_ASSERT(buf, "Out of memory");
	for (pass = 0; pass < 2; pass++) {
		for (file = 0; file < TORTURE_FILES; file++) {
			dmm_pool_set(torture_files[file].mem.ino, "max_bytes",
				     "max");
			if (pass)
				torture_admin_finish(file);
			range = (struct torture_range) {
				.file = file,
				.n = TORTURE_PAGES,
			};
			torture_check(torture_files[file].mem.ino);
			torture_verify(&range, torture_hva(&range),
				       "mapping at the end");
			if (pread(torture_files[file].mem.fd, buf,
				  TORTURE_SIZE, 0) != TORTURE_SIZE)
				torture_fail("read() at the end");
			torture_verify(&range, buf, "read() at the end");
			torture_check(torture_files[file].mem.ino);
		}
		for (i = 0; i < PLACES; i++) {
			if (places[i].vm || places[i].at < 0)
				continue;
			range.file = places[i].file;
			range.n = DMM_TAGS_MAX;
			for (range.first = 0; range.first < TORTURE_PAGES;
			     range.first += range.n) {
				guest_do(&vcpu, DMM_OP_TAG_CHECK,
					 places[i].gpa[places[i].at] +
					 range.first * DMM_PAGE, &range,
					 torture_tags(&range));
				if (guests[0]->cpu[0].cmd->result)
					torture_wrong(&range,
						      "a guest at the end");
			}
		}
	}
	free(buf);
}

static uint64_t host_used(void)
{
	dmm_write_file("/proc/sys/vm/drop_caches", "2", 1);
	return dmm_host_used();
}

/* Nothing is left of VMs and files; then nothing may be left of what they took. */
static void verify_memory(uint64_t before)
{
	uint64_t after = host_used();

	printf("# host memory: %lu KiB before, %lu KiB after\n", before >> 10,
	       after >> 10);
	if (after > before + GROWTH + dmm_host_held_back())
		torture_fail("host memory has grown");
}

static void print_stats(unsigned int vm)
{
	static const char *const names[] = {
		"exits", "irq_injections", "halt_exits", "pf_taken", "pf_fixed",
		"pf_spurious", "pf_fast", "pf_emulate", "tlb_flush",
	};
	unsigned int i;
	uint64_t value;
	char path[80];
	FILE *f;

	printf("# VM %u:", vm);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/%s",
			 getpid(), guests[vm]->vm->fd, names[i]);
		f = fopen(path, "r");
		if (f && fscanf(f, "%lu", &value) == 1)
			printf(" %s %lu", names[i], value);
		if (f)
			fclose(f);
	}
	printf("\n");
}

static void print_vcpu(const struct vcpu *vcpu)
{
	struct kvm_vcpu *v = guests[vcpu->vm]->cpu[vcpu->cpu].vcpu;
	struct kvm_vcpu_events events;
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	vcpu_regs_get(v, &regs);
	vcpu_sregs_get(v, &sregs);
	vcpu_events_get(v, &events);
	printf("# VM %u vCPU %u: rip %#llx rsp %#llx rflags %#llx cr2 %#llx\n",
	       vcpu->vm, vcpu->cpu, regs.rip, regs.rsp, regs.rflags, sregs.cr2);
	printf("#  cs %#x cr0 %#llx cr3 %#llx cr4 %#llx efer %#llx exception %u,%u interrupt %u\n",
	       sregs.cs.selector, sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer,
	       events.exception.injected, events.exception.nr,
	       events.interrupt.injected);
}

/* Keep a VM, if it is not being made anew just now: all its places are held then. */
static bool hold_vm(unsigned int vm)
{
	unsigned int i;

	for (i = 0; i < PLACES; i++)
		if (places[i].vm == vm)
			return !pthread_rwlock_tryrdlock(&places[i].lock);
	return false;
}

/* What the VMs have done, and where their vCPUs are: the end of them. */
static void print_guests(void)
{
	bool held[TORTURE_VMS];
	unsigned int i, times;

	for (i = 0; i < TORTURE_VMS; i++)
		held[i] = hold_vm(i);
	for (times = 0; times < 3; times++) {
		for (i = 0; i < TORTURE_VMS; i++)
			if (held[i])
				print_stats(i);
		sleep(1);
	}
	/* They can be looked at only when they leave KVM_RUN. */
	for (i = 0; i < ARRAY_SIZE(vcpus); i++)
		if (held[vcpus[i].vm])
			guests[vcpus[i].vm]->cpu[vcpus[i].cpu].vcpu->run->immediate_exit = 1;
	torture_kick("vcpu");
	for (i = 0; i < ARRAY_SIZE(vcpus); i++)
		if (held[vcpus[i].vm])
			print_vcpu(&vcpus[i]);
}

static void usage(const char *name)
{
	printf("usage: %s [-k] [-s SEED] [-t SECONDS] [-v]\n"
	       "  -k  keep the VMs instead of making some anew at times\n"
	       "  -s  for the random numbers (the time)\n"
	       "  -t  how long (60)\n"
	       "  -v  print each operation\n", name);
	exit(KSFT_FAIL);
}

int main(int argc, char **argv)
{
	unsigned int i, seconds = 60;
	uint64_t used;
	int opt;

	torture_seed = time(NULL);
	while ((opt = getopt(argc, argv, "ks:t:v")) != -1) {
		switch (opt) {
		case 'k':
			keep_vms = true;
			break;
		case 's':
			torture_seed = strtoull(optarg, NULL, 0);
			break;
		case 't':
			seconds = atoi_positive("Seconds", optarg);
			break;
		case 'v':
			torture_verbose = true;
			break;
		default:
			usage(argv[0]);
		}
	}
	printf("# torture -s %lu -t %u\n", torture_seed, seconds);
	torture_model_init(print_guests);
	torture_host_init();
	torture_admin_init();
	used = host_used();
	for (i = 0; i < TORTURE_FILES; i++)
		torture_files[i].mem = dmm_mem_create(TORTURE_SIZE);
	make_places();
	for (i = 0; i < TORTURE_VMS; i++)
		make_vm(i);

	for (i = 0; i < ARRAY_SIZE(vcpus); i++)
		torture_start("vcpu", vcpu_op, &vcpus[i]);
	torture_start("host", torture_host, NULL);
	torture_start("host", torture_host, NULL);
	torture_start("host", torture_host, NULL);
	torture_start("admin", torture_admin, NULL);
	torture_start("admin", torture_admin, NULL);
	torture_start("slots", slot_op, NULL);
	torture_start("check", torture_checker, NULL);
	printf("# all of it runs\n");
	torture_run(seconds);

	verify_all();
	for (i = 0; i < TORTURE_VMS; i++)
		dmm_guest_free(guests[i]);
	for (i = 0; i < TORTURE_FILES; i++) {
		torture_check(torture_files[i].mem.ino);
		dmm_mem_free(&torture_files[i].mem);
		if (!dmm_pool_gone(torture_files[i].mem.ino))
			torture_fail("file %u stays", i);
	}
	torture_admin_exit();
	verify_memory(used);
	torture_summary();
	return 0;
}
