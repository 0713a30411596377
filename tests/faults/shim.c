/* Preloaded into the processes of a service under test: storage that fails, processes that die at
 * a given system call, and a wall clock that is off. All of it is told by a page of memory that the
 * test maps too, so that it costs a look at one word while nothing is asked for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, RENAME = 4, CREATE = 8 };
enum { KILL_BEFORE = -1, KILL_AFTER = -2 };

struct control {
    volatile int armed;   /* 0: nothing happens */
    volatile int action;  /* an errno, KILL_BEFORE or KILL_AFTER */
    volatile int calls;   /* which kinds of calls */
    volatile int skip;    /* so many matching calls pass first */
    volatile int times;   /* so many are acted on after that; -1 for all */
    volatile int pid;     /* in this process alone; 0 for all */
    volatile int hits;    /* how many were acted on */
    volatile int unused;
    volatile long long clock_ns;
    char folder[512];     /* calls on files below it */
};

static struct control *told;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SECATEUR_FAULTS_SHIM");
    if (!path) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED) told = page;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int below(const char *path) {
    return path && !strncmp(path, told->folder, strlen(told->folder));
}

/* Whether this call is one to act on: an errno or a KILL_*, 0 to let it pass. */
static int matched(int call) {
    if (!(told->calls & call)) return 0;
    if (told->pid && told->pid != getpid()) return 0;
    if (__sync_fetch_and_sub(&told->skip, 1) > 0) return 0;
    if (told->times >= 0 && __sync_fetch_and_sub(&told->times, 1) <= 0) return 0;
    __sync_fetch_and_add(&told->hits, 1);
    if (told->action == KILL_BEFORE) kill(getpid(), SIGKILL);
    return told->action;
}

static int on_path(int call, const char *path) {
    return told && told->armed && below(path) ? matched(call) : 0;
}

static int on_file(int call, int fd) {
    char link[64], path[1024];
    if (!told || !told->armed) return 0;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (n < 0) return 0;
    path[n] = 0;
    return below(path) ? matched(call) : 0;
}

#define AROUND(act, call_real) \
    do { \
        int todo = (act); \
        if (todo > 0) { errno = todo; return -1; } \
        __typeof__(call_real) result = (call_real); \
        if (todo == KILL_AFTER) kill(getpid(), SIGKILL); \
        return result; \
    } while (0)

ssize_t write(int fd, const void *b, size_t n) { REAL(write); AROUND(on_file(WRITE, fd), real(fd, b, n)); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(pwrite64); AROUND(on_file(WRITE, fd), real(fd, b, n, o)); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(pwrite); AROUND(on_file(WRITE, fd), real(fd, b, n, o)); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); AROUND(on_file(WRITE, fd), real(fd, v, n)); }
int fsync(int fd) { REAL(fsync); AROUND(on_file(SYNC, fd), real(fd)); }
int fdatasync(int fd) { REAL(fdatasync); AROUND(on_file(SYNC, fd), real(fd)); }
int rename(const char *a, const char *b) { REAL(rename); AROUND(on_path(RENAME, b), real(a, b)); }
int link(const char *a, const char *b) { REAL(link); AROUND(on_path(RENAME, b), real(a, b)); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        AROUND(flags & O_CREAT ? on_path(CREATE, path) : 0, real(path, flags, mode)); \
    }
OPEN(open)
OPEN(open64)

static long long ahead(void) { return told ? told->clock_ns : 0; }

int clock_gettime(clockid_t id, struct timespec *at) {
    REAL(clock_gettime);
    int result = real(id, at);
    long long add = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE ? ahead() : 0;
    if (!result && add) {
        long long ns = at->tv_sec * 1000000000LL + at->tv_nsec + add;
        at->tv_sec = ns / 1000000000LL;
        at->tv_nsec = ns % 1000000000LL;
    }
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    REAL(gettimeofday);
    int result = real(at, zone);
    if (!result && at && ahead()) at->tv_sec += ahead() / 1000000000LL;
    return result;
}

time_t time(time_t *at) {
    REAL(time);
    time_t now = real(NULL) + ahead() / 1000000000LL;
    if (at) *at = now;
    return now;
}
