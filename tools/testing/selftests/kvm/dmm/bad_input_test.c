// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bad input gets a clear error, loses nothing and leaks nothing.
 */
#include <ftw.h>
#include <limits.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(bad) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(bad)
{
	self->mem = dmm_mem_create(SIZE);
	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
}

/* Whatever was tried, memory and its accounting are as they were. */
FIXTURE_TEARDOWN(bad)
{
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "resident_bytes"));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "max_bytes"));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "min_bytes"));
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
}

#define EXPECT_ERRNO(err, call) do {		\
	errno = 0;				\
	EXPECT_EQ(-1L, (long)(call));		\
	EXPECT_EQ(err, errno);			\
	errno = 0;				\
} while (0)

DMM_TEST(bad, mmap)
{
	const int rw = PROT_READ | PROT_WRITE;
	int fd = self->mem.fd;

	EXPECT_ERRNO(EINVAL, mmap(NULL, SIZE, rw, MAP_PRIVATE, fd, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, SIZE + 1, rw, MAP_SHARED, fd, 0));
	EXPECT_ERRNO(EINVAL, mmap(NULL, SIZE, rw, MAP_SHARED, fd, DMM_PAGE));
	EXPECT_ERRNO(EINVAL, mmap(NULL, DMM_PAGE, rw, MAP_SHARED, fd, SIZE));
	EXPECT_ERRNO(EINVAL, mmap(NULL, DMM_PAGE, rw, MAP_SHARED, fd, 100));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, DMM_PAGE, rw, MAP_SHARED, fd,
				   LONG_MAX & ~(DMM_PAGE - 1)));
	errno = 0;
}

DMM_TEST(bad, mapping_outlives_size)
{
	struct dmm_mem mem = dmm_mem_create(SIZE);
	pid_t pid;
	int status;

	dmm_fill(mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, ftruncate(mem.fd, SIZE / 2));
	EXPECT_EQ(0, dmm_bad_pages(mem.hva, 0, PAGES / 2, 1));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(*(volatile char *)(mem.hva + SIZE / 2));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	dmm_mem_free(&mem);
}

DMM_TEST(bad, size)
{
	char c = 'x';
	struct dmm_mem mem = dmm_mem_create(SIZE);

	EXPECT_ERRNO(EINVAL, ftruncate(mem.fd, -1));
	EXPECT_ERRNO(EINVAL, ftruncate(mem.fd, LONG_MIN));
	/* Absurd sizes: either refused, or harmless as long as unused. */
	if (!ftruncate(mem.fd, LONG_MAX)) {
		struct stat st;

		ASSERT_EQ(0, fstat(mem.fd, &st));
		EXPECT_EQ(LONG_MAX, st.st_size);
		ASSERT_EQ(1, pwrite(mem.fd, "x", 1, LONG_MAX - 10));
		EXPECT_EQ(DMM_PAGE, dmm_pool_get(mem.ino, "resident_bytes"));
		ASSERT_EQ(0, fallocate(mem.fd, PUNCH, SIZE, LONG_MAX - SIZE));
		ASSERT_EQ(1, pread(mem.fd, &c, 1, LONG_MAX - 10));
		EXPECT_EQ(0, c);
		/* A part of the last page. */
		ASSERT_EQ(1, pwrite(mem.fd, "x", 1, LONG_MAX - 4000));
		ASSERT_EQ(1, pwrite(mem.fd, "y", 1, LONG_MAX - 60));
		ASSERT_EQ(0, fallocate(mem.fd, PUNCH, LONG_MAX - 100, 50));
		ASSERT_EQ(1, pread(mem.fd, &c, 1, LONG_MAX - 4000));
		EXPECT_EQ('x', c);
		ASSERT_EQ(1, pread(mem.fd, &c, 1, LONG_MAX - 60));
		EXPECT_EQ(0, c);
		EXPECT_EQ(LONG_MAX, lseek(mem.fd, LONG_MAX - 10, SEEK_HOLE));
		ASSERT_EQ(0, ftruncate(mem.fd, SIZE));
	}
	EXPECT_EQ(0, dmm_pool_get(mem.ino, "resident_bytes"));
	ASSERT_EQ(0, ftruncate(mem.fd, SIZE));
	EXPECT_EQ(0, dmm_nonzero_pages(mem.hva, PAGES));
	dmm_mem_free(&mem);
}

