/*
 * internal.h -- what the files of fetch/ share. Not for other rooms (unit tests of the pure parts include it).
 *
 * From the ground up: origin.c (hosts, networks), request.c (a request's bytes), reply.c and inflate.c (an answer's
 * bytes) are pure.  multi.c runs libcurl on the loop.  channel.c moves bytes on what is connected.  connect.c opens
 * connections, pool.c keeps them and queues for them.  exchange.c, stream.c over session.c (HTTP/2) and full.c carry
 * one exchange, each in its way.  fetch.c is the front.
 */
#ifndef FETCH_INTERNAL_H
#define FETCH_INTERNAL_H

#include <curl/curl.h>
#include <openssl/ssl.h>
#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "base/map.h"
#include "fetch/fetch.h"
#include "http/parse.h"
#include "loop/loop.h"
#include "loop/task.h"

/* ---- origin.c ---------------------------------------------------------------------------------------------------- */

enum fetch_net { FETCH_NET_PUBLIC, FETCH_NET_LOOPBACK, FETCH_NET_PRIVATE, FETCH_NET_NEVER };

enum fetch_net fetch_net_of(const struct sockaddr *sa);        /* families other than IPv4 and IPv6: NEVER */
bool fetch_guard_allows(const struct fetch_guard *g, enum fetch_net net);
bool fetch_origin_valid(const struct fetch_origin *o);
/* Scheme, and the address if the host is one. */
enum err fetch_origin_allowed(const struct fetch_origin *o, const struct fetch_guard *g, struct errinfo *info);

/* ---- request.c --------------------------------------------------------------------------------------------------- */

bool fetch_path_valid(struct str path);
/* E_CONNECTOR_FAULT with the reason, naming the field, never its value. origin_known: that has been looked at. */
enum err fetch_request_check(const struct fetch_request *req, bool origin_known, struct errinfo *info);
/* Is there a field called so among those that the caller adds? */
bool fetch_request_names(const struct fetch_request *req, struct str name);
static inline bool fetch_is_safe(const struct fetch_request *req)
{
    return str_is(req->method, "GET") || str_is(req->method, "HEAD");
}

/* The bytes to send: `p` (on the heap, secrets in place) and then `rest`, the caller's. */
struct wire {
    char *p;
    size_t len;
    struct str rest;
};

/* The request must have passed fetch_request_check(). False when memory is out. */
bool wire_build(struct wire *w, const struct fetch_request *req);
/* Only the fields a full transfer adds itself, each ended by '\0'; the body alone. */
bool wire_build_fields(struct wire *w, const struct fetch_request *req);
bool wire_build_body(struct wire *w, const struct fetch_request *req);
void wire_wipe(struct wire *w);         /* overwrites, then frees */

/* ---- reply.c ----------------------------------------------------------------------------------------------------- */

/* Reads one answer from pieces of any size; what it keeps lies in the arena, or in `part` until finished. */
struct reader {
    struct arena *arena;
    size_t max;
    bool was_head;
    enum { READER_HEAD, READER_LENGTH, READER_CHUNKED, READER_UNTIL_CLOSE, READER_DONE } state;
    struct buf part;                    /* an incomplete head, or a body of unknown length */
    size_t parsed;                      /* bytes of an incomplete head that were looked at */
    unsigned interim;
    char *body;                         /* READER_LENGTH: in the arena */
    size_t body_len, body_size;
    struct http_chunked chunked;
    bool any;                           /* a byte of the answer was seen */
    bool keeps;                         /* HTTP says that the connection may go on */
    struct fetch_reply reply;
    const char *why;                    /* static text behind E_UPSTREAM_GARBLED and E_UPSTREAM_TOO_LARGE */
};

void reader_init(struct reader *r, struct arena *arena, size_t max, bool was_head);
/* The head of an answer that came in another form than HTTP/1.1's; its fields are in the arena. Then feed the body. */
enum err reader_head(struct reader *r, int status, const struct fetch_field *fields, unsigned n,
                     const struct http_body *body);
