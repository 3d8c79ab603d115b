/*
 * fetch_http2_pool_test.c -- HTTP/2: who shares which connection, providers that do not speak it, idle ones, draining
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fetch_bed.h"
#include "fetch_h2.h"

/* ---- sharing ----------------------------------------------------------------------------------------------------- */

static void tenants_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/hold");
    struct h2_script *s = b->arg;
    struct caller c[20];

    req.body = STR("{}");
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        req.tenant = i % 2 ? STR("zeta") : STR("acme");
        caller_start(&c[i], b, &req);
    }
    AWAIT(atomic_load(&b->up->requests) == ARRAY_LEN(c));
    h2_script_open(s);
    await_callers(c, ARRAY_LEN(c));
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        CHECK_ERR(c[i].e, OK);
        CHECK(c[i].reply.status == 200 && str_eq(c[i].reply.body, c[i % 2].reply.body));
        CHECK(c[i].reply.reused == (i >= 2));
    }
    CHECK(!str_eq(c[0].reply.body, c[1].reply.body));
    CHECK(atomic_load(&b->up->accepted) == 2);
    await_callers_gone(c, ARRAY_LEN(c));
}

static void crowd_body(struct bed *b)
{
    enum { N = 250 };
    static struct caller c[N];
    struct fetch_request req = bed_request(b, "POST", "/hold");
    struct h2_script *s = b->arg;

    callers_start(c, N, b, &req);
    AWAIT(atomic_load(&b->up->requests) == N);
    h2_script_open(s);
    await_callers_fine(c, N);
    CHECK(atomic_load(&s->most) <= 100 && atomic_load(&b->up->accepted) >= 3 && atomic_load(&b->up->accepted) <= 5);
}

/* Who is too many for one that is known to allow two takes another connection. */
static void few_streams_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/hold");
    struct h2_script *s = b->arg;
    struct caller c[3];

    CHECK_ERR(await_get(b, "/"), OK);
    callers_start(c, ARRAY_LEN(c), b, &req);
    AWAIT(atomic_load(&b->up->requests) == 1 + ARRAY_LEN(c));
    h2_script_open(s);
    await_callers_fine(c, ARRAY_LEN(c));
    CHECK(atomic_load(&s->most) == 2 && atomic_load(&b->up->accepted) == 2);
}

/* What one connection of the origin has said is not forgotten while the next one's SETTINGS are on their way. */
static void burst_body(struct bed *b)
{
    struct fetch_request hold = bed_request(b, "POST", "/hold"), req = bed_request(b, "POST", "/");
    struct h2_script *s = b->arg;
    struct caller c[2], more[8];

    CHECK_ERR(await_get(b, "/"), OK);
    callers_start(c, ARRAY_LEN(c), b, &hold);
    AWAIT(atomic_load(&b->up->requests) == 1 + ARRAY_LEN(c));
    atomic_store(&s->late, true);
    callers_start(more, ARRAY_LEN(more), b, &req);
    await_callers_fine(more, ARRAY_LEN(more));
    h2_script_open(s);
    await_callers_gone(c, ARRAY_LEN(c));
    CHECK(atomic_load(&s->most) == 2);
}

/* On the only connection there may be: in line. */
static void in_line_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct h2_script *s = b->arg;
    struct caller c[10];

    CHECK_ERR(await_get(b, "/"), OK);
    callers_start(c, ARRAY_LEN(c), b, &req);
    await_callers(c, ARRAY_LEN(c));
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        CHECK(c[i].e == OK && c[i].reply.reused && (s->streams_max > 1 || c[i].order == c[0].order + i));
    await_callers_gone(c, ARRAY_LEN(c));
    CHECK(atomic_load(&s->most) == s->streams_max && atomic_load(&b->up->accepted) == 1);
}

static void test_sharing(void **state)
{
    struct fetch_options opt = { .per_origin_max = 1 };

    h2_run(0, NULL, tenants_body);
    h2_run(0, NULL, crowd_body);
    h2_run(1, &opt, in_line_body);
    h2_run(2, &opt, in_line_body);
    h2_run(2, NULL, few_streams_body);
}

static void test_burst(void **state)
{
    h2_run(2, NULL, burst_body);
}

/* Waits until 20 are there: each has a connection. */
static void serve_http1(struct peer *p)
{
    const unsigned char *name;
    unsigned len;

    SSL_get0_alpn_selected(p->ssl, &name, &len);
    CHECK(p->up->speaks == PEER_HTTP2 ? len == 0 : len == 8 && memcmp(name, "http/1.1", 8) == 0);
    CHECK(peer_request(p) && str_is(p->method, "POST"));
    sem_wait(p->up->arg);
    peer_reply(p, "one");
    peer_until_closed(p);
}

