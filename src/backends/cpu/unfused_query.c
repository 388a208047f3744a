/* The passes by query: pair makes scores, apply sums what they weigh. Query tiles meet column tiles of keys, packed
 * once per group, as in forward.c; a tile of scores moves to or from the slots of its queries row by row. */
#include <string.h>

#include "backends/cpu/unfused.h"

/* One thread, in an item. */
typedef struct query_item {
    const cpu_unfused_pass *pass;
    cpu_unfused_scratch s;
    cpu_item item;
    int64_t first_head;
} query_item;

static int64_t score_stride(const cpu_unfused_plan *plan)
{
    return plan->by_query.columns + CPU_SCORE_PAD;
}

static void *tile_rows(const query_item *q, const cpu_row_tile *tile, int64_t head)
{
    const cpu_unfused_plan *plan = q->pass->plan;
    return cpu_at(plan->kernels, q->s.rows, (tile->first + head * tile->positions) * plan->wide);
}

/* Fetches a column tile of b. */
static void fetch_columns(const query_item *q, const cpu_span *columns)
{
    const cpu_unfused_pass *pass = q->pass;
    cpu_fetch_rows(pass->plan->kernels, columns, columns->item ? &pass->b : &pass->extra_b, q->item.batch,
                   q->item.kv_head, pass->dim, pass->plan->wide, q->s.converted, q->s.columns);
}

/* Copies the scores of a tile to (put) or from the slots of its queries. */
static void move_scores(const query_item *q, const cpu_row_tile *tile, const cpu_span *columns, bool put)
{
    const cpu_unfused_pass *pass = q->pass;
    const cpu_unfused_plan *plan = pass->plan;
    const cpu_view *w = &pass->w;
    const cpu_span span = cpu_row_span(&q->item, tile);
    const int64_t size = plan->kernels->real_size, stride = score_stride(plan);
    const int64_t pairs = (columns->count + 1) / 2 * 2; /* products of bf16 read whole pairs */
    int64_t offsets[CPU_MAX_COLUMNS];
    int32_t position[NF_MAX_RANK];
    cpu_span_offsets(&span, w, offsets);
    for (int32_t a = 0; a < span.rank; a++)
        position[a] = tile->box.axis[a].begin;
    for (int64_t i = 0; i < tile->positions; i++) {
        cpu_slots map;
        if (columns->item)
            cpu_slots_of_box(plan, &q->item.work, position, columns->box, &map);
        else
            cpu_slots_of_extra(plan, columns->begin, columns->count, &map);
        for (int64_t h = 0; h < tile->heads; h++) {
            char *slots = cpu_unfused_row(w, q->item.batch, q->first_head + tile->head + h, offsets[i]);
            void *row = cpu_at(plan->kernels, q->s.scores, (h * tile->positions + i) * stride);
            if (put)
                cpu_slots_put(&map, size, row, slots, w->dim);
            else
                cpu_slots_get(&map, size, row, pairs, slots, w->dim);
        }
        cpu_slots_next(&tile->box, span.rank, position);
    }
}

static void run_items(const cpu_unfused_pass *pass, void (*run)(query_item *q))
{
    const cpu_unfused_plan *plan = pass->plan;
    const nf_problem *problem = plan->request->problem;
    const int64_t items = plan->by_query.items, group = nf_problem_group(problem);
#pragma omp parallel num_threads((int)plan->threads)
    {
        query_item q = {.pass = pass};
        cpu_arena arena = {.base = pass->workspace + (size_t)cpu_thread_index() * plan->thread_bytes};
        cpu_unfused_carve(plan, &arena, &q.s);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++) {
            cpu_open_item(&q.item, &plan->by_query, problem, group, q.s.tiles, i);
            q.first_head = q.item.kv_head * group;
            run(&q);
        }
    }
}

/* ---- Pair -------------------------------------------------------------------------------------------------------- */

