/*
 * limits.c -- GET /v1/limits: where the caller's tenant stands in line; GET /v1/limits/all: where everybody does
 *
 * Policy: Action::"limits.list" in Action::"limits", on the tenant.  A key is answered only if it is this tenant's;
 * what all tenants share is left out: how long its queue is would tell one tenant of the others.
 *
 * All keys are for the operator.  Who that is no policy says, because a policy may be wider than it was meant, but the
 * engine's own key: a token of the local issuer with the scope OPERATOR_SCOPE, which whoever has the data directory can
 * make, and nobody else.
 */
#include <stdlib.h>

#include "admin/internal.h"
#include "base/check.h"
#include "ratelimit/ratelimit.h"

enum { SHOWN_MAX = 200, KEY_SHOWN_MAX = 512 };

struct shown {
    char key[KEY_SHOWN_MAX];
    struct rl_key_stats stats;
};

struct looking {
    struct str prefix;
    struct shown *list;
    size_t n;
    ns_t now;
};

static bool busier(const struct rl_key_stats *a, const struct rl_key_stats *b)
{
    if (a->waiting != b->waiting)
        return a->waiting > b->waiting;
    if (a->oldest_ns != b->oldest_ns)
        return a->oldest_ns > b->oldest_ns;
    if (a->throttled != b->throttled)
        return a->throttled > b->throttled;
    return a->in_flight != b->in_flight ? a->in_flight > b->in_flight : a->granted > b->granted;
}

static int by_business(const void *a, const void *b)
{
    const struct shown *x = a, *y = b;

    return busier(&x->stats, &y->stats) ? -1 : busier(&y->stats, &x->stats);
}

/* Under a lock of the limiter: copies, and nothing else. Of too many keys the busiest stay. */
static bool look(void *arg, const struct rl_key_stats *s)
{
    struct looking *l = arg;
    size_t at = l->n;

    if (!s->key || s->key_len > KEY_SHOWN_MAX || !str_starts(str_n(s->key, s->key_len), l->prefix))
        return true;
    if (l->n < SHOWN_MAX) {
        l->n++;
    } else {
        at = 0;
        for (size_t i = 1; i < l->n; i++)
            if (busier(&l->list[at].stats, &l->list[i].stats))
                at = i;
        if (!busier(s, &l->list[at].stats))
            return true;
    }
    memcpy(l->list[at].key, s->key, s->key_len);
    l->list[at].stats = *s;
    return true;
}

/* With no prefix the tenant is told apart from the rest of the key; "" is what all share. */
static struct json *shown_json(struct call *c, const struct shown *s, struct str prefix, ns_t now)
{
    struct json *one = json_object(&c->arena);
    const struct rl_key_stats *k = &s->stats;
    struct str key = str_n(s->key + prefix.len, k->key_len - prefix.len), tenant;

    if (!prefix.len && str_cut(key, '|', &tenant, &key))
        json_set_str(&c->arena, one, "tenant", arena_str(&c->arena, tenant));
    if (str_starts(key, STR("|")))
        key = str_from(key, 1);                 /* a budget: no provider's */
    json_set_str(&c->arena, one, "key", arena_str(&c->arena, key));
    json_set_int(&c->arena, one, "waiting", k->waiting);
    json_set_int(&c->arena, one, "oldest_ms", k->oldest_ns / NS_PER_MS);
    json_set_int(&c->arena, one, "in_flight", k->in_flight);
    json_set_int(&c->arena, one, "at_once", k->concurrency);
    json_set_int(&c->arena, one, "granted", k->granted);
    json_set_int(&c->arena, one, "refused", k->refused);
    json_set_int(&c->arena, one, "throttled", k->throttled);
    json_set_int(&c->arena, one, "share_percent", (int64_t)(k->tightened * 100 + 0.5));
    json_set_int(&c->arena, one, "paused_ms", k->paused_until > now ? (k->paused_until - now) / NS_PER_MS + 1 : 0);
    if (k->available < UINT64_MAX)
        json_set_int(&c->arena, one, "available", (int64_t)k->available);
    return one;
}

static enum err list_keys(struct call *c, struct turn *t, struct str prefix)
{
    struct looking l = { .prefix = prefix, .now = loop_now() };
    struct json *list = json_array(&c->arena);
    struct rl_stats all;

    l.list = ARENA_ARRAY(&c->arena, struct shown, SHOWN_MAX);
    if (!l.list)
        return E_CALL_TOO_LARGE;
    rl_visit(c->worker->engine->limiter, true, l.now, look, &l);
    qsort(l.list, l.n, sizeof(l.list[0]), by_business);
    for (size_t i = 0; i < l.n; i++)
        json_push(&c->arena, list, shown_json(c, &l.list[i], prefix, l.now));
    t->json = json_object(&c->arena);
    json_set(&c->arena, t->json, "limits", list);
    if (!prefix.len) {
        rl_stats(c->worker->engine->limiter, &all);
        json_set_int(&c->arena, t->json, "keys", (int64_t)all.keys);
        json_set_int(&c->arena, t->json, "waiting", (int64_t)all.waiting);
        json_set_int(&c->arena, t->json, "throttled", (int64_t)all.throttled);
    }
    return arena_overflowed(&c->arena) ? E_CALL_TOO_LARGE : OK;
}

enum err await_limits_list(struct call *c, struct turn *t)
{
    struct str prefix = arena_printf(&c->arena, "%.*s|", STR_ARG(c->caller->tenant));
    enum err e = call_decide_action(c, STR("limits"), STR("list"), 0, STR("Tenant"), c->caller->tenant);

    return e ? e : prefix.p ? list_keys(c, t, prefix) : E_CALL_TOO_LARGE;
}

enum err await_limits_all(struct call *c, struct turn *t)
{
    if (c->caller->auth != CALLER_AUTH_LOCAL || !caller_has_scope(c->caller, STR(OPERATOR_SCOPE)))
        return call_why(c, E_SCOPE_INSUFFICIENT,
                        "the limits of all tenants are for the operator: with a token of the engine's own issuer and "
                        "the scope " OPERATOR_SCOPE);
    return list_keys(c, t, STR(""));
}
