/*
 * exchange.c -- credential -> permit -> send -> classify -> maybe again
 *
 * The rules of trying again (facts: providers A.4):
 *
 *   not executed   (never sent; the provider says "limited" or "not executed")    again, after the wait it asked for
 *   401            again once, with a refreshed token
 *   unknown        reads: again, twice at most; effects: never. E_OUTCOME_UNKNOWN is what the call ends in
 *   anything else  is the provider's answer
 *
 * All attempts share the call's deadline, and repeats a budget (breaker.h).  A limited answer pauses what it is about,
 * so that nobody hammers (limits.h); a provider that keeps failing is not asked for a while (breaker.h).
 *
 * P1 is asserted here, where bytes would leave: a decision of every side, and an intent on record.
 */
#include <stdlib.h>

#include "base/check.h"
#include "base/crypto.h"
#include "base/escape.h"
#include "base/log.h"
#include "base/metric.h"
#include "call/exchange.h"
#include "call/internal.h"
#include "call/breaker.h"
#include "call/limits.h"

enum {
    ATTEMPTS_MAX = 4,
    UNKNOWN_READS_MAX = 2,
    BACKOFF_MS = 200,
    ILL_AFTER_MS = 1000,
    REPLY_MAX = 8 << 20,
    ERROR_BODY_MAX = 64 * 1024,
    TREE_MAX = 64 * 1024,
};

struct attempt {
    struct call *c;
    const struct exchange *x;
    const struct provider_conf *p;
    struct fetch_reply reply;
    struct str body;                /* of the request */
    struct str path;
    struct json *json;              /* of the answer */
    struct answer_info info;
    struct limits_asked asked;             /* of the limiter */
    unsigned tries, unknown_reads;
    bool token_renewed;
    enum err err;                   /* of fetch */
    enum fetch_sent sent;
};

/* ---- what is sent ------------------------------------------------------------------------------------------------ */

static void form_body(struct buf *b, const struct json *fields)
{
    for (const struct json *it = json_first(fields); it; it = json_next(it)) {
        struct buf value = BUF_INIT(REPLY_MAX);

        if (json_is(it, JSON_STRING))
            buf_add_str(&value, json_str(it));
        else
            json_write(&value, it);
        if (b->len)
            buf_add_c(b, '&');
        buf_add_percent(b, json_key(it));
        buf_add_c(b, '=');
        buf_add_percent(b, buf_str(&value));
        buf_release(&value);
    }
}

static enum err write_body(struct attempt *a)
{
    struct buf b = BUF_INIT(REPLY_MAX);
    struct call *c = a->c;

    if (a->x->form)
        form_body(&b, a->x->body);
    else
        json_write(&b, a->x->body);
    a->body = arena_str(&c->arena, buf_str(&b));
    buf_release(&b);
    return b.overflow || arena_overflowed(&c->arena) ? E_CALL_TOO_LARGE : OK;
}

/* The connector's path stays there as long as the exchange. */
static enum err write_request(struct attempt *a)
{
    struct str path = str_of(a->x->path);

    a->path = a->p->base_path.len ? ARENA_CAT(&a->c->arena, a->p->base_path, path) : path;
    a->body = STR("");
    if (a->x->body)
        return write_body(a);
    return arena_overflowed(&a->c->arena) ? E_CALL_TOO_LARGE : OK;
}

/* ---- permit ------------------------------------------------------------------------------------------------------ */

/* "the limit mailbox_requests of outlook" */
static void name_limit(const struct permit_asked *p, unsigned i, struct call *c, struct buf *to)
{
    const struct attempt *a = p->of;

    buf_addf(to, "the limit %s of %s", a->asked.of[i].limit->name, a->p->decl->name);
}

/* All limits that the request falls under, at once or not at all. */
static enum err await_limits(struct attempt *a, struct rl_permit *ret, bool *ret_held)
{
    const struct permit_asked asked = { a->asked.asks, a->asked.n, name_limit, a };
    struct call *c = a->c;
    unsigned blocked;
    int64_t retry_at = 0;
    enum err e;

