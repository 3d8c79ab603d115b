/* admin_memory_test.c -- the allocator is set up as admin/memory.c asks, and its figures are told */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "admin/memory.h"

#ifdef SLUICE_JEMALLOC
#include <jemalloc/jemalloc.h>

static void settings_are_in_force(void **state)
{
    unsigned slots = 0;
    size_t len = sizeof(slots), gc = 0, gc_len = sizeof(gc);

    assert_int_equal(mallctl("opt.tcache_nslots_small_min", &slots, &len, NULL, 0), 0);
    assert_int_equal(slots, 100);
    assert_int_equal(mallctl("opt.tcache_gc_incr_bytes", &gc, &gc_len, NULL, 0), 0);
    assert_int_equal(gc, 1 << 20);
    assert_true(memory_resident() > 0);
}
#else
static void settings_are_in_force(void **state)
{
    assert_true(memory_resident() > 0);         /* a sanitizer has an allocator of its own */
}
#endif

static void figures(void **state)
{
    struct buf b = BUF_INIT(1 << 16);

    memory_render(&b);
    buf_add(&b, "", 1);
    assert_false(b.overflow);
    assert_non_null(strstr(b.p, "\nsluice_memory_resident_bytes "));
#ifdef SLUICE_JEMALLOC
    assert_non_null(strstr(b.p, "\nsluice_jemalloc_allocated_bytes "));
#endif
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(settings_are_in_force), cmocka_unit_test(figures) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
