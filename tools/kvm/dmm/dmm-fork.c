// SPDX-License-Identifier: GPL-2.0-only
/*
 * Make copies of a running virtual machine whose memory is a dmmfs file.
 *
 * QEMU saves the state of the devices, without the memory, and stops; clones of
 * the memory's file are made, which takes no copy of any page; the machine goes
 * on.  Each clone is then started from the state and its own file.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS		5	/* how often to ask whether the state is saved */

static const char usage[] =
"usage: dmm-fork [-s STATE] [-t SECONDS] SOCKET MEMORY CLONE...\n"
"       dmm-fork -r STATE [-t SECONDS] SOCKET\n"
"  SOCKET	QEMU's monitor: -qmp unix:SOCKET,server=on,wait=off\n"
"  MEMORY	the machine's memory, a file on dmmfs\n"
"  CLONE	file to make of it, on the same dmmfs; one for each clone\n"
"  -s STATE	file for the state of the devices (SOCKET.state)\n"
"  -r STATE	let a clone run\n"
"  -t SECONDS	give up when a state takes longer (60)\n"
"The machine pauses for a moment.  Start each clone by the same command as the\n"
"machine, with CLONE as its memory, another SOCKET, and -incoming defer; then\n"
"let it run.\n";

static FILE *monitor;		/* what QEMU says */
static int monitor_fd;
static int stop;		/* a signal: somebody wants us to give up */

static void monitor_open(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		errx(1, "%s: the name is too long for a socket", path);
	memcpy(addr.sun_path, path, strlen(path));
	monitor_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (monitor_fd < 0 ||
	    connect(monitor_fd, (struct sockaddr *)&addr, sizeof(addr)))
		err(1, "%s", path);
	monitor = fdopen(monitor_fd, "r");
	if (!monitor)
		err(1, "%s", path);
}

/* The next thing that QEMU says. */
static struct json_object *monitor_read(void)
{
	struct json_object *said;
	char *line = NULL;
	size_t size = 0;

	if (getline(&line, &size, monitor) < 0)
		errx(1, "QEMU has closed the monitor");
	said = json_tokener_parse(line);
	if (!said)
		errx(1, "not a word of QEMU's: %s", line);
	free(line);
	return said;
}

/*
 * Have QEMU execute a command.  What it returns goes to @result, if that is
 * given; an error is its description.
 */
static bool monitor_try(const char *command, struct json_object *arguments,
			struct json_object **result)
{
	struct json_object *request = json_object_new_object();
	struct json_object *said, *value;
	bool ok;

	json_object_object_add(request, "execute",
			       json_object_new_string(command));
	if (arguments)
		json_object_object_add(request, "arguments", arguments);
	dprintf(monitor_fd, "%s\n", json_object_to_json_string(request));
	json_object_put(request);

	/* Events may come in between. */
	for (;;) {
		said = monitor_read();
		ok = json_object_object_get_ex(said, "return", &value);
		if (ok || json_object_object_get_ex(said, "error", &value))
			break;
		json_object_put(said);
	}
	if (!ok)
		warnx("%s: %s", command,
		      json_object_get_string(json_object_object_get(value,
								    "desc")));
	if (result)
		*result = json_object_get(value);
	json_object_put(said);
	return ok;
}

static struct json_object *monitor_do(const char *command,
				      struct json_object *arguments)
{
	struct json_object *result;

	if (!monitor_try(command, arguments, &result))
		exit(1);
	return result;
}

/* Member @name of what @command returns; the caller frees the string. */
static char *monitor_ask(const char *command, const char *name)
{
	struct json_object *result = monitor_do(command, NULL), *value;
	char *answer = NULL;

	if (json_object_object_get_ex(result, name, &value))
		answer = strdup(json_object_get_string(value));
	json_object_put(result);
	return answer;
}

/*
 * Whether memory that is a shared file stays out of what is saved.  Left on, QEMU
 * would save no memory next time, when it should.
 */
static bool ignore_shared(bool on)
{
	struct json_object *one = json_object_new_object();
	struct json_object *list = json_object_new_array();
	struct json_object *arguments = json_object_new_object();

	json_object_object_add(one, "capability",
			       json_object_new_string("x-ignore-shared"));
	json_object_object_add(one, "state", json_object_new_boolean(on));
	json_object_array_add(list, one);
	json_object_object_add(arguments, "capabilities", list);
	if (monitor_try("migrate-set-capabilities", arguments, NULL))
		return true;
	if (!on)
		warnx("x-ignore-shared stays on: what is saved next has no memory");
	return false;
}

static char *format(const char *how, ...)
{
	va_list args;
	char *text;

	va_start(args, how);
	if (vasprintf(&text, how, args) < 0)
		errx(1, "no memory");
	va_end(args);
	return text;
}

/* @name in quotes of the shell that QEMU starts. */
static char *quoted(const char *name)
{
	char *text = malloc(4 * strlen(name) + 3), *p = text;

	if (!text)
		errx(1, "no memory");
	*p++ = '\'';
	for (; *name; name++) {
		if (*name == '\'')
			p = stpcpy(p, "'\\'");
		*p++ = *name;
	}
	*p++ = '\'';
	*p = 0;
	return text;
}

/* QEMU and its shell need not be in the folder that this program is in. */
static char *absolute(const char *name)
{
	char *folder, *path;

	if (*name == '/')
		return format("%s", name);
	folder = getcwd(NULL, 0);
	if (!folder)
		err(1, "where are we?");
	path = format("%s/%s", folder, name);
	free(folder);
	return path;
}

static void give_up(int signal)
{
	__atomic_store_n(&stop, signal, __ATOMIC_RELAXED);
}

