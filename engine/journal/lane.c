/*
 * lane.c -- appending to a lane, waiting for commits, and room promised ahead
 *
 * Space is counted where a record is accepted, not where it is written, so that what was accepted always fits:
 *
 *   room      what is left of the tail's segment, plus the segment allocated ahead if there is one.  The rest of a
 *             segment that one record may leave unused when the lane rolls (`waste`) is not counted.
 *   reserved  promised to calls in flight; their outcomes fit whatever happens
 *   block     each record may be the last of its batch, and batches begin at blocks (format.h): so the tail counts as
 *             if it ended a batch, and a record costs a block more than it is long
 *   share     each record of the owner's pays for its part of the checkpoint behind it, so that none has to be put off
 *   floor     kept for the journal's own last words: that it is full, CLOSE, and RECOVERED, CHECKPOINT and OPEN of the
 *             next start
 *
 * A new record needs room >= reserved + floor + its cost and share.  Each segment keeps a block for its ROLL record
 * besides.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/ahead.h"
#include "base/log.h"
#include "base/metric.h"
#include "journal/internal.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    FLOOR = 4096,
    PENDING_SOFT = 4 * 1024 * 1024,     /* queued bytes above which new records without a reservation are refused */
    READY_BYTES = 4096,                 /* a small call's two records */
    /* Records that nobody waits for (the intent of a read, a refused request) go with the next commit; without one they
     * are on disk after so much time, or when so many bytes are pending. */
    LINGER_MS = 5,
    LINGER_BYTES = 64 * 1024,
    /* A draft begins with room for most records, and is kept unless it has become so large. */
    DRAFT_TYPICAL = 2048,
    DRAFT_KEPT = 64 * 1024,
};

STATIC_ASSERT(2 * FLOOR + READY_BYTES <= JOURNAL_SEGMENT_MIN, "the smallest segment has room for more than the floor");

/* ---- waiters --------------------------------------------------------------------------------------------------- */

void waiter_link(struct commit_waiter **list, struct commit_waiter *w)
{
    w->next = *list;
    w->prev = list;
    if (w->next)
        w->next->prev = &w->next;
    *list = w;
}

void waiter_unlink(struct commit_waiter *w)
{
    *w->prev = w->next;
    if (w->next)
        w->next->prev = w->prev;
}

void waiters_wake(struct commit_waiter *list, uint64_t up_to)
{
    for (; list; list = list->next) {
        ahead(list->next, 1);           /* each lies on the stack of who waits */
        if (list->seq <= up_to)
            wake_fire(&list->wake);     /* the task unlinks itself when it runs */
    }
}

/* ---- room ------------------------------------------------------------------------------------------------------ */

static size_t lane_payload_max(const struct journal_lane *lane)
{
    size_t now = frame_payload_max(lane->tail_bytes), later = frame_payload_max(lane->j->opt.segment_bytes);

    return now < later ? now : later;
}

/* What a record may take at most. */
static size_t cost(size_t payload)
{
    return frame_bytes(payload) + BLOCK_BYTES;
}

static int64_t segment_room(int64_t segment_bytes)
{
    return segment_bytes - HEADER_BYTES - BLOCK_BYTES;
}

int64_t lane_room(const struct journal_lane *lane)
{
    int64_t here = lane->tail_bytes - block_up(lane->tail_off) - BLOCK_BYTES;
    int64_t waste = (int64_t)cost(lane_payload_max(lane));

    ASSERT(here >= 0);
    if (lane->next == NEXT_READY)
        here = segment_room(lane->j->opt.segment_bytes) + (here > waste ? here - waste : 0);
    return here - (int64_t)lane->reserved;
}

/* A shortage goes on record once, from the floor. */
static void tell_full(struct journal_lane *lane)
{
    struct buf payload = BUF_INIT(256);

    if (!lane->space_error || lane->told_full)
        return;
    LOG_ERROR("the journal is full: new calls are refused", LOG_I("lane", lane->number),
              LOG_S("why", strerror(lane->space_error)));
    buf_addf(&payload, "{\"errno\":%d,\"event\":\"journal_full\"}", lane->space_error);
    lane_note(lane, JOURNAL_ADMIN, buf_str(&payload));
    lane->told_full = true;
    buf_release(&payload);
}

