/* dq: query tiles against packed keys and values, like forward. s = q k^T, dp = dout v^T, dq += ds k. */
#include <string.h>

#include "backends/cpu/backward.h"

/* Workspace of one thread. */
typedef struct dq_scratch {
    const backward_call *call;
    cpu_item item;
    cpu_row_tile *tiles;
    void *q, *dout, *dq, *lse, *delta; /* of all rows of an item */
    void *k_transposed, *v_transposed, *k_straight;
    void *converted;
    void *scores, *dscores;
    uint32_t *mask;
    const void **rows;
} dq_scratch;

static void carve_dq(const cpu_tile_plan *p, cpu_arena *arena, dq_scratch *s)
{
    const cpu_walk *w = &p->by_query;
    const int64_t real = p->kernels->real_size, wide = nf_max64(p->head_dim, p->value_dim);
    const int64_t rows = w->tiles * w->tile_rows, room = w->columns + p->kernels->panel;
    const int64_t score_bytes = w->tile_rows * (w->columns + CPU_SCORE_PAD) * real;
    s->tiles = cpu_take(arena, w->tiles * (int64_t)sizeof *s->tiles);
    s->q = cpu_take(arena, rows * p->head_dim * real);
    s->dout = cpu_take(arena, rows * p->value_dim * real);
    s->dq = cpu_take(arena, rows * p->head_dim * real);
    s->lse = cpu_take(arena, rows * real);
    s->delta = cpu_take(arena, rows * real);
    s->k_transposed = cpu_take(arena, room * p->head_dim * real);
    s->v_transposed = cpu_take(arena, room * p->value_dim * real);
    s->k_straight = cpu_take(arena, room * p->head_dim * real);
    s->converted = cpu_take(arena, nf_max64(w->columns, CPU_TILE_ROWS) * wide * real);
    s->scores = cpu_take(arena, score_bytes);
    s->dscores = cpu_take(arena, score_bytes);
    s->mask = cpu_take(arena, w->tile_rows * CPU_MASK_WORDS * (int64_t)sizeof *s->mask);
    s->rows = cpu_take(arena, nf_max64(w->columns, CPU_TILE_ROWS) * (int64_t)sizeof *s->rows);
}

size_t cpu_backward_dq_bytes(const cpu_tile_plan *plan)
{
    cpu_arena arena = {0};
    dq_scratch scratch;
    carve_dq(plan, &arena, &scratch);
    return arena.used;
}

static void load_tile(const dq_scratch *s, const cpu_row_tile *tile, int64_t first_head)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const cpu_span span = cpu_row_span(&s->item, tile);
    const int64_t batch = s->item.batch;
    for (int64_t h = 0; h < tile->heads; h++) {
        const int64_t head = first_head + tile->head + h, row = tile->first + h * tile->positions;
        cpu_load_rows(k, &span, &c->io.q, batch, head, problem->head_dim, p->head_dim, cpu_at(k, s->q, row * p->head_dim));
        cpu_load_rows(k, &span, &c->io.dout, batch, head, problem->value_dim, p->value_dim,
                      cpu_at(k, s->dout, row * p->value_dim));
        cpu_load_row_terms(c, &span, batch, head, cpu_at(k, s->lse, row), cpu_at(k, s->delta, row));
    }
    memset(cpu_at(k, s->dq, tile->first * p->head_dim), 0,
           (size_t)(tile->positions * tile->heads * p->head_dim * k->real_size));
}

/* A row tile meets a column tile, by the reach of its blocks where it sees a part: s->mask says which. */
static void meet_tile(const dq_scratch *s, const cpu_row_tile *tile, int64_t n, const cpu_reach *reach, bool finite)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t stride = p->by_query.columns + CPU_SCORE_PAD, m = tile->positions * tile->heads;
    const void *q = cpu_at(k, s->q, tile->first * p->head_dim), *dout = cpu_at(k, s->dout, tile->first * p->value_dim);
    void *dq = cpu_at(k, s->dq, tile->first * p->head_dim);
    if (reach) {
        k->product_to_reach(s->scores, stride, q, p->head_dim, s->k_transposed, m, n, problem->head_dim, reach);
        k->product_to_reach(s->dscores, stride, dout, p->value_dim, s->v_transposed, m, n, problem->value_dim, reach);
    } else {
        k->product(s->scores, stride, q, p->head_dim, s->k_transposed, m, n, problem->head_dim, false);
        k->product(s->dscores, stride, dout, p->value_dim, s->v_transposed, m, n, problem->value_dim, false);
    }
    k->gradient(s->scores, s->dscores, stride, m, n, p->scale, reach ? s->mask : NULL, tile->positions,
                cpu_at(k, s->lse, tile->first), cpu_at(k, s->delta, tile->first), false);
    if (reach && !finite)
        k->product_masked(dq, p->head_dim, s->dscores, stride, s->k_straight, m, problem->head_dim, n, s->mask,
                          tile->positions);
    else if (reach)
        k->product_from_reach(dq, p->head_dim, s->dscores, stride, s->k_straight, m, problem->head_dim, n, reach);
    else
        k->product(dq, p->head_dim, s->dscores, stride, s->k_straight, m, problem->head_dim, n, true);
}

