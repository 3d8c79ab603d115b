/*
 * task.c -- stacks, switching, waiting
 *
 * A stack is one mapping slice with a guard page below; struct task lies at its upper end.  Slabs of stacks are never
 * unmapped before the loop ends, so a stale task_ref can always be looked at and is told apart by its generation.
 *
 * The sanitizers are told about every switch: AddressSanitizer keeps a fake stack per fiber, ThreadSanitizer a fiber.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ahead.h"
#include "base/log.h"
#include "base/metric.h"
#include "loop/internal.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum {
    STACKS_PER_SLAB = 64,
    COHORT = 32,        /* tasks go through the stages together: what they touch should fit the second level's cache */
    STACK_AHEAD = 256,  /* the frames a task goes on in, mostly */
    LAST_HELD_US = 500, /* the longest that those at the last stage wait for company */
    GUARD = 4096,
    /* sanitizers put red zones around every local: the same code needs several times the stack */
#if defined(WITH_ASAN) || defined(WITH_TSAN)
    STACK_FACTOR = 8,
#else
    STACK_FACTOR = 1,
#endif
};

void context_switch(void **save_sp, void *load_sp);
void context_entry(void);
void context_call(void (*fn)(void *), void *arg, void *sp);

/* ---- switching --------------------------------------------------------------------------------------------------- */

/* `dying`: the context switched from will never run again. */
static void switch_to(struct context *from, struct context *to, bool dying)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(dying ? NULL : &from->fake, to->bottom, to->size);
#endif
#ifdef WITH_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    context_switch(&from->sp, to->sp);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
#endif
    (void)dying;
}

/* The first thing on a new stack. */
static _Noreturn void task_main(void)
{
    struct loop *l = loop_current;
    struct task *t = l->running;

#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &l->main.bottom, &l->main.size);
#endif
    t->fn(t->arg);
    ASSERT(t->shield == 0 && t->waiting == NULL);
    t->state = TASK_FREE;
    switch_to(&t->ctx, &l->main, true);
    UNREACHABLE();
}

/* Lays the stack out as context_switch() would have left it. */
static void context_prepare(struct task *t)
{
    uintptr_t top = (uintptr_t)t & ~(uintptr_t)15;
    uint64_t *sp;

#if defined(__x86_64__)
    sp = (uint64_t *)(top - 16);
    *--sp = (uint64_t)(uintptr_t)context_entry;     /* return address */
    *--sp = 0;                                      /* rbp */
    *--sp = (uint64_t)(uintptr_t)task_main;         /* rbx */
    for (int i = 0; i < 4; i++)
        *--sp = 0;                                  /* r12-r15 */
    *--sp = 0x1f80ULL | (0x037fULL << 32);          /* mxcsr, x87 control word: the ABI's initial values */
#else
    sp = (uint64_t *)(top - 160);
    memset(sp, 0, 160);
    sp[0] = (uint64_t)(uintptr_t)task_main;         /* x19 */
    sp[11] = (uint64_t)(uintptr_t)context_entry;    /* x30 */
#endif
    t->ctx.sp = sp;
}

/* ---- stacks ------------------------------------------------------------------------------------------------------ */

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102          /* Linux 6.13, newer than the C library's headers */
#endif

/*
 * A page that nobody may touch.  As a guard region it is a mark in the page table; where the kernel has none (or the
 * memory is locked) it is a protection, which splits the mapping in two: at the default vm.max_map_count a process can
 * then have 32,000 stacks.
 */
static bool guard_install(void *low)
{
    return madvise(low, GUARD, MADV_GUARD_INSTALL) == 0 || mprotect(low, GUARD, PROT_NONE) == 0;
}

static bool slab_add(struct loop *l)
{
    size_t slice = GUARD + l->opt.stack_size * STACK_FACTOR;
    size_t size = slice * STACKS_PER_SLAB;
    struct stack_slab *slab = malloc(sizeof(*slab));
    char *base;

    ASSERT(slice % GUARD == 0);
    if (!slab)
        return false;
    base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED) {
        free(slab);
        return false;
    }
    *slab = (struct stack_slab){ l->slabs, base, size };
    l->slabs = slab;
    for (int i = STACKS_PER_SLAB - 1; i >= 0; i--) {
        char *low = base + (size_t)i * slice;
        struct task *t = (struct task *)(low + slice - ((sizeof(struct task) + 63) & ~(size_t)63));

        if (!guard_install(low)) {
            LOG_ERROR("no guard page for a stack; is vm.max_map_count too low?", LOG_I("errno", errno));
            continue;                   /* that slice is not used: never a stack without a guard */
        }
        t->magic = TASK_MAGIC;
        t->state = TASK_FREE;
        t->generation = 1;
        t->loop = l;
        t->ctx.bottom = low + GUARD;
        t->ctx.size = (size_t)((char *)t - (low + GUARD));
        t->next = l->free_tasks;
        l->free_tasks = t;
    }
    return l->free_tasks != NULL;
}