/*
 * Who waits for room stands in line.  Room that comes back is offered to the first, who hands the offer on when it has
 * taken what it needs or goes away: one task runs for each that is served.  Waking all of them each time would be
 * thousands that run to find nothing, for every one that ends.
 *
 * Those who are about to reserve come before those who have not begun (await_journal_turn).
 */
static void line_link(struct room_line *line, struct commit_waiter *w)
{
    w->next = NULL;
    w->prev = line->last;
    *line->last = w;
    line->last = &w->next;
}

static void line_unlink(struct room_line *line, struct commit_waiter *w)
{
    *w->prev = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        line->last = w->prev;
}

void room_offer(struct journal_lane *lane)
{
    struct commit_waiter *w = lane->reserving.first ? lane->reserving.first : lane->entering.first;

    if (w)
        wake_fire(&w->wake);
}

/* May `bytes` more be promised or queued for a new call? */
static bool admits(struct journal_lane *lane, size_t bytes)
{
    if (lane->state != JOURNAL_READY || lane->closing || lane->stalled || lane->pending.len > PENDING_SOFT)
        return false;
    if ((int64_t)bytes <= lane_room(lane) - FLOOR)
        return true;
    tell_full(lane);
    return false;
}

enum err journal_reserve(struct journal_lane *lane, unsigned records, size_t payload_bytes, struct journal_room *room)
{
    size_t bytes = payload_bytes +
                   (size_t)records * (JOURNAL_FRAME_BYTES + FRAME_ALIGN - 1 + BLOCK_BYTES + lane->share);

    MAGIC_CHECK(lane, LANE_MAGIC);
    if (payload_bytes > JOURNAL_PAYLOAD_MAX * 4 || records > 64 ||
        (int64_t)bytes > segment_room(lane->j->opt.segment_bytes) - FLOOR)
        return E_CALL_TOO_LARGE;
    if (!admits(lane, bytes))
        return E_JOURNAL_UNWRITABLE;
    lane->reserved += bytes;
    room->bytes += bytes;
    return OK;
}

/* Is it room that is missing, and may it come? A full disk may stay full for hours: that is said at once. */
static bool may_wait(const struct journal_lane *lane, enum err e)
{
    return e == E_JOURNAL_UNWRITABLE && lane->state == JOURNAL_READY && !lane->space_error;
}

/* In line until `room` holds as much more, or it cannot come; at most for commit_timeout. */
static enum err await_room(struct journal_lane *lane, struct room_line *line, unsigned records, size_t payload_bytes,
                           ns_t deadline, struct journal_room *room)
{
    ns_t until = loop_now() + lane->j->opt.commit_timeout;
    struct commit_waiter w = { 0 };
    enum err e;

    if (until > deadline)
        until = deadline;
    line_link(line, &w);
    do {
        w.wake = (struct wake){ 0 };
        e = await_wake(&w.wake, until);
        if (e)
            break;
        e = journal_reserve(lane, records, payload_bytes, room);
    } while (may_wait(lane, e));
    line_unlink(line, &w);
    room_offer(lane);
    return e == E_TIMEOUT ? E_JOURNAL_UNWRITABLE : e;
}

enum err await_journal_reserve(struct journal_lane *lane, unsigned records, size_t payload_bytes, ns_t deadline,
                               struct journal_room *room)
{
    /* nobody passes those who wait */
    enum err e = lane->reserving.first ? E_JOURNAL_UNWRITABLE : journal_reserve(lane, records, payload_bytes, room);

    return may_wait(lane, e) ? await_room(lane, &lane->reserving, records, payload_bytes, deadline, room) : e;
}

enum err await_journal_turn(struct journal_lane *lane, ns_t deadline)
{
    struct journal_room none = { 0 };
    bool others = lane->reserving.first || lane->entering.first;
    enum err e = others ? E_JOURNAL_UNWRITABLE : journal_reserve(lane, 0, 0, &none);

    return may_wait(lane, e) ? await_room(lane, &lane->entering, 0, 0, deadline, &none) : OK;
}

void journal_unreserve(struct journal_lane *lane, struct journal_room *room)
{
    MAGIC_CHECK(lane, LANE_MAGIC);
    ASSERT(lane->reserved >= room->bytes);
    if (room->bytes == 0)
        return;
    lane->reserved -= room->bytes;
    room->bytes = 0;
    room_offer(lane);
}

/* ---- appending ------------------------------------------------------------------------------------------------- */

