// SPDX-License-Identifier: GPL-2.0-only
/*
 * Policies are attached to and detached from running VMs.
 */
#include <mntent.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(4UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define DEFAULTS	"/sys/kernel/kvm_dmm/default_policies"

FIXTURE(policy) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
};

FIXTURE_SETUP(policy)
{
	self->mem = dmm_mem_create(SIZE);
	self->guest = dmm_guest_create(1);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(policy)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
}

DMM_TEST(policy, default_is_demand)
{
	char buf[64] = {};
	int fd = open(DEFAULTS, O_RDONLY);

	ASSERT_GE(fd, 0);
	ASSERT_LT(0, read(fd, buf, sizeof(buf) - 1));
	close(fd);
	EXPECT_STREQ("demand\n", buf);
	dmm_pool_read(self->mem.ino, "policies", buf, sizeof(buf));
	EXPECT_STREQ("demand\n", buf);
}

DMM_TEST(policy, attach_and_detach)
{
	unsigned long ino = self->mem.ino;

	EXPECT_EQ(-EEXIST, dmm_pool_set(ino, "policies", "+demand"));
	EXPECT_EQ(0, dmm_pool_set(ino, "policies", "-demand"));
	EXPECT_EQ(-ENOENT, dmm_pool_set(ino, "policies", "-demand"));
	EXPECT_EQ(0, dmm_pool_set(ino, "policies", "+demand\n"));
	EXPECT_EQ(-ENOENT, dmm_pool_set(ino, "policies", "+nonsense"));
	EXPECT_EQ(-ENOENT, dmm_pool_set(ino, "policies", "-nonsense"));
	/* The longest name that there can be: 31 characters. */
	EXPECT_EQ(-ENOENT, dmm_pool_set(ino, "policies",
					"+nonsense-with-as-many-letters-0\n"));
	EXPECT_EQ(-EINVAL, dmm_pool_set(ino, "policies",
					"+nonsense-with-as-many-letters-01"));
	EXPECT_TRUE(dmm_has_policy(ino, "demand"));
}

/* The order of attachment is what the file shows. */
DMM_TEST(policy, order)
{
	unsigned long ino = self->mem.ino;
	char buf[128];

	if (!dmm_policy_loaded("test-token") || !dmm_policy_loaded("test-share"))
		SKIP(return, "no test policies");

	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-share"));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	dmm_pool_read(ino, "policies", buf, sizeof(buf));
	EXPECT_STREQ("demand test-share test-token\n", buf);
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-test-share"));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-share"));
	dmm_pool_read(ino, "policies", buf, sizeof(buf));
	EXPECT_STREQ("demand test-token test-share\n", buf);
}

/* A policy's own files come and go with it. */
DMM_TEST(policy, tunables)
{
	char *path = dmm_pool_path(self->mem.ino, "test-share/merge");

	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no test policies");

	EXPECT_EQ(-1, access(path, F_OK));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-share"));
	EXPECT_EQ(0, access(path, F_OK));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-test-share"));
	EXPECT_EQ(-1, access(path, F_OK));
}

