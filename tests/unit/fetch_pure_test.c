/*
 * fetch_pure_test.c -- hosts and networks, a request's bytes, an answer's bytes: fetch without a socket
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

#include "base/check.h"
#include "fetch/internal.h"

static const struct fetch_guard strict = { 0 };
static const struct fetch_guard loose = { true, true, true };

/* ---- hosts and networks ------------------------------------------------------------------------------------------ */

/* May a request go to this host, as far as can be said before names are resolved? */
static enum err host_verdict(const char *host, const struct fetch_guard *g)
{
    struct fetch_origin o;
    char url[512];

    snprintf(url, sizeof(url), "https://%s/", host);
    if (fetch_origin_parse(str_of(url), &o, NULL))
        return E_EGRESS_DENIED;
    return fetch_origin_allowed(&o, g, NULL);
}

static void refused(const char *host)
{
    if (host_verdict(host, &strict) != E_EGRESS_DENIED)
        fail_msg("%s was not refused", host);
}

/* Every way of writing the address `a` that some resolver or library is known to take. */
static unsigned refuse_encodings(uint32_t a)
{
    unsigned b[4] = { a >> 24, (a >> 16) & 255, (a >> 8) & 255, a & 255 }, n = 0;
    char t[128];

#define TRY(...) (snprintf(t, sizeof(t), __VA_ARGS__), refused(t), n++)
    TRY("%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
    TRY("%u.%u.%u.%u.", b[0], b[1], b[2], b[3]);
    TRY("%u", a);
    TRY("0x%08x", a);
    TRY("0X%08X", a);
    TRY("0%o", a);
    TRY("0x%02x.0x%02x.0x%02x.0x%02x", b[0], b[1], b[2], b[3]);
    TRY("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]);
    TRY("%03u.%03u.%03u.%03u", b[0], b[1], b[2], b[3]);
    TRY("%u.%u.%u", b[0], b[1], b[2] << 8 | b[3]);
    TRY("%u.%u", b[0], a & 0xffffff);
    TRY("%u.%u.%u.0x%x", b[0], b[1], b[2], b[3]);
    TRY("[::ffff:%u.%u.%u.%u]", b[0], b[1], b[2], b[3]);
    TRY("[::ffff:%02x%02x:%02x%02x]", b[0], b[1], b[2], b[3]);
    TRY("[0:0:0:0:0:ffff:%02x%02x:%02x%02x]", b[0], b[1], b[2], b[3]);
    TRY("[::ffff:0:%u.%u.%u.%u]", b[0], b[1], b[2], b[3]);
    TRY("[::%u.%u.%u.%u]", b[0], b[1], b[2], b[3]);
    TRY("[64:ff9b::%u.%u.%u.%u]", b[0], b[1], b[2], b[3]);
    TRY("[64:ff9b:1::%02x%02x:%02x%02x]", b[0], b[1], b[2], b[3]);
    TRY("[2002:%02x%02x:%02x%02x::1]", b[0], b[1], b[2], b[3]);
    TRY("[2001:0:4136:e378:8000:63bf:%02x%02x:%02x%02x]", b[0] ^ 255, b[1] ^ 255, b[2] ^ 255, b[3] ^ 255);
    TRY("user@%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
    TRY("%%3%u.%u.%u.%u", b[0], b[1], b[2], b[3]);
    TRY("%u。%u。%u。%u", b[0], b[1], b[2], b[3]);
#undef TRY
    return n;
}

static void test_encodings(void **state)
{
    static const char *const blocked[] = {
        "0.0.0.0",         "0.255.255.255",   "10.0.0.0",        "10.255.255.255",  "100.64.0.0",
        "100.100.100.200", "100.127.255.255", "127.0.0.1",       "127.255.255.254", "169.254.0.1",
        "169.254.169.254", "169.254.255.255", "172.16.0.0",      "172.31.255.255",  "192.0.0.0",
        "192.0.0.192",     "192.0.2.1",       "192.88.99.1",     "192.168.0.0",     "192.168.255.255",
        "198.18.0.0",      "198.19.255.255",  "198.51.100.7",    "203.0.113.9",     "224.0.0.1",
        "239.255.255.255", "240.0.0.1",       "255.255.255.255",
    };
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_LEN(blocked); i++) {
        struct in_addr a;

        assert_int_equal(inet_pton(AF_INET, blocked[i], &a), 1);
        n += refuse_encodings(ntohl(a.s_addr));
    }
    assert_true(n > 600);
}

static enum fetch_net net_of(const char *text)
{
    struct sockaddr_in a4 = { .sin_family = AF_INET };
    struct sockaddr_in6 a6 = { .sin6_family = AF_INET6 };

    if (inet_pton(AF_INET, text, &a4.sin_addr) == 1)
        return fetch_net_of((struct sockaddr *)&a4);
    assert_int_equal(inet_pton(AF_INET6, text, &a6.sin6_addr), 1);
    return fetch_net_of((struct sockaddr *)&a6);
}

static void test_networks(void **state)
{
    static const struct { const char *a; enum fetch_net net;
    } rows[] = {
        { "1.1.1.1", FETCH_NET_PUBLIC },
        { "9.255.255.255", FETCH_NET_PUBLIC },
        { "11.0.0.0", FETCH_NET_PUBLIC },
        { "100.63.255.255", FETCH_NET_PUBLIC },
        { "100.128.0.0", FETCH_NET_PUBLIC },
        { "126.255.255.255", FETCH_NET_PUBLIC },
        { "128.0.0.0", FETCH_NET_PUBLIC },
        { "169.253.255.255", FETCH_NET_PUBLIC },
        { "169.255.0.0", FETCH_NET_PUBLIC },
        { "172.15.255.255", FETCH_NET_PUBLIC },
        { "172.32.0.0", FETCH_NET_PUBLIC },
        { "192.0.1.0", FETCH_NET_PUBLIC },
        { "192.167.255.255", FETCH_NET_PUBLIC },
        { "192.169.0.0", FETCH_NET_PUBLIC },
        { "198.17.255.255", FETCH_NET_PUBLIC },
        { "198.20.0.0", FETCH_NET_PUBLIC },
        { "223.255.255.255", FETCH_NET_PUBLIC },
        { "10.1.2.3", FETCH_NET_PRIVATE },
        { "172.20.0.1", FETCH_NET_PRIVATE },
        { "192.168.1.1", FETCH_NET_PRIVATE },
        { "100.100.100.199", FETCH_NET_PRIVATE },
        { "100.100.100.200", FETCH_NET_NEVER },
        { "127.0.0.1", FETCH_NET_LOOPBACK },
        { "127.9.9.9", FETCH_NET_LOOPBACK },
        { "169.254.169.254", FETCH_NET_NEVER },
        { "0.0.0.0", FETCH_NET_NEVER },
        { "224.0.0.251", FETCH_NET_NEVER },
        { "255.255.255.255", FETCH_NET_NEVER },
        { "::1", FETCH_NET_LOOPBACK },
        { "::", FETCH_NET_NEVER },
        { "::2", FETCH_NET_NEVER },
        { "::ffff:127.0.0.1", FETCH_NET_NEVER },
        { "::ffff:8.8.8.8", FETCH_NET_NEVER },
        { "64:ff9b::8.8.8.8", FETCH_NET_NEVER },
        { "64:ff9b:1::1", FETCH_NET_NEVER },
        { "100::1", FETCH_NET_NEVER },
        { "2001::1", FETCH_NET_NEVER },
        { "2001:1ff::1", FETCH_NET_NEVER },
        { "2001:200::1", FETCH_NET_PUBLIC },
        { "2001:db8::1", FETCH_NET_NEVER },
        { "2001:db9::1", FETCH_NET_PUBLIC },
        { "2001:4860:4860::8888", FETCH_NET_PUBLIC },
        { "2002:7f00:1::", FETCH_NET_NEVER },
        { "2003::1", FETCH_NET_PUBLIC },
        { "2606:4700::1", FETCH_NET_PUBLIC },
        { "3fff::1", FETCH_NET_NEVER },
        { "3fff:1000::1", FETCH_NET_PUBLIC },
        { "1fff::1", FETCH_NET_NEVER },
        { "4000::1", FETCH_NET_NEVER },
        { "fc00::1", FETCH_NET_PRIVATE },
        { "fd12::1", FETCH_NET_PRIVATE },
        { "fd00:ec2::254", FETCH_NET_NEVER },
        { "fe00::1", FETCH_NET_NEVER },
        { "fe80::1", FETCH_NET_NEVER },
        { "fec0::1", FETCH_NET_NEVER },
        { "ff02::1", FETCH_NET_NEVER },
    };
    struct sockaddr local = { .sa_family = AF_UNIX };
    struct fetch_guard g = { .allow_private = true };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (net_of(rows[i].a) != rows[i].net)
            fail_msg("%s is in the wrong network", rows[i].a);
    assert_int_equal(fetch_net_of(&local), FETCH_NET_NEVER);
    assert_false(fetch_guard_allows(&loose, FETCH_NET_NEVER));
    assert_true(fetch_guard_allows(&loose, FETCH_NET_LOOPBACK));
    assert_true(fetch_guard_allows(&g, FETCH_NET_PRIVATE));
    assert_false(fetch_guard_allows(&g, FETCH_NET_LOOPBACK));
}

static void test_origins(void **state)
{
    static const char *const good[][3] = {
        /* url, host, path */
        { "https://api.example.com", "api.example.com", "/" },
        { "https://API.Example.COM/v1?x=1", "api.example.com", "/v1?x=1" },
        { "http://localhost:8080/a", "localhost", "/a" },
        { "https://1.1.1.1/", "1.1.1.1", "/" },
        { "https://xn--bcher-kva.example/", "xn--bcher-kva.example", "/" },
        { "https://[2606:4700::1111]:8443/x", "[2606:4700::1111]", "/x" },
        { "https://a-b.c9/", "a-b.c9", "/" },
    };
    static const char *const bad[] = {
        "",
        "https://",
        "https:///x",
        "ftp://h/",
        "HTTPS://h/",
        "//h/",
        "h",
        "https://h:/",
        "https://h:0/",
        "https://h:65536/",
        "https://h:080/",
        "https://h:+1/",
        "https://h: 1/",
        "https://h:1:2/",
        "https://u@h/",
        "https://u:p@h/",
        "https://h#f",
        "https://h/#f",
        "https://h/a b",
        "https://h?q",
        "https://h\\x/",
        "https://.h/",
        "https://h./",
        "https://a..b/",
        "https://-h/",
        "https://h-/",
        "https://h_x/",
        "https://h%2e/",
        "https://[::1/",
        "https://::1/",
        "https://[::1%25eth0]/",
        "https://[::1%eth0]/",
        "https://[127.0.0.1]/",
        "https://[]/",
        "https://[/",
        "https://h\r\n/",
        "https://h/\x7f",
        "https://h/\xc3\xa9",
        "https://256.1.1.1/",
        "https://1.2.3.4.5/",
        "https://1.2.3/",
        "https://0x7f/",
        "https://a.0x7f/",
        "https://a.1/",
        "https://\xef\xbc\x91.1.1.1/",
    };
    struct fetch_origin o, p;
    struct str path;
    char longest[400];

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(fetch_url_parse(str_of(good[i][0]), &o, &path, NULL), OK);
        assert_string_equal(o.host, good[i][1]);
        assert_true(str_is(path, good[i][2]));
        assert_true(fetch_origin_valid(&o));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (fetch_url_parse(str_of(bad[i]), &o, &path, NULL) != E_EGRESS_DENIED &&
            fetch_origin_parse(str_of(bad[i]), &o, NULL) != E_EGRESS_DENIED)
            fail_msg("%s was accepted", bad[i]);
    assert_int_equal(fetch_url_parse(str_n("https://h\0x/", 12), &o, &path, NULL), E_EGRESS_DENIED);
    assert_int_equal(fetch_origin_parse(STR("https://h/path"), &o, NULL), E_EGRESS_DENIED);
    assert_int_equal(fetch_origin_parse(STR("https://h:443"), &o, NULL), OK);
    assert_int_equal(fetch_origin_parse(STR("https://h"), &p, NULL), OK);
    assert_true(fetch_origin_eq(&o, &p));
    assert_int_equal(fetch_origin_parse(STR("http://h:443"), &p, NULL), OK);
    assert_false(fetch_origin_eq(&o, &p));
    snprintf(longest, sizeof(longest), "https://%0*d.%0*d.%0*d.%0*d.%0*d.com/", 60, 0, 60, 0, 60, 0, 60, 0, 60, 0);
    assert_int_equal(fetch_origin_parse(str_of(longest), &o, NULL), E_EGRESS_DENIED);
    /* filled by hand */
    o = (struct fetch_origin){ .tls = true, .port = 1, .host = "0x7f000001" };
    assert_false(fetch_origin_valid(&o));
    memset(o.host, 'a', sizeof(o.host));
    assert_false(fetch_origin_valid(&o));
    assert_int_equal(fetch_origin_parse(STR("http://api.example.com"), &o, NULL), OK);
    assert_int_equal(fetch_origin_allowed(&o, &strict, NULL), E_EGRESS_DENIED);
    assert_int_equal(fetch_origin_allowed(&o, &loose, NULL), OK);
}

/* A name we accept must be a name for the C library too, never a number in disguise. */
static void test_names_are_names(void **state)
{
    static const char digits[] = "0123456789abcdefx.-g";
    unsigned accepted = 0;
    uint32_t seed = 7;

    for (int i = 0; i < 200000; i++) {
        char host[16];
        struct in_addr a;
        unsigned n = 0;

        for (seed = seed * 1103515245 + 12345, n = 1 + (seed >> 16) % 12; n > 0; n--) {
            seed = seed * 1103515245 + 12345;
            host[n - 1] = digits[(seed >> 16) % (sizeof(digits) - 1)];
        }
        n = 1 + (unsigned)i % 12;
        host[n] = '\0';
        if (host_verdict(host, &loose) || inet_pton(AF_INET, host, &a) == 1)
            continue;
        accepted++;
        if (inet_aton(host, &a))
            fail_msg("%s is a number for the C library", host);
    }
    assert_true(accepted > 1000);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static struct fetch_origin origin_of(const char *text)
{
    struct fetch_origin o;

    assert_int_equal(fetch_origin_parse(str_of(text), &o, NULL), OK);
    return o;
}

static struct fetch_request request(const struct fetch_origin *o, const char *method, const char *path)
{
    return (struct fetch_request){ .tenant = STR("acme"), .origin = o, .method = str_of(method), .path = str_of(path),
                                   .deadline = NS_NEVER, .reply_max = 1000 };
}

static void check_wire(const struct fetch_request *req, const char *expected)
{
    struct arena a;
    struct wire w;
    struct str whole;

    assert_int_equal(fetch_request_check(req, false, NULL), OK);
    assert_true(wire_build(&w, req));
    assert_int_equal(w.len + w.rest.len, strlen(expected));
    assert_memory_equal(w.p, expected, w.len);
    assert_true(w.rest.len == 0 || memcmp(w.rest.p, expected + w.len, w.rest.len) == 0);
    wire_wipe(&w);
    assert_null(w.p);
    arena_init(&a, 1 << 20);
    whole = fetch_wire(req, &a);
    assert_true(str_is(whole, expected));
    arena_release(&a);
}

#define TAIL "User-Agent: sluice/" SLUICE_VERSION "\r\nAccept-Encoding: identity\r\n"

static void test_wire(void **state)
{
    struct fetch_origin o = origin_of("https://api.test"), p = origin_of("http://[::1]:8080");
    struct fetch_request req = request(&o, "GET", "/a?b=c");
    struct secret *token = secret_copy("t0k/en+==", 9), *pass = secret_copy("a b&c", 5);
    struct fetch_header headers[] = { { STR("X-One"), STR("1"), NULL },
                                      { STR("X-Key"), STR("k "), token },
                                      { STR("user-agent"), STR("me"), NULL } };
    struct fetch_part parts[] = { { .text = STR("grant_type=refresh_token&refresh_token=") },
                                  { .secret = pass, .form = true },
                                  { .text = STR("&scope=") },
                                  { .text = STR("x y~z"), .form = true } };
    char *big = malloc(FETCH_BODY_COPY + 1), *expected = malloc(FETCH_BODY_COPY + 500);

    check_wire(&req, "GET /a?b=c HTTP/1.1\r\nHost: api.test\r\n" TAIL "\r\n");
    req.bearer = token;
    check_wire(&req, "GET /a?b=c HTTP/1.1\r\nHost: api.test\r\n" TAIL "Authorization: Bearer t0k/en+==\r\n\r\n");
    req.bearer = NULL;
    req.headers = headers;
    req.n_headers = 3;
    check_wire(&req, "GET /a?b=c HTTP/1.1\r\nHost: api.test\r\nX-One: 1\r\nX-Key: k t0k/en+==\r\nuser-agent: "
                     "me\r\nAccept-Encoding: identity\r\n\r\n");
    req = request(&p, "POST", "/");
    check_wire(&req, "POST / HTTP/1.1\r\nHost: [::1]:8080\r\n" TAIL "Content-Length: 0\r\n\r\n");
    req.body = STR("{}");
    check_wire(&req, "POST / HTTP/1.1\r\nHost: [::1]:8080\r\n" TAIL "Content-Length: 2\r\n\r\n{}");
    req.method = STR("DELETE");
    req.body = STR("");
    check_wire(&req, "DELETE / HTTP/1.1\r\nHost: [::1]:8080\r\n" TAIL "\r\n");
    req = request(&o, "POST", "/token");
    req.parts = parts;
    req.n_parts = 4;
    req.basic_user = STR("cli:ent");
    req.basic_secret = pass;
    req.basic_form = true;
    check_wire(&req,
               "POST /token HTTP/1.1\r\nHost: api.test\r\n" TAIL "Authorization: Basic Y2xpJTNBZW50OmElMjBiJTI2Yw==\r\n"
               "Content-Length: 64\r\n\r\ngrant_type=refresh_token&refresh_token=a%20b%26c&scope=x%20y%7Ez");
    memset(big, 'x', FETCH_BODY_COPY + 1);
    big[FETCH_BODY_COPY] = '\0';
    req = request(&o, "PUT", "/");
    req.body = str_of(big);
    snprintf(expected, FETCH_BODY_COPY + 500,
             "PUT / HTTP/1.1\r\nHost: api.test\r\n" TAIL "Content-Length: %d\r\n\r\n%s", FETCH_BODY_COPY, big);
    check_wire(&req, expected);
    req.body.len--;
    snprintf(expected, FETCH_BODY_COPY + 500,
             "PUT / HTTP/1.1\r\nHost: api.test\r\n" TAIL "Content-Length: %d\r\n\r\n%.*s", FETCH_BODY_COPY - 1,
             FETCH_BODY_COPY - 1, big);
    check_wire(&req, expected);
    free(big);
    free(expected);
    secret_release(token);
    secret_release(pass);
}

/* Fields in common are as if the request had them first, in what is sent and in what is refused. */
static void test_fields_in_common(void **state)
{
    struct fetch_origin o = origin_of("https://api.test");
    struct fetch_header all[] = { { STR("Accept"), STR("application/json"), NULL }, { STR("X-Empty"), STR(""), NULL },
                                  { STR("User-Agent"), STR("me"), NULL }, { STR("X-Last"), STR("a b"), NULL } };
    struct fetch_header many[FETCH_HEADERS_MAX], bad = { STR("Authorization"), STR("x"), NULL };
    const struct fetch_common *common;
    struct fetch_request req = request(&o, "GET", "/");
    struct errinfo why;
    struct arena a;

    (void)state;
    arena_init(&a, 1 << 20);
    for (unsigned n = 0; n <= ARRAY_LEN(all); n++) {
        struct fetch_request plain = request(&o, "POST", "/x"), split = plain;
        struct wire fields, others;
        struct str expected;

        plain.headers = all;
        plain.n_headers = ARRAY_LEN(all);
        expected = fetch_wire(&plain, &a);
        assert_true(expected.len > 0);
        assert_int_equal(fetch_common_make(&a, all, n, &common, &why), OK);
        split.common = common;
        split.headers = all + n;
        split.n_headers = ARRAY_LEN(all) - n;
        assert_true(str_eq(fetch_wire(&split, &a), expected));
        assert_true(fetch_request_names(&split, STR("user-agent")) && !fetch_request_names(&split, STR("x")));
        assert_true(wire_build_fields(&fields, &plain) && wire_build_fields(&others, &split));
        assert_true(str_eq(str_n(fields.p, fields.len), str_n(others.p, others.len)));
        wire_wipe(&fields);
        wire_wipe(&others);
    }
    req.common = common;
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = (struct fetch_header){ STR("x"), STR("y"), NULL };
    req.headers = many;
    req.n_headers = FETCH_HEADERS_MAX - ARRAY_LEN(all);
    assert_int_equal(fetch_request_check(&req, false, NULL), OK);
    req.n_headers++;
    assert_int_equal(fetch_request_check(&req, false, NULL), E_CONNECTOR_FAULT);
    assert_int_equal(fetch_common_make(&a, &bad, 1, &common, &why), E_CONNECTOR_FAULT);
    bad = (struct fetch_header){ STR("X"), STR("a\nb"), NULL };
    assert_int_equal(fetch_common_make(&a, &bad, 1, &common, &why), E_CONNECTOR_FAULT);
    arena_release(&a);
}

/* Every byte at every place of paths as long as what is looked at together, and longer. */
static void test_visible_bytes(void **state)
{
    (void)state;
    for (size_t len = 2; len < 40; len++) {
        for (size_t at = 1; at < len; at++) {
            for (unsigned c = 0; c < 256; c++) {
                char path[40];

                memset(path, 'a', len);
                path[0] = '/';
                path[at] = (char)c;
                assert_int_equal(fetch_path_valid(str_n(path, len)), c > 0x20 && c < 0x7f && c != '#');
            }
        }
    }
}

static void refuse_request(const struct fetch_request *req)
{
    assert_int_equal(fetch_request_check(req, false, NULL), E_CONNECTOR_FAULT);
}

static void test_request_check(void **state)
{
    static const char *const bad_paths[] = { "",           "a",     "*",    "http://h/", "/a b",
                                             "/a\r\nX: y", "/a\tb", "/a#b", "/\x80",     "/\x7f" };
    static const char *const bad_methods[] = { "", "get", "GE T", "GET\r\n", "CONNECT", "TRACE", "ABCDEFGHIJKLMNOPQ" };
    static const char *const bad_names[] = { "",
                                             "a b",
                                             "a:",
                                             "a\r\n",
                                             "a_b\n",
                                             "Host",
                                             "content-length",
                                             "Transfer-Encoding",
                                             "CONNECTION",
                                             "Expect",
                                             "upgrade",
                                             "te",
                                             "Accept-Encoding",
                                             "Proxy-Authorization",
                                             "\xc3\xa9",
                                             "a(b" };
    static const char *const bad_values[] = { "a\r\nb: c", "a\nb", "\x01", "\x7f", "\xc3\xa9", " a", "a " };
    struct fetch_origin o = origin_of("https://api.test");
    struct fetch_request req = request(&o, "GET", "/");
    struct fetch_header h = { STR("x"), STR("y"), NULL }, many[FETCH_HEADERS_MAX + 1];
    struct secret *evil = secret_copy("a\r\nX: y", 7);

    assert_int_equal(fetch_request_check(&req, false, NULL), OK);
    for (size_t i = 0; i < ARRAY_LEN(bad_paths); i++) {
        req = request(&o, "GET", bad_paths[i]);
        refuse_request(&req);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_methods); i++) {
        req = request(&o, bad_methods[i], "/");
        refuse_request(&req);
    }
    req = request(&o, "POST", "/");
    req.headers = &h;
    req.n_headers = 1;
    assert_int_equal(fetch_request_check(&req, false, NULL), OK);
    for (size_t i = 0; i < ARRAY_LEN(bad_names); i++) {
        h = (struct fetch_header){ str_of(bad_names[i]), STR("y"), NULL };
        refuse_request(&req);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad_values); i++) {
        h = (struct fetch_header){ STR("x"), str_of(bad_values[i]), NULL };
        refuse_request(&req);
    }
    h = (struct fetch_header){ STR("x"), STR(""), evil };
    refuse_request(&req);
    h = (struct fetch_header){ STR("Authorization"), STR("x"), NULL };
    assert_int_equal(fetch_request_check(&req, false, NULL), OK);
    req.bearer = evil;
    refuse_request(&req);
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = (struct fetch_header){ STR("x"), STR("y"), NULL };
    req = request(&o, "POST", "/");
    req.headers = many;
    req.n_headers = ARRAY_LEN(many);
    refuse_request(&req);
    req = request(&o, "GET", "/");
    req.body = STR("x");
    refuse_request(&req);
    req = request(&o, "GET", "/");
    req.tenant = STR("");
    refuse_request(&req);
    secret_release(evil);
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

/* Feeds `in` in pieces of `step`; *ret_behind: bytes behind the answer. Then the peer closes if `eof`. */
static enum err read_reply(struct arena *a, struct str in, size_t step, size_t max, bool was_head, bool eof,
                           struct fetch_reply *ret, size_t *ret_behind)
{
    struct reader r;
    enum err e = OK;
    size_t at = 0;

    reader_init(&r, a, max, was_head);
    while (!e && at < in.len && !reader_done(&r)) {
        /* from a copy of the exact size, so that reading on is noticed */
        size_t n = in.len - at < step ? in.len - at : step, used = 0;
        char *copy = malloc(n);

        memcpy(copy, in.p + at, n);
        e = reader_feed(&r, str_n(copy, n), &used);
        free(copy);
        if (!e)
            at += used;
    }
    if (!e && !reader_done(&r) && eof)
        e = reader_eof(&r);
    else if (!e && !reader_done(&r))
        e = E_TIMEOUT;
    if (!e)
        e = reader_finish(&r, ret);
    *ret_behind = in.len - at;
    reader_release(&r);
    return e;
}

struct answer_case {
    const char *bytes;
    enum err e;
    int status;
    const char *body;
    size_t behind;
    bool head, open;
};

static const struct answer_case answer_cases[] = {
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", OK, 200, "hello" },
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", OK, 200, "hello", 19 },
    { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", OK, 200, "" },
    { "HTTP/1.1 204 No Content\r\n\r\n", OK, 204, "" },
    { "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", OK, 304, "" },
    { "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", OK, 200, "", 0, true },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n", OK, 200,
      "abcde" },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", OK, 200, "", 1 },
    { "HTTP/1.1 200 OK\r\n\r\nuntil the end", OK, 200, "until the end" },
    { "HTTP/1.0 200 OK\r\n\r\n", OK, 200, "" },
    { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: "
      "1\r\n\r\nx",
      OK, 201, "x" },
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", E_CLOSED },
    { "HTTP/1.1 200 OK\r\nContent-Le", E_CLOSED },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", E_CLOSED },
    { "", E_CLOSED },
    { "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/2 200\r\n\r\n", E_UPSTREAM_GARBLED },
    { "SSH-2.0-x\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\nContent-Length: 0\n\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", E_UPSTREAM_TOO_LARGE },
    { "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n", E_UPSTREAM_TOO_LARGE },
    { "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: 1\r\n\r\nx", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
      E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", E_UPSTREAM_GARBLED },
    { "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", OK, 200, "" },
    { "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", OK, 200, "x" },
};

/* Each answer in pieces of every size: the result never depends on them. */
static void test_answers(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(answer_cases); i++) {
        const struct answer_case *c = &answer_cases[i];

        for (size_t step = 1; step <= strlen(c->bytes) + 1; step++) {
            struct fetch_reply reply;
            struct arena a;
            size_t behind;
            enum err e;

            arena_init(&a, 1 << 16);
            e = read_reply(&a, str_of(c->bytes), step, 1000, c->head, true, &reply, &behind);
            if (e != c->e)
                fail_msg("case %zu in steps of %zu: %s", i, step, err_name(e));
            if (!e) {
                assert_int_equal(reply.status, c->status);
                assert_true(str_is(reply.body, c->body));
                assert_int_equal(behind, c->behind);
            }
            arena_release(&a);
        }
    }
}

static void test_answer_bounds(void **state)
{
    struct buf b = BUF_INIT(1 << 22);
    struct fetch_reply reply;
    struct str value;
    struct arena a;
    size_t behind;

    arena_init(&a, 1 << 16);
    for (int i = 0; i < FETCH_INTERIM_MAX; i++)
        buf_add_z(&b, "HTTP/1.1 102 Processing\r\n\r\n");
    buf_add_z(&b, "HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nok");
    assert_int_equal(read_reply(&a, buf_str(&b), 7, 1000, false, true, &reply, &behind), OK);
    assert_true(fetch_reply_header(&reply, "X-a", &value) && str_is(value, "1"));
    assert_false(fetch_reply_header(&reply, "x-b", &value));
    assert_int_equal(reply.n_fields, 3);
    buf_clear(&b);
    for (int i = 0; i <= FETCH_INTERIM_MAX; i++)
        buf_add_z(&b, "HTTP/1.1 102 Processing\r\n\r\n");
    assert_int_equal(read_reply(&a, buf_str(&b), 7, 1000, false, false, &reply, &behind), E_UPSTREAM_GARBLED);
    /* a head, a chunked body and a body until the end, each without end */
    buf_clear(&b);
    buf_add_z(&b, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 60; i++)
        buf_addf(&b, "X: %01000d\r\n", i);
    assert_int_equal(read_reply(&a, buf_str(&b), 100, 1000, false, false, &reply, &behind), E_UPSTREAM_GARBLED);
    buf_clear(&b);
    buf_add_z(&b, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 2000; i++)
        buf_add_z(&b, "1\r\nx\r\n");
    assert_int_equal(read_reply(&a, buf_str(&b), 100, 1000, false, false, &reply, &behind), E_UPSTREAM_TOO_LARGE);
    buf_clear(&b);
    buf_addf(&b, "HTTP/1.1 200 OK\r\n\r\n%01001d", 0);
    assert_int_equal(read_reply(&a, buf_str(&b), 100, 1000, false, true, &reply, &behind), E_UPSTREAM_TOO_LARGE);
    arena_release(&a);
    arena_init(&a, 500);                /* the call's memory is the smaller bound */
    buf_clear(&b);
    buf_addf(&b, "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n%0900d", 0);
    assert_int_equal(read_reply(&a, buf_str(&b), 100, 1000, false, true, &reply, &behind), E_UPSTREAM_TOO_LARGE);
    arena_release(&a);
    buf_release(&b);
}

static struct str pack(struct arena *a, const char *p, size_t n, int bits)
{
    z_stream z = { 0 };
    size_t cap = n / 2 + 1000;
    char *out = arena_alloc(a, cap);

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, bits, 9, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)p;
    z.avail_in = (unsigned)n;
    z.next_out = (unsigned char *)out;
    z.avail_out = (unsigned)cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    n = z.total_out;
    deflateEnd(&z);
    return str_n(out, n);
}

static enum err unpack(struct arena *a, const char *coding, struct str packed, size_t max, struct str *ret)
{
    struct fetch_field field = { STR("Content-Encoding"), str_of(coding) };
    struct fetch_reply reply = { .status = 200, .fields = &field, .n_fields = 1, .body = packed };
    const char *why = NULL;
    enum err e = reply_unpack(&reply, a, max, &why);

    assert_true(e == OK || why);
    *ret = reply.body;
    return e;
}

static void test_unpack(void **state)
{
    static char zeros[8 << 20];
    struct arena a;
    struct str packed, out, two;

    arena_init(&a, 64 << 20);
    packed = pack(&a, "hello hello hello", 17, 31);
    assert_int_equal(unpack(&a, "gzip", packed, 17, &out), OK);
    assert_true(str_is(out, "hello hello hello"));
    assert_int_equal(unpack(&a, "GZip", packed, 100, &out), OK);
    assert_int_equal(unpack(&a, "gzip", packed, 16, &out), E_UPSTREAM_TOO_LARGE);
    assert_int_equal(unpack(&a, "deflate", packed, 100, &out), E_UPSTREAM_GARBLED);
    for (size_t n = 1; n < packed.len; n++)
        assert_int_equal(unpack(&a, "gzip", str_n(packed.p, n), 100, &out), E_UPSTREAM_GARBLED);
    two = arena_printf(&a, "%*s", (int)packed.len * 2, "");
    memcpy((char *)(uintptr_t)two.p, packed.p, packed.len);
    memcpy((char *)(uintptr_t)two.p + packed.len, packed.p, packed.len);
    assert_int_equal(unpack(&a, "gzip", two, 100, &out), E_UPSTREAM_GARBLED);
    packed = pack(&a, "abc", 3, 15);
    assert_int_equal(unpack(&a, "deflate", packed, 100, &out), OK);
    assert_true(str_is(out, "abc"));
    packed = pack(&a, zeros, 60 << 10, 31);             /* a high ratio, but small */
    assert_int_equal(unpack(&a, "gzip", packed, 1 << 20, &out), OK);
    packed = pack(&a, zeros, sizeof(zeros), 31);        /* about 1,000:1 */
    assert_true(packed.len < sizeof(zeros) / 900);
    assert_int_equal(unpack(&a, "gzip", packed, 64 << 20, &out), E_UPSTREAM_TOO_LARGE);
    packed = pack(&a, "", 0, 31);
    assert_int_equal(unpack(&a, "gzip", packed, 1, &out), OK);
    assert_int_equal(out.len, 0);
    arena_release(&a);
}

/* ---- the seam ---------------------------------------------------------------------------------------------------- */

static enum err simulated(struct fetch *f, const struct fetch_request *req, struct arena *arena,
                          struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info)
{
    struct str wire = fetch_wire(req, arena);

    assert_null(f);
    assert_true(str_starts(wire, STR("GET /a HTTP/1.1\r\n")));
    *ret = (struct fetch_reply){ .status = 200, .body = STR("from another world") };
    *ret_sent = FETCH_ANSWERED;
    return OK;
}

static void test_seam(void **state)
{
    static const struct fetch_impl impl = { simulated };
    struct fetch_origin o = origin_of("https://api.test"), inside = origin_of("https://127.0.0.1");
    struct fetch_request req = request(&o, "GET", "/a");
    struct fetch_reply reply;
    enum fetch_sent sent;
    struct arena a;

    arena_init(&a, 4096);
    fetch_use(&impl);
    assert_int_equal(await_fetch(NULL, &req, &a, &reply, &sent, NULL), OK);
    assert_true(str_is(reply.body, "from another world"));
    req.path = STR("a");
    assert_int_equal(await_fetch(NULL, &req, &a, &reply, &sent, NULL), E_CONNECTOR_FAULT);
    assert_int_equal(sent, FETCH_NOT_SENT);
    req = request(&inside, "GET", "/a");
    req.guard = &strict;
    assert_int_equal(await_fetch(NULL, &req, &a, &reply, &sent, NULL), E_EGRESS_DENIED);
    fetch_use(NULL);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encodings), cmocka_unit_test(test_networks), cmocka_unit_test(test_origins),
        cmocka_unit_test(test_names_are_names), cmocka_unit_test(test_wire), cmocka_unit_test(test_request_check),
        cmocka_unit_test(test_fields_in_common), cmocka_unit_test(test_visible_bytes),
        cmocka_unit_test(test_answers), cmocka_unit_test(test_answer_bounds), cmocka_unit_test(test_unpack),
        cmocka_unit_test(test_seam),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
