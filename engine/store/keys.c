/*
 * keys.c -- tenant keys, connections being made, and the meta table
 */
#include "store/internal.h"

/* Runs a SELECT of one blob. *ret is copied into `a`; E_NOT_FOUND without a row. */
static enum err one_blob(struct store *s, struct sql *q, struct arena *a, struct str *ret, enum err e)
{
    struct str v = STR_NULL;
    bool row = false;

    if (!e)
        e = sql_step(q, &row);
    if (!e && row) {
        v = arena_str(a, sql_blob(q, 0));
        if (!v.p)
            e = E_CALL_TOO_LARGE;
    }
    sql_end(q);
    if (e)
        return e;
    if (!row)
        return E_NOT_FOUND;
    *ret = v;
    return OK;
}

static enum err key_read(struct store *s, struct str tenant, struct arena *a, struct str *ret, struct errinfo *info)
{
    struct sql q = { 0 };
    enum err e = sql_begin(s, &q, info, "SELECT sealed FROM keys WHERE tenant = ?", "t", tenant);

    return one_blob(s, &q, a, ret, e);
}

enum err store_key_put(struct store *s, struct str tenant, struct str sealed, wall_ms_t now, struct arena *a,
    struct str *ret_sealed, struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, NULL,
        "INSERT INTO keys (tenant, sealed, created) VALUES (?, ?, ?) ON CONFLICT (tenant) DO NOTHING",
        "tbi", tenant, sealed, (int64_t)now);
    if (!e)
        e = key_read(s, tenant, a, ret_sealed, info);
    sql_leave(s);
    return e;
}

enum err store_key_get(struct store *s, struct str tenant, struct arena *a, struct str *ret_sealed,
    struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    e = key_read(s, tenant, a, ret_sealed, info);
    sql_leave(s);
    return e;
}

enum err store_key_delete(struct store *s, struct str tenant, struct errinfo *info)
{
    int changed = 0;
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, &changed, "DELETE FROM keys WHERE tenant = ?", "t", tenant);
    /* The old bytes must go from the log too: secure_delete zeroes pages, the checkpoint drops earlier copies. */
    if (!e && changed)
        e = sql_run(s, info, NULL, "PRAGMA wal_checkpoint(TRUNCATE)", "");
    sql_leave(s);
    return e ? e : changed ? OK : E_NOT_FOUND;
}

enum err store_meta_get(struct store *s, struct str key, struct arena *a, struct str *ret, struct errinfo *info)
{
    struct sql q = { 0 };
    enum err e;

    sql_enter(s);
    e = sql_begin(s, &q, info, "SELECT value FROM meta WHERE key = ?", "t", key);
    e = one_blob(s, &q, a, ret, e);
    sql_leave(s);
    return e;
}

enum err store_meta_put(struct store *s, struct str key, struct str value, struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, NULL,
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", "tb", key,
        value);
    sql_leave(s);
    return e;
}

/* ---- connections being made -------------------------------------------------------------------------------------- */

enum err store_pending_put(struct store *s, struct str key, const struct store_pending *p, wall_ms_t now,
    struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    e = sql_transaction(s, info);
    if (!e)
        e = sql_run(s, info, NULL, "DELETE FROM pending WHERE expires <= ?", "i", (int64_t)now);
    if (!e)
        e = sql_run(s, info, NULL,
            "DELETE FROM pending WHERE tenant = ? AND user = ? AND key NOT IN (SELECT key FROM pending"
            " WHERE tenant = ? AND user = ? ORDER BY expires DESC, key LIMIT ?)",
            "tttti", p->tenant, p->user, p->tenant, p->user, (int64_t)STORE_PENDING_PER_USER_MAX - 1);
    if (!e)
        e = sql_run(s, info, NULL,
            "INSERT INTO pending (key, tenant, user, provider, sealed, expires) VALUES (?, ?, ?, ?, ?, ?)", "btttbi",
                key,
            p->tenant, p->user, p->provider, p->sealed, (int64_t)p->expires);
    e = sql_finish(s, e, info);
    sql_leave(s);
    return e;
}

static enum err pending_read(struct store *s, struct str key, wall_ms_t now, struct arena *a, struct store_pending *ret,
    struct errinfo *info)
{
    struct sql q;
    bool row = false;
    enum err e = sql_begin(s, &q, info,
        "SELECT tenant, user, provider, sealed, expires FROM pending WHERE key = ? AND expires > ?", "bi", key,
        (int64_t)now);

    if (!e)
        e = sql_step(&q, &row);
    if (!e && row) {
        *ret = (struct store_pending){
            arena_str(a, sql_text(&q, 0)), arena_str(a, sql_text(&q, 1)), arena_str(a, sql_text(&q, 2)),
            arena_str(a, sql_blob(&q, 3)), sql_int(&q, 4),
        };
        if (arena_overflowed(a))
            e = E_CALL_TOO_LARGE;
    }
    sql_end(&q);
    return e ? e : row ? OK : E_NOT_FOUND;
}

enum err store_pending_get(struct store *s, struct str key, wall_ms_t now, bool take, struct arena *a,
    struct store_pending *ret, struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    e = take ? sql_transaction(s, info) : OK;
    if (!e)
        e = pending_read(s, key, now, a, ret, info);
    if (!e && take)
        e = sql_run(s, info, NULL, "DELETE FROM pending WHERE key = ?", "b", key);
    if (take)
        e = sql_finish(s, e, info);
    sql_leave(s);
    return e;
}
