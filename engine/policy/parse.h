/*
 * parse.h -- what parse.c (policies) and parse_expr.c (expressions) share (room-private)
 *
 * Errors are sticky: the first one fills `info` and sets `err`; from then on the current token is TOK_BAD, which no
 * rule accepts, so that the descent unwinds by itself.
 */
#ifndef POLICY_PARSE_H
#define POLICY_PARSE_H

#include "policy/ast.h"
#include "policy/lex.h"

struct parser {
    struct arena *arena;
    struct lexer lex;
    struct token tok;           /* the current token */
    struct token ahead;         /* the one after it */
    struct buf *tokens;
    struct errinfo *info;
    enum err err;
    unsigned nest;
};

/* Reads the first tokens; the lexer is ready. */
void parse_begin(struct parser *p);
void parse_advance(struct parser *p);
bool parse_eat(struct parser *p, enum token_kind kind);
/* Reports "expected WHAT, found ..." unless the current token is of that kind, which is then passed. */
bool parse_expect(struct parser *p, enum token_kind kind, const char *what);
/* Each reports (the first report wins) and answers NULL. */
void *parse_fail(struct parser *p, const struct token *where, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void *parse_wanted(struct parser *p, const char *what);
void *parse_memory(struct parser *p);

static inline bool parse_at_word(const struct parser *p, const char *word)
{
    return p->tok.kind == TOK_IDENT && str_is(p->tok.text, word);
}

bool parse_string(struct parser *p, struct str *ret);               /* a string token */
bool parse_ident(struct parser *p, const char *what, struct str *ret);  /* not a reserved word */
/* Ident { "::" Ident }; stops before "::" that is followed by a string. The result has no spaces. */
bool parse_name(struct parser *p, const char *what, struct str *ret);
bool parse_entity(struct parser *p, const char *what, struct policy_uid *ret);
struct ast *parse_expr(struct parser *p);

#endif