/* A pool's number follows the one for all pools until it has its own. */
DMM_TEST(policy, numbers)
{
	static const char all[] = "/sys/kernel/kvm_dmm/policies/test-token/fail_fill";
	unsigned long ino = self->mem.ino;
	static const struct {
		const char *text;
		int r;
	} bad[] = {
		{ "x", -EINVAL }, { "-1", -EINVAL }, { "+1", -EINVAL },
		{ "1 1", -EINVAL }, { "1K", -EINVAL }, { "\n", -EINVAL },
		{ "defaults", -EINVAL }, { "4096", -ERANGE },
		{ "18446744073709551616", -ERANGE },
	};
	unsigned int i;
	char buf[64];

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no test policies");

	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_write_file(all, "5", strlen("5")));
	dmm_pool_read(ino, "test-token/fail_fill", buf, sizeof(buf));
	EXPECT_STREQ("5\n", buf);
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fill", "7"));
	ASSERT_EQ(0, dmm_write_file(all, "6", strlen("6")));
	dmm_pool_read(ino, "test-token/fail_fill", buf, sizeof(buf));
	EXPECT_STREQ("7\n", buf);

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(bad[i].r, dmm_pool_set(ino, "test-token/fail_fill",
						 bad[i].text)) {
			TH_LOG("'%s'", bad[i].text);
		}
	}
	dmm_pool_read(ino, "test-token/fail_fill", buf, sizeof(buf));
	EXPECT_STREQ("7\n", buf);

	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_fill", "default"));
	dmm_pool_read(ino, "test-token/fail_fill", buf, sizeof(buf));
	EXPECT_STREQ("6\n", buf);
	ASSERT_EQ(0, dmm_write_file(all, "default", strlen("default")));
	dmm_pool_read(ino, "test-token/fail_fill", buf, sizeof(buf));
	EXPECT_STREQ("0\n", buf);
}

static const char * const junk[] = {
	"", "\n", "demand", "+", "-", "+ demand", "+demand ", "++demand", "+\n",
	"+demand demand", "+DEMAND", "+../demand", "+demand/", "*demand",
	"+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	"+demand\n\n", "+\xff",
};

DMM_TEST(policy, junk)
{
	unsigned int i;
	char buf[64];
	int r;

	for (i = 0; i < ARRAY_SIZE(junk); i++) {
		/* An empty write never gets to the kernel's parser. */
		if (!*junk[i])
			continue;
		r = dmm_pool_set(self->mem.ino, "policies", junk[i]);
		EXPECT_EQ(-EINVAL, r) {
			TH_LOG("junk: '%s'", junk[i]);
		}
	}
	dmm_pool_read(self->mem.ino, "policies", buf, sizeof(buf));
	EXPECT_STREQ("demand\n", buf);
}

/* Attach and detach all the time, under a guest that counts. */
DMM_TEST(policy, change_under_load)
{
	unsigned long ino = self->mem.ino;
	int i;

	if (!dmm_policy_loaded("test-token") || !dmm_policy_loaded("test-share"))
		SKIP(return, "no test policies");

	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, 256, 0);
	for (i = 0; i < 40; i++) {
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
		dmm_pool_set_bytes(ino, "reclaim", SIZE / 4);
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-share"));
		dmm_pool_set(ino, "test-share/merge", "1 2");
		dmm_pool_set_bytes(ino, "reclaim", SIZE / 4);
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-test-token"));
		EXPECT_EQ(0, dmm_pool_get(ino, "swapped_bytes"));
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-test-share"));
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "-demand"));
		ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+demand"));
	}
	EXPECT_NE(0, dmm_pool_get(ino, "stats/token"));
	EXPECT_NE(0, dmm_pool_get(ino, "stats/fetch"));
	dmm_guest_wait_rounds(self->guest, 0, 2);
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
}

