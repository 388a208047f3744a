/* What the identities share: tame problems, trials, comparisons. */
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TAME_CHANNELS = 8 };

const verify_identity *verify_identity_at(int index)
{
    static const verify_identity *const groups[] = {verify_identities_mask, verify_identities_keys,
                                                    verify_identities_algebra, verify_identities_repeat,
                                                    verify_identities_far};
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (const verify_identity *i = groups[g]; i->name; i++)
            if (index-- == 0)
                return i;
    return NULL;
}

bool verify_tame(const verify_engine *engine, nf_problem *problem)
{
    problem->direction = NF_BOTH;
    const double spread = fabs(verify_scale(problem)) * sqrt((double)problem->head_dim);
    if (spread > 2 || spread < 0.05) {
        problem->scale_set = 0;
        problem->scale = 0;
    }
    if (verify_cost(problem) > engine->affordable) {
        problem->batch = problem->heads = problem->kv_heads = 1;
        if (problem->head_dim > TAME_CHANNELS)
            problem->head_dim = TAME_CHANNELS;
        if (problem->value_dim > TAME_CHANNELS)
            problem->value_dim = TAME_CHANNELS;
    }
    return verify_cost(problem) <= engine->affordable;
}

void verify_make_whole(nf_problem *problem)
{
    for (int32_t a = 0; a < problem->rank; a++) {
        nf_axis *axis = &problem->axis[a];
        axis->key_extent = axis->q_begin = axis->q_count = axis->k_begin = axis->k_count = 0;
    }
}

verify_outcome verify_trial(const verify_engine *engine, const nf_problem *problem, verify_values *values, bool dlse,
                            char *why)
{
    verify_call call = verify_call_plain(engine);
    call.dlse = dlse;
    return verify_under_test(engine, &call, problem, values, why);
}

verify_outcome verify_normal_trial(const verify_engine *engine, const nf_problem *problem, uint64_t seed, bool dlse,
                                   verify_values *values, char *why)
{
    verify_values_create(values, problem);
    verify_fill_normal(values, problem, seed);
    return verify_trial(engine, problem, values, dlse, why);
}

double verify_tolerance(const nf_problem *problem)
{
    switch (problem->dtype) {
    case NF_F64: return 2e-13;
    case NF_F32: return 3e-5;
    default: return 6 * verify_epsilon(problem->dtype);
    }
}

static double largest(const double *data, int64_t count)
{
    double size = 1;
    for (int64_t i = 0; i < count; i++)
        if (isfinite(data[i]) && fabs(data[i]) > size)
            size = fabs(data[i]);
    return size;
}

static int64_t first_difference(const double *a, const double *b, int64_t count, double bound)
{
    for (int64_t i = 0; i < count; i++) {
        const bool same = memcmp(&a[i], &b[i], sizeof *a) == 0;
        if (!same && (bound == 0 || !(a[i] == b[i] || fabs(a[i] - b[i]) <= bound)))
            return i;
        if (isnan(a[i]))
            return i;
    }
    return -1;
}

bool verify_same_rows(const double *a, const double *b, int64_t dim, double tolerance)
{
    return first_difference(a, b, dim, tolerance * largest(b, dim)) < 0;
}

bool verify_same(const verify_array *a, const verify_array *b, double tolerance, const char *name, char *why)
{
    const double bound = tolerance * largest(b->data, b->count);
    const int64_t i = first_difference(a->data, b->data, a->count, bound);
    if (i < 0)
        return true;
    snprintf(why, VERIFY_WHY, "%s: element %lld of %lld is %.9g against %.9g, error %.3g, bound %.3g", name,
             (long long)i, (long long)a->count, a->data[i], b->data[i], fabs(a->data[i] - b->data[i]), bound);
    return false;
}

bool verify_same_outputs(const verify_values *a, const verify_values *b, double tolerance, char *why)
{
    for (int role = NF_OUT; role < NF_ROLES; role++) {
        if (!a->role[role].data || role == NF_DOUT || role == NF_DLSE)
            continue;
        if (!verify_same(&a->role[role], &b->role[role], tolerance, nf_role_name((nf_role)role), why))
            return false;
    }
    return true;
}

void verify_take_tokens(verify_array *to, const verify_array *from, const int64_t *map)
{
    const size_t bytes = (size_t)(to->heads * to->dim) * sizeof(double);
    for (int64_t b = 0; b < to->batch; b++)
        for (int64_t t = 0; t < to->tokens; t++)
            memcpy(verify_row(to, b, t, 0), verify_row(from, b, map[t], 0), bytes);
}

void verify_copy_array(verify_array *to, const verify_array *from)
{
    if (to->data)
        memcpy(to->data, from->data, (size_t)to->count * sizeof(double));
}

void verify_add_array(verify_array *sum, const verify_array *term)
{
    for (int64_t i = 0; sum->data && i < sum->count; i++)
        sum->data[i] += term->data[i];
}
