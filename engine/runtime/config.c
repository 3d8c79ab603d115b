/*
 * config.c -- YAML (1.1, by libyaml) to struct config
 *
 * A mapping is described by a table of keys; each row says where its value goes and how it is read.  The tables are the
 * whole of what the file may say.  A key that is in no table, a key given twice, a value of the wrong kind: each is an
 * error with line and column, and with the keys that would have been possible.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

#include "base/check.h"
#include "loop/world.h"
#include "mcp/mcp.h"
#include "runtime/config.h"
#include "vault/vault.h"

enum { CONNECTIONS_MAX = 1000000, TOKENS_MIN = 100, TOKENS_MAX = 10000000, OVERLOAD_MS_MAX = 30000,
       SEGMENT_MB_MAX = 16384, IDLE_POLL_US_MAX = 10000, DRAIN_S_MAX = 24 * 3600, LIFETIME_S_MAX = 1000000000,
       BREAKER_MAX = 1000000 };
enum { CONFIG_ARENA_MAX = 4 << 20, CONFIG_FILE_MAX = 1 << 20, SECRET_FILE_MAX = 8192 };

struct reader {
    struct config *c;
    yaml_document_t *doc;
    struct errinfo *info;
};

static enum err wrong(struct reader *r, const yaml_node_t *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static enum err wrong(struct reader *r, const yaml_node_t *at, const char *fmt, ...)
{
    char text[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(r->info, E_CONFIG, "%s:%zu:%zu: %s", r->c->path, at->start_mark.line + 1, at->start_mark.column + 1,
                   text);
}

static struct str scalar(const yaml_node_t *n)
{
    return str_n(n->data.scalar.value, n->data.scalar.length);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static enum err read_text(struct reader *r, const yaml_node_t *n, const char **to)
{
    if (n->type != YAML_SCALAR_NODE || n->data.scalar.length == 0)
        return wrong(r, n, "expected text");
    if (memchr(n->data.scalar.value, 0, n->data.scalar.length))
        return wrong(r, n, "text must not contain NUL");
    *to = arena_z(&r->c->arena, scalar(n));
    return *to ? OK : wrong(r, n, "the configuration is too large");
}

static enum err read_bool(struct reader *r, const yaml_node_t *n, bool *to)
{
    struct str s = n->type == YAML_SCALAR_NODE ? scalar(n) : STR_NULL;

    if (!str_is(s, "true") && !str_is(s, "false"))
        return wrong(r, n, "expected true or false");
    *to = str_is(s, "true");
    return OK;
}

static enum err read_int(struct reader *r, const yaml_node_t *n, int64_t *to)
{
    uint64_t v;

    if (n->type != YAML_SCALAR_NODE || !str_to_u64(scalar(n), &v) || v > 1000000000000ULL)
        return wrong(r, n, "expected a whole number from 0 to 10^12");
    *to = (int64_t)v;
    return OK;
}

/* A list of texts, or one text alone. */
static enum err read_list(struct reader *r, const yaml_node_t *n, const char **to)
{
    size_t k = 0;

    if (n->type == YAML_SCALAR_NODE)
        return read_text(r, n, &to[0]);
    if (n->type != YAML_SEQUENCE_NODE)
        return wrong(r, n, "expected a list");
    for (yaml_node_item_t *it = n->data.sequence.items.start; it < n->data.sequence.items.top; it++) {
        const yaml_node_t *item = yaml_document_get_node(r->doc, *it);
        enum err e;

        if (k == CONFIG_LIST_MAX - 1)
            return wrong(r, item, "more than %d entries", CONFIG_LIST_MAX - 1);
        e = read_text(r, item, &to[k++]);
        if (e)
            return e;
    }
    return OK;
}

/* "env:NAME", "file:PATH" or "credential:NAME", and where it stands: config_secrets() reads what is behind it. */
static enum err read_secret(struct reader *r, const yaml_node_t *n, struct secret **to)
{
    static const char *const kinds[] = { "env:", "file:", "credential:" };
    struct config_secret *s = &r->c->secrets[r->c->n_secrets];
    enum err e;

