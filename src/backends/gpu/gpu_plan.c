/* A plan for a device: shape, tables, scratch memory and launches. */
#include "backends/gpu/gpu_plan.h"

#include <inttypes.h>

#include "backends/gpu/gpu_pack.h"
#include "backends/gpu/gpu_shape.h"
#include "backends/gpu/gpu_text.h"
#include "core/io.h"
#include "core/mem.h"
#include "core/problem.h"
#include "core/status.h"
#include "core/tensor.h"

enum {
    GROUPS_PER_UNIT = 4,   /* of lanes: each takes every so many-th item */
    TILE_GROUPS = 1 << 22, /* of tile, at most */
    SCRATCH_ALIGNMENT = 256,
    MOST_EXTRA = 1 << 30,
    EXTRA_SPLITS = 16,
    PARTIAL_BYTES = 64 << 20, /* of partial gradients of extra tokens, where there is a choice */
    DELTA_RUN = 256,          /* queries of a work-item of the launch that finds deltas */
};

const char *const gpu_kernel_names[] = {"forward",        "backward_delta",     "backward_dq", "backward_dkv",
                                        "backward_extra", "backward_extra_sum", NULL};

/* The arguments of the kernels, in the order of the text: tables and scratch come first. */
static const struct {
    const char *kernel;
    int count;
    nf_role roles[GPU_MAX_ARGS / 2];
    uint32_t outputs;
} kernels[] = {
    {"forward", 7, {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_OUT, NF_LSE}, 1u << NF_OUT},
    {"backward_delta", 3, {NF_OUT, NF_DOUT, NF_DLSE}, UINT32_MAX},
    {"backward_dq", 8, {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_LSE, NF_DQ}, 1u << NF_DQ},
    {"backward_dkv", 7, {NF_Q, NF_K, NF_V, NF_DOUT, NF_LSE, NF_DK, NF_DV}, 1u << NF_DK | 1u << NF_DV},
    {"backward_extra", 5, {NF_Q, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_LSE}, 1u << NF_DEXTRA_K | 1u << NF_DEXTRA_V},
    {"backward_extra_sum", 2, {NF_DEXTRA_K, NF_DEXTRA_V}, 1u << NF_DEXTRA_K | 1u << NF_DEXTRA_V},
};

typedef enum kernel_index { FORWARD, DELTA, DQ, DKV, EXTRA, EXTRA_SUM } kernel_index;

/* What a plan is being made from. */
typedef struct plan_maker {
    gpu_plan *plan;
    const gpu_device *device;
    const nf_request *request;
    gpu_shape shape;
    nf_work by_query, by_key;
    gpu_packer packer;
    int64_t group_bytes; /* scratch of a group of lanes */
    int64_t groups;      /* that run at once: lanes take items in turn */
} plan_maker;

static int64_t round_up(int64_t value, int64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a - 1) / b + 1;
}

/* Scratch of one group: rows in the lanes, their sums, scores, and copies of columns. */
static int64_t lanes_bytes(const gpu_shape *shape, const nf_problem *p)
{
    const int64_t dims = p->head_dim + p->value_dim, columns = shape->columns + GPU_LANES_PADDING;
    const bool backward = (p->direction & NF_BWD) != 0;
    const int64_t reals = (backward ? 2 : 1) * (dims + columns) * shape->rows + shape->columns * dims;
    return round_up(reals * shape->real_size, SCRATCH_ALIGNMENT);
}

nf_status gpu_check_memory(const gpu_device *device, const nf_request *request)
{
    for (int role = 0; role < NF_ROLES; role++) {
        const nf_tensor *tensor = &request->layout[role];
        if (tensor->rank && tensor->memory != NF_HOST && tensor->memory != device->memory)
            return nf_fail(NF_ERR_UNSUPPORTED, "%s is in %s memory, the kernels of other devices cannot read it",
                           nf_role_name((nf_role)role), nf_memory_name(tensor->memory));
    }
    return NF_OK;
}

