/* nearfield_opencl.h - attention on a program's own OpenCL objects, so that nothing is copied.
 *
 * Make a context as usual, then hand it your cl_context with nf_opencl_use. Describe tensors whose memory is NF_OPENCL:
 * data is a cl_mem of that cl_context, offset says where element [0, 0, ...] lies in it, strides may be any; several
 * tensors may share one cl_mem. Pass such descriptions as the layout of a plan (nf_plan_options) and the same in each
 * call; tensors in host memory may be mixed in. nf_exec.queue may name a cl_command_queue of your own for one call, of
 * either kind of order; the call runs after all that is in it.
 *
 * A call whose tensors are all NF_OPENCL, and which is on a queue of yours or has a signal_event, returns once its
 * commands are enqueued and flushed: what you enqueue next on an in-order queue finds its results, elsewhere wait for
 * the event. If the device fails after that, your queue and the event say so, and outputs may be partly written. So may
 * those of such a call that fails halfway: it does not wait for what it has enqueued. Every other call returns when its
 * results are there. Calls of one plan run one after the other, whatever their queues.
 *
 * Events, with a queue of yours or without: nf_exec.wait_events are cl_events of that cl_context, wait_count of them;
 * the call runs after them, and so does what is enqueued on its queue afterwards. Host memory is read after them, too.
 * Flush the queues they come from. They stay yours: nearfield keeps no reference past the call, OpenCL itself keeps
 * what it needs. An event that has failed is the call's failure; one that fails once the call has returned makes the
 * call's own event fail. nf_exec.signal_event points to a cl_event that a successful call sets. That event is complete
 * when the results are in device memory, carries a reference that is yours to release (clReleaseEvent), and outlives
 * the plan. A call with tensors in host memory waits for its events before it begins, and its own is complete when it
 * returns.
 *
 * nf_merge_on and nf_merge_backward_on merge partial results in such buffers, without a plan: on exec's queue, else the
 * one that nf_opencl_use named, else one of their own, with events as above.
 *
 * The header needs none of OpenCL's: its types are those that <CL/cl.h> names cl_context, cl_device_id and
 * cl_command_queue. */
#ifndef NEARFIELD_OPENCL_H
#define NEARFIELD_OPENCL_H

#include <nearfield.h>

#ifdef __cplusplus
extern "C" {
#endif

struct _cl_context;
struct _cl_device_id;
struct _cl_command_queue;

/* Lets a context run the opencl backend on this device of this cl_context, in preference to all other backends. queue
 * is where calls run that name none; NULL: each plan makes its own. Call it before the context's first plan. The
 * cl_context and the queue are retained until the context is destroyed. NF_ERR_UNAVAILABLE: this build has no such
 * backend, there is no libOpenCL, or the device cannot be used; NF_ERR_ARGUMENT: device or queue do not belong to the
 * cl_context. */
NF_API nf_status nf_opencl_use(nf_context *context, struct _cl_context *context_to_use, struct _cl_device_id *device,
                               struct _cl_command_queue *queue);

#ifdef __cplusplus
}
#endif

#endif
