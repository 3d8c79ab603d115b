/*
 * fetch_pool_test.c -- who gets which connection: reuse, lines, tenants, guards, cancelling, draining
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fetch_bed.h"

/* ---- reuse ------------------------------------------------------------------------------------------------------- */

/* Answers with the number of the connection; "/hold" waits for the semaphore first. */
static void serve_number(struct peer *p)
{
    char text[16];

    snprintf(text, sizeof(text), "%u", p->index);
    while (peer_request(p)) {
        if (str_is(p->path, "/hold"))
            sem_wait(p->up->arg);
        if (!peer_reply(p, text))
            return;
    }
}

static void lifo_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "GET", "/hold");
    struct caller c[3];
    char last[16];

    for (int i = 0; i < 3; i++)
        caller_start(&c[i], b, &req);
    while (atomic_load(&b->up->requests) < 3)
        CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
    sem_post(b->arg);
    sem_post(b->arg);
    sem_post(b->arg);
    for (int i = 0; i < 3; i++) {
        CHECK_ERR(await_wake(&c[i].done, NS_NEVER), OK);
        CHECK_ERR(c[i].e, OK);
    }
    for (int i = 0; i < 3; i++)
        if (c[i].order > c[(i + 1) % 3].order && c[i].order > c[(i + 2) % 3].order)
            snprintf(last, sizeof(last), "%.*s", STR_ARG(c[i].reply.body));
    for (int i = 0; i < 3; i++)
        await_caller(&c[i]);
    for (int i = 0; i < 10; i++) {
        CHECK_ERR(await_get(b, "/"), OK);
        CHECK(b->reply.reused && str_is(b->reply.body, last));     /* always the one released last */
    }
    CHECK(atomic_load(&b->up->accepted) == 3);
}

static void test_lifo(void **state)
{
    sem_t gate;

    sem_init(&gate, 0, 0);
    bed_run(false, serve_number, &gate, NULL, lifo_body);
    sem_destroy(&gate);
}

enum { LINE = 40 };

static atomic_uint together;    /* so many are to be served at once before the first is answered */

/* Counts how many are served at once: as many as may, and those that are too many would meet them. */
static void serve_counting(struct peer *p)
{
    char path[64];

    while (peer_request(p)) {
        unsigned now = atomic_fetch_add(&p->up->now, 1) + 1, max = atomic_load(&p->up->now_max);

        while (now > max && !atomic_compare_exchange_weak(&p->up->now_max, &max, now))
            ;
        while (atomic_load(&p->up->now_max) < atomic_load(&together))
            usleep(100);
        usleep(1000);
        snprintf(path, sizeof(path), "%.*s", STR_ARG(p->path));
        atomic_fetch_sub(&p->up->now, 1);
        if (!peer_reply(p, path))
            return;
    }
}

static void line_body(struct bed *b)
{
    static struct caller c[LINE];
    char paths[LINE][16];

    for (int i = 0; i < LINE; i++) {
        struct fetch_request req;

        snprintf(paths[i], sizeof(paths[i]), "/%d", i);
        req = bed_request(b, "POST", paths[i]);
        if (i % 3 == 2)
            req.flags = FETCH_FULL;
        caller_start(&c[i], b, &req);
    }
    for (unsigned i = 0; i < LINE; i++) {
        CHECK_ERR(await_wake(&c[i].done, NS_NEVER), OK);
        CHECK_ERR(c[i].e, OK);
        CHECK(str_is(c[i].reply.body, paths[i]));
        CHECK(b->opt.per_origin_max > 1 || c[i].order == c[0].order + i);      /* first come, first served */
    }
    for (int i = 0; i < LINE; i++)
        await_caller(&c[i]);
    CHECK(atomic_load(&b->up->now_max) == b->opt.per_origin_max);
}

