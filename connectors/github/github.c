/*
 * github.c -- issues and reviews on GitHub, through its REST API
 *
 * Tools:     github.create_issue, github.comment_and_close, github.list_review_requests
 * Upstream:  GET /repos/{o}/{r}, .../labels, .../pulls, POST and GET .../issues, POST and GET .../issues/{n}/comments,
 *            GET and PATCH .../issues/{n}, GET /user
 *
 * GitHub answers to a repository's name in any case; policies compare letter by letter.  So every tool first asks for
 * the repository and goes on only if it was named as GitHub spells it: one repository has one name here.
 *
 * GitHub has no idempotency key.  What is written carries the call's key in an HTML comment, which nobody sees on the
 * page and which a lost answer can be settled by: found means done; not found proves nothing, for it may still be on
 * its way.
 *
 * Limits are per user: a quota per hour, points per minute, 100 requests at once, and what may be written.  Exceeding
 * them answers 403 or 429; beyond the quota, which header fields tell, often only the message says so.
 */
#include "connectors/connector.h"

static const struct oauth github_oauth = {
    .auth_url = "https://github.com",
    .authorize_path = "/login/oauth/authorize",
    .token_path = "/login/oauth/access_token",
    .rotates = true,
};

enum {
    LIMITED_MS = 60000,         /* what GitHub asks for where it names no time: at least a minute */
    LOOK_BACK_MS = 60000,       /* how far the clocks of GitHub and of the engine may be apart */
};

/* 403 is "limited" when a quota is used up or GitHub's own words name a rate limit, else a refusal: beside those of the
 * quota there are limits that come with any X-RateLimit-Remaining and often without Retry-After. */
static enum answer github_answer(struct answer_info *in)
{
    const char *left = in->header(in, "x-ratelimit-remaining"), *after = in->header(in, "retry-after");
    enum answer a = answer_by_status(in);
    bool used_up = left && left[0] == '0' && !left[1];

    answer_message(in, in->body, "message");
    if (in->status == 403 && (after || used_up || text_contains(in->message, "rate limit")))
        a = ANSWER_LIMITED;
    if (a != ANSWER_LIMITED)
        return a;
    in->limit = used_up ? "user_requests" : "user_points";
    if (!used_up && text_contains(in->message, "content creation"))
        in->limit = "user_content";
    if (!in->retry_after_ms && used_up)
        answer_retry_at(in, in->header(in, "x-ratelimit-reset"));
    if (!in->retry_after_ms)
        in->retry_after_ms = LIMITED_MS;
    return a;
}

PROVIDER(github,
    .name = "github",
    .title = "GitHub",
    .base_url = "https://api.github.com",
    .oauth = &github_oauth,
    .resource = "Repository",
    .headers = NAMES("X-GitHub-Api-Version: 2022-11-28"),
    .limits = LIMITS({ .name = "user_concurrency", .scope = PER_ACCOUNT, .concurrency = 100,
                       .source = "documented: 100 requests at once" },
                     { .name = "user_requests", .scope = PER_ACCOUNT, .amount = 5000, .window_ms = 3600000,
                       .told = "X-RateLimit", .source = "documented: 5,000 an hour; 15,000 for enterprise apps" },
                     { .name = "user_points", .scope = PER_ACCOUNT, .amount = 900, .window_ms = 60000,
                       .unit = "points", .source = "documented: 900 points a minute" },
                     { .name = "user_content", .scope = PER_METHOD, .amount = 80, .window_ms = 60000,
                       .source = "documented: in general 80 a minute that create content" }),
    /* All that writes is one row, so that limit has one key an account. The 500 an hour documented beside it are left
     * to GitHub's word: spread evenly, they would part a comment from the closing that goes with it. */
    .requests = REQUESTS({ .request = "GET *", .cost = 1 },
                         { .request = "* *", .cost = 5, .limits = NAMES("user_content") }),
    .classify = github_answer)

