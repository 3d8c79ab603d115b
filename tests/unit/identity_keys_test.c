/* identity_keys_test.c -- keys that are fetched: once for many waiters, not at a stranger's pace, renewed with age */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "identity/identity.h"
#include "identity_forge.h"
#include "loop/task.h"
#include "loop/world.h"

/* In tasks and other threads: ends the process. cmocka's own assertions would jump from one stack to another. */
#define CHECK(x) do { if (!(x)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); abort(); } } while (0)

enum { LOOPS = 2, TASKS = 200 };

/* The real world, with a clock that the test can push forward between runs. */
static struct world test_world;
static ns_t ahead;

static ns_t test_now(void)
{
    return world_real.now() + ahead;
}

static wall_ms_t test_wall(void)
{
    return world_real.wall_ms() + ahead / NS_PER_MS;
}

static void test_wait(struct ring *r, ns_t until, void (*complete)(struct op *, int, bool, const char *, unsigned))
{
    world_real.ring_wait(r, until == 0 || until == NS_NEVER ? until : until - ahead, complete);
}

static EVP_PKEY *key_a, *key_b;
static struct identity *id;

/* ---- the issuer's server
 * ------------------------------------------------------------------------------------------ */

static atomic_int fetches;
static atomic_bool held;                        /* no answer yet */
static char served[FORGE_MAX];
static enum err served_error;
static void (*meanwhile)(void);                 /* done while an answer is on its way */

static enum err serve(void *ctx, struct str url, ns_t deadline, struct buf *body, struct errinfo *info)
{
    CHECK(str_starts(url, STR("https://idp/")));
    atomic_fetch_add(&fetches, 1);
    CHECK(deadline > loop_now());
    do {
        if (await_sleep(loop_now() + 20 * NS_PER_MS))   /* long enough for everybody to queue up behind it */
            return err_set(info, E_CANCELLED, "cancelled");
    } while (atomic_load(&held));
    if (meanwhile)
        meanwhile();
    if (served_error)
        return err_set(info, served_error, "no answer");
    buf_add_z(body, served);
    return OK;
}

/* The first time: made. After that: reloaded. */
static void configure(size_t n_issuers, const char *url)
{
    static const struct str audience = { "us", 2 };
    struct identity_issuer is = {
        .issuer = STR("https://idp"), .alg = IDENTITY_EDDSA, .audiences = &audience, .n_audiences = 1,
        .jwks_url = str_of(url), .tenant = STR("acme"),
    };
    struct identity_config config = { .issuers = &is, .n_issuers = n_issuers, .fetcher = { serve, NULL } };
    struct errinfo info = { "" };

    CHECK((id ? identity_reload(id, &config, &info) : identity_create(&config, &id, &info)) == OK);
}

static void create(void)
{
    id = NULL;
    configure(1, "https://idp/jwks");
    atomic_store(&fetches, 0);
    served_error = OK;
    snprintf(served, sizeof(served), "{\"keys\":[%s]}", forge_jwk(key_a, "a", ""));
}

/* ---- many tasks asking
 * -------------------------------------------------------------------------------------------- */

struct asking {
    struct loop *loop;
    pthread_t thread;
    char header[FORGE_MAX];
    unsigned tasks, done;
    unsigned results[ERR_COUNT];
    bool cancel_first;
    struct task_ref first;
};

static void make_token(struct asking *a, EVP_PKEY *key, const char *kid)
{
    long long now = test_wall() / 1000;
    char head[128], claims[512];

    snprintf(head, sizeof(head), "{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"at+jwt\"}", kid);
    snprintf(claims, sizeof(claims), "{\"iss\":\"https://idp\",\"sub\":\"ann\",\"aud\":\"us\",\"client_id\":\"c\","
        "\"jti\":\"j\",\"iat\":%lld,\"exp\":%lld}", now - 5, now + 3600);
    strcpy(a->header, "Bearer ");
    forge_token("EdDSA", key, head, claims, a->header + 7);
}

