/*
 * methods.c -- every method that is served, in which era, and what it needs
 *
 * A method of a capability that is not offered (no connector has prompts, say) is as unknown as any other: what is
 * declared and what is answered cannot differ, both come from `offered`.
 */
#include "mcp/internal.h"

static bool has_tools(const struct registry *r)
{
    return r->n_tools > 0;
}

static bool has_prompts(const struct registry *r)
{
    return r->n_prompts > 0;
}

static bool has_resources(const struct registry *r)
{
    return r->n_resources > 0;
}

static bool has_completions(const struct registry *r)
{
    for (size_t i = 0; i < r->n_prompts; i++)
        if (r->prompts[i]->complete)
            return true;
    return false;
}

enum { BOTH = IN_LEGACY | IN_MODERN };

/* The most frequent first. */
static const struct method methods[] = {
    { STR("tools/call"),            BOTH | ASKS,            "name", NULL,               has_tools },
    { STR("server/discover"),       IN_MODERN | CACHEABLE,  NULL,   answer_discover,    NULL },
    { STR("initialize"),            IN_LEGACY,              NULL,   answer_initialize,  NULL },
    { STR("ping"),                  IN_LEGACY | BARE,       NULL,   answer_empty,       NULL },
    { STR("logging/setLevel"),      IN_LEGACY | BARE,       NULL,   answer_set_level,   NULL },
    { STR("tools/list"),            BOTH | CACHEABLE,       NULL,   answer_tools,       has_tools },
    { STR("prompts/list"),          BOTH | CACHEABLE,       NULL,   answer_prompts,     has_prompts },
    { STR("prompts/get"),           BOTH | ASKS,            "name", answer_prompt,      has_prompts },
    { STR("resources/list"),        BOTH | CACHEABLE,       NULL,   answer_resources,   has_resources },
    { STR("resources/templates/list"), BOTH | CACHEABLE,    NULL,   answer_templates,   has_resources },
    { STR("resources/read"),        BOTH | ASKS | CACHEABLE, "uri", answer_resource,    has_resources },
    { STR("resources/subscribe"),   IN_LEGACY | BARE,       NULL,   answer_subscribe,   has_resources },
    { STR("resources/unsubscribe"), IN_LEGACY | BARE,       NULL,   answer_subscribe,   has_resources },
    { STR("completion/complete"),   BOTH,                   NULL,   answer_complete,    has_completions },
    { STR("subscriptions/listen"),  IN_MODERN,              NULL,   answer_listen,      NULL },
};

const struct method *method_find(struct str name, enum era era, const struct registry *r)
{
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        const struct method *m = &methods[i];

        if (str_eq(name, m->name) && (m->flags & (era == ERA_MODERN ? IN_MODERN : IN_LEGACY)))
            return !m->offered || m->offered(r) ? m : NULL;
    }
    return NULL;
}

/* Nothing of ours tells when a resource changes: legacy clients may subscribe (the method is theirs), modern ones
 * see that there is nothing to hear. */
void write_capabilities(struct buf *b, const struct registry *r, enum era era)
{
    buf_add_z(b, "{\"logging\":{}");
    if (has_tools(r))
        buf_add_z(b, ",\"tools\":{\"listChanged\":true}");
    if (has_prompts(r))
        buf_add_z(b, ",\"prompts\":{\"listChanged\":true}");
    if (has_resources(r))
        buf_add_z(b, era == ERA_MODERN ? ",\"resources\":{\"listChanged\":true}" :
                  ",\"resources\":{\"subscribe\":true,\"listChanged\":true}");
    if (has_completions(r))
        buf_add_z(b, ",\"completions\":{}");
    buf_add_c(b, '}');
}
