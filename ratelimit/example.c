/*
 * example.c -- the limiter by itself: sixteen requests to a mailbox that allows four at once and ten a second
 *
 * A program of one thread, with a clock of its own that it moves on as it likes: what a real one would wait for, this
 * one skips to.  A real one passes its monotonic clock as `now`, calls rl_tick() when that said (or alarm() earlier),
 * and lets wake() post a message to whoever waits.  Prints what happens; exits 0 when all sixteen were served in time.
 */
#include <stdio.h>
#include <string.h>

#include "ratelimit.h"

#define MS ((int64_t)1000000)

enum { RULE_TENANT, RULE_MAILBOX };

struct request {
    struct rl_waiter wait;          /* embedded: the limiter allocates nothing for it */
    int number;
    int64_t done_at;                /* 0: not sent */
};

static struct rl *rl;
static int64_t now;

static void send_it(struct request *r)
{
    r->done_at = now + 150 * MS;    /* here the request leaves; the answer takes 150 ms */
    fprintf(stderr, "%4d ms: request %d leaves\n", (int)(now / MS), r->number);
}

/* The decision on one that was queued. In a threaded program: post it to the thread that waits, nothing more. */
static void on_decision(struct rl_waiter *w)
{
    struct request *r = (struct request *)w;

    if (w->result == RL_GRANTED)
        send_it(r);
    else
        fprintf(stderr, "%4d ms: request %d: %s\n", (int)(now / MS), r->number, rl_result_name(w->result));
}

static void ask(struct request *r, int number)
{
    static const char tenant[] = "acme", mailbox[] = "bob@example.com";
    struct rl_id scope = rl_id_of(rl, tenant, strlen(tenant));
    struct rl_ask asks[] = {
        { .key = tenant, .key_len = 4, .rule = RULE_TENANT, .cost = 1, .id = scope },
        { .key = mailbox, .key_len = 15, .rule = RULE_MAILBOX, .cost = 1, .id = rl_id_sub(scope, mailbox, 15) },
    };

    memset(r, 0, sizeof(*r));
    r->number = number;
    r->wait.wake = on_decision;
    r->wait.tenant = scope.a;       /* who shares with whom, if others wait at the same keys */
    switch (rl_acquire(rl, &r->wait, asks, 2, now + 5000 * MS, now)) {
    case RL_GRANTED:
        send_it(r);
        break;
    case RL_QUEUED:
        fprintf(stderr, "%4d ms: request %d waits for %s\n", (int)(now / MS), number,
                (const char *)asks[r->wait.blocked].key);
        break;
    default:
        fprintf(stderr, "%4d ms: request %d: %s, try again at %d ms\n", (int)(now / MS), number,
                rl_result_name(r->wait.result), (int)(r->wait.retry_at / MS));
    }
}

int main(void)
{
    struct rl_config config = { .seed = { 0x5eed, 42 } };      /* take random numbers */
    struct rl_rule tenant = { .rate = RL_RATE_BUCKET, .amount = 1000, .window_ns = 60000 * MS };
    struct rl_rule mailbox = { .rate = RL_RATE_BUCKET, .amount = 10, .window_ns = 1000 * MS, .concurrency = 4 };
    struct request requests[16];
    int served = 0;

    rl = rl_new(&config);
    if (!rl || !rl_rule_set(rl, RULE_TENANT, &tenant, now) || !rl_rule_set(rl, RULE_MAILBOX, &mailbox, now))
        return 1;
    for (int i = 0; i < 16; i++)
        ask(&requests[i], i);
    for (; served < 16 && now < 5000 * MS; now += MS) {
        if (rl_next(rl) <= now)
            rl_tick(rl, now);
        for (int i = 0; i < 16; i++) {
            if (requests[i].done_at && requests[i].done_at == now) {
                rl_release(rl, &requests[i].wait.permit, now);
                served++;
            }
        }
    }
    fprintf(stderr, "%d served after %d ms\n", served, (int)(now / MS));
    rl_free(rl);
    return served == 16 ? 0 : 1;
}
