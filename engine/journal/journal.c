/*
 * journal.c -- the journal of a process: its directory, its lock, its key, its manifest
 *
 * The lock is held for the life of the process, so that no second engine writes the same chain.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/log.h"
#include "journal/internal.h"

STATIC_ASSERT((int)JOURNAL_SEGMENT_MIN >= 4 * (int)HEADER_BYTES, "a segment holds more than its header");

static enum err options_take(struct journal *j, const struct journal_options *opt, struct errinfo *info)
{
    struct journal_options *o = &j->opt;

    *o = *opt;
    o->build = NULL;
    if (!opt->dir || !*opt->dir || strlen(opt->dir) > JOURNAL_DIR_MAX)
        return err_set(info, E_CONFIG, "journal: a directory of 1 to %d characters is needed", JOURNAL_DIR_MAX);
    if (opt->key_path && (!*opt->key_path || strlen(opt->key_path) > JOURNAL_DIR_MAX))
        return err_set(info, E_CONFIG, "journal: the signing key needs a path of 1 to %d characters", JOURNAL_DIR_MAX);
    if (!o->segment_bytes)
        o->segment_bytes = JOURNAL_SEGMENT_DEFAULT;
    if (o->segment_bytes < JOURNAL_SEGMENT_MIN || o->segment_bytes % HEADER_BYTES ||
        o->segment_bytes > (int64_t)16 << 30)
        return err_set(info, E_CONFIG, "journal: a segment has from %d bytes to 16 GB, in multiples of %d",
                       JOURNAL_SEGMENT_MIN, HEADER_BYTES);
    if (!o->checkpoint_every)
        o->checkpoint_every = JOURNAL_CHECKPOINT_DEFAULT;
    if (o->checkpoint_every > JOURNAL_CHECKPOINT_MAX)
        return err_set(info, E_CONFIG, "journal: a checkpoint stands behind %d records at most",
                       JOURNAL_CHECKPOINT_MAX);
    if (!o->commit_timeout)
        o->commit_timeout = 2 * NS_PER_S;
    if (!o->space_retry)
        o->space_retry = NS_PER_S;
    o->build = strdup(opt->build ? opt->build : SLUICE_VERSION);
    ASSERT(o->build &&
           strspn(o->build, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+-_ ") == strlen(o->build));
    path_set(j->dir, "%s", opt->dir);
    o->dir = j->dir;
    return OK;
}

/* Says who holds the lock, as far as the file tells. */
static enum err lock_held(const char *path, struct errinfo *info)
{
    struct buf text = BUF_INIT(64);
    struct str who = STR_NULL;
    uint64_t pid = 0;

    if (file_read(path, &text) == 0 && str_starts(buf_str(&text), STR("pid ")) && str_ends(buf_str(&text), STR("\n")))
        who = str_n(text.p + 4, text.len - 5);
    if (!str_to_u64(who, &pid))
        pid = 0;
    buf_release(&text);
    if (pid)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: held by process %llu: another engine writes this journal", path,
                       (unsigned long long)pid);
    return err_set(info, E_JOURNAL_UNWRITABLE, "%s: held by another process, which writes this journal", path);
}

static enum err lock_take(struct journal *j, struct errinfo *info)
{
    char path[JOURNAL_PATH_MAX], text[32];
    int64_t rc = world->mkdir(j->dir, 0750);

