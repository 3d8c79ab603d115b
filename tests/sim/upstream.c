/*
 * upstream.c -- the simulated provider (upstream.h): requests, tokens, the log of effects
 *
 * A request is drawn its fate on arrival.  Between `arrives` and `answers` lies `executes`; what is to be executed
 * hangs on a list by time and is done when the clock has passed it, whoever looks next.
 */
#include "upstream.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crypto.h"
#include "json/json.h"
#include "loop/task.h"
#include "provider.h"
#include "sim.h"
#include "simworld.h"

enum { GRANTS_MAX = 1024, MAILBOXES_MAX = 256, IN_FLIGHT_MAX = 4, RATE_MS = 10000, SKEW_MS = 10, SENDS_MAX = 4096 };

struct upstream_weather upstream_weather;
struct deed *upstream_effects;
size_t upstream_n_effects;
unsigned upstream_refreshes;
void (*upstream_happened)(bool token);

struct grant {
    char tenant[24], user[24];
    enum upstream_kind kind;
    unsigned number;     /* its place among all grants */
    unsigned generation; /* of the refresh token that is valid */
    bool dead;
    char access[80], refresh[80];
    wall_ms_t life, expires;
    wall_ms_t told_until; /* the end of the access token as the engine may understand it */
    bool revoked;         /* the access token */
};

struct plan {
    struct plan *next;
    ns_t at;
    struct deed effect;
};

/* What the engine had under way or sent, per mailbox, in this life. */
struct mailbox {
    char tenant[24], user[24];
    enum upstream_kind kind;
    unsigned in_flight;
    ns_t sends[SENDS_MAX];
    unsigned n_sends;
};

static struct dice dice;
static size_t cap_effects;
static struct grant grants[GRANTS_MAX];
static unsigned n_grants;
static struct plan *plans;
static struct mailbox *mailboxes;
static unsigned n_mailboxes;
static unsigned life;
static int64_t token_ms_max; /* lives of access tokens, in this run */

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

void upstream_begin(uint64_t seed)
{
    upstream_end();
    dice = dice_for(seed, "upstream");
    upstream_weather = (struct upstream_weather){ 0 };
    token_ms_max = dice_scale(&dice, 8000, 120000);
    n_grants = upstream_refreshes = 0;
    mailboxes = calloc(MAILBOXES_MAX, sizeof(*mailboxes));
    ASSERT(mailboxes);
    n_mailboxes = 0;
}

void upstream_end(void)
{
    while (plans) {
        struct plan *p = plans;

        plans = p->next;
        free(p);
    }
    free(upstream_effects);
    upstream_effects = NULL;
    upstream_n_effects = cap_effects = 0;
    free(mailboxes);
    mailboxes = NULL;
}

void upstream_new_life(unsigned number)
{
    life = number;
    for (unsigned i = 0; i < n_mailboxes; i++)
        mailboxes[i].in_flight = mailboxes[i].n_sends = 0;
}

/* ---- effects ----------------------------------------------------------------------------------------------------- */

static void execute(const struct deed *e)
{
    if (upstream_n_effects == cap_effects) {
        cap_effects = cap_effects ? cap_effects * 2 : 256;
        upstream_effects = realloc(upstream_effects, cap_effects * sizeof(*upstream_effects));
        ASSERT(upstream_effects);
    }
    upstream_effects[upstream_n_effects++] = *e;
    sim_trace("effect op=%lld step=%d call=%s", (long long)e->op, e->step, e->call);
    if (upstream_happened)
        upstream_happened(false);
}

static void advance(ns_t now)
{
    while (plans && plans->at <= now) {
        struct plan *p = plans;

        plans = p->next;
        p->effect.at = p->at;
        execute(&p->effect);
        free(p);
    }
}

void upstream_settle(void)
{
    advance(NS_NEVER);
}

static void plan(const struct deed *e, ns_t at)
{
    struct plan *p = calloc(1, sizeof(*p)), **to = &plans;

    ASSERT(p);
    *p = (struct plan){ .at = at, .effect = *e };
    while (*to && (*to)->at <= at)
        to = &(*to)->next;
    p->next = *to;
    *to = p;
}

/* ---- a request as it arrives ------------------------------------------------------------------------------------- */