nf_status gpu_plan_supports(const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    gpu_shape shape;
    if (p->dtype == NF_F64 && !device->fp64)
        return nf_fail(NF_ERR_UNSUPPORTED, "dtype f64: the device has no double precision");
    if (p->extra > MOST_EXTRA)
        return nf_fail(NF_ERR_UNSUPPORTED, "extra %" PRId64 ": kernels number at most %d extra tokens", p->extra,
                       (int)MOST_EXTRA);
    nf_status status = gpu_choose_shape(&shape, device, request);
    if (status != NF_OK)
        return status;
    if (shape.by_lanes && lanes_bytes(&shape, p) > device->buffer_bytes)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "head_dim %" PRId64 ", value_dim %" PRId64 ": a group needs %" PRId64
                       " bytes of scratch, a buffer of the device has at most %" PRId64,
                       p->head_dim, p->value_dim, lanes_bytes(&shape, p), device->buffer_bytes);
    return gpu_check_memory(device, request);
}

void gpu_plan_cost(const gpu_device *device, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    gpu_shape_cost(gpu_choose_shape, device, request, seconds);
}

static void add_launch(plan_maker *m, gpu_launches *launches, kernel_index index, int64_t groups)
{
    gpu_launch *launch = &launches->launch[launches->count++];
    *launch = (gpu_launch){.kernel = kernels[index].kernel,
                           .groups = (size_t)nf_max64(groups, 1),
                           .items = (size_t)m->shape.group_items,
                           .outputs = kernels[index].outputs,
                           .args = {{.kind = GPU_ARG_TABLES}, {.kind = GPU_ARG_SCRATCH}},
                           .args_count = 2};
    for (int i = 0; i < kernels[index].count; i++) {
        launch->args[launch->args_count++] = (gpu_arg){GPU_ARG_TENSOR, kernels[index].roles[i]};
        launch->args[launch->args_count++] = (gpu_arg){GPU_ARG_OFFSET, kernels[index].roles[i]};
    }
}

/* Groups of a launch that takes so many items. */
static int64_t launch_groups(const plan_maker *m, int64_t items)
{
    return nf_min64(items, m->groups);
}

static void add_launches(plan_maker *m)
{
    const nf_problem *p = m->request->problem;
    const int64_t queries = p->batch * p->heads, keys = p->batch * p->kv_heads;
    const int64_t out_dims = m->shape.by_lanes ? INT64_MAX : m->shape.out_dims; /* of a group */
    const int64_t head_parts = ceil_div(p->head_dim, out_dims), value_parts = ceil_div(p->value_dim, out_dims);
    const int64_t both_parts = nf_max64(head_parts, value_parts);
    if (p->direction & NF_FWD)
        add_launch(m, &m->plan->forward, FORWARD, launch_groups(m, queries * m->by_query.items * value_parts));
    if (!(p->direction & NF_BWD))
        return;
    const int64_t deltas = queries * m->packer.header[GPU_QUERIES];
    add_launch(m, &m->plan->backward, DELTA, launch_groups(m, ceil_div(deltas, DELTA_RUN * m->shape.group_items)));
    add_launch(m, &m->plan->backward, DQ, launch_groups(m, queries * m->by_query.items * head_parts));
    add_launch(m, &m->plan->backward, DKV, launch_groups(m, keys * m->by_key.items * both_parts));
    if (!p->extra)
        return;
    const int64_t elements = keys * p->extra * (p->head_dim + p->value_dim);
    const int64_t runs = ceil_div(p->extra, m->shape.rows) * m->packer.header[GPU_SPLITS];
    add_launch(m, &m->plan->backward, EXTRA, launch_groups(m, keys * runs * both_parts));
    add_launch(m, &m->plan->backward, EXTRA_SUM, launch_groups(m, ceil_div(elements, m->shape.group_items)));
}

/* Parts of the queries for the gradients of extra tokens, so that there is work for all. Lanes do not look at the
 * number of units, lest results depend on how many threads a CPU may use. */
