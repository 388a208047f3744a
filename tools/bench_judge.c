/* What every way of judging a result shares. */
#include "bench_judge.h"

#include <math.h>

/* Norm-wise limits for well-conditioned data: inputs are N(0, 1), so that scores stay small. */
double bench_limit(nf_dtype dtype, nf_role role)
{
    const double forward = dtype == NF_F64 ? 1e-13 : dtype == NF_F32 ? 1e-5 : dtype == NF_F16 ? 2e-3 : 2e-2;
    return role >= NF_DQ ? 4 * forward : forward;
}

void bench_judge(bench_verdict *verdict, const char *tensor, double error, double limit)
{
    const double measured = isnan(error) ? HUGE_VAL : error;
    verdict->passed = verdict->passed && measured <= limit;
    if (!verdict->tensor || measured / limit > verdict->error / verdict->limit) {
        verdict->tensor = tensor;
        verdict->error = measured;
        verdict->limit = limit;
    }
}

void bench_add_element(bench_squares *s, double got, double want)
{
    s->count++;
    if (got == want && isinf(want))
        return;
    s->difference += (got - want) * (got - want);
    s->truth += want * want;
}

/* A truth that is zero but for rounding, such as dq of a window of 1, counts as a hundredth per element. */
double bench_relative_error(const bench_squares *s)
{
    return sqrt(s->difference / fmax(s->truth, 1e-4 * s->count));
}

int bench_run_reference(nf_context *context, const nf_problem *problem, const nf_io *forward, const nf_io *backward)
{
    nf_problem whole = *problem;
    whole.direction = backward ? NF_BOTH : NF_FWD;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = "reference";
    options.layout = backward ? backward : forward;
    nf_plan *plan = NULL;
    nf_status status = nf_plan_create(&plan, context, &whole, &options);
    if (status == NF_OK)
        status = nf_forward(plan, forward, NULL);
    if (status == NF_OK && backward)
        status = nf_backward(plan, backward, NULL);
    nf_plan_destroy(plan);
    return status == NF_OK ? NF_TOOL_OK : nf_tool_fail_status("bench", "the reference backend cannot judge this");
}
