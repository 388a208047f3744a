/* dk and dv, and with five products dq: an item's keys stay, boxes of queries pass by. The same step serves the gradients of
 * extra tokens, which all queries pass by. */
#include <string.h>

#include "backends/cpu/backward_dkv.h"

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

/* Where queries of one head of a box are loaded to. */
static int64_t slot_of(const dkv_scratch *s, int64_t box, int64_t group, int64_t h)
{
    return nf_min64(box * group + h, s->call->plan->kept_boxes);
}

/* The index-th box of queries, of every head that reads the keys, meets them. */
static void meet_queries(dkv_scratch *s, int64_t index, const cpu_span *next)
{
    const backward_call *c = s->call;
    const cpu_tile_plan *p = c->plan;
    const int64_t group = nf_problem_group(p->request->problem);
    const cpu_key_run run = cpu_find_key_run(&s->item, s->queries.box);
    const bool any = run.begin < run.end;
    uint32_t *mask = any && !run.whole ? s->mask : NULL;
    bool made = false;
    for (int64_t h = 0; h < group; h++) {
        s->head = s->item.kv_head * group + h;
        s->next = h + 1 < group ? s->queries : *next;
        s->next_head = h + 1 < group ? s->head + 1 : s->item.kv_head * group;
        s->slot = slot_of(s, index, group, h);
        s->next_slot = s->next.count ? slot_of(s, index, group, h + 1) : c->plan->kept_boxes;
        if (any) {
            cpu_dkv_load_queries(s, &s->queries, s->item.batch, s->head);
            if (mask && !made)
                cpu_build_key_masks(&s->masks, &s->item, s->queries.box, run.begin, mask);
            made = cpu_dkv_meet_keys(s, s->queries.count, run, mask);
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
                      .rows = NF_ROWS_KEYS, .columns = true, .rank = work->grid->rank, .lead = s->item.walk->lead};
}

static void for_query_boxes(dkv_scratch *s)
{
    nf_box boxes[2];
    s->queries = query_box(s, 0, &boxes[0]);
    for (int64_t i = 1; s->queries.count; i++) {
        const cpu_span next = query_box(s, i, &boxes[i % 2]);
        meet_queries(s, i - 1, &next);
        s->queries = next;
    }
}

static void dkv_item(dkv_scratch *s, int64_t index)
{
    const backward_call *c = s->call;
    cpu_open_item(&s->item, &c->plan->by_key, c->plan->request->problem, 1, s->tiles, index);
    const cpu_span span = cpu_row_span(&s->item, s->tiles);
    const int64_t stream = s->item.batch * c->plan->request->problem->kv_heads + s->item.kv_head;
    if (stream != s->kept_stream) {
        memset(s->kept, 0, (size_t)c->plan->kept_boxes * sizeof *s->kept);
        s->kept_stream = stream;
    }
    cpu_dkv_load_keys(s, &span, &c->io.k, &c->io.v, s->item.batch, s->item.kv_head);
    for_query_boxes(s);
    store_keys(s, &span);
}

void cpu_backward_dkv(const backward_call *call, char *workspace)
{
    const cpu_tile_plan *plan = call->plan;
    const cpu_share share = cpu_share_walk(plan, &plan->by_key, workspace);
#pragma omp parallel num_threads((int)plan->threads)
    {
        dkv_scratch scratch = {.call = call, .kept_stream = -1};
        cpu_arena arena = {.base = workspace + (size_t)cpu_thread_index() * plan->thread_bytes};
        cpu_dkv_carve(plan, &arena, &scratch);
        int64_t stream = -1;
        for (int64_t i; (i = cpu_share_take(&share, &stream)) >= 0;)
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
    s->slot = p->kept_boxes;
    s->next_slot = p->kept_boxes;
    cpu_dkv_load_keys(s, &rows, &c->io.extra_k, &c->io.extra_v, batch, kv_head);
    for (int64_t i = begin; i < end; i += p->by_key.columns) {
        const cpu_span columns = {.count = nf_min64(p->by_key.columns, end - i), .begin = i, .extents = extents,
                                  .rank = problem->rank};
        for (int64_t h = 0; h < group; h++) {
            cpu_dkv_load_queries(s, &columns, batch, kv_head * group + h);
            cpu_dkv_meet_keys(s, columns.count, (cpu_key_run){0, rows.count, true}, NULL);
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
        cpu_dkv_carve(plan, &arena, &scratch);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            extra_item(call, &scratch, i);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < streams * plan->extra_tiles; i++)
            extra_sum(call, i / plan->extra_tiles, i % plan->extra_tiles);
    }
}
