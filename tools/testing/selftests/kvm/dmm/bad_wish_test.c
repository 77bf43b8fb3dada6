// SPDX-License-Identifier: GPL-2.0-only
/*
 * A policy that misbehaves where the core can do without its answer: nothing
 * fails, and what it says is taken as far as it is right.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "bad_util.h"

#define POLICY	"test-bad-nofill"
#define REGION	(DMM_BLOCK / DMM_PAGE)
/* The page that is touched, not at the start of its region. */
#define TOUCHED	4

FIXTURE(wish) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
	unsigned long ino;
};

FIXTURE_SETUP(wish)
{
	if (!dmm_policy_loaded(POLICY))
		SKIP(return, "needs the policy " POLICY);

	self->mem = dmm_mem_create_exact(SIZE);
	self->ino = self->mem.ino;
	/* The first policy is asked what to fill around. */
	bad_add(self->ino, POLICY);
	ASSERT_EQ(0, dmm_pool_set(self->ino, "policies", "-demand"));
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
	/* Room for all that comes back. */
	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "max_bytes", 2 * SIZE));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
}

FIXTURE_TEARDOWN(wish)
{
	if (self->guest)
		dmm_guest_free(self->guest);
	if (self->mem.hva)
		dmm_mem_free(&self->mem);
}

static uint64_t resident(unsigned long ino)
{
	return dmm_pool_get(ino, "resident_bytes");
}

static uint64_t swapped(unsigned long ino)
{
	return dmm_pool_get(ino, "swapped_bytes");
}

static void reclaim_all(struct __test_metadata *_metadata, unsigned long ino)
{
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	ASSERT_EQ(SIZE, swapped(ino));
}

/* Another file, whose policy behaves. */
static struct dmm_mem other_mem(void)
{
	struct dmm_mem mem = dmm_mem_create_exact(SIZE);

	bad_add(mem.ino, POLICY);
	return mem;
}

/* What comes in with one page; that is the whole region at most. */
static const struct {
	const char *how;
	uint64_t pages;
} windows[] = {
	{ "all", REGION }, { "others", 1 }, { "backwards", 1 },
	{ "behind", 9 }, { "elsewhere", 1 }, { "block", 1 },
};

/* What is filled with a page that is written. */
DMM_TEST(wish, around)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(windows); i++) {
		/* Of absent memory that is no more than a wish. */
		if (!strcmp(windows[i].how, "block"))
			continue;
		ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
		bad_set(self->ino, "around", windows[i].how);
		dmm_guest_poke(self->guest, DMM_GPA + TOUCHED * DMM_PAGE, 1);
		EXPECT_EQ(windows[i].pages * DMM_PAGE, resident(self->ino)) {
			TH_LOG("%s", windows[i].how);
		}
		EXPECT_LT(i, bad_count(self->ino, "around"));
		EXPECT_TRUE(dmm_pool_ok(self->ino));
		EXPECT_EQ(1, dmm_guest_nonzero_pages(self->guest, DMM_GPA,
						     PAGES));
		dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 1));
		EXPECT_TRUE(dmm_pool_ok(self->ino));
	}
	bad_recover(_metadata, self->guest, self->ino);
}

/* What is copied with a shared frame that is written. */
DMM_TEST(wish, around_copy)
{
	struct dmm_mem other = other_mem();
	uint64_t cow, count;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(windows); i++) {
		ASSERT_EQ(0, ioctl(other.fd, FICLONE, self->mem.fd));
		cow = dmm_pool_get(self->ino, "stats/cow");
		count = bad_count(self->ino, "around");
		bad_set(self->ino, "around", windows[i].how);
		dmm_guest_fill(self->guest, DMM_GPA + TOUCHED * DMM_PAGE, 1, 1);
		EXPECT_EQ(windows[i].pages,
			  dmm_pool_get(self->ino, "stats/cow") - cow) {
			TH_LOG("%s", windows[i].how);
		}
		EXPECT_LT(count, bad_count(self->ino, "around"));
		EXPECT_TRUE(dmm_pool_ok(self->ino));
		EXPECT_TRUE(dmm_pool_ok(other.ino));
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 1));
		EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 1));
	}
	dmm_mem_free(&other);
	bad_recover(_metadata, self->guest, self->ino);
}

