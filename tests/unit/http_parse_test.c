/*
 * The strict HTTP/1.x parser: every rule by hand, and every rule again with the message cut into single bytes.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/check.h"
#include "http/parse.h"

/* ---- one message ------------------------------------------------------------------------------------------------- */

#define CRLF "\r\n"
#define HOST "Host: a.example\r\n"

typedef int parse_fn(struct str, struct http_head *, enum http_fault *);

/* The first answer other than 0 when the input grows byte by byte. */
static int parse_growing(parse_fn *fn, struct str in, bool when_worth, struct http_head *h, enum http_fault *why)
{
    size_t seen = 0;
    int got = 0;

    for (size_t n = 1; n <= in.len && got == 0; n++) {
        char *copy;

        if (when_worth && !http_head_worth(str_n(in.p, n), seen))
            continue;
        /* a block of exactly n bytes: reading past them is seen by the address sanitizer */
        copy = malloc(n);
        memcpy(copy, in.p, n);
        got = fn(str_n(copy, n), h, why);
        free(copy);
        seen = n;
    }
    return got;
}

/* Parses whole, and again growing byte by byte: all must say the same. */
static int parse(struct str in, bool request, struct http_head *h, enum http_fault *why)
{
    parse_fn *fn = request ? http_parse_request_head : http_parse_response_head;
    enum http_fault why_grown = HTTP_FAULT_NONE, why_worth = HTTP_FAULT_NONE;
    int whole, worth = parse_growing(fn, in, true, h, &why_worth);

    if (in.len <= 4096) {
        int grown = parse_growing(fn, in, false, h, &why_grown);

        *why = HTTP_FAULT_NONE;
        whole = fn(in, h, why);
        assert_int_equal(whole, grown);
        assert_int_equal(*why, why_grown);
    }
    *why = HTTP_FAULT_NONE;
    whole = fn(in, h, why);
    /* a caller who asks http_head_worth() may learn of a fault only when the line ends, but then the same one */
    assert_true(worth == whole || (worth == 0 && whole == -1));
    assert_true(worth == 0 || why_worth == *why);
    return whole;
}

static void accepts(const char *text, bool request, struct http_head *h)
{
    enum http_fault why;
    int n = parse(str_of(text), request, h, &why);

    if (n != (int)strlen(text))
        fail_msg("%d (%s) for:\n%s", n, http_fault_name(why), text);
}

static void refuses_bytes(struct str text, bool request, enum http_fault expected)
{
    struct http_head h;
    enum http_fault why;
    int n = parse(text, request, &h, &why);

    if (n != -1 || why != expected)
        fail_msg("%d (%s, expected %s) for:\n%.*s", n, http_fault_name(why), http_fault_name(expected), STR_ARG(text));
}

#define REFUSES(text, fault) refuses_bytes(STR(text), true, HTTP_FAULT_##fault)
#define REFUSES_REPLY(text, fault) refuses_bytes(STR(text), false, HTTP_FAULT_##fault)

#define assert_str(s, z) do { \
        if (!str_is(s, z)) \
            fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(s), z); \
    } while (0)

static void request_is_read(void **state)
{
    struct http_head h;
    struct str v;
    unsigned n;

    accepts("POST /mcp?x=1?2&y= HTTP/1.1" CRLF HOST "Content-Type:application/json" CRLF "X-Empty:" CRLF
            "Accept: \t a, b \t" CRLF "X-Twice: 1" CRLF "x-tWICE: 2" CRLF
            "X-Utf8: D\303\274sseldorf" CRLF CRLF, true, &h);
    assert_str(h.method, "POST");
    assert_str(h.target, "/mcp?x=1?2&y=");
    assert_str(h.path, "/mcp");
    assert_str(h.query, "x=1?2&y=");
    assert_str(h.host, "a.example");
    assert_int_equal(h.minor, 1);
    assert_int_equal(h.n_headers, 7);
    assert_true(http_head_one(&h, "content-type", &v));
    assert_str(v, "application/json");
    assert_true(http_head_one(&h, "ACCEPT", &v));
    assert_str(v, "a, b");
    assert_true(http_head_one(&h, "x-empty", &v));
    assert_int_equal(v.len, 0);
    assert_false(http_head_one(&h, "x-twice", &v));
    assert_str(http_head_find(&h, "x-twice", &n)->value, "1");
    assert_int_equal(n, 2);
    assert_null(http_head_find(&h, "x-thrice", &n));
    assert_int_equal(n, 0);

    accepts("GET / HTTP/1.0" CRLF CRLF, true, &h);
    assert_int_equal(h.minor, 0);
    assert_int_equal(h.host.len, 0);
    accepts("OPTIONS * HTTP/1.1" CRLF HOST CRLF, true, &h);
    assert_str(h.path, "*");
}

