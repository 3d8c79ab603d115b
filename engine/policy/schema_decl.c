/*
 * schema_decl.c -- places, names and errors of schemas as written
 */
#include "policy/schema_decl.h"

#include <stdio.h>

#include "base/check.h"
#include "policy/lex.h"

void decl_place(struct str text, size_t at, uint32_t *ret_line, uint32_t *ret_column)
{
    *ret_line = *ret_column = 1;
    for (size_t i = 0; i < at && i < text.len; i++) {
        if (text.p[i] == '\n') {
            ++*ret_line;
            *ret_column = 1;
        } else {
            *ret_column += ((unsigned char)text.p[i] & 0xc0) != 0x80;
        }
    }
}

void *decl_fail(struct decl_schema *s, size_t at, const char *fmt, ...)
{
    char text[300];
    uint32_t line, column;
    va_list ap;

    if (s->err)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    decl_place(s->text, at, &line, &column);
    s->err = err_set(s->info, E_CONFIG, "%.*s:%u:%u: %s", STR_ARG(s->file), line, column, text);
    return NULL;
}

void *decl_memory(struct decl_schema *s)
{
    if (!s->err)
        s->err = err_set(s->info, E_CALL_TOO_LARGE, "%.*s: the schema needs more memory than allowed",
            STR_ARG(s->file));
    return NULL;
}

bool decl_word_valid(struct str word)
{
    for (size_t i = 0; i < word.len; i++)
        if (!lex_ident_char((unsigned char)word.p[i], i == 0))
            return false;
    return word.len > 0;
}

/* Takes the first part of a name off: false if there is none, or it is not followed by nothing or "::". */
static bool take_part(struct str *name, struct str *ret)
{
    size_t n = 0;

    while (n < name->len && name->p[n] != ':')
        n++;
    *ret = str_n(name->p, n);
    if (n == name->len) {
        *name = STR_NULL;
        return decl_word_valid(*ret);
    }
    if (name->len - n < 3 || name->p[n + 1] != ':')
        return false;
    *name = str_from(*name, n + 2);
    return decl_word_valid(*ret);
}

bool decl_name_valid(struct str name)
{
    struct str part;

    if (!name.len)
        return false;
    while (name.len)
        if (!take_part(&name, &part) || (lex_reserved(part) && !str_is(part, "__cedar")))
            return false;
    return true;
}

bool decl_name_reserved(struct str name)
{
    struct str part;

    while (name.len && take_part(&name, &part))
        if (str_is(part, "__cedar"))
            return true;
    return false;
}

bool decl_common_reserved(struct str name)
{
    static const char *const words[] = { "Bool", "Boolean", "Entity", "Extension", "Long", "Record", "Set", "String" };

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (str_is(name, words[i]))
            return true;
    return false;
}