    ASSERT(r->c->n_secrets < CONFIG_PROVIDERS_MAX);     /* each provider has one, and no key is given twice */
    e = read_text(r, n, &s->ref);
    if (e)
        return e;
    s->to = to;
    s->line = n->start_mark.line + 1;
    s->column = n->start_mark.column + 1;
    for (size_t i = 0; i < 3; i++) {
        size_t len = strlen(kinds[i]);

        if (strncmp(s->ref, kinds[i], len) == 0 && s->ref[len]) {
            r->c->n_secrets++;
            return OK;
        }
    }
    return wrong(r, n, "secrets are not written here: use env:NAME, file:PATH or credential:NAME");
}

static enum err read_level(struct reader *r, const yaml_node_t *n, enum log_level *to)
{
    static const char *const names[] = { "debug", "info", "warn", "error" };

    for (int i = 0; i < 4; i++) {
        if (n->type == YAML_SCALAR_NODE && str_is(scalar(n), names[i])) {
            *to = (enum log_level)i;
            return OK;
        }
    }
    return wrong(r, n, "expected debug, info, warn or error");
}

static enum err read_format(struct reader *r, const yaml_node_t *n, enum log_format *to)
{
    struct str s = n->type == YAML_SCALAR_NODE ? scalar(n) : STR_NULL;

    if (!str_is(s, "logfmt") && !str_is(s, "json"))
        return wrong(r, n, "expected logfmt or json");
    *to = str_is(s, "json") ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT;
    return OK;
}

static enum err read_validation(struct reader *r, const yaml_node_t *n, enum policy_validation *to)
{
    static const char *const names[] = { "warn", "strict", "off" };

    for (int i = 0; i < 3; i++) {
        if (n->type == YAML_SCALAR_NODE && str_is(scalar(n), names[i])) {
            *to = (enum policy_validation)i;
            return OK;
        }
    }
    return wrong(r, n, "expected strict, warn or off");
}

/* ---- mappings ---------------------------------------------------------------------------------------------------- */

enum kind { K_TEXT, K_BOOL, K_INT, K_LIST, K_SECRET, K_LEVEL, K_FORMAT, K_VALIDATION, K_MAP, K_CALL };

struct key {
    const char *name;
    enum kind kind;
    size_t offset;                                  /* into the object that the mapping fills */
    const struct key *map;                          /* K_MAP: a nested mapping that fills the same object */
    enum err (*call)(struct reader *r, const yaml_node_t *n, void *object);     /* K_CALL */
};

static enum err read_value(struct reader *r, const struct key *k, const yaml_node_t *n, void *object);

static enum err unknown_key(struct reader *r, const yaml_node_t *n, const struct key *keys)
{
    struct buf known = BUF_INIT(220);
    enum err e;

    for (const struct key *k = keys; k->name; k++)
        buf_addf(&known, "%s%s", known.len ? ", " : "", k->name);
    e = wrong(r, n, "unknown key \"%.*s\"; known here: %.*s", STR_ARG(scalar(n)), STR_ARG(buf_str(&known)));
    buf_release(&known);
    return e;
}

static enum err read_map(struct reader *r, const yaml_node_t *n, const struct key *keys, void *object)
{
    if (n->type != YAML_MAPPING_NODE)
        return wrong(r, n, "expected a mapping of keys to values");
    for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
        const yaml_node_t *key = yaml_document_get_node(r->doc, p->key),
                          *value = yaml_document_get_node(r->doc, p->value);
        const struct key *k = keys;
        enum err e;

        if (key->type != YAML_SCALAR_NODE)
            return wrong(r, key, "expected a key");
        for (yaml_node_pair_t *q = n->data.mapping.pairs.start; q < p; q++)
            if (str_eq(scalar(yaml_document_get_node(r->doc, q->key)), scalar(key)))
                return wrong(r, key, "key \"%.*s\" is given twice", STR_ARG(scalar(key)));
        while (k->name && !str_is(scalar(key), k->name))
            k++;
        if (!k->name)
            return unknown_key(r, key, keys);
        e = read_value(r, k, value, object);
        if (e)
            return e;
    }
    return OK;
}

