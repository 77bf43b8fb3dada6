// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory comes out of an image when it is touched, or in the background.
 */
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "dmm_util.h"
#include "userfaultfd_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(restore) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
	char dir[64];
	char image[96];
	char order[96];
	int fd;
};

/* Make all of the image that of @seed. */
static void fill_image(int fd, uint64_t seed)
{
	uint64_t page[DMM_PAGE / sizeof(uint64_t)], i;

	for (i = 0; i < PAGES; i++) {
		dmm_fill(page, i, 1, seed);
		TEST_ASSERT(pwrite(fd, page, DMM_PAGE, i * DMM_PAGE) == DMM_PAGE,
			    "Cannot write an image");
	}
}

FIXTURE_SETUP(restore)
{
	if (!dmm_policy_loaded("restore"))
		SKIP(return, "no policy restore");

	sprintf(self->dir, "/tmp/restore-XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	sprintf(self->image, "%s/image", self->dir);
	sprintf(self->order, "%s/order", self->dir);
	self->fd = open(self->image, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, self->fd);
	fill_image(self->fd, 1);

	self->mem = dmm_mem_create(SIZE);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+restore"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "restore/rate_bytes", "0"));
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(restore)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
	close(self->fd);
	unlink(self->image);
	unlink(self->order);
	rmdir(self->dir);
}

static uint64_t get(FIXTURE_DATA(restore) *self, const char *file)
{
	char name[64];

	sprintf(name, "restore/%s", file);
	return dmm_pool_get(self->mem.ino, name);
}

static int set(FIXTURE_DATA(restore) *self, const char *file, const char *value)
{
	char name[64];

	sprintf(name, "restore/%s", file);
	return dmm_pool_set(self->mem.ino, name, value);
}

static int set_as_nobody(FIXTURE_DATA(restore) *self, const char *file,
			 const char *value)
{
	char name[64];

	sprintf(name, "restore/%s", file);
	return dmm_pool_set_as_nobody(self->mem.ino, name, value);
}

static uint64_t resident(FIXTURE_DATA(restore) *self)
{
	return dmm_pool_get(self->mem.ino, "resident_bytes");
}

static bool wait_remaining(FIXTURE_DATA(restore) *self, uint64_t bytes)
{
	int tries;

	for (tries = 0; tries < 6000; tries++) {
		if (get(self, "remaining_bytes") <= bytes)
			return true;
		usleep(10000);
	}
	return false;
}

/* How often the first vCPU has left the guest to have a page mapped. */
static uint64_t page_faults(struct dmm_guest *guest)
{
	int fd = vcpu_get_stats_fd(guest->cpu[0].vcpu);
	struct kvm_stats_desc *descs, *desc;
	struct kvm_stats_header header;
	uint64_t value = 0, i;

	read_stats_header(fd, &header);
	descs = read_stats_descriptors(fd, &header);
	for (i = 0; i < header.num_desc; i++) {
		desc = get_stats_descriptor(descs, i, &header);
		if (!strcmp(desc->name, "pf_taken"))
			read_stat_data(fd, &header, desc, &value, 1);
	}
	free(descs);
	close(fd);
	return value;
}

DMM_TEST(restore, guest_reads)
{
	char path[256];

	ASSERT_EQ(0, set(self, "image", self->image));
	dmm_pool_read(self->mem.ino, "restore/image", path, sizeof(path));
	EXPECT_EQ(0, strncmp(path, self->image, strlen(self->image)));
	EXPECT_EQ(SIZE, get(self, "remaining_bytes"));
	EXPECT_EQ(0, get(self, "done_bytes"));
	EXPECT_EQ(0, get(self, "percent"));
	EXPECT_EQ(0, resident(self));

	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));
	EXPECT_EQ(SIZE / 2, get(self, "remaining_bytes"));
	EXPECT_EQ(SIZE / 2, resident(self));
	EXPECT_EQ(50, get(self, "percent"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, get(self, "remaining_bytes"));
	EXPECT_EQ(SIZE, get(self, "done_bytes"));
	EXPECT_EQ(100, get(self, "percent"));
	EXPECT_EQ(PAGES, get(self, "stats/touched"));
	EXPECT_EQ(0, get(self, "stats/filled"));
	EXPECT_EQ(0, get(self, "stats/failed"));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "shared_bytes"));

	/* The guest's memory is its own: the image is only read. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 2));
	ASSERT_EQ(0, set(self, "image", "\n"));
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
}

DMM_TEST(restore, guest_writes)
{
	uint64_t i;

	ASSERT_EQ(0, set(self, "image", self->image));
	for (i = 0; i < PAGES; i += 16)
		dmm_guest_poke(self->guest, DMM_GPA + i * DMM_PAGE + 8, 2);
	EXPECT_EQ(PAGES / 16, get(self, "stats/touched"));
	for (i = 0; i < PAGES; i += 16) {
		uint64_t page[DMM_PAGE / sizeof(uint64_t)];

		memcpy(page, self->mem.hva + i * DMM_PAGE, DMM_PAGE);
		ASSERT_EQ(2, page[1]);
		ASSERT_EQ(sizeof(page), pread(self->fd, page, sizeof(page),
					      i * DMM_PAGE));
		ASSERT_EQ(0, dmm_bad_pages(page, i, 1, 1));
		ASSERT_EQ(page[0], *(uint64_t *)(self->mem.hva + i * DMM_PAGE));
		ASSERT_EQ(page[511],
			  *(uint64_t *)(self->mem.hva + i * DMM_PAGE + 511 * 8));
	}
	EXPECT_EQ(PAGES / 16,
		  dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* As a migration or a core dump would: all of it by read(), or mapped. */
