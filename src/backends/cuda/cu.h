/* Parts that the files of the cuda backend share. A plan is made once per problem: the image of its program is loaded,
 * its memory allocated; an execution copies host tensors into that memory, launches and copies back. */
#ifndef NF_CU_H
#define NF_CU_H

#include <pthread.h>

#include "backends/cuda/cu_boxes.h"
#include "backends/cuda/cu_device.h"
#include "backends/cuda/cu_images.h"

/* What an open backend holds. Looking at devices needs no context. */
typedef struct cu_state {
    const nf_context *context;
    cu_api api;
    cu_device_list list;
    int used;             /* index of the device that plans run on */
    CUstream stream;      /* the program's own, or NULL: each plan has one */
    pthread_mutex_t lock; /* guards what follows */
    CUcontext cu;         /* the device's primary context, retained with the first plan */
    CUmodule *modules;    /* by index of the image, NULL where it is not loaded */
} cu_state;

static inline const cu_device *cu_used_device(const cu_state *state)
{
    return &state->list.devices[state->used];
}

/* ---- cu_module.c: the context and the images in it ----------------------------------------------------------------
 */

/* Makes the device's primary context current, retaining it first where that was not done. What was current before
 * comes back with cu_leave, which follows a success only. Thread-safe. */
nf_status cu_enter(cu_state *state);
void cu_leave(const cu_state *state);

/* The loaded image of the program of these options; the first caller loads it. In the context, thread-safe. */
nf_status cu_state_module(cu_state *state, const char *options, CUmodule *module);

/* Unloads, releases: whatever of it there is. */
void cu_state_release(cu_state *state);

/* ---- cu_exec.c: what a program hands over, in the context -------------------------------------------------------- */

nf_status cu_check_stream(const cu_state *state, CUstream stream, bool *capturing);
nf_status cu_check_events(const nf_exec *exec);
/* All of it lies in one allocation of the device, or is managed. */
nf_status cu_check_pointer(const cu_state *state, const nf_tensor *tensor, const char *name);

/* Has a stream wait for a call's events; exec may be NULL. Makes an event of what is enqueued by now. */
nf_status cu_wait_for(const cu_api *api, CUstream stream, const nf_exec *exec);
nf_status cu_signal(const cu_api *api, CUstream stream, CUevent *signal);

/* What run enqueues in a stream, between two events: waits for its end. */
nf_status cu_time(const cu_api *api, CUstream stream, nf_status (*run)(void *data), void *data, double *seconds);

/* ---- cu_peak.c: the device's limits ------------------------------------------------------------------------------ */

nf_status cu_peak(const void *state, nf_dtype dtype, nf_peak *peak);

/* ---- cu_plan.c, cu_run.c: a plan and its executions -------------------------------------------------------------- */

/* Calls of a plan share its memory, and run one after the other. */
typedef struct cu_order {
    pthread_mutex_t lock;
    CUevent done; /* of a call that did not wait for its end */
    bool pending; /* there was one */
} cu_order;

typedef struct cu_plan {
    cu_state *state;
    const nf_request *request;
    gpu_plan *gpu;
    nf_tensor layout[NF_ROLES];                          /* as kernels see it: what lies in host memory is dense here */
    CUstream stream;                                     /* its own, unless the state has one */
    CUfunction kernels[NF_OPERATIONS][GPU_MAX_LAUNCHES]; /* one per launch */
    CUdeviceptr tables, scratch;                         /* 0 if the plan has none */
    CUdeviceptr staged[NF_ROLES];                        /* of roles in host memory that a launch reads or writes */
    cu_box_layout boxes[NF_ROLES], all_boxes[NF_ROLES];  /* of roles that launches copy boxes of */
    uint32_t boxed;                                      /* which these are, as bits */
    struct cu_plan *unboxed;                             /* for tensors that lie where boxes cannot be copied from */
    char *host[NF_ROLES];                                /* where they pass through: parts of host_memory */
    char *host_memory;
    bool pinned; /* host_memory is the driver's, else ours */
    size_t staged_bytes;
    cu_order own_order, *order; /* unboxed has that of the plan that it is part of */
    bool told;                  /* that unboxed runs, and why */
} cu_plan;

extern const nf_algorithm cu_wgmma, cu_mma, cu_portable, cu_unfused, cu_naive;

/* What f32 queries may be multiplied by before they are split (cu_mma_split.h), and queries or keys of all batches and
 * heads that kernels can number, in blocks of which one or two are for each tile. */
#define CU_F32_QUERY_SCALE 0x1p24
enum { CU_MOST_ROWS = 1 << 30 };

/* cu_mma_plan.c: queries or keys of all batches and heads, whichever are more; the least of so many dimensions that are
 * enough, or 0. */
double cu_count_rows(const nf_problem *problem);
int64_t cu_enough(const int64_t *dims, size_t count, int64_t wanted);

/* cu_mma_plan.c: the shape of plans for tensor cores. What such kernels refuse of any problem. */
nf_status cu_check_matrices(const gpu_device *device, const nf_problem *problem, int64_t most_dims);
nf_status cu_mma_supports(const gpu_device *device, const nf_request *request);
void cu_mma_cost(const gpu_device *device, const nf_request *request, double seconds[NF_DIRECTIONS]);
nf_status cu_mma_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                        const nf_tensor layout[NF_ROLES]);

/* cu_unfused_plan.c: gpu_unfused.c's plan, whose products tensor cores compute where they can. */
nf_status cu_unfused_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                            const nf_tensor layout[NF_ROLES]);

/* cu_wgmma_plan.c: the same for those of compute capability 9.0. A plan has one direction. */
nf_status cu_wgmma_supports(const gpu_device *device, const nf_request *request);
void cu_wgmma_cost(const gpu_device *device, const nf_request *request, double seconds[NF_DIRECTIONS]);
nf_status cu_wgmma_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                          const nf_tensor layout[NF_ROLES]);
/* The boxes that such a plan's launch takes; columns: extents of a column tile of the walk that it copies them in. */
nf_status cu_wgmma_lay_out(const nf_request *request, const nf_tensor layout[NF_ROLES], const gpu_arg *arg,
                           const int64_t *columns, cu_box_layout *boxes);

/* exec NULL: the plan's stream, no events. */
nf_status cu_execute(cu_plan *plan, nf_operation operation, const nf_tensor *const io[NF_ROLES], const nf_exec *exec);

/* ---- cu_merge.c: partial results --------------------------------------------------------------------------------- */

nf_status cu_merge(const void *state, const nf_merging *merging, const nf_exec *exec);

#endif
