/*
 * limits.c -- a provider's limits: rules for the limiter, asks of an exchange, and what answers teach
 *
 * What is hard is to slow down exactly what a throttle is about: a mailbox, not its tenant; a channel, not the
 * workspace.  The connector's classify names the limit; where the provider does not say, the narrowest that the request
 * fell under is taken: too narrow is found out by the next throttle, too wide would stop others for nothing.
 */
#include "base/check.h"
#include "base/metric.h"
#include "call/budget.h"
#include "call/internal.h"
#include "call/limits.h"
#include "call/quota.h"

enum { PAUSE_DEFAULT_MS = 1000, RESOURCE_MAX = 128 };

/* Requests do not take equally long to arrive: what left evenly may come closer together. So windows are taken as
 * longer by this part, up to what ways differ by: a minute or more has two seconds to spare. */
enum { WINDOW_MARGIN = 32, WINDOW_MARGIN_MS_MAX = 2000 };

#define EACH_TOOL(it)                                                                                                  \
    for (const struct tool_decl *const *it = __start_sluice_tools; it && it < __stop_sluice_tools; it++)

extern const struct tool_decl *const __start_sluice_tools[] __attribute__((weak, visibility("hidden")));
extern const struct tool_decl *const __stop_sluice_tools[] __attribute__((weak, visibility("hidden")));

/* ---- from declaration and configuration -------------------------------------------------------------------------- */

static bool narrow(enum limit_scope scope)
{
    return scope == PER_METHOD || scope == PER_RESOURCE;
}

static struct limit_conf *limit_named(struct provider_conf *p, const char *name)
{
    for (unsigned i = 0; i < p->n_limits; i++)
        if (strcmp(p->limits[i].name, name) == 0)
            return &p->limits[i];
    return NULL;
}

/* What one request costs of a limit. */
static int64_t cost_of(const struct limit_conf *l, const struct request_conf *row, const struct tool_decl *tool)
{
    if (!l->amount)
        return l->spacing_ms ? 1 : 0;
    if (row && row->cost && l->decl->unit)
        return row->cost;
    return tool && tool->cost && (!row || !row->cost) ? tool->cost : 1;
}

/* The most that a request of the provider can cost of this limit. */
static int64_t dearest(const struct provider_conf *p, const struct limit_conf *l)
{
    int64_t most = 1;

    for (unsigned i = 0; i < p->n_requests; i++)
        if (l->decl->unit && p->requests[i].cost > most)
            most = p->requests[i].cost;
    EACH_TOOL(d)
        if ((*d)->provider == p->decl && (*d)->cost > most)
            most = (*d)->cost;
    return most;
}

/* So many units may come at once: a hundredth of the window's amount, which the steady rate is lowered by (no window,
 * wherever it begins, may hold more than the amount), but always enough for the dearest request. */
static int64_t limit_burst(const struct limit_conf *l, int64_t cost)
{
    int64_t burst = l->amount / 100;

    return burst < cost ? cost : burst;
}

static int64_t margin_ms(int64_t window_ms)
{
    int64_t part = (window_ms + WINDOW_MARGIN - 1) / WINDOW_MARGIN;

    return part < WINDOW_MARGIN_MS_MAX ? part : WINDOW_MARGIN_MS_MAX;
}

static struct rl_rule rule_of(const struct provider_conf *p, const struct limit_conf *l)
{
    const struct str name[] = { str_of(p->decl->name), STR("."), str_of(l->name) };
    struct rl_rule rule = { .rate = RL_RATE_NONE, .concurrency = (uint32_t)l->concurrency,
                            .tag = limits_tag(name, ARRAY_LEN(name)) };

    if (l->amount) {
        rule.rate = RL_RATE_WINDOW;
        rule.amount = (uint64_t)l->amount;
        rule.window_ns = (l->window_ms + margin_ms(l->window_ms)) * NS_PER_MS;
        if (rule.window_ns > LIMIT_WINDOW_MS_MAX * NS_PER_MS)
            rule.window_ns = LIMIT_WINDOW_MS_MAX * NS_PER_MS;
        rule.burst = (uint64_t)limit_burst(l, dearest(p, l));
    }
    if (l->amount) {
        rule.spacing_ns = l->spacing_ms * NS_PER_MS;
    } else if (l->spacing_ms) {            /* as a rate, which can be tightened */
        rule.rate = RL_RATE_BUCKET;
        rule.amount = rule.burst = 1;
        rule.window_ns = l->spacing_ms * NS_PER_MS;
    }
    return rule;
}

