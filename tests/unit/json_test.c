/*
 * json_test.c -- the tree: what the parser refuses and where, limits, building, comparing, writing
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "json/json.h"

static struct arena arena;

static int setup(void **state)
{
    arena_init(&arena, 256 << 20);
    return 0;
}

static int teardown(void **state)
{
    arena_release(&arena);
    return 0;
}

static struct json *parse_str(struct str text)
{
    struct json_error where = { 0 };
    struct json *j = NULL;

    if (json_parse(&arena, text, NULL, &j, &where) != OK)
        fail_msg("%.*s: %s at %zu", STR_ARG(text), where.message, where.offset);
    return j;
}

static struct json *parse(const char *text)
{
    return parse_str(str_of(text));
}

static void refuse_str(struct str text, const char *message, size_t offset)
{
    struct json_error where = { 0 };
    struct json *j;
    enum err e = json_parse(&arena, text, NULL, &j, &where);

    if (e != E_JSON_MALFORMED)
        fail_msg("%.*s: %s", STR_ARG(text), e ? err_name(e) : "accepted");
    if (!strstr(where.message, message) || where.offset != offset)
        fail_msg("%.*s: \"%s\" at %zu", STR_ARG(text), where.message, where.offset);
}

static void refuse(const char *text, const char *message, size_t offset)
{
    refuse_str(str_of(text), message, offset);
}

static struct str written(void (*f)(struct buf *, const struct json *), const struct json *j)
{
    struct buf b = BUF_INIT(64 << 20);
    struct str s;

    f(&b, j);
    assert_false(b.overflow);
    s = arena_str(&arena, buf_str(&b));
    buf_release(&b);
    return s;
}

static void assert_written(const struct json *j, const char *want)
{
    struct str got = written(json_write, j);

    if (!str_is(got, want))
        fail_msg("got %.*s, not %s", STR_ARG(got), want);
}

static double cpu_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

/* --- parsing ------------------------------------------------------------------------------------------------ */

static void test_tree(void **state)
{
    struct json *j = parse(" {\"a\":[1,\"two\",true,null],\"b\":{},\"\":\"x\\ny\"} \n"), *a = json_get(j, "a");
    bool b = false;
    int64_t v = 0;

    assert_int_equal(json_type(j), JSON_OBJECT);
    assert_int_equal(json_len(j), 3);
    assert_int_equal(json_len(a), 4);
    assert_true(json_int(json_at(a, 0), &v) && v == 1);
    assert_true(str_is(json_str(json_at(a, 1)), "two"));
    assert_true(json_bool(json_at(a, 2), &b) && b);
    assert_int_equal(json_type(json_at(a, 3)), JSON_NULL);
    assert_null(json_at(a, 4));
    assert_null(json_next(json_at(a, 3)));
    assert_int_equal(json_len(json_get(j, "b")), 0);
    assert_null(json_first(json_get(j, "b")));
    assert_true(str_is(json_str(json_get(j, "")), "x\ny"));
    assert_true(str_is(json_key(json_first(j)), "a"));
    assert_true(str_is(json_key(json_next(json_first(j))), "b"));
    assert_null(json_get(j, "c"));
    assert_null(json_next(j));
}

static void test_accessors_of_nothing(void **state)
{
    struct json *s = parse("\"s\"");
    int64_t v = 5;
    double d = 5;
    bool b = true;

    assert_int_equal(json_type(NULL), JSON_NONE);
    assert_false(json_is(NULL, JSON_NULL));
    assert_null(json_get(NULL, "x"));
    assert_null(json_get(s, "x"));
    assert_null(json_get_str(parse("{\"\":1}"), STR_NULL));
    assert_null(json_at(NULL, 0));
    assert_null(json_at(s, 0));
    assert_int_equal(json_len(NULL) + json_len(s), 0);
    assert_null(json_first(NULL));
    assert_null(json_next(NULL));
    assert_null(json_key(NULL).p);
    assert_null(json_str(NULL).p);
    assert_null(json_str(parse("1")).p);
    assert_null(json_num_raw(s).p);
    assert_false(json_int(NULL, &v) || json_int(s, &v) || json_double(NULL, &d) || json_double(s, &d));
    assert_false(json_bool(NULL, &b) || json_bool(parse("1"), &b));
    assert_true(v == 5 && d == 5 && b);
}

