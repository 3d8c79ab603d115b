/* call_keys_test.c -- ids that a worker keeps are those that hashing gives; names of keys */
#include "base_test.h"

#include "base/map.h"
#include "call/engine.h"

static struct caller caller_of(const char *tenant)
{
    static char agent[2 * KEY_AGENT_MAX + 1];
    struct caller c = { .tenant = str_of(tenant) };

    /* one of few, as long as is kept, and longer */
    c.agent = str_n(agent, (size_t)snprintf(agent, sizeof(agent), "%0*d", KEY_AGENT_MAX - 1 + rand() % 3, rand() % 2));
    c.tenant_hash = hash_bytes(c.tenant.p, c.tenant.len);
    return c;
}

/* That of an agent's key, by hashing. */
static struct rl_id agent_id(struct rl_id budgets, const char *kind, struct str agent)
{
    return rl_id_sub(rl_id_sub(budgets, kind, strlen(kind)), agent.p, agent.len);
}

static void assert_id(struct rl_id got, struct rl_id want)
{
    assert_true(got.a == want.a && got.b == want.b);
}

/* Thousands of tenants, many of whom take each other's place. */
static void test_ids_are_those_of_hashing(void **state)
{
    static const char *const kinds[] = { "tenant calls", "agent calls", "user destroys" };
    static const char *const agents[] = { "agent reads", "agent writes" };
    const struct rl_config config = { .seed = { 7, 11 } };
    struct engine engine = { .limiter = rl_new(&config) };
    struct worker *w = calloc(1, sizeof(*w));

    (void)state;
    assert_non_null(engine.limiter);
    assert_non_null(w);
    w->engine = &engine;
    srand(3);
    for (int i = 0; i < 20000; i++) {
        char name[IDENTITY_TENANT_MAX + 1];
        struct caller c;
        struct key_scopes *s;
        struct rl_id tenant, budgets;
        unsigned kind = (unsigned)rand() % 3, provider = (unsigned)rand() % (2 * KEY_PROVIDERS);
        char of[16];

        snprintf(name, sizeof(name), "%.*s%d", rand() % 60,
                 "tenant-of-a-name-that-is-as-long-as-a-tenant-may-be-called", rand() % 300);
        c = caller_of(name);
        s = key_scopes(w, &c);
        tenant = rl_id_of(engine.limiter, name, strlen(name));
        budgets = rl_id_sub(tenant, "budgets", 7);
        assert_id(s->limits, rl_id_sub(tenant, "limits", 6));
        assert_id(s->budgets, budgets);
        assert_id(key_kind(s, kind, kinds[kind]), rl_id_sub(budgets, kinds[kind], strlen(kinds[kind])));
        assert_id(key_only(s, KEY_KINDS - 1, "tenant calls"), rl_id_sub(rl_id_sub(budgets, "tenant calls", 12), "", 0));
        assert_id(key_agent(s, KEY_AGENT_FIRST + kind % 2, agents[kind % 2], &c),
                  agent_id(budgets, agents[kind % 2], c.agent));
        assert_id(key_below(s->limits, STR("outlook")), rl_id_sub(s->limits, "outlook", 7));
        snprintf(of, sizeof(of), "provider%u", provider);
        assert_id(key_provider(s, provider, of), rl_id_sub(s->limits, of, strlen(of)));
    }
    rl_free(engine.limiter);
    free(w);
}

static void test_names(void **state)
{
    char to[RL_KEY_MAX], part[RL_KEY_MAX];
    struct str parts[] = { STR("acme"), STR(""), STR("agent calls"), STR("claude") };

    (void)state;
    assert_str(str_n(to, key_name(to, parts, 4)), "acme||agent calls|claude");
    parts[3] = STR("");
    assert_str(str_n(to, key_name(to, parts, 4)), "acme||agent calls|");
    parts[1] = STR_NULL;
    assert_str(str_n(to, key_name(to, parts, 2)), "acme|");
    assert_int_equal(key_name(to, parts, 0), 0);

    memset(part, 'x', sizeof(part));
    parts[0] = str_n(part, RL_KEY_MAX);
    assert_int_equal(key_name(to, parts, 1), RL_KEY_MAX);
    assert_int_equal(key_name(to, parts, 2), 0);
    parts[0] = STR("y");
    parts[1] = str_n(part, RL_KEY_MAX - 2);
    assert_int_equal(key_name(to, parts, 2), RL_KEY_MAX);
    parts[1] = str_n(part, RL_KEY_MAX - 1);
    assert_int_equal(key_name(to, parts, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_those_of_hashing),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
