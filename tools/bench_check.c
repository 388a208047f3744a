/* Judging results before they are timed. */
#include "bench_check.h"

#include <stdlib.h>

#include "bench_judge.h"
#include "bench_sample.h"
#include "elements.h"

static const char *const self = "bench";

/* Multiply-adds of one product that the reference backend is asked for; beyond, rows are sampled. */
static const double reference_limit = 3e8;

/* Points io's outputs at fresh tensors. */
static int replace_outputs(const bench_data *data, bench_data *truth)
{
    *truth = *data;
    int status = NF_TOOL_OK;
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor *tensor = &truth->tensors[role];
        if (!tensor->data)
            continue;
        if (bench_is_output((nf_role)role)) {
            tensor->data = malloc(nf_tool_tensor_bytes(tensor));
            if (!tensor->data)
                status = nf_tool_error(self, "out of memory for the reference's %s", nf_role_name((nf_role)role));
        }
        *nf_tool_io_slot(&truth->io, (nf_role)role) = tensor;
    }
    return status;
}

static void free_outputs(bench_data *truth)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (bench_is_output((nf_role)role))
            free(truth->tensors[role].data);
}

static int check_all(nf_context *context, const bench_data *data, bench_verdict *verdict)
{
    bench_data truth;
    int status = replace_outputs(data, &truth);
    if (status == NF_TOOL_OK) {
        const nf_io forward = bench_forward_io(&truth);
        status = bench_run_reference(context, &truth.problem, &forward, data->io.dout ? &truth.io : NULL);
    }
    for (int role = 0; role < NF_ROLES && status == NF_TOOL_OK; role++) {
        const nf_tensor *got = &data->tensors[role], *want = &truth.tensors[role];
        if (!got->data || !bench_is_output((nf_role)role))
            continue;
        bench_squares s = {0};
        const int64_t count = nf_tool_tensor_count(got);
        for (int64_t i = 0; i < count; i++)
            bench_add_element(&s, nf_tool_load_element(got->data, got->dtype, i),
                        nf_tool_load_element(want->data, want->dtype, i));
        bench_judge(verdict, nf_role_name((nf_role)role), bench_relative_error(&s),
                    bench_limit(data->problem.dtype, (nf_role)role));
    }
    free_outputs(&truth);
    verdict->method = "reference";
    return status;
}

int bench_check(const bench_data *data, double pairs, bench_verdict *verdict)
{
    *verdict = (bench_verdict){.passed = true};
    nf_context *context = nf_tool_context(self, "reference", 0);
    if (!context)
        return NF_TOOL_BAD;
    const double work = pairs * (double)(data->problem.head_dim + data->problem.value_dim);
    const int status = work <= reference_limit ? check_all(context, data, verdict)
                                               : bench_check_samples(context, data, verdict);
    nf_context_destroy(context);
    return status;
}
