/*
 * mrtr.c -- questions to clients of the stateless revision: the call ends, and comes back with answers and requestState
 *
 * requestState is "s1." and base64url of bytes that the vault sealed under the tenant's key, purpose "request-state".
 * Bound in, as the name the bytes belong to: "mrtr:" and the SHA-256 of user, agent, issuer, method, name of the tool
 * (prompt, resource) and the canonical arguments; whoever sends it with another of these has not got one.  Sealed
 * inside:
 *
 *   { "exp": ms since 1970, "round": 1.., "answers": { key: result }, "questions": { key: request }, "state": any }
 *
 * answers are those of earlier rounds, which clients do not send again; questions are the pending ones: an answer to
 * one must fit it, and answers to others are ignored.  Without a state, or where its questions were too large to be
 * carried, an answer waits (t->responses) until the body asks its question.  What a body asks is answered by what fits
 * it only (mrtr_answered).  It is not single use: what must happen once is guarded by the idempotency key.
 */
#include "base/crypto.h"
#include "json/schema.h"
#include "mcp/internal.h"

#define PREFIX  "s1."
#define PURPOSE STR("request-state")

/* ---- what it is bound to ----------------------------------------------------------------------------------------- */

static void add_piece(struct buf *b, struct str s)
{
    uint32_t n = (uint32_t)s.len;

    buf_add(b, &n, sizeof(n));
    buf_add_str(b, s);
}

/* The name the sealed bytes belong to: "mrtr:<64 hex digits>". */
static struct str bound_name(struct call *c, struct turn *t)
{
    struct buf b = BUF_INIT(CALL_ARENA_MAX), args = BUF_INIT(CALL_ARENA_MAX / 2), hex = BUF_INIT(80);
    struct json *given = json_get(t->msg.params, "arguments");
    uint8_t hash[SHA256_LEN];
    struct str ret = STR_NULL;

    if (json_is(given, JSON_OBJECT))
        json_canonical(&args, given);
    else
        buf_add_z(&args, "{}");
    add_piece(&b, c->caller->user);
    add_piece(&b, c->caller->agent);
    add_piece(&b, c->caller->issuer);
    add_piece(&b, t->msg.method);
    add_piece(&b, t->param_name);
    add_piece(&b, buf_str(&args));
    if (!b.overflow && !args.overflow) {
        sha256(b.p, b.len, hash);
        buf_add_z(&hex, "mrtr:");
        buf_add_hex(&hex, hash, sizeof(hash));
        ret = arena_str(&c->arena, buf_str(&hex));
    }
    buf_release(&b);
    buf_release(&args);
    buf_release(&hex);
    return ret;
}

/* ---- answers against questions ----------------------------------------------------------------------------------- */

static enum err form_fits(struct call *c, struct str key, const struct json *schema, const struct json *content)
{
    struct schema *compiled;
    struct schema_fault fault;
    enum err e;

    if (!json_is(content, JSON_OBJECT))
        return call_why(c, E_RPC_PARAMS, "the answer to \"%.*s\" is accepted but has no content", STR_ARG(key));
    if (!schema || schema_compile(schema, &compiled, NULL))
        return OK;                      /* a connector's schema that is none constrains nothing */
    e = schema_check(compiled, content, &c->arena, &fault);
    schema_free(compiled);
    if (!e)
        return OK;
    return call_why(c, E_RPC_PARAMS, "the answer to \"%.*s\" does not fit what was asked: %s: %s", STR_ARG(key),
                    fault.where, fault.what);
}

enum err answer_fits(struct call *c, struct str key, const struct json *question, const struct json *answer)
{
    struct str method = json_str(json_get(question, "method")), action;

