/*
 * json_write.c -- tree to text: compact, pretty, canonical
 *
 * The three share strings and scalars.  A string known to be plain (parsed without escapes) is copied in one piece;
 * others are scanned, and whatever they hold the output is valid: quotes, backslashes and controls are escaped in the
 * shortest way (RFC 8785 3.2.2.2), a byte that is not UTF-8 becomes U+FFFD.
 *
 * Fails in one way, out->overflow: the buffer's limit, or a tree deeper than JSON_DEPTH_MAX.
 */
#include <stdlib.h>

#include "base/check.h"
#include "json/json_writer.h"

bool writer_grow(struct writer *w, size_t n)
{
    writer_stop(w);
    if (!buf_reserve(w->b, n)) {
        w->end = w->p;              /* nothing more is taken, not even what would fit */
        return false;
    }
    writer_start(w, w->b);
    return true;
}

/* --- strings ------------------------------------------------------------------------------------------------ */

/* A control character. */
static void write_escape(struct writer *w, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = { '\\', 0, '0', '0', hex[c >> 4], hex[c & 15] };
    size_t n = 2;

    switch (c) {
    case '\b': text[1] = 'b'; break;
    case '\f': text[1] = 'f'; break;
    case '\n': text[1] = 'n'; break;
    case '\r': text[1] = 'r'; break;
    case '\t': text[1] = 't'; break;
    default:
        text[1] = 'u';
        n = sizeof(text);
    }
    write_bytes(w, text, n);
}

#ifdef JSON_SSE2
enum { STEP_IN = 16, STEP_OUT = 16 + 1 };       /* the most a step of copy_quoting() reads and writes */

/*
 * Copies with a backslash before each quote and backslash, up to a control or multibyte sequence, or until less than a
 * step is left (there is one when it is called); answers where it stopped.  Sixteen bytes are stored whatever is among
 * them: what stands behind the first special one is written over by what comes next.  So JSON inside a string, with a
 * quote every few bytes, costs one such step per quote.
 */
static inline const char *copy_quoting(struct writer *w, const char *p, const char *end)
{
    const char *last = end - STEP_IN;
    char *to = w->p, *to_last = w->end - STEP_OUT;

    while (p <= last && to <= to_last) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned n = plain_run(v);

        _mm_storeu_si128((__m128i *)(void *)to, v);
        to += n;
        p += n;
        if (n == 16)
            continue;
        if (*p != '"' && *p != '\\')
            break;
        to[0] = '\\';
        to[1] = *p++;
        to += 2;
    }
    w->p = to;
    return p;
}
#endif

/* Copies up to the first byte that needs more than that, or to the end; answers where it stopped. */
static inline const char *copy_plain(struct writer *w, const char *p, const char *end)
{
    size_t left;

#ifdef JSON_SSE2
    if ((size_t)(end - p) >= STEP_IN && (size_t)(w->end - w->p) >= STEP_OUT)
        p = copy_quoting(w, p, end);
#endif
    left = (size_t)(end - p);
    if (left > FEW || !few_plain(p, left))
        left = (size_t)(scan_special(p, end) - p);
    write_bytes(w, p, left);
    return p + left;
}

/* The inside of a literal. */
void write_part(struct writer *w, struct str s)
{
    const char *p = s.p, *end = s.p + s.len;

    while ((p = copy_plain(w, p, end)) < end) {
        size_t n = 1;

        if (*p == '"' || *p == '\\') {
            const char pair[2] = { '\\', *p };

            write_bytes(w, pair, 2);
        } else if ((unsigned char)*p < 0x80) {
            write_escape(w, (unsigned char)*p);
        } else if ((n = utf8_multibyte((const unsigned char *)p, (const unsigned char *)end))) {
            write_bytes(w, p, n);
        } else {
            write_bytes(w, "\xef\xbf\xbd", 3);
            n = 1;
        }
        p += n;
    }
}

NOINLINE void write_string_slow(struct writer *w, struct str s, bool plain, bool is_key)
{
    write_c(w, '"');
    if (plain)
        write_bytes(w, s.p, s.len);
    else if (room(w, s.len))
        write_part(w, s);
    write_c(w, '"');
    if (is_key)
        write_c(w, ':');
}

/* Is it short, and as it must be written? `plain`: that it is, is known. */
static inline bool is_few(struct str s, bool plain)
{
    return s.len <= FEW && (plain || few_plain(s.p, s.len));
}

static inline char *put_literal(char *to, struct str s)
{
    *to++ = '"';
    to = put_few(to, s.p, s.len);
    *to++ = '"';
    return to;
}

