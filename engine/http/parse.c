/*
 * parse.c -- message heads, byte by byte from the left
 *
 *   request  = method SP target SP "HTTP/1." ("0" | "1") CRLF fields CRLF
 *   response = "HTTP/1." ("0" | "1") SP 3DIGIT [ SP reason ] CRLF fields CRLF
 *   fields   = *( name ":" value CRLF )        name: token; value: no control characters but HTAB, trimmed
 *
 * Everything is decided by the earliest byte that decides it, and a limit is a position: what a prefix is refused
 * for, every longer input is refused for, so the answer cannot depend on how the peer cut its packets.  Whether the
 * fields make sense together (Host, framing) is asked only when the head is complete.
 */
#include "http/parse.h"

#include "base/check.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static const struct fault_row {
    const char *name, *text;
    int status;
} fault_rows[HTTP_FAULT_COUNT] = {
#define ROW(fault, code, words) [HTTP_FAULT_##fault] = { #fault, words, code },
    HTTP_FAULTS(ROW)
#undef ROW
};

enum { FAULT_NAME_MAX = 24 };
static char fault_names[HTTP_FAULT_COUNT][FAULT_NAME_MAX];

/* Before main(), so that no thread ever sees a name half made. */
__attribute__((constructor)) static void name_faults(void)
{
    for (unsigned f = 0; f < HTTP_FAULT_COUNT; f++) {
        const char *upper = fault_rows[f].name;

        ASSERT(strlen(upper) < FAULT_NAME_MAX);
        for (size_t i = 0; upper[i] != '\0'; i++)
            fault_names[f][i] = upper[i] == '_' ? '_' : (char)(upper[i] - 'A' + 'a');
    }
}

const char *http_fault_name(enum http_fault f)
{
    ASSERT(f < HTTP_FAULT_COUNT);
    return fault_names[f];
}

const char *http_fault_text(enum http_fault f)
{
    ASSERT(f < HTTP_FAULT_COUNT);
    return fault_rows[f].text;
}

int http_fault_status(enum http_fault f)
{
    ASSERT(f < HTTP_FAULT_COUNT);
    return fault_rows[f].status;
}

/* ---- characters -------------------------------------------------------------------------------------------------- */

/* tchar of RFC 9110 5.6.2; all but '_' may stand in the name of a request's field. */
enum { TOKEN = 1, PLAIN = 2, BOTH = TOKEN | PLAIN };

static const uint8_t is_token[256] = {
    ['!'] = BOTH, ['#'] = BOTH, ['$'] = BOTH, ['%'] = BOTH, ['&'] = BOTH, ['\''] = BOTH, ['*'] = BOTH, ['+'] = BOTH,
    ['-'] = BOTH, ['.'] = BOTH, ['^'] = BOTH, ['_'] = TOKEN, ['`'] = BOTH, ['|'] = BOTH, ['~'] = BOTH,
    ['0' ... '9'] = BOTH, ['A' ... 'Z'] = BOTH, ['a' ... 'z'] = BOTH,
};

bool http_is_token(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_token[(unsigned char)s.p[i]])
            return false;
    return s.len > 0;
}

static inline bool is_value_char(unsigned char c)
{
    return c >= 0x20 ? c != 0x7f : c == '\t';
}

static inline bool is_target_char(unsigned char c)
{
    return c > 0x20 && c < 0x7f && c != '#';
}

static inline bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The first byte of [p, end) that may not stand in a field value (a reason phrase); end if all may. */
static const char *skip_value(const char *p, const char *end)
{
#ifdef __SSE2__
    /* With one added, only what is visible ASCII or a blank is more than a blank (the comparison is signed): sixteen of
     * these are passed over together, whatever else is looked at by itself. */
    while (end - p >= 16) {
        __m128i v = _mm_add_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), _mm_set1_epi8(1));
        unsigned others = (unsigned)_mm_movemask_epi8(_mm_cmpgt_epi8(v, _mm_set1_epi8(' '))) ^ 0xffff;

        if (!others) {
            p += 16;
            continue;
        }
        p += __builtin_ctz(others);
        if (!is_value_char((unsigned char)*p))
            return p;
        p++;
    }
