// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest memory as a file of the host: processes that map it, advice, direct
 * I/O, pins.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* <linux/io_uring.h> doesn't go together with the library's headers. */
#define IORING_REGISTER_BUFFERS		0
#define IORING_UNREGISTER_BUFFERS	1

FIXTURE(host) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(host)
{
	self->mem = dmm_mem_create(SIZE);
	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(host)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

static uint64_t resident(unsigned long ino)
{
	return dmm_pool_get(ino, "resident_bytes");
}

/* A child has the same memory, not a copy of it. */
DMM_TEST(host, fork)
{
	uint64_t *words = self->mem.hva;
	pid_t pid;
	int status;

	dmm_mem_exact(&self->mem);
	dmm_guest_fill(self->guest, DMM_GPA, 4, 1);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		if (dmm_bad_pages(self->mem.hva, 0, 4, 1))
			_exit(1);
		words[0] = 5;
		words[100 * 512] = 6;
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(5, words[0]);
	EXPECT_EQ(5, dmm_guest_peek(self->guest, DMM_GPA));
	EXPECT_EQ(6, dmm_guest_peek(self->guest, DMM_GPA + 100 * DMM_PAGE));
	EXPECT_EQ(5 * DMM_PAGE, resident(self->mem.ino));
}

/* As virtio-fs and vhost-user do: other processes map the file by descriptor. */
DMM_TEST(host, several_processes)
{
	enum { PROCS = 4 };
	int to[PROCS][2], from[PROCS][2], i, status;
	pid_t pid[PROCS];
	char c;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	for (i = 0; i < PROCS; i++) {
		ASSERT_EQ(0, pipe(to[i]));
		ASSERT_EQ(0, pipe(from[i]));
		pid[i] = fork();
		ASSERT_GE(pid[i], 0);
		if (!pid[i]) {
			void *hva = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
					 MAP_SHARED, self->mem.fd, 0);

			if (hva == MAP_FAILED)
				_exit(1);
			/* 1: content is there; it gets punched; 2: all zero. */
			if (dmm_bad_pages(hva, 0, PAGES, 1))
				_exit(2);
			if (write(from[i][1], "1", 1) != 1 ||
			    read(to[i][0], &c, 1) != 1)
				_exit(3);
			if (dmm_nonzero_pages(hva, PAGES) != i * 16)
				_exit(4);
			dmm_fill(hva + i * 16 * DMM_PAGE, i * 16, 16, 2);
			_exit(0);
		}
		close(from[i][1]);
	}

	for (i = 0; i < PROCS; i++) {
		EXPECT_EQ(1, read(from[i][0], &c, 1));
	}
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	/* One after the other: each has to find what those before it wrote. */
	for (i = 0; i < PROCS; i++) {
		ASSERT_EQ(1, write(to[i][1], "2", 1));
		ASSERT_EQ(pid[i], waitpid(pid[i], &status, 0));
		EXPECT_EQ(0, status);
	}
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PROCS * 16, 2));
	EXPECT_EQ(PROCS * 16 * DMM_PAGE, resident(self->mem.ino));
}

/* MADV_DONTNEED takes the mapping, not the content. */
DMM_TEST(host, madv_dontneed)
{
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, madvise(self->mem.hva, SIZE, MADV_DONTNEED));
	EXPECT_EQ(SIZE, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* MADV_REMOVE is a hole. */
DMM_TEST(host, madv_remove)
{
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	ASSERT_EQ(0, madvise(self->mem.hva + DMM_PAGE, 9 * DMM_PAGE,
			     MADV_REMOVE));
	EXPECT_EQ(SIZE - 9 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(PAGES - 9,
		  dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	EXPECT_EQ(PAGES - 9, dmm_nonzero_pages(self->mem.hva, PAGES));
}

DMM_TEST(host, madv_populate)
{
	ASSERT_EQ(0, madvise(self->mem.hva, SIZE / 2, MADV_POPULATE_READ));
	EXPECT_EQ(0, resident(self->mem.ino));
	ASSERT_EQ(0, madvise(self->mem.hva, SIZE / 2, MADV_POPULATE_WRITE));
	EXPECT_EQ(SIZE / 2, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES));

	/* Hints that QEMU gives and doesn't check: no harm. */
	madvise(self->mem.hva, SIZE, MADV_HUGEPAGE);
	madvise(self->mem.hva, SIZE, MADV_MERGEABLE);
	madvise(self->mem.hva, SIZE, MADV_DONTDUMP);
	madvise(self->mem.hva, SIZE, MADV_COLD);
	madvise(self->mem.hva, SIZE, MADV_PAGEOUT);
	madvise(self->mem.hva, SIZE, MADV_FREE);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	madvise(self->mem.hva, SIZE, MADV_PAGEOUT);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

DMM_TEST(host, mlock)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 1);
	ASSERT_EQ(0, mlock(self->mem.hva, SIZE));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES / 2, 1));
	EXPECT_EQ(PAGES / 2, dmm_nonzero_pages(self->mem.hva, PAGES));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, resident(self->mem.ino));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, PAGES));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
	ASSERT_EQ(0, munlock(self->mem.hva, SIZE));
}

