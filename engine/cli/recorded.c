/* recorded.c -- from a record of the journal back to the question */
#include "cli/recorded.h"

#include <stdio.h>

#include "base/check.h"
#include "base/crypto.h"
#include "call/registry.h"
#include "json/json.h"
#include "runtime/runtime.h"
#include "store/store.h"
#include "vault/vault.h"

enum { RECORD_ARENA_MAX = 64 << 20, ARGS_MAX = 1 << 20, GROUPS_MAX = 4096, RESOURCE_CUT = 512 };

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum err open_vault(struct recorded_journal *j, struct errinfo *info)
{
    struct vault_config vault = { 0 };
    char at[4096];
    enum err e;

    snprintf(at, sizeof(at), "file:%s/root.key", j->config->data);
    e = vault_root_load(str_of(j->config->root_key ? j->config->root_key : at), false, &j->root, info);
    snprintf(at, sizeof(at), "%s/sluice.db", j->config->data);
    if (!e)
        e = store_open(at, &j->store, info);
    vault.store = j->store;
    vault.root = j->root;
    return e ? e : vault_open(&vault, &j->vault, info);
}

static void use_policies(struct config *c, const char *const *policies)
{
    size_t n = 0;

    for (; policies[n] && n + 1 < CONFIG_LIST_MAX; n++)
        c->policies[n] = policies[n];
    c->policies[n] = NULL;
    c->candidate[0] = NULL;
}

int recorded_open(struct recorded_journal *j, const struct verb *v, const char *config, const char *data,
                  const char *const *policies)
{
    struct errinfo info = { "" };
    int rc;

    *j = (struct recorded_journal){ .verb = v };
    rc = config_open(v, config, data, &j->config);
    if (rc)
        return rc;
    j->config->validation = POLICY_VALIDATION_OFF;
    if (policies)
        use_policies(j->config, policies);
    snprintf(j->dir, sizeof(j->dir), "%s/journal", j->config->data);
    if (snapshot_build(j->config, &j->registry, &info) || open_vault(j, &info))
        return complain(v, EXIT_UNABLE, "%s", info.text);
    return 0;
}

void recorded_close(struct recorded_journal *j)
{
    if (j->vault)
        vault_close(j->vault);
    store_close(j->store);
    secret_release(j->root);
    registry_unref(j->registry);
    config_free(j->config);
}

/* ---- one record -------------------------------------------------------------------------------------------------- */

struct reading {
    struct recorded_journal *journal;
    struct arena arena;
    struct str only;
    recorded_fn *fn;
    void *arg;
    bool found;
};

static struct str member(const struct json *j, const char *name)
{
    return json_str(json_get(j, name));
}

static int64_t number(const struct json *j, const char *name, int64_t without)
{
    int64_t n = without;

    json_int(json_get(j, name), &n);
    return n;
}

static struct str *names(struct arena *a, const struct json *list, unsigned *ret_n)
{
    size_t n = json_len(list);
    struct str *v = n <= GROUPS_MAX ? ARENA_ARRAY(a, struct str, n + 1) : NULL;

    *ret_n = 0;
    for (const struct json *it = json_first(list); v && it; it = json_next(it))
        v[(*ret_n)++] = json_str(it);
    return v;
}

/* The arguments as they were frozen. NULL: why they cannot be had is in *ret_lacks. */
static struct json *open_args(struct reading *d, const struct json *rec, const char **ret_lacks)
{
    struct buf plain = BUF_INIT(ARGS_MAX);
    struct str tenant = member(rec, "tenant"), sealed = member(rec, "args"), bytes, key, text;
    struct json *args = NULL;
    struct json_error where;
    struct vault *vault = d->journal->vault;

    if (!sealed.len) {
        *ret_lacks = "its arguments were not recorded";
        return NULL;
    }
    /* A key is only looked for: opening a tenant that has none would make one. */
    if (store_key_get(d->journal->store, tenant, &d->arena, &key, NULL) || vault_tenant_load(vault, tenant, NULL)) {
        *ret_lacks = "its tenant's key is gone";
        return NULL;
    }
    *ret_lacks = "its arguments do not open";
    if (!b64_decode(&d->arena, sealed, &bytes)
        && !vault_unseal(vault, tenant, member(rec, "call"), STR("args"), bytes, &plain)) {
        text = arena_str(&d->arena, buf_str(&plain));
        if (text.p && !json_parse(&d->arena, text, NULL, &args, &where))
            *ret_lacks = NULL;
    }
    buf_release(&plain);
    return args;
}

static const struct vault_delegation *delegation_to(struct arena *a, const struct json *list, struct str agent)
{
    for (const struct json *it = json_first(list); it; it = json_next(it)) {
        struct vault_delegation *v;

        if (!str_eq(member(it, "agent"), agent))
            continue;
        v = ARENA_NEW(a, struct vault_delegation);
        if (v) {
            *v = (struct vault_delegation){ .id = member(it, "id"), .agent = agent, .since = number(it, "since", 0),
                                            .expires = number(it, "expires", INT64_MAX) };
            v->actions = names(a, json_get(it, "actions"), &v->n_actions);
        }
        return v;
    }
    return NULL;
}

