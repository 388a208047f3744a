/* opencl_try PROBLEM [device] - runs a problem on the opencl backend, a line per step, and holds every failure against
 * the promises of nearfield.h: a sentence that says why, no output written, nothing left allocated, no event given.
 * Tensors lie in host memory, or, with `device`, in a buffer of the program's, and calls do not wait.
 *
 * Exit status 0: all steps succeeded. 1: one failed and all promises were kept. 3: a promise was broken. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/opencl/cl_api.h"
#include "bench_data.h"
#include "elements.h"
#include "nearfield_opencl.h"

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

/* ---- With events ------------------------------------------------------------------------------------------------- */

/* One call after an event, if that is not NULL; its own event, to be released, or NULL. */
static cl_event run_after(const char *step, const nf_plan *plan, const nf_io *io, nf_direction direction,
                          cl_event after, void *queue)
{
    void *given = NULL, *waited[] = {after};
    nf_exec exec;
    nf_exec_init(&exec);
    exec.queue = queue;
    exec.wait_count = after != NULL;
    exec.wait_events = waited;
    exec.signal_event = &given;
    const nf_status status = direction == NF_FWD ? nf_forward(plan, io, &exec) : nf_backward(plan, io, &exec);
    if (report(step, status) != (given != NULL))
        break_promise(given ? "a failed call has given an event: " : "no event was given: ", step);
    return given;
}

/* Both directions, one after the other's event. */
static void execute_in_order(const cl_api *api, const nf_plan *plan, const nf_io *forward, const nf_io *both,
                             void *queue)
{
    const cl_event first = run_after("forward, event", plan, forward, NF_FWD, NULL, queue);
    const cl_event second = run_after("backward, events", plan, both, NF_BWD, first, queue);
    const cl_event events[] = {first, second};
    for (int i = 0; i < 2; i++) {
        if (!events[i])
            continue;
        const cl_int error = api->clWaitForEvents(1, &events[i]);
        if (error != CL_SUCCESS)
            report("event", cl_fail(error, "the call's event"));
        api->clReleaseEvent(events[i]);
    }
}

/* ---- In host memory ---------------------------------------------------------------------------------------------- */

static void plan_and_execute(const cl_api *api, nf_context *context, const bench_data *data)
{
    size_t before, after;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = "opencl";
    nf_plan *plan = NULL;
    nf_context_memory(context, &before, NULL);
    if (report("plan", nf_plan_create(&plan, context, &data->problem, &options))) {
        const nf_io forward = bench_forward_io(data);
        execute(plan, data);
        execute_in_order(api, plan, &forward, &data->io, NULL);
    } else if (plan)
        break_promise("a failed call has made a plan", "");
    nf_plan_destroy(plan);
    nf_context_memory(context, &after, NULL);
    if (after != before)
        break_promise("memory is left behind by the plan", "");
}

/* Not by name, so that a missing device is seen where plans ask for it, too. */
static void try_problem(const cl_api *api, const bench_data *data)
{
    nf_context *context = NULL;
    if (!report("context", nf_context_create(&context, NULL)))
        return;
    if (report("backend", nf_backend_available(context, "opencl")))
        plan_and_execute(api, context, data);
    nf_context_destroy(context);
}

/* ---- In device memory -------------------------------------------------------------------------------------------- */

/* The program's own objects. */
typedef struct objects {
    cl_platform_id platform;
    cl_device_id device;
    cl_context cl;
    cl_command_queue queue;
    cl_mem memory;
} objects;

/* All tensors in one buffer. */
static size_t place_tensors(bench_data *placed)
{
    size_t elements = 0;
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor *tensor = &placed->tensors[role];
        if (!tensor->data)
            continue;
        tensor->memory = NF_OPENCL;
        tensor->offset = (int64_t)elements;
        elements += nf_tool_tensor_bytes(tensor) / nf_dtype_size(tensor->dtype);
        *nf_tool_io_slot(&placed->io, (nf_role)role) = tensor;
    }
    return elements * sizeof(double);
}

