/* base_escape_test.c -- URLs and forms, HTML, what a terminal must not be given */
#include "base_test.h"

#include "base/escape.h"

static struct str percent(struct buf *b, struct str s)
{
    buf_clear(b);
    buf_add_percent(b, s);
    return buf_str(b);
}

static void test_hex_digits(void **state)
{
    unsigned found = 0;

    (void)state;
    for (int c = -128; c < 128; c++) {
        const char *at = c > 0 ? strchr("0123456789abcdefABCDEF", c) : NULL;

        if (at)
            assert_int_equal(hex_digit((char)c), at - "0123456789abcdefABCDEF" - (*at >= 'A' && *at <= 'F' ? 6 : 0));
        else
            assert_int_equal(hex_digit((char)c), -1);
        found += at != NULL;
    }
    assert_int_equal(found, 22);
}

static void test_percent_leaves_only_the_unreserved(void **state)
{
    struct buf b = BUF_INIT(1024);
    char all[256];

    (void)state;
    for (int c = 0; c < 256; c++)
        all[c] = (char)c;
    assert_int_equal(percent(&b, str_n(all, 256)).len, 66 + 190 * 3);
    assert_true(str_is(percent(&b, STR("a/b?c=d&e f+g%~")), "a%2Fb%3Fc%3Dd%26e%20f%2Bg%25~"));
    assert_true(str_is(percent(&b, STR("\0\r\n\xc3\xa9")), "%00%0D%0A%C3%A9"));
    assert_true(str_is(percent(&b, STR_NULL), ""));
    buf_release(&b);
}

/* Texts of every length up to forty, against a look at each byte; what is behind the room stays. */
static void test_percent_of_any_length(void **state)
{
    static const char some[] = "azAZ09-._~ ,$/=%\x01\x7f\x80\xff@[`{";

    (void)state;
    srand(11);
    for (int round = 0; round < 20000; round++) {
        char text[40], expected[120];
        size_t n = (size_t)rand() % sizeof(text), len = 0;
        struct buf b = BUF_INIT(200);

        for (size_t i = 0; i < n; i++) {
            unsigned char c = (unsigned char)some[rand() % (rand() % 4 ? 10 : (int)sizeof(some))];

            text[i] = (char)c;
            if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("-._~", c)))
                expected[len++] = (char)c;
            else
                len += (size_t)snprintf(expected + len, 4, "%%%02X", c);
        }
        assert_true(str_eq(percent(&b, str_n(text, n)), str_n(expected, len)));
        buf_release(&b);
    }
}

static void test_percent_fits_or_is_not_begun(void **state)
{
    struct buf b = BUF_INIT(10);

    (void)state;
    assert_true(str_is(percent(&b, STR("abcd//")), "abcd%2F%2F"));
    assert_int_equal(percent(&b, STR("abcde//")).len, 0);
    assert_true(b.overflow);
    assert_int_equal(percent(&b, STR("")).len, 0);
    assert_false(b.overflow);
    buf_release(&b);
}

static void test_a_form_gives_back_what_was_put_in(void **state)
{
    struct arena a;
    struct buf b = BUF_INIT(2048);
    char all[256];

    (void)state;
    arena_init(&a, 64 * 1024);
    for (int c = 0; c < 256; c++)
        all[c] = (char)(c + 1);                 /* the last is the NUL that ends it as a name */
    buf_add_z(&b, "first=1&");
    buf_add_percent(&b, str_of(all));
    buf_add_c(&b, '=');
    buf_add_percent(&b, str_n(all, 256));
    assert_true(str_eq(form_value(&a, buf_str(&b), all), str_n(all, 256)));
    assert_true(str_is(form_value(&a, buf_str(&b), "first"), "1"));
    assert_int_equal(form_value(&a, buf_str(&b), "other").len, 0);
    buf_release(&b);
    arena_release(&a);
}

static void test_forms(void **state)
{
    static const struct {
        const char *form, *name, *value;
    } rows[] = {
        { "a=1&b=2", "a", "1" },          { "a=1&b=2", "b", "2" },          { "a=1&a=2", "a", "1" },
        { "a", "a", "" },                 { "a=", "a", "" },                { "aa=1&a=2", "a", "2" },
        { "%61=1", "a", "1" },            { "a=x+y%20z", "a", "x y z" },    { "a=%2b%2B", "a", "++" },
        { "a=%", "a", "%" },              { "a=%4", "a", "%4" },            { "a=%zz%41", "a", "%zzA" },
        { "a=b=c", "a", "b=c" },          { "&&a=1&", "a", "1" },           { "", "a", "" },
        { "=1", "", "1" },                { "a=1;b=2", "b", "" },
    };
    struct arena a;

    (void)state;
    arena_init(&a, 64 * 1024);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!str_is(form_value(&a, str_of(rows[i].form), rows[i].name), rows[i].value))
            fail_msg("%s: %s", rows[i].form, rows[i].name);
    arena_release(&a);
    arena_init(&a, 1);
    assert_null(form_value(&a, STR("a=0123456789"), "a").p);
    arena_release(&a);
}

static void test_html(void **state)
{
    struct buf b = BUF_INIT(256);

    (void)state;
    buf_add_html(&b, STR("<a href=\"x\">'&'</a>\xc3\xa9\0."));
    assert_true(str_eq(buf_str(&b), STR("&#60;a href=&#34;x&#34;&#62;&#39;&#38;&#39;&#60;/a&#62;\xc3\xa9\0.")));
    buf_release(&b);
}

static void test_code_points(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        uint32_t c;
    } rows[] = {
        { "a", 1, 'a' },           { "\xc3\xa9.", 2, 0xe9 },          { "\xe2\x80\xae", 3, 0x202e },
        { "\xf0\x9f\x98\x80", 4, 0x1f600 },
        { "\x80", 0, 0 },          { "\xc3", 0, 0 },                  { "\xc0\xaf", 0, 0 },
        { "\xed\xa0\x80", 0, 0 },  { "\xf4\x90\x80\x80", 0, 0 },      { "\xff", 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t c = 0;

        assert_int_equal(utf8_first(str_of(rows[i].text), &c), rows[i].len);
        assert_int_equal(c, rows[i].c);
    }
}

static void test_what_hides(void **state)
{
    static const uint32_t hides[] = { 0, '\n', 0x1b, 0x7f, 0x9b, 0xad, 0x61c, 0x200b, 0x200f, 0x2028, 0x202e, 0x2066,
                                      0xfeff, 0xe0041 };
    static const uint32_t shows[] = { ' ', '~', 0xa0, 0xe9, 0x3042, 0x1f600 };

    (void)state;
    for (size_t i = 0; i < sizeof(hides) / sizeof(hides[0]); i++)
        assert_true(char_hides(hides[i]));
    for (size_t i = 0; i < sizeof(shows) / sizeof(shows[0]); i++)
        assert_false(char_hides(shows[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hex_digits),
        cmocka_unit_test(test_percent_leaves_only_the_unreserved),
        cmocka_unit_test(test_percent_of_any_length),
        cmocka_unit_test(test_percent_fits_or_is_not_begun),
        cmocka_unit_test(test_a_form_gives_back_what_was_put_in),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_html),
        cmocka_unit_test(test_code_points),
        cmocka_unit_test(test_what_hides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
