/* dk and dv, and with five products dq: an item's keys stay, boxes of queries pass by. Keys lie in the lanes: s = q k^T, dp =
 * dout v^T, dv += p^T dout, dk += ds^T q, and what a box adds to dq is ds k. The same step serves the gradients of extra
 * tokens, which all queries pass by. */
#include <string.h>

#include "backends/cpu/backward.h"
#include "backends/cpu/backward_keys.h"

/* Workspace of one thread. */
typedef struct dkv_scratch {
    const backward_call *call;
    cpu_item item;
    cpu_row_tile *tiles;
    cpu_span queries, next;                      /* the box at hand, and the one after it; maybe none */
    int64_t head, next_head;
    int64_t keys;                                /* of the item */
    bool keys_finite;
    void *k_transposed, *v_transposed, *k_straight;
    void *dk, *dv;
    void *q, *dout, *q_straight, *dout_straight; /* of a box of queries */
    void *lse, *delta;
    void *scores, *dscores, *dq;
    void *converted;
    cpu_key_masks masks;
    uint32_t *mask;
    const void **rows;
} dkv_scratch;

static int64_t most_keys(const cpu_tile_plan *p)
{
    return nf_max64(p->by_key.tile_rows, CPU_TILE_ROWS);
}

static int64_t score_stride(const cpu_tile_plan *p)
{
    return most_keys(p) + p->kernels->panel + CPU_SCORE_PAD;
}

static void carve_dkv(const cpu_tile_plan *p, cpu_arena *arena, dkv_scratch *s)
{
    const int64_t real = p->kernels->real_size, wide = nf_max64(p->head_dim, p->value_dim);
    const int64_t keys = most_keys(p), room = keys + p->kernels->panel, queries = p->by_key.columns;
    const int64_t mask_bytes = queries * CPU_MASK_WORDS * (int64_t)sizeof *s->mask;
    s->tiles = cpu_take(arena, (int64_t)sizeof *s->tiles);
    s->k_transposed = cpu_take(arena, room * p->head_dim * real);
    s->v_transposed = cpu_take(arena, room * p->value_dim * real);
    s->k_straight = cpu_take(arena, room * p->head_dim * real);
    s->dk = cpu_take(arena, keys * p->head_dim * real);
    s->dv = cpu_take(arena, keys * p->value_dim * real);
    s->q = cpu_take(arena, queries * p->head_dim * real);
    s->dout = cpu_take(arena, queries * p->value_dim * real);
    s->q_straight = cpu_take(arena, (queries + 1) * p->head_dim * real);
    s->dout_straight = cpu_take(arena, (queries + 1) * p->value_dim * real);
    s->lse = cpu_take(arena, queries * real);
    s->delta = cpu_take(arena, queries * real);
    s->scores = cpu_take(arena, queries * score_stride(p) * real);
    s->dscores = cpu_take(arena, queries * score_stride(p) * real);
    s->dq = cpu_take(arena, p->five ? queries * p->head_dim * real : 0);
    s->converted = cpu_take(arena, keys * wide * real);
    s->masks.words = cpu_take(arena, mask_bytes);
    s->mask = cpu_take(arena, mask_bytes);
    s->rows = cpu_take(arena, nf_max64(keys, queries) * (int64_t)sizeof *s->rows);
}

size_t cpu_backward_dkv_bytes(const cpu_tile_plan *plan)
{
    cpu_arena arena = {0};
    dkv_scratch scratch;
    carve_dkv(plan, &arena, &scratch);
    return arena.used;
}

/* Packs keys and values and clears their sums. */
static void load_keys(const backward_call *c, dkv_scratch *s, const cpu_span *span, const cpu_view *keys,
                      const cpu_view *values, int64_t batch, int64_t kv_head)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t n = s->keys = span->count;
    cpu_fetch_rows(k, span, keys, batch, kv_head, problem->head_dim, p->head_dim, s->converted, s->rows);
    k->pack_transposed(s->k_transposed, s->rows, n, problem->head_dim);
    if (c->five) {
        k->pack_straight(s->k_straight, s->rows, n, problem->head_dim);
        s->keys_finite = k->all_finite(s->rows, n, problem->head_dim);
    }
    cpu_fetch_rows(k, span, values, batch, kv_head, problem->value_dim, p->value_dim, s->converted, s->rows);
    k->pack_transposed(s->v_transposed, s->rows, n, problem->value_dim);
    memset(s->dk, 0, (size_t)(n * p->head_dim * k->real_size));
    memset(s->dv, 0, (size_t)(n * p->value_dim * k->real_size));
    s->masks.places = 0;
}

