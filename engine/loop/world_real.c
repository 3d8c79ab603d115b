/*
 * world_real.c -- the world as it is: io_uring, the system's clocks, its files
 *
 * One ring per loop: SINGLE_ISSUER and DEFER_TASKRUN (completions run only when the loop asks), created disabled so
 * that main can create all rings and report what is wrong, and enabled by the thread that will own it.  Receives are
 * multishot into one group of provided buffers per ring; a buffer goes back as soon as done() has looked at it.
 *
 * user_data of an entry is the address of its struct op; 0 marks entries nobody waits for; 1 is the wake-up eventfd.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "loop/world.h"

enum {
    BUFFERS = 1024,             /* a power of two */
    BUFFER_SIZE = 4096,
    GROUP = 1,
    TAG_NOBODY = 0,
    TAG_WAKE = 1,
    REAP_MAX = 512,
};

struct ring {
    struct io_uring uring;
    struct io_uring_buf_ring *buffers;
    char *memory;
    int wake_fd;
    uint64_t wake_count;
    bool enabled, wake_armed;
};

/* ---- ring -------------------------------------------------------------------------------------------------------- */

static enum err explain_setup(int error, struct errinfo *info)
{
    switch (error) {
    case EPERM:
    case EACCES:
        return err_set(info, E_IO,
                       "io_uring is not permitted here: io_uring_setup says %s. Containers block it by default (allow "
                       "io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile), and the sysctl "
                       "kernel.io_uring_disabled must be 0",
                       strerror(error));
    case ENOSYS:
        return err_set(info, E_IO, "this kernel has no io_uring; sluice needs Linux 6.1 or later");
    case EINVAL:
        return err_set(
            info, E_IO,
            "this kernel's io_uring is too old (no SINGLE_ISSUER or DEFER_TASKRUN); sluice needs Linux 6.1 or later");
    case ENOMEM:
        return err_set(info, E_IO,
                       "io_uring could not get its memory: raise the limit of locked memory (ulimit -l, LimitMEMLOCK)");
    case EMFILE:
    case ENFILE:
        return err_set(info, E_IO,
                       "io_uring could not get a file descriptor: raise the limit of open files (ulimit -n)");
    default:
        return err_set(info, E_IO, "io_uring could not be set up: %s", strerror(error));
    }
}

static int buffers_setup(struct ring *r)
{
    struct io_uring_buf_reg reg = { .ring_entries = BUFFERS, .bgid = GROUP };
    size_t ring_size = BUFFERS * sizeof(struct io_uring_buf);
    int rc;

    r->buffers = mmap(NULL, ring_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    r->memory = mmap(NULL, (size_t)BUFFERS * BUFFER_SIZE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r->buffers == MAP_FAILED || r->memory == MAP_FAILED)
        return ENOMEM;
    reg.ring_addr = (uint64_t)(uintptr_t)r->buffers;
    rc = io_uring_register_buf_ring(&r->uring, &reg, 0);
    if (rc)
        return -rc;
    io_uring_buf_ring_init(r->buffers);
    for (int i = 0; i < BUFFERS; i++)
        io_uring_buf_ring_add(r->buffers, r->memory + (size_t)i * BUFFER_SIZE, BUFFER_SIZE, (unsigned short)i,
                              io_uring_buf_ring_mask(BUFFERS), i);
    io_uring_buf_ring_advance(r->buffers, BUFFERS);
    return 0;
}

static enum err real_ring_open(unsigned entries, struct ring **ret, struct errinfo *info)
{
    struct io_uring_params params = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                               IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED |
                                               IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
                                      .cq_entries = entries * 8 };
    struct ring *r = calloc(1, sizeof(*r));
    int rc;

    if (!r)
        return err_set(info, E_IO, "no memory for a ring");
    rc = io_uring_queue_init_params(entries, &r->uring, &params);
    if (rc) {
        free(r);
        return explain_setup(-rc, info);
    }
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = r->wake_fd < 0 ? errno : buffers_setup(r);
    if (rc) {
        io_uring_queue_exit(&r->uring);
        if (r->wake_fd >= 0)
            close(r->wake_fd);
        free(r);
        return explain_setup(rc, info);
    }
    *ret = r;
    return OK;
}

static void real_ring_close(struct ring *r)
{
    io_uring_queue_exit(&r->uring);
    munmap(r->buffers, BUFFERS * sizeof(struct io_uring_buf));
    munmap(r->memory, (size_t)BUFFERS * BUFFER_SIZE);
    close(r->wake_fd);
    free(r);
}

/* A free entry; when the queue is full what stands in it is submitted first. */
static struct io_uring_sqe *entry(struct ring *r)
{
    struct io_uring_sqe *sqe;

