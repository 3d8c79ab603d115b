/*
 * headless.h -- connecting an account without a person: the real flow, with a browser that knows one login page
 *
 *   POST <engine>/v1/connect       {provider, label} -> the URL a user's browser would open
 *   GET  that URL                  the engine's page that says what is to be connected, for whom
 *   POST its form                  303 to the provider, and a cookie
 *   GET  the provider's page       its login form is read, hidden fields and all
 *   POST the form                  with the user's name; the provider answers 302
 *   GET  <engine>/connect/callback with the cookie: the engine redeems the code and keeps the grant
 *
 * It works with the sandbox's page and nothing else: real providers ask people.
 */
#ifndef CLI_HEADLESS_H
#define CLI_HEADLESS_H

#include "base/arena.h"
#include "cli/client.h"

struct headless_spec {
    struct client *client;
    const char *base;               /* of the engine, without path */
    const char *authorization;      /* "Authorization: Bearer ..." */
    const char *provider, *user;
    /* Once. OK: the account is connected. Anything else: what went wrong is in info. */
    void (*on_done)(enum err e, const struct errinfo *info, void *arg);
    void *arg;
};

/* Copies the texts. Goes on with client_step(). */
void headless_begin(const struct headless_spec *spec);
/* The same, waited for. spec->on_done is not used. */
enum err headless_login(const struct headless_spec *spec, struct errinfo *info);

/* The form of a login page as the body of its POST: every <input> with a name, the one called "user" with `user` as
 * value. ret_action: where it goes. E_FORMAT: there is no form. */
enum err headless_form(struct arena *a, struct str page, struct str user, struct str *ret_action, struct str *ret_body);

#endif
