/*
 * wire.c -- what goes back on one HTTP request: one JSON body, or a stream of events
 *
 * The stream begins with the first message that is not the answer (progress, log, a question), or by itself when an
 * answer is late: then a comment goes out every keepalive_ms, so that no intermediary takes the connection for dead and
 * a client can be seen to have gone.  Comments come from a task of their own (the pinger); `lock` keeps two writers
 * apart.  The status of a stream is 200, whatever the answer turns out to be.
 *
 * A peer that has gone away is noticed at the next write (`broken`); then nothing more is written, and whether the call
 * goes on is not decided here.
 */
#include "mcp/internal.h"

/* A cancelled write of up to so many bytes has written nothing; a longer one may have left a part of an event
 * behind. */
enum { ATOMIC = 64 * 1024 };
enum { OPENING_MAX = 6 };            /* fields that an answer adds to the head */

void wire_init(struct wire *w, struct mcp *m, struct http_request *rq)
{
    const struct http_head *head = http_request_head(rq);
    struct accepted accepted = accepted_by(head);
    unsigned origins;

    http_head_find(head, "origin", &origins);
    *w = (struct wire){ .mcp = m, .rq = rq, .worker = worker_self(), .last = loop_now(), .json_ok = accepted.json,
                        .sse_ok = accepted.sse, .of_page = origins == 1 };
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* A browser's page may read the answer if its origin may ask at all, which the guard has decided. */
static unsigned cors(struct wire *w, struct http_header *out)
{
    struct str origin;

    if (!w->of_page || guard_origin(w->mcp, http_request_head(w->rq), NULL))
        return 0;
    http_header(w->rq, "origin", &origin);
    out[0] = (struct http_header){ STR("Access-Control-Allow-Origin"), origin };
    out[1] = (struct http_header){ STR("Access-Control-Expose-Headers"),
                                   STR("Mcp-Session-Id, WWW-Authenticate, Retry-After") };
    out[2] = (struct http_header){ STR("Vary"), STR("Origin") };
    return 3;
}

static enum err await_begin(struct wire *w)
{
    struct http_header headers[6 + OPENING_MAX] = {
        { STR("Content-Type"), STR(MEDIA_SSE) },
        { STR("Cache-Control"), STR("no-cache, no-store") },
        { STR("X-Accel-Buffering"), STR("no") },        /* proxies that would hold events back */
    };
    unsigned n = 3;

    if (w->begun)
        return OK;
    ASSERT(!w->ended && w->n_opening <= OPENING_MAX);
    w->begun = true;
    for (unsigned i = 0; i < w->n_opening; i++)
        headers[n++] = w->opening[i];
    n += cors(w, headers + n);
    return http_replied(w->rq) || await_http_stream_begin(w->rq, 200, headers, n) ? E_CLOSED : OK;
}

static enum err await_write(struct wire *w, struct str bytes)
{
    enum err e = await_lock(&w->lock, NS_NEVER);

    if (e)
        return e;
    if (w->ended || w->broken)
        e = E_CLOSED;
    if (!e)
        e = await_begin(w);
    if (!e)
        e = await_http_stream_write(w->rq, bytes);
    if (e && (e != E_CANCELLED || bytes.len > ATOMIC))
        w->broken = true;
    w->last = loop_now();
    task_unlock(&w->lock);
    return e;
}

enum err await_wire_message(struct wire *w, struct str message)
{
    struct buf b = BUF_INIT(HTTP_REPLY_MAX);
    enum err e;

    http_sse_event(&b, STR("message"), STR_NULL, message);
    e = b.overflow ? E_CALL_TOO_LARGE : await_write(w, buf_str(&b));
    buf_release(&b);
    return e;
}

bool wire_message_now(struct wire *w, struct str message)
{
    if (w->ended || w->broken || w->lock.owner || task_cancelled() || message.len > HTTP_SOON - 64 ||
        !http_stream_soon(w->rq))
        return false;
    return await_wire_message(w, message) == OK;        /* nothing in it has to wait */
}

enum err await_wire_ping(struct wire *w)
{
    return await_write(w, STR(":\n\n"));
}

void await_wire_end(struct wire *w)
{
    if (!w->begun || w->ended)
        return;
    w->ended = true;
    if (!w->broken)
        await_http_stream_end(w->rq);
}

void await_wire_reply(struct wire *w, int status, const struct http_header *headers, unsigned n, struct buf *body)
{
    struct str text = body ? http_body_text(body) : STR_NULL;
    UNSET struct http_header all[12];
    unsigned k = 0;
    enum err e;

    ASSERT(!w->ended && !w->pinging && n <= OPENING_MAX);
    if (w->begun || (status == 200 && text.len && !w->json_ok && w->sse_ok)) {
        w->opening = headers;
        w->n_opening = n;
        if (text.len)
            await_wire_message(w, text);
        await_wire_end(w);
        return;
    }
    w->ended = true;
    if (http_replied(w->rq))
        return;
    if (!text.len)
        all[k++] = (struct http_header){ STR("Cache-Control"), STR("no-store") };
    for (unsigned i = 0; i < n; i++)
        all[k++] = headers[i];
    k += cors(w, all + k);
    e = text.len ? await_http_reply_over(w->rq, status, &w->mcp->json_lines, all, k, body)
                 : await_http_reply(w->rq, status, all, k, text);
    if (e == E_CALL_TOO_LARGE || e == E_FORMAT)
        await_http_reply(w->rq, 500, NULL, 0, STR_NULL);
}

/* ---- keeping alive ----------------------------------------------------------------------------------------------- */

static ns_t patience(const struct wire *w)
{
    return w->mcp->opt.keepalive_ms * NS_PER_MS;
}

static void ping_until_cancelled(void *arg)
{
    struct wire *w = arg;

    while (!w->ended && !w->broken) {
        if (loop_now() - w->last >= patience(w) && await_wire_ping(w))
            break;
        if (await_sleep(w->last + patience(w)))
            break;
    }
    w->pinging = false;
    wake_fire(&w->quiet);
}

static void late(struct timer *t)
{
    struct wire *w = CONTAINER_OF(t, struct wire, slow);
    struct task *task;

    ASSERT(!w->pinging);
    task = task_spawn("mcp keep-alive", ping_until_cancelled, w);
    if (!task) {                        /* as many tasks as there may be: later, then */
        timer_set(t, loop_now() + patience(w), late);
        return;
    }
    w->pinging = true;
    w->pinger = task_ref(task);
}

void wire_keep_alive(struct wire *w)
{
    if (w->sse_ok && !w->pinging && !timer_is_set(&w->slow))
        timer_set(&w->slow, loop_now() + patience(w), late);
}

void await_wire_quiet(struct wire *w)
{
    timer_clear(&w->slow);
    if (!w->pinging)
        return;
    task_shield(+1);
    if (task_deref(w->pinger))
        task_cancel(w->pinger.task);
    await_wake(&w->quiet, NS_NEVER);
    task_shield(-1);
    ASSERT(!w->pinging);
}
