// SPDX-License-Identifier: GPL-2.0-only
/*
 * Without a policy that fills on touch a pool is static, as a classical VMM's
 * memory is: it is all there before the guest runs.
 */
#include <errno.h>
#include <signal.h>
#include <sys/time.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(static_pool) {
};

FIXTURE_SETUP(static_pool)
{
}

FIXTURE_TEARDOWN(static_pool)
{
}

DMM_TEST(static_pool, sized)
{
	struct dmm_mem mem = dmm_mem_create_static(SIZE);
	char policies[64];

	dmm_pool_read(mem.ino, "policies", policies, sizeof(policies));
	EXPECT_STREQ("\n", policies);
	EXPECT_EQ(SIZE, dmm_pool_get(mem.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_nonzero_pages(mem.hva, PAGES));

	/* Growing allocates the rest, shrinking gives back. */
	ASSERT_EQ(0, ftruncate(mem.fd, SIZE + DMM_BLOCK));
	EXPECT_EQ(SIZE + DMM_BLOCK, dmm_pool_get(mem.ino, "resident_bytes"));
	ASSERT_EQ(0, ftruncate(mem.fd, SIZE / 2));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(mem.ino, "resident_bytes"));
	dmm_mem_free(&mem);
}

/* More than any host has: refused before the host is emptied for it. */
DMM_TEST(static_pool, larger_than_host)
{
	struct dmm_mem mem = dmm_mem_create_static(SIZE);

	EXPECT_EQ(-1, ftruncate(mem.fd, 1UL << 46));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(-1, fallocate(mem.fd, 0, 0, 1UL << 46));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(SIZE, dmm_pool_get(mem.ino, "size_bytes"));
	EXPECT_EQ(SIZE, dmm_pool_get(mem.ino, "resident_bytes"));
	dmm_mem_free(&mem);
}

DMM_TEST(static_pool, guest_never_faults_memory_in)
{
	struct dmm_mem mem = dmm_mem_create_static(SIZE);
	struct dmm_guest *guest = dmm_guest_create(1);
	uint64_t fills;

	dmm_guest_add_mem(guest, &mem);
	fills = dmm_pool_get(mem.ino, "stats/fill");
	dmm_guest_fill(guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(mem.hva, 0, PAGES, 1));
	EXPECT_EQ(SIZE, dmm_pool_get(mem.ino, "resident_bytes"));
	EXPECT_EQ(fills, dmm_pool_get(mem.ino, "stats/fill"));
	dmm_guest_free(guest);
	dmm_mem_free(&mem);
}

/* A lazy file that has lost its policy is filled when a slot is bound. */
DMM_TEST(static_pool, slot_fills)
{
	struct dmm_mem mem = dmm_mem_create(SIZE);
	struct dmm_guest *guest = dmm_guest_create(1);

	dmm_fill(mem.hva, 0, 3, 1);
	ASSERT_EQ(0, dmm_pool_set(mem.ino, "policies", "-demand"));
	dmm_guest_map(guest, DMM_GPA, SIZE);
	dmm_guest_add_slot(guest, DMM_SLOT, 0, DMM_GPA, SIZE / 2, mem.hva);
	EXPECT_LE(SIZE / 2, dmm_pool_get(mem.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, 3, 1));
	EXPECT_EQ(3, dmm_guest_nonzero_pages(guest, DMM_GPA, PAGES / 2));
	dmm_guest_free(guest);
	dmm_mem_free(&mem);
}

static void on_alarm(int signal)
{
}

