/*
 * record.c -- the records of a call: what they say, member by member
 *
 * INTENT (only calls that are going to act)
 *   call, method, tool, tool_digest, provider, effect, transport, peer
 *   tenant, user, agent, delegates [..], groups [..], scopes [..], auth, issuer, client,
 *   token (fingerprint)                                                                  who
 *   args_digest, args (sealed, base64; left out when configured so or too large)         what
 *   resource "Type::id", resource_type, account, key
 *   time (of the decision, ms), policy and entities (versions),                          why
 *   decisions [{side, who, effect, policies [..], errors [{policy, why, line, column}]}]: every side, refused or not,
 *   candidate {policy (version), decision, policies [..]}: what the candidate policies would have decided otherwise
 *   delegations [{agent, id, covers, actions [..], since, expires}]: what the user has recorded for the actors
 *
 * With the sealed arguments that is all DECIDE had: `sluice policy explain` and `replay` ask the same question again.
 *
 * OUTCOME (every tool call that was understood)
 *   call, outcome, error, why, detail, ms, exchanges, effects, status
 *   replay_of: the call whose recorded outcome was answered again
 *   result (sealed, base64): only with a key, for replays
 *   and, when there was no INTENT, everything of INTENT that is known by then
 *
 * REQUEST (everything else: lists, discovery, what could not be decoded or identified)
 *   call, method, outcome, error, why, ms, bytes, transport, peer, and who is asking as far as it is known
 *   requests, time: how many more of a second that began then (ms) were refused, and have no record of their own
 *
 * `why` is the text the client was given, as long as it cannot quote arguments or the provider; then it is the error's
 * own text, and what was said is in `detail` (sealed, base64).  Arguments and results are sealed under the tenant's key
 * before they are hashed into the chain, so destroying the key erases them and breaks nothing.
 */
#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "call/internal.h"

enum { SEALED_MAX = 64 * 1024, RESULT_MAX = 256 * 1024, REFUSALS_MAX = 50 };

static bool refusal_alone(struct worker *w);

/* ---- a little writer of flat JSON objects ------------------------------------------------------------------------ */

struct rec {
    struct buf b;
};

/* A member's key and what stands around it, as one text of known length. Keys are ours: they need no escapes. */
#define KEY(key) STR(",\"" key "\":")

/* Writes the key, and answers where the value goes, for which n bytes are reserved; NULL: no room.
 * Inlined, as what calls it: then the key is stored, not copied. */
static inline char *rec_room(struct rec *r, struct str key, size_t n)
{
    char *to = buf_reserve(&r->b, key.len + n);

    if (!to)
        return NULL;
    memcpy(to, key.p, key.len);
    if (r->b.len == 0)
        *to = '{';
    r->b.len += key.len;
    return to + key.len;
}

static inline void rec_key(struct rec *r, struct str key)
{
    rec_room(r, key, 0);
}

/* Members that were put together before: rec_kept(). */
static void rec_add(struct rec *r, struct str members)
{
    rec_room(r, members, 0);
}

static inline void rec_str(struct rec *r, struct str key, struct str v)
{
    if (v.len == 0)
        return;
    rec_key(r, key);
    buf_add_json_str(&r->b, v);
}

static inline void rec_z(struct rec *r, struct str key, const char *v)
{
    rec_str(r, key, str_of(v));
}

/* A word of our own, such as an id, a digest or a name in a table: nothing in it needs an escape. */
static inline void rec_word(struct rec *r, struct str key, const char *v)
{
    size_t n = strlen(v);
    char *to = n > 0 ? rec_room(r, key, n + 2) : NULL;

    if (!to)
        return;
    to[0] = '"';
    memcpy(to + 1, v, n);
    to[n + 1] = '"';
    r->b.len += n + 2;
}

static inline void rec_int(struct rec *r, struct str key, int64_t v)
{
    rec_key(r, key);
    buf_add_i64(&r->b, v);
}

