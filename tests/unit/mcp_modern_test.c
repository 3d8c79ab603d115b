/* mcp_modern_test.c -- clients of 2026-07-28, over sockets */
#include <stdio.h>
#include <unistd.h>

#include "base/crypto.h"
#include "loop/world.h"
#include "mcp_bed.h"

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static void discover_says_what_is_there(void **state)
{
    struct mcp_options opt = { .instructions = "Be kind." };
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    modern(&b, &(struct modern){ .method = "server/discover" }, &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(int_at(&r, "id"), 7);
    assert_str_at(&r, "result resultType", "complete");
    assert_str_at(&r, "result supportedVersions 0", "2026-07-28");
    assert_int_equal(json_len(at(&r, "result supportedVersions")), 1);
    assert_str_at(&r, "result cacheScope", "private");
    assert_int_equal(int_at(&r, "result ttlMs"), 0);
    assert_str_at(&r, "result instructions", "Be kind.");
    assert_non_null(at(&r, "result capabilities tools"));
    assert_non_null(at(&r, "result capabilities prompts"));
    assert_non_null(at(&r, "result capabilities completions"));
    assert_str_at(&r, "result _meta io.modelcontextprotocol/serverInfo name", "sluice");
    assert_true(head_has(&r, "Cache-Control: no-store"));
    assert_false(head_has(&r, "Mcp-Session-Id"));
    reply_release(&r);
    bed_stop(&b);
}

#define V "MCP-Protocol-Version: 2026-07-28\r\n"
#define ENVELOPE \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"," \
    "\"io.modelcontextprotocol/clientCapabilities\":{}}"
#define REQUEST(method, params) \
    "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"" method "\",\"params\":{" params ENVELOPE "}}"

#define M(method) "Mcp-Method: " method "\r\n"
#define CALL(tool) M("tools/call") "Mcp-Name: " tool "\r\n"

static const struct {
    const char *what, *headers, *body;
    int status;
    int64_t code;
    bool id;
} refusals[] = {
    { "no JSON", V, "{\"jsonrpc\":", 400, -32700, false },
    { "duplicate keys", V, "{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\"}", 400, -32700, false },
    { "a batch", V, "[" REQUEST("tools/list", "") "]", 400, -32600, false },
    { "null id", V, "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"tools/list\"}", 400, -32600, false },
    { "no envelope", V M("server/discover"),
      "{\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"server/discover\",\"params\":{}}", 400, -32602, true },
    { "no method header", V, REQUEST("tools/list", ""), 400, -32020, true },
    { "no version header", M("tools/list"), REQUEST("tools/list", ""), 400, -32020, true },
    { "no name header", V M("tools/call"), REQUEST("tools/call", "\"name\":\"bed.add\","), 400, -32020, true },
    { "another name header", V CALL("bed.ad"), REQUEST("tools/call", "\"name\":\"bed.add\","), 400, -32020, true },
    { "a name header that does not decode", V CALL("=?base64?SGVsbG8?="),
      REQUEST("tools/call", "\"name\":\"bed.add\","), 400, -32020, true },
    { "a name header for no name", V CALL("x"), REQUEST("tools/call", ""), 400, -32020, true },
    { "no name", V M("tools/call"), REQUEST("tools/call", ""), 400, -32602, true },
    { "arguments no object", V CALL("bed.add"),
      REQUEST("tools/call", "\"name\":\"bed.add\",\"arguments\":[],"), 400, -32602, true },
    { "a mirrored argument without its header", V CALL("bed.mirror"),
      REQUEST("tools/call", "\"name\":\"bed.mirror\",\"arguments\":{\"region\":\"eu\"},"), 400, -32020, true },
    { "unknown tool", V CALL("no.such"), REQUEST("tools/call", "\"name\":\"no.such\","), 200, -32602, true },
    { "unknown prompt", V M("prompts/get") "Mcp-Name: no\r\n", REQUEST("prompts/get", "\"name\":\"no\","), 200,
      -32602, true },
    { "unknown method", V M("no/such"), REQUEST("no/such", ""), 404, -32601, true },
    { "initialize", V M("initialize"), REQUEST("initialize", ""), 404, -32601, true },
    { "ping", V M("ping"), REQUEST("ping", ""), 404, -32601, true },
    { "logging/setLevel", V M("logging/setLevel"), REQUEST("logging/setLevel", ""), 404, -32601, true },
    { "resources/subscribe", V M("resources/subscribe"), REQUEST("resources/subscribe", ""), 404, -32601, true },
    { "bad cursor", V M("tools/list"), REQUEST("tools/list", "\"cursor\":\"nonsense\","), 200, -32602, true },
    { "cursor of another list", V M("tools/list"), REQUEST("tools/list", "\"cursor\":\"cDpncmVldA\","), 200, -32602,
      true },
    { "bad requestState", V CALL("bed.ask"),
      REQUEST("tools/call", "\"name\":\"bed.ask\",\"requestState\":\"s1.AAAA\","), 200, -32602, true },
    { "requestState no string", V CALL("bed.ask"),
      REQUEST("tools/call", "\"name\":\"bed.ask\",\"requestState\":7,"), 400, -32602, true },
    { "an answer that is none", V CALL("bed.ask"),
      REQUEST("tools/call", "\"name\":\"bed.ask\",\"inputResponses\":{\"first\":null},"), 400, -32602, true },
    { "no capability", V CALL("bed.ask"), REQUEST("tools/call", "\"name\":\"bed.ask\","), 400, -32021, true },
    { "bad completion", V M("completion/complete"),
      REQUEST("completion/complete", "\"ref\":{\"type\":\"ref/none\"},\"argument\":{\"name\":\"a\",\"value\":\"\"},"),
      200, -32602, true },
    { "listen without a filter", V M("subscriptions/listen"), REQUEST("subscriptions/listen", ""), 200, -32602, true },
    { "a response", V, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", 400, -32600, true },
};

static void each_refusal_has_its_code(void **state)
{
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        struct reply r;

        post(&b, i % 2, refusals[i].headers, refusals[i].body, &r);
        if (r.status != refusals[i].status || int_at(&r, "error code") != refusals[i].code ||
            (at(&r, "id") != NULL) != refusals[i].id)
            fail_msg("%s: %d %.*s", refusals[i].what, r.status, (int)r.len, r.body);
        assert_int_equal(strncmp(z_at(&r, "error data dev.sluice/call"), "call_", 5), 0);
        reply_release(&r);
    }
    bed_stop(&b);
}

static void an_unserved_version_is_told_the_served_ones(void **state)
{
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    post(&b, 0, "MCP-Protocol-Version: 2099-01-01\r\nMcp-Method: tools/list\r\n",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{\"_meta\":{"
         "\"io.modelcontextprotocol/protocolVersion\":\"2099-01-01\","
         "\"io.modelcontextprotocol/clientCapabilities\":{}}}}", &r);
    assert_int_equal(r.status, 400);
    assert_int_equal(int_at(&r, "error code"), -32022);
    assert_str_at(&r, "error data requested", "2099-01-01");
    assert_str_at(&r, "error data supported 0", "2026-07-28");
    reply_release(&r);
    bed_stop(&b);
}

static void http_itself_is_guarded(void **state)
{
    static const char json[] = "Content-Type: application/json\r\nAccept: */*\r\n";
    static const struct {
        const char *method, *headers, *body;
        int status;
        const char *header;
    } cases[] = {
        { "POST", "Host: evil.example\r\nContent-Type: application/json\r\n", "{}", 403, NULL },
        { "POST", "Host: localhost.evil.example\r\nContent-Type: application/json\r\n", "{}", 403, NULL },
        { "POST", "Origin: http://evil.example\r\nContent-Type: application/json\r\n", "{}", 403, NULL },
        { "POST", "Origin: null\r\nContent-Type: application/json\r\n", "{}", 403, NULL },
        { "POST", "Origin: http://localhost:3000\r\nContent-Type: application/json\r\n", "{}", 400,
          "Access-Control-Allow-Origin: http://localhost:3000" },
        { "POST", "Origin: https://app.example.com\r\nContent-Type: application/json\r\n", "{}", 400,
          "Access-Control-Allow-Origin: https://app.example.com" },
        { "POST", "Host: mcp.example.com\r\nContent-Type: application/json\r\n", "{}", 400, NULL },
        { "POST", "Host: other.example.com:8443\r\nContent-Type: application/json\r\n", "{}", 400, NULL },
        { "POST", "Host: other.example.com:8444\r\nContent-Type: application/json\r\n", "{}", 403, NULL },
        { "PUT", json, "{}", 405, "Allow: POST" },
        { "GET", "Accept: text/event-stream\r\n", NULL, 405, "Allow: POST" },
        { "GET", V "Mcp-Session-Id: x\r\nAccept: text/event-stream\r\n", NULL, 405, "Allow: POST" },
        { "DELETE", "Accept: */*\r\n", NULL, 405, "Allow: POST" },
        { "POST", "Content-Type: text/plain\r\n", "{}", 415, NULL },
        { "POST", "Accept: */*\r\n", "{}", 415, NULL },
        { "POST", "Content-Type: application/json\r\nAccept: text/html\r\n", "{}", 406, NULL },
        { "POST", "Content-Type: application/json; charset=utf-8\r\n", "{}", 400, NULL },
    };
    struct mcp_options opt = { .hosts = (const char *const[]){ "other.example.com:8443", NULL },
                               .public_url = "https://mcp.example.com",
                               .origins = (const char *const[]){ "https://app.example.com", NULL } };
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, NULL, false);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        request(&b, 0, cases[i].method, "/mcp", cases[i].headers, cases[i].body, &r);
        if (r.status != cases[i].status || (cases[i].header && !head_has(&r, cases[i].header)) ||
            !at(&r, "error code") || at(&r, "id"))
            fail_msg("%s %s: %d %s %.*s", cases[i].method, cases[i].headers, r.status, r.head, (int)r.len, r.body);
        reply_release(&r);
    }
    request(&b, 0, "OPTIONS", "/mcp", "Origin: https://app.example.com\r\nAccess-Control-Request-Method: POST\r\n",
            NULL, &r);
    assert_int_equal(r.status, 204);
    assert_true(head_has(&r, "Access-Control-Allow-Origin: https://app.example.com"));
    reply_release(&r);
    request(&b, 0, "OPTIONS", "/mcp", "Origin: https://evil.example\r\n", NULL, &r);
    atomic_fetch_add(&b.sent, 1);       /* a refused preflight is on record */
    assert_int_equal(r.status, 403);
    reply_release(&r);
    bed_stop(&b);
}

