/* mcp_legacy_test.c -- clients of 2025-03-26 to 2025-11-25, and tokens */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mcp_bed.h"

#define CALL(id, tool, args) \
    "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"tools/call\"," \
    "\"params\":{\"name\":\"" tool "\",\"arguments\":" args "}}"
#define ADD(id) CALL(id, "bed.add", "{\"a\":1,\"b\":2}")
#define PLAIN(id, method, params) \
    "{\"jsonrpc\":\"2.0\",\"id\":" id ",\"method\":\"" method "\",\"params\":{" params "}}"
#define NOTE(method, params) "{\"jsonrpc\":\"2.0\",\"method\":\"" method "\",\"params\":{" params "}}"

static char session[64];

/* A session of that revision. */
static void open_session(struct bed *b, const char *version, const char *caps)
{
    struct reply r;

    initialize(b, version, caps, &r);
    assert_int_equal(r.status, 200);
    snprintf(session, sizeof(session), "%s", r.session);
    assert_true(session[0]);
    reply_release(&r);
}

/* ---- initialize, sessions ---------------------------------------------------------------------------------------- */

static void initialize_settles_the_version(void **state)
{
    static const char *const asked[][2] = { { "2025-03-26", "2025-03-26" }, { "2025-06-18", "2025-06-18" },
        { "2025-11-25", "2025-11-25" }, { "2024-11-05", "2025-11-25" }, { "2026-07-28", "2025-11-25" },
            { "x", "2025-11-25" } };
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
        initialize(&b, asked[i][0], "{}", &r);
        assert_str_at(&r, "result protocolVersion", asked[i][1]);
        assert_str_at(&r, "result serverInfo name", "sluice");
        assert_int_equal(at(&r, "result serverInfo title") != NULL, strcmp(asked[i][1], "2025-03-26") != 0);
        assert_non_null(at(&r, "result capabilities tools"));
        assert_null(at(&r, "result resultType"));
        assert_null(at(&r, "result _meta"));
        assert_true(r.session[0]);
        reply_release(&r);
    }
    post(&b, 0, "", PLAIN("1", "initialize", ""), &r);
    assert_int_equal(int_at(&r, "error code"), -32602);
    assert_false(r.session[0]);
    reply_release(&r);
    post(&b, 0, "MCP-Protocol-Version: 2026-07-28\r\n", PLAIN("1", "initialize", "\"protocolVersion\":\"2025-11-25\""),
         &r);
    assert_int_equal(r.status, 400);
    assert_int_equal(int_at(&r, "error code"), -32020);
    reply_release(&r);
    bed_stop(&b);
}

static void a_session_lives_until_it_is_ended(void **state)
{
    char headers[256];
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    open_session(&b, "2025-11-25", "{}");
    legacy(&b, 1, session, NOTE("notifications/initialized", ""), &r);
    assert_int_equal(r.status, 202);
    assert_int_equal(r.len, 0);
    reply_release(&r);
    legacy(&b, 1, session, PLAIN("\"p\"", "ping", ""), &r);
    assert_int_equal(r.len, strlen("{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"result\":{}}"));
    reply_release(&r);
    legacy(&b, 0, session, PLAIN("1", "logging/setLevel", "\"level\":\"error\""), &r);
    assert_int_equal(json_len(at(&r, "result")), 0);
    reply_release(&r);
    legacy(&b, 1, session, CALL("1", "bed.log", "{}"), &r);
    assert_int_equal(r.events, 0);              /* the level holds for the session */
    reply_release(&r);
    legacy(&b, 0, session, PLAIN("1", "logging/setLevel", "\"level\":\"shout\""), &r);
    assert_int_equal(int_at(&r, "error code"), -32602);
    reply_release(&r);
    snprintf(headers, sizeof(headers), "Mcp-Session-Id: %s\r\n", session);
    request(&b, 1, "DELETE", "/mcp", headers, NULL, &r);
    assert_int_equal(r.status, 204);
    reply_release(&r);
    legacy(&b, 0, session, ADD("1"), &r);
    assert_int_equal(r.status, 404);
    assert_int_equal(int_at(&r, "error code"), -32001);
    reply_release(&r);
    request(&b, 0, "DELETE", "/mcp", headers, NULL, &r);
    assert_int_equal(r.status, 404);
    reply_release(&r);
    legacy(&b, 0, "sess_made_up", NOTE("notifications/initialized", ""), &r);
    assert_int_equal(r.status, 404);
    reply_release(&r);
    legacy(&b, 0, "", ADD("1"), &r);            /* none at all: stateless */
    assert_str_at(&r, "result content 0 text", "{\"sum\":3}");
    reply_release(&r);
    bed_stop(&b);
}

