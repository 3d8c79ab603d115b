/*
 * floor.c -- bench-floor: the least that libcurl can do between a client and a provider
 *
 * A request comes in, one upstream exchange is made of it by a multi handle (easy handles are reused, connections are
 * kept), and its answer goes back.  Nothing is looked at, checked, decided or recorded: what an engine that transfers
 * with libcurl costs beyond this is its own, and what it costs less, it owes to not transferring with libcurl.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "bench/gen/server.h"

enum { CONNECTIONS_KEPT = 20000 };

struct exchange {
    CURL *easy;
    struct peer *peer;
    struct buf body;
    char url[512];
    struct exchange *next;              /* free */
};

static struct {
    int64_t port, tls_port;
    const char *cert, *key, *upstream, *ca, *exchange, *bearer;
} opt = { .tls_port = -1 };

static struct {
    struct server server;
    CURLM *multi;
    struct curl_slist *fields;
    struct exchange *free;
    int64_t timer;                      /* when curl wants to be called; INT64_MAX: not at all */
    char method[16], path[400];         /* of --exchange; path "": as the client asked */
} proxy = { .timer = INT64_MAX };

/* ---- exchanges --------------------------------------------------------------------------------------------------- */

static size_t on_body(char *bytes, size_t one, size_t n, void *arg)
{
    struct exchange *x = arg;

    buf_add(&x->body, bytes, n * one);
    return x->body.overflow ? 0 : n * one;
}

static struct exchange *exchange_new(void)
{
    struct exchange *x = proxy.free;

    if (x) {
        proxy.free = x->next;
        return x;
    }
    x = need(calloc(1, sizeof(*x)));
    x->body = BUF_INIT(SERVER_REQUEST_MAX);
    x->easy = need(curl_easy_init());
    curl_easy_setopt(x->easy, CURLOPT_PRIVATE, x);
    curl_easy_setopt(x->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(x->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, proxy.fields);
    curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(x->easy, CURLOPT_WRITEDATA, x);
    if (opt.ca)
        curl_easy_setopt(x->easy, CURLOPT_CAINFO, opt.ca);
    return x;
}

static void on_request(struct server *s, struct peer *peer, const struct server_request *rq)
{
    struct exchange *x = exchange_new();
    struct str path = proxy.path[0] ? str_of(proxy.path) : rq->path;
    struct str method = proxy.method[0] ? str_of(proxy.method) : rq->method;
    char url[sizeof(x->url)];

    x->peer = peer;
    snprintf(url, sizeof(url), "%s%.*s", opt.upstream, STR_ARG(path));
    if (strcmp(url, x->url) != 0) {
        memcpy(x->url, url, sizeof(url));
        curl_easy_setopt(x->easy, CURLOPT_URL, url);
    }
    if (str_is(method, "GET")) {
        curl_easy_setopt(x->easy, CURLOPT_HTTPGET, 1L);
    } else {
        curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE, (long)rq->body.len);
        curl_easy_setopt(x->easy, CURLOPT_COPYPOSTFIELDS, rq->body.p);
    }
    buf_clear(&x->body);
    curl_multi_add_handle(proxy.multi, x->easy);
}

static void reap(void)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(proxy.multi, &left))) {
        CURLcode rc = m->data.result;
        struct exchange *x;
        long status = 502;

        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        if (rc == CURLE_OK)
            curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
        curl_multi_remove_handle(proxy.multi, x->easy);
        peer_reply_json(&proxy.server, x->peer, (int)status, "", rc == CURLE_OK ? buf_str(&x->body) : STR("{}"));
        x->next = proxy.free;
        proxy.free = x;
    }
}

/* ---- curl in the loop -------------------------------------------------------------------------------------------- */

static void *pointer_of(curl_socket_t fd)
{
    return (void *)((uintptr_t)fd << 1 | 1);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct epoll_event ev = { .data.ptr = pointer_of(fd) };

    ev.events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u);
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(proxy.server.epoll, EPOLL_CTL_DEL, fd, NULL);
        curl_multi_assign(proxy.multi, fd, NULL);
        return 0;
    }
    if (epoll_ctl(proxy.server.epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) < 0)
        die_errno("epoll");
    curl_multi_assign(proxy.multi, fd, &proxy);
    return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    proxy.timer = ms < 0 ? INT64_MAX : now_ns() + ms * 1000000;
    return 0;
}