/* What is locked in memory is not taken out, however often one asks. */
DMM_TEST(host, mlock_keeps)
{
	unsigned long ino = self->mem.ino;
	int tries;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, mlock(self->mem.hva, SIZE / 2));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	for (tries = 0; tries < 4; tries++) {
		/* Gives each CPU something else to do, and its lists to empty. */
		dmm_pool_set_bytes(ino, "reclaim", SIZE);
		EXPECT_LE(SIZE / 2, resident(ino));
		usleep(100000);
	}
	EXPECT_EQ(SIZE / 2, resident(ino));
	ASSERT_EQ(0, munlock(self->mem.hva, SIZE / 2));
	dmm_pool_set_bytes(ino, "reclaim", SIZE);
	EXPECT_EQ(0, resident(ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* What is locked before it has content is so with the content that it gets. */
DMM_TEST(host, mlock_absent)
{
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	ASSERT_EQ(0, mlock(self->mem.hva, SIZE / 2));
	EXPECT_EQ(SIZE / 2, resident(ino));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	dmm_pool_set_bytes(ino, "reclaim", SIZE);
	EXPECT_EQ(SIZE / 2, resident(ino));
	ASSERT_EQ(0, munlock(self->mem.hva, SIZE / 2));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

static volatile sig_atomic_t poison_code;
static sigjmp_buf poison_jump;

static void on_poison(int signal, siginfo_t *info, void *context)
{
	poison_code = info->si_code;
	siglongjmp(poison_jump, 1);
}

/*
 * Have the kernel believe that the memory has lost the page at @addr, of which
 * nobody has a reference but the file.
 */
static bool poison(char *addr)
{
	uint64_t pfn;
	char buf[32];

	dmm_pagemap(addr, 1, &pfn);
	pfn &= DMM_PAGEMAP_PFN;
	if (!pfn || madvise(addr, DMM_PAGE, MADV_DONTNEED))
		return false;
	snprintf(buf, sizeof(buf), "%#lx", pfn * DMM_PAGE);
	/* It cannot do much about such a page, and says so. */
	return dmm_write_file("/sys/devices/system/memory/hard_offline_page", buf,
			      strlen(buf)) != -ENOENT;
}

/* The same for a page of the file, with the content of the first and clean. */
static bool poison_clean(struct dmm_mem *mem, uint64_t index)
{
	char *addr = mem->hva + index * DMM_PAGE;

	TEST_ASSERT(!fallocate(mem->fd, PUNCH, index * DMM_PAGE, DMM_PAGE) &&
		    pwrite(mem->fd, mem->hva, DMM_PAGE, index * DMM_PAGE) ==
		    DMM_PAGE, "Cannot make a page anew");
	(void)*(volatile char *)addr;
	return poison(addr);
}

/* Touch or write a page of lost memory: what the signal says, or 0. */
static int poison_signal(volatile char *addr, bool write)
{
	struct sigaction action = { .sa_sigaction = on_poison,
				    .sa_flags = SA_SIGINFO };

	poison_code = 0;
	sigaction(SIGBUS, &action, NULL);
	if (!sigsetjmp(poison_jump, 1)) {
		if (write)
			*addr = 1;
		else
			(void)*addr;
	}
	signal(SIGBUS, SIG_DFL);
	return poison_code;
}

/*
 * The memory has lost a page: who touches it is told so, it goes nowhere, and all
 * else is as before.
 */
DMM_TEST(host, poisoned)
{
	char *hva = self->mem.hva, *other;
	unsigned long ino = self->mem.ino;
	char c;

	dmm_mem_exact(&self->mem);
	dmm_fill(hva, 0, PAGES, 1);
	/* Clean, as most of a guest's memory is. */
	if (!poison_clean(&self->mem, 3))
		SKIP(return, "no handling of memory failures");
	other = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		     self->mem.fd, 0);
	ASSERT_NE(MAP_FAILED, other);
	EXPECT_EQ(BUS_MCEERR_AR, poison_signal(other + 3 * DMM_PAGE, false));
	EXPECT_EQ(-1, pread(self->mem.fd, &c, 1, 3 * DMM_PAGE));
	EXPECT_EQ(EIO, errno);
	if (dmm_policy_loaded("test-token")) {
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
		dmm_pool_set_bytes(ino, "reclaim", SIZE);
		EXPECT_EQ(DMM_PAGE, resident(ino));
	}
	/* Without it the memory is as good as new. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 3 * DMM_PAGE, DMM_PAGE));
	dmm_fill(other + 3 * DMM_PAGE, 3, 1, 1);
	EXPECT_EQ(0, dmm_bad_pages(other, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	ASSERT_EQ(0, munmap(other, SIZE));
}

/* Nor does a copy of what was lost come to be. */
DMM_TEST(host, poisoned_not_copied)
{
	struct dmm_mem clone = dmm_mem_create_exact(SIZE);
	struct file_clone_range range = {
		.src_fd = self->mem.fd,
		.src_offset = 5 * DMM_PAGE,
		.src_length = DMM_PAGE,
	};
	char *hva = self->mem.hva;
	char c = 1;

	dmm_mem_exact(&self->mem);
	dmm_fill(hva, 0, PAGES, 1);
	/* Page 3 is shared, and page 5 is not. */
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 5 * DMM_PAGE, DMM_PAGE));
	dmm_fill(hva + 5 * DMM_PAGE, 5, 1, 1);
	c = *(volatile char *)(hva + 3 * DMM_PAGE);
	if (!poison(hva + 3 * DMM_PAGE) || !poison(hva + 5 * DMM_PAGE))
		SKIP(return, "no handling of memory failures");

	EXPECT_EQ(BUS_MCEERR_AR, poison_signal(hva + 3 * DMM_PAGE, true));
	EXPECT_EQ(BUS_MCEERR_AR, poison_signal(clone.hva + 3 * DMM_PAGE, false));
	EXPECT_EQ(-1, pwrite(self->mem.fd, &c, 1, 3 * DMM_PAGE));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pwrite(self->mem.fd, &c, 1, 5 * DMM_PAGE));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, fallocate(clone.fd, PUNCH, 3 * DMM_PAGE, 8));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, ioctl(clone.fd, FICLONERANGE, &range));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(SIZE, lseek(clone.fd, 0, SEEK_END));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 3 * DMM_PAGE, 3 * DMM_PAGE));
	dmm_fill(hva + 3 * DMM_PAGE, 3, 3, 1);
	EXPECT_EQ(0, dmm_bad_pages(hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(clone.hva, 0, 3, 1));
	EXPECT_EQ(0, dmm_bad_pages(clone.hva + 4 * DMM_PAGE, 4, PAGES - 4, 1));

	/* What is behind the end nobody misses, nor what could not be written. */
	EXPECT_EQ(0, ftruncate(clone.fd, 3 * DMM_PAGE + 8));
	EXPECT_EQ(-1, pwrite(clone.fd, &c, 1, 3 * DMM_PAGE + 8));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(3 * DMM_PAGE + 8, lseek(clone.fd, 0, SEEK_END));
	dmm_mem_free(&clone);
}

