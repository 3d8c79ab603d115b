/*
 * call.c -- the life of a call
 *
 * await_call() is the one place a request passes through.  It goes through the steps of steps.def in order; each step
 * function opens with what must hold, and call_step() asserts that the step may follow the one before.  What the order
 * guarantees:
 *
 *   no upstream byte without a decision and an intent on record    (P1: RUN follows INTENT follows DECIDE)
 *   refusals are recorded like successes                           (P6: every way out leads through OUTCOME)
 *   nothing is said that is not on record                          (P9: REPLY follows OUTCOME)
 *
 * A cancelled call is cleaned up by ordinary returns; OUTCOME and REPLY run under a shield.
 *
 * The calls of one turn of the loop take a step together (await_step): all are checked, then all decided, and so on.
 * What a step needs is in the processor's caches then; what a whole call needs has no room there.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/ahead.h"
#include "base/log.h"
#include "base/metric.h"
#include "call/internal.h"

enum { RECONCILE_MS = 10000 };

/* ---- steps ------------------------------------------------------------------------------------------------------- */

#define AFTER(name) (1u << STEP_##name)

static const struct {
    const char *name, *truth;
    unsigned after;
} steps[STEP_COUNT] = {
    [STEP_NONE] = { "NONE", "nothing", 0 },
#define STEP(name, after, truth) [STEP_##name] = { #name, truth, after },
#include "call/steps.def"
#undef STEP
};

const char *step_name(enum step s)      { return steps[s].name; }
const char *step_truth(enum step s)     { return steps[s].truth; }

static unsigned step_metric[STEP_COUNT];

/*
 * Steps are measured by the clock itself, for most begin and end within one turn of the loop; but reading it twice for
 * each of a call's steps is 3 per cent of what a call takes outside the kernel.  So of a worker's calls of one second
 * the first ones are measured, and some of the others.
 */
enum { MEASURED_ALL = 1000, MEASURED_ONE_OF = 16 };

static bool is_measured(struct worker *w)
{
    ns_t second = loop_now() / NS_PER_S;

    if (w->measured.second != second) {
        w->measured.second = second;
        w->measured.calls = 0;
    }
    w->measured.calls++;
    return w->measured.calls <= MEASURED_ALL || w->measured.calls % MEASURED_ONE_OF == 0;
}

static void step_measure(struct call *c, enum step ended)
{
    ns_t began = c->since;

    c->since = loop_clock();
    if (ended != STEP_NONE)
        metric_observe_at(M_STEP_SECONDS, step_metric[ended], c->since - began);
}

static void call_step(struct call *c, enum step next)
{
    enum step ended = c->step;

    MAGIC_CHECK(c, CALL_MAGIC);
    ASSERT(steps[next].after & (1u << ended));
    c->step = next;
    task_doing(steps[next].name);
    if (c->measured)
        step_measure(c, ended);
}

/* The same, together with the other calls of this turn that come to it. Standing in line is no part of a step. */
static void await_step(struct call *c, enum step next)
{
    call_step(c, next);
    if (await_stage((unsigned)next) && c->measured)
        c->since = loop_clock();
}

/* Labels are interned once; two workers doing it at the same time get the same slots. */
static void metrics_name_steps(void)
{
    static atomic_bool named;

    if (atomic_load(&named))
        return;
    for (int s = STEP_DECODE; s < STEP_COUNT; s++)
        step_metric[s] = metric_label(M_STEP_SECONDS, str_of(steps[s].name));
    atomic_store(&named, true);
}

struct errinfo *call_info(struct call *c)
{
    if (!c->why)
        c->why = calloc(1, sizeof(*c->why));
    ASSERT(c->why != NULL);
    return c->why;
}

const char *call_said(const struct call *c)
{
    return c->why ? c->why->text : "";
}

void call_unsay(struct call *c)
{
    free(c->why);
    c->why = NULL;
}

enum err (call_why)(struct call *c, enum err e, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(call_info(c)->text, sizeof(c->why->text), fmt, ap);
    va_end(ap);
    return e;
}

/* ---- workers ----------------------------------------------------------------------------------------------------- */

static _Thread_local struct worker *worker_current;