    *ret_held = false;
    if (a->asked.n == 0)
        return OK;
    e = await_permit(c, &asked, c->deadline, ret, &blocked, &retry_at);
    *ret_held = !e;
    if (!e)
        call_permit_left(c, TRAIL_LIMITS, ret);
    if (e == E_DEADLINE)
        return call_why(c, e, "other requests of this account held its limits at %s until the call's deadline",
                        a->p->decl->name);
    if (e == E_RATE_LIMITED) {
        if (retry_at != RL_FOREVER && retry_at > loop_now())
            c->retry_after_ms = (retry_at - loop_now()) / NS_PER_MS + 1;
        return call_why(
            c, e, "the limits of %s for this account would not have let the request through before the call's deadline",
            a->p->decl->name);
    }
    return e;
}

/* Room for what the vault or fetch says. Not on the stack, of which who waits would keep a second page, nor in the
 * arena: it is freed before anybody stands in line. */
static struct errinfo *unsaid(void)
{
    struct errinfo *said = malloc(sizeof(*said));

    ASSERT(said != NULL);
    said->text[0] = 0;
    return said;
}

/* ---- send -------------------------------------------------------------------------------------------------------- */

static enum err await_credential(struct attempt *a, struct vault_lease *lease)
{
    struct call *c = a->c;
    struct errinfo *said;
    enum err e;

    if (a->p->decl->no_account)
        return OK;
    said = unsaid();
    e = await_vault_token(c->worker->engine->vault, &c->account, &a->p->vault, c->deadline, lease, said);
    if (e == E_RECONNECT_NEEDED)
        call_why(c, e, "the %s account must be connected again: sluice connect %s", a->p->decl->name,
                 a->p->decl->name);
    else if (e)
        call_why(c, e, "%s: %s", err_text(e), said->text);
    free(said);
    return e;
}

STATIC_ASSERT((int)FETCH_LOOKED == (int)TRAIL_COUNT - (int)TRAIL_WAY, "each has a place in the trail");

/* Bytes leave here and nowhere else. A frame of its own: who waits for a permit does not hold it. */
static NOINLINE void await_send(struct attempt *a, const struct vault_lease *lease)
{
    struct call *c = a->c;
    struct errinfo *said = unsaid();
    struct fetch_request req = { .tenant = c->caller->tenant,
                                 .origin = &a->p->origin,
                                 .guard = &a->p->guard,
                                 .method = str_of(a->x->method),
                                 .path = a->path,
                                 .common = a->p->fields[!a->x->body ? REQUEST_PLAIN
                                                        : a->x->form ? REQUEST_FORM : REQUEST_JSON],
                                 .body = a->body,
                                 .bearer = lease->token,
                                 .deadline = c->deadline,
                                 .reply_max = REPLY_MAX };

    ASSERT(c->intended && c->permitted && c->step == STEP_RUN);
    memset(&a->reply, 0, sizeof(a->reply));
    c->exchanges++;
    if (a->x->effect)
        c->effects_sent++;
    a->err = await_fetch(c->worker->fetch, &req, &c->arena, &a->reply, &a->sent, said);
    if (a->x->effect && a->sent == FETCH_NOT_SENT)
        c->effects_sent--;
    if (a->sent == FETCH_ANSWERED)
        c->last_status = a->reply.status;
    if (a->err)
        call_why(c, a->err, "%s: %s", err_text(a->err), said->text);
    else
        metric_observe_at(M_EXCHANGE_SECONDS, a->p->metric, a->reply.answered_at - a->reply.sent_at);
    for (int i = 0; i < FETCH_LOOKED; i++)
        caller_left(c->caller, TRAIL_WAY + i, a->reply.looked[i]);
    free(said);
}

/* ---- classify ---------------------------------------------------------------------------------------------------- */

static const char *answer_header(const struct answer_info *in, const char *name)
{
    const struct attempt *a = in->engine;
    struct str value;

    return fetch_reply_header(&a->reply, name, &value) ? arena_z(&a->c->arena, value) : NULL;
}

static const char *const answer_names[] = { "none",    "done", "refused",      "conflict",
                                            "limited", "auth", "not_executed", "unknown" };

