/*
 * http.h -- the server side: HTTP/1.1 (and 1.0) over TCP or TLS, one server per worker
 *
 * A connection is a state machine in loop callbacks; it costs no stack and, while idle, no buffer.  When the head and
 * the whole body of a request are there, a task is started that runs the handler; the handler answers with one reply
 * or one stream.  Requests on a connection are handled one after the other.
 *
 * Every wait on a peer has a deadline and every amount a limit.  A request that is malformed, slow or too large never
 * reaches the handler: it is answered here, the connection closed, and `on_bad_request` told.
 *
 * All functions are for the loop's own thread, except http_tls_load() and http_tls_release().
 */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include "http/parse.h"
#include "loop/loop.h"
#include "loop/task.h"

struct http_server;
struct http_request;
struct http_tls;

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

struct http_tls_options {
    const char *cert;               /* PEM file: the certificate, then its chain */
    const char *key;                /* PEM file, not encrypted */
    const char *client_ca;          /* PEM file of CAs for client certificates; NULL: clients are not asked for one */
    bool client_cert_required;      /* with client_ca: a client without one is refused in the handshake */
};

/* Certificates and ticket keys, shared by the servers of all workers, so that a session resumes on any of them. TLS
 * 1.2 and later, ALPN http/1.1. E_CONFIG with the file and the reason in info. Reads files: at start or on a helper
 * thread. */
enum err http_tls_load(const struct http_tls_options *opt, struct http_tls **ret, struct errinfo *info);
/* Gives the caller's hold back; connections keep theirs. Accepts NULL. Any thread. */
void http_tls_release(struct http_tls *tls);

/* ---- server ------------------------------------------------------------------------------------------------------ */

/* Runs in a task of its own per request. `rq` lives until it returns. Returning without a reply sends 500; returning
 * in the middle of a stream cuts the connection, so that the client cannot take what it has for the whole. */
typedef void http_handler(struct http_request *rq, void *arg);

/* A request that never reached the handler. Views are valid during the call. */
struct http_bad_request {
    enum http_fault fault;
    int status;                     /* what was answered, where the connection still allowed an answer */
    const char *peer;               /* "127.0.0.1:40112" */
    struct str bytes;               /* what came of its head (at most HTTP_HEAD_MAX), whatever it contains */
    wall_ms_t arrived;
};

struct http_server_options {
    const char *listen;             /* net_listen() address; NULL: accept on `fd`, which the server then owns */
    int fd;
    bool reuse_port;                /* SO_REUSEPORT: a listener per worker */
    struct http_tls *tls;           /* NULL: plain. The server takes a hold of its own */
    http_handler *handler;
    void (*on_bad_request)(const struct http_bad_request *bad, void *arg);     /* may be NULL; must not wait */
    void *arg;                      /* of both */

    /* Limits; 0 takes the default in brackets */
    unsigned connections_max;       /* [10000] at the limit the longest idle one is closed, else the new one */
    unsigned requests_max;          /* [10000] per connection, then it is closed */
    size_t head_max;                /* [HTTP_HEAD_MAX] bytes, at most HTTP_HEAD_MAX */
    size_t body_max;                /* [4 MB] bytes, chunked or not */
    size_t bodies_max;              /* [256 MB] bytes of all bodies over 64 KB that are held; what is over is refused */
    size_t rate_min;                /* [256] bytes of body per second, over windows of 5 s */
    ns_t handshake_timeout;         /* [10 s] accept to end of the TLS handshake */
    ns_t head_timeout;              /* [5 s] first byte (for the first request: accept) to end of head */
    ns_t request_timeout;           /* [30 s] first byte to end of body */
    ns_t idle_timeout;              /* [75 s] between requests */
    ns_t write_timeout;             /* [30 s] for the peer to take the next 64 KB (or what is left) */
    ns_t linger_timeout;            /* [2 s] for the peer to read the last answer before the connection is closed */
};

/* Listens and accepts on the calling thread's loop. E_CONFIG or E_IO with the reason in info. */
enum err http_server_start(const struct http_server_options *opt, struct http_server **ret, struct errinfo *info);
/* "127.0.0.1:7411", with the port that was bound. Not after http_server_drain(). */
void http_server_name(const struct http_server *srv, char out[64]);
/* Accepts no more, closes idle connections, says `Connection: close` in every further reply. May be called twice. */
void http_server_drain(struct http_server *srv);
bool http_server_draining(const struct http_server *srv);
/* After http_server_drain(): has the last connection gone? Before: never. */
bool http_server_idle(const struct http_server *srv);
/* Ends everything: open connections are cut, handlers still running are cancelled. `srv` is not the caller's any
 * more; its memory goes when the last handler has returned. */
void http_server_stop(struct http_server *srv);
/* New connections use `tls` (not NULL; the server was started with TLS, asserted). The server takes a hold of its
 * own. */
void http_server_reload_tls(struct http_server *srv, struct http_tls *tls);
unsigned http_server_connections(const struct http_server *srv);

