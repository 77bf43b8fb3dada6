// SPDX-License-Identifier: GPL-2.0-only
/*
 * The swap policy with a network block device, whose server fails, is silent,
 * dies and comes back.
 */
#include <linux/fs.h>
#include <linux/genetlink.h>
#include <linux/nbd.h>
#include <linux/nbd-netlink.h>
#include <endian.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "swap_util.h"

#define NBD_SIZE	(2 * SIZE)

/* A message to the kernel by generic netlink, and what it answers. */
struct message {
	struct nlmsghdr nl;
	struct genlmsghdr genl;
	char attrs[4096];
};

static void *add_attr(struct message *m, int type, const void *value, int len)
{
	struct nlattr *attr = (void *)m + NLMSG_ALIGN(m->nl.nlmsg_len);

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + len;
	if (value)
		memcpy((void *)attr + NLA_HDRLEN, value, len);
	m->nl.nlmsg_len = NLMSG_ALIGN(m->nl.nlmsg_len) + NLA_ALIGN(attr->nla_len);
	return attr;
}

static void add_u32(struct message *m, int type, uint32_t value)
{
	add_attr(m, type, &value, sizeof(value));
}

static void add_u64(struct message *m, int type, uint64_t value)
{
	add_attr(m, type, &value, sizeof(value));
}

static struct nlattr *find_attr(struct message *m, int type)
{
	void *p = m->attrs, *end = (void *)m + m->nl.nlmsg_len;

	for (; p < end; p += NLA_ALIGN(((struct nlattr *)p)->nla_len))
		if ((((struct nlattr *)p)->nla_type & NLA_TYPE_MASK) == type)
			return p;
	return NULL;
}

/* Send @m; @reply, if not NULL, takes the answer.  0 or -errno. */
static int transact(struct message *m, struct message *reply)
{
	union {
		struct message message;
		struct {
			struct nlmsghdr nl;
			struct nlmsgerr err;
		};
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC), err = 0;

	m->nl.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	if (send(fd, m, m->nl.nlmsg_len, 0) < 0)
		err = -errno;
	while (!err && recv(fd, &answer, sizeof(answer), 0) > 0) {
		if (answer.nl.nlmsg_type == NLMSG_ERROR) {
			err = answer.err.error;
			break;
		}
		if (reply)
			*reply = answer.message;
	}
	close(fd);
	return err;
}

static struct message message(int family, int cmd)
{
	struct message m = {
		.nl.nlmsg_type = family,
		.nl.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN),
		.genl.cmd = cmd,
		.genl.version = 1,
	};

	return m;
}

static int nbd_family(void)
{
	struct message m = message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	struct message reply;
	struct nlattr *attr;

	add_attr(&m, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME,
		 sizeof(NBD_GENL_FAMILY_NAME));
	if (transact(&m, &reply))
		return -1;
	attr = find_attr(&reply, CTRL_ATTR_FAMILY_ID);
	return attr ? *(uint16_t *)((void *)attr + NLA_HDRLEN) : -1;
}

/*
 * The server of /dev/nbd0, a thread of this process, that does as it is told.
 * After @left requests, unless that is negative, it goes without an answer.
 * @error_every: each so-manyth request fails, 0: none.
 * @ms: what each request takes.
 * @reads: requests to read that it has answered.
 * @got: requests that have come.
 */
struct server {
	int family;
	int sock;
	int file;
	volatile int error_read;
	volatile int error_write;
	volatile int error_every;
	volatile int silent;
	volatile int ms;
	volatile int left;
	volatile int reads;
	volatile int got;
	pthread_t thread;
};

