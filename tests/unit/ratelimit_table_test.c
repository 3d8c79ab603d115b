/*
 * ratelimit_table_test.c -- many keys, few places for them: bounds, forgetting, memory that runs out, views
 *
 * Memory failures are made with the linker's --wrap: see __wrap_calloc.
 */
#include "ratelimit_test.h"

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

static bool calloc_fails;

void *__wrap_calloc(size_t n, size_t size)
{
    return calloc_fails ? NULL : __real_calloc(n, size);
}

static void test_idle_keys_make_room_busy_ones_do_not(void **state)
{
    struct rl_config config = { .keys_max = 100, .seed = { 3, 4 } };
    struct rl *rl = rl_new(&config);
    static struct rl_waiter held[100];
    struct rl_waiter w;
    struct rl_stats s;
    char name[16];

    rule_rate(rl, 1, RL_RATE_BUCKET, 1, S, 1);
    rule_cap(rl, 2, 1, 0);
    for (int i = 0; i < 5000; i++) {        /* never more than 100, whatever is named */
        snprintf(name, sizeof(name), "idle%d", i);
        assert_int_equal(get(rl, &w, name, 2, 1, 0, 0), RL_GRANTED);
        done(rl, &w, 0);
    }
    rl_stats(rl, &s);
    assert_int_equal(s.keys, 100);
    assert_int_equal(s.evicted, 4900);
    for (int i = 0; i < 98; i++) {
        snprintf(name, sizeof(name), "busy%d", i);
        assert_int_equal(get(rl, &held[i], name, 2, 1, 0, 0), RL_GRANTED);
    }
    assert_int_equal(get(rl, &w, "owes", 1, 1, 0, 0), RL_GRANTED);
    done(rl, &w, 0);
    assert_int_equal(rl_pause(rl, ASK("paused", 2), 2 * S, 0), RL_GRANTED);
    assert_int_equal(get(rl, &w, "one more", 2, 1, RL_FOREVER, 0), RL_TABLE_FULL);
    assert_int_equal(rl_pause(rl, ASK("one more", 2), 2 * S, 0), RL_TABLE_FULL);
    assert_int_equal(get(rl, &w, "owes", 1, 1, 0, 0), RL_LATE);     /* remembered */
    assert_int_equal(get(rl, &w, "one more", 2, 1, 0, S), RL_GRANTED);     /* "owes" is full again: forgotten */
    assert_false(rl_key_stats(rl, ASK("owes", 1), S, &(struct rl_key_stats){ 0 }));
    done(rl, &w, S);
    assert_int_equal(get(rl, &w, "paused", 2, 1, 0, S), RL_LATE);
    for (int i = 0; i < 98; i++)
        done(rl, &held[i], S);
    rl_stats(rl, &s);
    assert_int_equal(s.keys, 100);
    assert_int_equal(s.table_full, 1);
    rl_free(rl);
}

static const char *numbered(char name[16], int n)
{
    snprintf(name, 16, "n%d", n);
    return name;
}

static void test_out_of_memory_is_an_answer(void **state)
{
    struct rl *rl = make();
    struct rl_waiter a, b, c;
    enum rl_result r;
    char name[16];
    int n = 0;

    rule_cap(rl, 1, 1, 0);
    assert_int_equal(get(rl, &a, "k", 1, 1, 0, 0), RL_GRANTED);
    calloc_fails = true;
    assert_null(rl_new(&(struct rl_config){ 0 }));
    assert_int_equal(get(rl, &b, "k", 1, 1, RL_FOREVER, 0), RL_BUSY);
    assert_int_equal(rl_throttled(rl, ASK("k", 1), 0, 0, 0), RL_BUSY);
    calloc_fails = false;
    /* and in the middle of moving from one queue to another */
    assert_int_equal(get(rl, &b, "m", 1, 1, RL_FOREVER, 0), RL_GRANTED);
    assert_int_equal(get2(rl, &c, ask("k", 1, 1), ask("m", 1, 1), RL_FOREVER, 0), RL_QUEUED);
    calloc_fails = true;
    done(rl, &a, 0);
    calloc_fails = false;
    assert_int_equal(c.result, RL_BUSY);
    done(rl, &b, 0);
    /* an index that cannot grow is filled up, and then the answer is "full"; nothing is lost, and it goes on after */
    calloc_fails = true;
    while ((r = get(rl, &b, numbered(name, n), 1, 1, 0, 0)) == RL_GRANTED && n++ < 100000)
        done(rl, &b, 0);
    assert_int_equal(r, RL_TABLE_FULL);
    assert_true(n > 16 * 64 / 2);
    calloc_fails = false;
    for (int i = 0; i <= n; i++) {
        assert_int_equal(get(rl, &b, numbered(name, i), 1, 1, 0, 0), RL_GRANTED);
        done(rl, &b, 0);
    }
    assert_int_equal(get(rl, &a, "k", 1, 1, 0, 0), RL_GRANTED);
    done(rl, &a, 0);
    rl_free(rl);
}

