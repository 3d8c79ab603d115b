/*
 * ext.c -- decimal, ipaddr, datetime, duration: their text forms and operations
 *
 *   decimal    -?D+.D{1,4}, as a count of ten-thousandths in 64 bits
 *   ipaddr     IPv4 a.b.c.d without leading zeros, or IPv6 groups with one "::"; then optionally /N, N without leading
 *              zeros, at most 32 or 128. IPv4 inside IPv6 is refused. The address is kept unmasked: ip("10.0.0.1/8")
 *              and ip("10.0.0.2/8") differ, and are in each other's range.
 *   datetime   YYYY-MM-DD, or YYYY-MM-DDThh:mm:ss[.mmm](Z|(+|-)hhmm); no leap second; offset below 24h00
 *   duration   -?(D+d)?(D+h)?(D+m)?(D+s)?(D+ms)?, at least one part, in milliseconds in 64 bits
 *
 * Every sum and product is checked; a leading '-' is carried through the digits, so that the most negative number is
 * spelled like any other.
 */
#include "policy/ext.h"

#include "base/check.h"
#include "base/escape.h"

#define MS_PER_DAY 86400000LL

#define D POLICY_DECIMAL
#define I POLICY_IP
#define T POLICY_DATETIME
#define U POLICY_DURATION
#define S POLICY_STRING

const struct ext_row ext_rows[EXT_COUNT] = {
    [EXT_DECIMAL]        = { "decimal", 0, 1, S, 0 },
    [EXT_IP]             = { "ip", 0, 1, S, 0 },
    [EXT_DATETIME]       = { "datetime", 0, 1, S, 0 },
    [EXT_DURATION]       = { "duration", 0, 1, S, 0 },
    [EXT_DEC_LT]         = { "lessThan", 1, 2, D, D },
    [EXT_DEC_LE]         = { "lessThanOrEqual", 1, 2, D, D },
    [EXT_DEC_GT]         = { "greaterThan", 1, 2, D, D },
    [EXT_DEC_GE]         = { "greaterThanOrEqual", 1, 2, D, D },
    [EXT_IS_IPV4]        = { "isIpv4", 1, 1, I, 0 },
    [EXT_IS_IPV6]        = { "isIpv6", 1, 1, I, 0 },
    [EXT_IS_LOOPBACK]    = { "isLoopback", 1, 1, I, 0 },
    [EXT_IS_MULTICAST]   = { "isMulticast", 1, 1, I, 0 },
    [EXT_IS_IN_RANGE]    = { "isInRange", 1, 2, I, I },
    [EXT_OFFSET]         = { "offset", 1, 2, T, U },
    [EXT_DURATION_SINCE] = { "durationSince", 1, 2, T, T },
    [EXT_TO_DATE]        = { "toDate", 1, 1, T, 0 },
    [EXT_TO_TIME]        = { "toTime", 1, 1, T, 0 },
    [EXT_TO_MS]          = { "toMilliseconds", 1, 1, U, 0 },
    [EXT_TO_S]           = { "toSeconds", 1, 1, U, 0 },
    [EXT_TO_MIN]         = { "toMinutes", 1, 1, U, 0 },
    [EXT_TO_H]           = { "toHours", 1, 1, U, 0 },
    [EXT_TO_DAYS]        = { "toDays", 1, 1, U, 0 },
};

#undef D
#undef I
#undef T
#undef U
#undef S