static void a_session_is_its_callers_only(void **state)
{
    char headers[8192];
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, true);
    post(&b, 0, bed_token(&b, "alice", "shell", ""), PLAIN("0", "initialize", "\"protocolVersion\":\"2025-11-25\""),
         &r);
    snprintf(session, sizeof(session), "%s", r.session);
    assert_true(session[0]);
    reply_release(&r);
    snprintf(headers, sizeof(headers), "%sMcp-Session-Id: %s\r\n", bed_token(&b, "bob", "shell", ""), session);
    post(&b, 0, headers, ADD("1"), &r);
    assert_int_equal(r.status, 404);
    reply_release(&r);
    snprintf(headers, sizeof(headers), "%sMcp-Session-Id: %s\r\n", bed_token(&b, "alice", "robot", ""), session);
    request(&b, 0, "DELETE", "/mcp", headers, NULL, &r);
    assert_int_equal(r.status, 404);
    reply_release(&r);
    snprintf(headers, sizeof(headers), "Mcp-Session-Id: %s\r\n", session);
    post(&b, 0, headers, ADD("1"), &r);
    assert_int_equal(r.status, 401);            /* a session is no credential */
    reply_release(&r);
    snprintf(headers, sizeof(headers), "%sMcp-Session-Id: %s\r\n", bed_token(&b, "alice", "shell", ""), session);
    post(&b, 0, headers, ADD("1"), &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    bed_stop(&b);
}

