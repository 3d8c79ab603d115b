/*
 * json_number.c -- numbers: exact decimals, the nearest double, ECMAScript's text of a double
 *
 * How ECMAScript prints a double (Number::toString, RFC 8785 3.2.2.3).  Let d1..dk be the shortest digits that read
 * back as the same double (the closest to it where there is a choice) and 0.d1..dk * 10^point its value:
 *
 *   k <= point <= 21      digits, then point - k zeros                 1e20  -> 100000000000000000000
 *   0 < point <= 21       digits with a point after `point` of them    1.5
 *   -6 < point <= 0       "0.", -point zeros, digits                   1e-6  -> 0.000001
 *   otherwise             d1[.d2..dk]e(+|-)(point - 1)                 1e21, 1.5e-7
 *
 * Both zeros print as 0.  glibc converts correctly rounded in both directions; it is asked for 15, 16 and 17 digits and
 * the first that reads back wins.  Neither direction depends on the process's locale.
 */
#include "json/json_internal.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

STATIC_ASSERT(sizeof(double) == 8 && DBL_MANT_DIG == 53, "numbers are IEEE 754 doubles");

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void c_locale_make(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    ASSERT(c_locale != (locale_t)0);
}

static double text_to_double(const char *z)
{
    pthread_once(&c_locale_once, c_locale_make);
    return strtod_l(z, NULL, c_locale);
}

double number_to_double(struct str raw)
{
    char z[JSON_NUMBER_MAX + 1];

    ASSERT(raw.len > 0 && raw.len <= JSON_NUMBER_MAX);
    memcpy(z, raw.p, raw.len);
    z[raw.len] = 0;
    return text_to_double(z);
}

/* The exponent's digits, held at a bound that no 1024 digits can bring back into range. */
static int64_t exponent_from(const char *p, const char *end)
{
    const int64_t bound = 1000000000000;
    bool negative = p < end && *p == '-';
    int64_t v = 0;

    if (p < end && (*p == '-' || *p == '+'))
        p++;
    for (; p < end; p++)
        v = v >= bound ? bound : v * 10 + (*p - '0');
    return negative ? -v : v;
}

void decimal_from(struct decimal *d, struct str raw)
{
    const char *p = raw.p, *end = raw.p + raw.len;
    bool fraction = false;

    ASSERT(raw.len > 0 && raw.len <= JSON_NUMBER_MAX);
    d->negative = *p == '-';
    d->n = 0;
    d->point = 0;
    if (d->negative)
        p++;
    for (; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        if (d->n == 0 && *p == '0') {           /* a leading zero: counts only behind the point */
            d->point -= fraction;
            continue;
        }
        d->digits[d->n++] = *p;
        d->point += !fraction;
    }
    if (p < end)
        d->point += exponent_from(p + 1, end);
    while (d->n > 0 && d->digits[d->n - 1] == '0')
        d->n--;
    if (d->n == 0) {
        d->negative = false;
        d->point = 0;
    }
}

/* --- the shortest digits ------------------------------------------------------------------------------------ */

struct digits {
    char d[24];
    int n, point;
};

/*
 * Most doubles that people write have few digits.  If v = m / 10^k with m <= 10^15 and k <= 22, both are doubles
 * exactly and the division is correctly rounded, so the text "m / 10^k" reads back as v; and no two texts of 15
 * digits or less read as one double, so with the smallest k (no zero at the end) it is the shortest.
 */
static bool digits_few(double v, struct digits *out)
{
    static const double power[] = { 1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9 };
    char text[20], *p = text + sizeof(text);

    if (FLT_EVAL_METHOD != 0 || v < 1e-5 || v >= 1e15)
        return false;
    for (size_t k = 0; k < ARRAY_LEN(power); k++) {
        double scaled = v * power[k];
        uint64_t m;

        if (scaled > 1e15)
            return false;
        m = (uint64_t)(scaled + 0.5);
        if (m == 0 || m > 1000000000000000 || (double)m / power[k] != v)
            continue;
        do {
            *--p = (char)('0' + m % 10);
            m /= 10;
        } while (m);
        out->n = (int)(text + sizeof(text) - p);
        memcpy(out->d, p, (size_t)out->n);
        out->point = out->n - (int)k;
        return true;
    }
    return false;
}

/* v rounded to n digits, and whether that reads back as v. */
static bool digits_rounded(double v, int n, struct digits *out)
{
    char text[48], *e;
    int len = snprintf(text, sizeof(text), "%.*e", n - 1, v);

    ASSERT(len > 0 && (size_t)len < sizeof(text));
    e = strchr(text, 'e');
    ASSERT(e != NULL);
    out->n = 0;
    for (const char *p = text; p < e; p++)      /* whatever the locale puts for the point is stepped over */
        if (*p >= '0' && *p <= '9')
            out->d[out->n++] = *p;
    ASSERT(out->n == n);
    out->point = atoi(e + 1) + 1;
    snprintf(text, sizeof(text), "0.%.*se%d", n, out->d, out->point);
    return text_to_double(text) == v;
}

