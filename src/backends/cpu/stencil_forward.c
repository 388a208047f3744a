/* Forward of the stencil: for each block of query rows pack the lines of keys and values it adds to the ring, then for each
 * head and each vector of queries scores, softmax and values of all lines seen, a chunk of lines at a time. */
#include <math.h>
#include <string.h>

#include "backends/cpu/stencil.h"

typedef struct forward_call {
    const cpu_stencil_plan *plan;
    cpu_views io;
} forward_call;

/* Workspace of one thread. */
typedef struct forward_scratch {
    const forward_call *call;
    cpu_stencil_item item;
    cpu_stencil_ring ring; /* k transposed, v straight */
    void *q, *scores, *max, *sum, *out;
    void *converted;
    const void **rows;
} forward_scratch;

static void carve(const cpu_stencil_plan *p, cpu_arena *arena, forward_scratch *s)
{
    const cpu_stencil_walk *w = &p->by_query;
    const cpu_kernels *k = p->kernels;
    const int64_t real = k->real_size, block = w->block_rows * k->lanes;
    s->ring = (cpu_stencil_ring){.depth = {p->request->problem->head_dim}, .width = {p->value_dim}};
    cpu_stencil_take_item(arena, w, &s->item);
    cpu_stencil_take_ring(arena, w, real, &s->ring);
    s->q = cpu_take(arena, block * p->head_dim * real);
    s->scores = cpu_take(arena, block * w->chunk * w->slots * real);
    s->max = cpu_take(arena, block * real);
    s->sum = cpu_take(arena, block * real);
    s->out = cpu_take(arena, block * p->value_dim * real);
    s->converted = cpu_take(arena, CPU_MAX_COLUMNS * nf_max64(p->head_dim, p->value_dim) * real);
    s->rows = cpu_take(arena, CPU_MAX_COLUMNS * (int64_t)sizeof *s->rows);
}

size_t cpu_stencil_forward_bytes(const cpu_stencil_plan *plan)
{
    cpu_arena arena = {0};
    forward_scratch scratch;
    carve(plan, &arena, &scratch);
    return arena.used;
}

static void pack_keys(void *context, const nf_box *line, int64_t head, int64_t slot)
{
    forward_scratch *s = context;
    const forward_call *c = s->call;
    const nf_problem *problem = c->plan->request->problem;
    (void)head;
    cpu_stencil_pack_line(&s->item, &s->ring, c->plan->kernels, line, slot, &c->io.k, s->item.kv_head, 0, -1,
                          problem->head_dim, s->converted, s->rows);
    cpu_stencil_pack_line(&s->item, &s->ring, c->plan->kernels, line, slot, &c->io.v, s->item.kv_head, -1, 0,
                          problem->value_dim, s->converted, s->rows);
}

/* One vector of queries in each of rows first .. end - 1. */
static void forward_block(forward_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t head)
{
    const forward_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_stencil_walk *walk = s->item.walk;
    const int64_t depth = p->request->problem->head_dim, rows = end - first, block = rows * k->lanes;
    const cpu_lanes *lanes = &s->item.lanes[b];
    nf_box box;
    for (int32_t r = 0; r < rows; r++) {
        const cpu_span span = cpu_stencil_span(&s->item, outer, first + r, b, k->lanes, &box);
        cpu_fetch_rows(k, &span, &c->io.q, s->item.batch, head, depth, p->head_dim, s->converted, s->rows);
        k->pack_line(cpu_at(k, s->q, r * depth * k->lanes), k->lanes, s->rows, span.count, depth);
    }
    for (int64_t i = 0; i < block; i++) {
        cpu_set_real(k, s->max, i, -INFINITY);
        cpu_set_real(k, s->sum, i, 0);
    }
    memset(s->out, 0, (size_t)(block * p->value_dim * k->real_size));
    for (int64_t i = 0; lanes->slots && i < s->item.line_count; i += walk->chunk) {
        const cpu_line *lines = &s->item.lines[i];
        const int64_t count = nf_min64(walk->chunk, s->item.line_count - i);
        k->stencil_scores(lanes, lines, count, 0, walk->line_stride, s->q, depth, s->scores);
        k->stencil_softmax(lanes, lines, count, rows, p->scale, s->scores, s->max, s->sum, s->out, p->value_dim);
        k->stencil_apply(lanes, lines, count, rows, 0, s->scores, s->out, p->value_dim);
    }
    for (int32_t r = 0; r < rows; r++) {
        const cpu_span span = cpu_stencil_span(&s->item, outer, first + r, b, k->lanes, &box);
        const int64_t lane = r * k->lanes;
        cpu_store_softmax(k, &span, &c->io.out, &c->io.lse, s->item.batch, head, p->request->problem->value_dim, p->value_dim,
                          cpu_at(k, s->out, lane * p->value_dim), cpu_at(k, s->max, lane), cpu_at(k, s->sum, lane));
    }
}

static void forward_item(forward_scratch *s, int64_t index)
{
    const cpu_stencil_plan *p = s->call->plan;
    const nf_problem *problem = p->request->problem;
    const int64_t group = nf_problem_group(problem);
    cpu_stencil_open(&s->item, &p->by_query, problem, p->kernels->lanes, index);
    const int64_t outer_count = cpu_stencil_outer_count(&s->item);
    const nf_interval rows = cpu_stencil_line_rows(&s->item);
    for (int32_t y = rows.begin; y < rows.end; y += (int32_t)p->by_query.block_rows) {
        const int32_t end = nf_min32(y + (int32_t)p->by_query.block_rows, rows.end);
        cpu_stencil_advance(&s->item, y, end, pack_keys, s);
        for (int64_t o = 0; o < outer_count; o++) {
            nf_box outer;
            cpu_stencil_outer(&s->item, o, &outer);
            cpu_stencil_list_lines(&s->item, &s->ring, p->kernels, &outer, y, end, 0);
            for (int64_t h = 0; h < group; h++)
                for (int64_t b = 0; b < s->item.lane_blocks; b++)
                    forward_block(s, &outer, y, end, b, s->item.kv_head * group + h);
        }
    }
}

nf_status cpu_stencil_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_stencil_plan *plan = prepared;
    const forward_call call = {.plan = plan, .io = cpu_views_of(io, plan->request->problem->rank)};
    const int64_t items = plan->by_query.items;
    char *base = workspace;
#pragma omp parallel num_threads((int)plan->threads)
    {
        forward_scratch scratch = {.call = &call};
        cpu_arena arena = {.base = base + (size_t)cpu_thread_index() * plan->thread_bytes};
        carve(plan, &arena, &scratch);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            forward_item(&scratch, i);
    }
    return NF_OK;
}
