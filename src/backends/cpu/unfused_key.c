/* The pass by key: every key gathers what its queries, one interval per axis, gave it. Each sum belongs to one item, so
 * that it does not depend on the number of threads. Extra tokens are seen by all queries, which are cut into a fixed
 * number of parts, summed in order. */
#include <string.h>

#include "backends/cpu/unfused.h"

/* Queries are the depth of the product, so a tile of scores lies here [query][key]. */
static int64_t score_stride(const cpu_unfused_plan *plan)
{
    return nf_max64(plan->by_key.tile_rows, CPU_TILE_ROWS) + CPU_SCORE_PAD;
}

/* Packs the rows of queries of one head. Returns whether they are finite, if asked. */
static bool pack_queries(const cpu_unfused_pass *pass, const cpu_unfused_scratch *s, const cpu_span *queries,
                         int64_t batch, int64_t head, bool check_finite)
{
    const cpu_kernels *k = pass->plan->kernels;
    cpu_fetch_rows(k, queries, &pass->a, batch, head, pass->dim, pass->plan->wide, s->converted, s->columns);
    k->pack_straight(s->packed, s->columns, queries->count, pass->dim);
    return !check_finite || k->all_finite(s->columns, queries->count, pass->dim);
}

/* Of a box of queries, what they hold for a box of keys; or, keys NULL, for extra tokens from `begin` on. */
static void gather_scores(const cpu_unfused_pass *pass, const cpu_unfused_scratch *s, const cpu_span *queries,
                          int64_t batch, int64_t head, const nf_box *keys, int64_t begin, int64_t count)
{
    const cpu_unfused_plan *plan = pass->plan;
    const int64_t stride = score_stride(plan);
    int64_t offsets[CPU_MAX_COLUMNS];
    int32_t position[NF_MAX_RANK];
    cpu_span_offsets(queries, &pass->w, offsets);
    for (int32_t a = 0; keys && a < queries->rank; a++)
        position[a] = queries->box->axis[a].begin;
    for (int64_t i = 0; i < queries->count; i++) {
        cpu_slots map;
        if (keys)
            cpu_slots_of_box(plan, queries->item, position, keys, &map);
        else
            cpu_slots_of_extra(plan, begin, count, &map);
        cpu_slots_get(&map, plan->kernels->real_size, cpu_at(plan->kernels, s->scores, i * stride), count,
                      cpu_unfused_row(&pass->w, batch, head, offsets[i]), pass->w.dim);
        if (keys)
            cpu_slots_next(queries->box, queries->rank, position);
    }
}

/* The rare case of rows that are not finite: only pairs that exist may meet. */
static void meet_masked(const cpu_unfused_pass *pass, const cpu_unfused_scratch *s, const cpu_span *queries,
                        const cpu_row_tile *tile, void *rows)
{
    const cpu_unfused_plan *plan = pass->plan;
    const cpu_kernels *k = plan->kernels;
    const int64_t stride = score_stride(plan), turned = plan->by_key.columns + CPU_SCORE_PAD, m = tile->positions;
    for (int64_t i = 0; i < queries->count; i++)
        for (int64_t r = 0; r < m; r++)
            memcpy(cpu_at(k, s->transposed, r * turned + i), cpu_at(k, s->scores, i * stride + r),
                   (size_t)k->real_size);
    cpu_build_mask(&plan->by_key.work, queries->item, &tile->box, queries->box, s->mask);
    k->product_masked(rows, plan->wide, s->transposed, turned, s->packed, m, pass->dim, queries->count, s->mask, m);
}

/* One thread, in an item. */
typedef struct key_item {
    const cpu_unfused_pass *pass;
    cpu_unfused_scratch s;
    cpu_item item;
} key_item;

static void visit_queries(void *context, const cpu_span *queries, bool any, bool partial)
{
    const key_item *q = context;
    const cpu_unfused_pass *pass = q->pass;
    const cpu_unfused_plan *plan = pass->plan;
    const int64_t group = nf_problem_group(plan->request->problem), first_head = q->item.kv_head * group;
    for (int64_t head = first_head; any && head < first_head + group; head++) {
        const bool finite = pack_queries(pass, &q->s, queries, q->item.batch, head, partial);
        for (int64_t t = 0; t < q->item.tile_count; t++) {
            const cpu_row_tile *tile = &q->item.tiles[t];
            if (tile->kind == NF_TILE_ABSENT)
                continue;
            void *rows = cpu_at(plan->kernels, q->s.rows, tile->first * plan->wide);
            gather_scores(pass, &q->s, queries, q->item.batch, head, &tile->box, 0, tile->positions);
            if (tile->kind == NF_TILE_PARTIAL && !finite)
                meet_masked(pass, &q->s, queries, tile, rows);
            else
                plan->kernels->product_transposed(rows, plan->wide, q->s.scores, score_stride(plan), q->s.packed,
                                                  tile->positions, pass->dim, queries->count, true);
        }
    }
}

