/* answer.c -- see answer.h */
#include "bench/gen/answer.h"

enum { LINE_MAX_BYTES = 4096, KEPT_MAX = 1 << 16 };

void answer_init(struct answer *a)
{
    *a = (struct answer){ .head = BUF_INIT(ANSWER_HEAD_MAX), .body = BUF_INIT(ANSWER_BODY_MAX) };
}

void answer_release(struct answer *a)
{
    buf_release(&a->head);
    buf_release(&a->body);
}

void answer_next(struct answer *a)
{
    if (a->body.cap > KEPT_MAX)
        buf_release(&a->body);
    buf_clear(&a->head);
    buf_clear(&a->body);
    a->state = ANSWER_IN_HEAD;
    a->status = 0;
    a->closes = a->is_events = false;
    a->left = 0;
}

/* ---- the head ---------------------------------------------------------------------------------------------------- */

struct framing {
    bool has_length, chunked, wrong;
    uint64_t length;
};

static void read_field(struct answer *a, struct framing *f, struct str name, struct str value)
{
    uint64_t n;

    if (str_ieq(name, STR("content-length"))) {
        if (!str_to_u64(value, &n) || (f->has_length && n != f->length))
            f->wrong = true;
        else
            f->length = n;
        f->has_length = true;
    } else if (str_ieq(name, STR("transfer-encoding"))) {
        f->wrong = f->wrong || f->chunked || !str_ieq(value, STR("chunked"));
        f->chunked = true;
    } else if (str_ieq(name, STR("connection"))) {
        a->closes = a->closes || str_ieq(value, STR("close"));
    } else if (str_ieq(name, STR("content-type"))) {
        a->is_events = value.len >= 17 && str_ieq(str_n(value.p, 17), STR("text/event-stream"));
    }
}

/* "HTTP/1.1 200 OK": 0 if it is not that. */
static int read_status(struct answer *a, struct str line)
{
    uint64_t status;

    if (line.len < 12 || !str_starts(line, STR("HTTP/1.")) || line.p[8] != ' ' || (line.len > 12 && line.p[12] != ' '))
        return 0;
    a->closes = line.p[7] == '0';
    return str_to_u64(str_n(line.p + 9, 3), &status) && status >= 100 ? (int)status : 0;
}

/* Up to LF; without the CR before it. False: no whole line is left. */
static bool cut_line(struct str *rest, struct str *line)
{
    if (!str_cut(*rest, '\n', line, rest))
        return false;
    if (line->len && line->p[line->len - 1] == '\r')
        line->len--;
    return true;
}

static enum answer_state body_state(struct answer *a, const struct framing *f)
{
    if (f->wrong || (f->chunked && f->has_length))
        return ANSWER_GARBLED;
    if (a->status == 204 || a->status == 304)
        return ANSWER_DONE;
    if (f->chunked)
        return ANSWER_CHUNK_SIZE;
    if (f->has_length) {
        a->left = f->length;
        return f->length > ANSWER_BODY_MAX ? ANSWER_GARBLED : f->length ? ANSWER_IN_BODY : ANSWER_DONE;
    }
    a->closes = true;
    return ANSWER_TO_END;
}

static void read_head(struct answer *a)
{
    struct str rest = buf_str(&a->head), line, name, value;
    struct framing f = { 0 };

    cut_line(&rest, &line);
    a->status = read_status(a, line);
    while (a->status && cut_line(&rest, &line) && line.len) {
        if (!str_cut(line, ':', &name, &value))
            f.wrong = true;
        else
            read_field(a, &f, name, str_trim(value));
    }
    buf_clear(&a->head);
    if (a->status == 0 || f.wrong)
        a->state = ANSWER_GARBLED;
    else if (a->status < 200)
        a->state = a->status == 101 ? ANSWER_GARBLED : ANSWER_IN_HEAD;
    else
        a->state = body_state(a, &f);
}

