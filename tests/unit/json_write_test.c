/*
 * json_write_test.c -- literals: what is escaped and how, at every length, in buffers that just hold them; and text
 * that is written twice in one pass
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/check.h"
#include "dice.h"
#include "json/json.h"

static void test_escapes(void **state)
{
    struct buf b = BUF_INIT(1 << 16);
    char all[0x20];

    for (int i = 0; i < 0x20; i++)
        all[i] = (char)i;
    buf_add_json_str(&b, str_n(all, sizeof(all)));
    assert_true(str_is(buf_str(&b),
        "\"\\u0000\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\b\\t\\n\\u000b\\f\\r\\u000e\\u000f"
        "\\u0010\\u0011\\u0012\\u0013\\u0014\\u0015\\u0016\\u0017"
        "\\u0018\\u0019\\u001a\\u001b\\u001c\\u001d\\u001e\\u001f\""));
    buf_clear(&b);
    buf_add_json_str(&b, STR("\"\\/\x7f\xe2\x80\xa8\xf0\x9f\x98\x80"));
    assert_true(str_is(buf_str(&b), "\"\\\"\\\\/\x7f\xe2\x80\xa8\xf0\x9f\x98\x80\""));
    buf_clear(&b);
    buf_add_json_str(&b, STR("a\xff" "b\xc3(\xed\xa0\x80\xe2\x82"));
    assert_true(str_is(buf_str(&b),
        "\"a\xef\xbf\xbd" "b\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""));
    assert_true(str_utf8_valid(buf_str(&b)));
    buf_clear(&b);
    buf_add_json_str(&b, STR_NULL);
    assert_true(str_is(buf_str(&b), "\"\""));
    buf_release(&b);
}

/* A text as a key and as a value, with room for one byte more or less, or with what the buffer gets by itself. */
static void assert_member_written(struct str text, struct str literal)
{
    size_t n = 2 * literal.len + 3;
    struct arena arena;
    struct json *o;
    struct buf b;

    arena_init(&arena, 4096);
    o = json_object(&arena);
    json_set_key(&arena, o, text, json_string_ref(&arena, text));
    for (size_t room = n - 1; room <= n + 2; room++) {
        b = BUF_INIT(room > n + 1 ? n : room);
        if (room <= n + 1)
            assert_non_null(buf_reserve(&b, room));
        json_write(&b, o);
        assert_int_equal(b.overflow, room < n);
        assert_true(b.overflow || b.len == n);
        assert_true(b.len < 1 + literal.len || memcmp(b.p + 1, literal.p, literal.len) == 0);
        assert_true(b.overflow || memcmp(b.p + literal.len + 2, literal.p, literal.len) == 0);
        buf_release(&b);
    }
    arena_release(&arena);
}

/* The vector code and its ends: each length, each kind of byte at each place, in a buffer that just holds the text. */
static void test_escapes_everywhere(void **state)
{
    static const char *const specials[] = { "\"", "\\", "\n", "\x01", "\xc3\xa9", "\xff", "\xe2\x82\xac" };
    static const char *const escaped[] = {
        "\\\"", "\\\\", "\\n", "\\u0001", "\xc3\xa9", "\xef\xbf\xbd", "\xe2\x82\xac",
    };
    char in[128], want[256];

    for (size_t len = 0; len < 70; len++) {
        for (size_t at = 0; at <= len; at++) {
            size_t kind = (len + at) % ARRAY_LEN(specials), n = 0, w = 0;
            size_t more = strlen(specials[kind]), wide = strlen(escaped[kind]);
            struct buf b;

            want[w++] = '"';
            memset(in, 'a', len);
            memset(want + w, 'a', len);
            memcpy(in + at, specials[kind], more);
            memcpy(want + w + at, escaped[kind], wide);
            memset(in + at + more, 'b', len - at);
            memset(want + w + at + wide, 'b', len - at);
            n = len + more;
            w += len + wide;
            want[w++] = '"';
            b = BUF_INIT(w);
            buf_add_json_str(&b, str_n(in, n));
            assert_true(!b.overflow && str_eq(buf_str(&b), str_n(want, w)));
            buf_release(&b);
            assert_non_null(buf_reserve(&b, w));
            buf_add_json_str(&b, str_n(in, n));
            assert_true(!b.overflow && str_eq(buf_str(&b), str_n(want, w)));
            buf_release(&b);
            assert_member_written(str_n(in, n), str_n(want, w));
            b = BUF_INIT(w - 1);
            buf_add_json_str(&b, str_n(in, n));
            assert_true(b.overflow && b.len < w && (b.len == 0 || memcmp(b.p, want, b.len) == 0));
            buf_release(&b);
            b = BUF_INIT(2 * w);
            buf_add_c(&b, '"');
            buf_add_json_part(&b, str_n(in, at));
            buf_add_json_part(&b, str_n(in + at, n - at));
            buf_add_c(&b, '"');
            assert_true(str_eq(buf_str(&b), str_n(want, w)));
            buf_release(&b);
        }
    }
}

