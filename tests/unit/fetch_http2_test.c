/*
 * fetch_http2_test.c -- HTTP/2 with a provider that keeps its rules: the wire, answers, who gives up, secrets
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <unistd.h>

#include "base/crypto.h"
#include "fetch_bed.h"
#include "fetch_h2.h"

/* ---- what is on the wire ----------------------------------------------------------------------------------------- */

/* "/echo": the body. Else the fields as they came, '!' before those never to be indexed. */
static void serve_mirror(struct peer *p)
{
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    while (open && (rq = h2_next(&h))) {
        struct buf text = BUF_INIT(2 << 20);

        for (unsigned i = 0; i < rq->n_fields; i++)
            buf_addf(&text, "%c%.*s: %.*s\n", rq->fields[i].never ? '!' : ' ', STR_ARG(rq->fields[i].name),
                     STR_ARG(rq->fields[i].value));
        if (str_is(rq->path, "/echo")) {
            buf_clear(&text);
            buf_add_str(&text, buf_str(&rq->body));
        }
        open = h2_answer(&h, rq, buf_str(&text));
        buf_release(&text);
    }
    h2_close(&h);
}

static void check_wire(struct bed *b, const struct fetch_request *req, const char *rest)
{
    char expected[1000];

    for (int i = 0; i < 3; i++) {       /* the second time some of it is in the compression's memory */
        CHECK_ERR(await_bed(b, req), OK);
        snprintf(expected, sizeof(expected),
                 " :method: %.*s\n :scheme: https\n :authority: localhost:%u\n!:path: %.*s\n%s",
                 STR_ARG(req->method), b->up->port, STR_ARG(req->path), rest);
        if (!str_is(b->reply.body, expected))
            fprintf(stderr, "%.*s---\n%s", STR_ARG(b->reply.body), expected);
        CHECK(str_is(b->reply.body, expected));
    }
}

#define AGENT " user-agent: sluice/" SLUICE_VERSION "\n accept-encoding: identity\n"

static void wire_body(struct bed *b)
{
    struct secret *token = secret_copy("tok", 3);
    struct fetch_header headers[] = { { STR("X-Api-Key"), STR("key-"), token },
                                      { STR("Content-Type"), STR("application/json"), NULL },
                                      { STR("X-Empty"), STR(""), NULL },
                                      { STR("X-Trace"), STR("For You"), NULL } };
    struct fetch_request req = bed_request(b, "POST", "/a?B=1");

    req.bearer = token;
    req.headers = headers;
    req.n_headers = ARRAY_LEN(headers);
    check_wire(b, &req, "!x-api-key: key-tok\n content-type: application/json\n!x-empty: \n!x-trace: For You\n" AGENT
                        "!authorization: Bearer tok\n!content-length: 0\n");
    req = bed_request(b, "PUT", "/");
    req.basic_user = STR("user");
    req.basic_secret = token;
    req.body = STR("12345");
    check_wire(b, &req, AGENT "!authorization: Basic dXNlcjp0b2s=\n!content-length: 5\n");
    req = bed_request(b, "DELETE", "/");
    check_wire(b, &req, AGENT);
    req = bed_request(b, "GET", "/index.html");
    check_wire(b, &req, AGENT);
    req = bed_request(b, "GET", "/");
    headers[1] = (struct fetch_header){ STR("User-Agent"), STR("other"), NULL };
    req.headers = headers + 1;
    req.n_headers = 1;
    check_wire(b, &req, " user-agent: other\n accept-encoding: identity\n");
    CHECK(atomic_load(&b->up->accepted) == 1);
    secret_release(token);
}

/* More than the windows hold, there and back. */
static void large_body(struct bed *b)
{
    static char big[1600 * 1000];
    struct fetch_request req = bed_request(b, "POST", "/echo");
    struct fetch_part parts[3] = { { .text = str_n(big, 100 * 1000) }, { .text = STR("") },
                                   { .text = str_n(big + 100 * 1000, 50 * 1000) } };

    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)('a' + i % 23);
    req.parts = parts;
    req.n_parts = 3;
    for (int i = 0; i < 10; i++) {      /* the connection's window, too */
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(str_eq(b->reply.body, str_n(big, 150 * 1000)));
    }
    req = bed_request(b, "POST", "/echo");
    req.body = str_n(big, sizeof(big));
    req.reply_max = sizeof(big);
    for (int i = 0; i < 10; i++) {
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(str_eq(b->reply.body, req.body) && b->reply.reused);
    }
    CHECK(atomic_load(&b->up->accepted) == 1);
}

