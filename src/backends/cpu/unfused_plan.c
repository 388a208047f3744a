/* The unfused algorithm as the core sees it. */
#include "backends/cpu/cpu.h"
#include "backends/cpu/tile_shape.h"
#include "backends/cpu/unfused.h"
#include "core/mem.h"

enum { EXTRA_SPLITS = 16 };

static const double MOST_SCORE_BYTES = 8.0 * (1 << 30);
/* Per slot, in vector operations, measured: a move of scores to or from a tile of queries, or from a tile of keys,
 * whose runs are short; and softmax or its gradient through memory. */
static const double MOVE_OPERATIONS = 1, GATHER_OPERATIONS = 16, ROW_OPERATIONS = 2.5;
static const double RATE = 1.4; /* seconds of an operation over those of one of the tile algorithm's */

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Of the scores that forward keeps, or backward twice. Counted in double: it may exceed any integer. */
static double count_score_bytes(const nf_request *request, const cpu_kernels *kernels)
{
    const nf_problem *problem = request->problem;
    double window = 1, queries = 1;
    for (int32_t a = 0; a < problem->rank; a++) {
        window *= (double)nf_axis_window(&problem->axis[a]);
        queries *= (double)nf_axis_query_range(&problem->axis[a]).count;
    }
    const double row = window + (double)problem->extra + (double)kernels->lanes;
    return (double)problem->batch * (double)problem->heads * queries * row * (double)kernels->real_size *
           (problem->direction & NF_BWD ? 2 : 1);
}

static nf_status unfused_supports(const void *state, const nf_request *request)
{
    for (int role = 0; role < NF_ROLES; role++)
        if (request->layout[role].rank && request->layout[role].memory != NF_HOST)
            return nf_fail(NF_ERR_UNSUPPORTED, "%s is in device memory, the cpu backend reads host memory",
                           nf_role_name((nf_role)role));
    const double bytes = count_score_bytes(request, cpu_kernels_for(state, request->problem->dtype));
    if (bytes > MOST_SCORE_BYTES)
        return nf_fail(NF_ERR_UNSUPPORTED, "its scores would take %.3g GiB, more than %g", bytes / (1 << 30),
                       MOST_SCORE_BYTES / (1 << 30));
    return NF_OK;
}

/* The tile algorithm's products, and what it saves: each product moves all scores, softmax passes over them. */
static void unfused_cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    const cpu_kernels *k = cpu_kernels_for(state, request->problem->dtype);
    nf_work_spec spec;
    int64_t fold;
    double by_query, by_key;
    const bool backward = (request->problem->direction & NF_BWD) != 0;
    const double rate = CPU_OPERATIONS_PER_SECOND * (double)request->threads / RATE;
    const double slots = count_score_bytes(request, k) / (double)k->real_size / (backward ? 2 : 1);
    cpu_choose_shape(request, k, NF_ROWS_QUERIES, false, &spec, &fold, &by_query);
    seconds[NF_FWD - 1] = (by_query + slots * (2 * MOVE_OPERATIONS + ROW_OPERATIONS)) / rate;
    if (!backward)
        return;
    cpu_choose_shape(request, k, NF_ROWS_KEYS, false, &spec, &fold, &by_key);
    const double passes = slots * (3 * MOVE_OPERATIONS + 2 * GATHER_OPERATIONS + 2 * ROW_OPERATIONS);
    seconds[NF_BWD - 1] = (1.5 * by_query + by_key + passes) / rate;
}

/* Buffers for the larger of the two walks. */
void cpu_unfused_carve(const cpu_unfused_plan *p, cpu_arena *arena, cpu_unfused_scratch *s)
{
    const cpu_walk *q = &p->by_query, *k = &p->by_key;
    const int64_t real = p->kernels->real_size, columns = nf_max64(nf_max64(q->columns, k->columns), CPU_TILE_ROWS);
    const int64_t tile_rows = nf_max64(nf_max64(q->tile_rows, k->tile_rows), CPU_TILE_ROWS);
    const int64_t rows = nf_max64(nf_max64(q->tiles * q->tile_rows, k->tiles * k->tile_rows), CPU_TILE_ROWS);
    const int64_t tile_reals = (tile_rows + CPU_SCORE_PAD) * (columns + CPU_SCORE_PAD);
    s->tiles = cpu_take(arena, nf_max64(q->tiles, k->tiles) * (int64_t)sizeof *s->tiles);
    s->rows = cpu_take(arena, rows * p->wide * real);
    s->packed = cpu_take(arena, (columns + p->kernels->panel) * p->wide * real);
    s->converted = cpu_take(arena, columns * p->wide * real);
    s->scores = cpu_take(arena, tile_reals * real);
    s->transposed = cpu_take(arena, tile_reals * real);
    s->max = cpu_take(arena, CPU_TILE_ROWS * real);
    s->sum = cpu_take(arena, CPU_TILE_ROWS * real);
    s->mask = cpu_take(arena, tile_rows * CPU_MASK_WORDS * (int64_t)sizeof *s->mask);
    s->columns = cpu_take(arena, columns * (int64_t)sizeof *s->columns);
    s->more = cpu_take(arena, columns * (int64_t)sizeof *s->more);
}

