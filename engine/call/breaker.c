/*
 * breaker.c -- circuits by provider and tenant, shared by all workers
 *
 * Parts with a lock each; an exchange takes one for some arithmetic.  Failures are counted in two halves of the window:
 * the older one is dropped when the newer is full of time, so 5 to 10 s are looked back on.  A circuit that has nothing
 * to say (closed, idle, with its tokens back) is forgotten when its part is full; when none is, exchanges of new ones
 * go unguarded: a breaker is a kindness, not a promise.
 */
#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/map.h"
#include "call/breaker.h"

enum { PARTS = 16, TENANT_MAX = 128, TOKEN = 100 };     /* tokens are counted in hundredths */

#define HALF_WINDOW     (5 * NS_PER_S)
#define OPEN_FIRST      NS_PER_S
#define OPEN_MAX        (60 * NS_PER_S)
#define PROBE_MAX       (60 * NS_PER_S)         /* a probe that never came back holds up nobody for longer */
#define FORGET          (600 * NS_PER_S)

enum state { CLOSED, OPEN, HALF_OPEN };

struct part;

struct circuit {
    struct str tenant;                  /* its bytes follow the struct */
    unsigned provider;
    struct part *part;
    struct circuit *next;               /* of the tenant, with another provider */
    unsigned passes;                    /* out: it is not forgotten */
    enum state state;
    unsigned tried, failed, tried_before, failed_before;
    unsigned wells;                     /* probes that succeeded in a row */
    unsigned tokens;
    ns_t half_began, used;
    ns_t until, open_for;               /* OPEN */
    ns_t probe_since;                   /* HALF_OPEN; 0: no probe is under way */
};

struct part {
    pthread_mutex_t lock;
    struct map tenants;                 /* tenant -> the first of its circuits */
    unsigned len;                       /* of circuits */
};

struct breakers {
    unsigned least, earned;                     /* earned: hundredths of a token, by a first attempt */
    struct part parts[PARTS];
};

struct breakers *breakers_new(unsigned least, unsigned repeats_percent)
{
    struct breakers *b = calloc(1, sizeof(*b));

    ASSERT(b != NULL);
    b->least = least;
    b->earned = repeats_percent;
    for (int i = 0; i < PARTS; i++)
        pthread_mutex_init(&b->parts[i].lock, NULL);
    return b;
}

void breakers_free(struct breakers *b)
{
    for (int i = 0; b && i < PARTS; i++) {
        struct map_slot *slot;
        size_t at = 0;

        while ((slot = map_next(&b->parts[i].tenants, &at)))
            for (struct circuit *c = slot->value, *next; c; c = next) {
                next = c->next;
                free(c);
            }
        map_release(&b->parts[i].tenants);
        pthread_mutex_destroy(&b->parts[i].lock);
    }
    free(b);
}

/* ---- finding ----------------------------------------------------------------------------------------------------- */

/* Answers what is left of a tenant's. */
static struct circuit *without_idle(struct part *p, struct circuit *first, ns_t now)
{
    struct circuit *left = NULL;

    for (struct circuit *c = first, *next; c; c = next) {
        next = c->next;
        if (c->state != CLOSED || c->passes || now - c->used < FORGET) {
            c->next = left;
            left = c;
        } else {
            free(c);
            p->len--;
        }
    }
    return left;
}

static void forget_idle(struct part *p, ns_t now)
{
    struct map_slot *slot;
    char tenant[TENANT_MAX];
    size_t at = 0;

    while ((slot = map_next(&p->tenants, &at))) {
        struct str key = { tenant, slot->key.len };
        struct circuit *left;

        memcpy(tenant, slot->key.p, slot->key.len);         /* the key's own bytes may be a circuit's that goes */
        left = without_idle(p, slot->value, now);
        slot->key = left ? left->tenant : key;
        slot->value = left;
        if (!left)
            map_del(&p->tenants, key);
    }
}

static struct circuit *circuit_new(struct part *p, const struct breaker_of *of, ns_t now)
{
    struct circuit *c;

    if (p->len >= BREAKERS_MAX / PARTS)
        forget_idle(p, now);
    if (p->len >= BREAKERS_MAX / PARTS)
        return NULL;
    c = calloc(1, sizeof(*c) + of->tenant.len);
    if (!c)
        return NULL;
    memcpy(c + 1, of->tenant.p, of->tenant.len);
    c->tenant = str_n(c + 1, of->tenant.len);
    c->provider = of->provider;
    c->part = p;
    c->tokens = RETRY_RESERVE * TOKEN;
    c->half_began = now;
    c->next = map_put(&p->tenants, c->tenant, c);
    p->len++;
    return c;
}

/* With its part locked, *ret_part; NULL: there is none, and nothing is locked. */
static struct circuit *lock_circuit(struct breakers *b, const struct breaker_of *of, bool make, ns_t now,
                                    struct part **ret_part)
{
    struct circuit *c;
    struct part *p;

    if (!b || of->tenant.len > TENANT_MAX)
        return NULL;
    *ret_part = p = &b->parts[of->tenant_hash % PARTS];
    pthread_mutex_lock(&p->lock);
    c = map_get_hashed(&p->tenants, of->tenant, of->tenant_hash);
    while (c && c->provider != of->provider)
        c = c->next;
    if (!c && make)
        c = circuit_new(p, of, now);
    if (!c)
        pthread_mutex_unlock(&p->lock);
    return c;
}

