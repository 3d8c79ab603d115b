/*
 * segment.c -- making segments, cutting torn tails, appending where no loop runs
 *
 * A segment comes into being in an order that leaves no half-made one behind a crash: allocated as `next`, header
 * written, synced, renamed to its name, directory synced; only then are records written into it.  So a *.seg file
 * with a broken header was damaged, not torn.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "journal/internal.h"

void lane_path(const struct journal *j, unsigned lane, char path[JOURNAL_PATH_MAX])
{
    path_set(path, "%s/lane-%u", j->dir, lane);
}

void segment_path(const struct journal *j, unsigned lane, uint64_t first_seq, char path[JOURNAL_PATH_MAX])
{
    path_set(path, "%s/lane-%u/%016llu.seg", j->dir, lane, (unsigned long long)first_seq);
}

static void next_path(const struct journal *j, unsigned lane, char path[JOURNAL_PATH_MAX])
{
    path_set(path, "%s/lane-%u/next", j->dir, lane);
}

int next_allocate(const struct journal *j, unsigned lane, int *ret_fd)
{
    char path[JOURNAL_PATH_MAX];
    int fd, rc;

    next_path(j, lane, path);
    rc = world->unlink(path);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    fd = world->open(path, O_RDWR | O_CREAT | O_EXCL, 0640);
    if (fd < 0)
        return fd;
    rc = world->allocate(fd, 0, j->opt.segment_bytes);
    if (rc == 0)
        rc = world->sync(fd);
    if (rc < 0) {
        world->close(fd);
        world->unlink(path);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

void next_discard(const struct journal *j, unsigned lane)
{
    char path[JOURNAL_PATH_MAX];

    next_path(j, lane, path);
    world->unlink(path);        /* a leftover is replaced at the next start anyway */
}

int next_adopt(const struct journal *j, int fd, struct lane_head *head, wall_ms_t now)
{
    struct seg_header h = { .lane = head->lane, .first_seq = head->next_seq, .created = now,
                            .segment_bytes = j->opt.segment_bytes, .number = head->number + 1 };
    char from[JOURNAL_PATH_MAX], to[JOURNAL_PATH_MAX], dir[JOURNAL_PATH_MAX];
    uint8_t *bytes = malloc(HEADER_BYTES);
    int64_t put;
    int rc;

    ASSERT(bytes);
    memcpy(h.id, j->manifest.id, sizeof(h.id));
    memcpy(h.key, j->signer.key, sizeof(h.key));
    memcpy(h.link, head->link, HASH_LEN);
    header_encode(&h, bytes);
    next_path(j, head->lane, from);
    segment_path(j, head->lane, h.first_seq, to);
    lane_path(j, head->lane, dir);
    put = world->pwrite(fd, bytes, HEADER_BYTES, 0);
    free(bytes);
    rc = put < 0 ? (int)put : world->sync(fd);
    if (rc == 0)
        rc = world->rename(from, to);
    if (rc == 0)
        rc = world->sync_dir(dir);
    if (rc < 0)
        return rc;
    head->segment = true;
    head->first_seq = h.first_seq;
    head->number = h.number;
    head->segment_bytes = h.segment_bytes;
    head->off = HEADER_BYTES;
    memcpy(head->link, h.hash, HASH_LEN);
    return 0;
}

/* ---- cutting --------------------------------------------------------------------------------------------------- */

static int torn_create(const char *lane_dir, uint64_t first_seq, int64_t from, struct buf *ret_name)
{
    char path[JOURNAL_PATH_MAX], again[16] = "";

    /* an earlier recovery may have been cut short between writing its copy and zeroing: that copy stays */
    for (int k = 2; k < 1000; k++) {
        int fd;

        path_set(path, "%s/%016llu.%lld.torn%s", lane_dir, (unsigned long long)first_seq, (long long)from, again);
        fd = world->open(path, O_WRONLY | O_CREAT | O_EXCL, 0640);
        if (fd != -EEXIST) {
            buf_add_z(ret_name, strrchr(path, '/') + 1);
            return fd;
        }
        again[0] = '-';
        again[1] = (char)('0' + k / 100 % 10);
        again[2] = (char)('0' + k / 10 % 10);
        again[3] = (char)('0' + k % 10);
        again[4] = '\0';
    }
    return -EEXIST;
}

