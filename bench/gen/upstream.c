/*
 * upstream.c -- bench-upstream: a provider that costs little, so that what stands before it is what is measured
 *
 *   any request       200 and a page of messages in JSON, --payload bytes, after --delay; or what --fail says
 *   POST /token       200 {"access_token", "token_type", "expires_in", "refresh_token"}: never the same twice
 *   PUT /delay        204, and from now on --delay is what the body says; 400 if it says nothing of the kind
 *   GET /stats        200 the counts, as --json writes them at the end:
 *                     {"requests", "failed", "tokens", "at_once", "at_once_max"}
 *
 * The last three are not counted as requests; /token waits as everything does.  Replies that wait are in a heap by
 * their time: tens of thousands are no load.  With TLS it speaks HTTP/2 to who offers it, as providers do.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/gen/server.h"

enum delay { DELAY_NONE, DELAY_FIXED, DELAY_LOGNORMAL };

struct waiting {
    int64_t due;
    struct peer *peer;
    enum { SAY_MESSAGES, SAY_TOKEN, SAY_FAILURE } what;
};

static struct {
    int64_t port, tls_port, payload, expires_in, seed;
    const char *cert, *key, *delay, *fail, *json;
} opt = { .tls_port = -1, .payload = 1400, .expires_in = 3600, .seed = 1, .delay = "none" };

static struct {
    struct server server;
    enum delay delay;
    double first, second;               /* fixed: nanoseconds; lognormal: mu and sigma of nanoseconds */
    int64_t permille;
    int fail_status, retry_after;
    struct buf messages;                /* the whole answer, head and body */
    struct chance chance;
    struct waiting *heap;
    size_t waiting, room;
    uint64_t requests, failed, tokens, at_once, at_once_max;
} up;

/* ---- what is said ------------------------------------------------------------------------------------------------ */

/* One message more, padded by `extra` bytes of preview. */
static void add_message(struct buf *b, unsigned i, size_t extra)
{
    buf_addf(b, "%s{\"id\":\"AAMkAGI2%04u\",\"subject\":\"Quarterly figures, part %04u\",\"isRead\":%s,"
                "\"from\":{\"emailAddress\":{\"name\":\"Bob Baker\",\"address\":\"bob@demo.example\"}},"
                "\"receivedDateTime\":\"2026-11-%02uT09:00:00Z\",\"bodyPreview\":\"",
             i ? "," : "", i % 10000, i % 10000, i % 2 ? "false" : "true", i % 28 + 1);
    while (extra-- > 0)
        buf_add_c(b, "Here are the figures you asked for. "[extra % 36]);
    buf_add_z(b, "\"}");
}

/* A page of messages that is `size` bytes long, or one message if that is longer. */
static void make_messages(size_t size)
{
    struct buf body = BUF_INIT(SERVER_REQUEST_MAX / 2), one = BUF_INIT(4096);
    unsigned n;

    add_message(&one, 1, 64);
    n = size / (one.len + 1) ? (unsigned)(size / (one.len + 1)) : 1;
    buf_add_z(&body, "{\"value\":[");
    for (unsigned i = 0; i + 1 < n; i++)
        add_message(&body, i, 64);
    buf_clear(&one);
    add_message(&one, n - 1, 0);
    add_message(&body, n - 1, body.len + one.len + 2 < size ? size - body.len - one.len - 2 : 0);
    buf_add_z(&body, "]}");
    up.messages = BUF_INIT(SERVER_REQUEST_MAX);
    buf_addf(&up.messages, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             body.len);
    buf_add_str(&up.messages, buf_str(&body));
    if (up.messages.overflow)
        die("--payload is at most %d", SERVER_REQUEST_MAX / 2);
    buf_release(&one);
    buf_release(&body);
}

static void say_token(struct peer *p)
{
    char body[256];
    int n;

    up.tokens++;
    n = snprintf(body, sizeof(body), "{\"access_token\":\"at-%lu-%016lx\",\"token_type\":\"Bearer\",\"expires_in\":%ld,"
                                     "\"refresh_token\":\"rt-%lu-%016lx\"}",
                 up.tokens, chance_next(&up.chance), (long)opt.expires_in, up.tokens, chance_next(&up.chance));
    peer_reply_json(&up.server, p, 200, "Cache-Control: no-store\r\n", str_n(body, (size_t)n));
}