struct worker *worker_self(void)
{
    ASSERT(worker_current != NULL);
    return worker_current;
}

void worker_enter(struct worker *w)
{
    worker_current = w;
}

/* ---- what does not wait ------------------------------------------------------------------------------------------ */

struct at_once {
    struct call *c;
    enum err (*fn)(struct call *c);
    enum err err;
};

static void at_once_deep(void *arg)
{
    struct at_once *o = arg;

    o->err = o->fn(o->c);
}

/* On the loop's stack: what such a step touches of its task's own would stay with the call while it waits. */
static enum err at_once(struct call *c, enum err (*fn)(struct call *c))
{
    struct at_once o = { c, fn, OK };

    task_deep(at_once_deep, &o);
    return o.err;
}

/* ---- the steps of a tool call ------------------------------------------------------------------------------------ */

/* From here on the deadline is the tool's, or the client's if that is earlier: budgets are waited for under it too. */
static enum err resolve(struct call *c)
{
    int64_t timeout;

    ASSERT(c->caller != NULL && c->kind == CALL_TOOL);
    c->tool = c->named ? c->named : registry_tool(c->registry, c->tool_name);
    if (!c->tool)
        return call_why(c, E_TOOL_UNKNOWN, "unknown tool: %.*s",
                        STR_ARG(c->tool_name.len > 100 ? str_n(c->tool_name.p, 100) : c->tool_name));
    timeout = c->tool->decl->timeout_ms_max ? c->tool->decl->timeout_ms_max : CALL_TIMEOUT_MS;
    if (c->timeout_ms && c->timeout_ms < timeout)
        timeout = c->timeout_ms;
    c->deadline = c->began + timeout * NS_PER_MS;
    return OK;
}

static enum err approve(struct call *c)
{
    for (unsigned i = 0; i < c->n_sides; i++) {
        const struct policy_decision *d = &c->sides[i];

        ASSERT(d->effect != POLICY_DENY);
        if (d->effect == POLICY_NEEDS_APPROVAL)
            return call_why(c, E_APPROVAL_NEEDED, "policy asks for the approval of %.*s before this may happen",
                            STR_ARG(d->n_roles && d->roles[0].len ? d->roles[0] : STR("a person")));
    }
    return OK;
}

/* The outcome is unknown: looks whether the effect happened, where the connector can. Looking must not make things
 * worse: what it said on the way is forgotten, and a look that ran out of memory has seen nothing. */
static NOINLINE enum err await_reconcile(struct call *c, enum err unknown)
{
    enum settled settled = SETTLED_UNKNOWN;
    struct errinfo why = *call_info(c);

    if (!c->tool->decl->reconcile || task_cancelled() || arena_overflowed(&c->arena))
        return unknown;
    c->in_reconcile = true;
    c->deadline = loop_now() + RECONCILE_MS * NS_PER_MS;    /* the call's own may be what ran out */
    settled = c->tool->decl->reconcile(c);
    c->in_reconcile = false;
    *call_info(c) = why;
    c->retry_after_ms = 0;
    if (settled == SETTLED_UNKNOWN || arena_overflowed(&c->arena))
        return unknown;
    if (settled == SETTLED_DONE) {
        c->effects_done = c->effects_sent;
        return OK;
    }
    c->effects_sent = c->effects_done;      /* what was in doubt did not happen */
    return call_why(c, E_UPSTREAM_REFUSED, "it was looked into: it did not happen");
}

/* The declared result is a promise to clients and policies: a body that breaks it is not passed on. */
static enum err await_run(struct call *c)
{
    enum err e;

    ASSERT(c->intended && c->permitted);
    c->run_from = arena_mark(&c->arena);
    e = c->tool->decl->run(c);
    if (!e && arena_overflowed(&c->arena))
        e = c->effects_sent
                ? call_why(c, E_OUTCOME_UNKNOWN, "the call ran out of memory after it had begun to change things")
                : E_CALL_TOO_LARGE;
    if (e && e != E_CONNECTOR_FAULT && err_row(e)->outcome == OUTCOME_UNKNOWN && c->effects_sent > c->effects_done)
        e = await_reconcile(c, e);
    if (e)
        return e;
    await_stage(STAGE_RESULT);
    return at_once(c, call_check_result);
}

