/* The differential rule: how far from the truth a result may be.
 *
 * truth is the reference (double, f64 in long double) on the same inputs, plain the unfused computation in the working
 * precision, U the rounding unit of an element (verify_plain.c), a = 2 max |(truth + 0.3 - 0.3) - truth| in the type.
 *     per tensor   max |fast - truth| <= 2 max |plain - truth| + a + 8 max U
 *     per row      |fast - truth| <= max(4 r, 8) U(row) + a,  r the largest plain row error in units of that row's U
 *     by norm      ordinary data, |score| <= 30: errors within 1e-5 (f32), 1e-13 (f64) of out, of U/eps for gradients
 *     lse          max(1, |score|max) times 1e-13 (f64), 1e-5 (f32), 1e-3 (bf16, f16)
 * Where the truth is not finite the result must not be; elsewhere it must be finite. What nothing contributes to (U and
 * the truth are 0) must be exactly 0.
 *
 * U is eps times the sum of absolute products of the last product, plus what its factors have lost before. That second
 * part is no generosity: without it a correct kernel fails on scores of 1e4 and on cancelling gradients whenever plain
 * happens to be lucky on a small tensor. test_verify.c holds the rule against `plain` summed in the opposite order.
 * Equal terms round the same way again and again, so a sum of n of them is off by about n eps / 8 in one order and by
 * little in another (seen: 27 eps after 480 terms in f32, 163 after 1107 in f64, where the truth is off as well): data
 * that is equal on purpose, or by a broadcast, gets n / 4 units more. 16-bit types do not: they sum in f32, whose
 * epsilon is nothing to theirs. */
#include "verify.h"

#include <math.h>
#include <stdio.h>

typedef struct rule_limits {
    double plain_error, plain_ratio, rounding, unit, unit_norm, truth_norm;
} rule_limits;

static double row_maximum(const double *row, int64_t dim)
{
    double maximum = 0;
    for (int64_t c = 0; c < dim; c++)
        if (row[c] > maximum && isfinite(row[c]))
            maximum = row[c];
    return maximum;
}

static rule_limits measure(const verify_judge *judge, int role)
{
    const verify_array *truth = &judge->truth->role[role], *plain = &judge->plain->role[role];
    const verify_array *unit = &judge->unit->role[role];
    const nf_dtype dtype = plain->shape.dtype;
    rule_limits limits = {0};
    for (int64_t r = 0; r < truth->count / truth->dim; r++) {
        const double row_unit = row_maximum(unit->data + r * unit->dim, unit->dim);
        for (int64_t i = r * truth->dim; i < (r + 1) * truth->dim; i++) {
            const double exact = truth->data[i], stored = verify_round(dtype, exact);
            if (!isfinite(stored))
                continue;
            const double shifted = verify_round(dtype, verify_round(dtype, stored + 0.3) - 0.3);
            limits.rounding = fmax(limits.rounding, 2 * fabs(shifted - stored));
            limits.truth_norm += exact * exact;
            limits.unit_norm += unit->data[i] * unit->data[i];
            const double error = fabs(plain->data[i] - exact);
            if (isfinite(error)) {
                limits.plain_error = fmax(limits.plain_error, error);
                if (row_unit > 0)
                    limits.plain_ratio = fmax(limits.plain_ratio, error / row_unit);
            }
        }
        limits.unit = fmax(limits.unit, row_unit);
    }
    limits.truth_norm = sqrt(limits.truth_norm);
    limits.unit_norm = sqrt(limits.unit_norm) / verify_epsilon(judge->problem->dtype);
    return limits;
}

static void explain(char *why, const verify_array *array, int role, int64_t i, const char *rule, double got,
                    double truth, double bound)
{
    const int64_t row = i / array->dim, per_batch = array->tokens * array->heads;
    snprintf(why, VERIFY_WHY,
             "%s: %s at batch %lld token %lld head %lld channel %lld: got %.9g, truth %.9g, error %.3g, "
             "bound %.3g",
             nf_role_name((nf_role)role), rule, (long long)(row / per_batch),
             (long long)(row % per_batch / array->heads), (long long)(row % array->heads), (long long)(i % array->dim),
             got, truth, fabs(got - truth), bound);
}