/* Every row of errors.def that can end a call, raised by a tool: its code, its status, or a result a model may read. */
static void each_error_is_told_as_the_table_says(void **state)
{
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    for (int e = 1; e < ERR_COUNT; e++) {
        const struct err_row *row = err_row((enum err)e);
        char args[64];
        struct reply r;

        if (row->outcome == OUTCOME_NONE || e == E_INPUT_REQUIRED)
            continue;
        snprintf(args, sizeof(args), "{\"code\":%d}", e);
        modern_call(&b, "bed.fail", args, &r);
        if (row->rpc) {
            if (r.status != row->http || int_at(&r, "error code") != row->rpc)
                fail_msg("%s: %d %.*s", row->name, r.status, (int)r.len, r.body);
            assert_str_at(&r, "error message", "as asked");
            assert_str_at(&r, "error data dev.sluice/error", row->name);
        } else {
            assert_int_equal(r.status, 200);
            assert_str_at(&r, "result content 0 text", "as asked");
            assert_str_at(&r, "result resultType", "complete");
            assert_str_at(&r, "result _meta dev.sluice/error", row->name);
            assert_non_null(at(&r, "result isError"));
        }
        if (r.status == 503)
            assert_true(head_has(&r, "Retry-After: "));
        reply_release(&r);
    }
    bed_stop(&b);
}

