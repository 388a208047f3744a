/* Tables and passes of the shapes that go through slots one by one. */
#include "backends/gpu/gpu_slots.h"

#include <inttypes.h>
#include <string.h>

#include "backends/gpu/gpu_ahead.h"
#include "core/mem.h"
#include "core/problem.h"
#include "core/status.h"

enum { GROUP_ITEMS = 64, MOST_GROUPS = 1 << 20, MOST_SLOTS = INT32_MAX };
_Static_assert((int)GROUP_ITEMS == (int)GPU_AHEAD_PLAIN_ITEMS, "programs compiled ahead run in the groups of all");

/* ---- Sizes ------------------------------------------------------------------------------------------------------- */

double gpu_count_slots(const nf_problem *problem)
{
    double slots = 1;
    for (int32_t a = 0; a < problem->rank; a++)
        slots *= (double)nf_axis_window(&problem->axis[a]);
    return slots + (double)problem->extra;
}

static double count_queries(const nf_problem *problem)
{
    double queries = 1;
    for (int32_t a = 0; a < problem->rank; a++)
        queries *= (double)nf_axis_query_range(&problem->axis[a]).count;
    return queries;
}

double gpu_count_rows(const nf_problem *problem)
{
    return (double)problem->batch * (double)problem->heads * count_queries(problem);
}

double gpu_count_partial(const nf_problem *problem)
{
    const double dims = (double)problem->head_dim + (double)problem->value_dim;
    return GPU_EXTRA_SPLITS * (double)problem->batch * (double)problem->kv_heads * (double)problem->extra * dims;
}

int64_t gpu_real_size(const nf_problem *problem)
{
    return problem->dtype == NF_F64 ? (int64_t)sizeof(double) : (int64_t)sizeof(float);
}

nf_status gpu_slots_supports(const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    if (p->dtype == NF_F64 && !device->fp64)
        return nf_fail(NF_ERR_UNSUPPORTED, "dtype f64: the device has no double precision");
    if (device->ahead && device->group_items < GPU_AHEAD_PLAIN_ITEMS)
        return nf_fail(NF_ERR_UNSUPPORTED, "its groups take %d work-items, the device has %" PRId64,
                       (int)GPU_AHEAD_PLAIN_ITEMS, device->group_items);
    if (gpu_count_slots(p) > MOST_SLOTS)
        return nf_fail(NF_ERR_UNSUPPORTED, "a query has %.3g slots, kernels number at most %d", gpu_count_slots(p),
                       (int)MOST_SLOTS);
    return gpu_check_memory(device, request);
}

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

/* Axes of the program. Those that a problem lacks come first, so that lines still lie along its last axis. */
static int32_t program_rank(const gpu_device *device, const nf_problem *p)
{
    return device->ahead ? GPU_AHEAD_PLAIN_RANK : p->rank;
}

/* Moves what the header has per axis behind axes of one token. */
static void lead(int64_t *per_axis, int32_t rank, int32_t axes, int64_t value)
{
    memmove(per_axis + axes, per_axis, (size_t)rank * sizeof *per_axis);
    for (int32_t a = 0; a < axes; a++)
        per_axis[a] = value;
}

static void lead_all(int64_t *header, int32_t rank, int32_t axes)
{
    lead(header + GPU_QUERY_EXTENT, rank, axes, 1);
    lead(header + GPU_STEP, rank, axes, 1);
    for (int tensor = 0; tensor < GPU_TENSORS; tensor++) {
        const bool extra = tensor == GPU_EXTRA_K || tensor == GPU_EXTRA_V || tensor == GPU_DEXTRA_K ||
                           tensor == GPU_DEXTRA_V; /* these have one axis, the first */
        if (!extra)
            lead(header + GPU_TENSOR + tensor * GPU_STRIDES + GPU_STRIDE_AXIS, rank, axes, 0);
    }
}

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

