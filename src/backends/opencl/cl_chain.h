/* Commands that run one after the other, each waiting for the one before it, so that any queue will do; and the events
 * that a program wants them to wait for, or to get. */
#ifndef NF_CL_CHAIN_H
#define NF_CL_CHAIN_H

#include <stdbool.h>

#include "backends/opencl/cl_api.h"

typedef struct cl_chain {
    const cl_api *api;
    cl_context cl;
    cl_device_id device;
    cl_command_queue queue;
    bool foreign; /* the queue is the program's */
    bool waits;   /* returns when all is done, else once all is enqueued */
    cl_uint wait_count;
    const cl_event *wait_events; /* the program's, to run after */
    void **signal;               /* receives the last event, or NULL */
    cl_event *events;            /* of the commands so far, room for all */
    int count;
} cl_chain;

/* Takes queue and events of exec, which may be NULL; waits is the caller's to set. */
void cl_chain_take(cl_chain *chain, const nf_exec *exec);

/* Refuses queue and events of another cl_context, and events that failed. A chain that waits for its own end waits here
 * for events: one that fails is told apart from a device that does, and nothing is locked until then. */
nf_status cl_chain_check(const cl_chain *chain, const nf_exec *exec);

/* The first links. pending: a command that must end before, or NULL. */
nf_status cl_chain_begin(cl_chain *chain, cl_event pending);

/* What the next command waits for, and where it leaves its event, which counts (count++) once it is accepted. */
static inline cl_uint cl_chain_waits(const cl_chain *chain)
{
    return chain->count ? 1 : 0;
}
static inline const cl_event *cl_chain_last(const cl_chain *chain)
{
    return chain->count ? &chain->events[chain->count - 1] : NULL;
}
static inline cl_event *cl_chain_next(cl_chain *chain)
{
    return &chain->events[chain->count];
}

/* Its arguments are set. */
nf_status cl_chain_launch(cl_chain *chain, cl_kernel kernel, const char *name, size_t groups, size_t items);

/* Waits and looks at every command's verdict, or flushes. *shared, if the program wants an event, is the last one with
 * a reference of its own. */
nf_status cl_chain_end(const cl_chain *chain, cl_event *shared);

/* After a failure: waits for what was enqueued; of a chain that does not wait, sets it going, as what it waits for may
 * be the caller's own to end. */
void cl_chain_abandon(const cl_chain *chain);

void cl_chain_release(cl_chain *chain);

#endif
