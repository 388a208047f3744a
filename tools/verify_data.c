/* What the tensors of a case hold. Never only N(0,1): that alone has let real bugs through. */
#include "verify.h"

#include <float.h>
#include <math.h>

enum { PURPOSE_FILL = 11 };

static const char *const kind_names[VERIFY_KINDS] = {
    [VERIFY_NORMAL] = "normal", [VERIFY_LARGE] = "large", [VERIFY_DOMINANT] = "dominant", [VERIFY_EQUAL] = "equal",
    [VERIFY_DENORMAL] = "denormal", [VERIFY_ZERO] = "zero", [VERIFY_POISON] = "poison",
};

const char *verify_kind_name(verify_kind kind)
{
    return kind_names[kind];
}

double verify_scale(const nf_problem *problem)
{
    return problem->scale_set ? problem->scale : 1 / sqrt((double)problem->head_dim);
}

static void fill_scaled(verify_array *array, double size, verify_random *random)
{
    if (!array->data)
        return;
    for (int64_t i = 0; i < array->count; i++)
        array->data[i] = verify_round(array->shape.dtype, size * verify_random_normal(random));
}

static void fill_all(verify_values *values, double size, verify_random *random)
{
    static const int queries_and_keys[] = {NF_Q, NF_K, NF_EXTRA_K}, others[] = {NF_V, NF_EXTRA_V, NF_DOUT, NF_DLSE};
    for (int i = 0; i < 3; i++)
        fill_scaled(&values->role[queries_and_keys[i]], size, random);
    for (int i = 0; i < 4; i++)
        fill_scaled(&values->role[others[i]], 1, random);
}

/* The size of q and k that makes the largest of a few thousand scores about 10^2 to 10^4. */
static void fill_large(verify_values *values, const nf_problem *problem, verify_random *random)
{
    const double target = pow(10, 2 + 2 * verify_random_uniform(random));
    const double unit = fabs(verify_scale(problem)) * sqrt((double)problem->head_dim) * 4;
    fill_all(values, fmin(fmax(sqrt(target / (unit > 0 ? unit : 1)), 0.1), 200), random);
}

/* Every query has a common part, and one key of each batch and head points along it. */
static void fill_dominant(verify_values *values, const nf_problem *problem, verify_random *random)
{
    fill_all(values, 0.3, random);
    const double scale = verify_scale(problem);
    const double wanted = scale != 0 ? 40 / (scale * (double)problem->head_dim) : 1;
    const double length = fmin(fmax(wanted, -1000), 1000);
    verify_array *q = &values->role[NF_Q], *k = &values->role[NF_K];
    for (int64_t i = 0; i < q->count; i++)
        q->data[i] = verify_round(q->shape.dtype, q->data[i] + (i % q->dim % 2 ? 1 : -1));
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t h = 0; h < k->heads; h++) {
            double *row = verify_row(k, b, verify_random_below(random, k->tokens), h);
            for (int64_t c = 0; c < k->dim; c++)
                row[c] = verify_round(k->shape.dtype, c % 2 ? length : -length);
        }
}

static void repeat_first_row(verify_array *array)
{
    for (int64_t i = array->dim; array->data && i < array->count; i++)
        array->data[i] = array->data[i % array->dim];
}

static void fill_equal(verify_values *values, verify_random *random)
{
    fill_all(values, 1, random);
    repeat_first_row(&values->role[NF_Q]);
    repeat_first_row(&values->role[NF_K]);
    if (verify_random_chance(random, 50))
        repeat_first_row(&values->role[NF_V]);
}

static double smallest_normal(nf_dtype dtype)
{
    return dtype == NF_F64 ? DBL_MIN : dtype == NF_F16 ? 0x1p-14 : 0x1p-126;
}

/* Subnormal q against huge k, so that losing the subnormals changes the scores. Not for bf16, whose hardware dot
 * products read subnormals as zero; nor for small scales, because scaling q first is allowed and costs a subnormal its
 * last bits. */
