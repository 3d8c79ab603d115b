/*
 * fetch.h -- one request to a provider and its answer
 *
 * libcurl connects (names, proxies), we frame: an exchange is our own HTTP/1.1, plain or over TLS, on a kept connection
 * (design 6), or, where the provider chooses so, one of several on a connection that speaks HTTP/2.  What that does not
 * cover takes a full libcurl transfer behind the same function.  No curl type appears here.
 *
 * One struct fetch per worker, used by that worker's tasks only.  A connection belongs to one tenant and one origin for
 * its whole life.  Redirects are never followed: a 3xx is an answer like any other.
 *
 * The word that matters to a caller is enum fetch_sent: it says whether the provider can have seen the request.
 */
#ifndef FETCH_FETCH_H
#define FETCH_FETCH_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/secret.h"
#include "base/str.h"

struct fetch;

enum {
    FETCH_HOST_MAX = 253,               /* RFC 1035; an IPv6 literal with its brackets fits */
    FETCH_PATH_MAX = 7 * 1024,          /* path and query */
    FETCH_HEADERS_MAX = 48,             /* fields a caller may add */
    FETCH_PARTS_MAX = 32,               /* pieces of a body */
    FETCH_TENANT_MAX = 255,
    FETCH_BODY_COPY = 16 * 1024,        /* bodies up to here leave with the head, longer ones in place */
    FETCH_INTERIM_MAX = 8,              /* 1xx answers before the real one */
    FETCH_RATIO_MAX = 200,              /* a body may unpack to this many times its size ... */
    /* HTTP/2 takes less where exchanges share a connection: with 64 at once 0.75 of the CPU of a whole call, with 6 to
     * 8 as much, with one or two 1.2 times as much (docs/performance.md) */
    FETCH_HTTP1_FIRST = 8,
    FETCH_RATIO_FREE = 64 * 1024,       /* ... looked at once it is larger than this */
};

/* ---- where to ---------------------------------------------------------------------------------------------------- */

struct fetch_origin {
    bool tls;
    bool plain_http2;                   /* without TLS, where it is agreed on: HTTP/2 at once (RFC 9113 3.3) */
    uint16_t port;
    char host[FETCH_HOST_MAX + 1];      /* lower case; an IPv6 literal keeps its brackets */
};

/* "https://host[:port]", a final '/' allowed. Refuses what two parsers could read differently: user info, percent
 * signs, decimal, octal, hexadecimal and short IPv4 forms, empty labels, a final dot, zone ids. E_EGRESS_DENIED with
 * the reason. */
enum err fetch_origin_parse(struct str text, struct fetch_origin *ret, struct errinfo *info);
/* The same with a path and query behind it; *ret_path is a view into `url`, "/" when there is none. No fragments. */
enum err fetch_url_parse(struct str url, struct fetch_origin *ret, struct str *ret_path, struct errinfo *info);
bool fetch_origin_eq(const struct fetch_origin *a, const struct fetch_origin *b);

/* What addresses may be connected to, beyond public ones. All false: public addresses over TLS only. Every address is
 * looked at when its socket is made, and the peer again once connected; link-local, multicast, translated, tunnelled,
 * documentation and cloud metadata addresses are refused whatever this says (facts: SSRF guard). */
struct fetch_guard {
    bool allow_loopback;                /* 127/8, ::1 */
    bool allow_private;                 /* 10/8, 172.16/12, 192.168/16, 100.64/10, fc00::/7 */
    bool allow_plain_http;
};

/* ---- the request ------------------------------------------------------------------------------------------------- */

struct fetch_header {
    struct str name, value;
    const struct secret *secret;        /* appended to value when not NULL: { "x-api-key", "", key } */
};

/* A piece of a body: text, or a secret. `form`: percent-encoded for application/x-www-form-urlencoded. */
struct fetch_part {
    struct str text;
    const struct secret *secret;        /* not NULL: instead of text */
    bool form;
};

/* Fields that many requests have in common: checked, and written as they are sent, once. */
struct fetch_common;
/* Fields like a request's, without secrets and Authorization; copied into the arena. E_CONNECTOR_FAULT, with the
 * reason, where await_fetch() would refuse one; E_CALL_TOO_LARGE. */
enum err fetch_common_make(struct arena *a, const struct fetch_header *headers, unsigned n,
                           const struct fetch_common **ret, struct errinfo *info);

enum {
    FETCH_FULL = 1,                     /* a full libcurl transfer (HTTP/1.1) */
};

/* Everything pointed to must stay as it is until await_fetch() returns. */
struct fetch_request {
    struct str tenant;                  /* 1 to FETCH_TENANT_MAX bytes; "" is not a tenant */
    const struct fetch_origin *origin;  /* the allow-list is the caller's: this is the entry it picked */
    const struct fetch_guard *guard;    /* NULL: the options' */
    struct str method;                  /* "GET": upper case letters; neither CONNECT nor TRACE */
    struct str path;                    /* origin form with query: visible ASCII, starts with '/' */
    const struct fetch_common *common;  /* fields before those below, or NULL */
    const struct fetch_header *headers; /* not Host, Content-Length, Connection and others that frame the message */
    unsigned n_headers;
    struct str body;                    /* one piece, or ... */
    const struct fetch_part *parts;     /* ... several, joined; then body is empty */
    unsigned n_parts;
    const struct secret *bearer;        /* "Authorization: Bearer ..." */
    struct str basic_user;              /* with basic_secret: "Authorization: Basic ..." */
    const struct secret *basic_secret;
    bool basic_form;                    /* user and secret are form-encoded first (RFC 6749 2.3.1) */
    ns_t deadline;                      /* for the whole exchange, waiting for a connection included */
    size_t reply_max;                   /* bytes of the answer's body, unpacked; > 0 */
    unsigned flags;
};

