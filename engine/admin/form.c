/* form.c -- application/x-www-form-urlencoded (WHATWG URL 5), both ways */
#include "admin/internal.h"

static int digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static struct str decode(struct arena *a, struct str s)
{
    char *z = arena_alloc(a, s.len + 1);
    size_t n = 0;

    for (size_t i = 0; z && i < s.len; i++) {
        if (s.p[i] == '%' && i + 2 < s.len && digit(s.p[i + 1]) >= 0 && digit(s.p[i + 2]) >= 0) {
            z[n++] = (char)(digit(s.p[i + 1]) * 16 + digit(s.p[i + 2]));
            i += 2;
        } else {
            z[n++] = s.p[i] == '+' ? ' ' : s.p[i];
        }
    }
    return str_n(z, z ? n : 0);
}

struct str admin_form_value(struct arena *a, struct str form, const char *name)
{
    struct str pair, key, value;

    while (form.len) {
        if (!str_cut(form, '&', &pair, &form)) {
            pair = form;
            form = STR_NULL;
        }
        if (str_cut(pair, '=', &key, &value) && str_is(key, name))
            return decode(a, value);
    }
    return STR_NULL;
}

void admin_form_escape(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char ch = (unsigned char)s.p[i];

        if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '-' ||
            ch == '.' || ch == '_')
            buf_add_c(b, (char)ch);
        else
            buf_addf(b, "%%%02X", ch);
    }
}