static size_t feed_head(struct answer *a, const char *bytes, size_t n)
{
    size_t before = a->head.len, from = before > 3 ? before - 3 : 0;
    const char *end;
    size_t taken;

    if (n > ANSWER_HEAD_MAX - before)
        n = ANSWER_HEAD_MAX - before;
    buf_add(&a->head, bytes, n);
    end = a->head.overflow || n == 0 ? NULL : memmem(a->head.p + from, a->head.len - from, "\r\n\r\n", 4);
    if (!end) {
        if (a->head.overflow || n == 0 || a->head.len == ANSWER_HEAD_MAX)
            a->state = ANSWER_GARBLED;
        return n;
    }
    a->head.len = (size_t)(end + 4 - a->head.p);
    taken = a->head.len - before;
    read_head(a);
    return taken;
}

/* ---- the body ---------------------------------------------------------------------------------------------------- */

static size_t feed_bytes(struct answer *a, const char *bytes, size_t n, enum answer_state after)
{
    if (a->state != ANSWER_TO_END && n > a->left)
        n = (size_t)a->left;
    buf_add(&a->body, bytes, n);
    if (a->body.overflow) {
        a->state = ANSWER_GARBLED;
        return n;
    }
    if (a->state != ANSWER_TO_END && (a->left -= n) == 0)
        a->state = after;
    return n;
}

/* "1a4;ext": false if it is no size. */
static bool chunk_size(struct str line, uint64_t *ret)
{
    size_t i = 0;

    for (*ret = 0; i < line.len && i < 8; i++) {
        char c = line.p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;

        if (digit < 0)
            break;
        *ret = *ret << 4 | (unsigned)digit;
    }
    return i > 0 && (i == line.len || line.p[i] == ';' || line.p[i] == ' ' || line.p[i] == '\t');
}

static enum answer_state after_line(struct answer *a, struct str line)
{
    uint64_t size;

    switch (a->state) {
    case ANSWER_CHUNK_SIZE:
        if (!chunk_size(line, &size))
            return ANSWER_GARBLED;
        a->left = size;
        return size ? ANSWER_IN_CHUNK : ANSWER_TRAILER;
    case ANSWER_AFTER_CHUNK:
        return line.len ? ANSWER_GARBLED : ANSWER_CHUNK_SIZE;
    default:
        return line.len ? ANSWER_TRAILER : ANSWER_DONE;
    }
}

static size_t feed_line(struct answer *a, const char *bytes, size_t n)
{
    const char *lf = memchr(bytes, '\n', n);
    size_t taken = lf ? (size_t)(lf - bytes) + 1 : n;
    struct str rest, line;

    if (taken > LINE_MAX_BYTES - a->head.len) {
        a->state = ANSWER_GARBLED;
        return n;
    }
    buf_add(&a->head, bytes, taken);
    if (!lf)
        return taken;
    rest = buf_str(&a->head);
    cut_line(&rest, &line);
    a->state = after_line(a, line);
    buf_clear(&a->head);
    return taken;
}

size_t answer_feed(struct answer *a, const char *bytes, size_t n)
{
    size_t at = 0;

    while (at < n && a->state != ANSWER_DONE && a->state != ANSWER_GARBLED) {
        switch (a->state) {
        case ANSWER_IN_HEAD:
            at += feed_head(a, bytes + at, n - at);
            break;
        case ANSWER_IN_BODY:
        case ANSWER_TO_END:
            at += feed_bytes(a, bytes + at, n - at, ANSWER_DONE);
            break;
        case ANSWER_IN_CHUNK:
            at += feed_bytes(a, bytes + at, n - at, ANSWER_AFTER_CHUNK);
            break;
        default:
            at += feed_line(a, bytes + at, n - at);
            break;
        }
    }
    return at;
}

void answer_closed(struct answer *a)
{
    if (a->state != ANSWER_DONE)
        a->state = a->state == ANSWER_TO_END ? ANSWER_DONE : ANSWER_GARBLED;
}

struct str answer_message(const struct answer *a)
{
    struct str rest = buf_str(&a->body), line, last = STR_NULL;

    if (!a->is_events)
        return rest;
    while (cut_line(&rest, &line))
        if (str_starts(line, STR("data:")))
            last = str_trim(str_from(line, 5));
    return last;
}
