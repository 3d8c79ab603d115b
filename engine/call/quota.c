/* quota.c -- reads moments and quotas; see quota.h for the forms. Whatever is not of a form is as if not said. */
#include <stdio.h>

#include "call/quota.h"

enum { NAME_MAX_LEN = 120 };

#define UNITS_MAX   (1LL << 40)             /* the limiter's own bound */
#define EPOCH_S     100000000LL             /* seconds below are a wait (three years), above a date (after 1973) */
#define EPOCH_MS    100000000000LL          /* seconds below are before the year 5138 */

/* ---- moments ----------------------------------------------------------------------------------------------------- */

static int month_number(struct str s)
{
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

    for (int i = 0; s.len == 3 && i < 12; i++)
        if (str_ieq(s, str_n(names + 3 * i, 3)))
            return i + 1;
    return 0;
}

static bool digits(struct str s, size_t at, size_t n, int *ret)
{
    *ret = 0;
    if (at + n > s.len)
        return false;
    for (size_t i = at; i < at + n; i++) {
        int d = s.p[i] == ' ' && i == at ? 0 : s.p[i] - '0';       /* asctime() fills the day with a blank */

        if (d < 0 || d > 9)
            return false;
        *ret = *ret * 10 + d;
    }
    return true;
}

static enum err date_of(int year, int month, struct str day, struct str time, wall_ms_t *ret)
{
    char text[32];
    int d, h, m, s;

    if (!digits(day, 0, 2, &d) || time.len != 8 || time.p[2] != ':' || time.p[5] != ':' || !digits(time, 0, 2, &h) ||
        !digits(time, 3, 2, &m) || !digits(time, 6, 2, &s) || month == 0)
        return E_FORMAT;
    snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02dZ", year, month, d, h, m, s);
    return wall_parse(str_of(text), ret);
}

enum err quota_http_date(struct str s, wall_ms_t *ret)
{
    struct str name, rest;
    int year;

    s = str_trim(s);
    if (str_cut(s, ',', &name, &rest)) {
        rest = str_trim(rest);
        if (rest.len == 24 && rest.p[2] == ' ' && digits(rest, 7, 4, &year))            /* 06 Nov 1994 08:49:37 GMT */
            return str_is(str_from(rest, 20), " GMT")
                       ? date_of(year, month_number(str_n(rest.p + 3, 3)), str_n(rest.p, 2), str_n(rest.p + 12, 8), ret)
                       : E_FORMAT;
        if (rest.len == 22 && rest.p[2] == '-' && digits(rest, 7, 2, &year))            /* 06-Nov-94 08:49:37 GMT */
            return str_is(str_from(rest, 18), " GMT")
                       ? date_of(year < 70 ? 2000 + year : 1900 + year, month_number(str_n(rest.p + 3, 3)),
                                 str_n(rest.p, 2), str_n(rest.p + 10, 8), ret)
                       : E_FORMAT;
        return E_FORMAT;
    }
    if (s.len == 24 && s.p[3] == ' ' && digits(s, 20, 4, &year))                        /* Sun Nov  6 08:49:37 1994 */
        return date_of(year, month_number(str_n(s.p + 4, 3)), str_n(s.p + 8, 2), str_n(s.p + 11, 8), ret);
    return E_FORMAT;
}

/* RFC 3339, or the same without seconds. */
static enum err iso_parse(struct str s, wall_ms_t *ret)
{
    char text[32];

    if (s.len == 17 && s.p[16] == 'Z' && s.p[13] == ':') {
        snprintf(text, sizeof(text), "%.16s:00Z", s.p);
        s = str_of(text);
    }
    return wall_parse(s, ret);
}

static int64_t from_now(wall_ms_t at, wall_ms_t now)
{
    if (at <= now)
        return 0;
    return at - now > QUOTA_WAIT_MS_MAX ? QUOTA_WAIT_MS_MAX : at - now;
}

/* A number: a wait, or a date in seconds or in milliseconds. A fraction counts as a whole one. */
static int64_t number_wait(struct str value, wall_ms_t now)
{
    struct str whole = value, fraction = STR_NULL;
    uint64_t n, ignored;

    if (str_cut(value, '.', &whole, &fraction) && (fraction.len > 9 || !str_to_u64(fraction, &ignored)))
        return -1;
    if (!str_to_u64(whole, &n))
        return -1;
    if (n > INT64_MAX / 4)
        return QUOTA_WAIT_MS_MAX;
    if (n >= EPOCH_MS)
        return from_now((wall_ms_t)n, now);
    n += fraction.len > 0;
    if (n >= EPOCH_S)
        return from_now((wall_ms_t)n * 1000, now);
    return from_now(now + (wall_ms_t)n * 1000, now);
}

int64_t quota_wait_ms(struct str value, wall_ms_t now)
{
    wall_ms_t at;

    value = str_trim(value);
    if (value.len == 0)
        return -1;
    if (value.p[0] >= '0' && value.p[0] <= '9' && !iso_parse(value, &at))
        return from_now(at, now);
    if (value.p[0] >= '0' && value.p[0] <= '9')
        return number_wait(value, now);
    return quota_http_date(value, &at) ? -1 : from_now(at, now);
}

