/* escape.c -- percent-encoding and forms, HTML, what hides */
#include "base/escape.h"

/* ---- URLs and forms ---------------------------------------------------------------------------------------------- */

static const bool is_unreserved[256] = {
    ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['0' ... '9'] = 1, ['-'] = 1, ['.'] = 1, ['_'] = 1, ['~'] = 1,
};

/* Room for all of `s`, encoded, or NULL: where there is not room for anything it could be, what it is is counted. */
static char *percent_room(struct buf *b, struct str s)
{
    size_t escapes = 0;

    if (s.len <= (b->cap - b->len) / 3)
        return buf_reserve(b, 3 * s.len);
    for (size_t i = 0; i < s.len; i++)
        escapes += !is_unreserved[(unsigned char)s.p[i]];
    return buf_reserve(b, s.len + 2 * escapes);
}

void buf_add_percent(struct buf *b, struct str s)
{
    static const char digits[] = "0123456789ABCDEF";
    char *to = s.len ? percent_room(b, s) : NULL;

    if (!to)
        return;
    for (const char *p = s.p, *end = s.len ? p + s.len : p; p < end; p++) {      /* nothing may be NULL */
        unsigned char c = (unsigned char)*p;

        if (is_unreserved[c]) {
            *to++ = (char)c;
        } else {
            *to++ = '%';
            *to++ = digits[c >> 4];
            *to++ = digits[c & 15];
        }
    }
    b->len = (size_t)(to - b->p);
}

static struct str form_decode(struct arena *a, struct str s)
{
    char *z = arena_alloc(a, s.len + 1);
    size_t n = 0;

    for (size_t i = 0; z && i < s.len; i++) {
        if (s.p[i] == '%' && i + 2 < s.len && hex_digit(s.p[i + 1]) >= 0 && hex_digit(s.p[i + 2]) >= 0) {
            z[n++] = (char)(hex_digit(s.p[i + 1]) << 4 | hex_digit(s.p[i + 2]));
            i += 2;
        } else {
            z[n++] = s.p[i] == '+' ? ' ' : s.p[i];
        }
    }
    return str_n(z, n);
}

struct str form_value(struct arena *a, struct str form, const char *name)
{
    struct str pair, key, value;

    while (form.len) {
        if (!str_cut(form, '&', &pair, &form)) {
            pair = form;
            form = STR_NULL;
        }
        if (str_cut(pair, '=', &key, &value) && str_is(form_decode(a, key), name))
            return form_decode(a, value);
    }
    return STR_NULL;
}

/* ---- HTML -------------------------------------------------------------------------------------------------------- */

void buf_add_html(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] && strchr("<>&\"'", s.p[i]))
            buf_addf(b, "&#%d;", s.p[i]);
        else
            buf_add_c(b, s.p[i]);
    }
}

/* ---- terminals --------------------------------------------------------------------------------------------------- */

size_t utf8_first(struct str s, uint32_t *ret)
{
    const unsigned char *u = (const unsigned char *)s.p;
    size_t len = u[0] < 0x80 ? 1 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;

    if (len > s.len || !str_utf8_valid(str_n(s.p, len)))
        return 0;
    *ret = len == 1 ? u[0] : u[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++)
        *ret = *ret << 6 | (u[i] & 0x3f);
    return len;
}

bool char_hides(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x00ad || c == 0x061c || c == 0x180e ||
           (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
           c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe0fff);
}
