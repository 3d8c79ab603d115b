/* policy_layer_test.c -- entities put over a store: merged, taken as they are, or in the same as another */
#include "base_test.h"

#include "base/map.h"
#include "policy/entities.h"

static struct arena arena;

static int setup(void **state)
{
    (void)state;
    arena_init(&arena, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_release(&arena);
    return 0;
}

static bool is_in(const struct policy_entity *e, const struct policy_uid *uid)
{
    for (uint32_t i = 0; i < e->n_ancestors; i++)
        if (policy_uid_eq(e->ancestors[i].uid, uid))
            return true;
    return false;
}

/* A tenant in an organisation, as an operator may say. */
static struct policy_entities *store_of(const struct policy_uid *tenant, const struct policy_uid *org)
{
    struct policy_entities *s = policy_entities_new();
    struct policy_value none = { 0 };

    assert_int_equal(policy_entities_add(s, tenant, none, none, org, 1, NULL), OK);
    assert_int_equal(policy_entities_freeze(s, NULL), OK);
    return s;
}

static void test_twins_are_in_the_same(void **state)
{
    struct policy_uid org = policy_uid(STR("Org"), STR("o")), tenant = policy_uid(STR("Tenant"), STR("t"));
    struct policy_uid box = policy_uid(STR("Box"), STR("b")), twin = policy_uid(STR("Agent"), STR("a"));
    struct policy_entities *store = store_of(&tenant, &org);
    const struct policy_uid *above = &tenant;
    const struct policy_entity *e, *of;
    struct policy_attr attrs[] = { { STR("size"), policy_long(7) } };
    struct policy_layer l;

    (void)state;
    policy_layer_init(&l, store);
    assert_int_equal(policy_layer_add(&l, &arena, box, policy_record_of(attrs, 1), &above, 1), OK);
    of = policy_layer_find(&l, &box);
    assert_int_equal(policy_layer_like(&l, &arena, &twin, of), OK);
    e = policy_layer_find(&l, &twin);
    assert_true(policy_uid_eq(&e->uid, &twin));
    assert_int_equal(e->n_ancestors, 2);
    assert_true(is_in(e, &tenant) && is_in(e, &org));
    assert_int_equal(of->n_attrs, 1);
    assert_int_equal(e->n_attrs + e->n_tags, 0);
    assert_int_equal(policy_layer_add(&l, &arena, twin, (struct policy_value){ 0 }, &above, 1), E_CALL_TOO_LARGE);
    policy_entities_unref(store);
}

static void test_what_is_whole_is_not_copied(void **state)
{
    const struct policy_entity own = { .uid = policy_uid(STR("Box"), STR("own")) };
    struct arena full;
    struct policy_layer l;

    (void)state;
    arena_init(&full, 16);
    policy_layer_init(&l, NULL);
    assert_null(policy_layer_find(&l, &own.uid));
    assert_int_equal(policy_layer_like(&l, &full, &own.uid, &own), E_CALL_TOO_LARGE);
    assert_int_equal(l.n, 0);
    for (int i = 0; i < POLICY_LAYER_MAX; i++)
        assert_int_equal(policy_layer_take(&l, &own), OK);
    assert_ptr_equal(policy_layer_find(&l, &own.uid), &own);
    assert_int_equal(policy_layer_take(&l, &own), E_CALL_TOO_LARGE);
    assert_int_equal(policy_layer_like(&l, &arena, &own.uid, &own), E_CALL_TOO_LARGE);
    arena_release(&full);
}

static void test_hashes_that_are_known_make_the_same_name(void **state)
{
    struct str type = STR("Mailbox"), id = STR("alice@example.com");
    struct policy_uid want = policy_uid(type, id);
    uint64_t t = hash_bytes(type.p, type.len), h = hash_bytes(id.p, id.len);

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct policy_uid got = policy_uid_known(type, i & 1 ? t : 0, id, i & 2 ? h : 0);

        assert_true(policy_uid_eq(&got, &want) && got.hash == want.hash && got.type_hash == want.type_hash);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_twins_are_in_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_whole_is_not_copied, setup, teardown),
        cmocka_unit_test(test_hashes_that_are_known_make_the_same_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
