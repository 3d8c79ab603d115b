/*
 * budget.c -- budgets of configuration and of policies: rules for the limiter, lines of a call (budget.h)
 *
 * A budget per minute is a bucket: all of it at once, refilled evenly.  Hours and days begin where UTC's do.  Policies
 * that say the same thing share a rule: what differs is the key, so rules are as many as there are different amounts.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/metric.h"
#include "call/budget.h"
#include "call/internal.h"
#include "call/limits.h"

enum { MINUTE_S = 60, HOUR_S = 3600 };

static const char *const owners[BUDGET_POLICY + 1] = { "tenant", "agent", "user", "tool", "policy" };
static const char *const kinds[RULES_PER_BUDGET] = { "calls", "writes", "destroys" };
/* Both in one, ready for each call's keys: printing them there cost more than asking for the lines. */
static const char *const labels[BUDGETS][RULES_PER_BUDGET] = {
    { "tenant calls", "tenant writes", "tenant destroys" },
    { "agent calls", "agent writes", "agent destroys" },
    { "user calls", "user writes", "user destroys" },
};

/* ---- what was granted -------------------------------------------------------------------------------------------- */

static bool amount_sound(int64_t n)
{
    return n <= LIMIT_AMOUNT_MAX / 2;
}

static bool admission_sound(const struct admission_rule *r)
{
    return amount_sound(r->per_minute) && amount_sound(r->writes_per_hour) && amount_sound(r->destroys_per_hour) &&
           r->at_once <= LIMIT_AT_ONCE_MAX;
}

static bool tool_sound(const struct tool_budget *b)
{
    return amount_sound(b->per_minute) && amount_sound(b->per_hour) && b->at_once <= LIMIT_AT_ONCE_MAX;
}

static enum err tools_budgets_make(struct registry *r, const struct registry_options *opt, struct errinfo *info)
{
    r->tool_budgets = ARENA_ARRAY(&r->arena, struct tool_budget, opt->n_tool_budgets + 1);
    if (!r->tool_budgets || opt->n_tool_budgets > TOOL_BUDGETS_MAX)
        return err_set(info, E_CONFIG, "budgets.tools: at most %d tools", TOOL_BUDGETS_MAX);
    for (size_t i = 0; i < opt->n_tool_budgets; i++) {
        struct tool_budget *b = &r->tool_budgets[i];
        struct tool *t = map_get(&r->by_name, str_of(opt->tool_budgets[i].tool));

        if (!t)
            return err_set(info, E_CONFIG, "budgets.tools: there is no tool \"%s\" here; sluice tools lists them",
                           opt->tool_budgets[i].tool);
        *b = opt->tool_budgets[i];
        b->tool = t->decl->name;
        if (!tool_sound(b))
            return err_set(info, E_CONFIG,
                           "budgets.tools: %s: per_minute and per_hour are at most %lld, at_once at most %lld", b->tool,
                           LIMIT_AMOUNT_MAX / 2, (long long)LIMIT_AT_ONCE_MAX);
        t->budget = b;
    }
    r->n_tool_budgets = opt->n_tool_budgets;
    return OK;
}

static int by_content(const void *a, const void *b)
{
    const struct policy_rule *x = a, *y = b;

    if (x->window_s != y->window_s)
        return x->window_s < y->window_s ? -1 : 1;
    return (x->amount > y->amount) - (x->amount < y->amount);
}

static struct policy_rule *rule_like(const struct registry *r, const struct policy_budget *b)
{
    const struct policy_rule key = { .window_s = b->window_s, .amount = b->amount };

    return bsearch(&key, r->policy_rules, r->n_policy_rules, sizeof(key), by_content);
}

