/*
 * mcp_policy_test.c -- over random policies, what an engine lists and what it allows, asked over sockets
 *
 * Every call of every caller is decided a second time here, side by side and policy by policy: each policy parsed and
 * asked alone, entities and context written down by hand.  The engine must allow exactly what every side allows, and
 * nothing that it does not list.  PIPELINE_SEED and PIPELINE_SETS go on.
 */
#include <stdio.h>
#include <stdlib.h>

#include "dice.h"
#include "loop/world.h"
#include "mcp_bed.h"
#include "policy/policy.h"

enum { SETS = 16, CALLERS = 6, TRIES = 3, POLICIES_MAX = 9, SIDES_MAX = 4 };

struct trial {
    struct bed bed;
    struct arena arena;                 /* of one call */
    char policies[POLICIES_MAX][512];
    struct policy_set *alone[POLICIES_MAX];
    unsigned n;
    unsigned lists, shown, allowed, denied, hidden, failed_forbids, more_sides;
};

/* ---- policies ---------------------------------------------------------------------------------------------------- */

static const char *const principals[] = {
    "principal", "principal", "principal is User", "principal is Agent", "principal == User::\"ann\"",
    "principal == Agent::\"desk\"", "principal in Group::\"day\"", "principal is User in Group::\"night\"",
    "principal in Tenant::\"acme\"", "principal is Agent in Tenant::\"rival\"",
};
static const char *const actions[] = {
    "action", "action", "action in Action::\"bed\"", "action in Action::\"reads\"", "action == Action::\"bed.add\"",
    "action in [Action::\"bed.write\", Action::\"destroys\"]", "action in Action::\"writes\"",
};
static const char *const resources[] = {
    "resource", "resource", "resource", "resource == Thing::\"ann\"", "resource is Thing in Tenant::\"acme\"",
};
static const char *const conditions[] = {
    "context.args.a > 0", "context.args has a && context.args.a + context.args.b < 5", "context.args has what",
    "context.args.what == \"x\"", "context.args.what like \"*y\"", "context.args has n",
    "context.side == \"user\"",
    "context.side == \"delegate\"", "context.user == \"bob\"", "context.agent == \"desk\"",
    "context.tenant == \"acme\"", "context.delegator in Group::\"day\"", "context.actor == principal",
    "context.scopes.contains(\"mail\")", "principal in Group::\"night\"", "principal in resource",
    "context.args.a * 9223372036854775807 > 1", "context has delegation", "context.auth == \"local\"",
    "if context.args has a then context.args.a == 1 else true", "action in Action::\"reads\"",
    "User::\"ann\" in Group::\"day\"",
};

static void make_policy(char *to, size_t max)
{
    int n = snprintf(to, max, "%s (%s, %s, %s)", below(4) ? "permit" : "forbid", PICK_FROM(principals),
                     PICK_FROM(actions), PICK_FROM(resources));

    for (unsigned k = below(3); k > 0; k--)
        n += snprintf(to + n, max - (size_t)n, " %s { %s }", below(4) ? "when" : "unless", PICK_FROM(conditions));
    snprintf(to + n, max - (size_t)n, ";\n");
}

static struct policy_set *parse(const char *text)
{
    struct policy_source source = { STR("p"), str_of(text) };
    struct policy_set *set;
    struct errinfo info = { "" };

    if (policy_set_parse(&source, 1, 0, &set, &info))
        fail_msg("%s\n%s", info.text, text);
    return set;
}

static void make_policies(struct trial *t, struct buf *text)
{
    t->n = 2 + below(POLICIES_MAX - 1);
    for (unsigned i = 0; i < t->n; i++) {
        if (i == 0)
            snprintf(t->policies[i], sizeof(t->policies[i]), "permit (%s, action, resource);\n",
                     below(2) ? "principal" : "principal in Tenant::\"acme\"");
        else
            make_policy(t->policies[i], sizeof(t->policies[i]));
        t->alone[i] = parse(t->policies[i]);
        buf_add_z(text, t->policies[i]);
    }
    buf_add_c(text, '\0');
}

