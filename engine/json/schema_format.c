/*
 * schema_format.c -- format, where it is an assertion
 *
 *   date-time, date, time   RFC 3339, a second 60 only where UTC has one      duration    RFC 3339, appendix A
 *   email                   RFC 5321 mailbox in ASCII                         hostname    RFC 1123
 *   ipv4, ipv6              RFC 2673, RFC 4291 without a zone                 uri         RFC 3986, and uri-reference
 *   uuid                    RFC 4122 text form                                regex       ECMA-262, syntax only
 *   json-pointer            RFC 6901, and relative-json-pointer
 *
 * A format says that a text has the form, not that what it names exists; A-labels of host names are not decoded.
 */
#include <arpa/inet.h>

#include "base/check.h"
#include "json/schema_internal.h"

/* What is left to be read. */
struct scan {
    const char *p, *end;
};

static struct scan scan(struct str s)
{
    return (struct scan){ s.p, s.p + s.len };
}

static bool at_end(const struct scan *s)
{
    return s->p == s->end;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

/* The character, of any case of an ASCII letter. */
static bool skip(struct scan *s, char c)
{
    if (at_end(s) || (*s->p != c && !(is_alpha(c) && (*s->p | 0x20) == (c | 0x20))))
        return false;
    s->p++;
    return true;
}

/* Exactly n digits. */
static bool number(struct scan *s, int n, int *ret)
{
    *ret = 0;
    for (; n > 0; n--) {
        if (at_end(s) || !is_digit(*s->p))
            return false;
        *ret = *ret * 10 + (*s->p++ - '0');
    }
    return true;
}

static bool digits(struct scan *s)
{
    const char *start = s->p;

    while (!at_end(s) && is_digit(*s->p))
        s->p++;
    return s->p > start;
}

/* --- time ------------------------------------------------------------------------------------------------------- */

static bool date(struct scan *s)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int y, m, d, last;

    if (!number(s, 4, &y) || !skip(s, '-') || !number(s, 2, &m) || !skip(s, '-') || !number(s, 2, &d))
        return false;
    if (m < 1 || m > 12)
        return false;
    last = days[m - 1] + (m == 2 && y % 4 == 0 && (y % 100 != 0 || y % 400 == 0));
    return d >= 1 && d <= last;
}

static bool time_of_day(struct scan *s)
{
    int h, m, sec, oh = 0, om = 0, sign = 1;

    if (!number(s, 2, &h) || !skip(s, ':') || !number(s, 2, &m) || !skip(s, ':') || !number(s, 2, &sec))
        return false;
    if (skip(s, '.') && !digits(s))
        return false;
    if (!skip(s, 'Z')) {
        if (skip(s, '-'))
            sign = -1;
        else if (!skip(s, '+'))
            return false;
        if (!number(s, 2, &oh) || !skip(s, ':') || !number(s, 2, &om))
            return false;
    }
    if (h > 23 || m > 59 || sec > 60 || oh > 23 || om > 59)
        return false;
    return sec < 60 || (h * 60 + m - sign * (oh * 60 + om) + 1440) % 1440 == 1439;
}

static bool date_time(struct scan *s)
{
    return date(s) && skip(s, 'T') && time_of_day(s);
}

/* Numbers with the given units, in their order and without a gap between two; *any: there was at least one. */
static bool units(struct scan *s, const char *order, bool *any)
{
    const char *unit = NULL;

    while (digits(s)) {
        const char *found = !at_end(s) && *s->p ? strchr(order, *s->p) : NULL;

        if (!found || (unit && found != unit + 1))
            return false;
        unit = found;
        s->p++;
    }
    *any = unit != NULL;
    return true;
}

static bool duration(struct scan *s)
{
    struct scan weeks;
    bool any;

    if (at_end(s) || *s->p != 'P')
        return false;
    s->p++;
    weeks = *s;
    if (digits(&weeks) && !at_end(&weeks) && *weeks.p == 'W') {
        s->p = weeks.p + 1;
        return true;
    }
    if (!units(s, "YMD", &any))
        return false;
    if (at_end(s))
        return any;
    return *s->p++ == 'T' && units(s, "HMS", &any) && any;
}

/* --- hosts and addresses ---------------------------------------------------------------------------------------- */

static bool address(int family, struct str s)
{
    char text[64], binary[16];

    if (s.len == 0 || s.len >= sizeof(text) || memchr(s.p, 0, s.len))
        return false;
    memcpy(text, s.p, s.len);
    text[s.len] = 0;
    return inet_pton(family, text, binary) == 1;
}

