/*
 * The server over TLS, with certificates made here: replies large and small, resumption, ALPN, client certificates,
 * renewal, and peers that do not speak TLS.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_server_test.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

/* ---- certificates ------------------------------------------------------------------------------------------------ */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
    char cert_path[128], key_path[128];
};

static struct {
    char dir[64];
    struct identity ca, other_ca, server, renewed, agent, stranger, nameless, long_name;
} pki;

static void extension(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, (char *)(uintptr_t)value);

    assert_non_null(e);
    assert_int_equal(X509_add_ext(cert, e, -1), 1);
    X509_EXTENSION_free(e);
}

/* issuer NULL: signs itself, as a CA; name NULL: the subject is empty */
static void make_identity(struct identity *id, const char *file, const char *name, const struct identity *issuer)
{
    static long serial = 1;
    X509_NAME *subject;
    FILE *f;

    id->key = EVP_EC_gen("P-256");
    id->cert = X509_new();
    assert_true(id->key && id->cert);
    X509_set_version(id->cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(id->cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id->cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(id->cert), 3600);
    subject = X509_get_subject_name(id->cert);
    if (name) {
        X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const unsigned char *)"Example", -1, -1, 0);
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    } else {
        extension(id->cert, NID_subject_alt_name, "critical,URI:spiffe://example/agent-7");
    }
    X509_set_issuer_name(id->cert, issuer ? X509_get_subject_name(issuer->cert) : subject);
    X509_set_pubkey(id->cert, id->key);
    extension(id->cert, NID_basic_constraints, issuer ? "CA:FALSE" : "critical,CA:TRUE");
    assert_true(X509_sign(id->cert, issuer ? issuer->key : id->key, EVP_sha256()) > 0);

    snprintf(id->cert_path, sizeof(id->cert_path), "%s/%s.crt", pki.dir, file);
    snprintf(id->key_path, sizeof(id->key_path), "%s/%s.key", pki.dir, file);
    f = fopen(id->cert_path, "w");
    assert_true(f && PEM_write_X509(f, id->cert) == 1);
    fclose(f);
    f = fopen(id->key_path, "w");
    assert_true(f && PEM_write_PrivateKey(f, id->key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(f);
}

static void drop_identity(struct identity *id)
{
    unlink(id->cert_path);
    unlink(id->key_path);
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
}

static int setup(void **state)
{
    snprintf(pki.dir, sizeof(pki.dir), "/tmp/http_tls_test.XXXXXX");
    assert_non_null(mkdtemp(pki.dir));
    make_identity(&pki.ca, "ca", "test CA", NULL);
    make_identity(&pki.other_ca, "other", "another CA", NULL);
    make_identity(&pki.server, "server", "server", &pki.ca);
    make_identity(&pki.renewed, "renewed", "renewed", &pki.ca);
    make_identity(&pki.agent, "agent", "agent-7", &pki.ca);
    make_identity(&pki.stranger, "stranger", "stranger", &pki.other_ca);
    make_identity(&pki.nameless, "nameless", NULL, &pki.ca);
    make_identity(&pki.long_name, "long", "agent-8", &pki.ca);
    for (int i = 0; i < 25; i++)
        X509_NAME_add_entry_by_txt(X509_get_subject_name(pki.long_name.cert), "OU", MBSTRING_ASC,
                                   (const unsigned char *)"a unit of an organisation, one of very many units", -1, -1,
                                   0);
    assert_true(X509_sign(pki.long_name.cert, pki.ca.key, EVP_sha256()) > 0);
    return 0;
}

static int teardown(void **state)
{
    drop_identity(&pki.ca);
    drop_identity(&pki.other_ca);
    drop_identity(&pki.server);
    drop_identity(&pki.renewed);
    drop_identity(&pki.agent);
    drop_identity(&pki.stranger);
    drop_identity(&pki.nameless);
    drop_identity(&pki.long_name);
    rmdir(pki.dir);
    return 0;
}

static struct http_tls *load(const struct identity *server, bool ask, bool required)
{
    struct http_tls_options opt = { .cert = server->cert_path, .key = server->key_path,
                                    .client_ca = ask ? pki.ca.cert_path : NULL, .client_cert_required = required };
    struct http_tls *tls = NULL;
    struct errinfo info;

    if (http_tls_load(&opt, &tls, &info) != OK)
        fail_msg("%s", info.text);
    return tls;
}

static void tls_start(struct fixture *f, bool ask, bool required)
{
    struct http_server_options opt = { .tls = load(&pki.server, ask, required) };

    server_start(f, &opt);
    http_tls_release(opt.tls);
}

/* ---- client ------------------------------------------------------------------------------------------------------ */

struct hello {
    const struct identity *identity;    /* client certificate */
    const char *alpn;                   /* length-prefixed names */
    int max_version;
    SSL_SESSION *session;
};

/* Connects and shakes hands; false if the handshake failed. */
static bool tls_open(struct client *c, struct fixture *f, struct hello hello)
{
    int rc;

    client_open(c, f);
    c->ctx = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_load_verify_file(c->ctx, pki.ca.cert_path), 1);
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
    if (hello.max_version)
        SSL_CTX_set_max_proto_version(c->ctx, hello.max_version);
    if (hello.max_version == TLS1_1_VERSION) {
        SSL_CTX_set_min_proto_version(c->ctx, TLS1_VERSION);
        SSL_CTX_set_security_level(c->ctx, 0);
    }
    if (hello.identity) {
        SSL_CTX_use_certificate(c->ctx, hello.identity->cert);
        SSL_CTX_use_PrivateKey(c->ctx, hello.identity->key);
    }
    c->ssl = SSL_new(c->ctx);
    SSL_set_mode(c->ssl, SSL_MODE_AUTO_RETRY);
    if (hello.alpn)
        SSL_set_alpn_protos(c->ssl, (const unsigned char *)hello.alpn, (unsigned)strlen(hello.alpn));
    if (hello.session)
        SSL_set_session(c->ssl, hello.session);
    SSL_set_fd(c->ssl, c->fd);
    do
        rc = SSL_connect(c->ssl);
    while (client_interrupted(c, rc));
    return rc == 1;
}

