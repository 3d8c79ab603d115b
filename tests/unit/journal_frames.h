/*
 * journal_frames.h -- for tests that walk a segment's bytes by themselves
 */
#ifndef TESTS_JOURNAL_FRAMES_H
#define TESTS_JOURNAL_FRAMES_H

#include "journal/format.h"

/* Where the record behind one that ends at `off` would stand: there, or where the next batch begins. */
static inline size_t frame_after(const uint8_t *p, size_t off)
{
    size_t next = (size_t)block_up((int64_t)off);

    return bytes_zero(p + off, next - off) ? next : off;
}

#endif
