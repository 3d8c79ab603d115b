/* vault_connect_test.c -- connecting by OAuth: the URL, the state that works once, the answers that do not fit; and
 * disconnecting */
#include "vault_bed.h"

#include "base/crypto.h"

static struct vault_provider provider;
static struct arena arena;
static struct str url, state_text, account;
static struct errinfo info;
static struct vault_callback callback;

static void begin_task(void *arg, unsigned i)
{
    enum err e = await_vault_connect_begin(bed_vault, &provider, STR("acme"), STR("ann"), STR("work"),
        STR("https://sluice/callback?x=1"), &arena, &url, &state_text, &info);

    CHECK(e == OK);
}

static enum err finish_result;

static void finish_task(void *arg, unsigned i)
{
    finish_result = await_vault_connect_finish(bed_vault, &provider, &callback, loop_now() + 5 * NS_PER_S, &arena,
        &account,
        &info);
}

static enum err finish(struct str state, const char *code, const char *iss, const char *error)
{
    callback = (struct vault_callback){ state, str_of(code), str_of(iss), str_of(error) };
    info.text[0] = 0;
    bed_run(1, 1, finish_task, NULL);
    return finish_result;
}

static void set_up(void)
{
    fake_reset(true);
    provider = fake_provider(VAULT_ROTATES_ONCE);
    arena_init(&arena, 1 << 20);
    bed_open();
    bed_run(1, 1, begin_task, NULL);
}

static void tear_down(void)
{
    bed_close();
    arena_release(&arena);
}

/* The value of a query parameter, undecoded. */
static struct str query(const char *name)
{
    char key[64], *at, *end;

    snprintf(key, sizeof(key), "%s=", name);
    at = strstr(url.p, key);
    assert_non_null(at);
    at += strlen(key);
    end = strchrnul(at, '&');
    return str_n(at, (size_t)(end - at));
}

static void an_account_is_connected(void **state)
{
    uint8_t digest[32];
    struct buf challenge = BUF_INIT(64);
    struct vault_account a;
    char text[64], *verifier;

    set_up();
    assert_true(str_starts(url, STR("https://fake/authorize?response_type=code&client_id=us&redirect_uri="
        "https%3A%2F%2Fsluice%2Fcallback%3Fx%3D1&scope=read%20write&state=")));
    assert_true(str_eq(query("state"), state_text));
    assert_int_equal(state_text.len, 43);
    assert_true(str_is(query("code_challenge_method"), "S256"));

    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    assert_non_null(strstr(fake.last_form, "redirect_uri=https://sluice/callback?x=1&"));
    assert_non_null(strstr(fake.last_form, "client_id=us&"));
    verifier = strstr(fake.last_form, "code_verifier=");
    assert_non_null(verifier);
    sha256(verifier + 14, 43, digest);
    buf_add_b64url(&challenge, str_n(digest, 32));
    assert_true(str_eq(buf_str(&challenge), query("code_challenge")));
    buf_release(&challenge);

    assert_int_equal(bed_find("acme", "ann", "fake", "work", &arena, &a), OK);
    assert_true(str_eq(a.id, account) && str_is(a.scopes, "read write") && a.generation == 1);
    vault_account_release(&a);
    assert_int_equal(bed_token_run(account, &provider, text), OK);
    assert_string_equal(text, "at-2");
    tear_down();
}

static void a_state_works_once(void **state)
{
    struct str again, first;

    set_up();
    assert_int_equal(finish(state_text, "wrong code", "", ""), E_UPSTREAM_REFUSED);
    assert_int_equal(finish(state_text, "code-1", "", ""), E_STATE_INVALID);
    assert_int_equal(fake.exchanges, 1);
    bed_run(1, 1, begin_task, NULL);
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    assert_int_equal(finish(state_text, "code-1", "", ""), E_STATE_INVALID);
    assert_int_equal(fake.exchanges, 2);
    /* connecting the same account again keeps its id */
    first = account;
    bed_run(1, 1, begin_task, NULL);
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    assert_true(str_eq(account, first));
    /* ten minutes */
    bed_run(1, 1, begin_task, NULL);
    again = state_text;
    bed_ahead += 601 * NS_PER_S;
    assert_int_equal(finish(again, "code-1", "", ""), E_STATE_INVALID);
    assert_int_equal(finish(STR("short"), "code-1", "", ""), E_STATE_INVALID);
    assert_int_equal(fake.exchanges, 3);
    tear_down();
}

