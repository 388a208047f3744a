/* nearfield.h - attention over neighborhoods: the whole public interface.
 *
 * Describe what to compute (nf_problem), plan it once (nf_plan), execute the plan on as many buffers as you like
 * (nf_forward, nf_backward). Masks, shapes and gradients are defined in doc/semantics.md.
 *
 * Conventions. Every function that can fail returns an nf_status; on failure nothing has been written to any output and
 * nf_last_error() holds one sentence that names the field, its value and the rule. Every public struct starts with its
 * size: fill structs with their *_init function, then set fields. Handles are made by *_create and freed by *_destroy,
 * which accepts NULL. The library never prints to stdout, exits or aborts. Strides count elements, sizes count elements
 * unless a name says bytes. Contexts and plans may be used from several threads at once.
 */
#ifndef NEARFIELD_H
#define NEARFIELD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(NF_BUILDING) && defined(__GNUC__)
#define NF_API __attribute__((visibility("default")))
#else
#define NF_API
#endif

#define NF_VERSION_MAJOR 0
#define NF_VERSION_MINOR 1
#define NF_VERSION_PATCH 0

/* Greatest number of grid axes of a problem, and of dimensions of a tensor (batch, axes, heads, dim). */
#define NF_MAX_RANK 4
#define NF_MAX_TENSOR_RANK (NF_MAX_RANK + 3)

/* ---- Status ---------------------------------------------------------------------------------------------------- */

typedef enum nf_status {
    NF_OK = 0,
    NF_ERR_ARGUMENT = -1,    /* a NULL or malformed argument, a struct of unknown size */
    NF_ERR_PARSE = -2,       /* a problem string that does not follow the grammar */
    NF_ERR_PROBLEM = -3,     /* a problem that breaks a validity rule */
    NF_ERR_TENSOR = -4,      /* a tensor that is missing, overlaps, or differs from what the plan was made for */
    NF_ERR_UNSUPPORTED = -5, /* no backend allowed here can run this problem */
    NF_ERR_UNAVAILABLE = -6, /* the backend asked for does not work on this machine; the reason is in the error */
    NF_ERR_MEMORY = -7,      /* an allocation failed */
    NF_ERR_BUSY = -8,        /* another call is using the plan's own workspace: pass one in nf_exec */
    NF_ERR_SPACE = -9,       /* the caller's buffer or workspace is too small */
    NF_ERR_DEVICE = -10      /* a device failed while running */
} nf_status;

/* The name and meaning of a status, e.g. "argument: a NULL or malformed argument". Never NULL. */
NF_API const char *nf_status_string(nf_status status);

/* The sentence that explains the last failure in the calling thread; "" if none yet. Valid until the thread's next
 * failing call. Works without a context. */
NF_API const char *nf_last_error(void);

/* "MAJOR.MINOR.PATCH" of the library that is running. */
NF_API const char *nf_version(void);

/* ---- Element types --------------------------------------------------------------------------------------------- */

typedef enum nf_dtype {
    NF_F32 = 0,
    NF_F64 = 1,
    NF_BF16 = 2, /* stored as uint16_t: the upper half of an f32 */
    NF_F16 = 3   /* stored as uint16_t: IEEE 754 binary16 */
} nf_dtype;

/* Bytes of one element; 0 for a value that is no nf_dtype. */
NF_API size_t nf_dtype_size(nf_dtype dtype);
/* "f32", "f64", "bf16", "f16"; NULL for a value that is no nf_dtype. */
NF_API const char *nf_dtype_name(nf_dtype dtype);

/* ---- Problem --------------------------------------------------------------------------------------------------- */

/* What a plan is to run; one plan may do both. */
typedef enum nf_direction { NF_FWD = 1, NF_BWD = 2, NF_BOTH = 3 } nf_direction;

/* One grid axis. A query sees, on this axis, an interval of keys of its own residue class modulo dilation; it sees a key
 * iff it sees it on every axis. Rule: Generalized Neighborhood Attention, arXiv 2504.16922. */
