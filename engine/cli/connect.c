/* connect.c -- `sluice connect`: a user's accounts at providers */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "cli/headless.h"
#include "cli/link.h"
#include "cli/print.h"

enum { AT_ONCE = 16, USERS_BYTES_MAX = 64 << 20, TOKEN_MAX = 16384 };

static const char help[] =
    "Usage: sluice connect PROVIDER --as USER --agent AGENT [OPTIONS]\n"
    "       sluice connect --list | --disconnect ID\n\n"
    "Connects an account of the user at a provider, through a running engine. Prints the URL the user\n"
    "opens in a browser; once the provider has sent the browser back, calls can use the account.\n\n"
    "  sluice connect outlook --as alice@example.com --agent cli\n"
    "  sluice connect github --token-file token.txt --as alice@example.com --agent cli\n\n"
    "  --label TEXT        what the account is called (its address, for a mailbox); the user's name\n"
    "                      if left out\n"
    "  --token-file FILE   a token the user brings instead of logging in; - reads it from stdin\n"
    "  --list              the user's accounts\n"
    "  --disconnect ID     revokes the account at the provider where it can be, and forgets it\n"
    "  --sandbox-login     logs in by itself: works with the built-in sandbox only\n"
    "  --users-file FILE   with --sandbox-login: connects every user of the file, one per line, for\n"
    "                      load tests\n"
    "  --json              answers as JSON\n"
    LINK_HELP;

struct options {
    struct link_options link;
    const char *label, *token_file, *disconnect, *users_file;
    bool list, sandbox_login, json;
};

/* ---- one account ------------------------------------------------------------------------------------------------- */

static int list(const struct options *o, struct link *l, struct arena *a)
{
    struct json *answer;
    struct table t;
    int rc = link_ask(&verb_connect, l, a, "GET", "/v1/accounts", NULL, &answer);

    if (rc)
        return rc;
    if (o->json) {
        print_compact(stdout, json_get(answer, "accounts"));
        return 0;
    }
    table_init(&t, a, 5);
    table_row(&t, (const struct str[]){ STR("PROVIDER"), STR("ACCOUNT"), STR("STATUS"), STR("SINCE"), STR("ID") });
    for (const struct json *one = json_first(json_get(answer, "accounts")); one; one = json_next(one))
        table_row(&t, (const struct str[]){ json_str(json_get(one, "provider")), json_str(json_get(one, "label")),
                                            json_str(json_get(one, "status")), json_str(json_get(one, "created")),
                                            json_str(json_get(one, "id")) });
    table_print(stdout, &t);
    return 0;
}

static int disconnect(const struct options *o, struct link *l, struct arena *a)
{
    struct json *answer;
    bool revoked = false;
    int rc;

    if (!path_word(o->disconnect))
        return complain(&verb_connect, EXIT_USAGE, "\"%s\" is no account id; --list shows them", o->disconnect);
    rc = link_ask(&verb_connect, l, a, "DELETE", arena_printf(a, "/v1/accounts/%s", o->disconnect).p, NULL, &answer);
    if (rc)
        return rc;
    json_bool(json_get(answer, "revoked_at_provider"), &revoked);
    if (o->json)
        print_compact(stdout, answer);
    else
        printf("forgotten%s\n",
               revoked ? ", and revoked at the provider" : "; the provider could not be told: revoke it there, too");
    return 0;
}

static int bring(const struct options *o, struct link *l, struct arena *a, struct json *body)
{
    struct buf token = BUF_INIT(TOKEN_MAX);
    struct json *answer;
    int rc = input_read(&verb_connect, o->token_file, &token);

    if (!rc) {
        json_set_str(a, body, "token",
                     str_n(token.p, token.len && token.p[token.len - 1] == '\n' ? token.len - 1 : token.len));
        rc = link_ask(&verb_connect, l, a, "POST", "/v1/accounts", body, &answer);
    }
    buf_release(&token);
    if (!rc && o->json)
        print_compact(stdout, answer);
    else if (!rc)
        printf("connected: %.*s\n", STR_ARG(json_str(json_get(answer, "id"))));
    return rc;
}

static int begin(const struct options *o, struct link *l, struct arena *a, struct json *body)
{
    struct json *answer;
    int rc = link_ask(&verb_connect, l, a, "POST", "/v1/connect", body, &answer);

    if (rc)
        return rc;
    if (o->json) {
        print_compact(stdout, answer);
        return 0;
    }
    fprintf(stderr, "Open this in a browser within ten minutes, as the user whose account it is:\n");
    print_line(stdout, json_str(json_get(answer, "url")));
    putchar('\n');
    return 0;
}

/* ---- the sandbox ------------------------------------------------------------------------------------------------- */

struct crowd {
    const struct options *o;
    struct link *link;
    const char *provider;
    struct str rest;                    /* users still to begin */
    size_t open, connected, failed;
    int rc;
};

static void crowd_next(struct crowd *c);

static void on_connected(enum err e, const struct errinfo *info, void *arg)
{
    struct crowd *c = arg;

    c->open--;
    if (e) {
        c->failed++;
        complain(&verb_connect, EXIT_UNABLE, "%s", info->text);
    } else {
        c->connected++;
    }
    crowd_next(c);
}

