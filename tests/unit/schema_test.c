/*
 * schema_test.c -- JSON Schema: what is told about a fault, what is refused at compile time, and that all is bounded
 *
 * What the dialect means is the business of schema_corpus_test; here stand our own promises.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "base/check.h"
#include "json/schema.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* JSON is written with ' for " in this file. */
static struct json *parse_str(struct arena *a, struct str text)
{
    const struct json_limits limits = { .depth_max = JSON_DEPTH_MAX };
    char *copy = arena_z(a, text);
    struct json *j = NULL;

    assert_non_null(copy);
    for (size_t i = 0; i < text.len; i++)
        if (copy[i] == '\'')
            copy[i] = '"';
    if (json_parse(a, str_n(copy, text.len), &limits, &j, NULL) != OK)
        fail_msg("not JSON: %s", copy);
    return j;
}

static struct json *parse(struct arena *a, const char *text)
{
    return parse_str(a, str_of(text));
}

/* The text and its tree are gone when the schema is used. */
static enum err compile_with(const char *text, const struct schema_options *options, struct schema **ret,
    struct errinfo *info)
{
    struct arena a;
    enum err e;

    arena_init(&a, 64 << 20);
    e = schema_compile_with(parse(&a, text), options, ret, info);
    arena_release(&a);
    return e;
}

static struct schema *compile(const char *text)
{
    struct errinfo info = { "" };
    struct schema *s = NULL;

    if (compile_with(text, NULL, &s, &info) != OK)
        fail_msg("%s: %s", text, info.text);
    return s;
}

static bool fits(const struct schema *s, const char *value, struct schema_fault *fault)
{
    struct arena a, scratch;
    bool yes;

    arena_init(&a, 64 << 20);
    arena_init(&scratch, 4 << 20);
    yes = schema_check(s, parse(&a, value), &scratch, fault) == OK;
    arena_release(&a);
    arena_release(&scratch);
    return yes;
}

static bool accepts(const char *schema, const char *value)
{
    struct schema *s = compile(schema);
    bool yes = fits(s, value, NULL);

    schema_free(s);
    return yes;
}

/* --- what is told ----------------------------------------------------------------------------------------------- */