typedef struct nf_axis {
    int64_t extent;     /* tokens along the axis; for cross attention, queries. >= 1, < 2^31 */
    int64_t key_extent; /* keys along the axis when they differ from extent (cross attention: rank 1, window 0, stride
                           and dilation 1); 0 means extent */
    int64_t window;     /* keys per query; 0 means the whole extent; window * dilation <= extent */
    int64_t stride;     /* queries that share one window position, 1..window */
    int64_t dilation;   /* distance between a query's keys, >= 1 */
    int64_t causal;     /* 1: only keys at or before the query; else 0 */
    int64_t q_begin;    /* the queries this problem computes: q_begin .. q_begin + q_count - 1, positions in extent; */
    int64_t q_count;    /* q_count 0 means up to the end. Tensors of queries hold only these. For cross attention a range
                           places the queries on the key axis (q_count = extent), else they are aligned to its end */
    int64_t k_begin;    /* the keys this problem reads; keys outside the range are invisible. Tensors of keys hold only */
    int64_t k_count;    /* these. 0 means up to the end */
} nf_axis;

typedef struct nf_problem {
    size_t size; /* sizeof(nf_problem), set by nf_problem_init */
    nf_direction direction;
    nf_dtype dtype;     /* of q, k, v, extra tokens and all gradients; bf16 and f16 accumulate in f32, f32 in f32, f64 in
                           f64 */
    nf_dtype out_dtype; /* of out and dout: dtype, or NF_F32 when dtype is bf16 or f16. (lse, dlse are f32; f64 for f64) */
    int32_t rank;       /* 1..NF_MAX_RANK */
    int32_t scale_set;  /* 0: scale is head_dim^-1/2; 1: the literal value in scale, zero included */
    double scale;
    int64_t batch;     /* >= 1 */
    int64_t heads;     /* query heads, a multiple of kv_heads */
    int64_t kv_heads;  /* query head h reads key/value head h * kv_heads / heads */
    int64_t head_dim;  /* of q and k, >= 1, any value */
    int64_t value_dim; /* of v and out, >= 1, any value */
    int64_t extra;     /* additional key/value tokens, seen by every query, >= 0 */
    nf_axis axis[NF_MAX_RANK];
} nf_problem;

/* Sets the defaults: forward, f32, rank 1, batch 1, one head, no extra tokens, default scale, and on every axis the
 * whole extent as window, stride 1, dilation 1, not causal, whole ranges. Extents and head dims are 0: set them. */
NF_API void nf_problem_init(nf_problem *problem);

/* Reads a problem string, e.g. "na2d f32 b2 h8/2 d64 56x56 w7 s1 dil1x2 c0 both" (grammar: nearfield-problem(7)). The
 * result is not checked: sizes may still be absent (0). NF_ERR_PARSE names the word and the nearest known key. */
NF_API nf_status nf_problem_parse(nf_problem *problem, const char *text);

/* Writes the canonical string, which parses back to an equal problem, and its terminating NUL. *length, if not NULL,
 * receives the length without NUL even when the buffer is too small (NF_ERR_SPACE) or NULL with capacity 0. */
NF_API nf_status nf_problem_format(const nf_problem *problem, char *buffer, size_t capacity, size_t *length);

/* NF_OK iff the problem is complete and valid; otherwise NF_ERR_PROBLEM and the broken rule. */
NF_API nf_status nf_problem_check(const nf_problem *problem);

/* 64-bit hash of the canonical string: equal problems, equal hashes, on every machine and version. */
NF_API nf_status nf_problem_hash(const nf_problem *problem, uint64_t *hash);

/* ---- Tensors --------------------------------------------------------------------------------------------------- */

typedef enum nf_memory {
    NF_HOST = 0, /* ordinary memory */
    NF_CUDA = 1, /* a CUDA device pointer (nearfield_cuda.h) */
    NF_OPENCL = 2 /* a cl_mem (nearfield_opencl.h) */
} nf_memory;

/* A strided view of memory the caller owns. Inputs may have any strides, zero and negative included; outputs must not
 * overlap themselves or an input. */