static void test_every_key_is_found_again_however_many(void **state)
{
    enum { N = 50000 };
    struct rl *rl = make();
    struct rl_waiter w;
    struct rl_stats s;
    char name[16];

    rule_rate(rl, 1, RL_RATE_BUCKET, 1, S, 1);
    for (int i = 0; i < 2 * N; i++) {
        snprintf(name, sizeof(name), "key%d", i % N);
        assert_int_equal(get(rl, &w, name, 1, 1, 0, 0), i < N ? RL_GRANTED : RL_LATE);
        if (i < N)
            done(rl, &w, 0);
    }
    rl_stats(rl, &s);
    assert_int_equal(s.keys, N);
    assert_true(s.bytes / N <= 96);     /* all of it */
    rl_free(rl);
}

/* However many there are when the last one comes, keys that are used again soon go the short way, all but few: two may
 * look alike in the index. */
static void test_keys_go_the_short_way_when_no_more_come(void **state)
{
    enum { N = 6400, STEP = 128 };
    struct rl *rl = make();
    struct rl_permit p;
    struct rl_waiter w;
    char name[16];

    rule_cap(rl, 1, 1, 0);
    for (int n = 0; n < N; n += STEP) {
        int quick = 0;

        for (int i = 0; i < 2 * (n + STEP); i++) {
            assert_int_equal(get(rl, &w, numbered(name, i % (n + STEP)), 1, 1, 0, 0), RL_GRANTED);
            done(rl, &w, 0);
        }
        for (int i = 0; i < n + STEP; i++) {
            struct rl_ask a = ask(numbered(name, i), 1, 1);

            if (rl_try(rl, &p, &a, 1, 0)) {
                rl_release(rl, &p, 0);
                quick++;
            }
        }
        if (quick < (n + STEP) * 96 / 100)
            fail_msg("of %d keys only %d go the short way", n + STEP, quick);
    }
    rl_free(rl);
}

/* Ids made from a scope differ, whatever they are made of, but are under its lock; all keys may be one tenant's. */
static void test_composed_ids(void **state)
{
    enum { N = 20000 };
    struct rl *rl = make();
    struct rl_id tenant = rl_id_of(rl, "tenant", 6), ids[4];
    struct rl_ask asks[2];
    struct rl_waiter w;
    struct rl_stats s;
    char name[16];

    ids[0] = rl_id_sub(tenant, "ab", 2);
    ids[1] = rl_id_sub(rl_id_sub(tenant, "a", 1), "b", 1);
    ids[2] = rl_id_nth(tenant, 1);
    ids[3] = rl_id_nth(tenant, 2);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ids[i].a >> 58, tenant.a >> 58);
        for (int k = 0; k < i; k++)
            assert_false(ids[i].a == ids[k].a && ids[i].b == ids[k].b);
    }
    rule_rate(rl, 1, RL_RATE_BUCKET, 1, S, 1);
    rule_cap(rl, 2, 1, 0);
    for (int i = 0; i < 2 * N; i++) {
        struct rl_id box;

        snprintf(name, sizeof(name), "box%d", i % N);
        box = rl_id_sub(tenant, name, strlen(name));
        asks[0] = (struct rl_ask){ .rule = 1, .cost = 1, .id = rl_id_nth(box, 1) };
        asks[1] = (struct rl_ask){ .rule = 2, .cost = 1, .id = rl_id_nth(box, 2) };
        w = (struct rl_waiter){ 0 };
        assert_int_equal(rl_acquire(rl, &w, asks, 2, 0, 0), i < N ? RL_GRANTED : RL_LATE);
        if (i < N)
            done(rl, &w, 0);
    }
    rl_stats(rl, &s);
    assert_int_equal(s.keys, 2 * N);
    assert_true(s.bytes / (2 * N) <= 96);
    rl_free(rl);
}

