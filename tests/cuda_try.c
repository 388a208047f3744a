/* cuda_try PROBLEM [device] - tries a problem on the cuda backend (attempt.h). Tensors lie in host memory, or, with
 * `device`, in one allocation of the program's; then calls wait for events and give some, are timed, and merge. */
#include <stdio.h>
#include <string.h>

#include "attempt.h"
#include "backends/cuda/cu_api.h"
#include "elements.h"
#include "nearfield_cuda.h"

static cu_api api;

/* Waits for an event, if there is one, and destroys it. */
static void finish(void *event)
{
    if (!event)
        return;
    const CUresult error = api.cuEventSynchronize(event);
    if (error != CUDA_SUCCESS)
        attempt_report("event", cu_fail(&api, error, "the call's event"));
    api.cuEventDestroy(event);
}

/* Forward, then backward after its event; then forward by the device's clock. */
static void execute(const nf_plan *plan, const bench_data *placed)
{
    const nf_io io = bench_forward_io(placed);
    void *first = NULL, *second = NULL, *waited[1];
    nf_timing timing = {.runs = 2, .seconds = -1};
    nf_exec exec;
    nf_exec_init(&exec);
    exec.signal_event = &first;
    attempt_signalled("forward, event", nf_forward(plan, &io, &exec), &first);
    waited[0] = first;
    exec.wait_events = waited;
    exec.wait_count = first != NULL;
    exec.signal_event = &second;
    attempt_signalled("backward, events", nf_backward(plan, &placed->io, &exec), &second);
    finish(second);
    finish(first);
    nf_exec_init(&exec);
    exec.timing = &timing;
    if (attempt_report("forward, timed", nf_forward(plan, &io, &exec)) && timing.seconds < 0)
        attempt_break_promise("a timed call has told no time", "");
}

static void measure(nf_context *context)
{
    nf_peak peak = {.size = sizeof peak};
    attempt_report("peak", nf_backend_peak(context, "cuda", NF_F32, &peak));
}

/* Describes all tensors as parts of one allocation. Returns its bytes. */
static size_t place(bench_data *placed, CUdeviceptr memory)
{
    size_t used = 0;
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor *tensor = &placed->tensors[role];
        if (!tensor->data)
            continue;
        tensor->memory = NF_CUDA;
        if (memory)
            tensor->data = (void *)(uintptr_t)(memory + used);
        used += nf_tool_tensor_bytes(tensor);
        *nf_tool_io_slot(&placed->io, (nf_role)role) = tensor;
    }
    return used;
}

static void plan_and_execute(nf_context *context, bench_data *placed)
{
    nf_plan *plan = NULL;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.layout = &placed->io;
    if (!attempt_report("use", nf_cuda_use(context, 0, NULL)))
        return;
    if (attempt_report("plan", nf_plan_create(&plan, context, &placed->problem, &options)))
        execute(plan, placed);
    nf_plan_destroy(plan);
    attempt_merge(context, placed, finish);
    measure(context);
}

static void try_in_place(const bench_data *data)
{
    bench_data placed = *data;
    nf_context *context = NULL;
    CUcontext primary = NULL, left;
    CUdeviceptr memory = 0;
    CUdevice device;
    CUresult error = api.cuInit(0);
    if (error == CUDA_SUCCESS)
        error = api.cuDeviceGet(&device, 0);
    if (error == CUDA_SUCCESS)
        error = api.cuDevicePrimaryCtxRetain(&primary, device);
    if (error == CUDA_SUCCESS)
        error = api.cuCtxPushCurrent(primary);
    if (error == CUDA_SUCCESS)
        error = api.cuMemAlloc(&memory, place(&placed, 0));
    if (error != CUDA_SUCCESS)
        attempt_report("objects", cu_fail(&api, error, "the program's own objects"));
    else if (attempt_report("context", nf_context_create(&context, NULL))) {
        place(&placed, memory);
        plan_and_execute(context, &placed);
    }
    nf_context_destroy(context);
    if (memory)
        api.cuMemFree(memory);
    if (primary) {
        api.cuCtxPopCurrent(&left);
        api.cuDevicePrimaryCtxRelease(device);
    }
}

int main(int argc, char **argv)
{
    nf_problem problem;
    bench_data data;
    const bool in_place = argc == 3 && strcmp(argv[2], "device") == 0;
    if (argc < 2 || argc - 2 != in_place || nf_problem_parse(&problem, argv[1]) != NF_OK ||
        bench_data_create(&data, &problem, 1)) {
        fprintf(stderr, "usage: cuda_try PROBLEM [device]\n%s\n", nf_last_error());
        return ATTEMPT_USAGE;
    }
    if (in_place && cu_api_load(&api) == NF_OK)
        try_in_place(&data);
    else
        attempt_problem("cuda", &data, NULL);
    bench_data_destroy(&data);
    return attempt_outcome();
}
