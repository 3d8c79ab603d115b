/* memworld.c -- a world in memory for tests (memworld.h) */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "memworld.h"

enum { FILES_MAX = 256, FDS_MAX = 256, PATH_LEN = 512, OPS_MAX = 64 };

struct file {
    char path[PATH_LEN];        /* empty: no name (any more) */
    bool dir;
    char *p;
    size_t len, cap;
    int locked_by;              /* fd, or 0 */
    uint64_t id;                /* 0: slot not in use */
};

enum event_kind { EV_CREATE, EV_WRITE, EV_TRUNCATE, EV_SYNC, EV_RENAME, EV_UNLINK, EV_SYNC_DIR };

struct event {
    enum event_kind kind;
    uint64_t id;                /* of the file */
    bool dir;
    int64_t off;
    size_t len;
    char *p;                    /* bytes, or a path */
    char *to;
};

static struct file files[FILES_MAX];
static struct { struct file *f; bool direct; } fds[FDS_MAX];
static uint64_t next_id = 1;
static struct event *events;
static size_t n_events, cap_events;
static bool recording = true;
static ns_t clock_now = NS_PER_S;
static uint64_t random_state = 88172645463325252u;

struct memworld_faults memworld_faults;
unsigned memworld_ring_syncs, memworld_ring_writes, memworld_file_calls;

static void *mem(void *p)
{
    ASSERT(p);
    return p;
}

