/* Backward of the stencil: dq with queries in the lanes and lines of keys, dk and dv with keys in the lanes and lines of
 * queries. The sums of a block of rows live in one place only, so threads share none. */
#include <string.h>

#include "backends/cpu/backward.h"
#include "backends/cpu/stencil.h"

typedef struct stencil_call {
    const cpu_stencil_plan *plan;
    const cpu_stencil_walk *walk;
    bool by_key;
    cpu_views io;
} stencil_call;

/* Workspace of one thread. rows[0] meets line matrix 0 to make scores, rows[1] matrix 1 to make their gradients. */
typedef struct stencil_scratch {
    const stencil_call *call;
    cpu_stencil_item item;
    cpu_stencil_ring ring;
    void *rows[2], *lse, *delta; /* of a block: q and dout, or k and v */
    void *sums[2];               /* dq, or dk and dv */
    void *scores, *dscores;
    void *converted, *converted2;
    const void **pointers, **pointers2;
} stencil_scratch;

static void carve(const stencil_call *c, cpu_arena *arena, stencil_scratch *s)
{
    const cpu_stencil_plan *p = c->plan;
    const cpu_stencil_walk *w = c->walk;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t real = k->real_size, wide = nf_max64(p->head_dim, p->value_dim), block = w->block_rows * k->lanes;
    s->ring = (cpu_stencil_ring){.depth = {problem->head_dim, problem->value_dim},
                                 .width = {p->head_dim, c->by_key ? p->value_dim : 0}};
    cpu_stencil_take_item(arena, w, &s->item);
    cpu_stencil_take_ring(arena, w, real, &s->ring);
    for (int i = 0; i < 2; i++) {
        s->rows[i] = cpu_take(arena, block * wide * real);
        s->sums[i] = cpu_take(arena, block * wide * real);
    }
    s->lse = cpu_take(arena, block * real);
    s->delta = cpu_take(arena, block * real);
    s->scores = cpu_take(arena, block * w->chunk * w->slots * real);
    s->dscores = cpu_take(arena, block * w->chunk * w->slots * real);
    s->converted = cpu_take(arena, CPU_MAX_COLUMNS * wide * real);
    s->converted2 = cpu_take(arena, CPU_MAX_COLUMNS * wide * real);
    s->pointers = cpu_take(arena, CPU_MAX_COLUMNS * (int64_t)sizeof *s->pointers);
    s->pointers2 = cpu_take(arena, CPU_MAX_COLUMNS * (int64_t)sizeof *s->pointers2);
}

size_t cpu_stencil_backward_bytes(const cpu_stencil_plan *plan)
{
    size_t most = 0;
    for (int by_key = 0; by_key < 2; by_key++) {
        const stencil_call call = {.plan = plan, .by_key = by_key, .walk = by_key ? &plan->by_key : &plan->by_query};
        cpu_arena arena = {0};
        stencil_scratch scratch;
        carve(&call, &arena, &scratch);
        most = arena.used > most ? arena.used : most;
    }
    return most;
}

/* lse and delta of a span of queries. */
static void load_terms(stencil_scratch *s, const cpu_span *span, int64_t head, void *lse, void *delta)
{
    const stencil_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const int64_t n = c->plan->request->problem->value_dim, stride = c->plan->value_dim;
    cpu_fetch_rows(k, span, &c->io.out, s->item.batch, head, n, stride, s->converted, s->pointers);
    cpu_fetch_rows(k, span, &c->io.dout, s->item.batch, head, n, stride, s->converted2, s->pointers2);
    cpu_row_terms(k, span, &c->io.lse, &c->io.dlse, s->item.batch, head, n, s->pointers, s->pointers2, lse, delta);
}