static int depth_of(const struct rl_node *n)
{
    int l, r;

    if (!n)
        return 0;
    l = depth_of(n->left);
    r = depth_of(n->right);
    return 1 + (l > r ? l : r);
}

static void test_the_queue_is_ordered_and_shallow(void **state)
{
    enum { N = 1 << 16 };
    struct rl_node *nodes = calloc(N, sizeof(*nodes)), *root = NULL, *n;
    uint32_t prio = 2463534242u;
    uint64_t last = 0;

    assert_non_null(nodes);
    for (uint32_t i = 0; i < N; i++) {          /* in order, which is the usual case and the worst for a plain tree */
        nodes[i].key = i / 2;
        prio ^= prio << 13;
        prio ^= prio >> 17;
        prio ^= prio << 5;
        nodes[i].prio = prio;
        rl_tree_add(&root, &nodes[i]);
    }
    assert_true(depth_of(root) < 64);
    for (uint32_t i = 0; i < N; i += 3) {
        rl_tree_del(&root, &nodes[i]);
        nodes[i].key = (i * 7919u) % N;
        rl_tree_add(&root, &nodes[i]);
    }
    for (uint32_t i = 0; i < N; i++) {
        n = rl_tree_min(root);
        assert_non_null(n);
        assert_true(n->key >= last);
        last = n->key;
        rl_tree_del(&root, n);
    }
    assert_null(root);
    free(nodes);
}

static bool count_busy(void *arg, const struct rl_key_stats *s)
{
    struct rl_key_stats *sum = arg;

    sum->waiting += s->waiting;
    sum->in_flight += s->in_flight;
    sum->granted++;
    return true;
}

static bool stop_at_once(void *arg, const struct rl_key_stats *s)
{
    ++*(int *)arg;
    return false;
}

static void test_visit_shows_what_is_busy(void **state)
{
    struct rl *rl = make();
    struct rl_key_stats sum = { 0 }, all = { 0 };
    struct rl_waiter w[20], idle;
    char name[16];
    int seen = 0;

    rule_cap(rl, 1, 1, 0);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "idle%d", i);
        assert_int_equal(get(rl, &idle, name, 1, 1, 0, 0), RL_GRANTED);
        done(rl, &idle, 0);
    }
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "busy%d", i / 2);
        assert_int_equal(get(rl, &w[i], name, 1, 1, RL_FOREVER, 0), i % 2 ? RL_QUEUED : RL_GRANTED);
    }
    rl_visit(rl, false, 0, count_busy, &sum);
    assert_int_equal(sum.granted, 10);
    assert_int_equal(sum.waiting, 10);
    assert_int_equal(sum.in_flight, 10);
    rl_visit(rl, true, 0, count_busy, &all);
    assert_int_equal(all.granted, 1010);
    rl_visit(rl, false, 0, stop_at_once, &seen);
    assert_int_equal(seen, 1);
    for (int i = 0; i < 20; i++)
        done(rl, &w[i], 0);
    rl_free(rl);
}

/* A name that is made when it is wanted. */
static unsigned names_made;

static size_t name_of(const struct rl_ask *ask, char to[RL_KEY_MAX])
{
    const char *name = ask->key;

    names_made++;
    memcpy(to, name, strlen(name));
    return strlen(name);
}

struct named {
    char of[2][64];
    unsigned n, unnamed;
};

static bool note_named(void *arg, const struct rl_key_stats *s)
{
    struct named *got = arg;

    if (s->key && got->n < 2)
        snprintf(got->of[got->n++], sizeof(got->of[0]), "%.*s", (int)s->key_len, (const char *)s->key);
    got->unnamed += !s->key;
    return true;
}

