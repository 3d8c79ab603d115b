/*
 * clients.c -- simulated clients: what they want, how they ask for it, what they hear
 *
 * Each operation has a tenant, a user, an agent, a tool and sometimes a key; its attempts go through await_call() with
 * a front of our own, on tasks of their own.  A client that gets no answer, or one that says "nothing happened, later",
 * asks again with the same key; without a key it never asks twice.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "identity/identity.h"
#include "sim.h"
#include "simworld.h"
#include "upstream.h"

const char *const sim_providers[2] = { "sim", "outlook" };
const char *const sim_tenants[2] = { "acme", "beta" }, *const sim_users[3] = { "alice", "bob", "carol" };
static const char *const agents[] = { "helper", "helper", "helper", "writer", "rogue", "clerk" };
static unsigned running;

static unsigned here(void)
{
    return worker_self()->id;
}

/* ---- what policy will say: by hand, not by the engine ------------------------------------------------------------ */

static bool tool_reads(const char *tool)
{
    return strcmp(tool, "sim.look") == 0 || strcmp(tool, "outlook.list_mail") == 0 ||
           strcmp(tool, "outlook.search_mail") == 0 || strcmp(tool, "outlook.find_free_slot") == 0;
}

enum expectation clients_expect(const char *tenant, const char *user, const char *agent, const char *tool,
                                const char *subject)
{
    bool reads = tool_reads(tool), wipes = strcmp(tool, "sim.wipe") == 0;

    if ((strcmp(agent, "rogue") == 0 && !reads) || strcmp(subject, "secret") == 0)
        return EXPECT_DENY;
    if (strcmp(user, "carol") == 0 && wipes)
        return EXPECT_DENY;
    if (strcmp(tenant, "beta") == 0 && strcmp(tool, "sim.pair") == 0)
        return EXPECT_DENY;
    if (strcmp(agent, "clerk") == 0 && !reads)
        return wipes ? EXPECT_DENY : EXPECT_APPROVAL;
    return EXPECT_ALLOW;
}

/* The agent's side and that of the one behind it: what is strictest holds. */
static enum expectation chain_expect(const struct errand *o)
{
    enum expectation own = clients_expect(o->tenant, o->user, o->agent, o->tool, o->subject), other = EXPECT_ALLOW;

    if (o->behind)
        other = clients_expect(o->tenant, o->user, o->behind, o->tool, o->subject);
    if (own == EXPECT_DENY || other == EXPECT_DENY)
        return EXPECT_DENY;
    return own == EXPECT_APPROVAL || other == EXPECT_APPROVAL ? EXPECT_APPROVAL : EXPECT_ALLOW;
}

static const char policy[] =
    "@id(\"all\") permit (principal, action, resource) unless { principal == Agent::\"clerk\" };\n"
    "@id(\"clerk-reads\") permit (principal == Agent::\"clerk\", action in Action::\"reads\", resource);\n"
    "@id(\"clerk-writes\") @approval(\"finance\") permit (principal == Agent::\"clerk\", action in Action::\"writes\", "
    "resource);\n"
    "@id(\"rogue\") forbid (principal == Agent::\"rogue\", action, resource) unless { action in Action::\"reads\" };\n"
    "@id(\"carol\") forbid (principal == User::\"carol\", action == Action::\"sim.wipe\", resource);\n"
    "@id(\"beta\") forbid (principal in Tenant::\"beta\", action == Action::\"sim.pair\", resource);\n"
    "@id(\"secret\") forbid (principal, action, resource)"
    " when { context.args has subject && context.args.subject == \"secret\" };\n";

/* ---- operations -------------------------------------------------------------------------------------------------- */

static const char *pick_tool(struct dice *d)
{
    static const char *const tools[] = { "sim.look",
                                         "sim.look",
                                         "sim.post",
                                         "sim.post",
                                         "sim.post",
                                         "sim.pair",
                                         "sim.safe",
                                         "sim.safe",
                                         "sim.wipe",
                                         "outlook.list_mail",
                                         "outlook.send_mail",
                                         "outlook.send_mail",
                                         "outlook.find_free_slot",
                                         "outlook.book_meeting",
                                         "outlook.book_meeting" };

    return tools[dice_below(d, ARRAY_LEN(tools))];
}

/* May policy look at a subject that is just "secret"? */
static bool takes_subject(const char *tool)
{
    return strncmp(tool, "sim.", 4) == 0;
}

static enum quirk pick_quirk(struct dice *d)
{
    return dice_permille(d, 80) ? (enum quirk)dice_between(d, QUIRK_MALFORMED, QUIRK_LIST) : QUIRK_NONE;
}

