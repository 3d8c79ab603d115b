/*
 * lex.h -- policy text to tokens (room-private)
 *
 * Tokens are views of the text.  Reserved words are identifiers to the lexer; the parser says where they may stand.
 */
#ifndef POLICY_LEX_H
#define POLICY_LEX_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

enum token_kind {
    TOK_END, TOK_IDENT, TOK_INT, TOK_STRING, TOK_SLOT,  /* ?principal, ?resource */
    TOK_AT, TOK_COMMA, TOK_SEMI, TOK_COLON, TOK_PATH,   /* PATH is :: */
    TOK_LPAREN, TOK_RPAREN, TOK_LBRACE, TOK_RBRACE, TOK_LBRACKET, TOK_RBRACKET, TOK_DOT,
    TOK_EQ, TOK_NE, TOK_LT, TOK_LE, TOK_GT, TOK_GE, TOK_OR, TOK_AND,
    TOK_ASSIGN, TOK_PLUS, TOK_MINUS, TOK_STAR, TOK_SLASH, TOK_PERCENT, TOK_BANG,
    TOK_QUESTION,               /* in schemas only: policies have slots */
    TOK_BAD,                    /* no token: an error is set */
};

struct token {
    enum token_kind kind;
    struct str text;            /* a string with its quotes */
    uint32_t line, column;      /* from 1; the column counts characters */
};

struct lexer {
    struct str file, text;
    size_t at, line_start;
    size_t counted;             /* `column` is that of this byte; counted on, so that a long line costs no more */
    uint32_t line, column;
    struct errinfo *info;
};

/* The text must be valid UTF-8 (checked by the caller). `info` is told about a TOK_BAD. */
void lex_init(struct lexer *l, struct str file, struct str text, struct errinfo *info);
struct token lex_next(struct lexer *l);

static inline bool lex_ident_char(unsigned char c, bool first)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (!first && c >= '0' && c <= '9');
}
/* true false if then else in is like has __cedar */
bool lex_reserved(struct str ident);

/*
 * What a string token stands for, in the arena.
 * E_CONFIG: not a legal escape (`bad` is the offending part of the token); E_CALL_TOO_LARGE: the arena is full.
 */
enum err lex_unquote(struct arena *a, struct str token, struct str *ret, struct str *bad);
/*
 * The same for a pattern, where a star is a wildcard and \* a star: the ret_n pieces between the wildcards, at least
 * one.
 */
enum err lex_pattern(struct arena *a, struct str token, struct str **ret, size_t *ret_n, struct str *bad);

#endif
