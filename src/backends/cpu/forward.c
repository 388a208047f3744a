/* Forward: for every group of query tiles, walk the column tiles of keys, packed once per group; softmax is carried along
 * the walk, so no score outlives its tile. */
#include <math.h>
#include <string.h>

#include "backends/cpu/tile.h"

/* Workspace of one thread. */
typedef struct forward_scratch {
    cpu_row_tile *tiles;
    void *q, *out, *max, *sum;         /* of all rows of an item */
    void *k_packed, *v_packed, *converted;
    void *scores;
    uint32_t *mask;
    const void **rows;
} forward_scratch;

typedef struct forward_call {
    const cpu_tile_plan *plan;
    cpu_view q, k, v, extra_k, extra_v, out, lse;
} forward_call;

static int64_t score_stride(const cpu_walk *walk)
{
    return walk->columns + CPU_SCORE_PAD;
}

static void carve_forward(const cpu_tile_plan *p, cpu_arena *arena, forward_scratch *s)
{
    const cpu_walk *w = &p->by_query;
    const int64_t real = p->kernels->real_size, panel = p->kernels->panel;
    const int64_t rows = w->tiles * w->tile_rows, wide = nf_max64(p->head_dim, p->value_dim);
    s->tiles = cpu_take(arena, w->tiles * (int64_t)sizeof *s->tiles);
    s->q = cpu_take(arena, rows * p->head_dim * real);
    s->out = cpu_take(arena, rows * p->value_dim * real);
    s->max = cpu_take(arena, rows * real);
    s->sum = cpu_take(arena, rows * real);
    s->k_packed = cpu_take(arena, (w->columns + panel) * p->head_dim * real);
    s->v_packed = cpu_take(arena, w->columns * p->value_dim * real);
    s->converted = cpu_take(arena, w->columns * wide * real);
    s->scores = cpu_take(arena, w->tile_rows * score_stride(w) * real);
    s->mask = cpu_take(arena, w->tile_rows * CPU_MASK_WORDS * (int64_t)sizeof *s->mask);
    s->rows = cpu_take(arena, w->columns * (int64_t)sizeof *s->rows);
}

size_t cpu_forward_bytes(const cpu_tile_plan *plan)
{
    cpu_arena arena = {0};
    forward_scratch scratch;
    carve_forward(plan, &arena, &scratch);
    return arena.used;
}

static cpu_span tile_span(const cpu_tile_plan *p, const nf_work_item *item, const cpu_row_tile *tile)
{
    return (cpu_span){.count = tile->positions, .item = item, .box = &tile->box, .rows = NF_ROWS_QUERIES,
                      .rank = p->request->problem->rank};
}

static void load_queries(const forward_call *c, const forward_scratch *s, const nf_work_item *item,
                         const cpu_row_tile *tile, int64_t batch, int64_t first_head)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_span span = tile_span(p, item, tile);
    const int64_t rows = tile->positions * tile->heads;
    for (int64_t h = 0; h < tile->heads; h++)
        cpu_load_rows(k, &span, &c->q, batch, first_head + tile->head + h, p->request->problem->head_dim, p->head_dim,
                      cpu_at(k, s->q, (tile->first + h * tile->positions) * p->head_dim));
    memset(cpu_at(k, s->out, tile->first * p->value_dim), 0, (size_t)(rows * p->value_dim * k->real_size));
    for (int64_t r = 0; r < rows; r++) {
        cpu_set_real(k, s->max, tile->first + r, -INFINITY);
        cpu_set_real(k, s->sum, tile->first + r, 0);
    }
}

static void store_results(const forward_call *c, const forward_scratch *s, const nf_work_item *item,
                          const cpu_row_tile *tile, int64_t batch, int64_t first_head)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_span span = tile_span(p, item, tile);
    for (int64_t h = 0; h < tile->heads; h++) {
        const int64_t row = tile->first + h * tile->positions;
        cpu_store_softmax(k, &span, &c->out, &c->lse, batch, first_head + tile->head + h,
                          p->request->problem->value_dim, p->value_dim, cpu_at(k, s->out, row * p->value_dim),
                          cpu_at(k, s->max, row), cpu_at(k, s->sum, row));
    }
}

