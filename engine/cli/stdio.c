/*
 * stdio.c -- `sluice stdio`: MCP over stdin and stdout, bridged to a running engine over HTTP
 *
 * For clients that start their servers as processes.  Each line becomes a POST of its own; what comes back, one JSON
 * body or a stream of events, becomes lines again, as it comes.  All requests are in flight at once; only the handshake
 * and the notifications of earlier revisions hold back what follows them, since HTTP does not keep their order.
 *
 *   modern    header fields mirror the body; notifications/cancelled closes the request's connection
 *   legacy    Mcp-Session-Id and MCP-Protocol-Version once initialize was answered; a GET stream for what the server
 *             says by itself; answers to the server's own requests are POSTs, too
 *
 * A session ends when nobody has used it for an hour, and with the engine.  The client, which has never heard of it,
 * cannot begin another: the bridge does, with what the client began with, and sends again what was refused for want of
 * one (HTTP 404: nothing of it has happened).
 *
 * Nothing is sent before the client has said something.  At the end of stdin what is in flight gets a moment, then the
 * connections are closed.  An engine that does not answer becomes a JSON-RPC error, and a line on stderr.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "cli/bridge.h"
#include "cli/link.h"
#include "cli/mirror.h"
#include "cli/sse.h"
#include "loop/world.h"

enum { FLIGHTS_MAX = 256, FLIGHT_ARENA = 64 << 20, TOOLS_ARENA = 64 << 20 };
enum { AFTER_EOF_MS = 1000, GOODBYE_MS = 500, REOPEN_MS = 1000, REOPEN_MOST_MS = 60000 };

static const char help[] =
    "Usage: sluice stdio [--url URL] [OPTIONS]\n\n"
    "Speaks MCP on stdin and stdout, one message per line, and passes everything to a running engine.\n"
    "For clients that start their servers themselves: Claude Desktop, Cursor, editors. In their\n"
    "configuration:\n\n"
    "  { \"mcpServers\": { \"sluice\": { \"command\": \"sluice\",\n"
    "                                \"args\": [\"stdio\", \"--url\", \"http://127.0.0.1:7411/mcp\"],\n"
    "                                \"env\": { \"SLUICE_TOKEN\": \"...\" } } } }\n\n"
    "With --as and the engine's data directory at hand, tokens are made, and made again before they\n"
    "expire.\n" LINK_HELP;

struct flight {
    struct bridge *b;
    struct flight *prev, *next;
    struct transfer *transfer;
    struct arena a;
    struct str line;                    /* as it is sent */
    struct json *message;
    struct sse sse;
    struct buf body;
    unsigned session;                   /* the how manieth it was sent in */
    bool modern, answered, is_stream;
    bool own;                           /* the bridge's: nobody else wants to know what is said to it */
    bool again;                         /* it met a session that had ended, and goes into the next one */
};

struct bridge {
    struct link_options options;
    struct link link;
    struct flight *flights;
    size_t n_flights;
    struct flight *holding;             /* what follows waits for it */
    struct buf in;
    bool eof, broken;                   /* stdin ended; stdout takes nothing more */
    char session[256], version[64];
    unsigned sessions;                  /* how many there were */
    struct buf opening;                 /* the client's initialize */
    bool renewing;
    struct flight *stream;              /* GET */
    ns_t reopen_at;                     /* 0: no stream is wanted */
    int64_t reopen_ms;                  /* how long the next one waits when this one fails */
    struct arena tools_arena;
    struct json *tools;                 /* what lists have shown; NULL: none yet */
};

/* ---- out --------------------------------------------------------------------------------------------------------- */

static void put(struct bridge *b, struct buf *line)
{
    size_t off = 0;

    while (!b->broken && off < line->len) {
        ssize_t n = write(STDOUT_FILENO, line->p + off, line->len - off);

        if (n > 0)
            off += (size_t)n;
        else if (n < 0 && errno != EINTR)
            b->broken = true;
    }
    buf_release(line);
}