static void test_syntax_refused(void **state)
{
    refuse("", "value is expected", 0);
    refuse("  ", "value is expected", 2);
    refuse("{", "object does not end", 1);
    refuse("[", "value is expected", 1);
    refuse("[1", "array does not end", 2);
    refuse("[1,", "value is expected", 3);
    refuse("[1,]", "value is expected", 3);
    refuse("[,1]", "value is expected", 1);
    refuse("[1 2]", "comma or ]", 3);
    refuse("[1}", "comma or ]", 2);
    refuse("{\"a\":1]", "comma or }", 6);
    refuse("{\"a\"}", "colon", 4);
    refuse("{\"a\":}", "value is expected", 5);
    refuse("{\"a\":1,}", "key in quotes", 7);
    refuse("{a:1}", "key in quotes", 1);
    refuse("{1:1}", "key in quotes", 1);
    refuse("tru", "value is expected", 0);
    refuse("truE", "value is expected", 0);
    refuse("nullx", "nothing may follow", 4);
    refuse("1 2", "nothing may follow", 2);
    refuse("{}}", "nothing may follow", 2);
    refuse("]", "value is expected", 0);
    refuse("'a'", "value is expected", 0);
    refuse("[1]//", "nothing may follow", 3);
    refuse("\xef\xbb\xbf{}", "byte order mark", 0);
    refuse("\v1", "value is expected", 0);
    refuse("\xc2\xa0" "1", "value is expected", 0);
    refuse_str(str_n("1\0", 2), "nothing may follow", 1);
    refuse_str(STR_NULL, "value is expected", 0);
}

static void test_strings_refused(void **state)
{
    refuse("\"abc", "string does not end", 4);
    refuse("\"abc\\", "string does not end", 5);
    refuse("\"abc\\\"", "string does not end", 6);
    refuse("\"a\nb\"", "control character", 2);
    refuse("\"\\n a\tb\"", "control character", 5);
    refuse("\"\\x41\"", "unknown escape", 1);
    refuse("\"\\u12g4\"", "hexadecimal", 3);
    refuse("\"\\u12\"", "hexadecimal", 3);
    refuse("\"\\ud800\"", "high surrogate", 1);
    refuse("\"\\ud800\\n\"", "high surrogate", 1);
    refuse("\"\\ud800\\ud800\"", "high surrogate", 1);
    refuse("\"\\udc00\"", "low surrogate", 1);
    refuse("\"\xed\xa0\x80\"", "UTF-8", 1);
    refuse("\"\xc0\xaf\"", "UTF-8", 1);
    refuse("\"\xf4\x90\x80\x80\"", "UTF-8", 1);
    refuse("\"\\n\xff\"", "UTF-8", 3);
    refuse("{\"a\xff\":1}", "UTF-8", 3);
    refuse("{\"\\u0000\":1}", "U+0000", 1);
    refuse("{\"a\\u0000b\":1}", "U+0000", 1);
    assert_int_equal(json_str(parse("\"\\u0000\"")).len, 1);
    assert_true(str_is(json_str(parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC\\uD834\\udd1e\"")),
        "\"\\/\b\f\n\r\t\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e"));
}

static void test_error_place(void **state)
{
    struct json_error where;
    struct json *j;

    assert_int_equal(json_parse(&arena, STR("{\n  \"a\": 1,\n  \"b\": x\n}"), NULL, &j, &where), E_JSON_MALFORMED);
    assert_int_equal(where.line, 3);
    assert_int_equal(where.column, 8);
    assert_int_equal(where.offset, 19);
    assert_int_equal(json_parse(&arena, STR("[1"), NULL, &j, NULL), E_JSON_MALFORMED);
}

/* Every byte at every place of a string, so that each step of the wide scan meets it. */
static void test_every_byte_everywhere(void **state)
{
    char text[44];

    for (int c = 0; c < 256; c++) {
        for (size_t at = 0; at < 40; at++) {
            bool good = c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
            struct json *j = NULL;
            enum err e;

            memset(text, 'a', 42);
            text[0] = text[41] = '"';
            text[1 + at] = (char)c;
            e = json_parse(&arena, str_n(text, 42), NULL, &j, NULL);
            if (c == '\\' && at < 39)
                continue;                   /* \a is refused, but not for the byte's sake */
            if ((e == OK) != good)
                fail_msg("byte %02x at %zu: %s", c, at, e ? "refused" : "accepted");
            if (e == OK)
                assert_true(str_eq(json_str(j), str_n(text + 1, 40)));
        }
        arena_clear(&arena);
    }
}