static void ask(void *arg)
{
    struct asking *a = arg;
    struct errinfo info = { "" };
    struct caller *c = NULL;
    enum err e = await_identify(id, str_of(a->header), &c, &info);

    caller_release(c);
    a->results[e]++;
    if (++a->done == a->tasks)
        loop_stop(loop_self());
}

static void cancel_first(void *arg)
{
    struct asking *a = arg;
    struct task *t;

    await_sleep(loop_now() + 5 * NS_PER_MS);
    t = task_deref(a->first);
    CHECK(t);
    task_cancel(t);
    atomic_store(&held, false);         /* not before: on a busy machine the answer would be there first */
}

static void start(void *arg)
{
    struct asking *a = arg;

    for (unsigned i = 0; i < a->tasks; i++) {
        struct task *t = task_spawn("ask", ask, a);

        CHECK(t);
        if (i == 0)
            a->first = task_ref(t);
    }
    if (a->cancel_first)
        CHECK(task_spawn("cancel", cancel_first, a));
}

static void *run_loop(void *arg)
{
    struct asking *a = arg;

    loop_run(a->loop, start, a);
    return NULL;
}

static void run(struct asking *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct loop_options opt = { .id = (unsigned)i };
        struct errinfo info = { "" };

        if (loop_create(&opt, &list[i].loop, &info))
            fail_msg("%s", info.text);
        memset(list[i].results, 0, sizeof(list[i].results));
        list[i].done = 0;
    }
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pthread_create(&list[i].thread, NULL, run_loop, &list[i]), 0);
    for (size_t i = 0; i < n; i++) {
        pthread_join(list[i].thread, NULL);
        loop_destroy(list[i].loop);
    }
}

static enum err run_one(EVP_PKEY *key, const char *kid)
{
    static struct asking a;

    a = (struct asking){ .tasks = 1 };
    make_token(&a, key, kid);
    run(&a, 1);
    for (enum err e = OK; e < ERR_COUNT; e++) {
        if (a.results[e])
            return e;
    }
    abort();
}

/* ---- stories
 * ------------------------------------------------------------------------------------------------------ */

static void one_fetch_serves_everybody(void **state)
{
    static struct asking list[LOOPS];

    create();
    for (int i = 0; i < LOOPS; i++) {
        list[i] = (struct asking){ .tasks = TASKS };
        make_token(&list[i], key_a, "a");
    }
    run(list, LOOPS);
    for (int i = 0; i < LOOPS; i++)
        assert_int_equal(list[i].results[OK], TASKS);
    assert_int_equal(atomic_load(&fetches), 1);
    identity_destroy(id);
}

static void strangers_do_not_set_the_pace(void **state)
{
    static struct asking a;

    create();
    assert_int_equal(run_one(key_a, "a"), OK);
    a = (struct asking){ .tasks = TASKS };
    make_token(&a, key_b, "unknown");
    run(&a, 1);
    assert_int_equal(a.results[E_TOKEN_UNTRUSTED], TASKS);
    assert_int_equal(atomic_load(&fetches), 1);
    ahead += 31 * NS_PER_S;                             /* one look every 30 s */
    run(&a, 1);
    assert_int_equal(a.results[E_TOKEN_UNTRUSTED], TASKS);
    assert_int_equal(atomic_load(&fetches), 2);
    identity_destroy(id);
}

