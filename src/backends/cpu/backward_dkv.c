/* dk and dv: key tiles against packed queries, the transposed problem. s = k q^T, dp = v dout^T, dv += p dout, dk += ds q,
 * and with five products dq += ds^T k. The same tile step serves the gradients of extra tokens, whose columns are all queries. */
#include <string.h>

#include "backends/cpu/backward.h"

/* Workspace of one thread. */
typedef struct dkv_scratch {
    const backward_call *call;
    cpu_item item;
    cpu_row_tile *tiles;
    void *k, *v, *dk, *dv;                 /* of all rows of an item */
    void *q_transposed, *q_straight, *dout_transposed, *dout_straight;
    void *lse, *delta;                     /* of a column tile */
    void *converted, *converted2;
    void *scores, *dscores;
    void *k_straight, *dq;                 /* with five products: rows as depth, and what a column tile adds to dq */
    bool keys_finite;
    uint32_t *mask;
    const void **rows, **rows2;
} dkv_scratch;

static void carve_dkv(const cpu_tile_plan *p, cpu_arena *arena, dkv_scratch *s)
{
    const cpu_walk *w = &p->by_key;
    const int64_t real = p->kernels->real_size, wide = nf_max64(p->head_dim, p->value_dim);
    const int64_t room = w->columns + p->kernels->panel;
    const int64_t rows = nf_max64(w->tiles * w->tile_rows, CPU_TILE_ROWS);
    const int64_t tile_rows = nf_max64(w->tile_rows, CPU_TILE_ROWS);
    const int64_t score_bytes = tile_rows * (w->columns + CPU_SCORE_PAD) * real;
    s->tiles = cpu_take(arena, w->tiles * (int64_t)sizeof *s->tiles);
    s->k = cpu_take(arena, rows * p->head_dim * real);
    s->v = cpu_take(arena, rows * p->value_dim * real);
    s->dk = cpu_take(arena, rows * p->head_dim * real);
    s->dv = cpu_take(arena, rows * p->value_dim * real);
    s->q_transposed = cpu_take(arena, room * p->head_dim * real);
    s->q_straight = cpu_take(arena, room * p->head_dim * real);
    s->dout_transposed = cpu_take(arena, room * p->value_dim * real);
    s->dout_straight = cpu_take(arena, room * p->value_dim * real);
    s->lse = cpu_take(arena, room * real);
    s->delta = cpu_take(arena, room * real);
    s->converted = cpu_take(arena, w->columns * wide * real);
    s->converted2 = cpu_take(arena, w->columns * wide * real);
    s->scores = cpu_take(arena, score_bytes);
    s->dscores = cpu_take(arena, score_bytes);
    s->k_straight = cpu_take(arena, p->five ? rows * p->head_dim * real : 0);
    s->dq = cpu_take(arena, p->five ? w->columns * p->head_dim * real : 0);
    s->mask = cpu_take(arena, tile_rows * CPU_MASK_WORDS * (int64_t)sizeof *s->mask);
    s->rows = cpu_take(arena, nf_max64(w->columns, CPU_TILE_ROWS) * (int64_t)sizeof *s->rows);
    s->rows2 = cpu_take(arena, w->columns * (int64_t)sizeof *s->rows2);
}

size_t cpu_backward_dkv_bytes(const cpu_tile_plan *plan)
{
    cpu_arena arena = {0};
    dkv_scratch scratch;
    carve_dkv(plan, &arena, &scratch);
    return arena.used;
}

/* Packs a column tile of queries of one head. Returns whether q and dout are finite throughout. */
static bool pack_queries(const backward_call *c, const dkv_scratch *s, const cpu_span *columns, int64_t batch,
                         int64_t head, bool check_finite)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t n = columns->count, lanes = k->lanes;
    bool finite = true;
    cpu_fetch_rows(k, columns, &c->io.q, batch, head, problem->head_dim, p->head_dim, s->converted, s->rows);
    k->pack_transposed(s->q_transposed, s->rows, n, problem->head_dim);
    k->pack_straight(s->q_straight, s->rows, n, problem->head_dim);
    if (check_finite)
        finite = k->all_finite(s->rows, n, problem->head_dim);
    cpu_fetch_rows(k, columns, &c->io.out, batch, head, problem->value_dim, p->value_dim, s->converted2, s->rows2);
    cpu_fetch_rows(k, columns, &c->io.dout, batch, head, problem->value_dim, p->value_dim, s->converted, s->rows);
    k->pack_transposed(s->dout_transposed, s->rows, n, problem->value_dim);
    k->pack_straight(s->dout_straight, s->rows, n, problem->value_dim);
    if (check_finite)
        finite &= k->all_finite(s->rows, n, problem->value_dim);
    cpu_load_row_terms(c, columns, batch, head, s->rows2, s->rows, s->lse, s->delta);
    for (int64_t i = n; i % lanes; i++) {
        cpu_set_real(k, s->lse, i, 0);
        cpu_set_real(k, s->delta, i, 0);
    }
    return finite;
}

