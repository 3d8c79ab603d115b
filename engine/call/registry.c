/*
 * registry.c -- from declarations and configuration to the snapshot that calls live in
 *
 * Declarations lie in linker sections; everything a call needs of them is derived here once and checked: names that
 * policies can spell, schemas that compile, origins that parse, limits that have a rule.  A declaration that
 * contradicts itself stops the start with its connector, tool and field named.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crypto.h"
#include "base/metric.h"
#include "call/budget.h"
#include "call/internal.h"
#include "call/limits.h"
#include "call/listing.h"
#include "json/schema.h"

enum { REGISTRY_ARENA_MAX = 64 << 20, HEADERS_MAX = 16 };

/* Weak: a program without any connector (a unit test) links too. */
#define SECTION(name, type)                                                                                            \
    extern type *const __start_##name[] __attribute__((weak, visibility("hidden")));                                   \
    extern type *const __stop_##name[] __attribute__((weak, visibility("hidden")));

SECTION(sluice_providers, const struct provider)
SECTION(sluice_tools, const struct tool_decl)
SECTION(sluice_prompts, const struct prompt_decl)
SECTION(sluice_resources, const struct resource_decl)

#define EACH(it, section, type)                                                                                        \
    for (type *const *it = __start_##section; it && it < __stop_##section; it++)

size_t registry_linked_tools(void)
{
    size_t n = 0;

    EACH(t, sluice_tools, const struct tool_decl)
        n++;
    return n;
}

/* ---- schemas from fields ----------------------------------------------------------------------------------------- */

static struct json *typed(struct arena *a, const char *type)
{
    struct json *s = json_object(a);

    json_set_z(a, s, "type", type);
    return s;
}

static void bounds(struct arena *a, struct json *s, const struct field *f, const char *least, const char *most)
{
    if (f->min || f->max) {
        json_set_int(a, s, least, f->min);
        json_set_int(a, s, most, f->max);
    }
}

static struct json *list_of(struct arena *a, const struct field *f, struct json *item)
{
    struct json *s = typed(a, "array");

    json_set(a, s, "items", item);
    json_set_bool(a, s, "uniqueItems", true);
    bounds(a, s, f, "minItems", "maxItems");
    return s;
}

static struct json *email_schema(struct arena *a)
{
    struct json *s = typed(a, "string");

    json_set_z(a, s, "format", "email");
    json_set_int(a, s, "maxLength", 254);
    return s;
}

static struct json *string_item(struct arena *a)
{
    struct json *s = typed(a, "string");

    json_set_int(a, s, "minLength", 1);
    json_set_int(a, s, "maxLength", 255);
    return s;
}

static struct json *string_schema(struct arena *a, const struct field *f)
{
    struct json *s = typed(a, "string");

    if (f->min || f->max)
        bounds(a, s, f, "minLength", "maxLength");
    else
        json_set_int(a, s, "maxLength", 65535);
    return s;
}

static struct json *choice_schema(struct arena *a, const struct field *f)
{
    struct json *s = typed(a, "string"), *values = json_array(a);

    for (const char *const *c = f->choices; c && *c; c++)
        json_push(a, values, json_string_z(a, *c));
    json_set(a, s, "enum", values);
    return s;
}

static struct json *field_schema(struct arena *a, const struct field *f)
{
    struct json *s = NULL;

    switch (f->type) {
    case T_STRING:
    case T_TEXT:        s = string_schema(a, f); break;
    case T_INT:         s = typed(a, "integer"); bounds(a, s, f, "minimum", "maximum"); break;
    case T_NUMBER:      s = typed(a, "number"); bounds(a, s, f, "minimum", "maximum"); break;
    case T_BOOL:        s = typed(a, "boolean"); break;
    case T_EMAIL:       s = email_schema(a); break;
    case T_EMAIL_LIST:  s = list_of(a, f, email_schema(a)); break;
    case T_STRING_LIST: s = list_of(a, f, string_item(a)); break;
    case T_TIME:        s = typed(a, "string"); json_set_z(a, s, "format", "date-time"); break;
    case T_CHOICE:      s = choice_schema(a, f); break;
    case T_JSON:        s = json_object(a); break;
    case T_LIST:        s = typed(a, "array"); break;
    }
    if (f->doc)
        json_set_z(a, s, "description", f->doc);
    if (f->header)
        json_set_z(a, s, "x-mcp-header", f->header);
    return s;
}

struct json *fields_schema(struct arena *a, const struct field *fields, bool strict)
{
    struct json *s = typed(a, "object"), *properties = json_object(a), *required = json_array(a);

    for (const struct field *f = fields; f && f->name; f++) {
        json_set(a, properties, f->name, field_schema(a, f));
        if (!(f->flags & OPTIONAL))
            json_push(a, required, json_string_z(a, f->name));
    }
    if (json_len(properties))
        json_set(a, s, "properties", properties);
    if (json_len(required))
        json_set(a, s, "required", required);
    if (strict)
        json_set_bool(a, s, "additionalProperties", false);
    return s;
}

/* ---- tools ------------------------------------------------------------------------------------------------------- */

static bool name_valid(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > 64)
        return false;
    for (const char *p = name; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_' ||
              *p == '.'))
            return false;
    return true;
}

