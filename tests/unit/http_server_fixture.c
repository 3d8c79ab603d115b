/* http_server_fixture.c -- see http_server_test.h */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "http_server_test.h"

/* Not cmocka's assertions: this runs on the loop's thread. */

/* ---- the handler ------------------------------------------------------------------------------------------------- */

static void wait_released(struct fixture *f, struct http_request *rq)
{
    sem_post(&f->event);
    if (await_wake(&f->release, NS_NEVER) == OK)
        await_http_reply(rq, 200, NULL, 0, STR("released"));
    else
        atomic_fetch_add(&f->cancelled, 1);
    f->release = (struct wake){ 0 };
    sem_post(&f->event);
}

/* Some tests' clients go away at any moment. */
static void went(enum err e)
{
    ASSERT(e == OK || e == E_CLOSED);
}

static void stream(struct http_request *rq, const char *type, const char *const *parts, bool end)
{
    struct http_header h = { STR("Content-Type"), str_of(type) };

    went(await_http_stream_begin(rq, 200, &h, 1));
    for (; *parts; parts++)
        went(await_http_stream_write(rq, str_of(*parts)));
    if (end)
        went(await_http_stream_end(rq));
}

static void big(struct http_request *rq, size_t n)
{
    char *body = malloc(n);

    for (size_t i = 0; i < n; i++)
        body[i] = (char)('a' + i % 26);
    await_http_reply(rq, 200, NULL, 0, str_n(body, n));
    free(body);
}

static void flood(struct fixture *f, struct http_request *rq)
{
    static char block[100000];
    enum err e = await_http_stream_begin(rq, 200, NULL, 0);

    while (e == OK)
        e = await_http_stream_write(rq, str_n(block, sizeof(block)));
    ASSERT(e == E_CLOSED);
    sem_post(&f->event);
}

static void events(struct http_request *rq)
{
    struct http_header h = { STR("Content-Type"), STR("text/event-stream") };
    struct buf b = BUF_INIT(4096);

    await_http_stream_begin(rq, 200, &h, 1);
    http_sse_retry(&b, 1500);
    http_sse_event(&b, STR("message"), STR("7"), STR("one\ntwo\r\nthree\r"));
    await_http_stream_write(rq, buf_str(&b));
    buf_clear(&b);
    http_sse_ping(&b);
    http_sse_event(&b, STR_NULL, STR_NULL, STR_NULL);
    await_http_stream_write(rq, buf_str(&b));
    buf_release(&b);
    await_http_stream_end(rq);
}

static void odd_replies(struct http_request *rq)
{
    struct http_header bad = { STR("X-Bad"), STR("a\r\nInjected: yes") };

    ASSERT(await_http_reply(rq, 200, &bad, 1, STR("never")) == E_FORMAT);
    ASSERT(!http_replied(rq));
    went(await_http_reply(rq, 204, NULL, 0, STR("a 204 has no body")));
    ASSERT(http_replied(rq));
}

static void certificate(struct http_request *rq)
{
    const struct http_client_cert *cert = http_client_cert(rq);

    ASSERT(http_is_tls(rq));
    await_http_reply(rq, 200, NULL, 0, cert ? cert->subject : STR("none"));
}

/* The body handed over, with as many bytes in a field as the query says. */
static void over(struct http_request *rq)
{
    static char long_value[1000];
    uint64_t n = 0;
    static const struct http_header ours = { STR("Content-Type"), STR("text/plain") };
    struct http_header h = { STR("X-Long"), STR_NULL };
    struct buf b = BUF_INIT(HTTP_BODY_MAX);
    struct http_lines lines;

    ASSERT(str_to_u64(http_query(rq), &n) && n <= sizeof(long_value));
    memset(long_value, 'x', sizeof(long_value));
    h.value = str_n(long_value, n);
    http_body_begin(&b, 1);
    buf_add_str(&b, str_is(http_method(rq), "HEAD") ? STR("what a GET would get") : http_body(rq));
    http_lines_make(&lines, &ours, 1);
    went(await_http_reply_over(rq, 200, &lines, &h, 1, &b));
    buf_release(&b);
}

/* A peer that has reset the connection already cannot be named any more. */
static bool peer_named(const char *peer)
{
    return strncmp(peer, "127.0.0.1:", 10) == 0 || strcmp(peer, "unknown") == 0;
}

