/* Queues, barriers and events of an execution: every command's own verdict is looked at, so that a device that is lost
 * half-way is a status. */
#include "backends/opencl/cl_chain.h"

#include "nearfield.h"

void cl_chain_take(cl_chain *chain, const nf_exec *exec)
{
    if (!exec)
        return;
    if (exec->queue) {
        chain->queue = exec->queue;
        chain->foreign = true;
    }
    chain->wait_count = (cl_uint)exec->wait_count;
    chain->wait_events = (const cl_event *)exec->wait_events;
    chain->signal = exec->signal_event;
}

/* ---- Checks ------------------------------------------------------------------------------------------------------ */

static nf_status check_queue(const cl_chain *c)
{
    cl_context owner = NULL;
    cl_device_id device = NULL;
    if (c->api->clGetCommandQueueInfo(c->queue, CL_QUEUE_CONTEXT, sizeof owner, &owner, NULL) != CL_SUCCESS ||
        c->api->clGetCommandQueueInfo(c->queue, CL_QUEUE_DEVICE, sizeof device, &device, NULL) != CL_SUCCESS)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue is no cl_command_queue");
    if (owner != c->cl || device != c->device)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue belongs to another cl_context or device");
    return NF_OK;
}

static cl_int read_verdict(const cl_chain *c, cl_event event, cl_int *verdict)
{
    return c->api->clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof *verdict, verdict, NULL);
}

static nf_status check_event(const cl_chain *c, cl_uint index)
{
    const cl_event event = c->wait_events[index];
    cl_context owner = NULL;
    cl_int verdict = CL_COMPLETE;
    if (!event || c->api->clGetEventInfo(event, CL_EVENT_CONTEXT, sizeof owner, &owner, NULL) != CL_SUCCESS)
        return nf_fail(NF_ERR_ARGUMENT, "exec: wait_events[%u] is no cl_event", (unsigned)index);
    if (owner != c->cl)
        return nf_fail(NF_ERR_ARGUMENT, "exec: wait_events[%u] belongs to another cl_context", (unsigned)index);
    const cl_int error = read_verdict(c, event, &verdict);
    if (error != CL_SUCCESS || verdict < 0)
        return cl_fail(error != CL_SUCCESS ? error : verdict, "exec: wait_events[%u] failed", (unsigned)index);
    return NF_OK;
}

static nf_status check_events(const cl_chain *c)
{
    nf_status status = NF_OK;
    for (cl_uint i = 0; status == NF_OK && i < c->wait_count; i++)
        status = check_event(c, i);
    return status;
}

nf_status cl_chain_check(const cl_chain *c, const nf_exec *exec)
{
    nf_status status = exec && exec->queue ? check_queue(c) : NF_OK;
    if (status != NF_OK || (status = check_events(c)) != NF_OK || !c->wait_count || !c->waits)
        return status;
    const cl_int waited = c->api->clWaitForEvents(c->wait_count, c->wait_events);
    if ((status = check_events(c)) != NF_OK)
        return status;
    return waited == CL_SUCCESS ? NF_OK : cl_fail(waited, "exec: wait_events cannot be waited for");
}

/* ---- Links ------------------------------------------------------------------------------------------------------- */

static nf_status barrier(cl_chain *c, cl_uint count, const cl_event *after)
{
    const cl_int error = c->api->clEnqueueBarrierWithWaitList(c->queue, count, after, cl_chain_next(c));
    if (error != CL_SUCCESS)
        return cl_fail(error, "opencl: the queue does not take a barrier");
    c->count++;
    return NF_OK;
}

static bool has_ended(const cl_chain *c, cl_event event)
{
    cl_int verdict;
    return read_verdict(c, event, &verdict) == CL_SUCCESS && verdict <= CL_COMPLETE;
}

/* The program's queue may run out of order, and what is in it may write what is read here. That barrier comes first:
 * one with a list fails with what is in the list, one without only waits for what is before it. pending may be on
 * another queue. */
nf_status cl_chain_begin(cl_chain *c, cl_event pending)
{
    const bool after_events = c->wait_count && !c->waits;
    nf_status status = c->foreign ? barrier(c, 0, NULL) : NF_OK;
    if (status == NF_OK && after_events)
        status = barrier(c, c->wait_count, c->wait_events);
    if (status != NF_OK || !pending || has_ended(c, pending))
        return status;
    const cl_event before[] = {pending, c->count ? *cl_chain_last(c) : NULL};
    return barrier(c, c->count ? 2 : 1, before);
}

nf_status cl_chain_launch(cl_chain *c, cl_kernel kernel, const char *name, size_t groups, size_t items)
{
    const size_t global = groups * items;
    const cl_int error = c->api->clEnqueueNDRangeKernel(c->queue, kernel, 1, NULL, &global, &items, cl_chain_waits(c),
                                                        cl_chain_last(c), cl_chain_next(c));
    if (error != CL_SUCCESS)
        return cl_fail(error, "opencl: kernel %s in %zu groups of %zu", name, groups, items);
    c->count++;
    return NF_OK;
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

/* A failed command makes those after it fail, too: the first verdict is the reason. */
static nf_status wait_for_all(const cl_chain *c)
{
    const cl_int waited = c->count ? c->api->clWaitForEvents((cl_uint)c->count, c->events) : CL_SUCCESS;
    for (int i = 0; i < c->count; i++) {
        cl_int verdict = CL_COMPLETE;
        const cl_int error = read_verdict(c, c->events[i], &verdict);
        if (error != CL_SUCCESS || verdict < 0)
            return cl_fail(error != CL_SUCCESS ? error : verdict, "opencl: the device failed while running");
    }
    return waited == CL_SUCCESS ? NF_OK : cl_fail(waited, "opencl: waiting for the device failed");
}

static nf_status flush(const cl_chain *c)
{
    const cl_int error = c->api->clFlush(c->queue);
    return error == CL_SUCCESS ? NF_OK : cl_fail(error, "opencl: the queue cannot be flushed");
}

nf_status cl_chain_end(const cl_chain *c, cl_event *shared)
{
    const nf_status status = c->waits ? wait_for_all(c) : flush(c);
    if (status != NF_OK || !c->signal)
        return status;
    const cl_int error = c->api->clRetainEvent(*cl_chain_last(c));
    if (error != CL_SUCCESS)
        return cl_fail(error, "exec: signal_event: the event cannot be retained");
    *shared = *cl_chain_last(c);
    return NF_OK;
}

void cl_chain_abandon(const cl_chain *c)
{
    if (c->waits)
        c->api->clFinish(c->queue);
    else
        c->api->clFlush(c->queue);
}

void cl_chain_release(cl_chain *c)
{
    for (int i = 0; i < c->count; i++)
        c->api->clReleaseEvent(c->events[i]);
    c->count = 0;
}