static void test_wire(void **state)
{
    bed_run(PEER_HTTP2, serve_mirror, NULL, NULL, wire_body);
    bed_run(PEER_HTTP2, serve_mirror, NULL, NULL, large_body);
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

#define PACKED "\x1f\x8b\x08\0\0\0\0\0\2\3\xcb\x48\xcd\xc9\xc9\xd7\x51\x28\x48\x4c\xce\x4e\x4d\1\0\xeb\xa1\xea" \
               "\x08\x0d\0\0\0"
#define END NGHTTP2_FLAG_END_STREAM

static void answer(struct h2 *h, struct h2_request *rq)
{
    struct str ok = STR(":status: 200|x-a: 1");
    int32_t id = rq->id;

    if (str_is(rq->path, "/interim")) {
        h2_head(h, id, 0, STR(":status: 103|link: x|link: y"));
        h2_head(h, id, 0, STR(":status: 100"));
        h2_head(h, id, 0, ok);
        h2_data(h, rq, STR("body"), false);
        h2_head(h, id, END, STR("x-late: 1|grpc-status: 0"));
    } else if (str_is(rq->path, "/pieces")) {
        h2_head(h, id, 0, ok);
        h2_data(h, rq, STR("bo"), false);
        h2_data(h, rq, STR(""), false);
        h2_data(h, rq, STR("dy"), false);
        h2_data(h, rq, STR(""), true);
    } else if (str_is(rq->path, "/padded")) {
        h2_head(h, id, 0, ok);
        h2_frame(h, NGHTTP2_DATA, END | NGHTTP2_FLAG_PADDED, id, "\3body\0\0\0", 8);
    } else if (str_is(rq->path, "/unknown")) {
        h2_frame(h, 0xbe, 0xff, 0, "what", 4);
        h2_setting(h, 0x99, 0xffffffff);
        h2_frame(h, NGHTTP2_PRIORITY, 0, id, "\0\0\0\0\x10", 5);
        h2_head(h, id, 0, ok);
        h2_frame(h, 0xbe, 0xff, id, "what", 4);
        h2_data(h, rq, STR("body"), true);
        h2_frame(h, 0xbe, 0, id, "", 0);
        h2_frame(h, NGHTTP2_PING, 0, 0, "01234567", 8);
        for (unsigned pongs = h->n_pongs; h->n_pongs == pongs || h->n_acks < 2; )
            CHECK(h2_read(h));
    } else if (str_is(rq->path, "/gzip")) {
        h2_head(h, id, 0, STR(":status: 200|x-a: 1|content-encoding: gzip|content-length: 33"));
        h2_data(h, rq, STR(PACKED), true);
    } else if (str_is(rq->path, "/204")) {
        h2_head(h, id, END, STR(":status: 204"));
    } else if (str_is(rq->path, "/304")) {
        h2_head(h, id, END, STR(":status: 304|content-length: 300000"));
    } else if (str_is(rq->method, "HEAD") && str_is(rq->path, "/later")) {
        h2_head(h, id, 0, STR(":status: 200|content-length: 300000"));
        h2_data(h, rq, STR(""), true);
    } else {
        h2_head(h, id, END, STR(":status: 200|content-length: 300000"));
    }
    h2_forget(h, rq);
}

static void serve_answers(struct peer *p)
{
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    h.bytewise = p->up->arg != NULL;
    while (open && (rq = h2_next(&h)))
        answer(&h, rq);
    CHECK(h.n_acks == 2 && h.n_pongs == 1 && h.n_resets == 0 && h.goaway && h.goaway_code == NGHTTP2_NO_ERROR);
    h2_close(&h);
}

static void answers_body(struct bed *b)
{
    static const char *const paths[] = { "/interim", "/pieces", "/padded", "/unknown", "/interim" };
    struct fetch_request req;
    struct str value;

    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        CHECK_ERR(await_post(b, paths[i], "x"), OK);
        CHECK(b->reply.status == 200 && str_is(b->reply.body, "body") && b->reply.reused == (i > 0));
        CHECK(b->reply.n_fields == 1 && fetch_reply_header(&b->reply, "X-A", &value) && str_is(value, "1"));
        CHECK(b->sent == FETCH_ANSWERED && b->reply.sent_at > 0 && b->reply.answered_at >= b->reply.sent_at);
    }
    CHECK_ERR(await_get(b, "/gzip"), OK);
    CHECK(str_is(b->reply.body, "hello, packed") && b->reply.n_fields == 3);
    CHECK_ERR(await_get(b, "/204"), OK);
    CHECK(b->reply.status == 204 && b->reply.body.len == 0 && b->reply.n_fields == 0);
    CHECK_ERR(await_get(b, "/304"), OK);
    CHECK(b->reply.status == 304 && b->reply.body.len == 0);
    for (int i = 0; i < 2; i++) {
        req = bed_request(b, "HEAD", i ? "/later" : "/");
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(fetch_reply_header(&b->reply, "content-length", &value) && str_is(value, "300000"));
        CHECK(b->reply.body.len == 0 && b->reply.reused);
    }
    CHECK(atomic_load(&b->up->accepted) == 1);
}