/* ---- callers ----------------------------------------------------------------------------------------------------- */

struct who {
    struct str tenant, user, agents[SIDES_MAX - 1], groups[2];
    unsigned n_agents, n_groups;
    bool mail;
    char header[4096];
};

static void random_caller(struct trial *t, struct who *w)
{
    static const char *const users[] = { "ann", "bob", "cid" }, *const agents[] = { "desk", "front", "ann" };
    struct identity_mint m = { .audience = STR("http://bed/mcp"), .now = world->wall_ms(), .ttl = 3600 * NS_PER_S };
    struct buf token = BUF_INIT(3500);
    struct errinfo info = { "" };

    *w = (struct who){ .tenant = below(3) ? STR("acme") : STR("rival"), .user = str_of(PICK_FROM(users)),
                       .n_agents = 1 + below(SIDES_MAX - 1), .mail = below(2) };
    for (unsigned i = 0; i < w->n_agents; i++)
        w->agents[i] = str_of(PICK_FROM(agents));
    if (below(2))
        w->groups[w->n_groups++] = STR("day");
    if (below(2))
        w->groups[w->n_groups++] = STR("night");
    m.tenant = w->tenant;
    m.user = w->user;
    m.agent = w->agents[0];
    m.chain = w->agents + 1;
    m.n_chain = w->n_agents - 1;
    m.groups = w->groups;
    m.n_groups = w->n_groups;
    m.scopes = w->mail ? STR("mail") : STR("");
    if (identity_mint(t->bed.local, &m, &token, &info))
        fail_msg("%s", info.text);
    snprintf(w->header, sizeof(w->header), "Authorization: Bearer %.*s\r\n", STR_ARG(buf_str(&token)));
    buf_release(&token);
    t->more_sides += w->n_agents > 1;
}

/* ---- the reference ----------------------------------------------------------------------------------------------- */

static const struct tool_known {
    const char *name, *effect;
} tools[] = { { "bed.add", "reads" }, { "bed.list", "reads" }, { "bed.write", "writes" },
              { "bed.secret", "destroys" } };

static const char *random_args(const struct tool_known *tool)
{
    static const char *const add[] = { "{\"a\":1,\"b\":2}", "{\"a\":-3,\"b\":0}", "{\"a\":7,\"b\":9}",
                                       "{\"a\":0,\"b\":0}" };
    static const char *const list[] = { "{}", "{\"n\":0}", "{\"n\":3}" };
    static const char *const write[] = { "{\"what\":\"x\"}", "{\"what\":\"yy\"}", "{\"what\":\"z\"}" };

    if (tool == &tools[0])
        return PICK_FROM(add);
    return tool == &tools[1] ? PICK_FROM(list) : tool == &tools[2] ? PICK_FROM(write) : "{}";
}

struct asked_here {
    struct policy_uid tenant, user, agents[SIDES_MAX - 1], groups[2], action, above[2], resource;
    struct policy_layer layer;
};

static void add_entity(struct trial *t, struct asked_here *k, struct policy_uid uid,
                       const struct policy_uid *const *parents, size_t n)
{
    if (!policy_layer_own(&k->layer, &uid))
        assert_int_equal(policy_layer_add(&k->layer, &t->arena, uid, (struct policy_value){ 0 }, parents, n), OK);
}

