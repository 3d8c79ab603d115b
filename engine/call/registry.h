/*
 * registry.h -- what this engine offers: providers, tools, prompts, resources, policies; one immutable snapshot
 *
 * Built at start and at reload from the connectors' declarations and the configuration, then only read; a call holds a
 * reference to the snapshot it began in.  The declaration is the single source: schema, digest, policy entities, limit
 * keys and egress origins are derived here once.
 */
#ifndef CALL_REGISTRY_H
#define CALL_REGISTRY_H

#include <stdatomic.h>

#include "base/err.h"
#include "base/map.h"
#include "base/metric.h"
#include "call/engine.h"
#include "call/question.h"
#include "connectors/connector.h"
#include "fetch/fetch.h"
#include "json/json.h"
#include "policy/policy.h"
#include "vault/vault.h"

struct schema;

enum { LIMITS_MAX = 8, ORIGINS_MAX = 8, REQUESTS_MAX = 64, TOOL_BUDGETS_MAX = 64, POLICY_RULES_MAX = 256 };

/* A limit of a provider after configuration: the connector's defaults are only that. In a setup -1 (window_ms: 0) says
 * that configuration leaves it alone. */
struct limit_conf {
    const char *name;
    int64_t amount, window_ms, concurrency, spacing_ms;
    const struct limit *decl;
    enum limit_scope scope;
    unsigned metric;                    /* label slot of its throttles */
    uint16_t rule;                      /* its number in the limiter */
    bool told;                          /* answers say something of it: decl->told */
};
_Static_assert(sizeof(struct limit_conf) == 64, "every exchange reads it: it is one cache line");

/* What a request costs, and which limits beside the account's count it. */
struct request_conf {
    struct str method, path;            /* "*": any method; see connector.h for the path */
    int64_t cost;                       /* 0: the tool's */
    uint8_t limits;                     /* bit i: limits[i] of the provider */
    const struct request_row *decl;
};

/* A cost that configuration sets: by the request as the connector declares it. */
struct cost_conf {
    const char *request;
    int64_t cost;
};

/* How one provider is configured. Filled by runtime/ from the YAML, NULL or zero: the declaration's default. */
struct provider_setup {
    const char *name;
    const char *base_url, *auth_url;
    const char *token_url, *revoke_url; /* whole URLs, where they are not below auth_url as the declaration says */
    const char *client_id;
    struct secret *client_secret;       /* borrowed, as all it points to: registry_options.lender */
    const char *scopes;
    struct fetch_guard guard;
    bool plain_http2;                   /* base_url is http and speaks HTTP/2 at once */
    struct limit_conf limits[LIMITS_MAX];
    unsigned n_limits;
    struct cost_conf costs[REQUESTS_MAX];
    unsigned n_costs;
};

/* What a request to a provider has as its body. */
enum request_body { REQUEST_PLAIN, REQUEST_JSON, REQUEST_FORM, REQUEST_BODIES };

struct provider_conf {
    const struct provider *decl;
    struct fetch_origin origin;         /* of base_url */
    struct str base_path;               /* path prefix of base_url, "" or "/x" */
    const struct fetch_common *fields[REQUEST_BODIES];      /* of its requests */
    struct fetch_guard guard;
    struct vault_provider vault;        /* OAuth as configured; token_url empty: static tokens only */
    struct rl_id everybody;             /* that keys of limits of its own are under: registry_make_keys() */
    unsigned n_limits, n_requests;
    unsigned index;                     /* among all that are linked in */
    unsigned metric, metric_retries, metric_unrepeated, metric_opened, metric_refused;      /* label slots */
    metric_slot_t *answers;             /* M_EXCHANGES_TOTAL, by enum answer */
    struct limit_conf limits[LIMITS_MAX];
    struct request_conf requests[REQUESTS_MAX];
};

/* As text: record.c. */
struct tool_recorded {
    struct str members;                 /* that follow from the tool alone */
    struct str resource;                /* before the id of the resource, and the member behind it */
    struct str resource_type;
};

struct tool {
    const struct tool_decl *decl;
    const struct provider_conf *provider;
    struct str name, title;
    struct str input_schema, output_schema;         /* JSON text; output may be empty */
    struct json *input_tree, *output_tree;
    struct schema *input, *output;                  /* compiled */
    bool mirrors;                                   /* "x-mcp-header" is somewhere in the input's schema */
    char digest[65];        /* SHA-256 over name, summary, schemas, effect: what approvals and policies mean */
    struct tool_recorded recorded;      /* what records say of it */
    const struct field *resource_arg;   /* the argument that names the resource, or NULL */
    const char *resource_type;
    uint64_t resource_type_hash;        /* hash_bytes() of it */
    metric_slot_t *counted;             /* M_CALLS_TOTAL, by outcome */
    struct policy_entity action;        /* what policies call the tool, with all that it is in */
    const struct tool_budget *budget;   /* NULL: none */
};

