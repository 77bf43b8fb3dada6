// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's own check of a pool: content with every kind of entry, and not
 * with a map that allows less than page tables do.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "dmm_util.h"
#include "kselftest_harness.h"

#define SIZE	(8UL << 20)
#define PAGES	(SIZE / DMM_PAGE)
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(check) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
	char *buf;
};

FIXTURE_SETUP(check)
{
	if (access("/sys/kernel/debug/kvm_dmm", F_OK))
		SKIP(return, "no debugfs");

	self->buf = malloc(DMM_CHECK_SIZE);
	self->mem = dmm_mem_create_exact(SIZE);
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(check)
{
	dmm_guest_free(self->guest);
	dmm_mem_free(&self->mem);
	free(self->buf);
}

static void *page(struct dmm_mem *mem, uint64_t index)
{
	return mem->hva + index * DMM_PAGE;
}

/* Does the check tell @what if it takes a page for something else? */
static bool tells(struct dmm_mem *mem, const char *pretend, const char *what,
		  char *buf)
{
	if (dmm_pool_check(mem->ino, pretend, buf))
		return false;
	if (strstr(buf, what))
		return true;
	printf("# %s: no \"%s\" in\n%s", pretend, what, buf);
	return false;
}

/* Does it find a page table of @whom that allows more than if...? */
static bool finds(struct dmm_mem *mem, const char *what, uint64_t index,
		  const char *whom, char *buf)
{
	char pretend[64], line[64];

	snprintf(pretend, sizeof(pretend), "%s %lu", what, index);
	snprintf(line, sizeof(line), "%#lx: a %s maps ", index, whom);
	return tells(mem, pretend, line, buf);
}

/* No page table has that page, though the map may lack it. */
static bool finds_nothing(struct dmm_mem *mem, const char *what, uint64_t index,
			  char *buf)
{
	char pretend[64], line[64];

	snprintf(pretend, sizeof(pretend), "%s %lu", what, index);
	snprintf(line, sizeof(line), "%#lx: a ", index);
	dmm_pool_check(mem->ino, pretend, buf);
	return !strstr(buf, line);
}

static void counts(const char *buf, unsigned long *entries,
		   unsigned long *translations)
{
	int n = sscanf(buf, "ok: %lu entries, %lu translations", entries,
		       translations);

	TEST_ASSERT(n == 2, "Not two numbers: %s", buf);
}

DMM_TEST(check, frames)
{
	unsigned long entries, translations;

	EXPECT_TRUE(dmm_pool_check(self->mem.ino, NULL, self->buf));
	EXPECT_EQ(0, strcmp(self->buf, "ok: 0 entries, 0 translations\n"));

	dmm_guest_fill(self->guest, DMM_GPA, 100, 1);
	EXPECT_TRUE(dmm_pool_check(self->mem.ino, NULL, self->buf));
	counts(self->buf, &entries, &translations);
	EXPECT_EQ(100, entries);
	EXPECT_LE(100, translations);

	/* The same in the page tables of a process. */
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 100, 1));
	EXPECT_TRUE(dmm_pool_check(self->mem.ino, NULL, self->buf));
	counts(self->buf, &entries, &translations);
	EXPECT_EQ(100, entries);
	EXPECT_LE(200, translations);

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, SIZE));
	EXPECT_TRUE(dmm_pool_check(self->mem.ino, NULL, self->buf));
	EXPECT_EQ(0, strcmp(self->buf, "ok: 0 entries, 0 translations\n"));
}

