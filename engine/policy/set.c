/*
 * set.c -- the life of a policy set: sources in, one immutable counted object out
 */
#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crypto.h"
#include "base/map.h"
#include "policy/ast.h"
#include "policy/program.h"

#define SET_MAX     ((size_t)256 << 20)
#define TOKENS_MAX  ((size_t)256 << 20)

/* A list of policies that grows at its end. */
struct queue {
    struct ast_policy *first, **end;
    size_t n;
};

struct loading {
    struct policy_set *set;
    struct buf tokens;
    struct queue policies, templates;       /* of all sources; links join the policies */
    struct ast_link *links, **links_end;
    size_t named;                           /* policies and templates so far: POLICY_IDS_POSITIONAL */
    unsigned flags;
    struct errinfo *info;
};

static void push(struct queue *q, struct ast_policy *p)
{
    p->next = NULL;
    *q->end = p;
    q->end = &p->next;
    q->n++;
}

static enum err too_large(struct errinfo *info)
{
    return err_set(info, E_CALL_TOO_LARGE, "the policies need more memory than allowed");
}

static enum err name_policies(struct loading *l, const struct ast_file *file, uint32_t number, struct str name)
{
    struct arena *a = &l->set->arena;
    size_t k = 0;

    for (struct ast_policy *p = file->first; p; p = p->next, k++) {
        const struct str *id = ast_annotation(p, "id");

        p->file = number;
        if (p->id.p)
            continue;                       /* named in its JSON */
        if (l->flags & POLICY_IDS_POSITIONAL)
            p->id = arena_printf(a, "policy%zu", l->named + k);
        else if (id && id->len)
            p->id = *id;
        else if (name.len)
            p->id = arena_printf(a, "%.*s#%zu", STR_ARG(name), k);
        else
            p->id = arena_printf(a, "policy%zu", k);
        if (!p->id.p)
            return too_large(l->info);
    }
    return OK;
}

static enum err load_source(struct loading *l, const struct policy_source *source, uint32_t number)
{
    struct arena *a = &l->set->arena;
    struct str text = arena_str(a, source->text), name = arena_str(a, source->name);
    struct str shown = name.len ? name : STR("policies");
    struct ast_file file = { 0 };
    struct ast_policy *next;
    enum err e;

    if (arena_overflowed(a))
        return too_large(l->info);
    l->set->files[number] = name;
    buf_add_str(&l->tokens, name);
    buf_add_c(&l->tokens, '\n');
    e = source->json ? ast_parse_json(a, shown, text, &l->tokens, &file, l->info)
        : ast_parse(a, shown, text, &l->tokens, &file, l->info);
    if (e)
        return e;
    buf_add_c(&l->tokens, '\n');            /* an empty line: no token is empty, so files cannot run together */
    e = name_policies(l, &file, number, name);
    for (struct ast_policy *p = file.first; p && !e; p = p->next)
        e = budget_read(a, shown, p, l->info);
    if (e)
        return e;
    for (struct ast_policy *p = file.first; p; p = next) {
        next = p->next;
        push(ast_is_template(p) ? &l->templates : &l->policies, p);
    }
    *l->links_end = file.links;
    while (*l->links_end)
        l->links_end = &(*l->links_end)->next;
    l->named += file.n;
    return OK;
}

/* Fills a slot; whether the link gives what the template asks for, and nothing else. */
static bool fill(struct ast_scope *s, struct policy_uid *value)
{
    if (ast_scope_slot(s) != (value != NULL))
        return false;
    if (value) {
        s->uids = value;
        s->n = 1;
    }
    return true;
}

static const char *slots_of(const struct ast_policy *template)
{
    if (!ast_scope_slot(&template->resource))
        return "?principal";
    return ast_scope_slot(&template->principal) ? "?principal and ?resource" : "?resource";
}

static enum err make_link(struct loading *l, const struct ast_link *link, const struct ast_policy *template)
{
    struct ast_policy *p = ARENA_NEW(&l->set->arena, struct ast_policy);

    if (!p)
        return too_large(l->info);
    if (!template)
        return err_set(l->info, E_CONFIG, "%.*s: there is no template `%.*s`", STR_ARG(link->where),
            STR_ARG(link->template));
    *p = *template;
    p->of = template;
    p->id = link->id;
    if (!fill(&p->principal, link->principal) || !fill(&p->resource, link->resource))
        return err_set(l->info, E_CONFIG, "%.*s: template `%.*s` has %s, and a link gives a value for each and for "
            "nothing else", STR_ARG(link->where), STR_ARG(link->template), slots_of(template));
    push(&l->policies, p);
    return OK;
}

static enum err make_links(struct loading *l)
{
    struct map templates = MAP_INIT;
    enum err e = OK;

    for (struct ast_policy *p = l->templates.first; p && l->links; p = p->next)
        map_put(&templates, p->id, p);
    for (const struct ast_link *k = l->links; k && !e; k = k->next)
        e = make_link(l, k, map_get(&templates, k->template));
    map_release(&templates);
    return e;
}