static enum err read_value(struct reader *r, const struct key *k, const yaml_node_t *n, void *object)
{
    void *to = (char *)object + k->offset;

    switch (k->kind) {
    case K_TEXT:    return read_text(r, n, to);
    case K_BOOL:    return read_bool(r, n, to);
    case K_INT:     return read_int(r, n, to);
    case K_LIST:    return read_list(r, n, to);
    case K_SECRET:  return read_secret(r, n, to);
    case K_LEVEL:   return read_level(r, n, to);
    case K_FORMAT:  return read_format(r, n, to);
    case K_VALIDATION:  return read_validation(r, n, to);
    case K_MAP:     return read_map(r, n, k->map, object);
    case K_CALL:    return k->call(r, n, object);
    }
    UNREACHABLE();
}

/* ---- providers --------------------------------------------------------------------------------------------------- */

#define LIMIT(name, kind, field) { name, kind, offsetof(struct limit_conf, field), NULL, NULL }
static const struct key limit_keys[] = {
    LIMIT("amount", K_INT, amount),
    LIMIT("window_ms", K_INT, window_ms),
    LIMIT("concurrency", K_INT, concurrency),
    LIMIT("spacing_ms", K_INT, spacing_ms),
    { 0 },
};

/* limits: { mailbox_concurrency: { concurrency: 4 } }; the names are the connector's and checked by the registry. */
static enum err read_limits(struct reader *r, const yaml_node_t *n, void *object)
{
    struct provider_setup *p = object;

    if (n->type != YAML_MAPPING_NODE)
        return wrong(r, n, "expected a mapping of limit names");
    for (yaml_node_pair_t *q = n->data.mapping.pairs.start; q < n->data.mapping.pairs.top; q++) {
        struct limit_conf *l = &p->limits[p->n_limits];
        enum err e;

        if (p->n_limits == LIMITS_MAX)
            return wrong(r, n, "more than %d limits", LIMITS_MAX);
        *l = (struct limit_conf){ .amount = -1, .concurrency = -1, .spacing_ms = -1 };
        e = read_text(r, yaml_document_get_node(r->doc, q->key), &l->name);
        if (!e)
            e = read_map(r, yaml_document_get_node(r->doc, q->value), limit_keys, l);
        if (e)
            return e;
        p->n_limits++;
    }
    return OK;
}

/* costs: { "GET /gmail/v1/users/me/messages/{}": 5 }; the requests are the connector's and checked by the registry. */
static enum err read_costs(struct reader *r, const yaml_node_t *n, void *object)
{
    struct provider_setup *p = object;

    if (n->type != YAML_MAPPING_NODE)
        return wrong(r, n, "expected a mapping of requests to what they cost");
    for (yaml_node_pair_t *q = n->data.mapping.pairs.start; q < n->data.mapping.pairs.top; q++) {
        struct cost_conf *c = &p->costs[p->n_costs];
        enum err e;

        if (p->n_costs == REQUESTS_MAX)
            return wrong(r, n, "more than %d costs", REQUESTS_MAX);
        e = read_text(r, yaml_document_get_node(r->doc, q->key), &c->request);
        if (!e)
            e = read_int(r, yaml_document_get_node(r->doc, q->value), &c->cost);
        if (e)
            return e;
        p->n_costs++;
    }
    return OK;
}

