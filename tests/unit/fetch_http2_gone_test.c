/*
 * fetch_http2_gone_test.c -- HTTP/2 with a provider that goes away, with a word or without, or answers out of time
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/socket.h>

#include "fetch_bed.h"
#include "fetch_h2.h"

/* ---- goodbye ----------------------------------------------------------------------------------------------------- */

/* One request of each connection is answered, the next one as the script says. */
struct goodbye {
    int32_t below;              /* 0: GOAWAY names ours; 2: the one before */
    bool always;                /* with the first request of a connection */
    bool answers;               /* ours all the same */
};

static void serve_goodbye(struct peer *p)
{
    const struct goodbye *g = p->up->arg;
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    for (unsigned n = 0; open && (rq = h2_next(&h)); n++) {
        bool goes = p->index == 0 ? n == 1 : g->always;

        if (goes)
            h2_goaway(&h, rq->id > g->below ? rq->id - g->below : 0, NGHTTP2_NO_ERROR);
        if (!goes || g->answers)
            h2_answer(&h, rq, p->index ? STR("new") : STR("old"));
    }
    h2_close(&h);
}

static void goaway_body(struct bed *b)
{
    const struct goodbye *g = b->arg;
    bool fails = g->always && g->below;

    CHECK_ERR(await_post(b, "/", "x"), OK);
    CHECK_ERR(await_post(b, "/", "x"), fails ? E_UPSTREAM_DOWN : OK);
    CHECK(b->sent == (fails ? FETCH_NOT_SENT : FETCH_ANSWERED));
    CHECK(fails || str_is(b->reply.body, g->below ? "new" : "old"));
    CHECK(fails || b->reply.reused == !g->below);
    CHECK(atomic_load(&b->up->requests) == (g->below ? 3 : 2));
    CHECK(atomic_load(&b->up->accepted) == (g->below ? 2 : 1));
    if (fails) {
        CHECK_ERR(await_post(b, "/", "x"), E_UPSTREAM_DOWN);    /* one attempt: the connection was new */
        CHECK(b->sent == FETCH_NOT_SENT && atomic_load(&b->up->requests) == 4);
        return;
    }
    CHECK_ERR(await_post(b, "/", "x"), OK);
    CHECK(str_is(b->reply.body, "new") && b->reply.reused == (g->below > 0));
}

/* Who is below the number that GOAWAY names is answered, who is above goes elsewhere. */
static void serve_goodbye_between(struct peer *p)
{
    struct h2_request *rq, *first = NULL;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    while (open && (rq = h2_next(&h))) {
        if (p->index > 0 || str_is(rq->path, "/")) {
            h2_answer(&h, rq, p->index ? STR("new") : STR("old"));
        } else if (!first) {
            first = rq;
        } else {
            h2_goaway(&h, first->id, NGHTTP2_NO_ERROR);
            h2_answer(&h, rq, STR("behind the goodbye"));
            h2_answer(&h, first, STR("old"));
        }
    }
    h2_close(&h);
}

static void between_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/hold");
    struct caller c[2];

    CHECK_ERR(await_post(b, "/", "x"), OK);
    caller_start(&c[0], b, &req);
    AWAIT(atomic_load(&b->up->requests) == 2);
    caller_start(&c[1], b, &req);
    for (int i = 0; i < 2; i++) {
        await_callers(&c[i], 1);
        CHECK(c[i].e == OK && str_is(c[i].reply.body, i ? "new" : "old"));
        await_caller(&c[i]);
    }
}

/* Says goodbye when nothing is under way, as soon as the other thread wants it. */
static void serve_goodbye_idle(struct peer *p)
{
    sem_t *gates = p->up->arg;
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    while (open && (rq = h2_next(&h))) {
        h2_answer(&h, rq, p->index % 2 ? STR("1") : STR("0"));
        CHECK(p->index == 2 || !h2_find(&h, 3));
        if (p->index == 2)
            continue;
        while (h.n_acks == 0 && h2_read(&h))
            ;
        sem_wait(&gates[0]);
        h2_goaway(&h, 1, NGHTTP2_NO_ERROR);
        sem_post(&gates[1]);
    }
    h2_close(&h);
}

