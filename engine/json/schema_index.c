/*
 * schema_index.c -- where the subschemas of a document are, what they are called, and where references lead
 *
 * Every subschema is a place, found by walking the keywords that hold schemas; what stands under unknown keywords is
 * not a schema until a reference points at it.  A document root and every subschema with $id begin a resource, named
 * by an absolute URI; anchors belong to their resource.  A document that is referred to is built in, or the resolver
 * knows it, or the reference is refused: nothing is fetched.
 */
#include "base/check.h"
#include "base/map.h"
#include "json/schema_internal.h"

enum holds { HOLDS_SCHEMA, HOLDS_LIST, HOLDS_MAP, HOLDS_MAP_OR_LISTS };

static const struct keyword {
    const char *name;
    enum holds holds;
} keywords[] = {
    { "$defs", HOLDS_MAP }, { "definitions", HOLDS_MAP }, { "properties", HOLDS_MAP },
    { "patternProperties", HOLDS_MAP }, { "dependentSchemas", HOLDS_MAP },
    { "allOf", HOLDS_LIST }, { "anyOf", HOLDS_LIST }, { "oneOf", HOLDS_LIST }, { "prefixItems", HOLDS_LIST },
    { "additionalProperties", HOLDS_SCHEMA }, { "propertyNames", HOLDS_SCHEMA }, { "items", HOLDS_SCHEMA },
    { "contains", HOLDS_SCHEMA }, { "not", HOLDS_SCHEMA }, { "if", HOLDS_SCHEMA }, { "then", HOLDS_SCHEMA },
    { "else", HOLDS_SCHEMA }, { "unevaluatedItems", HOLDS_SCHEMA }, { "unevaluatedProperties", HOLDS_SCHEMA },
    { "contentSchema", HOLDS_SCHEMA }, { "dependencies", HOLDS_MAP_OR_LISTS },
};

static enum err place_add(struct build *b, const struct json *at, struct place *parent, struct str step,
    struct place **ret);

struct place *index_place(struct build *b, const struct json *at)
{
    return map_get(b->by_node, str_n(&at, sizeof(at)));
}

/* --- names ------------------------------------------------------------------------------------------------------ */

/* A vocabulary of this dialect as its bit, 0 for any other. */
static unsigned vocabulary(struct str uri)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {
        { "core", VOCAB_CORE }, { "applicator", VOCAB_APPLICATOR }, { "unevaluated", VOCAB_UNEVALUATED },
        { "validation", VOCAB_VALIDATION }, { "meta-data", VOCAB_META_DATA },
        { "format-annotation", VOCAB_FORMAT_ANNOTATION }, { "content", VOCAB_CONTENT },
        { "format-assertion", VOCAB_FORMAT_ASSERTION },
    };
    const struct str prefix = STR("https://json-schema.org/draft/2020-12/vocab/");

    if (!str_starts(uri, prefix))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (str_is(str_from(uri, prefix.len), known[i].name))
            return known[i].bit;
    return 0;
}

/* The vocabularies that somebody's own metaschema asks for. */
static enum err custom_dialect(struct build *b, struct place *p, const struct json *meta)
{
    const struct json *list = json_get(meta, "$vocabulary");
    unsigned all = VOCAB_CORE;

    if (!str_is(json_str(json_get(meta, "$schema")), SCHEMA_DIALECT))
        return build_refuse(b, p, "$schema", "names a dialect that is not based on draft 2020-12");
    if (!json_is(list, JSON_OBJECT))
        return OK;
    for (const struct json *m = json_first(list); m; m = json_next(m)) {
        unsigned bit = vocabulary(json_key(m));
        bool required = false;

        if (!json_bool(m, &required) || (required && !bit))
            return build_refuse(b, p, "$schema", "needs a vocabulary that is not supported: %.*s",
                STR_ARG(json_key(m)));
        all |= bit;
    }
    p->resource->vocabularies = all;
    return OK;
}

static enum err dialect(struct build *b, struct place *p)
{
    const struct json *j = json_get(p->at, "$schema"), *meta = NULL;
    struct str uri = json_str(j);

