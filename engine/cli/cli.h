/*
 * cli.h -- the verbs of `sluice`: one file each, listed in verbs.c
 *
 * Exit codes: 0 done; 1 it could not be done, and stderr says why; 2 the command line is wrong.  `call` and `tour` add
 * the ends of a call: 3 refused (nothing happened), 4 failed (the provider says it did not happen), 5 unknown (it may
 * have happened).  What a program reads goes to stdout, what a person reads beside it to stderr.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <signal.h>

#include "base/err.h"
#include "base/str.h"
#include "runtime/config.h"

struct verb {
    const char *name;
    const char *summary;                    /* one line of `sluice --help` */
    const char *help;                       /* the whole of `sluice VERB --help` */
    int (*run)(int argc, char **argv);      /* argv[0] is the verb */
};

enum { EXIT_DONE = 0, EXIT_UNABLE = 1, EXIT_USAGE = 2, EXIT_REFUSED = 3, EXIT_FAILED = 4, EXIT_UNKNOWN = 5 };

extern const struct verb *const cli_verbs[];    /* in the order of `sluice --help`; NULL at the end */
extern const struct verb verb_serve, verb_call, verb_tools, verb_token, verb_connect, verb_delegate, verb_policy,
    verb_audit, verb_limits, verb_stdio, verb_sandbox, verb_version, verb_completion, verb_tour;

/* ---- options: --name VALUE, --name=VALUE, -h, -n VALUE; everything else is a word -------------------------------- */

struct option_spec {
    const char *name;                       /* without dashes; one letter: "-n". NULL ends the table */
    const char **value;                     /* takes a value: the last one given wins */
    bool *flag;                             /* takes none */
    const char **list;                      /* takes a value, may be repeated */
    size_t *n_list;
    size_t max_list;
};

/* Reads argv[1...]. Words, at most max_words, go to words[0...*ret_words-1]. Answers 0, or the exit code: 2 with a
 * message about what is wrong, or -1 after --help was printed (exit 0). */
int options_read(const struct verb *v, int argc, char **argv, const struct option_spec *specs, char **words,
                 int max_words, int *ret_words);

/* Prints "sluice VERB: text" and answers code. */
int complain(const struct verb *v, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --config FILE or, with NULL, the embedded default; --data DIR instead of the configured one (NULL: that). Complains
 * by itself. */
int config_open(const struct verb *v, const char *path, const char *data, struct config **ret);
/* A whole number of least to most. Complains by itself: 0 or 2. NULL leaves *ret as it is. */
int option_number(const struct verb *v, const char *name, const char *value, uint64_t least, uint64_t most,
                  int64_t *ret);
/* "300s", "15m", "8h", "30d", or seconds alone: 1 to most. */
bool duration_read(const char *text, int64_t most_s, int64_t *ret_s);
/* The whole of a file ("-": stdin) into out, up to its max. Complains by itself: 0 or 1. */
int input_read(const struct verb *v, const char *path, struct buf *out);

/* ---- verbs that serve -------------------------------------------------------------------------------------------- */

void files_raise(void);
/* SIGTERM, SIGINT and SIGHUP, blocked for this thread and all it starts, to be waited for. Before anything is
 * started. */
void signals_take(sigset_t *ret);
struct runtime;
/* Drains and stops the engine; false: the journal could not be closed in order. Where its device does not answer, the
 * process ends here, EXIT_UNABLE. Nothing in `data` is touched before the drain is over: that could hang, too. */
bool engine_end(struct runtime *rt, const char *data);

#endif
