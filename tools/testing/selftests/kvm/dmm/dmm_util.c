// SPDX-License-Identifier: GPL-2.0-only
/*
 * What tests of dynamic memory mapping share.
 */
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <time.h>

#include "dmm_util.h"
#include "svm_util.h"

#define POOLS			"/sys/kernel/kvm_dmm/pools"
#define WORDS			(DMM_PAGE / sizeof(uint64_t))

const char *dmm_dir(void)
{
	const char *dir = getenv("KVM_DMM_DIR");

	return dir ? dir : "/dev/dmm";
}

static struct dmm_mem dmm_mem_of(int fd, uint64_t size)
{
	struct dmm_mem mem = { .fd = fd, .size = size };
	struct stat st;

	TEST_ASSERT(!fstat(fd, &st), "fstat() of a dmmfs file failed");
	mem.ino = st.st_ino;
	mem.hva = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TEST_ASSERT(mem.hva != MAP_FAILED, "mmap() of a dmmfs file failed");
	return mem;
}

/* st_blocks. */
uint64_t dmm_blocks(struct dmm_mem *mem)
{
	struct stat st;

	TEST_ASSERT(!fstat(mem->fd, &st), "fstat() of a dmmfs file failed");
	return st.st_blocks;
}

struct dmm_mem dmm_mem_create(uint64_t size)
{
	return dmm_mem_of(kvm_dmmfs_alloc(size, false), size);
}

/* A file without policies: all of it is allocated when it gets its size. */
struct dmm_mem dmm_mem_create_static(uint64_t size)
{
	int fd = kvm_dmmfs_alloc(0, false);
	char policies[256], *name;
	struct stat st;
	int r;

	TEST_ASSERT(!fstat(fd, &st), "fstat() of a dmmfs file failed");
	dmm_pool_read(st.st_ino, "policies", policies, sizeof(policies));
	for (name = strtok(policies, "\n "); name; name = strtok(NULL, "\n ")) {
		char detach[64];

		snprintf(detach, sizeof(detach), "-%s", name);
		r = dmm_pool_set(st.st_ino, "policies", detach);
		TEST_ASSERT(!r, "Detaching %s from an empty file: %d", name, r);
	}

	TEST_ASSERT(!ftruncate(fd, size), "ftruncate() of a static file failed");
	return dmm_mem_of(fd, size);
}

void dmm_mem_exact(const struct dmm_mem *mem)
{
	TEST_ASSERT(!dmm_pool_set(mem->ino, "demand/fault_around_bytes", "4K") &&
		    !dmm_pool_set(mem->ino, "demand/block", "never"),
		    "Can't tune the demand policy");
}

struct dmm_mem dmm_mem_create_exact(uint64_t size)
{
	struct dmm_mem mem = dmm_mem_create(size);

	dmm_mem_exact(&mem);
	return mem;
}

void dmm_mem_unmap(struct dmm_mem *mem)
{
	if (mem->hva)
		TEST_ASSERT(!munmap(mem->hva, mem->size), "munmap() failed");
	mem->hva = NULL;
}

void dmm_mem_close(struct dmm_mem *mem)
{
	if (mem->fd >= 0)
		close(mem->fd);
	mem->fd = -1;
}

void dmm_mem_free(struct dmm_mem *mem)
{
	/* Whatever the test has done to it. */
	if (mem->ino && mem->fd >= 0 &&
	    !access("/sys/kernel/debug/kvm_dmm", X_OK))
		TEST_ASSERT(dmm_pool_ok(mem->ino), "The check of pool %lu fails",
			    mem->ino);
	dmm_mem_unmap(mem);
	dmm_mem_close(mem);
}

char *dmm_pool_path(unsigned long ino, const char *file)
{
	return strdup_printf(POOLS "/%lu%s%s", ino, *file ? "/" : "", file);
}

void dmm_pool_read(unsigned long ino, const char *file, char *buf, size_t size)
{
	char *path = dmm_pool_path(ino, file);
	int fd = open(path, O_RDONLY);
	ssize_t n;

	TEST_ASSERT(fd >= 0, "open(%s) failed", path);
	n = read(fd, buf, size - 1);
	TEST_ASSERT(n >= 0, "read(%s) failed", path);
	close(fd);
	free(path);
	buf[n] = 0;
}

