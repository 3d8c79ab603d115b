/*
 * parse.h -- HTTP/1.x message heads, framing and chunked bodies, parsed strictly (RFC 9110, RFC 9112)
 *
 * One parser for both sides: the server reads requests with it, fetch reads responses.  It is pure: a contiguous buffer
 * in, views into that buffer out, no memory of its own, no clock.  Where two implementations of HTTP are known to
 * disagree about a byte, the message is refused: every rule has a name (HTTP_FAULTS) that ends up in logs and journal.
 *
 * Feeding: hand over all bytes of the head received so far; 0 means "call again with more".  The answer does not
 * depend on how the bytes were cut into pieces.  A caller that reads in small pieces asks http_head_worth() first,
 * which keeps the work linear.
 */
#ifndef HTTP_PARSE_H
#define HTTP_PARSE_H

#include "base/str.h"

enum {
    HTTP_HEADERS_MAX = 64,              /* fields in a head */
    HTTP_LINE_MAX = 8 * 1024,           /* a start line or field line, its CRLF included */
    HTTP_HEAD_MAX = 32 * 1024,          /* start line, fields and the empty line */
    HTTP_METHOD_MAX = 32,
    HTTP_CHUNK_LINE_MAX = 256,          /* a chunk's size line, extensions and CRLF included */
    HTTP_CHUNK_EXT_MAX = 4 * 1024,      /* extensions of one body, all chunks together */
    HTTP_TRAILERS_MAX = 8 * 1024,       /* trailer section of one body */
};

/* X(name, status a server answers with, text). The text is for logs and for the peer: it never repeats the peer's
 * bytes. */
#define HTTP_FAULTS(X) \
    X(NONE,             0,   "no fault") \
    X(METHOD,           400, "the method is not a token") \
    X(TARGET_CHAR,      400, "the target has a character that is not visible ASCII, or a fragment") \
    X(TARGET_FORM,      400, "the target is neither a path nor an http URL") \
    X(TARGET_LONG,      414, "the request line is too long") \
    X(VERSION_FORM,     400, "the start line does not carry HTTP/1.0 or HTTP/1.1 where it must") \
    X(VERSION,          505, "only HTTP/1.0 and HTTP/1.1 are spoken here") \
    X(STATUS,           502, "the status line is malformed") \
    X(BARE_LF,          400, "a line ends in LF without CR") \
    X(BARE_CR,          400, "a CR is not followed by LF") \
    X(FOLD,             400, "a line starts with white space (folding)") \
    X(NAME,             400, "a field name is empty or not a token") \
    X(NAME_UNDERSCORE,  400, "a field name contains an underscore") \
    X(SPACE_COLON,      400, "white space before the colon of a field") \
    X(VALUE,            400, "a field value contains a control character") \
    X(LINE_LONG,        431, "a field line is too long") \
    X(HEAD_LONG,        431, "the head is too large") \
    X(FIELDS_MANY,      431, "the head has too many fields") \
    X(HOST_MISSING,     400, "HTTP/1.1 without a Host field") \
    X(HOST_MANY,        400, "more than one Host field") \
    X(HOST_FORM,        400, "the Host field is not a host with an optional port") \
    X(HOST_MISMATCH,    400, "the target names another host than the Host field") \
    X(LENGTH_FORM,      400, "Content-Length is not a plain decimal number") \
    X(LENGTH_MANY,      400, "more than one Content-Length") \
    X(LENGTH_AND_CODING, 400, "both Content-Length and Transfer-Encoding") \
    X(CODING,           400, "Transfer-Encoding other than exactly one chunked") \
    X(CODING_VERSION,   400, "Transfer-Encoding in HTTP/1.0") \
    X(CODING_STATUS,    502, "a body is announced where the status allows none") \
    X(UPGRADE,          502, "an upgrade that nobody asked for") \
    X(BODY_FORBIDDEN,   400, "a body on a method that has none") \
    X(EXPECT,           417, "Expect other than exactly one 100-continue") \
    X(CONTENT_ENCODING, 415, "a request body must not be compressed") \
    X(CHUNK_SIZE,       400, "a chunk size is not plain hexadecimal, or too large") \
    X(CHUNK_EXTENSION,  400, "chunk extensions are malformed or too long") \
    X(CHUNK_END,        400, "chunk data is not followed by CRLF") \
    X(TRAILER,          400, "the trailer section is malformed or too long") \
    X(BODY_LONG,        413, "the body is too large") \
    X(SLOW_HEAD,        408, "the head did not arrive in time") \
    X(SLOW_BODY,        408, "the body did not arrive in time") \
    X(CUT_OFF,          400, "the peer closed before the message was complete") \
    X(OVERLOADED,       503, "the server is at its limit of requests in flight or of their bodies")

enum http_fault {
#define HTTP_FAULT_ENUM(name, status, text) HTTP_FAULT_##name,
    HTTP_FAULTS(HTTP_FAULT_ENUM)
#undef HTTP_FAULT_ENUM
    HTTP_FAULT_COUNT
};

const char *http_fault_name(enum http_fault f);         /* "space_colon": logs, journal, tests */
const char *http_fault_text(enum http_fault f);
int http_fault_status(enum http_fault f);               /* what a server answers */

struct http_header {
    struct str name, value;             /* name as sent; value without white space around it, may be empty */
};