static void put_error(struct flight *f, int code, const char *text)
{
    struct buf line = BUF_INIT(1 << 20);

    fprintf(stderr, "sluice stdio: %s\n", text);
    if (f->answered || f->is_stream || f->own || bridge_kind(f->message) == BRIDGE_NOTIFICATION ||
        bridge_kind(f->message) == BRIDGE_RESPONSE)
        return;
    f->answered = true;
    bridge_error(&line, json_get(f->message, "id"), code, text);
    put(f->b, &line);
}

/* ---- what comes back --------------------------------------------------------------------------------------------- */

/* Which arguments are repeated in header fields is written in the tools' schemas. */
static void learn_tools(struct bridge *b, const struct json *request, const struct json *result)
{
    if (!b->tools || !json_get(json_get(request, "params"), "cursor")) {
        arena_release(&b->tools_arena);
        b->tools = json_array(&b->tools_arena);
    }
    for (struct json *t = json_first(json_get(result, "tools")); t; t = json_next(t))
        json_push(&b->tools_arena, b->tools, json_copy(&b->tools_arena, t));
}

static void learn(struct flight *f, const struct json *answer)
{
    struct str method = json_str(json_get(f->message, "method"));
    struct str version = json_str(json_get(json_get(answer, "result"), "protocolVersion"));
    struct bridge *b = f->b;

    f->answered = true;
    if (str_is(method, "tools/list") && json_get(answer, "result"))
        learn_tools(b, f->message, json_get(answer, "result"));
    if (str_is(method, "initialize") && version.len && version.len < sizeof(b->version)) {
        snprintf(b->version, sizeof(b->version), "%.*s", STR_ARG(version));
        snprintf(b->session, sizeof(b->session), "%s", transfer_reply(f->transfer)->session);
        b->sessions++;
        if (!f->own) {
            buf_clear(&b->opening);
            buf_add_str(&b->opening, f->line);
        }
    }
}

static bool on_message(struct str text, void *arg)
{
    struct flight *f = arg;
    struct buf line = BUF_INIT(2 * CLIENT_REPLY_MAX);
    struct json_error where;
    struct json *m = NULL, *id = json_get(f->message, "id");

    if (text.len == 0)
        return true;                    /* the event that only primes a stream */
    if (json_parse(&f->a, arena_str(&f->a, text), NULL, &m, &where)) {
        fprintf(stderr, "sluice stdio: the engine sent something that is no JSON\n");
        return !arena_overflowed(&f->a);
    }
    if (json_get(m, "error") && !json_get(m, "id") && id)
        json_set(&f->a, m, "id", id);   /* refused before the id was looked at: the client must know what was */
    if (!json_get(m, "method") && json_equal(json_get(m, "id"), id))
        learn(f, m);
    if (f->own)
        return true;
    bridge_write(&line, m);
    put(f->b, &line);
    return !f->b->broken;
}

static bool on_bytes(struct transfer *t, struct str bytes, void *arg)
{
    struct flight *f = arg;

    if (transfer_reply(t)->event_stream)
        return sse_feed(&f->sse, bytes, on_message, f);
    buf_add_str(&f->body, bytes);
    return !f->body.overflow;
}

static void flight_end(struct flight *f)
{
    struct bridge *b = f->b;

    if (f->prev)
        f->prev->next = f->next;
    else
        b->flights = f->next;
    if (f->next)
        f->next->prev = f->prev;
    b->n_flights--;
    if (b->holding == f)
        b->holding = NULL;
    if (b->stream == f)
        b->stream = NULL;
    sse_release(&f->sse);
    buf_release(&f->body);
    arena_release(&f->a);
    free(f);
}

/* ---- what goes out ----------------------------------------------------------------------------------------------- */

static struct flight *flight_new(struct bridge *b)
{
    struct flight *f = calloc(1, sizeof(*f));

    ASSERT(f != NULL);
    link_renew(&verb_stdio, &b->options, &b->link);
    *f = (struct flight){ .b = b, .next = b->flights, .body = BUF_INIT(CLIENT_REPLY_MAX) };
    if (b->flights)
        b->flights->prev = f;
    b->flights = f;
    b->n_flights++;
    arena_init(&f->a, FLIGHT_ARENA);
    sse_init(&f->sse);
    return f;
}

