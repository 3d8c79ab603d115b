/* vocabulary.c -- the generated Cedar schema, and the engine's own actions */
#include "call/vocabulary.h"

#include <stdlib.h>

#include "base/check.h"
#include "policy/shape.h"

enum { VOCABULARY_MAX = 64 << 20 };

#define PROVIDERS NULL

static const struct engine_action {
    const char *group, *name, *resource;
} engine_actions[] = {
#define ENGINE_ACTION(group, name, resource) { group, name, resource },
#include "call/actions.def"
#undef ENGINE_ACTION
};

bool engine_action_known(struct str group, struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(engine_actions); i++)
        if (str_is(group, engine_actions[i].group) && str_is(name, engine_actions[i].name))
            return true;
    return false;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

/* The one type that a JSON Schema allows beside null. STR_NULL: none, or several. */
static struct str only_type(const struct json *schema, bool *ret_null)
{
    const struct json *type = json_get(schema, "type");
    struct str only = STR_NULL;

    if (!json_is(type, JSON_ARRAY))
        return json_str(type);
    for (const struct json *t = json_first(type); t; t = json_next(t)) {
        if (str_is(json_str(t), "null"))
            *ret_null = true;
        else if (only.p)
            return STR_NULL;
        else
            only = json_str(t);
    }
    return only;
}

/* Keywords that add to or replace what "type", "items" and "properties" say. */
static bool simple(const struct json *schema)
{
    static const char *const others[] = { "$ref", "$dynamicRef", "anyOf", "oneOf", "allOf", "if", "not", "prefixItems",
                                          "patternProperties", "propertyNames", "dependentSchemas" };

    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (json_get(schema, others[i]))
            return false;
    return json_is(schema, JSON_OBJECT);
}

static bool closed(const struct json *schema)
{
    bool more = true;

    json_bool(json_get(schema, "additionalProperties"), &more);
    return !more;
}

static bool typable(const struct json *schema)
{
    bool null = false;
    struct str type = only_type(schema, &null);

    if (!simple(schema))
        return false;
    if (str_is(type, "array"))
        return typable(json_get(schema, "items"));
    if (str_is(type, "object")) {
        for (const struct json *p = json_first(json_get(schema, "properties")); p; p = json_next(p))
            if (!typable(p))
                return false;
        return closed(schema);
    }
    return str_is(type, "string") || str_is(type, "integer") || str_is(type, "boolean");
}

static bool required(const struct json *schema, struct str name)
{
    for (const struct json *r = json_first(json_get(schema, "required")); r; r = json_next(r))
        if (str_eq(json_str(r), name))
            return true;
    return false;
}

static void write_record(struct buf *out, const struct json *schema, const char *lead);

static void write_type(struct buf *out, const struct json *schema, const char *lead)
{
    bool null = false;
    struct str type = only_type(schema, &null);

    if (str_is(type, "string")) {
        buf_add_z(out, "String");
    } else if (str_is(type, "integer")) {
        buf_add_z(out, "Long");
    } else if (str_is(type, "boolean")) {
        buf_add_z(out, "Bool");
    } else if (str_is(type, "array")) {
        buf_add_z(out, "Set<");
        write_type(out, json_get(schema, "items"), lead);
        buf_add_c(out, '>');
    } else {
        write_record(out, schema, lead);
    }
}

static void write_record(struct buf *out, const struct json *schema, const char *lead)
{
    const struct json *first = json_first(json_get(schema, "properties"));

    buf_add_c(out, '{');
    for (const struct json *p = first; p; p = json_next(p)) {
        bool null = false;

        buf_add_z(out, lead);
        if (!typable(p)) {
            struct policy_value name = policy_string(json_key(p));

            buf_add_z(out, "    // ");
            policy_value_write(out, &name);
            buf_add_z(out, " may be of several types");
            continue;
        }
        only_type(p, &null);
        buf_add_z(out, "    ");
        shape_write_name(out, json_key(p));
        buf_add_z(out, required(schema, json_key(p)) && !null ? ": " : "?: ");
        write_type(out, p, lead);
        buf_add_c(out, ',');
    }
    if (first)
        buf_add_z(out, lead);
    buf_add_c(out, '}');
}

