/*
 * parse.c -- the grammar of policies, down to the braces of a condition
 *
 *   Policies   = { Policy }
 *   Policy     = { '@' AnyIdent [ '(' STRING ')' ] } Effect '(' Scope ')' { Condition } ';'
 *   Effect     = 'permit' | 'forbid'
 *   Scope      = 'principal' [ Entities ] ',' 'action' [ Actions ] ',' 'resource' [ Entities ] [ ',' ]
 *   Entities   = '==' Which | 'in' Which | 'is' Name [ 'in' Which ]
 *   Which      = Entity | '?principal' | '?resource'        the slot of the variable that it constrains
 *   Actions    = '==' Entity | 'in' Entity | 'in' '[' [ Entity { ',' Entity } [ ',' ] ] ']'
 *   Condition  = ( 'when' | 'unless' ) '{' Expr '}'
 *   Entity     = Name '::' STRING | '(' Entity ')'
 *   Name       = Ident { '::' Ident }
 *
 * An action's entity is of type Action or of a type whose last name is Action.  A policy with a slot is a template.
 */
#include "policy/parse.h"

#include <stdio.h>

#include "base/check.h"

struct ast *ast_new(struct arena *a, enum ast_op op, uint32_t line, uint32_t column)
{
    struct ast *n = ARENA_NEW(a, struct ast);

    if (n) {
        n->op = (uint8_t)op;
        n->depth = 1;
        n->line = line;
        n->column = column;
    }
    return n;
}

void ast_add(struct ast *parent, struct ast *kid)
{
    if (parent->last)
        parent->last->next = kid;
    else
        parent->first = kid;
    parent->last = kid;
    parent->n++;
    if (parent->depth <= kid->depth)
        parent->depth = (uint16_t)(kid->depth + 1);
}

const struct str *ast_annotation(const struct ast_policy *p, const char *key)
{
    for (const struct ast_annotation *n = p->annotations; n; n = n->next)
        if (str_is(n->key, key))
            return &n->value;
    return NULL;
}

/* --- errors and tokens ---------------------------------------------------------------------------------------- */

void *parse_fail(struct parser *p, const struct token *where, const char *fmt, ...)
{
    char text[300];
    va_list ap;

    if (!p->err) {
        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        p->err = err_set(p->info, E_CONFIG, "%.*s:%u:%u: %s", STR_ARG(p->lex.file), where->line, where->column, text);
    }
    p->tok.kind = TOK_BAD;
    return NULL;
}

void *parse_memory(struct parser *p)
{
    if (!p->err)
        p->err = err_set(p->info, E_CALL_TOO_LARGE, "%.*s:%u:%u: the text needs more memory than allowed",
            STR_ARG(p->lex.file), p->tok.line, p->tok.column);
    p->tok.kind = TOK_BAD;
    return NULL;
}

void *parse_wanted(struct parser *p, const char *what)
{
    if (p->tok.kind == TOK_END)
        return parse_fail(p, &p->tok, "expected %s, found the end of the file", what);
    return parse_fail(p, &p->tok, "expected %s, found `%.*s`%s", what, p->tok.text.len > 60 ? 60 : (int)p->tok.text.len,
        p->tok.text.p, p->tok.text.len > 60 ? "..." : "");
}

static struct token pull(struct parser *p)
{
    struct token t = lex_next(&p->lex);

    if (p->tokens && t.kind != TOK_BAD && t.kind != TOK_END) {
        buf_add_str(p->tokens, t.text);
        buf_add_c(p->tokens, '\n');
    }
    return t;
}

void parse_advance(struct parser *p)
{
    if (p->err)
        return;
    p->tok = p->ahead;
    if (p->tok.kind == TOK_BAD)
        p->err = E_CONFIG;                  /* the lexer has filled info when it met the token */
    else if (p->tok.kind != TOK_END)
        p->ahead = pull(p);
}

void parse_begin(struct parser *p)
{
    p->ahead = pull(p);
    parse_advance(p);
}

bool parse_eat(struct parser *p, enum token_kind kind)
{
    if (p->tok.kind != kind)
        return false;
    parse_advance(p);
    return true;
}