/* What the journal and the client are told: an error's own outcome, unless more is known. */
static enum outcome outcome_of(const struct call *c)
{
    enum outcome o = c->err ? err_row(c->err)->outcome : OUTCOME_DONE;

    ASSERT(o != OUTCOME_NONE);
    if (c->replayed)
        return c->replayed;             /* also where its result is lost: that is no reason to make the call again */
    if (!c->err || c->kind != CALL_TOOL)
        return o == OUTCOME_UNKNOWN ? OUTCOME_REFUSED : o;
    if (c->effects_done > 0 || (c->effects_sent > 0 && o == OUTCOME_REFUSED))
        return OUTCOME_UNKNOWN;         /* a part of it happened, or may have */
    if (o == OUTCOME_UNKNOWN && c->effects_sent == 0)
        return c->exchanges ? OUTCOME_FAILED : OUTCOME_REFUSED;
    return o;
}

/* An error of a single operation is no end of a call; a body or a damaged file may bring one. */
static enum err end_of_call(const struct call *c)
{
    if (!c->err || err_row(c->err)->outcome != OUTCOME_NONE)
        return c->err;
    LOG_ERROR("an internal error reached the end of a call", LOG_S("call", c->id.z), LOG_S("error", err_name(c->err)),
              LOG_S("step", step_name(c->step)), LOG_S("why", call_said(c)));
    return c->effects_sent ? E_OUTCOME_UNKNOWN : E_INTERNAL;
}

/* Whoever reads the answer acts on its error, and a model reads its text: when the outcome is unknown that is what both
 * say, without a hint to repeat. */
static NOINLINE void say_unknown(struct call *c)
{
    struct errinfo detail = *call_info(c);

    if (err_row(c->err)->outcome == OUTCOME_UNKNOWN) {
        call_why(c, c->err, "it may have happened; do not repeat it before looking: %.200s",
                 detail.text[0] ? detail.text : err_text(c->err));
        return;
    }
    c->err = E_OUTCOME_UNKNOWN;
    c->retry_after_ms = 0;
    call_why(c, c->err, "a part of it happened, or may have; do not repeat it before looking: %.200s", detail.text);
}

/* For sealing: a lookup, but for a tenant's first call. */
static enum err await_keys(struct call *c)
{
    struct vault *vault = c->worker->engine->vault;
    const struct caller *w = c->caller;
    enum err e;

    c->keys = vault_keys_loaded(vault, w->tenant, w->tenant_hash);
    caller_left(w, TRAIL_KEYS, c->keys);
    if (c->keys)
        return OK;
    e = await_vault_keys(vault, w->tenant, w->tenant_hash, &c->keys, call_info(c));
    if (!e || err_row(e)->outcome != OUTCOME_NONE)
        return e;
    LOG_ERROR("a tenant's key cannot be opened", LOG_SV("tenant", c->caller->tenant), LOG_S("why", call_said(c)));
    return call_why(c, E_STORE_UNAVAILABLE, "this tenant's key cannot be opened; the operator's log says more");
}

/* RESOLVE to RUN. */
static enum err await_tool_call(struct call *c)
{
    bool replay = false;
    enum err e;

    call_step(c, STEP_RESOLVE);
    e = resolve(c);
    if (!e)
        e = await_journal_turn(c->worker->lane, c->deadline);   /* before it has the memory that deciding takes */
    if (e)
        return e;
    await_step(c, STEP_CHECK);
    e = await_keys(c);
    if (!e)
        e = at_once(c, call_check);
    if (e)
        return e;
    await_step(c, STEP_DECIDE);
    e = at_once(c, call_decide);
    if (e)
        return e;
    call_step(c, STEP_APPROVE);
    e = approve(c);
    if (e)
        return e;
    await_step(c, STEP_ADMIT);
    e = await_admit(c);
    if (e)
        return e;
    await_step(c, STEP_INTENT);
    e = await_intent(c, &replay);
    if (e || replay)
        return e;
    await_step(c, STEP_RUN);
    return await_run(c);
}

/* Calls that write or destroy; of a tool that is not known there is nothing to save. */
static bool is_dear(const struct call *c)
{
    const struct tool *t = c->kind == CALL_TOOL ? registry_tool(c->registry, c->tool_name) : NULL;

    return t && t->decl->effect != EFFECT_READS;
}

