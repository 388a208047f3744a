/* The contract between the core and a backend: read this file first, write a backend from it alone
 * (doc/add-a-backend.md walks through one).
 *
 * The core parses and checks problems, lowers them to axis tables (core/axis.h), cuts work lists on request
 * (core/work.h), checks every tensor of a call, and guards the plan's workspace. A backend discovers devices and offers
 * algorithms; an algorithm says what it supports, prepares once, and runs. Backends never see a mask rule, only tables
 * and tiles.
 *
 * Rules for backends: report every failure through nf_fail() with a sentence that names what and why; allocate only
 * through core/mem.h and only while opening or preparing; write nothing on failure; give bitwise equal results for
 * any number of threads. */
#ifndef NF_CORE_BACKEND_H
#define NF_CORE_BACKEND_H

#include <stdbool.h>

#include "core/axis.h"
#include "core/io.h"
#include "core/problem.h"
#include "core/status.h"
#include "core/text.h"
#include "core/work.h"
#include "nearfield.h"

/* What an algorithm is asked to run: a plan's problem, or one direction of it. Prepare's lives as long as the plan. */
typedef struct nf_request {
    const nf_context *context;
    const nf_problem *problem; /* checked, ranges and windows as given; direction: what the algorithm is to run */
    const nf_grid *grid;       /* its axis tables */
    const nf_tensor *layout;   /* by role: dtype, memory, extents and strides; rank 0: the problem has no such tensor */
    int64_t threads;           /* threads an execution may use, >= 1 */
} nf_request;

enum { NF_DIRECTIONS = 2 }; /* forward and backward: of an array of them, by direction - 1 */

/* A request of one direction of another one's problem; it goes into problem, which must live as long. */
static inline nf_request nf_request_narrow(const nf_request *request, nf_direction direction, nf_problem *problem)
{
    nf_request narrow = *request;
    *problem = *request->problem;
    problem->direction = direction;
    narrow.problem = problem;
    return narrow;
}

/* The unfused pair of an algorithm that keeps scores, and its gradients: nf_qk, nf_av, nf_qk_backward, nf_av_backward.
 * Called like forward and backward below. */
typedef struct nf_pair {
    nf_status (*qk)(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
    nf_status (*av)(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
    nf_status (*qk_backward)(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
    nf_status (*av_backward)(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
} nf_pair;

/* A call of nf_merge, or of nf_merge_backward where dout is there. Absent tensors and arrays are NULL. */
typedef struct nf_merging {
    int64_t count;
    const nf_tensor *const *out_parts, *const *lse_parts;
    const nf_tensor *out, *lse;
    const nf_tensor *dout, *dlse;
    const nf_tensor *const *dout_parts, *const *dlse_parts;
} nf_merging;

/* One way to run a problem. Slots that take prepared get what prepare made. */
typedef struct nf_algorithm {
    const char *name; /* unique in its backend: "tile", "naive" */

    /* NF_OK, or NF_ERR_UNSUPPORTED with the reason. Called for selection and again by nothing else: what it accepts
     * must run. Asked for each direction by itself; one that accepts both must run both together. state is the
     * backend's. */
    nf_status (*supports)(const void *state, const nf_request *request);

    /* Predicts seconds of one execution of each direction that the problem names, to rank algorithms: each direction
     * goes to the fastest. */
    void (*cost)(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS]);

    /* Makes everything an execution of the directions that the problem names needs: lists, tile shapes, compiled
     * kernels. */
    nf_status (*prepare)(const void *state, const nf_request *request, void **prepared);
    void (*release)(const nf_request *request, void *prepared);

    /* Bytes of workspace of one execution, for any direction the problem names. If 0, several threads may execute at
     * once. */
    size_t (*workspace)(const void *prepared);

    /* Fills kernel, pairs, tiles, query_tile and key_tile; the core fills the rest. Pairs over all batches and heads.
     */
    void (*info)(const void *prepared, nf_plan_info *info);
    /* Further lines for nf_plan_describe, e.g. a picture of one tile. */
    void (*describe)(const void *prepared, nf_text *text);

    /* Run. io has been checked against layout; io[role] is NULL when absent. workspace is 64-byte aligned. Backward may
     * find any of the gradients absent, at least one is present. */
    nf_status (*forward)(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
    nf_status (*backward)(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
    /* Runs any of these, or of the pair, where exec names a queue, events or timing; nf_stub_enqueue where a device has
     * no such thing. The core has checked that the arrays of exec are there. */
    nf_status (*enqueue)(const void *prepared, nf_operation operation, const nf_tensor *const io[NF_ROLES],
                         void *workspace, const nf_exec *exec);
    const nf_pair *pair; /* &nf_stub_pair if the algorithm keeps no scores */
    bool apart;          /* its directions share nothing: prepare is called for each */
} nf_algorithm;

typedef struct nf_backend {
    const char *name;
    const char *summary;   /* a few words for nearfield info */
    bool preferred;        /* may be chosen without being asked for; if not, opened only when it is */
    const char *built_out; /* not NULL: this build has no such backend, and why; all slots below are stubs */

    /* Looks at the machine. NF_ERR_UNAVAILABLE with the reason if it cannot run here. */
    nf_status (*open)(const nf_context *context, void **state);
    void (*close)(const nf_context *context, void *state);
    /* Devices and what limits them, one line each. */
    void (*describe)(const void *state, nf_text *text);
    /* Name of the index-th device (0 is the first), or NULL past the last. Lives as long as the state. */
    const char *(*device)(const void *state, int index);
    /* Whether the device in use is a GPU. Then a backend that is not preferred may be chosen unasked, too, on a machine
     * that shows a GPU before the backend is opened. nf_stub_gpu: never. */
    bool (*gpu)(const void *state);

    /* The device's limits, measured. A backend that has this has a clock, too: nf_exec.timing goes to enqueue.
     * nf_stub_peak: neither but the host's. */
    nf_status (*peak)(const void *state, nf_dtype dtype, nf_peak *peak);

    /* Merging in device memory of this kind, where all tensors lie, which the core has checked. NF_HOST and
     * nf_stub_merge: none, host memory is the core's. */
    nf_memory memory;
    nf_status (*merge)(const void *state, const nf_merging *merging, const nf_exec *exec);

    const nf_algorithm *const *algorithms; /* NULL-terminated, best first */
} nf_backend;

/* All backends, most preferred first, NULL-terminated; a new backend adds itself here (registry.c). */
extern const nf_backend *const nf_backends[];
extern const nf_backend nf_backend_cpu, nf_backend_reference, nf_backend_opencl, nf_backend_cuda;

/* Shared stubs for slots a backend does not fill. */
nf_status nf_stub_open(const nf_context *context, void **state);
void nf_stub_close(const nf_context *context, void *state);
void nf_stub_describe(const void *state, nf_text *text);
const char *nf_stub_device(const void *state, int index); /* one device: the host */
bool nf_stub_gpu(const void *state);
nf_status nf_stub_peak(const void *state, nf_dtype dtype, nf_peak *peak);
nf_status nf_stub_merge(const void *state, const nf_merging *merging, const nf_exec *exec);
nf_status nf_stub_enqueue(const void *prepared, nf_operation operation, const nf_tensor *const io[NF_ROLES],
                          void *workspace, const nf_exec *exec);
extern const nf_pair nf_stub_pair;

#endif
