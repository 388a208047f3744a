/* Which keys a query sees: the formulas of doc/semantics.md, "One axis" and "Several axes", evaluated query by query.
 * Deliberately not the axis tables: this code is what they are compared with. */
#include "backends/reference/reference.h"

/* Keys first, first + step, ..., last of one axis; none if last < first. */
typedef struct span {
    int64_t first, last, step;
} span;

static span neighborhood(const nf_axis *axis, int64_t i)
{
    const int64_t L = axis->extent, s = axis->stride, d = axis->dilation;
    const int64_t w = axis->window ? axis->window : L;
    const int64_t g = i % d, u = i / d, n = (L - g + d - 1) / d, t = s * (u / s);
    int64_t first, last;
    if (axis->causal) {
        const int64_t c = t + s - 1 < n - 1 ? t + s - 1 : n - 1;
        first = c - w + 1 > 0 ? c - w + 1 : 0;
        last = u;
    } else {
        const int64_t c = t + s / 2 < n - 1 ? t + s / 2 : n - 1;
        first = c - w / 2;
        if (first < 0)
            first = 0;
        if (first > n - w)
            first = n - w;
        last = first + w - 1;
    }
    return (span){g + d * first, g + d * last, d};
}

/* Cross attention: every key, or, if causal, those at or before the query's place on the key axis. */
static span cross(const nf_axis *axis, int64_t i)
{
    const int64_t place = axis->q_count ? axis->q_begin : axis->key_extent - axis->extent;
    int64_t last = axis->key_extent - 1;
    if (axis->causal && i + place < last)
        last = i + place;
    return (span){0, last, 1};
}

/* Token numbers in and out; the keys are cut to the range that tensors hold. */
static span visible(const nf_axis *axis, int64_t query)
{
    const nf_axis_range held = nf_axis_key_range(axis);
    span keys = nf_axis_is_cross(axis) ? cross(axis, query) : neighborhood(axis, query);
    const int64_t held_last = held.begin + held.count - 1;
    if (keys.last > held_last)
        keys.last -= (keys.last - held_last + keys.step - 1) / keys.step * keys.step;
    if (keys.first < held.begin)
        keys.first += (held.begin - keys.first + keys.step - 1) / keys.step * keys.step;
    return keys;
}

bool ref_walk_start(ref_walk *walk, const nf_problem *problem, const int64_t *query)
{
    walk->rank = problem->rank;
    bool any = true;
    for (int32_t a = 0; a < problem->rank; a++) {
        const nf_axis *axis = &problem->axis[a];
        const nf_axis_range held = nf_axis_key_range(axis);
        const span keys = visible(axis, nf_axis_query_range(axis).begin + query[a]);
        walk->count[a] = held.count;
        walk->at[a] = walk->begin[a] = keys.first - held.begin;
        walk->end[a] = keys.last - held.begin + 1;
        walk->step[a] = keys.step;
        any = any && walk->begin[a] < walk->end[a];
    }
    return any;
}

bool ref_walk_next(ref_walk *walk)
{
    for (int32_t a = walk->rank - 1; a >= 0; a--) {
        walk->at[a] += walk->step[a];
        if (walk->at[a] < walk->end[a])
            return true;
        walk->at[a] = walk->begin[a];
    }
    return false;
}

int64_t ref_walk_number(const ref_walk *walk)
{
    int64_t number = 0;
    for (int32_t a = 0; a < walk->rank; a++)
        number = number * walk->count[a] + walk->at[a];
    return number;
}

void ref_count_pairs(const nf_problem *problem, double *pairs, int64_t *most)
{
    *pairs = 1;
    *most = 1;
    for (int32_t a = 0; a < problem->rank; a++) {
        const nf_axis_range queries = nf_axis_query_range(&problem->axis[a]);
        double sum = 0;
        int64_t widest = 0;
        for (int64_t i = queries.begin; i < queries.begin + queries.count; i++) {
            const span keys = visible(&problem->axis[a], i);
            const int64_t count = keys.last < keys.first ? 0 : (keys.last - keys.first) / keys.step + 1;
            sum += (double)count;
            if (count > widest)
                widest = count;
        }
        *pairs *= sum;
        *most *= widest;
    }
}

void ref_query_index(const nf_problem *problem, int64_t number, int64_t *index)
{
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        const int64_t count = nf_axis_query_range(&problem->axis[a]).count;
        index[a] = number % count;
        number /= count;
    }
}

void ref_key_index(const nf_problem *problem, int64_t number, int64_t *index)
{
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        const int64_t count = nf_axis_key_range(&problem->axis[a]).count;
        index[a] = number % count;
        number /= count;
    }
}

int64_t ref_queries(const nf_problem *problem)
{
    int64_t queries = 1;
    for (int32_t a = 0; a < problem->rank; a++)
        queries *= nf_axis_query_range(&problem->axis[a]).count;
    return queries;
}

int64_t ref_keys(const nf_problem *problem)
{
    int64_t keys = 1;
    for (int32_t a = 0; a < problem->rank; a++)
        keys *= nf_axis_key_range(&problem->axis[a]).count;
    return keys;
}
