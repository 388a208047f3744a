/* Parts that the files of the opencl backend share. A plan is made once per problem: its program is built, its kernels
 * made, its buffers allocated; an execution copies host tensors into those buffers, launches and copies back. */
#ifndef NF_CL_H
#define NF_CL_H

#include <pthread.h>

#include "backends/gpu/gpu_plan.h"
#include "backends/opencl/cl_device.h"
#include "core/env.h"

/* What an open backend holds. Context and queue are made with the first plan: looking at devices needs none. */
typedef struct cl_state {
    const nf_context *context;
    cl_api api;
    cl_device_list list;
    int used;                            /* index of the device that plans run on */
    char cache_folder[NF_PATH_CAPACITY]; /* "": no cache */
    pthread_mutex_t lock;                /* guards cl and merge */
    cl_context cl;
    cl_command_queue queue; /* the program's own, or NULL: each plan has one */
    cl_program merge[2];    /* of f32 and f64, once one was needed */
} cl_state;

static inline const cl_device *cl_used_device(const cl_state *state)
{
    return &state->list.devices[state->used];
}

/* The context of the used device, made by the first caller. Thread-safe. */
nf_status cl_state_context(cl_state *state, cl_context *cl);

/* ---- cl_cache.c: built programs on disk ------------------------------------------------------------------------- */

/* What a built program depends on, as one number of 128 bits. */
typedef struct cl_key {
    uint64_t word[2];
} cl_key;

cl_key cl_key_begin(void);
void cl_key_add(cl_key *key, const char *text);

/* The binary stored under a key, to be freed with nf_release; NULL if there is none that is whole, or no cache. */
void *cl_cache_load(const cl_state *state, const cl_key *key, size_t *bytes);
/* Stores one, as far as the disk lets it: a program that is not stored is built again. */
void cl_cache_store(const cl_state *state, const cl_key *key, const void *binary, size_t bytes);

/* ---- cl_program.c: from text to kernels ------------------------------------------------------------------------- */

/* NF_ERR_DEVICE with the compiler's words if the text does not build. */
nf_status cl_program_create(cl_program *program, cl_state *state, cl_context cl, const gpu_plan *gpu);

/* ---- cl_buffer.c: the caller's buffers -------------------------------------------------------------------------- */

/* Refuses a cl_mem of another context, or one that a tensor does not fit into. */
nf_status cl_check_buffer(const cl_state *state, cl_context cl, const nf_tensor *tensor, const char *name);

/* ---- cl_plan.c, cl_run.c: a plan and its executions -------------------------------------------------------------- */

typedef struct cl_kernels {
    cl_kernel kernel[GPU_MAX_LAUNCHES]; /* one per launch */
} cl_kernels;

typedef struct cl_plan {
    cl_state *state;
    const nf_request *request;
    gpu_plan *gpu;
    nf_tensor layout[NF_ROLES]; /* as kernels see it: what lies in host memory is dense here */
    cl_context cl;              /* not retained: the state's */
    cl_command_queue queue;
    cl_program program;
    cl_kernels kernels[NF_OPERATIONS];
    cl_mem tables, scratch;  /* NULL if the plan has none */
    cl_mem staged[NF_ROLES]; /* of roles in host memory that a launch reads or writes */
    size_t staged_bytes;
    pthread_mutex_t lock; /* one execution at a time: kernels hold their arguments, and buffers are shared */
    cl_event pending;     /* the last command of a call that did not wait for it, or NULL */
} cl_plan;

extern const nf_algorithm cl_lanes, cl_tile, cl_unfused, cl_naive;

/* exec may be NULL: the plan's queue and no events. */
nf_status cl_execute(cl_plan *plan, nf_operation operation, const nf_tensor *const io[NF_ROLES], const nf_exec *exec);

/* ---- cl_merge.c: partial results --------------------------------------------------------------------------------- */

nf_status cl_merge(const void *state, const nf_merging *merging, const nf_exec *exec);

#endif