/* ---- tools ------------------------------------------------------------------------------------------------------- */

static void results_are_structured_and_text(void **state)
{
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    modern_call(&b, "bed.add", "{\"a\":2,\"b\":3}", &r);
    assert_int_equal(r.status, 200);
    assert_true(head_has(&r, "application/json"));
    assert_int_equal(int_at(&r, "result structuredContent sum"), 5);
    assert_str_at(&r, "result content 0 text", "{\"sum\":5}");
    assert_str_at(&r, "result resultType", "complete");
    assert_str_at(&r, "result _meta dev.sluice/outcome", "done");
    assert_null(at(&r, "result isError"));
    reply_release(&r);
    modern_call(&b, "bed.list", "{\"n\":2}", &r);
    assert_str_at(&r, "result content 0 text", "some items");
    assert_str_at(&r, "result structuredContent items 1", "item 1");
    reply_release(&r);
    modern_call(&b, "bed.shape", "{}", &r);
    assert_str_at(&r, "result content 0 text",
                  "{\"items\":[{\"x\":[1]}],\"shape\":{\"mail\":\"a \\\"b\\\" c\",\"no_string\":\"\",\"absent\":\"\","
                  "\"number\":\"-9223372036854775808\",\"left\":false,"
                  "\"rest\":{\"from\":{\"who\":{\"mail\":\"a \\\"b\\\" c\"}},\"n\":1},"
                  "\"picked\":[{\"mail\":\"a\",\"n\":20,\"on\":true},{\"mail\":\"\",\"n\":0,\"on\":false}]}}");
    reply_release(&r);
    modern_call(&b, "bed.add", "{\"a\":2}", &r);        /* does not fit: for the model to mend */
    assert_int_equal(r.status, 200);
    assert_str_at(&r, "result _meta dev.sluice/error", "args_invalid");
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "tools/call", .name = "=?base64?YmVkLm1pcnJvcg==?=",
           .params = "\"name\":\"bed.mirror\",\"arguments\":{\"region\":\"eu\",\"count\":42,\"on\":true}",
           .headers = "Mcp-Param-Region: eu\r\nMcp-Param-Count: 42.0\r\nMcp-Param-On: true\r\n" }, &r);
    assert_str_at(&r, "result content 0 text", "eu");
    reply_release(&r);
    bed_stop(&b);
}

