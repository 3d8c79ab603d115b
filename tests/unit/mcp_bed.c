/* mcp_bed.c -- see mcp_bed.h */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fetch/fetch.h"
#include "loop/world.h"
#include "mcp_bed.h"
#include "store/store.h"

enum { REPLY_MAX = 4 << 20, PATIENCE_S = 20 };

atomic_llong bed_wall_offset;
atomic_bool bed_disk_hangs;

static wall_ms_t shifted_wall(void)
{
    return world_real.wall_ms() + atomic_load(&bed_wall_offset);
}

enum { HELD_MAX = 16 };

static _Thread_local struct op *held[HELD_MAX];
static _Thread_local unsigned n_held;

static void submit_unless_it_hangs(struct ring *r, struct op *op)
{
    if (op->kind != OP_WRITE || !atomic_load(&bed_disk_hangs)) {
        world_real.ring_submit(r, op);
        return;
    }
    ASSERT(n_held < HELD_MAX);
    held[n_held++] = op;
}

static void wait_and_let_go(struct ring *r, ns_t until,
                            void (*complete)(struct op *, int, bool, const char *, unsigned))
{
    while (n_held > 0 && !atomic_load(&bed_disk_hangs))
        world_real.ring_submit(r, held[--n_held]);
    world_real.ring_wait(r, until, complete);
}

static struct world bed_world;

/* ---- the engine -------------------------------------------------------------------------------------------------- */

static void on_bad(const struct http_bad_request *bad, void *arg)
{
    struct seat *seat = arg;

    call_record_bad_request(seat->worker, E_HTTP_MALFORMED, http_fault_text(bad->fault), bad->peer, bad->bytes.len);
}

static void handle(struct http_request *rq, void *arg)
{
    struct seat *seat = arg;

    if (mcp_serves(seat->bed->mcp, http_path(rq)))
        mcp_handle(rq, seat->bed->mcp);
    else
        await_http_reply(rq, 404, NULL, 0, STR_NULL);
}

static void seat_open(void *arg)
{
    struct seat *seat = arg;
    struct http_server_options http = { .listen = "127.0.0.1:0", .handler = handle, .on_bad_request = on_bad,
                                        .arg = seat };
    struct errinfo info;

    ASSERT(journal_lane_open(seat->bed->engine.journal, seat->worker->id, &seat->worker->lane, &info) == OK);
    ASSERT(http_server_start(&http, &seat->http, &info) == OK);
    http_server_name(seat->http, seat->address);
    sem_post(&seat->ready);
}

static void *seat_main(void *arg)
{
    struct seat *seat = arg;

    worker_enter(seat->worker);
    loop_run(seat->worker->loop, seat_open, seat);
    registry_leave(seat->worker->held);
    return NULL;
}

static void close_lane(void *arg)
{
    struct seat *seat = arg;

    ASSERT(await_journal_lane_close(seat->worker->lane) == OK);
    loop_stop(seat->worker->loop);
}

static void poll_end(struct timer *t)
{
    struct seat *seat = CONTAINER_OF(t, struct seat, poll);

    if (seat->worker->calls > 0 || !http_server_idle(seat->http)) {
        timer_set(t, loop_now() + NS_PER_MS, poll_end);
        return;
    }
    http_server_stop(seat->http);
    ASSERT(task_spawn("closing", close_lane, seat) != NULL);
}

static void end_mail(struct mail *m)
{
    struct seat *seat = CONTAINER_OF(m, struct seat, end);

    seat->worker->draining = true;
    http_server_drain(seat->http);
    poll_end(&seat->poll);
}

static void never_alarm(void *arg, int64_t when)
{
}

