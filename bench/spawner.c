/* The load: starts processes at a rate, one at a time, and records them.
 *
 *   spawner RATE SECONDS FILE    RATE processes per second, 0: without pauses
 *
 * Each process is this program itself, statically linked, with the two arguments
 * leave bench-PID-NUMBER (PID is the spawner's); it calls exit_group at once. FILE gets a line for
 * each: its pid, and the time just before its start in ns since the epoch. The spawner catches up
 * when it is late. It prints one line: PID NUMBER SECONDS.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long long now(clockid_t clock)
{
	struct timespec at;

	clock_gettime(clock, &at);
	return at.tv_sec * 1000000000LL + at.tv_nsec;
}

int main(int argc, char **argv)
{
	char token[64], *child[] = { argv[0], "leave", token, NULL };
	long long begin, end, due;
	long number;
	double rate;
	FILE *file;

	if (argc == 3 && !strcmp(argv[1], "leave"))
		return 0;
	if (argc != 4 || !(file = fopen(argv[3], "w")))
		return 2;
	rate = atof(argv[1]);
	begin = now(CLOCK_MONOTONIC);
	end = begin + atof(argv[2]) * 1e9;
	for (number = 0; now(CLOCK_MONOTONIC) < end; number++) {
		long long started;
		pid_t pid;
		int status;

		if (rate > 0) {
			struct timespec until;

			due = begin + number / rate * 1e9;
			until.tv_sec = due / 1000000000;
			until.tv_nsec = due % 1000000000;
			while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL))
				;
		}
		snprintf(token, sizeof(token), "bench-%d-%ld", (int)getpid(), number);
		started = now(CLOCK_REALTIME);
		if (posix_spawn(&pid, argv[0], NULL, NULL, child, environ))
			return 1;
		if (waitpid(pid, &status, 0) != pid || status)
			return 1;
		fprintf(file, "%d %lld\n", (int)pid, started);
	}
	if (fclose(file))
		return 1;
	printf("%d %ld %.6f\n", (int)getpid(), number, (now(CLOCK_MONOTONIC) - begin) / 1e9);
	return 0;
}