/* All row tiles that see the column tile meet it. finite: nothing in v is NaN or infinite. */
static void meet_columns(const forward_call *c, const forward_scratch *s, const nf_work_item *item, int64_t tiles,
                         const cpu_span *columns, bool finite)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t stride = score_stride(&p->by_query), n = columns->count;
    for (int64_t t = 0; t < tiles; t++) {
        const cpu_row_tile *tile = &s->tiles[t];
        const bool masked = columns->item && tile->kind == NF_TILE_PARTIAL;
        if (columns->item && tile->kind == NF_TILE_ABSENT)
            continue;
        if (masked && tile->head == 0)
            cpu_build_mask(&p->by_query.work, item, &tile->box, columns->box, s->mask);
        const uint32_t *mask = masked ? s->mask : NULL;
        const int64_t m = tile->positions * tile->heads;
        void *out = cpu_at(k, s->out, tile->first * p->value_dim);
        k->product(s->scores, stride, cpu_at(k, s->q, tile->first * p->head_dim), p->head_dim, s->k_packed, m, n,
                   problem->head_dim, false);
        k->softmax(s->scores, stride, m, n, p->scale, mask, tile->positions, cpu_at(k, s->max, tile->first),
                   cpu_at(k, s->sum, tile->first), out, p->value_dim, p->value_dim);
        if (masked && !finite)
            k->product_masked(out, p->value_dim, s->scores, stride, s->v_packed, m, problem->value_dim, n, mask,
                              tile->positions);
        else
            k->product(out, p->value_dim, s->scores, stride, s->v_packed, m, problem->value_dim, n, true);
    }
}

static void pack_and_meet(const forward_call *c, const forward_scratch *s, const nf_work_item *item, int64_t tiles,
                          const cpu_span *columns, int64_t batch, int64_t kv_head, bool check_finite)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const cpu_view *keys = columns->item ? &c->k : &c->extra_k, *values = columns->item ? &c->v : &c->extra_v;
    cpu_fetch_rows(k, columns, keys, batch, kv_head, problem->head_dim, p->head_dim, s->converted, s->rows);
    k->pack_transposed(s->k_packed, s->rows, columns->count, problem->head_dim);
    cpu_fetch_rows(k, columns, values, batch, kv_head, problem->value_dim, p->value_dim, s->converted, s->rows);
    k->pack_straight(s->v_packed, s->rows, columns->count, problem->value_dim);
    const bool finite = !check_finite || k->all_finite(s->rows, columns->count, problem->value_dim);
    meet_columns(c, s, item, tiles, columns, finite);
}

static void forward_item(const forward_call *c, const forward_scratch *s, int64_t index)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_walk *walk = &p->by_query;
    const nf_problem *problem = p->request->problem;
    const int64_t group = nf_problem_group(problem);
    const int64_t stream = index / walk->work.items, batch = stream / problem->kv_heads;
    const int64_t kv_head = stream % problem->kv_heads;
    nf_work_item item;
    nf_work_get_item(&walk->work, index % walk->work.items, &item);
    const int64_t tiles = cpu_list_row_tiles(walk, &item, group, s->tiles);
    for (int64_t t = 0; t < tiles; t++)
        load_queries(c, s, &item, &s->tiles[t], batch, kv_head * group);
    const int64_t column_tiles = nf_work_column_tile_count(&walk->work, &item);
    for (int64_t j = 0; j < column_tiles; j++) {
        nf_box box;
        bool any_partial;
        nf_work_column_tile(&walk->work, &item, j, &box);
        const cpu_span columns = {.count = nf_box_volume(&box, problem->rank), .item = &item, .box = &box,
                                  .rows = NF_ROWS_QUERIES, .columns = true, .rank = problem->rank};
        if (cpu_classify(walk, &item, &box, s->tiles, tiles, &any_partial))
            pack_and_meet(c, s, &item, tiles, &columns, batch, kv_head, any_partial);
    }
    for (int64_t x = 0; x < problem->extra; x += walk->columns) {
        const cpu_span columns = {.count = nf_min64(walk->columns, problem->extra - x), .begin = x,
                                  .extents = &problem->extra, .rank = 1};
        pack_and_meet(c, s, &item, tiles, &columns, batch, kv_head, false);
    }
    for (int64_t t = 0; t < tiles; t++)
        store_results(c, s, &item, &s->tiles[t], batch, kv_head * group);
}

nf_status cpu_tile_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_tile_plan *plan = prepared;
    const int32_t rank = plan->request->problem->rank;
    const forward_call call = {
        .plan = plan,
        .q = cpu_view_of(io[NF_Q], rank, true),
        .k = cpu_view_of(io[NF_K], rank, true),
        .v = cpu_view_of(io[NF_V], rank, true),
        .extra_k = cpu_view_of(io[NF_EXTRA_K], 1, true),
        .extra_v = cpu_view_of(io[NF_EXTRA_V], 1, true),
        .out = cpu_view_of(io[NF_OUT], rank, true),
        .lse = cpu_view_of(io[NF_LSE], rank, false),
    };
    const int64_t items = plan->by_query.items;
    char *base = workspace;
#pragma omp parallel num_threads((int)plan->threads)
    {
        forward_scratch scratch;
        cpu_arena arena = {.base = base + (size_t)cpu_thread_index() * plan->thread_bytes};
        carve_forward(plan, &arena, &scratch);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            forward_item(&call, &scratch, i);
    }
    return NF_OK;
}
