/*
 * channel.c -- a connected socket, plain or with TLS: what libcurl leaves us
 *
 * libcurl connects: names, proxies, races between addresses.  Then the socket is taken out of its hands and everything
 * of libcurl's is freed: a connection costs no easy handle while it waits, and no walk through libcurl's tables when
 * it is used.  TLS is OpenSSL's, with one SSL_CTX for all connections of a worker: libcurl makes one for each, which
 * alone takes 30 KB.  Buffers of records are released while there is nothing in them.
 *
 * The certificate must be of a trusted chain and of this host (RFC 6125), or of this address where the host is one;
 * TLS 1.2 is the least; HTTP/1.1 is offered, or HTTP/2 as well, and the peer chooses.  A peer that ends a connection
 * without close_notify is told apart from one that said goodbye: somebody else may have cut it.
 *
 * Needs SIGPIPE to be ignored, which main() sees to.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/crypto.h"
#include "fetch/internal.h"

/* ---- settings ---------------------------------------------------------------------------------------------------- */

SSL_CTX *channel_settings(X509_STORE *trust)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (!ctx)
        return NULL;
    SSL_CTX_set1_cert_store(ctx, trust);
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    /* a record is read in one piece, and no memory is kept for the next one */
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                          SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return ctx;
}

static bool offer(SSL *ssl, bool http2)
{
    static const unsigned char both[] = "\x02h2\x08http/1.1";
    size_t skip = http2 ? 0 : 3;

    return SSL_set_alpn_protos(ssl, both + skip, (unsigned)(sizeof(both) - 1 - skip)) == 0;
}

