/*
 * accounts.c -- accounts and their grants
 *
 * An account never exists without a grant (one transaction makes both, deleting cascades).  generation only grows;
 * whoever changes a grant names the generation it read, and loses if another was faster.  `refreshing` is the mark
 * that a refresh token is out: set by store_refresh_begin before the bytes leave, cleared by the swap or by
 * store_refresh_undo.
 */
#include "store/internal.h"

static enum err account_write(struct store *s, const struct store_account *a, struct errinfo *info)
{
    return sql_run(s, info, NULL,
        "INSERT INTO accounts (tenant, id, user, provider, label, external_id, scopes, status, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (tenant, id) DO UPDATE SET external_id = excluded.external_id, scopes = excluded.scopes,"
        " status = excluded.status",
        "tttttttii", a->tenant, a->id, a->user, a->provider, a->label, a->external_id, a->scopes, (int64_t)a->status,
        (int64_t)a->created);
}

/* The account that has this owner and label, if any, must be this one. */
static enum err owner_check(struct store *s, const struct store_account *a, struct errinfo *info)
{
    struct sql q;
    bool row;
    enum err e = sql_begin(s, &q, info,
        "SELECT id FROM accounts WHERE tenant = ? AND user = ? AND provider = ? AND label = ?", "tttt", a->tenant,
            a->user,
        a->provider, a->label);

    if (!e)
        e = sql_step(&q, &row);
    if (!e && row && !str_eq(sql_text(&q, 0), a->id))
        e = err_set(info, E_NOT_FOUND, "the user has another account of this provider with this label");
    sql_end(&q);
    return e;
}

enum err store_account_put(struct store *s, const struct store_account *a, const struct store_grant *g,
    bool *ret_stored,
    struct errinfo *info)
{
    int changed = 0;
    enum err e;

    ASSERT(g->generation >= 1 && a->status != ACCOUNT_DISCONNECTED);
    sql_enter(s);
    e = sql_transaction(s, info);
    if (!e)
        e = owner_check(s, a, info);
    if (!e)
        e = account_write(s, a, info);
    if (!e && g->generation == 1)
        e = sql_run(s, info, &changed,
            "INSERT INTO grants (tenant, account, generation, sealed, obtained, expires) VALUES (?, ?, 1, ?, ?, ?)"
            " ON CONFLICT (tenant, account) DO NOTHING",
            "ttbii", a->tenant, a->id, g->sealed, (int64_t)g->obtained, (int64_t)g->expires);
    else if (!e)
        e = sql_run(s, info, &changed,
            "UPDATE grants SET generation = ?, sealed = ?, obtained = ?, expires = ?, refreshing = 0"
            " WHERE tenant = ? AND account = ? AND generation = ?",
            "ibiitti", (int64_t)g->generation, g->sealed, (int64_t)g->obtained, (int64_t)g->expires, a->tenant, a->id,
            (int64_t)g->generation - 1);
    if (!e && !changed)
        (void)sql_finish(s, E_NOT_FOUND, NULL);         /* lost the race: the account row must not change either */
    else
        e = sql_finish(s, e, info);
    sql_leave(s);
    if (!e)
        *ret_stored = changed > 0;
    return e;
}

enum err store_account_dead(struct store *s, struct str tenant, struct str id, uint64_t generation,
    struct errinfo *info)
{
    int changed = 0;
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, &changed,
        "UPDATE accounts SET status = ? WHERE tenant = ? AND id = ? AND EXISTS (SELECT 1 FROM grants g"
        " WHERE g.tenant = accounts.tenant AND g.account = accounts.id AND g.generation = ?)",
        "itti", (int64_t)ACCOUNT_RECONNECT_NEEDED, tenant, id, (int64_t)generation);
    sql_leave(s);
    return e ? e : changed ? OK : E_NOT_FOUND;
}

enum err store_account_describe(struct store *s, struct str tenant, struct str id, struct str external_id,
    struct errinfo *info)
{
    int changed = 0;
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, &changed, "UPDATE accounts SET external_id = ? WHERE tenant = ? AND id = ?", "ttt",
        external_id,
        tenant, id);
    sql_leave(s);
    return e ? e : changed ? OK : E_NOT_FOUND;
}

enum err store_account_delete(struct store *s, struct str tenant, struct str id, uint64_t generation,
    struct errinfo *info)
{
    int changed = 0;
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, &changed,
        "DELETE FROM accounts WHERE tenant = ? AND id = ? AND (? = 0 OR EXISTS (SELECT 1 FROM grants g"
        " WHERE g.tenant = accounts.tenant AND g.account = accounts.id AND g.generation = ?))",
        "ttii", tenant, id, (int64_t)generation, (int64_t)generation);
    sql_leave(s);
    return e ? e : changed ? OK : E_NOT_FOUND;
}