    while (!(sqe = io_uring_get_sqe(&r->uring))) {
        int rc = io_uring_submit(&r->uring);

        ASSERT(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
    }
    return sqe;
}

static void real_ring_submit(struct ring *r, struct op *op)
{
    struct io_uring_sqe *sqe = entry(r);
    char *from = op->buf ? (char *)op->buf + op->progress : NULL;
    size_t left = op->len - op->progress;
    unsigned n = left > 0x40000000 ? 0x40000000 : (unsigned)left;

    switch (op->kind) {
    case OP_ACCEPT:
        io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        break;
    case OP_RECV:
        io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = GROUP;
        break;
    case OP_SEND:
        io_uring_prep_send(sqe, op->fd, from, n, MSG_NOSIGNAL | MSG_WAITALL);
        break;
    case OP_POLL:
        io_uring_prep_poll_add(sqe, op->fd, op->events);
        break;
    case OP_READ:
        io_uring_prep_read(sqe, op->fd, from, n, (uint64_t)op->off);
        break;
    case OP_WRITE:                      /* fdatasync behind it would be a second trip to the kernel's helper */
        io_uring_prep_write(sqe, op->fd, from, n, (uint64_t)op->off + op->progress);
        sqe->rw_flags = RWF_DSYNC;
        break;
    case OP_CLOSE:
        io_uring_prep_close(sqe, op->fd);
        break;
    default:
        UNREACHABLE();
    }
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)op);
}

static void real_ring_cancel(struct ring *r, struct op *op)
{
    struct io_uring_sqe *sqe = entry(r);

    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
    io_uring_sqe_set_data64(sqe, TAG_NOBODY);
}

static void wake_arm(struct ring *r)
{
    struct io_uring_sqe *sqe = entry(r);

    io_uring_prep_read(sqe, r->wake_fd, &r->wake_count, sizeof(r->wake_count), 0);
    io_uring_sqe_set_data64(sqe, TAG_WAKE);
    r->wake_armed = true;
}

static void reap(struct ring *r, void (*complete)(struct op *, int, bool, const char *, unsigned))
{
    UNSET struct io_uring_cqe *cqes[REAP_MAX];
    unsigned n;

    do {
        n = io_uring_peek_batch_cqe(&r->uring, cqes, REAP_MAX);
        for (unsigned i = 0; i < n; i++) {
            const struct io_uring_cqe *c = cqes[i];
            const char *data = NULL;
            unsigned token = 0;

            if (c->user_data == TAG_NOBODY)
                continue;
            if (c->user_data == TAG_WAKE) {
                r->wake_armed = false;
                continue;
            }
            if (c->flags & IORING_CQE_F_BUFFER) {
                token = c->flags >> IORING_CQE_BUFFER_SHIFT;
                data = r->memory + (size_t)token * BUFFER_SIZE;
            }
            complete((struct op *)(uintptr_t)c->user_data, c->res, (c->flags & IORING_CQE_F_MORE) != 0, data, token);
        }
        io_uring_cq_advance(&r->uring, n);
    } while (n == REAP_MAX);        /* what the kernel has kept back for want of room comes with the next wait */
}

static ns_t real_now(void);

static void real_ring_wait(struct ring *r, ns_t until, void (*complete)(struct op *, int, bool, const char *, unsigned))
{
    struct io_uring_cqe *cqe;
    int rc;

    if (!r->enabled) {
        /* Debian 12's liburing declares io_uring_enable_rings() but does not export it */
        rc = (int)syscall(__NR_io_uring_register, r->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
        ASSERT(rc == 0);
        r->enabled = true;
    }
    if (!r->wake_armed)
        wake_arm(r);
    if (until == 0) {
        rc = io_uring_submit_and_get_events(&r->uring);
    } else if (until == NS_NEVER) {
        rc = io_uring_submit_and_wait(&r->uring, 1);
    } else {
        ns_t left = until - real_now();
        struct __kernel_timespec ts = { .tv_sec = left > 0 ? left / NS_PER_S : 0,
                                        .tv_nsec = left > 0 ? left % NS_PER_S : 0 };

        rc = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, &ts, NULL);
    }
    ASSERT(rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
    reap(r, complete);
}

/* Work that the kernel left for us to run, completions, or such as it has kept back. */
static bool real_ring_ready(const struct ring *r)
{
    unsigned flags = IO_URING_READ_ONCE(*r->uring.sq.kflags);

    return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) || io_uring_cq_ready(&r->uring) > 0;
}