/* The module of a policy in use stays. */
DMM_TEST(policy, unload_in_use)
{
	int r;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no test policies");

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	r = syscall(__NR_delete_module, "kvm_dmm_test_token", O_NONBLOCK);
	EXPECT_EQ(-1, r);
	EXPECT_TRUE(errno == EWOULDBLOCK || errno == EBUSY);
	EXPECT_TRUE(dmm_has_policy(self->mem.ino, "test-token"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
}

/* A policy that fails is thrown out, content and guest survive. */
DMM_TEST(policy, ejection)
{
	unsigned long ino = self->mem.ino;
	char *path;
	int i;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no test policies");

	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-token"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 2));
	path = dmm_pool_path(ino, "test-token/fail_reclaim");
	if (access(path, F_OK))
		SKIP(return, "test-token has no fail_reclaim");
	/* EIO */
	ASSERT_EQ(0, dmm_pool_set(ino, "test-token/fail_reclaim", "5"));
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));

	for (i = 0; i < 500 && dmm_has_policy(ino, "test-token"); i++)
		usleep(10000);
	EXPECT_FALSE(dmm_has_policy(ino, "test-token"));
	EXPECT_EQ(0, dmm_pool_get(ino, "swapped_bytes"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* Does /proc/mounts show these for a mount, after "rw,relatime"? */
static bool shows_options(const char *dir, const char *options)
{
	FILE *f = setmntent("/proc/mounts", "r");
	struct mntent *m;
	bool shows = false;

	while (f && (m = getmntent(f)))
		if (!strcmp(m->mnt_dir, dir))
			shows = strstr(m->mnt_opts, options);
	if (f)
		endmntent(f);
	return shows;
}

/* Mount options say what new files get. */
DMM_TEST(policy, mount_options)
{
	static const char * const others[] = {
		"policies=", "domain=red", "mode=0755", "uid=0", "gid=0",
	};
	char dir[] = "/tmp/dmm-mount-XXXXXX", buf[128], *path, *other;
	struct stat st, st2;
	unsigned int i;
	int fd, fd2;

	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, mount("dmmfs", dir, "dmmfs", 0,
			   "policies=demand,domain=blue,mode=0750,uid=12,gid=34"));
	ASSERT_EQ(0, stat(dir, &st));
	EXPECT_EQ(0750, st.st_mode & 07777);
	EXPECT_EQ(12, st.st_uid);
	EXPECT_EQ(34, st.st_gid);
	EXPECT_TRUE(shows_options(dir, "policies=demand,domain=blue,uid=12,gid=34,mode=0750"));
	path = strdup_printf("%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT, 0640);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(0640, st.st_mode & 0777);
	dmm_pool_read(st.st_ino, "policies", buf, sizeof(buf));
	EXPECT_STREQ("demand\n", buf);
	dmm_pool_read(st.st_ino, "domain", buf, sizeof(buf));
	EXPECT_STREQ("blue\n", buf);
	dmm_pool_read(st.st_ino, "name", buf, sizeof(buf));
	EXPECT_STREQ("file\n", buf);
	/* One line, whoever made the name. */
	other = strdup_printf("%s/a\nb \\ c", dir);
	ASSERT_EQ(0, rename(path, other));
	dmm_pool_read(st.st_ino, "name", buf, sizeof(buf));
	EXPECT_STREQ("a\\nb \\\\ c\n", buf);
	ASSERT_EQ(0, rename(other, path));

	/* Options stay: who names others is told so, who names none means those. */
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		EXPECT_EQ(-1, mount("dmmfs", dir, "dmmfs", MS_REMOUNT,
				    others[i]));
		EXPECT_EQ(EINVAL, errno) {
			TH_LOG("%s", others[i]);
		}
	}

	/* In use, it can't be unmounted. */
	EXPECT_EQ(-1, umount(dir));
	EXPECT_EQ(EBUSY, errno);
	close(fd);
	ASSERT_EQ(0, mount("dmmfs", dir, "dmmfs", MS_REMOUNT | MS_RDONLY, NULL));
	EXPECT_EQ(-1, open(other, O_RDWR | O_CREAT, 0640));
	EXPECT_EQ(EROFS, errno);
	ASSERT_EQ(0, mount("dmmfs", dir, "dmmfs", MS_REMOUNT, "gid=34"));
	fd2 = open(other, O_RDWR | O_CREAT, 0640);
	EXPECT_LE(0, fd2);
	close(fd2);
	dmm_pool_read(st.st_ino, "domain", buf, sizeof(buf));
	EXPECT_STREQ("blue\n", buf);
	ASSERT_EQ(0, stat(dir, &st2));
	EXPECT_EQ(0750, st2.st_mode & 07777);
	EXPECT_EQ(12, st2.st_uid);

	/* A file with a name outlives its users, until the file system goes. */
	EXPECT_TRUE(dmm_pool_exists(st.st_ino));
	ASSERT_EQ(0, umount(dir));
	EXPECT_TRUE(dmm_pool_gone(st.st_ino));
	rmdir(dir);
}

TEST_HARNESS_MAIN