/* ---- sealing ----------------------------------------------------------------------------------------------------- */

/* Behind what `to` holds, in base64. */
static bool seal(struct call *c, struct str purpose, struct str plain, struct buf *to)
{
    size_t from = to->len;

    if (vault_seal_with(c->keys, str_of(c->id.z), purpose, plain, to))
        return false;
    buf_b64_rest(to, from);
    return true;
}

/* What is sealed, or nothing: a record without it is better than no record. */
static void rec_sealed(struct rec *r, struct str key, struct call *c, struct str purpose, struct str plain)
{
    size_t before = r->b.len;

    rec_key(r, key);
    buf_add_c(&r->b, '"');
    if (seal(c, purpose, plain, &r->b))
        buf_add_c(&r->b, '"');
    else
        r->b.len = before;
}

struct str call_seal_result(struct call *c)
{
    struct buf plain = BUF_INIT(RESULT_MAX), sealed = BUF_INIT(2 * RESULT_MAX);
    struct json *kept = json_object(&c->arena);
    struct str ret = STR_NULL;

    if (c->outcome != OUTCOME_DONE || c->sealed_result.len)
        return c->sealed_result;
    if (c->structured)
        json_set(&c->arena, kept, "structured", json_copy(&c->arena, c->structured));
    if (c->content)
        json_set(&c->arena, kept, "content", json_copy(&c->arena, c->content));
    json_write(&plain, kept);
    if (!plain.overflow && !arena_overflowed(&c->arena) && seal(c, STR("result"), buf_str(&plain), &sealed))
        ret = sealed.overflow ? STR_NULL : arena_str(&c->arena, buf_str(&sealed));
    buf_release(&plain);
    buf_release(&sealed);
    c->sealed_result = ret;
    return ret;
}

enum err call_unseal_result(struct call *c, struct str sealed)
{
    struct buf plain = BUF_INIT(RESULT_MAX + 256);
    struct json *kept = NULL;
    struct json_error where;
    struct str bytes;

    if (sealed.len == 0)
        return call_why(c, E_NO_RESULT,
                        "this call was made before (%s) and is done; its result was too large to be kept",
                        c->replay_of);
    if (b64_decode(&c->arena, sealed, &bytes) ||
        vault_unseal(c->worker->engine->vault, c->caller->tenant, str_of(c->replay_of), STR("result"), bytes, &plain)) {
        buf_release(&plain);
        return call_why(c, E_NO_RESULT,
                        "this call was made before (%s) and is done; its recorded result can no longer be read",
                        c->replay_of);
    }
    bytes = arena_str(&c->arena, buf_str(&plain));
    buf_release(&plain);
    if (json_parse(&c->arena, bytes, NULL, &kept, &where))
        return E_INTERNAL;
    c->structured = json_get(kept, "structured");
    c->content = json_get(kept, "content");
    return OK;
}

/* ---- members ----------------------------------------------------------------------------------------------------- */

static void rec_list(struct rec *r, struct str key, const struct str *v, unsigned n)
{
    if (n == 0)
        return;
    rec_key(r, key);
    buf_add_json_strs(&r->b, v, n);
}

/* Behind other members. */
static void rec_who(struct rec *r, const struct caller *w)
{
    if (w && w->members.len)
        buf_add_str(&r->b, w->members);
    else if (w)
        caller_members(w, &r->b);
}

static void rec_reasons(struct rec *r, const struct call *c, const struct policy_decision *d)
{
    rec_key(r, KEY("policies"));
    buf_add_c(&r->b, '[');
    for (uint32_t i = 0; i < d->n_reasons && i < POLICY_NAMED_MAX; i++) {
        if (i)
            buf_add_c(&r->b, ',');
        buf_add_json_str(&r->b, policy_set_id(c->registry->policy, d->reasons[i]));
    }
    buf_add_c(&r->b, ']');
    if (d->n_reasons > POLICY_NAMED_MAX)
        buf_addf(&r->b, ",\"policies_more\":%u", d->n_reasons - POLICY_NAMED_MAX);
}