/* ---- the answer -------------------------------------------------------------------------------------------------- */

struct fetch_field {
    struct str name, value;
};

enum { FETCH_LOOKED = 4 };

struct fetch_reply {
    int status;                         /* 200 to 999 */
    const struct fetch_field *fields;   /* as sent, in the caller's arena */
    unsigned n_fields;
    struct str body;                    /* unpacked; in the caller's arena */
    bool reused;                        /* came on a kept connection */
    ns_t sent_at, answered_at;          /* first byte sent, last byte read; loop time */
    /* where the next request of its tenant to its origin will look, for base/ahead.h: in a table, at the key and the
     * group of connections, at the connection; NULL on other ways */
    const void *looked[FETCH_LOOKED];
};

/* The first field called `name` (any case). */
bool fetch_reply_header(const struct fetch_reply *r, const char *name, struct str *ret);

enum fetch_sent {
    FETCH_NOT_SENT,     /* not one byte of the request can have been read by anybody */
    FETCH_SENT,         /* bytes left: unless an answer came nobody knows */
    FETCH_ANSWERED,     /* the head of a final answer was read: ret->status is set, even when an error is returned */
};

/*
 * Sends the request and waits for the answer.  *ret is whole only on OK.  *ret_sent is always set.
 *
 *   E_EGRESS_DENIED         the origin, or every address it has, is refused                            (NOT_SENT)
 *   E_CONNECTOR_FAULT       the request itself is malformed: path, method, a header, a secret          (NOT_SENT)
 *   E_UPSTREAM_DOWN         never connected, or the connection was gone before anything left           (NOT_SENT)
 *   E_DEADLINE, E_CANCELLED before anything left                                                       (NOT_SENT)
 *   E_OVERLOADED            memory is out                                                              (NOT_SENT)
 *   E_DRAINING              after fetch_drain()                                                        (NOT_SENT)
 *   E_OUTCOME_UNKNOWN       bytes left; closed, timed out or cancelled before the answer was complete  (SENT, ANSWERED)
 *   E_UPSTREAM_GARBLED      the answer breaks HTTP's rules; info says which                            (SENT, ANSWERED)
 *   E_UPSTREAM_TOO_LARGE    more than reply_max, or than the arena holds, or a decompression bomb      (SENT, ANSWERED)
 *
 * A kept connection that turns out dead is replaced once, by itself, when nothing had been sent or the method is GET or
 * HEAD; never otherwise (promise P2).  Over HTTP/2 a provider can say that it has not looked at a request (RFC 9113
 * 8.7); that is believed: NOT_SENT.
 */
enum err await_fetch(struct fetch *f, const struct fetch_request *req, struct arena *arena, struct fetch_reply *ret,
                     enum fetch_sent *ret_sent, struct errinfo *info);

/* ---- per worker -------------------------------------------------------------------------------------------------- */

enum fetch_http2 {
    FETCH_HTTP2_SHARED,                 /* once a tenant has FETCH_HTTP1_FIRST connections to an origin in use */
    FETCH_HTTP2_ALWAYS,
    FETCH_HTTP2_NEVER,
};

struct fetch_options {
    struct fetch_guard guard;           /* for requests that bring none */
    const char *ca_file;                /* NULL: what SSL_CERT_FILE names in the environment, else the system's */
    const char *proxy;                  /* "http://host:port"; NULL: none. The environment is never asked. Names are
                                         * then resolved by the proxy, by its egress rules; literals are checked here */
    const char *const *resolve;         /* fixed addresses, "host:port:address[,address]", NULL at the end; or NULL */
    ns_t connect_timeout;               /* also of those who wait to share a connection that another opens; 0: 5 s */
    ns_t idle_timeout;                  /* a kept connection is closed after this; 0: 60 s */
    unsigned per_origin_max;            /* connections per tenant and origin; 0: 4096. Who comes later waits in line */
    enum fetch_http2 http2;             /* offered over TLS */
    unsigned idle_max;                  /* kept connections in all; 0: 4096. The longest idle one makes room */
};

/* On the thread of the loop that will use it, or before that loop runs. Strings in opt are copied. E_CONFIG if libcurl
 * lacks what is needed (TLS by OpenSSL, a resolver that does not block) or ca_file holds no certificate. */
enum err fetch_create(const struct fetch_options *opt, struct fetch **ret, struct errinfo *info);
/* From now on: E_DRAINING for newcomers and for those in line; idle connections close now, busy ones after their
 * exchange. */
void fetch_drain(struct fetch *f);
/* After fetch_drain(), when no exchange is left and the loop has ended (asserted). Accepts NULL. */
void fetch_destroy(struct fetch *f);

/* ---- the seam ---------------------------------------------------------------------------------------------------- */

/* Another world: await takes the place of await_fetch() for everybody, behind the same checks of the request. `f` may
 * then be NULL. Set before the first loop runs; NULL: the real one. */
struct fetch_impl {
    enum err (*await)(struct fetch *f, const struct fetch_request *req, struct arena *arena, struct fetch_reply *ret,
                      enum fetch_sent *ret_sent, struct errinfo *info);
};
void fetch_use(const struct fetch_impl *impl);
/* For implementations: the whole request as it would be written, secrets in place, in the arena (wipe it). Empty if the
 * request is malformed or the arena too small. */
struct str fetch_wire(const struct fetch_request *req, struct arena *arena);

#endif