static void open_stores(struct bed *b, bool auth)
{
    char path[256];
    struct vault_config vault = { 0 };
    struct journal_options journal = { .dir = path, .segment_bytes = 16 << 20 };
    struct rl_config limiter = { .alarm = never_alarm };
    struct errinfo info = { "" };

    snprintf(path, sizeof(path), "file:%s/root.key", b->dir);
    assert_int_equal(vault_root_load(str_of(path), true, &b->root, &info), OK);
    assert_int_equal(store_open(":memory:", &b->store, &info), OK);
    vault.store = b->store;
    vault.root = b->root;
    assert_int_equal(vault_open(&vault, &b->engine.vault, &info), OK);
    snprintf(path, sizeof(path), "%s/journal", b->dir);
    assert_int_equal(journal_open(&journal, &b->engine.journal, &info), OK);
    b->engine.once = once_new(3600 * NS_PER_S);
    b->engine.limiter = rl_new(&limiter);
    if (auth) {
        struct str audience = STR("http://bed/mcp");
        struct identity_config config = { .local_audiences = &audience, .n_local_audiences = 1 };

        assert_int_equal(identity_local_open(b->dir, STR("bed:local"), true, &b->local, &info), OK);
        config.local = b->local;
        assert_int_equal(identity_create(&config, &b->engine.identity, &info), OK);
    }
}

static void open_registry(struct bed *b, const char *policy)
{
    struct policy_source source = { STR("test"), str_of(policy ? policy : "permit(principal, action, resource);") };
    struct registry_options opt = { 0 };
    struct errinfo info = { "" };

    assert_int_equal(policy_set_parse(&source, 1, 0, &opt.policy, &info), OK);
    if (registry_build(&opt, &b->registry, &info))
        fail_msg("%s", info.text);
    policy_set_unref(opt.policy);
    assert_int_equal(registry_take_rules(b->registry, &b->engine.budget_rules, &info), OK);
    registry_apply_limits(b->registry, b->engine.limiter, world->now());
    registry_make_keys(b->registry, b->engine.limiter);
}

