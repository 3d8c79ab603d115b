/*
 * identity_cache_test.c -- tokens that were verified a moment ago: what is found, what is refused, what is given up;
 * and what their callers have at hand
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "identity/internal.h"

static void entries_of_an_older_epoch_are_refused(void **state)
{
    struct token_cache *cache = cache_create(8);
    struct caller *c, *got;
    uint8_t digest[32] = { 1 };

    assert_int_equal(caller_named(STR("acme"), STR("ann"), STR("cli"), &c, NULL), OK);
    cache_put(cache, digest, 7, c, 1000, 1000);
    got = cache_get(cache, digest, 7, 999, 999);
    assert_ptr_equal(got, c);
    caller_release(got);
    assert_null(cache_get(cache, digest, 8, 999, 999));
    assert_int_equal(cache_count(cache), 0);
    cache_put(cache, digest, 7, c, 1000, 1000);
    assert_null(cache_get(cache, digest, 7, 1000, 999));
    cache_put(cache, digest, 7, c, 1000, 1000);
    assert_null(cache_get(cache, digest, 7, 999, 1000));
    caller_release(c);
    cache_destroy(cache);
}

/* One set: ten digests that are alike for 31 bytes, of which the first is used again before the ninth comes. */
static void a_full_set_gives_up_what_was_used_longest_ago(void **state)
{
    struct token_cache *cache = cache_create(8);
    struct caller *c[10], *got;
    uint8_t digest[32] = { 0 };
    char user[8];

    for (uint8_t i = 0; i < ARRAY_LEN(c); i++) {
        snprintf(user, sizeof(user), "u%u", i);
        assert_int_equal(caller_named(STR("acme"), str_of(user), STR("cli"), &c[i], NULL), OK);
        digest[31] = i;
        assert_null(cache_get(cache, digest, 7, 0, 0));
        cache_put(cache, digest, 7, c[i], 1000, 1000);
        digest[31] = 0;
        got = cache_get(cache, digest, 7, 0, 0);
        assert_ptr_equal(got, c[0]);
        caller_release(got);
    }
    assert_int_equal(cache_count(cache), 8);
    for (uint8_t i = 0; i < ARRAY_LEN(c); i++) {
        digest[31] = i;
        got = cache_get(cache, digest, 7, 0, 0);
        assert_ptr_equal(got, i == 1 || i == 2 ? NULL : c[i]);
        caller_release(got);
        caller_release(c[i]);
    }
    cache_clear(cache);
    assert_int_equal(cache_count(cache), 0);
    digest[31] = 9;
    assert_null(cache_get(cache, digest, 7, 0, 0));
    cache_destroy(cache);
}

/* What is asked of memory is not read: no entry, a caller that has gone, any address. */
static void looking_ahead_reads_nothing(void **state)
{
    struct token_cache *cache = cache_create(8);
    uint8_t digest[32] = { 3 }, other[32] = { 4 };
    struct caller *c;
    char *gone;

    assert_int_equal(caller_named(STR("acme"), STR("ann"), STR("cli"), &c, NULL), OK);
    cache_expect(cache, digest);
    cache_expect_entry(cache, digest);
    cache_put(cache, digest, 7, c, 1000, 1000);
    cache_expect_entry(cache, digest);
    cache_expect_entry(cache, other);
    gone = malloc(1000);
    for (unsigned i = 0; i < TRAIL_COUNT; i++)
        caller_left(c, i, i % 3 == 0 ? gone : (const void *)(uintptr_t)(i % 3 - 1));
    free(gone);
    caller_ahead(c);
    caller_release(c);
    cache_clear(cache);                 /* it was the last reference */
    cache_expect_entry(cache, digest);
    caller_expect(c);
    memset(digest, 0, sizeof(digest));  /* as the tag of a free entry, which has no caller */
    cache_expect_entry(cache, digest);
    cache_destroy(cache);
}

/* ---- callers ----------------------------------------------------------------------------------------------------- */

/* What records say of a caller: the form is part of the journal's. */
static void members_stand_as_records_have_them(void **state)
{
    const struct caller_actor actors[] = { { STR("cli"), STR_NULL }, { STR("planner"), STR("https://p") } };
    const struct str groups[] = { STR("a\"b"), STR("c") }, scopes[] = { STR("mail.read") };
    struct caller draft = {
        .tenant = STR("acme"), .user = STR("ann"), .actors = actors, .n_actors = 2, .issuer = STR("https://idp"),
        .client_id = STR("claude"), .scopes = scopes, .n_scopes = 1, .groups = groups, .n_groups = 2,
        .fingerprint = "0123456789abcdef",
    };
    struct buf text = BUF_INIT(4096);
    struct caller *c = caller_freeze(&draft);

    assert_true(str_is(c->members,
                       ",\"tenant\":\"acme\",\"user\":\"ann\",\"agent\":\"cli\",\"delegates\":[\"planner\"],"
                       "\"groups\":[\"a\\\"b\",\"c\"],\"scopes\":[\"mail.read\"],\"auth\":\"jwt\","
                       "\"issuer\":\"https://idp\",\"client\":\"claude\",\"token\":\"0123456789abcdef\""));
    caller_members(c, &text);
    assert_true(str_eq(c->members, buf_str(&text)));
    caller_release(c);
    buf_release(&text);
}

/* What would make a caller large is not kept twice, and said all the same. */
static void members_that_are_long_are_written_each_time(void **state)
{
    struct buf text = BUF_INIT(4096), quotes = BUF_INIT(255);
    struct caller *c;

    for (int i = 0; i < 255; i++)
        buf_add_c(&quotes, '"');
    assert_int_equal(caller_named(STR("t"), buf_str(&quotes), STR("cli"), &c, NULL), OK);
    caller_members(c, &text);
    assert_true(c->members.len > 510 && str_eq(c->members, buf_str(&text)));
    caller_release(c);
    assert_int_equal(caller_named(STR("t"), buf_str(&quotes), buf_str(&quotes), &c, NULL), OK);
    assert_int_equal(c->members.len, 0);
    buf_clear(&text);
    caller_members(c, &text);
    assert_int_equal(text.len, strlen(",'tenant':'t','user':'','agent':'','auth':'none','issuer':'none'") + 4 * 255);
    caller_release(c);
    buf_release(&text);
    buf_release(&quotes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_of_an_older_epoch_are_refused),
        cmocka_unit_test(a_full_set_gives_up_what_was_used_longest_ago),
        cmocka_unit_test(looking_ahead_reads_nothing),
        cmocka_unit_test(members_stand_as_records_have_them),
        cmocka_unit_test(members_that_are_long_are_written_each_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