/* Of arguments, as calls have it. */
static const char *digest_of(const char *arguments)
{
    static struct buf hex;
    uint8_t hash[SHA256_LEN];

    buf_release(&hex);
    hex = BUF_INIT(80);
    sha256(arguments, strlen(arguments), hash);
    buf_add_hex(&hex, hash, sizeof(hash));
    buf_add_c(&hex, '\0');
    return hex.p;
}

/* An idempotency key: the write happens once, whichever way the key came, and on whichever worker. */
static void a_key_makes_a_write_happen_once(void **state)
{
    struct modern m = { .method = "tools/call", .name = "bed.write", .params =
                        "\"name\":\"bed.write\",\"arguments\":{\"what\":\"it\"}" };
    char first[64];
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    atomic_store(&tool_writes, 0);
    m.headers = "Idempotency-Key: k1\r\n";
    modern(&b, &m, &r);
    assert_int_equal(int_at(&r, "result structuredContent n"), 1);
    snprintf(first, sizeof(first), "%s", z_at(&r, "result _meta dev.sluice/call"));
    reply_release(&r);
    m.meta = ",\"dev.sluice/idempotencyKey\":\"k1\"";
    m.worker = 1;
    modern(&b, &m, &r);
    assert_int_equal(int_at(&r, "result structuredContent n"), 1);
    assert_str_at(&r, "result _meta dev.sluice/replayOf", first);
    reply_release(&r);
    m.headers = "Idempotency-Key: k2\r\n";
    modern(&b, &m, &r);
    assert_int_equal(int_at(&r, "error code"), -32602);
    reply_release(&r);
    m.headers = NULL;
    m.params = "\"name\":\"bed.write\",\"arguments\":{\"what\":\"other\"}";
    modern(&b, &m, &r);
    assert_str_at(&r, "result _meta dev.sluice/error", "key_reused");
    reply_release(&r);
    assert_int_equal(atomic_load(&tool_writes), 1);
    bed_stop(&b);
}

