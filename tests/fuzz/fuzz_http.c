/*
 * The HTTP parser on arbitrary bytes.  The first byte chooses: request, response, chunked body.  What must hold:
 *   - the answer does not depend on how the bytes are cut;
 *   - every view lies in the input, names are tokens, values have no control characters;
 *   - what was read and written again reads the same: nothing was understood that does not show.
 */
#include <stdlib.h>

#include "base/check.h"
#include "http/parse.h"

typedef int parse_fn(struct str, struct http_head *, enum http_fault *);

static void check_view(struct str in, struct str v)
{
    if (v.len > 0 && !(v.len == 1 && *v.p == '/'))     /* the path of a target without one is a literal */
        ASSERT(v.p >= in.p && v.p + v.len <= in.p + in.len);
}

static void check_head(struct str in, const struct http_head *h, bool request)
{
    check_view(in, h->method);
    check_view(in, h->target);
    check_view(in, h->path);
    check_view(in, h->query);
    check_view(in, h->host);
    check_view(in, h->reason);
    ASSERT(h->n_headers <= HTTP_HEADERS_MAX && h->minor <= 1);
    ASSERT(!request || (http_is_token(h->method) && h->path.len > 0));
    ASSERT(request || (h->status >= 100 && h->status <= 999));
    for (unsigned i = 0; i < h->n_headers; i++) {
        check_view(in, h->headers[i].name);
        check_view(in, h->headers[i].value);
        ASSERT(http_is_token(h->headers[i].name) && http_is_value(h->headers[i].value));
    }
}

static void check_written_again(const struct http_head *h, bool request, parse_fn *fn)
{
    struct buf b = BUF_INIT(1 << 20);
    struct http_head again;
    enum http_fault why;
    int n;

    if (request)
        buf_addf(&b, "%.*s %.*s HTTP/1.%u\r\n", STR_ARG(h->method), STR_ARG(h->target), h->minor);
    else
        buf_addf(&b, "HTTP/1.%u %d %.*s\r\n", h->minor, h->status, STR_ARG(h->reason));
    for (unsigned i = 0; i < h->n_headers; i++) {
        buf_add_str(&b, h->headers[i].name);
        buf_add_c(&b, ':');
        buf_add_str(&b, h->headers[i].value);
        buf_add_z(&b, "\r\n");
    }
    buf_add_z(&b, "\r\n");
    n = fn(buf_str(&b), &again, &why);
    /* one byte more than what was read: the space behind a status without a reason */
    if (n < 0 && b.len > HTTP_LINE_MAX - 2) {
        buf_release(&b);
        return;
    }
    ASSERT(n == (int)b.len && again.n_headers == h->n_headers && again.status == h->status);
    for (unsigned i = 0; i < h->n_headers; i++)
        ASSERT(str_eq(again.headers[i].name, h->headers[i].name) &&
               str_eq(again.headers[i].value, h->headers[i].value));
    buf_release(&b);
}

static void fuzz_head(struct str in, bool request)
{
    parse_fn *fn = request ? http_parse_request_head : http_parse_response_head;
    enum http_fault why = HTTP_FAULT_NONE, why_piece = HTTP_FAULT_NONE;
    struct http_head h, piece;
    struct http_body body;
    int whole = fn(in, &h, &why), grown = 0;
    size_t seen = 0;

    ASSERT(whole >= -1 && whole <= (int)in.len && (whole < 0) == (why != HTTP_FAULT_NONE));
    /* quadratic: short inputs only */
    for (size_t n = 1; n <= in.len && in.len <= 1024 && grown == 0; n++) {
        char *exact = malloc(n);    /* reading past it is seen */

        ASSERT(exact != NULL);
        memcpy(exact, in.p, n);
        grown = fn(str_n(exact, n), &piece, &why_piece);
        free(exact);
    }
    ASSERT(in.len > 1024 || (grown == whole && why_piece == why));
    for (size_t n = 1; n <= in.len; n++) {
        if (!http_head_worth(str_n(in.p, n), seen))
            continue;
        grown = fn(str_n(in.p, n), &piece, &why_piece);
        seen = n;
        if (grown != 0)
            break;
    }
    ASSERT(grown == whole || (grown == 0 && whole == -1));
    if (whole <= 0)
        return;
    check_head(in, &h, request);
    check_written_again(&h, request, fn);
    if (request ? http_request_framing(&h, &body, &why) : http_response_framing(&h, false, &body, &why))
        ASSERT(body.framing != HTTP_BODY_LENGTH || body.length <= INT64_MAX);
    (void)http_head_keeps(&h);
}

/* Decodes in pieces; the bytes used, or -1. */
static int64_t decode(struct str in, size_t step, struct buf *body, enum http_fault *why)
{
    struct http_chunked c;
    size_t at = 0;

    http_chunked_init(&c);
    while (at < in.len && !c.done) {
        size_t n = in.len - at < step ? in.len - at : step;
        struct str data;
        int64_t used = http_chunked_decode(&c, str_n(in.p + at, n), &data, why);

        if (used < 0)
            return -1;
        ASSERT(used > 0 && (size_t)used <= n);
        check_view(str_n(in.p + at, n), data);
        buf_add_str(body, data);
        at += (size_t)used;
    }
    return (int64_t)at;
}

static void fuzz_chunked(struct str in)
{
    static const size_t steps[] = { 1, 3, 17 };
    struct buf whole = BUF_INIT(1 << 22), piece = BUF_INIT(1 << 22);
    enum http_fault why = HTTP_FAULT_NONE, why_piece = HTTP_FAULT_NONE;
    int64_t n = decode(in, in.len, &whole, &why);

    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        buf_clear(&piece);
        ASSERT(decode(in, steps[i], &piece, &why_piece) == n);
        ASSERT(why_piece == why && str_eq(buf_str(&piece), buf_str(&whole)));
    }
    buf_release(&whole);
    buf_release(&piece);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct str in;

    if (n < 2)
        return 0;
    in = str_n(data + 1, n - 1);
    if (data[0] % 3 == 2)
        fuzz_chunked(in);
    else
        fuzz_head(in, data[0] % 3 == 0);
    return 0;
}