/* ---- actions ----------------------------------------------------------------------------------------------------- */

struct writing {
    const struct registry *r;
    struct arena arena;
    struct shapes shapes;
    struct buf *out;
    struct { struct str *p; size_t n; } groups;         /* actions that others are in */
};

static void note_group(struct writing *w, struct str name)
{
    for (size_t i = 0; i < w->groups.n; i++)
        if (str_eq(w->groups.p[i], name))
            return;
    w->groups.p[w->groups.n++] = name;
}

static int by_name(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

/* The names of what an action is in: its provider and effect, and what the operator's entities say beside. */
static struct str *groups_of(struct writing *w, const struct policy_entity *action, size_t *ret_n)
{
    struct str *groups = ARENA_ARRAY(&w->arena, struct str, action->n_ancestors + 1);
    size_t n = 0;

    for (uint32_t i = 0; groups && i < action->n_ancestors; i++)
        if (str_is(action->ancestors[i].uid->type, "Action"))
            groups[n++] = action->ancestors[i].uid->id;
    if (n)
        qsort(groups, n, sizeof(*groups), by_name);
    *ret_n = n;
    return groups;
}

/* args: the JSON Schema of context.args; NULL: there are none. resources: types, at least one. */
static void write_action(struct writing *w, const struct policy_entity *action, const struct str *resources, size_t n,
                         const struct json *args)
{
    size_t n_groups;
    const struct str *groups = groups_of(w, action, &n_groups);

    buf_add_z(w->out, "\naction ");
    shape_write_name(w->out, action->uid.id);
    buf_add_z(w->out, " in [");
    for (size_t i = 0; i < n_groups; i++) {
        buf_add_z(w->out, i ? ", " : "");
        shape_write_name(w->out, groups[i]);
    }
    buf_add_z(w->out, "] appliesTo {\n    principal: [User, Agent],\n    resource: [");
    for (size_t i = 0; i < n; i++)
        buf_addf(w->out, "%s%.*s", i ? ", " : "", STR_ARG(resources[i]));
    buf_add_z(w->out, "],\n    context: {\n"
              "        side: String, user: String, agent: String, tenant: String, auth: String, scopes: Set<String>,\n"
              "        delegator: User, actor: Agent, time: datetime,\n"
              "        delegation?: { since: datetime, covers: Bool, actions: Set<String>, expires?: datetime },\n"
              "        args: ");
    if (args)
        write_record(w->out, args, "\n        ");
    else
        buf_add_z(w->out, "{}");
    buf_add_z(w->out, "\n    }\n};\n");
}

static const char *account_type(const struct provider *p)
{
    return p->resource ? p->resource : "Account";
}

/* Action::"<group>.<name>", which is no tool: made as DECIDE makes it. */
static enum err write_other(struct writing *w, const char *group, const char *name, enum effect effect,
                            const struct str *resources, size_t n)
{
    struct policy_entity action;
    struct str whole = arena_printf(&w->arena, "%s.%s", group, name);
    enum err e = question_action(w->r->entities, &w->arena, whole, str_of(group), effect, &action);

    if (!e)
        write_action(w, &action, resources, n, NULL);
    return e;
}

static enum err write_actions(struct writing *w)
{
    struct str *accounts = ARENA_ARRAY(&w->arena, struct str, w->r->n_providers + 1);
    const struct str tenant = STR("Tenant");
    size_t n = 0;
    enum err e = accounts ? OK : E_CALL_TOO_LARGE;

    for (size_t i = 0; !e && i < w->r->n_tools; i++) {
        const struct tool *t = &w->r->tools[i];
        const struct str type = str_of(t->resource_type);

        write_action(w, &t->action, &type, 1, t->input_tree);
    }
    for (size_t i = 0; !e && i < w->r->n_prompts; i++)
        e = write_other(w, w->r->prompts[i]->provider->name, w->r->prompts[i]->name, EFFECT_READS, &tenant, 1);
    for (size_t i = 0; !e && i < w->r->n_resources; i++)
        e = write_other(w, w->r->resources[i]->provider->name, w->r->resources[i]->name, EFFECT_READS, &tenant, 1);
    for (size_t i = 0; !e && i < w->r->n_providers; i++) {
        struct str type = str_of(account_type(w->r->providers[i].decl));
        bool known = w->r->providers[i].decl->no_account;

        for (size_t k = 0; k < n && !known; k++)
            known = str_eq(accounts[k], type);
        if (!known)
            accounts[n++] = type;
    }
    for (size_t i = 0; !e && i < ARRAY_LEN(engine_actions); i++) {
        const struct engine_action *x = &engine_actions[i];
        const struct str type = str_of(x->resource);

        if (x->resource || n)
            e = write_other(w, x->group, x->name, 0, x->resource ? &type : accounts, x->resource ? 1 : n);
    }
    return e;
}

/* Everything that an action is in is an action of its own, which nobody asks for. */
static enum err write_groups(struct writing *w)
{
    size_t most = 3 + w->r->n_providers + ARRAY_LEN(engine_actions);

    for (size_t i = 0; i < w->r->n_tools; i++)
        most += w->r->tools[i].action.n_ancestors;
    w->groups.p = ARENA_ARRAY(&w->arena, struct str, most);
    if (!w->groups.p)
        return E_CALL_TOO_LARGE;
    for (enum effect f = EFFECT_READS; f <= EFFECT_DESTROYS; f++)
        note_group(w, str_of(effect_name(f)));
    for (size_t i = 0; i < w->r->n_providers; i++)
        note_group(w, str_of(w->r->providers[i].decl->name));
    for (size_t i = 0; i < ARRAY_LEN(engine_actions); i++)
        note_group(w, str_of(engine_actions[i].group));
    for (size_t i = 0; i < w->r->n_tools; i++) {
        size_t n;
        const struct str *groups = groups_of(w, &w->r->tools[i].action, &n);

        for (size_t k = 0; k < n; k++)
            note_group(w, groups[k]);
    }
    buf_add_z(w->out, "\naction ");
    for (size_t i = 0; i < w->groups.n; i++) {
        buf_add_z(w->out, i ? ", " : "");
        shape_write_name(w->out, w->groups.p[i]);
    }
    buf_add_z(w->out, ";\n");
    return OK;
}

/* ---- entities ---------------------------------------------------------------------------------------------------- */

static void open_type(struct shapes *s, struct str name)
{
    struct shape_type *t = shapes_type(s, name);

    if (t)
        t->open = true;
    if (!str_is(name, "Tenant") && !str_is(name, "Group"))
        shapes_in(s, name, STR("Tenant"));
}

static void collect_entities(struct writing *w)
{
    struct shapes *s = &w->shapes;

    open_type(s, STR("User"));
    shapes_in(s, STR("User"), STR("Group"));
    open_type(s, STR("Agent"));
    open_type(s, STR("Tenant"));
    open_type(s, STR("Group"));
    for (size_t i = 0; i < w->r->n_tools; i++)
        open_type(s, str_of(w->r->tools[i].resource_type));
    for (size_t i = 0; i < w->r->n_providers; i++)
        if (!w->r->providers[i].decl->no_account)
            open_type(s, str_of(account_type(w->r->providers[i].decl)));
    if (w->r->entities)
        shapes_add_store(s, w->r->entities);
}

enum err vocabulary_write(const struct registry *r, struct buf *out)
{
    struct writing w = { .r = r, .out = out };
    enum err e;

    arena_init(&w.arena, VOCABULARY_MAX);
    w.shapes.arena = &w.arena;
    collect_entities(&w);
    buf_add_z(out, "// What policies can be asked here: made by `sluice policy schema` from the tools and entities of\n"
              "// the configuration. A set of policies that validates against it never fails to evaluate, but for\n"
              "// integer overflow and for entities that do not exist.\n\n");
    shapes_write(&w.shapes, out);
    e = write_groups(&w);
    if (!e)
        e = write_actions(&w);
    if (!e && (arena_overflowed(&w.arena) || out->overflow))
        e = E_CALL_TOO_LARGE;
    arena_release(&w.arena);
    return e;
}
