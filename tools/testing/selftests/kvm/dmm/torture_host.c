// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the torture's processes do with the memory of guests.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "torture.h"

#define PUNCH		(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO		(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)
#define PIPE_PAGES	16UL
#define DISK_BYTES	(1UL << 20)	/* for each actor */
#define DISK_PARTS	8UL

/* One access: what torture_try() runs. */
struct access {
	const struct torture_range *range;
	void *mem;
	const uint64_t *tags;
	const char *where;
};

static int disk = -1;

void torture_host_init(void)
{
	disk = open("/dev/zram0", O_RDWR | O_DIRECT);
	if (disk >= 0 && lseek(disk, 0, SEEK_END) <
			 (off_t)(DISK_PARTS * DISK_BYTES)) {
		close(disk);
		disk = -1;
	}
	if (disk < 0)
		printf("# no /dev/zram0 of %lu MiB: no direct I/O\n",
		       DISK_PARTS * DISK_BYTES >> 20);
}

static int file_fd(const struct torture_range *range)
{
	return torture_files[range->file].mem.fd;
}

static void do_check(void *p)
{
	struct access *access = p;

	torture_verify(access->range, access->mem, access->where);
}

static void do_fill(void *p)
{
	struct access *access = p;
	uint64_t i;

	for (i = 0; i < access->range->n; i++)
		dmm_tag_fill(access->mem + i * DMM_PAGE, access->tags[i]);
}

static void check_mapped(const struct torture_range *range, void *mem,
			 const char *where)
{
	struct access access = { .range = range, .mem = mem, .where = where };
	unsigned int tries = 0;

	while (!torture_try(do_check, &access))
		torture_relieve(range->file, tries++, where);
}

static void fill_mapped(const struct torture_range *range, void *mem,
			const uint64_t *tags)
{
	struct access access = { .range = range, .mem = mem, .tags = tags };
	unsigned int tries = 0;

	while (!torture_try(do_fill, &access))
		torture_relieve(range->file, tries++, "a write by mapping");
	torture_set_tags(range, tags);
}

static void op_map(struct torture_range *range)
{
	uint64_t tags[DMM_TAGS_MAX];

	torture_log("map %u %#lx+%lu", range->file, range->first, range->n);
	check_mapped(range, torture_hva(range), "mapping");
	if (torture_rand(2)) {
		torture_new_tags(range, tags);
		fill_mapped(range, torture_hva(range), tags);
	}
}