/* What is fetched with a token that is touched. */
DMM_TEST(wish, fetch_around)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(windows); i++) {
		reclaim_all(_metadata, self->ino);
		bad_set(self->ino, "fetch_around", windows[i].how);
		dmm_guest_peek(self->guest, DMM_GPA + TOUCHED * DMM_PAGE);
		EXPECT_EQ(windows[i].pages * DMM_PAGE, resident(self->ino)) {
			TH_LOG("%s", windows[i].how);
		}
		EXPECT_LT(i, bad_count(self->ino, "fetch_around"));
		EXPECT_TRUE(dmm_pool_ok(self->ino));
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 1));
	}
	bad_recover(_metadata, self->guest, self->ino);
}

/* What is mapped ahead of the guest: no more than what it has. */
DMM_TEST(wish, ahead)
{
	static const char * const how[] = { "many", "outside", "same", "unset" };
	uint64_t count;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(how); i++) {
		/* Out of the guest's page tables, but there. */
		reclaim_all(_metadata, self->ino);
		ASSERT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES, 1));
		bad_set(self->ino, "ahead", how[i]);
		count = bad_count(self->ino, "ahead");
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 1)) {
			TH_LOG("%s", how[i]);
		}
		EXPECT_LT(count, bad_count(self->ino, "ahead"));
		EXPECT_EQ(SIZE, resident(self->ino));
		EXPECT_TRUE(dmm_pool_ok(self->ino));
	}
	/* It goes without taking back that it wants to be asked. */
	EXPECT_EQ(0, bad_remove(self->ino));
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	bad_recover(_metadata, self->guest, self->ino);
}

/* How dup_token goes wrong: by its result, or if that is 0 by its token. */
static const struct {
	int result;
	const char *token;
} dups[] = {
	{ -EIO }, { -EAGAIN }, { -ESTALE }, { -EINTR }, { 1 }, { INT_MAX },
	{ INT_MIN }, { 0, "large" }, { 0, "unset" }, { 0, "half" },
};

static void set_dup(unsigned long ino, unsigned int i)
{
	bad_set_number(ino, "dup_token_result", dups[i].result);
	bad_set(ino, "dup_token", dups[i].token ?: "good");
}

/* Does each token that is made have to come back? */
static bool is_lost(unsigned int i)
{
	return dups[i].token && strcmp(dups[i].token, "half");
}

static bool is_half(unsigned int i)
{
	return dups[i].token && !strcmp(dups[i].token, "half");
}

/* A clone fetches what it gets no token for.  @to: where the first 2 MiB go. */
static void clone_dups(struct __test_metadata *_metadata,
		       struct dmm_guest *guest, struct dmm_mem *mem,
		       uint64_t to)
{
	struct file_clone_range range = {
		.src_fd = mem->fd,
		.src_length = DMM_BLOCK,
		.dest_offset = to,
	};
	struct dmm_mem other;
	uint64_t count;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(dups); i++) {
		reclaim_all(_metadata, mem->ino);
		other = other_mem();
		count = bad_count(mem->ino, "dup_token");
		set_dup(mem->ino, i);
		EXPECT_EQ(0, ioctl(other.fd, FICLONERANGE, &range)) {
			TH_LOG("dup_token: %d %s", dups[i].result,
			       dups[i].token ?: "");
		}
		count = bad_count(mem->ino, "dup_token") - count;
		EXPECT_LE(REGION, count);
		EXPECT_EQ(is_lost(i) ? count : 0, bad_count(other.ino, "lost"));
		/* Each has a frame in both, or a token in both. */
		EXPECT_EQ(SIZE - DMM_BLOCK + swapped(other.ino),
			  swapped(mem->ino));
		if (is_half(i)) {
			EXPECT_LT(0, swapped(other.ino));
			EXPECT_GT(DMM_BLOCK, swapped(other.ino));
		} else {
			EXPECT_EQ(0, swapped(other.ino));
		}
		EXPECT_TRUE(dmm_pool_ok(mem->ino));
		EXPECT_TRUE(dmm_pool_ok(other.ino));
		EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
		EXPECT_EQ(0, dmm_bad_pages(other.hva + to, 0, REGION, 1));
		EXPECT_EQ(0, bad_remove(other.ino));
		EXPECT_EQ(0, dmm_bad_pages(other.hva + to, 0, REGION, 1));
		dmm_mem_free(&other);
	}
	bad_recover(_metadata, guest, mem->ino);
}