static void sessions_are_bounded(void **state)
{
    struct mcp_options opt = { .sessions_max = 80 };
    char first[64], last[64];
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    open_session(&b, "2025-11-25", "{}");
    memcpy(first, session, sizeof(first));
    open_session(&b, "2025-11-25", "{}");
    memcpy(last, session, sizeof(last));
    legacy(&b, 0, first, PLAIN("1", "ping", ""), &r);       /* now it is the other that was not used for longest */
    reply_release(&r);
    for (int i = 0; i < 63; i++)
        open_session(&b, "2025-11-25", "{}");
    legacy(&b, 0, last, PLAIN("1", "ping", ""), &r);
    assert_int_equal(r.status, 404);
    reply_release(&r);
    legacy(&b, 0, first, PLAIN("1", "ping", ""), &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    bed_stop(&b);
}

static void versions_are_kept_apart(void **state)
{
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    post(&b, 0, "MCP-Protocol-Version: 2024-11-05\r\n", ADD("1"), &r);
    assert_int_equal(r.status, 400);
    assert_int_equal(int_at(&r, "error code"), -32600);
    reply_release(&r);
    post(&b, 0, "MCP-Protocol-Version: 2025-03-26\r\n", ADD("1"), &r);
    assert_null(at(&r, "result structuredContent"));
    reply_release(&r);
    post(&b, 0, "MCP-Protocol-Version: 2025-06-18\r\n", ADD("1"), &r);
    assert_int_equal(int_at(&r, "result structuredContent sum"), 3);
    assert_null(at(&r, "result resultType"));
    assert_null(at(&r, "result _meta io.modelcontextprotocol/serverInfo"));
    reply_release(&r);
    post(&b, 0, "", PLAIN("1", "tools/list", ""), &r);
    assert_null(at(&r, "result tools 0 outputSchema"));
    assert_null(at(&r, "result tools 0 title"));
    assert_null(at(&r, "result ttlMs"));
    reply_release(&r);
    post(&b, 0, "MCP-Protocol-Version: 2025-11-25\r\n", PLAIN("1", "tools/list", ""), &r);
    assert_str_at(&r, "result tools 0 outputSchema type", "object");
    reply_release(&r);
    bed_stop(&b);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *what, *body;
    int status;
    int64_t code;
} refusals[] = {
    { "no JSON", "{", 400, -32700 },
    { "nothing", "", 400, -32700 },
    { "no message", "7", 400, -32600 },
    { "params no object", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":[]}", 200, -32602 },
    { "unknown method", PLAIN("1", "no/such", ""), 200, -32601 },
    { "a method of the other era", PLAIN("1", "server/discover", ""), 200, -32601 },
    { "unknown tool", CALL("1", "no.such", "{}"), 200, -32602 },
    { "no name", PLAIN("1", "tools/call", ""), 200, -32602 },
    { "unknown prompt", PLAIN("1", "prompts/get", "\"name\":\"no\""), 200, -32602 },
    { "unknown resource", PLAIN("1", "resources/read", "\"uri\":\"bed://no\""), 200, -32002 },
    { "unknown resource to hear of", PLAIN("1", "resources/subscribe", "\"uri\":\"bed://no\""), 200, -32002 },
    { "bad cursor", PLAIN("1", "prompts/list", "\"cursor\":\"!\""), 200, -32602 },
};

static void each_refusal_has_its_code(void **state)
{
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        post(&b, 0, "", refusals[i].body, &r);
        if (r.status != refusals[i].status || int_at(&r, "error code") != refusals[i].code)
            fail_msg("%s: %d %.*s", refusals[i].what, r.status, (int)r.len, r.body);
        reply_release(&r);
    }
    post(&b, 0, "", PLAIN("1", "resources/read", "\"uri\":\"bed://no\""), &r);
    assert_str_at(&r, "error data uri", "bed://no");
    reply_release(&r);
    post(&b, 0, "", PLAIN("1", "resources/subscribe", "\"uri\":\"bed://note\""), &r);
    assert_int_equal(json_len(at(&r, "result")), 0);
    reply_release(&r);
    bed_stop(&b);
}

