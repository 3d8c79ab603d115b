/*
 * sse.h -- a reader of server-sent events (WHATWG HTML 9.2): bytes in pieces of any size, one callback per event
 *
 * Lines end in LF, CRLF or CR.  Only `data` and `id` matter to MCP; comments, `event` and `retry` are read over.  An
 * event without data is none.
 */
#ifndef CLI_SSE_H
#define CLI_SSE_H

#include "base/str.h"

struct sse {
    struct buf line, data;
    bool has_data, after_cr, begun;
};

enum { SSE_EVENT_MAX = 64 << 20 };

/* data without its last newline; valid during the call. False: stop reading. */
typedef bool sse_fn(struct str data, void *arg);

void sse_init(struct sse *s);
void sse_release(struct sse *s);
/* False: an event is larger than SSE_EVENT_MAX, or fn said so. What follows must not be fed any more. */
bool sse_feed(struct sse *s, struct str bytes, sse_fn *fn, void *arg);

#endif
