/* vault_refresh_test.c -- one expiry, one refresh; nothing sent twice that works once; nothing used that is not
 * stored (P4, P9) */
#include "vault_bed.h"

#include <stdatomic.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/metric.h"

static struct vault_provider provider;
static struct str account;
static char text[64];

/* A vault with one account whose token has 10 s left, at a provider of this kind. */
static void expired_account(enum vault_rotation rotation)
{
    fake_reset(rotation != VAULT_ROTATES_NO);
    provider = fake_provider(rotation);
    bed_open();
    account = bed_account(3600, true);
    bed_ahead += 3590 * NS_PER_S;
}

static enum err ask(void)
{
    return bed_token_run(account, &provider, text);
}

static void expect_token(const char *token)
{
    assert_int_equal(ask(), OK);
    assert_string_equal(text, token);
}

static void wait_s(int64_t s)
{
    bed_ahead += s * NS_PER_S;
}

static enum account_status status_now(void)
{
    struct vault_account a;
    struct arena arena;
    enum account_status status = ACCOUNT_DISCONNECTED;

    arena_init(&arena, 4096);
    if (!vault_account_get(bed_vault, STR("acme"), account, &arena, &a)) {
        status = a.status;
        vault_account_release(&a);
    }
    arena_release(&arena);
    return status;
}

/* ---- storms ------------------------------------------------------------------------------------------------------ */

struct storm {
    atomic_uint ok, other;
    char expected[64];
};

static void storm_task(void *arg, unsigned i)
{
    struct storm *s = arg;
    char got[64];

    if (bed_token(account, &provider, got) == OK && !strcmp(got, s->expected))
        atomic_fetch_add(&s->ok, 1);
    else
        atomic_fetch_add(&s->other, 1);
}

static void a_thousand_callers_cause_one_refresh(void **state)
{
    static struct storm s;
    int64_t counted = metric_sum(M_REFRESHES_TOTAL);

    expired_account(VAULT_ROTATES_ONCE);
    fake.delay = 50 * NS_PER_MS;
    strcpy(s.expected, "at-2");
    bed_run(2, 500, storm_task, &s);
    assert_int_equal(atomic_load(&s.ok), 1000);
    assert_int_equal(fake.refreshes, 1);
    assert_int_equal(fake.reuses, 0);
    assert_int_equal(metric_sum(M_REFRESHES_TOTAL), counted + 1);
    bed_close();
}

static void storm_after_storm_over_restarts(void **state)
{
    expired_account(VAULT_ROTATES_ONCE);
    for (int round = 2; round < 32; round++) {
        static struct storm s;

        s = (struct storm){ 0 };
        snprintf(s.expected, sizeof(s.expected), "at-%d", round);
        fake.delay = round % 3 * NS_PER_MS;
        bed_run(2, 50, storm_task, &s);
        assert_int_equal(atomic_load(&s.other), 0);
        assert_int_equal(fake.refreshes, round - 1);
        assert_int_equal(fake.reuses, 0);
        if (round % 4 == 0)
            bed_reopen();
        wait_s(3595);
    }
    bed_close();
}

static void failing_callers_ask_once_too(void **state)
{
    static struct storm s;

    expired_account(VAULT_ROTATES_ONCE);
    wait_s(60);
    fake.mood = FAKE_ANSWER, fake.status = 503, fake.body = "";
    s = (struct storm){ 0 };
    bed_run(2, 200, storm_task, &s);
    assert_int_equal(atomic_load(&s.other), 400);
    assert_int_equal(fake.requests, 1);
    assert_int_equal(ask(), E_UPSTREAM_DOWN);           /* backing off */
    assert_int_equal(fake.requests, 1);
    fake.mood = FAKE_GOOD;
    wait_s(2);
    expect_token("at-2");
    assert_int_equal(fake.reuses, 0);
    bed_close();
}

/* ---- crashes ----------------------------------------------------------------------------------------------------- */

/* What a power cut at the named instant would leave: the store's files and the provider's memory. */
static const char *cut_at;
static struct fake fake_then;
static bool cut;

