/* Laws of the masks: problems that must equal other problems, regrouped. */
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PURPOSE_MASK = 41, MAX_CLASSES = 64 };

static const int inputs[] = {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_DLSE};
static const int token_inputs[] = {NF_Q, NF_K, NF_V, NF_DOUT, NF_DLSE};
static const int token_outputs[] = {NF_OUT, NF_LSE, NF_DQ, NF_DK, NF_DV};
enum { INPUTS = 7, TOKEN_INPUTS = 5, TOKEN_OUTPUTS = 5 };

static verify_outcome not_here(char *why)
{
    *why = 0;
    return VERIFY_SKIP;
}

/* A window as wide as the grid is dense attention over all tokens, whatever the rank and the stride. */
static verify_outcome check_dense(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    verify_random random = verify_random_stream(seed, PURPOSE_MASK);
    nf_problem grid = *problem, flat;
    verify_make_whole(&grid);
    int64_t tokens = 1;
    for (int32_t a = 0; a < grid.rank; a++) {
        nf_axis *axis = &grid.axis[a];
        tokens *= axis->extent;
        axis->window = axis->extent;
        axis->dilation = 1;
        axis->causal = 0;
        axis->stride = verify_random_between(&random, 1, axis->extent);
    }
    if (!verify_tame(engine, &grid))
        return not_here(why);
    flat = grid;
    flat.rank = 1;
    nf_problem fresh;
    nf_problem_init(&fresh);
    memcpy(flat.axis, fresh.axis, sizeof flat.axis);
    flat.axis[0].extent = tokens;
    verify_values on_grid, on_line = {0};
    verify_outcome outcome = verify_normal_trial(engine, &grid, seed, true, &on_grid, why);
    if (outcome == VERIFY_PASS)
        outcome = verify_normal_trial(engine, &flat, seed, true, &on_line, why);
    if (outcome == VERIFY_PASS && !verify_same_outputs(&on_grid, &on_line, verify_tolerance(&grid), why))
        outcome = VERIFY_FAIL;
    verify_values_destroy(&on_grid);
    verify_values_destroy(&on_line);
    return outcome;
}

/* Splits a number into digits, one per axis, last fastest. */
static void unravel(const int64_t *counts, int32_t rank, int64_t flat, int64_t *index)
{
    for (int32_t a = rank - 1; a >= 0; a--) {
        index[a] = flat % counts[a];
        flat /= counts[a];
    }
}

/* Runs part, whose tokens are the whole's map[], on the whole's inputs and compares what both computed. */
static verify_outcome compare_part(const verify_engine *engine, const nf_problem *part, const int64_t *map,
                                   const verify_values *whole, verify_values *extra_sum, char *why)
{
    verify_values values, expected;
    verify_values_create(&values, part);
    verify_values_create(&expected, part);
    for (int i = 0; i < TOKEN_INPUTS; i++)
        verify_take_tokens(&values.role[token_inputs[i]], &whole->role[token_inputs[i]], map);
    verify_copy_array(&values.role[NF_EXTRA_K], &whole->role[NF_EXTRA_K]);
    verify_copy_array(&values.role[NF_EXTRA_V], &whole->role[NF_EXTRA_V]);
    verify_outcome outcome = verify_trial(engine, part, &values, true, why);
    for (int i = 0; i < TOKEN_OUTPUTS && outcome == VERIFY_PASS; i++) {
        const int role = token_outputs[i];
        verify_take_tokens(&expected.role[role], &whole->role[role], map);
        if (!verify_same(&values.role[role], &expected.role[role], verify_tolerance(part), nf_role_name((nf_role)role),
                         why))
            outcome = VERIFY_FAIL;
    }
    verify_add_array(&extra_sum->role[NF_DEXTRA_K], &values.role[NF_DEXTRA_K]);
    verify_add_array(&extra_sum->role[NF_DEXTRA_V], &values.role[NF_DEXTRA_V]);
    verify_values_destroy(&values);
    verify_values_destroy(&expected);
    return outcome;
}

static bool same_extra(const verify_values *sum, const verify_values *whole, double tolerance, char *why)
{
    return !sum->role[NF_DEXTRA_K].data ||
           (verify_same(&sum->role[NF_DEXTRA_K], &whole->role[NF_DEXTRA_K], tolerance, "sum of dextra_k", why) &&
            verify_same(&sum->role[NF_DEXTRA_V], &whole->role[NF_DEXTRA_V], tolerance, "sum of dextra_v", why));
}

