/*
 * challenge.c -- what clients are told: WWW-Authenticate (RFC 6750, RFC 9728) and the resource's metadata (RFC 9728)
 */
#include "identity/internal.h"

/* quoted-string content; what would need an escape has no business in these values and is left out. */
static void add_quoted(struct buf *out, const char *name, struct str value, bool *first)
{
    buf_add_z(out, *first ? " " : ", ");
    *first = false;
    buf_add_z(out, name);
    buf_add_z(out, "=\"");
    for (size_t i = 0; i < value.len; i++) {
        if (value.p[i] >= 0x20 && value.p[i] < 0x7f && value.p[i] != '"' && value.p[i] != '\\')
            buf_add_c(out, value.p[i]);
    }
    buf_add_c(out, '"');
}

void identity_challenge(struct buf *out, enum err e, struct str metadata_url, struct str scope)
{
    bool first = true;

    buf_add_z(out, "Bearer");
    /* RFC 6750 3.1: no error code when the request carried no authentication at all. */
    if (e == E_SCOPE_INSUFFICIENT)
        add_quoted(out, "error", STR("insufficient_scope"), &first);
    else if (e != E_TOKEN_MISSING)
        add_quoted(out, "error", STR("invalid_token"), &first);
    if (e != E_TOKEN_MISSING)
        add_quoted(out, "error_description", str_of(err_text(e)), &first);
    if (!str_empty(scope))
        add_quoted(out, "scope", scope, &first);
    if (!str_empty(metadata_url))
        add_quoted(out, "resource_metadata", metadata_url, &first);
}

void identity_metadata(struct identity *id, struct str resource, const struct str *scopes, size_t n_scopes,
    struct buf *out)
{
    struct issuer_set *set = identity_issuers(id);

    buf_add_z(out, "{\"resource\":");
    buf_add_json_str(out, resource);
    buf_add_z(out, ",\"authorization_servers\":[");
    for (unsigned i = 0; i < set->n; i++) {
        if (i)
            buf_add_c(out, ',');
        buf_add_json_str(out, set->list[i].c.issuer);
    }
    buf_add_z(out, "],\"bearer_methods_supported\":[\"header\"]");
    if (n_scopes) {
        buf_add_z(out, ",\"scopes_supported\":[");
        for (size_t i = 0; i < n_scopes; i++) {
            if (i)
                buf_add_c(out, ',');
            buf_add_json_str(out, scopes[i]);
        }
        buf_add_c(out, ']');
    }
    buf_add_c(out, '}');
    issuer_set_release(set);
}