typedef struct nf_tensor {
    size_t size; /* sizeof(nf_tensor) */
    void *data;  /* element [0, 0, ...]; of NF_OPENCL the cl_mem that holds it */
    nf_dtype dtype;
    nf_memory memory;
    int32_t rank;
    int32_t reserved; /* 0 */
    int64_t extents[NF_MAX_TENSOR_RANK];
    int64_t strides[NF_MAX_TENSOR_RANK]; /* in elements */
    int64_t offset;                      /* of NF_OPENCL: elements from the start of data to element [0, 0, ...]; else 0 */
} nf_tensor;

/* The tensors of a problem. Shapes, with axes standing for the counts of the query or key range of each axis:
 *   q [batch, q axes, heads, head_dim]        k [batch, k axes, kv_heads, head_dim]   v [.., kv_heads, value_dim]
 *   extra_k [batch, extra, kv_heads, head_dim]     extra_v [batch, extra, kv_heads, value_dim]
 *   out [batch, q axes, heads, value_dim]     lse [batch, q axes, heads]
 *   scores [batch, heads, q axes, window + extra]
 * Each gradient has the shape of what it is the gradient of. scores (f32; f64 for f64) has one slot per key of the
 * whole window, which is the product of the axes' windows, row-major, and then one per extra token. Slot j of an axis is
 * key first + j of the query's class, where first is the first key of the rule before key ranges are applied: parts of a
 * problem with different key ranges have the same slots. A slot exists if the query sees its key. */
typedef enum nf_role {
    NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_BIAS, NF_OUT, NF_LSE, NF_DOUT, NF_DLSE,
    NF_DQ, NF_DK, NF_DV, NF_DEXTRA_K, NF_DEXTRA_V, NF_SCORES, NF_DSCORES, NF_ROLES
} nf_role;

/* "q", "dextra_k", ...; NULL for a value that is no role. */
NF_API const char *nf_role_name(nf_role role);

/* Describes a contiguous row-major tensor. */
NF_API nf_status nf_tensor_init(nf_tensor *tensor, void *data, nf_dtype dtype, int32_t rank, const int64_t *extents);

/* Describes the tensor a checked problem has in a role, contiguous and heads-last, data NULL. NF_ERR_PROBLEM if the
 * problem is invalid, NF_ERR_ARGUMENT if it has no such tensor (extra tokens without extra, bias, scores beyond 2^57
 * bytes). */
NF_API nf_status nf_problem_tensor(const nf_problem *problem, nf_role role, nf_tensor *tensor);

/* Fills a tensor from a DLPack DLTensor (https://dmlc.github.io/dlpack, version 1.0 struct layout), without taking
 * ownership. Refuses lanes other than 1 and element types and devices that nf_dtype and nf_memory do not name. */
NF_API nf_status nf_tensor_from_dlpack(nf_tensor *tensor, const void *dltensor);

/* The tensors of one call; NULL = absent. Forward reads q, k, v (and extra_k, extra_v iff the problem has extra tokens)
 * and writes out and, if present, lse. Backward reads those, out, lse, dout and, if present, dlse, and writes the
 * gradients that are present (at least one). Other functions say what they take; what they do not name is ignored. */
typedef struct nf_io {
    size_t size; /* sizeof(nf_io) */
    const nf_tensor *q, *k, *v, *extra_k, *extra_v;
    const nf_tensor *bias; /* reserved: must be NULL */
    const nf_tensor *out, *lse, *dout, *dlse;
    const nf_tensor *dq, *dk, *dv, *dextra_k, *dextra_v;
    const nf_tensor *scores, *dscores; /* of the unfused functions only */
} nf_io;

NF_API void nf_io_init(nf_io *io);

/* ---- Context --------------------------------------------------------------------------------------------------- */

typedef struct nf_context nf_context;