/* Every byte at every place of a name longer than what is looked at together. */
static void name_characters(void **state)
{
    static const char others[] = "!#$%&'*+-.^`|~";

    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        bool alnum = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z' && c < 128);
        enum http_fault expected = alnum || (c && strchr(others, (int)c)) ? HTTP_FAULT_NONE
                                   : c == '_'                             ? HTTP_FAULT_NAME_UNDERSCORE
                                   : c == ' ' || c == '\t'                ? HTTP_FAULT_SPACE_COLON
                                                                          : HTTP_FAULT_NAME;

        for (unsigned at = 1; at < 35; at++) {
            char text[] = "GET / HTTP/1.1" CRLF HOST "ABCDEFGHIJKLMNOPQRSTUVWXYZ-abcdefgh: 1" CRLF CRLF;
            enum http_fault why = HTTP_FAULT_NONE;
            struct http_head h;
            int n;

            if (c == ':')
                continue;
            strchr(text, 'A')[at] = (char)c;
            n = parse(str_n(text, sizeof(text) - 1), true, &h, &why);
            if (why != expected || n != (expected ? -1 : (int)sizeof(text) - 1))
                fail_msg("byte %u at %u: %d, %s", c, at, n, http_fault_name(why));
        }
    }
}

/* Names with one mark, in any case, there or not: what is found is what a look at each field finds. */
static void fields_are_found(void **state)
{
    static const char *const names[] = { "a1c", "A1c", "a2c", "A-C", "accept", "Accept", "abcdet", "b", "cookie",
                                         "host" };

    (void)state;
    srand(5);
    for (int round = 0; round < 20000; round++) {
        char text[512] = "HTTP/1.1 200 OK" CRLF;
        struct http_head h;
        enum http_fault why;

        for (int fields = rand() % 10; fields > 0; fields--)
            snprintf(text + strlen(text), 40, "%s: %d" CRLF, names[rand() % (int)ARRAY_LEN(names)], fields);
        strcat(text, CRLF);
        assert_int_equal(http_parse_response_head(str_of(text), &h, &why), strlen(text));
        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
            const struct http_header *first = NULL;
            unsigned n = 0, got;

            for (unsigned k = 0; k < h.n_headers; k++) {
                if (str_ieq(h.headers[k].name, str_of(names[i])) && n++ == 0)
                    first = &h.headers[k];
            }
            assert_ptr_equal(http_head_find(&h, names[i], &got), first);
            assert_int_equal(got, n);
        }
    }
}

static void request_head_ends_where_it_ends(void **state)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
    struct http_head h;
    enum http_fault why;

    assert_int_equal(parse(str_of(text), true, &h, &why), 27);
    assert_int_equal(parse(str_n(text, 26), true, &h, &why), 0);
    assert_int_equal(http_parse_request_head(STR_NULL, &h, &why), 0);
}