/* VMMs know no slot that cannot be made because of a signal, be it full or not. */
DMM_TEST(static_pool, slot_in_spite_of_signals)
{
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } }, never = {};
	struct sigaction action = { .sa_handler = on_alarm };
	struct dmm_mem mem = dmm_mem_create_static(SIZE);
	struct dmm_guest *guest = dmm_guest_create(1);
	int i, r, failed = 0;

	dmm_fill(mem.hva, 0, PAGES, 1);
	dmm_guest_map(guest, DMM_GPA, SIZE);
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, NULL));
	for (i = 0; i < 20; i++) {
		r = dmm_guest_try_slot(guest, DMM_SLOT, 0, DMM_GPA, SIZE, mem.hva);
		if (r)
			failed++;
		else
			dmm_guest_del_slot(guest, DMM_SLOT);
		if (i == 9)
			while (fallocate(mem.fd, PUNCH, 0, SIZE / 2))
				ASSERT_EQ(EINTR, errno);
	}
	r = dmm_guest_try_slot(guest, DMM_SLOT, 0, DMM_GPA, SIZE, mem.hva);
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
	EXPECT_EQ(0, r);
	EXPECT_EQ(0, failed);
	EXPECT_EQ(SIZE, dmm_pool_get(mem.ino, "resident_bytes"));
	EXPECT_EQ(PAGES / 2, dmm_guest_nonzero_pages(guest, DMM_GPA, PAGES));
	dmm_guest_free(guest);
	dmm_mem_free(&mem);
}

/* What a write behind the end has filled is given back: it is not begun anew for ever. */
DMM_TEST(static_pool, write_behind_end_with_signals)
{
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } }, never = {};
	struct sigaction action = {
		.sa_handler = on_alarm,
		.sa_flags = SA_RESTART,
	};
	struct dmm_mem mem = dmm_mem_create_static(SIZE);
	ssize_t r;
	char c = 1;

	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, NULL));
	r = pwrite(mem.fd, &c, 1, 16 * SIZE);
	EXPECT_TRUE(r == 1 || errno == EINTR);
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
	EXPECT_EQ(r == 1 ? 16 * SIZE + 1 : SIZE,
		  dmm_pool_get(mem.ino, "size_bytes"));
	dmm_mem_free(&mem);
}

/* A hole in a static pool is a hole, until somebody needs it. */
DMM_TEST(static_pool, holes)
{
	struct dmm_mem mem = dmm_mem_create_static(SIZE);
	struct dmm_guest *guest = dmm_guest_create(1);

	dmm_guest_add_mem(guest, &mem);
	dmm_guest_fill(guest, DMM_GPA, PAGES, 1);
	ASSERT_EQ(0, fallocate(mem.fd, PUNCH, 0, SIZE / 2));
	EXPECT_EQ(SIZE / 2, dmm_pool_get(mem.ino, "resident_bytes"));
	EXPECT_EQ(PAGES / 2, dmm_guest_nonzero_pages(guest, DMM_GPA, PAGES));
	dmm_guest_fill(guest, DMM_GPA, PAGES, 2);
	EXPECT_EQ(0, dmm_bad_pages(mem.hva, 0, PAGES, 2));
	dmm_guest_free(guest);
	dmm_mem_free(&mem);
}

/* demand can come and go, content stays. */
DMM_TEST(static_pool, become_lazy_and_static)
{
	struct dmm_mem mem = dmm_mem_create_static(SIZE);

	dmm_fill(mem.hva, 0, PAGES, 1);
	ASSERT_EQ(0, dmm_pool_set(mem.ino, "policies", "+demand"));
	EXPECT_TRUE(dmm_has_policy(mem.ino, "demand"));
	EXPECT_EQ(0, dmm_bad_pages(mem.hva, 0, PAGES, 1));
	ASSERT_EQ(0, ftruncate(mem.fd, 2 * SIZE));
	EXPECT_EQ(SIZE, dmm_pool_get(mem.ino, "resident_bytes"));
	ASSERT_EQ(0, dmm_pool_set(mem.ino, "policies", "-demand"));
	EXPECT_FALSE(dmm_has_policy(mem.ino, "demand"));
	ASSERT_EQ(0, ftruncate(mem.fd, 3 * SIZE));
	EXPECT_LE(2 * SIZE, dmm_pool_get(mem.ino, "resident_bytes"));
	EXPECT_EQ(0, dmm_bad_pages(mem.hva, 0, PAGES, 1));
	dmm_mem_free(&mem);
}

TEST_HARNESS_MAIN
