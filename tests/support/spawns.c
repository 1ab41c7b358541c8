/* Starts a program repeatedly, one process at a time, and measures the duration of each.
 *
 *   spawns COUNT      COUNT times: posix_spawn of itself, which exits at once, and a wait for it
 *
 * Prints one line of JSON: the median, the 99th percentile and the longest, in microseconds.
 */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e6 + at.tv_nsec / 1e3;
}

static int longer(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
	char *child[] = { argv[0], "leave", NULL };
	double *took;
	long count, i;

	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "leave"))
		return 0;
	count = atol(argv[1]);
	took = calloc(count, sizeof(*took));
	if (count < 1 || !took)
		return 2;
	for (i = 0; i < count; i++) {
		double begin = now();
		pid_t pid;
		int status;

		if (posix_spawn(&pid, argv[0], NULL, NULL, child, environ))
			return 1;
		if (waitpid(pid, &status, 0) != pid || status)
			return 1;
		took[i] = now() - begin;
	}
	qsort(took, count, sizeof(*took), longer);
	printf("{\"p50\": %.0f, \"p99\": %.0f, \"max\": %.0f}\n", took[count / 2],
	       took[count * 99 / 100], took[count - 1]);
	return 0;
}
