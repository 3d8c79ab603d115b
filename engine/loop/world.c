/* world.c -- which world the process lives in */
#include "base/crypto.h"
#include "base/log.h"
#include "loop/world.h"

const struct world *world = &world_real;

void world_use(const struct world *w)
{
    world = w;
    crypto_random_hook = w == &world_real ? NULL : w->random;
    log_wall_ms = w == &world_real ? NULL : w->wall_ms;
}