#endif
    while (p < end && is_value_char((unsigned char)*p))
        p++;
    return p;
}

bool http_is_value(struct str s)
{
    return s.len == 0 || skip_value(s.p, s.p + s.len) == s.p + s.len;
}

static const char *skip_target(const char *p, const char *end)
{
    while (p < end && is_target_char((unsigned char)*p))
        p++;
    return p;
}

/* Names are letters, digits and '-' but for a few: those sixteen at a time, whatever else by the table. */
static const char *skip_token(const char *p, const char *end, unsigned kind)
{
#ifdef __SSE2__
    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
        __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
        __m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8('z' - 'a')), letter);
        __m128i is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
        __m128i fits = _mm_or_si128(_mm_or_si128(is_letter, is_digit), _mm_cmpeq_epi8(v, _mm_set1_epi8('-')));
        unsigned others = (unsigned)_mm_movemask_epi8(fits) ^ 0xffff;

        if (others) {
            p += __builtin_ctz(others);
            break;
        }
        p += 16;
    }
#endif
    while (p < end && is_token[(unsigned char)*p] & kind)
        p++;
    return p;
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* What a step of the parser found. MORE and BAD end the parse. */
enum step { GO, MORE, BAD, END };

struct cursor {
    const char *base, *p, *end;         /* start of the head, where we are, end of what is there */
    const char *stop;                   /* no byte of this line may stand here or behind: its limit */
    const char *limit;                  /* the nearer of the two */
    enum http_fault too_long;           /* what passing `stop` is called */
    enum http_fault fault;
};

/* Cold, as is running out: a message that is neither refused nor cut in two meets none of it. */
static __attribute__((cold)) NOINLINE enum step refuse(struct cursor *c, enum http_fault f)
{
    c->fault = f;
    return BAD;
}

/* Starts a line at c->p. */
static void line_begin(struct cursor *c, enum http_fault too_long)
{
    const char *head_stop = c->base + HTTP_HEAD_MAX;

    c->stop = c->p + HTTP_LINE_MAX;
    c->too_long = too_long;
    if (head_stop <= c->stop) {
        c->stop = head_stop;
        c->too_long = HTTP_FAULT_HEAD_LONG;
    }
    c->limit = c->end < c->stop ? c->end : c->stop;
}

/* Another byte of this line is needed and c->p is at the limit. */
static __attribute__((cold)) NOINLINE enum step ran_out(struct cursor *c)
{
    ASSERT(c->p == c->limit);
    return c->p == c->stop ? refuse(c, c->too_long) : MORE;
}

/* c->p is at what must be the CRLF of the line; `otherwise` names what any other byte is. */
static inline enum step line_end(struct cursor *c, enum http_fault otherwise)
{
    if (c->limit - c->p >= 2 && c->p[0] == '\r' && c->p[1] == '\n') {       /* as nearly always */
        c->p += 2;
        return GO;
    }
    if (c->p == c->limit)
        return ran_out(c);
    if (*c->p == '\n')
        return refuse(c, HTTP_FAULT_BARE_LF);
    if (*c->p != '\r')
        return refuse(c, otherwise);
    c->p++;
    if (c->p == c->limit)
        return ran_out(c);
    if (*c->p != '\n')
        return refuse(c, HTTP_FAULT_BARE_CR);
    c->p++;
    return GO;
}

/* "HTTP/1.0" or "HTTP/1.1" */
static enum step version(struct cursor *c, unsigned *ret_minor)
{
    static const char form[] = "HTTP/d.d";
    const char *start = c->p;

    if (c->limit - start >= 8 && memcmp(start, "HTTP/1.1", 8) == 0) {       /* as nearly all are */
        c->p += 8;
        *ret_minor = 1;
        return GO;
    }
    for (size_t i = 0; i < sizeof(form) - 1; i++, c->p++) {
        bool ok;

        if (c->p == c->limit)
            return ran_out(c);
        ok = form[i] == 'd' ? *c->p >= '0' && *c->p <= '9' : *c->p == form[i];
        if (!ok)
            return refuse(c, HTTP_FAULT_VERSION_FORM);
    }
    if (start[5] != '1' || (start[7] != '0' && start[7] != '1'))
        return refuse(c, HTTP_FAULT_VERSION);
    *ret_minor = (unsigned)(start[7] - '0');
    return GO;
}