static void take_picture(const char *where)
{
    char command[400];

    if (strcmp(where, cut_at))
        return;
    snprintf(command, sizeof(command), "rm -rf %s/cut && mkdir %s/cut && cp %s/store.db* %s/cut/", bed_dir, bed_dir,
        bed_dir, bed_dir);
    CHECK(system(command) == 0);
    fake_then = fake;
    cut = true;
}

static void restart_from_picture(void)
{
    char command[256];

    bed_close();
    snprintf(command, sizeof(command), "rm %s/store.db* && cp %s/cut/* %s/", bed_dir, bed_dir, bed_dir);
    assert_int_equal(system(command), 0);
    fake = fake_then;
    bed_reopen();
}

static void crash(enum vault_rotation rotation, ns_t grace, const char *where)
{
    cut_at = where;
    cut = false;
    bed_crash_point = take_picture;
    expired_account(rotation);
    provider.replay_grace = grace;
    bed_reopen();
    expect_token("at-2");
    assert_true(cut);
    bed_crash_point = NULL;
    restart_from_picture();
}

static void after_a_crash_nothing_single_use_is_sent_again(void **state)
{
    static const char *const points[] = { "announced", "answered" };

    for (int i = 0; i < 2; i++) {
        int requests;

        crash(VAULT_ROTATES_ONCE, 0, points[i]);
        requests = fake.requests;
        expect_token("at-1");                           /* 10 s of life are left in it */
        wait_s(60);
        assert_int_equal(ask(), E_RECONNECT_NEEDED);
        assert_int_equal(fake.requests, requests);
        assert_int_equal(fake.reuses, 0);
        assert_int_equal(status_now(), ACCOUNT_RECONNECT_NEEDED);
        bed_reopen();
        assert_int_equal(ask(), E_RECONNECT_NEEDED);    /* remembered */
        assert_int_equal(fake.requests, requests);
        bed_close();
    }
}

static void what_was_stored_before_the_crash_is_used_after_it(void **state)
{
    crash(VAULT_ROTATES_ONCE, 0, "stored");
    expect_token("at-2");
    assert_int_equal(fake.refreshes, 1);
    bed_close();
}

static void providers_that_allow_it_are_asked_again(void **state)
{
    crash(VAULT_ROTATES_NO, 0, "answered");
    expect_token("at-3");
    bed_close();
    crash(VAULT_ROTATES_ONCE, 30 * NS_PER_S, "announced");      /* within the grace */
    expect_token("at-2");
    bed_close();
    crash(VAULT_ROTATES_ONCE, 30 * NS_PER_S, "announced");
    wait_s(31);                                                 /* past it */
    assert_int_equal(ask(), E_RECONNECT_NEEDED);
    assert_int_equal(fake.reuses, 0);
    bed_close();
}

/* ---- answers
 * ------------------------------------------------------------------------------------------------------ */

static void a_definite_no_ends_the_account(void **state)
{
    expired_account(VAULT_ROTATES_ONCE);
    fake.dead = true;
    assert_int_equal(ask(), E_RECONNECT_NEEDED);
    assert_int_equal(fake.refreshes, 1);
    assert_int_equal(ask(), E_RECONNECT_NEEDED);
    assert_int_equal(fake.refreshes, 1);
    assert_int_equal(status_now(), ACCOUNT_RECONNECT_NEEDED);
    /* connecting again heals it */
    fake_reset(true);
    (void)bed_account(3600, true);
    expect_token("at-1");
    bed_close();
}

static void doubtful_answers_do_not_tell_the_user_to_reconnect(void **state)
{
    static const struct { int status; const char *body; enum err e; } cases[] = {
        { 429, "", E_UPSTREAM_DOWN }, { 500, "<html>", E_UPSTREAM_DOWN }, { 503, "{}", E_UPSTREAM_DOWN },
        { 400, "nonsense", E_UPSTREAM_DOWN }, { 401, "{\"error\":\"invalid_client\"}", E_UPSTREAM_AUTH },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        expired_account(VAULT_ROTATES_ONCE);
        fake.mood = FAKE_ANSWER, fake.status = cases[i].status, fake.body = cases[i].body;
        expect_token("at-1");                           /* live tokens are not affected */
        wait_s(200);
        assert_int_equal(ask(), cases[i].e);
        assert_int_equal(status_now(), ACCOUNT_CONNECTED);
        fake.mood = FAKE_GOOD;
        wait_s(400);
        expect_token("at-2");
        assert_int_equal(fake.reuses, 0);
        bed_close();
    }
}

