/*
 * chunked.c -- the chunked transfer coding, RFC 9112 7.1, read in place
 *
 *   body      = *chunk last-chunk *( field-line CRLF ) CRLF
 *   chunk     = size *( ";" name [ "=" ( token | quoted-string ) ] ) CRLF data CRLF
 *   size      = 1*HEXDIG       at most 15 significant digits, so that it cannot overflow
 *
 * White space, which the RFC tolerates around extensions, is refused: parsers differ there.  Extensions and trailers
 * are checked and bounded, because a peer may send them for ever, and then dropped: nothing here gives them a
 * meaning.
 */
#include "http/parse.h"

#include "base/check.h"
#include "base/escape.h"

enum state {
    SIZE_FIRST, SIZE,
    EXT_NAME_FIRST, EXT_NAME, EXT_VALUE_FIRST, EXT_VALUE, EXT_QUOTED, EXT_ESCAPED, EXT_QUOTE_END,
    SIZE_LF,
    DATA, DATA_CR, DATA_LF,
    TRAILER_FIRST, TRAILER_NAME, TRAILER_VALUE, TRAILER_LF, END_LF,
    ENDED
};

void http_chunked_init(struct http_chunked *c)
{
    *c = (struct http_chunked){ .state = SIZE_FIRST };
}

static bool is_tchar(unsigned char c)
{
    char one = (char)c;

    return http_is_token(str_n(&one, 1));
}

/* HTAB, SP, visible, obs-text: what may stand in a quoted string or a field value */
static bool is_text(unsigned char c)
{
    return c >= 0x20 ? c != 0x7f : c == '\t';
}

static enum http_fault size_line(struct http_chunked *c, unsigned char b)
{
    int digit = hex_digit((char)b);

    if (digit >= 0) {
        if (c->left >> 56)
            return HTTP_FAULT_CHUNK_SIZE;
        c->left = c->left << 4 | (unsigned)digit;
        c->state = SIZE;
        return HTTP_FAULT_NONE;
    }
    if (c->state == SIZE_FIRST)
        return HTTP_FAULT_CHUNK_SIZE;
    if (b == '\r')
        c->state = SIZE_LF;
    else if (b == ';')
        c->state = EXT_NAME_FIRST;
    else
        return HTTP_FAULT_CHUNK_SIZE;
    return HTTP_FAULT_NONE;
}

/* What may follow a complete name, token or quoted string. */
static bool extension_next(struct http_chunked *c, unsigned char b)
{
    if (b == ';')
        c->state = EXT_NAME_FIRST;
    else if (b == '\r')
        c->state = SIZE_LF;
    else if (b == '=' && c->state == EXT_NAME)
        c->state = EXT_VALUE_FIRST;
    else
        return false;
    return true;
}

static enum http_fault extension(struct http_chunked *c, unsigned char b)
{
    bool ok = true;

    if (++c->extensions > HTTP_CHUNK_EXT_MAX)
        return HTTP_FAULT_CHUNK_EXTENSION;
    switch (c->state) {
    case EXT_NAME_FIRST:
        ok = is_tchar(b);
        c->state = EXT_NAME;
        break;
    case EXT_VALUE_FIRST:
        ok = b == '"' || is_tchar(b);
        c->state = b == '"' ? EXT_QUOTED : EXT_VALUE;
        break;
    case EXT_NAME:
    case EXT_VALUE:
        ok = is_tchar(b) || extension_next(c, b);
        break;
    case EXT_QUOTED:
        ok = is_text(b);
        if (b == '"')
            c->state = EXT_QUOTE_END;
        else if (b == '\\')
            c->state = EXT_ESCAPED;
        break;
    case EXT_ESCAPED:
        ok = is_text(b);
        c->state = EXT_QUOTED;
        break;
    case EXT_QUOTE_END:
        ok = extension_next(c, b);
        break;
    default:
        UNREACHABLE();
    }
    return ok ? HTTP_FAULT_NONE : HTTP_FAULT_CHUNK_EXTENSION;
}

static enum http_fault trailer(struct http_chunked *c, unsigned char b)
{
    bool ok = true;

    if (++c->trailers > HTTP_TRAILERS_MAX)
        return HTTP_FAULT_TRAILER;
    switch (c->state) {
    case TRAILER_FIRST:
        ok = b == '\r' || is_tchar(b);
        c->state = b == '\r' ? END_LF : TRAILER_NAME;
        break;
    case TRAILER_NAME:
        ok = b == ':' || is_tchar(b);
        if (b == ':')
            c->state = TRAILER_VALUE;
        break;
    case TRAILER_VALUE:
        ok = b == '\r' || is_text(b);
        if (b == '\r')
            c->state = TRAILER_LF;
        break;
    case TRAILER_LF:
        ok = b == '\n';
        c->state = TRAILER_FIRST;
        break;
    case END_LF:
        ok = b == '\n';
        c->state = ENDED;
        c->done = ok;
        break;
    default:
        UNREACHABLE();
    }
    return ok ? HTTP_FAULT_NONE : HTTP_FAULT_TRAILER;
}

/* Any byte that is not data. */
static enum http_fault control(struct http_chunked *c, unsigned char b)
{
    switch (c->state) {
    case SIZE_FIRST:
    case SIZE:
        if (++c->line > HTTP_CHUNK_LINE_MAX)
            return HTTP_FAULT_CHUNK_SIZE;
        return size_line(c, b);
    case SIZE_LF:
        if (b != '\n')
            return HTTP_FAULT_BARE_CR;
        c->state = c->left > 0 ? DATA : TRAILER_FIRST;
        c->line = 0;
        return HTTP_FAULT_NONE;
    case DATA_CR:
        c->state = DATA_LF;
        return b == '\r' ? HTTP_FAULT_NONE : HTTP_FAULT_CHUNK_END;
    case DATA_LF:
        c->state = SIZE_FIRST;
        return b == '\n' ? HTTP_FAULT_NONE : HTTP_FAULT_CHUNK_END;
    case TRAILER_FIRST:
    case TRAILER_NAME:
    case TRAILER_VALUE:
    case TRAILER_LF:
    case END_LF:
        return trailer(c, b);
    default:
        if (++c->line > HTTP_CHUNK_LINE_MAX)
            return HTTP_FAULT_CHUNK_EXTENSION;
        return extension(c, b);
    }
}

int64_t http_chunked_decode(struct http_chunked *c, struct str in, struct str *ret_data, enum http_fault *why)
{
    size_t i = 0;

    ASSERT(!c->done);
    *ret_data = STR_NULL;
    while (i < in.len && !c->done) {
        enum http_fault f;

        if (c->state == DATA) {
            size_t n = in.len - i < c->left ? in.len - i : (size_t)c->left;

            *ret_data = str_n(in.p + i, n);
            c->left -= n;
            if (c->left == 0)
                c->state = DATA_CR;
            return (int64_t)(i + n);
        }
        f = control(c, (unsigned char)in.p[i]);
        if (f != HTTP_FAULT_NONE) {
            *why = f;
            return -1;
        }
        i++;
    }
    return (int64_t)i;
}
