/* Laws of the arithmetic: shifts, constants, linearity, derivatives, repeated heads. */
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PURPOSE_ALGEBRA = 43 };

static verify_outcome not_here(char *why)
{
    *why = 0;
    return VERIFY_SKIP;
}

/* Copies the channels both have; the others are fill. */
static void copy_channels(verify_array *to, const verify_array *from, double fill)
{
    for (int64_t r = 0; to->data && r < to->count / to->dim; r++)
        for (int64_t c = 0; c < to->dim; c++)
            to->data[r * to->dim + c] = c < from->dim ? from->data[r * from->dim + c] : fill;
}

/* Score shift of a query row: a multiple of 1/2, exact in every type. */
static double shift_of(int64_t row)
{
    return 0.5 * (double)(row * 7 % 17 - 8);
}

/* Expected results of the shifted problem from those of the plain one. */
static void expect_shift(verify_values *expected, const verify_values *values, double scale)
{
    for (int role = NF_OUT; role < NF_ROLES; role++)
        copy_channels(&expected->role[role], &values->role[role], 0);
    const verify_array *lse = &values->role[NF_LSE], *dlse = &values->role[NF_DLSE];
    verify_array *dq = &expected->role[NF_DQ];
    for (int64_t row = 0; row < lse->count; row++) {
        expected->role[NF_LSE].data[row] = lse->data[row] + scale * shift_of(row);
        /* the row's score gradients add up to dlse */
        dq->data[(row + 1) * dq->dim - 1] = isinf(lse->data[row]) ? 0 : scale * dlse->data[row];
    }
}

/* A constant added to all scores of a row, through one more channel, changes only its lse. */
static verify_outcome check_shift(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem narrow = *problem;
    if (!verify_tame(engine, &narrow))
        return not_here(why);
    nf_problem wide = narrow;
    const int64_t dim = narrow.head_dim;
    wide.head_dim++;
    wide.scale_set = 1;
    wide.scale = verify_scale(&narrow);
    verify_values values, shifted, expected;
    verify_outcome outcome = verify_normal_trial(engine, &narrow, seed, true, &values, why);
    verify_values_create(&shifted, &wide);
    verify_values_create(&expected, &wide);
    for (int role = NF_Q; role <= NF_DLSE; role++)
        copy_channels(&shifted.role[role], &values.role[role], 1);
    for (int64_t row = 0; row < shifted.role[NF_LSE].count; row++)
        shifted.role[NF_Q].data[(row + 1) * (dim + 1) - 1] = shift_of(row);
    if (outcome == VERIFY_PASS)
        outcome = verify_trial(engine, &wide, &shifted, true, why);
    expect_shift(&expected, &values, wide.scale);
    static const int with_shift[] = {NF_DK, NF_DEXTRA_K}; /* their last channel is the sum of shifts times dS */
    for (int i = 0; i < 2; i++) {
        verify_array *array = &shifted.role[with_shift[i]];
        for (int64_t r = 0; array->data && r < array->count / array->dim; r++)
            array->data[(r + 1) * array->dim - 1] = 0;
    }
    if (outcome == VERIFY_PASS && !verify_same_outputs(&shifted, &expected, verify_tolerance(&narrow), why))
        outcome = VERIFY_FAIL;
    verify_values_destroy(&values);
    verify_values_destroy(&shifted);
    verify_values_destroy(&expected);
    return outcome;
}

/* Every value the same within a batch and head: out is that value; without dlse, dq and dk vanish up to rounding. */
static verify_outcome check_constant(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem tame = *problem;
    if (!verify_tame(engine, &tame))
        return not_here(why);
    verify_values values, expected;
    verify_values_create(&values, &tame);
    verify_fill_normal(&values, &tame, seed);
    verify_array *v = &values.role[NF_V], *extra = &values.role[NF_EXTRA_V];
    const size_t row_bytes = (size_t)(v->heads * v->dim) * sizeof(double);
    for (int64_t b = 0; b < v->batch; b++) {
        for (int64_t t = 1; t < v->tokens; t++)
            memcpy(verify_row(v, b, t, 0), verify_row(v, b, 0, 0), row_bytes);
        for (int64_t t = 0; extra->data && t < extra->tokens; t++)
            memcpy(verify_row(extra, b, t, 0), verify_row(v, b, 0, 0), row_bytes);
    }
    verify_outcome outcome = verify_trial(engine, &tame, &values, false, why);
    verify_values_copy(&expected, &values);
    const verify_array *lse = &values.role[NF_LSE];
    for (int64_t row = 0; row < lse->count; row++) {
        const int64_t b = row / (lse->tokens * lse->heads), h = row % lse->heads / (tame.heads / tame.kv_heads);
        for (int64_t c = 0; c < v->dim; c++)
            expected.role[NF_OUT].data[row * v->dim + c] = isinf(lse->data[row]) ? 0 : verify_row(v, b, 0, h)[c];
    }
    static const int vanishing[] = {NF_DQ, NF_DK, NF_DEXTRA_K};
    for (int i = 0; i < 3; i++) {
        verify_array *array = &expected.role[vanishing[i]];
        for (int64_t j = 0; array->data && j < array->count; j++)
            array->data[j] = 0;
    }
    const double tolerance = verify_tolerance(&tame) * sqrt((double)tame.value_dim);
    if (outcome == VERIFY_PASS && !verify_same_outputs(&values, &expected, tolerance, why))
        outcome = VERIFY_FAIL;
    verify_values_destroy(&values);
    verify_values_destroy(&expected);
    return outcome;
}