/* What the limiter would refuse, or what would refuse every call of a tool for good. */
static enum err limit_sound(const struct provider_conf *p, const struct limit_conf *l, struct errinfo *info)
{
    int64_t cost = dearest(p, l);
    struct rl_rule rule;

    if (l->amount && (l->window_ms < 1 || l->window_ms > LIMIT_WINDOW_MS_MAX))
        return err_set(info, E_CONFIG, "provider %s: limit %s: an amount needs a window_ms from 1 to %lld (400 days)",
                       p->decl->name, l->name, (long long)LIMIT_WINDOW_MS_MAX);
    if (l->amount > LIMIT_AMOUNT_MAX || l->concurrency > LIMIT_AT_ONCE_MAX || l->spacing_ms > LIMIT_WINDOW_MS_MAX)
        return err_set(info, E_CONFIG,
                       "provider %s: limit %s: amount is at most %lld, concurrency at most %lld, spacing_ms at most "
                       "%lld", p->decl->name, l->name, (long long)LIMIT_AMOUNT_MAX, (long long)LIMIT_AT_ONCE_MAX,
                       (long long)LIMIT_WINDOW_MS_MAX);
    if (l->amount && limit_burst(l, cost) > l->amount)
        return err_set(info, E_CONFIG,
                       "provider %s: limit %s: an amount of %lld never lets a request that costs %lld through",
                       p->decl->name, l->name, (long long)l->amount, (long long)cost);
    rule = rule_of(p, l);
    if (!rl_rule_sound(&rule))              /* in the bounds above, but a bucket that would take decades to fill */
        return err_set(info, E_CONFIG,
                       "provider %s: limit %s: window_ms is too long for an amount of %lld with requests that cost "
                       "%lld: window_ms * %lld / (amount - %lld + 1) is at most 10^12", p->decl->name, l->name,
                       (long long)l->amount, (long long)cost, (long long)cost, (long long)cost);
    return OK;
}

static enum err declared_limits(struct provider_conf *p, struct errinfo *info)
{
    for (const struct limit *l = p->decl->limits; l && l->name; l++) {
        struct limit_conf *to = &p->limits[p->n_limits];
        struct buf label = BUF_INIT(256);

        if (p->n_limits == LIMITS_MAX)
            return err_set(info, E_CONFIG, "provider %s declares more than %d limits", p->decl->name, LIMITS_MAX);
        *to = (struct limit_conf){ .name = l->name, .scope = l->scope, .amount = l->amount, .window_ms = l->window_ms,
                                   .concurrency = l->concurrency, .spacing_ms = l->spacing_ms, .decl = l,
                                   .told = l->told != NULL };
        to->rule = (uint16_t)(RULE_PROVIDERS + p->index * LIMITS_MAX + p->n_limits);
        buf_addf(&label, "%s:%s", p->decl->name, l->name);
        to->metric = metric_label(M_THROTTLES_TOTAL, buf_str(&label));
        buf_release(&label);
        p->n_limits++;
    }
    return OK;
}

static enum err declared_request(struct provider_conf *p, const struct request_row *d, struct errinfo *info)
{
    struct request_conf *to = &p->requests[p->n_requests];
    bool resource = false;

    if (p->n_requests == REQUESTS_MAX)
        return err_set(info, E_CONFIG, "provider %s declares more than %d requests", p->decl->name, REQUESTS_MAX);
    *to = (struct request_conf){ .cost = d->cost, .decl = d };
    if (!str_cut(str_of(d->request), ' ', &to->method, &to->path) || to->path.len == 0)
        return err_set(info, E_CONFIG, "provider %s: request \"%s\": expected a method, a blank and a path",
                       p->decl->name, d->request);
    for (const char *const *name = d->limits; name && *name; name++) {
        const struct limit_conf *l = limit_named(p, *name);

        if (!l || !narrow(l->scope))
            return err_set(info, E_CONFIG, "provider %s: request \"%s\": no limit \"%s\" per method or resource",
                           p->decl->name, d->request, *name);
        to->limits |= (uint8_t)(1u << (l - p->limits));
        resource = resource || l->scope == PER_RESOURCE;
    }
    if (resource && !d->resource)
        return err_set(info, E_CONFIG, "provider %s: request \"%s\": nothing names the resource", p->decl->name,
                       d->request);
    p->n_requests++;
    return OK;
}

