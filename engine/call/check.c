/*
 * check.c -- CHECK: the arguments fit, and from here on they are a snapshot; and the declared result, likewise
 *
 * The schema made from the declaration is what clients see and what is checked.  Three things a schema does not say are
 * checked here too, because bodies rely on them: no NUL in any string, no control characters in one-line fields, and
 * addresses and times that parse.
 */
#include "base/check.h"
#include "base/crypto.h"
#include "call/internal.h"
#include "json/schema.h"

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static bool has_nul(const struct json *j)
{
    struct str s = json_str(j);

    if (json_is(j, JSON_STRING))
        return s.len && memchr(s.p, 0, s.len);
    for (const struct json *it = json_first(j); it; it = json_next(it))
        if (has_nul(it))
            return true;
    return false;
}

static bool one_line(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
    return true;
}

/* local@domain, visible ASCII, no quoting: what every provider takes, and nothing that could open a second header. */
static bool is_email(struct str s)
{
    struct str local, domain;

    if (s.len > 254 || !str_cut(s, '@', &local, &domain) || local.len == 0 || local.len > 64 || domain.len < 3)
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] <= 0x20 || s.p[i] >= 0x7f || strchr("()<>,;:\\\"[]", s.p[i]))
            return false;
    return !memchr(domain.p, '@', domain.len) && memchr(domain.p, '.', domain.len) && domain.p[0] != '.' &&
           domain.p[domain.len - 1] != '.';
}

/* What is wrong with a value of this type beyond its schema; NULL: nothing. */
static const char *value_fault(enum field_type type, const struct json *j)
{
    wall_ms_t ignored;

    switch (type) {
    case T_STRING:
        return one_line(json_str(j)) ? NULL : "contains control characters";
    case T_EMAIL:
        return is_email(json_str(j)) ? NULL : "is not an e-mail address";
    case T_TIME:
        return wall_parse(json_str(j), &ignored)
                   ? "is not a time: write RFC 3339 with an offset, like 2026-11-20T09:00:00Z"
                   : NULL;
    case T_EMAIL_LIST:
        for (const struct json *it = json_first(j); it; it = json_next(it))
            if (!is_email(json_str(it)))
                return "contains something that is not an e-mail address";
        return NULL;
    case T_STRING_LIST:
        for (const struct json *it = json_first(j); it; it = json_next(it))
            if (!one_line(json_str(it)))
                return "contains control characters";
        return NULL;
    default:
        return NULL;
    }
}

static enum err arguments_fit(struct call *c)
{
    struct arena_mark before = arena_mark(&c->arena);
    UNSET struct schema_fault fault;
    enum err e = schema_check(c->tool->input, c->args, &c->arena, &fault);

    arena_rewind(&c->arena, before);
    if (e)
        return call_why(c, E_ARGS_INVALID, "argument %s: %s", fault.where[0] ? fault.where : "(all)", fault.what);
    if (has_nul(c->args))
        return call_why(c, E_ARGS_INVALID, "an argument contains the character U+0000");
    for (const struct field *f = c->tool->decl->args; f && f->name; f++) {
        const struct json *j = json_get(c->args, f->name);
        const char *wrong = j ? value_fault(f->type, j) : NULL;

        if (wrong)
            return call_why(c, E_ARGS_INVALID, "argument /%s: %s", f->name, wrong);
    }
    return OK;
}

/* Providers take an address in upper or lower case as the same one; policies compare text. So it is written one way, in
 * lower case, before anybody looks at it. */
static struct json *folded(struct call *c, const struct json *address)
{
    char *z = arena_z(&c->arena, json_str(address));

    for (char *p = z; p && *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    return z ? json_string_ref(&c->arena, str_n(z, json_str(address).len)) : NULL;
}

static void fold_addresses(struct call *c)
{
    for (const struct field *f = c->tool->decl->args; f && f->name; f++) {
        const struct json *j = f->type == T_EMAIL || f->type == T_EMAIL_LIST ? json_get(c->args, f->name) : NULL;

        if (!j)
            continue;
        if (f->type == T_EMAIL) {
            json_set(&c->arena, c->args, f->name, folded(c, j));
        } else {
            struct json *list = json_array(&c->arena);

            for (const struct json *it = json_first(j); it; it = json_next(it))
                json_push(&c->arena, list, folded(c, it));
            json_set(&c->arena, c->args, f->name, list);
        }
    }
}

/* From here on the call runs on what was frozen, not on what was sent: two spellings of a number are one value now. */
static enum err thaw(struct call *c)
{
    struct json_error where;

    return json_parse(&c->arena, c->frozen, NULL, &c->args, &where) ? E_CALL_TOO_LARGE : OK;
}

static enum err freeze(struct call *c)
{
    struct buf bytes = BUF_INIT(CALL_ARENA_MAX / 2);
    uint8_t hash[SHA256_LEN];
    bool fits;

    json_canonical(&bytes, c->args);
    c->frozen = arena_str(&c->arena, buf_str(&bytes));
    sha256(bytes.p, bytes.len, hash);
    fits = !bytes.overflow && !arena_overflowed(&c->arena);
    buf_clear(&bytes);                  /* its memory does for the digest's text, too */
    buf_add_hex(&bytes, hash, sizeof(hash));
    memcpy(c->digest, bytes.p, 64);
    c->digest[64] = '\0';
    buf_release(&bytes);
    return fits ? thaw(c) : E_CALL_TOO_LARGE;
}

/* Which mailbox, repository or channel this is about: what policies call the resource. */
static void name_resource(struct call *c)
{
    const struct tool *t = c->tool;

    c->resource_type = str_of(t->resource_type);
    if (t->resource_arg)
        c->resource_id = json_str(json_get(c->args, t->resource_arg->name));
    else
        c->resource_id = c->account.id.len ? c->account.label : c->caller->user;
}

enum err call_check(struct call *c)
{
    enum err e;

    ASSERT(c->tool != NULL && c->frozen.p == NULL);
    if (!c->args)
        c->args = json_object(&c->arena);
    if (!json_is(c->args, JSON_OBJECT))
        return call_why(c, E_ARGS_INVALID, "the arguments must be an object");
    e = arguments_fit(c);
    if (e)
        return e;
    if (!c->tool->provider->decl->no_account) {
        /* whether there is one is said only to who may use the tool: see ADMIT */
        e = vault_account_find(c->worker->engine->vault, c->caller, str_of(c->tool->provider->decl->name), STR_NULL,
                               &c->arena, &c->account);
        if (e && e != E_ACCOUNT_MISSING)
            return e;
    }
    fold_addresses(c);
    e = freeze(c);
    if (!e)
        name_resource(c);
    return e;
}

/* ---- result ------------------------------------------------------------------------------------------------------ */

enum err call_check_result(struct call *c)
{
    UNSET struct schema_fault fault;

    if (!c->tool->output)
        return OK;
    if (!c->structured)
        c->structured = json_object(&c->arena);
    if (schema_check(c->tool->output, c->structured, &c->arena, &fault))
        return call_why(c, E_CONNECTOR_FAULT, "the connector's result does not fit its declaration: %s: %s",
                        fault.where, fault.what);
    return OK;
}
