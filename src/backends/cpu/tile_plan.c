/* The tile algorithm as the core sees it: what it supports, what a plan holds, what it tells. */
#include <string.h>

#include "backends/cpu/backward_shape.h"
#include "backends/cpu/cpu.h"
#include "backends/cpu/tile_shape.h"
#include "core/mem.h"
#include "core/tensor.h"

enum { CACHE_BYTES = 768 << 10, EXTRA_SPLITS = 16, COUNTED_ITEMS = 4096, PICTURE_WIDTH = 96, PICTURE_HEIGHT = 32 };

static const double PAIR_RATE = 0.75; /* seconds with products of bf16 pairs over those with reals, all else included */
static const size_t DQ_SUM_BYTES = 16 << 20; /* of dq summed apart from its tensor, at most */
static const int64_t KEPT_BYTES = 8 << 20;   /* of a head's packed keys and values, at most */

static nf_status tile_supports(const void *state, const nf_request *request)
{
    (void)state;
    for (int role = 0; role < NF_ROLES; role++)
        if (request->layout[role].rank && request->layout[role].memory != NF_HOST)
            return nf_fail(NF_ERR_UNSUPPORTED, "%s is in device memory, the cpu backend reads host memory",
                           nf_role_name((nf_role)role));
    return NF_OK;
}

/* Bytes of dq summed as contiguous reals; 0 if the tensor itself is made of reals. */
static size_t dq_sum_bytes(const nf_request *request, const cpu_kernels *kernels)
{
    const nf_tensor *dq = &request->layout[NF_DQ];
    int64_t elements = 1;
    if ((int64_t)nf_dtype_size(dq->dtype) == kernels->real_size)
        return 0;
    for (int32_t i = 0; i < dq->rank; i++)
        elements *= dq->extents[i];
    return (size_t)(elements * kernels->real_size);
}

static size_t round_bytes(int64_t bytes)
{
    return (size_t)(bytes + NF_ALIGNMENT - 1) / NF_ALIGNMENT * NF_ALIGNMENT;
}

/* Five products if dq can be summed in place or nearly so. Extra tokens add to dq outside the walk: seven. */
static bool takes_five(const nf_request *request, const cpu_kernels *kernels)
{
    return !request->problem->extra && dq_sum_bytes(request, kernels) <= DQ_SUM_BYTES;
}

static void tile_cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    const cpu_kernels *k = cpu_kernels_for(state, request->problem->dtype);
    const nf_direction direction = request->problem->direction;
    const bool five = takes_five(request, k);
    nf_work_spec spec;
    int64_t fold;
    double by_query = 0, by_key = 0;
    if (direction & NF_FWD || !five)
        cpu_choose_shape(request, k, NF_ROWS_QUERIES, true, &spec, &fold, &by_query);
    if (direction & NF_BWD)
        cpu_choose_key_shape(request, k, &spec, &by_key);
    const double rate = CPU_OPERATIONS_PER_SECOND * (double)request->threads / (k->pairs ? PAIR_RATE : 1);
    seconds[NF_FWD - 1] = by_query / rate;
    seconds[NF_BWD - 1] = ((five ? 0 : 1.5 * by_query) + by_key) / rate;
}

/* Column tiles of a batch and head if all its items meet the same ones, so that packing them once serves all, and they take
 * no more than KEPT_BYTES; else 0. */
static int64_t count_kept_tiles(const nf_work *work, int64_t tile_bytes)
{
    for (int32_t a = 0; a < work->grid->rank; a++) {
        if (work->grid->axis[a].dilation > 1 || work->segment_count[a] == 0)
            return 0;
        const nf_interval hull = work->segments[a][0].hull;
        for (int64_t i = 1; i < work->segment_count[a]; i++)
            if (work->segments[a][i].hull.begin != hull.begin || work->segments[a][i].hull.end != hull.end)
                return 0;
    }
    nf_work_item item;
    nf_work_get_item(work, 0, &item);
    const int64_t tiles = nf_work_column_tile_count(work, &item);
    return work->items > 1 && tiles * tile_bytes <= KEPT_BYTES ? tiles : 0;
}

static nf_status prepare_backward(cpu_tile_plan *plan)
{
    const nf_request *request = plan->request;
    const nf_problem *problem = request->problem;
    nf_status status = cpu_create_key_walk(&plan->by_key, request, plan->kernels);
    if (status != NF_OK)
        return status;
    int64_t queries = problem->batch * problem->heads;
    for (int32_t a = 0; a < problem->rank; a++)
        queries *= nf_axis_query_range(&problem->axis[a]).count;
    plan->delta_bytes = round_bytes(queries * plan->kernels->real_size);
    const int64_t group = nf_problem_group(problem);
    plan->kept_boxes = group * count_kept_tiles(&plan->by_key.work, group * (int64_t)cpu_backward_box_bytes(plan));
    if (!takes_five(request, plan->kernels))
        return NF_OK;
    status = cpu_order_create(&plan->turns, request->context, &plan->by_key.work);
    if (status != NF_OK)
        return status;
    plan->five = true;
    plan->dq_bytes = dq_sum_bytes(request, plan->kernels);
    plan->turn_bytes = round_bytes(plan->turns.counters * problem->batch * problem->heads * (int64_t)sizeof(int32_t));
    return NF_OK;
}

