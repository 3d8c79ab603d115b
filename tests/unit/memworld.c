/* memworld.c -- a world in memory for tests (memworld.h): files, ring, clock */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "memworld_internal.h"

enum { FILES_MAX = 256, FDS_MAX = 256, OPS_MAX = 64 };

static struct file files[FILES_MAX];
static struct { struct file *f; bool direct; } fds[FDS_MAX];
static uint64_t next_id = 1;
static ns_t clock_now = NS_PER_S;
static uint64_t random_state = 88172645463325252u;

struct memworld_faults memworld_faults;
unsigned memworld_ring_syncs, memworld_ring_writes, memworld_file_calls;

/* ---- files ----------------------------------------------------------------------------------------------------- */

struct file *memfile_by_path(const char *path)
{
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].id && strcmp(files[i].path, path) == 0)
            return &files[i];
    }
    return NULL;
}

struct file *memfile_by_id(uint64_t id)
{
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].id == id)
            return &files[i];
    }
    return NULL;
}

static bool in_use(const struct file *f)
{
    for (int i = 0; i < FDS_MAX; i++) {
        if (fds[i].f == f)
            return true;
    }
    return false;
}

void memfile_drop(struct file *f)
{
    f->path[0] = '\0';
    if (in_use(f))
        return;
    free(f->p);
    *f = (struct file){ 0 };
}

struct file *memfile_create(const char *path, bool dir, uint64_t id)
{
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].id == 0) {
            files[i] = (struct file){ .id = id, .dir = dir };
            snprintf(files[i].path, PATH_LEN, "%s", path);
            return &files[i];
        }
    }
    ASSERT(!"too many files");
    return NULL;
}

void memfile_grow(struct file *f, size_t len)
{
    if (len > f->cap) {
        f->p = mem(realloc(f->p, len));
        f->cap = len;
    }
    if (len > f->len) {             /* so there is memory */
        memset(f->p + f->len, 0, len - f->len);
        f->len = len;
    }
}

void memfile_put(struct file *f, const char *p, size_t n, int64_t off)
{
    memfile_grow(f, (size_t)off + n);
    if (n > 0)
        memcpy(f->p + off, p, n);
}

static bool faulty(int *rc)
{
    memworld_file_calls++;
    if (memworld_faults.file_at > 0 && --memworld_faults.file_at == 0) {
        *rc = -memworld_faults.file_errno;
        return true;
    }
    return false;
}

static bool parent_exists(const char *path)
{
    char parent[PATH_LEN];
    char *slash;

    snprintf(parent, sizeof(parent), "%s", path);
    slash = strrchr(parent, '/');
    if (!slash || slash == parent)
        return true;
    *slash = '\0';
    return memfile_by_path(parent) && memfile_by_path(parent)->dir;
}

static int mem_open(const char *path, int flags, int mode)
{
    struct file *f = memfile_by_path(path);
    int rc;

    if ((flags & O_CREAT) && faulty(&rc))
        return rc;
    if (f && (flags & O_CREAT) && (flags & O_EXCL))
        return -EEXIST;
    if (f && f->dir)
        return -EISDIR;
    if (!f && !(flags & O_CREAT))
        return -ENOENT;
    if (!f) {
        if (!parent_exists(path))
            return -ENOENT;
        f = memfile_create(path, false, next_id++);
        memevent(EV_CREATE, f, 0, path, strlen(path), NULL);
    }
    for (int fd = 3; fd < FDS_MAX; fd++) {
        if (!fds[fd].f) {
            fds[fd].f = f;
            fds[fd].direct = false;
            return fd;
        }
    }
    return -EMFILE;
}

static struct file *of(int fd)
{
    ASSERT(fd >= 3 && fd < FDS_MAX && fds[fd].f);
    return fds[fd].f;
}

static int mem_close(int fd)
{
    struct file *f = of(fd);

    if (f->locked_by == fd)
        f->locked_by = 0;
    fds[fd].f = NULL;
    if (!f->path[0])
        memfile_drop(f);
    return 0;
}