static bool hostname(struct str s)
{
    size_t label = 0;

    if (s.len == 0 || s.len > 253)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = s.p[i];

        if (c == '.') {
            if (label == 0 || s.p[i - 1] == '-')
                return false;
            label = 0;
        } else if (is_alpha(c) || is_digit(c) || (c == '-' && label > 0)) {
            if (++label > 63)
                return false;
            /* these two are reserved for encodings, of which there is one: RFC 5891 */
            if (label == 4 && c == '-' && s.p[i - 1] == '-' && !str_ieq((struct str){ s.p + i - 3, 2 }, STR("xn")))
                return false;
        } else {
            return false;
        }
    }
    return label > 0 && s.p[s.len - 1] != '-';
}

static bool quoted_local(struct str s)
{
    for (size_t i = 1; i + 1 < s.len; i++) {
        if (s.p[i] == '\\')
            i++;
        else if (s.p[i] == '"')
            return false;
        if (i + 1 >= s.len || s.p[i] < 0x20 || s.p[i] > 0x7e)
            return false;
    }
    return s.len >= 2 && s.p[s.len - 1] == '"';
}

static bool local_part(struct str s)
{
    char before = '.';

    if (s.len == 0 || s.len > 64)
        return false;
    if (s.p[0] == '"')
        return quoted_local(s);
    for (size_t i = 0; i < s.len; before = s.p[i++]) {
        char c = s.p[i];

        if (c == '.' ? before == '.' : !is_alpha(c) && !is_digit(c) && !(c && strchr("!#$%&'*+-/=?^_`{|}~", c)))
            return false;
    }
    return before != '.';
}

static bool email(struct str s)
{
    size_t at = s.len;
    struct str domain;

    while (at > 0 && s.p[at - 1] != '@')
        at--;
    if (at == 0 || !local_part((struct str){ s.p, at - 1 }))
        return false;
    domain = str_from(s, at);
    if (!str_starts(domain, STR("[")))
        return hostname(domain);
    if (!str_ends(domain, STR("]")))
        return false;
    domain = (struct str){ domain.p + 1, domain.len - 2 };
    if (str_starts(domain, STR("IPv6:")))
        return address(AF_INET6, str_from(domain, 5));
    return address(AF_INET, domain);
}

/* --- uri -------------------------------------------------------------------------------------------------------- */

/* Only unreserved, sub-delims, `more`, and %XX. */
static bool uri_chars(struct str s, const char *more)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.p[i];

        if (c == '%') {
            if (s.len - i < 3 || !is_hex(s.p[i + 1]) || !is_hex(s.p[i + 2]))
                return false;
            i += 2;
        } else if (!is_alpha(c) && !is_digit(c) && !(c && (strchr("-._~!$&'()*+,;=", c) || strchr(more, c)))) {
            return false;
        }
    }
    return true;
}

static bool ip_literal(struct str s)
{
    if (s.len > 0 && (s.p[0] == 'v' || s.p[0] == 'V')) {
        struct str version, rest;

        if (!str_cut(str_from(s, 1), '.', &version, &rest) || version.len == 0 || rest.len == 0)
            return false;
        for (size_t i = 0; i < version.len; i++)
            if (!is_hex(version.p[i]))
                return false;
        return !memchr(rest.p, '%', rest.len) && uri_chars(rest, ":");
    }
    return address(AF_INET6, s);
}

static bool uri_authority(struct str s)
{
    struct str user, rest, port = STR_NULL;

    if (str_cut(s, '@', &user, &rest)) {
        if (!uri_chars(user, ":"))
            return false;
        s = rest;
    }
    if (str_starts(s, STR("["))) {
        struct str literal;

        if (!str_cut(str_from(s, 1), ']', &literal, &rest) || !ip_literal(literal))
            return false;
        if (rest.len && rest.p[0] != ':')
            return false;
        port = str_from(rest, 1);
    } else {
        str_cut(s, ':', &s, &port);
        if (!uri_chars(s, ""))
            return false;
    }
    for (size_t i = 0; i < port.len; i++)
        if (!is_digit(port.p[i]))
            return false;
    return true;
}

/* What stands before the first of `stops`. */
static struct str head(struct str s, const char *stops)
{
    size_t i = 0;

    while (i < s.len && !(s.p[i] && strchr(stops, s.p[i])))
        i++;
    return (struct str){ s.p, i };
}