DMM_TEST(bad, fallocate)
{
	const off_t max = LONG_MAX;
	int fd = self->mem.fd;

	EXPECT_ERRNO(EINVAL, fallocate(fd, 0, 0, 0));
	EXPECT_ERRNO(EINVAL, fallocate(fd, 0, -1, DMM_PAGE));
	EXPECT_ERRNO(EINVAL, fallocate(fd, PUNCH, 0, -1));
	EXPECT_ERRNO(EINVAL, fallocate(fd, PUNCH, -DMM_PAGE, DMM_PAGE));
	EXPECT_ERRNO(EFBIG, fallocate(fd, 0, max, DMM_PAGE));
	EXPECT_ERRNO(EFBIG, fallocate(fd, PUNCH, max - 10, DMM_PAGE));
	EXPECT_ERRNO(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, SIZE));
	EXPECT_ERRNO(EOPNOTSUPP,
		     fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, DMM_PAGE));
	EXPECT_ERRNO(EOPNOTSUPP,
		     fallocate(fd, FALLOC_FL_INSERT_RANGE, 0, DMM_PAGE));
	EXPECT_ERRNO(EOPNOTSUPP, fallocate(fd, 0x4000, 0, DMM_PAGE));

	/* More than any host has: the file is as large as before. */
	EXPECT_ERRNO(ENOMEM, fallocate(fd, 0, 0, 1UL << 50));
	EXPECT_EQ(SIZE, lseek(fd, 0, SEEK_END));

	/* To the very end of what an offset can be: nothing is there. */
	EXPECT_EQ(0, fallocate(fd, PUNCH, SIZE, max - SIZE));
	EXPECT_EQ(SIZE, lseek(fd, 0, SEEK_END));
}

DMM_TEST(bad, io)
{
	char *buf = malloc(DMM_PAGE);
	/* Volatile, or the compiler warns of what is the point. */
	void * volatile bad = (void *)16;

	ASSERT_NE(NULL, buf);
	EXPECT_ERRNO(EINVAL, pread(self->mem.fd, buf, 1, -1));
	EXPECT_ERRNO(EINVAL, pwrite(self->mem.fd, buf, 1, -1));
	EXPECT_ERRNO(EFAULT, pread(self->mem.fd, bad, DMM_PAGE, 0));
	EXPECT_ERRNO(EFAULT, pwrite(self->mem.fd, bad, DMM_PAGE, 0));
	/* Of which nothing stays. */
	EXPECT_ERRNO(EFAULT, pwrite(self->mem.fd, bad, DMM_PAGE, 4 * SIZE));
	EXPECT_EQ(SIZE, lseek(self->mem.fd, 0, SEEK_END));
	EXPECT_ERRNO(EINVAL, lseek(self->mem.fd, -1, SEEK_SET));
	EXPECT_ERRNO(EINVAL, lseek(self->mem.fd, 0, 77));

	/* Onto itself: source and target are the same pages. */
	EXPECT_EQ(DMM_PAGE, pwrite(self->mem.fd, self->mem.hva, DMM_PAGE, 0));
	EXPECT_EQ(DMM_PAGE, pread(self->mem.fd, self->mem.hva, DMM_PAGE, 0));
}

