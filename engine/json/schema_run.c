/*
 * schema_run.c -- the machine: one frame per subschema that is being asked, on a stack of its own
 *
 * A frame goes through its subschema's operations in order.  An operation that needs another subschema's opinion asks
 * for it (run_ask): simple ones answer at once, the others get a frame, the operation returns WAIT and is entered
 * again, in the state it left in its frame, when the answer is there.  So the C stack does not grow with the value or
 * the schema, and everything a check holds is in `struct run` or in the caller's arena.
 *
 * Frames that must remember which members or elements were evaluated (F_TRACK) have a bit for each, on a stack of words
 * that grows and shrinks with the frames; a "yes" about the same value passes its bits on to the asker.
 *
 * A check that gives up (too many steps, too deep, no memory) is a "no" that nothing can turn around: not even "not".
 */
#include "base/check.h"
#include "json/schema_internal.h"

enum {
    FRAMES_MAX = SCHEMA_DEPTH_MAX * SCHEMA_DEPTH_MAX + SCHEMA_DEPTH_MAX,
    WORDS_MAX = 1 << 20,
};

STATIC_ASSERT(sizeof(struct run) < 2048, "a check starts on a task's stack");

void run_give_up(struct run *r, const char *why)
{
    if (r->fatal)
        return;
    r->quiet = false;
    fault_say(r, NULL, 0, STR_NULL, "%s", why);
    r->fatal = true;
}

bool run_charge(struct run *r, uint64_t steps)
{
    r->steps += steps;
    if (r->steps <= SCHEMA_STEPS_MAX)
        return true;
    run_give_up(r, "is too complex to be checked");
    return false;
}

static bool frames_grow(struct run *r)
{
    uint32_t cap = r->cap_frames * 2;
    struct frame *frames = arena_alloc(r->arena, cap * sizeof(*frames));

    ASSERT(cap < 2 * FRAMES_MAX);
    if (!frames)
        return false;
    memcpy(frames, r->frames, r->n_frames * sizeof(*frames));
    r->frames = frames;
    r->cap_frames = cap;
    return true;
}

static bool words_take(struct run *r, struct frame *f)
{
    uint32_t n = (uint32_t)((json_len(f->value) + 63) / 64), cap = r->cap_words;

    f->bits = r->n_words;
    if (n > WORDS_MAX - r->n_words)
        return false;
    if (n > cap - r->n_words) {
        uint64_t *words;

        while (n > cap - r->n_words)
            cap *= 2;
        words = arena_alloc(r->arena, cap * sizeof(*words));
        if (!words)
            return false;
        memcpy(words, r->words, r->n_words * sizeof(*words));
        r->words = words;
        r->cap_words = cap;
    }
    memset(r->words + r->n_words, 0, n * sizeof(*r->words));
    r->n_words += n;
    return true;
}

/* A frame for `sub` about `value`; f: the asker's, NULL for the first. Fails by giving up. */
static void push(struct run *r, const struct frame *f, const struct sub *sub, const struct json *value, uint32_t at,
    unsigned mode)
{
    struct frame top = {
        .sub = sub, .value = value, .child = json_first(value), .at = at, .types = (uint8_t)type_bit(value),
        .flags = (uint8_t)mode,
    };

    if (f) {
        bool same = mode & ASK_SAME;

        top.flags |= f->flags & ASK_QUIET;
        top.depth = (uint16_t)(f->depth + !same);
        top.same = (uint16_t)(same ? f->same + 1 : 0);
        if (same && (f->flags & F_TRACK) && !(mode & ASK_APART))
            top.flags |= F_TRACK;
        if (top.depth > SCHEMA_DEPTH_MAX || top.same >= SCHEMA_DEPTH_MAX) {
            run_give_up(r, same ? "is too complex to be checked" : "is nested too deeply");
            return;
        }
    }
    if (sub->unevaluated && json_len(value))
        top.flags |= F_TRACK;
    if (!json_len(value))
        top.flags &= (uint8_t)~F_TRACK;
    if ((top.flags & F_TRACK && !words_take(r, &top)) || (r->n_frames == r->cap_frames && !frames_grow(r))) {
        run_give_up(r, "is too large to be checked");
        return;
    }
    r->frames[r->n_frames++] = top;
}

