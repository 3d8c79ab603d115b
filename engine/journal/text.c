/*
 * text.c -- records as text for people: lines, the newest, one call's
 *
 * What is in a payload came from agents and providers.  Nothing of it reaches a terminal raw: control characters, marks
 * that reorder text and bytes that are not UTF-8 are written as escapes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/escape.h"
#include "journal/internal.h"

/* ---- escaping -------------------------------------------------------------------------------------------------- */

static void add_escaped(struct buf *out, struct str s)
{
    while (s.len > 0) {
        uint32_t c;
        size_t len = utf8_first(s, &c);

        if (len == 0) {
            buf_addf(out, "\\x%02x", (unsigned char)s.p[0]);
            len = 1;
        } else if (char_hides(c)) {
            buf_addf(out, c > 0xffff ? "\\u{%x}" : "\\u%04x", (unsigned)c);
        } else {
            buf_add(out, s.p, len);
        }
        s = str_from(s, len);
    }
}

static void add_place(const struct journal_record *r, struct buf *out)
{
    char time[25];

    wall_format(r->time, time);
    buf_addf(out, "%s %u:%llu %s", time, r->lane, (unsigned long long)r->seq, journal_type_name(r->type));
}

void journal_record_line(const struct journal_record *r, struct buf *out)
{
    add_place(r, out);
    buf_add_c(out, ' ');
    add_escaped(out, r->payload);
    buf_add_c(out, '\n');
}

/* ---- the newest ------------------------------------------------------------------------------------------------ */

struct tail_line {
    wall_ms_t time;
    unsigned lane;
    uint64_t seq;
    char *text;
    size_t len;
};

struct tail {
    uint64_t last;              /* of the lane being read */
    unsigned wanted;
    struct tail_line *lines;
    size_t n, cap;
};

static bool tail_last(const struct journal_record *r, void *arg)
{
    ((struct tail *)arg)->last = r->seq;
    return true;
}

static bool tail_take(const struct journal_record *r, void *arg)
{
    struct tail *t = arg;
    struct buf line = BUF_INIT(16 * (size_t)JOURNAL_PAYLOAD_MAX);
    struct tail_line *l;

    if (r->seq + t->wanted <= t->last)
        return true;
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->lines = realloc(t->lines, t->cap * sizeof(*t->lines));
        ASSERT(t->lines);
    }
    journal_record_line(r, &line);
    l = &t->lines[t->n++];
    *l = (struct tail_line){ .time = r->time, .lane = r->lane, .seq = r->seq };
    l->text = buf_take(&line, &l->len);
    return true;
}