static bool request_read(struct request *r, const struct fetch_request *req)
{
    struct str wire, line, rest;
    struct json_error where;

    *r = (struct request){ 0 };
    arena_init(&r->arena, 1 << 20);
    wire = fetch_wire(req, &r->arena);
    if (!str_cut(wire, '\n', &line, &rest) || !str_cut(line, ' ', &r->method, &line) ||
        !str_cut(line, ' ', &r->path, &line))
        return false;
    while (str_cut(rest, '\n', &line, &rest) && line.len > 1)
        if (str_starts(line, STR("Authorization: Bearer ")))
            r->auth = str_trim(str_n(line.p + 22, line.len - 23));
    r->body = rest;
    if (rest.len && rest.p[0] == '{' && json_parse(&r->arena, rest, NULL, &r->json, &where))
        return false;
    return true;
}

static void request_release(struct request *r)
{
    arena_release(&r->arena);
}

static struct str form_value(struct str body, const char *name)
{
    size_t n = strlen(name);

    while (body.len) {
        struct str one, rest;

        if (!str_cut(body, '&', &one, &rest)) {
            one = body;
            rest = STR_NULL;
        }
        if (one.len > n && memcmp(one.p, name, n) == 0 && one.p[n] == '=')
            return str_from(one, n + 1);
        body = rest;
    }
    return STR_NULL;
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

void upstream_code(struct str provider, struct str tenant, struct str user, char out[80])
{
    snprintf(out, 80, "code.%s.%.*s.%.*s", str_is(provider, "sim") ? "sim" : "graph", STR_ARG(tenant), STR_ARG(user));
}

/* The refresh token of a provider that does not rotate stays. */
static void grant_renew(struct grant *g)
{
    g->generation++;
    g->revoked = false;
    g->life = dice_between(&dice, token_ms_max / 4, token_ms_max);
    g->expires = g->told_until = simworld_true_ms() + g->life;
    snprintf(g->access, sizeof(g->access), UPSTREAM_ACCESS "%u.%u.%llx", g->number, g->generation,
             (unsigned long long)dice_next(&dice));
    if (g->kind == UPSTREAM_SIM || g->generation == 1)
        snprintf(g->refresh, sizeof(g->refresh), UPSTREAM_REFRESH "%u.%u.%llx", g->number, g->generation,
                 (unsigned long long)dice_next(&dice));
}

static struct grant *grant_new(struct str code)
{
    struct str kind, tenant, user;
    struct grant *g;

    if (!str_starts(code, STR("code.")) || !str_cut(str_from(code, 5), '.', &kind, &code) ||
        !str_cut(code, '.', &tenant, &user))
        return NULL;
    ASSERT(n_grants < GRANTS_MAX);
    g = &grants[n_grants];
    *g = (struct grant){ .number = n_grants++, .kind = str_is(kind, "sim") ? UPSTREAM_SIM : UPSTREAM_GRAPH };
    snprintf(g->tenant, sizeof(g->tenant), "%.*s", STR_ARG(tenant));
    snprintf(g->user, sizeof(g->user), "%.*s", STR_ARG(user));
    grant_renew(g);
    return g;
}

static struct grant *grant_of_number(struct str token, size_t prefix)
{
    struct str number, rest;
    uint64_t n;

