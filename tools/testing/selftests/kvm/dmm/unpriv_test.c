// SPDX-License-Identifier: GPL-2.0-only
/*
 * A user without privileges gets what its files' permissions say, no more.
 */
#include <dirent.h>
#include <grp.h>
#include <signal.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(2UL << 20)
#define NOBODY	65534

FIXTURE(unpriv) {
	struct dmm_mem mem;
	char *path;
	char *sysfs;
};

/* A file of root's that nobody else may touch; then become somebody else. */
FIXTURE_SETUP(unpriv)
{
	struct stat st;

	if (geteuid())
		SKIP(return, "needs root to begin with");

	self->path = strdup_printf("%s/unpriv-%d", dmm_dir(), getpid());
	self->mem.fd = open(self->path, O_RDWR | O_CREAT | O_EXCL, 0600);
	ASSERT_GE(self->mem.fd, 0);
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	ASSERT_EQ(0, fstat(self->mem.fd, &st));
	self->mem.ino = st.st_ino;
	self->mem.size = SIZE;

	ASSERT_EQ(0, setgroups(0, NULL));
	ASSERT_EQ(0, setresgid(NOBODY, NOBODY, 0));
	ASSERT_EQ(0, setresuid(NOBODY, NOBODY, 0));
}

FIXTURE_TEARDOWN(unpriv)
{
	EXPECT_EQ(0, setresuid(0, 0, 0));
	EXPECT_EQ(0, setresgid(0, 0, 0));
	EXPECT_EQ(0, unlink(self->path));
	close(self->mem.fd);
}

#define EXPECT_ERRNO(err, call) do {		\
	errno = 0;				\
	EXPECT_EQ(-1L, (long)(call));		\
	EXPECT_EQ(err, errno);			\
	errno = 0;				\
} while (0)

DMM_TEST(unpriv, others_files)
{
	char *new = strdup_printf("%s-renamed", self->path);

	EXPECT_ERRNO(EACCES, open(self->path, O_RDWR));
	EXPECT_ERRNO(EACCES, open(self->path, O_RDONLY));
	EXPECT_ERRNO(EACCES, truncate(self->path, 0));
	EXPECT_ERRNO(EPERM, chmod(self->path, 0666));
	EXPECT_ERRNO(EPERM, chown(self->path, NOBODY, NOBODY));
	EXPECT_EQ(-1, unlink(self->path));
	EXPECT_TRUE(errno == EACCES || errno == EPERM);
	EXPECT_EQ(-1, rename(self->path, new));
	EXPECT_TRUE(errno == EACCES || errno == EPERM);
	errno = 0;
}

/* A pool's files in sysfs are root's to write. */
DMM_TEST(unpriv, sysfs)
{
	static const struct {
		const char *file, *value;
	} files[] = {
		{ "max_bytes", "max" },
		{ "min_bytes", "0" },
		{ "policies", "-demand" },
		{ "reclaim", "1M" },
		{ "domain", "blue" },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		EXPECT_EQ(-EACCES, dmm_pool_set(self->mem.ino, files[i].file,
						files[i].value)) {
			TH_LOG("%s", files[i].file);
		}
	}
	EXPECT_EQ(-EACCES,
		  dmm_write_file("/sys/kernel/kvm_dmm/default_policies",
				 "demand", 6));
	errno = 0;
	EXPECT_TRUE(dmm_has_policy(self->mem.ino, "demand"));
}

/* Nothing anywhere below kvm_dmm may be written by everybody. */
static int world_writable(const char *dir)
{
	struct dirent *entry;
	struct stat st;
	char *path;
	int n = 0;
	DIR *d;

	d = opendir(dir);
	/* Where nobody gets in, or what has gone, there is none. */
	if (!d)
		return errno != EACCES && errno != ENOENT;
	while ((entry = readdir(d))) {
		if (entry->d_name[0] == '.')
			continue;
		path = strdup_printf("%s/%s", dir, entry->d_name);
		if (!lstat(path, &st)) {
			if (S_ISREG(st.st_mode) &&
			    ((st.st_mode & 0022) || !access(path, W_OK))) {
				printf("# %s may be written\n", path);
				n++;
			}
			if (S_ISDIR(st.st_mode))
				n += world_writable(path);
		}
		free(path);
	}
	closedir(d);
	return n;
}