static void write_down(struct trial *t, const struct who *w, const struct tool_known *tool, struct asked_here *k)
{
    const struct policy_uid *above_user[] = { &k->tenant, &k->groups[0], &k->groups[1] };
    const struct policy_uid *above_tool[] = { &k->above[0], &k->above[1] };

    policy_layer_init(&k->layer, NULL);
    k->tenant = policy_uid(STR("Tenant"), w->tenant);
    k->user = policy_uid(STR("User"), w->user);
    k->action = policy_uid(STR("Action"), str_of(tool->name));
    k->above[0] = policy_uid(STR("Action"), STR("bed"));
    k->above[1] = policy_uid(STR("Action"), str_of(tool->effect));
    k->resource = policy_uid(STR("Thing"), w->user);      /* without an account it is the user's */
    for (unsigned i = 0; i < w->n_groups; i++)
        k->groups[i] = policy_uid(STR("Group"), w->groups[i]);
    add_entity(t, k, k->tenant, NULL, 0);
    add_entity(t, k, k->user, above_user, 1 + w->n_groups);
    add_entity(t, k, k->action, above_tool, 2);
    add_entity(t, k, k->resource, above_user, 1);
    for (unsigned i = 0; i < w->n_agents; i++) {
        k->agents[i] = policy_uid(STR("Agent"), w->agents[i]);
        add_entity(t, k, k->agents[i], above_user, 1);
    }
}

static struct policy_value context(struct trial *t, const struct who *w, const struct asked_here *k, const char *args,
                                   unsigned side)
{
    static const char *const sides[SIDES_MAX] = { "user", "agent", "delegate", "delegate" };
    struct policy_attr *at = ARENA_ARRAY(&t->arena, struct policy_attr, 10);
    struct policy_value *scopes = ARENA_ARRAY(&t->arena, struct policy_value, 1), given;
    struct json_error where;
    struct errinfo info;
    struct json *j;

    assert_int_equal(json_parse(&t->arena, str_of(args), NULL, &j, &where), OK);
    assert_int_equal(policy_value_from_json(&t->arena, j, POLICY_JSON_PLAIN, &given, &info), OK);
    scopes[0] = policy_string(STR("mail"));
    at[0] = (struct policy_attr){ STR("args"), given };
    at[1] = (struct policy_attr){ STR("auth"), policy_string(STR("local")) };
    at[2] = (struct policy_attr){ STR("side"), policy_string(str_of(sides[side])) };
    at[3] = (struct policy_attr){ STR("user"), policy_string(w->user) };
    at[4] = (struct policy_attr){ STR("agent"), policy_string(w->agents[0]) };
    at[5] = (struct policy_attr){ STR("tenant"), policy_string(w->tenant) };
    at[6] = (struct policy_attr){ STR("actor"), policy_entity_value(&k->agents[0]) };
    at[7] = (struct policy_attr){ STR("delegator"), policy_entity_value(&k->user) };
    at[8] = (struct policy_attr){ STR("scopes"), policy_set_of(scopes, w->mail) };
    return policy_record_of(at, 9);
}

/* A permit holds, no forbid does, and none fails. */
static bool side_allows(struct trial *t, const struct policy_request *r)
{
    unsigned permits = 0, forbids = 0;

    for (unsigned i = 0; i < t->n; i++) {
        struct policy_decision d;
        bool forbid = policy_set_info(t->alone[i], 0).forbid;

        assert_int_equal(policy_decide(t->alone[i], r, &d), OK);
        permits += forbid ? 0 : d.n_reasons;
        forbids += forbid ? d.n_reasons + d.n_errors : 0;
        t->failed_forbids += forbid ? d.n_errors : 0;
    }
    return permits && !forbids;
}

static bool every_side_allows(struct trial *t, const struct who *w, const struct tool_known *tool, const char *args)
{
    struct asked_here k;
    bool all = true;

    write_down(t, w, tool, &k);
    for (unsigned side = 0; side <= w->n_agents; side++) {
        struct policy_request r = { .principal = side ? &k.agents[side - 1] : &k.user, .action = &k.action,
                                    .resource = &k.resource, .context = context(t, w, &k, args, side),
                                    .entities = &k.layer, .scratch = &t->arena };

        all &= side_allows(t, &r);
    }
    arena_clear(&t->arena);
    return all;
}

/* ---- the engine -------------------------------------------------------------------------------------------------- */

