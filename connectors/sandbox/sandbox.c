/*
 * sandbox.c -- the server: routing, throttling, faults
 *
 * One loop, no locks.  Throttling counts what is in flight per mailbox and what was asked in the last ten minutes,
 * exactly as the real one does: what exceeds it is answered 429 with Retry-After and has not been executed, but counts.
 */
#include <pthread.h>
#include <stdlib.h>

#include "loop/world.h"
#include "connectors/sandbox/internal.h"

/* ---- throttling -------------------------------------------------------------------------------------------------- */

static bool await_admitted(struct turn *t)
{
    struct mailbox *m = t->mailbox;
    const struct quota *q = &t->s->quota;
    ns_t wait;

    /* what is throttled has been counted all the same */
    if (!meter_take(&m->requests, q->limits.requests, q->limits.requests_window_ms, 1, true, loop_now(), &wait)) {
        t->s->stats.limited++;
        await_throttled(t, "Application is over its request limit for this mailbox.", wait);
        return false;
    }
    if (m->in_flight >= t->s->opt.concurrency) {
        t->s->stats.limited++;
        await_throttled(t, "Application is over its MailboxConcurrency limit.", NS_PER_S);
        return false;
    }
    m->in_flight++;
    t->s->stats.in_flight++;
    if (m->in_flight > m->in_flight_max)
        m->in_flight_max = m->in_flight;
    if (t->s->stats.in_flight > t->s->stats.in_flight_max)
        t->s->stats.in_flight_max = t->s->stats.in_flight;
    return true;
}

static const char *scope_for(struct str rest, bool get)
{
    if (str_starts(rest, STR("/messages")))
        return get ? "Mail.Read" : str_ends(rest, STR("/send")) ? "Mail.Send" : "Mail.ReadWrite";
    return get || str_is(rest, "/calendar/getSchedule") ? "Calendars.Read" : "Calendars.ReadWrite";
}

static void api_handle(struct turn *t, struct str rest)
{
    bool get = str_is(http_method(t->rq), "GET");

    t->s->stats.requests++;
    if (!await_authorized(t, scope_for(rest, get)) || !await_admitted(t))
        return;
    if (t->s->delay_ms)
        await_sleep(loop_now() + t->s->delay_ms * NS_PER_MS);
    if (t->s->fail_next) {
        t->s->fail_next--;
        await_graph_error(t, 503, "ServiceNotAvailable", "The service is not available.");
    } else if (str_starts(rest, STR("/messages"))) {
        mail_handle(t, str_from(rest, strlen("/messages")));
    } else {
        calendar_handle(t, rest);
    }
    t->mailbox->in_flight--;
    t->s->stats.in_flight--;
}

/* ---- for tests --------------------------------------------------------------------------------------------------- */

static void await_stats(struct turn *t)
{
    struct json *j = json_object(&t->arena);
    struct map_slot *slot;
    unsigned most = 0;
    size_t at = 0;

    while ((slot = map_next(&t->s->mailboxes, &at)))
        if (((struct mailbox *)slot->value)->in_flight_max > most)
            most = ((struct mailbox *)slot->value)->in_flight_max;
    json_set_int(&t->arena, j, "requests", (int64_t)t->s->stats.requests);
    json_set_int(&t->arena, j, "limited", (int64_t)t->s->stats.limited);
    json_set_int(&t->arena, j, "refreshes", (int64_t)t->s->stats.refreshes);
    json_set_int(&t->arena, j, "refresh_tokens_reused", (int64_t)t->s->stats.reuse);
    json_set_int(&t->arena, j, "mails_sent", (int64_t)t->s->stats.sent);
    json_set_int(&t->arena, j, "events", (int64_t)t->s->stats.events);
    json_set_int(&t->arena, j, "mailboxes", (int64_t)t->s->mailboxes.len);
    json_set_int(&t->arena, j, "in_flight_max", (int64_t)t->s->stats.in_flight_max);
    json_set_int(&t->arena, j, "mailbox_in_flight_max", most);
    quota_stats(t, j);
    await_json(t, 200, j);
}

static void expire_tokens(struct sandbox *s)
{
    struct map_slot *slot;
    size_t at = 0;

    while ((slot = map_next(&s->tokens, &at)))
        if (!((struct token *)slot->value)->refresh)
            ((struct token *)slot->value)->expires = 0;
}

static void await_faults(struct turn *t)
{
    struct json *j = NULL;
    struct json_error where;
    int64_t n;
    bool on;

    if (json_parse(&t->arena, http_body(t->rq), NULL, &j, &where)) {
        await_graph_error(t, 400, "ErrorInvalidRequest", "The body is no JSON.");
        return;
    }
    if (json_int(json_get(j, "delay_ms"), &n) && n >= 0 && n <= 3600000)
        t->s->delay_ms = n;
    if (json_int(json_get(j, "fail_next"), &n) && n >= 0)
        t->s->fail_next = (unsigned)n;
    if (json_int(json_get(j, "lose_next"), &n) && n >= 0)
        t->s->lose_next = (unsigned)n;
    if (json_bool(json_get(j, "expire_tokens"), &on) && on)
        expire_tokens(t->s);
    await_json(t, 200, json_object(&t->arena));
}

