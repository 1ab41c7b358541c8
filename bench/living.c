/* Many living processes: living NUMBER starts them, prints their number when all exist, and ends
 * them and itself at the end of its standard input.
 *
 * Each is a separate, sleeping process (no CLONE_THREAD). All share one memory (CLONE_VM) that
 * contains a small stack for each, so that 100,000 processes need little memory.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK 8192

static int sleeper(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	long number = argc == 2 ? atol(argv[1]) : 0, running;
	pid_t *pids = calloc(number, sizeof(*pids));
	char *stacks = mmap(NULL, number * STACK, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (number < 1 || !pids || stacks == MAP_FAILED)
		return 2;
	for (running = 0; running < number; running++) {
		pids[running] = clone(sleeper, stacks + (running + 1) * STACK,
				      CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, NULL);
		if (pids[running] < 0) {
			perror("clone");
			break;
		}
	}
	if (running == number) {
		printf("%ld\n", number);
		fflush(stdout);
		while (getchar() != EOF)
			;
	}
	while (running--) {
		kill(pids[running], SIGKILL);
		waitpid(pids[running], NULL, 0);
	}
	return 0;
}