NOINLINE bool records_grow(struct records *r, size_t n)
{
    size_t cap = (size_t)page_up((int64_t)(n > 2 * r->cap ? n : 2 * r->cap));
    uint8_t *p = aligned_alloc(WORLD_ALIGN, cap);

    if (!p)
        return false;
    if (r->len > 0)
        memcpy(p, r->p, r->len);
    free(r->p);
    r->p = p;
    r->cap = cap;
    return true;
}

static void push(struct journal_lane *lane, enum journal_type type, struct str payload)
{
    size_t n = frame_bytes(payload.len);

    ASSERT(n <= lane->pending.cap - lane->pending.len);     /* place() asked for the memory */
    frame_put(lane->pending.p + lane->pending.len, type, lane->number, lane->next_seq++, loop_wall_ms(), payload);
    lane->pending.len += n;
    lane->pending_records++;
    lane->tail_off += (int64_t)n;
    metric_add(M_JOURNAL_RECORDS_TOTAL, 1);
    metric_add(M_JOURNAL_BYTES_TOTAL, (int64_t)n);
}

/* Queues a frame that the counts above have found room for. False when memory is out. */
static bool place(struct journal_lane *lane, enum journal_type type, struct str payload)
{
    int64_t n = (int64_t)frame_bytes(payload.len);
    bool idle = lane->pending.len == 0;

    if (!records_reserve(&lane->pending, lane->pending.len + (size_t)n + FRAME_ROLL_BYTES))
        return false;
    if (block_up(lane->tail_off + n) + BLOCK_BYTES > lane->tail_bytes) {
        ASSERT(lane->next == NEXT_READY);
        push(lane, JOURNAL_ROLL, STR("{}"));
        lane->next = NEXT_PROMISED;
        lane->tail_off = HEADER_BYTES;
        lane->tail_bytes = lane->j->opt.segment_bytes;
    }
    if (idle) {
        lane->due = loop_now() + LINGER_MS * NS_PER_MS;
        wake_fire(&lane->work);         /* to look again then */
    }
    push(lane, type, payload);
    ASSERT(block_up(lane->tail_off) + BLOCK_BYTES <= lane->tail_bytes);
    if (lane->pending.len >= LINGER_BYTES)
        wake_fire(&lane->work);
    return true;
}

bool lane_due(const struct journal_lane *lane)
{
    return lane->pending.len > 0 && (lane->wanted >= lane->head.next_seq || lane->closing ||
                                     lane->pending.len >= LINGER_BYTES || loop_now() >= lane->due);
}

/* Written now for its size; the writer puts the signature in, when the hash of the record before is known. */
struct str unsigned_payload(void)
{
    static char form[SIGNED_PAYLOAD];

    return str_n(form, sizeof(form));
}

bool lane_note(struct journal_lane *lane, enum journal_type type, struct str payload)
{
    if (type == JOURNAL_CHECKPOINT || type == JOURNAL_CLOSE)
        payload = unsigned_payload();
    return lane->state == JOURNAL_READY && (int64_t)cost(payload.len) <= lane_room(lane) &&
           place(lane, type, payload);
}

/* Is one of n bytes below space? */
static bool has_control(const char *p, size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        uint64_t v;

        memcpy(&v, p + i, 8);
        if ((v - 0x2020202020202020u) & ~v & 0x8080808080808080u)
            return true;
    }
    for (; i < n; i++) {
        if ((unsigned char)p[i] < 0x20)
            return true;
    }
    return false;
}

#ifdef __SSE2__
static inline __m128i sixteen(const char *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* The same, of most of them by one question at the end: is the least of all, and of space, below space? */
static bool has_control_wide(const char *p, size_t n)
{
    __m128i least = _mm_set1_epi8(0x20), seen;
    size_t i = 0;

    for (; i + 64 <= n; i += 64) {
        seen = _mm_min_epu8(_mm_min_epu8(sixteen(p + i), sixteen(p + i + 16)),
                            _mm_min_epu8(sixteen(p + i + 32), sixteen(p + i + 48)));
        least = _mm_min_epu8(least, seen);
    }
    for (; i + 16 <= n; i += 16)
        least = _mm_min_epu8(least, sixteen(p + i));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(least, _mm_set1_epi8(0x20))) != 0xffff || has_control(p + i, n - i);
}
#else
#define has_control_wide has_control
#endif

