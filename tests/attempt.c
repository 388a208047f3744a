/* Steps and promises. */
#include "attempt.h"

#include <stdio.h>
#include <string.h>

#include "elements.h"

static int outcome = ATTEMPT_SUCCEEDED;

int attempt_outcome(void)
{
    return outcome;
}

void attempt_break_promise(const char *what, const char *detail)
{
    printf("BROKEN: %s%s\n", what, detail);
    outcome = ATTEMPT_BROKEN;
}

bool attempt_report(const char *step, nf_status status)
{
    const char *meaning = nf_status_string(status), *colon = strchr(meaning, ':');
    if (status == NF_OK) {
        printf("%s: ok\n", step);
        return true;
    }
    printf("%s: %.*s: %s\n", step, colon ? (int)(colon - meaning) : (int)strlen(meaning), meaning, nf_last_error());
    if (outcome == ATTEMPT_SUCCEEDED)
        outcome = ATTEMPT_FAILED;
    if (!*nf_last_error())
        attempt_break_promise("no reason for ", step);
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
            attempt_break_promise("a failed call has written ", nf_role_name((nf_role)role));
}

static void execute(const nf_plan *plan, const bench_data *data)
{
    const nf_io forward = bench_forward_io(data);
    if (!attempt_report("forward", nf_forward(plan, &forward, NULL))) {
        check_unwritten(data, NF_OUT, NF_LSE);
        if (!attempt_report("forward again", nf_forward(plan, &forward, NULL)))
            check_unwritten(data, NF_OUT, NF_LSE);
    }
    if (data->problem.direction != NF_FWD && !attempt_report("backward", nf_backward(plan, &data->io, NULL)))
        check_unwritten(data, NF_DQ, NF_DEXTRA_V);
}

static void plan_and_execute(nf_context *context, const char *backend, const bench_data *data,
                             void (*more)(const nf_plan *plan, const bench_data *data))
{
    size_t before, after;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = backend;
    nf_plan *plan = NULL;
    nf_context_memory(context, &before, NULL);
    if (attempt_report("plan", nf_plan_create(&plan, context, &data->problem, &options))) {
        execute(plan, data);
        if (more)
            more(plan, data);
    } else if (plan)
        attempt_break_promise("a failed call has made a plan", "");
    nf_plan_destroy(plan);
    nf_context_memory(context, &after, NULL);
    if (after != before)
        attempt_break_promise("memory is left behind by the plan", "");
}

void attempt_problem(const char *backend, const bench_data *data,
                     void (*more)(const nf_plan *plan, const bench_data *data))
{
    nf_context *context = NULL;
    if (!attempt_report("context", nf_context_create(&context, NULL)))
        return;
    if (attempt_report("backend", nf_backend_available(context, backend)))
        plan_and_execute(context, backend, data, more);
    nf_context_destroy(context);
}

void attempt_signalled(const char *step, nf_status status, void *const *event)
{
    if (attempt_report(step, status) != (*event != NULL))
        attempt_break_promise(*event ? "a failed call has given an event: " : "no event was given: ", step);
}

void attempt_merge(nf_context *context, const bench_data *placed, void (*finish)(void *event))
{
    const nf_tensor *out = &placed->tensors[NF_OUT], *lse = &placed->tensors[NF_LSE];
    const nf_tensor *outs[] = {&placed->tensors[NF_DOUT], &placed->tensors[NF_DOUT]}, *lses[] = {lse, lse};
    void *event = NULL;
    nf_exec exec;
    nf_exec_init(&exec);
    exec.signal_event = &event;
    attempt_report("merge", nf_merge_on(context, NULL, 2, outs, lses, out, lse));
    attempt_signalled("merge, event", nf_merge_on(context, &exec, 2, outs, lses, out, lse), &event);
    finish(event);
}