static void rec_errors(struct rec *r, const struct call *c, const struct policy_decision *d)
{
    for (uint32_t i = 0; i < d->n_errors && i < POLICY_NAMED_MAX; i++) {
        const struct policy_error *e = &d->errors[i];

        buf_add_z(&r->b, i ? ",{\"policy\":" : ",\"errors\":[{\"policy\":");
        buf_add_json_str(&r->b, policy_set_info(c->registry->policy, e->policy).id);
        buf_addf(&r->b, ",\"why\":\"%s\",\"line\":%u,\"column\":%u}", policy_fault_text(e->fault), e->line, e->column);
    }
    if (d->n_errors)
        buf_add_c(&r->b, ']');
    if (d->n_errors > POLICY_NAMED_MAX)
        buf_addf(&r->b, ",\"errors_more\":%u", d->n_errors - POLICY_NAMED_MAX);
}

/* What an intent says about who asks and why, at most: names that JSON escapes may grow sixfold. */
size_t call_record_room(const struct call *c)
{
    const struct policy_set *set = c->registry->policy;
    size_t n = 0;

    for (unsigned i = 0; i < c->caller->n_groups; i++)
        n += c->caller->groups[i].len + 1;
    for (unsigned i = 0; i < c->caller->n_scopes; i++)
        n += c->caller->scopes[i].len + 1;
    for (unsigned i = 0; i < c->n_sides; i++) {
        const struct policy_decision *d = &c->sides[i];

        n += 32 + c->asked->principals[i].id.len;
        for (uint32_t k = 0; k < d->n_reasons && k < POLICY_NAMED_MAX; k++)
            n += policy_set_id(set, d->reasons[k]).len + 1;
        for (uint32_t k = 0; k < d->n_errors && k < POLICY_NAMED_MAX; k++)
            n += policy_set_info(set, d->errors[k].policy).id.len + 24;
    }
    n += c->flip.flipped ? 32 : 0;
    for (unsigned i = 0; i < c->flip.n; i++)
        n += 1 + policy_set_info(c->registry->candidate, c->flip.policies[i]).id.len;
    for (unsigned i = 0; c->delegations && i < c->caller->n_actors; i++)
        for (unsigned k = 0; c->delegations[i] && k < c->delegations[i]->n_actions; k++)
            n += c->delegations[i]->actions[k].len + 1;
    return 6 * n;
}

static void rec_sides(struct rec *r, const struct call *c)
{
    static const struct str sides[] = {
        STR("[{\"side\":\"user\",\"who\":"),
        STR(",{\"side\":\"agent\",\"who\":"),
        STR(",{\"side\":\"delegate\",\"who\":"),
    };

    rec_key(r, KEY("decisions"));
    for (unsigned i = 0; i < c->n_sides; i++) {
        const struct policy_decision *d = &c->sides[i];

        buf_add_str(&r->b, sides[i < 2 ? i : 2]);
        buf_add_json_str(&r->b, c->asked->principals[i].id);
        rec_word(r, KEY("effect"), decided_name((enum decided)d->effect));
        rec_reasons(r, c, d);
        rec_errors(r, c, d);
        buf_add_c(&r->b, '}');
    }
    buf_add_c(&r->b, ']');
}

static void rec_delegation(struct rec *r, const struct vault_delegation *d, const struct policy_entity *action)
{
    struct rec one = { BUF_INIT(JOURNAL_PAYLOAD_MAX) };

    rec_str(&one, KEY("agent"), d->agent);
    rec_str(&one, KEY("id"), d->id);
    rec_key(&one, KEY("covers"));
    buf_add_z(&one.b, delegation_covers(d, action) ? "true" : "false");
    rec_list(&one, KEY("actions"), d->actions, d->n_actions);
    rec_int(&one, KEY("since"), d->since);
    if (d->expires != INT64_MAX)
        rec_int(&one, KEY("expires"), d->expires);
    buf_add_c(&one.b, '}');
    buf_add_str(&r->b, buf_str(&one.b));
    buf_release(&one.b);
}