/* Slots of the grid of the queries that lack some. */
static void fill_absent(const query_item *q, const cpu_row_tile *tile)
{
    const cpu_unfused_plan *plan = q->pass->plan;
    const cpu_view *w = &q->pass->w;
    const cpu_span span = cpu_row_span(&q->item, tile);
    int64_t offsets[CPU_MAX_COLUMNS];
    int32_t position[NF_MAX_RANK];
    cpu_span_offsets(&span, w, offsets);
    for (int32_t a = 0; a < span.rank; a++)
        position[a] = tile->box.axis[a].begin;
    for (int64_t i = 0; i < tile->positions; i++, cpu_slots_next(&tile->box, span.rank, position)) {
        if (cpu_slots_seen(&q->item.work, span.rank, position) == plan->window)
            continue;
        for (int64_t h = 0; h < tile->heads; h++) {
            void *slots = cpu_unfused_row(w, q->item.batch, q->first_head + tile->head + h, offsets[i]);
            for (int64_t j = 0; j < plan->window; j++)
                cpu_set_real(plan->kernels, slots, j * w->dim, q->pass->absent);
        }
    }
}

/* Scores of a tile, where its rows see any column. */
static void score_tile(const query_item *q, const cpu_row_tile *tile, const cpu_span *columns)
{
    const cpu_unfused_pass *pass = q->pass;
    const cpu_unfused_plan *plan = pass->plan;
    const cpu_kernels *k = plan->kernels;
    const int64_t stride = score_stride(plan), m = tile->positions * tile->heads, n = columns->count;
    cpu_reach runs[CPU_TILE_ROWS], reach[CPU_TILE_BLOCKS];
    if (!columns->item || tile->kind == NF_TILE_FULL) {
        k->product(q->s.scores, stride, tile_rows(q, tile, 0), plan->wide, q->s.packed, m, n, pass->dim, false);
        return;
    }
    cpu_find_runs(&plan->by_query.work, &q->item.work, &tile->box, columns->box, runs);
    cpu_find_reach(runs, tile->positions, tile->heads, reach);
    k->product_to_reach(q->s.scores, stride, tile_rows(q, tile, 0), plan->wide, q->s.packed, m, n, pass->dim, reach);
}

static void scale_scores(const cpu_kernels *k, void *scores, int64_t stride, int64_t m, int64_t n, double factor)
{
    void *rows[CPU_TILE_ROWS];
    double factors[CPU_TILE_ROWS];
    for (int64_t r = 0; r < m; r++) {
        rows[r] = cpu_at(k, scores, r * stride);
        factors[r] = factor;
    }
    k->store_rows(rows, k->real_size == (int64_t)sizeof(float) ? NF_F32 : NF_F64, 1, m, n, scores, stride, factors);
}

static void pair_columns(void *context, const cpu_span *columns, bool any, bool partial)
{
    const query_item *q = context;
    const cpu_unfused_pass *pass = q->pass;
    const cpu_kernels *k = pass->plan->kernels;
    const int64_t stride = score_stride(pass->plan), n = columns->count;
    (void)partial;
    if (!any)
        return;
    fetch_columns(q, columns);
    k->pack_transposed(q->s.packed, q->s.columns, n, pass->dim);
    for (int64_t t = 0; t < q->item.tile_count; t++) {
        const cpu_row_tile *tile = &q->item.tiles[t];
        const int64_t m = tile->positions * tile->heads;
        if (columns->item && tile->kind == NF_TILE_ABSENT)
            continue;
        score_tile(q, tile, columns);
        if (pass->factor != 1)
            scale_scores(k, q->s.scores, stride, m, n, pass->factor);
        move_scores(q, tile, columns, true);
    }
}

static void pair_item(query_item *q)
{
    const cpu_unfused_pass *pass = q->pass;
    for (int64_t t = 0; t < q->item.tile_count; t++) {
        const cpu_row_tile *tile = &q->item.tiles[t];
        const cpu_span span = cpu_row_span(&q->item, tile);
        for (int64_t h = 0; h < tile->heads; h++)
            cpu_load_rows(pass->plan->kernels, &span, &pass->a, q->item.batch, q->first_head + tile->head + h,
                          pass->dim, pass->plan->wide, tile_rows(q, tile, h));
        fill_absent(q, tile);
    }
    cpu_for_columns(&q->item, pair_columns, q);
    cpu_for_extra(&q->item, q->pass->plan->request->problem, pair_columns, q);
}

