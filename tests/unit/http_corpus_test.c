/*
 * The request and response cases of corpora/http against our parser.  Their verdicts are those of a more lenient
 * parser: each case where ours differs is named below, with the reason.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <dirent.h>
#include <cmocka.h>

#include "base/check.h"
#include "http/parse.h"

#define CRLF "\r\n"

struct difference {
    const char *file, *name, *why;
};

/* Where the corpus accepts and we refuse. (That HTTP/1.1 needs a Host is left out: most cases lack one, so it is put
 * in.) */
static const struct difference stricter[] = {
    { "request/connection.md", "CRLF between requests, implicit `keep-alive`",
      "an empty line before a message: there is none to skip in a stream without doubt" },
    { "request/connection.md", "Multiple tokens with folding and LWS",
      "an upgrade is ignored, so what follows must be HTTP" },
    { "request/connection.md", "Upgrade GET request", "an upgrade is ignored, so what follows must be HTTP" },
    { "request/connection.md", "Upgrade POST request", "an upgrade is ignored, so what follows must be HTTP" },
    { "request/content-length.md", "Funky `Content-Length` with body", "GET with a body" },
    { "request/method.md", "CONNECT request", "CONNECT is for proxies" },
    { "request/method.md", "CONNECT request with CAPS", "CONNECT is for proxies" },
    { "request/method.md", "CONNECT with body", "CONNECT is for proxies" },
    { "request/method.md", "M-SEARCH request", "\"*\" is a target of OPTIONS alone" },
    { "request/method.md", "SOURCE request with ICE", "another protocol" },
    { "request/method.md", "OPTIONS request with RTSP", "another protocol" },
    { "request/method.md", "ANNOUNCE request with RTSP", "another protocol" },
    { "request/method.md", "PRI request HTTP2", "\"*\" is a target of OPTIONS alone" },
    { "request/pipelining.md", "Should parse multiple events",
      "an empty line before a message: there is none to skip in a stream without doubt" },
    { "request/sample.md", "curl GET", "'=' in Host" },
    { "request/sample.md", "Firefox GET", "'=' in Host" },
    { "request/sample.md", "Prefix newline",
      "an empty line before a message: there is none to skip in a stream without doubt" },
    { "request/sample.md", "No HTTP version", "HTTP/0.9" },
    { "request/sample.md", "Request starting with CRLF",
      "an empty line before a message: there is none to skip in a stream without doubt" },
    { "request/transfer-encoding.md", "POST with `chunked` as last transfer-encoding",
      "a second transfer coding; a fragment" },
    { "request/transfer-encoding.md", "POST with `chunked` as last transfer-encoding (multiple headers)",
      "a second transfer coding; a fragment" },
    { "request/uri.md", "Host terminated by a query string", "the target names another host than Host" },
    { "request/uri.md", "`host:port` terminated by a query string", "the target names another host than Host" },
    { "request/uri.md", "`host:port` terminated by a space", "the target names another host than Host" },
    { "request/uri.md", "Fragment in URI", "a fragment is never sent" },
    { "request/uri.md", "Underscore in hostname", "CONNECT is for proxies" },
    { "request/uri.md", "`host:port` and basic auth", "user information in a target" },
    { "response/connection.md", "HTTP 101 response with Upgrade and Content-Length header",
      "an upgrade nobody asked for" },
    { "response/connection.md", "HTTP 101 response with Upgrade and Transfer-Encoding header",
      "an upgrade nobody asked for" },
    { "response/connection.md", "HTTP 304 with Content-Length",
      "an empty line before a message: there is none to skip in a stream without doubt" },
    { "response/connection.md", "HTTP 100 first, then 400",
      "an empty line before a message: there is none to skip in a stream without doubt" },
    { "response/pipelining.md", "Should parse multiple events",
      "an empty line before a message: there is none to skip in a stream without doubt" },
    { "response/sample.md", "RTSP response", "another protocol" },
    { "response/sample.md", "ICE response", "another protocol" },
    { "response/sample.md", "HTTP version 0.9", "HTTP/0.9" },
    { "response/sample.md", "Response starting with CRLF",
      "an empty line before a message: there is none to skip in a stream without doubt" },
    { "response/transfer-encoding.md", "`chunked` before other transfer-encoding", "a second transfer coding" },
    { "response/transfer-encoding.md", "multiple transfer-encoding where chunked is not the last one",
      "a second transfer coding" },
    { "response/transfer-encoding.md", "`chunkedchunked` transfer-encoding does not enable chunked enconding",
      "an unknown transfer coding" },
};

/* Where the corpus refuses and we accept. */
static const struct difference looser[] = {
    { "request/invalid.md", "HTTP protocol and ANNOUNCE method",
      "any token is a method here: the handler answers 405" },
    { "request/invalid.md", "Invalid method", "any token is a method here: the handler answers 405" },
};