static bool engine_allows(struct trial *t, const struct who *w, const struct tool_known *tool, const char *args)
{
    char params[256];
    struct reply r;
    bool denied;

    snprintf(params, sizeof(params), "\"name\":\"%s\",\"arguments\":%s", tool->name, args);
    modern(&t->bed, &(struct modern){ .method = "tools/call", .name = tool->name, .params = params,
                                      .headers = w->header, .worker = below(BED_WORKERS) }, &r);
    assert_int_equal(r.status, 200);
    denied = strcmp(z_at(&r, "result _meta dev.sluice/error"), "policy_denied") == 0;
    if (!denied)                        /* it ran: nothing else was in its way */
        assert_str_at(&r, "result _meta dev.sluice/error", "");
    reply_release(&r);
    return !denied;
}

static unsigned engine_lists(struct trial *t, const struct who *w)
{
    struct reply r;
    unsigned shown = 0;

    modern(&t->bed, &(struct modern){ .method = "tools/list", .headers = w->header,
                                      .worker = below(BED_WORKERS) }, &r);
    assert_int_equal(r.status, 200);
    for (const struct json *it = json_first(at(&r, "result tools")); it; it = json_next(it))
        for (unsigned i = 0; i < ARRAY_LEN(tools); i++)
            if (strcmp(json_z(it, "name"), tools[i].name) == 0)
                shown |= 1u << i;
    reply_release(&r);
    t->lists++;
    return shown;
}

static void fail_with(const struct trial *t, const struct who *w, const struct tool_known *tool, const char *args,
                      const char *what)
{
    for (unsigned i = 0; i < t->n; i++)
        print_message("%s", t->policies[i]);
    fail_msg("%s: %s %s for %.*s by %.*s (%u agents) of %.*s", what, tool->name, args, STR_ARG(w->user),
             STR_ARG(w->agents[0]), w->n_agents, STR_ARG(w->tenant));
}

static void one_caller(struct trial *t)
{
    struct who w;
    unsigned shown;

    random_caller(t, &w);
    shown = engine_lists(t, &w);
    for (unsigned i = 0; i < ARRAY_LEN(tools); i++) {
        bool listed = shown >> i & 1;

        t->shown += listed;
        t->hidden += !listed;
        for (unsigned k = 0; k < TRIES; k++) {
            const char *args = random_args(&tools[i]);
            bool allowed = engine_allows(t, &w, &tools[i], args);

            if (allowed != every_side_allows(t, &w, &tools[i], args))
                fail_with(t, &w, &tools[i], args, allowed ? "allowed, though a side denies it" : "denied without need");
            if (allowed && !listed)
                fail_with(t, &w, &tools[i], args, "hidden and allowed");
            t->allowed += allowed;
            t->denied += !allowed;
        }
    }
}

static void the_engine_allows_what_every_side_allows(void **state)
{
    const char *given = getenv("PIPELINE_SEED"), *many = getenv("PIPELINE_SETS");
    unsigned sets = many ? (unsigned)atoi(many) : SETS;
    struct trial *t = calloc(1, sizeof(*t));

    seed = given ? strtoull(given, NULL, 10) : 20261126;
    ASSERT(t != NULL && seed != 0);
    print_message("seed %llu\n", (unsigned long long)seed);
    arena_init(&t->arena, 1 << 20);
    for (unsigned s = 0; s < sets; s++) {
        struct buf text = BUF_INIT(1 << 16);

        make_policies(t, &text);
        bed_start(&t->bed, NULL, text.p, true);
        for (unsigned i = 0; i < CALLERS; i++)
            one_caller(t);
        bed_stop(&t->bed);
        for (unsigned i = 0; i < t->n; i++)
            policy_set_unref(t->alone[i]);
        buf_release(&text);
    }
    print_message("%u lists: %u tools shown, %u hidden; %u calls allowed, %u denied; %u forbids failed; "
                  "%u callers with delegations\n", t->lists, t->shown, t->hidden, t->allowed, t->denied,
                  t->failed_forbids, t->more_sides);
    assert_true(t->allowed > t->denied / 20 && t->denied > t->allowed / 20);
    assert_true(t->hidden && t->shown && t->failed_forbids && t->more_sides);
    arena_release(&t->arena);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(the_engine_allows_what_every_side_allows) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
