/* One execution: copy in, launch, copy out, wait. All of it is in the order of one stream; errors that come late, such
 * as those of a lost device, are those of the wait. */
#include "backends/cuda/cu.h"
#include "backends/gpu/gpu_copy.h"
#include "core/io.h"

typedef struct call {
    cu_plan *plan;
    const cu_api *api;
    const gpu_launches *launches;
    const CUfunction *kernels;
    const nf_tensor *const *io;
    CUstream stream;
    bool foreign;           /* the stream is the program's */
    bool capturing;         /* and is being recorded into a graph */
    const nf_exec *exec;    /* or NULL */
    uint32_t reads, writes; /* roles, as bits, that are present */
} call;

static bool is_present(const call *c, int role)
{
    return (c->reads | c->writes) >> role & 1;
}

/* ---- Copies ------------------------------------------------------------------------------------------------------ */

static nf_status copy_in(call *c)
{
    for (int role = 0; role < NF_ROLES; role++) {
        if (!(c->reads >> role & 1) || !c->plan->staged[role])
            continue;
        gpu_gather(c->plan->host[role], c->io[role]);
        const CUresult error = c->api->cuMemcpyHtoDAsync(c->plan->staged[role], c->plan->host[role],
                                                         gpu_tensor_bytes(&c->plan->layout[role]), c->stream);
        if (error != CUDA_SUCCESS)
            return cu_fail(c->api, error, "cuda: %s cannot be copied to the device", nf_role_name((nf_role)role));
    }
    return NF_OK;
}

static nf_status fetch(call *c, uint32_t roles)
{
    for (int role = 0; role < NF_ROLES; role++) {
        if (!(roles >> role & 1))
            continue;
        const CUresult error = c->api->cuMemcpyDtoHAsync(c->plan->host[role], c->plan->staged[role],
                                                         gpu_tensor_bytes(&c->plan->layout[role]), c->stream);
        if (error != CUDA_SUCCESS)
            return cu_fail(c->api, error, "cuda: %s cannot be copied from the device", nf_role_name((nf_role)role));
    }
    return NF_OK;
}

static nf_status wait_for_all(const call *c)
{
    const CUresult error = c->api->cuStreamSynchronize(c->stream);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(c->api, error, "cuda: the device failed while running");
}

/* Outputs are written once all of them are there. */
static nf_status copy_out(call *c)
{
    uint32_t roles = 0;
    for (int role = 0; role < NF_ROLES; role++)
        if (c->writes >> role & 1 && c->plan->staged[role])
            roles |= UINT32_C(1) << role;
    nf_status status = fetch(c, roles);
    if (status == NF_OK)
        status = wait_for_all(c);
    for (int role = 0; status == NF_OK && role < NF_ROLES; role++)
        if (roles >> role & 1)
            gpu_scatter(c->io[role], c->plan->host[role]);
    return status;
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

enum { MOST_BOXES = 4 }; /* of a launch */

/* All other arguments have 64 bits. */
typedef union argument {
    CUdeviceptr memory;
    int64_t offset;
} argument;

static CUdeviceptr memory_of(const call *c, nf_role role)
{
    if (!is_present(c, (int)role))
        return c->plan->tables;
    return c->plan->staged[role] ? c->plan->staged[role] : (CUdeviceptr)(uintptr_t)c->io[role]->data;
}

static argument argument_of(const call *c, const gpu_arg *arg)
{
    switch (arg->kind) {
    case GPU_ARG_TENSOR:
        return (argument){.memory = memory_of(c, arg->role)};
    case GPU_ARG_OFFSET:
        return (argument){.offset = is_present(c, (int)arg->role) ? 0 : -1};
    case GPU_ARG_NONE:
        return (argument){.offset = -1};
    case GPU_ARG_SCRATCH:
        return (argument){.memory = c->plan->scratch ? c->plan->scratch : c->plan->tables};
    default:
        return (argument){.memory = c->plan->tables};
    }
}

static nf_status find_boxes(const call *c, const gpu_arg *arg, cu_boxes *boxes)
{
    const cu_box_layout *layouts = arg->kind == GPU_ARG_BOXES ? c->plan->boxes : c->plan->all_boxes;
    if (is_present(c, (int)arg->role))
        return cu_boxes_encode(c->api, &layouts[arg->role], memory_of(c, arg->role), boxes);
    *boxes = (cu_boxes){.batch = 0};
    return NF_OK;
}

static nf_status launch(const call *c, const gpu_launch *l, CUfunction kernel)
{
    argument arguments[GPU_MAX_ARGS];
    cu_boxes boxes[MOST_BOXES];
    void *places[GPU_MAX_ARGS];
    int boxed = 0;
    for (int i = 0; i < l->args_count; i++) {
        if (l->args[i].kind == GPU_ARG_BOXES || l->args[i].kind == GPU_ARG_ALL_BOXES) {
            places[i] = &boxes[boxed];
            const nf_status status = find_boxes(c, &l->args[i], &boxes[boxed++]);
            if (status != NF_OK)
                return status;
            continue;
        }
        arguments[i] = argument_of(c, &l->args[i]);
        places[i] = &arguments[i];
    }
    const CUresult error = c->api->cuLaunchKernel(kernel, (unsigned)l->groups, 1, 1, (unsigned)l->items, 1, 1,
                                                  (unsigned)l->local_bytes, c->stream, places, NULL);
    if (error == CUDA_SUCCESS)
        return NF_OK;
    return cu_fail(c->api, error, "cuda: kernel %s in %zu blocks of %zu", l->kernel, l->groups, l->items);
}

static nf_status launch_all(const call *c)
{
    for (int i = 0; i < c->launches->count; i++) {
        const gpu_launch *l = &c->launches->launch[i];
        if (l->outputs && !(l->outputs & c->writes))
            continue;
        const nf_status status = launch(c, l, c->kernels[i]);
        if (status != NF_OK)
            return status;
    }
    return NF_OK;
}

static nf_status launch_runs(void *data)
{
    const call *c = data;
    nf_status status = NF_OK;
    for (int64_t i = 0; status == NF_OK && i < c->exec->timing->runs; i++)
        status = launch_all(c);
    return status;
}

static nf_status launch_timed(call *c)
{
    double seconds = 0;
    const nf_status status = cu_time(c->api, c->stream, launch_runs, c, &seconds);
    c->exec->timing->seconds = seconds / (double)c->exec->timing->runs;
    return status;
}

/* ---- Order between calls ----------------------------------------------------------------------------------------- */

/* A call before this one may still run, on another stream even, and use the same scratch. Within a graph the program
 * has to see to that. */
static nf_status begin(const call *c)
{
    CUresult error = CUDA_SUCCESS;
    if (c->plan->order->pending && !c->capturing)
        error = c->api->cuStreamWaitEvent(c->stream, c->plan->order->done, 0);
    return error == CUDA_SUCCESS ? cu_wait_for(c->api, c->stream, c->exec)
                                 : cu_fail(c->api, error, "cuda: the stream cannot wait for the call before");
}

static bool stages(const call *c)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (is_present(c, role) && c->plan->staged[role])
            return true;
    return false;
}