static void http1_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct caller c[20];

    callers_start(c, ARRAY_LEN(c), b, &req);
    AWAIT(atomic_load(&b->up->requests) == ARRAY_LEN(c));
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        sem_post(b->arg);
    await_callers(c, ARRAY_LEN(c));
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        CHECK(c[i].e == OK && str_is(c[i].reply.body, "one"));
    await_callers_gone(c, ARRAY_LEN(c));
    CHECK(atomic_load(&b->up->accepted) == ARRAY_LEN(c));
}

static void test_http1(void **state)
{
    struct fetch_options opt = { .http2 = FETCH_HTTP2_ALWAYS };
    sem_t gate;

    sem_init(&gate, 0, 0);
    bed_run(PEER_TLS, serve_http1, &gate, NULL, http1_body);
    bed_run(PEER_TLS, serve_http1, &gate, &opt, http1_body);
    opt.http2 = FETCH_HTTP2_NEVER;
    bed_run(PEER_TLS, serve_http1, &gate, &opt, http1_body);
    bed_run(PEER_HTTP2, serve_http1, &gate, &opt, http1_body);  /* it would, but that was not offered */
    sem_destroy(&gate);
}

/* What the connection was opened for; all of it held until the gate opens. */
static void serve_either(struct peer *p)
{
    const struct h2_script *s = p->up->arg;
    struct pollfd gate = { s->gate, POLLIN, 0 };
    const unsigned char *name;
    unsigned len;

    SSL_get0_alpn_selected(p->ssl, &name, &len);
    if (len == 2) {
        h2_serve(p);
        return;
    }
    while (peer_request(p)) {
        poll(&gate, 1, -1);
        peer_reply(p, "one");
    }
}

static void first_http1_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/hold");
    struct h2_script *s = b->arg;
    struct caller c[30];
    unsigned n = 0;

    callers_start(c, ARRAY_LEN(c), b, &req);
    AWAIT(atomic_load(&b->up->requests) == ARRAY_LEN(c));
    h2_script_open(s);
    await_callers(c, ARRAY_LEN(c));
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        CHECK_ERR(c[i].e, OK);
        n += str_is(c[i].reply.body, "one");
    }
    await_callers_gone(c, ARRAY_LEN(c));
    CHECK(n == FETCH_HTTP1_FIRST && atomic_load(&b->up->accepted) == FETCH_HTTP1_FIRST + 1);
    CHECK(atomic_load(&s->most) == ARRAY_LEN(c) - FETCH_HTTP1_FIRST);
}

static void shared_body(struct bed *b)
{
    struct fetch_options opt = b->opt;

    opt.http2 = FETCH_HTTP2_SHARED;
    bed_with(b, &opt, first_http1_body);
}

static void test_http1_first(void **state)
{
    struct h2_script s = { .gate = eventfd(0, EFD_CLOEXEC) };

    bed_run(PEER_HTTP2, serve_either, &s, NULL, shared_body);
    close(s.gate);
}

/* ---- connections that do not come about -------------------------------------------------------------------------- */

/* Nobody shakes hands here: they wait for the first of them, and then all at once for their own. */
static void no_hands_body(struct bed *b)
{
    struct fetch_request req;
    struct caller c[40];

    b->origin.tls = true;
    req = bed_request(b, "POST", "/");
    req.deadline = loop_now() + 20 * b->opt.connect_timeout;
    callers_start(c, ARRAY_LEN(c), b, &req);
    await_callers(c, ARRAY_LEN(c));
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        CHECK_ERR(c[i].e, E_UPSTREAM_DOWN);
    await_callers_gone(c, ARRAY_LEN(c));
}

/* Says nothing on its first connection, not even SETTINGS. */
static void serve_mute(struct peer *p)
{
    char preface[24], payload[H2_FRAME_MAX];
    uint8_t head[9];
    struct h2_request *rq;
    struct h2 h;

    if (p->index == 0) {
        CHECK(peer_bytes(p, preface, sizeof(preface)));
        do
            CHECK(peer_bytes(p, head, sizeof(head)) && peer_bytes(p, payload, (size_t)head[1] << 8 | head[2]));
        while (head[3] != NGHTTP2_HEADERS);
        atomic_store(&p->up->now, 1);
        peer_until_closed(p);
        return;
    }
    if (h2_open(&h, p, 0, 0))
        while ((rq = h2_next(&h)))
            h2_answer(&h, rq, STR("x"));
    h2_close(&h);
}

