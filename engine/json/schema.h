/*
 * schema.h -- JSON Schema 2020-12: a document compiled once, values checked many times
 *
 * All assertions and applicators of the dialect (JSON Schema Core and Validation, draft 2020-12), with references,
 * anchors, dynamic references and both "unevaluated" keywords.  Nothing is ever fetched: a reference that leads out of
 * the document must be answered by the resolver given at compile time or the schema is refused.  The dialect's own
 * metaschemas are built in.
 *
 * Numbers are compared and divided exactly, in decimal.  Lengths of strings are counted in code points.  `pattern` is
 * PCRE2 in its Unicode mode with ECMA-262's meaning of $, \d, \w, \s and friends; what a match may cost is limited, and
 * a value that reaches the limit is refused.  `format` is an annotation unless options say otherwise.
 *
 * Everything is bounded: nesting of schemas and values, subschemas, and the steps of one check.  A value that would
 * need more is refused as too complex, never accepted.
 *
 * A compiled schema is immutable and may be shared by threads.  Neither compiling nor checking ever waits, and both fit
 * a task's stack (SCHEMA_STACK_MAX, SCHEMA_COMPILE_STACK_MAX).  Compiling belongs to start-up all the same: it costs
 * tens of microseconds, and a pattern is compiled to machine code.
 */
#ifndef JSON_SCHEMA_H
#define JSON_SCHEMA_H

#include "json/json.h"

struct schema;

enum {
    SCHEMA_DEPTH_MAX = 64,              /* nesting of a schema document, of a value, of references within one value */
    SCHEMA_SUBSCHEMAS_MAX = 10000,      /* of one compiled schema, documents it refers to included */
    SCHEMA_STEPS_MAX = 1000000,         /* of one check: about one per keyword, member and element looked at */
    SCHEMA_STACK_MAX = 32768,           /* bytes of stack that schema_check needs at most (9 KB were seen) */
    SCHEMA_COMPILE_STACK_MAX = 40960,   /* of schema_compile: 13 KB were seen without patterns, 32 KB with */
};

/*
 * Why a value does not fit, for a person or a model that has to mend it.  Both end in NUL.
 *
 *   where    JSON Pointer (RFC 6901) into the value, "" being the whole; for a missing member, the place it is missing
 *            from the value.  Cut short with "..." when it does not fit.
 *   what     continues a sentence that begins with the place: "must be at most 480", "is required", "is not allowed
 *            here".  Quotes the schema, never the value.
 */
struct schema_fault {
    char where[256];
    char what[256];
};

struct schema_options {
    /*
     * Answers the document known by an absolute URI (without fragment), or NULL.  Asked only for documents that are
     * neither the schema's own nor built in; called during schema_compile_with only.  The tree must stay until that
     * returns.  NULL: no other documents.
     */
    const struct json *(*resolve)(void *ctx, struct str uri);
    void *ctx;

    struct str base_uri;                /* where the document is from, if its $id is relative or absent; may be empty */

    /*
     * Check format too: date-time, date, time, email, hostname, ipv4, ipv6, uri, uuid, json-pointer, regex (and
     * uri-reference, relative-json-pointer, duration). Other formats stay annotations.
     */
    bool format_assertion;

    /*
     * Check the document against the 2020-12 metaschema before compiling it: also finds what compiling overlooks
     * because it does not use it ("title": 5).  The document may then be SCHEMA_DEPTH_MAX deep as a value.
     */
    bool check_metaschema;
};

/*
 * Compiles `doc`; its tree and text are not needed afterwards.  The caller owns *ret (schema_free).
 *
 * E_CONFIG, with the JSON Pointer into the schema and the reason in `info` (may be NULL): a $schema that is not this
 * dialect, a reference that leads nowhere or outside, a keyword whose value has the wrong form, a pattern that does not
 * compile, too deep or too large.
 */
enum err schema_compile(const struct json *doc, struct schema **ret, struct errinfo *info);
/* The same; `options` NULL: all defaults. */
enum err schema_compile_with(const struct json *doc, const struct schema_options *options, struct schema **ret,
    struct errinfo *info);

/*
 * OK if `value` fits, else E_ARGS_INVALID and, if `fault` is not NULL, the first reason found, the deepest one along
 * a chain of allOf and $ref.  NULL is no value and never fits.  `scratch` serves schemas that must remember what was
 * evaluated and large uniqueItems; most checks allocate nothing.  If it overflows the value is refused as too complex.
 */
enum err schema_check(const struct schema *s, const struct json *value, struct arena *scratch,
    struct schema_fault *fault);

/* Accepts NULL. */
void schema_free(struct schema *s);

#endif