static bool read_actors(struct arena *a, const struct json *rec, struct question *q)
{
    const struct json *delegations = json_get(rec, "delegations");
    unsigned n_more;
    const struct str *more = names(a, json_get(rec, "delegates"), &n_more);
    struct caller_actor *actors = ARENA_ARRAY(a, struct caller_actor, CALLER_ACTORS_MAX);
    const struct vault_delegation **recorded = ARENA_ARRAY(a, const struct vault_delegation *, CALLER_ACTORS_MAX);

    if (!more || !actors || !recorded || 1 + n_more > CALLER_ACTORS_MAX)
        return false;
    for (unsigned i = 0; i <= n_more; i++) {
        actors[i].name = i ? more[i - 1] : member(rec, "agent");
        recorded[i] = delegation_to(a, delegations, actors[i].name);
    }
    q->actors = actors;
    q->n_actors = 1 + n_more;
    q->delegations = delegations ? recorded : NULL;
    return true;
}

/* NULL, or what is missing. */
static const char *read_question(struct reading *d, const struct json *rec, struct question *q)
{
    const struct tool *tool = registry_tool(d->journal->registry, member(rec, "tool"));
    struct str resource = member(rec, "resource");
    const char *lacks = NULL;
    struct json *args;
    struct errinfo info;

    *q = (struct question){ .tenant = member(rec, "tenant"), .user = member(rec, "user"), .auth = member(rec, "auth"),
                            .resource_type = member(rec, "resource_type"), .time = number(rec, "time", -1) };
    if (!tool)
        return "its tool is not offered any more";
    if (!q->resource_type.len || q->time < 0)
        return "it was recorded by an earlier version";
    q->action = &tool->action;
    q->resource_id = str_from(resource, q->resource_type.len + 2);
    if (q->resource_id.len >= RESOURCE_CUT)
        return "the name of its resource was cut";
    q->groups = names(&d->arena, json_get(rec, "groups"), &q->n_groups);
    q->scopes = names(&d->arena, json_get(rec, "scopes"), &q->n_scopes);
    if (!q->groups || !q->scopes || !read_actors(&d->arena, rec, q))
        return "its record is too large";
    args = open_args(d, rec, &lacks);
    if (!lacks && policy_value_from_json(&d->arena, args, POLICY_JSON_PLAIN, &q->args, &info))
        lacks = "policies cannot read its arguments";
    return lacks;
}

enum decided recorded_was(const struct json *rec)
{
    struct str error = member(rec, "error");

    if (str_is(error, err_name(E_POLICY_DENIED)))
        return DECIDED_DENY;
    return str_is(error, err_name(E_APPROVAL_NEEDED)) ? DECIDED_NEEDS_APPROVAL : DECIDED_ALLOW;
}

static bool one_record(const struct journal_record *jr, void *arg)
{
    struct reading *d = arg;
    struct recorded r = { .time = jr->time };
    struct json *rec = NULL;
    struct json_error where;

    arena_clear(&d->arena);
    if (json_parse(&d->arena, jr->payload, NULL, &rec, &where) || !json_get(rec, "decisions"))
        return true;
    r.record = rec;
    r.call = member(rec, "call");
    if (d->only.len && !str_eq(d->only, r.call))
        return true;
    d->found = true;
    r.tool = member(rec, "tool");
    r.policy = member(rec, "policy");
    r.entities = member(rec, "entities");
    r.was = recorded_was(rec);
    json_bool(json_get(rec, "delegation_required"), &r.delegation_required);
    r.lacks = read_question(d, rec, &r.question);
    r.asked = ARENA_NEW(&d->arena, struct asked);
    if (!r.lacks && (!r.asked || question_ask(&r.question, d->journal->registry->entities, &d->arena, r.asked)))
        r.lacks = "its question takes more memory than allowed";
    return d->fn(&r, &d->arena, d->arg);
}

int recorded_each(struct recorded_journal *j, wall_ms_t since, const char *call, recorded_fn *fn, void *arg)
{
    struct reading d = { .journal = j, .only = str_of(call), .fn = fn, .arg = arg };
    struct journal_scan_options opt = { .since = since, .lane = -1,
                                        .types = 1u << JOURNAL_INTENT | 1u << JOURNAL_OUTCOME };
    struct errinfo info = { "" };
    enum err e;

    arena_init(&d.arena, RECORD_ARENA_MAX);
    e = journal_scan(j->dir, &opt, one_record, &d, &info);
    arena_release(&d.arena);
    if (e)
        return complain(j->verb, EXIT_UNABLE, "%s", info.text[0] ? info.text : err_text(e));
    if (call && !d.found)
        return complain(j->verb, EXIT_UNABLE, "no decided call \"%s\" in %s", call, j->dir);
    return 0;
}
