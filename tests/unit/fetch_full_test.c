/*
 * fetch_full_test.c -- full libcurl transfers: what they put on the wire
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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_mirror) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