    if (token.len <= prefix || !str_cut(str_from(token, prefix), '.', &number, &rest) || !str_to_u64(number, &n) ||
        n >= n_grants)
        return NULL;
    return &grants[n];
}

static const char *tokens_json(const struct grant *g, char out[400])
{
    snprintf(out, 400,
             "{\"access_token\":\"%s\",\"token_type\":\"Bearer\",\"expires_in\":%lld,\"refresh_token\":\"%s\"}",
             g->access, (long long)g->life / 1000, g->refresh);
    return out;
}

/* What a token request does, and the answer's text; *ret_status is set, *ret to the grant that got new tokens. */
static const char *exchange_token(const struct request *r, int *ret_status, struct grant **ret, char out[400])
{
    struct str type = form_value(r->body, "grant_type"), token;
    struct grant *g;

    *ret_status = 200;
    *ret = NULL;
    if (!str_is(form_value(r->body, "client_secret"), UPSTREAM_SECRET)) {
        *ret_status = 401;
        return "{\"error\":\"invalid_client\"}";
    }
    if (str_is(type, "authorization_code") && (*ret = grant_new(form_value(r->body, "code"))))
        return tokens_json(*ret, out);
    if (str_ends(r->path, STR("/revoke"))) {
        token = form_value(r->body, "token");
        g = grant_of_number(token, strlen(UPSTREAM_REFRESH));
        if (g)
            g->dead = true;
        return "{}";
    }
    token = form_value(r->body, "refresh_token");
    g = grant_of_number(token, strlen(UPSTREAM_REFRESH));
    *ret_status = 400;
    if (!g)
        return "{\"error\":\"invalid_request\"}";
    if (!str_is(token, g->refresh)) {
        sim_violation("a refresh token of %s/%s was sent twice", g->tenant, g->user);
        g->dead = true;
    }
    if (!g->dead && dice_permille(&dice, upstream_weather.token_dead))
        g->dead = true; /* the user took it back */
    if (g->dead)
        return "{\"error\":\"invalid_grant\"}";
    upstream_refreshes++;
    grant_renew(g);
    sim_trace("refreshed %s/%s generation=%u", g->tenant, g->user, g->generation);
    if (upstream_happened)
        upstream_happened(true);
    *ret_status = 200;
    *ret = g;
    return tokens_json(g, out);
}

/* ---- what the engine is held to ---------------------------------------------------------------------------------- */

static struct mailbox *mailbox_of(const struct grant *g)
{
    for (unsigned i = 0; i < n_mailboxes; i++)
        if (mailboxes[i].kind == g->kind && strcmp(mailboxes[i].tenant, g->tenant) == 0 &&
            strcmp(mailboxes[i].user, g->user) == 0)
            return &mailboxes[i];
    ASSERT(n_mailboxes < MAILBOXES_MAX);
    snprintf(mailboxes[n_mailboxes].tenant, sizeof(mailboxes[0].tenant), "%s", g->tenant);
    snprintf(mailboxes[n_mailboxes].user, sizeof(mailboxes[0].user), "%s", g->user);
    mailboxes[n_mailboxes].kind = g->kind;
    return &mailboxes[n_mailboxes++];
}

void upstream_disconnected(struct str provider, const char *tenant, const char *user)
{
    enum upstream_kind kind = str_is(provider, "sim") ? UPSTREAM_SIM : UPSTREAM_GRAPH;

    for (unsigned i = 0; i < n_mailboxes; i++)
        if (mailboxes[i].kind == kind && strcmp(mailboxes[i].tenant, tenant) == 0 &&
            strcmp(mailboxes[i].user, user) == 0)
            mailboxes[i].tenant[0] = '\0';
}

static struct mailbox *mailbox_enter(const struct grant *g)
{
    struct mailbox *m = mailbox_of(g);

    if (++m->in_flight > IN_FLIGHT_MAX)
        sim_violation("%u requests of mailbox %s/%s at once", m->in_flight, m->tenant, m->user);
    return m;
}

/* The request left at `at`; in a steady run: arrived. */
static void mailbox_sent(struct mailbox *m, ns_t at)
{
    ASSERT(m->n_sends < SENDS_MAX);
    m->sends[m->n_sends++] = at;
}

static int by_time(const void *a, const void *b)
{
    ns_t x = *(const ns_t *)a, y = *(const ns_t *)b;

    return (x > y) - (x < y);
}

/* At most so many requests left in any window; what was never sent does not count. A permit is granted some turns of
 * the loop before its request leaves: that is the skew. */
static void check_rate(struct mailbox *m)
{
    ns_t window = (RATE_MS - (sim.steady ? 0 : SKEW_MS)) * NS_PER_MS;

    qsort(m->sends, m->n_sends, sizeof(m->sends[0]), by_time);
    for (unsigned i = (unsigned)sim.rate; m->kind == UPSTREAM_SIM && i < m->n_sends; i++) {
        if (m->sends[i] - m->sends[i - sim.rate] < window) {
            for (unsigned k = i - (unsigned)sim.rate; k <= i; k++)
                sim_trace("left at %lld ms", (long long)(m->sends[k] / NS_PER_MS));
            sim_violation("more than %lld requests of mailbox %s/%s within %d ms, at %lld ms", (long long)sim.rate,
                          m->tenant, m->user, RATE_MS, (long long)(m->sends[i] / NS_PER_MS));
            return;
        }
    }
}

void upstream_end_life(void)
{
    upstream_settle();
    for (unsigned i = 0; i < n_mailboxes; i++) {
        if (mailboxes[i].in_flight)
            sim_violation("%u requests of %s/%s never ended", mailboxes[i].in_flight, mailboxes[i].tenant,
                          mailboxes[i].user);
        check_rate(&mailboxes[i]);
        mailboxes[i].n_sends = 0;
    }
}

/* ---- fates ------------------------------------------------------------------------------------------------------- */

enum fate { ANSWERED, REFUSED_CONNECTION, LOST_BEFORE, LOST_AFTER, GARBAGE, GARBLED };

struct course {
    enum fate fate;
    ns_t connect, execute, answer; /* how long each takes, one after the other */
    int status;
    bool executes;
    int retry_after_s; /* -1: none said */
};

static const int broken_statuses[] = { 500, 502, 504 };

static struct course draw(void)
{
    const struct upstream_weather *w = &upstream_weather;
    struct course c = { .fate = ANSWERED, .status = 200, .executes = true, .retry_after_s = -1 };
    bool half = dice_permille(&dice, 500);