/* From here on there is something to undo; who asks twice does not want that. */
static void catch_signals(void)
{
	struct sigaction action = {
		.sa_handler = give_up,
		.sa_flags = SA_RESTART | SA_RESETHAND,
	};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

/*
 * Have QEMU save or load the state, and wait until it has, or has given up.  What is
 * saved is there when @file is: that QEMU has completed says nothing of a shell that
 * still writes, or cannot.
 */
static bool move_state(const char *command, const char *uri, const char *file,
		       unsigned int seconds)
{
	const struct timespec pause = { .tv_nsec = POLL_MS * 1000000 };
	struct json_object *arguments = json_object_new_object();
	const unsigned int limit = seconds * 1000 / POLL_MS + 1;
	bool completed, failed, cancelled = false;
	unsigned int tries;
	char *status;
	int asked;

	json_object_object_add(arguments, "uri", json_object_new_string(uri));
	if (!monitor_try(command, arguments, NULL))
		return false;

	for (tries = 0; ; tries++) {
		status = monitor_ask("query-migrate", "status");
		completed = status && !strcmp(status, "completed");
		failed = status && (!strcmp(status, "failed") ||
				    !strcmp(status, "cancelled"));
		free(status);
		if (completed && (!file || !access(file, F_OK)))
			return true;
		if (failed || (completed && cancelled) || tries > 2 * limit)
			break;
		asked = __atomic_load_n(&stop, __ATOMIC_RELAXED);
		if (!cancelled && (asked || tries >= limit)) {
			warnx(asked ? "interrupted" : "%s takes too long", command);
			monitor_try("migrate_cancel", NULL, NULL);
			cancelled = true;
		}
		nanosleep(&pause, NULL);
	}
	warnx("QEMU cannot %s by %s", command, uri);
	return false;
}

/* A new file with the memory as it is now. */
static bool make_clone(int memory, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0) {
		warn("%s", path);
		return false;
	}
	if (ioctl(fd, FICLONE, memory)) {
		warn("cannot clone to %s", path);
		unlink(path);
		close(fd);
		return false;
	}
	close(fd);
	return true;
}

/* Have QEMU's shell write a file, and give it its name when it is whole. */
static bool save_state(const char *state, unsigned int seconds)
{
	char *part = format("%s.part", state);
	char *from = quoted(part), *to = quoted(state);
	char *uri = format("exec:umask 077; cat >%s && mv %s %s", from, from, to);
	bool saved;

	saved = move_state("migrate", uri, state, seconds);
	if (!saved)
		unlink(part);
	free(uri);
	free(to);
	free(from);
	free(part);
	return saved;
}

/* New files with the memory as it is now, all or none. */
static bool make_clones(int memory, char **clones)
{
	int made = 0;

	while (clones[made] && make_clone(memory, clones[made]))
		made++;
	if (!clones[made])
		return true;
	while (made--)
		unlink(clones[made]);
	return false;
}

/* Save the state, clone the memory, let the machine go on. */
static bool fork_machine(const char *state, unsigned int seconds,
			 const char *memory, char **clones)
{
	char *run = monitor_ask("query-status", "status");
	char *saved = format("%s.new", state);
	bool done, goes = true;
	int fd;

	if (!run)
		errx(1, "QEMU does not say whether the machine runs");
	if (strcmp(run, "running") && strcmp(run, "paused"))
		errx(1, "the machine is neither running nor paused: %s", run);
	fd = open(memory, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", memory);

	if (unlink(saved) && errno != ENOENT)
		err(1, "%s", saved);
	catch_signals();
	if (!ignore_shared(true))
		exit(1);
	/* When that is done the machine stands still. */
	done = save_state(saved, seconds) && make_clones(fd, clones);
	/* What was paused stays so, and its clones begin so. */
	if (!strcmp(run, "running"))
		goes = monitor_try("cont", NULL, NULL);
	if (!goes)
		warnx("the machine does not go on");
	ignore_shared(false);
	/* A state of before is of use until there is another one. */
	if (done && rename(saved, state)) {
		warn("%s", state);
		while (*clones)
			unlink(*clones++);
		done = false;
	}
	if (!done)
		unlink(saved);
	free(saved);
	free(run);
	close(fd);
	return done && goes;
}

static bool run_clone(const char *state, unsigned int seconds)
{
	char *name = quoted(state);
	char *uri = format("exec:cat %s", name);
	bool done;

	catch_signals();
	if (!ignore_shared(true))
		exit(1);
	done = move_state("migrate-incoming", uri, NULL, seconds);
	ignore_shared(false);
	free(uri);
	free(name);
	return done;
}

int main(int argc, char **argv)
{
	char *save = NULL, *resume = NULL;
	unsigned int seconds = 60;
	int opt;

	while ((opt = getopt(argc, argv, "s:r:t:h")) != -1) {
		switch (opt) {
		case 's':
			save = optarg;
			break;
		case 'r':
			resume = optarg;
			break;
		case 't':
			seconds = atoi(optarg);
			break;
		default:
			fputs(usage, opt == 'h' ? stdout : stderr);
			return opt == 'h' ? 0 : 2;
		}
	}
	argc -= optind;
	argv += optind;
	if (resume ? save || argc != 1 : argc < 3) {
		fputs(usage, stderr);
		return 2;
	}

	monitor_open(argv[0]);
	json_object_put(monitor_read());
	json_object_put(monitor_do("qmp_capabilities", NULL));
	if (resume)
		return !run_clone(absolute(resume), seconds);
	return !fork_machine(absolute(save ?: format("%s.state", argv[0])), seconds,
			     argv[1], argv + 2);
}
