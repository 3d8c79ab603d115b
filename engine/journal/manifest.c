/* manifest.c -- the signed list of lanes, and the signing key (manifest.h) */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/check.h"
#include "base/crypto.h"
#include "journal/files.h"
#include "journal/manifest.h"
#include "loop/world.h"

/* ---- small files ----------------------------------------------------------------------------------------------- */

int file_replace(const char *dir, const char *path, int mode, struct str text)
{
    char aside[JOURNAL_PATH_MAX];
    int fd, rc;
    int64_t put;

    path_set(aside, "%s.tmp", path);
    rc = world->unlink(aside);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    fd = world->open(aside, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (fd < 0)
        return fd;
    put = world->pwrite(fd, text.p, text.len, 0);
    rc = put < 0 ? (int)put : world->sync(fd);
    world->close(fd);
    if (rc == 0)
        rc = world->rename(aside, path);
    if (rc < 0) {
        world->unlink(aside);
        return rc;
    }
    return world->sync_dir(dir);
}

int file_read(const char *path, struct buf *out)
{
    int fd = world->open(path, O_RDONLY, 0);
    int64_t size, got;
    char *to;

    if (fd < 0)
        return fd;
    size = world->size(fd);
    to = size >= 0 ? buf_reserve(out, (size_t)size) : NULL;
    got = size < 0 ? size : !to ? -EFBIG : world->pread(fd, to, (size_t)size, 0);
    world->close(fd);
    if (got < 0)
        return (int)got;
    out->len += (size_t)got;
    return 0;
}

/* ---- the signing key ------------------------------------------------------------------------------------------- */

struct signing {
    const uint8_t *key;
    struct str text;
    uint8_t *out;
};

static void sign_with(const uint8_t *bytes, size_t n, void *arg)
{
    struct signing *s = arg;

    ASSERT(n == 32);
    ed25519_sign(bytes, s->key, s->text.p, s->text.len, s->out);
}

void signer_sign(const struct signer *s, struct str text, uint8_t ret[64])
{
    struct signing arg = { s->key, text, ret };

    secret_use(s->seed, sign_with, &arg);
}

void signer_release(struct signer *s)
{
    secret_release(s->seed);
    s->seed = NULL;
}

static enum err signer_make(const char *path, struct errinfo *info)
{
    uint8_t seed[32], key[32];
    char dir[JOURNAL_PATH_MAX], *slash;
    struct buf text = BUF_INIT(256);
    int rc;

    path_set(dir, "%s", path);
    slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    else
        path_set(dir, ".");
    ed25519_keypair(seed, key);
    buf_add_z(&text, "ed25519 ");
    buf_add_hex(&text, seed, 32);
    buf_add_c(&text, ' ');
    buf_add_hex(&text, key, 32);
    buf_add_c(&text, '\n');
    rc = file_replace(dir, path, 0600, buf_str(&text));
    bytes_wipe(seed, sizeof(seed));
    bytes_wipe(text.p, text.len);
    buf_release(&text);
    if (rc < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: the journal's signing key could not be written: %s", path,
                       strerror(-rc));
    return OK;
}

/* The two halves of a key file must belong together, or nothing signed with it would ever verify. */
static bool signer_parse(struct signer *s, struct str text)
{
    uint8_t seed[32], key[32];
    bool good = text.len == 138 && str_starts(text, STR("ed25519 ")) && text.p[72] == ' ' && text.p[137] == '\n' &&
                hex_decode(str_n(text.p + 8, 64), seed, 32) == OK &&
                hex_decode(str_n(text.p + 73, 64), s->key, 32) == OK;

    if (good) {
        ed25519_public(seed, key);
        good = memcmp(key, s->key, sizeof(key)) == 0;
    }
    s->seed = good ? secret_take(seed, sizeof(seed)) : NULL;
    bytes_wipe(seed, sizeof(seed));
    return s->seed != NULL;
}

enum err signer_load(struct signer *s, const char *path, struct errinfo *info)
{
    struct buf text = BUF_INIT(256);
    int rc = file_read(path, &text);
    bool good;

    *s = (struct signer){ 0 };
    if (rc == -ENOENT) {
        enum err e = signer_make(path, info);

        if (e)
            return e;
        rc = file_read(path, &text);
    }
    good = rc == 0 && signer_parse(s, buf_str(&text));
    if (text.p)
        bytes_wipe(text.p, text.len);
    buf_release(&text);
    if (rc < 0)
        return err_set(info, E_CONFIG, "%s: the journal's signing key could not be read: %s", path, strerror(-rc));
    if (!good)
        return err_set(info, E_CONFIG, "%s: not a signing key (expected: ed25519 <64 hex digits> <64 hex digits>)",
                       path);
    return OK;
}

/* ---- the manifest ---------------------------------------------------------------------------------------------- */

struct manifest_lane *manifest_lane(struct manifest *m, unsigned lane)
{
    for (unsigned i = 0; i < m->n_lanes; i++) {
        if (m->lanes[i].lane == lane)
            return &m->lanes[i];
    }
    return NULL;
}

struct manifest_lane *manifest_lane_add(struct manifest *m, unsigned lane)
{
    unsigned i = m->n_lanes;

    ASSERT(m->n_lanes < JOURNAL_LANES_MAX && !manifest_lane(m, lane));
    for (; i > 0 && m->lanes[i - 1].lane > lane; i--)
        m->lanes[i] = m->lanes[i - 1];
    m->n_lanes++;
    m->lanes[i] = (struct manifest_lane){ .lane = lane, .first = 1 };
    format_genesis(m->id, lane, m->lanes[i].hash);
    return &m->lanes[i];
}

bool manifest_knows_key(const struct manifest *m, const uint8_t key[32])
{
    for (unsigned i = 0; i < m->n_keys; i++) {
        if (memcmp(m->keys[i], key, 32) == 0)
            return true;
    }
    return false;
}

static void render(const struct manifest *m, struct buf *out)
{
    buf_add_z(out, "sluice-journal 1\nid ");
    buf_add_hex(out, m->id, 16);
    buf_add_c(out, '\n');
    if (m->checkpoint_every)
        buf_addf(out, "checkpoint %u\n", m->checkpoint_every);
    for (unsigned i = 0; i < m->n_keys; i++) {
        buf_add_z(out, "key ");
        buf_add_hex(out, m->keys[i], 32);
        buf_add_c(out, '\n');
    }
    for (unsigned i = 0; i < m->n_lanes; i++) {
        const struct manifest_lane *l = &m->lanes[i];

        buf_addf(out, "lane %u first %llu %s %llu ", l->lane, (unsigned long long)l->first,
                 l->closed ? "closed" : "open", (unsigned long long)l->seq);
        buf_add_hex(out, l->hash, HASH_LEN);
        buf_add_c(out, '\n');
    }
}

enum err manifest_write(const char *dir, const struct manifest *m, const struct signer *s, struct errinfo *info)
{
    struct buf text = BUF_INIT(MANIFEST_BYTES_MAX);
    char path[JOURNAL_PATH_MAX];
    uint8_t signature[64];
    int rc;

    render(m, &text);
    signer_sign(s, buf_str(&text), signature);
    buf_add_z(&text, "signature ");
    buf_add_hex(&text, signature, 64);
    buf_add_c(&text, '\n');
    ASSERT(!text.overflow && m->n_keys > 0);
    path_set(path, "%s/manifest", dir);
    rc = file_replace(dir, path, 0640, buf_str(&text));
    buf_release(&text);
    if (rc < 0)
        return err_set(info, E_JOURNAL_UNWRITABLE, "%s: the journal's manifest could not be written: %s", path,
                       strerror(-rc));
    return OK;
}

/* The next word of a line, ended by a space or, for the last, by the line's end. */
static struct str word(struct str *line)
{
    struct str head;

    if (!str_cut(*line, ' ', &head, line)) {
        head = *line;
        *line = STR_NULL;
    }
    return head;
}

static bool parse_lane(struct str line, struct manifest *m)
{
    struct manifest_lane *l = &m->lanes[m->n_lanes];
    struct str how;
    uint64_t n;

    if (m->n_lanes == JOURNAL_LANES_MAX || !str_to_u64(word(&line), &n) || n >= JOURNAL_LANES_MAX)
        return false;
    l->lane = (unsigned)n;
    if (m->n_lanes > 0 && l[-1].lane >= l->lane)
        return false;
    if (!str_is(word(&line), "first") || !str_to_u64(word(&line), &l->first) || l->first == 0)
        return false;
    how = word(&line);
    l->closed = str_is(how, "closed");
    if ((!l->closed && !str_is(how, "open")) || !str_to_u64(word(&line), &l->seq))
        return false;
    m->n_lanes++;
    return hex_decode(word(&line), l->hash, HASH_LEN) == OK;
}

static bool parse_line(struct str line, unsigned number, struct manifest *m)
{
    struct str what;
    uint64_t n;

    if (number == 0)
        return str_is(line, "sluice-journal 1");
    what = word(&line);
    if (number == 1)
        return str_is(what, "id") && hex_decode(line, m->id, 16) == OK;
    if (number == 2 && str_is(what, "checkpoint")) {
        if (!str_to_u64(line, &n) || n == 0 || n > JOURNAL_CHECKPOINT_MAX)
            return false;
        m->checkpoint_every = (unsigned)n;
        return true;
    }
    if (str_is(what, "key"))
        return m->n_keys < MANIFEST_KEYS_MAX && m->n_lanes == 0 && hex_decode(line, m->keys[m->n_keys++], 32) == OK;
    return str_is(what, "lane") && parse_lane(line, m);
}

/* NULL, or what is wrong at *ret_at. */
static const char *parse(struct str text, struct manifest *m, int64_t *ret_at)
{
    struct buf form = BUF_INIT(MANIFEST_BYTES_MAX);
    struct str rest = text, line, next;
    unsigned number = 0;
    uint8_t signature[64];
    const char *why = NULL;

    memset(m, 0, sizeof(*m));
    while (str_cut(rest, '\n', &line, &next) && !str_starts(line, STR("signature "))) {
        *ret_at = rest.p - text.p;
        if (!parse_line(line, number++, m))
            return "a line of the manifest is not in its form";
        rest = next;
    }
    *ret_at = rest.p - text.p;
    if (number < 2 || m->n_keys == 0 || rest.len != 139 || !str_starts(rest, STR("signature ")) ||
        rest.p[138] != '\n' || hex_decode(str_n(rest.p + 10, 128), signature, 64))
        return "the manifest has no signature, or not at its end";
    render(m, &form);
    buf_add_z(&form, "signature ");
    buf_add_hex(&form, signature, 64);
    buf_add_c(&form, '\n');
    if (!str_eq(buf_str(&form), text)) {
        for (*ret_at = 0; (size_t)*ret_at < form.len && form.p[*ret_at] == text.p[*ret_at]; ++*ret_at)
            ;
        why = "the manifest is not written as the engine writes it";
    } else if (!ed25519_verify(m->keys[m->n_keys - 1], text.p, (size_t)(rest.p - text.p), signature)) {
        *ret_at = 0;
        why = "the manifest's signature does not match: it was altered";
    }
    buf_release(&form);
    return why;
}

enum err manifest_read(const char *dir, struct manifest *ret, int64_t *ret_at, struct errinfo *info)
{
    struct buf text = BUF_INIT(MANIFEST_BYTES_MAX);
    char path[JOURNAL_PATH_MAX];
    const char *why;
    int rc;

    path_set(path, "%s/manifest", dir);
    *ret_at = 0;
    rc = file_read(path, &text);
    if (rc < 0) {
        buf_release(&text);
        if (rc == -ENOENT || rc == -ENOTDIR)
            return err_set(info, E_NOT_FOUND, "%s: there is no journal here (no manifest)", dir);
        if (rc == -EFBIG)
            return err_set(info, E_TAMPERED, "%s: too large for a manifest", path);
        return err_set(info, E_IO, "%s: %s", path, strerror(-rc));
    }
    why = parse(buf_str(&text), ret, ret_at);
    buf_release(&text);
    if (why)
        return err_set(info, E_TAMPERED, "%s, offset %lld: %s", path, (long long)*ret_at, why);
    return OK;
}