static void pack_terms(stencil_scratch *s, const nf_box *line, int64_t head, int64_t slot)
{
    const cpu_stencil_walk *walk = s->call->walk;
    const cpu_kernels *k = s->call->plan->kernels;
    const int32_t last = walk->work.grid->rank - 1;
    const nf_interval hull = line->axis[last];
    nf_box part = *line;
    for (int32_t x = hull.begin; x < hull.end; x = part.axis[last].end) {
        part.axis[last] = (nf_interval){x, nf_min32(x + CPU_MAX_COLUMNS, hull.end)};
        const cpu_span span = {.count = nf_interval_size(part.axis[last]), .item = &s->item.item, .box = &part,
                               .rows = walk->work.spec.rows, .columns = true, .rank = last + 1};
        const int64_t at = slot * walk->line_stride + x - hull.begin;
        load_terms(s, &span, head, cpu_at(k, s->ring.lse, at), cpu_at(k, s->ring.delta, at));
    }
}

static void pack_line(void *context, const nf_box *line, int64_t ring_head, int64_t slot)
{
    stencil_scratch *s = context;
    const stencil_call *c = s->call;
    const nf_problem *problem = c->plan->request->problem;
    const int64_t head = c->by_key ? s->item.kv_head * nf_problem_group(problem) + ring_head : s->item.kv_head;
    cpu_stencil_pack_line(&s->item, &s->ring, c->plan->kernels, line, slot, c->by_key ? &c->io.q : &c->io.k, head, 0, 0,
                          problem->head_dim, s->converted, s->pointers);
    cpu_stencil_pack_line(&s->item, &s->ring, c->plan->kernels, line, slot, c->by_key ? &c->io.dout : &c->io.v, head, 1,
                          c->by_key ? 1 : -1, problem->value_dim, s->converted, s->pointers);
    if (c->by_key)
        pack_terms(s, line, head, slot);
}

static void load_rows(stencil_scratch *s, const cpu_span *span, const cpu_view *view, int64_t head, int which, int64_t r,
                      int64_t n)
{
    const cpu_kernels *k = s->call->plan->kernels;
    cpu_fetch_rows(k, span, view, s->item.batch, head, n, (n + k->lanes - 1) / k->lanes * k->lanes, s->converted,
                   s->pointers);
    k->pack_line(cpu_at(k, s->rows[which], r * n * k->lanes), k->lanes, s->pointers, span->count, n);
}

static void load_block(stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t head)
{
    const stencil_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const nf_problem *problem = c->plan->request->problem;
    nf_box box;
    for (int32_t r = 0; r < end - first; r++) {
        const cpu_span span = cpu_stencil_span(&s->item, outer, first + r, b, k->lanes, &box);
        load_rows(s, &span, c->by_key ? &c->io.k : &c->io.q, head, 0, r, problem->head_dim);
        load_rows(s, &span, c->by_key ? &c->io.v : &c->io.dout, head, 1, r, problem->value_dim);
        if (c->by_key)
            continue;
        for (int64_t l = span.count; l < k->lanes; l++) {
            cpu_set_real(k, s->lse, r * k->lanes + l, 0);
            cpu_set_real(k, s->delta, r * k->lanes + l, 0);
        }
        load_terms(s, &span, head, cpu_at(k, s->lse, r * k->lanes), cpu_at(k, s->delta, r * k->lanes));
    }
}

static void meet_lines(stencil_scratch *s, int64_t b, int64_t rows)
{
    const stencil_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_lanes *lanes = &s->item.lanes[b];
    for (int64_t i = 0; lanes->slots && i < s->item.line_count; i += c->walk->chunk) {
        const cpu_line *lines = &s->item.lines[i];
        const int64_t count = nf_min64(c->walk->chunk, s->item.line_count - i);
        k->stencil_scores(lanes, lines, count, 0, c->walk->line_stride, s->rows[0], p->request->problem->head_dim,
                          s->scores);
        k->stencil_scores(lanes, lines, count, 1, c->walk->line_stride, s->rows[1], p->request->problem->value_dim,
                          s->dscores);
        k->stencil_gradient(lanes, lines, count, rows, p->scale, s->scores, s->dscores, c->by_key ? NULL : s->lse,
                            c->by_key ? NULL : s->delta);
        k->stencil_apply(lanes, lines, count, rows, 0, s->dscores, s->sums[0], p->head_dim);
        if (c->by_key)
            k->stencil_apply(lanes, lines, count, rows, 1, s->scores, s->sums[1], p->value_dim);
    }
}

