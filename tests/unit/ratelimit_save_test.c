/*
 * ratelimit_save_test.c -- a restart forgets no window: what is saved comes back, and what is damaged does no harm
 */
#include "ratelimit_test.h"

static struct {
    uint8_t bytes[1 << 20];
    size_t n, fails_at;
} file;

static bool write_file(void *arg, const void *p, size_t n)
{
    assert_ptr_equal(arg, &file);
    if (file.n + n > (file.fails_at ? file.fails_at : sizeof(file.bytes)))
        return false;
    memcpy(file.bytes + file.n, p, n);
    file.n += n;
    return true;
}

#define WALL (1700000000 * S)

/* One of each kind; ids of rules are moved by `shift`, as another order in a configuration would. */
static void rules(struct rl *rl, uint16_t shift)
{
    struct rl_rule bucket = { .rate = RL_RATE_BUCKET, .amount = 100, .window_ns = 100 * S, .tag = 11 };
    struct rl_rule daily = { .calendar_amount = 10, .calendar_ns = 86400 * S, .calendar_offset_ns = 8 * 3600 * S,
                             .tag = 12 };
    struct rl_rule cap = { .concurrency = 2, .tag = 13 };

    assert_true(rl_rule_set(rl, (uint16_t)(1 + shift), &bucket, 0));
    assert_true(rl_rule_set(rl, (uint16_t)(2 + shift), &daily, 0));
    assert_true(rl_rule_set(rl, (uint16_t)(3 + shift), &cap, 0));
}

static void use(struct rl *rl, const char *key, uint16_t rule, uint32_t cost, int64_t now)
{
    struct rl_waiter w;

    assert_int_equal(get(rl, &w, key, rule, cost, 0, now), RL_GRANTED);
    done(rl, &w, now);
}

/* A limiter in which much was used, saved at 50 s of its clock. */
static void saved(void)
{
    struct rl *rl = make();
    struct rl_heard heard = { RL_UNKNOWN, 3, 50 * S + 60 * S };
    struct rl_waiter held;

    file.n = file.fails_at = 0;
    rl_wall(rl, WALL, 0);
    rules(rl, 0);
    use(rl, "used", 1, 80, 50 * S);
    use(rl, "full again", 1, 80, -100 * S);
    use(rl, "day", 2, 7, 50 * S);
    assert_int_equal(get(rl, &held, "held", 3, 1, 0, 50 * S), RL_GRANTED);
    assert_int_equal(rl_pause(rl, ASK("paused", 3), 80 * S, 50 * S), RL_GRANTED);
    assert_int_equal(rl_throttled(rl, ASK("tight", 1), 0, 51 * S, 50 * S), RL_GRANTED);
    assert_int_equal(rl_observe(rl, ASK("eaten", 1), &heard, 50 * S), RL_GRANTED);
    assert_true(rl_save(rl, write_file, &file, 50 * S));
    done(rl, &held, 50 * S);
    rl_free(rl);
}

/* Another process: its clock begins elsewhere, and `later` ns have passed on the wall. */
static struct rl *loaded(uint16_t shift, int64_t later, int64_t now, enum rl_load want, size_t *ret_keys)
{
    struct rl_config config = { .seed = { 77, 78 } };
    struct rl *rl = rl_new(&config);

    assert_non_null(rl);
    rules(rl, shift);
    rl_wall(rl, WALL + 50 * S + later, now);
    assert_int_equal(rl_load(rl, file.bytes, file.n, now, ret_keys), want);
    return rl;
}

static uint64_t left(struct rl *rl, const char *key, uint16_t rule, int64_t now)
{
    struct rl_key_stats s;

    assert_true(rl_key_stats(rl, ASK(key, rule), now, &s));
    return s.available;
}

static void test_what_was_used_stays_used(void **state)
{
    int64_t now = 9000 * S;
    struct rl_key_stats s;
    struct rl_waiter w;
    struct rl *rl;
    size_t keys;

    saved();
    for (uint16_t shift = 0; shift < 3; shift++) {
        rl = loaded(shift, 10 * S, now, RL_LOADED, &keys);
        assert_int_equal(keys, 5);
        assert_in_range(left(rl, "used", (uint16_t)(1 + shift), now), 29, 30);     /* 20 and 10 s of refilling */
        assert_int_equal(left(rl, "day", (uint16_t)(2 + shift), now), 3);
        assert_false(rl_key_stats(rl, ASK("full again", 1), now, &s));
        assert_false(rl_key_stats(rl, ASK("held", 3), now, &s));             /* its request ended with the process */
        assert_true(rl_key_stats(rl, ASK("paused", 3), now, &s));
        assert_int_equal(s.paused_until, now + 20 * S);
        assert_true(rl_key_stats(rl, ASK("tight", 1), now, &s));
        assert_true(s.tightened == 0.75);
        assert_int_equal(left(rl, "eaten", (uint16_t)(1 + shift), now), 3);
        assert_int_equal(get(rl, &w, "eaten", (uint16_t)(1 + shift), 4, 0, now), RL_LATE);
        assert_int_equal(w.retry_at, now + 50 * S);
        rl_free(rl);
    }
}