static bool move_all(int fd, void *buf, size_t len, bool in)
{
	char *p = buf;
	ssize_t n;

	while (len) {
		n = in ? recv(fd, p, len, 0) : send(fd, p, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

static void *serve(void *arg)
{
	static char buf[4 << 20];
	struct server *server = arg;
	struct nbd_request request;
	struct nbd_reply reply;
	uint32_t type, len;
	uint64_t from;
	int error, every, nr = 0;

	while (move_all(server->sock, &request, sizeof(request), true)) {
		type = be32toh(request.type) & 0xffff;
		len = be32toh(request.len);
		from = be64toh(request.from);
		if (type == NBD_CMD_DISC || len > sizeof(buf))
			break;
		if (type == NBD_CMD_WRITE &&
		    !move_all(server->sock, buf, len, true))
			break;
		server->got++;
		while (server->silent)
			usleep(10000);
		usleep(server->ms * 1000);
		if (!server->left)
			break;
		if (server->left > 0)
			server->left--;
		every = server->error_every;
		error = every && !(++nr % every) ? EIO : 0;
		if (type == NBD_CMD_WRITE)
			error = error ? : server->error_write ? :
				pwrite(server->file, buf, len, from) == len ?
				0 : EIO;
		if (type == NBD_CMD_READ) {
			server->reads++;
			error = error ? : server->error_read ? :
				pread(server->file, buf, len, from) == len ?
				0 : EIO;
		}
		reply.magic = htobe32(NBD_REPLY_MAGIC);
		reply.error = htobe32(error);
		memcpy(reply.handle, request.handle, sizeof(reply.handle));
		if (!move_all(server->sock, &reply, sizeof(reply), false))
			break;
		if (type == NBD_CMD_READ && !error &&
		    !move_all(server->sock, buf, len, false))
			break;
	}
	shutdown(server->sock, SHUT_RDWR);
	return NULL;
}

/* Another request has come, after the first @before, and what comes with it may. */
static bool wait_request(struct server *server, int before)
{
	int tries;

	for (tries = 0; server->got == before && tries < 3000; tries++)
		usleep(10000);
	usleep(300000);
	return server->got != before;
}

/* Give the kernel a new connection, besides what @base says, and serve it. */
static void server_connect(struct server *server, const struct message *base)
{
	struct nlattr *socks, *item;
	struct pollfd gone;
	struct message m;
	int fds[2];

	/*
	 * As long as it has not seen that the last connection is gone it does not
	 * want one, without saying so, and what is left is our end.
	 */
	for (;;) {
		TEST_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds),
			    "socketpair()");
		m = *base;
		socks = add_attr(&m, NBD_ATTR_SOCKETS | NLA_F_NESTED, NULL, 0);
		item = add_attr(&m, NBD_SOCK_ITEM | NLA_F_NESTED, NULL, 0);
		add_u32(&m, NBD_SOCK_FD, fds[0]);
		item->nla_len = (void *)&m + m.nl.nlmsg_len - (void *)item;
		socks->nla_len = (void *)&m + m.nl.nlmsg_len - (void *)socks;
		TEST_ASSERT(!transact(&m, NULL), "The kernel does not take the server");
		close(fds[0]);
		gone.fd = fds[1];
		gone.events = POLLRDHUP;
		if (!poll(&gone, 1, 0))
			break;
		close(fds[1]);
		usleep(10000);
	}
	server->sock = fds[1];
	server->left = -1;
	pthread_create(&server->thread, NULL, serve, server);
}

/*
 * @timeout: seconds after which a request is tried again, 0: never.
 * @wait: seconds that requests wait for a server that is gone.
 */
static void server_start(struct server *server, int file, int timeout, int wait)
{
	struct message m;

	memset(server, 0, sizeof(*server));
	server->file = file;
	server->family = nbd_family();
	m = message(server->family, NBD_CMD_CONNECT);
	add_u32(&m, NBD_ATTR_INDEX, 0);
	add_u64(&m, NBD_ATTR_SIZE_BYTES, NBD_SIZE);
	add_u64(&m, NBD_ATTR_BLOCK_SIZE_BYTES, DMM_PAGE);
	add_u64(&m, NBD_ATTR_TIMEOUT, timeout);
	add_u64(&m, NBD_ATTR_DEAD_CONN_TIMEOUT, wait);
	server_connect(server, &m);
}

static void server_gone(struct server *server)
{
	pthread_join(server->thread, NULL);
	close(server->sock);
}

static void server_back(struct server *server)
{
	struct message m = message(server->family, NBD_CMD_RECONFIGURE);

	add_u32(&m, NBD_ATTR_INDEX, 0);
	server_connect(server, &m);
}

static void server_stop(struct server *server)
{
	struct message m = message(server->family, NBD_CMD_DISCONNECT);

	server->silent = 0;
	add_u32(&m, NBD_ATTR_INDEX, 0);
	TEST_ASSERT(!transact(&m, NULL), "Cannot disconnect");
	shutdown(server->sock, SHUT_RDWR);
	server_gone(server);
}

FIXTURE(swapnbd) {
	struct dmm_guest *guest;
	struct dmm_mem mem;
	struct server server;
	char path[64];
	int fd;
};

FIXTURE_SETUP(swapnbd)
{
	if (!dmm_policy_loaded("swap"))
		SKIP(return, "no policy swap");
	if ((access("/dev/nbd0", F_OK) && system("modprobe nbd")) ||
	    nbd_family() < 0)
		SKIP(return, "no network block devices");

	sprintf(self->path, "/tmp/swapnbd-XXXXXX");
	self->fd = mkstemp(self->path);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, ftruncate(self->fd, NBD_SIZE));
	self->mem = swap_mem();
	self->guest = dmm_guest_create(2);
	dmm_guest_add_mem(self->guest, &self->mem);
}

FIXTURE_TEARDOWN(swapnbd)
{
	dmm_guest_free(self->guest);
	if (self->mem.hva)
		dmm_mem_free(&self->mem);
	close(self->fd);
	unlink(self->path);
}

/* A server, and all of the guest's memory has content. */
static void begin(struct __test_metadata *_metadata, FIXTURE_DATA(swapnbd) *self,
		  int timeout, int wait)
{
	server_start(&self->server, self->fd, timeout, wait);
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "swap/backing", "/dev/nbd0"));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 1);
}

