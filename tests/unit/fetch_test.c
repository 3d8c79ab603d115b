/*
 * fetch_test.c -- exchanges with a provider that answers well, badly, late, too much or not at all
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "base/crypto.h"
#include "fetch_bed.h"

/* ---- well -------------------------------------------------------------------------------------------------------- */

static void serve_echo(struct peer *p)
{
    while (peer_request(p)) {
        char head[200];
        int n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nX-Method: %.*s\r\nContent-Length: %zu\r\n\r\n",
                         STR_ARG(p->method), p->body.len);

        if (!peer_send(p, head, (size_t)n) || !peer_send(p, p->body.p, p->body.len))
            return;
    }
}

static void echo_body(struct bed *b)
{
    static char big[200 * 1000];
    struct fetch_request req;
    struct str value;

    CHECK_ERR(await_post(b, "/", "hello"), OK);
    CHECK(b->reply.status == 200 && str_is(b->reply.body, "hello") && !b->reply.reused && b->sent == FETCH_ANSWERED);
    CHECK(fetch_reply_header(&b->reply, "x-method", &value) && str_is(value, "POST"));
    CHECK(b->reply.sent_at > 0 && b->reply.answered_at >= b->reply.sent_at);
    for (int i = 0; i < 50; i++) {
        CHECK_ERR(await_post(b, "/", "again"), OK);
        CHECK(str_is(b->reply.body, "again") && b->reply.reused);
    }
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)('a' + i % 26);
    req = bed_request(b, "PUT", "/");
    req.body = str_n(big, sizeof(big));                 /* streamed from here; received in place */
    CHECK_ERR(await_bed(b, &req), OK);
    CHECK(str_eq(b->reply.body, req.body) && b->reply.reused);
    req.method = STR("DELETE");
    req.body = STR("");
    CHECK_ERR(await_bed(b, &req), OK);
    CHECK(b->reply.body.len == 0 && atomic_load(&b->up->accepted) == 1);
}

static void test_echo(void **state)
{
    int64_t connects = metric_sum(M_FETCH_CONNECTS_TOTAL), reuses = metric_sum(M_FETCH_REUSES_TOTAL);

    bed_run(false, serve_echo, NULL, NULL, echo_body);
    assert_int_equal(metric_sum(M_FETCH_CONNECTS_TOTAL), connects + 1);
    assert_int_equal(metric_sum(M_FETCH_REUSES_TOTAL), reuses + 52);
    bed_run(true, serve_echo, NULL, NULL, echo_body);
}

/* The whole answer in one write, or byte by byte. */
struct script {
    struct str answer;
    size_t cut;                 /* send only so much, then close */
    bool bytewise;
    bool stay;                  /* wait for the other side to close */
    bool goodbye;               /* TLS: close in order */
};

static void serve_script(struct peer *p)
{
    const struct script *s = p->up->arg;
    size_t n = s->answer.len < s->cut ? s->answer.len : s->cut;

    if (!peer_request(p))
        return;
    for (size_t i = 0; s->bytewise && i < n; i++)
        if (!peer_send(p, s->answer.p + i, 1))
            return;
    if (!s->bytewise)
        peer_send(p, s->answer.p, n);
    if (s->goodbye)
        SSL_shutdown(p->ssl);
    if (s->stay)
        peer_until_closed(p);
}

static enum err script_result;
static enum fetch_sent script_sent;
static int script_status;
static char script_text[256];

static void script_body(struct bed *b)
{
    script_result = await_post(b, "/", "x");
    script_sent = b->sent;
    script_status = b->reply.status;
    snprintf(script_text, sizeof(script_text), "%.*s", STR_ARG(b->reply.body));
}

static enum err run_script(struct str answer, size_t cut, bool bytewise, bool stay, bool tls)
{
    struct script s = { answer, cut, bytewise, stay };

    bed_run(tls, serve_script, &s, NULL, script_body);
    return script_result;
}

static void test_bytewise(void **state)
{
    struct str a = STR("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: "
                       "chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");

    CHECK_ERR(run_script(a, a.len, true, true, false), OK);
    assert_string_equal(script_text, "hello");
    CHECK_ERR(run_script(a, a.len, true, true, true), OK);
    assert_string_equal(script_text, "hello");
}

