/*
 * ask.c -- questions to clients of the earlier revisions: requests of ours on the stream of theirs
 *
 * The call waits while the question is out; the client answers with a POST of its own, which may land on another
 * worker.  An ask is known by its unguessable id and belongs to one session of one caller; an answer from anybody else
 * is dropped. Asks are taken out on the thread that put them in, so what the table answers there stays while that
 * thread looks.
 *
 * The time a person takes is not the call's: its deadline moves by as much.
 */
#include <stdlib.h>

#include "mcp/internal.h"

enum { QUESTIONS_MAX = 32, ANSWER_MAX = 4 << 20 };

struct ask {
    struct id id;
    struct call *c;
    struct session *session;
    struct str key;
    struct asking *all;
    struct json *question;
    char *text;                         /* the answer, malloced */
    size_t len;
    bool failed;                        /* the client answered with an error */
};

/* The questions of one call. */
struct asking {
    struct ask *asks;
    size_t n, left;
    struct wake wake;
};

struct asks {
    pthread_mutex_t lock;
    struct map by_id;
};

struct asks *asks_new(void)
{
    struct asks *a = calloc(1, sizeof(*a));

    ASSERT(a != NULL);
    pthread_mutex_init(&a->lock, NULL);
    return a;
}

void asks_free(struct asks *a)
{
    if (!a)
        return;
    ASSERT(a->by_id.len == 0);
    map_release(&a->by_id);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

static void table_put(struct asks *a, struct ask *q)
{
    pthread_mutex_lock(&a->lock);
    map_put(&a->by_id, str_of(q->id.z), q);
    pthread_mutex_unlock(&a->lock);
}

static void table_del(struct asks *a, struct ask *q)
{
    pthread_mutex_lock(&a->lock);
    map_del(&a->by_id, str_of(q->id.z));
    pthread_mutex_unlock(&a->lock);
}

/* ---- the answer arrives ------------------------------------------------------------------------------------------ */

struct answer_mail {
    struct mail mail;
    struct asks *asks;
    struct id id;
    bool failed;
    char *text;
    size_t len;
};

/* On the worker that asked. */
static void answer_here(struct mail *m)
{
    struct answer_mail *a = CONTAINER_OF(m, struct answer_mail, mail);
    struct ask *q;

    pthread_mutex_lock(&a->asks->lock);
    q = map_get(&a->asks->by_id, str_of(a->id.z));
    pthread_mutex_unlock(&a->asks->lock);
    if (q && !q->text) {
        q->text = a->text;
        q->len = a->len;
        q->failed = a->failed;
        if (--q->all->left == 0 || q->failed)
            wake_fire(&q->all->wake);
    } else {
        free(a->text);                  /* too late, or twice */
    }
    free(a);
}

void ask_answered(struct call *c, struct turn *t)
{
    struct asks *table = t->wire->mcp->asks;
    struct str id = json_str(t->msg.id);
    struct answer_mail *a;
    struct worker *to = NULL;
    struct buf b = BUF_INIT(ANSWER_MAX);
    struct ask *q;

    pthread_mutex_lock(&table->lock);
    q = map_get(&table->by_id, id);
    if (q && t->session == q->session && caller_same(q->c->caller, c->caller))
        to = q->c->worker;
    pthread_mutex_unlock(&table->lock);
    json_write(&b, t->msg.error ? t->msg.error : t->msg.result);
    if (!to || b.overflow) {
        buf_release(&b);
        return;                         /* nobody waits for it: late answers are normal */
    }
    a = calloc(1, sizeof(*a));
    ASSERT(a != NULL && id.p && id.len < ID_MAX);
    a->mail.fn = answer_here;
    a->asks = table;
    memcpy(a->id.z, id.p, id.len);
    a->failed = t->msg.error != NULL;
    a->text = buf_take(&b, &a->len);
    loop_post(to->loop, &a->mail);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static enum err await_send(struct call *c, struct turn *t, struct ask *q)
{
    struct json *params = json_get(q->question, "params");
    struct buf b = BUF_INIT(1 << 20);
    enum err e;

    if (t->msg.revision < REV_2025_11_25)
        json_del(params, "mode");       /* forms were the only mode then */
    buf_add_z(&b, "{\"jsonrpc\":\"2.0\",\"id\":");
    buf_add_json_str(&b, str_of(q->id.z));
    buf_add_z(&b, ",\"method\":");
    json_write(&b, json_get(q->question, "method"));
    if (params) {
        buf_add_z(&b, ",\"params\":");
        json_write(&b, params);
    }
    buf_add_c(&b, '}');
    e = b.overflow ? E_CALL_TOO_LARGE : await_wire_message(t->wire, buf_str(&b));
    buf_release(&b);
    return e == E_CLOSED ? call_why(c, E_NO_RESULT, "the client closed its stream before it could be asked") : e;
}

static enum err take_answer(struct call *c, struct ask *q)
{
    struct json *answer = NULL;
    struct json_error where;
    struct str text = arena_str(&c->arena, str_n(q->text, q->len));
    enum err e;

    if (!text.p || json_parse(&c->arena, text, NULL, &answer, &where))
        return E_CALL_TOO_LARGE;
    if (q->failed) {
        struct str said = json_str(json_get(answer, "message"));

        return call_why(c, E_NO_RESULT, "the client could not answer: %.*s",
                        STR_ARG(said.len > 200 ? str_n(said.p, 200) : said));
    }
    e = answer_fits(c, q->key, q->question, answer);
    if (e)
        return E_NO_RESULT;             /* the call was right, its client's answer is not: c->why tells */
    if (!c->answers)
        c->answers = json_object(&c->arena);
    json_set_key(&c->arena, c->answers, q->key, answer);
    return OK;
}

static enum err await_answers_of(struct call *c, struct turn *t, struct asking *all)
{
    int64_t patience = t->wire->mcp->opt.ask_ms;
    ns_t began = loop_now();
    enum err e = OK;

    for (size_t i = 0; !e && i < all->n; i++)
        e = await_send(c, t, &all->asks[i]);
    if (!e)
        e = await_wake(&all->wake, began + patience * NS_PER_MS);
    if (e == E_TIMEOUT)
        e = call_why(c, E_NO_RESULT, "the client did not answer within %lld s", (long long)(patience / 1000));
    c->deadline += loop_now() - began;
    for (size_t i = 0; !e && i < all->n; i++)
        if (all->asks[i].text)
            e = take_answer(c, &all->asks[i]);
    if (!e && c->state_out)
        c->state_in = c->state_out;     /* as if it had come back: a body is written once for both eras */
    return e;
}

enum err await_ask(struct call *c, struct turn *t)
{
    struct asks *table = t->wire->mcp->asks;
    struct asking all = { .n = json_len(c->questions) };
    struct json *question = json_first(c->questions);
    enum err e;

    if (all.n > QUESTIONS_MAX)
        return call_why(c, E_CONNECTOR_FAULT, "more than %d questions at once", QUESTIONS_MAX);
    all.left = all.n;
    all.asks = ARENA_ARRAY(&c->arena, struct ask, all.n);
    if (!all.asks)
        return E_CALL_TOO_LARGE;
    for (size_t i = 0; i < all.n; i++, question = json_next(question)) {
        all.asks[i] = (struct ask){ .id = id_new("ask"), .c = c, .session = t->session, .key = json_key(question),
                                    .all = &all, .question = question };
        table_put(table, &all.asks[i]);
    }
    e = await_answers_of(c, t, &all);
    for (size_t i = 0; i < all.n; i++) {
        table_del(table, &all.asks[i]);
        free(all.asks[i].text);
    }
    return e;
}