DMM_TEST(unpriv, no_file_is_world_writable)
{
	EXPECT_EQ(0, access("/sys/kernel/kvm_dmm/pools", F_OK));
	EXPECT_TRUE(!access("/sys/kernel/debug/kvm_dmm", F_OK) || errno == EACCES);
	EXPECT_EQ(0, world_writable("/sys/kernel/kvm_dmm"));
	EXPECT_EQ(0, world_writable("/sys/kernel/debug/kvm_dmm"));
	errno = 0;
}

DMM_TEST(unpriv, mount)
{
	char dir[] = "/tmp/dmm-unpriv-XXXXXX";

	ASSERT_NE(NULL, mkdtemp(dir));
	EXPECT_ERRNO(EPERM, mount("dmmfs", dir, "dmmfs", 0, NULL));
	EXPECT_ERRNO(EPERM, umount(dmm_dir()));
	rmdir(dir);
}

/* Whoever may not mount has no modules loaded for its options either. */
static int option_errno(void)
{
	int fd;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return 0;
	fd = syscall(__NR_fsopen, "dmmfs", 0);
	if (fd < 0)
		return errno;
	return syscall(__NR_fsconfig, fd, 1 /* FSCONFIG_SET_STRING */, "policies",
		       "no-such-policy", 0) ? errno : 255;
}

DMM_TEST(unpriv, policies_option)
{
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(option_errno());
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	if (!WEXITSTATUS(status))
		SKIP(return, "no user namespaces");
	EXPECT_EQ(EPERM, WEXITSTATUS(status));
}

/* In a mount that is open to it, a user works with files of its own. */
DMM_TEST(unpriv, own_files)
{
	char dir[] = "/tmp/dmm-own-XXXXXX", *path;
	struct dmm_guest *guest;
	struct stat st, own;
	void *hva;
	int fd;

	ASSERT_EQ(0, seteuid(0));
	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, chmod(dir, 0755));
	ASSERT_EQ(0, mount("dmmfs", dir, "dmmfs", 0, "mode=1777"));
	ASSERT_EQ(0, stat("/dev/kvm", &st));
	ASSERT_EQ(0, chmod("/dev/kvm", 0666));
	ASSERT_EQ(0, seteuid(NOBODY));

	path = strdup_printf("%s/mine", dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	hva = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, hva);
	guest = dmm_guest_create(1);
	dmm_guest_map(guest, DMM_GPA, SIZE);
	dmm_guest_add_slot(guest, DMM_SLOT, 0, DMM_GPA, SIZE, hva);
	dmm_guest_fill(guest, DMM_GPA, SIZE / DMM_PAGE, 1);
	EXPECT_EQ(0, dmm_bad_pages(hva, 0, SIZE / DMM_PAGE, 1));
	dmm_guest_free(guest);
	/* Who writes to a file takes its set-user-ID bit. */
	ASSERT_EQ(0, fchmod(fd, 04755));
	ASSERT_EQ(1, pwrite(fd, "x", 1, 0));
	ASSERT_EQ(0, fstat(fd, &own));
	EXPECT_EQ(0755, own.st_mode & 07777);
	ASSERT_EQ(0, fchmod(fd, 04755));
	ASSERT_EQ(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			       DMM_PAGE));
	ASSERT_EQ(0, fstat(fd, &own));
	EXPECT_EQ(0755, own.st_mode & 07777);
	ASSERT_EQ(0, unlink(path));
	munmap(hva, SIZE);
	close(fd);

	ASSERT_EQ(0, seteuid(0));
	EXPECT_EQ(0, chmod("/dev/kvm", st.st_mode & 07777));
	EXPECT_EQ(0, umount(dir));
	rmdir(dir);
	ASSERT_EQ(0, seteuid(NOBODY));
}

/* RLIMIT_FSIZE holds here, too. */
DMM_TEST(unpriv, limits)
{
	struct rlimit limit = { SIZE / 2, SIZE / 2 };
	struct stat st;

	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
	EXPECT_ERRNO(EFBIG, ftruncate(self->mem.fd, SIZE + DMM_PAGE));
	EXPECT_ERRNO(EFBIG, fallocate(self->mem.fd, 0, 0, SIZE + DMM_PAGE));
	ASSERT_EQ(0, fstat(self->mem.fd, &st));
	EXPECT_EQ(SIZE, st.st_size);
}

TEST_HARNESS_MAIN
