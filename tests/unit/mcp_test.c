/* mcp_test.c -- what of mcp/ needs no engine: which era a message is of, mirrored headers, Accept */
#include <stdio.h>

#include "mcp/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct parsed {
    struct arena a;
    struct http_head head;
    struct message m;
    struct errinfo why;
};

static void head_of(struct parsed *p, const char *headers)
{
    char text[4096];
    enum http_fault fault;
    int n = snprintf(text, sizeof(text), "POST /mcp HTTP/1.1\r\nHost: localhost\r\n%s\r\n", headers);
    struct str kept = arena_str(&p->a, str_n(text, (size_t)n));

    assert_true(http_parse_request_head(kept, &p->head, &fault) > 0);
}

static enum err classify(struct parsed *p, const char *headers, const char *body)
{
    struct json *root = NULL;
    struct json_error where;

    memset(p, 0, sizeof(*p));
    arena_init(&p->a, 1 << 20);
    head_of(p, headers);
    assert_int_equal(json_parse(&p->a, str_of(body), NULL, &root, &where), OK);
    return message_classify(root, &p->head, &p->m, &p->why);
}

#define NEW "MCP-Protocol-Version: 2026-07-28\r\n"
#define LISTS "Mcp-Method: tools/list\r\n"
#define META(version, caps) \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":" version "," \
    "\"io.modelcontextprotocol/clientCapabilities\":" caps "}"
#define LIST(params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{" params "}}"