/* The codes of the later era never reach an earlier client, whatever a tool ends in. */
static void no_code_of_the_later_era(void **state)
{
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    for (int e = 1; e < ERR_COUNT; e++) {
        char body[256];
        struct reply r;

        if (err_row((enum err)e)->outcome == OUTCOME_NONE || e == E_INPUT_REQUIRED)
            continue;
        snprintf(body, sizeof(body), CALL("1", "bed.fail", "{\"code\":%d}"), e);
        post(&b, 0, "", body, &r);
        if (at(&r, "error")) {
            int64_t code = int_at(&r, "error code");

            assert_false(code <= -32020 && code >= -32099);
        } else {
            assert_str_at(&r, "result content 0 text", "as asked");
            assert_null(at(&r, "result resultType"));
        }
        reply_release(&r);
    }
    bed_stop(&b);
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static struct json *of_id(struct reply *r, int64_t id)
{
    for (struct json *it = json_first(r->json); it; it = json_next(it)) {
        int64_t n;

        if (json_int(json_get(it, "id"), &n) && n == id)
            return it;
    }
    return NULL;
}

static void a_batch_is_many_calls(void **state)
{
    struct mcp_options opt = { .batch_max = 4 };
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    open_session(&b, "2025-03-26", "{}");
    legacy(&b, 0, session, "[" ADD("1") "," NOTE("notifications/initialized", "") "," PLAIN("2", "ping", "") ","
           CALL("3", "no.such", "{}") "]", &r);
    atomic_fetch_add(&b.sent, 3);               /* each message is on record by itself */
    assert_int_equal(r.status, 200);
    assert_int_equal(json_len(r.json), 3);
    assert_string_equal(json_z(of_id(&r, 1), "result content 0 text"), "{\"sum\":3}");
    assert_non_null(json_get(of_id(&r, 2), "result"));
    assert_non_null(json_get(of_id(&r, 3), "error"));
    reply_release(&r);
    legacy(&b, 0, session, " [" NOTE("notifications/initialized", "") "]", &r);
    assert_int_equal(r.status, 202);
    assert_int_equal(r.len, 0);
    reply_release(&r);
    legacy(&b, 0, "", "[" ADD("1") "," PLAIN("2", "initialize", "\"protocolVersion\":\"2025-03-26\"") ",7]", &r);
    atomic_fetch_add(&b.sent, 2);
    assert_int_equal(json_len(r.json), 3);
    assert_int_equal(json_len(of_id(&r, 1)), 3);
    assert_string_equal(json_z(of_id(&r, 2), "error data dev.sluice/error"), "rpc_invalid");
    assert_null(strstr(r.head, "Mcp-Session-Id"));
    reply_release(&r);
    legacy(&b, 0, session, "[" CALL("1", "bed.log", "{}") "," ADD("2") "]", &r);
    atomic_fetch_add(&b.sent, 1);
    assert_int_equal(r.events, 2);              /* one line of the log, then all the answers */
    assert_int_equal(json_len(r.json), 2);
    reply_release(&r);
    bed_stop(&b);
}

static void batches_are_refused_as_a_whole(void **state)
{
    static const char *const bodies[] = { "[]", "[1,2,3,4,5]", "[" ADD("1"), "[" ADD("1") "]" };
    struct mcp_options opt = { .batch_max = 4 };
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        post(&b, 0, i == 3 ? "MCP-Protocol-Version: 2025-06-18\r\n" : "", bodies[i], &r);
        assert_int_equal(r.status, 400);
        assert_int_equal(int_at(&r, "error code"), i == 2 ? -32700 : -32600);
        assert_null(at(&r, "id"));
        reply_release(&r);
    }
    open_session(&b, "2025-11-25", "{}");
    legacy(&b, 0, session, "[" ADD("1") "]", &r);
    assert_int_equal(r.status, 400);
    reply_release(&r);
    bed_stop(&b);
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

#define ASKABLE "{\"elicitation\":{},\"sampling\":{}}"

/* The client's answer to a request of ours: `members` are "result":.. or "error":.. */
static void answer_to(struct bed *b, unsigned worker, const struct json *request_, const char *members)
{
    char body[1024];
    struct reply r;

    snprintf(body, sizeof(body), "{\"jsonrpc\":\"2.0\",\"id\":\"%s\",%s}", json_z(request_, "id"), members);
    legacy(b, worker, session, body, &r);
    assert_int_equal(r.status, 202);
    reply_release(&r);
}

static void ask(struct bed *b, struct stream *s)
{
    char headers[256];

    snprintf(headers, sizeof(headers), "Mcp-Session-Id: %s\r\n", session);
    stream_open(b, s, 0, "POST", headers, CALL("\"call\"", "bed.ask", "{}"));
}

#define YES "\"result\":{\"action\":\"accept\",\"content\":{\"name\":\"Bo\"}}"
#define MODEL "\"result\":{\"role\":\"assistant\",\"model\":\"m\",\"content\":{\"type\":\"text\",\"text\":\"Al\"}}"

static void questions_go_out_on_the_stream_of_their_call(void **state)
{
    struct stream s;
    struct json *m;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    open_session(&b, "2025-06-18", ASKABLE);
    ask(&b, &s);
    m = stream_next(&s);
    assert_string_equal(json_z(m, "method"), "elicitation/create");
    assert_string_equal(json_z(m, "params message"), "Who?");
    assert_null(json_get(json_get(m, "params"), "mode"));       /* this revision knows no modes */
    answer_to(&b, 1, m, YES);                                    /* on the other worker */
    answer_to(&b, 1, m, YES);                                    /* twice does no harm */
    m = stream_next(&s);
    assert_string_equal(json_z(m, "method"), "sampling/createMessage");
    answer_to(&b, 0, m, MODEL);
    m = stream_next(&s);
    assert_string_equal(json_z(m, "id"), "call");
    assert_string_equal(json_z(m, "result content 0 text"), "Bo and Al, 42");
    assert_null(stream_next(&s));
    stream_close(&s);
    bed_stop(&b);
}

static void an_answer_that_is_none_ends_the_call(void **state)
{
    static const struct {
        const char *answer, *said;
    } cases[] = {
        { "\"result\":{\"action\":\"decline\"}", "the user said no" },
        { "\"error\":{\"code\":-1,\"message\":\"closed the window\"}", "closed the window" },
        { "\"result\":{\"action\":\"accept\",\"content\":{\"name\":\"x\"}}", "does not fit" },
        { "\"result\":{}", "needs an action" },
    };
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    open_session(&b, "2025-11-25", ASKABLE);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct stream s;
        struct json *m;

        ask(&b, &s);
        answer_to(&b, 1, stream_next(&s), cases[i].answer);
        m = stream_next(&s);
        if (!strstr(json_z(m, "result content 0 text"), cases[i].said))
            fail_msg("%s: %s", cases[i].answer, json_z(m, "result content 0 text"));
        assert_non_null(json_get(json_get(m, "result"), "isError"));
        stream_close(&s);
    }
    bed_stop(&b);
}

