/* internal.h -- the sandbox's state, and what its files share */
#ifndef SANDBOX_INTERNAL_H
#define SANDBOX_INTERNAL_H

#include "base/arena.h"
#include "base/check.h"
#include "base/ids.h"
#include "base/map.h"
#include "http/http.h"
#include "json/json.h"
#include "loop/task.h"
#include "connectors/sandbox/sandbox.h"

enum { MAILBOXES_MAX = 100000, MESSAGES_MAX = 10000, EVENTS_MAX = 10000, REQUEST_ARENA = 2 << 20 };

/* A sliding window: what was used, entry by entry. */
struct meter {
    struct meter_entry {
        ns_t at;
        int64_t units;
    } *ring;
    size_t head, n, cap;
    int64_t sum;
};

struct message {
    struct message *next;           /* newest first */
    char id[ID_MAX], from[256];
    char *subject, *body, *to;      /* to: JSON array of addresses */
    wall_ms_t received;
    bool draft, read;
};

struct event {
    struct event *next;
    char id[ID_MAX], transaction[128];
    char *subject;
    wall_ms_t start, end;
};

struct mailbox {
    char user[256];
    struct message *messages;
    struct event *events;
    unsigned n_messages, n_events;
    unsigned in_flight, in_flight_max;
    struct meter requests;
};

/* A line of refresh tokens: using an old one ends it. */
struct family {
    struct mailbox *mailbox;
    char scopes[512];
    bool dead;
};

struct code {
    char id[ID_MAX], redirect[512], challenge[64], scopes[512];
    struct mailbox *mailbox;
    bool used;
    ns_t expires;
};

struct token {
    char id[ID_MAX];
    struct family *family;
    bool refresh, used;
    ns_t expires;
};

/* The real limits, and what came of them. */
struct quota_limits {
    int64_t requests, requests_window_ms, units, units_window_ms, spacing_ms, method, method_window_ms, points,
        points_window_ms;
};

struct quota_count {
    uint64_t requests, limited;
};

struct quota {
    struct quota_limits limits;
    struct map users, channels;
    int64_t points_used;
    wall_ms_t points_began;
    struct quota_count units, posts, points;
};

struct sandbox {
    struct sandbox_options opt;
    struct http_server *http;
    struct map mailboxes, codes, tokens;
    struct family **families;
    size_t n_families, cap_families;
    int64_t delay_ms;
    unsigned fail_next, lose_next;
    struct quota quota;
    struct {
        uint64_t requests, limited, refreshes, reuse, sent, events, in_flight, in_flight_max;
    } stats;
};

/* One request: what handlers need. */
struct turn {
    struct sandbox *s;
    struct http_request *rq;
    struct arena arena;
    struct mailbox *mailbox;
    struct family *family;
};

/* answer.c */
void await_json(struct turn *t, int status, struct json *body);
void await_graph_error(struct turn *t, int status, const char *code, const char *message);
struct str query_value(struct turn *t, const char *name);
struct mailbox *mailbox_of(struct sandbox *s, struct str user);

/* oauth.c */
bool oauth_serves(struct str path);
void oauth_handle(struct turn *t);
/* The token's mailbox, or an error has been answered. */
bool await_authorized(struct turn *t, const char *scope);

/* mail.c, calendar.c */
void mail_handle(struct turn *t, struct str rest);
void mail_seed(struct mailbox *m, wall_ms_t now);
void calendar_handle(struct turn *t, struct str rest);
void mailbox_free(struct mailbox *m);

/* quota.c */
void quota_init(struct quota *q);
void quota_free(struct quota *q);
void quota_handle(struct turn *t, struct str rest);
void await_quota_limits(struct turn *t);
void quota_stats(struct turn *t, struct json *to);
/* Takes cost from a window that slides; false: it does not fit, and *ret_wait is when it would. count_refused: what
 * does not fit counts all the same. */
bool meter_take(struct meter *m, int64_t amount, int64_t window_ms, int64_t cost, bool count_refused, ns_t now,
                ns_t *ret_wait);
void meter_free(struct meter *m);
/* answer.c: 429 with Retry-After */
void await_throttled(struct turn *t, const char *message, ns_t wait);

#endif
