/*
 * reply.c -- an answer from its bytes: head, framing, body
 *
 * Pure code over http/parse.h: bytes in, a reply in the arena out, the same whatever the pieces they come in.
 * Everything is bounded: interim answers are counted, a head is at most HTTP_HEAD_MAX, a body at most `max`, and what a
 * Content-Length announces is refused before it is received.  Fails with E_UPSTREAM_GARBLED (HTTP's rules are broken)
 * or E_UPSTREAM_TOO_LARGE; r->why then says which rule, in words of ours, never the peer's.
 */
#include "base/check.h"
#include "fetch/internal.h"

void reader_init(struct reader *r, struct arena *arena, size_t max, bool was_head)
{
    *r = (struct reader){
        .arena = arena, .max = max, .was_head = was_head, .part = BUF_INIT(HTTP_HEAD_MAX + 1), .why = ""
    };
}

void reader_release(struct reader *r)
{
    buf_release(&r->part);
}

static enum err garbled(struct reader *r, const char *why)
{
    r->why = why;
    return E_UPSTREAM_GARBLED;
}

static enum err too_large(struct reader *r, const char *why)
{
    r->why = why;
    return E_UPSTREAM_TOO_LARGE;
}

/* ---- head -------------------------------------------------------------------------------------------------------- */

/* Copies the head's bytes once; the fields become views into the copy. */
static enum err head_keep(struct reader *r, const struct http_head *h, struct str bytes)
{
    struct str copy = arena_str(r->arena, bytes);
    struct fetch_field *fields = arena_array(r->arena, h->n_headers, sizeof(*fields));

    if (!copy.p || (!fields && h->n_headers > 0))
        return too_large(r, "the answer's head does not fit the memory of the call");
    for (unsigned i = 0; i < h->n_headers; i++) {
        const struct http_header *f = &h->headers[i];

        fields[i].name = str_n(copy.p + (f->name.p - bytes.p), f->name.len);
        fields[i].value = str_n(f->value.len ? copy.p + (f->value.p - bytes.p) : copy.p, f->value.len);
    }
    r->reply.status = h->status;
    r->reply.fields = fields;
    r->reply.n_fields = h->n_headers;
    return OK;
}

static enum err body_begin(struct reader *r, const struct http_body *body)
{
    r->part.max = r->max;
    switch (body->framing) {
    case HTTP_BODY_NONE:
        r->state = READER_DONE;
        return OK;
    case HTTP_BODY_LENGTH:
        if (body->length > r->max)
            return too_large(r, "the answer announces a longer body than allowed");
        r->state = body->length > 0 ? READER_LENGTH : READER_DONE;
        r->body_size = (size_t)body->length;
        r->body = r->body_size > 0 ? arena_alloc(r->arena, r->body_size) : NULL;
        if (r->body_size > 0 && !r->body)
            return too_large(r, "the answer's body does not fit the memory of the call");
        return OK;
    case HTTP_BODY_CHUNKED:
        http_chunked_init(&r->chunked);
        r->state = READER_CHUNKED;
        return OK;
    case HTTP_BODY_UNTIL_CLOSE:
        r->state = READER_UNTIL_CLOSE;
        return OK;
    }
    UNREACHABLE();
}

static enum err head_done(struct reader *r, const struct http_head *h, struct str bytes)
{
    struct http_body body;
    enum http_fault why;
    enum err e;

    if (!http_response_framing(h, r->was_head, &body, &why))
        return garbled(r, http_fault_text(why));
    if (h->status < 200) {
        r->interim++;
        return r->interim > FETCH_INTERIM_MAX ? garbled(r, "interim answers without end") : OK;
    }
    e = head_keep(r, h, bytes);
    if (e)
        return e;
    r->keeps = http_head_keeps(h) && body.framing != HTTP_BODY_UNTIL_CLOSE;
    return body_begin(r, &body);
}

enum err reader_head(struct reader *r, int status, const struct fetch_field *fields, unsigned n,
                     const struct http_body *body)
{
    ASSERT(r->state == READER_HEAD && r->part.len == 0 && status >= 200);
    r->reply.status = status;
    r->reply.fields = fields;
    r->reply.n_fields = n;
    return r->was_head ? body_begin(r, &(struct http_body){ .framing = HTTP_BODY_NONE }) : body_begin(r, body);
}

/* Parses one head off `in`, of which r->parsed bytes were looked at before. *ret_used: 0 if more is needed. */
static enum err head_parse(struct reader *r, struct str in, size_t *ret_used)
{
    UNSET struct http_head head;
    enum http_fault why;
    int n = 0;

    *ret_used = 0;
    if (http_head_worth(in, r->parsed))
        n = http_parse_response_head(in, &head, &why);
    if (n < 0)
        return garbled(r, http_fault_text(why));
    r->parsed = n == 0 ? in.len : 0;
    if (n == 0)
        return in.len > HTTP_HEAD_MAX ? garbled(r, "the head is too large") : OK;
    *ret_used = (size_t)n;
    return head_done(r, &head, str_n(in.p, (size_t)n));
}

static enum err feed_head(struct reader *r, struct str in, size_t *ret_used)
{
    size_t before = r->part.len, n = in.len, used;
    enum err e;

    if (before == 0) {
        e = head_parse(r, in, &used);
        if (e || used > 0) {
            *ret_used = used;
            return e;
        }
        buf_add_str(&r->part, in);
        *ret_used = in.len;
        return r->part.overflow ? garbled(r, "the head is too large") : OK;
    }
    if (n > r->part.max - before)
        n = r->part.max - before;
    buf_add(&r->part, in.p, n);
    e = head_parse(r, buf_str(&r->part), &used);
    if (e)
        return e;
    *ret_used = used > 0 ? used - before : n;
    if (used > 0) {
        ASSERT(used > before);          /* otherwise the head would have been complete before */
        buf_clear(&r->part);
    }
    return OK;
}

