/*
 * fetch_bench.c -- CPU per exchange: the hot path (libcurl connects, we frame) against full libcurl transfers
 *
 *   fetch_bench [exchanges]
 *
 * A server thread (epoll, plain or TLS) answers POSTs of about 330 bytes with about 350 bytes; 64 tasks of one loop
 * send one request after the other on kept connections.  Printed: CPU of the loop's thread per exchange, everything
 * included that a call pays for (task switches, ring, building, parsing, arena), user and system apart.  The server's
 * CPU is not counted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "fetch/fetch.h"
#include "loop/loop.h"
#include "loop/task.h"

enum { TASKS = 64, FDS_MAX = 1024, REQUEST_BODY = 130, ANSWER_BODY = 250 };

/* ---- the server -------------------------------------------------------------------------------------------------- */

struct server {
    uint16_t port;
    int listener, epoll, stop;
    SSL_CTX *tls;
    SSL *ssl[FDS_MAX];
    char ca_file[64];
    pthread_t thread;
    char answer[1024];
    size_t answer_len;
};

static void tls_setup(struct server *s)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
    FILE *file;
    int fd;

    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"bench", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_add_ext(cert, san, -1);
    ASSERT(X509_sign(cert, key, EVP_sha256()) > 0);
    snprintf(s->ca_file, sizeof(s->ca_file), "/tmp/sluice-bench-ca-XXXXXX");
    fd = mkstemp(s->ca_file);
    ASSERT(fd >= 0);
    file = fdopen(fd, "w");
    PEM_write_X509(file, cert);
    fclose(file);
    s->tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(s->tls, cert);
    SSL_CTX_use_PrivateKey(s->tls, key);
    X509_EXTENSION_free(san);
    X509_free(cert);
    EVP_PKEY_free(key);
}

/* Requests end in '~', which stands nowhere else in them. */
static void serve(struct server *s, int fd, bool tls)
{
    char in[4096];
    ssize_t n;

    while ((n = tls ? SSL_read(s->ssl[fd], in, sizeof(in)) : recv(fd, in, sizeof(in), 0)) > 0) {
        for (const char *p = in; (p = memchr(p, '~', (size_t)(in + n - p))); p++) {
            ssize_t put = tls ? SSL_write(s->ssl[fd], s->answer, (int)s->answer_len)
                              : send(fd, s->answer, s->answer_len, MSG_NOSIGNAL);

            ASSERT(put == (ssize_t)s->answer_len);
        }
    }
    if (n == 0 || (!tls && errno != EAGAIN) || (tls && SSL_get_error(s->ssl[fd], (int)n) != SSL_ERROR_WANT_READ)) {
        SSL_free(s->ssl[fd]);
        s->ssl[fd] = NULL;
        close(fd);
    }
}

static void *server_main(void *arg)
{
    struct server *s = arg;
    struct epoll_event events[256], e = { .events = EPOLLIN };
    int one = 1;

    for (;;) {
        int n = epoll_wait(s->epoll, events, 256, -1);

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (fd == s->stop)
                return NULL;
            if (fd != s->listener) {
                serve(s, fd, s->ssl[fd] != NULL);
                continue;
            }
            fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK);
            ASSERT(fd >= 0 && fd < FDS_MAX);
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            if (s->tls) {
                s->ssl[fd] = SSL_new(s->tls);
                SSL_set_fd(s->ssl[fd], fd);
                SSL_set_accept_state(s->ssl[fd]);
            }
            e.data.fd = fd;
            epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e);
        }
    }
}

static void server_start(struct server *s, bool tls, int stop)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct epoll_event e = { .events = EPOLLIN };
    socklen_t n = sizeof(at);

    s->stop = stop;
    if (tls)
        tls_setup(s);
    s->answer_len = (size_t)snprintf(s->answer, sizeof(s->answer),
                                     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: today\r\n"
                                     "Content-Length: %d\r\n\r\n%0*d",
                                     ANSWER_BODY, ANSWER_BODY, 0);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ASSERT(bind(s->listener, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(s->listener, 512) == 0);
    ASSERT(getsockname(s->listener, (struct sockaddr *)&at, &n) == 0);
    s->port = ntohs(at.sin_port);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    e.data.fd = s->listener;
    epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &e);
    e.data.fd = stop;
    epoll_ctl(s->epoll, EPOLL_CTL_ADD, stop, &e);
    ASSERT(pthread_create(&s->thread, NULL, server_main, s) == 0);
}

/* ---- the client -------------------------------------------------------------------------------------------------- */

struct bench {
    struct loop *loop;
    struct fetch *f;
    struct fetch_origin origin;
    unsigned flags;
    unsigned left, running;
    struct wake all;
    double user, sys;                   /* us per exchange */
};

