/*
 * schema_text.c -- the grammar of schemas in Cedar's own syntax
 *
 *   Schema     = { Annotations ( 'namespace' Path '{' { Annotations Decl } '}' | Decl ) }
 *   Decl       = Entity | Action | Common
 *   Entity     = 'entity' Ident { ',' Ident } ( [ 'in' Types ] [ [ '=' ] Record ] [ 'tags' Type ]
 *                | 'enum' '[' STRING { ',' STRING } ']' ) ';'
 *   Action     = 'action' Name { ',' Name } [ 'in' ( Ref | '[' Ref { ',' Ref } ']' ) ]
 *                [ 'appliesTo' '{' Applies { ',' Applies } [ ',' ] '}' ] [ 'attributes' '{' '}' ] ';'
 *   Applies    = ( 'principal' | 'resource' ) ':' Types | 'context' ':' ( Path | Record )
 *   Common     = 'type' Ident '=' Type ';'
 *   Type       = Path | 'Set' '<' Type '>' | Record
 *   Record     = '{' [ Attr { ',' Attr } [ ',' ] ] '}'
 *   Attr       = Annotations Name [ '?' ] ':' Type
 *   Types      = Path | '[' [ Path { ',' Path } ] ']'
 *   Ref        = Name | Path '::' STRING
 *   Name       = Ident | STRING
 *   Path       = Ident { '::' Ident }
 *
 * The words of this grammar are identifiers too, wherever an identifier is expected; the reserved words of policies
 * are not.  An attribute that is given twice counts as given last, as in the reference implementation.
 */
#include "base/check.h"
#include "policy/ast.h"
#include "policy/parse.h"
#include "policy/schema_decl.h"

struct reader {
    struct parser p;
    struct decl_schema *s;
    struct decl_namespace **end;
};

static size_t place(const struct reader *r, const struct token *t)
{
    return (size_t)(t->text.p - r->s->text.p);
}

static struct decl_type *read_type(struct reader *r);

/* --- names -------------------------------------------------------------------------------------------------------- */

static bool ident(struct reader *r, const char *what, struct str *ret)
{
    if (r->p.tok.kind == TOK_IDENT && str_is(r->p.tok.text, "__cedar")) {
        *ret = r->p.tok.text;
        parse_advance(&r->p);
        return !r->p.err;
    }
    return parse_ident(&r->p, what, ret);
}

static bool name(struct reader *r, const char *what, struct str *ret)
{
    return r->p.tok.kind == TOK_STRING ? parse_string(&r->p, ret) : ident(r, what, ret);
}

/* Stops before a "::" that is followed by a string. */
static bool path(struct reader *r, const char *what, struct str *ret)
{
    struct str joined, part;

    if (!ident(r, what, &joined))
        return false;
    while (r->p.tok.kind == TOK_PATH && r->p.ahead.kind != TOK_STRING) {
        parse_advance(&r->p);
        if (!ident(r, "a name after `::`", &part))
            return false;
        joined = arena_printf(r->p.arena, "%.*s::%.*s", STR_ARG(joined), STR_ARG(part));
        if (!joined.p)
            return parse_memory(&r->p);
        if (joined.len > 4096)
            return parse_fail(&r->p, &r->p.tok, "a name must not be longer than 4096 bytes");
    }
    *ret = joined;
    return true;
}

static bool annotations(struct reader *r)
{
    struct str seen[64], value;
    size_t n = 0;

    while (parse_eat(&r->p, TOK_AT)) {
        if (r->p.tok.kind != TOK_IDENT)
            return parse_wanted(&r->p, "the name of an annotation");
        for (size_t i = 0; i < n; i++)
            if (str_eq(seen[i], r->p.tok.text))
                return parse_fail(&r->p, &r->p.tok, "there are two annotations @%.*s here", STR_ARG(seen[i]));
        if (n == ARRAY_LEN(seen))
            return parse_fail(&r->p, &r->p.tok, "one declaration has at most %zu annotations", n);
        seen[n++] = r->p.tok.text;
        parse_advance(&r->p);
        if (parse_eat(&r->p, TOK_LPAREN) && (!parse_string(&r->p, &value) || !parse_expect(&r->p, TOK_RPAREN, "`)`")))
            return false;
    }
    return !r->p.err;
}

/* --- types -------------------------------------------------------------------------------------------------------- */

static struct decl_type *new_type(struct reader *r, enum decl_kind kind, size_t at)
{
    struct decl_type *t = ARENA_NEW(r->p.arena, struct decl_type);

    if (!t)
        return parse_memory(&r->p);
    t->kind = kind;
    t->at = at;
    return t;
}

