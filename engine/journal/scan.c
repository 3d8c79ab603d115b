/*
 * scan.c -- reading records back: all of them, or those that come in
 *
 * Needs no lock: a record is handed out once its checksum and its place in the chain are right, and what is half
 * written at the end of a running engine's lane simply is not there yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "journal/internal.h"

/* The engine's clock may be set back: records of an older segment may be this much younger than the next segment. */
#define SINCE_SLACK_MS (3600 * 1000LL)

struct scan {
    const char *dir;
    const struct journal_scan_options *opt;
    journal_record_fn *fn;
    void *arg;
    struct errinfo *info;
    bool stopped;
};

static enum err cannot_read(struct errinfo *info, const char *path, int error)
{
    return err_set(info, E_IO, "%s: %s", path, strerror(error));
}

static void record_of_frame(const struct frame *f, const struct walker *w, struct journal_record *ret)
{
    *ret = (struct journal_record){ .lane = f->lane,
                                    .seq = f->seq,
                                    .time = f->time,
                                    .type = f->type,
                                    .payload = f->payload,
                                    .hash = f->hash,
                                    .file = w->f->path,
                                    .offset = w->off - (int64_t)f->size };
}

static bool wanted(const struct journal_scan_options *opt, const struct frame *f)
{
    return f->time >= opt->since && (opt->types == 0 || opt->types & 1u << f->type);
}

/* Does the walk end where a lane's last segment may end, a torn tail included? */
static enum err end_check(struct scan *s, struct walker *w, enum walk end, bool last)
{
    int64_t off;
    uint64_t seq;

    if (w->f->error)
        return cannot_read(s->info, w->f->path, w->f->error);
    if (w->rolled ? end == WALK_END : last && !walker_was_durable(w, &off, &seq))
        return OK;
    return refuse(s->info, w->f->path, w->off, w->seq, end == WALK_BAD ? w->reason : "records are missing");
}

/*
 * To where the segment's records end.  While an engine writes them a window shows the file as it was, and what is read
 * behind the window is newer: so no end is called wrong before it has been looked at again.
 */
static enum err records_scan(struct scan *s, struct walker *w, bool last)
{
    struct journal_record r;
    struct frame frame;
    enum walk step;
    uint64_t seq;
    enum err e;

    for (bool again = false;; again = true) {
        seq = w->seq;
        while ((step = walker_next(w, &frame)) == WALK_RECORD) {
            record_of_frame(&frame, w, &r);
            s->stopped = wanted(s->opt, &frame) && !s->fn(&r, s->arg);
            if (s->stopped)
                return OK;
        }
        e = end_check(s, w, step, last);
        if (!e || !last || (again && w->seq == seq))
            return e;
        seg_forget(w->f);
    }
}

static enum err segment_scan(struct scan *s, const char *path, bool last)
{
    struct seg_file f;
    struct seg_header h;
    struct walker w;
    const char *why;
    int64_t at;
    enum err e;
    int rc = seg_file_open(&f, path, O_RDONLY);

    if (rc < 0)
        return cannot_read(s->info, path, -rc);
    why = seg_header_read(&f, &h, &at);
    if (why) {
        e = refuse(s->info, path, at, 0, why);
    } else {
        walker_begin(&w, &f, &h);
        e = records_scan(s, &w, last);
    }
    seg_file_close(&f);
    return e;
}

/* Was everything before the segment at path written before `since`? */
static bool all_older(const char *path, wall_ms_t since)
{
    struct seg_file f;
    struct seg_header h;
    int64_t at;
    bool older;

    if (since <= 0 || seg_file_open(&f, path, O_RDONLY) < 0)
        return false;
    older = !seg_header_read(&f, &h, &at) && h.created < since - SINCE_SLACK_MS;
    seg_file_close(&f);
    return older;
}

/* from: leave out the segments before the one that begins with this record. */
static enum err lane_scan(struct scan *s, unsigned lane, uint64_t from)
{
    char dir[JOURNAL_PATH_MAX], path[JOURNAL_PATH_MAX];
    struct seg_list list;
    enum err e = OK;
    int rc;

    path_set(dir, "%s/lane-%u", s->dir, lane);
    rc = seg_list_read(&list, dir);
    seg_list_segments(&list);
    if (rc < 0 && rc != -ENOENT)
        e = cannot_read(s->info, dir, -rc);
    for (size_t i = 0; i < list.n && !e && !s->stopped; i++) {
        if (list.v[i].first < from)
            continue;
        if (i + 1 < list.n) {
            path_set(path, "%s/%s", dir, list.v[i + 1].name);
            if (all_older(path, s->opt->since))
                continue;
        }
        path_set(path, "%s/%s", dir, list.v[i].name);
        e = segment_scan(s, path, i + 1 == list.n);
    }
    seg_list_release(&list);
    return e;
}

enum err segments_scan(const char *dir, unsigned lane, uint64_t from, journal_record_fn *fn, void *arg,
                       struct errinfo *info)
{
    static const struct journal_scan_options all = { .lane = -1 };
    struct scan s = { .dir = dir, .opt = &all, .fn = fn, .arg = arg, .info = info };

    return lane_scan(&s, lane, from);
}

enum err journal_scan(const char *dir, const struct journal_scan_options *opt, journal_record_fn *fn, void *arg,
                      struct errinfo *info)
{
    struct scan s = { .dir = dir, .opt = opt, .fn = fn, .arg = arg, .info = info };
    struct manifest *m = malloc(sizeof(*m));
    int64_t at;
    enum err e;