/* The pool can do without the server, and all content was kept. */
static void end(struct __test_metadata *_metadata, FIXTURE_DATA(swapnbd) *self)
{
	EXPECT_EQ(0, stat_of(self->mem.ino, "checksum_failed"));
	ASSERT_EQ(0, dmm_pool_set(self->mem.ino, "policies", "-swap"));
	EXPECT_EQ(SIZE, resident(self->mem.ino));
	server_stop(&self->server);
}

/* The device fails: content stays where it is, and comes back when it can. */
DMM_TEST(swapnbd, errors)
{
	unsigned long ino = self->mem.ino;

	begin(_metadata, self, 0, 0);
	self->server.error_write = EIO;
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_EQ(SIZE, resident(ino));
	EXPECT_EQ(0, swapped(ino));
	EXPECT_EQ(0, dmm_pool_get(ino, "swap/backing_bytes"));
	EXPECT_LE(PAGES, stat_of(ino, "write_failed"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));

	self->server.error_write = 0;
	reclaim_all(_metadata, ino);
	self->server.error_read = EIO;
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_CHECK, DMM_GPA,
					 PAGES, 1));
	EXPECT_EQ(-EFAULT, dmm_guest_continue(self->guest, 0));
	EXPECT_NE(0, stat_of(ino, "read_failed"));
	EXPECT_EQ(SIZE, swapped(ino));
	self->server.error_read = 0;
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	end(_metadata, self);
}

/* Have a vCPU get through, whatever fails on the way. */
static int run_through(struct dmm_guest *guest, enum dmm_op op, uint64_t seed)
{
	int tries, r;

	r = dmm_guest_run(guest, 0, op, DMM_GPA, PAGES, seed);
	for (tries = 0; r == -EFAULT && tries < 100 * PAGES; tries++)
		r = dmm_guest_continue(guest, 0);
	return r;
}

/* One request in some fails, of those to read and to write as they come. */
DMM_TEST(swapnbd, some_errors)
{
	static const int every[] = { 3, 31 };
	unsigned long ino = self->mem.ino;
	uint64_t read_failed, write_failed;
	unsigned int i;

	begin(_metadata, self, 0, 0);
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE / 2));
	for (i = 0; i < ARRAY_SIZE(every); i++) {
		read_failed = stat_of(ino, "read_failed");
		write_failed = stat_of(ino, "write_failed");
		self->server.error_every = every[i];
		ASSERT_EQ(0, run_through(self->guest, DMM_OP_FILL, i + 2));
		ASSERT_EQ(0, run_through(self->guest, DMM_OP_CHECK, i + 2));
		EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
		EXPECT_NE(read_failed, stat_of(ino, "read_failed"));
		EXPECT_NE(write_failed, stat_of(ino, "write_failed"));
		self->server.error_every = 0;
		EXPECT_TRUE(dmm_pool_ok(ino));
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
						 i + 2));
	}
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 4 * SIZE));
	end(_metadata, self);
}

/* Compressed pages that cannot be written stay compressed, but for a few. */
DMM_TEST(swapnbd, writeback)
{
	unsigned long ino = self->mem.ino;

	begin(_metadata, self, 0, 0);
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, DMM_HALF | 2);
	reclaim_all(_metadata, ino);
	self->server.error_write = EIO;
	EXPECT_EQ(-EIO, dmm_pool_set_bytes(ino, "swap/writeback", SIZE));
	EXPECT_EQ(0, stat_of(ino, "written_back"));
	EXPECT_GE(64 * DMM_PAGE, resident(ino));

	self->server.error_write = 0;
	EXPECT_EQ(0, dmm_pool_set_bytes(ino, "swap/writeback", SIZE / 2));
	EXPECT_EQ(PAGES / 2, stat_of(ino, "written_back"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES,
					 DMM_HALF | 2));
	end(_metadata, self);
}

/* The device does not answer: whoever waits can be killed, the rest goes on. */
DMM_TEST(swapnbd, silent)
{
	unsigned long ino = self->mem.ino;
	int status, i;
	uint64_t left;
	pid_t pid;

	begin(_metadata, self, 0, 0);
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 2,
				   POSIX_FADV_DONTNEED));
	EXPECT_EQ(SIZE / 2, swapped(ino));

	self->server.silent = 1;
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid)
		exit(*(volatile char *)self->mem.hva);
	usleep(300000);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	kill(pid, SIGKILL);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));

	/* Who wants to take pages out is stopped by a signal, too. */
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid)
		exit(!!posix_fadvise(self->mem.fd, SIZE / 2, SIZE / 2,
				     POSIX_FADV_DONTNEED));
	for (i = 0; i < 3; i++) {
		/* What is being written can be read, and changed. */
		EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA + SIZE / 2,
						 PAGES / 4, 1));
		usleep(100000);
	}
	dmm_guest_fill(self->guest, DMM_GPA + SIZE * 3 / 4, PAGES / 4, 2);
	kill(pid, SIGTERM);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));

	/* It answers: what was written is out, but nothing that has changed. */
	left = resident(ino);
	EXPECT_EQ(SIZE / 2, left);
	self->server.silent = 0;
	for (i = 0; i < 500 && (resident(ino) == left ||
				!stat_of(ino, "write_changed")); i++)
		usleep(10000);
	EXPECT_GT(left, resident(ino));
	EXPECT_NE(0, stat_of(ino, "write_changed"));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES * 3 / 4,
					 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE * 3 / 4, PAGES * 3 / 4,
				   PAGES / 4, 2));
	end(_metadata, self);
}

