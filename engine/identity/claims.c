/*
 * claims.c -- what a token says, once its signature has been believed
 *
 * Everything that is looked at must have its type; what is required must be there.  RFC 7519 4.1 for the registered
 * claims, RFC 9068 2.2 for access tokens (typ at+jwt: iss, exp, aud, sub, client_id, iat and jti are all required),
 * RFC 8693 4.1 for act: the outermost actor is the current one, the nested ones acted before it.
 */
#include "identity/internal.h"

#include "base/crypto.h"

#include <stdio.h>

enum { ISSUER_MAX = 512 };

static const int64_t time_max_s = 253402300799;         /* the last second of 9999 */

static enum err bad(struct errinfo *info, const char *claim)
{
    return err_set(info, E_TOKEN_CLAIMS, "the token's claim %s is missing or not acceptable", claim);
}

/* NumericDate: seconds, perhaps with a fraction. */
static bool seconds(const struct json *j, int64_t *ret)
{
    double d;

    if (json_int(j, ret))
        return *ret >= 0 && *ret <= time_max_s;
    if (!json_double(j, &d) || !(d >= 0 && d <= (double)time_max_s))
        return false;
    *ret = (int64_t)d;
    return true;
}

static enum err check_times(const struct issuer_set *set, const struct issuer *is, const struct json *c, wall_ms_t now,
    struct caller *d, struct errinfo *info)
{
    const struct json *nbf = json_get(c, "nbf");
    int64_t exp, iat, begin = 0, leeway = set->leeway / NS_PER_MS;

    if (!seconds(json_get(c, "exp"), &exp))
        return bad(info, "exp");
    if (!seconds(json_get(c, "iat"), &iat))
        return bad(info, "iat");
    if (nbf && !seconds(nbf, &begin))
        return bad(info, "nbf");
    if (exp <= iat || (exp - iat) > is->c.lifetime_max / NS_PER_S)
        return err_set(info, E_TOKEN_CLAIMS, "the token's lifetime (exp - iat) is not between 1 s and %lld s",
            (long long)(is->c.lifetime_max / NS_PER_S));
    if (now >= exp * 1000 + leeway)
        return err_set(info, E_TOKEN_EXPIRED, "the token expired %lld s ago", (long long)((now - exp * 1000) / 1000));
    if (iat * 1000 > now + leeway || begin * 1000 > now + leeway)
        return err_set(info, E_TOKEN_EXPIRED, "the token is not valid yet");
    d->issued = iat * 1000;
    d->expires = exp * 1000 + leeway;
    return OK;
}

static bool ours(const struct issuer *is, struct str aud)
{
    for (size_t i = 0; i < is->c.n_audiences; i++) {
        if (str_eq(is->c.audiences[i], aud))
            return true;
    }
    return false;
}

static enum err check_audience(const struct issuer *is, const struct json *aud, struct errinfo *info)
{
    bool found = false;

    if (json_is(aud, JSON_STRING)) {
        found = ours(is, json_str(aud));
    } else if (json_is(aud, JSON_ARRAY)) {
        for (const struct json *j = json_first(aud); j; j = json_next(j)) {
            if (!json_is(j, JSON_STRING))
                return bad(info, "aud");
            found = found || ours(is, json_str(j));
        }
    } else {
        return bad(info, "aud");
    }
    return found ? OK : err_set(info, E_TOKEN_AUDIENCE, "the token's aud does not name this server");
}

/* A claim that must be an acceptable name when it is there. */
static enum err optional_name(const struct json *c, const char *claim, struct str *ret, struct errinfo *info)
{
    const struct json *j = json_get(c, claim);

    *ret = json_str(j);
    return !j || principal_valid(*ret) ? OK : bad(info, claim);
}

static enum err named(const struct issuer *is, struct arena *a, struct str name, const char *claim, struct str *ret,
    struct errinfo *info)
{
    if (!principal_valid(name))
        return bad(info, claim);
    *ret = is->c.prefix.len ? arena_printf(a, "%.*s%.*s", STR_ARG(is->c.prefix), STR_ARG(name)) : name;
    return principal_valid(*ret) ? OK : bad(info, claim);
}