static void worker(void *arg)
{
    static const struct fetch_header headers[] = { { STR("Content-Type"), STR("application/json"), NULL },
                                                   { STR("Accept"), STR("application/json"), NULL } };
    struct bench *b = arg;
    char body[REQUEST_BODY];
    struct fetch_request req = { .tenant = STR("acme"),
                                 .origin = &b->origin,
                                 .method = STR("POST"),
                                 .path = STR("/v1.0/me/calendar/getSchedule"),
                                 .headers = headers,
                                 .n_headers = 2,
                                 .body = str_n(body, sizeof(body)),
                                 .reply_max = 65536,
                                 .flags = b->flags };
    struct fetch_reply reply;
    enum fetch_sent sent;
    struct arena arena;
    struct errinfo info;

    memset(body, 'x', sizeof(body));
    body[sizeof(body) - 1] = '~';
    arena_init(&arena, 1 << 20);
    while (b->left > 0) {
        b->left--;
        req.deadline = loop_now() + 30 * NS_PER_S;
        arena_clear(&arena);
        if (await_fetch(b->f, &req, &arena, &reply, &sent, &info) != OK || reply.body.len != ANSWER_BODY) {
            fprintf(stderr, "%s\n", info.text);
            abort();
        }
    }
    arena_release(&arena);
    if (--b->running == 0)
        wake_fire(&b->all);
}

static void await_round(struct bench *b, unsigned n)
{
    b->all = (struct wake){ 0 };
    b->left = n;
    b->running = TASKS;
    for (int i = 0; i < TASKS; i++)
        ASSERT(task_spawn("worker", worker, b));
    ASSERT(await_wake(&b->all, NS_NEVER) == OK);
}

static double us(struct timeval tv) { return (double)tv.tv_sec * 1e6 + (double)tv.tv_usec; }

static unsigned exchanges = 100000;

static void bench_main(void *arg)
{
    struct bench *b = arg;
    struct rusage from, to;

    await_round(b, 2000);               /* connects, warms up */
    getrusage(RUSAGE_THREAD, &from);
    await_round(b, exchanges);
    getrusage(RUSAGE_THREAD, &to);
    b->user = (us(to.ru_utime) - us(from.ru_utime)) / exchanges;
    b->sys = (us(to.ru_stime) - us(from.ru_stime)) / exchanges;
    fetch_drain(b->f);
    loop_stop(b->loop);
}

static void bench_start(void *arg)
{
    ASSERT(task_spawn("bench", bench_main, arg));
}

static double run(bool tls, unsigned flags)
{
    struct server *s = calloc(1, sizeof(*s));
    struct bench b = { .flags = flags };
    struct fetch_options opt = { .guard = { .allow_loopback = true, .allow_plain_http = true } };
    struct loop_options loop_opt = { 0 };
    struct errinfo info;
    int stop[2];
    char url[64];

    ASSERT(pipe(stop) == 0);
    server_start(s, tls, stop[0]);
    opt.ca_file = tls ? s->ca_file : NULL;
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u", tls ? "https" : "http", s->port);
    if (fetch_origin_parse(str_of(url), &b.origin, &info) || loop_create(&loop_opt, &b.loop, &info) ||
        fetch_create(&opt, &b.f, &info)) {
        fprintf(stderr, "%s\n", info.text);
        exit(1);
    }
    loop_run(b.loop, bench_start, &b);
    fetch_destroy(b.f);
    loop_destroy(b.loop);
    ASSERT(write(stop[1], "", 1) == 1);
    pthread_join(s->thread, NULL);
    if (tls)
        unlink(s->ca_file);
    printf("%-28s %-6s %6.2f us  (user %5.2f, sys %5.2f)\n",
           flags ? "full libcurl transfer" : "kept connection, own framing", tls ? "TLS" : "plain", b.user + b.sys,
           b.user, b.sys);
    SSL_CTX_free(s->tls);
    free(s);
    close(stop[0]);
    close(stop[1]);
    return b.user + b.sys;
}

int main(int argc, char **argv)
{
    uint64_t n;

    if (argc > 1 && str_to_u64(str_of(argv[1]), &n) && n > 0)
        exchanges = (unsigned)n;
    printf("%u exchanges, %d in flight, one worker; CPU of the worker per exchange\n", exchanges, TASKS);
    for (int tls = 0; tls < 2; tls++) {
        double fast = run(tls, 0), full = run(tls, FETCH_FULL);

        printf("%-35s %6.2f times\n", tls ? "ratio, TLS" : "ratio, plain", full / fast);
    }
    return 0;
}