static void an_issuer_that_does_not_answer_is_not_the_tokens_fault(void **state)
{
    create();
    served_error = E_UPSTREAM_DOWN;
    assert_int_equal(run_one(key_a, "a"), E_UPSTREAM_DOWN);
    assert_int_equal(run_one(key_a, "a"), E_UPSTREAM_DOWN);
    assert_int_equal(atomic_load(&fetches), 1);         /* the second did not try: too soon */
    served_error = OK;
    strcpy(served, "<html>");
    ahead += 6 * NS_PER_S;
    assert_int_equal(run_one(key_a, "a"), E_UPSTREAM_DOWN);
    snprintf(served, sizeof(served), "{\"keys\":[%s]}", forge_jwk(key_a, "a", ""));
    ahead += 6 * NS_PER_S;
    assert_int_equal(run_one(key_a, "a"), OK);
    assert_int_equal(atomic_load(&fetches), 3);
    identity_destroy(id);
}

static void a_key_that_could_not_be_looked_up_is_not_the_tokens_fault(void **state)
{
    create();
    assert_int_equal(run_one(key_a, "a"), OK);
    served_error = E_UPSTREAM_DOWN;
    ahead += 31 * NS_PER_S;
    for (int i = 0; i < 2; i++)                         /* the second does not try: too soon */
        assert_int_equal(run_one(key_b, "b"), E_UPSTREAM_DOWN);
    assert_int_equal(run_one(key_a, "a"), OK);          /* the old keys serve */
    assert_int_equal(atomic_load(&fetches), 2);
    ahead += 25 * 3600 * NS_PER_S;
    for (int i = 0; i < 2; i++)
        assert_int_equal(run_one(key_a, "a"), E_UPSTREAM_DOWN);
    assert_int_equal(atomic_load(&fetches), 3);
    served_error = OK;
    ahead += 6 * NS_PER_S;
    for (int i = 0; i < 2; i++)                         /* now it is known not to be there */
        assert_int_equal(run_one(key_b, "b"), E_TOKEN_UNTRUSTED);
    assert_int_equal(atomic_load(&fetches), 4);
    identity_destroy(id);
}

static void a_key_that_is_taken_back_stops_working(void **state)
{
    create();
    assert_int_equal(run_one(key_a, "a"), OK);
    assert_int_equal(identity_cached(id), 1);
    snprintf(served, sizeof(served), "{\"keys\":[%s]}", forge_jwk(key_b, "b", ""));
    assert_int_equal(run_one(key_a, "a"), OK);
    ahead += 601 * NS_PER_S;
    assert_int_equal(run_one(key_a, "a"), OK);          /* the old keys are looked at while new ones are fetched */
    assert_int_equal(atomic_load(&fetches), 2);
    assert_int_equal(identity_cached(id), 0);           /* what they had let in is forgotten */
    assert_int_equal(run_one(key_a, "a"), E_TOKEN_UNTRUSTED);
    assert_int_equal(run_one(key_b, "b"), OK);
    assert_int_equal(atomic_load(&fetches), 2);
    identity_destroy(id);
}

static void a_key_may_change_under_its_name(void **state)
{
    create();
    assert_int_equal(run_one(key_a, "a"), OK);
    snprintf(served, sizeof(served), "{\"keys\":[%s]}", forge_jwk(key_b, "a", ""));
    assert_int_equal(run_one(key_b, "a"), E_TOKEN_SIGNATURE);
    assert_int_equal(atomic_load(&fetches), 1);         /* bad signatures do not set the pace either */
    ahead += 601 * NS_PER_S;
    assert_int_equal(run_one(key_b, "a"), E_TOKEN_SIGNATURE);   /* in the background, as for good tokens */
    assert_int_equal(run_one(key_b, "a"), OK);
    assert_int_equal(atomic_load(&fetches), 2);
    identity_destroy(id);
}

static void keys_too_old_are_no_keys(void **state)
{
    create();
    assert_int_equal(run_one(key_a, "a"), OK);
    served_error = E_UPSTREAM_DOWN;
    ahead += 25 * 3600 * NS_PER_S;
    assert_int_equal(run_one(key_a, "a"), E_UPSTREAM_DOWN);
    identity_destroy(id);
}