DMM_TEST(check, page_of_zeros)
{
	EXPECT_EQ(0, dmm_guest_nonzero_pages(self->guest, DMM_GPA, 16));
	EXPECT_EQ(0, dmm_nonzero_pages(self->mem.hva, 32));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(finds_nothing(&self->mem, "protected", 5, self->buf));
	EXPECT_TRUE(finds(&self->mem, "absent", 5, "guest", self->buf));
	EXPECT_TRUE(finds(&self->mem, "absent", 30, "process", self->buf));

	dmm_guest_poke(self->guest, DMM_GPA + 5 * DMM_PAGE, 1);
	*(uint64_t *)page(&self->mem, 6) = 1;
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

/* What a page table has is found, and is held against the map. */
DMM_TEST(check, finds_guests)
{
	dmm_guest_fill(self->guest, DMM_GPA, 10, 1);
	EXPECT_TRUE(finds(&self->mem, "absent", 3, "guest", self->buf));
	EXPECT_TRUE(finds(&self->mem, "protected", 3, "guest", self->buf));
	/* The same reader, another page: nothing is there. */
	EXPECT_TRUE(finds_nothing(&self->mem, "absent", 100, self->buf));

	/* Gone with the slot. */
	dmm_guest_del_slot(self->guest, DMM_SLOT);
	EXPECT_TRUE(finds_nothing(&self->mem, "absent", 3, self->buf));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

DMM_TEST(check, finds_processes)
{
	void *other;

	dmm_fill(self->mem.hva, 0, 10, 1);
	EXPECT_TRUE(finds(&self->mem, "absent", 3, "process", self->buf));
	EXPECT_TRUE(finds(&self->mem, "protected", 3, "process", self->buf));

	/* In a second mapping only, which begins elsewhere in the file. */
	dmm_mem_unmap(&self->mem);
	other = mmap(NULL, 8 * DMM_PAGE, PROT_READ, MAP_SHARED, self->mem.fd,
		     2 * DMM_PAGE);
	ASSERT_NE(MAP_FAILED, other);
	EXPECT_TRUE(finds_nothing(&self->mem, "absent", 3, self->buf));
	EXPECT_EQ(0, dmm_bad_pages(other + DMM_PAGE, 3, 1, 1));
	EXPECT_TRUE(finds(&self->mem, "absent", 3, "process", self->buf));
	/* Read-only. */
	EXPECT_TRUE(finds_nothing(&self->mem, "protected", 3, self->buf));
	munmap(other, 8 * DMM_PAGE);
}

/* Whose a frame is, and how many there are. */
DMM_TEST(check, finds_owners)
{
	struct dmm_mem *mem = &self->mem;

	dmm_fill(self->mem.hva, 0, 10, 1);
	EXPECT_TRUE(tells(mem, "as 3 4", "is that of 0x4\n", self->buf));
	/* There are as many as before. */
	EXPECT_EQ(NULL, strstr(self->buf, "are charged"));
	EXPECT_TRUE(tells(mem, "as 100 4", "0x64: the frame ", self->buf));
	EXPECT_TRUE(tells(mem, "as 100 4", "10 frames are charged, there are 11\n",
			  self->buf));
	EXPECT_TRUE(tells(mem, "absent 4", "10 frames are charged, there are 9\n",
			  self->buf));
	EXPECT_TRUE(dmm_pool_ok(mem->ino));
}

DMM_TEST(check, finds_the_end)
{
	struct dmm_mem mem = dmm_mem_create_exact(SIZE - DMM_PAGE);

	dmm_fill(mem.hva, 0, PAGES - 1, 1);
	EXPECT_TRUE(dmm_pool_ok(mem.ino));
	EXPECT_TRUE(tells(&mem, "as 2047 2046", "is behind the end of the file",
			  self->buf));
	dmm_mem_free(&mem);
}

DMM_TEST(check, blocks)
{
	dmm_compact();
	ASSERT_EQ(0, fallocate(self->mem.fd, 0, 0, SIZE));
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "huge_bytes"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(finds(&self->mem, "protected", 700, "guest", self->buf));
	/* The check itself takes no block apart. */
	EXPECT_EQ(SIZE, dmm_pool_get(self->mem.ino, "huge_bytes"));

	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 700 * DMM_PAGE, DMM_PAGE));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_EQ(SIZE - DMM_BLOCK, dmm_pool_get(self->mem.ino, "huge_bytes"));
	EXPECT_EQ(1, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

DMM_TEST(check, tokens)
{
	if (!dmm_policy_loaded("test-token"))
		SKIP(return, "no policy test-token");

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-token"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "test-token/keep", "1"));
	dmm_guest_fill(self->guest, DMM_GPA, 300, 1);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 300, 1));
	ASSERT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "reclaim",
					200 * DMM_PAGE));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(tells(&self->mem, "absent 10", "200 tokens are counted, there are 199\n",
			  self->buf));
	EXPECT_TRUE(tells(&self->mem, "lost 10", "0xa: nobody has the content", self->buf));
	EXPECT_EQ(NULL, strstr(self->buf, "are counted"));

	/* They come back, kept: page tables of both may only read. */
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, 300, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 300, 1));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(finds_nothing(&self->mem, "protected", 10, self->buf));
	EXPECT_TRUE(finds(&self->mem, "absent", 10, "guest", self->buf));
	dmm_guest_fill(self->guest, DMM_GPA, 100, 2);
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(finds(&self->mem, "protected", 10, "guest", self->buf));
	EXPECT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-test-token"));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

