/*
 * server.h -- the server side of the bench's upstream and floor: HTTP/1.1 with keep-alive, plain or TLS, one thread
 *
 * A request's body ends by Content-Length.  Requests of one connection are answered one after the other.  It speaks
 * HTTP/2 to who offers that with TLS, or begins with it without: each stream is a peer, answered when it is.  It serves
 * benches on the loopback interface only.
 */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include "bench/gen/common.h"
#include "bench/gen/wire.h"

enum { SERVER_REQUEST_MAX = 16 << 20 };

struct server;
struct peer;                            /* a connection, or a stream of one that speaks HTTP/2 */

struct server_request {
    struct str method, path, body;
    struct str head;                    /* request line and fields, up to the empty line; HTTP/2: empty */
};

/*
 * A request has come; its bytes are valid during the call.  It is answered by peer_reply(), now or later; `peer` stays
 * good until then, also if the other side has gone.
 */
typedef void server_handler(struct server *s, struct peer *peer, const struct server_request *rq);

/* What else waits on this thread: runs after each batch of events, and says until when it may be left alone. */
typedef int64_t server_between(struct server *s, int64_t now);

struct server {
    server_handler *handler;
    server_between *between;            /* NULL: nothing */
    int epoll;
    /* Events of other files of `epoll`: data.ptr is what was given there, and has its lowest bit set. */
    void (*other)(void *ptr, uint32_t events);
    struct peer *all, *free, *unsent;   /* unsent: HTTP/2, with something to send at the end of this round */
    char *bytes;
};

void server_init(struct server *s);
/* Listens on 127.0.0.1, port 0 for any; says "listening http://127.0.0.1:PORT" on stdout, https with `tls`. */
void server_listen(struct server *s, int port, SSL_CTX *tls);
/* Serves until SIGTERM or SIGINT. */
void server_run(struct server *s);
void server_release(struct server *s);
/* Sends an answer as it is (a head with Content-Length, and a body), or as HTTP/2 has it. */
void peer_reply(struct server *s, struct peer *peer, struct str bytes);
/* The same of a status, further fields ("Name: value\r\n"...) and a body of JSON. */
void peer_reply_json(struct server *s, struct peer *peer, int status, const char *fields, struct str body);

#endif