DMM_TEST(bad, slot_ranges)
{
	const uint64_t gpa = DMM_GPA + (1UL << 30);
	void *hva = self->mem.hva, *area, *anon;
	struct dmm_mem other = dmm_mem_create(SIZE);
	struct dmm_guest *guest = self->guest;

	/* Two files, back to back. */
	area = mmap(NULL, 3 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	ASSERT_NE(MAP_FAILED, area);
	ASSERT_EQ(area, mmap(area, SIZE, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED, self->mem.fd, 0));
	ASSERT_EQ(area + SIZE, mmap(area + SIZE, SIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_FIXED, other.fd, 0));
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, 2 * SIZE, area));

	/* A file and a hole; a file and anonymous memory, in either order. */
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, 2 * SIZE,
					      area + SIZE));
	anon = mmap(area + 2 * SIZE, SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_NE(MAP_FAILED, anon);
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, 2 * SIZE,
					      area + SIZE));
	ASSERT_EQ(area, mmap(area, SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, 2 * SIZE, area));

	/* The same file, but not one range of it. */
	ASSERT_EQ(area, mmap(area, SIZE, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED, self->mem.fd, 0));
	ASSERT_EQ(area + SIZE, mmap(area + SIZE, SIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_FIXED, self->mem.fd, 0));
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, 2 * SIZE, area));

	/* One range of it, in two mappings: that is fine. */
	ASSERT_EQ(area, mmap(area, SIZE / 2, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED, self->mem.fd, 0));
	ASSERT_EQ(area + SIZE / 2,
		  mmap(area + SIZE / 2, SIZE / 2, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED, self->mem.fd, SIZE / 2));
	EXPECT_EQ(0, dmm_guest_try_slot(guest, 20, 0, gpa, SIZE, area));
	dmm_guest_del_slot(guest, 20);

	/* Half a page. */
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, DMM_PAGE,
					      hva + 100));
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, 100, hva));

	/* Over the end of the file. */
	ASSERT_EQ(0, ftruncate(other.fd, SIZE / 2));
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, SIZE, other.hva));
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, DMM_PAGE,
					      other.hva + SIZE / 2));
	EXPECT_EQ(0, dmm_guest_try_slot(guest, 20, 0, gpa, SIZE / 2, other.hva));

	/* A slot can't be turned into one of another size or another place. */
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, SIZE / 4,
					      other.hva));
	EXPECT_EQ(-EINVAL, dmm_guest_try_slot(guest, 20, 0, gpa, SIZE / 2, hva));
	EXPECT_EQ(-EEXIST, dmm_guest_try_slot(guest, 21, 0, DMM_GPA, SIZE, hva));
	dmm_guest_del_slot(guest, 20);

	munmap(area, 3 * SIZE);
	dmm_mem_free(&other);
	EXPECT_TRUE(dmm_pool_gone(other.ino));
}

static const char * const bad_sizes[] = {
	"x", " 1", "1 ", "-1", "+1", "1.5", "0x1000", "1T", "1KB", "K", "1 M",
	"min", "1\n\n", "99999999999999999999", "18446744073709551615",
	"18446744073709551616", "9007199254740992G", "\xff", "1\n1",
};

DMM_TEST(bad, sysfs_sizes)
{
	static const char * const files[] = {
		"max_bytes", "min_bytes", "reclaim",
	};
	char *big = malloc(8192);
	unsigned int f, i;
	int r;

	ASSERT_NE(NULL, big);
	memset(big, '1', 8191);
	big[8191] = 0;

	for (f = 0; f < ARRAY_SIZE(files); f++) {
		for (i = 0; i < ARRAY_SIZE(bad_sizes); i++) {
			r = dmm_pool_set(self->mem.ino, files[f], bad_sizes[i]);
			EXPECT_TRUE(r == -EINVAL || r == -ERANGE) {
				TH_LOG("%s: '%s' gave %d", files[f],
				       bad_sizes[i], r);
			}
		}
		r = dmm_pool_set(self->mem.ino, files[f], big);
		EXPECT_TRUE(r < 0);
		EXPECT_NE(0, dmm_pool_set(self->mem.ino, files[f], "\n"));
	}
	EXPECT_EQ(-EINVAL, dmm_pool_set(self->mem.ino, "min_bytes", "max"));
	EXPECT_EQ(-EBUSY, dmm_pool_set(self->mem.ino, "max_bytes", "0"));
	EXPECT_EQ(-EAGAIN, dmm_pool_set(self->mem.ino, "reclaim", "4K"));
	EXPECT_EQ(0, dmm_pool_set(self->mem.ino, "reclaim", "0"));
}

