/*
 * config.h -- what an operator may say, and how: one YAML file
 *
 * The file is the table in config.c; docs/operating.md is made of the same words.  Unknown keys are refused, every
 * error names file, line and column.  Secrets are never in the file: they are references, "env:NAME" or "file:PATH"
 * ("credential:NAME" where systemd hands them over).  The engine reads what they refer to; other verbs read the same
 * file where those secrets are not, and should not be.  Without a file, config_default() is the embedded default.
 */
#ifndef RUNTIME_CONFIG_H
#define RUNTIME_CONFIG_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/log.h"
#include "call/engine.h"
#include "call/registry.h"
#include "identity/identity.h"

enum { CONFIG_LIST_MAX = 64, CONFIG_PROVIDERS_MAX = 32 };

struct config_issuer {
    const char *issuer, *algorithm, *jwks;      /* jwks: "file:PATH" or an https URL */
    const char *audiences[CONFIG_LIST_MAX], *tenants[CONFIG_LIST_MAX];
    const char *tenant, *tenant_claim, *user_claim, *prefix, *scope_claim, *groups_claim,
               *agent_default;
    bool typ_jwt;
    int64_t lifetime_s;
};

struct config_secret {                          /* a reference, and where the file has it */
    const char *ref;
    size_t line, column;
    struct secret **to;                         /* of a provider below: NULL until config_secrets() */
};

struct config {
    atomic_uint refs;                           /* whoever made it, and snapshots: they borrow its text and secrets */
    struct arena arena;
    const char *path;                           /* of the file; NULL: the embedded default */

    const char *listen, *public_url;
    const char *hosts[CONFIG_LIST_MAX], *origins[CONFIG_LIST_MAX];      /* accepted beside the listen address */
    int64_t workers;                            /* 0: one per core */
    int64_t idle_poll_us;
    const char *data;                           /* directory */
    int64_t drain_s;

    const char *tls_cert, *tls_key, *tls_client_ca, *tls_provider_ca;
    bool tls_client_required, tls_provider_http2;

    bool no_auth;                               /* only on loopback */
    const char *tenant, *user, *agent;          /* who callers are without auth */
    bool local_issuer;
    int64_t tokens_max;                         /* verified ones that are remembered */
    const char *audiences[CONFIG_LIST_MAX];     /* of tokens of the local issuer; none: the URL of the endpoint */
    struct config_issuer issuers[IDENTITY_ISSUERS_MAX];
    size_t n_issuers;

    const char *policies[CONFIG_LIST_MAX];      /* files or directories of *.cedar */
    const char *candidate[CONFIG_LIST_MAX];     /* likewise: asked beside the policies, never obeyed */
    enum policy_validation { POLICY_VALIDATION_WARN, POLICY_VALIDATION_STRICT, POLICY_VALIDATION_OFF } validation;
    const char *entities[CONFIG_LIST_MAX];      /* files or directories of *.json: users, agents, groups, ... */
    bool delegation_required;
    const char *connectors[CONFIG_LIST_MAX];    /* enabled; none: all but fixtures */
    struct provider_setup providers[CONFIG_PROVIDERS_MAX];
    size_t n_providers;
    struct config_secret secrets[CONFIG_PROVIDERS_MAX];
    size_t n_secrets;

    const char *root_key;                       /* "file:", "env:" or "credential:"; NULL: file:DATA/root.key */
    int64_t segment_mb;
    bool record_arguments, answer_reads_early;
    struct engine_options engine;
    struct admission_rule budgets[BUDGETS];
    struct tool_budget tool_budgets[TOOL_BUDGETS_MAX];
    size_t n_tool_budgets;
    int64_t breaker_least, repeats_percent;     /* call/breaker.h */
    int64_t calls_max, connections_max, overload_ms;

    enum log_level log_level;
    enum log_format log_format;

    const char *sandbox_listen;                 /* the built-in provider; NULL: not started */
};

/* E_CONFIG with "file:line:column: what is wrong, what was expected". Blocks. Of secrets only the references are
 * looked at. */
enum err config_load(const char *path, struct config **ret, struct errinfo *info);
/* The embedded default: loopback, SQLite and journal under ./sluice-data, local issuer, sandbox as provider. */
enum err config_default(struct config **ret, struct errinfo *info);
/* What holds between keys (no auth only on loopback, TLS elsewhere): after overrides from the command line. */
enum err config_check(const struct config *c, struct errinfo *info);
/* Reads the secrets that are referred to; once, by who makes requests to providers or says whether it could. Errors as
 * of config_load(). Blocks. */
enum err config_secrets(struct config *c, struct errinfo *info);
struct config *config_ref(struct config *c);
/* Gives a reference back; what is referred to by nobody goes, with its secrets. Any thread. Accepts NULL. */
void config_free(struct config *c);

#endif