static void meet_columns(const dq_scratch *s, const cpu_span *columns, bool finite)
{
    const nf_work *work = &s->call->plan->by_query.work;
    for (int64_t t = 0; t < s->item.tile_count; t++) {
        const cpu_row_tile *tile = &s->tiles[t];
        const bool masked = columns->item && tile->kind == NF_TILE_PARTIAL;
        cpu_reach runs[CPU_TILE_ROWS], reach[CPU_TILE_BLOCKS];
        if (columns->item && tile->kind == NF_TILE_ABSENT)
            continue;
        if (masked) {
            cpu_find_runs(work, &s->item.work, &tile->box, columns->box, runs);
            cpu_find_reach(runs, tile->positions, tile->heads, reach);
        }
        if (masked && tile->head == 0)
            cpu_build_mask(work, &s->item.work, &tile->box, columns->box, s->mask);
        meet_tile(s, tile, columns->count, masked ? reach : NULL, finite);
    }
}

/* Packs a column tile and lets the row tiles meet it. */
static void visit_columns(void *context, const cpu_span *columns, bool any, bool partial)
{
    const dq_scratch *s = context;
    const cpu_tile_plan *p = s->call->plan;
    const cpu_views *io = &s->call->io;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    if (!any)
        return;
    cpu_fetch_rows(k, columns, columns->item ? &io->k : &io->extra_k, s->item.batch, s->item.kv_head, problem->head_dim,
                   p->head_dim, s->converted, s->rows);
    k->pack_transposed(s->k_transposed, s->rows, columns->count, problem->head_dim);
    k->pack_straight(s->k_straight, s->rows, columns->count, problem->head_dim);
    const bool finite = !partial || k->all_finite(s->rows, columns->count, problem->head_dim);
    cpu_fetch_rows(k, columns, columns->item ? &io->v : &io->extra_v, s->item.batch, s->item.kv_head, problem->value_dim,
                   p->value_dim, s->converted, s->rows);
    k->pack_transposed(s->v_transposed, s->rows, columns->count, problem->value_dim);
    meet_columns(s, columns, finite);
}

static void store_tile(const dq_scratch *s, const cpu_row_tile *tile, int64_t first_head)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_span span = cpu_row_span(&s->item, tile);
    for (int64_t h = 0; h < tile->heads; h++)
        cpu_store_rows(p->kernels, &span, &s->call->io.dq, s->item.batch, first_head + tile->head + h,
                       p->request->problem->head_dim, p->head_dim,
                       cpu_at(p->kernels, s->dq, (tile->first + h * tile->positions) * p->head_dim), p->scale);
}

static void dq_item(dq_scratch *s, int64_t index)
{
    const cpu_tile_plan *p = s->call->plan;
    const nf_problem *problem = p->request->problem;
    const int64_t group = nf_problem_group(problem);
    cpu_open_item(&s->item, &p->by_query, problem, group, s->tiles, index);
    for (int64_t t = 0; t < s->item.tile_count; t++)
        load_tile(s, &s->tiles[t], s->item.kv_head * group);
    cpu_for_columns(&s->item, visit_columns, s);
    cpu_for_extra(&s->item, problem, visit_columns, s);
    for (int64_t t = 0; t < s->item.tile_count; t++)
        store_tile(s, &s->tiles[t], s->item.kv_head * group);
}

void cpu_backward_dq(const backward_call *call, char *workspace)
{
    const cpu_tile_plan *plan = call->plan;
    const cpu_share share = cpu_share_walk(plan, &plan->by_query, workspace);
#pragma omp parallel num_threads((int)plan->threads)
    {
        dq_scratch scratch = {.call = call};
        cpu_arena arena = {.base = workspace + (size_t)cpu_thread_index() * plan->thread_bytes};
        carve_dq(plan, &arena, &scratch);
        int64_t stream = -1;
        for (int64_t i; (i = cpu_share_take(&share, &stream)) >= 0;)
            dq_item(&scratch, i);
    }
}
