/* bridge.c -- framing and kinds */
#include "cli/bridge.h"

#define META_VERSION "io.modelcontextprotocol/protocolVersion"

bool bridge_line(const struct buf *in, size_t *at, struct str *ret)
{
    const char *end = *at < in->len ? memchr(in->p + *at, '\n', in->len - *at) : NULL;

    if (!end)
        return false;
    *ret = str_n(in->p + *at, (size_t)(end - in->p) - *at);
    *at += ret->len + 1;
    if (ret->len && ret->p[ret->len - 1] == '\r')
        ret->len--;
    return true;
}

enum bridge_kind bridge_kind(const struct json *message)
{
    if (!json_is(message, JSON_OBJECT))
        return BRIDGE_OTHER;
    if (json_get(message, "method"))
        return json_get(message, "id") ? BRIDGE_REQUEST : BRIDGE_NOTIFICATION;
    return json_get(message, "id") && (json_get(message, "result") || json_get(message, "error")) ? BRIDGE_RESPONSE
                                                                                                  : BRIDGE_OTHER;
}

bool bridge_modern(const struct json *message)
{
    return json_get(json_get(json_get(message, "params"), "_meta"), META_VERSION) != NULL;
}

bool bridge_waits(const struct json *message)
{
    struct str method = json_str(json_get(message, "method"));

    if (bridge_modern(message))
        return false;
    return str_is(method, "initialize") ||
           (bridge_kind(message) == BRIDGE_NOTIFICATION && !str_is(method, "notifications/cancelled"));
}

void bridge_write(struct buf *out, const struct json *message)
{
    json_write(out, message);           /* compact: no line ends inside */
    buf_add_c(out, '\n');
}

void bridge_error(struct buf *out, const struct json *id, int code, const char *text)
{
    buf_add_z(out, "{\"jsonrpc\":\"2.0\",");
    if (id) {
        buf_add_z(out, "\"id\":");
        json_write(out, id);
        buf_add_c(out, ',');
    }
    buf_addf(out, "\"error\":{\"code\":%d,\"message\":", code);
    buf_add_json_str(out, str_of(text));
    buf_add_z(out, "}}\n");
}
