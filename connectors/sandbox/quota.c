/*
 * quota.c -- limits as providers have them, enforced to the letter, and what a client is told that breaks them
 *
 *   GET  /quota/units/NAME       Gmail-like: "list" 5, "get" 20, "send" 100 units, so many per user and minute; more
 *                                is 403 and 429 in turns, with a reason in the body and the time in its words
 *   POST /quota/channels/post    {channel}: Slack-like: one a second and channel, a second one ahead of its time is
 *                                let through ("short bursts"); and so many per minute and method; more is 429,
 *                                Retry-After, ok: false
 *   GET  /quota/points/KEY       Jira-like: 2 points, so many per window in one pool for everybody; the window begins
 *                                at fixed times; X-RateLimit-* and Beta-RateLimit say what is left; more is 429
 *   POST /sandbox/limits         sets the real limits and, with `eaten`, uses up points as another process would
 *
 * The bearer token is the user; no OAuth here.  A window of the first two kinds slides: whatever time one looks from,
 * not more than the amount is in it.  Mailboxes count what was throttled too, as Microsoft does.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/escape.h"
#include "connectors/sandbox/internal.h"

enum { METER_MAX = 1 << 17, USERS_MAX = 100000 };

struct channel {
    char key[512];
    ns_t due;
};

struct quota_user {
    char name[256];
    struct meter units, method;
};

/* ---- a sliding window -------------------------------------------------------------------------------------------- */

static void meter_grow(struct meter *m)
{
    size_t cap = m->cap ? m->cap * 2 : 64;
    struct meter_entry *to = calloc(cap, sizeof(*to));

    ASSERT(to != NULL);
    for (size_t i = 0; i < m->n; i++)
        to[i] = m->ring[(m->head + i) % m->cap];
    free(m->ring);
    m->ring = to;
    m->head = 0;
    m->cap = cap;
}

static void meter_expire(struct meter *m, ns_t since)
{
    while (m->n && m->ring[m->head].at <= since) {
        m->sum -= m->ring[m->head].units;
        m->head = (m->head + 1) % m->cap;
        m->n--;
    }
}

bool meter_take(struct meter *m, int64_t amount, int64_t window_ms, int64_t cost, bool count_refused, ns_t now,
                ns_t *ret_wait)
{
    bool fits;
    int64_t over;

    meter_expire(m, now - window_ms * NS_PER_MS);
    fits = m->sum + cost <= amount;
    if ((fits || count_refused) && m->n < METER_MAX) {
        if (m->n == m->cap)
            meter_grow(m);
        m->ring[(m->head + m->n++) % m->cap] = (struct meter_entry){ now, cost };
        m->sum += cost;
    }
    over = m->sum - amount + (fits ? 0 : cost);
    *ret_wait = 0;
    for (size_t i = 0; !fits && i < m->n && over > 0; i++) {
        over -= m->ring[(m->head + i) % m->cap].units;
        *ret_wait = m->ring[(m->head + i) % m->cap].at + window_ms * NS_PER_MS - now;
    }
    return fits;
}

