/*
 * load.c -- many calls at once: opens N connections, sends one tools/call on each, waits for all answers
 *
 *   sluice-load --url http://127.0.0.1:7411/mcp --tokens FILE --calls 5000 --tool outlook.list_mail [--args JSON]
 *               [--key PREFIX] [--timeout 30] [--outcomes FILE] [--seconds N] [--spread N]
 *
 * With --seconds N it hammers instead: each of --calls connections is an agent that calls again as soon as it was
 * answered, for that long; "{i}" in the arguments is the agent's number modulo --spread.  The line then has the calls
 * done per second, Jain's index of fairness between agents, and times of answers.
 *
 * FILE has a bearer token per line; call i uses line i modulo their number.  Everything is sent as fast as connections
 * open and nothing is answered by this program's own pace: one thread, epoll.  Prints one line of figures; exit 0 when
 * every call was answered with outcome "done".  --outcomes writes what each call was told: "N call-id outcome", for
 * checking against the journal; "-" where no answer came.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REPLY_MAX = 65536, TOKENS_MAX = 100000, TIMES_MAX = 10000000 };

struct one {
    int fd;
    char *out;
    size_t out_len, out_at;
    char *in;
    size_t in_len;
    double began, ended;
    bool done, answered;
    long n_done, n_other;           /* --seconds: calls of this agent that ended in "done", and in something else */
};

struct options {
    const char *host, *tokens, *tool, *args, *key, *outcomes;
    int port, calls, timeout, seconds, spread;
};

static char *tokens[TOKENS_MAX];
static int n_tokens;

static double hammer_until;         /* 0: each connection makes one call */
static float *times;
static size_t n_times;

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
    fprintf(stderr, "sluice-load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_tokens(const char *path)
{
    char line[16384];
    FILE *f = fopen(path, "re");

    if (!f)
        die(path);
    while (n_tokens < TOKENS_MAX && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (*line)
            tokens[n_tokens++] = strdup(line);
    }
    fclose(f);
    if (n_tokens == 0) {
        errno = EINVAL;
        die("no tokens in the file");
    }
}

static void build(struct one *o, int i, const struct options *opt)
{
    char body[8192], args[4096], key[300] = "";
    const char *mark = strstr(opt->args, "{i}");
    int n;

    if (mark)
        snprintf(args, sizeof(args), "%.*s%d%s", (int)(mark - opt->args), opt->args, i % opt->spread, mark + 3);
    else
        snprintf(args, sizeof(args), "%s", opt->args);

    if (opt->key)
        snprintf(key, sizeof(key), ",\"dev.sluice/idempotencyKey\":\"%s-%d\"", opt->key, i);
    n = snprintf(body, sizeof(body),
                 "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"tools/call\",\"params\":{\"name\":\"%s\","
                 "\"arguments\":%s,\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
                 "\"io.modelcontextprotocol/clientCapabilities\":{}%s}}}",
                 i, opt->tool, args, key);
    o->out = malloc((size_t)n + 16384);
    o->in = malloc(REPLY_MAX);
    if (!o->out || !o->in)
        die("memory");
    o->out_len = (size_t)sprintf(o->out,
                                 "POST /mcp HTTP/1.1\r\nHost: %s:%d\r\nAuthorization: Bearer %s\r\n"
                                 "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
                                 "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
                                 "Mcp-Name: %s\r\nContent-Length: %d\r\n\r\n%s",
                                 opt->host, opt->port, tokens[i % n_tokens], opt->tool, n, body);
}

/* Has the whole answer come? Our server answers JSON with Content-Length. */
static bool complete(const struct one *o)
{
    const char *end = memmem(o->in, o->in_len, "\r\n\r\n", 4), *length;

    if (!end)
        return false;
    length = memmem(o->in, (size_t)(end - o->in), "Content-Length: ", 16);
    return length && o->in_len >= (size_t)(end + 4 - o->in) + (size_t)atol(length + 16);
}

static void dial(struct one *o, int epoll, const struct options *opt)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)opt->port) };
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = o };
    int one = 1;

    inet_pton(AF_INET, opt->host, &to.sin_addr);
    o->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (o->fd < 0)
        die("socket");
    setsockopt(o->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    o->began = now();
    if (connect(o->fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
        die("connect");
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, o->fd, &ev) < 0)
        die("epoll");
}