static void count_answer(const struct attempt *a, enum answer ans)
{
    metric_slot_t *slot = &a->p->answers[ans];

    if (!metric_slot_known(slot)) {
        struct buf label = BUF_INIT(128);

        buf_addf(&label, "%s:%s", a->p->decl->name, answer_names[ans]);
        metric_slot_ask(slot, M_EXCHANGES_TOTAL, buf_str(&label));
        buf_release(&label);
    }
    metric_add_at(M_EXCHANGES_TOTAL, metric_slot(slot), 1);
}

/* About what its tree takes, and what is picked from it; of large ones a part. */
static size_t body_tree(size_t len)
{
    return len < TREE_MAX / 4 ? 4 * len : TREE_MAX;
}

/* What came back, as one of the answers a provider can give; transport errors included. */
static enum answer classify(struct attempt *a)
{
    struct json_error where;
    struct str type = STR_NULL;

    a->json = NULL;
    a->info = (struct answer_info){ .header = answer_header, .engine = a };
    if (a->err) {
        if (a->sent != FETCH_NOT_SENT)
            return ANSWER_UNKNOWN;
        return a->err == E_UPSTREAM_DOWN ? ANSWER_NOT_EXECUTED : ANSWER_REFUSED;
    }
    a->info.status = a->reply.status;
    fetch_reply_header(&a->reply, "content-type", &type);
    /* an error's body only explains: one that would fill the call's memory is left unread */
    if (a->reply.status >= 300 && a->reply.body.len > ERROR_BODY_MAX)
        a->reply.body.len = 0;
    arena_expect(&a->c->arena, body_tree(a->reply.body.len));
    if (a->reply.body.len && json_parse(&a->c->arena, a->reply.body, NULL, &a->json, &where)) {
        a->json = NULL;
        if (a->reply.status >= 200 && a->reply.status < 300) {
            a->err = call_why(a->c, E_UPSTREAM_GARBLED, "%s answered %d with a body that is no JSON (%.*s)",
                              a->p->decl->name, a->reply.status, STR_ARG(type.len > 60 ? str_n(type.p, 60) : type));
            return ANSWER_UNKNOWN;
        }
    }
    a->info.body = a->json;
    return a->p->decl->classify ? a->p->decl->classify(&a->info) : answer_by_status(&a->info);
}

/* ---- one attempt, and what follows from it ----------------------------------------------------------------------- */

/*
 * A token and a permit, both good now.  The token comes first: it may take a refresh, and a permit is for the moment it
 * was granted, not for after that.  Who stood in line for the permit asks for the token again.
 */
static enum err await_leave(struct attempt *a, struct vault_lease *lease, struct rl_permit *permit, bool *ret_held)
{
    struct engine *engine = a->c->worker->engine;
    enum err e = await_credential(a, lease);

    *ret_held = false;
    while (!e) {
        ns_t asked = loop_now();

        e = await_limits(a, permit, ret_held);
        if (e || loop_now() == asked || !lease->token)
            break;
        vault_lease_release(engine->vault, lease);
        asked = loop_now();
        e = await_credential(a, lease);
        if (e || loop_now() == asked)
            break;
        if (*ret_held)
            rl_return(engine->limiter, permit, loop_now());
        *ret_held = false;
    }
    return e;
}

static struct breaker_of circuit_of(const struct attempt *a)
{
    const struct caller *w = a->c->caller;

    return (struct breaker_of){ w->tenant, w->tenant_hash, a->p->index };
}

/* A provider that keeps failing is left alone. Settling what is unknown is worth a question even then. */
static enum err guard_enter(struct attempt *a, struct breaker_pass *pass)
{
    struct call *c = a->c;
    struct breakers *b = c->worker->engine->breakers;
    const struct breaker_of of = circuit_of(a);
    ns_t retry_at = 0;