static int64_t mem_size(int fd)             { return (int64_t)of(fd)->len; }

int64_t memworld_bytes(void)
{
    int64_t n = 0;

    for (int i = 0; i < FILES_MAX; i++)
        n += (int64_t)files[i].len;
    return n;
}

static int mem_truncate(int fd, int64_t len)
{
    struct file *f = of(fd);
    int rc;

    if (faulty(&rc))
        return rc;
    if ((size_t)len < f->len)
        f->len = (size_t)len;
    memfile_grow(f, (size_t)len);
    memevent(EV_TRUNCATE, f, len, NULL, 0, NULL);
    return 0;
}

static int mem_allocate(int fd, int64_t off, int64_t len)
{
    struct file *f = of(fd);
    int rc;

    if (faulty(&rc))
        return rc;
    if (memworld_faults.capacity && memworld_bytes() - (int64_t)f->len + off + len > memworld_faults.capacity)
        return -ENOSPC;
    memfile_grow(f, (size_t)(off + len));
    memevent(EV_TRUNCATE, f, off + len, NULL, 0, NULL);
    return 0;
}

static int mem_direct(int fd)
{
    of(fd);
    fds[fd].direct = true;
    return 0;
}

static int mem_sync(int fd)
{
    int rc;

    if (faulty(&rc))
        return rc;
    memevent(EV_SYNC, of(fd), 0, NULL, 0, NULL);
    return 0;
}

void memworld_sync_range(int fd, int64_t off, size_t len)
{
    ASSERT(len > 0);
    memevent(EV_SYNC, of(fd), off, NULL, len, NULL);
}

static int64_t mem_pread(int fd, void *p, size_t n, int64_t off)
{
    struct file *f = of(fd);

    if ((size_t)off >= f->len)
        return 0;
    if (n > f->len - (size_t)off)
        n = f->len - (size_t)off;
    memcpy(p, f->p + off, n);
    return (int64_t)n;
}

static int64_t mem_pwrite(int fd, const void *p, size_t n, int64_t off)
{
    struct file *f = of(fd);
    int rc;

    if (faulty(&rc))
        return rc;
    memfile_put(f, p, n, off);
    memevent(EV_WRITE, f, off, p, n, NULL);
    return (int64_t)n;
}

void memfile_rename(struct file *f, const char *to)
{
    struct file *old = memfile_by_path(to);

    if (old && old != f)
        memfile_drop(old);
    snprintf(f->path, PATH_LEN, "%s", to);
}

static int mem_rename(const char *from, const char *to)
{
    struct file *f = memfile_by_path(from);
    int rc;

    if (faulty(&rc))
        return rc;
    if (!f)
        return -ENOENT;
    memevent(EV_RENAME, f, 0, from, strlen(from), to);
    memfile_rename(f, to);
    return 0;
}

static int mem_unlink(const char *path)
{
    struct file *f = memfile_by_path(path);
    int rc;

    if (!f)
        return -ENOENT;
    if (faulty(&rc))
        return rc;
    memevent(EV_UNLINK, f, 0, path, strlen(path), NULL);
    memfile_drop(f);
    return 0;
}

static int mem_mkdir(const char *path, int mode)
{
    struct file *f = memfile_by_path(path);
    int rc;

    if (f)
        return f->dir ? 0 : -EEXIST;
    if (faulty(&rc))
        return rc;
    f = memfile_create(path, true, next_id++);
    memevent(EV_CREATE, f, 0, path, strlen(path), NULL);
    return 0;
}