bool parse_expect(struct parser *p, enum token_kind kind, const char *what)
{
    if (parse_eat(p, kind))
        return !p->err;
    parse_wanted(p, what);
    return false;
}

/* --- names ---------------------------------------------------------------------------------------------------- */

bool parse_string(struct parser *p, struct str *ret)
{
    struct str bad = STR_NULL;
    enum err e;

    if (p->tok.kind != TOK_STRING)
        return parse_wanted(p, "a string");
    e = lex_unquote(p->arena, p->tok.text, ret, &bad);
    if (e == E_CONFIG)
        return parse_fail(p, &p->tok, "`%.*s` is not an escape that strings know", STR_ARG(bad));
    if (e)
        return parse_memory(p);
    parse_advance(p);
    return !p->err;
}

bool parse_ident(struct parser *p, const char *what, struct str *ret)
{
    if (p->tok.kind != TOK_IDENT)
        return parse_wanted(p, what);
    if (lex_reserved(p->tok.text))
        return parse_fail(p, &p->tok, "expected %s, found the reserved word `%.*s`", what, STR_ARG(p->tok.text));
    *ret = p->tok.text;
    parse_advance(p);
    return !p->err;
}

bool parse_name(struct parser *p, const char *what, struct str *ret)
{
    struct str name, part;
    char *joined;

    if (!parse_ident(p, what, &name))
        return false;
    while (p->tok.kind == TOK_PATH && p->ahead.kind != TOK_STRING) {
        parse_advance(p);
        if (!parse_ident(p, "a name after `::`", &part))
            return false;
        joined = arena_alloc(p->arena, name.len + part.len + 2);
        if (!joined)
            return parse_memory(p);
        memcpy(joined, name.p, name.len);
        memcpy(joined + name.len, "::", 2);
        memcpy(joined + name.len + 2, part.p, part.len);
        name = str_n(joined, name.len + part.len + 2);
        if (name.len > 4096)
            return parse_fail(p, &p->tok, "a name must not be longer than 4096 bytes");
    }
    *ret = name;
    return !p->err;
}

bool parse_entity(struct parser *p, const char *what, struct policy_uid *ret)
{
    struct str type, id;
    unsigned parens = 0;

    if (p->tok.kind == TOK_SLOT)
        return parse_fail(p, &p->tok, "expected %s, found the slot `%.*s`", what, STR_ARG(p->tok.text));
    while (parens < POLICY_NEST_MAX && parse_eat(p, TOK_LPAREN))
        parens++;
    if (!parse_name(p, what, &type) || !parse_expect(p, TOK_PATH, "`::` and the entity's id in quotes")
        || !parse_string(p, &id))
        return false;
    while (parens-- > 0)
        if (!parse_expect(p, TOK_RPAREN, "`)`"))
            return false;
    *ret = policy_uid(type, id);
    return true;
}

/* --- policies ------------------------------------------------------------------------------------------------- */

static bool parse_annotations(struct parser *p, struct ast_policy *policy)
{
    struct ast_annotation **end = &policy->annotations;

    while (p->tok.kind == TOK_AT) {
        struct ast_annotation *n = ARENA_NEW(p->arena, struct ast_annotation);

        if (!n)
            return parse_memory(p);
        parse_advance(p);
        if (p->tok.kind != TOK_IDENT)
            return parse_wanted(p, "the name of an annotation");
        n->key = p->tok.text;
        n->line = p->tok.line;
        n->column = p->tok.column;
        for (struct ast_annotation *o = policy->annotations; o; o = o->next)
            if (str_eq(o->key, n->key))
                return parse_fail(p, &p->tok, "this policy has two annotations @%.*s", STR_ARG(n->key));
        parse_advance(p);
        n->value = STR("");
        if (parse_eat(p, TOK_LPAREN)) {
            n->line = p->tok.line;
            n->column = p->tok.column;
            if (!parse_string(p, &n->value) || !parse_expect(p, TOK_RPAREN, "`)`"))
                return false;
        }
        *end = n;
        end = &n->next;
    }
    return !p->err;
}

static void scope_place(struct parser *p, struct ast_scope *s)
{
    s->line = p->tok.line;
    s->column = p->tok.column;
}