static void attempts_back_off(void **state)
{
    int before;

    expired_account(VAULT_ROTATES_ONCE);
    wait_s(60);
    fake.mood = FAKE_UNSENT;
    for (int i = 0; i < 600; i += 5) {                  /* ten minutes, asked every five seconds */
        assert_int_equal(ask(), E_UPSTREAM_DOWN);
        wait_s(5);
    }
    fake.mood = FAKE_GOOD;
    before = fake.requests;
    assert_int_equal(before, 0);
    wait_s(400);
    expect_token("at-2");
    bed_close();
}

static void a_lost_answer_is_not_asked_for_twice(void **state)
{
    static const enum fake_mood moods[] = { FAKE_LOST_BEFORE, FAKE_LOST_AFTER };

    for (int i = 0; i < 2; i++) {
        int requests;

        expired_account(VAULT_ROTATES_ONCE);
        fake.mood = moods[i];
        expect_token("at-1");
        requests = fake.requests;
        fake.mood = FAKE_GOOD;
        wait_s(2);
        expect_token("at-1");                           /* used up to its end */
        wait_s(60);
        assert_int_equal(ask(), E_RECONNECT_NEEDED);
        assert_int_equal(fake.requests, requests);
        assert_int_equal(fake.reuses, 0);
        bed_close();
    }
}

static void a_lost_answer_is_asked_for_again_where_that_is_safe(void **state)
{
    expired_account(VAULT_ROTATES_NO);
    fake.mood = FAKE_LOST_AFTER, fake.mood_left = 1;
    expect_token("at-1");
    wait_s(3);
    expect_token("at-3");
    bed_close();

    expired_account(VAULT_ROTATES_ONCE);
    provider.replay_grace = 30 * NS_PER_S;
    fake.mood = FAKE_LOST_BEFORE, fake.mood_left = 1;
    expect_token("at-2");                               /* at once, within the grace */
    bed_close();
}

/* Sent and lost; then the provider is not reached, or will not talk now: neither says what became of the first sending,
 * from which the grace counts. */
static void a_grace_counts_from_the_sending_that_was_lost(void **state)
{
    static const struct { enum fake_mood then; int status; const char *body; } cases[] = {
        { FAKE_UNSENT, 0, "" }, { FAKE_ANSWER, 503, "" }, { FAKE_ANSWER, 401, "{\"error\":\"invalid_client\"}" },
    };

    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        bool within_one_attempt = i % 2;

        expired_account(VAULT_ROTATES_ONCE);
        provider.replay_grace = 30 * NS_PER_S;
        wait_s(60);
        fake.status = cases[i / 2].status, fake.body = cases[i / 2].body;
        fake.mood = FAKE_LOST_BEFORE, fake.mood_left = within_one_attempt ? 1 : 2, fake.then = cases[i / 2].then;
        assert_int_not_equal(ask(), OK);
        wait_s(5);
        if (!within_one_attempt)
            assert_int_not_equal(ask(), OK);
        assert_int_equal(fake.mood, cases[i / 2].then);
        fake.mood = FAKE_GOOD;
        wait_s(100);
        assert_int_equal(ask(), E_RECONNECT_NEEDED);
        assert_int_equal(fake.refreshes, 0);            /* past the grace it is not sent */
        bed_close();
    }
}

/* ---- tokens that upstream refuses
 * --------------------------------------------------------------------------------- */

static bool retry_answer;

static void reject_task(void *arg, unsigned i)
{
    struct vault_lease lease = { 0 };

    CHECK(bed_lease(account, &provider, NS_NEVER, &lease, NULL) == OK);
    retry_answer = vault_token_rejected(bed_vault, &lease);
    vault_lease_release(bed_vault, &lease);
}

