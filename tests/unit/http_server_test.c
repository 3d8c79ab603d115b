/*
 * The server over plain TCP, told from the client's side: a real server on a loop thread, blocking sockets here.
 * Nothing sleeps: every wait is for an answer, the end of a connection or an event of the handler.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/metric.h"
#include "http_server_test.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST_CHUNKED "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

static const struct http_server_options defaults;

/* ---- requests and replies ---------------------------------------------------------------------------------------- */

static void keep_alive(void **state)
{
    struct fixture f;
    struct client c;

    server_start(&f, &defaults);
    client_open(&c, &f);
    assert_int_equal(ask(&c, GET("/what?a=b&c"), "GET q=a=b&c x-test=0:"), 200);
    assert_int_equal(ask(&c, "PUT /what HTTP/1.1\r\nHost: a\r\nX-Test: 1\r\nx-test: 2\r\n\r\n",
                         "PUT q= x-test=2:1"), 200);
    assert_int_equal(ask(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"), 200);
    assert_int_equal(ask(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", ""), 200);
    assert_int_equal(ask(&c, GET("/nowhere"), "no such path"), 404);
    assert_int_equal(ask(&c, "HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n", ""), 200);
    assert_int_equal(ask(&c, "HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n", ""), 200);
    assert_int_equal(ask(&c, GET("/odd"), ""), 204);
    assert_int_equal(ask(&c, GET("/none"), ""), 500);
    assert_int_equal(ask(&c, "GET http://a/what HTTP/1.1\r\nHost: a\r\n\r\n", "GET q= x-test=0:"), 200);
    assert_int_equal(f.handled, 10);
    assert_int_equal(f.bad, 0);
    client_close(&c);
    server_stop(&f);
}

static void connection_close(void **state)
{
    static const char *const closing[] = {
        "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /echo HTTP/1.0\r\n\r\n",
        "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",       /* its end is the end of the connection */
    };
    struct fixture f;
    struct client c;
    struct answer a;

    server_start(&f, &defaults);
    for (size_t i = 0; i < ARRAY_LEN(closing); i++) {
        client_open(&c, &f);
        client_send(&c, str_of(closing[i]));
        client_send(&c, STR(GET("/echo")));
        assert_true(client_answer(&c, false, &a));
        assert_true(a.complete && a.closes);
        assert_int_equal(a.status, 200);
        assert_true(str_is(buf_str(&a.body), i == 2 ? "abbccc" : ""));
        assert_true(client_at_end(&c));
        answer_release(&a);
        client_close(&c);
    }
    client_open(&c, &f);
    assert_int_equal(ask(&c, "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", ""), 200);
    assert_int_equal(ask(&c, "GET /echo HTTP/1.0\r\n\r\n", ""), 200);
    assert_true(client_at_end(&c));
    client_close(&c);
    assert_int_equal(f.bad, 0);
    server_stop(&f);
}

static void requests_limit(void **state)
{
    struct http_server_options opt = { .requests_max = 2 };
    struct fixture f;
    struct client c;

    server_start(&f, &opt);
    client_open(&c, &f);
    assert_int_equal(ask(&c, GET("/echo"), ""), 200);
    assert_int_equal(ask(&c, GET("/echo"), ""), 200);
    assert_true(client_at_end(&c));
    client_close(&c);
    server_stop(&f);
}

static void byte_at_a_time(void **state)
{
    static const char text[] = "POST /echo?x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nT: x\r\n\r\n"
                               "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nend";
    struct fixture f;
    struct client c;
    struct answer a;
    int one = 1;

    server_start(&f, &defaults);
    client_open(&c, &f);
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    for (size_t i = 0; i < sizeof(text) - 1; i++)
        client_send(&c, str_n(text + i, 1));
    assert_true(client_answer(&c, false, &a));
    assert_true(str_is(buf_str(&a.body), "hello!"));
    answer_release(&a);
    assert_int_equal(ask(&c, "", "end"), 200);
    client_close(&c);
    server_stop(&f);
}

static void pipelining(void **state)
{
    struct fixture f;
    struct client c;
    struct buf b = BUF_INIT(1 << 20);
    char text[128];

    server_start(&f, &defaults);
    client_open(&c, &f);
    for (int i = 0; i < 200; i++)
        buf_addf(&b, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n%04d", i);
    client_send(&c, buf_str(&b));
    for (int i = 0; i < 200; i++) {
        snprintf(text, sizeof(text), "%04d", i);
        assert_int_equal(ask(&c, "", text), 200);
    }
    client_close(&c);
    buf_release(&b);
    server_stop(&f);
}

static void release(struct fixture *f)
{
    wake_fire(&f->release);
}

static void gone(struct fixture *f)
{
    f->stopped = http_server_connections(f->srv) == 0;
    ASSERT(!http_server_draining(f->srv) || http_server_idle(f->srv) == f->stopped);
}

/* While a request is handled the server stops reading: a flood of further ones stays in the client's kernel. */
static void pipelining_is_bounded(void **state)
{
    enum { ONE = 4096 };
    static char flood[ONE * 100];
    struct fixture f;
    struct client c;
    struct pollfd p = { .events = POLLOUT };
    size_t sent = 0;

    server_start(&f, &defaults);
    client_open(&c, &f);
    memset(flood, 'x', sizeof(flood));
    for (size_t i = 0; i < sizeof(flood); i += ONE) {
        int n = snprintf(flood + i, ONE, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %04d\r\n\r\n", 0);

        flood[i + (size_t)n] = 'x';
        snprintf(flood + i, ONE, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %04d\r\n\r", ONE - n);
        flood[i + (size_t)n - 1] = '\n';
    }
    client_send(&c, STR(GET("/slow")));
    await_event(&f.event);
    p.fd = c.fd;
    /* until the socket stays full */
    while (sent < 64u << 20 && poll(&p, 1, 300) == 1) {
        size_t at = sent % sizeof(flood);
        ssize_t n = send(c.fd, flood + at, sizeof(flood) - at, MSG_NOSIGNAL | MSG_DONTWAIT);

        assert_true(n > 0);
        sent += (size_t)n;
    }
    assert_true(sent < 32u << 20);
    on_loop(&f, release);
    assert_int_equal(ask(&c, "", "released"), 200);
    for (size_t i = 0; i < sent / ONE; i++)
        assert_int_equal(ask(&c, "", NULL), 200);
    client_close(&c);
    server_stop(&f);
}

static void big_bodies(void **state)
{
    struct fixture f;
    struct client c;
    struct answer a;
    struct buf b = BUF_INIT(8 << 20);

    server_start(&f, &defaults);
    client_open(&c, &f);
    client_send(&c, STR(GET("/big")));
    assert_true(client_answer(&c, false, &a));
    assert_int_equal(a.body.len, 3000000);
    assert_int_equal(a.body.p[2999999], 'a' + 2999999 % 26);
    answer_release(&a);

    buf_add_z(&b, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n");
    for (int i = 0; i < 4000000; i++)
        buf_add_c(&b, (char)('A' + i % 26));
    client_send(&c, buf_str(&b));
    assert_true(client_answer(&c, false, &a));
    assert_int_equal(a.body.len, 4000000);
    assert_memory_equal(a.body.p, b.p + b.len - 4000000, 4000000);
    answer_release(&a);
    buf_release(&b);
    client_close(&c);
    server_stop(&f);
}

static void expect_continue(void **state)
{
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    struct fixture f;
    struct client c;

    server_start(&f, &defaults);
    client_open(&c, &f);
    assert_int_equal(ask(&c, head, ""), 100);
    assert_int_equal(ask(&c, "body", "body"), 200);
    /* a body that came along needs no invitation */
    client_send(&c, str_of(head));
    assert_int_equal(ask(&c, "b", ""), 100);
    assert_int_equal(ask(&c, "ody", "body"), 200);
    client_close(&c);
    server_stop(&f);
}

static void streams(void **state)
{
    struct fixture f;
    struct client c;
    struct answer a;

    server_start(&f, &defaults);
    client_open(&c, &f);
    assert_int_equal(ask(&c, GET("/stream"), "abbccc"), 200);
    client_send(&c, STR(GET("/sse")));
    assert_true(client_answer(&c, false, &a));
    assert_string_equal(a.type, "text/event-stream");
    assert_int_equal(a.framing.framing, HTTP_BODY_CHUNKED);
    assert_true(str_is(buf_str(&a.body), "retry: 1500\n\nevent: message\nid: 7\n"
                                         "data: one\ndata: two\ndata: three\ndata: \n\n"
                                         ":\n\ndata: \n\n"));
    answer_release(&a);
    assert_int_equal(ask(&c, GET("/stream"), "abbccc"), 200);
    /* a stream that is not ended is cut, never completed */
    client_send(&c, STR(GET("/cut")));
    assert_true(!client_answer(&c, false, &a) || !a.complete);
    assert_true(client_at_end(&c));
    answer_release(&a);
    client_close(&c);
    server_stop(&f);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

/* One bad request on a connection of its own: the status, the fault the journal is told once, the end of the
 * connection. */
static void refused(struct fixture *f, struct str request, int status, enum http_fault fault)
{
    unsigned bad = f->bad, handled = f->handled;
    struct client c;
    struct answer a;

    client_open(&c, f);
    client_send(&c, request);
    assert_true(client_answer(&c, false, &a));
    if (a.status != status || f->last_fault != (int)fault)
        fail_msg("%d %s, expected %d %s: %.*s", a.status, http_fault_name((enum http_fault)f->last_fault), status,
                 http_fault_name(fault), (int)(request.len < 300 ? request.len : 300), request.p);
    assert_true(a.complete && a.closes);
    assert_true(client_at_end(&c));
    assert_int_equal(f->bad, bad + 1);
    assert_int_equal(f->handled, handled);
    answer_release(&a);
    client_close(&c);
}

#define SMUGGLED "GET /echo HTTP/1.1\r\nHost: evil\r\n\r\n"

/* fields of a POST, and what they are refused for */
static const struct {
    const char *fields;
    enum http_fault fault;
} bad_fields[] = {
    { "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", HTTP_FAULT_LENGTH_AND_CODING },
    { "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", HTTP_FAULT_LENGTH_AND_CODING },
    { "Content-Length: 0\r\nContent-Length: 40\r\n", HTTP_FAULT_LENGTH_MANY },
    { "Content-Length: 0, 40\r\n", HTTP_FAULT_LENGTH_FORM },
    { "Content-Length: +0\r\n", HTTP_FAULT_LENGTH_FORM },
    { "Content-Length: 0x0\r\n", HTTP_FAULT_LENGTH_FORM },
    { "Content-Length : 40\r\n", HTTP_FAULT_SPACE_COLON },
    { "Content_Length: 40\r\n", HTTP_FAULT_NAME_UNDERSCORE },
    { "X: y\r\n Content-Length: 40\r\n", HTTP_FAULT_FOLD },
    { "X: y\nContent-Length: 40\r\n", HTTP_FAULT_BARE_LF },
    { "X: y\rContent-Length: 40\r\n", HTTP_FAULT_BARE_CR },
    { "Content-Length\x0b: 40\r\n", HTTP_FAULT_NAME },
    { "X: \x01\r\n", HTTP_FAULT_VALUE },
    { "Transfer-Encoding: xchunked\r\n", HTTP_FAULT_CODING },
    { "Transfer-Encoding: chunked, identity\r\n", HTTP_FAULT_CODING },
    { "Transfer-Encoding: identity, chunked\r\n", HTTP_FAULT_CODING },
    { "Transfer-Encoding: Chunked\r\n", HTTP_FAULT_CODING },
    { "Transfer-Encoding:\x0b" "chunked\r\n", HTTP_FAULT_VALUE },
    { "Transfer-Encoding : chunked\r\n", HTTP_FAULT_SPACE_COLON },
    { " Transfer-Encoding: chunked\r\n", HTTP_FAULT_FOLD },
    { "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n", HTTP_FAULT_CODING },
    { "Transfer-Encoding: \"chunked\"\r\n", HTTP_FAULT_CODING },
    { "Host: b\r\n", HTTP_FAULT_HOST_MANY },
    { "Expect: 100-continue-later\r\n", HTTP_FAULT_EXPECT },
    { "Content-Encoding: gzip\r\n", HTTP_FAULT_CONTENT_ENCODING },
};

/* whole requests */
static const struct {
    const char *text;
    enum http_fault fault;
} bad_streams[] = {
    { POST_CHUNKED "5 \r\nhello\r\n0\r\n\r\n" SMUGGLED, HTTP_FAULT_CHUNK_SIZE },
    { POST_CHUNKED "0x5\r\nhello\r\n0\r\n\r\n" SMUGGLED, HTTP_FAULT_CHUNK_SIZE },
    { POST_CHUNKED "5\nhello\r\n0\r\n\r\n" SMUGGLED, HTTP_FAULT_CHUNK_SIZE },
    { POST_CHUNKED "-5\r\nhello\r\n0\r\n\r\n" SMUGGLED, HTTP_FAULT_CHUNK_SIZE },
    { POST_CHUNKED "5;\nhello\r\n0\r\n\r\n" SMUGGLED, HTTP_FAULT_CHUNK_EXTENSION },
    { POST_CHUNKED "2\r\nxx4\r\nhello" SMUGGLED, HTTP_FAULT_CHUNK_END },
    { POST_CHUNKED "0\r\nX: y\nZ: q\r\n\r\n" SMUGGLED, HTTP_FAULT_TRAILER },
    { POST_CHUNKED "10000000000000005\r\nhello\r\n0\r\n\r\n" SMUGGLED, HTTP_FAULT_CHUNK_SIZE },
    { "GET /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 34\r\n\r\n" SMUGGLED, HTTP_FAULT_BODY_FORBIDDEN },
    { "DELETE /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED,
      HTTP_FAULT_BODY_FORBIDDEN },
    { "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED,
      HTTP_FAULT_CODING_VERSION },
    { "GET http://b/echo HTTP/1.1\r\nHost: a\r\n\r\n" SMUGGLED, HTTP_FAULT_HOST_MISMATCH },
    { "GET /echo HTTP/1.1\r\n\r\n" SMUGGLED, HTTP_FAULT_HOST_MISSING },
    { "GET /echo\r\n\r\n", HTTP_FAULT_VERSION_FORM },
    { "GET /echo HTTP/1.1\nHost: a\n\n", HTTP_FAULT_BARE_LF },
    { "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", HTTP_FAULT_TARGET_FORM },
    { "\x16\x03\x01\x02", HTTP_FAULT_METHOD },
};

static void smuggling(void **state)
{
    struct fixture f;
    struct client c;
    char text[512];

    server_start(&f, &defaults);
    for (size_t i = 0; i < ARRAY_LEN(bad_fields); i++) {
        snprintf(text, sizeof(text), "POST /echo HTTP/1.1\r\nHost: a\r\n%s\r\n" SMUGGLED, bad_fields[i].fields);
        refused(&f, str_of(text), http_fault_status(bad_fields[i].fault), bad_fields[i].fault);
        assert_true(last_bad_was(&f, STR("POST /echo HTTP/1.1\r\nHost: a\r\n"), false));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_streams); i++)
        refused(&f, str_of(bad_streams[i].text), http_fault_status(bad_streams[i].fault), bad_streams[i].fault);
    refused(&f, STR("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"), 400, HTTP_FAULT_TARGET_CHAR);
    refused(&f, STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505, HTTP_FAULT_VERSION);
    assert_int_equal(f.handled, 0);

    /* a good request before a bad one is answered; what is shown of the bad one is its own bytes */
    client_open(&c, &f);
    client_send(&c, STR(GET("/echo") "BAD\r\n\r\n"));
    assert_int_equal(ask(&c, "", ""), 200);
    assert_int_equal(ask(&c, "", NULL), 400);
    assert_true(client_at_end(&c));
    assert_int_equal(f.handled, 1);
    assert_true(last_bad_was(&f, STR("BAD\r\n\r\n"), true));
    client_close(&c);
    server_stop(&f);
}

static void limits(void **state)
{
    struct http_server_options opt = { .body_max = 1000, .head_max = 2000 };
    struct fixture f;
    struct buf b = BUF_INIT(4 << 20);

    server_start(&f, &opt);
    refused(&f, STR("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"), 413, HTTP_FAULT_BODY_LONG);
    refused(&f, STR("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"), 413,
            HTTP_FAULT_BODY_LONG);
    /* a chunked body without end: refused while it is read, and the answer arrives although more is on the way */
    buf_add_z(&b, POST_CHUNKED);
    for (int i = 0; i < 100000; i++)
        buf_add_z(&b, "a\r\n0123456789\r\n");
    refused(&f, buf_str(&b), 413, HTTP_FAULT_BODY_LONG);
    buf_clear(&b);
    buf_add_z(&b, "GET /");
    for (int i = 0; i < 10000; i++)
        buf_add_c(&b, 'a');
    refused(&f, buf_str(&b), 431, HTTP_FAULT_HEAD_LONG);
    server_stop(&f);

    server_start(&f, &defaults);
    refused(&f, buf_str(&b), 414, HTTP_FAULT_TARGET_LONG);
    buf_clear(&b);
    buf_add_z(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 64; i++)
        buf_addf(&b, "X: %d\r\n", i);
    refused(&f, buf_str(&b), 431, HTTP_FAULT_FIELDS_MANY);
    buf_release(&b);
    server_stop(&f);
}

static void cut_off(void **state)
{
    static const char *const parts[] = { "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\n",
                                         "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
                                         POST_CHUNKED "5\r\n" };
    struct linger hard = { 1, 0 };
    struct fixture f;
    struct client c;
    struct answer a;

    server_start(&f, &defaults);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        client_open(&c, &f);
        client_send(&c, str_of(parts[i]));
        shutdown(c.fd, SHUT_WR);
        assert_true(client_answer(&c, false, &a));
        assert_int_equal(a.status, 400);
        assert_int_equal(f.last_fault, HTTP_FAULT_CUT_OFF);
        assert_true(client_at_end(&c));
        answer_release(&a);
        client_close(&c);
    }
    assert_int_equal(f.bad, ARRAY_LEN(parts));
    /* the same by a reset: nobody to answer, but told all the same */
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        client_open(&c, &f);
        client_send(&c, STR(GET("/echo")));
        client_send(&c, str_of(parts[i]));
        assert_int_equal(ask(&c, "", ""), 200);
        setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
        client_close(&c);
        while (!f.stopped)
            on_loop(&f, gone);
        f.stopped = false;
        assert_int_equal(f.bad, ARRAY_LEN(parts) + i + 1);
        assert_int_equal(f.last_fault, HTTP_FAULT_CUT_OFF);
        assert_true(last_bad_was(&f, str_n(parts[i], 5), false));
    }
    /* a connection that brings nothing is no request */
    client_open(&c, &f);
    shutdown(c.fd, SHUT_WR);
    assert_true(client_at_end(&c));
    client_close(&c);
    assert_int_equal(f.bad, 2 * ARRAY_LEN(parts));
    server_stop(&f);
}

/* ---- deadlines --------------------------------------------------------------------------------------------------- */

static void slow_peers(void **state)
{
    struct http_server_options opt = { .head_timeout = 300 * NS_PER_MS, .request_timeout = 600 * NS_PER_MS,
                                       .idle_timeout = 300 * NS_PER_MS };
    struct fixture f;
    struct client c;

    server_start(&f, &opt);
    refused(&f, STR("GET / HTTP/1.1\r\nHost:"), 408, HTTP_FAULT_SLOW_HEAD);
    refused(&f, STR("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"), 408, HTTP_FAULT_SLOW_BODY);
    refused(&f, STR(POST_CHUNKED "5\r\nab"), 408, HTTP_FAULT_SLOW_BODY);
    client_open(&c, &f);            /* brings nothing at all: closed without a word */
    assert_true(client_at_end(&c));
    client_close(&c);
    client_open(&c, &f);            /* idle after a request: likewise */
    assert_int_equal(ask(&c, GET("/echo"), ""), 200);
    assert_true(client_at_end(&c));
    client_close(&c);
    assert_int_equal(f.bad, 3);
    server_stop(&f);
}

/* A byte every now and then keeps no connection: the deadline is for the whole head. */
static void slowloris(void **state)
{
    struct http_server_options opt = { .head_timeout = 150 * NS_PER_MS };
    struct fixture f;
    struct client c;
    struct answer a;
    unsigned sent = 0;

    server_start(&f, &opt);
    client_open(&c, &f);
    client_send(&c, STR("GET / HTTP/1.1\r\n"));
    while (f.bad == 0 && sent++ < 1000) {
        client_send(&c, STR("X: y\r\n"));
        usleep(10000);              /* the attack itself */
    }
    assert_true(sent < 100);
    assert_true(client_answer(&c, false, &a));
    assert_int_equal(a.status, 408);
    answer_release(&a);
    client_close(&c);
    server_stop(&f);
}

static void peer_that_does_not_read(void **state)
{
    struct http_server_options opt = { .write_timeout = 150 * NS_PER_MS };
    struct fixture f;
    struct client c;
    int small = 4096;

    server_start(&f, &opt);
    client_open(&c, &f);
    setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    client_send(&c, STR(GET("/flood")));
    await_event(&f.event);          /* the writer was told that nobody reads */
    client_close(&c);
    server_stop(&f);
}

/* ---- going away -------------------------------------------------------------------------------------------------- */

static void disconnect_cancels(void **state)
{
    struct fixture f;
    struct client c;

    server_start(&f, &defaults);
    client_open(&c, &f);
    client_send(&c, STR(GET("/slow-cancel")));
    await_event(&f.event);
    client_close(&c);
    await_event(&f.event);
    assert_int_equal(f.cancelled, 1);

    /* gone before the handler even starts: the same */
    client_open(&c, &f);
    client_send(&c, STR(GET("/slow-cancel")));
    client_close(&c);
    await_event(&f.event);
    await_event(&f.event);
    assert_int_equal(f.cancelled, 2);
    server_stop(&f);
}

static void half_close_still_gets_its_reply(void **state)
{
    struct fixture f;
    struct client c;

    server_start(&f, &defaults);
    client_open(&c, &f);
    client_send(&c, STR(GET("/slow")));
    await_event(&f.event);
    shutdown(c.fd, SHUT_WR);
    on_loop(&f, release);
    assert_int_equal(ask(&c, "", "released"), 200);
    assert_true(client_at_end(&c));
    client_close(&c);
    while (!f.stopped)
        on_loop(&f, gone);
    server_stop(&f);
}

static void reset_while_handling(void **state)
{
    struct linger hard = { 1, 0 };
    struct fixture f;
    struct client c;

    server_start(&f, &defaults);
    client_open(&c, &f);
    client_send(&c, STR(GET("/slow")));
    await_event(&f.event);
    setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    client_close(&c);
    on_loop(&f, release);
    await_event(&f.event);
    assert_int_equal(f.cancelled, 0);
    while (!f.stopped)
        on_loop(&f, gone);
    server_stop(&f);
}

static void drain(struct fixture *f)
{
    http_server_drain(f->srv);
}

static void draining(void **state)
{
    struct fixture f;
    struct client idle, busy;
    struct answer a;

    server_start(&f, &defaults);
    client_open(&idle, &f);
    client_open(&busy, &f);
    assert_int_equal(ask(&idle, GET("/echo"), ""), 200);
    client_send(&busy, STR(GET("/slow")));
    await_event(&f.event);
    on_loop(&f, drain);
    assert_true(client_at_end(&idle));
    on_loop(&f, gone);
    assert_false(f.stopped);
    on_loop(&f, release);
    assert_true(client_answer(&busy, false, &a));
    assert_true(a.complete && a.closes);
    assert_true(client_at_end(&busy));
    answer_release(&a);
    client_close(&idle);
    client_close(&busy);
    while (!f.stopped)
        on_loop(&f, gone);
    server_stop(&f);
}

/* Stopping with handlers at work cancels them, and nothing is left (the loop is destroyed at the end). */
static void stopping_cancels(void **state)
{
    struct fixture f;
    struct client c;

    server_start(&f, &defaults);
    client_open(&c, &f);
    client_send(&c, STR(GET("/slow")));
    await_event(&f.event);
    server_stop(&f);
    assert_int_equal(f.cancelled, 1);
    client_close(&c);
}

/* ---- everything at once ------------------------------------------------------------------------------------------ */

enum { STORM_CLIENTS = 8, STORM_TURNS = 120 };

struct storm {
    struct fixture *f;
    unsigned seed;
    pthread_t thread;
};

/* One connection of a client that behaves as the dice say. Answers are not looked at: what counts is that the server is
 * whole afterwards. */
static void storm_turn(struct storm *s)
{
    static const char *const texts[] = {
        GET("/echo"), GET("/big"), GET("/stream"), GET("/cut"), GET("/sse"), GET("/odd"), GET("/flood"), "BAD\r\n\r\n",
        POST_CHUNKED "3\r\nabc\r\n0\r\n\r\n", POST_CHUNKED "x",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
        "GET /echo HTTP/1.0\r\n\r\n", "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    };
    struct linger hard = { 1, 0 };
    char block[4096];
    struct client c;

    client_open(&c, s->f);
    for (unsigned i = rand_r(&s->seed) % 4 + 1; i > 0; i--) {
        struct str text = str_of(texts[(unsigned)rand_r(&s->seed) % ARRAY_LEN(texts)]);

        if (rand_r(&s->seed) % 4 == 0)
            text.len = (unsigned)rand_r(&s->seed) % (text.len + 1);
        while (text.len > 0) {
            size_t n = (unsigned)rand_r(&s->seed) % text.len + 1;

            client_send(&c, str_n(text.p, n));
            text = str_from(text, n);
        }
    }
    if (rand_r(&s->seed) % 3 == 0)
        shutdown(c.fd, SHUT_WR);
    for (unsigned i = rand_r(&s->seed) % 3; i > 0; i--)
        if (recv(c.fd, block, sizeof(block), MSG_DONTWAIT) == 0)
            break;
    if (rand_r(&s->seed) % 3 == 0)
        setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    client_close(&c);
}

static void *storm_main(void *arg)
{
    for (int i = 0; i < STORM_TURNS; i++)
        storm_turn(arg);
    return NULL;
}

static void storm(void **state)
{
    struct http_server_options opt = { .head_timeout = 50 * NS_PER_MS,
                                       .request_timeout = 50 * NS_PER_MS,
                                       .connections_max = 20,
                                       .write_timeout = 50 * NS_PER_MS,
                                       .linger_timeout = 20 * NS_PER_MS };
    struct storm clients[STORM_CLIENTS];
    struct fixture f;

    server_start(&f, &opt);
    for (unsigned i = 0; i < STORM_CLIENTS; i++) {
        clients[i] = (struct storm){ .f = &f, .seed = i + 1 };
        assert_int_equal(pthread_create(&clients[i].thread, NULL, storm_main, &clients[i]), 0);
    }
    for (unsigned i = 0; i < STORM_CLIENTS; i++)
        pthread_join(clients[i].thread, NULL);
    on_loop(&f, drain);
    while (!f.stopped)
        on_loop(&f, gone);
    server_stop(&f);
}

static void metrics(void **state)
{
    int64_t requests = metric_sum(M_HTTP_REQUESTS_TOTAL), bad = metric_sum(M_HTTP_REFUSED_TOTAL);
    struct fixture f;
    struct client c;

    server_start(&f, &defaults);
    client_open(&c, &f);
    assert_int_equal(ask(&c, GET("/echo"), ""), 200);
    assert_int_equal(metric_sum(M_HTTP_CONNECTIONS), 1);
    assert_int_equal(ask(&c, "BAD\r\n\r\n", NULL), 400);
    client_close(&c);
    assert_int_equal(metric_sum(M_HTTP_REQUESTS_TOTAL), requests + 2);
    assert_int_equal(metric_sum(M_HTTP_REFUSED_TOTAL), bad + 1);
    server_stop(&f);
    assert_int_equal(metric_sum(M_HTTP_CONNECTIONS), 0);
}

static void start_errors(void **state)
{
    struct http_tls_options tls_opt = { .cert = "/nonexistent/cert.pem", .key = "/nonexistent/key.pem" };
    struct http_tls *tls;
    struct errinfo info;

    assert_int_equal(http_tls_load(&tls_opt, &tls, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "/nonexistent/cert.pem"));
    tls_opt.key = NULL;
    assert_int_equal(http_tls_load(&tls_opt, &tls, &info), E_CONFIG);
    tls_opt = (struct http_tls_options){ .cert = "a", .key = "b", .client_cert_required = true };
    assert_int_equal(http_tls_load(&tls_opt, &tls, &info), E_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_alive),
        cmocka_unit_test(connection_close),
        cmocka_unit_test(requests_limit),
        cmocka_unit_test(byte_at_a_time),
        cmocka_unit_test(pipelining),
        cmocka_unit_test(pipelining_is_bounded),
        cmocka_unit_test(big_bodies),
        cmocka_unit_test(expect_continue),
        cmocka_unit_test(streams),
        cmocka_unit_test(smuggling),
        cmocka_unit_test(limits),
        cmocka_unit_test(cut_off),
        cmocka_unit_test(slow_peers),
        cmocka_unit_test(slowloris),
        cmocka_unit_test(peer_that_does_not_read),
        cmocka_unit_test(disconnect_cancels),
        cmocka_unit_test(half_close_still_gets_its_reply),
        cmocka_unit_test(reset_while_handling),
        cmocka_unit_test(draining),
        cmocka_unit_test(stopping_cancels),
        cmocka_unit_test(storm),
        cmocka_unit_test(metrics),
        cmocka_unit_test(start_errors),
    };

    /* a failed test leaves its server running on a stack that is gone: no test after it could be believed */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