/* The parser's idea of UTF-8 is the one of base. */
static void test_utf8_like_base(void **state)
{
    static const unsigned char third[] = { 0x7f, 0x80, 0xbf, 0xc0, '"' }, fourth[] = { 0x80, 0xbf, 0x41 };
    char text[8] = "\"";
    struct json *j;

    for (int lead = 0x80; lead < 256; lead++) {
        for (int second = 0x7f; second < 256; second++) {
            for (size_t i = 0; i < ARRAY_LEN(third) * ARRAY_LEN(fourth); i++) {
                struct str inner = str_n(text + 1, 4);
                bool good;

                text[1] = (char)lead;
                text[2] = (char)second;
                text[3] = (char)third[i / ARRAY_LEN(fourth)];
                text[4] = (char)fourth[i % ARRAY_LEN(fourth)];
                text[5] = '"';
                good = str_utf8_valid(inner) && !memchr(inner.p, '"', 4);
                assert_int_equal(json_parse(&arena, str_n(text, 6), NULL, &j, NULL) == OK, good);
            }
        }
        arena_clear(&arena);
    }
}

/* Cut anywhere, a message is refused, and nothing behind the cut is read: the next page is not there. */
static void test_cut_anywhere(void **state)
{
    static const char text[] = "{\"k\\u00e9y\" : [ -1.5e+3 , \"a\\ud834\\udd1e long enough to need two steps "
        "\xe2\x82\xac\",true ,null,"
        "{\"deep\":{\"er\":[[]]}}, 12345678901234567890, \"tail\" ]}";
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = sizeof(text) - 1;
    char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct json *j;

    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p + page, page, PROT_NONE), 0);
    for (size_t len = 0; len <= n; len++) {
        enum err e;

        memcpy(p + page - len, text, len);
        e = json_parse(&arena, str_n(p + page - len, len), NULL, &j, NULL);
        assert_int_equal(e, len == n ? OK : E_JSON_MALFORMED);
    }
    munmap(p, 2 * page);
}

static void test_duplicate_keys(void **state)
{
    char text[4000];
    size_t n = 0;

    refuse("{\"a\":1,\"a\":2}", "same key", 8);
    refuse("{\"a\":1,\"b\":2,\"\\u0061\":3}", "same key", 23);
    refuse("{\"\\u00e9\":1,\"\xc3\xa9\":2}", "same key", 13);
    refuse("{\"\":1,\"\":2}", "same key", 7);
    refuse("[{\"x\":{\"k\":1,\"k\":1}}]", "same key", 14);
    /* what is known of an object's keys outlives the objects in it, and is not known of them */
    refuse("{\"name\":{\"name\":[{\"name\":0}]},\"other\":{},\"name\":0}", "same key", 42);
    assert_non_null(parse("{\"name\":{\"name\":[{\"name\":0},{\"name\":0}],\"other\":{}},\"other\":{\"name\":{}}}"));
    /* alike in length and end, and in both */
    assert_non_null(parse("{\"startTime\":0,\"closeTime\":0,\"Time\":0,\"ime\":0,\"me\":0,\"e\":0,\"\":0}"));
    refuse("{\"startTime\":0,\"closeTime\":0,\"startTime\":0}", "same key", 30);
    assert_int_equal(json_len(parse("{\"a\":1,\"A\":2,\"a \":3,\"\\u0061b\":4}")), 4);
    /* the same name at different depths, and marks that collide */
    assert_non_null(parse("{\"a\":{\"a\":{\"a\":1}},\"ab\":[{\"a\":1},{\"a\":1}],\"ba\":1}"));

    for (int last = 16; last < 40; last++) {
        n = (size_t)snprintf(text, sizeof(text), "{");
        for (int i = 0; i < last; i++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "\"key%d\":%d,", i, i);
        snprintf(text + n, sizeof(text) - n, "\"key%d\":0}", last);
        assert_int_equal(json_len(parse(text)), last + 1);
        snprintf(text + n, sizeof(text) - n, "\"k\\u0065y%d\":0}", last - 1);
        refuse(text, "same key", strlen(text) - 1);
    }
}