static enum err override_limit(struct provider_conf *p, const struct limit_conf *o, struct errinfo *info)
{
    struct limit_conf *l = limit_named(p, o->name);

    if (!l)
        return err_set(info, E_CONFIG, "provider %s has no limit called \"%s\"; sluice limits show %s lists them",
                       p->decl->name, o->name, p->decl->name);
    l->amount = o->amount >= 0 ? o->amount : l->amount;
    l->window_ms = o->window_ms > 0 ? o->window_ms : l->window_ms;
    l->concurrency = o->concurrency >= 0 ? o->concurrency : l->concurrency;
    l->spacing_ms = o->spacing_ms >= 0 ? o->spacing_ms : l->spacing_ms;
    return OK;
}

static enum err override_cost(struct provider_conf *p, const struct cost_conf *o, struct errinfo *info)
{
    for (unsigned i = 0; i < p->n_requests; i++) {
        if (strcmp(p->requests[i].decl->request, o->request) != 0)
            continue;
        if (o->cost < 1 || o->cost > UINT32_MAX)
            return err_set(info, E_CONFIG, "provider %s: cost of \"%s\": expected 1 to %lld", p->decl->name, o->request,
                           (long long)UINT32_MAX);
        p->requests[i].cost = o->cost;
        return OK;
    }
    return err_set(info, E_CONFIG, "provider %s declares no cost for \"%s\"; sluice limits show %s lists them",
                   p->decl->name, o->request, p->decl->name);
}

enum err limits_make(struct provider_conf *p, const struct provider_setup *s, struct errinfo *info)
{
    enum err e = declared_limits(p, info);

    for (const struct request_row *d = p->decl->requests; !e && d && d->request; d++)
        e = declared_request(p, d, info);
    for (unsigned i = 0; !e && s && i < s->n_limits; i++)
        e = override_limit(p, &s->limits[i], info);
    for (unsigned i = 0; !e && s && i < s->n_costs; i++)
        e = override_cost(p, &s->costs[i], info);
    for (unsigned i = 0; !e && i < p->n_limits; i++)
        e = limit_sound(p, &p->limits[i], info);
    return e;
}

/* ---- rules of the limiter ---------------------------------------------------------------------------------------- */

uint64_t limits_tag(const struct str *parts, size_t n)
{
    uint64_t h = 0xcbf29ce484222325ULL;

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < parts[i].len; k++)
            h = (h ^ (unsigned char)parts[i].p[k]) * 0x100000001b3ULL;
    return h ? h : 1;
}

enum err registry_take_rules(struct registry *r, struct budget_rules *rules, struct errinfo *info)
{
    return budgets_take_rules(r, rules, info);
}

void registry_apply_limits(struct registry *r, struct rl *rl, ns_t now)
{
    budgets_apply(r, rl, now);
    for (size_t i = 0; i < r->n_providers; i++) {
        for (unsigned k = 0; k < r->providers[i].n_limits; k++) {
            struct rl_rule rule = rule_of(&r->providers[i], &r->providers[i].limits[k]);

            ASSERT(rl_rule_set(rl, r->providers[i].limits[k].rule, &rule, now));
        }
    }
}

void registry_make_keys(struct registry *r, const struct rl *rl)
{
    for (size_t i = 0; i < r->n_providers; i++) {
        struct str name = str_of(r->providers[i].decl->name);

        r->providers[i].everybody = key_below(rl_id_of(rl, name.p, name.len), STR("provider"));
    }
}

/* ---- asks of an exchange ----------------------------------------------------------------------------------------- */

