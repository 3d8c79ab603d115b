/* admin.c -- health, readiness, metrics; the rest are calls: turn.c */
#include "admin/internal.h"
#include "admin/memory.h"
#include "base/check.h"
#include "base/metric.h"
#include "call/call.h"
#include "journal/journal.h"

enum { METRICS_MAX = 8 << 20 };

bool admin_serves(struct str path)
{
    return str_is(path, "/healthz") || str_is(path, "/readyz") || str_is(path, "/metrics") ||
           str_starts(path, STR("/v1/")) || str_starts(path, STR("/connect/"));
}

void await_answer_text(struct http_request *rq, int status, const char *text)
{
    const struct http_header headers[] = { { STR("Content-Type"), STR("text/plain; charset=utf-8") },
                                           { STR("Cache-Control"), STR("no-store") } };

    await_http_reply(rq, status, headers, 2, str_of(text));
}

static void await_ready(struct http_request *rq, struct worker *w)
{
    if (w->draining)
        await_answer_text(rq, 503, "draining\n");
    else if (journal_lane_ready(w->lane))
        await_answer_text(rq, 503, "the journal takes no new calls\n");
    else
        await_answer_text(rq, 200, "ready\n");
}

static bool names_loopback(struct str host)
{
    struct str name, port;

    if (str_starts(host, STR("[::1]")))
        return true;
    if (!str_cut(host, ':', &name, &port))
        name = host;
    return str_is(name, "127.0.0.1") || str_ieq(name, STR("localhost"));
}

/* Asked from this machine for this machine? A proxy here speaks from loopback too, for anybody: it passes on the name
 * it was asked by, or says for whom it speaks.  A page in a browser here says its origin. */
static bool asked_here(struct http_request *rq)
{
    static const char *const for_others[] = { "forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via",
                                              "origin" };
    struct str peer = str_of(http_peer(rq)), value;

    for (size_t i = 0; i < ARRAY_LEN(for_others); i++)
        if (http_header(rq, for_others[i], &value) > 0)
            return false;
    return (str_starts(peer, STR("127.")) || str_starts(peer, STR("[::1]"))) &&
           names_loopback(http_request_head(rq)->host);
}

/* Names of tools and providers are in there: for the machine's own scraper, not for whoever reaches the port. */
static void await_metrics(struct http_request *rq)
{
    const struct http_header type = { STR("Content-Type"), STR("text/plain; version=0.0.4; charset=utf-8") };
    struct buf b = BUF_INIT(METRICS_MAX);

    if (!asked_here(rq)) {
        await_answer_text(rq, 403, "metrics are told on this machine only: ask 127.0.0.1 or localhost, not a proxy\n");
        return;
    }
    metric_render(&b);
    memory_render(&b);
    await_http_reply(rq, 200, &type, 1, buf_str(&b));
    buf_release(&b);
}

void admin_handle(struct http_request *rq, struct worker *w, const struct mcp *m)
{
    struct str path = http_path(rq);
    bool get = str_is(http_method(rq), "GET");

    if (str_starts(path, STR("/v1/")) || str_starts(path, STR("/connect/")))
        await_admin_call(rq, w, m);
    else if (!get)
        await_answer_text(rq, 405, "GET only\n");
    else if (str_is(path, "/healthz"))
        await_answer_text(rq, 200, "ok\n");
    else if (str_is(path, "/readyz"))
        await_ready(rq, w);
    else
        await_metrics(rq);
}