/* What a budget of policies grants; equal ones share it. */
struct policy_rule {
    int64_t window_s, amount;
    uint16_t rule;                      /* of the limiter, as a tool_budget's */
};

struct registry {
    atomic_uint refs;
    struct arena arena;
    struct provider_conf *providers;
    size_t n_providers;
    struct tool *tools;                 /* by name, in byte order */
    size_t n_tools;
    const struct prompt_decl **prompts;
    size_t n_prompts;
    const struct resource_decl **resources;
    size_t n_resources;
    struct map by_name;                 /* tool name -> struct tool */
    struct policy_set *policy;
    struct policy_set *candidate;       /* asked beside, never obeyed: shadow.c; NULL: none */
    struct listing *listing;            /* which tools which callers see */
    struct policy_entities *entities;   /* the operator's; NULL: none */
    char entities_version[65];          /* SHA-256 of their text; "" for none */
    struct str recorded;                /* what records say of the versions of policies and entities */
    bool delegation_required;
    char version[65];                   /* digest over everything a list shows */
    struct admission_rule budgets[BUDGETS];         /* the call's own: budget.h */
    uint8_t budget_rules[BUDGETS][EFFECT_DESTROYS + 1];     /* by a call's effect: which rules count it, as bits */
    bool budgets_any;                   /* one of these says something */
    struct tool_budget *tool_budgets;
    size_t n_tool_budgets;
    struct policy_rule *policy_rules;   /* by content */
    size_t n_policy_rules;
    struct budget_rules *rules;         /* that those of the two above are taken from; NULL: not yet */
    void *lender;                       /* of what providers and budgets point to: registry_options */
    void (*lender_release)(void *lender);
};

struct registry_options {
    const struct provider_setup *setups;            /* what they point to is borrowed: it has to outlive the snapshot */
    size_t n_setups;
    void *lender;                       /* whose that is: taken over, on errors too, and released after the snapshot */
    void (*lender_release)(void *lender);           /* on any thread; NULL: nothing is to be released */
    const char *const *enabled;         /* names of connectors, NULL-terminated; NULL: all that are no fixtures */
    struct policy_set *policy;          /* a reference is taken */
    struct policy_set *candidate;       /* likewise; may be NULL */
    struct policy_entities *entities;   /* frozen, or NULL; a reference is taken */
    const char *entities_version;
    bool delegation_required;           /* users must have recorded a delegation to each agent: question.h */
    struct admission_rule budgets[BUDGETS];
    const struct tool_budget *tool_budgets;
    size_t n_tool_budgets;
};

/* E_CONFIG with the connector, tool and field in info: a declaration that contradicts itself, an unknown name. */
enum err registry_build(const struct registry_options *opt, struct registry **ret, struct errinfo *info);
struct registry *registry_ref(struct registry *r);
void registry_unref(struct registry *r);

/* A worker's reference. Its calls count themselves here, on its own thread: workers that do not meet at the registry's
 * count do not wait for each other's caches. */
struct registry_hold {
    struct registry *registry;
    unsigned users;                     /* the worker, while it is the worker's current one, and its calls */
};

/* Takes a reference for the worker, its first user; before the worker's thread starts, or on it. */
struct registry_hold *registry_hold(struct registry *r);
/* One user more, one fewer: on the worker's thread. The last to leave gives the reference back and frees the hold. */
struct registry_hold *registry_join(struct registry_hold *h);
void registry_leave(struct registry_hold *h);           /* accepts NULL */

const struct tool *registry_tool(const struct registry *r, struct str name);
const struct provider_conf *registry_provider(const struct registry *r, struct str name);
/* Takes rules of the limiter for the snapshot's budgets: those that were theirs before, where they are known. They are
 * given back when the snapshot ends. E_CONFIG: older snapshots that calls are still in have all that there are. */
enum err registry_take_rules(struct registry *r, struct budget_rules *rules, struct errinfo *info);
/* Sets every rule of the snapshot, which has taken them, in the limiter; what was used stays used. */
void registry_apply_limits(struct registry *r, struct rl *rl, ns_t now);
/* Makes the ids that the snapshot keeps of keys in the limiter: after rl_load(), which makes those before it void, and
 * before the first call. */
void registry_make_keys(struct registry *r, const struct rl *rl);
/* How many tools the linker put in: compared at start with what the build counted. */
size_t registry_linked_tools(void);

/* The JSON Schema (2020-12) of a declaration's fields, as a tree in `a`. */
struct json *fields_schema(struct arena *a, const struct field *fields, bool strict);

#endif