/* One more in the last place; false if that would need another digit. */
static bool digits_up(struct digits *x)
{
    if (x->d[x->n - 1] == '9')
        return false;
    x->d[x->n - 1]++;
    return true;
}

static bool digits_read_as(const struct digits *x, double v)
{
    char text[48];

    snprintf(text, sizeof(text), "0.%.*se%d", x->n, x->d, x->point);
    return text_to_double(text) == v;
}

static void digits_shortest(double v, struct digits *out)
{
    int exponent;
    bool power_of_two = frexp(v, &exponent) == 0.5;

    if (digits_few(v, out))
        return;
    /* Normal doubles tell all texts of 15 digits apart, so one try finds every shorter text too; subnormals do not. */
    for (int n = v < DBL_MIN ? 1 : 15; n <= 17; n++) {
        if (digits_rounded(v, n, out))
            break;
        /*
         * The doubles below a power of two are twice as dense as those above: the nearest n digits may lie below it,
         * out of reach, when the next ones above still read back.
         */
        if (power_of_two && digits_up(out) && digits_read_as(out, v))
            break;
        ASSERT(n < 17);
    }
    while (out->n > 1 && out->d[out->n - 1] == '0')
        out->n--;
}

static char *put(char *p, const void *from, size_t n)
{
    memcpy(p, from, n);
    return p + n;
}

static char *put_zeros(char *p, int n)
{
    memset(p, '0', (size_t)n);
    return p + n;
}

size_t json_double_text(double v, char out[JSON_DOUBLE_TEXT])
{
    struct digits x;
    char *p = out;

    ASSERT(isfinite(v));
    if (v == 0) {
        *p = '0';
        return 1;
    }
    if (v < 0)
        *p++ = '-';
    digits_shortest(fabs(v), &x);
    if (x.point >= x.n && x.point <= 21) {
        p = put(p, x.d, (size_t)x.n);
        p = put_zeros(p, x.point - x.n);
    } else if (x.point > 0 && x.point <= 21) {
        p = put(p, x.d, (size_t)x.point);
        *p++ = '.';
        p = put(p, x.d + x.point, (size_t)(x.n - x.point));
    } else if (x.point > -6 && x.point <= 0) {
        p = put(p, "0.", 2);
        p = put_zeros(p, -x.point);
        p = put(p, x.d, (size_t)x.n);
    } else {
        int e = x.point - 1;

        *p++ = x.d[0];
        if (x.n > 1) {
            *p++ = '.';
            p = put(p, x.d + 1, (size_t)x.n - 1);
        }
        *p++ = 'e';
        *p++ = e < 0 ? '-' : '+';
        p += snprintf(p, 5, "%d", abs(e));
    }
    ASSERT(p - out <= 25);
    return (size_t)(p - out);
}

/* --- the canonical text ------------------------------------------------------------------------------------- */

static bool decimal_equal(const struct decimal *a, const struct decimal *b)
{
    return a->negative == b->negative && a->n == b->n && a->point == b->point &&
        memcmp(a->digits, b->digits, a->n) == 0;
}

static const int64_t EXACT = (int64_t)1 << 53;      /* up to here each integer is a double of its own */

/*
 * Past 2^53 one double stands for several integers, and its shortest digits spell only one of them.  An integer that is
 * not that one keeps its own digits: two different integers never have one canonical form.  (A fraction takes the text
 * of its double, as RFC 8785 demands: 0.1 and 0.10000000000000001 are one.)
 */
static NOINLINE void canonical_slow(struct buf *out, const struct json *j)
{
    struct str raw = json_num_raw(j);
    struct decimal given, printed;
    char text[JSON_DOUBLE_TEXT];
    size_t n;
    double v;

    if (!json_double(j, &v))
        UNREACHABLE();
    n = json_double_text(v, text);
    decimal_from(&given, raw);
    decimal_from(&printed, str_n(text, n));
    if (!decimal_integral(&given) || given.n == 0 || decimal_equal(&given, &printed)) {
        buf_add(out, text, n);
        return;
    }
    /* point is at most 309: the number is in the range of a double */
    ASSERT(given.point <= DBL_MAX_10_EXP + 1);
    ASSERT(fabs(v) >= (double)EXACT);           /* a smaller integer is its double, and prints as itself */
    if (given.negative)
        buf_add_c(out, '-');
    buf_add(out, given.digits, given.n);
    for (int64_t i = given.n; i < given.point; i++)
        buf_add_c(out, '0');
}

void number_canonical(struct buf *out, const struct json *j)
{
    if (j->type == JSON_INT && j->u.i >= -EXACT && j->u.i <= EXACT)
        buf_add_i64(out, j->u.i);
    else
        canonical_slow(out, j);
}