#define SETUP(name, kind, field) { name, kind, offsetof(struct provider_setup, field), NULL, NULL }
static const struct key provider_keys[] = {
    SETUP("base_url", K_TEXT, base_url),
    SETUP("auth_url", K_TEXT, auth_url),
    SETUP("token_url", K_TEXT, token_url),
    SETUP("revoke_url", K_TEXT, revoke_url),
    SETUP("client_id", K_TEXT, client_id),
    SETUP("client_secret", K_SECRET, client_secret),
    SETUP("scopes", K_TEXT, scopes),
    SETUP("allow_loopback", K_BOOL, guard.allow_loopback),
    SETUP("allow_private", K_BOOL, guard.allow_private),
    SETUP("allow_plain_http", K_BOOL, guard.allow_plain_http),
    SETUP("plain_http2", K_BOOL, plain_http2),
    { "limits", K_CALL, 0, NULL, read_limits },
    { "costs", K_CALL, 0, NULL, read_costs },
    { 0 },
};

static enum err read_providers(struct reader *r, const yaml_node_t *n, void *object)
{
    struct config *c = object;

    if (n->type != YAML_MAPPING_NODE)
        return wrong(r, n, "expected a mapping of provider names");
    for (yaml_node_pair_t *q = n->data.mapping.pairs.start; q < n->data.mapping.pairs.top; q++) {
        struct provider_setup *p = &c->providers[c->n_providers];
        enum err e;

        if (c->n_providers == CONFIG_PROVIDERS_MAX)
            return wrong(r, n, "more than %d providers", CONFIG_PROVIDERS_MAX);
        e = read_text(r, yaml_document_get_node(r->doc, q->key), &p->name);
        for (size_t i = 0; !e && i < c->n_providers; i++)
            if (strcmp(c->providers[i].name, p->name) == 0)
                return wrong(r, yaml_document_get_node(r->doc, q->key), "provider \"%s\" is given twice", p->name);
        c->n_providers++;               /* counted at once: config_free() releases its secret */
        if (!e)
            e = read_map(r, yaml_document_get_node(r->doc, q->value), provider_keys, p);
        if (e)
            return e;
    }
    return OK;
}

/* ---- issuers ----------------------------------------------------------------------------------------------------- */

#define ISSUER(name, kind, field) { name, kind, offsetof(struct config_issuer, field), NULL, NULL }
static const struct key issuer_keys[] = {
    ISSUER("issuer", K_TEXT, issuer),
    ISSUER("algorithm", K_TEXT, algorithm),
    ISSUER("jwks", K_TEXT, jwks),
    ISSUER("audiences", K_LIST, audiences),
    ISSUER("tenant", K_TEXT, tenant),
    ISSUER("tenant_claim", K_TEXT, tenant_claim),
    ISSUER("tenants", K_LIST, tenants),
    ISSUER("user_claim", K_TEXT, user_claim),
    ISSUER("prefix", K_TEXT, prefix),
    ISSUER("scope_claim", K_TEXT, scope_claim),
    ISSUER("groups_claim", K_TEXT, groups_claim),
    ISSUER("agent_default", K_TEXT, agent_default),
    ISSUER("typ_jwt_allowed", K_BOOL, typ_jwt),
    ISSUER("lifetime_seconds", K_INT, lifetime_s),
    { 0 },
};

static enum err read_issuers(struct reader *r, const yaml_node_t *n, void *object)
{
    struct config *c = object;

