/*
 * json_parse.c -- text to tree, in one pass
 *
 * One loop over the text, no recursion: while a container is open its `next` holds its parent and its `v` the marks of
 * its parent's keys, so that depth costs no stack (calls run on small ones).  Nodes come from the arena in blocks.  A
 * string without escapes stays in the text; one with escapes is decoded into the arena.  Every position is checked
 * against `end` before it is read: the text need not end in NUL, and nothing beside it is touched.
 *
 * What is refused and where: syntax, in the loop; UTF-8, controls and escapes, in string_*(); range and length of
 * numbers, in number(); duplicate keys, when their object closes, in keys_differ().
 *
 * Fails with E_JSON_MALFORMED, or E_CALL_TOO_LARGE when the arena or a limit on size is exceeded.
 */
#include "json/json_internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/escape.h"
#include "base/map.h"

enum { STEP = 16 };                     /* bytes looked at together */

struct parser {
    const char *start, *end;
    const char *step_last;              /* the last place with STEP bytes before `end`; NULL in shorter texts */
    struct arena *a;
    struct json *node, *node_end;       /* the rest of the current block */
    uint32_t block, nodes_left;
    bool nul_keys;
    uint32_t depth, depth_max;
    struct json outermost;              /* no node, of no type: the root is its only child */
    struct str text;                    /* a string that string_slow() read, and whether it is the text itself */
    bool plain;
    const struct json **table;          /* scratch of keys_differ() */
    size_t table_cap;
    enum err e;
    const char *message, *at;
};

/* Every parse function answers where to go on, or NULL when this has been called. Cold: what leads here is compiled
 * apart, so that the loop is one piece. */
static NOINLINE __attribute__((cold)) const char *fail_with(struct parser *ps, enum err e, const char *at,
    const char *message)
{
    ps->e = e;
    ps->at = at;
    ps->message = message;
    return NULL;
}

static NOINLINE __attribute__((cold)) const char *fail(struct parser *ps, const char *at, const char *message)
{
    return fail_with(ps, E_JSON_MALFORMED, at, message);
}

static NOINLINE const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* Compact text has no space between tokens: one comparison then, none where what is expected is looked for first. */
static inline const char *space(const char *p, const char *end)
{
    return p < end && (unsigned char)*p <= ' ' ? skip_space(p, end) : p;
}

/* Where the next child of the innermost open container goes. */
struct place {
    struct json *top;                   /* that container */
    struct json **next;                 /* its `first`, or its last child's `next` */
    uint64_t marks;                     /* of its keys */
};

/* False: all containers are closed, or none has been opened yet. */
static inline bool is_open(const struct place *at)
{
    return at->top->type != JSON_NONE;
}

/* --- nodes -------------------------------------------------------------------------------------------------- */

static NOINLINE bool node_block(struct parser *ps, const char *at)
{
    uint32_t n = ps->block < ps->nodes_left ? ps->block : ps->nodes_left;

    if (n == 0) {
        fail_with(ps, E_CALL_TOO_LARGE, at, "too many values");
        return false;
    }
    ps->node = arena_alloc(ps->a, n * sizeof(*ps->node));
    if (!ps->node) {
        fail_with(ps, E_CALL_TOO_LARGE, at, "the tree needs more memory than allowed");
        return false;
    }
    ps->node_end = ps->node + n;
    ps->nodes_left -= n;
    if (ps->block < 256)
        ps->block *= 2;
    return true;
}

/* --- strings ------------------------------------------------------------------------------------------------ */

static int hex4(const char *p, const char *end)
{
    int v = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(p[i]);

        if (digit < 0)
            return -1;
        v = v << 4 | digit;
    }
    return v;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3f));
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* p stands behind "\u". Six bytes of text make at most three of UTF-8, twelve make four. */
static const char *escape_unicode(struct parser *ps, const char *p, char **to)
{
    int c = hex4(p, ps->end), low;

    if (c < 0)
        return fail(ps, p, "\\u needs four hexadecimal digits");
    p += 4;
    if (c >= 0xdc00 && c <= 0xdfff)
        return fail(ps, p - 6, "a low surrogate without a high one");
    if (c >= 0xd800 && c <= 0xdbff) {
        low = ps->end - p >= 6 && p[0] == '\\' && p[1] == 'u' ? hex4(p + 2, ps->end) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return fail(ps, p - 6, "a high surrogate without a low one");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        p += 6;
    }
    *to = put_utf8(*to, (uint32_t)c);
    return p;
}