/* `var` is the variable whose constraint this is, whose slot may stand here. */
static bool scope_single(struct parser *p, struct ast_scope *s, const char *var)
{
    if (p->tok.kind == TOK_SLOT) {
        if (!str_is(str_from(p->tok.text, 1), var))
            return parse_fail(p, &p->tok, "expected ?%s here, found `%.*s`", var, STR_ARG(p->tok.text));
        parse_advance(p);              /* no entity: that is the slot */
        return !p->err;
    }
    s->uids = ARENA_NEW(p->arena, struct policy_uid);
    s->n = 1;
    if (!s->uids)
        return parse_memory(p);
    if (p->tok.kind == TOK_LBRACKET)
        return parse_fail(p, &p->tok, "expected one entity, found a list; only `action in` takes a list");
    return parse_entity(p, "an entity like User::\"alice\"", s->uids);
}

/* Behind `principal` or `resource`, which is `var`. */
static bool parse_entities(struct parser *p, struct ast_scope *s, const char *var)
{
    scope_place(p, s);
    if (parse_eat(p, TOK_EQ)) {
        s->kind = SCOPE_EQ;
        scope_place(p, s);
        return scope_single(p, s, var);
    }
    if (parse_at_word(p, "is")) {
        parse_advance(p);
        s->kind = SCOPE_IS;
        scope_place(p, s);
        if (!parse_name(p, "the name of an entity type", &s->type))
            return false;
        if (p->tok.kind == TOK_EQ)
            return parse_fail(p, &p->tok, "`is` cannot stand together with `==`; write `==` alone");
    }
    if (parse_at_word(p, "in")) {
        parse_advance(p);
        s->kind = s->kind == SCOPE_IS ? SCOPE_IS_IN : SCOPE_IN;
        scope_place(p, s);
        return scope_single(p, s, var) && (!parse_at_word(p, "is")
            || parse_fail(p, &p->tok, "`is` stands before `in`: write `is TYPE in ENTITY`"));
    }
    return !p->err;
}

static bool parse_action_uid(struct parser *p, struct policy_uid *ret)
{
    struct token where = p->tok;

    if (!parse_entity(p, "an action like Action::\"outlook.send_mail\"", ret))
        return false;
    if (!policy_type_is_action(ret->type))
        return parse_fail(p, &where, "expected an entity of type Action, found one of type %.*s", STR_ARG(ret->type));
    return true;
}

static bool parse_action_list(struct parser *p, struct ast_scope *s)
{
    size_t cap = 0;

    while (!parse_eat(p, TOK_RBRACKET)) {
        if (s->n == cap) {
            struct policy_uid *more = ARENA_ARRAY(p->arena, struct policy_uid, cap ? 2 * cap : 4);

            if (!more)
                return parse_memory(p);
            if (s->n)
                memcpy(more, s->uids, s->n * sizeof(*more));
            s->uids = more;
            cap = cap ? 2 * cap : 4;
        }
        if (!parse_action_uid(p, &s->uids[s->n++]))
            return false;
        if (p->tok.kind != TOK_RBRACKET && !parse_expect(p, TOK_COMMA, "`,` or `]`"))
            return false;
    }
    return !p->err;
}

static bool parse_actions(struct parser *p, struct ast_scope *s)
{
    if (p->tok.kind == TOK_EQ) {
        s->kind = SCOPE_EQ;
    } else if (parse_at_word(p, "in")) {
        s->kind = SCOPE_IN;
    } else if (parse_at_word(p, "is")) {
        return parse_fail(p, &p->tok, "`is` cannot constrain the action; use `==` or `in`");
    } else {
        return !p->err;
    }
    parse_advance(p);
    scope_place(p, s);
    if (s->kind == SCOPE_IN && parse_eat(p, TOK_LBRACKET))
        return parse_action_list(p, s);
    s->uids = ARENA_NEW(p->arena, struct policy_uid);
    s->n = 1;
    if (!s->uids)
        return parse_memory(p);
    return parse_action_uid(p, s->uids);
}

static bool expect_word(struct parser *p, const char *word, const char *what)
{
    if (!parse_at_word(p, word))
        return parse_wanted(p, what);
    parse_advance(p);
    return !p->err;
}