DMM_TEST(restore, host_reads)
{
	char *buf = malloc(SIZE);

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(SIZE / 2, pread(self->mem.fd, buf, SIZE / 2, 0));
	EXPECT_EQ(0, dmm_bad_pages(buf, 0, PAGES / 2, 1));
	EXPECT_EQ(SIZE / 2, get(self, "remaining_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_EQ(0, get(self, "remaining_bytes"));
	free(buf);
}

/* Holes of the image stay holes, and cost nothing. */
DMM_TEST(restore, sparse)
{
	uint64_t i, mib = 1UL << 20;

	for (i = 1; i < 8; i += 2)
		ASSERT_EQ(0, fallocate(self->fd, PUNCH, i * mib, mib));
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(SIZE / 2, get(self, "remaining_bytes"));
	for (i = 0; i < 8; i += 2) {
		EXPECT_EQ(i * mib, lseek(self->mem.fd, i * mib, SEEK_DATA));
		EXPECT_EQ((i + 1) * mib, lseek(self->mem.fd, i * mib, SEEK_HOLE));
	}
	for (i = 0; i < 8; i++) {
		uint64_t gpa = DMM_GPA + i * mib;

		uint64_t bad = i & 1 ?
			dmm_guest_nonzero_pages(self->guest, gpa, 256) :
			dmm_guest_bad_pages(self->guest, gpa, 256, 1);

		EXPECT_EQ(0, bad);
	}
	EXPECT_EQ(SIZE / 2, resident(self));
	EXPECT_EQ(0, get(self, "remaining_bytes"));
}

/* What the guest gives back before it was read does not come again. */
DMM_TEST(restore, punch)
{
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE / 2));
	EXPECT_EQ(SIZE / 2, get(self, "remaining_bytes"));
	EXPECT_EQ(PAGES / 2, get(self, "stats/released"));
	EXPECT_EQ(SIZE / 2, lseek(self->mem.fd, 0, SEEK_DATA));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES / 2));

	ASSERT_EQ(0, set(self, "rate_bytes", "1G"));
	ASSERT_TRUE(wait_remaining(self, 0));
	EXPECT_EQ(SIZE / 2, resident(self));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES / 2));
	EXPECT_EQ(PAGES / 2,
		  dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

DMM_TEST(restore, truncate)
{
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE / 2));
	EXPECT_EQ(SIZE / 2, get(self, "remaining_bytes"));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA + SIZE / 2,
					     PAGES / 2));
	EXPECT_EQ(0, get(self, "remaining_bytes"));
}

/* What is there already stays; zeros that were only read do not count. */
DMM_TEST(restore, late_image)
{
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 4, 3);
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA + SIZE / 2,
					     PAGES / 2));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva + SIZE / 2, PAGES / 2));
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(SIZE / 4 * 3, get(self, "remaining_bytes"));
	EXPECT_EQ(PAGES / 4, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 4, 3));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE / 2, PAGES / 2,
				   PAGES / 2, 1));
}