static enum err check_ids_of(struct loading *l, const struct queue *q, struct map *seen)
{
    enum err e = OK;

    for (struct ast_policy *p = q->first; p && !e; p = p->next) {
        const struct ast_policy *other = map_get(seen, p->id);

        if (other)
            e = err_set(l->info, E_CONFIG, "%.*s:%u:%u: there is a policy with the id `%.*s` already, at %.*s:%u:%u",
                STR_ARG(l->set->files[p->file]), p->line, p->column, STR_ARG(p->id),
                STR_ARG(l->set->files[other->file]), other->line, other->column);
        else
            map_put(seen, p->id, p);
    }
    return e;
}

/* Policies, links and templates share one space of names. */
static enum err check_ids(struct loading *l)
{
    struct map seen = MAP_INIT;
    enum err e = check_ids_of(l, &l->templates, &seen);

    if (!e)
        e = check_ids_of(l, &l->policies, &seen);
    map_release(&seen);
    return e;
}

static void make_version(struct loading *l)
{
    uint8_t digest[SHA256_LEN];
    struct buf hex = BUF_INIT(2 * SHA256_LEN);

    sha256(l->tokens.p, l->tokens.len, digest);
    buf_add_hex(&hex, digest, sizeof(digest));
    ASSERT(hex.len == 2 * SHA256_LEN);
    memcpy(l->set->version, hex.p, hex.len);
    l->set->version[hex.len] = '\0';
    buf_release(&hex);
}

static enum err load(struct loading *l, const struct policy_source *sources, size_t n)
{
    enum err e = OK;

    l->set->files = ARENA_ARRAY(&l->set->arena, struct str, n ? n : 1);
    if (!l->set->files || n > UINT32_MAX)
        return too_large(l->info);
    for (size_t i = 0; i < n && !e; i++)
        e = load_source(l, &sources[i], (uint32_t)i);
    if (!e)
        e = make_links(l);
    if (!e)
        e = check_ids(l);
    if (!e && l->tokens.overflow)
        e = too_large(l->info);
    if (!e)
        e = program_compile(l->set, l->policies.first, l->policies.n, l->info);
    l->set->templates = l->templates.first;
    l->set->n_templates = (uint32_t)l->templates.n;
    if (!e && index_build(l->set))
        e = too_large(l->info);
    if (!e)
        make_version(l);
    return e;
}

enum err policy_set_parse(const struct policy_source *sources, size_t n, unsigned flags, struct policy_set **ret,
    struct errinfo *info)
{
    struct policy_set *set = calloc(1, sizeof(*set));
    struct loading l = { .set = set, .tokens = BUF_INIT(TOKENS_MAX), .flags = flags, .info = info };
    enum err e;

    ASSERT(set != NULL);
    set->magic = POLICY_SET_MAGIC;
    atomic_init(&set->refs, 1);
    arena_init(&set->arena, SET_MAX);
    l.policies.end = &l.policies.first;
    l.templates.end = &l.templates.first;
    l.links_end = &l.links;
    e = load(&l, sources, n);
    buf_release(&l.tokens);
    if (e)
        policy_set_unref(set);
    else
        *ret = set;
    return e;
}

struct policy_set *policy_set_ref(struct policy_set *set)
{
    MAGIC_CHECK(set, POLICY_SET_MAGIC);
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

struct policy_set *policy_set_unref(struct policy_set *set)
{
    if (!set)
        return NULL;
    MAGIC_CHECK(set, POLICY_SET_MAGIC);
    if (atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) == 1) {
        set->magic = 0;
        arena_release(&set->arena);
        free(set);
    }
    return NULL;
}

const char *policy_set_version(const struct policy_set *set)
{
    return set->version;
}

size_t policy_set_count(const struct policy_set *set)
{
    return set->n_policies;
}

size_t policy_set_template_count(const struct policy_set *set)
{
    return set->n_templates;
}

struct policy_info policy_set_info(const struct policy_set *set, size_t number)
{
    const struct program_name *n = &set->names[number];

    ASSERT(number < set->n_policies);
    return (struct policy_info){
        .id = n->id, .file = set->files[n->ast->file], .template = n->ast->of ? n->ast->of->id : STR_NULL,
        .line = n->ast->line, .column = n->ast->column,
        .forbid = n->ast->forbid, .approval = set->policies[number].approval, .role = n->role,
    };
}

struct str policy_set_id(const struct policy_set *set, size_t number)
{
    ASSERT(number < set->n_policies);
    return set->names[number].id;
}

const struct policy_budget *policy_set_budgets(const struct policy_set *set, size_t number, uint32_t *ret_n)
{
    ASSERT(number < set->n_policies);
    *ret_n = set->names[number].ast->n_budgets;
    return set->names[number].ast->budgets;
}

struct str policy_set_annotation(const struct policy_set *set, size_t number, const char *key)
{
    const struct str *value;

    ASSERT(number < set->n_policies);
    value = ast_annotation(set->names[number].ast, key);
    return value ? *value : STR_NULL;
}
