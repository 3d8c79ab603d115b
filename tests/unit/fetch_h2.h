/*
 * fetch_h2.h -- a provider's side of HTTP/2 (RFC 9113) at the level of frames, for scripts of fetch_upstream.h
 *
 * Requests are collected as they come; what is sent is sent as the script says, whether the rules allow it or not.
 * SETTINGS and PING are answered, the windows of requests are kept open.  What held a request is overwritten.
 */
#ifndef TESTS_UNIT_FETCH_H2_H
#define TESTS_UNIT_FETCH_H2_H

#include <nghttp2/nghttp2.h>

#include "fetch_bed.h"

enum { H2_FIELDS_MAX = 64, H2_FRAME_MAX = 16384 };

struct h2_field {
    struct str name, value;
    bool never;                 /* is never to be indexed */
};

struct h2_request {
    int32_t id;
    struct h2_field fields[H2_FIELDS_MAX];
    unsigned n_fields;
    struct str method, path;
    struct buf text, body;      /* what the fields are views of; what came of the body */
    bool whole, taken;          /* it has ended; h2_next() has handed it out */
    bool reset;
    uint32_t reset_code;
    int64_t window, opened;     /* what may be sent to the peer, and by it */
    struct h2_request *next;
};

struct h2 {
    struct peer *p;
    nghttp2_hd_inflater *in;
    nghttp2_hd_deflater *out;
    struct h2_request *first;   /* of those that came and were not answered, the oldest */
    unsigned n_open, most_open;
    int64_t window, opened;
    uint32_t initial, initial_opened;
    bool bytewise;              /* each byte leaves in a send of its own */
    int gate;                   /* not 0: h2_next() returns NULL when it becomes readable, too, and forgets it */
    bool gone;                  /* the connection has ended */
    /* the frame read last */
    uint8_t type, flags;
    int32_t id;
    uint8_t *payload;
    size_t len;
    /* of the peer's */
    unsigned n_updates, n_acks, n_pongs, n_resets;
    bool goaway;
    uint32_t goaway_code, reset_code;
};

/* Reads the peer's preface, says SETTINGS. streams_max: MAX_CONCURRENT_STREAMS; window: INITIAL_WINDOW_SIZE, and the
 * connection's; 0: nothing is said of it. False: the peer does not speak HTTP/2; h2_close() all the same. */
bool h2_open(struct h2 *h, struct peer *p, uint32_t streams_max, uint32_t window);
/* The same with a window that bounds nothing and a socket that soon takes no more. */
bool h2_open_small(struct h2 *h, struct peer *p);
void h2_close(struct h2 *h);

/* One frame. False: the connection has ended. */
bool h2_read(struct h2 *h);
/* The next request that is whole. NULL: the connection has ended, or the gate opened. */
struct h2_request *h2_next(struct h2 *h);
struct h2_request *h2_find(struct h2 *h, int32_t id);   /* NULL: none that is open */
void h2_forget(struct h2 *h, struct h2_request *rq);
void h2_until_closed(struct h2 *h);

/* All that send: false when the peer is gone. */
bool h2_frame(struct h2 *h, unsigned type, unsigned flags, int32_t id, const void *payload, size_t n);
bool h2_frame_u32(struct h2 *h, unsigned type, int32_t id, uint32_t value);     /* RST_STREAM, WINDOW_UPDATE */
bool h2_goaway(struct h2 *h, int32_t last, uint32_t code);
bool h2_setting(struct h2 *h, uint16_t name, uint32_t value);
/* Fields as "name: value|name: value": HEADERS, and CONTINUATION if need be. flags: NGHTTP2_FLAG_END_STREAM or 0. */
bool h2_head(struct h2 *h, int32_t id, unsigned flags, struct str fields);
/* DATA, as far as the peer's windows allow; reads frames while they do not. False also when the stream was reset. */
bool h2_data(struct h2 *h, struct h2_request *rq, struct str body, bool ends);
/* 200 with the body; the request is forgotten. */
bool h2_answer(struct h2 *h, struct h2_request *rq, struct str body);

/* A script, up->arg: answers with the connection's number; "/hold" once the gate is open. */
struct h2_script {
    int gate;                   /* an eventfd */
    uint32_t streams_max;
    atomic_bool late;           /* from now on SETTINGS are said after the first requests */
    atomic_uint most;           /* requests at once on one connection */
    atomic_uint resets, goaways, ended;         /* RST_STREAM; connections that ended with a GOAWAY; in all */
};
/* bed_run() with that script, which is the bed's arg. */
void h2_run(uint32_t streams_max, const struct fetch_options *opt, void (*body)(struct bed *b));
void h2_serve(struct peer *p);
void h2_script_open(struct h2_script *s);       /* the gate */

#endif
