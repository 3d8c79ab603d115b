/*
 * tls.c -- TLS between the ring and a connection
 *
 * OpenSSL never sees a socket: a BIO of our own reads from the bytes the ring just delivered and writes into the
 * connection's output.  Reading always goes on until OpenSSL wants more, so nothing of a delivered buffer is left
 * when it goes back.
 *
 * Can fail: the handshake (wrong version, no shared ALPN, client certificate missing or not from the CA), a record
 * that does not open, OpenSSL out of memory.  Each ends the connection; OpenSSL has queued the alert that says why.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "base/check.h"
#include "base/crypto.h"
#include "http/internal.h"
#include "loop/world.h"

enum { TLS_MAGIC = 0x746c7331, SUBJECT_MAX = 1024, RECORD_MAX = 16 * 1024, KEY_FILE_MAX = 256 * 1024 };

struct http_tls {
    uint32_t magic;
    atomic_uint holds;
    SSL_CTX *ctx;
};

struct tls_conn {
    struct conn *conn;
    SSL *ssl;
    struct str in;                      /* ciphertext not yet read; valid inside tls_input() only */
    bool established, failed;
    bool has_cert;
    struct http_client_cert cert;
    char *subject;                      /* what cert.subject points to */
};

/* ---- BIO --------------------------------------------------------------------------------------------------------- */

