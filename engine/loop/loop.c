/*
 * loop.c -- one turn: fire timers, deliver mail, run tasks, wait for the ring, call completions
 *
 * Invariants: completions are queued by loop_complete() while the ring reaps and called from loop_turn() only; `now` is
 * read once per turn; the loop sleeps only when no task is runnable and no mail waits.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/ahead.h"
#include "base/log.h"
#include "base/metric.h"
#include "loop/internal.h"

enum {
    STALL_MS = 100,
    STOPPING_MS = 10,                           /* a loop that ends looks again after so long, whatever it waits for */
};

_Thread_local struct loop *loop_current;

struct loop *loop_self(void)
{
    ASSERT(loop_current != NULL);
    return loop_current;
}

bool loop_here(void)                            { return loop_current != NULL; }
unsigned loop_id(const struct loop *loop)       { return loop->opt.id; }
unsigned loop_tasks(const struct loop *loop)    { return loop->tasks; }
ns_t loop_now(void)                             { return loop_self()->now; }
ns_t loop_clock(void)                           { return world->now(); }
wall_ms_t loop_wall_ms(void)                    { return loop_self()->wall; }

/* Tells the processor that this waits: the other half of its core gets what it would have taken. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

static void say_context(void (*say)(const char *))
{
    struct loop *l = loop_current;

    if (!l)
        return;
    if (!l->running) {
        say("in the loop itself");
        return;
    }
    say("in task ");
    say(l->running->name);
    say(", doing ");
    say(l->running->doing ? l->running->doing : "(nothing named)");
}

/* Before there are threads: every thread that fails reads it. */
__attribute__((constructor)) static void say_context_at_start(void)
{
    check_context = say_context;
}

enum err loop_create(const struct loop_options *opt, struct loop **ret, struct errinfo *info)
{
    struct loop *l = calloc(1, sizeof(*l));
    enum err e;

    if (!l)
        return err_set(info, E_IO, "no memory for a worker");
    l->magic = LOOP_MAGIC;
    l->opt = *opt;
    if (!l->opt.tasks_max)
        l->opt.tasks_max = 16384;
    if (!l->opt.ring_entries)
        l->opt.ring_entries = 4096;
    if (!l->opt.stack_size)
        l->opt.stack_size = TASK_STACK_DEFAULT;
    l->runnable.last = &l->runnable.first;
    for (unsigned i = 0; i < TASK_STAGES; i++)
        l->stage[i].last = &l->stage[i].first;
    e = world->ring_open(l->opt.ring_entries, &l->ring, info);
    if (e) {
        free(l);
        return e;
    }
    l->now = world->now();
    l->wall = world->wall_ms();
    wheel_init(&l->wheel, l->now);
    *ret = l;
    return OK;
}

void loop_destroy(struct loop *l)
{
    MAGIC_CHECK(l, LOOP_MAGIC);
    ASSERT(l->tasks == 0 && l->ops == 0);
    world->ring_close(l->ring);
    tasks_release(l);
    free(l->done);
    l->magic = 0;
    free(l);
}