static uint64_t step(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static struct file *by_path(const char *path)
{
    for (int i = 0; i < FILES_MAX; i++) {
        if (files[i].id && strcmp(files[i].path, path) == 0)
            return &files[i];
    }
    return NULL;
}

static struct file *by_id(uint64_t id)
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

static void drop(struct file *f)
{
    f->path[0] = '\0';
    if (in_use(f))
        return;
    free(f->p);
    *f = (struct file){ 0 };
}

static struct file *create(const char *path, bool dir, uint64_t id)
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

static void grow(struct file *f, size_t len)
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

static void put_bytes(struct file *f, const char *p, size_t n, int64_t off)
{
    grow(f, (size_t)off + n);
    if (n > 0)
        memcpy(f->p + off, p, n);
}

static void record(enum event_kind kind, const struct file *f, int64_t off, const void *p, size_t n, const char *to)
{
    struct event *e;

    if (!recording)
        return;
    if (n_events == cap_events) {
        cap_events = cap_events ? cap_events * 2 : 256;
        events = mem(realloc(events, cap_events * sizeof(*events)));
    }
    e = &events[n_events++];
    *e = (struct event){ .kind = kind, .id = f ? f->id : 0, .dir = f && f->dir, .off = off, .len = n };
    if (p) {
        e->p = mem(malloc(n + 1));
        memcpy(e->p, p, n);
        e->p[n] = '\0';
    }
    if (to)
        e->to = mem(strdup(to));
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
    return by_path(parent) && by_path(parent)->dir;
}

static int mem_open(const char *path, int flags, int mode)
{
    struct file *f = by_path(path);
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
        f = create(path, false, next_id++);
        record(EV_CREATE, f, 0, path, strlen(path), NULL);
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
        drop(f);
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
    grow(f, (size_t)len);
    record(EV_TRUNCATE, f, len, NULL, 0, NULL);
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
    grow(f, (size_t)(off + len));
    record(EV_TRUNCATE, f, off + len, NULL, 0, NULL);
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
    record(EV_SYNC, of(fd), 0, NULL, 0, NULL);
    return 0;
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
    put_bytes(f, p, n, off);
    record(EV_WRITE, f, off, p, n, NULL);
    return (int64_t)n;
}

static void rename_file(struct file *f, const char *to)
{
    struct file *old = by_path(to);

    if (old && old != f)
        drop(old);
    snprintf(f->path, PATH_LEN, "%s", to);
}

static int mem_rename(const char *from, const char *to)
{
    struct file *f = by_path(from);
    int rc;

    if (faulty(&rc))
        return rc;
    if (!f)
        return -ENOENT;
    record(EV_RENAME, f, 0, from, strlen(from), to);
    rename_file(f, to);
    return 0;
}

static int mem_unlink(const char *path)
{
    struct file *f = by_path(path);
    int rc;

    if (!f)
        return -ENOENT;
    if (faulty(&rc))
        return rc;
    record(EV_UNLINK, f, 0, path, strlen(path), NULL);
    drop(f);
    return 0;
}

static int mem_mkdir(const char *path, int mode)
{
    struct file *f = by_path(path);
    int rc;

    if (f)
        return f->dir ? 0 : -EEXIST;
    if (faulty(&rc))
        return rc;
    f = create(path, true, next_id++);
    record(EV_CREATE, f, 0, path, strlen(path), NULL);
    return 0;
}

static int mem_sync_dir(const char *path)
{
    int rc;

    if (faulty(&rc))
        return rc;
    record(EV_SYNC_DIR, NULL, 0, path, strlen(path), NULL);
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

    if (!by_path(path) || !by_path(path)->dir)
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

struct ring {
    struct op *ops[OPS_MAX];
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
    r->ops[r->n++] = op;
}

/* Two events, as the device has them: a crash may come between. */
static int run(struct op *op)
{
    memworld_ring_writes++;
    if (memworld_faults.ring_write_at > 0 && --memworld_faults.ring_write_at == 0)
        return -memworld_faults.ring_errno;
    put_bytes(of(op->fd), op->buf, op->len, op->off);
    record(EV_WRITE, of(op->fd), op->off, op->buf, op->len, NULL);
    memworld_ring_syncs++;
    if (memworld_faults.ring_sync_at > 0 && --memworld_faults.ring_sync_at == 0)
        return -memworld_faults.ring_errno;
    record(EV_SYNC, of(op->fd), 0, NULL, 0, NULL);
    return (int)op->len;
}

static void ring_wait(struct ring *r, ns_t until,
                      void (*complete)(struct op *op, int res, bool more, const char *data, unsigned token))
{
    bool hangs = memworld_faults.ring_hangs || clock_now < memworld_faults.ring_hangs_until;
    unsigned n = hangs ? 0 : r->n;

    if (n == 0 && until > clock_now) {
        if (memworld_faults.ring_hangs_until > clock_now && until > memworld_faults.ring_hangs_until)
            until = memworld_faults.ring_hangs_until;
        ASSERT(until != NS_NEVER);              /* nothing would ever happen again */
        clock_now = until;
    } else {
        clock_now += 1000;
    }
    for (unsigned i = 0; i < n; i++)
        complete(r->ops[i], run(r->ops[i]), false, NULL, 0);
    if (n > 0)
        r->n = 0;
}

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

/* ---- crashes --------------------------------------------------------------------------------------------------- */

static void files_clear(void)
{
    for (int i = 0; i < FDS_MAX; i++)
        fds[i].f = NULL;
    for (int i = 0; i < FILES_MAX; i++) {
        free(files[i].p);
        files[i] = (struct file){ 0 };
    }
}

static void events_clear(void)
{
    for (size_t i = 0; i < n_events; i++) {
        free(events[i].p);
        free(events[i].to);
    }
    free(events);
    events = NULL;
    n_events = cap_events = 0;
    recording = true;
}

static struct memworld_copy *base;      /* the files before the first event; NULL: none */

static void base_clear(void)
{
    if (base)
        memworld_copy_free(base);
    base = NULL;
}

void memworld_rebase(void)
{
    base_clear();
    events_clear();
    base = memworld_copy();
}

void memworld_reset(void)
{
    files_clear();
    base_clear();
    events_clear();
    memworld_faults = (struct memworld_faults){ 0 };
    memworld_ring_syncs = memworld_ring_writes = memworld_file_calls = 0;
}

size_t memworld_events(void)
{
    return n_events;
}

/* Was the effect of event i made durable by an event before `end`? */
static bool durable(size_t i, size_t end)
{
    const struct event *e = &events[i];
    bool names = e->kind == EV_CREATE || e->kind == EV_RENAME || e->kind == EV_UNLINK;

    for (size_t k = i + 1; k < end; k++) {
        if (!names && events[k].kind == EV_SYNC && events[k].id == e->id)
            return true;
        if (names && events[k].kind == EV_SYNC_DIR) {
            const char *path = e->to ? e->to : e->p;

            if (strncmp(path, events[k].p, events[k].len) == 0 && path[events[k].len] == '/' &&
                !strchr(path + events[k].len + 1, '/'))
                return true;
        }
    }
    return false;
}

size_t memworld_durable_at(const char *path, int64_t off, size_t len)
{
    const struct file *f = by_path(path);
    size_t written = SIZE_MAX, k;

    for (size_t i = 0; f && i < n_events; i++) {
        const struct event *e = &events[i];

        if (e->kind == EV_WRITE && e->id == f->id && e->off < off + (int64_t)len && e->off + (int64_t)e->len > off)
            written = i;
    }
    if (written == SIZE_MAX)
        return f && base ? 0 : SIZE_MAX;        /* from before the events, if it is there at all */
    for (k = written + 1; k < n_events; k++)
        if (events[k].kind == EV_SYNC && events[k].id == f->id)
            return k + 1;
    return SIZE_MAX;
}

static void write_blocks(struct file *f, const struct event *e, size_t block, bool garble, uint64_t *seed)
{
    for (size_t at = 0; at < e->len;) {
        size_t n = block - ((size_t)e->off + at) % block;

        if (n > e->len - at)
            n = e->len - at;
        if (step(seed) & 1) {
            put_bytes(f, e->p + at, n, e->off + (int64_t)at);
        } else if (garble) {
            grow(f, (size_t)e->off + at + n);
            for (size_t i = 0; i < n; i++)
                f->p[(size_t)e->off + at + i] = (char)step(seed);
        }
        at += n;
    }
}

static void write_torn(struct file *f, const struct event *e, enum memworld_tear tear, uint64_t *seed)
{
    size_t n;

    switch (tear) {
    case TEAR_PREFIX:
        n = (size_t)(step(seed) % (e->len + 1));
        put_bytes(f, e->p, n, e->off);
        break;
    case TEAR_512:
        write_blocks(f, e, 512, false, seed);
        break;
    case TEAR_4096:
        write_blocks(f, e, 4096, false, seed);
        break;
    case TEAR_FRONT:
        n = 512 - (size_t)e->off % 512;
        if (n < e->len)
            put_bytes(f, e->p + n, e->len - n, e->off + (int64_t)n);
        break;
    case TEAR_GARBLE:
        write_blocks(f, e, 512, true, seed);
        break;
    default:
        break;
    }
}

static void replay(const struct event *e)
{
    struct file *f = by_id(e->id);

    switch (e->kind) {
    case EV_CREATE:
        create(e->p, e->dir, e->id);
        break;
    case EV_WRITE:
        if (f)
            put_bytes(f, e->p, e->len, e->off);
        break;
    case EV_TRUNCATE:
        if (f && (size_t)e->off < f->len)
            f->len = (size_t)e->off;
        if (f)
            grow(f, (size_t)e->off);
        break;
    case EV_RENAME:
        if (f)
            rename_file(f, e->to);
        break;
    case EV_UNLINK:
        if (f)
            drop(f);
        break;
    default:
        break;
    }
}

void memworld_crash(size_t event, enum memworld_tear tear, uint64_t seed)
{
    seed = seed * 2654435761u + 1;
    if (base)
        memworld_restore(base);
    else
        files_clear();
    recording = false;
    for (size_t i = 0; i < event; i++) {
        const struct event *e = &events[i];

        if (tear == TEAR_DIRECTORY && (e->kind == EV_CREATE || e->kind == EV_RENAME || e->kind == EV_UNLINK) &&
            !durable(i, event)) {
            if (e->kind == EV_CREATE && !e->dir)
                create("", false, e->id);           /* written to, but without a name */
            continue;
        }
        if (tear == TEAR_NONE || tear == TEAR_DIRECTORY || (e->kind != EV_WRITE && e->kind != EV_TRUNCATE) ||
            durable(i, event))
            replay(e);
        else if (tear != TEAR_ALL && e->kind == EV_WRITE && by_id(e->id))
            write_torn(by_id(e->id), e, tear, &seed);
        else if (tear != TEAR_ALL && e->kind == EV_TRUNCATE)
            replay(e);
    }
}

/* ---- access ---------------------------------------------------------------------------------------------------- */

char *memworld_file(const char *path, size_t *ret_len)
{
    struct file *f = by_path(path);

    if (f)
        *ret_len = f->len;
    return f ? f->p : NULL;
}

void memworld_put(const char *path, const void *p, size_t n)
{
    struct file *f = by_path(path);

    if (!f)
        f = create(path, false, next_id++);
    f->len = 0;
    put_bytes(f, p, n, 0);
}

bool memworld_remove(const char *path)
{
    struct file *f = by_path(path);

    if (f)
        drop(f);
    return f != NULL;
}

bool memworld_rename(const char *from, const char *to)
{
    struct file *f = by_path(from);

    if (f)
        rename_file(f, to);
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
    files_clear();
    recording = false;
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
