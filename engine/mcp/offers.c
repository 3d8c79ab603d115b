/*
 * offers.c -- prompts/get, resources/read, completion/complete: connectors' functions that are no tools
 *
 * They run inside ANSWER: policy first (Action::"<provider>.<name>"), then the function; what it put into c->content
 * becomes messages or contents.  An approval that policy asks for cannot be given to these: they are refused.
 *
 * A template has {variable} where a URI has one path segment; a segment never is "." or "..", whatever it is for.
 */
#include "mcp/internal.h"

static enum err may_use(struct call *c, const struct provider *p, const char *name)
{
    const struct provider_conf *conf = registry_provider(c->registry, str_of(p->name));
    enum err e = conf ? call_decide_named(c, conf, str_of(name)) : E_INTERNAL;

    for (unsigned i = 0; !e && i < c->n_sides; i++)
        if (c->sides[i].effect == POLICY_NEEDS_APPROVAL)
            e = call_why(c, E_APPROVAL_NEEDED, "policy asks for an approval, which only tools can get");
    return e;
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

static const struct prompt_decl *prompt_find(const struct registry *r, struct str name)
{
    for (size_t i = 0; i < r->n_prompts; i++)
        if (str_is(name, r->prompts[i]->name))
            return r->prompts[i];
    return NULL;
}

static const struct field *prompt_field(const struct prompt_decl *d, struct str name)
{
    for (const struct field *f = d->args; f && f->name; f++)
        if (str_is(name, f->name))
            return f;
    return NULL;
}

static enum err prompt_args_fit(struct call *c, const struct prompt_decl *d, const struct json *args)
{
    if (args && !json_is(args, JSON_OBJECT))
        return call_why(c, E_RPC_PARAMS, "params.arguments must be an object");
    for (const struct json *it = json_first(args); it; it = json_next(it)) {
        struct str key = json_key(it);

        if (!json_is(it, JSON_STRING) || (json_str(it).len && memchr(json_str(it).p, 0, json_str(it).len)))
            return call_why(c, E_RPC_PARAMS, "prompt arguments must be strings without U+0000");
        if (!prompt_field(d, key))
            return call_why(c, E_RPC_PARAMS, "prompt %s has no argument %.*s", d->name,
                            STR_ARG(key.len > 64 ? str_n(key.p, 64) : key));
    }
    for (const struct field *f = d->args; f && f->name; f++) {
        const struct json *given = json_get(args, f->name);

        if (!given && !(f->flags & OPTIONAL))
            return call_why(c, E_RPC_PARAMS, "prompt %s needs the argument %s", d->name, f->name);
        if (f->max && json_str(given).len > (size_t)f->max)
            return call_why(c, E_RPC_PARAMS, "prompt argument %s is longer than %lld bytes", f->name,
                            (long long)f->max);
    }
    return OK;
}

/* Each block of content is a message of the user. */
static void messages_of(struct call *c)
{
    struct json *messages = json_array(&c->arena);

    for (struct json *it = json_first(c->content); it; it = json_next(it)) {
        struct json *m = json_object(&c->arena);

        json_set_z(&c->arena, m, "role", "user");
        json_set(&c->arena, m, "content", json_copy(&c->arena, it));
        json_push(&c->arena, messages, m);
    }
    json_set(&c->arena, c->answer, "messages", messages);
}

enum err answer_prompt(struct call *c, struct turn *t)
{
    const struct prompt_decl *d = prompt_find(c->registry, t->param_name);
    enum err e;

    if (!d)
        return E_PROMPT_UNKNOWN;
    e = may_use(c, d->provider, d->name);
    if (e)
        return e;
    c->prompt_args = json_get(t->msg.params, "arguments");
    e = prompt_args_fit(c, d, c->prompt_args);
    if (!e)
        e = d->run(c);
    if (e)
        return e;
    c->answer = json_object(&c->arena);
    json_set_z(&c->arena, c->answer, "description", d->summary);
    messages_of(c);
    return arena_overflowed(&c->arena) ? E_CALL_TOO_LARGE : OK;
}

/* ---- resources --------------------------------------------------------------------------------------------------- */

static bool template_fits(const char *pattern, struct str uri)
{
    size_t at = 0;

    while (*pattern) {
        size_t begin = at;
        struct str segment;

        if (*pattern != '{') {
            if (at == uri.len || uri.p[at++] != *pattern++)
                return false;
            continue;
        }
        while (*pattern && *pattern != '}')
            pattern++;
        pattern += *pattern == '}';
        while (at < uri.len && uri.p[at] != '/' && uri.p[at] != '?' && uri.p[at] != '#')
            at++;
        segment = str_n(uri.p + begin, at - begin);
        if (segment.len == 0 || str_is(segment, ".") || str_is(segment, ".."))
            return false;
    }
    return at == uri.len;
}

/* What names this URI: a resource before a template. */
static const struct resource_decl *resource_find(const struct registry *r, struct str uri)
{
    const struct resource_decl *found = NULL;

    for (size_t i = 0; i < r->n_resources; i++) {
        const struct resource_decl *d = r->resources[i];

        if (!d->is_template && str_is(uri, d->uri))
            return d;
        if (!found && d->is_template && template_fits(d->uri, uri))
            found = d;
    }
    return found;
}

static enum err unknown_resource(struct call *c, struct str uri)
{
    c->error_data = json_object(&c->arena);
    json_set_str(&c->arena, c->error_data, "uri", uri);
    return E_RESOURCE_UNKNOWN;
}

enum err answer_resource(struct call *c, struct turn *t)
{
    const struct resource_decl *d = resource_find(c->registry, t->param_name);
    const char *uri = arena_z(&c->arena, t->param_name);
    struct json *contents = json_array(&c->arena);
    enum err e;