static void remember(struct http_head *h, struct str name)
{
    unsigned mark = http_name_mark(name);
    uint64_t bit = 1ULL << mark;

    if (h->marks & bit)
        h->again |= bit;
    else
        h->first[mark] = (uint8_t)h->n_headers;
    h->marks |= bit;
    h->n_headers++;
}

/* One field line, or the empty line: END. */
static enum step field(struct cursor *c, struct http_head *h, bool request)
{
    struct http_header *f;
    const char *start = c->p, *end;
    enum step s;

    line_begin(c, HTTP_FAULT_LINE_LONG);
    if (c->p == c->limit)
        return ran_out(c);
    if (*c->p == '\r' || *c->p == '\n') {
        s = line_end(c, HTTP_FAULT_NAME);
        return s == GO ? END : s;
    }
    if (is_blank(*c->p))
        return refuse(c, HTTP_FAULT_FOLD);
    if (h->n_headers == HTTP_HEADERS_MAX)
        return refuse(c, HTTP_FAULT_FIELDS_MANY);
    f = &h->headers[h->n_headers];

    c->p = skip_token(c->p, c->limit, request ? PLAIN : TOKEN);
    f->name = str_n(start, (size_t)(c->p - start));
    if (c->p == c->limit)
        return ran_out(c);
    if (request && *c->p == '_')
        return refuse(c, HTTP_FAULT_NAME_UNDERSCORE);
    if (f->name.len > 0 && is_blank(*c->p))
        return refuse(c, HTTP_FAULT_SPACE_COLON);
    if (*c->p != ':' || f->name.len == 0)
        return refuse(c, HTTP_FAULT_NAME);
    for (start = ++c->p; start < c->limit && is_blank(*start); start++)
        ;

    c->p = end = skip_value(start, c->limit);
    while (end > start && is_blank(end[-1]))
        end--;
    f->value = str_n(start, (size_t)(end - start));
    s = line_end(c, HTTP_FAULT_VALUE);
    if (s == GO)
        remember(h, f->name);
    return s;
}

static enum step fields(struct cursor *c, struct http_head *h, bool request)
{
    enum step s;

    do
        s = field(c, h, request);
    while (s == GO);
    return s;
}

/* ---- fields, by name --------------------------------------------------------------------------------------------- */

const struct http_header *http_head_among(const struct http_head *h, struct str want, unsigned mark, unsigned *ret_n)
{
    const struct http_header *first = NULL;
    unsigned n = 0;

    for (unsigned i = h->first[mark]; i < h->n_headers; i++) {
        if (!str_ieq(h->headers[i].name, want))
            continue;
        if (n++ == 0)
            first = &h->headers[i];
    }
    if (ret_n)
        *ret_n = n;
    return first;
}

bool http_head_one(const struct http_head *h, const char *name, struct str *ret)
{
    unsigned n;
    const struct http_header *f = http_head_find(h, name, &n);

    if (n != 1)
        return false;
    *ret = f->value;
    return true;
}

bool http_list_has(struct str list, const char *word)
{
    struct str item, want = str_of(word);

    while (list.len > 0) {
        if (!str_cut(list, ',', &item, &list)) {
            item = list;
            list = STR_NULL;
        }
        if (str_ieq(str_trim(item), want))
            return true;
    }
    return false;
}

bool http_head_keeps(const struct http_head *h)
{
    const struct http_header *first = http_head_find(h, "connection", NULL);
    bool keep = h->minor == 1;

    for (unsigned i = first ? (unsigned)(first - h->headers) : h->n_headers; i < h->n_headers; i++) {
        if (!str_ieq(h->headers[i].name, STR("connection")))
            continue;
        if (http_list_has(h->headers[i].value, "close"))
            return false;
        if (http_list_has(h->headers[i].value, "keep-alive"))
            keep = true;
    }
    return keep;
}

