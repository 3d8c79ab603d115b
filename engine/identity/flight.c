/*
 * flight.c -- single flight: waiters live on their own stacks, and are woken by mail to their loops
 *
 * The delicate instant: a waiter's deadline passes while the leader lands.  Under the lock a waiter is either linked
 * (then it unlinks itself and nobody will touch it again) or landed (then mail is on its way to memory on its stack,
 * and it must stay until that mail has come).
 */
#include "identity/flight.h"

struct flight_wait {
    struct mail mail;
    struct wake wake;
    struct loop *loop;
    struct flight_wait *next, **prev;
    struct errinfo *info;
    enum err result;
    bool landed;
};

static void arrived(struct mail *m)
{
    wake_fire(&CONTAINER_OF(m, struct flight_wait, mail)->wake);
}

static void unlink_wait(struct flight *f, struct flight_wait *w)
{
    ASSERT(f->waiting > 0);
    *w->prev = w->next;
    if (w->next)
        w->next->prev = w->prev;
    f->waiting--;
}

enum err await_flight(struct flight *f, pthread_mutex_t *lock, ns_t deadline, struct errinfo *info)
{
    struct flight_wait w = { .mail.fn = arrived, .loop = loop_self(), .info = info };
    bool landed;
    enum err e;

    ASSERT(f->busy);
    w.next = f->first;
    w.prev = &f->first;
    if (w.next)
        w.next->prev = &w.next;
    f->first = &w;
    f->waiting++;
    pthread_mutex_unlock(lock);

    e = await_wake(&w.wake, deadline);
    if (!e)
        return w.result;

    pthread_mutex_lock(lock);
    landed = w.landed;
    if (!landed)
        unlink_wait(f, &w);
    pthread_mutex_unlock(lock);
    if (!landed)
        return e == E_TIMEOUT ? err_set(info, E_DEADLINE, "the wait for another call's work passed the deadline") : e;

    task_shield(1);
    e = await_wake(&w.wake, NS_NEVER);
    task_shield(-1);
    ASSERT(e == OK);
    return w.result;
}

void flight_land(struct flight *f, enum err result, const struct errinfo *info)
{
    struct flight_wait *w = f->first, *next;

    ASSERT(f->busy);
    f->busy = false;
    f->first = NULL;
    f->waiting = 0;
    for (; w; w = next) {
        next = w->next;                 /* after the post the waiter may be gone */
        w->result = result;
        w->landed = true;
        if (w->info && info)
            *w->info = *info;
        loop_post(w->loop, &w->mail);
    }
}
