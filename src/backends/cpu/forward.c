/* Forward: for every group of query tiles, walk the column tiles of keys, packed once per group; softmax is carried along
 * the walk, so no score outlives its tile. */
#include <math.h>
#include <string.h>

#include "backends/cpu/tile.h"

typedef struct forward_call {
    const cpu_tile_plan *plan;
    cpu_views io;
} forward_call;

/* Workspace of one thread. */
typedef struct forward_scratch {
    const forward_call *call;
    cpu_item item;
    cpu_row_tile *tiles;
    void *q, *out, *max, *sum;         /* of all rows of an item */
    void *k_packed, *v_packed, *converted;
    void *scores;
    uint32_t *mask;
    const void **rows;
} forward_scratch;

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
    s->scores = cpu_take(arena, (w->tile_rows * score_stride(w) + CPU_SCORE_PAD) * real);
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

static void load_queries(const forward_scratch *s, const cpu_row_tile *tile, int64_t first_head)
{
    const forward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_span span = cpu_row_span(&s->item, tile);
    const int64_t rows = tile->positions * tile->heads;
    for (int64_t h = 0; h < tile->heads; h++)
        cpu_load_rows(k, &span, &c->io.q, s->item.batch, first_head + tile->head + h, p->request->problem->head_dim, p->head_dim,
                      cpu_at(k, s->q, (tile->first + h * tile->positions) * p->head_dim));
    memset(cpu_at(k, s->out, tile->first * p->value_dim), 0, (size_t)(rows * p->value_dim * k->real_size));
    for (int64_t r = 0; r < rows; r++) {
        cpu_set_real(k, s->max, tile->first + r, -INFINITY);
        cpu_set_real(k, s->sum, tile->first + r, 0);
    }
}

static void store_results(const forward_scratch *s, const cpu_row_tile *tile, int64_t first_head)
{
    const forward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_span span = cpu_row_span(&s->item, tile);
    for (int64_t h = 0; h < tile->heads; h++) {
        const int64_t row = tile->first + h * tile->positions;
        cpu_store_softmax(k, &span, &c->io.out, &c->io.lse, s->item.batch, first_head + tile->head + h,
                          p->request->problem->value_dim, p->value_dim, cpu_at(k, s->out, row * p->value_dim),
                          cpu_at(k, s->max, row), cpu_at(k, s->sum, row));
    }
}

/* A row tile meets a column tile all of which it sees. */
static void meet_full(const forward_scratch *s, const cpu_row_tile *tile, int64_t n)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_meeting meeting = {
        .rows = tile->positions * tile->heads,
        .columns = n,
        .head_dim = p->request->problem->head_dim,
        .value_dim = p->request->problem->value_dim,
        .q = cpu_at(k, s->q, tile->first * p->head_dim),
        .k = s->k_packed,
        .v = s->v_packed,
        .scores = s->scores,
        .max = cpu_at(k, s->max, tile->first),
        .sum = cpu_at(k, s->sum, tile->first),
        .out = cpu_at(k, s->out, tile->first * p->value_dim),
        .q_stride = p->head_dim,
        .score_stride = score_stride(&p->by_query),
        .out_stride = p->value_dim,
        .scale = p->scale,
    };
    k->attend(&meeting);
}

/* A row tile meets a column tile of which it sees a part; s->mask says which. */
static void meet_partial(const forward_scratch *s, const cpu_row_tile *tile, const nf_box *columns, int64_t n, bool finite)
{
    const cpu_tile_plan *p = s->call->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t stride = score_stride(&p->by_query), m = tile->positions * tile->heads;
    void *out = cpu_at(k, s->out, tile->first * p->value_dim);
    cpu_reach reach[CPU_TILE_BLOCKS];
    cpu_find_reach(&p->by_query.work, &s->item.work, &tile->box, columns, tile->heads, reach);
    k->product_to_reach(s->scores, stride, cpu_at(k, s->q, tile->first * p->head_dim), p->head_dim, s->k_packed, m, n,
                        problem->head_dim, reach);
    k->softmax_reach(s->scores, stride, m, reach, p->scale, s->mask, tile->positions, cpu_at(k, s->max, tile->first),
                     cpu_at(k, s->sum, tile->first), out, p->value_dim, p->value_dim);
    if (!finite)
        k->product_masked(out, p->value_dim, s->scores, stride, s->v_packed, m, problem->value_dim, n, s->mask,
                          tile->positions);
    else
        k->product_from_reach(out, p->value_dim, s->scores, stride, s->v_packed, m, problem->value_dim, n, reach);
}