static struct decl_attr *read_attr(struct reader *r)
{
    struct decl_attr *a = ARENA_NEW(r->p.arena, struct decl_attr);

    if (!a)
        return parse_memory(&r->p);
    if (!annotations(r))
        return NULL;
    a->at = place(r, &r->p.tok);
    if (!name(r, "an attribute's name or `}`", &a->key))
        return NULL;
    a->required = !parse_eat(&r->p, TOK_QUESTION);
    if (!parse_expect(&r->p, TOK_COLON, a->required ? "`?` or `:`" : "`:`"))
        return NULL;
    a->type = read_type(r);
    return a->type ? a : NULL;
}

static struct decl_type *read_record(struct reader *r)
{
    struct decl_type *t = new_type(r, DECL_RECORD, place(r, &r->p.tok));
    struct decl_attr **end = t ? &t->attrs : NULL;

    if (!t || !parse_expect(&r->p, TOK_LBRACE, "`{`"))
        return NULL;
    while (!parse_eat(&r->p, TOK_RBRACE)) {
        *end = read_attr(r);
        if (!*end)
            return NULL;
        end = &(*end)->next;
        t->n++;
        if (r->p.tok.kind != TOK_RBRACE && !parse_expect(&r->p, TOK_COMMA, "`,` or `}`"))
            return NULL;
    }
    return r->p.err ? NULL : t;
}

static struct decl_type *read_type(struct reader *r)
{
    struct decl_type *t = NULL;

    if (r->p.err)
        return NULL;
    if (r->p.nest == TYPE_DEPTH_MAX)
        return parse_fail(&r->p, &r->p.tok, "types are nested more than %d deep", TYPE_DEPTH_MAX);
    r->p.nest++;
    if (r->p.tok.kind == TOK_LBRACE) {
        t = read_record(r);
    } else if (parse_at_word(&r->p, "Set") && r->p.ahead.kind == TOK_LT) {
        t = new_type(r, DECL_SET, place(r, &r->p.tok));
        parse_advance(&r->p);
        parse_advance(&r->p);
        if (t && (!(t->elem = read_type(r)) || !parse_expect(&r->p, TOK_GT, "`>`")))
            t = NULL;
    } else {
        t = new_type(r, DECL_NAME, place(r, &r->p.tok));
        if (t && !path(r, "a type", &t->name))
            t = NULL;
    }
    r->p.nest--;
    return r->p.err ? NULL : t;
}

/* --- declarations ------------------------------------------------------------------------------------------------- */

static struct decl_ref *new_ref(struct reader *r)
{
    struct decl_ref *ref = ARENA_NEW(r->p.arena, struct decl_ref);

    if (!ref)
        return parse_memory(&r->p);
    ref->at = place(r, &r->p.tok);
    return ref;
}

/* One type, or a list of them in brackets. */
static bool read_types(struct reader *r, struct decl_ref **ret)
{
    struct decl_ref **end = ret;

    if (!parse_eat(&r->p, TOK_LBRACKET))
        return (*ret = new_ref(r)) && path(r, "the name of an entity type or `[`", &(*ret)->name);
    if (parse_eat(&r->p, TOK_RBRACKET))
        return !r->p.err;
    do {
        *end = new_ref(r);
        if (!*end || !path(r, "the name of an entity type", &(*end)->name))
            return false;
        end = &(*end)->next;
    } while (parse_eat(&r->p, TOK_COMMA));
    return parse_expect(&r->p, TOK_RBRACKET, "`,` or `]`");
}

/* An action: a name, or a type and an id. */
static bool read_ref(struct reader *r, struct decl_ref **ret)
{
    struct decl_ref *ref = *ret = new_ref(r);

    if (!ref)
        return false;
    if (r->p.tok.kind == TOK_IDENT && r->p.ahead.kind == TOK_PATH)
        return path(r, "an action", &ref->name) && parse_expect(&r->p, TOK_PATH, "`::` and the action's id in quotes")
            && parse_string(&r->p, &ref->id);
    return name(r, "an action like \"view\" or Action::\"view\"", &ref->id);
}

static bool read_choices(struct reader *r, struct decl_entity *e)
{
    size_t cap = 0;

    e->has_choices = true;
    if (!parse_expect(&r->p, TOK_LBRACKET, "`[`"))
        return false;
    do {
        if (e->n_choices == cap) {
            struct str *more = ARENA_ARRAY(r->p.arena, struct str, cap ? 2 * cap : 8);

            if (!more)
                return parse_memory(&r->p);
            if (cap)
                memcpy(more, e->choices, cap * sizeof(*more));
            e->choices = more;
            cap = cap ? 2 * cap : 8;
        }
        if (!parse_string(&r->p, &e->choices[e->n_choices++]))
            return false;
    } while (parse_eat(&r->p, TOK_COMMA));
    return parse_expect(&r->p, TOK_RBRACKET, "`,` or `]`");
}