static void a_fault_says_where_and_what(void **state)
{
    static const struct {
        const char *schema, *value, *where, *what;
    } rows[] = {
        { "{'properties':{'minutes':{'maximum':480}}}", "{'minutes':481}", "/minutes", "must be at most 480" },
        { "{'minimum':0.5}", "0.4999", "", "must be at least 0.5" },
        { "{'exclusiveMinimum':1}", "1", "", "must be greater than 1" },
        { "{'exclusiveMaximum':1}", "1.0", "", "must be less than 1" },
        { "{'multipleOf':0.25}", "0.3", "", "must be a multiple of 0.25" },
        { "{'required':['a','b']}", "{'a':1}", "/b", "is required" },
        { "{'items':{'required':['x/y']}}", "[{'x/y':1},{}]", "/1/x~1y", "is required" },
        { "{'properties':{'a':true},'additionalProperties':false}", "{'a':1,'b~c':2}", "/b~0c",
          "is not allowed here" },
        { "{'type':'string'}", "7", "", "must be a string" },
        { "{'type':['integer','null','boolean']}", "7.5", "", "must be null, true or false or a whole number" },
        { "{'enum':[1,'a',null]}", "'b'", "", "must be one of \"a\", 1, null" },
        { "{'enum':['only']}", "1", "", "must be \"only\"" },
        { "{'const':{'a':[1]}}", "1", "", "must be {\"a\":[1]}" },
        { "{'maxLength':1}", "'ab'", "", "must be at most 1 character long" },
        { "{'minLength':3}", "'ab'", "", "must be at least 3 characters long" },
        { "{'pattern':'^[0-9]+$'}", "'x'", "", "must match the pattern ^[0-9]+$" },
        { "{'minItems':1}", "[]", "", "must have at least 1 element" },
        { "{'maxItems':1}", "[1,2]", "", "must have at most 1 element" },
        { "{'minProperties':2}", "{}", "", "must have at least 2 members" },
        { "{'maxProperties':0}", "{'a':1}", "", "must have at most 0 members" },
        { "{'properties':{'l':{'uniqueItems':true}}}", "{'l':[1,2,1.0]}", "/l/2",
          "is equal to element 0; all must differ" },
        { "{'dependentRequired':{'card':['address']}}", "{'card':1}", "/address", "is required when card is given" },
        { "{'dependentSchemas':{'card':{'required':['address']}}}", "{'card':1}", "/address", "is required" },
        { "{'propertyNames':{'maxLength':2}}", "{'ab':1,'abc':2}", "/abc",
          "has a name that must be at most 2 characters long" },
        { "{'contains':{'const':1}}", "[2,3]", "", "holds no element of the form that one of them must have" },
        { "{'contains':{'const':1},'maxContains':1}", "[1,1]", "",
          "holds 2 elements of a form of which it may hold at most 1" },
        { "{'contains':{'const':1},'minContains':2}", "[1]", "",
          "holds 1 elements of a form of which it must hold at least 2" },
        { "{'not':{'type':'null'}}", "null", "", "has a form that is not allowed here" },
        { "{'oneOf':[{'minimum':1},{'minimum':2}]}", "3", "",
          "fits more than one of the 2 forms of which it must fit exactly one" },
        { "{'anyOf':[{'minimum':1},{'multipleOf':2}]}", "-1", "", "fits none of the 2 forms that are allowed here" },
        /* the only form of the value's type is the one that was meant */
        { "{'properties':{'n':{'anyOf':[{'type':'string','maxLength':2},{'type':'null'}]}}}",
          "{'n':'abc'}", "/n", "must be at most 2 characters long" },
        { "{'oneOf':[{'type':'object','properties':{'a':{'items':{'type':'null'}}}},{'type':'null'}]}",
          "{'a':[null,1]}", "/a/1", "must be null" },
        { "{'allOf':[{'$ref':'#/$defs/d'}],'$defs':{'d':{'properties':{'a':{'items':{'type':'null'}}}}}}",
          "{'a':[null,null,1]}", "/a/2", "must be null" },
        { "{'if':{'required':['a']},'then':{'required':['b']},'else':{'required':['c']}}", "{'a':1}",
          "/b", "is required" },
        { "{'if':{'required':['a']},'then':{'required':['b']},'else':{'required':['c']}}", "{}", "/c",
          "is required" },
        { "{'allOf':[{'properties':{'a':true}}],'unevaluatedProperties':false}", "{'a':1,'b':1}", "/b",
          "is not allowed here" },
        { "{'prefixItems':[true],'unevaluatedItems':{'type':'string'}}", "[1,2]", "/1", "must be a string" },
        { "false", "1", "", "is not allowed here" },
        { "{'patternProperties':{'^x':{'type':'null'}}}", "{'xa':1}", "/xa", "must be null" },
        { "{'properties':{'':{'type':'null'}}}", "{'':1}", "/", "must be null" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct schema *s = compile(rows[i].schema);
        struct schema_fault fault = { "unset", "unset" };

        assert_false(fits(s, rows[i].value, &fault));
        assert_string_equal(fault.what, rows[i].what);
        assert_string_equal(fault.where, rows[i].where);
        schema_free(s);
    }
}

static void long_places_and_quotes_are_cut_between_characters(void **state)
{
    static const char e_acute[] = "\xc3\xa9";
    char schema[2000], value[2000], name[700] = "", pattern[600] = "";
    struct schema_fault fault;
    struct schema *s;

    for (int i = 0; i < 300; i++)
        strcat(name, e_acute);
    for (int i = 0; i < 250; i++)
        strcat(pattern, e_acute);
    snprintf(schema, sizeof(schema), "{'additionalProperties':{'pattern':'a%s'}}", pattern);
    snprintf(value, sizeof(value), "{'%s':'secret'}", name);
    s = compile(schema);
    assert_false(fits(s, value, &fault));
    assert_true(str_utf8_valid(str_of(fault.where)));
    assert_true(str_utf8_valid(str_of(fault.what)));
    assert_true(str_ends(str_of(fault.where), STR("...")));
    assert_true(str_ends(str_of(fault.what), STR("...")));
    assert_null(strstr(fault.what, "secret"));
    schema_free(s);
}

static void a_fault_is_not_needed(void **state)
{
    struct schema *s = compile("{'type':'string'}");
    struct schema_fault fault = { "x", "x" };

    assert_false(fits(s, "1", NULL));
    assert_true(fits(s, "''", &fault));
    assert_string_equal(fault.what, "");
    schema_free(s);
    schema_free(NULL);
}

/* --- what is refused -------------------------------------------------------------------------------------------- */

static void bad_schemas_are_refused_with_their_place(void **state)
{
    static const struct {
        const char *schema, *text;
    } rows[] = {
        { "1", "#: a schema must be an object or a boolean" },
        { "{'properties':{'a/b':7}}", "#/properties/a/b: a schema must be an object or a boolean" },
        { "{'properties':[]}", "#/properties: must be an object of schemas" },
        { "{'allOf':{}}", "#/allOf: must be an array of schemas" },
        { "{'anyOf':[]}", "#/anyOf: must not be empty" },
        { "{'$schema':'http://json-schema.org/draft-07/schema#'}",
          "#/$schema: this dialect is not supported (only draft 2020-12 is): http://json-schema.org/draft-07/schema" },
        { "{'$schema':7}", "#/$schema: this dialect is not supported (only draft 2020-12 is): " },
        { "{'items':{'$ref':'#/$defs/none'}}", "#/items/$ref: leads nowhere: #/$defs/none" },
        { "{'items':{'$ref':'#none'}}", "#/items/$ref: leads to an anchor that is not there: #none" },
        { "{'$ref':'https://example.com/s.json#/a'}",
          "#/$ref: leads to a document that is not here (nothing is fetched): https://example.com/s.json" },
        { "{'$ref':'#/%zz'}", "#/$ref: has a malformed fragment" },
        { "{'$ref':7}", "#/$ref: must be a string" },
        { "{'$ref':'#'}", "#: refers to itself without end, or through more than 64 schemas" },
        { "{'$ref':'#/$defs/a','$defs':{'a':{'allOf':[{'$ref':'#/$defs/b'}]},'b':{'$ref':'#/$defs/a'}}}",
          "#: refers to itself without end, or through more than 64 schemas" },
        { "{'$id':'a#b'}", "#/$id: must not have a fragment" },
        { "{'$defs':{'a':{'$id':'x:y'},'b':{'$id':'x:y'}}}", "#/$defs/b/$id: two schemas have this identifier" },
        { "{'$defs':{'a':{'$anchor':'y'},'b':{'$anchor':'y'}}}", "#/$defs/b/$anchor: two schemas have this anchor" },
        { "{'type':'text'}", "#/type: must be one of null, boolean, object, array, number, integer, string" },
        { "{'minimum':'3'}", "#/minimum: must be a number" },
        { "{'multipleOf':0.0}", "#/multipleOf: must be a number above 0" },
        { "{'maxLength':-1}", "#/maxLength: must be a whole number from 0" },
        { "{'maxLength':1.5}", "#/maxLength: must be a whole number from 0" },
        { "{'maxLength':-1e300}", "#/maxLength: must be a whole number from 0" },
        { "{'required':[1]}", "#/required: must be an array of strings" },
        { "{'enum':1}", "#/enum: must be an array" },
        { "{'uniqueItems':1}", "#/uniqueItems: must be true or false" },
        { "{'pattern':'('}", "#/pattern: is not a pattern: a group without end, before byte 1" },
        { "{'pattern':1}", "#/pattern: must be a string" },
        { "{'patternProperties':{'[':true}}",
          "#/patternProperties: is not a pattern: a class without end, before byte 1" },
        { "{'$defs':{'unused':{'minimum':null}}}", "#/$defs/unused/minimum: must be a number" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct errinfo info = { "" };
        struct schema *s = NULL;

        assert_int_equal(compile_with(rows[i].schema, NULL, &s, &info), E_CONFIG);
        assert_string_equal(info.text, rows[i].text);
        assert_int_equal(compile_with(rows[i].schema, NULL, &s, NULL), E_CONFIG);
        assert_null(s);
    }
}

static void the_metaschema_checks_schemas_when_asked(void **state)
{
    const struct schema_options options = { .check_metaschema = true };
    struct errinfo info = { "" };
    struct schema *s = NULL;

    assert_int_equal(compile_with("{'properties':{'a':{'title':5}}}", &options, &s, &info), E_CONFIG);
    assert_string_equal(info.text, "#/properties/a/title: must be a string");
    assert_int_equal(compile_with("{'properties':{'a':{'title':5}}}", NULL, &s, NULL), OK);
    schema_free(s);
    assert_int_equal(compile_with("{'properties':{'a':{'title':'5'}}}", &options, &s, NULL), OK);
    schema_free(s);
}

/* A schema made of `n` times `open`, `middle` and `n` times `close`. */
static char *repeat(const char *open, const char *middle, const char *close, size_t n)
{
    char *text = malloc(n * (strlen(open) + strlen(close)) + strlen(middle) + 1), *p = text;

    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        p = stpcpy(p, open);
    p = stpcpy(p, middle);
    for (size_t i = 0; i < n; i++)
        p = stpcpy(p, close);
    return text;
}

static void deep_and_large_schemas_are_refused(void **state)
{
    char *fine = repeat("{'not':", "true", "}", SCHEMA_DEPTH_MAX - 1);
    char *deep = repeat("{'not':", "true", "}", SCHEMA_DEPTH_MAX);
    char *quoted = repeat("[", "1", "]", SCHEMA_DEPTH_MAX + 1);
    char *many = repeat("true,", "true", "", SCHEMA_SUBSCHEMAS_MAX);
    char *text = malloc(strlen(many) + 100);
    struct errinfo info = { "" };
    struct schema *s = NULL;

    assert_int_equal(compile_with(fine, NULL, &s, NULL), OK);
    schema_free(s);
    s = NULL;
    assert_int_equal(compile_with(deep, NULL, &s, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "is nested more than 64 schemas deep"));
    sprintf(text, "{'const':%s}", quoted);
    assert_int_equal(compile_with(text, NULL, &s, &info), E_CONFIG);
    assert_string_equal(info.text, "#/const: is nested more than 64 deep");
    sprintf(text, "{'anyOf':[%s]}", many);
    assert_int_equal(compile_with(text, NULL, &s, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "there are more than 10000 subschemas"));
    assert_null(s);
    free(fine);
    free(deep);
    free(quoted);
    free(many);
    free(text);
}

/* --- other documents -------------------------------------------------------------------------------------------- */

static unsigned asked;

static const struct json *resolve(void *ctx, struct str uri)
{
    asked++;
    return str_is(uri, "https://example.com/dir/other") ? ctx : NULL;
}

static void a_resolver_answers_for_other_documents(void **state)
{
    struct schema_options options = { .resolve = resolve, .base_uri = STR("https://example.com/dir/this") };
    struct errinfo info = { "" };
    struct schema *s = NULL;
    struct arena a;

    arena_init(&a, 1 << 20);
    options.ctx = parse(&a, "{'$defs':{'n':{'type':'integer'}}}");
    asked = 0;
    assert_int_equal(compile_with("{'items':{'$ref':'other#/$defs/n'},'not':{'$ref':'./x/../other#/$defs/n'}}",
        &options, &s, &info), OK);
    assert_int_equal(asked, 1);
    arena_release(&a);
    assert_true(fits(s, "[1]", NULL));
    assert_false(fits(s, "[1.5]", NULL));
    schema_free(s);
    s = NULL;
    assert_int_equal(compile_with("{'$ref':'elsewhere'}", &options, &s, &info), E_CONFIG);
    assert_non_null(strstr(info.text, "https://example.com/dir/elsewhere"));
}

static void a_mistake_in_another_document_is_named_there(void **state)
{
    struct schema_options options = { .resolve = resolve, .base_uri = STR("https://example.com/dir/this") };
    struct errinfo info = { "" };
    struct schema *s = NULL;
    struct arena a;

    arena_init(&a, 1 << 20);
    options.ctx = parse(&a, "{'$defs':{'n':{'minimum':'x'},'m':true}}");
    assert_int_equal(compile_with("{'$ref':'other#/$defs/n'}", &options, &s, &info), E_CONFIG);
    assert_string_equal(info.text, "https://example.com/dir/other#/$defs/n/minimum: must be a number");
    assert_int_equal(compile_with("{'$ref':'other#/$defs/m'}", &options, &s, &info), OK);
    schema_free(s);
    arena_release(&a);
}

/* --- numbers, strings, patterns --------------------------------------------------------------------------------- */

static void numbers_are_exact(void **state)
{
    static const struct {
        const char *schema, *value;
        bool fits;
    } rows[] = {
        { "{'multipleOf':0.1}", "0.3", true },
        { "{'multipleOf':0.01}", "19.99", true },
        { "{'multipleOf':0.01}", "19.999", false },
        { "{'multipleOf':1e-300}", "1e300", true },
        { "{'multipleOf':3e-300}", "1e300", false },
        { "{'multipleOf':3e-300}", "9e300", true },
        { "{'multipleOf':7}", "-49", true },
        { "{'multipleOf':7}", "0.0", true },
        { "{'multipleOf':10}", "1e20", true },
        { "{'multipleOf':10}", "12345678901234567890123", false },
        { "{'multipleOf':123456789012345678901234567890}", "370370367037037036703703703670", true },
        { "{'multipleOf':123456789012345678901234567890}", "370370367037037036703703703671", false },
        { "{'multipleOf':1.23456789012345678901234567890}", "1.23456789012345678901234567890e200", true },
        { "{'multipleOf':4503599627370496000000000000001}", "4503599627370496000000000000001e3", true },
        { "{'multipleOf':0.0000000000000000000000000001}", "1", true },
        { "{'maximum':9007199254740993}", "9007199254740993.0", true },
        { "{'maximum':9007199254740993}", "9007199254740993.1", false },
        { "{'maximum':9007199254740993}", "9007199254740994", false },
        { "{'minimum':0.1}", "0.10000000000000000000001", true },
        { "{'minimum':0.1}", "0.09999999999999999999999", false },
        { "{'exclusiveMaximum':18446744073709551616}", "18446744073709551615", true },
        { "{'exclusiveMaximum':18446744073709551616}", "18446744073709551616", false },
        { "{'const':100}", "1.00e2", true },
        { "{'enum':[1,'a',0.5]}", "5e-1", true },
        { "{'type':'integer'}", "1e3", true },
        { "{'type':'integer'}", "1.5", false },
        { "{'maxItems':2.0}", "[1,2]", true },
        { "{'maxItems':1e300}", "[1,2]", true },
        { "{'minItems':1e300}", "[1,2]", false },
        { "{'const':false}", "0", false },
        { "{'const':'1'}", "1", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (accepts(rows[i].schema, rows[i].value) != rows[i].fits)
            fail_msg("%s %s", rows[i].schema, rows[i].value);
}

static void lengths_count_code_points(void **state)
{
    /* 1, 2, 3 and 4 bytes each; long enough for the fast path */
    const char *value = "'aaaaaaaaaa\xc3\xa9\xc3\xa9\xe2\x82\xac\xe2\x82\xac\xf0\x9f\x90\xb2\xf0\x9f\x90\xb2zzz'";

    assert_true(accepts("{'minLength':19,'maxLength':19}", value));
    assert_false(accepts("{'minLength':20}", value));
    assert_false(accepts("{'maxLength':18}", value));
    assert_true(accepts("{'minLength':0,'maxLength':0}", "''"));
}

static void patterns_mean_what_ecmascript_says(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool matches;
    } rows[] = {
        { "^$", "", true }, { "^a$", "a\\n", false }, { "^.$", "\\u2028", false }, { "^.$", "\\u0085", true },
        { "^[^]$", "\\n", true }, { "[]", "a", false }, { "^[[a]$", "[", true }, { "^[a\\\\]]$", "]", true },
        { "^[\\\\w-]+$", "a-b", true }, { "^[a-]+$", "-a", true }, { "^[\\\\b]$", "\\b", true },
        { "^[^\\\\d\\\\s]+$", "ab", true }, { "^[^\\\\d\\\\s]+$", "a b", false }, { "^[^\\\\S]$", " ", true },
        { "^\\\\u00e9$", "\\u00e9", true }, { "^\\\\ud83d\\\\udc32$", "\\ud83d\\udc32", true },
        { "^\\\\u{1f432}$", "\\ud83d\\udc32", true }, { "^\\\\x41$", "A", true }, { "^\\\\0$", "\\u0000", true },
        { "^[\\\\u{1f430}-\\\\u{1f43f}]$", "\\ud83d\\udc32", true }, { "^(a)?b\\\\1$", "b", true },
        { "^(?<x>a|b)\\\\k<x>$", "bb", true }, { "^(?<x>a|b)\\\\k<x>$", "ba", false },
        { "^(?:ab){2,3}?$", "abab", true }, { "^a{2}$", "aa", true }, { "^a{,2}$", "a{,2}", true },
        { "^{$", "{", true }, { "^}$", "}", true }, { "^a\\\\-b$", "a-b", true }, { "(?=b)b", "ab", true },
        { "(?<=a)b", "ab", true }, { "(?<!a)b", "ab", false }, { "^\\\\p{Lu}$", "A", true },
        { "^\\\\p{Script=Greek}+$", "\\u03c0", true }, { "^\\\\p{sc=Latin}+$", "\\u03c0", false },
        { "^\\\\p{gc=Letter}$", "\\u03c0", true }, { "^[\\\\p{Lu}\\\\p{Nd}]+$", "A1", true },
        { "^\\\\P{L}$", "1", true }, { "^\\\\bab\\\\b$", "ab", true }, { "a/b", "a/b", true }, { "#", "x # y", true },
        { "^\\\\cJ$", "\\n", true }, { " ", "a b", true }, { "\\\\/", "/", true }, { "\\u00e9$", "caf\\u00e9", true },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char schema[200], value[100];

        snprintf(schema, sizeof(schema), "{'pattern':'%s'}", rows[i].pattern);
        snprintf(value, sizeof(value), "'%s'", rows[i].text);
        if (accepts(schema, value) != rows[i].matches)
            fail_msg("%s on %s", schema, value);
    }
}

static void what_is_not_ecmascript_is_refused(void **state)
{
    static const char *const patterns[] = {
        "(?i)a", "(?>a)", "(?#x)", "(?P<n>a)", "(?R)", "(?1)", "(*ACCEPT)", "(?|a)", "a++", "a**", "*a", "^*", "a|*",
        "(", ")", "(a))", "[", "[a", "[b-a]", "\\\\", "\\\\a", "\\\\A", "\\\\Z", "\\\\z", "\\\\K", "\\\\Q", "\\\\R",
        "\\\\X", "\\\\G", "\\\\h", "\\\\C", "\\\\01", "\\\\1", "(a)\\\\2", "\\\\x4", "\\\\u12", "\\\\u{110000}",
        "\\\\ud800", "\\\\p", "\\\\p{}", "\\\\p{Nonsense}", "\\\\pL", "\\\\c1", "\\\\k<none>", "(?<>a)", "(?<1a>b)",
        "a{3,2}", "[\\\\B]",
    };

    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        struct schema *s = NULL;
        char schema[200];

        snprintf(schema, sizeof(schema), "{'pattern':'%s'}", patterns[i]);
        if (compile_with(schema, NULL, &s, NULL) != E_CONFIG)
            fail_msg("accepted %s", schema);
    }
}

static void formats_are_asserted_when_asked(void **state)
{
    static const struct {
        const char *format, *good, *bad;
    } rows[] = {
        { "date-time", "2030-01-31T09:00:00.5+01:00", "2030-02-30T09:00:00Z" }, { "date", "2028-02-29", "2030-02-29" },
        { "time", "23:59:60Z", "22:59:60Z" }, { "email", "a.b@example.com", "a..b@example.com" },
        { "hostname", "a-b.example", "-a.example" }, { "ipv4", "127.0.0.1", "127.0.0.01" },
        { "ipv6", "::1", "::1%eth0" }, { "uri", "https://a.example/b?c#d", "//a.example" },
        { "uri-reference", "../a?b#c", "a b" }, { "uuid", "2EB8AA08-AA98-11EA-B4AA-73B441D16380", "2eb8aa08" },
        { "json-pointer", "/a~1b", "a" }, { "relative-json-pointer", "1/a", "01/a" }, { "regex", "(a)", "(a" },
        { "duration", "P1DT2H", "P1T2H" },
    };
    const struct schema_options options = { .format_assertion = true };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct schema *s = NULL;
        char schema[100], value[100];

        snprintf(schema, sizeof(schema), "{'format':'%s'}", rows[i].format);
        assert_int_equal(compile_with(schema, &options, &s, NULL), OK);
        snprintf(value, sizeof(value), "'%s'", rows[i].good);
        assert_true(fits(s, value, NULL));
        snprintf(value, sizeof(value), "'%s'", rows[i].bad);
        assert_false(fits(s, value, NULL));
        assert_false(fits(s, "''", NULL) && i != 8 && i != 10 && i != 12);     /* these accept the empty text */
        schema_free(s);
        assert_true(accepts(schema, value));                                     /* an annotation otherwise */
    }
}

/* --- bounds ----------------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* What is refused as too complex stays refused under "not", and takes bounded time. */
static void hostile(const char *schema, const char *value)
{
    struct schema_fault fault;
    double start = seconds();
    struct schema *s = compile(schema);

    assert_false(fits(s, value, &fault));
    if (!strstr(fault.what, "too complex") && !strstr(fault.what, "too deep"))
        fail_msg("%.100s: %s", schema, fault.what);
    assert_true(seconds() - start < (SANITIZED ? 60 : 5));
    schema_free(s);
}

static void hostile_patterns_are_bounded(void **state)
{
    char *as = repeat("a", "!", "", 40), *spaces = repeat(" ", "x", "", 200000);
    char *value = malloc(400000);

    sprintf(value, "'%s'", as);
    hostile("{'pattern':'^(a+)+$'}", value);
    hostile("{'not':{'pattern':'^(a+)+$'}}", value);
    hostile("{'pattern':'^(([a-z])+.)+[A-Z]([a-z])+$'}", value);
    sprintf(value, "'%s'", spaces);
    hostile("{'pattern':'\\\\s+$'}", value);
    assert_true(accepts("{'pattern':'^\\\\s+x$'}", value));
    sprintf(value, "{'%s':1}", as);
    hostile("{'patternProperties':{'^(a|aa)+$':true}}", value);
    free(as);
    free(spaces);
    free(value);
}

static void work_is_bounded(void **state)
{
    char *value = repeat("[", "1", "]", 60), *numbers = repeat("1,", "1", "", 20000), *text = malloc(100000);
    char *minima = repeat("{'minimum':0},", "true", "", 25), schema[1000];

    /* each level is asked twice by the one above: 2^60 ways */
    hostile("{'anyOf':[{'items':{'$ref':'#'},'contains':false},{'items':{'$ref':'#'},'contains':false}]}", value);
    sprintf(text, "[%s]", numbers);
    sprintf(schema, "{'items':{'allOf':[%s]}}", minima);
    hostile(schema, text);
    /* around in circles on one value */
    hostile("{'anyOf':[{'$ref':'#'}]}", "1");
    hostile("{'not':{'not':{'$ref':'#'}}}", "1");
    hostile("{'$dynamicAnchor':'x','$dynamicRef':'#x'}", "1");
    free(value);
    free(numbers);
    free(minima);
    free(text);
}

static void deep_values_are_refused_where_the_schema_follows(void **state)
{
    char *fine = repeat("[", "", "]", SCHEMA_DEPTH_MAX), *deep = repeat("[", "", "]", SCHEMA_DEPTH_MAX + 2);
    char pair[2000];

    assert_true(accepts("{'items':{'$ref':'#'}}", fine));
    hostile("{'items':{'$ref':'#'}}", deep);
    assert_true(accepts("{'type':'array'}", deep));
    sprintf(pair, "[%s,%s]", deep, deep);
    hostile("{'uniqueItems':true}", pair);
    free(fine);
    free(deep);
}

static void unique_items_of_large_arrays(void **state)
{
    struct buf b = BUF_INIT(64 << 20);
    struct schema *s = compile("{'uniqueItems':true}");
    struct schema_fault fault;
    double start;

    buf_add_c(&b, '[');
    for (int i = 0; i < 20000; i++)
        buf_addf(&b, "{'id':%d,'k':[true,%d.5]},", i, i);
    buf_add_z(&b, "1,0,'1','',null,false,true,[],{},[0],[false]");
    buf_add(&b, "]", 2);
    start = seconds();
    assert_true(fits(s, b.p, &fault));
    assert_true(seconds() - start < (SANITIZED ? 20 : 2));
    b.len -= 2;
    buf_add_z(&b, ",{'k':[true,77.50],'id':7.7e1}]");
    buf_add(&b, "", 1);
    assert_false(fits(s, b.p, &fault));
    assert_string_equal(fault.where, "/20011");
    assert_string_equal(fault.what, "is equal to element 77; all must differ");
    schema_free(s);
    buf_release(&b);
}

static void many_names_are_found(void **state)
{
    struct buf schema = BUF_INIT(1 << 20), value = BUF_INIT(1 << 20), required = BUF_INIT(1 << 20);
    struct schema_fault fault;
    struct schema *s;

    buf_add_z(&schema, "{'additionalProperties':false,'properties':{");
    buf_add_c(&value, '{');
    for (int i = 0; i < 500; i++) {
        buf_addf(&schema, "%s'name_%d':{'const':%d}", i ? "," : "", i * 7919, i);
        buf_addf(&required, "%s'name_%d'", i ? "," : "", i * 7919);
        if (i != 250)
            buf_addf(&value, "'name_%d':%d,", (499 - i) * 7919, 499 - i);
    }
    buf_addf(&schema, "},'required':[%.*s]}", STR_ARG(buf_str(&required)));
    buf_add(&schema, "", 1);
    s = compile(schema.p);
    value.len--;
    buf_add(&value, "}", 2);
    assert_false(fits(s, value.p, &fault));
    assert_string_equal(fault.where, "/name_1971831");
    assert_string_equal(fault.what, "is required");
    value.len -= 2;
    buf_add_z(&value, ",'name_1971831':249}");
    buf_add(&value, "", 1);
    assert_true(fits(s, value.p, &fault));
    value.len -= 2;
    buf_add_z(&value, ",'name_1':1}");
    buf_add(&value, "", 1);
    assert_false(fits(s, value.p, &fault));
    assert_string_equal(fault.where, "/name_1");
    schema_free(s);
    buf_release(&schema);
    buf_release(&value);
    buf_release(&required);
}

static void a_full_arena_refuses(void **state)
{
    char *value = repeat("[", "1", "]", 40);
    struct schema_fault fault;
    struct arena a, scratch;
    struct schema *s = compile("{'items':{'$ref':'#'},'unevaluatedItems':false}");

    arena_init(&a, 1 << 20);
    for (size_t room = 0; room < 20000; room += 500) {
        arena_init(&scratch, room);
        if (schema_check(s, parse(&a, value), &scratch, &fault) != OK)
            assert_string_equal(fault.what, "is too large to be checked");
        else
            assert_true(room > 5000);
        arena_release(&scratch);
    }
    assert_true(fits(s, value, NULL));
    arena_release(&a);
    schema_free(s);
    free(value);
}

static void what_is_no_value_never_fits(void **state)
{
    struct schema *s = compile("{'properties':{'a':{'minLength':0}}}"), *any = compile("true");
    struct schema_fault fault;
    struct arena a;
    struct json *obj;

    arena_init(&a, 1 << 20);
    obj = json_object(&a);
    json_set(&a, obj, "a", json_raw(&a, STR("\"x\"")));
    assert_int_equal(schema_check(s, obj, &a, &fault), E_ARGS_INVALID);
    assert_string_equal(fault.where, "/a");
    assert_string_equal(fault.what, "is not a JSON value");
    assert_int_equal(schema_check(any, NULL, &a, &fault), E_ARGS_INVALID);
    assert_string_equal(fault.what, "is missing");
    arena_release(&a);
    schema_free(s);
    schema_free(any);
}

/* --- threads and stacks ----------------------------------------------------------------------------------------- */

static const char shared_schema[] =
    "{'type':'object','unevaluatedProperties':false,'patternProperties':{'^[a-z]+$':{'anyOf':["
    "{'type':'string','pattern':'^x(y|z)+$'},{'$ref':'#'}]}}}";

static void *check_often(void *arg)
{
    for (int i = 0; i < 500; i++) {
        ASSERT(fits(arg, "{'a':'xyzzy','b':{'c':'xz'}}", NULL));
        ASSERT(!fits(arg, "{'a':'xyzzy','b':{'c':'xa'}}", NULL));
    }
    return NULL;
}

static void threads_share_a_schema(void **state)
{
    struct schema *s = compile(shared_schema);
    pthread_t threads[4];

    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, check_often, s), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    schema_free(s);
}