static unsigned used[2][64];

static bool listed(const struct difference *list, size_t n, unsigned which, const char *file, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].file, file) == 0 && strcmp(list[i].name, name) == 0) {
            used[which][i]++;
            return true;
        }
    }
    return false;
}

struct verdict {
    bool refused;
    enum http_fault why;
    unsigned messages;      /* complete ones */
    size_t body;            /* bytes of bodies, incomplete ones included */
};

static void consume_body(struct str *in, const struct http_body *b, struct verdict *v, bool *ret_complete)
{
    struct http_chunked c;

    *ret_complete = true;
    if (b->framing == HTTP_BODY_LENGTH || b->framing == HTTP_BODY_UNTIL_CLOSE) {
        size_t n = b->framing == HTTP_BODY_LENGTH && b->length < in->len ? (size_t)b->length : in->len;

        *ret_complete = b->framing == HTTP_BODY_LENGTH && n == b->length;
        v->body += n;
        *in = str_from(*in, n);
    }
    if (b->framing != HTTP_BODY_CHUNKED)
        return;
    http_chunked_init(&c);
    while (in->len > 0 && !c.done) {
        struct str data;
        int64_t n = http_chunked_decode(&c, *in, &data, &v->why);

        v->refused = n < 0;
        if (n < 0)
            break;
        v->body += data.len;
        *in = str_from(*in, (size_t)n);
    }
    *ret_complete = c.done;
}

static struct verdict read_messages(struct str in, bool request, bool skip_body)
{
    struct verdict v = { 0 };
    bool complete = true;

    while (in.len > 0 && complete && !v.refused) {
        struct http_head h;
        struct http_body b;
        int n = request ? http_parse_request_head(in, &h, &v.why) : http_parse_response_head(in, &h, &v.why);

        if (n == 0)
            return v;
        v.refused = n < 0 || !(request ? http_request_framing(&h, &b, &v.why)
                                       : http_response_framing(&h, skip_body, &b, &v.why));
        if (v.refused)
            return v;
        in = str_from(in, (size_t)n);
        if (!(request && skip_body))
            consume_body(&in, &b, &v, &complete);
        v.messages += complete && !v.refused;
        if (complete && !http_head_keeps(&h) && in.len > 0) {
            v.refused = true;       /* the server would close and never look at it */
            v.why = HTTP_FAULT_CUT_OFF;
        }
    }
    return v;
}

/* The corpus' notation: \r \n \t \f \xHH \OOO stand for bytes, a backslash at the end of a line joins lines, and
 * lines end in CRLF. */
static void unescape(struct str text, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < text.len; i++) {
        char c = text.p[i], next = i + 1 < text.len ? text.p[i + 1] : '\0';

        if (c == '\n') {
            buf_add_z(out, CRLF);
        } else if (c != '\\') {
            buf_add_c(out, c);
        } else if (next == '\n') {
            i++;
        } else if (strchr("rntf", next) && next) {
            buf_add_c(out, next == 'r' ? '\r' : next == 'n' ? '\n' : next == 't' ? '\t' : '\f');
            i++;
        } else if (next == 'x') {
            buf_add_c(out, (char)strtol((char[]){ text.p[i + 2], text.p[i + 3], '\0' }, NULL, 16));
            i += 3;
        } else if (next >= '0' && next <= '7') {
            int v = 0;

            for (int k = 0; k < 3 && i + 1 < text.len && text.p[i + 1] >= '0' && text.p[i + 1] <= '7'; k++)
                v = v * 8 + (text.p[++i] - '0');
            buf_add_c(out, (char)v);
        } else {
            buf_add_c(out, c);
        }
    }
}

/* Most requests of the corpus lack Host; ours then stops there. The rest of such a case is tried with a Host put in. */
static void add_host(struct buf *b)
{
    static const struct str end = STR(" HTTP/1.1\r");
    struct str rest = buf_str(b), line;
    struct buf out = BUF_INIT(1 << 20);

    if (strcasestr(b->p, "\nhost:"))
        return;
    while (str_cut(rest, '\n', &line, &rest)) {
        buf_add_str(&out, line);
        buf_add_c(&out, '\n');
        if (str_ends(line, end))
            buf_add_z(&out, "Host: corpus\r\n");
    }
    buf_add_str(&out, rest);
    buf_release(b);
    *b = out;
}

struct corpus {
    unsigned cases, agreed, mismatches;
    const char *file;
    char name[128], meta[160];
};

static bool expects_refusal(const char *log)
{
    const char *at = log;

    while ((at = strstr(at, "error code="))) {
        int code = atoi(at + 11);

        if (code < 21 || code > 23)     /* those are pauses */
            return true;
        at++;
    }
    return false;
}