/* Opens an axis of the program. Returns where its entries begin. */
static int32_t *open_axis(gpu_packer *packer, int32_t at, int64_t queries, int64_t keys, int64_t window)
{
    packer->header[GPU_KEY_EXTENT + at] = keys;
    packer->header[GPU_WINDOW + at] = window;
    packer->header[GPU_SIGHT + at] = packer->used;
    packer->header[GPU_INVERSE + at] = packer->used + queries * GPU_SIGHT_WORDS;
    int32_t *entries = packer->ints + packer->used;
    packer->used += queries * GPU_SIGHT_WORDS + keys * GPU_INVERSE_WORDS;
    return entries;
}

static void pack_unit_axis(gpu_packer *packer, int32_t at)
{
    int32_t *sight = open_axis(packer, at, 1, 1, 1);
    sight[GPU_SIGHT_END] = 1;
    sight[GPU_SIGHT_WORDS + GPU_INVERSE_COUNT] = 1;
}

static void pack_axis(gpu_packer *packer, const nf_axis *axis, const nf_axis_table *table, int32_t at)
{
    const int64_t queries = nf_axis_query_range(axis).count, keys = nf_axis_key_range(axis).count;
    int32_t *sight = open_axis(packer, at, queries, keys, nf_axis_window(axis));
    int32_t *inverse = sight + queries * GPU_SIGHT_WORDS;
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        for (int32_t u = c.q_begin; u < c.q_end; u++)
            set_sight(sight + nf_class_row_index(&c, NF_ROWS_QUERIES, u) * GPU_SIGHT_WORDS, &c, u);
        for (int32_t u = c.k_begin; u < c.k_end; u++)
            set_inverse(inverse + nf_class_row_index(&c, NF_ROWS_KEYS, u) * GPU_INVERSE_WORDS, &c, u);
    }
}

/* [batch, heads, slots, queries] */
static void set_own_strides(int64_t *header, const nf_problem *p, int32_t rank)
{
    int64_t *strides = header + GPU_TENSOR + GPU_OWN * GPU_STRIDES, stride = 1;
    for (int32_t a = rank - 1; a >= 0; a--) {
        strides[GPU_STRIDE_AXIS + a] = stride;
        stride *= header[GPU_QUERY_EXTENT + a];
    }
    strides[GPU_STRIDE_DIM] = stride;
    strides[GPU_STRIDE_HEAD] = stride * header[GPU_SLOTS];
    strides[GPU_STRIDE_BATCH] = stride * header[GPU_SLOTS] * p->heads;
}

nf_status gpu_slots_pack(gpu_packer *packer, const gpu_device *device, const nf_request *request,
                         const nf_tensor layout[NF_ROLES])
{
    const nf_problem *p = request->problem;
    const int32_t rank = program_rank(device, p), before = rank - p->rank;
    int64_t room = before * (GPU_SIGHT_WORDS + GPU_INVERSE_WORDS);
    for (int32_t a = 0; a < p->rank; a++)
        room += axis_ints(&p->axis[a]);
    const nf_status status = gpu_pack_begin(packer, request, layout, p->rank, room);
    if (status != NF_OK)
        return status;
    int64_t *header = packer->header;
    lead_all(header, p->rank, before);
    header[GPU_SLOTS] = header[GPU_KEYS] = 1;
    for (int32_t a = 0; a < rank; a++) {
        if (a < before)
            pack_unit_axis(packer, a);
        else
            pack_axis(packer, &p->axis[a - before], &request->grid->axis[a - before], a);
        header[GPU_SLOTS] *= header[GPU_WINDOW + a];
        header[GPU_KEYS] *= header[GPU_KEY_EXTENT + a];
    }
    header[GPU_SLOTS] += p->extra;
    header[GPU_SPLITS] = GPU_EXTRA_SPLITS;
    set_own_strides(header, p, rank);
    return NF_OK;
}

/* Numbers of an axis that has one token are those of the program's last, which the problem lacks. */
static void lead_walk(int64_t *walk, int32_t rank, int32_t axes)
{
    lead(walk + GPU_WALK_COUNT, rank, axes, 1);
    lead(walk + GPU_WALK_COLUMNS, rank, axes, 1);
    lead(walk + GPU_WALK_SEGMENTS, rank, axes, walk[GPU_WALK_SEGMENTS + GPU_AHEAD_PLAIN_RANK - 1]);
}

