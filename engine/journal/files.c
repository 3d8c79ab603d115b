/* files.c -- reading segments and directories (files.h) */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "journal/files.h"
#include "loop/world.h"

/* Two records of the largest kind, so that most reads are of this size; less for smaller files. */
enum { WINDOW_MAX = 2 * (JOURNAL_PAYLOAD_MAX + 4096), READ_AGAIN = 3 };

void path_set(char path[JOURNAL_PATH_MAX], const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(path, JOURNAL_PATH_MAX, fmt, ap);
    va_end(ap);
    ASSERT(n > 0 && n < JOURNAL_PATH_MAX);
}

/* ---- a segment file -------------------------------------------------------------------------------------------- */

int seg_file_open(struct seg_file *f, const char *path, int flags)
{
    *f = (struct seg_file){ .fd = -1 };
    path_set(f->path, "%s", path);
    f->fd = world->open(path, flags, 0);
    if (f->fd < 0)
        return f->fd;
    f->size = world->size(f->fd);
    if (f->size < 0) {
        int rc = (int)f->size;

        seg_file_close(f);
        return rc;
    }
    f->cap = f->size < WINDOW_MAX ? (size_t)f->size : WINDOW_MAX;
    f->window = malloc(f->cap + 1);
    ASSERT(f->window);
    return 0;
}

void seg_file_close(struct seg_file *f)
{
    if (f->fd >= 0)
        world->close(f->fd);
    f->fd = -1;
    free(f->window);
    f->window = NULL;
}

void seg_forget(struct seg_file *f)
{
    f->len = 0;
}

const uint8_t *seg_at(struct seg_file *f, int64_t off, size_t n)
{
    int64_t got;

    ASSERT(off >= 0);
    if (off > f->size || n > f->cap || (int64_t)n > f->size - off)
        return NULL;
    if (f->len > 0 && off >= f->base && off + (int64_t)n <= f->base + (int64_t)f->len)
        return f->window + (off - f->base);
    f->base = off;
    f->len = 0;
    got = world->pread(f->fd, f->window, f->cap, off);
    if (got < 0) {
        f->error = (int)-got;
        return NULL;
    }
    f->len = (size_t)got;
    return f->len >= n ? f->window : NULL;
}

/* The largest piece that may be read at off, for runs over the whole file. */
static size_t piece_at(const struct seg_file *f, int64_t off)
{
    int64_t left = f->size - off;

    return left < 65536 ? (size_t)left : 65536;
}

int64_t seg_nonzero_first(struct seg_file *f, int64_t from)
{
    while (from < f->size) {
        size_t n = piece_at(f, from);
        const uint8_t *p = seg_at(f, from, n);

        if (!p)
            return -1;
        if (!bytes_zero(p, n)) {
            while (*p == 0) {
                p++;
                from++;
            }
            return from;
        }
        from += (int64_t)n;
    }
    return -1;
}

int64_t seg_nonzero_last(struct seg_file *f, int64_t from)
{
    int64_t last = -1;

    while (from < f->size) {
        size_t n = piece_at(f, from);
        const uint8_t *p = seg_at(f, from, n);

        if (!p)
            break;
        for (size_t i = n; !bytes_zero(p, n) && i > 0; i--) {
            if (p[i - 1]) {
                last = from + (int64_t)i - 1;
                break;
            }
        }
        from += (int64_t)n;
    }
    return last;
}

const char *seg_header_read(struct seg_file *f, struct seg_header *ret, int64_t *ret_at)
{
    const uint8_t *p = seg_at(f, 0, HEADER_BYTES);
    const char *why;

    *ret_at = 0;
    if (!p)
        return f->error ? "the file cannot be read" : "the file is shorter than a segment's header";
    why = header_decode(p, ret, ret_at);
    if (!why && ret->segment_bytes != f->size) {
        *ret_at = f->size;
        why = "the file's length is not the one its header names: it was cut or extended";
    }
    return why;
}

/* ---- walking --------------------------------------------------------------------------------------------------- */