/* A region at once. */
DMM_TEST(wish, dup_token_region)
{
	clone_dups(_metadata, self->guest, &self->mem, 0);
}

/* Page by page. */
DMM_TEST(wish, dup_token_page)
{
	clone_dups(_metadata, self->guest, &self->mem, DMM_BLOCK);
}

struct clone_job {
	int to, from;
	int r;
};

static void *clone_file(void *p)
{
	struct clone_job *job = p;

	job->r = ioctl(job->to, FICLONE, job->from);
	return NULL;
}

/*
 * A clone counts itself a user of frames, waits, and finds that somebody touched
 * its memory meanwhile.  Another clone of the frames had handles made for them.
 */
DMM_TEST(wish, clone_undone)
{
	struct dmm_mem clone = other_mem(), slow = other_mem();
	struct dmm_mem moved = other_mem();
	struct file_clone_range range = {
		.src_fd = clone.fd,
		.src_offset = 8 * DMM_PAGE,
		.src_length = 8 * DMM_PAGE,
		.dest_offset = 64 * DMM_PAGE,
	};
	struct clone_job job = { slow.fd, self->mem.fd };
	uint64_t taken;
	pthread_t thread;

	ASSERT_EQ(0, dmm_pool_set_bytes(self->ino, "reclaim", DMM_PAGE));
	ASSERT_LT(0, swapped(self->ino));
	ASSERT_GT(DMM_BLOCK / 2, swapped(self->ino));
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	bad_set_number(self->ino, "sleep_ms", 2000);
	ASSERT_EQ(0, pthread_create(&thread, NULL, clone_file, &job));
	usleep(500000);
	EXPECT_EQ(0, ioctl(moved.fd, FICLONERANGE, &range));
	EXPECT_EQ(0, dmm_nonzero_pages(slow.hva, 1));
	bad_set_number(self->ino, "sleep_ms", 0);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, job.r);

	EXPECT_EQ(0, dmm_bad_pages(slow.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(moved.hva + range.dest_offset, 8, 8, 1));
	dmm_mem_free(&slow);
	dmm_mem_free(&moved);
	EXPECT_EQ(0, dmm_bad_pages(clone.hva, 0, PAGES, 1));
	dmm_mem_free(&clone);
	EXPECT_TRUE(dmm_pool_gone(clone.ino));
	/* The only user that is left need not copy. */
	taken = dmm_pool_get(self->ino, "stats/take_over");
	dmm_guest_fill(self->guest, DMM_GPA + range.src_offset, 8, 2);
	EXPECT_EQ(taken + 8, dmm_pool_get(self->ino, "stats/take_over"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA + range.src_offset,
					 8, 2));
}

/* A clone that has neither token nor content ends. */
DMM_TEST(wish, dup_token_fetch)
{
	static const struct {
		int result;
		int err;
	} fetch[] = {
		{ -EIO, -EIO }, { -ESTALE, -ESTALE }, { -EAGAIN, -EIO },
		{ -EMLINK, -EMLINK }, { -EOPNOTSUPP, -EOPNOTSUPP },
		{ INT_MAX, -EIO },
	};
	struct dmm_mem other = other_mem();
	uint64_t start = dmm_now_ms();
	unsigned int i;

	reclaim_all(_metadata, self->ino);
	bad_set_number(self->ino, "dup_token_result", -EIO);
	for (i = 0; i < ARRAY_SIZE(fetch); i++) {
		bad_set_number(self->ino, "fetch", fetch[i].result);
		EXPECT_EQ(-1, ioctl(other.fd, FICLONE, self->mem.fd)) {
			TH_LOG("fetch: %d", fetch[i].result);
		}
		EXPECT_EQ(-fetch[i].err, errno);
		EXPECT_LT(i, bad_count(self->ino, "fetch"));
		EXPECT_EQ(SIZE, swapped(self->ino));
	}
	EXPECT_GT(60000, dmm_now_ms() - start);
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	EXPECT_TRUE(dmm_pool_ok(other.ino));
	dmm_mem_free(&other);
	bad_recover(_metadata, self->guest, self->ino);
}