/* All row tiles that see the column tile meet it. finite: nothing in v is NaN or infinite. */
static void meet_columns(const forward_scratch *s, const cpu_span *columns, bool finite)
{
    for (int64_t t = 0; t < s->item.tile_count; t++) {
        const cpu_row_tile *tile = &s->tiles[t];
        if (!columns->item || tile->kind == NF_TILE_FULL) {
            meet_full(s, tile, columns->count);
        } else if (tile->kind == NF_TILE_PARTIAL) {
            if (tile->head == 0)
                cpu_build_mask(&s->call->plan->by_query.work, &s->item.work, &tile->box, columns->box, s->mask);
            meet_partial(s, tile, columns->box, columns->count, finite);
        }
    }
}

/* Packs keys from where they lie if the kernels can, else from reals. */
static void pack_keys(const forward_scratch *s, const cpu_span *columns, const cpu_view *view)
{
    const cpu_kernels *k = s->call->plan->kernels;
    const int64_t n = s->call->plan->request->problem->head_dim;
    if (k->pack_transposed_elements && view->dim == 1) {
        cpu_point_at_rows(columns, view, s->item.batch, s->item.kv_head, s->rows);
        k->pack_transposed_elements(s->k_packed, s->rows, columns->count, n);
        return;
    }
    cpu_fetch_rows(k, columns, view, s->item.batch, s->item.kv_head, n, s->call->plan->head_dim, s->converted, s->rows);
    k->pack_transposed(s->k_packed, s->rows, columns->count, n);
}

/* Packs values likewise. Returns whether they are finite, if asked to look. */
static bool pack_values(const forward_scratch *s, const cpu_span *columns, const cpu_view *view, bool look)
{
    const cpu_kernels *k = s->call->plan->kernels;
    const int64_t n = s->call->plan->request->problem->value_dim;
    if (k->pack_straight_elements && view->dim == 1 && !look) {
        cpu_point_at_rows(columns, view, s->item.batch, s->item.kv_head, s->rows);
        k->pack_straight_elements(s->v_packed, s->rows, columns->count, n);
        return true;
    }
    cpu_fetch_rows(k, columns, view, s->item.batch, s->item.kv_head, n, s->call->plan->value_dim, s->converted, s->rows);
    k->pack_straight(s->v_packed, s->rows, columns->count, n);
    return !look || k->all_finite(s->rows, columns->count, n);
}

/* Packs a column tile and lets the row tiles meet it. */
static void visit_columns(void *context, const cpu_span *columns, bool any, bool partial)
{
    const forward_scratch *s = context;
    const cpu_views *io = &s->call->io;
    if (!any)
        return;
    pack_keys(s, columns, columns->item ? &io->k : &io->extra_k);
    meet_columns(s, columns, pack_values(s, columns, columns->item ? &io->v : &io->extra_v, partial));
}

static void forward_item(forward_scratch *s, int64_t index)
{
    const cpu_tile_plan *p = s->call->plan;
    const nf_problem *problem = p->request->problem;
    const int64_t group = nf_problem_group(problem);
    cpu_open_item(&s->item, &p->by_query, problem, group, s->tiles, index);
    for (int64_t t = 0; t < s->item.tile_count; t++)
        load_queries(s, &s->tiles[t], s->item.kv_head * group);
    cpu_for_columns(&s->item, visit_columns, s);
    cpu_for_extra(&s->item, problem, visit_columns, s);
    for (int64_t t = 0; t < s->item.tile_count; t++)
        store_results(s, &s->tiles[t], s->item.kv_head * group);
}

static forward_scratch scratch_of(const forward_call *call, char *workspace, int64_t thread)
{
    forward_scratch scratch = {.call = call};
    cpu_arena arena = {.base = workspace + (size_t)thread * call->plan->thread_bytes};
    carve_forward(call->plan, &arena, &scratch);
    return scratch;
}

nf_status cpu_tile_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_tile_plan *plan = prepared;
    const forward_call call = {.plan = plan, .io = cpu_views_of(io, plan->request->problem->rank)};
    const int64_t items = plan->by_query.items;
    if (plan->threads == 1) { /* a parallel region costs system calls even then */
        forward_scratch scratch = scratch_of(&call, workspace, 0);
        for (int64_t i = 0; i < items; i++)
            forward_item(&scratch, i);
        return NF_OK;
    }
#pragma omp parallel num_threads((int)plan->threads)
    {
        forward_scratch scratch = scratch_of(&call, workspace, cpu_thread_index());
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            forward_item(&scratch, i);
    }
    return NF_OK;
}