void tasks_release(struct loop *l)
{
    struct stack_slab *slab;

    while ((slab = l->slabs)) {
        l->slabs = slab->next;
        munmap(slab->base, slab->size);
        free(slab);
    }
    l->free_tasks = NULL;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void enqueue(struct task_queue *q, struct task *t)
{
    t->state = TASK_RUNNABLE;
    t->next = NULL;
    *q->last = t;
    q->last = &t->next;
}

static void make_runnable(struct task *t)
{
    ASSERT(t->loop == loop_current);
    if (t->state != TASK_RUNNABLE)
        enqueue(&t->loop->runnable, t);
}

struct task *task_spawn(const char *name, void (*fn)(void *), void *arg)
{
    struct loop *l = loop_self();
    struct task *t;

    if (l->tasks >= l->opt.tasks_max || (!l->free_tasks && !slab_add(l)))
        return NULL;
    t = l->free_tasks;
    MAGIC_CHECK(t, TASK_MAGIC);
    ASSERT(t->state == TASK_FREE && !timer_is_set(&t->timer));
    l->free_tasks = t->next;
    l->tasks++;
    t->name = name;
    t->doing = NULL;
    t->fn = fn;
    t->arg = arg;
    t->shield = 0;
    t->cancelled = t->timed_out = false;
    t->waiting = NULL;
    t->ctx.fake = NULL;
#ifdef WITH_TSAN
    t->ctx.fiber = __tsan_create_fiber(0);
#endif
    context_prepare(t);
    metric_add(M_TASKS, 1);
    make_runnable(t);
    return t;
}

static void task_end(struct loop *l, struct task *t)
{
    t->generation++;
    t->next = l->free_tasks;
    l->free_tasks = t;
    l->tasks--;
    metric_add(M_TASKS, -1);
#ifdef WITH_TSAN
    __tsan_destroy_fiber(t->ctx.fiber);
#endif
}

/* What is run left the caches while it waited: it comes while the one before runs, and that while another does. */
static void list_run(struct loop *l, struct task *t)
{
    struct task *next;

    for (; t; t = next) {
        next = t->next;
        if (next) {
            ahead(next->ctx.sp, STACK_AHEAD);
            ahead(next->next, 1);
        }
        ASSERT(t->state == TASK_RUNNABLE);
        t->state = TASK_RUNNING;
        l->running = t;
        switch_to(&l->main, &t->ctx, false);
        l->running = NULL;
        if (t->state == TASK_FREE)
            task_end(l, t);
    }
}

/* All that stood in the queue; it is empty then. */
static struct task *queue_take(struct task_queue *q)
{
    struct task *t = q->first;

    q->first = NULL;
    q->last = &q->first;
    return t;
}

/* The first of the rest, as many as go through the stages together. */
static struct task *cohort_take(struct loop *l)
{
    struct task *first = l->rest, *t = first;

    for (unsigned n = 1; n < COHORT && t->next; n++)
        t = t->next;
    l->rest = t->next;
    t->next = NULL;
    return first;
}

/*
 * Those at the last stage, who came there from `since` on, wait for company while there is more to do already: whoever
 * is woken by them, or the device, is told once of more.  For no longer than the loop had been awake by then: one that
 * has little to do, where somebody would wait for the little it saves, sleeps every other moment and never holds them.
 */
static bool last_is_held(const struct loop *l, ns_t since)
{
    ns_t limit = since - l->awake_since;

    if (limit > LAST_HELD_US * NS_PER_US)
        limit = LAST_HELD_US * NS_PER_US;
    return l->now - since < limit && (l->runnable.first || world->ring_ready(l->ring));
}

/* Until nobody stands at any of these stages; the lowest first, for who comes there last may go back. */
static void stages_run(struct loop *l, uint32_t these)
{
    while (l->staged & these) {
        unsigned lowest = (unsigned)__builtin_ctz(l->staged & these);

        l->staged &= ~(1u << lowest);
        list_run(l, queue_take(&l->stage[lowest]));
    }
}

void tasks_run(struct loop *l)
{
#ifdef WITH_TSAN
    l->main.fiber = __tsan_get_current_fiber();
#endif
    l->rest = queue_take(&l->runnable);
    while (l->rest) {
        list_run(l, cohort_take(l));
        stages_run(l, ~(1u << STAGE_LAST));
    }
    if (l->staged && !last_is_held(l, l->last_since))
        stages_run(l, ~0u);
}

struct task *task_self(void)
{
    return loop_current ? loop_current->running : NULL;
}

struct task_ref task_ref(struct task *t)
{
    return (struct task_ref){ t, t ? t->generation : 0 };
}

struct task *task_deref(struct task_ref ref)
{
    if (!ref.task || ref.task->generation != ref.generation)
        return NULL;
    ASSERT(ref.task->loop == loop_current);
    return ref.task;
}

bool task_cancelled(void)
{
    struct task *t = task_self();

    return t && t->cancelled;
}

void task_shield(int delta)
{
    struct task *t = task_self();

    ASSERT(t != NULL);
    t->shield += delta;
    ASSERT(t->shield >= 0);
}

void task_doing(const char *what)
{
    struct task *t = task_self();

    if (t)
        t->doing = what;
}

#ifdef WITH_ASAN
struct deep_call {
    struct task *task;
    void (*fn)(void *);
    void *arg;
};

/* On the loop's stack. */
static void deep_run(void *arg)
{
    struct deep_call *d = arg;
    struct loop *l = d->task->loop;

    __sanitizer_finish_switch_fiber(l->main.fake, NULL, NULL);
    d->fn(d->arg);
    __sanitizer_start_switch_fiber(&l->main.fake, d->task->ctx.bottom, d->task->ctx.size);
}
#endif

/* The loop's stack is not in use below where the loop was when it switched to the task. */
static void deep_call(struct task *t, void (*fn)(void *), void *arg)
{
    struct loop *l = t->loop;
#ifdef WITH_ASAN
    struct deep_call d = { t, fn, arg };

    fn = deep_run;
    arg = &d;
    __sanitizer_start_switch_fiber(&t->ctx.fake, l->main.bottom, l->main.size);
#endif
#ifdef WITH_TSAN
    __tsan_switch_to_fiber(l->main.fiber, 0);
#endif
    context_call(fn, arg, l->main.sp);
#ifdef WITH_TSAN
    __tsan_switch_to_fiber(t->ctx.fiber, 0);
#endif
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(t->ctx.fake, NULL, NULL);
#endif
}

void task_deep(void (*fn)(void *arg), void *arg)
{
    struct task *t = task_self();

    if (!t || t->loop->deep) {
        fn(arg);
        return;
    }
    t->loop->deep = true;
    deep_call(t, fn, arg);
    t->loop->deep = false;
}

void task_cancel(struct task *t)
{
    MAGIC_CHECK(t, TASK_MAGIC);
    ASSERT(t->loop == loop_current && t->state != TASK_FREE && t != task_self());
    t->cancelled = true;
    if (t->state == TASK_WAITING && t->shield == 0)
        make_runnable(t);
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static void task_timeout(struct timer *timer)
{
    struct task *t = CONTAINER_OF(timer, struct task, timer);

    t->timed_out = true;
    make_runnable(t);
}

static void park(struct task *t, struct wake *w, ns_t deadline)
{
    struct loop *l = t->loop;

    ASSERT(l == loop_current && t == l->running && !l->deep);
    t->timed_out = false;
    t->waiting = w;
    if (w)
        w->task = t;
    if (deadline != NS_NEVER)
        timer_set(&t->timer, deadline, task_timeout);
    t->state = TASK_WAITING;
    switch_to(&t->ctx, &l->main, false);
    timer_clear(&t->timer);
    t->waiting = NULL;
    if (w)
        w->task = NULL;
}

enum err await_wake(struct wake *w, ns_t deadline)
{
    struct task *t = task_self();

    ASSERT(t != NULL && w->task == NULL);
    while (!w->fired) {
        if (t->cancelled && t->shield == 0)
            return E_CANCELLED;
        if (deadline <= t->loop->now)
            return E_TIMEOUT;
        park(t, w, deadline);
        if (!w->fired && t->timed_out)
            return E_TIMEOUT;
    }
    return OK;
}

void wake_fire(struct wake *w)
{
    if (w->fired)
        return;
    w->fired = true;
    if (w->task) {
        ASSERT(w->task->loop == loop_current);
        make_runnable(w->task);
    }
}

enum err await_sleep(ns_t until)
{
    struct wake w = { 0 };
    enum err e = await_wake(&w, until);

    ASSERT(e != OK);
    return e == E_TIMEOUT ? OK : e;
}

void await_turn(void)
{
    struct task *t = task_self();

    ASSERT(t != NULL && !t->loop->deep);
    make_runnable(t);
    switch_to(&t->ctx, &t->loop->main, false);
}

/* t->next: who stands behind it in the list that is being run. */
static bool is_alone(const struct loop *l, const struct task *t, unsigned stage)
{
    uint32_t up_to = (uint32_t)((UINT64_C(2) << stage) - 1);

    return !t->next && !(l->staged & up_to) &&
           !(stage == STAGE_LAST && (l->rest || last_is_held(l, l->now)));
}

bool await_stage(unsigned stage)
{
    struct task *t = task_self();
    struct loop *l;

    ASSERT(t != NULL && stage < TASK_STAGES && !t->loop->deep);
    l = t->loop;
    if (is_alone(l, t, stage))
        return false;
    if (stage == STAGE_LAST && !(l->staged & (1u << STAGE_LAST)))
        l->last_since = l->now;
    l->staged |= 1u << stage;
    enqueue(&l->stage[stage], t);
    switch_to(&t->ctx, &l->main, false);
    return true;
}

void await_ahead(void)
{
    await_stage(STAGE_AHEAD);
}

void await_last(void)
{
    await_stage(STAGE_LAST);
}

/* For what has to be seen to its end whatever happens to the task. */
static void await_surely(struct wake *w)
{
    enum err e;

    task_shield(+1);
    e = await_wake(w, NS_NEVER);
    task_shield(-1);
    ASSERT(e == OK);
}

struct op_wait {
    struct wake wake;
    int res;
};

static void op_wait_done(struct op *op, int res)
{
    struct op_wait *wait = op->owner;

    wait->res = res;
    wake_fire(&wait->wake);
}

enum err await_op(struct op *op, ns_t deadline, int *ret_res)
{
    struct op_wait wait = { 0 };
    enum err e;

    ASSERT(op->kind != OP_ACCEPT && op->kind != OP_RECV);
    op->owner = &wait;
    op->done = op_wait_done;
    op_submit(op);
    e = await_wake(&wait.wake, deadline);
    if (e) {
        op_cancel(op);
        await_surely(&wait.wake);
        if (wait.res == -ECANCELED || wait.res == -EINTR)
            return e;
    }
    *ret_res = wait.res;
    return OK;
}

struct blocking {
    struct job job;
    struct wake wake;
    void (*fn)(void *);
    void *arg;
};

static void blocking_run(struct job *job)
{
    struct blocking *b = CONTAINER_OF(job, struct blocking, job);

    b->fn(b->arg);
}

static void blocking_done(struct mail *m)
{
    wake_fire(&CONTAINER_OF(m, struct blocking, job.mail)->wake);
}

void await_blocking(void (*fn)(void *), void *arg)
{
    struct blocking b = { .fn = fn, .arg = arg };

    b.job.fn = blocking_run;
    b.job.mail.fn = blocking_done;
    loop_blocking(&b.job);
    await_surely(&b.wake);
}

/* ---- locks between tasks ----------------------------------------------------------------------------------------- */

struct wake_node {
    struct wake wake;
    struct task *task;
    struct wake_node *next;
};

enum err await_lock(struct task_mutex *m, ns_t deadline)
{
    struct wake_node node = { .task = task_self() };
    struct wake_node **at;
    enum err e;

    ASSERT(m->owner != task_self());
    if (!m->owner) {
        m->owner = task_self();
        return OK;
    }
    for (at = &m->first; *at; at = &(*at)->next)
        ;
    *at = &node;
    e = await_wake(&node.wake, deadline);
    if (e) {
        for (at = &m->first; *at != &node; at = &(*at)->next)
            ASSERT(*at != NULL);
        *at = node.next;
        return e;
    }
    ASSERT(m->owner == task_self());
    return OK;
}

void task_unlock(struct task_mutex *m)
{
    struct wake_node *node = m->first;

    ASSERT(m->owner == task_self());
    m->owner = NULL;
    if (node) {
        m->first = node->next;
        m->owner = node->task;          /* handed over: nobody can come in between */
        wake_fire(&node->wake);
    }
}