/* Gradients of the sum of two cotangents are the sums of the gradients; of the double, bitwise the double. */
static verify_outcome check_linear(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem tame = *problem;
    if (!verify_tame(engine, &tame))
        return not_here(why);
    verify_values one, two, sum;
    verify_outcome outcome = verify_normal_trial(engine, &tame, seed, true, &one, why);
    verify_values_copy(&two, &one);
    verify_values_copy(&sum, &one);
    const bool doubled = seed % 2 && tame.dtype != NF_F16; /* f16 gradients may be subnormal or overflow */
    verify_random random = verify_random_stream(seed, PURPOSE_ALGEBRA);
    for (int role = NF_DOUT; role <= NF_DLSE; role++)
        for (int64_t i = 0; i < two.role[role].count; i++) {
            const double first = one.role[role].data[i];
            const double wanted = doubled ? first : verify_random_normal(&random);
            sum.role[role].data[i] = verify_round(two.role[role].shape.dtype, first + wanted);
            two.role[role].data[i] = verify_round(two.role[role].shape.dtype, sum.role[role].data[i] - first);
        }
    if (outcome == VERIFY_PASS)
        outcome = verify_trial(engine, &tame, &two, true, why);
    if (outcome == VERIFY_PASS)
        outcome = verify_trial(engine, &tame, &sum, true, why);
    for (int role = NF_DQ; role < NF_ROLES; role++)
        verify_add_array(&two.role[role], &one.role[role]);
    if (outcome == VERIFY_PASS && !verify_same_outputs(&sum, &two, doubled ? 0 : verify_tolerance(&tame), why))
        outcome = VERIFY_FAIL;
    verify_values_destroy(&one);
    verify_values_destroy(&two);
    verify_values_destroy(&sum);
    return outcome;
}

/* sum dout out + sum dlse lse, rows without keys left out */
static double loss(const verify_values *values)
{
    double sum = 0;
    for (int64_t i = 0; i < values->role[NF_OUT].count; i++)
        sum += values->role[NF_OUT].data[i] * values->role[NF_DOUT].data[i];
    for (int64_t i = 0; i < values->role[NF_LSE].count; i++)
        if (isfinite(values->role[NF_LSE].data[i]))
            sum += values->role[NF_LSE].data[i] * values->role[NF_DLSE].data[i];
    return sum;
}

/* The derivative of the loss along a random direction of one input, against its gradient. */
static verify_outcome check_direction(const verify_engine *engine, const nf_problem *problem,
                                      const verify_values *values, int input, verify_random *random, char *why)
{
    static const int gradient_of[] = {[NF_Q] = NF_DQ, [NF_K] = NF_DK, [NF_V] = NF_DV,
                                      [NF_EXTRA_K] = NF_DEXTRA_K, [NF_EXTRA_V] = NF_DEXTRA_V};
    const double step = 1e-5;
    const verify_array *gradient = &values->role[gradient_of[input]];
    verify_values up, down;
    verify_values_copy(&up, values);
    verify_values_copy(&down, values);
    double slope = 0, size = 0;
    for (int64_t i = 0; i < gradient->count; i++) {
        const double along = verify_random_chance(random, 50) ? 1 : -1;
        up.role[input].data[i] += step * along;
        down.role[input].data[i] -= step * along;
        slope += gradient->data[i] * along;
        size += fabs(gradient->data[i]);
    }
    nf_problem forward = *problem;
    forward.direction = NF_FWD;
    verify_outcome outcome = verify_trial(engine, &forward, &up, true, why);
    if (outcome == VERIFY_PASS)
        outcome = verify_trial(engine, &forward, &down, true, why);
    const double measured = (loss(&up) - loss(&down)) / (2 * step);
    const double bound = 1e-6 * fmax(1, size) + 1e-10 * fabs(loss(values)) / step;
    if (outcome == VERIFY_PASS && !(fabs(measured - slope) <= bound)) {
        snprintf(why, VERIFY_WHY, "%s along a direction: %.12g, central difference %.12g, bound %.3g",
                 nf_role_name((nf_role)gradient_of[input]), slope, measured, bound);
        outcome = VERIFY_FAIL;
    }
    verify_values_destroy(&up);
    verify_values_destroy(&down);
    return outcome;
}