/* dq += ds^T k for the rows that just met the packed queries. */
static void add_to_dq(const backward_call *c, const dkv_scratch *s, int64_t first, int64_t m, int64_t n,
                      const uint32_t *mask, bool finite)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const int64_t stride = p->by_key.columns + CPU_SCORE_PAD, dim = p->request->problem->head_dim;
    const void *keys = cpu_at(k, s->k_straight, first * p->head_dim);
    if (mask && !finite)
        k->product_transposed_masked(s->dq, p->head_dim, s->dscores, stride, keys, n, dim, m, mask, m);
    else
        k->product_transposed(s->dq, p->head_dim, s->dscores, stride, keys, n, dim, m, true);
}

/* m rows, from first on, meet the packed queries. */
static void meet_queries(const backward_call *c, const dkv_scratch *s, int64_t first, int64_t m, int64_t n,
                         const uint32_t *mask, bool finite)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t stride = p->by_key.columns + CPU_SCORE_PAD;
    void *dk = cpu_at(k, s->dk, first * p->head_dim), *dv = cpu_at(k, s->dv, first * p->value_dim);
    k->product(s->scores, stride, cpu_at(k, s->k, first * p->head_dim), p->head_dim, s->q_transposed, m, n,
               problem->head_dim, false);
    k->product(s->dscores, stride, cpu_at(k, s->v, first * p->value_dim), p->value_dim, s->dout_transposed, m, n,
               problem->value_dim, false);
    k->gradient(s->scores, s->dscores, stride, m, n, p->scale, mask, m, s->lse, s->delta, true);
    if (mask && !finite) {
        k->product_masked(dv, p->value_dim, s->scores, stride, s->dout_straight, m, problem->value_dim, n, mask, m);
        k->product_masked(dk, p->head_dim, s->dscores, stride, s->q_straight, m, problem->head_dim, n, mask, m);
    } else {
        k->product(dv, p->value_dim, s->scores, stride, s->dout_straight, m, problem->value_dim, n, true);
        k->product(dk, p->head_dim, s->dscores, stride, s->q_straight, m, problem->head_dim, n, true);
    }
}

/* Loads rows of keys and values and clears their sums. */
static void load_keys(const backward_call *c, dkv_scratch *s, const cpu_span *span, const cpu_view *keys,
                      const cpu_view *values, int64_t batch, int64_t kv_head, int64_t first)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t kd = first * p->head_dim, vd = first * p->value_dim;
    cpu_load_rows(k, span, keys, batch, kv_head, problem->head_dim, p->head_dim, cpu_at(k, s->k, kd));
    cpu_load_rows(k, span, values, batch, kv_head, problem->value_dim, p->value_dim, cpu_at(k, s->v, vd));
    if (c->five) {
        for (int64_t i = 0; i < span->count; i++)
            s->rows[i] = cpu_at(k, s->k, kd + i * p->head_dim);
        k->pack_straight(cpu_at(k, s->k_straight, kd), s->rows, span->count, problem->head_dim);
        s->keys_finite &= k->all_finite(s->rows, span->count, problem->head_dim);
    }
    memset(cpu_at(k, s->dk, kd), 0, (size_t)(span->count * p->head_dim * k->real_size));
    memset(cpu_at(k, s->dv, vd), 0, (size_t)(span->count * p->value_dim * k->real_size));
}

/* Row tiles meet packed queries. */
static void meet_columns(const dkv_scratch *s, const nf_box *box, int64_t n, bool finite)
{
    const backward_call *c = s->call;
    for (int64_t t = 0; t < s->item.tile_count; t++) {
        const cpu_row_tile *tile = &s->tiles[t];
        if (tile->kind == NF_TILE_ABSENT)
            continue;
        const uint32_t *mask = tile->kind == NF_TILE_PARTIAL ? s->mask : NULL;
        if (mask)
            cpu_build_mask(&s->item.walk->work, &s->item.work, &tile->box, box, s->mask);
        meet_queries(c, s, tile->first, tile->positions, n, mask, finite);
        if (c->five)
            add_to_dq(c, s, tile->first, tile->positions, n, mask, s->keys_finite);
    }
}