    if (!j)
        return OK;
    if (str_ends(uri, STR("#")))
        uri.len--;
    if (str_is(uri, SCHEMA_DIALECT)) {
        p->resource->vocabularies = VOCAB_STANDARD;
        return OK;
    }
    if (b->options->resolve && uri.len)
        meta = b->options->resolve(b->options->ctx, uri);
    if (!json_is(meta, JSON_OBJECT))
        return build_refuse(b, p, "$schema", "this dialect is not supported (only draft 2020-12 is): %.*s",
            STR_ARG(uri));
    return custom_dialect(b, p, meta);
}

static enum err resource_name(struct build *b, struct place *p, struct resource *r, struct str uri)
{
    if (uri.len && map_get(b->by_uri, uri))
        return build_refuse(b, p, "$id", "two schemas have this identifier");
    map_put(b->by_uri, uri, r);
    return OK;
}

/* Begins a resource at p, `base` being what its $id is relative to. */
static enum err resource_add(struct build *b, struct place *p, struct str base)
{
    const struct json *id = json_get(p->at, "$id");
    struct str text = json_str(id), head, fragment;
    struct resource *r;
    enum err e;

    if (id && !json_is(id, JSON_STRING))
        return build_refuse(b, p, "$id", "must be a string");
    if (str_cut(text, '#', &head, &fragment) && fragment.len)
        return build_refuse(b, p, "$id", "must not have a fragment");
    r = ARENA_NEW(&b->tmp, struct resource);
    if (!r || b->n_resources == SCHEMA_SUBSCHEMAS_MAX)
        return build_too_large(b);
    r->uri = uri_resolve(&b->tmp, base, text);
    r->root = p;
    r->number = b->n_resources;
    r->vocabularies = p->resource ? p->resource->vocabularies : VOCAB_STANDARD;
    b->resources[b->n_resources++] = r;
    p->resource = r;
    if (arena_overflowed(&b->tmp))
        return build_too_large(b);
    e = resource_name(b, p, r, r->uri);
    return e ? e : dialect(b, p);
}

static struct str anchor_key(struct build *b, const struct resource *r, struct str name)
{
    return arena_printf(&b->tmp, "%u#%.*s", r->number, STR_ARG(name));
}

struct anchor *index_anchor(struct build *b, const struct resource *r, struct str name)
{
    struct str key = anchor_key(b, r, name);

    return key.p ? map_get(b->by_anchor, key) : NULL;
}

static enum err anchor_add(struct build *b, struct place *p, const char *keyword, bool dynamic)
{
    const struct json *j = json_get(p->at, keyword);
    struct str name = json_str(j), key;
    struct anchor *anchor;

    if (!j)
        return OK;
    if (name.len == 0 || memchr(name.p, '/', name.len))
        return build_refuse(b, p, keyword, "must be a plain name");
    anchor = index_anchor(b, p->resource, name);
    if (anchor && anchor->place != p)
        return build_refuse(b, p, keyword, "two schemas have this anchor");
    if (anchor) {                               /* both kinds with one name on one schema */
        anchor->dynamic |= dynamic;
        return OK;
    }
    anchor = ARENA_NEW(&b->tmp, struct anchor);
    key = anchor_key(b, p->resource, name);
    if (!anchor || !key.p)
        return build_too_large(b);
    *anchor = (struct anchor){ .place = p, .dynamic = dynamic };
    map_put(b->by_anchor, key, anchor);
    return OK;
}

/* --- the walk --------------------------------------------------------------------------------------------------- */

static enum err child_add(struct build *b, const struct json *at, struct place *parent, const char *keyword,
    const struct json *member, uint32_t i)
{
    struct place *p;
    struct str step;

    if (index_place(b, at))
        return OK;
    if (at == member && json_key(member).p)
        step = arena_printf(&b->tmp, "/%s/%.*s", keyword, (int)(json_key(at).len < 64 ? json_key(at).len : 64),
            json_key(at).p);
    else
        step = member ? arena_printf(&b->tmp, "/%s/%u", keyword, i) : arena_printf(&b->tmp, "/%s", keyword);
    return place_add(b, at, parent, step, &p);
}