/* /echo /over?n /what /big /stream /cut /sse /slow /slow-cancel /flood /none /odd /cert */
static void handle(struct http_request *rq, void *arg)
{
    struct fixture *f = arg;
    struct str path = http_path(rq), v;
    char text[512];

    atomic_fetch_add(&f->handled, 1);
    ASSERT(peer_named(http_peer(rq)));
    ASSERT(http_arrived(rq) <= loop_now() && http_arrived_wall(rq) > 0);
    if (str_is(path, "/echo")) {
        await_http_reply(rq, 200, NULL, 0, http_body(rq));
    } else if (str_is(path, "/over")) {
        over(rq);
    } else if (str_is(path, "/what")) {
        unsigned n = http_header(rq, "x-test", &v);

        snprintf(text, sizeof(text), "%.*s q=%.*s x-test=%u:%.*s", STR_ARG(http_method(rq)), STR_ARG(http_query(rq)), n,
                 STR_ARG(v));
        await_http_reply(rq, 200, NULL, 0, str_of(text));
    } else if (str_is(path, "/big")) {
        big(rq, 3000000);
    } else if (str_is(path, "/stream")) {
        stream(rq, "text/plain", (const char *const[]){ "a", "", "bb", "ccc", NULL }, true);
    } else if (str_is(path, "/cut")) {
        stream(rq, "text/plain", (const char *const[]){ "half", NULL }, false);
    } else if (str_is(path, "/sse")) {
        events(rq);
    } else if (str_is(path, "/slow")) {
        wait_released(f, rq);
    } else if (str_is(path, "/slow-cancel")) {
        http_cancel_on_disconnect(rq, true);
        wait_released(f, rq);
    } else if (str_is(path, "/flood")) {
        flood(f, rq);
    } else if (str_is(path, "/odd")) {
        odd_replies(rq);
    } else if (str_is(path, "/cert")) {
        certificate(rq);
    } else if (!str_is(path, "/none")) {
        await_http_reply(rq, 404, NULL, 0, STR("no such path"));
    }
}

static void on_bad(const struct http_bad_request *bad, void *arg)
{
    struct fixture *f = arg;

    pthread_mutex_lock(&f->lock);
    buf_clear(&f->bad_bytes);
    buf_add_str(&f->bad_bytes, bad->bytes);
    pthread_mutex_unlock(&f->lock);
    atomic_store(&f->last_fault, (int)bad->fault);
    atomic_fetch_add(&f->bad, 1);
    ASSERT(bad->status == http_fault_status(bad->fault));
    ASSERT(bad->arrived > 0 && peer_named(bad->peer));
}

bool last_bad_was(struct fixture *f, struct str prefix, bool whole)
{
    bool same;

    pthread_mutex_lock(&f->lock);
    same = whole ? str_eq(buf_str(&f->bad_bytes), prefix) : str_starts(buf_str(&f->bad_bytes), prefix);
    pthread_mutex_unlock(&f->lock);
    return same;
}

/* ---- server ------------------------------------------------------------------------------------------------------ */

static void start_on_loop(void *arg)
{
    struct fixture *f = arg;
    struct errinfo info;

    if (http_server_start(&f->opt, &f->srv, &info) != OK) {
        fprintf(stderr, "%s\n", info.text);
        abort();
    }
    http_server_name(f->srv, f->name);
    sem_post(&f->ready);
}

static void *loop_main(void *arg)
{
    struct fixture *f = arg;

    loop_run(f->loop, start_on_loop, f);
    return NULL;
}

void server_start(struct fixture *f, const struct http_server_options *opt)
{
    struct loop_options loop_opt = { 0 };
    struct errinfo info;

    memset(f, 0, sizeof(*f));
    f->opt = *opt;
    f->opt.listen = "127.0.0.1:0";
    f->opt.handler = handle;
    f->opt.on_bad_request = on_bad;
    f->opt.arg = f;
    f->bad_bytes = BUF_INIT(HTTP_HEAD_MAX);
    pthread_mutex_init(&f->lock, NULL);
    sem_init(&f->ready, 0, 0);
    sem_init(&f->event, 0, 0);
    if (loop_create(&loop_opt, &f->loop, &info) != OK)
        fail_msg("%s", info.text);
    assert_int_equal(pthread_create(&f->thread, NULL, loop_main, f), 0);
    await_event(&f->ready);
}

struct errand {
    struct mail mail;
    struct fixture *f;
    void (*fn)(struct fixture *f);
    sem_t done;
};

static void errand_run(struct mail *m)
{
    struct errand *e = CONTAINER_OF(m, struct errand, mail);

    e->fn(e->f);
    sem_post(&e->done);
}

void on_loop(struct fixture *f, void (*fn)(struct fixture *f))
{
    struct errand e = { .mail.fn = errand_run, .f = f, .fn = fn };

    sem_init(&e.done, 0, 0);
    loop_post(f->loop, &e.mail);
    await_event(&e.done);
    sem_destroy(&e.done);
}

static void stop_on_loop(struct fixture *f)
{
    http_server_stop(f->srv);
    loop_stop(f->loop);
}

void server_stop(struct fixture *f)
{
    on_loop(f, stop_on_loop);
    pthread_join(f->thread, NULL);
    loop_destroy(f->loop);
    buf_release(&f->bad_bytes);
    pthread_mutex_destroy(&f->lock);
    sem_destroy(&f->ready);
    sem_destroy(&f->event);
}

void await_event(sem_t *s)
{
    struct timespec ts;
    int rc;

    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_sec += 30;
    do
        rc = sem_timedwait(s, &ts);
    while (rc != 0 && errno == EINTR);
    assert_int_equal(rc, 0);
}

/* ---- client ------------------------------------------------------------------------------------------------------ */