    c.connect = dice_scale(&dice, 200000, 5 * NS_PER_MS);
    c.execute = dice_scale(&dice, NS_PER_MS, 60 * NS_PER_MS);
    c.answer = dice_scale(&dice, 200000, 20 * NS_PER_MS);
    if (dice_permille(&dice, w->slow))
        *(half ? &c.connect : &c.execute) = dice_scale(&dice, 100 * NS_PER_MS, 4 * NS_PER_S);
    if (dice_permille(&dice, w->late))
        *(half ? &c.answer : &c.execute) = dice_scale(&dice, 5 * NS_PER_S, 60 * NS_PER_S);
    if (dice_permille(&dice, w->refuse))
        c.fate = REFUSED_CONNECTION;
    else if (dice_permille(&dice, w->lose_before))
        c = (struct course){ LOST_BEFORE, c.connect, c.execute, c.answer, 0, false, -1 };
    else if (dice_permille(&dice, w->lose_after))
        c.fate = LOST_AFTER;
    else if (dice_permille(&dice, w->limited))
        c = (struct course){
            ANSWERED, c.connect, c.execute, c.answer, 429, false, half ? (int)dice_between(&dice, 0, 5) : -1
        };
    else if (dice_permille(&dice, w->busy))
        c = (struct course){ ANSWERED,     c.connect, c.execute, c.answer, 503, !half && dice_permille(&dice, 500),
                             half ? 1 : -1 };
    else if (dice_permille(&dice, w->broken))
        c = (struct course){
            ANSWERED, c.connect, c.execute, c.answer, broken_statuses[dice_below(&dice, 3)], half, -1
        };
    else if (dice_permille(&dice, w->garbage))
        c = (struct course){ GARBAGE, c.connect, c.execute, c.answer, 200, half, -1 };
    else if (dice_permille(&dice, w->garbled))
        c = (struct course){ GARBLED, c.connect, c.execute, c.answer, 200, half, -1 };
    else if (dice_permille(&dice, w->conflict))
        c = (struct course){ ANSWERED, c.connect, c.execute, c.answer, half ? 409 : 412, false, -1 };
    else if (dice_permille(&dice, w->refused))
        c = (struct course){ ANSWERED, c.connect, c.execute, c.answer, half ? 403 : 400, false, -1 };
    else if (dice_permille(&dice, w->redirect))
        c = (struct course){ ANSWERED, c.connect, c.execute, c.answer, 302, false, -1 };
    return c;
}

static struct course draw_token(void)
{
    const struct upstream_weather *w = &upstream_weather;
    struct course c = { .fate = ANSWERED, .status = 200, .executes = true, .retry_after_s = -1 };