static int mem_sync_dir(const char *path)
{
    int rc;

    if (faulty(&rc))
        return rc;
    memevent(EV_SYNC_DIR, NULL, 0, path, strlen(path), NULL);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int mem_list(const char *path, void (*fn)(const char *name, void *arg), void *arg)
{
    char *names[FILES_MAX];
    size_t n = 0, len = strlen(path);

    if (!memfile_by_path(path) || !memfile_by_path(path)->dir)
        return -ENOENT;
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].id && strncmp(files[i].path, path, len) == 0 && files[i].path[len] == '/' &&
            !strchr(files[i].path + len + 1, '/'))
            names[n++] = mem(strdup(files[i].path + len + 1));
    }
    qsort(names, n, sizeof(*names), by_name);
    for (size_t i = 0; i < n; i++) {
        fn(names[i], arg);
        free(names[i]);
    }
    return 0;
}

static int mem_lock(int fd)
{
    struct file *f = of(fd);

    if (f->locked_by && f->locked_by != fd)
        return -EWOULDBLOCK;
    f->locked_by = fd;
    return 0;
}

/* ---- ring and clock -------------------------------------------------------------------------------------------- */

/* A write: handed to the device at the next turn, durable some turns later, so that several end in any order. */
struct slot {
    struct op *op;
    bool written;
    unsigned turns;
};

struct ring {
    struct slot ops[OPS_MAX];
    unsigned n;
};

static enum err ring_open(unsigned entries, struct ring **ret, struct errinfo *info)
{
    *ret = mem(calloc(1, sizeof(**ret)));
    return OK;
}

static void ring_close(struct ring *r)                      { free(r); }
static void ring_cancel(struct ring *r, struct op *op)      { }
static void ring_recycle(struct ring *r, unsigned token)    { }
static void ring_wake(struct ring *r)                       { }

void memworld_write_check(const struct op *op)
{
    ASSERT(!fds[op->fd].direct || ((uintptr_t)op->buf % WORLD_ALIGN == 0 && op->len % WORLD_BLOCK == 0 &&
                                   op->off % WORLD_BLOCK == 0));
}

static void ring_submit(struct ring *r, struct op *op)
{
    ASSERT(r->n < OPS_MAX && op->kind == OP_WRITE);
    memworld_write_check(op);
    r->ops[r->n++] = (struct slot){ .op = op, .turns = (unsigned)(step(&random_state) >> 32) % 4 };
}

/* The next of two events, as the device has them: a crash may come between. 0: there is another to come. */
static int run(struct slot *s)
{
    const struct op *op = s->op;

    if (!s->written) {
        memworld_ring_writes++;
        if (memworld_faults.ring_write_at > 0 && --memworld_faults.ring_write_at == 0)
            return -memworld_faults.ring_errno;
        memfile_put(of(op->fd), op->buf, op->len, op->off);
        memevent(EV_WRITE, of(op->fd), op->off, op->buf, op->len, NULL);
        s->written = true;
    }
    if (s->turns-- > 0)
        return 0;
    memworld_ring_syncs++;
    if (memworld_faults.ring_sync_at > 0 && --memworld_faults.ring_sync_at == 0)
        return -memworld_faults.ring_errno;
    memworld_sync_range(op->fd, op->off, op->len);
    return (int)op->len;
}

/* A turn with something to do takes no time: nobody who goes last is held (loop/task.c), and batches of the journal set
 * out while others are under way. */
static void ring_wait(struct ring *r, ns_t until,
                      void (*complete)(struct op *op, int res, bool more, const char *data, unsigned token))
{
    bool hangs = memworld_faults.ring_hangs || clock_now < memworld_faults.ring_hangs_until;
    unsigned n = hangs ? 0 : r->n, left = 0;

    if (n == 0 && until > clock_now) {
        if (memworld_faults.ring_hangs_until > clock_now && until > memworld_faults.ring_hangs_until)
            until = memworld_faults.ring_hangs_until;
        ASSERT(until != NS_NEVER);              /* nothing would ever happen again */
        clock_now = until;
    }
    if (hangs)
        return;
    for (unsigned i = 0; i < n; i++) {
        struct slot s = r->ops[i];
        int res = run(&s);

        if (res == 0)
            r->ops[left++] = s;
        else
            complete(s.op, res, false, NULL, 0);
    }
    r->n = left;
}

