/* An ordinary user's attempts to blind, deceive or exhaust the daemon; main() lists them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
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
 * of arguments of two letters, then sleeps. One process is started every 20 ms. */
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

/* descriptors NUMBER FORKS: calls itself sshd, opens NUMBER descriptors, and forks children that end. */
static void descriptors(char **given)
{
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  prctl(PR_SET_NAME, "sshd");
  for (int i = 0; i < atoi(given[0]) && dup(0) >= 0; i++)
    ;
  printf("open\n");
  fflush(stdout);
  for (int i = 0; i < atoi(given[1]); i++) {
    if (fork() == 0)
      _exit(0);
    reap();
  }
  pause();
}

/* login COMMAND: forks like a login server; the grandchild leads a session that runs COMMAND in a
 * shell. As a library in another program (LD_PRELOAD) the command is in ATTACK_LOGIN. */
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

/* hang DEVICE FOLDER SECONDS: a process whose memory blocks its readers. Its file system (FUSE, mounted on
 * FOLDER in a user namespace) fails the first read of a mapped page and never answers the next: the page
 * fault holds the lock of the memory, an mmap waits for writing, and a reader of /proc/PID/cmdline waits
 * behind that. DEVICE is /dev/fuse or another node of it. */
static char *page;

static void answer(int device, unsigned long unique, int error, const void *data, size_t size)
{
  char message[4096];
  struct fuse_out_header head = {sizeof(head) + size, error, unique};
  memcpy(message, &head, sizeof(head));
  memcpy(message + sizeof(head), data, size);
  if (write(device, message, sizeof(head) + size) < 0)
    perror("answer");
}

static void serve(int device)
{
  static char request[1 << 20];
  struct fuse_in_header *head = (void *)request;
  int reads = 0;
  for (;;) {
    if (read(device, request, sizeof(request)) < 0) {
      if (errno == EINTR)
        continue;
      return;
    }
    struct fuse_attr attributes = {.ino = head->nodeid, .nlink = 1, .blksize = 4096, .mode = S_IFDIR | 0755};
    if (head->nodeid != 1 || head->opcode == FUSE_LOOKUP) {
      attributes.mode = S_IFREG | 0644;
      attributes.size = 4096;
      attributes.ino = 2;
    }
    struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 4096};
    struct fuse_entry_out entry = {.nodeid = 2, .attr_valid = 1000, .entry_valid = 1000, .attr = attributes};
    struct fuse_attr_out attribute = {.attr_valid = 1000, .attr = attributes};
    struct fuse_open_out opened = {.fh = 1};
    if (head->opcode == FUSE_INIT)
      answer(device, head->unique, 0, &init, sizeof(init));
    else if (head->opcode == FUSE_LOOKUP)
      answer(device, head->unique, 0, &entry, sizeof(entry));
    else if (head->opcode == FUSE_GETATTR)
      answer(device, head->unique, 0, &attribute, sizeof(attribute));
    else if (head->opcode == FUSE_OPEN)
      answer(device, head->unique, 0, &opened, sizeof(opened));
    else if (head->opcode == FUSE_READ) {
      if (++reads == 1)
        answer(device, head->unique, -EIO, "", 0);
    } else if (head->opcode != FUSE_FORGET)
      answer(device, head->unique, -ENOSYS, "", 0);
  }
}

static void *fault(void *unused)
{
  volatile char byte = page[0];
  (void)byte;
  return 0;
}

static void *queue_up(void *unused)
{
  usleep(500000);
  mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return 0;
}

static void write_file(const char *path, const char *text)
{
  int file = open(path, O_WRONLY);
  if (file < 0 || write(file, text, strlen(text)) < 0)
    refuse(path);
  close(file);
}