static void on_signal(int sig)
{
	struct itimerval never = {};

	if (sig == SIGTERM)
		setitimer(ITIMER_REAL, &never, NULL);
}

/*
 * Read all pages, with a signal each millisecond until SIGTERM; after each that
 * ends a try go on @step pages further.  0: their content was right, and there
 * were at least @min signals.
 */
static int read_impatiently(int fd, uint64_t step, int min)
{
	struct itimerval timer = { { 0, 1000 }, { 0, 1000 } };
	struct sigaction action = { .sa_handler = on_signal };
	static char page[DMM_PAGE];
	uint64_t index = 0, good = 0;
	int signals = 0;

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	while (good < PAGES) {
		if (pread(fd, page, DMM_PAGE, index * DMM_PAGE) == DMM_PAGE) {
			if (dmm_bad_pages(page, index, 1, 1))
				return 1;
			good++;
			index = (index + 1) % PAGES;
		} else if (errno == EINTR) {
			signals++;
			index = (index + step) % PAGES;
		} else {
			return 2;
		}
	}
	return signals < min ? 3 : 0;
}

/*
 * The device does not answer, and who waits is interrupted all the time: what
 * was begun for it is not begun anew, and there is no end of pages to read but
 * of reads.
 */
DMM_TEST(swapnbd, impatient)
{
	unsigned long ino = self->mem.ino;
	int status, step;
	pid_t pid;

	begin(_metadata, self, 0, 0);
	for (step = 0; step <= 3; step += 3) {
		reclaim_all(_metadata, ino);
		self->server.reads = 0;
		self->server.silent = 1;
		pid = fork();
		ASSERT_NE(-1, pid);
		if (!pid)
			exit(read_impatiently(self->mem.fd, step, 100));
		sleep(2);
		EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
		kill(pid, SIGTERM);
		self->server.silent = 0;
		EXPECT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
		/* Up to 32 pages at once, and what has nobody waited for. */
		EXPECT_GE(PAGES / 8, self->server.reads);
	}
	end(_metadata, self);
}

/* Who has handlers that let system calls go on does not see signals. */
DMM_TEST(swapnbd, goes_on)
{
	int status;
	pid_t pid;

	begin(_metadata, self, 0, 0);
	reclaim_all(_metadata, self->mem.ino);
	self->server.silent = 1;
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid) {
		struct itimerval often = { { 0, 1000 }, { 0, 1000 } };
		struct sigaction action = {
			.sa_handler = on_signal,
			.sa_flags = SA_RESTART,
		};
		char page[DMM_PAGE];

		sigaction(SIGALRM, &action, NULL);
		setitimer(ITIMER_REAL, &often, NULL);
		if (pread(self->mem.fd, page, DMM_PAGE, 0) != DMM_PAGE)
			_exit(errno);
		if (dmm_bad_pages(page, 0, 1, 1))
			_exit(254);
		/* A write brings the rest of the page back, first. */
		if (pwrite(self->mem.fd, page, 8, DMM_PAGE) != 8)
			_exit(errno);
		_exit(0);
	}
	usleep(300000);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	self->server.silent = 0;
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	end(_metadata, self);
}

/* Calls that wait for content of their pages, the first of which is @index. */
static int call_that_waits(struct dmm_mem *mem, int call, uint64_t index)
{
	uint64_t start = index * DMM_PAGE;
	struct file_clone_range range = {
		.src_fd = mem->fd,
		.src_offset = start,
		.src_length = DMM_PAGE,
	};
	char page[8];
	int fd, r;

	switch (call) {
	case 0:
		return pread(mem->fd, page, 8, start) == 8 ? 0 : errno;
	case 1:
		return pwrite(mem->fd, "changed", 8, start) == 8 ? 0 : errno;
	case 2:
		return posix_fadvise(mem->fd, start, DMM_PAGE,
				     POSIX_FADV_WILLNEED);
	case 3:
		return fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE |
				 FALLOC_FL_KEEP_SIZE, start, 8) ? errno : 0;
	case 4:
		/* Without the policy that has the content. */
		fd = open(dmm_dir(), O_RDWR | O_TMPFILE, 0600);
		if (fd < 0)
			return errno;
		r = ioctl(fd, FICLONERANGE, &range) ? errno : 0;
		close(fd);
		return r;
	case 5:
		return ftruncate(mem->fd, SIZE - 8) ? errno : 0;
	case 6:
		return -dmm_pool_set(mem->ino, "policies", "-swap");
	}
	return -1;
}

