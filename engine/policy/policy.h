/*
 * policy.h -- Cedar policies: text -> program -> decision
 *
 * A policy set is parsed and compiled once, is immutable, counted, and may be used by many threads; reload means making
 * another one and swapping the pointer.  A decision reads the set, the entities and the request, and allocates nothing
 * but scratch from the request's arena.  The language and its error semantics are those of Cedar 4: a policy whose
 * condition errors is skipped and reported, forbid overrides permit, and nothing is allowed that no policy permits.
 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include "policy/entities.h"
#include "policy/value.h"

struct policy_set;

struct policy_source {
    struct str name;            /* a file name, for messages and ids; empty for a lone unnamed text */
    struct str text;            /* UTF-8; copied */
    /* a policy set, or one policy, in Cedar's JSON format (parse_json.c), instead of its syntax */
    bool json;
};

enum {
    POLICY_IDS_POSITIONAL = 1,  /* ignore @id: policies are policy0, policy1, ... through all sources */
};

/*
 * Parses and compiles n sources into one set with one reference. The id of a policy is the value of its @id
 * annotation if it has one that is not empty; else "<name>#<k>", k counting the policies of the file from 0; else,
 * without a name, "policy<k>"; in JSON, the name of its member. Templates decide nothing; their links do, as policies
 * of their own, and may be of templates in any of the sources. No sources, or empty ones: a set that denies everything.
 * Needs up to 1 MiB of stack: not for a task's. E_CONFIG: `info` holds file:line:column (in JSON, file: path) and what
 * was expected (two policies of one id are an error too); E_CALL_TOO_LARGE: more than 256 MiB of program.
 */
enum err policy_set_parse(const struct policy_source *sources, size_t n, unsigned flags, struct policy_set **ret,
    struct errinfo *info);
struct policy_set *policy_set_ref(struct policy_set *set);
/* Frees the set with its last reference; accepts NULL. Returns NULL. */
struct policy_set *policy_set_unref(struct policy_set *set);

/* SHA-256, in hex, of the names and tokens of the sources in order: white space and comments do not count. */
const char *policy_set_version(const struct policy_set *set);
size_t policy_set_count(const struct policy_set *set);                /* static policies and links */
size_t policy_set_template_count(const struct policy_set *set);

/* What is known of a policy, by its number (below policy_set_count). Valid as long as the set. */
struct policy_info {
    struct str id, file;
    struct str template;        /* of a link: the template's id; else empty */
    uint32_t line, column;      /* of a link: the template's; 0 in JSON */
    bool forbid;
    /* a permit with @approval: role says whose approval; may be empty: anyone's who may approve */
    bool approval;
    struct str role;
};
struct policy_info policy_set_info(const struct policy_set *set, size_t number);
struct str policy_set_id(const struct policy_set *set, size_t number);      /* policy_set_info().id */
/* The value of an annotation; { NULL, 0 } if the policy has none of that key. */
struct str policy_set_annotation(const struct policy_set *set, size_t number, const char *key);

/* How often a permit permits: @budget("calls/min=10, writes/hour=5"); the grammar is in budget.c. */
struct policy_budget {
    enum { POLICY_COUNTS_CALLS, POLICY_COUNTS_WRITES, POLICY_COUNTS_DESTROYS } what;
    int64_t window_s;           /* 60, 3600 or 86400 */
    int64_t amount;             /* 1 .. POLICY_BUDGET_MAX */
};
enum { POLICY_BUDGET_MAX = 1000000000 };
/* The items of a policy's budget, *ret_n of them: 0 for most. Valid as long as the set. */
const struct policy_budget *policy_set_budgets(const struct policy_set *set, size_t number, uint32_t *ret_n);
/* "calls", "min": as they are written. */
const char *policy_budget_what(const struct policy_budget *b);
const char *policy_budget_window(const struct policy_budget *b);

/* --- deciding ------------------------------------------------------------------------------------------------- */