void client_open(struct client *c, struct fixture *f)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval limit = { .tv_sec = 30 };

    memset(c, 0, sizeof(*c));
    c->in = BUF_INIT(64 << 20);
    a.sin_port = htons((uint16_t)atoi(strrchr(f->name, ':') + 1));
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(c->fd >= 0);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    assert_true(connect(c->fd, (struct sockaddr *)&a, sizeof(a)) == 0 || errno == EINTR);
}

void client_close(struct client *c)
{
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    close(c->fd);
    buf_release(&c->in);
}

bool client_interrupted(struct client *c, int rc)
{
    if (rc >= 0 || errno != EINTR)
        return false;
    return !c->ssl || SSL_get_error(c->ssl, rc) == SSL_ERROR_WANT_READ ||
           SSL_get_error(c->ssl, rc) == SSL_ERROR_WANT_WRITE;
}

void client_send(struct client *c, struct str s)
{
    while (s.len > 0) {
        ssize_t n = c->ssl ? SSL_write(c->ssl, s.p, (int)s.len) : send(c->fd, s.p, s.len, MSG_NOSIGNAL);

        if (client_interrupted(c, (int)n))
            continue;
        if (n <= 0)
            return;             /* the server may refuse in the middle: what it says is read afterwards */
        s = str_from(s, (size_t)n);
    }
}

/* More bytes into c->in; false at the end of the connection. */
static bool more(struct client *c)
{
    char block[16384];
    ssize_t n;

    do
        n = c->ssl ? SSL_read(c->ssl, block, sizeof(block)) : recv(c->fd, block, sizeof(block), 0);
    while (client_interrupted(c, (int)n));

    if (n < 0 && !c->ssl && errno == EAGAIN)
        fail_msg("the server did not answer in 30 s");
    if (n <= 0)
        return false;
    buf_add(&c->in, block, (size_t)n);
    return true;
}

static void read_body(struct client *c, struct answer *a)
{
    struct http_chunked chunked;
    enum http_fault why;
    size_t left = (size_t)a->framing.length;

    http_chunked_init(&chunked);
    a->complete = a->framing.framing == HTTP_BODY_NONE || (a->framing.framing == HTTP_BODY_LENGTH && left == 0);
    while (!a->complete) {
        struct str data = buf_str(&c->in);
        int64_t n = (int64_t)data.len;

        if (data.len == 0) {
            if (more(c))
                continue;
            a->complete = a->framing.framing == HTTP_BODY_UNTIL_CLOSE;
            return;
        }
        if (a->framing.framing == HTTP_BODY_LENGTH && data.len > left)
            n = (int64_t)left;
        if (a->framing.framing == HTTP_BODY_CHUNKED)
            n = http_chunked_decode(&chunked, data, &data, &why);
        else
            data.len = (size_t)n;
        assert_true(n >= 0);
        buf_add_str(&a->body, data);
        buf_drop_front(&c->in, (size_t)n);
        left -= a->framing.framing == HTTP_BODY_LENGTH ? (size_t)n : 0;
        a->complete = a->framing.framing == HTTP_BODY_CHUNKED ? chunked.done
                                                              : a->framing.framing == HTTP_BODY_LENGTH && left == 0;
    }
}

bool client_answer(struct client *c, bool was_head, struct answer *a)
{
    const struct http_header *type;
    enum http_fault why;
    int n;

    memset(a, 0, sizeof(*a));
    a->body = BUF_INIT(64 << 20);
    while ((n = http_parse_response_head(buf_str(&c->in), &a->head, &why)) == 0)
        if (!more(c))
            return false;
    if (n < 0 || !http_response_framing(&a->head, was_head, &a->framing, &why))
        fail_msg("bad answer (%s): %.*s", http_fault_name(why), STR_ARG(buf_str(&c->in)));
    a->status = a->head.status;
    if (a->status != 100) {
        struct str v;

        assert_true(http_head_one(&a->head, "date", &v));
        assert_int_equal(v.len, 29);
        assert_null(http_head_find(&a->head, "server", NULL));
        assert_null(http_head_find(&a->head, "injected", NULL));
    }
    a->closes = !http_head_keeps(&a->head);
    type = http_head_find(&a->head, "content-type", NULL);
    if (type)
        snprintf(a->type, sizeof(a->type), "%.*s", STR_ARG(type->value));
    buf_drop_front(&c->in, (size_t)n);
    read_body(c, a);
    return true;
}

void answer_release(struct answer *a)
{
    buf_release(&a->body);
}

bool client_at_end(struct client *c)
{
    while (c->in.len == 0 && more(c))
        ;
    return c->in.len == 0;
}

int ask(struct client *c, const char *request, const char *expected_body)
{
    struct answer a;
    int status;

    client_send(c, str_of(request));
    if (!client_answer(c, strncmp(request, "HEAD ", 5) == 0, &a))
        return -1;
    assert_true(a.complete);
    if (expected_body && !str_is(buf_str(&a.body), expected_body))
        fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(buf_str(&a.body)), expected_body);
    status = a.status;
    answer_release(&a);
    return status;
}