static bool read_entity_body(struct reader *r, struct decl_entity *e)
{
    if (parse_at_word(&r->p, "enum")) {
        parse_advance(&r->p);
        return read_choices(r, e) && parse_expect(&r->p, TOK_SEMI, "`;`");
    }
    if (parse_at_word(&r->p, "in")) {
        parse_advance(&r->p);
        if (!read_types(r, &e->parents))
            return false;
    }
    if (parse_eat(&r->p, TOK_ASSIGN) || r->p.tok.kind == TOK_LBRACE) {
        e->shape = read_record(r);
        if (!e->shape)
            return false;
    }
    if (parse_at_word(&r->p, "tags")) {
        parse_advance(&r->p);
        e->tags = read_type(r);
        if (!e->tags)
            return false;
    }
    return parse_expect(&r->p, TOK_SEMI, e->shape ? "`tags` or `;`" : "`,`, `in`, `enum`, `{`, `tags` or `;`");
}

static bool read_entity(struct reader *r, struct decl_namespace *ns)
{
    struct decl_entity body = { 0 }, *first = NULL, **end = &first;

    do {
        struct decl_entity *e = *end = ARENA_NEW(r->p.arena, struct decl_entity);

        if (!e)
            return parse_memory(&r->p);
        e->at = place(r, &r->p.tok);
        if (!ident(r, "the name of an entity type", &e->name))
            return false;
        end = &e->next;
    } while (parse_eat(&r->p, TOK_COMMA));
    if (!read_entity_body(r, &body))
        return false;
    *ns->entities_end = first;
    ns->entities_end = end;
    for (struct decl_entity *e = first; e; e = e->next) {
        struct decl_entity named = *e;

        *e = body;
        e->name = named.name;
        e->at = named.at;
        e->next = named.next;
    }
    return true;
}

static bool read_common(struct reader *r, struct decl_namespace *ns)
{
    struct decl_common *c = ARENA_NEW(r->p.arena, struct decl_common);

    if (!c)
        return parse_memory(&r->p);
    c->at = place(r, &r->p.tok);
    if (!ident(r, "the name of a type", &c->name) || !parse_expect(&r->p, TOK_ASSIGN, "`=`")
        || !(c->type = read_type(r)) || !parse_expect(&r->p, TOK_SEMI, "`;`"))
        return false;
    *ns->commons_end = c;
    ns->commons_end = &c->next;
    return true;
}

enum { SAID_PRINCIPAL = 1, SAID_RESOURCE = 2, SAID_CONTEXT = 4 };

static bool read_applies(struct reader *r, struct decl_action *a, unsigned *said)
{
    struct token where = r->p.tok;
    struct decl_ref **types;
    unsigned is;

    if (parse_at_word(&r->p, "principal"))
        is = SAID_PRINCIPAL;
    else if (parse_at_word(&r->p, "resource"))
        is = SAID_RESOURCE;
    else if (parse_at_word(&r->p, "context"))
        is = SAID_CONTEXT;
    else
        return parse_wanted(&r->p, "`principal`, `resource` or `context`");
    if (*said & is)
        return parse_fail(&r->p, &where, "`%.*s` is given twice", STR_ARG(where.text));
    *said |= is;
    parse_advance(&r->p);
    if (!parse_expect(&r->p, TOK_COLON, "`:`"))
        return false;
    if (is == SAID_CONTEXT) {
        if (r->p.tok.kind == TOK_LBRACE)
            return (a->context = read_record(r));
        a->context = new_type(r, DECL_COMMON, place(r, &r->p.tok));
        return a->context && path(r, "`{` or the name of a common type", &a->context->name);
    }
    types = is == SAID_PRINCIPAL ? &a->principals : &a->resources;
    if (!read_types(r, types))
        return false;
    return *types || parse_fail(&r->p, &where, "the list of `%.*s` types is empty: leave `appliesTo` out if the action "
        "applies to nothing", STR_ARG(where.text));
}

