/* simworld.c -- ring, clock and faults over memworld's files (simworld.h) */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "simworld.h"
#include "tests/unit/memworld.h"

enum { OPS_MAX = 64, RINGS_MAX = 4 };

struct slot {
    struct op *op;
    ns_t due;
    int written;                /* in the page cache by now; not yet on the device */
};

struct ring {
    struct slot ops[OPS_MAX];
    unsigned n;
    bool gone; /* its loop has ended */
    bool woken;
    ns_t until; /* its loop waits until then */
    pthread_cond_t turn;
};

struct simworld_weather simworld_weather;
void (*simworld_changed)(void);

static struct dice ring_dice, file_dice, bytes_dice;
static ns_t clock_now;
static ns_t hangs_since, hangs_until;
static struct ring *rings[RINGS_MAX]; /* in the order in which they were opened */
static unsigned n_rings;
static struct ring *runs; /* whose turn it is */
static pthread_mutex_t baton = PTHREAD_MUTEX_INITIALIZER;
static wall_ms_t wall_step;
static bool wall_stepped;
static bool dead;
static size_t death;

static void changed(void)
{
    if (simworld_changed)
        simworld_changed();
}

/* ---- files: memworld's, with faults by chance -------------------------------------------------------------------- */

/* One blocking call in so many fails; memworld does it when its counter is at one. */
static void tempt(void)
{
    static const int errors[] = { EIO, ENOSPC, EDQUOT };

    memworld_faults.file_at = dice_permille(&file_dice, simworld_weather.file_error) ? 1 : 0;
    memworld_faults.file_errno = errors[dice_below(&file_dice, ARRAY_LEN(errors))];
}

static void relent(void)
{
    memworld_faults.file_at = 0;
    changed();
}

static int sim_open(const char *path, int flags, int mode)
{
    int rc;

    tempt();
    rc = memworld.open(path, flags, mode);
    relent();
    return rc;
}

static int sim_allocate(int fd, int64_t off, int64_t len)
{
    int rc;

    tempt();
    rc = memworld.allocate(fd, off, len);
    relent();
    return rc;
}

static int sim_direct(int fd)
{
    return memworld.direct(fd);
}

static int sim_truncate(int fd, int64_t len)
{
    int rc;

    tempt();
    rc = memworld.truncate(fd, len);
    relent();
    return rc;
}

static int sim_sync(int fd)
{
    int rc;

    tempt();
    rc = memworld.sync(fd);
    relent();
    return rc;
}

static int64_t sim_pwrite(int fd, const void *p, size_t n, int64_t off)
{
    int64_t rc;

    tempt();
    rc = memworld.pwrite(fd, p, n, off);
    relent();
    return rc;
}

static int sim_rename(const char *from, const char *to)
{
    int rc;

    tempt();
    rc = memworld.rename(from, to);
    relent();
    return rc;
}

static int sim_unlink(const char *path)
{
    int rc;

    tempt();
    rc = memworld.unlink(path);
    relent();
    return rc;
}

static int sim_mkdir(const char *path, int mode)
{
    int rc;

    tempt();
    rc = memworld.mkdir(path, mode);
    relent();
    return rc;
}

static int sim_sync_dir(const char *path)
{
    int rc;

    tempt();
    rc = memworld.sync_dir(path);
    relent();
    return rc;
}

static int sim_close(int fd)
{
    return memworld.close(fd);
}
static int64_t sim_size(int fd)
{
    return memworld.size(fd);
}
static int64_t sim_pread(int fd, void *p, size_t n, int64_t off)
{
    return memworld.pread(fd, p, n, off);
}
static int sim_lock(int fd)
{
    return memworld.lock(fd);
}

static int sim_list(const char *path, void (*fn)(const char *name, void *arg), void *arg)
{
    return memworld.list(path, fn, arg);
}

/* ---- ring and clock ---------------------------------------------------------------------------------------------- */

static enum err ring_open(unsigned entries, struct ring **ret, struct errinfo *info)
{
    struct ring *r = calloc(1, sizeof(*r));

    ASSERT(r && n_rings < RINGS_MAX && pthread_cond_init(&r->turn, NULL) == 0);
    rings[n_rings++] = r;
    *ret = r;
    return OK;
}

static void ring_close(struct ring *r)
{
    unsigned i = 0;

    ASSERT(r->n == 0);
    while (rings[i] != r)
        i++;
    rings[i] = rings[--n_rings];
    pthread_cond_destroy(&r->turn);
    free(r);
}

