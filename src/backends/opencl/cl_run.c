/* One execution: copy in, launch, wait, copy out. Each command waits for the one before it, so that any queue will do,
 * and every command's own verdict is looked at: a device that is lost half-way is a status. */
#include "backends/gpu/gpu_copy.h"
#include "backends/opencl/cl.h"
#include "core/io.h"

/* Two barriers, then an unmapping for each role in and out, and the launches. */
enum { MOST_EVENTS = 2 + 2 * NF_ROLES + GPU_MAX_LAUNCHES };

typedef struct call {
    cl_plan *plan;
    const cl_api *api;
    const gpu_launches *launches;
    const cl_kernels *kernels;
    const nf_tensor *const *io;
    cl_command_queue queue;
    bool foreign;           /* the queue is the program's */
    uint32_t reads, writes; /* roles, as bits, that are present */
    void *mapped[NF_ROLES];
    cl_event events[MOST_EVENTS];
    int count;
} call;

static const cl_event *last_event(const call *c)
{
    return c->count ? &c->events[c->count - 1] : NULL;
}

static cl_uint wait_count(const call *c)
{
    return c->count ? 1 : 0;
}

/* Where the next command leaves its event, which counts once the command is accepted. */
static cl_event *next_event(call *c)
{
    return &c->events[c->count];
}

/* ---- Copies ------------------------------------------------------------------------------------------------------ */

static nf_status map(call *c, int role, cl_map_flags flags)
{
    const size_t bytes = gpu_tensor_bytes(&c->plan->layout[role]);
    cl_int error;
    c->mapped[role] = c->api->clEnqueueMapBuffer(c->queue, c->plan->staged[role], CL_TRUE, flags, 0, bytes,
                                                 wait_count(c), last_event(c), NULL, &error);
    if (error == CL_SUCCESS)
        return NF_OK;
    c->mapped[role] = NULL;
    return cl_fail(error, "opencl: the copy of %s cannot be mapped", nf_role_name((nf_role)role));
}

static nf_status unmap(call *c, int role)
{
    const cl_int error = c->api->clEnqueueUnmapMemObject(c->queue, c->plan->staged[role], c->mapped[role],
                                                         wait_count(c), last_event(c), next_event(c));
    if (error != CL_SUCCESS)
        return cl_fail(error, "opencl: the copy of %s cannot be unmapped", nf_role_name((nf_role)role));
    c->mapped[role] = NULL;
    c->count++;
    return NF_OK;
}

static bool is_staged(const call *c, int role, uint32_t roles)
{
    return roles >> role & 1 && c->plan->staged[role];
}

static nf_status copy_in(call *c)
{
    for (int role = 0; role < NF_ROLES; role++) {
        if (!is_staged(c, role, c->reads))
            continue;
        nf_status status = map(c, role, CL_MAP_WRITE_INVALIDATE_REGION);
        if (status != NF_OK)
            return status;
        gpu_gather(c->mapped[role], c->io[role]);
        if ((status = unmap(c, role)) != NF_OK)
            return status;
    }
    return NF_OK;
}

/* All outputs are in reach before the first is written. Once they are written the call has succeeded: a device that is
 * lost while it unmaps is the next call's failure. */
