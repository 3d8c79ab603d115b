/* vocabulary.c -- the generated Cedar schema, and the engine's own actions */
#include "call/vocabulary.h"

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
    if (str_is(type, "array")) {
        null = false;
        only_type(json_get(schema, "items"), &null);
        return typable(json_get(schema, "items")) && !null;         /* null in a set has no type */
    }
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

static void write_record(struct buf *out, const struct json *schema, const char *lead, bool may_lack);

static void write_type(struct buf *out, const struct json *schema, const char *lead)
{
    bool null = false;
    struct str type = only_type(schema, &null);

    if (!typable(schema)) {
        buf_add_z(out, SHAPE_UNTYPED);
    } else if (str_is(type, "string")) {
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
        write_record(out, schema, lead, false);
    }
}

/* may_lack: all of it is optional. */
static void write_record(struct buf *out, const struct json *schema, const char *lead, bool may_lack)
{
    const struct json *first = json_first(json_get(schema, "properties"));

    buf_add_c(out, '{');
    for (const struct json *p = first; p; p = json_next(p)) {
        bool null = false;

        only_type(p, &null);
        buf_addf(out, "%s    ", lead);
        shape_write_name(out, json_key(p));
        buf_add_z(out, required(schema, json_key(p)) && !null && typable(p) && !may_lack ? ": " : "?: ");
        write_type(out, p, lead);
        buf_add_c(out, ',');
    }
    if (first)
        buf_add_z(out, lead);
    buf_add_c(out, '}');
}

/* ---- actions ----------------------------------------------------------------------------------------------------- */

struct word {
    struct str name;
    struct word *next;
};

/* One action. A prompt may be called as a tool is: then it is asked about both. */
struct deed {
    struct str name;
    struct word *groups, *resources;            /* no resources: a group, which nobody asks for */
    const struct json *args;                    /* JSON Schema of context.args; NULL: there are none */
    bool may_lack;                              /* it is also asked for without arguments */
    struct deed *next;
};

struct writing {
    const struct registry *r;
    struct arena arena;
    struct shapes shapes;
    struct deed *deeds;         /* in the order of names, as all lists here: the text depends on the snapshot alone */
};

static void add_word(struct writing *w, struct word **at, struct str name)
{
    struct word *made;

    while (*at && str_cmp((*at)->name, name) < 0)
        at = &(*at)->next;
    if (*at && str_eq((*at)->name, name))
        return;
    made = ARENA_NEW(&w->arena, struct word);
    if (made) {
        *made = (struct word){ name, *at };
        *at = made;
    }
}

/* The deed of that name, made if it is new. NULL: the arena is full. */
static struct deed *deed(struct writing *w, struct str name)
{
    struct deed **at = &w->deeds, *made;

    while (*at && str_cmp((*at)->name, name) < 0)
        at = &(*at)->next;
    if (*at && str_eq((*at)->name, name))
        return *at;
    made = ARENA_NEW(&w->arena, struct deed);
    if (made) {
        *made = (struct deed){ .name = name, .next = *at };
        *at = made;
    }
    return made;
}

/* With all that it is in: its provider and effect, and what the operator's entities say beside. */
static void add_action(struct writing *w, const struct policy_entity *action, const char *resource,
                       const struct json *args)
{
    struct deed *d = deed(w, action->uid.id);

    for (uint32_t i = 0; d && i < action->n_ancestors; i++) {
        const struct policy_uid *up = action->ancestors[i].uid;

        if (!str_is(up->type, "Action") || str_eq(up->id, d->name))
            continue;
        add_word(w, &d->groups, up->id);
        deed(w, up->id);
    }
    if (!d)
        return;
    d->may_lack |= d->resources && (!args || !d->args);
    d->args = args ? args : d->args;
    add_word(w, &d->resources, str_of(resource));
}

/* Action::"<group>.<name>", which is no tool: made as DECIDE makes it. */
static void add_other(struct writing *w, const char *group, const char *name, enum effect effect, const char *resource)
{
    struct policy_entity action;
    struct str whole = arena_printf(&w->arena, "%s.%s", group, name);

    if (!question_action(w->r->entities, &w->arena, whole, str_of(group), effect, &action))
        add_action(w, &action, resource, NULL);
}

static const char *account_type(const struct provider *p)
{
    return p->resource ? p->resource : "Account";
}

