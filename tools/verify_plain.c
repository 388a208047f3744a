/* `plain`: the unfused computation in the working precision, and the rounding unit of every result.
 *
 * 16-bit types keep the weights p, their gradient and dout in the type, as an unfused path stores them, and sum in f32.
 * The unit of an element is the error its inputs' roundings may cause to first order: eps times the absolute products
 * behind it, plus the working precision's epsilon times what the factors of those products have already lost:
 *     score                  |scale| |q| |k|
 *     out = sum p v          sum p |v| (eps + work size of the score); dv likewise with dout
 *     dP = dout v            work |dout| |v|; and eps |dout| |v| / sqrt(value_dim) if a wider dout is rounded to the
 * type delta = sum dout out   work sum |dout out| + eps_out norm(dout out) dS = p (dP - delta)    |dS| (eps + work size
 * of the score) + p (what dP and delta lose) dq, dk                 |scale| times that, times |k|, |q| and the smallest
 * normal number in place of any weight, because kernels may let exp end there instead of at 0. The roundings of stored
 * 16-bit values are independent, so they add up as squares do; plain makes the same ones. */
#include "verify.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REAL float
#define PLAIN(name) plain_f32_##name
#define EXP expf
#define LOG logf
#define SMALLEST FLT_MIN
#include "verify_plain_body.h"
#undef REAL
#undef PLAIN
#undef EXP
#undef LOG
#undef SMALLEST
#define REAL double
#define PLAIN(name) plain_f64_##name
#define EXP exp
#define LOG log
#define SMALLEST DBL_MIN
#include "verify_plain_body.h"

static void clear(verify_values *values, int role)
{
    if (values->role[role].data)
        memset(values->role[role].data, 0, (size_t)values->role[role].count * sizeof(double));
}

void verify_plain(const nf_problem *problem, const verify_mask *mask, const verify_plain_options *options,
                  verify_values *result, verify_values *unit, double *score_size)
{
    for (int role = NF_OUT; role < NF_ROLES; role++) {
        if (role == NF_OUT || role == NF_LSE || verify_is_gradient(role)) {
            clear(result, role);
            clear(unit, role);
        }
    }
    if (options->working == NF_F64)
        plain_f64_run(problem, mask, options, result, unit, score_size);
    else
        plain_f32_run(problem, mask, options, result, unit, score_size);
}
