/*
 * listen.c -- clients that wait to hear that a list changed
 *
 * subscriptions/listen (modern) and GET of a session (legacy) are calls whose reply is long: the call is on record when
 * the stream begins.  Each worker has a list of its streams that only its thread touches; an announcement is mail to
 * every worker that has any.  What happened is a bit per kind, so a slow reader is told once, not often.
 *
 * A stream ends, with its result, when we drain, when the caller's token expires and when its session ends; it ends
 * without when the client goes.
 */
#include <stdlib.h>

#include "base/ids.h"
#include "mcp/internal.h"

enum { WORKERS_MAX = 256 };

struct listener {
    LIST_ENTRY(listener) link;
    struct call *c;
    unsigned pending;
    struct wake wake;
};

LIST_HEAD(listener_list, listener);

struct listeners {
    struct mcp *mcp;
    struct {
        struct listener_list list;      /* its worker's thread only */
        atomic_uint n;
    } of[WORKERS_MAX];
};

struct listeners *listeners_new(struct mcp *m)
{
    struct listeners *l = calloc(1, sizeof(*l));

    ASSERT(l != NULL);
    l->mcp = m;
    return l;
}

void listeners_free(struct listeners *l)
{
    for (int i = 0; l && i < WORKERS_MAX; i++)
        ASSERT(LIST_EMPTY(&l->of[i].list));
    free(l);
}

enum err listen_room(struct mcp *m, const struct call *c)
{
    struct listener_list *list = &m->listeners->of[c->worker->id].list;
    unsigned all = 0, own = 0;
    struct listener *l;

    ASSERT(c->worker->id < WORKERS_MAX);
    if (atomic_load(&m->draining))
        return E_DRAINING;
    LIST_FOREACH(l, list, link) {
        all++;
        own += caller_same(l->c->caller, c->caller);
    }
    return all < m->opt.streams_max && own < OWNER_STREAMS_MAX ? OK : E_OVERLOADED;
}

/* ---- announcements ----------------------------------------------------------------------------------------------- */

struct news {
    struct mail mail;
    struct mcp *mcp;
    unsigned what;                      /* HEARS_ bits; 0: look whether you have to end */
    size_t len;
    char tenant[];
};

static void hear(struct mail *m)
{
    struct news *n = CONTAINER_OF(m, struct news, mail);
    struct str tenant = str_n(n->tenant, n->len);
    struct listener *l;

    LIST_FOREACH(l, &n->mcp->listeners->of[worker_self()->id].list, link) {
        if (n->what && tenant.len && !str_eq(tenant, l->c->caller->tenant))
            continue;
        l->pending |= n->what & turn_of(l->c)->hears;
        if (!n->what || l->pending)
            wake_fire(&l->wake);
    }
    free(n);
}

static void tell(struct mcp *m, struct str tenant, unsigned what)
{
    for (unsigned i = 0; i < m->opt.engine->n_workers; i++) {
        struct worker *w = &m->opt.engine->workers[i];
        struct news *n;

        if (atomic_load(&m->listeners->of[w->id].n) == 0)
            continue;
        n = malloc(sizeof(*n) + tenant.len);
        ASSERT(n != NULL);
        *n = (struct news){ .mail.fn = hear, .mcp = m, .what = what, .len = tenant.len };
        if (tenant.len)
            memcpy(n->tenant, tenant.p, tenant.len);
        loop_post(w->loop, &n->mail);
    }
}

void mcp_announce(struct mcp *m, struct str tenant, const char *what)
{
    MAGIC_CHECK(m, MCP_MAGIC);
    if (strcmp(what, "tools") == 0)
        tell(m, tenant, HEARS_TOOLS);
    else if (strcmp(what, "prompts") == 0)
        tell(m, tenant, HEARS_PROMPTS);
    else if (strcmp(what, "resources") == 0)
        tell(m, tenant, HEARS_RESOURCES);
}

void listeners_kick(struct mcp *m)
{
    tell(m, STR_NULL, 0);
}

void mcp_drain(struct mcp *m)
{
    MAGIC_CHECK(m, MCP_MAGIC);
    atomic_store(&m->draining, true);
    listeners_kick(m);
}

/* ---- one stream -------------------------------------------------------------------------------------------------- */

/* "_meta":{..subscriptionId..} of everything on a modern stream. */
static void add_subscription(struct buf *b, struct turn *t, const struct str *server_info)
{
    buf_add_z(b, "\"_meta\":{\"" META_SUBSCRIPTION "\":");
    json_write(b, t->msg.id);
    if (server_info) {
        buf_add_z(b, ",\"" META_SERVER_INFO "\":");
        buf_add_str(b, *server_info);
    }
    buf_add_c(b, '}');
}