/* The provider goes away after every possible number of bytes: only a whole answer is an answer. */
static void cut_everywhere(struct str answer, size_t whole, bool tls)
{
    const char *end = memmem(answer.p, answer.len, "\r\n\r\n", 4);
    size_t head = (size_t)(end - answer.p) + 4;

    for (size_t cut = 0; cut <= answer.len; cut++) {
        enum err e = run_script(answer, cut, false, false, tls);

        if (e != (cut >= whole ? OK : E_OUTCOME_UNKNOWN))
            fail_msg("cut at %zu: %s", cut, err_name(e));
        assert_int_equal(script_sent, cut >= head ? FETCH_ANSWERED : FETCH_SENT);
        assert_int_equal(script_status, cut >= head ? 201 : 0);
    }
}

static void test_cut(void **state)
{
    struct str length = STR("HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello");
    struct str chunked = STR("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    struct str closed = STR("HTTP/1.1 201 Created\r\n\r\nhello");

    cut_everywhere(length, length.len, false);
    cut_everywhere(chunked, chunked.len, false);
    cut_everywhere(closed, closed.len - 5, false);      /* a body until the end may end anywhere, without TLS ... */
}

static void full_cut_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");

    req.flags = FETCH_FULL;
    script_result = await_bed(b, &req);
}

static void test_cut_tls(void **state)
{
    struct str closed = STR("HTTP/1.1 201 Created\r\n\r\nhello");
    struct script cut = { closed, closed.len };

    bed_run(true, serve_script, &cut, NULL, full_cut_body);
    CHECK_ERR(script_result, E_OUTCOME_UNKNOWN);
    bed_run(false, serve_script, &cut, NULL, full_cut_body);
    CHECK_ERR(script_result, OK);

    CHECK_ERR(run_script(closed, closed.len, false, false, true),
              E_OUTCOME_UNKNOWN); /* ... with it, a missing goodbye is noticed */
    bed_run(true, serve_script, &(struct script){ closed, closed.len, false, false, true }, NULL, script_body);
    CHECK_ERR(script_result, OK);
    assert_string_equal(script_text, "hello");
    cut_everywhere(STR("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"), 45, true);
}

/* ---- badly ------------------------------------------------------------------------------------------------------- */

static void test_garbage(void **state)
{
    static const char *const answers[] = {
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        "HTTP/1.1 101 Switching\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx",
        "\0\0\0\0",
    };

    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        size_t n = answers[i][0] ? strlen(answers[i]) : 4;

        if (run_script(str_n(answers[i], n), n, false, true, false) != E_UPSTREAM_GARBLED)
            fail_msg("answer %zu: %s", i, err_name(script_result));
        assert_int_not_equal(script_sent, FETCH_NOT_SENT);
    }
}

static void serve_endless(struct peer *p)
{
    const char *const *texts = p->up->arg;

    if (!peer_request(p) || !peer_say(p, texts[0]))
        return;
    while (peer_say(p, texts[1]))
        ;
}

static void endless_body(struct bed *b)
{
    const char *const *texts = b->arg;
    struct fetch_request req = bed_request(b, "GET", "/");
    struct arena a;

    CHECK_ERR(await_bed(b, &req), texts[2] ? E_UPSTREAM_GARBLED : E_UPSTREAM_TOO_LARGE);
    CHECK(b->sent == (texts[2] ? FETCH_SENT : FETCH_ANSWERED));
    if (texts[2])
        return;
    arena_init(&a, 300 * 1000);         /* less than reply_max: the call's memory is a bound too */
    CHECK_ERR(await_fetch(b->f, &req, &a, &b->reply, &b->sent, NULL), E_UPSTREAM_TOO_LARGE);
    arena_release(&a);
}

#define KILO "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_endless(void **state)
{
    static const char *const ten_gigabytes[] = { "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n", KILO, NULL };
    static const char *const chunks[] = { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "64\r\n" KILO "\r\n",
                                          NULL };
    static const char *const until_close[] = { "HTTP/1.1 200 OK\r\n\r\n", KILO, NULL };
    static const char *const interim[] = { "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", "" };
    static const char *const head[] = { "HTTP/1.1 200 OK\r\n", "X: " KILO "\r\n", "" };

    bed_run(false, serve_endless, (void *)(uintptr_t)ten_gigabytes, NULL, endless_body);
    bed_run(false, serve_endless, (void *)(uintptr_t)chunks, NULL, endless_body);
    bed_run(true, serve_endless, (void *)(uintptr_t)chunks, NULL, endless_body);
    bed_run(false, serve_endless, (void *)(uintptr_t)until_close, NULL, endless_body);
    bed_run(false, serve_endless, (void *)(uintptr_t)interim, NULL, endless_body);
    bed_run(false, serve_endless, (void *)(uintptr_t)head, NULL, endless_body);
}