static void run_item(key_item *q, int64_t index)
{
    const cpu_unfused_pass *pass = q->pass;
    const cpu_unfused_plan *plan = pass->plan;
    const cpu_kernels *k = plan->kernels;
    cpu_open_item(&q->item, &plan->by_key, plan->request->problem, 1, q->s.tiles, index);
    const cpu_row_tile *last = &q->item.tiles[q->item.tile_count - 1];
    memset(q->s.rows, 0, (size_t)((last->first + last->positions) * plan->wide * k->real_size));
    cpu_for_columns(&q->item, visit_queries, q);
    for (int64_t t = 0; t < q->item.tile_count; t++) {
        const cpu_row_tile *tile = &q->item.tiles[t];
        const cpu_span span = cpu_row_span(&q->item, tile);
        cpu_store_rows(k, &span, &pass->y, q->item.batch, q->item.kv_head, pass->dim, plan->wide,
                       cpu_at(k, q->s.rows, tile->first * plan->wide), pass->factor);
    }
}

/* ---- Extra tokens ------------------------------------------------------------------------------------------------ */

static void *partial_sum(const cpu_unfused_pass *pass, int64_t stream, int64_t split, int64_t tile)
{
    const cpu_unfused_plan *plan = pass->plan;
    const int64_t slot = (stream * plan->extra_splits + split) * plan->extra_tiles + tile;
    char *partial = pass->workspace + (size_t)plan->threads * plan->thread_bytes;
    return cpu_at(plan->kernels, partial, slot * CPU_TILE_ROWS * plan->wide);
}

static int64_t extra_rows(const cpu_unfused_plan *plan, int64_t tile)
{
    return nf_min64(CPU_TILE_ROWS, plan->request->problem->extra - tile * CPU_TILE_ROWS);
}

/* One tile of extra tokens against one part of the queries of its heads. */
static void extra_item(const cpu_unfused_pass *pass, const cpu_unfused_scratch *s, int64_t index)
{
    const cpu_unfused_plan *plan = pass->plan;
    const cpu_kernels *k = plan->kernels;
    const nf_problem *problem = plan->request->problem;
    const int64_t group = nf_problem_group(problem), tile = index % plan->extra_tiles;
    const int64_t split = index / plan->extra_tiles % plan->extra_splits;
    const int64_t stream = index / plan->extra_tiles / plan->extra_splits;
    const int64_t batch = stream / problem->kv_heads, kv_head = stream % problem->kv_heads;
    const int64_t m = extra_rows(plan, tile), part = (plan->queries + plan->extra_splits - 1) / plan->extra_splits;
    const int64_t begin = nf_min64(split * part, plan->queries), end = nf_min64(begin + part, plan->queries);
    int64_t extents[NF_MAX_RANK];
    for (int32_t a = 0; a < problem->rank; a++)
        extents[a] = nf_axis_query_range(&problem->axis[a]).count;
    void *sum = partial_sum(pass, stream, split, tile);
    memset(sum, 0, (size_t)(m * plan->wide * k->real_size));
    for (int64_t i = begin; i < end; i += plan->by_key.columns) {
        const cpu_span queries = {
            .count = nf_min64(plan->by_key.columns, end - i), .begin = i, .extents = extents, .rank = problem->rank};
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
            pack_queries(pass, s, &queries, batch, head, false);
            gather_scores(pass, s, &queries, batch, head, NULL, tile * CPU_TILE_ROWS, m);
            k->product_transposed(sum, plan->wide, s->scores, score_stride(plan), s->packed, m, pass->dim,
                                  queries.count, true);
        }
    }
}

/* Adds the parts up in order and writes the result. */
static void extra_sum(const cpu_unfused_pass *pass, int64_t stream, int64_t tile)
{
    const cpu_unfused_plan *plan = pass->plan;
    const cpu_kernels *k = plan->kernels;
    const nf_problem *problem = plan->request->problem;
    const int64_t m = extra_rows(plan, tile);
    void *sum = partial_sum(pass, stream, 0, tile), *rows[CPU_TILE_ROWS];
    for (int64_t r = 0; r < m; r++)
        rows[r] = cpu_at(k, sum, r * plan->wide);
    for (int64_t split = 1; split < plan->extra_splits; split++)
        k->add_rows(rows, 1, m, pass->dim, partial_sum(pass, stream, split, tile), plan->wide, 1);
    const cpu_span span = {.count = m, .begin = tile * CPU_TILE_ROWS, .extents = &problem->extra, .rank = 1};
    cpu_store_rows(k, &span, &pass->extra_y, stream / problem->kv_heads, stream % problem->kv_heads, pass->dim,
                   plan->wide, sum, pass->factor);
}

void cpu_unfused_transpose(const cpu_unfused_pass *pass)
{
    const cpu_unfused_plan *plan = pass->plan;
    const nf_problem *problem = plan->request->problem;
    const int64_t streams = problem->batch * problem->kv_heads;
    const int64_t items = pass->y.data ? plan->by_key.items : 0;
    const int64_t extra_sums = pass->extra_y.data ? streams * plan->extra_tiles : 0;
    if (items + extra_sums == 0)
        return;
#pragma omp parallel num_threads((int)plan->threads)
    {
        key_item q = {.pass = pass};
        cpu_arena arena = {.base = pass->workspace + (size_t)cpu_thread_index() * plan->thread_bytes};
        cpu_unfused_carve(plan, &arena, &q.s);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            run_item(&q, i);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < extra_sums * plan->extra_splits; i++)
            extra_item(pass, &q.s, i);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < extra_sums; i++)
            extra_sum(pass, i / plan->extra_tiles, i % plan->extra_tiles);
    }
}
