/*
 * memworld_internal.h -- what memworld.c (files, ring, clock) and memworld_crash.c (events, what a crash leaves) share
 */
#ifndef TESTS_MEMWORLD_INTERNAL_H
#define TESTS_MEMWORLD_INTERNAL_H

#include "memworld.h"

enum { PATH_LEN = 512 };

struct file {
    char path[PATH_LEN];        /* empty: no name (any more) */
    bool dir;
    char *p;
    size_t len, cap;
    int locked_by;              /* fd, or 0 */
    uint64_t id;                /* 0: slot not in use */
};

static inline void *mem(void *p)
{
    ASSERT(p);
    return p;
}

static inline uint64_t step(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* ---- memworld.c: NULL if there is no such file ------------------------------------------------------------------ */

struct file *memfile_by_path(const char *path);
struct file *memfile_by_id(uint64_t id);
struct file *memfile_create(const char *path, bool dir, uint64_t id);
void memfile_drop(struct file *f);
void memfile_grow(struct file *f, size_t len);
void memfile_put(struct file *f, const char *p, size_t n, int64_t off);
void memfile_rename(struct file *f, const char *to);
void memfiles_clear(void);

/* ---- memworld_crash.c ------------------------------------------------------------------------------------------- */

enum event_kind { EV_CREATE, EV_WRITE, EV_TRUNCATE, EV_SYNC, EV_RENAME, EV_UNLINK, EV_SYNC_DIR };

/* Puts it on record. EV_SYNC with a length: of these bytes only. */
void memevent(enum event_kind kind, const struct file *f, int64_t off, const void *p, size_t n, const char *to);
/* There are none, and none before them. */
void memevents_reset(void);
/* From here on nothing is put on record, until memworld_reset() or memworld_rebase(). */
void memevents_stop(void);

#endif
