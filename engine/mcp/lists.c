/*
 * lists.c -- tools, prompts, resources and templates: what this caller may be offered, page by page
 *
 * The order is the registry's and so the same every time; a list shows what policy could allow this caller, and a call
 * is decided again all the same.  A cursor is base64url of "<letter>:<name of the last entry shown>"; nothing is kept
 * for it.
 *
 * Text of the registry goes into the answer as it is (schemas are serialised once, at start).
 */
#include "base/crypto.h"
#include "mcp/internal.h"

enum { LIST_MAX = 8 << 20 };            /* bytes of one page */

/* One page being made. */
struct page {
    struct call *c;
    struct turn *t;
    char letter;
    struct str after;                   /* the name behind which this page begins; .p NULL: the beginning */
    bool begun;                         /* that name has been passed */
    unsigned shown;
    bool more;
    struct str last;
    struct buf text;                    /* "[{..},{..}" */
};

static enum err page_begin(struct page *p, struct call *c, struct turn *t, char letter)
{
    struct json *cursor = json_get(t->msg.params, "cursor");
    struct str s = json_str(cursor), plain;

    *p = (struct page){ .c = c, .t = t, .letter = letter, .begun = true, .text = BUF_INIT(LIST_MAX) };
    buf_add_c(&p->text, '[');
    if (!cursor || (json_is(cursor, JSON_STRING) && s.len == 0))
        return OK;
    if (s.len == 0 || b64url_decode(&c->arena, s, &plain) || plain.len < 3 || plain.p[0] != letter ||
        plain.p[1] != ':') {
        buf_release(&p->text);
        return call_why(c, E_RPC_PARAMS, "this cursor is none of this list's");
    }
    p->after = str_from(plain, 2);
    p->begun = false;
    return OK;
}

/* Is this entry on this page? Allowed ones only: ask policy after this. */
static bool page_wants(struct page *p, struct str name)
{
    if (p->begun)
        return true;
    p->begun = str_eq(name, p->after);
    return false;
}

/* True: write the entry now. False: the page is full. */
static bool page_entry(struct page *p, struct str name)
{
    if (p->shown == p->t->wire->mcp->opt.page) {
        p->more = true;
        return false;
    }
    if (p->shown++)
        buf_add_c(&p->text, ',');
    p->last = name;
    return true;
}

static enum err page_end(struct page *p, const char *key)
{
    struct call *c = p->c;
    struct buf cursor = BUF_INIT(4096), plain = BUF_INIT(4096);
    struct str text;

    buf_add_c(&p->text, ']');
    text = arena_str(&c->arena, buf_str(&p->text));
    if (p->text.overflow || !text.p || !p->begun) {
        enum err e = p->begun ? E_CALL_TOO_LARGE : call_why(c, E_RPC_PARAMS, "the list has changed: begin it again");

        buf_release(&p->text);
        return e;
    }
    buf_release(&p->text);
    c->answer = json_object(&c->arena);
    json_set(&c->arena, c->answer, key, json_raw(&c->arena, text));
    if (p->more) {
        buf_addf(&plain, "%c:", p->letter);
        buf_add_str(&plain, p->last);
        buf_add_b64url(&cursor, buf_str(&plain));
        json_set_str(&c->arena, c->answer, "nextCursor", buf_str(&cursor));
    }
    buf_release(&cursor);
    buf_release(&plain);
    return OK;
}

static void member(struct buf *b, const char *key, const char *value)
{
    if (!value)
        return;
    buf_addf(b, ",\"%s\":", key);
    buf_add_json_str(b, str_of(value));
}

/* Policy for what is no tool, as a question: nothing of the answer is kept. */
static bool may_see(struct call *c, const struct provider *p, const char *name)
{
    const struct provider_conf *conf = registry_provider(c->registry, str_of(p->name));
    bool allowed = conf && call_decide_named(c, conf, str_of(name)) == OK;

    c->sides = NULL;
    c->n_sides = 0;
    call_unsay(c);
    return allowed;
}

/* ---- tools ------------------------------------------------------------------------------------------------------- */

static void add_hint(struct buf *b, const char *name, bool on)
{
    buf_addf(b, ",\"%s\":%s", name, on ? "true" : "false");
}