/* Looks at a value that needs no frame. */
static enum answer leaf(struct run *r, const struct sub *sub, const struct json *value, uint32_t at, unsigned mode)
{
    unsigned bit = type_bit(value);
    bool quiet = r->quiet;
    enum answer answer = YES;

    r->leaf = mode & ASK_SAME ? NULL : value;
    r->leaf_at = at;
    r->quiet = quiet || (mode & ASK_QUIET);
    if (sub->kind == SUB_NONE) {
        fault_say(r, NULL, 0, STR_NULL, "is not allowed here");
        answer = NO;
    }
    for (uint32_t i = 0; i < sub->n_ops && answer == YES; i++)
        if ((sub->ops[i].types & bit) && !assert_op(r, &sub->ops[i], value))
            answer = NO;
    r->leaf = NULL;
    r->quiet = quiet;
    return r->fatal ? WAIT : answer;
}

enum answer run_ask(struct run *r, const struct frame *f, const struct sub *sub, const struct json *value, uint32_t at,
    unsigned mode)
{
    if (r->replied) {
        r->replied = false;
        return r->reply;
    }
    if (!run_charge(r, 1 + sub->n_ops))
        return WAIT;
    if (sub->kind == SUB_ANY)
        return YES;
    if (!type_bit(value)) {
        r->leaf = mode & ASK_SAME ? NULL : value;
        r->leaf_at = at;
        run_give_up(r, "is not a JSON value");
        return WAIT;
    }
    if (sub->kind != SUB_FULL)
        return leaf(r, sub, value, at, mode);
    push(r, f, sub, value, at, mode);
    return WAIT;
}

/* The top frame is done: its answer goes to the asker. */
static void pop(struct run *r, enum answer answer)
{
    struct frame *top = &r->frames[r->n_frames - 1], *below = top - 1;

    if (top->flags & F_TRACK) {
        if (r->n_frames > 1 && answer == YES && (top->flags & ASK_SAME) && !(top->flags & ASK_APART) &&
            (below->flags & F_TRACK)) {
            size_t n = (json_len(top->value) + 63) / 64;

            for (size_t i = 0; i < n; i++)
                run_words(r, below)[i] |= run_words(r, top)[i];
        }
        r->n_words = top->bits;
    }
    r->n_frames--;
    r->replied = true;
    r->reply = answer;
}

static void next_op(struct frame *f)
{
    f->op++;
    f->child = json_first(f->value);
    f->seen = 0;
    f->i = f->stage = f->count = 0;
}

/* One operation of the top frame, or its end. */
static void step(struct run *r)
{
    struct frame *f = &r->frames[r->n_frames - 1];
    const struct op *op = &f->sub->ops[f->op];
    enum answer answer = YES;

    if (f->op == f->sub->n_ops) {
        pop(r, YES);
        return;
    }
    r->quiet = f->flags & ASK_QUIET;
    if (op->types & f->types)
        answer = op->code <= OP_LAST_ASSERTION ? (enum answer)assert_op(r, op, f->value) : apply_op(r, f, op);
    if (answer == YES)
        next_op(f);
    else if (answer == NO)
        pop(r, NO);
}

bool run_schema(const struct schema *s, const struct json *value, struct arena *arena, struct schema_fault *fault)
{
    UNSET struct run r;
    enum answer answer;

    r.frames = r.first_frames;
    r.cap_frames = FRAMES_INLINE;
    r.words = r.first_words;
    r.cap_words = WORDS_INLINE;
    r.n_frames = r.n_words = r.leaf_at = 0;
    r.steps = 0;
    r.arena = arena;
    r.fault = fault;
    r.leaf = r.name_of = NULL;
    r.quiet = r.fatal = r.replied = false;
    r.reply = NO;
    if (fault)
        fault->where[0] = fault->what[0] = 0;
    if (!value) {
        run_give_up(&r, "is missing");
        return false;
    }
    answer = run_ask(&r, NULL, s->root, value, 0, ASK_SAME);
    if (answer != WAIT)
        return answer == YES;
    while (r.n_frames && !r.fatal)
        step(&r);
    return !r.fatal && r.replied && r.reply == YES;
}