/* p stands on a backslash. */
static const char *escape(struct parser *ps, const char *p, char **to)
{
    char c;

    if (ps->end - p < 2)
        return fail(ps, ps->end, "the string does not end");
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
        c = p[1];
        break;
    case 'b': c = '\b'; break;
    case 'f': c = '\f'; break;
    case 'n': c = '\n'; break;
    case 'r': c = '\r'; break;
    case 't': c = '\t'; break;
    case 'u':
        return escape_unicode(ps, p + 2, to);
    default:
        return fail(ps, p, "unknown escape");
    }
    *(*to)++ = c;
    return p + 2;
}

/* p stands on a byte that scan_special() stopped at and that is neither quote nor backslash: multibyte, or refused. */
static NOINLINE const char *string_multibyte(struct parser *ps, const char *p)
{
    const unsigned char *u = (const unsigned char *)p, *end = (const unsigned char *)ps->end;

    if (u == end)
        return fail(ps, p, "the string does not end");
    if (*u < 0x20)
        return fail(ps, p, "a control character in a string must be escaped");
    while (u < end && *u >= 0x80) {
        size_t n = utf8_multibyte(u, end);

        if (!n)
            return fail(ps, (const char *)u, "invalid UTF-8");
        u += n;
    }
    return (const char *)u;
}

/* Where the string's closing quote is, or `end`; p is inside of it. */
static const char *string_end(const char *p, const char *end)
{
    for (;;) {
        p = scan_special(p, end);
        if (p == end || *p == '"')
            return p;
        if (*p == '\\') {
            if (end - p < 2)
                return end;
            p++;
        }
        p++;
    }
}

/* Copies bytes that need no decoding. There is room at *to for all of [p, end): nothing is written past that. */
static inline const char *copy_plain(const char *p, const char *end, char **to)
{
    char *out = *to;

#ifdef JSON_SSE2
    for (; end - p >= 16; p += 16, out += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned n = plain_run(v);

        _mm_storeu_si128((__m128i *)(void *)out, v);
        if (n < 16) {
            *to = out + n;
            return p + n;
        }
    }
#endif
    while (p < end && !byte_special((unsigned char)*p))
        *out++ = *p++;
    *to = out;
    return p;
}

/* `from` is where the string starts, `p` its first backslash: everything between is known to be good. */
static NOINLINE const char *string_decode(struct parser *ps, const char *from, const char *p)
{
    const char *close = string_end(p, ps->end), *next;
    char *bytes, *to;

    if (close == ps->end)
        return fail(ps, close, "the string does not end");
    bytes = arena_alloc(ps->a, (size_t)(close - from));
    if (!bytes)
        return fail_with(ps, E_CALL_TOO_LARGE, from, "the tree needs more memory than allowed");
    memcpy(bytes, from, (size_t)(p - from));
    to = bytes + (p - from);
    while (p < close) {
        if (*p == '\\') {
            p = escape(ps, p, &to);
            if (!p)
                return NULL;
        } else if (byte_special((unsigned char)*p)) {
            next = string_multibyte(ps, p);
            if (!next)
                return NULL;
            memcpy(to, p, (size_t)(next - p));
            to += next - p;
            p = next;
        } else {
            p = copy_plain(p, close, &to);
        }
    }
    ASSERT(p == close && to - bytes <= close - from);
    ps->text = str_n(bytes, (size_t)(to - bytes));
    ps->plain = false;
    return close + 1;
}

/* `from` is where the string starts, and up to `p` it is plain. */
static NOINLINE const char *string_slow(struct parser *ps, const char *from, const char *p)
{
    for (;;) {
        p = scan_special(p, ps->end);
        if (p < ps->end && *p == '"')
            break;
        if (p < ps->end && *p == '\\')
            return string_decode(ps, from, p);
        p = string_multibyte(ps, p);
        if (!p)
            return NULL;
    }
    ps->text = str_n(from, (size_t)(p - from));
    ps->plain = true;
    return p + 1;
}

