/*
 * loop.h -- one worker's loop: operations, timers, mail
 *
 * Each worker thread owns one loop and one ring.  An operation (struct op) is an object of whoever starts it; it stays
 * alive and still until its `done` ran with op->more == false.  Completions are queued while reaping and called
 * afterwards, never from inside op_submit() or op_cancel().  Everything here is for the loop's own thread, except
 * loop_post(), loop_stop() and loop_blocking().
 *
 * Waiting code is written as tasks (task.h), on top of this.  What touches the outside goes through world.h.
 */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"

struct loop;
struct task;

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

struct loop_options {
    unsigned id;                    /* worker number, from 0 */
    unsigned tasks_max;             /* tasks alive at once; 0: 16384 */
    unsigned ring_entries;          /* 0: 4096 */
    size_t stack_size;              /* bytes a task may use; 0: TASK_STACK_DEFAULT */
    ns_t idle_poll;                 /* so long it looks for work before it sleeps; 0: it sleeps at once */
};

/* E_IO with the reason (and what to do) in info when io_uring is not available. */
enum err loop_create(const struct loop_options *opt, struct loop **ret, struct errinfo *info);
/* All tasks must have ended and all operations be done (asserted). Mail that came after the end is not delivered. */
void loop_destroy(struct loop *loop);

/* Runs on the calling thread, which becomes the loop's, until loop_stop() was called and no task is alive.
 * `start` runs first, inside the loop (it may spawn tasks, submit operations); may be NULL. */
void loop_run(struct loop *loop, void (*start)(void *), void *arg);
void loop_stop(struct loop *loop);              /* any thread */

struct loop *loop_self(void);                   /* the calling thread's loop; asserted to exist */
bool loop_here(void);                           /* is the calling thread a loop's? */
unsigned loop_id(const struct loop *loop);
unsigned loop_tasks(const struct loop *loop);   /* tasks alive */

/* The time stamp of this turn of the loop; read once per turn. */
ns_t loop_now(void);
/* The clock at this moment, some 25 ns away: for measuring. What decides anything goes by loop_now(). */
ns_t loop_clock(void);
wall_ms_t loop_wall_ms(void);

/* ---- operations -------------------------------------------------------------------------------------------------- */

enum op_kind {
    OP_ACCEPT,      /* fd: listener. Multishot: each res is a connected fd (>= 0) */
    /* fd: socket. Multishot with the loop's buffers: res bytes at op->data, gone when done() returns; 0: peer closed */
    OP_RECV,
    OP_SEND,       /* fd, buf, len: sends everything (short sends are continued); res = len. One in flight per socket */
    OP_POLL,        /* fd, events (POLLIN|POLLOUT): once; res = revents */
    OP_READ,        /* fd, buf, len, off: file */
    OP_WRITE,       /* fd, buf, len, off: file; everything (short writes are continued), and it is on disk; res = len */
    OP_CLOSE,       /* fd */
};

struct op {
    enum op_kind kind;
    int fd;
    void *buf;
    size_t len;
    int64_t off;
    unsigned events;
    /* Called on the loop's thread. res: what `kind` says, or -errno (-ECANCELED after op_cancel). */
    void (*done)(struct op *op, int res);
    void *owner;                /* the caller's, for done(); the loop does not look at it (await_op uses it) */

    /* valid during done() */
    bool more;                  /* multishot: further calls will come */
    const char *data;           /* OP_RECV */

    /* the loop's */
    bool active, cancelling;
    size_t progress;            /* of OP_SEND and OP_WRITE */
    void *sim;                  /* the simulator's */
};

/* Starts an operation. `op` must be inactive; the first six fields and done are the caller's. */
void op_submit(struct op *op);
/* Asks for an early end; done() still comes (with -ECANCELED, or with the result when that was faster). No-op if
 * inactive. */
void op_cancel(struct op *op);
static inline bool op_active(const struct op *op) { return op->active; }

/* ---- timers ------------------------------------------------------------------------------------------------------ */

/* Hashed wheel of 1 ms ticks: set and clear are O(1). A timer never fires early. Zero-initialise before first use. */
struct timer {
    ns_t at;
    void (*fire)(struct timer *t);
    struct timer *next, **prev;     /* the loop's; prev != NULL while set */
};

void timer_set(struct timer *t, ns_t at, void (*fire)(struct timer *));     /* sets, or moves when already set */
void timer_clear(struct timer *t);
static inline bool timer_is_set(const struct timer *t) { return t->prev != NULL; }

/* ---- mail -------------------------------------------------------------------------------------------------------- */

/* Intrusive: the object carries the mail; it may be posted again once its fn has been called. */
struct mail {
    struct mail *next;
    void (*fn)(struct mail *m);
};

/* Runs m->fn on `to`'s thread, soon, in order per sender. Any thread. */
void loop_post(struct loop *to, struct mail *m);

/* Runs fn(arg) on a helper thread, then mail `done` to the loop that asked. The helper threads start on first use. */
struct job {
    struct mail mail;               /* mail.fn: what runs on the asking loop afterwards */
    void (*fn)(struct job *job);    /* on the helper thread */
    struct loop *from;              /* the loop's */
    struct job *next;
};
void loop_blocking(struct job *job);

#endif
