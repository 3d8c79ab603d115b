/*
 * admit.c -- ADMIT: the call's own budgets; and permits of the limiter that a task can wait for
 *
 * A permit is granted by hand-over on whatever thread freed it; mail brings the news to the waiter's loop.
 */
#include "base/check.h"
#include "base/metric.h"
#include "call/budget.h"
#include "call/internal.h"

/* What a call holds of budgets until its end. */
struct admission {
    unsigned n;
    struct rl_permit held[];            /* for policies' budgets, RL_ASKS_MAX of them each; then the configuration's */
};

/* A permit that a task can wait for. */
struct permit_wait {
    struct rl_waiter waiter;
    struct mail mail;
    struct wake wake;
    struct loop *loop;
};

enum { CALLS_DEFAULT = 16000 };

#define TELL_AFTER  NS_PER_S
#define TELL_EACH   (5 * NS_PER_S)

/* ---- permits ----------------------------------------------------------------------------------------------------- */

static void permit_mail(struct mail *m)
{
    wake_fire(&CONTAINER_OF(m, struct permit_wait, mail)->wake);
}

static void permit_wake(struct rl_waiter *w)
{
    struct permit_wait *p = CONTAINER_OF(w, struct permit_wait, waiter);

    loop_post(p->loop, &p->mail);
}

static enum err permit_result(enum rl_result r)
{
    switch (r) {
    case RL_GRANTED:
        return OK;
    case RL_LATE:
    case RL_NEVER:
        return E_RATE_LIMITED;
    case RL_TIMED_OUT:
        return E_DEADLINE;
    case RL_BUSY:
    case RL_TABLE_FULL:
        return E_OVERLOADED;
    case RL_CANCELLED:
        return E_CANCELLED;
    case RL_QUEUED:
    case RL_NO_RULE:
        break;
    }
    return E_INTERNAL;
}

/* "waiting for the limit mailbox_requests of outlook, about 12 s" */
static void say_waiting(struct call *c, const struct permit_wait *w, const struct permit_asked *p)
{
    ns_t left = w->waiter.expected_at == RL_FOREVER ? 0 : w->waiter.expected_at - loop_now();
    struct buf b = BUF_INIT(512);

    buf_add_z(&b, "waiting for ");
    p->name(p, w->waiter.expected_by, c, &b);
    if (left >= NS_PER_S)
        buf_addf(&b, ", about %lld s", (long long)((left + NS_PER_S - 1) / NS_PER_S));
    if (!b.overflow)
        c->front->say_waiting(c, buf_str(&b));
    buf_release(&b);
}

/* OK when the decision has come. Whoever asked for progress is told at once of a wait that is known to be long. */
static enum err await_decision(struct call *c, struct permit_wait *w, const struct permit_asked *p)
{
    bool heard = c->front->say_waiting && c->front->say_waiting(c, STR_NULL);
    ns_t tell = w->waiter.expected_at - loop_now() < TELL_AFTER ? loop_now() + TELL_AFTER : loop_now();
    enum err e;

    while ((e = await_wake(&w->wake, heard ? tell : NS_NEVER)) == E_TIMEOUT) {
        say_waiting(c, w, p);
        tell = loop_now() + TELL_EACH;
    }
    return e;
}

/* Queued: waits for the decision. A cancelled task leaves the queue, or gives back what it was granted meanwhile. */
static enum err await_granted(struct call *c, struct permit_wait *w, const struct permit_asked *p)
{
    struct rl *rl = c->worker->engine->limiter;
    enum err e = await_decision(c, w, p);

    if (!e)
        return permit_result(w->waiter.result);
    if (rl_cancel(rl, &w->waiter, loop_now()))
        return e;
    task_shield(+1);
    ASSERT(await_wake(&w->wake, NS_NEVER) == OK);
    task_shield(-1);
    if (w->waiter.result == RL_GRANTED)
        rl_return(rl, &w->waiter.permit, loop_now());
    return e;
}

