/* The plan of the shape naive: one item per row of a result, which goes through its slots alone. */
#include <inttypes.h>
#include <math.h>

#include "backends/gpu/gpu_slots.h"
#include "backends/gpu/gpu_text.h"
#include "core/mem.h"
#include "core/status.h"

const char *const gpu_naive_kernel_names[] = {
    "naive_forward", "naive_dq", "naive_dkv", "naive_extra", "unfused_delta", "unfused_extra_sum", NULL,
};

static const gpu_pass forward = {"naive_forward", 7, {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_OUT, NF_LSE}};
static const gpu_pass delta = {"unfused_delta", 3, {NF_OUT, NF_DOUT, NF_DLSE}};
static const gpu_pass dq = {"naive_dq", 8, {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_LSE, NF_DQ}};
static const gpu_pass dkv = {"naive_dkv", 7, {NF_Q, NF_K, NF_V, NF_DOUT, NF_LSE, NF_DK, NF_DV}};
static const gpu_pass extra = {"naive_extra", 5, {NF_Q, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_LSE}};
static const gpu_pass extra_sum = {"unfused_extra_sum", 2, {NF_DEXTRA_K, NF_DEXTRA_V}};

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static double count_keys(const nf_problem *p)
{
    double keys = (double)p->batch * (double)p->kv_heads;
    for (int32_t a = 0; a < p->rank; a++)
        keys *= (double)nf_axis_key_range(&p->axis[a]).count;
    return keys;
}

/* Reals that rows sum in: of the largest pass, one after another. */
static double count_sums(const nf_problem *p)
{
    const double n = (double)p->head_dim, m = (double)p->value_dim;
    double most = p->direction & NF_FWD ? gpu_count_rows(p) * m : 0;
    if (p->direction & NF_BWD)
        most = fmax(most, fmax(gpu_count_rows(p) * n, count_keys(p) * (n + m)));
    return most;
}

/* Deltas, partial gradients of extra tokens, and sums. Fills places, unless they are NULL, and returns the bytes. */
static double lay_scratch(const nf_problem *p, int64_t *header)
{
    const bool backward = (p->direction & NF_BWD) != 0;
    const double unit = GPU_SCRATCH_ALIGNMENT, real = (double)gpu_real_size(p);
    const double deltas = backward ? ceil(gpu_count_rows(p) * real / unit) * unit : 0;
    const double partial = backward ? ceil(gpu_count_partial(p) * real / unit) * unit : 0;
    if (header) {
        header[GPU_SCRATCH_PARTIAL] = (int64_t)deltas;
        header[GPU_SCRATCH_GROUPS] = (int64_t)(deltas + partial);
    }
    return deltas + partial + count_sums(p) * real;
}

nf_status gpu_naive_supports(const gpu_device *device, const nf_request *request)
{
    const nf_status status = gpu_slots_supports(device, request);
    if (status == NF_OK && lay_scratch(request->problem, NULL) > (double)device->buffer_bytes)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "its sums would take %.3g bytes, a buffer of the device has at most %" PRId64,
                       lay_scratch(request->problem, NULL), device->buffer_bytes);
    return status;
}

/* ---- The plan ---------------------------------------------------------------------------------------------------- */

static void add_launches(gpu_plan *plan, const nf_problem *p, const int64_t *header, int64_t items)
{
    const uint32_t all = UINT32_MAX, dk = 1u << NF_DK, dv = 1u << NF_DV;
    const uint32_t extras = 1u << NF_DEXTRA_K | 1u << NF_DEXTRA_V;
    const int64_t rows = p->batch * p->heads * header[GPU_QUERIES], streams = p->batch * p->kv_heads;
    if (p->direction & NF_FWD)
        gpu_add_pass(&plan->forward, &forward, rows, items, all, 0);
    if (!(p->direction & NF_BWD))
        return;
    gpu_add_pass(&plan->backward, &delta, rows, items, all, 0);
    gpu_add_pass(&plan->backward, &dq, rows, items, 1u << NF_DQ, 0);
    gpu_add_pass(&plan->backward, &dkv, streams * header[GPU_KEYS], items, dk | dv, 0);
    if (!p->extra)
        return;
    gpu_add_pass(&plan->backward, &extra, streams * p->extra * GPU_EXTRA_SPLITS, items, extras, 0);
    gpu_add_pass(&plan->backward, &extra_sum, streams * p->extra * (p->head_dim + p->value_dim), items, extras, 0);
}

static nf_status make_plan(gpu_plan *plan, const gpu_device *device, const nf_request *request,
                           const nf_tensor layout[NF_ROLES])
{
    gpu_packer packer = {0};
    const nf_status status = gpu_slots_pack(&packer, device, request, layout);
    if (status != NF_OK)
        return status;
    plan->scratch_bytes = (size_t)lay_scratch(request->problem, packer.header);
    plan->shape = "naive";
    plan->source = gpu_naive_source;
    add_launches(plan, request->problem, packer.header, gpu_pass_items(device));
    return gpu_slots_finish(plan, device, request, &packer);
}

nf_status gpu_naive_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                           const nf_tensor layout[NF_ROLES])
{
    return gpu_slots_create(plan, device, request, layout, make_plan);
}
