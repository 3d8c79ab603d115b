/*
 * base_test.c -- errors, strings, arena, map and time, from outside: limits and refusals everywhere
 */
#include "base_test.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/map.h"
#include "base/metric.h"

/* ---- errors and checks ---- */

static void test_every_error_row_is_complete(void **state)
{
    for (int e = 0; e < ERR_COUNT; e++) {
        const struct err_row *r = err_row((enum err)e);

        assert_true(strlen(r->name) > 0 && strlen(r->text) > 0);
        assert_int_equal(strspn(r->name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(r->name));
        assert_true(r->http >= 200 && r->http <= 599);
        assert_true(r->rpc == 0 || (r->rpc <= -32000 && r->rpc >= -32799));
        assert_true(strlen(err_class_name(r->class)) > 0 && strlen(outcome_name(r->outcome)) > 0);
        for (int other = 0; other < e; other++)
            assert_string_not_equal(r->name, err_name((enum err)other));
        if (r->retry == RETRY_INTERNAL)
            assert_int_equal(r->outcome, OUTCOME_NONE);
    }
    assert_string_equal(err_name(E_TOOL_UNKNOWN), "tool_unknown");
    assert_string_equal(err_text(E_CANCELLED), "the caller went away");
    assert_int_equal(err_row(E_OUTCOME_UNKNOWN)->outcome, OUTCOME_UNKNOWN);
}

static void test_errinfo_is_cut_not_overrun(void **state)
{
    struct errinfo info;
    char text[1000];

    memset(text, 'x', sizeof(text));
    assert_int_equal(err_set(&info, E_CONFIG, "line %d: %.*s", 7, (int)sizeof(text), text), E_CONFIG);
    assert_int_equal(strlen(info.text), sizeof(info.text) - 1);
    assert_memory_equal(info.text, "line 7: xxx", 11);
    assert_int_equal(err_set(NULL, E_IO, "nobody listens"), E_IO);
}

static void fail_assert(void)
{
    ASSERT(1 + 1 == 3);
}

static void bad_error(void)
{
    err_row((enum err)ERR_COUNT);
}

static void told(void (*say)(const char *))
{
    say("step=RUN\n");
}

static void test_failed_assertion_says_where_and_ends(void **state)
{
    struct str said;
    pid_t child;
    int status;

    assert_true(dies(fail_assert));
    assert_true(dies(bad_error));
    capture_begin();
    child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        check_context = told;
        fail_assert();
    }
    waitpid(child, &status, 0);
    said = capture_end();
    assert_true(WIFSIGNALED(status));
    assert_non_null(strstr(said.p, "PANIC: does not hold: 1 + 1 == 3 at "));
    assert_non_null(strstr(said.p, "base_test.c:"));
    assert_non_null(strstr(said.p, "step=RUN\n"));
}

static void doubt(void)
{
    int64_t before = metric_sum(M_DOUBTS_TOTAL);

    if (ALWAYS(before < 0) || !NEVER(before >= 0))
        _exit(2);       /* the words answer what is true */
    _exit(metric_sum(M_DOUBTS_TOTAL) == before + 2 ? 0 : 1);
}

static void test_doubts_abort_or_count(void **state)
{
    bool died = dies(doubt);

#ifdef SANITIZED
    assert_true(died);
#elif defined(__OPTIMIZE__) && defined(_FORTIFY_SOURCE)
    assert_false(died);
#else
    (void)died;
#endif
    assert_true(ALWAYS(2 > 1));
    assert_false(NEVER(1 > 2));
}

/* ---- strings and buffers ---- */