/* Who has no handler does not see that he was stopped, as when the host freezes. */
DMM_TEST(swapnbd, stopped)
{
	int status, call;
	pid_t pid;

	begin(_metadata, self, 0, 0);
	for (call = 0; call < 7; call++) {
		EXPECT_EQ(0, dmm_pool_set_bytes(self->mem.ino, "reclaim",
						resident(self->mem.ino)));
		self->server.silent = 1;
		pid = fork();
		ASSERT_NE(-1, pid);
		if (!pid)
			_exit(call_that_waits(&self->mem, call,
					      call == 5 ? PAGES - 1 : 128 * call));
		usleep(200000);
		EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
		kill(pid, SIGSTOP);
		usleep(100000);
		kill(pid, SIGCONT);
		usleep(100000);
		self->server.silent = 0;
		EXPECT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status) {
			TH_LOG("call %d", call);
		}
	}
	/* What they did was done once, and nothing else. */
	EXPECT_EQ(0, memcmp(self->mem.hva + 128 * DMM_PAGE, "changed", 8));
	EXPECT_EQ(0, *(uint64_t *)(self->mem.hva + 384 * DMM_PAGE));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 128, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + 129 * DMM_PAGE, 129, 255, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + 385 * DMM_PAGE, 385,
				   PAGES - 386, 1));
	server_stop(&self->server);
}

/*
 * Much is on its way to a device that does not answer, and no more may be: at the
 * limit, what compresses makes room.
 */
DMM_TEST(swapnbd, crowded)
{
	unsigned long ino = self->mem.ino;
	int status, i;
	pid_t pid;

	begin(_metadata, self, 0, 0);
	dmm_guest_fill(self->guest, DMM_GPA + SIZE * 3 / 4, PAGES / 4,
		       DMM_HALF | 2);
	ASSERT_EQ(0, ftruncate(self->mem.fd, 2 * SIZE));
	self->server.silent = 1;
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE));
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid) {
		char page[DMM_PAGE] = { 1 };

		for (i = 0; i < 64; i++)
			if (pwrite(self->mem.fd, page, DMM_PAGE,
				   SIZE + i * DMM_PAGE) != DMM_PAGE)
				exit(1);
		exit(0);
	}
	for (i = 0; i < 600 && !waitpid(pid, &status, WNOHANG); i++)
		usleep(100000);
	EXPECT_NE(600, i);
	self->server.silent = 0;
	if (i == 600)
		EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES * 3 / 4, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA + SIZE * 3 / 4,
					 PAGES / 4, DMM_HALF | 2));
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 4 * SIZE));
	end(_metadata, self);
}

/* What is in memory does not go for a copy that may be out of reach. */
DMM_TEST(swapnbd, copies_out_of_reach)
{
	unsigned long ino = self->mem.ino;
	uint64_t kept;
	char c;

	begin(_metadata, self, 0, 0);
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 2,
				   POSIX_FADV_DONTNEED));
	ASSERT_EQ(SIZE / 2, swapped(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 4, 1));
	ASSERT_EQ(SIZE / 4, swapped(ino));
	kept = dmm_pool_get(ino, "swap/backing_bytes");
	EXPECT_LT(SIZE / 4, kept);

	self->server.error_read = EIO;
	self->server.error_write = EIO;
	EXPECT_EQ(-1, pread(self->mem.fd, &c, 1, SIZE / 2 - DMM_PAGE));
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 4,
				   POSIX_FADV_DONTNEED));
	EXPECT_EQ(SIZE / 4, swapped(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 4, 1));

	/* It is back: a copy is a copy again. */
	self->server.error_read = 0;
	self->server.error_write = 0;
	EXPECT_EQ(1, pread(self->mem.fd, &c, 1, SIZE / 2 - DMM_PAGE));
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 4,
				   POSIX_FADV_DONTNEED));
	EXPECT_LE(SIZE / 2 - 32 * DMM_PAGE, swapped(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	end(_metadata, self);
}

/* Nor for one of a clone, which has that backing of its source, and none. */
DMM_TEST(swapnbd, clone_out_of_reach)
{
	unsigned long ino = self->mem.ino;
	struct dmm_guest *guest;
	struct dmm_mem clone;
	char c;

	begin(_metadata, self, 0, 0);
	reclaim_all(_metadata, ino);
	clone = dmm_mem_create(SIZE);
	ASSERT_EQ(0, dmm_pool_set(clone.ino, "policies", "+swap"));
	ASSERT_EQ(0, ioctl(clone.fd, FICLONE, self->mem.fd));
	guest = dmm_guest_create(1);
	dmm_guest_add_mem(guest, &clone);
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES / 2, 1));

	self->server.error_read = EIO;
	self->server.error_write = EIO;
	EXPECT_EQ(-1, pread(self->mem.fd, &c, 1, SIZE - DMM_PAGE));
	ASSERT_EQ(0, posix_fadvise(clone.fd, 0, SIZE / 2, POSIX_FADV_DONTNEED));
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES / 2, 1));

	self->server.error_read = 0;
	self->server.error_write = 0;
	EXPECT_EQ(0, dmm_guest_bad_pages(guest, DMM_GPA, PAGES, 1));
	dmm_guest_free(guest);
	dmm_mem_free(&clone);
	end(_metadata, self);
}