uint64_t dmm_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

uint64_t dmm_pool_get(unsigned long ino, const char *file)
{
	char buf[64], *end;
	uint64_t value;

	dmm_pool_read(ino, file, buf, sizeof(buf));
	value = strtoull(buf, &end, 10);
	TEST_ASSERT(end != buf && *end == '\n' && !end[1],
		    "%s of pool %lu is not one number: '%s'", file, ino, buf);
	return value;
}

static int write_file_as(const char *path, const void *buf, size_t len, uid_t uid)
{
	int fd = open(path, O_WRONLY);
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return -errno;
	setfsuid(uid);
	n = write(fd, buf, len);
	if (n < 0)
		r = -errno;
	else if (n != (ssize_t)len)
		r = -EIO;
	setfsuid(geteuid());
	close(fd);
	return r;
}

int dmm_write_file(const char *path, const void *buf, size_t len)
{
	return write_file_as(path, buf, len, geteuid());
}

void dmm_pagemap(const void *mem, uint64_t pages, uint64_t *entries)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	ssize_t size = pages * sizeof(*entries);

	TEST_ASSERT(pread(fd, entries, size,
			  (uintptr_t)mem / DMM_PAGE * sizeof(*entries)) == size,
		    "Cannot read /proc/self/pagemap");
	close(fd);
}

