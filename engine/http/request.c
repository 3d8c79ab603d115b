/*
 * request.c -- one request: its bytes, the task that handles it, and what the handler may ask
 *
 * The head is copied once, out of the connection's buffer, so that the buffer may take in the next request while this
 * one is handled; the parsed views move with it.
 */
#include <stdlib.h>

#include "base/log.h"
#include "http/internal.h"

#define REST_MAX (20 * NS_PER_S)

static struct str moved(struct str s, const char *from, size_t len, const char *to)
{
    /* a view that is not into the head (the path of a target without one) stays */
    if (s.p < from || s.p > from + len)
        return s;
    return str_n(to + (s.p - from), s.len);
}

struct http_request *request_new(struct conn *c, const struct http_head *head, struct str bytes, size_t body)
{
    size_t headers = offsetof(struct http_request, head.headers) + head->n_headers * sizeof(head->headers[0]);
    struct http_request *rq = malloc(headers + bytes.len);
    struct http_head *h;

    if (!rq)
        return NULL;
    memset(rq, 0, offsetof(struct http_request, head));
    rq->magic = REQUEST_MAGIC;
    rq->conn = c;
    rq->arrived = c->started;
    rq->arrived_wall = c->started_wall;
    rq->keep = http_head_keeps(head);
    rq->old = head->minor == 0;
    rq->is_head = str_is(head->method, "HEAD");
    rq->body = BUF_INIT(c->srv->opt.body_max);
    http_chunked_init(&rq->chunked);
    rq->head_len = bytes.len - body;
    rq->head_bytes = (char *)rq + headers;
    memcpy(rq->head_bytes, bytes.p, bytes.len);
    if (body > 0)
        rq->together = str_n(rq->head_bytes + rq->head_len, body);

    h = &rq->head;
    h->method = moved(head->method, bytes.p, bytes.len, rq->head_bytes);
    h->target = moved(head->target, bytes.p, bytes.len, rq->head_bytes);
    h->path = moved(head->path, bytes.p, bytes.len, rq->head_bytes);
    h->query = moved(head->query, bytes.p, bytes.len, rq->head_bytes);
    h->host = moved(head->host, bytes.p, bytes.len, rq->head_bytes);
    h->reason = STR_NULL;
    h->status = 0;
    h->minor = head->minor;
    h->n_headers = head->n_headers;
    h->marks = head->marks;
    h->again = head->again;
    memcpy(h->first, head->first, sizeof(h->first));
    for (unsigned i = 0; i < head->n_headers; i++) {
        const struct http_header *f = &head->headers[i];

        h->headers[i] = (struct http_header){ str_n(rq->head_bytes + (f->name.p - bytes.p), f->name.len),
                                              str_n(rq->head_bytes + (f->value.p - bytes.p), f->value.len) };
    }
    return rq;
}

void request_free(struct http_request *rq)
{
    MAGIC_CHECK(rq, REQUEST_MAGIC);
    ASSERT(!rq->waiting);
    ASSERT(rq->counted <= rq->conn->srv->bodies);
    timer_clear(&rq->cancel);
    rq->conn->srv->bodies -= rq->counted;
    buf_release(&rq->body);
    rq->magic = 0;
    free(rq);
}

/* ---- the task ---------------------------------------------------------------------------------------------------- */

static void request_main(void *arg)
{
    struct http_request *rq = arg;
    struct conn *c = rq->conn;

    c->srv->opt.handler(rq, c->srv->opt.arg);
    MAGIC_CHECK(rq, REQUEST_MAGIC);
    if (!rq->replied && rq->gone) {
        conn_abort(c);          /* nobody left to answer */
    } else if (!rq->replied && c->phase == HANDLING) {
        LOG_ERROR("a handler returned without a reply", LOG_SV("path", rq->head.path));
        await_http_reply(rq, 500, NULL, 0, STR_NULL);
    } else if (rq->streaming) {
        conn_abort(c);
    }
    c->rq = NULL;
    request_free(rq);
    conn_request_done(c);
}

bool request_start(struct http_request *rq)
{
    struct task *t = task_spawn("http request", request_main, rq);

    if (!t)
        return false;
    rq->task = task_ref(t);
    return true;
}

static void cancel_task(struct timer *t)
{
    struct http_request *rq = CONTAINER_OF(t, struct http_request, cancel);
    struct task *task = task_deref(rq->task);

    if (task && rq->cancel_on_gone)
        task_cancel(task);
}

/* Never from here: we may be running in that very task. */
static void cancel_soon(struct http_request *rq)
{
    timer_set(&rq->cancel, 0, cancel_task);
}

void request_gone(struct http_request *rq)
{
    MAGIC_CHECK(rq, REQUEST_MAGIC);
    rq->gone = true;
    if (rq->cancel_on_gone)
        cancel_soon(rq);
    request_room(rq);
}

void request_room(struct http_request *rq)
{
    MAGIC_CHECK(rq, REQUEST_MAGIC);
    if (rq->waiting)
        wake_fire(&rq->room);
}

void http_rest(struct http_request *rq, ns_t until)
{
    ns_t most = loop_now() + REST_MAX;

    MAGIC_CHECK(rq, REQUEST_MAGIC);
    rq->conn->rest = until < most ? until : most;
}

void http_cancel_on_disconnect(struct http_request *rq, bool on)
{
    MAGIC_CHECK(rq, REQUEST_MAGIC);
    rq->cancel_on_gone = on;
    if (on && rq->gone)
        cancel_soon(rq);
}

/* ---- what the handler may ask ------------------------------------------------------------------------------------ */

static const struct http_request *checked(const struct http_request *rq)
{
    MAGIC_CHECK(rq, REQUEST_MAGIC);
    return rq;
}

const struct http_head *http_request_head(const struct http_request *rq)    { return &checked(rq)->head; }
struct str http_method(const struct http_request *rq)                       { return checked(rq)->head.method; }
struct str http_path(const struct http_request *rq)                         { return checked(rq)->head.path; }
struct str http_query(const struct http_request *rq)                        { return checked(rq)->head.query; }
const char *http_peer(const struct http_request *rq)                        { return checked(rq)->conn->peer; }
bool http_is_tls(const struct http_request *rq)                             { return checked(rq)->conn->tls != NULL; }
ns_t http_arrived(const struct http_request *rq)                            { return checked(rq)->arrived; }
wall_ms_t http_arrived_wall(const struct http_request *rq)                  { return checked(rq)->arrived_wall; }
bool http_gone(const struct http_request *rq)                               { return checked(rq)->gone; }
bool http_draining(const struct http_request *rq)                           { return checked(rq)->conn->srv->draining; }
bool http_replied(const struct http_request *rq)                            { return checked(rq)->replied; }

struct str http_body(const struct http_request *rq)
{
    return checked(rq)->together.p ? rq->together : buf_str(&rq->body);
}

unsigned http_header(const struct http_request *rq, const char *name, struct str *ret)
{
    unsigned n;
    const struct http_header *h = http_head_find(&checked(rq)->head, name, &n);

    *ret = h ? h->value : STR_NULL;
    return n;
}

const struct http_client_cert *http_client_cert(const struct http_request *rq)
{
    return checked(rq)->conn->tls ? tls_client_cert(rq->conn->tls) : NULL;
}