/* An access has failed.  When it is tried again, a signal ends the wait. */
DMM_TEST(swapnbd, tried_again)
{
	struct itimerval soon = { .it_value.tv_usec = 300000 };
	struct kvm_vcpu *vcpu = self->guest->cpu[0].vcpu;
	unsigned long ino = self->mem.ino;

	begin(_metadata, self, 0, 0);
	reclaim_all(_metadata, ino);
	self->server.error_read = EIO;
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_CHECK, DMM_GPA,
					 PAGES, 1));
	self->server.error_read = 0;
	self->server.silent = 1;
	signal(SIGALRM, on_signal);
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &soon, NULL));
	EXPECT_EQ(-1, __vcpu_run(vcpu));
	EXPECT_EQ(EINTR, errno);
	self->server.silent = 0;
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	end(_metadata, self);
}

/* A server that has failed works again, slowly: an access at the limit waits for it. */
DMM_TEST(swapnbd, slow_after_failure)
{
	unsigned long ino = self->mem.ino;
	char page[DMM_PAGE] = { 1 };
	int i;

	begin(_metadata, self, 0, 0);
	self->server.error_write = EIO;
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, 16 * DMM_PAGE,
				   POSIX_FADV_DONTNEED));
	for (i = 0; i < 100 && !stat_of(ino, "write_failed"); i++)
		usleep(10000);
	ASSERT_NE(100, i);
	self->server.error_write = 0;
	ASSERT_EQ(0, ftruncate(self->mem.fd, 2 * SIZE));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE));
	sleep(6);
	self->server.ms = 1500;
	EXPECT_EQ(DMM_PAGE, pwrite(self->mem.fd, page, DMM_PAGE, SIZE));
	self->server.ms = 0;
	ASSERT_EQ(0, ftruncate(self->mem.fd, SIZE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 1));
	ASSERT_EQ(0, dmm_pool_set(ino, "max_bytes", "max"));
	end(_metadata, self);
}

/* What was punched and written anew while the device writes is not what it wrote. */
DMM_TEST(swapnbd, punched_while_written)
{
	unsigned long ino = self->mem.ino;
	int status, got;
	pid_t pid;

	if (!dmm_policy_loaded("test-share"))
		SKIP(return, "no test policies");
	begin(_metadata, self, 0, 0);
	ASSERT_EQ(0, dmm_pool_set(ino, "policies", "+test-share"));
	self->server.silent = 1;
	got = self->server.got;
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(!!posix_fadvise(self->mem.fd, 0, 8 * DMM_PAGE,
				      POSIX_FADV_DONTNEED));
	ASSERT_TRUE(wait_request(&self->server, got));
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, 0, DMM_PAGE));
	dmm_fill(self->mem.hva, 0, 1, 7);
	/* As the page is that is being written. */
	ASSERT_EQ(0, dmm_pool_set(ino, "test-share/protect", "0"));
	self->server.silent = 0;
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, 1, 7));
	EXPECT_NE(0, stat_of(ino, "write_changed"));
	dmm_fill(self->mem.hva, 0, 1, 1);
	end(_metadata, self);
}

static void *detach_thread(void *ino)
{
	dmm_pool_set((unsigned long)ino, "policies", "-swap");
	return NULL;
}

/*
 * All comes back, which takes long.  Who waits for the policies meanwhile can be
 * killed, and once nobody has the file any more, nobody waits for what is left.
 */
DMM_TEST(swapnbd, goes_while_it_detaches)
{
	unsigned long ino = self->mem.ino;
	pthread_t thread;
	uint64_t start;
	int i, status;
	pid_t pid;

	begin(_metadata, self, 0, 0);
	reclaim_all(_metadata, ino);
	/* For up to 32 pages. */
	self->server.ms = 300;
	ASSERT_EQ(0, pthread_create(&thread, NULL, detach_thread, (void *)ino));
	for (i = 0; i < 1000 && !resident(ino); i++)
		usleep(10000);
	ASSERT_NE(1000, i);

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		dmm_pool_set(ino, "policies", "+sample");
		_exit(0);
	}
	usleep(200000);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	for (i = 0; i < 500 && !waitpid(pid, &status, WNOHANG); i++)
		usleep(10000);
	EXPECT_NE(500, i);
	if (i == 500)
		waitpid(pid, &status, 0);
	EXPECT_TRUE(WIFSIGNALED(status));

	dmm_guest_free(self->guest);
	self->guest = NULL;
	/* Without the check of the pool, which waits for each page. */
	start = dmm_now_ms();
	munmap(self->mem.hva, SIZE);
	close(self->mem.fd);
	self->mem.hva = NULL;
	EXPECT_GT(5000, dmm_now_ms() - start);
	pthread_join(thread, NULL);
	EXPECT_TRUE(dmm_pool_gone(ino));
	server_stop(&self->server);
}

/*
 * A policy that is being detached makes no room.  Who needs some waits until it has
 * gone, or stays: that takes as long as the device does.
 */