static void test_line(void **state)
{
    struct fetch_options opt = { .per_origin_max = 1 };

    atomic_store(&together, 1);
    bed_run(false, serve_counting, NULL, &opt, line_body);
    opt.per_origin_max = 3;
    atomic_store(&together, 3);
    bed_run(true, serve_counting, NULL, &opt, line_body);
}

/* In line until the deadline; cancelled in line; the line moves on past both. */
static void line_leave_body(struct bed *b)
{
    struct fetch_request hold = bed_request(b, "GET", "/hold"), req = bed_request(b, "POST", "/x");
    struct caller first, late, gone, last;

    caller_start(&first, b, &hold);
    while (atomic_load(&b->up->requests) < 1)
        CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
    req.deadline = loop_now() + 30 * NS_PER_MS;
    caller_start(&late, b, &req);
    req.deadline = NS_NEVER;
    caller_start(&gone, b, &req);
    caller_start(&last, b, &req);
    await_caller(&late);
    CHECK(late.e == E_DEADLINE && late.sent == FETCH_NOT_SENT);
    task_cancel(task_deref(gone.task));
    await_caller(&gone);
    CHECK(gone.e == E_CANCELLED && gone.sent == FETCH_NOT_SENT);
    sem_post(b->arg);
    await_caller(&first);
    await_caller(&last);
    CHECK(first.e == OK && last.e == OK && last.reply.reused);
    CHECK(atomic_load(&b->up->requests) == 2);
}

static void test_line_leave(void **state)
{
    struct fetch_options opt = { .per_origin_max = 1 };
    sem_t gate;

    sem_init(&gate, 0, 0);
    bed_run(false, serve_number, &gate, &opt, line_leave_body);
    sem_destroy(&gate);
}

/* More than one multi holds, over and over. */
static void many_body(struct bed *b)
{
    enum { N = 150 };
    static struct caller c[N];
    struct fetch_request req = bed_request(b, "GET", "/hold");

    for (unsigned round = 1; round <= 3; round++) {
        for (int i = 0; i < N; i++)
            caller_start(&c[i], b, &req);
        while (atomic_load(&b->up->requests) < N * round)
            CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
        for (int i = 0; i < N; i++)
            sem_post(b->arg);
        for (int i = 0; i < N; i++) {
            await_caller(&c[i]);
            CHECK(c[i].e == OK && c[i].reply.reused == (round > 1));
        }
    }
    CHECK(atomic_load(&b->up->accepted) == N);
}

/* Handshakes are spread over turns: who waits for that can be cancelled, or run out of time. */
static void begin_body(struct bed *b)
{
    enum { N = 40 };
    static struct caller c[N];
    unsigned gone = 0, late = 0;

    for (int i = 0; i < N; i++) {
        struct fetch_request req = bed_request(b, "POST", "/");

        if (i == N - 1)
            req.deadline = loop_now() + NS_PER_MS;
        if (i == N - 3)
            req.flags = FETCH_FULL;
        caller_start(&c[i], b, &req);
    }
    await_turn();
    task_cancel(task_deref(c[N - 2].task));
    task_cancel(task_deref(c[N - 3].task));
    for (int i = 0; i < N; i++) {
        await_caller(&c[i]);
        CHECK(c[i].e == OK || (i >= N - 3 && c[i].sent == FETCH_NOT_SENT));
        gone += c[i].e == E_CANCELLED;
        late += c[i].e == E_DEADLINE;
    }
    CHECK(gone == 2 && late == 1);
}

static void test_many(void **state)
{
    sem_t gate;

    bed_run(true, serve_paths, NULL, NULL, begin_body);
    sem_init(&gate, 0, 0);
    bed_run(false, serve_number, &gate, NULL, many_body);
    bed_run(true, serve_number, &gate, NULL, many_body);
    sem_destroy(&gate);
}

/* ---- doubt ------------------------------------------------------------------------------------------------------- */

/* A second answer behind the first: at once, or when the connection lies idle. Answers carry the connection's number.
 */