static void collect_actions(struct writing *w)
{
    const struct registry *r = w->r;

    for (enum effect f = EFFECT_READS; f <= EFFECT_DESTROYS; f++)
        deed(w, str_of(effect_name(f)));
    for (size_t i = 0; i < r->n_providers; i++)
        deed(w, str_of(r->providers[i].decl->name));
    for (size_t i = 0; i < r->n_tools; i++)
        add_action(w, &r->tools[i].action, r->tools[i].resource_type, r->tools[i].input_tree);
    for (size_t i = 0; i < r->n_prompts; i++)
        add_other(w, r->prompts[i]->provider->name, r->prompts[i]->name, EFFECT_READS, "Tenant");
    for (size_t i = 0; i < r->n_resources; i++)
        add_other(w, r->resources[i]->provider->name, r->resources[i]->name, EFFECT_READS, "Tenant");
    for (size_t k = 0; k < ARRAY_LEN(engine_actions); k++) {
        const struct engine_action *x = &engine_actions[k];

        deed(w, str_of(x->group));
        if (x->resource)
            add_other(w, x->group, x->name, 0, x->resource);
        for (size_t i = 0; !x->resource && i < r->n_providers; i++)
            if (!r->providers[i].decl->no_account)
                add_other(w, x->group, x->name, 0, account_type(r->providers[i].decl));
    }
}

static void write_deed(struct buf *out, const struct deed *d)
{
    const char *between = " in [";

    buf_add_z(out, "\naction ");
    shape_write_name(out, d->name);
    for (const struct word *g = d->groups; g; g = g->next, between = ", ") {
        buf_add_z(out, between);
        shape_write_name(out, g->name);
    }
    buf_add_z(out, d->groups ? "]" : "");
    between = " appliesTo {\n    principal: [User, Agent],\n    resource: [";
    for (const struct word *t = d->resources; t; t = t->next, between = ", ")
        buf_addf(out, "%s%.*s", between, STR_ARG(t->name));
    if (d->resources) {
        buf_add_z(out, "],\n    context: {\n"
                  "        side: String, user: String, agent: String, tenant: String, auth: String,\n"
                  "        scopes: Set<String>, delegator: User, actor: Agent, time: datetime,\n"
                  "        delegation?: { since: datetime, covers: Bool, actions: Set<String>, expires?: datetime },\n"
                  "        args: ");
        write_record(out, d->args, "\n        ", d->may_lack);
        buf_add_z(out, "\n    }\n}");
    }
    buf_add_z(out, ";\n");
}

/* Some argument is written as Untyped. */
static bool args_untyped(const struct deed *d)
{
    for (; d; d = d->next)
        for (const struct json *p = json_first(json_get(d->args, "properties")); p; p = json_next(p))
            if (!typable(p))
                return true;
    return false;
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

/* In the text, an entity type of such a name would take the name from the type that Cedar has. */
static enum err check_types(const struct shapes *s, struct errinfo *info)
{
    static const char *const taken[] = { "Bool", "Boolean", "Long", "String", "Set", "Record", "Entity", "Extension",
                                         "decimal", "ipaddr", "datetime", "duration" };

    for (const struct shape_type *t = s->types; t; t = t->next)
        for (size_t i = 0; i < ARRAY_LEN(taken); i++) {
            struct str name = str_of(taken[i]);

            if (str_ends(t->name, name) && (t->name.len == name.len || t->name.p[t->name.len - name.len - 1] == ':'))
                return err_set(info, E_CONFIG, "the entities name a type %.*s: no schema can have it beside Cedar's "
                               "own type %s", STR_ARG(t->name), taken[i]);
        }
    return OK;
}

enum err vocabulary_write(const struct registry *r, struct buf *out, struct errinfo *info)
{
    struct writing w = { .r = r };
    enum err e;

    arena_init(&w.arena, VOCABULARY_MAX);
    w.shapes.arena = &w.arena;
    collect_entities(&w);
    collect_actions(&w);
    if (args_untyped(w.deeds))
        shapes_type(&w.shapes, STR(SHAPE_UNTYPED));
    buf_add_z(out, "// What policies can be asked here: made by `sluice policy schema` from the tools and entities of\n"
              "// the configuration. A set of policies that validates against it never fails to evaluate, but for\n"
              "// integer overflow and for entities that do not exist.\n\n");
    shapes_write(&w.shapes, out);
    for (const struct deed *d = w.deeds; d; d = d->next)
        write_deed(out, d);
    e = check_types(&w.shapes, info);
    if (!e && (arena_overflowed(&w.arena) || out->overflow))
        e = err_set(info, E_CALL_TOO_LARGE, "the schema takes more than 64 MiB");
    arena_release(&w.arena);
    return e;
}
