/*
 * fetch_upstream.c -- see fetch_upstream.h
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "fetch_upstream.h"

/* ---- certificates ------------------------------------------------------------------------------------------------ */

static void cert_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ASSERT(ext);
    X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
}

static X509 *cert_make(const char *name, EVP_PKEY *key, X509 *ca, EVP_PKEY *ca_key, long serial)
{
    X509 *cert = X509_new();
    X509_NAME *subject = X509_get_subject_name(cert);

    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, ca ? X509_get_subject_name(ca) : subject);
    cert_extension(cert, ca ? ca : cert, NID_basic_constraints, ca ? "CA:FALSE" : "critical,CA:TRUE");
    if (ca)
        cert_extension(cert, ca, NID_subject_alt_name, "DNS:localhost,DNS:api.test,IP:127.0.0.1");
    ASSERT(X509_sign(cert, ca ? ca_key : key, EVP_sha256()) > 0);
    return cert;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                           unsigned in_len, void *arg)
{
    static const unsigned char h2[] = "\x02h2", http1[] = "\x08http/1.1";
    const struct upstream *u = arg;
    bool speaks_h2 = u->speaks == PEER_HTTP2;

    (void)ssl;
    return SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_len, speaks_h2 ? h2 : http1,
                                 speaks_h2 ? sizeof(h2) - 1 : sizeof(http1) - 1, in, in_len) ==
                   OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static void tls_setup(struct upstream *u)
{
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
    X509 *ca = cert_make("sluice test CA", ca_key, NULL, NULL, 1), *cert = cert_make("localhost", key, ca, ca_key, 2);
    int fd;
    FILE *file;

    snprintf(u->ca_file, sizeof(u->ca_file), "/tmp/sluice-fetch-ca-XXXXXX");
    fd = mkstemp(u->ca_file);
    ASSERT(fd >= 0);
    file = fdopen(fd, "w");
    PEM_write_X509(file, ca);
    fclose(file);
    u->tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(u->tls, cert);
    SSL_CTX_use_PrivateKey(u->tls, key);
    SSL_CTX_set_alpn_select_cb(u->tls, choose_protocol, u);
    SSL_CTX_set_options(u->tls, SSL_OP_CLEANSE_PLAINTEXT);
    X509_free(ca);
    X509_free(cert);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void *peer_main(void *arg)
{
    struct peer *p = arg;

    p->in = calloc(1, PEER_BUF);
    if (p->up->speaks != PEER_PLAIN) {
        p->ssl = SSL_new(p->up->tls);
        SSL_set_fd(p->ssl, p->fd);
    }
    if (!p->ssl || SSL_accept(p->ssl) == 1)
        p->up->serve(p);
    pthread_mutex_lock(&p->up->lock);
    p->open = false;
    SSL_free(p->ssl);
    close(p->fd);
    pthread_mutex_unlock(&p->up->lock);
    explicit_bzero(p->in, PEER_BUF);
    free(p->in);
    return NULL;
}

static void *accept_main(void *arg)
{
    struct upstream *u = arg;
    int one = 1, fd;

    while ((fd = accept(u->fd, NULL, NULL)) >= 0) {
        struct peer *p;

        pthread_mutex_lock(&u->lock);
        ASSERT(u->n_peers < PEERS_MAX);
        p = &u->peers[u->n_peers];
        *p = (struct peer){ .up = u, .fd = fd, .index = u->n_peers, .open = true };
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        atomic_fetch_add(&u->accepted, 1);
        ASSERT(pthread_create(&p->thread, NULL, peer_main, p) == 0);
        u->n_peers++;
        if (u->stopping)
            shutdown(fd, SHUT_RDWR);
        pthread_mutex_unlock(&u->lock);
    }
    return NULL;
}

static void listen_at(struct upstream *u, const char *address)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(address),
                              .sin_port = htons(u->port) };
    socklen_t n = sizeof(at);
    int one = 1;

    u->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(u->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    ASSERT(bind(u->fd, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(u->fd, 512) == 0);
    ASSERT(getsockname(u->fd, (struct sockaddr *)&at, &n) == 0);
    u->port = ntohs(at.sin_port);
    ASSERT(pthread_create(&u->thread, NULL, accept_main, u) == 0);
}

struct upstream *upstream_start(enum speaks speaks, void (*serve)(struct peer *p), void *arg)
{
    struct upstream *u = calloc(1, sizeof(*u));

    signal(SIGPIPE, SIG_IGN);
    pthread_mutex_init(&u->lock, NULL);
    u->serve = serve;
    u->arg = arg;
    u->speaks = speaks;
    tls_setup(u);
    listen_at(u, "127.0.0.1");
    return u;
}

void upstream_move(struct upstream *u, const char *address)
{
    shutdown(u->fd, SHUT_RDWR);
    pthread_join(u->thread, NULL);
    close(u->fd);
    listen_at(u, address);
}

void upstream_stop(struct upstream *u)
{
    pthread_mutex_lock(&u->lock);
    u->stopping = true;
    shutdown(u->fd, SHUT_RDWR);
    for (unsigned i = 0; i < u->n_peers; i++)
        if (u->peers[i].open)
            shutdown(u->peers[i].fd, SHUT_RDWR);
    pthread_mutex_unlock(&u->lock);
    pthread_join(u->thread, NULL);
    for (unsigned i = 0; i < u->n_peers; i++)
        pthread_join(u->peers[i].thread, NULL);
    close(u->fd);
    unlink(u->ca_file);
    SSL_CTX_free(u->tls);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

/* ---- scripts ----------------------------------------------------------------------------------------------------- */

static bool peer_more(struct peer *p)
{
    size_t room = PEER_BUF - p->have;
    ssize_t n;

    ASSERT(room > 0);
    n = p->ssl ? SSL_read(p->ssl, p->in + p->have, (int)room) : recv(p->fd, p->in + p->have, room, 0);
    if (n <= 0)
        return false;
    p->have += (size_t)n;
    return true;
}

bool peer_field(const struct peer *p, const char *name, struct str *ret)
{
    struct str line, rest = p->head, key, value;

    while (str_cut(rest, '\n', &line, &rest)) {
        if (str_cut(line, ':', &key, &value) && str_ieq(key, str_of(name))) {
            *ret = str_trim(str_n(value.p, value.len - 1));
            return true;
        }
    }
    return false;
}

bool peer_request(struct peer *p)
{
    struct str length, line, rest;
    uint64_t n = 0;
    char *end;

    memmove(p->in, p->in + p->used, p->have - p->used);
    p->have -= p->used;
    explicit_bzero(p->in + p->have, p->used);
    p->used = 0;
    while (!(end = memmem(p->in, p->have, "\r\n\r\n", 4)))
        if (!peer_more(p))
            return false;
    p->head = str_n(p->in, (size_t)(end - p->in) + 4);
    if (peer_field(p, "content-length", &length))
        ASSERT(str_to_u64(length, &n));
    while (p->have < p->head.len + n)
        if (!peer_more(p))
            return false;
    p->used = p->head.len + n;
    p->body = str_n(p->in + p->head.len, n);
    ASSERT(str_cut(p->head, '\r', &line, &rest) && str_cut(line, ' ', &p->method, &rest) &&
           str_cut(rest, ' ', &p->path, &rest));
    atomic_fetch_add(&p->up->requests, 1);
    return true;
}

bool peer_has(struct peer *p, size_t n)
{
    while (p->have < n)
        if (!peer_more(p))
            return false;
    return true;
}

bool peer_bytes(struct peer *p, void *out, size_t n)
{
    if (!peer_has(p, n))
        return false;
    memcpy(out, p->in, n);
    p->have -= n;
    memmove(p->in, p->in + n, p->have);
    explicit_bzero(p->in + p->have, n);
    return true;
}

bool peer_send(struct peer *p, const void *bytes, size_t n)
{
    const char *at = bytes;

    while (n > 0) {
        ssize_t put = p->ssl ? SSL_write(p->ssl, at, (int)(n > 65536 ? 65536 : n)) : send(p->fd, at, n, MSG_NOSIGNAL);

        if (put <= 0)
            return false;
        at += put;
        n -= (size_t)put;
    }
    return true;
}

bool peer_say(struct peer *p, const char *text)
{
    return peer_send(p, text, strlen(text));
}

bool peer_reply(struct peer *p, const char *body)
{
    char text[4096];
    int n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);

    return peer_send(p, text, (size_t)n);
}

void peer_until_closed(struct peer *p)
{
    do
        p->have = p->used = 0;
    while (peer_more(p));
}

void serve_paths(struct peer *p)
{
    char path[1024];

    while (peer_request(p)) {
        snprintf(path, sizeof(path), "%.*s", STR_ARG(p->path));
        if (!peer_reply(p, path))
            return;
    }
}