/* Where an option is left NULL or 0, the environment decides (nearfield-environment(7)), then the default. */
typedef struct nf_context_options {
    size_t size;         /* sizeof(nf_context_options) */
    const char *backend; /* as NEARFIELD_BACKEND: names in order of preference, a leading '-' excludes */
    const char *device;  /* as NEARFIELD_DEVICE: the index or a part of the name of a device of a backend that has several */
    const char *isa;     /* as NEARFIELD_ISA: the highest instruction set the cpu backend may use */
    int64_t num_threads; /* as NEARFIELD_NUM_THREADS; 0: the cores this process may run on */
    void *(*allocate)(void *user, size_t bytes, size_t alignment); /* NULL: the C library's */
    void (*release)(void *user, void *memory, size_t bytes);
    void *memory_user;
    void (*log)(void *user, int level, const char *line); /* NULL: lines go to stderr; level as NEARFIELD_VERBOSE */
    void *log_user;
} nf_context_options;

NF_API void nf_context_options_init(nf_context_options *options);

/* Discovers the machine and the backends that may be chosen; one that is never chosen unless it is named is opened when
 * it is first asked for. options may be NULL. A backend that is absent is not an error here unless it
 * is the only one asked for. A context must not be used after fork() in the child if it was used by a thread of the
 * parent: create a fresh one. */
NF_API nf_status nf_context_create(nf_context **context, const nf_context_options *options);
/* Frees the context; plans made from it must be destroyed before. */
NF_API void nf_context_destroy(nf_context *context);

/* Bytes the library has allocated through this context: now, and at most since creation. */
NF_API void nf_context_memory(const nf_context *context, size_t *current_bytes, size_t *peak_bytes);

/* A report for people: machine, caches, instruction sets, backends and why an absent one is absent. Text as for
 * nf_problem_format. */
NF_API nf_status nf_context_describe(const nf_context *context, char *buffer, size_t capacity, size_t *length);

/* Name of the index-th backend this library knows, built in or not, most preferred first; NULL past the last. */
NF_API const char *nf_backend_name(int index);
/* NF_OK if the named backend can be used from this context; else NF_ERR_UNAVAILABLE and the reason. */
NF_API nf_status nf_backend_available(const nf_context *context, const char *name);
/* Name of the index-th device of an available backend, whichever of them this context uses; NULL past the last, or if the
 * backend is unavailable. Valid while the context lives. */
NF_API const char *nf_device_name(const nf_context *context, const char *backend, int index);

/* Name of the index-th algorithm of the named backend, best first; NULL past the last, and for a backend that this library
 * does not know or was built without. Some may not support a given problem. */
NF_API const char *nf_algorithm_name(const char *backend, int index);

/* What the device that a backend uses can do at most, measured there and then, in a fraction of a second. */
typedef struct nf_peak {
    size_t size;       /* sizeof(nf_peak); fill in before the call */
    double flops;      /* multiplications and additions per second */
    double bandwidth;  /* bytes per second read from its memory */
    const char *basis; /* which instructions flops counts, "mma.sync bf16": the fastest that tensors of this dtype meet */
} nf_peak;

/* NF_ERR_UNSUPPORTED for backends that run on the host. */
NF_API nf_status nf_backend_peak(nf_context *context, const char *backend, nf_dtype dtype, nf_peak *peak);

/* The manual of all environment variables, one paragraph each with default and current value. Text as above. */
NF_API nf_status nf_environment_describe(char *buffer, size_t capacity, size_t *length);

/* ---- Plan ------------------------------------------------------------------------------------------------------ */

typedef struct nf_plan nf_plan;

typedef struct nf_plan_options {
    size_t size;          /* sizeof(nf_plan_options) */
    const char *backend;  /* only this backend; NULL: the context's choice */
    const char *algo;     /* only this algorithm of the backend, e.g. "tile"; NULL: the library's choice for each
                             direction */
    const nf_io *layout;  /* dtype, memory and strides of the tensors that calls will pass (data is ignored); a NULL
                             member, or NULL here, means contiguous heads-last host memory */
} nf_plan_options;

NF_API void nf_plan_options_init(nf_plan_options *options);

/* Chooses a backend, and an algorithm of it for each direction, and prepares everything, workspace included. options
 * may be NULL. */