void bed_start(struct bed *b, const struct mcp_options *opt, const char *policy, bool auth)
{
    struct mcp_options own = opt ? *opt : (struct mcp_options){ 0 };
    struct errinfo info = { "" };

    memset(b, 0, sizeof(*b));
    if (!bed_world.name) {
        bed_world = world_real;
        bed_world.wall_ms = shifted_wall;
        bed_world.ring_submit = submit_unless_it_hangs;
        bed_world.ring_wait = wait_and_let_go;
        world_use(&bed_world);
        sem_init(&tool_waits, 0, 0);
        sem_init(&tool_cancelled, 0, 0);
    }
    atomic_store(&bed_wall_offset, 0);
    b->auth = auth;
    snprintf(b->dir, sizeof(b->dir), "/tmp/sluice-mcp-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    open_stores(b, auth);
    open_registry(b, policy);
    b->engine.workers = b->workers;
    b->engine.n_workers = BED_WORKERS;
    own.engine = &b->engine;
    own.listen = "127.0.0.1:0";
    own.no_auth = !auth;
    own.tenant = "acme";
    own.user = "alice";
    own.agent = "tester";
    assert_int_equal(mcp_new(&own, &b->mcp, &info), OK);
    for (unsigned i = 0; i < BED_WORKERS; i++) {
        struct seat *seat = &b->seats[i];
        struct loop_options loop = { .id = i, .tasks_max = 1024 };

        b->workers[i] = (struct worker){ .id = i, .engine = &b->engine, .held = registry_hold(b->registry) };
        assert_int_equal(loop_create(&loop, &b->workers[i].loop, &info), OK);
        seat->bed = b;
        seat->worker = &b->workers[i];
        seat->end.fn = end_mail;
        sem_init(&seat->ready, 0, 0);
    }
    for (unsigned i = 0; i < BED_WORKERS; i++) {
        assert_int_equal(pthread_create(&b->seats[i].thread, NULL, seat_main, &b->seats[i]), 0);
        sem_wait(&b->seats[i].ready);
    }
}

static bool count_ends(const struct journal_record *r, void *arg)
{
    (*(unsigned *)arg)++;
    return true;
}

/* Every request that was sent ended in exactly one record that says how. */
static void check_journal(struct bed *b)
{
    struct journal_scan_options ends = { .types = 1u << JOURNAL_OUTCOME | 1u << JOURNAL_REQUEST, .lane = -1 };
    struct journal_verify_options verify = { 0 };
    struct journal_report report;
    char path[256];
    struct errinfo info = { "" };
    unsigned n = 0;

    snprintf(path, sizeof(path), "%s/journal", b->dir);
    assert_int_equal(journal_verify(path, &verify, NULL, NULL, &report, &info), OK);
    assert_int_equal(report.problems, 0);
    assert_int_equal(journal_scan(path, &ends, count_ends, &n, &info), OK);
    assert_int_equal(n, atomic_load(&b->sent));
}

void bed_stop(struct bed *b)
{
    char command[128];

    mcp_drain(b->mcp);
    for (unsigned i = 0; i < BED_WORKERS; i++)
        loop_post(b->workers[i].loop, &b->seats[i].end);
    for (unsigned i = 0; i < BED_WORKERS; i++)
        pthread_join(b->seats[i].thread, NULL);
    for (unsigned i = 0; i < BED_WORKERS; i++) {
        loop_destroy(b->workers[i].loop);
        sem_destroy(&b->seats[i].ready);
    }
    mcp_free(b->mcp);
    rl_free(b->engine.limiter);
    journal_close(b->engine.journal);
    once_free(b->engine.once);
    if (b->engine.identity)
        identity_destroy(b->engine.identity);
    identity_local_close(b->local);
    vault_close(b->engine.vault);
    store_close(b->store);
    secret_release(b->root);
    registry_unref(b->registry);
    check_journal(b);
    snprintf(command, sizeof(command), "rm -rf %s", b->dir);
    assert_int_equal(system(command), 0);
}

const char *bed_token(struct bed *b, const char *user, const char *agent, const char *scopes)
{
    static char ring[4][4096];
    static unsigned next;
    struct identity_mint mint = { .tenant = STR("acme"), .user = str_of(user), .agent = str_of(agent),
                                  .audience = STR("http://bed/mcp"),
                                  .scopes = str_of(scopes), .now = world->wall_ms(), .ttl = 3600 * NS_PER_S };
    struct buf out = BUF_INIT(3500);
    char *to = ring[next++ % 4];
    struct errinfo info = { "" };

    assert_int_equal(identity_mint(b->local, &mint, &out, &info), OK);
    snprintf(to, sizeof(ring[0]), "Authorization: Bearer %.*s\r\n", STR_ARG(buf_str(&out)));
    buf_release(&out);
    return to;
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

static int dial(struct bed *b, unsigned worker)
{
    const char *colon = strrchr(b->seats[worker].address, ':');
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval patience = { .tv_sec = PATIENCE_S };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

/* HTTP/1.0: an answer ends where its connection does. */
static void send_request(int fd, const char *method, const char *path, const char *headers, const char *body)
{
    struct buf b = BUF_INIT(REPLY_MAX);

    buf_addf(&b, "%s %s HTTP/1.0\r\n", method, path);
    if (!strstr(headers, "Host:"))
        buf_add_z(&b, "Host: localhost:1\r\n");
    buf_add_z(&b, headers);
    if (body)
        buf_addf(&b, "Content-Length: %zu\r\n", strlen(body));
    buf_add_z(&b, "\r\n");
    if (body)
        buf_add_z(&b, body);
    for (size_t done = 0; done < b.len; ) {
        ssize_t n = send(fd, b.p + done, b.len - done, MSG_NOSIGNAL);

        assert_true(n > 0);
        done += (size_t)n;
    }
    buf_release(&b);
}

/* Walks the events of a body: the data of the nth, and how many there are. */
static struct str walk_events(const struct reply *r, unsigned wanted, unsigned *ret_n, unsigned *ret_pings)
{
    struct str rest = str_n(r->body, r->len), line, found = STR_NULL;

    *ret_n = *ret_pings = 0;
    while (str_cut(rest, '\n', &line, &rest)) {
        if (str_starts(line, STR("data: ")) && (*ret_n)++ == wanted)
            found = str_from(line, 6);
        if (str_is(line, ":"))
            (*ret_pings)++;
    }
    return found;
}

static struct json *parsed(struct arena *a, struct str text)
{
    struct json *j = NULL;
    struct json_error where;

    if (text.len == 0)
        return NULL;
    if (json_parse(a, arena_str(a, text), NULL, &j, &where))
        fail_msg("not JSON: %.*s", STR_ARG(text));
    return j;
}

static void read_reply(int fd, struct reply *r)
{
    struct buf in = BUF_INIT(REPLY_MAX);
    char piece[16384], *end, *session;
    ssize_t n;

    memset(r, 0, sizeof(*r));
    arena_init(&r->a, 64 << 20);
    while ((n = recv(fd, piece, sizeof(piece), 0)) > 0)
        buf_add(&in, piece, (size_t)n);
    assert_int_equal(n, 0);
    buf_add_c(&in, '\0');
    assert_int_equal(sscanf(in.p, "HTTP/1.1 %d", &r->status), 1);
    end = strstr(in.p, "\r\n\r\n");
    assert_non_null(end);
    assert_true((size_t)(end - in.p) < sizeof(r->head));
    memcpy(r->head, in.p, (size_t)(end - in.p));
    r->len = in.len - 1 - (size_t)(end + 4 - in.p);
    r->body = malloc(r->len + 1);
    memcpy(r->body, end + 4, r->len + 1);
    buf_release(&in);
    session = strstr(r->head, "Mcp-Session-Id: ");
    if (session)
        sscanf(session, "Mcp-Session-Id: %63s", r->session);
    if (strstr(r->head, "text/event-stream")) {
        walk_events(r, 0, &r->events, &r->pings);
        r->json = r->events ? event(r, r->events - 1) : NULL;
    } else if (strstr(r->head, "application/json")) {
        r->json = parsed(&r->a, str_n(r->body, r->len));
    }
}

struct json *event(struct reply *r, unsigned n)
{
    unsigned count, pings;

    return parsed(&r->a, walk_events(r, n, &count, &pings));
}

void reply_release(struct reply *r)
{
    free(r->body);
    arena_release(&r->a);
}

static struct json *down(struct json *j, const char *path)
{
    struct str rest = str_of(path), word;

    while (rest.len) {
        uint64_t i;

        if (!str_cut(rest, ' ', &word, &rest)) {
            word = rest;
            rest = STR_NULL;
        }
        j = json_is(j, JSON_ARRAY) && str_to_u64(word, &i) ? json_at(j, i) : json_get_str(j, word);
    }
    return j;
}

struct json *at(const struct reply *r, const char *path)
{
    return down(r->json, path);
}

int64_t int_at(const struct reply *r, const char *path)
{
    int64_t n = INT64_MIN;

    json_int(at(r, path), &n);
    return n;
}

const char *json_z(const struct json *j, const char *path)
{
    static char ring[8][4096];
    static unsigned next;
    struct str s = json_str(down((struct json *)j, path));
    char *to = ring[next++ % 8];

    snprintf(to, sizeof(ring[0]), "%.*s", STR_ARG(s));
    return to;
}

const char *z_at(const struct reply *r, const char *path)
{
    return json_z(r->json, path);
}

bool head_has(const struct reply *r, const char *z)
{
    return strstr(r->head, z) != NULL;
}

void request(struct bed *b, unsigned worker, const char *method, const char *path, const char *headers,
             const char *body, struct reply *r)
{
    int fd = dial(b, worker);

    if (strcmp(path, "/mcp") == 0 && strcmp(method, "OPTIONS") != 0)
        atomic_fetch_add(&b->sent, 1);
    send_request(fd, method, path, headers, body);
    read_reply(fd, r);
    close(fd);
}

#define USUAL "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"

void post(struct bed *b, unsigned worker, const char *headers, const char *body, struct reply *r)
{
    char all[8192];

    snprintf(all, sizeof(all), USUAL "%s", headers);
    request(b, worker, "POST", "/mcp", all, body, r);
}

void modern_text(const struct modern *m, struct buf *headers, struct buf *body)
{
    buf_addf(headers, "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: %s\r\n%s", m->method, m->headers ? m->headers :
             "");
    if (m->name)
        buf_addf(headers, "Mcp-Name: %s\r\n", m->name);
    buf_add_c(headers, '\0');
    buf_addf(body, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"%s\",\"params\":{%s%s\"_meta\":{"
             "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
             "\"io.modelcontextprotocol/clientCapabilities\":%s%s}}}", m->method, m->params ? m->params : "",
                 m->params && *m->params ? "," : "",
             m->caps ? m->caps : "{}", m->meta ? m->meta : "");
    buf_add_c(body, '\0');
}

void modern(struct bed *b, const struct modern *m, struct reply *r)
{
    struct buf headers = BUF_INIT(8192), body = BUF_INIT(REPLY_MAX);

    modern_text(m, &headers, &body);
    post(b, m->worker, headers.p, body.p, r);
    buf_release(&headers);
    buf_release(&body);
}

void modern_call(struct bed *b, const char *tool, const char *args, struct reply *r)
{
    struct buf params = BUF_INIT(REPLY_MAX);

    buf_addf(&params, "\"name\":\"%s\",\"arguments\":%s", tool, args);
    buf_add_c(&params, '\0');
    modern(b, &(struct modern){ .method = "tools/call", .name = tool, .params = params.p }, r);
    buf_release(&params);
}

void initialize(struct bed *b, const char *version, const char *caps, struct reply *r)
{
    char body[1024];

    snprintf(body, sizeof(body),
             "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"%s\","
             "\"capabilities\":%s,"
             "\"clientInfo\":{\"name\":\"t\",\"version\":\"1\"}}}", version, caps);
    post(b, 0, "", body, r);
}

void legacy(struct bed *b, unsigned worker, const char *session, const char *body, struct reply *r)
{
    char headers[256] = "";

    if (*session)
        snprintf(headers, sizeof(headers), "Mcp-Session-Id: %s\r\n", session);
    post(b, worker, headers, body, r);
}

/* ---- streams ----------------------------------------------------------------------------------------------------- */

void stream_open(struct bed *b, struct stream *s, unsigned worker, const char *method, const char *headers,
                 const char *body)
{
    char all[8192];

    *s = (struct stream){ .fd = dial(b, worker), .in = BUF_INIT(REPLY_MAX) };
    arena_init(&s->a, 16 << 20);
    atomic_fetch_add(&b->sent, 1);
    snprintf(all, sizeof(all), "%s%s", body ? USUAL : "Accept: text/event-stream\r\n", headers);
    send_request(s->fd, method, "/mcp", all, body);
}

static bool more(struct stream *s)
{
    char piece[4096];
    ssize_t n = recv(s->fd, piece, sizeof(piece), 0);

    assert_true(n >= 0);
    buf_add(&s->in, piece, (size_t)n);
    return n > 0;
}

struct json *stream_next(struct stream *s)
{
    struct str line, rest;
    struct json *j;

    for (;;) {
        if (!str_cut(buf_str(&s->in), '\n', &line, &rest)) {
            if (!more(s))
                return NULL;
            continue;
        }
        if (str_starts(line, STR("HTTP/1.1 ")))
            assert_true(str_starts(line, STR("HTTP/1.1 200 ")));
        if (str_is(line, ":"))
            s->pings++;
        j = str_starts(line, STR("data: ")) ? parsed(&s->a, str_from(line, 6)) : NULL;
        buf_drop_front(&s->in, line.len + 1);
        if (j)
            return j;
    }
}

void stream_pinged(struct stream *s, unsigned n)
{
    struct str line, rest;
    unsigned seen;

    for (;;) {
        seen = 0;
        for (rest = buf_str(&s->in); str_cut(rest, '\n', &line, &rest);)
            seen += str_is(line, ":");
        if (seen >= n)
            return;
        assert_true(more(s));
    }
}

void stream_close(struct stream *s)
{
    close(s->fd);
    buf_release(&s->in);
    arena_release(&s->a);
}