static int64_t count_splits(const plan_maker *m, int64_t part_bytes)
{
    const nf_problem *p = m->request->problem;
    const int64_t units = m->shape.by_lanes ? EXTRA_SPLITS : GROUPS_PER_UNIT * m->device->units;
    const int64_t groups = p->batch * p->kv_heads * ceil_div(p->extra, m->shape.rows);
    const int64_t tiles = ceil_div(m->packer.header[GPU_QUERIES], m->shape.columns);
    return nf_max64(nf_min64(nf_min64(units / groups, tiles), PARTIAL_BYTES / part_bytes), 1);
}

/* Scratch memory: deltas, partial gradients of extra tokens, then the groups' own. */
static void lay_scratch(plan_maker *m)
{
    const nf_problem *p = m->request->problem;
    const bool backward = (p->direction & NF_BWD) != 0;
    int64_t *header = m->packer.header;
    const int64_t deltas = backward ? p->batch * p->heads * header[GPU_QUERIES] : 0;
    int64_t used = round_up(deltas * m->shape.query_size, SCRATCH_ALIGNMENT);
    header[GPU_SCRATCH_PARTIAL] = used;
    header[GPU_SPLITS] = 1;
    if (backward && p->extra) {
        const int64_t part = p->batch * p->kv_heads * p->extra * (p->head_dim + p->value_dim) * m->shape.real_size;
        header[GPU_SPLITS] = count_splits(m, part);
        used += round_up(part * header[GPU_SPLITS], SCRATCH_ALIGNMENT);
    }
    if (m->shape.by_lanes) {
        const int64_t room = nf_max64((m->device->buffer_bytes - used) / m->group_bytes, 1);
        m->groups = nf_min64(nf_max64(m->device->units, 1) * GROUPS_PER_UNIT, room);
    }
    header[GPU_SCRATCH_GROUPS] = used;
    header[GPU_SCRATCH_GROUP_BYTES] = m->group_bytes;
    m->plan->scratch_bytes = (size_t)(used + m->groups * m->group_bytes);
}

static nf_status cut_work(plan_maker *m)
{
    const nf_request *request = m->request;
    const nf_status status = nf_work_create(&m->by_query, request->context, request->grid, &m->shape.by_query);
    if (status != NF_OK || !(request->problem->direction & NF_BWD))
        return status;
    return nf_work_create(&m->by_key, request->context, request->grid, &m->shape.by_key);
}

static nf_status make_plan(plan_maker *m, const nf_tensor layout[NF_ROLES])
{
    const nf_problem *p = m->request->problem;
    const bool backward = (p->direction & NF_BWD) != 0;
    double extra_pairs = (double)p->extra;
    for (int32_t a = 0; a < p->rank; a++)
        extra_pairs *= (double)nf_axis_query_range(&p->axis[a]).count;
    nf_status status = cut_work(m);
    if (status == NF_OK)
        status = gpu_pack_begin(&m->packer, m->request, layout, m->shape.rank,
                                gpu_pack_walk_ints(&m->by_query, m->shape.rank) +
                                    (backward ? gpu_pack_walk_ints(&m->by_key, m->shape.rank) : 0));
    if (status != NF_OK)
        return status;
    gpu_pack_walk(&m->packer, &m->by_query, GPU_BY_QUERY);
    if (backward)
        gpu_pack_walk(&m->packer, &m->by_key, GPU_BY_KEY);
    m->plan->tables = m->packer.header;
    m->plan->table_bytes = (size_t)m->packer.used * sizeof(int32_t);
    m->group_bytes = m->shape.by_lanes ? lanes_bytes(&m->shape, p) : 0;
    lay_scratch(m);
    add_launches(m);
    m->plan->shape = m->shape.by_lanes ? "lanes" : "tile";
    m->plan->source = m->shape.by_lanes ? gpu_lanes_source : gpu_tile_source;
    m->plan->counts = m->by_query.counts;
    m->plan->counts.useful_pairs += extra_pairs;
    m->plan->counts.computed_pairs += extra_pairs;
    for (int32_t a = 0; a < p->rank; a++) {
        m->plan->query_tile[a] = m->shape.by_query.tile[a];
        m->plan->key_tile[a] = m->shape.by_query.columns[a];
    }
    nf_text options;
    status = nf_text_init(&options, m->plan->options, sizeof m->plan->options);
    if (status != NF_OK)
        return status;
    m->shape.write_options(&m->shape, p, &options);
    return nf_text_finish(&options, NULL);
}