static void ring_cancel(struct ring *r, struct op *op) {} /* a write under way cannot be taken back */
static void ring_recycle(struct ring *r, unsigned token) {}
static void ring_wake(struct ring *r)
{
    r->woken = true;
}

/* How long the device takes for one of the two parts of a write. */
static ns_t part_takes(void)
{
    ns_t takes = dice_scale(&ring_dice, 20000, 400000);

    if (dice_permille(&ring_dice, simworld_weather.slow))
        takes = dice_scale(&ring_dice, NS_PER_MS, NS_PER_S);
    if (dice_permille(&ring_dice, simworld_weather.hang)) {
        if (clock_now >= hangs_until)
            hangs_since = clock_now;
        hangs_until = clock_now + dice_scale(&ring_dice, 100 * NS_PER_MS, 5 * NS_PER_S);
    }
    return takes;
}

static void ring_submit(struct ring *r, struct op *op)
{
    ASSERT(r->n < OPS_MAX && op->kind == OP_WRITE);
    if (op->progress == 0)      /* the rest of a short write is the kernel's affair */
        memworld_write_check(op);
    r->ops[r->n++] = (struct slot){ op, clock_now + part_takes(), 0 };
}

static int ring_write(struct op *op)
{
    size_t n = op->len - op->progress;

    if (n > 1 && dice_permille(&ring_dice, 20)) /* short writes are continued by the loop */
        n = 1 + dice_below(&ring_dice, n - 1);
    memworld.pwrite(op->fd, (char *)op->buf + op->progress, n, op->off + (int64_t)op->progress);
    return (int)n;
}

/* The next part of a write: into the page cache, then onto the device; a crash may come between. True when it is over,
 * with its result. */
static bool perform(struct slot *s, int *ret)
{
    *ret = 0;
    if (dice_permille(&ring_dice, simworld_weather.ring_error))
        *ret = dice_permille(&ring_dice, 500) ? -EIO : -ENOSPC;
    else if (s->written)
        memworld_sync_range(s->op->fd, s->op->off + (int64_t)s->op->progress, (size_t)s->written);
    else if (dice_permille(&ring_dice, simworld_weather.slow / 2))
        *ret = -EINTR;
    if (*ret < 0)
        return true;
    if (s->written) {
        *ret = s->written;
    } else {
        s->written = ring_write(s->op);
        s->due = clock_now + part_takes();
    }
    changed();
    return *ret > 0;
}

static ns_t slot_due(const struct slot *s)
{
    return s->due > hangs_until ? s->due : hangs_until;
}

/* When this ring has something to do. */
static ns_t ring_due(const struct ring *r)
{
    ns_t due = r->woken ? 0 : r->until;

    for (unsigned i = 0; i < r->n; i++)
        if (slot_due(&r->ops[i]) < due)
            due = slot_due(&r->ops[i]);
    return due;
}

/* One of those that have something to do now; if there is none, time passes until there is. */
static struct ring *choose(void)
{
    struct ring *ready[RINGS_MAX];
    ns_t first = NS_NEVER;
    unsigned n = 0;

    clock_now += dice_between(&ring_dice, 200, 2000); /* the work of a turn */
    for (unsigned i = 0; i < n_rings; i++)
        if (!rings[i]->gone && ring_due(rings[i]) < first)
            first = ring_due(rings[i]);
    ASSERT(first != NS_NEVER); /* nothing would ever happen again */
    if (first > clock_now)
        clock_now = first;
    for (unsigned i = 0; i < n_rings; i++)
        if (!rings[i]->gone && ring_due(rings[i]) <= clock_now)
            ready[n++] = rings[i];
    return ready[n > 1 ? dice_below(&ring_dice, n) : 0];
}

ns_t simworld_hangs_since(void)
{
    return clock_now < hangs_until ? hangs_since : NS_NEVER;
}

static void hand_over(struct ring *to)
{
    pthread_mutex_lock(&baton);
    runs = to;
    pthread_mutex_unlock(&baton);
    if (to)
        pthread_cond_signal(&to->turn);     /* `to` cannot go away: its loop has yet to run */
}

static void wait_turn(struct ring *r)
{
    pthread_mutex_lock(&baton);
    while (runs != r)
        pthread_cond_wait(&r->turn, &baton);
    pthread_mutex_unlock(&baton);
}