int ext_find(struct str name)
{
    for (int i = 0; i < EXT_COUNT; i++)
        if (str_is(name, ext_rows[i].name))
            return i;
    return -1;
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Appends one digit to *v on the side of zero that `sign` says. */
static bool push_digit(int64_t *v, int sign, char c)
{
    return !__builtin_mul_overflow(*v, 10, v) && !__builtin_add_overflow(*v, sign * (c - '0'), v);
}

/* --- decimal -------------------------------------------------------------------------------------------------- */

bool decimal_parse(struct str s, int64_t *ret)
{
    int sign = s.len && s.p[0] == '-' ? -1 : 1;
    size_t i = sign < 0, start = i;
    int64_t v = 0;
    int places = 0;

    for (; i < s.len && digit(s.p[i]); i++)
        if (!push_digit(&v, sign, s.p[i]))
            return false;
    if (i == start || i == s.len || s.p[i] != '.')
        return false;
    for (i++; i < s.len && digit(s.p[i]); i++, places++)
        if (places == 4 || !push_digit(&v, sign, s.p[i]))
            return false;
    if (i != s.len || places == 0)
        return false;
    for (; places < 4; places++)
        if (!push_digit(&v, sign, '0'))
            return false;
    *ret = v;
    return true;
}

void decimal_write(struct buf *out, int64_t v)
{
    uint64_t m = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

    buf_addf(out, "%s%llu.%04llu", v < 0 ? "-" : "", (unsigned long long)(m / 10000), (unsigned long long)(m % 10000));
}

/* --- ipaddr --------------------------------------------------------------------------------------------------- */

static bool ipv4_parse(struct str s, uint8_t *bytes)
{
    size_t i = 0;

    for (int n = 0; n < 4; n++) {
        unsigned v = 0;
        size_t start;

        if (n > 0 && (i == s.len || s.p[i++] != '.'))
            return false;
        start = i;
        for (; i < s.len && digit(s.p[i]); i++) {
            if (i - start == 3)
                return false;
            v = v * 10 + (unsigned)(s.p[i] - '0');
        }
        if (i == start || v > 255 || (s.p[start] == '0' && i - start > 1))
            return false;
        bytes[n] = (uint8_t)v;
    }
    return i == s.len;
}

/* One to four hex digits at *i. */
static bool group_parse(struct str s, size_t *i, unsigned *ret)
{
    size_t start = *i;
    unsigned v = 0;

    for (; *i < s.len && *i - start < 4 && hex_digit(s.p[*i]) >= 0; ++*i)
        v = v * 16 + (unsigned)hex_digit(s.p[*i]);
    *ret = v;
    return *i > start;
}

static bool ipv6_parse(struct str s, uint8_t *bytes)
{
    unsigned groups[8], n = 0, gap = 8;     /* gap: how many groups stand before "::"; 8: none seen */
    size_t i = 0;

    if (s.len >= 2 && s.p[0] == ':' && s.p[1] == ':') {
        gap = 0;
        i = 2;
    }
    while (i < s.len) {
        if (n == 8 || !group_parse(s, &i, &groups[n]))
            return false;
        n++;
        if (i == s.len)
            break;
        if (s.p[i++] != ':' || i == s.len)
            return false;
        if (s.p[i] == ':') {
            if (gap != 8)
                return false;
            gap = n;
            i++;
        }
    }
    if (gap == 8 ? n != 8 : n > 7)
        return false;
    memset(bytes, 0, 16);
    for (unsigned k = 0; k < n; k++) {
        unsigned at = k < gap ? k : k + 8 - n;

        bytes[2 * at] = (uint8_t)(groups[k] >> 8);
        bytes[2 * at + 1] = (uint8_t)groups[k];
    }
    return true;
}

static bool prefix_parse(struct str s, unsigned max, uint8_t *ret)
{
    unsigned v = 0;

    if (s.len == 0 || s.len > (max == 32 ? 2 : 3) || (s.p[0] == '0' && s.len > 1))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (!digit(s.p[i]))
            return false;
        v = v * 10 + (unsigned)(s.p[i] - '0');
    }
    *ret = (uint8_t)v;
    return v <= max;
}

bool ip_parse(struct str s, struct policy_ip *ret)
{
    struct str addr = s, prefix = STR_NULL;
    bool ranged = str_cut(s, '/', &addr, &prefix);
    struct policy_ip ip = { .v6 = addr.len && memchr(addr.p, ':', addr.len) != NULL };

    if (!(ip.v6 ? ipv6_parse(addr, ip.bytes) : ipv4_parse(addr, ip.bytes)))
        return false;
    ip.prefix = ip.v6 ? 128 : 32;
    if (ranged && !prefix_parse(prefix, ip.prefix, &ip.prefix))
        return false;
    *ret = ip;
    return true;
}

void ip_write(struct buf *out, const struct policy_ip *ip)
{
    if (ip->v6) {
        for (int i = 0; i < 8; i++)
            buf_addf(out, "%s%x", i ? ":" : "", ip->bytes[2 * i] << 8 | ip->bytes[2 * i + 1]);
    } else {
        buf_addf(out, "%u.%u.%u.%u", ip->bytes[0], ip->bytes[1], ip->bytes[2], ip->bytes[3]);
    }
    if (ip->prefix != (ip->v6 ? 128 : 32))
        buf_addf(out, "/%u", ip->prefix);
}

/* a's range lies in b's: b is no narrower, and the addresses agree in b's prefix. */
static bool ip_in_range(const struct policy_ip *a, const struct policy_ip *b)
{
    unsigned whole = b->prefix / 8, rest = b->prefix % 8;

    if (a->v6 != b->v6 || a->prefix < b->prefix || memcmp(a->bytes, b->bytes, whole) != 0)
        return false;
    return rest == 0 || ((a->bytes[whole] ^ b->bytes[whole]) >> (8 - rest)) == 0;
}