static void rec_delegations(struct rec *r, const struct call *c)
{
    bool any = false;

    for (unsigned i = 0; c->delegations && i < c->caller->n_actors; i++) {
        if (!c->delegations[i])
            continue;
        if (!any)
            rec_key(r, KEY("delegations"));
        buf_add_c(&r->b, any ? ',' : '[');
        rec_delegation(r, c->delegations[i], c->asked->layer.items[1]);
        any = true;
    }
    if (any)
        buf_add_c(&r->b, ']');
    if (c->registry->delegation_required) {
        rec_key(r, KEY("delegation_required"));
        buf_add_z(&r->b, "true");
    }
}

static void rec_candidate(struct rec *r, const struct call *c)
{
    if (!c->flip.flipped)
        return;
    rec_key(r, KEY("candidate"));
    buf_addf(&r->b, "{\"policy\":\"%s\",\"decision\":\"%s\",\"policies\":[", policy_set_version(c->registry->candidate),
             decided_name((enum decided)c->flip.now));
    for (unsigned i = 0; i < c->flip.n; i++) {
        buf_add_z(&r->b, i ? "," : "");
        buf_add_json_str(&r->b, policy_set_info(c->registry->candidate, c->flip.policies[i]).id);
    }
    buf_add_z(&r->b, "]}");
}

static void rec_decisions(struct rec *r, const struct call *c)
{
    if (c->n_sides == 0)
        return;
    rec_int(r, KEY("time"), c->began_wall);
    rec_add(r, c->registry->recorded);
    rec_sides(r, c);
    rec_candidate(r, c);
    rec_delegations(r, c);
}

/* The members of r as they stand in a record behind others. */
static struct str rec_kept(struct rec *r, struct arena *a)
{
    struct str all = buf_str(&r->b);
    char *p = arena_z(a, all);

    if (p && all.len)
        *p = ',';
    buf_release(&r->b);
    return str_n(p, p ? all.len : 0);
}

struct tool_recorded call_recorded_tool(struct arena *a, const struct tool *t)
{
    struct rec r = { BUF_INIT(JOURNAL_PAYLOAD_MAX) };
    struct tool_recorded ret;

    rec_str(&r, KEY("tool"), t->name);
    rec_word(&r, KEY("tool_digest"), t->digest);
    rec_z(&r, KEY("provider"), t->provider->decl->name);
    rec_word(&r, KEY("effect"), effect_name(t->decl->effect));
    ret.members = rec_kept(&r, a);
    rec_key(&r, KEY("resource"));
    buf_add_c(&r.b, '"');
    buf_add_json_part(&r.b, str_of(t->resource_type));
    buf_add_z(&r.b, "::");
    ret.resource = rec_kept(&r, a);
    rec_z(&r, KEY("resource_type"), t->resource_type);
    ret.resource_type = rec_kept(&r, a);
    return ret;
}

struct str call_recorded_versions(struct arena *a, const struct registry *reg)
{
    struct rec r = { BUF_INIT(JOURNAL_PAYLOAD_MAX) };

    rec_word(&r, KEY("policy"), policy_set_version(reg->policy));
    rec_word(&r, KEY("entities"), reg->entities_version);
    return rec_kept(&r, a);
}

