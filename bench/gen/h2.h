/*
 * h2.h -- the server side of one HTTP/2 connection (RFC 9113): bytes in, requests; answers, bytes out
 *
 * It knows nothing of sockets.  Whoever has one gives what was read to h2_take() and writes what h2_collect() adds.
 * Nothing is sent in between, so all that came in one read can be answered in one write.
 */
#ifndef BENCH_H2_H
#define BENCH_H2_H

#include "base/str.h"

struct peer;
struct server;
struct server_request;
struct h2;

/*
 * A request of stream `id` has all come to `connection`; its head is empty, its bytes are valid during the call.  It is
 * answered by h2_answer(), now or later.
 */
typedef void h2_handler(struct server *s, struct peer *connection, int32_t id, const struct server_request *rq);

struct h2 *h2_new(struct server *s, struct peer *connection, h2_handler *handler);
void h2_free(struct h2 *x);             /* NULL: nothing */
/* What has been read; runs the handler for all that ends in it. False: broken. */
bool h2_take(struct h2 *x, const void *bytes, size_t n);
/* `bytes` is an answer of HTTP/1.1 with Content-Length. A stream that the client has reset is answered by nothing. */
void h2_answer(struct h2 *x, int32_t id, struct str bytes);
/* Adds what is to be sent, as long as `out` is not full of what has not been. False: broken. */
bool h2_collect(struct h2 *x, struct buf *out);
/* Neither side has anything more to say. */
bool h2_over(struct h2 *x);

#endif