DMM_TEST(swapnbd, room_while_it_detaches)
{
	const uint64_t room = 64, absent = 128;
	unsigned long ino = self->mem.ino;
	pthread_t thread;

	begin(_metadata, self, 0, 0);
	reclaim_all(_metadata, ino);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, SIZE - absent * DMM_PAGE,
			       absent * DMM_PAGE));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", room * DMM_PAGE));
	/* For the first pages that come back. */
	self->server.ms = 8000;
	ASSERT_EQ(0, pthread_create(&thread, NULL, detach_thread, (void *)ino));
	usleep(500000);
	self->server.ms = 0;
	EXPECT_EQ(0, dmm_guest_run(self->guest, 0, DMM_OP_FILL,
				   DMM_GPA + SIZE - absent * DMM_PAGE, absent, 1));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, dmm_pool_get(ino, "stats/limit_failed"));
	EXPECT_TRUE(dmm_pool_ok(ino));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 4 * SIZE));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES - absent, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest,
					 DMM_GPA + SIZE - absent * DMM_PAGE,
					 absent, 1));
	end(_metadata, self);
}

static void *advise_thread(void *data)
{
	FIXTURE_DATA(swapnbd) *self = data;

	return (void *)(long)posix_fadvise(self->mem.fd, SIZE / 2, SIZE / 2,
					   POSIX_FADV_DONTNEED);
}

/* What one wants out does not count for another who wants something else out. */
DMM_TEST(swapnbd, two_ranges)
{
	unsigned long ino = self->mem.ino;
	pthread_t thread;
	void *r;

	begin(_metadata, self, 0, 0);
	/* More than is written at once, so that both wait for what both have. */
	self->server.ms = 50;
	ASSERT_EQ(0, pthread_create(&thread, NULL, advise_thread, self));
	EXPECT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 2, POSIX_FADV_DONTNEED));
	pthread_join(thread, &r);
	EXPECT_EQ(NULL, r);
	self->server.ms = 0;
	EXPECT_EQ(0, resident(ino));
	EXPECT_EQ(SIZE, swapped(ino));
	end(_metadata, self);
}

/*
 * The server dies: what is on it can't be had, nothing more goes there, and the
 * rest works.  When it is back so is the content.
 */
DMM_TEST(swapnbd, dies)
{
	unsigned long ino = self->mem.ino;
	char byte;

	begin(_metadata, self, 1, 0);
	ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 2,
				   POSIX_FADV_DONTNEED));
	ASSERT_EQ(SIZE / 2, swapped(ino));
	self->server.left = 0;
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_CHECK, DMM_GPA,
					 PAGES, 1));
	server_gone(&self->server);
	EXPECT_EQ(-EFAULT, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(-1, pread(self->mem.fd, &byte, 1, 0));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-EAGAIN, dmm_pool_set_bytes(ino, "reclaim", SIZE));
	EXPECT_NE(0, stat_of(ino, "write_failed"));
	EXPECT_EQ(-EIO, dmm_pool_set(ino, "policies", "-swap"));
	EXPECT_EQ(SIZE / 2, swapped(ino));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE / 2, PAGES / 2,
				   PAGES / 2, 1));
	EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_FILL,
				   DMM_GPA + SIZE / 2, PAGES / 2, 2));

	server_back(&self->server);
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	/* That is where the other vCPU has been meanwhile. */
	EXPECT_EQ(PAGES / 2, self->guest->cpu[0].cmd->result);
	reclaim_all(_metadata, ino);
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, PAGES / 2, 1));
	EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_CHECK,
				   DMM_GPA + SIZE / 2, PAGES / 2, 2));
	EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
	end(_metadata, self);
}

/*
 * The device waits for its server, again and again: so does who needs a page, and
 * nobody sees an error.
 */
DMM_TEST(swapnbd, comes_back)
{
	unsigned long ino = self->mem.ino;
	int status, i;
	pid_t pid;

	begin(_metadata, self, 1, DMM_TIMEOUT);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, posix_fadvise(self->mem.fd, 0, SIZE / 2,
					   POSIX_FADV_DONTNEED));
		ASSERT_EQ(SIZE / 2, swapped(ino));
		self->server.left = i;
		dmm_guest_start(self->guest, 0, DMM_OP_CHECK, DMM_GPA, PAGES, 1);
		server_gone(&self->server);
		EXPECT_EQ(0, dmm_guest_run(self->guest, 1, DMM_OP_CHECK,
					   DMM_GPA + SIZE / 2, PAGES / 2, 1));
		EXPECT_EQ(0, self->guest->cpu[1].cmd->result);
		EXPECT_NE(0, swapped(ino));

		server_back(&self->server);
		EXPECT_EQ(0, dmm_guest_join(self->guest, 0));
		EXPECT_EQ(0, self->guest->cpu[0].cmd->result);
	}

	/* It goes while pages are written, which can be used all the time. */
	dmm_guest_fill(self->guest, DMM_GPA, PAGES, 2);
	self->server.left = 0;
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid)
		exit(!!dmm_pool_set_bytes(ino, "reclaim", SIZE));
	server_gone(&self->server);
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	server_back(&self->server);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(SIZE, swapped(ino));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 2));
	EXPECT_EQ(0, stat_of(ino, "read_failed"));
	EXPECT_EQ(0, stat_of(ino, "write_failed"));
	end(_metadata, self);
}

