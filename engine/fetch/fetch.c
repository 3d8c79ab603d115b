/*
 * fetch.c -- the front: one function to exchange, birth, drain and death of a worker's connections
 */
#include <stdlib.h>

#include "base/check.h"
#include "fetch/internal.h"

static const struct fetch_impl *other_world;

void fetch_use(const struct fetch_impl *impl)
{
    other_world = impl;
}

/* On a kept connection, else on a new one; once more on a new one when a kept one was dead and that is harmless: other
 * kept ones are no better, their polls will tell. */
static enum err await_on_connection(struct fetch *f, const struct fetch_request *req, const struct fetch_guard *guard,
                                    struct group *known, struct arena *arena, struct fetch_reply *ret,
                                    enum fetch_sent *ret_sent, struct errinfo *info)
{
    enum fetch_sent first = FETCH_NOT_SENT;

    for (ns_t since = 0, opened = 0;; since = opened + 1) {
        struct conn *c;
        bool reused;
        enum err e = await_conn(f, req, guard, since ? NULL : known, since, &c, &reused, info);

        /* a shared one that is younger than what ended will do, too: whoever else was on that goes there together */
        opened = !e && c->session ? session_opened_at(c) : loop_now();
        if (!e && c->session)
            e = await_stream(c, reused, req, arena, ret, ret_sent, info);
        else if (!e)
            e = await_exchange(c, reused, req, arena, ret, ret_sent, info);
        if (!e)
            ret->reused = reused;
        if (e == E_CLOSED && reused && !since && (*ret_sent == FETCH_NOT_SENT || fetch_is_safe(req))) {
            first = *ret_sent;
            *ret_sent = FETCH_NOT_SENT;
            continue;
        }
        if (*ret_sent == FETCH_NOT_SENT && first != FETCH_NOT_SENT) {
            *ret_sent = first;          /* the second try went nowhere: what the first one did stays unknown */
            return E_OUTCOME_UNKNOWN;
        }
        if (e == E_CLOSED)
            e = *ret_sent == FETCH_NOT_SENT ? E_UPSTREAM_DOWN : E_OUTCOME_UNKNOWN;
        return e;
    }
}

enum err await_fetch(struct fetch *f, const struct fetch_request *req, struct arena *arena, struct fetch_reply *ret,
                     enum fetch_sent *ret_sent, struct errinfo *info)
{
    const struct fetch_guard *guard = req->guard ? req->guard : f ? &f->opt.guard : NULL;
    struct group *known;
    enum err e;

    ASSERT(req->origin != NULL);
    *ret = (struct fetch_reply){ 0 };
    *ret_sent = FETCH_NOT_SENT;
    /* a group is of one origin and one guard, and is made only after the origin has been looked at */
    known = f && !other_world ? group_known(f, req, guard) : NULL;
    e = fetch_request_check(req, known != NULL, info);
    if (!e && !known && guard)
        e = fetch_origin_allowed(req->origin, guard, info);
    if (e)
        return e;
    if (other_world)
        return other_world->await(f, req, arena, ret, ret_sent, info);
    MAGIC_CHECK(f, FETCH_MAGIC);
    if (f->draining)
        return err_set(info, E_DRAINING, "the engine is stopping");
    f->n_exchanges++;
    if (req->flags & FETCH_FULL)
        e = await_full(f, req, guard, arena, ret, ret_sent, info);
    else
        e = await_on_connection(f, req, guard, known, arena, ret, ret_sent, info);
    f->n_exchanges--;
    return e;
}

/* ---- birth and death --------------------------------------------------------------------------------------------- */

static bool strings_copy(struct fetch *f, const struct fetch_options *opt)
{
    f->proxy = opt->proxy ? strdup(opt->proxy) : NULL;
    for (const char *const *r = opt->resolve; r && *r; r++) {
        struct curl_slist *grown = curl_slist_append(f->resolve, *r);

        if (!grown)
            return false;
        f->resolve = grown;
    }
    return !opt->proxy || f->proxy;
}

enum err fetch_create(const struct fetch_options *opt, struct fetch **ret, struct errinfo *info)
{
    struct fetch *f;
    enum err e = curl_setup(info);

    if (e)
        return e;
    f = calloc(1, sizeof(*f));
    if (!f)
        return err_set(info, E_OVERLOADED, "no memory for fetch");
    f->magic = FETCH_MAGIC;
    f->opt = *opt;
    f->opt.connect_timeout = opt->connect_timeout ? opt->connect_timeout : 5 * NS_PER_S;
    f->opt.idle_timeout = opt->idle_timeout ? opt->idle_timeout : 60 * NS_PER_S;
    f->opt.per_origin_max = opt->per_origin_max ? opt->per_origin_max : 4096;
    f->opt.idle_max = opt->idle_max ? opt->idle_max : 4096;
    f->opt.ca_file = f->opt.proxy = NULL;               /* the copies count */
    f->opt.resolve = NULL;
    f->share = curl_share_init();
    if (!f->share || !strings_copy(f, opt) || !session_setup(f)) {
        fetch_destroy(f);
        return err_set(info, E_OVERLOADED, "no memory for fetch");
    }
    curl_share_setopt(f->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
    e = trust_load(f, opt->ca_file, info);
    if (!e && !(f->tls = channel_settings(f->trust)))
        e = err_set(info, E_OVERLOADED, "no memory for fetch");
    if (e) {
        fetch_destroy(f);
        return e;
    }
    *ret = f;
    return OK;
}

void fetch_drain(struct fetch *f)
{
    MAGIC_CHECK(f, FETCH_MAGIC);
    if (f->draining)
        return;
    f->draining = true;
    pool_drain(f);
    multis_drain(f);
}

void fetch_destroy(struct fetch *f)
{
    if (!f)
        return;
    MAGIC_CHECK(f, FETCH_MAGIC);
    ASSERT(f->n_exchanges == 0 && f->n_conns == 0 && f->n_socks == 0 && f->n_idle == 0);
    ASSERT(!f->roomy && !f->full && f->groups.len == 0);
    map_release(&f->groups);
    if (f->share)
        curl_share_cleanup(f->share);
    curl_slist_free_all(f->resolve);
    session_unset(f);
    SSL_CTX_free(f->tls);
    X509_STORE_free(f->trust);
    free(f->proxy);
    f->magic = 0;
    free(f);
}
