/*
 * bridge.h -- the parts of `sluice stdio` that touch nothing: lines in, kinds of messages, lines out
 *
 * MCP over stdio: one JSON-RPC message per line, UTF-8, no line ends inside; nothing else on stdout.
 */
#ifndef CLI_BRIDGE_H
#define CLI_BRIDGE_H

#include "json/json.h"

enum { BRIDGE_LINE_MAX = 16 << 20 };

enum bridge_kind {
    BRIDGE_REQUEST,             /* method and id */
    BRIDGE_NOTIFICATION,        /* method, no id */
    BRIDGE_RESPONSE,            /* to a request of the server's: id, and result or error */
    BRIDGE_OTHER,               /* a batch, or nothing that is known: the engine decides what it thinks of it */
};

/* The next line of `in` from *at on, without its end (LF or CRLF): true, and *at is behind it. False: no whole line
 * yet. */
bool bridge_line(const struct buf *in, size_t *at, struct str *ret);
enum bridge_kind bridge_kind(const struct json *message);
/* Does the message claim a revision in its _meta, as those of 2026-07-28 and later do? */
bool bridge_modern(const struct json *message);
/* Must what comes behind it wait until the engine has it? The handshake and notifications of earlier revisions. */
bool bridge_waits(const struct json *message);
/* Appends a message as a line. */
void bridge_write(struct buf *out, const struct json *message);
/* Appends an error for the request with this id (NULL: not known), as a line. */
void bridge_error(struct buf *out, const struct json *id, int code, const char *text);

#endif
