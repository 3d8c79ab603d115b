/*
 * recorded.h -- calls of the journal as the questions that DECIDE asked, for `policy replay` and `explain --call`
 *
 * A record holds all that policies were asked (call/record.c); the arguments are sealed in it and opened with the
 * tenant's key, which is in the data directory's store.  Reading disturbs no running engine and writes nothing.
 */
#ifndef CLI_RECORDED_H
#define CLI_RECORDED_H

#include "call/question.h"
#include "cli/cli.h"
#include "journal/journal.h"

struct registry;

struct recorded_journal {
    const struct verb *verb;
    struct config *config;
    struct registry *registry;          /* tools and entities of the configuration, policies as asked for */
    struct store *store;
    struct secret *root;
    struct vault *vault;
    char dir[4096];                     /* of the journal */
};

struct recorded {
    struct str call, tool, policy, entities;    /* policy and entities: the versions that decided */
    wall_ms_t time;
    enum decided was;
    const struct json *record;
    const char *lacks;                  /* why the question cannot be asked again; NULL: it can */
    struct question question;
    struct asked *asked;                /* by the registry's entities */
    bool delegation_required;
};

/*
 * config, data: as options gave them; policies: NULL-terminated, in place of the configured ones, or NULL. Complains by
 * itself and answers an exit code; recorded_close() in any case.
 */
int recorded_open(struct recorded_journal *j, const struct verb *v, const char *config, const char *data,
                  const char *const *policies);
void recorded_close(struct recorded_journal *j);

/* Called for each tool call that was decided, lane by lane; what it is given is gone afterwards. False: no more. */
typedef bool recorded_fn(const struct recorded *r, struct arena *a, void *arg);
/* since: 0 for all; call: only that one, or NULL. An exit code. */
int recorded_each(struct recorded_journal *j, wall_ms_t since, const char *call, recorded_fn *fn, void *arg);

/* What was answered: a call that went on after DECIDE was allowed, whatever became of it. */
enum decided recorded_was(const struct json *record);

#endif