static void goaway_idle_body(struct bed *b)
{
    sem_t *gates = b->arg;

    CHECK_ERR(await_post(b, "/", "x"), OK);
    sem_post(&gates[0]);
    AWAIT(metric_sum(M_FETCH_CONNECTIONS) == 0);
    CHECK_ERR(await_post(b, "/", "x"), OK);
    CHECK(!b->reply.reused && str_is(b->reply.body, "1"));
    sem_post(&gates[0]);                /* and here it comes while the loop does not turn: a request finds it */
    sem_wait(&gates[1]);
    sem_wait(&gates[1]);
    CHECK_ERR(await_post(b, "/", "x"), OK);
    CHECK(!b->reply.reused && str_is(b->reply.body, "0") && atomic_load(&b->up->requests) == 3);
}

/* Goodbye with the sixteenth answer, as of servers that limit the requests of a connection. */
static void serve_sixteen(struct peer *p)
{
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    for (unsigned n = 1; open && (rq = h2_next(&h)); n++) {
        if (n == 16)
            h2_goaway(&h, rq->id, NGHTTP2_NO_ERROR);
        if (n <= 16)
            h2_answer(&h, rq, STR("ok"));
    }
    h2_close(&h);
}

/* Those that go elsewhere go there together. */
static void sixteen_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct caller c[7];

    CHECK_ERR(await_post(b, "/", "x"), OK);
    for (int round = 0; round < 20; round++) {
        callers_start(c, ARRAY_LEN(c), b, &req);
        await_callers_fine(c, ARRAY_LEN(c));
    }
    CHECK(atomic_load(&b->up->accepted) == (1 + 20 * ARRAY_LEN(c)) / 16 + 1);
}

static void test_goaway(void **state)
{
    struct goodbye below = { .below = 2 }, again = { .below = 2, .always = true }, ours = { .answers = true };
    sem_t gates[2];

    bed_run(PEER_HTTP2, serve_goodbye, &below, NULL, goaway_body);
    bed_run(PEER_HTTP2, serve_goodbye, &again, NULL, goaway_body);
    bed_run(PEER_HTTP2, serve_goodbye, &ours, NULL, goaway_body);
    bed_run(PEER_HTTP2, serve_goodbye_between, NULL, NULL, between_body);
    bed_run(PEER_HTTP2, serve_sixteen, NULL, NULL, sixteen_body);
    sem_init(&gates[0], 0, 0);
    sem_init(&gates[1], 0, 0);
    bed_run(PEER_HTTP2, serve_goodbye_idle, gates, NULL, goaway_idle_body);
}

/* ---- gone without a word ----------------------------------------------------------------------------------------- */

/* The first connection ends with its fifth request. "/part": part of the answer comes before. */
static void serve_gone(struct peer *p)
{
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    for (unsigned n = 1; open && (rq = h2_next(&h)); n++) {
        if (p->index > 0 || n == 1)
            h2_answer(&h, rq, p->index ? STR("new") : STR("old"));
        else if (str_is(rq->path, "/part"))
            h2_head(&h, rq->id, 0, STR(":status: 201"));
        if (p->index == 0 && n == 5)
            break;
    }
    if (p->up->arg)
        SSL_shutdown(p->ssl);
    h2_close(&h);
}