NF_API nf_status nf_plan_create(nf_plan **plan, nf_context *context, const nf_problem *problem,
                                const nf_plan_options *options);
NF_API void nf_plan_destroy(nf_plan *plan);

/* Exact figures of a plan, per call of each direction it supports (0 for the other). Pairs are (query, key) pairs over
 * all batches and heads. */
typedef struct nf_plan_info {
    size_t size;             /* sizeof(nf_plan_info); fill in before the call */
    const char *backend;     /* valid while the plan lives */
    const char *algo;        /* of forward; of backward where the plan has no forward */
    const char *kernel;      /* e.g. the instruction set of the cpu backend; "" if there is no choice */
    double useful_pairs;     /* visible pairs */
    double computed_pairs;   /* pairs in the tiles that forward computes, masked ones included */
    double masked_pairs;     /* of those, pairs in partial tiles */
    double tiles_full, tiles_partial, tiles_absent; /* forward key tiles */
    double forward_flops;    /* useful: 2 (head_dim + value_dim) per visible pair */
    double backward_flops;   /* useful: 2.5 times forward */
    double tensor_bytes;     /* q, k, v, extra tokens and out, once each */
    size_t workspace_bytes;  /* of one execution */
    size_t plan_bytes;       /* of the plan itself: tables, lists and its own workspace */
    int64_t threads;
    int64_t query_tile[NF_MAX_RANK], key_tile[NF_MAX_RANK]; /* forward tile shapes */
    const char *backward_algo; /* may differ from algo; "" where the plan has no backward */
} nf_plan_info;

NF_API nf_status nf_plan_get_info(const nf_plan *plan, nf_plan_info *info);

/* What was chosen for which direction and why, and why each other candidate was not. Text as for nf_problem_format. */
NF_API nf_status nf_plan_describe(const nf_plan *plan, char *buffer, size_t capacity, size_t *length);

/* Measures a call by the device's own clock. */
typedef struct nf_timing {
    int64_t runs;   /* set it: how often the call's kernels run, one run after the other; at least 1 */
    double seconds; /* receives what one run took, copies of tensors in host memory left out */
} nf_timing;

/* How one call runs; NULL means all defaults. Queue and events are of the opencl and cuda backends (nearfield_opencl.h,
 * nearfield_cuda.h); others want them NULL and 0. */
typedef struct nf_exec {
    size_t size;              /* sizeof(nf_exec) */
    void *workspace;          /* at least workspace_bytes, 64-byte aligned; NULL: the plan's own, one call at a time */
    size_t workspace_bytes;   /* of workspace */
    void *queue;              /* the cl_command_queue or CUstream to run on; NULL: the plan's */
    int64_t wait_count;       /* of wait_events */
    void *const *wait_events; /* cl_events or CUevents: the call runs after all of them, and fails if one of them failed */
    void **signal_event;      /* receives an event of the call's end, for the caller to release; unwritten if the call
                                 fails. NULL: none is asked for */
    nf_timing *timing;        /* NULL: none. The call waits for its end. NF_ERR_UNSUPPORTED where the backend has no clock of
                                 its own, as all but cuda */
} nf_exec;

NF_API void nf_exec_init(nf_exec *exec);

/* out = softmax(scale q k^T over visible keys) v; lse = log of the sum of exponentials. A query that sees no key gets
 * out 0 and lse -inf. Synchronous for host memory. */
NF_API nf_status nf_forward(const nf_plan *plan, const nf_io *io, const nf_exec *exec);

/* Gradients of forward given dout (and dlse). Deterministic. */
NF_API nf_status nf_backward(const nf_plan *plan, const nf_io *io, const nf_exec *exec);

