/* What an ordinary user does to blind, fool or exhaust the daemon; main() lists the ways. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void refuse(const char *what)
{
  perror(what);
  exit(1);
}

static void reap(void)
{
  while (wait(0) > 0)
    ;
}

/* arguments PROCESSES EXECS BYTES SECONDS: each process executes this program EXECS times with BYTES
 * of arguments of two letters, then sleeps. One of 20 ms each is started. */
static void execute_with_arguments(int execs, int bytes, const char *seconds)
{
  int number = bytes / 3, next = 0;
  char **arguments = calloc(number + 8, sizeof(*arguments));
  char *memory = malloc(bytes + 3);
  char left[16], size[16], *nothing[] = {0};

  snprintf(left, sizeof(left), "%d", execs);
  snprintf(size, sizeof(size), "%d", bytes);
  arguments[next++] = "attacks";
  arguments[next++] = "again";
  arguments[next++] = left;
  arguments[next++] = size;
  arguments[next++] = (char *)seconds;
  for (int i = 0; i < number; i++) {
    char *letters = memory + 3 * i;
    letters[0] = 'a' + i % 26;
    letters[1] = 'a' + i / 26 % 26;
    letters[2] = 0;
    arguments[next++] = letters;
  }
  execve("/proc/self/exe", arguments, nothing);
  refuse("execve");
}

static void arguments(char **given)
{
  for (int i = 0; i < atoi(given[0]); i++) {
    if (fork() == 0)
      execute_with_arguments(atoi(given[1]), atoi(given[2]), given[3]);
    usleep(20000);
  }
  printf("all\n");
  fflush(stdout);
  reap();
}

static void again(char **given)
{
  if (atoi(given[0]) > 1)
    execute_with_arguments(atoi(given[0]) - 1, atoi(given[1]), given[2]);
  sleep(atoi(given[2]));
}

/* login COMMAND: forks as a login server does, and the child's child leads a session that runs COMMAND
 * in a shell. As a library in another program (LD_PRELOAD) the command is that of ATTACK_LOGIN. */
static void login(char **given)
{
  if (fork() == 0) {
    if (fork() == 0) {
      setsid();
      execl("/bin/sh", "sh", "-c", given[0], (char *)0);
      refuse("execl");
    }
    reap();
    _exit(0);
  }
  reap();
}

__attribute__((constructor)) static void loaded(void)
{
  char *command = getenv("ATTACK_LOGIN");
  if (!command)
    return;
  unsetenv("ATTACK_LOGIN");
  unsetenv("LD_PRELOAD");
  login(&command);
  _exit(0);
}

int main(int count, char **given)
{
  struct {
    const char *name;
    int arguments;
    void (*run)(char **given);
  } ways[] = {
      {"arguments", 4, arguments},
      {"again", 3, again},
      {"login", 1, login},
  };

  for (unsigned i = 0; i < sizeof(ways) / sizeof(*ways); i++)
    if (count > 1 && strcmp(given[1], ways[i].name) == 0 && count >= 2 + ways[i].arguments) {
      ways[i].run(given + 2);
      return 0;
    }
  fprintf(stderr, "attacks: see its source for the ways\n");
  return 2;
}
