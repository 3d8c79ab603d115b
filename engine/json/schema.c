/*
 * schema.c -- from a document to a program, and from a value to a verdict
 *
 * Compiling takes two turns over a growing set of places: the index finds the subschemas of a document at once, the
 * queue then compiles those that are asked for, which may lead to further documents.  Everything of the document given
 * is compiled, so that a mistake in an unused definition is found; of other documents only what is reached.
 */
#include "json/schema.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "json/schema_internal.h"

enum { SCHEMA_MAGIC = 0x5ce3a001, ARENA_MAX = 64 << 20 };

/* --- refusing --------------------------------------------------------------------------------------------------- */

/* The pointer of a place, from the end: what does not fit is cut at the front. */
static const char *place_pointer(const struct place *p, char *text, size_t size)
{
    char *at = text + size - 1;

    *at = 0;
    for (; p; p = p->parent) {
        if (p->step.len > (size_t)(at - text)) {
            size_t room = (size_t)(at - text);

            memset(text, '.', room < 3 ? room : 3);
            return room < 3 ? text : memmove(at - 3, text, 3);
        }
        at -= p->step.len;
        memcpy(at, p->step.p, p->step.len);
    }
    return at;
}

enum err build_refuse(struct build *b, const struct place *p, const char *keyword, const char *fmt, ...)
{
    char where[180], what[200];
    struct str document = p->document;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    if (document.len > 80)
        document.len = 80;
    return err_set(b->info, E_CONFIG, "%.*s#%s%s%s: %s", STR_ARG(document), place_pointer(p, where, sizeof(where)),
        keyword ? "/" : "", keyword ? keyword : "", what);
}

enum err build_too_large(struct build *b)
{
    return err_set(b->info, E_CONFIG, "#: the schema is too large");
}

/* --- building --------------------------------------------------------------------------------------------------- */

const struct sub *build_want(struct build *b, struct place *p)
{
    if (!p->queued) {
        ASSERT(b->n_queue < SCHEMA_SUBSCHEMAS_MAX);
        p->queued = true;
        b->queue[b->n_queue++] = p;
    }
    return p->sub;
}

static enum err queue_run(struct build *b)
{
    while (b->n_done < b->n_queue) {
        enum err e = compile_place(b, b->queue[b->n_done++]);

        if (e)
            return e;
        if (arena_overflowed(&b->tmp) || arena_overflowed(&b->schema->arena))
            return build_too_large(b);
    }
    return OK;
}

/* Has the anchors compiled to which dynamic references may lead; true if that was something new. */
static bool dynamic_want(struct build *b)
{
    uint32_t before = b->n_queue;

    for (struct dynamic_use *use = b->dynamic_uses; use; use = use->next) {
        for (uint32_t i = 0; i < b->n_resources; i++) {
            struct anchor *anchor = index_anchor(b, b->resources[i], use->name);

            if (anchor && anchor->dynamic)
                build_want(b, anchor->place);
        }
    }
    return b->n_queue > before;
}

static const struct sub **dynamic_table(struct build *b, struct str name)
{
    const struct sub **table = ARENA_ARRAY(&b->schema->arena, const struct sub *, b->n_resources);

    for (uint32_t i = 0; table && i < b->n_resources; i++) {
        struct anchor *anchor = index_anchor(b, b->resources[i], name);

        table[i] = anchor && anchor->dynamic ? anchor->place->sub : NULL;
    }
    return table;
}

static enum err dynamic_fill(struct build *b)
{
    struct map tables = MAP_INIT;
    enum err e = OK;

    for (struct dynamic_use *use = b->dynamic_uses; use && !e; use = use->next) {
        const struct sub **table = map_get(&tables, use->name);

        if (!table) {
            table = dynamic_table(b, use->name);
            if (table)
                map_put(&tables, use->name, table);
        }
        use->rule->by_resource = table;
        use->rule->n = b->n_resources;
        if (!table || arena_overflowed(&b->tmp))
            e = build_too_large(b);
    }
    map_release(&tables);
    return e;
}

/*
 * How many subschemas follow each other from here on the same value, whatever the value: 0 if without end or more than
 * the machine will follow.
 */
static unsigned height(struct sub *sub, unsigned left)
{
    unsigned most = 0;

    if (sub->height)
        return sub->height <= left ? sub->height : 0;
    if (left == 0)
        return 0;
    for (uint32_t i = 0; i < sub->n_ops; i++) {
        unsigned h;

        if (sub->ops[i].code != OP_SUB)
            continue;
        h = height((struct sub *)(uintptr_t)sub->ops[i].u.sub, left - 1);
        if (h == 0)
            return 0;
        most = h > most ? h : most;
    }
    sub->height = (uint8_t)(most + 1);
    return sub->height;
}