static void say_failure(struct peer *p)
{
    char after[64] = "";

    if (up.retry_after >= 0)
        snprintf(after, sizeof(after), "Retry-After: %d\r\n", up.retry_after);
    peer_reply_json(&up.server, p, up.fail_status, after,
                    STR("{\"error\":{\"code\":\"Unwell\",\"message\":\"as --fail said\"}}"));
}

static void write_stats(struct buf *out)
{
    buf_addf(out, "{\"requests\":%lu,\"failed\":%lu,\"tokens\":%lu,\"at_once\":%lu,\"at_once_max\":%lu}", up.requests,
             up.failed, up.tokens, up.at_once, up.at_once_max);
}

static void say(const struct waiting *w)
{
    up.at_once--;
    if (w->what == SAY_TOKEN)
        say_token(w->peer);
    else if (w->what == SAY_FAILURE)
        say_failure(w->peer);
    else
        peer_reply(&up.server, w->peer, buf_str(&up.messages));
}

/* ---- when -------------------------------------------------------------------------------------------------------- */

static int64_t delay_ns(void)
{
    double normal;

    if (up.delay != DELAY_LOGNORMAL)
        return (int64_t)up.first;
    normal = sqrt(-2 * log(chance_unit(&up.chance))) * cos(2 * M_PI * chance_unit(&up.chance));
    return (int64_t)exp(up.first + up.second * normal);
}

static void heap_add(struct waiting w)
{
    size_t i = up.waiting++;

    if (i == up.room) {
        up.room = up.room ? up.room * 2 : 1024;
        up.heap = need(realloc(up.heap, up.room * sizeof(*up.heap)));
    }
    for (; i > 0 && up.heap[(i - 1) / 2].due > w.due; i = (i - 1) / 2)
        up.heap[i] = up.heap[(i - 1) / 2];
    up.heap[i] = w;
}

static struct waiting heap_take(void)
{
    struct waiting first = up.heap[0], last = up.heap[--up.waiting];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < up.waiting) {
        if (child + 1 < up.waiting && up.heap[child + 1].due < up.heap[child].due)
            child++;
        if (last.due <= up.heap[child].due)
            break;
        up.heap[i] = up.heap[child];
        i = child;
    }
    up.heap[i] = last;
    return first;
}

/* "none", "fixed:US" or "lognormal:P50_US:P99_US"; false, and nothing changed, if it is none of these. */
static bool set_delay(const char *text)
{
    double a, b;
    int n = 0;

    if (strcmp(text, "none") == 0) {
        up.delay = DELAY_NONE;
        up.first = 0;
    } else if (sscanf(text, "fixed:%lf%n", &a, &n) == 1 && !text[n] && a >= 0) {
        up.delay = DELAY_FIXED;
        up.first = a * 1e3;
    } else if (sscanf(text, "lognormal:%lf:%lf%n", &a, &b, &n) == 2 && !text[n] && a > 0 && b >= a) {
        up.delay = DELAY_LOGNORMAL;
        up.first = log(a * 1e3);
        up.second = log(b / a) / 2.3263478740408408;        /* the normal distribution's 99th percentile */
    } else {
        return false;
    }
    return true;
}

static int64_t answer_due(struct server *s, int64_t now)
{
    while (up.waiting && up.heap[0].due <= now) {
        struct waiting w = heap_take();

        say(&w);
    }
    return up.waiting ? up.heap[0].due : INT64_MAX;
}

static void on_request(struct server *s, struct peer *p, const struct server_request *rq)
{
    struct waiting w = { .peer = p, .what = SAY_MESSAGES };

    if (str_is(rq->path, "/stats")) {
        struct buf stats = BUF_INIT(4096);

        write_stats(&stats);
        peer_reply_json(s, p, 200, "", buf_str(&stats));
        buf_release(&stats);
        return;
    }
    if (str_is(rq->path, "/delay")) {
        char text[64];

        snprintf(text, sizeof(text), "%.*s", STR_ARG(rq->body));
        peer_reply_json(s, p, set_delay(text) ? 204 : 400, "", STR(""));
        return;
    }
    if (str_is(rq->path, "/token")) {
        w.what = SAY_TOKEN;
    } else {
        up.requests++;
        if (up.permille && chance_below(&up.chance, 1000) < (uint64_t)up.permille) {
            w.what = SAY_FAILURE;
            up.failed++;
        }
    }
    if (++up.at_once > up.at_once_max)
        up.at_once_max = up.at_once;
    if (up.delay == DELAY_NONE) {
        say(&w);
    } else {
        w.due = now_ns() + delay_ns();
        heap_add(w);
    }
}

