/*
 * fetch_way_test.c -- how connections are opened: by libcurl, then directly for as long as that works
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fetch/internal.h"
#include "fetch_bed.h"

/* The only group there is. */
static const struct group *only_group(const struct bed *b)
{
    size_t i = 0;

    CHECK(b->f->groups.len == 1);
    return map_next(&b->f->groups, &i)->value;
}

static bool way_is(const struct bed *b, const char *address)
{
    const struct way *w = &only_group(b)->way;

    return w->len == sizeof(w->to.v4) && w->to.v4.sin_addr.s_addr == inet_addr(address);
}

/* `n` posts at once, each over a connection of its own; one seeker is cancelled. */
static void await_burst(struct bed *b, unsigned n, enum err expected)
{
    static struct caller c[100];
    struct fetch_request req = bed_request(b, "POST", "/");

    CHECK(n <= ARRAY_LEN(c));
    for (unsigned i = 0; i < n; i++)
        caller_start(&c[i], b, &req);
    await_turn();
    CHECK(only_group(b)->finders <= 16);
    task_cancel(task_deref(c[n - 1].task));
    for (unsigned i = 0; i < n; i++) {
        await_caller(&c[i]);
        CHECK(c[i].e == (i == n - 1 ? E_CANCELLED : expected));
        CHECK(c[i].sent == (c[i].e ? FETCH_NOT_SENT : FETCH_ANSWERED));
    }
}

/* Answers and closes; "/hold" waits for the semaphore first. */
static void serve_closing(struct peer *p)
{
    if (!peer_request(p))
        return;
    if (str_is(p->path, "/hold"))
        sem_wait(p->up->arg);
    peer_say(p, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
    peer_until_closed(p);
}

/* A provider that moves to its other address, and one that is not there at all. */
static void way_body(struct bed *b)
{
    struct caller held;
    struct fetch_request req;

    snprintf(b->origin.host, sizeof(b->origin.host), "moves.test");
    req = bed_request(b, "GET", "/hold");
    caller_start(&held, b, &req);       /* for as long as it is under way the group is, and what it knows */
    while (atomic_load(&b->up->requests) == 0)
        CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
    CHECK(way_is(b, "127.0.0.1"));
    await_burst(b, 50, OK);
    upstream_move(b->up, "127.0.0.2");
    do
        CHECK_ERR(await_post(b, "/", ""), OK);
    while (b->reply.reused);            /* what was opened for the one that was cancelled is as good as new */
    CHECK(way_is(b, "127.0.0.2"));
    upstream_move(b->up, "127.0.0.3");
    await_burst(b, 100, E_UPSTREAM_DOWN);
    CHECK(only_group(b)->way.len == 0);
    upstream_move(b->up, "127.0.0.1");
    await_burst(b, 100, OK);
    CHECK(way_is(b, "127.0.0.1"));
    sem_post(b->arg);
    await_caller(&held);
    CHECK_ERR(held.e, OK);
}

/* A place where connecting takes for ever: its queue is full. */
static void silent_body(struct bed *b)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0), fill[8];
    ns_t from = loop_now();

    CHECK(bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(fd, 0) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&at, &n) == 0);
    for (size_t i = 0; i < ARRAY_LEN(fill); i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fill[i], (struct sockaddr *)&at, sizeof(at));
    }
    b->origin.port = ntohs(at.sin_port);
    await_burst(b, 40, E_UPSTREAM_DOWN);
    CHECK(loop_now() - from < 3 * b->opt.connect_timeout);      /* not one after the other */
    for (size_t i = 0; i < ARRAY_LEN(fill); i++)
        close(fill[i]);
    close(fd);
}

static void way_resolve(struct bed *b)
{
    char moves[128];
    const char *resolve[] = { moves, NULL };
    struct fetch_options opt = b->opt;

    snprintf(moves, sizeof(moves), "moves.test:%u:127.0.0.1,127.0.0.2", b->up->port);
    opt.resolve = resolve;
    bed_with(b, &opt, way_body);
    opt.connect_timeout = b->opt.connect_timeout = 200 * NS_PER_MS;
    bed_with(b, &opt, silent_body);
}

static void test_way(void **state)
{
    sem_t gate;

    sem_init(&gate, 0, 0);
    bed_run(false, serve_closing, &gate, NULL, way_resolve);
    sem_destroy(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