static void fill_denormal(verify_values *values, const nf_problem *problem, verify_random *random)
{
    fill_all(values, 1, random);
    const nf_dtype dtype = problem->dtype;
    const double tiny = smallest_normal(dtype), scale = fabs(verify_scale(problem));
    if (dtype == NF_BF16 || scale < 0.05 || scale > 1) {
        for (int role = NF_Q; role <= NF_EXTRA_V; role++)
            for (int64_t i = 0; values->role[role].data && i < values->role[role].count; i += 3)
                values->role[role].data[i] = verify_round(dtype, tiny * values->role[role].data[i]);
        return;
    }
    const double huge = fmin(1 / (0.75 * tiny * scale * sqrt((double)problem->head_dim)), verify_largest(dtype) / 8);
    verify_array *q = &values->role[NF_Q];
    for (int64_t i = 0; i < q->count; i++)
        q->data[i] =
            verify_round(dtype, (q->data[i] < 0 ? -tiny : tiny) * (0.5 + 0.49 * verify_random_uniform(random)));
    for (int role = NF_K; role <= NF_EXTRA_K; role += NF_EXTRA_K - NF_K)
        for (int64_t i = 0; values->role[role].data && i < values->role[role].count; i++)
            values->role[role].data[i] = verify_round(dtype, huge * (2 * verify_random_uniform(random) - 1));
    for (int64_t i = 0; i < values->role[NF_DOUT].count; i++) /* dq is as huge as k: keep it finite */
        values->role[NF_DOUT].data[i] = verify_round(problem->out_dtype, values->role[NF_DOUT].data[i] / 32);
}

static void fill_zero(verify_values *values, verify_random *random)
{
    fill_all(values, 1, random);
    for (int role = NF_Q; role <= NF_EXTRA_V; role++) {
        verify_array *array = &values->role[role];
        for (int64_t i = 0; array->data && i < array->count; i++)
            if (verify_random_chance(random, 30))
                array->data[i] = verify_random_chance(random, 50) ? 0.0 : -0.0;
    }
    for (int role = NF_Q; role <= NF_V; role++) {
        double *row = verify_row(&values->role[role], 0, verify_random_below(random, values->role[role].tokens), 0);
        for (int64_t c = 0; c < values->role[role].dim; c++)
            row[c] = 0;
    }
}

/* An infinite key can give a score of -inf, whose weight is 0 or undefined depending on the order of summation: keys
 * get NaN only, values both. */
static void fill_poison(verify_values *values, verify_random *random)
{
    fill_all(values, 1, random);
    const int64_t places = verify_random_between(random, 1, 4);
    for (int64_t i = 0; i < places; i++) {
        const bool in_value = verify_random_chance(random, 50), whole_token = verify_random_chance(random, 30);
        verify_array *array = &values->role[in_value ? NF_V : NF_K];
        const double bad = in_value && verify_random_chance(random, 60)
                               ? (verify_random_chance(random, 50) ? INFINITY : -INFINITY) : NAN;
        const int64_t b = verify_random_below(random, array->batch), t = verify_random_below(random, array->tokens);
        const int64_t h = verify_random_below(random, array->heads), c = verify_random_below(random, array->dim);
        double *row = verify_row(array, b, t, h);
        for (int64_t j = 0; j < array->dim; j++)
            if (whole_token || j == c)
                row[j] = bad;
    }
}

void verify_fill(verify_values *values, const nf_problem *problem, verify_kind kind, verify_random *random)
{
    switch (kind) {
    case VERIFY_LARGE: fill_large(values, problem, random); break;
    case VERIFY_DOMINANT: fill_dominant(values, problem, random); break;
    case VERIFY_EQUAL: fill_equal(values, random); break;
    case VERIFY_DENORMAL: fill_denormal(values, problem, random); break;
    case VERIFY_ZERO: fill_zero(values, random); break;
    case VERIFY_POISON: fill_poison(values, random); break;
    default: fill_all(values, 1, random);
    }
}

void verify_fill_normal(verify_values *values, const nf_problem *problem, uint64_t seed)
{
    verify_random random = verify_random_stream(seed, PURPOSE_FILL);
    verify_fill(values, problem, VERIFY_NORMAL, &random);
}