    if (!d || !uri)
        return unknown_resource(c, t->param_name);
    e = may_use(c, d->provider, d->name);
    if (!e)
        e = d->read(c, uri);
    if (e == E_RESOURCE_UNKNOWN)
        return unknown_resource(c, t->param_name);
    if (e)
        return e;
    for (struct json *it = json_first(c->content); it; it = json_next(it))
        if (json_get(it, "resource"))
            json_push(&c->arena, contents, json_copy(&c->arena, json_get(it, "resource")));
    if (arena_overflowed(&c->arena))
        return E_CALL_TOO_LARGE;
    if (json_len(contents) == 0)        /* contents are never empty: what has none is not there */
        return unknown_resource(c, t->param_name);
    c->answer = json_object(&c->arena);
    json_set(&c->arena, c->answer, "contents", contents);
    return OK;
}

/* Nothing of ours tells when a resource changes, so there is nothing to remember; that the resource exists is
 * checked. */
enum err answer_subscribe(struct call *c, struct turn *t)
{
    struct str uri = json_str(json_get(t->msg.params, "uri"));

    if (!uri.p)
        return call_why(c, E_RPC_PARAMS, "params.uri must be a string");
    if (!resource_find(c->registry, uri))
        return unknown_resource(c, uri);
    return answer_empty(c, t);
}

/* ---- completion -------------------------------------------------------------------------------------------------- */

static enum err complete_prompt(struct call *c, struct turn *t, struct str name, struct str arg, struct str value)
{
    const struct prompt_decl *d = prompt_find(c->registry, name);
    const char *prefix = arena_z(&c->arena, value);
    const struct field *f;
    enum err e;

    if (!d)
        return E_PROMPT_UNKNOWN;
    f = prompt_field(d, arg);
    if (!f)
        return call_why(c, E_RPC_PARAMS, "prompt %s has no such argument", d->name);
    e = may_use(c, d->provider, d->name);
    if (e || !d->complete)
        return e;
    c->prompt_args = json_get(json_get(t->msg.params, "context"), "arguments");
    return prefix ? d->complete(c, f->name, prefix) : E_CALL_TOO_LARGE;
}

static bool template_known(const struct registry *r, struct str uri)
{
    for (size_t i = 0; i < r->n_resources; i++)
        if (str_is(uri, r->resources[i]->uri))
            return true;
    return false;
}

static enum err complete_ref(struct call *c, struct turn *t)
{
    struct json *ref = json_get(t->msg.params, "ref"), *arg = json_get(t->msg.params, "argument");
    struct str name = json_str(json_get(arg, "name")), value = json_str(json_get(arg, "value"));
    struct str type = json_str(json_get(ref, "type"));

    if (!name.p || !value.p || (value.len && memchr(value.p, 0, value.len)))
        return call_why(c, E_RPC_PARAMS, "params.argument needs a name and a value, strings");
    if (str_is(type, "ref/prompt"))
        return complete_prompt(c, t, json_str(json_get(ref, "name")), name, value);
    if (!str_is(type, "ref/resource"))
        return call_why(c, E_RPC_PARAMS, "params.ref.type must be ref/prompt or ref/resource");
    if (!template_known(c->registry, json_str(json_get(ref, "uri"))))
        return call_why(c, E_RPC_PARAMS, "params.ref.uri is unknown");
    return OK;
}

enum err answer_complete(struct call *c, struct turn *t)
{
    struct json *completion = json_object(&c->arena), *values = json_array(&c->arena);
    enum err e = complete_ref(c, t);
    size_t n = 0;

    if (e)
        return e;
    for (struct json *it = json_first(c->completions); it; it = json_next(it))
        if (n++ < COMPLETIONS_MAX)
            json_push(&c->arena, values, json_copy(&c->arena, it));
    json_set(&c->arena, completion, "values", values);
    json_set_int(&c->arena, completion, "total", (int64_t)n);
    json_set_bool(&c->arena, completion, "hasMore", n > COMPLETIONS_MAX);
    c->answer = json_object(&c->arena);
    json_set(&c->arena, c->answer, "completion", completion);
    return arena_overflowed(&c->arena) ? E_CALL_TOO_LARGE : OK;
}
