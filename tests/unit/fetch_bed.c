/*
 * fetch_bed.c -- see fetch_bed.h
 */
#include <fcntl.h>
#include <unistd.h>

#include "fetch_bed.h"

enum { PAGE = 4096 };

static void bed_main(void *arg)
{
    struct bed *b = arg;

    b->body(b);
    fetch_drain(b->f);
    loop_stop(b->loop);
}

static void bed_start(void *arg)
{
    CHECK(task_spawn("test", bed_main, arg));
}

void bed_run(enum speaks speaks, void (*serve)(struct peer *p), void *arg, const struct fetch_options *opt,
             void (*body)(struct bed *b))
{
    struct bed b = { .body = body, .arg = arg };
    struct loop_options loop_opt = { .id = 0 };
    char url[64], api[64];
    const char *resolve[] = { api, NULL };
    struct errinfo info;

    b.up = upstream_start(speaks, serve, arg);
    if (opt)
        b.opt = *opt;
    if (speaks == PEER_HTTP2 && b.opt.http2 == FETCH_HTTP2_SHARED)
        b.opt.http2 = FETCH_HTTP2_ALWAYS;
    b.opt.guard = (struct fetch_guard){ .allow_loopback = true, .allow_plain_http = true };
    b.opt.ca_file = b.opt.ca_file ? b.opt.ca_file : b.up->ca_file;
    snprintf(api, sizeof(api), "api.test:%u:127.0.0.1", b.up->port);
    if (!b.opt.resolve)
        b.opt.resolve = resolve;
    snprintf(url, sizeof(url), speaks ? "https://localhost:%u" : "http://127.0.0.1:%u", b.up->port);
    CHECK_ERR(fetch_origin_parse(str_of(url), &b.origin, NULL), OK);
    if (loop_create(&loop_opt, &b.loop, &info) || fetch_create(&b.opt, &b.f, &info)) {
        fprintf(stderr, "%s\n", info.text);
        abort();
    }
    arena_init(&b.arena, 64 << 20);
    loop_run(b.loop, bed_start, &b);
    arena_release(&b.arena);
    fetch_destroy(b.f);
    loop_destroy(b.loop);
    CHECK(metric_sum(M_FETCH_CONNECTIONS) == 0);
    upstream_stop(b.up);
}

struct fetch_request bed_request(struct bed *b, const char *method, const char *path)
{
    return (struct fetch_request){ .tenant = STR("acme"),
                                   .origin = &b->origin,
                                   .method = str_of(method),
                                   .path = str_of(path),
                                   .deadline = loop_now() + 20 * NS_PER_S,
                                   .reply_max = 1 << 20 };
}

enum err await_bed(struct bed *b, const struct fetch_request *req)
{
    arena_clear(&b->arena);
    b->info.text[0] = '\0';
    return await_fetch(b->f, req, &b->arena, &b->reply, &b->sent, &b->info);
}

enum err await_get(struct bed *b, const char *path)
{
    struct fetch_request req = bed_request(b, "GET", path);

    return await_bed(b, &req);
}

enum err await_post(struct bed *b, const char *path, const char *body)
{
    struct fetch_request req = bed_request(b, "POST", path);

    req.body = str_of(body);
    return await_bed(b, &req);
}

static void caller_main(void *arg)
{
    static unsigned ended;
    struct caller *c = arg;

    c->e = await_fetch(c->b->f, &c->req, &c->arena, &c->reply, &c->sent, NULL);
    c->order = ended++;
    wake_fire(&c->done);
}

void caller_start(struct caller *c, struct bed *b, const struct fetch_request *req)
{
    struct task *t;

    *c = (struct caller){ .b = b, .req = *req };
    arena_init(&c->arena, 1 << 20);
    t = task_spawn("caller", caller_main, c);
    CHECK(t);
    c->task = task_ref(t);
}

void await_caller(struct caller *c)
{
    CHECK_ERR(await_wake(&c->done, loop_now() + 30 * NS_PER_S), OK);
    arena_release(&c->arena);
}

void await_callers(struct caller *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        CHECK_ERR(await_wake(&c[i].done, loop_now() + 30 * NS_PER_S), OK);
}

void callers_start(struct caller *c, unsigned n, struct bed *b, const struct fetch_request *req)
{
    for (unsigned i = 0; i < n; i++)
        caller_start(&c[i], b, req);
}

void await_callers_fine(struct caller *c, unsigned n)
{
    await_callers(c, n);
    for (unsigned i = 0; i < n; i++)
        CHECK_ERR(c[i].e, OK);
    await_callers_gone(c, n);
}

void await_callers_gone(struct caller *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        await_caller(&c[i]);
}

void bed_with(struct bed *b, const struct fetch_options *opt, void (*body)(struct bed *b))
{
    struct fetch *kept = b->f;

    CHECK_ERR(fetch_create(opt, &b->f, NULL), OK);
    body(b);
    fetch_drain(b->f);
    CHECK_ERR(await_sleep(loop_now() + 5 * NS_PER_MS), OK);
    while (metric_sum(M_FETCH_CONNECTIONS) > 0)
        CHECK_ERR(await_sleep(loop_now() + NS_PER_MS), OK);
    fetch_destroy(b->f);
    b->f = kept;
}

unsigned find_in_memory(const char *needle, size_t n)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    static char chunk[1 << 20];
    unsigned found = 0;
    char line[512];

    while (fgets(line, sizeof(line), maps)) {
        unsigned long from, to;
        char perms[8];

        if (sscanf(line, "%lx-%lx %7s", &from, &to, perms) != 3 || strncmp(perms, "rw", 2) != 0 ||
            to - from > 1UL << 31)
            continue;
        for (unsigned long at = from, next; at < to; at = next) {
            size_t want = to - at < sizeof(chunk) ? to - at : sizeof(chunk);
            ssize_t got = pread(mem, chunk, want, (off_t)at);

            if (got <= 0)
                next = at + PAGE;       /* the guard of a stack */
            else if ((size_t)got == want && at + want < to)
                next = at + want - n;
            else
                next = at + (size_t)got;
            if (at <= (unsigned long)chunk && (unsigned long)chunk < at + want)
                continue;               /* this very buffer */
            for (const char *p = chunk; got > 0 && (p = memmem(p, (size_t)(chunk + got - p), needle, n)); p++)
                found += p != needle;
        }
    }
    explicit_bzero(chunk, sizeof(chunk));
    fclose(maps);
    close(mem);
    return found;
}