/* The undilated problem of one residue class, and which tokens it has. */
static void class_of(const nf_problem *whole, const int64_t *residue, nf_problem *part, int64_t **map)
{
    *part = *whole;
    int64_t counts[NF_MAX_RANK], tokens = 1;
    for (int32_t a = 0; a < whole->rank; a++) {
        nf_axis *axis = &part->axis[a];
        counts[a] = axis->extent = (whole->axis[a].extent - residue[a] + axis->dilation - 1) / axis->dilation;
        axis->dilation = 1;
        tokens *= counts[a];
    }
    *map = verify_alloc(tokens, sizeof **map);
    for (int64_t t = 0; t < tokens; t++) {
        int64_t index[NF_MAX_RANK], flat = 0;
        unravel(counts, whole->rank, t, index);
        for (int32_t a = 0; a < whole->rank; a++)
            flat = flat * whole->axis[a].extent + residue[a] + whole->axis[a].dilation * index[a];
        (*map)[t] = flat;
    }
}

/* A dilated problem is one undilated problem per residue class. */
static verify_outcome check_dilation(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem whole = *problem;
    verify_make_whole(&whole);
    int64_t dilations[NF_MAX_RANK], classes = 1;
    nf_axis *last = &whole.axis[whole.rank - 1];
    if (last->dilation == 1 && last->extent >= 2) {
        last->dilation = 2;
        if (last->window == 0 || last->window > last->extent / 2)
            last->window = last->extent / 2;
        if (last->stride > last->window)
            last->stride = last->window;
    }
    for (int32_t a = 0; a < whole.rank; a++)
        classes *= dilations[a] = whole.axis[a].dilation;
    if (classes == 1 || classes > MAX_CLASSES || !verify_tame(engine, &whole))
        return not_here(why);
    verify_values values, extra_sum;
    verify_values_create(&extra_sum, &whole);
    verify_outcome outcome = verify_normal_trial(engine, &whole, seed, true, &values, why);
    for (int64_t c = 0; c < classes && outcome == VERIFY_PASS; c++) {
        int64_t residue[NF_MAX_RANK], *map;
        nf_problem part;
        unravel(dilations, whole.rank, c, residue);
        class_of(&whole, residue, &part, &map);
        outcome = compare_part(engine, &part, map, &values, &extra_sum, why);
        free(map);
    }
    if (outcome == VERIFY_PASS && !same_extra(&extra_sum, &values, verify_tolerance(&whole), why))
        outcome = VERIFY_FAIL;
    verify_values_destroy(&values);
    verify_values_destroy(&extra_sum);
    return outcome;
}

/* Where the stride is the window, every block of window tokens is a problem of its own. */
static verify_outcome check_blocked(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    verify_random random = verify_random_stream(seed, PURPOSE_MASK);
    nf_problem whole = *problem, part;
    verify_make_whole(&whole);
    int64_t blocks[NF_MAX_RANK], count = 1;
    for (int32_t a = 0; a < whole.rank; a++) {
        nf_axis *axis = &whole.axis[a];
        axis->dilation = 1;
        axis->window = axis->stride = verify_random_between(&random, 1, (axis->extent + 1) / 2);
        blocks[a] = axis->extent / axis->window;
        axis->extent = blocks[a] * axis->window;
        count *= blocks[a];
    }
    if (!verify_tame(engine, &whole) || count > MAX_CLASSES)
        return not_here(why);
    part = whole;
    for (int32_t a = 0; a < whole.rank; a++)
        part.axis[a].extent = part.axis[a].window;
    verify_values values, extra_sum;
    verify_values_create(&extra_sum, &whole);
    verify_outcome outcome = verify_normal_trial(engine, &whole, seed, true, &values, why);
    for (int64_t block = 0; block < count && outcome == VERIFY_PASS; block++) {
        int64_t place[NF_MAX_RANK], windows[NF_MAX_RANK], tokens = 1;
        unravel(blocks, whole.rank, block, place);
        for (int32_t a = 0; a < whole.rank; a++)
            tokens *= windows[a] = part.axis[a].extent;
        int64_t *map = verify_alloc(tokens, sizeof *map);
        for (int64_t t = 0; t < tokens; t++) {
            int64_t index[NF_MAX_RANK], flat = 0;
            unravel(windows, whole.rank, t, index);
            for (int32_t a = 0; a < whole.rank; a++)
                flat = flat * whole.axis[a].extent + place[a] * windows[a] + index[a];
            map[t] = flat;
        }
        outcome = compare_part(engine, &part, map, &values, &extra_sum, why);
        free(map);
    }
    if (outcome == VERIFY_PASS && !same_extra(&extra_sum, &values, verify_tolerance(&whole), why))
        outcome = VERIFY_FAIL;
    verify_values_destroy(&values);
    verify_values_destroy(&extra_sum);
    return outcome;
}

