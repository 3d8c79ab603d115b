/*
 * fuzz_journal.c -- recovery, scanning and verifying on damaged and made-up files
 *
 * The first byte chooses what the rest is:
 *   0  a whole segment                     1  edits (offset, xor) to a segment closed in order: must be seen
 *   2  bytes behind the last record        3  records behind the last one, well-formed or nearly so, chained
 *   4  a manifest                          5  edits to the last segment of a journal left open
 * What must hold: a refused start changes nothing and names a reason; after a start that was not refused the records
 * that were durable before are all there, and the verifier finds at most signatures that do not match.
 */
#include <stdlib.h>

#include "base/log.h"
#include "journal/internal.h"
#include "tests/unit/journal_frames.h"
#include "tests/unit/memworld.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORDS = 24, PER_BATCH = 3 };

static const char segment[] = "/j/lane-0/0000000000000001.seg";
static const struct journal_options options = { .dir = "/j",
                                                .segment_bytes = JOURNAL_SEGMENT_MIN,
                                                .checkpoint_every = 10 };
static struct memworld_copy *left_open, *closed;
static uint64_t durable_seq;

static void build(void *arg)
{
    struct errinfo info;
    struct journal_lane *lane;
    struct journal *j;
    uint64_t seq = 0;

    ASSERT(journal_open(&options, &j, &info) == OK && journal_lane_open(j, 0, &lane, &info) == OK);
    for (unsigned i = 0; i < RECORDS; i++) {
        ASSERT(journal_append(lane, JOURNAL_INTENT, STR("{\"call\":\"call_1\",\"tool\":\"mail.send\"}"), NULL, &seq) ==
               OK);
        if (i % PER_BATCH == 0)
            ASSERT(await_journal_commit(lane, seq, NS_NEVER) == OK);
    }
    ASSERT(await_journal_commit(lane, seq, NS_NEVER) == OK);
    left_open = memworld_copy();
    durable_seq = journal_lane_committed(lane);
    ASSERT(await_journal_lane_close(lane) == OK);
    journal_close(j);
    closed = memworld_copy();
    loop_stop(arg);
}

static void build_start(void *arg)
{
    ASSERT(task_spawn("build", build, arg));
}

static void begin(void)
{
    struct loop_options opt = { 0 };
    struct errinfo info;
    struct loop *loop;

    world_use(&memworld);
    log_setup(LOG_LEVEL_ERROR + 1, LOG_FORMAT_LOGFMT);
    memworld_reset();
    ASSERT(loop_create(&opt, &loop, &info) == OK);
    loop_run(loop, build_start, loop);
    loop_destroy(loop);
}

/* ---- making files ---------------------------------------------------------------------------------------------- */

/* The end of the records of the segment, the number of the next one, and the link it needs. */
static size_t segment_end(uint8_t *p, size_t len, uint64_t *ret_seq, uint8_t link[HASH_LEN])
{
    size_t off = HEADER_BYTES, n;
    struct frame f;

    memcpy(link, p + 128, HASH_LEN);
    *ret_seq = 1;
    while (off + JOURNAL_FRAME_BYTES <= len && (n = frame_claims(p + off, len - off - JOURNAL_FRAME_BYTES - 8)) &&
           !frame_decode(p + off, n, &f)) {
        memcpy(link, f.hash, HASH_LEN);
        *ret_seq = f.seq + 1;
        off = frame_after(p, off + n);
    }
    return off;
}

static bool edit(uint8_t *p, size_t len, const uint8_t *data, size_t size)
{
    uint8_t *was = malloc(len);
    bool changed;

    ASSERT(was);
    memcpy(was, p, len);
    for (size_t i = 0; i + 3 <= size; i += 3)
        p[get_u16(data + i) % len] ^= data[i + 2];
    changed = memcmp(was, p, len) != 0;
    free(was);
    return changed;
}