/* Each amount that a policy names is a rule. */
static enum err policy_rules_make(struct registry *r, struct errinfo *info)
{
    r->policy_rules = ARENA_ARRAY(&r->arena, struct policy_rule, POLICY_RULES_MAX);
    if (!r->policy_rules)
        return err_set(info, E_CONFIG, "no memory for the policies' budgets");
    for (size_t i = 0; i < policy_set_count(r->policy); i++) {
        uint32_t n;
        const struct policy_budget *b = policy_set_budgets(r->policy, i, &n);

        for (uint32_t k = 0; k < n; k++) {
            if (rule_like(r, &b[k]))
                continue;
            if (r->n_policy_rules == POLICY_RULES_MAX)
                return err_set(info, E_CONFIG, "the policies' budgets name more than %d different amounts",
                               POLICY_RULES_MAX);
            r->policy_rules[r->n_policy_rules++] = (struct policy_rule){ .window_s = b[k].window_s,
                                                                         .amount = b[k].amount };
            qsort(r->policy_rules, r->n_policy_rules, sizeof(r->policy_rules[0]), by_content);
        }
    }
    return OK;
}

/* By effect: bit k is the k-th of `kinds`. */
static void rules_counting(const struct admission_rule *r, uint8_t ret[EFFECT_DESTROYS + 1])
{
    uint8_t calls = r->per_minute > 0 || r->at_once > 0;

    ret[EFFECT_READS] = calls;
    ret[EFFECT_WRITES] = (uint8_t)(calls | (r->writes_per_hour > 0) << 1);
    ret[EFFECT_DESTROYS] = (uint8_t)(calls | (r->destroys_per_hour > 0) << 2);
}

enum err budgets_make(struct registry *r, const struct registry_options *opt, struct errinfo *info)
{
    enum err e;

    memcpy(r->budgets, opt->budgets, sizeof(r->budgets));
    for (unsigned i = 0; i < BUDGETS; i++)
        if (!admission_sound(&r->budgets[i]))
            return err_set(info, E_CONFIG,
                           "budgets: per_minute and amounts per hour are at most %lld, at_once at most %lld",
                           LIMIT_AMOUNT_MAX / 2, (long long)LIMIT_AT_ONCE_MAX);
    for (unsigned i = 0; i < BUDGETS; i++)
        rules_counting(&r->budgets[i], r->budget_rules[i]);
    for (unsigned i = 0; i < BUDGETS; i++)
        r->budgets_any = r->budgets_any || r->budgets[i].per_minute || r->budgets[i].at_once ||
                         r->budgets[i].writes_per_hour || r->budgets[i].destroys_per_hour;
    e = tools_budgets_make(r, opt, info);
    return e ? e : policy_rules_make(r, info);
}

/* ---- rules of the limiter ---------------------------------------------------------------------------------------- */

/* Across reloads and restarts a tool's budget is known by the tool's name, a policy's by what it says. */
static uint64_t tag_of(struct str kind, const void *p, size_t n)
{
    const struct str parts[] = { kind, str_n(p, n) };

    return limits_tag(parts, ARRAY_LEN(parts));
}

static uint64_t tool_tag(const struct tool_budget *b)
{
    return tag_of(STR("tool "), b->tool, strlen(b->tool));
}

static uint64_t policy_tag(const struct policy_rule *p)
{
    const int64_t says[] = { p->window_s, p->amount };

    return tag_of(STR("policy "), says, sizeof(says));
}

/* The one known by the tag, else one that no snapshot uses: of these, in turn, so that what was used under a budget
 * that is gone for a while is forgotten late. 0: none is left. */
static uint16_t take_rule(struct budget_rules *rules, uint64_t tag)
{
    unsigned at = 0;

    while (at < BUDGET_RULES_MAX && rules->of[at].tag != tag)
        at++;
    for (unsigned i = 0; at == BUDGET_RULES_MAX && i < BUDGET_RULES_MAX; i++) {
        unsigned next = (rules->next + i) % BUDGET_RULES_MAX;

        if (atomic_load(&rules->of[next].users) == 0)
            at = next;
    }
    if (at == BUDGET_RULES_MAX)
        return 0;
    if (rules->of[at].tag != tag) {
        rules->of[at].tag = tag;
        rules->next = at + 1;
    }
    atomic_fetch_add(&rules->of[at].users, 1);
    return (uint16_t)(RULE_BUDGETS + at);
}