    if (c->in_reconcile) {
        breaker_pass(b, &of, pass);
        return OK;
    }
    if (breaker_enter(b, &of, a->tries == 1, loop_now(), pass, &retry_at))
        return OK;
    metric_add_at(M_BREAKER_REFUSED_TOTAL, a->p->metric_refused, 1);
    c->retry_after_ms = (retry_at - loop_now()) / NS_PER_MS + 1;
    return call_why(c, E_UPSTREAM_UNWELL, "%s keeps failing for this tenant: it is not asked again for %lld ms",
                    a->p->decl->name, (long long)c->retry_after_ms);
}

/* A request that had no time says nothing of the provider. */
static void guard_leave(struct attempt *a, struct breaker_pass *pass, enum answer ans, ns_t began)
{
    struct call *c = a->c;
    bool ill = ans == ANSWER_UNKNOWN || ans == ANSWER_NOT_EXECUTED;
    bool hurried = a->err && (task_cancelled() || (loop_now() >= c->deadline &&
                                                   loop_now() - began < ILL_AFTER_MS * NS_PER_MS));
    enum breaker_health health = hurried || (a->err && !ill) ? BREAKER_NOTHING : ill ? BREAKER_ILL : BREAKER_WELL;

    if (!breaker_leave(c->worker->engine->breakers, pass, health, loop_now()))
        return;
    metric_add_at(M_BREAKER_OPENED_TOTAL, a->p->metric_opened, 1);
    LOG_WARN("a provider keeps failing: it is left alone for a while", LOG_S("provider", a->p->decl->name),
             LOG_SV("tenant", c->caller->tenant), LOG_S("last", err_name(a->err ? a->err : E_UPSTREAM_DOWN)));
}

struct heard {
    struct attempt *a;
    const struct vault_lease *lease;
    struct breaker_pass *pass;
    ns_t began, granted;                /* granted: the permit; 0: there is none */
    enum answer answer;
};

/* What the provider said, and what follows for all who ask it. Nothing here waits. */
static void hear(void *arg)
{
    struct heard *h = arg;
    struct attempt *a = h->a;

    h->answer = classify(a);
    count_answer(a, h->answer);
    guard_leave(a, h->pass, h->answer, h->began);
    /* before the permit goes back: who waits for it must not leave into a throttle */
    limits_heard(a->c, &a->asked, h->answer, &a->info, h->granted);
    if (h->answer == ANSWER_AUTH && !vault_token_rejected(a->c->worker->engine->vault, h->lease))
        a->token_renewed = true;                /* asking again would bring the same token */
}

static enum err await_attempt(struct attempt *a, enum answer *ret)
{
    UNSET struct rl_permit permit;
    struct vault_lease lease = { 0 };
    struct breaker_pass pass;
    struct call *c = a->c;
    bool held;
    enum err e;

    await_stage(STAGE_LEAVE);
    e = await_leave(a, &lease, &permit, &held);
    if (!e)
        e = guard_enter(a, &pass);
    if (!e) {
        struct heard h = { a, &lease, &pass, loop_now(), held ? permit.granted_at : 0, ANSWER_UNKNOWN };

        await_send(a, &lease);
        vault_lease_ahead(&lease);      /* what goes back soon has left the caches while the provider took its time */
        if (held)
            rl_permit_ahead(&permit);
        call_unadmit_ahead(c);
        await_stage(STAGE_HEAR);
        task_deep(hear, &h);
        *ret = h.answer;
    }
    if (lease.token)
        vault_lease_release(c->worker->engine->vault, &lease);
    if (held && (e || a->sent == FETCH_NOT_SENT))
        rl_return(c->worker->engine->limiter, &permit, loop_now());
    else if (held)
        rl_release(c->worker->engine->limiter, &permit, loop_now());
    return e;
}

/* Waits before another attempt. False: there is no time for one. */
static bool await_again(struct attempt *a, int64_t wait_ms)
{
    struct call *c = a->c;
    const struct breaker_of of = circuit_of(a);
    ns_t until = loop_now() + wait_ms * NS_PER_MS;

    if (a->tries >= ATTEMPTS_MAX || until >= c->deadline || task_cancelled())
        return false;
    if (!breaker_retry(c->worker->engine->breakers, &of)) {
        metric_add_at(M_RETRIES_REFUSED_TOTAL, a->p->metric_unrepeated, 1);
        return false;
    }
    metric_add_at(M_RETRIES_TOTAL, a->p->metric_retries, 1);
    return await_sleep(until) == OK;
}