void walker_begin(struct walker *w, struct seg_file *f, const struct seg_header *h)
{
    *w = (struct walker){ .f = f, .lane = h->lane, .payload_max = frame_payload_max(h->segment_bytes),
                          .off = HEADER_BYTES, .seq = h->first_seq };
    memcpy(w->link, h->hash, HASH_LEN);
}

static enum walk bad(struct walker *w, const char *reason)
{
    w->reason = w->f->error ? "the file cannot be read" : reason;
    return WALK_BAD;
}

/* The whole frame at off, whatever its number: NULL if none with a good checksum is there (*why says what there is). */
static const uint8_t *frame_at(struct walker *w, int64_t off, struct frame *ret, const char **why)
{
    const uint8_t *p = seg_at(w->f, off, JOURNAL_FRAME_BYTES);
    size_t n;

    *why = "the record runs over the end of the segment";
    if (!p)
        return NULL;
    n = frame_claims(p, w->payload_max);
    *why = "no record begins here";
    if (!n)
        return NULL;
    *why = "the record runs over the end of the segment";
    p = seg_at(w->f, off, n);
    if (!p)
        return NULL;
    *why = frame_decode(p, n, ret);
    return *why ? NULL : p;
}

/* Are the n bytes at off there, and zero? *ret_there: the first. */
static bool zeros_at(struct walker *w, int64_t off, int64_t n, bool *ret_there)
{
    const uint8_t *p = seg_at(w->f, off, (size_t)n);

    *ret_there = p || n == 0;
    return *ret_there && bytes_zero(p, (size_t)n);
}

/* Where the next record has to be: directly behind the one before, or, behind zeros, where the next batch begins. */
static enum walk place_next(struct walker *w, int64_t *ret_off)
{
    int64_t off = w->off, next = block_up(off), left;
    bool there;

    if (zeros_at(w, off, next - off, &there))
        off = next;
    left = w->f->size - off;
    if (there && zeros_at(w, off, left < JOURNAL_FRAME_BYTES ? left : JOURNAL_FRAME_BYTES, &there))
        return WALK_END;
    if (!there)
        return bad(w, "the file became shorter");
    *ret_off = off;
    return WALK_RECORD;
}

/*
 * The frame that is to be the next. While an engine writes, one read may see it half old and half new, and what stands
 * behind it whole: so what does not match is read again before that is believed.
 */
static enum walk frame_next(struct walker *w, int64_t *ret_off, const uint8_t **ret_at, struct frame *ret)
{
    const char *why = NULL;

    for (int again = 0; again <= READ_AGAIN && !w->f->error; again++) {
        enum walk place = place_next(w, ret_off);

        if (place != WALK_RECORD)
            return place;
        *ret_at = frame_at(w, *ret_off, ret, &why);
        if (*ret_at)
            return WALK_RECORD;
        w->f->len = 0;
    }
    w->off = *ret_off;
    return bad(w, why);
}

enum walk walker_next(struct walker *w, struct frame *ret)
{
    uint32_t due = w->any ? w->behind + 1 : 0;          /* unless a batch begins, and more was durable then */
    const uint8_t *p;
    int64_t off = w->off;
    enum walk found;

    ASSERT(w->off <= w->f->size && w->off % FRAME_ALIGN == 0);
    found = w->rolled ? place_next(w, &off) : frame_next(w, &off, &p, ret);
    if (found != WALK_RECORD)
        return found;
    if (w->rolled)
        return bad(w, "bytes behind the segment's last record");
    if (off != w->off ? !ret->first : off % BLOCK_BYTES != 0 && ret->first)
        return bad(w, "the record does not stand where its batch does");
    w->off = off;
    if (ret->type != JOURNAL_ROLL && block_up(off + (int64_t)ret->size) + BLOCK_BYTES > w->f->size)
        return bad(w, "the record stands where only a segment's last record may");
    if (ret->lane != w->lane)
        return bad(w, "the record belongs to another lane");
    if (ret->seq != w->seq)
        return bad(w, "the record has the wrong sequence number: records were removed, added or moved");
    if (ret->first ? ret->behind > due : ret->behind != due)
        return bad(w, "the record has the wrong place in its batch");
    if (!frame_follows(p, ret, w->link))
        return bad(w, "the record does not follow the one before it: the chain is broken");
    w->off += (int64_t)ret->size;
    w->seq++;
    w->behind = ret->behind;
    w->any = true;
    w->last = ret->type;
    w->rolled = ret->type == JOURNAL_ROLL;
    memcpy(w->link, ret->hash, HASH_LEN);
    return WALK_RECORD;
}