static void who_cannot_be_asked_is_told_so(void **state)
{
    struct mcp_options opt = { .ask_ms = 100 };
    char other[64];
    struct stream s;
    struct json *m;
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    open_session(&b, "2025-11-25", "{\"sampling\":{}}");
    legacy(&b, 0, session, CALL("1", "bed.ask", "{}"), &r);
    assert_str_at(&r, "result _meta dev.sluice/error", "capability_missing");
    reply_release(&r);
    legacy(&b, 0, "", CALL("1", "bed.ask", "{}"), &r);          /* without a session nobody could answer */
    assert_str_at(&r, "result _meta dev.sluice/error", "capability_missing");
    reply_release(&r);
    memcpy(other, session, sizeof(other));
    open_session(&b, "2025-11-25", ASKABLE);
    ask(&b, &s);
    m = stream_next(&s);
    memcpy(session, other, sizeof(other));
    answer_to(&b, 0, m, YES);                                    /* another session's answer is none */
    m = stream_next(&s);
    assert_non_null(strstr(json_z(m, "result content 0 text"), "did not answer"));
    stream_close(&s);
    bed_stop(&b);
}

/* ---- cancelling, streams ----------------------------------------------------------------------------------------- */

static void a_notification_cancels(void **state)
{
    char headers[256];
    struct stream s;
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    open_session(&b, "2025-11-25", "{}");
    snprintf(headers, sizeof(headers), "Mcp-Session-Id: %s\r\n", session);
    stream_open(&b, &s, 0, "POST", headers, CALL("\"w\"", "bed.wait", "{\"ms\":60000}"));
    sem_wait(&tool_waits);
    legacy(&b, 1, session, NOTE("notifications/cancelled", "\"requestId\":\"v\""), &r);     /* unknown: ignored */
    assert_int_equal(r.status, 202);
    reply_release(&r);
    legacy(&b, 1, session, NOTE("notifications/cancelled", "\"requestId\":\"w\""), &r);
    assert_int_equal(r.status, 202);
    reply_release(&r);
    sem_wait(&tool_cancelled);
    stream_close(&s);
    bed_stop(&b);
}