static bool uri_rest(struct str s, bool absolute)
{
    struct str path, query = STR_NULL, fragment = STR_NULL;

    str_cut(s, '#', &s, &fragment);
    str_cut(s, '?', &s, &query);
    if (str_starts(s, STR("//"))) {
        struct str authority = head(str_from(s, 2), "/");

        if (!uri_authority(authority))
            return false;
        path = str_from(s, 2 + authority.len);
    } else {
        path = s;
        if (!absolute && memchr(path.p ? path.p : "", ':', head(path, "/").len))
            return false;                       /* it would read as a scheme */
    }
    return uri_chars(path, ":@/") && uri_chars(query, ":@/?") && uri_chars(fragment, ":@/?");
}

static bool uri(struct str s, bool may_be_relative)
{
    struct str scheme = head(s, ":/?#");

    if (scheme.len == 0 || scheme.len == s.len || s.p[scheme.len] != ':')
        return may_be_relative && uri_rest(s, false);
    for (size_t i = 0; i < scheme.len; i++) {
        char c = scheme.p[i];

        if (!is_alpha(c) && (i == 0 || (!is_digit(c) && !strchr("+-.", c))))
            return false;
    }
    return uri_rest(str_from(s, scheme.len + 1), true);
}

/* --- identifiers ------------------------------------------------------------------------------------------------ */

static bool uuid(struct str s)
{
    if (s.len != 36)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? s.p[i] != '-' : !is_hex(s.p[i]))
            return false;
    }
    return true;
}

static bool json_pointer(struct str s)
{
    if (s.len == 0)
        return true;
    if (s.p[0] != '/')
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] == '~' && (i + 1 == s.len || (s.p[i + 1] != '0' && s.p[i + 1] != '1')))
            return false;
    return true;
}

static bool relative_json_pointer(struct str s)
{
    size_t n = 0;

    while (n < s.len && is_digit(s.p[n]))
        n++;
    if (n == 0 || (n > 1 && s.p[0] == '0'))
        return false;
    s = str_from(s, n);
    return str_is(s, "#") || json_pointer(s);
}

/* --- the table -------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name, *what;
} formats[FORMAT_COUNT] = {
    [FORMAT_DATE_TIME] = { "date-time", "a date and time with offset, like 2030-01-31T09:00:00Z" },
    [FORMAT_DATE] = { "date", "a date, like 2030-01-31" },
    [FORMAT_TIME] = { "time", "a time with offset, like 09:00:00Z" },
    [FORMAT_DURATION] = { "duration", "a duration, like P1DT2H" },
    [FORMAT_EMAIL] = { "email", "an e-mail address" },
    [FORMAT_HOSTNAME] = { "hostname", "a host name" },
    [FORMAT_IPV4] = { "ipv4", "an IPv4 address" },
    [FORMAT_IPV6] = { "ipv6", "an IPv6 address" },
    [FORMAT_URI] = { "uri", "an absolute URI" },
    [FORMAT_URI_REFERENCE] = { "uri-reference", "a URI or a relative reference" },
    [FORMAT_UUID] = { "uuid", "a UUID" },
    [FORMAT_JSON_POINTER] = { "json-pointer", "a JSON Pointer" },
    [FORMAT_RELATIVE_JSON_POINTER] = { "relative-json-pointer", "a relative JSON Pointer" },
    [FORMAT_REGEX] = { "regex", "a regular expression" },
};

enum format format_from(struct str name)
{
    for (int i = FORMAT_NONE + 1; i < FORMAT_COUNT; i++)
        if (str_is(name, formats[i].name))
            return (enum format)i;
    return FORMAT_NONE;
}

const char *format_what(enum format f)
{
    ASSERT(f > FORMAT_NONE && f < FORMAT_COUNT);
    return formats[f].what;
}

bool format_valid(enum format f, struct str text)
{
    struct scan s;

    if (!text.p)
        text = STR("");
    s = scan(text);
    switch (f) {
    case FORMAT_DATE_TIME:              return date_time(&s) && at_end(&s);
    case FORMAT_DATE:                   return date(&s) && at_end(&s);
    case FORMAT_TIME:                   return time_of_day(&s) && at_end(&s);
    case FORMAT_DURATION:               return duration(&s) && at_end(&s);
    case FORMAT_EMAIL:                  return email(text);
    case FORMAT_HOSTNAME:               return hostname(text);
    case FORMAT_IPV4:                   return address(AF_INET, text);
    case FORMAT_IPV6:                   return address(AF_INET6, text);
    case FORMAT_URI:                    return uri(text, false);
    case FORMAT_URI_REFERENCE:          return uri(text, true);
    case FORMAT_UUID:                   return uuid(text);
    case FORMAT_JSON_POINTER:           return json_pointer(text);
    case FORMAT_RELATIVE_JSON_POINTER:  return relative_json_pointer(text);
    case FORMAT_REGEX:                  return regex_syntax(text);
    default:                            UNREACHABLE();
    }
}