/* It is not to be had as simply as that: perhaps by waiting. */
static NOINLINE enum err await_in_line(struct call *c, const struct permit_asked *p, ns_t deadline,
                                       struct rl_permit *ret, unsigned *ret_blocked, int64_t *ret_retry_at)
{
    struct rl *rl = c->worker->engine->limiter;
    /* queues are shared by tenants, then by their agents */
    struct permit_wait w = { .waiter = { .wake = permit_wake, .tenant = c->caller->tenant_hash,
                                         .agent = c->caller->agent_hash },
                             .mail.fn = permit_mail, .loop = loop_self() };
    enum rl_result r = rl_acquire(rl, &w.waiter, p->asks, p->n, deadline, loop_now());
    enum err e;

    if (r == RL_QUEUED) {
        metric_add(M_LIMIT_WAITING, 1);
        e = await_granted(c, &w, p);
        metric_add(M_LIMIT_WAITING, -1);
    } else {
        e = permit_result(r);
    }
    if (!e)
        *ret = w.waiter.permit;
    *ret_blocked = w.waiter.blocked;
    *ret_retry_at = w.waiter.retry_at;
    return e;
}

enum err await_permit(struct call *c, const struct permit_asked *p, ns_t deadline, struct rl_permit *ret,
                      unsigned *ret_blocked, int64_t *ret_retry_at)
{
    ns_t began = loop_now();
    enum err e = OK;

    if (!rl_try(c->worker->engine->limiter, ret, p->asks, p->n, began))
        e = await_in_line(c, p, deadline, ret, ret_blocked, ret_retry_at);
    metric_observe(M_QUEUE_SECONDS, loop_now() - began);
    return e;
}

/* ---- ADMIT ------------------------------------------------------------------------------------------------------- */

static enum err account_ready(struct call *c)
{
    const char *provider = c->tool->provider->decl->name;

    if (c->tool->provider->decl->no_account)
        return OK;
    if (c->account.id.len == 0)
        return call_why(c, E_ACCOUNT_MISSING,
                        "no %s account is connected for %.*s; connect one with: sluice connect %s", provider,
                        STR_ARG(c->caller->user), provider);
    if (c->account.status != ACCOUNT_CONNECTED)
        return call_why(c, E_RECONNECT_NEEDED, "the %s account of %.*s must be connected again: sluice connect %s",
                        provider, STR_ARG(c->caller->user), provider);
    return OK;
}

/* Scopes compare without case (Entra does); what was granted is one blank-separated text. */
static bool scope_granted(struct str granted, struct str want)
{
    struct str one, rest = granted;

    while (rest.len) {
        if (!str_cut(rest, ' ', &one, &rest)) {
            one = rest;
            rest = STR_NULL;
        }
        if (str_ieq(one, want))
            return true;
    }
    return false;
}

static enum err scopes_ready(struct call *c)
{
    const char *const *want = c->tool->decl->scopes;

    if (!want || c->account.id.len == 0 || c->account.scopes.len == 0)
        return OK;                  /* static tokens do not say what they may do: the provider will */
    for (; *want; want++)
        if (!scope_granted(c->account.scopes, str_of(*want)))
            return call_why(c, E_RECONNECT_NEEDED,
                            "the account was connected without the scope %s; connect it again to grant it", *want);
    return OK;
}

static void name_line(const struct permit_asked *p, unsigned i, struct call *c, struct buf *to)
{
    const struct budget_line *lines = p->of;

    budget_name(c, &lines[i], to);
}

/* Takes the permit of lines [from, from + n). */
static enum err await_lines(struct call *c, const struct budget_lines *l, unsigned from, unsigned n)
{
    const struct permit_asked asked = { l->asks + from, n, name_line, l->of + from };
    struct admission *a = c->admission;
    unsigned blocked;
    int64_t retry_at = 0;
    enum err e = await_permit(c, &asked, c->deadline, &a->held[a->n], &blocked, &retry_at);

