/*
 * multi.c -- libcurl driven by the loop: sockets become polls, timeouts become timers
 *
 * libcurl tells which sockets it wants watched (on_socket) and when it wants to be called (on_timer).  A socket is a
 * struct sock with one OP_POLL, armed again after each action as long as libcurl wants it.  After each action the
 * messages of the multi are read and the owners' wakes fired.
 *
 * What must hold: no easy handle is removed, and no multi closed, from inside a libcurl callback.  Callbacks run only
 * inside curl_multi_socket_action(), _add_handle() and _remove_handle(); they set timers, start and cancel polls, and
 * fire nothing that runs a task at once.
 *
 * Memory libcurl frees is overwritten first: it holds copies of header lines with credentials (full transfers).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/metric.h"
#include "fetch/internal.h"

/* ---- libcurl's memory -------------------------------------------------------------------------------------------- */

void wiping_free(void *p)
{
    if (!p)
        return;
    bytes_wipe(p, malloc_usable_size(p));
    free(p);
}

void *wiping_realloc(void *old, size_t n)
{
    size_t had = old ? malloc_usable_size(old) : 0;
    void *p;

    if (old && n <= had && n >= had / 2)
        return old;
    p = malloc(n);
    if (p && old) {
        memcpy(p, old, had < n ? had : n);
        wiping_free(old);
    }
    return p;
}

static pthread_once_t global_once = PTHREAD_ONCE_INIT;
static CURLcode global_result;

static void global_init(void)
{
    global_result = curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiping_free, wiping_realloc, strdup, calloc);
}

enum err curl_setup(struct errinfo *info)
{
    const curl_version_info_data *v;

    pthread_once(&global_once, global_init);
    if (global_result != CURLE_OK)
        return err_set(info, E_CONFIG, "libcurl could not be set up: %s", curl_easy_strerror(global_result));
    v = curl_version_info(CURLVERSION_NOW);
    if (v->version_num < 0x075800)
        return err_set(info, E_CONFIG, "libcurl %s is too old; sluice needs 7.88 or later", v->version);
    if (!v->ssl_version || !str_starts(str_of(v->ssl_version), STR("OpenSSL/")))
        return err_set(info, E_CONFIG, "this libcurl (%s) does its TLS with something else than OpenSSL", v->version);
    if (!(v->features & CURL_VERSION_SSL) || !(v->features & CURL_VERSION_ASYNCHDNS))
        return err_set(info, E_CONFIG, "this libcurl (%s) has no TLS or resolves names by blocking", v->version);
    return OK;
}

enum err trust_load(struct fetch *f, const char *ca_file, struct errinfo *info)
{
    const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);
    bool given;

    if (!ca_file)                       /* OpenSSL's own convention, which libcurl's built-in path would overrule */
        ca_file = secure_getenv(X509_get_default_cert_file_env());
    given = ca_file != NULL;
    f->trust = X509_STORE_new();
    if (!f->trust)
        return err_set(info, E_OVERLOADED, "no memory for fetch");
    X509_STORE_set_flags(f->trust, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
    if (!given)
        ca_file = v->cainfo ? v->cainfo : X509_get_default_cert_file();
    if (X509_STORE_load_file(f->trust, ca_file) == 1)
        return OK;
    ERR_clear_error();
    if (given)
        return err_set(info, E_CONFIG, "%s: no certificates could be read from this file", ca_file);
    LOG_WARN("no trusted certificates: no provider can be reached over TLS; install ca-certificates or name a "
             "file in tls.provider_ca",
             LOG_S("file", ca_file));
    return OK;
}

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

struct sock {
    struct op op;
    struct multi *m;
    struct fetch *f;            /* outlives m */
    unsigned want;              /* POLLIN | POLLOUT */
    bool dead;                  /* libcurl is done with it; freed when the poll has ended */
    bool acting;                /* inside curl_multi_socket_action() for it */
};

static void sock_done(struct op *op, int res);

static void sock_free(struct sock *s)
{
    ASSERT(s->f->n_socks > 0);
    s->f->n_socks--;
    free(s);
}

static void sock_arm(struct sock *s)
{
    s->op.events = s->want;
    s->op.done = sock_done;
    op_submit(&s->op);
}