static enum err children_add(struct build *b, struct place *p, const struct keyword *k, const struct json *value)
{
    enum json_type type = k->holds == HOLDS_LIST ? JSON_ARRAY : JSON_OBJECT;
    uint32_t i = 0;

    if (k->holds == HOLDS_SCHEMA)
        return child_add(b, value, p, k->name, NULL, 0);
    if (!json_is(value, type))
        return build_refuse(b, p, k->name, type == JSON_ARRAY ? "must be an array of schemas" :
            "must be an object of schemas");
    for (const struct json *m = json_first(value); m; m = json_next(m)) {
        enum err e = OK;

        if (k->holds != HOLDS_MAP_OR_LISTS || !json_is(m, JSON_ARRAY))
            e = child_add(b, m, p, k->name, m, i);
        if (e)
            return e;
        i++;
    }
    return OK;
}

static enum err members_add(struct build *b, struct place *p)
{
    for (const struct json *m = json_first(p->at); m; m = json_next(m)) {
        for (size_t i = 0; i < ARRAY_LEN(keywords); i++) {
            enum err e;

            if (!str_is(json_key(m), keywords[i].name))
                continue;
            e = children_add(b, p, &keywords[i], m);
            if (e)
                return e;
            break;
        }
    }
    return OK;
}

static enum err place_new(struct build *b, const struct json *at, struct place *parent, struct str step,
    struct place **ret)
{
    struct place *p = ARENA_NEW(&b->tmp, struct place);
    struct sub *sub = ARENA_NEW(&b->schema->arena, struct sub);
    bool yes;

    if (!p || !sub || arena_overflowed(&b->tmp))
        return build_too_large(b);
    *p = (struct place){ .at = at, .sub = sub, .parent = parent, .step = step, .depth = 1 };
    if (parent) {
        p->resource = parent->resource;
        p->document = parent->document;
        p->own = parent->own;
        p->depth = parent->depth + 1;
    }
    if (p->depth > SCHEMA_DEPTH_MAX)
        return build_refuse(b, p, NULL, "is nested more than %d schemas deep", SCHEMA_DEPTH_MAX);
    if (b->n_places == SCHEMA_SUBSCHEMAS_MAX)
        return build_refuse(b, p, NULL, "there are more than %d subschemas", SCHEMA_SUBSCHEMAS_MAX);
    b->n_places++;
    sub->kind = SUB_ANY;
    sub->types = T_ALL;
    if (json_bool(at, &yes)) {
        sub->kind = yes ? SUB_ANY : SUB_NONE;
        sub->types = yes ? T_ALL : 0;
    } else if (!json_is(at, JSON_OBJECT)) {
        return build_refuse(b, p, NULL, "a schema must be an object or a boolean");
    }
    map_put(b->by_node, str_n(&p->at, sizeof(p->at)), p);
    *ret = p;
    return OK;
}

static enum err place_fill(struct build *b, struct place *p)
{
    enum err e = OK;

    if (p->own)
        build_want(b, p);
    if (p->parent && json_get(p->at, "$id"))
        e = resource_add(b, p, p->parent->resource->uri);
    if (!e)
        e = anchor_add(b, p, "$anchor", false);
    if (!e)
        e = anchor_add(b, p, "$dynamicAnchor", true);
    if (!e)
        e = members_add(b, p);
    return e;
}

static enum err place_add(struct build *b, const struct json *at, struct place *parent, struct str step,
    struct place **ret)
{
    enum err e = place_new(b, at, parent, step, ret);

    return e ? e : place_fill(b, *ret);
}

enum err index_document(struct build *b, const struct json *root, struct str uri, bool own, struct place **ret)
{
    struct place *p;
    enum err e = place_new(b, root, NULL, STR(""), &p);

    if (e)
        return e;
    p->own = own;
    if (!own)
        p->document = uri;
    e = resource_add(b, p, uri);
    if (e)
        return e;
    if (uri.len && !str_eq(uri, p->resource->uri)) {    /* known by where it came from, too */
        e = resource_name(b, p, p->resource, uri);
        if (e)
            return e;
    }
    *ret = p;
    return place_fill(b, p);
}

