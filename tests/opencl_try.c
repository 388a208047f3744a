/* opencl_try PROBLEM [device | late] - tries a problem on the opencl backend (attempt.h), and that a failed call gives
 * no event. Tensors lie in host memory, or, with `device`, in a buffer of the program's, and calls do not wait. With
 * `late` they are there, too, and an event that calls run after fails once they have returned. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "attempt.h"
#include "backends/opencl/cl_api.h"
#include "elements.h"
#include "nearfield_opencl.h"

static cl_api api;

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
    if (attempt_report(step, status) != (given != NULL))
        attempt_break_promise(given ? "a failed call has given an event: " : "no event was given: ", step);
    return given;
}

/* Both directions, one after the other's event. */
static void execute_in_order(const nf_plan *plan, const nf_io *forward, const nf_io *both, void *queue)
{
    const cl_event first = run_after("forward, event", plan, forward, NF_FWD, NULL, queue);
    const cl_event second = run_after("backward, events", plan, both, NF_BWD, first, queue);
    const cl_event events[] = {first, second};
    for (int i = 0; i < 2; i++) {
        if (!events[i])
            continue;
        const cl_int error = api.clWaitForEvents(1, &events[i]);
        if (error != CL_SUCCESS)
            attempt_report("event", cl_fail(error, "the call's event"));
        api.clReleaseEvent(events[i]);
    }
}

static void try_events(const nf_plan *plan, const bench_data *data)
{
    const nf_io forward = bench_forward_io(data);
    execute_in_order(plan, &forward, &data->io, NULL);
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

static cl_int make_objects(objects *o, size_t bytes)
{
    static const cl_device_type any = 0xffffffff;
    cl_int error = api.clGetPlatformIDs(1, &o->platform, NULL);
    if (error == CL_SUCCESS)
        error = api.clGetDeviceIDs(o->platform, any, 1, &o->device, NULL);
    if (error == CL_SUCCESS)
        o->cl = api.clCreateContext(NULL, 1, &o->device, NULL, NULL, &error);
    if (error == CL_SUCCESS)
        o->queue = api.clCreateCommandQueue(o->cl, o->device, 0, &error);
    if (error == CL_SUCCESS)
        o->memory = api.clCreateBuffer(o->cl, CL_MEM_READ_WRITE, bytes, NULL, &error);
    return error;
}

static void release_objects(objects *o)
{
    if (o->memory)
        api.clReleaseMemObject(o->memory);
    if (o->queue)
        api.clReleaseCommandQueue(o->queue);
    if (o->cl)
        api.clReleaseContext(o->cl);
}

static void release_event(void *event)
{
    if (event)
        api.clReleaseEvent(event);
}

/* ---- Behind an event that fails ---------------------------------------------------------------------------------- */

enum { LATE_CALLS = 3 };

static cl_event make_gate(const objects *o)
{
    cl_event (*create)(cl_context, cl_int *);
    cl_int error;
    *(void **)&create = dlsym(api.library, "clCreateUserEvent");
    const cl_event gate = create(o->cl, &error);
    if (error != CL_SUCCESS)
        attempt_report("gate", cl_fail(error, "an event of the program's own"));
    return error == CL_SUCCESS ? gate : NULL;
}

static void fail_gate(cl_event gate)
{
    static const cl_int verdict = -5;
    cl_int (*set)(cl_event, cl_int);
    *(void **)&set = dlsym(api.library, "clSetUserEventStatus");
    set(gate, verdict);
}

static cl_int verdict_of(cl_event event)
{
    cl_int verdict = CL_COMPLETE;
    api.clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof verdict, &verdict, NULL);
    return verdict;
}

static cl_event merge_after(nf_context *context, const bench_data *placed, cl_event gate)
{
    const nf_tensor *lse = &placed->tensors[NF_LSE];
    const nf_tensor *outs[] = {&placed->tensors[NF_DOUT]}, *lses[] = {lse};
    void *given = NULL, *waited[] = {gate};
    nf_exec exec;
    nf_exec_init(&exec);
    exec.wait_count = 1;
    exec.wait_events = waited;
    exec.signal_event = &given;
    attempt_report("merge, late", nf_merge_on(context, &exec, 1, outs, lses, &placed->tensors[NF_OUT], lse));
    return given;
}

/* Calls return before the event that they run after; when it fails, so do theirs, and the next call runs. */
static void execute_late(nf_context *context, const nf_plan *plan, const objects *o, const bench_data *placed)
{
    const nf_io forward = bench_forward_io(placed);
    const cl_event gate = make_gate(o);
    if (!gate)
        return;
    const cl_event given[LATE_CALLS] = {run_after("forward, late", plan, &forward, NF_FWD, gate, o->queue),
                                        run_after("backward, late", plan, &placed->io, NF_BWD, gate, NULL),
                                        merge_after(context, placed, gate)};
    for (int i = 0; i < LATE_CALLS; i++)
        if (given[i] && verdict_of(given[i]) <= CL_COMPLETE)
            attempt_break_promise("a call's event has not waited for another", "");
    fail_gate(gate);
    for (int i = 0; i < LATE_CALLS; i++) {
        if (given[i] && verdict_of(given[i]) >= CL_COMPLETE)
            attempt_break_promise("a call's event has not failed with the one that it ran after", "");
        if (given[i])
            api.clReleaseEvent(given[i]);
    }
    api.clReleaseEvent(gate);
    attempt_report("forward, after all", nf_forward(plan, &forward, NULL));
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

static void execute_in_place(nf_context *context, const objects *o, bench_data *placed, bool late)
{
    nf_plan *plan = NULL;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.layout = &placed->io;
    for (int role = 0; role < NF_ROLES; role++)
        if (placed->tensors[role].data)
            placed->tensors[role].data = o->memory;
    if (!attempt_report("use", nf_opencl_use(context, o->cl, o->device, NULL)) ||
        !attempt_report("plan", nf_plan_create(&plan, context, &placed->problem, &options)))
        return;
    if (late) {
        execute_late(context, plan, o, placed);
        nf_plan_destroy(plan);
        return;
    }
    const nf_io forward = bench_forward_io(placed);
    execute_in_order(plan, &forward, &placed->io, NULL);
    execute_in_order(plan, &forward, &placed->io, o->queue);
    nf_plan_destroy(plan);
    attempt_merge(context, placed, release_event);
}

static void try_in_place(const bench_data *data, bool late)
{
    objects o = {0};
    bench_data placed = *data;
    nf_context *context = NULL;
    const cl_int error = make_objects(&o, place_tensors(&placed));
    if (error != CL_SUCCESS)
        attempt_report("objects", cl_fail(error, "the program's own objects"));
    else if (attempt_report("context", nf_context_create(&context, NULL)))
        execute_in_place(context, &o, &placed, late);
    nf_context_destroy(context);
    release_objects(&o);
}

int main(int argc, char **argv)
{
    nf_problem problem;
    bench_data data;
    const bool late = argc == 3 && strcmp(argv[2], "late") == 0;
    const bool in_place = late || (argc == 3 && strcmp(argv[2], "device") == 0);
    if (argc < 2 || argc - 2 != in_place || nf_problem_parse(&problem, argv[1]) != NF_OK ||
        bench_data_create(&data, &problem, 1)) {
        fprintf(stderr, "usage: opencl_try PROBLEM [device | late]\n%s\n", nf_last_error());
        return ATTEMPT_USAGE;
    }
    (void)cl_api_load(&api);
    if (in_place)
        try_in_place(&data, late);
    else
        attempt_problem("opencl", &data, try_events);
    bench_data_destroy(&data);
    return attempt_outcome();
}
