/* policy_schema.c -- `sluice policy schema`: what policies can be asked with this configuration, as a Cedar schema */
#include <stdio.h>

#include "call/vocabulary.h"
#include "cli/cli.h"
#include "cli/policy_verbs.h"
#include "runtime/runtime.h"

enum { SCHEMA_MAX = 64 << 20 };

int policy_vocabulary(const char *config_path, struct buf *out)
{
    struct config *config = NULL;
    struct registry *r = NULL;
    struct errinfo info = { "" };
    int rc = config_open(&verb_policy, config_path, NULL, &config);

    if (rc)
        return rc;
    config->candidate[0] = NULL;
    config->policies[0] = NULL;         /* broken ones must not be in the way of what is there to check them */
    if (snapshot_build(config, &r, &info))
        rc = complain(&verb_policy, EXIT_UNABLE, "%s", info.text);
    else if (vocabulary_write(r, out, &info))
        rc = complain(&verb_policy, EXIT_UNABLE, "%s", info.text);
    registry_unref(r);
    config_free(config);
    return rc;
}

int policy_schema(int argc, char **argv)
{
    const char *config = NULL;
    const struct option_spec specs[] = { { .name = "config", .value = &config }, { NULL } };
    struct buf out = BUF_INIT(SCHEMA_MAX);
    char *words[1];
    int n, rc = options_read(&verb_policy, argc, argv, specs, words, 1, &n);

    if (rc)
        return rc < 0 ? 0 : rc;
    if (n)
        return complain(&verb_policy, EXIT_USAGE, "write: sluice policy schema [--config FILE]");
    rc = policy_vocabulary(config, &out);
    if (!rc)
        fwrite(out.p, 1, out.len, stdout);
    buf_release(&out);
    return rc;
}
