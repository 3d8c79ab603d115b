/*
 * fuzz_entities.c -- any bytes as entities and a context, with a schema and without: refused with a reason, or whole
 *
 * Input: entities (JSON), then perhaps a context (JSON), separated by a line of "----".  What must hold: a refusal says
 * why; every entity of the text is found again; membership is closed, has no ring and no duplicate; a value that was
 * read is equal to itself and can be written.
 */
#include <stdint.h>

#include "base/check.h"
#include "json/json.h"
#include "policy/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char schema_text[] =
    "entity Team in [Team]; entity Color enum [\"red\", \"blue\"];\n"
    "entity User in [Team] { n: Long, \"a b\"?: Set<String>, r?: { on: Bool, at?: datetime }, boss?: User, d?: decimal,"
    " ip?: ipaddr, t?: duration, c?: Color, who?: Set<User> } tags Set<Long>;\n"
    "action all; action view in [all] appliesTo { principal: User, resource: [User, Team], context: { n?: Long,"
    " u?: User, l?: Set<{ a: decimal }> } };\n";

static struct policy_schema *schema_once(void)
{
    static struct policy_schema *schema;
    struct errinfo info;

    if (!schema)
        ASSERT(policy_schema_parse(STR("s"), str_of(schema_text), POLICY_SCHEMA_TEXT, &schema, NULL, &info) == OK);
    return schema;
}

static bool is_above(const struct policy_entity *e, const struct policy_uid *uid)
{
    for (uint32_t i = 0; i < e->n_ancestors; i++)
        if (policy_uid_eq(e->ancestors[i].uid, uid))
            return true;
    return false;
}

static void check_value(struct policy_value v)
{
    struct buf out = BUF_INIT(64 << 20);

    policy_value_write(&out, &v);
    ASSERT(out.len > 0 && policy_value_eq(&v, &v) && policy_value_cmp(&v, &v) == 0);
    buf_release(&out);
}

static void check_attrs(const struct policy_attr *attrs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        ASSERT(policy_record_get(attrs, n, attrs[i].key) == &attrs[i].value);
        check_value(attrs[i].value);
    }
}

static void check_entity(const struct policy_entities *store, const struct policy_entity *e)
{
    for (uint32_t i = 0; i < e->n_ancestors; i++) {
        const struct policy_entity *above = policy_entities_find(store, e->ancestors[i].uid);

        ASSERT(!policy_uid_eq(e->ancestors[i].uid, &e->uid));
        ASSERT(i == 0 || e->ancestors[i - 1].hash <= e->ancestors[i].hash);
        for (uint32_t k = i + 1; k < e->n_ancestors; k++)
            ASSERT(!policy_uid_eq(e->ancestors[i].uid, e->ancestors[k].uid));
        for (uint32_t k = 0; above && k < above->n_ancestors; k++)
            ASSERT(is_above(e, above->ancestors[k].uid));
    }
    check_attrs(e->attrs, e->n_attrs);
    check_attrs(e->tags, e->n_tags);
}

static void check_store(const struct policy_entities *store, const struct json *list)
{
    for (const struct json *j = json_first(list); j; j = json_next(j)) {
        const struct json *uid = json_get(j, "uid"), *inner = json_get(uid, "__entity");
        struct policy_uid name;
        const struct policy_entity *e;

        uid = inner ? inner : uid;
        name = policy_uid(json_str(json_get(uid, "type")), json_str(json_get(uid, "id")));
        e = policy_entities_find(store, &name);
        ASSERT(e && policy_uid_eq(&e->uid, &name));
        check_entity(store, e);
    }
}

static void run(struct arena *a, struct str text, struct str context, const struct policy_schema *schema)
{
    static const struct json_limits limits = { .depth_max = JSON_DEPTH_MAX, .nul_keys = true };
    struct policy_uid view = policy_uid(STR("Action"), STR("view"));
    struct policy_entities *store = policy_entities_new();
    struct errinfo info = { "" };
    struct policy_value v;
    struct json *j;
    enum err e = schema ? policy_entities_add_json_typed(store, schema, text, &info)
        : policy_entities_add_json(store, text, &info);

    if (!e)
        e = policy_entities_freeze(store, &info);
    if (!e && json_parse(a, text, &limits, &j, NULL) == OK)
        check_store(store, j);
    ASSERT(!e || info.text[0]);
    info.text[0] = '\0';
    if (json_parse(a, context, &limits, &j, NULL) == OK) {
        e = policy_context_from_json(a, j, schema, &view, &v, &info);
        ASSERT(!e || e == E_CALL_TOO_LARGE || info.text[0]);
        ASSERT(e || v.kind == POLICY_RECORD);
        if (!e)
            check_value(v);
    }
    policy_entities_unref(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char line[] = "\n----\n";
    const char *at = size ? memmem(data, size, line, sizeof(line) - 1) : NULL;
    struct str text = str_n(data, at ? (size_t)(at - (const char *)data) : size);
    struct str context = at ? str_from(str_n(data, size), text.len + sizeof(line) - 1) : STR_NULL;
    struct arena a;

    arena_init(&a, 16 << 20);
    run(&a, text, context, NULL);
    arena_clear(&a);
    run(&a, text, context, schema_once());
    arena_release(&a);
    return 0;
}
