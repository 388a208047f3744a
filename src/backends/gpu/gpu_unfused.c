/* The plan of the shape unfused: passes over all slots of all queries, whose scores lie in memory. */
#include <inttypes.h>

#include "backends/gpu/gpu_slots.h"
#include "backends/gpu/gpu_text.h"
#include "core/mem.h"
#include "core/status.h"

const char *const gpu_unfused_kernel_names[] = {
    "unfused_qk", "unfused_dout_v", "unfused_softmax", "unfused_av",       "unfused_delta",    "unfused_gradient",
    "unfused_dq", "unfused_dk",     "unfused_dv",      "unfused_extra_dk", "unfused_extra_dv", "unfused_extra_sum",
    NULL,
};

typedef enum pass { QK, DOUT_V, SOFTMAX, AV, DELTA, GRADIENT, DQ, DK, DV, EXTRA_DK, EXTRA_DV, EXTRA_SUM } pass;

/* What an item of a pass is. */
typedef enum item_kind {
    A_SLOT,
    A_ROW,
    A_QUERY_HEAD_DIM,
    A_QUERY_VALUE_DIM,
    A_KEY_HEAD_DIM,
    A_KEY_VALUE_DIM,
    A_PART_HEAD_DIM,
    A_PART_VALUE_DIM,
    AN_EXTRA_DIM
} item_kind;

static const struct {
    item_kind item;
    gpu_pass pass;
} passes[] = {
    [QK] = {A_SLOT, {"unfused_qk", 4, {NF_Q, NF_K, NF_EXTRA_K, NF_SCORES}}},
    [DOUT_V] = {A_SLOT, {"unfused_dout_v", 4, {NF_DOUT, NF_V, NF_EXTRA_V, NF_DSCORES}}},
    [SOFTMAX] = {A_ROW, {"unfused_softmax", 1, {NF_LSE}}},
    [AV] = {A_QUERY_VALUE_DIM, {"unfused_av", 4, {NF_SCORES, NF_V, NF_EXTRA_V, NF_OUT}}},
    [DELTA] = {A_ROW, {"unfused_delta", 3, {NF_OUT, NF_DOUT, NF_DLSE}}},
    [GRADIENT] = {A_ROW, {"unfused_gradient", 1, {NF_LSE}}},
    [DQ] = {A_QUERY_HEAD_DIM, {"unfused_dq", 4, {NF_DSCORES, NF_K, NF_EXTRA_K, NF_DQ}}},
    [DK] = {A_KEY_HEAD_DIM, {"unfused_dk", 3, {NF_DSCORES, NF_Q, NF_DK}}},
    [DV] = {A_KEY_VALUE_DIM, {"unfused_dv", 3, {NF_SCORES, NF_DOUT, NF_DV}}},
    [EXTRA_DK] = {A_PART_HEAD_DIM, {"unfused_extra_dk", 2, {NF_DSCORES, NF_Q}}},
    [EXTRA_DV] = {A_PART_VALUE_DIM, {"unfused_extra_dv", 2, {NF_SCORES, NF_DOUT}}},
    [EXTRA_SUM] = {AN_EXTRA_DIM, {"unfused_extra_sum", 2, {NF_DEXTRA_K, NF_DEXTRA_V}}},
};

static uint32_t bit(nf_role role)
{
    return UINT32_C(1) << role;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static int64_t round_up(int64_t value)
{
    return (value + GPU_SCRATCH_ALIGNMENT - 1) / GPU_SCRATCH_ALIGNMENT * GPU_SCRATCH_ALIGNMENT;
}

/* Of scratch memory: scores, in backward twice, deltas, partial gradients of extra tokens. */
static double count_scratch(const nf_problem *p)
{
    const bool backward = (p->direction & NF_BWD) != 0;
    double reals = gpu_count_rows(p) * gpu_count_slots(p) * (backward ? 2 : 1);
    if (backward)
        reals += gpu_count_rows(p) + gpu_count_partial(p);
    return reals * (double)gpu_real_size(p) + 4 * GPU_SCRATCH_ALIGNMENT;
}

nf_status gpu_unfused_supports(const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    const nf_status status = gpu_slots_supports(device, request);
    if (status == NF_OK && count_scratch(p) > (double)device->buffer_bytes)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "its scores would take %.3g bytes, a buffer of the device has at most %" PRId64,
                       count_scratch(p), device->buffer_bytes);
    return status;
}