static void messages_read(struct multi *m)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(m->curl, &left))) {
        struct xfer *x = NULL;

        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        if (msg->msg != CURLMSG_DONE)
            continue;
        ASSERT(x && x->multi == m && !x->done);
        x->result = msg->data.result;
        x->done = true;
        if (x->wake)
            wake_fire(x->wake);
    }
}

static void sock_done(struct op *op, int res)
{
    struct sock *s = CONTAINER_OF(op, struct sock, op);
    int events = 0, running;
    struct multi *m = s->m;

    if (s->dead) {
        sock_free(s);
        return;
    }
    if (res >= 0) {
        events |= res & (POLLIN | POLLHUP) ? CURL_CSELECT_IN : 0;
        events |= res & POLLOUT ? CURL_CSELECT_OUT : 0;
        events |= res & (POLLERR | POLLNVAL) ? CURL_CSELECT_ERR : 0;
    } else if (res != -ECANCELED) {
        events = CURL_CSELECT_ERR;
    }
    if (events) {
        s->acting = true;
        curl_multi_socket_action(m->curl, op->fd, events, &running);
        s->acting = false;
        messages_read(m);
    }
    if (s->dead)
        sock_free(s);
    else if (s->want && !op_active(&s->op))
        sock_arm(s);
}

static unsigned poll_events(int what)
{
    switch (what) {
    case CURL_POLL_IN:
        return POLLIN;
    case CURL_POLL_OUT:
        return POLLOUT;
    case CURL_POLL_INOUT:
        return POLLIN | POLLOUT;
    default:
        return 0;
    }
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *sock_arg)
{
    struct multi *m = arg;
    struct sock *s = sock_arg;

    if (what == CURL_POLL_REMOVE) {
        if (!s)
            return 0;
        s->dead = true;
        if (op_active(&s->op))
            op_cancel(&s->op);
        else if (!s->acting)
            sock_free(s);
        return 0;
    }
    if (!s) {
        s = calloc(1, sizeof(*s));
        if (!s)
            return -1;
        s->m = m;
        s->f = m->f;
        s->op.kind = OP_POLL;
        s->op.fd = fd;
        m->f->n_socks++;
        curl_multi_assign(m->curl, fd, s);
    }
    s->want = poll_events(what);
    if (op_active(&s->op) && s->op.events != s->want)
        op_cancel(&s->op);                              /* sock_done() arms it again */
    else if (!op_active(&s->op) && !s->acting && s->want)
        sock_arm(s);
    return 0;
}

static void multi_act(struct multi *m)
{
    int running;

    curl_multi_socket_action(m->curl, CURL_SOCKET_TIMEOUT, 0, &running);
    messages_read(m);
}

static void multi_fire(struct timer *t)
{
    multi_act(CONTAINER_OF(t, struct multi, timer));
}

/* After an address that fails at once libcurl 7.88 moves on to the next one and then waits, without a socket to wait
 * for, until half of the connect timeout has passed. Pausing and going on is the public way to have a transfer looked
 * at soon. */
static void nudge(struct multi *m)
{
    struct xfer *x;

    while ((x = m->nudged)) {
        m->nudged = x->next_nudged;
        x->nudged = false;
        if (x->done)
            continue;
        curl_easy_pause(x->easy, CURLPAUSE_RECV);
        curl_easy_pause(x->easy, CURLPAUSE_CONT);
    }
}

static void multi_kicked(struct mail *mail)
{
    struct multi *m = CONTAINER_OF(mail, struct multi, kick);

    m->kicked = false;
    if (!m->curl) {                     /* closed meanwhile */
        free(m);
        return;
    }
    nudge(m);
    multi_act(m);
}

/* libcurl wants to be called now: a timer would take until the next tick. */
static void multi_kick(struct multi *m)
{
    if (m->kicked)
        return;
    m->kicked = true;
    m->kick.fn = multi_kicked;
    loop_post(loop_self(), &m->kick);
}

static int on_timer(CURLM *curl, long ms, void *arg)
{
    struct multi *m = arg;

    timer_clear(&m->timer);
    if (ms == 0)
        multi_kick(m);
    if (ms > 0)
        timer_set(&m->timer, loop_now() + (ns_t)ms * NS_PER_MS, multi_fire);
    return 0;
}

/* ---- multis ------------------------------------------------------------------------------------------------------ */

