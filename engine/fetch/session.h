/*
 * session.h -- what session.c and stream.c share: a connection that speaks HTTP/2, and an exchange on it
 *
 * What the others need of it is in internal.h; beside these two only the fuzz target includes this.
 */
#ifndef FETCH_SESSION_H
#define FETCH_SESSION_H

#include <nghttp2/nghttp2.h>

#include "fetch/internal.h"

enum {
    SESSION_STREAMS_MAX = 100,          /* of a connection; fewer if the peer says so */
    AUTHORITY_SIZE = FETCH_HOST_MAX + 8,
};

struct session {
    nghttp2_session *h2;
    char authority[AUTHORITY_SIZE];     /* of all requests */
    struct buf out;                     /* taken from nghttp2, not yet by the socket */
    TAILQ_HEAD(, stream) streams;       /* those that have not been told their end */
    ns_t opened_at;
    ns_t heard_at;                      /* when the peer said anything last */
    enum err over;                      /* not OK: it has ended, so */
    bool settled;                       /* the peer's settings have come */
    bool closing;                       /* no new streams */
    bool flushing;                      /* one of this turn's will send for all */
    bool more;                          /* not all was read */
};

/* One exchange, on its task's stack. */
struct stream {
    struct conn *c;
    const struct fetch_request *req;
    TAILQ_ENTRY(stream) link;           /* while `linked` */
    bool linked;
    int32_t id;
    struct wire fields, body;
    size_t body_len, body_off;
    struct reader r;
    int status;                         /* of the head that is coming in */
    unsigned n_fields;
    size_t block;                       /* what the fields that are coming in amount to, trailers as well */
    bool reset;                         /* by the peer */
    enum fetch_sent sent;
    ns_t sent_at;
    enum err result;                    /* why: r.why */
    struct wake wake;                   /* it has ended */
};

void session_leave(struct conn *c);     /* no new streams */
void session_settle(struct conn *c);    /* the peer has said how many it takes */
/* Reads what the peer has said, sends what is to be sent. On the loop's stack. */
void session_turn(struct conn *c);

/* False: memory is out, and nothing is kept. */
bool stream_init(struct stream *x, struct conn *c, const struct fetch_request *req, struct arena *arena);
/* arg: the stream. Linked afterwards, unless its connection can take no more. On the loop's stack. */
void stream_submit(void *arg);
void stream_callbacks(nghttp2_session_callbacks *cb);
/* The connection has ended: E_CLOSED or E_UPSTREAM_GARBLED. */
void stream_over(struct stream *x, enum err e);

#endif