static void leave_rule(struct budget_rules *rules, uint16_t rule)
{
    if (rule)
        atomic_fetch_sub(&rules->of[rule - RULE_BUDGETS].users, 1);
}

static enum err none_left(struct errinfo *info)
{
    return err_set(info, E_CONFIG,
                   "budgets: calls that began before the last reloads hold all %d rules: try again later",
                   BUDGET_RULES_MAX);
}

enum err budgets_take_rules(struct registry *r, struct budget_rules *rules, struct errinfo *info)
{
    _Static_assert((int)BUDGET_RULES_MAX >= 2 * ((int)TOOL_BUDGETS_MAX + (int)POLICY_RULES_MAX), "a reload has room");
    r->rules = rules;
    for (size_t i = 0; i < r->n_tool_budgets; i++) {
        r->tool_budgets[i].rule = take_rule(rules, tool_tag(&r->tool_budgets[i]));
        if (!r->tool_budgets[i].rule)
            return none_left(info);
    }
    for (size_t i = 0; i < r->n_policy_rules; i++) {
        r->policy_rules[i].rule = take_rule(rules, policy_tag(&r->policy_rules[i]));
        if (!r->policy_rules[i].rule)
            return none_left(info);
    }
    return OK;
}

void budgets_leave_rules(struct registry *r)
{
    for (size_t i = 0; r->rules && i < r->n_tool_budgets; i++)
        leave_rule(r->rules, r->tool_budgets[i].rule);
    for (size_t i = 0; r->rules && i < r->n_policy_rules; i++)
        leave_rule(r->rules, r->policy_rules[i].rule);
}

static struct rl_rule rule_of(int64_t per_minute, int64_t at_once, int64_t calendar, int64_t calendar_s)
{
    return (struct rl_rule){ .rate = per_minute ? RL_RATE_BUCKET : RL_RATE_NONE,
                             .amount = (uint64_t)per_minute,
                             .window_ns = MINUTE_S * NS_PER_S,
                             .concurrency = (uint32_t)at_once,
                             .calendar_amount = (uint64_t)calendar,
                             .calendar_ns = calendar_s * NS_PER_S };
}

static void set(struct rl *rl, unsigned id, struct rl_rule rule, uint64_t tag, ns_t now)
{
    rule.tag = tag;
    ASSERT(rl_rule_set(rl, (uint16_t)id, &rule, now));
}

void budgets_apply(const struct registry *r, struct rl *rl, ns_t now)
{
    ASSERT(r->rules != NULL);
    for (unsigned i = 0; i < BUDGETS; i++) {
        const struct admission_rule *b = &r->budgets[i];

        set(rl, i * RULES_PER_BUDGET, rule_of(b->per_minute, b->at_once, 0, HOUR_S), 0, now);
        set(rl, i * RULES_PER_BUDGET + 1, rule_of(0, 0, b->writes_per_hour, HOUR_S), 0, now);
        set(rl, i * RULES_PER_BUDGET + 2, rule_of(0, 0, b->destroys_per_hour, HOUR_S), 0, now);
    }
    for (size_t i = 0; i < r->n_tool_budgets; i++) {
        const struct tool_budget *b = &r->tool_budgets[i];

        set(rl, b->rule, rule_of(b->per_minute, b->at_once, b->per_hour, HOUR_S), tool_tag(b), now);
    }
    for (size_t i = 0; i < r->n_policy_rules; i++) {
        const struct policy_rule *p = &r->policy_rules[i];
        int64_t per_minute = p->window_s == MINUTE_S ? p->amount : 0;

        set(rl, p->rule, rule_of(per_minute, 0, p->amount - per_minute, p->window_s), policy_tag(p), now);
    }
}