static void op_draw(struct errand *o, unsigned i, unsigned cancels, ns_t horizon)
{
    struct dice *d = &sim.dice;

    *o = (struct errand){ .number = 1000 + i,
                          .tenant = sim_tenants[dice_below(d, 2)],
                          .user = sim_users[dice_below(d, 3)],
                          .agent = agents[dice_below(d, ARRAY_LEN(agents))],
                          .tool = pick_tool(d),
                          .quirk = pick_quirk(d),
                          .copies = 1 };
    if (dice_permille(d, 100))
        o->behind = agents[dice_below(d, ARRAY_LEN(agents))];
    o->subject = takes_subject(o->tool) && dice_permille(d, 40) ? "secret" : "plain";
    if (dice_permille(d, 650)) {
        /* neighbours share a key's text: it must mean something else for another tenant, user, agent or tool */
        snprintf(o->key, sizeof(o->key), "key-%u", i / 2);
        if (i % 2 && strcmp(sim.ops[i - 1].key, o->key) == 0 && strcmp(sim.ops[i - 1].tenant, o->tenant) == 0)
            o->tenant = sim_tenants[o->tenant == sim_tenants[0]];
        if (dice_permille(d, 250))
            o->copies = (unsigned)dice_between(d, 2, 4);
    }
    if (i > 0 && dice_permille(d, 40)) { /* the same key for something else */
        const struct errand *other = &sim.ops[dice_below(d, i)];

        o->tenant = other->tenant;
        o->user = other->user;
        o->agent = other->agent;
        o->tool = other->tool;
        o->subject = other->subject;
        memcpy(o->key, other->key, sizeof(o->key));
        o->copies = o->key[0] ? o->copies : 1;
    }
    o->expect = chain_expect(o);
    o->start = dice_permille(d, 300) ? dice_between(d, 0, 3) * (horizon / 4) : dice_between(d, 0, horizon);
    if (dice_permille(d, cancels))
        o->cancel_after = dice_scale(d, 50000, 5 * NS_PER_S);
    if (dice_permille(d, 150))
        o->timeout_ms = dice_scale(d, 100, 8000);
}

void clients_plan(void)
{
    unsigned cancels = dice_mood(&sim.dice);
    ns_t horizon = dice_scale(&sim.dice, NS_PER_S, 60 * NS_PER_S);

    memset(sim.ops, 0, sizeof(sim.ops));
    sim.policy = policy;
    sim.n_ops = (unsigned)dice_scale(&sim.dice, 10, SIM_OPS_MAX - 10);
    for (unsigned i = 0; i < sim.n_ops; i++)
        op_draw(&sim.ops[i], i, cancels, horizon);
}

/* ---- who is on this task ----------------------------------------------------------------------------------------- */

static struct attempt *attempt_here(void)
{
    struct task *t = task_self();

    for (unsigned i = 0; i < sim.n_ops; i++)
        for (unsigned k = 0; k < sim.ops[i].n_attempts; k++) {
            struct attempt *a = &sim.ops[i].attempts[k];

            if (a->began && !a->ended && a->task.task == t)
                return a;
        }
    return NULL;
}

const char *sim_call_here(void)
{
    struct attempt *a = attempt_here();

    return a ? a->call : "";
}

struct sim_who sim_who_here(void)
{
    struct attempt *a = attempt_here();

    return a ? (struct sim_who){ str_of(a->op->tenant), str_of(a->op->user) } : (struct sim_who){ STR_NULL, STR_NULL };
}

/* ---- the front --------------------------------------------------------------------------------------------------- */

/* Every fourth mail is long: twice on record, it takes more than the journal's room for a call. */
static struct str mail_body(const struct errand *o)
{
    static char words[9000];

    memset(words, 'w', sizeof(words));
    return str_n(words, o->number % 4 ? 5 : sizeof(words));
}

static void arguments(struct call *c, const struct errand *o)
{
    struct json *list = json_array(&c->arena);
    char subject[80];

    json_push(&c->arena, list, json_string_z(&c->arena, "dave@sim.example"));
    snprintf(subject, sizeof(subject), "op %lld", (long long)o->number);
    if (takes_subject(o->tool)) {
        json_set_int(&c->arena, c->args, "op", o->number);
        json_set_z(&c->arena, c->args, "subject", o->subject);
    } else if (strcmp(o->tool, "outlook.send_mail") == 0) {
        json_set(&c->arena, c->args, "to", list);
        json_set_z(&c->arena, c->args, "subject", subject);
        json_set_str(&c->arena, c->args, "body", mail_body(o));
    } else if (strcmp(o->tool, "outlook.list_mail") != 0) {
        json_set(&c->arena, c->args, "attendees", list);
        json_set_int(&c->arena, c->args, "minutes", 30);
        if (strcmp(o->tool, "outlook.book_meeting") == 0)
            json_set_z(&c->arena, c->args, "subject", subject);
    }
}