static void test_depth(void **state)
{
    struct json_limits limits = { .depth_max = 3 };
    size_t n = 1000000;
    char *bomb = malloc(n);
    struct json *j;

    assert_non_null(bomb);
    memset(bomb, '[', n);
    refuse_str(str_n(bomb, n), "too deeply", JSON_DEPTH_DEFAULT);
    for (size_t i = 0; i + 5 <= n; i += 5)
        memcpy(bomb + i, "{\"\":{", 5);
    refuse_str(str_n(bomb, n), "key in quotes", 5);
    memset(bomb, '[', 1000);
    memset(bomb + 64, ']', 64);
    parse_str(str_n(bomb, 128));
    assert_int_equal(json_parse(&arena, STR("[[{}]]"), &limits, &j, NULL), OK);
    assert_int_equal(json_parse(&arena, STR("[[[[]]]]"), &limits, &j, NULL), E_JSON_MALFORMED);
    limits.depth_max = 1000000;
    memset(bomb, '[', n);
    memset(bomb + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_int_equal(json_parse(&arena, str_n(bomb, 2 * JSON_DEPTH_MAX), &limits, &j, NULL), OK);
    assert_int_equal(written(json_write, j).len, 2 * JSON_DEPTH_MAX);
    assert_int_equal(written(json_canonical, j).len, 2 * JSON_DEPTH_MAX);
    assert_true(json_equal(j, json_copy(&arena, j)));
    assert_false(arena_overflowed(&arena));
    memset(bomb, '[', n);
    assert_int_equal(json_parse(&arena, str_n(bomb, n), &limits, &j, NULL), E_JSON_MALFORMED);
    free(bomb);
}

static void test_size_limits(void **state)
{
    struct json_limits limits = { .nodes_max = 5 };
    struct json_error where;
    struct json *j;
    char *key = malloc(JSON_KEY_MAX + 20);
    size_t n;

    assert_int_equal(json_parse(&arena, STR("[1,2,3,4]"), &limits, &j, NULL), OK);
    assert_int_equal(json_parse(&arena, STR("[1,2,3,4,5]"), &limits, &j, &where), E_CALL_TOO_LARGE);
    assert_string_equal(where.message, "too many values");
    assert_int_equal(where.offset, 9);

    assert_non_null(key);
    memset(key, 'k', JSON_KEY_MAX + 20);
    memcpy(key, "{\"", 2);
    n = 2 + JSON_KEY_MAX;
    memcpy(key + n, "\":1}", 4);
    assert_int_equal(json_key(json_first(parse_str(str_n(key, n + 4)))).len, JSON_KEY_MAX);
    key[n] = 'k';
    memcpy(key + n + 1, "\":1}", 4);
    assert_int_equal(json_parse(&arena, str_n(key, n + 5), NULL, &j, NULL), E_CALL_TOO_LARGE);
    free(key);
}

/* Whatever the arena's limit: the tree, or "too large"; never a crash, never a part of a tree. */
static void test_arena_limit(void **state)
{
    struct str text = STR("{\"a\":[1,2.5,\"x\\ny\",{\"\\u0061\":null}],\"b\":\"plain\",\"c\":[[],[],[]],"
        "\"d\":[1,2,3,4,5,6,7,8,9]}");
    size_t enough = 0;

    for (size_t max = 0; max < 4000; max += 8) {
        struct json *j = NULL, *copy;
        struct arena a;
        enum err e;

        arena_init(&a, max);
        e = json_parse(&a, text, NULL, &j, NULL);
        assert_true(e == OK || e == E_CALL_TOO_LARGE);
        assert_int_equal(e != OK, arena_overflowed(&a));
        if (e == OK) {
            enough = enough ? enough : max;
            copy = json_copy(&a, j);
            assert_int_equal(copy == NULL, arena_overflowed(&a));
            assert_true(!copy || json_equal(j, copy));
        } else {
            assert_int_equal(enough, 0);
            assert_null(j);
        }
        arena_release(&a);
    }
    assert_true(enough > 0 && enough < 3000);
}

static struct str many_members(size_t n, bool backwards, bool twice)
{
    struct buf b = BUF_INIT(64 << 20);
    struct str s;

    buf_add_c(&b, '{');
    for (size_t i = 0; i < n; i++)
        buf_addf(&b, "%s\"member-%zu\":%zu", i ? "," : "", backwards ? n - 1 - i : i, backwards ? n - 1 - i : i);
    buf_add_z(&b, twice ? ",\"member-7\":0}" : "}");
    s = arena_str(&arena, buf_str(&b));
    buf_release(&b);
    return s;
}

/* 100,000 members: milliseconds when it is linear, a minute when each is compared with each. */
static void test_large_objects(void **state)
{
    struct str text = many_members(100000, false, false), twice = many_members(100000, false, true);
    struct json *a, *b, *none;
    double start = cpu_seconds();

    a = parse_str(text);
    b = parse_str(many_members(100000, true, false));
    assert_int_equal(json_len(a), 100000);
    assert_true(json_equal(a, b));
    assert_true(str_eq(written(json_canonical, a), written(json_canonical, b)));
    assert_int_equal(json_parse(&arena, twice, NULL, &none, NULL), E_JSON_MALFORMED);
    json_set(&arena, json_first(b), "x", json_null_new(&arena));
    assert_true(cpu_seconds() - start < 5);
    json_del(b, "member-500");
    json_set(&arena, b, "member-x", json_int_new(&arena, 500));
    assert_false(json_equal(a, b));
}

/* --- building and comparing --------------------------------------------------------------------------------- */

static void test_build(void **state)
{
    struct json *o = json_object(&arena), *list = json_array(&arena);
    char name[] = "name";

    json_set(&arena, o, "list", list);
    json_push(&arena, list, json_int_new(&arena, -3));
    json_push(&arena, list, json_double_new(&arena, 0.25));
    json_push(&arena, list, json_bool_new(&arena, false));
    json_push(&arena, list, json_null_new(&arena));
    json_push(&arena, list, json_raw(&arena, STR("{\"raw\": [1]}")));
    json_push(&arena, list, json_string_ref(&arena, STR("ref")));
    json_push(&arena, list, json_string_z(&arena, NULL));
    json_set_key(&arena, o, str_of(name), json_object(&arena));
    name[0] = 'X';
    json_set_z(&arena, o, "z", "v");
    json_set_z(&arena, o, "none", NULL);
    json_set_str(&arena, o, "s", STR("a\"b"));
    json_set_bool(&arena, o, "yes", true);
    json_set_int(&arena, o, "n", 1);
    json_add(&arena, o, STR("last"), json_array(&arena));
    assert_written(o, "{\"list\":[-3,0.25,false,null,{\"raw\": [1]},\"ref\",null],\"name\":{},\"z\":\"v\","
        "\"s\":\"a\\\"b\","
        "\"yes\":true,\"n\":1,\"last\":[]}");
    assert_true(str_is(written(json_canonical, o), "{\"last\":[],\"list\":[-3,0.25,false,null,{\"raw\":[1]},\"ref\","
        "null],"
        "\"n\":1,\"name\":{},\"s\":\"a\\\"b\",\"yes\":true,\"z\":\"v\"}"));
    assert_true(json_equal(o, json_copy(&arena, o)));
    assert_written(NULL, "null");
}

/* Names of each length that differ in one byte, at each place. */
static void test_names(void **state)
{
    char name[40], other[40];

    for (size_t n = 0; n <= sizeof(name); n++) {
        struct json *o = json_object(&arena);

        memset(name, 'n', sizeof(name));
        json_set_key(&arena, o, str_n(name, n), json_int_new(&arena, -1));
        for (size_t at = 0; at < n; at++) {
            memcpy(other, name, n);
            other[at] = 'o';
            assert_null(json_get_str(o, str_n(other, n)));
            json_set_key(&arena, o, str_n(other, n), json_int_new(&arena, (int64_t)at));
        }
        assert_int_equal(json_len(o), n + 1);
        for (struct json *m = json_first(o); m; m = json_next(m))
            assert_ptr_equal(json_get_str(o, json_key(m)), m);
        json_set_key(&arena, o, str_n(name, n), json_null_new(&arena));
        assert_int_equal(json_len(o), n + 1);
        assert_true(json_is(json_first(o), JSON_NULL));
    }
}

static void test_string_of(void **state)
{
    struct json *from = parse("[\"plain\",\"a \\\"word\\\"\",\"\",1]"), *to = json_array(&arena);

    for (struct json *j = json_first(from); j; j = json_next(j))
        json_push(&arena, to, json_string_of(&arena, j));
    assert_written(to, "[\"plain\",\"a \\\"word\\\"\",\"\"]");
    assert_ptr_equal(json_str(json_first(to)).p, json_str(json_first(from)).p);
    assert_written(from, "[\"plain\",\"a \\\"word\\\"\",\"\",1]");
    assert_null(json_string_of(&arena, NULL));
}

/* The same as members set one by one. */
static struct json *picked_slowly(const struct json *list, const struct json_pick *picks, size_t n)
{
    struct json *all = json_array(&arena);

    for (const struct json *from = json_first(list); from; from = json_next(from)) {
        struct json *one = json_object(&arena);

        for (size_t i = 0; i < n; i++) {
            const struct json *j = json_down(from, picks[i].path, strcspn(picks[i].path, "."));
            int64_t v = 0;
            bool b = false;

            json_int(j, &v);
            json_bool(j, &b);
            json_set_key(&arena, one, picks[i].name,
                picks[i].type == JSON_BOOL ? json_bool_new(&arena, b) :
                picks[i].type == JSON_INT ? json_int_new(&arena, v) :
                json_string(&arena, json_str(j)));
        }
        json_push(&arena, all, one);
    }
    return all;
}

static void test_picked(void **state)
{
    struct json *list = parse(
        "[{\"id\":\"1\",\"on\":true,\"n\":-7,\"who\":{\"mail\":{\"at\":\"a \\\"b\\\"\"}}},"
        "{\"n\":3e1,\"id\":\"caf\xc3\xa9\",\"who\":{\"mail\":\"no object\"}},"
        "{\"id\":5,\"on\":\"yes\",\"n\":1.5,\"who\":null},{},7,[\"id\"],"
        "{\"id\":\"\\n\",\"on\":false,\"n\":99999999999999999999}]");
    struct json_pick picks[] = {
        { .name = STR("id"), .path = "id", .type = JSON_STRING },
        { .name = STR("a \"name\""), .path = "who.mail.at", .type = JSON_STRING },
        { .name = STR("number"), .path = "n", .type = JSON_INT },
        { .name = STR("on"), .path = "on", .type = JSON_BOOL },
    };

    for (size_t n = 0; n <= ARRAY_LEN(picks); n++) {
        struct json_picks *ready = json_picks_new(picks, n);
        struct json *quick = json_pick_each(&arena, list, ready), *slow = picked_slowly(list, picks, n);

        assert_true(json_equal(quick, slow));
        assert_true(str_eq(written(json_write, quick), written(json_write, slow)));
        for (struct json *one = json_first(quick), *same = json_first(slow); one; one = json_next(one)) {
            json_set_int(&arena, one, "more", 1);
            json_set_int(&arena, same, "more", 1);
            assert_int_equal(json_del(one, "number") != NULL, n > 2);
            assert_int_equal(json_del(same, "number") != NULL, n > 2);
            same = json_next(same);
        }
        assert_true(str_eq(written(json_write, quick), written(json_write, slow)));
        assert_written(json_pick_each(&arena, NULL, ready), "[]");
        json_picks_free(ready);
    }
    picks[3].name = picks[0].name;
    assert_null(json_picks_new(picks, 4));
    picks[3].name = (struct str){ written(json_write, json_string(&arena, STR("x"))).p, JSON_KEY_MAX + 1 };
    assert_null(json_picks_new(picks + 3, 1));
    assert_null(json_pick_each(&arena, list, NULL));
}

static void test_set_replaces_and_deletes(void **state)
{
    struct json *o = parse("{\"a\":1,\"b\":2,\"c\":3}"), *gone;

    json_set_int(&arena, o, "b", 20);
    assert_written(o, "{\"a\":1,\"b\":20,\"c\":3}");
    json_set_int(&arena, o, "c", 30);
    json_set_int(&arena, o, "a", 10);
    json_set(&arena, o, "a", json_get(o, "a"));
    assert_written(o, "{\"a\":10,\"b\":20,\"c\":30}");
    gone = json_del(o, "c");
    assert_written(o, "{\"a\":10,\"b\":20}");
    json_set(&arena, o, "d", gone);
    assert_written(o, "{\"a\":10,\"b\":20,\"d\":30}");
    assert_non_null(json_del(o, "a"));
    assert_null(json_del(o, "a"));
    assert_non_null(json_del(o, "b"));
    assert_non_null(json_del(o, "d"));
    assert_written(o, "{}");
    json_set_int(&arena, o, "e", 5);
    assert_written(o, "{\"e\":5}");
    assert_null(json_del(NULL, "a"));
}

/* A part of one tree put into another leaves the first as it was. */
static void test_parts_are_copied(void **state)
{
    struct json *from = parse("{\"a\":{\"x\":[1,\"\\n\"]},\"b\":2}"), *to = json_object(&arena),
        *list = json_array(&arena);

    json_set(&arena, to, "copy", json_get(from, "a"));
    json_set(&arena, to, "again", json_get(from, "b"));
    json_push(&arena, list, json_get(from, "a"));
    json_push(&arena, list, json_get(from, "missing"));
    json_set(&arena, to, "list", list);
    assert_written(from, "{\"a\":{\"x\":[1,\"\\n\"]},\"b\":2}");
    assert_written(to, "{\"copy\":{\"x\":[1,\"\\n\"]},\"again\":2,\"list\":[{\"x\":[1,\"\\n\"]}]}");
    json_set_int(&arena, json_get(to, "copy"), "y", 1);
    assert_written(json_get(from, "a"), "{\"x\":[1,\"\\n\"]}");
}

static void test_copy_stands_alone(void **state)
{
    char *text = strdup("{\"key\":[\"plain\",\"esc\\n\",12.50,7],\"t\":true,\"n\":null}");
    struct json *copy = json_copy(&arena, parse(text));

    memset(text, '#', strlen(text));
    assert_written(copy, "{\"key\":[\"plain\",\"esc\\n\",12.50,7],\"t\":true,\"n\":null}");
    free(text);
    assert_null(json_copy(&arena, NULL));
}

static void test_builders_of_nothing(void **state)
{
    struct json *o, *deep;
    struct arena a;

    arena_init(&a, 100);
    o = json_object(&a);
    assert_non_null(o);
    for (int i = 0; i < 10; i++)
        json_set_str(&a, o, "key", STR("a value that does not fit into what is left"));
    assert_true(arena_overflowed(&a));
    json_push(&a, json_array(&a), json_int_new(&a, 1));
    json_set(&a, NULL, "k", NULL);
    assert_null(json_copy(&a, o));
    arena_release(&a);

    /* a node under itself, by mistake: bounded, and seen */
    deep = json_array(&arena);
    json_push(&arena, deep, deep);
    {
        struct buf b = BUF_INIT(1 << 20);

        json_write(&b, deep);
        assert_true(b.overflow);
        buf_clear(&b);
        json_canonical(&b, deep);
        assert_true(b.overflow);
        buf_clear(&b);
        json_write_pretty(&b, deep);
        assert_true(b.overflow);
        buf_release(&b);
    }
    assert_false(json_equal(deep, deep));
    assert_null(json_copy(&arena, deep));
    assert_true(arena_overflowed(&arena));
}

static void test_equal(void **state)
{
    static const struct { const char *a, *b; bool same; } cases[] = {
        { "{\"a\":1,\"b\":[1,2]}", "{\"b\":[1.0,20e-1],\"a\":1}", true },
        { "{\"a\":1}", "{\"b\":1}", false },
        { "{\"a\":1}", "{\"a\":1,\"b\":1}", false },
        { "{\"a\":1,\"b\":2}", "{\"b\":1,\"a\":2}", false },
        { "[1,2]", "[2,1]", false },
        { "[]", "{}", false },
        { "\"a\"", "\"\\u0061\"", true },
        { "\"\xc3\xa9\"", "\"e\xcc\x81\"", false },     /* no Unicode normalisation */
        { "null", "false", false },
        { "0", "false", false },
        { "true", "false", false },
        { "\"1\"", "1", false },
        { "[[],[null]]", "[[],[null]]", true },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (json_equal(parse(cases[i].a), parse(cases[i].b)) != cases[i].same)
            fail_msg("%s against %s", cases[i].a, cases[i].b);
    assert_true(json_equal(NULL, NULL));
    assert_false(json_equal(NULL, parse("null")));
}

/* --- writing ------------------------------------------------------------------------------------------------ */

static void test_pretty(void **state)
{
    assert_true(str_is(written(json_write_pretty, parse("{\"a\":[1,{}],\"b\":[],\"c\":{\"d\":\"x\"}}")),
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": [],\n  \"c\": {\n    \"d\": \"x\"\n  }\n}"));
    assert_true(str_is(written(json_write_pretty, parse("[]")), "[]"));
}

static void test_canonical_order(void **state)
{
    /* by UTF-16 code units: the emoji (D83D DE00) comes before U+FB33 and U+E000, though its UTF-8 bytes are greater */
    assert_true(str_is(written(json_canonical, parse("{\"\\ufb33\":7,\"\\ud83d\\ude00\":6,\"\\u20ac\":5,"
        "\"\\u00f6\":4,\"\\u0080\":3,"
        "\"1\":2,\"\\r\":1,\"\":0,\"\\ue000\":8,\"\\ud7ff\":9,\"11\":10}")),
        "{\"\":0,\"\\r\":1,\"1\":2,\"11\":10,\"\xc2\x80\":3,\"\xc3\xb6\":4,\"\xe2\x82\xac\":5,\"\xed\x9f\xbf\":9,"
        "\"\xf0\x9f\x98\x80\":6,\"\xee\x80\x80\":8,\"\xef\xac\xb3\":7}"));
    /* more members than fit the first stack, nested */
    {
        struct str inner = many_members(70, true, false), outer;
        struct json *o = json_object(&arena);

        for (int i = 0; i < 70; i++)
            json_add(&arena, o, arena_printf(&arena, "k%02d", 69 - i), parse_str(inner));
        outer = written(json_canonical, o);
        assert_true(json_equal(o, parse_str(outer)));
        assert_true(str_eq(outer, written(json_canonical, parse_str(outer))));
        assert_true(str_starts(outer, STR("{\"k00\":{\"member-0\":0,\"member-1\":1,\"member-10\":10,")));
    }
}

static void test_canonical_refuses_bad_fragments(void **state)
{
    struct buf b = BUF_INIT(1000);

    json_canonical(&b, json_raw(&arena, STR("{\"b\":1, \"a\":[2.0]}")));
    assert_true(str_is(buf_str(&b), "{\"a\":[2],\"b\":1}"));
    buf_clear(&b);
    json_canonical(&b, json_raw(&arena, STR("{oops")));
    assert_true(b.overflow);
    buf_release(&b);
}

/* Whatever the buffer's limit: the whole text, or overflow and a prefix of it. */
static void test_buffer_limit(void **state)
{
    struct json *j = parse("{\"b\":[1,2.50,12345678901234567890,\"x\\n\xc3\xa9\\u0001 and a longer tail\"],"
        "\"a\":{\"c\":null,\"d\":true}}");
    void (*const forms[])(struct buf *, const struct json *) = { json_write, json_write_pretty, json_canonical };

    json_set_str(&arena, j, "bad", STR("\xff"));
    for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
        struct str whole = written(forms[f], j);

        for (size_t max = 0; max < whole.len + 3; max++) {
            struct buf b = BUF_INIT(max);

            forms[f](&b, j);
            assert_int_equal(b.overflow, max < whole.len);
            assert_true(b.len <= max);
            assert_true(str_starts(whole, buf_str(&b)));
            buf_release(&b);
        }
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_tree), T(test_accessors_of_nothing), T(test_syntax_refused), T(test_strings_refused),
        T(test_error_place), T(test_every_byte_everywhere), T(test_utf8_like_base), T(test_cut_anywhere),
        T(test_duplicate_keys), T(test_depth), T(test_size_limits), T(test_arena_limit), T(test_large_objects),
        T(test_build), T(test_set_replaces_and_deletes), T(test_parts_are_copied), T(test_copy_stands_alone),
        T(test_builders_of_nothing), T(test_equal), T(test_names), T(test_string_of), T(test_picked),
        T(test_pretty), T(test_canonical_order), T(test_canonical_refuses_bad_fragments), T(test_buffer_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
