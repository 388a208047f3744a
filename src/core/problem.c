/* What a problem is allowed to be, and small questions about it. The rules: doc/semantics.md, "Validity". */
#include "core/problem.h"

#include <inttypes.h>
#include <math.h>

#include "core/check.h"
#include "core/dtype.h"
#include "core/status.h"

void nf_problem_init(nf_problem *problem)
{
    *problem = (nf_problem){.size = sizeof *problem,
                            .direction = NF_FWD,
                            .dtype = NF_F32,
                            .out_dtype = NF_F32,
                            .rank = 1,
                            .batch = 1,
                            .heads = 1,
                            .kv_heads = 1};
    for (int32_t a = 0; a < NF_MAX_RANK; a++)
        problem->axis[a] = (nf_axis){.stride = 1, .dilation = 1};
}

double nf_problem_scale(const nf_problem *problem)
{
    return problem->scale_set ? problem->scale : 1 / sqrt((double)problem->head_dim);
}

static nf_status check_at_least(const char *field, int64_t value, int64_t least)
{
    if (value >= least)
        return NF_OK;
    return nf_fail(NF_ERR_PROBLEM, "%s %" PRId64 " must be at least %" PRId64, field, value, least);
}

static nf_status check_types(const nf_problem *p)
{
    if (!nf_dtype_is_valid(p->dtype))
        return nf_fail(NF_ERR_PROBLEM, "dtype %d is no nf_dtype", (int)p->dtype);
    if (!nf_dtype_is_valid(p->out_dtype))
        return nf_fail(NF_ERR_PROBLEM, "out_dtype %d is no nf_dtype", (int)p->out_dtype);
    const bool narrow = p->dtype == NF_BF16 || p->dtype == NF_F16;
    if (p->out_dtype != p->dtype && !(narrow && p->out_dtype == NF_F32))
        return nf_fail(NF_ERR_PROBLEM, "out_dtype %s must be dtype, %s%s", nf_dtype_name(p->out_dtype),
                       nf_dtype_name(p->dtype), narrow ? ", or f32" : "");
    if (p->direction < NF_FWD || p->direction > NF_BOTH)
        return nf_fail(NF_ERR_PROBLEM, "direction %d is no nf_direction", (int)p->direction);
    if (p->scale_set != 0 && p->scale_set != 1)
        return nf_fail(NF_ERR_PROBLEM, "scale_set %d must be 0 or 1", (int)p->scale_set);
    if (p->scale_set && !isfinite(p->scale))
        return nf_fail(NF_ERR_PROBLEM, "scale %g must be finite", p->scale);
    return NF_OK;
}

static nf_status check_sizes(const nf_problem *p)
{
    const struct {
        const char *field;
        int64_t value, least;
    } sizes[] = {{"batch", p->batch, 1},       {"heads", p->heads, 1},         {"kv_heads", p->kv_heads, 1},
                 {"head_dim", p->head_dim, 1}, {"value_dim", p->value_dim, 1}, {"extra", p->extra, 0}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const nf_status status = check_at_least(sizes[i].field, sizes[i].value, sizes[i].least);
        if (status != NF_OK)
            return status;
    }
    if (p->heads % p->kv_heads)
        return nf_fail(NF_ERR_PROBLEM, "heads %" PRId64 " must be a multiple of kv_heads %" PRId64, p->heads,
                       p->kv_heads);
    return NF_OK;
}

/* begin and count of the queries or keys; a count of 0 reaches to the end, so begin itself must lie inside. */
static nf_status check_range(int32_t a, const char *what, int64_t begin, int64_t count, int64_t extent)
{
    if (begin < 0 || begin >= extent)
        return nf_fail(NF_ERR_PROBLEM, "axis %d: %s_begin %" PRId64 " must lie in 0..%" PRId64, (int)a, what, begin,
                       extent - 1);
    if (count < 0)
        return nf_fail(NF_ERR_PROBLEM, "axis %d: %s_count %" PRId64 " must not be negative", (int)a, what, count);
    if (count > extent - begin)
        return nf_fail(NF_ERR_PROBLEM,
                       "axis %d: %s_begin %" PRId64 " + %s_count %" PRId64 " exceeds the extent %" PRId64, (int)a, what,
                       begin, what, count, extent);
    return NF_OK;
}

static nf_status check_cross_axis(const nf_problem *p, int32_t a)
{
    const nf_axis *axis = &p->axis[a];
    if (p->rank != 1)
        return nf_fail(NF_ERR_PROBLEM,
                       "axis %d: key_extent %" PRId64 " differs from extent %" PRId64 ", which needs rank 1, not %d",
                       (int)a, axis->key_extent, axis->extent, (int)p->rank);
    const struct {
        const char *field;
        int64_t value, required;
    } plain[] = {{"window", axis->window, 0}, {"stride", axis->stride, 1}, {"dilation", axis->dilation, 1}};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (plain[i].value != plain[i].required)
            return nf_fail(NF_ERR_PROBLEM,
                           "axis %d: %s %" PRId64 " must be %" PRId64 " when key_extent differs from extent", (int)a,
                           plain[i].field, plain[i].value, plain[i].required);
    if (axis->q_count == 0 && axis->q_begin == 0)
        return NF_OK;
    if (axis->q_count != axis->extent)
        return nf_fail(NF_ERR_PROBLEM,
                       "axis %d: q_count %" PRId64 " must be the extent %" PRId64
                       " when key_extent differs from it: the range places all queries on the key axis",
                       (int)a, axis->q_count, axis->extent);
    return check_range(a, "q", axis->q_begin, axis->q_count, axis->key_extent);
}

