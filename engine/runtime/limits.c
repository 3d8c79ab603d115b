/* limits.c -- the limiter's file: written beside, synced, renamed; read before the first call */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "loop/world.h"
#include "ratelimit/ratelimit.h"
#include "runtime/limits.h"

#define FILE_MAX ((int64_t)4 << 30)

struct limits_keeper {
    struct rl *rl;
    char *dir, *path, *beside;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ending, failed;
};

static char *path_in(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char *p = malloc(n);

    ASSERT(p != NULL);
    snprintf(p, n, "%s/%s", dir, name);
    return p;
}

static void tell_wall(struct rl *rl)
{
    rl_wall(rl, world->wall_ms() * NS_PER_MS, world->now());
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

struct out {
    int fd;
    int64_t at;
    int error;
};

static bool out_write(void *arg, const void *p, size_t n)
{
    struct out *o = arg;

    for (size_t done = 0; done < n;) {
        int64_t wrote = world->pwrite(o->fd, (const char *)p + done, n - done, o->at);

        if (wrote <= 0) {
            o->error = wrote ? (int)-wrote : EIO;
            return false;
        }
        done += (size_t)wrote;
        o->at += wrote;
    }
    return true;
}

static int save(struct limits_keeper *k)
{
    struct out o = { .fd = world->open(k->beside, O_WRONLY | O_CREAT | O_TRUNC, 0600) };
    int error = 0;

    if (o.fd < 0)
        return -o.fd;
    if (!rl_save(k->rl, out_write, &o, world->now()))
        error = o.error ? o.error : EIO;
    if (!error)
        error = -world->sync(o.fd);
    world->close(o.fd);
    if (!error)
        error = -world->rename(k->beside, k->path);
    if (!error)
        error = -world->sync_dir(k->dir);
    return error;
}

/* A disk that is full is told once, and once that it works again: limits go on in memory. */
static void save_or_say(struct limits_keeper *k)
{
    int error = save(k);

    if (error && !k->failed)
        LOG_WARN("limits cannot be saved: a restart would forget what was used", LOG_S("path", k->path),
                 LOG_S("why", strerror(error)));
    if (!error && k->failed)
        LOG_INFO("limits are saved again", LOG_S("path", k->path));
    k->failed = error != 0;
}

static void *keep(void *arg)
{
    struct limits_keeper *k = arg;
    unsigned seconds = 0;

    pthread_setname_np(pthread_self(), "limits");
    pthread_mutex_lock(&k->lock);
    while (!k->ending) {
        ns_t at = world->now() + NS_PER_S;
        const struct timespec until = { at / NS_PER_S, at % NS_PER_S };

        if (pthread_cond_timedwait(&k->changed, &k->lock, &until) != ETIMEDOUT)
            continue;
        pthread_mutex_unlock(&k->lock);
        tell_wall(k->rl);
        if (++seconds % LIMITS_SAVE_S == 0)
            save_or_say(k);
        pthread_mutex_lock(&k->lock);
    }
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static void load(struct limits_keeper *k)
{
    int fd = world->open(k->path, O_RDONLY, 0);
    int64_t size = fd < 0 ? 0 : world->size(fd), got = 0;
    char *bytes = size > 0 && size <= FILE_MAX ? malloc((size_t)size) : NULL;
    size_t keys = 0;
    enum rl_load r;

    if (bytes)
        got = world->pread(fd, bytes, (size_t)size, 0);
    if (fd >= 0)
        world->close(fd);
    if (got > 0) {
        r = rl_load(k->rl, bytes, (size_t)got, world->now(), &keys);
        if (r == RL_LOADED)
            LOG_INFO("limits loaded", LOG_I("keys", (int64_t)keys));
        else
            LOG_WARN(r == RL_LOAD_TORN ? "limits are damaged: what was whole of them is used"
                                       : "limits are of another version, and not used",
                     LOG_S("path", k->path), LOG_I("keys", (int64_t)keys));
    } else if (size != 0) {
        LOG_WARN("limits could not be read, and are not used", LOG_S("path", k->path));
    }
    free(bytes);
}

enum err limits_keep(struct rl *rl, const char *data, struct limits_keeper **ret, struct errinfo *info)
{
    struct limits_keeper *k = calloc(1, sizeof(*k));
    pthread_condattr_t attr;

    ASSERT(k != NULL);
    k->rl = rl;
    k->dir = path_in(data, ".");
    k->path = path_in(data, "limits");
    k->beside = path_in(data, "limits.new");
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->changed, &attr);
    pthread_condattr_destroy(&attr);
    tell_wall(rl);
    load(k);
    *ret = k;
    if (pthread_create(&k->thread, NULL, keep, k) == 0)
        return OK;
    k->ending = true;
    return err_set(info, E_IO, "cannot start the thread that keeps the limits' state");
}

void limits_kept(struct limits_keeper *k)
{
    bool started;

    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    started = !k->ending;
    k->ending = true;
    pthread_cond_signal(&k->changed);
    pthread_mutex_unlock(&k->lock);
    if (started) {
        pthread_join(k->thread, NULL);
        save_or_say(k);
    }
    pthread_mutex_destroy(&k->lock);
    pthread_cond_destroy(&k->changed);
    free(k->dir);
    free(k->path);
    free(k->beside);
    free(k);
}