static void finish(struct one *o, bool answered)
{
    o->done = true;
    o->answered = answered;
    o->ended = now();
    close(o->fd);
}

static bool is_done(const struct one *o)
{
    return strstr(o->in, "\"dev.sluice/outcome\":\"done\"");
}

/* One answer of an agent that goes on: counted if it came in time. */
static void count_answer(struct one *o)
{
    static bool shown;
    double t = now();

    if (t <= hammer_until) {
        if (!is_done(o) && !shown)
            fprintf(stderr, "the first answer that is not done: %s\n", strstr(o->in, "\r\n\r\n") + 4);
        shown = shown || !is_done(o);
        if (is_done(o))
            o->n_done++;
        else
            o->n_other++;
        if (is_done(o) && n_times < TIMES_MAX)
            times[n_times++] = (float)(t - o->began);
    }
    o->in_len = o->out_at = 0;
    o->began = t;
}

static void turn(struct one *o);

static void again(struct one *o)
{
    count_answer(o);
    if (o->began >= hammer_until)
        finish(o, true);
    else
        turn(o);
}

static void turn(struct one *o)
{
    while (o->out_at < o->out_len) {
        ssize_t n = send(o->fd, o->out + o->out_at, o->out_len - o->out_at, MSG_NOSIGNAL);

        if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
            return;
        if (n <= 0) {
            finish(o, false);
            return;
        }
        o->out_at += (size_t)n;
    }
    for (;;) {
        ssize_t n = recv(o->fd, o->in + o->in_len, REPLY_MAX - 1 - o->in_len, 0);

        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            finish(o, false);
            return;
        }
        o->in_len += (size_t)n;
        o->in[o->in_len] = '\0';
        if (!complete(o))
            continue;
        if (!hammer_until) {
            finish(o, true);
            return;
        }
        again(o);
        return;
    }
}

static int by_time(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;

    return d < 0 ? -1 : d > 0;
}

static void text_after(const char *in, const char *name, char *out, size_t max)
{
    const char *p = strstr(in, name);
    size_t n = 0;

    if (p)
        for (p += strlen(name); *p && *p != '"' && n + 1 < max; p++)
            out[n++] = *p;
    out[n] = '\0';
}

static void write_outcomes(const struct one *all, const struct options *opt)
{
    FILE *f = fopen(opt->outcomes, "we");

    if (!f)
        die(opt->outcomes);
    for (int i = 0; i < opt->calls; i++) {
        char id[64] = "-", outcome[32] = "-";

        if (all[i].answered) {
            text_after(all[i].in, "\"dev.sluice/call\":\"", id, sizeof(id));
            text_after(all[i].in, "\"dev.sluice/outcome\":\"", outcome, sizeof(outcome));
        }
        fprintf(f, "%d %s %s\n", i, *id ? id : "-", *outcome ? outcome : "-");
    }
    fclose(f);
}

static int report(const struct one *all, const struct options *opt, double began)
{
    double *took = calloc((size_t)opt->calls, sizeof(*took)), last = began;
    int done = 0, answered = 0;
    bool shown = false;

    for (int i = 0; i < opt->calls; i++) {
        answered += all[i].answered;
        if (!all[i].answered || !is_done(&all[i])) {
            if (!shown && all[i].answered)
                fprintf(stderr, "the first answer that is not done: %s\n", strstr(all[i].in, "\r\n\r\n") + 4);
            shown = shown || all[i].answered;
            continue;
        }
        took[done++] = all[i].ended - all[i].began;
        if (all[i].ended > last)
            last = all[i].ended;
    }
    qsort(took, (size_t)done, sizeof(*took), by_time);
    printf("calls=%d answered=%d done=%d all_ms=%.0f p50_ms=%.1f p99_ms=%.1f max_ms=%.1f\n", opt->calls, answered, done,
           (last - began) * 1e3, done ? took[done / 2] * 1e3 : 0, done ? took[done * 99 / 100] * 1e3 : 0,
           done ? took[done - 1] * 1e3 : 0);
    free(took);
    return done == opt->calls ? 0 : 1;
}