/* Loads rows of queries, or of dout, for a product from the left, and packs them for one from the right. */
static void load_side(const backward_call *c, const dkv_scratch *s, const cpu_span *span, const cpu_view *view, int64_t batch,
                      int64_t head, int64_t n, int64_t stride, void *rows, void *straight)
{
    const cpu_kernels *k = c->plan->kernels;
    cpu_load_rows(k, span, view, batch, head, n, stride, rows);
    for (int64_t i = 0; i < span->count; i++)
        s->rows[i] = cpu_at(k, rows, i * stride);
    k->pack_straight(straight, s->rows, span->count, n);
}

/* Loads a box of queries of one head. Returns whether q and dout are finite throughout. */
static bool load_queries(const backward_call *c, const dkv_scratch *s, const cpu_span *span, int64_t batch, int64_t head,
                         bool check_finite)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    load_side(c, s, span, &c->io.q, batch, head, problem->head_dim, p->head_dim, s->q, s->q_straight);
    bool finite = !check_finite || k->all_finite(s->rows, span->count, problem->head_dim);
    load_side(c, s, span, &c->io.dout, batch, head, problem->value_dim, p->value_dim, s->dout, s->dout_straight);
    finite = finite && (!check_finite || k->all_finite(s->rows, span->count, problem->value_dim));
    cpu_load_row_terms(c, span, batch, head, s->lse, s->delta);
    return finite;
}

/* Asks for the rows of a box of queries ahead of their use: they lie far apart, and products hide the time they take. */
static void prefetch_rows(const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head, int64_t n)
{
    enum { LINE = 64 };
    int64_t offsets[CPU_MAX_COLUMNS];
    if (span->count == 0 || view->dim != 1)
        return;
    cpu_span_offsets(span, view, offsets);
    const int64_t base = batch * view->batch + head * view->head, bytes = n * view->element;
    for (int64_t i = 0; i < span->count; i++) {
        const char *row = view->data + (base + offsets[i]) * view->element;
        for (int64_t at = 0; at < bytes; at += LINE)
            __builtin_prefetch(row + at, 0, 2);
        __builtin_prefetch(row + bytes - 1, 0, 2);
    }
}

/* p and ds of m queries and a run of the item's keys. The run is widened to start at a whole vector: returns by how much. */
static int64_t find_scores(const backward_call *c, const dkv_scratch *s, int64_t m, cpu_key_run run, const uint32_t *mask)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t first = run.begin / k->lanes * k->lanes, n = run.end - first;
    const cpu_part keys = {.data = s->k_transposed, .depth = problem->head_dim, .columns = s->keys, .first_column = first};
    const cpu_part values = {.data = s->v_transposed, .depth = problem->value_dim, .columns = s->keys,
                             .first_column = first};
    k->product_part(s->scores, score_stride(p), s->q, p->head_dim, &keys, m, n, problem->head_dim);
    prefetch_rows(&s->next, &c->io.q, s->item.batch, s->next_head, problem->head_dim);
    k->product_part(s->dscores, score_stride(p), s->dout, p->value_dim, &values, m, n, problem->value_dim);
    prefetch_rows(&s->next, &c->io.dout, s->item.batch, s->next_head, problem->value_dim);
    k->gradient(s->scores, s->dscores, score_stride(p), m, n, p->scale, mask, m, s->lse, s->delta, false);
    return run.begin - first;
}

/* The queries that are loaded meet a run of keys. A mask starts at the run's first whole vector. */
static void meet_keys(const backward_call *c, const dkv_scratch *s, int64_t m, cpu_key_run run, const uint32_t *mask,
                      bool finite)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t stride = score_stride(p), n = run.end - run.begin, shift = find_scores(c, s, m, run, mask);
    const void *scores = cpu_at(k, s->scores, shift), *dscores = cpu_at(k, s->dscores, shift);
    void *dk = cpu_at(k, s->dk, run.begin * p->head_dim), *dv = cpu_at(k, s->dv, run.begin * p->value_dim);
    if (finite) {
        k->product_transposed(dv, p->value_dim, scores, stride, s->dout_straight, n, problem->value_dim, m, true);
        k->product_transposed(dk, p->head_dim, dscores, stride, s->q_straight, n, problem->head_dim, m, true);
    } else {
        k->product_transposed_masked(dv, p->value_dim, scores, stride, s->dout_straight, n, problem->value_dim, m, mask, m);
        k->product_transposed_masked(dk, p->head_dim, dscores, stride, s->q_straight, n, problem->head_dim, m, mask, m);
    }
    if (!c->five)
        return;
    prefetch_rows(&s->queries, &c->dq_sum, s->item.batch, s->head, problem->head_dim);
    if (!mask || s->keys_finite) {
        const cpu_part keys = {.data = s->k_straight, .depth = s->keys, .columns = problem->head_dim,
                               .first_row = run.begin};
        k->product_part(s->dq, p->head_dim, dscores, stride, &keys, m, problem->head_dim, n);
    } else {
        memset(s->dq, 0, (size_t)(m * p->head_dim * k->real_size));
        k->product_masked(s->dq, p->head_dim, dscores, stride, s->k_straight, m, problem->head_dim, n, mask, m);
    }
}