static enum err front_decode(struct call *c)
{
    struct attempt *a = c->front_data;
    struct errand *o = a->op;

    snprintf(a->call, sizeof(a->call), "%s", c->id.z);
    c->method = o->quirk == QUIRK_LIST ? STR("tools/list") : STR("tools/call");
    if (o->quirk == QUIRK_MALFORMED)
        return call_why(c, E_JSON_MALFORMED, "not JSON");
    c->kind = o->quirk == QUIRK_LIST ? CALL_OTHER : CALL_TOOL;
    c->tool_name = str_of(o->quirk == QUIRK_TOOL ? "sim.none" : o->tool);
    c->key = str_of(o->key);
    c->timeout_ms = o->timeout_ms;
    c->args = json_object(&c->arena);
    if (o->quirk == QUIRK_ARGS)
        json_set_int(&c->arena, c->args, "op", -1);
    else
        arguments(c, o);
    return OK;
}

static void mint(const struct attempt *a, struct buf *out)
{
    const struct errand *o = a->op;
    struct str chain = str_of(o->behind);
    struct identity_mint m = { .tenant = str_of(o->tenant),
                               .user = str_of(o->user),
                               .agent = str_of(o->agent),
                               .audience = STR(SIM_AUDIENCE),
                               .chain = &chain,
                               .n_chain = o->behind ? 1 : 0,
                               .now = loop_wall_ms(),
                               .ttl = 600 * NS_PER_S };
    struct errinfo info = { "" };

    if (o->quirk == QUIRK_TOKEN)
        m.now -= 3600 * 1000;
    buf_add_z(out, "Bearer ");
    if (identity_mint(sim.local, &m, out, &info))
        sim_violation("no token could be made: %s", info.text);
}

static enum err front_identify(struct call *c)
{
    struct buf text = BUF_INIT(8192);
    enum err e;

    mint(c->front_data, &text);
    e = await_identify(sim.engine.identity, buf_str(&text), &c->caller, call_info(c));
    buf_release(&text);
    return e;
}

/* tools/list: whoever may use a tool must find it there. */
static enum err front_answer(struct call *c)
{
    const struct errand *o = ((struct attempt *)c->front_data)->op;

    for (size_t i = 0; i < c->registry->n_tools; i++) {
        const struct tool *t = &c->registry->tools[i];
        bool shown = call_could_allow(c, t);

        if (!shown && clients_expect(o->tenant, o->user, o->agent, t->decl->name, "plain") == EXPECT_ALLOW &&
            !o->behind)
            sim_violation("%s is not shown to %s for %s/%s, who may use it", t->decl->name, o->agent, o->tenant,
                          o->user);
    }
    c->answer = json_object(&c->arena);
    return OK;
}

static bool secret_in(const struct json *j)
{
    struct buf b = BUF_INIT(1 << 20);
    bool found;

    if (!j)
        return false;
    json_write(&b, j);
    found = memmem(b.p, b.len, UPSTREAM_ACCESS, strlen(UPSTREAM_ACCESS)) ||
            memmem(b.p, b.len, UPSTREAM_REFRESH, strlen(UPSTREAM_REFRESH)) ||
            memmem(b.p, b.len, UPSTREAM_SECRET, strlen(UPSTREAM_SECRET));
    buf_release(&b);
    return found;
}

static void front_word(struct call *c)
{
    struct attempt *a = c->front_data;

    a->worded = true;
    a->outcome = c->outcome;
    a->err = c->err;
    snprintf(a->owner, sizeof(a->owner), "%.*s", STR_ARG(json_str(json_get(c->structured, "owner"))));
    if (secret_in(c->structured) || secret_in(c->content) || strstr(call_said(c), UPSTREAM_ACCESS) ||
        strstr(call_said(c), UPSTREAM_REFRESH))
        sim_violation("a token was in the reply of %s", a->call);
}

