/*
 * fetch_upstream.h -- a scripted provider for tests: blocking code, one thread per connection
 *
 * The script is a C function that gets a peer (one accepted connection) and reads requests from it and writes whatever
 * bytes it likes.  Plain, or TLS with a CA made for the run.  Buffers that held a request are overwritten, because one
 * test looks for secrets in the memory of this process.
 */
#ifndef TESTS_UNIT_FETCH_UPSTREAM_H
#define TESTS_UNIT_FETCH_UPSTREAM_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "base/str.h"

enum { PEERS_MAX = 512, PEER_BUF = 1 << 18 };

struct upstream;

/* false and true will do for the first two. */
enum speaks { PEER_PLAIN, PEER_TLS, PEER_HTTP2 };

struct peer {
    struct upstream *up;
    int fd;
    SSL *ssl;
    unsigned index;             /* nth connection, from 0 */
    char *in;
    size_t have;                /* bytes in `in` */
    size_t used;                /* of the request that peer_request() answered last */
    struct str head, method, path, body;
    pthread_t thread;
    bool open;
};

struct upstream {
    uint16_t port;
    char ca_file[64];           /* of the CA made for this run */
    void *arg;
    atomic_uint accepted, requests;
    atomic_uint now, now_max;   /* the script's */
    /* private */
    int fd;
    SSL_CTX *tls;
    enum speaks speaks;
    void (*serve)(struct peer *p);
    pthread_t thread;
    pthread_mutex_t lock;
    struct peer peers[PEERS_MAX];
    unsigned n_peers;
    bool stopping;
};

struct upstream *upstream_start(enum speaks speaks, void (*serve)(struct peer *p), void *arg);
void upstream_stop(struct upstream *u);
/* Listens at another address, same port; connections stay. */
void upstream_move(struct upstream *u, const char *address);

/* One whole request (head, and body by Content-Length); false when the connection ended. */
bool peer_request(struct peer *p);
bool peer_field(const struct peer *p, const char *name, struct str *ret);
/* Exactly n bytes, for protocols that are not HTTP/1; false when the connection ended. */
bool peer_bytes(struct peer *p, void *out, size_t n);
bool peer_has(struct peer *p, size_t n);        /* waits for them, takes none */
/* False when the other side is gone. */
bool peer_send(struct peer *p, const void *bytes, size_t n);
bool peer_say(struct peer *p, const char *text);
/* "HTTP/1.1 200 OK" with a Content-Length. */
bool peer_reply(struct peer *p, const char *body);
/* Reads and forgets until the other side closes. */
void peer_until_closed(struct peer *p);
/* Serves every request with its own path. */
void serve_paths(struct peer *p);

#endif