static void gone_body(struct bed *b)
{
    static const struct { const char *method, *path; } ask[] = {
        { "POST", "/" }, { "GET", "/" }, { "GET", "/part" }, { "GET", "/" },
    };
    struct caller c[ARRAY_LEN(ask)];

    CHECK_ERR(await_get(b, "/"), OK);
    for (unsigned i = 0; i < ARRAY_LEN(ask); i++) {
        struct fetch_request req = bed_request(b, ask[i].method, ask[i].path);

        caller_start(&c[i], b, &req);
        AWAIT(atomic_load(&b->up->requests) >= 2 + i);
    }
    await_callers(c, ARRAY_LEN(ask));
    CHECK(c[0].e == E_OUTCOME_UNKNOWN && c[0].sent == FETCH_SENT);
    CHECK(c[1].e == OK && str_is(c[1].reply.body, "new") && c[1].sent == FETCH_ANSWERED);
    CHECK(c[2].e == E_OUTCOME_UNKNOWN && c[2].sent == FETCH_ANSWERED && c[2].reply.status == 201);
    CHECK(c[3].e == OK && str_is(c[3].reply.body, "new"));
    await_callers_gone(c, ARRAY_LEN(ask));
    CHECK(atomic_load(&b->up->requests) == 7 && atomic_load(&b->up->accepted) == 2);
}

static void test_gone(void **state)
{
    bed_run(PEER_HTTP2, serve_gone, NULL, NULL, gone_body);
    bed_run(PEER_HTTP2, serve_gone, (void *)1, NULL, gone_body);
}

/* ---- too early, too late ----------------------------------------------------------------------------------------- */

/* Answers "/early" when its head is here, "/late" when the other side has given up; others at once. */
static void serve_out_of_time(struct peer *p)
{
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    while (open && !h.gone) {
        for (rq = h.first; rq; rq = h.first) {
            bool early = str_starts(rq->path, STR("/early")), late = str_is(rq->path, "/late");
            bool waits = str_is(rq->path, "/early");
            unsigned resets = h.n_resets;
            int32_t id = rq->id;

            if (late ? !rq->reset : !early && !rq->whole)
                break;
            CHECK(!late || rq->reset_code == NGHTTP2_CANCEL);
            rq->reset = false;
            CHECK(!early || !rq->whole);
            h2_head(&h, id, 0, early ? STR(":status: 413") : STR(":status: 200"));
            h2_data(&h, rq, STR("no"), true);
            if (str_is(rq->path, "/early/reset"))
                h2_frame_u32(&h, NGHTTP2_RST_STREAM, id, NGHTTP2_NO_ERROR);
            h2_forget(&h, rq);
            while (waits && h.n_resets == resets)       /* nobody wants the rest of the request */
                CHECK(h2_read(&h) && h.reset_code == NGHTTP2_NO_ERROR);
            h.reset_code = NGHTTP2_NO_ERROR;
        }
        h2_read(&h);
    }
    CHECK(h.goaway && h.goaway_code == NGHTTP2_NO_ERROR);
    h2_close(&h);
}

static void out_of_time_body(struct bed *b)
{
    static char large[200 * 1000];
    static const char *const paths[] = { "/early", "/early/reset", "/" };
    struct fetch_request req;
    struct caller c;

    for (int round = 0; round < 4; round++) {
        for (unsigned i = 0; i < ARRAY_LEN(paths); i++) {
            req = bed_request(b, "POST", paths[i]);
            req.body = str_n(large, sizeof(large));
            CHECK_ERR(await_bed(b, &req), OK);
            CHECK(b->reply.status == (i < 2 ? 413 : 200) && str_is(b->reply.body, "no"));
        }
        req = bed_request(b, "POST", "/late");
        caller_start(&c, b, &req);
        AWAIT(atomic_load(&b->up->requests) == 2U * (unsigned)round + 2);
        task_cancel(task_deref(c.task));
        await_caller(&c);
        CHECK(c.e == E_OUTCOME_UNKNOWN && c.sent == FETCH_SENT);
    }
    CHECK_ERR(await_post(b, "/", "behind the last late answer"), OK);
    CHECK(atomic_load(&b->up->accepted) == 1);
}

static void test_out_of_time(void **state)
{
    bed_run(PEER_HTTP2, serve_out_of_time, NULL, NULL, out_of_time_body);
}

