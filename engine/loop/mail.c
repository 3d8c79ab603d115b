/*
 * mail.c -- mail between loops, and the helper threads for what blocks
 *
 * Mail is a stack pushed by any thread with compare-and-swap and taken whole by the owner, who turns it round: order
 * per sender is kept.  A sender wakes the ring only when the owner says it sleeps; the owner says so first and then
 * looks for mail once more, so that one of the two always sees the other (both sides are sequentially consistent).
 */
#include <pthread.h>

#include "base/log.h"
#include "loop/internal.h"

void loop_post(struct loop *to, struct mail *m)
{
    struct mail *head = atomic_load(&to->mail);

    MAGIC_CHECK(to, LOOP_MAGIC);
    ASSERT(m->fn != NULL);
    /* the mail may end the loop's last task before this function returns: loop_run() stays while we look at it */
    atomic_fetch_add(&to->posting, 1);
    do
        m->next = head;
    while (!atomic_compare_exchange_weak(&to->mail, &head, m));
    if (atomic_load(&to->sleeping))
        world->ring_wake(to->ring);
    atomic_fetch_sub(&to->posting, 1);
}

bool mail_pending(struct loop *l)
{
    return atomic_load(&l->mail) != NULL;
}

void mail_deliver(struct loop *l)
{
    struct mail *m = atomic_exchange(&l->mail, NULL), *rev = NULL, *next;

    for (; m; m = next) {
        next = m->next;
        m->next = rev;
        rev = m;
    }
    for (m = rev; m; m = next) {
        next = m->next;             /* m may be gone, or posted again, once fn was called */
        m->fn(m);
    }
}

/* ---- helper threads ---------------------------------------------------------------------------------------------- */

enum { HELPERS_MAX = 4 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t some;
    struct job *first, **last;
    unsigned threads, idle, queued;         /* idle: one that was signalled counts until it has woken */
} helpers = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, &helpers.first, 0, 0, 0 };

static void *helper_main(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&helpers.lock);
    for (;;) {
        struct job *job;
        struct loop *from;

        while (!(job = helpers.first)) {
            helpers.idle++;
            pthread_cond_wait(&helpers.some, &helpers.lock);
            helpers.idle--;
        }
        helpers.first = job->next;
        if (!helpers.first)
            helpers.last = &helpers.first;
        helpers.queued--;
        pthread_mutex_unlock(&helpers.lock);
        from = job->from;
        job->fn(job);
        loop_post(from, &job->mail);        /* the job may be gone from here on */
        pthread_mutex_lock(&helpers.lock);
    }
    return NULL;
}

static bool helper_start(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    int rc;

    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    rc = pthread_create(&thread, &attr, helper_main, NULL);
    pthread_attr_destroy(&attr);
    return rc == 0;
}

void loop_blocking(struct job *job)
{
    bool run_here = false;

    job->from = loop_self();
    job->next = NULL;
    if (!world->threads) {
        job->fn(job);
        loop_post(job->from, &job->mail);
        return;
    }
    pthread_mutex_lock(&helpers.lock);
    /* each that waits has one of the idle coming to it: another job may block for long, so it is not queued behind */
    if (helpers.queued >= helpers.idle && helpers.threads < HELPERS_MAX) {
        if (helper_start())
            helpers.threads++;
        else
            run_here = helpers.threads == 0;
    }
    if (!run_here) {
        *helpers.last = job;
        helpers.last = &job->next;
        helpers.queued++;
        pthread_cond_signal(&helpers.some);
    }
    pthread_mutex_unlock(&helpers.lock);
    if (run_here) {
        LOG_WARN("no helper thread could be started; blocking the worker instead");
        job->fn(job);
        loop_post(job->from, &job->mail);
    }
}
