/*
 * escape.h -- text on its way into another syntax, and back: URLs and forms, HTML, what a terminal must not be given
 *
 * Nothing here fails on bytes that make no sense: they are written as escapes, or taken as they are.
 */
#ifndef BASE_ESCAPE_H
#define BASE_ESCAPE_H

#include "base/arena.h"
#include "base/str.h"

/* The value of a hex digit, or -1. */
static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 3986 2.3: unreserved characters stay, everything else is percent-encoded, "/" and the space (as %20) too. What
 * comes out is one path segment, and one name or value of a query or a form. */
void buf_add_percent(struct buf *b, struct str s);

/* application/x-www-form-urlencoded (WHATWG URL 5.1): the value of the first field called `name`, decoded; a % that
 * begins no escape stays. STR_NULL: there is none, or the arena is full. */
struct str form_value(struct arena *a, struct str form, const char *name);

/* For HTML text and quoted attributes: < > & " ' as references. */
void buf_add_html(struct buf *b, struct str s);

/* The code point at the front of s, which is not empty, and its length; 0: the bytes there are not well-formed. */
size_t utf8_first(struct str s, uint32_t *ret);

/* Must a terminal not get this as it is? Controls, line and paragraph separators, and all that changes the direction of
 * text or is invisible. */
bool char_hides(uint32_t c);

#endif