static void serve_bomb(struct peer *p)
{
    static char zeros[16 << 20];
    size_t room = 64 << 10;
    char *packed = malloc(room);
    z_stream z = { 0 };
    char head[200];

    deflateInit2(&z, 9, Z_DEFLATED, 31, 9, Z_DEFAULT_STRATEGY);
    z.next_in = (unsigned char *)zeros;
    z.avail_in = sizeof(zeros);
    z.next_out = (unsigned char *)packed;
    z.avail_out = (unsigned)room;
    ASSERT(deflate(&z, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&z);
    while (peer_request(p)) {
        int n = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %lu\r\n\r\n",
                         z.total_out);

        if (!peer_send(p, head, (size_t)n) || !peer_send(p, packed, z.total_out))
            break;
    }
    free(packed);
}

static void bomb_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "GET", "/");

    CHECK_ERR(await_bed(b, &req), E_UPSTREAM_TOO_LARGE);
    req.reply_max = 1 << 30;            /* the ratio is a bound of its own */
    CHECK_ERR(await_bed(b, &req), E_UPSTREAM_TOO_LARGE);
    req.flags = FETCH_FULL;
    CHECK_ERR(await_bed(b, &req), E_UPSTREAM_TOO_LARGE);
}

static void test_bomb(void **state)
{
    bed_run(false, serve_bomb, NULL, NULL, bomb_body);
}

static void redirect_body(struct bed *b)
{
    struct str to;

    CHECK_ERR(await_get(b, "/"), OK);
    CHECK(b->reply.status == 302 && fetch_reply_header(&b->reply, "location", &to) && str_is(to, "/elsewhere"));
    CHECK(atomic_load(&b->up->requests) == 1);
}

static void test_redirect(void **state)
{
    struct script s = { STR("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"), 1000, false,
                        true };

    bed_run(false, serve_script, &s, NULL, redirect_body);
}

/* ---- late, or not at all ----------------------------------------------------------------------------------------- */

/* A deadline that passes while the answer is awaited: longer and longer, until connecting fits into it. */
static enum err await_past_sending(struct bed *b, struct fetch_request *req)
{
    enum err e = E_DEADLINE;

    for (ns_t wait = 50 * NS_PER_MS; e == E_DEADLINE && wait < 30 * NS_PER_S; wait *= 2) {
        req->deadline = loop_now() + wait;
        e = await_bed(b, req);
        CHECK((e == E_DEADLINE) == (b->sent == FETCH_NOT_SENT));
    }
    return e;
}

static void serve_silence(struct peer *p)
{
    while (peer_request(p))
        ;
}

static void silence_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "GET", "/");

    CHECK_ERR(await_past_sending(b, &req), E_OUTCOME_UNKNOWN);
    CHECK(b->sent == FETCH_SENT && loop_now() >= req.deadline);
    req.deadline = loop_now();
    CHECK_ERR(await_bed(b, &req), E_DEADLINE);
    CHECK(b->sent == FETCH_NOT_SENT);
}

static void test_silence(void **state)
{
    bed_run(false, serve_silence, NULL, NULL, silence_body);
    bed_run(true, serve_silence, NULL, NULL, silence_body);
}

static void serve_deaf(struct peer *p)
{
    sem_wait(p->up->arg);
}

static void deaf_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    size_t n = 64 << 20;
    char *big = calloc(1, n);

    req.body = str_n(big, n);
    CHECK_ERR(await_past_sending(b, &req), E_OUTCOME_UNKNOWN);
    CHECK(b->sent == FETCH_SENT);
    free(big);
    for (unsigned i = 0; i < atomic_load(&b->up->accepted); i++)
    sem_post(b->arg);
}

static void test_deaf(void **state)
{
    sem_t leave;

    sem_init(&leave, 0, 0);
    bed_run(false, serve_deaf, &leave, NULL, deaf_body);
    bed_run(true, serve_deaf, &leave, NULL, deaf_body);
    sem_destroy(&leave);
}

