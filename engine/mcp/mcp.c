/*
 * mcp.c -- the room's one object, and which handler a path has
 */
#include <stdlib.h>

#include "loop/world.h"
#include "mcp/internal.h"

enum { OPTIONS_ARENA_MAX = 1 << 20 };

/* What stands between call/ and the wire. */
const struct call_front mcp_front = {
    .transport = "http",
    .decode = mcp_decode,
    .await_identify = await_mcp_identify,
    .await_answer = await_mcp_answer,
    .word = mcp_word,
    .await_reply = await_mcp_reply,
    .await_progress = await_mcp_progress,
    .await_log = await_mcp_log,
    .say_waiting = mcp_say_waiting,
    .await_inputs = await_mcp_inputs,
    .client_can = mcp_client_can,
    .announce = mcp_front_announce,
};

/* ---- options ----------------------------------------------------------------------------------------------------- */

static const char *copied(struct mcp *m, const char *z, const char *otherwise)
{
    z = z ? z : otherwise;
    return z ? arena_z(&m->arena, str_of(z)) : NULL;
}

static struct str *list_copied(struct mcp *m, const char *const *list, size_t *ret_n)
{
    struct str *to;
    size_t n = 0;

    while (list && list[n])
        n++;
    to = ARENA_ARRAY(&m->arena, struct str, n + 1);
    for (size_t i = 0; to && i < n; i++)
        to[i] = arena_str(&m->arena, str_of(list[i]));
    *ret_n = n;
    return to;
}

static void limits_default(struct mcp_options *o)
{
    if (!o->keepalive_ms)
        o->keepalive_ms = 15000;
    if (!o->session_idle_ms)
        o->session_idle_ms = 3600 * 1000;
    if (!o->ask_ms)
        o->ask_ms = 120 * 1000;
    if (!o->batch_max)
        o->batch_max = 100;
    if (!o->sessions_max)
        o->sessions_max = 10000;
    if (!o->streams_max)
        o->streams_max = 4096;
    if (!o->page)
        o->page = 200;
}

/* {"name":..,"title":..,"version":..}; the first revision has no titles. */
static struct str info_text(struct mcp *m, bool titled)
{
    struct buf b = BUF_INIT(8192);
    struct str ret;

    buf_add_z(&b, "{\"name\":");
    buf_add_json_str(&b, str_of(m->opt.name));
    if (titled) {
        buf_add_z(&b, ",\"title\":");
        buf_add_json_str(&b, str_of(m->opt.title));
    }
    buf_add_z(&b, ",\"version\":");
    buf_add_json_str(&b, str_of(m->opt.version));
    buf_add_c(&b, '}');
    ret = arena_str(&m->arena, buf_str(&b));
    buf_release(&b);
    return ret;
}

static struct str joined(struct mcp *m, const struct str *list, size_t n)
{
    struct buf b = BUF_INIT(8192);
    struct str ret;

    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_add_c(&b, ' ');
        buf_add_str(&b, list[i]);
    }
    ret = arena_str(&m->arena, buf_str(&b));
    buf_release(&b);
    return ret;
}

/* "127.0.0.1:7411" -> "127.0.0.1"; the wildcard addresses name nobody. */
static struct str host_part(struct str authority)
{
    size_t at = authority.len;

    while (at > 0 && authority.p[at - 1] != ':' && authority.p[at - 1] != ']')
        at--;
    if (at > 0 && authority.p[at - 1] == ':')
        authority.len = at - 1;
    if (str_is(authority, "0.0.0.0") || str_is(authority, "[::]") || str_is(authority, "*"))
        return STR_NULL;
    return authority;
}

static enum err authority_of(const char *public_url, struct str *ret, struct errinfo *info)
{
    struct str url = str_of(public_url), rest;

    if (str_starts(url, STR("https://")))
        rest = str_from(url, 8);
    else if (str_starts(url, STR("http://")))
        rest = str_from(url, 7);
    else
        return err_set(info, E_CONFIG, "public_url \"%s\" must begin with https:// (or http:// for tests)", public_url);
    if (rest.len == 0 || memchr(rest.p, '/', rest.len) || memchr(rest.p, '@', rest.len))
        return err_set(info, E_CONFIG, "public_url \"%s\" must be scheme and host only, like https://mcp.example.com",
                       public_url);
    *ret = rest;
    return OK;
}

enum err mcp_public_url_check(const char *public_url, struct errinfo *info)
{
    struct str authority;

    return authority_of(public_url, &authority, info);
}

static enum err hosts_make(struct mcp *m, struct errinfo *info)
{
    struct str authority;
    enum err e;

    m->listen_host = host_part(str_of(m->opt.listen));
    m->loopback = m->opt.listen == NULL || net_is_loopback(m->opt.listen);
    if (!m->opt.public_url)
        return OK;
    e = authority_of(m->opt.public_url, &authority, info);
    if (!e)
        m->public_host = host_part(authority);
    return e;
}