/* Judges finiteness; *done tells that there is nothing more to judge about this element. */
static bool judge_finite(nf_dtype dtype, double got, double truth, bool *done)
{
    const double largest = verify_largest(dtype), nearly = largest * (1 - 8 * verify_epsilon(dtype));
    *done = true;
    if (!isfinite(truth))
        return !isfinite(got);
    if (fabs(truth) >= nearly) /* may round to infinity */
        return fabs(got) >= nearly;
    *done = false;
    return isfinite(got);
}

static void note_error(verify_judge *judge, double error, double bound)
{
    if (error > 0)
        judge->worst = fmax(judge->worst, error / bound);
}

static bool judge_lse(verify_judge *judge, const verify_array *fast, char *why)
{
    const verify_array *truth = &judge->truth->role[NF_LSE];
    const double tolerance[] = {[NF_F32] = 1e-5, [NF_F64] = 1e-13, [NF_BF16] = 1e-3, [NF_F16] = 1e-3};
    const double bound = tolerance[judge->problem->dtype] * fmax(1, judge->score_size);
    for (int64_t i = 0; i < fast->count; i++) {
        const double got = fast->data[i], exact = truth->data[i];
        const bool passed = isfinite(exact)             ? fabs(got - exact) <= bound
                            : isinf(exact) && exact < 0 ? got == exact
                                                        : !isfinite(got);
        if (!passed) {
            explain(why, fast, NF_LSE, i, "lse rule", got, exact, bound);
            return false;
        }
        if (isfinite(exact))
            note_error(judge, fabs(got - exact), bound);
    }
    return true;
}

static bool judge_norm(verify_judge *judge, int role, const rule_limits *limits, double error_norm, char *why)
{
    const nf_dtype dtype = judge->problem->dtype;
    if (!judge->well_conditioned || judge->score_size > 30 || (dtype != NF_F32 && dtype != NF_F64))
        return true;
    const double size = role == NF_OUT ? limits->truth_norm : limits->unit_norm;
    const double bound = (dtype == NF_F64 ? 1e-13 : 1e-5) * size;
    if (error_norm <= bound) {
        note_error(judge, error_norm, bound);
        return true;
    }
    snprintf(why, VERIFY_WHY, "%s: norm rule: error %.3g, bound %.3g", nf_role_name((nf_role)role), error_norm, bound);
    return false;
}

bool verify_judge_role(verify_judge *judge, int role, const verify_array *fast, char *why)
{
    if (role == NF_LSE)
        return judge_lse(judge, fast, why);
    const rule_limits limits = measure(judge, role);
    const verify_array *truth = &judge->truth->role[role], *unit = &judge->unit->role[role];
    const double floor_units = 8 + (double)judge->equal_terms / 4;
    const double tensor_bound = 2 * limits.plain_error + limits.rounding + floor_units * limits.unit;
    double error_norm = 0;
    for (int64_t r = 0; r < fast->count / fast->dim; r++) {
        const double row_unit = row_maximum(unit->data + r * unit->dim, unit->dim);
        const double row_bound = fmax(4 * limits.plain_ratio, floor_units) * row_unit + limits.rounding;
        for (int64_t i = r * fast->dim; i < (r + 1) * fast->dim; i++) {
            const double got = fast->data[i], exact = truth->data[i], error = fabs(got - exact);
            bool done;
            const char *broken = NULL;
            if (!judge_finite(fast->shape.dtype, got, exact, &done))
                broken = "finite rule";
            else if (!done && exact == 0 && unit->data[i] == 0 && got != 0)
                broken = "zero rule";
            else if (!done && !(error <= row_bound))
                broken = "row rule";
            else if (!done && !(error <= tensor_bound))
                broken = "tensor rule";
            if (broken) {
                explain(why, fast, role, i, broken, got, exact, fmin(row_bound, tensor_bound));
                return false;
            }
            if (done)
                continue;
            note_error(judge, error, fmin(row_bound, tensor_bound));
            error_norm += error * error;
        }
    }
    return judge_norm(judge, role, &limits, sqrt(error_norm), why);
}