/* Each five bytes make a record: type, length, and what is wrong with it. */
static void add_records(uint8_t *p, size_t len, const uint8_t *data, size_t size)
{
    static const char text[] = "{\"call\":\"call_2\",\"made\":\"up................................................\"}";
    uint8_t link[HASH_LEN];
    uint64_t seq;
    size_t off = segment_end(p, len, &seq, link);

    for (size_t i = 0; i + 5 <= size; i += 5) {
        size_t n = frame_bytes(data[i + 1] % sizeof(text));
        uint32_t behind = data[i + 3] % 8;
        bool first = behind == 0 || data[i + 3] >= 128;

        if (first)
            off = (size_t)block_up((int64_t)off);
        if (off + n > len)
            return;
        frame_put(p + off, (enum journal_type)(data[i] % (JOURNAL_TYPE_END + 1)), data[i + 2] >= 250 ? 1 : 0,
                  data[i + 2] < 20 ? seq + data[i + 2] : seq, data[i + 3], str_n(text, data[i + 1] % sizeof(text)));
        frame_seal(p + off, behind, first, link);
        if (data[i + 4] >= 192)
            p[off + data[i + 4] % n] ^= data[i + 3];
        seq++;
        off += n;
    }
}

/* ---- what must hold -------------------------------------------------------------------------------------------- */

static bool last_record(const struct journal_record *r, void *arg)
{
    uint64_t *last = arg;
    struct buf line = BUF_INIT(1 << 20);

    ASSERT(r->lane != 0 || r->seq == *last + 1);
    *last = r->seq;
    journal_record_line(r, &line);
    ASSERT(!line.overflow && !memchr(line.p, 0x1b, line.len) &&
           memchr(line.p, '\n', line.len) == line.p + line.len - 1);
    buf_release(&line);
    return true;
}

static void readers(void)
{
    static const struct journal_scan_options all = { .lane = -1 };
    struct buf out = BUF_INIT(1 << 22);
    struct journal_follow *f = NULL;
    struct errinfo info;
    uint64_t last = 0;

    journal_scan("/j", &all, last_record, &last, &info);
    journal_tail("/j", 5, &out, &info);
    journal_show("/j", STR("call_2"), &out, &info);
    journal_checkpoint_print("/j", &out, &info);
    if (journal_follow_open("/j", &f, &info) == OK)
        journal_follow_close(f);
    buf_release(&out);
}

/* A start reads the chain, not the signatures: what is made up here may contain wrong ones, and nothing else wrong. */
static void only_signatures(const struct journal_note *n, void *arg)
{
    ASSERT(!n->problem || strstr(n->text, "checkpoint"));
}

static void start_and_check(bool durable_prefix)
{
    static const struct journal_scan_options all = { .lane = -1 };
    size_t len;
    char *p = memworld_file(segment, &len), *was = malloc(len + 1);
    struct journal *j = NULL;
    struct journal_report report;
    struct errinfo info = { "" };
    uint64_t last = 0;
    enum err e;

    ASSERT(was);
    if (len > 0)
        memcpy(was, p, len);
    e = journal_open(&options, &j, &info);
    if (e) {
        ASSERT(e == E_TAMPERED && info.text[0]);
        p = memworld_file(segment, &len);
        ASSERT(len == 0 || memcmp(was, p, len) == 0);
    } else {
        journal_close(j);
        ASSERT(journal_scan("/j", &all, last_record, &last, &info) == OK);
        ASSERT(!durable_prefix || last >= durable_seq);
        journal_verify("/j", NULL, only_signatures, NULL, &report, &info);
    }
    free(was);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct journal_report report;
    struct errinfo info;
    uint8_t *p, link[HASH_LEN];
    uint64_t seq;
    size_t len, end;
    unsigned mode;

    if (size < 1)
        return 0;
    if (!closed)
        begin();
    mode = data[0] % 6;
    data++;
    size--;
    memworld_restore(mode == 1 ? closed : left_open);
    p = (uint8_t *)memworld_file(segment, &len);
    end = segment_end(p, len, &seq, link);
    switch (mode) {
    case 0:
        memworld_put(segment, data, size);
        break;
    case 1:
        if (edit(p, len, data, size))
            ASSERT(journal_verify("/j", NULL, NULL, NULL, &report, &info) == E_TAMPERED);
        break;
    case 2:
        memcpy(p + end, data, size < len - end ? size : len - end);
        break;
    case 3:
        add_records(p, len, data, size);
        break;
    case 4:
        memworld_put("/j/manifest", data, size);
        break;
    default:
        edit(p, len, data, size);
        break;
    }
    journal_verify("/j", NULL, NULL, NULL, &report, &info);
    readers();
    start_and_check(mode == 2 || mode == 3);
    return 0;
}