static void a_refused_token_is_refreshed_once(void **state)
{
    fake_reset(true);
    provider = fake_provider(VAULT_ROTATES_ONCE);
    bed_open();
    account = bed_account(3600, true);
    bed_run(1, 1, reject_task, NULL);
    assert_true(retry_answer);
    expect_token("at-2");
    bed_run(1, 1, reject_task, NULL);                   /* refused again at once: a refresh would not help */
    assert_false(retry_answer);
    expect_token("at-2");
    assert_int_equal(fake.refreshes, 1);
    wait_s(31);
    bed_run(1, 1, reject_task, NULL);
    assert_true(retry_answer);
    expect_token("at-3");
    bed_close();
}

static void a_refused_token_is_not_lent_again_while_refreshing_fails(void **state)
{
    fake_reset(true);
    provider = fake_provider(VAULT_ROTATES_ONCE);
    bed_open();
    account = bed_account(3600, true);
    bed_run(1, 1, reject_task, NULL);
    fake.mood = FAKE_UNSENT;
    assert_int_equal(ask(), E_UPSTREAM_DOWN);           /* it has an hour to live, and is of no use */
    fake.mood = FAKE_GOOD;
    wait_s(5);
    expect_token("at-2");
    bed_close();
}

/* Many hold the same lease and are all told 401: still one refresh. */
struct held {
    atomic_uint holding;
    unsigned all;
};

static void hold_and_reject(void *arg, unsigned i)
{
    struct held *h = arg;
    struct vault_lease lease = { 0 };
    char got[64];

    CHECK(bed_lease(account, &provider, NS_NEVER, &lease, NULL) == OK);
    atomic_fetch_add(&h->holding, 1);
    while (atomic_load(&h->holding) < h->all)
        await_sleep(loop_now() + NS_PER_MS);
    CHECK(secret_is(lease.token, "at-1"));
    CHECK(vault_token_rejected(bed_vault, &lease));
    CHECK(bed_token(account, &provider, got) == OK);
    CHECK(!strcmp(got, "at-2"));
    CHECK(secret_is(lease.token, "at-1"));        /* an old lease keeps its token */
    vault_lease_release(bed_vault, &lease);
}

static void many_refusals_cause_one_refresh(void **state)
{
    static struct held h = { .all = 200 };

    fake_reset(true);
    provider = fake_provider(VAULT_ROTATES_ONCE);
    bed_open();
    account = bed_account(3600, true);
    bed_run(2, 100, hold_and_reject, &h);
    assert_int_equal(fake.refreshes, 1);
    bed_close();
}

static void a_refused_static_token_is_held_back(void **state)
{
    struct vault_static s = { STR("acme"), STR("ann"), STR("fake"), STR(""), STR(""), STR(""), secret_copy("pat", 3) };
    struct arena a;

    fake_reset(true);
    provider = fake_provider(VAULT_ROTATES_NO);
    bed_open();
    arena_init(&a, 4096);
    assert_int_equal(vault_account_put(bed_vault, &s, &a, &account, NULL), OK);
    wait_s(1000000);
    expect_token("pat");
    bed_run(1, 1, reject_task, NULL);
    assert_false(retry_answer);
    assert_int_equal(ask(), E_RECONNECT_NEEDED);
    wait_s(61);
    expect_token("pat");                                /* one odd 401 does not end an account */
    assert_int_equal(fake.requests, 0);
    secret_release((struct secret *)s.token);
    arena_release(&a);
    bed_close();
}

static void a_refused_token_without_a_refresh_token_is_held_back_until_its_end(void **state)
{
    fake_reset(true);
    provider = fake_provider(VAULT_ROTATES_NO);
    bed_open();
    account = bed_account(3600, false);
    for (int i = 0; i < 2; i++) {
        bed_run(1, 1, reject_task, NULL);
        assert_false(retry_answer);
        assert_int_equal(ask(), E_RECONNECT_NEEDED);
        wait_s(61);
        expect_token("at-1");
        assert_int_equal(status_now(), ACCOUNT_CONNECTED);
    }
    bed_run(1, 1, reject_task, NULL);
    wait_s(3600);
    assert_int_equal(ask(), E_RECONNECT_NEEDED);
    assert_int_equal(status_now(), ACCOUNT_RECONNECT_NEEDED);
    assert_int_equal(fake.requests, 0);
    bed_close();
}