    if (n->type != YAML_SEQUENCE_NODE)
        return wrong(r, n, "expected a list of issuers");
    for (yaml_node_item_t *it = n->data.sequence.items.start; it < n->data.sequence.items.top; it++) {
        const yaml_node_t *item = yaml_document_get_node(r->doc, *it);
        struct config_issuer *i = &c->issuers[c->n_issuers];
        enum identity_alg ignored;
        enum err e;

        if (c->n_issuers == IDENTITY_ISSUERS_MAX)
            return wrong(r, item, "more than %d issuers", IDENTITY_ISSUERS_MAX);
        e = read_map(r, item, issuer_keys, i);
        if (e)
            return e;
        if (!i->issuer || !i->algorithm || !i->jwks || (!i->tenant) == (!i->tenant_claim))
            return wrong(r, item, "an issuer needs issuer, algorithm, jwks and either tenant or tenant_claim");
        if (identity_alg_parse(str_of(i->algorithm), &ignored))
            return wrong(r, item, "algorithm must be RS256, ES256 or EdDSA");
        if (i->lifetime_s > LIFETIME_S_MAX)
            return wrong(r, item, "lifetime_seconds: at most %d", LIFETIME_S_MAX);
        c->n_issuers++;
    }
    return OK;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

#define TOP(name, kind, field) { name, kind, offsetof(struct config, field), NULL, NULL }

static const struct key tls_keys[] = {
    TOP("cert", K_TEXT, tls_cert), TOP("key", K_TEXT, tls_key), TOP("client_ca", K_TEXT, tls_client_ca),
    TOP("client_required", K_BOOL, tls_client_required), TOP("provider_ca", K_TEXT, tls_provider_ca),
    TOP("provider_http2", K_BOOL, tls_provider_http2), { 0 },
};
static const struct key auth_keys[] = {
    TOP("none", K_BOOL, no_auth), TOP("tenant", K_TEXT, tenant), TOP("user", K_TEXT, user), TOP("agent", K_TEXT, agent),
    TOP("tokens", K_INT, tokens_max),
    TOP("local_issuer", K_BOOL, local_issuer), TOP("audiences", K_LIST, audiences),
    { "issuers", K_CALL, 0, NULL, read_issuers }, { 0 },
};
static const struct key journal_keys[] = {
    TOP("segment_mb", K_INT, segment_mb), TOP("record_arguments", K_BOOL, record_arguments),
    TOP("answer_reads_early", K_BOOL, answer_reads_early), { 0 },
};
static const struct key tenant_budget_keys[] = {
    TOP("per_minute", K_INT, budgets[BUDGET_TENANT].per_minute), TOP("at_once", K_INT, budgets[BUDGET_TENANT].at_once),
    TOP("writes_per_hour", K_INT, budgets[BUDGET_TENANT].writes_per_hour),
    TOP("destroys_per_hour", K_INT, budgets[BUDGET_TENANT].destroys_per_hour), { 0 },
};
static const struct key agent_budget_keys[] = {
    TOP("per_minute", K_INT, budgets[BUDGET_AGENT].per_minute), TOP("at_once", K_INT, budgets[BUDGET_AGENT].at_once),
    TOP("writes_per_hour", K_INT, budgets[BUDGET_AGENT].writes_per_hour),
    TOP("destroys_per_hour", K_INT, budgets[BUDGET_AGENT].destroys_per_hour), { 0 },
};
static const struct key user_budget_keys[] = {
    TOP("per_minute", K_INT, budgets[BUDGET_USER].per_minute), TOP("at_once", K_INT, budgets[BUDGET_USER].at_once),
    TOP("writes_per_hour", K_INT, budgets[BUDGET_USER].writes_per_hour),
    TOP("destroys_per_hour", K_INT, budgets[BUDGET_USER].destroys_per_hour), { 0 },
};
#define TOOL_BUDGET(name, kind, field) { name, kind, offsetof(struct tool_budget, field), NULL, NULL }
static const struct key tool_budget_keys[] = {
    TOOL_BUDGET("per_minute", K_INT, per_minute), TOOL_BUDGET("per_hour", K_INT, per_hour),
    TOOL_BUDGET("at_once", K_INT, at_once), { 0 },
};

/* tools: { outlook.send_mail: { per_minute: 10 } }; the names are checked by the registry. */
static enum err read_tool_budgets(struct reader *r, const yaml_node_t *n, void *object)
{
    struct config *c = object;