static void plain_body(struct bed *b)
{
    b->origin.plain_http2 = true;
    answers_body(b);
}

static void test_answers(void **state)
{
    bed_run(PEER_PLAIN, serve_answers, NULL, NULL, plain_body);
    bed_run(PEER_HTTP2, serve_answers, NULL, NULL, answers_body);
    bed_run(PEER_HTTP2, serve_answers, (void *)1, NULL, answers_body);
}

/* ---- giving up --------------------------------------------------------------------------------------------------- */

/* Says not a word to this; what one has heard before counts for nothing. */
static void silence_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "GET", "/hold");
    struct h2_script *s = b->arg;

    CHECK_ERR(await_get(b, "/"), OK);
    req.deadline = loop_now() + 100 * NS_PER_MS;
    CHECK_ERR(await_bed(b, &req), E_OUTCOME_UNKNOWN);
    CHECK(b->sent == FETCH_SENT && loop_now() >= req.deadline && b->reply.status == 0);
    AWAIT(atomic_load(&s->ended) == 1);
    CHECK(atomic_load(&s->resets) == 1 && atomic_load(&s->goaways) == 1);
    CHECK_ERR(await_get(b, "/"), OK);
    CHECK(!b->reply.reused && str_is(b->reply.body, "1") && atomic_load(&b->up->requests) == 3);
}

/* It lives: only the one request is given up. */
static void slow_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/hold");
    struct h2_script *s = b->arg;
    struct caller c;

    CHECK_ERR(await_get(b, "/"), OK);
    req.deadline = loop_now() + 300 * NS_PER_MS;
    caller_start(&c, b, &req);
    AWAIT(atomic_load(&b->up->requests) == 2);
    CHECK_ERR(await_get(b, "/"), OK);
    await_caller(&c);
    CHECK(c.e == E_OUTCOME_UNKNOWN && c.sent == FETCH_SENT);
    CHECK_ERR(await_get(b, "/"), OK);
    CHECK(b->reply.reused && str_is(b->reply.body, "0"));
    fetch_drain(b->f);
    AWAIT(atomic_load(&s->ended) == 1);
    CHECK(atomic_load(&s->resets) == 1 && atomic_load(&b->up->accepted) == 1);
}

