/*
 * talk.c -- what a running call says beside its answer: progress, log lines, and questions
 *
 * All of it goes on the stream of the request it belongs to, and only to a client that asked for it and takes a stream.
 * That nobody reads any more does not end the call: whether a lost connection cancels is the era's business (decode.c).
 */
#include "mcp/internal.h"

enum { PROGRESS_PER_S = 20, PROGRESS_BURST = 20 };

static const char *const levels[] = { "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency" };

int log_rank(struct str level)
{
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (str_is(level, levels[i]))
            return (int)i;
    return -1;
}

/* A notification: only a cancelled call learns of a failure. */
static enum err await_say(struct turn *t, struct buf *b)
{
    enum err e = b->overflow ? OK : await_wire_message(t->wire, buf_str(b));

    buf_release(b);
    return e == E_CANCELLED ? e : OK;
}

static void add_number(struct buf *b, double v)
{
    char digits[JSON_DOUBLE_TEXT];

    buf_add(b, digits, json_double_text(v, digits));
}

/* PROGRESS_PER_S on average; the last one always. */
static bool too_often(struct turn *t)
{
    ns_t now = loop_now();
    unsigned refill = (unsigned)((now - t->said) / (NS_PER_S / PROGRESS_PER_S));

    if (refill) {
        t->said_burst = t->said_burst > refill ? t->said_burst - refill : 0;
        t->said = now;
    }
    if (t->said_burst >= PROGRESS_BURST)
        return true;
    t->said_burst++;
    return false;
}

static void write_progress(struct turn *t, struct buf *b, double done, double total, struct str message)
{
    t->progressed = true;
    t->progress = done;
    buf_add_z(b, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":");
    json_write(b, t->progress_token);
    buf_add_z(b, ",\"progress\":");
    add_number(b, done);
    if (total > 0) {
        buf_add_z(b, ",\"total\":");
        add_number(b, total);
    }
    if (message.len) {
        buf_add_z(b, ",\"message\":");
        buf_add_json_str(b, message);
    }
    buf_add_z(b, "}}");
}

enum err await_mcp_progress(struct call *c, double done, double total, struct str message)
{
    struct turn *t = turn_of(c);
    struct buf b = BUF_INIT(64 * 1024);

    if (!t->progress_token || !t->wire->sse_ok || (t->progressed && done <= t->progress) ||
        (done < total && too_often(t)))
        return task_cancelled() ? E_CANCELLED : OK;
    write_progress(t, &b, done, total, message);
    return await_say(t, &b);
}

/* Progress has to grow, and the body's own counts in whole steps or parts of one: a wait is a thousandth. */
bool mcp_say_waiting(struct call *c, struct str what)
{
    struct turn *t = turn_of(c);
    struct buf b = BUF_INIT(HTTP_SOON);

    if (!t->progress_token || !t->wire->sse_ok)
        return false;
    if (what.len) {
        write_progress(t, &b, t->progressed ? t->progress + 0.001 : 0, 0, what);
        if (!b.overflow)
            wire_message_now(t->wire, buf_str(&b));
        buf_release(&b);
    }
    return true;
}

enum err await_mcp_log(struct call *c, const char *level, struct str message)
{
    struct turn *t = turn_of(c);
    struct buf b = BUF_INIT(64 * 1024);
    int rank = log_rank(str_of(level));

    if (rank < 0 || rank < t->log_level || !t->wire->sse_ok)
        return task_cancelled() ? E_CANCELLED : OK;
    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":");
    buf_add_json_str(&b, str_of(level));
    if (c->tool) {
        buf_add_z(&b, ",\"logger\":");
        buf_add_json_str(&b, c->tool->name);
    }
    buf_add_z(&b, ",\"data\":");
    buf_add_json_str(&b, message);
    buf_add_z(&b, "}}");
    return await_say(t, &b);
}

/* ---- what a client can be asked ---------------------------------------------------------------------------------- */

unsigned capabilities_of(const struct json *caps)
{
    const struct json *elicitation = json_get(caps, "elicitation");
    unsigned can = 0;

    if (json_is(elicitation, JSON_OBJECT)) {
        bool url = json_get(elicitation, "url") != NULL;

        if (json_get(elicitation, "form") || !url)
            can |= CAN_FORM;            /* an empty object means forms */
        if (url)
            can |= CAN_URL;
    }
    if (json_is(json_get(caps, "sampling"), JSON_OBJECT))
        can |= CAN_SAMPLE;
    if (json_is(json_get(caps, "roots"), JSON_OBJECT))
        can |= CAN_ROOTS;
    return can;
}

/* A legacy client is asked on the stream of its request, and answers under its session. */
static unsigned can_now(const struct turn *t)
{
    if (t->msg.era == ERA_LEGACY && (!t->wire->sse_ok || !t->session))
        return 0;
    return t->can;
}

bool mcp_client_can(struct call *c, const char *capability)
{
    unsigned can = can_now(turn_of(c));

    if (strcmp(capability, "elicitation") == 0)
        return can & CAN_FORM;
    if (strcmp(capability, "sampling") == 0)
        return can & CAN_SAMPLE;
    return strcmp(capability, "roots") == 0 && (can & CAN_ROOTS);
}

enum err await_mcp_inputs(struct call *c)
{
    struct turn *t = turn_of(c);
    enum err e = mrtr_answered(c, t);

    if (!e && json_len(c->questions) == 0)
        return OK;
    if (!e)
        e = mrtr_capable(c, can_now(t));
    if (e)
        return e;
    if (t->msg.era == ERA_LEGACY)
        return await_ask(c, t);
    if (t->round >= ROUNDS_MAX)
        return call_why(c, E_NO_RESULT, "the tool asked %d times and is still not satisfied", ROUNDS_MAX);
    e = await_mrtr_seal(c, t);
    return e ? e : E_INPUT_REQUIRED;
}

void mcp_front_announce(struct call *c, const char *what)
{
    mcp_announce(turn_of(c)->wire->mcp, c->caller->tenant, what);
}