void meter_free(struct meter *m)
{
    free(m->ring);
    *m = (struct meter){ 0 };
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void await_answer(struct turn *t, int status, const struct http_header *more, unsigned n_more, const char *body)
{
    struct http_header headers[8] = { { STR("Content-Type"), STR("application/json") } };

    ASSERT(n_more < 8);
    for (unsigned i = 0; i < n_more; i++)
        headers[i + 1] = more[i];
    await_http_reply(t->rq, status, headers, n_more + 1, str_of(body));
}

static int64_t seconds_up(ns_t wait)
{
    return wait <= 0 ? 1 : (wait + NS_PER_S - 1) / NS_PER_S;
}

static struct quota_user *quota_user_of(struct sandbox *s, struct str name)
{
    struct quota_user *u = map_get(&s->quota.users, name);

    if (u || name.len == 0 || name.len >= sizeof(u->name) || s->quota.users.len >= USERS_MAX)
        return u;
    u = calloc(1, sizeof(*u));
    ASSERT(u != NULL);
    memcpy(u->name, name.p, name.len);
    map_put(&s->quota.users, str_of(u->name), u);
    return u;
}

/* ---- Gmail-like -------------------------------------------------------------------------------------------------- */

static int64_t units_of(struct str name)
{
    return str_is(name, "list") ? 5 : str_is(name, "get") ? 20 : str_is(name, "send") ? 100 : 0;
}

static void await_units(struct turn *t, struct quota_user *u, struct str name)
{
    struct quota *q = &t->s->quota;
    int64_t cost = units_of(name);
    char body[400], at[25];
    ns_t wait;

    q->units.requests++;
    if (!cost) {
        await_answer(t, 404, NULL, 0, "{\"error\":{\"message\":\"no such method\"}}");
    } else if (meter_take(&u->units, q->limits.units, q->limits.units_window_ms, cost, false, loop_now(), &wait)) {
        snprintf(body, sizeof(body), "{\"units\":%lld}", (long long)cost);
        await_answer(t, 200, NULL, 0, body);
    } else {
        q->units.limited++;
        wall_format(loop_wall_ms() + wait / NS_PER_MS + 1, at);
        snprintf(body, sizeof(body),
                 "{\"error\":{\"code\":403,\"message\":\"User-rate limit exceeded.  Retry after %s (Mail sending)\","
                 "\"errors\":[{\"reason\":\"userRateLimitExceeded\",\"domain\":\"usageLimits\"}]}}", at);
        await_answer(t, q->units.limited % 2 ? 403 : 429, NULL, 0, body);
    }
}

/* ---- Slack-like -------------------------------------------------------------------------------------------------- */

static struct channel *channel_of(struct sandbox *s, const struct quota_user *u, struct str name)
{
    char key[512];
    struct channel *c;

    if (snprintf(key, sizeof(key), "%s|%.*s", u->name, STR_ARG(name)) >= (int)sizeof(key))
        return NULL;
    c = map_get(&s->quota.channels, str_of(key));
    if (c || s->quota.channels.len >= USERS_MAX)
        return c;
    c = calloc(1, sizeof(*c));
    ASSERT(c != NULL);
    memcpy(c->key, key, sizeof(key));
    map_put(&s->quota.channels, str_of(c->key), c);
    return c;
}

/* One each spacing on average, and one more ahead of its time. */
static bool channel_take(struct channel *c, ns_t spacing, ns_t now, ns_t *ret_wait)
{
    ns_t due = c->due > now ? c->due : now;

    *ret_wait = due - now - spacing;
    if (*ret_wait > 0)
        return false;
    c->due = due + spacing;
    return true;
}

static void await_post(struct turn *t, struct quota_user *u)
{
    struct quota *q = &t->s->quota;
    struct json *j = NULL;
    struct json_error where;
    struct channel *c = NULL;
    ns_t wait = 0;
    char after[24];

    q->posts.requests++;
    if (json_parse(&t->arena, http_body(t->rq), NULL, &j, &where) == OK)
        c = channel_of(t->s, u, json_str(json_get(j, "channel")));
    if (!c) {
        await_answer(t, 200, NULL, 0, "{\"ok\":false,\"error\":\"channel_not_found\"}");
    } else if (meter_take(&u->method, q->limits.method, q->limits.method_window_ms, 1, false, loop_now(), &wait) &&
               channel_take(c, q->limits.spacing_ms * NS_PER_MS, loop_now(), &wait)) {
        await_answer(t, 200, NULL, 0, "{\"ok\":true,\"ts\":\"1795186800.000100\"}");
    } else {
        q->posts.limited++;
        snprintf(after, sizeof(after), "%lld", (long long)seconds_up(wait));
        await_answer(t, 429, &(struct http_header){ STR("Retry-After"), str_of(after) }, 1,
                     "{\"ok\":false,\"error\":\"ratelimited\"}");
    }
}

/* ---- Jira-like --------------------------------------------------------------------------------------------------- */

/* The window that holds now: its end, in wall time. */
static wall_ms_t points_window(struct quota *q)
{
    wall_ms_t now = loop_wall_ms(), begins = now - now % q->limits.points_window_ms;

    if (q->points_began != begins) {
        q->points_began = begins;
        q->points_used = 0;
    }
    return begins + q->limits.points_window_ms;
}

static void await_points(struct turn *t)
{
    struct quota *q = &t->s->quota;
    wall_ms_t ends = points_window(q), left_ms = ends - loop_wall_ms();
    bool fits = q->points_used + 2 <= q->limits.points;
    char limit[24], left[24], after[24], shadow[80], at[25];
    struct http_header headers[] = {
        { STR("X-RateLimit-Limit"), STR_NULL }, { STR("X-RateLimit-Remaining"), STR_NULL },
        { STR("Beta-RateLimit"), STR_NULL }, { STR("X-RateLimit-Reset"), STR_NULL }, { STR("Retry-After"), STR_NULL },
        { STR("RateLimit-Reason"), STR("jira-quota-global-based") },
    };

    q->points.requests++;
    q->points.limited += !fits;
    if (fits)
        q->points_used += 2;
    snprintf(limit, sizeof(limit), "%lld", (long long)q->limits.points);
    snprintf(left, sizeof(left), "%lld", (long long)(q->limits.points - q->points_used));
    snprintf(shadow, sizeof(shadow), "\"global-app-quota\";r=%s;t=%lld", left, (long long)(left_ms / 1000 + 1));
    snprintf(after, sizeof(after), "%lld", (long long)(left_ms / 1000 + 1));
    wall_format(ends, at);
    headers[0].value = str_of(limit);
    headers[1].value = str_of(left);
    headers[2].value = str_of(shadow);
    headers[3].value = str_of(at);
    headers[4].value = str_of(after);
    await_answer(t, fits ? 200 : 429, headers, fits ? 3 : 6,
                 fits ? "{\"points\":2}" : "{\"errorMessages\":[\"limit\"]}");
}

/* ---- doors ------------------------------------------------------------------------------------------------------- */

void quota_handle(struct turn *t, struct str rest)
{
    struct str header = STR_NULL;
    struct quota_user *u;

    http_header(t->rq, "authorization", &header);
    u = quota_user_of(t->s, str_starts(header, STR("Bearer ")) ? str_from(header, 7) : STR(""));
    if (!u) {
        await_answer(t, 401, NULL, 0, "{\"error\":{\"message\":\"no token, or too many of them\"}}");
        return;
    }
    if (t->s->delay_ms)
        await_sleep(loop_now() + t->s->delay_ms * NS_PER_MS);
    if (str_starts(rest, STR("/units/")))
        await_units(t, u, str_from(rest, strlen("/units/")));
    else if (str_is(rest, "/channels/post"))
        await_post(t, u);
    else if (str_starts(rest, STR("/points/")))
        await_points(t);
    else
        await_answer(t, 404, NULL, 0, "{\"error\":{\"message\":\"not served here\"}}");
}

void await_quota_limits(struct turn *t)
{
    struct quota *q = &t->s->quota;
    const struct {
        const char *name;
        int64_t *to;
    } rows[] = { { "requests", &q->limits.requests }, { "requests_window_ms", &q->limits.requests_window_ms },
                 { "concurrency", &t->s->opt.concurrency },
                 { "units", &q->limits.units }, { "units_window_ms", &q->limits.units_window_ms },
                 { "spacing_ms", &q->limits.spacing_ms }, { "method", &q->limits.method },
                 { "method_window_ms", &q->limits.method_window_ms }, { "points", &q->limits.points },
                 { "points_window_ms", &q->limits.points_window_ms } };
    struct json *j = NULL;
    struct json_error where;
    int64_t n;

    if (json_parse(&t->arena, http_body(t->rq), NULL, &j, &where)) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "The body is no JSON.");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (json_int(json_get(j, rows[i].name), &n) && n >= 1 && n <= 1000000000)
            *rows[i].to = n;
    points_window(q);
    if (json_int(json_get(j, "eaten"), &n) && n >= 0)
        q->points_used = q->points_used + n > q->limits.points ? q->limits.points : q->points_used + n;
    await_json(t, 200, json_object(&t->arena));
}

