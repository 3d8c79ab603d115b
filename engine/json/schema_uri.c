/*
 * schema_uri.c -- resolving a reference against a base URI (RFC 3986, section 5.2)
 *
 *   scheme ":" [ "//" authority ] path [ "?" query ] [ "#" fragment ]
 *
 * Only what identifies a schema is needed: nothing is normalised but dot segments, and nothing is rejected; a reference
 * that is nonsense names a document nobody knows.  A base without scheme is allowed and behaves as a relative path.
 */
#include "base/escape.h"
#include "json/schema_internal.h"

struct uri {
    struct str scheme, authority, path, query;
    bool has_scheme, has_authority, has_query;
};

static bool scheme_char(char c, bool first)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return true;
    return !first && ((c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.');
}

/* The length of the scheme, 0 if there is none. */
static size_t scheme_len(struct str s)
{
    size_t i = 0;

    while (i < s.len && scheme_char(s.p[i], i == 0))
        i++;
    return i > 0 && i < s.len && s.p[i] == ':' ? i : 0;
}

static struct str before(struct str s, const char *stops)
{
    size_t i = 0;

    while (i < s.len && !(s.p[i] && strchr(stops, s.p[i])))
        i++;
    return (struct str){ s.p, i };
}

static struct uri split(struct str s)
{
    struct uri u = { 0 };
    size_t n;

    s = before(s, "#");
    n = scheme_len(s);
    if (n) {
        u.has_scheme = true;
        u.scheme = (struct str){ s.p, n };
        s = str_from(s, n + 1);
    }
    if (str_starts(s, STR("//"))) {
        u.has_authority = true;
        s = str_from(s, 2);
        u.authority = before(s, "/?");
        s = str_from(s, u.authority.len);
    }
    u.path = before(s, "?");
    s = str_from(s, u.path.len);
    if (s.len) {
        u.has_query = true;
        u.query = str_from(s, 1);
    }
    return u;
}

/* Removes "." and ".." segments in place (5.2.4); returns the new length. */
static size_t remove_dots(char *p, size_t len)
{
    size_t out = 0, in = 0;

    while (in < len) {
        struct str rest = { p + in, len - in };
        size_t n;

        if (str_starts(rest, STR("../"))) {
            in += 3;
        } else if (str_starts(rest, STR("./"))) {
            in += 2;
        } else if (str_starts(rest, STR("/./"))) {
            in += 2;
        } else if (str_is(rest, "/.")) {
            p[in + 1] = '/';
            in += 1;
        } else if (str_starts(rest, STR("/../")) || str_is(rest, "/..")) {
            in += rest.len == 3 ? 2 : 3;
            p[in] = '/';
            while (out > 0 && p[--out] != '/')
                ;
        } else if (str_is(rest, ".") || str_is(rest, "..")) {
            in = len;
        } else {
            n = before(str_from(rest, 1), "/").len + 1;
            memmove(p + out, p + in, n);
            out += n;
            in += n;
        }
    }
    return out;
}

/* 5.2.3: the base's path up to its last slash, then the reference's. */
static void add_merged(struct buf *out, const struct uri *base, struct str path)
{
    size_t n = base->path.len;

    if (base->has_authority && n == 0) {
        buf_add_c(out, '/');
    } else {
        while (n > 0 && base->path.p[n - 1] != '/')
            n--;
        buf_add(out, base->path.p, n);
    }
    buf_add_str(out, path);
}

static void add_path(struct buf *out, const struct uri *base, const struct uri *ref)
{
    size_t start = out->len;

    if (ref->has_scheme || ref->has_authority || str_starts(ref->path, STR("/")))
        buf_add_str(out, ref->path);
    else if (ref->path.len == 0) {
        buf_add_str(out, base->path);
        return;
    } else
        add_merged(out, base, ref->path);
    if (!out->overflow && out->len > start)
        out->len = start + remove_dots(out->p + start, out->len - start);
}

struct str uri_resolve(struct arena *a, struct str base_text, struct str ref_text)
{
    struct uri base = split(base_text), ref = split(ref_text);
    struct buf out = BUF_INIT(base_text.len + ref_text.len + 16);
    const struct uri *authority = ref.has_scheme || ref.has_authority ? &ref : &base;
    const struct uri *scheme = ref.has_scheme ? &ref : &base;
    const struct uri *query = authority == &ref || ref.path.len || ref.has_query ? &ref : &base;
    struct str s;

    if (scheme->has_scheme) {
        buf_add_str(&out, scheme->scheme);
        buf_add_c(&out, ':');
    }
    if (authority->has_authority) {
        buf_add_z(&out, "//");
        buf_add_str(&out, authority->authority);
    }
    add_path(&out, &base, &ref);
    if (query->has_query) {
        buf_add_c(&out, '?');
        buf_add_str(&out, query->query);
    }
    s = arena_str(a, buf_str(&out));
    buf_release(&out);
    return s;
}

bool uri_unescape(struct arena *a, struct str s, struct str *ret)
{
    char *p = arena_z(a, s);
    size_t n = 0;

    if (!p)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        int high, low;

        if (s.p[i] != '%') {
            p[n++] = s.p[i];
            continue;
        }
        if (s.len - i < 3)
            return false;
        high = hex_digit(s.p[i + 1]);
        low = hex_digit(s.p[i + 2]);
        if (high < 0 || low < 0 || high + low == 0)
            return false;
        p[n++] = (char)(high * 16 + low);
        i += 2;
    }
    *ret = (struct str){ p, n };
    return str_utf8_valid(*ret);
}