static void serve_smuggler(struct peer *p)
{
    char one[200];
    int n = snprintf(one, sizeof(one), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%u", p->index);

    if (!peer_request(p))
        return;
    snprintf(one + n, sizeof(one) - (size_t)n, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!");
    if (str_is(p->path, "/at-once")) {
        peer_say(p, one);
    } else {
        peer_send(p, one, (size_t)n);
        sem_wait(p->up->arg);
        peer_say(p, one + n);
        sem_post((sem_t *)p->up->arg + 1);
    }
    if (peer_request(p))
        peer_reply(p, "second request on a connection in doubt");
}

/* The bytes are in the socket when this returns; the loop has not turned meanwhile. */
static void smuggle(void *arg)
{
    sem_t *gates = arg;

    sem_post(&gates[0]);
    sem_wait(&gates[1]);
}

/* They come when the connection has been taken, and its request waits for those that leave together with it. */
static void await_smuggled_behind_the_taking(struct bed *b, const char *expected)
{
    struct fetch_request req = bed_request(b, "POST", "/at-once");
    struct caller c;

    CHECK_ERR(await_get(b, "/later"), OK);
    caller_start(&c, b, &req);
    CHECK(task_spawn("smuggler", smuggle, b->arg));
    CHECK_ERR(await_wake(&c.done, loop_now() + 30 * NS_PER_S), OK);
    CHECK_ERR(c.e, OK);
    CHECK(str_is(c.reply.body, expected) && !c.reply.reused);
    arena_release(&c.arena);
}

static void smuggler_body(struct bed *b)
{
    sem_t *gates = b->arg;

    for (int i = 0; i < 3; i++) {
        char expected[2] = { (char)('0' + i), 0 };

        CHECK_ERR(await_get(b, "/at-once"), OK);
        CHECK(str_is(b->reply.body, expected) && !b->reply.reused);
    }
    CHECK_ERR(await_get(b, "/later"), OK);
    CHECK(str_is(b->reply.body, "3"));
    smuggle(gates);
    CHECK_ERR(await_get(b, "/at-once"), OK);
    CHECK(str_is(b->reply.body, "4") && !b->reply.reused);
    await_smuggled_behind_the_taking(b, "6");
    CHECK_ERR(await_get(b, "/later"), OK);
    smuggle(gates);
    while (metric_sum(M_FETCH_CONNECTIONS) > 0)         /* the poll of the idle connection sees them too */
        CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
}

static void test_smuggler(void **state)
{
    sem_t gates[2];

    sem_init(&gates[0], 0, 0);
    sem_init(&gates[1], 0, 0);
    bed_run(false, serve_smuggler, gates, NULL, smuggler_body);
    bed_run(true, serve_smuggler, gates, NULL, smuggler_body);
}

static void serve_close_word(struct peer *p)
{
    while (peer_request(p))
        if (!peer_say(p, str_is(p->path, "/1.0")
                             ? "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"
                             : "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"))
            return;
}

static void close_word_body(struct bed *b)
{
    for (unsigned i = 0; i < 4; i++) {
        CHECK_ERR(await_post(b, i % 2 ? "/1.0" : "/", "x"), OK);
        CHECK(!b->reply.reused);
    }
    CHECK(atomic_load(&b->up->accepted) == 4 && metric_sum(M_FETCH_CONNECTIONS) == 0);
}

static void test_close_word(void **state)
{
    bed_run(false, serve_close_word, NULL, NULL, close_word_body);
}

/* One answer, then the connection is closed; the semaphore says when. */
static void serve_once(struct peer *p)
{
    if (peer_request(p) && peer_reply(p, "x")) {
        shutdown(p->fd, SHUT_RDWR);
        sem_post(p->up->arg);
    }
}

static void dead_idle_body(struct bed *b)
{
    for (int i = 0; i < 5; i++) {
        CHECK_ERR(await_post(b, "/", "x"), OK);
        CHECK(!b->reply.reused);
        sem_wait(b->arg);               /* closed, and the loop has not turned: the look before reuse finds it */
    }
    CHECK_ERR(await_post(b, "/", "x"), OK);
    sem_wait(b->arg);
    while (metric_sum(M_FETCH_CONNECTIONS) > 0)         /* here the poll does */
        CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
    CHECK(atomic_load(&b->up->requests) == 6);
}

static void test_dead_idle(void **state)
{
    sem_t closed;

    sem_init(&closed, 0, 0);
    bed_run(false, serve_once, &closed, NULL, dead_idle_body);
    bed_run(true, serve_once, &closed, NULL, dead_idle_body);
}

/* Reads the second request of each connection and closes without a word. */
static void serve_first_only(struct peer *p)
{
    if (peer_request(p) && peer_reply(p, "x"))
        peer_request(p);
}

static void dies_on_reuse_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    unsigned flags = b->arg ? FETCH_FULL : 0;

    req.flags = flags;
    CHECK_ERR(await_bed(b, &req), OK);
    CHECK_ERR(await_bed(b, &req), E_OUTCOME_UNKNOWN);               /* it may have happened: never twice */
    CHECK(b->sent == FETCH_SENT && atomic_load(&b->up->requests) == 2);
    CHECK_ERR(await_bed(b, &req), OK);
    req = bed_request(b, "GET", "/");
    req.flags = flags;
    CHECK_ERR(await_bed(b, &req), OK);                              /* harmless: again, on a new connection */
    CHECK(!b->reply.reused && atomic_load(&b->up->requests) == 5 && b->sent == FETCH_ANSWERED);
}

static void test_dies_on_reuse(void **state)
{
    bed_run(false, serve_first_only, NULL, NULL, dies_on_reuse_body);
    bed_run(true, serve_first_only, NULL, NULL, dies_on_reuse_body);
    bed_run(false, serve_first_only, (void *)1, NULL, dies_on_reuse_body);
    bed_run(true, serve_first_only, (void *)1, NULL, dies_on_reuse_body);
}

static void idle_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "GET", "/");
    static const char *const tenants[] = { "a", "b", "c" };
    ns_t from = loop_now();

    for (int i = 0; i < 3; i++) {       /* two may lie idle: the oldest makes room */
        req.tenant = str_of(tenants[i]);
        CHECK_ERR(await_bed(b, &req), OK);
    }
    CHECK(metric_sum(M_FETCH_CONNECTIONS) == 2);
    while (metric_sum(M_FETCH_CONNECTIONS) > 0)
        CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
    CHECK(loop_now() - from >= b->opt.idle_timeout);
    CHECK_ERR(await_bed(b, &req), OK);
    CHECK(!b->reply.reused);
}

