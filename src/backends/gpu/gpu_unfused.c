/* The plan of the shape unfused: what each slot of each query is, and passes over all of them. */
#include <inttypes.h>

#include "backends/gpu/gpu_pack.h"
#include "backends/gpu/gpu_plan.h"
#include "backends/gpu/gpu_text.h"
#include "core/mem.h"
#include "core/problem.h"
#include "core/status.h"

enum {
    GROUP_ITEMS = 64,
    MOST_GROUPS = 1 << 20,
    SCRATCH_ALIGNMENT = 256,
    MOST_SLOTS = INT32_MAX,
    EXTRA_SPLITS = 16, /* parts of the queries for the gradients of extra tokens, whatever the device */
};

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

/* The arguments of the kernels, in the order of the text: tables and scratch come first. */
static const struct {
    item_kind item;
    int count;
    nf_role roles[GPU_MAX_ARGS / 2];
} passes[] = {
    [QK] = {A_SLOT, 4, {NF_Q, NF_K, NF_EXTRA_K, NF_SCORES}},
    [DOUT_V] = {A_SLOT, 4, {NF_DOUT, NF_V, NF_EXTRA_V, NF_DSCORES}},
    [SOFTMAX] = {A_ROW, 1, {NF_LSE}},
    [AV] = {A_QUERY_VALUE_DIM, 4, {NF_SCORES, NF_V, NF_EXTRA_V, NF_OUT}},
    [DELTA] = {A_ROW, 3, {NF_OUT, NF_DOUT, NF_DLSE}},
    [GRADIENT] = {A_ROW, 1, {NF_LSE}},
    [DQ] = {A_QUERY_HEAD_DIM, 4, {NF_DSCORES, NF_K, NF_EXTRA_K, NF_DQ}},
    [DK] = {A_KEY_HEAD_DIM, 3, {NF_DSCORES, NF_Q, NF_DK}},
    [DV] = {A_KEY_VALUE_DIM, 3, {NF_SCORES, NF_DOUT, NF_DV}},
    [EXTRA_DK] = {A_PART_HEAD_DIM, 2, {NF_DSCORES, NF_Q}},
    [EXTRA_DV] = {A_PART_VALUE_DIM, 2, {NF_SCORES, NF_DOUT}},
    [EXTRA_SUM] = {AN_EXTRA_DIM, 2, {NF_DEXTRA_K, NF_DEXTRA_V}},
};

static uint32_t bit(nf_role role)
{
    return UINT32_C(1) << role;
}

/* ---- Sizes ------------------------------------------------------------------------------------------------------- */

static int64_t round_up(int64_t value, int64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

/* Counted in double: it may exceed any integer. */
static double count_slots(const nf_problem *p)
{
    double slots = 1;
    for (int32_t a = 0; a < p->rank; a++)
        slots *= (double)nf_axis_window(&p->axis[a]);
    return slots + (double)p->extra;
}

static double count_queries(const nf_problem *p)
{
    double queries = 1;
    for (int32_t a = 0; a < p->rank; a++)
        queries *= (double)nf_axis_query_range(&p->axis[a]).count;
    return queries;
}

static double count_rows(const nf_problem *p)
{
    return (double)p->batch * (double)p->heads * count_queries(p);
}

static int64_t real_size(const nf_problem *p)
{
    return p->dtype == NF_F64 ? (int64_t)sizeof(double) : (int64_t)sizeof(float);
}

/* Of scratch memory: scores, in backward twice, deltas, partial gradients of extra tokens. */
static double count_scratch(const nf_problem *p)
{
    const bool backward = (p->direction & NF_BWD) != 0;
    const double dims = (double)p->head_dim + (double)p->value_dim;
    double reals = count_rows(p) * count_slots(p) * (backward ? 2 : 1);
    if (backward)
        reals += count_rows(p) + EXTRA_SPLITS * (double)p->batch * (double)p->kv_heads * (double)p->extra * dims;
    return reals * (double)real_size(p) + 4 * SCRATCH_ALIGNMENT;
}

nf_status gpu_unfused_supports(const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    if (p->dtype == NF_F64 && !device->fp64)
        return nf_fail(NF_ERR_UNSUPPORTED, "dtype f64: the device has no double precision");
    if (count_slots(p) > MOST_SLOTS)
        return nf_fail(NF_ERR_UNSUPPORTED, "a query has %.3g slots, kernels number at most %d", count_slots(p),
                       (int)MOST_SLOTS);
    if (count_scratch(p) > (double)device->buffer_bytes)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "its scores would take %.3g bytes, a buffer of the device has at most %" PRId64,
                       count_scratch(p), device->buffer_bytes);
    return gpu_check_memory(device, request);
}

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