static void on_event(void *ptr, uint32_t events)
{
    int what = (events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0), running;

    curl_multi_socket_action(proxy.multi, (curl_socket_t)((uintptr_t)ptr >> 1), what, &running);
    reap();
}

static int64_t on_time(struct server *s, int64_t now)
{
    int running;

    while (proxy.timer <= now) {
        proxy.timer = INT64_MAX;
        curl_multi_socket_action(proxy.multi, CURL_SOCKET_TIMEOUT, 0, &running);
        reap();
    }
    return proxy.timer;
}

/* ---- start and end ----------------------------------------------------------------------------------------------- */

static const struct option_row rows[] = {
    { "upstream", "URL", OPTION_TEXT, &opt.upstream, "http:// or https://ADDRESS:PORT, without a path" },
    { "ca", "FILE", OPTION_TEXT, &opt.ca, "certificates to trust, for https" },
    { "exchange", "'METHOD PATH'", OPTION_TEXT, &opt.exchange, "what is asked of it; default: what the client asked" },
    { "bearer", "TOKEN", OPTION_TEXT, &opt.bearer, "with this credential" },
    { "port", "P", OPTION_COUNT, &opt.port, "0 (default): any; prints \"listening http://127.0.0.1:PORT\"" },
    { "tls-port", "P", OPTION_COUNT, &opt.tls_port, "the same with TLS, beside it; needs --cert and --key" },
    { "cert", "FILE", OPTION_TEXT, &opt.cert, "PEM: its certificate, then the chain" },
    { "key", "FILE", OPTION_TEXT, &opt.key, "PEM" },
    { 0 },
};

static const char about[] =
    "bench-floor: a proxy on 127.0.0.1 that does with libcurl what cannot be left out\n\n"
    "Each request becomes one upstream exchange by a multi handle; its answer goes back.\n\n";

static void set_up_curl(void)
{
    char line[16384];

    curl_global_init(CURL_GLOBAL_DEFAULT);
    proxy.multi = need(curl_multi_init());
    curl_multi_setopt(proxy.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(proxy.multi, CURLMOPT_TIMERFUNCTION, on_timer);
    /* by default curl would close what it has just opened whenever there are few transfers */
    curl_multi_setopt(proxy.multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT);
    proxy.fields = curl_slist_append(proxy.fields, "Content-Type: application/json");
    if (opt.bearer) {
        snprintf(line, sizeof(line), "Authorization: Bearer %s", opt.bearer);
        proxy.fields = curl_slist_append(proxy.fields, line);
    }
    need(proxy.fields);
}

int main(int argc, char **argv)
{
    SSL_CTX *tls = NULL;

    options_read(argc, argv, about, rows);
    if (!opt.upstream)
        die("--upstream URL is needed");
    if (opt.exchange && (sscanf(opt.exchange, "%15s %399s", proxy.method, proxy.path) != 2 || proxy.path[0] != '/'))
        die("--exchange is 'METHOD PATH', not \"%s\"", opt.exchange);
    proxy.server.handler = on_request;
    proxy.server.between = on_time;
    proxy.server.other = on_event;
    server_init(&proxy.server);
    set_up_curl();
    server_listen(&proxy.server, (int)opt.port, NULL);
    if (opt.tls_port >= 0) {
        tls = wire_server_tls(opt.cert, opt.key);
        server_listen(&proxy.server, (int)opt.tls_port, tls);
    }
    server_run(&proxy.server);
    server_release(&proxy.server);
    for (struct exchange *x; (x = proxy.free); free(x)) {
        proxy.free = x->next;
        curl_easy_cleanup(x->easy);
        buf_release(&x->body);
    }
    curl_multi_setopt(proxy.multi, CURLMOPT_SOCKETFUNCTION, NULL);
    curl_multi_cleanup(proxy.multi);
    curl_slist_free_all(proxy.fields);
    curl_global_cleanup();
    SSL_CTX_free(tls);
    return 0;
}