/* What a column tile of one head's queries got from this item is added to dq in the item's turn. An item whose tiles are
 * all absent there still takes its turn. */
static void take_turn(const dkv_scratch *s, const cpu_span *columns, int64_t head, bool any)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const nf_problem *problem = p->request->problem;
    int32_t turn;
    const int64_t counter = cpu_order_turn(&p->turns, &s->item.work, s->item.index, columns->box, &turn);
    _Atomic int32_t *turns = &c->turns[(s->item.batch * problem->heads + head) * p->turns.counters + counter];
    cpu_order_wait(turns, turn);
    if (any)
        cpu_add_rows(p->kernels, columns, &c->dq_sum, s->item.batch, head, problem->head_dim, p->head_dim, s->dq,
                     p->scale);
    cpu_order_done(turns, turn);
}

/* The queries of every head that reads the keys meet them. */
static void visit_columns(void *context, const cpu_span *columns, bool any, bool partial)
{
    const dkv_scratch *s = context;
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const int64_t group = nf_problem_group(p->request->problem);
    for (int64_t h = 0; h < group; h++) {
        const int64_t head = s->item.kv_head * group + h;
        if (any) {
            if (c->five)
                memset(s->dq, 0, (size_t)(columns->count * p->head_dim * p->kernels->real_size));
            const bool finite = pack_queries(c, s, columns, s->item.batch, head, partial);
            meet_columns(s, columns->box, columns->count, finite);
        }
        if (c->five)
            take_turn(s, columns, head, any);
    }
}

static void store_tile(const dkv_scratch *s, const cpu_row_tile *tile)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const nf_problem *problem = p->request->problem;
    const cpu_span span = cpu_row_span(&s->item, tile);
    if (c->io.dk.data)
        cpu_store_rows(p->kernels, &span, &c->io.dk, s->item.batch, s->item.kv_head, problem->head_dim, p->head_dim,
                       cpu_at(p->kernels, s->dk, tile->first * p->head_dim), p->scale);
    if (c->io.dv.data)
        cpu_store_rows(p->kernels, &span, &c->io.dv, s->item.batch, s->item.kv_head, problem->value_dim, p->value_dim,
                       cpu_at(p->kernels, s->dv, tile->first * p->value_dim), 1);
}

static void dkv_item(dkv_scratch *s, int64_t index)
{
    const backward_call *c = s->call;
    cpu_open_item(&s->item, &c->plan->by_key, c->plan->request->problem, 1, s->tiles, index);
    s->keys_finite = true;
    for (int64_t t = 0; t < s->item.tile_count; t++) {
        const cpu_span span = cpu_row_span(&s->item, &s->tiles[t]);
        load_keys(c, s, &span, &c->io.k, &c->io.v, s->item.batch, s->item.kv_head, s->tiles[t].first);
    }
    cpu_for_columns(&s->item, visit_columns, s);
    for (int64_t t = 0; t < s->item.tile_count; t++)
        store_tile(s, &s->tiles[t]);
}

void cpu_backward_dkv(const backward_call *call, char *workspace)
{
    const cpu_tile_plan *plan = call->plan;
    const int64_t items = plan->by_key.items;
#pragma omp parallel num_threads((int)plan->threads)
    {
        dkv_scratch scratch = {.call = call};
        cpu_arena arena = {.base = workspace + (size_t)cpu_thread_index() * plan->thread_bytes};
        carve_dkv(plan, &arena, &scratch);
#pragma omp for schedule(monotonic : dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            dkv_item(&scratch, i);
    }
}

/* Where the partial sums of a tile of extra tokens lie: dk rows, then dv rows. */
static void *partial_sum(const backward_call *c, int64_t stream, int64_t split, int64_t tile, bool values)
{
    const cpu_tile_plan *p = c->plan;
    const int64_t slot = (stream * p->extra_splits + split) * p->extra_tiles + tile;
    const int64_t reals = slot * CPU_TILE_ROWS * (p->head_dim + p->value_dim)
                          + (values ? CPU_TILE_ROWS * p->head_dim : 0);
    return cpu_at(p->kernels, c->partial, reals);
}