static void answers_of_others_are_refused(void **state)
{
    set_up();
    assert_int_equal(finish(state_text, "code-1", "https://evil", ""), E_STATE_INVALID);
    provider.issuer = STR("https://fake");
    bed_run(1, 1, begin_task, NULL);
    assert_int_equal(finish(state_text, "code-1", "", ""), E_STATE_INVALID);
    bed_run(1, 1, begin_task, NULL);
    assert_int_equal(finish(state_text, "code-1", "https://fake/", ""), E_STATE_INVALID);
    bed_run(1, 1, begin_task, NULL);
    assert_int_equal(finish(state_text, "code-1", "https://fake", "access_denied\n"), E_UPSTREAM_REFUSED);
    assert_non_null(strstr(info.text, "access_denied_"));
    bed_run(1, 1, begin_task, NULL);
    assert_int_equal(finish(state_text, "", "https://fake", ""), E_STATE_INVALID);
    bed_run(1, 1, begin_task, NULL);
    provider.name = STR("other");
    assert_int_equal(finish(state_text, "code-1", "https://fake", ""), E_STATE_INVALID);
    assert_int_equal(fake.requests, 0);                 /* not one code has been shown to anybody */
    tear_down();
}

static void failures_of_the_exchange_are_told_apart(void **state)
{
    static const struct { enum fake_mood mood; int status; const char *body; enum err e; } cases[] = {
        { FAKE_UNSENT, 0, "", E_UPSTREAM_DOWN }, { FAKE_LOST_AFTER, 0, "", E_OUTCOME_UNKNOWN },
        { FAKE_ANSWER, 500, "", E_UPSTREAM_DOWN }, { FAKE_ANSWER, 200, "<html>", E_UPSTREAM_GARBLED },
        { FAKE_ANSWER, 401, "{\"error\":\"invalid_client\"}", E_UPSTREAM_AUTH },
        { FAKE_ANSWER, 200, "{\"error\":\"bad_verification_code\"}", E_UPSTREAM_REFUSED },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set_up();
        fake.mood = cases[i].mood, fake.status = cases[i].status, fake.body = cases[i].body;
        assert_int_equal(finish(state_text, "code-1", "", ""), cases[i].e);
        assert_int_not_equal(info.text[0], 0);
        tear_down();
    }
}

static void the_client_proves_itself_as_configured(void **state)
{
    struct secret *secret = secret_copy("s3cret", 6);
    struct vault_param audience = { STR("audience"), STR("api") };

    set_up();
    provider.client_secret = secret;
    provider.auth = VAULT_AUTH_POST;
    provider.token_params = &audience;
    provider.n_token_params = 1;
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    assert_non_null(strstr(fake.last_form, "client_id=us&client_secret=s3cret&audience=api&"));
    provider.auth = VAULT_AUTH_BASIC;
    bed_run(1, 1, begin_task, NULL);
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    assert_null(strstr(fake.last_form, "client_id="));
    assert_non_null(strstr(fake.last_form, "basic:us:s3cret"));
    tear_down();
    secret_release(secret);
}

static void peek_task(void *arg, unsigned i)
{
    struct vault_pending p;

    for (int k = 0; k < 2; k++) {                       /* looking does not use it up */
        CHECK(await_vault_connect_peek(bed_vault, state_text, &arena, &p, &info) == OK);
        CHECK(str_is(p.tenant, "acme") && str_is(p.user, "ann") && str_is(p.provider, "fake"));
    }
    CHECK(await_vault_connect_peek(bed_vault, STR("x"), &arena, &p, &info) == E_STATE_INVALID);
}

static void a_state_can_be_looked_at(void **state)
{
    set_up();
    bed_run(1, 1, peek_task, NULL);
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    tear_down();
}

/* ---- disconnecting
 * ------------------------------------------------------------------------------------------------ */

static bool revoked;

static void disconnect_task(void *arg, unsigned i)
{
    enum err e = await_vault_disconnect(bed_vault, STR("acme"), account, &provider, loop_now() + 5 * NS_PER_S, &revoked,
        &info);

    CHECK(e == (i == 0 ? OK : E_ACCOUNT_MISSING));
}

static void disconnect_stranger(void *arg, unsigned i)
{
    CHECK(await_vault_disconnect(bed_vault, STR("beta"), account, NULL, NS_NEVER, NULL, &info) == E_ACCOUNT_MISSING);
}

static void a_disconnected_account_is_gone_on_both_sides(void **state)
{
    struct vault_account a;
    char text[64];

    set_up();
    provider.revoke_url = STR("https://fake/revoke");
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    bed_run(1, 1, disconnect_stranger, NULL);
    bed_run(1, 1, disconnect_task, NULL);
    assert_true(revoked);
    assert_int_equal(fake.revokes, 2);
    assert_non_null(strstr(fake.last_form, "token=at-2&token_type_hint=access_token&"));
    assert_int_equal(bed_find("acme", "ann", "fake", "", &arena, &a), E_ACCOUNT_MISSING);
    assert_int_equal(bed_token_run(account, &provider, text), E_ACCOUNT_MISSING);
    bed_reopen();
    assert_int_equal(bed_token_run(account, &provider, text), E_ACCOUNT_MISSING);
    tear_down();
}

