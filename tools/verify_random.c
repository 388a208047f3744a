/* The random stream of `nearfield verify` (SplitMix64) and its memory. */
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

verify_random verify_random_stream(uint64_t seed, uint64_t purpose)
{
    return (verify_random){mix(seed * 0x9e3779b97f4a7c15u + mix(purpose + 0x632be59bd9b4e019u))};
}

uint64_t verify_random_next(verify_random *random)
{
    random->state += 0x9e3779b97f4a7c15u;
    return mix(random->state);
}

int64_t verify_random_below(verify_random *random, int64_t bound)
{
    return (int64_t)(verify_random_next(random) % (uint64_t)bound);
}

int64_t verify_random_between(verify_random *random, int64_t low, int64_t high)
{
    return low + verify_random_below(random, high - low + 1);
}

bool verify_random_chance(verify_random *random, int percent)
{
    return verify_random_below(random, 100) < percent;
}

double verify_random_uniform(verify_random *random)
{
    return ((double)(verify_random_next(random) >> 11) + 0.5) * 0x1p-53;
}

double verify_random_normal(verify_random *random)
{
    const double radius = sqrt(-2 * log(verify_random_uniform(random)));
    return radius * cos(6.283185307179586 * verify_random_uniform(random));
}

void *verify_alloc(int64_t count, size_t size)
{
    void *memory = calloc((size_t)count + 1, size);
    if (!memory) {
        fprintf(stderr, "nearfield verify: out of memory for %lld elements of %zu bytes\n", (long long)count, size);
        exit(2);
    }
    return memory;
}