static size_t headers_of(struct flight *f, const struct json *schema, const char **headers)
{
    struct bridge *b = f->b;
    struct mirror mirror;
    size_t n = 0;

    headers[n++] = f->is_stream ? "Accept: text/event-stream" : "Accept: application/json, text/event-stream";
    if (!f->is_stream)
        headers[n++] = "Content-Type: application/json";
    if (b->link.authorization)
        headers[n++] = b->link.authorization;
    mirror_message(&f->a, f->message, schema, &mirror);
    for (size_t i = 0; i < mirror.n; i++)
        headers[n++] = mirror.headers[i];
    if (!f->modern && b->version[0] && !str_is(json_str(json_get(f->message, "method")), "initialize")) {
        headers[n++] = arena_printf(&f->a, "MCP-Protocol-Version: %s", b->version).p;
        if (b->session[0])
            headers[n++] = arena_printf(&f->a, "Mcp-Session-Id: %s", b->session).p;
    }
    return n;
}

static void on_done(struct transfer *t, enum err e, const struct errinfo *info, void *arg);

static void launch(struct flight *f, const char *method, const struct json *schema)
{
    const char *headers[CLIENT_HEADERS_MAX];
    struct client_spec spec = { .method = method,
                                .url = f->b->link.url,
                                .headers = headers,
                                .body = f->line,
                                .timeout_ms = -1,
                                .on_bytes = on_bytes,
                                .on_done = on_done,
                                .arg = f };

    spec.n_headers = headers_of(f, schema, headers);
    f->session = f->b->sessions;
    spec.once = str_is(json_str(json_get(f->message, "method")), "tools/call");
    f->transfer = client_begin(f->b->link.client, &spec);
}

static const struct json *schema_of(struct bridge *b, const struct json *message)
{
    struct arena a;
    struct json *asked = NULL;

    if (!str_is(json_str(json_get(message, "method")), "tools/call") || !bridge_modern(message))
        return NULL;
    if (!b->tools) {                    /* a client that never listed them */
        arena_init(&a, TOOLS_ARENA);
        if (link_tools(&verb_stdio, &b->link, &a, &asked) == 0)
            b->tools = json_copy(&b->tools_arena, asked);
        arena_release(&a);
    }
    return json_get(tool_named(b->tools, json_str(json_get(json_get(message, "params"), "name"))), "inputSchema");
}

/* Closes the connection of the modern request that notifications/cancelled names. True: that is all there was to do. */
static bool cancel(struct bridge *b, const struct json *message)
{
    const struct json *id = json_get(json_get(message, "params"), "requestId");

    if (!str_is(json_str(json_get(message, "method")), "notifications/cancelled"))
        return false;
    for (struct flight *f = b->flights; f; f = f->next) {
        if (f->modern && bridge_kind(f->message) == BRIDGE_REQUEST && json_equal(json_get(f->message, "id"), id)) {
            client_cancel(f->transfer);
            flight_end(f);
            return true;
        }
    }
    return !b->version[0];              /* of no session: whatever it named has been answered */
}

static void on_line(struct bridge *b, struct str line)
{
    struct flight *f;
    struct json_error where;
    const struct json *schema;

    if (str_trim(line).len == 0)
        return;
    f = flight_new(b);
    f->line = arena_str(&f->a, line);
    if (json_parse(&f->a, f->line, NULL, &f->message, &where))
        f->message = NULL;              /* the engine says what is wrong with it, and keeps a record */
    if (cancel(b, f->message)) {
        flight_end(f);
        return;
    }
    f->modern = bridge_modern(f->message);
    if (bridge_waits(f->message))
        b->holding = f;
    schema = schema_of(b, f->message);
    launch(f, "POST", schema);
}

static void open_stream(struct bridge *b)
{
    struct flight *f = flight_new(b);

    b->reopen_at = 0;
    b->stream = f;
    f->is_stream = true;
    launch(f, "GET", NULL);
}

/* ---- what is over ------------------------------------------------------------------------------------------------ */

