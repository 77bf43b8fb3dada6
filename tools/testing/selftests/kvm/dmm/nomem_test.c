// SPDX-License-Identifier: GPL-2.0-only
/*
 * Allocations fail, of system calls on files and of accesses to mappings: a
 * clear error, and all is as it was.
 *
 * Needs a kernel with fault injection, as the debug kernel has.
 */
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "kselftest_harness.h"
#include "nomem_util.h"

/* In <linux/fs.h>, which doesn't go together with <sys/mount.h>. */
struct clone_range {
	int64_t src_fd;
	uint64_t src_offset;
	uint64_t src_length;
	uint64_t dest_offset;
};

#define FICLONE		_IOW(0x94, 9, int)
#define FICLONERANGE	_IOW(0x94, 13, struct clone_range)

FIXTURE(files) {
	struct dmm_mem mem;
	char path[64];
	char other[64];
	void *buf;
};

static sigjmp_buf no_memory;

static void sigbus(int sig)
{
	siglongjmp(no_memory, 1);
}

FIXTURE_SETUP(files)
{
	snprintf(self->path, sizeof(self->path), "%s/nomem-%d", dmm_dir(),
		 getpid());
	snprintf(self->other, sizeof(self->other), "%s-other", self->path);
	self->buf = malloc(LEN);
	ASSERT_NE(NULL, self->buf);
	dmm_fill(self->buf, FIRST, NR, SEED);
	signal(SIGBUS, sigbus);
	if (!nomem_setup())
		SKIP(return, "kernel without fault injection");
	self->mem = nomem_mem();
}

FIXTURE_TEARDOWN(files)
{
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
	free(self->buf);
}

/* Regions are made once for a file. */
static void fresh(struct dmm_mem *mem)
{
	dmm_mem_free(mem);
	*mem = nomem_mem();
}

static off_t size_of(const struct dmm_mem *mem)
{
	struct stat st;

	TEST_ASSERT(!fstat(mem->fd, &st), "fstat() failed");
	return st.st_size;
}

