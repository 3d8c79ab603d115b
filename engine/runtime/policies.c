/* policies.c -- policy files to one policy set, in the order of their names */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/check.h"
#include "loop/world.h"
#include "runtime/runtime.h"

enum { FILES_MAX = 4096, FILE_BYTES_MAX = 16 << 20 };

struct collect {
    struct arena arena;
    struct policy_source files[FILES_MAX];
    size_t n;
    const char *dir;
    enum err err;
    struct errinfo *info;
};

static void read_file(struct collect *c, const char *path)
{
    int fd = world->open(path, 0, 0);
    int64_t size = fd < 0 ? fd : world->size(fd);
    char *text;

    if (size < 0) {
        c->err = err_set(c->info, E_CONFIG, "cannot read policies from %s: %s", path, strerror((int)-size));
    } else if (size > FILE_BYTES_MAX || c->n == FILES_MAX) {
        c->err = err_set(c->info, E_CONFIG, "%s: %s", path,
                         c->n == FILES_MAX ? "too many policy files" : "larger than 16 MiB");
    } else {
        text = arena_alloc(&c->arena, (size_t)size + 1);
        if (!text || world->pread(fd, text, (size_t)size, 0) != size)
            c->err = err_set(c->info, E_CONFIG, "cannot read policies from %s", path);
        else
            c->files[c->n++] = (struct policy_source){ arena_str(&c->arena, str_of(path)), str_n(text, (size_t)size) };
    }
    if (fd >= 0)
        world->close(fd);
}

static void read_entry(const char *name, void *arg)
{
    struct collect *c = arg;

    if (!c->err && str_ends(str_of(name), STR(".cedar")))
        read_file(c, arena_printf(&c->arena, "%s/%s", c->dir, name).p);
}

enum err policies_load(const char *const *paths, struct policy_set **ret, struct errinfo *info)
{
    struct collect *c = calloc(1, sizeof(*c));
    enum err e;

    ASSERT(c != NULL);
    arena_init(&c->arena, 256 << 20);
    c->info = info;
    for (; !c->err && paths && *paths; paths++) {
        struct stat st;

        if (stat(*paths, &st) != 0) {
            c->err = err_set(info, E_CONFIG, "cannot read policies from %s: %s", *paths, strerror(errno));
        } else if (S_ISDIR(st.st_mode)) {
            c->dir = *paths;
            if (world->list(*paths, read_entry, c) < 0)
                c->err = err_set(info, E_CONFIG, "cannot list the policies in %s", *paths);
        } else {
            read_file(c, *paths);
        }
    }
    e = c->err ? c->err : policy_set_parse(c->files, c->n, 0, ret, info);
    arena_release(&c->arena);
    free(c);
    return e;
}