/* A message of the bridge's own; what the client says waits for it. */
static void say(struct bridge *b, struct str line)
{
    struct flight *f = flight_new(b);
    struct json_error where;

    f->own = true;
    f->line = arena_str(&f->a, line);
    ASSERT(json_parse(&f->a, f->line, NULL, &f->message, &where) == OK);
    b->holding = f;
    launch(f, "POST", NULL);
}

static void session_renew(struct bridge *b)
{
    if (b->renewing)
        return;
    b->renewing = true;
    say(b, buf_str(&b->opening));
}

/* Those that wait for a session have one now, or hear that there is none. */
static void session_renewed(struct bridge *b, bool well)
{
    struct flight *f, *next;

    b->renewing = false;
    b->reopen_at = well ? 1 : world->now() + REOPEN_MOST_MS * NS_PER_MS;
    for (f = b->flights; f; f = next) {
        next = f->next;
        if (!f->again || f->transfer)
            continue;
        if (well) {
            launch(f, "POST", NULL);
        } else {
            put_error(f, -32000, "the engine has ended the session, and no other could be begun: nothing was done");
            flight_end(f);
        }
    }
}

static void renew_next(struct flight *f, int status)
{
    struct bridge *b = f->b;

    if (!str_is(json_str(json_get(f->message, "method")), "initialize"))
        session_renewed(b, status == 200 || status == 202);
    else if (f->answered && f->session != b->sessions)
        say(b, STR("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"));
    else
        session_renewed(b, false);
}

/* It was sent in a session that is no more: true if it is kept for another one. */
static bool met_no_session(struct flight *f, int status)
{
    struct bridge *b = f->b;

    if (status != 404 || f->modern || f->own || f->again || !b->session[0] || b->opening.len == 0)
        return false;
    if (f->session == b->sessions)
        session_renew(b);
    if (f->is_stream || bridge_kind(f->message) == BRIDGE_NOTIFICATION || bridge_kind(f->message) == BRIDGE_RESPONSE)
        return false;                   /* of what was said there the next one knows nothing */
    f->again = true;
    f->transfer = NULL;
    buf_clear(&f->body);
    if (!b->renewing)
        launch(f, "POST", NULL);
    return true;
}

/* The server's own messages are wanted for as long as there is a session. 405: there are none to be had; 404: the next
 * session will ask for them. */
static void stream_over(struct bridge *b, int status)
{
    if (status == 200 || !b->reopen_ms)
        b->reopen_ms = REOPEN_MS;
    b->reopen_at = status == 405 || status == 404 ? 0 : world->now() + b->reopen_ms * NS_PER_MS;
    if (status != 200)
        b->reopen_ms = b->reopen_ms * 2 < REOPEN_MOST_MS ? b->reopen_ms * 2 : REOPEN_MOST_MS;
}

static void answer_over(struct flight *f, enum err e, int status, const struct errinfo *info)
{
    enum bridge_kind kind = bridge_kind(f->message);
    char text[600];

    /* an error about a notification has nobody to go to but stderr */
    if (f->body.len && (kind == BRIDGE_REQUEST || kind == BRIDGE_OTHER) && memchr("{[", f->body.p[0], 2))
        on_message(buf_str(&f->body), f);
    if (e) {
        snprintf(text, sizeof(text),
                 transfer_reply(f->transfer)->unsent ? "the engine cannot be reached: %s"
                                                     : "no answer came, it may have happened: %s",
                 info->text);
        put_error(f, -32000, text);
    } else if (!f->answered && status >= 300 && !(kind == BRIDGE_OTHER && f->body.len)) {
        snprintf(text, sizeof(text), "the engine answered with HTTP status %d", status);
        put_error(f, -32000, text);
    } else if (!f->answered && kind == BRIDGE_REQUEST) {
        put_error(f, -32000, "the engine ended its answer before it was complete: it may have happened");
    }
    if (!e && status < 300 && str_is(json_str(json_get(f->message, "method")), "notifications/initialized") &&
        f->b->session[0])
        f->b->reopen_at = 1;
}