    ASSERT(m && strlen(dir) <= JOURNAL_DIR_MAX);
    e = manifest_read(dir, m, &at, info);
    for (unsigned i = 0; !e && i < m->n_lanes && !s.stopped; i++) {
        if (opt->lane < 0 || (unsigned)opt->lane == m->lanes[i].lane)
            e = lane_scan(&s, m->lanes[i].lane, 0);
    }
    free(m);
    return e;
}

/* ---- following ------------------------------------------------------------------------------------------------- */

/* Where a lane has been read to. first: the segment; 0: none found yet. */
struct cursor {
    unsigned lane;
    uint64_t first;
    struct walker w;            /* without its file */
};

struct journal_follow {
    char dir[JOURNAL_PATH_MAX];
    struct cursor *lanes;
    unsigned n;
    bool begun;
};

static struct cursor *cursor_of(struct journal_follow *f, unsigned lane)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (f->lanes[i].lane == lane)
            return &f->lanes[i];
    }
    f->lanes = realloc(f->lanes, (f->n + 1) * sizeof(*f->lanes));
    ASSERT(f->lanes);
    f->lanes[f->n] = (struct cursor){ .lane = lane };
    return &f->lanes[f->n++];
}

/* The segment to begin with: the newest when following begins, a lane's first when the lane is new. 0: none. */
static uint64_t segment_begin(struct journal_follow *f, unsigned lane)
{
    char dir[JOURNAL_PATH_MAX];
    struct seg_list list;
    uint64_t first;

    path_set(dir, "%s/lane-%u", f->dir, lane);
    seg_list_read(&list, dir);
    seg_list_segments(&list);
    first = list.n == 0 ? 0 : f->begun ? list.v[0].first : list.v[list.n - 1].first;
    seg_list_release(&list);
    return first;
}

/* Reads on in the cursor's segment; *ret_rolled: it is complete, the next one begins with number w.seq. */
static enum err cursor_read(struct journal_follow *f, struct cursor *c, journal_record_fn *fn, void *arg,
                            bool *ret_rolled, struct errinfo *info)
{
    char path[JOURNAL_PATH_MAX];
    struct seg_file file;
    struct seg_header h;
    struct frame frame;
    const char *why = NULL;
    int64_t at;
    int rc;

    *ret_rolled = false;
    path_set(path, "%s/lane-%u/%016llu.seg", f->dir, c->lane, (unsigned long long)c->first);
    rc = seg_file_open(&file, path, O_RDONLY);
    if (rc == -ENOENT)
        return OK;
    if (rc < 0)
        return cannot_read(info, path, -rc);
    if (c->w.off == 0) {
        why = seg_header_read(&file, &h, &at);
        if (!why)
            walker_begin(&c->w, &file, &h);
    }
    c->w.f = &file;
    while (!why && walker_next(&c->w, &frame) == WALK_RECORD) {
        struct journal_record r;

        record_of_frame(&frame, &c->w, &r);
        if (fn)
            fn(&r, arg);
    }
    *ret_rolled = !why && c->w.rolled;
    c->w.f = NULL;
    seg_file_close(&file);
    return why ? refuse(info, path, at, c->first, why) : OK;
}

static enum err cursor_advance(struct journal_follow *f, struct cursor *c, journal_record_fn *fn, void *arg,
                               struct errinfo *info)
{
    bool rolled = true;
    enum err e = OK;

    if (c->first == 0)
        c->first = segment_begin(f, c->lane);
    while (rolled && c->first != 0 && !e) {
        char path[JOURNAL_PATH_MAX];
        int fd;

        e = cursor_read(f, c, fn, arg, &rolled, info);
        if (!rolled || e)
            break;
        path_set(path, "%s/lane-%u/%016llu.seg", f->dir, c->lane, (unsigned long long)c->w.seq);
        fd = world->open(path, O_RDONLY, 0);
        if (fd < 0)
            break;                      /* not there yet; asked again next time */
        world->close(fd);
        c->first = c->w.seq;
        c->w = (struct walker){ 0 };
    }
    return e;
}

enum err journal_follow_next(struct journal_follow *f, journal_record_fn *fn, void *arg, struct errinfo *info)
{
    struct manifest *m = malloc(sizeof(*m));
    int64_t at;
    enum err e;

    ASSERT(m);
    e = manifest_read(f->dir, m, &at, info);
    for (unsigned i = 0; !e && i < m->n_lanes; i++)
        e = cursor_advance(f, cursor_of(f, m->lanes[i].lane), f->begun ? fn : NULL, arg, info);
    f->begun |= !e;
    free(m);
    return e;
}

enum err journal_follow_open(const char *dir, struct journal_follow **ret, struct errinfo *info)
{
    struct journal_follow *f = calloc(1, sizeof(*f));
    enum err e;

    ASSERT(f && strlen(dir) <= JOURNAL_DIR_MAX);
    path_set(f->dir, "%s", dir);
    e = journal_follow_next(f, NULL, NULL, info);       /* only finds the ends */
    if (e) {
        journal_follow_close(f);
        return e;
    }
    *ret = f;
    return OK;
}

void journal_follow_close(struct journal_follow *f)
{
    if (!f)
        return;
    free(f->lanes);
    free(f);
}