static bool ip_loopback(const struct policy_ip *ip)
{
    static const struct policy_ip v4 = { .bytes = { 127 }, .prefix = 8 };
    static const struct policy_ip v6 = { .bytes = { [15] = 1 }, .prefix = 128, .v6 = true };

    return ip_in_range(ip, ip->v6 ? &v6 : &v4);
}

static bool ip_multicast(const struct policy_ip *ip)
{
    static const struct policy_ip v4 = { .bytes = { 224 }, .prefix = 4 };
    static const struct policy_ip v6 = { .bytes = { 255 }, .prefix = 8, .v6 = true };

    return ip_in_range(ip, ip->v6 ? &v6 : &v4);
}

/* --- datetime and duration ------------------------------------------------------------------------------------ */

/* Exactly n digits at *i. */
static bool digits(struct str s, size_t *i, int n, int *ret)
{
    int v = 0;

    for (; n > 0; n--, ++*i) {
        if (*i >= s.len || !digit(s.p[*i]))
            return false;
        v = v * 10 + (s.p[*i] - '0');
    }
    *ret = v;
    return true;
}

static bool eat(struct str s, size_t *i, char c)
{
    if (*i >= s.len || s.p[*i] != c)
        return false;
    ++*i;
    return true;
}

static int days_in_month(int y, int m)
{
    static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

    return days[m - 1] + (m == 2 && y % 4 == 0 && (y % 100 != 0 || y % 400 == 0));
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar, years 0 to 9999. */
static int64_t days_from_civil(int y, int m, int d)
{
    int64_t days = (int64_t)y * 365 + (y + 3) / 4 - (y + 99) / 100 + (y + 399) / 400;   /* leap days before year y */

    for (int k = 1; k < m; k++)
        days += days_in_month(y, k);
    return days + d - 1 - 719528;                                                       /* 0000-01-01 to 1970-01-01 */
}

/* (Z | (+|-)hhmm) at *i, as milliseconds east of UTC. */
static bool offset_parse(struct str s, size_t *i, int64_t *ret)
{
    int h, m, sign;

    *ret = 0;
    if (eat(s, i, 'Z'))
        return true;
    sign = eat(s, i, '+') ? 1 : eat(s, i, '-') ? -1 : 0;
    if (!sign || !digits(s, i, 2, &h) || !digits(s, i, 2, &m) || h > 23 || m > 59)
        return false;
    *ret = sign * (h * 3600 + m * 60) * 1000LL;
    return true;
}

bool datetime_parse(struct str s, int64_t *ret)
{
    int y, mo, d, h, mi, sec, ms = 0;
    int64_t east, t;
    size_t i = 0;

    if (!digits(s, &i, 4, &y) || !eat(s, &i, '-') || !digits(s, &i, 2, &mo) || !eat(s, &i, '-')
        || !digits(s, &i, 2, &d))
        return false;
    if (mo < 1 || mo > 12 || d < 1 || d > days_in_month(y, mo))
        return false;
    t = days_from_civil(y, mo, d) * MS_PER_DAY;
    if (i < s.len) {
        if (!eat(s, &i, 'T') || !digits(s, &i, 2, &h) || !eat(s, &i, ':') || !digits(s, &i, 2, &mi)
            || !eat(s, &i, ':') || !digits(s, &i, 2, &sec))
            return false;
        if (eat(s, &i, '.') && !digits(s, &i, 3, &ms))
            return false;
        if (h > 23 || mi > 59 || sec > 59 || !offset_parse(s, &i, &east) || i != s.len)
            return false;
        t += (h * 3600 + mi * 60 + sec) * 1000LL + ms - east;
    }
    *ret = t;
    return true;
}

bool duration_parse(struct str s, int64_t *ret)
{
    static const struct { const char *unit; int64_t ms; } units[] = {
        { "d", MS_PER_DAY }, { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 },
    };
    int sign = s.len && s.p[0] == '-' ? -1 : 1;
    size_t i = sign < 0, next = 0;
    int64_t sum = 0;

    if (i == s.len)
        return false;
    while (i < s.len) {
        size_t start = i, from;
        struct str unit;
        int64_t v = 0;

        for (; i < s.len && digit(s.p[i]); i++)
            if (!push_digit(&v, sign, s.p[i]))
                return false;
        for (from = i; i < s.len && !digit(s.p[i]);)
            i++;
        unit = str_n(s.p + from, i - from);
        while (next < ARRAY_LEN(units) && !str_is(unit, units[next].unit))
            next++;
        if (from == start || next == ARRAY_LEN(units))
            return false;
        if (__builtin_mul_overflow(v, units[next++].ms, &v) || __builtin_add_overflow(sum, v, &sum))
            return false;
    }
    *ret = sum;
    return true;
}

/* Down to midnight; false when that midnight is before the first representable instant. */
static bool to_date(int64_t t, int64_t *ret)
{
    int64_t r = t % MS_PER_DAY;

    if (r < 0)
        r += MS_PER_DAY;
    return !__builtin_sub_overflow(t, r, ret);
}

static int64_t to_time(int64_t t)
{
    int64_t r = t % MS_PER_DAY;

    return r < 0 ? r + MS_PER_DAY : r;
}

/* --- calls ---------------------------------------------------------------------------------------------------- */

static enum ext_result construct(enum ext_fn fn, struct str s, struct arena *a, struct policy_value *ret)
{
    static const uint8_t kinds[] = { POLICY_DECIMAL, POLICY_IP, POLICY_DATETIME, POLICY_DURATION };
    struct policy_value v = { .kind = kinds[fn] };
    struct policy_ip ip, *kept;
    bool ok;

    if (fn == EXT_IP) {
        if (!ip_parse(s, &ip))
            return EXT_FORMAT;
        kept = arena_alloc(a, sizeof(*kept));
        if (!kept)
            return EXT_MEMORY;
        *kept = ip;
        v.u.ip = kept;
    } else {
        ok = fn == EXT_DECIMAL ? decimal_parse(s, &v.u.i)
            : fn == EXT_DATETIME ? datetime_parse(s, &v.u.i) : duration_parse(s, &v.u.i);
        if (!ok)
            return EXT_FORMAT;
    }
    *ret = v;
    return EXT_OK;
}

static enum ext_result call_method(enum ext_fn fn, const struct policy_value *x, const struct policy_value *y,
    struct policy_value *ret)
{
    struct policy_value v = { 0 };

    switch (fn) {
    case EXT_DEC_LT:       v = policy_bool(x->u.i < y->u.i); break;
    case EXT_DEC_LE:       v = policy_bool(x->u.i <= y->u.i); break;
    case EXT_DEC_GT:       v = policy_bool(x->u.i > y->u.i); break;
    case EXT_DEC_GE:       v = policy_bool(x->u.i >= y->u.i); break;
    case EXT_IS_IPV4:      v = policy_bool(!x->u.ip->v6); break;
    case EXT_IS_IPV6:      v = policy_bool(x->u.ip->v6); break;
    case EXT_IS_LOOPBACK:  v = policy_bool(ip_loopback(x->u.ip)); break;
    case EXT_IS_MULTICAST: v = policy_bool(ip_multicast(x->u.ip)); break;
    case EXT_IS_IN_RANGE:  v = policy_bool(ip_in_range(x->u.ip, y->u.ip)); break;
    case EXT_OFFSET:
        v.kind = POLICY_DATETIME;
        if (__builtin_add_overflow(x->u.i, y->u.i, &v.u.i))
            return EXT_RANGE;
        break;
    case EXT_DURATION_SINCE:
        v.kind = POLICY_DURATION;
        if (__builtin_sub_overflow(x->u.i, y->u.i, &v.u.i))
            return EXT_RANGE;
        break;
    case EXT_TO_DATE:
        v.kind = POLICY_DATETIME;
        if (!to_date(x->u.i, &v.u.i))
            return EXT_RANGE;
        break;
    case EXT_TO_TIME:
        v.kind = POLICY_DURATION;
        v.u.i = to_time(x->u.i);
        break;
    case EXT_TO_MS:        v = policy_long(x->u.i); break;
    case EXT_TO_S:         v = policy_long(x->u.i / 1000); break;
    case EXT_TO_MIN:       v = policy_long(x->u.i / 60000); break;
    case EXT_TO_H:         v = policy_long(x->u.i / 3600000); break;
    case EXT_TO_DAYS:      v = policy_long(x->u.i / MS_PER_DAY); break;
    default:
        UNREACHABLE();
    }
    *ret = v;
    return EXT_OK;
}

enum ext_result ext_call(enum ext_fn fn, const struct policy_value *args, size_t n, struct arena *a,
    struct policy_value *ret)
{
    const struct ext_row *row = &ext_rows[fn];

    if (n != row->n_args)
        return EXT_ARITY;
    if (args[0].kind != row->arg0 || (n > 1 && args[1].kind != row->arg1))
        return EXT_TYPE;
    if (fn <= EXT_DURATION)
        return construct(fn, policy_value_str(args[0]), a, ret);
    return call_method(fn, &args[0], n > 1 ? &args[1] : NULL, ret);
}
