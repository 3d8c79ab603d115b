/*
 * delegations.c -- what users have delegated to agents: one row per (tenant, user, agent)
 *
 * The columns find a row; what it says is in the sealed bytes, which are the vault's.
 */
#include "store/internal.h"

enum err store_delegation_put(struct store *s, const struct store_delegation *d, struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, NULL,
        "INSERT INTO delegations (tenant, id, user, agent, created, sealed) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (tenant, user, agent) DO UPDATE SET id = excluded.id, created = excluded.created,"
        " sealed = excluded.sealed",
        "ttttib", d->tenant, d->id, d->user, d->agent, (int64_t)d->created, d->sealed);
    sql_leave(s);
    return e;
}

enum err store_delegation_delete(struct store *s, struct str tenant, struct str id, struct errinfo *info)
{
    int changed = 0;
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, &changed, "DELETE FROM delegations WHERE tenant = ? AND id = ?", "tt", tenant, id);
    sql_leave(s);
    return e ? e : changed ? OK : E_NOT_FOUND;
}

enum err store_delegations_page(struct store *s, struct str tenant, struct str id, unsigned max,
    enum err (*fn)(const struct store_delegation *d, void *arg), void *arg, struct errinfo *info)
{
    struct sql q;
    bool row = true;
    enum err e;

    sql_enter(s);
    e = sql_begin(s, &q, info,
        "SELECT tenant, id, user, agent, created, sealed FROM delegations WHERE (tenant, id) > (?, ?)"
        " ORDER BY tenant, id LIMIT ?", "tti", tenant, id, (int64_t)max);
    while (!e && row) {
        e = sql_step(&q, &row);
        if (!e && row) {
            struct store_delegation d = { sql_text(&q, 0), sql_text(&q, 1), sql_text(&q, 2), sql_text(&q, 3),
                                          sql_int(&q, 4), sql_blob(&q, 5) };

            e = fn(&d, arg);
        }
    }
    sql_end(&q);
    sql_leave(s);
    return e;
}
