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
 * All attempts share the call's deadline.  A limited answer pauses the account's key, so that nobody hammers.
 *
 * P1 is asserted here, where bytes would leave: a decision of every side, and an intent on record.
 */
#include "base/check.h"
#include "base/crypto.h"
#include "base/escape.h"
#include "base/metric.h"
#include "call/exchange.h"
#include "call/internal.h"

enum {
    ATTEMPTS_MAX = 4,
    UNKNOWN_READS_MAX = 2,
    BACKOFF_MS = 200,
    PAUSE_DEFAULT_MS = 1000,
    REPLY_MAX = 8 << 20,
    ERROR_BODY_MAX = 64 * 1024,
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
    struct rl_ask account_ask;      /* what a limited answer pauses */
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

static enum err write_request(struct attempt *a)
{
    struct buf b = BUF_INIT(REPLY_MAX);
    struct call *c = a->c;

    if (a->x->body && a->x->form)
        form_body(&b, a->x->body);
    else if (a->x->body)
        json_write(&b, a->x->body);
    a->body = arena_str(&c->arena, buf_str(&b));
    a->path = ARENA_CAT(&c->arena, a->p->base_path, str_of(a->x->path));
    buf_release(&b);
    return b.overflow || arena_overflowed(&c->arena) ? E_CALL_TOO_LARGE : OK;
}

static unsigned request_headers(const struct attempt *a, struct fetch_header *out, unsigned max)
{
    unsigned n = 0;

    out[n++] = (struct fetch_header){ .name = STR("Accept"), .value = STR("application/json") };
    out[n++] = (struct fetch_header){ .name = STR("User-Agent"), .value = STR("sluice/" SLUICE_VERSION) };
    if (a->x->body)
        out[n++] = (struct fetch_header){ .name = STR("Content-Type"),
                                          .value = a->x->form ? STR("application/x-www-form-urlencoded")
                                                              : STR("application/json") };
    for (const char *const *h = a->p->decl->headers; h && *h && n < max; h++) {
        struct str name, value;

        if (str_cut(str_of(*h), ':', &name, &value))
            out[n++] = (struct fetch_header){ .name = name, .value = str_trim(value) };
    }
    return n;
}

/* ---- permit ------------------------------------------------------------------------------------------------------ */

static struct str limit_key(struct call *c, const struct provider_conf *p, const struct limit_conf *l)
{
    const struct str bar = STR("|"), provider = str_of(p->decl->name), name = str_of(l->name);

    switch (l->scope) {
    case PER_ACCOUNT:
        return ARENA_CAT(&c->arena, c->caller->tenant, bar, provider, bar, c->account.id, bar, name);
    case PER_TENANT:
        return ARENA_CAT(&c->arena, c->caller->tenant, bar, provider, bar, bar, name);
    case PER_PROVIDER:
        return ARENA_CAT(&c->arena, bar, provider, bar, bar, name);
    }
    UNREACHABLE();
}

/* All limits of the provider, at once or not at all. */
static enum err await_limits(struct attempt *a, struct permit_wait *w, bool *ret_held)
{
    struct rl_ask asks[LIMITS_MAX];
    struct call *c = a->c;
    int64_t retry_at = 0;
    size_t n = 0;
    enum err e;

    *ret_held = false;
    for (unsigned i = 0; i < a->p->n_limits; i++) {
        const struct limit_conf *l = &a->p->limits[i];
        struct str key = limit_key(c, a->p, l);

        if (!key.p || key.len > RL_KEY_MAX)
            return E_CALL_TOO_LARGE;
        asks[n] = (struct rl_ask){ key.p, (uint16_t)key.len, l->rule,
                                   (uint32_t)(l->amount ? (c->tool->decl->cost ? c->tool->decl->cost : 1) : 0) };
        if (l->scope == PER_ACCOUNT && !a->account_ask.key)
            a->account_ask = asks[n];
        n++;
    }
    if (n == 0)
        return OK;
    e = await_permit(c->worker->engine->limiter, w, asks, n, c->deadline, &retry_at);
    *ret_held = !e;
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

/* ---- send -------------------------------------------------------------------------------------------------------- */

static enum err await_credential(struct attempt *a, struct vault_lease *lease)
{
    struct call *c = a->c;
    struct errinfo info = { "" };
    enum err e;

    if (a->p->decl->no_account)
        return OK;
    e = await_vault_token(c->worker->engine->vault, c->caller->tenant, c->account.id, &a->p->vault, c->deadline, lease,
                          &info);
    if (e == E_RECONNECT_NEEDED)
        return call_why(c, e, "the %s account must be connected again: sluice connect %s", a->p->decl->name,
                        a->p->decl->name);
    return e ? call_why(c, e, "%s: %s", err_text(e), info.text) : OK;
}

/* Bytes leave here and nowhere else. */
static void await_send(struct attempt *a, const struct vault_lease *lease)
{
    struct fetch_header headers[16];
    struct call *c = a->c;
    struct errinfo info = { "" };
    struct fetch_request req = { .tenant = c->caller->tenant,
                                 .origin = &a->p->origin,
                                 .guard = &a->p->guard,
                                 .method = str_of(a->x->method),
                                 .path = a->path,
                                 .headers = headers,
                                 .n_headers = request_headers(a, headers, ARRAY_LEN(headers)),
                                 .body = a->body,
                                 .bearer = lease->token,
                                 .deadline = c->deadline,
                                 .reply_max = REPLY_MAX };

    ASSERT(c->intended && c->n_sides >= 2 && c->step == STEP_RUN);
    for (unsigned i = 0; i < c->n_sides; i++)
        ASSERT(c->sides[i].effect != POLICY_DENY);
    memset(&a->reply, 0, sizeof(a->reply));
    c->exchanges++;
    if (a->x->effect)
        c->effects_sent++;
    a->err = await_fetch(c->worker->fetch, &req, &c->arena, &a->reply, &a->sent, &info);
    if (a->x->effect && a->sent == FETCH_NOT_SENT)
        c->effects_sent--;
    if (a->sent == FETCH_ANSWERED)
        c->last_status = a->reply.status;
    if (a->err)
        call_why(c, a->err, "%s: %s", err_text(a->err), info.text);
    else
        metric_observe_at(M_EXCHANGE_SECONDS, a->p->metric, a->reply.answered_at - a->reply.sent_at);
}

/* ---- classify ---------------------------------------------------------------------------------------------------- */

static const char *answer_header(const struct answer_info *in, const char *name)
{
    const struct attempt *a = in->engine;
    struct str value;

    return fetch_reply_header(&a->reply, name, &value) ? arena_z(&a->c->arena, value) : NULL;
}

enum answer answer_by_status(struct answer_info *in)
{
    const char *after = in->header(in, "retry-after");
    uint64_t seconds = 0;