static enum err await_out(struct turn *t, struct buf *b)
{
    enum err e = await_wire_message(t->wire, buf_str(b));

    buf_release(b);
    return e;
}

static enum err await_acknowledge(struct turn *t)
{
    struct buf b = BUF_INIT(8192);
    const char *sep = "";

    if (t->msg.era == ERA_LEGACY)
        return await_wire_ping(t->wire);        /* so that the client sees its stream */
    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",");
    buf_add_z(&b, "\"params\":{\"notifications\":{");
    if (t->hears & HEARS_TOOLS) {
        buf_add_z(&b, "\"toolsListChanged\":true");
        sep = ",";
    }
    if (t->hears & HEARS_PROMPTS) {
        buf_addf(&b, "%s\"promptsListChanged\":true", sep);
        sep = ",";
    }
    if (t->hears & HEARS_RESOURCES)
        buf_addf(&b, "%s\"resourcesListChanged\":true", sep);
    buf_add_z(&b, "},");
    add_subscription(&b, t, NULL);
    buf_add_z(&b, "}}");
    return await_out(t, &b);
}

static enum err await_changed(struct turn *t, const char *list)
{
    struct buf b = BUF_INIT(8192);

    buf_addf(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/%s/list_changed\"", list);
    if (t->msg.era == ERA_MODERN) {
        buf_add_z(&b, ",\"params\":{");
        add_subscription(&b, t, NULL);
        buf_add_c(&b, '}');
    }
    buf_add_c(&b, '}');
    return await_out(t, &b);
}

static enum err await_pending(struct turn *t, unsigned pending)
{
    enum err e = OK;

    if (pending & HEARS_TOOLS)
        e = await_changed(t, "tools");
    if (!e && (pending & HEARS_PROMPTS))
        e = await_changed(t, "prompts");
    if (!e && (pending & HEARS_RESOURCES))
        e = await_changed(t, "resources");
    return e;
}

static void await_farewell(struct turn *t)
{
    struct buf b = BUF_INIT(8192);

    if (t->msg.era == ERA_LEGACY)
        return;
    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"id\":");
    json_write(&b, t->msg.id);
    buf_add_z(&b, ",\"result\":{\"resultType\":\"complete\",");
    add_subscription(&b, t, &t->wire->mcp->server_info);
    buf_add_z(&b, "}}");
    await_out(t, &b);
}

/* When the token's life is over, on the loop's clock. */
static ns_t token_end(const struct call *c)
{
    if (c->caller->expires - loop_wall_ms() > (int64_t)365 * 24 * 3600 * 1000)
        return NS_NEVER;
    return loop_now() + (c->caller->expires - loop_wall_ms()) * NS_PER_MS;
}

/* Either clock ends the token's life: the wall may be set forward, and back. */
static bool over(const struct call *c, struct turn *t, ns_t end)
{
    struct mcp *m = t->wire->mcp;

    return atomic_load(&m->draining) || loop_now() >= end || c->caller->expires <= loop_wall_ms() ||
           (t->session && session_ended(m->sessions, t->session));
}

static void await_stream(struct call *c, struct turn *t, struct listener *l)
{
    ns_t patience = t->wire->mcp->opt.keepalive_ms * NS_PER_MS, end = token_end(c);
    enum err e = await_acknowledge(t);

    while (!e && !over(c, t, end)) {
        ns_t until = t->wire->last + patience;
        unsigned pending;

        e = await_wake(&l->wake, until < end ? until : end);
        l->wake = (struct wake){ 0 };
        pending = l->pending;
        l->pending = 0;
        if (e == E_TIMEOUT)
            e = loop_now() - t->wire->last >= patience ? await_wire_ping(t->wire) : OK;
        if (!e)
            e = await_pending(t, pending);
    }
    if (!e)
        await_farewell(t);
}

void await_listen(struct call *c, struct turn *t)
{
    struct listeners *all = t->wire->mcp->listeners;
    struct listener l = { .c = c };

    LIST_INSERT_HEAD(&all->of[c->worker->id].list, &l, link);
    atomic_fetch_add(&all->of[c->worker->id].n, 1);
    await_stream(c, t, &l);
    LIST_REMOVE(&l, link);
    atomic_fetch_sub(&all->of[c->worker->id].n, 1);
    await_wire_end(t->wire);
}