/* A compact JSON object: at least "{}", and nothing below space, so that no payload looks like a frame. */
static bool payload_acceptable(struct str s)
{
    return s.len >= 2 && s.p[0] == '{' && s.p[s.len - 1] == '}' && !has_control_wide(s.p, s.len);
}

/* A record of the owner's has been queued: is it time to sign? */
static void checkpoint_look(struct journal_lane *lane)
{
    lane->saved += lane->share;
    lane->reserved += lane->share;
    if (++lane->unsigned_records < lane->j->opt.checkpoint_every)
        return;
    lane->reserved -= lane->saved;
    lane->saved = 0;
    if (lane_note(lane, JOURNAL_CHECKPOINT, STR_NULL))      /* not when memory is out: then with the next */
        lane->unsigned_records = 0;
}

enum err journal_append(struct journal_lane *lane, enum journal_type type, struct str payload,
                        struct journal_room *room, uint64_t *ret_seq)
{
    size_t n = cost(payload.len) + lane->share, promised = room ? room->bytes : 0;

    MAGIC_CHECK(lane, LANE_MAGIC);
    ASSERT(type >= JOURNAL_INTENT && type < JOURNAL_TYPE_END);
    if (payload.len > lane_payload_max(lane))
        return E_CALL_TOO_LARGE;
    if (!payload_acceptable(payload))
        return E_FORMAT;
    if (lane->state != JOURNAL_READY || lane->closing)
        return E_JOURNAL_UNWRITABLE;
    if (promised > n)
        promised = n;
    if (n > promised && !admits(lane, n - promised))
        return E_JOURNAL_UNWRITABLE;
    lane->reserved -= promised;
    if (!place(lane, type, payload)) {
        lane->reserved += promised;
        return E_JOURNAL_UNWRITABLE;
    }
    if (room)
        room->bytes -= promised;
    *ret_seq = lane->next_seq - 1;
    checkpoint_look(lane);
    return OK;
}

struct buf journal_draft(struct journal_lane *lane)
{
    struct buf b;

    MAGIC_CHECK(lane, LANE_MAGIC);
    b = lane->draft;
    lane->draft = BUF_INIT(JOURNAL_PAYLOAD_MAX);
    buf_clear(&b);
    buf_reserve(&b, DRAFT_TYPICAL);
    return b;
}

void journal_draft_done(struct journal_lane *lane, struct buf *b)
{
    MAGIC_CHECK(lane, LANE_MAGIC);
    if (lane->draft.p || b->cap > DRAFT_KEPT) {
        buf_release(b);
    } else {
        lane->draft = *b;
        *b = BUF_INIT(JOURNAL_PAYLOAD_MAX);
    }
}

enum err await_journal_commit(struct journal_lane *lane, uint64_t seq, ns_t deadline)
{
    struct commit_waiter w = { .seq = seq };
    ns_t until = loop_now() + lane->j->opt.commit_timeout;
    enum err e;

    MAGIC_CHECK(lane, LANE_MAGIC);
    ASSERT(seq > 0 && seq < lane->next_seq);
    if (lane->committed >= seq)
        return OK;
    if (lane->state != JOURNAL_READY)
        return E_JOURNAL_UNWRITABLE;
    if (seq > lane->wanted)
        lane->wanted = seq;
    wake_fire(&lane->work);
    waiter_link(&lane->waiters, &w);
    e = await_wake(&w.wake, deadline < until ? deadline : until);
    waiter_unlink(&w);
    MAGIC_CHECK(lane, LANE_MAGIC);
    if (lane->committed >= seq)
        return OK;
    if (e == OK || (e == E_TIMEOUT && until <= deadline))
        return E_JOURNAL_UNWRITABLE;
    return e;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

enum journal_state journal_lane_state(const struct journal_lane *lane)
{
    MAGIC_CHECK(lane, LANE_MAGIC);
    if (lane->state != JOURNAL_READY)
        return lane->state;
    if (lane->stalled)
        return JOURNAL_STALLED;
    return lane->space_error && lane_room(lane) - FLOOR < READY_BYTES ? JOURNAL_FULL : JOURNAL_READY;
}

enum err journal_lane_ready(const struct journal_lane *lane)
{
    bool ready = journal_lane_state(lane) == JOURNAL_READY && !lane->closing && lane->pending.len <= PENDING_SOFT &&
                 lane_room(lane) - FLOOR >= READY_BYTES;