/* ---- Host and target --------------------------------------------------------------------------------------------- */

static bool port_valid(struct str s)
{
    uint64_t port;

    return s.len > 0 && s.len <= 5 && str_to_u64(s, &port) && port <= 65535;
}

/* host [ ":" port ], where host is a name, an IPv4 address or a bracketed IPv6 address; RFC 9110 7.2, without the
 * escapes and sub-delimiters that RFC 3986 would allow and no host has. */
static bool host_valid(struct str s)
{
    size_t i = 0;

    if (s.len == 0 || s.len > 255 + 6)
        return false;
    if (s.p[0] == '[') {
        for (i = 1; i < s.len && s.p[i] != ']'; i++)
            if (!strchr("0123456789abcdefABCDEF:.", s.p[i]) || s.p[i] == '\0')
                return false;
        if (i < 3 || i == s.len)
            return false;
        i++;
    } else {
        for (i = 0; i < s.len && s.p[i] != ':'; i++) {
            unsigned char c = (unsigned char)s.p[i];

            if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
                c != '-' && c != '.' && c != '_' && c != '~')
                return false;
        }
        if (i == 0)
            return false;
    }
    return i == s.len || (s.p[i] == ':' && port_valid(str_from(s, i + 1)));
}

static void split_query(struct http_head *h, struct str path)
{
    struct str query;

    h->query = STR_NULL;
    h->path = path;
    if (str_cut(path, '?', &path, &query)) {
        h->path = path;
        h->query = query;
    }
    if (str_empty(h->path))
        h->path = STR("/");
}

/* RFC 9112 3.2. The authority of an absolute target, if any, goes to *ret_authority. */
static bool split_target(struct http_head *h, struct str *ret_authority)
{
    struct str rest;
    size_t i;

    *ret_authority = STR_NULL;
    if (str_is(h->method, "CONNECT"))
        return false;
    if (str_is(h->target, "*")) {
        h->path = h->target;
        h->query = STR_NULL;
        return str_is(h->method, "OPTIONS");
    }
    if (str_starts(h->target, STR("/"))) {
        split_query(h, h->target);
        return true;
    }
    if (h->target.len > 7 && str_ieq(str_n(h->target.p, 7), STR("http://")))
        rest = str_from(h->target, 7);
    else if (h->target.len > 8 && str_ieq(str_n(h->target.p, 8), STR("https://")))
        rest = str_from(h->target, 8);
    else
        return false;
    for (i = 0; i < rest.len && rest.p[i] != '/' && rest.p[i] != '?'; i++)
        ;
    *ret_authority = str_n(rest.p, i);
    split_query(h, str_from(rest, i));
    return host_valid(*ret_authority);
}

/* Exactly one Host in HTTP/1.1, at most one in 1.0, and no other host in the target. */
static enum http_fault check_host(struct http_head *h, struct str authority)
{
    unsigned n;
    const struct http_header *host = http_head_find(h, "host", &n);

    h->host = authority;
    if (n > 1)
        return HTTP_FAULT_HOST_MANY;
    if (n == 0)
        return h->minor == 1 ? HTTP_FAULT_HOST_MISSING : HTTP_FAULT_NONE;
    if (!host_valid(host->value))
        return HTTP_FAULT_HOST_FORM;
    if (!str_empty(authority) && !str_ieq(authority, host->value))
        return HTTP_FAULT_HOST_MISMATCH;
    h->host = host->value;
    return HTTP_FAULT_NONE;
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

static enum step request_line(struct cursor *c, struct http_head *h, struct str *ret_authority)
{
    const char *start = c->p;
    enum step s;

    line_begin(c, HTTP_FAULT_TARGET_LONG);
    c->p = skip_token(c->p, c->limit, TOKEN);
    h->method = str_n(start, (size_t)(c->p - start));
    if (h->method.len > HTTP_METHOD_MAX)
        return refuse(c, HTTP_FAULT_METHOD);
    if (c->p == c->limit)
        return ran_out(c);
    if (*c->p != ' ' || h->method.len == 0)
        return refuse(c, HTTP_FAULT_METHOD);