static void start_line_rules(void **state)
{
    REFUSES("\r\nGET / HTTP/1.1\r\n", METHOD);
    REFUSES(" GET / HTTP/1.1\r\n", METHOD);
    REFUSES("G@T / HTTP/1.1\r\n", METHOD);
    REFUSES("GET\t/ HTTP/1.1\r\n", METHOD);
    REFUSES("GET\r\n", METHOD);
    REFUSES("\x16\x03\x01\x02", METHOD);
    REFUSES("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n", METHOD);
    REFUSES("GET  / HTTP/1.1\r\n", TARGET_FORM);
    REFUSES("GET /\x01 HTTP/1.1\r\n", TARGET_CHAR);
    REFUSES("GET /\xc3\xbc HTTP/1.1\r\n", TARGET_CHAR);
    REFUSES("GET /\t HTTP/1.1\r\n", TARGET_CHAR);
    REFUSES("GET /a#b HTTP/1.1\r\n", TARGET_CHAR);
    REFUSES("GET a HTTP/1.1\r\n", TARGET_FORM);
    REFUSES("GET * HTTP/1.1\r\n", TARGET_FORM);
    REFUSES("GET ftp://a.example/ HTTP/1.1\r\n", TARGET_FORM);
    REFUSES("GET http:/// HTTP/1.1\r\n", TARGET_FORM);
    REFUSES("GET http://u@a.example/ HTTP/1.1\r\n", TARGET_FORM);
    REFUSES("CONNECT a.example:443 HTTP/1.1\r\n", TARGET_FORM);
    REFUSES("GET /\r\n", VERSION_FORM);
    REFUSES("GET /a b HTTP/1.1\r\n", VERSION_FORM);
    REFUSES("GET /  HTTP/1.1\r\n", VERSION_FORM);
    REFUSES("GET / http/1.1\r\n", VERSION_FORM);
    REFUSES("GET / HTTP/1.1 \r\n", VERSION_FORM);
    REFUSES("GET / HTTP/1.10\r\n", VERSION_FORM);
    REFUSES("GET / HTTP/11.1\r\n", VERSION_FORM);
    REFUSES("GET / HTTP/1.2\r\n", VERSION);
    REFUSES("GET / HTTP/0.9\r\n", VERSION);
    REFUSES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION);
    REFUSES("GET / HTTP/1.1\n", BARE_LF);
    REFUSES("GET / HTTP/1.1\rHost: a\r\n", BARE_CR);
    assert_int_equal(http_fault_status(HTTP_FAULT_VERSION), 505);
    assert_string_equal(http_fault_name(HTTP_FAULT_VERSION_FORM), "version_form");
}

#define LINE "GET / HTTP/1.1\r\n"

static void field_rules(void **state)
{
    REFUSES(LINE " Host: a\r\n", FOLD);
    REFUSES(LINE "Host: a\r\n folded\r\n", FOLD);
    REFUSES(LINE "Host: a\r\n\tfolded\r\n", FOLD);
    REFUSES(LINE ": a\r\n", NAME);
    REFUSES(LINE "Host\r\n", NAME);
    REFUSES(LINE "Ho(st: a\r\n", NAME);
    REFUSES(LINE "Ho\0st: a\r\n", NAME);
    REFUSES(LINE "H\xc3\xb6st: a\r\n", NAME);
    REFUSES(LINE "Content_Length: 1\r\n", NAME_UNDERSCORE);
    REFUSES(LINE "Host : a\r\n", SPACE_COLON);
    REFUSES(LINE "Host\t: a\r\n", SPACE_COLON);
    REFUSES(LINE "X: a\0b\r\n", VALUE);
    REFUSES(LINE "X: a\x0b" "b\r\n", VALUE);
    REFUSES(LINE "X: a\x7f" "b\r\n", VALUE);
    REFUSES(LINE "X: a\nY: b\r\n", BARE_LF);
    REFUSES(LINE "X: a\rY: b\r\n", BARE_CR);
    REFUSES(LINE "X: a\r\r\n", BARE_CR);
    REFUSES(LINE "Host: a\r\n\n", BARE_LF);
    REFUSES(LINE "Host: a\r\n\rX", BARE_CR);
    REFUSES_REPLY("HTTP/1.1 200 OK\r\nX: a\nY: b\r\n", BARE_LF);
    REFUSES_REPLY("HTTP/1.1 200 OK\r\nX : a\r\n", SPACE_COLON);
    REFUSES_REPLY("HTTP/1.1 200 OK\r\n X: a\r\n", FOLD);
}

