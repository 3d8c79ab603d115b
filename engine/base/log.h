/*
 * log.h -- structured lines for operators, on stderr: logfmt or JSON
 *
 *   LOG_INFO("listening", LOG_S("addr", addr), LOG_I("workers", n));
 *   -> ts=2026-11-20T05:00:52.123Z level=info msg="listening" addr="127.0.0.1:7411" workers=2
 *
 * Values are escaped (control characters, bidi marks), so that no peer can forge a line.  Secrets have no LOG_ form.
 * A line is one write(2); lines over LOG_LINE_MAX are cut and end in `cut=true`.  Thread safe.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/str.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };
enum { LOG_LINE_MAX = 4096 };

struct log_field {
    const char *key;
    enum { LOG_END, LOG_STR, LOG_INT, LOG_BOOL } kind;
    struct str s;
    int64_t i;
};

#define LOG_S(k, v)  (struct log_field){ (k), LOG_STR, str_of(v), 0 }
#define LOG_SV(k, v) (struct log_field){ (k), LOG_STR, (v), 0 }
#define LOG_I(k, v)  (struct log_field){ (k), LOG_INT, { 0 }, (int64_t)(v) }
#define LOG_B(k, v)  (struct log_field){ (k), LOG_BOOL, { 0 }, (v) ? 1 : 0 }

void log_setup(enum log_level least, enum log_format format);
/* Where the time stamp comes from: the loop's wall clock, or NULL for the system's. */
extern int64_t (*log_wall_ms)(void);
void log_write(enum log_level level, const char *msg, const struct log_field *fields) __attribute__((cold));

#define LOG_AT(level, msg, ...) log_write((level), (msg), (const struct log_field[]){ __VA_ARGS__ __VA_OPT__(,) { 0 } })
#define LOG_DEBUG(...) LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define LOG_INFO(...)  LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define LOG_WARN(...)  LOG_AT(LOG_LEVEL_WARN, __VA_ARGS__)
#define LOG_ERROR(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)

#endif