/* What a box of one head's queries got from this item is added to dq in the item's turn. An item that they see nothing of
 * still takes its turn. */
static void take_turn(const dkv_scratch *s, bool any)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const nf_problem *problem = p->request->problem;
    int32_t turn;
    const int64_t counter = cpu_order_turn(&p->turns, &s->item.work, s->item.index, s->queries.box, &turn);
    _Atomic int32_t *turns = &c->turns[(s->item.batch * problem->heads + s->head) * p->turns.counters + counter];
    cpu_order_wait(turns, turn);
    if (any)
        cpu_add_rows(p->kernels, &s->queries, &c->dq_sum, s->item.batch, s->head, problem->head_dim, p->head_dim, s->dq,
                     p->scale);
    cpu_order_done(turns, turn);
}

/* The box of queries at hand, of every head that reads the keys, meets them. */
static void meet_queries(dkv_scratch *s, const cpu_span *next)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const int64_t group = nf_problem_group(p->request->problem), lanes = p->kernels->lanes;
    cpu_key_run run = cpu_find_key_run(&s->item, s->queries.box);
    const bool any = run.begin < run.end;
    const uint32_t *mask = any && !run.whole ? s->mask : NULL;
    if (mask)
        cpu_build_key_masks(&s->masks, &s->item, s->queries.box, run.begin / lanes * lanes, s->mask);
    for (int64_t h = 0; h < group; h++) {
        s->head = s->item.kv_head * group + h;
        s->next = h + 1 < group ? s->queries : *next;
        s->next_head = h + 1 < group ? s->head + 1 : s->item.kv_head * group;
        if (any) {
            const bool finite = load_queries(c, s, &s->queries, s->item.batch, s->head, mask != NULL);
            /* products that leave out what is masked take a mask of all keys */
            if (mask && run.end - run.begin < s->keys && !(finite && (s->keys_finite || !c->five))) {
                run = (cpu_key_run){0, s->keys, false};
                cpu_build_key_masks(&s->masks, &s->item, s->queries.box, 0, s->mask);
            }
            meet_keys(c, s, s->queries.count, run, mask, finite);
        }
        if (c->five)
            take_turn(s, any);
    }
}

static void store_keys(const dkv_scratch *s, const cpu_span *span)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const nf_problem *problem = p->request->problem;
    const int64_t batch = s->item.batch, head = s->item.kv_head, k_dim = problem->head_dim, v_dim = problem->value_dim;
    if (c->io.dk.data)
        cpu_store_rows(p->kernels, span, &c->io.dk, batch, head, k_dim, p->head_dim, s->dk, p->scale);
    if (c->io.dv.data)
        cpu_store_rows(p->kernels, span, &c->io.dv, batch, head, v_dim, p->value_dim, s->dv, 1);
}

/* The index-th box of queries, as a span; none past the last. */
static cpu_span query_box(const dkv_scratch *s, int64_t index, nf_box *box)
{
    const nf_work *work = &s->item.walk->work;
    if (index == nf_work_column_tile_count(work, &s->item.work))
        return (cpu_span){0};
    nf_work_column_tile(work, &s->item.work, index, box);
    return (cpu_span){.count = nf_box_volume(box, work->grid->rank), .item = &s->item.work, .box = box,
                      .rows = NF_ROWS_KEYS, .columns = true, .rank = work->grid->rank};
}

static void for_query_boxes(dkv_scratch *s)
{
    nf_box boxes[2];
    s->queries = query_box(s, 0, &boxes[0]);
    for (int64_t i = 1; s->queries.count; i++) {
        const cpu_span next = query_box(s, i, &boxes[i % 2]);
        meet_queries(s, &next);
        s->queries = next;
    }
}

static void dkv_item(dkv_scratch *s, int64_t index)
{
    const backward_call *c = s->call;
    cpu_open_item(&s->item, &c->plan->by_key, c->plan->request->problem, 1, s->tiles, index);
    const cpu_span span = cpu_row_span(&s->item, s->tiles);
    load_keys(c, s, &span, &c->io.k, &c->io.v, s->item.batch, s->item.kv_head);
    for_query_boxes(s);
    store_keys(s, &span);
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
    load_keys(c, s, &rows, &c->io.extra_k, &c->io.extra_v, batch, kv_head);
    for (int64_t i = begin; i < end; i += p->by_key.columns) {
        const cpu_span columns = {.count = nf_min64(p->by_key.columns, end - i), .begin = i, .extents = extents,
                                  .rank = problem->rank};
        for (int64_t h = 0; h < group; h++) {
            load_queries(c, s, &columns, batch, kv_head * group + h, false);
            meet_keys(c, s, columns.count, (cpu_key_run){0, rows.count, true}, NULL, true);
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
