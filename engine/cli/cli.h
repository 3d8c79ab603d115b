/*
 * cli.h -- the verbs of `sluice`: one file each, listed in main.c
 *
 * Exit codes: 0 done; 1 it could not be done, and stderr says why; 2 the command line is wrong; verbs may define more
 * (policy authorize: 2 deny).  What a program reads goes to stdout, what a person reads beside it to stderr.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/err.h"
#include "base/str.h"
#include "runtime/config.h"

struct verb {
    const char *name;
    const char *summary;                    /* one line of `sluice --help` */
    const char *help;                       /* the whole of `sluice VERB --help` */
    int (*run)(int argc, char **argv);      /* argv[0] is the verb */
};

extern const struct verb verb_serve, verb_call, verb_tools, verb_token, verb_connect, verb_policy, verb_audit, verb_stdio, verb_sandbox,
    verb_version, verb_completion, verb_tour;

/* ---- options: --name VALUE, --name=VALUE, -h; everything else is a word -------------------------------------------- */

struct option_spec {
    const char *name;                       /* without dashes; NULL ends the table */
    const char **value;                     /* takes a value: the last one given wins */
    bool *flag;                             /* takes none */
    const char **list;                      /* takes a value, may be repeated */
    size_t *n_list;
    size_t max_list;
};

/* Reads argv[1...]. Words are left in argv[0...*ret_words-1]. Answers 0, or the exit code: 2 with a message about what is
 * wrong, or -1 after --help was printed (exit 0). */
int options_read(const struct verb *v, int argc, char **argv, const struct option_spec *specs, char **words, int max_words, int *ret_words);

/* Prints "sluice VERB: text" and answers code. */
int complain(const struct verb *v, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --config FILE or, with NULL, the embedded default. Complains by itself. */
int config_open(const struct verb *v, const char *path, struct config **ret);

#endif
