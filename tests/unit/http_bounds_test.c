/*
 * http_bounds_test.c -- what all connections of a server share is bounded: their number, and the memory of their bodies
 */
#include <stdlib.h>
#include <string.h>

#include "http_server_test.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static void release(struct fixture *f)
{
    wake_fire(&f->release);
}

static void connection_limit(void **state)
{
    struct http_server_options opt = { .connections_max = 1 };
    struct fixture f;
    struct client a, b, c;

    server_start(&f, &opt);
    client_open(&a, &f);
    assert_int_equal(ask(&a, GET("/echo"), ""), 200);
    client_open(&b, &f);            /* takes the place of the idle one */
    client_send(&b, STR(GET("/slow")));
    assert_true(client_at_end(&a));
    await_event(&f.event);
    client_open(&c, &f);            /* nobody is idle: this one goes */
    assert_true(client_at_end(&c));
    on_loop(&f, release);
    assert_int_equal(ask(&b, "", "released"), 200);
    client_close(&a);
    client_close(&b);
    client_close(&c);
    server_stop(&f);
}

/* A request with `n` bytes of body. */
static void post(struct client *c, const char *path, size_t n)
{
    struct buf b = BUF_INIT(4 << 20);

    buf_addf(&b, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", path, n);
    memset(buf_reserve(&b, n), 'x', n);
    b.len += n;
    client_send(c, buf_str(&b));
    buf_release(&b);
}

static void bodies_together_are_bounded(void **state)
{
    struct http_server_options opt = { .bodies_max = 1 << 20 };
    struct fixture f;
    struct client large, second, small;
    struct answer a;

    server_start(&f, &opt);
    client_open(&large, &f);
    client_open(&second, &f);
    client_open(&small, &f);
    post(&large, "/slow", 700000);
    await_event(&f.event);                      /* held, until it is answered */
    post(&second, "/echo", 700000);
    assert_true(client_answer(&second, false, &a));
    assert_int_equal(a.status, 503);
    assert_int_equal(f.last_fault, HTTP_FAULT_OVERLOADED);
    assert_true(client_at_end(&second));
    answer_release(&a);
    for (int i = 0; i < 20; i++) {              /* who sends little is served all the same */
        post(&small, "/echo", 60000);
        assert_true(client_answer(&small, false, &a));
        assert_int_equal(a.status, 200);
        answer_release(&a);
    }
    on_loop(&f, release);
    assert_int_equal(ask(&large, "", "released"), 200);
    post(&small, "/echo", 700000);
    assert_true(client_answer(&small, false, &a));
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.len, 700000);
    answer_release(&a);
    client_close(&second);
    client_open(&second, &f);                   /* cut off: at the end nothing is counted, asserts server.c */
    client_send(&second, STR("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n"));
    client_send(&second, str_n((char[600000]){ 0 }, 600000));
    client_close(&second);
    client_close(&large);
    client_close(&small);
    server_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connection_limit),
        cmocka_unit_test(bodies_together_are_bounded),
    };

    /* a failed test leaves its server running on a stack that is gone: no test after it could be believed */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