/* p stands behind the opening quote; the answer behind the closing one. *plain: no escape, the text itself is meant. */
static inline const char *string(struct parser *ps, const char *p, struct str *ret, bool *plain)
{
    const char *from = p;

#ifdef JSON_SSE2
    for (; p <= ps->step_last; p += STEP) {
        unsigned special = special_at(p);

        if (!special)
            continue;
        p += __builtin_ctzll(special);
        if (*p != '"')
            break;
        *ret = str_n(from, (size_t)(p - from));
        *plain = true;
        return p + 1;
    }
#endif
    p = string_slow(ps, from, p);
    *ret = ps->text;
    *plain = ps->plain;
    return p;
}

/* --- numbers ------------------------------------------------------------------------------------------------ */

static inline bool is_digit(const char *p, const char *end)
{
    return p < end && (unsigned char)(*p - '0') <= 9;
}

/* The digits of a number as they are read; exact while no more than 19 count. */
struct mantissa {
    uint64_t v;
    uint32_t n;                 /* digits that count: from the first that is not zero */
    int64_t exponent;
};

static inline const char *digits(const char *p, const char *end, struct mantissa *m)
{
    for (; is_digit(p, end); p++) {
        m->n += m->n || *p != '0';
        if (m->n <= 19)
            m->v = m->v * 10 + (uint64_t)(*p - '0');
    }
    return p;
}

static const char *exponent(struct parser *ps, const char *p, int64_t *ret)
{
    const int64_t bound = 100000000;
    bool negative;
    int64_t v = 0;

    p++;
    negative = p < ps->end && *p == '-';
    if (p < ps->end && (*p == '-' || *p == '+'))
        p++;
    if (!is_digit(p, ps->end))
        return fail(ps, p, "a digit is missing in the exponent");
    for (; is_digit(p, ps->end); p++)
        v = v >= bound ? bound : v * 10 + (*p - '0');
    *ret += negative ? -v : v;
    return p;
}

