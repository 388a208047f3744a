/* What every part of the library asks of a checked problem. */
#ifndef NF_CORE_PROBLEM_H
#define NF_CORE_PROBLEM_H

#include <stdbool.h>

#include "nearfield.h"

typedef struct nf_axis_range {
    int64_t begin, count;
} nf_axis_range;

/* Keys differ from queries: the only kind of axis whose tables are not a neighborhood. */
static inline bool nf_axis_is_cross(const nf_axis *axis)
{
    return axis->key_extent != 0 && axis->key_extent != axis->extent;
}

static inline int64_t nf_axis_keys(const nf_axis *axis)
{
    return axis->key_extent ? axis->key_extent : axis->extent;
}

/* The window in effect. */
static inline int64_t nf_axis_window(const nf_axis *axis)
{
    return axis->window ? axis->window : nf_axis_keys(axis);
}

/* The queries that tensors hold. A range on a cross axis only places them on the key axis. */
static inline nf_axis_range nf_axis_query_range(const nf_axis *axis)
{
    if (nf_axis_is_cross(axis))
        return (nf_axis_range){0, axis->extent};
    return (nf_axis_range){axis->q_begin, axis->q_count ? axis->q_count : axis->extent - axis->q_begin};
}

static inline nf_axis_range nf_axis_key_range(const nf_axis *axis)
{
    return (nf_axis_range){axis->k_begin, axis->k_count ? axis->k_count : nf_axis_keys(axis) - axis->k_begin};
}

/* The literal scale, or head_dim^-1/2. */
double nf_problem_scale(const nf_problem *problem);

/* Query heads that read one key/value head. */
static inline int64_t nf_problem_group(const nf_problem *problem)
{
    return problem->heads / problem->kv_heads;
}

#endif
