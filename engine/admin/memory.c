/* memory.c -- jemalloc through mallctl(3) */
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "admin/memory.h"

#ifdef SLUICE_JEMALLOC
#include <jemalloc/jemalloc.h>

/* Read by jemalloc when the process starts; the variable MALLOC_CONF still overrides it.  A worker has some dozens of
 * calls under way, each of which takes the same few sizes and gives them back: as many are kept at hand, where all but
 * 20 of each of the larger sizes would go to the arena and back in every turn.  What is kept for nothing is looked for
 * after each megabyte of allocations; by itself jemalloc does so after 64 KB, which are two calls. */
const char *malloc_conf = "tcache_nslots_small_min:100,tcache_gc_incr_bytes:1048576";
#endif

void memory_worker_enter(void)
{
#ifdef SLUICE_JEMALLOC
    unsigned arena;
    size_t len = sizeof(arena);

    if (mallctl("arenas.create", &arena, &len, NULL, 0) != 0 ||
        mallctl("thread.arena", NULL, NULL, &arena, sizeof(arena)) != 0)
        LOG_WARN("a worker shares the allocator's arenas with others");
#endif
}

uint64_t memory_resident(void)
{
    unsigned long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (!f)
        return 0;
    if (fscanf(f, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void gauge(struct buf *out, const char *name, const char *help, uint64_t v)
{
    buf_addf(out, "# HELP sluice_%s %s\n# TYPE sluice_%s gauge\nsluice_%s ", name, help, name, name);
    buf_add_u64(out, v);
    buf_add_c(out, '\n');
}

void memory_render(struct buf *out)
{
    gauge(out, "memory_resident_bytes", "resident memory of the process", memory_resident());
#ifdef SLUICE_JEMALLOC
    static const struct {
        const char *ctl, *name, *help;
    } rows[] = {
        { "stats.allocated", "jemalloc_allocated_bytes", "bytes the engine has allocated" },
        { "stats.active", "jemalloc_active_bytes", "bytes in pages that hold allocations" },
        { "stats.resident", "jemalloc_resident_bytes", "bytes of resident pages of the allocator" },
        { "stats.mapped", "jemalloc_mapped_bytes", "bytes in active extents" },
        { "stats.retained", "jemalloc_retained_bytes", "bytes of address space kept but not backed" },
        { "stats.metadata", "jemalloc_metadata_bytes", "bytes of the allocator's own records" },
    };
    uint64_t epoch = 1;
    size_t len = sizeof(epoch);

    mallctl("epoch", &epoch, &len, &epoch, sizeof(epoch));      /* takes a fresh snapshot of the figures */
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t value = 0, value_len = sizeof(value);

        if (mallctl(rows[i].ctl, &value, &value_len, NULL, 0) == 0)
            gauge(out, rows[i].name, rows[i].help, value);
    }
#endif
}
