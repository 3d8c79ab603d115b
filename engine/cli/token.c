/* token.c -- `sluice token`: a bearer token, signed with the engine's own key */
#include <stdio.h>
#include <string.h>

#include "cli/link.h"

static const char help[] =
    "Usage: sluice token --as USER --agent AGENT [OPTIONS]\n\n"
    "Makes a bearer token for the engine whose data directory this is, and prints it. The engine's\n"
    "own issuer is for trying out, for scripts and for machines of one's own; where people log in\n"
    "elsewhere, configure auth.issuers instead.\n\n"
    "  sluice token --tenant demo --as alice@demo.example --agent claude --ttl 8h\n\n"
    "  --as USER         on whose behalf\n"
    "  --agent AGENT     the software that acts; cli if left out\n"
    "  --users-file F    a token for every user of the file, one per line, for load tests\n"
    "  --via AGENT       an agent that delegated to it; may be repeated, newest first: policy asks\n"
    "                    each of them too\n"
    "  --tenant TENANT   default if left out\n"
    "  --scope SCOPES    blank-separated\n"
    "  --group GROUP     a group the user is in, for policies; may be repeated\n"
    "  --ttl TIME        how long it is good for: 300s, 15m, 8h; 1h if left out, 24h at most\n"
    "  --audience URL    the MCP endpoint it is meant for; that of the engine running on the data\n"
    "                    directory if left out\n"
    "  --data DIR        the engine's data directory; ./sluice-data if left out\n"
    "  --config FILE     the engine's configuration: data directory and endpoint are taken from it\n";

static int print_one(const char *data, const struct identity_mint *m)
{
    struct buf token = BUF_INIT(IDENTITY_TOKEN_MAX);
    int rc = mint(&verb_token, data, m, &token);

    if (!rc)
        printf("%.*s\n", STR_ARG(buf_str(&token)));
    buf_release(&token);
    return rc;
}

static int mint_all(const char *path, const char *data, const struct identity_mint *like)
{
    struct identity_mint m = *like;
    FILE *f = fopen(path, "re");
    char line[512];
    int rc = 0;

    if (!f)
        return complain(&verb_token, EXIT_UNABLE, "cannot read %s", path);
    while (!rc && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\r\n")] = '\0';
        m.user = str_of(line);
        if (m.user.len)
            rc = print_one(data, &m);
    }
    fclose(f);
    return rc;
}

static int run(int argc, char **argv)
{
    struct link_options o = { 0 };
    const char *scope = NULL, *ttl = NULL, *users = NULL, *data, *url;
    const char *via[CALLER_ACTORS_MAX - 1], *in[CALLER_GROUPS_MAX];
    struct str chain[CALLER_ACTORS_MAX - 1], groups[CALLER_GROUPS_MAX];
    size_t n_via = 0, n_in = 0;
    const struct option_spec specs[] = {
        { .name = "as", .value = &o.user },
        { .name = "agent", .value = &o.agent },
        { .name = "tenant", .value = &o.tenant },
        { .name = "via", .list = via, .n_list = &n_via, .max_list = CALLER_ACTORS_MAX - 1 },
        { .name = "group", .list = in, .n_list = &n_in, .max_list = CALLER_GROUPS_MAX },
        { .name = "scope", .value = &scope },
        { .name = "ttl", .value = &ttl },
        { .name = "users-file", .value = &users },
        { .name = "audience", .value = &o.url },
        { .name = "data", .value = &o.data },
        { .name = "config", .value = &o.config },
        { 0 },
    };
    struct identity_mint m = { .chain = chain, .groups = groups };
    int64_t seconds = 0;
    struct arena a;
    int words, rc = options_read(&verb_token, argc, argv, specs, NULL, 0, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    if (!o.user && !users)
        return complain(&verb_token, EXIT_USAGE, "on whose behalf? say --as USER");
    if (ttl && !duration_read(ttl, 86400, &seconds))
        return complain(&verb_token, EXIT_USAGE, "--ttl takes a time of at most 24h: 300s, 15m, 8h");
    m.ttl = seconds * NS_PER_S;
    arena_init(&a, 1 << 20);
    rc = link_url(&verb_token, &o, &a, &url, &data);
    m.tenant = str_of(o.tenant);
    m.user = str_of(o.user);
    m.agent = str_of(o.agent);
    m.audience = str_of(url);
    m.scopes = str_of(scope);
    for (; m.n_chain < n_via; m.n_chain++)
        chain[m.n_chain] = str_of(via[m.n_chain]);
    for (; m.n_groups < n_in; m.n_groups++)
        groups[m.n_groups] = str_of(in[m.n_groups]);
    if (!rc)
        rc = users ? mint_all(users, data, &m) : print_one(data, &m);
    arena_release(&a);
    return rc;
}

const struct verb verb_token = { "token", "make a bearer token with the engine's own key", help, run };