wall_ms_t quota_clock(quota_field *field, void *arg, wall_ms_t ours)
{
    const char *date = field(arg, "date");
    wall_ms_t theirs;

    return date && quota_http_date(str_of(date), &theirs) == OK ? theirs : ours;
}

/* ---- what is left ------------------------------------------------------------------------------------------------ */

/* A count of units; a list "5000, 5000;w=3600" begins with it. A fraction is cut off: less is left, never more. */
static int64_t units(struct str s)
{
    uint64_t n;
    size_t len = 0;

    s = str_trim(s);
    while (len < s.len && s.p[len] >= '0' && s.p[len] <= '9')
        len++;
    if (len == 0 || !str_to_u64(str_n(s.p, len), &n))
        return -1;
    return n > UNITS_MAX ? UNITS_MAX : (int64_t)n;
}

static const char *suffixed(quota_field *field, void *arg, struct str prefix, const char *suffix)
{
    char name[NAME_MAX_LEN];

    if (snprintf(name, sizeof(name), "%.*s%s", STR_ARG(prefix), suffix) >= (int)sizeof(name))
        return NULL;
    return field(arg, name);
}

static void read_fields(struct str prefix, quota_field *field, void *arg, wall_ms_t now, struct quota_seen *ret)
{
    static const char *const limits[] = { "-Limit", "-Max", "" };
    const char *left = suffixed(field, arg, prefix, "-Remaining"), *reset = suffixed(field, arg, prefix, "-Reset");

    for (size_t i = 0; i < 3 && ret->limit < 0; i++) {
        const char *limit = suffixed(field, arg, prefix, limits[i]);

        if (limit)
            ret->limit = units(str_of(limit));
    }
    if (left)
        ret->remaining = units(str_of(left));
    if (reset)
        ret->reset_ms = quota_wait_ms(str_of(reset), now);
}

static struct str unquoted(struct str s)
{
    s = str_trim(s);
    if (s.len >= 2 && s.p[0] == '"' && s.p[s.len - 1] == '"')
        return str_n(s.p + 1, s.len - 2);
    return s;
}

/* Cuts the head off a text parted by `c`; the last part has none behind it. False: nothing is left. */
static bool next_part(struct str *rest, char c, struct str *ret)
{
    if (rest->len == 0)
        return false;
    if (!str_cut(*rest, c, ret, rest)) {
        *ret = *rest;
        *rest = STR_NULL;
    }
    return true;
}

static void read_param(struct str param, wall_ms_t now, struct quota_seen *ret)
{
    struct str key, value;

    if (!str_cut(param, '=', &key, &value))
        return;
    key = str_trim(key);
    if (str_is(key, "r") || str_is(key, "remaining"))
        ret->remaining = units(value);
    else if (str_is(key, "q") || str_is(key, "total"))
        ret->limit = units(value);
    else if (str_is(key, "t") || str_is(key, "resets"))
        ret->reset_ms = quota_wait_ms(value, now);
}

/* "name";r=1;t=2, "other";r=3: the item called so; with no name the whole value is one item. */
static void read_item(struct str value, struct str name, wall_ms_t now, struct quota_seen *ret)
{
    struct str item, param;

    while (next_part(&value, ',', &item)) {
        bool ours = name.len == 0;

        while (next_part(&item, ';', &param)) {
            if (!ours && !str_eq(unquoted(param), name))
                break;
            ours = true;
            read_param(param, now, ret);
        }
        if (ours)
            return;
    }
}

/* api-usage=18/15000, another=1/2 */
static void read_usage(struct str value, struct str name, struct quota_seen *ret)
{
    struct str one, key, counts, used, total;

    while (next_part(&value, ',', &one)) {
        int64_t u, t;

        while (one.len && one.p[0] == ' ')
            one = str_from(one, 1);
        if (!str_cut(one, '=', &key, &counts) || !str_eq(str_trim(key), name) || !str_cut(counts, '/', &used, &total))
            continue;
        u = units(used);
        t = units(total);
        if (u < 0 || t < 0)
            continue;
        ret->limit = t;
        ret->remaining = u >= t ? 0 : t - u;
        return;
    }
}

bool quota_read(const char *told, quota_field *field, void *arg, wall_ms_t now, struct quota_seen *ret)
{
    struct str name = str_of(told), item;
    const char *value;

    *ret = (struct quota_seen){ -1, -1, -1 };
    if (str_cut(str_of(told), ';', &name, &item)) {
        value = suffixed(field, arg, name, "");
        if (value)
            read_item(str_of(value), item, now, ret);
    } else if (str_cut(str_of(told), '=', &name, &item)) {
        value = suffixed(field, arg, name, "");
        if (value)
            read_usage(str_of(value), item, ret);
    } else {
        read_fields(str_of(told), field, arg, now, ret);
    }
    return ret->limit >= 0 || ret->remaining >= 0;
}
