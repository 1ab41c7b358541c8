/* Creates processes in every possible way, which record their own attributes.
 *
 * usage: truth FILE WAY [COUNT [RATE]]
 *
 * Runs WAY COUNT times, RATE times per second (0: without pauses). Each process appends a line of
 * JSON to FILE when it starts an image ("exec"), starts without one ("fork") or starts a session
 * ("setsid"); its waiting parent appends an "end" with the wait status. Numbers are the kernel's:
 * start in clock ticks since boot as in /proc/PID/stat; argv and cwd in hex. The last argument of
 * each image identifies its run: way-<pid of the creator>-<number>.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char *file; /* the records */
static const char *self; /* this program's own path */
static char **arguments;

static void die(const char *what)
{
	fprintf(stderr, "truth: %s: %s\n", what, strerror(errno));
	_exit(120);
}

static void append(const char *line, size_t size)
{
	int fd = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd < 0 || write(fd, line, size) != (ssize_t)size)
		die(file);
	close(fd);
}

/* Numbers of /proc/PID/stat, counted from the one after the name: 0 is the state. */
static void stat_of(pid_t pid, long long *numbers, int count)
{
	char path[64], text[2048], *at;
	ssize_t size;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (size = read(fd, text, sizeof text - 1)) <= 0)
		die(path);
	close(fd);
	text[size] = 0;
	at = strrchr(text, ')') + 4;
	for (int i = 1; i < count; i++)
		numbers[i] = strtoll(at, &at, 10);
}

static char *hex(char *to, const char *from)
{
	*to++ = '"';
	for (; *from; from++)
		to += sprintf(to, "%02x", (unsigned char)*from);
	*to++ = '"';
	*to = 0;
	return to;
}

/* Appends the current attributes of the calling process. */
static void tell(const char *event)
{
	long long n[20];
	size_t room = 8192;
	char cwd[4096], exe[4096], *line, *at;
	ssize_t size = readlink("/proc/self/exe", exe, sizeof exe - 1);

	if (size < 0 || !getcwd(cwd, sizeof cwd))
		die("/proc/self");
	exe[size] = 0;
	stat_of(getpid(), n, 20);
	for (int i = 0; arguments[i]; i++)
		room += 2 * strlen(arguments[i]) + 8;
	room += 2 * (strlen(cwd) + strlen(exe));
	line = at = malloc(room);
	at += sprintf(at, "{\"event\":\"%s\",\"pid\":%d,\"start\":%lld,\"ppid\":%lld,\"pgid\":%lld,"
		      "\"sid\":%lld,\"tty\":%lld,\"uid\":%d,\"exe\":", event, (int)getpid(), n[19], n[1],
		      n[2], n[3], n[4], (int)geteuid());
	at = hex(at, exe);
	at += sprintf(at, ",\"cwd\":");
	at = hex(at, cwd);
	at += sprintf(at, ",\"argv\":[");
	for (int i = 0; arguments[i]; i++) {
		if (i)
			*at++ = ',';
		at = hex(at, arguments[i]);
	}
	at += sprintf(at, "]}\n");
	append(line, (size_t)(at - line));
	free(line);
}

/* Waits for a child, and appends its end. */
static int reap(pid_t pid)
{
	char line[256];
	long long n[20];
	siginfo_t info;
	int status, size;

	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT))
		die("waitid");
	stat_of(pid, n, 20);
	if (waitpid(pid, &status, 0) != pid)
		die("waitpid");
	size = sprintf(line, "{\"event\":\"end\",\"pid\":%d,\"start\":%lld,\"status\":%d}\n", (int)pid,
		       n[19], status);
	append(line, (size_t)size);
	return status;
}

static char token[64];

/* argv of a further image of this program, which performs WAY's part in the new process. */
static char **image(const char *part)
{
	static char *argv[8];

	argv[0] = (char *)self;
	argv[1] = (char *)file;
	argv[2] = (char *)part;
	argv[3] = token;
	argv[4] = NULL;
	return argv;
}

static void become(const char *part)
{
	execve(self, image(part), environ);
	die("execve");
}

static pid_t spawned(char **argv)
{
	pid_t pid;
	int error = posix_spawn(&pid, self, NULL, NULL, argv, environ);

	if (error) {
		errno = error;
		die("posix_spawn");
	}
	return pid;
}

static pid_t forked(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	return pid;
}

/* --- the ways; each creates its processes once --- */

static void way_spawn(long number)
{
	(void)number;
	reap(spawned(image("leave:0")));
}

static void way_code(long number)
{
	char part[32];

	snprintf(part, sizeof part, "leave:%ld", number % 256);
	reap(spawned(image(part)));
}

