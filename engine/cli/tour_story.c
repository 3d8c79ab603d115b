/*
 * tour_story.c -- six things one wants to see an engine do, each made for real and checked against the sandbox's own
 * books
 *
 * Each step asks the sandbox what has happened before and after, so that the story does not rest on what the engine
 * says of itself.  A step that went otherwise says what was expected, and the tour goes on: what follows is worth
 * seeing, too.
 */
#include <stdarg.h>
#include <time.h>

#include "base/check.h"
#include "base/ids.h"
#include "cli/headless.h"
#include "cli/print.h"
#include "cli/tour.h"
#include "journal/journal.h"
#include "loop/world.h"

enum { BURST = 12, AT_ONCE = 4, BURST_DELAY_MS = 150, STEP_ARENA = 64 << 20 };

struct story {
    const struct tour *t;
    struct arena a;                 /* of one step */
    bool ok;
    char sent_call[64];             /* the id of the first mail's call */
};

struct stats {
    int64_t sent, limited, mailbox_most;
};

/* ---- telling ----------------------------------------------------------------------------------------------------- */

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    va_list ap;

    fputs("   ", stdout);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

static void title(struct story *s, const char *text)
{
    arena_clear(&s->a);
    printf("\n%s\n", text);
    fflush(stdout);
}

