/*
 * mirror.h -- header fields that repeat a part of an MCP message (2026-07-28): what a modern client must send
 *
 *   MCP-Protocol-Version   params._meta["io.modelcontextprotocol/protocolVersion"]
 *   Mcp-Method             method
 *   Mcp-Name               params.name, or params.uri of resources/read
 *   Mcp-Param-<X>          each argument whose schema carries "x-mcp-header": "<X>", unless absent or null
 *
 * A value that is not plain visible ASCII, has blanks at its ends, or could be taken for the encoded form is written
 * =?base64?<standard base64>?=.
 */
#ifndef CLI_MIRROR_H
#define CLI_MIRROR_H

#include "json/json.h"

enum { MIRROR_MAX = 32 };

struct mirror {
    const char *headers[MIRROR_MAX];        /* "Name: value", in the arena */
    size_t n;
};

/* The value as a header field carries it. */
struct str mirror_value(struct arena *a, struct str value);
/* All fields of a message that claims a version in its _meta; none for another. schema: the called tool's inputSchema,
 * or NULL when it is not known. */
void mirror_message(struct arena *a, const struct json *message, const struct json *schema, struct mirror *ret);

#endif