static void real_ring_recycle(struct ring *r, unsigned token)
{
    io_uring_buf_ring_add(r->buffers, r->memory + (size_t)token * BUFFER_SIZE, BUFFER_SIZE, (unsigned short)token,
                          io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(r->buffers, 1);
}

static void real_ring_wake(struct ring *r)
{
    uint64_t one = 1;
    ssize_t rc = write(r->wake_fd, &one, sizeof(one));

    ASSERT(rc == sizeof(one) || errno == EAGAIN);      /* EAGAIN: the counter is full, so a wake-up is pending anyway */
}

/* ---- clock and randomness ---------------------------------------------------------------------------------------- */

static ns_t real_now(void)
{
    UNSET struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (ns_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static wall_ms_t real_wall_ms(void)
{
    UNSET struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (wall_ms_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void real_random(void *p, size_t n)
{
    char *at = p;

    while (n > 0) {
        ssize_t got = getrandom(at, n > 256 ? 256 : n, 0);

        if (got < 0 && errno == EINTR)
            continue;
        ASSERT(got > 0);
        at += got;
        n -= (size_t)got;
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

#define OR_ERRNO(expr) ((expr) < 0 ? -errno : 0)

static int real_open(const char *path, int flags, int mode)
{
    int fd = open(path, flags | O_CLOEXEC, mode);

    return fd < 0 ? -errno : fd;
}

static int real_close(int fd)                               { return OR_ERRNO(close(fd)); }
static int real_truncate(int fd, int64_t len)               { return OR_ERRNO(ftruncate(fd, len)); }
static int real_sync(int fd)                                { return OR_ERRNO(fsync(fd)); }
static int real_rename(const char *from, const char *to)    { return OR_ERRNO(rename(from, to)); }
static int real_unlink(const char *path)                    { return OR_ERRNO(unlink(path)); }
static int real_lock(int fd)                                { return OR_ERRNO(flock(fd, LOCK_EX | LOCK_NB)); }
static int real_allocate(int fd, int64_t off, int64_t len)  { return -posix_fallocate(fd, off, len); }

/* Only where the kernel says that blocks of this size will do: disks of 4096 have it otherwise. */
static int real_direct(int fd)
{
    UNSET struct statx st;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) < 0)
        return -errno;
    if (!(st.stx_mask & STATX_DIOALIGN) || st.stx_dio_mem_align == 0 || st.stx_dio_mem_align > WORLD_ALIGN ||
        st.stx_dio_offset_align > WORLD_BLOCK)
        return -ENOTSUP;
    return OR_ERRNO(fcntl(fd, F_SETFL, flags | O_DIRECT));
}

static int64_t real_size(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? -errno : (int64_t)st.st_size;
}

static int64_t real_pread(int fd, void *p, size_t n, int64_t off)
{
    size_t got = 0;

    while (got < n) {
        ssize_t rc = pread(fd, (char *)p + got, n - got, off + (int64_t)got);

        if (rc < 0 && errno == EINTR)
            continue;
        if (rc < 0)
            return -errno;
        if (rc == 0)
            break;
        got += (size_t)rc;
    }
    return (int64_t)got;
}

static int64_t real_pwrite(int fd, const void *p, size_t n, int64_t off)
{
    size_t put = 0;

    while (put < n) {
        ssize_t rc = pwrite(fd, (const char *)p + put, n - put, off + (int64_t)put);

        if (rc < 0 && errno == EINTR)
            continue;
        if (rc <= 0)
            return rc < 0 ? -errno : -EIO;
        put += (size_t)rc;
    }
    return (int64_t)put;
}

static int real_mkdir(const char *path, int mode)
{
    return mkdir(path, (mode_t)mode) == 0 || errno == EEXIST ? 0 : -errno;
}

static int real_sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

    if (fd < 0)
        return -errno;
    rc = OR_ERRNO(fsync(fd));
    close(fd);
    return rc;
}

static int not_dots(const struct dirent *d)
{
    return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int real_list(const char *path, void (*fn)(const char *name, void *arg), void *arg)
{
    struct dirent **names;
    int n = scandir(path, &names, not_dots, by_bytes);

    if (n < 0)
        return -errno;
    for (int i = 0; i < n; i++) {
        fn(names[i]->d_name, arg);
        free(names[i]);
    }
    free(names);
    return 0;
}

const struct world world_real = {
    .name = "real",
    .ring_open = real_ring_open,
    .ring_close = real_ring_close,
    .ring_submit = real_ring_submit,
    .ring_cancel = real_ring_cancel,
    .ring_wait = real_ring_wait,
    .ring_ready = real_ring_ready,
    .ring_recycle = real_ring_recycle,
    .ring_wake = real_ring_wake,
    .threads = true,
    .now = real_now,
    .wall_ms = real_wall_ms,
    .random = real_random,
    .open = real_open,
    .close = real_close,
    .size = real_size,
    .allocate = real_allocate,
    .truncate = real_truncate,
    .direct = real_direct,
    .sync = real_sync,
    .pread = real_pread,
    .pwrite = real_pwrite,
    .rename = real_rename,
    .unlink = real_unlink,
    .mkdir = real_mkdir,
    .sync_dir = real_sync_dir,
    .list = real_list,
    .lock = real_lock,
};