DMM_TEST(restore, background)
{
	ASSERT_EQ(0, set(self, "rate_bytes", "1G"));
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_TRUE(wait_remaining(self, 0));
	EXPECT_EQ(SIZE, resident(self));
	EXPECT_EQ(PAGES, get(self, "stats/filled"));
	EXPECT_EQ(0, get(self, "stats/touched"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, get(self, "stats/touched"));
}

/* No more than the rate, none at 0, and on again; and who polls is told. */
DMM_TEST(restore, rate)
{
	char *path = dmm_pool_path(self->mem.ino, "restore/percent");
	struct pollfd poll_percent = { .events = POLLPRI };
	uint64_t begin, passed, least, left;
	char buf[16];

	poll_percent.fd = open(path, O_RDONLY);
	ASSERT_LE(0, poll_percent.fd);
	free(path);
	ASSERT_EQ(0, set(self, "rate_bytes", "1M"));
	begin = dmm_now_ms();
	ASSERT_EQ(0, set(self, "image", self->image));
	usleep(200000);
	ASSERT_LT(0, pread(poll_percent.fd, buf, sizeof(buf), 0));
	EXPECT_EQ(1, poll(&poll_percent, 1, 60000));
	ASSERT_LT(0, pread(poll_percent.fd, buf, sizeof(buf), 0));
	EXPECT_LT(0, atoi(buf));
	EXPECT_GT(100, atoi(buf));
	close(poll_percent.fd);

	usleep(2000000);
	least = dmm_now_ms() - begin;
	ASSERT_EQ(0, set(self, "rate_bytes", "0"));
	usleep(100000);
	passed = dmm_now_ms() - begin;
	left = get(self, "remaining_bytes");
	/* A slow host may do less: but something. */
	EXPECT_LE((SIZE - left) * 1000, (passed + 100) << 20);
	EXPECT_GE((SIZE - left) * 1000, (least << 20) / 4);
	usleep(1500000);
	EXPECT_EQ(left, get(self, "remaining_bytes"));
	EXPECT_EQ(SIZE - left, resident(self));
	ASSERT_EQ(0, set(self, "rate_bytes", "default"));
	EXPECT_TRUE(wait_remaining(self, 0));
}

/* What came at a faster rate does not keep a slow one from beginning. */
DMM_TEST(restore, rate_lowered)
{
	uint64_t left;

	ASSERT_EQ(0, set(self, "rate_bytes", "16M"));
	ASSERT_EQ(0, set(self, "image", self->image));
	usleep(100000);
	ASSERT_EQ(0, set(self, "rate_bytes", "4K"));
	usleep(50000);
	left = get(self, "remaining_bytes");
	EXPECT_LT(0, left);
	usleep(4000000);
	EXPECT_GT(left, get(self, "remaining_bytes"));
	EXPECT_LE(left, get(self, "remaining_bytes") + 8 * DMM_PAGE);
}

DMM_TEST(restore, bad_images)
{
	char path[128], content[DMM_PAGE];
	int fd;

	EXPECT_EQ(-ENOENT, set(self, "image", "/tmp/no-such-image"));
	EXPECT_EQ(-EISDIR, set(self, "image", self->dir));
	EXPECT_EQ(-EINVAL, set(self, "image", "/dev/null"));
	sprintf(path, "%s/fifo", self->dir);
	ASSERT_EQ(0, mkfifo(path, 0600));
	EXPECT_EQ(-EINVAL, set(self, "image", path));
	EXPECT_EQ(-EINVAL, set(self, "order", path));
	unlink(path);

	/* One restored from itself would wait for itself. */
	sprintf(path, "%s/restore-test", dmm_dir());
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, SIZE));
	fill_image(fd, 5);
	EXPECT_EQ(-ELOOP, set(self, "image", path));
	EXPECT_EQ(-ELOOP, set(self, "record", path));
	EXPECT_EQ(-ELOOP, set(self, "order", path));
	/* And whose memory it is does not lose it. */
	EXPECT_EQ(SIZE, lseek(fd, 0, SEEK_END));
	ASSERT_EQ(DMM_PAGE, pread(fd, content, DMM_PAGE, SIZE - DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(content, PAGES - 1, 1, 5));
	close(fd);
	unlink(path);

	ASSERT_EQ(0, ftruncate(self->fd, SIZE + DMM_PAGE));
	EXPECT_EQ(-EFBIG, set(self, "image", self->image));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE + 1));
	EXPECT_EQ(-EFBIG, set(self, "image", self->image));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE - 1));
	EXPECT_EQ(-EINVAL, set(self, "image", self->image));
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_EQ(-EINVAL, set(self, "image", self->image));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE));

	/* With the rights of who writes the path. */
	ASSERT_EQ(0, chmod(self->image, 0));
	EXPECT_EQ(-EACCES, set_as_nobody(self, "image", self->image));
	EXPECT_EQ(-EACCES, set_as_nobody(self, "order", self->image));
	EXPECT_EQ(-EACCES, set_as_nobody(self, "record", self->image));
	EXPECT_EQ(0, get(self, "remaining_bytes"));
	EXPECT_EQ(100, get(self, "percent"));

	/* Nothing of this has left anything behind. */
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, PAGES));
	fill_image(self->fd, 4);
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(-EBUSY, set(self, "image", self->image));
	EXPECT_EQ(-EBUSY, set(self, "image", "\n"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 4));
	EXPECT_EQ(0, set(self, "image", "\n"));
}