nf_status gpu_slots_add_walk(gpu_plan *plan, const nf_request *request, const nf_work *work, int at)
{
    const int32_t rank = request->problem->rank, axes = GPU_AHEAD_PLAIN_RANK - rank;
    const int64_t used = (int64_t)(plan->table_bytes / sizeof(int32_t));
    const int64_t room = used + gpu_pack_walk_ints(work, GPU_AHEAD_PLAIN_RANK);
    if (room > INT32_MAX)
        return nf_fail(NF_ERR_UNSUPPORTED, "the axis tables have %" PRId64 " entries, kernels can number 2^31 - 1",
                       room);
    int64_t *header = nf_alloc_array(request->context, (size_t)room + 1, sizeof(int32_t));
    if (!header)
        return NF_ERR_MEMORY;
    memcpy(header, plan->tables, plan->table_bytes);
    gpu_packer packer = {.header = header,
                         .ints = (int32_t *)(void *)header,
                         .used = used,
                         .capacity = room,
                         .rank = GPU_AHEAD_PLAIN_RANK};
    gpu_pack_walk(&packer, work, at);
    if (axes)
        lead_walk(header + at, rank, axes);
    nf_release(request->context, plan->tables);
    plan->tables = header;
    plan->table_bytes = (size_t)packer.used * sizeof(int32_t);
    return NF_OK;
}

/* ---- Passes ------------------------------------------------------------------------------------------------------ */

int64_t gpu_pass_items(const gpu_device *device)
{
    return nf_max64(nf_min64(GROUP_ITEMS, device->group_items), 1);
}

void gpu_add_pass(gpu_launches *launches, const gpu_pass *pass, int64_t elements, int64_t items, uint32_t outputs,
                  uint32_t without)
{
    const int64_t groups = (elements + items - 1) / items;
    gpu_launch *launch = &launches->launch[launches->count++];
    *launch = (gpu_launch){.kernel = pass->kernel,
                           .groups = (size_t)nf_min64(nf_max64(groups, 1), MOST_GROUPS),
                           .items = (size_t)items,
                           .outputs = outputs,
                           .args = {{.kind = GPU_ARG_TABLES}, {.kind = GPU_ARG_SCRATCH}},
                           .args_count = 2};
    for (int i = 0; i < pass->count; i++) {
        const nf_role role = pass->roles[i];
        const bool none = (without >> role & 1) != 0;
        launch->args[launch->args_count++] = (gpu_arg){none ? GPU_ARG_TABLES : GPU_ARG_TENSOR, role};
        launch->args[launch->args_count++] = (gpu_arg){none ? GPU_ARG_NONE : GPU_ARG_OFFSET, role};
    }
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

nf_status gpu_slots_finish(gpu_plan *plan, const gpu_device *device, const nf_request *request,
                           const gpu_packer *packer)
{
    const nf_problem *p = request->problem;
    nf_text options;
    plan->tables = packer->header;
    plan->table_bytes = (size_t)packer->used * sizeof(int32_t);
    count_pairs(plan, request);
    const nf_status status = nf_text_init(&options, plan->options, sizeof plan->options);
    if (status != NF_OK)
        return status;
    nf_text_printf(&options, "-DRANK=%d -DIN_TYPE=%d -DOUT_TYPE=%d -DITEMS=%d", (int)program_rank(device, p),
                   (int)p->dtype, (int)p->out_dtype, (int)gpu_pass_items(device));
    return nf_text_finish(&options, NULL);
}

nf_status gpu_slots_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                           const nf_tensor layout[NF_ROLES], gpu_plan_maker *make)
{
    gpu_plan *made = nf_alloc(request->context, sizeof *made);
    if (!made)
        return NF_ERR_MEMORY;
    *made = (gpu_plan){0};
    const nf_status status = make(made, device, request, layout);
    if (status == NF_OK)
        *plan = made;
    else
        gpu_plan_destroy(made, request->context);
    return status;
}