    if (n->type != YAML_MAPPING_NODE)
        return wrong(r, n, "expected a mapping of tools to budgets");
    for (yaml_node_pair_t *q = n->data.mapping.pairs.start; q < n->data.mapping.pairs.top; q++) {
        const yaml_node_t *name = yaml_document_get_node(r->doc, q->key);
        struct tool_budget *b = &c->tool_budgets[c->n_tool_budgets];
        enum err e;

        if (c->n_tool_budgets == TOOL_BUDGETS_MAX)
            return wrong(r, n, "more than %d tools", TOOL_BUDGETS_MAX);
        e = read_text(r, name, &b->tool);
        for (size_t i = 0; !e && i < c->n_tool_budgets; i++)
            if (strcmp(c->tool_budgets[i].tool, b->tool) == 0)
                return wrong(r, name, "tool \"%s\" is given twice", b->tool);
        if (!e)
            e = read_map(r, yaml_document_get_node(r->doc, q->value), tool_budget_keys, b);
        if (e)
            return e;
        c->n_tool_budgets++;
    }
    return OK;
}

static const struct key budget_keys[] = {
    TOP("calls_in_flight", K_INT, calls_max), TOP("breaker_least", K_INT, breaker_least),
    TOP("repeats_percent", K_INT, repeats_percent),
    { "tenant", K_MAP, 0, tenant_budget_keys, NULL }, { "agent", K_MAP, 0, agent_budget_keys, NULL },
    { "user", K_MAP, 0, user_budget_keys, NULL }, { "tools", K_CALL, 0, NULL, read_tool_budgets }, { 0 },
};
static const struct key overload_keys[] = {
    TOP("delay_ms", K_INT, overload_ms), { 0 },
};
static const struct key log_keys[] = {
    TOP("level", K_LEVEL, log_level), TOP("format", K_FORMAT, log_format), { 0 },
};
static const struct key delegation_keys[] = {
    TOP("required", K_BOOL, delegation_required), { 0 },
};
static const struct key vault_keys[] = {
    TOP("root_key", K_TEXT, root_key), { 0 },
};
static const struct key sandbox_keys[] = {
    TOP("listen", K_TEXT, sandbox_listen), { 0 },
};
static const struct key top_keys[] = {
    TOP("listen", K_TEXT, listen),
    TOP("public_url", K_TEXT, public_url),
    TOP("hosts", K_LIST, hosts),
    TOP("origins", K_LIST, origins),
    TOP("workers", K_INT, workers),
    TOP("idle_poll_us", K_INT, idle_poll_us),
    TOP("connections", K_INT, connections_max),
    TOP("data", K_TEXT, data),
    TOP("drain_seconds", K_INT, drain_s),
    { "tls", K_MAP, 0, tls_keys, NULL },
    { "auth", K_MAP, 0, auth_keys, NULL },
    TOP("policies", K_LIST, policies),
    TOP("policy_validation", K_VALIDATION, validation),
    TOP("shadow_policies", K_LIST, candidate),
    TOP("entities", K_LIST, entities),
    { "delegation", K_MAP, 0, delegation_keys, NULL },
    TOP("connectors", K_LIST, connectors),
    { "providers", K_CALL, 0, NULL, read_providers },
    { "vault", K_MAP, 0, vault_keys, NULL },
    { "journal", K_MAP, 0, journal_keys, NULL },
    { "budgets", K_MAP, 0, budget_keys, NULL },
    { "overload", K_MAP, 0, overload_keys, NULL },
    { "log", K_MAP, 0, log_keys, NULL },
    { "sandbox", K_MAP, 0, sandbox_keys, NULL },
    { 0 },
};

static struct config *config_new(void)
{
    struct config *c = calloc(1, sizeof(*c));

    ASSERT(c != NULL);
    atomic_init(&c->refs, 1);
    arena_init(&c->arena, CONFIG_ARENA_MAX);
    c->listen = "127.0.0.1:7411";
    c->data = "./sluice-data";
    c->drain_s = 10;
    c->local_issuer = true;
    c->tenant = "default";
    c->user = "local";
    c->agent = "local";
    c->segment_mb = 64;
    c->record_arguments = true;
    c->tls_provider_http2 = true;
    c->breaker_least = 10;
    c->connections_max = 10000;
    c->tokens_max = 20000;
    c->overload_ms = 500;
    c->repeats_percent = 10;
    c->log_level = LOG_LEVEL_INFO;
    return c;
}

struct config *config_ref(struct config *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void config_free(struct config *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < c->n_providers; i++)
        secret_release(c->providers[i].client_secret);
    arena_release(&c->arena);
    free(c);
}

static enum err parse(struct reader *r, FILE *f)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    yaml_node_t *root;
    enum err e = OK;

