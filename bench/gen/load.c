/*
 * load.c -- bench-load: offers requests and says what became of each
 *
 * One thread.  A request is a job: due at a time, on a connection, until it is answered.  In a closed loop the next job
 * is due when one ends; in an open loop the schedule says when, and a job waits for a connection with its clock already
 * running, so that a stall of the peer is in the latency of everything that was due in the meantime.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench/gen/answer.h"
#include "bench/gen/schedule.h"
#include "bench/gen/tally.h"
#include "bench/gen/wire.h"
#include "json/json.h"

enum { EVENTS = 64, OPENING_MAX = 256, READ_MAX = 1 << 18, OUT_MAX = 64 << 20 };

#define TICK_NS (100 * 1000 * 1000LL)       /* how often timeouts are looked for */
#define NEVER   INT64_MAX

struct job {
    const struct request *request;
    int64_t due;
    uint64_t n;
};

struct conn {
    enum { CONN_DOWN, CONN_OPENING, CONN_IDLE, CONN_BUSY } state;
    struct wire wire;
    struct job job;                         /* BUSY */
    int64_t sent;
    struct buf out;
    size_t out_at;
    struct answer answer;
};

/* First in, first out, of a fixed room. */
struct queue {
    size_t first, n, room;
};

static struct {
    const char *url, *ca, *requests, *mode, *arrivals, *order, *phases, *json, *start_file, *counted_file, *answers;
    int64_t in_flight, connections, seed, count, spin_us;
    double rate, seconds, warmup, timeout;
    bool progress, visit;
} opt = { .mode = "closed", .arrivals = "poisson", .order = "weight", .json = "-", .in_flight = 64, .seed = 1,
          .rate = 1000, .seconds = 10, .timeout = 30 };

static struct {
    struct target target;
    SSL_CTX *tls;
    struct requests requests;
    struct schedule schedule;
    struct tally tally;
    struct chance chance;
    bool open, by_turn, bound, counting;
    int epoll;
    int64_t epoch;                          /* the schedule's beginning */
    struct conn *conn;
    uint32_t *idle;                         /* connections without a job, of any state but BUSY and OPENING */
    struct queue idle_queue, job_queue;
    struct job *job;                        /* open: due, and no connection is free */
    uint64_t made, in_flight, opening;
    int64_t due;                            /* of the next one; NEVER: no more */
    FILE *answers;
    char *bytes;
} load;

static size_t queue_push(struct queue *q)
{
    return (q->first + q->n++) % q->room;
}

static size_t queue_pop(struct queue *q)
{
    size_t at = q->first;

    q->first = (q->first + 1) % q->room;
    q->n--;
    return at;
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static bool conn_connect(struct conn *c)
{
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c };

    return wire_connect(&c->wire, &load.target, load.tls) &&
           epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->wire.fd, &ev) == 0;
}

static void conn_idle(struct conn *c, bool up)
{
    if (!up)
        wire_close(&c->wire);
    c->state = up ? CONN_IDLE : CONN_DOWN;
    load.idle[queue_push(&load.idle_queue)] = (uint32_t)(c - load.conn);
}

static void note_answer(const struct conn *c, enum verdict v, const char *reason, bool heard)
{
    struct buf line = BUF_INIT(2 * (size_t)ANSWER_BODY_MAX);

    buf_addf(&line, "{\"n\":%lu,\"status\":%d,\"verdict\":\"%s\",\"reason\":\"%s\",\"message\":", c->job.n,
             heard ? c->answer.status : 0, verdict_name(v), reason);
    buf_add_json_str(&line, heard ? answer_message(&c->answer) : STR(""));
    buf_add_z(&line, "}\n");
    fwrite(line.p, 1, line.len, load.answers);
    buf_release(&line);
}

/* The job is over. why: NULL if it was answered. */
static void conn_ended(struct conn *c, const char *why)
{
    char reason[REASON_MAX] = "";
    enum verdict v = VERDICT_FAILED;

    if (why)
        snprintf(reason, sizeof(reason), "%s", why);
    else
        v = judge(c->answer.status, answer_message(&c->answer), reason);
    if (load.answers)
        note_answer(c, v, reason, !why);
    tally_ended(&load.tally, c->job.request->group, c->job.due, now_ns(), v, reason, !why);
    load.in_flight--;
    conn_idle(c, !why && !c->answer.closes);
}

static void count_bytes(uint64_t *counter, size_t n)
{
    *counter += load.counting ? n : 0;
}