static const struct row {
    const char *what, *headers, *body;
    enum err err;
    enum era era;
    enum message_kind kind;
    enum revision revision;
} rows[] = {
    { "modern", NEW LISTS, LIST(META("\"2026-07-28\"", "{}")), OK, ERA_MODERN, MESSAGE_REQUEST, REV_2026_07_28 },
    { "modern, headers in another case and padded",
      "mcp-protocol-version:   2026-07-28  \r\nMCP-METHOD: tools/list\r\n",
      LIST(META("\"2026-07-28\"", "{}")), OK, ERA_MODERN, MESSAGE_REQUEST, REV_2026_07_28 },
    { "no params, no header", "", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}", OK, ERA_LEGACY,
      MESSAGE_REQUEST, REV_2025_03_26 },
    { "legacy by header", "MCP-Protocol-Version: 2025-06-18\r\n", LIST(""), OK, ERA_LEGACY, MESSAGE_REQUEST,
      REV_2025_06_18 },
    { "legacy, unserved version", "MCP-Protocol-Version: 2024-11-05\r\n", LIST(""), E_VERSION_UNSUPPORTED, ERA_LEGACY,
      MESSAGE_REQUEST, REV_2025_03_26 },
    { "legacy, two versions", "MCP-Protocol-Version: 2025-06-18\r\nMCP-Protocol-Version: 2025-06-18\r\n", LIST(""),
      E_VERSION_UNSUPPORTED,
      ERA_LEGACY, MESSAGE_REQUEST, REV_2025_03_26 },
    { "the header claims, the body does not", NEW LISTS, LIST(""), E_RPC_PARAMS, ERA_MODERN, MESSAGE_REQUEST,
      REV_2026_07_28 },
    { "a future version in the header only", "MCP-Protocol-Version: 2031-01-01\r\n", LIST(""), E_RPC_PARAMS, ERA_MODERN,
      MESSAGE_REQUEST, REV_2026_07_28 },
    { "initialize, header of a later revision", NEW,
      "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{}}", E_HEADER_MISMATCH,
      ERA_MODERN, MESSAGE_REQUEST, REV_2026_07_28 },
    { "initialize, unserved legacy header", "MCP-Protocol-Version: 1.0\r\n",
      "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{}}",
      OK, ERA_LEGACY, MESSAGE_REQUEST, REV_2025_03_26 },
    { "the version is no string", NEW LISTS, LIST(META("7", "{}")), E_RPC_PARAMS, ERA_MODERN, MESSAGE_REQUEST,
      REV_2026_07_28 },
    { "the version is null, no header", "", LIST(META("null", "{}")), E_RPC_PARAMS, ERA_MODERN, MESSAGE_REQUEST,
      REV_2026_07_28 },
    { "no capabilities", NEW LISTS, LIST("\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}"),
      E_RPC_PARAMS, ERA_MODERN,
      MESSAGE_REQUEST, REV_2026_07_28 },
    { "capabilities no object", NEW LISTS, LIST(META("\"2026-07-28\"", "[]")), E_RPC_PARAMS, ERA_MODERN,
      MESSAGE_REQUEST, REV_2026_07_28 },
    { "header and body differ, neither matters", NEW LISTS, LIST(META("\"v999\"", "{}")), E_HEADER_MISMATCH, ERA_MODERN,
      MESSAGE_REQUEST, REV_2026_07_28 },
    { "not served, said twice", "MCP-Protocol-Version: v999.0.0\r\n" LISTS, LIST(META("\"v999.0.0\"", "{}")),
      E_VERSION_UNSUPPORTED, ERA_MODERN,
      MESSAGE_REQUEST, REV_2026_07_28 },
    { "a legacy version claimed the modern way", "MCP-Protocol-Version: 2025-11-25\r\n" LISTS,
      LIST(META("\"2025-11-25\"", "{}")),
      E_VERSION_UNSUPPORTED, ERA_MODERN, MESSAGE_REQUEST, REV_2025_11_25 },
    { "no version header, not served", LISTS, LIST(META("\"v999\"", "{}")), E_VERSION_UNSUPPORTED, ERA_MODERN,
      MESSAGE_REQUEST, REV_2026_07_28 },
    { "no version header", LISTS, LIST(META("\"2026-07-28\"", "{}")), E_HEADER_MISMATCH, ERA_MODERN, MESSAGE_REQUEST,
      REV_2026_07_28 },
    { "two version headers", NEW NEW LISTS, LIST(META("\"2026-07-28\"", "{}")), E_HEADER_MISMATCH, ERA_MODERN,
      MESSAGE_REQUEST, REV_2026_07_28 },
    { "no method header", NEW, LIST(META("\"2026-07-28\"", "{}")), E_HEADER_MISMATCH, ERA_MODERN, MESSAGE_REQUEST,
      REV_2026_07_28 },
    { "method header in another case", NEW "Mcp-Method: TOOLS/LIST\r\n", LIST(META("\"2026-07-28\"", "{}")),
      E_HEADER_MISMATCH, ERA_MODERN,
      MESSAGE_REQUEST, REV_2026_07_28 },
    { "modern initialize is a method like any other", NEW "Mcp-Method: initialize\r\n",
      "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{" META("\"2026-07-28\"", "{}") "}}", OK,
          ERA_MODERN, MESSAGE_REQUEST, REV_2026_07_28 },
    { "a notification needs no envelope", NEW, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}", OK, ERA_MODERN,
      MESSAGE_NOTIFICATION, REV_2026_07_28 },
    { "a legacy notification", "", "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}", OK, ERA_LEGACY,
      MESSAGE_NOTIFICATION, REV_2025_03_26 },
    { "a response", "", "{\"jsonrpc\":\"2.0\",\"id\":\"ask_1\",\"result\":{}}", OK, ERA_LEGACY, MESSAGE_RESPONSE,
      REV_2025_03_26 },
    { "an error response", "", "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-1,\"message\":\"\"}}", OK,
      ERA_LEGACY, MESSAGE_RESPONSE, REV_2025_03_26 },
    { "a response of a modern client", NEW, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", E_RPC_INVALID, ERA_MODERN,
      MESSAGE_RESPONSE, REV_2026_07_28 },
    { "result and error", "", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{}}", E_RPC_INVALID, ERA_LEGACY,
      MESSAGE_NONE, REV_2025_03_26 },
    { "neither", "", "{\"jsonrpc\":\"2.0\",\"id\":1}", E_RPC_INVALID, ERA_LEGACY, MESSAGE_NONE, REV_2025_03_26 },
    { "no object", "", "\"hello\"", E_RPC_INVALID, ERA_LEGACY, MESSAGE_NONE, REV_2025_03_26 },
    { "an array", "", "[]", E_RPC_INVALID, ERA_LEGACY, MESSAGE_NONE, REV_2025_03_26 },
    { "null id", "", "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", E_RPC_INVALID, ERA_LEGACY, MESSAGE_NONE,
      REV_2025_03_26 },
    { "fractional id", "", "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"ping\"}", E_RPC_INVALID, ERA_LEGACY,
      MESSAGE_NONE, REV_2025_03_26 },
    { "object id", "", "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}", E_RPC_INVALID, ERA_LEGACY, MESSAGE_NONE,
      REV_2025_03_26 },
    { "no jsonrpc", "", "{\"id\":1,\"method\":\"ping\"}", E_RPC_INVALID, ERA_LEGACY, MESSAGE_NONE, REV_2025_03_26 },
    { "another jsonrpc", "", "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", E_RPC_INVALID, ERA_LEGACY,
      MESSAGE_NONE, REV_2025_03_26 },
    { "method no string", "", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", E_RPC_INVALID, ERA_LEGACY, MESSAGE_NONE,
      REV_2025_03_26 },
    { "params an array", "", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":[]}", E_RPC_PARAMS,
      ERA_LEGACY, MESSAGE_REQUEST, REV_2025_03_26 },
};

