/*
 * admin.h -- health, metrics, and the accounts and delegations of whoever asks
 *
 *   GET    /healthz                  200 while the process runs                                     not recorded
 *   GET    /readyz                   200 when calls could be made and recorded, else 503            not recorded
 *   GET    /metrics                  Prometheus text; loopback peers only                           not recorded
 *   GET    /v1/accounts              the caller's accounts                            token, policy accounts.list
 *   POST   /v1/connect               {provider, label?} -> {url} for the user's browser  token, policy accounts.connect
 *   POST   /v1/accounts              {provider, label?, token, external_id?}          token, policy accounts.put
 *   DELETE /v1/accounts/ID           revokes at the provider, then forgets            token, policy accounts.disconnect
 *   GET    /v1/delegations           what the user lets agents do                     token, policy delegations.list
 *   POST   /v1/delegations           {agent, actions?, seconds?} -> {id}              token, policy delegations.record
 *   DELETE /v1/delegations/ID        in force at once                                 token, policy delegations.revoke
 *   GET    /v1/limits                where the caller's tenant stands in line         token, policy limits.list
 *   GET    /v1/limits/all            where all tenants do                             token with OPERATOR_SCOPE
 *   GET    /connect/start            the page that says what is about to be connected, for whom   the state
 *   POST   /connect/start            its button: on to the provider, with a cookie    the state
 *   GET    /connect/callback         where the provider sends the browser back        the state and that cookie
 *
 * The last twelve are calls like any other (call/call.h): identified, decided, counted, recorded once.  What changes an
 * account or a delegation is in the journal as an ADMIN record too.
 */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "base/str.h"
#include "call/engine.h"
#include "http/http.h"
#include "mcp/mcp.h"

bool admin_serves(struct str path);
void admin_handle(struct http_request *rq, struct worker *w, const struct mcp *m);

#endif