/* A header may have any bytes, the journal has UTF-8: another key would come back from it after a restart. */
static void a_key_is_utf8(void **state)
{
    struct once_name name = { STR("acme"), STR("alice"), STR("tester"), STR("bed.write"), STR("caf\xe9") };
    struct modern m = { .method = "tools/call", .name = "bed.write", .headers = "Idempotency-Key: caf\xe9\r\n",
                        .params = "\"name\":\"bed.write\",\"arguments\":{\"what\":\"it\"}" };
    struct once_entry *claimed;
    struct once_record replay;
    struct arena a;
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    atomic_store(&tool_writes, 0);
    modern(&b, &m, &r);
    assert_int_equal(int_at(&r, "error code"), -32602);
    assert_str_at(&r, "error message", "Idempotency-Key must be UTF-8");
    reply_release(&r);
    for (int i = 0; i < 2; i++) {
        m.headers = "Idempotency-Key: caf\xc3\xa9\r\n";
        modern(&b, &m, &r);
        assert_int_equal(int_at(&r, "result structuredContent n"), 1);
        reply_release(&r);
    }
    m.meta = ",\"dev.sluice/idempotencyKey\":\"caf\\u00e9\"";
    modern(&b, &m, &r);
    assert_int_equal(int_at(&r, "result structuredContent n"), 1);
    reply_release(&r);
    arena_init(&a, 4096);               /* whoever forgets to look: no name that would change is claimed */
    assert_int_equal(await_once_claim(b.engine.once, &name, digest_of("{}"), "call_a", 1, NS_NEVER, &a, &claimed,
                                      &replay), E_ARGS_INVALID);
    arena_release(&a);
    bed_stop(&b);
}

/* Lanes are read back one after the other: of two calls that had a key in turn, the later may come first. */
static void of_two_calls_with_a_restored_key_the_later_counts(void **state)
{
    struct modern m = { .method = "tools/call", .name = "bed.write",
                        .params = "\"name\":\"bed.write\",\"arguments\":{\"what\":\"it\"}" };
    struct str digest = str_of(digest_of("{\"what\":\"it\"}"));
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    for (int first = 0; first < 2; first++) {
        struct once_name name = { STR("acme"), STR("alice"), STR("tester"), STR("bed.write"), STR("k0") };
        wall_ms_t now = world->wall_ms();

        if (first)
            name.key = STR("k1");
        for (int i = 0; i < 2; i++) {
            if (i == first)
                once_restore(b.engine.once, &name, digest, STR("call_later"), now - 1000, now, OUTCOME_DONE, OK,
                             STR_NULL);
            else
                once_restore(b.engine.once, &name, digest, STR("call_open"), now - 2000, now, OUTCOME_UNKNOWN,
                             E_OUTCOME_UNKNOWN, STR_NULL);
        }
        m.headers = first ? "Idempotency-Key: k1\r\n" : "Idempotency-Key: k0\r\n";
        modern(&b, &m, &r);
        assert_str_at(&r, "result _meta dev.sluice/replayOf", "call_later");
        reply_release(&r);
    }
    bed_stop(&b);
}

/* Its result was too large to be kept: a repeat is told that it is done, and that is its outcome. */
static void a_repeat_of_what_is_done_is_done(void **state)
{
    static const struct once_name name = { STR("acme"), STR("alice"), STR("tester"), STR("bed.write"), STR("k") };
    struct modern m = { .method = "tools/call", .name = "bed.write", .headers = "Idempotency-Key: k\r\n",
                        .params = "\"name\":\"bed.write\",\"arguments\":{\"what\":\"it\"}" };
    struct str digest = str_of(digest_of("{\"what\":\"it\"}"));
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    atomic_store(&tool_writes, 0);
    once_restore(b.engine.once, &name, digest, STR("call_before"), world->wall_ms(), world->wall_ms(), OUTCOME_DONE, OK,
                 STR_NULL);
    modern(&b, &m, &r);
    assert_str_at(&r, "result _meta dev.sluice/outcome", "done");
    assert_str_at(&r, "result _meta dev.sluice/error", "no_result");
    assert_str_at(&r, "result _meta dev.sluice/replayOf", "call_before");
    assert_non_null(strstr(z_at(&r, "result content 0 text"), "(call_before) and is done"));
    reply_release(&r);
    assert_int_equal(atomic_load(&tool_writes), 0);
    bed_stop(&b);
}

static const char some_forbidden[] =
    "permit(principal, action, resource);\n"
    "@id(\"no-secrets\") forbid(principal, action == Action::\"bed.secret\", resource);\n"
    "forbid(principal, action == Action::\"bed.hidden\", resource);\n";