static void test_views(void **state)
{
    struct str head, rest;
    uint64_t v;

    assert_str(str_trim(STR(" \t a b\t ")), "a b");
    assert_str(str_trim(STR(" \t ")), "");
    assert_str(str_from(STR("abc"), 1), "bc");
    assert_str(str_from(STR("abc"), 9), "");
    assert_str(str_from(STR_NULL, 0), "");
    assert_true(str_cut(STR("a=b=c"), '=', &head, &rest));
    assert_str(head, "a");
    assert_str(rest, "b=c");
    assert_true(str_cut(STR("a="), '=', &head, &rest));
    assert_str(rest, "");
    assert_false(str_cut(STR("abc"), '=', &head, &rest));
    assert_false(str_cut(STR_NULL, '=', &head, &rest));
    assert_true(str_ieq(STR("Content-Type"), STR("cONTENT-tYPE")));
    assert_false(str_ieq(STR("a["), STR("A{")));
    for (size_t len = 1; len < 20; len++) {     /* eight bytes are compared at a time: each byte, at each place */
        for (unsigned c = 0; c < 256; c++) {
            char a[20], b[20];
            size_t at = c % len;
            bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');

            memset(a, 'x', len);
            memset(b, 'X', len);
            a[at] = (char)c;
            b[at] = (char)(c ^ 0x20);
            assert_true(str_ieq(str_n(a, len), str_n(b, len)) == letter);
            b[at] = (char)c;
            assert_true(str_ieq(str_n(a, len), str_n(b, len)));
        }
    }
    for (unsigned pair = 0; pair < 65536; pair++) {     /* and each with each */
        char a[] = "0123456x9", b[] = "0123456X9";
        unsigned x = pair >> 8, y = pair & 255;
        unsigned low_x = x >= 'A' && x <= 'Z' ? x + 32 : x, low_y = y >= 'A' && y <= 'Z' ? y + 32 : y;

        a[3] = (char)x;
        b[3] = (char)y;
        assert_true(str_ieq(str_n(a, 9), str_n(b, 9)) == (low_x == low_y));
    }
    assert_true(str_starts(STR("abc"), STR("ab")) && str_starts(STR("abc"), STR_NULL));
    assert_false(str_starts(STR("a"), STR("ab")));
    assert_true(str_ends(STR("abc"), STR("bc")) && str_ends(STR_NULL, STR("")));
    assert_false(str_ends(STR("abc"), STR("ab")));
    assert_true(str_cmp(STR("a"), STR("ab")) < 0 && str_cmp(STR("b"), STR("ab")) > 0);
    assert_int_equal(str_cmp(STR_NULL, STR("")), 0);
    assert_true(str_cmp(STR("\xff"), STR("a")) > 0);

    assert_true(str_to_u64(STR("18446744073709551615"), &v) && v == UINT64_MAX);
    assert_true(str_to_u64(STR("007"), &v) && v == 7);
    assert_false(str_to_u64(STR("18446744073709551616"), &v));
    assert_false(str_to_u64(STR("99999999999999999999"), &v));
    assert_false(str_to_u64(STR(""), &v) || str_to_u64(STR("-1"), &v) || str_to_u64(STR("+1"), &v));
    assert_false(str_to_u64(STR("1 "), &v) || str_to_u64(STR("0x1"), &v));
}

/* Encodes any number below 2^21 the way UTF-8 would, allowed or not. */
static size_t encode(uint32_t c, size_t len, char *out)
{
    static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    if (len == 1) {
        out[0] = (char)c;
        return 1;
    }
    for (size_t i = len - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[len] | c);
    return len;
}

static void test_utf8_every_code_point_and_every_overlong(void **state)
{
    char text[8 + 4 + 8];

    memset(text, 'a', sizeof(text));
    for (uint32_t c = 0; c < 0x200000; c++) {
        size_t shortest = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

        for (size_t len = shortest; len <= 4; len++) {
            bool want = len == shortest && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
            size_t n = encode(c, len, text + 8);

            if (str_utf8_valid(str_n(text + 8, n)) != want)
                fail_msg("U+%04X in %zu bytes", (unsigned)c, len);
            if (n > 1 && str_utf8_valid(str_n(text + 8, n - 1)))
                fail_msg("U+%04X cut short", (unsigned)c);
            if (len > shortest && c > 0x900)
                break;      /* the rest fails for the same reason; keeps the test short */
        }
    }
    memset(text, 'a', sizeof(text));
    for (size_t at = 0; at < sizeof(text); at++) {
        text[at] = (char)0x80;
        assert_false(str_utf8_valid(str_n(text, sizeof(text))));
        text[at] = 'a';
    }
    assert_true(str_utf8_valid(str_n(text, sizeof(text))));
    assert_true(str_utf8_valid(STR_NULL));
}

