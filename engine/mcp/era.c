/*
 * era.c -- which era a message is of, and whether its envelope is whole
 *
 * The procedure (order matters: clients tell eras apart by the code they get):
 *
 *   1  one object, "jsonrpc": "2.0"; an id is a string or an integer, never null       else -32600
 *   2  neither method nor params: a response, legacy only
 *   3  params._meta has protocolVersion, of whatever type: modern, and never anything else again
 *   4  method initialize: legacy, unless the header names a modern version              then -32020
 *   5  the header names a modern version: the body must claim it                        else -32602
 *   6  otherwise legacy: of the version the header names, or 2025-03-26
 *   7  modern: envelope -32602, header against body -32020, version served -32022, MCP-Protocol-Version and
 *      Mcp-Method present and equal -32020. What comes after (method, Mcp-Name, Mcp-Param-*, params) is decode.c.
 *
 * A notification of either era needs no envelope: it is accepted or ignored.
 */
#include "mcp/internal.h"

static const struct str names[REV_COUNT] = {
    [REV_2025_03_26] = STR("2025-03-26"),
    [REV_2025_06_18] = STR("2025-06-18"),
    [REV_2025_11_25] = STR("2025-11-25"),
    [REV_2026_07_28] = STR("2026-07-28"),
};

const char *revision_name(enum revision r)
{
    ASSERT(r < REV_COUNT);
    return names[r].p;
}

bool revision_parse(struct str s, enum revision *ret)
{
    for (int r = REV_COUNT - 1; r >= 0; r--) {          /* the newest is the most frequent */
        if (str_eq(s, names[r])) {
            *ret = (enum revision)r;
            return true;
        }
    }
    return false;
}

bool revision_modern(struct str s)
{
    if (str_eq(s, names[REV_2026_07_28]))
        return true;
    if (s.len != 10 || s.p[4] != '-' || s.p[7] != '-')
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (i != 4 && i != 7 && (s.p[i] < '0' || s.p[i] > '9'))
            return false;
    return str_cmp(s, names[REV_2026_07_28]) >= 0;
}

/* Ids are echoed: a string or an integer of a size worth echoing. */
static bool id_valid(const struct json *id)
{
    int64_t n;

    return json_is(id, JSON_STRING) ? json_str(id).len <= RPC_ID_MAX - 2 : json_int(id, &n);
}

static enum err shape(struct json *root, struct message *m, struct errinfo *why)
{
    struct json *id = json_get(root, "id"), *method = json_get(root, "method"), *params = json_get(root, "params");

    if (!json_is(root, JSON_OBJECT))
        return err_set(why, E_RPC_INVALID, "the body must be one JSON-RPC message");
    if (id && !id_valid(id))
        return err_set(why, E_RPC_INVALID, "an id must be a string of at most %d bytes or an integer", RPC_ID_MAX - 2);
    m->id = id;
    if (!str_is(json_str(json_get(root, "jsonrpc")), "2.0"))
        return err_set(why, E_RPC_INVALID, "jsonrpc must be \"2.0\"");
    if (method && !json_is(method, JSON_STRING))
        return err_set(why, E_RPC_INVALID, "method must be a string");
    m->method = json_str(method);
    if (!method) {
        m->result = json_get(root, "result");
        m->error = json_get(root, "error");
        if (!id || !m->result == !m->error)
            return err_set(why, E_RPC_INVALID, "neither a request, nor a notification, nor a response");
        m->kind = MESSAGE_RESPONSE;
        return OK;
    }
    m->kind = id ? MESSAGE_REQUEST : MESSAGE_NOTIFICATION;
    if (params && !json_is(params, JSON_OBJECT))
        return err_set(why, E_RPC_PARAMS, "params must be an object");
    m->params = params;
    m->meta = json_get(params, "_meta");
    return OK;
}

/* Header against body, then Mcp-Method: everything a modern request repeats, whatever its method. */
static enum err mirrored(const struct http_head *head, struct message *m, unsigned n, struct str header,
                         struct errinfo *why)
{
    struct str method;
    unsigned n_method;

    if (n > 1 || (n == 1 && !str_eq(header, m->claimed)))
        return err_set(why, E_HEADER_MISMATCH, "MCP-Protocol-Version does not say what params._meta says");
    if (!revision_parse(m->claimed, &m->revision) || m->revision < REV_2026_07_28)
        return err_set(why, E_VERSION_UNSUPPORTED, "this protocol version is not served");
    if (n == 0)
        return err_set(why, E_HEADER_MISMATCH, "MCP-Protocol-Version is missing");
    n_method = 0;
    method = STR_NULL;
    if (head) {
        const struct http_header *h = http_head_find(head, "mcp-method", &n_method);

        method = h ? h->value : STR_NULL;
    }
    if (n_method != 1 || !str_eq(method, m->method))
        return err_set(why, E_HEADER_MISMATCH, n_method ? "Mcp-Method does not name the method" :
                       "Mcp-Method is missing");
    return OK;
}

static enum err modern(const struct http_head *head, struct message *m, const struct json *claimed, unsigned n,
                       struct str header, struct errinfo *why)
{
    m->era = ERA_MODERN;
    m->revision = REV_2026_07_28;
    if (m->kind == MESSAGE_NOTIFICATION)
        return OK;
    if (!json_is(claimed, JSON_STRING))
        return err_set(why, E_RPC_PARAMS, "params._meta needs " META_VERSION ", a string");
    m->claimed = json_str(claimed);
    m->capabilities = json_get(m->meta, META_CAPABILITIES);
    if (!json_is(m->capabilities, JSON_OBJECT))
        return err_set(why, E_RPC_PARAMS, "params._meta needs " META_CAPABILITIES ", an object");
    return mirrored(head, m, n, header, why);
}

enum err message_classify(struct json *root, const struct http_head *head, struct message *ret, struct errinfo *why)
{
    unsigned n = 0;
    const struct http_header *h = http_head_find(head, "mcp-protocol-version", &n);
    struct str header = h ? h->value : STR_NULL;
    const struct json *claimed;
    enum err e;

    *ret = (struct message){ .era = n && revision_modern(header) ? ERA_MODERN : ERA_LEGACY };
    ret->revision = ret->era == ERA_MODERN ? REV_2026_07_28 : REV_2025_03_26;
    e = shape(root, ret, why);
    if (e)
        return e;
    if (ret->kind == MESSAGE_RESPONSE && ret->era == ERA_MODERN)
        return err_set(why, E_RPC_INVALID, "clients of this revision send no responses");
    claimed = json_get(ret->meta, META_VERSION);
    if (claimed)
        return modern(head, ret, claimed, n, header, why);
    if (ret->era == ERA_MODERN && ret->kind == MESSAGE_REQUEST) {
        if (str_is(ret->method, "initialize"))
            return err_set(why, E_HEADER_MISMATCH,
                           "initialize belongs to earlier revisions than the one MCP-Protocol-Version names");
        return err_set(why, E_RPC_PARAMS, "params._meta needs " META_VERSION " and " META_CAPABILITIES);
    }
    if (ret->era == ERA_MODERN || str_is(ret->method, "initialize"))
        return OK;
    ret->named = n > 0;
    if (n > 1 || (n == 1 && !revision_parse(header, &ret->revision)))
        return err_set(why, E_VERSION_UNSUPPORTED, "MCP-Protocol-Version names a version that is not served");
    return OK;
}