static int64_t key_tile_bytes(const cpu_tile_plan *plan)
{
    return plan->by_query.columns * (plan->head_dim + plan->value_dim) * plan->kernels->real_size;
}

static bool exceeds_cache(const nf_request *request)
{
    static const nf_role roles[] = {NF_Q, NF_K, NF_V, NF_OUT};
    double bytes = 0;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        bytes += nf_tensor_bytes(&request->layout[roles[i]]);
    return bytes > CACHE_BYTES;
}

static void size_workspace(cpu_tile_plan *plan, const nf_problem *problem)
{
    const int64_t streams = problem->batch * problem->kv_heads;
    plan->thread_bytes = problem->direction & NF_FWD ? cpu_forward_bytes(plan) : 0;
    plan->share_bytes = round_bytes((int64_t)cpu_share_bytes(streams));
    if (!(problem->direction & NF_BWD))
        return;
    const size_t backward = cpu_backward_bytes(plan);
    plan->thread_bytes = backward > plan->thread_bytes ? backward : plan->thread_bytes;
    plan->extra_tiles = (problem->extra + CPU_TILE_ROWS - 1) / CPU_TILE_ROWS;
    plan->extra_splits = nf_max64(EXTRA_SPLITS / streams, 1);
    plan->extra_bytes = (size_t)(streams * plan->extra_tiles * plan->extra_splits * CPU_TILE_ROWS
                                 * (plan->head_dim + plan->value_dim) * plan->kernels->real_size);
}

static void tile_release(const nf_request *request, void *prepared)
{
    cpu_tile_plan *plan = prepared;
    if (!plan)
        return;
    cpu_order_destroy(&plan->turns, request->context);
    nf_work_destroy(&plan->by_query.work, request->context);
    nf_work_destroy(&plan->by_key.work, request->context);
    nf_release(request->context, plan);
}