struct multi *multi_open(struct fetch *f)
{
    struct multi *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->f = f;
    m->curl = curl_multi_init();
    if (!m->curl) {
        free(m);
        return NULL;
    }
    curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m);
    curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m);
    /* above what it will ever hold: libcurl must not close a connection of ours to make room */
    curl_multi_setopt(m->curl, CURLMOPT_MAXCONNECTS, (long)MULTI_CONNECTIONS * 4);
    return m;
}

static void multi_link(struct multi **list, struct multi *m)
{
    m->next = *list;
    m->prev = list;
    if (m->next)
        m->next->prev = &m->next;
    *list = m;
}

static void multi_unlink(struct multi *m)
{
    *m->prev = m->next;
    if (m->next)
        m->next->prev = m->prev;
}

void multi_close(struct multi *m)
{
    ASSERT(m->n == 0);
    if (m->prev)
        multi_unlink(m);
    curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, NULL);
    curl_multi_cleanup(m->curl);
    m->curl = NULL;
    timer_clear(&m->timer);
    if (!m->kicked)
        free(m);
}

/* Multis are kept when they empty, until the worker drains. */
struct multi *multi_roomy(struct fetch *f)
{
    struct multi *m;

    if (!f->roomy) {
        m = multi_open(f);
        if (!m)
            return NULL;
        multi_link(&f->roomy, m);
    }
    return f->roomy;
}

static void multi_count(struct multi *m, int delta)
{
    m->n += (unsigned)delta;
    if (!m->prev)
        return;                         /* a group's: that decides */
    if (m->n == 0 && m->f->draining) {
        multi_close(m);
        return;
    }
    if ((delta > 0 && m->n == MULTI_CONNECTIONS) || (delta < 0 && m->n == MULTI_CONNECTIONS - 1)) {
        multi_unlink(m);
        multi_link(m->n == MULTI_CONNECTIONS ? &m->f->full : &m->f->roomy, m);
    }
}

void multis_drain(struct fetch *f)
{
    struct multi *m, *next;

    for (m = f->roomy; m; m = next) {
        next = m->next;
        if (m->n == 0)
            multi_close(m);
    }
}

/* ---- transfers --------------------------------------------------------------------------------------------------- */

/* Every socket that libcurl opens is made here, after its address was looked at. */
static curl_socket_t on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct xfer *x = arg;
    int fd;

    if (purpose != CURLSOCKTYPE_IPCXN || (!x->proxied && !fetch_guard_allows(&x->guard, fetch_net_of(&a->addr)))) {
        x->denied = true;
        if (!x->nudged) {
            x->nudged = true;
            x->next_nudged = x->multi->nudged;
            x->multi->nudged = x;
            multi_kick(x->multi);
        }
        return CURL_SOCKET_BAD;
    }
    fd = provider_socket(a->family);
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* The connection stands and is about to be used: once, or again only where that is harmless. */
static int on_ready(void *arg, char *peer, char *local, int peer_port, int local_port)
{
    struct xfer *x = arg;
    struct sockaddr_in a4 = { .sin_family = AF_INET };
    struct sockaddr_in6 a6 = { .sin6_family = AF_INET6 };
    enum fetch_net net = FETCH_NET_NEVER;

    if (inet_pton(AF_INET, peer, &a4.sin_addr) == 1)
        net = fetch_net_of((const struct sockaddr *)&a4);
    else if (inet_pton(AF_INET6, peer, &a6.sin6_addr) == 1)
        net = fetch_net_of((const struct sockaddr *)&a6);
    if (!x->proxied && !fetch_guard_allows(&x->guard, net)) {
        x->denied = true;
        return CURL_PREREQFUNC_ABORT;
    }
    x->sends++;
    if (x->sends > 1 && !x->safe) {
        x->resent = true;
        return CURL_PREREQFUNC_ABORT;
    }
    return CURL_PREREQFUNC_OK;
}

