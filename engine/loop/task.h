/*
 * task.h -- stackful tasks: straight-line code that can wait
 *
 * A task runs on a stack of its own (guard page below) on one loop, for ever the same.  Only functions whose name
 * starts with await_ may suspend it; facts asserted before an await must be asserted again after it.
 *
 * Cancelling a task (task_cancel) makes its current and every further await return E_CANCELLED, so that ordinary
 * returns clean up.  What must finish regardless (an outcome record, returning a permit) runs between task_shield(+1)
 * and task_shield(-1): there awaits work as if nothing had been cancelled.
 */
#ifndef LOOP_TASK_H
#define LOOP_TASK_H

#include "loop/loop.h"

enum { TASK_STACK_DEFAULT = 64 * 1024 };

/* A name for a task that may have ended: generation-checked. */
struct task_ref {
    struct task *task;
    uint64_t generation;
};

/* Starts fn(arg) on the calling thread's loop, at its next turn of the run queue. `name` (static) is for logs, panics
 * and the watchdog. NULL when the loop's tasks_max are alive. */
struct task *task_spawn(const char *name, void (*fn)(void *arg), void *arg);
struct task *task_self(void);                   /* NULL outside tasks */
struct task_ref task_ref(struct task *t);
struct task *task_deref(struct task_ref ref);   /* NULL if it has ended; same loop only */
void task_cancel(struct task *t);               /* same loop; not yourself */
bool task_cancelled(void);                      /* has the current task been cancelled? (true under a shield too) */
void task_shield(int delta);
/* What the task is doing, for logs and panics: a static string, e.g. the step of a call. */
void task_doing(const char *what);
/* Runs fn(arg), which must not wait, on the loop's own stack: a page that a task's stack has touched once is memory for
 * as long as the task lives, and OpenSSL touches four. Outside tasks it is a plain call. */
void task_deep(void (*fn)(void *arg), void *arg);

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* A one-shot event that one task waits for. Lives wherever both sides can reach it until await_wake has returned. */
struct wake {
    struct task *task;
    bool fired;
};

/* OK when fired (before or during), E_TIMEOUT at `deadline` (NS_NEVER: none), E_CANCELLED. */
enum err await_wake(struct wake *w, ns_t deadline);
/* Same loop only; from another thread, post mail that fires it. Firing twice is one firing. */
void wake_fire(struct wake *w);

/* E_CANCELLED or OK; at or after `until`. */
enum err await_sleep(ns_t until);
/* Lets the other runnable tasks go first. */
void await_turn(void);

/*
 * Stages put the tasks of one turn in order. Whoever comes to one goes on, still in this turn, when nobody has
 * anything left to do before it: runnable tasks first (of many a few dozen; the others follow them through all stages
 * but the last), then the lowest stage that somebody stands at, all who stand there one after another. Who is the
 * only one goes on at once. A long way that many tasks have to go (a call's life) is gone in stages: the code and the
 * tables of each are fetched into the processor's caches once for all who are there, instead of being pushed out by
 * the rest of the way and fetched again for each.
 */
enum { TASK_STAGES = 32, STAGE_AHEAD = 0, STAGE_LAST = TASK_STAGES - 1 };

/* True if others went first. What each stage is for is agreed on by those who use it; STAGE_AHEAD is await_ahead()'s,
 * STAGE_LAST await_last()'s. */
bool await_stage(unsigned stage);
/* What was asked of memory (base/ahead.h) gets time to come: of the tasks that stand at one stage, the others come to
 * here first. For stages from 1 on. */
void await_ahead(void);
/* What wakes another process (a send, say) or costs much each time (a write to the device) is done by all tasks of a
 * turn one after another, so that the other is woken once and finds more to do, instead of going back to sleep each
 * time. While more is ready to be done here they wait for that, too: for as long as the loop has been awake already,
 * at most half a millisecond. */
void await_last(void);

/* Submits op (done is set here), waits; *ret_res is its result. On deadline or cancellation the operation is cancelled
 * and waited for, so op and its buffers are free to go whatever is returned. Not for multishot kinds. */
enum err await_op(struct op *op, ns_t deadline, int *ret_res);

/* Runs fn(arg) on a helper thread. Not cancellable: returns when fn has returned. */
void await_blocking(void (*fn)(void *arg), void *arg);

/* A lock between tasks of one loop. FIFO. */
struct task_mutex {
    struct task *owner;
    struct wake_node *first;
};
enum err await_lock(struct task_mutex *m, ns_t deadline);
void task_unlock(struct task_mutex *m);

#endif