static int make_one(unsigned long ino, uint64_t to, uint64_t from)
{
	char value[64];

	snprintf(value, sizeof(value), "%lu %lu", to, from);
	return dmm_pool_set(ino, "test-share/merge", value);
}

DMM_TEST(check, shared_frames)
{
	uint64_t i;

	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no policy test-share");

	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "+test-share"));
	for (i = 0; i < 20; i++)
		dmm_fill(page(&self->mem, i), 0, 1, 1);
	for (i = 0; i < 20; i++)
		EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, i), 0, 1, 1));
	for (i = 1; i < 20; i++)
		ASSERT_EQ(0, make_one(self->mem.ino, 0, i));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	for (i = 0; i < 20; i++) {
		dmm_guest_peek(self->guest, DMM_GPA + i * DMM_PAGE);
		EXPECT_EQ(0, dmm_bad_pages(page(&self->mem, i), 0, 1, 1));
	}
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(finds_nothing(&self->mem, "protected", 7, self->buf));
	EXPECT_TRUE(tells(&self->mem, "protected 7", "is no entry", self->buf));
	EXPECT_TRUE(finds(&self->mem, "absent", 7, "guest", self->buf));
	EXPECT_TRUE(finds(&self->mem, "absent", 7, "process", self->buf));
	EXPECT_TRUE(tells(&self->mem, "absent 7", "has a user that does not use it",
			  self->buf));
	EXPECT_TRUE(tells(&self->mem, "absent 7", "20 shared entries are counted, there are 19\n",
			  self->buf));
	EXPECT_TRUE(tells(&self->mem, "as 100 7", "does not know this user", self->buf));
	EXPECT_TRUE(tells(&self->mem, "as 100 7", "20 shared entries are counted, there are 21\n",
			  self->buf));

	for (i = 0; i < 20; i++) {
		dmm_guest_poke(self->guest, DMM_GPA + i * DMM_PAGE, i);
		EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	}
}