static int opened(int fd)
{
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

DMM_TEST(files, names)
{
	FOR_EACH_FAILURE("``open(O_CREAT)``", BIT(ENOMEM),
			 opened(open(self->path, O_RDWR | O_CREAT, 0600)),
			 access(self->path, F_OK), unlink(self->path));
	FOR_EACH_FAILURE("``open(O_TMPFILE)``", BIT(ENOMEM),
			 opened(open(dmm_dir(), O_RDWR | O_TMPFILE, 0600)),
			 true, (void)0);
	FOR_EACH_FAILURE("``mkdir()``", BIT(ENOMEM),
			 nomem_errno(mkdir(self->path, 0700)),
			 access(self->path, F_OK), rmdir(self->path));

	ASSERT_EQ(0, opened(open(self->path, O_RDWR | O_CREAT, 0600)));
	FOR_EACH_FAILURE("``rename()``", BIT(ENOMEM),
			 nomem_errno(rename(self->path, self->other)),
			 !access(self->path, F_OK) && access(self->other, F_OK),
			 rename(self->other, self->path));
	FOR_EACH_FAILURE("``unlink()``", BIT(ENOMEM),
			 nomem_errno(unlink(self->path)),
			 !access(self->path, F_OK),
			 opened(open(self->path, O_RDWR | O_CREAT, 0600)));
	unlink(self->path);
}

DMM_TEST(files, mounts)
{
	const char *options = "policies=demand,domain=x,uid=1,gid=2,mode=700";
	char dir[] = "/tmp/nomem-XXXXXX";
	int fd;

	ASSERT_NE(NULL, mkdtemp(dir));
	FOR_EACH_FAILURE("``mount()``", BIT(ENOMEM),
			 nomem_errno(mount("dmmfs", dir, "dmmfs", 0, options)),
			 umount(dir), umount(dir));
	rmdir(dir);

	FOR_EACH_FAILURE("``fsopen()``", BIT(ENOMEM),
			 opened(syscall(SYS_fsopen, "dmmfs", 0)), true, (void)0);
	fd = syscall(SYS_fsopen, "dmmfs", 0);
	ASSERT_GE(fd, 0);
	FOR_EACH_FAILURE("``fsconfig()``, ``policies``", BIT(ENOMEM),
			 nomem_errno(syscall(SYS_fsconfig, fd,
					     FSCONFIG_SET_STRING, "policies",
					     "demand", 0)),
			 true, (void)0);
	FOR_EACH_FAILURE("``fsconfig()``, ``domain``", BIT(ENOMEM),
			 nomem_errno(syscall(SYS_fsconfig, fd,
					     FSCONFIG_SET_STRING, "domain", "x",
					     0)),
			 true, (void)0);
	close(fd);
}

/* What is allocated for a size goes, and so does the size. */
DMM_TEST(files, static_size)
{
	const uint64_t errnos = BIT(ENOSPC) | BIT(ENOMEM);
	struct dmm_mem mem = dmm_mem_create_static(LEN);

	dmm_fill(mem.hva, 0, NR, WITNESS_SEED);
	FOR_EACH_FAILURE("``ftruncate()`` of a static pool, 16 pages more",
			 errnos, nomem_errno(ftruncate(mem.fd, 3 * LEN)),
			 size_of(&mem) == LEN && nomem_intact(&mem) &&
			 dmm_pool_get(mem.ino, "resident_bytes") == LEN,
			 ftruncate(mem.fd, LEN));
	FOR_EACH_FAILURE("``write()`` behind the end, static pool",
			 BIT(ENOSPC),
			 nomem_errno(pwrite(mem.fd, self->buf, LEN, LEN)),
			 size_of(&mem) == LEN && nomem_intact(&mem) &&
			 dmm_pool_get(mem.ino, "resident_bytes") == LEN,
			 ftruncate(mem.fd, LEN));

	ASSERT_EQ(0, ftruncate(mem.fd, DMM_BLOCK));
	FOR_EACH_FAILURE("``ftruncate()`` of a static pool, 2 MiB more",
			 errnos, nomem_errno(ftruncate(mem.fd, SIZE)),
			 size_of(&mem) == DMM_BLOCK && nomem_intact(&mem) &&
			 dmm_pool_get(mem.ino, "resident_bytes") == DMM_BLOCK,
			 ftruncate(mem.fd, DMM_BLOCK));
	dmm_mem_free(&mem);
}

static int clone_file(const struct dmm_mem *to, const struct dmm_mem *from)
{
	return nomem_errno(ioctl(to->fd, FICLONE, from->fd));
}

static int clone_range(const struct dmm_mem *to, uint64_t page,
		       const struct dmm_mem *from)
{
	struct clone_range range = {
		.src_fd = from->fd,
		.src_offset = OFFSET,
		.src_length = LEN,
		.dest_offset = page * DMM_PAGE,
	};

	return nomem_errno(ioctl(to->fd, FICLONERANGE, &range));
}

static bool both_intact(const struct dmm_mem *mem, const struct dmm_mem *copy)
{
	return nomem_intact(mem) && dmm_pool_ok(copy->ino) &&
		!nomem_bad(mem, SEED);
}

static void grow(const struct dmm_mem *mem)
{
	TEST_ASSERT(!ftruncate(mem->fd, SIZE), "ftruncate() failed");
}

/* The last page is cut in two, which takes a page of one's own. */
DMM_TEST(files, smaller)
{
	struct dmm_mem copy = nomem_mem();

	nomem_fill(&copy, SEED);
	ASSERT_EQ(0, clone_file(&self->mem, &copy));
	FOR_EACH_FAILURE("``ftruncate()``, smaller, of a clone", BIT(ENOMEM),
			 nomem_errno(ftruncate(self->mem.fd, OFFSET + 100)),
			 size_of(&self->mem) == SIZE &&
			 both_intact(&self->mem, &copy),
			 (grow(&self->mem), clone_file(&self->mem, &copy)));
	EXPECT_EQ(0, nomem_bad(&self->mem, SEED));
	FOR_EACH_FAILURE("``ftruncate()`` to nothing", 0,
			 nomem_errno(ftruncate(self->mem.fd, 0)), true,
			 (grow(&self->mem), clone_file(&self->mem, &copy)));
	EXPECT_EQ(0, nomem_bad(&self->mem, SEED));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	dmm_mem_free(&copy);
}

static int all_of(ssize_t n)
{
	if (n < 0)
		return -errno;
	return n == LEN ? 0 : -ENOSPC;
}

static int read_all(int fd, void *buf)
{
	ssize_t n = pread(fd, buf, LEN, OFFSET);

	if (n < 0)
		return -errno;
	return n == LEN ? 0 : -ENOMEM;
}

DMM_TEST(files, write)
{
	FOR_EACH_FAILURE("``write()``, 8 pages in two regions",
			 BIT(ENOSPC),
			 all_of(pwrite(self->mem.fd, self->buf, LEN, OFFSET)),
			 nomem_intact(&self->mem), fresh(&self->mem));
	FOR_EACH_FAILURE("``write()`` behind the end", BIT(ENOSPC),
			 all_of(pwrite(self->mem.fd, self->buf, LEN, SIZE)),
			 nomem_intact(&self->mem) &&
			 size_of(&self->mem) < (off_t)(SIZE + LEN),
			 fresh(&self->mem));
	ASSERT_EQ(0, all_of(pwrite(self->mem.fd, self->buf, LEN, OFFSET)));
	FOR_EACH_FAILURE("``write()`` to what is there", 0,
			 all_of(pwrite(self->mem.fd, self->buf, LEN, OFFSET)),
			 nomem_intact(&self->mem) && !nomem_bad(&self->mem, SEED),
			 (void)0);
	EXPECT_EQ(0, nomem_bad(&self->mem, SEED));
}

/* Without control groups of memory there is a stock of pages. */
DMM_TEST(files, write_many)
{
	uint64_t len = 24 * DMM_PAGE;
	void *buf = calloc(1, len);

	ASSERT_NE(NULL, buf);
	FOR_EACH_FAILURE("``write()``, 24 pages", BIT(ENOSPC),
			 pwrite(self->mem.fd, buf, len, DMM_BLOCK) == (long)len ?
			 0 : -ENOSPC,
			 nomem_intact(&self->mem), fresh(&self->mem));
	free(buf);
}

/* Content is with swap, and pages are brought back or taken out. */
DMM_TEST(files, swapped)
{
	const uint64_t seed = DMM_MIXED | 1;
	int fd = self->mem.fd;

	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+swap"));
	nomem_fill(&self->mem, seed);
	FOR_EACH_FAILURE("``posix_fadvise(DONTNEED)`` with ``swap``", 0,
			 -posix_fadvise(fd, OFFSET, LEN, POSIX_FADV_DONTNEED),
			 true, nomem_fill(&self->mem, seed));
	posix_fadvise(fd, OFFSET, LEN, POSIX_FADV_DONTNEED);
	ASSERT_EQ(LEN, dmm_pool_get(self->mem.ino, "swapped_bytes"));
	FOR_EACH_FAILURE("``posix_fadvise(WILLNEED)`` with ``swap``",
			 BIT(ENOMEM),
			 -posix_fadvise(fd, OFFSET, LEN, POSIX_FADV_WILLNEED),
			 nomem_intact(&self->mem),
			 (nomem_fill(&self->mem, seed),
			  posix_fadvise(fd, OFFSET, LEN, POSIX_FADV_DONTNEED)));
	FOR_EACH_FAILURE("``read()`` of what is swapped", BIT(ENOMEM),
			 read_all(fd, self->buf), nomem_intact(&self->mem),
			 posix_fadvise(fd, OFFSET, LEN, POSIX_FADV_DONTNEED));
	FOR_EACH_FAILURE("punching a hole into what is swapped", 0,
			 nomem_errno(fallocate(fd, PUNCH, OFFSET, LEN)), true,
			 (nomem_fill(&self->mem, seed),
			  posix_fadvise(fd, OFFSET, LEN, POSIX_FADV_DONTNEED)));
	EXPECT_EQ(0, nomem_bad(&self->mem, seed));
}

DMM_TEST(files, read)
{
	FOR_EACH_FAILURE("``read()`` of absent memory", 0,
			 read_all(self->mem.fd, self->buf),
			 nomem_intact(&self->mem), (void)0);
	nomem_fill(&self->mem, SEED);
	FOR_EACH_FAILURE("``read()``", 0, read_all(self->mem.fd, self->buf),
			 nomem_intact(&self->mem), (void)0);
	EXPECT_EQ(0, dmm_bad_pages(self->buf, FIRST, NR, SEED));
	FOR_EACH_FAILURE("``lseek(SEEK_DATA)``", 0,
			 lseek(self->mem.fd, DMM_PAGE * WITNESS, SEEK_DATA) ==
			 OFFSET ? 0 : -EIO, true, (void)0);
}

static int allocate(int fd, int mode, uint64_t offset, uint64_t len)
{
	return nomem_errno(fallocate(fd, mode, offset, len));
}

static bool clear(const struct dmm_mem *mem, uint64_t page, uint64_t nr)
{
	return !dmm_nonzero_pages(mem->hva + page * DMM_PAGE, nr);
}

DMM_TEST(files, fallocate)
{
	const int zero = FALLOC_FL_ZERO_RANGE;
	const uint64_t errnos = BIT(ENOSPC) | BIT(ENOMEM);

	FOR_EACH_FAILURE("``fallocate()``, 8 pages", errnos,
			 allocate(self->mem.fd, 0, OFFSET, LEN),
			 nomem_intact(&self->mem) &&
			 clear(&self->mem, FIRST, NR),
			 fresh(&self->mem));
	FOR_EACH_FAILURE("``fallocate()``, 2 MiB", errnos,
			 allocate(self->mem.fd, 0, DMM_BLOCK, DMM_BLOCK),
			 nomem_intact(&self->mem), fresh(&self->mem));
	nomem_fill(&self->mem, SEED);
	FOR_EACH_FAILURE("``FALLOC_FL_ZERO_RANGE``", errnos,
			 allocate(self->mem.fd, zero, OFFSET, LEN),
			 nomem_intact(&self->mem) &&
			 clear(&self->mem, FIRST, NR),
			 nomem_fill(&self->mem, SEED));
	FOR_EACH_FAILURE("``FALLOC_FL_PUNCH_HOLE``", 0,
			 allocate(self->mem.fd, PUNCH, OFFSET, LEN), true,
			 nomem_fill(&self->mem, SEED));
}

DMM_TEST(files, clones)
{
	struct dmm_mem copy = nomem_mem();
	void *hva = copy.hva + WITNESS * DMM_PAGE;

	/* With tokens, too. */
	if (dmm_policy_loaded("swap")) {
		ASSERT_EQ(0, dmm_pool_set(copy.ino, "policies", "+swap"));
		ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+swap"));
	}
	nomem_fill(&self->mem, SEED);
	posix_fadvise(self->mem.fd, OFFSET, LEN / 2, POSIX_FADV_DONTNEED);
	FOR_EACH_FAILURE("``FICLONE`` to a new file", BIT(ENOMEM),
			 clone_file(&copy, &self->mem),
			 both_intact(&self->mem, &copy),
			 (fresh(&copy),
			  dmm_pool_set(copy.ino, "policies", "+swap"),
			  nomem_fill(&self->mem, SEED),
			  posix_fadvise(self->mem.fd, OFFSET, LEN / 2,
					POSIX_FADV_DONTNEED)));
	ASSERT_EQ(0, clone_file(&copy, &self->mem));
	EXPECT_EQ(0, nomem_bad(&copy, SEED));
	FOR_EACH_FAILURE("``FICLONERANGE`` to another offset",
			 BIT(ENOMEM),
			 clone_range(&copy, WITNESS, &self->mem),
			 both_intact(&self->mem, &copy) &&
			 !nomem_bad(&copy, SEED),
			 (allocate(copy.fd, PUNCH, WITNESS * DMM_PAGE, LEN),
			  nomem_fill(&self->mem, SEED),
			  posix_fadvise(self->mem.fd, OFFSET, LEN / 2,
					POSIX_FADV_DONTNEED)));
	hva = copy.hva + WITNESS * DMM_PAGE;
	ASSERT_EQ(0, clone_range(&copy, WITNESS, &self->mem));
	EXPECT_EQ(0, dmm_bad_pages(hva, FIRST, NR, SEED));

	ASSERT_EQ(0, clone_file(&copy, &self->mem));
	FOR_EACH_FAILURE("punching a hole into half a page of a clone",
			 BIT(ENOMEM),
			 allocate(copy.fd, PUNCH, OFFSET, DMM_PAGE / 2),
			 both_intact(&self->mem, &copy) && !nomem_bad(&copy, SEED),
			 clone_file(&copy, &self->mem));
	FOR_EACH_FAILURE("``write()`` to a clone", BIT(ENOSPC),
			 all_of(pwrite(copy.fd, self->buf, LEN, OFFSET)),
			 both_intact(&self->mem, &copy) && !nomem_bad(&copy, SEED),
			 clone_file(&copy, &self->mem));
	dmm_mem_free(&copy);
}

/* Touch all pages; -EFAULT for SIGBUS. */
static int touch(const struct dmm_mem *mem, bool write)
{
	volatile char *p = mem->hva + OFFSET;
	unsigned int i;

	if (sigsetjmp(no_memory, 1))
		return -EFAULT;
	for (i = 0; i < NR; i++) {
		if (write)
			p[i * DMM_PAGE] = p[i * DMM_PAGE];
		else
			(void)p[i * DMM_PAGE];
	}
	return 0;
}

static int advise(const struct dmm_mem *mem, int advice)
{
	return nomem_errno(madvise(mem->hva + OFFSET, LEN, advice));
}

/*
 * Page tables of the process are there: without memory for one, the kernel would
 * try again for ever.
 */
DMM_TEST(files, mapping)
{
	struct dmm_mem copy = nomem_mem();

	nomem_fill(&self->mem, SEED);
	nomem_punch(&self->mem);
	FOR_EACH_FAILURE("reading absent memory through a mapping", 0,
			 touch(&self->mem, false), true,
			 nomem_punch(&self->mem));
	FOR_EACH_FAILURE("writing absent memory through a mapping", BIT(EFAULT),
			 touch(&self->mem, true), nomem_intact(&self->mem),
			 nomem_punch(&self->mem));
	nomem_fill(&copy, SEED);
	ASSERT_EQ(0, clone_file(&self->mem, &copy));
	FOR_EACH_FAILURE("writing a clone through a mapping", BIT(EFAULT),
			 touch(&self->mem, true),
			 both_intact(&self->mem, &copy),
			 clone_file(&self->mem, &copy));
	if (dmm_policy_loaded("swap")) {
		ASSERT_EQ(0, dmm_pool_set(copy.ino, "policies", "+swap"));
		nomem_fill(&copy, SEED);
		posix_fadvise(copy.fd, OFFSET, LEN, POSIX_FADV_DONTNEED);
		FOR_EACH_FAILURE("reading what is swapped through a mapping",
				 BIT(EFAULT), touch(&copy, false),
				 nomem_intact(&copy) && !nomem_bad(&copy, SEED),
				 (nomem_fill(&copy, SEED),
				  posix_fadvise(copy.fd, OFFSET, LEN,
						POSIX_FADV_DONTNEED)));
	}
	EXPECT_EQ(0, nomem_bad(&copy, SEED));
	dmm_mem_free(&copy);
}

static int splice_pages(int pipe, const struct dmm_mem *mem)
{
	struct iovec iov = { .iov_base = mem->hva + OFFSET, .iov_len = LEN };
	ssize_t n = vmsplice(pipe, &iov, 1, 0);

	if (n < 0)
		return -errno;
	return n == LEN ? 0 : -ENOMEM;
}

/* Empty a pipe, which drops the references of pages. */
static void drain(int pipe)
{
	char buf[512];

	while (read(pipe, buf, sizeof(buf)) > 0)
		;
}

static int read_disk(int disk, const struct dmm_mem *mem)
{
	ssize_t n = pread(disk, mem->hva + OFFSET, LEN, 0);

	if (n < 0)
		return -errno;
	return n == LEN ? 0 : -ENOMEM;
}

/* A file and a mapping that are new, with page tables and all. */
DMM_TEST(files, populate)
{
	int pipes[2], disk;

	FOR_EACH_FAILURE("``MADV_POPULATE_READ``", BIT(ENOMEM) | BIT(EFAULT),
			 advise(&self->mem, MADV_POPULATE_READ),
			 nomem_intact(&self->mem), fresh(&self->mem));
	FOR_EACH_FAILURE("``MADV_POPULATE_WRITE``", BIT(ENOMEM) | BIT(EFAULT),
			 advise(&self->mem, MADV_POPULATE_WRITE),
			 nomem_intact(&self->mem), fresh(&self->mem));
	FOR_EACH_FAILURE("``mlock()``", BIT(ENOMEM) | BIT(EAGAIN),
			 nomem_errno(mlock(self->mem.hva + OFFSET, LEN)),
			 nomem_intact(&self->mem), fresh(&self->mem));

	ASSERT_EQ(0, pipe2(pipes, O_NONBLOCK));
	FOR_EACH_FAILURE("``vmsplice()``, which pins", BIT(ENOMEM) | BIT(EFAULT),
			 splice_pages(pipes[1], &self->mem),
			 nomem_intact(&self->mem),
			 (drain(pipes[0]), fresh(&self->mem)));
	close(pipes[0]);
	close(pipes[1]);

	disk = dmm_open_scratch();
	if (disk < 0)
		SKIP(return, "no block device for direct I/O");
	FOR_EACH_FAILURE("direct I/O into a mapping", BIT(ENOMEM) | BIT(EFAULT),
			 read_disk(disk, &self->mem), nomem_intact(&self->mem),
			 fresh(&self->mem));
	close(disk);
}

/* The end of a file needs no memory. */
DMM_TEST(files, close)
{
	nomem_fill(&self->mem, SEED);
	FOR_EACH_FAILURE("``munmap()``", BIT(ENOMEM),
			 nomem_errno(munmap(self->mem.hva, SIZE)),
			 nomem_intact(&self->mem),
			 (self->mem.hva = mmap(self->mem.hva, SIZE,
					       PROT_READ | PROT_WRITE,
					       MAP_SHARED | MAP_FIXED,
					       self->mem.fd, 0)));
	EXPECT_EQ(0, nomem_bad(&self->mem, SEED));
	dmm_mem_unmap(&self->mem);
	FOR_EACH_FAILURE("``close()``", 0, nomem_errno(close(self->mem.fd)),
			 true, (self->mem = nomem_mem(),
				 nomem_fill(&self->mem, SEED),
				 dmm_mem_unmap(&self->mem)));
}

TEST_HARNESS_MAIN