static void without_a_refresh_token_the_end_is_the_end(void **state)
{
    fake_reset(true);
    provider = fake_provider(VAULT_ROTATES_NO);
    bed_open();
    account = bed_account(3600, false);
    wait_s(3590);
    expect_token("at-1");
    wait_s(10);
    assert_int_equal(ask(), E_RECONNECT_NEEDED);
    assert_int_equal(fake.requests, 0);
    bed_close();
}

/* ---- races and failures of the store
 * ------------------------------------------------------------------------------ */

static void connect_again(const char *where)
{
    struct store_account a = { .tenant = STR("acme"), .id = account, .user = STR("ann"), .provider = STR("fake"),
        .created = 1 };
    struct store_grant g;
    struct arena arena;
    bool stored = false;

    if (strcmp(where, "answered"))
        return;
    /* another process stores a generation of its own, here the same sealed bytes */
    arena_init(&arena, 65536);
    bed_crash_point = NULL;
    CHECK(store_grant_get(bed_store, STR("acme"), account, &arena, &g, NULL) == OK);
    g.generation++;
    g.expires += 7200 * 1000;
    CHECK(store_account_put(bed_store, &a, &g, &stored, NULL) == OK);
    CHECK(stored);
    arena_release(&arena);
}

/* The crash point runs on the loop; the store is for helper threads. */
static void *connect_again_thread(void *arg)
{
    connect_again(arg);
    return NULL;
}

static void connect_elsewhere(const char *where)
{
    pthread_t t;

    CHECK(pthread_create(&t, NULL, connect_again_thread, (void *)(uintptr_t)where) == 0);
    pthread_join(t, NULL);
}

static void a_faster_writer_wins(void **state)
{
    bed_crash_point = connect_elsewhere;
    expired_account(VAULT_ROTATES_ONCE);
    bed_crash_point = NULL;
    expect_token("at-1");               /* what the store has, with its longer life; not what we brought */
    assert_int_equal(fake.refreshes, 1);
    wait_s(600);
    expect_token("at-1");
    assert_int_equal(fake.refreshes, 1);
    bed_close();
}

static sqlite3 *blocker;