    if (!e) {
        call_permit_left(c, TRAIL_BUDGETS, &a->held[a->n]);
        a->n++;
        return OK;
    }
    if (retry_at > loop_now() && retry_at != RL_FOREVER)
        c->retry_after_ms = (retry_at - loop_now()) / NS_PER_MS + 1;
    return (e == E_RATE_LIMITED || e == E_DEADLINE) && blocked < n ? budget_refused(c, e, &l->of[from + blocked]) : e;
}

/* Room for the permits that these lines of policies need, and one more. */
static enum err make_admission(struct call *c, const struct budget_lines *of_policy)
{
    size_t permits = (of_policy->n + RL_ASKS_MAX - 1) / RL_ASKS_MAX + 1;

    c->admission = arena_alloc(&c->arena, sizeof(*c->admission) + permits * sizeof(c->admission->held[0]));
    if (!c->admission)
        return E_CALL_TOO_LARGE;
    c->admission->n = 0;                /* permits are filled as they are had */
    return OK;
}

/* Policies' budgets are only rates, those of configuration may be places: they come last, so that nobody waits while
 * holding a place. */
static enum err await_budgets(struct call *c)
{
    struct budget_lines *lines = arena_alloc(&c->deciding, sizeof(*lines));
    enum err e;

    if (!lines)
        return E_CALL_TOO_LARGE;
    e = budgets_of_policy(c, lines);
    if (!e)
        e = make_admission(c, lines);
    for (unsigned at = 0; !e && at < lines->n; at += RL_ASKS_MAX)
        e = await_lines(c, lines, at, lines->n - at < RL_ASKS_MAX ? lines->n - at : RL_ASKS_MAX);
    if (e)
        return e;
    budgets_of_config(c, lines);
    return lines->n ? await_lines(c, lines, 0, lines->n) : OK;
}

/* Is there any budget that could count it? Mostly not. */
static bool budgets_any(const struct call *c)
{
    bool any = c->registry->budgets_any || c->tool->budget;

    for (unsigned i = 0; !any && i < c->n_sides; i++)
        any = c->sides[i].n_budgets > 0;
    return any;
}

/* Only calls that were admitted take room: those that are being refused would else keep others out. */
bool call_room(const struct worker *w)
{
    unsigned max = w->engine->opt.calls_max;

    return w->admitted < (max ? max : CALLS_DEFAULT);
}

enum err await_admit(struct call *c)
{
    enum err e;

    ASSERT(c->n_sides >= 2);
    e = account_ready(c);
    if (!e)
        e = scopes_ready(c);
    if (e)
        return e;
    if (!call_room(c->worker))
        return E_OVERLOADED;
    c->worker->admitted++;
    c->admitted = true;
    if (!budgets_any(c))
        return OK;
    e = await_budgets(c);
    if (e)
        call_unadmit(c);
    return e;
}

void call_permit_left(const struct call *c, enum caller_trail at, const struct rl_permit *p)
{
    enum { EACH = TRAIL_LIMITS - TRAIL_BUDGETS };

    for (uint32_t i = 0; i < p->n && i < EACH; i++)
        caller_left(c->caller, at + i, p->hold[i].key);
}

void call_unadmit_ahead(const struct call *c)
{
    for (unsigned i = 0; c->admission && i < c->admission->n; i++)
        rl_permit_ahead(&c->admission->held[i]);
}

void call_unadmit(struct call *c)
{
    struct rl *rl = c->worker->engine->limiter;

    for (unsigned i = 0; c->admission && i < c->admission->n; i++) {
        struct rl_permit *p = &c->admission->held[i];

        if (c->permitted)
            rl_release(rl, p, loop_now());
        else                            /* a repeat with its key, or a refusal: nothing was begun */
            rl_return(rl, p, loop_now());
    }
    c->admission = NULL;
}
