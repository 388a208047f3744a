/* cuda_try PROBLEM - runs a problem on the cuda backend, a line per step, and holds every failure against the
 * promises of nearfield.h: a sentence that says why, no output written, nothing left allocated.
 *
 * Exit status 0: all steps succeeded. 1: one failed and all promises were kept. 3: a promise was broken. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_data.h"
#include "elements.h"

enum { SUCCEEDED = 0, FAILED = 1, USAGE = 2, BROKEN = 3 };

static int outcome = SUCCEEDED;

static void break_promise(const char *what, const char *detail)
{
    printf("BROKEN: %s%s\n", what, detail);
    outcome = BROKEN;
}

/* Reports a step; true if it succeeded. */
static bool report(const char *step, nf_status status)
{
    const char *meaning = nf_status_string(status), *colon = strchr(meaning, ':');
    if (status == NF_OK) {
        printf("%s: ok\n", step);
        return true;
    }
    printf("%s: %.*s: %s\n", step, colon ? (int)(colon - meaning) : (int)strlen(meaning), meaning, nf_last_error());
    if (outcome == SUCCEEDED)
        outcome = FAILED;
    if (!*nf_last_error())
        break_promise("no reason for ", step);
    return false;
}

/* bench_data fills outputs with bytes of all ones. */
static bool is_unwritten(const nf_tensor *tensor)
{
    const unsigned char *bytes = tensor->data;
    for (size_t i = 0; i < nf_tool_tensor_bytes(tensor); i++)
        if (bytes[i] != 0xff)
            return false;
    return true;
}

static void check_unwritten(const bench_data *data, nf_role first, nf_role last)
{
    for (int role = (int)first; role <= (int)last; role++)
        if (data->tensors[role].data && bench_is_output((nf_role)role) && !is_unwritten(&data->tensors[role]))
            break_promise("a failed call has written ", nf_role_name((nf_role)role));
}

static void execute(const nf_plan *plan, const bench_data *data)
{
    const nf_io forward = bench_forward_io(data);
    if (!report("forward", nf_forward(plan, &forward, NULL))) {
        check_unwritten(data, NF_OUT, NF_LSE);
        if (!report("forward again", nf_forward(plan, &forward, NULL)))
            check_unwritten(data, NF_OUT, NF_LSE);
    }
    if (data->problem.direction != NF_FWD && !report("backward", nf_backward(plan, &data->io, NULL)))
        check_unwritten(data, NF_DQ, NF_DEXTRA_V);
}

static void plan_and_execute(nf_context *context, const bench_data *data)
{
    size_t before, after;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = "cuda";
    nf_plan *plan = NULL;
    nf_context_memory(context, &before, NULL);
    if (report("plan", nf_plan_create(&plan, context, &data->problem, &options)))
        execute(plan, data);
    else if (plan)
        break_promise("a failed call has made a plan", "");
    nf_plan_destroy(plan);
    nf_context_memory(context, &after, NULL);
    if (after != before)
        break_promise("memory is left behind by the plan", "");
}

/* Not by name, so that a missing device is seen where plans ask for it, too. */
static void try_problem(const bench_data *data)
{
    nf_context *context = NULL;
    if (!report("context", nf_context_create(&context, NULL)))
        return;
    if (report("backend", nf_backend_available(context, "cuda")))
        plan_and_execute(context, data);
    nf_context_destroy(context);
}

int main(int argc, char **argv)
{
    nf_problem problem;
    bench_data data;
    if (argc != 2 || nf_problem_parse(&problem, argv[1]) != NF_OK || bench_data_create(&data, &problem, 1)) {
        fprintf(stderr, "usage: cuda_try PROBLEM\n%s\n", nf_last_error());
        return USAGE;
    }
    try_problem(&data);
    bench_data_destroy(&data);
    return outcome;
}