static void front_reply(struct call *c)
{
    struct attempt *a = c->front_data;
    const struct errand *o = a->op;

    if (!a->worded)
        front_word(c);
    else if (a->outcome != c->outcome || a->err != c->err)
        sim_violation("what was said of %s is not what came of it: %s", a->call, err_name(c->err));
    a->replayed = c->replayed;
    snprintf(a->key, sizeof(a->key), "%s", c->key_text);
    a->acked = !simworld_dead();
    a->early = a->acked && sim.engine.opt.answer_reads_early && c->intended && tool_reads(o->tool);
    if (a->early && !c->err && c->began > simworld_hangs_since())
        sim.told_early++;
    sim.heard[c->err] += a->acked;
    sim_trace("%s op=%lld %s %s/%s/%s key=%s -> %s %s%s%s", c->id.z, (long long)o->number, o->tool, o->tenant, o->user,
              o->agent, o->key, outcome_name(c->outcome), c->err ? err_name(c->err) : "ok",
              c->replayed ? " replayed" : "", a->acked ? "" : " (nobody heard)");
}

static const struct call_front front = { .transport = "test",
                                         .decode = front_decode,
                                         .await_identify = front_identify,
                                         .await_answer = front_answer,
                                         .word = front_word,
                                         .await_reply = front_reply };

/* ---- attempts ---------------------------------------------------------------------------------------------------- */

static void errand_fire(struct timer *t);

static void errand_later(struct errand *o, ns_t wait)
{
    if (sim.stopping)
        return;
    o->timers[here()].errand = o;
    timer_set(&o->timers[here()].timer, loop_now() + wait, errand_fire);
}

static bool errand_waits(const struct errand *o)
{
    for (unsigned i = 0; i < SIM_WORKERS_MAX; i++)
        if (timer_is_set(&o->timers[i].timer))
            return true;
    return false;
}

/* Nothing happened, says the engine, and later it may be otherwise. */
static bool worth_retrying(const struct attempt *a)
{
    enum err_class class = err_row(a->err)->class;

    if (a->outcome == OUTCOME_UNKNOWN && a->err != E_JOURNAL_UNWRITABLE)
        return false;
    return a->err == E_CANCELLED || a->err == E_RECONNECT_NEEDED || a->err == E_ACCOUNT_MISSING ||
           class == ERR_CAPACITY || class == ERR_UPSTREAM || class == ERR_US;
}

static void reconnect_task(void *arg)
{
    struct errand *o = arg;

    const char *provider = strncmp(o->tool, "sim.", 4) == 0 ? "sim" : "outlook";

    sim_trace("reconnect %s/%s to %s: %s", o->tenant, o->user, provider,
              err_name(await_connect(provider, o->tenant, o->user)));
    running--;
}

/* What the client does about the end of an attempt. */
static void errand_think(struct errand *o, const struct attempt *a)
{
    ns_t wait = NS_PER_MS * 200 << (o->retries < 9 ? o->retries : 9);

    if (!a->acked || o->settled)
        return;
    if ((a->err == E_RECONNECT_NEEDED || a->err == E_ACCOUNT_MISSING) && (sim.calm || dice_permille(&sim.dice, 500)) &&
        task_spawn("reconnect", reconnect_task, o))
        running++;
    if (o->quirk || o->expect != EXPECT_ALLOW || !o->key[0] || !a->err || !worth_retrying(a)) {
        o->settled = o->running == 0 && !errand_waits(o);
        return;
    }
    if (o->running > 0 || errand_waits(o))
        return;
    if (o->n_attempts == SIM_ATTEMPTS_MAX || (!sim.calm && o->retries >= 5)) {
        o->settled = true;
        return;
    }
    o->retries++;
    o->copies = 1;
    o->cancel_after = 0;
    errand_later(o, wait + dice_between(&sim.dice, 0, wait));
}

static void attempt_main(void *arg)
{
    struct attempt *a = arg;

    await_call(worker_self(), &front, a, "client", 100);
    a->ended = true;
    a->at = loop_now();
    timer_clear(&a->cancel);
    a->op->running--;
    running--;
    sim.calls++;
    errand_think(a->op, a);
}

static void attempt_cancel(struct timer *t)
{
    struct attempt *a = CONTAINER_OF(t, struct attempt, cancel);
    struct task *task = task_deref(a->task);

    if (task && !a->ended) {
        a->cancelled = true;
        task_cancel(task);
    }
}

static void attempt_begin(struct errand *o)
{
    struct attempt *a = &o->attempts[o->n_attempts];
    struct task *t = task_spawn("client", attempt_main, a);

    ASSERT(o->n_attempts < SIM_ATTEMPTS_MAX);
    if (!t) {
        sim_violation("no room for a task");
        return;
    }
    o->n_attempts++;
    *a = (struct attempt){ .op = o, .life = sim.life, .worker = here(), .task = task_ref(t), .began = true };
    if (o->cancel_after)
        timer_set(&a->cancel, loop_now() + o->cancel_after + dice_between(&sim.dice, 0, o->cancel_after),
                  attempt_cancel);
    o->running++;
    running++;
}