    c.connect = dice_scale(&dice, 200000, 5 * NS_PER_MS);
    c.execute = dice_scale(&dice, NS_PER_MS, 200 * NS_PER_MS);
    c.answer = dice_scale(&dice, 200000, 20 * NS_PER_MS);
    if (dice_permille(&dice, w->slow))
        c.execute = dice_scale(&dice, 100 * NS_PER_MS, 30 * NS_PER_S);
    if (dice_permille(&dice, w->token_refuse))
        c.fate = REFUSED_CONNECTION;
    else if (dice_permille(&dice, w->token_lose_before))
        c = (struct course){ LOST_BEFORE, c.connect, c.execute, c.answer, 0, false, -1 };
    else if (dice_permille(&dice, w->token_lose_after))
        c.fate = LOST_AFTER;
    else if (dice_permille(&dice, w->token_busy))
        c = (struct course){
            ANSWERED, c.connect, c.execute, c.answer, dice_permille(&dice, 500) ? 503 : 429, false, 1
        };
    else if (dice_permille(&dice, w->token_garbage))
        c.fate = dice_permille(&dice, 500) ? GARBAGE : GARBLED;
    return c;
}

/* ---- answering --------------------------------------------------------------------------------------------------- */

static struct fetch_field *fields_of(struct arena *a, const struct course *c, unsigned *ret_n)
{
    struct fetch_field *f = ARENA_ARRAY(a, struct fetch_field, 2);
    unsigned n = 0;

    f[n++] = (struct fetch_field){ STR("Content-Type"), STR("application/json") };
    if (c->retry_after_s >= 0)
        f[n++] = (struct fetch_field){ STR("Retry-After"), arena_printf(a, "%d", c->retry_after_s) };
    *ret_n = n;
    return f;
}

static enum err answer_now(const struct course *c, const char *text, ns_t sent_at, struct arena *a,
                           struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info)
{
    if (c->fate == LOST_BEFORE || c->fate == LOST_AFTER)
        return err_set(info, E_OUTCOME_UNKNOWN, "the connection was closed before the answer");
    *ret_sent = FETCH_ANSWERED;
    ret->status = c->status;
    if (c->fate == GARBLED)
        return err_set(info, E_UPSTREAM_GARBLED, "the answer breaks HTTP's rules");
    ret->fields = fields_of(a, c, &ret->n_fields);
    ret->body = arena_str(a, c->fate == GARBAGE ? STR("<html>oops") : str_of(text));
    ret->sent_at = sent_at;
    ret->answered_at = loop_now();
    return OK;
}

/* Until the answer: OK, or how it ended instead. `sent`: the request is on its way already. */
static enum err await_until(ns_t at, ns_t deadline, bool sent, struct errinfo *info)
{
    enum err e = await_sleep(at < deadline ? at : deadline);

    if (!e && at > deadline)
        e = E_DEADLINE;
    if (e && sent)
        return err_set(info, E_OUTCOME_UNKNOWN, "%s before the answer", e == E_DEADLINE ? "timed out" : "cancelled");
    return e ? err_set(info, e, "not connected in time") : OK;
}

/* The engine is dead: from its grave nothing is sent. */
static enum err from_the_grave(struct errinfo *info)
{
    return err_set(info, E_UPSTREAM_DOWN, "no process, no request");
}

static enum err await_token_exchange(const struct fetch_request *req, const struct request *r, struct arena *a,
                                     struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info)
{
    struct course c = draw_token();
    const char *text = "{\"error\":\"temporarily_unavailable\"}";
    struct grant *renewed = NULL;
    ns_t began = loop_now();
    char out[400];
    enum err e = await_until(began + c.connect, req->deadline, false, info);

    if (!e && (c.fate == REFUSED_CONNECTION || simworld_dead()))
        e = from_the_grave(info);
    if (e)
        return e;
    *ret_sent = FETCH_SENT;
    if (c.executes && c.status == 200)
        text = exchange_token(r, &c.status, &renewed, out);
    e = await_until(began + c.connect + c.execute + c.answer, req->deadline, true, info);
    if (renewed) /* a lifetime is counted from when it was heard of */
        renewed->told_until = simworld_true_ms() + renewed->life;
    return e ? e : answer_now(&c, text, began, a, ret, ret_sent, info);
}

/* ---- the API ----------------------------------------------------------------------------------------------------- */

/* Whose token is this? NULL: nobody's that is valid now. */
static struct grant *authorized(const struct request *r)
{
    struct grant *g = grant_of_number(r->auth, strlen(UPSTREAM_ACCESS));

    return g && !g->dead && !g->revoked && str_is(r->auth, g->access) && g->expires > simworld_true_ms() ? g : NULL;
}

/* What a request would do, or op -1: nothing. */
static struct deed deed_of(const struct request *r, const struct grant *g)
{
    struct deed e = { .op = -1, .sent = loop_now(), .event = simworld_event(), .life = life };