/* All is in device memory and the program can wait for the stream or the event: it need not wait here. */
static nf_status hand_over(call *c)
{
    if (c->capturing)
        return NF_OK;
    const CUresult error = c->api->cuEventRecord(c->plan->order->done, c->stream);
    if (error != CUDA_SUCCESS)
        return cu_fail(c->api, error, "cuda: the end of the call cannot be marked");
    c->plan->order->pending = true;
    return NF_OK;
}

static nf_status run(call *c)
{
    const bool signals = c->exec && c->exec->signal_event;
    CUevent signal = NULL;
    nf_status status = begin(c);
    if (status == NF_OK)
        status = copy_in(c);
    if (status == NF_OK)
        status = c->exec && c->exec->timing ? launch_timed(c) : launch_all(c);
    if (status == NF_OK)
        status = signals ? cu_signal(c->api, c->stream, &signal) : NF_OK;
    if (status == NF_OK)
        status = (c->foreign || signals) && !stages(c) ? hand_over(c) : copy_out(c);
    if (status != NF_OK && !c->capturing) /* nothing may be in flight when the plan runs again */
        c->api->cuStreamSynchronize(c->stream);
    if (status != NF_OK && signal)
        c->api->cuEventDestroy(signal);
    if (status == NF_OK && signals)
        *c->exec->signal_event = signal;
    return status;
}

/* ---- Before ------------------------------------------------------------------------------------------------------ */

/* Which roles the launches read and write, of those that are present. */
static void sort_roles(call *c, nf_operation operation)
{
    const uint32_t touched = gpu_launches_touch(c->launches);
    for (int role = 0; role < NF_ROLES; role++)
        if (c->io[role] && touched >> role & 1)
            *(nf_operation_writes(operation, (nf_role)role) ? &c->writes : &c->reads) |= UINT32_C(1) << role;
}

static nf_status check_stream(call *c)
{
    const nf_status status = cu_check_stream(c->plan->state, c->stream, &c->capturing);
    if (status == NF_OK && c->capturing && stages(c))
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue is being captured, which takes tensors in device memory only");
    if (status == NF_OK && c->capturing && c->exec->timing)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue is being captured, which cannot be timed");
    return status;
}

static nf_status check_pointers(const call *c)
{
    for (int role = 0; role < NF_ROLES; role++) {
        if (!is_present(c, role) || c->plan->staged[role])
            continue;
        const nf_status status = cu_check_pointer(c->plan->state, c->io[role], nf_role_name((nf_role)role));
        if (status != NF_OK)
            return status;
    }
    return NF_OK;
}

static nf_status check_and_run(call *c)
{
    nf_status status = c->foreign ? check_stream(c) : NF_OK;
    if (status == NF_OK)
        status = cu_check_events(c->exec);
    if (status == NF_OK)
        status = check_pointers(c);
    if (status != NF_OK)
        return status;
    pthread_mutex_lock(&c->plan->order->lock);
    status = run(c);
    pthread_mutex_unlock(&c->plan->order->lock);
    return status;
}

nf_status cu_execute(cu_plan *plan, nf_operation operation, const nf_tensor *const io[NF_ROLES], const nf_exec *exec)
{
    const CUstream stream = exec ? exec->queue : NULL;
    call c = {
        .plan = plan,
        .api = &plan->state->api,
        .launches = gpu_plan_launches(plan->gpu, operation),
        .kernels = plan->kernels[operation],
        .io = io,
        .stream = stream ? stream : plan->stream,
        .foreign = stream || plan->state->stream,
        .exec = exec,
    };
    sort_roles(&c, operation);
    nf_status status = cu_enter(plan->state);
    if (status != NF_OK)
        return status;
    status = check_and_run(&c);
    cu_leave(plan->state);
    return status;
}