static enum err read_actors(const struct issuer *is, const struct json *act, struct arena *a,
    struct caller_actor actors[CALLER_ACTORS_MAX], struct caller *d, struct errinfo *info)
{
    enum err e = OK;

    for (; act && !e; act = json_get(act, "act")) {
        struct caller_actor *actor = &actors[d->n_actors];
        const struct json *iss = json_get(act, "iss");

        if (d->n_actors == CALLER_ACTORS_MAX)
            return err_set(info, E_TOKEN_CLAIMS, "the token's act is nested more than %d deep", CALLER_ACTORS_MAX);
        if (!json_is(act, JSON_OBJECT) || (iss && (str_empty(json_str(iss)) || json_str(iss).len > ISSUER_MAX)))
            return bad(info, "act");
        e = named(is, a, json_str(json_get(act, "sub")), "act.sub", &actor->name, info);
        actor->issuer = json_str(iss);
        d->n_actors++;
    }
    return e;
}

static enum err read_agent(const struct issuer *is, const struct jwt *t, struct arena *a,
    struct caller_actor actors[CALLER_ACTORS_MAX], struct caller *d, struct errinfo *info)
{
    const struct json *act = json_get(t->claims, "act");
    struct str client, azp, agent;
    enum err e = optional_name(t->claims, "client_id", &client, info);

    if (!e)
        e = optional_name(t->claims, "azp", &azp, info);
    if (e)
        return e;
    if (client.p && azp.p && !str_eq(client, azp))
        return err_set(info, E_TOKEN_CLAIMS, "the token's client_id and azp name different clients");
    if (!client.p && t->typ == JWT_TYP_ACCESS)
        return bad(info, "client_id");
    d->client_id = client.p ? client : azp;
    d->actors = actors;
    if (act)
        return read_actors(is, act, a, actors, d, info);

    agent = d->client_id.p ? d->client_id : is->c.agent_default;
    if (str_empty(agent))
        return err_set(info, E_TOKEN_CLAIMS, "the token names no agent: neither act nor client_id nor azp");
    d->n_actors = 1;
    return named(is, a, agent, "client_id", &actors[0].name, info);
}

static enum err add_scope(struct str scope, struct str scopes[CALLER_SCOPES_MAX], struct caller *d,
    struct errinfo *info)
{
    if (d->n_scopes == CALLER_SCOPES_MAX)
        return err_set(info, E_TOKEN_CLAIMS, "the token has more than %d scopes", CALLER_SCOPES_MAX);
    for (size_t i = 0; i < scope.len; i++) {
        if (scope.p[i] < 0x21 || scope.p[i] > 0x7e || scope.p[i] == '"' || scope.p[i] == '\\')
            return bad(info, "scope");
    }
    scopes[d->n_scopes++] = scope;
    return OK;
}

static enum err read_scopes(const struct json *j, struct str scopes[CALLER_SCOPES_MAX], struct caller *d,
    struct errinfo *info)
{
    enum err e = OK;

    d->scopes = scopes;
    if (!j)
        return OK;
    if (json_is(j, JSON_STRING)) {
        struct str head, rest = json_str(j);

        while (!e && !str_empty(rest)) {
            if (!str_cut(rest, ' ', &head, &rest)) {
                head = rest;
                rest = STR_NULL;
            }
            if (!str_empty(head))
                e = add_scope(head, scopes, d, info);
        }
        return e;
    }
    if (!json_is(j, JSON_ARRAY))
        return bad(info, "scope");
    for (j = json_first(j); j && !e; j = json_next(j))
        e = str_empty(json_str(j)) ? bad(info, "scope") : add_scope(json_str(j), scopes, d, info);
    return e;
}

static enum err read_groups(const struct issuer *is, const struct json *j, struct arena *a,
    struct str groups[CALLER_GROUPS_MAX], struct caller *d, struct errinfo *info)
{
    enum err e = OK;