static void test_the_wall_clock_may_have_been_set_meanwhile(void **state)
{
    struct rl_key_stats s;
    struct rl *rl;
    size_t keys;

    saved();
    rl = loaded(0, -365 * 86400 * S, 0, RL_LOADED, &keys);       /* backwards: as if no time had passed */
    assert_in_range(left(rl, "used", 1, 0), 19, 20);
    assert_true(rl_key_stats(rl, ASK("paused", 3), 0, &s));
    assert_int_equal(s.paused_until, 30 * S);
    assert_int_equal(left(rl, "day", 2, 0), 3);
    assert_int_equal(left(rl, "day", 2, 86400 * S), 10);          /* and blocks no longer than a window */
    rl_free(rl);
    rl = loaded(0, 3650 * 86400 * S, 0, RL_LOADED, &keys);       /* far forward: all of it is over */
    assert_int_equal(left(rl, "used", 1, 0), 100);
    assert_int_equal(left(rl, "day", 2, 0), 10);
    rl_free(rl);
}

static void test_rules_that_changed(void **state)
{
    struct rl_rule twice = { .rate = RL_RATE_BUCKET, .amount = 200, .window_ns = 100 * S, .tag = 11 };
    struct rl_rule small = { .rate = RL_RATE_BUCKET, .amount = 10, .window_ns = 100 * S, .tag = 11 };
    struct rl *rl;
    size_t keys;

    saved();
    for (int i = 0; i < 2; i++) {
        rl = rl_new(&(struct rl_config){ .seed = { 1 } });
        rl_wall(rl, WALL + 50 * S, 0);
        assert_true(rl_rule_set(rl, 40, i ? &small : &twice, 0));
        assert_int_equal(rl_load(rl, file.bytes, file.n, 0, &keys), RL_LOADED);
        assert_int_equal(keys, 3);                                /* the other rules are gone */
        if (i == 0)
            assert_in_range(left(rl, "used", 40, 0), 119, 120);   /* 80 units of 200 */
        else
            assert_int_equal(left(rl, "used", 40, 100 * S), 10);  /* never longer than a window of its rule */
        rl_free(rl);
    }
}

static void test_damage_is_found_wherever_it_is(void **state)
{
    size_t keys, whole;
    struct rl *rl;

    saved();
    whole = file.n;
    for (file.n = 0; file.n < whole; file.n++) {
        rl = loaded(0, 0, 0, file.n < 56 ? RL_LOAD_FOREIGN : RL_LOAD_TORN, &keys);
        rl_free(rl);
    }
    for (size_t at = 0; at < whole; at++) {
        file.bytes[at] ^= 0x10;
        rl = loaded(0, 0, 0, at < 8 ? RL_LOAD_FOREIGN : RL_LOAD_TORN, &keys);
        file.bytes[at] ^= 0x10;
        rl_free(rl);
    }
    /* many blocks: the whole ones before the damage are taken */
    rl = make();
    rules(rl, 0);
    rl_wall(rl, WALL, 0);
    for (int i = 0; i < 5000; i++) {
        char name[16];

        snprintf(name, sizeof(name), "k%d", i);
        use(rl, name, 1, 50, 0);
    }
    file.n = 0;
    assert_true(rl_save(rl, write_file, &file, 0));
    file.n = 0;
    file.fails_at = 5000;
    assert_false(rl_save(rl, write_file, &file, 0));
    file.n = file.fails_at = 0;
    assert_true(rl_save(rl, write_file, &file, 0));
    rl_free(rl);
    rl = loaded(0, -50 * S, 0, RL_LOADED, &keys);
    assert_int_equal(keys, 5000);
    rl_free(rl);
    file.bytes[file.n / 2] ^= 1;
    rl = loaded(0, -50 * S, 0, RL_LOAD_TORN, &keys);
    assert_in_range(keys, 2000, 3000);
    rl_free(rl);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_used_stays_used),
        cmocka_unit_test(test_the_wall_clock_may_have_been_set_meanwhile),
        cmocka_unit_test(test_rules_that_changed),
        cmocka_unit_test(test_damage_is_found_wherever_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