#define REPOSITORY { "repository", T_STRING, 3, 140, "owner/name" }

/* Splits "owner/name"; NULL in *ret_name if it is nothing of the kind. */
static void split(struct call *call, const char **ret_owner, const char **ret_name)
{
    const char *both = arg_str(call, "repository"), *p = both;

    while (*p && *p != '/')
        p++;
    *ret_owner = text(call, "%.*s", (int)(p - both), both);
    *ret_name = *p ? p + 1 : NULL;
    for (const char *q = *ret_name; q && *q; q++)
        if (*q == '/')
            *ret_name = NULL;
}

static enum err await_repository(struct call *call, const char **ret_owner, const char **ret_name)
{
    struct json *repository;
    const char *spelled;
    enum err e;

    split(call, ret_owner, ret_name);
    if (!*ret_name || !**ret_name || !**ret_owner)
        return fail(call, E_ARGS_INVALID, "repository must be written owner/name");
    e = await_get(call, &repository, path(call, "/repos/{}/{}", *ret_owner, *ret_name, NULL));
    if (e)
        return e;
    spelled = js_str(call, repository, "full_name");
    if (!answer_text_is(js_get(repository, "full_name"), arg_str(call, "repository")))
        return fail(call, E_ARGS_INVALID, "the repository is written %s", spelled);
    return OK;
}

static const char *marked(struct call *call, const char *body)
{
    return text(call, "%s\n\n<!-- sluice:%s -->", body, call_key(call));
}

static bool has_mark(struct call *call, struct json *item)
{
    const char *body = js_str(call, item, "body"), *mark = text(call, "<!-- sluice:%s -->", call_key(call));

    for (; *body; body++) {
        size_t i = 0;

        while (mark[i] && body[i] == mark[i])
            i++;
        if (!mark[i])
            return true;
    }
    return false;
}

/* ---- create an issue --------------------------------------------------------------------------------------------- */

enum { PAGE = 100, LABEL_PAGES_MAX = 10 };

/* The repository's own spelling of each label asked for; what is not there is named. */
static enum err await_labels(struct call *call, const char *owner, const char *name, struct json **ret)
{
    struct json *found = js_arr(call), *page;
    size_t want = arg_count(call, "labels");
    bool *seen = want ? call_memory(call, want) : NULL, all = false;
    enum err e;

    for (int n = 1; want && !all && n <= LABEL_PAGES_MAX; n++) {
        e = await_get(call, &page, query(call, path(call, "/repos/{}/{}/labels", owner, name, NULL),
                                         "per_page", text(call, "%d", PAGE), "page", text(call, "%d", n), NULL));
        if (e)
            return e;
        for (struct json *label = js_first(page); label; label = js_next(label)) {
            bool wanted = false;

            for (size_t i = 0; seen && i < want; i++) {
                if (text_equal_folded(js_str(call, label, "name"), arg_item(call, "labels", i)))
                    wanted = seen[i] = true;
            }
            if (wanted)
                js_push_str(call, found, js_str(call, label, "name"));
        }
        all = js_len(page) < PAGE;
    }
    for (size_t i = 0; seen && i < want; i++)
        if (!seen[i])
            return fail(call, E_NO_RESULT, "%s/%s has no label \"%s\"%s", owner, name, arg_item(call, "labels", i),
                        all ? "" : text(call, " among its first %d", PAGE * LABEL_PAGES_MAX));
    *ret = found;
    return OK;
}

/* The labels are told as they are: GitHub drops them without a word where the user may not set any. */
static void issue_result(struct call *call, struct json *issue)
{
    struct json *labels = js_arr(call);

    for (struct json *label = js_first(js_get(issue, "labels")); label; label = js_next(label))
        js_push_str(call, labels, js_str(call, label, "name"));
    result_json(call, "labels", labels);
    result_int(call, "number", js_int(issue, "number", 0));
    result_str(call, "url", js_str(call, issue, "html_url"));
}