static void write_tool(struct buf *b, const struct tool *tool, enum revision r)
{
    const struct tool_decl *d = tool->decl;
    bool reads = d->effect == EFFECT_READS, destroys = d->effect == EFFECT_DESTROYS;

    buf_add_z(b, "{\"name\":");
    buf_add_json_str(b, tool->name);
    if (r >= REV_2025_06_18) {
        buf_add_z(b, ",\"title\":");
        buf_add_json_str(b, tool->title);
    }
    member(b, "description", d->summary);
    buf_add_z(b, ",\"inputSchema\":");
    buf_add_str(b, tool->input_schema);
    if (tool->output_schema.len && (r == REV_2026_07_28 ||
        (r >= REV_2025_06_18 && str_is(json_str(json_get(tool->output_tree, "type")), "object")))) {
        buf_add_z(b, ",\"outputSchema\":");
        buf_add_str(b, tool->output_schema);
    }
    buf_add_z(b, ",\"annotations\":{\"title\":");
    buf_add_json_str(b, tool->title);
    add_hint(b, "readOnlyHint", reads);
    add_hint(b, "destructiveHint", destroys);
    add_hint(b, "idempotentHint", reads || d->once.kind == ONCE_NATURAL);
    add_hint(b, "openWorldHint", !tool->provider->decl->no_account);
    buf_add_z(b, "}}");
}

enum err answer_tools(struct call *c, struct turn *t)
{
    struct page p;
    enum err e = page_begin(&p, c, t, 't');

    if (e)
        return e;
    for (size_t i = 0; i < c->registry->n_tools; i++) {
        const struct tool *tool = &c->registry->tools[i];

        if (!page_wants(&p, tool->name) || !call_could_allow(c, tool))
            continue;
        if (!page_entry(&p, tool->name))
            break;
        write_tool(&p.text, tool, t->msg.revision);
    }
    return page_end(&p, "tools");
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

static void write_prompt(struct buf *b, const struct prompt_decl *d, enum revision r)
{
    buf_add_z(b, "{\"name\":");
    buf_add_json_str(b, str_of(d->name));
    if (r >= REV_2025_06_18)
        member(b, "title", d->title);
    member(b, "description", d->summary);
    if (d->args && d->args->name)
        buf_add_z(b, ",\"arguments\":[");
    for (const struct field *f = d->args; f && f->name; f++) {
        buf_add_z(b, f == d->args ? "{\"name\":" : ",{\"name\":");
        buf_add_json_str(b, str_of(f->name));
        member(b, "description", f->doc);
        buf_addf(b, ",\"required\":%s}", f->flags & OPTIONAL ? "false" : "true");
    }
    buf_add_z(b, d->args && d->args->name ? "]}" : "}");
}

enum err answer_prompts(struct call *c, struct turn *t)
{
    struct page p;
    enum err e = page_begin(&p, c, t, 'p');

    if (e)
        return e;
    for (size_t i = 0; i < c->registry->n_prompts; i++) {
        const struct prompt_decl *d = c->registry->prompts[i];

        if (!page_wants(&p, str_of(d->name)) || !may_see(c, d->provider, d->name))
            continue;
        if (!page_entry(&p, str_of(d->name)))
            break;
        write_prompt(&p.text, d, t->msg.revision);
    }
    return page_end(&p, "prompts");
}

/* ---- resources --------------------------------------------------------------------------------------------------- */

static void write_resource(struct buf *b, const struct resource_decl *d, enum revision r)
{
    buf_add_z(b, d->is_template ? "{\"uriTemplate\":" : "{\"uri\":");
    buf_add_json_str(b, str_of(d->uri));
    member(b, "name", d->name);
    if (r >= REV_2025_06_18)
        member(b, "title", d->title);
    member(b, "description", d->summary);
    member(b, "mimeType", d->mime);
    buf_add_c(b, '}');
}

static enum err list_resources(struct call *c, struct turn *t, bool templates, const char *key)
{
    struct page p;
    enum err e = page_begin(&p, c, t, templates ? 'm' : 'r');

    if (e)
        return e;
    for (size_t i = 0; i < c->registry->n_resources; i++) {
        const struct resource_decl *d = c->registry->resources[i];

        if (d->is_template != templates || !page_wants(&p, str_of(d->uri)) || !may_see(c, d->provider, d->name))
            continue;
        if (!page_entry(&p, str_of(d->uri)))
            break;
        write_resource(&p.text, d, t->msg.revision);
    }
    return page_end(&p, key);
}

enum err answer_resources(struct call *c, struct turn *t)
{
    return list_resources(c, t, false, "resources");
}

enum err answer_templates(struct call *c, struct turn *t)
{
    return list_resources(c, t, true, "resourceTemplates");
}