/* Every byte, at every offset of the vector code's 16. */
static void value_characters(void **state)
{
    char text[128];
    struct http_head h;
    enum http_fault why;

    for (unsigned c = 0; c < 256; c++) {
        for (int pad = 0; pad < 40; pad += 7) {
            bool good = c >= 0x20 ? c != 0x7f : c == '\t';
            int n = snprintf(text, sizeof(text), "HTTP/1.1 200 \r\nX: %.*s?%.*s\r\n\r\n", pad,
                             "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 39 - pad,
                             "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
            int got;

            *(char *)memchr(text + 15, '?', (size_t)n - 15) = (char)c;
            got = http_parse_response_head(str_n(text, (size_t)n), &h, &why);
            assert_int_equal(got, good ? n : -1);
        }
    }
}

static void host_rules(void **state)
{
    static const char *good[] = { "a", "a.example:443", "127.0.0.1:0", "[::1]", "[::ffff:1.2.3.4]:65535", "my_box",
                                  "A-b.C~d." };
    static const char *bad[] = { "", "a b", "a,b", "a/b", "a@b", "a:", "a:x", "a:65536", "a:-1", ":80", "[::1", "[]",
                                 "[::1]x", "[::g]", "a%41", "a:1:2", "::1", "http://a", "a\\b", "a?b" };
    char text[256];
    struct http_head h;

    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        snprintf(text, sizeof(text), LINE "Host: %s\r\n\r\n", good[i]);
        accepts(text, true, &h);
        assert_str(h.host, good[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(text, sizeof(text), LINE "Host: %s\r\n\r\n", bad[i]);
        refuses_bytes(str_of(text), true, HTTP_FAULT_HOST_FORM);
    }
    REFUSES(LINE CRLF, HOST_MISSING);
    REFUSES(LINE HOST HOST CRLF, HOST_MANY);
    REFUSES("GET / HTTP/1.0\r\n" HOST "hOST: b\r\n" CRLF, HOST_MANY);
    REFUSES("GET http://b.example/ HTTP/1.1\r\n" HOST CRLF, HOST_MISMATCH);
    REFUSES("GET http://a.example:80/ HTTP/1.1\r\n" HOST CRLF, HOST_MISMATCH);
    REFUSES("GET http://a.example/ HTTP/1.1\r\n" CRLF, HOST_MISSING);

    accepts("GET HTTP://A.example?q HTTP/1.1\r\n" HOST CRLF, true, &h);
    assert_str(h.path, "/");
    assert_str(h.query, "q");
    accepts("GET https://a.example/p/?q HTTP/1.1\r\n" HOST CRLF, true, &h);
    assert_str(h.path, "/p/");
    accepts("GET http://b/p HTTP/1.0\r\n" CRLF, true, &h);
    assert_str(h.host, "b");
}

/* A head of `lines` fields of `len` bytes each, CRLF included. */
static struct str big_head(struct buf *b, const char *start, unsigned lines, size_t len)
{
    buf_clear(b);
    buf_add_z(b, start);
    for (unsigned i = 0; i < lines; i++) {
        buf_addf(b, "X: ");
        for (size_t n = 5; n < len; n++)
            buf_add_c(b, 'x');
        buf_add_z(b, CRLF);
    }
    buf_add_z(b, CRLF);
    return buf_str(b);
}

static void limits_are_exact(void **state)
{
    struct buf b = BUF_INIT(1 << 20);
    struct http_head h;
    enum http_fault why;
    struct str s;

    s = big_head(&b, LINE HOST, 1, HTTP_LINE_MAX);
    assert_int_equal(parse(s, true, &h, &why), (int)s.len);
    refuses_bytes(big_head(&b, LINE HOST, 1, HTTP_LINE_MAX + 1), true, HTTP_FAULT_LINE_LONG);
    s = big_head(&b, LINE HOST, HTTP_HEADERS_MAX - 1, 20);
    assert_int_equal(parse(s, true, &h, &why), (int)s.len);
    assert_int_equal(h.n_headers, HTTP_HEADERS_MAX);
    refuses_bytes(big_head(&b, LINE HOST, HTTP_HEADERS_MAX, 20), true, HTTP_FAULT_FIELDS_MANY);
    /* "HTTP/1.1 200\r\n" is 14 bytes, the empty line 2: four lines fill the head to its last byte */
    s = big_head(&b, "HTTP/1.1 200\r\n", 4, (HTTP_HEAD_MAX - 16) / 4);
    assert_int_equal(s.len, HTTP_HEAD_MAX);
    assert_int_equal(parse(s, false, &h, &why), HTTP_HEAD_MAX);
    refuses_bytes(big_head(&b, "HTTP/1.1 200 \r\n", 4, (HTTP_HEAD_MAX - 16) / 4), false, HTTP_FAULT_HEAD_LONG);

    buf_clear(&b);
    buf_add_z(&b, "GET /");
    while (b.len < HTTP_LINE_MAX)
        buf_add_c(&b, 'a');
    refuses_bytes(buf_str(&b), true, HTTP_FAULT_TARGET_LONG);
    assert_int_equal(parse(str_n(b.p, HTTP_LINE_MAX - 1), true, &h, &why), 0);
    assert_int_equal(http_fault_status(HTTP_FAULT_TARGET_LONG), 414);
    buf_release(&b);
}

static void response_is_read(void **state)
{
    struct http_head h;

    accepts("HTTP/1.1 200 OK" CRLF "X_under: ok" CRLF CRLF, false, &h);
    assert_int_equal(h.status, 200);
    assert_str(h.reason, "OK");
    accepts("HTTP/1.0 999 " CRLF CRLF, false, &h);
    assert_int_equal(h.status, 999);
    accepts("HTTP/1.1 404" CRLF CRLF, false, &h);
    assert_int_equal(h.reason.len, 0);
    REFUSES_REPLY("\r\nHTTP/1.1 200 OK\r\n", VERSION_FORM);
    REFUSES_REPLY("HTTP/1.1  200 OK\r\n", STATUS);
    REFUSES_REPLY("HTTP/1.1 20 OK\r\n", STATUS);
    REFUSES_REPLY("HTTP/1.1 099 OK\r\n", STATUS);
    REFUSES_REPLY("HTTP/1.1 2000 OK\r\n", STATUS);
    REFUSES_REPLY("HTTP/1.1 200 O\x01K\r\n", STATUS);
    REFUSES_REPLY("HTTP/1.1\t200 OK\r\n", VERSION_FORM);
    REFUSES_REPLY("HTTP/2 200 OK\r\n", VERSION_FORM);
    REFUSES_REPLY("HTTP/3.0 200 OK\r\n", VERSION);
    REFUSES_REPLY("ICY 200 OK\r\n", VERSION_FORM);
    REFUSES_REPLY("HTTP/1.1 200 OK\n", BARE_LF);
    REFUSES_REPLY("HTTP/1.1 200 OK\rX", BARE_CR);
}

/* ---- framing ----------------------------------------------------------------------------------------------------- */

static void frames(const char *method, const char *version, const char *fields, enum http_framing framing,
                   uint64_t length, bool expect)
{
    char text[512];
    struct http_head h;
    struct http_body b;
    enum http_fault why = HTTP_FAULT_NONE;

    snprintf(text, sizeof(text), "%s / HTTP/%s\r\n" HOST "%s\r\n", method, version, fields);
    accepts(text, true, &h);
    if (!http_request_framing(&h, &b, &why))
        fail_msg("refused (%s):\n%s", http_fault_name(why), text);
    assert_int_equal(b.framing, framing);
    if (framing == HTTP_BODY_LENGTH)
        assert_int_equal(b.length, length);
    assert_int_equal(b.expect_continue, expect);
}

static void frames_not(const char *method, const char *version, const char *fields, enum http_fault expected)
{
    char text[512];
    struct http_head h;
    struct http_body b;
    enum http_fault why = HTTP_FAULT_NONE;

    snprintf(text, sizeof(text), "%s / HTTP/%s\r\n" HOST "%s\r\n", method, version, fields);
    accepts(text, true, &h);
    if (http_request_framing(&h, &b, &why) || why != expected)
        fail_msg("%s, expected %s:\n%s", http_fault_name(why), http_fault_name(expected), text);
}

static void request_framing(void **state)
{
    static const char *lengths[] = { "+5", "-5", "5 5", "5,5", "5, 5", "0x5", "5.0", "", "1e3", "5;",
                                     "99999999999999999999", "9223372036854775808", "5_0", "\"5\"" };
    static const char *codings[] = { "Chunked", "chunked, chunked", "chunked,", ",chunked", "identity", "gzip, chunked",
                                     "chunked;q=1", "xchunked", "chunkedx", "\"chunked\"", "chunk\tked", "",
                                     "chunked\xa0" };
    static const char *bodyless[] = { "GET", "HEAD", "DELETE", "TRACE" };
    char fields[128];

    frames("POST", "1.1", "", HTTP_BODY_NONE, 0, false);
    frames("POST", "1.1", "Content-Length: 5\r\n", HTTP_BODY_LENGTH, 5, false);
    frames("POST", "1.0", "CONTENT-length: \t 005 \r\n", HTTP_BODY_LENGTH, 5, false);
    frames("POST", "1.1", "Content-Length: 9223372036854775807\r\n", HTTP_BODY_LENGTH, INT64_MAX, false);
    frames("POST", "1.1", "Transfer-Encoding: \t chunked \r\n", HTTP_BODY_CHUNKED, 0, false);
    frames("POST", "1.1", "Content-Length: 5\r\nExpect: 100-Continue\r\n", HTTP_BODY_LENGTH, 5, true);
    frames("POST", "1.1", "Content-Length: 0\r\nExpect: 100-continue\r\n", HTTP_BODY_LENGTH, 0, false);
    frames("POST", "1.0", "Content-Length: 5\r\nExpect: 100-continue\r\n", HTTP_BODY_LENGTH, 5, false);
    frames("GET", "1.1", "Content-Length: 0\r\n", HTTP_BODY_LENGTH, 0, false);
    frames("GET", "1.1", "Upgrade: h2c\r\nConnection: upgrade\r\n", HTTP_BODY_NONE, 0, false);
    frames("GET", "1.1", "Content-Encoding: identity\r\n", HTTP_BODY_NONE, 0, false);

    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        snprintf(fields, sizeof(fields), "Content-Length: %s\r\n", lengths[i]);
        frames_not("POST", "1.1", fields, HTTP_FAULT_LENGTH_FORM);
    }
    for (size_t i = 0; i < ARRAY_LEN(codings); i++) {
        snprintf(fields, sizeof(fields), "Transfer-Encoding: %s\r\n", codings[i]);
        frames_not("POST", "1.1", fields, HTTP_FAULT_CODING);
    }
    for (size_t i = 0; i < ARRAY_LEN(bodyless); i++) {
        frames_not(bodyless[i], "1.1", "Content-Length: 1\r\n", HTTP_FAULT_BODY_FORBIDDEN);
        frames_not(bodyless[i], "1.1", "Transfer-Encoding: chunked\r\n", HTTP_FAULT_BODY_FORBIDDEN);
    }
    frames_not("POST", "1.1", "Content-Length: 5\r\nContent-Length: 5\r\n", HTTP_FAULT_LENGTH_MANY);
    frames_not("POST", "1.1", "Content-Length: 5\r\ncontent-length: 6\r\n", HTTP_FAULT_LENGTH_MANY);
    frames_not("POST", "1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", HTTP_FAULT_LENGTH_AND_CODING);
    frames_not("POST", "1.1", "Transfer-Encoding:\r\nContent-Length: 5\r\n", HTTP_FAULT_LENGTH_AND_CODING);
    frames_not("POST", "1.1", "Transfer-Encoding: chunked\r\nTransfer-encoding: chunked\r\n", HTTP_FAULT_CODING);
    frames_not("POST", "1.1", "Transfer-Encoding: identity\r\nTransfer-encoding: chunked\r\n", HTTP_FAULT_CODING);
    frames_not("POST", "1.0", "Transfer-Encoding: chunked\r\n", HTTP_FAULT_CODING_VERSION);
    frames_not("POST", "1.1", "Expect: 200-ok\r\n", HTTP_FAULT_EXPECT);
    frames_not("POST", "1.1", "Expect: 100-continue, x\r\n", HTTP_FAULT_EXPECT);
    frames_not("GET", "1.1", "Expect: 100-continue\r\nExpect: 100-continue\r\n", HTTP_FAULT_EXPECT);
    frames_not("POST", "1.1", "Content-Encoding: gzip\r\n", HTTP_FAULT_CONTENT_ENCODING);
    assert_int_equal(http_fault_status(HTTP_FAULT_EXPECT), 417);
}

/* expected: a framing, or minus a fault */
static void reply_frames(const char *text, bool was_head, int expected)
{
    struct http_head h;
    struct http_body b;
    enum http_fault why = HTTP_FAULT_NONE;
    int got;

    accepts(text, false, &h);
    got = http_response_framing(&h, was_head, &b, &why) ? (int)b.framing : -(int)why;
    if (got != expected)
        fail_msg("%d (%s), expected %d:\n%s", got, http_fault_name(why), expected, text);
}

static void response_framing(void **state)
{
    reply_frames("HTTP/1.1 200 OK\r\n\r\n", false, HTTP_BODY_UNTIL_CLOSE);
    reply_frames("HTTP/1.1 200 OK\r\n\r\n", true, HTTP_BODY_NONE);
    reply_frames("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false, HTTP_BODY_LENGTH);
    reply_frames("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, HTTP_BODY_NONE);
    reply_frames("HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n", false, HTTP_BODY_NONE);
    reply_frames("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", false, HTTP_BODY_NONE);
    reply_frames("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", false, -HTTP_FAULT_CODING_STATUS);
    reply_frames("HTTP/1.1 100 C\r\nTransfer-Encoding: chunked\r\n\r\n", false, -HTTP_FAULT_CODING_STATUS);
    reply_frames("HTTP/1.1 100 C\r\n\r\n", false, HTTP_BODY_NONE);
    reply_frames("HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n", false, -HTTP_FAULT_UPGRADE);
    reply_frames("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, HTTP_BODY_CHUNKED);
    reply_frames("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", false, -HTTP_FAULT_CODING);
    reply_frames("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, -HTTP_FAULT_CODING_VERSION);
    reply_frames("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", true,
                 -HTTP_FAULT_LENGTH_AND_CODING);
    reply_frames("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", false, -HTTP_FAULT_LENGTH_MANY);
    reply_frames("HTTP/1.1 200 OK\r\nContent-Length: 3,3\r\n\r\n", false, -HTTP_FAULT_LENGTH_FORM);
}

static bool keeps(const char *version, const char *fields)
{
    char text[256];
    struct http_head h;

    snprintf(text, sizeof(text), "GET / HTTP/%s\r\n" HOST "%s\r\n", version, fields);
    accepts(text, true, &h);
    return http_head_keeps(&h);
}

static void connection_rules(void **state)
{
    assert_true(keeps("1.1", ""));
    assert_true(keeps("1.1", "Connection: keep-alive\r\n"));
    assert_true(keeps("1.1", "Connection: closed\r\n"));
    assert_false(keeps("1.1", "Connection: CLOSE\r\n"));
    assert_false(keeps("1.1", "Connection: a ,\tclose , b\r\n"));
    assert_false(keeps("1.1", "Connection: keep-alive\r\nConnection: close\r\n"));
    assert_false(keeps("1.0", ""));
    assert_true(keeps("1.0", "Connection: Keep-Alive\r\n"));
    assert_false(keeps("1.0", "Connection: keep-alive, close\r\n"));
}

/* ---- chunked ----------------------------------------------------------------------------------------------------- */

/* Decodes in pieces of `step` bytes; the consumed length or -1. */
static int64_t unchunk(struct str in, size_t step, struct buf *body, bool *ret_done, enum http_fault *why)
{
    struct http_chunked c;
    size_t at = 0;

    http_chunked_init(&c);
    buf_clear(body);
    while (at < in.len && !c.done) {
        size_t n = in.len - at < step ? in.len - at : step;
        struct str data;
        int64_t used = http_chunked_decode(&c, str_n(in.p + at, n), &data, why);

        if (used < 0)
            return -1;
        assert_true(used > 0 && (size_t)used <= n);
        buf_add_str(body, data);
        at += (size_t)used;
    }
    *ret_done = c.done;
    return (int64_t)at;
}

static void chunks(struct str in, const char *expected, enum http_fault fault)
{
    static const size_t steps[] = { 1, 2, 3, 7, 100000 };
    struct buf body = BUF_INIT(1 << 20);

    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        enum http_fault why = HTTP_FAULT_NONE;
        bool done = false;
        int64_t n = unchunk(in, steps[i], &body, &done, &why);

        if (fault != HTTP_FAULT_NONE) {
            if (n != -1 || why != fault)
                fail_msg("%d (%s), expected %s: %.*s", (int)n, http_fault_name(why), http_fault_name(fault),
                         STR_ARG(in));
            continue;
        }
        if (n != (int64_t)in.len || !done)
            fail_msg("%d of %d, done %d (%s): %.*s", (int)n, (int)in.len, done, http_fault_name(why), STR_ARG(in));
        assert_str(buf_str(&body), expected);
    }
    buf_release(&body);
}

static void chunked_bodies(void **state)
{
    struct buf b = BUF_INIT(1 << 20);

    chunks(STR("0\r\n\r\n"), "", HTTP_FAULT_NONE);
    chunks(STR("5\r\nhello\r\n00006\r\n world\r\n000\r\n\r\n"), "hello world", HTTP_FAULT_NONE);
    chunks(STR("A\r\n0123456789\r\n0a\r\n0123456789\r\n0\r\n\r\n"), "01234567890123456789", HTTP_FAULT_NONE);
    chunks(STR("1;a\r\nx\r\n1;a=b;c=\"d;\\\"\r \"\r\n"), "", HTTP_FAULT_CHUNK_EXTENSION);
    chunks(STR("1;a;b=c;d=\"e ;\\\" f\";g\r\nx\r\n0;z\r\n\r\n"), "x", HTTP_FAULT_NONE);
    chunks(STR("1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n"), "x", HTTP_FAULT_NONE);
    chunks(STR("1\r\nx\r\n0\r\n\r\n"), "x", HTTP_FAULT_NONE);

    chunks(STR("\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("+1\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("-1\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("0x1\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("1_0\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR(" 1\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("1 \r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("1 ;a\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("1\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("g\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("1234567890abcdef1\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("ffffffffffffffff\r\n"), "", HTTP_FAULT_CHUNK_SIZE);
    chunks(STR("1\rx"), "", HTTP_FAULT_BARE_CR);
    chunks(STR("1;\r\n"), "", HTTP_FAULT_CHUNK_EXTENSION);
    chunks(STR("1; a\r\n"), "", HTTP_FAULT_CHUNK_EXTENSION);
    chunks(STR("1;a=\r\n"), "", HTTP_FAULT_CHUNK_EXTENSION);
    chunks(STR("1;a=b=c\r\n"), "", HTTP_FAULT_CHUNK_EXTENSION);
    chunks(STR("1;a\nx"), "", HTTP_FAULT_CHUNK_EXTENSION);
    chunks(STR("1;a=\"b\"c\r\n"), "", HTTP_FAULT_CHUNK_EXTENSION);
    chunks(STR("1\r\nxy"), "", HTTP_FAULT_CHUNK_END);
    chunks(STR("1\r\nx\n"), "", HTTP_FAULT_CHUNK_END);
    chunks(STR("1\r\nx\rX"), "", HTTP_FAULT_CHUNK_END);
    chunks(STR("0\r\n A: b\r\n"), "", HTTP_FAULT_TRAILER);
    chunks(STR("0\r\nA : b\r\n"), "", HTTP_FAULT_TRAILER);
    chunks(STR("0\r\n: b\r\n"), "", HTTP_FAULT_TRAILER);
    chunks(STR("0\r\nA: b\n"), "", HTTP_FAULT_TRAILER);
    chunks(STR("0\r\nA: b\rX"), "", HTTP_FAULT_TRAILER);
    chunks(STR("0\r\nA: \0\r\n"), "", HTTP_FAULT_TRAILER);
    chunks(STR("0\r\n\rX"), "", HTTP_FAULT_TRAILER);
    chunks(STR("0\r\n\n"), "", HTTP_FAULT_TRAILER);

    for (int i = 0; i < HTTP_CHUNK_LINE_MAX; i++)
        buf_add_c(&b, '0');
    buf_add_z(&b, "1\r\n");
    chunks(buf_str(&b), "", HTTP_FAULT_CHUNK_SIZE);
    buf_clear(&b);
    buf_add_z(&b, "1;");
    for (int i = 0; i < HTTP_CHUNK_LINE_MAX; i++)
        buf_add_c(&b, 'a');
    chunks(buf_str(&b), "", HTTP_FAULT_CHUNK_EXTENSION);
    buf_clear(&b);
    for (int i = 0; i < 2000; i++)
        buf_add_z(&b, "1;a=b\r\nx\r\n");
    chunks(buf_str(&b), "", HTTP_FAULT_CHUNK_EXTENSION);
    buf_clear(&b);
    buf_add_z(&b, "0\r\n");
    for (int i = 0; i < HTTP_TRAILERS_MAX / 4; i++)
        buf_add_z(&b, "a:b\r\n");
    chunks(buf_str(&b), "", HTTP_FAULT_TRAILER);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_read),
        cmocka_unit_test(name_characters),
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(request_head_ends_where_it_ends),
        cmocka_unit_test(start_line_rules),
        cmocka_unit_test(field_rules),
        cmocka_unit_test(value_characters),
        cmocka_unit_test(host_rules),
        cmocka_unit_test(limits_are_exact),
        cmocka_unit_test(response_is_read),
        cmocka_unit_test(request_framing),
        cmocka_unit_test(response_framing),
        cmocka_unit_test(connection_rules),
        cmocka_unit_test(chunked_bodies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
