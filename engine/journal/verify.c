/*
 * verify.c -- is every byte as it was written?
 *
 * Goes on after a problem, with the next segment, so that one report names all places.  Reads a running engine's
 * journal too: what is being written at the end of a lane is read again until it is whole.
 *
 * What files alone cannot show: what has been done to the end of a lane which was not closed in order, behind a
 * signature (cut off at a record, altered, or forged up to as many records as may go without one), or that everything
 * was replaced by someone who holds the signing key.  Checkpoints kept elsewhere show both, up to where they stand.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crypto.h"
#include "journal/internal.h"

enum {
    NOTES_MAX = 1000,
    LIVE_RETRIES = 200, /* a write of one batch takes a millisecond or so, a read of the window a fraction of it */
};

/* A checkpoint that was kept elsewhere. */
struct kept {
    unsigned lane;
    uint64_t seq;
    uint8_t chain[HASH_LEN];
    bool found;
};

struct verify {
    const char *dir;
    const struct journal_verify_options *opt;
    void (*note)(const struct journal_note *n, void *arg);
    void *arg;
    struct journal_report *report;
    struct manifest *manifest;
    struct kept *kept;          /* by lane and number */
    size_t n_kept, kept_cap;
    unsigned notes;

    /* the lane being read: everything before is in order and ends at seq - 1 */
    struct manifest_lane *known;
    uint64_t seq, number;
    uint8_t link[HASH_LEN];
    bool linked;                /* link is the hash of record seq - 1, or the genesis */
    bool met, rolled, closed, broken;
    struct seg_header header;
    struct signatures signatures;
};

static void tell(struct verify *v, bool problem, const char *file, int64_t off, uint64_t seq, const char *text)
{
    struct journal_note n = { problem, file, off, seq, text };

    if (problem)
        v->report->problems++;
    if (v->note && v->notes++ < NOTES_MAX)
        v->note(&n, v->arg);
}

/* Looks only when it matters: for a moment the lock is ours, and an engine that starts just then would be turned
 * away. */
static bool engine_runs(const char *dir)
{
    char path[JOURNAL_PATH_MAX];
    int fd, rc;

    path_set(path, "%s/lock", dir);
    fd = world->open(path, O_RDONLY, 0);
    if (fd < 0)
        return false;
    rc = world->lock(fd);
    world->close(fd);
    return rc == -EWOULDBLOCK;
}

/*
 * Is the lane closed, as the manifest said when it was read?  An engine that has started since may have opened it: then
 * there may be records behind the one it was closed with.
 */
static bool closed_still(struct verify *v)
{
    struct manifest *m;
    const struct manifest_lane *now;
    struct errinfo info;
    int64_t at;

    if (!v->known->closed)
        return false;
    m = malloc(sizeof(*m));
    ASSERT(m);
    now = manifest_read(v->dir, m, &at, &info) == OK ? manifest_lane(m, v->known->lane) : NULL;
    if (now && now->seq >= v->known->seq && (!now->closed || now->seq > v->known->seq))
        v->known->closed = false;
    free(m);
    return v->known->closed;
}

