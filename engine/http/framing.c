/*
 * framing.c -- where a body ends (RFC 9112 6), and which bodies are not accepted at all
 *
 * Two parties that disagree about the end of a body read one's data as the other's next message.  So nothing is
 * repaired here: one Content-Length in plain digits, or one Transfer-Encoding that says chunked and nothing else, never
 * both, never twice, also not when both say the same.
 */
#include "http/parse.h"

static bool refuse(enum http_fault *why, enum http_fault f)
{
    *why = f;
    return false;
}

/* The announcement itself; *ret_framing stays HTTP_BODY_NONE when there is none. */
static bool announced(const struct http_head *h, bool request, struct http_body *ret, enum http_fault *why)
{
    unsigned n_length, n_coding;
    const struct http_header *length = http_head_find(h, "content-length", &n_length);
    const struct http_header *coding = http_head_find(h, "transfer-encoding", &n_coding);

    *ret = (struct http_body){ .framing = HTTP_BODY_NONE };
    if (n_coding > 0) {
        if (n_length > 0)
            return refuse(why, HTTP_FAULT_LENGTH_AND_CODING);
        if (h->minor == 0)
            return refuse(why, HTTP_FAULT_CODING_VERSION);
        /* Names of codings have no case, but a request that writes "Chunked" is a probe, not a client. */
        if (n_coding > 1 || !(request ? str_is(coding->value, "chunked") : str_ieq(coding->value, STR("chunked"))))
            return refuse(why, HTTP_FAULT_CODING);
        ret->framing = HTTP_BODY_CHUNKED;
        return true;
    }
    if (n_length > 1)
        return refuse(why, HTTP_FAULT_LENGTH_MANY);
    if (n_length == 1) {
        if (!str_to_u64(length->value, &ret->length) || ret->length > INT64_MAX)
            return refuse(why, HTTP_FAULT_LENGTH_FORM);
        ret->framing = HTTP_BODY_LENGTH;
    }
    return true;
}

static bool has_body(const struct http_body *b)
{
    return b->framing == HTTP_BODY_CHUNKED || (b->framing == HTTP_BODY_LENGTH && b->length > 0);
}

static bool method_takes_body(struct str method)
{
    static const struct str none[] = { STR("GET"), STR("HEAD"), STR("DELETE"), STR("TRACE"), STR("CONNECT") };

    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        if (str_eq(method, none[i]))
            return false;
    return true;
}

bool http_request_framing(const struct http_head *h, struct http_body *ret, enum http_fault *why)
{
    unsigned n;
    const struct http_header *f;

    if (!announced(h, true, ret, why))
        return false;
    if (has_body(ret) && !method_takes_body(h->method))
        return refuse(why, HTTP_FAULT_BODY_FORBIDDEN);

    f = http_head_find(h, "content-encoding", &n);
    if (n > 1 || (n == 1 && !str_ieq(f->value, STR("identity"))))
        return refuse(why, HTTP_FAULT_CONTENT_ENCODING);

    f = http_head_find(h, "expect", &n);
    if (n > 1 || (n == 1 && !str_ieq(f->value, STR("100-continue"))))
        return refuse(why, HTTP_FAULT_EXPECT);
    /* An HTTP/1.0 client would take the interim answer for the final one (RFC 9110 10.1.1). */
    ret->expect_continue = n == 1 && h->minor == 1 && has_body(ret);
    return true;
}

bool http_response_framing(const struct http_head *h, bool was_head, struct http_body *ret, enum http_fault *why)
{
    if (h->status == 101)
        return refuse(why, HTTP_FAULT_UPGRADE);
    if (!announced(h, false, ret, why))
        return false;
    if (h->status < 200 || h->status == 204) {
        if (has_body(ret))
            return refuse(why, HTTP_FAULT_CODING_STATUS);
        *ret = (struct http_body){ .framing = HTTP_BODY_NONE };
    } else if (was_head || h->status == 304) {
        /* these announce what a GET would have brought */
        *ret = (struct http_body){ .framing = HTTP_BODY_NONE };
    } else if (ret->framing == HTTP_BODY_NONE) {
        ret->framing = HTTP_BODY_UNTIL_CLOSE;
    }
    return true;
}