static void store_sums(stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b,
                       const cpu_view *view, int64_t head, int which, int64_t n, int64_t stride, double factor)
{
    const cpu_kernels *k = s->call->plan->kernels;
    if (!view->data)
        return;
    for (int32_t r = 0; r < end - first; r++) {
        nf_box box;
        const cpu_span span = cpu_stencil_span(&s->item, outer, first + r, b, k->lanes, &box);
        cpu_store_rows(k, &span, view, s->item.batch, head, n, stride, cpu_at(k, s->sums[which], r * k->lanes * stride),
                       factor);
    }
}

/* One vector of rows in each of rows first .. end - 1: dq of one query head, or dk and dv of the key/value head. */
static void backward_block(stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t head)
{
    const stencil_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t rows = end - first, block = rows * k->lanes * k->real_size;
    load_block(s, outer, first, end, b, head);
    memset(s->sums[0], 0, (size_t)(block * p->head_dim));
    memset(s->sums[1], 0, (size_t)(block * p->value_dim));
    for (int64_t h = 0; h < c->walk->heads; h++) {
        cpu_stencil_list_lines(&s->item, &s->ring, k, outer, first, end, h);
        meet_lines(s, b, rows);
    }
    if (c->by_key) {
        store_sums(s, outer, first, end, b, &c->io.dk, head, 0, problem->head_dim, p->head_dim, p->scale);
        store_sums(s, outer, first, end, b, &c->io.dv, head, 1, problem->value_dim, p->value_dim, 1);
    } else {
        store_sums(s, outer, first, end, b, &c->io.dq, head, 0, problem->head_dim, p->head_dim, p->scale);
    }
}

static void backward_item(stencil_scratch *s, int64_t index)
{
    const stencil_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const nf_problem *problem = p->request->problem;
    const int64_t heads = c->by_key ? 1 : nf_problem_group(problem);
    cpu_stencil_open(&s->item, c->walk, problem, p->kernels->lanes, index);
    const int64_t outer_count = cpu_stencil_outer_count(&s->item);
    const nf_interval rows = cpu_stencil_line_rows(&s->item);
    for (int32_t y = rows.begin; y < rows.end; y += (int32_t)c->walk->block_rows) {
        const int32_t end = nf_min32(y + (int32_t)c->walk->block_rows, rows.end);
        cpu_stencil_advance(&s->item, y, end, pack_line, s);
        for (int64_t o = 0; o < outer_count; o++) {
            nf_box outer;
            cpu_stencil_outer(&s->item, o, &outer);
            for (int64_t h = 0; h < heads; h++)
                for (int64_t b = 0; b < s->item.lane_blocks; b++)
                    backward_block(s, &outer, y, end, b, s->item.kv_head * heads + h);
        }
    }
}

static void run(const stencil_call *call, char *workspace)
{
    const int64_t items = call->walk->items;
#pragma omp parallel num_threads((int)call->plan->threads)
    {
        stencil_scratch scratch = {.call = call};
        cpu_arena arena = {.base = workspace + (size_t)cpu_thread_index() * call->plan->thread_bytes};
        carve(call, &arena, &scratch);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            backward_item(&scratch, i);
    }
}

nf_status cpu_stencil_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_stencil_plan *plan = prepared;
    stencil_call call = {.plan = plan, .walk = &plan->by_query, .io = cpu_views_of(io, plan->request->problem->rank)};
    if (call.io.dq.data)
        run(&call, workspace);
    call.by_key = true;
    call.walk = &plan->by_key;
    if (call.io.dk.data || call.io.dv.data)
        run(&call, workspace);
    return NF_OK;
}