static nf_status check_neighborhood(const nf_axis *axis, int32_t a)
{
    const int64_t window = nf_axis_window(axis);
    if (axis->stride < 1 || axis->stride > window)
        return nf_fail(NF_ERR_PROBLEM, "axis %d: stride %" PRId64 " must lie in 1..window, %" PRId64, (int)a,
                       axis->stride, window);
    if (axis->dilation < 1)
        return nf_fail(NF_ERR_PROBLEM, "axis %d: dilation %" PRId64 " must be at least 1", (int)a, axis->dilation);
    int64_t reach;
    if (__builtin_mul_overflow(window, axis->dilation, &reach))
        return nf_fail(NF_ERR_PROBLEM, "axis %d: window %" PRId64 " * dilation %" PRId64 " exceeds the extent %" PRId64,
                       (int)a, window, axis->dilation, axis->extent);
    if (reach > axis->extent)
        return nf_fail(NF_ERR_PROBLEM,
                       "axis %d: window %" PRId64 "%s * dilation %" PRId64 " = %" PRId64 " exceeds the extent %" PRId64,
                       (int)a, window, axis->window ? "" : " (the whole extent)", axis->dilation, reach, axis->extent);
    return check_range(a, "q", axis->q_begin, axis->q_count, axis->extent);
}

static nf_status check_axis(const nf_problem *p, int32_t a)
{
    const nf_axis *axis = &p->axis[a];
    if (axis->extent < 1 || axis->extent > INT32_MAX)
        return nf_fail(NF_ERR_PROBLEM, "axis %d: extent %" PRId64 " must lie in 1..2^31 - 1", (int)a, axis->extent);
    if (axis->key_extent < 0 || axis->key_extent > INT32_MAX)
        return nf_fail(NF_ERR_PROBLEM, "axis %d: key_extent %" PRId64 " must lie in 1..2^31 - 1, or be 0", (int)a,
                       axis->key_extent);
    if (axis->window < 0)
        return nf_fail(NF_ERR_PROBLEM, "axis %d: window %" PRId64 " must be at least 1, or 0 for the whole extent",
                       (int)a, axis->window);
    if (axis->causal != 0 && axis->causal != 1)
        return nf_fail(NF_ERR_PROBLEM, "axis %d: causal %" PRId64 " must be 0 or 1", (int)a, axis->causal);
    const nf_status status = nf_axis_is_cross(axis) ? check_cross_axis(p, a) : check_neighborhood(axis, a);
    if (status != NF_OK)
        return status;
    return check_range(a, "k", axis->k_begin, axis->k_count, nf_axis_keys(axis));
}

/* Bytes must fit with room to spare, so that differences of offsets fit too. */
static nf_status check_bytes(const nf_problem *p, const char *role, bool queries, int64_t heads, int64_t dim)
{
    int64_t bytes = 8;
    bool overflow = __builtin_mul_overflow(bytes, p->batch, &bytes);
    for (int32_t a = 0; a < p->rank; a++) {
        const nf_axis_range range = queries ? nf_axis_query_range(&p->axis[a]) : nf_axis_key_range(&p->axis[a]);
        overflow |= __builtin_mul_overflow(bytes, range.count, &bytes);
    }
    overflow |= __builtin_mul_overflow(bytes, heads, &bytes);
    overflow |= __builtin_mul_overflow(bytes, dim, &bytes);
    if (overflow)
        return nf_fail(NF_ERR_PROBLEM, "%s: its size in bytes exceeds 2^63 - 1", role);
    return NF_OK;
}

static nf_status check_extra_bytes(const nf_problem *p)
{
    int64_t bytes = 8;
    const int64_t dim = p->head_dim > p->value_dim ? p->head_dim : p->value_dim;
    bool overflow = __builtin_mul_overflow(bytes, p->batch, &bytes);
    overflow |= __builtin_mul_overflow(bytes, p->extra, &bytes);
    overflow |= __builtin_mul_overflow(bytes, p->kv_heads, &bytes);
    overflow |= __builtin_mul_overflow(bytes, dim, &bytes);
    if (overflow)
        return nf_fail(NF_ERR_PROBLEM, "extra %" PRId64 ": the size of extra_k or extra_v in bytes exceeds 2^63 - 1",
                       p->extra);
    return NF_OK;
}

nf_status nf_problem_check(const nf_problem *problem)
{
    nf_status status = nf_check_size(problem, sizeof *problem, "problem", "nf_problem");
    if (status != NF_OK)
        return status;
    if (problem->rank < 1 || problem->rank > NF_MAX_RANK)
        return nf_fail(NF_ERR_PROBLEM, "rank %d must lie in 1..%d", (int)problem->rank, NF_MAX_RANK);
    if ((status = check_types(problem)) != NF_OK || (status = check_sizes(problem)) != NF_OK)
        return status;
    for (int32_t a = 0; a < problem->rank; a++)
        if ((status = check_axis(problem, a)) != NF_OK)
            return status;
    if ((status = check_bytes(problem, "q", true, problem->heads, problem->head_dim)) != NF_OK ||
        (status = check_bytes(problem, "out", true, problem->heads, problem->value_dim)) != NF_OK ||
        (status = check_bytes(problem, "k", false, problem->kv_heads, problem->head_dim)) != NF_OK ||
        (status = check_bytes(problem, "v", false, problem->kv_heads, problem->value_dim)) != NF_OK)
        return status;
    return check_extra_bytes(problem);
}
