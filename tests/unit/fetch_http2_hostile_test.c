/*
 * fetch_http2_hostile_test.c -- HTTP/2 with a provider that refuses, or keeps no rules
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <time.h>

#include "fetch_bed.h"
#include "fetch_h2.h"

#define END NGHTTP2_FLAG_END_STREAM

/* ---- answers that are none --------------------------------------------------------------------------------------- */

enum { OURS = -1, REPLY_MAX = 10000 };

static char zeros[200 * 1000];

/* What is said to a request: a head, then a frame, a body, trailers; or what `say` says. */
struct row {
    const char *name;
    struct str head;
    bool ends;                          /* ... the stream */
    struct { unsigned type, flags; int32_t id; struct str payload; } frame;
    struct str body;                    /* ends it */
    struct str tail;
    void (*say)(struct h2 *h, struct h2_request *rq);
    enum err e;
    bool answered;                      /* the head is good */
    bool kills;                         /* the connection, and whoever else is on it */
};

static void say_fields(struct h2 *h, int32_t id, unsigned n, size_t len)
{
    struct buf head = BUF_INIT(1 << 20);

    buf_add_z(&head, ":status: 200");
    for (unsigned i = 0; i < n; i++)
        buf_addf(&head, "|x-%u: %0*d", i, (int)len, 0);
    h2_head(h, id, END, buf_str(&head));
    buf_release(&head);
}

static void say_64(struct h2 *h, struct h2_request *rq)         { say_fields(h, rq->id, 64, 1); }
static void say_65(struct h2 *h, struct h2_request *rq)         { say_fields(h, rq->id, 65, 1); }
static void say_large(struct h2 *h, struct h2_request *rq)      { say_fields(h, rq->id, 40, 900); }
static void say_huge(struct h2 *h, struct h2_request *rq)       { say_fields(h, rq->id, 1000, 900); }

/* One field of 4,000 bytes, and bytes that each mean it again: 127,000 in eight frames. */
static void say_again(struct h2 *h, struct h2_request *rq)
{
    static const char field[] = "\x40\1x\x7f\xa1\x1e";       /* to be indexed; "x"; 127 + 3873 bytes */
    size_t n = sizeof(field) - 1;
    uint8_t block[H2_FRAME_MAX];

    memcpy(block, field, n);
    memset(block + n, 'a', 4000);
    memset(block + n + 4000, 0xbe, sizeof(block) - n - 4000);
    h2_frame(h, NGHTTP2_HEADERS, END, rq->id, block, sizeof(block));
    memset(block, 0xbe, sizeof(block));
    for (int i = 1; i <= 7; i++)
        h2_frame(h, NGHTTP2_CONTINUATION, i == 7 ? NGHTTP2_FLAG_END_HEADERS : 0, rq->id, block, sizeof(block));
}

static void say_again_behind(struct h2 *h, struct h2_request *rq)
{
    h2_head(h, rq->id, 0, STR(":status: 200"));
    say_again(h, rq);
}

static void say_interim(struct h2 *h, struct h2_request *rq)
{
    for (int i = 0; i < 9; i++)
        h2_head(h, rq->id, 0, STR(":status: 103|link: x"));
    h2_head(h, rq->id, END, STR(":status: 200"));
}

static void say_continued(struct h2 *h, struct h2_request *rq)
{
    h2_frame(h, NGHTTP2_HEADERS, END, rq->id, "\x88", 1);
    h2_frame(h, NGHTTP2_PING, 0, 0, "01234567", 8);
}

/* Until the other side has enough: at least it must not go on for ever. */
static void say_continuations(struct h2 *h, struct h2_request *rq)
{
    unsigned n = 0;

    h2_frame(h, NGHTTP2_HEADERS, END, rq->id, "\x88", 1);
    while (h2_frame(h, NGHTTP2_CONTINUATION, 0, rq->id, "", 0))
        CHECK(++n < 1000 * 1000);
}

static void say_nothing_often(struct h2 *h, struct h2_request *rq)
{
    h2_head(h, rq->id, 0, STR(":status: 200"));
    for (int i = 0; i < 10000; i++)
        h2_frame(h, NGHTTP2_DATA, 0, rq->id, "", 0);
    h2_data(h, rq, STR("fine"), true);
}