/* The literal, and a colon behind it if it is a key. */
static inline void write_string(struct writer *w, struct str s, bool plain, bool is_key)
{
    char *to = w->p;

    if ((size_t)(w->end - to) < s.len + 3 || !is_few(s, plain)) {
        write_string_slow(w, s, plain, is_key);
        return;
    }
    to = put_literal(to, s);
    if (is_key)
        *to++ = ':';
    w->p = to;
}

static NOINLINE void add_json_str_slow(struct buf *out, struct str s)
{
    struct writer w;

    writer_start(&w, out);
    write_string_slow(&w, s, false, false);
    writer_stop(&w);
}

/* Flat: the most frequent of all, and for short texts done in fewer instructions than calls take. */
__attribute__((flatten)) void buf_add_json_str(struct buf *out, struct str s)
{
    if (out->cap - out->len < s.len + 2 || out->overflow || !is_few(s, false)) {
        add_json_str_slow(out, s);
        return;
    }
    put_literal(out->p + out->len, s);
    out->len += s.len + 2;
}

void buf_add_json_part(struct buf *out, struct str s)
{
    struct writer w;

    writer_start(&w, out);
    write_part(&w, s);
    writer_stop(&w);
}

/* --- values ------------------------------------------------------------------------------------------------- */

static inline void write_key(struct writer *w, const struct json *j)
{
    write_string(w, json_key(j), j->flags & F_KEY_PLAIN, true);
}

/* Everything but containers; NULL is null. */
static inline void write_scalar(struct writer *w, const struct json *j)
{
    switch (json_type(j)) {
    case JSON_NULL:
    case JSON_NONE:
        write_bytes(w, "null", 4);
        return;
    case JSON_BOOL:
        if (j->u.b)
            write_bytes(w, "true", 4);
        else
            write_bytes(w, "false", 5);
        return;
    case JSON_INT:
    case JSON_NUMBER:
        write_bytes(w, j->v.raw, j->len);
        return;
    case JSON_STRING:
        write_string(w, json_str(j), j->flags & F_PLAIN, false);
        return;
    case JSON_RAW:
        write_bytes(w, j->u.s, j->len);
        return;
    case JSON_ARRAY:
    case JSON_OBJECT:
        break;
    }
    UNREACHABLE();
}

static void write_compact(struct writer *w, const struct json *j, unsigned depth)
{
    bool object = json_is(j, JSON_OBJECT);
    const struct json *m;

    if (!is_container(j)) {
        write_scalar(w, j);
        return;
    }
    if (depth == JSON_DEPTH_MAX) {
        too_deep(w);
        return;
    }
    write_c(w, object ? '{' : '[');
    for (m = json_first(j); m; m = m->next) {
        if (object)
            write_key(w, m);
        if (is_container(m))
            write_compact(w, m, depth + 1);
        else
            write_scalar(w, m);
        if (m->next)
            write_c(w, ',');
    }
    write_c(w, object ? '}' : ']');
}

void json_write(struct buf *out, const struct json *j)
{
    struct writer w;

    writer_start(&w, out);
    write_compact(&w, j, 0);
    writer_stop(&w);
}

void buf_add_json_strs(struct buf *out, const struct str *v, size_t n)
{
    buf_add_c(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_c(out, ',');
        buf_add_json_str(out, v[i]);
    }
    buf_add_c(out, ']');
}

/* --- pretty ------------------------------------------------------------------------------------------------- */

static void write_line(struct writer *w, unsigned depth)
{
    write_c(w, '\n');
    while (depth--)
        write_bytes(w, "  ", 2);
}

static void write_pretty(struct writer *w, const struct json *j, unsigned depth)
{
    bool object = json_is(j, JSON_OBJECT);
    const struct json *m;

    if (!is_container(j)) {
        write_scalar(w, j);
        return;
    }
    if (depth == JSON_DEPTH_MAX) {
        too_deep(w);
        return;
    }
    write_c(w, object ? '{' : '[');
    for (m = json_first(j); m; m = m->next) {
        write_line(w, depth + 1);
        if (object) {
            write_key(w, m);
            write_c(w, ' ');
        }
        write_pretty(w, m, depth + 1);
        if (m->next)
            write_c(w, ',');
    }
    if (json_len(j))
        write_line(w, depth);
    write_c(w, object ? '}' : ']');
}

void json_write_pretty(struct buf *out, const struct json *j)
{
    struct writer w;

    writer_start(&w, out);
    write_pretty(&w, j, 0);
    writer_stop(&w);
}

/* --- canonical ---------------------------------------------------------------------------------------------- */