void loop_stop(struct loop *l)
{
    MAGIC_CHECK(l, LOOP_MAGIC);
    atomic_store(&l->stop, true);
    world->ring_wake(l->ring);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

void op_submit(struct op *op)
{
    struct loop *l = loop_self();

    ASSERT(!op->active && op->done != NULL);
    op->active = true;
    op->cancelling = false;
    op->progress = 0;
    op->more = false;
    op->data = NULL;
    l->ops++;
    world->ring_submit(l->ring, op);
}

void op_cancel(struct op *op)
{
    if (!op->active || op->cancelling)
        return;
    op->cancelling = true;
    world->ring_cancel(loop_self()->ring, op);
}

void loop_complete(struct op *op, int res, bool more, const char *data, unsigned token)
{
    struct loop *l = loop_current;

    if (l->n_done == l->cap_done) {
        size_t cap = l->cap_done ? l->cap_done * 2 : 256;
        struct completion *grown = realloc(l->done, cap * sizeof(*grown));

        ASSERT(grown != NULL);
        l->done = grown;
        l->cap_done = cap;
    }
    l->done[l->n_done++] = (struct completion){ op, res, more, data, token };
}

/* A multishot operation that the kernel ended for reasons of its own goes on as if nothing had happened. */
static bool must_rearm(const struct op *op, int res)
{
    if (op->cancelling)
        return false;
    if (op->kind == OP_ACCEPT)
        return res >= 0 || res == -ECONNABORTED || res == -EINTR || res == -ENOBUFS;
    if (op->kind == OP_RECV)
        return res > 0 || res == -ENOBUFS || res == -EINTR;
    return false;
}

static bool is_noise(const struct op *op, int res)
{
    return (op->kind == OP_ACCEPT || op->kind == OP_RECV) && (res == -ENOBUFS || res == -ECONNABORTED || res == -EINTR);
}

/* OP_SEND and OP_WRITE go on until everything is out. True if the operation was submitted again. */
static bool must_continue(struct loop *l, struct op *op, int *res)
{
    if (op->kind != OP_SEND && op->kind != OP_WRITE)
        return false;
    if (*res > 0)
        op->progress += (size_t)*res;
    if (((*res > 0 && op->progress < op->len) || *res == -EINTR || *res == -EAGAIN) && !op->cancelling) {
        world->ring_submit(l->ring, op);
        return true;
    }
    if (*res >= 0)
        *res = op->progress < op->len && op->kind == OP_WRITE ? -EIO : (int)op->progress;
    return false;
}

static void call_done(struct loop *l, struct completion *c)
{
    struct op *op = c->op;
    bool again = false;

    ASSERT(op->active);
    if (!c->more) {
        if (must_continue(l, op, &c->res))
            return;
        again = must_rearm(op, c->res);
        if (again) {
            metric_add(M_RING_REARMS_TOTAL, 1);
            world->ring_submit(l->ring, op);
        } else {
            op->active = false;
            l->ops--;
        }
    }
    if (again && is_noise(op, c->res))
        return;
    op->more = c->more || again;
    op->data = c->data;
    op->done(op, c->res);
    if (c->data)
        world->ring_recycle(l->ring, c->token);
}

static void completions_call(struct loop *l)
{
    size_t n = l->n_done;

    /* done() may complete further operations at once (the simulator does): those wait for the next round */
    for (size_t i = 0; i < n; i++) {
        struct completion c = l->done[i];

        if (i + 2 < n)
            ahead(l->done[i + 2].op, sizeof(struct op));
        call_done(l, &c);
    }
    if (n) {
        memmove(l->done, l->done + n, (l->n_done - n) * sizeof(*l->done));
        l->n_done -= n;
    }
}

/* ---- the turn ---------------------------------------------------------------------------------------------------- */

/*
 * Looks for work for a while, for to be put to sleep and woken costs a worker, and whoever wakes it, time.  What is
 * prepared is begun first.  True: there is some.
 */
static bool loop_poll(struct loop *l, ns_t until)
{
    ns_t end = world->now() + l->opt.idle_poll;

    if (end > until)
        end = until;
    world->ring_wait(l->ring, 0, loop_complete);
    while (l->n_done == 0 && !mail_pending(l)) {
        if (world->ring_ready(l->ring))
            world->ring_wait(l->ring, 0, loop_complete);
        else if (world->now() >= end || atomic_load(&l->stop))
            return false;
        else
            cpu_relax();
    }
    return true;
}

/* True: there was nothing to do. */
static bool loop_wait(struct loop *l, bool busy)
{
    bool rests = !busy && !world->ring_ready(l->ring);
    ns_t until = 0;

    if (!busy) {
        until = wheel_next(&l->wheel);
        if (l->opt.idle_poll > 0 && loop_poll(l, until))
            return rests;
        atomic_store(&l->sleeping, true);
        if (mail_pending(l))
            until = 0;
        else if (atomic_load(&l->stop) && until > l->now + STOPPING_MS * NS_PER_MS)
            until = l->now + STOPPING_MS * NS_PER_MS;
    }
    world->ring_wait(l->ring, until, loop_complete);
    atomic_store(&l->sleeping, false);
    return rests;
}

static void turn_begin(struct loop *l, bool rested)
{
    ns_t now = world->now();

    ASSERT(now >= l->now);
    l->now = now;
    l->wall = world->wall_ms();
    if (rested)
        l->awake_since = now;
}

void loop_run(struct loop *l, void (*start)(void *), void *arg)
{
    bool busy = true;

    MAGIC_CHECK(l, LOOP_MAGIC);
    ASSERT(loop_current == NULL);
    loop_current = l;
    turn_begin(l, true);
    if (start)
        start(arg);
    while (l->tasks > 0 || l->ops > 0 || mail_pending(l) || !atomic_load(&l->stop)) {
        bool rested = loop_wait(l, busy);

        turn_begin(l, rested);
        completions_call(l);
        wheel_fire(&l->wheel, l->now);
        mail_deliver(l);
        tasks_run(l);
        busy = l->runnable.first != NULL || l->staged || l->n_done > 0;
        if (world->threads && world->now() - l->now > STALL_MS * NS_PER_MS) {
            metric_add(M_LOOP_STALLS_TOTAL, 1);
            LOG_WARN("a turn of the loop took too long", LOG_I("worker", l->opt.id),
                     LOG_I("ms", (world->now() - l->now) / NS_PER_MS));
        }
    }
    while (atomic_load(&l->posting) > 0)
        sched_yield();
    loop_current = NULL;
}