static enum settled await_was_created(struct call *call)
{
    const char *owner, *name;
    struct json *issues;

    split(call, &owner, &name);
    if (await_get(call, &issues, query(call, path(call, "/repos/{}/{}/issues", owner, name, NULL), "state", "all",
                                       "sort", "created", "direction", "desc", "per_page", "50", NULL)))
        return SETTLED_UNKNOWN;
    for (struct json *issue = js_first(issues); issue; issue = js_next(issue)) {
        if (has_mark(call, issue)) {
            issue_result(call, issue);
            return SETTLED_DONE;
        }
    }
    return SETTLED_UNKNOWN;
}

TOOL(github_create_issue,
    .provider = &github_provider,
    .name = "github.create_issue",
    .summary = "Create an issue in a repository, with labels given by name",
    .args = FIELDS(REPOSITORY,
                   { "title", T_STRING, 1, 256, "one line" },
                   { "body", T_TEXT, 0, 60000, "Markdown", OPTIONAL },
                   { "labels", T_STRING_LIST, 0, 20, "names, upper or lower case", OPTIONAL }),
    .result = FIELDS({ "number", T_INT, 1, 2147483647, "of the issue" }, { "url", T_STRING, 0, 2048, "its page" },
                     { "labels", T_STRING_LIST, 0, 0, "that it carries now" }),
    .effect = EFFECT_WRITES,
    .scopes = NAMES("repo"),
    .resource = "repository",
    .reconcile = await_was_created)
{
    struct json *issue = js_obj(call), *labels = NULL, *reply;
    const char *owner, *name;
    enum err e = await_repository(call, &owner, &name);

    if (!e)
        e = await_labels(call, owner, name, &labels);
    if (e)
        return e;
    js_set_str(call, issue, "title", arg_str(call, "title"));
    js_set_str(call, issue, "body", marked(call, arg_str(call, "body")));
    js_set(call, issue, "labels", labels);
    e = await_post(call, &reply, path(call, "/repos/{}/{}/issues", owner, name, NULL), issue);
    if (e)
        return e;
    issue_result(call, reply);
    return OK;
}

/* ---- comment and close ------------------------------------------------------------------------------------------- */

static const char *issue_path(struct call *call, const char *owner, const char *name)
{
    const char *number = text_int(call, arg_int(call, "number"));

    return path(call, "/repos/{}/{}/issues/{}", owner, name, number, NULL);
}

static const char *comments_path(struct call *call, const char *owner, const char *name)
{
    return text(call, "%s/comments", issue_path(call, owner, name));
}

/* Closing comes last: an issue that is closed and carries the comment is the whole of it. */
static enum settled await_was_closed(struct call *call)
{
    const char *owner, *name;
    struct json *issue, *comments;

    split(call, &owner, &name);
    if (await_get(call, &issue, issue_path(call, owner, name)) ||
        await_get(call, &comments, query(call, comments_path(call, owner, name), "since",
                                         text_time(call, call_time(call) - LOOK_BACK_MS), "per_page", "100", NULL)))
        return SETTLED_UNKNOWN;
    for (struct json *comment = js_first(comments); comment; comment = js_next(comment)) {
        if (has_mark(call, comment) && text_equal_folded(js_str(call, issue, "state"), "closed")) {
            result_int(call, "comment_id", js_int(comment, "id", 0));
            result_str(call, "state", "closed");
            return SETTLED_DONE;
        }
    }
    return SETTLED_UNKNOWN;
}

