/* What a device runs for a problem, in no vendor's terms: the text of a program, its options, the tables it reads and
 * the launches of each operation. A backend compiles the text, uploads the tables once, and enqueues the launches in
 * order.
 *
 * Two shapes of program. `lanes`, for CPU devices: one work-item per group, rows in the lanes of wide vectors, no local
 * memory. `tile`, for GPUs: tiles in local memory, register-blocked. Which one, and its parameters, are data of the
 * device and the problem. A third, `unfused` (gpu_unfused.c), keeps scores in memory, so that they can be the caller's;
 * a fourth, `naive` (gpu_naive.c), is the baseline of the others. Both run anywhere. */
#ifndef NF_GPU_PLAN_H
#define NF_GPU_PLAN_H

#include <stdbool.h>

#include "core/backend.h"

/* What a plan must know of a device. */
typedef struct gpu_device {
    bool cpu;                   /* a CPU that gains from wide vectors: shape lanes, else tile */
    bool fp64;                  /* computes in double */
    int64_t units;              /* compute units */
    int64_t group_items;        /* most work-items of a group */
    int64_t local_bytes;        /* local memory of a group, */
    int64_t launch_local_bytes; /* and the most that a launch can give one; 0: none */
    int64_t buffer_bytes;       /* the largest buffer */
    int64_t vector_bytes;       /* native vector of a CPU: 16, 32, 64; 0: not known */
    bool matrices;              /* multiplies matrices of 16-bit numbers, */
    bool warpgroups;            /* and has products of warpgroups and copies of boxes, too */
    bool ahead;                 /* has no compiler: programs are those of gpu_ahead.h */
    nf_memory memory;           /* that its kernels read in place, NF_HOST: none; host memory is staged */
} gpu_device;

enum { GPU_MAX_ARGS = 32, GPU_MAX_LAUNCHES = 12 };

typedef enum gpu_arg_kind {
    GPU_ARG_TENSOR,   /* the buffer of a role; of an absent one the tables' buffer */
    GPU_ARG_OFFSET,   /* int64: where the role's element [0, 0, ...] lies in its buffer, in elements; -1: the role is
                         absent */
    GPU_ARG_TABLES,   /* the tables' buffer */
    GPU_ARG_NONE,     /* int64 -1, an offset as above: whatever the call names, the launch goes without it */
    GPU_ARG_SCRATCH,  /* the scratch buffer */
    GPU_ARG_BOXES,    /* how to copy boxes of the role's tensor, as the backend has it: those of a walk's columns, */
    GPU_ARG_ALL_BOXES /* and those of all that it holds */
} gpu_arg_kind;

typedef struct gpu_arg {
    gpu_arg_kind kind;
    nf_role role; /* of tensors, offsets and boxes */
} gpu_arg;

/* One launch, one-dimensional. */
typedef struct gpu_launch {
    const char *kernel;   /* its name in the program, */
    bool of_products;     /* or in that of the plan's products */
    size_t groups, items; /* work-groups, work-items of each */
    size_t local_bytes;   /* local memory that the launch gives a group, besides what the kernel declares itself */
    uint32_t outputs;     /* bits 1 << role: to be left out of a call in which none of them is present */
    gpu_arg args[GPU_MAX_ARGS];
    int args_count;
} gpu_launch;

typedef struct gpu_launches {
    gpu_launch launch[GPU_MAX_LAUNCHES];
    int count; /* 0: the problem does not name the direction, or the shape has no such operation */
} gpu_launches;

typedef struct gpu_plan {
    const char *shape;         /* "lanes", "tile", "unfused", "naive", or a name of the backend's own */
    const char *const *source; /* NULL-terminated texts: the program is all of them in this order */
    char options[768];         /* "-DNAME=value ...": the specialisation; the vendor's options are the backend's */
    char products[128];        /* the same of a second program, for some launches; "": none has one */
    void *tables;              /* axis tables, segments, extents, strides: uploaded once */
    size_t table_bytes;
    size_t scratch_bytes;           /* of device memory that a call needs, 0 if none; nothing in it outlives the call */
    gpu_launches forward, backward; /* in order: each may read what the ones before wrote */
    gpu_launches qk, av, qk_backward, av_backward; /* of unfused only */
    nf_work_counts counts; /* of forward, one batch and head; pairs with extra tokens count as pairs */
    int64_t query_tile[NF_MAX_RANK], key_tile[NF_MAX_RANK];
} gpu_plan;

/* Refuses tensors in memory that neither is the host's nor read by the device's kernels. */
nf_status gpu_check_memory(const gpu_device *device, const nf_request *request);

/* NF_OK, or NF_ERR_UNSUPPORTED with the reason. What it accepts gpu_plan_create can make, memory permitting. */
nf_status gpu_plan_supports(const gpu_device *device, const nf_request *request);

/* Predicts seconds of one execution of each direction that the problem names. */
void gpu_plan_cost(const gpu_device *device, const nf_request *request, double seconds[NF_DIRECTIONS]);

/* layout: the tensors as the kernels will see them, which is not request->layout where the backend stages them. Any
 * strides. */
nf_status gpu_plan_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                          const nf_tensor layout[NF_ROLES]);
void gpu_plan_destroy(gpu_plan *plan, const nf_context *context);

/* The tensors as kernels see them where host tensors are staged: those are dense. */
void gpu_plan_layout(nf_tensor layout[NF_ROLES], const nf_request *request);

/* The roles that launches read or write, as bits, and those of any operation of a plan. */
uint32_t gpu_launches_touch(const gpu_launches *launches);
uint32_t gpu_plan_touches(const gpu_plan *plan);

/* Pairs, tiles and their shapes. */
void gpu_plan_info(const gpu_plan *plan, const nf_problem *problem, nf_plan_info *figures);

const gpu_launches *gpu_plan_launches(const gpu_plan *plan, nf_operation operation);

/* The same of the shape unfused. The request's layout of scores may be anything that the backend can hand over. */
nf_status gpu_unfused_supports(const gpu_device *device, const nf_request *request);
nf_status gpu_unfused_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                             const nf_tensor layout[NF_ROLES]);

/* And of the shape naive. */
nf_status gpu_naive_supports(const gpu_device *device, const nf_request *request);
nf_status gpu_naive_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                           const nf_tensor layout[NF_ROLES]);

/* Lines for nf_plan_describe: shape and tile parameters. */
void gpu_plan_describe(const gpu_plan *plan, nf_text *text);

/* All names of kernels that a program of the fused shapes holds, of one of unfused, and those that naive launches.
 * NULL-terminated. */
extern const char *const gpu_kernel_names[], *const gpu_unfused_kernel_names[], *const gpu_naive_kernel_names[];

#endif
