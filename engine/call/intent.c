/*
 * intent.c -- INTENT: the key is claimed, the intent is on record
 *
 * Order: room in the journal for both records of the call, then the key, then the record.  What effects need is durable
 * before await_intent() returns (P1); a read's intent travels with the next group commit.
 */
#include <stdio.h>

#include "base/check.h"
#include "base/crypto.h"
#include "call/internal.h"

enum { ROOM_BYTES = 4096 };     /* of both records, beside what grows with arguments and decisions */

/* What call_key() answers in every repeat: 26 characters of base32 out of the names and the key. */
static void name_key(struct call *c)
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    const struct str zero = { "", 1 };
    const struct str parts[] = { c->caller->tenant, zero, c->caller->user, zero, c->caller->agent, zero,
                                 c->tool->name,     zero, c->key };
    uint8_t hash[SHA256_LEN];

    sha256_parts(parts, ARRAY_LEN(parts), hash);
    for (unsigned i = 0; i < 26; i++)
        c->key_text[i] = digits[hash[i] & 31];
    c->key_text[26] = '\0';
}

static enum err await_key(struct call *c, bool *ret_replay)
{
    struct once_name name = { c->caller->tenant, c->caller->user, c->caller->agent, c->tool->name, c->key };
    struct once_record old = { .outcome = OUTCOME_NONE };
    enum err e;

    if (c->key.len == 0)
        return OK;
    name_key(c);
    if (c->tool->decl->effect == EFFECT_READS)
        return OK;                      /* doing it again changes nothing: there is nothing to remember */
    e = await_once_claim(c->worker->engine->once, &name, c->digest, c->id.z, c->began_wall, c->deadline, &c->arena,
                         &c->once, &old);
    if (e == E_KEY_REUSED)
        return call_why(c, e, "the idempotency key was used before with other arguments; use a new key for a new call");
    if (old.outcome == OUTCOME_NONE)
        return e;
    *ret_replay = true;
    c->replayed = old.outcome;
    snprintf(c->replay_of, sizeof(c->replay_of), "%s", old.call_id);
    if (old.outcome == OUTCOME_UNKNOWN)
        return call_why(c, E_OUTCOME_UNKNOWN,
                        "this call was made before (%s) and nobody knows whether it happened; it was not made again",
                        old.call_id);
    return e ? e : call_unseal_result(c, old.result);
}

/* What was decided is on record: of it the call keeps that every side permits. */
static void permitted(struct call *c)
{
    ASSERT(c->n_sides >= 2);
    for (unsigned i = 0; i < c->n_sides; i++)
        ASSERT(!side_refuses(&c->sides[i]));
    c->intended = c->permitted = true;
    c->n_sides = 0;
    c->sides = NULL;
    c->asked = NULL;
    c->delegations = NULL;
    arena_release(&c->deciding);
    call_unsay(c);
}

enum err await_intent(struct call *c, bool *ret_replay)
{
    size_t bytes = ROOM_BYTES + c->frozen.len * 2 + call_record_room(c);
    enum err e;

    ASSERT(!c->intended && c->room.bytes == 0);
    if (bytes > JOURNAL_PAYLOAD_MAX / 2)
        bytes = JOURNAL_PAYLOAD_MAX / 2;
    e = await_journal_reserve(c->worker->lane, 2, bytes, c->deadline, &c->room);
    if (!e)
        e = await_key(c, ret_replay);
    if (e || *ret_replay)
        return e;
    e = await_record_intent(c);
    if (!e)
        permitted(c);
    return e;
}
