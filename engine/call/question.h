/*
 * question.h -- what policies are asked: who wants to do what, with which arguments; a value, apart from any call
 *
 * DECIDE asks it of a call; lists ask it without arguments; the command line asks it again of calls in the journal, and
 * of calls that nobody made.  All of them are the same question, so that one answer explains the other.
 *
 *   sides       the user (on whose behalf), the agent (who acts), then every earlier actor of the delegation chain
 *   principal   User::"<user>" in its groups (Group::"<name>", from the token) and in Tenant::"<tenant>";
 *               Agent::"<name>" in Tenant::"<tenant>"
 *   action      Action::"<tool>" in Action::"<provider>" and in Action::"reads", "writes" or "destroys"
 *   resource    <Type>::"<id>" in Tenant::"<tenant>", as the tool names it: Mailbox::"alice@example.com"
 *   context     args (the snapshot), side ("user", "agent", "delegate"), user, agent and tenant (names), delegator and
 *               actor (the entities of user and agent), auth, scopes, time; and delegation, if the user has recorded
 *               one for the agent at hand
 *
 * What the operator's entities file says of one of these, or of a group of the token (attributes, groups), is added to
 * it, unless it says that the entity is in another tenant, itself or by what it is in.  Of an entity that is in several
 * tenants, it counts in each, but for the others and what it is in through entries that count in those only.
 */
#ifndef CALL_QUESTION_H
#define CALL_QUESTION_H

#include "connectors/connector.h"
#include "identity/identity.h"
#include "policy/policy.h"
#include "vault/vault.h"

enum { QUESTION_SIDES_MAX = 1 + CALLER_ACTORS_MAX };

struct question {
    struct str tenant, user, auth;
    const struct caller_actor *actors;      /* [0] the agent; then the prior delegations, newest first */
    unsigned n_actors;
    uint64_t tenant_hash, user_hash, agent_hash;        /* hash_bytes() of the names; 0: not known */
    const struct str *groups, *scopes;
    unsigned n_groups, n_scopes;
    const struct vault_delegation *const *delegations;  /* the user's, for each actor, or NULL; NULL: none at all */
    const struct policy_entity *action;     /* of question_action() */
    struct str resource_type, resource_id;  /* id { NULL, 0 }: not known */
    uint64_t resource_type_hash;            /* hash_bytes() of it; 0: not known */
    struct policy_value args;               /* a record, or policy_unknown() */
    wall_ms_t time;                         /* -1: not known */
};

struct question_side {
    const char *name;                       /* "user", "agent", "delegate" */
    const char *type;                       /* "User", "Agent" */
    struct str who;
};

static inline unsigned question_sides(const struct question *q) { return 1 + q->n_actors; }
struct question_side question_side(const struct question *q, unsigned i);

/* The question as policies see it, side by side. Refers to the question; all else is in the arena. */
struct asked {
    unsigned n;
    struct policy_uid tenant, resource, principals[QUESTION_SIDES_MAX];
    struct policy_layer layer;
    const struct policy_entity *plain;      /* one that is in the tenant, and of which no more is known; NULL: none */
    struct policy_entity in_tenant;         /* such a one, which nothing else is above, ... */
    struct policy_ancestor above;           /* ... and its only ancestor */
    struct policy_request requests[QUESTION_SIDES_MAX];
};

/* base: the operator's entities, frozen, or NULL. `ret` must stay where it is. E_CALL_TOO_LARGE. */
enum err question_ask(const struct question *q, const struct policy_entities *base, struct arena *a,
                      struct asked *ret);

/* What all sides together come to: each must permit, and a forbid that failed to evaluate refuses, too. */
enum decided { DECIDED_DENY, DECIDED_ALLOW, DECIDED_NEEDS_APPROVAL };
const char *decided_name(enum decided d);       /* "deny", "allow", "needs_approval" */
/* A denial, or a forbid that could not be evaluated. */
bool side_refuses(const struct policy_decision *d);
enum decided side_decided(const struct policy_decision *d);
/* Has the user recorded a delegation to that actor which covers the action? */
bool question_delegated(const struct question *q, unsigned actor);
/* sides: of all sides of the question. delegated: the user must have recorded delegations that cover the action. */
enum decided question_decided(const struct question *q, const struct policy_decision *sides, bool delegated);

/*
 * Action::"<name>" in Action::"<group>" and, unless effect is 0, in its effect, and in what `base` says. Names and
 * arena must outlive it. E_CALL_TOO_LARGE.
 */
enum err question_action(const struct policy_entities *base, struct arena *a, struct str name, struct str group,
                         enum effect effect, struct policy_entity *ret);
const char *effect_name(enum effect e);     /* "reads", "writes", "destroys" */

/* Does what the user has recorded allow its agent this action? No actions named: all. NULL: false. */
bool delegation_covers(const struct vault_delegation *d, const struct policy_entity *action);

#endif