static void test_buf_grows_to_its_limit_and_no_further(void **state)
{
    struct buf b = BUF_INIT(1000);
    char *taken;
    size_t len;

    for (int i = 0; i < 100; i++)
        buf_add(&b, "0123456789", 10);
    assert_false(b.overflow);
    assert_int_equal(b.len, 1000);
    assert_true(b.cap <= 1000);
    buf_add_c(&b, 'x');
    assert_true(b.overflow);
    assert_int_equal(b.len, 1000);
    buf_drop_front(&b, 995);
    assert_str(buf_str(&b), "56789");
    buf_add_c(&b, 'x');                 /* there is room again, but the message has a hole */
    assert_str(buf_str(&b), "56789");
    buf_clear(&b);
    buf_addf(&b, "%0*d", 1000, 7);      /* exactly full: the NUL of printf needs no room */
    assert_false(b.overflow);
    assert_int_equal(b.len, 1000);
    buf_clear(&b);
    assert_null(buf_reserve(&b, SIZE_MAX));
    assert_true(b.overflow);

    buf_release(&b);
    assert_false(b.overflow);
    buf_add_i64(&b, INT64_MIN);
    buf_add_c(&b, ' ');
    buf_add_i64(&b, -1);
    buf_add_c(&b, ' ');
    buf_add_u64(&b, UINT64_MAX);
    buf_add_u64(&b, 0);
    assert_str(buf_str(&b), "-9223372036854775808 -1 184467440737095516150");
    taken = buf_take(&b, &len);
    assert_int_equal(len, 45);
    assert_null(b.p);
    free(taken);
    b = BUF_INIT(100);
    for (uint64_t v = 1, bit = 0; bit < 64; bit++, v = v * 2 + bit % 3) {
        char text[100];

        buf_clear(&b);
        buf_add_u64(&b, v);
        buf_add_c(&b, ' ');
        buf_add_i64(&b, (int64_t)v);
        snprintf(text, sizeof(text), "%llu %lld", (unsigned long long)v, (long long)v);
        assert_str(buf_str(&b), text);
    }
    buf_release(&b);

    b = BUF_INIT(0);
    buf_add_z(&b, "");
    assert_false(b.overflow);
    buf_add_z(&b, "x");
    assert_true(b.overflow);
    buf_release(&b);
}

/* ---- arena ---- */

static void test_arena_overflow_is_sticky(void **state)
{
    struct arena a;
    void *p;

    arena_init(&a, 100000);
    p = arena_alloc(&a, 60000);
    assert_non_null(p);
    memset(p, 1, 60000);
    assert_null(arena_alloc(&a, 60000));
    assert_true(arena_overflowed(&a));
    assert_null(arena_alloc(&a, 1));            /* would fit */
    assert_null(arena_str(&a, STR("x")).p);
    assert_null(arena_printf(&a, "%d", 1).p);
    arena_clear(&a);
    assert_false(arena_overflowed(&a));
    assert_non_null(arena_alloc(&a, 100000));
    assert_null(arena_alloc(&a, 1));
    arena_release(&a);
    assert_null(ARENA_ARRAY(&a, uint64_t, SIZE_MAX / 4));
    assert_true(arena_overflowed(&a));
    arena_release(&a);
    assert_null(arena_alloc(&a, SIZE_MAX - 3));
    assert_true(arena_overflowed(&a));
    arena_release(&a);
    arena_init(&a, 0);
    assert_null(arena_alloc(&a, 0));
    arena_release(&a);
}

static void test_arena_hands_out_aligned_disjoint_memory(void **state)
{
    struct arena a;
    uint8_t *p[2000];
    uint64_t *zeroed;

    arena_init(&a, 4 << 20);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_LEN(p); i++) {
            p[i] = arena_alloc(&a, i);
            assert_non_null(p[i]);
            assert_int_equal((uintptr_t)p[i] % 16, 0);
            memset(p[i], (int)i & 255, i);
        }
        for (size_t i = 0; i < ARRAY_LEN(p); i++) {
            for (size_t k = 0; k < i; k++)
                assert_true(p[i][k] == (i & 255));
        }
        zeroed = ARENA_ARRAY(&a, uint64_t, 100);
        for (size_t i = 0; i < 100; i++)
            assert_true(zeroed[i] == 0);
        assert_str(arena_printf(&a, "%s-%d", "x", 42), "x-42");
        assert_string_equal(arena_z(&a, STR("abc")), "abc");
        assert_string_equal(arena_str(&a, STR_NULL).p, "");
        if (round == 1)
            arena_release(&a);
        else
            arena_clear(&a);
    }
    arena_release(&a);
}

