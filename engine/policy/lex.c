/*
 * lex.c -- the lexical grammar of Cedar
 *
 *   white space   the Unicode White_Space characters; comments from "//" to the end of the line (LF or CR)
 *   identifier    [_a-zA-Z][_a-zA-Z0-9]*
 *   integer       [0-9]+
 *   string        '"' ( any character but '"' and '\' | '\' any character but LF )* '"', and no bare CR
 *   escapes       \n \r \t \0 \\ \' \"  \xHH (to 7F)  \u{H...} (1 to 6 digits, underscores after the first, a scalar
 *                 value); in a pattern also \* for a literal star
 */
#include "policy/lex.h"

#include "base/check.h"
#include "base/escape.h"

void lex_init(struct lexer *l, struct str file, struct str text, struct errinfo *info)
{
    *l = (struct lexer){ .file = file, .text = text, .line = 1, .column = 1, .info = info };
}

bool lex_reserved(struct str s)
{
    static const char *const words[] = { "true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar" };

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_is(s, words[i]))
            return true;
    return false;
}

/* Decodes one character; the text is known to be valid. */
static uint32_t peek_char(struct str s, size_t at, size_t *ret_len)
{
    const unsigned char *p = (const unsigned char *)s.p + at;

    if (p[0] < 0x80) {
        *ret_len = 1;
        return p[0];
    }
    if (p[0] < 0xe0) {
        *ret_len = 2;
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    }
    if (p[0] < 0xf0) {
        *ret_len = 3;
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    }
    *ret_len = 4;
    return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

static bool white(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a)
        || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static void skip_blank(struct lexer *l)
{
    while (l->at < l->text.len) {
        size_t n;
        uint32_t c = peek_char(l->text, l->at, &n);

        if (c == '/' && l->at + 1 < l->text.len && l->text.p[l->at + 1] == '/') {
            while (l->at < l->text.len && l->text.p[l->at] != '\n' && l->text.p[l->at] != '\r')
                l->at++;
            continue;
        }
        if (!white(c))
            return;
        l->at += n;
        if (c == '\n') {
            l->line++;
            l->line_start = l->at;
        }
    }
}

static uint32_t column(struct lexer *l, size_t at)
{
    if (l->counted < l->line_start) {
        l->counted = l->line_start;
        l->column = 1;
    }
    for (; l->counted < at; l->counted++)
        l->column += ((unsigned char)l->text.p[l->counted] & 0xc0) != 0x80;
    return l->column;
}

static struct token bad(struct lexer *l, struct token t, const char *what)
{
    err_set(l->info, E_CONFIG, "%.*s:%u:%u: %s", STR_ARG(l->file), t.line, t.column, what);
    t.kind = TOK_BAD;
    return t;
}

/* The opening quote stands at l->at. */
static struct token lex_string(struct lexer *l, struct token t)
{
    size_t start = l->at, i = start + 1;

    for (; i < l->text.len && l->text.p[i] != '"'; i++) {
        if (l->text.p[i] == '\r')
            return bad(l, t, "a string must not hold a bare carriage return; write \\r");
        if (l->text.p[i] == '\\' && (++i == l->text.len || l->text.p[i] == '\n'))
            return bad(l, t, "a line must not end in a backslash inside a string");
        if (l->text.p[i] == '\n') {
            l->line++;
            l->line_start = i + 1;
        }
    }
    if (i >= l->text.len)
        return bad(l, t, "this string is not closed: expected '\"'");
    l->at = i + 1;
    t.kind = TOK_STRING;
    t.text = str_n(l->text.p + start, l->at - start);
    return t;
}

static enum token_kind two(char a, char b)
{
    switch ((unsigned char)a << 8 | (unsigned char)b) {
    case ':' << 8 | ':': return TOK_PATH;
    case '=' << 8 | '=': return TOK_EQ;
    case '!' << 8 | '=': return TOK_NE;
    case '<' << 8 | '=': return TOK_LE;
    case '>' << 8 | '=': return TOK_GE;
    case '|' << 8 | '|': return TOK_OR;
    case '&' << 8 | '&': return TOK_AND;
    }
    return TOK_BAD;
}

static enum token_kind one(char c)
{
    switch (c) {
    case '@': return TOK_AT;
    case ',': return TOK_COMMA;
    case ';': return TOK_SEMI;
    case ':': return TOK_COLON;
    case '(': return TOK_LPAREN;
    case ')': return TOK_RPAREN;
    case '{': return TOK_LBRACE;
    case '}': return TOK_RBRACE;
    case '[': return TOK_LBRACKET;
    case ']': return TOK_RBRACKET;
    case '.': return TOK_DOT;
    case '<': return TOK_LT;
    case '>': return TOK_GT;
    case '=': return TOK_ASSIGN;
    case '+': return TOK_PLUS;
    case '-': return TOK_MINUS;
    case '*': return TOK_STAR;
    case '/': return TOK_SLASH;
    case '%': return TOK_PERCENT;
    case '!': return TOK_BANG;
    }
    return TOK_BAD;
}

/* How many characters of a word stand at `at`. */
static size_t word_len(struct str text, size_t at)
{
    size_t n = 0;

    while (at + n < text.len && lex_ident_char((unsigned char)text.p[at + n], n == 0))
        n++;
    return n;
}

struct token lex_next(struct lexer *l)
{
    struct token t = { .kind = TOK_END };
    size_t n;
    char c;

    skip_blank(l);
    t.line = l->line;
    t.column = column(l, l->at);
    t.text = str_n(l->text.p + l->at, 0);
    if (l->at == l->text.len)
        return t;
    c = l->text.p[l->at];
    if (c == '"')
        return lex_string(l, t);
    n = word_len(l->text, l->at);
    if (n) {
        t.kind = TOK_IDENT;
    } else if (c >= '0' && c <= '9') {
        t.kind = TOK_INT;
        while (l->at + n < l->text.len && l->text.p[l->at + n] >= '0' && l->text.p[l->at + n] <= '9')
            n++;
    } else if (c == '?') {
        n = 1 + word_len(l->text, l->at + 1);
        t.kind = n > 1 ? TOK_SLOT : TOK_QUESTION;
    } else {
        n = 2;
        t.kind = l->at + 1 < l->text.len ? two(c, l->text.p[l->at + 1]) : TOK_BAD;
        if (t.kind == TOK_BAD) {
            n = 1;
            t.kind = one(c);
        }
    }
    if (t.kind == TOK_BAD)
        return bad(l, t, "this character begins no token");
    t.text = str_n(l->text.p + l->at, n);
    l->at += n;
    return t;
}

/* --- strings ---------------------------------------------------------------------------------------------------- */

static size_t put_utf8(char *p, uint32_t c)
{
    if (c < 0x80) {
        p[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        p[0] = (char)(0xc0 | c >> 6);
        p[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        p[0] = (char)(0xe0 | c >> 12);
        p[1] = (char)(0x80 | (c >> 6 & 0x3f));
        p[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    p[0] = (char)(0xf0 | c >> 18);
    p[1] = (char)(0x80 | (c >> 12 & 0x3f));
    p[2] = (char)(0x80 | (c >> 6 & 0x3f));
    p[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* \u{...}: *i stands behind the 'u'. */
static bool unicode_escape(struct str s, size_t *i, uint32_t *ret)
{
    uint32_t v = 0;
    int n = 0;

    if (*i >= s.len || s.p[(*i)++] != '{')
        return false;
    for (; *i < s.len && s.p[*i] != '}'; ++*i) {
        int h = hex_digit(s.p[*i]);

        if (s.p[*i] == '_' && n > 0)
            continue;
        if (h < 0 || ++n > 6)
            return false;
        v = v * 16 + (uint32_t)h;
    }
    if (n == 0 || *i >= s.len || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
        return false;
    ++*i;
    *ret = v;
    return true;
}

/* The escape behind a backslash: *i stands behind the backslash and moves past the escape. */
static bool escape(struct str s, size_t *i, uint32_t *ret)
{
    int h, l;

    if (*i >= s.len)
        return false;
    switch (s.p[(*i)++]) {
    case 'n':  *ret = '\n'; return true;
    case 'r':  *ret = '\r'; return true;
    case 't':  *ret = '\t'; return true;
    case '0':  *ret = 0;    return true;
    case '\\': *ret = '\\'; return true;
    case '\'': *ret = '\''; return true;
    case '"':  *ret = '"';  return true;
    case 'x':
        if (s.len - *i < 2 || (h = hex_digit(s.p[*i])) < 0 || h > 7 || (l = hex_digit(s.p[*i + 1])) < 0)
            return false;
        *i += 2;
        *ret = (uint32_t)(h * 16 + l);
        return true;
    case 'u':
        return unicode_escape(s, i, ret);
    }
    return false;
}

static struct str inside(struct str token)
{
    ASSERT(token.len >= 2);
    return str_n(token.p + 1, token.len - 2);
}

enum err lex_unquote(struct arena *a, struct str token, struct str *ret, struct str *bad)
{
    struct str s = inside(token);
    char *out = arena_alloc(a, s.len + 1);
    size_t n = 0;

    if (!out)
        return E_CALL_TOO_LARGE;
    for (size_t i = 0; i < s.len;) {
        size_t start = i;
        uint32_t c;

        if (s.p[i] != '\\') {
            out[n++] = s.p[i++];
            continue;
        }
        i++;
        if (!escape(s, &i, &c)) {
            *bad = str_n(s.p + start, i - start);
            return E_CONFIG;
        }
        n += put_utf8(out + n, c);      /* never longer than the escape */
    }
    *ret = str_n(out, n);
    return OK;
}

enum err lex_pattern(struct arena *a, struct str token, struct str **ret, size_t *ret_n, struct str *bad)
{
    struct str s = inside(token), *pieces;
    char *out = arena_alloc(a, s.len + 1);
    size_t n = 0, from = 0, stars = 0, count = 0;

    /* Every wildcard takes at least one byte of the token, if only as the end of an escape. */
    for (size_t i = 0; i < s.len; i++)
        stars += s.p[i] == '*' || s.p[i] == '}' || s.p[i] == 'a' || s.p[i] == 'A';
    pieces = ARENA_ARRAY(a, struct str, stars + 1);
    if (!out || !pieces)
        return E_CALL_TOO_LARGE;
    for (size_t i = 0; i < s.len;) {
        size_t start = i;
        uint32_t c = (unsigned char)s.p[i++];

        if (c == '\\' && i < s.len && s.p[i] == '*') {
            out[n++] = s.p[i++];
            continue;
        }
        if (c != '\\') {
            if (c != '*')
                out[n++] = (char)c;
        } else if (!escape(s, &i, &c)) {
            *bad = str_n(s.p + start, i - start);
            return E_CONFIG;
        } else if (c != '*') {
            n += put_utf8(out + n, c);
        }
        if (c == '*') {                 /* as in the reference, \x2a is a wildcard like a bare star */
            pieces[count++] = str_n(out + from, n - from);
            from = n;
        }
    }
    pieces[count++] = str_n(out + from, n - from);
    ASSERT(count <= stars + 1);
    *ret = pieces;
    *ret_n = count;
    return OK;
}