/* Does an engine write what is being looked at? Asked where that would explain what was found. */
static bool is_live(struct verify *v)
{
    if (!v->report->live && !closed_still(v))
        v->report->live = engine_runs(v->dir);
    return v->report->live;
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static void record_signed(struct verify *v, struct walker *w, const struct frame *f)
{
    const char *why = signatures_take(&v->signatures, v->manifest, &v->header, f);
    int64_t off = w->off - (int64_t)f->size;

    if (why)
        tell(v, true, w->f->path, off, f->seq, why);
    else if (f->type == JOURNAL_CHECKPOINT || f->type == JOURNAL_CLOSE)
        v->report->checkpoints++;
    else if (f->type >= JOURNAL_INTENT && v->signatures.since == signatures_most(v->manifest) + 1)
        tell(v, v->manifest->checkpoint_every != 0, w->f->path, off, f->seq, signatures_missing);
}

static int kept_compare(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;

    if (x->lane != y->lane)
        return x->lane < y->lane ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* The first of those at or behind a record. */
static size_t kept_from(const struct verify *v, unsigned lane, uint64_t seq)
{
    const struct kept key = { .lane = lane, .seq = seq };
    size_t low = 0, high = v->n_kept;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (kept_compare(&v->kept[mid], &key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void record_known(struct verify *v, struct walker *w, const struct frame *f)
{
    int64_t off = w->off - (int64_t)f->size;

    if (f->seq == v->known->seq) {
        v->met = memcmp(f->hash, v->known->hash, HASH_LEN) == 0;
        if (v->met)
            signatures_named(&v->signatures, f->seq);
        else
            tell(v, true, w->f->path, off, f->seq, "the record is not the one the manifest names");
    }
    for (size_t i = kept_from(v, f->lane, f->seq); i < v->n_kept; i++) {
        struct kept *k = &v->kept[i];

        if (k->lane != f->lane || k->seq != f->seq)
            break;
        k->found = true;
        if (memcmp(k->chain, f->hash, HASH_LEN) != 0)
            tell(v, true, w->f->path, off, f->seq, "the record is not the one that a checkpoint kept elsewhere names");
    }
}

static enum walk records_walk(struct verify *v, struct walker *w)
{
    struct frame f;
    enum walk step;

    while ((step = walker_next(w, &f)) == WALK_RECORD) {
        v->report->records++;
        v->report->bytes += f.size;
        record_signed(v, w, &f);
        record_known(v, w, &f);
    }
    v->seq = w->seq;
    v->linked = w->any;
    memcpy(v->link, w->link, HASH_LEN);
    v->rolled = w->rolled;
    v->closed = w->any && w->last == JOURNAL_CLOSE;
    return step;
}

/* ---- segments -------------------------------------------------------------------------------------------------- */

/* To the end of a segment: records, then zeros. A running engine's last segment is read again where it is in motion. */
static void segment_walk(struct verify *v, struct seg_file *f, bool last)
{
    struct walker w;
    enum walk end;
    int64_t at;

    walker_begin(&w, f, &v->header);
    memcpy(v->signatures.before, v->header.link, HASH_LEN);
    for (int retry = 0;; retry++) {
        int64_t before = w.off;

        end = records_walk(v, &w);
        at = f->error ? -1 : seg_nonzero_first(f, w.off);
        if ((end == WALK_END && at < 0) || !last || retry == LIVE_RETRIES)
            break;
        if (!is_live(v))
            break;
        if (w.off != before)
            retry = 0;
        seg_forget(f);
    }
    if (f->error) {
        tell(v, true, f->path, w.off, w.seq, strerror(f->error));
    } else if (end == WALK_BAD || at >= 0) {
        /* the first byte that is not zero: a record's own beginning, unless a block of it is gone */
        tell(v, true, f->path, at < 0 ? w.off : at, w.seq,
             end == WALK_BAD ? w.reason : "bytes where zeros belong, behind the last record");
    } else if (!last && !w.rolled) {
        tell(v, true, f->path, w.off, w.seq, "records are missing at the end of the segment");
    } else {
        return;
    }
    v->linked = false;
    v->broken = true;
}

static void segment_verify(struct verify *v, const char *path, uint64_t named, bool last)
{
    struct seg_place place = { .lane = v->known->lane, .named = named, .seq = v->seq, .number = v->number };
    struct seg_file f;
    const char *why;
    bool readable;
    int64_t at;
    int rc = seg_file_open(&f, path, O_RDONLY);

    if (rc < 0) {
        tell(v, true, path, -1, v->seq, strerror(-rc));
        v->broken = true;
        return;
    }
    v->report->segments++;
    why = seg_header_read(&f, &v->header, &at);
    readable = !why;
    if (!why) {
        at = 0;
        if (v->broken)
            place.seq = named;      /* how many records the broken one should have had is not known */
        place.link = v->linked ? v->link : NULL;
        why = header_misfit(v->manifest, &place, &v->header);
    }
    if (why) {
        tell(v, true, path, at, v->seq, why);
        v->broken = true;
        v->linked = false;
    }
    /* out of place, its records are still looked at; behind a header that cannot be trusted none can be */
    if (readable && v->header.lane == v->known->lane) {
        segment_walk(v, &f, last);
        v->number = v->header.number;
    } else {
        v->number = 0;
    }
    seg_file_close(&f);
}

/* ---- lanes ----------------------------------------------------------------------------------------------------- */

static void next_verify(struct verify *v, const char *path)
{
    struct seg_file f;
    struct seg_header h;
    int64_t at;

    if (seg_file_open(&f, path, O_RDONLY) < 0)
        return;
    if (seg_nonzero_first(&f, 0) >= 0 && !is_live(v)) {        /* an engine that runs may be using it by now */
        if (seg_header_read(&f, &h, &at) || (at = seg_nonzero_first(&f, HEADER_BYTES)) >= 0)
            tell(v, true, path, at, 0, "the file allocated ahead is neither empty nor about to be used");
        else
            tell(v, false, path, -1, 0, "a segment was about to begin when the engine ended");
    }
    seg_file_close(&f);
}

static void lane_end_verify(struct verify *v, const char *dir)
{
    const struct manifest_lane *known = v->known;

    if (!v->broken && (v->seq <= known->seq || !v->met))
        tell(v, true, dir, -1, v->seq, "the lane ends before the record that the manifest names: its tail was cut off");
    else if (!v->broken && v->seq != known->seq + 1 && closed_still(v))
        tell(v, true, dir, -1, v->seq, "records were added after the journal had been closed in order");
    if (!v->broken && v->rolled && !is_live(v))
        tell(v, known->closed, dir, -1, v->seq, "the last segment there is says that another follows");
    if (!known->closed && !v->closed && !is_live(v))
        tell(v, false, dir, -1, v->signatures.upto + 1,
             "the engine did not end in order; from this record on nothing is signed: it may be missing or forged");
}

static void lane_verify(struct verify *v, struct manifest_lane *known)
{
    char dir[JOURNAL_PATH_MAX], path[JOURNAL_PATH_MAX];
    struct seg_list list;
    int rc;

    v->known = known;
    v->seq = known->first;
    v->number = 0;
    v->linked = known->first == 1;
    v->met = known->seq < known->first;
    v->rolled = v->closed = v->broken = false;
    v->signatures = (struct signatures){ .upto = known->first - 1 };
    format_genesis(v->manifest->id, known->lane, v->link);
    path_set(dir, "%s/lane-%u", v->dir, known->lane);
    rc = seg_list_read(&list, dir);
    for (size_t i = 0; i < list.n; i++) {
        path_set(path, "%s/%.60s", dir, list.v[i].name);
        if (list.v[i].kind == NAME_NEXT)
            next_verify(v, path);
        else if (list.v[i].kind == NAME_TORN)
            tell(v, false, path, -1, 0, "kept by a recovery: what a crash had torn");
        else if (list.v[i].kind == NAME_ODD)
            tell(v, false, path, -1, 0, "not a file of the journal's");
    }
    seg_list_segments(&list);
    if (rc < 0 || list.n == 0) {
        tell(v, true, dir, -1, v->seq, "the manifest lists this lane, but its segments are gone");
        v->broken = true;
    }
    for (size_t i = 0; i < list.n; i++) {
        path_set(path, "%s/%s", dir, list.v[i].name);
        segment_verify(v, path, list.v[i].first, i + 1 == list.n);
    }
    lane_end_verify(v, dir);
    v->report->lanes++;
    seg_list_release(&list);
}

/* An engine that is running may have begun the lane since the manifest was read. */
static bool lane_is_new(struct verify *v, unsigned lane)
{
    struct manifest *m = malloc(sizeof(*m));
    struct errinfo info;
    int64_t at;
    bool is_new;

    ASSERT(m);
    is_new = manifest_read(v->dir, m, &at, &info) == OK && manifest_lane(m, lane);
    free(m);
    return is_new;
}

static void lane_unlisted(unsigned lane, void *arg)
{
    struct verify *v = arg;
    char dir[JOURNAL_PATH_MAX], path[JOURNAL_PATH_MAX];
    struct seg_list list;

    if (manifest_lane(v->manifest, lane) || lane_is_new(v, lane))
        return;
    path_set(dir, "%s/lane-%u", v->dir, lane);
    seg_list_read(&list, dir);
    seg_list_segments(&list);
    for (size_t i = 0; i < list.n; i++) {
        struct seg_file f;
        bool empty;

        path_set(path, "%s/%s", dir, list.v[i].name);
        if (seg_file_open(&f, path, O_RDONLY) < 0)
            continue;
        empty = seg_nonzero_first(&f, HEADER_BYTES) < 0;
        seg_file_close(&f);
        if (!empty && lane_is_new(v, lane))
            break;                      /* it is listed before its first record: only now is that known to be missing */
        tell(v, !empty, path, -1, 0, empty ? "an empty segment of a lane that was about to begin" :
             "the manifest does not list this lane, but there are records");
    }
    seg_list_release(&list);
}

static void name_odd(const char *name, void *arg)
{
    struct verify *v = arg;
    char path[JOURNAL_PATH_MAX];

    path_set(path, "%s/%.60s", v->dir, name);
    tell(v, false, path, -1, 0, "not a file of the journal's");
}

/* ---- checkpoints kept elsewhere -------------------------------------------------------------------------------- */

static struct str word(struct str *line)
{
    struct str head;

    if (!str_cut(*line, ' ', &head, line)) {
        head = *line;
        *line = STR_NULL;
    }
    return head;
}

/* NULL, or what is wrong with the line. */
static const char *kept_parse(const struct manifest *m, struct str line, struct kept *ret)
{
    struct str rest = line, key_text;
    uint8_t key[32], signature[64];
    struct buf text = BUF_INIT(512);
    const char *why = NULL;
    uint64_t lane;
    bool formed;

    formed = str_is(word(&rest), "sluice-checkpoint") && str_is(word(&rest), "1");
    word(&rest);                /* the journal's id: compared as part of the text */
    formed = formed && str_to_u64(word(&rest), &lane) && lane < JOURNAL_LANES_MAX &&
             str_to_u64(word(&rest), &ret->seq) && hex_decode(word(&rest), ret->chain, HASH_LEN) == OK;
    key_text = word(&rest);
    if (!formed || hex_decode(key_text, key, 32) || hex_decode(rest, signature, 64))
        return "not a checkpoint as sluice prints it";
    ret->lane = (unsigned)lane;
    checkpoint_text(m->id, ret->lane, ret->seq, ret->chain, key, &text);
    buf_add_c(&text, ' ');
    if (!str_starts(line, buf_str(&text)))
        why = "a checkpoint of another journal";
    else if (!manifest_knows_key(m, key))
        why = "a checkpoint signed with a key that the manifest does not know";
    else if (!ed25519_verify(key, text.p, text.len - 1, signature))
        why = "the checkpoint's signature does not match";
    buf_release(&text);
    return why;
}

static void kept_add(struct verify *v, const struct kept *k)
{
    if (v->n_kept == v->kept_cap) {
        v->kept_cap = v->kept_cap ? 2 * v->kept_cap : 64;
        v->kept = realloc(v->kept, v->kept_cap * sizeof(*v->kept));
        ASSERT(v->kept);
    }
    v->kept[v->n_kept++] = *k;
}

static void kept_take(struct verify *v)
{
    struct str rest = v->opt->checkpoints, line;

    while (rest.len > 0) {
        struct kept k = { 0 };
        const char *why;

        if (!str_cut(rest, '\n', &line, &rest)) {
            line = rest;
            rest = STR_NULL;
        }
        if (str_empty(str_trim(line)))
            continue;
        why = kept_parse(v->manifest, str_trim(line), &k);
        if (why)
            tell(v, true, "(checkpoint kept elsewhere)", -1, k.seq, why);
        else
            kept_add(v, &k);
    }
    if (v->n_kept > 0)
        qsort(v->kept, v->n_kept, sizeof(*v->kept), kept_compare);
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static void all_verify(struct verify *v)
{
    struct manifest *m = v->manifest;

    memcpy(v->report->key, m->keys[m->n_keys - 1], 32);
    if (v->opt->expect_key && memcmp(v->opt->expect_key, v->report->key, 32) != 0)
        tell(v, true, v->dir, -1, 0, "the journal is signed with another key than the one expected");
    kept_take(v);
    for (unsigned i = 0; i < m->n_lanes; i++)
        lane_verify(v, &m->lanes[i]);
    lanes_list(v->dir, lane_unlisted, name_odd, v);
    for (size_t i = 0; i < v->n_kept; i++) {
        if (!v->kept[i].found)
            tell(v, true, v->dir, -1, v->kept[i].seq, "a record that a checkpoint kept elsewhere names is gone");
    }
}

enum err journal_verify(const char *dir, const struct journal_verify_options *opt,
                        void (*note)(const struct journal_note *n, void *arg), void *arg,
                        struct journal_report *ret, struct errinfo *info)
{
    static const struct journal_verify_options none;
    struct verify v = { .dir = dir, .opt = opt ? opt : &none, .note = note, .arg = arg, .report = ret };
    struct errinfo why = { "" };
    char path[JOURNAL_PATH_MAX];
    int64_t at;
    enum err e;

    ASSERT(strlen(dir) <= JOURNAL_DIR_MAX);
    memset(ret, 0, sizeof(*ret));
    v.manifest = malloc(sizeof(*v.manifest));
    ASSERT(v.manifest);
    path_set(path, "%s/manifest", dir);
    e = manifest_read(dir, v.manifest, &at, &why);
    if (e == E_TAMPERED)
        tell(&v, true, path, at, 0, why.text);
    else if (!e)
        all_verify(&v);
    free(v.manifest);
    free(v.kept);
    if (e && e != E_TAMPERED)
        return err_set(info, e, "%s", why.text);
    if (ret->problems > 0)
        return err_set(info, E_TAMPERED, "%s: %u problems", dir, ret->problems);
    return OK;
}

/* ---- printing checkpoints -------------------------------------------------------------------------------------- */

struct newest {
    bool any;
    uint64_t seq;
    char payload[SIGNED_PAYLOAD];
};

static bool newest_take(const struct journal_record *r, void *arg)
{
    struct newest *n = arg;

    if ((r->type == JOURNAL_CHECKPOINT || r->type == JOURNAL_CLOSE) && r->payload.len == SIGNED_PAYLOAD) {
        n->any = true;
        n->seq = r->seq;
        memcpy(n->payload, r->payload.p, SIGNED_PAYLOAD);
    }
    return true;
}

static enum err lane_checkpoint(const char *dir, const struct manifest *m, unsigned lane, struct buf *out,
                                struct errinfo *info)
{
    uint8_t chain[HASH_LEN], key[32], signature[64];
    char path[JOURNAL_PATH_MAX];
    struct newest n = { 0 };
    struct seg_list list;
    enum err e = OK;

    path_set(path, "%s/lane-%u", dir, lane);
    seg_list_read(&list, path);
    seg_list_segments(&list);
    for (size_t i = list.n; i > 0 && !n.any && !e; i--)
        e = segments_scan(dir, lane, list.v[i - 1].first, newest_take, &n, info);
    seg_list_release(&list);
    if (!e && n.any && checkpoint_get(str_n(n.payload, SIGNED_PAYLOAD), chain, key, signature)) {
        checkpoint_text(m->id, lane, n.seq - 1, chain, key, out);
        buf_add_c(out, ' ');
        buf_add_hex(out, signature, 64);
        buf_add_c(out, '\n');
    }
    return e;
}

enum err journal_checkpoint_print(const char *dir, struct buf *out, struct errinfo *info)
{
    struct manifest *m = malloc(sizeof(*m));
    int64_t at;
    enum err e;

    ASSERT(m && strlen(dir) <= JOURNAL_DIR_MAX);
    e = manifest_read(dir, m, &at, info);
    for (unsigned i = 0; !e && i < m->n_lanes; i++)
        e = lane_checkpoint(dir, m, m->lanes[i].lane, out, info);
    free(m);
    return e;
}