static nf_status tile_prepare(const void *state, const nf_request *request, void **prepared)
{
    const nf_problem *problem = request->problem;
    const cpu_kernels *kernels = cpu_kernels_for(state, problem->dtype);
    cpu_tile_plan *plan = nf_alloc_array(request->context, 1, sizeof *plan);
    if (!plan)
        return NF_ERR_MEMORY;
    plan->request = request;
    plan->kernels = kernels;
    plan->head_dim = (problem->head_dim + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
    plan->value_dim = (problem->value_dim + kernels->lanes - 1) / kernels->lanes * kernels->lanes;
    plan->scale = nf_problem_scale(problem);
    plan->look_ahead = exceeds_cache(request);
    nf_status status = cpu_create_walk(&plan->by_query, request, kernels, NF_ROWS_QUERIES, true, false);
    int64_t items = plan->by_query.items;
    if (status == NF_OK && problem->direction & NF_FWD)
        plan->kept_tiles = count_kept_tiles(&plan->by_query.work, key_tile_bytes(plan));
    if (status == NF_OK && problem->direction & NF_BWD) {
        status = prepare_backward(plan);
        items = nf_max64(items, plan->by_key.items);
    }
    if (status != NF_OK) {
        tile_release(request, plan);
        return status;
    }
    plan->threads = nf_max64(nf_min64(request->threads, items), 1);
    size_workspace(plan, problem);
    *prepared = plan;
    return NF_OK;
}

static size_t tile_workspace(const void *prepared)
{
    const cpu_tile_plan *plan = prepared;
    return plan->thread_bytes * (size_t)plan->threads + plan->share_bytes + plan->extra_bytes + plan->delta_bytes
           + plan->turn_bytes + plan->dq_bytes;
}

static void tile_info(const void *prepared, nf_plan_info *info)
{
    const cpu_tile_plan *plan = prepared;
    const nf_problem *problem = plan->request->problem;
    const nf_work_counts *counts = &plan->by_query.work.counts;
    const double heads = (double)(problem->batch * problem->heads);
    double queries = 1;
    for (int32_t a = 0; a < problem->rank; a++) {
        queries *= (double)nf_axis_query_range(&problem->axis[a]).count;
        info->query_tile[a] = plan->by_query.work.spec.tile[a];
        info->key_tile[a] = plan->by_query.work.spec.columns[a];
    }
    const double extra_pairs = queries * (double)problem->extra;
    info->kernel = plan->kernels->isa;
    info->useful_pairs = heads * (counts->useful_pairs + extra_pairs);
    const double reached = cpu_reached_pairs(&plan->by_query, COUNTED_ITEMS);
    info->computed_pairs = heads * (reached + extra_pairs);
    info->masked_pairs = heads * (reached - (counts->computed_pairs - counts->masked_pairs));
    info->tiles_full = heads * counts->tiles_full;
    info->tiles_partial = heads * counts->tiles_partial;
    info->tiles_absent = heads * counts->tiles_absent;
    info->threads = plan->threads;
}

static void describe_walk(const cpu_walk *walk, const char *rows, const char *columns, nf_text *text)
{
    const nf_work_spec *spec = &walk->work.spec;
    const int32_t rank = walk->work.grid->rank;
    const int32_t *const boxes[] = {spec->tile, spec->group, spec->columns};
    const char *const names[] = {"tile", "group", "tile"};
    for (int i = 0; i < 3; i++) {
        nf_text_printf(text, "%s%s %s ", i == 0 ? "  " : ", ", i == 2 ? columns : rows, names[i]);
        for (int32_t a = 0; a < rank; a++)
            nf_text_printf(text, "%s%d", a ? "x" : "", (int)boxes[i][a]);
    }
    if (walk->fold > 1)
        nf_text_printf(text, ", %lld query heads folded into the rows", (long long)walk->fold);
    nf_text_printf(text, ", %lld items\n", (long long)walk->items);
}

/* How many of a tile's rows see a column. */
static int64_t count_seeing(const nf_work_item *item, const nf_box *tile, const int32_t *column, int32_t rank)
{
    int64_t seeing = 1;
    for (int32_t a = 0; a < rank; a++) {
        int64_t along = 0;
        for (int32_t r = tile->axis[a].begin; r < tile->axis[a].end; r++) {
            const nf_interval keys = nf_class_sees(&item->axis_class[a], NF_ROWS_QUERIES, r);
            along += keys.begin <= column[a] && column[a] < keys.end;
        }
        seeing *= along;
    }
    return seeing;
}

/* The last two axes of the keys of the middle item's first tile, the other axes in the middle of the hull. */
static void draw_tile(const cpu_walk *walk, nf_text *text)
{
    const int32_t rank = walk->work.grid->rank, last = rank - 1;
    nf_work_item item;
    nf_box tile;
    nf_work_get_item(&walk->work, walk->work.items / 2, &item);
    nf_work_tile(&walk->work, &item, 0, &tile);
    const int64_t rows = nf_box_volume(&tile, rank);
    const nf_interval down = rank > 1 ? item.segment[rank - 2].hull : (nf_interval){0, 1};
    const nf_interval across = item.segment[last].hull;
    int32_t column[NF_MAX_RANK];
    for (int32_t a = 0; a < rank; a++)
        column[a] = item.segment[a].hull.begin + nf_interval_size(item.segment[a].hull) / 2;
    nf_text_printf(text, "  keys of one query tile: # seen by all its queries, + by some, . by none\n");
    for (int32_t y = down.begin; y < nf_min32(down.end, down.begin + PICTURE_HEIGHT); y++) {
        nf_text_printf(text, "    ");
        for (int32_t x = across.begin; x < nf_min32(across.end, across.begin + PICTURE_WIDTH); x++) {
            if (rank > 1)
                column[rank - 2] = y;
            column[last] = x;
            const int64_t seeing = count_seeing(&item, &tile, column, rank);
            nf_text_printf(text, "%c", seeing == rows ? '#' : seeing ? '+' : '.');
        }
        nf_text_printf(text, "%s\n", nf_interval_size(across) > PICTURE_WIDTH ? " ..." : "");
    }
    if (nf_interval_size(down) > PICTURE_HEIGHT)
        nf_text_printf(text, "    ...\n");
}

static void tile_describe(const void *prepared, nf_text *text)
{
    const cpu_tile_plan *plan = prepared;
    nf_text_printf(text, "  kernels %s, %s inside, %lld threads, %zu bytes of workspace each\n", plan->kernels->isa,
                   plan->kernels->real_size == (int64_t)sizeof(float) ? "f32" : "f64", (long long)plan->threads,
                   plan->thread_bytes);
    describe_walk(&plan->by_query, "query", "key", text);
    if (plan->by_key.items) {
        describe_walk(&plan->by_key, "key", "query", text);
        nf_text_printf(text, plan->five ? "  backward in five products: dq summed in turns by the walk by key\n"
                                        : "  backward in seven products: dq by query, dk and dv by key\n");
    }
    draw_tile(&plan->by_query, text);
}

const nf_algorithm cpu_algorithm_tile = {
    .name = "tile",
    .supports = tile_supports,
    .cost = tile_cost,
    .prepare = tile_prepare,
    .release = tile_release,
    .workspace = tile_workspace,
    .info = tile_info,
    .describe = tile_describe,
    .forward = cpu_tile_forward,
    .backward = cpu_tile_backward,
    .enqueue = nf_stub_enqueue,
    .pair = &nf_stub_pair,
};