/* Pages that the image has lost fail who wants them, and nobody else. */
DMM_TEST(restore, image_cut)
{
	char byte;

	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE / 2));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_CHECK, DMM_GPA,
					 PAGES, 1));
	EXPECT_EQ(DMM_GPA + SIZE / 2,
		  self->guest->cpu[0].vcpu->run->memory_fault.gpa);
	EXPECT_EQ(-1, pread(self->mem.fd, &byte, 1, SIZE - 1));
	EXPECT_EQ(EIO, errno);
	EXPECT_NE(0, get(self, "stats/failed"));
	EXPECT_EQ(SIZE / 2, get(self, "remaining_bytes"));

	/* The worker gives up on it, for now, and does not count zeros. */
	ASSERT_EQ(0, set(self, "rate_bytes", "1G"));
	usleep(300000);
	EXPECT_EQ(SIZE / 2, get(self, "remaining_bytes"));
	EXPECT_EQ(SIZE / 2, resident(self));
	EXPECT_EQ(-EIO, dmm_pool_set(self->mem.ino, "policies", "-restore"));
	EXPECT_TRUE(dmm_has_policy(self->mem.ino, "restore"));

	/* The image is back, and the guest goes on where it was. */
	ASSERT_EQ(0, set(self, "rate_bytes", "0"));
	fill_image(self->fd, 1);
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_EQ(0, get(self, "remaining_bytes"));
}

DMM_TEST(restore, unlinked_image)
{
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(0, unlink(self->image));
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* A second image fills what is absent by then. */
DMM_TEST(restore, next_image)
{
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, SIZE / 2, SIZE / 2));
	fill_image(self->fd, 2);
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(SIZE / 2, get(self, "remaining_bytes"));
	EXPECT_EQ(PAGES / 2, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));
}

/* Detaching hands all back, or says why not. */
DMM_TEST(restore, detach)
{
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 4, 1));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", SIZE / 2));
	EXPECT_EQ(-EBUSY, dmm_pool_set(self->mem.ino, "policies", "-restore"));
	EXPECT_TRUE(dmm_has_policy(self->mem.ino, "restore"));
	EXPECT_GE(SIZE / 2, resident(self));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", SIZE));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-restore"));
	EXPECT_EQ(SIZE, resident(self));
	ASSERT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* With less room than the image takes, the worker leaves off before the limit. */
DMM_TEST(restore, limit)
{
	const uint64_t max = SIZE / 4, full = max - max / 16;
	int tries;

	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", max));
	ASSERT_EQ(0, set(self, "rate_bytes", "1G"));
	ASSERT_EQ(0, set(self, "image", self->image));
	for (tries = 0; resident(self) < full && tries < 1000; tries++)
		usleep(10000);
	usleep(100000);
	EXPECT_EQ(full, resident(self));
	EXPECT_EQ(SIZE - full, get(self, "remaining_bytes"));
	EXPECT_EQ(0, get(self, "stats/failed"));

	/* The guest has to wait for room, in vain. */
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_CHECK, DMM_GPA,
					 PAGES, 1));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", SIZE));
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
}

/* The same with a policy that can take something out. */
DMM_TEST(restore, limit_with_reclaim)
{
	const uint64_t max = SIZE / 4;
	int tries;

	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", max));
	ASSERT_EQ(0, set(self, "rate_bytes", "1G"));
	ASSERT_EQ(0, set(self, "image", self->image));
	/* What nobody has asked for takes nothing out. */
	for (tries = 0; resident(self) <= max / 2 && tries < 1000; tries++)
		usleep(10000);
	usleep(500000);
	EXPECT_LT(max / 2, resident(self));
	EXPECT_EQ(0, dmm_pool_get(self->mem.ino, "stats/reclaim"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_GE(max, resident(self));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
	EXPECT_GE(max, resident(self));
	EXPECT_EQ(0, get(self, "remaining_bytes"));
}

/* Guests, a process, holes, the worker and the end of it at once. */
static void *host_reader(void *arg)
{
	struct dmm_mem *mem = arg;

	return (void *)dmm_bad_pages(mem->hva, 0, PAGES, 1);
}

DMM_TEST(restore, under_load)
{
	pthread_t thread;
	void *bad;
	int i;

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
		ASSERT_EQ(0, set(self, "rate_bytes", "16M"));
		ASSERT_EQ(0, set(self, "image", self->image));
		dmm_guest_start(self->guest, 0, DMM_OP_CHECK, DMM_GPA, PAGES, 1);
		dmm_guest_start(self->guest, 1, DMM_OP_CHECK, DMM_GPA, PAGES, 1);
		ASSERT_EQ(0, pthread_create(&thread, NULL, host_reader, &self->mem));
		ASSERT_EQ(0, set(self, "rate_bytes", "1G"));
		if (i & 1) {
			ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies",
						  "-restore"));
			ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies",
						  "+restore"));
		}
		pthread_join(thread, &bad);
		EXPECT_EQ(NULL, bad);
		EXPECT_EQ(0, dmm_guest_join(self->guest, 0));
		EXPECT_EQ(0, dmm_guest_join(self->guest, 1));
		EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
		EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
		EXPECT_EQ(SIZE, resident(self));
		EXPECT_EQ(0, get(self, "remaining_bytes"));
	}
}

