/*
 * clock.c -- days to dates and back (proleptic Gregorian), RFC 3339
 *
 *   date-time = YYYY-MM-DD ("T" / "t") HH:MM:SS [ "." 1*DIGIT ] ( "Z" / "z" / ("+" / "-") HH:MM )
 *
 * Years are counted from March, so that the leap day is the last day of a year, and in eras of 400 years, which all
 * have the same number of days.  A second 60 is taken where one can be (the last minute of a month, UTC) and becomes
 * the last millisecond of that minute: wall time has no leap seconds.  Digits past the millisecond are dropped.
 */
#include "base/clock.h"

enum { MS_PER_S = 1000, MS_PER_MIN = 60 * MS_PER_S, MS_PER_DAY = 24 * 60 * MS_PER_MIN };
enum { DAYS_PER_ERA = 146097, DAYS_TO_1970 = 719468 };     /* from 0000-03-01 to 1970-01-01 */

static const wall_ms_t wall_least = -62167219200000;       /* 0000-01-01T00:00:00.000Z */
static const wall_ms_t wall_most = 253402300799999;        /* 9999-12-31T23:59:59.999Z */

struct date {
    int year, month, day;
};

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static int64_t days_of(struct date d)
{
    int64_t year = d.month > 2 ? d.year : d.year - 1;
    int64_t era = floor_div(year, 400);
    int64_t of_era = year - era * 400;
    int64_t month = (d.month + 9) % 12;                     /* March is 0 */
    int64_t day_of_year = (153 * month + 2) / 5 + d.day - 1;

    return era * DAYS_PER_ERA + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - DAYS_TO_1970;
}

static struct date date_of(int64_t days)
{
    int64_t from_march = days + DAYS_TO_1970;
    int64_t era = floor_div(from_march, DAYS_PER_ERA);
    int64_t day = from_march - era * DAYS_PER_ERA;
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t day_of_year = day - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * day_of_year + 2) / 153;
    struct date d;

    d.day = (int)(day_of_year - (153 * month + 2) / 5) + 1;
    d.month = (int)(month < 10 ? month + 3 : month - 9);
    d.year = (int)(year + era * 400) + (d.month <= 2);
    return d;
}

static int days_in_month(int year, int month)
{
    static const int days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && leap);
}

static char *put_digits(char *at, int n, int64_t v)
{
    for (int i = n - 1; i >= 0; i--, v /= 10)
        at[i] = (char)('0' + v % 10);
    return at + n;
}

void wall_format(wall_ms_t t, char out[25])
{
    struct date d;
    int64_t days, ms;
    char *p = out;

    if (t < wall_least)
        t = wall_least;
    if (t > wall_most)
        t = wall_most;
    days = floor_div(t, MS_PER_DAY);
    ms = t - days * MS_PER_DAY;
    d = date_of(days);

    p = put_digits(p, 4, d.year);
    *p++ = '-';
    p = put_digits(p, 2, d.month);
    *p++ = '-';
    p = put_digits(p, 2, d.day);
    *p++ = 'T';
    p = put_digits(p, 2, ms / (60 * MS_PER_MIN));
    *p++ = ':';
    p = put_digits(p, 2, ms / MS_PER_MIN % 60);
    *p++ = ':';
    p = put_digits(p, 2, ms / MS_PER_S % 60);
    *p++ = '.';
    p = put_digits(p, 3, ms % MS_PER_S);
    *p++ = 'Z';
    *p = 0;
}

/* Takes n digits off the front; -1 if they are not there. */
static int take_digits(struct str *s, size_t n)
{
    int v = 0;

    if (s->len < n)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (s->p[i] < '0' || s->p[i] > '9')
            return -1;
        v = v * 10 + (s->p[i] - '0');
    }
    *s = str_from(*s, n);
    return v;
}

static bool take_char(struct str *s, char a, char b)
{
    if (s->len == 0 || (s->p[0] != a && s->p[0] != b))
        return false;
    *s = str_from(*s, 1);
    return true;
}

static bool take_date(struct str *s, struct date *ret)
{
    struct date d;

    d.year = take_digits(s, 4);
    if (d.year < 0 || !take_char(s, '-', '-'))
        return false;
    d.month = take_digits(s, 2);
    if (d.month < 1 || d.month > 12 || !take_char(s, '-', '-'))
        return false;
    d.day = take_digits(s, 2);
    if (d.day < 1 || d.day > days_in_month(d.year, d.month))
        return false;
    *ret = d;
    return true;
}

/* HH:MM as milliseconds, or -1. */
static int64_t take_hours(struct str *s)
{
    int hour, minute;

    hour = take_digits(s, 2);
    if (hour < 0 || hour > 23 || !take_char(s, ':', ':'))
        return -1;
    minute = take_digits(s, 2);
    if (minute < 0 || minute > 59)
        return -1;
    return (int64_t)(hour * 60 + minute) * MS_PER_MIN;
}

/* Optional "." and digits, as milliseconds; -1 if there is a "." without digits. */
static int64_t take_fraction(struct str *s)
{
    int64_t ms = 0;
    int digit, n = 0;

    if (!take_char(s, '.', '.'))
        return 0;
    for (; (digit = take_digits(s, 1)) >= 0; n++) {
        if (n < 3)
            ms = ms * 10 + digit;
    }
    if (n == 0)
        return -1;
    for (; n < 3; n++)
        ms *= 10;
    return ms;
}

/* Z or an offset, as the milliseconds to subtract. */
static bool take_zone(struct str *s, int64_t *ret)
{
    bool west;
    int64_t ms;

    if (take_char(s, 'Z', 'z')) {
        *ret = 0;
        return true;
    }
    if (s->len == 0)
        return false;
    west = s->p[0] == '-';
    if (!take_char(s, '+', '-'))
        return false;
    ms = take_hours(s);
    if (ms < 0)
        return false;
    *ret = west ? -ms : ms;
    return true;
}

/* Does a leap second fit at the end of the minute that starts at t? */
static bool minute_may_leap(wall_ms_t t)
{
    int64_t days = floor_div(t, MS_PER_DAY);
    struct date d = date_of(days);

    return t - days * MS_PER_DAY == MS_PER_DAY - MS_PER_MIN && d.day == days_in_month(d.year, d.month);
}

enum err wall_parse(struct str s, wall_ms_t *ret)
{
    struct date d;
    int64_t hours, fraction, zone;
    wall_ms_t t;
    int second;

    if (!take_date(&s, &d) || !take_char(&s, 'T', 't'))
        return E_FORMAT;
    hours = take_hours(&s);
    if (hours < 0 || !take_char(&s, ':', ':'))
        return E_FORMAT;
    second = take_digits(&s, 2);
    if (second < 0 || second > 60)
        return E_FORMAT;
    fraction = take_fraction(&s);
    if (fraction < 0 || !take_zone(&s, &zone) || s.len > 0)
        return E_FORMAT;

    t = days_of(d) * MS_PER_DAY + hours - zone;
    if (second == 60) {
        if (!minute_may_leap(t))
            return E_FORMAT;
        second = 59;
        fraction = 999;
    }
    t += second * MS_PER_S + fraction;
    if (t < wall_least || t > wall_most)
        return E_FORMAT;
    *ret = t;
    return OK;
}