/* OK: *ret_used bytes were taken; fewer than in.len only when the answer is complete (bytes behind it are nobody's). */
enum err reader_feed(struct reader *r, struct str in, size_t *ret_used);
/* The peer closed. OK: that was the end of the body. E_CLOSED: it was not. E_UPSTREAM_GARBLED: what came is none. */
enum err reader_eof(struct reader *r);
/* Where the next bytes of the body can be received directly, without a copy; NULL when there is no such place. */
char *reader_room(struct reader *r, size_t *ret_size);
enum err reader_filled(struct reader *r, size_t n);
static inline bool reader_done(const struct reader *r) { return r->state == READER_DONE; }
static inline bool reader_has_head(const struct reader *r) { return r->reply.status != 0; }
/* After reader_done(): unpacks the body if it is packed, and hands the reply out. */
enum err reader_finish(struct reader *r, struct fetch_reply *ret);
void reader_release(struct reader *r);

/* Content-Encoding of `reply` taken off its body, in the arena. E_UPSTREAM_GARBLED or E_UPSTREAM_TOO_LARGE, *why says
 * more. */
enum err reply_unpack(struct fetch_reply *reply, struct arena *arena, size_t max, const char **why);
/* inflate.c: gzip (RFC 1952) or zlib (RFC 1950), exactly one stream. */
enum err inflate_bounded(struct str in, bool gzip, size_t max, struct buf *out, const char **why);

/* ---- multi.c: libcurl on the loop -------------------------------------------------------------------------------- */

enum {
    /* connections begun per turn, by cost: 0.1 ms of the loop plain, 1 to 1.7 ms with TLS (2,500 at once, loopback) */
    BEGIN_PLAIN = 1, BEGIN_TLS = 16, BEGIN_MAX = 64,
    MULTI_CONNECTIONS = 64,             /* of full transfers or being opened: libcurl walks all of a multi's */
    SCRATCH_SIZE = 64 * 1024,
    FETCH_MAGIC = 0x66657463, CONN_MAGIC = 0x636f6e6e,
};

/* A multi with the timer and the sockets libcurl wants watched. */
struct multi {
    CURLM *curl;
    struct fetch *f;
    unsigned n;                         /* easy handles in it */
    struct timer timer;
    struct mail kick;                   /* instead of a timer of 0 ms */
    bool kicked;
    struct xfer *nudged;                /* to be looked at, although libcurl does not ask for it */
    struct multi *next, **prev;         /* f->roomy while n < MULTI_CONNECTIONS, else f->full; NULL prev: a group's */
};

/* An easy handle at work. The owner embeds it; it must stay where it is until xfer_close(). */
struct xfer {
    struct fetch *f;
    CURL *easy;
    struct multi *multi;
    struct fetch_guard guard;
    bool proxied;
    bool denied;                        /* the guard refused an address */
    bool resent;                        /* prereq: libcurl wanted to send the request a second time and was stopped */
    bool safe;                          /* the request may be sent a second time */
    unsigned sends;                     /* how often a connection was about to get the request */
    bool done;
    CURLcode result;
    struct wake *wake;
    bool taken;                         /* its socket: libcurl does not close it */
    bool nudged;
    struct xfer *next_nudged;
    char why[CURL_ERROR_SIZE];
};

/* They overwrite what they free. */
void wiping_free(void *p);
void *wiping_realloc(void *old, size_t n);
struct multi *multi_open(struct fetch *f);
struct multi *multi_roomy(struct fetch *f);     /* for one more CONNECT_ONLY connection */
void multi_close(struct multi *m);      /* no easy handle in it */
void multis_drain(struct fetch *f);     /* closes those nobody uses; the others close with their last handle */
/* An easy handle with everything set that both kinds of transfer share. False when memory is out. */
bool xfer_open(struct xfer *x, struct fetch *f, const struct fetch_guard *g, const char *url);
bool xfer_connects_only(struct xfer *x);        /* before it starts: it will transfer nothing */
bool xfer_start(struct xfer *x, struct multi *m);
/* OK when libcurl is done with it (x->result), E_TIMEOUT, E_CANCELLED. */
enum err await_xfer(struct xfer *x, ns_t deadline);
void xfer_close(struct xfer *x);        /* closes its connection too when it is CONNECT_ONLY and was not taken */
/* The socket of a CONNECT_ONLY transfer that is done: from now on the caller's, xfer_close() leaves it open. -1: it
 * is gone. */
int xfer_take_socket(struct xfer *x);
enum err curl_setup(struct errinfo *info);
enum err trust_load(struct fetch *f, const char *ca_file, struct errinfo *info);