static void cancel_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/hold");
    struct h2_script *s = b->arg;
    struct caller c;

    CHECK_ERR(await_get(b, "/"), OK);
    caller_start(&c, b, &req);
    task_cancel(task_deref(c.task));
    await_caller(&c);
    CHECK(c.e == E_CANCELLED && c.sent == FETCH_NOT_SENT);
    req.deadline = loop_now();
    CHECK_ERR(await_bed(b, &req), E_DEADLINE);
    CHECK(b->sent == FETCH_NOT_SENT);
    req.deadline = NS_NEVER;
    for (unsigned i = 0; i < 3; i++) {  /* before the last one's bytes left, and after */
        caller_start(&c, b, &req);
        AWAIT(atomic_load(&b->up->requests) == 2 + i);
        task_cancel(task_deref(c.task));
        await_caller(&c);
        CHECK(c.e == E_OUTCOME_UNKNOWN && c.sent == FETCH_SENT);
    }
    CHECK_ERR(await_get(b, "/"), OK);
    CHECK(b->reply.reused);
    fetch_drain(b->f);
    AWAIT(atomic_load(&s->ended) == 1);
    CHECK(atomic_load(&s->resets) == 3 && atomic_load(&b->up->requests) == 5 && atomic_load(&b->up->accepted) == 1);
}

struct stingy {
    sem_t ask, said;
};

/* Says, once told to, that it takes one request at a time, and answers none from then on. */
static void serve_stingy(struct peer *p)
{
    struct stingy *s = p->up->arg;
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    CHECK(open && (rq = h2_next(&h)));
    h2_answer(&h, rq, STR(""));
    sem_wait(&s->ask);
    h2_setting(&h, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1);
    sem_post(&s->said);
    h2_until_closed(&h);
    CHECK(h.n_resets == 1);
    h2_close(&h);
}

/* Its deadline passes while the loop is stalled, and theirs who are held back because of it: they do not take its place
 * then. */
static void held_back_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct stingy *s = b->arg;
    struct caller c[4];
    unsigned sent = 0;

    CHECK_ERR(await_get(b, "/"), OK);
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        req.deadline = loop_now() + (i == 0 ? 1000 : 1100) * NS_PER_MS;
        caller_start(&c[i], b, &req);
    }
    await_turn();                       /* now they have the connection, and wait for each other */
    sem_post(&s->ask);
    sem_wait(&s->said);
    AWAIT(atomic_load(&b->up->requests) == 2);
    usleep(1200 * 1000);
    await_callers(c, ARRAY_LEN(c));
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        CHECK(c[i].e == (c[i].sent == FETCH_SENT ? E_OUTCOME_UNKNOWN : E_DEADLINE));
        sent += c[i].sent == FETCH_SENT;
    }
    CHECK(sent == 1 && atomic_load(&b->up->requests) == 2);
    await_callers_gone(c, ARRAY_LEN(c));
}

static void run_held_back(void)
{
    struct stingy s;

    sem_init(&s.ask, 0, 0);
    sem_init(&s.said, 0, 0);
    bed_run(PEER_HTTP2, serve_stingy, &s, NULL, held_back_body);
    sem_destroy(&s.ask);
    sem_destroy(&s.said);
}

static void test_giving_up(void **state)
{
    run_held_back();
    h2_run(0, NULL, silence_body);
    h2_run(0, NULL, slow_body);
    h2_run(0, NULL, cancel_body);
}

/* Answers one request, and reads no more until told so. */
static void serve_deaf(struct peer *p)
{
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open_small(&h, p);

    CHECK(open && (rq = h2_next(&h)));
    h2_answer(&h, rq, p->index ? STR("new") : STR("old"));
    while (h.n_acks == 0 && h2_read(&h))
        ;
    if (p->index == 0)
        sem_wait(p->up->arg);
    while ((rq = h2_next(&h)))
        h2_answer(&h, rq, p->index ? STR("new") : STR("old"));
    CHECK(p->index > 0 || h.n_resets >= 4);
    h2_close(&h);
}