static void overrun_chunk(void)
{
    struct arena a;
    volatile char *p;
    size_t n;

    arena_init(&a, 1 << 20);
    p = arena_alloc(&a, 16);
    n = (size_t)(a.end - p);
    p[n] = 'x';
    arena_release(&a);
}

static void test_arena_has_what_is_expected_in_one_piece(void **state)
{
    struct arena a;
    char *first, *last;

    (void)state;
    arena_init(&a, 10000);
    arena_expect(&a, 8000);
    first = arena_alloc(&a, 4000);
    arena_expect(&a, 4000);                     /* there already */
    last = arena_alloc(&a, 4000);
    assert_ptr_equal(last, first + 4000);
    arena_expect(&a, 5000);                     /* past the limit: nothing happens */
    arena_expect(&a, SIZE_MAX);
    assert_false(arena_overflowed(&a));
    assert_non_null(arena_alloc(&a, 1000));
    assert_null(arena_alloc(&a, 2000));
    arena_expect(&a, 100);
    assert_true(arena_overflowed(&a));
    arena_release(&a);
}

static void test_arena_rewinds_to_a_mark(void **state)
{
    struct arena_mark nothing, some;
    struct arena a;
    char *kept;

    arena_init(&a, 1 << 20);
    nothing = arena_mark(&a);
    for (size_t n = 0; n < 40000; n = n * 2 + 24) {
        assert_non_null(arena_alloc(&a, n));        /* within a chunk, and over several */
        arena_rewind(&a, nothing);
        assert_int_equal(a.used, 0);
    }
    kept = arena_z(&a, STR("kept"));
    some = arena_mark(&a);
    for (size_t n = 0; n < 40000; n = n * 2 + 24) {
        char *p = arena_alloc(&a, n + 1);

        memset(p, 'x', n + 1);
        arena_rewind(&a, some);
        assert_string_equal(kept, "kept");
        assert_ptr_equal(arena_alloc(&a, 16), some.next);
        arena_rewind(&a, some);
    }
    assert_null(arena_alloc(&a, 2 << 20));
    arena_rewind(&a, some);
    assert_true(arena_overflowed(&a));              /* that something was lost is not forgotten */
    arena_release(&a);
}

static void test_arena_joins_texts(void **state)
{
    struct arena a;

    arena_init(&a, 100);
    assert_str(ARENA_CAT(&a, STR("a"), STR_NULL, STR("bc"), STR("")), "abc");
    assert_str(ARENA_CAT(&a, STR_NULL), "");
    assert_null(ARENA_CAT(&a, STR("x"), str_n("y", SIZE_MAX - 1)).p);
    assert_true(arena_overflowed(&a));
    arena_release(&a);
}

static void test_arena_overrun_is_noticed_at_release(void **state)
{
    assert_true(dies(overrun_chunk));
}

/* ---- map ---- */

static void test_siphash_vectors(void **state)
{
    uint8_t bytes[16];

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    hash_seed(0x0706050403020100u, 0x0f0e0d0c0b0a0908u);
    assert_true(hash_bytes(bytes, 0) == 0xabac0158050fc4dcu);
    assert_true(hash_bytes(bytes, 7) == 0xd3927d989bb11140u);
    assert_true(hash_bytes(bytes, 8) == 0x369095118d299a8eu);
    assert_true(hash_bytes(bytes, 15) == 0xd320d86d2a519956u);
    assert_true(hash_bytes(bytes, 16) == 0xcc4fdd1a7d908b66u);
}

struct item {
    char key[16];
    int value;
};

static void check_map(const struct map *m, struct item *items, const bool *there, size_t n)
{
    size_t i = 0, seen = 0, live = 0;
    struct map_slot *slot;

    for (size_t k = 0; k < n; k++) {
        assert_ptr_equal(map_get(m, str_of(items[k].key)), there[k] ? &items[k] : NULL);
        live += there[k];
    }
    while ((slot = map_next(m, &i))) {
        assert_true(there[(struct item *)slot->value - items]);
        seen++;
    }
    assert_int_equal(seen, live);
    assert_int_equal(m->len, live);
}

