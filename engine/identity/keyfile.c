/*
 * keyfile.c -- 32 secret bytes in a file that only we can read
 */
#include "identity/keyfile.h"

#include "base/check.h"
#include "base/crypto.h"
#include "loop/world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { KEY_LEN = 32, TEXT_LEN = 2 * KEY_LEN, FILE_MAX = 256, KEY_PATH_MAX = 4000 };

enum err keyfile_parse(const char *text, size_t n, const char *what, struct secret **ret, struct errinfo *info)
{
    uint8_t key[KEY_LEN];
    enum err e;

    while (n > TEXT_LEN && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    e = n == TEXT_LEN ? hex_decode(str_n(text, n), key, sizeof(key)) : E_FORMAT;
    if (e)
        return err_set(info, E_CONFIG, "%s does not hold a key: 64 hexadecimal digits are expected", what);
    *ret = secret_take(key, sizeof(key));
    return *ret ? OK : err_set(info, E_CONFIG,
        "no protected memory for the key of %s: raise the limit of locked memory",
        what);
}

static enum err check_mode(int fd, const char *path, mode_t refused, struct errinfo *info)
{
    struct stat st;

    if (!world->threads)                /* simulated files have no modes */
        return OK;
    if (fstat(fd, &st))
        return err_set(info, E_CONFIG, "key file %s cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(info, E_CONFIG, "key file %s is not a regular file", path);
    if (st.st_mode & refused)
        return err_set(info, E_CONFIG, "key file %s can be read by others (mode %03o): chmod 600 it", path,
            (unsigned)st.st_mode & 0777);
    return OK;
}

static enum err make(const char *path, struct errinfo *info)
{
    char temp[KEY_PATH_MAX + 8], dir[KEY_PATH_MAX + 8], *slash;
    uint8_t key[KEY_LEN];
    struct buf text = BUF_INIT(FILE_MAX);
    int64_t n;
    int fd, rc;

    snprintf(temp, sizeof(temp), "%s.new", path);
    snprintf(dir, sizeof(dir), "%s", path);
    slash = strrchr(dir, '/');
    if (slash)
        *slash = 0;
    world->unlink(temp);                /* left by a crash: it was never in use */
    fd = world->open(temp, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return err_set(info, E_CONFIG, "key file %s cannot be made: %s", path, strerror(-fd));
    crypto_random(key, sizeof(key));
    buf_add_hex(&text, key, sizeof(key));
    buf_add_c(&text, '\n');
    ASSERT(!text.overflow);
    n = world->pwrite(fd, text.p, text.len, 0);
    rc = n == (int64_t)text.len ? world->sync(fd) : -EIO;
    world->close(fd);
    bytes_wipe(key, sizeof(key));
    bytes_wipe(text.p, text.len);
    buf_release(&text);
    if (rc == 0)
        rc = world->rename(temp, path);
    if (rc == 0)
        rc = world->sync_dir(!slash ? "." : dir[0] ? dir : "/");
    return rc == 0 ? OK : err_set(info, E_CONFIG, "key file %s cannot be made: %s", path, strerror(-rc));
}

static enum err read_key(int fd, const char *path, mode_t refused, struct secret **ret, struct errinfo *info)
{
    char text[FILE_MAX], what[KEY_PATH_MAX + 16];
    int64_t n;
    enum err e = check_mode(fd, path, refused, info);

    if (e)
        return e;
    n = world->pread(fd, text, sizeof(text), 0);
    if (n < 0)
        return err_set(info, E_CONFIG, "key file %s cannot be read: %s", path, strerror((int)-n));
    snprintf(what, sizeof(what), "key file %s", path);
    e = keyfile_parse(text, (size_t)n, what, ret, info);
    bytes_wipe(text, sizeof(text));
    return e;
}

static enum err load(const char *path, bool create, mode_t refused, struct secret **ret, struct errinfo *info)
{
    enum err e = OK;
    int fd;

    if (strlen(path) > KEY_PATH_MAX)
        return err_set(info, E_CONFIG, "the path of a key file is too long");
    fd = world->open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd == -ENOENT && create) {
        e = make(path, info);
        if (e)
            return e;
        fd = world->open(path, O_RDONLY | O_NONBLOCK, 0);
    }
    if (fd < 0)
        return err_set(info, E_CONFIG, "key file %s cannot be read: %s", path, strerror(-fd));
    e = read_key(fd, path, refused, ret, info);
    world->close(fd);
    return e;
}

enum err keyfile_load(const char *path, bool create, struct secret **ret, struct errinfo *info)
{
    return load(path, create, 077, ret, info);
}

enum err keyfile_load_credential(const char *path, struct secret **ret, struct errinfo *info)
{
    return load(path, false, 07, ret, info);
}