static cl_int make_objects(const cl_api *api, objects *o, size_t bytes)
{
    static const cl_device_type any = 0xffffffff;
    cl_int error = api->clGetPlatformIDs(1, &o->platform, NULL);
    if (error == CL_SUCCESS)
        error = api->clGetDeviceIDs(o->platform, any, 1, &o->device, NULL);
    if (error == CL_SUCCESS)
        o->cl = api->clCreateContext(NULL, 1, &o->device, NULL, NULL, &error);
    if (error == CL_SUCCESS)
        o->queue = api->clCreateCommandQueue(o->cl, o->device, 0, &error);
    if (error == CL_SUCCESS)
        o->memory = api->clCreateBuffer(o->cl, CL_MEM_READ_WRITE, bytes, NULL, &error);
    return error;
}

static void release_objects(const cl_api *api, objects *o)
{
    if (o->memory)
        api->clReleaseMemObject(o->memory);
    if (o->queue)
        api->clReleaseCommandQueue(o->queue);
    if (o->cl)
        api->clReleaseContext(o->cl);
}

/* Two parts that are one, the lse in place. */
static void merge_in_place(const cl_api *api, nf_context *context, const bench_data *placed)
{
    const nf_tensor *out = &placed->tensors[NF_OUT], *lse = &placed->tensors[NF_LSE];
    const nf_tensor *outs[] = {&placed->tensors[NF_DOUT], &placed->tensors[NF_DOUT]}, *lses[] = {lse, lse};
    void *event = NULL;
    nf_exec exec;
    nf_exec_init(&exec);
    exec.signal_event = &event;
    if (report("merge", nf_merge_on(context, NULL, 2, outs, lses, out, lse)) &&
        report("merge, event", nf_merge_on(context, &exec, 2, outs, lses, out, lse)) != (event != NULL))
        break_promise("a merge has given no event", "");
    if (event)
        api->clReleaseEvent(event);
}

static void execute_in_place(const cl_api *api, nf_context *context, const objects *o, bench_data *placed)
{
    nf_plan *plan = NULL;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.layout = &placed->io;
    for (int role = 0; role < NF_ROLES; role++)
        if (placed->tensors[role].data)
            placed->tensors[role].data = o->memory;
    if (!report("use", nf_opencl_use(context, o->cl, o->device, NULL)) ||
        !report("plan", nf_plan_create(&plan, context, &placed->problem, &options)))
        return;
    const nf_io forward = bench_forward_io(placed);
    execute_in_order(api, plan, &forward, &placed->io, NULL);
    execute_in_order(api, plan, &forward, &placed->io, o->queue);
    nf_plan_destroy(plan);
    merge_in_place(api, context, placed);
}

static void try_in_place(const cl_api *api, const bench_data *data)
{
    objects o = {0};
    bench_data placed = *data;
    nf_context *context = NULL;
    const cl_int error = make_objects(api, &o, place_tensors(&placed));
    if (error != CL_SUCCESS)
        report("objects", cl_fail(error, "the program's own objects"));
    else if (report("context", nf_context_create(&context, NULL)))
        execute_in_place(api, context, &o, &placed);
    nf_context_destroy(context);
    release_objects(api, &o);
}

int main(int argc, char **argv)
{
    cl_api api = {0};
    nf_problem problem;
    bench_data data;
    const bool in_place = argc == 3 && strcmp(argv[2], "device") == 0;
    if (argc < 2 || argc - 2 != in_place || nf_problem_parse(&problem, argv[1]) != NF_OK ||
        bench_data_create(&data, &problem, 1)) {
        fprintf(stderr, "usage: opencl_try PROBLEM [device]\n%s\n", nf_last_error());
        return USAGE;
    }
    (void)cl_api_load(&api);
    if (in_place)
        try_in_place(&api, &data);
    else
        try_problem(&api, &data);
    bench_data_destroy(&data);
    return outcome;
}
