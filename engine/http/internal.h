/*
 * internal.h -- what the files of http/ share: servers, connections, requests. Not for other rooms.
 *
 * Who owns what: the server owns its connections (each on one of its lists), a connection its request.  A connection
 * is freed when its socket is closed, no operation on it is active and no handler runs; a server when it was stopped
 * and its last connection is gone.  Nothing else is counted.
 */
#ifndef HTTP_INTERNAL_H
#define HTTP_INTERNAL_H

#include <sys/queue.h>

#include "http/http.h"

enum {
    SERVER_MAGIC = 0x73727672, CONN_MAGIC = 0x636f6e6e, REQUEST_MAGIC = 0x72657131,

    PIECE = 64 * 1024,                  /* bytes per send: the grain of the write deadline */
    OUT_HIGH = 256 * 1024,              /* a stream's writer waits above this */
    OUT_MAX = HTTP_REPLY_MAX + (1 << 20),
    PIPELINE_HIGH = 32 * 1024,          /* bytes of further requests read while one is handled; then reading pauses */
    /* A paused connection still gets what the ring had received: at most all of its buffers. */
    IN_MAX = HTTP_HEAD_MAX + PIPELINE_HIGH + 8 * 1024 * 1024,
    BODY_TOGETHER = 4096,               /* bytes of a body that is kept with its head if it came with it */
    BODY_SMALL = 64 * 1024,             /* bytes of a body that do not count against bodies_max */
    RATE_WINDOW_S = 5,
    PEER_MAX = 64,
};

TAILQ_HEAD(conn_list, conn);

struct http_server {
    uint32_t magic;
    struct http_server_options opt;     /* defaults filled in; opt.listen is not kept */
    int fd;                             /* listener; -1 when drained */
    struct op accept, close;
    struct timer retry;                 /* accepting again after the process ran out of descriptors */
    ns_t warned;                        /* when that was said last; 0: never */
    struct http_tls *tls;
    struct conn_list idle, busy, dying; /* idle: between requests, longest idle first; dying: CLOSED, not yet freed */
    unsigned n_conns;
    size_t bodies;                      /* bytes held by bodies that are not small; see body_counted() */
    bool draining, stopped;
    int64_t date_s;                     /* the second `ok` is of */
    char ok[80];                        /* what a reply of 200 begins with, Date included */
    struct str ok_text, date;           /* that, and the date in it */
    unsigned short slots[600];          /* metric slot by status; 0: not asked yet, else slot + 1 */
};

enum phase {
    HANDSHAKE,      /* TLS, no request yet */
    HEAD,           /* waiting for a request, or in the middle of its head */
    BODY,           /* head read, body not complete */
    HANDLING,       /* a handler runs, or its reply is not out yet */
    LINGER,         /* the last answer is going out; input is dropped */
    CLOSED,         /* on its way to being freed */
};

/* Of ten thousand connections none is in the processor's cache when something happens on it: what one event touches
 * stands together, by its lines of 64 bytes. */
struct conn {
    uint32_t magic;
    enum phase phase;
    struct http_server *srv;
    int fd;
    unsigned requests;
    bool eof;                           /* the peer sends no more */
    bool paused;                        /* not receiving, to bound `in` */
    bool closing;                       /* no further request */
    bool flushed_fin;                   /* LINGER: our side is shut down */
    struct http_request *rq;            /* from its head on, until its handler returned */
    struct tls_conn *tls;               /* NULL: plain */
    size_t sent;                        /* of `sending` */
    ns_t rest;                          /* HANDLING is not over before that */

    struct buf sending, pending;        /* in flight (from sent on), and next */
    ns_t due, send_due;                 /* the phase's deadline, and that of what is being sent; NS_NEVER: none */
    size_t in_seen;                     /* how much of `in` was parsed in vain */
    TAILQ_ENTRY(conn) link;
    struct conn_list *list;             /* which one it is on */

    struct op send, recv;

    struct buf in;                      /* incomplete heads and pipelined requests; no memory while idle */
    ns_t started;                       /* first byte of the request being read */
    wall_ms_t started_wall;
    ns_t window_end;                    /* BODY: the minimum rate is checked then */

    struct timer timer;                 /* no later than the first of due and send_due */
    size_t window_bytes;
    struct op close;
    char peer[PEER_MAX];
};

struct http_request {
    /* what a reply looks at, on one line with what its end does */
    uint32_t magic;
    bool keep;                          /* what the client asked for */
    bool old;                           /* HTTP/1.0 */
    bool is_head;                       /* of the method HEAD */
    bool gone, cancel_on_gone;
    bool replied, streaming, chunks, headless;  /* headless: HEAD, or a status without body */
    bool waiting;                       /* its task waits on `room` */
    struct conn *conn;
    size_t counted;                     /* of `body`, in srv->bodies */
    struct timer cancel;

    struct buf body;
    struct str together;                /* instead: a body that came with the head, behind head_bytes; else p is NULL */
    char *head_bytes;                   /* behind the last header */
    size_t head_len;
    ns_t arrived;
    wall_ms_t arrived_wall;
    struct task_ref task;
    struct wake room;
    struct http_body framing;
    struct http_chunked chunked;
    /* views into head_bytes. Last: only the headers there are have memory, not the 2 KB of all there could be */
    struct http_head head;
};

/* conn.c */
void conn_accept(struct http_server *srv, int fd);
void conn_input(struct conn *c, struct str bytes);  /* plain bytes of the peer */
void conn_ready(struct conn *c);                    /* HANDSHAKE is over */
void conn_eof(struct conn *c);                      /* the peer sends no more */
void conn_out(struct conn *c, struct str bytes);    /* plain bytes for the peer; copied */
void conn_flush(struct conn *c);                    /* sends what is pending */
/* Sends what stands in `b` from `from` on, behind what is pending. Takes `b` where it can, and leaves it empty. */
void conn_out_over(struct conn *c, struct buf *b, size_t from);
size_t conn_out_len(const struct conn *c);          /* bytes not yet taken by the kernel */
void conn_abort(struct conn *c);                    /* closes now; what is pending is lost */
void conn_linger(struct conn *c);                   /* closes once all is out and the peer had time to read it */
void conn_request_done(struct conn *c);             /* the handler has returned; c->rq is gone */
/* server.c */
void server_conn_gone(struct http_server *srv);
void server_count(struct http_server *srv, int status);
struct str server_date(struct http_server *srv);
struct str server_ok(struct http_server *srv);      /* status line and Date of a 200 */
/* request.c */
/* `bytes`: the head, and behind it the body's first and last `body` bytes; 0: that comes later, or there is none */
struct http_request *request_new(struct conn *c, const struct http_head *head, struct str bytes, size_t body);
bool request_start(struct http_request *rq);        /* spawns the handler's task */
void request_gone(struct http_request *rq);         /* the peer went away */
void request_room(struct http_request *rq);         /* output has drained, or will never */
void request_free(struct http_request *rq);
/* reply.c */
void reply_refusal(struct conn *c, enum http_fault why);

/* tls.c */
struct tls_conn *tls_open(struct http_tls *tls, struct conn *c);
void tls_close(struct tls_conn *t);
/* Ciphertext in: hands plain bytes to conn_input(). False: the connection cannot go on (an alert may be pending). */
bool tls_input(struct tls_conn *t, struct str bytes);
bool tls_output(struct tls_conn *t, struct str bytes);
void tls_shutdown(struct tls_conn *t);              /* queues close_notify */
struct http_tls *tls_hold(struct http_tls *tls);
const struct http_client_cert *tls_client_cert(const struct tls_conn *t);

#endif
