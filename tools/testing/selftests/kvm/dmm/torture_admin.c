// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the torture's administrator does: policies, limits and tunables, with no
 * regard to anybody.  Requests may be refused; content must not notice.
 */
#include <sys/syscall.h>

#include "torture.h"

/* Files that pages are written to, too small for all of them. */
#define BACKINGS	2
#define BACKING_BYTES	(3 * TORTURE_SIZE / 2)

static const char * const policies[] = {
	"demand", "swap", "share", "restore", "test-token", "test-share",
};

static char backings[BACKINGS][32];

static const char * const modules[] = {
	"kvm_dmm_swap", "kvm_dmm_share", "kvm_dmm_restore",
	"kvm_dmm_test_token", "kvm_dmm_test_share", "kvm_dmm_demand",
};

/* Tunables, and values that nobody in his senses would choose. */
static const struct {
	const char *file;
	const char *values[6];
} tunables[] = {
	{ "demand/fault_around_bytes", { "4K", "2M", "64K", "default" } },
	{ "demand/block", { "never", "always", "adaptive" } },
	{ "demand/rebuild_rate", { "0", "1G", "16M" } },
	{ "swap/compressor", { "lz4", "zstd" } },
	{ "swap/cold_after_ms", { "0", "1", "20", "1000" } },
	{ "swap/max_compressed_percent", { "0", "10", "80", "100" } },
	{ "swap/pages_per_second", { "0", "1", "1000000", "default" } },
	{ "swap/refaults_per_second", { "0", "1000000", "default" } },
	{ "swap/writeback", { "4K", "1M", "32M" } },
	{ "share/run", { "0", "1" } },
	{ "share/max_cpu_percent", { "1", "100" } },
	{ "share/full_scan_seconds", { "0", "1" } },
	{ "share/pages_per_second", { "0", "100", "4000000000" } },
	{ "share/break_blocks", { "never", "pressure", "always" } },
	{ "share/timing_safe", { "0", "1" } },
	{ "share/unmerge", { "1" } },
	{ "restore/record", { "/tmp/torture-order", "\n" } },
	{ "restore/order", { "/tmp/torture-order", "\n" } },
	{ "restore/rate_bytes", { "0", "1M", "default" } },
	{ "test-token/keep", { "0", "1" } },
	{ "test-token/second_chance", { "0", "1" } },
};

/* What no request to a pool may end with: content that cannot be had. */
static void judge(const char *file, const char *value, int r)
{
	torture_count(r ? "request refused" : "request");
	switch (r) {
	case -EIO:
	case -EFAULT:
	case -EUCLEAN:
	case -EHWPOISON:
		torture_fail("writing %s to %s: %s", value, file, strerror(-r));
	}
}

static void set(unsigned int file, const char *what, const char *value)
{
	int r;

	torture_log("file %u %s = %s", file, what, value);
	r = dmm_pool_set(torture_files[file].mem.ino, what, value);
	if (r)
		torture_log("file %u %s = %s: %d", file, what, value, r);
	judge(what, value, r);
}

static void set_number(unsigned int file, const char *what, uint64_t n)
{
	char value[32];

	snprintf(value, sizeof(value), "%lu", n);
	set(file, what, value);
}

static void op_policy(unsigned int file)
{
	char value[64];

	snprintf(value, sizeof(value), "%c%s", torture_rand(5) < 3 ? '+' : '-',
		 policies[torture_rand(ARRAY_SIZE(policies))]);
	set(file, "policies", value);
}

static void op_limit(unsigned int file)
{
	switch (torture_rand(4)) {
	case 0:
		set(file, "max_bytes", "max");
		break;
	case 1:
		set_number(file, "min_bytes", torture_rand(256) * DMM_PAGE);
		break;
	default:
		set_number(file, "max_bytes", (64 + torture_rand(TORTURE_PAGES)) *
					      DMM_PAGE);
	}
}

static void op_reclaim(unsigned int file)
{
	set_number(file, "reclaim", (1 + torture_rand(600)) * DMM_PAGE);
}

static void op_domain(unsigned int file)
{
	static const char * const domains[] = { "", "a", "b" };

	/* An empty write would do nothing. */
	set(file, "domain", torture_rand(3) ? domains[1 + torture_rand(2)] : "\n");
}

