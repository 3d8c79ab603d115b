/*
 * simvfs.c -- SQLite on the world's files (simworld.h)
 *
 * The one SQLite of a simulated process opens its database, its log and its temporary files through loop/world.h, so
 * that a crash tears them like the journal.  One process, one thread at a time: locks are not needed; the shared memory
 * of the write-ahead log is heap memory that a crash forgets.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/crypto.h"
#include "simworld.h"

enum { SHM_REGIONS = 16 };

struct simfile {
    sqlite3_file base;
    int fd;
    char path[256];
    bool fresh;  /* its name is not durable yet */
    bool doomed; /* SQLITE_OPEN_DELETEONCLOSE */
    void *shm[SHM_REGIONS];
};

static struct simfile *simfile(sqlite3_file *f)
{
    return CONTAINER_OF(f, struct simfile, base);
}

static int sync_parent(const char *path)
{
    char dir[256];
    char *slash;

    snprintf(dir, sizeof(dir), "%s", path);
    slash = strrchr(dir, '/');
    ASSERT(slash && slash != dir);
    *slash = '\0';
    return world->sync_dir(dir);
}

static int x_close(sqlite3_file *f)
{
    struct simfile *s = simfile(f);

    world->close(s->fd);
    if (s->doomed)
        world->unlink(s->path);
    for (int i = 0; i < SHM_REGIONS; i++)
        free(s->shm[i]);
    return SQLITE_OK;
}

static int x_read(sqlite3_file *f, void *p, int n, sqlite3_int64 off)
{
    int64_t got = world->pread(simfile(f)->fd, p, (size_t)n, off);

    if (got < 0)
        return SQLITE_IOERR_READ;
    if (got < n) {
        memset((char *)p + got, 0, (size_t)(n - got));
        return SQLITE_IOERR_SHORT_READ;
    }
    return SQLITE_OK;
}

static int x_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 off)
{
    int64_t rc = world->pwrite(simfile(f)->fd, p, (size_t)n, off);

    if (rc == -ENOSPC || rc == -EDQUOT)
        return SQLITE_FULL;
    return rc == n ? SQLITE_OK : SQLITE_IOERR_WRITE;
}

static int x_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    return world->truncate(simfile(f)->fd, n) < 0 ? SQLITE_IOERR_TRUNCATE : SQLITE_OK;
}

static int x_sync(sqlite3_file *f, int flags)
{
    struct simfile *s = simfile(f);

    if (world->sync(s->fd) < 0)
        return SQLITE_IOERR_FSYNC;
    if (s->fresh && sync_parent(s->path) < 0)
        return SQLITE_IOERR_DIR_FSYNC;
    s->fresh = false;
    return SQLITE_OK;
}

static int x_size(sqlite3_file *f, sqlite3_int64 *ret)
{
    *ret = world->size(simfile(f)->fd);
    return SQLITE_OK;
}

static int x_lock(sqlite3_file *f, int kind)
{
    return SQLITE_OK;
}
static int x_sector(sqlite3_file *f)
{
    return 512;
}
static int x_traits(sqlite3_file *f)
{
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}
static int x_control(sqlite3_file *f, int op, void *arg)
{
    return SQLITE_NOTFOUND;
}

static int x_reserved(sqlite3_file *f, int *ret)
{
    *ret = 0;
    return SQLITE_OK;
}

static int x_shm_map(sqlite3_file *f, int region, int size, int extend, void volatile **ret)
{
    struct simfile *s = simfile(f);

    ASSERT(region < SHM_REGIONS);
    if (!s->shm[region] && extend)
        s->shm[region] = calloc(1, (size_t)size);
    *ret = s->shm[region];
    return SQLITE_OK;
}

static int x_shm_lock(sqlite3_file *f, int off, int n, int flags)
{
    return SQLITE_OK;
}
static void x_shm_barrier(sqlite3_file *f) {}

static int x_shm_unmap(sqlite3_file *f, int del)
{
    struct simfile *s = simfile(f);

    for (int i = 0; i < SHM_REGIONS; i++) {
        free(s->shm[i]);
        s->shm[i] = NULL;
    }
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = x_close,
    .xRead = x_read,
    .xWrite = x_write,
    .xTruncate = x_truncate,
    .xSync = x_sync,
    .xFileSize = x_size,
    .xLock = x_lock,
    .xUnlock = x_lock,
    .xCheckReservedLock = x_reserved,
    .xFileControl = x_control,
    .xSectorSize = x_sector,
    .xDeviceCharacteristics = x_traits,
    .xShmMap = x_shm_map,
    .xShmLock = x_shm_lock,
    .xShmBarrier = x_shm_barrier,
    .xShmUnmap = x_shm_unmap,
};

/* ---- names ------------------------------------------------------------------------------------------------------- */

static bool exists(const char *path)
{
    int fd = world->open(path, O_RDONLY, 0);

    if (fd >= 0)
        world->close(fd);
    return fd >= 0;
}

static int x_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
    static unsigned temporary;
    struct simfile *s = simfile(f);
    bool was;

    *s = (struct simfile){ .base.pMethods = NULL };
    if (name)
        snprintf(s->path, sizeof(s->path), "%s", name);
    else
        snprintf(s->path, sizeof(s->path), "/dev/temporary-%u", ++temporary);
    was = exists(s->path);
    s->fd = world->open(s->path, flags & SQLITE_OPEN_CREATE ? O_RDWR | O_CREAT : O_RDWR, 0600);
    if (s->fd < 0)
        return SQLITE_CANTOPEN;
    s->fresh = !was;
    s->doomed = flags & SQLITE_OPEN_DELETEONCLOSE;
    s->base.pMethods = &methods;
    if (ret_flags)
        *ret_flags = flags;
    return SQLITE_OK;
}

static int x_delete(sqlite3_vfs *v, const char *name, int sync_dir)
{
    int rc = world->unlink(name);

    if (rc == -ENOENT)
        return SQLITE_IOERR_DELETE_NOENT;
    if (rc < 0 || (sync_dir && sync_parent(name) < 0))
        return SQLITE_IOERR_DELETE;
    return SQLITE_OK;
}

static int x_access(sqlite3_vfs *v, const char *name, int flags, int *ret)
{
    *ret = exists(name);
    return SQLITE_OK;
}

static int x_full(sqlite3_vfs *v, const char *name, int n, char *out)
{
    snprintf(out, (size_t)n, "%s", name);
    return SQLITE_OK;
}

static int x_random(sqlite3_vfs *v, int n, char *out)
{
    crypto_random(out, (size_t)n);
    return n;
}

static int x_sleep(sqlite3_vfs *v, int us)
{
    return us;
}
static int x_last_error(sqlite3_vfs *v, int n, char *out)
{
    return 0;
}

static int x_time(sqlite3_vfs *v, double *ret)
{
    *ret = 2440587.5 + (double)world->wall_ms() / 86400000.0;
    return SQLITE_OK;
}

void simvfs_install(void)
{
    static sqlite3_vfs vfs = {
        .iVersion = 1,
        .szOsFile = sizeof(struct simfile),
        .mxPathname = 255,
        .zName = "simulated",
        .xOpen = x_open,
        .xDelete = x_delete,
        .xAccess = x_access,
        .xFullPathname = x_full,
        .xRandomness = x_random,
        .xSleep = x_sleep,
        .xCurrentTime = x_time,
        .xGetLastError = x_last_error,
    };

    ASSERT(sqlite3_initialize() == SQLITE_OK && sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
}

void simvfs_begin(void)
{
    sqlite3_randomness(0, NULL);
}