/* Its connection lost, the call goes on; only its answer has nowhere to go. */
static void a_lost_connection_is_no_cancel(void **state)
{
    struct stream s;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    stream_open(&b, &s, 0, "POST", "", CALL("1", "bed.wait", "{\"ms\":200}"));
    sem_wait(&tool_waits);
    stream_close(&s);
    bed_stop(&b);
    assert_int_equal(sem_trywait(&tool_cancelled), -1);
}

static void a_session_has_one_stream(void **state)
{
    struct mcp_options opt = { .keepalive_ms = 20 };
    char headers[256];
    struct stream s;
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    open_session(&b, "2025-11-25", "{}");
    snprintf(headers, sizeof(headers), "Mcp-Session-Id: %s\r\n", session);
    stream_open(&b, &s, 0, "GET", headers, NULL);
    stream_pinged(&s, 1);
    legacy(&b, 1, session, CALL("1", "bed.announce", "{}"), &r);
    reply_release(&r);
    assert_string_equal(json_z(stream_next(&s), "method"), "notifications/tools/list_changed");
    assert_string_equal(json_z(stream_next(&s), "method"), "notifications/prompts/list_changed");
    snprintf(headers, sizeof(headers), "Accept: text/event-stream\r\nMcp-Session-Id: %s\r\n", session);
    request(&b, 1, "GET", "/mcp", headers, NULL, &r);
    assert_int_equal(r.status, 409);
    reply_release(&r);
    request(&b, 1, "DELETE", "/mcp", headers, NULL, &r);
    assert_int_equal(r.status, 204);
    reply_release(&r);
    while (stream_next(&s))
        ;
    stream_close(&s);
    bed_stop(&b);
}

/* However late its answer and whatever form it takes: without the id in its head the session is lost. */
static void every_answer_to_initialize_names_the_session(void **state)
{
    static const char *const accepts[] = { "application/json, text/event-stream", "text/event-stream",
        "application/json" };
    struct mcp_options opt = { .keepalive_ms = 1 };
    char headers[128];
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    for (unsigned i = 0; i < 60; i++) {
        snprintf(headers, sizeof(headers), "Content-Type: application/json\r\nAccept: %s\r\n", accepts[i % 3]);
        request(&b, 0, "POST", "/mcp", headers, PLAIN("1", "initialize", "\"protocolVersion\":\"2025-11-25\""), &r);
        assert_int_equal(r.status, 200);
        assert_str_at(&r, "result protocolVersion", "2025-11-25");
        assert_true(r.session[0]);
        reply_release(&r);
    }
    bed_stop(&b);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static void without_a_token_the_way_to_one_is_told(void **state)
{
    static const char metadata[] = "resource_metadata=\"http://localhost:1/.well-known/oauth-protected-resource/mcp\"";
    struct mcp_options opt = { .scopes = (const char *const[]){ "tools", "more", NULL } };
    char headers[9000];
    const char *token;
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, true);
    post(&b, 0, "", ADD("1"), &r);
    assert_int_equal(r.status, 401);
    assert_true(head_has(&r, metadata) && head_has(&r, "scope=\"tools more\"") && !head_has(&r, "error="));
    assert_int_equal(int_at(&r, "error code"), -32000);
    reply_release(&r);
    post(&b, 0, "", "{", &r);                   /* who is not known learns nothing about the message */
    assert_int_equal(r.status, 401);
    reply_release(&r);
    post(&b, 0, "", "[" ADD("1") "]", &r);
    assert_int_equal(r.status, 401);
    reply_release(&r);
    post(&b, 0, "Authorization: Bearer a.b.c\r\n", ADD("1"), &r);
    assert_int_equal(r.status, 401);
    assert_true(head_has(&r, "error=\"invalid_token\"") && head_has(&r, metadata));
    reply_release(&r);
    token = bed_token(&b, "alice", "shell", "");
    snprintf(headers, sizeof(headers), "%s%s", token, token);
    post(&b, 0, headers, ADD("1"), &r);
    assert_int_equal(r.status, 401);
    reply_release(&r);
    snprintf(headers, sizeof(headers), "Content-Type: application/json\r\n%s", token);
    request(&b, 0, "POST", "/mcp?access_token=x", headers, ADD("1"), &r);
    atomic_fetch_add(&b.sent, 1);
    assert_int_equal(r.status, 401);
    reply_release(&r);
    request(&b, 0, "DELETE", "/mcp", "Mcp-Session-Id: x\r\n", NULL, &r);
    assert_int_equal(r.status, 401);
    reply_release(&r);
    post(&b, 0, token, ADD("1"), &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    atomic_store(&bed_wall_offset, 2 * 3600 * 1000);
    post(&b, 0, token, ADD("1"), &r);
    assert_int_equal(r.status, 401);
    reply_release(&r);
    bed_stop(&b);
}

static void the_metadata_needs_no_token(void **state)
{
    static const char *const paths[] = { "/.well-known/oauth-protected-resource",
                                         "/.well-known/oauth-protected-resource/mcp" };
    struct mcp_options opt = { .scopes = (const char *const[]){ "tools", NULL } };
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, true);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        request(&b, 0, "GET", paths[i], "Origin: https://anywhere.example\r\n", NULL, &r);
        assert_int_equal(r.status, 200);
        assert_true(head_has(&r, "Access-Control-Allow-Origin: *"));
        assert_str_at(&r, "resource", "http://localhost:1/mcp");
        assert_str_at(&r, "authorization_servers 0", "bed:local");
        assert_str_at(&r, "scopes_supported 0", "tools");
        reply_release(&r);
        request(&b, 0, "OPTIONS", paths[i], "Origin: https://anywhere.example\r\n", NULL, &r);
        assert_int_equal(r.status, 204);
        reply_release(&r);
        request(&b, 0, "POST", paths[i], "", "{}", &r);
        assert_int_equal(r.status, 405);
        reply_release(&r);
    }
    bed_stop(&b);
}