/* A file that goes in the middle of it takes all along. */
DMM_TEST(restore, file_goes)
{
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(0, set(self, "record", self->order));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 4, 1));
	ASSERT_EQ(0, set(self, "rate_bytes", "4M"));
	dmm_guest_free(self->guest);
	self->guest = NULL;
	dmm_mem_free(&self->mem);
	EXPECT_TRUE(dmm_pool_gone(self->mem.ino));
}

static void start_again(struct __test_metadata *_metadata,
			FIXTURE_DATA(restore) *self)
{
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(SIZE, get(self, "remaining_bytes"));
}

/* All of the guest's memory in another order than that of the addresses. */
static uint64_t jump(struct __test_metadata *_metadata,
		     FIXTURE_DATA(restore) *self)
{
	uint64_t before = page_faults(self->guest);

	EXPECT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_JUMP, DMM_GPA, PAGES,
				   77));
	EXPECT_EQ(0, get(self, "remaining_bytes"));
	return page_faults(self->guest) - before;
}

/* What was recorded is replayed ahead of the guest, which then stops seldom. */
DMM_TEST(restore, replay)
{
	uint64_t without, with, page;
	FILE *f;
	int i;

	ASSERT_EQ(0, set(self, "record", self->order));
	EXPECT_EQ(-EBUSY, set(self, "record", self->order));
	start_again(_metadata, self);
	without = jump(_metadata, self);
	EXPECT_EQ(PAGES, get(self, "record"));
	ASSERT_EQ(0, set(self, "record", "\n"));
	EXPECT_EQ(0, get(self, "record"));
	EXPECT_LE(PAGES, without);

	f = fopen(self->order, "r");
	ASSERT_NE(NULL, f);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(1, fscanf(f, "%lu", &page));
		ASSERT_EQ(i * 77 % PAGES, page);
	}
	EXPECT_EQ(EOF, fscanf(f, "%lu", &page));
	fclose(f);

	ASSERT_EQ(0, set(self, "order", self->order));
	EXPECT_EQ(PAGES, get(self, "order"));
	start_again(_metadata, self);
	with = jump(_metadata, self);
	EXPECT_EQ(0, get(self, "order"));
	EXPECT_GE(PAGES + PAGES / 10, get(self, "stats/touched"));
	EXPECT_LE(PAGES - PAGES / 10, get(self, "stats/ahead"));
	printf("# %lu page faults without an order, %lu with one\n", without,
	       with);
	/* With shadow paging content comes ahead, but not what maps it. */
	if (kvm_is_tdp_enabled()) {
		EXPECT_GE(without / 10, with);
	}
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* The first line of the order file, and its size. */
static unsigned long first_of_order(FIXTURE_DATA(restore) *self, off_t *size)
{
	FILE *f = fopen(self->order, "r");
	unsigned long page = ~0UL;

	*size = -1;
	if (!f)
		return page;
	if (fscanf(f, "%lu", &page) != 1)
		page = ~0UL;
	fseek(f, 0, SEEK_END);
	*size = ftell(f);
	fclose(f);
	return page;
}

/* A recording takes the place of another one when it is over. */
DMM_TEST(restore, record_again)
{
	FILE *f = fopen(self->order, "w");
	off_t size;

	ASSERT_NE(NULL, f);
	fprintf(f, "5\n6\n7\n");
	fclose(f);
	ASSERT_EQ(0, set(self, "record", self->order));
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 1, 1));
	EXPECT_EQ(5, first_of_order(self, &size));
	EXPECT_EQ(6, size);
	ASSERT_EQ(0, set(self, "record", "\n"));
	EXPECT_EQ(0, first_of_order(self, &size));
	EXPECT_EQ(2, size);
}

/* What comes because the policy goes was not touched. */
DMM_TEST(restore, record_detached)
{
	off_t size;

	ASSERT_EQ(0, set(self, "record", self->order));
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + 9 * DMM_PAGE, 9, 1, 1));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-restore"));
	EXPECT_EQ(9, first_of_order(self, &size));
	EXPECT_EQ(2, size);
	EXPECT_EQ(SIZE, resident(self));
}