/* Returns the bytes of it. */
static size_t lay_scratch(int64_t *header, const nf_problem *p)
{
    const bool backward = (p->direction & NF_BWD) != 0;
    const int64_t real = gpu_real_size(p), rows = p->batch * p->heads * header[GPU_QUERIES];
    const int64_t scores = round_up(rows * header[GPU_SLOTS] * real);
    header[GPU_SCRATCH_DSCORES] = scores;
    header[GPU_SCRATCH_DELTA] = 2 * scores;
    header[GPU_SCRATCH_PARTIAL] = header[GPU_SCRATCH_DELTA] + round_up(rows * real);
    const int64_t partial = (int64_t)gpu_count_partial(p) * real;
    return (size_t)(backward ? header[GPU_SCRATCH_PARTIAL] + partial : scores);
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

typedef struct plan_maker {
    gpu_plan *plan;
    const nf_problem *problem;
    const int64_t *header;
    int64_t items; /* of a group */
} plan_maker;

static int64_t count_items(const plan_maker *m, item_kind item)
{
    const nf_problem *p = m->problem;
    const int64_t rows = p->batch * p->heads * m->header[GPU_QUERIES], streams = p->batch * p->kv_heads;
    switch (item) {
    case A_SLOT:
        return rows * m->header[GPU_SLOTS];
    case A_ROW:
        return rows;
    case A_QUERY_HEAD_DIM:
        return rows * p->head_dim;
    case A_QUERY_VALUE_DIM:
        return rows * p->value_dim;
    case A_KEY_HEAD_DIM:
        return streams * m->header[GPU_KEYS] * p->head_dim;
    case A_KEY_VALUE_DIM:
        return streams * m->header[GPU_KEYS] * p->value_dim;
    case A_PART_HEAD_DIM:
        return streams * p->extra * GPU_EXTRA_SPLITS * p->head_dim;
    case A_PART_VALUE_DIM:
        return streams * p->extra * GPU_EXTRA_SPLITS * p->value_dim;
    case AN_EXTRA_DIM:
    default:
        return streams * p->extra * (p->head_dim + p->value_dim);
    }
}

/* outputs: left out where none of them is present. without: roles that are not the call's, whatever it names. */
static void add_pass(const plan_maker *m, gpu_launches *launches, pass index, uint32_t outputs, uint32_t without)
{
    gpu_add_pass(launches, &passes[index].pass, count_items(m, passes[index].item), m->items, outputs, without);
}

static const uint32_t all = UINT32_MAX;

static void add_forward(const plan_maker *m)
{
    const uint32_t own = bit(NF_SCORES);
    add_pass(m, &m->plan->forward, QK, all, own);
    add_pass(m, &m->plan->forward, SOFTMAX, all, 0);
    add_pass(m, &m->plan->forward, AV, all, own);
    add_pass(m, &m->plan->qk, QK, all, 0);
    add_pass(m, &m->plan->av, AV, all, 0);
}

static void add_backward(const plan_maker *m)
{
    const uint32_t own = bit(NF_SCORES) | bit(NF_DSCORES);
    gpu_launches *both = &m->plan->backward, *qk = &m->plan->qk_backward, *av = &m->plan->av_backward;
    add_pass(m, both, DELTA, all, 0);
    add_pass(m, both, QK, all, own);
    add_pass(m, both, DOUT_V, all, own);
    add_pass(m, both, GRADIENT, all, 0);
    add_pass(m, both, DQ, bit(NF_DQ), own);
    add_pass(m, both, DK, bit(NF_DK), own);
    add_pass(m, both, DV, bit(NF_DV), own);
    add_pass(m, qk, DQ, bit(NF_DQ), 0);
    add_pass(m, qk, DK, bit(NF_DK), 0);
    add_pass(m, av, DOUT_V, bit(NF_DSCORES), 0);
    add_pass(m, av, DV, bit(NF_DV), 0);
    if (!m->problem->extra)
        return;
    add_pass(m, both, EXTRA_DK, bit(NF_DEXTRA_K), own);
    add_pass(m, both, EXTRA_DV, bit(NF_DEXTRA_V), own);
    add_pass(m, both, EXTRA_SUM, bit(NF_DEXTRA_K) | bit(NF_DEXTRA_V), 0);
    add_pass(m, qk, EXTRA_DK, bit(NF_DEXTRA_K), 0);
    add_pass(m, qk, EXTRA_SUM, bit(NF_DEXTRA_K), bit(NF_DEXTRA_V));
    add_pass(m, av, EXTRA_DV, bit(NF_DEXTRA_V), 0);
    add_pass(m, av, EXTRA_SUM, bit(NF_DEXTRA_V), bit(NF_DEXTRA_K));
}

/* ---- The plan ---------------------------------------------------------------------------------------------------- */

static nf_status make_plan(gpu_plan *plan, const gpu_device *device, const nf_request *request,
                           const nf_tensor layout[NF_ROLES])
{
    const nf_problem *p = request->problem;
    gpu_packer packer = {0};
    const nf_status status = gpu_slots_pack(&packer, device, request, layout);
    if (status != NF_OK)
        return status;
    const plan_maker m = {plan, p, packer.header, gpu_pass_items(device)};
    plan->scratch_bytes = lay_scratch(packer.header, p);
    plan->shape = "unfused";
    plan->source = gpu_unfused_source;
    if (p->direction & NF_FWD)
        add_forward(&m);
    if (p->direction & NF_BWD)
        add_backward(&m);
    return gpu_slots_finish(plan, device, request, &packer);
}

nf_status gpu_unfused_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                             const nf_tensor layout[NF_ROLES])
{
    return gpu_slots_create(plan, device, request, layout, make_plan);
}