static void hang(char **given)
{
  char text[128];
  int uid = getuid(), gid = getgid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
    refuse("unshare");
  write_file("/proc/self/setgroups", "deny");
  snprintf(text, sizeof(text), "0 %d 1", uid);
  write_file("/proc/self/uid_map", text);
  snprintf(text, sizeof(text), "0 %d 1", gid);
  write_file("/proc/self/gid_map", text);
  int device = open(given[0], O_RDWR);
  if (device < 0)
    refuse(given[0]);
  snprintf(text, sizeof(text), "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
  if (mount("attacks", given[1], "fuse", MS_NOSUID | MS_NODEV, text))
    refuse("mount");
  pid_t server = fork();
  if (server == 0) {
    serve(device);
    _exit(0);
  }
  pid_t victim = fork();
  if (victim == 0) {
    pthread_t threads[2];
    close(device); /* with the last server the reads end */
    snprintf(text, sizeof(text), "%s/file", given[1]);
    int file = open(text, O_RDONLY);
    if (file < 0)
      refuse(text);
    page = mmap(0, 4096, PROT_READ, MAP_SHARED, file, 0);
    madvise(page, 4096, MADV_RANDOM);
    pthread_create(&threads[0], 0, fault, 0);
    pthread_create(&threads[1], 0, queue_up, 0);
    pthread_join(threads[0], 0);
    _exit(0);
  }
  sleep(1);
  printf("%d\n", victim);
  fflush(stdout);
  sleep(atoi(given[2]));
  kill(server, SIGKILL);
  kill(victim, SIGKILL);
  close(device);
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

/* failing SECONDS: tries to execute missing files without pauses; one in 100 lacks the permission. */
static void failing(char **given)
{
  char *nothing[] = {0};
  time_t until = time(0) + atoi(given[0]);

  for (unsigned i = 1; i % 400 || time(0) < until; i++)
    execve(i % 100 ? "/xxxxxxxxx" : "/etc/passwd", nothing, nothing);
}

/* empties NUMBER SECONDS: executes programs with NUMBER empty arguments. */
static void empties(char **given)
{
  int number = atoi(given[0]);
  char **arguments = calloc(number + 1, sizeof(*arguments));
  struct rlimit limit;
  time_t until = time(0) + atoi(given[1]);

  getrlimit(RLIMIT_STACK, &limit);
  limit.rlim_cur = limit.rlim_max; /* a quarter of it is for arguments, at most 6 MiB */
  setrlimit(RLIMIT_STACK, &limit);
  for (int i = 0; i < number; i++)
    arguments[i] = "";
  while (time(0) < until) {
    if (fork() == 0) {
      execve("/bin/true", arguments, arguments + number);
      refuse("execve");
    }
    reap();
  }
}

/* changes SECONDS: changes its process group without pauses, from one to another and back. */
static void changes(char **given)
{
  time_t until = time(0) + atoi(given[0]);
  pid_t parent = getpgrp();

  if (fork() == 0)
    for (unsigned i = 1; i % 4096 || time(0) < until; i++)
      setpgid(0, i % 2 ? 0 : parent);
  reap();
}

/* detached FOLDER NAME TOKEN: a process in a user namespace copies FOLDER to a detached mount and passes
 * its descriptor on (open_tree(2), unix(7)). A process in the host's namespaces opens the file NAME in it,
 * and executes the file when the mount is gone. */
static void detached(char **given)
{
  int pair[2], tree, file;
  char text[128], control[CMSG_SPACE(sizeof(tree))], byte = 0;
  struct iovec data = {&byte, 1};
  struct msghdr message = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  int uid = getuid();

  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
    refuse("socketpair");
  if (fork() == 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
      refuse("unshare");
    snprintf(text, sizeof(text), "0 %d 1", uid);
    write_file("/proc/self/uid_map", text);
    tree = syscall(SYS_open_tree, AT_FDCWD, given[0], OPEN_TREE_CLONE);
    if (tree < 0)
      refuse("open_tree");
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(tree));
    memcpy(CMSG_DATA(head), &tree, sizeof(tree));
    if (sendmsg(pair[0], &message, 0) < 0)
      refuse("sendmsg");
    _exit(0);
  }
  if (recvmsg(pair[1], &message, 0) < 0)
    refuse("recvmsg");
  reap();
  memcpy(&tree, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(tree));
  file = openat(tree, given[1], O_PATH);
  close(tree);
  snprintf(text, sizeof(text), "/proc/self/fd/%d", file);
  execl(text, given[1], given[2], (char *)0);
  refuse(given[1]);
}

/* altered BYTES TOKEN: executes /bin/true with TOKEN and BYTES more of arguments, traces it, and overwrites
 * them with z once the exec is done, before the system call returns. */
static void altered(char **given)
{
  int bytes = atoi(given[0]), status;
  char *more = malloc(bytes + 1), path[64], text[2048], *at;
  unsigned long long place[2];
  pid_t pid = fork();

  memset(more, 'a', bytes);
  more[bytes] = 0;
  if (pid == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    execl("/bin/true", "true", given[1], more, (char *)0);
    refuse("execl");
  }
  waitpid(pid, &status, 0);
  ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
  ptrace(PTRACE_CONT, pid, 0, 0);
  waitpid(pid, &status, 0);
  snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  int file = open(path, O_RDONLY);
  text[read(file, text, sizeof(text) - 1)] = 0;
  at = strrchr(text, ')');
  for (int field = 2; field < 48; field++) /* arg_start is the 48th, arg_end the 49th */
    at = strchr(at, ' ') + 1;
  place[0] = strtoull(at, &at, 10);
  place[1] = strtoull(at, &at, 10);
  snprintf(path, sizeof(path), "/proc/%d/mem", pid);
  file = open(path, O_WRONLY);
  memset(more, 'z', bytes);
  pwrite(file, "zzzz", 4, place[0]);
  if (pwrite(file, more, bytes, place[1] - bytes - 1) != bytes)
    refuse("pwrite");
  ptrace(PTRACE_CONT, pid, 0, 0);
  reap();
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
      {"descriptors", 2, descriptors},
      {"login", 1, login},
      {"hang", 3, hang},
      {"failing", 1, failing},
      {"empties", 2, empties},
      {"changes", 1, changes},
      {"detached", 3, detached},
      {"altered", 2, altered},
  };

  for (unsigned i = 0; i < sizeof(ways) / sizeof(*ways); i++)
    if (count > 1 && strcmp(given[1], ways[i].name) == 0 && count >= 2 + ways[i].arguments) {
      ways[i].run(given + 2);
      return 0;
    }
  fprintf(stderr, "attacks: see its source for the ways\n");
  return 2;
}