static void count_slots(cpu_unfused_plan *plan, const nf_problem *problem)
{
    plan->queries = plan->window = 1;
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        plan->slot_step[a] = plan->window;
        plan->window *= nf_axis_window(&problem->axis[a]);
        plan->queries *= nf_axis_query_range(&problem->axis[a]).count;
    }
    plan->slots = plan->window + problem->extra;
    plan->row = round_up(plan->slots, plan->kernels->lanes);
    plan->score_bytes = (size_t)round_up(
        problem->batch * problem->heads * plan->queries * plan->row * plan->kernels->real_size, NF_ALIGNMENT);
}

static void size_workspace(cpu_unfused_plan *plan, const nf_problem *problem)
{
    cpu_arena arena = {0};
    cpu_unfused_scratch scratch;
    cpu_unfused_carve(plan, &arena, &scratch);
    plan->thread_bytes = arena.used;
    if (!(problem->direction & NF_BWD))
        return;
    const int64_t streams = problem->batch * problem->kv_heads;
    plan->extra_tiles = (problem->extra + CPU_TILE_ROWS - 1) / CPU_TILE_ROWS;
    plan->extra_splits = nf_max64(EXTRA_SPLITS / streams, 1);
    plan->extra_bytes = (size_t)round_up(streams * plan->extra_tiles * plan->extra_splits * CPU_TILE_ROWS * plan->wide *
                                             plan->kernels->real_size,
                                         NF_ALIGNMENT);
}

static void unfused_release(const nf_request *request, void *prepared)
{
    cpu_unfused_plan *plan = prepared;
    if (!plan)
        return;
    nf_work_destroy(&plan->by_query.work, request->context);
    nf_work_destroy(&plan->by_key.work, request->context);
    nf_release(request->context, plan);
}

static nf_status unfused_prepare(const void *state, const nf_request *request, void **prepared)
{
    const nf_problem *problem = request->problem;
    cpu_unfused_plan *plan = nf_alloc_array(request->context, 1, sizeof *plan);
    if (!plan)
        return NF_ERR_MEMORY;
    plan->request = request;
    plan->kernels = cpu_kernels_for(state, problem->dtype);
    plan->wide = round_up(nf_max64(problem->head_dim, problem->value_dim), plan->kernels->lanes);
    plan->scale = nf_problem_scale(problem);
    count_slots(plan, problem);
    nf_status status = cpu_create_walk(&plan->by_query, request, plan->kernels, NF_ROWS_QUERIES, false, false);
    if (status == NF_OK && problem->direction & NF_BWD)
        status = cpu_create_walk(&plan->by_key, request, plan->kernels, NF_ROWS_KEYS, false, false);
    if (status != NF_OK) {
        unfused_release(request, plan);
        return status;
    }
    plan->threads = nf_max64(nf_min64(request->threads, nf_max64(plan->by_query.items, plan->by_key.items)), 1);
    size_workspace(plan, problem);
    *prepared = plan;
    return NF_OK;
}

static size_t unfused_workspace(const void *prepared)
{
    const cpu_unfused_plan *plan = prepared;
    const size_t scores = plan->request->problem->direction & NF_BWD ? 2 * plan->score_bytes : plan->score_bytes;
    return plan->thread_bytes * (size_t)plan->threads + plan->extra_bytes + scores;
}

static void unfused_info(const void *prepared, nf_plan_info *info)
{
    const cpu_unfused_plan *plan = prepared;
    const nf_problem *problem = plan->request->problem;
    const nf_work_counts *counts = &plan->by_query.work.counts;
    const double heads = (double)(problem->batch * problem->heads);
    const double extra_pairs = (double)plan->queries * (double)problem->extra;
    for (int32_t a = 0; a < problem->rank; a++) {
        info->query_tile[a] = plan->by_query.work.spec.tile[a];
        info->key_tile[a] = plan->by_query.work.spec.columns[a];
    }
    info->kernel = plan->kernels->isa;
    info->useful_pairs = heads * (counts->useful_pairs + extra_pairs);
    info->computed_pairs = heads * (counts->computed_pairs + extra_pairs);
    info->masked_pairs = heads * counts->masked_pairs;
    info->tiles_full = heads * counts->tiles_full;
    info->tiles_partial = heads * counts->tiles_partial;
    info->tiles_absent = heads * counts->tiles_absent;
    info->threads = plan->threads;
}

static void unfused_describe(const void *prepared, nf_text *text)
{
    const cpu_unfused_plan *plan = prepared;
    nf_text_printf(text, "  kernels %s, %s inside, %lld threads, %zu bytes of workspace each\n", plan->kernels->isa,
                   plan->kernels->real_size == (int64_t)sizeof(float) ? "f32" : "f64", (long long)plan->threads,
                   plan->thread_bytes);
    nf_text_printf(text, "  scores: %lld slots a query, %zu bytes%s\n", (long long)plan->slots, plan->score_bytes,
                   plan->request->problem->direction & NF_BWD ? ", twice in backward" : "");
}

const nf_algorithm cpu_algorithm_unfused = {
    .name = "unfused",
    .supports = unfused_supports,
    .cost = unfused_cost,
    .prepare = unfused_prepare,
    .release = unfused_release,
    .workspace = unfused_workspace,
    .info = unfused_info,
    .describe = unfused_describe,
    .forward = cpu_unfused_forward,
    .backward = cpu_unfused_backward,
    .enqueue = nf_stub_enqueue,
    .pair = &cpu_unfused_public,
};