    return ready ? OK : E_JOURNAL_UNWRITABLE;
}

unsigned journal_lane_number(const struct journal_lane *lane)
{
    MAGIC_CHECK(lane, LANE_MAGIC);
    return lane->number;
}

uint64_t journal_lane_committed(const struct journal_lane *lane)
{
    MAGIC_CHECK(lane, LANE_MAGIC);
    return lane->committed;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* A lane that the manifest does not know gets its directory and first segment; the manifest follows. */
static enum err head_begin(struct journal *j, struct lane_head *head, struct errinfo *info)
{
    char path[JOURNAL_PATH_MAX];
    int rc = 0;

    lane_path(j, head->lane, path);
    if (head->number == 0) {
        rc = world->mkdir(path, 0750);
        if (rc >= 0)
            rc = world->sync_dir(j->dir);
    }
    if (rc >= 0 && !head->segment)
        rc = head_new_segment(j, head);
    if (rc < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: no segment of %lld bytes could be made: %s", path,
                       (long long)j->opt.segment_bytes, strerror(-rc));
    return OK;
}

/* Under the mutex. */
static enum err head_take(struct journal *j, unsigned number, struct lane_head **ret, struct errinfo *info)
{
    struct lane_head *head = journal_head(j, number), fresh = { .lane = number, .next_seq = 1 };
    enum err e;

    if (head && head->open)
        return err_set(info, E_CONFIG, "journal: lane %u is open already", number);
    if (head && head->failed)
        return err_set(info, E_JOURNAL_UNWRITABLE, "journal: lane %u has failed; it is recovered at the next start",
                       number);
    format_genesis(j->manifest.id, number, fresh.link);
    memcpy(fresh.last, fresh.link, HASH_LEN);
    e = head_begin(j, head ? head : &fresh, info);
    if (e)
        return e;
    if (!head) {
        head = &j->heads[j->n_heads++];
        *head = fresh;
    }
    head->open = true;
    e = journal_manifest_update(j, info);
    if (e)
        head->open = false;
    *ret = head;
    return e;
}

static bool note_open(struct journal_lane *lane)
{
    struct buf payload = BUF_INIT(1024);
    bool fits;

    buf_addf(&payload, "{\"build\":\"%s\",\"pid\":%ld,\"segment_bytes\":%lld}", lane->j->opt.build, (long)getpid(),
             (long long)lane->j->opt.segment_bytes);
    fits = lane_note(lane, JOURNAL_OPEN, buf_str(&payload));
    buf_release(&payload);
    return fits;
}

static struct journal_lane *lane_new(struct journal *j, const struct lane_head *head)
{
    struct journal_lane *lane = calloc(1, sizeof(*lane));

    ASSERT(lane);
    lane->magic = LANE_MAGIC;
    lane->reserving.last = &lane->reserving.first;
    lane->entering.last = &lane->entering.first;
    lane->j = j;
    lane->number = head->lane;
    lane->share = (cost(SIGNED_PAYLOAD) + j->opt.checkpoint_every - 1) / j->opt.checkpoint_every;
    lane->head = *head;
    lane->head.off = lane->tail_off = block_up(head->off);
    lane->tail_bytes = head->segment_bytes;
    lane->next_seq = head->next_seq;
    lane->committed = head->next_seq - 1;
    lane->draft = BUF_INIT(JOURNAL_PAYLOAD_MAX);
    lane->flights.last = &lane->flights.first;
    for (unsigned i = 0; i < FLIGHTS_MAX; i++) {
        struct flight *f = &lane->flights.all[i];

        f->lane = lane;
        f->next = lane->flights.idle;
        lane->flights.idle = f;
    }
    lane->fd = lane->next_fd = -1;
    return lane;
}

static enum err lane_start(struct journal_lane *lane, struct errinfo *info)
{
    char path[JOURNAL_PATH_MAX];
    int rc;

    segment_path(lane->j, lane->number, lane->head.first_seq, path);
    lane->fd = world->open(path, O_RDWR, 0);
    if (lane->fd < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: %s", path, strerror(-lane->fd));
    ahead_begin(lane);
    rc = next_allocate(lane->j, lane->number, &lane->next_fd);
    if (rc == 0)
        lane->next = NEXT_READY;
    else
        lane->space_error = -rc;
    if (!note_open(lane))
        return err_set(info, E_JOURNAL_UNWRITABLE,
                       "%s: no room for a record, and the next segment could not be allocated: %s", path,
                       strerror(lane->space_error));
    return OK;
}

enum err journal_lane_open(struct journal *j, unsigned number, struct journal_lane **ret, struct errinfo *info)
{
    struct lane_head *head;
    struct journal_lane *lane = NULL;
    struct task *writer, *next, *zeros;
    enum err e;

    MAGIC_CHECK(j, JOURNAL_MAGIC);
    ASSERT(number < JOURNAL_LANES_MAX);
    pthread_mutex_lock(&j->mutex);
    e = head_take(j, number, &head, info);
    if (!e) {
        lane = lane_new(j, head);
        e = lane_start(lane, info);
        if (e)
            head->open = false;         /* the manifest goes on saying open: true enough until the next start */
    }
    pthread_mutex_unlock(&j->mutex);
    if (e) {
        if (lane) {
            if (lane->fd >= 0)
                world->close(lane->fd);
            if (lane->next_fd >= 0)
                world->close(lane->next_fd);
            free(lane->pending.p);
            free(lane);
        }
        return e;
    }
    writer = task_spawn("journal writer", writer_main, lane);
    next = task_spawn("journal segment ahead", next_main, lane);
    zeros = task_spawn("journal zeros ahead", zeros_main, lane);
    ASSERT(writer && next && zeros);    /* lanes open before there are calls */
    *ret = lane;
    return OK;
}

/* ---- closing --------------------------------------------------------------------------------------------------- */

/* On a helper thread: the files, and what the manifest says. */
static void lane_finish(void *arg)
{
    struct journal_lane *lane = arg;
    struct journal *j = lane->j;
    bool ordered = lane->state == JOURNAL_READY;
    struct lane_head *head;
    struct errinfo info;

    world->close(lane->fd);
    if (lane->next_fd >= 0) {
        world->close(lane->next_fd);
        next_discard(j, lane->number);
    }
    pthread_mutex_lock(&j->mutex);
    head = journal_head(j, lane->number);
    *head = lane->head;
    head->open = false;
    head->failed = !ordered;
    if (ordered && journal_manifest_update(j, &info)) {
        head->failed = true;
        LOG_WARN("the journal's lane could not be marked closed", LOG_S("why", info.text));
    }
    pthread_mutex_unlock(&j->mutex);
}

/* The device does not answer: the tasks cannot end, so the lane stays where it is, and the process is to go. Whoever
 * looks for leaks finds it here. */
static enum err lane_abandon(struct journal_lane *lane)
{
    static _Atomic(struct journal_lane *) abandoned;

    lane->hung = true;
    lane->abandoned_before = atomic_exchange(&abandoned, lane);
    pthread_mutex_lock(&lane->j->mutex);
    journal_head(lane->j, lane->number)->failed = true;
    pthread_mutex_unlock(&lane->j->mutex);
    LOG_ERROR("the journal's device does not answer; the lane is abandoned", LOG_I("lane", lane->number));
    return E_TIMEOUT;
}

enum err await_journal_lane_close(struct journal_lane *lane)
{
    ns_t until = loop_now() + 2 * lane->j->opt.commit_timeout;
    enum err e;

    MAGIC_CHECK(lane, LANE_MAGIC);
    ASSERT(!lane->closing && lane->reserved == lane->saved && !lane->waiters && !lane->reserving.first &&
           !lane->entering.first);
    task_shield(+1);
    lane->reserved = lane->saved = 0;
    lane_note(lane, JOURNAL_CLOSE, STR_NULL);
    lane->closing = true;
    wake_fire(&lane->work);
    wake_fire(&lane->next_wanted);
    wake_fire(&lane->zeros_wanted);
    e = await_wake(&lane->writer_gone, until);
    if (!e)
        e = await_wake(&lane->next_gone, until);
    if (!e)
        e = await_wake(&lane->zeros_gone, until);
    if (e) {
        e = lane_abandon(lane);
        task_shield(-1);
        return e;
    }
    await_blocking(lane_finish, lane);
    task_shield(-1);
    e = lane->state == JOURNAL_READY ? OK : E_JOURNAL_UNWRITABLE;
    ASSERT(!timer_is_set(&lane->stall));
    free(lane->pending.p);
    buf_release(&lane->draft);
    for (unsigned i = 0; i < FLIGHTS_MAX; i++)
        free(lane->flights.all[i].batch.p);
    lane->magic = 0;
    free(lane);
    return e;
}