static void lists_show_what_policy_could_allow(void **state)
{
    struct mcp_options opt = { .page = 5 };
    char cursor[256] = "", seen[2048] = "", previous[64] = "";
    struct reply r;
    struct bed b;

    bed_start(&b, &opt, some_forbidden, false);
    for (int pages = 0; pages < 5; pages++) {
        struct json *tools;

        modern(&b, &(struct modern){ .method = "tools/list", .params = cursor, .worker = (unsigned)pages % 2 }, &r);
        tools = at(&r, "result tools");
        assert_true(json_len(tools) > 0 && json_len(tools) <= 5);
        for (struct json *it = json_first(tools); it; it = json_next(it)) {
            const char *name = json_z(it, "name");

            assert_true(strcmp(previous, name) < 0);
            snprintf(previous, sizeof(previous), "%s", name);
            strcat(strcat(seen, name), " ");
            assert_string_equal(json_z(it, "inputSchema type"), "object");
            assert_true(json_z(it, "description")[0] && json_z(it, "title")[0]);
        }
        snprintf(cursor, sizeof(cursor), "\"cursor\":\"%s\"", z_at(&r, "result nextCursor"));
        reply_release(&r);
        if (strcmp(cursor, "\"cursor\":\"\"") == 0)
            break;
    }
    assert_string_equal(seen,
                        "bed.add bed.announce bed.ask bed.fail bed.heavy bed.list bed.log bed.mirror bed.progress "
                        "bed.shape bed.unplug bed.wait bed.write ");
    modern_call(&b, "bed.secret", "{}", &r);
    assert_str_at(&r, "result _meta dev.sluice/error", "policy_denied");
    assert_non_null(strstr(z_at(&r, "result content 0 text"), "no-secrets"));
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "prompts/list" }, &r);
    assert_int_equal(json_len(at(&r, "result prompts")), 2);
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "prompts/get", .name = "hidden", .params = "\"name\":\"hidden\"" }, &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(int_at(&r, "error code"), -32602);
    assert_str_at(&r, "error data dev.sluice/error", "policy_denied");
    reply_release(&r);
    bed_stop(&b);
}

static void annotations_come_from_the_effect(void **state)
{
    struct reply r;
    struct bed b;
    bool reads, destroys;

    bed_start(&b, NULL, NULL, false);
    modern(&b, &(struct modern){ .method = "tools/list" }, &r);
    for (struct json *it = json_first(at(&r, "result tools")); it; it = json_next(it)) {
        assert_true(json_bool(json_get(json_get(it, "annotations"), "readOnlyHint"), &reads));
        assert_true(json_bool(json_get(json_get(it, "annotations"), "destructiveHint"), &destroys));
        assert_int_equal(reads, strcmp(json_z(it, "name"), "bed.write") != 0 &&
                         strcmp(json_z(it, "name"), "bed.secret") != 0);
        assert_int_equal(destroys, strcmp(json_z(it, "name"), "bed.secret") == 0);
    }
    reply_release(&r);
    bed_stop(&b);
}

/* ---- prompts, resources, completion ------------------------------------------------------------------------------ */

static void prompts_and_resources_answer(void **state)
{
    struct reply r;
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    modern(&b, &(struct modern){ .method = "prompts/get", .name = "greet", .params =
                                 "\"name\":\"greet\",\"arguments\":{\"who\":\"Bo\"}" }, &r);
    assert_str_at(&r, "result messages 0 role", "user");
    assert_str_at(&r, "result messages 0 content text", "Greet Bo");
    assert_str_at(&r, "result resultType", "complete");
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "prompts/get", .name = "greet", .params = "\"name\":\"greet\"" }, &r);
    assert_int_equal(int_at(&r, "error code"), -32602);
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "prompts/get", .name = "greet", .params =
                                 "\"name\":\"greet\",\"arguments\":{\"who\":7}" }, &r);
    assert_int_equal(int_at(&r, "error code"), -32602);
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "resources/list" }, &r);
    assert_int_equal(json_len(at(&r, "result resources")), 2);
    assert_str_at(&r, "result cacheScope", "private");
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "resources/templates/list" }, &r);
    assert_str_at(&r, "result resourceTemplates 0 uriTemplate", "bed://page/{id}/text");
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "resources/read", .name = "bed://page/9/text",
                                 .params = "\"uri\":\"bed://page/9/text\"" }, &r);
    assert_str_at(&r, "result contents 0 text", "bed://page/9/text");
    assert_int_equal(int_at(&r, "result ttlMs"), 0);
    reply_release(&r);
    modern(&b, &(struct modern){ .method = "completion/complete",
           .params = "\"ref\":{\"type\":\"ref/prompt\",\"name\":\"greet\"},\"argument\":{\"name\":\"who\","
                     "\"value\":\"a\"}" }, &r);
    assert_int_equal(json_len(at(&r, "result completion values")), 100);
    assert_int_equal(int_at(&r, "result completion total"), 150);
    assert_str_at(&r, "result completion values 3", "a3");
    reply_release(&r);
    bed_stop(&b);
}

