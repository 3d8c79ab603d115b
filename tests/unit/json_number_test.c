/*
 * json_number_test.c -- numbers: what is read, what is kept, how they compare, how ECMAScript prints them
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <locale.h>
#include <math.h>
#include <stdio.h>

#include "base/check.h"
#include "json/json.h"

static struct arena arena;

static int setup(void **state)
{
    arena_init(&arena, 8 << 20);
    return 0;
}

static int teardown(void **state)
{
    arena_release(&arena);
    return 0;
}

static struct json *parse(const char *text)
{
    struct json *j = NULL;

    assert_int_equal(json_parse(&arena, str_of(text), NULL, &j, NULL), OK);
    return j;
}

static bool refused(const char *text, const char *message)
{
    struct json_error where = { 0 };
    struct json *j;

    return json_parse(&arena, str_of(text), NULL, &j, &where) == E_JSON_MALFORMED && strstr(where.message, message);
}

static struct str canonical(const struct json *j)
{
    struct buf b = BUF_INIT(1 << 16);
    struct str s;

    json_canonical(&b, j);
    assert_false(b.overflow);
    s = arena_str(&arena, buf_str(&b));
    buf_release(&b);
    return s;
}

static void test_types_and_values(void **state)
{
    static const struct { const char *text; enum json_type type; bool integer; int64_t i; double d; } cases[] = {
        { "0", JSON_INT, true, 0, 0 },
        { "-0", JSON_INT, true, 0, -0.0 },
        { "-1", JSON_INT, true, -1, -1 },
        { "9223372036854775807", JSON_INT, true, INT64_MAX, 9223372036854775807.0 },
        { "-9223372036854775808", JSON_INT, true, INT64_MIN, -9223372036854775808.0 },
        { "9223372036854775808", JSON_NUMBER, false, 0, 9223372036854775808.0 },
        { "-9223372036854775809", JSON_NUMBER, false, 0, -9223372036854775808.0 },
        { "18446744073709551616", JSON_NUMBER, false, 0, 18446744073709551616.0 },
        { "99999999999999999999", JSON_NUMBER, false, 0, 1e20 },
        { "1.0", JSON_NUMBER, true, 1, 1 },
        { "1e3", JSON_NUMBER, true, 1000, 1000 },
        { "-9223372036854775808.000", JSON_NUMBER, true, INT64_MIN, -9223372036854775808.0 },
        { "-92233720368547758080e-1", JSON_NUMBER, true, INT64_MIN, -9223372036854775808.0 },
        { "9223372036854775808.0", JSON_NUMBER, false, 0, 9223372036854775808.0 },
        { "0.1e1", JSON_NUMBER, true, 1, 1 },
        { "0.0", JSON_NUMBER, true, 0, 0 },
        { "0e999999999999999999999", JSON_NUMBER, true, 0, 0 },
        { "1.5", JSON_NUMBER, false, 0, 1.5 },
        { "-0.000", JSON_NUMBER, true, 0, -0.0 },
        { "123456789012345678e-2", JSON_NUMBER, false, 0, 1234567890123456.78 },
        { "1e-400", JSON_NUMBER, false, 0, 0 },
        { "1.7976931348623157e308", JSON_NUMBER, false, 0, 1.7976931348623157e308 },
        { "4.9e-324", JSON_NUMBER, false, 0, 4.9e-324 },
        { "9007199254740993.0", JSON_NUMBER, true, 9007199254740993, 9007199254740992.0 },
        { "0.000000000000000000000001e24", JSON_NUMBER, true, 1, 1 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct json *j = parse(cases[i].text);
        int64_t v = 0;
        double d = 7;

        assert_int_equal(json_type(j), cases[i].type);
        assert_true(str_is(json_num_raw(j), cases[i].text));
        if (json_int(j, &v) != cases[i].integer || v != cases[i].i)
            fail_msg("%s as an integer: %lld", cases[i].text, (long long)v);
        assert_true(json_double(j, &d));
        if (d != cases[i].d || signbit(d) != signbit(cases[i].d))
            fail_msg("%s as a double: %.17g", cases[i].text, d);
    }
}

static void test_grammar_and_range(void **state)
{
    static const char *const bad[] = { "01", "-01", "-", "+1", ".5", "1.", "1.e3", "1e", "1e+", "1e-", "0x10", "1_0",
        "Infinity", "-Infinity", "NaN", "00", "- 1", "1.2.3", "1e2e3", "1e1.5", "\xef\xbc\x91" };
    char text[JSON_NUMBER_MAX + 10];

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (!refused(bad[i], ""))
            fail_msg("%s was accepted", bad[i]);
    assert_true(refused("1e309", "out of range"));
    assert_true(refused("-1.7976931348623159e308", "out of range"));
    assert_true(refused("1e99999999999999999999", "out of range"));

    memset(text, '1', sizeof(text));
    text[1] = '.';
    text[JSON_NUMBER_MAX] = 0;
    assert_true(str_is(json_num_raw(parse(text)), text));
    text[JSON_NUMBER_MAX] = '1';
    text[JSON_NUMBER_MAX + 1] = 0;
    assert_true(refused(text, "too many digits"));
    memset(text, '1', sizeof(text));
    text[sizeof(text) - 1] = 0;
    assert_true(refused(text, "too many digits"));
}

static void test_compare_exactly(void **state)
{
    /* each is less than the next one */
    static const char *const rising[] = { "-1e300", "-9223372036854775809", "-9223372036854775808",
        "-9223372036854775807.5", "-1.5", "-1.25", "-1e-400", "0", "1e-99999999999", "1e-400", "0.1",
        "0.1000000000000000055", "0.11", "1", "1.0000000001", "9007199254740992", "9007199254740993",
        "9007199254740993.5", "9223372036854775807", "9223372036854775808", "1e19",
        "1.00000000000000000000000000001e19" };
    static const char *const same[][2] = { { "1", "1.0" }, { "1", "10e-1" }, { "0", "-0" }, { "0", "-0.00e17" },
        { "100", "1e2" }, { "0.001", "1e-3" }, { "12300", "123e2" }, { "-5.50", "-5.5" },
        { "9223372036854775808", "9.223372036854775808E+18" } };

    for (size_t i = 0; i < ARRAY_LEN(rising); i++) {
        for (size_t k = 0; k < ARRAY_LEN(rising); k++) {
            struct json *a = parse(rising[i]), *b = parse(rising[k]);
            int want = (i > k) - (i < k), got = json_num_cmp(a, b);

            if (got != want)
                fail_msg("%s against %s: %d", rising[i], rising[k], got);
            assert_int_equal(json_equal(a, b), want == 0);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        if (!json_equal(parse(same[i][0]), parse(same[i][1])))
            fail_msg("%s is not %s", same[i][0], same[i][1]);
    assert_true(json_is_integral(parse("1e300")));
    assert_true(json_is_integral(parse("-0.0")));
    assert_true(json_is_integral(parse("12345678901234567890.000")));
    assert_false(json_is_integral(parse("12345678901234567890.001")));
    assert_false(json_is_integral(parse("1e-400")));
    assert_false(json_is_integral(parse("\"1\"")));
}

static void assert_prints(uint64_t bits, const char *want)
{
    char text[JSON_DOUBLE_TEXT];
    struct json *j;
    double v, back;
    size_t n;

    memcpy(&v, &bits, 8);
    n = json_double_text(v, text);
    if (n != strlen(want) || memcmp(text, want, n) != 0)
        fail_msg("%016llx prints as %.*s, not %s", (unsigned long long)bits, (int)n, text, want);
    j = json_double_new(&arena, v);
    assert_true(str_is(canonical(j), want));
    assert_true(str_is(canonical(parse(want)), want));
    assert_true(json_double(parse(want), &back) && back == v);
}

/* RFC 8785, appendix B; the last four are powers of two, where the doubles below are denser than those above. */
static void test_ecmascript_text(void **state)
{
    static const struct { uint64_t bits; const char *text; } cases[] = {
        { 0x0000000000000000, "0" },
        { 0x8000000000000000, "0" },
        { 0x0000000000000001, "5e-324" },
        { 0x8000000000000001, "-5e-324" },
        { 0x7fefffffffffffff, "1.7976931348623157e+308" },
        { 0xffefffffffffffff, "-1.7976931348623157e+308" },
        { 0x4340000000000000, "9007199254740992" },
        { 0xc340000000000000, "-9007199254740992" },
        { 0x4430000000000000, "295147905179352830000" },
        { 0x44b52d02c7e14af5, "9.999999999999997e+22" },
        { 0x44b52d02c7e14af6, "1e+23" },
        { 0x44b52d02c7e14af7, "1.0000000000000001e+23" },
        { 0x444b1ae4d6e2ef4e, "999999999999999700000" },
        { 0x444b1ae4d6e2ef4f, "999999999999999900000" },
        { 0x444b1ae4d6e2ef50, "1e+21" },
        { 0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7" },
        { 0x3eb0c6f7a0b5ed8d, "0.000001" },
        { 0x41b3de4355555553, "333333333.3333332" },
        { 0x41b3de4355555554, "333333333.33333325" },
        { 0x41b3de4355555555, "333333333.3333333" },
        { 0x41b3de4355555556, "333333333.3333334" },
        { 0x41b3de4355555557, "333333333.33333343" },
        { 0xbecbf647612f3696, "-0.0000033333333333333333" },
        { 0x43143ff3c1cb0959, "1424953923781206.2" },
        { 0x3fb999999999999a, "0.1" },
        { 0x3fd3333333333334, "0.30000000000000004" },
        { 0x4059000000000000, "100" },
        { 0x430c6bf526340000, "1000000000000000" },
        { 0x3ee4f8b588e368f1, "0.00001" },
        { 0x3d30000000000000, "5.684341886080802e-14" },
        { 0x0010000000000000, "2.2250738585072014e-308" },
        { 0x3c90000000000000, "5.551115123125783e-17" },
        { 0x4580000000000000, "6.189700196426902e+26" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_prints(cases[i].bits, cases[i].text);
    assert_null(json_double_new(&arena, INFINITY));
    assert_true(arena_overflowed(&arena));
}

static void test_canonical_integers_stay_distinct(void **state)
{
    static const struct { const char *text, *want; } cases[] = {
        { "-0", "0" }, { "1.0", "1" }, { "1e2", "100" }, { "4.50", "4.5" }, { "2e-3", "0.002" }, { "1E30", "1e+30" },
        { "9007199254740991", "9007199254740991" },
        { "9007199254740992", "9007199254740992" },
        { "9007199254740993", "9007199254740993" },         /* not a double */
        { "9007199254740993.0", "9007199254740993" },
        { "-9223372036854775808", "-9223372036854775808" }, /* a double that prints as another integer */
        { "1152921504606846976", "1152921504606846976" },
        { "1152921504606847000", "1152921504606847000" },
        { "295147905179352825856", "295147905179352825856" },
        { "295147905179352830000", "295147905179352830000" },
        { "12345678901234567890e2", "1234567890123456789000" },
        { "123456789e20", "1.23456789e+28" },
        { "0.10000000000000001", "0.1" },                   /* a fraction is its double, says the RFC */
        { "1e-400", "0" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str got = canonical(parse(cases[i].text));

        if (!str_is(got, cases[i].want))
            fail_msg("%s became %.*s", cases[i].text, STR_ARG(got));
    }
}

static uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* Reads back as itself, and no text with one digit less does. */
static void assert_shortest(double v)
{
    char text[JSON_DOUBLE_TEXT + 1], shorter[64];
    int digits = 0, zeros = 0;
    bool leading = true;
    size_t n = json_double_text(v, text);

    text[n] = 0;
    if (strtod(text, NULL) != v)
        fail_msg("%.17g printed as %s", v, text);
    for (size_t i = 0; i < n && text[i] != 'e'; i++) {
        if (text[i] < '0' || text[i] > '9')
            continue;
        leading = leading && text[i] == '0';
        zeros = text[i] == '0' ? zeros + 1 : 0;
        digits += !leading;
    }
    digits -= zeros;            /* the zeros of 1500 are not digits of its shortest form */
    if (digits < 2)
        return;
    snprintf(shorter, sizeof(shorter), "%.*e", digits - 2, v);
    if (strtod(shorter, NULL) == v)
        fail_msg("%s could be %s", text, shorter);
}

static void test_random_doubles(void **state)
{
    uint64_t seed = 20260728;

    for (int i = 0; i < 20000; i++) {
        uint64_t bits = random_bits(&seed);
        double v;

        memcpy(&v, &bits, 8);
        if (isfinite(v))
            assert_shortest(v);
        bits = (bits & 0xfffffffffffff) >> bits % 52;
        memcpy(&v, &bits, 8);               /* a subnormal */
        assert_shortest(v);
        assert_shortest((double)(int64_t)(bits >> 20) / 1000);
        assert_shortest(ldexp(1, (int)(bits % 2000) - 1000));
    }
}

/* The quick way to a double must be the right way: compared with the C library's, which is correctly rounded. */
static void test_random_texts(void **state)
{
    uint64_t seed = 8785;
    char text[80];

    for (int i = 0; i < 50000; i++) {
        uint64_t bits = random_bits(&seed);
        double got = 0;

        if (i % 1000 == 0)
            arena_clear(&arena);
        snprintf(text, sizeof(text), "%llu.%0*llue%d", (unsigned long long)(bits >> (bits % 60)), (int)(bits % 9) + 1,
            (unsigned long long)(bits % 100), (int)(bits % 61) - 30);
        assert_true(json_double(parse(text), &got));
        if (got != strtod(text, NULL))
            fail_msg("%s read as %.17g", text, got);
    }
}

/* In a locale whose decimal point is a comma nothing changes. */
static void test_locale(void **state)
{
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "fr_FR.utf8", "de_DE",
        "ru_RU.UTF-8" };
    const char *found = NULL;
    double v = 0;

    for (size_t i = 0; i < ARRAY_LEN(names) && !found; i++)
        found = setlocale(LC_ALL, names[i]);
    if (!found) {
        print_message("skipped: no locale with a decimal comma is installed\n");
        skip();
    }
    assert_true(json_double(parse("1234567890.123456789012345"), &v));
    setlocale(LC_ALL, "C");
    assert_true(v == 1234567890.123456789012345);
    setlocale(LC_ALL, found);
    assert_prints(0x3fd3333333333334, "0.30000000000000004");
    assert_prints(0x41b3de4355555557, "333333333.33333343");
    setlocale(LC_ALL, "C");
}

static void test_built_integers(void **state)
{
    static const int64_t values[] = { 0, 7, -7, 10, 1000000, INT64_MAX, INT64_MIN };
    int64_t v;

    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        struct json *j = json_int_new(&arena, values[i]);
        char text[32];

        snprintf(text, sizeof(text), "%lld", (long long)values[i]);
        assert_true(str_is(json_num_raw(j), text));
        assert_true(json_int(j, &v) && v == values[i]);
        assert_true(json_equal(j, parse(text)));
    }
    assert_true(json_int(json_double_new(&arena, 3), &v) && v == 3);
    assert_true(json_equal(json_double_new(&arena, 0.5), parse("0.50")));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_types_and_values), T(test_grammar_and_range), T(test_compare_exactly), T(test_ecmascript_text),
        T(test_canonical_integers_stay_distinct), T(test_random_doubles), T(test_random_texts), T(test_locale),
        T(test_built_integers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