struct policy_request {
    const struct policy_uid *principal, *action, *resource;
    struct policy_value context;            /* a record */
    const struct policy_layer *entities;    /* may be NULL: no entity exists */
    /*
     * Only what a condition builds or parses at run time takes memory here (at most some KiB for ordinary policies);
     * the owner clears it. When it overflows the decision fails as a whole.
     */
    struct arena *scratch;
    /*
     * For policy_could_allow(): which resource is not known, except perhaps that it is of resource_type (may be
     * empty).
     */
    bool resource_unknown;
    struct str resource_type;
    /* Called for every policy that was evaluated, if not NULL; for tests and explanations. The others are false. */
    void (*observe)(void *arg, uint32_t policy, int verdict);
    void *observe_arg;
};

enum policy_verdict { POLICY_IS_FALSE, POLICY_IS_TRUE, POLICY_IS_ERROR, POLICY_IS_UNKNOWN };

/* Why a policy's condition failed to evaluate. */
enum policy_fault {
    POLICY_FAULT_NONE,
    POLICY_FAULT_TYPE,          /* an operand of another type than the operation takes */
    POLICY_FAULT_OVERFLOW,      /* a result beyond 64 bits */
    POLICY_FAULT_NO_ENTITY,     /* an attribute or tag of an entity that does not exist */
    POLICY_FAULT_NO_ATTR,
    POLICY_FAULT_NO_TAG,
    POLICY_FAULT_ARITY,         /* an extension function called with the wrong number of arguments */
    POLICY_FAULT_FORMAT,        /* text that is no decimal, address, datetime or duration */
};

const char *policy_fault_text(enum policy_fault fault);

enum { POLICY_NAMED_MAX = 16, POLICY_ROLES_MAX = 4, POLICY_BUDGETS_MAX = 8 };

struct policy_decision {
    enum { POLICY_DENY, POLICY_ALLOW, POLICY_NEEDS_APPROVAL } effect;
    /*
     * The policies that decided, by number: for ALLOW and NEEDS_APPROVAL the permits that hold, for DENY the forbids
     * that hold (none: no permit did). n_reasons counts all of them, reasons[] holds the lowest POLICY_NAMED_MAX,
     * ascending.
     */
    uint32_t n_reasons;
    uint32_t reasons[POLICY_NAMED_MAX];
    /*
     * The policies that failed to evaluate, likewise, but forbids before permits, and how many of them are forbids:
     * one that errs does not forbid.
     */
    uint32_t n_errors, n_forbid_errors;
    struct policy_error {
        uint32_t policy;
        enum policy_fault fault;
        uint32_t line, column;
    } errors[POLICY_NAMED_MAX];
    /*
     * NEEDS_APPROVAL: only permits with @approval hold; the approval of any one of these roles is enough. The first
     * distinct ones of reasons[]. They live as long as the set.
     */
    uint32_t n_roles;
    struct str roles[POLICY_ROLES_MAX];
    /*
     * ALLOW: only permits with @budget hold (beside such as need an approval): the call counts in the budget of each.
     * A permit without one that also holds sets it free: 0. n_budgets counts all, budgets[] holds the lowest
     * POLICY_BUDGETS_MAX, ascending.
     */
    uint32_t n_budgets;
    uint32_t budgets[POLICY_BUDGETS_MAX];
};

/*
 * Decides a request for one principal. E_CALL_TOO_LARGE: scratch overflowed (or the context is POLICY_NONE, which says
 * that building it did); there is no decision then, and the caller must refuse. No heap, no waiting; thread safe.
 */
enum err policy_decide(const struct policy_set *set, const struct policy_request *request, struct policy_decision *ret);

/*
 * The same for the sides of a call: n requests of one action, resource and layer (asserted), which are looked up once.
 * *ret_n: how many were decided, all of them unless it fails.
 */
enum err policy_decide_sides(const struct policy_set *set, const struct policy_request *requests, size_t n,
    struct policy_decision *ret, size_t *ret_n);

/*
 * Could this request be allowed (or await approval), if what is unknown in it took some value? Unknown are the
 * resource, if resource_unknown says so, and whatever policy_unknown() stands for in the context. Never false when
 * some values would be allowed; may be true when none would. Scratch overflow answers true.
 */
bool policy_could_allow(const struct policy_set *set, const struct policy_request *request);

#endif