static bool read_action_body(struct reader *r, struct decl_action *a)
{
    unsigned said = 0;

    if (parse_at_word(&r->p, "in")) {
        struct decl_ref **end = &a->parents;

        parse_advance(&r->p);
        if (!parse_eat(&r->p, TOK_LBRACKET)) {
            if (!read_ref(r, end))
                return false;
        } else {
            do {
                if (!read_ref(r, end))
                    return false;
                end = &(*end)->next;
            } while (parse_eat(&r->p, TOK_COMMA));
            if (!parse_expect(&r->p, TOK_RBRACKET, "`,` or `]`"))
                return false;
        }
    }
    if (parse_at_word(&r->p, "appliesTo")) {
        struct token where = r->p.tok;

        parse_advance(&r->p);
        if (!parse_expect(&r->p, TOK_LBRACE, "`{`"))
            return false;
        do {
            if (!read_applies(r, a, &said))
                return false;
        } while (parse_eat(&r->p, TOK_COMMA) && r->p.tok.kind != TOK_RBRACE);
        if (!parse_expect(&r->p, TOK_RBRACE, "`,` or `}`"))
            return false;
        if (!(said & SAID_PRINCIPAL) || !(said & SAID_RESOURCE))
            return parse_fail(&r->p, &where, "`appliesTo` must name the types of its %s",
                said & SAID_PRINCIPAL ? "resource" : "principal");
    }
    if (parse_at_word(&r->p, "attributes")) {
        parse_advance(&r->p);
        if (!parse_expect(&r->p, TOK_LBRACE, "`{`") || !parse_expect(&r->p, TOK_RBRACE, "`}`: actions have no "
            "attributes"))
            return false;
    }
    return parse_expect(&r->p, TOK_SEMI, said ? "`;`" : "`,`, `in`, `appliesTo` or `;`");
}

static bool read_action(struct reader *r, struct decl_namespace *ns)
{
    struct decl_action body = { 0 }, *first = NULL, **end = &first;

    do {
        struct decl_action *a = *end = ARENA_NEW(r->p.arena, struct decl_action);

        if (!a)
            return parse_memory(&r->p);
        a->at = place(r, &r->p.tok);
        if (!name(r, "the name of an action", &a->id))
            return false;
        end = &a->next;
    } while (parse_eat(&r->p, TOK_COMMA));
    if (!read_action_body(r, &body))
        return false;
    *ns->actions_end = first;
    ns->actions_end = end;
    for (struct decl_action *a = first; a; a = a->next) {
        struct decl_action named = *a;

        *a = body;
        a->id = named.id;
        a->at = named.at;
        a->next = named.next;
    }
    return true;
}

/* True if the current token begins a declaration, which is then read into ns. */
static bool read_decl(struct reader *r, struct decl_namespace *ns, const char *what)
{
    if (parse_at_word(&r->p, "entity")) {
        parse_advance(&r->p);
        return read_entity(r, ns);
    }
    if (parse_at_word(&r->p, "action")) {
        parse_advance(&r->p);
        return read_action(r, ns);
    }
    if (parse_at_word(&r->p, "type")) {
        parse_advance(&r->p);
        return read_common(r, ns);
    }
    return parse_wanted(&r->p, what);
}

static struct decl_namespace *new_namespace(struct reader *r)
{
    struct decl_namespace *ns = ARENA_NEW(r->p.arena, struct decl_namespace);

    if (!ns)
        return NULL;
    ns->entities_end = &ns->entities;
    ns->commons_end = &ns->commons;
    ns->actions_end = &ns->actions;
    ns->at = place(r, &r->p.tok);
    return ns;
}

static bool read_namespace(struct reader *r)
{
    struct decl_namespace *ns = new_namespace(r);

    if (!ns)
        return parse_memory(&r->p);
    parse_advance(&r->p);
    if (!path(r, "the name of the namespace", &ns->name) || !parse_expect(&r->p, TOK_LBRACE, "`{`"))
        return false;
    while (!parse_eat(&r->p, TOK_RBRACE))
        if (!annotations(r) || !read_decl(r, ns, "`entity`, `action`, `type` or `}`"))
            return false;
    *r->end = ns;
    r->end = &ns->next;
    return !r->p.err;
}

void schema_parse_text(struct decl_schema *s)
{
    struct reader r = { .p = { .arena = s->arena, .info = s->info }, .s = s };

    lex_init(&r.p.lex, s->file, s->text, s->info);
    parse_begin(&r.p);
    s->first = r.p.err ? NULL : new_namespace(&r);      /* what stands outside of every namespace */
    if (!s->first) {
        s->err = r.p.err;
        decl_memory(s);
        return;
    }
    r.end = &s->first->next;
    while (!r.p.err && r.p.tok.kind != TOK_END) {
        if (!annotations(&r))
            break;
        if (parse_at_word(&r.p, "namespace"))
            read_namespace(&r);
        else
            read_decl(&r, s->first, "`namespace`, `entity`, `action` or `type`");
    }
    s->err = r.p.err;
}