/* Reads as far as the answer goes. */
static void conn_read(struct conn *c, bool hung_up)
{
    for (;;) {
        ssize_t n = wire_read(&c->wire, load.bytes, READ_MAX);

        if (n == WIRE_AGAIN)
            return;
        if (n <= 0) {
            answer_closed(&c->answer);
            conn_ended(c, c->answer.state == ANSWER_DONE ? NULL : "closed");
            return;
        }
        count_bytes(&load.tally.bytes_in, (size_t)n);
        if (answer_feed(&c->answer, load.bytes, (size_t)n) < (size_t)n)
            c->answer.closes = true;        /* more than was asked for */
        if (c->answer.state == ANSWER_GARBLED) {
            conn_ended(c, "garbled");
            return;
        }
        if (c->answer.state == ANSWER_DONE) {
            c->answer.closes = c->answer.closes || hung_up;
            conn_ended(c, NULL);
            return;
        }
        if (n < READ_MAX && !c->wire.ssl && !hung_up)
            return;
    }
}

static void conn_write(struct conn *c)
{
    size_t before = c->out_at;
    int rc = wire_handshake(&c->wire);

    if (rc == 1)
        rc = wire_flush(&c->wire, &c->out, &c->out_at);
    count_bytes(&load.tally.bytes_out, c->out_at - before);
    if (rc == WIRE_BROKEN)
        conn_ended(c, c->out_at ? "closed" : "connect");
}

static void conn_begin(struct conn *c, const struct job *job)
{
    c->job = *job;
    buf_clear(&c->out);
    request_write(job->request, job->n, &load.chance, &c->out);
    c->out_at = 0;
    answer_next(&c->answer);
    c->sent = now_ns();
    if (tally_counts(&load.tally, job->due))
        load.tally.sent++;
    if (c->state == CONN_DOWN) {
        c->state = CONN_BUSY;
        if (!conn_connect(c))
            conn_ended(c, "connect");
        return;
    }
    c->state = CONN_BUSY;
    conn_write(c);
}