static void each_message_has_its_era(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        struct parsed p;
        enum err e = classify(&p, r->headers, r->body);

        if (e != r->err || p.m.era != r->era || p.m.kind != r->kind || p.m.revision != r->revision)
            fail_msg("%s: got %s, era %d, kind %d, revision %d: %s", r->what, e ? err_name(e) : "ok", p.m.era, p.m.kind,
                     p.m.revision, p.why.text);
        arena_release(&p.a);
    }
}

static void ids_are_kept_where_they_are_valid(void **state)
{
    struct parsed p;

    assert_int_equal(classify(&p, "", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}"), E_RPC_INVALID);
    assert_non_null(p.m.id);
    arena_release(&p.a);
    assert_int_equal(classify(&p, "", "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}"), E_RPC_INVALID);
    assert_null(p.m.id);
    arena_release(&p.a);
}

static void modern_versions_are_dates(void **state)
{
    assert_true(revision_modern(STR("2026-07-28")));
    assert_true(revision_modern(STR("2027-01-01")));
    assert_false(revision_modern(STR("2025-11-25")));
    assert_false(revision_modern(STR("v999.0.0")));
    assert_false(revision_modern(STR("2026-07-2x")));
    assert_false(revision_modern(STR("")));
}

/* ---- mirrored headers -------------------------------------------------------------------------------------------- */

static void base64_is_decoded_strictly(void **state)
{
    static const struct {
        const char *value, *decoded;    /* NULL: refused */
    } cases[] = {
        { "plain", "plain" },
        { "", "" },
        { "=?base64?SGVsbG8=?=", "Hello" },
        { "=?base64?SGVsbG8?=", NULL },             /* padding missing */
        { "=?base64?SGVs!!!bG8=?=", NULL },         /* alphabet */
        { "=?base64?SGVsbG9=?=", NULL },            /* spare bits */
        { "=?base64? SGVsbG8=?=", NULL },
        { "=?base64?/w==?=", NULL },                /* not UTF-8 */
        { "=?base64?" "?=", "" },
        { "=?base64?SGVsbG8=", "=?base64?SGVsbG8=" },
        { "SGVsbG8=?=", "SGVsbG8=?=" },
        { "=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?=" },
        { "=?base64?=", "=?base64?=" },
        { "a\tb c~", "a\tb c~" },
        { "\346\227\245", NULL },                   /* as it is: only what is visible ASCII */
        { "caf\351", NULL },
        { "=?base64?5pel5pys?=", "\346\227\245\346\234\254" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct str s;
        enum err e;

        arena_init(&a, 4096);
        e = mirror_decode(&a, str_of(cases[i].value), &s);
        if (cases[i].decoded ? e || !str_is(s, cases[i].decoded) : e != E_HEADER_MISMATCH)
            fail_msg("%s", cases[i].value);
        arena_release(&a);
    }
}

static enum err mirrors(const char *headers, const char *args)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"region\":{\"type\":\"string\",\"x-mcp-header\":\"Region\"},"
        "\"count\":{\"type\":\"integer\",\"x-mcp-header\":\"Count\"},\"on\":{\"type\":\"boolean\","
        "\"x-mcp-header\":\"On\"},"
        "\"deep\":{\"type\":\"object\",\"properties\":{\"in\":{\"type\":\"string\",\"x-mcp-header\":\"Deep\"}}},"
        "\"odd\":{\"type\":\"string\",\"x-mcp-header\":\"not a token\"}}}";
    struct json *s = NULL, *j = NULL;
    struct json_error where;
    struct parsed p;
    enum err e;

    memset(&p, 0, sizeof(p));
    arena_init(&p.a, 1 << 16);
    head_of(&p, headers);
    assert_int_equal(json_parse(&p.a, str_of(schema), NULL, &s, &where), OK);
    assert_int_equal(json_parse(&p.a, str_of(args), NULL, &j, &where), OK);
    e = mirror_params(&p.a, &p.head, s, j, &p.why);
    arena_release(&p.a);
    return e;
}

static void params_are_mirrored(void **state)
{
    assert_int_equal(mirrors("", "{}"), OK);
    assert_int_equal(mirrors("", "{\"region\":null}"), OK);
    assert_int_equal(mirrors("Mcp-Param-Region: eu\r\n", "{\"region\":\"eu\"}"), OK);
    assert_int_equal(mirrors("mcp-param-REGION: =?base64?ZXU=?=\r\n", "{\"region\":\"eu\"}"), OK);
    assert_int_equal(mirrors("Mcp-Param-Region: us\r\n", "{\"region\":\"eu\"}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-Region: EU\r\n", "{\"region\":\"eu\"}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("", "{\"region\":\"eu\"}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-Region: eu\r\n", "{}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-Region: eu\r\n", "{\"region\":null}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-Region: eu\r\nMcp-Param-Region: eu\r\n", "{\"region\":\"eu\"}"),
                     E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-Count: 42\r\n", "{\"count\":42}"), OK);
    assert_int_equal(mirrors("Mcp-Param-Count: 42.0\r\n", "{\"count\":42}"), OK);
    assert_int_equal(mirrors("Mcp-Param-Count: 42\r\n", "{\"count\":42.0}"), OK);
    assert_int_equal(mirrors("Mcp-Param-Count: 43\r\n", "{\"count\":42}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-Count: x\r\n", "{\"count\":42}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-Count: \"42\"\r\n", "{\"count\":42}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-On: true\r\n", "{\"on\":true}"), OK);
    assert_int_equal(mirrors("Mcp-Param-On: false\r\n", "{\"on\":true}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-On: True\r\n", "{\"on\":true}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("Mcp-Param-Deep: x\r\n", "{\"deep\":{\"in\":\"x\"}}"), OK);
    assert_int_equal(mirrors("", "{\"deep\":{\"in\":\"x\"}}"), E_HEADER_MISMATCH);
    assert_int_equal(mirrors("", "{\"odd\":\"x\"}"), OK);
}

static void accept_is_read_kindly(void **state)
{
    static const struct {
        const char *headers;
        bool json, sse;
    } cases[] = {
        { "", true, true },
        { "Accept: */*\r\n", true, true },
        { "Accept: application/json, text/event-stream\r\n", true, true },
        { "Accept: application/json\r\nAccept: text/event-stream\r\n", true, true },
        { "Accept: application/json\r\n", true, false },
        { "Accept: text/event-stream;q=0.9\r\n", false, true },
        { "Accept: text/*, application/*;q=0\r\n", false, true },
        { "Accept: Application/JSON ; charset=utf-8\r\n", true, false },
        { "Accept: text/html\r\n", false, false },
        { "Accept: */*;q=0.000\r\n", false, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct accepted accepted;
        struct parsed p;

        memset(&p, 0, sizeof(p));
        arena_init(&p.a, 1 << 16);
        head_of(&p, cases[i].headers);
        accepted = accepted_by(&p.head);
        if (accepted.json != cases[i].json || accepted.sse != cases[i].sse)
            fail_msg("%s", cases[i].headers);
        arena_release(&p.a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_message_has_its_era),
        cmocka_unit_test(ids_are_kept_where_they_are_valid),
        cmocka_unit_test(modern_versions_are_dates),
        cmocka_unit_test(base64_is_decoded_strictly),
        cmocka_unit_test(params_are_mirrored),
        cmocka_unit_test(accept_is_read_kindly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