/* ---- channel.c: a connected socket, plain or with TLS ------------------------------------------------------------ */

struct channel {
    int fd;
    SSL *ssl;                           /* NULL: plain */
    bool ready;                         /* TLS: the handshake is done */
};

enum moved {
    MOVED,                              /* *ret_n bytes; received 0: the peer has closed */
    MOVED_LATER,                        /* nothing can be moved now */
    MOVED_NEVER,                        /* the connection is broken */
};

SSL_CTX *channel_settings(X509_STORE *trust);   /* for all channels that trust these; NULL when memory is out */
bool channel_speaks_http2(const struct channel *ch);
/* Begins TLS on a plain channel. http2: offered, and preferred to HTTP/1.1. E_UPSTREAM_DOWN with the reason,
 * E_OVERLOADED, E_TIMEOUT, E_CANCELLED. */
enum err await_channel_tls(struct channel *ch, SSL_CTX *settings, const char *host, bool http2, ns_t deadline,
                           struct errinfo *info);
enum moved channel_send(struct channel *ch, const char *p, size_t n, size_t *ret_n);
enum moved channel_recv(struct channel *ch, char *p, size_t n, size_t *ret_n);
/* Nothing to read now, and not closed: asked between answers. Housekeeping of TLS is done on the way. */
bool channel_quiet(struct channel *ch);
/* After the peer closed: did it do so itself, rather than somebody between? Always so without TLS: nobody can tell. */
bool channel_said_goodbye(const struct channel *ch);
void channel_close(struct channel *ch);

/* ---- connect.c --------------------------------------------------------------------------------------------------- */

struct group;

/* The address that libcurl found last. */
struct way {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to;
    socklen_t len;                      /* 0: none */
    ns_t until;                         /* then it is looked for again */
};

/* Waits for a turn in which one more connection may be begun. E_TIMEOUT, E_CANCELLED. */
enum err await_begin(struct fetch *f, bool handshake, ns_t deadline);
/* A channel to the group's origin, over which nothing has been said. http2: with TLS it is offered. */
enum err await_channel(struct group *g, const struct fetch_request *req, bool http2, struct channel *ret,
                       struct errinfo *info);
/* ch: a connection to its origin. */
bool group_speaks_http2(const struct group *g, const struct channel *ch);
/* A TCP socket as all of those to providers are, not connected; -1: none is to be had. */
int provider_socket(int family);

/* ---- pool.c ------------------------------------------------------------------------------------------------------ */

struct conn {
    uint32_t magic;
    struct fetch *f;
    struct group *group;
    struct channel channel;
    struct op poll;                     /* readable; stays armed while idle, so that a close is noticed */
    bool readable;                      /* poll fired since it was last armed */
    bool dead;                          /* closed; only waits for poll to end */
    struct wake *wake;                  /* the exchange that waits for readable */
    struct session *session;            /* it speaks HTTP/2: several exchanges share it */
    unsigned users;                     /* ... so many */
    bool opening;                       /* ... its peer has not said yet how many may */
    bool shared;                        /* ... it has room for more */
    ns_t idle_since;
    struct conn *below, *above;         /* LIFO of the group: of idle ones, or of shared ones */
    struct conn *older, *newer;         /* all idle ones of the worker */
    bool idle;
};

/* All of one tenant, one origin and one guard. A place is the right to one connection (or full transfer). */
struct group {
    /* what an exchange on a kept connection looks at: one cache line */
    struct fetch *f;
    struct conn *idle;                  /* newest first */
    struct conn *shared;                /* in use, with room for another exchange */
    struct waiter *first, *last;        /* in line for a place; then nothing is idle */
    unsigned places;                    /* taken: connections, idle ones included, and full transfers */
    unsigned in_line, opening;          /* waiters; connections being opened that may speak HTTP/2 */
    enum { SPEAKS_UNKNOWN, SPEAKS_HTTP1, SPEAKS_HTTP2 } speaks;     /* the origin, when a connection was opened last */

    struct str key;                     /* behind the group */
    uint64_t hash;                      /* of the key */
    struct fetch_origin origin;
    struct fetch_guard guard;
    struct way way;
    unsigned finders;                   /* of those who open a connection: who has libcurl look for the way ... */
    TAILQ_HEAD(, seeker) seekers;       /* ... and who waits for what they find */
    struct multi *full;                 /* for full transfers, a list: libcurl keeps their connections inside */
    unsigned full_users;
    struct timer full_timer;
};

