/* One execution of a plan: copy in, launch, wait, copy out. */
#include "backends/gpu/gpu_copy.h"
#include "backends/opencl/cl.h"
#include "backends/opencl/cl_chain.h"
#include "core/io.h"

/* Three barriers, then an unmapping for each role in and out, and the launches. */
enum { MOST_EVENTS = 3 + 2 * NF_ROLES + GPU_MAX_LAUNCHES };

typedef struct call {
    cl_plan *plan;
    const cl_api *api;
    const gpu_launches *launches;
    const cl_kernels *kernels;
    const nf_tensor *const *io;
    cl_chain chain;
    uint32_t reads, writes; /* roles, as bits, that are present */
    void *mapped[NF_ROLES];
} call;

/* ---- Copies ------------------------------------------------------------------------------------------------------ */

static nf_status map(call *c, int role, cl_map_flags flags)
{
    const size_t bytes = gpu_tensor_bytes(&c->plan->layout[role]);
    cl_int error;
    c->mapped[role] = c->api->clEnqueueMapBuffer(c->chain.queue, c->plan->staged[role], CL_TRUE, flags, 0, bytes,
                                                 cl_chain_waits(&c->chain), cl_chain_last(&c->chain), NULL, &error);
    if (error == CL_SUCCESS)
        return NF_OK;
    c->mapped[role] = NULL;
    return cl_fail(error, "opencl: the copy of %s cannot be mapped", nf_role_name((nf_role)role));
}

static nf_status unmap(call *c, int role)
{
    const cl_int error =
        c->api->clEnqueueUnmapMemObject(c->chain.queue, c->plan->staged[role], c->mapped[role],
                                        cl_chain_waits(&c->chain), cl_chain_last(&c->chain), cl_chain_next(&c->chain));
    if (error != CL_SUCCESS)
        return cl_fail(error, "opencl: the copy of %s cannot be unmapped", nf_role_name((nf_role)role));
    c->mapped[role] = NULL;
    c->chain.count++;
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
    if (arg->kind == GPU_ARG_OFFSET || arg->kind == GPU_ARG_NONE) {
        const cl_long offset = arg->kind == GPU_ARG_NONE ? -1 : offset_of(c, arg->role);
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
    return cl_chain_launch(&c->chain, kernel, l->kernel, l->groups, l->items);
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

/* The next call runs after this one's commands where this one has not waited for them. One that was not begun is not
 * behind the call before it. */
static void hand_over(call *c, bool begun)
{
    if (!c->chain.waits && !begun)
        return;
    if (c->plan->pending)
        c->api->clReleaseEvent(c->plan->pending);
    c->plan->pending = !c->chain.waits && c->chain.count ? c->chain.events[--c->chain.count] : NULL;
}

/* After a failure nothing may be mapped when the plan runs again, and nothing in flight that is not known. */
static void settle(call *c)
{
    if (c->plan->pending && c->chain.waits)
        c->api->clWaitForEvents(1, &c->plan->pending);
    cl_chain_abandon(&c->chain);
    for (int role = 0; role < NF_ROLES; role++)
        if (c->mapped[role])
            c->api->clEnqueueUnmapMemObject(c->chain.queue, c->plan->staged[role], c->mapped[role], 0, NULL, NULL);
    cl_chain_abandon(&c->chain);
}

static bool stages(const call *c)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (is_staged(c, role, c->reads | c->writes))
            return true;
    return false;
}

static nf_status run(call *c)
{
    cl_event shared = NULL;
    /* A call before this one may still run, on another queue even, and use the same scratch. */
    nf_status status = cl_chain_begin(&c->chain, c->plan->pending);
    const bool begun = status == NF_OK;
    if (status == NF_OK)
        status = copy_in(c);
    if (status == NF_OK)
        status = launch_all(c);
    if (status == NF_OK)
        status = cl_chain_end(&c->chain, &shared);
    if (status == NF_OK)
        status = copy_out(c);
    if (status != NF_OK) {
        settle(c);
        if (shared)
            c->api->clReleaseEvent(shared);
    }
    hand_over(c, begun);
    if (status == NF_OK && c->chain.signal)
        *c->chain.signal = shared;
    cl_chain_release(&c->chain);
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

static nf_status check_buffers(const call *c)
{
    for (int role = 0; role < NF_ROLES; role++) {
        if (!((c->reads | c->writes) >> role & 1) || c->plan->staged[role])
            continue;
        const nf_status status = cl_check_buffer(c->plan->state, c->plan->cl, c->io[role], nf_role_name((nf_role)role));
        if (status != NF_OK)
            return status;
    }
    return NF_OK;
}

nf_status cl_execute(cl_plan *plan, nf_operation operation, const nf_tensor *const io[NF_ROLES], const nf_exec *exec)
{
    cl_event events[MOST_EVENTS];
    call c = {
        .plan = plan,
        .api = &plan->state->api,
        .launches = gpu_plan_launches(plan->gpu, operation),
        .kernels = &plan->kernels[operation],
        .io = io,
        .chain = {.api = &plan->state->api,
                  .cl = plan->cl,
                  .device = cl_used_device(plan->state)->id,
                  .queue = plan->queue,
                  .foreign = plan->state->queue != NULL,
                  .events = events},
    };
    cl_chain_take(&c.chain, exec);
    sort_roles(&c, operation);
    c.chain.waits = stages(&c) || !(c.chain.foreign || c.chain.signal);
    nf_status status = check_buffers(&c);
    if (status != NF_OK || (status = cl_chain_check(&c.chain, exec)) != NF_OK)
        return status;
    pthread_mutex_lock(&plan->lock);
    status = run(&c);
    pthread_mutex_unlock(&plan->lock);
    return status;
}
