/* demo.c -- the sandbox as provider, the demo tenant's policies as files */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/demo.h"
#include "loop/world.h"

bool demo_port_free(const char *address)
{
    int fd;

    if (net_listen(address, false, &fd, NULL))
        return false;
    close(fd);
    return true;
}

int demo_sandbox(const struct verb *v, const struct config *c, struct sandbox_thread **ret, char name[64])
{
    struct sandbox_options opt = { .listen = c->sandbox_listen };
    struct errinfo info = { "" };

    if (!c->path && !demo_port_free(opt.listen)) {
        LOG_INFO("the sandbox takes a free port", LOG_S("instead_of", opt.listen));
        opt.listen = "127.0.0.1:0";
    }
    return sandbox_thread_start(&opt, ret, name, &info) ? complain(v, EXIT_UNABLE, "%s", info.text) : 0;
}

void demo_provider(struct config *c, const char *sandbox)
{
    struct provider_setup *p = &c->providers[c->n_providers];

    for (size_t i = 0; i < c->n_providers; i++)
        if (strcmp(c->providers[i].name, "outlook") == 0)
            return;
    if (c->n_providers == CONFIG_PROVIDERS_MAX)
        return;
    *p = (struct provider_setup){ .name = "outlook", .client_id = SANDBOX_CLIENT_ID };
    p->base_url = arena_printf(&c->arena, "http://%s", sandbox).p;
    p->auth_url = p->base_url;
    p->client_secret = secret_copy(SANDBOX_CLIENT_SECRET, strlen(SANDBOX_CLIENT_SECRET));
    p->guard.allow_loopback = true;
    p->guard.allow_plain_http = true;
    c->n_providers++;
}

static bool write_file(struct arena *a, const char *dir, const struct embedded *f)
{
    FILE *to = fopen(arena_printf(a, "%s/%s", dir, f->name).p, "we");
    bool ok = to && fwrite(f->bytes, 1, f->n, to) == f->n;

    if (to)
        ok = fclose(to) == 0 && ok;
    return ok;
}

int demo_write(const struct verb *v, struct arena *a, const char *data, const char **ret_dir)
{
    const char *dir = arena_printf(a, "%s/demo-policies", data).p;
    int made = world->mkdir(data, 0700);

    if (made >= 0)
        made = world->mkdir(dir, 0700);
    if (made < 0)
        return complain(v, EXIT_UNABLE, "cannot make %s: %s", dir, strerror(-made));
    for (const struct embedded *f = demo_policies; f->name; f++)
        if (!write_file(a, dir, f))
            return complain(v, EXIT_UNABLE, "cannot write the demo policies into %s: %s", dir, strerror(errno));
    *ret_dir = dir;
    return 0;
}
