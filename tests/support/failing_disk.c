/* A disk that fails when it is told to: preloaded, it makes one kind of call on paths with a given part return an error.
   gcc -shared -fPIC -O1 -o failing_disk.so failing_disk.c -ldl
   fail(call, part of the path, which of the matching calls, whether all after it too, errno); fail("", ...) ends it.
   The call "any" is every kind; the errno -1 kills the process instead, in the middle of what a write was to write. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char call_[16], part_[256];
static int first_, for_good_, errno_, seen_, failed_;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

void fail(const char *call, const char *part, int first, int for_good, int number) {
    pthread_mutex_lock(&turn);
    snprintf(call_, sizeof call_, "%s", call);
    snprintf(part_, sizeof part_, "%s", part);
    first_ = first, for_good_ = for_good, errno_ = number, seen_ = 0;
    if (call[0]) failed_ = 0;
    pthread_mutex_unlock(&turn);
}

int failed(void) { return failed_; }
int seen(void) { return seen_; }

static int fails(const char *call, const char *path) {
    int now = 0;
    if (!call_[0]) return 0;
    pthread_mutex_lock(&turn);
    if ((strcmp(call, call_) == 0 || (strcmp("any", call_) == 0 && strcmp("short", call))) && strstr(path, part_)) {
        ++seen_;
        now = for_good_ ? seen_ >= first_ : seen_ == first_;
        failed_ += now;
    }
    pthread_mutex_unlock(&turn);
    if (now && errno_ == -1) {
        if (strcmp(call, "write") == 0) return 2;
        kill(getpid(), SIGKILL);
    }
    if (now) errno = errno_;
    return now;
}

static int fails_fd(const char *call, int fd) {
    char link[64], path[4096];
    ssize_t n;
    if (!call_[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, mode_t); va_end(a); }

int open(const char *path, int flags, ...) { MODE(flags) return fails("open", path) ? -1 : REAL(open)(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return fails("open", path) ? -1 : REAL(open64)(path, flags, mode); }
int openat(int d, const char *path, int flags, ...) { MODE(flags) return fails("open", path) ? -1 : REAL(openat)(d, path, flags, mode); }
int openat64(int d, const char *path, int flags, ...) { MODE(flags) return fails("open", path) ? -1 : REAL(openat64)(d, path, flags, mode); }
int mkdir(const char *path, mode_t mode) { return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode); }
int rename(const char *a, const char *b) { return fails("rename", b) ? -1 : REAL(rename)(a, b); }
int fsync(int fd) { return fails_fd("fsync", fd) ? -1 : REAL(fsync)(fd); }
int ftruncate(int fd, off_t n) { return fails_fd("truncate", fd) ? -1 : REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { return fails_fd("truncate", fd) ? -1 : REAL(ftruncate64)(fd, n); }
/* "write" fails at once; "short" takes half of what it is given before, as a disk that is full. */
ssize_t write(int fd, const void *data, size_t n) {
    int how = fails_fd("write", fd);
    if (how == 2) {
        if (REAL(write)(fd, data, n / 2) >= 0) kill(getpid(), SIGKILL);
    }
    if (how) return -1;
    if (n > 1 && fails_fd("short", fd)) {
        ssize_t written = REAL(write)(fd, data, n / 2);
        snprintf(call_, sizeof call_, "write");
        return written;
    }
    return REAL(write)(fd, data, n);
}
