/*
 * sim.h -- one simulated run: its operations, its lives, what it found wrong
 *
 * A run is made of lives: an engine is assembled, works, and ends or dies; the next one recovers what it left.  An
 * operation is what a client wants once; its attempts are the calls it makes for that.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "call/call.h"
#include "dice.h"
#include "loop/task.h"

enum {
    SIM_WORKERS_MAX = 2,
    SIM_OPS_MAX = 160,
    SIM_ATTEMPTS_MAX = 12,
    SIM_CALL_ID = 40,
    SIM_JOURNAL_SEGMENT = 128 * 1024,
    SIM_STEADY_SEGMENT = 8 << 20 /* sixty calls at once have room for their outcomes in one */
};

#define SIM_DIR      "/sim"
#define SIM_JOURNAL  SIM_DIR "/journal"
#define SIM_AUDIENCE "https://sim.example/mcp"

enum expectation { EXPECT_ALLOW, EXPECT_DENY, EXPECT_APPROVAL };

enum quirk { /* attempts that are not a proper call */
             QUIRK_NONE,
             QUIRK_MALFORMED, /* does not decode */
             QUIRK_TOKEN,     /* an expired token */
             QUIRK_TOOL,      /* no such tool */
             QUIRK_ARGS,      /* arguments that do not fit */
             QUIRK_LIST,      /* no tool call at all */
};

struct errand;

/* One call of a client. */
struct attempt {
    struct errand *op;
    unsigned life, worker;
    struct task_ref task;
    struct timer cancel;
    char call[SIM_CALL_ID];
    char key[SIM_CALL_ID]; /* what call_key() answered, once a request left */
    bool began, ended;
    bool acked; /* the client heard the end before the engine died */
    bool early; /* a read, answered without waiting for its record: a death may have taken that */
    bool cancelled;
    ns_t at; /* when it ended */
    enum outcome outcome;
    enum err err;
    bool worded; /* what comes of it is known, and waits to be on record */
    bool replayed;
    char owner[64]; /* of the result */
};

struct errand {
    int64_t number;                             /* the operation, as arguments name it */
    const char *tenant, *user, *agent, *behind; /* behind: an earlier agent of the chain, or NULL */
    const char *tool, *subject;
    char key[32]; /* "" for none */
    enum expectation expect;
    enum quirk quirk;
    unsigned copies;          /* attempts at the same time */
    ns_t start, cancel_after; /* cancel_after: 0 never */
    int64_t timeout_ms;
    bool settled; /* the client wants nothing more */
    unsigned retries;
    struct errand_timer {
        struct timer timer;
        struct errand *errand;
    } timers[SIM_WORKERS_MAX]; /* one per worker: each begins attempts of its own */
    struct attempt attempts[SIM_ATTEMPTS_MAX];
    unsigned n_attempts, running;
    unsigned long done, other; /* of a steady run: calls that ended in "done" in time, and in something else */
};

struct sim {
    uint64_t seed;
    struct dice dice;
    struct errand ops[SIM_OPS_MAX];
    unsigned n_ops;
    unsigned life;
    bool calm;
    bool verbose;
    const char *policy;

    /* the engine of this life: engine.c */
    struct engine engine;
    struct worker workers[SIM_WORKERS_MAX];
    unsigned n_workers;
    struct store *store;
    struct secret *root;
    struct identity_local *local;
    struct registry *registry;
    bool lane_failed, closing, started;
    unsigned long told_early; /* in all runs: reads that began and were answered well while no device did */
    bool stopping; /* nobody asks any more in this life */
    int64_t rate;  /* requests of a mailbox in ten seconds */

    /* a steady run (sim_test --steady): no budgets, agents that ask again at once, a provider that counts arrivals */
    bool steady;
    ns_t steady_until;

    unsigned violations;
    char first_violation[500];
    uint64_t trace_hash;
    unsigned long long heard[ERR_COUNT]; /* ends that clients heard, by error */
    unsigned long long calls, effects, crashes, replays, unknowns, refreshes;
};
extern struct sim sim;

/* Says what is wrong; the run fails. */
void sim_violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Goes into the run's hash, and to the terminal when it is asked to tell. */
void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- clients: clients.c ------------------------------------------------------------------------------------------ */

struct sim_who {
    struct str tenant, user;
};
/* Of the attempt whose task this is; "" and empty for none. */
const char *sim_call_here(void);
struct sim_who sim_who_here(void);

void clients_plan(void);  /* draws the operations */
void clients_plan_steady(void);
void clients_start(void); /* in each worker's loop: sets its timers */
void clients_wait(void);  /* ... clears them: nobody asks any more */
void clients_stop(void);  /* ... and cancels what runs */
bool clients_done(void);  /* no operation wants anything more */
unsigned clients_running(void);
enum expectation clients_expect(const char *tenant, const char *user, const char *agent, const char *tool,
                                const char *subject);

/* ---- the engine: engine.c ---------------------------------------------------------------------------------------- */

/* One life, from assembling to the end. True: it ended in order, with nothing left to do; false: it died. */
bool engine_live(void);
/* Connects the user's account (again). */
enum err await_connect(const char *provider, const char *tenant, const char *user);
extern const char *const sim_providers[2], *const sim_tenants[2], *const sim_users[3];

/* ---- checks: check.c --------------------------------------------------------------------------------------------- */

void check_life(bool died); /* the files as the life left them */
void check_run(void);       /* everything, at the end */
void check_release(void);

#endif