    if (key.len > 64)
        key.len = 64;
    if (str_is(method, "elicitation/create")) {
        const struct json *schema = json_get(json_get(question, "params"), "requestedSchema");

        action = json_str(json_get(answer, "action"));
        if (!str_is(action, "accept") && !str_is(action, "decline") && !str_is(action, "cancel"))
            return call_why(c, E_RPC_PARAMS, "the answer to \"%.*s\" needs an action: accept, decline or cancel",
                            STR_ARG(key));
        return str_is(action, "accept") && schema ? form_fits(c, key, schema, json_get(answer, "content")) : OK;
    }
    if (str_is(method, "sampling/createMessage") &&
        (!json_is(json_get(answer, "role"), JSON_STRING) || !json_get(answer, "content") ||
         !json_is(json_get(answer, "model"), JSON_STRING)))
        return call_why(c, E_RPC_PARAMS, "the answer to \"%.*s\" needs role, content and model", STR_ARG(key));
    if (str_is(method, "roots/list") && !json_is(json_get(answer, "roots"), JSON_ARRAY))
        return call_why(c, E_RPC_PARAMS, "the answer to \"%.*s\" needs roots, an array", STR_ARG(key));
    return OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static enum err not_ours(struct call *c)
{
    return call_why(c, E_STATE_INVALID, "%s", err_text(E_STATE_INVALID));
}

static enum err unseal(struct call *c, struct turn *t, struct json **ret)
{
    struct vault *v = c->worker->engine->vault;
    struct str sealed, name = bound_name(c, t), plain;
    struct buf out = BUF_INIT(STATE_MAX);
    struct json_error where;
    struct errinfo why;
    enum err e;

    if (!str_starts(t->request_state, STR(PREFIX)) || t->request_state.len > 2 * STATE_MAX)
        return not_ours(c);
    if (b64url_decode(&c->arena, str_from(t->request_state, sizeof(PREFIX) - 1), &sealed) || !name.p)
        return not_ours(c);
    e = await_vault_tenant(v, c->caller->tenant, &why);
    if (e)
        return e;
    e = vault_unseal(v, c->caller->tenant, name, PURPOSE, sealed, &out);
    plain = arena_str(&c->arena, buf_str(&out));
    buf_release(&out);
    if (e || !plain.p || json_parse(&c->arena, plain, NULL, ret, &where))
        return not_ours(c);
    return OK;
}

static void take(struct call *c, const struct json *answer)
{
    json_set_key(&c->arena, c->answers, json_key(answer), json_copy(&c->arena, answer));
}

static enum err take_responses(struct call *c, struct turn *t, const struct json *questions)
{
    for (const struct json *it = json_first(questions); it; it = json_next(it)) {
        const struct json *answer = json_get_str(t->responses, json_key(it));
        enum err e = answer ? answer_fits(c, json_key(it), it, answer) : OK;

        if (e)
            return e;
        if (answer)
            take(c, answer);
    }
    if (questions)
        t->responses = NULL;
    return OK;
}

enum err await_mrtr_open(struct call *c, struct turn *t)
{
    struct json *state = NULL;
    int64_t exp = 0, round = 0;
    enum err e;

    if (t->request_state.p) {
        e = unseal(c, t, &state);
        if (e)
            return e;
        if (!json_int(json_get(state, "exp"), &exp) || exp < loop_wall_ms() ||
            !json_int(json_get(state, "round"), &round) || round < 1)
            return not_ours(c);
    }
    t->round = (unsigned)round;
    c->answers = json_object(&c->arena);
    for (const struct json *it = json_first(json_get(state, "answers")); it; it = json_next(it))
        take(c, it);
    c->state_in = json_get(state, "state");
    return take_responses(c, t, json_get(state, "questions"));
}

enum err mrtr_answered(struct call *c, struct turn *t)
{
    struct json *left = json_object(&c->arena);

