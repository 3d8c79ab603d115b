/*
 * root.c -- the root key: from a file, the environment, or systemd's credential directory
 */
#include "base/check.h"
#include "base/crypto.h"
#include "identity/keyfile.h"
#include "vault/vault.h"

#include <stdio.h>
#include <stdlib.h>

enum { NAME_MAX_LEN = 3900 };

static enum err from_env(const char *name, struct secret **ret, struct errinfo *info)
{
    char *value = getenv(name);
    enum err e;

    if (!value)
        return err_set(info, E_CONFIG, "the environment variable %s (root key) is not set", name);
    e = keyfile_parse(value, strlen(value), name, ret, info);
    if (!e)
        bytes_wipe(value, strlen(value));       /* not for children, not for core dumps */
    return e;
}

static enum err root_read(struct str where, struct str *kind, struct str *name, struct errinfo *info)
{
    if (!str_cut(where, ':', kind, name) || str_empty(*name) || name->len > NAME_MAX_LEN ||
        memchr(name->p, 0, name->len) ||
        (!str_is(*kind, "file") && !str_is(*kind, "env") && !str_is(*kind, "credential")))
        return err_set(info, E_CONFIG, "a root key is given as file:PATH, env:NAME or credential:NAME");
    return OK;
}

enum err vault_root_check(struct str where, struct errinfo *info)
{
    struct str kind, name;

    return root_read(where, &kind, &name, info);
}

enum err vault_root_load(struct str where, bool create, struct secret **ret, struct errinfo *info)
{
    struct str kind, name;
    char path[2 * NAME_MAX_LEN + 8];
    const char *dir;
    enum err e = root_read(where, &kind, &name, info);

    if (e)
        return e;
    snprintf(path, sizeof(path), "%.*s", STR_ARG(name));
    if (str_is(kind, "file"))
        return keyfile_load(path, create, ret, info);
    if (str_is(kind, "env"))
        return from_env(path, ret, info);
    dir = getenv("CREDENTIALS_DIRECTORY");
    if (!dir || strlen(dir) > NAME_MAX_LEN)
        return err_set(info, E_CONFIG,
            "credential:%.*s: CREDENTIALS_DIRECTORY is not set (LoadCredential= in the unit)",
            STR_ARG(name));
    if (memchr(name.p, '/', name.len))
        return err_set(info, E_CONFIG, "credential:%.*s: a credential's name has no slash", STR_ARG(name));
    snprintf(path, sizeof(path), "%s/%.*s", dir, STR_ARG(name));
    return keyfile_load_credential(path, ret, info);
}
