/* Preloaded: every write into the folder SHORT_WRITES is cut to half of what was asked, as POSIX lets any write be. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static unsigned long cut;

static size_t shortened(int file, size_t length) {
    char link[64], path[PATH_MAX];
    const char *folder = getenv("SHORT_WRITES");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t found = folder ? readlink(link, path, sizeof path - 1) : -1;
    if (found < 0 || length < 2) return length;
    path[found] = 0;
    if (strncmp(path, folder, strlen(folder)) != 0) return length;
    __atomic_add_fetch(&cut, 1, __ATOMIC_RELAXED);
    return length / 2;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t length) { return REAL(write)(file, bytes, shortened(file, length)); }
ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) { return REAL(pwrite)(file, bytes, shortened(file, length), at); }
ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) { return REAL(pwrite64)(file, bytes, shortened(file, length), at); }

/* Of several pieces the first alone. */
ssize_t writev(int file, const struct iovec *pieces, int count) { return write(file, count ? pieces->iov_base : "", count ? pieces->iov_len : 0); }
ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t at) {
    return pwrite(file, count ? pieces->iov_base : "", count ? pieces->iov_len : 0, at);
}

__attribute__((destructor)) static void told(void) { fprintf(stderr, "SHORT %lu\n", cut); }