/* Entries that were given to this map of 64 by some of their hash's bits must not crowd in it. */
static void test_a_map_that_is_one_of_many_is_not_crowded(void **state)
{
    enum { N = 8000 };
    struct item *items = calloc(N, sizeof(*items));

    for (unsigned shift = 0; shift <= 16; shift += 8) {
        struct map m = MAP_INIT;
        size_t run = 0, longest = 0, tried = 0;

        for (size_t k = 0; k < N; tried++) {
            snprintf(items[k].key, sizeof(items[k].key), "k%zu", tried);
            if ((hash_bytes(items[k].key, strlen(items[k].key)) >> shift & 63) == 0) {
                map_put(&m, str_of(items[k].key), &items[k]);
                k++;
            }
        }
        for (size_t i = 0; i < m.cap; i++) {
            run = m.slots[i].hash ? run + 1 : 0;
            longest = run > longest ? run : longest;
        }
        assert_in_range(longest, 1, 400);       /* about 60 by chance; thousands when they crowd */
        map_release(&m);
    }
    free(items);
}

static void test_map_churn(void **state)
{
    enum { N = 100000 };
    struct item *items = calloc(N, sizeof(*items));
    bool *there = calloc(N, sizeof(*there));
    struct map m = MAP_INIT;
    uint64_t x = 88172645463325252u;
    size_t cap, i = 0, removed = 0;
    struct map_slot *slot;

    assert_null(map_get(&m, STR("x")));
    assert_null(map_del(&m, STR("x")));
    for (size_t k = 0; k < N; k++) {
        snprintf(items[k].key, sizeof(items[k].key), "key-%zu", k);
        assert_null(map_put(&m, str_of(items[k].key), &items[k]));
        there[k] = true;
    }
    check_map(&m, items, there, N);
    cap = m.cap;
    for (size_t step = 0; step < 5 * N; step++) {
        size_t k;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        k = x % N;
        if (there[k])
            assert_ptr_equal(map_del(&m, str_of(items[k].key)), &items[k]);
        else
            assert_null(map_put(&m, str_of(items[k].key), &items[k]));
        there[k] = !there[k];
    }
    check_map(&m, items, there, N);
    assert_true(m.cap <= cap);          /* churn alone makes no table grow */
    while ((slot = map_next(&m, &i))) {
        struct item *it = slot->value;

        assert_ptr_equal(map_del(&m, slot->key), it);
        there[it - items] = false;
        removed++;
    }
    assert_true(removed > 0);
    check_map(&m, items, there, N);
    assert_int_equal(m.used, 0);        /* no deleted slot stands before an empty one, so none is left */
    map_release(&m);
    free(items);
    free(there);
}

static void test_map_replaces_key_with_value(void **state)
{
    struct item *old = calloc(1, sizeof(*old)), *new = calloc(1, sizeof(*new));
    struct map m = MAP_INIT;

    strcpy(old->key, "same");
    strcpy(new->key, "same");
    assert_null(map_put(&m, str_of(old->key), old));
    assert_ptr_equal(map_put(&m, str_of(new->key), new), old);
    free(old);                          /* and with it the first key */
    assert_ptr_equal(map_get(&m, STR("same")), new);
    assert_int_equal(m.len, 1);
    assert_null(map_put(&m, STR(""), new));
    assert_ptr_equal(map_get(&m, STR_NULL), new);
    map_release(&m);
    free(new);
}

/* ---- time ---- */

static void check_wall(const char *text, wall_ms_t want, const char *back)
{
    char out[25];
    wall_ms_t t = -1;

    if (wall_parse(str_of(text), &t) != OK)
        fail_msg("%s is refused", text);
    if (t != want)
        fail_msg("%s is %lld", text, (long long)t);
    wall_format(t, out);
    assert_string_equal(out, back);
}