/* ---- stuck ------------------------------------------------------------------------------------------------------- */

/* The first connection stops reading within a large request, after a word that it lives. */
static void serve_stuck(struct peer *p)
{
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open_small(&h, p);

    if (open && p->index == 0) {
        while (!h.first || h.first->body.len == 0)
            CHECK(h2_read(&h));
        h2_frame(&h, NGHTTP2_PING, 0, 0, "01234567", 8);
        atomic_store(&p->up->now, 1);
        sem_wait(p->up->arg);
    }
    while (open && (rq = h2_next(&h)))
        h2_answer(&h, rq, p->index ? STR("new") : STR("old"));
    h2_close(&h);
}

/* Whether the large request or one behind it is given up: what comes next goes elsewhere. */
static void await_stuck(struct bed *b, ns_t patience)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    size_t n = 16 << 20;
    struct caller c;
    enum err e;

    req.body = (struct str){ calloc(1, n), n };
    req.deadline = loop_now() + patience;
    caller_start(&c, b, &req);
    AWAIT(atomic_load(&b->up->now) == 1);
    if (patience == NS_PER_S) {
        await_callers(&c, 1);
        CHECK(c.e == E_OUTCOME_UNKNOWN && c.sent == FETCH_SENT);
    } else {
        req = bed_request(b, "GET", "/");
        req.deadline = loop_now() + 300 * NS_PER_MS;
        e = await_bed(b, &req);         /* the second: most unlikely, there was still room for it to leave */
        CHECK(e == E_DEADLINE || e == E_OUTCOME_UNKNOWN);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_ERR(await_get(b, "/"), OK);
        CHECK(str_is(b->reply.body, "new") && b->reply.reused == i && atomic_load(&b->up->accepted) == 2);
    }
    sem_post(b->arg);
    await_callers(&c, 1);
    CHECK(patience == NS_PER_S || (c.e == OK && str_is(c.reply.body, "old")));
    free((void *)(uintptr_t)c.req.body.p);
    await_callers_gone(&c, 1);
}

static void stuck_body(struct bed *b)   { await_stuck(b, NS_PER_S); }
static void behind_body(struct bed *b)  { await_stuck(b, 20 * NS_PER_S); }

/* The first two connections take one request each: the peer says so after its answer, or before it. */
static void serve_no_more(struct peer *p)
{
    struct h2_request *rq;
    struct h2 h;
    bool open = h2_open(&h, p, 0, 0);

    while (open && (rq = h2_next(&h))) {
        if (p->index == 1)
            h2_setting(&h, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0);
        h2_answer(&h, rq, STR("x"));
        if (p->index == 0) {
            sem_wait(p->up->arg);
            h2_setting(&h, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0);
        }
    }
    CHECK(h.goaway && h.goaway_code == NGHTTP2_NO_ERROR);
    h2_close(&h);
}

static void no_more_body(struct bed *b)
{
    CHECK_ERR(await_post(b, "/", "x"), OK);
    sem_post(b->arg);
    AWAIT(metric_sum(M_FETCH_CONNECTIONS) == 0);
    CHECK_ERR(await_post(b, "/", "x"), OK);
    CHECK(!b->reply.reused && metric_sum(M_FETCH_CONNECTIONS) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK_ERR(await_post(b, "/", "x"), OK);
        CHECK(b->reply.reused == i);
    }
    CHECK(atomic_load(&b->up->accepted) == 3);
}

static void test_stuck(void **state)
{
    sem_t gate;

    sem_init(&gate, 0, 0);
    bed_run(PEER_HTTP2, serve_stuck, &gate, NULL, stuck_body);
    bed_run(PEER_HTTP2, serve_stuck, &gate, NULL, behind_body);
    bed_run(PEER_HTTP2, serve_no_more, &gate, NULL, no_more_body);
    sem_destroy(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goaway),      cmocka_unit_test(test_gone),
        cmocka_unit_test(test_out_of_time), cmocka_unit_test(test_stuck),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