enum { CUT_PIECE = 65536 };

static int torn_copy(struct seg_file *f, int to, int64_t from, int64_t n)
{
    for (int64_t at = 0; at < n; at += CUT_PIECE) {
        size_t piece = n - at < CUT_PIECE ? (size_t)(n - at) : CUT_PIECE;
        const uint8_t *p = seg_at(f, from + at, piece);
        int64_t put = p ? world->pwrite(to, p, piece, at) : -EIO;

        if (put < 0)
            return (int)put;
    }
    return world->sync(to);
}

static int zero_range(struct seg_file *f, int64_t from, int64_t n)
{
    static const uint8_t zeros[CUT_PIECE];

    for (int64_t at = 0; at < n; at += CUT_PIECE) {
        int64_t put = world->pwrite(f->fd, zeros, n - at < CUT_PIECE ? (size_t)(n - at) : CUT_PIECE, from + at);

        if (put < 0)
            return (int)put;
    }
    seg_forget(f);
    return world->sync(f->fd);
}

int segment_cut(struct seg_file *f, const char *lane_dir, uint64_t first_seq, int64_t from, int64_t *ret_cut,
                struct buf *ret_name)
{
    int64_t last = seg_nonzero_last(f, from);
    int fd, rc;

    ASSERT(last >= from);
    *ret_cut = last + 1 - from;
    fd = torn_create(lane_dir, first_seq, from, ret_name);
    if (fd < 0)
        return fd;
    rc = torn_copy(f, fd, from, *ret_cut);
    world->close(fd);
    if (rc == 0)
        rc = world->sync_dir(lane_dir);
    return rc < 0 ? rc : zero_range(f, from, *ret_cut);
}

/* ---- appending without a loop ---------------------------------------------------------------------------------- */

static int append_to(const struct journal *j, int fd, struct lane_head *head, enum journal_type type,
                     struct str payload)
{
    size_t n = frame_bytes(payload.len);
    uint8_t *bytes = malloc(n);
    int64_t put;

    ASSERT(bytes);
    head->off = block_up(head->off);
    frame_put(bytes, type, head->lane, head->next_seq, world->wall_ms(), payload);
    if (type == JOURNAL_CHECKPOINT)
        journal_sign(j, head, frame_payload(bytes));
    frame_seal(bytes, 0, true, head->link);
    memcpy(head->last, head->link, HASH_LEN);
    put = world->pwrite(fd, bytes, n, head->off);
    free(bytes);
    if (put < 0)
        return (int)put;
    head->off += (int64_t)n;
    head->next_seq++;
    return world->sync(fd);
}

static int append_in_segment(const struct journal *j, struct lane_head *head, enum journal_type type,
                             struct str payload)
{
    char path[JOURNAL_PATH_MAX];
    int fd, rc;

    segment_path(j, head->lane, head->first_seq, path);
    fd = world->open(path, O_RDWR, 0);
    if (fd < 0)
        return fd;
    rc = append_to(j, fd, head, type, payload);
    world->close(fd);
    return rc;
}

int head_new_segment(const struct journal *j, struct lane_head *head)
{
    int fd, rc = next_allocate(j, head->lane, &fd);

    if (rc < 0)
        return rc;
    rc = next_adopt(j, fd, head, world->wall_ms());
    world->close(fd);
    return rc;
}

int head_append(const struct journal *j, struct lane_head *head, enum journal_type type, struct str payload)
{
    int rc;

    if (head->segment &&
        block_up(block_up(head->off) + (int64_t)frame_bytes(payload.len)) + BLOCK_BYTES > head->segment_bytes) {
        rc = append_in_segment(j, head, JOURNAL_ROLL, STR("{}"));
        if (rc < 0)
            return rc;
        head->segment = false;
    }
    if (!head->segment) {
        rc = head_new_segment(j, head);
        if (rc < 0)
            return rc;
    }
    return append_in_segment(j, head, type, payload);
}
