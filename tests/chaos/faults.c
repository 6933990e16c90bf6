/* The n-th write, rename or fsync under a folder fails, or the process dies there.
 *
 * Armed by CHAOS_FAULT="KIND N ACTION FOLDER" in the environment of a process when this library is
 * loaded, or by chaos_arm() later. KIND is w, r or f; ACTION an errno, or 0: the process dies. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static char kind;
static long at;
static int action;
static atomic_long seen[3];

void chaos_arm(char which, long n, int what, const char *where) {
    kind = which; at = n; action = what;
    strncpy(folder, where, sizeof folder - 1);
    for (int i = 0; i < 3; i++) seen[i] = 0;
}

long chaos_seen(char which) { return seen[which == 'w' ? 0 : which == 'r' ? 1 : 2]; }

__attribute__((constructor)) static void from_environment(void) {
    char which, where[PATH_MAX];
    long n;
    int what;
    const char *text = getenv("CHAOS_FAULT");
    if (text && sscanf(text, "%c %ld %d %4095[^\n]", &which, &n, &what, where) == 4)
        chaos_arm(which, n, what, where);
}

/* Whether this call is the one; it then sets errno, or does not return. */
static int due(char which, const char *path) {
    if (!folder[0] || strncmp(path, folder, strlen(folder))) return 0;
    long n = ++seen[which == 'w' ? 0 : which == 'r' ? 1 : 2];
    if (which != kind || n != at) return 0;
    if (!action) kill(getpid(), SIGKILL);
    errno = action;
    return 1;
}

static int due_fd(char which, int fd) {
    char link[64], path[PATH_MAX];
    struct stat facts;
    if (!folder[0] || fd <= 2 || fstat(fd, &facts) || S_ISFIFO(facts.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return due(which, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) {
    return due_fd('w', fd) ? -1 : REAL(write)(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return due_fd('w', fd) ? -1 : REAL(writev)(fd, parts, count);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
    return due_fd('w', fd) ? -1 : REAL(pwrite64)(fd, data, size, place);
}
int fsync(int fd) { return due_fd('f', fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return due_fd('f', fd) ? -1 : REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) {
    return due('r', to) ? -1 : REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    return due('r', to) ? -1 : REAL(renameat)(a, from, b, to);
}
