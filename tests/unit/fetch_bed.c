/*
 * fetch_bed.c -- see fetch_bed.h
 */
#include "fetch_bed.h"

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

void bed_run(bool tls, void (*serve)(struct peer *p), void *arg, const struct fetch_options *opt,
             void (*body)(struct bed *b))
{
    struct bed b = { .body = body, .arg = arg };
    struct loop_options loop_opt = { .id = 0 };
    char url[64], api[64];
    const char *resolve[] = { api, NULL };
    struct errinfo info;

    b.up = upstream_start(tls, serve, arg);
    if (opt)
        b.opt = *opt;
    b.opt.guard = (struct fetch_guard){ .allow_loopback = true, .allow_plain_http = true };
    b.opt.ca_file = b.opt.ca_file ? b.opt.ca_file : b.up->ca_file;
    snprintf(api, sizeof(api), "api.test:%u:127.0.0.1", b.up->port);
    if (!b.opt.resolve)
        b.opt.resolve = resolve;
    snprintf(url, sizeof(url), tls ? "https://localhost:%u" : "http://127.0.0.1:%u", b.up->port);
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