int dmm_open_scratch(void)
{
	static const char * const disks[] = {
		"/dev/ram0", "/dev/vda", "/dev/zram0",
	};
	const char *name = getenv("KVM_DMM_SCRATCH");
	unsigned int i;
	int fd;

	if (name)
		return open(name, O_RDWR | O_DIRECT);
	for (i = 0; i < ARRAY_SIZE(disks); i++) {
		fd = open(disks[i], O_RDWR | O_DIRECT);
		if (fd >= 0 && lseek(fd, 0, SEEK_END) >= (4 << 20))
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

void dmm_compact(void)
{
	dmm_write_file("/proc/sys/vm/compact_memory", "1", 1);
}

static uint64_t meminfo(const char *which)
{
	char line[128], name[64];
	uint64_t kib;
	FILE *f = fopen("/proc/meminfo", "r");

	TEST_ASSERT(f, "No /proc/meminfo");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63[^:]: %lu kB", name, &kib) != 2 || strcmp(name, which))
			continue;
		fclose(f);
		return kib << 10;
	}
	TEST_FAIL("No %s in /proc/meminfo", which);
	return 0;
}

/* What is free on lists of CPUs, up to an eighth of all memory, is not available. */
static uint64_t free_on_cpus(void)
{
	uint64_t pages, sum = 0;
	char line[128];
	FILE *f = fopen("/proc/zoneinfo", "r");

	TEST_ASSERT(f, "No /proc/zoneinfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " count: %lu", &pages) == 1)
			sum += pages;
	fclose(f);
	return sum * DMM_PAGE;
}

uint64_t dmm_host_used(void)
{
	return meminfo("MemTotal") - meminfo("MemAvailable") - free_on_cpus();
}

uint64_t dmm_host_held_back(void)
{
	if (access("/sys/kernel/debug/kmemleak", F_OK))
		return 0;
	/* KASAN's quarantine is a 32nd of the memory at most. */
	return meminfo("MemTotal") / 32;
}

int dmm_pool_set(unsigned long ino, const char *file, const char *value)
{
	char *path = dmm_pool_path(ino, file);
	int r = dmm_write_file(path, value, strlen(value));

	free(path);
	return r;
}

int dmm_pool_set_as_nobody(unsigned long ino, const char *file, const char *value)
{
	char *path = dmm_pool_path(ino, file);
	int r = write_file_as(path, value, strlen(value), 65534);

	free(path);
	return r;
}

int dmm_pool_set_bytes(unsigned long ino, const char *file, uint64_t bytes)
{
	char value[32];

	snprintf(value, sizeof(value), "%lu", bytes);
	return dmm_pool_set(ino, file, value);
}

bool dmm_pool_check(unsigned long ino, const char *pretend, char *buf)
{
	size_t len = 0, last;
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm_dmm/%lu/check", ino);
	fd = open(path, O_RDWR);
	TEST_ASSERT(fd >= 0, "open(%s) failed", path);
	if (pretend)
		TEST_ASSERT(write(fd, pretend, strlen(pretend)) ==
			    (ssize_t)strlen(pretend),
			    "Writing '%s' to %s failed", pretend, path);
	while ((n = read(fd, buf + len, DMM_CHECK_SIZE - 1 - len)) > 0)
		len += n;
	TEST_ASSERT(!n, "read(%s) failed", path);
	close(fd);
	buf[len] = 0;

	/* The verdict is in the last line. */
	TEST_ASSERT(len > 1 && buf[len - 1] == '\n', "Nothing in %s", path);
	for (last = len - 1; last && buf[last - 1] != '\n'; last--)
		;
	if (!strncmp(buf + last, "ok: ", 4))
		return true;
	TEST_ASSERT(!strncmp(buf + last, "BAD: ", 5), "No verdict in %s:\n%s",
		    path, buf);
	return false;
}

bool dmm_pool_ok(unsigned long ino)
{
	char *buf = malloc(DMM_CHECK_SIZE);
	bool ok;

	TEST_ASSERT(buf, "Out of memory");
	ok = dmm_pool_check(ino, NULL, buf);
	if (!ok)
		printf("Pool %lu:\n%s", ino, buf);
	free(buf);
	return ok;
}

bool dmm_pool_exists(unsigned long ino)
{
	char *path = dmm_pool_path(ino, "");
	bool exists = !access(path, F_OK);

	free(path);
	return exists;
}

bool dmm_pool_adds_up(const struct dmm_mem *mem)
{
	int tries;

	for (tries = 0; tries < 1000; tries++) {
		if (dmm_pool_get(mem->ino, "resident_bytes") +
		    dmm_pool_get(mem->ino, "swapped_bytes") == mem->size)
			return true;
		usleep(10000);
	}
	return false;
}

/* Files of dead processes go away when the kernel gets to it. */
bool dmm_pool_gone(unsigned long ino)
{
	int tries;

	for (tries = 0; tries < 1000; tries++) {
		if (!dmm_pool_exists(ino))
			return true;
		usleep(10000);
	}
	return false;
}

bool dmm_has_policy(unsigned long ino, const char *name)
{
	char buf[256], *have;

	dmm_pool_read(ino, "policies", buf, sizeof(buf));
	for (have = strtok(buf, "\n "); have; have = strtok(NULL, "\n ")) {
		if (!strcmp(have, name))
			return true;
	}
	return false;
}

/* Whether a policy can be had, be it that attaching loads its module. */
bool dmm_policy_loaded(const char *name)
{
	struct dmm_mem mem = dmm_mem_create(DMM_PAGE);
	char attach[64];
	int r;

	snprintf(attach, sizeof(attach), "+%s", name);
	r = dmm_pool_set(mem.ino, "policies", attach);
	TEST_ASSERT(!r || r == -ENOENT, "Attaching %s: %d", name, r);
	dmm_mem_free(&mem);
	return !r;
}

static uint64_t dmm_word(uint64_t seed, uint64_t page, uint64_t word)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15UL + page * WORDS + word;

	if (seed & DMM_MIXED && page % 8 < 3) {
		/* One word all over: short, two halves, and any. */
		x = page % 8 ? (seed & 0xffff) + page : 0;
		if (page % 8 == 1)
			x |= x << 32;
		return page % 16 > 8 ? ~x : x;
	}
	if (seed & (DMM_MIXED | DMM_HALF) && word >= WORDS / 2)
		return page;

	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9UL;
	return x | 1;
}

/*
 * Both host and guest run the following.  Volatile keeps the compiler from
 * turning loops into calls of the C library, which a guest doesn't have.
 */
void dmm_fill(void *mem, uint64_t first, uint64_t pages, uint64_t seed)
{
	volatile uint64_t *p = mem;
	uint64_t i, w;

	for (i = 0; i < pages; i++) {
		for (w = 0; w < WORDS; w++)
			*p++ = dmm_word(seed, first + i, w);
	}
}

uint64_t dmm_bad_pages(const void *mem, uint64_t first, uint64_t pages,
		       uint64_t seed)
{
	const volatile uint64_t *p = mem;
	uint64_t i, w, wrong, bad = 0;

	for (i = 0; i < pages; i++) {
		wrong = 0;
		for (w = 0; w < WORDS; w++)
			wrong |= *p++ ^ dmm_word(seed, first + i, w);
		bad += !!wrong;
	}
	return bad;
}

uint64_t dmm_nonzero_pages(const void *mem, uint64_t pages)
{
	const volatile uint64_t *p = mem;
	uint64_t i, w, any, bad = 0;

	for (i = 0; i < pages; i++) {
		any = 0;
		for (w = 0; w < WORDS; w++)
			any |= *p++;
		bad += !!any;
	}
	return bad;
}

uint64_t dmm_tag_word(uint64_t tag, uint64_t word)
{
	uint64_t x = tag * 0x9e3779b97f4a7c15UL + word * 0xd1342543de82ef95UL;

	if (!tag)
		return 0;
	if (tag & DMM_TAG_HALF && word >= WORDS / 2)
		return tag;
	x ^= x >> 29;
	x *= 0xbf58476d1ce4e5b9UL;
	return x ^ x >> 32;
}

void dmm_tag_fill(void *page, uint64_t tag)
{
	volatile uint64_t *p = page;
	uint64_t w;

	for (w = 0; w < WORDS; w++)
		p[w] = dmm_tag_word(tag, w);
}

bool dmm_tag_bad(const void *page, uint64_t tag)
{
	const volatile uint64_t *p = page;
	uint64_t w, wrong = 0;

	for (w = 0; w < WORDS; w++)
		wrong |= p[w] ^ dmm_tag_word(tag, w);
	return wrong;
}

/* A permutation of a power of two of pages. */
static uint64_t dmm_shuffled(uint64_t i, uint64_t pages)
{
	i = i * 0x9e3779b1 & (pages - 1);
	i ^= i >> 7;
	i = i * 0x85ebca6b & (pages - 1);
	return i ^ i >> 7;
}

static void guest_count(volatile struct dmm_cmd *cmd)
{
	volatile uint64_t *first, *last;
	uint64_t i, round = 0, bad = 0;

	while (!cmd->stop && (!cmd->seed || round < cmd->seed)) {
		for (i = 0; i < cmd->pages; i++) {
			first = (void *)(cmd->gva + i * DMM_PAGE);
			last = first + WORDS - 1;
			bad += *first != round;
			bad += *last != round;
			*first = round + 1;
			*last = round + 1;
		}
		cmd->rounds = ++round;
	}
	cmd->result = bad;
}

static void guest_storm(volatile struct dmm_cmd *cmd)
{
	volatile uint64_t *p;
	uint64_t i, round = 0;

	while (!cmd->stop) {
		for (i = 0; i < cmd->pages && !cmd->stop; i++) {
			p = (void *)(cmd->gva + i * DMM_PAGE);
			if ((round + i) & 1)
				*p = round;
			else
				cmd->result = *p;
		}
		cmd->rounds = ++round;
	}
}

static void guest_main(struct dmm_cmd *cmd)
{
	volatile uint64_t *p;
	uint64_t i, sum;

	/* With interrupts allowed KVM may use asynchronous page faults. */
	asm volatile("sti");
	for (;;) {
		p = (void *)cmd->gva;
		switch (cmd->op) {
		case DMM_OP_FILL:
			dmm_fill((void *)cmd->gva, cmd->first, cmd->pages,
				 cmd->seed);
			break;
		case DMM_OP_CHECK:
			cmd->result = dmm_bad_pages((void *)cmd->gva, cmd->first,
						    cmd->pages, cmd->seed);
			break;
		case DMM_OP_NONZERO:
			cmd->result = dmm_nonzero_pages((void *)cmd->gva,
							cmd->pages);
			break;
		case DMM_OP_PEEK:
			cmd->result = *p;
			break;
		case DMM_OP_POKE:
			*p = cmd->seed;
			break;
		case DMM_OP_TOUCH:
			for (i = 0; i < cmd->pages; i++)
				p[i * WORDS] = cmd->seed;
			break;
		case DMM_OP_READ:
			for (i = sum = 0; i < cmd->pages; i++)
				sum += p[i * WORDS];
			cmd->result = sum;
			break;
		case DMM_OP_TOUCH_RANDOM:
			for (i = 0; i < cmd->pages; i++)
				p[dmm_shuffled(i, cmd->pages) * WORDS] = cmd->seed;
			break;
		case DMM_OP_READ_RANDOM:
			for (i = sum = 0; i < cmd->pages; i++)
				sum += p[dmm_shuffled(i, cmd->pages) * WORDS];
			cmd->result = sum;
			break;
		case DMM_OP_CLI:
			asm volatile("cli");
			break;
		case DMM_OP_JUMP:
			for (i = sum = 0; i < cmd->pages; i++)
				sum += p[i * cmd->seed % cmd->pages * WORDS];
			cmd->result = sum;
			break;
		case DMM_OP_ADD:
			for (i = 0; i < cmd->seed; i++)
				asm volatile("lock incq %0" : "+m"(*p));
			break;
		case DMM_OP_COUNT:
			guest_count(cmd);
			break;
		case DMM_OP_STORM:
			guest_storm(cmd);
			break;
		case DMM_OP_TAG_FILL:
			for (i = 0; i < cmd->pages; i++)
				dmm_tag_fill((void *)(cmd->gva + i * DMM_PAGE),
					     cmd->tag[i]);
			break;
		case DMM_OP_TAG_CHECK:
			for (i = sum = 0; i < cmd->pages; i++)
				sum += dmm_tag_bad((void *)(cmd->gva +
							    i * DMM_PAGE),
						   cmd->tag[i]);
			cmd->result = sum;
			break;
		}
		GUEST_SYNC(0);
	}
}

static struct dmm_guest *__dmm_guest_create(int nr_vcpus, uint32_t ring_bytes)
{
	struct dmm_guest *guest = calloc(1, sizeof(*guest));
	struct kvm_vm *vm;
	vm_vaddr_t gva;
	int i;

	TEST_ASSERT(guest && nr_vcpus <= DMM_MAX_VCPUS, "Bad number of vCPUs");

	/* Room for the guest's page tables of 1 GiB. */
	vm = __vm_create(VM_SHAPE_DEFAULT, nr_vcpus, (1UL << 30) / DMM_PAGE);
	if (ring_bytes)
		vm_enable_dirty_ring(vm, ring_bytes);

	for (i = 0; i < nr_vcpus; i++) {
		guest->cpu[i].vcpu = vm_vcpu_add(vm, i, guest_main);
		gva = vm_vaddr_alloc_page(vm);
		guest->cpu[i].cmd = addr_gva2hva(vm, gva);
		vcpu_args_set(guest->cpu[i].vcpu, 1, gva);
	}
	guest->vm = vm;
	return guest;
}

/* In the guest's copy of this program: L1 and L2 share their address space. */
static struct dmm_cmd *l2_cmd;

static void l2_main(void)
{
	guest_main(l2_cmd);
}

/*
 * L1 of a nested guest: run guest_main() in L2.  What L2 tells the host goes
 * straight to it, since L1 intercepts no I/O.
 */
static void l1_main(struct svm_test_data *svm, struct dmm_cmd *cmd, void *stack,
		    uint64_t npt)
{
	l2_cmd = cmd;
	generic_svm_setup(svm, l2_main, stack);
	if (npt) {
		svm->vmcb->control.nested_ctl = SVM_NESTED_CTL_NP_ENABLE;
		svm->vmcb->control.nested_cr3 = npt;
	}
	run_guest(svm->vmcb, svm->vmcb_gpa);
	GUEST_FAIL("L2 ended with 0x%x", svm->vmcb->control.exit_code);
}

#define NPT_BITS	0x7UL		/* present, writable, user */
#define NPT_LARGE	BIT(7)
#define NPT_GIBS	16UL

/* L1's nested page tables: the first 16 GiB to themselves, 2 MiB each. */
static uint64_t l1_npt_create(struct kvm_vm *vm)
{
	uint64_t root, pdpt, pd, *entry;
	unsigned int i, j;

	root = vm_alloc_page_table(vm);
	pdpt = vm_alloc_page_table(vm);
	entry = addr_gpa2hva(vm, root);
	entry[0] = pdpt | NPT_BITS;
	for (i = 0; i < NPT_GIBS; i++) {
		pd = vm_alloc_page_table(vm);
		entry = addr_gpa2hva(vm, pdpt);
		entry[i] = pd | NPT_BITS;
		entry = addr_gpa2hva(vm, pd);
		for (j = 0; j < 512; j++)
			entry[j] = (i * 512 + j) * DMM_BLOCK | NPT_BITS |
				   NPT_LARGE;
	}
	return root;
}

struct dmm_guest *dmm_guest_create_nested(bool npt)
{
	struct dmm_guest *guest = calloc(1, sizeof(*guest));
	vm_vaddr_t cmd, svm, stack;
	struct kvm_vcpu *vcpu;
	struct kvm_vm *vm;

	TEST_ASSERT(guest, "Out of memory");
	vm = __vm_create(VM_SHAPE_DEFAULT, 1, (256UL << 20) / DMM_PAGE);
	vcpu = vm_vcpu_add(vm, 0, l1_main);
	cmd = vm_vaddr_alloc_page(vm);
	stack = vm_vaddr_alloc(vm, 4 * DMM_PAGE, KVM_UTIL_MIN_VADDR);
	vcpu_alloc_svm(vm, &svm);
	/* As behind a call: the ABI wants it so. */
	vcpu_args_set(vcpu, 4, svm, cmd, stack + 4 * DMM_PAGE - 8,
		      npt ? l1_npt_create(vm) : 0);
	guest->vm = vm;
	guest->cpu[0].vcpu = vcpu;
	guest->cpu[0].cmd = addr_gva2hva(vm, cmd);
	return guest;
}

struct dmm_guest *dmm_guest_create(int nr_vcpus)
{
	return __dmm_guest_create(nr_vcpus, 0);
}

struct dmm_guest *dmm_guest_create_ring(int nr_vcpus, uint32_t ring_bytes)
{
	return __dmm_guest_create(nr_vcpus, ring_bytes);
}

void dmm_guest_free(struct dmm_guest *guest)
{
	if (!guest)
		return;
	kvm_vm_free(guest->vm);
	free(guest);
}

void dmm_guest_map(struct dmm_guest *guest, uint64_t gpa, uint64_t size)
{
	virt_map(guest->vm, gpa, gpa, size / DMM_PAGE);
}

int dmm_guest_try_slot(struct dmm_guest *guest, uint32_t slot, uint32_t flags,
		       uint64_t gpa, uint64_t size, void *hva)
{
	if (__vm_set_user_memory_region(guest->vm, slot, flags, gpa, size, hva))
		return -errno;
	return 0;
}

void dmm_guest_add_slot(struct dmm_guest *guest, uint32_t slot, uint32_t flags,
			uint64_t gpa, uint64_t size, void *hva)
{
	int r = dmm_guest_try_slot(guest, slot, flags, gpa, size, hva);

	TEST_ASSERT(!r, "Setting slot %#x: %d", slot, r);
}

void dmm_guest_del_slot(struct dmm_guest *guest, uint32_t slot)
{
	dmm_guest_add_slot(guest, slot, 0, 0, 0, NULL);
}

void dmm_guest_add_mem(struct dmm_guest *guest, struct dmm_mem *mem)
{
	dmm_guest_map(guest, DMM_GPA, mem->size);
	dmm_guest_add_slot(guest, DMM_SLOT, 0, DMM_GPA, mem->size, mem->hva);
}

/*
 * Map the first page of @mem at @gva, by a page table, the last level, that is the
 * second page of @mem.
 */
void dmm_guest_map_by(struct dmm_guest *guest, uint64_t gva, struct dmm_mem *mem)
{
	int level = PG_LEVEL_2M;
	uint64_t *pde;

	virt_map(guest->vm, gva, DMM_GPA, 1);
	pde = __vm_get_page_table_entry(guest->vm, gva, &level);
	memcpy(mem->hva + DMM_PAGE, addr_gpa2hva(guest->vm, PTE_GET_PA(*pde)),
	       DMM_PAGE);
	*pde = (*pde & ~PHYSICAL_PAGE_MASK) | (DMM_GPA + DMM_PAGE);
}

int dmm_guest_continue(struct dmm_guest *guest, int cpu)
{
	struct dmm_vcpu *c = &guest->cpu[cpu];
	struct kvm_run *run = c->vcpu->run;
	struct ucall uc;
	int r;

	for (;;) {
		run->exit_reason = KVM_EXIT_UNKNOWN;
		r = _vcpu_run(c->vcpu);
		if (r && errno != EFAULT)
			return -errno;
		if (r) {
			TEST_ASSERT_KVM_EXIT_REASON(c->vcpu,
						    KVM_EXIT_MEMORY_FAULT);
			return -EFAULT;
		}

		if (run->exit_reason == KVM_EXIT_MMIO && c->retry_mmio) {
			memset(run->mmio.data, 0, sizeof(run->mmio.data));
			continue;
		}

		switch (get_ucall(c->vcpu, &uc)) {
		case UCALL_SYNC:
			return 0;
		case UCALL_ABORT:
			REPORT_GUEST_ASSERT(uc);
			break;
		default:
			return run->exit_reason;
		}
	}
}

static void dmm_guest_prepare(struct dmm_guest *guest, int cpu, enum dmm_op op,
			      uint64_t gpa, uint64_t pages, uint64_t seed)
{
	struct dmm_cmd *cmd = guest->cpu[cpu].cmd;

	*cmd = (struct dmm_cmd) {
		.op = op,
		.gva = gpa,
		.first = gpa >= DMM_GPA ? (gpa - DMM_GPA) / DMM_PAGE : 0,
		.pages = pages,
		.seed = seed,
	};
}

int dmm_guest_run(struct dmm_guest *guest, int cpu, enum dmm_op op,
		  uint64_t gpa, uint64_t pages, uint64_t seed)
{
	dmm_guest_prepare(guest, cpu, op, gpa, pages, seed);
	return dmm_guest_continue(guest, cpu);
}

int dmm_guest_run_tags(struct dmm_guest *guest, int cpu, enum dmm_op op,
		       uint64_t gpa, uint64_t pages, const uint64_t *tags)
{
	dmm_guest_prepare(guest, cpu, op, gpa, pages, 0);
	memcpy(guest->cpu[cpu].cmd->tag, tags, pages * sizeof(*tags));
	return dmm_guest_continue(guest, cpu);
}

int dmm_guest_run_once(struct dmm_guest *guest, int cpu, enum dmm_op op,
		       uint64_t gpa, uint64_t pages, uint64_t seed)
{
	dmm_guest_prepare(guest, cpu, op, gpa, pages, seed);
	return __vcpu_run(guest->cpu[cpu].vcpu) ? -errno : 0;
}

struct dmm_thread_arg {
	struct dmm_guest *guest;
	int cpu;
};

static void *dmm_guest_thread(void *p)
{
	struct dmm_thread_arg arg = *(struct dmm_thread_arg *)p;

	free(p);
	arg.guest->cpu[arg.cpu].ret = dmm_guest_continue(arg.guest, arg.cpu);
	return NULL;
}

void dmm_guest_start(struct dmm_guest *guest, int cpu, enum dmm_op op,
		     uint64_t gpa, uint64_t pages, uint64_t seed)
{
	struct dmm_thread_arg *arg = malloc(sizeof(*arg));

	TEST_ASSERT(arg, "Out of memory");
	*arg = (struct dmm_thread_arg) { .guest = guest, .cpu = cpu };
	dmm_guest_prepare(guest, cpu, op, gpa, pages, seed);
	TEST_ASSERT(!pthread_create(&guest->cpu[cpu].thread, NULL,
				    dmm_guest_thread, arg),
		    "pthread_create() failed");
}

/* Wait until DMM_OP_COUNT or DMM_OP_STORM has done that many rounds. */
void dmm_guest_wait_rounds(struct dmm_guest *guest, int cpu, uint64_t rounds)
{
	volatile struct dmm_cmd *cmd = guest->cpu[cpu].cmd;
	int tries;

	for (tries = 0; cmd->rounds < rounds && tries < 30000; tries++)
		usleep(1000);
}

int dmm_guest_join(struct dmm_guest *guest, int cpu)
{
	pthread_join(guest->cpu[cpu].thread, NULL);
	return guest->cpu[cpu].ret;
}

int dmm_guest_stop(struct dmm_guest *guest, int cpu)
{
	((volatile struct dmm_cmd *)guest->cpu[cpu].cmd)->stop = 1;
	return dmm_guest_join(guest, cpu);
}

static uint64_t dmm_vcpu_stat(struct kvm_vcpu *vcpu, const char *name)
{
	int fd = __vcpu_ioctl(vcpu, KVM_GET_STATS_FD, NULL), i;
	struct kvm_stats_header header;
	struct kvm_stats_desc *descs, *desc = NULL;
	uint64_t value = 0;

	TEST_ASSERT(fd >= 0, "No statistics: %s", strerror(errno));
	read_stats_header(fd, &header);
	descs = read_stats_descriptors(fd, &header);
	for (i = 0; i < header.num_desc; i++) {
		desc = get_stats_descriptor(descs, i, &header);
		if (!strcmp(desc->name, name))
			break;
	}
	TEST_ASSERT(i < header.num_desc, "No statistic %s", name);
	read_stat_data(fd, &header, desc, &value, 1);
	free(descs);
	close(fd);
	return value;
}

uint64_t dmm_guest_stat(struct dmm_guest *guest, const char *name)
{
	struct kvm_vcpu *vcpu;
	uint64_t sum = 0;

	list_for_each_entry(vcpu, &guest->vm->vcpus, list)
		sum += dmm_vcpu_stat(vcpu, name);
	return sum;
}

static uint64_t dmm_guest_do(struct dmm_guest *guest, enum dmm_op op,
			     uint64_t gpa, uint64_t pages, uint64_t seed)
{
	int r = dmm_guest_run(guest, 0, op, gpa, pages, seed);

	TEST_ASSERT(!r, "Guest's access to %#lx: %d", gpa, r);
	return guest->cpu[0].cmd->result;
}

void dmm_guest_fill(struct dmm_guest *guest, uint64_t gpa, uint64_t pages,
		    uint64_t seed)
{
	dmm_guest_do(guest, DMM_OP_FILL, gpa, pages, seed);
}

uint64_t dmm_guest_bad_pages(struct dmm_guest *guest, uint64_t gpa,
			     uint64_t pages, uint64_t seed)
{
	return dmm_guest_do(guest, DMM_OP_CHECK, gpa, pages, seed);
}

uint64_t dmm_guest_nonzero_pages(struct dmm_guest *guest, uint64_t gpa,
				 uint64_t pages)
{
	return dmm_guest_do(guest, DMM_OP_NONZERO, gpa, pages, 0);
}

uint64_t dmm_guest_peek(struct dmm_guest *guest, uint64_t gpa)
{
	return dmm_guest_do(guest, DMM_OP_PEEK, gpa, 1, 0);
}

void dmm_guest_poke(struct dmm_guest *guest, uint64_t gpa, uint64_t value)
{
	dmm_guest_do(guest, DMM_OP_POKE, gpa, 1, value);
}