TOOL(github_comment_and_close,
    .provider = &github_provider,
    .name = "github.comment_and_close",
    .summary = "Comment on an issue and close it",
    .args = FIELDS(REPOSITORY,
                   { "number", T_INT, 1, 2147483647, "of the issue" },
                   { "comment", T_TEXT, 1, 60000, "Markdown" },
                   { "reason", T_CHOICE, 0, 0, "completed if left out", OPTIONAL, NAMES("completed", "not_planned") }),
    .result = FIELDS({ "comment_id", T_INT, 0, 9007199254740991, "of the comment" },
                     { "state", T_STRING, 1, 20, "of the issue now" }),
    .effect = EFFECT_WRITES,
    .scopes = NAMES("repo"),
    .resource = "repository",
    .reconcile = await_was_closed)
{
    struct json *comment = js_obj(call), *change = js_obj(call), *reply;
    const char *owner, *name;
    enum err e = await_repository(call, &owner, &name);

    if (e)
        return e;
    js_set_str(call, comment, "body", marked(call, arg_str(call, "comment")));
    e = await_post(call, &reply, comments_path(call, owner, name), comment);
    if (e)
        return e;
    result_int(call, "comment_id", js_int(reply, "id", 0));
    js_set_str(call, change, "state", "closed");
    js_set_str(call, change, "state_reason", arg_has(call, "reason") ? arg_str(call, "reason") : "completed");
    e = await_patch(call, &reply, issue_path(call, owner, name), change);
    if (e)
        return e;
    result_str(call, "state", js_str(call, reply, "state"));
    return OK;
}

/* ---- reviews that wait for me ------------------------------------------------------------------------------------ */

/* A pull request takes some 25 KB of the call's memory as text and tree: 250 of them fit well. */
enum { PULLS_PAGE = 50, PULL_PAGES_MAX = 5 };

static bool waits_for(struct call *call, struct json *pull, const char *login)
{
    for (struct json *who = js_first(js_get(pull, "requested_reviewers")); who; who = js_next(who))
        if (text_equal_folded(js_str(call, who, "login"), login))
            return true;
    return false;
}

/* Those of one page that wait for the user, and how many the page had. */
static enum err await_pulls(struct call *call, const char *at, const char *login, int page, struct json *list,
                            size_t *ret_n)
{
    struct json *pulls;
    enum err e = await_get(call, &pulls, query(call, at, "state", "open", "per_page", text(call, "%d", PULLS_PAGE),
                                               "page", text(call, "%d", page), NULL));

    if (e)
        return e;
    for (struct json *pull = js_first(pulls); pull; pull = js_next(pull)) {
        struct json *one;

        if (!waits_for(call, pull, login))
            continue;
        one = js_obj(call);
        js_set_int(call, one, "number", js_int(pull, "number", 0));
        js_copy_str(call, one, "title", js_get(pull, "title"));
        js_copy_str(call, one, "author", js_get(pull, "user.login"));
        js_copy_str(call, one, "url", js_get(pull, "html_url"));
        js_push(call, list, one);
    }
    *ret_n = js_len(pulls);
    return OK;
}

TOOL(github_list_review_requests,
    .provider = &github_provider,
    .name = "github.list_review_requests",
    .summary = "List open pull requests of a repository that wait for the user's own review (not for a team's)",
    .args = FIELDS(REPOSITORY),
    .result = FIELDS({ "pull_requests", T_LIST, 0, 0, "number, title, author, url" },
                     { "complete", T_BOOL, 0, 0, "false: only the 250 newest open pull requests were looked at" }),
    .effect = EFFECT_READS,
    .scopes = NAMES("repo"),
    .resource = "repository")
{
    struct json *me, *list = js_arr(call);
    const char *owner, *name, *login;
    size_t n = PULLS_PAGE;
    enum err e = await_repository(call, &owner, &name);

    if (!e)
        e = await_get(call, &me, "/user");
    if (e)
        return e;
    login = js_str(call, me, "login");
    for (int page = 1; !e && page <= PULL_PAGES_MAX && n == PULLS_PAGE; page++)
        e = await_pulls(call, path(call, "/repos/{}/{}/pulls", owner, name, NULL), login, page, list, &n);
    if (e)
        return e;
    result_json(call, "pull_requests", list);
    result_bool(call, "complete", n < PULLS_PAGE);
    return OK;
}