static void stat_add(struct turn *t, struct json *to, const char *name, const struct quota_count *c)
{
    struct json *j = json_object(&t->arena);

    json_set_int(&t->arena, j, "requests", (int64_t)c->requests);
    json_set_int(&t->arena, j, "limited", (int64_t)c->limited);
    json_set(&t->arena, to, name, j);
}

void quota_stats(struct turn *t, struct json *to)
{
    stat_add(t, to, "units", &t->s->quota.units);
    stat_add(t, to, "posts", &t->s->quota.posts);
    stat_add(t, to, "points", &t->s->quota.points);
}

void quota_init(struct quota *q)
{
    q->limits = (struct quota_limits){ .requests = 10000, .requests_window_ms = 600000, .units = 6000,
                                       .units_window_ms = 60000, .spacing_ms = 1000, .method = 1000000,
                                       .method_window_ms = 60000, .points = 65000, .points_window_ms = 3600000 };
}

void quota_free(struct quota *q)
{
    struct map_slot *slot;
    size_t at = 0;

    while ((slot = map_next(&q->users, &at))) {
        struct quota_user *u = slot->value;

        meter_free(&u->units);
        meter_free(&u->method);
        free(u);
    }
    map_release(&q->users);
    at = 0;
    while ((slot = map_next(&q->channels, &at)))
        free(slot->value);
    map_release(&q->channels);
}