static void test_idle(void **state)
{
    struct fetch_options opt = { .idle_max = 2, .idle_timeout = 700 * NS_PER_MS };

    bed_run(false, serve_paths, NULL, &opt, idle_body);
}

/* ---- tenants and guards ------------------------------------------------------------------------------------------ */

static void tenants_body(struct bed *b)
{
    static const char *const order[][2] = { { "acme", "0" }, { "zeta", "1" }, { "acme", "0" },
                                            { "zeta", "1" }, { "acm", "2" },  { "acme", "0" } };
    struct fetch_request req = bed_request(b, "GET", "/");
    struct fetch_guard same = b->opt.guard, looser = b->opt.guard;

    req.flags = b->arg ? FETCH_FULL : 0;
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        req.tenant = str_of(order[i][0]);
        CHECK_ERR(await_bed(b, &req), OK);
        CHECK(str_is(b->reply.body, order[i][1]));
        CHECK(b->reply.reused == (i == 2 || i == 3 || i == 5));
    }
    req.guard = &same;
    CHECK_ERR(await_bed(b, &req), OK);
    CHECK(b->reply.reused);
    looser.allow_private = true;
    req.guard = &looser;
    CHECK_ERR(await_bed(b, &req), OK);
    CHECK(!b->reply.reused);
}

