/*
 * json_bench_jansson.c -- jansson as the bench's subject, in the way that costs it least: no duplicate check (flags 0),
 * output into one buffer that is reused (json_dumpb); 15 digits, so that 0.15 does not come back as 0.14999999999999999
 */
#include <jansson.h>
#include <string.h>

#include "json_bench.h"

static json_t *kept;
static char out[1 << 20];

static uint64_t walk(const json_t *j)
{
    uint64_t sum = 0;
    const char *name;
    json_t *value;
    size_t i;

    if (json_is_object(j)) {
        json_object_foreach((json_t *)(uintptr_t)j, name, value)
            sum += strlen(name) + walk(value);
    } else if (json_is_array(j)) {
        json_array_foreach(j, i, value)
            sum += walk(value);
    } else if (json_is_string(j)) {
        sum = json_string_length(j);
    } else if (json_is_integer(j)) {
        sum = (uint64_t)json_integer_value(j);
    } else if (json_is_true(j)) {
        sum = 1;
    }
    return sum;
}

static uint64_t jansson_read(const char *text, size_t len)
{
    json_t *j = json_loadb(text, len, 0, NULL), *params;
    uint64_t sum;

    if (!j)
        return 0;
    params = json_object_get(j, "params");
    sum = json_string_length(json_object_get(j, "jsonrpc")) + (uint64_t)json_integer_value(json_object_get(j, "id")) +
        json_string_length(json_object_get(j, "method")) + json_string_length(json_object_get(params, "name"));
    sum += walk(json_object_get(params, "arguments")) + walk(json_object_get(j, "result"));
    json_decref(j);
    return sum;
}

static int jansson_keep(const char *text, size_t len)
{
    json_decref(kept);
    kept = json_loadb(text, len, 0, NULL);
    return kept != NULL;
}

static size_t jansson_write(const char **ret_text)
{
    *ret_text = out;
    return json_dumpb(kept, out, sizeof(out), JSON_COMPACT | JSON_REAL_PRECISION(15));
}

const struct subject jansson_subject = { "jansson", jansson_read, jansson_keep, jansson_write };