/* Whom the certificate must name: `host` as in struct fetch_origin. */
static bool expect_host(SSL *ssl, const char *host)
{
    X509_VERIFY_PARAM *expected = SSL_get0_param(ssl);
    char inner[INET6_ADDRSTRLEN + 1];
    size_t n = strlen(host);

    ASSERT(host[0] != '\0' && host[0] != '.');      /* for those OpenSSL would accept any name, or any below */
    if (host[0] == '[') {
        if (n < 3 || n - 2 >= sizeof(inner))
            return false;
        memcpy(inner, host + 1, n - 2);
        inner[n - 2] = '\0';
        return X509_VERIFY_PARAM_set1_ip_asc(expected, inner) == 1;
    }
    if (X509_VERIFY_PARAM_set1_ip_asc(expected, host) == 1)
        return true;                    /* an IPv4 address; a name is none */
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

/* ---- OpenSSL ----------------------------------------------------------------------------------------------------- */

/* One call of OpenSSL: it takes 8 to 12 KB of stack, which the loop has and a task should not. */
struct ssl_call {
    SSL *ssl;
    enum { CONNECT, READ, WRITE } what;
    void *p;
    int n, rc, error;
};

static void ssl_do(void *arg)
{
    struct ssl_call *c = arg;

    crypto_errors_clear();              /* errors are queued per thread: those of this call must be its own */
    if (c->what == CONNECT)
        c->rc = SSL_connect(c->ssl);
    else if (c->what == READ)
        c->rc = SSL_read(c->ssl, c->p, c->n);
    else
        c->rc = SSL_write(c->ssl, c->p, c->n);
    c->error = c->rc > 0 ? SSL_ERROR_NONE : SSL_get_error(c->ssl, c->rc);
}

/* ---- handshake --------------------------------------------------------------------------------------------------- */

static enum err handshake_failed(const struct channel *ch, const char *host, int error, struct errinfo *info)
{
    unsigned long code = ERR_peek_last_error();
    long verdict = SSL_get_verify_result(ch->ssl);

    crypto_errors_clear();
    if (verdict != X509_V_OK)
        return err_set(info, E_UPSTREAM_DOWN, "%s: its certificate was not accepted: %s", host,
                       X509_verify_cert_error_string(verdict));
    if (error != SSL_ERROR_SSL || !code)
        return err_set(info, E_UPSTREAM_DOWN, "%s: closed the connection during the TLS handshake", host);
    return err_set(info, E_UPSTREAM_DOWN, "%s: the TLS handshake failed: %s", host, ERR_reason_error_string(code));
}

enum err await_channel_tls(struct channel *ch, SSL_CTX *settings, const char *host, bool http2, ns_t deadline,
                           struct errinfo *info)
{
    ASSERT(!ch->ssl && ch->fd >= 0);
    ch->ssl = SSL_new(settings);
    if (!ch->ssl || SSL_set_fd(ch->ssl, ch->fd) != 1 || !expect_host(ch->ssl, host) || !offer(ch->ssl, http2)) {
        crypto_errors_clear();
        return err_set(info, E_OVERLOADED, "no memory for a connection");
    }
    for (;;) {
        struct ssl_call c = { .ssl = ch->ssl, .what = CONNECT };
        struct op op = { .kind = OP_POLL, .fd = ch->fd };
        int events;
        enum err e;

        task_deep(ssl_do, &c);
        if (c.rc == 1) {
            ch->ready = true;
            return OK;
        }
        if (c.error != SSL_ERROR_WANT_READ && c.error != SSL_ERROR_WANT_WRITE)
            return handshake_failed(ch, host, c.error, info);
        op.events = c.error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
        e = await_op(&op, deadline, &events);
        if (e)
            return e;
    }
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static enum moved moved_plain(ssize_t rc, size_t *ret_n)
{
    if (rc >= 0) {
        *ret_n = (size_t)rc;
        return MOVED;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? MOVED_LATER : MOVED_NEVER;
}

static enum moved moved_tls(struct ssl_call c, size_t n, size_t *ret_n)
{
    c.n = n > INT_MAX ? INT_MAX : (int)n;
    task_deep(ssl_do, &c);
    switch (c.error) {
    case SSL_ERROR_NONE:
        *ret_n = (size_t)c.rc;
        return MOVED;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return MOVED_LATER;
    case SSL_ERROR_ZERO_RETURN:
        return MOVED;                   /* goodbye: nothing, and nothing will come */
    default:
        crypto_errors_clear();
        return MOVED_NEVER;
    }
}

enum moved channel_send(struct channel *ch, const char *p, size_t n, size_t *ret_n)
{
    *ret_n = 0;
    if (!ch->ssl)
        return moved_plain(send(ch->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL), ret_n);
    return moved_tls((struct ssl_call){ .ssl = ch->ssl, .what = WRITE, .p = (void *)p }, n, ret_n);
}

enum moved channel_recv(struct channel *ch, char *p, size_t n, size_t *ret_n)
{
    *ret_n = 0;
    if (!ch->ssl)
        return moved_plain(recv(ch->fd, p, n, MSG_DONTWAIT), ret_n);
    return moved_tls((struct ssl_call){ .ssl = ch->ssl, .what = READ, .p = p }, n, ret_n);
}

/* OpenSSL takes a buffer of 16 KB to be told no: it is asked only when it holds something, or the socket does. */
bool channel_quiet(struct channel *ch)
{
    char byte;
    size_t n;
    bool nothing = recv(ch->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);

    if (!ch->ssl || (nothing && !SSL_has_pending(ch->ssl)))
        return nothing;
    return channel_recv(ch, &byte, 1, &n) == MOVED_LATER;
}

bool channel_speaks_http2(const struct channel *ch)
{
    const unsigned char *name;
    unsigned len = 0;

    if (ch->ssl)
        SSL_get0_alpn_selected(ch->ssl, &name, &len);
    return len == 2 && memcmp(name, "h2", 2) == 0;
}

bool channel_said_goodbye(const struct channel *ch)
{
    return !ch->ssl || (SSL_get_shutdown(ch->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
}

void channel_close(struct channel *ch)
{
    if (ch->ssl) {
        if (ch->ready)
            SSL_shutdown(ch->ssl);      /* says goodbye; whether the peer hears it is not waited for */
        SSL_free(ch->ssl);
        crypto_errors_clear();
    }
    if (ch->fd >= 0)
        close(ch->fd);
    *ch = (struct channel){ .fd = -1 };
}