static int by_time(const void *a, const void *b)
{
    const struct tail_line *x = a, *y = b;

    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    if (x->lane != y->lane)
        return x->lane < y->lane ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* The lane's segments from the newest back to the one that holds the first record wanted; older ones are not read. */
static enum err tail_lane(const char *dir, unsigned lane, struct tail *t, struct errinfo *info)
{
    char path[JOURNAL_PATH_MAX];
    struct seg_list list;
    size_t from;
    enum err e;

    path_set(path, "%s/lane-%u", dir, lane);
    seg_list_read(&list, path);
    seg_list_segments(&list);
    t->last = 0;
    e = list.n == 0 ? OK : segments_scan(dir, lane, list.v[list.n - 1].first, tail_last, t, info);
    for (from = list.n; from > 1 && list.v[from - 1].first + t->wanted > t->last + 1; from--)
        ;
    if (!e && list.n > 0)
        e = segments_scan(dir, lane, list.v[from - 1].first, tail_take, t, info);
    seg_list_release(&list);
    return e;
}

enum err journal_tail(const char *dir, unsigned n, struct buf *out, struct errinfo *info)
{
    struct manifest *m = malloc(sizeof(*m));
    struct tail t = { .wanted = n > JOURNAL_TAIL_MAX ? JOURNAL_TAIL_MAX : n };
    int64_t at;
    enum err e;

    ASSERT(m && strlen(dir) <= JOURNAL_DIR_MAX);
    e = manifest_read(dir, m, &at, info);
    for (unsigned i = 0; !e && i < m->n_lanes && n > 0; i++)
        e = tail_lane(dir, m->lanes[i].lane, &t, info);
    free(m);
    if (t.n > 0)
        qsort(t.lines, t.n, sizeof(*t.lines), by_time);
    for (size_t i = 0; i < t.n; i++) {
        if (!e && i + t.wanted >= t.n)
            buf_add(out, t.lines[i].text, t.lines[i].len);
        free(t.lines[i].text);
    }
    free(t.lines);
    return e;
}

/* ---- one call -------------------------------------------------------------------------------------------------- */

/* The end of a JSON string that begins at s.p[0]; s.len if it does not end. */
static size_t string_end(struct str s)
{
    for (size_t i = 1; i < s.len; i++) {
        if (s.p[i] == '\\')
            i++;
        else if (s.p[i] == '"')
            return i + 1;
    }
    return s.len;
}

/* The string value of a top-level member of a compact object, as it is written between its quotes; empty if there
 * is none. */
static struct str member(struct str object, struct str name)
{
    int depth = 0;
    bool is_key = false;

    for (size_t i = 0; i < object.len; i++) {
        struct str rest = str_from(object, i);
        char c = object.p[i];

        if (c == '"') {
            size_t n = string_end(rest);

            if (depth == 1 && is_key && n >= 2 && str_eq(str_n(rest.p + 1, n - 2), name) &&
                str_starts(str_from(rest, n), STR(":\""))) {
                struct str value = str_from(rest, n + 1);
                size_t end = string_end(value);

                return end >= 2 ? str_n(value.p + 1, end - 2) : STR_NULL;
            }
            i += n - 1;
            is_key = false;
        } else if (c == '{' || c == '[') {
            depth++;
            is_key = depth == 1 && c == '{';
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == ',') {
            is_key = depth == 1;
        }
    }
    return STR_NULL;
}

static void add_line_break(struct buf *out, int depth)
{
    buf_addf(out, "\n%*s", 4 + 2 * (depth > 0 ? depth < 32 ? depth : 32 : 0), "");
}

/* Compact JSON over several lines. Works on anything: what is not JSON comes out escaped all the same. */
static void add_spread(struct buf *out, struct str s)
{
    int depth = 0;

    for (size_t i = 0; i < s.len; i++) {
        char c = s.p[i], next = i + 1 < s.len ? s.p[i + 1] : '\0';

        if (c == '"') {
            size_t n = string_end(str_from(s, i));

            add_escaped(out, str_n(s.p + i, n));
            i += n - 1;
        } else if (c == '{' || c == '[') {
            buf_add_c(out, c);
            if (next == '}' || next == ']') {
                buf_add_c(out, next);
                i++;
            } else {
                add_line_break(out, ++depth);
            }
        } else if (c == '}' || c == ']') {
            add_line_break(out, --depth);
            buf_add_c(out, c);
        } else if (c == ',') {
            buf_add_c(out, c);
            add_line_break(out, depth);
        } else if (c == ':') {
            buf_add_z(out, ": ");
        } else {
            add_escaped(out, str_n(s.p + i, 1));
        }
    }
}

struct show {
    struct str id;
    bool by_place;
    uint64_t lane, seq;
    struct buf *out;
    unsigned found;
};

static bool show_record(const struct journal_record *r, void *arg)
{
    struct show *s = arg;

    if (s->by_place ? r->lane != s->lane || r->seq != s->seq : !str_eq(member(r->payload, STR("call")), s->id))
        return true;
    s->found++;
    add_place(r, s->out);
    add_line_break(s->out, 0);
    add_spread(s->out, r->payload);
    buf_add_c(s->out, '\n');
    return !s->by_place;
}

enum err journal_show(const char *dir, struct str id, struct buf *out, struct errinfo *info)
{
    struct journal_scan_options opt = { .lane = -1 };
    struct show s = { .id = id, .out = out };
    struct str lane, seq;
    enum err e;

    s.by_place = str_cut(id, ':', &lane, &seq) && str_to_u64(lane, &s.lane) && str_to_u64(seq, &s.seq);
    if (str_empty(id))
        return err_set(info, E_NOT_FOUND, "journal: a call's id, or lane:number, is needed");
    if (s.by_place && s.lane < JOURNAL_LANES_MAX)
        opt.lane = (int)s.lane;
    e = journal_scan(dir, &opt, show_record, &s, info);
    if (!e && s.found == 0)
        e = err_set(info, E_NOT_FOUND, "journal: no record of %.*s", STR_ARG(id));
    return e;
}