static enum err options_take(struct mcp *m, const struct mcp_options *opt, struct errinfo *info)
{
    m->opt = *opt;
    limits_default(&m->opt);
    m->opt.path = copied(m, opt->path, "/mcp");
    m->opt.public_url = copied(m, opt->public_url, NULL);
    m->opt.listen = copied(m, opt->listen, NULL);
    m->opt.name = copied(m, opt->name, "sluice");
    m->opt.title = copied(m, opt->title, m->opt.name);
    m->opt.version = copied(m, opt->version, SLUICE_VERSION);
    m->opt.instructions = copied(m, opt->instructions, NULL);
    m->hosts = list_copied(m, opt->hosts, &m->n_hosts);
    m->origins = list_copied(m, opt->origins, &m->n_origins);
    m->scopes = list_copied(m, opt->scopes, &m->n_scopes);
    m->scope_line = joined(m, m->scopes, m->n_scopes);
    m->server_info = info_text(m, true);
    m->server_info_03 = info_text(m, false);
    m->opt.hosts = m->opt.origins = m->opt.scopes = NULL;
    m->opt.tenant = m->opt.user = m->opt.agent = NULL;
    if (arena_overflowed(&m->arena))
        return err_set(info, E_CONFIG, "the MCP options are larger than 1 MiB");
    if (m->opt.path[0] != '/' || !m->opt.path[1] || strchr(m->opt.path, '?'))
        return err_set(info, E_CONFIG, "the MCP path \"%s\" must be a path like /mcp", m->opt.path);
    return hosts_make(m, info);
}

enum err mcp_new(const struct mcp_options *opt, struct mcp **ret, struct errinfo *info)
{
    static const struct http_header of_json[] = {
        { STR("Content-Type"), STR(MEDIA_JSON) },
        { STR("Cache-Control"), STR("no-store") },
    };
    struct mcp *m = calloc(1, sizeof(*m));
    enum err e;

    ASSERT(m != NULL && opt->engine != NULL);
    m->magic = MCP_MAGIC;
    arena_init(&m->arena, OPTIONS_ARENA_MAX);
    atomic_init(&m->draining, false);
    http_lines_make(&m->json_lines, of_json, ARRAY_LEN(of_json));
    e = options_take(m, opt, info);
    if (!e && opt->no_auth)
        e = caller_named(str_of(opt->tenant), str_of(opt->user), str_of(opt->agent), &m->nobody, info);
    if (!e && !opt->no_auth && !opt->engine->identity)
        e = err_set(info, E_CONFIG,
                    "there is no issuer to take tokens from: configure one, or use --no-auth on loopback");
    m->sessions = session_table_new(m->opt.sessions_max, m->opt.session_idle_ms * NS_PER_MS);
    m->listeners = listeners_new(m);
    m->asks = asks_new();
    if (e) {
        mcp_free(m);
        return e;
    }
    *ret = m;
    return OK;
}

void mcp_free(struct mcp *m)
{
    if (!m)
        return;
    MAGIC_CHECK(m, MCP_MAGIC);
    asks_free(m->asks);
    listeners_free(m->listeners);
    session_table_free(m->sessions);
    caller_release(m->nobody);
    arena_release(&m->arena);
    m->magic = 0;
    free(m);
}

/* ---- paths ------------------------------------------------------------------------------------------------------- */

static bool metadata_path(const struct mcp *m, struct str path)
{
    static const struct str root = STR("/.well-known/oauth-protected-resource");

    return str_starts(path, root) && (path.len == root.len || str_is(str_from(path, root.len), m->opt.path));
}

bool mcp_serves(const struct mcp *m, struct str path)
{
    return str_is(path, m->opt.path) || metadata_path(m, path);
}

/* One message, or what stands for one: GET opens a stream, DELETE ends a session. */
static void await_single(struct mcp *m, struct http_request *rq, enum turn_kind kind)
{
    struct wire w;
    struct turn t = { .wire = &w, .kind = kind, .log_level = LOG_NONE };

    wire_init(&w, m, rq);
    await_turn_call(&t, http_body(rq).len);
    ASSERT(!w.pinging && !timer_is_set(&w.slow));
}

static bool begins_array(struct str body)
{
    size_t i = 0;

    while (i < body.len && (body.p[i] == ' ' || body.p[i] == '\t' || body.p[i] == '\r' || body.p[i] == '\n'))
        i++;
    return i < body.len && body.p[i] == '[';
}

void mcp_handle(struct http_request *rq, void *arg)
{
    struct mcp *m = arg;
    struct str method = http_method(rq);

    MAGIC_CHECK(m, MCP_MAGIC);
    if (metadata_path(m, http_path(rq))) {
        await_guard_metadata(m, rq);
    } else if (str_is(method, "OPTIONS")) {
        await_guard_preflight(m, rq);
    } else if (str_is(method, "POST") && begins_array(http_body(rq))) {
        struct wire w;

        wire_init(&w, m, rq);
        await_batch(&w);
    } else {
        await_single(m, rq, str_is(method, "GET") ? TURN_GET : str_is(method, "DELETE") ? TURN_DELETE : TURN_POST);
    }
}

void await_turn_call(struct turn *t, size_t bytes)
{
    await_call(t->wire->worker, &mcp_front, t, http_peer(t->wire->rq), bytes);
}