    ASSERT(yaml_parser_initialize(&parser));
    yaml_parser_set_input_file(&parser, f);
    if (!yaml_parser_load(&parser, &doc)) {
        e = err_set(r->info, E_CONFIG, "%s:%zu:%zu: %s", r->c->path, parser.problem_mark.line + 1,
                    parser.problem_mark.column + 1, parser.problem ? parser.problem : "is not YAML");
        yaml_parser_delete(&parser);
        return e;
    }
    r->doc = &doc;
    root = yaml_document_get_root_node(&doc);
    if (root)
        e = read_map(r, root, top_keys, r->c);
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    return e;
}

enum err config_load(const char *path, struct config **ret, struct errinfo *info)
{
    struct config *c = config_new();
    struct reader r = { .c = c, .info = info };
    FILE *f = fopen(path, "re");
    enum err e;

    c->path = arena_z(&c->arena, str_of(path));
    if (!f) {
        config_free(c);
        return err_set(info, E_CONFIG, "cannot read the configuration %s: %s", path, strerror(errno));
    }
    e = parse(&r, f);
    fclose(f);
    c->engine.calls_max = (unsigned)(c->calls_max > 1000000 ? 1000000 : c->calls_max);
    c->engine.record_arguments = c->record_arguments;
    c->engine.answer_reads_early = c->answer_reads_early;
    c->engine.overload_delay = c->overload_ms * NS_PER_MS;
    if (e) {
        config_free(c);
        return e;
    }
    *ret = c;
    return OK;
}

enum err config_default(struct config **ret, struct errinfo *info)
{
    struct config *c = config_new();

    (void)info;
    c->sandbox_listen = "127.0.0.1:7412";
    c->engine.record_arguments = true;
    c->engine.overload_delay = c->overload_ms * NS_PER_MS;
    *ret = c;
    return OK;
}

enum err config_check(const struct config *c, struct errinfo *info)
{
    bool loopback = net_is_loopback(c->listen);

    if (!net_is_address(c->listen))
        return err_set(info, E_CONFIG, "listen: \"%s\" is no address to listen on: " NET_ADDRESS_FORMS, c->listen);
    if (c->no_auth && !loopback)
        return err_set(info, E_CONFIG, "without authentication the engine listens on loopback only, not on %s",
                       c->listen);
    if (!loopback && (!c->tls_cert || !c->tls_key))
        return err_set(info, E_CONFIG, "listening on %s needs TLS: set tls.cert and tls.key, or listen on 127.0.0.1",
                       c->listen);
    if (!loopback && c->n_issuers == 0)
        return err_set(info, E_CONFIG, "listening on %s needs an issuer of tokens: set auth.issuers", c->listen);
    if (!c->no_auth && !c->local_issuer && c->n_issuers == 0)
        return err_set(info, E_CONFIG, "nobody could be identified: set auth.issuers, or leave auth.local_issuer on");
    if (c->tls_client_required && !c->tls_client_ca)
        return err_set(info, E_CONFIG, "tls.client_required needs tls.client_ca");
    if (!c->tls_cert != !c->tls_key)
        return err_set(info, E_CONFIG, "TLS needs both: set tls.cert and tls.key");
    if (c->public_url && mcp_public_url_check(c->public_url, info))
        return E_CONFIG;
    if (c->root_key && vault_root_check(str_of(c->root_key), info))
        return E_CONFIG;
    if (c->segment_mb < 1 || c->segment_mb > SEGMENT_MB_MAX)
        return err_set(info, E_CONFIG, "journal.segment_mb: 1 to %d", SEGMENT_MB_MAX);
    if (c->connections_max < 1 || c->connections_max > CONNECTIONS_MAX)
        return err_set(info, E_CONFIG, "connections: 1 to %d", CONNECTIONS_MAX);
    if (c->tokens_max < TOKENS_MIN || c->tokens_max > TOKENS_MAX)
        return err_set(info, E_CONFIG, "auth.tokens: %d to %d", TOKENS_MIN, TOKENS_MAX);
    if (c->overload_ms > OVERLOAD_MS_MAX)
        return err_set(info, E_CONFIG, "overload.delay_ms: at most %d", OVERLOAD_MS_MAX);
    if (c->drain_s > DRAIN_S_MAX)
        return err_set(info, E_CONFIG, "drain_seconds: at most %d (a day)", DRAIN_S_MAX);
    if (c->breaker_least > BREAKER_MAX || c->repeats_percent > BREAKER_MAX)
        return err_set(info, E_CONFIG, "budgets.breaker_least and repeats_percent: at most %d", BREAKER_MAX);
    if (c->workers > 256)
        return err_set(info, E_CONFIG, "workers: at most 256");
    if (c->idle_poll_us > IDLE_POLL_US_MAX)
        return err_set(info, E_CONFIG, "idle_poll_us: at most %d", IDLE_POLL_US_MAX);
    return OK;
}