static void on_done(struct transfer *t, enum err e, const struct errinfo *info, void *arg)
{
    struct flight *f = arg;
    int status = transfer_reply(t)->status;

    if (!e && met_no_session(f, status))
        return;
    if (f->is_stream)
        stream_over(f->b, status);
    else
        answer_over(f, e, status, info);
    if (f->own)
        renew_next(f, e ? 0 : status);
    flight_end(f);
}

/* ---- in ---------------------------------------------------------------------------------------------------------- */

static void take_lines(struct bridge *b)
{
    struct str line;
    size_t at = 0;

    while (!b->holding && b->n_flights < FLIGHTS_MAX && bridge_line(&b->in, &at, &line))
        on_line(b, line);
    if (at)
        buf_drop_front(&b->in, at);
}

static void take_input(struct bridge *b)
{
    char *room = buf_reserve(&b->in, 65536);
    ssize_t n;

    if (!room) {
        fprintf(stderr, "sluice stdio: a line is longer than %d bytes\n", BRIDGE_LINE_MAX);
        b->eof = b->broken = true;
        return;
    }
    n = read(STDIN_FILENO, room, 65536);
    if (n > 0)
        b->in.len += (size_t)n;
    else if (n == 0 || (errno != EINTR && errno != EAGAIN))
        b->eof = true;
    if (b->eof && b->in.len && b->in.p[b->in.len - 1] != '\n')
        buf_add_c(&b->in, '\n');
}

static int wait_ms(const struct bridge *b)
{
    ns_t left = b->reopen_at - world->now();

    return !b->reopen_at ? 60000 : left <= 0 ? 0 : (int)(left / NS_PER_MS + 1);
}

static bool expects_answers(const struct bridge *b)
{
    for (const struct flight *f = b->flights; f; f = f->next)
        if (!f->is_stream && !str_is(json_str(json_get(f->message, "method")), "subscriptions/listen"))
            return true;
    return false;
}

/* Tells the engine that the session is over; it would find out by itself. */
static void goodbye(struct bridge *b)
{
    const char *headers[CLIENT_HEADERS_MAX];
    struct client_spec spec = { .method = "DELETE", .url = b->link.url, .headers = headers, .timeout_ms = GOODBYE_MS };
    struct client_reply reply = { 0 };
    struct flight *f;

    if (!b->session[0])
        return;
    f = flight_new(b);
    spec.n_headers = headers_of(f, NULL, headers);
    client_do(b->link.client, &spec, &reply, NULL);
    client_reply_release(&reply);
    flight_end(f);
}

static void bridge_run(struct bridge *b)
{
    ns_t until;

    while (!b->eof && !b->broken) {
        bool listen = !b->holding && b->n_flights < FLIGHTS_MAX;

        if (b->reopen_at && world->now() >= b->reopen_at && !b->stream)
            open_stream(b);
        if (client_step(b->link.client, listen ? STDIN_FILENO : -1, wait_ms(b)))
            take_input(b);
        take_lines(b);
    }
    until = world->now() + AFTER_EOF_MS * NS_PER_MS;
    while (!b->broken && world->now() < until && (expects_answers(b) || b->in.len)) {
        client_step(b->link.client, -1, 50);
        take_lines(b);
    }
    for (struct flight *f = b->flights, *next; f; f = next) {
        next = f->next;
        client_cancel(f->transfer);
        flight_end(f);
    }
    if (!b->broken)
        goodbye(b);
}

static int run(int argc, char **argv)
{
    struct bridge b = { .in = BUF_INIT(BRIDGE_LINE_MAX), .opening = BUF_INIT(BRIDGE_LINE_MAX) };
    const struct option_spec specs[] = { LINK_OPTIONS(b.options), { 0 } };
    int words, rc = options_read(&verb_stdio, argc, argv, specs, NULL, 0, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    arena_init(&b.tools_arena, TOOLS_ARENA);
    rc = link_open(&verb_stdio, &b.options, &b.link);
    if (!rc)
        bridge_run(&b);
    link_close(&b.link);
    arena_release(&b.tools_arena);
    buf_release(&b.in);
    buf_release(&b.opening);
    return rc;
}

const struct verb verb_stdio = { "stdio", "speak MCP on stdin and stdout", help, run };
