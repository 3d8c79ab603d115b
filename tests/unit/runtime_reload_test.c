/*
 * runtime_reload_test.c -- what a reload promises who hears of it, and what goes with it
 *
 * Announcements are looked at on their way (the linker's --wrap): that is the first moment at which a client may ask.
 */
#include "mcp/internal.h"
#include "runtime/runtime.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WORKERS = 16, RELOADS = 20 };

static char dir[] = "/tmp/sluice-reload-XXXXXX";

void __real_mcp_announce(struct mcp *m, struct str tenant, const char *what);
void __wrap_mcp_announce(struct mcp *m, struct str tenant, const char *what);

static unsigned tools, prompts, resources, stale;
static const struct engine *engine;                 /* NULL until something was announced */
static const struct registry *before;               /* the snapshot that goes */

void __wrap_mcp_announce(struct mcp *m, struct str tenant, const char *what)
{
    engine = m->opt.engine;
    tools += strcmp(what, "tools") == 0;
    prompts += strcmp(what, "prompts") == 0;
    resources += strcmp(what, "resources") == 0;
    for (unsigned i = 0; i < engine->n_workers; i++)
        stale += engine->workers[i].held->registry == before;
    __real_mcp_announce(m, tenant, what);
}

static struct config *configured(void)
{
    struct config *c = NULL;
    struct errinfo info;

    assert_int_equal(config_default(&c, &info), OK);
    c->listen = "127.0.0.1:0";
    c->data = dir;
    c->workers = WORKERS;
    c->no_auth = true;
    return c;
}

static struct runtime *started(struct config *c)
{
    struct runtime *rt = NULL;
    struct errinfo info = { "" };

    if (runtime_start(c, &rt, &info))
        fail_msg("%s", info.text);
    return rt;
}

static void lists_are_announced_when_every_worker_has_them(void **state)
{
    struct runtime *rt = started(configured());
    struct errinfo info = { "" };

    tools = prompts = resources = stale = 0;
    for (unsigned i = 1; i <= RELOADS; i++) {
        assert_int_equal(runtime_reload(rt, configured(), &info), OK);
        assert_int_equal(tools, i);
        assert_int_equal(prompts, i);
        assert_int_equal(resources, i);
        before = engine->workers[0].held->registry;
    }
    assert_int_equal(stale, 0);
    assert_true(runtime_drain(rt));
    assert_true(runtime_stop(rt));
}

static unsigned refs(struct config *c)
{
    return atomic_load(&c->refs);
}

/* Each is the test's, too, so that it can be looked at. */
static void a_configuration_goes_with_the_last_that_borrows_from_it(void **state)
{
    struct config *first = config_ref(configured()), *second = config_ref(configured());
    struct runtime *rt = started(first);
    struct errinfo info = { "" };
    struct registry *snapshot;

    assert_int_equal(refs(first), 3);       /* the runtime's, and its snapshot's */
    assert_int_equal(runtime_reload(rt, second, &info), OK);
    assert_int_equal(refs(first), 1);
    snapshot = registry_ref(engine->workers[0].held->registry);     /* as a call that is under way */
    assert_int_equal(runtime_reload(rt, configured(), &info), OK);
    assert_int_equal(refs(second), 2);
    registry_unref(snapshot);
    assert_int_equal(refs(second), 1);

    first->no_auth = false;
    assert_int_equal(runtime_reload(rt, first, &info), E_CONFIG);
    first->no_auth = true;
    first->connectors[0] = "nobody";
    assert_int_equal(runtime_reload(rt, first, &info), E_CONFIG);
    assert_int_equal(refs(first), 1);       /* still the caller's */
    assert_true(runtime_drain(rt));
    assert_true(runtime_stop(rt));
    config_free(first);
    config_free(second);
}

static int make_dir(void **state)
{
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_announced_when_every_worker_has_them),
        cmocka_unit_test(a_configuration_goes_with_the_last_that_borrows_from_it),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
