/*
 * wire.h -- a socket that does not block, plain or TLS, for either side
 *
 * For epoll with EPOLLET: whoever reads or writes goes on until WIRE_AGAIN.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/types.h>

#include "base/str.h"

enum { WIRE_CLOSED = 0, WIRE_AGAIN = -1, WIRE_BROKEN = -2 };

struct wire {
    int fd;                             /* -1: none */
    SSL *ssl;                           /* NULL: plain */
};

/* What a URL names: http:// or https://, an IPv4 address, a port, a path. */
struct target {
    bool tls;
    struct sockaddr_in address;
    char host[64];                      /* "127.0.0.1:7411" */
    const char *path;                   /* "/" if the URL has none */
};

bool target_parse(const char *url, struct target *ret);

SSL_CTX *wire_client_tls(const char *ca);                       /* ends the program with the reason if it cannot */
/* A server that speaks HTTP/2 and HTTP/1.1, and prefers the first; who offers neither is not told which it is. */
SSL_CTX *wire_server_tls(const char *cert, const char *key);

/* Begins to connect; false if it cannot. The handshake happens in the first reads and writes. */
bool wire_connect(struct wire *w, const struct target *to, SSL_CTX *tls);
bool wire_accepted(struct wire *w, int fd, SSL_CTX *tls);
/* A port of 127.0.0.1, 0 for any; *port becomes the one it is. Ends the program if it cannot. */
int wire_listen(int *port);
/* 1: done, else WIRE_AGAIN or WIRE_BROKEN. Plain: done. */
int wire_handshake(struct wire *w);
/* After the handshake: both sides have agreed on HTTP/2. */
bool wire_is_h2(const struct wire *w);
void wire_close(struct wire *w);

/* Bytes, or one of the above. */
ssize_t wire_read(struct wire *w, void *to, size_t n);
ssize_t wire_write(struct wire *w, const void *from, size_t n);
/* Writes from *at on; 1 when all is written, else WIRE_AGAIN or WIRE_BROKEN. */
int wire_flush(struct wire *w, const struct buf *out, size_t *at);

#endif