/* ---- secrets ----------------------------------------------------------------------------------------------------- */

static enum err secret_of_env(const char *name, struct secret **ret, struct errinfo *why)
{
    const char *value = getenv(name);

    if (!value || !*value)
        return err_set(why, E_CONFIG, "the environment variable %s is not set", name);
    *ret = secret_copy(value, strlen(value));
    return *ret ? OK : err_set(why, E_CONFIG, "the secret in %s is too long", name);
}

/* The bytes of a file, without a final line end. */
static enum err secret_of_file(const char *path, struct secret **ret, struct errinfo *why)
{
    char bytes[SECRET_FILE_MAX];
    int64_t got = 0;
    int fd = world->open(path, 0, 0);

    if (fd >= 0) {
        got = world->pread(fd, bytes, sizeof(bytes), 0);
        world->close(fd);
    }
    if (fd < 0 || got < 0)
        return err_set(why, E_CONFIG, "cannot read %s: %s", path, strerror((int)-(fd < 0 ? fd : got)));
    while (got > 0 && (bytes[got - 1] == '\n' || bytes[got - 1] == '\r'))
        got--;
    if (got == 0 || got == SECRET_FILE_MAX)
        return err_set(why, E_CONFIG, "%s is empty, or longer than a secret may be", path);
    *ret = secret_take(bytes, (size_t)got);
    return *ret ? OK : err_set(why, E_CONFIG, "no memory for the secret in %s", path);
}

static enum err secret_of(struct config *c, const char *ref, struct secret **ret, struct errinfo *why)
{
    const char *name = strchr(ref, ':') + 1, *dir = getenv("CREDENTIALS_DIRECTORY");

    if (strncmp(ref, "env:", 4) == 0)
        return secret_of_env(name, ret, why);
    if (strncmp(ref, "file:", 5) == 0)
        return secret_of_file(name, ret, why);
    if (!dir)
        return err_set(why, E_CONFIG, "CREDENTIALS_DIRECTORY is not set: credential: works under systemd only");
    return secret_of_file(arena_printf(&c->arena, "%s/%s", dir, name).p, ret, why);
}

enum err config_secrets(struct config *c, struct errinfo *info)
{
    struct errinfo why = { "" };

    for (size_t i = 0; i < c->n_secrets; i++) {
        const struct config_secret *s = &c->secrets[i];

        ASSERT(*s->to == NULL);
        if (secret_of(c, s->ref, s->to, &why))
            return err_set(info, E_CONFIG, "%s:%zu:%zu: %s", c->path, s->line, s->column, why.text);
    }
    return OK;
}