struct stack_case {
    const struct json *doc;             /* NULL: only check */
    const struct schema *schema;
    const struct json *value;
};

static void *do_once(void *arg)
{
    struct stack_case *c = arg;
    struct schema_fault fault;
    struct schema *s = NULL;
    struct arena scratch;

    arena_init(&scratch, 16 << 20);
    if (c->doc)
        ASSERT(schema_compile(c->doc, &s, NULL) == OK);
    else
        (void)schema_check(c->schema, c->value, &scratch, &fault);
    schema_free(s);
    arena_release(&scratch);
    return NULL;
}

/* Bytes of a painted stack that are touched. */
static size_t stack_touched(struct stack_case *c)
{
    enum { SIZE = 256 * 1024, PAINT = 0x5a };
    unsigned char *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attr;
    pthread_t thread;
    size_t clean = 0;

    assert_true(stack != MAP_FAILED);
    memset(stack, PAINT, SIZE);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, SIZE), 0);
    assert_int_equal(pthread_create(&thread, &attr, do_once, c), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    while (clean < SIZE && stack[clean] == PAINT)
        clean++;
    munmap(stack, SIZE);
    return SIZE - clean;
}

/* What compiling the schema and checking the value need of it, beyond what a thread needs anyway. */
static void stack_used(const char *schema, const char *value, size_t *ret_compile, size_t *ret_check)
{
    struct schema *any = compile("true"), *s = compile(schema);
    struct stack_case c = { .schema = any };
    struct arena a;
    size_t idle;

    arena_init(&a, 64 << 20);
    c.value = parse(&a, value);
    idle = stack_touched(&c);
    c.schema = s;
    *ret_check = stack_touched(&c) - idle;
    c.doc = parse(&a, schema);
    *ret_compile = stack_touched(&c) - idle;
    arena_release(&a);
    schema_free(any);
    schema_free(s);
}