/* ---- server ------------------------------------------------------------------------------------------------------ */

static void handle(struct http_request *rq, void *arg)
{
    struct turn t = { .s = arg, .rq = rq };
    struct str path = http_path(rq), rest = str_from(path, strlen("/v1.0/me"));

    arena_init(&t.arena, REQUEST_ARENA);
    if (oauth_serves(path))
        oauth_handle(&t);
    else if (str_is(path, "/sandbox/stats"))
        await_stats(&t);
    else if (str_is(path, "/sandbox/faults"))
        await_faults(&t);
    else if (str_is(path, "/sandbox/limits"))
        await_quota_limits(&t);
    else if (str_starts(path, STR("/quota/")))
        quota_handle(&t, str_from(path, strlen("/quota")));
    else if (str_starts(path, STR("/v1.0/me/")))
        api_handle(&t, rest);
    else
        await_graph_error(&t, 404, "BadRequest", "Not served here.");
    arena_release(&t.arena);
}

enum err sandbox_start(const struct sandbox_options *opt, struct sandbox **ret, struct errinfo *info)
{
    struct sandbox *s = calloc(1, sizeof(*s));
    struct http_server_options http = { .listen = opt->listen, .handler = handle, .arg = s, .connections_max = 20000 };
    enum err e;

    ASSERT(s != NULL);
    if (!net_is_loopback(opt->listen)) {
        free(s);
        return err_set(info, E_CONFIG, "the sandbox is a toy: it listens on loopback only, not on %s", opt->listen);
    }
    s->opt = *opt;
    if (!s->opt.token_ttl_s)
        s->opt.token_ttl_s = 3600;
    if (!s->opt.concurrency)
        s->opt.concurrency = 4;
    s->delay_ms = opt->delay_ms;
    quota_init(&s->quota);
    e = http_server_start(&http, &s->http, info);
    if (e) {
        free(s);
        return e;
    }
    *ret = s;
    return OK;
}

void sandbox_name(const struct sandbox *s, char out[64])
{
    http_server_name(s->http, out);
}

void sandbox_stop(struct sandbox *s)
{
    http_server_stop(s->http);
    s->http = NULL;
}

static void free_values(struct map *m, void (*release)(void *))
{
    struct map_slot *slot;
    size_t at = 0;

    while ((slot = map_next(m, &at)))
        release(slot->value);
    map_release(m);
}

static void mailbox_release(void *m)
{
    mailbox_free(m);
}

void sandbox_free(struct sandbox *s)
{
    free_values(&s->mailboxes, mailbox_release);
    quota_free(&s->quota);
    free_values(&s->codes, free);
    free_values(&s->tokens, free);
    for (size_t i = 0; i < s->n_families; i++)
        free(s->families[i]);
    free(s->families);
    free(s);
}

/* ---- on a thread of its own -------------------------------------------------------------------------------------- */

struct sandbox_thread {
    struct sandbox_options opt;
    struct sandbox *sandbox;
    struct loop *loop;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started;
    enum err err;
    struct errinfo info;
    char name[64];
    struct mail stop;
};

static void thread_begin(void *arg)
{
    struct sandbox_thread *t = arg;

    pthread_mutex_lock(&t->lock);
    t->err = sandbox_start(&t->opt, &t->sandbox, &t->info);
    if (!t->err)
        sandbox_name(t->sandbox, t->name);
    else
        loop_stop(t->loop);
    t->started = true;
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void thread_stop_mail(struct mail *m)
{
    struct sandbox_thread *t = CONTAINER_OF(m, struct sandbox_thread, stop);

    sandbox_stop(t->sandbox);
    loop_stop(t->loop);
}

static void *thread_main(void *arg)
{
    struct sandbox_thread *t = arg;

    pthread_setname_np(pthread_self(), "sandbox");
    loop_run(t->loop, thread_begin, t);
    return NULL;
}

static void thread_free(struct sandbox_thread *t)
{
    pthread_join(t->thread, NULL);
    if (t->sandbox)
        sandbox_free(t->sandbox);
    loop_destroy(t->loop);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->changed);
    free(t);
}

enum err sandbox_thread_start(const struct sandbox_options *opt, struct sandbox_thread **ret, char name[64],
                              struct errinfo *info)
{
    struct sandbox_thread *t = calloc(1, sizeof(*t));
    struct loop_options loop = { .id = 1000 };
    enum err e;

    ASSERT(t != NULL);
    t->opt = *opt;
    t->stop.fn = thread_stop_mail;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    e = loop_create(&loop, &t->loop, info);
    if (e) {
        free(t);
        return e;
    }
    ASSERT(pthread_create(&t->thread, NULL, thread_main, t) == 0);
    pthread_mutex_lock(&t->lock);
    while (!t->started)
        pthread_cond_wait(&t->changed, &t->lock);
    pthread_mutex_unlock(&t->lock);
    if (t->err) {
        e = t->err;
        *info = t->info;
        thread_free(t);
        return e;
    }
    memcpy(name, t->name, sizeof(t->name));
    *ret = t;
    return OK;
}

void sandbox_thread_stop(struct sandbox_thread *t)
{
    loop_post(t->loop, &t->stop);
    thread_free(t);
}