static nf_status copy_out(call *c)
{
    nf_status status = NF_OK;
    for (int role = 0; role < NF_ROLES; role++)
        if (is_staged(c, role, c->writes) && (status = map(c, role, CL_MAP_READ)) != NF_OK)
            return status;
    for (int role = 0; role < NF_ROLES; role++)
        if (is_staged(c, role, c->writes)) {
            gpu_scatter(c->io[role], c->mapped[role]);
            (void)unmap(c, role);
        }
    return NF_OK;
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

static cl_mem buffer_of(const call *c, nf_role role)
{
    if (!((c->reads | c->writes) >> role & 1))
        return c->plan->tables;
    return c->plan->staged[role] ? c->plan->staged[role] : c->io[role]->data;
}

static cl_long offset_of(const call *c, nf_role role)
{
    if (!((c->reads | c->writes) >> role & 1))
        return -1;
    return c->plan->staged[role] ? 0 : c->io[role]->offset;
}

static cl_int set_argument(const call *c, cl_kernel kernel, cl_uint index, const gpu_arg *arg)
{
    cl_mem buffer = c->plan->tables;
    if (arg->kind == GPU_ARG_OFFSET) {
        const cl_long offset = offset_of(c, arg->role);
        return c->api->clSetKernelArg(kernel, index, sizeof offset, &offset);
    }
    if (arg->kind == GPU_ARG_TENSOR)
        buffer = buffer_of(c, arg->role);
    if (arg->kind == GPU_ARG_SCRATCH && c->plan->scratch)
        buffer = c->plan->scratch;
    return c->api->clSetKernelArg(kernel, index, sizeof buffer, &buffer);
}

static nf_status launch(call *c, const gpu_launch *l, cl_kernel kernel)
{
    for (int i = 0; i < l->args_count; i++) {
        const cl_int error = set_argument(c, kernel, (cl_uint)i, &l->args[i]);
        if (error != CL_SUCCESS)
            return cl_fail(error, "opencl: argument %d of kernel %s", i, l->kernel);
    }
    const size_t global = l->groups * l->items;
    const cl_int error = c->api->clEnqueueNDRangeKernel(c->queue, kernel, 1, NULL, &global, &l->items, wait_count(c),
                                                        last_event(c), next_event(c));
    if (error != CL_SUCCESS)
        return cl_fail(error, "opencl: kernel %s in %zu groups of %zu", l->kernel, l->groups, l->items);
    c->count++;
    return NF_OK;
}

static nf_status launch_all(call *c)
{
    for (int i = 0; i < c->launches->count; i++) {
        const gpu_launch *l = &c->launches->launch[i];
        if (l->outputs && !(l->outputs & c->writes))
            continue;
        const nf_status status = launch(c, l, c->kernels->kernel[i]);
        if (status != NF_OK)
            return status;
    }
    return NF_OK;
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

/* A failed command makes those after it fail, too: the first verdict is the reason. */
static nf_status wait_for_all(const call *c)
{
    const cl_int waited = c->count ? c->api->clWaitForEvents((cl_uint)c->count, c->events) : CL_SUCCESS;
    for (int i = 0; i < c->count; i++) {
        cl_int verdict = CL_COMPLETE;
        const cl_int error =
            c->api->clGetEventInfo(c->events[i], CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof verdict, &verdict, NULL);
        if (error != CL_SUCCESS || verdict < 0)
            return cl_fail(error != CL_SUCCESS ? error : verdict, "opencl: the device failed while running");
    }
    return waited == CL_SUCCESS ? NF_OK : cl_fail(waited, "opencl: waiting for the device failed");
}

static void release_events(call *c)
{
    for (int i = 0; i < c->count; i++)
        c->api->clReleaseEvent(c->events[i]);
    c->count = 0;
}

/* After a failure: nothing may be in flight or mapped when the plan runs again. */
static void settle(call *c)
{
    c->api->clFinish(c->queue);
    for (int role = 0; role < NF_ROLES; role++)
        if (c->mapped[role])
            c->api->clEnqueueUnmapMemObject(c->queue, c->plan->staged[role], c->mapped[role], 0, NULL, NULL);
    c->api->clFinish(c->queue);
}

static nf_status barrier(call *c, cl_uint count, const cl_event *after)
{
    const cl_int error = c->api->clEnqueueBarrierWithWaitList(c->queue, count, after, next_event(c));
    if (error != CL_SUCCESS)
        return cl_fail(error, "opencl: the queue does not take a barrier");
    c->count++;
    return NF_OK;
}

/* The program's queue may run out of order, and what is in it may write what is read here. A call before this one may
 * still run, on another queue even, and use the same scratch. */
static nf_status begin(call *c)
{
    nf_status status = c->foreign ? barrier(c, 0, NULL) : NF_OK;
    if (status != NF_OK || !c->plan->pending)
        return status;
    const cl_event before[] = {c->plan->pending, c->foreign ? c->events[0] : NULL};
    status = barrier(c, c->foreign ? 2 : 1, before);
    if (status == NF_OK) {
        c->api->clReleaseEvent(c->plan->pending);
        c->plan->pending = NULL;
    }
    return status;
}

static bool stages(const call *c)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (is_staged(c, role, c->reads | c->writes))
            return true;
    return false;
}

/* All is in device memory and on a queue that the program can wait for: it need not wait here. */
static nf_status hand_over(call *c)
{
    const cl_int error = c->api->clFlush(c->queue);
    if (error != CL_SUCCESS)
        return cl_fail(error, "opencl: the queue cannot be flushed");
    c->plan->pending = c->events[--c->count];
    return NF_OK;
}

static nf_status run(call *c)
{
    nf_status status = begin(c);
    if (status == NF_OK)
        status = copy_in(c);
    if (status == NF_OK)
        status = launch_all(c);
    if (status == NF_OK)
        status = c->foreign && !stages(c) ? hand_over(c) : wait_for_all(c);
    if (status == NF_OK)
        status = copy_out(c);
    if (status != NF_OK)
        settle(c);
    release_events(c);
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

static nf_status check_queue(const call *c)
{
    cl_context owner = NULL;
    cl_device_id device = NULL;
    if (c->api->clGetCommandQueueInfo(c->queue, CL_QUEUE_CONTEXT, sizeof owner, &owner, NULL) != CL_SUCCESS ||
        c->api->clGetCommandQueueInfo(c->queue, CL_QUEUE_DEVICE, sizeof device, &device, NULL) != CL_SUCCESS)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue is no cl_command_queue");
    if (owner != c->plan->cl || device != cl_used_device(c->plan->state)->id)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue belongs to another cl_context or device than the plan");
    return NF_OK;
}

static nf_status check_buffers(const call *c)
{
    for (int role = 0; role < NF_ROLES; role++) {
        if (!((c->reads | c->writes) >> role & 1) || c->plan->staged[role])
            continue;
        const nf_status status = cl_check_buffer(c->plan->state, c->plan->cl, c->io[role], (nf_role)role);
        if (status != NF_OK)
            return status;
    }
    return NF_OK;
}

nf_status cl_execute(cl_plan *plan, nf_direction direction, const nf_tensor *const io[NF_ROLES], cl_command_queue queue)
{
    const bool is_forward = direction == NF_FWD;
    call c = {
        .plan = plan,
        .api = &plan->state->api,
        .launches = is_forward ? &plan->gpu->forward : &plan->gpu->backward,
        .kernels = is_forward ? &plan->forward : &plan->backward,
        .io = io,
        .queue = queue ? queue : plan->queue,
        .foreign = queue || plan->state->queue,
    };
    sort_roles(&c, is_forward ? NF_FORWARD : NF_BACKWARD);
    nf_status status = queue ? check_queue(&c) : NF_OK;
    if (status != NF_OK || (status = check_buffers(&c)) != NF_OK)
        return status;
    pthread_mutex_lock(&plan->lock);
    status = run(&c);
    pthread_mutex_unlock(&plan->lock);
    return status;
}