static void rec_what(struct rec *r, struct call *c)
{
    rec_str(r, KEY("method"), c->method);
    rec_word(r, KEY("transport"), c->front->transport);
    rec_z(r, KEY("peer"), c->peer);
    rec_who(r, c->caller);
    if (!c->tool) {
        rec_str(r, KEY("tool"), c->tool_name.len > 256 ? str_n(c->tool_name.p, 256) : c->tool_name);
        return;
    }
    rec_add(r, c->tool->recorded.members);
    if (c->resource_type.len) {
        rec_add(r, c->tool->recorded.resource);
        buf_add_json_part(&r->b, c->resource_id.len > 512 ? str_n(c->resource_id.p, 512) : c->resource_id);
        buf_add_c(&r->b, '"');
        rec_add(r, c->tool->recorded.resource_type);
    }
    rec_str(r, KEY("account"), c->account.label);
    rec_str(r, KEY("key"), c->key);
    rec_word(r, KEY("args_digest"), c->digest);
    if (c->worker->engine->opt.record_arguments && c->frozen.len && c->frozen.len <= SEALED_MAX)
        rec_sealed(r, KEY("args"), c, STR("args"), c->frozen);
    rec_decisions(r, c);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static enum err rec_append(struct call *c, enum journal_type type, struct rec *r, uint64_t *ret_seq)
{
    enum err e;

    buf_add_c(&r->b, '}');
    e = r->b.overflow ? E_CALL_TOO_LARGE : journal_append(c->worker->lane, type, buf_str(&r->b), &c->room, ret_seq);
    journal_draft_done(c->worker->lane, &r->b);
    return e;
}

enum err await_record_intent(struct call *c)
{
    struct rec r = { journal_draft(c->worker->lane) };
    uint64_t seq;
    enum err e;

    rec_word(&r, KEY("call"), c->id.z);
    rec_what(&r, c);
    e = rec_append(c, JOURNAL_INTENT, &r, &seq);
    if (e || c->tool->decl->effect == EFFECT_READS)
        return e;
    e = await_journal_commit(c->worker->lane, seq, NS_NEVER);
    c->intended = true;     /* the record stands, or may yet: its outcome, behind it, will say that nothing was sent */
    return e;
}

/* Once the arguments are known the text may quote them, or the provider: then it is sealed like them. A decision's text
 * names policies and who was decided for, which the record says anyway; that of a limit or a budget names it. */
static void rec_why(struct rec *r, struct call *c)
{
    bool quotes = c->frozen.p && c->err != E_POLICY_DENIED && c->err != E_APPROVAL_NEEDED && c->err != E_RATE_LIMITED;

    rec_z(r, KEY("why"), quotes || !*call_said(c) ? err_text(c->err) : call_said(c));
    if (quotes && *call_said(c))
        rec_sealed(r, KEY("detail"), c, STR("detail"), str_of(call_said(c)));
}

static void rec_outcome(struct rec *r, struct call *c)
{
    rec_word(r, KEY("outcome"), outcome_name(c->outcome));
    if (c->err) {
        rec_word(r, KEY("error"), err_name(c->err));
        rec_why(r, c);
    }
    rec_int(r, KEY("ms"), (loop_now() - c->began) / NS_PER_MS);
}

static enum err outcome_append(struct call *c, bool call, uint64_t *ret_seq)
{
    struct rec r = { journal_draft(c->worker->lane) };

    rec_word(&r, KEY("call"), c->id.z);
    if (!c->intended)
        rec_what(&r, c);
    rec_outcome(&r, c);
    if (call) {
        rec_int(&r, KEY("exchanges"), c->exchanges);
        if (c->effects_sent)
            rec_int(&r, KEY("effects"), c->effects_done);
        if (c->last_status)
            rec_int(&r, KEY("status"), c->last_status);
        if (c->replayed)
            rec_z(&r, KEY("replay_of"), c->replay_of);
        rec_str(&r, KEY("result"), c->sealed_result);
    } else {
        rec_int(&r, KEY("bytes"), (int64_t)c->bytes_in);
    }
    return rec_append(c, call ? JOURNAL_OUTCOME : JOURNAL_REQUEST, &r, ret_seq);
}

/*
 * Nothing is said before it is on record and on disk.  An operator may take a read out: nothing happened that could
 * be lost or done twice, and what is at stake is the record of who read what in the last moments before a crash.
 * Refusals are not reads.
 */
static bool may_answer_early(const struct call *c)
{
    return c->intended && c->tool->decl->effect == EFFECT_READS && c->worker->engine->opt.answer_reads_early;
}

enum err call_record_outcome(struct call *c, uint64_t *ret_seq)
{
    bool call = c->kind == CALL_TOOL && c->caller != NULL;
    uint64_t seq;
    enum err e;

    *ret_seq = 0;
    if ((!c->caller || c->put_off) && !refusal_alone(c->worker))
        return OK;
    e = outcome_append(c, call, &seq);

    if (e && c->sealed_result.len) {      /* there may be no room for the result: the outcome itself was reserved for */
        c->sealed_result = STR_NULL;
        e = outcome_append(c, call, &seq);
    }
    if (!e && !may_answer_early(c))
        *ret_seq = seq;
    return e;
}

/* ---- what nobody in particular was refused ----------------------------------------------------------------------- */

/*
 * Whoever reaches the port can make refused requests, and each record takes disk for good; of calls that an overloaded
 * worker puts off there are many, and it has no time for them.  So per worker and second the first REFUSALS_MAX are
 * recorded one by one and the others, when it is over, as one record that counts them: nothing goes unrecorded, and the
 * journal cannot be filled from outside.
 */
static void refusals_flush(struct worker *w)
{
    struct buf b = BUF_INIT(1024);
    ns_t ago = loop_now() - w->refusals.second * NS_PER_S;
    uint64_t seq;

    timer_clear(&w->refusals.end);
    if (w->refusals.skipped) {
        buf_addf(&b,
                 "{\"outcome\":\"refused\",\"requests\":%u,\"time\":%lld,\"why\":\"more than %d requests of nobody "
                 "known, or put off, in one second\"}",
                 w->refusals.skipped, (long long)(loop_wall_ms() - ago / NS_PER_MS), REFUSALS_MAX);
        if (journal_append(w->lane, JOURNAL_REQUEST, buf_str(&b), NULL, &seq))
            LOG_ERROR("refused requests could not be recorded", LOG_I("requests", w->refusals.skipped));
        buf_release(&b);
    }
    w->refusals = (struct refusals){ .second = loop_now() / NS_PER_S };
}

static void refusals_end(struct timer *t)
{
    refusals_flush(CONTAINER_OF(t, struct worker, refusals.end));
}

static bool refusal_alone(struct worker *w)
{
    if (w->refusals.second != loop_now() / NS_PER_S)
        refusals_flush(w);
    if (w->refusals.recorded < REFUSALS_MAX) {
        w->refusals.recorded++;
        return true;
    }
    if (w->refusals.skipped++ == 0)
        timer_set(&w->refusals.end, (w->refusals.second + 1) * NS_PER_S, refusals_end);
    return false;
}

void call_record_refusals(struct worker *w)
{
    refusals_flush(w);
}

void call_record_bad_request(struct worker *w, enum err e, const char *why, const char *peer, size_t bytes)
{
    struct id id = id_new("call");
    struct rec r = { BUF_INIT(4096) };
    uint64_t seq;

    if (!refusal_alone(w))
        return;
    rec_word(&r, KEY("call"), id.z);
    rec_word(&r, KEY("transport"), "http");
    rec_z(&r, KEY("peer"), peer);
    rec_word(&r, KEY("outcome"), "refused");
    rec_word(&r, KEY("error"), err_name(e));
    rec_z(&r, KEY("why"), why);
    rec_int(&r, KEY("bytes"), (int64_t)bytes);
    buf_add_c(&r.b, '}');
    if (journal_append(w->lane, JOURNAL_REQUEST, buf_str(&r.b), NULL, &seq))
        LOG_ERROR("a refused request could not be recorded", LOG_S("peer", peer), LOG_S("error", err_name(e)));
    buf_release(&r.b);
}
