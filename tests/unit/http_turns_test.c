/* http_turns_test.c -- what a connection does from one request to the next: bodies, answers, deadlines */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "http_server_test.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static const struct http_server_options defaults;

/* Bodies that come with their head and such that do not quite; answers that are handed over, and such whose head has no
 * room in front or which stand behind others. */
static void bodies_together(void **state)
{
    static const size_t sizes[] = { 0, 1, 4095, 4096, 4097, 70000 }, fields[] = { 0, 300, 420, 600, 1000 };
    static char body[70001];
    struct fixture f;
    struct client c;
    struct answer a;
    struct buf b = BUF_INIT(1 << 24);

    memset(body, 'b', sizeof(body) - 1);
    server_start(&f, &defaults);
    client_open(&c, &f);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        for (size_t k = 0; k < ARRAY_LEN(fields); k++) {
            const char *expected = body + sizeof(body) - 1 - sizes[i];

            buf_clear(&b);
            buf_addf(&b, "POST /over?%zu HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s", fields[k], sizes[i],
                     expected);
            buf_add(&b, "", 1);
            assert_int_equal(ask(&c, b.p, expected), 200);
        }
    assert_int_equal(ask(&c, "HEAD /over?0 HTTP/1.1\r\nHost: a\r\n\r\n", ""), 200);
    buf_clear(&b);
    for (int i = 0; i < 100; i++)
        buf_addf(&b, "POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", i % 2 ? "echo" : "over?7", i * 50,
                 body + sizeof(body) - 1 - i * 50);
    client_send(&c, buf_str(&b));
    for (size_t i = 0; i < 100; i++) {
        assert_true(client_answer(&c, false, &a));
        assert_true(a.complete);
        assert_int_equal(a.body.len, i * 50);
        assert_string_equal(a.type, i % 2 ? "" : "text/plain");
        answer_release(&a);
    }
    buf_release(&b);
    client_close(&c);
    assert_int_equal(f.bad, 0);
    server_stop(&f);
}

/* What a deadline of before has left behind neither ends the connection nor makes the next one late. */
static void deadlines_of_later_requests(void **state)
{
    struct http_server_options opt = { .head_timeout = 100 * NS_PER_MS, .idle_timeout = 60 * NS_PER_S };
    struct fixture f;
    struct client c;
    struct answer a;

    server_start(&f, &opt);
    client_open(&c, &f);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ask(&c, GET("/echo"), ""), 200);
        usleep(250000);             /* the time itself: idle for longer than a head may take */
    }
    client_send(&c, STR("GET / HTTP/1.1\r\nHost:"));
    assert_true(client_answer(&c, false, &a));
    assert_int_equal(a.status, 408);
    assert_int_equal(f.last_fault, HTTP_FAULT_SLOW_HEAD);
    answer_release(&a);
    client_close(&c);
    server_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_together),
        cmocka_unit_test(deadlines_of_later_requests),
    };

    /* a failed test leaves its server running on a stack that is gone: no test after it could be believed */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