/* ---- lines of a call --------------------------------------------------------------------------------------------- */

/* What follows the label in its key. */
static struct str line_part(const struct call *c, const struct budget_line *l)
{
    switch (l->owner) {
    case BUDGET_TENANT:
        return STR("");
    case BUDGET_AGENT:
        return c->caller->agent;
    case BUDGET_USER:
        return c->caller->user;
    case BUDGET_TOOL:
        return c->tool->name;
    case BUDGET_POLICY:
        return policy_set_info(c->registry->policy, l->policy).id;
    }
    UNREACHABLE();
}

/* "calls", "writes", "destroys" */
static const char *line_what(const struct budget_line *l)
{
    return l->of ? policy_budget_what(l->of) : kinds[l->what];
}

static size_t line_name(const struct rl_ask *ask, char to[RL_KEY_MAX])
{
    const struct budget_line *l = ask->key;
    const struct call *c = l->among->call;
    const struct caller *w = c->caller;
    const struct str parts[] = { w->tenant, STR(""), str_of(l->label), line_part(c, l), w->user, w->agent };

    return key_name(to, parts, l->of ? ARRAY_LEN(parts) : ARRAY_LEN(parts) - 2);
}

static void add_line(struct budget_lines *l, struct budget_line line, unsigned rule, struct rl_id id)
{
    struct budget_line *to = &l->of[l->n];

    *to = line;
    to->among = l;
    l->asks[l->n++] = (struct rl_ask){ .key = to, .rule = (uint16_t)rule, .cost = 1, .id = id, .name = line_name };
}

/* Whose key it is that counts the kind of call, by its owner's name. */
static struct rl_id key_of(const struct call *c, struct key_scopes *scopes, enum budget owner, unsigned kind,
                           const char *label)
{
    switch (owner) {
    case BUDGET_TENANT:
        return key_only(scopes, kind, label);
    case BUDGET_AGENT:
        return key_agent(scopes, kind, label, c->caller);
    case BUDGET_USER:
        return key_below(key_kind(scopes, kind, label), c->caller->user);
    case BUDGETS:
        break;
    }
    UNREACHABLE();
}

static void lines_of_owner(const struct call *c, struct key_scopes *scopes, struct budget_lines *l, enum budget owner)
{
    unsigned rules = c->registry->budget_rules[owner][c->tool->decl->effect];

    _Static_assert((int)KEY_KINDS == (int)BUDGETS * RULES_PER_BUDGET, "a kind of key for each");
    for (; rules; rules &= rules - 1) {
        unsigned k = (unsigned)__builtin_ctz(rules), kind = (unsigned)owner * RULES_PER_BUDGET + k;
        const char *label = labels[owner][k];

        add_line(l, (struct budget_line){ .label = label, .owner = (uint8_t)owner, .what = (uint8_t)k }, kind,
                 key_of(c, scopes, owner, kind, label));
    }
}

void budgets_of_config(struct call *c, struct budget_lines *ret)
{
    const struct tool_budget *b = c->tool->budget;
    struct key_scopes *scopes = key_scopes(c->worker, c->caller);

    _Static_assert(BUDGET_LINES_OF_CONFIG <= RL_ASKS_MAX, "they are asked for at once");
    ret->call = c;
    ret->n = 0;
    for (enum budget owner = 0; owner < BUDGETS; owner++)
        lines_of_owner(c, scopes, ret, owner);
    if (b && (b->per_minute || b->per_hour || b->at_once))
        add_line(ret, (struct budget_line){ .label = "tool calls", .owner = BUDGET_TOOL }, b->rule,
                 key_below(key_below(scopes->budgets, STR("tool calls")), c->tool->name));
}

/* Does it count what this call does? */
static bool counts(const struct policy_budget *b, enum effect effect)
{
    return b->what == POLICY_COUNTS_CALLS || (b->what == POLICY_COUNTS_WRITES && effect == EFFECT_WRITES) ||
           (b->what == POLICY_COUNTS_DESTROYS && effect == EFFECT_DESTROYS);
}

