/* Problem strings, writing and hashing: the canonical form, which problem_parse.c reads back to an equal problem. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/check.h"
#include "core/dtype.h"
#include "core/number.h"
#include "core/problem.h"
#include "core/problem_text.h"
#include "core/status.h"
#include "core/text.h"

const char *nf_direction_name(nf_direction direction)
{
    static const char *const names[] = {[NF_FWD] = "fwd", [NF_BWD] = "bwd", [NF_BOTH] = "both"};
    return names[direction];
}

/* The grammar has no words for these; nf_problem_check has more to say about the rest. */
static nf_status check_expressible(const nf_problem *p)
{
    nf_status status = nf_check_size(p, sizeof *p, "problem", "nf_problem");
    if (status != NF_OK)
        return status;
    if (p->rank < 1 || p->rank > NF_MAX_RANK || !nf_dtype_is_valid(p->dtype) || !nf_dtype_is_valid(p->out_dtype) ||
        p->direction < NF_FWD || p->direction > NF_BOTH || (p->scale_set && !isfinite(p->scale)))
        return nf_fail(NF_ERR_PROBLEM, "rank %d, dtype %d, out_dtype %d, direction %d, scale %g cannot be written",
                       (int)p->rank, (int)p->dtype, (int)p->out_dtype, (int)p->direction, p->scale);
    bool negative =
        p->batch < 0 || p->heads < 0 || p->kv_heads < 0 || p->head_dim < 0 || p->value_dim < 0 || p->extra < 0;
    for (int32_t a = 0; a < p->rank; a++) {
        const nf_axis *x = &p->axis[a];
        negative |= x->extent < 0 || x->key_extent < 0 || x->window < 0 || x->stride < 0 || x->dilation < 0 ||
                    x->causal < 0 || x->q_begin < 0 || x->q_count < 0 || x->k_begin < 0 || x->k_count < 0;
        if (nf_axis_is_cross(x) && p->rank != 1)
            return nf_fail(NF_ERR_PROBLEM, "axis %d: key_extent %" PRId64 " can be written for rank 1 only", (int)a,
                           x->key_extent);
    }
    return negative ? nf_fail(NF_ERR_PROBLEM, "a negative size cannot be written") : NF_OK;
}

static void write_pair(nf_text *text, const char *name, int64_t first, int64_t second)
{
    nf_text_printf(text, " %s%" PRId64, name, first);
    if (second != first)
        nf_text_printf(text, "/%" PRId64, second);
}

/* A per-axis field: one number if it serves all axes, else one per axis; nothing if it is the default everywhere. */
static void write_per_axis(nf_text *text, const nf_problem *p, const char *name, size_t field, int64_t unwritten)
{
    int64_t values[NF_MAX_RANK] = {0};
    bool same = true;
    for (int32_t a = 0; a < p->rank; a++) {
        memcpy(&values[a], (const char *)&p->axis[a] + field, sizeof values[a]);
        same = same && values[a] == values[0];
    }
    if (same && values[0] == unwritten)
        return;
    for (int32_t a = 0; a < (same ? 1 : p->rank); a++)
        nf_text_printf(text, "%s%" PRId64, a ? "x" : name, values[a]);
}

static void write_extents(nf_text *text, const nf_problem *p)
{
    bool sized = false;
    for (int32_t a = 0; a < p->rank; a++)
        sized |= p->axis[a].extent || p->axis[a].key_extent;
    for (int32_t a = 0; sized && a < p->rank; a++)
        nf_text_printf(text, "%s%" PRId64, a ? "x" : " ", p->axis[a].extent);
    if (nf_axis_is_cross(&p->axis[0]))
        nf_text_printf(text, "/%" PRId64, p->axis[0].key_extent);
}

static void write_ranges(nf_text *text, const nf_problem *p)
{
    bool queries = false, keys = false;
    for (int32_t a = 0; a < p->rank; a++) {
        queries |= p->axis[a].q_begin || p->axis[a].q_count;
        keys |= p->axis[a].k_begin || p->axis[a].k_count;
    }
    for (int32_t a = 0; queries && a < p->rank; a++)
        nf_text_printf(text, "%s%" PRId64 ":%" PRId64, a ? "x" : " q", p->axis[a].q_begin, p->axis[a].q_count);
    for (int32_t a = 0; keys && a < p->rank; a++)
        nf_text_printf(text, "%s%" PRId64 ":%" PRId64, a ? "x" : " k", p->axis[a].k_begin, p->axis[a].k_count);
}

nf_status nf_problem_format(const nf_problem *problem, char *buffer, size_t capacity, size_t *length)
{
    nf_text text;
    nf_status status = check_expressible(problem);
    if (status == NF_OK)
        status = nf_text_init(&text, buffer, capacity);
    if (status != NF_OK)
        return status;
    nf_text_printf(&text, "na%dd %s", (int)problem->rank, nf_dtype_name(problem->dtype));
    if (problem->out_dtype != problem->dtype)
        nf_text_printf(&text, " out=%s", nf_dtype_name(problem->out_dtype));
    nf_text_printf(&text, " b%" PRId64, problem->batch);
    write_pair(&text, "h", problem->heads, problem->kv_heads);
    if (problem->head_dim || problem->value_dim)
        write_pair(&text, "d", problem->head_dim, problem->value_dim);
    write_extents(&text, problem);
    write_per_axis(&text, problem, " w", offsetof(nf_axis, window), -1);
    write_per_axis(&text, problem, " s", offsetof(nf_axis, stride), 1);
    write_per_axis(&text, problem, " dil", offsetof(nf_axis, dilation), 1);
    write_per_axis(&text, problem, " c", offsetof(nf_axis, causal), 0);
    write_ranges(&text, problem);
    if (problem->extra)
        nf_text_printf(&text, " x%" PRId64, problem->extra);
    if (problem->scale_set) {
        char digits[NF_NUMBER_CAPACITY];
        nf_number_format(digits, problem->scale);
        nf_text_printf(&text, " scale=%s", digits);
    }
    nf_text_printf(&text, " %s", nf_direction_name(problem->direction));
    return nf_text_finish(&text, length);
}

nf_status nf_problem_hash(const nf_problem *problem, uint64_t *hash)
{
    char text[NF_PROBLEM_CAPACITY];
    if (!hash)
        return nf_fail(NF_ERR_ARGUMENT, "hash: NULL");
    const nf_status status = nf_problem_format(problem, text, sizeof text, NULL);
    if (status != NF_OK)
        return status;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (const char *c = text; *c; c++)
        h = (h ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    *hash = h;
    return NF_OK;
}
