/*
 * egress.c -- POSTs to token endpoints and GETs of key sets, on the calling worker's fetch
 *
 * Both pass the same guard as every exchange; a provider's token endpoint uses that provider's guard, a key set the
 * strict one (loopback only when its URL says so, which configuration has accepted).
 */
#include <stdio.h>

#include "base/check.h"
#include "base/crypto.h"
#include "call/engine.h"
#include "call/registry.h"
#include "loop/loop.h"
#include "runtime/egress.h"

enum { EGRESS_REPLY_MAX = 256 * 1024 };

/* name=value&name=value: names and separators as they are, values percent-encoded by fetch, secrets in its own
 * buffers. */
static unsigned form_parts(const struct vault_post *post, struct arena *a, struct fetch_part parts[FETCH_PARTS_MAX])
{
    unsigned n = 0;

    for (unsigned i = 0; i < post->n_fields && n + 2 <= FETCH_PARTS_MAX; i++) {
        const struct vault_field *f = &post->fields[i];

        parts[n++] = (struct fetch_part){ .text = arena_printf(a, "%s%.*s=", i ? "&" : "", STR_ARG(f->name)) };
        parts[n++] = (struct fetch_part){ .text = f->value, .secret = f->secret, .form = true };
    }
    return n;
}

static enum err vault_post(void *ctx, const struct vault_post *post, struct vault_reply *ret, struct errinfo *info)
{
    struct worker *w = worker_self();
    const struct provider_conf *p = registry_provider(w->held->registry, post->provider);
    const struct fetch_guard none = { 0 }, guard = p ? p->guard : none;     /* a copy: the snapshot may go meanwhile */
    const struct fetch_header headers[] = {
        { STR("Accept"), STR("application/json"), NULL },
        { STR("Content-Type"), STR("application/x-www-form-urlencoded"), NULL },
    };
    struct fetch_part parts[FETCH_PARTS_MAX];
    struct fetch_request req = { .tenant = post->tenant,
                                 .guard = &guard,
                                 .method = STR("POST"),
                                 .headers = headers,
                                 .n_headers = 2,
                                 .parts = parts,
                                 .basic_user = post->basic_user,
                                 .basic_secret = post->basic_secret,
                                 .basic_form = true,
                                 .deadline = post->deadline,
                                 .reply_max = 64 * 1024 };
    struct fetch_origin origin;
    struct fetch_reply reply;
    enum fetch_sent sent;
    struct arena arena;
    struct str value;
    uint64_t seconds;
    enum err e;

    (void)ctx;
    e = fetch_url_parse(post->url, &origin, &req.path, info);
    if (e)
        return E_EGRESS_DENIED;
    if (post->n_fields > FETCH_PARTS_MAX / 2)
        return err_set(info, E_CONNECTOR_FAULT, "more than %d form fields", FETCH_PARTS_MAX / 2);
    req.origin = &origin;
    arena_init(&arena, EGRESS_REPLY_MAX);
    req.n_parts = form_parts(post, &arena, parts);
    e = await_fetch(w->fetch, &req, &arena, &reply, &sent, info);
    if (!e) {
        ret->status = reply.status;
        ret->retry_after_s = -1;
        if (fetch_reply_header(&reply, "retry-after", &value) && str_to_u64(value, &seconds) && seconds < 86400)
            ret->retry_after_s = (int64_t)seconds;
        buf_add_str(&ret->body, reply.body);
        bytes_wipe((void *)reply.body.p, reply.body.len);
    } else if (sent == FETCH_NOT_SENT && e != E_EGRESS_DENIED && e != E_DEADLINE) {
        e = E_UPSTREAM_DOWN;
    }
    arena_release(&arena);
    return e;
}

static enum err identity_get(void *ctx, struct str url, ns_t deadline, struct buf *body, struct errinfo *info)
{
    const struct fetch_header headers[] = { { STR("Accept"), STR("application/json"), NULL } };
    struct fetch_guard guard = { 0 };
    struct fetch_request req = { .tenant = STR("(issuers)"),
                                 .guard = &guard,
                                 .method = STR("GET"),
                                 .headers = headers,
                                 .n_headers = 1,
                                 .deadline = deadline,
                                 .reply_max = IDENTITY_JWKS_MAX };
    struct fetch_origin origin;
    struct fetch_reply reply;
    enum fetch_sent sent;
    struct arena arena;
    enum err e;

    (void)ctx;
    e = fetch_url_parse(url, &origin, &req.path, info);
    if (e)
        return e;
    /* identity accepts http only for loopback: what it lets through may go there */
    guard.allow_plain_http = guard.allow_loopback = !origin.tls;
    req.origin = &origin;
    arena_init(&arena, 2 * IDENTITY_JWKS_MAX);
    e = await_fetch(worker_self()->fetch, &req, &arena, &reply, &sent, info);
    if (!e && reply.status != 200)
        e = err_set(info, E_UPSTREAM_REFUSED, "the key set's server answered %d", reply.status);
    if (!e)
        buf_add_str(body, reply.body);
    arena_release(&arena);
    return e;
}

struct vault_http egress_vault_http(void)
{
    return (struct vault_http){ vault_post, NULL };
}

struct identity_fetcher egress_identity_fetcher(void)
{
    return (struct identity_fetcher){ identity_get, NULL };
}