static int64_t axis_ints(const nf_axis *axis)
{
    return nf_axis_query_range(axis).count * GPU_SIGHT_WORDS + nf_axis_key_range(axis).count * GPU_INVERSE_WORDS;
}

static void set_sight(int32_t *entry, const nf_axis_class *c, int32_t query)
{
    const int32_t first = c->rule->first[query];
    const nf_interval seen = nf_class_sees(c, NF_ROWS_QUERIES, query);
    entry[GPU_SIGHT_FIRST] = first;
    entry[GPU_SIGHT_ORIGIN] = (int32_t)nf_class_column_index(c, NF_ROWS_QUERIES, first);
    entry[GPU_SIGHT_BEGIN] = seen.begin - first;
    entry[GPU_SIGHT_END] = nf_max32(seen.end, seen.begin) - first;
}

static void set_inverse(int32_t *entry, const nf_axis_class *c, int32_t key)
{
    const nf_interval seen = nf_class_sees(c, NF_ROWS_KEYS, key);
    entry[GPU_INVERSE_POSITION] = key;
    entry[GPU_INVERSE_QUERY] = (int32_t)nf_class_column_index(c, NF_ROWS_KEYS, seen.begin);
    entry[GPU_INVERSE_COUNT] = nf_interval_size(seen);
}

static void pack_axis(gpu_packer *packer, const nf_problem *p, const nf_axis_table *table, int32_t axis)
{
    const int64_t sight = packer->used;
    const int64_t inverse = sight + nf_axis_query_range(&p->axis[axis]).count * GPU_SIGHT_WORDS;
    packer->header[GPU_KEY_EXTENT + axis] = nf_axis_key_range(&p->axis[axis]).count;
    packer->header[GPU_WINDOW + axis] = nf_axis_window(&p->axis[axis]);
    packer->header[GPU_SIGHT + axis] = sight;
    packer->header[GPU_INVERSE + axis] = inverse;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        for (int32_t u = c.q_begin; u < c.q_end; u++)
            set_sight(packer->ints + sight + nf_class_row_index(&c, NF_ROWS_QUERIES, u) * GPU_SIGHT_WORDS, &c, u);
        for (int32_t u = c.k_begin; u < c.k_end; u++)
            set_inverse(packer->ints + inverse + nf_class_row_index(&c, NF_ROWS_KEYS, u) * GPU_INVERSE_WORDS, &c, u);
    }
    packer->used += axis_ints(&p->axis[axis]);
}

/* [batch, heads, slots, queries] */
static void set_own_strides(int64_t *header, const nf_problem *p)
{
    int64_t *strides = header + GPU_TENSOR + GPU_OWN * GPU_STRIDES, stride = 1;
    for (int32_t a = p->rank - 1; a >= 0; a--) {
        strides[GPU_STRIDE_AXIS + a] = stride;
        stride *= header[GPU_QUERY_EXTENT + a];
    }
    strides[GPU_STRIDE_DIM] = stride;
    strides[GPU_STRIDE_HEAD] = stride * header[GPU_SLOTS];
    strides[GPU_STRIDE_BATCH] = stride * header[GPU_SLOTS] * p->heads;
}

static nf_status pack_tables(gpu_packer *packer, const nf_request *request, const nf_tensor layout[NF_ROLES])
{
    const nf_problem *p = request->problem;
    int64_t room = 0;
    for (int32_t a = 0; a < p->rank; a++)
        room += axis_ints(&p->axis[a]);
    const nf_status status = gpu_pack_begin(packer, request, layout, p->rank, room);
    if (status != NF_OK)
        return status;
    int64_t *header = packer->header;
    header[GPU_SLOTS] = header[GPU_KEYS] = 1;
    for (int32_t a = 0; a < p->rank; a++) {
        pack_axis(packer, p, &request->grid->axis[a], a);
        header[GPU_SLOTS] *= header[GPU_WINDOW + a];
        header[GPU_KEYS] *= header[GPU_KEY_EXTENT + a];
    }
    header[GPU_SLOTS] += p->extra;
    set_own_strides(header, p);
    return NF_OK;
}