/* What is under way ends with the next wait, and is not there before. */
static bool ring_ready(const struct ring *r)        { return false; }

static ns_t mem_now(void)               { return clock_now; }
static wall_ms_t mem_wall_ms(void)      { return 1700000000000LL + clock_now / NS_PER_MS; }

static void mem_random(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)p)[i] = (unsigned char)(step(&random_state) >> 32);
}

const struct world memworld = {
    .name = "memory",
    .ring_open = ring_open,
    .ring_close = ring_close,
    .ring_submit = ring_submit,
    .ring_cancel = ring_cancel,
    .ring_wait = ring_wait,
    .ring_ready = ring_ready,
    .ring_recycle = ring_recycle,
    .ring_wake = ring_wake,
    .threads = false,
    .now = mem_now,
    .wall_ms = mem_wall_ms,
    .random = mem_random,
    .open = mem_open,
    .close = mem_close,
    .size = mem_size,
    .allocate = mem_allocate,
    .truncate = mem_truncate,
    .direct = mem_direct,
    .sync = mem_sync,
    .pread = mem_pread,
    .pwrite = mem_pwrite,
    .rename = mem_rename,
    .unlink = mem_unlink,
    .mkdir = mem_mkdir,
    .sync_dir = mem_sync_dir,
    .list = mem_list,
    .lock = mem_lock,
};

void memfiles_clear(void)
{
    for (int i = 0; i < FDS_MAX; i++)
        fds[i].f = NULL;
    for (int i = 0; i < FILES_MAX; i++) {
        free(files[i].p);
        files[i] = (struct file){ 0 };
    }
}

void memworld_reset(void)
{
    memfiles_clear();
    memevents_reset();
    memworld_faults = (struct memworld_faults){ 0 };
    memworld_ring_syncs = memworld_ring_writes = memworld_file_calls = 0;
}

/* ---- access ---------------------------------------------------------------------------------------------------- */

char *memworld_file(const char *path, size_t *ret_len)
{
    struct file *f = memfile_by_path(path);

    if (f)
        *ret_len = f->len;
    return f ? f->p : NULL;
}

void memworld_put(const char *path, const void *p, size_t n)
{
    struct file *f = memfile_by_path(path);

    if (!f)
        f = memfile_create(path, false, next_id++);
    f->len = 0;
    memfile_put(f, p, n, 0);
}

bool memworld_remove(const char *path)
{
    struct file *f = memfile_by_path(path);

    if (f)
        memfile_drop(f);
    return f != NULL;
}

bool memworld_rename(const char *from, const char *to)
{
    struct file *f = memfile_by_path(from);

    if (f)
        memfile_rename(f, to);
    return f != NULL;
}

struct memworld_copy {
    struct file files[FILES_MAX];
};

struct memworld_copy *memworld_copy(void)
{
    struct memworld_copy *c = mem(malloc(sizeof(*c)));

    memcpy(c->files, files, sizeof(files));
    for (int i = 0; i < FILES_MAX; i++) {
        if (c->files[i].p) {
            c->files[i].p = mem(malloc(files[i].len + 1));
            memcpy(c->files[i].p, files[i].p, files[i].len);
            c->files[i].cap = files[i].len;
            c->files[i].locked_by = 0;
        }
    }
    return c;
}

void memworld_restore(const struct memworld_copy *c)
{
    memfiles_clear();
    memevents_stop();
    memcpy(files, c->files, sizeof(files));
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].p) {
            files[i].p = mem(malloc(c->files[i].len + 1));
            memcpy(files[i].p, c->files[i].p, c->files[i].len);
        }
    }
}

void memworld_copy_free(struct memworld_copy *c)
{
    for (int i = 0; i < FILES_MAX; i++)
        free(c->files[i].p);
    free(c);
}
