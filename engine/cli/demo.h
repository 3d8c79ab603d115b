/*
 * demo.h -- the embedded default's provider and policies: the sandbox, and docs/demo
 */
#ifndef CLI_DEMO_H
#define CLI_DEMO_H

#include "cli/cli.h"
#include "connectors/sandbox/sandbox.h"

/* A file that lives in the program (cmake/embed.cmake). */
struct embedded {
    const char *name, *bytes;
    size_t n;
};
extern const struct embedded demo_policies[];       /* docs/demo/(all).cedar; name NULL at the end */

/* Starts the sandbox where the configuration wants it. On the embedded default a taken port is no reason not to start:
 * then a free one is used. name: "127.0.0.1:7412". Complains by itself. */
int demo_sandbox(const struct verb *v, const struct config *c, struct sandbox_thread **ret, char name[64]);
/* Makes the sandbox the provider "outlook", unless the configuration says something else about it. */
void demo_provider(struct config *c, const char *sandbox);
/* Writes the policies into <data>/demo-policies, making both directories; answers that path. Complains by itself. */
int demo_write(const struct verb *v, struct arena *a, const char *data, const char **ret_dir);
/* Is nobody listening there? */
bool demo_port_free(const char *address);

#endif