/* All views point into the parsed buffer (the path of a target without one is a literal "/"). */
struct http_head {
    /* requests */
    struct str method;
    struct str target;                  /* as sent */
    struct str path;                    /* starts with '/', or is "*" (OPTIONS only); not percent-decoded */
    struct str query;                   /* behind the first '?', empty if none */
    struct str host;                    /* Host, or the authority of an absolute target; empty only in HTTP/1.0 */
    /* responses */
    int status;                         /* 100 to 999 */
    struct str reason;
    /* both */
    unsigned minor;                     /* HTTP/1.minor: 0 or 1 */
    unsigned n_headers;
    /* What finds a field by its name: http_name_mark() is a bit, here that of each name, and of each that has been met
     * twice; first[] says where the first of a mark stands. Of marks that are not there it is not set. */
    uint64_t marks, again;
    uint8_t first[64];
    struct http_header headers[HTTP_HEADERS_MAX];
};

/* Bytes of the head (its empty line included) when complete, 0 when more is needed, -1 when refused: *why says which
 * rule. *ret and *why are undefined otherwise; *why is not touched on success. `in` may go on behind the head. RFC
 * 9112 2, 3, 5. */
int http_parse_request_head(struct str in, struct http_head *ret, enum http_fault *why);
/* The same for a status line and fields, RFC 9112 4. Interim answers (1xx) are heads like others: the caller, who knows
 * whether it may expect one, drops them (and bounds how many) and parses again behind it. */
int http_parse_response_head(struct str in, struct http_head *ret, enum http_fault *why);
/* `in` is what is there now, `seen` how much of it an earlier parse answered 0 to: is it worth parsing again? True
 * when a line ended or a limit was passed since. seen == 0: always true, so that garbage is refused at its first
 * bytes. */
bool http_head_worth(struct str in, size_t seen);

/* One of 64, the same for a name in any case: most names that a head lacks are known to be missing by it, and most that
 * it has stand where the mark says. The factors tell apart all names that are asked for here. */
static inline unsigned http_name_mark(struct str name)
{
    unsigned first = (unsigned char)name.p[0] | 0x20, last = (unsigned char)name.p[name.len - 1] | 0x20;

    return (unsigned)(name.len * 3 + first * 8 + last * 3) & 63;
}

/* http_head_find() of a name whose mark, which is `mark`, has been met twice. */
const struct http_header *http_head_among(const struct http_head *h, struct str want, unsigned mark, unsigned *ret_n);

/* The first field called `name` (any case, not empty), and how many there are; NULL and 0 if none. ret_n may be NULL.
 * Inlined: nearly every name is a literal, whose length and mark the compiler knows. */
static inline const struct http_header *http_head_find(const struct http_head *h, const char *name, unsigned *ret_n)
{
    struct str want = str_of(name);
    unsigned mark = http_name_mark(want);
    const struct http_header *found = NULL;

    if (h->again >> mark & 1)
        return http_head_among(h, want, mark, ret_n);
    if (h->marks >> mark & 1 && str_ieq(h->headers[h->first[mark]].name, want))
        found = &h->headers[h->first[mark]];
    if (ret_n)
        *ret_n = found != NULL;
    return found;
}

/* True if exactly one field is called `name`; *ret is its value. */
bool http_head_one(const struct http_head *h, const char *name, struct str *ret);
/* May the connection carry another message after this one? RFC 9112 9.3: version and Connection. */
bool http_head_keeps(const struct http_head *h);

bool http_is_token(struct str s);                       /* RFC 9110 5.6.2: a field name, a method */
bool http_is_value(struct str s);                       /* no control characters but HTAB; may be empty */
/* Does the comma separated `list` contain `word` (any case)? */
bool http_list_has(struct str list, const char *word);

/* ---- framing: where the body ends, RFC 9112 6 -------------------------------------------------------------------- */

enum http_framing {
    HTTP_BODY_NONE,
    HTTP_BODY_LENGTH,                   /* exactly `length` bytes, > 0 or 0 as announced */
    HTTP_BODY_CHUNKED,
    HTTP_BODY_UNTIL_CLOSE,              /* responses only; such a connection is never kept */
};

struct http_body {
    enum http_framing framing;
    uint64_t length;                    /* HTTP_BODY_LENGTH */
    bool expect_continue;               /* requests: the client waits for "100 Continue" before it sends the body */
};

/* False when the announcement is refused; *why says which rule. Also refuses bodies on GET, HEAD, DELETE, TRACE and
 * CONNECT (a Content-Length of 0 is accepted), Expect other than 100-continue, and compressed bodies. */
bool http_request_framing(const struct http_head *h, struct http_body *ret, enum http_fault *why);
/* was_head: the request was a HEAD. Refuses bodies announced by 1xx and 204, and 101, which nobody here asks for. */
bool http_response_framing(const struct http_head *h, bool was_head, struct http_body *ret, enum http_fault *why);

/* ---- chunked bodies, RFC 9112 7.1 -------------------------------------------------------------------------------- */

struct http_chunked {
    int state;
    bool done;                          /* the last chunk and the trailer section are behind us */
    uint32_t line;                      /* bytes of the current line */
    uint32_t extensions;                /* bytes of extensions so far */
    uint32_t trailers;                  /* bytes of the trailer section so far */
    uint64_t left;                      /* data bytes left in the current chunk */
};

void http_chunked_init(struct http_chunked *c);
/* Reads from `in` up to the end of the next run of data, of the body, or of `in`. Returns the bytes consumed and sets
 * *ret_data to the body bytes among them (a view, maybe empty); -1 when refused. Call again with the rest until
 * nothing is left or c->done. Extensions and trailers are checked, bounded and dropped. */
int64_t http_chunked_decode(struct http_chunked *c, struct str in, struct str *ret_data, enum http_fault *why);

#endif