/*
 * At the limit an access waits for what is being written, however long that
 * takes.  It fails if the device does.
 */
DMM_TEST(swapnbd, limit)
{
	unsigned long ino = self->mem.ino;

	begin(_metadata, self, 0, 0);
	ASSERT_EQ(0, fallocate(self->mem.fd, PUNCH, SIZE / 2, SIZE / 2));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", SIZE / 2));
	self->server.silent = 1;
	dmm_guest_start(self->guest, 0, DMM_OP_FILL, DMM_GPA + SIZE / 2,
			PAGES / 2, 2);
	sleep(4);
	EXPECT_NE(0, dmm_pool_get(ino, "stats/limit_wait"));
	EXPECT_EQ(0, dmm_pool_get(ino, "stats/limit_failed"));
	self->server.silent = 0;
	EXPECT_EQ(0, dmm_guest_join(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 1));

	self->server.error_write = EIO;
	EXPECT_EQ(-EFAULT, dmm_guest_run(self->guest, 0, DMM_OP_FILL, DMM_GPA,
					 PAGES, 3));
	EXPECT_NE(0, dmm_pool_get(ino, "stats/limit_failed"));
	self->server.error_write = 0;
	EXPECT_EQ(0, dmm_guest_continue(self->guest, 0));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES, 3));
	ASSERT_EQ(0, dmm_pool_set_bytes(ino, "max_bytes", 4 * SIZE));
	end(_metadata, self);
}

/*
 * While the device has shared frames, the guest changes half of its memory, of
 * which another clone is made: other shared frames, where those are that are
 * being written.
 */
DMM_TEST(swapnbd, cloned_meanwhile)
{
	struct dmm_mem copy = dmm_mem_create_exact(SIZE);
	struct dmm_mem other = dmm_mem_create_exact(SIZE);
	unsigned long ino = self->mem.ino;
	int status, got;
	pid_t pid;

	begin(_metadata, self, 0, 0);
	ASSERT_EQ(0, ioctl(copy.fd, FICLONE, self->mem.fd));
	self->server.silent = 1;
	got = self->server.got;
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid)
		exit(!!posix_fadvise(self->mem.fd, 0, SIZE, POSIX_FADV_DONTNEED));
	ASSERT_TRUE(wait_request(&self->server, got));
	dmm_guest_fill(self->guest, DMM_GPA, PAGES / 2, 2);
	ASSERT_EQ(0, ioctl(other.fd, FICLONE, self->mem.fd));
	EXPECT_EQ(0, stat_of(ino, "out_shared"));
	self->server.silent = 0;
	EXPECT_EQ(pid, waitpid(pid, &status, 0));

	EXPECT_NE(0, stat_of(ino, "write_changed"));
	EXPECT_NE(0, stat_of(ino, "out_shared"));
	EXPECT_EQ(0, dmm_bad_pages(copy.hva, 0, PAGES, 1));
	EXPECT_EQ(0, dmm_bad_pages(other.hva, 0, PAGES / 2, 2));
	EXPECT_EQ(0, dmm_bad_pages(other.hva + SIZE / 2, PAGES / 2, PAGES / 2, 1));
	EXPECT_EQ(0, dmm_guest_bad_pages(self->guest, DMM_GPA, PAGES / 2, 2));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + SIZE / 2, PAGES / 2, PAGES / 2,
				   1));
	EXPECT_TRUE(dmm_pool_ok(ino));
	dmm_mem_free(&copy);
	dmm_mem_free(&other);
	end(_metadata, self);
}

/* What the pool has twice is written once, even if both are to go at once. */
DMM_TEST(swapnbd, twice)
{
	const uint64_t nr = 16, len = nr * DMM_PAGE;
	struct file_clone_range range = {
		.src_fd = self->mem.fd,
		.src_length = len,
		.dest_offset = len,
	};
	unsigned long ino = self->mem.ino;
	int status;
	pid_t pid;

	begin(_metadata, self, 0, 0);
	ASSERT_EQ(0, ioctl(self->mem.fd, FICLONERANGE, &range));
	self->server.silent = 1;
	pid = fork();
	ASSERT_NE(-1, pid);
	if (!pid)
		exit(!!posix_fadvise(self->mem.fd, 0, 2 * len,
				     POSIX_FADV_DONTNEED));
	usleep(300000);
	self->server.silent = 0;
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(2 * len, swapped(ino));
	EXPECT_EQ(nr, stat_of(ino, "out_written"));
	EXPECT_EQ(0, stat_of(ino, "write_changed"));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva, 0, nr, 1));
	EXPECT_EQ(0, dmm_bad_pages(self->mem.hva + len, 0, nr, 1));
	EXPECT_TRUE(dmm_pool_ok(ino));
	end(_metadata, self);
}

TEST_HARNESS_MAIN