static enum err too_many(struct call *c)
{
    return call_why(c, E_POLICY_DENIED, "not permitted: more budgets of policies count this call than are looked at");
}

static enum err lines_of_policy(struct call *c, struct budget_lines *l, uint32_t number)
{
    const struct str id = policy_set_info(c->registry->policy, number).id;
    struct rl_id scope = key_scopes(c->worker, c->caller)->budgets;
    uint32_t n;
    const struct policy_budget *b = policy_set_budgets(c->registry->policy, number, &n);

    for (uint32_t i = 0; i < n; i++) {
        const struct policy_rule *rule = rule_like(c->registry, &b[i]);
        struct str label;
        struct rl_id key;

        if (!counts(&b[i], c->tool->decl->effect))
            continue;
        ASSERT(rule != NULL);
        if (l->n == BUDGET_LINES_OF_POLICY)
            return too_many(c);
        label = arena_printf(&c->deciding, "policy %s/%s", policy_budget_what(&b[i]), policy_budget_window(&b[i]));
        if (!label.p)
            return E_CALL_TOO_LARGE;
        key = key_below(key_below(key_below(key_below(scope, label), id), c->caller->user), c->caller->agent);
        add_line(l, (struct budget_line){ .label = label.p, .owner = BUDGET_POLICY, .of = &b[i], .policy = number },
                 rule->rule, key);
    }
    return OK;
}

/* Did a side before this one find the same policy to hold? It counts the call once. */
static bool counted_before(const struct call *c, unsigned side, uint32_t number)
{
    for (unsigned i = 0; i < side; i++)
        for (uint32_t k = 0; k < c->sides[i].n_budgets; k++)
            if (c->sides[i].budgets[k] == number)
                return true;
    return false;
}

enum err budgets_of_policy(struct call *c, struct budget_lines *ret)
{
    ret->call = c;
    ret->n = 0;
    for (unsigned i = 0; i < c->n_sides; i++) {
        const struct policy_decision *d = &c->sides[i];

        if (d->n_budgets > POLICY_BUDGETS_MAX)
            return too_many(c);
        for (uint32_t k = 0; k < d->n_budgets; k++) {
            enum err e = counted_before(c, i, d->budgets[k]) ? OK : lines_of_policy(c, ret, d->budgets[k]);

            if (e)
                return e;
        }
    }
    return OK;
}

/* ---- refusing ---------------------------------------------------------------------------------------------------- */

void budget_name(const struct call *c, const struct budget_line *line, struct buf *to)
{
    if (line->of)
        buf_addf(to, "policy \"%.*s\", which permits %lld %s per %s to this user and agent",
                 STR_ARG(policy_set_info(c->registry->policy, line->policy).id), (long long)line->of->amount,
                 line_what(line), policy_budget_window(line->of));
    else if (line->owner == BUDGET_TOOL)
        buf_addf(to, "the tenant's budget of calls of %.*s", STR_ARG(c->tool->name));
    else
        buf_addf(to, "the %s's budget of %s", owners[line->owner], line_what(line));
}

enum err budget_refused(struct call *c, enum err e, const struct budget_line *line)
{
    char again[64] = "", at[25];
    struct buf b = BUF_INIT(sizeof(c->why->text));

    buf_addf(&b, "%s:%s", owners[line->owner], line_what(line));
    metric_add_at(M_BUDGET_REFUSED_TOTAL, metric_label(M_BUDGET_REFUSED_TOTAL, buf_str(&b)), 1);
    if (c->retry_after_ms) {
        wall_format(loop_wall_ms() + c->retry_after_ms, at);
        snprintf(again, sizeof(again), "; there is room again at %s", at);
    }
    buf_clear(&b);
    budget_name(c, line, &b);
    call_why(c, e, "used up: %.*s%s", STR_ARG(buf_str(&b)), again);
    buf_release(&b);
    return e;
}
