/* What the shapes that go through slots one by one share, unfused and naive: tables that say what each slot of each
 * query is and which queries see a key, and passes over all of something. */
#ifndef NF_GPU_SLOTS_H
#define NF_GPU_SLOTS_H

#include "backends/gpu/gpu_pack.h"
#include "backends/gpu/gpu_plan.h"

enum {
    GPU_SCRATCH_ALIGNMENT = 256,
    GPU_EXTRA_SPLITS = 16 /* parts of the queries for the gradients of extra tokens, whatever the device */
};

/* Counted in double: they may exceed any integer. Rows are queries of all heads and batches. */
double gpu_count_slots(const nf_problem *problem);
double gpu_count_rows(const nf_problem *problem);
/* Of the partial gradients of extra tokens, in reals. */
double gpu_count_partial(const nf_problem *problem);

/* Bytes of what kernels compute with. */
int64_t gpu_real_size(const nf_problem *problem);

/* NF_ERR_UNSUPPORTED with the reason: of the device's types and groups, of slots that kernels cannot number. */
nf_status gpu_slots_supports(const gpu_device *device, const nf_request *request);

/* The tables of a plan, but for the places in scratch memory. The caller releases packer->header. */
nf_status gpu_slots_pack(gpu_packer *packer, const gpu_device *device, const nf_request *request,
                         const nf_tensor layout[NF_ROLES]);

/* Appends a walk to a plan's tables, for programs that are compiled ahead: axes that the problem lacks come first, too.
 * at: GPU_BY_QUERY or GPU_BY_KEY. */
nf_status gpu_slots_add_walk(gpu_plan *plan, const nf_request *request, const nf_work *work, int at);

/* A kernel with an item per element of something. Its arguments follow the tables and scratch, in the text's order. */
typedef struct gpu_pass {
    const char *kernel;
    int count;
    nf_role roles[GPU_MAX_ARGS / 2];
} gpu_pass;

/* Work-items of a group. */
int64_t gpu_pass_items(const gpu_device *device);

/* outputs: left out where none of them is present. without: roles that are not the call's, whatever it names. */
void gpu_add_pass(gpu_launches *launches, const gpu_pass *pass, int64_t elements, int64_t items, uint32_t outputs,
                  uint32_t without);

/* Allocates a plan, which make fills in. */
typedef nf_status gpu_plan_maker(gpu_plan *plan, const gpu_device *device, const nf_request *request,
                                 const nf_tensor layout[NF_ROLES]);
nf_status gpu_slots_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                           const nf_tensor layout[NF_ROLES], gpu_plan_maker *make);

/* Makes tables the plan's, and completes it but for scratch and launches. */
nf_status gpu_slots_finish(gpu_plan *plan, const gpu_device *device, const nf_request *request,
                           const gpu_packer *packer);

#endif