/* Quotes as close as they come in JSON that is inside a string, against one byte at a time. */
static void test_escapes_close_together(void **state)
{
    static const char letters[] = { 'a', 'b', 'c', 'd', 'e', '"', '"', '\\', '\n' };
    char in[300], want[602];

    seed = 18;
    for (int round = 0; round < 4000; round++) {
        size_t n = below(sizeof(in)), w = 0, common = 1 + below(ARRAY_LEN(letters));
        struct buf b;

        want[w++] = '"';
        for (size_t i = 0; i < n; i++) {
            in[i] = letters[(below((unsigned)common) + 5) % ARRAY_LEN(letters)];
            if (in[i] < 'a')
                want[w++] = '\\';
            want[w++] = in[i];
            if (in[i] == '\n')
                want[w - 1] = 'n';
        }
        want[w++] = '"';
        b = BUF_INIT(w);
        buf_add_json_str(&b, str_n(in, n));
        assert_true(!b.overflow && str_eq(buf_str(&b), str_n(want, w)));
        buf_release(&b);
    }
}

/* --- twice at once: the text, and the same inside of a literal -------------------------------------------------- */

static struct str any_text(struct arena *a, unsigned longest)
{
    static const char *const pieces[] = { "\"", "\\", "\n", "\x01", "\xc3\xa9", "\xff", "\xe2\x82\xac", "word", " " };
    struct str s = STR("");

    for (unsigned left = below(longest); s.len < left;) {
        struct str piece = str_of(below(4) ? "abc" : PICK_FROM(pieces));

        s = ARENA_CAT(a, s, piece);
    }
    return s;
}

static struct json *any_tree(struct arena *a, unsigned depth)
{
    static const char *const parsed[] = { "\"plain\"", "\"pl\\u0041in\"", "\"caf\xc3\xa9 as it came\"", "-1.50", "[]",
        "{\"k\":\"v\",\"\\n\":[\"a longer text than those that are copied without a call, and plain\"]}" };
    struct json *j = NULL;

    switch (depth == 3 && below(8) ? 7 + below(2) : below(depth ? 9 : 7)) {
    case 0: return json_string(a, any_text(a, 20));
    case 1: return json_string(a, any_text(a, 90));
    case 2: return json_int_new(a, (int64_t)below(100000) - 50000);
    case 3: return json_bool_new(a, below(2));
    case 4: return json_null_new(a);
    case 5: return json_raw(a, str_of(PICK_FROM(parsed)));
    case 6:
        assert_int_equal(json_parse(a, str_of(PICK_FROM(parsed)), NULL, &j, NULL), OK);
        return j;
    case 7:
        j = json_array(a);
        for (unsigned n = below(5); n; n--)
            json_push(a, j, any_tree(a, depth - 1));
        return j;
    default:
        j = json_object(a);
        for (unsigned n = below(7); n; n--)
            json_set_key(a, j, any_text(a, below(6) ? 12 : 60), any_tree(a, depth - 1));
        return j;
    }
}

/* In buffers that just hold it, or lack a byte, with room from the first on or as it is asked for. */
static void assert_twice(const struct json *j, struct str text, struct str inside)
{
    for (unsigned way = 0; way < 16; way++) {
        struct buf out = BUF_INIT(text.len + !(way & 1) - 1), literal = BUF_INIT(inside.len + !(way & 2) - 1);

        if (way & 4 && out.max)
            assert_non_null(buf_reserve(&out, out.max));
        if (way & 8 && literal.max)
            assert_non_null(buf_reserve(&literal, literal.max));
        json_write_twice(&out, &literal, j);
        if (way & 3) {
            assert_true(out.overflow || literal.overflow);
            assert_true(!(way & 1) || out.overflow);
        } else {
            assert_true(!out.overflow && str_eq(buf_str(&out), text));
            assert_true(!literal.overflow && str_eq(buf_str(&literal), inside));
        }
        assert_true(out.len <= out.max && literal.len <= literal.max);
        buf_release(&out);
        buf_release(&literal);
    }
}

static void test_twice_is_once_and_quoted(void **state)
{
    seed = 11;
    for (int round = 0; round < 8000; round++) {
        struct buf text = BUF_INIT(1 << 20), inside = BUF_INIT(1 << 20);
        struct arena a;
        struct json *j;

        arena_init(&a, 1 << 20);
        j = any_tree(&a, 3);
        assert_false(arena_overflowed(&a));
        json_write(&text, j);
        buf_add_json_part(&inside, buf_str(&text));
        assert_false(text.overflow || inside.overflow);
        assert_twice(j, buf_str(&text), buf_str(&inside));
        buf_release(&text);
        buf_release(&inside);
        arena_release(&a);
    }
}

/* What json_write() refuses, or writes instead of nothing, is not another thing here. */
static void test_twice_at_the_ends(void **state)
{
    struct buf out = BUF_INIT(1 << 16), literal = BUF_INIT(1 << 16);
    struct json *deep, *under;
    struct arena a;

    arena_init(&a, 1 << 20);
    json_write_twice(&out, &literal, NULL);
    assert_true(str_is(buf_str(&out), "null") && str_is(buf_str(&literal), "null"));
    deep = json_array(&a);
    for (unsigned n = 1; n <= JSON_DEPTH_MAX; n++, deep = under) {
        under = json_array(&a);
        json_push(&a, under, deep);
        buf_clear(&out);
        buf_clear(&literal);
        json_write_twice(&out, &literal, under);
        assert_int_equal(out.overflow, n == JSON_DEPTH_MAX);
        assert_int_equal(literal.overflow, n == JSON_DEPTH_MAX);
    }
    buf_release(&out);
    buf_release(&literal);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escapes), cmocka_unit_test(test_escapes_everywhere),
        cmocka_unit_test(test_escapes_close_together), cmocka_unit_test(test_twice_is_once_and_quoted),
        cmocka_unit_test(test_twice_at_the_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
