/*
 * request.c -- a request as bytes: checked first, measured, then written once into memory that is wiped after sending
 *
 *   METHOD path HTTP/1.1 CRLF
 *   Host: host[:port] CRLF
 *   the caller's fields
 *   User-Agent: sluice/VERSION CRLF               unless the caller names one
 *   Accept-Encoding: identity CRLF
 *   Authorization: Bearer ... | Basic ... CRLF    when a secret is given
 *   Content-Length: n CRLF                        with a body, and always on POST, PUT and PATCH
 *   CRLF body
 *
 * No Expect, no Transfer-Encoding, no Connection.  The same code runs twice: without memory it counts, with memory it
 * writes; so the memory is exact, never grows, and no copy of a secret is left behind by a reallocation.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crypto.h"
#include "fetch/internal.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* What fetch_common_make() has checked. */
struct fetch_common {
    struct fetch_header *headers;
    unsigned n;
    bool names_agent;
    size_t size;                        /* of names and values, as headers_check() counts it */
    struct str wire;                    /* as sent */
};

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^`|~", c));
}

#ifdef __SSE2__
/* Above space and below DEL, all sixteen: as signed numbers, those from 0x80 on are below. */
static bool sixteen_visible(const char *p)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i visible = _mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)), _mm_cmpgt_epi8(v, _mm_set1_epi8(0x20)));

    return _mm_movemask_epi8(visible) == 0xffff;
}
#endif

static bool is_visible(struct str s, bool spaces)
{
    size_t i = 0;

#ifdef __SSE2__
    while (i + 16 <= s.len && sixteen_visible(s.p + i))
        i += 16;
    if (i > 0 && s.len - i < 16 && sixteen_visible(s.p + s.len - 16))      /* the rest, with what was seen before it */
        i = s.len;
#endif
    for (; i < s.len; i++)
        if (!((s.p[i] > 0x20 && s.p[i] < 0x7f) || (spaces && (s.p[i] == ' ' || s.p[i] == '\t'))))
            return false;
    return true;
}

bool fetch_path_valid(struct str path)
{
    if (path.len == 0 || path.len > FETCH_PATH_MAX || path.p[0] != '/' || !is_visible(path, false))
        return false;
    return !memchr(path.p, '#', path.len);
}

/* What frames the message or belongs to one hop is written here or not at all. */
static bool is_reserved(struct str name, bool authorized)
{
    static const struct str names[] = {
        STR("host"), STR("content-length"), STR("transfer-encoding"), STR("connection"), STR("keep-alive"), STR("te"),
        STR("trailer"), STR("upgrade"), STR("expect"), STR("accept-encoding"), STR("proxy-authorization"),
        STR("proxy-connection"), STR("http2-settings"),
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_ieq(name, names[i]))
            return true;
    return authorized && str_ieq(name, STR("authorization"));
}

static bool among(const struct fetch_header *headers, unsigned n, struct str name)
{
    for (unsigned i = 0; i < n; i++)
        if (str_ieq(headers[i].name, name))
            return true;
    return false;
}

bool fetch_request_names(const struct fetch_request *req, struct str name)
{
    const struct fetch_common *c = req->common;

    return among(req->headers, req->n_headers, name) || (c && among(c->headers, c->n, name));
}

static bool name_valid(struct str name)
{
    if (name.len == 0 || name.len > 128)
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!is_token_char(name.p[i]))
            return false;
    return true;
}

static void check_visible(const uint8_t *bytes, size_t n, void *arg)
{
    *(bool *)arg = n > 0 && is_visible(str_n(bytes, n), false);
}

static bool secret_visible(const struct secret *s)
{
    bool ok = true;

    if (s)
        secret_use(s, check_visible, &ok);
    return ok;
}

static bool method_valid(struct str m)
{
    for (size_t i = 0; i < m.len; i++)
        if (m.p[i] < 'A' || m.p[i] > 'Z')
            return false;
    return m.len > 0 && m.len <= 16 && !str_is(m, "CONNECT") && !str_is(m, "TRACE");
}

static bool has_body(const struct fetch_request *req)
{
    return req->body.len > 0 || req->n_parts > 0;
}

/* before, *size: how many and how large the fields before these are. */
static enum err headers_check(const struct fetch_header *headers, unsigned n, bool authorized, unsigned before,
                              size_t *size, struct errinfo *info)
{
    size_t total = *size;

    if (n > FETCH_HEADERS_MAX - before)
        return err_set(info, E_CONNECTOR_FAULT, "a request has more than %d header fields", FETCH_HEADERS_MAX);
    for (unsigned i = 0; i < n; i++) {
        const struct fetch_header *h = &headers[i];

        if (!name_valid(h->name) || is_reserved(h->name, authorized))
            return err_set(info, E_CONNECTOR_FAULT, "header field %u of a request has a name it may not have", i + 1);
        if (!is_visible(h->value, true) || (!h->secret && !str_eq(str_trim(h->value), h->value)) ||
            !secret_visible(h->secret))
            return err_set(info, E_CONNECTOR_FAULT, "header field %.*s has a value with a character it may not hold",
                           STR_ARG(h->name));
        total += h->name.len + h->value.len + 4;
    }
    if (total > HTTP_HEAD_MAX)
        return err_set(info, E_CONNECTOR_FAULT, "the header fields of a request are larger than %d bytes",
                       HTTP_HEAD_MAX);
    *size = total;
    return OK;
}

enum err fetch_request_check(const struct fetch_request *req, bool origin_known, struct errinfo *info)
{
    unsigned before = req->common ? req->common->n : 0;
    size_t size = req->common ? req->common->size : 0;

    ASSERT(req->origin && req->reply_max > 0 && req->deadline > 0);
    ASSERT(req->n_headers == 0 || req->headers);
    ASSERT(req->n_parts == 0 || (req->parts && req->body.len == 0));
    if (req->tenant.len == 0 || req->tenant.len > FETCH_TENANT_MAX)
        return err_set(info, E_CONNECTOR_FAULT, "a request names no tenant");
    if (!origin_known && !fetch_origin_valid(req->origin))
        return err_set(info, E_EGRESS_DENIED, "the origin of a request is not a plain host and port");
    if (!method_valid(req->method))
        return err_set(info, E_CONNECTOR_FAULT, "the method of a request is not one that may be sent");
    if (!fetch_path_valid(req->path))
        return err_set(info, E_CONNECTOR_FAULT,
                       "the path of a request is not visible ASCII starting with '/', or is too long");
    if (has_body(req) && fetch_is_safe(req))
        return err_set(info, E_CONNECTOR_FAULT, "a GET or HEAD request has a body");
    if (req->n_parts > FETCH_PARTS_MAX)
        return err_set(info, E_CONNECTOR_FAULT, "the body of a request has more than %d parts", FETCH_PARTS_MAX);
    if (!secret_visible(req->bearer) || (req->basic_secret && !req->basic_form && !secret_visible(req->basic_secret)))
        return err_set(info, E_CONNECTOR_FAULT, "a credential holds a character that a header field may not hold");
    return headers_check(req->headers, req->n_headers, req->bearer || req->basic_secret, before, &size, info);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* p == NULL: only counts. The base64 state is for Basic, whose text is not in one piece. */
struct out {
    char *p;
    size_t len, cap;
    bool form;
    bool b64;
    uint8_t triple[3];
    unsigned in_triple;
};

/* Inlined: most of what is written is literals, which counting then passes in no time. */
static inline void out_raw(struct out *o, const void *p, size_t n)
{
    if (o->p && n > 0) {
        ASSERT(n <= o->cap - o->len);
        memcpy(o->p + o->len, p, n);
    }
    o->len += n;
}

static void out_triple(struct out *o)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned n = o->in_triple;
    uint32_t v;
    char four[4];

    if (n == 0)
        return;
    v = (uint32_t)o->triple[0] << 16 | (n > 1 ? (uint32_t)o->triple[1] << 8 : 0) | (n > 2 ? o->triple[2] : 0);
    for (unsigned i = 0; i < 4; i++)
        four[i] = i <= n ? alphabet[(v >> (18 - 6 * i)) & 63] : '=';
    out_raw(o, four, 4);
    bytes_wipe(four, sizeof(four));
    bytes_wipe(o->triple, sizeof(o->triple));
    o->in_triple = 0;
}

static void out_encoded(struct out *o, const void *p, size_t n)
{
    if (!o->b64) {
        out_raw(o, p, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        o->triple[o->in_triple++] = ((const uint8_t *)p)[i];
        if (o->in_triple == 3)
            out_triple(o);
    }
}

/* application/x-www-form-urlencoded, WHATWG URL 5.2, a space as %20 so that both readings agree. */
static void out_form(struct out *o, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = (char)p[i], hex[3] = { '%', "0123456789ABCDEF"[p[i] >> 4], "0123456789ABCDEF"[p[i] & 15] };
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                     c == '.' || c == '_';

        out_encoded(o, plain ? &c : hex, plain ? 1 : 3);
    }
}

static void out_bytes(const uint8_t *p, size_t n, void *arg)
{
    struct out *o = arg;

    if (o->form)
        out_form(o, p, n);
    else
        out_encoded(o, p, n);
}

static inline void out_str(struct out *o, struct str s)     { out_raw(o, s.p, s.len); }
static void out_secret(struct out *o, const struct secret *s)
{
    if (!o->p && !o->form && !o->b64)
        o->len += secret_len(s);        /* counted without a look at it */
    else
        secret_use(s, out_bytes, o);
}

static void out_part(struct out *o, const struct fetch_part *part)
{
    o->form = part->form;
    if (part->secret)
        out_secret(o, part->secret);
    else
        out_bytes((const uint8_t *)part->text.p, part->text.len, o);
    o->form = false;
}

static void out_body(struct out *o, const struct fetch_request *req)
{
    for (unsigned i = 0; i < req->n_parts; i++)
        out_part(o, &req->parts[i]);
}

static void out_basic(struct out *o, const struct fetch_request *req)
{
    o->b64 = true;
    o->form = req->basic_form;
    out_bytes((const uint8_t *)req->basic_user.p, req->basic_user.len, o);
    out_encoded(o, ":", 1);
    out_secret(o, req->basic_secret);
    out_triple(o);
    o->b64 = o->form = false;
}

static void out_headers(struct out *o, const struct fetch_header *headers, unsigned n, struct str end)
{
    for (unsigned i = 0; i < n; i++) {
        out_str(o, headers[i].name);
        out_str(o, STR(": "));
        out_str(o, headers[i].value);
        if (headers[i].secret)
            out_secret(o, headers[i].secret);
        out_str(o, end);
    }
}

#define LINE_END STR("\r\n")

/* Every field but Host and Content-Length; `end` closes each (LINE_END, or '\0' for libcurl's lists). */
static void out_fields(struct out *o, const struct fetch_request *req, struct str end)
{
    const struct fetch_common *c = req->common;

    if (c && str_eq(end, LINE_END))
        out_str(o, c->wire);
    else if (c)
        out_headers(o, c->headers, c->n, end);
    out_headers(o, req->headers, req->n_headers, end);
    if (!(c && c->names_agent) && !among(req->headers, req->n_headers, STR("user-agent"))) {
        out_str(o, STR("User-Agent: sluice/" SLUICE_VERSION));
        out_str(o, end);
    }
    out_str(o, STR("Accept-Encoding: identity"));
    out_str(o, end);
    if (req->bearer) {
        out_str(o, STR("Authorization: Bearer "));
        out_secret(o, req->bearer);
        out_str(o, end);
    } else if (req->basic_secret) {
        out_str(o, STR("Authorization: Basic "));
        out_basic(o, req);
        out_str(o, end);
    }
}

static void out_number(struct out *o, uint64_t v)
{
    char room[U64_DIGITS];

    out_str(o, str_of_u64(room, v));
}

static void out_request(struct out *o, const struct fetch_request *req, size_t body_len)
{
    const struct fetch_origin *at = req->origin;
    bool always = str_is(req->method, "POST") || str_is(req->method, "PUT") || str_is(req->method, "PATCH");

    out_str(o, req->method);
    out_str(o, STR(" "));
    out_str(o, req->path);
    out_str(o, STR(" HTTP/1.1\r\nHost: "));
    out_str(o, str_of(at->host));
    if (at->port != (at->tls ? 443 : 80)) {
        out_str(o, STR(":"));
        out_number(o, at->port);
    }
    out_str(o, STR("\r\n"));
    out_fields(o, req, LINE_END);
    if (body_len > 0 || always) {
        out_str(o, STR("Content-Length: "));
        out_number(o, body_len);
        out_str(o, STR("\r\n"));
    }
    out_str(o, STR("\r\n"));
    if (req->n_parts > 0)
        out_body(o, req);
    else if (body_len <= FETCH_BODY_COPY)
        out_str(o, req->body);
}

enum err fetch_common_make(struct arena *a, const struct fetch_header *headers, unsigned n,
                           const struct fetch_common **ret, struct errinfo *info)
{
    struct fetch_common *c = ARENA_NEW(a, struct fetch_common);
    struct out o = { 0 };
    size_t size = 0;
    enum err e = headers_check(headers, n, true, 0, &size, info);

    if (e)
        return e;
    out_headers(&o, headers, n, LINE_END);
    o = (struct out){ .p = arena_alloc(a, o.len + 1), .cap = o.len };
    if (!c || !o.p || !(c->headers = ARENA_ARRAY(a, struct fetch_header, n)))
        return err_set(info, E_CALL_TOO_LARGE, "no memory for the fields of a provider's requests");
    for (unsigned i = 0; i < n; i++) {
        ASSERT(!headers[i].secret);
        c->headers[i] = (struct fetch_header){ arena_str(a, headers[i].name), arena_str(a, headers[i].value), NULL };
    }
    out_headers(&o, headers, n, LINE_END);
    c->n = n;
    c->size = size;
    c->names_agent = among(headers, n, STR("user-agent"));
    c->wire = str_n(o.p, o.len);
    *ret = c;
    return arena_overflowed(a) ? E_CALL_TOO_LARGE : OK;
}

static size_t body_length(const struct fetch_request *req)
{
    struct out count = { 0 };

    if (req->n_parts == 0)
        return req->body.len;
    out_body(&count, req);
    return count.len;
}

static bool wire_alloc(struct wire *w, size_t n, struct out *o)
{
    *o = (struct out){ .p = malloc(n ? n : 1), .cap = n };
    *w = (struct wire){ .p = o->p, .len = n };
    return o->p != NULL;
}

bool wire_build(struct wire *w, const struct fetch_request *req)
{
    size_t body_len = body_length(req);
    struct out o = { 0 };

    out_request(&o, req, body_len);
    if (!wire_alloc(w, o.len, &o))
        return false;
    out_request(&o, req, body_len);
    ASSERT(o.len == o.cap);
    if (req->n_parts == 0 && req->body.len > FETCH_BODY_COPY)
        w->rest = req->body;
    return true;
}

bool wire_build_fields(struct wire *w, const struct fetch_request *req)
{
    struct out o = { 0 };

    out_fields(&o, req, STR("\0"));
    if (!wire_alloc(w, o.len, &o))
        return false;
    out_fields(&o, req, STR("\0"));
    ASSERT(o.len == o.cap);
    return true;
}

bool wire_build_body(struct wire *w, const struct fetch_request *req)
{
    struct out o = { 0 };

    *w = (struct wire){ .rest = req->body };
    if (req->n_parts == 0)
        return true;
    if (!wire_alloc(w, body_length(req), &o))
        return false;
    out_body(&o, req);
    ASSERT(o.len == o.cap);
    return true;
}

void wire_wipe(struct wire *w)
{
    if (w->p)
        bytes_wipe(w->p, w->len);
    free(w->p);
    *w = (struct wire){ 0 };
}

struct str fetch_wire(const struct fetch_request *req, struct arena *arena)
{
    struct out o = { 0 };
    size_t body_len;

    if (fetch_request_check(req, false, NULL))
        return STR_NULL;
    body_len = body_length(req);
    out_request(&o, req, body_len);
    if (req->n_parts == 0 && body_len > FETCH_BODY_COPY)
        out_str(&o, req->body);
    o = (struct out){ .p = arena_alloc(arena, o.len), .cap = o.len };
    if (!o.p)
        return STR_NULL;
    out_request(&o, req, body_len);
    if (req->n_parts == 0 && body_len > FETCH_BODY_COPY)
        out_str(&o, req->body);
    return str_n(o.p, o.len);
}