static bool parse_scope(struct parser *p, struct ast_policy *policy)
{
    if (!parse_expect(p, TOK_LPAREN, "`(`") || !expect_word(p, "principal", "`principal`")
        || !parse_entities(p, &policy->principal, "principal") || !parse_expect(p, TOK_COMMA, "`==`, `in`, `is` or `,`")
        || !expect_word(p, "action", "`action`") || !parse_actions(p, &policy->action)
        || !parse_expect(p, TOK_COMMA, "`==`, `in` or `,`") || !expect_word(p, "resource", "`resource`")
        || !parse_entities(p, &policy->resource, "resource"))
        return false;
    parse_eat(p, TOK_COMMA);
    return parse_expect(p, TOK_RPAREN, "`==`, `in`, `is` or `)`");
}

static bool parse_conditions(struct parser *p, struct ast_policy *policy)
{
    struct ast_condition **end = &policy->conditions;

    while (parse_at_word(p, "when") || parse_at_word(p, "unless")) {
        struct ast_condition *c = ARENA_NEW(p->arena, struct ast_condition);

        if (!c)
            return parse_memory(p);
        c->unless = parse_at_word(p, "unless");
        parse_advance(p);
        if (!parse_expect(p, TOK_LBRACE, "`{`"))
            return false;
        if (p->tok.kind == TOK_RBRACE)
            return parse_fail(p, &p->tok, "expected a condition between the braces, found none");
        c->expr = parse_expr(p);
        if (!c->expr || !parse_expect(p, TOK_RBRACE, "an operator or `}`"))
            return false;
        *end = c;
        end = &c->next;
    }
    return !p->err;
}

static struct ast_policy *parse_policy(struct parser *p)
{
    struct ast_policy *policy = ARENA_NEW(p->arena, struct ast_policy);

    if (!policy)
        return parse_memory(p);
    policy->line = p->tok.line;
    policy->column = p->tok.column;
    if (!parse_annotations(p, policy))
        return NULL;
    if (!parse_at_word(p, "permit") && !parse_at_word(p, "forbid"))
        return parse_wanted(p, policy->annotations ? "`permit`, `forbid` or `@`" : "`permit` or `forbid`");
    policy->forbid = parse_at_word(p, "forbid");
    parse_advance(p);
    if (!parse_scope(p, policy) || !parse_conditions(p, policy))
        return NULL;
    if (!parse_expect(p, TOK_SEMI, policy->conditions ? "`when`, `unless` or `;`" : "`when {`, `unless {` or `;`"))
        return NULL;
    return policy;
}

enum err ast_parse(struct arena *a, struct str file, struct str text, struct buf *tokens, struct ast_file *ret,
    struct errinfo *info)
{
    struct parser p = { .arena = a, .tokens = tokens, .info = info };
    struct ast_file out = { 0 };
    struct ast_policy **end = &out.first;

    if (!str_utf8_valid(text))
        return err_set(info, E_CONFIG, "%.*s:1:1: the file is not valid UTF-8", STR_ARG(file));
    lex_init(&p.lex, file, text, info);
    parse_begin(&p);
    while (!p.err && p.tok.kind != TOK_END) {
        struct ast_policy *policy = parse_policy(&p);

        if (!policy)
            break;
        *end = policy;
        end = &policy->next;
        out.n++;
    }
    if (p.err)
        return p.err;
    *ret = out;
    return OK;
}

enum err policy_uid_parse(struct arena *a, struct str what, struct str text, struct policy_uid *ret,
    struct errinfo *info)
{
    struct str kept = arena_str(a, text);
    struct parser p = { .arena = a, .info = info };

    if (!str_utf8_valid(text))
        return err_set(info, E_CONFIG, "%.*s:1:1: not valid UTF-8", STR_ARG(what));
    if (!kept.p)
        return err_set(info, E_CALL_TOO_LARGE, "%.*s: needs more memory than allowed", STR_ARG(what));
    lex_init(&p.lex, what, kept, info);
    parse_begin(&p);
    if (parse_entity(&p, "an entity like User::\"alice\"", ret))
        parse_expect(&p, TOK_END, "nothing behind the entity");
    return p.err;
}
