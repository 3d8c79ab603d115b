/*
 * internal.h -- what the files of loop/ share: the loop itself. Not for other rooms.
 */
#ifndef LOOP_INTERNAL_H
#define LOOP_INTERNAL_H

#include <stdatomic.h>

#include "loop/loop.h"
#include "loop/task.h"
#include "loop/world.h"

enum { WHEEL_SLOTS = 4096, LOOP_MAGIC = 0x6c6f6f70, TASK_MAGIC = 0x7461736b };

/* Timers hash into slots of one tick (1 ms); a slot also holds timers of later rounds, told apart by `at`. */
struct wheel {
    struct timer *slot[WHEEL_SLOTS];
    uint64_t busy[WHEEL_SLOTS / 64];    /* one bit per slot that is not empty */
    uint64_t busy_words;                /* one bit per word of `busy` that is not 0 */
    int64_t tick;                       /* the last tick that was fired */
};

struct completion {
    struct op *op;
    int res;
    bool more;
    const char *data;
    unsigned token;
};

struct context {
    void *sp;
    void *fake;             /* AddressSanitizer's fake stack */
    void *fiber;            /* ThreadSanitizer's fiber */
    const void *bottom;     /* of the stack, for AddressSanitizer */
    size_t size;
};

STATIC_ASSERT(offsetof(struct context, sp) == 0, "see struct task");

enum task_state { TASK_FREE, TASK_RUNNABLE, TASK_RUNNING, TASK_WAITING };

struct task {
    /* what waking and switching look at: one line of the processor's caches, which a task that waits leaves */
    uint32_t magic;
    enum task_state state;
    struct task *next;          /* run queue or free list */
    struct loop *loop;
    struct wake *waiting;
    int shield;
    bool cancelled, timed_out;
    uint64_t generation;        /* grows when the task ends, so that old references find nothing */
    const char *doing;
    struct context ctx;

    struct timer timer;
    const char *name;
    void (*fn)(void *);
    void *arg;
};

struct task_queue {
    struct task *first, **last;
};

struct stack_slab {
    struct stack_slab *next;
    void *base;
    size_t size;
};

struct loop {
    uint32_t magic;
    struct loop_options opt;
    struct ring *ring;
    ns_t now;
    wall_ms_t wall;
    ns_t awake_since;               /* the turn that began after it had nothing to do */
    struct wheel wheel;

    struct completion *done;        /* queued by the ring, called after reaping */
    size_t n_done, cap_done;
    unsigned ops;                   /* active operations */

    struct context main;
    struct task *running;
    bool deep;                      /* it runs on this stack: task_deep() */
    struct task_queue runnable, stage[TASK_STAGES];
    uint32_t staged;                /* one bit per stage that somebody stands at */
    ns_t last_since;                /* the turn in which the first of those at the last stage came there */
    struct task *rest;              /* of what was runnable when this turn of them began: later cohorts */
    struct task *free_tasks;
    struct stack_slab *slabs;
    unsigned tasks;

    _Atomic(struct mail *) mail;
    atomic_bool sleeping, stop;
    atomic_uint posting;            /* threads inside loop_post() */
};

extern _Thread_local struct loop *loop_current;

/* loop.c */
void loop_complete(struct op *op, int res, bool more, const char *data, unsigned token);
/* timer.c */
void wheel_init(struct wheel *w, ns_t now);
void wheel_fire(struct wheel *w, ns_t now);
ns_t wheel_next(const struct wheel *w);         /* when to look again; NS_NEVER if no timer is set */
/* mail.c */
bool mail_pending(struct loop *l);
void mail_deliver(struct loop *l);
/* task.c */
/* Runs what is runnable now, and whoever comes to a stage meanwhile; what becomes runnable waits a turn, and so may
 * who stands at the last stage. */
void tasks_run(struct loop *l);
void tasks_release(struct loop *l);

#endif