static size_t expected_body(const char *log)
{
    size_t sum = 0;

    for (const char *line = log; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        const char *end = strchr(line, '\n'), *body = strstr(line, "span[body]"), *len = strstr(line, "len=");

        if (body && len && (!end || (body < end && len < end)))
            sum += (size_t)atoi(len + 4);
    }
    return sum;
}

static void judge(struct corpus *c, struct str text, const char *log)
{
    bool request = strstr(c->meta, "\"request"), lenient = strstr(c->meta, "lenient");
    bool skip = strstr(c->meta, "skipBody");
    struct buf in = BUF_INIT(1 << 20);
    struct verdict v;
    bool expected = expects_refusal(log), ok;

    unescape(text, &in);
    buf_add_c(&in, '\0');
    in.len--;
    if (request)
        add_host(&in);
    v = read_messages(buf_str(&in), request, skip);
    if (expected && !v.refused && v.messages == 0) {
        /* our framing is decided when the head is complete, and some of these are not */
        buf_add_z(&in, CRLF CRLF);
        v = read_messages(buf_str(&in), request, skip);
    }
    if (lenient)
        ok = v.refused;
    else if (v.refused == expected)
        ok = expected || v.body == expected_body(log);
    else if (v.refused)
        ok = listed(stricter, ARRAY_LEN(stricter), 0, c->file, c->name);
    else
        ok = listed(looser, ARRAY_LEN(looser), 1, c->file, c->name);
    c->cases++;
    c->agreed += v.refused == expected && !lenient;
    if (!ok) {
        c->mismatches++;
        print_error("%s: \"%s\" %s: %s (%s), %zu bytes of body\n", c->file, c->name,
                    lenient ? "(lenient)" : expected ? "bad" : "good",
                    v.refused ? "refused" : "accepted", http_fault_name(v.why), v.body);
    }
    buf_release(&in);
}

/* The text between a line that starts with `open` and the line "```"; NULL if there is none. `at` moves behind it. */
static char *block(char **at, const char *open)
{
    char *start = strstr(*at, open), *end;

    if (!start)
        return NULL;
    start = strchr(start, '\n') + 1;
    end = strstr(start, "```");
    assert_non_null(end);
    if (end > start && end[-1] == '\n')
        end[-1] = '\0';
    *end = '\0';
    *at = end + 3;
    return start;
}

static void run_file(struct corpus *c, char *text)
{
    char *at = text, *meta;

    while ((meta = strstr(at, "<!-- meta="))) {
        char *heading = NULL, *http, *log;

        for (char *p = at; (p = strchr(p, '#')) && p < meta; p++)
            if (p == text || p[-1] == '\n')
                heading = p + strspn(p, "# ");
        if (heading)
            snprintf(c->name, sizeof(c->name), "%.*s", (int)strcspn(heading, "\n"), heading);
        snprintf(c->meta, sizeof(c->meta), "%.*s", (int)strcspn(meta, "\n"), meta);
        at = meta + 1;
        http = block(&at, "```http");
        log = block(&at, "```log");
        assert_true(http && log);
        judge(c, str_of(http), log);
    }
}

static char *slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    assert_true(f && text);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

static void corpus_folder(struct corpus *c, const char *base, const char *folder)
{
    char path[512], file[1024];
    struct dirent **names;
    int n;

    snprintf(path, sizeof(path), "%s/http/test/%s", base, folder);
    n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (str_ends(str_of(names[i]->d_name), STR(".md"))) {
            char *text, shown[300];

            snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
            snprintf(shown, sizeof(shown), "%s/%s", folder, names[i]->d_name);
            c->file = shown;
            text = slurp(file);
            run_file(c, text);
            free(text);
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

static void corpus_cases(void **state)
{
    const char *base = getenv("SLUICE_CORPORA") ? getenv("SLUICE_CORPORA") : "../shared/corpora";
    struct corpus c = { 0 };

    corpus_folder(&c, base, "request");
    corpus_folder(&c, base, "response");
    if (c.cases == 0) {
        print_message("skipped: no test data at %s/http (set SLUICE_CORPORA)\n", base);
        skip();
    }
    print_message("%u corpus cases, %u with the same verdict\n", c.cases, c.agreed);
    assert_int_equal(c.mismatches, 0);
    assert_true(c.cases > 200);
    for (size_t i = 0; i < ARRAY_LEN(stricter); i++)
        if (!used[0][i])
            fail_msg("stale exception: %s", stricter[i].name);
    for (size_t i = 0; i < ARRAY_LEN(looser); i++)
        if (!used[1][i])
            fail_msg("stale exception: %s", looser[i].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corpus_cases),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