/* ---- request ----------------------------------------------------------------------------------------------------- */

/* The client's certificate, as verified in the handshake. */
struct http_client_cert {
    struct str subject;             /* RFC 2253: "CN=agent-7,O=Example"; "": the certificate has none, or over 1 KB */
    uint8_t fingerprint[32];        /* SHA-256 of the DER form */
};

const struct http_head *http_request_head(const struct http_request *rq);
struct str http_method(const struct http_request *rq);
struct str http_path(const struct http_request *rq);
struct str http_query(const struct http_request *rq);
struct str http_body(const struct http_request *rq);
/* How many fields are called `name` (any case); *ret is the first one's value, { NULL, 0 } if there is none. Where
 * more than one would be ambiguous the caller refuses any count above 1. */
unsigned http_header(const struct http_request *rq, const char *name, struct str *ret);
const char *http_peer(const struct http_request *rq);               /* "127.0.0.1:40112" */
bool http_is_tls(const struct http_request *rq);
const struct http_client_cert *http_client_cert(const struct http_request *rq);    /* NULL: none */
ns_t http_arrived(const struct http_request *rq);                   /* loop_now() at its first byte */
wall_ms_t http_arrived_wall(const struct http_request *rq);

/* Has the peer closed its side (or the connection broken)? A peer that only closed its sending side still gets the
 * reply. */
bool http_gone(const struct http_request *rq);
/* From now on the handler's task is cancelled when the peer goes; also if it has gone already. Default: off. */
void http_cancel_on_disconnect(struct http_request *rq, bool on);
bool http_draining(const struct http_request *rq);                  /* is the server? Streams should come to an end */
bool http_replied(const struct http_request *rq);                   /* has a reply or stream been started? */

/* ---- reply: exactly one reply or one stream per request (asserted) ----------------------------------------------- */

/* Content-Length, Transfer-Encoding, Connection and Date are set here and must not be among `headers` (asserted, as
 * is that names are tokens). Everything is copied. OK: handed to the connection (it may still break before the peer
 * has it). E_FORMAT: a value has a control character; nothing was sent and another reply may be. E_CALL_TOO_LARGE:
 * likewise, the body is over HTTP_REPLY_MAX. E_CLOSED: there is no connection any more. Status 200 to 599. */
enum err await_http_reply(struct http_request *rq, int status, const struct http_header *headers, unsigned n,
                         struct str body);

/* A body that is handed over has room for its head in front, so that both leave in one piece and nothing is copied.
 * http_body_begin() empties `b`, which may grow to HTTP_BODY_MAX, and makes room for that and `n` bytes; what is added
 * then is the body. */
enum { HTTP_REPLY_MAX = 64 * 1024 * 1024, HTTP_HEAD_ROOM = 512, HTTP_BODY_MAX = HTTP_HEAD_ROOM + HTTP_REPLY_MAX };
void http_body_begin(struct buf *b, size_t n);
struct str http_body_text(const struct buf *b);     /* the body, a view; empty where nothing was begun */
/* Fields that many replies have, checked and put together once. They are ours: that their values are acceptable is
 * asserted too, and that they fit. */
struct http_lines {
    size_t len;
    char text[120];
};
void http_lines_make(struct http_lines *lines, const struct http_header *headers, unsigned n);
/* await_http_reply() of such a body, with `lines` (may be NULL) in front of `headers`. Where it can be the body is
 * taken, and left empty; the caller releases it anyway. */
enum err await_http_reply_over(struct http_request *rq, int status, const struct http_lines *lines,
                               const struct http_header *headers, unsigned n, struct buf *body);
/* A reply whose length is not known yet: chunked, or until close for HTTP/1.0. Errors as above. */
enum err await_http_stream_begin(struct http_request *rq, int status, const struct http_header *headers, unsigned n);
/* Waits while the peer is slow to read (write_timeout ends that). E_CLOSED: nobody reads any more; E_CANCELLED. */
enum err await_http_stream_write(struct http_request *rq, struct str bytes);
/* Would a stream's first bytes, or a write of up to HTTP_SOON bytes, go without waiting for the peer? Less than that is
 * still on its way to it. */
bool http_stream_soon(const struct http_request *rq);
enum { HTTP_SOON = 16 * 1024 };
enum err await_http_stream_end(struct http_request *rq);

/* After this reply the connection's next request is not looked at before `until`: for a client that was told to come
 * back later and does not wait by itself. At most 20 s from now; it counts as idle. */
void http_rest(struct http_request *rq, ns_t until);

/* ---- server-sent events (WHATWG HTML 9.2), for a stream of type text/event-stream -------------------------------- */

/* Appends one event. event, id: left out when .p is NULL; must have no CR, LF or NUL (asserted: they are ours). Data
 * is split at its line ends. */
void http_sse_event(struct buf *b, struct str event, struct str id, struct str data);
void http_sse_retry(struct buf *b, unsigned ms);        /* an event that only sets the client's reconnection time */
void http_sse_ping(struct buf *b);                      /* a comment, to keep intermediaries from closing */

#endif