/* A port that accepts and says nothing, in the kernel's queue only: TLS never begins. One nobody listens on. */
static void connecting_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(bind(fd, (struct sockaddr *)&at, n) == 0 && getsockname(fd, (struct sockaddr *)&at, &n) == 0);
    b->origin.port = ntohs(at.sin_port);
    CHECK_ERR(await_bed(b, &req), E_UPSTREAM_DOWN);                 /* bound, not listening: refused */
    CHECK(b->sent == FETCH_NOT_SENT);
    CHECK(listen(fd, 8) == 0);
    CHECK_ERR(await_bed(b, &req), E_UPSTREAM_DOWN);                 /* the option's connect_timeout */
    CHECK(b->sent == FETCH_NOT_SENT);
    req.deadline = loop_now() + 20 * NS_PER_MS;
    CHECK_ERR(await_bed(b, &req), E_DEADLINE);
    CHECK(b->sent == FETCH_NOT_SENT);
    req.flags = FETCH_FULL;
    req.deadline = loop_now() + 20 * NS_PER_MS;
    CHECK_ERR(await_bed(b, &req), E_DEADLINE);
    CHECK(b->sent == FETCH_NOT_SENT);
    close(fd);
}

static void test_connecting(void **state)
{
    struct fetch_options opt = { .connect_timeout = 400 * NS_PER_MS };

    bed_run(true, serve_paths, NULL, &opt, connecting_body);
}

/* Answers 413 after the head and stops reading; the answer is what counts, not the broken send. */
static void serve_early(struct peer *p)
{
    char bytes[1000];

    if (p->ssl)
        SSL_read(p->ssl, bytes, sizeof(bytes));
    else
        CHECK(recv(p->fd, bytes, sizeof(bytes), 0) > 0);
    peer_say(p, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
    sem_wait(p->up->arg);
}

static void early_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    size_t n = 64 << 20;
    char *big = calloc(1, n);

    req.body = str_n(big, n);
    CHECK_ERR(await_bed(b, &req), OK);
    CHECK(b->reply.status == 413 && str_is(b->reply.body, "no") && b->sent == FETCH_ANSWERED);
    free(big);
    sem_post(b->arg);
}

static void test_early(void **state)
{
    sem_t leave;

    sem_init(&leave, 0, 0);
    bed_run(false, serve_early, &leave, NULL, early_body);
    bed_run(true, serve_early, &leave, NULL, early_body);
    sem_destroy(&leave);
}

/* ---- secrets ----------------------------------------------------------------------------------------------------- */

static void secret_make(char *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (char)("q7Zk"[i % 4] ^ (i / 4 % 3));
}

static void secret_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    char text[48], needle[48];
    struct secret *token;
    struct fetch_part part;

    secret_make(text, sizeof(text));
    token = secret_take(text, sizeof(text));
    part = (struct fetch_part){ .secret = token, .form = true };
    req.bearer = token;
    req.parts = &part;
    req.n_parts = 1;
    for (unsigned flags = 0; flags <= FETCH_FULL; flags++) {
        req.flags = flags;
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(str_is(b->reply.body, "thanks"));
    }
    secret_release(token);
    fetch_drain(b->f);
    secret_make(needle, sizeof(needle));
    CHECK(find_in_memory(needle, sizeof(needle)) == 1);         /* `needle` itself, on this stack */
}

static void serve_wipe(struct peer *p)
{
    while (peer_request(p)) {
        struct str auth;

        CHECK(!peer_field(p, "authorization", &auth) || (str_starts(auth, STR("Bearer ")) && auth.len == 55));
        if (!peer_reply(p, "thanks"))
            return;
    }
}

static void test_secret_gone(void **state)
{
    bed_run(false, serve_wipe, NULL, NULL, secret_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),        cmocka_unit_test(test_bytewise),   cmocka_unit_test(test_cut),
        cmocka_unit_test(test_cut_tls),     cmocka_unit_test(test_garbage),    cmocka_unit_test(test_endless),
        cmocka_unit_test(test_bomb),        cmocka_unit_test(test_redirect),   cmocka_unit_test(test_silence),
        cmocka_unit_test(test_deaf),        cmocka_unit_test(test_connecting), cmocka_unit_test(test_early),
        cmocka_unit_test(test_secret_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