static cpu_span extra_span(const nf_problem *problem, int64_t tile)
{
    const int64_t begin = tile * CPU_TILE_ROWS;
    return (cpu_span){.count = nf_min64(CPU_TILE_ROWS, problem->extra - begin), .begin = begin,
                      .extents = &problem->extra, .rank = 1};
}

/* One tile of extra tokens against one part of the queries of its heads; the sums go to partial. */
static void extra_item(const backward_call *c, dkv_scratch *s, int64_t index)
{
    const cpu_tile_plan *p = c->plan;
    const nf_problem *problem = p->request->problem;
    const int64_t group = nf_problem_group(problem), tile = index % p->extra_tiles;
    const int64_t split = index / p->extra_tiles % p->extra_splits;
    const int64_t stream = index / p->extra_tiles / p->extra_splits;
    const int64_t batch = stream / problem->kv_heads, kv_head = stream % problem->kv_heads;
    const cpu_span rows = extra_span(problem, tile);
    int64_t extents[NF_MAX_RANK], queries = 1;
    for (int32_t a = 0; a < problem->rank; a++)
        queries *= extents[a] = nf_axis_query_range(&problem->axis[a]).count;
    const int64_t part = (queries + p->extra_splits - 1) / p->extra_splits;
    const int64_t begin = nf_min64(split * part, queries), end = nf_min64(begin + part, queries);
    load_keys(c, s, &rows, &c->io.extra_k, &c->io.extra_v, batch, kv_head, 0);
    for (int64_t i = begin; i < end; i += p->by_key.columns) {
        const cpu_span columns = {.count = nf_min64(p->by_key.columns, end - i), .begin = i, .extents = extents,
                                  .rank = problem->rank};
        for (int64_t h = 0; h < group; h++) {
            pack_queries(c, s, &columns, batch, kv_head * group + h, false);
            meet_queries(c, s, 0, rows.count, columns.count, NULL, true);
        }
    }
    const int64_t real = p->kernels->real_size;
    memcpy(partial_sum(c, stream, split, tile, false), s->dk, (size_t)(rows.count * p->head_dim * real));
    memcpy(partial_sum(c, stream, split, tile, true), s->dv, (size_t)(rows.count * p->value_dim * real));
}

static void add_reals(const cpu_kernels *k, void *sum, const void *term, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        cpu_set_real(k, sum, i, cpu_get_real(k, sum, i) + cpu_get_real(k, term, i));
}

/* Adds up the parts of one tile in a fixed order and writes its gradients. */
static void extra_sum(const backward_call *c, int64_t stream, int64_t tile)
{
    const cpu_tile_plan *p = c->plan;
    const nf_problem *problem = p->request->problem;
    const cpu_span rows = extra_span(problem, tile);
    void *dk = partial_sum(c, stream, 0, tile, false), *dv = partial_sum(c, stream, 0, tile, true);
    for (int64_t split = 1; split < p->extra_splits; split++) {
        add_reals(p->kernels, dk, partial_sum(c, stream, split, tile, false), rows.count * p->head_dim);
        add_reals(p->kernels, dv, partial_sum(c, stream, split, tile, true), rows.count * p->value_dim);
    }
    const int64_t batch = stream / problem->kv_heads, kv_head = stream % problem->kv_heads;
    if (c->io.dextra_k.data)
        cpu_store_rows(p->kernels, &rows, &c->io.dextra_k, batch, kv_head, problem->head_dim, p->head_dim, dk, p->scale);
    if (c->io.dextra_v.data)
        cpu_store_rows(p->kernels, &rows, &c->io.dextra_v, batch, kv_head, problem->value_dim, p->value_dim, dv, 1);
}

void cpu_backward_extra(const backward_call *call, char *workspace)
{
    const cpu_tile_plan *plan = call->plan;
    const int64_t streams = plan->request->problem->batch * plan->request->problem->kv_heads;
    const int64_t items = streams * plan->extra_splits * plan->extra_tiles;
#pragma omp parallel num_threads((int)plan->threads)
    {
        dkv_scratch scratch = {.call = call};
        cpu_arena arena = {.base = workspace + (size_t)cpu_thread_index() * plan->thread_bytes};
        carve_dkv(plan, &arena, &scratch);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            extra_item(call, &scratch, i);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < streams * plan->extra_tiles; i++)
            extra_sum(call, i / plan->extra_tiles, i % plan->extra_tiles);
    }
}