static const struct hello plain_hello;

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void replies(void **state)
{
    static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
    struct fixture f;
    struct client c;
    struct answer a;
    struct buf b = BUF_INIT(8 << 20);

    tls_start(&f, false, false);
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        assert_true(tls_open(&c, &f, (struct hello){ .max_version = versions[i], .alpn = "\x02h2\x08http/1.1" }));
        assert_int_equal(SSL_version(c.ssl), versions[i]);
        assert_int_equal(ask(&c, GET("/cert"), "none"), 200);
        assert_int_equal(ask(&c, GET("/stream"), "abbccc"), 200);
        client_send(&c, STR(GET("/big")));
        assert_true(client_answer(&c, false, &a));
        assert_int_equal(a.body.len, 3000000);
        answer_release(&a);

        buf_clear(&b);
        buf_add_z(&b, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
        for (int k = 0; k < 1000000; k++)
            buf_add_c(&b, (char)('A' + k % 26));
        client_send(&c, buf_str(&b));
        assert_true(client_answer(&c, false, &a));
        assert_int_equal(a.body.len, 1000000);
        assert_memory_equal(a.body.p, b.p + b.len - 1000000, 1000000);
        answer_release(&a);

        /* the last answer of a connection is followed by a proper goodbye */
        assert_int_equal(ask(&c, "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ""), 200);
        assert_true(client_at_end(&c));
        assert_true(SSL_get_shutdown(c.ssl) & SSL_RECEIVED_SHUTDOWN);
        client_close(&c);
    }
    buf_release(&b);
    server_stop(&f);
}

/* Records cut into single bytes by the network. */
static void byte_at_a_time(void **state)
{
    char block[4096];
    struct fixture f;
    struct client c;
    BIO *out;
    int n;

    tls_start(&f, false, false);
    assert_true(tls_open(&c, &f, plain_hello));
    assert_int_equal(ask(&c, GET("/echo"), ""), 200);
    assert_int_equal(ask(&c, "POST /over?5 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"), 200);
    out = BIO_new(BIO_s_mem());
    SSL_set0_wbio(c.ssl, out);
    assert_true(SSL_write(c.ssl, GET("/stream"), sizeof(GET("/stream")) - 1) > 0);
    n = BIO_read(out, block, sizeof(block));
    assert_true(n > 30);
    for (int i = 0; i < n; i++)
        assert_int_equal(send(c.fd, block + i, 1, MSG_NOSIGNAL), 1);
    assert_int_equal(ask(&c, "", "abbccc"), 200);
    client_close(&c);
    server_stop(&f);
}

static void sessions_resume(void **state)
{
    struct fixture f;
    struct client c;
    SSL_SESSION *session;

    tls_start(&f, true, true);
    assert_true(tls_open(&c, &f, (struct hello){ .identity = &pki.agent }));
    assert_int_equal(ask(&c, GET("/cert"), "CN=agent-7,O=Example"), 200);
    session = SSL_get1_session(c.ssl);
    assert_false(SSL_session_reused(c.ssl));
    SSL_shutdown(c.ssl);            /* OpenSSL forgets the session of a connection cut short */
    client_close(&c);
    /* who the client is must survive resumption */
    assert_true(tls_open(&c, &f, (struct hello){ .session = session }));
    assert_true(SSL_session_reused(c.ssl));
    assert_int_equal(ask(&c, GET("/cert"), "CN=agent-7,O=Example"), 200);
    client_close(&c);
    SSL_SESSION_free(session);
    server_stop(&f);
}

static void client_certificates(void **state)
{
    struct fixture f;
    struct client c;

    tls_start(&f, true, true);
    assert_true(tls_open(&c, &f, (struct hello){ .identity = &pki.agent, .max_version = TLS1_2_VERSION }));
    assert_int_equal(ask(&c, GET("/cert"), "CN=agent-7,O=Example"), 200);
    client_close(&c);
    /* none, or one of another CA: in TLS 1.3 the client learns of it when it reads */
    assert_false(tls_open(&c, &f, (struct hello){ .max_version = TLS1_2_VERSION }));
    client_close(&c);
    assert_false(tls_open(&c, &f, (struct hello){ .identity = &pki.stranger, .max_version = TLS1_2_VERSION }));
    client_close(&c);
    if (tls_open(&c, &f, plain_hello))
        assert_int_equal(ask(&c, GET("/cert"), NULL), -1);
    client_close(&c);
    if (tls_open(&c, &f, (struct hello){ .identity = &pki.stranger }))
        assert_int_equal(ask(&c, GET("/cert"), NULL), -1);
    client_close(&c);
    assert_int_equal(f.handled, 1);
    server_stop(&f);

    tls_start(&f, true, false);
    assert_true(tls_open(&c, &f, plain_hello));
    assert_int_equal(ask(&c, GET("/cert"), "none"), 200);
    client_close(&c);
    assert_true(tls_open(&c, &f, (struct hello){ .identity = &pki.agent }));
    assert_int_equal(ask(&c, GET("/cert"), "CN=agent-7,O=Example"), 200);
    client_close(&c);
    if (tls_open(&c, &f, (struct hello){ .identity = &pki.stranger }))
        assert_int_equal(ask(&c, GET("/cert"), NULL), -1);
    client_close(&c);
    server_stop(&f);
}

/* Who proves to be certified is let in, whatever stands in the subject. */
static void certificates_without_a_name(void **state)
{
    const struct identity *const ids[] = { &pki.nameless, &pki.long_name };
    static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
    struct fixture f;
    struct client c;

    tls_start(&f, true, true);
    for (size_t i = 0; i < 2 * ARRAY_LEN(ids); i++) {
        assert_true(tls_open(&c, &f, (struct hello){ .identity = ids[i / 2], .max_version = versions[i % 2] }));
        assert_int_equal(ask(&c, GET("/cert"), ""), 200);
        client_close(&c);
    }
    server_stop(&f);
}

static void wrong_clients(void **state)
{
    struct http_server_options opt = { .handshake_timeout = 300 * NS_PER_MS };
    struct fixture f;
    struct client c;

    opt.tls = load(&pki.server, false, false);
    server_start(&f, &opt);
    http_tls_release(opt.tls);
    assert_false(tls_open(&c, &f, (struct hello){ .max_version = TLS1_1_VERSION }));
    client_close(&c);
    assert_false(tls_open(&c, &f, (struct hello){ .alpn = "\x02h2" }));
    client_close(&c);
    client_open(&c, &f);                        /* plain HTTP gets an answer it can read */
    client_send(&c, STR(GET("/echo")));
    assert_false(client_at_end(&c));
    assert_true(str_starts(buf_str(&c.in), STR("HTTP/1.1 400 ")));
    buf_clear(&c.in);
    client_at_end(&c);
    client_close(&c);
    client_open(&c, &f);                        /* a handshake that never comes */
    assert_true(client_at_end(&c));
    client_close(&c);
    client_open(&c, &f);
    client_send(&c, STR("\x16\x03\x01\x02"));   /* one that stops */
    assert_true(client_at_end(&c));
    client_close(&c);
    client_open(&c, &f);                        /* garbage */
    client_send(&c, STR("\x17\x03\x03\x00\x04" "abcdefgh"));
    client_at_end(&c);
    client_close(&c);
    assert_int_equal(f.handled + f.bad, 0);
    server_stop(&f);
}

static void refusals_arrive(void **state)
{
    struct fixture f;
    struct client c;

    tls_start(&f, false, false);
    assert_true(tls_open(&c, &f, plain_hello));
    assert_int_equal(ask(&c, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", NULL), 400);
    assert_int_equal(f.last_fault, HTTP_FAULT_HOST_MANY);
    assert_true(client_at_end(&c));
    assert_true(SSL_get_shutdown(c.ssl) & SSL_RECEIVED_SHUTDOWN);
    client_close(&c);
    server_stop(&f);
}

static void disconnects(void **state)
{
    struct fixture f;
    struct client c;

    tls_start(&f, false, false);
    assert_true(tls_open(&c, &f, plain_hello));
    client_send(&c, STR(GET("/slow-cancel")));
    await_event(&f.event);
    SSL_shutdown(c.ssl);            /* close_notify alone counts */
    await_event(&f.event);
    assert_int_equal(f.cancelled, 1);
    client_close(&c);
    assert_true(tls_open(&c, &f, plain_hello));
    client_send(&c, STR(GET("/slow-cancel")));
    await_event(&f.event);
    shutdown(c.fd, SHUT_WR);        /* and so does TCP's end without one */
    await_event(&f.event);
    assert_int_equal(f.cancelled, 2);
    client_close(&c);
    server_stop(&f);
}

static struct http_tls *renewed;

static void renew(struct fixture *f)
{
    http_server_reload_tls(f->srv, renewed);
}

static void certificates_are_renewed(void **state)
{
    struct fixture f;
    struct client old, fresh;
    char name[64];
    X509 *cert;

    tls_start(&f, false, false);
    assert_true(tls_open(&old, &f, plain_hello));
    assert_int_equal(ask(&old, GET("/echo"), ""), 200);
    renewed = load(&pki.renewed, false, false);
    on_loop(&f, renew);
    http_tls_release(renewed);
    assert_true(tls_open(&fresh, &f, plain_hello));
    cert = SSL_get1_peer_certificate(fresh.ssl);
    X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, sizeof(name));
    X509_free(cert);
    assert_string_equal(name, "renewed");
    assert_int_equal(ask(&fresh, GET("/echo"), ""), 200);
    assert_int_equal(ask(&old, GET("/stream"), "abbccc"), 200);
    client_close(&old);
    client_close(&fresh);
    server_stop(&f);
}

static void unusable_files(void **state)
{
    struct http_tls_options opt = { .cert = pki.server.cert_path, .key = pki.agent.key_path };
    struct http_tls *tls;
    struct errinfo info;

    assert_int_equal(http_tls_load(&opt, &tls, &info), E_CONFIG);
    assert_non_null(strstr(info.text, pki.agent.key_path));
    opt = (struct http_tls_options){ .cert = pki.server.key_path, .key = pki.server.key_path };
    assert_int_equal(http_tls_load(&opt, &tls, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "no start line"));
    opt = (struct http_tls_options){ .cert = pki.server.cert_path, .key = pki.server.cert_path };
    assert_int_equal(http_tls_load(&opt, &tls, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "cannot use the key file"));
    opt = (struct http_tls_options){ .cert = pki.server.cert_path, .key = pki.server.key_path, .client_ca = pki.dir };
    assert_int_equal(http_tls_load(&opt, &tls, &info), E_CONFIG);
    assert_non_null(strstr(info.text, pki.dir));
    opt = (struct http_tls_options){ .cert = pki.server.cert_path, .key = "/nonexistent.pem" };
    assert_int_equal(http_tls_load(&opt, &tls, &info), E_CONFIG);
    assert_string_equal(info.text, "TLS: cannot use the key file /nonexistent.pem: No such file or directory");
    opt = (struct http_tls_options){ .cert = "/nonexistent.pem", .key = pki.server.key_path };
    assert_int_equal(http_tls_load(&opt, &tls, &info), E_CONFIG);
    assert_string_equal(info.text, "TLS: cannot use the certificate file /nonexistent.pem: No such file or directory");
    opt = (struct http_tls_options){ .cert = pki.server.cert_path, .key = "/dev/zero" };
    assert_int_equal(http_tls_load(&opt, &tls, &info), E_CONFIG);
    assert_string_equal(info.text, "TLS: cannot use the key file /dev/zero: File too large");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies),
        cmocka_unit_test(byte_at_a_time),
        cmocka_unit_test(sessions_resume),
        cmocka_unit_test(client_certificates),
        cmocka_unit_test(certificates_without_a_name),
        cmocka_unit_test(wrong_clients),
        cmocka_unit_test(refusals_arrive),
        cmocka_unit_test(disconnects),
        cmocka_unit_test(certificates_are_renewed),
        cmocka_unit_test(unusable_files),
    };

    /* a failed test leaves its server running on a stack that is gone: no test after it could be believed */
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    return cmocka_run_group_tests(tests, setup, teardown);
}