static void test_tenants(void **state)
{
    bed_run(false, serve_number, NULL, NULL, tenants_body);
    bed_run(false, serve_number, (void *)1, NULL, tenants_body);
    bed_run(true, serve_number, (void *)1, NULL, tenants_body);
}

static void guard_body(struct bed *b)
{
    static const struct fetch_guard strict = { 0 }, plain = { .allow_plain_http = true },
                                    private = { .allow_plain_http = true, .allow_private = true };
    const struct fetch_guard *guards[] = { &strict, &plain, &private };
    static const char *const hosts[] = { "127.0.0.1", "localhost", "api.test", "[::1]", "[::ffff:127.0.0.1]" };

    for (size_t h = 0; h < ARRAY_LEN(hosts); h++) {
        for (size_t i = 0; i < ARRAY_LEN(guards) * 2; i++) {
            struct fetch_request req = bed_request(b, "POST", "/");

            snprintf(b->origin.host, sizeof(b->origin.host), "%s", hosts[h]);
            req.guard = guards[i / 2];
            req.flags = i % 2 ? FETCH_FULL : 0;
            CHECK_ERR(await_bed(b, &req), E_EGRESS_DENIED);
            CHECK(b->sent == FETCH_NOT_SENT && b->info.text[0]);
        }
    }
    CHECK(atomic_load(&b->up->accepted) == 0);
    snprintf(b->origin.host, sizeof(b->origin.host), "api.test");
    CHECK_ERR(await_get(b, "/"), OK);   /* the options' guard allows loopback */
}

static void mixed_body(struct bed *b)
{
    ns_t from = loop_now();

    snprintf(b->origin.host, sizeof(b->origin.host), "mixed.test");
    CHECK_ERR(await_get(b, "/"), OK);   /* one address refused, the next one taken */
    snprintf(b->origin.host, sizeof(b->origin.host), "never.test");
    CHECK_ERR(await_get(b, "/"), E_EGRESS_DENIED);
    CHECK(loop_now() - from < b->opt.connect_timeout / 2);          /* and at once */
    snprintf(b->origin.host, sizeof(b->origin.host), "0x7f000001");
    CHECK_ERR(await_get(b, "/"), E_EGRESS_DENIED);
}

/* The port of the provider, which libcurl's table of names has to be told, is known only once it runs. */
static void mixed_resolve(struct bed *b)
{
    char mixed[128], never[128];
    const char *resolve[] = { mixed, never, NULL };
    struct fetch_options opt = b->opt;

    snprintf(mixed, sizeof(mixed), "mixed.test:%u:169.254.169.254,10.0.0.1,127.0.0.1", b->up->port);
    snprintf(never, sizeof(never), "never.test:%u:169.254.169.254,[::ffff:127.0.0.1],[fe80::1],10.0.0.1", b->up->port);
    opt.resolve = resolve;
    opt.connect_timeout = b->opt.connect_timeout = 10 * NS_PER_S;
    bed_with(b, &opt, mixed_body);
}

static void test_guard(void **state)
{
    bed_run(false, serve_paths, NULL, NULL, guard_body);
    bed_run(true, serve_paths, NULL, NULL, guard_body);
    bed_run(false, serve_paths, NULL, NULL, mixed_resolve);
}