/* A worker that has more to do than it can, or as many calls under way as it may: said before this call costs more than
 * reading it did. */
static enum err overloaded(struct call *c)
{
    struct overload *o = &c->worker->overload;
    bool dear = o->overloaded && is_dear(c);
    ns_t now = loop_clock();
    bool in_time = overload_admits(o, c->caller->tenant_hash, dear, lag_look(&c->worker->lag, now), now);
    static metric_slot_t slots[2];

    if (in_time && (c->kind != CALL_TOOL || call_room(c->worker)))
        return OK;
    if (!metric_slot_known(&slots[dear]))
        metric_slot_ask(&slots[dear], M_PUT_OFF_TOTAL, dear ? STR("writes") : STR("reads"));
    metric_add_at(M_PUT_OFF_TOTAL, metric_slot(&slots[dear]), 1);
    c->put_off = true;
    c->retry_after_ms = overload_retry(o) / NS_PER_MS;
    return call_why(c, E_OVERLOADED, "the engine has more to do than it can: nothing was done for this call; ask again "
                    "after %lld ms", (long long)c->retry_after_ms);
}

static enum err await_steps(struct call *c)
{
    enum err e;

    await_step(c, STEP_DECODE);
    e = at_once(c, c->front->decode);
    if (e)
        return e;
    await_step(c, STEP_IDENTIFY);
    e = c->front->await_identify(c);
    if (e)
        return e;
    ASSERT(c->caller != NULL);
    if (c->worker->draining)
        return E_DRAINING;
    caller_ahead(c->caller);
    e = overloaded(c);
    if (e)
        return e;
    if (c->kind == CALL_TOOL)
        return await_tool_call(c);
    e = await_keys(c);
    if (e)
        return e;
    call_step(c, STEP_ANSWER);
    c->answering = true;
    return c->front->await_answer(c);
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

static void count_first(const struct call *c, metric_slot_t *slot)
{
    struct buf label = BUF_INIT(256);

    buf_add_str(&label, c->tool->name);
    buf_add_c(&label, ':');
    buf_add_z(&label, outcome_name(c->outcome));
    metric_slot_ask(slot, M_CALLS_TOTAL, buf_str(&label));
    buf_release(&label);
}

static void count(const struct call *c)
{
    static metric_slot_t errors[ERR_COUNT];

    if (c->err) {
        if (!metric_slot_known(&errors[c->err]))
            metric_slot_ask(&errors[c->err], M_CALL_ERRORS_TOTAL, str_of(err_name(c->err)));
        metric_add_at(M_CALL_ERRORS_TOTAL, metric_slot(&errors[c->err]), 1);
    }
    if (c->tool) {
        metric_slot_t *slot = &c->tool->counted[c->outcome];

        if (!metric_slot_known(slot))
            count_first(c, slot);
        metric_add_at(M_CALLS_TOTAL, metric_slot(slot), 1);
    }
}

/* What happened cannot be proved any more. That nothing was sent may be said; anything else is unknown to whoever
 * asks. */
static void say_unrecorded(struct call *c)
{
    LOG_ERROR("an outcome could not be recorded", LOG_S("call", c->id.z), LOG_S("outcome", outcome_name(c->outcome)));
    c->structured = c->content = NULL;
    if (c->effects_sent == 0) {
        c->err = E_JOURNAL_UNWRITABLE;
        call_unsay(c);
        return;
    }
    c->retry_after_ms = 0;
    call_why(c, E_OUTCOME_UNKNOWN,
             c->outcome == OUTCOME_DONE
                 ? "it happened, but that could not be recorded; do not repeat it"
                 : "it may have happened, and what came of it could not be recorded; do not repeat it before looking");
    c->err = E_OUTCOME_UNKNOWN;
    c->outcome = OUTCOME_UNKNOWN;
}

static enum err word(struct call *c)
{
    if (c->kind == CALL_TOOL && c->front->word)
        c->front->word(c);
    return OK;
}

/* Waiting for the disk is a long part of a call. What is done with goes before it: places that another call could have,
 * and the result, put in words while it is in the processor's caches. */
static void let_go(struct call *c)
{
    call_unadmit(c);
    vault_account_release(&c->account);
    at_once(c, word);
    if (c->err || c->once || !c->front->word || !c->run_from.chunk)
        return;
    c->structured = c->content = NULL;
    arena_rewind(&c->arena, c->run_from);
}

/* The outcome goes on record; if it cannot, that is what the client is told: nothing is said that is not recorded. */
static void await_outcome(struct call *c)
{
    struct str sealed = STR_NULL;
    enum err e, settled;
    uint64_t seq;

    ASSERT(c->step == STEP_OUTCOME);
    c->err = end_of_call(c);
    c->outcome = outcome_of(c);
    if (c->outcome == OUTCOME_UNKNOWN && c->err && c->err != E_OUTCOME_UNKNOWN)
        say_unknown(c);
    if (c->once && (c->outcome == OUTCOME_DONE || c->outcome == OUTCOME_UNKNOWN))
        sealed = call_seal_result(c);
    settled = c->err;
    e = call_record_outcome(c, &seq);
    if (!e && seq) {
        let_go(c);
        e = await_journal_commit(c->worker->lane, seq, NS_NEVER);
        if (c->caller)
            ahead(c->caller, 1);        /* its count, at the call's end */
    }
    if (c->once) {
        once_settle(c->worker->engine->once, c->once, c->outcome, settled, sealed);
        c->once = NULL;
    }
    if (e) {
        say_unrecorded(c);
        at_once(c, word);
    }
}

static void call_release(struct call *c)
{
    ASSERT(c->once == NULL);
    journal_unreserve(c->worker->lane, &c->room);
    call_unadmit(c);
    vault_account_release(&c->account);
    caller_release(c->caller);
    registry_leave(c->held);
    arena_release(&c->arena);
    arena_release(&c->deciding);
    free(c->why);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    c->worker->calls--;
    c->worker->admitted -= c->admitted;
    metric_add(M_CALLS_IN_FLIGHT, -1);
    c->magic = 0;
    free(c);
}

void await_call(struct worker *w, const struct call_front *front, void *front_data, const char *peer, size_t bytes_in)
{
    struct call *c = malloc(sizeof(*c));
    bool cut;

    ASSERT(c != NULL && w == worker_self());
    metrics_name_steps();
    *c = (struct call){ .magic = CALL_MAGIC, .id = id_new("call"), .worker = w, .held = registry_join(w->held),
                        .task = task_self(), .front = front, .front_data = front_data, .began = loop_now(),
                        .began_wall = loop_wall_ms(), .bytes_in = bytes_in, .measured = is_measured(w) };
    c->registry = c->held->registry;
    c->peer = peer;
    memcpy(c->key_text, c->id.z + strlen("call_"), strlen(c->id.z) - strlen("call_"));
    c->deadline = c->began + CALL_TIMEOUT_MS * NS_PER_MS;
    arena_init(&c->arena, CALL_ARENA_MAX);
    arena_init(&c->deciding, CALL_ARENA_MAX);
    w->calls++;
    c->next = w->first_call;
    if (c->next)
        c->next->prev = &c->next;
    c->prev = &w->first_call;
    w->first_call = c;
    metric_add(M_CALLS_IN_FLIGHT, 1);

    c->err = await_steps(c);

    task_shield(+1);
    if (c->put_off)
        call_step(c, STEP_OUTCOME);     /* who is refused for want of time does not stand in line for that */
    else
        await_step(c, STEP_OUTCOME);
    await_outcome(c);
    count(c);
    call_unadmit(c);            /* a client that is slow to read keeps no place that another call could have */
    call_step(c, STEP_REPLY);
    cut = c->cut;
    if (!cut)
        task_shield(-1);        /* a client that has gone away ends the wait for it: that is what cancellation is for */
    front->await_reply(c);
    if (cut)
        task_shield(-1);
    if (c->measured)
        step_measure(c, STEP_REPLY);
    call_release(c);
}

void calls_cut(struct worker *w)
{
    for (struct call *c = w->first_call; c; c = c->next) {
        if (c->cut || c->step >= STEP_OUTCOME)
            continue;
        c->cut = true;
        task_cancel(c->task);
    }
}