/* Copies are spread over the workers. */
static void errand_fire(struct timer *t)
{
    struct errand *o = CONTAINER_OF(t, struct errand_timer, timer)->errand;

    if (simworld_dead() || sim.stopping)
        return;
    for (unsigned i = 0; i < o->copies && o->n_attempts < SIM_ATTEMPTS_MAX; i++)
        if (o->copies == 1 || ((unsigned)o->number + i) % sim.n_workers == here())
            attempt_begin(o);
    if (o->running == 0 && !errand_waits(o))
        o->settled = true; /* has asked often enough */
}

/* ---- steady: ten agents at each mailbox, who ask again as soon as they were answered ----------------------------- */

enum { STEADY_AGENTS = 60, STEADY_S = 60 };

void clients_plan_steady(void)
{
    static char names[STEADY_AGENTS / 6][16];

    memset(sim.ops, 0, sizeof(sim.ops));
    sim.policy = policy;
    sim.n_ops = STEADY_AGENTS;
    for (unsigned i = 0; i < STEADY_AGENTS; i++) {
        snprintf(names[i / 6], sizeof(names[0]), "agent-%u", i / 6);
        sim.ops[i] = (struct errand){ .number = i, .tenant = sim_tenants[i % 2], .user = sim_users[i / 2 % 3],
                                      .agent = names[i / 6], .tool = "sim.look", .subject = "plain", .n_attempts = 1 };
    }
}

static void steady_main(void *arg)
{
    struct errand *o = arg;
    struct attempt *a = &o->attempts[0];

    while (!sim.stopping && loop_now() < sim.steady_until) {
        await_call(worker_self(), &front, a, "client", 100);
        sim.calls++;
        if (a->outcome != OUTCOME_DONE)
            o->other++;
        else if (loop_now() <= sim.steady_until)
            o->done++;
    }
    a->ended = true;
    o->settled = true;
    running--;
}

static void steady_start(void)
{
    if (!sim.steady_until)
        sim.steady_until = loop_now() + STEADY_S * NS_PER_S;
    for (unsigned i = here(); i < sim.n_ops; i += sim.n_workers) {
        struct task *t = task_spawn("client", steady_main, &sim.ops[i]);

        ASSERT(t != NULL);
        sim.ops[i].attempts[0] = (struct attempt){ .op = &sim.ops[i], .life = sim.life, .worker = here(),
                                                   .task = task_ref(t), .began = true };
        running++;
    }
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

/* A new life: who asked in the one before and heard nothing asks again, if a key makes that safe. */
static void errand_resume(struct errand *o)
{
    if (o->n_attempts == SIM_ATTEMPTS_MAX || (o->n_attempts > 0 && !o->key[0])) {
        o->settled = true;
    } else if (o->n_attempts > 0) {
        o->cancel_after = 0;
        errand_later(o, dice_scale(&sim.dice, NS_PER_MS, NS_PER_S));
    } else {
        errand_later(o, sim.calm ? o->start / 8 : o->start);
    }
}

void clients_start(void)
{
    if (sim.steady) {
        steady_start();
        return;
    }
    for (unsigned i = 0; i < sim.n_ops; i++) {
        struct errand *o = &sim.ops[i];

        if (!o->settled && ((unsigned)o->number % sim.n_workers == here() || o->copies > 1))
            errand_resume(o);
    }
}

void clients_wait(void)
{
    for (unsigned i = 0; i < sim.n_ops; i++)
        timer_clear(&sim.ops[i].timers[here()].timer);
}

void clients_stop(void)
{
    clients_wait();
    for (unsigned i = 0; i < sim.n_ops; i++) {
        struct errand *o = &sim.ops[i];

        for (unsigned k = 0; k < o->n_attempts; k++) {
            struct attempt *a = &o->attempts[k];
            bool mine = a->began && !a->ended && a->life == sim.life && a->worker == here();
            struct task *t = mine ? task_deref(a->task) : NULL;

            if (mine)
                timer_clear(&a->cancel);
            if (t) {
                a->cancelled = true;
                task_cancel(t);
            }
        }
    }
}

bool clients_done(void)
{
    for (unsigned i = 0; i < sim.n_ops; i++)
        if (!sim.ops[i].settled)
            return false;
    return running == 0;
}

unsigned clients_running(void)
{
    return running;
}