/* States what must hold now. */
static bool expect(struct story *s, bool holds, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static bool expect(struct story *s, bool holds, const char *fmt, ...)
{
    va_list ap;

    if (holds)
        return true;
    s->ok = false;
    fputs("   NOT AS IT SHOULD BE: ", stdout);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
    return false;
}

static void say_text(const char *before, struct str text)
{
    printf("   %s", before);
    print_line(stdout, text);
    putchar('\n');
    fflush(stdout);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static struct json *get_json(struct story *s, const char *method, const char *path, const char *body)
{
    const char *headers[] = { "Content-Type: application/json" };
    struct client_spec spec = { .method = method,
                                .url = arena_printf(&s->a, "%s%s", s->t->sandbox, path).p,
                                .headers = headers,
                                .n_headers = 1,
                                .body = str_of(body) };
    struct client_reply reply = { 0 };
    struct errinfo info = { "" };
    struct json_error where;
    struct json *j = NULL;

    if (client_do(s->t->link->client, &spec, &reply, &info) == OK)
        json_parse(&s->a, arena_str(&s->a, buf_str(&reply.body)), NULL, &j, &where);
    expect(s, j != NULL, "the sandbox does not answer %s: %s", path, info.text);
    client_reply_release(&reply);
    return j;
}

static struct stats stats(struct story *s)
{
    struct json *j = get_json(s, "GET", "/sandbox/stats", NULL);
    struct stats x = { 0 };

    json_int(json_get(j, "mails_sent"), &x.sent);
    json_int(json_get(j, "limited"), &x.limited);
    json_int(json_get(j, "mailbox_in_flight_max"), &x.mailbox_most);
    return x;
}

static struct json *call_message(struct story *s, const char *tool, const char *args, const char *key)
{
    struct json *params = json_object(&s->a), *meta = json_object(&s->a), *arguments = NULL;
    struct json_error where;

    ASSERT(json_parse(&s->a, str_of(args), NULL, &arguments, &where) == OK);
    json_set_z(&s->a, params, "name", tool);
    json_set(&s->a, params, "arguments", arguments);
    if (key)
        json_set_z(&s->a, meta, "dev.sluice/idempotencyKey", key);
    json_set(&s->a, params, "_meta", meta);
    return rpc_message(s->t->link, &s->a, "tools/call", params);
}

struct ending {
    struct rpc_reply rpc;
    enum outcome outcome;
    struct str why, id;
    int64_t ms;
};

static struct ending call(struct story *s, const char *tool, const char *args, const char *key)
{
    struct ending x = { .outcome = OUTCOME_UNKNOWN };
    ns_t began = world->now();
    struct errinfo info = { "" };

    if (rpc_ask(s->t->link, &s->a, call_message(s, tool, args, key), NULL, &x.rpc, &info)) {
        expect(s, false, "no answer: %s", info.text);
        return x;
    }
    x.ms = (world->now() - began) / NS_PER_MS;
    x.outcome = rpc_outcome(&s->a, &x.rpc, &x.why);
    x.id = rpc_note(&x.rpc, "dev.sluice/call");
    return x;
}

static void say_outcome(const struct ending *x)
{
    printf("   %s after %lld ms (%.*s)", outcome_name(x->outcome), (long long)x->ms, STR_ARG(x->id));
    if (x->outcome != OUTCOME_DONE && x->why.len) {
        fputs(": ", stdout);
        print_line(stdout, x->why);
    }
    putchar('\n');
    fflush(stdout);
}

/* ---- the steps --------------------------------------------------------------------------------------------------- */

static bool connect_account(struct story *s)
{
    struct headless_spec spec = { .client = s->t->link->client,
                                  .base = s->t->link->base,
                                  .authorization = s->t->link->authorization,
                                  .provider = "outlook",
                                  .user = TOUR_USER };
    struct errinfo info = { "" };

    title(s, "0  " TOUR_USER " connects her mailbox");
    if (!expect(s, headless_login(&spec, &info) == OK, "%s", info.text))
        return false;
    say("Her browser went to the sandbox's login page and came back with a code; the engine redeemed it (PKCE, state "
        "used once)");
    say("and keeps the grant sealed. No agent and no connector ever sees a token.");
    return true;
}

static void allowed_read(struct story *s)
{
    const struct json *messages;
    struct ending x;

    title(s, "1  An allowed read: outlook.list_mail");
    x = call(s, "outlook.list_mail", "{\"count\":5}", NULL);
    say_outcome(&x);
    messages = json_get(json_get(x.rpc.result, "structuredContent"), "messages");
    if (!expect(s, x.outcome == OUTCOME_DONE && json_len(messages) > 0, "the mailbox should have been read"))
        return;
    for (const struct json *m = json_first(messages); m; m = json_next(m))
        say_text("  - ", json_str(json_get(m, "subject")));
}

static void allowed_write(struct story *s)
{
    struct stats before, after;
    struct ending x;

    title(s, "2  An allowed write: outlook.send_mail to a colleague");
    before = stats(s);
    x = call(s, "outlook.send_mail",
             "{\"to\":[\"bob@demo.example\"],\"subject\":\"Report\",\"body\":\"Read it, thank you.\"}", NULL);
    say_outcome(&x);
    after = stats(s);
    if (expect(s, x.outcome == OUTCOME_DONE && after.sent == before.sent + 1,
               "one mail should have been sent, not %lld", (long long)(after.sent - before.sent)))
        say("The sandbox's books: 1 mail sent. The intent was on disk before the first byte left.");
    snprintf(s->sent_call, sizeof(s->sent_call), "%.*s", STR_ARG(x.id));
}

static void denials(struct story *s)
{
    const char *own = s->t->link->authorization;
    struct stats before, after;
    struct ending x;

    title(s, "3  Two denials");
    before = stats(s);
    say("The same agent sends mail to somebody outside:");
    x = call(s, "outlook.send_mail", "{\"to\":[\"rival@elsewhere.example\"],\"subject\":\"Report\",\"body\":\"Psst.\"}",
             NULL);
    say_outcome(&x);
    expect(s, x.outcome == OUTCOME_REFUSED && x.why.len && memmem(x.why.p, x.why.len, "mail-stays-inside", 17),
           "the policy mail-stays-inside should have forbidden it");
    say("Another agent, for the same user, sends mail to a colleague: she may, it may not.");
    s->t->link->authorization = s->t->other_authorization;
    x = call(s, "outlook.send_mail", "{\"to\":[\"bob@demo.example\"],\"subject\":\"Report\",\"body\":\"Hello.\"}",
             NULL);
    s->t->link->authorization = own;
    say_outcome(&x);
    expect(s,
           x.outcome == OUTCOME_REFUSED && x.why.len &&
               memmem(x.why.p, x.why.len, TOUR_OTHER_AGENT, strlen(TOUR_OTHER_AGENT)),
           "the agent " TOUR_OTHER_AGENT " should have been refused");
    after = stats(s);
    if (expect(s, after.sent == before.sent, "nothing should have been sent"))
        say("The sandbox's books: nothing was sent.");
}

/* ---- the burst --------------------------------------------------------------------------------------------------- */

struct burst {
    struct story *s;
    struct json *messages[BURST];
    ns_t began;
    int64_t first_ms, last_ms;
    unsigned ended, done;
};

struct shot {
    struct burst *b;
    const struct json *message;
};

static void on_shot(struct transfer *t, enum err e, const struct errinfo *info, void *arg)
{
    struct shot *shot = arg;
    struct burst *b = shot->b;
    struct errinfo why = *info;
    struct rpc_reply r;
    struct str text = STR_NULL;

    b->last_ms = (world->now() - b->began) / NS_PER_MS;
    if (b->ended++ == 0)
        b->first_ms = b->last_ms;
    if (!e)
        e = rpc_read(&b->s->a, transfer_reply(t), shot->message, &r, &why);
    if (!e && rpc_outcome(&b->s->a, &r, &text) == OUTCOME_DONE)
        b->done++;
    else
        expect(b->s, false, "one of the calls: %.*s", e ? (int)strlen(why.text) : (int)text.len, e ? why.text : text.p);
}

/* Sum and count of the engine's own histogram of waiting for permits, in ms. */
static void queued(struct story *s, double *ret_ms, double *ret_n)
{
    struct client_spec spec = { .method = "GET", .url = arena_printf(&s->a, "%s/metrics", s->t->link->base).p };
    struct client_reply reply = { 0 };
    const char *text, *at;

    *ret_ms = *ret_n = 0;
    if (client_do(s->t->link->client, &spec, &reply, NULL) == OK) {
        text = arena_z(&s->a, buf_str(&reply.body));
        at = text ? strstr(text, "\nsluice_queue_seconds_sum ") : NULL;
        if (at)
            sscanf(at, "\nsluice_queue_seconds_sum %lf", ret_ms);
        at = text ? strstr(text, "\nsluice_queue_seconds_count ") : NULL;
        if (at)
            sscanf(at, "\nsluice_queue_seconds_count %lf", ret_n);
        *ret_ms *= 1000;
    }
    client_reply_release(&reply);
}

static void burst(struct story *s)
{
    struct burst b = { .s = s };
    struct shot shots[BURST];
    struct stats before, after;
    double waited_before, n_before, waited, n;

    title(s, "4  A burst: 12 reads at once, of a mailbox that takes 4 at once");
    get_json(s, "POST", "/sandbox/faults", "{\"delay_ms\":150}");
    before = stats(s);
    queued(s, &waited_before, &n_before);
    b.began = world->now();
    for (unsigned i = 0; i < BURST; i++) {
        struct client_spec spec;

        shots[i] = (struct shot){ &b, call_message(s, "outlook.list_mail", "{\"count\":1}", NULL) };
        rpc_spec(s->t->link, &s->a, shots[i].message, NULL, &spec);
        spec.on_done = on_shot;
        spec.arg = &shots[i];
        client_begin(s->t->link->client, &spec);
    }
    while (b.ended < BURST)
        client_step(s->t->link->client, -1, 1000);
    get_json(s, "POST", "/sandbox/faults", "{\"delay_ms\":0}");
    after = stats(s);
    queued(s, &waited, &n);
    say("%u of %d done: the first answer after %lld ms, the last after %lld ms (the sandbox takes %d ms for each)",
        b.done, BURST, (long long)b.first_ms, (long long)b.last_ms, BURST_DELAY_MS);
    say("Queued in the engine: %.0f ms in all, over %.0f requests.", waited - waited_before, n - n_before);
    if (expect(s, b.done == BURST && after.mailbox_most <= AT_ONCE && after.limited == before.limited,
               "%lld at once, %lld answers 429", (long long)after.mailbox_most,
               (long long)(after.limited - before.limited)))
        say("The sandbox's books: never more than %lld at once on the mailbox, no answer 429.",
            (long long)after.mailbox_most);
    expect(s, b.last_ms >= (BURST / AT_ONCE) * BURST_DELAY_MS, "the calls should have queued");
}

static void once(struct story *s)
{
    const char *args = "{\"to\":[\"carol@demo.example\"],\"subject\":\"Lunch\",\"body\":\"Friday at noon.\"}";
    struct id key = id_new("tour");
    struct ending first, second;
    struct stats before, after;
    struct str of;

    title(s, "5  The same write sent twice, with one key");
    before = stats(s);
    first = call(s, "outlook.send_mail", args, key.z);
    say_outcome(&first);
    second = call(s, "outlook.send_mail", args, key.z);
    say_outcome(&second);
    of = rpc_note(&second.rpc, "dev.sluice/replayOf");
    after = stats(s);
    expect(s, first.outcome == OUTCOME_DONE && second.outcome == OUTCOME_DONE && str_eq(of, first.id),
           "the second should be answered with the outcome of the first");
    if (expect(s, after.sent == before.sent + 1, "%lld mails were sent", (long long)(after.sent - before.sent)))
        say("The second was answered with the recorded outcome of the first. The sandbox's books: 1 mail sent.");
}

static void print_problem(const struct journal_note *n, void *arg)
{
    if (n->problem)
        expect(arg, false, "%s: %s", n->file ? n->file : "journal", n->text);
}

static void journal(struct story *s)
{
    struct journal_verify_options opt = { 0 };
    struct journal_report r = { 0 };
    struct errinfo info = { "" };
    struct buf shown = BUF_INIT(1 << 20);
    enum err e;

    title(s, "6  The journal");
    e = journal_verify(s->t->journal, &opt, print_problem, s, &r, &info);
    if (expect(s, e == OK, "%s", info.text[0] ? info.text : err_text(e)))
        say("Verified: %llu records in %u lanes, every byte covered by a chain of SHA-256, %u signed checkpoints.",
            (unsigned long long)r.records, r.lanes, r.checkpoints);
    e = s->sent_call[0] ? journal_show(s->t->journal, str_of(s->sent_call), &shown, &info) : E_NOT_FOUND;
    if (expect(s, e == OK, "the call of step 2 should be on record"))
        say("What is on record of step 2:  sluice audit show %s%s", s->sent_call, s->t->audit_options);
    buf_release(&shown);
}

bool tour_story(const struct tour *t)
{
    void (*const steps[])(struct story *) = { allowed_read, allowed_write, denials, burst, once, journal };
    struct story s = { .t = t, .ok = true };

    arena_init(&s.a, STEP_ARENA);
    if (connect_account(&s)) {
        for (size_t i = 0; i < ARRAY_LEN(steps) && !t->interrupted(); i++)
            steps[i](&s);
    }
    arena_release(&s.a);
    return s.ok;
}
