/* version.c -- `sluice version` */
#include <curl/curl.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <yaml.h>
#include <zlib.h>

#include "cli/cli.h"

static const char help[] =
    "Usage: sluice version\n\n"
    "Prints the version of sluice, and of what it runs on: the libraries as they are at run time, and\n"
    "the kernel.\n";

static int run(int argc, char **argv)
{
    struct utsname system;
    int words, rc = options_read(&verb_version, argc, argv, NULL, NULL, 0, &words);

    if (rc)
        return rc < 0 ? 0 : rc;
    printf("sluice %s\n", SLUICE_VERSION);
    printf("libcurl %s, %s, SQLite %s, libyaml %s, zlib %s\n", curl_version_info(CURLVERSION_NOW)->version,
           OpenSSL_version(OPENSSL_VERSION), sqlite3_libversion(), yaml_get_version_string(), zlibVersion());
    if (uname(&system) == 0)
        printf("%s %s %s\n", system.sysname, system.release, system.machine);
    return 0;
}

const struct verb verb_version = { "version", "print the version", help, run };