static int64_t backoff_ms(const struct attempt *a)
{
    uint8_t r;

    crypto_random(&r, 1);
    return (BACKOFF_MS << (a->tries - 1)) + r;
}

static enum err say(struct attempt *a, enum err e)
{
    return call_why(a->c, e, "%s (%s answered %d%s%s)", err_text(e), a->p->decl->name, a->info.status,
                    a->info.message[0] ? ": " : "", a->info.message);
}

/* True: try again. Otherwise *ret is how the exchange ends. */
static bool await_verdict(struct attempt *a, enum answer ans, enum err *ret)
{
    int64_t wait = a->info.retry_after_ms;      /* never 0 of a throttle: limits_heard() */

    switch (ans) {
    case ANSWER_DONE:
        if (a->x->effect)
            a->c->effects_done++;
        *ret = OK;
        return false;
    case ANSWER_REFUSED:
        *ret = a->err ? a->err : say(a, E_UPSTREAM_REFUSED);
        break;
    case ANSWER_CONFLICT:
        *ret = say(a, E_UPSTREAM_CONFLICT);
        break;
    case ANSWER_LIMITED:
        a->c->retry_after_ms = wait;
        *ret = say(a, E_UPSTREAM_LIMITED);
        if (await_again(a, a->c->retry_after_ms))
            return true;
        break;
    case ANSWER_AUTH:
        *ret = say(a, E_UPSTREAM_AUTH);
        if (!a->token_renewed) {
            a->token_renewed = true;
            return true;
        }
        break;
    case ANSWER_NOT_EXECUTED:
        *ret = a->err ? a->err : say(a, E_UPSTREAM_DOWN);
        if (await_again(a, wait ? wait : backoff_ms(a)))
            return true;
        break;
    case ANSWER_UNKNOWN:
        *ret = a->err ? a->err : say(a, E_OUTCOME_UNKNOWN);
        if (!a->x->effect) {
            if (a->unknown_reads++ < UNKNOWN_READS_MAX && await_again(a, backoff_ms(a)))
                return true;
            if (*ret == E_OUTCOME_UNKNOWN)          /* a read that got no answer changed nothing */
                *ret = task_cancelled() ? E_CANCELLED
                                        : call_why(a->c, E_UPSTREAM_DOWN, "%s did not answer", a->p->decl->name);
            return false;
        }
        return false;
    }
    /* the provider says that it did not happen */
    if (a->x->effect && a->sent != FETCH_NOT_SENT)
        a->c->effects_sent--;
    return false;
}

enum err await_call_exchange(struct call *c, const struct exchange *x, struct json **ret)
{
    struct attempt *a = arena_alloc(&c->arena, sizeof(*a));
    enum err e;

    *ret = NULL;
    if (!a || !x->path)
        return E_CALL_TOO_LARGE;
    if (!c->tool)
        return call_why(c, E_CONNECTOR_FAULT, "prompts and resources make no exchanges: nothing was decided for one");
    if (x->effect && (c->tool->decl->effect == EFFECT_READS || c->in_reconcile))
        return call_why(c, E_CONNECTOR_FAULT, "%s is declared to only read, but tried to change something",
                        c->tool->decl->name);
    *a = (struct attempt){ .c = c, .x = x, .p = c->tool->provider };
    e = write_request(a);
    if (!e)
        e = limits_ask(c, a->p, x, &a->asked);
    while (!e) {
        enum answer ans = ANSWER_UNKNOWN;

        a->tries++;
        e = await_attempt(a, &ans);
        if (e)
            break;
        if (await_verdict(a, ans, &e)) {
            /* sent again: whatever the attempt before counted as sent is known not to have happened */
            if (x->effect && a->sent != FETCH_NOT_SENT)
                c->effects_sent--;
            e = OK;
            continue;
        }
        break;
    }
    *ret = a->json;
    return e;
}