DMM_TEST(bad, sysfs_readonly_files)
{
	static const char * const files[] = {
		"name", "size_bytes", "resident_bytes", "shared_bytes",
		"swapped_bytes", "pinned_bytes", "huge_bytes", "stats/fault",
	};
	unsigned int i;
	char *path;
	struct stat st;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		path = dmm_pool_path(self->mem.ino, files[i]);
		ASSERT_EQ(0, stat(path, &st)) {
			TH_LOG("%s", path);
		}
		EXPECT_EQ(0444, st.st_mode & 0777);
		EXPECT_NE(0, dmm_pool_set(self->mem.ino, files[i], "1"));
	}
}

DMM_TEST(bad, domain)
{
	char buf[64], *names[] = {
		"a b", "a/b", "..", "\xff",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		EXPECT_EQ(-EINVAL,
			  dmm_pool_set(self->mem.ino, "domain", names[i])) {
			TH_LOG("domain '%s'", names[i]);
		}
	}
	dmm_pool_read(self->mem.ino, "domain", buf, sizeof(buf));
	EXPECT_STREQ("\n", buf);
	EXPECT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "blue"));
	dmm_pool_read(self->mem.ino, "domain", buf, sizeof(buf));
	EXPECT_STREQ("blue\n", buf);
}

DMM_TEST(bad, default_policies)
{
	static const char file[] = "/sys/kernel/kvm_dmm/default_policies";
	static const char * const lists[] = {
		"nonsense", "demand nonsense", "demand demand", "demand:demand",
		"+demand", "demand,", "\xff",
	};
	char buf[64] = {};
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		int r = dmm_write_file(file, lists[i], strlen(lists[i]));

		EXPECT_TRUE(r == -EINVAL || r == -ENOENT || r == -EEXIST) {
			TH_LOG("'%s': %d", lists[i], r);
		}
		/* Whatever was taken must not hurt the tests that follow. */
		if (!r)
			dmm_write_file(file, "demand", 6);
	}
	fd = open(file, O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_LT(0, read(fd, buf, sizeof(buf) - 1));
	EXPECT_STREQ("demand\n", buf);
	close(fd);
}

DMM_TEST(bad, mount_options)
{
	static const struct {
		const char *options;
		int err;
	} bad[] = {
		{ "nonsense", EINVAL },
		{ "policies=nonsense", ENOENT },
		{ "policies=demand:nonsense", ENOENT },
		{ "policies", EINVAL },
		{ "domain=a/b", EINVAL },
		{ "domain", EINVAL },
		{ "mode=9", EINVAL },
		{ "mode=77777", EINVAL },
		{ "uid=-1", EINVAL },
		{ "uid=me", EINVAL },
		{ "size=1G", EINVAL },
	};
	char dir[] = "/tmp/dmm-bad-XXXXXX";
	unsigned int i;
	int r;

	ASSERT_NE(NULL, mkdtemp(dir));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		r = mount("dmmfs", dir, "dmmfs", 0, bad[i].options);
		EXPECT_EQ(-1, r) {
			TH_LOG("'%s' was taken", bad[i].options);
		}
		if (!r) {
			umount(dir);
			continue;
		}
		EXPECT_EQ(bad[i].err, errno) {
			TH_LOG("'%s'", bad[i].options);
		}
	}
	rmdir(dir);
}