static void *buffer(void)
{
	static __thread void *buf;

	if (!buf)
		buf = mmap(NULL, DMM_TAGS_MAX * DMM_PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(buf != MAP_FAILED, "mmap() failed");
	return buf;
}

/* read() or write() all, of a file or of the disk, whatever it takes. */
static void all_of(const struct torture_range *range, const char *what, int fd,
		   void *mem, off_t pos, bool write)
{
	size_t len = range->n * DMM_PAGE, done = 0;
	unsigned int tries = 0;
	ssize_t n;

	while (done < len) {
		n = write ? pwrite(fd, mem + done, len - done, pos + done) :
			    pread(fd, mem + done, len - done, pos + done);
		if (n > 0) {
			/* Direct I/O wants whole sectors. */
			done += fd == disk ? n & ~(DMM_PAGE - 1) : n;
			continue;
		}
		if (n < 0 && errno != ENOMEM && errno != ENOSPC &&
		    errno != EFAULT && errno != EAGAIN)
			torture_fail("%s of file %u: %s", what, range->file,
				     strerror(errno));
		if (!n)
			torture_fail("%s of file %u ends at %lu", what,
				     range->file, done);
		torture_relieve(range->file, tries++, what);
	}
}

static void op_read(struct torture_range *range)
{
	torture_log("read %u %#lx+%lu", range->file, range->first, range->n);
	all_of(range, "read()", file_fd(range), buffer(),
	       range->first * DMM_PAGE, false);
	torture_verify(range, buffer(), "read()");
}

static void fill_buffer(const struct torture_range *range, const uint64_t *tags)
{
	uint64_t i;

	for (i = 0; i < range->n; i++)
		dmm_tag_fill(buffer() + i * DMM_PAGE, tags[i]);
}

static void op_write(struct torture_range *range)
{
	uint64_t tags[DMM_TAGS_MAX];

	torture_log("write %u %#lx+%lu", range->file, range->first, range->n);
	torture_new_tags(range, tags);
	fill_buffer(range, tags);
	all_of(range, "write()", file_fd(range), buffer(),
	       range->first * DMM_PAGE, true);
	torture_set_tags(range, tags);
}

static void allocate(const struct torture_range *range, int mode,
		     const char *what)
{
	unsigned int tries = 0;

	while (fallocate(file_fd(range), mode, range->first * DMM_PAGE,
			 range->n * DMM_PAGE)) {
		if (errno != ENOMEM && errno != ENOSPC)
			torture_fail("%s of file %u: %s", what, range->file,
				     strerror(errno));
		torture_relieve(range->file, tries++, what);
	}
}

static void op_punch(struct torture_range *range)
{
	torture_log("punch %u %#lx+%lu", range->file, range->first, range->n);
	allocate(range, PUNCH, "punching");
	torture_set_tags(range, NULL);
	if (torture_rand(2))
		check_mapped(range, torture_hva(range), "mapping of a hole");
}

static void op_zero(struct torture_range *range)
{
	torture_log("zero %u %#lx+%lu", range->file, range->first, range->n);
	allocate(range, ZERO, "zeroing");
	torture_set_tags(range, NULL);
}

static void op_allocate(struct torture_range *range)
{
	torture_log("allocate %u %#lx+%lu", range->file, range->first, range->n);
	allocate(range, 0, "allocation");
}

/* 2 MiB at once: they may become a block. */
static void op_region(struct torture_range *range)
{
	struct torture_range r;

	torture_disown(range);
	r = torture_own_exactly(range->file,
				range->first & ~(DMM_BLOCK / DMM_PAGE - 1),
				DMM_BLOCK / DMM_PAGE);
	torture_log("region %u %#lx", r.file, r.first);
	allocate(&r, PUNCH, "punching");
	torture_set_tags(&r, NULL);
	if (torture_rand(2))
		allocate(&r, 0, "allocation");
	torture_disown(&r);
	*range = torture_own(r.file, 1);
}

static void op_advise(struct torture_range *range)
{
	int advice = torture_rand(2) ? POSIX_FADV_DONTNEED : POSIX_FADV_WILLNEED;
	uint64_t first = torture_rand(TORTURE_PAGES);
	int r;

	torture_log("advise %u %#lx %d", range->file, first, advice);
	r = posix_fadvise(file_fd(range), first * DMM_PAGE,
			  torture_rand(512) * DMM_PAGE, advice);
	/* What is wanted may not fit below the limit, or be beyond the end. */
	if (r && r != ENOMEM && r != EFAULT)
		torture_fail("posix_fadvise(): %s", strerror(r));
}

/* Direct I/O to and from guest memory. */
static void op_direct(struct torture_range *range)
{
	static __thread unsigned long part;
	static unsigned long parts;
	uint64_t tags[DMM_TAGS_MAX];
	off_t pos;

	if (disk < 0)
		return;
	if (!part)
		part = __sync_add_and_fetch(&parts, 1);
	TEST_ASSERT(part <= DISK_PARTS, "Too many actors for the disk");
	pos = (part - 1) * DISK_BYTES +
	      torture_rand(DISK_BYTES / DMM_PAGE - range->n) * DMM_PAGE;
	torture_log("direct %u %#lx+%lu", range->file, range->first, range->n);
	all_of(range, "direct write", disk, torture_hva(range), pos, true);
	all_of(range, "direct read", disk, buffer(), pos, false);
	torture_verify(range, buffer(), "direct I/O");
	torture_new_tags(range, tags);
	fill_buffer(range, tags);
	all_of(range, "direct write", disk, buffer(), pos, true);
	all_of(range, "direct read", disk, torture_hva(range), pos, false);
	torture_set_tags(range, tags);
	check_mapped(range, torture_hva(range), "mapping after direct I/O");
}

/* A pipe holds pages while others try to take them out; a hole leaves them. */
static void op_pin(struct torture_range *owned)
{
	struct torture_range range = *owned;
	struct iovec iov = { .iov_base = torture_hva(&range) };
	int fds[2], what = torture_rand(3);
	size_t want, done = 0;
	ssize_t n;

	range.n = min(range.n, PIPE_PAGES);
	iov.iov_len = range.n * DMM_PAGE;
	torture_log("pin %u %#lx+%lu, %d", range.file, range.first, range.n,
		    what);
	TEST_ASSERT(!pipe(fds), "pipe() failed");
	n = vmsplice(fds[1], &iov, 1, SPLICE_F_NONBLOCK);
	if (n > 0) {
		range.n = n / DMM_PAGE;
		want = range.n * DMM_PAGE;
		if (what == 0)
			posix_fadvise(file_fd(&range), range.first * DMM_PAGE,
				      want, POSIX_FADV_DONTNEED);
		else if (what == 1)
			allocate(&range, PUNCH, "punching");
		usleep(torture_rand(5000));
		while (done < want) {
			n = read(fds[0], buffer() + done, want - done);
			if (n <= 0)
				torture_fail("read() of a pipe: %zd", n);
			done += n;
		}
		torture_verify(&range, buffer(), "pipe");
		if (what == 1)
			torture_set_tags(&range, NULL);
	}
	close(fds[0]);
	close(fds[1]);
}

static void op_lock(struct torture_range *range)
{
	void *hva = torture_hva(range);
	int r;

	torture_log("lock %u %#lx+%lu", range->file, range->first, range->n);
	/* It may not fit below the limit: then nothing is locked. */
	r = mlock(hva, range->n * DMM_PAGE);
	usleep(torture_rand(2000));
	check_mapped(range, hva, r ? "mapping" : "locked mapping");
	munlock(hva, range->n * DMM_PAGE);
}

/* A mapping of one's own, read-only at first. */
static void op_remap(struct torture_range *range)
{
	size_t len = range->n * DMM_PAGE;
	uint64_t tags[DMM_TAGS_MAX];
	void *mem;

	torture_log("remap %u %#lx+%lu", range->file, range->first, range->n);
	mem = mmap(NULL, len, PROT_READ, MAP_SHARED, file_fd(range),
		   range->first * DMM_PAGE);
	TEST_ASSERT(mem != MAP_FAILED, "mmap() failed");
	check_mapped(range, mem, "new mapping");
	TEST_ASSERT(!mprotect(mem, len, PROT_READ | PROT_WRITE),
		    "mprotect() failed");
	if (torture_rand(2)) {
		torture_new_tags(range, tags);
		fill_mapped(range, mem, tags);
	} else if (torture_rand(2)) {
		madvise(mem, len, MADV_DONTNEED);
	}
	check_mapped(range, torture_hva(range), "old mapping");
	munmap(mem, len);
}

static void op_fork(struct torture_range *range)
{
	int status, pid;
	uint64_t i;

	torture_log("fork %u %#lx+%lu", range->file, range->first, range->n);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork() failed");
	if (!pid) {
		signal(SIGBUS, SIG_DFL);
		for (i = 0; i < range->n; i++)
			if (dmm_tag_bad(torture_hva(range) + i * DMM_PAGE,
					torture_tags(range)[i]))
				_exit(1);
		_exit(0);
	}
	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
		torture_wrong(range, "a child");
}

static void clone_range(const struct torture_range *from,
			const struct torture_range *to)
{
	struct file_clone_range arg = {
		.src_fd = file_fd(from),
		.src_offset = from->first * DMM_PAGE,
		.src_length = from->n * DMM_PAGE,
		.dest_offset = to->first * DMM_PAGE,
	};
	unsigned int tries = 0;

	while (ioctl(file_fd(to), FICLONERANGE, &arg)) {
		if (errno != ENOMEM && errno != ENOSPC)
			torture_fail("FICLONERANGE: %s", strerror(errno));
		torture_relieve(from->file, tries, "cloning from");
		torture_relieve(to->file, tries++, "cloning to");
	}
}

/* Pages of another file, or of the same. */
static void op_clone(struct torture_range *range)
{
	struct torture_range from = *range, to;
	uint64_t tags[DMM_TAGS_MAX];

	/* Any will do that nobody owns: no deadlock. */
	to = torture_own(-1, from.n);
	from.n = to.n;
	torture_log("clone %u %#lx+%lu to %u %#lx", from.file, from.first,
		    from.n, to.file, to.first);
	memcpy(tags, torture_tags(&from), from.n * sizeof(*tags));
	clone_range(&from, &to);
	torture_set_tags(&to, tags);
	check_mapped(&to, torture_hva(&to), "mapping of a clone");
	torture_disown(&to);
}

static void do_check_copy(void *p)
{
	struct access *access = p;
	uint64_t i;

	for (i = 0; i < access->range->n; i++)
		if (dmm_tag_bad(access->mem + i * DMM_PAGE, access->tags[i]))
			torture_fail("page %#lx of a %s of file %u is not %#lx",
				     access->range->first + i, access->where,
				     access->range->file, access->tags[i]);
}

/*
 * A file of its own, with the range where it was.  Its only limit is its size: what
 * it needs it must get, though not at once.
 */
static void check_copy(const struct torture_range *range, const uint64_t *tags,
		       struct dmm_mem *copy, const char *what,
		       void (*fn)(void *p))
{
	struct access access = {
		.range = range,
		.mem = copy->hva + range->first * DMM_PAGE,
		.tags = tags,
		.where = what,
	};
	unsigned int tries = 0;

	while (!torture_try(fn, &access)) {
		torture_count("copy at its limit");
		if (tries++ < 30)
			continue;
		torture_pool(copy->ino);
		torture_fail("a %s of file %u fails for ever", what,
			     range->file);
	}
}

/* A clone of all of a file, while others work on it. */
static void op_snapshot(struct torture_range *range)
{
	uint64_t tags[DMM_TAGS_MAX];
	unsigned int tries = 0;
	struct dmm_mem clone;

	torture_log("snapshot %u %#lx+%lu", range->file, range->first, range->n);
	clone = dmm_mem_create(TORTURE_SIZE);
	while (ioctl(clone.fd, FICLONE, file_fd(range))) {
		/* EINVAL: the file ends within a page just now. */
		if (errno != ENOMEM && errno != ENOSPC && errno != EINVAL)
			torture_fail("FICLONE: %s", strerror(errno));
		torture_relieve(range->file, tries++, "a snapshot");
	}
	if (torture_rand(2))
		dmm_pool_set(clone.ino, "policies", "+test-token");
	if (torture_rand(2))
		dmm_pool_set(clone.ino, "policies", "+swap");
	check_copy(range, torture_tags(range), &clone, "clone", do_check_copy);
	torture_check(clone.ino);

	/* Writes to either do not show in the other. */
	torture_new_tags(range, tags);
	check_copy(range, tags, &clone, "clone", do_fill);
	check_mapped(range, torture_hva(range), "mapping of what was cloned");
	if (torture_rand(2)) {
		uint64_t other[DMM_TAGS_MAX];

		torture_new_tags(range, other);
		fill_mapped(range, torture_hva(range), other);
		check_copy(range, tags, &clone, "clone", do_check_copy);
	}
	torture_check(clone.ino);
	dmm_mem_free(&clone);
}

/* A sparse image of a file that has nothing but the range. */
static int make_image(const struct torture_range *range, char *path)
{
	uint64_t i, *tags = torture_tags(range);
	int fd = mkstemp(path);

	if (fd < 0 || ftruncate(fd, TORTURE_SIZE))
		torture_fail("no image: %s", strerror(errno));
	fill_buffer(range, tags);
	for (i = 0; i < range->n; i++)
		if (tags[i] && pwrite(fd, buffer() + i * DMM_PAGE, DMM_PAGE,
				      (range->first + i) * DMM_PAGE) != DMM_PAGE)
			torture_fail("writing an image: %s", strerror(errno));
	return fd;
}

/* Must not fail, in a pool of its own. */
static void set_copy(const struct dmm_mem *copy, const char *file,
		     const char *value)
{
	int r = dmm_pool_set(copy->ino, file, value);

	if (r)
		torture_fail("%s of a restored file = %s: %d", file, value, r);
}

/* Somebody may unload the module between its loading and its use. */
static void attach_restore(const struct dmm_mem *copy)
{
	unsigned int tries = 0;
	int r;

	while ((r = dmm_pool_set(copy->ino, "policies", "+restore"))) {
		if (r != -ENOENT || tries++ > 100)
			torture_fail("attaching restore: %d", r);
		torture_count("module gone");
		usleep(tries * 1000);
	}
}

/* An image of what the range has comes in, and goes into the file. */
static void op_restore(struct torture_range *range)
{
	char path[] = "/tmp/torture-image-XXXXXX";
	int image = make_image(range, path);
	struct file_clone_range back = {
		.src_offset = range->first * DMM_PAGE,
		.src_length = range->n * DMM_PAGE,
		.dest_offset = range->first * DMM_PAGE,
	};
	uint64_t tags[DMM_TAGS_MAX];
	unsigned int tries = 0;
	struct dmm_mem copy;
	int r;

	torture_log("restore %u %#lx+%lu", range->file, range->first, range->n);
	copy = dmm_mem_create(TORTURE_SIZE);
	set_copy(&copy, "domain", torture_rand(2) ? "a" : "b");
	attach_restore(&copy);
	if (torture_rand(2))
		dmm_pool_set(copy.ino, "policies", "+swap");
	if (torture_rand(2))
		dmm_pool_set(copy.ino, "policies", "+share");
	if (torture_rand(2))
		set_copy(&copy, "restore/rate_bytes", "0");
	set_copy(&copy, "restore/image", path);
	unlink(path);
	close(image);
	if (torture_rand(2))
		check_copy(range, torture_tags(range), &copy, "restored copy",
			   do_check_copy);

	/* The same content: nobody may notice. */
	back.src_fd = copy.fd;
	while (ioctl(file_fd(range), FICLONERANGE, &back)) {
		if (errno != ENOMEM && errno != ENOSPC)
			torture_fail("FICLONERANGE of an image: %s",
				     strerror(errno));
		torture_relieve(range->file, tries++, "cloning an image");
	}
	torture_check(copy.ino);
	torture_new_tags(range, tags);
	check_copy(range, tags, &copy, "restored copy", do_fill);
	check_mapped(range, torture_hva(range), "mapping of what was restored");
	if (torture_rand(2)) {
		r = dmm_pool_set(copy.ino, "policies", "-restore");
		/* What remains may not fit below the limit just now. */
		if (r && r != -EBUSY)
			torture_fail("detaching restore: %d", r);
	}
	check_copy(range, tags, &copy, "restored copy", do_check_copy);
	dmm_mem_free(&copy);
}

static void resize(const struct torture_range *range, off_t size)
{
	unsigned int tries = 0;

	while (ftruncate(file_fd(range), size)) {
		if (errno != ENOMEM && errno != ENOSPC)
			torture_fail("ftruncate(): %s", strerror(errno));
		torture_relieve(range->file, tries++, "a resize");
	}
}

/* The end of the file goes and comes back, empty. */
static void op_truncate(struct torture_range *range)
{
	uint64_t n = 1 + torture_rand(DMM_TAGS_MAX);
	unsigned int file = range->file;

	torture_disown(range);
	*range = torture_own_exactly(file, TORTURE_PAGES - n, n);
	torture_log("truncate %u %#lx", file, range->first);
	check_mapped(range, torture_hva(range), "mapping of the end");
	/* Whole pages, or nearly: the rest of a page reads as zero. */
	resize(range, range->first * DMM_PAGE + torture_rand(2) * 64);
	usleep(torture_rand(1000));
	resize(range, TORTURE_SIZE);
	range->n--;
	range->first++;
	torture_set_tags(range, NULL);
	check_mapped(range, torture_hva(range), "mapping of a new end");
	range->n++;
	range->first--;
	allocate(range, PUNCH, "punching");
	torture_set_tags(range, NULL);
}

static const struct torture_op ops[] = {
	{ 20, "map", op_map },
	{ 8, "read", op_read },
	{ 8, "write", op_write },
	{ 6, "punch", op_punch },
	{ 2, "zero", op_zero },
	{ 2, "allocate", op_allocate },
	{ 2, "region", op_region },
	{ 4, "advise", op_advise },
	{ 6, "direct", op_direct },
	{ 6, "pin", op_pin },
	{ 2, "lock", op_lock },
	{ 6, "remap", op_remap },
	{ 1, "fork", op_fork },
	{ 8, "clone", op_clone },
	{ 3, "snapshot", op_snapshot },
	{ 3, "restore", op_restore },
	{ 3, "truncate", op_truncate },
};

void torture_host(void *arg)
{
	const struct torture_op *op = torture_pick(ops, ARRAY_SIZE(ops));
	struct torture_range range;

	range = torture_own(-1, torture_rand(4) ? 8 : DMM_TAGS_MAX);
	op->on_range(&range);
	torture_disown(&range);
	torture_count(op->name);
}