static void test_a_name_is_made_once_and_only_for_a_key_worth_showing(void **state)
{
    struct rl *rl = make();
    struct rl_id scope = rl_id_of(rl, "tenant", 6);
    struct rl_ask asks[] = {
        { .key = "tenant|free", .rule = 2, .cost = 1, .id = rl_id_nth(scope, 1), .name = name_of },
        { .key = "tenant|full", .rule = 1, .cost = 1, .id = rl_id_nth(scope, 2), .name = name_of },
        { .key = "", .rule = 1, .cost = 1, .id = rl_id_nth(scope, 3), .name = name_of },
    };
    struct rl_waiter w[4] = { { .wake = on_wake }, { .wake = on_wake }, { .wake = on_wake }, { .wake = on_wake } };
    struct rl_key_stats stats;
    struct named got = { 0 };

    (void)state;
    names_made = 0;
    rule_cap(rl, 1, 1, 0);
    rule_cap(rl, 2, 100, 0);
    assert_int_equal(rl_acquire(rl, &w[0], asks, 2, 0, 0), RL_GRANTED);
    assert_int_equal(names_made, 0);
    assert_int_equal(rl_acquire(rl, &w[1], asks, 2, RL_FOREVER, 0), RL_QUEUED);
    assert_int_equal(rl_acquire(rl, &w[2], asks, 2, 0, 0), RL_LATE);
    assert_int_equal(names_made, 1);
    rl_visit(rl, false, 0, note_named, &got);
    assert_int_equal(got.n, 1);
    assert_string_equal(got.of[0], "tenant|full");
    assert_int_equal(rl_pause(rl, &asks[0], S, 0), RL_GRANTED);
    assert_int_equal(names_made, 2);
    assert_int_equal(rl_pause(rl, &asks[2], S, 0), RL_GRANTED);      /* none after all */
    assert_int_equal(names_made, 3);
    got = (struct named){ 0 };
    rl_visit(rl, true, 0, note_named, &got);
    assert_int_equal(got.n, 2);
    assert_int_equal(got.unnamed, 1);
    assert_true(rl_key_stats(rl, &asks[0], 0, &stats));
    assert_null(stats.key);
    done(rl, &w[0], S);
    assert_int_equal(w[1].result, RL_GRANTED);
    done(rl, &w[1], S);
    rl_free(rl);
}

static size_t gone;

static void count_wake(struct rl_waiter *w)
{
    gone += w->result == RL_TIMED_OUT;
}

static void test_very_many_waiters_on_one_key(void **state)
{
    enum { N = 100000 };
    struct rl_config config = { .waiters_per_key_max = N };
    struct rl *rl = rl_new(&config);
    struct rl_waiter *w = calloc(N, sizeof(*w)), holder;
    struct rl_ask a = ask("k", 1, 1);
    struct rl_stats s;

    assert_non_null(w);
    gone = 0;
    rule_cap(rl, 1, 1, 0);
    assert_int_equal(get(rl, &holder, "k", 1, 1, 0, 0), RL_GRANTED);
    for (int i = 0; i < N; i++) {
        w[i].wake = count_wake;
        assert_int_equal(rl_acquire(rl, &w[i], &a, 1, 10 + i % 7, 0), RL_QUEUED);
    }
    for (int i = 0; i < N; i += 2)
        assert_true(rl_cancel(rl, &w[i * 7919L % N / 2 * 2], 1));
    while (tick(rl, 100) != RL_FOREVER)         /* a bounded number each time */
        assert_true(gone <= N / 2);
    assert_int_equal(gone, N / 2);
    rl_stats(rl, &s);
    assert_int_equal(s.waiting, 0);
    done(rl, &holder, 101);
    rl_free(rl);
    free(w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_keys_make_room_busy_ones_do_not),
        cmocka_unit_test(test_out_of_memory_is_an_answer),
        cmocka_unit_test(test_every_key_is_found_again_however_many),
        cmocka_unit_test(test_keys_go_the_short_way_when_no_more_come),
        cmocka_unit_test(test_composed_ids),
        cmocka_unit_test(test_the_queue_is_ordered_and_shallow),
        cmocka_unit_test(test_visit_shows_what_is_busy),
        cmocka_unit_test(test_a_name_is_made_once_and_only_for_a_key_worth_showing),
        cmocka_unit_test(test_very_many_waiters_on_one_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
