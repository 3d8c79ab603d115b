/* memworld_crash.c -- what has happened to the files, and what a crash leaves of it (memworld.h) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memworld_internal.h"

struct event {
    enum event_kind kind;
    uint64_t id;                /* of the file */
    bool dir;
    int64_t off;
    size_t len;
    char *p;                    /* bytes, or a path */
    char *to;
};

static struct event *events;
static size_t n_events, cap_events;
static bool recording = true;

void memevent(enum event_kind kind, const struct file *f, int64_t off, const void *p, size_t n, const char *to)
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

void memevents_reset(void)
{
    base_clear();
    events_clear();
}

void memworld_rebase(void)
{
    memevents_reset();
    base = memworld_copy();
}

void memevents_stop(void)
{
    recording = false;
}

size_t memworld_events(void)
{
    return n_events;
}

/* Does the sync reach all of these bytes of its file? One without a length reaches the whole file. */
static bool reaches(const struct event *sync, int64_t from, int64_t to)
{
    return sync->len == 0 || (from >= sync->off && to <= sync->off + (int64_t)sync->len);
}

/* Was the effect of event i made durable by an event before `end`? */
static bool durable(size_t i, size_t end)
{
    const struct event *e = &events[i];
    bool names = e->kind == EV_CREATE || e->kind == EV_RENAME || e->kind == EV_UNLINK;

    for (size_t k = i + 1; k < end; k++) {
        if (!names && events[k].kind == EV_SYNC && events[k].id == e->id &&
            (events[k].len == 0 || (e->kind == EV_WRITE && reaches(&events[k], e->off, e->off + (int64_t)e->len))))
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

/* Does event i write any of these bytes? */
static bool writes(size_t i, uint64_t id, int64_t from, int64_t to)
{
    const struct event *e = &events[i];

    return e->kind == EV_WRITE && e->id == id && e->off < to && e->off + (int64_t)e->len > from;
}

/* How many events had happened when what event i wrote of these bytes was durable, or written again (0). */
static size_t write_durable_at(size_t i, int64_t from, int64_t to)
{
    const struct event *e = &events[i];

    if (from < e->off)
        from = e->off;
    if (to > e->off + (int64_t)e->len)
        to = e->off + (int64_t)e->len;
    for (size_t k = i + 1; k < n_events; k++)
        if (writes(k, e->id, from, to))
            return 0;
    for (size_t k = i + 1; k < n_events; k++)
        if (events[k].kind == EV_SYNC && events[k].id == e->id && reaches(&events[k], from, to))
            return k + 1;
    return SIZE_MAX;
}

size_t memworld_durable_at(const char *path, int64_t off, size_t len)
{
    const struct file *f = memfile_by_path(path);
    size_t at = 0, k;
    bool any = false;

    for (size_t i = 0; f && i < n_events; i++) {
        if (!writes(i, f->id, off, off + (int64_t)len))
            continue;
        any = true;
        k = write_durable_at(i, off, off + (int64_t)len);
        if (k > at)
            at = k;
    }
    return any || (f && base) ? at : SIZE_MAX;      /* from before the events, if it is there at all */
}

static void write_blocks(struct file *f, const struct event *e, size_t block, bool garble, uint64_t *seed)
{
    for (size_t at = 0; at < e->len;) {
        size_t n = block - ((size_t)e->off + at) % block;

        if (n > e->len - at)
            n = e->len - at;
        if (step(seed) & 1) {
            memfile_put(f, e->p + at, n, e->off + (int64_t)at);
        } else if (garble) {
            memfile_grow(f, (size_t)e->off + at + n);
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
        memfile_put(f, e->p, n, e->off);
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
            memfile_put(f, e->p + n, e->len - n, e->off + (int64_t)n);
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
    struct file *f = memfile_by_id(e->id);

    switch (e->kind) {
    case EV_CREATE:
        memfile_create(e->p, e->dir, e->id);
        break;
    case EV_WRITE:
        if (f)
            memfile_put(f, e->p, e->len, e->off);
        break;
    case EV_TRUNCATE:
        if (f && (size_t)e->off < f->len)
            f->len = (size_t)e->off;
        if (f)
            memfile_grow(f, (size_t)e->off);
        break;
    case EV_RENAME:
        if (f)
            memfile_rename(f, e->to);
        break;
    case EV_UNLINK:
        if (f)
            memfile_drop(f);
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
        memfiles_clear();
    recording = false;
    for (size_t i = 0; i < event; i++) {
        const struct event *e = &events[i];

        if (tear == TEAR_DIRECTORY && (e->kind == EV_CREATE || e->kind == EV_RENAME || e->kind == EV_UNLINK) &&
            !durable(i, event)) {
            if (e->kind == EV_CREATE && !e->dir)
                memfile_create("", false, e->id);           /* written to, but without a name */
            continue;
        }
        if (tear == TEAR_NONE || tear == TEAR_DIRECTORY || (e->kind != EV_WRITE && e->kind != EV_TRUNCATE) ||
            durable(i, event))
            replay(e);
        else if (tear != TEAR_ALL && e->kind == EV_WRITE && memfile_by_id(e->id))
            write_torn(memfile_by_id(e->id), e, tear, &seed);
        else if (tear != TEAR_ALL && e->kind == EV_TRUNCATE)
            replay(e);
    }
}
