/*
 * sandbox.h -- the built-in provider: a strict OAuth server and an Outlook-like mail and calendar API
 *
 * For trying out, testing and benching: it speaks the part of Microsoft Graph that connectors/outlook uses, keeps
 * everything in memory, and is as unforgiving as the real one: PKCE required, codes and refresh tokens work once (a
 * refresh token used twice ends its family), scopes are checked, four requests at once and 10,000 in ten minutes per
 * mailbox and not one more.
 *
 *   GET  /oauth2/v2.0/authorize    the login page
 *   POST /oauth2/v2.0/login        what its form sends: 302 to the redirect URI
 *   POST /oauth2/v2.0/token        authorization_code, refresh_token
 *   POST /oauth2/v2.0/revoke       RFC 7009
 *   GET  /v1.0/me/messages[/ID]    $top, $search, $select, $filter=[... and ]isRead eq false: refused beside an
 *                                  $orderby of something that does not come first in it
 *   POST /v1.0/me/messages         a draft; /v1.0/me/messages/ID/send sends it
 *   POST /v1.0/me/calendar/getSchedule, POST /v1.0/me/events (transactionId absorbs repeats), GET /v1.0/me/calendarView
 *   GET  /sandbox/stats            what has happened, for tests: JSON
 *   ... /quota/...                 limits as Gmail, Slack and Jira have them, for tests and benches: see quota.c
 *   POST /sandbox/limits           the real limits, at run time: requests, requests_window_ms, concurrency, units, ...
 *   POST /sandbox/faults           {delay_ms, expire_tokens, fail_next, lose_next}: for tests
 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include "base/clock.h"
#include "base/err.h"

struct sandbox;

#define SANDBOX_CLIENT_ID     "sandbox-client"
#define SANDBOX_CLIENT_SECRET "sandbox-secret"      /* public: it protects nothing but a toy */

struct sandbox_options {
    const char *listen;             /* loopback only */
    int64_t delay_ms;               /* before each answer of the API */
    int64_t token_ttl_s;            /* 0: 3600 */
    int64_t concurrency;            /* at once per mailbox; 0: 4 */
};

/* On the calling thread's loop. E_CONFIG, E_IO with the reason in info. */
enum err sandbox_start(const struct sandbox_options *opt, struct sandbox **ret, struct errinfo *info);
void sandbox_name(const struct sandbox *s, char out[64]);       /* "127.0.0.1:7412" */
/* Ends its server; open requests are cut. The memory goes when the loop has ended: sandbox_free(). */
void sandbox_stop(struct sandbox *s);
void sandbox_free(struct sandbox *s);

/* The same on a thread and a loop of its own. */
struct sandbox_thread;
enum err sandbox_thread_start(const struct sandbox_options *opt, struct sandbox_thread **ret, char name[64],
                              struct errinfo *info);
void sandbox_thread_stop(struct sandbox_thread *t);

#endif