/* ---- body -------------------------------------------------------------------------------------------------------- */

static enum err feed_chunked(struct reader *r, struct str in, size_t *ret_used)
{
    size_t used = 0;

    while (used < in.len && !r->chunked.done) {
        struct str data;
        enum http_fault why;
        int64_t n = http_chunked_decode(&r->chunked, str_from(in, used), &data, &why);

        if (n < 0)
            return garbled(r, http_fault_text(why));
        ASSERT(n > 0);
        buf_add_str(&r->part, data);
        if (r->part.overflow)
            return too_large(r, "the answer's body is longer than allowed");
        used += (size_t)n;
    }
    if (r->chunked.done)
        r->state = READER_DONE;
    *ret_used = used;
    return OK;
}

char *reader_room(struct reader *r, size_t *ret_size)
{
    if (r->state != READER_LENGTH)
        return NULL;
    *ret_size = r->body_size - r->body_len;
    return r->body + r->body_len;
}

enum err reader_filled(struct reader *r, size_t n)
{
    ASSERT(r->state == READER_LENGTH && n <= r->body_size - r->body_len);
    r->body_len += n;
    if (r->body_len == r->body_size)
        r->state = READER_DONE;
    return OK;
}

static enum err feed_body(struct reader *r, struct str in, size_t *ret_used)
{
    size_t n;

    switch (r->state) {
    case READER_LENGTH:
        n = r->body_size - r->body_len;
        n = in.len < n ? in.len : n;
        memcpy(r->body + r->body_len, in.p, n);
        *ret_used = n;
        return reader_filled(r, n);
    case READER_CHUNKED:
        return feed_chunked(r, in, ret_used);
    case READER_UNTIL_CLOSE:
        buf_add_str(&r->part, in);
        *ret_used = in.len;
        return r->part.overflow ? too_large(r, "the answer's body is longer than allowed") : OK;
    case READER_HEAD:
    case READER_DONE:
        break;
    }
    UNREACHABLE();
}

enum err reader_feed(struct reader *r, struct str in, size_t *ret_used)
{
    size_t used = 0;

    r->any = r->any || in.len > 0;
    while (used < in.len && r->state != READER_DONE) {
        struct str rest = str_from(in, used);
        size_t n = 0;
        enum err e = r->state == READER_HEAD ? feed_head(r, rest, &n) : feed_body(r, rest, &n);

        if (e)
            return e;
        ASSERT(n > 0 && n <= rest.len);
        used += n;
    }
    *ret_used = used;
    return OK;
}

enum err reader_eof(struct reader *r)
{
    size_t used;

    if (r->state == READER_HEAD && r->part.len > 0) {
        r->parsed = 0;                  /* what came in small pieces was not all looked at: garbage is called garbage */
        return head_parse(r, buf_str(&r->part), &used) == OK ? E_CLOSED : E_UPSTREAM_GARBLED;
    }
    if (r->state == READER_UNTIL_CLOSE)
        r->state = READER_DONE;
    return r->state == READER_DONE ? OK : E_CLOSED;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

bool fetch_reply_header(const struct fetch_reply *r, const char *name, struct str *ret)
{
    for (unsigned i = 0; i < r->n_fields; i++) {
        if (str_ieq(r->fields[i].name, str_of(name))) {
            *ret = r->fields[i].value;
            return true;
        }
    }
    return false;
}

enum err reply_unpack(struct fetch_reply *reply, struct arena *arena, size_t max, const char **why)
{
    struct str coding = STR_NULL;
    struct buf out = BUF_INIT(max + 1);         /* one more, to see that there is more */
    unsigned n = 0;
    bool gzip;
    enum err e;

    for (unsigned i = 0; i < reply->n_fields; i++) {
        if (str_ieq(reply->fields[i].name, STR("content-encoding"))) {
            coding = reply->fields[i].value;
            n++;
        }
    }
    if (n == 0 || (n == 1 && (coding.len == 0 || str_ieq(coding, STR("identity")))) || reply->body.len == 0)
        return OK;
    gzip = str_ieq(coding, STR("gzip")) || str_ieq(coding, STR("x-gzip"));
    if (n > 1 || !(gzip || str_ieq(coding, STR("deflate")))) {
        *why = "the answer has a content coding that was not asked for";
        return E_UPSTREAM_GARBLED;
    }
    e = inflate_bounded(reply->body, gzip, max, &out, why);
    if (!e) {
        reply->body = out.len > 0 ? arena_str(arena, buf_str(&out)) : STR("");
        if (!reply->body.p) {
            *why = "the answer's body does not fit the memory of the call";
            e = E_UPSTREAM_TOO_LARGE;
        }
    }
    buf_release(&out);
    return e;
}

enum err reader_finish(struct reader *r, struct fetch_reply *ret)
{
    bool in_part = r->part.len > 0;
    const char *before;
    enum err e;

    ASSERT(r->state == READER_DONE && r->reply.status >= 200);
    r->reply.body = in_part ? buf_str(&r->part) : str_n(r->body, r->body_len);
    before = r->reply.body.p;
    e = reply_unpack(&r->reply, r->arena, r->max, &r->why);
    if (e)
        return e;
    if (in_part && r->reply.body.p == before) {
        r->reply.body = arena_str(r->arena, r->reply.body);
        if (!r->reply.body.p)
            return too_large(r, "the answer's body does not fit the memory of the call");
    }
    *ret = r->reply;
    return OK;
}