    start = ++c->p;
    c->p = skip_target(c->p, c->limit);
    h->target = str_n(start, (size_t)(c->p - start));
    if (c->p == c->limit)
        return ran_out(c);
    if (*c->p != ' ')
        return refuse(c, *c->p == '\r' || *c->p == '\n' ? HTTP_FAULT_VERSION_FORM : HTTP_FAULT_TARGET_CHAR);
    if (h->target.len == 0)
        return refuse(c, HTTP_FAULT_TARGET_FORM);
    c->p++;

    s = version(c, &h->minor);
    if (s == GO)
        s = line_end(c, HTTP_FAULT_VERSION_FORM);
    if (s == GO && !split_target(h, ret_authority))
        return refuse(c, HTTP_FAULT_TARGET_FORM);
    return s;
}

static enum step status_line(struct cursor *c, struct http_head *h)
{
    const char *start;
    enum step s;

    line_begin(c, HTTP_FAULT_LINE_LONG);
    s = version(c, &h->minor);
    if (s != GO)
        return s;
    if (c->p == c->limit)
        return ran_out(c);
    if (*c->p != ' ')
        return refuse(c, HTTP_FAULT_VERSION_FORM);
    start = ++c->p;
    for (unsigned i = 0; i < 3; i++, c->p++) {
        if (c->p == c->limit)
            return ran_out(c);
        if (*c->p < (i == 0 ? '1' : '0') || *c->p > '9')
            return refuse(c, HTTP_FAULT_STATUS);
    }
    h->status = (start[0] - '0') * 100 + (start[1] - '0') * 10 + (start[2] - '0');
    h->reason = STR_NULL;
    if (c->p < c->limit && *c->p == ' ') {
        start = ++c->p;
        c->p = skip_value(c->p, c->limit);
        h->reason = str_n(start, (size_t)(c->p - start));
    }
    return line_end(c, HTTP_FAULT_STATUS);
}

static void head_begin(struct cursor *c, struct str in, struct http_head *h)
{
    *c = (struct cursor){ .base = in.p, .p = in.p, .end = in.p + in.len };
    h->method = h->target = h->path = h->query = h->host = h->reason = STR_NULL;
    h->status = 0;
    h->minor = 0;
    h->n_headers = 0;
    h->marks = h->again = 0;
}

static int head_end(const struct cursor *c, enum step s, enum http_fault *why)
{
    if (s == MORE)
        return 0;
    if (s == BAD) {
        ASSERT(c->fault != HTTP_FAULT_NONE);
        *why = c->fault;
        return -1;
    }
    ASSERT(s == END && c->p > c->base && c->p - c->base <= HTTP_HEAD_MAX);
    return (int)(c->p - c->base);
}

int http_parse_request_head(struct str in, struct http_head *ret, enum http_fault *why)
{
    struct str authority = STR_NULL;
    struct cursor c;
    enum step s;

    if (in.len == 0)
        return 0;
    head_begin(&c, in, ret);
    s = request_line(&c, ret, &authority);
    if (s == GO)
        s = fields(&c, ret, true);
    if (s == END) {
        c.fault = check_host(ret, authority);
        if (c.fault != HTTP_FAULT_NONE)
            s = BAD;
    }
    return head_end(&c, s, why);
}

int http_parse_response_head(struct str in, struct http_head *ret, enum http_fault *why)
{
    struct cursor c;
    enum step s;

    if (in.len == 0)
        return 0;
    head_begin(&c, in, ret);
    s = status_line(&c, ret);
    if (s == GO)
        s = fields(&c, ret, false);
    return head_end(&c, s, why);
}

bool http_head_worth(struct str in, size_t seen)
{
    enum { GRAIN = 4096 };      /* divides both limits: passing one passes a multiple of it */

    STATIC_ASSERT(HTTP_LINE_MAX % GRAIN == 0 && HTTP_HEAD_MAX % GRAIN == 0, "a passed limit would go unnoticed");
    ASSERT(seen <= in.len);
    if (seen == 0 || in.len / GRAIN != seen / GRAIN)
        return true;
    return memchr(in.p + seen, '\n', in.len - seen) != NULL;
}