/* A shared frame that goes out stays with users that get no token. */
DMM_TEST(wish, dup_token_evict)
{
	struct dmm_mem other;
	uint64_t count;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(dups); i++) {
		other = other_mem();
		ASSERT_EQ(0, ioctl(other.fd, FICLONE, self->mem.fd));
		ASSERT_EQ(0, swapped(self->ino));
		set_dup(self->ino, i);
		count = bad_count(self->ino, "dup_token");
		/* Nothing comes free where the others keep the frames. */
		dmm_pool_set_bytes(self->ino, "reclaim", SIZE);
		EXPECT_EQ(SIZE, swapped(self->ino)) {
			TH_LOG("dup_token: %d %s", dups[i].result,
			       dups[i].token ?: "");
		}
		EXPECT_EQ(count + PAGES, bad_count(self->ino, "dup_token"));
		EXPECT_EQ(is_lost(i) ? PAGES : 0, bad_count(other.ino, "lost"));
		EXPECT_EQ(SIZE, swapped(other.ino) + resident(other.ino));
		if (is_half(i)) {
			EXPECT_LT(0, swapped(other.ino));
			EXPECT_GT(SIZE, swapped(other.ino));
		} else {
			EXPECT_EQ(0, swapped(other.ino));
		}
		EXPECT_TRUE(dmm_pool_ok(self->ino));
		EXPECT_TRUE(dmm_pool_ok(other.ino));
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 1));
		EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 1));
		dmm_mem_free(&other);
	}
	bad_recover(_metadata, self->guest, self->ino);
}

/*
 * With what lookup or match offers for each token, all of them are fetched and
 * none joins.
 */
static void offer(struct __test_metadata *_metadata, struct dmm_guest *guest,
		  unsigned long ino, const char *op, const char *how)
{
	uint64_t share = dmm_pool_get(ino, "stats/share");
	uint64_t fetch = dmm_pool_get(ino, "stats/fetch");
	uint64_t count = bad_count(ino, op);

	reclaim_all(_metadata, ino);
	bad_set(ino, op, how);
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1)) {
		TH_LOG("%s: %s", op, how);
	}
	EXPECT_EQ(count + PAGES, bad_count(ino, op));
	EXPECT_EQ(fetch + PAGES, dmm_pool_get(ino, "stats/fetch"));
	EXPECT_EQ(share, dmm_pool_get(ino, "stats/share"));
	EXPECT_EQ(0, swapped(ino));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_TRUE(dmm_pool_ok(ino));
	bad_set(ino, op, "none");
}

/* Errors are no handles. */
DMM_TEST(wish, handle_error)
{
	ASSERT_EQ(0, dmm_pool_set(self->ino, "domain", "a"));
	offer(_metadata, self->guest, self->ino, "lookup", "error");
	offer(_metadata, self->guest, self->ino, "match", "error");
	bad_recover(_metadata, self->guest, self->ino);
}

/* A frame that its last user has taken over. */
DMM_TEST(wish, handle_dead)
{
	ASSERT_EQ(0, dmm_pool_set(self->ino, "domain", "a"));
	bad_set(self->ino, "hold", "0");
	EXPECT_EQ(DMM_PAGE, dmm_pool_get(self->ino, "shared_bytes"));
	dmm_guest_fill(self->guest, DMM_GPA, 1, 1);
	EXPECT_EQ(0, dmm_pool_get(self->ino, "shared_bytes"));
	offer(_metadata, self->guest, self->ino, "lookup", "held");
	offer(_metadata, self->guest, self->ino, "match", "held");
	bad_recover(_metadata, self->guest, self->ino);
}