static void compiling_and_checking_fit_a_task_stack(void **state)
{
    char *deep = repeat("[", "1", "]", 60), *array = malloc(1000), *groups = repeat("(a|b", "", ")*", 20);
    char *pattern = malloc(1000), *nested = repeat("{'allOf':[", "true", "]}", SCHEMA_DEPTH_MAX - 1);
    const struct {
        const char *name, *schema, *value;
    } rows[] = {
        { "a deep value, uniqueItems", "{'items':{'$ref':'#'},'uniqueItems':true,'unevaluatedItems':false}", array },
        { "a deep schema", nested, "1" },
        { "a pattern that backtracks", "{'pattern':'^(([a-z])+.)+[A-Z]([a-z])+$'}", "'aaaaaaaaaaaaaaaaaaaaaaaaaaaa'" },
        { "a pattern of nested groups", pattern, "'ababababababababababababababababababab'" },
        { "a long division", "{'multipleOf':1.00000000000000000000001}", "1.00000000000000000000001e300" },
        { "the metaschema", "{'$ref':'https://json-schema.org/draft/2020-12/schema'}", "{'items':{'title':5}}" },
    };

    assert_true(deep && array && groups && pattern && nested);
    sprintf(array, "[%s,%s,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", deep, deep);
    sprintf(pattern, "{'pattern':'%s'}", groups);
    for (size_t i = 0; i < ARRAY_LEN(rows) && !SANITIZED; i++) {
        size_t to_compile, to_check;

        stack_used(rows[i].schema, rows[i].value, &to_compile, &to_check);
        print_message("stack, %-28s %6zu to compile, %6zu to check\n", rows[i].name, to_compile, to_check);
        assert_true(to_compile < SCHEMA_COMPILE_STACK_MAX);
        assert_true(to_check < SCHEMA_STACK_MAX);
    }
    free(deep);
    free(array);
    free(groups);
    free(pattern);
    free(nested);
    if (SANITIZED) {
        print_message("skipped: frames are larger under sanitizers\n");
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_says_where_and_what),
        cmocka_unit_test(long_places_and_quotes_are_cut_between_characters),
        cmocka_unit_test(a_fault_is_not_needed),
        cmocka_unit_test(bad_schemas_are_refused_with_their_place),
        cmocka_unit_test(the_metaschema_checks_schemas_when_asked),
        cmocka_unit_test(deep_and_large_schemas_are_refused),
        cmocka_unit_test(a_resolver_answers_for_other_documents),
        cmocka_unit_test(a_mistake_in_another_document_is_named_there),
        cmocka_unit_test(numbers_are_exact),
        cmocka_unit_test(lengths_count_code_points),
        cmocka_unit_test(patterns_mean_what_ecmascript_says),
        cmocka_unit_test(what_is_not_ecmascript_is_refused),
        cmocka_unit_test(formats_are_asserted_when_asked),
        cmocka_unit_test(hostile_patterns_are_bounded),
        cmocka_unit_test(work_is_bounded),
        cmocka_unit_test(deep_values_are_refused_where_the_schema_follows),
        cmocka_unit_test(unique_items_of_large_arrays),
        cmocka_unit_test(many_names_are_found),
        cmocka_unit_test(a_full_arena_refuses),
        cmocka_unit_test(what_is_no_value_never_fits),
        cmocka_unit_test(threads_share_a_schema),
        cmocka_unit_test(compiling_and_checking_fit_a_task_stack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