/* m * 10^exponent is exact in doubles, and rounded once, when both factors are. Everything else goes the long way. */
static double nearest(const struct mantissa *m, struct str raw, bool negative)
{
    static const double power[] = { 1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14,
        1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    double d;

    if (FLT_EVAL_METHOD != 0 || m->n > 19 || m->v > (uint64_t)1 << 53 || m->exponent < -22 || m->exponent > 22)
        return number_to_double(raw);
    d = (double)m->v;
    d = m->exponent < 0 ? d / power[-m->exponent] : d * power[m->exponent];
    return negative ? -d : d;
}

/* The rest of a number that is not a plain integer of 64 bits; p stands behind its integer part. */
static NOINLINE const char *number_slow(struct parser *ps, const char *from, const char *p, struct mantissa *m,
    struct json *j)
{
    const char *point;
    bool negative = *from == '-';

    if (p < ps->end && *p == '.') {
        point = ++p;
        if (!is_digit(p, ps->end))
            return fail(ps, p, "a digit is missing behind the point");
        p = digits(p, ps->end, m);
        m->exponent -= p - point;
    }
    if (p < ps->end && (*p == 'e' || *p == 'E')) {
        p = exponent(ps, p, &m->exponent);
        if (!p)
            return NULL;
    }
    if (p - from > JSON_NUMBER_MAX)
        return fail(ps, from, "the number has too many digits");
    j->type = JSON_NUMBER;
    j->v.raw = from;
    j->len = (uint32_t)(p - from);
    j->u.d = nearest(m, str_n(from, j->len), negative);
    if (isinf(j->u.d))
        return fail(ps, from, "the number is out of range");
    return p;
}

/* p stands on '-' or a digit. */
static const char *number(struct parser *ps, const char *p, struct json *j)
{
    const char *from = p, *first;
    struct mantissa m = { 0 };

    p += *p == '-';
    if (!is_digit(p, ps->end))
        return fail(ps, p, "a digit is missing");
    first = p;
    p = *p == '0' ? p + 1 : digits(p, ps->end, &m);
    if (*first == '0' && is_digit(p, ps->end))
        return fail(ps, first, "a number may not start with a zero");
    if (m.n > 19 || m.v > (uint64_t)INT64_MAX + (*from == '-') || (p < ps->end && (*p == '.' || (*p | 0x20) == 'e')))
        return number_slow(ps, from, p, &m, j);
    j->type = JSON_INT;
    j->u.i = (int64_t)(*from == '-' ? 0 - m.v : m.v);
    j->v.raw = from;
    j->len = (uint32_t)(p - from);
    return p;
}

/* --- keys --------------------------------------------------------------------------------------------------- */

static inline bool same_key(const struct json *a, const struct json *b)
{
    return a->key_len == b->key_len && same_bytes(a->key, b->key, a->key_len);
}

/* A cheap mark of 64: keys with different marks differ, and the keys of most objects all do. */
static inline unsigned key_mark(struct str key)
{
    const unsigned char *k = (const unsigned char *)key.p;
    uint32_t n = (uint32_t)key.len, h = 0;

    if (__builtin_expect(n >= 4, 1))
        memcpy(&h, k + n - 4, 4);
    else if (n > 0)
        h = (uint32_t)k[0] << 16 | (uint32_t)k[n / 2] << 8 | k[n - 1];
    return ((h + n) * 0x9e3779b1u) >> 26;
}

static const struct json *duplicate_small(const struct json *obj)
{
    for (const struct json *m = obj->u.first; m; m = m->next)
        for (const struct json *k = obj->u.first; k != m; k = k->next)
            if (same_key(k, m))
                return m;
    return NULL;
}

static bool table_room(struct parser *ps, size_t n)
{
    size_t cap = 64;

    while (cap < n * 2)
        cap *= 2;
    if (cap > ps->table_cap) {
        free(ps->table);
        ps->table = malloc(cap * sizeof(*ps->table));
        ps->table_cap = ps->table ? cap : 0;
    }
    return ps->table != NULL;
}

/* A table keyed by a secret hash: a peer cannot choose keys that collide. */
static const struct json *duplicate_large(struct parser *ps, const struct json *obj)
{
    size_t mask = 63;

    while (mask + 1 < (size_t)obj->len * 2)
        mask = mask * 2 + 1;
    ASSERT(mask < ps->table_cap);
    memset(ps->table, 0, (mask + 1) * sizeof(*ps->table));
    for (const struct json *m = obj->u.first; m; m = m->next) {
        size_t i = hash_bytes(m->key, m->key_len) & mask;

        for (; ps->table[i]; i = (i + 1) & mask)
            if (same_key(ps->table[i], m))
                return m;
        ps->table[i] = m;
    }
    return NULL;
}

/* Of an object in which two keys have one mark. */
static NOINLINE bool keys_differ(struct parser *ps, struct json *obj, const char *at)
{
    const struct json *twin;

    obj->flags &= (uint8_t)~F_ALIKE;
    if (obj->len <= OBJECT_SMALL) {
        twin = duplicate_small(obj);
    } else {
        if (!table_room(ps, obj->len)) {
            fail_with(ps, E_CALL_TOO_LARGE, at, "the tree needs more memory than allowed");
            return false;
        }
        twin = duplicate_large(ps, obj);
    }
    if (!twin)
        return true;
    /* a key with escapes is not in the text: the end of the object is the best place known */
    fail(ps, twin->flags & F_KEY_PLAIN ? twin->key : at, "two members have the same key");
    return false;
}

/* "key" and colon of a member; p stands before it, the answer before its value. */
static inline const char *key(struct parser *ps, const char *p, struct json *j, struct place *at)
{
    const char *from;
    struct str s;
    uint64_t mark;
    bool plain;

    if (p == ps->end || *p != '"') {
        p = space(p, ps->end);
        if (p == ps->end || *p != '"')
            return fail(ps, p, p == ps->end ? "the object does not end" : "a key in quotes is expected");
    }
    from = p;
    p = string(ps, p + 1, &s, &plain);
    if (!p)
        return NULL;
    if (s.len > JSON_KEY_MAX)
        return fail_with(ps, E_CALL_TOO_LARGE, from, "the key is too long");
    if (!plain && !ps->nul_keys && memchr(s.p, 0, s.len))
        return fail(ps, from, "U+0000 in a key");
    mark = (uint64_t)1 << key_mark(s);
    if (at->marks & mark)
        at->top->flags |= F_ALIKE;
    at->marks |= mark;
    j->key = s.p;
    j->key_len = (uint16_t)s.len;
    j->flags = (uint8_t)(F_CHILD | plain * F_KEY_PLAIN);
    if (p == ps->end || *p != ':') {
        p = space(p, ps->end);
        if (p == ps->end || *p != ':')
            return fail(ps, p, "a colon is expected");
    }
    return p + 1;
}

/* --- values ------------------------------------------------------------------------------------------------- */

static const char *word(struct parser *ps, const char *p, const char *text, size_t n)
{
    if ((size_t)(ps->end - p) < n || memcmp(p, text, n) != 0)
        return fail(ps, p, "a value is expected");
    return p + n;
}

static inline const char *string_value(struct parser *ps, const char *p, struct json *j)
{
    struct str s;
    bool plain;

    p = string(ps, p + 1, &s, &plain);
    if (!p)
        return NULL;
    j->type = JSON_STRING;
    j->flags |= (uint8_t)(plain * F_PLAIN);
    j->u.s = s.p;
    j->len = (uint32_t)s.len;
    return p;
}

/* Neither a string nor a container. */
static inline const char *scalar(struct parser *ps, const char *p, struct json *j)
{
    switch (*p) {
    case 't':
    case 'f':
        j->type = JSON_BOOL;
        j->len = 0;
        j->u.b = *p == 't';
        return *p == 't' ? word(ps, p, "true", 4) : word(ps, p, "false", 5);
    case 'n':
        j->type = JSON_NULL;
        j->len = 0;
        return word(ps, p, "null", 4);
    case '-':
    case '0' ... '9':
        return number(ps, p, j);
    default:
        return fail(ps, p, "a value is expected");
    }
}

/* --- containers --------------------------------------------------------------------------------------------- */

/* An empty container, and p behind its bracket. */
static inline const char *container(struct parser *ps, const char *p, struct json *j)
{
    j->type = *p == '{' ? JSON_OBJECT : JSON_ARRAY;
    j->len = 0;
    j->u.first = NULL;
    j->v.last = NULL;
    if (ps->depth == ps->depth_max)
        return fail(ps, p, "nested too deeply");
    return space(p + 1, ps->end);
}

static inline char closing(const struct json *container)
{
    return container->type == JSON_OBJECT ? '}' : ']';
}

static inline void open_container(struct parser *ps, struct place *at, struct json *j)
{
    ps->depth++;
    j->next = at->top;
    j->v.marks = at->marks;
    *at = (struct place){ .top = j, .next = &j->u.first };
}

/* False: two members have one key. */
static inline bool close_container(struct parser *ps, struct place *at, const char *p)
{
    struct json *j = at->top, *parent = j->next;
    uint64_t marks = j->v.marks;

    *at->next = NULL;
    j->v.last = CONTAINER_OF(at->next, struct json, next);      /* there is a child */
    if (j->flags & F_ALIKE && !keys_differ(ps, j, p))
        return false;
    ps->depth--;
    *at = (struct place){ .top = parent, .next = &j->next, .marks = marks };
    return true;
}

/* p stands behind a child, and neither the next one nor the end of its container follows. */
static NOINLINE const char *fail_after(struct parser *ps, const struct json *container, const char *p)
{
    bool object = container->type == JSON_OBJECT;

    if (p == ps->end)
        return fail(ps, p, object ? "the object does not end" : "the array does not end");
    return fail(ps, p, object ? "a comma or } is expected" : "a comma or ] is expected");
}

/* p stands behind a value: closes what closes, and answers where to look for the next value (or key), or `end` when all
 * is closed. */
static inline const char *after_value(struct parser *ps, const char *p, struct place *at)
{
    while (is_open(at)) {
        if (p < ps->end && *p == ',')
            return p + 1;
        p = space(p, ps->end);
        if (p < ps->end && *p == ',')
            return p + 1;
        if (p == ps->end || *p != closing(at->top))
            return fail_after(ps, at->top, p);
        if (!close_container(ps, at, p))
            return NULL;
        p++;
    }
    *at->next = NULL;
    p = space(p, ps->end);
    return p == ps->end ? p : fail(ps, p, "nothing may follow the value");
}

static const char *document(struct parser *ps, const char *p)
{
    struct place at = { .top = &ps->outermost, .next = &ps->outermost.u.first };

    for (;;) {
        struct json *j;

        if (ps->node == ps->node_end && !node_block(ps, p))
            return NULL;
        j = ps->node++;
        *at.next = j;
        at.next = &j->next;
        at.top->len++;
        if (at.top->type == JSON_OBJECT) {
            p = key(ps, p, j, &at);
            if (!p)
                return NULL;
        } else {
            j->key = NULL;
            j->key_len = 0;
            j->flags = is_open(&at) ? F_CHILD : 0;
        }
        if (p == ps->end || *p != '"') {        /* most are strings, and nothing stands before them */
            p = space(p, ps->end);
            if (p == ps->end)
                return fail(ps, p, "a value is expected");
        }
        if (*p == '"') {
            p = string_value(ps, p, j);
        } else if (*p == '{' || *p == '[') {
            p = container(ps, p, j);
            if (!p)
                return NULL;
            if (p == ps->end || *p != closing(j)) {
                open_container(ps, &at, j);
                continue;
            }
            p++;
        } else {
            p = scalar(ps, p, j);
        }
        if (p && p < ps->end && *p == ',' && is_open(&at)) {        /* as after most */
            p++;
            continue;
        }
        if (p)
            p = after_value(ps, p, &at);
        if (!p || !is_open(&at))
            return p;
    }
}

static NOINLINE __attribute__((cold)) void place(const struct parser *ps, struct json_error *where)
{
    const char *line = ps->start;

    *where = (struct json_error){ .offset = (size_t)(ps->at - ps->start), .line = 1, .message = ps->message };
    for (const char *p = ps->start; p < ps->at; p++) {
        if (*p == '\n') {
            where->line++;
            line = p + 1;
        }
    }
    where->column = (uint32_t)(ps->at - line) + 1;
}

enum err json_parse(struct arena *a, struct str text, const struct json_limits *limits, struct json **ret,
    struct json_error *where)
{
    const char *start = text.p ? text.p : "";
    struct parser ps = { .start = start, .end = start + text.len,
        .step_last = text.len >= STEP ? start + text.len - STEP : NULL, .a = a, .depth_max = JSON_DEPTH_DEFAULT,
        .nodes_left = JSON_NODES_DEFAULT, .outermost = { .type = JSON_NONE }, .e = E_INTERNAL, .at = start };

    if (limits && limits->depth_max)
        ps.depth_max = limits->depth_max < JSON_DEPTH_MAX ? limits->depth_max : JSON_DEPTH_MAX;
    if (limits && limits->nodes_max)
        ps.nodes_left = limits->nodes_max;
    ps.nul_keys = limits && limits->nul_keys;
    /* A first block that fits a message of the usual density: a value every 16 bytes. */
    ps.block = text.len < 64 ? 4 : text.len < 4096 ? (uint32_t)(text.len / 16) : 256;

    if (text.len >= UINT32_MAX)
        fail_with(&ps, E_CALL_TOO_LARGE, start, "the text is longer than 4 GiB");
    else if (text.len >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0)
        fail(&ps, start, "a byte order mark is not allowed");
    else if (document(&ps, start))
        ps.e = OK;
    if (ps.table)               /* hardly ever: not even a call */
        free(ps.table);
    if (ps.e == OK) {
        ASSERT(ps.outermost.len == 1 && ps.depth == 0);
        *ret = ps.outermost.u.first;
    } else if (where) {
        place(&ps, where);
    }
    return ps.e;
}