static int bio_read(BIO *bio, char *out, int n)
{
    struct tls_conn *t = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (t->in.len == 0 || n <= 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if ((size_t)n > t->in.len)
        n = (int)t->in.len;
    memcpy(out, t->in.p, (size_t)n);
    t->in = str_from(t->in, (size_t)n);
    return n;
}

static int bio_write(BIO *bio, const char *bytes, int n)
{
    struct tls_conn *t = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    if (n > 0)
        buf_add(&t->conn->pending, bytes, (size_t)n);
    return n;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    (void)bio;
    (void)num;
    (void)ptr;
    return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_once = PTHREAD_ONCE_INIT;

static void bio_setup(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ring");
    ASSERT(bio_method != NULL);
    BIO_meth_set_read(bio_method, bio_read);
    BIO_meth_set_write(bio_method, bio_write);
    BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

/* ---- certificates and settings ----------------------------------------------------------------------------------- */

/* Only http/1.1 is spoken; who offers other protocols alone is told so instead of being misread (RFC 7301 3.2). */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";

    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto((unsigned char **)out, out_len, ours, sizeof(ours) - 1, in, in_len) ==
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_OK;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* An encrypted key is an error: a daemon has nobody to ask. */
static int no_password(char *out, int n, int rw, void *arg)
{
    (void)out;
    (void)n;
    (void)rw;
    (void)arg;
    return 0;
}

static enum err tls_error(struct errinfo *info, const char *what, const char *file)
{
    unsigned long code = ERR_peek_error();      /* the first is the cause; later ones say in which part it was met */
    const char *reason = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);

    err_set(info, E_CONFIG, "TLS: cannot use %s %s: %s", what, file, reason ? reason : "not readable, or not PEM");
    crypto_errors_clear();
    return E_CONFIG;
}

static enum err load_client_ca(SSL_CTX *ctx, const struct http_tls_options *opt, struct errinfo *info)
{
    STACK_OF(X509_NAME) *names;

    if (SSL_CTX_load_verify_file(ctx, opt->client_ca) != 1)
        return tls_error(info, "the client CA file", opt->client_ca);
    names = SSL_load_client_CA_file(opt->client_ca);
    if (!names)
        return tls_error(info, "the client CA file", opt->client_ca);
    SSL_CTX_set_client_CA_list(ctx, names);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (opt->client_cert_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    return OK;
}

/* OpenSSL would leave the text of a file that it reads itself in memory that it frees. */
static enum err load_key(SSL_CTX *ctx, const char *file, struct errinfo *info)
{
    char *text = malloc(KEY_FILE_MAX);
    int fd = text ? world->open(file, O_RDONLY | O_NONBLOCK, 0) : -ENOMEM;
    int64_t n = fd < 0 ? fd : world->pread(fd, text, KEY_FILE_MAX, 0);
    BIO *pem = n >= 0 && n < KEY_FILE_MAX ? BIO_new_mem_buf(text, (int)n) : NULL;
    EVP_PKEY *key = pem ? PEM_read_bio_PrivateKey(pem, NULL, no_password, NULL) : NULL;
    enum err e = OK;

    if (fd >= 0)
        world->close(fd);
    if (n < 0 || n == KEY_FILE_MAX)
        e = err_set(info, E_CONFIG, "TLS: cannot use the key file %s: %s", file, strerror(n < 0 ? (int)-n : EFBIG));
    else if (!key || SSL_CTX_use_PrivateKey(ctx, key) != 1)
        e = tls_error(info, "the key file", file);
    EVP_PKEY_free(key);
    BIO_free(pem);
    if (n > 0)
        bytes_wipe(text, (size_t)n);
    free(text);
    return e;
}

static enum err load(SSL_CTX *ctx, const struct http_tls_options *opt, struct errinfo *info)
{
    static const unsigned char session_context[] = "sluice http";
    enum err e;

    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                             SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    /* forward secrecy and AEAD only; TLS 1.3 has nothing else */
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1 ||
        SSL_CTX_set_session_id_context(ctx, session_context, sizeof(session_context) - 1) != 1)
        return tls_error(info, "the settings of", "this OpenSSL");
    /* sessions live in tickets, not in our memory */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    SSL_CTX_set_default_passwd_cb(ctx, no_password);
    if (SSL_CTX_use_certificate_chain_file(ctx, opt->cert) != 1)
        return tls_error(info, "the certificate file", opt->cert);
    e = load_key(ctx, opt->key, info);
    if (e)
        return e;
    if (SSL_CTX_check_private_key(ctx) != 1)
        return tls_error(info, "the key (it does not belong to the certificate)", opt->key);
    return opt->client_ca ? load_client_ca(ctx, opt, info) : OK;
}

enum err http_tls_load(const struct http_tls_options *opt, struct http_tls **ret, struct errinfo *info)
{
    struct http_tls *tls;
    enum err e;

    if (!opt->cert || !opt->key)
        return err_set(info, E_CONFIG, "TLS needs both a certificate file and a key file");
    if (opt->client_cert_required && !opt->client_ca)
        return err_set(info, E_CONFIG, "TLS: client certificates are required, but no client CA file is named");
    pthread_once(&bio_once, bio_setup);
    crypto_errors_clear();
    tls = calloc(1, sizeof(*tls));
    if (!tls)
        return err_set(info, E_IO, "no memory for TLS");
    tls->magic = TLS_MAGIC;
    atomic_store(&tls->holds, 1);
    tls->ctx = SSL_CTX_new(TLS_server_method());
    e = tls->ctx ? load(tls->ctx, opt, info) : err_set(info, E_IO, "no memory for TLS");
    if (e) {
        http_tls_release(tls);
        return e;
    }
    *ret = tls;
    return OK;
}

struct http_tls *tls_hold(struct http_tls *tls)
{
    MAGIC_CHECK(tls, TLS_MAGIC);
    atomic_fetch_add(&tls->holds, 1);
    return tls;
}

void http_tls_release(struct http_tls *tls)
{
    if (!tls)
        return;
    MAGIC_CHECK(tls, TLS_MAGIC);
    if (atomic_fetch_sub(&tls->holds, 1) > 1)
        return;
    SSL_CTX_free(tls->ctx);         /* connections have holds of their own on it */
    tls->magic = 0;
    free(tls);
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

struct tls_conn *tls_open(struct http_tls *tls, struct conn *c)
{
    struct tls_conn *t = calloc(1, sizeof(*t));
    BIO *bio = t ? BIO_new(bio_method) : NULL;

    if (!bio) {
        free(t);
        return NULL;
    }
    t->conn = c;
    t->ssl = SSL_new(tls->ctx);
    if (!t->ssl) {
        BIO_free(bio);
        free(t);
        return NULL;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_accept_state(t->ssl);
    return t;
}

void tls_close(struct tls_conn *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    free(t->subject);
    free(t);
}

/* The subject and fingerprint of the certificate the handshake has verified. A subject may be empty (RFC 5280 4.1.2.6:
 * the name is in the subjectAltName then), and one that is too long to keep is left out. False when memory is out. */
static bool take_client_cert(struct tls_conn *t)
{
    X509 *cert = SSL_get1_peer_certificate(t->ssl);
    BIO *text = BIO_new(BIO_s_mem());
    unsigned n = sizeof(t->cert.fingerprint);
    bool ok = false;
    char *p;
    long len;

    if (!cert) {
        BIO_free(text);
        return true;
    }
    if (text && X509_NAME_print_ex(text, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) >= 0 &&
        X509_digest(cert, EVP_sha256(), t->cert.fingerprint, &n) == 1) {
        len = BIO_get_mem_data(text, &p);
        if (len > SUBJECT_MAX)
            len = 0;
        t->subject = len > 0 ? malloc((size_t)len) : NULL;
        if (t->subject)
            memcpy(t->subject, p, (size_t)len);
        t->cert.subject = t->subject ? str_n(t->subject, (size_t)len) : STR("");
        t->has_cert = ok = len <= 0 || t->subject;
    }
    BIO_free(text);
    X509_free(cert);
    return ok;
}

/* Plain HTTP on a TLS port deserves an answer that can be read. */
static void answer_plain_http(struct tls_conn *t)
{
    static const struct str answer = STR("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                                         "Content-Length: 27\r\nConnection: close\r\n\r\nthis port speaks TLS only.\n");

    if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST) {
        buf_clear(&t->conn->pending);
        buf_add_str(&t->conn->pending, answer);
    }
}

/* 1: done, 0: more is needed, -1: failed */
static int handshake(struct tls_conn *t)
{
    int rc;

    crypto_errors_clear();
    rc = SSL_do_handshake(t->ssl);
    if (rc == 1) {
        t->established = true;
        return take_client_cert(t) ? 1 : -1;
    }
    if (SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_READ)
        return 0;
    answer_plain_http(t);
    return -1;
}

bool tls_input(struct tls_conn *t, struct str bytes)
{
    struct conn *c = t->conn;
    UNSET char plain[RECORD_MAX];
    int n, rc;

    if (t->failed)
        return false;
    t->in = bytes;
    if (!t->established) {
        rc = handshake(t);
        t->failed = rc < 0;
        if (rc <= 0) {
            conn_flush(c);
            return rc == 0;
        }
        conn_ready(c);
    }
    for (;;) {
        crypto_errors_clear();
        n = SSL_read(t->ssl, plain, sizeof(plain));
        if (n <= 0)
            break;
        conn_input(c, str_n(plain, (size_t)n));
        if (c->phase == LINGER || c->phase == CLOSED) {
            t->in = STR_NULL;       /* the rest is dropped */
            return true;
        }
    }
    rc = SSL_get_error(t->ssl, n);
    if (rc == SSL_ERROR_ZERO_RETURN) {
        if (!c->eof)
            conn_eof(c);
    } else if (rc != SSL_ERROR_WANT_READ) {
        t->failed = true;
    }
    t->in = STR_NULL;
    conn_flush(c);
    return !t->failed;
}

bool tls_output(struct tls_conn *t, struct str bytes)
{
    while (bytes.len > 0) {
        int n = bytes.len < INT_MAX ? (int)bytes.len : INT_MAX;

        if (!t->established || t->failed)
            return false;
        crypto_errors_clear();
        n = SSL_write(t->ssl, bytes.p, n);
        if (n <= 0) {
            t->failed = true;
            return false;
        }
        bytes = str_from(bytes, (size_t)n);
    }
    return true;
}

void tls_shutdown(struct tls_conn *t)
{
    if (!t->established || t->failed)
        return;
    crypto_errors_clear();
    SSL_shutdown(t->ssl);
    crypto_errors_clear();
}

const struct http_client_cert *tls_client_cert(const struct tls_conn *t)
{
    return t->has_cert ? &t->cert : NULL;
}
