/*
 * secret.c -- slots of locked memory
 *
 *   region: | guard page | 64 KB cut into slots of one size | guard page |
 *
 * A region is mapped from memfd_secret(2), which takes its pages out of the kernel's own map; where that is missing or
 * RLIMIT_MEMLOCK is used up, from anonymous memory that is locked if the limit allows; then unlocked, which is said
 * once in the log.  All are left out of core dumps.  A secret costs one slot of its class and a handle of 24 bytes,
 * which lies outside the region and holds nothing secret.  A slot is wiped when it is released.
 *
 * Each call opens a credential into a slot and gives it back, so threads have pools of their own, up to POOLS of them:
 * a worker meets nobody at its pool's lock, and its slots stay in its processor's caches.  A slot goes back to the pool
 * it came from, whoever releases it.  Reading a secret takes no lock.
 *
 * A child process gets none of it: after fork() the pages are not there, and the child starts with no regions.  Shared
 * pages would let a child wipe its parent's secrets, and locks are not inherited.
 */
#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "base/poison.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

#define MAGIC_SECRET 0x5ec2e701u

enum { REGION_LEN = 65536, CLASSES = 4, POOLS = 32 };

STATIC_ASSERT(REGION_LEN % SECRET_MAX == 0, "slots must fill a region");

static const size_t class_len[CLASSES] = { 256, 1024, 4096, SECRET_MAX };

struct region;

struct secret {
    uint32_t magic;                     /* 0 while the slot is free */
    uint32_t len;
    struct region *region;
    struct secret *next_free;
};

struct region {
    struct pool *pool;
    struct region *next, *prev;         /* among the pool's open regions of one class */
    uint8_t *base;                      /* first slot */
    size_t class, taken, slots;
    struct secret *free;
    struct secret handles[];            /* handle i owns slot i */
};

struct pool {
    pthread_mutex_t lock;               /* guards its regions */
    struct region *open[CLASSES];       /* those with a free slot; the others hang on their secrets */
} __attribute__((aligned(64)));

static struct pool pools[POOLS];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_uint threads, unlocked_regions;
static _Thread_local struct pool *own;

/* At the start; and in a child, whose lists point at pages it does not have, and where a lock may have been held by a
 * thread it does not have. */
static void pools_init(void)
{
    memset(pools, 0, sizeof(pools));
    for (size_t i = 0; i < POOLS; i++)
        pthread_mutex_init(&pools[i].lock, NULL);
}

static void begin(void)
{
    pools_init();
    ASSERT(pthread_atfork(NULL, NULL, pools_init) == 0);
}

static struct pool *own_pool(void)
{
    if (!own) {
        pthread_once(&once, begin);
        own = &pools[atomic_fetch_add(&threads, 1) % POOLS];
    }
    return own;
}

/* Maps REGION_LEN bytes over `at`, the best way that works. */
static bool map_pages(uint8_t *at)
{
    int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    void *p = MAP_FAILED;

    if (fd >= 0) {
        if (ftruncate(fd, REGION_LEN) == 0)
            p = mmap(at, REGION_LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
        close(fd);
    }
    if (p != MAP_FAILED) {
        ASSERT(madvise(at, REGION_LEN, MADV_DONTFORK) == 0);
        return true;
    }
    p = mmap(at, REGION_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (p == MAP_FAILED)
        return false;
    if (mlock(at, REGION_LEN) != 0 && atomic_fetch_add(&unlocked_regions, 1) == 0)
        LOG_WARN("secrets are kept in memory that is not locked: raise RLIMIT_MEMLOCK", LOG_I("errno", errno));
    ASSERT(madvise(at, REGION_LEN, MADV_DONTDUMP) == 0 && madvise(at, REGION_LEN, MADV_DONTFORK) == 0);
    return true;
}

static struct region *region_new(struct pool *pool, size_t class)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = REGION_LEN / class_len[class];
    struct region *r = calloc(1, sizeof(*r) + n * sizeof(r->handles[0]));
    uint8_t *all;

    if (!r)
        return NULL;
    all = mmap(NULL, REGION_LEN + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) {
        free(r);
        return NULL;
    }
    if (!map_pages(all + page)) {
        munmap(all, REGION_LEN + 2 * page);
        free(r);
        return NULL;
    }
    r->pool = pool;
    r->base = all + page;
    r->class = class;
    r->slots = n;
    for (size_t i = n; i > 0; i--) {
        r->handles[i - 1].region = r;
        r->handles[i - 1].next_free = r->free;
        r->free = &r->handles[i - 1];
    }
    poison(r->base, REGION_LEN);
    return r;
}

static void region_free(struct region *r)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    ASSERT(r->taken == 0);
    unpoison(r->base, REGION_LEN);
    munmap(r->base - page, REGION_LEN + 2 * page);
    free(r);
}