int xfer_take_socket(struct xfer *x)
{
    curl_socket_t fd = CURL_SOCKET_BAD;

    ASSERT(x->done && !x->taken);
    if (curl_easy_getinfo(x->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
        return -1;
    x->taken = true;
    return fd;
}

/* All connections of a worker share one store of trusted certificates: reading the file takes tens of milliseconds,
 * which libcurl would spend on the loop, once per multi. It is given no file, so that it adds nothing to ours. */
static CURLcode on_tls(CURL *easy, void *ctx, void *arg)
{
    const struct xfer *x = arg;

    SSL_CTX_set1_cert_store(ctx, x->f->trust);
    return CURLE_OK;
}

enum { CONNECT_BUFFER = 1024 };         /* libcurl's, of a handle that will not transfer anything; the least it takes */

static bool common_options(struct xfer *x, const char *url)
{
    const struct fetch *f = x->f;
    CURL *c = x->easy;
    CURLcode rc = CURLE_OK;

#define SET(option, value) (rc = rc ? rc : curl_easy_setopt(c, option, value))
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PRIVATE, x);
    SET(CURLOPT_ERRORBUFFER, x->why);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROTOCOLS_STR, str_starts(str_of(url), STR("https:")) ? "https" : "http");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_PROXY, f->proxy ? f->proxy : "");       /* "": not even the environment's */
    SET(CURLOPT_NOPROXY, "");
    SET(CURLOPT_HTTPPROXYTUNNEL, f->proxy ? 1L : 0L);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_SHARE, f->share);
    SET(CURLOPT_RESOLVE, f->resolve);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open);
    SET(CURLOPT_OPENSOCKETDATA, x);
    SET(CURLOPT_PREREQFUNCTION, on_ready);
    SET(CURLOPT_PREREQDATA, x);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(f->opt.connect_timeout / NS_PER_MS));
    SET(CURLOPT_QUICK_EXIT, 1L);                        /* a lookup under way is left behind, never waited for */
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CAINFO, NULL);
    SET(CURLOPT_CAPATH, NULL);
    SET(CURLOPT_SSL_CTX_FUNCTION, on_tls);
    SET(CURLOPT_SSL_CTX_DATA, x);
#undef SET
    return rc == CURLE_OK;
}

bool xfer_open(struct xfer *x, struct fetch *f, const struct fetch_guard *g, const char *url)
{
    *x = (struct xfer){ .f = f, .guard = *g, .proxied = f->proxy != NULL };
    x->easy = curl_easy_init();
    if (!x->easy)
        return false;
    return common_options(x, url);
}

/* Every socket of a CONNECT_ONLY transfer ends here; but the one that was taken stays open. (Those of full transfers
 * outlive them, in the connection cache of their multi, so nothing of theirs may be told of it.) */
static int on_close(void *arg, curl_socket_t fd)
{
    const struct xfer *x = arg;

    return x->taken ? 0 : close(fd);
}

bool xfer_connects_only(struct xfer *x)
{
    return curl_easy_setopt(x->easy, CURLOPT_CONNECT_ONLY, 1L) == CURLE_OK &&
           curl_easy_setopt(x->easy, CURLOPT_BUFFERSIZE, (long)CONNECT_BUFFER) == CURLE_OK &&
           curl_easy_setopt(x->easy, CURLOPT_CLOSESOCKETFUNCTION, on_close) == CURLE_OK &&
           curl_easy_setopt(x->easy, CURLOPT_CLOSESOCKETDATA, x) == CURLE_OK;
}

bool xfer_start(struct xfer *x, struct multi *m)
{
    if (curl_multi_add_handle(m->curl, x->easy) != CURLM_OK)
        return false;
    x->multi = m;
    multi_count(m, +1);
    return true;
}

enum err await_xfer(struct xfer *x, ns_t deadline)
{
    struct wake w = { 0 };
    enum err e;

    if (x->done)
        return await_sleep(0);          /* cancelled meanwhile? */
    x->wake = &w;
    e = await_wake(&w, deadline);
    x->wake = NULL;
    if (e == E_TIMEOUT && x->done)
        e = OK;
    ASSERT(e != OK || x->done);
    return e;
}

void xfer_close(struct xfer *x)
{
    struct multi *m = x->multi;

    if (!x->easy)
        return;
    ASSERT(x->wake == NULL && (m || !x->nudged));
    for (struct xfer **at = m ? &m->nudged : NULL; x->nudged; at = &(*at)->next_nudged) {
        if (*at == x) {
            *at = x->next_nudged;
            x->nudged = false;
            break;
        }
    }
    if (m) {
        CURLMcode rc = curl_multi_remove_handle(m->curl, x->easy);

        ASSERT(rc == CURLM_OK);
    }
    curl_easy_cleanup(x->easy);
    x->easy = NULL;
    x->multi = NULL;
    if (m)
        multi_count(m, -1);
}