static void way_vfork(long number)
{
	char **argv = image("leave:0");
	pid_t pid = vfork();

	(void)number;
	if (pid == 0) {
		execve(self, argv, environ);
		_exit(121);
	}
	reap(pid);
}

static void way_fork(long number)
{
	pid_t pid = forked();

	if (pid == 0) {
		tell("fork");
		_exit((int)(number % 256));
	}
	reap(pid);
}

static void way_chain(long number)
{
	(void)number;
	reap(spawned(image("again:3")));
}

static void way_thread(long number)
{
	(void)number;
	reap(spawned(image("exec_in_thread")));
}

static void way_last_thread(long number)
{
	(void)number;
	reap(spawned(image("leave_by_threads")));
}

static void way_signal(long number)
{
	static const int signals[] = {SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGHUP, SIGUSR1, SIGALRM};
	char part[32];

	snprintf(part, sizeof part, "die:%d", signals[number % (long)(sizeof signals / sizeof *signals)]);
	reap(spawned(image(part)));
}

static void way_setsid(long number)
{
	(void)number;
	reap(spawned(image("lead_session")));
}

static void way_pgid(long number)
{
	(void)number;
	reap(spawned(image("lead_group")));
}

/* The grandchild leads no session, and its parent is init or a subreaper. */
static void way_daemon(long number)
{
	int done[2];
	char byte;
	pid_t pid;

	(void)number;
	if (pipe(done)) /* not close-on-exec: the daemon's end closes it */
		die("pipe");
	pid = forked();
	if (pid == 0) {
		close(done[0]);
		setsid();
		tell("setsid");
		if (forked() == 0)
			become("leave:7");
		_exit(0);
	}
	close(done[1]);
	reap(pid);
	while (read(done[0], &byte, 1) > 0)
		;
	close(done[0]);
}

/* The creator ends before its child executes a program. */
static void way_orphan(long number)
{
	int done[2];
	char byte;
	pid_t pid;

	(void)number;
	if (pipe(done))
		die("pipe");
	pid = forked();
	if (pid == 0) {
		pid_t me = getpid();

		close(done[0]);
		tell("fork");
		if (forked() == 0) {
			while (getppid() == me)
				sched_yield();
			become("leave:8");
		}
		_exit(0);
	}
	close(done[1]);
	reap(pid);
	while (read(done[0], &byte, 1) > 0)
		;
	close(done[0]);
}

static void way_subreaper(long number)
{
	(void)number;
	reap(spawned(image("adopt")));
}

static void way_failed(long number)
{
	pid_t pid = forked();

	(void)number;
	if (pid == 0) {
		tell("fork");
		execve("/nonexistent/program", image("never"), environ);
		_exit(127);
	}
	reap(pid);
}

static void way_memfd(long number)
{
	pid_t pid = forked();

	(void)number;
	if (pid == 0) {
		int from = open(self, O_RDONLY | O_CLOEXEC), to = memfd_create("truth", MFD_CLOEXEC);
		char part[65536];
		ssize_t size;

		if (from < 0 || to < 0)
			die("memfd");
		while ((size = read(from, part, sizeof part)) > 0)
			if (write(to, part, (size_t)size) != size)
				die("memfd");
		fexecve(to, image("leave:0"), environ);
		die("fexecve");
	}
	reap(pid);
}

/* Arguments of every kind: empty, blank, quotes, hex-like text, bytes that are not UTF-8. */
static void way_arguments(long number)
{
	static char *odd[] = {"", " ", "a b", "\"quoted\"", "'", "3005", "DEADBEEF", "\x80\xff", "\xed\xa0\x80",
			      "line\nbreak", "tab\t", "\x1b[31mred", "gr\xc3\xbc\xc3\x9f", "(null)", "a0=b", ""};
	enum { ODD = sizeof odd / sizeof *odd };
	char *argv[ODD + 5];

	(void)number;
	argv[0] = (char *)self;
	argv[1] = (char *)file;
	argv[2] = "leave:0";
	memcpy(argv + 3, odd, sizeof odd);
	argv[ODD + 3] = token;
	argv[ODD + 4] = NULL;
	reap(spawned(argv));
}

/* More argument bytes than one audit record holds. */
static void way_long(long number)
{
	enum { MANY = 600 };
	static char *argv[MANY + 5];
	static char big[20000];

	memset(big, 'b', sizeof big - 1);
	argv[0] = (char *)self;
	argv[1] = (char *)file;
	argv[2] = "leave:0";
	for (int i = 0; i < MANY; i++)
		argv[3 + i] = i == MANY / 2 && number % 2 == 0 ? big : "argument";
	argv[MANY + 3] = token;
	argv[MANY + 4] = NULL;
	reap(spawned(argv));
}

