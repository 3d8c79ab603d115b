/*
 * answer.h -- reads HTTP/1.1 answers off a connection, in whatever pieces they come (RFC 9112 6, 7)
 *
 * Bodies end by Content-Length, by the last chunk, or where the connection does.  Interim answers (1xx) are passed
 * over.  An event stream is a body like any other.  The reader is its own, not the engine's: what judges the engine
 * does not read with its eyes.
 */
#ifndef BENCH_ANSWER_H
#define BENCH_ANSWER_H

#include "base/str.h"

enum { ANSWER_HEAD_MAX = 65536, ANSWER_BODY_MAX = 64 << 20 };

enum answer_state {
    ANSWER_IN_HEAD,
    ANSWER_IN_BODY,                     /* `left` bytes of it are to come */
    ANSWER_TO_END,                      /* until the connection closes */
    ANSWER_CHUNK_SIZE,
    ANSWER_IN_CHUNK,
    ANSWER_AFTER_CHUNK,                 /* its CRLF */
    ANSWER_TRAILER,
    ANSWER_DONE,
    ANSWER_GARBLED,                     /* what came is no answer; nothing more is read */
};

struct answer {
    enum answer_state state;
    int status;
    bool closes;                        /* the peer will close the connection after it */
    bool is_events;                     /* text/event-stream */
    uint64_t left;
    struct buf head;                    /* while it comes; then lines of chunk sizes */
    struct buf body;
};

void answer_init(struct answer *a);
void answer_release(struct answer *a);
void answer_next(struct answer *a);     /* ready for the next one; keeps the memory if it is little */

/* Takes bytes, at most to the end of the answer; answers how many. */
size_t answer_feed(struct answer *a, const char *bytes, size_t n);
/* The connection has closed: an answer that ends there is done, any other garbled. */
void answer_closed(struct answer *a);

/* The last message of the body: the body itself, or the data of the last event of a stream. */
struct str answer_message(const struct answer *a);

#endif