/* Who changes slots meanwhile does not wait for what is mapped ahead, nor it for him. */
DMM_TEST(restore, replay_and_slots)
{
	int i, round;

	ASSERT_EQ(0, set(self, "record", self->order));
	start_again(_metadata, self);
	jump(_metadata, self);
	ASSERT_EQ(0, set(self, "record", "\n"));
	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, set(self, "order", self->order));
		start_again(_metadata, self);
		dmm_guest_start(self->guest, 0, DMM_OP_JUMP, DMM_GPA, PAGES, 77);
		for (i = 0; i < 20; i++) {
			dmm_guest_add_slot(self->guest, DMM_SLOT + 1, 0,
					   DMM_GPA + (1UL << 30), SIZE,
					   self->mem.hva);
			dmm_guest_del_slot(self->guest, DMM_SLOT + 1);
		}
		ASSERT_EQ(0, dmm_guest_join(self->guest, 0));
	}
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* The worker follows the order, too. */
DMM_TEST(restore, background_order)
{
	FILE *f = fopen(self->order, "w");

	ASSERT_NE(NULL, f);
	fprintf(f, "%lu\n\n%lu\n%lu", PAGES - 1, PAGES - 1, PAGES - 2);
	fclose(f);
	ASSERT_EQ(0, set(self, "order", self->order));
	EXPECT_EQ(2, get(self, "order"));
	ASSERT_EQ(0, set(self, "rate_bytes", "4K"));
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_TRUE(wait_remaining(self, SIZE - 2 * DMM_PAGE));
	ASSERT_EQ(0, set(self, "rate_bytes", "0"));
	EXPECT_GE(4, get(self, "stats/filled"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA + SIZE -
					 2 * DMM_PAGE, 2, 1));
	EXPECT_EQ(0, get(self, "stats/touched"));
}

/* An order of all pages, one after the other. */
static void write_order(FIXTURE_DATA(restore) *self)
{
	FILE *f = fopen(self->order, "w");
	unsigned long i;

	TEST_ASSERT(f, "Cannot write an order");
	for (i = 0; i < PAGES; i++)
		fprintf(f, "%lu\n", i);
	fclose(f);
}

/* Where the image is not there yet, a touch does not go through all of the order. */
DMM_TEST(restore, order_of_slow_image)
{
	write_order(self);
	ASSERT_EQ(0, set(self, "order", self->order));
	ASSERT_EQ(0, set(self, "image", self->image));
	/* Nothing in the page cache is what a device has yet to read. */
	ASSERT_EQ(0, fallocate(self->fd, PUNCH, DMM_PAGE, SIZE - DMM_PAGE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 1, 1));
	EXPECT_LE(PAGES - 1 - 64, get(self, "order"));
	EXPECT_GT(PAGES, get(self, "order"));
}

/* What comes in the background is the image, not what another policy has taken out. */
DMM_TEST(restore, background_beside_swap)
{
	unsigned long ino = self->mem.ino;

	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	fill_image(self->fd, DMM_HALF | 1);
	write_order(self);
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+swap"));
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES / 2, DMM_HALF | 1));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE / 2));
	ASSERT_EQ(0, resident(self));

	ASSERT_EQ(0, set(self, "order", self->order));
	ASSERT_EQ(0, set(self, "rate_bytes", "1G"));
	ASSERT_TRUE(wait_remaining(self, 0));
	EXPECT_EQ(PAGES / 2, get(self, "stats/filled"));
	EXPECT_EQ(0, dmm_pool_get(ino, "swap/stats/in_compressed"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 1));
}

DMM_TEST(restore, bad_orders)
{
	static const struct {
		const char *text;
		int r;
	} orders[] = {
		{ "", 0 },
		{ "1\n2\n3\n", 0 },
		{ "1 2\n", -EINVAL },
		{ "-1\n", -EINVAL },
		{ "0x10\n", -EINVAL },
		{ "2048\n", -ERANGE },
		{ "1\n99999999999999999999999999\n", -ERANGE },
	};
	int i, fd;

	EXPECT_EQ(-ENOENT, set(self, "order", self->order));
	EXPECT_EQ(-EISDIR, set(self, "order", self->dir));
	EXPECT_EQ(-ENOENT, set(self, "record", "/tmp/no-such-directory/order"));
	EXPECT_EQ(-EISDIR, set(self, "record", self->dir));
	/* There is nothing to record. */
	ASSERT_EQ(0, ftruncate(self->mem.fd, 0));
	EXPECT_EQ(-EINVAL, set(self, "record", self->order));
	/* And here too much. */
	ASSERT_EQ(0, ftruncate(self->mem.fd, 2UL << 40));
	EXPECT_EQ(-EFBIG, set(self, "record", self->order));
	EXPECT_EQ(-EFBIG, set(self, "order", self->image));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		fd = open(self->order, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		ASSERT_LE(0, fd);
		ASSERT_EQ(strlen(orders[i].text),
			  write(fd, orders[i].text, strlen(orders[i].text)));
		close(fd);
		EXPECT_EQ(orders[i].r, set(self, "order", self->order));
	}
	EXPECT_EQ(3, get(self, "order"));
	ASSERT_EQ(0, set(self, "order", "\n"));
	EXPECT_EQ(0, get(self, "order"));
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
}

/* A second file that is restored from the same image, in @domain. */
static struct dmm_mem other_file(struct __test_metadata *_metadata,
				 FIXTURE_DATA(restore) *self,
				 const char *domain)
{
	struct dmm_mem mem = dmm_mem_create(SIZE);

	EXPECT_EQ(0, dmm_pool_set(mem.ino, "domain", domain));
	EXPECT_EQ(0, dmm_pool_set(mem.ino, "policies", "+restore"));
	EXPECT_EQ(0, dmm_pool_set(mem.ino, "restore/rate_bytes", "0"));
	EXPECT_EQ(0, dmm_pool_set(mem.ino, "restore/image", self->image));
	return mem;
}