/* Returns the bytes of it. */
static size_t lay_scratch(int64_t *header, const nf_problem *p)
{
    const bool backward = (p->direction & NF_BWD) != 0;
    const int64_t real = real_size(p), rows = p->batch * p->heads * header[GPU_QUERIES];
    const int64_t scores = round_up(rows * header[GPU_SLOTS] * real, SCRATCH_ALIGNMENT);
    const int64_t part = p->batch * p->kv_heads * p->extra * (p->head_dim + p->value_dim) * real;
    header[GPU_SPLITS] = EXTRA_SPLITS;
    header[GPU_SCRATCH_DSCORES] = scores;
    header[GPU_SCRATCH_DELTA] = 2 * scores;
    header[GPU_SCRATCH_PARTIAL] = header[GPU_SCRATCH_DELTA] + round_up(rows * real, SCRATCH_ALIGNMENT);
    return (size_t)(backward ? header[GPU_SCRATCH_PARTIAL] + part * EXTRA_SPLITS : scores);
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
        return streams * p->extra * EXTRA_SPLITS * p->head_dim;
    case A_PART_VALUE_DIM:
        return streams * p->extra * EXTRA_SPLITS * p->value_dim;
    case AN_EXTRA_DIM:
    default:
        return streams * p->extra * (p->head_dim + p->value_dim);
    }
}

/* outputs: left out where none of them is present. without: roles that are not the call's, whatever it names. */
static void add_pass(const plan_maker *m, gpu_launches *launches, pass index, uint32_t outputs, uint32_t without)
{
    const int64_t groups = (count_items(m, passes[index].item) + m->items - 1) / m->items;
    gpu_launch *launch = &launches->launch[launches->count++];
    *launch = (gpu_launch){.kernel = gpu_unfused_kernel_names[index],
                           .groups = (size_t)nf_min64(nf_max64(groups, 1), MOST_GROUPS),
                           .items = (size_t)m->items,
                           .outputs = outputs,
                           .args = {{.kind = GPU_ARG_TABLES}, {.kind = GPU_ARG_SCRATCH}},
                           .args_count = 2};
    for (int i = 0; i < passes[index].count; i++) {
        const nf_role role = passes[index].roles[i];
        const bool none = (without & bit(role)) != 0;
        launch->args[launch->args_count++] = (gpu_arg){none ? GPU_ARG_TABLES : GPU_ARG_TENSOR, role};
        launch->args[launch->args_count++] = (gpu_arg){none ? GPU_ARG_NONE : GPU_ARG_OFFSET, role};
    }
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

/* Every pair is a tile of its own, and none is masked. */
static void count_pairs(gpu_plan *plan, const nf_request *request)
{
    const nf_problem *p = request->problem;
    const double pairs = nf_grid_pairs(request->grid) + count_queries(p) * (double)p->extra;
    plan->counts = (nf_work_counts){.useful_pairs = pairs, .computed_pairs = pairs, .tiles_full = pairs};
    for (int32_t a = 0; a < p->rank; a++)
        plan->query_tile[a] = plan->key_tile[a] = 1;
}

static nf_status make_plan(gpu_plan *plan, const gpu_device *device, const nf_request *request,
                           const nf_tensor layout[NF_ROLES])
{
    const nf_problem *p = request->problem;
    gpu_packer packer = {0};
    nf_text options;
    nf_status status = pack_tables(&packer, request, layout);
    if (status != NF_OK)
        return status;
    const plan_maker m = {plan, p, packer.header, nf_max64(nf_min64(GROUP_ITEMS, device->group_items), 1)};
    plan->tables = packer.header;
    plan->table_bytes = (size_t)packer.used * sizeof(int32_t);
    plan->scratch_bytes = lay_scratch(packer.header, p);
    plan->shape = "unfused";
    plan->source = gpu_unfused_source;
    count_pairs(plan, request);
    if (p->direction & NF_FWD)
        add_forward(&m);
    if (p->direction & NF_BWD)
        add_backward(&m);
    status = nf_text_init(&options, plan->options, sizeof plan->options);
    if (status != NF_OK)
        return status;
    nf_text_printf(&options, "-DRANK=%d -DIN_TYPE=%d -DOUT_TYPE=%d -DITEMS=%d", (int)p->rank, (int)p->dtype,
                   (int)p->out_dtype, (int)m.items);
    return nf_text_finish(&options, NULL);
}

nf_status gpu_unfused_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                             const nf_tensor layout[NF_ROLES])
{
    gpu_plan *made = nf_alloc(request->context, sizeof *made);
    if (!made)
        return NF_ERR_MEMORY;
    *made = (gpu_plan){0};
    const nf_status status = make_plan(made, device, request, layout);
    if (status == NF_OK)
        *plan = made;
    else
        gpu_plan_destroy(made, request->context);
    return status;
}