static int by_float(const void *a, const void *b)
{
    float d = *(const float *)a - *(const float *)b;

    return d < 0 ? -1 : d > 0;
}

/* Jain's index: 1 when all agents got the same, 1/n when one got everything. */
static int report_hammer(const struct one *all, const struct options *opt)
{
    double sum = 0, squares = 0;
    long done = 0, other = 0;

    for (int i = 0; i < opt->calls; i++) {
        done += all[i].n_done;
        other += all[i].n_other;
        sum += (double)all[i].n_done;
        squares += (double)all[i].n_done * (double)all[i].n_done;
    }
    qsort(times, n_times, sizeof(*times), by_float);
    printf("agents=%d done=%ld other=%ld per_s=%.2f jain=%.4f p50_ms=%.1f p99_ms=%.1f\n", opt->calls, done, other,
           (double)done / opt->seconds, squares > 0 ? sum * sum / (opt->calls * squares) : 0,
           n_times ? (double)times[n_times / 2] * 1e3 : 0, n_times ? (double)times[n_times * 99 / 100] * 1e3 : 0);
    return other == 0 && done > 0 ? 0 : 1;
}

static void parse(int argc, char **argv, struct options *opt)
{
    static char host[64];

    for (int i = 1; i + 1 < argc; i += 2) {
        const char *k = argv[i], *v = argv[i + 1];

        if (strcmp(k, "--url") == 0 && sscanf(v, "http://%63[0-9.]:%d/", host, &opt->port) == 2)
            opt->host = host;
        else if (strcmp(k, "--tokens") == 0)
            opt->tokens = v;
        else if (strcmp(k, "--calls") == 0)
            opt->calls = atoi(v);
        else if (strcmp(k, "--tool") == 0)
            opt->tool = v;
        else if (strcmp(k, "--args") == 0)
            opt->args = v;
        else if (strcmp(k, "--key") == 0)
            opt->key = v;
        else if (strcmp(k, "--timeout") == 0)
            opt->timeout = atoi(v);
        else if (strcmp(k, "--seconds") == 0)
            opt->seconds = atoi(v);
        else if (strcmp(k, "--spread") == 0)
            opt->spread = atoi(v);
        else if (strcmp(k, "--outcomes") == 0)
            opt->outcomes = v;
        else {
            fprintf(stderr, "sluice-load: %s %s is not understood\n", k, v);
            exit(2);
        }
    }
    if (!opt->host || !opt->tokens || opt->calls < 1 || opt->spread < 1) {
        fprintf(stderr, "sluice-load: --url http://IP:PORT/mcp, --tokens FILE and --calls N are needed\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct options opt = { .tool = "outlook.list_mail", .args = "{}", .timeout = 30, .calls = 0, .spread = 1 };
    struct rlimit files;
    struct epoll_event events[512];
    struct one *all;
    int epoll = epoll_create1(EPOLL_CLOEXEC), left, rc;
    double began;

    parse(argc, argv, &opt);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_tokens(opt.tokens);
    all = calloc((size_t)opt.calls, sizeof(*all));
    times = opt.seconds ? calloc(TIMES_MAX, sizeof(*times)) : NULL;
    if (!all || epoll < 0 || (opt.seconds && !times))
        die("start");
    for (int i = 0; i < opt.calls; i++)
        build(&all[i], i, &opt);
    began = now();
    hammer_until = opt.seconds ? began + opt.seconds : 0;
    for (int i = 0; i < opt.calls; i++)
        dial(&all[i], epoll, &opt);
    left = opt.calls;
    while (left > 0 && now() - began < opt.timeout && (!opt.seconds || now() < hammer_until)) {
        int n = epoll_wait(epoll, events, 512, 100);

        for (int i = 0; i < n; i++) {
            struct one *o = events[i].data.ptr;

            if (o->done)
                continue;
            turn(o);
            left -= o->done;
        }
    }
    if (opt.outcomes)
        write_outcomes(all, &opt);
    rc = opt.seconds ? report_hammer(all, &opt) : report(all, &opt, began);
    free(times);
    for (int i = 0; i < opt.calls; i++) {
        free(all[i].out);
        free(all[i].in);
    }
    free(all);
    while (n_tokens > 0)
        free(tokens[--n_tokens]);
    close(epoll);
    return rc;
}