static void block_store(const char *where)
{
    char path[128];

    if (strcmp(where, "answered") || blocker)
        return;
    snprintf(path, sizeof(path), "%s/store.db", bed_dir);
    CHECK(sqlite3_open(path, &blocker) == SQLITE_OK);
    CHECK(sqlite3_exec(blocker, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
}

/* The provider has given at-2 and rt-2; the store was locked, and no longer is. */
static void refreshed_and_not_stored(void)
{
    bed_crash_point = block_store;
    expired_account(VAULT_ROTATES_ONCE);
    bed_crash_point = NULL;
    wait_s(60);                         /* the old token is of no use any more */
    assert_int_equal(ask(), E_STORE_UNAVAILABLE);
    assert_int_equal(fake.refreshes, 1);
    assert_int_equal(sqlite3_exec(blocker, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(blocker);
    blocker = NULL;
}

static void tokens_that_cannot_be_stored_are_not_used_and_not_lost(void **state)
{
    refreshed_and_not_stored();
    wait_s(10);
    expect_token("at-2");
    assert_int_equal(fake.refreshes, 1);
    bed_reopen();
    expect_token("at-2");
    bed_close();
}

static void disconnect_task(void *arg, unsigned i)
{
    bool revoked = false;

    CHECK(await_vault_disconnect(bed_vault, STR("acme"), account, &provider, NS_NEVER, &revoked, NULL) == OK);
    CHECK(revoked);
}

static void tokens_that_could_not_be_stored_are_revoked_with_their_account(void **state)
{
    refreshed_and_not_stored();
    provider.revoke_url = STR("https://fake/revoke");
    bed_run(1, 1, disconnect_task, NULL);
    assert_int_equal(fake.revokes, 2);
    assert_non_null(strstr(fake.last_form, "token=at-2&"));
    assert_int_equal(status_now(), ACCOUNT_DISCONNECTED);
    bed_close();
}

/* ---- who waits, and for how long
 * ----------------------------------------------------------------------------------- */

static void impatient(void *arg, unsigned i)
{
    struct vault_lease lease = { 0 };
    ns_t deadline = loop_now() + (i ? 5 * NS_PER_S : 10 * NS_PER_MS);
    enum err e = bed_lease(account, &provider, deadline, &lease, NULL);

    CHECK(e == (i ? OK : E_DEADLINE));
    vault_lease_release(bed_vault, &lease);
}

static void a_waiters_deadline_is_its_own(void **state)
{
    expired_account(VAULT_ROTATES_ONCE);
    wait_s(60);
    fake.delay = 100 * NS_PER_MS;
    bed_run(1, 5, impatient, NULL);
    assert_int_equal(fake.refreshes, 1);
    bed_close();
}

static void an_early_refresh_makes_nobody_wait(void **state)
{
    bed_early = true;
    expired_account(VAULT_ROTATES_ONCE);
    bed_ahead -= 1000 * NS_PER_S;       /* 72 % of its life: not yet */
    expect_token("at-1");
    assert_int_equal(fake.refreshes, 0);
    wait_s(500);                        /* 86 % */
    expect_token("at-1");               /* and meanwhile, in the background */
    assert_int_equal(fake.refreshes, 1);
    expect_token("at-2");
    assert_int_equal(fake.refreshes, 1);
    bed_early = false;
    bed_close();
}

static void a_provider_must_be_the_accounts(void **state)
{
    struct vault_provider other;

    expired_account(VAULT_ROTATES_ONCE);
    other = provider;
    other.name = STR("other");
    assert_int_equal(bed_token_run(account, &other, text), E_ACCOUNT_MISSING);
    assert_int_equal(bed_token_run(STR("acct_none"), &provider, text), E_ACCOUNT_MISSING);
    bed_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_callers_cause_one_refresh),
        cmocka_unit_test(storm_after_storm_over_restarts),
        cmocka_unit_test(failing_callers_ask_once_too),
        cmocka_unit_test(after_a_crash_nothing_single_use_is_sent_again),
        cmocka_unit_test(what_was_stored_before_the_crash_is_used_after_it),
        cmocka_unit_test(providers_that_allow_it_are_asked_again),
        cmocka_unit_test(a_definite_no_ends_the_account),
        cmocka_unit_test(doubtful_answers_do_not_tell_the_user_to_reconnect),
        cmocka_unit_test(attempts_back_off),
        cmocka_unit_test(a_lost_answer_is_not_asked_for_twice),
        cmocka_unit_test(a_lost_answer_is_asked_for_again_where_that_is_safe),
        cmocka_unit_test(a_grace_counts_from_the_sending_that_was_lost),
        cmocka_unit_test(a_refused_token_is_refreshed_once),
        cmocka_unit_test(a_refused_token_is_not_lent_again_while_refreshing_fails),
        cmocka_unit_test(many_refusals_cause_one_refresh),
        cmocka_unit_test(a_refused_static_token_is_held_back),
        cmocka_unit_test(a_refused_token_without_a_refresh_token_is_held_back_until_its_end),
        cmocka_unit_test(without_a_refresh_token_the_end_is_the_end),
        cmocka_unit_test(a_faster_writer_wins),
        cmocka_unit_test(tokens_that_cannot_be_stored_are_not_used_and_not_lost),
        cmocka_unit_test(tokens_that_could_not_be_stored_are_revoked_with_their_account),
        cmocka_unit_test(a_waiters_deadline_is_its_own),
        cmocka_unit_test(an_early_refresh_makes_nobody_wait),
        cmocka_unit_test(a_provider_must_be_the_accounts),
    };

    return cmocka_run_group_tests(tests, bed_make_dir, bed_remove_dir);
}