static const struct field *field_named(const struct field *fields, const char *name)
{
    for (const struct field *f = fields; f && f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

/* "outlook.book_meeting" -> "Book meeting" */
static struct str title_of(struct arena *a, const struct tool_decl *d)
{
    const char *intent = strchr(d->name, '.');
    char *z;

    if (d->title)
        return str_of(d->title);
    z = arena_z(a, str_of(intent ? intent + 1 : d->name));
    for (char *p = z; p && *p; p++)
        if (*p == '_' || *p == '.')
            *p = ' ';
    if (z && z[0] >= 'a' && z[0] <= 'z')
        z[0] = (char)(z[0] - 'a' + 'A');
    return str_of(z);
}

static enum err schema_make(struct registry *r, const struct tool_decl *d, const char *word_for_word,
                            const struct field *fields, bool strict, struct json **ret_tree, struct str *ret_text,
                            struct schema **ret, struct errinfo *info)
{
    struct buf text = BUF_INIT(1 << 20);
    struct errinfo why = { "" };
    struct json_error where;
    enum err e;

    if (word_for_word && json_parse(&r->arena, str_of(word_for_word), NULL, ret_tree, &where))
        return err_set(info, E_CONFIG, "tool %s: its schema is no JSON: line %u: %s", d->name, where.line,
                       where.message);
    if (!word_for_word)
        *ret_tree = fields_schema(&r->arena, fields, strict);
    json_write(&text, *ret_tree);
    *ret_text = arena_str(&r->arena, buf_str(&text));
    buf_release(&text);
    e = schema_compile(*ret_tree, ret, &why);
    return e ? err_set(info, E_CONFIG, "tool %s: its schema does not compile: %s", d->name, why.text) : OK;
}

static void tool_digest(struct tool *t)
{
    const struct str zero = { "", 1 };
    struct str parts[] = { t->name, zero, str_of(t->decl->summary), zero, t->input_schema, zero, t->output_schema, zero,
                           str_of(effect_name(t->decl->effect)) };
    struct buf hex = BUF_INIT(65);
    uint8_t hash[SHA256_LEN];

    sha256_parts(parts, ARRAY_LEN(parts), hash);
    buf_add_hex(&hex, hash, sizeof(hash));
    memcpy(t->digest, hex.p, 64);
    t->digest[64] = '\0';
    buf_release(&hex);
}

/* Is a member called so anywhere in it? */
static bool holds_member(const struct json *tree, struct str name)
{
    for (const struct json *it = json_first(tree); it; it = json_next(it))
        if (str_eq(json_key(it), name) || holds_member(it, name))
            return true;
    return false;
}

static enum err tool_make(struct registry *r, struct tool *t, const struct tool_decl *d, struct errinfo *info)
{
    enum err e;

    if (!name_valid(d->name) || !d->summary || !d->run || d->effect < EFFECT_READS || d->effect > EFFECT_DESTROYS)
        return err_set(info, E_CONFIG, "tool %s: a tool needs a name of [A-Za-z0-9_.], a summary, an effect and a body",
                       d->name);
    t->decl = d;
    t->provider = registry_provider(r, str_of(d->provider->name));
    t->name = str_of(d->name);
    t->title = title_of(&r->arena, d);
    t->counted = ARENA_ARRAY(&r->arena, metric_slot_t, OUTCOME_UNKNOWN + 1);
    t->resource_arg = d->resource ? field_named(d->args, d->resource) : NULL;
    t->resource_type = d->resource && !t->resource_arg ? d->resource
                       : d->provider->resource         ? d->provider->resource
                                                       : "Resource";
    t->resource_type_hash = hash_bytes(t->resource_type, strlen(t->resource_type));
    if (!policy_type_valid(str_of(t->resource_type)))
        return err_set(info, E_CONFIG,
                       "tool %s: \"%s\" is neither one of its arguments nor a type that policies can name", d->name,
                       t->resource_type);
    e = schema_make(r, d, d->input_schema, d->args, true, &t->input_tree, &t->input_schema, &t->input, info);
    t->mirrors = holds_member(t->input_tree, STR("x-mcp-header"));
    if (!e && (d->output_schema || d->result))
        e = schema_make(r, d, d->output_schema, d->result, false, &t->output_tree, &t->output_schema, &t->output, info);
    if (!e && question_action(r->entities, &r->arena, t->name, str_of(d->provider->name), d->effect, &t->action))
        e = E_CALL_TOO_LARGE;
    tool_digest(t);
    t->recorded = call_recorded_tool(&r->arena, t);
    return e;
}

static int tools_by_name(const void *a, const void *b)
{
    return str_cmp(((const struct tool *)a)->name, ((const struct tool *)b)->name);
}

static enum err tools_make(struct registry *r, struct errinfo *info)
{
    r->tools = ARENA_ARRAY(&r->arena, struct tool, registry_linked_tools());
    EACH(d, sluice_tools, const struct tool_decl) {
        enum err e;

        if (!registry_provider(r, str_of((*d)->provider->name)))
            continue;
        e = tool_make(r, &r->tools[r->n_tools++], *d, info);
        if (e)
            return e;
    }
    qsort(r->tools, r->n_tools, sizeof(r->tools[0]), tools_by_name);
    for (size_t i = 0; i < r->n_tools; i++)
        if (map_put(&r->by_name, r->tools[i].name, &r->tools[i]))
            return err_set(info, E_CONFIG, "two tools are called %s", r->tools[i].decl->name);
    return OK;
}

/* ---- providers --------------------------------------------------------------------------------------------------- */

static struct str join_url(struct arena *a, const char *base, const char *at)
{
    struct str b = str_of(base);

    if (!at)
        return STR_NULL;
    if (strncmp(at, "https://", 8) == 0 || strncmp(at, "http://", 7) == 0)
        return str_of(at);
    if (str_ends(b, STR("/")))
        b.len--;
    return arena_printf(a, "%.*s%s", STR_ARG(b), at);
}

static void provider_oauth(struct registry *r, struct provider_conf *p, const struct provider_setup *s)
{
    const struct oauth *o = p->decl->oauth;
    const char *base;

    p->vault.name = str_of(p->decl->name);
    if (!o)
        return;
    base = s && s->auth_url ? s->auth_url : o->auth_url;
    p->vault.authorize_url = join_url(&r->arena, base, o->authorize_path);
    p->vault.token_url = s && s->token_url ? str_of(s->token_url) : join_url(&r->arena, base, o->token_path);
    p->vault.revoke_url = s && s->revoke_url ? str_of(s->revoke_url) : join_url(&r->arena, base, o->revoke_path);
    p->vault.client_id = str_of(s ? s->client_id : NULL);
    p->vault.client_secret = s ? s->client_secret : NULL;
    p->vault.auth = !p->vault.client_secret ? VAULT_AUTH_NONE : o->basic_auth ? VAULT_AUTH_BASIC : VAULT_AUTH_POST;
    p->vault.scopes = str_of(s ? s->scopes : NULL);
    p->vault.scope_separator = o->scope_separator ? o->scope_separator[0] : 0;
    p->vault.rotation = o->rotates ? VAULT_ROTATES_ONCE : VAULT_ROTATES_NO;
}

/* "a=b&c=d" of the declaration, as parameters. */
static void provider_authorize_params(struct registry *r, struct provider_conf *p)
{
    struct str rest = str_of(p->decl->oauth ? p->decl->oauth->extra_authorize : NULL), one;
    struct vault_param *params = ARENA_ARRAY(&r->arena, struct vault_param, 8);
    size_t n = 0;

    while (rest.len && n < 8) {
        if (!str_cut(rest, '&', &one, &rest)) {
            one = rest;
            rest = STR_NULL;
        }
        if (str_cut(one, '=', &params[n].name, &params[n].value))
            n++;
    }
    p->vault.authorize_params = params;
    p->vault.n_authorize_params = n;
}

/* Every scope that a tool of the provider needs: what an account is asked for when configuration names none. */
static void provider_scopes(struct registry *r, struct provider_conf *p)
{
    struct buf all = BUF_INIT(8192);

    if (p->vault.scopes.len)
        return;
    EACH(d, sluice_tools, const struct tool_decl) {
        if ((*d)->provider != p->decl)
            continue;
        for (const char *const *s = (*d)->scopes; s && *s; s++) {
            struct str have = buf_str(&all);
            bool known = false;

            while (have.len && !known) {
                struct str one, rest;

                if (!str_cut(have, ' ', &one, &rest)) {
                    one = have;
                    rest = STR_NULL;
                }
                known = str_is(one, *s);
                have = rest;
            }
            if (!known)
                buf_addf(&all, "%s%s", all.len ? " " : "", *s);
        }
    }
    p->vault.scopes = arena_str(&r->arena, buf_str(&all));
    buf_release(&all);
}

/* The same for every request of the provider. */
static enum err provider_fields(struct registry *r, struct provider_conf *p, struct errinfo *info)
{
    static const struct str types[REQUEST_BODIES] = { [REQUEST_JSON] = STR("application/json"),
                                                      [REQUEST_FORM] = STR("application/x-www-form-urlencoded") };
    struct fetch_header fields[HEADERS_MAX];
    struct errinfo why = { "" };

    for (unsigned i = 0; i < REQUEST_BODIES; i++) {
        unsigned n = 0;

        fields[n++] = (struct fetch_header){ .name = STR("Accept"), .value = STR("application/json") };
        fields[n++] = (struct fetch_header){ .name = STR("User-Agent"), .value = STR("sluice/" SLUICE_VERSION) };
        if (types[i].len)
            fields[n++] = (struct fetch_header){ .name = STR("Content-Type"), .value = types[i] };
        for (const char *const *h = p->decl->headers; h && *h; h++) {
            struct str name, value;

            if (n == HEADERS_MAX)
                return err_set(info, E_CONFIG, "provider %s: its headers: more than %d, with those of the engine",
                               p->decl->name, HEADERS_MAX);
            if (!str_cut(str_of(*h), ':', &name, &value))
                return err_set(info, E_CONFIG, "provider %s: its headers: \"%s\" is not \"Name: value\"",
                               p->decl->name, *h);
            fields[n++] = (struct fetch_header){ .name = name, .value = str_trim(value) };
        }
        if (fetch_common_make(&r->arena, fields, n, &p->fields[i], &why))
            return err_set(info, E_CONFIG, "provider %s: its headers: %s", p->decl->name, why.text);
    }
    return OK;
}

static enum err provider_make(struct registry *r, struct provider_conf *p, const struct provider *d,
                              const struct provider_setup *s, unsigned index, struct errinfo *info)
{
    struct errinfo why = { "" };
    struct str at = STR_NULL;
    const char *base = s && s->base_url ? s->base_url : d->base_url;
    enum err e;

    if (d->api != SLUICE_CONNECTOR_API)
        return err_set(info, E_CONFIG,
                       "connector %s was built for version %d of the connector interface, this engine has %d", d->name,
                       d->api, SLUICE_CONNECTOR_API);
    p->decl = d;
    if (s)
        p->guard = s->guard;
    if (!d->no_account) {
        if (fetch_url_parse(str_of(base), &p->origin, &at, &why))
            return err_set(info, E_CONFIG, "provider %s: base_url \"%s\": %s", d->name, base ? base : "", why.text);
        if (!p->origin.tls && !p->guard.allow_plain_http)
            return err_set(info, E_CONFIG,
                           "provider %s: base_url \"%s\" is not https; set allow_plain_http for a provider on loopback",
                           d->name, base);
        p->origin.plain_http2 = s && s->plain_http2;
        if (p->origin.tls && p->origin.plain_http2)
            return err_set(info, E_CONFIG,
                           "provider %s: plain_http2 is for a base_url that is http; over TLS HTTP/2 is agreed on",
                           d->name);
        p->base_path = str_is(at, "/") ? STR("") : str_ends(at, STR("/")) ? str_n(at.p, at.len - 1) : at;
    }
    provider_oauth(r, p, s);
    provider_authorize_params(r, p);
    provider_scopes(r, p);
    p->metric = metric_label(M_EXCHANGE_SECONDS, str_of(d->name));
    p->answers = ARENA_ARRAY(&r->arena, metric_slot_t, ANSWER_UNKNOWN + 1);
    p->metric_retries = metric_label(M_RETRIES_TOTAL, str_of(d->name));
    p->metric_unrepeated = metric_label(M_RETRIES_REFUSED_TOTAL, str_of(d->name));
    p->metric_opened = metric_label(M_BREAKER_OPENED_TOTAL, str_of(d->name));
    p->metric_refused = metric_label(M_BREAKER_REFUSED_TOTAL, str_of(d->name));
    p->index = index;
    e = provider_fields(r, p, info);
    return e ? e : limits_make(p, s, info);
}

static bool listed(const char *const *names, const char *name)
{
    for (; names && *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

static const struct provider *linked_provider(const char *name)
{
    EACH(d, sluice_providers, const struct provider)
        if (strcmp((*d)->name, name) == 0)
            return *d;
    return NULL;
}

static enum err names_known(const struct registry_options *opt, struct errinfo *info)
{
    for (const char *const *n = opt->enabled; n && *n; n++)
        if (!linked_provider(*n))
            return err_set(info, E_CONFIG, "there is no connector called \"%s\" in this build", *n);
    for (size_t i = 0; i < opt->n_setups; i++)
        if (!linked_provider(opt->setups[i].name))
            return err_set(info, E_CONFIG, "there is no connector called \"%s\" in this build", opt->setups[i].name);
    return OK;
}

static enum err providers_make(struct registry *r, const struct registry_options *opt, struct errinfo *info)
{
    unsigned index = 0, n = 0;

    EACH(d, sluice_providers, const struct provider)
        n++;
    r->providers = ARENA_ARRAY(&r->arena, struct provider_conf, n);
    EACH(d, sluice_providers, const struct provider) {
        const struct provider_setup *setup = NULL;
        enum err e;

        for (size_t i = 0; i < opt->n_setups; i++)
            if (strcmp(opt->setups[i].name, (*d)->name) == 0)
                setup = &opt->setups[i];
        if (opt->enabled ? listed(opt->enabled, (*d)->name) : !(*d)->fixture) {
            e = provider_make(r, &r->providers[r->n_providers], *d, setup, index, info);
            if (e)
                return e;
            r->n_providers++;
        }
        index++;                        /* a provider keeps its rules in the limiter whatever else is enabled */
    }
    return OK;
}

/* ---- the snapshot ------------------------------------------------------------------------------------------------ */

static void others_make(struct registry *r)
{
    size_t prompts = 0, resources = 0;

    EACH(p, sluice_prompts, const struct prompt_decl)
        prompts++;
    EACH(x, sluice_resources, const struct resource_decl)
        resources++;
    r->prompts = ARENA_ARRAY(&r->arena, const struct prompt_decl *, prompts);
    r->resources = ARENA_ARRAY(&r->arena, const struct resource_decl *, resources);
    EACH(p, sluice_prompts, const struct prompt_decl)
        if (registry_provider(r, str_of((*p)->provider->name)))
            r->prompts[r->n_prompts++] = *p;
    EACH(x, sluice_resources, const struct resource_decl)
        if (registry_provider(r, str_of((*x)->provider->name)))
            r->resources[r->n_resources++] = *x;
}

static void version_make(struct registry *r)
{
    struct str *parts = ARENA_ARRAY(&r->arena, struct str, r->n_tools + 2);
    struct buf hex = BUF_INIT(65);
    uint8_t hash[SHA256_LEN];

    parts[0] = str_of(policy_set_version(r->policy));
    parts[1] = str_of(r->entities_version);
    for (size_t i = 0; i < r->n_tools; i++)
        parts[i + 2] = str_of(r->tools[i].digest);
    sha256_parts(parts, r->n_tools + 2, hash);
    buf_add_hex(&hex, hash, sizeof(hash));
    memcpy(r->version, hex.p, 64);
    buf_release(&hex);
}

static void registry_free(struct registry *r)
{
    budgets_leave_rules(r);
    for (size_t i = 0; i < r->n_tools; i++) {
        schema_free(r->tools[i].input);
        schema_free(r->tools[i].output);
    }
    listing_free(r->listing);
    policy_set_unref(r->policy);
    policy_set_unref(r->candidate);
    policy_entities_unref(r->entities);
    map_release(&r->by_name);
    arena_release(&r->arena);
    if (r->lender_release)
        r->lender_release(r->lender);
    free(r);
}

enum err registry_build(const struct registry_options *opt, struct registry **ret, struct errinfo *info)
{
    struct registry *r = calloc(1, sizeof(*r));
    enum err e;

    ASSERT(r != NULL && opt->policy != NULL);
    atomic_init(&r->refs, 1);
    arena_init(&r->arena, REGISTRY_ARENA_MAX);
    r->policy = policy_set_ref(opt->policy);
    r->candidate = opt->candidate ? policy_set_ref(opt->candidate) : NULL;
    r->entities = opt->entities ? policy_entities_ref(opt->entities) : NULL;
    snprintf(r->entities_version, sizeof(r->entities_version), "%s",
             opt->entities_version ? opt->entities_version : "");
    r->delegation_required = opt->delegation_required;
    r->lender = opt->lender;
    r->lender_release = opt->lender_release;
    e = names_known(opt, info);
    if (!e)
        e = providers_make(r, opt, info);
    if (!e)
        e = tools_make(r, info);
    if (!e)
        e = budgets_make(r, opt, info);
    if (!e) {
        others_make(r);
        version_make(r);
        r->recorded = call_recorded_versions(&r->arena, r);
        r->listing = listing_new(r->policy, r->n_tools, &r->arena);
        e = arena_overflowed(&r->arena) ? err_set(info, E_CONFIG, "the declarations need more than 64 MiB") : OK;
    }
    if (e) {
        registry_free(r);
        return e;
    }
    *ret = r;
    return OK;
}

struct registry *registry_ref(struct registry *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void registry_unref(struct registry *r)
{
    if (r && atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
        registry_free(r);
}

struct registry_hold *registry_hold(struct registry *r)
{
    struct registry_hold *h = malloc(sizeof(*h));

    ASSERT(h != NULL);
    *h = (struct registry_hold){ registry_ref(r), 1 };
    return h;
}

struct registry_hold *registry_join(struct registry_hold *h)
{
    h->users++;
    return h;
}

void registry_leave(struct registry_hold *h)
{
    if (!h || --h->users > 0)
        return;
    registry_unref(h->registry);
    free(h);
}

const struct tool *registry_tool(const struct registry *r, struct str name)
{
    return map_get(&r->by_name, name);
}

const struct provider_conf *registry_provider(const struct registry *r, struct str name)
{
    for (size_t i = 0; i < r->n_providers; i++)
        if (str_is(name, r->providers[i].decl->name))
            return &r->providers[i];
    return NULL;
}
