/* internal.h -- what the files of admin/ share */
#ifndef ADMIN_INTERNAL_H
#define ADMIN_INTERNAL_H

#include "admin/admin.h"
#include "base/arena.h"
#include "call/call.h"
#include "json/json.h"

/* One request to /v1/ or /connect/, as a call. */
struct turn {
    struct http_request *rq;
    struct worker *w;
    const struct mcp *mcp;
    const struct route *route;
    struct str rest;                    /* of the path, behind the route's */
    struct json *body;                  /* of the request */
    struct str form;                    /* of the request, where it is one; else the query */
    struct vault_pending pending;       /* of the state, on /connect/ */
    /* the answer */
    int status;
    struct json *json;                  /* or ... */
    struct str page;                    /* ... HTML */
    struct str cookie, location;        /* "" or NULL: none */
};

struct route {
    const char *method, *path, *name;   /* name: the call's method in the journal */
    bool more;                          /* something follows the path */
    bool state;                         /* a browser with a state, not a client with a token */
    enum err (*await_answer)(struct call *c, struct turn *t);
};

void await_answer_text(struct http_request *rq, int status, const char *text);

/* accounts.c: /v1/ */
enum err await_accounts_list(struct call *c, struct turn *t);
enum err await_accounts_connect(struct call *c, struct turn *t);
enum err await_accounts_put(struct call *c, struct turn *t);
enum err await_accounts_disconnect(struct call *c, struct turn *t);
/* delegations.c */
enum err await_delegations_list(struct call *c, struct turn *t);
enum err await_delegations_record(struct call *c, struct turn *t);
enum err await_delegations_revoke(struct call *c, struct turn *t);
/* limits.c: /v1/limits */
enum err await_limits_list(struct call *c, struct turn *t);
enum err await_limits_all(struct call *c, struct turn *t);
/* connect.c: /connect/ */
enum err await_connect_page(struct call *c, struct turn *t);
enum err await_connect_go(struct call *c, struct turn *t);
enum err await_connect_callback(struct call *c, struct turn *t);
/* The page that confirms, for a state: base + "/connect/start?...". */
struct str connect_start_url(struct call *c, struct turn *t, struct str state, struct str authorize_url);
struct str connect_redirect_uri(struct call *c, struct turn *t);

/* turn.c */
void await_admin_call(struct http_request *rq, struct worker *w, const struct mcp *m);

/*
 * change.c: the records of a change.  Begin, and only if that is OK change what is to be changed; end in any case, with
 * what came of it.  Members that are added before the beginning are in both records, others in the second.
 */
struct change {
    struct call *c;
    const char *event;
    struct buf said;
    bool begun;
};

/* key: "provider" or "delegate". */
struct change change_of(struct call *c, const char *event, const char *key, struct str with);
void change_str(struct change *ch, const char *key, struct str v);
void change_delegated(struct change *ch, const struct str *actions, unsigned n_actions, wall_ms_t expires);
enum err await_change_begin(struct change *ch);         /* E_JOURNAL_UNWRITABLE, E_CANCELLED: then nothing may change */
void change_end(struct change *ch, enum err e);

#endif