/* What a file system of memory doesn't have. */
DMM_TEST(bad, file_types)
{
	char *path = strdup_printf("%s/bad-input-%d", dmm_dir(), getpid());
	char *new = strdup_printf("%s/no/such/dir", dmm_dir());
	int fd, other;

	EXPECT_ERRNO(ENOENT, open(path, O_RDWR));
	EXPECT_ERRNO(ENOENT, open(new, O_RDWR | O_CREAT, 0600));
	EXPECT_ERRNO(ENOENT, unlink(path));
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	ASSERT_GE(fd, 0);
	EXPECT_ERRNO(EEXIST, open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
	EXPECT_ERRNO(ENOENT, rename(path, new));
	EXPECT_ERRNO(ENOTTY, ioctl(fd, 0x1234, 0));
	/* There is no other type of file, and no second name. */
	sprintf(new, "%s/bad-other", dmm_dir());
	EXPECT_ERRNO(EPERM, link(path, new));
	EXPECT_ERRNO(EPERM, symlink(path, new));
	EXPECT_ERRNO(EPERM, mknod(new, S_IFIFO | 0600, 0));
	EXPECT_ERRNO(EPERM, mknod(new, S_IFCHR | 0600, makedev(1, 3)));
	other = open(new, O_RDWR | O_CREAT | O_EXCL, 0600);
	ASSERT_GE(other, 0);
	EXPECT_ERRNO(EINVAL, renameat2(AT_FDCWD, path, AT_FDCWD, new, RENAME_EXCHANGE));
	EXPECT_ERRNO(EINVAL, renameat2(AT_FDCWD, path, AT_FDCWD, new, RENAME_WHITEOUT));
	EXPECT_ERRNO(EEXIST, renameat2(AT_FDCWD, path, AT_FDCWD, new, RENAME_NOREPLACE));
	EXPECT_ERRNO(EINVAL, open(new, O_RDWR | O_DIRECT));
	EXPECT_EQ(0, unlink(new));
	close(other);
	EXPECT_EQ(0, unlink(path));
	close(fd);
}

DMM_TEST(bad, advice)
{
	char path[64];
	int fd;

	sprintf(path, "/proc/self/fd/%d", self->mem.fd);
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(EPERM, posix_fadvise(fd, 0, DMM_PAGE, POSIX_FADV_DONTNEED));
	EXPECT_EQ(0, posix_fadvise(fd, 0, DMM_PAGE, POSIX_FADV_WILLNEED));
	EXPECT_EQ(EINVAL, posix_fadvise(self->mem.fd, 0, DMM_PAGE, 77));
	EXPECT_EQ(EINVAL, posix_fadvise(self->mem.fd, 0, -1, POSIX_FADV_WILLNEED));
	/* Behind the end there is nothing to do, but what is wrong is wrong. */
	EXPECT_EQ(0, posix_fadvise(self->mem.fd, 1UL << 40, 0, POSIX_FADV_DONTNEED));
	EXPECT_EQ(EINVAL, posix_fadvise(self->mem.fd, 1UL << 40, 0, 77));
	EXPECT_EQ(EPERM, posix_fadvise(fd, 1UL << 40, 0, POSIX_FADV_DONTNEED));
	close(fd);
}

static unsigned int wrong_mode, wrong_answer;

/* Have a file of a pool opened in the way that it is not meant to be. */
static int open_against_mode(const char *path, const struct stat *st, int type,
			     struct FTW *ftw)
{
	bool writable = st->st_mode & 0200, readable = st->st_mode & 0400;
	char c;
	int fd;

	if (type != FTW_F || (writable && readable))
		return 0;
	TEST_ASSERT(!chmod(path, 0600), "chmod(%s)", path);
	fd = open(path, O_RDWR);
	TEST_ASSERT(fd >= 0, "open(%s)", path);
	errno = 0;
	if ((writable ? read(fd, &c, 1) : write(fd, "default", 7)) != -1 || errno != EIO) {
		ksft_print_msg("%s: errno %d\n", path, errno);
		wrong_answer++;
	}
	wrong_mode++;
	close(fd);
	TEST_ASSERT(!chmod(path, st->st_mode & 0777), "chmod(%s)", path);
	return 0;
}

/* Pools are handed to users by chown, and who owns a file can change its mode. */
DMM_TEST(bad, mode_of_files)
{
	char *path = dmm_pool_path(self->mem.ino, "");

	wrong_mode = 0;
	wrong_answer = 0;
	/* Counters, and files that can only be written to. */
	if (dmm_policy_loaded("swap"))
		ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+swap"));
	ASSERT_EQ(0, nftw(path, open_against_mode, 8, FTW_PHYS));
	EXPECT_LT(10, wrong_mode);
	EXPECT_EQ(0, wrong_answer);
	free(path);
}

TEST_HARNESS_MAIN