nf_status gpu_plan_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                          const nf_tensor layout[NF_ROLES])
{
    gpu_shape shape;
    const nf_status status = gpu_choose_shape(&shape, device, request);
    return status == NF_OK ? gpu_plan_create_shaped(plan, device, request, layout, &shape) : status;
}

nf_status gpu_plan_create_shaped(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                                 const nf_tensor layout[NF_ROLES], const gpu_shape *shape)
{
    plan_maker m = {.device = device, .request = request, .shape = *shape, .groups = TILE_GROUPS};
    m.plan = nf_alloc(request->context, sizeof *m.plan);
    if (!m.plan)
        return NF_ERR_MEMORY;
    *m.plan = (gpu_plan){0};
    const nf_status status = make_plan(&m, layout);
    nf_work_destroy(&m.by_query, request->context);
    nf_work_destroy(&m.by_key, request->context);
    if (status == NF_OK)
        *plan = m.plan;
    else
        gpu_plan_destroy(m.plan, request->context);
    return status;
}

void gpu_plan_destroy(gpu_plan *plan, const nf_context *context)
{
    if (!plan)
        return;
    nf_release(context, plan->tables);
    nf_release(context, plan);
}

void gpu_plan_layout(nf_tensor layout[NF_ROLES], const nf_request *request)
{
    for (int role = 0; role < NF_ROLES; role++) {
        layout[role] = request->layout[role];
        if (layout[role].rank && layout[role].memory == NF_HOST)
            nf_role_describe(request->problem, (nf_role)role, &layout[role]);
    }
}

static bool touches(const gpu_arg *arg)
{
    return arg->kind == GPU_ARG_TENSOR || arg->kind == GPU_ARG_BOXES || arg->kind == GPU_ARG_ALL_BOXES;
}

uint32_t gpu_launches_touch(const gpu_launches *launches)
{
    uint32_t roles = 0;
    for (int i = 0; i < launches->count; i++)
        for (int a = 0; a < launches->launch[i].args_count; a++)
            if (touches(&launches->launch[i].args[a]))
                roles |= UINT32_C(1) << launches->launch[i].args[a].role;
    return roles;
}

void gpu_plan_info(const gpu_plan *plan, const nf_problem *problem, nf_plan_info *figures)
{
    const nf_work_counts *counts = &plan->counts;
    const double heads = (double)problem->batch * (double)problem->heads;
    figures->computed_pairs = heads * counts->computed_pairs;
    figures->masked_pairs = heads * counts->masked_pairs;
    figures->tiles_full = heads * counts->tiles_full;
    figures->tiles_partial = heads * counts->tiles_partial;
    figures->tiles_absent = heads * counts->tiles_absent;
    for (int32_t a = 0; a < problem->rank; a++) {
        figures->query_tile[a] = plan->query_tile[a];
        figures->key_tile[a] = plan->key_tile[a];
    }
}

const gpu_launches *gpu_plan_launches(const gpu_plan *plan, nf_operation operation)
{
    const gpu_launches *const launches[NF_OPERATIONS] = {
        [NF_FORWARD] = &plan->forward, [NF_BACKWARD] = &plan->backward,       [NF_QK] = &plan->qk,
        [NF_AV] = &plan->av,           [NF_QK_BACKWARD] = &plan->qk_backward, [NF_AV_BACKWARD] = &plan->av_backward,
    };
    return launches[operation];
}

uint32_t gpu_plan_touches(const gpu_plan *plan)
{
    uint32_t roles = 0;
    for (int operation = 0; operation < NF_OPERATIONS; operation++)
        roles |= gpu_launches_touch(gpu_plan_launches(plan, (nf_operation)operation));
    return roles;
}

void gpu_plan_describe(const gpu_plan *plan, nf_text *text)
{
    nf_text_printf(text, "  shape %s: %s\n", plan->shape, plan->options);
    if (plan->products[0])
        nf_text_printf(text, "  products: %s\n", plan->products);
}