static void environment_body(struct bed *b)
{
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("https_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    CHECK_ERR(await_get(b, "/"), OK);
    unsetenv("http_proxy");
    unsetenv("https_proxy");
    unsetenv("ALL_PROXY");
}

static void test_environment(void **state)
{
    bed_run(false, serve_paths, NULL, NULL, environment_body);
    bed_run(true, serve_paths, NULL, NULL, environment_body);
}

/* A proxy that opens its mouth once and is then the provider itself. */
static void serve_proxy(struct peer *p)
{
    if (!peer_request(p) || !str_is(p->method, "CONNECT"))
        return;
    CHECK(str_is(p->path, "far.example:80"));
    peer_say(p, "HTTP/1.1 200 Connection established\r\n\r\n");
    serve_paths(p);
}

static void proxy_body(struct bed *b)
{
    struct fetch_options opt = b->opt;
    struct fetch *kept = b->f;
    char proxy[64];

    snprintf(proxy, sizeof(proxy), "http://127.0.0.1:%u", b->up->port);
    opt.proxy = proxy;
    opt.guard.allow_loopback = false;   /* the proxy's own address is not asked for */
    CHECK_ERR(fetch_create(&opt, &b->f, NULL), OK);
    CHECK_ERR(fetch_origin_parse(STR("http://far.example"), &b->origin, NULL), OK);
    CHECK_ERR(await_post(b, "/one", "x"), OK);
    CHECK(str_is(b->reply.body, "/one"));
    CHECK_ERR(await_post(b, "/two", "x"), OK);
    CHECK(str_is(b->reply.body, "/two") && b->reply.reused);
    CHECK_ERR(fetch_origin_parse(STR("http://127.0.0.1"), &b->origin, NULL), OK);
    CHECK_ERR(await_get(b, "/"), E_EGRESS_DENIED);
    fetch_drain(b->f);
    CHECK_ERR(await_sleep(loop_now() + 10 * NS_PER_MS), OK);
    fetch_destroy(b->f);
    b->f = kept;
}

static void test_proxy(void **state)
{
    bed_run(false, serve_proxy, NULL, NULL, proxy_body);
}

static void tls_body(struct bed *b)
{
    CHECK_ERR(await_get(b, "/"), OK);
    snprintf(b->origin.host, sizeof(b->origin.host), "api.test");
    CHECK_ERR(await_get(b, "/"), OK);
    snprintf(b->origin.host, sizeof(b->origin.host), "127.0.0.1");
    CHECK_ERR(await_get(b, "/"), OK);
    snprintf(b->origin.host, sizeof(b->origin.host), "other.localhost");        /* not in the certificate */
    CHECK_ERR(await_get(b, "/"), E_UPSTREAM_DOWN);
    CHECK(b->sent == FETCH_NOT_SENT && strstr(b->info.text, "hostname mismatch"));
    snprintf(b->origin.host, sizeof(b->origin.host), "localhost");
    b->origin.tls = false;                                                      /* plain words to a TLS port */
    CHECK(await_post(b, "/", "") != OK && b->sent == FETCH_SENT);
}

static void untrusted_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");

    CHECK_ERR(await_bed(b, &req), E_UPSTREAM_DOWN);
    CHECK(b->sent == FETCH_NOT_SENT);
    req.flags = FETCH_FULL;
    CHECK_ERR(await_bed(b, &req), E_UPSTREAM_DOWN);
    CHECK(b->sent == FETCH_NOT_SENT && atomic_load(&b->up->requests) == 0);
}

static void test_tls(void **state)
{
    struct upstream *other = upstream_start(true, serve_paths, NULL);   /* its CA signed nothing of ours */
    struct fetch_options opt = { .ca_file = other->ca_file };
    struct errinfo info;
    struct fetch *f;

    bed_run(true, serve_paths, NULL, NULL, tls_body);
    bed_run(true, serve_paths, NULL, &opt, untrusted_body);
    upstream_stop(other);
    opt.ca_file = "/nonexistent/ca.pem";
    CHECK_ERR(fetch_create(&opt, &f, &info), E_CONFIG);
    CHECK(strstr(info.text, "/nonexistent/ca.pem"));
    opt.ca_file = "/etc/passwd";
    CHECK_ERR(fetch_create(&opt, &f, &info), E_CONFIG);
}

/* ---- cancelling, draining ---------------------------------------------------------------------------------------- */