    snprintf(e.tenant, sizeof(e.tenant), "%s", g->tenant);
    snprintf(e.user, sizeof(e.user), "%s", g->user);
    snprintf(e.call, sizeof(e.call), "%s", sim_call_here());
    if (g->kind == UPSTREAM_SIM)
        items_deed(r, &e);
    else
        graph_deed(r, &e);
    return e;
}

/* The tenant's connection, the grant's mailbox: both must be those of the call. */
static void check_who(const struct fetch_request *req, const struct grant *g)
{
    struct sim_who who = sim_who_here();

    if (!str_is(req->tenant, g->tenant) || !str_is(who.tenant, g->tenant) || !str_is(who.user, g->user))
        sim_violation("a request of %.*s/%.*s carried a token of %s/%s", STR_ARG(who.tenant), STR_ARG(who.user),
                      g->tenant, g->user);
}

/* The answer's text, once the time for it has come. */
static const char *text_of(const struct course *c, const struct request *r, const struct grant *g, const struct deed *x,
                           struct arena *a)
{
    advance(loop_now());
    if (c->status == 200)
        return g->kind == UPSTREAM_SIM ? items_text(r, x, a) : graph_text(r, x, a);
    return "{\"error\":{\"message\":\"so it goes\"}}";
}

static enum err await_arrived(const struct fetch_request *req, const struct request *r, struct course *c,
                              struct grant *g, ns_t began, struct arena *a, struct fetch_reply *ret,
                              enum fetch_sent *ret_sent, struct errinfo *info)
{
    ns_t executes = loop_now() + c->execute;
    struct deed x = deed_of(r, g);
    struct grant *valid;
    enum err e;

    *ret_sent = FETCH_SENT;
    if (dice_permille(&dice, upstream_weather.revoke))
        g->revoked = true;
    valid = authorized(r);
    x.sent = began;
    if (!valid && c->fate == ANSWERED) {
        c->status = 401;
        c->executes = false;
    }
    if (valid && c->executes && x.op >= 0)
        plan(&x, executes);
    e = await_until(executes + c->answer, req->deadline, true, info);
    return e ? e : answer_now(c, text_of(c, r, g, &x, a), began, a, ret, ret_sent, info);
}

static enum err await_api(const struct fetch_request *req, const struct request *r, struct arena *a,
                          struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info)
{
    struct grant *g = grant_of_number(r->auth, strlen(UPSTREAM_ACCESS));
    struct course c = draw();
    ns_t began = loop_now();
    struct mailbox *m;
    enum err e;

    if (!g)
        return sim_violation("a request without a token of ours"), from_the_grave(info);
    check_who(req, g);
    if (str_is(r->auth, g->access) && g->told_until <= simworld_true_ms() && !simworld_stepped())
        sim_violation("a token of %s/%s was used after its end", g->tenant, g->user);
    m = mailbox_enter(g);
    e = await_until(began + c.connect, req->deadline, false, info);
    if (!e && (c.fate == REFUSED_CONNECTION || simworld_dead()))
        e = from_the_grave(info);
    if (!e) {
        mailbox_sent(m, sim.steady ? loop_now() : began);
        sim_trace("%s left at %lld ms for %s/%s", sim_call_here(), (long long)(began / NS_PER_MS), g->tenant, g->user);
        e = await_arrived(req, r, &c, g, began, a, ret, ret_sent, info);
    }
    m->in_flight--;
    return e;
}

static enum err await_upstream(struct fetch *f, const struct fetch_request *req, struct arena *a,
                               struct fetch_reply *ret, enum fetch_sent *ret_sent, struct errinfo *info)
{
    struct request r;
    enum err e;

    advance(loop_now());
    if (simworld_dead())
        return from_the_grave(info);
    if (!request_read(&r, req)) {
        sim_violation("a request that nobody can read left the engine");
        e = from_the_grave(info);
    } else if (str_starts(str_of(req->origin->host), STR("login."))) {
        e = await_token_exchange(req, &r, a, ret, ret_sent, info);
    } else {
        e = await_api(req, &r, a, ret, ret_sent, info);
    }
    sim_trace("%s %.*s %.*s -> %s %d sent=%d", sim_call_here(), STR_ARG(r.method), STR_ARG(r.path), err_name(e),
              ret->status, (int)*ret_sent);
    request_release(&r);
    return e;
}

const struct fetch_impl upstream_fetch = { await_upstream };