/* What another guest has read already is recorded, too. */
DMM_TEST(restore, record_beside_another)
{
	struct dmm_mem other;

	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "restore"));
	other = other_file(_metadata, self, "restore");
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 1));
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(0, set(self, "record", self->order));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES, get(self, "record"));
	ASSERT_EQ(0, set(self, "record", "\n"));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 1));
	dmm_mem_free(&other);
}

/* Pools of one domain have one frame for what none of them has written. */
DMM_TEST(restore, share)
{
	struct dmm_mem other, third;

	/* Who pays for the frames that others use needs room for copies. */
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "max_bytes", 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "restore"));
	ASSERT_EQ(0, set(self, "image", self->image));
	other = other_file(_metadata, self, "restore");
	third = other_file(_metadata, self, "another");

	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(third.hva, 0, PAGES, 1));
	EXPECT_EQ(SIZE, resident(self));
	EXPECT_EQ(0, dmm_pool_get(other.ino, "resident_bytes"));
	EXPECT_EQ(SIZE, dmm_pool_get(other.ino, "shared_bytes"));
	EXPECT_EQ(0, dmm_pool_get(other.ino, "restore/remaining_bytes"));
	EXPECT_EQ(0, dmm_pool_get(other.ino, "restore/stats/touched"));
	EXPECT_EQ(SIZE, dmm_pool_get(third.ino, "resident_bytes"));

	/* Who writes gets a copy, and the others notice nothing. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 2);
	dmm_fill(other.hva + SIZE / 2, PAGES / 2, PAGES / 4, 3);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 2));
	EXPECT_EQ(PAGES / 2,
		  dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES / 4, dmm_bad_pages(other.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(other.hva + SIZE / 2, PAGES / 2, PAGES / 4, 3));
	EXPECT_EQ(SIZE + SIZE / 2 + SIZE / 4, resident(self) +
		  dmm_pool_get(other.ino, "resident_bytes"));

	/* The first to come may go. */
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-restore"));
	EXPECT_EQ(PAGES / 4, dmm_bad_pages(other.hva, 0, PAGES, 1));
	EXPECT_EQ(SIZE, dmm_pool_get(other.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(third.hva, 0, PAGES, 1));
	dmm_mem_free(&other);
	dmm_mem_free(&third);
}

/* The same file with other content is another image. */
DMM_TEST(restore, share_changed)
{
	struct dmm_mem other;

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "restore"));
	ASSERT_EQ(0, set(self, "image", self->image));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	usleep(50000);
	fill_image(self->fd, 2);
	other = other_file(_metadata, self, "restore");
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 2));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	dmm_mem_free(&other);
}

static void *read_first(void *arg)
{
	struct dmm_mem *mem = arg;
	char buf[DMM_PAGE];

	if (pread(mem->fd, buf, DMM_PAGE, 0) != DMM_PAGE)
		return (void *)-1;
	return (void *)dmm_bad_pages(buf, 0, 1, 1);
}

/* A frame that is on its way to others does not get to those of the next image. */
DMM_TEST(restore, share_late)
{
	uint64_t content[DMM_PAGE / sizeof(uint64_t)];
	struct dmm_mem other;
	pthread_t thread;
	void *bad;

	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no policy test-share");
	ASSERT_EQ(0, fallocate(self->fd, PUNCH, DMM_PAGE, SIZE - DMM_PAGE));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "restore"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-share"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "test-share/match_ms", "2000"));
	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(0, pthread_create(&thread, NULL, read_first, &self->mem));
	ASSERT_TRUE(wait_remaining(self, 0));

	/* Its only page has been read, but nobody has it yet. */
	usleep(50000);
	dmm_fill(content, 0, 1, 2);
	ASSERT_EQ(DMM_PAGE, pwrite(self->fd, content, DMM_PAGE, 0));
	ASSERT_EQ(0, set(self, "image", self->image));
	pthread_join(thread, &bad);
	EXPECT_EQ(NULL, bad);
	other = other_file(_metadata, self, "restore");
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, 1, 2));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 1, 1));
	dmm_mem_free(&other);
}