static bool path_fits(struct str pattern, struct str path, struct str *ret_first)
{
    bool captured = false;

    *ret_first = STR_NULL;
    while (pattern.len) {
        if (str_is(pattern, "*"))
            return true;
        if (str_starts(pattern, STR("{}"))) {
            size_t n = 0;

            while (n < path.len && path.p[n] != '/')
                n++;
            if (n == 0)
                return false;
            if (!captured)
                *ret_first = str_n(path.p, n);
            captured = true;
            pattern = str_from(pattern, 2);
            path = str_from(path, n);
        } else if (path.len == 0 || path.p[0] != pattern.p[0]) {
            return false;
        } else {
            pattern = str_from(pattern, 1);
            path = str_from(path, 1);
        }
    }
    return path.len == 0;
}

const struct request_conf *limits_row(const struct provider_conf *p, struct str method, struct str path,
                                      struct str *ret_first)
{
    struct str query;

    *ret_first = STR_NULL;
    if (p->n_requests == 0)
        return NULL;
    str_cut(path, '?', &path, &query);
    for (unsigned i = 0; i < p->n_requests; i++) {
        const struct request_conf *row = &p->requests[i];

        if ((str_is(row->method, "*") || str_eq(row->method, method)) && path_fits(row->path, path, ret_first))
            return row;
    }
    *ret_first = STR_NULL;
    return NULL;
}

/* What the request is done to. Names that agree in their first bytes share a limit: stricter, never looser. */
static struct str resource_of(const struct exchange *x, const struct request_conf *row, struct str first)
{
    struct str name = strcmp(row->decl->resource, "{}") == 0 ? first : json_str(json_get(x->body, row->decl->resource));

    return name.len > RESOURCE_MAX ? str_n(name.p, RESOURCE_MAX) : name;
}

/* "tenant|provider|account|limit", and what narrows it behind. */
static size_t limit_name(const struct rl_ask *ask, char to[RL_KEY_MAX])
{
    const struct limit_asked *l = ask->key;
    const struct call *c = l->among->call;
    enum limit_scope scope = l->limit->scope;
    const struct str parts[] = { scope == PER_PROVIDER ? STR("") : c->caller->tenant,
                                 str_of(c->tool->provider->decl->name),
                                 scope == PER_PROVIDER || scope == PER_TENANT ? STR("") : c->account.id,
                                 str_of(l->limit->name), l->narrower };

    return key_name(to, parts, ARRAY_LEN(parts) - !narrow(scope));
}

/* Ids that keys are made from. */
struct scopes {
    struct rl_id provider, tenant, account;
};

static void make_scopes(struct call *c, const struct provider_conf *p, struct scopes *ret)
{
    ret->provider = p->everybody;
    ret->tenant = key_provider(key_scopes(c->worker, c->caller), p->index, p->decl->name);
    ret->account = key_below(ret->tenant, c->account.id);
}

/* Of the i-th limit of the provider; what is narrower than an account is named by it. */
static struct rl_id limit_id(const struct scopes *s, enum limit_scope scope, unsigned i, struct str narrower)
{
    uint16_t n = (uint16_t)(i + 1);

    switch (scope) {
    case PER_PROVIDER:
        return rl_id_nth(s->provider, n);
    case PER_TENANT:
        return rl_id_nth(s->tenant, n);
    case PER_ACCOUNT:
        return rl_id_nth(s->account, n);
    case PER_METHOD:
    case PER_RESOURCE:
        return rl_id_nth(key_below(s->account, narrower), n);
    }
    UNREACHABLE();
}

enum err limits_ask(struct call *c, const struct provider_conf *p, const struct exchange *x, struct limits_asked *ret)
{
    struct str first = STR_NULL;
    const struct request_conf *row = NULL;
    struct scopes scopes;

    if (p->n_requests)
        row = limits_row(p, str_of(x->method), str_of(x->path), &first);
    make_scopes(c, p, &scopes);
    ret->call = c;
    ret->n = 0;
    ret->told = false;
    ret->asks = arena_alloc(&c->arena, p->n_limits * sizeof(*ret->asks));
    ret->of = arena_alloc(&c->arena, p->n_limits * sizeof(*ret->of));
    if (p->n_limits && (!ret->asks || !ret->of))
        return E_CALL_TOO_LARGE;
    for (unsigned i = 0; i < p->n_limits; i++) {
        const struct limit_conf *l = &p->limits[i];
        struct limit_asked *of = &ret->of[ret->n];

        if ((!l->amount && !l->concurrency && !l->spacing_ms) || (narrow(l->scope) && !(row && row->limits & 1u << i)))
            continue;
        *of = (struct limit_asked){ ret, l, STR("") };
        ret->told |= l->told;
        if (l->scope == PER_RESOURCE)
            of->narrower = resource_of(x, row, first);
        else if (l->scope == PER_METHOD)
            of->narrower = str_of(row->decl->request);
        ret->asks[ret->n++] = (struct rl_ask){ .key = of, .rule = l->rule, .name = limit_name,
                                               .cost = (uint32_t)cost_of(l, row, c->tool->decl),
                                               .id = limit_id(&scopes, l->scope, i, of->narrower) };
    }
    return OK;
}

