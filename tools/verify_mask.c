/* Visibility, written from the definition a second time: nothing here is shared with the library. */
#include "verify.h"

#include <stdlib.h>
#include <string.h>

/* Keys of a neighborhood as positions inside the query's residue class: move the window onto its leader, then push it
 * back inside the class. */
static verify_keys window_of(const nf_axis *axis, int64_t query)
{
    const int64_t d = axis->dilation, window = axis->window ? axis->window : axis->extent;
    const int64_t residue = query % d, position = query / d;
    const int64_t members = (axis->extent - residue + d - 1) / d;
    const int64_t block = position - position % axis->stride;
    int64_t leader = block + (axis->causal ? axis->stride - 1 : axis->stride / 2);
    while (leader >= members)
        leader--;
    int64_t begin = axis->causal ? leader - (window - 1) : leader - window / 2;
    int64_t end = axis->causal ? position + 1 : begin + window;
    if (!axis->causal && end > members) {
        begin -= end - members;
        end = members;
    }
    if (begin < 0) {
        end += axis->causal ? 0 : -begin;
        begin = 0;
    }
    return (verify_keys){residue + d * begin, end - begin, d};
}

static verify_keys cross_keys(const nf_axis *axis, int64_t query)
{
    if (!axis->causal)
        return (verify_keys){0, axis->key_extent, 1};
    const int64_t place = axis->q_count ? query + axis->q_begin : query + axis->key_extent - axis->extent;
    const int64_t count = place + 1 < 0 ? 0 : place + 1 > axis->key_extent ? axis->key_extent : place + 1;
    return (verify_keys){0, count, 1};
}

static bool is_cross(const nf_axis *axis)
{
    return axis->key_extent && axis->key_extent != axis->extent;
}

/* Drops what lies outside the key range and counts from its begin, as tensors do. */
static verify_keys within_range(verify_keys keys, int64_t begin, int64_t count)
{
    while (keys.count > 0 && keys.first < begin) {
        keys.first += keys.step;
        keys.count--;
    }
    while (keys.count > 0 && keys.first + keys.step * (keys.count - 1) >= begin + count)
        keys.count--;
    keys.first = keys.count > 0 ? keys.first - begin : 0;
    return keys;
}

static void create_axis(verify_mask *mask, int32_t a, const nf_axis *axis)
{
    const bool cross = is_cross(axis);
    const int64_t key_extent = cross ? axis->key_extent : axis->extent;
    const int64_t q_begin = cross ? 0 : axis->q_begin;
    mask->q_count[a] = !cross && axis->q_count ? axis->q_count : axis->extent - q_begin;
    mask->k_count[a] = axis->k_count ? axis->k_count : key_extent - axis->k_begin;
    mask->axis[a] = verify_alloc(mask->q_count[a], sizeof **mask->axis);
    int64_t longest = 0;
    double pairs = 0;
    for (int64_t i = 0; i < mask->q_count[a]; i++) {
        const verify_keys all = cross ? cross_keys(axis, i) : window_of(axis, q_begin + i);
        mask->axis[a][i] = within_range(all, axis->k_begin, mask->k_count[a]);
        pairs += (double)mask->axis[a][i].count;
        if (mask->axis[a][i].count > longest)
            longest = mask->axis[a][i].count;
    }
    mask->queries *= mask->q_count[a];
    mask->keys *= mask->k_count[a];
    mask->longest *= longest;
    mask->pairs *= pairs;
}

void verify_mask_create(verify_mask *mask, const nf_problem *problem)
{
    *mask = (verify_mask){.rank = problem->rank, .queries = 1, .keys = 1, .longest = 1, .pairs = 1};
    for (int32_t a = 0; a < problem->rank; a++)
        create_axis(mask, a, &problem->axis[a]);
}

void verify_mask_destroy(verify_mask *mask)
{
    for (int32_t a = 0; a < mask->rank; a++)
        free(mask->axis[a]);
    *mask = (verify_mask){0};
}

/* Splits a flat index into one index per axis. */
static void unravel(const int64_t *counts, int32_t rank, int64_t flat, int64_t *index)
{
    for (int32_t a = rank - 1; a >= 0; a--) {
        index[a] = flat % counts[a];
        flat /= counts[a];
    }
}

int64_t verify_mask_row(const verify_mask *mask, int64_t query, int64_t *keys)
{
    int64_t index[NF_MAX_RANK], total = 1;
    unravel(mask->q_count, mask->rank, query, index);
    for (int32_t a = 0; a < mask->rank; a++)
        total *= mask->axis[a][index[a]].count;
    if (!keys || total == 0)
        return total;
    keys[0] = 0;
    int64_t filled = 1;
    for (int32_t a = 0; a < mask->rank; a++) {
        const verify_keys list = mask->axis[a][index[a]];
        for (int64_t parent = filled - 1; parent >= 0; parent--) {
            const int64_t base = keys[parent] * mask->k_count[a];
            for (int64_t j = list.count - 1; j >= 0; j--)
                keys[parent * list.count + j] = base + list.first + list.step * j;
        }
        filled *= list.count;
    }
    return total;
}

bool verify_mask_sees(const verify_mask *mask, int64_t query, int64_t key)
{
    int64_t q[NF_MAX_RANK], k[NF_MAX_RANK];
    unravel(mask->q_count, mask->rank, query, q);
    unravel(mask->k_count, mask->rank, key, k);
    for (int32_t a = 0; a < mask->rank; a++) {
        const verify_keys list = mask->axis[a][q[a]];
        const int64_t distance = k[a] - list.first;
        if (distance < 0 || distance % list.step || distance / list.step >= list.count)
            return false;
    }
    return true;
}

double verify_cost(const nf_problem *problem)
{
    verify_mask mask;
    verify_mask_create(&mask, problem);
    const double pairs = mask.pairs + (double)mask.queries * (double)problem->extra;
    verify_mask_destroy(&mask);
    return pairs * (double)problem->batch * (double)problem->heads * (double)(problem->head_dim + problem->value_dim);
}