    if (after && str_to_u64(str_of(after), &seconds) && seconds <= 86400)
        in->retry_after_ms = (int64_t)seconds * 1000;
    if (in->status >= 200 && in->status < 300)
        return ANSWER_DONE;
    switch (in->status) {
    case 401:
        return ANSWER_AUTH;
    case 409:
    case 412:
        return ANSWER_CONFLICT;
    case 429:
        return ANSWER_LIMITED;
    case 503:
        return after ? ANSWER_NOT_EXECUTED : ANSWER_UNKNOWN;
    case 408:
    case 303:                           /* "see there for what came of it" */
        return ANSWER_UNKNOWN;
    case 501:
    case 505:
        return ANSWER_REFUSED;
    default:
        /* what a server or something in front of it says of itself proves nothing about the request: 507, 520, 524,
         * 529 */
        return in->status >= 500 ? ANSWER_UNKNOWN : ANSWER_REFUSED;
    }
}

/* The provider's words, cut to what fits, without what could break a line. */
void answer_message(struct answer_info *in, const struct json *body, const char *path)
{
    struct str s = json_str(js_get(body, path));
    size_t n = 0;

    for (size_t i = 0; i < s.len && n + 1 < sizeof(in->message); i++)
        in->message[n++] = (unsigned char)s.p[i] < 0x20 ? ' ' : s.p[i];
    while (n > 0 && !str_utf8_valid(str_n(in->message, n)))
        n--;                            /* the cut may have gone through a character */
    in->message[n] = '\0';
}

bool answer_text_is(const struct json *string, const char *text)
{
    return str_is(json_str(string), text);
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
static enum err await_leave(struct attempt *a, struct vault_lease *lease, struct permit_wait *permit, bool *ret_held)
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
            rl_return(engine->limiter, &permit->waiter.permit, loop_now());
        *ret_held = false;
    }
    return e;
}

static enum err await_attempt(struct attempt *a, enum answer *ret)
{
    struct permit_wait permit;
    struct vault_lease lease = { 0 };
    struct call *c = a->c;
    bool held;
    enum err e;

    e = await_leave(a, &lease, &permit, &held);
    if (!e) {
        await_send(a, &lease);
        *ret = classify(a);
        count_answer(a, *ret);
        if (*ret == ANSWER_AUTH && !vault_token_rejected(c->worker->engine->vault, &lease))
            a->token_renewed = true;            /* asking again would bring the same token */
    }
    if (lease.token)
        vault_lease_release(c->worker->engine->vault, &lease);
    if (held && (e || a->sent == FETCH_NOT_SENT))
        rl_return(c->worker->engine->limiter, &permit.waiter.permit, loop_now());
    else if (held)
        rl_release(c->worker->engine->limiter, &permit.waiter.permit, loop_now());
    return e;
}

/* Waits before another attempt. False: there is no time for one. */
static bool await_again(struct attempt *a, int64_t wait_ms)
{
    struct call *c = a->c;
    ns_t until = loop_now() + wait_ms * NS_PER_MS;

    if (a->tries >= ATTEMPTS_MAX || until >= c->deadline || task_cancelled())
        return false;
    return await_sleep(until) == OK;
}

static int64_t backoff_ms(const struct attempt *a)
{
    uint8_t r;

    crypto_random(&r, 1);
    return (BACKOFF_MS << (a->tries - 1)) + r;
}

static void pause_account(struct attempt *a, int64_t ms)
{
    ns_t now = loop_now();

    if (a->account_ask.key)
        rl_pause(a->c->worker->engine->limiter, &a->account_ask, now + ms * NS_PER_MS, now);
}

static enum err say(struct attempt *a, enum err e)
{
    return call_why(a->c, e, "%s (%s answered %d%s%s)", err_text(e), a->p->decl->name, a->info.status,
                    a->info.message[0] ? ": " : "", a->info.message);
}

/* True: try again. Otherwise *ret is how the exchange ends. */
static bool await_verdict(struct attempt *a, enum answer ans, enum err *ret)
{
    int64_t wait = a->info.retry_after_ms;

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
        a->c->retry_after_ms = wait ? wait : PAUSE_DEFAULT_MS;
        pause_account(a, a->c->retry_after_ms);
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
    struct attempt *a = ARENA_NEW(&c->arena, struct attempt);
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