static void deaf_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    size_t n = 8 << 20;
    char *big = calloc(1, n);
    struct caller c[5], patient;

    CHECK_ERR(await_get(b, "/"), OK);
    req.body = str_n(big, n / 4);
    caller_start(&patient, b, &req);
    req.body = str_n(big, n);
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        req.deadline = loop_now() + (i < 4 ? 300 : 250) * NS_PER_MS;
        if (i == 4)                     /* when, most likely, nothing can leave any more */
            CHECK_ERR(await_sleep(loop_now() + 150 * NS_PER_MS), OK);
        caller_start(&c[i], b, &req);
    }
    await_callers(c, ARRAY_LEN(c));
    CHECK(loop_now() < req.deadline + 2 * NS_PER_S);
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        CHECK((c[i].e == E_OUTCOME_UNKNOWN && c[i].sent == FETCH_SENT) ||
              (i == 4 && c[i].e == E_DEADLINE && c[i].sent == FETCH_NOT_SENT));
    await_callers_gone(c, ARRAY_LEN(c));
    CHECK_ERR(await_get(b, "/"), OK);
    CHECK(str_is(b->reply.body, "new") && !patient.done.fired);
    sem_post(b->arg);
    CHECK_ERR(await_wake(&patient.done, loop_now() + 30 * NS_PER_S), OK);
    CHECK(patient.e == OK && str_is(patient.reply.body, "old"));
    await_callers_gone(&patient, 1);
    free(big);
}

static void test_deaf(void **state)
{
    sem_t gate;

    sem_init(&gate, 0, 0);
    bed_run(PEER_HTTP2, serve_deaf, &gate, NULL, deaf_body);
    sem_destroy(&gate);
}

/* ---- secrets ----------------------------------------------------------------------------------------------------- */

enum { TOKEN = 48, CODED = 24 };

static void secret_make(char *out)
{
    for (size_t i = 0; i < TOKEN; i++)
        out[i] = (char)("q7Zk"[i % 4] ^ (i / 4 % 3));
}

/* A piece of how the token looks on the wire behind `before`. */
static void secret_code(char out[CODED], const char *before)
{
    char value[64];
    uint8_t coded[128];
    nghttp2_nv field = { (uint8_t *)(uintptr_t)"name", (uint8_t *)value, 4, strlen(before) + TOKEN,
                         NGHTTP2_NV_FLAG_NO_INDEX };
    nghttp2_hd_deflater *d;
    ssize_t n;

    memcpy(value, before, strlen(before));
    secret_make(value + strlen(before));
    CHECK(nghttp2_hd_deflate_new(&d, 4096) == 0);
    n = nghttp2_hd_deflate_hd(d, coded, sizeof(coded), &field, 1);
    CHECK(n > CODED + 10 && !memmem(coded, (size_t)n, value + strlen(before), 8));
    memcpy(out, coded + n - 1 - CODED, CODED);
    nghttp2_hd_deflate_del(d);
    bytes_wipe(value, sizeof(value));
    bytes_wipe(coded, sizeof(coded));
}

static void secret_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct h2_script *s = b->arg;
    char text[TOKEN], coded[CODED];
    struct fetch_header header;
    struct fetch_part part;
    struct secret *token;

    secret_make(text);
    token = secret_take(text, sizeof(text));
    header = (struct fetch_header){ STR("X-Api-Key"), STR(""), token };
    part = (struct fetch_part){ .secret = token, .form = true };
    req.bearer = token;
    req.headers = &header;
    req.n_headers = 1;
    req.parts = &part;
    req.n_parts = 1;
    for (int i = 0; i < 3; i++)
        CHECK_ERR(await_bed(b, &req), OK);
    secret_release(token);
    secret_code(coded, "Bearer ");      /* while the connection is kept */
    CHECK(find_in_memory(coded, sizeof(coded)) == 1);   /* `coded` itself, on this stack */
    secret_make(text);
    CHECK(find_in_memory(text, sizeof(text)) == 1);
    fetch_drain(b->f);
    AWAIT(atomic_load(&s->ended) == 1);
    CHECK(find_in_memory(text, sizeof(text)) == 1);
    secret_code(coded, "");
    CHECK(find_in_memory(coded, sizeof(coded)) == 1);
}

static void test_secret_gone(void **state)
{
    h2_run(0, NULL, secret_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wire), cmocka_unit_test(test_answers),     cmocka_unit_test(test_giving_up),
        cmocka_unit_test(test_deaf), cmocka_unit_test(test_secret_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
