/*
 * world.h -- the seam: everything of the loop and the journal that touches the outside
 *
 * Four things touch the world: the ring (files, sockets, timers), the clock, randomness, and fetch (fetch/fetch.h has a
 * seam of its own, because libcurl opens sockets and reads clocks by itself).  Each has two implementations: world_real
 * and the simulator's (tests/sim), which runs the same engine code on virtual time, files and upstreams from one seed.
 *
 * The file functions here block: they are for start-up, recovery and for helper threads, never for the path of a call.
 */
#ifndef LOOP_WORLD_H
#define LOOP_WORLD_H

#include "loop/loop.h"

enum { WORLD_ALIGN = 4096, WORLD_BLOCK = 512 };     /* see direct() */

struct ring;            /* the implementation's */

struct world {
    const char *name;

    /* ring: one per loop */
    enum err (*ring_open)(unsigned entries, struct ring **ret, struct errinfo *info);
    void (*ring_close)(struct ring *r);
    void (*ring_submit)(struct ring *r, struct op *op);
    void (*ring_cancel)(struct ring *r, struct op *op);
    /* Submits what is pending, waits until something completed, `until` passed or ring_wake() was called, and hands
     * each completion to complete() (which only queues). until == 0: does not wait. */
    void (*ring_wait)(struct ring *r, ns_t until,
                      void (*complete)(struct op *op, int res, bool more, const char *data, unsigned token));
    /* Does anything stand ready, so that ring_wait() will not be for nothing? Without a system call. */
    bool (*ring_ready)(const struct ring *r);
    void (*ring_recycle)(struct ring *r, unsigned token);       /* gives the buffer behind `data` back */
    void (*ring_wake)(struct ring *r);                          /* any thread */
    /* Helper threads: true if fn was run elsewhere; the simulator runs it at once and answers false. */
    bool threads;

    /* clock */
    ns_t (*now)(void);
    wall_ms_t (*wall_ms)(void);
    /* randomness */
    void (*random)(void *p, size_t n);

    /* files; all answer -errno or >= 0 */
    int (*open)(const char *path, int flags, int mode);         /* O_CLOEXEC is implied */
    int (*close)(int fd);
    int64_t (*size)(int fd);
    int (*allocate)(int fd, int64_t off, int64_t len);          /* extends with zeros, blocks reserved */
    int (*truncate)(int fd, int64_t len);
    /* Lets OP_WRITE go to the device past the page cache, from memory at multiples of WORLD_ALIGN, in multiples of
     * WORLD_BLOCK; -errno: not here, it goes on as before. */
    int (*direct)(int fd);
    int (*sync)(int fd);                                        /* data and metadata; failure is final: never retried */
    int64_t (*pread)(int fd, void *p, size_t n, int64_t off);   /* short only at the end of the file */
    int64_t (*pwrite)(int fd, const void *p, size_t n, int64_t off);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*mkdir)(const char *path, int mode);                   /* existing directory: 0 */
    int (*sync_dir)(const char *path);
    /* Calls fn for each name in the directory, in byte order, "." and ".." left out. */
    int (*list)(const char *path, void (*fn)(const char *name, void *arg), void *arg);
    int (*lock)(int fd);        /* exclusive, not waiting: -EWOULDBLOCK if held by another process */
};

extern const struct world world_real;
/* world_real unless a test set it, once, before the first loop was created. */
extern const struct world *world;
void world_use(const struct world *w);

/* Sockets, real world only. Address "host:port" with an IP literal or "localhost"; port 0: any. E_CONFIG or E_IO with
 * the reason and the place in info. reuse_port: SO_REUSEPORT, so that each worker has a listener of its own. */
enum err net_listen(const char *address, bool reuse_port, int *ret_fd, struct errinfo *info);
/* "127.0.0.1:7411" of a bound or connected socket. */
void net_name(int fd, bool peer, char out[64]);
#define NET_ADDRESS_FORMS "write IP:PORT, [IPv6]:PORT or localhost:PORT"
bool net_is_address(const char *address);           /* one of these? */
bool net_is_loopback(const char *address);

#endif