/* ---- what may go ------------------------------------------------------------------------------------------------- */

static bool may_go(struct circuit *c, ns_t now, bool *ret_probe, ns_t *ret_retry_at)
{
    if (c->state == CLOSED)
        return true;
    if (c->state == OPEN && now < c->until) {
        *ret_retry_at = c->until;
        return false;
    }
    if (c->state == HALF_OPEN && c->probe_since && now - c->probe_since < PROBE_MAX) {
        *ret_retry_at = now + OPEN_FIRST;
        return false;
    }
    if (c->state == OPEN)
        c->wells = 0;
    c->state = HALF_OPEN;
    c->probe_since = now;
    *ret_probe = true;
    return true;
}

bool breaker_enter(struct breakers *b, const struct breaker_of *of, bool first, ns_t now, struct breaker_pass *ret,
                   ns_t *ret_retry_at)
{
    struct part *p;
    struct circuit *c = lock_circuit(b, of, true, now, &p);
    bool go;

    *ret = (struct breaker_pass){ NULL, false };
    *ret_retry_at = 0;
    if (!c)
        return true;
    c->used = now;
    go = may_go(c, now, &ret->probe, ret_retry_at);
    if (go) {
        ret->circuit = c;
        c->passes++;
    }
    if (go && first)
        c->tokens += b->earned;
    if (c->tokens > RETRY_RESERVE * TOKEN)
        c->tokens = RETRY_RESERVE * TOKEN;
    pthread_mutex_unlock(&p->lock);
    return go;
}

void breaker_pass(struct breakers *b, const struct breaker_of *of, struct breaker_pass *ret)
{
    struct part *p;
    struct circuit *c = lock_circuit(b, of, false, 0, &p);

    *ret = (struct breaker_pass){ c, false };
    if (!c)
        return;
    c->passes++;
    pthread_mutex_unlock(&p->lock);
}

bool breaker_retry(struct breakers *b, const struct breaker_of *of)
{
    struct part *p;
    struct circuit *c = lock_circuit(b, of, false, 0, &p);
    bool ok;

    if (!c)
        return true;
    ok = c->tokens >= TOKEN;
    if (ok)
        c->tokens -= TOKEN;
    pthread_mutex_unlock(&p->lock);
    return ok;
}

/* ---- what came of it --------------------------------------------------------------------------------------------- */

static void open_circuit(struct circuit *c, ns_t now)
{
    c->open_for = c->state == CLOSED || !c->open_for ? OPEN_FIRST : c->open_for * 2;
    if (c->open_for > OPEN_MAX)
        c->open_for = OPEN_MAX;
    c->state = OPEN;
    c->until = now + c->open_for;
    c->probe_since = 0;
}

static bool probe_ended(struct circuit *c, enum breaker_health health, ns_t now)
{
    if (c->state != HALF_OPEN)
        return false;
    c->probe_since = 0;
    if (health == BREAKER_ILL) {
        open_circuit(c, now);
        return true;
    }
    if (health == BREAKER_WELL && ++c->wells >= BREAKER_PROBES) {
        c->state = CLOSED;
        c->tried = c->failed = c->tried_before = c->failed_before = 0;
        c->half_began = now;
        c->open_for = 0;
    }
    return false;
}

static void turn_window(struct circuit *c, ns_t now)
{
    if (now - c->half_began < HALF_WINDOW)
        return;
    c->tried_before = now - c->half_began < 2 * HALF_WINDOW ? c->tried : 0;
    c->failed_before = now - c->half_began < 2 * HALF_WINDOW ? c->failed : 0;
    c->tried = c->failed = 0;
    c->half_began = now;
}

static bool counted(struct circuit *c, unsigned least, enum breaker_health health, ns_t now)
{
    unsigned tried, failed;

    if (health == BREAKER_NOTHING || c->state != CLOSED)
        return false;
    turn_window(c, now);
    c->tried++;
    c->failed += health == BREAKER_ILL;
    tried = c->tried + c->tried_before;
    failed = c->failed + c->failed_before;
    if (health != BREAKER_ILL || least == 0 || tried < least || 2 * failed < tried)
        return false;
    open_circuit(c, now);
    return true;
}

bool breaker_leave(struct breakers *b, struct breaker_pass *pass, enum breaker_health health, ns_t now)
{
    struct circuit *c = pass->circuit;
    struct part *p;
    bool opened;

    if (!c)
        return false;
    pass->circuit = NULL;
    p = c->part;
    pthread_mutex_lock(&p->lock);
    ASSERT(c->passes > 0);
    c->passes--;
    opened = pass->probe ? probe_ended(c, health, now) : counted(c, b->least, health, now);
    pthread_mutex_unlock(&p->lock);
    return opened;
}

unsigned breakers_open(struct breakers *b)
{
    unsigned n = 0;

    for (int i = 0; b && i < PARTS; i++) {
        struct map_slot *slot;
        size_t at = 0;

        pthread_mutex_lock(&b->parts[i].lock);
        while ((slot = map_next(&b->parts[i].tenants, &at)))
            for (const struct circuit *c = slot->value; c; c = c->next)
                n += c->state != CLOSED;
        pthread_mutex_unlock(&b->parts[i].lock);
    }
    return n;
}