enum { ORIGINS_MAX = 64 };

struct fetch {
    uint32_t magic;
    struct fetch_options opt;
    char *proxy;
    X509_STORE *trust;
    SSL_CTX *tls;                       /* of all channels; it trusts the same */
    struct curl_slist *resolve;
    CURLSH *share;                      /* the DNS cache, for all multis of this worker */
    struct multi *roomy, *full;
    struct map groups;
    struct conn *oldest, *newest;       /* idle */
    unsigned n_idle, n_conns, n_exchanges;
    unsigned n_socks;                   /* polls whose end is awaited: libcurl's sockets, closed connections */
    struct nghttp2_session_callbacks *h2_callbacks;     /* for all sessions of this worker */
    struct nghttp2_option *h2_options;
    struct {
        struct fetch_origin origin;
        bool http2;
    } seen[ORIGINS_MAX];                /* what origins spoke last, whoever's they were: a guess, never relied on */
    unsigned n_seen;
    struct timer idle_timer;
    ns_t begin_turn;                    /* the turn that begin_cost counts for */
    unsigned begin_cost;
    bool draining;
    char scratch[SCRATCH_SIZE];         /* received into and emptied before anything waits */
};

/* The group of a request whose origin was allowed before; NULL: there is none now. It may go whenever a task waits. */
struct group *group_known(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *g);
/* A connection for the request: kept (`*ret_reused`) or new. since: not 0: new whatever is kept, or shared with others
 * and opened at that time or later. Errors as await_fetch(). */
/* known: as group_known() says just now, or NULL. */
enum err await_conn(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *g, struct group *known,
                    ns_t since, struct conn **ret, bool *ret_reused, struct errinfo *info);
void conn_release(struct conn *c, bool keep);
/* Its session has learned how many may use it, or that nobody else may. */
void conn_settled(struct conn *c);
/* What fetch_reply's `looked` says. */
void conn_looked(const struct conn *c, const void *ret[FETCH_LOOKED]);
enum err await_readable(struct conn *c, ns_t deadline);
/* A place for a full transfer, and the group's multi to run it in. */
enum err await_place(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *g, struct group **ret,
                     struct errinfo *info);
struct multi *full_multi(struct group *g);      /* one of the group's with room; NULL when memory is out */
void full_release(struct group *g);
void pool_drain(struct fetch *f);

/* ---- session.c: a connection that speaks HTTP/2 ------------------------------------------------------------------ */

bool session_setup(struct fetch *f);
void session_unset(struct fetch *f);
bool session_open(struct conn *c);      /* false when memory is out */
void session_close(struct conn *c);     /* no exchange is left */
unsigned session_room(const struct conn *c);    /* exchanges that may begin beside those under way */
ns_t session_opened_at(const struct conn *c);
/* The poll has said `events`, or was cancelled. What to wait for next; 0: it has ended. */
unsigned session_events(struct conn *c, int events);
bool session_closing(const struct conn *c);     /* it takes no new exchanges */

/* ---- exchange.c, stream.c, full.c -------------------------------------------------------------------------------- */

/* kept: not just opened. E_CLOSED: the connection was gone and not one byte of an answer had come, or (nothing is sent
 * then) a kept one was not quiet; the caller decides what that means. */
enum err await_exchange(struct conn *c, bool kept, const struct fetch_request *req, struct arena *arena,
                        struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info);
/* The same as one of several on a connection that speaks HTTP/2. E_CLOSED also when the peer says that it has not
 * looked at the request, or none left. */
enum err await_stream(struct conn *c, bool kept, const struct fetch_request *req, struct arena *arena,
                      struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info);
/* The reply, if it is whole (e: OK so far); the connection goes back. */
enum err exchange_end(struct conn *c, bool keep, struct reader *r, enum err e, struct fetch_reply *ret,
                      enum fetch_sent *sent);
/* What the end of an exchange means to who asked for it. */
enum err exchange_outcome(const struct fetch_request *req, enum fetch_sent sent, const struct reader *r, enum err e,
                          struct errinfo *info);
enum err await_full(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *g, struct arena *arena,
                    struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info);

#endif