/* One of a file that has gone. */
DMM_TEST(wish, handle_gone)
{
	struct dmm_mem other = other_mem();

	ASSERT_EQ(0, dmm_pool_set(self->ino, "domain", "a"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", "a"));
	dmm_fill(other.hva, 0, PAGES, 1);
	bad_set(other.ino, "hold", "0");
	dmm_mem_free(&other);
	EXPECT_TRUE(dmm_pool_gone(other.ino));
	offer(_metadata, self->guest, self->ino, "lookup", "held");
	offer(_metadata, self->guest, self->ino, "match", "held");
	bad_recover(_metadata, self->guest, self->ino);
}

/* Another file offers the frame of its page 0, by lookup, too, or only by match. */
static void offer_foreign(struct __test_metadata *_metadata,
			  struct dmm_guest *guest, unsigned long ino,
			  const char *domain, uint64_t seed, bool lookup)
{
	struct dmm_mem other = other_mem();

	ASSERT_EQ(0, dmm_pool_set(ino, "domain", "a"));
	ASSERT_EQ(0, dmm_pool_set(other.ino, "domain", domain));
	dmm_fill(other.hva, 0, PAGES, seed);
	bad_set(other.ino, "hold", "0");
	if (lookup)
		offer(_metadata, guest, ino, "lookup", "held");
	offer(_metadata, guest, ino, "match", "held");
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, seed));
	dmm_mem_free(&other);
	bad_recover(_metadata, guest, ino);
}

/* One that the pool may not share, though the content is that of page 0. */
DMM_TEST(wish, handle_foreign)
{
	offer_foreign(_metadata, self->guest, self->ino, "b", 1, true);
}

/* One of other content: what was fetched is compared. */
DMM_TEST(wish, match_other_content)
{
	offer_foreign(_metadata, self->guest, self->ino, "a", 2, false);
}

/* It holds what was published longer than the frame is there. */
DMM_TEST(wish, publish)
{
	ASSERT_EQ(0, dmm_pool_set(self->ino, "domain", "a"));
	reclaim_all(_metadata, self->ino);
	bad_set(self->ino, "publish", "hold");
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_EQ(PAGES, bad_count(self->ino, "publish"));
	EXPECT_EQ(SIZE, dmm_pool_get(self->ino, "shared_bytes"));
	EXPECT_TRUE(dmm_pool_ok(self->ino));
	/* Nobody copies: each page had one user. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_EQ(0, dmm_pool_get(self->ino, "shared_bytes"));
	EXPECT_EQ(PAGES, dmm_pool_get(self->ino, "stats/take_over"));
	/* What it holds is dead, and nothing takes its place. */
	bad_set(self->ino, "publish", "forget");
	offer(_metadata, self->guest, self->ino, "lookup", "held");
	bad_recover(_metadata, self->guest, self->ino);
}

/* All at once, and slowly. */
DMM_TEST(wish, slow)
{
	static const char * const wrong[][2] = {
		{ "around", "others" }, { "fetch_around", "elsewhere" },
		{ "lookup", "error" }, { "match", "error" },
		{ "publish", "hold" }, { "ahead", "outside" },
	};
	struct dmm_mem other = other_mem();
	unsigned int i;

	ASSERT_EQ(0, dmm_pool_set(self->ino, "domain", "a"));
	reclaim_all(_metadata, self->ino);
	bad_set(self->ino, "dup_token", "half");
	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		bad_set(self->ino, wrong[i][0], wrong[i][1]);
	bad_set(self->ino, "sleep_ms", "1");
	/* Reads that publish, writes that copy or take over, and a clone. */
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 64, 1));
	dmm_guest_fill(self->guest, DMM_GPA + 32 * DMM_PAGE, 64, 1);
	EXPECT_EQ(0, ioctl(other.fd, FICLONE, self->mem.fd));
	dmm_guest_fill(self->guest, DMM_GPA, 64, 1);
	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		EXPECT_LT(0, bad_count(self->ino, wrong[i][0])) {
			TH_LOG("%s", wrong[i][0]);
		}
	EXPECT_LT(0, bad_count(self->ino, "dup_token"));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES, 1));
	EXPECT_TRUE(dmm_pool_ok(other.ino));
	dmm_mem_free(&other);
	bad_recover(_metadata, self->guest, self->ino);
}

TEST_HARNESS_MAIN