static int token_for(struct crowd *c, struct arena *a, struct str user, const char **ret)
{
    struct identity_mint m = { .tenant = str_of(c->o->link.tenant),
                               .user = user,
                               .agent = str_of(c->o->link.agent),
                               .audience = str_of(c->link->url) };
    struct buf b = BUF_INIT(IDENTITY_TOKEN_MAX);
    int rc = mint(&verb_connect, c->link->data, &m, &b);

    if (!rc)
        *ret = arena_printf(a, "Authorization: Bearer %.*s", STR_ARG(buf_str(&b))).p;
    buf_release(&b);
    return rc;
}

/* Begins what there is room for. */
static void crowd_next(struct crowd *c)
{
    while (c->open < AT_ONCE && c->rest.len && !c->rc && c->failed < 10) {
        struct headless_spec spec = {
            .client = c->link->client, .base = c->link->base, .provider = c->provider, .on_done = on_connected, .arg = c
        };
        struct arena a;
        struct str user;

        if (!str_cut(c->rest, '\n', &user, &c->rest)) {
            user = c->rest;
            c->rest = STR_NULL;
        }
        user = str_trim(user);
        if (user.len == 0)
            continue;
        arena_init(&a, 65536);
        spec.user = arena_z(&a, user);
        c->rc = token_for(c, &a, user, &spec.authorization);
        if (!c->rc) {
            c->open++;
            headless_begin(&spec);
        }
        arena_release(&a);
    }
}

static int connect_crowd(const struct options *o, struct link *l, const char *provider)
{
    struct buf users = BUF_INIT(USERS_BYTES_MAX);
    struct crowd c = { .o = o, .link = l, .provider = provider };

    c.rc = input_read(&verb_connect, o->users_file, &users);
    c.rest = buf_str(&users);
    crowd_next(&c);
    while (c.open)
        client_step(l->client, -1, 1000);
    buf_release(&users);
    if (c.rc)
        return c.rc;
    printf("connected %zu accounts\n", c.connected);
    return c.failed ? complain(&verb_connect, EXIT_UNABLE, "%zu could not be connected", c.failed) : 0;
}

static int connect_one(const struct options *o, struct link *l, const char *provider)
{
    struct headless_spec spec = { .client = l->client,
                                  .base = l->base,
                                  .authorization = l->authorization,
                                  .provider = provider,
                                  .user = o->link.user };
    struct errinfo info = { "" };

    if (!o->link.user)
        return complain(&verb_connect, EXIT_USAGE, "--sandbox-login needs --as USER: the name it logs in with");
    if (headless_login(&spec, &info))
        return complain(&verb_connect, EXIT_UNABLE, "%s", info.text);
    printf("connected\n");
    return 0;
}

/* ---- the verb ---------------------------------------------------------------------------------------------------- */

static int act(const struct options *o, struct link *l, struct arena *a, const char *provider)
{
    struct json *body = json_object(a);

    if (o->list)
        return list(o, l, a);
    if (o->disconnect)
        return disconnect(o, l, a);
    if (o->users_file)
        return connect_crowd(o, l, provider);
    if (o->sandbox_login)
        return connect_one(o, l, provider);
    json_set_z(a, body, "provider", provider);
    json_set_z(a, body, "label", o->label ? o->label : o->link.user);
    return o->token_file ? bring(o, l, a, body) : begin(o, l, a, body);
}

static int check(const struct options *o, int words)
{
    if (!words && !o->list && !o->disconnect)
        return complain(&verb_connect, EXIT_USAGE, "to which provider? write: sluice connect outlook --as USER");
    if (o->users_file && !o->sandbox_login)
        return complain(&verb_connect, EXIT_USAGE, "--users-file works with --sandbox-login only");
    if (o->users_file && (o->link.token || o->link.user))
        return complain(&verb_connect, EXIT_USAGE, "the users come from the file: leave out --as and --token");
    return 0;
}

static int run(int argc, char **argv)
{
    struct options o = { 0 };
    const struct option_spec specs[] = {
        { .name = "label", .value = &o.label },
        { .name = "token-file", .value = &o.token_file },
        { .name = "list", .flag = &o.list },
        { .name = "disconnect", .value = &o.disconnect },
        { .name = "sandbox-login", .flag = &o.sandbox_login },
        { .name = "users-file", .value = &o.users_file },
        { .name = "json", .flag = &o.json },
        LINK_OPTIONS(o.link),
        { 0 },
    };
    struct link_options opened;
    char *provider = NULL;
    struct arena a;
    struct link l;
    int words, rc = options_read(&verb_connect, argc, argv, specs, &provider, 1, &words);

    if (!rc)
        rc = check(&o, words);
    if (rc)
        return rc < 0 ? 0 : rc;
    arena_init(&a, 64 << 20);
    opened = o.link;
    if (o.users_file)               /* each has a token of its own */
        opened.agent = opened.tenant = NULL;
    rc = link_open(&verb_connect, &opened, &l);
    if (!rc)
        rc = act(&o, &l, &a, provider);
    link_close(&l);
    arena_release(&a);
    return rc;
}

const struct verb verb_connect = { "connect", "connect a user's accounts at providers", help, run };