    d->groups = groups;
    if (j && !json_is(j, JSON_ARRAY))
        return bad(info, "groups");
    for (j = json_first(j); j && !e; j = json_next(j)) {
        if (d->n_groups == CALLER_GROUPS_MAX)
            return err_set(info, E_TOKEN_CLAIMS, "the token names more than %d groups", CALLER_GROUPS_MAX);
        e = named(is, a, json_str(j), "groups", &groups[d->n_groups++], info);
    }
    return e;
}

static enum err read_tenant(const struct issuer_set *set, const struct issuer *is, const struct json *c,
    struct caller *d,
    struct errinfo *info)
{
    if (str_empty(is->c.tenant_claim)) {
        d->tenant = is->c.tenant;
        return OK;
    }
    d->tenant = json_str(json_get_str(c, is->c.tenant_claim));
    if (!tenant_valid(d->tenant))
        return err_set(info, E_TOKEN_CLAIMS, "the token's claim %.*s does not name a tenant",
            STR_ARG(is->c.tenant_claim));
    if (!issuer_speaks_for(set, is, d->tenant))
        return err_set(info, E_TOKEN_CLAIMS, "the token's issuer may not speak for the tenant it names");
    return OK;
}

static enum err read_user(const struct issuer *is, const struct jwt *t, struct arena *a, struct caller *d,
    struct errinfo *info)
{
    const struct json *jti = json_get(t->claims, "jti");
    struct str name = is->c.user_claim;
    char label[64];

    if (!principal_valid(json_str(json_get(t->claims, "sub"))))
        return bad(info, "sub");
    d->token_id = json_str(jti);
    if (jti ? !principal_valid(d->token_id) : t->typ == JWT_TYP_ACCESS)
        return bad(info, "jti");
    snprintf(label, sizeof(label), "%.*s", STR_ARG(name));
    return named(is, a, json_str(json_get_str(t->claims, name)), label, &d->user, info);
}

enum err claims_to_caller(const struct issuer_set *set, const struct issuer *is, const struct jwt *t, struct arena *a,
    wall_ms_t now, const uint8_t digest[32], struct caller **ret, struct errinfo *info)
{
    struct caller_actor actors[CALLER_ACTORS_MAX] = { 0 };
    struct str scopes[CALLER_SCOPES_MAX], groups[CALLER_GROUPS_MAX];
    struct caller draft = { .issuer = is->c.issuer, .auth = is->auth };
    enum err e;

    ASSERT(str_eq(json_str(json_get(t->claims, "iss")), is->c.issuer));
    if (t->typ != JWT_TYP_ACCESS && !(t->typ == JWT_TYP_PLAIN && is->c.typ_jwt_allowed))
        return err_set(info, E_TOKEN_CLAIMS, "the token's typ is not at+jwt%s", is->c.typ_jwt_allowed ? " or JWT" : "");
    if (json_get(t->claims, "cnf"))
        return err_set(info, E_TOKEN_CLAIMS, "the token is bound to a key (cnf) and cannot be used as a bearer token");
    e = check_audience(is, json_get(t->claims, "aud"), info);
    if (!e)
        e = check_times(set, is, t->claims, now, &draft, info);
    if (!e)
        e = read_user(is, t, a, &draft, info);
    if (!e)
        e = read_agent(is, t, a, actors, &draft, info);
    if (!e)
        e = read_scopes(json_get_str(t->claims, is->c.scope_claim), scopes, &draft, info);
    if (!e)
        e = read_groups(is, json_get_str(t->claims, is->c.groups_claim), a, groups, &draft, info);
    if (!e)
        e = read_tenant(set, is, t->claims, &draft, info);
    if (e)
        return e;
    for (int i = 0; i < 8; i++)
        snprintf(draft.fingerprint + 2 * i, 3, "%02x", digest[i]);
    *ret = caller_freeze(&draft);
    return OK;
}