/* ---- The unfused pair --------------------------------------------------------------------------------------------
 * The two products of forward, and their gradients, with the scores in the caller's memory: for a softmax of one's own,
 * or to look at the weights. nf_forward and nf_backward need no such tensor and are faster.
 *
 * The plan must be made with an algorithm that keeps scores ("unfused" of the cpu, opencl and cuda backends); another one
 * answers NF_ERR_UNSUPPORTED. nf_qk and nf_av need a plan that includes forward, their backward one that includes
 * backward. A tensor that is missing, or differs from what the plan was made for, is NF_ERR_TENSOR. The scores of a plan
 * that includes forward, and the dscores of one that includes backward, must not overlap themselves. A slot that does
 * not exist is never read: it may hold anything. Deterministic; exec as for nf_forward. */

/* scores = scale q k^T: reads q, k and extra_k, writes scores; -inf in slots that do not exist. */
NF_API nf_status nf_qk(const nf_plan *plan, const nf_io *io, const nf_exec *exec);

/* out = scores v: reads scores (any weights, such as their softmax), v and extra_v, writes out. In bf16 problems weights
 * may be rounded to bf16 before they multiply, as in nf_forward; the same holds for the gradients below. */
NF_API nf_status nf_av(const nf_plan *plan, const nf_io *io, const nf_exec *exec);

/* Gradients of nf_qk: reads q, k, extra_k and dscores; writes dq = scale dscores k, dk and dextra_k = scale dscores^T q,
 * as far as they are present (at least one). */
NF_API nf_status nf_qk_backward(const nf_plan *plan, const nf_io *io, const nf_exec *exec);

/* Gradients of nf_av: reads v, extra_v, dout and scores; writes dscores = dout v^T, 0 in slots that do not exist, dv and
 * dextra_v = scores^T dout, as far as they are present (at least one). */
NF_API nf_status nf_av_backward(const nf_plan *plan, const nf_io *io, const nf_exec *exec);

/* ---- Merging partial results ----------------------------------------------------------------------------------- */

/* Attention over disjoint sets of keys, merged: lse = log sum exp(lse_i), out = sum exp(lse_i - lse) out_i. Parts with
 * lse -inf do not count; if all are, out = 0 and lse = -inf. All tensors host f32 (or all f64); out and parts
 * [.., value_dim], lse and its parts one dimension less; count >= 1. lse may be NULL. out may be out_parts[i], lse
 * lse_parts[i] (merging in place), with the same strides; other overlaps are refused. */
NF_API nf_status nf_merge(int64_t count, const nf_tensor *const *out_parts, const nf_tensor *const *lse_parts,
                          const nf_tensor *out, const nf_tensor *lse);

/* Gradients of nf_merge: dout_parts[i] = w_i dout, dlse_parts[i] = w_i (dout . (out_i - out) + dlse), w_i =
 * exp(lse_i - lse); zero for parts with lse -inf. out and lse are nf_merge's results; dlse may be NULL. */
NF_API nf_status nf_merge_backward(int64_t count, const nf_tensor *const *out_parts, const nf_tensor *const *lse_parts,
                                   const nf_tensor *out, const nf_tensor *lse, const nf_tensor *dout,
                                   const nf_tensor *dlse, const nf_tensor *const *dout_parts,
                                   const nf_tensor *const *dlse_parts);

/* The same where a context's device may merge: all tensors in host memory, or all in NF_OPENCL memory of the cl_context
 * that nf_opencl_use gave this context (nearfield_opencl.h), or all in NF_CUDA memory. On the device they are merged in
 * their own type. exec, which may be NULL, gives queue and events as in nf_forward; its workspace is ignored. */
NF_API nf_status nf_merge_on(nf_context *context, const nf_exec *exec, int64_t count, const nf_tensor *const *out_parts,
                             const nf_tensor *const *lse_parts, const nf_tensor *out, const nf_tensor *lse);

NF_API nf_status nf_merge_backward_on(nf_context *context, const nf_exec *exec, int64_t count,
                                      const nf_tensor *const *out_parts, const nf_tensor *const *lse_parts,
                                      const nf_tensor *out, const nf_tensor *lse, const nf_tensor *dout,
                                      const nf_tensor *dlse, const nf_tensor *const *dout_parts,
                                      const nf_tensor *const *dlse_parts);

#ifdef __cplusplus
}
#endif

#endif
