/*
 * vault_bed.h -- what the vault's tests stand on: a clock to push, a provider to script, tasks on several loops
 *
 * The provider is strict: its refresh tokens work once (when it rotates), and a second use kills the grant and is
 * counted.
 */
#ifndef VAULT_BED_H
#define VAULT_BED_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "loop/task.h"
#include "loop/world.h"
#include "vault/vault.h"

/* In tasks and other threads: ends the process. cmocka's own assertions would jump from one stack to another. */
#define CHECK(x) do { if (!(x)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); abort(); } } while (0)

/* ---- clock ------------------------------------------------------------------------------------------------------- */

extern ns_t bed_ahead;                  /* change it only while no loop runs */
void bed_use_world(void);

/* ---- provider ---------------------------------------------------------------------------------------------------- */

enum fake_mood {
    FAKE_GOOD,
    FAKE_UNSENT,            /* nobody is reached */
    FAKE_LOST_BEFORE,       /* the connection ends before the provider has done anything */
    FAKE_LOST_AFTER,        /* the provider has done it, and the answer is lost */
    FAKE_ANSWER,            /* `status` and `body`, nothing done */
};

struct fake {
    pthread_mutex_t lock;
    enum fake_mood mood;
    int mood_left;          /* how often the mood holds before `then`; 0: for ever */
    enum fake_mood then;
    int status;
    const char *body;
    bool rotates;
    bool dead;              /* the grant was killed */
    int serial;             /* tokens are at-<serial>, rt-<serial> */
    int expires_in;
    ns_t delay;
    void (*await_meanwhile)(void);      /* called once, on the asker's task, while the next revocation is under way */
    char code[64], verifier[64];
    char last_form[4096];   /* "name=value&" of the last request; secrets as they are */

    int requests;           /* of any kind that reached the provider */
    int refreshes, reuses, exchanges, revokes;
};

extern struct fake fake;
void fake_reset(bool rotates);
struct vault_http fake_http(void);
struct vault_provider fake_provider(enum vault_rotation rotation);

/* ---- vault ------------------------------------------------------------------------------------------------------- */

extern struct store *bed_store;
extern struct vault *bed_vault;
extern char bed_dir[64];                /* holds store.db, made by bed_open() */
int bed_make_dir(void **state);
int bed_remove_dir(void **state);
/* A fresh store in a fresh file, and a vault on it. */
void bed_open(void);
/* The same file again: a restart. */
void bed_reopen(void);
void bed_close(void);
extern void (*bed_crash_point)(const char *where);
extern bool bed_early;
extern size_t bed_accounts_max;
/* An OAuth account (ann's at "fake") whose tokens are at-1 and rt-1, obtained now, that live for `life_s`. */
struct str bed_account(int64_t life_s, bool refreshable);

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

/* Runs fn(arg, i) on `n_tasks` tasks on each of `n_loops` loops, until all have ended. */
void bed_run(unsigned n_loops, unsigned n_tasks, void (*fn)(void *arg, unsigned i), void *arg);

/* vault_account_find() for who has no caller; the agent is "test". */
enum err bed_find(const char *tenant, const char *user, const char *provider, const char *label, struct arena *a,
    struct vault_account *ret);
/* A token of acme's account by its id. */
enum err bed_lease(struct str account, const struct vault_provider *p, ns_t deadline, struct vault_lease *ret,
    struct errinfo *info);
/* Asks for a token of the account; its text is in `text`, or "" and the error. The lease is returned. */
enum err bed_token(struct str account, const struct vault_provider *p, char text[64]);
/* The same as a one-task run. */
enum err bed_token_run(struct str account, const struct vault_provider *p, char text[64]);
bool secret_is(const struct secret *s, const char *text);

#endif