static enum err heights_check(struct build *b)
{
    for (uint32_t i = 0; i < b->n_queue; i++)
        if (height(b->queue[i]->sub, SCHEMA_DEPTH_MAX) == 0)
            return build_refuse(b, b->queue[i], NULL, "refers to itself without end, or through more than %d schemas",
                SCHEMA_DEPTH_MAX);
    return OK;
}

static enum err build_all(struct build *b, const struct json *doc)
{
    struct place *root;
    enum err e = index_document(b, doc, b->options->base_uri, true, &root);

    if (e)
        return e;
    build_want(b, root);
    do {
        e = queue_run(b);
        if (e)
            return e;
    } while (dynamic_want(b));
    e = dynamic_fill(b);
    if (!e)
        e = heights_check(b);
    b->schema->root = root->sub;
    return e;
}

/* --- the interface ---------------------------------------------------------------------------------------------- */

static enum err metaschema_check(const struct json *doc, struct errinfo *info)
{
    const struct str text = STR("{\"$ref\":\"" SCHEMA_DIALECT "\"}");
    struct schema_fault fault;
    struct schema *meta = NULL;
    struct json *j = NULL;
    struct arena a;
    enum err e;

    arena_init(&a, ARENA_MAX);
    e = json_parse(&a, text, NULL, &j, NULL);
    if (!e)
        e = schema_compile(j, &meta, info);
    if (!e && schema_check(meta, doc, &a, &fault) != OK)
        e = err_set(info, E_CONFIG, "#%s: %s", fault.where, fault.what);
    schema_free(meta);
    arena_release(&a);
    return e;
}

static enum err compile(const struct json *doc, const struct schema_options *options, struct schema *s,
    struct errinfo *info)
{
    struct map by_node = MAP_INIT, by_uri = MAP_INIT, by_anchor = MAP_INIT, by_pattern = MAP_INIT;
    struct build b = {
        .schema = s, .options = options, .info = info, .by_node = &by_node, .by_uri = &by_uri,
        .by_anchor = &by_anchor, .by_pattern = &by_pattern,
    };
    enum err e;

    arena_init(&b.tmp, ARENA_MAX);
    /* not zeroed: of most schemas a few entries are used, and a page that is not touched costs nothing */
    b.queue = arena_alloc(&b.tmp, SCHEMA_SUBSCHEMAS_MAX * sizeof(*b.queue));
    b.resources = arena_alloc(&b.tmp, SCHEMA_SUBSCHEMAS_MAX * sizeof(*b.resources));
    e = b.queue && b.resources ? build_all(&b, doc) : build_too_large(&b);
    if (!e && (arena_overflowed(&b.tmp) || arena_overflowed(&s->arena)))
        e = build_too_large(&b);
    free(b.ops);
    map_release(&by_node);
    map_release(&by_uri);
    map_release(&by_anchor);
    map_release(&by_pattern);
    arena_release(&b.tmp);
    return e;
}

enum err schema_compile_with(const struct json *doc, const struct schema_options *options, struct schema **ret,
    struct errinfo *info)
{
    static const struct schema_options defaults;
    struct schema *s;
    enum err e = OK;

    if (!options)
        options = &defaults;
    if (!doc)
        return err_set(info, E_CONFIG, "#: there is no schema");
    if (options->check_metaschema)
        e = metaschema_check(doc, info);
    if (e)
        return e;
    s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(info, E_CONFIG, "#: the schema is too large");
    s->magic = SCHEMA_MAGIC;
    arena_init(&s->arena, ARENA_MAX);
    e = compile(doc, options, s, info);
    if (e) {
        schema_free(s);
        return e;
    }
    *ret = s;
    return OK;
}

enum err schema_compile(const struct json *doc, struct schema **ret, struct errinfo *info)
{
    return schema_compile_with(doc, NULL, ret, info);
}

enum err schema_check(const struct schema *s, const struct json *value, struct arena *scratch,
    struct schema_fault *fault)
{
    MAGIC_CHECK(s, SCHEMA_MAGIC);
    ASSERT(scratch != NULL);
    return run_schema(s, value, scratch, fault) ? OK : E_ARGS_INVALID;
}

void schema_free(struct schema *s)
{
    if (!s)
        return;
    MAGIC_CHECK(s, SCHEMA_MAGIC);
    s->magic = 0;
    regex_free(s->regexes);
    arena_release(&s->arena);
    free(s);
}
