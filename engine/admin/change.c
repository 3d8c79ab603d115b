/*
 * change.c -- what changes an account or a delegation is an operator's matter as well: two records beside the call's
 *
 * Nothing is changed before the first is on disk, so that a crash between store and journal leaves no change without a
 * trace, and there is room for the second and the call's own by then.
 *
 * ADMIN
 *   event                connect_begin, connect_finish, account_put, disconnect, delegation_record, delegation_revoke
 *   call, tenant, user, agent                                                            who
 *   provider, account    of accounts                                                     what
 *   delegate, delegation of delegations: the agent, the record's id
 *   actions [..], or everything (true)                                                   what the agent may do
 *   expires              until when (ms since 1970); left out where it has no end
 *   replaces             the id of the delegation that it took the place of
 *   outcome              "begun"; then "done" or "refused"
 *   error                with "refused"
 * The ids of what a change makes and replaces are in the second only.
 */
#include "admin/internal.h"
#include "base/escape.h"
#include "base/log.h"

enum { END_BYTES = 1024, OWN_BYTES = 8192 };    /* what the second adds at most; the call's own, beside who asks */

static void add_key(struct change *ch, const char *key)
{
    buf_add_c(&ch->said, ch->said.len ? ',' : '{');
    buf_add_json_str(&ch->said, str_of(key));
    buf_add_c(&ch->said, ':');
}

void change_str(struct change *ch, const char *key, struct str v)
{
    add_key(ch, key);
    buf_add_json_str(&ch->said, v);
}

void change_delegated(struct change *ch, const struct str *actions, unsigned n_actions, wall_ms_t expires)
{
    add_key(ch, n_actions ? "actions" : "everything");
    if (n_actions)
        buf_add_json_strs(&ch->said, actions, n_actions);
    else
        buf_add_z(&ch->said, "true");
    if (expires != INT64_MAX) {
        add_key(ch, "expires");
        buf_add_i64(&ch->said, expires);
    }
}

struct change change_of(struct call *c, const char *event, const char *key, struct str with)
{
    struct change ch = { .c = c, .event = event, .said = BUF_INIT(JOURNAL_PAYLOAD_MAX) };

    change_str(&ch, "event", str_of(event));
    change_str(&ch, "call", str_of(c->id.z));
    change_str(&ch, "tenant", c->caller->tenant);
    change_str(&ch, "user", c->caller->user);
    change_str(&ch, "agent", c->caller->agent);
    change_str(&ch, key, with);
    return ch;
}

static enum err append(struct change *ch, const char *outcome, enum err why, uint64_t *ret_seq)
{
    struct journal_lane *lane = ch->c->worker->lane;
    size_t shared = ch->said.len;
    enum err e;

    change_str(ch, "outcome", str_of(outcome));
    if (why)
        change_str(ch, "error", str_of(err_name(why)));
    buf_add_c(&ch->said, '}');
    e = ch->said.overflow ? E_CALL_TOO_LARGE
                          : journal_append(lane, JOURNAL_ADMIN, buf_str(&ch->said), &ch->c->room, ret_seq);
    ch->said.len = shared;
    return e;
}

static enum err await_room(struct change *ch)
{
    struct buf who = BUF_INIT(JOURNAL_PAYLOAD_MAX);
    size_t bytes;

    caller_members(ch->c->caller, &who);
    bytes = 2 * (ch->said.len + END_BYTES) + OWN_BYTES + who.len;
    buf_release(&who);
    return await_journal_reserve(ch->c->worker->lane, 3, bytes, ch->c->deadline, &ch->c->room);
}

enum err await_change_begin(struct change *ch)
{
    enum err e = await_room(ch);
    uint64_t seq;

    if (!e)
        e = append(ch, "begun", OK, &seq);
    if (e)
        return e;
    ch->begun = true;
    return await_journal_commit(ch->c->worker->lane, seq, NS_NEVER);
}

void change_end(struct change *ch, enum err e)
{
    uint64_t seq;

    if (ch->begun && append(ch, e ? "refused" : "done", e, &seq))
        LOG_ERROR("a change could not be recorded", LOG_S("event", ch->event), LOG_S("call", ch->c->id.z));
    if (!e)
        ch->c->effects_sent = ch->c->effects_done = 1;  /* whoever cannot be told of the record is told of the change */
    buf_release(&ch->said);
}
