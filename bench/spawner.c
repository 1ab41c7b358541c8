/* The load: starts processes at a rate, one at a time, and records them.
 *
 *   spawner RATE SECONDS FILE [varied]
 *       RATE processes per second, 0: without pauses
 *   spawner refused SECONDS
 *       only execs that fail, without pauses; prints their number
 *
 * Each process is this program itself, statically linked, with the two arguments
 * leave bench-PID-NUMBER (PID is the spawner's); it calls exit_group at once. FILE gets a line for
 * each: its number, its pid, and the time just before its start in ns since the epoch. The spawner
 * catches up when it is late. It prints one line: PID NUMBER SECONDS.
 *
 * With varied, processes have up to 40 more arguments before the token, and every hundredth leads a
 * session with nine children, like a login shell; NUMBER counts these, FILE does not list them.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_ARGUMENTS 40
#define CHILDREN 9

extern char **environ;

static long long now(clockid_t clock)
{
	struct timespec at;

	clock_gettime(clock, &at);
	return at.tv_sec * 1000000000LL + at.tv_nsec;
}

/* Starts one process; role is leave or session. */
static int start(char *program, char *role, int spawner, long number, int varied, pid_t *pid)
{
	static char more[MOST_ARGUMENTS][48];
	char token[64], *child[MOST_ARGUMENTS + 4];
	/* Most have few arguments, and some have many. */
	int arguments = !varied ? 0 : number % 20 ? number % 6 : MOST_ARGUMENTS;
	int last = 0, each;

	child[last++] = program;
	child[last++] = role;
	for (each = 0; each < arguments; each++) {
		snprintf(more[each], sizeof(more[each]), "--option-%d=/srv/data/%ld/%ld", each,
			 number % 97, number);
		child[last++] = more[each];
	}
	snprintf(token, sizeof(token), "bench-%d-%ld", spawner, number);
	child[last++] = token;
	child[last] = NULL;
	return posix_spawn(pid, program, NULL, NULL, child, environ);
}

static int ended_well(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && !status;
}

/* What a process does that leads a session; its last argument is its token. */
static int session(char *program, const char *token)
{
	int spawner, each;
	long number;
	pid_t pid;

	if (sscanf(token, "bench-%d-%ld", &spawner, &number) != 2 || setsid() < 0)
		return 1;
	for (each = 1; each <= CHILDREN; each++)
		if (start(program, "leave", spawner, number + each, 1, &pid) || !ended_well(pid))
			return 1;
	return 0;
}

static int refused(double seconds)
{
	char *child[] = { "missing", NULL };
	long long end = now(CLOCK_MONOTONIC) + seconds * 1e9;
	long number;

	for (number = 0; now(CLOCK_MONOTONIC) < end; number++)
		execve("/nonexistent/missing", child, environ);
	printf("%ld\n", number);
	return 0;
}

int main(int argc, char **argv)
{
	long long begin, end, due;
	long number = 0;
	double rate;
	int varied;
	FILE *file;

	if (argc >= 3 && !strcmp(argv[1], "leave"))
		return 0;
	if (argc >= 3 && !strcmp(argv[1], "session"))
		return session(argv[0], argv[argc - 1]);
	if (argc == 3 && !strcmp(argv[1], "refused"))
		return refused(atof(argv[2]));
	varied = argc == 5 && !strcmp(argv[4], "varied");
	if (argc != 4 + varied || !(file = fopen(argv[3], "w")))
		return 2;
	rate = atof(argv[1]);
	begin = now(CLOCK_MONOTONIC);
	end = begin + atof(argv[2]) * 1e9;
	while (now(CLOCK_MONOTONIC) < end) {
		int leads = varied && number % 100 == 0;
		long long started;
		pid_t pid;

		if (rate > 0) {
			struct timespec until;

			due = begin + number / rate * 1e9;
			until.tv_sec = due / 1000000000;
			until.tv_nsec = due % 1000000000;
			while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL))
				;
		}
		started = now(CLOCK_REALTIME);
		if (start(argv[0], leads ? "session" : "leave", (int)getpid(), number, varied, &pid))
			return 1;
		if (!ended_well(pid))
			return 1;
		fprintf(file, "%ld %d %lld\n", number, (int)pid, started);
		number += leads ? 1 + CHILDREN : 1;
	}
	if (fclose(file))
		return 1;
	printf("%d %ld %.6f\n", (int)getpid(), number, (now(CLOCK_MONOTONIC) - begin) / 1e9);
	return 0;
}