bool walker_was_durable(struct walker *w, int64_t *ret_off, uint64_t *ret_seq)
{
    struct frame f;
    const char *why;

    for (int64_t off = w->off; off + JOURNAL_FRAME_BYTES <= w->f->size; off += FRAME_ALIGN) {
        const uint8_t *p = seg_at(w->f, off, JOURNAL_FRAME_BYTES);

        if (!p)
            return false;
        if (!frame_claims(p, w->payload_max) || !frame_at(w, off, &f, &why))
            continue;
        if (f.lane == w->lane && f.seq > w->seq && f.seq - f.behind > w->seq) {
            *ret_off = off;
            *ret_seq = f.seq;
            return true;
        }
    }
    return false;
}

/* ---- directories ----------------------------------------------------------------------------------------------- */

static enum seg_name name_kind(const char *name, uint64_t *ret_first)
{
    struct str s = str_of(name);

    if (s.len == 20 && str_ends(s, STR(".seg")) && str_to_u64(str_n(s.p, 16), ret_first))
        return NAME_SEGMENT;
    if (str_is(s, "next"))
        return NAME_NEXT;
    if (s.len > 17 && s.p[16] == '.' && str_to_u64(str_n(s.p, 16), ret_first) && strstr(name, ".torn"))
        return NAME_TORN;
    return NAME_ODD;
}

static void seg_list_add(const char *name, void *arg)
{
    struct seg_list *l = arg;
    struct seg_entry *e;

    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->v = realloc(l->v, l->cap * sizeof(*l->v));
        ASSERT(l->v);
    }
    e = &l->v[l->n++];
    e->first = 0;
    e->kind = name_kind(name, &e->first);
    e->name = strdup(name);
    ASSERT(e->name);
}

int seg_list_read(struct seg_list *l, const char *path)
{
    *l = (struct seg_list){ 0 };
    return world->list(path, seg_list_add, l);
}

void seg_list_release(struct seg_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].name);
    free(l->v);
    *l = (struct seg_list){ 0 };
}

void seg_list_segments(struct seg_list *l)
{
    size_t n = 0;

    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].kind == NAME_SEGMENT)
            l->v[n++] = l->v[i];
        else
            free(l->v[i].name);
    }
    l->n = n;
}

struct lanes_walk {
    void (*fn)(unsigned lane, void *arg);
    void (*odd)(const char *name, void *arg);
    void *arg;
};

static void lanes_name(const char *name, void *arg)
{
    static const char *const ours[] = { "lock", "manifest", "manifest.tmp", "signing.key", "signing.key.tmp" };
    struct lanes_walk *w = arg;
    struct str s = str_of(name);
    char same[32];
    uint64_t n;

    if (str_starts(s, STR("lane-")) && str_to_u64(str_from(s, 5), &n) && n < JOURNAL_LANES_MAX) {
        snprintf(same, sizeof(same), "lane-%u", (unsigned)n);
        if (str_is(s, same)) {
            w->fn((unsigned)n, w->arg);
            return;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        if (str_is(s, ours[i]))
            return;
    }
    if (w->odd)
        w->odd(name, w->arg);
}

int lanes_list(const char *dir, void (*fn)(unsigned lane, void *arg), void (*odd)(const char *name, void *arg),
               void *arg)
{
    struct lanes_walk w = { fn, odd, arg };

    return world->list(dir, lanes_name, &w);
}