static void count_poison(int signal, siginfo_t *info, void *context)
{
	if (info->si_code == BUS_MCEERR_AR)
		poison_code++;
}

/*
 * What is mapped ahead of a guest, as a policy knows it and as a neighbour, leaves
 * out what was lost: of that hears who touches it.
 */
DMM_TEST(host, poisoned_ahead)
{
	struct sigaction action = { .sa_sigaction = count_poison,
				    .sa_flags = SA_SIGINFO };
	char order[] = "/tmp/poisoned-XXXXXX";
	const char *lines = "0\n1\n2\n3\n4\n";
	unsigned long ino = self->mem.ino;
	const int page[] = { 3, 19 };
	unsigned int i;
	int fd;

	if (!dmm_policy_loaded("restore"))
		SKIP(return, "no policy restore");
	dmm_mem_exact(&self->mem);
	dmm_fill(self->mem.hva, 0, PAGES, 1);
	for (i = 0; i < ARRAY_SIZE(page); i++)
		if (!poison_clean(&self->mem, page[i]))
			SKIP(return, "no handling of memory failures");
	fd = mkstemp(order);
	ASSERT_LE(0, fd);
	ASSERT_EQ(strlen(lines), write(fd, lines, strlen(lines)));
	close(fd);
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+restore"));
	ASSERT_EQ(0, dmm_pool_set(ino, "restore/order", order));
	unlink(order);

	poison_code = 0;
	sigaction(SIGBUS, &action, NULL);
	for (i = 0; i < ARRAY_SIZE(page); i++) {
		const uint64_t gpa = DMM_GPA + page[i] * DMM_PAGE;

		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, gpa - 3 * DMM_PAGE,
						 3, 1));
		EXPECT_EQ(0, poison_code);
		dmm_guest_run_once(self->guest, 0, DMM_OP_PEEK, gpa, 1, 0);
		EXPECT_EQ(1, poison_code);
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, page[i] * DMM_PAGE,
				       DMM_PAGE));
		EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
		EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, gpa + DMM_PAGE, 1,
						 1));
		poison_code = 0;
	}
	signal(SIGBUS, SIG_DFL);
}