void simworld_run(unsigned loop, void (*fn)(void *arg), void *arg)
{
    struct ring *r = rings[loop];
    bool last = true;

    if (loop == 0)
        hand_over(r);
    wait_turn(r);
    fn(arg);
    r->gone = true;
    for (unsigned i = 0; i < n_rings; i++)
        last = last && rings[i]->gone;
    hand_over(last ? NULL : choose());
}

static void ring_wait(struct ring *r, ns_t until,
                      void (*complete)(struct op *op, int res, bool more, const char *data, unsigned token))
{
    unsigned from = r->n ? (unsigned)dice_below(&ring_dice, r->n) : 0;
    struct ring *next;

    r->until = until;
    next = choose();
    if (next != r) {
        hand_over(next);
        wait_turn(r);
    }
    r->woken = false;
    for (unsigned k = 0, n = r->n; k < n; k++) {
        struct slot *s = &r->ops[(from + k) % n];

        if (s->op && slot_due(s) <= clock_now) {
            struct op *op = s->op;
            int res;

            if (!perform(s, &res))
                continue;
            s->op = NULL;
            complete(op, res, false, NULL, 0);
        }
    }
    for (unsigned i = 0; i < r->n;)
        if (r->ops[i].op)
            i++;
        else
            r->ops[i] = r->ops[--r->n];
}

/* Now and then without reason: who goes last is held for a turn then. */
static bool ring_ready(const struct ring *r)
{
    return ring_due(r) <= clock_now || dice_permille(&ring_dice, 200);
}

static ns_t sim_now(void)
{
    return clock_now;
}
wall_ms_t simworld_true_ms(void)
{
    return 1700000000000LL + clock_now / NS_PER_MS;
}
static wall_ms_t sim_wall_ms(void)
{
    return simworld_true_ms() + wall_step;
}
bool simworld_stepped(void)
{
    return wall_stepped;
}
ns_t simworld_now(void)
{
    return clock_now;
}

static void sim_random(void *p, size_t n)
{
    unsigned char *to = p;

    for (size_t i = 0; i < n; i++)
        to[i] = (unsigned char)(dice_next(&bytes_dice) >> 32);
}

const struct world simworld = {
    .name = "simulated",
    .ring_open = ring_open,
    .ring_close = ring_close,
    .ring_submit = ring_submit,
    .ring_cancel = ring_cancel,
    .ring_wait = ring_wait,
    .ring_ready = ring_ready,
    .ring_recycle = ring_recycle,
    .ring_wake = ring_wake,
    .threads = false,
    .now = sim_now,
    .wall_ms = sim_wall_ms,
    .random = sim_random,
    .open = sim_open,
    .close = sim_close,
    .size = sim_size,
    .allocate = sim_allocate,
    .truncate = sim_truncate,
    .direct = sim_direct,
    .sync = sim_sync,
    .pread = sim_pread,
    .pwrite = sim_pwrite,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .mkdir = sim_mkdir,
    .sync_dir = sim_sync_dir,
    .list = sim_list,
    .lock = sim_lock,
};

/* ---- runs, deaths ------------------------------------------------------------------------------------------------ */

void simworld_begin(uint64_t seed)
{
    simworld_weather = (struct simworld_weather){ 0 };
    memworld_reset();
    ring_dice = dice_for(seed, "ring");
    file_dice = dice_for(seed, "files");
    bytes_dice = dice_for(seed, "bytes");
    clock_now = NS_PER_S;
    hangs_until = 0;
    wall_step = 0;
    wall_stepped = false;
    dead = false;
    ASSERT(n_rings == 0);
}

void simworld_step_wall(wall_ms_t to)
{
    wall_step = to;
    wall_stepped = true;
}

void simworld_space(int64_t bytes)
{
    memworld_faults.capacity = bytes ? memworld_bytes() + bytes : 0;
}

void simworld_die(void)
{
    ASSERT(!dead);
    dead = true;
    death = memworld_events();
}

bool simworld_dead(void)
{
    return dead;
}
size_t simworld_event(void)
{
    return memworld_events();
}

size_t simworld_durable_at(const char *path, int64_t off, size_t len)
{
    return memworld_durable_at(path, off, len);
}

static void calm(void)
{
    memworld_faults = (struct memworld_faults){ 0 };
    hangs_until = 0;
}

void simworld_crash(struct dice *d)
{
    ASSERT(dead);
    memworld_crash(death, (enum memworld_tear)dice_below(d, TEAR_COUNT), dice_next(d));
    simworld_end();
}

void simworld_end(void)
{
    calm();
    memworld_rebase();
    dead = false;
}