/* Frames that clones share, with a handle and without. */
DMM_TEST(check, clones)
{
	struct dmm_mem clone, moved;
	bool policy = dmm_policy_loaded("test-share");
	uint64_t i;

	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
	clone = dmm_mem_create(SIZE);
	moved = dmm_mem_create(SIZE);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "domain", "check"));
	ASSERT_EQ(0, dmm_pool_set(clone.ino, "domain", "check"));
	ASSERT_EQ(0, dmm_pool_set(moved.ino, "domain", "check"));
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(dmm_pool_ok(clone.ino));
	EXPECT_EQ(0, dmm_bad_pages(clone.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	EXPECT_TRUE(dmm_pool_ok(clone.ino));
	EXPECT_TRUE(finds_nothing(&self->mem, "protected", 7, self->buf));
	EXPECT_TRUE(finds(&clone, "absent", 7, "process", self->buf));

	/* A frame that one of two clones lacks, or has elsewhere. */
	EXPECT_TRUE(tells(&clone, "absent 7", "2048 shared entries are counted, there are 2047\n",
			  self->buf));
	EXPECT_TRUE(tells(&clone, "as 8 7", "1 shared frames count users that do not exist\n",
			  self->buf));

	/* At other offsets, and users of both kinds at once. */
	ASSERT_EQ(0, ioctl(moved.fd, FICLONERANGE, &(struct file_clone_range) {
		.src_fd = clone.fd, .src_offset = 0, .src_length = SIZE / 2,
		.dest_offset = SIZE / 2,
	}));
	if (policy) {
		ASSERT_EQ(0, dmm_pool_set(clone.ino, "policies", "+test-share"));
		for (i = 0; i < 8; i++) {
			dmm_fill(page(&clone, PAGES - 1 - i), i, 1, 1);
			EXPECT_EQ(0, make_one(clone.ino, i, PAGES - 1 - i));
		}
	}
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(dmm_pool_ok(clone.ino));
	EXPECT_TRUE(dmm_pool_ok(moved.ino));

	/* All are written, or leave, in turn. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 2);
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	EXPECT_TRUE(dmm_pool_ok(clone.ino));
	ASSERT_EQ(0, fallocate(clone.fd, PUNCH, 0, SIZE / 4));
	EXPECT_TRUE(dmm_pool_ok(clone.ino));
	EXPECT_TRUE(dmm_pool_ok(moved.ino));
	EXPECT_EQ(0, dmm_bad_pages(moved.hva + SIZE / 2, 0, PAGES / 2, 1));
	dmm_mem_free(&clone);
	EXPECT_TRUE(dmm_pool_ok(moved.ino));
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	dmm_mem_free(&moved);
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

/* Over and over, while all of it changes. */
DMM_TEST(check, while_it_changes)
{
	bool policy = dmm_policy_loaded("test-token");
	int i, r;

	if (policy)
		ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies",
					  "+test-token"));
	dmm_guest_start(self->guest, 0, DMM_OP_COUNT, DMM_GPA, PAGES / 2, 0);
	dmm_guest_start(self->guest, 1, DMM_OP_STORM, DMM_GPA + SIZE / 2,
			PAGES / 2, 0);
	dmm_guest_wait_rounds(self->guest, 0, 1);
	for (i = 0; i < 30; i++) {
		if (policy) {
			r = dmm_pool_set_bytes(self->mem.ino, "reclaim",
					       64 * DMM_PAGE);
			/* There may be fewer. */
			EXPECT_TRUE(!r || r == -EAGAIN);
		}
		EXPECT_EQ(0, fallocate(self->mem.fd, PUNCH,
				       SIZE / 2 + i * 8 * DMM_PAGE,
				       100 * DMM_PAGE));
		EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
	}
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_stop(self->guest, 1));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

DMM_TEST(check, bad_input)
{
	static const char * const bad[] = {
		"", "absent", "absent x", "present 3", "3", "absent -", "as 3",
		"as 3 x", "absent 3 4",
		"protectedprotectedprotectedprotectedprotectedprotectedprotected 1",
	};
	char path[64];
	unsigned int i;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm_dmm/%lu/check",
		 self->mem.ino);
	for (i = 1; i < ARRAY_SIZE(bad); i++)
		EXPECT_EQ(-EINVAL, dmm_write_file(path, bad[i],
						  strlen(bad[i])));
	EXPECT_EQ(0, dmm_write_file(path, "absent 3", 8));
	/* What one reader pretends is nothing to the next. */
	dmm_guest_fill(self->guest, DMM_GPA, 10, 1);
	EXPECT_TRUE(dmm_pool_ok(self->mem.ino));
}

TEST_HARNESS_MAIN
