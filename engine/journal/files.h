/*
 * files.h -- reading segments: a window over a file, a walk from record to record, what is in a directory
 *
 * Recovery, scanning and verifying all read through here and differ only in what they make of it.  Nothing read is
 * trusted: a walker hands out a frame only after checksum, numbers and chain have been checked.
 */
#ifndef JOURNAL_FILES_H
#define JOURNAL_FILES_H

#include "journal/format.h"

enum { JOURNAL_PATH_MAX = 1024, JOURNAL_DIR_MAX = 900 };

/* snprintf into a path; what does not fit is cut, which the limit on the directory's length rules out (asserted). */
void path_set(char path[JOURNAL_PATH_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- a segment file -------------------------------------------------------------------------------------------- */

struct seg_file {
    char path[JOURNAL_PATH_MAX];
    int fd;
    int64_t size;
    int error;                  /* errno of a read that failed */
    uint8_t *window;
    size_t cap, len;
    int64_t base;
};

/* 0 or -errno. flags: O_RDONLY or O_RDWR. */
int seg_file_open(struct seg_file *f, const char *path, int flags);
void seg_file_close(struct seg_file *f);
/* n bytes at off, valid until the next call; NULL past the end, or when reading failed (f->error). */
const uint8_t *seg_at(struct seg_file *f, int64_t off, size_t n);
/* Reads anew from now on: the file may have been written to. */
void seg_forget(struct seg_file *f);
/* Offset of the first (last) byte that is not zero, at or behind `from`; -1 if there is none. */
int64_t seg_nonzero_first(struct seg_file *f, int64_t from);
int64_t seg_nonzero_last(struct seg_file *f, int64_t from);
/* Decodes the header and compares the length of the file. NULL or what is wrong, *ret_at where. */
const char *seg_header_read(struct seg_file *f, struct seg_header *ret, int64_t *ret_at);

/* ---- walking --------------------------------------------------------------------------------------------------- */

enum walk { WALK_RECORD, WALK_END, WALK_BAD };

struct walker {
    struct seg_file *f;
    unsigned lane;
    size_t payload_max;
    int64_t off;                /* of the next record */
    uint64_t seq;               /* its number */
    uint32_t behind;            /* of the record before */
    bool any, rolled;           /* has there been a record; was the last one ROLL */
    enum journal_type last;
    uint8_t link[HASH_LEN];
    const char *reason;         /* after WALK_BAD */
};

void walker_begin(struct walker *w, struct seg_file *f, const struct seg_header *h);
/* WALK_END: what stands here is zero (what stands behind has not been looked at). WALK_BAD: no valid record of this
 * chain. */
enum walk walker_next(struct walker *w, struct frame *ret);
/*
 * Is there, behind w->off, a record proving that record w->seq was durable once?  Then what is broken here was not
 * torn by a crash.  *ret_off, *ret_seq: the proof.
 */
bool walker_was_durable(struct walker *w, int64_t *ret_off, uint64_t *ret_seq);

/* ---- directories ----------------------------------------------------------------------------------------------- */

enum seg_name { NAME_SEGMENT, NAME_NEXT, NAME_TORN, NAME_ODD };

struct seg_entry {
    enum seg_name kind;
    uint64_t first;             /* NAME_SEGMENT */
    char *name;
};

/* What is in a lane's directory, by name, so segments by number. */
struct seg_list {
    struct seg_entry *v;
    size_t n, cap;
};

int seg_list_read(struct seg_list *l, const char *path);        /* 0 or -errno; -ENOENT: no such lane */
void seg_list_release(struct seg_list *l);
/* Leaves only the segments in the list. */
void seg_list_segments(struct seg_list *l);

/* Calls fn for each lane-<n> directory; odd (may be NULL) for each name that is nobody's. 0 or -errno. */
int lanes_list(const char *dir, void (*fn)(unsigned lane, void *arg), void (*odd)(const char *name, void *arg),
               void *arg);

#endif