static void op_tunable(unsigned int file)
{
	unsigned int i = torture_rand(ARRAY_SIZE(tunables)), n;

	for (n = 0; n < 6 && tunables[i].values[n]; n++)
		;
	set(file, tunables[i].file, tunables[i].values[torture_rand(n)]);
}

/* Pools share one, and change to another when nothing is in it. */
static void op_backing(unsigned int file)
{
	unsigned int i = torture_rand(BACKINGS + 1);

	set(file, "swap/backing", i < BACKINGS ? backings[i] : "none");
}

/* What the test policies are told to do with single pages. */
static void op_page(unsigned int file)
{
	static const char * const files[] = {
		"test-share/protect", "test-share/absent", "test-share/hold",
		"test-share/join",
	};
	char value[32];

	if (torture_rand(3)) {
		set_number(file, files[torture_rand(ARRAY_SIZE(files))],
			   torture_rand(TORTURE_PAGES));
		return;
	}
	snprintf(value, sizeof(value), "%lu %lu", torture_rand(TORTURE_PAGES),
		 torture_rand(TORTURE_PAGES));
	set(file, "test-share/merge", value);
}

/* Modules of policies that nobody uses; they come back when somebody does. */
static void op_unload(unsigned int file)
{
	const char *module = modules[torture_rand(ARRAY_SIZE(modules))];
	int r;

	torture_log("unload %s", module);
	r = syscall(__NR_delete_module, module, O_NONBLOCK);
	if (r && errno != EAGAIN && errno != EBUSY && errno != ENOENT &&
	    errno != EWOULDBLOCK)
		torture_fail("unloading %s: %s", module, strerror(errno));
	torture_count(r ? "unload refused" : "unload");
}

/* The host is short of memory, or tidies up. */
static void op_pressure(unsigned int file)
{
	torture_log("pressure");
	if (torture_rand(2))
		dmm_compact();
	else
		dmm_write_file("/proc/sys/vm/drop_caches", "2", 1);
	torture_count("pressure");
}

static void op_look(unsigned int file)
{
	static const char * const files[] = {
		"pinned_bytes", "huge_bytes", "swapped_bytes", "resident_bytes",
		"compressed_bytes", "shared_bytes",
	};

	dmm_pool_get(torture_files[file].mem.ino,
		     files[torture_rand(ARRAY_SIZE(files))]);
	torture_count("look");
}

static const struct torture_op ops[] = {
	{ .weight = 8, .on_file = op_policy },
	{ .weight = 6, .on_file = op_limit },
	{ .weight = 10, .on_file = op_reclaim },
	{ .weight = 2, .on_file = op_domain },
	{ .weight = 8, .on_file = op_tunable },
	{ .weight = 3, .on_file = op_backing },
	{ .weight = 12, .on_file = op_page },
	{ .weight = 2, .on_file = op_unload },
	{ .weight = 1, .on_file = op_pressure },
	{ .weight = 4, .on_file = op_look },
};

void torture_admin_init(void)
{
	unsigned int i;
	int fd;

	for (i = 0; i < BACKINGS; i++) {
		snprintf(backings[i], sizeof(backings[i]), "/tmp/torture-XXXXXX");
		fd = mkstemp(backings[i]);
		if (fd < 0 || ftruncate(fd, BACKING_BYTES))
			torture_fail("no file in /tmp: %s", strerror(errno));
		close(fd);
	}
}

void torture_admin_exit(void)
{
	unsigned int i;

	for (i = 0; i < BACKINGS; i++)
		unlink(backings[i]);
	unlink("/tmp/torture-order");
}

void torture_admin(void *arg)
{
	const struct torture_op *op = torture_pick(ops, ARRAY_SIZE(ops));

	op->on_file(torture_rand(TORTURE_FILES));
	usleep(torture_rand(20) * 1000);
}

void torture_admin_finish(unsigned int file)
{
	unsigned long ino = torture_files[file].mem.ino;
	unsigned int i;
	char value[64];
	int r;

	r = dmm_pool_set(ino, "max_bytes", "max");
	if (r)
		torture_fail("no limit for file %u: %d", file, r);
	for (i = 0; i < ARRAY_SIZE(policies); i++) {
		snprintf(value, sizeof(value), "-%s", policies[i]);
		r = dmm_pool_set(ino, "policies", value);
		if (r && r != -ENOENT)
			torture_fail("detaching %s from file %u: %d",
				     policies[i], file, r);
	}
}
