/* An actor: under any name, it performs the steps in the variable PLAY, and nothing else.

   PLAY is a list of steps, each ended by 0x1e, of words, each ended by 0x1f:

     run N EXECUTABLE DIRECTORY USER GROUP ENVIRONMENT... -- ARGUMENT...
     create|open|fopen|delete|chmod|chown|rename PATH, connect ADDRESS:PORT|PATH,
     title NAME, signal NUMBER, module NAME, protect 7

   run starts another program and waits for it; the N steps after it are that one's. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS = 512 };

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    _exit(1);
}

static void need(int result, const char *what) {
    if (result < 0) fail(what);
}

/* Removes the first word from the text and returns it. */
static char *take(char **text, int end) {
    char *word = *text, *stop = strchr(word, end);
    if (!stop) fail("PLAY is cut");
    *stop = 0;
    *text = stop + 1;
    return word;
}

static void run(char **word, const char *steps) {
    int status, user = atoi(word[4]), group = atoi(word[5]);
    pid_t child = fork();
    need(child, "fork");
    if (child) {
        need(waitpid(child, &status, 0), "waitpid");
        if (status) _exit(1);
        return;
    }
    clearenv();
    setenv("PLAY", steps, 1);
    char *executable = word[2], *directory = word[3];
    for (word += 6; strcmp(*word, "--"); word++) putenv(*word);
    need(chdir(directory), directory);
    need(setresgid(group, group, group), "setresgid");
    need(setresuid(user, user, user), "setresuid");
    execv(executable, word + 1);
    fail(executable);
}

static void act(const char *what, const char *path) {
    char other[4096];
    if (!strcmp(what, "create")) {
        int file = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
        need(file, path);
        close(file);
    } else if (!strcmp(what, "open")) {
        int file = open(path, O_RDONLY);
        need(file, path);
        close(file);
    } else if (!strcmp(what, "delete")) {
        need(unlink(path), path);
    } else if (!strcmp(what, "chmod")) {
        need(chmod(path, 0700), path);
    } else if (!strcmp(what, "chown")) {
        need(chown(path, 65534, -1), path);
    } else if (!strcmp(what, "rename")) {
        snprintf(other, sizeof other, "%s.new", path);
        need(rename(other, path), path);
    } else if (!strcmp(what, "connect") && *path == '/') { /* a listener is not required */
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strncpy(to.sun_path, path, sizeof to.sun_path - 1);
        int stream = socket(AF_UNIX, SOCK_STREAM, 0);
        need(stream, "socket");
        connect(stream, (struct sockaddr *)&to, sizeof to);
        close(stream);
    } else if (!strcmp(what, "protect")) { /* a separate page: writable and executable */
        void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        need(mprotect(page, 4096, atoi(path)), "mprotect");
    } else if (!strcmp(what, "connect")) { /* UDP: nothing is sent */
        struct sockaddr_in to = {.sin_family = AF_INET};
        snprintf(other, sizeof other, "%s", path);
        char *port = strchr(other, ':');
        if (port) *port++ = 0;
        to.sin_port = htons(port ? atoi(port) : 443);
        inet_pton(AF_INET, other, &to.sin_addr);
        int udp = socket(AF_INET, SOCK_DGRAM, 0);
        need(udp, "socket");
        need(connect(udp, (struct sockaddr *)&to, sizeof to), path);
        close(udp);
    } else if (!strcmp(what, "title")) {
        need(prctl(PR_SET_NAME, path), "prctl");
    } else if (!strcmp(what, "signal")) { /* to itself, which ignores it */
        signal(atoi(path), SIG_IGN);
        need(kill(getpid(), atoi(path)), "kill");
    } else if (!strcmp(what, "module")) { /* not a module: the kernel refuses it */
        syscall(SYS_init_module, "", 0L, path);
    } else if (!strcmp(what, "fopen")) { /* with the old system call, like some libraries */
        int file = syscall(SYS_open, path, O_RDONLY, 0666);
        if (file >= 0) close(file);
    } else {
        fail(what);
    }
}

int main(void) {
    char *play = getenv("PLAY"), *rest = strdup(play ? play : ""), *word[WORDS + 1];
    while (*rest) {
        char *step = take(&rest, 0x1e);
        int count = 0;
        while (*step && count < WORDS) word[count++] = take(&step, 0x1f);
        word[count] = NULL;
        if (strcmp(word[0], "run")) {
            act(word[0], word[1]);
            continue;
        }
        char *theirs = rest;
        for (int n = atoi(word[1]); n > 0; n--) {
            rest = strchr(rest, 0x1e);
            if (!rest) fail("PLAY is cut");
            rest++;
        }
        char *steps = strndup(theirs, rest - theirs);
        run(word, steps);
        free(steps);
    }
    return 0;
}