/* ---- start and end ----------------------------------------------------------------------------------------------- */

static const struct option_row rows[] = {
    { "port", "P", OPTION_COUNT, &opt.port, "0 (default): any; prints \"listening http://127.0.0.1:PORT\"" },
    { "tls-port", "P", OPTION_COUNT, &opt.tls_port, "with TLS, also HTTP/2, beside it; needs --cert and --key" },
    { "cert", "FILE", OPTION_TEXT, &opt.cert, "PEM: its certificate, then the chain" },
    { "key", "FILE", OPTION_TEXT, &opt.key, "PEM" },
    { "delay", "HOW", OPTION_TEXT, &opt.delay, "none (default), fixed:US, lognormal:P50_US:P99_US" },
    { "fail", "PERMILLE:STATUS[:S]", OPTION_TEXT, &opt.fail,
      "by chance answers that status, with Retry-After: S if given" },
    { "payload", "BYTES", OPTION_COUNT, &opt.payload, "1400; the size of an answer's body" },
    { "expires-in", "S", OPTION_COUNT, &opt.expires_in, "3600; of the tokens that POST /token gives" },
    { "seed", "N", OPTION_COUNT, &opt.seed, "1; of delays and failures" },
    { "json", "FILE", OPTION_TEXT, &opt.json, "the counts, as GET /stats gives them, at SIGTERM" },
    { 0 },
};

static const char about[] =
    "bench-upstream: a provider on 127.0.0.1 that costs little\n\n"
    "Answers any request with a page of messages, POST /token with a new OAuth token,\n"
    "GET /stats with its counts: requests, failed, tokens, at_once, at_once_max; PUT /delay\n"
    "sets --delay from now on.\n\n";

static void read_fail(void)
{
    int n = 0, m = 0;

    up.retry_after = -1;
    if (!opt.fail)
        return;
    if (sscanf(opt.fail, "%ld:%3d%n:%d%n", &up.permille, &up.fail_status, &n, &up.retry_after, &m) < 2 ||
        opt.fail[m ? m : n] || up.permille < 0 || up.permille > 1000 || up.fail_status < 100)
        die("--fail is PERMILLE:STATUS or PERMILLE:STATUS:RETRY_AFTER, not \"%s\"", opt.fail);
}

static void write_json(void)
{
    FILE *f = opt.json ? fopen(opt.json, "we") : NULL;
    struct buf stats = BUF_INIT(4096);

    if (!opt.json)
        return;
    write_stats(&stats);
    if (!f || fprintf(f, "%.*s\n", STR_ARG(buf_str(&stats))) < 0 || fclose(f) != 0)
        die_errno("%s", opt.json);
    buf_release(&stats);
}

int main(int argc, char **argv)
{
    SSL_CTX *tls = NULL;

    options_read(argc, argv, about, rows);
    if (!set_delay(opt.delay))
        die("--delay is none, fixed:US or lognormal:P50_US:P99_US, not \"%s\"", opt.delay);
    read_fail();
    make_messages((size_t)opt.payload);
    up.chance.state = (uint64_t)opt.seed;
    up.server.handler = on_request;
    up.server.between = answer_due;
    server_init(&up.server);
    server_listen(&up.server, (int)opt.port, NULL);
    if (opt.tls_port >= 0) {
        tls = wire_server_tls(opt.cert, opt.key);
        server_listen(&up.server, (int)opt.tls_port, tls);
    }
    server_run(&up.server);
    write_json();
    server_release(&up.server);
    SSL_CTX_free(tls);
    buf_release(&up.messages);
    free(up.heap);
    return 0;
}
