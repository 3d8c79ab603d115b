/* mirror.c -- from message to header fields */
#include "base/crypto.h"
#include "cli/mirror.h"

enum { SCHEMA_DEPTH = 16 };

static bool is_plain(struct str s)
{
    if (s.len == 0 || s.p[0] == ' ' || s.p[s.len - 1] == ' ' || str_starts(s, STR("=?base64?")))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7e)
            return false;
    return true;
}

struct str mirror_value(struct arena *a, struct str value)
{
    struct buf b = BUF_INIT(1 << 20);
    struct str ret;

    if (is_plain(value))
        return value;
    buf_add_b64(&b, value);
    ret = arena_printf(a, "=?base64?%.*s?=", STR_ARG(buf_str(&b)));
    buf_release(&b);
    return ret;
}

static void add(struct arena *a, struct mirror *m, const char *name, struct str value)
{
    struct str line = arena_printf(a, "%s: %.*s", name, STR_ARG(mirror_value(a, value)));

    if (line.p && m->n < MIRROR_MAX)
        m->headers[m->n++] = line.p;
}

static void add_param(struct arena *a, struct mirror *m, struct str mark, const struct json *value)
{
    const char *name = arena_printf(a, "Mcp-Param-%.*s", STR_ARG(mark)).p;
    bool b;

    for (size_t i = 0; i < mark.len; i++)
        if (mark.p[i] <= ' ' || mark.p[i] > '~' || strchr("()<>@,;:\\\"/[]?={}", mark.p[i]))
            return;                             /* no header field can be called so: the mark is void */
    if (json_is(value, JSON_STRING))
        add(a, m, name, json_str(value));
    else if (json_bool(value, &b))
        add(a, m, name, b ? STR("true") : STR("false"));
    else if (json_is_number(value))
        add(a, m, name, json_num_raw(value));
}

static void add_params(struct arena *a, struct mirror *m, const struct json *schema, const struct json *args, int depth)
{
    if (depth == SCHEMA_DEPTH)
        return;
    for (const struct json *p = json_first(json_get(schema, "properties")); p; p = json_next(p)) {
        struct str mark = json_str(json_get(p, "x-mcp-header"));
        const struct json *value = json_get_str(args, json_key(p));

        if (mark.len && value)
            add_param(a, m, mark, value);
        add_params(a, m, p, value, depth + 1);
    }
}

void mirror_message(struct arena *a, const struct json *message, const struct json *schema, struct mirror *ret)
{
    const struct json *params = json_get(message, "params");
    struct str method = json_str(json_get(message, "method"));
    struct str version = json_str(json_get(json_get(params, "_meta"), "io.modelcontextprotocol/protocolVersion"));
    const struct json *name = json_get(params, str_is(method, "resources/read") ? "uri" : "name");
    bool named = str_is(method, "tools/call") || str_is(method, "prompts/get") || str_is(method, "resources/read");

    ret->n = 0;
    if (version.len == 0)
        return;
    add(a, ret, "MCP-Protocol-Version", version);
    add(a, ret, "Mcp-Method", method);
    if (named && json_is(name, JSON_STRING))
        add(a, ret, "Mcp-Name", json_str(name));
    if (str_is(method, "tools/call"))
        add_params(a, ret, schema, json_get(params, "arguments"), 0);
}
