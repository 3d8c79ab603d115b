/*
 * schema_bench.c -- what checking a value costs: tool arguments of ten fields, and what makes a schema slow
 *
 * Usage: schema_bench [--check].  Prints the fastest of several rounds for each case, in nanoseconds.  With --check it
 * fails if the ten fields take more than CHECK_NS.  The value is parsed before: only schema_check is timed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "json/schema.h"

enum { ROUNDS = 15, CALLS = 20000, CHECK_NS = 500 };

static const struct {
    const char *name, *schema, *value;
} cases[] = {
    { "ten fields",
      "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"attendees\",\"minutes\",\"after\"],"
      "\"properties\":{\"title\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":200},"
      "\"minutes\":{\"type\":\"integer\",\"minimum\":5,\"maximum\":480},"
      "\"after\":{\"type\":\"string\",\"maxLength\":40},\"calendar\":{\"type\":\"string\",\"maxLength\":100},"
      "\"visibility\":{\"enum\":[\"default\",\"public\",\"private\"]},\"notify\":{\"type\":\"boolean\"},"
      "\"priority\":{\"type\":\"number\",\"minimum\":0,\"maximum\":1},\"location\":{\"type\":\"string\"},"
      "\"color\":{\"type\":[\"string\",\"null\"]},"
      "\"attendees\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":20,\"items\":{\"type\":\"string\","
      "\"maxLength\":254}}}}",
      "{\"title\":\"Review of the quarter\",\"minutes\":30,\"after\":\"2030-01-31T09:00:00Z\",\"calendar\":\"primary\","
      "\"visibility\":\"private\",\"notify\":true,\"priority\":0.5,\"location\":\"Room 4\",\"color\":null,"
      "\"attendees\":[\"ada@example.com\",\"grace@example.com\",\"alan@example.com\"]}" },
    { "one pattern",
      "{\"type\":\"string\",\"pattern\":\"^[a-z0-9._-]+@[a-z0-9.-]+$\"}", "\"ada.lovelace@example.com\"" },
    { "no fields", "{\"type\":\"object\",\"additionalProperties\":false}", "{}" },
    { "oneOf three, unevaluated",
      "{\"type\":\"object\",\"properties\":{\"kind\":{\"type\":\"string\"}},\"required\":[\"kind\"],\"oneOf\":["
      "{\"properties\":{\"kind\":{\"const\":\"a\"},\"x\":{\"type\":\"integer\"}}},"
      "{\"properties\":{\"kind\":{\"const\":\"b\"},\"y\":{\"type\":\"integer\"}}},"
      "{\"properties\":{\"kind\":{\"const\":\"c\"},\"z\":{\"type\":\"integer\"}}}],\"unevaluatedProperties\":false}",
      "{\"kind\":\"c\",\"z\":5}" },
    { "a schema by the metaschema", "{\"$ref\":\"https://json-schema.org/draft/2020-12/schema\"}",
      "{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":5},"
      "\"b\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}},\"additionalProperties\":false}" },
};

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct json *parse(struct arena *a, const char *text)
{
    struct json *j = NULL;

    ASSERT(json_parse(a, str_of(text), NULL, &j, NULL) == OK);
    return j;
}

static double measure(const char *schema_text, const char *value_text)
{
    struct errinfo info = { "" };
    struct arena a, scratch;
    struct schema *s = NULL;
    struct json *value;
    double best = 1e18;

    arena_init(&a, 16 << 20);
    arena_init(&scratch, 16 << 20);
    if (schema_compile(parse(&a, schema_text), &s, &info) != OK) {
        fprintf(stderr, "%s\n", info.text);
        exit(1);
    }
    value = parse(&a, value_text);
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ns(), took;

        for (int i = 0; i < CALLS; i++) {
            struct schema_fault fault;

            ASSERT(schema_check(s, value, &scratch, &fault) == OK);
            if (scratch.chunks)
                arena_clear(&scratch);
        }
        took = (now_ns() - start) / CALLS;
        best = took < best ? took : best;
    }
    schema_free(s);
    arena_release(&scratch);
    arena_release(&a);
    return best;
}

int main(int argc, char **argv)
{
    bool check = argc > 1 && strcmp(argv[1], "--check") == 0;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        double ns = measure(cases[i].schema, cases[i].value);

        printf("%-28s %8.0f ns\n", cases[i].name, ns);
        if (check && i == 0 && ns > CHECK_NS) {
            fprintf(stderr, "%s: %.0f ns, at most %d expected\n", cases[i].name, ns, CHECK_NS);
            return 1;
        }
    }
    return 0;
}