DMM_TEST(host, mprotect_and_mremap)
{
	void *hva;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, mprotect(self->mem.hva, SIZE, PROT_READ));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	ASSERT_EQ(0, mprotect(self->mem.hva, SIZE, PROT_READ | PROT_WRITE));
	hva = mremap(self->mem.hva, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
		     (char *)self->mem.hva - (64UL << 20));
	ASSERT_NE(MAP_FAILED, hva);
	self->mem.hva = hva;
	EXPECT_EQ(0, dmm_bad_pages(hva, 0, PAGES, 1));
	dmm_fill(hva, 0, PAGES, 2);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
}

/* One value of a mapping's smaps, in bytes. */
static long smaps(const void *hva, const char *key)
{
	unsigned long start, end;
	bool found = false;
	char line[256];
	long kb = -1;
	FILE *f;

	f = fopen("/proc/self/smaps", "r");
	TEST_ASSERT(f, "No /proc/self/smaps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			found = start == (unsigned long)hva;
		else if (found && !strncmp(line, key, strlen(key)) &&
			 line[strlen(key)] == ':')
			kb = atol(line + strlen(key) + 1);
	}
	fclose(f);
	return kb < 0 ? kb : kb * 1024;
}

DMM_TEST(host, smaps)
{
	void *hva;

	hva = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		   self->mem.fd, 0);
	ASSERT_NE(MAP_FAILED, hva);
	EXPECT_EQ(SIZE, smaps(hva, "Size"));
	EXPECT_EQ(0, smaps(hva, "Rss"));

	dmm_fill(hva, 0, 100, 1);
	EXPECT_EQ(100 * DMM_PAGE, smaps(hva, "Rss"));
	EXPECT_EQ(0, smaps(hva, "Anonymous"));
	EXPECT_EQ(0, smaps(hva, "Swap"));
	EXPECT_GE(100 * DMM_PAGE, smaps(hva, "Pss"));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, 50 * DMM_PAGE));
	EXPECT_EQ(50 * DMM_PAGE, smaps(hva, "Rss"));
	ASSERT_EQ(0, ftruncate(self->mem.fd, 0));
	EXPECT_EQ(0, smaps(hva, "Rss"));
	munmap(hva, SIZE);
}

/* Direct I/O out of and into guest memory, also such that wasn't there yet. */
DMM_TEST(host, direct_io)
{
	const size_t len = 1 << 20;
	int fd = dmm_open_scratch();
	uint64_t i;

	if (fd < 0)
		SKIP(return, "no scratch disk, set KVM_DMM_SCRATCH");

	dmm_guest_fill(self->guest, DMM_GPA, len / DMM_PAGE, 1);
	ASSERT_EQ(len, pwrite(fd, self->mem.hva, len, 0));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	ASSERT_EQ(len, pread(fd, self->mem.hva, len, 0));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, len / DMM_PAGE, 1));
	EXPECT_EQ(len, resident(self->mem.ino));

	/* Zeros are written out without being allocated. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	ASSERT_EQ(len, pwrite(fd, self->mem.hva, len, 0));
	EXPECT_EQ(0, resident(self->mem.ino));

	/* Vectors of single pages, in and out, with a guest that watches. */
	for (i = 0; i < 20; i++) {
		struct iovec iov[4];
		int n;

		for (n = 0; n < 4; n++) {
			iov[n].iov_base = self->mem.hva +
					  ((i * 31 + n * 7) % PAGES) * DMM_PAGE;
			iov[n].iov_len = DMM_PAGE;
			dmm_fill(iov[n].iov_base, n, 1, i);
		}
		ASSERT_EQ(4 * DMM_PAGE, pwritev(fd, iov, 4, 0));
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
		ASSERT_EQ(4 * DMM_PAGE, preadv(fd, iov, 4, 0));
		for (n = 0; n < 4; n++) {
			EXPECT_EQ(0, dmm_bad_pages(iov[n].iov_base, n, 1, i));
			EXPECT_EQ(*(uint64_t *)iov[n].iov_base,
				  dmm_guest_peek(self->guest, DMM_GPA +
						 (iov[n].iov_base -
						  self->mem.hva)));
		}
	}
	close(fd);
}