static void unknown_resources_are_named(void **state)
{
    static const char *const uris[] = { "bed://nothing", "bed://empty", "bed://page/../text", "bed://page//text",
                                        "bed://page/a/b/text" };
    struct bed b;

    bed_start(&b, NULL, NULL, false);
    for (size_t i = 0; i < ARRAY_LEN(uris); i++) {
        char params[128];
        struct reply r;

        snprintf(params, sizeof(params), "\"uri\":\"%s\"", uris[i]);
        modern(&b, &(struct modern){ .method = "resources/read", .name = uris[i], .params = params }, &r);
        assert_int_equal(r.status, 200);
        assert_int_equal(int_at(&r, "error code"), -32602);
        assert_str_at(&r, "error data uri", uris[i]);
        reply_release(&r);
    }
    bed_stop(&b);
}

/* Its result was in words before it was on record; that it is not is what the client hears, and nothing else. */
static void a_result_that_cannot_be_recorded_is_not_told(void **state)
{
    struct bed b;
    struct reply r;

    bed_start(&b, NULL, NULL, false);
    modern_call(&b, "bed.unplug", "{}", &r);
    assert_int_equal(r.status, 503);
    assert_str_at(&r, "error data dev.sluice/error", "journal_unwritable");
    assert_null(at(&r, "result"));
    assert_null(strstr(r.body, "all went well"));
    reply_release(&r);
    atomic_store(&bed_disk_hangs, false);
    bed_stop(&b);                       /* the disk did it after all: one end of it is on record */
}

/* Its intent was in the file's order when the wait for the disk was given up, and its arguments are on record with it:
 * how it ended finds room behind them. */
static void a_write_that_the_disk_was_too_slow_for_has_its_end_on_record(void **state)
{
    struct buf args = BUF_INIT(64 * 1024);
    struct bed b;
    struct reply r;

    bed_start(&b, NULL, NULL, false);
    b.engine.opt.record_arguments = true;
    atomic_store(&tool_writes, 0);
    buf_add_z(&args, "{\"what\":\"");
    for (int i = 0; i < 20000; i++)
        buf_add_c(&args, 'w');
    buf_add(&args, "\"}", 3);
    atomic_store(&bed_disk_hangs, true);
    modern_call(&b, "bed.write", args.p, &r);
    assert_int_equal(r.status, 503);
    assert_str_at(&r, "error data dev.sluice/error", "journal_unwritable");
    reply_release(&r);
    atomic_store(&bed_disk_hangs, false);
    assert_int_equal(atomic_load(&tool_writes), 0);
    bed_stop(&b);
    buf_release(&args);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(discover_says_what_is_there),
        cmocka_unit_test(each_refusal_has_its_code),
        cmocka_unit_test(an_unserved_version_is_told_the_served_ones),
        cmocka_unit_test(http_itself_is_guarded),
        cmocka_unit_test(each_error_is_told_as_the_table_says),
        cmocka_unit_test(results_are_structured_and_text),
        cmocka_unit_test(a_key_makes_a_write_happen_once),
        cmocka_unit_test(a_key_is_utf8),
        cmocka_unit_test(of_two_calls_with_a_restored_key_the_later_counts),
        cmocka_unit_test(a_repeat_of_what_is_done_is_done),
        cmocka_unit_test(lists_show_what_policy_could_allow),
        cmocka_unit_test(annotations_come_from_the_effect),
        cmocka_unit_test(prompts_and_resources_answer),
        cmocka_unit_test(unknown_resources_are_named),
        cmocka_unit_test(a_result_that_cannot_be_recorded_is_not_told),
        cmocka_unit_test(a_write_that_the_disk_was_too_slow_for_has_its_end_on_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
