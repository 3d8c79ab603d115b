/*
 * fetch_full_test.c -- full libcurl transfers: what they put on the wire, HTTP/2
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fetch_bed.h"

static void serve_mirror(struct peer *p)
{
    while (peer_request(p)) {
        char head[300];
        struct str type = STR("none"), accept = STR("none"), one = STR("none"), auth = STR("none");
        int n;

        peer_field(p, "content-type", &type);
        peer_field(p, "accept", &accept);
        peer_field(p, "x-empty", &one);
        peer_field(p, "authorization", &auth);
        n = snprintf(head, sizeof(head),
                     "HTTP/1.1 200 OK\r\nX-Seen: %.*s %.*s %.*s [%.*s] %.*s\r\nContent-Length: %zu\r\n\r\n",
                     STR_ARG(p->method), STR_ARG(type), STR_ARG(accept), STR_ARG(one), STR_ARG(auth), p->body.len);
        if (!peer_send(p, head, (size_t)n) || (!str_is(p->method, "HEAD") && !peer_send(p, p->body.p, p->body.len)))
            return;
    }
}

static void mirror_body(struct bed *b)
{
    static char big[150 * 1000];
    struct fetch_header headers[] = { { STR("X-Empty"), STR(""), NULL },
                                      { STR("Content-Type"), STR("application/json"), NULL } };
    struct secret *token = secret_copy("tok", 3);
    unsigned flags = (unsigned)(uintptr_t)b->arg;

    for (int i = 0; i < 2; i++) {
        struct fetch_request req = bed_request(b, "POST", "/a/../b?x");
        struct str seen;

        req.flags = flags;
        req.headers = headers;
        req.n_headers = 2;
        req.body = STR("{}");
        req.bearer = token;
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(str_is(b->reply.body, "{}") && fetch_reply_header(&b->reply, "X-Seen", &seen));
        CHECK(str_is(seen, "POST application/json none [] Bearer tok"));
        memset(big, 'b', sizeof(big));
        req = bed_request(b, "PATCH", "/");
        req.flags = flags;
        req.body = str_n(big, sizeof(big));
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(str_eq(b->reply.body, req.body) && b->reply.reused);
        CHECK(fetch_reply_header(&b->reply, "x-seen", &seen) && str_is(seen, "PATCH none none [none] none"));
        req = bed_request(b, "HEAD", "/");
        req.flags = flags;
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(fetch_reply_header(&b->reply, "x-seen", &seen) && str_is(seen, "HEAD none none [none] none"));
        req = bed_request(b, "DELETE", "/");
        req.flags = flags;
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(fetch_reply_header(&b->reply, "x-seen", &seen) && str_starts(seen, STR("DELETE ")));
        req = bed_request(b, "PUT", "/");
        req.flags = flags;
        req.reply_max = 10;
        req.body = str_n(big, 11);
        CHECK_ERR(await_bed(b, &req), E_UPSTREAM_TOO_LARGE);
        CHECK(b->sent == FETCH_ANSWERED && b->reply.status == 200);
    }
    secret_release(token);
}

static void test_mirror(void **state)
{
    bed_run(false, serve_mirror, (void *)0, NULL, mirror_body);
    bed_run(false, serve_mirror, (void *)FETCH_FULL, NULL, mirror_body);
    bed_run(true, serve_mirror, (void *)FETCH_FULL, NULL, mirror_body);
}

/* Just enough HTTP/2 (RFC 9113): answers every stream with 200 and the connection's number; closes without a word at
 * the request that `arg` counts down to. Served streams are counted as requests. */
static bool h2_frame(struct peer *p, uint8_t type, uint8_t flags, const uint8_t stream[4], const char *bytes, uint8_t n)
{
    uint8_t frame[9 + 16] = { 0, 0, n, type, flags, stream[0] & 0x7f, stream[1], stream[2], stream[3] };

    memcpy(frame + 9, bytes, n);
    return peer_send(p, frame, 9 + (size_t)n);
}

static void serve_h2(struct peer *p)
{
    enum { DATA, HEADERS, SETTINGS = 4, PING = 6, END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
    static const uint8_t none[4];
    uint8_t head[9], body[16384];
    char text[8];

    snprintf(text, sizeof(text), "%u", p->index);
    if (!peer_bytes(p, body, 24) || memcmp(body, "PRI * HTTP/2.0", 14) != 0 || !h2_frame(p, SETTINGS, 0, none, "", 0))
        return;
    while (peer_bytes(p, head, 9)) {
        size_t n = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];

        CHECK(n <= sizeof(body));
        if (!peer_bytes(p, body, n))
            return;
        if (head[3] == SETTINGS && !(head[4] & ACK))
            h2_frame(p, SETTINGS, ACK, none, "", 0);
        else if (head[3] == PING && !(head[4] & ACK))
            h2_frame(p, PING, ACK, none, (char *)body, 8);
        if ((head[3] != HEADERS && head[3] != DATA) || !(head[4] & END_STREAM))
            continue;
        if (atomic_fetch_add(&p->up->requests, 1) + 1 == (unsigned)(uintptr_t)p->up->arg)
            return;
        h2_frame(p, HEADERS, END_HEADERS, head + 5, "\x88", 1);       /* ":status: 200" of the static table */
        h2_frame(p, DATA, END_STREAM, head + 5, text, (uint8_t)strlen(text));
    }
}

static void h2_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct caller c[20];

    req.flags = FETCH_HTTP2;
    req.body = STR("{}");
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        req.tenant = i % 2 ? STR("zeta") : STR("acme");
        caller_start(&c[i], b, &req);
    }
    for (unsigned i = 0; i < ARRAY_LEN(c); i++) {
        CHECK_ERR(await_wake(&c[i].done, NS_NEVER), OK);
        CHECK_ERR(c[i].e, OK);
        CHECK(c[i].reply.status == 200 && c[i].reply.body.len == 1 && c[i].reply.body.p[0] == c[i % 2].reply.body.p[0]);
    }
    CHECK(c[0].reply.body.p[0] != c[1].reply.body.p[0]); /* one connection for each tenant, shared by its streams */
    for (unsigned i = 0; i < ARRAY_LEN(c); i++)
        await_caller(&c[i]);
    CHECK(atomic_load(&b->up->accepted) == 2 && atomic_load(&b->up->requests) == 20);
}

static void h2_dies_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");

    req.flags = FETCH_HTTP2;
    CHECK_ERR(await_bed(b, &req), OK);
    CHECK_ERR(await_bed(b, &req), E_OUTCOME_UNKNOWN);
    CHECK(b->sent == FETCH_SENT && atomic_load(&b->up->requests) == 2);
    CHECK_ERR(await_bed(b, &req), OK);
}

static void test_h2(void **state)
{
    bed_run(true, serve_h2, NULL, NULL, h2_body);
    bed_run(true, serve_h2, (void *)2, NULL, h2_dies_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_mirror), cmocka_unit_test(test_h2) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