/* ---- what answers teach ------------------------------------------------------------------------------------------ */

const struct rl_ask *limits_concerned(const struct limits_asked *a, const char *name, const struct limit_conf **ret)
{
    static const enum limit_scope order[] = { PER_RESOURCE, PER_METHOD, PER_ACCOUNT, PER_TENANT, PER_PROVIDER };

    for (unsigned i = 0; name && i < a->n; i++) {
        if (strcmp(a->of[i].limit->name, name) == 0) {
            *ret = a->of[i].limit;
            return &a->asks[i];
        }
    }
    for (size_t o = 0; o < ARRAY_LEN(order); o++) {
        const struct rl_ask *found = NULL;

        for (unsigned i = 0; i < a->n; i++) {
            if (a->of[i].limit->scope != order[o] || (found && ((*ret)->amount || !a->of[i].limit->amount)))
                continue;                   /* of two of a kind, the one with a rate */
            found = &a->asks[i];
            *ret = a->of[i].limit;
        }
        if (found)
            return found;
    }
    return NULL;
}

static const char *info_field(void *arg, const char *name)
{
    struct answer_info *info = arg;

    return info->header(info, name);
}

static void throttled(struct call *c, const struct limits_asked *a, struct answer_info *info,
                      const struct quota_seen *quotas,
                      ns_t granted)
{
    const struct limit_conf *l = NULL;
    const struct rl_ask *ask = limits_concerned(a, info->limit, &l);
    ns_t now = loop_now();

    if (ask && !info->retry_after_ms && quotas[ask - a->asks].remaining == 0 && quotas[ask - a->asks].reset_ms > 0)
        info->retry_after_ms = quotas[ask - a->asks].reset_ms;
    if (!info->retry_after_ms)
        info->retry_after_ms = PAUSE_DEFAULT_MS;
    if (!ask)
        return;
    metric_add_at(M_THROTTLES_TOTAL, l->metric, 1);
    rl_throttled(c->worker->engine->limiter, ask, granted, now + info->retry_after_ms * NS_PER_MS, now);
}

/* Somebody else may eat from the same quota, or grant us less than is declared: the provider's word is taken. */
static void observe(struct call *c, const struct rl_ask *ask, const struct quota_seen *q)
{
    struct rl_heard heard = { .limit = q->limit > 0 ? (uint64_t)q->limit : RL_UNKNOWN,
                              .remaining = q->remaining >= 0 ? (uint64_t)q->remaining : RL_UNKNOWN,
                              .reset_at = q->reset_ms > 0 ? loop_now() + q->reset_ms * NS_PER_MS : 0 };

    rl_observe(c->worker->engine->limiter, ask, &heard, loop_now());
}

void limits_heard(struct call *c, const struct limits_asked *a, enum answer ans, struct answer_info *info, ns_t granted)
{
    UNSET struct quota_seen quotas[LIMITS_MAX];
    wall_ms_t clock = 0;

    if (!a->told && ans != ANSWER_LIMITED)
        return;
    for (unsigned i = 0; i < a->n; i++) {
        quotas[i] = (struct quota_seen){ -1, -1, -1 };
        if (!a->of[i].limit->told || !info->header)
            continue;
        if (!clock)
            clock = quota_clock(info_field, info, loop_wall_ms());
        quota_read(a->of[i].limit->decl->told, info_field, info, clock, &quotas[i]);
    }
    for (unsigned i = 0; i < a->n; i++)
        if (quotas[i].limit >= 0 || quotas[i].remaining >= 0)
            observe(c, &a->asks[i], &quotas[i]);
    if (ans == ANSWER_LIMITED)
        throttled(c, a, info, quotas, granted);
}