static enum err each_row(struct sql *q, enum err (*fn)(const struct store_account *, const struct store_grant *,
    void *),
    void *arg)
{
    struct store_account a = {
        .tenant = sql_text(q, 0), .id = sql_text(q, 1), .user = sql_text(q, 2), .provider = sql_text(q, 3),
        .label = sql_text(q, 4), .external_id = sql_text(q, 5), .scopes = sql_text(q, 6), .created = sql_int(q, 8),
        .status = sql_int(q, 7) == ACCOUNT_CONNECTED ? ACCOUNT_CONNECTED : ACCOUNT_RECONNECT_NEEDED,
    };
    struct store_grant g = {
        .generation = (uint64_t)sql_int(q, 9), .obtained = sql_int(q, 10), .expires = sql_int(q, 11),
        .refreshing = sql_int(q, 12),
    };

    return fn(&a, &g, arg);
}

enum err store_accounts_each(struct store *s,
    enum err (*fn)(const struct store_account *a, const struct store_grant *g, void *arg), void *arg,
    struct errinfo *info)
{
    struct sql q;
    bool row = true;
    enum err e;

    sql_enter(s);
    e = sql_begin(s, &q, info,
        "SELECT a.tenant, a.id, a.user, a.provider, a.label, a.external_id, a.scopes, a.status, a.created,"
        " g.generation, g.obtained, g.expires, g.refreshing"
        " FROM accounts a JOIN grants g ON g.tenant = a.tenant AND g.account = a.id ORDER BY a.created, a.tenant, a.id",
        "");
    while (!e && row) {
        e = sql_step(&q, &row);
        if (!e && row)
            e = each_row(&q, fn, arg);
    }
    sql_end(&q);
    sql_leave(s);
    return e;
}

enum err store_grant_get(struct store *s, struct str tenant, struct str account, struct arena *a,
    struct store_grant *ret,
    struct errinfo *info)
{
    struct store_grant g = { 0 };
    struct sql q;
    bool row = false;
    enum err e;

    sql_enter(s);
    e = sql_begin(s, &q, info,
        "SELECT generation, sealed, obtained, expires, refreshing FROM grants WHERE tenant = ? AND account = ?", "tt",
        tenant, account);
    if (!e)
        e = sql_step(&q, &row);
    if (!e && row) {
        g.generation = (uint64_t)sql_int(&q, 0);
        g.sealed = arena_str(a, sql_blob(&q, 1));
        g.obtained = sql_int(&q, 2);
        g.expires = sql_int(&q, 3);
        g.refreshing = sql_int(&q, 4);
        if (!g.sealed.p)
            e = E_CALL_TOO_LARGE;
    }
    sql_end(&q);
    sql_leave(s);
    if (e)
        return e;
    if (!row)
        return err_set(info, E_NOT_FOUND, "no such account");
    *ret = g;
    return OK;
}

enum err store_refresh_begin(struct store *s, struct str tenant, struct str account, uint64_t generation, wall_ms_t now,
    bool again, bool *ret_begun, struct errinfo *info)
{
    int changed = 0;
    enum err e;

    ASSERT(now > 0);
    sql_enter(s);
    /* Sent again, the mark keeps its first time: the provider's grace counts from there. */
    e = sql_run(s, info, &changed,
        "UPDATE grants SET refreshing = CASE refreshing WHEN 0 THEN ? ELSE refreshing END"
        " WHERE tenant = ? AND account = ? AND generation = ? AND (refreshing = 0 OR ?)",
        "ittii", (int64_t)now, tenant, account, (int64_t)generation, (int64_t)again);
    sql_leave(s);
    if (!e)
        *ret_begun = changed > 0;
    return e;
}

enum err store_refresh_undo(struct store *s, struct str tenant, struct str account, uint64_t generation,
    struct errinfo *info)
{
    enum err e;

    sql_enter(s);
    e = sql_run(s, info, NULL,
        "UPDATE grants SET refreshing = 0 WHERE tenant = ? AND account = ? AND generation = ?", "tti",
        tenant, account, (int64_t)generation);
    sql_leave(s);
    return e;
}

enum err store_grant_swap(struct store *s, struct str tenant, struct str account, uint64_t from,
    const struct store_grant *g, bool *ret_swapped, struct errinfo *info)
{
    int changed = 0;
    enum err e;

    sql_enter(s);
    e = sql_transaction(s, info);
    if (!e)
        e = sql_run(s, info, &changed,
            "UPDATE grants SET generation = generation + 1, sealed = ?, obtained = ?, expires = ?, refreshing = 0"
            " WHERE tenant = ? AND account = ? AND generation = ?",
            "biitti", g->sealed, (int64_t)g->obtained, (int64_t)g->expires, tenant, account, (int64_t)from);
    if (!e && changed)
        e = sql_run(s, info, NULL, "UPDATE accounts SET status = ? WHERE tenant = ? AND id = ?", "itt",
            (int64_t)ACCOUNT_CONNECTED, tenant, account);
    e = sql_finish(s, e, info);
    sql_leave(s);
    if (!e)
        *ret_swapped = changed > 0;
    return e;
}