static void region_unlink(struct region *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        r->pool->open[r->class] = r->next;
    if (r->next)
        r->next->prev = r->prev;
    r->next = r->prev = NULL;
}

static void region_link(struct region *r)
{
    r->prev = NULL;
    r->next = r->pool->open[r->class];
    if (r->next)
        r->next->prev = r;
    r->pool->open[r->class] = r;
}

static uint8_t *slot_of(const struct secret *s)
{
    const struct region *r = s->region;

    return r->base + (size_t)(s - r->handles) * class_len[r->class];
}

/* A free slot of the smallest class that holds n bytes. The pool's lock is held. */
static struct secret *slot_take(struct pool *pool, size_t n)
{
    size_t class = 0;
    struct region *r;
    struct secret *s;

    while (class_len[class] < n)
        class++;
    r = pool->open[class];
    if (!r) {
        r = region_new(pool, class);
        if (!r)
            return NULL;
        region_link(r);
    }
    s = r->free;
    ASSERT(s && s->magic == 0);
    r->free = s->next_free;
    r->taken++;
    if (!r->free)
        region_unlink(r);
    return s;
}

/* Its bytes are zero, or what a slot's last owner wiped. */
static struct secret *secret_new(size_t n)
{
    struct pool *pool = own_pool();
    struct secret *s;

    if (n > SECRET_MAX)
        return NULL;
    pthread_mutex_lock(&pool->lock);
    s = slot_take(pool, n);
    if (s) {
        s->magic = MAGIC_SECRET;
        s->len = (uint32_t)n;
        s->next_free = NULL;
        unpoison(slot_of(s), n);
    }
    pthread_mutex_unlock(&pool->lock);
    return s;
}

struct secret *secret_copy(const void *bytes, size_t n)
{
    struct secret *s = secret_new(n);

    if (s && n > 0)
        memcpy(slot_of(s), bytes, n);
    return s;
}

struct secret *secret_fill(size_t n, bool (*fill)(uint8_t *to, size_t n, void *arg), void *arg)
{
    struct secret *s = secret_new(n);

    if (s && !fill(slot_of(s), n, arg)) {
        secret_release(s);
        s = NULL;
    }
    return s;
}

struct secret *secret_take(void *bytes, size_t n)
{
    struct secret *s = secret_copy(bytes, n);

    bytes_wipe(bytes, n);       /* also when nothing was taken: the caller is done with it */
    return s;
}

void secret_release(struct secret *s)
{
    struct region *r;
    struct pool *pool;

    if (!s)
        return;
    MAGIC_CHECK(s, MAGIC_SECRET);
    r = s->region;
    pool = r->pool;
    bytes_wipe(slot_of(s), s->len);
    pthread_mutex_lock(&pool->lock);
    poison(slot_of(s), class_len[r->class]);
    s->magic = 0;
    s->len = 0;
    if (!r->free)
        region_link(r);
    s->next_free = r->free;
    r->free = s;
    r->taken--;
    /* One empty region per class is kept, so that a secret that comes and goes does not map and unmap. */
    if (r->taken == 0 && (r->next || r->prev)) {
        region_unlink(r);
        region_free(r);
    }
    pthread_mutex_unlock(&pool->lock);
}

size_t secret_len(const struct secret *s)
{
    MAGIC_CHECK(s, MAGIC_SECRET);
    return s->len;
}

void secret_use(const struct secret *s, void (*fn)(const uint8_t *bytes, size_t n, void *arg), void *arg)
{
    MAGIC_CHECK(s, MAGIC_SECRET);
    fn(slot_of(s), s->len, arg);
}

void secret_harden_process(void)
{
    struct rlimit none = { 0, 0 };

    if (setrlimit(RLIMIT_CORE, &none) != 0)
        LOG_WARN("core dumps could not be switched off", LOG_I("errno", errno));
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        LOG_WARN("the process can be traced by its user", LOG_I("errno", errno));
}