    if (rc < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: the journal's directory could not be made: %s", j->dir,
                       strerror((int)-rc));
    path_set(path, "%s/lock", j->dir);
    j->lock_fd = world->open(path, O_RDWR | O_CREAT, 0640);
    if (j->lock_fd < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: %s", path, strerror(-j->lock_fd));
    rc = world->lock(j->lock_fd);
    if (rc < 0)
        return lock_held(path, info);
    snprintf(text, sizeof(text), "pid %ld\n", (long)getpid());
    rc = world->truncate(j->lock_fd, 0);
    if (rc == 0)
        rc = world->pwrite(j->lock_fd, text, strlen(text), 0);
    if (rc < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: %s", path, strerror((int)-rc));
    return OK;
}

/* ---- the manifest ---------------------------------------------------------------------------------------------- */

struct found {
    unsigned lane;
    bool any;
};

static void lane_found(unsigned lane, void *arg)
{
    *(struct found *)arg = (struct found){ lane, true };
}

static enum err manifest_make(struct journal *j, struct errinfo *info)
{
    struct found found = { 0 };
    char path[JOURNAL_PATH_MAX];

    lanes_list(j->dir, lane_found, NULL, &found);
    if (found.any) {
        path_set(path, "%s/manifest", j->dir);
        return refuse(info, path, 0, 0, "there are lanes, but the manifest is gone");
    }
    memset(&j->manifest, 0, sizeof(j->manifest));
    crypto_random(j->manifest.id, sizeof(j->manifest.id));
    j->manifest.checkpoint_every = j->opt.checkpoint_every;
    memcpy(j->manifest.keys[j->manifest.n_keys++], j->signer.key, 32);
    return manifest_write(j->dir, &j->manifest, &j->signer, info);
}

static enum err manifest_take(struct journal *j, struct errinfo *info)
{
    struct manifest *m = &j->manifest;
    int64_t at;
    enum err e = manifest_read(j->dir, m, &at, info);

    if (e == E_NOT_FOUND)
        return manifest_make(j, info);
    if (!e && m->checkpoint_every)
        j->opt.checkpoint_every = m->checkpoint_every;
    if (e || memcmp(m->keys[m->n_keys - 1], j->signer.key, 32) == 0)
        return e;
    if (manifest_knows_key(m, j->signer.key))
        return err_set(info, E_CONFIG,
                       "journal: the signing key is an older one of this journal; the newest is needed");
    if (m->n_keys == MANIFEST_KEYS_MAX)
        return err_set(info, E_CONFIG, "journal: this journal has had %d signing keys; start a new one",
                       MANIFEST_KEYS_MAX);
    LOG_WARN("the journal goes on with another signing key", LOG_S("dir", j->dir));
    memcpy(m->keys[m->n_keys++], j->signer.key, 32);
    return manifest_write(j->dir, m, &j->signer, info);
}

void journal_sign(const struct journal *j, const struct lane_head *head, uint8_t *at)
{
    struct buf text = BUF_INIT(512);
    uint8_t signature[64];

    checkpoint_text(j->manifest.id, head->lane, head->next_seq - 1, head->last, j->signer.key, &text);
    ASSERT(!text.overflow);
    signer_sign(&j->signer, buf_str(&text), signature);
    checkpoint_put(at, head->last, j->signer.key, signature);
    buf_release(&text);
}

struct lane_head *journal_head(struct journal *j, unsigned lane)
{
    for (unsigned i = 0; i < j->n_heads; i++) {
        if (j->heads[i].lane == lane)
            return &j->heads[i];
    }
    return NULL;
}

enum err journal_manifest_update(struct journal *j, struct errinfo *info)
{
    for (unsigned i = 0; i < j->n_heads; i++) {
        const struct lane_head *h = &j->heads[i];
        struct manifest_lane *m = manifest_lane(&j->manifest, h->lane);

        if (h->failed)
            continue;
        if (!m)
            m = manifest_lane_add(&j->manifest, h->lane);
        m->closed = !h->open;
        m->seq = h->next_seq - 1;
        memcpy(m->hash, h->last, HASH_LEN);
    }
    return manifest_write(j->dir, &j->manifest, &j->signer, info);
}

/* ---- opening and closing --------------------------------------------------------------------------------------- */

static void journal_free(struct journal *j)
{
    if (j->lock_fd >= 0)
        world->close(j->lock_fd);
    signer_release(&j->signer);
    pthread_mutex_destroy(&j->mutex);
    free((char *)j->opt.build);
    j->magic = 0;
    free(j);
}

enum err journal_open(const struct journal_options *opt, struct journal **ret, struct errinfo *info)
{
    struct journal *j = calloc(1, sizeof(*j));
    char key_path[JOURNAL_PATH_MAX];
    enum err e;

    ASSERT(j);
    j->magic = JOURNAL_MAGIC;
    j->lock_fd = -1;
    pthread_mutex_init(&j->mutex, NULL);
    e = options_take(j, opt, info);
    if (!e)
        e = lock_take(j, info);
    if (!e) {
        if (opt->key_path)
            path_set(key_path, "%s", opt->key_path);
        else
            path_set(key_path, "%s/signing.key", j->dir);
        e = signer_load(&j->signer, key_path, info);
    }
    if (!e)
        e = manifest_take(j, info);
    if (!e)
        e = journal_recover(j, info);
    if (e) {
        journal_free(j);
        return e;
    }
    j->opt.key_path = NULL;             /* the caller's; not needed any more */
    *ret = j;
    return OK;
}

const struct journal_recovery *journal_recovery(const struct journal *j)
{
    MAGIC_CHECK(j, JOURNAL_MAGIC);
    return &j->recovery;
}

const uint8_t *journal_public_key(const struct journal *j)
{
    MAGIC_CHECK(j, JOURNAL_MAGIC);
    return j->signer.key;
}

void journal_close(struct journal *j)
{
    struct errinfo info;
    bool stale = false;

    if (!j)
        return;
    MAGIC_CHECK(j, JOURNAL_MAGIC);
    for (unsigned i = 0; i < j->n_heads; i++) {
        ASSERT(!j->heads[i].open || j->heads[i].failed);
        /* recovered, but no worker took it up: it ends where recovery left it */
        stale |= !j->heads[i].failed && !manifest_lane(&j->manifest, j->heads[i].lane)->closed;
    }
    if (stale && journal_manifest_update(j, &info))
        LOG_WARN("the journal could not be closed in order", LOG_S("why", info.text));
    journal_free(j);
}