static void await_mute(struct bed *b, bool cancel_first)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct caller first, c[10];

    caller_start(&first, b, &req);
    callers_start(c, ARRAY_LEN(c), b, &req);
    AWAIT(atomic_load(&b->up->now) == 1);
    if (cancel_first)
        task_cancel(task_deref(first.task));
    await_callers_fine(c, ARRAY_LEN(c));
    CHECK(first.done.fired == cancel_first);
    if (!cancel_first)
        task_cancel(task_deref(first.task));
    await_caller(&first);
    CHECK(first.e == E_OUTCOME_UNKNOWN && first.sent == FETCH_SENT);
    CHECK(atomic_load(&b->up->requests) == ARRAY_LEN(c));
}

/* The others do not wait for a word any longer than for a connection. */
static void mute_body(struct bed *b)            { await_mute(b, false); }
/* Nor is one of them given the connection of who did not want to wait. */
static void mute_cancel_body(struct bed *b)     { await_mute(b, true); }

static void test_not_coming(void **state)
{
    struct fetch_options opt = { .connect_timeout = 300 * NS_PER_MS, .http2 = FETCH_HTTP2_ALWAYS };

    bed_run(PEER_PLAIN, peer_until_closed, NULL, &opt, no_hands_body);
    opt.connect_timeout = 2 * NS_PER_S; /* those who open their own do so all at once */
    bed_run(PEER_HTTP2, serve_mute, NULL, &opt, mute_body);
    bed_run(PEER_HTTP2, serve_mute, NULL, NULL, mute_cancel_body);
}

/* ---- idle, draining ---------------------------------------------------------------------------------------------- */

static void idle_body(struct bed *b)
{
    struct h2_script *s = b->arg;
    ns_t from = loop_now();

    CHECK_ERR(await_get(b, "/"), OK);
    AWAIT(atomic_load(&s->ended) == 1);
    CHECK(loop_now() - from >= b->opt.idle_timeout && atomic_load(&s->goaways) == 1);
    CHECK_ERR(await_get(b, "/"), OK);
    CHECK(!b->reply.reused && str_is(b->reply.body, "1"));
}

static void idle_max_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "GET", "/");
    struct h2_script *s = b->arg;

    for (unsigned i = 0; i < 3; i++) {
        req.tenant = i % 2 ? STR("zeta") : STR("acme");
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(!b->reply.reused && metric_sum(M_FETCH_CONNECTIONS) == 1);
        AWAIT(atomic_load(&s->ended) == i);
        CHECK(atomic_load(&s->goaways) == i);
    }
}

static void drain_body(struct bed *b)
{
    struct fetch_request hold = bed_request(b, "POST", "/hold");
    struct h2_script *s = b->arg;
    struct caller c[3], line;

    CHECK_ERR(await_get(b, "/"), OK);
    callers_start(c, ARRAY_LEN(c), b, &hold);
    AWAIT(atomic_load(&b->up->requests) == 4);
    caller_start(&line, b, &hold);
    await_turn();
    fetch_drain(b->f);
    await_caller(&line);
    CHECK(line.e == E_DRAINING && line.sent == FETCH_NOT_SENT);
    CHECK_ERR(await_get(b, "/"), E_DRAINING);
    CHECK(atomic_load(&s->ended) == 0 && metric_sum(M_FETCH_CONNECTIONS) == 1);
    h2_script_open(s);
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        await_caller(&c[i]);
        CHECK_ERR(c[i].e, OK);
    }
    CHECK(metric_sum(M_FETCH_CONNECTIONS) == 0);
    AWAIT(atomic_load(&s->ended) == 1);
    CHECK(atomic_load(&s->goaways) == 1 && atomic_load(&s->resets) == 0 && atomic_load(&b->up->requests) == 4);
}

static void test_idle(void **state)
{
    struct fetch_options opt = { .idle_timeout = 300 * NS_PER_MS };

    h2_run(0, &opt, idle_body);
    opt = (struct fetch_options){ .idle_max = 1 };
    h2_run(0, &opt, idle_max_body);
}

static void test_drain(void **state)
{
    struct fetch_options opt = { .per_origin_max = 1 };

    h2_run(3, &opt, drain_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharing), cmocka_unit_test(test_http1), cmocka_unit_test(test_http1_first),
        cmocka_unit_test(test_idle),    cmocka_unit_test(test_drain), cmocka_unit_test(test_burst),
        cmocka_unit_test(test_not_coming),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
