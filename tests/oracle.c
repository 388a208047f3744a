/* Visibility by definition. */
#include "oracle.h"

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static bool is_cross(const nf_axis *axis)
{
    return axis->key_extent && axis->key_extent != axis->extent;
}

static bool cross_sees(const nf_axis *axis, int64_t query, int64_t key)
{
    const int64_t place = axis->q_count ? axis->q_begin : axis->key_extent - axis->extent;
    return !axis->causal || key <= query + place;
}

static bool neighborhood_sees(const nf_axis *axis, int64_t query, int64_t key)
{
    const int64_t w = axis->window ? axis->window : axis->extent, s = axis->stride, d = axis->dilation;
    if (key % d != query % d)
        return false;
    const int64_t u = query / d, k = key / d;
    const int64_t n = axis->extent / d + (query % d < axis->extent % d);
    const int64_t block = u - u % s;
    if (axis->causal)
        return k <= u && k > smaller(block + s - 1, n - 1) - w;
    const int64_t leader = smaller(block + s / 2, n - 1);
    const int64_t first = smaller(larger(leader - w / 2, 0), n - w);
    return k >= first && k < first + w;
}

bool oracle_sees(const nf_axis *axis, int64_t query, int64_t key)
{
    if (key < oracle_key_begin(axis) || key >= oracle_key_begin(axis) + oracle_key_count(axis))
        return false;
    return is_cross(axis) ? cross_sees(axis, query, key) : neighborhood_sees(axis, query, key);
}

int64_t oracle_query_begin(const nf_axis *axis)
{
    return is_cross(axis) ? 0 : axis->q_begin;
}

int64_t oracle_query_count(const nf_axis *axis)
{
    if (is_cross(axis))
        return axis->extent;
    return axis->q_count ? axis->q_count : axis->extent - axis->q_begin;
}

int64_t oracle_key_begin(const nf_axis *axis)
{
    return axis->k_begin;
}

int64_t oracle_key_count(const nf_axis *axis)
{
    const int64_t keys = axis->key_extent ? axis->key_extent : axis->extent;
    return axis->k_count ? axis->k_count : keys - axis->k_begin;
}

uint64_t oracle_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t oracle_between(uint64_t *seed, int64_t low, int64_t high)
{
    return low + (int64_t)(oracle_random(seed) % (uint64_t)(high - low + 1));
}

double oracle_uniform(uint64_t *seed)
{
    return (double)(oracle_random(seed) >> 11) * 0x1p-52 - 1;
}

static void choose_range(uint64_t *seed, int64_t extent, int64_t *begin, int64_t *count)
{
    *begin = oracle_between(seed, 0, extent - 1);
    *count = oracle_between(seed, 0, extent - *begin);
}

nf_axis oracle_axis(uint64_t *seed, int64_t longest)
{
    nf_axis axis = {.extent = oracle_between(seed, 1, longest)};
    axis.window = oracle_between(seed, 1, axis.extent);
    axis.dilation = oracle_between(seed, 1, axis.extent / axis.window);
    axis.stride = oracle_between(seed, 1, axis.window);
    axis.causal = oracle_between(seed, 0, 1);
    if (oracle_between(seed, 0, 3) == 0)
        choose_range(seed, axis.extent, &axis.q_begin, &axis.q_count);
    if (oracle_between(seed, 0, 3) == 0)
        choose_range(seed, axis.extent, &axis.k_begin, &axis.k_count);
    return axis;
}

nf_axis oracle_cross_axis(uint64_t *seed, int64_t longest)
{
    nf_axis axis = {.extent = oracle_between(seed, 1, longest), .stride = 1, .dilation = 1};
    do
        axis.key_extent = oracle_between(seed, 1, longest);
    while (axis.key_extent == axis.extent);
    axis.causal = oracle_between(seed, 0, 1);
    if (axis.extent <= axis.key_extent && oracle_between(seed, 0, 1)) {
        axis.q_begin = oracle_between(seed, 0, axis.key_extent - axis.extent);
        axis.q_count = axis.extent;
    }
    if (oracle_between(seed, 0, 2) == 0)
        choose_range(seed, axis.key_extent, &axis.k_begin, &axis.k_count);
    return axis;
}