static void conn_event(struct conn *c, uint32_t events)
{
    bool hung_up = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
    int rc;

    switch (c->state) {
    case CONN_OPENING:
        rc = hung_up ? WIRE_BROKEN : wire_handshake(&c->wire);
        if (rc == WIRE_BROKEN)
            die("cannot connect to %s (%s)", load.target.host, load.tls ? "TLS" : "plain");
        if (rc == 1 && (events & EPOLLOUT)) {
            load.opening--;
            conn_idle(c, true);
        }
        return;
    case CONN_BUSY:
        if (c->out_at < c->out.len)
            conn_write(c);
        if (c->state == CONN_BUSY && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
            conn_read(c, hung_up);
        return;
    case CONN_IDLE:                         /* it stays in the queue, and connects again when it is its turn */
        if (hung_up) {
            wire_close(&c->wire);
            c->state = CONN_DOWN;
        }
        return;
    case CONN_DOWN:
        return;
    }
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

static const struct request *choose(const struct conn *c)
{
    const struct requests *r = &load.requests;

    if (load.bound)
        return &r->all[(size_t)(c - load.conn) % r->n];
    return load.by_turn ? &r->all[load.made % r->n] : requests_choose(r, &load.chance);
}

/* An open loop: what is due begins, waits for a connection, or is late. */
static void arrive(int64_t now)
{
    while (load.due <= now) {
        struct job job = { .due = load.due, .n = load.made };
        int64_t next = schedule_next(&load.schedule);

        tally_offered(&load.tally, job.due);
        if (load.in_flight >= (uint64_t)opt.in_flight) {
            if (tally_counts(&load.tally, job.due))
                load.tally.late++;
        } else {
            job.request = choose(load.conn);
            load.made++;
            load.in_flight++;
            load.job[queue_push(&load.job_queue)] = job;
        }
        load.due = next < 0 ? NEVER : load.epoch + next;
    }
}

/* Jobs for connections that have none. Each gets one at most, so that a peer that refuses all does not hold us here. */
static void dispatch(void)
{
    for (size_t n = load.idle_queue.n; n > 0; n--) {
        struct job job = { .due = now_ns(), .n = load.made };
        struct conn *c;

        if (load.open ? load.job_queue.n == 0 : load.in_flight >= (uint64_t)opt.in_flight || job.due >= load.due)
            return;
        c = &load.conn[load.idle[queue_pop(&load.idle_queue)]];
        if (load.open) {
            job = load.job[queue_pop(&load.job_queue)];
        } else {
            job.request = choose(c);
            tally_offered(&load.tally, job.due);
            load.in_flight++;
            if (++load.made == (uint64_t)opt.count)
                load.due = 0;
        }
        conn_begin(c, &job);
    }
}

/* Ends what has waited for too long since it was due. */
static void expire(int64_t now)
{
    int64_t since = now - (int64_t)(opt.timeout * 1e9);

    for (int64_t i = 0; i < opt.connections; i++)
        if (load.conn[i].state == CONN_BUSY && load.conn[i].job.due < since)
            conn_ended(&load.conn[i], "timeout");
    while (load.job_queue.n && load.job[load.job_queue.first].due < since) {
        const struct job *j = &load.job[queue_pop(&load.job_queue)];

        tally_ended(&load.tally, j->request->group, j->due, now, VERDICT_FAILED, "timeout", false);
        load.in_flight--;
    }
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static void await_events(int64_t until)
{
    struct epoll_event events[EVENTS];
    int64_t wait = until - now_ns();
    struct timespec t;
    int n;

    if (wait < opt.spin_us * 1000)
        wait = 0;
    t = (struct timespec){ wait / NS_PER_S, wait % NS_PER_S };
    n = epoll_pwait2(load.epoll, events, EVENTS, &t, NULL);
    if (n < 0 && errno != EINTR)
        die_errno("epoll");
    for (int i = 0; i < n; i++) {
        conn_event(events[i].data.ptr, events[i].events);
        if (load.epoch)
            dispatch();
    }
}

static void open_connections(void)
{
    int64_t until = now_ns() + (int64_t)(opt.timeout * 1e9), next = 0;

    while (load.idle_queue.n < (size_t)opt.connections) {
        for (; next < opt.connections && load.opening < OPENING_MAX; next++, load.opening++) {
            load.conn[next].state = CONN_OPENING;
            if (!conn_connect(&load.conn[next]))
                die_errno("connection %ld to %s", (long)next, load.target.host);
        }
        if (now_ns() > until)
            die("%s: only %zu of %ld connections after %.0f s", load.target.host, load.idle_queue.n,
                (long)opt.connections, opt.timeout);
        await_events(now_ns() + TICK_NS);
    }
}

static void touch(const char *path)
{
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;

    if (path && fd < 0)
        die_errno("%s", path);
    if (fd >= 0)
        close(fd);
}

/* Counting begins and ends: the runner, who watches for the files, reads the CPU of the others then. */
static void mark(int64_t now)
{
    if (!load.counting && load.tally.cpu == 0 && now >= load.tally.began) {
        load.counting = true;
        load.tally.cpu = cpu_seconds();
        touch(opt.start_file);
    }
    if (load.counting && now >= load.tally.ends) {
        load.counting = false;
        load.tally.cpu = cpu_seconds() - load.tally.cpu;
        touch(opt.counted_file);
    }
}

/* Every request once, in turn, before anything is counted: what is there to be known of its caller is known then. */
static void visit_all(void)
{
    bool open = load.open, by_turn = load.by_turn, bound = load.bound;
    int64_t count = opt.count;

    tally_init(&load.tally, &load.requests, NEVER, NEVER);
    load.open = load.bound = false;
    load.by_turn = true;
    load.due = NEVER;
    opt.count = (int64_t)load.requests.n;
    for (load.epoch = now_ns(); load.due != 0 || load.in_flight; ) {
        dispatch();
        await_events(now_ns() + TICK_NS);
        expire(now_ns());
    }
    tally_release(&load.tally);
    load.open = open;
    load.by_turn = by_turn;
    load.bound = bound;
    load.made = 0;
    opt.count = count;
}

static void run(void)
{
    int64_t tick = 0, line = load.tally.began + NS_PER_S;

    for (;;) {
        int64_t now = now_ns(), until;

        if (load.open)
            arrive(now);
        dispatch();
        if (opt.count && load.due == 0 && load.in_flight == 0)
            load.tally.ends = now;
        mark(now);
        if (now >= load.tally.ends && load.in_flight == 0)
            return;
        if (now >= tick) {
            expire(now);
            tick = now + TICK_NS;
        }
        if (opt.progress && now >= line) {
            tally_progress(&load.tally, now, load.in_flight);
            line += NS_PER_S;
        }
        until = load.open && load.due < tick ? load.due : tick;
        if (load.tally.began > now && load.tally.began < until)
            until = load.tally.began;
        if (load.tally.ends > now && load.tally.ends < until)
            until = load.tally.ends;
        await_events(until);
    }
}

/* ---- start and end ----------------------------------------------------------------------------------------------- */

static const struct option_row rows[] = {
    { "target", "URL", OPTION_TEXT, &opt.url, "http:// or https://ADDRESS:PORT/path" },
    { "ca", "FILE", OPTION_TEXT, &opt.ca, "certificates to trust, for https" },
    { "requests", "FILE", OPTION_TEXT, &opt.requests,
      "what to send, a JSON object per line: method, path, headers, body,\n"
      "weight, group; {{n}} in a body or a header becomes a number that is\n"
      "unique in the run, {{r:K}} one by chance below K" },
    { "order", "HOW", OPTION_TEXT, &opt.order,
      "weight (default): each request by chance, as its weight says;\n"
      "turn: one after the other; bound: connection i sends request i (closed)" },
    { "mode", "closed|open", OPTION_TEXT, &opt.mode,
      "closed (default): the next when one is answered, --in-flight at once;\n"
      "open: when the schedule says, whatever became of the others" },
    { "in-flight", "N", OPTION_COUNT, &opt.in_flight, "64; open: the most at once, what is over is counted as late" },
    { "connections", "N", OPTION_COUNT, &opt.connections, "as many as --in-flight; each carries one at a time" },
    { "rate", "R", OPTION_REAL, &opt.rate, "open: 1000 per second" },
    { "arrivals", "poisson|even", OPTION_TEXT, &opt.arrivals, "open: how they are spread (poisson)" },
    { "phases", "R:S,...", OPTION_TEXT, &opt.phases,
      "open: rates and for how many seconds, in place of --rate, --seconds" },
    { "seconds", "S", OPTION_REAL, &opt.seconds, "10" },
    { "count", "N", OPTION_COUNT, &opt.count,
      "closed: so many requests, however long it takes, in place of --seconds" },
    { "warmup", "S", OPTION_REAL, &opt.warmup, "0; before counting begins" },
    { "visit", "", OPTION_FLAG, &opt.visit, "every request once, in turn, before the warm-up" },
    { "timeout", "S", OPTION_REAL, &opt.timeout, "30; since a request was due" },
    { "seed", "N", OPTION_COUNT, &opt.seed, "1; of everything that is left to chance" },
    { "spin", "US", OPTION_COUNT, &opt.spin_us, "0; what is due within so many microseconds is waited for awake" },
    { "json", "FILE", OPTION_TEXT, &opt.json, "the report; - (default): stdout. bench/gen/tally.h says what is in it" },
    { "answers", "FILE", OPTION_TEXT, &opt.answers, "a line of JSON per answer: n, status, verdict, reason, message" },
    { "progress", "", OPTION_FLAG, &opt.progress, "a line per second on stderr" },
    { "start-file", "FILE", OPTION_TEXT, &opt.start_file, "is made when counting begins" },
    { "counted-file", "FILE", OPTION_TEXT, &opt.counted_file, "is made when counting ends; the last answers follow" },
    { 0 },
};

static const char about[] =
    "bench-load: offers HTTP requests and says what became of each\n\n"
    "  bench-load --target http://127.0.0.1:7411/mcp --requests FILE [options]\n\n"
    "In an open loop latency counts from when a request was due, so that no stall of\n"
    "the peer is omitted.  Answers are judged: ok is 2xx without a JSON-RPC error or\n"
    "isError; refused is 429, 503 or an error that says so by name; the rest failed.\n\n";

static bool one_of(const char *value, const char *this, const char *that)
{
    return strcmp(value, this) == 0 || strcmp(value, that) == 0;
}

static void check_options(void)
{
    if (!opt.url || !target_parse(opt.url, &load.target))
        die("--target takes http://ADDRESS:PORT/path or https://..., with an IPv4 address");
    if (!opt.requests)
        die("--requests FILE is needed");
    if (!one_of(opt.mode, "open", "closed"))
        die("--mode is open or closed");
    if (!one_of(opt.arrivals, "poisson", "even"))
        die("--arrivals are poisson or even");
    load.open = strcmp(opt.mode, "open") == 0;
    load.by_turn = strcmp(opt.order, "turn") == 0;
    load.bound = strcmp(opt.order, "bound") == 0;
    if (!load.by_turn && !load.bound && strcmp(opt.order, "weight") != 0)
        die("--order is weight, turn or bound");
    if (load.open && (opt.count || load.bound))
        die("--count and --order bound are for a closed loop");
    if (opt.in_flight < 1 || opt.in_flight > 10000000)
        die("--in-flight is 1 to 10000000");
    if (opt.connections == 0)
        opt.connections = opt.in_flight;
    if (!(opt.timeout > 0))
        die("--timeout is more than 0");
}

static void set_up_schedule(void)
{
    struct schedule asked = { 0 };

    if (opt.phases ? !schedule_parse(&asked, opt.phases) : !schedule_add(&asked, opt.rate, opt.seconds))
        die(opt.phases ? "--phases are rates and seconds, R1:S1,R2:S2,..., at most %d" :
                         "--rate and --seconds are more than 0", PHASES_MAX - 1);
    if (opt.phases)
        opt.seconds = schedule_seconds(&asked);
    load.schedule = (struct schedule){ .even = strcmp(opt.arrivals, "even") == 0,
                                       .chance.state = (uint64_t)opt.seed };
    if (opt.warmup > 0)
        schedule_add(&load.schedule, asked.phase[0].rate, opt.warmup);
    for (unsigned i = 0; i < asked.phases; i++)
        if (!schedule_add(&load.schedule, asked.phase[i].rate, asked.phase[i].seconds))
            die("--phases are at most %d", PHASES_MAX - 1);
}

static void set_up(void)
{
    long files = raise_limits();

    if (opt.connections > files - 20)
        die("%ld connections, but this process may have %ld files", (long)opt.connections, files);
    requests_load(&load.requests, opt.requests, load.target.host, load.target.path);
    load.tls = load.target.tls ? wire_client_tls(opt.ca) : NULL;
    load.chance.state = (uint64_t)opt.seed ^ 0x6c6f6164;
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.conn = need(calloc((size_t)opt.connections, sizeof(*load.conn)));
    load.idle = need(calloc((size_t)opt.connections, sizeof(*load.idle)));
    load.idle_queue.room = (size_t)opt.connections;
    load.job_queue.room = (size_t)opt.in_flight;
    load.job = load.open ? need(calloc(load.job_queue.room, sizeof(*load.job))) : NULL;
    load.bytes = need(malloc(READ_MAX));
    for (int64_t i = 0; i < opt.connections; i++) {
        load.conn[i].wire.fd = -1;
        load.conn[i].out = BUF_INIT(OUT_MAX);
        answer_init(&load.conn[i].answer);
    }
    if (opt.answers && !(load.answers = fopen(opt.answers, "we")))
        die_errno("%s", opt.answers);
}

static void report(void)
{
    FILE *f = strcmp(opt.json, "-") == 0 ? stdout : fopen(opt.json, "we");
    struct buf out = BUF_INIT((size_t)1 << 30);

    if (!f)
        die_errno("%s", opt.json);
    tally_write(&load.tally, opt.mode, &out);
    if (fwrite(out.p, 1, out.len, f) != out.len || fflush(f) != 0 || (load.answers && fclose(load.answers) != 0))
        die_errno("%s", opt.json);
    if (f != stdout)
        fclose(f);
    buf_release(&out);
}

static void release(void)
{
    for (int64_t i = 0; i < opt.connections; i++) {
        wire_close(&load.conn[i].wire);
        buf_release(&load.conn[i].out);
        answer_release(&load.conn[i].answer);
    }
    tally_release(&load.tally);
    requests_release(&load.requests);
    SSL_CTX_free(load.tls);
    free(load.conn);
    free(load.idle);
    free(load.job);
    free(load.bytes);
    close(load.epoll);
}

/* The warm-up is a phase of the schedule, and of nothing that is counted. */
static void count_phases(int64_t began)
{
    for (unsigned i = opt.warmup > 0; i < load.schedule.phases; i++) {
        began += (int64_t)(load.schedule.phase[i].seconds * 1e9);
        tally_add_phase(&load.tally, began);
    }
}

int main(int argc, char **argv)
{
    int64_t began;

    options_read(argc, argv, about, rows);
    check_options();
    if (load.open || !opt.count)
        set_up_schedule();
    set_up();
    open_connections();
    if (opt.visit)
        visit_all();
    load.epoch = now_ns();
    began = load.epoch + (int64_t)(opt.warmup * 1e9);
    tally_init(&load.tally, &load.requests, began, opt.count ? NEVER : began + (int64_t)(opt.seconds * 1e9));
    if (load.open && opt.phases)
        count_phases(began);
    load.due = load.open ? load.epoch + schedule_next(&load.schedule) : load.tally.ends;
    run();
    report();
    release();
    return 0;
}