static void one_waiter_going_away_harms_nobody(void **state)
{
    static struct asking a;

    create();
    a = (struct asking){ .tasks = 50, .cancel_first = true };
    atomic_store(&held, true);
    make_token(&a, key_a, "a");
    run(&a, 1);
    assert_int_equal(a.results[E_CANCELLED], 1);
    assert_int_equal(a.results[OK], 49);
    assert_int_equal(atomic_load(&fetches), 1);
    identity_destroy(id);
}

static void take_the_issuer_away(void)
{
    configure(0, "");
}

static void what_a_reload_took_away_is_not_remembered(void **state)
{
    static struct asking a;

    create();
    a = (struct asking){ .tasks = 1 };
    make_token(&a, key_a, "a");
    meanwhile = take_the_issuer_away;
    run(&a, 1);
    meanwhile = NULL;
    assert_int_equal(a.results[OK], 1);                 /* it began before */
    run(&a, 1);
    assert_int_equal(a.results[E_TOKEN_UNTRUSTED], 1);
    identity_destroy(id);
}

static void a_reload_keeps_keys_until_there_are_others(void **state)
{
    create();
    assert_int_equal(run_one(key_a, "a"), OK);
    served_error = E_UPSTREAM_DOWN;
    configure(1, "https://idp/jwks");
    assert_int_equal(run_one(key_a, "a"), OK);
    assert_int_equal(atomic_load(&fetches), 2);         /* at once, though they are not old */
    served_error = OK;
    snprintf(served, sizeof(served), "{\"keys\":[%s]}", forge_jwk(key_b, "b", ""));
    ahead += 6 * NS_PER_S;
    assert_int_equal(run_one(key_a, "a"), OK);
    assert_int_equal(run_one(key_a, "a"), E_TOKEN_UNTRUSTED);
    configure(1, "https://idp/jwks");
    assert_int_equal(run_one(key_a, "a"), E_TOKEN_UNTRUSTED);
    assert_int_equal(atomic_load(&fetches), 4);         /* the reload is the operator's, not a stranger's */
    served_error = E_UPSTREAM_DOWN;
    configure(1, "https://idp/jwks");
    ahead += 25 * 3600 * NS_PER_S;
    assert_int_equal(run_one(key_b, "b"), E_UPSTREAM_DOWN);     /* a reload does not make them younger */
    identity_destroy(id);
}

static void a_reload_forgets_keys_of_elsewhere(void **state)
{
    create();
    assert_int_equal(run_one(key_a, "a"), OK);
    served_error = E_UPSTREAM_DOWN;
    configure(1, "https://idp/elsewhere");
    assert_int_equal(run_one(key_a, "a"), E_UPSTREAM_DOWN);
    identity_destroy(id);
}

static int set_up(void **state)
{
    test_world = world_real;
    test_world.now = test_now;
    test_world.wall_ms = test_wall;
    test_world.ring_wait = test_wait;
    world_use(&test_world);
    key_a = forge_ed25519();
    key_b = forge_ed25519();
    return 0;
}

static int tear_down(void **state)
{
    EVP_PKEY_free(key_a);
    EVP_PKEY_free(key_b);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_fetch_serves_everybody),
        cmocka_unit_test(strangers_do_not_set_the_pace),
        cmocka_unit_test(an_issuer_that_does_not_answer_is_not_the_tokens_fault),
        cmocka_unit_test(a_key_that_could_not_be_looked_up_is_not_the_tokens_fault),
        cmocka_unit_test(a_key_that_is_taken_back_stops_working),
        cmocka_unit_test(a_key_may_change_under_its_name),
        cmocka_unit_test(keys_too_old_are_no_keys),
        cmocka_unit_test(one_waiter_going_away_harms_nobody),
        cmocka_unit_test(what_a_reload_took_away_is_not_remembered),
        cmocka_unit_test(a_reload_keeps_keys_until_there_are_others),
        cmocka_unit_test(a_reload_forgets_keys_of_elsewhere),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