/* Reading, writing and leaving at once. */
DMM_TEST(restore, share_under_load)
{
	struct dmm_mem other;
	pthread_t thread;
	uint64_t joined = 0;
	void *bad;
	int i;

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "restore"));
	for (i = 0; i < 4; i++) {
		start_again(_metadata, self);
		other = other_file(_metadata, self, "restore");
		dmm_guest_start(self->guest, 0, DMM_OP_CHECK, DMM_GPA, PAGES, 1);
		ASSERT_EQ(0, pthread_create(&thread, NULL, host_reader, &other));
		ASSERT_EQ(0, dmm_pool_set(other.ino, "restore/rate_bytes", "1G"));
		/* Writes that leave the content as it is take copies, too. */
		ASSERT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_FILL, DMM_GPA,
					   PAGES / 2, 1));
		pthread_join(thread, &bad);
		EXPECT_EQ(NULL, bad);
		EXPECT_EQ(0, dmm_guest_join(self->guest, 0));
		EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
		joined += dmm_pool_get(other.ino, "stats/share") +
			  dmm_pool_get(self->mem.ino, "stats/share");
		dmm_mem_free(&other);
	}
	EXPECT_NE(0, joined);
}

/* What cannot be had cannot be locked in memory: mlock() ends and says so. */
DMM_TEST(restore, lock_what_is_lost)
{
	char *hva = self->mem.hva;

	ASSERT_EQ(0, set(self, "image", self->image));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE / 2));
	EXPECT_EQ(-1, mlock(hva + SIZE / 2, 4 * DMM_PAGE));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_LT(0, get(self, "stats/failed"));
	EXPECT_EQ(0, munlock(hva + SIZE / 2, 4 * DMM_PAGE));
	/* The rest can. */
	EXPECT_EQ(0, mlock(hva, 4 * DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(hva, 0, PAGES / 2, 1));
	EXPECT_EQ(0, munlock(hva, 4 * DMM_PAGE));
}

/**
 * struct looker - who is in a directory of dmmfs with whom
 * @dir: it
 * @list: memory for a list of it, which takes its time to come
 * @old: a file in it
 * @new: another one, over which the first is renamed
 * @image: what is to be the image for @new, which is not there
 * @ino: of @new
 * @result: of the write of @image
 */
struct looker {
	int dir;
	void *list;
	char *old;
	char *new;
	char *image;
	unsigned long ino;
	int result;
};

static int serve_list(int mode, int uffd, struct uffd_msg *msg)
{
	struct uffdio_zeropage zero = {
		.range.start = msg->arg.pagefault.address & ~(DMM_PAGE - 1),
		.range.len = DMM_PAGE,
	};

	return ioctl(uffd, UFFDIO_ZEROPAGE, &zero);
}

static void *list_dir(void *arg)
{
	struct looker *look = arg;

	return (void *)syscall(__NR_getdents64, look->dir, look->list, DMM_PAGE);
}

static void *rename_over(void *arg)
{
	struct looker *look = arg;

	return (void *)(long)rename(look->old, look->new);
}

static void *set_image(void *arg)
{
	struct looker *look = arg;

	look->result = dmm_pool_set(look->ino, "restore/image", look->image);
	return NULL;
}

/*
 * A file goes, by a rename, as somebody looks for its image in its directory.
 * The list makes both wait for the directory, first who goes.
 */
DMM_TEST(restore, image_in_directory_of_rename)
{
	void *(*todo[])(void *) = { list_dir, rename_over, set_image };
	pthread_t thread[ARRAY_SIZE(todo)];
	struct looker look = {
		.dir = open(dmm_dir(), O_RDONLY | O_DIRECTORY),
		.old = strdup_printf("%s/restore-old-%d", dmm_dir(), getpid()),
		.new = strdup_printf("%s/restore-new-%d", dmm_dir(), getpid()),
		.image = strdup_printf("%s/restore-none-%d", dmm_dir(),
				       getpid()),
	};
	void *result[ARRAY_SIZE(todo)];
	struct uffd_desc *uffd;
	struct stat st;
	unsigned int i;

	ASSERT_LE(0, look.dir);
	close(open(look.old, O_CREAT | O_RDWR, 0600));
	close(open(look.new, O_CREAT | O_RDWR, 0600));
	ASSERT_EQ(0, stat(look.new, &st));
	look.ino = st.st_ino;
	ASSERT_EQ(0, dmm_pool_set(look.ino, "policies", "+restore"));
	look.list = mmap(NULL, DMM_PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, look.list);
	uffd = uffd_setup_demand_paging(UFFDIO_REGISTER_MODE_MISSING, 2000000,
					look.list, DMM_PAGE, 1, serve_list);

	for (i = 0; i < ARRAY_SIZE(todo); i++) {
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, todo[i], &look));
		usleep(500000);
	}
	for (i = 0; i < ARRAY_SIZE(todo); i++)
		ASSERT_EQ(0, pthread_join(thread[i], &result[i]));
	EXPECT_LT(0, (long)result[0]);
	EXPECT_EQ(0, (long)result[1]);
	EXPECT_EQ(-ENOENT, look.result);
	EXPECT_TRUE(dmm_pool_gone(look.ino));

	uffd_stop_demand_paging(uffd);
	munmap(look.list, DMM_PAGE);
	close(look.dir);
	EXPECT_EQ(0, unlink(look.new));
	free(look.old);
	free(look.new);
	free(look.image);
}

TEST_HARNESS_MAIN