/* A query range of the whole, as a problem of its own: the tokens it has are the whole's map[]. */
static verify_outcome compare_range(const verify_engine *engine, const nf_problem *part, const int64_t *map,
                                    const verify_values *whole, verify_values *sum, char *why)
{
    verify_values got, expected;
    verify_values_create(&got, part);
    verify_values_create(&expected, part);
    for (int i = 0; i < INPUTS; i++) {
        const int role = inputs[i];
        if (role == NF_Q || role == NF_DOUT || role == NF_DLSE)
            verify_take_tokens(&got.role[role], &whole->role[role], map);
        else
            verify_copy_array(&got.role[role], &whole->role[role]);
    }
    verify_outcome outcome = verify_trial(engine, part, &got, true, why);
    for (int i = 0; i < 3 && outcome == VERIFY_PASS; i++) {
        const int role = token_outputs[i]; /* out, lse, dq */
        verify_take_tokens(&expected.role[role], &whole->role[role], map);
        if (!verify_same(&got.role[role], &expected.role[role], verify_tolerance(part), nf_role_name((nf_role)role),
                         why))
            outcome = VERIFY_FAIL;
    }
    for (int role = NF_DK; role < NF_ROLES; role++)
        verify_add_array(&sum->role[role], &got.role[role]);
    verify_values_destroy(&got);
    verify_values_destroy(&expected);
    return outcome;
}

/* Queries begin .. begin + count - 1 of the axis' range: the problem, and the whole's token of each of its own. */
static void range_of(const nf_problem *whole, int32_t a, int64_t begin, int64_t count, nf_problem *part, int64_t **map)
{
    int64_t inner = 1, outer = 1;
    for (int32_t i = 0; i < whole->rank; i++) {
        const nf_axis *axis = &whole->axis[i];
        const int64_t queries = axis->q_count ? axis->q_count : axis->extent - axis->q_begin;
        inner *= i > a ? queries : 1;
        outer *= i < a ? queries : 1;
    }
    *part = *whole;
    part->axis[a].q_begin += begin;
    part->axis[a].q_count = count;
    const int64_t per_outer = count * inner, stride = whole->axis[a].q_count * inner;
    *map = verify_alloc(outer * per_outer, sizeof **map);
    for (int64_t t = 0; t < outer * per_outer; t++)
        (*map)[t] = t / per_outer * stride + begin * inner + t % per_outer;
}

/* Some queries of the whole are the problem with that query range, and the key gradients of two ranges add up. */
static verify_outcome check_query_range(const verify_engine *engine, const nf_problem *problem, uint64_t seed,
                                        char *why)
{
    verify_random random = verify_random_stream(seed, PURPOSE_MASK);
    nf_problem whole = *problem;
    const int32_t a = (int32_t)verify_random_below(&random, whole.rank);
    nf_axis *axis = &whole.axis[a];
    if (axis->key_extent && axis->key_extent != axis->extent)
        return not_here(why);
    axis->q_count = axis->q_count ? axis->q_count : axis->extent - axis->q_begin;
    if (axis->q_count < 2 || !verify_tame(engine, &whole))
        return not_here(why);
    const int64_t cut = verify_random_between(&random, 1, axis->q_count - 1);
    verify_values values, sum;
    verify_values_create(&sum, &whole);
    verify_outcome outcome = verify_normal_trial(engine, &whole, seed, true, &values, why);
    for (int half = 0; half < 2 && outcome == VERIFY_PASS; half++) {
        nf_problem part;
        int64_t *map;
        range_of(&whole, a, half ? cut : 0, half ? axis->q_count - cut : cut, &part, &map);
        outcome = compare_range(engine, &part, map, &values, &sum, why);
        free(map);
    }
    for (int role = NF_DK; role < NF_ROLES && outcome == VERIFY_PASS; role++)
        if (sum.role[role].data && !verify_same(&sum.role[role], &values.role[role], verify_tolerance(&whole),
                                                nf_role_name((nf_role)role), why))
            outcome = VERIFY_FAIL;
    verify_values_destroy(&values);
    verify_values_destroy(&sum);
    return outcome;
}

const verify_identity verify_identities_mask[] = {
    {"dense", check_dense},
    {"dilation", check_dilation},
    {"blocked", check_blocked},
    {"query-range", check_query_range},
    {NULL, NULL},
};