static void an_unreachable_provider_does_not_keep_the_account(void **state)
{
    struct vault_account a;

    set_up();
    provider.revoke_url = STR("https://fake/revoke");
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    fake.mood = FAKE_UNSENT;
    bed_run(1, 1, disconnect_task, NULL);
    assert_false(revoked);
    assert_int_equal(vault_account_get(bed_vault, STR("acme"), account, &arena, &a), E_ACCOUNT_MISSING);
    tear_down();
}

static void held_task(void *arg, unsigned i)
{
    struct vault_account *held = arg;
    struct vault_lease lease = { 0 };

    disconnect_task(NULL, 0);
    CHECK(await_vault_token(bed_vault, held, &provider, NS_NEVER, &lease, &info) == E_ACCOUNT_MISSING && !lease.slot);
}

static void an_account_that_is_held_keeps_its_strings_and_lends_nothing_once_it_is_gone(void **state)
{
    struct vault_account a;

    set_up();
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    assert_int_equal(bed_find("acme", "ann", "fake", "work", &arena, &a), OK);
    bed_run(1, 1, held_task, &a);
    assert_string_equal(info.text, "the account has been disconnected");
    assert_true(str_eq(a.id, account) && str_is(a.label, "work") && str_is(a.user, "ann"));
    vault_account_release(&a);
    vault_account_release(&a);
    tear_down();
}

/* A refresh is under way when the user disconnects: its new tokens are revoked too, and the waiter is told. */
static void race_task(void *arg, unsigned i)
{
    char text[64];

    if (i == 0) {
        enum err e = bed_token(account, &provider, text);

        CHECK(e == OK || e == E_ACCOUNT_MISSING);
    } else {
        await_sleep(loop_now() + 10 * NS_PER_MS);
        disconnect_task(NULL, 0);
    }
}

static void disconnecting_waits_for_a_refresh(void **state)
{
    set_up();
    provider.revoke_url = STR("https://fake/revoke");
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    bed_ahead += 3599 * NS_PER_S;
    fake.delay = 50 * NS_PER_MS;
    bed_run(1, 2, race_task, NULL);
    assert_int_equal(fake.refreshes, 1);
    assert_non_null(strstr(fake.last_form, "token=at-3&"));
    tear_down();
}

/* The user connects again while the provider is told. */
static void await_connect_again(void)
{
    struct str first = account;

    begin_task(NULL, 0);
    callback = (struct vault_callback){ .state = state_text, .code = STR("code-1") };
    finish_task(NULL, 0);
    CHECK(finish_result == OK && str_eq(account, first));
}

static void await_connect_again_and_again(void)
{
    await_connect_again();
    fake.await_meanwhile = await_connect_again_and_again;
}

static void connecting_again_meanwhile_leaves_no_tokens_behind(void **state)
{
    struct vault_account a;

    set_up();
    provider.revoke_url = STR("https://fake/revoke");
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    fake.await_meanwhile = await_connect_again;
    bed_run(1, 1, disconnect_task, NULL);
    assert_true(revoked);
    assert_int_equal(fake.revokes, 4);
    assert_non_null(strstr(fake.last_form, "token=at-3&"));
    assert_int_equal(vault_account_get(bed_vault, STR("acme"), account, &arena, &a), E_ACCOUNT_MISSING);

    /* for ever: then the account goes all the same, and the answer tells of the tokens that are left */
    bed_run(1, 1, begin_task, NULL);
    assert_int_equal(finish(state_text, "code-1", "", ""), OK);
    fake.await_meanwhile = await_connect_again_and_again;
    bed_run(1, 1, disconnect_task, NULL);
    assert_false(revoked);
    assert_int_equal(vault_account_get(bed_vault, STR("acme"), account, &arena, &a), E_ACCOUNT_MISSING);
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_account_is_connected),
        cmocka_unit_test(a_state_works_once),
        cmocka_unit_test(answers_of_others_are_refused),
        cmocka_unit_test(failures_of_the_exchange_are_told_apart),
        cmocka_unit_test(the_client_proves_itself_as_configured),
        cmocka_unit_test(a_state_can_be_looked_at),
        cmocka_unit_test(a_disconnected_account_is_gone_on_both_sides),
        cmocka_unit_test(an_unreachable_provider_does_not_keep_the_account),
        cmocka_unit_test(an_account_that_is_held_keeps_its_strings_and_lends_nothing_once_it_is_gone),
        cmocka_unit_test(disconnecting_waits_for_a_refresh),
        cmocka_unit_test(connecting_again_meanwhile_leaves_no_tokens_behind),
    };

    return cmocka_run_group_tests(tests, bed_make_dir, bed_remove_dir);
}