/* More than it said, and than is read at once. */
static void say_too_much(struct h2 *h, struct h2_request *rq)
{
    h2_head(h, rq->id, 0, STR(":status: 200|content-length: 9000"));
    for (int i = 0; i < 5; i++)
        h2_frame(h, NGHTTP2_DATA, 0, rq->id, zeros, 16000);
}

static void say_http1(struct h2 *h, struct h2_request *rq)
{
    peer_say(h->p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

#define BAD .e = E_UPSTREAM_GARBLED
#define UNKNOWN .e = E_OUTCOME_UNKNOWN
#define HEAD(text, fields) { text, STR(fields), true, BAD }
#define WHOLE STR(":status: 200")
#define FRAME(text, type, flags, id, payload) \
    { text, .frame = { NGHTTP2_##type, flags, id, STR(payload) }, BAD, .kills = true }
#define SETTING(text, payload) FRAME(text, SETTINGS, 0, 0, payload)
#define RESET(code) .frame = { NGHTTP2_RST_STREAM, 0, OURS, STR("\0\0\0" code) }

static const struct row rows[] = {
    { "plain", STR(":status: 200|content-length: 9000"), .body = { zeros, 9000 }, .answered = true },
    { "64 fields", .say = say_64, .answered = true },
    { "empty frames", .say = say_nothing_often, .answered = true },
    { "trailers", WHOLE, .body = STR("fine"), .answered = true },
    HEAD("no status", "x-a: 1"),
    HEAD("two", ":status: 200|:status: 200"),
    HEAD("not a number", ":status: abc"),
    HEAD("not a number", ":status: 2 0"),
    HEAD("too small", ":status: 99"),
    HEAD("too small", ":status: 099"),
    HEAD("too large", ":status: 1000"),
    HEAD("empty", ":status: "),
    HEAD("switching", ":status: 101"),
    HEAD("interim that ends", ":status: 103"),
    HEAD("upper case", ":status: 200|X-A: 1"),
    HEAD("no name", ":status: 200|: 1"),
    HEAD("blank in a name", ":status: 200|x a: 1"),
    HEAD("CR", ":status: 200|x-a: 1\r"),
    HEAD("LF", ":status: 200|x-a: 1\nx-b: 2"),
    HEAD("NUL", ":status: 200|x-a: 1\0"),
    HEAD("connection", ":status: 200|connection: close"),
    HEAD("keep-alive", ":status: 200|keep-alive: 5"),
    HEAD("upgrade", ":status: 200|upgrade: h2c"),
    HEAD("transfer-encoding", ":status: 200|transfer-encoding: chunked"),
    HEAD("pseudo field behind", "x-a: 1|:status: 200"),
    HEAD("a request's", ":status: 200|:path: /"),
    HEAD("unknown", ":status: 200|:new: 1"),
    HEAD("length not there", ":status: 200|content-length: 5"),
    HEAD("two lengths", ":status: 200|content-length: 0|content-length: 1"),
    HEAD("no length", ":status: 200|content-length: x"),
    HEAD("negative", ":status: 200|content-length: -1"),
    HEAD("overflow", ":status: 200|content-length: 99999999999999999999"),
    { "body shorter", STR(":status: 200|content-length: 5"), .body = STR("four"), BAD, .answered = true },
    { "body longer", STR(":status: 200|content-length: 3"), .body = STR("four"), BAD, .answered = true },
    { "body of a 204", STR(":status: 204"), .body = STR("four"), BAD, .answered = true },
    { "status in trailers", WHOLE, .tail = STR(":status: 200"), BAD, .answered = true },
    { "not packed", STR(":status: 200|content-encoding: gzip"), .body = STR("four"), BAD, .answered = true },
    { "65 fields", .say = say_65, BAD },
    { "large head", .say = say_large, BAD },
    { "large field many times", .say = say_again, BAD },
    { "large field many times in trailers", .say = say_again_behind, BAD, .answered = true },
    { "interim without end", .say = say_interim, BAD },
    { "more than said", .say = say_too_much, .e = E_UPSTREAM_GARBLED, .answered = true },
    { "large", WHOLE, .body = { zeros, REPLY_MAX + 1 }, .e = E_UPSTREAM_TOO_LARGE, .answered = true },
    { "larger", WHOLE, .body = { zeros, sizeof(zeros) }, .e = E_UPSTREAM_TOO_LARGE, .answered = true },
    { "large by its own account", STR(":status: 200|content-length: 10001"), .e = E_UPSTREAM_TOO_LARGE,
      .answered = true },
    { "refused", RESET("\7"), .e = E_UPSTREAM_DOWN },
    { "refused too late", STR(":status: 103"), RESET("\7"), UNKNOWN },
    { "refused far too late", WHOLE, RESET("\7"), UNKNOWN, .answered = true },
    { "INTERNAL_ERROR", RESET("\2"), UNKNOWN },
    { "NO_ERROR", RESET("\0"), UNKNOWN },
    { "CANCEL within", STR(":status: 200|content-length: 9"), RESET("\x8"), UNKNOWN, .answered = true },
    FRAME("overflow of a window", WINDOW_UPDATE, 0, 0, "\x7f\xff\xff\xff"),
    FRAME("nothing for a window", WINDOW_UPDATE, 0, 0, "\0\0\0\0"),
    FRAME("nothing for a stream", WINDOW_UPDATE, 0, OURS, "\0\0\0\0"),
    { "overflow of a stream's", .frame = { NGHTTP2_WINDOW_UPDATE, 0, OURS, STR("\x7f\xff\xff\xff") }, BAD },
    FRAME("no HPACK", HEADERS, END | NGHTTP2_FLAG_END_HEADERS, OURS, "\xff\xff\xff\xff\xff\xff\xff\xff"),
    FRAME("unknown index", HEADERS, END | NGHTTP2_FLAG_END_HEADERS, OURS, "\x88\xfe"),
    FRAME("body first", DATA, 0, OURS, "four"),
    { "large frame", WHOLE, .frame = { NGHTTP2_DATA, 0, OURS, { zeros, 16385 } }, BAD, .answered = true,
      .kills = true },
    FRAME("larger frame", PING, 0, 0, "123456789"),
    FRAME("smaller frame", PING, 0, 0, "1234567"),
    FRAME("PING of a stream", PING, 0, OURS, "12345678"),
    FRAME("body of another", DATA, END, 1001, "four"),
    FRAME("answer of another", HEADERS, END | NGHTTP2_FLAG_END_HEADERS, 1001, "\x88"),
    FRAME("answer of one of its own", HEADERS, END | NGHTTP2_FLAG_END_HEADERS, 2, "\x88"),
    FRAME("body of nobody's", DATA, END, 0, "four"),
    FRAME("reset of another", RST_STREAM, 0, 1001, "\0\0\0\2"),
    FRAME("window of another", WINDOW_UPDATE, 0, 1001, "\0\0\0\2"),
    FRAME("push", PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, OURS, "\0\0\0\2\x82\x84\x87\x41\1a"),
    FRAME("padding beyond the frame", DATA, NGHTTP2_FLAG_PADDED, OURS, "\x9" "four"),
    FRAME("CONTINUATION of nothing", CONTINUATION, NGHTTP2_FLAG_END_HEADERS, OURS, "\x88"),
    { "a head cut in two", .say = say_continued, BAD, .kills = true },
    { "CONTINUATION for ever", .say = say_continuations, BAD, .kills = true },
    { "huge head", .say = say_huge, BAD, .kills = true },
    SETTING("push", "\0\2\0\0\0\1"),
    SETTING("window", "\0\4\x80\0\0\0"),
    SETTING("frame", "\0\5\0\0\0\1"),
    SETTING("cut", "\0\5\0\0"),
    FRAME("settings of a stream", SETTINGS, 0, OURS, "\0\3\0\0\0\1"),
    FRAME("acknowledged more than said", SETTINGS, NGHTTP2_FLAG_ACK, 0, "\0\3\0\0\0\1"),
    { "HTTP/1.1", .say = say_http1, BAD, .kills = true },
};

static void say_row(struct h2 *h, struct h2_request *rq, const struct row *row)
{
    int32_t id = row->frame.id == OURS ? rq->id : row->frame.id;

    if (row->say) {
        row->say(h, rq);
        return;
    }
    if (row->head.len > 0)
        h2_head(h, rq->id, row->ends ? END : 0, row->head);
    if (row->frame.payload.p)
        h2_frame(h, row->frame.type, row->frame.flags, id, row->frame.payload.p, row->frame.payload.len);
    if (row->body.len > 0)
        h2_data(h, rq, row->body, true);
    if (row->tail.len > 0)
        h2_head(h, rq->id, END, row->tail);
}

/* "/by" is answered together with "/ok", "/7" by the rules of row 7. */
static void serve_rows(struct peer *p)
{
    struct h2_request *rq, *by = NULL;
    uint64_t row;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    while (open && (rq = h2_next(&h))) {
        if (str_is(rq->path, "/by")) {
            by = rq;
        } else if (str_to_u64(str_from(rq->path, 1), &row)) {
            say_row(&h, rq, &rows[row]);
            h2_forget(&h, rq);
        } else {
            if (by)
                h2_answer(&h, by, STR("by"));
            by = NULL;
            h2_answer(&h, rq, STR("ok"));
        }
    }
    h2_close(&h);
}

/* What was seen, in words; "" if it is what the row says. */
static void await_row(struct bed *b, const struct row *row, const char *path, struct buf *seen)
{
    struct fetch_request by = bed_request(b, "POST", "/by"), req = bed_request(b, "POST", path);
    enum fetch_sent sent = row->e == E_UPSTREAM_DOWN ? FETCH_NOT_SENT : row->answered ? FETCH_ANSWERED : FETCH_SENT;
    unsigned before = atomic_load(&b->up->requests);
    struct caller c;
    enum err e;

    by.deadline = loop_now() + 5 * NS_PER_S;
    caller_start(&c, b, &by);
    AWAIT(atomic_load(&b->up->requests) == before + 1);
    req.reply_max = REPLY_MAX;
    e = await_bed(b, &req);
    if (e != row->e)
        buf_addf(seen, " %s, not %s (%s);", err_name(e), err_name(row->e), b->info.text);
    if (b->sent != sent || (b->reply.status > 0) != row->answered)
        buf_addf(seen, " sent %u, not %u, status %d;", b->sent, sent, b->reply.status);
    if (e && !b->info.text[0])
        buf_add_z(seen, " no word of why;");
    if (row->kills)
        await_callers(&c, 1);           /* it may take the connection a while to come to its end */
    e = await_get(b, "/ok");
    await_caller(&c);
    if (e || !str_is(b->reply.body, "ok") || b->reply.reused == row->kills)
        buf_addf(seen, " then %s, %s connection;", err_name(e), b->reply.reused ? "the same" : "a new");
    if (c.e != (row->kills ? E_UPSTREAM_GARBLED : OK))
        buf_addf(seen, " another stream got %s;", err_name(c.e));
    if (atomic_load(&b->up->requests) != before + 3)
        buf_addf(seen, " %u requests;", atomic_load(&b->up->requests) - before);
}

/* False after saying what is wrong, so that all that is shows at once. */
static bool await_row_holds(struct bed *b, unsigned i)
{
    struct buf seen = BUF_INIT(1000);
    bool holds;
    char path[16];

    snprintf(path, sizeof(path), "/%u", i);
    await_row(b, &rows[i], path, &seen);
    holds = seen.len == 0;
    if (!holds)
        fprintf(stderr, "%s:%.*s\n", rows[i].name, STR_ARG(buf_str(&seen)));
    buf_release(&seen);
    return holds;
}

static void rows_body(struct bed *b)
{
    unsigned failed = 0;

    CHECK_ERR(await_get(b, "/ok"), OK);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        failed += !await_row_holds(b, i);
        /* what nobody took must not stay off the connection's window */
        for (int n = 0; n < 20 && rows[i].body.len == sizeof(zeros); n++)
            failed += !await_row_holds(b, i);
    }
    CHECK(failed == 0);
}

/* The first row to who may not have it: after HEAD no body may come, and it does not fit the memory of the call. */
static void unfit_body(struct bed *b)
{
    struct fetch_request head = bed_request(b, "HEAD", "/0"), get = bed_request(b, "GET", "/0");
    struct fetch_reply reply;
    enum fetch_sent sent;
    struct arena small;

    CHECK_ERR(await_bed(b, &head), E_UPSTREAM_GARBLED);
    CHECK(b->sent == FETCH_ANSWERED && b->reply.status == 200);
    arena_init(&small, 6000);
    CHECK_ERR(await_fetch(b->f, &get, &small, &reply, &sent, &b->info), E_UPSTREAM_TOO_LARGE);
    CHECK(sent == FETCH_ANSWERED && reply.status == 200);
    arena_release(&small);
    CHECK_ERR(await_get(b, "/ok"), OK);
    CHECK(b->reply.reused && atomic_load(&b->up->accepted) == 1);
}

/* One byte that means 4,000 costs what a byte costs, or the worker stands still for all tenants. */
static void again_body(struct bed *b)
{
    struct timespec from, to;
    unsigned i = 0;
    char path[16];

    CHECK_ERR(await_get(b, "/ok"), OK);
    while (rows[i].say != say_again)
        i++;
    snprintf(path, sizeof(path), "/%u", i);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    CHECK_ERR(await_get(b, path), E_UPSTREAM_GARBLED);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    CHECK((to.tv_sec - from.tv_sec) * NS_PER_S + to.tv_nsec - from.tv_nsec < 100 * NS_PER_MS);
}

static void test_rows(void **state)
{
    bed_run(PEER_HTTP2, serve_rows, NULL, NULL, rows_body);
    bed_run(PEER_HTTP2, serve_rows, NULL, NULL, unfit_body);
    bed_run(PEER_HTTP2, serve_rows, NULL, NULL, again_body);
}

/* ---- not what was agreed on -------------------------------------------------------------------------------------- */

static const char *const openings[] = {
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "\0\0\1\1\5\0\0\0\1\x88",           /* an answer before SETTINGS */
    "",
};

static void serve_opening(struct peer *p)
{
    const char *said = openings[p->index];
    char preface[24];

    CHECK(peer_bytes(p, preface, sizeof(preface)));
    peer_send(p, said, said[0] ? strlen(said) : p->index == 1 ? 10 : 0);
    if (p->index < 2)
        peer_until_closed(p);
}

static void opening_body(struct bed *b)
{
    for (unsigned i = 0; i < ARRAY_LEN(openings); i++) {
        CHECK_ERR(await_get(b, "/"), i < 2 ? E_UPSTREAM_GARBLED : E_OUTCOME_UNKNOWN);
        CHECK(b->sent == FETCH_SENT);
    }
    CHECK(atomic_load(&b->up->accepted) == ARRAY_LEN(openings));
}

static void test_opening(void **state)
{
    bed_run(PEER_HTTP2, serve_opening, NULL, NULL, opening_body);
}

/* ---- floods ------------------------------------------------------------------------------------------------------ */

/* Never reads what it makes the other side say: that must come to an end, and soon. */
static void serve_flood(struct peer *p)
{
    static char many[1000 * 17];
    bool settings = p->up->arg != NULL;
    size_t each = settings ? 9 : 17, n = 0;
    int size = 64 << 10;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    for (size_t i = 0; i < 1000; i++) {
        memset(many + i * each, 0, each);
        many[i * each + 2] = settings ? 0 : 8;
        many[i * each + 3] = settings ? NGHTTP2_SETTINGS : NGHTTP2_PING;
    }
    CHECK(open && h2_next(&h));
    while (peer_send(p, many, 1000 * each))
        CHECK((n += 1000) < 2000 * 1000);
    h2_close(&h);
}

static void flood_body(struct bed *b)
{
    CHECK_ERR(await_get(b, "/"), E_UPSTREAM_GARBLED);
    CHECK(b->sent == FETCH_SENT && metric_sum(M_FETCH_CONNECTIONS) == 0);
}

static void test_floods(void **state)
{
    bed_run(PEER_HTTP2, serve_flood, NULL, NULL, flood_body);
    bed_run(PEER_HTTP2, serve_flood, (void *)1, NULL, flood_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opening), cmocka_unit_test(test_floods), cmocka_unit_test(test_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