/* --- references ------------------------------------------------------------------------------------------------- */

static enum err document_find(struct build *b, const struct place *p, const char *keyword, struct str uri,
    struct resource **ret)
{
    struct str text = schema_meta_text(uri);
    const struct json *root = NULL;
    struct json *built_in = NULL;
    struct place *place;
    enum err e;

    *ret = map_get(b->by_uri, uri);
    if (*ret)
        return OK;
    if (text.len) {
        if (json_parse(&b->tmp, text, NULL, &built_in, NULL) != OK)
            return build_too_large(b);
        root = built_in;
    } else if (b->options->resolve) {
        root = b->options->resolve(b->options->ctx, uri);
    }
    if (!root)
        return build_refuse(b, p, keyword, "leads to a document that is not here (nothing is fetched): %.*s",
            STR_ARG(uri));
    e = index_document(b, root, uri, false, &place);
    if (!e)
        *ret = place->resource;
    return e;
}

/* One step of a JSON Pointer, "~1" and "~0" undone; NULL if there is nothing. */
static const struct json *pointer_step(struct arena *a, const struct json *at, struct str token)
{
    struct str name = { arena_z(a, token), 0 };
    char *p = (char *)(uintptr_t)name.p;
    uint64_t i;

    if (!p)
        return NULL;
    if (json_is(at, JSON_ARRAY)) {
        bool plain = token.len > 0 && (token.len == 1 || token.p[0] != '0') && str_to_u64(token, &i);

        return plain && i < json_len(at) ? json_at(at, i) : NULL;
    }
    for (size_t k = 0; k < token.len; k++) {
        char c = token.p[k];

        if (c == '~') {
            if (++k == token.len || (token.p[k] != '0' && token.p[k] != '1'))
                return NULL;
            c = token.p[k] == '0' ? '~' : '/';
        }
        p[name.len++] = c;
    }
    return json_get_str(at, name);
}

/* Follows a pointer from a resource's root, noting the schemas it passes: the last one is whose base URI holds. */
static enum err pointer_follow(struct build *b, const struct place *p, const char *keyword, struct place *root,
    struct str pointer, struct place **ret)
{
    const struct json *at = root->at;
    struct place *here = root;
    struct str rest = pointer, since = pointer;

    while (rest.len) {
        struct str token = str_from(rest, 1), next;
        struct place *found;

        if (str_cut(token, '/', &token, &next))
            rest = (struct str){ next.p - 1, next.len + 1 };
        else
            rest = STR_NULL;
        at = pointer_step(&b->tmp, at, token);
        if (!at)
            return build_refuse(b, p, keyword, "leads nowhere: #%.*s", STR_ARG(pointer));
        found = index_place(b, at);
        if (found) {
            here = found;
            since = rest;
        }
    }
    *ret = here;
    return here->at == at ? OK : place_add(b, at, here, since, ret);
}

enum err index_resolve(struct build *b, struct place *p, const char *keyword, struct str ref, struct place **ret,
    struct str *ret_name)
{
    struct str head = ref, raw = STR_NULL, fragment;
    struct resource *r = p->resource;
    struct anchor *anchor;
    enum err e = OK;

    *ret_name = STR_NULL;
    str_cut(ref, '#', &head, &raw);
    if (head.len)
        e = document_find(b, p, keyword, uri_resolve(&b->tmp, r->uri, head), &r);
    if (e)
        return e;
    if (!uri_unescape(&b->tmp, raw, &fragment))
        return build_refuse(b, p, keyword, "has a malformed fragment");
    *ret = r->root;
    if (fragment.len == 0)
        return OK;
    if (fragment.p[0] == '/')
        return pointer_follow(b, p, keyword, r->root, fragment, ret);
    anchor = index_anchor(b, r, fragment);
    if (!anchor)
        return build_refuse(b, p, keyword, "leads to an anchor that is not there: #%.*s", STR_ARG(fragment));
    *ret = anchor->place;
    *ret_name = fragment;
    return OK;
}