static void a_scope_that_is_required_is_asked_for(void **state)
{
    struct mcp_options opt = { .scopes = (const char *const[]){ "tools", "more", NULL }, .scopes_required = true };
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, true);
    post(&b, 0, bed_token(&b, "alice", "shell", "tools"), ADD("1"), &r);
    assert_int_equal(r.status, 403);
    assert_true(head_has(&r, "error=\"insufficient_scope\"") && head_has(&r, "scope=\"tools more\""));
    reply_release(&r);
    post(&b, 0, bed_token(&b, "alice", "shell", "tools more"), ADD("1"), &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    bed_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initialize_settles_the_version),
        cmocka_unit_test(a_session_lives_until_it_is_ended),
        cmocka_unit_test(a_session_is_its_callers_only),
        cmocka_unit_test(sessions_are_bounded),
        cmocka_unit_test(versions_are_kept_apart),
        cmocka_unit_test(each_refusal_has_its_code),
        cmocka_unit_test(no_code_of_the_later_era),
        cmocka_unit_test(a_batch_is_many_calls),
        cmocka_unit_test(batches_are_refused_as_a_whole),
        cmocka_unit_test(questions_go_out_on_the_stream_of_their_call),
        cmocka_unit_test(an_answer_that_is_none_ends_the_call),
        cmocka_unit_test(who_cannot_be_asked_is_told_so),
        cmocka_unit_test(a_notification_cancels),
        cmocka_unit_test(a_lost_connection_is_no_cancel),
        cmocka_unit_test(a_session_has_one_stream),
        cmocka_unit_test(every_answer_to_initialize_names_the_session),
        cmocka_unit_test(without_a_token_the_way_to_one_is_told),
        cmocka_unit_test(the_metadata_needs_no_token),
        cmocka_unit_test(a_scope_that_is_required_is_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