    for (const struct json *q = json_first(c->questions); q; q = json_next(q)) {
        const struct json *answer = json_get_str(c->answers, json_key(q));
        bool late = !answer;
        enum err e;

        if (late)
            answer = json_get_str(t->responses, json_key(q));
        e = answer ? answer_fits(c, json_key(q), q, answer) : OK;
        if (e)
            return e;
        if (!answer)
            json_set_key(&c->arena, left, json_key(q), json_copy(&c->arena, q));
        else if (late)
            take(c, answer);
    }
    if (arena_overflowed(&c->arena))
        return E_CALL_TOO_LARGE;
    c->questions = left;
    return OK;
}

/* ---- sealing ----------------------------------------------------------------------------------------------------- */

static void write_state(struct buf *b, struct call *c, struct turn *t, bool questions)
{
    struct json *carried = c->state_out ? c->state_out : c->state_in;

    buf_addf(b, "{\"exp\":%lld,\"round\":%u,\"answers\":", (long long)loop_wall_ms() + STATE_TTL_MS, t->round + 1);
    if (c->answers)
        json_write(b, c->answers);
    else
        buf_add_z(b, "{}");
    if (questions && c->questions) {
        buf_add_z(b, ",\"questions\":");
        json_write(b, c->questions);
    }
    if (carried) {
        buf_add_z(b, ",\"state\":");
        json_write(b, carried);
    }
    buf_add_c(b, '}');
}

enum err await_mrtr_seal(struct call *c, struct turn *t)
{
    struct buf plain = BUF_INIT(STATE_MAX - VAULT_SEAL_OVERHEAD), sealed = BUF_INIT(STATE_MAX);
    struct buf text = BUF_INIT(2 * STATE_MAX);
    struct vault *v = c->worker->engine->vault;
    struct str name = bound_name(c, t);
    struct errinfo why;

    t->sealed = STR_NULL;
    write_state(&plain, c, t, true);
    if (plain.overflow) {               /* large forms: then the answers are not checked against them */
        buf_clear(&plain);
        write_state(&plain, c, t, false);
    }
    if (!plain.overflow && name.p && !await_vault_tenant(v, c->caller->tenant, &why) &&
        !vault_seal(v, c->caller->tenant, name, PURPOSE, buf_str(&plain), &sealed)) {
        buf_add_z(&text, PREFIX);
        buf_add_b64url(&text, buf_str(&sealed));
        t->sealed = arena_str(&c->arena, buf_str(&text));
    }
    bytes_wipe(plain.p, plain.len);
    buf_release(&plain);
    buf_release(&sealed);
    buf_release(&text);
    if (t->sealed.p)
        return OK;
    return call_why(c, E_CALL_TOO_LARGE, "what the tool keeps between questions is too large for a client to carry");
}

/* ---- capabilities ------------------------------------------------------------------------------------------------ */

static unsigned needs(const struct json *question, const char **ret_name)
{
    struct str method = json_str(json_get(question, "method"));

    if (str_is(method, "sampling/createMessage")) {
        *ret_name = "sampling";
        return CAN_SAMPLE;
    }
    if (str_is(method, "roots/list")) {
        *ret_name = "roots";
        return CAN_ROOTS;
    }
    *ret_name = "elicitation";
    return str_is(json_str(json_get(json_get(question, "params"), "mode")), "url") ? CAN_URL : CAN_FORM;
}

enum err mrtr_capable(struct call *c, unsigned can)
{
    struct json *required = json_object(&c->arena);
    const char *name, *missing = NULL;

    for (const struct json *q = json_first(c->questions); q; q = json_next(q)) {
        unsigned bit = needs(q, &name);
        struct json *detail;

        if (can & bit)
            continue;
        missing = name;
        detail = json_object(&c->arena);
        if (bit == CAN_URL)
            json_set(&c->arena, detail, "url", json_object(&c->arena));
        json_set(&c->arena, required, name, detail);
    }
    if (!missing)
        return OK;
    c->error_data = json_object(&c->arena);
    json_set(&c->arena, c->error_data, "requiredCapabilities", required);
    return call_why(c, E_CAPABILITY_MISSING, "this needs a client that declared %s", missing);
}