/* Two processes with one pid, one right after the other. */
static void way_reuse(long number)
{
	pid_t pid = 0;

	(void)number;
	for (int i = 0; i < 2; i++) {
		struct clone_args arguments_of_clone = {.exit_signal = SIGCHLD};
		pid_t got;

		if (pid) {
			arguments_of_clone.set_tid = (uintptr_t)&pid;
			arguments_of_clone.set_tid_size = 1;
		}
		got = (pid_t)syscall(SYS_clone3, &arguments_of_clone, sizeof arguments_of_clone);
		if (got < 0)
			die("clone3");
		if (got == 0)
			become(i ? "leave:22" : "leave:11");
		pid = got;
		reap(got);
	}
}

/* --- the part of an image in its process --- */

static void *leave_by_exec(void *unused)
{
	(void)unused;
	become("leave:9");
	return NULL;
}

static void *leave_later(void *unused)
{
	(void)unused;
	usleep(20000);
	syscall(SYS_exit, 5);
	return NULL;
}

static int play(const char *part)
{
	const char *colon = strchr(part, ':');
	int number = colon ? atoi(colon + 1) : 0;
	pthread_t thread;

	tell("exec");
	if (!strncmp(part, "leave:", 6))
		_exit(number);
	if (!strncmp(part, "again:", 6)) {
		char next[32];

		snprintf(next, sizeof next, number > 1 ? "again:%d" : "leave:%d", number > 1 ? number - 1 : 6);
		become(next);
	}
	if (!strncmp(part, "die:", 4)) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(number, SIG_DFL);
		raise(number);
		pause();
	}
	if (!strcmp(part, "exec_in_thread")) {
		if (pthread_create(&thread, NULL, leave_by_exec, NULL))
			die("pthread_create");
		for (;;)
			pause();
	}
	if (!strcmp(part, "leave_by_threads")) {
		if (pthread_create(&thread, NULL, leave_later, NULL))
			die("pthread_create");
		syscall(SYS_exit, 4);
	}
	if (!strcmp(part, "lead_session")) {
		if (setsid() < 0)
			die("setsid");
		tell("setsid");
		_exit(0);
	}
	if (!strcmp(part, "lead_group")) {
		if (setpgid(0, 0))
			die("setpgid");
		become("leave:0");
	}
	if (!strcmp(part, "adopt")) {
		pid_t child;

		prctl(PR_SET_CHILD_SUBREAPER, 1);
		child = forked();
		if (child == 0) {
			pid_t me = getpid();

			if (forked() == 0) {
				while (getppid() == me)
					sched_yield();
				become("leave:3");
			}
			_exit(0);
		}
		reap(child);
		child = wait(NULL); /* the adopted process, whose pid only itself knows */
		_exit(child < 0);
	}
	fprintf(stderr, "truth: no such part: %s\n", part);
	return 122;
}

static const struct {
	const char *name;
	void (*make)(long);
} ways[] = {
	{"spawn", way_spawn},	{"code", way_code},	    {"vfork", way_vfork},   {"fork", way_fork},
	{"chain", way_chain},	{"thread", way_thread},	    {"signal", way_signal}, {"last_thread", way_last_thread},
	{"setsid", way_setsid}, {"pgid", way_pgid},	    {"daemon", way_daemon}, {"orphan", way_orphan},
	{"failed", way_failed}, {"subreaper", way_subreaper}, {"memfd", way_memfd}, {"arguments", way_arguments},
	{"long", way_long},	{"reuse", way_reuse},
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	long count = argc > 3 ? atol(argv[3]) : 1;
	double rate = argc > 4 ? atof(argv[4]) : 0, begin = now();
	char own[4096];
	ssize_t size = readlink("/proc/self/exe", own, sizeof own - 1);

	if (argc < 3 || size < 0) {
		fprintf(stderr, "usage: truth FILE WAY [COUNT [RATE]]\n");
		return 2;
	}
	own[size] = 0;
	self = strncmp(own, "/memfd:", 7) ? own : argv[0];
	file = argv[1];
	arguments = argv;
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		if (strcmp(argv[2], ways[i].name))
			continue;
		for (long n = 0; n < count; n++) {
			if (rate > 0) {
				double wait = begin + (double)n / rate - now();

				if (wait > 0)
					usleep((useconds_t)(wait * 1e6));
			}
			snprintf(token, sizeof token, "%s-%d-%ld", argv[2], (int)getpid(), n);
			ways[i].make(n);
		}
		return 0;
	}
	snprintf(token, sizeof token, "%s", argv[argc - 1]);
	return play(argv[2]);
}
