/* wire.c -- see wire.h */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/gen/common.h"
#include "bench/gen/wire.h"

bool target_parse(const char *url, struct target *ret)
{
    char address[32];
    int port, n = 0;

    *ret = (struct target){ .tls = strncmp(url, "https://", 8) == 0 };
    if (!ret->tls && strncmp(url, "http://", 7) != 0)
        return false;
    url += ret->tls ? 8 : 7;
    if (sscanf(url, "%31[0-9.]:%5d%n", address, &port, &n) != 2 || port < 1 || port > 65535)
        return false;
    ret->address.sin_family = AF_INET;
    ret->address.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, address, &ret->address.sin_addr) != 1 || (url[n] && url[n] != '/'))
        return false;
    snprintf(ret->host, sizeof(ret->host), "%s:%d", address, port);
    ret->path = url[n] ? url + n : "/";
    return true;
}

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

static void die_tls(const char *what)
{
    die("%s: %s", what, ERR_reason_error_string(ERR_get_error()));
}

static SSL_CTX *made(SSL_CTX *tls)
{
    need(tls);
    signal(SIGPIPE, SIG_IGN);           /* SSL_write() to who has gone: it has no MSG_NOSIGNAL */
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return tls;
}

SSL_CTX *wire_client_tls(const char *ca)
{
    SSL_CTX *tls = made(SSL_CTX_new(TLS_client_method()));

    if (!ca)
        die("https needs --ca FILE: the certificate to trust");
    if (SSL_CTX_load_verify_locations(tls, ca, NULL) != 1)
        die_tls(ca);
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    return tls;
}

static int choose(SSL *ssl, const unsigned char **ret, unsigned char *ret_len, const unsigned char *offered,
                  unsigned len, void *arg)
{
    static const unsigned char spoken[] = "\2h2\10http/1.1";
    int rc = SSL_select_next_proto((unsigned char **)ret, ret_len, spoken, sizeof(spoken) - 1, offered, len);

    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

SSL_CTX *wire_server_tls(const char *cert, const char *key)
{
    SSL_CTX *tls = made(SSL_CTX_new(TLS_server_method()));

    if (!cert || !key)
        die("TLS needs --cert FILE and --key FILE");
    if (SSL_CTX_use_certificate_chain_file(tls, cert) != 1)
        die_tls(cert);
    if (SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(tls) != 1)
        die_tls(key);
    SSL_CTX_set_alpn_select_cb(tls, choose, NULL);
    return tls;
}

static bool start_tls(struct wire *w, SSL_CTX *tls)
{
    w->ssl = tls ? SSL_new(tls) : NULL;
    if (tls && (!w->ssl || SSL_set_fd(w->ssl, w->fd) != 1)) {
        wire_close(w);
        return false;
    }
    return true;
}

int wire_handshake(struct wire *w)
{
    int rc, why;

    if (!w->ssl || SSL_is_init_finished(w->ssl))
        return 1;
    ERR_clear_error();
    rc = SSL_do_handshake(w->ssl);
    if (rc == 1)
        return 1;
    why = SSL_get_error(w->ssl, rc);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? WIRE_AGAIN : WIRE_BROKEN;
}

bool wire_is_h2(const struct wire *w)
{
    const unsigned char *name = NULL;
    unsigned len = 0;

    if (w->ssl)
        SSL_get0_alpn_selected(w->ssl, &name, &len);
    return str_is(str_n(name, len), "h2");
}

static ssize_t tls_result(struct wire *w, int rc)
{
    if (rc > 0)
        return rc;
    switch (SSL_get_error(w->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return WIRE_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return WIRE_CLOSED;
    default:
        return WIRE_BROKEN;
    }
}

/* ---- sockets ----------------------------------------------------------------------------------------------------- */

static void no_delay(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

bool wire_connect(struct wire *w, const struct target *to, SSL_CTX *tls)
{
    char address[INET_ADDRSTRLEN];

    *w = (struct wire){ .fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) };
    if (w->fd < 0)
        return false;
    no_delay(w->fd);
    if (connect(w->fd, (const struct sockaddr *)&to->address, sizeof(to->address)) < 0 && errno != EINPROGRESS) {
        wire_close(w);
        return false;
    }
    if (!start_tls(w, tls))
        return false;
    if (w->ssl) {
        inet_ntop(AF_INET, &to->address.sin_addr, address, sizeof(address));
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(w->ssl), address);
        SSL_set_connect_state(w->ssl);
    }
    return true;
}

bool wire_accepted(struct wire *w, int fd, SSL_CTX *tls)
{
    *w = (struct wire){ .fd = fd };
    no_delay(fd);
    if (!start_tls(w, tls))
        return false;
    if (w->ssl)
        SSL_set_accept_state(w->ssl);
    return true;
}

int wire_listen(int *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)*port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die_errno("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 65535) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) < 0)
        die_errno("127.0.0.1:%d", *port);
    *port = ntohs(at.sin_port);
    return fd;
}

void wire_close(struct wire *w)
{
    SSL_free(w->ssl);
    if (w->fd >= 0)
        close(w->fd);
    *w = (struct wire){ .fd = -1 };
}

ssize_t wire_read(struct wire *w, void *to, size_t n)
{
    ssize_t got;

    if (w->ssl) {
        ERR_clear_error();
        return tls_result(w, SSL_read(w->ssl, to, n > 1 << 30 ? 1 << 30 : (int)n));
    }
    got = recv(w->fd, to, n, 0);
    return got >= 0 ? got : errno == EAGAIN || errno == EINTR || errno == ENOTCONN ? WIRE_AGAIN : WIRE_BROKEN;
}

ssize_t wire_write(struct wire *w, const void *from, size_t n)
{
    ssize_t put;

    if (w->ssl) {
        ERR_clear_error();
        return tls_result(w, SSL_write(w->ssl, from, n > 1 << 30 ? 1 << 30 : (int)n));
    }
    put = send(w->fd, from, n, MSG_NOSIGNAL);
    return put > 0 ? put : errno == EAGAIN || errno == EINTR || errno == ENOTCONN ? WIRE_AGAIN : WIRE_BROKEN;
}

int wire_flush(struct wire *w, const struct buf *out, size_t *at)
{
    while (*at < out->len) {
        ssize_t n = wire_write(w, out->p + *at, out->len - *at);

        if (n <= 0)
            return n == WIRE_AGAIN ? WIRE_AGAIN : WIRE_BROKEN;
        *at += (size_t)n;
    }
    return 1;
}