static void test_wall_known_times(void **state)
{
    char out[25];

    check_wall("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00.000Z");
    check_wall("2026-11-20T05:00:52.123Z", 1795150852123, "2026-11-20T05:00:52.123Z");
    check_wall("2026-11-20t05:00:52.1239999z", 1795150852123, "2026-11-20T05:00:52.123Z");
    check_wall("2026-11-20T07:30:52.1+02:30", 1795150852100, "2026-11-20T05:00:52.100Z");
    check_wall("2026-11-19T21:00:52-08:00", 1795150852000, "2026-11-20T05:00:52.000Z");
    check_wall("2026-11-20T05:00:52-00:00", 1795150852000, "2026-11-20T05:00:52.000Z");
    check_wall("2000-02-29T12:00:00Z", 951825600000, "2000-02-29T12:00:00.000Z");
    check_wall("1969-12-31T23:59:59.999Z", -1, "1969-12-31T23:59:59.999Z");
    check_wall("0000-01-01T00:00:00Z", -62167219200000, "0000-01-01T00:00:00.000Z");
    check_wall("9999-12-31T23:59:59.999Z", 253402300799999, "9999-12-31T23:59:59.999Z");
    check_wall("1998-12-31T23:59:60Z", 915148799999, "1998-12-31T23:59:59.999Z");
    check_wall("1998-12-31T15:59:60.5-08:00", 915148799999, "1998-12-31T23:59:59.999Z");
    wall_format(INT64_MAX, out);
    assert_string_equal(out, "9999-12-31T23:59:59.999Z");
    wall_format(INT64_MIN, out);
    assert_string_equal(out, "0000-01-01T00:00:00.000Z");
}

static void test_wall_every_day_of_ten_thousand_years(void **state)
{
    for (wall_ms_t t = -62167219200000 + 86399999; t < 253402300799999; t += 86400000) {
        char out[25];
        wall_ms_t back;

        wall_format(t, out);
        if (wall_parse(str_of(out), &back) != OK || back != t)
            fail_msg("%s", out);
    }
}

static void test_wall_refuses(void **state)
{
    static const char *const bad[] = {
        "", "2026", "2026-11-20", "2026-11-20T05:00:52", "2026-11-20 05:00:52Z", "2026-11-20T05:00Z",
        "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-32T00:00:00Z",
        "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2024-02-30T00:00:00Z", "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:61Z", "2026-01-01T00:00:60Z",
        "1998-12-31T22:59:60Z", "1998-12-30T23:59:60Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+01:60", "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00+01", "2026-01-01T00:00:00ZZ", "2026-01-01T00:00:00Z ", " 2026-01-01T00:00:00Z",
        "+026-01-01T00:00:00Z", "20260-01-01T00:00:00Z", "2026-1-01T00:00:00Z", "2026-01-01T0:00:00Z",
        "0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2026-01-01T00:00:00", "2026-01-01T-1:00:00Z",
    };
    wall_ms_t t = 42;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (wall_parse(str_of(bad[i]), &t) != E_FORMAT)
            fail_msg("\"%s\" is taken", bad[i]);
    }
    assert_int_equal(t, 42);            /* outputs are set only on OK */
    assert_int_equal(wall_parse(str_n("2026-01-01T00:00:00Z\0", 21), &t), E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_error_row_is_complete),
        cmocka_unit_test(test_errinfo_is_cut_not_overrun),
        cmocka_unit_test(test_failed_assertion_says_where_and_ends),
        cmocka_unit_test(test_doubts_abort_or_count),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_utf8_every_code_point_and_every_overlong),
        cmocka_unit_test(test_buf_grows_to_its_limit_and_no_further),
        cmocka_unit_test(test_arena_overflow_is_sticky),
        cmocka_unit_test(test_arena_hands_out_aligned_disjoint_memory),
        cmocka_unit_test(test_arena_rewinds_to_a_mark),
        cmocka_unit_test(test_arena_has_what_is_expected_in_one_piece),
        cmocka_unit_test(test_arena_joins_texts),
        cmocka_unit_test(test_arena_overrun_is_noticed_at_release),
        cmocka_unit_test(test_siphash_vectors),
        cmocka_unit_test(test_map_churn),
        cmocka_unit_test(test_a_map_that_is_one_of_many_is_not_crowded),
        cmocka_unit_test(test_map_replaces_key_with_value),
        cmocka_unit_test(test_wall_known_times),
        cmocka_unit_test(test_wall_every_day_of_ten_thousand_years),
        cmocka_unit_test(test_wall_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