void cpu_unfused_pair(const cpu_unfused_pass *pass)
{
    run_items(pass, pair_item);
}

/* ---- Apply ------------------------------------------------------------------------------------------------------- */

/* The sums of a tile's rows. finite: nothing in b is NaN or infinite. */
static void apply_tile(const query_item *q, const cpu_row_tile *tile, const cpu_span *columns, bool finite)
{
    const cpu_unfused_pass *pass = q->pass;
    const cpu_unfused_plan *plan = pass->plan;
    const cpu_kernels *k = plan->kernels;
    const int64_t stride = score_stride(plan), m = tile->positions * tile->heads, n = columns->count;
    void *sums = tile_rows(q, tile, 0);
    cpu_reach runs[CPU_TILE_ROWS], reach[CPU_TILE_BLOCKS];
    if (!columns->item || tile->kind == NF_TILE_FULL) {
        k->product(sums, plan->wide, q->s.scores, stride, q->s.packed, m, pass->dim, n, true);
    } else if (finite) {
        cpu_find_runs(&plan->by_query.work, &q->item.work, &tile->box, columns->box, runs);
        cpu_find_reach(runs, tile->positions, tile->heads, reach);
        k->product_from_reach(sums, plan->wide, q->s.scores, stride, q->s.packed, m, pass->dim, n, reach);
    } else {
        cpu_build_mask(&plan->by_query.work, &q->item.work, &tile->box, columns->box, q->s.mask);
        k->product_masked(sums, plan->wide, q->s.scores, stride, q->s.packed, m, pass->dim, n, q->s.mask,
                          tile->positions);
    }
}

static void apply_columns(void *context, const cpu_span *columns, bool any, bool partial)
{
    const query_item *q = context;
    const cpu_unfused_pass *pass = q->pass;
    const cpu_kernels *k = pass->plan->kernels;
    const int64_t n = columns->count;
    if (!any)
        return;
    fetch_columns(q, columns);
    k->pack_straight(q->s.packed, q->s.columns, n, pass->dim);
    const bool finite = !partial || k->all_finite(q->s.columns, n, pass->dim);
    for (int64_t t = 0; t < q->item.tile_count; t++) {
        const cpu_row_tile *tile = &q->item.tiles[t];
        if (columns->item && tile->kind == NF_TILE_ABSENT)
            continue;
        move_scores(q, tile, columns, false);
        apply_tile(q, tile, columns, finite);
    }
}

static void apply_item(query_item *q)
{
    const cpu_unfused_pass *pass = q->pass;
    const cpu_unfused_plan *plan = pass->plan;
    for (int64_t t = 0; t < q->item.tile_count; t++) {
        const cpu_row_tile *tile = &q->item.tiles[t];
        memset(tile_rows(q, tile, 0), 0,
               (size_t)(tile->positions * tile->heads * plan->wide * plan->kernels->real_size));
    }
    cpu_for_columns(&q->item, apply_columns, q);
    cpu_for_extra(&q->item, q->pass->plan->request->problem, apply_columns, q);
    for (int64_t t = 0; t < q->item.tile_count; t++) {
        const cpu_row_tile *tile = &q->item.tiles[t];
        const cpu_span span = cpu_row_span(&q->item, tile);
        for (int64_t h = 0; h < tile->heads; h++)
            cpu_store_rows(plan->kernels, &span, &pass->y, q->item.batch, q->first_head + tile->head + h, pass->dim,
                           plan->wide, tile_rows(q, tile, h), pass->factor);
    }
}

void cpu_unfused_apply(const cpu_unfused_pass *pass)
{
    run_items(pass, apply_item);
}