/* A page that sits in a pipe is held; a hole makes it the pipe's alone. */
DMM_TEST(host, held_page)
{
	struct iovec iov = { self->mem.hva, 4 * DMM_PAGE };
	char *buf = malloc(4 * DMM_PAGE);
	int fds[2];

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(0, pipe(fds));
	dmm_guest_fill(self->guest, DMM_GPA, 8, 1);
	ASSERT_EQ(4 * DMM_PAGE, vmsplice(fds[1], &iov, 1, 0));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, 2 * DMM_PAGE));
	EXPECT_EQ(6 * DMM_PAGE, resident(self->mem.ino));
	EXPECT_EQ(2, dmm_guest_bad_pages(self->guest, DMM_GPA, 8, 1));
	dmm_guest_fill(self->guest, DMM_GPA, 2, 2);

	/* What is in the pipe is what was there when it was put in. */
	ASSERT_EQ(4 * DMM_PAGE, read(fds[0], buf, 4 * DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(buf, 0, 4, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 2, 2));

	/* The file goes while a pipe has its pages. */
	iov.iov_len = 2 * DMM_PAGE;
	ASSERT_EQ(2 * DMM_PAGE, vmsplice(fds[1], &iov, 1, 0));
	dmm_guest_free(self->guest);
	self->guest = NULL;
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
	ASSERT_EQ(2 * DMM_PAGE, read(fds[0], buf, 4 * DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(buf, 0, 2, 2));
}

/*
 * In use by the kernel, here by a pipe that holds references: counted in
 * pinned_bytes, left alone by reclaim, and still the guest's pages.
 */
DMM_TEST(host, pinned)
{
	struct iovec iov = { self->mem.hva, 16 * DMM_PAGE };
	static char buf[16 * DMM_PAGE];
	int fds[2], tries;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	/* The worker of an asynchronous fault holds its page until it is done. */
	for (tries = 0; tries < 100; tries++) {
		if (!dmm_pool_get(self->mem.ino, "pinned_bytes"))
			break;
		usleep(10000);
	}
	EXPECT_NE(100, tries);
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(16 * DMM_PAGE, vmsplice(fds[1], &iov, 1, 0));
	EXPECT_EQ(16 * DMM_PAGE, dmm_pool_get(self->mem.ino, "pinned_bytes"));
	if (!dmm_pool_set(self->mem.ino, "policies", "+test-token")) {
		dmm_pool_set(self->mem.ino, "reclaim", "1G");
		EXPECT_EQ(16 * DMM_PAGE,
			  dmm_pool_get(self->mem.ino, "resident_bytes"));
	}
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));

	ASSERT_EQ(16 * DMM_PAGE, read(fds[0], buf, sizeof(buf)));
	EXPECT_EQ(0, dmm_bad_pages(buf, 0, 16, 1));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "pinned_bytes"));
	close(fds[0]);
	close(fds[1]);
}

/* QEMU opens its memory again by /proc/self/fd, state belongs to the inode. */
DMM_TEST(host, reopen)
{
	char path[64];
	struct stat a, b;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->mem.fd);
	fd = open(path, O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fstat(fd, &a));
	ASSERT_EQ(0, fstat(self->mem.fd, &b));
	EXPECT_EQ(a.st_ino, b.st_ino);
	dmm_guest_fill(self->guest, DMM_GPA, 1, 1);
	ASSERT_EQ(0, fallocate(fd, PUNCH, 0, SIZE));
	EXPECT_EQ(0, dmm_guest_peek(self->guest, DMM_GPA));
	close(fd);
}

TEST_HARNESS_MAIN
