/* Preloaded into a service under test: keeps what a power cut would leave. Each fsync or fdatasync
 * copies the file, or the names in the folder, to $SECATEUR_SYNCED by its inode's number: what was
 * not synced by the time of the cut is lost, and so are names in folders that were not synced. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void names(int fd, FILE *kept) {
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = again < 0 ? NULL : fdopendir(again);
    if (!folder) return;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            fprintf(kept, "%llu %s\n", (unsigned long long)entry->d_ino, entry->d_name);
    closedir(folder);
}

static void bytes(int fd, FILE *kept) {
    char own[64], piece[1 << 16];
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd); /* it may be open for writing only */
    FILE *file = fopen(own, "re");
    if (!file) return;
    for (size_t n; (n = fread(piece, 1, sizeof piece, file));) fwrite(piece, 1, n, kept);
    fclose(file);
}

static void keep(int fd) {
    const char *root = getenv("SECATEUR_SYNCED");
    struct stat facts;
    char path[1024], aside[1100];
    if (!root || fstat(fd, &facts)) return;
    int folder = S_ISDIR(facts.st_mode);
    if (!folder && !S_ISREG(facts.st_mode)) return;
    snprintf(path, sizeof path, "%s/%llu%s", root, (unsigned long long)facts.st_ino, folder ? ".names" : "");
    snprintf(aside, sizeof aside, "%s.%d.%p", path, getpid(), (void *)&facts);
    FILE *kept = fopen(aside, "we");
    if (!kept) return;
    if (folder) names(fd, kept); else bytes(fd, kept);
    fclose(kept);
    rename(aside, path);
}

#define SYNC(name) \
    int name(int fd) { \
        static int (*real)(int); \
        if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        int result = real(fd); \
        if (!result) keep(fd); \
        return result; \
    }
SYNC(fsync)
SYNC(fdatasync)