static verify_outcome check_central(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem wide = *problem;
    wide.dtype = wide.out_dtype = NF_F64;
    if (!verify_tame(engine, &wide))
        return not_here(why);
    verify_random random = verify_random_stream(seed, PURPOSE_ALGEBRA);
    verify_values values;
    verify_outcome outcome = verify_normal_trial(engine, &wide, seed, true, &values, why);
    for (int input = NF_Q; input <= NF_EXTRA_V && outcome == VERIFY_PASS; input++)
        if (values.role[input].data)
            outcome = check_direction(engine, &wide, &values, input, &random, why);
    verify_values_destroy(&values);
    return outcome;
}

/* Row heads of `to` repeat the heads of `from`, group times each. */
static void repeat_heads(verify_array *to, const verify_array *from, int64_t group)
{
    for (int64_t bt = 0; to->data && bt < to->batch * to->tokens; bt++)
        for (int64_t h = 0; h < to->heads; h++)
            memcpy(to->data + (bt * to->heads + h) * to->dim, from->data + (bt * from->heads + h / group) * from->dim,
                   (size_t)to->dim * sizeof(double));
}

static void sum_heads(verify_array *to, const verify_array *from, int64_t group)
{
    for (int64_t bt = 0; to->data && bt < to->batch * to->tokens; bt++)
        for (int64_t h = 0; h < from->heads; h++)
            for (int64_t c = 0; c < to->dim; c++) {
                double *sum = &to->data[(bt * to->heads + h / group) * to->dim + c];
                *sum = (h % group ? *sum : 0) + from->data[(bt * from->heads + h) * from->dim + c];
            }
}

/* Query heads that share a key/value head are heads with copies of it, whose gradients add up. */
static verify_outcome check_grouped(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem grouped = *problem, repeated;
    if (!verify_tame(engine, &grouped))
        return not_here(why);
    if (grouped.heads == grouped.kv_heads)
        grouped.heads *= 2 + (int64_t)(seed % 2);
    const int64_t group = grouped.heads / grouped.kv_heads;
    repeated = grouped;
    repeated.kv_heads = grouped.heads;
    verify_values values, copies, summed;
    verify_outcome outcome = verify_normal_trial(engine, &grouped, seed, true, &values, why);
    verify_values_create(&copies, &repeated);
    verify_values_copy(&summed, &values);
    static const int same[] = {NF_Q, NF_DOUT, NF_DLSE}, repeats[] = {NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V};
    for (int i = 0; i < 3; i++)
        verify_copy_array(&copies.role[same[i]], &values.role[same[i]]);
    for (int i = 0; i < 4; i++)
        repeat_heads(&copies.role[repeats[i]], &values.role[repeats[i]], group);
    if (outcome == VERIFY_PASS)
        outcome = verify_trial(engine, &repeated, &copies, true, why);
    static const int equal[] = {NF_OUT, NF_LSE, NF_DQ};
    for (int i = 0; i < 3; i++)
        verify_copy_array(&summed.role[equal[i]], &copies.role[equal[i]]);
    for (int role = NF_DK; role < NF_ROLES; role++)
        sum_heads(&summed.role[role], &copies.role[role], group);
    if (outcome == VERIFY_PASS && !verify_same_outputs(&values, &summed, verify_tolerance(&grouped), why))
        outcome = VERIFY_FAIL;
    verify_values_destroy(&values);
    verify_values_destroy(&copies);
    verify_values_destroy(&summed);
    return outcome;
}

const verify_identity verify_identities_algebra[] = {
    {"score-shift", check_shift},
    {"constant-value", check_constant},
    {"linear-dout", check_linear},
    {"central-differences", check_central},
    {"grouped-heads", check_grouped},
    {NULL, NULL},
};