static void cancel_body(struct bed *b)
{
    for (unsigned flags = 0; flags <= FETCH_FULL; flags++) {
        struct fetch_request req = bed_request(b, "POST", "/hold");
        unsigned before = atomic_load(&b->up->requests), sent = 0;
        struct caller c;

        req.flags = flags;
        caller_start(&c, b, &req);      /* before it ever ran */
        task_cancel(task_deref(c.task));
        await_caller(&c);
        CHECK(c.e == E_CANCELLED && c.sent == FETCH_NOT_SENT);
        for (int turns = 1; turns < 6; turns++) {       /* at every stage of connecting */
            caller_start(&c, b, &req);
            for (int i = 0; i < turns; i++)
                await_turn();
            task_cancel(task_deref(c.task));
            await_caller(&c);
            CHECK((c.e == E_CANCELLED && c.sent == FETCH_NOT_SENT) ||
                  (c.e == E_OUTCOME_UNKNOWN && c.sent == FETCH_SENT));
            sent += c.sent == FETCH_SENT;
        }
        while (atomic_load(&b->up->requests) < before + sent)
            CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
        before += sent;
        caller_start(&c, b, &req);      /* after bytes left */
        while (atomic_load(&b->up->requests) == before)
            CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
        task_cancel(task_deref(c.task));
        await_caller(&c);
        CHECK(c.e == E_OUTCOME_UNKNOWN && c.sent == FETCH_SENT);
    }
}

/* With a kept connection nothing waits before the bytes leave: cancelled all the same. */
static void cancel_kept_body(struct bed *b)
{
    struct fetch_request req = bed_request(b, "POST", "/");
    struct caller c;

    CHECK_ERR(await_get(b, "/"), OK);
    caller_start(&c, b, &req);
    task_cancel(task_deref(c.task));
    await_caller(&c);
    CHECK(c.e == E_CANCELLED && c.sent == FETCH_NOT_SENT && atomic_load(&b->up->requests) == 1);
    CHECK_ERR(await_get(b, "/"), OK);
    CHECK(b->reply.reused);             /* and the connection was not harmed */
}

/* Never answers "/hold"; closes with the other side. */
static void serve_holding(struct peer *p)
{
    while (peer_request(p) && !str_is(p->path, "/hold"))
        if (!peer_reply(p, "x"))
            return;
    peer_until_closed(p);
}

static void test_cancel(void **state)
{
    for (int tls = 0; tls < 2; tls++) {
        bed_run(tls, serve_holding, NULL, NULL, cancel_body);
        bed_run(tls, serve_holding, NULL, NULL, cancel_kept_body);
    }
}

static void drain_body(struct bed *b)
{
    struct fetch_request hold = bed_request(b, "GET", "/hold"), req = bed_request(b, "GET", "/");
    struct caller busy, line;

    CHECK_ERR(await_get(b, "/"), OK);
    caller_start(&busy, b, &hold);
    while (atomic_load(&b->up->requests) < 2)
        CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
    caller_start(&line, b, &req);
    await_turn();
    fetch_drain(b->f);
    await_caller(&line);
    CHECK(line.e == E_DRAINING && line.sent == FETCH_NOT_SENT);
    CHECK_ERR(await_bed(b, &req), E_DRAINING);
    sem_post(b->arg);
    await_caller(&busy);
    CHECK_ERR(busy.e, OK);
    CHECK(metric_sum(M_FETCH_CONNECTIONS) == 0);
}

static void test_drain(void **state)
{
    struct fetch_options opt = { .per_origin_max = 1 };
    sem_t gate;

    sem_init(&gate, 0, 0);
    bed_run(false, serve_number, &gate, &opt, drain_body);
    sem_destroy(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lifo),      cmocka_unit_test(test_line),          cmocka_unit_test(test_line_leave),
        cmocka_unit_test(test_many),      cmocka_unit_test(test_smuggler),      cmocka_unit_test(test_close_word),
        cmocka_unit_test(test_dead_idle), cmocka_unit_test(test_dies_on_reuse), cmocka_unit_test(test_idle),
        cmocka_unit_test(test_tenants),   cmocka_unit_test(test_guard),         cmocka_unit_test(test_environment),
        cmocka_unit_test(test_proxy),     cmocka_unit_test(test_tls),           cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_drain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