/*
 * Order by UTF-16 code units is order by bytes of UTF-8 but for one thing: characters past U+FFFF (lead bytes F0 to F4)
 * are written with surrogates, D800 to DFFF, and so come before U+E000 to U+FFFF (lead bytes EE and EF).
 */
static int key_order(struct str a, struct str b)
{
    size_t n = a.len < b.len ? a.len : b.len, i = 0;
    unsigned char x, y;

    while (i < n && a.p[i] == b.p[i])
        i++;
    if (i == n)
        return (a.len > b.len) - (a.len < b.len);
    x = (unsigned char)a.p[i];
    y = (unsigned char)b.p[i];
    if (x >= 0xf0 && (y == 0xee || y == 0xef))
        return -1;
    if (y >= 0xf0 && (x == 0xee || x == 0xef))
        return 1;
    return x < y ? -1 : 1;
}

static int member_order(const void *a, const void *b)
{
    const struct json *const *x = a, *const *y = b;

    return key_order(json_key(*x), json_key(*y));
}

void members_sort(const struct json **v, size_t n)
{
    if (n > OBJECT_SMALL) {
        qsort(v, n, sizeof(*v), member_order);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        const struct json *m = v[i];
        size_t k = i;

        for (; k > 0 && key_order(json_key(v[k - 1]), json_key(m)) > 0; k--)
            v[k] = v[k - 1];
        v[k] = m;
    }
}

/* Members of the objects being written, the innermost last: one heap stack, so that depth costs little of a task's. */
struct members {
    const struct json **v;
    size_t n, cap;
    const struct json *first[OBJECT_SMALL];
};

static void members_push(struct members *ms, const struct json *obj)
{
    while (ms->cap - ms->n < obj->len) {
        bool inside = ms->v == ms->first;
        size_t cap = ms->cap * 2;
        const struct json **v = realloc(inside ? NULL : ms->v, cap * sizeof(*v));

        ASSERT(v != NULL);
        if (inside)
            memcpy(v, ms->first, sizeof(ms->first));
        ms->v = v;
        ms->cap = cap;
    }
    for (const struct json *m = json_first(obj); m; m = m->next)
        ms->v[ms->n++] = m;
}

static void write_canonical(struct writer *w, struct members *ms, const struct json *j, unsigned depth);

/* A fragment is whatever its maker wrote: it is read and put in order. What cannot be read cannot be canonical. */
static void canonical_raw(struct writer *w, struct members *ms, const struct json *j, unsigned depth)
{
    struct arena a;
    struct json *tree;

    arena_init(&a, (size_t)j->len * 64 + 16384);
    if (json_parse(&a, str_n(j->u.s, j->len), &(struct json_limits){ .depth_max = JSON_DEPTH_MAX }, &tree, NULL) == OK)
        write_canonical(w, ms, tree, depth);
    else
        too_deep(w);
    arena_release(&a);
}

static void canonical_object(struct writer *w, struct members *ms, const struct json *j, unsigned depth)
{
    size_t base = ms->n;

    members_push(ms, j);
    members_sort(ms->v + base, j->len);
    write_c(w, '{');
    for (size_t i = 0; i < j->len; i++) {
        if (i)
            write_c(w, ',');
        write_key(w, ms->v[base + i]);
        write_canonical(w, ms, ms->v[base + i], depth + 1);
    }
    write_c(w, '}');
    ms->n = base;
}

static void write_canonical(struct writer *w, struct members *ms, const struct json *j, unsigned depth)
{
    if (json_is_number(j)) {
        writer_stop(w);
        number_canonical(w->b, j);
        writer_start(w, w->b);
    } else if (json_is(j, JSON_RAW)) {
        canonical_raw(w, ms, j, depth);
    } else if (!is_container(j)) {
        write_scalar(w, j);
    } else if (depth == JSON_DEPTH_MAX) {
        too_deep(w);
    } else if (j->type == JSON_OBJECT) {
        canonical_object(w, ms, j, depth);
    } else {
        write_c(w, '[');
        for (const struct json *m = json_first(j); m; m = m->next) {
            write_canonical(w, ms, m, depth + 1);
            if (m->next)
                write_c(w, ',');
        }
        write_c(w, ']');
    }
}

void json_canonical(struct buf *out, const struct json *j)
{
    UNSET struct members ms;
    struct writer w;

    ms.v = ms.first;
    ms.n = 0;
    ms.cap = ARRAY_LEN(ms.first);
    writer_start(&w, out);
    write_canonical(&w, &ms, j, 0);
    writer_stop(&w);
    if (ms.v != ms.first)
        free(ms.v);
}
