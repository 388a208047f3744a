/* Backward of the stencil, in one walk: for each block of queries scores and their gradients once, then dq into the block
 * and dk and dv into sums that lie in the ring beside their keys and leave it when the last query has seen them. */
#include <string.h>

#include "backends/cpu/stencil.h"

enum { CACHE_LINE = 64 };

typedef struct stencil_call {
    const cpu_stencil_plan *plan;
    cpu_views io;
    bool direct; /* dq goes from registers to its tensor */
    bool stream; /* past the caches */
} stencil_call;

/* Workspace of one thread. Index 0 is about q and k, index 1 about dout and v. */
typedef struct stencil_scratch {
    const stencil_call *call;
    cpu_stencil_item item;
    cpu_stencil_ring ring;
    void *rows[2], *transposed[2], *lse, *delta; /* of a block */
    void *dq, *scales, *scores, *dscores;
    void *converted;
    const void **pointers;
} stencil_scratch;

static void carve(const stencil_call *c, cpu_arena *arena, stencil_scratch *s)
{
    const cpu_stencil_plan *p = c->plan;
    const cpu_stencil_walk *w = &p->backward;
    const cpu_kernels *k = p->kernels;
    const nf_problem *problem = p->request->problem;
    const int64_t real = k->real_size, wide = nf_max64(p->head_dim, p->value_dim), block = w->block_rows * k->lanes;
    const int64_t dim[2] = {p->head_dim, p->value_dim};
    s->ring = (cpu_stencil_ring){.depth = {problem->head_dim, problem->value_dim}, .width = p->head_dim,
                                 .sum_width = {c->io.dk.data ? p->head_dim : 0, c->io.dv.data ? p->value_dim : 0}};
    cpu_stencil_take_item(arena, w, &s->item);
    cpu_stencil_take_ring(arena, w, real, &s->ring);
    for (int i = 0; i < 2; i++) {
        s->rows[i] = cpu_take(arena, block * dim[i] * real);
        s->transposed[i] = cpu_take(arena, block * dim[i] * real);
    }
    s->lse = cpu_take(arena, block * real);
    s->delta = cpu_take(arena, block * real);
    s->dq = cpu_take(arena, block * p->head_dim * real);
    s->scales = cpu_take(arena, block * real);
    s->scores = cpu_take(arena, block * w->chunk * w->slots * real);
    s->dscores = cpu_take(arena, block * w->chunk * w->slots * real);
    s->converted = cpu_take(arena, CPU_MAX_COLUMNS * wide * real);
    s->pointers = cpu_take(arena, CPU_MAX_COLUMNS * (int64_t)sizeof *s->pointers);
}

size_t cpu_stencil_backward_bytes(const cpu_stencil_plan *plan)
{
    static char present;
    const stencil_call call = {.plan = plan, .io = {.dk = {.data = &present}, .dv = {.data = &present}}};
    cpu_arena arena = {0};
    stencil_scratch scratch;
    carve(&call, &arena, &scratch);
    return arena.used;
}

/* Rows of a tensor as reals, `width` apart. */
static void load_run(const stencil_scratch *s, cpu_run run, const cpu_view *view, void *rows, int64_t width, int64_t n)
{
    const void *sources[CPU_MAX_LANES] = {NULL};
    for (int64_t l = 0; l < run.count; l++)
        sources[l] = run.base + l * run.step;
    s->call->plan->kernels->load_rows(rows, width, sources, view->dtype, view->dim, run.count, n);
}

/* Reals, `width` apart, times a factor as rows of a tensor. */
static void store_run(const stencil_scratch *s, cpu_run run, const cpu_view *view, const void *rows, int64_t width,
                      int64_t n, double factor)
{
    const cpu_kernels *k = s->call->plan->kernels;
    double factors[CPU_MAX_LANES];
    void *targets[CPU_MAX_LANES];
    for (int i = 0; i < CPU_MAX_LANES; i++)
        factors[i] = factor;
    for (int64_t x = 0; x < run.count; x += CPU_MAX_LANES) {
        const int64_t count = nf_min64(run.count - x, CPU_MAX_LANES);
        for (int64_t i = 0; i < count; i++)
            targets[i] = run.base + (x + i) * run.step;
        k->store_rows(targets, view->dtype, view->dim, count, n, cpu_at(k, rows, x * width), width, factors);
    }
}

/* Brings the cache lines of rows of a tensor near. */
static void fetch_run(const cpu_view *view, cpu_run run, int64_t n)
{
    for (int64_t i = 0; view->dim == 1 && i < run.count; i++)
        for (int64_t byte = 0; byte < n * view->element; byte += CACHE_LINE)
            __builtin_prefetch(run.base + i * run.step + byte, 0, 2);
}

/* Writes the sums of the item's own columns of a line. */
static void store_line(const stencil_scratch *s, const nf_box *line, int64_t slot, const cpu_view *view, int which,
                       int64_t n, double factor)
{
    const cpu_stencil_walk *walk = s->item.walk;
    const int32_t last = walk->work.grid->rank - 1, origin = s->item.item.segment[last].hull.begin;
    const int64_t width = s->ring.sum_width[which];
    if (!view->data)
        return;
    nf_box own = *line;
    own.axis[last] = s->item.own_columns[last];
    const void *sums = cpu_at(s->call->plan->kernels, s->ring.sums[which],
                              (slot * walk->columns + own.axis[last].begin - origin) * width);
    store_run(s, cpu_stencil_columns(&s->item, view, &own, s->item.kv_head), view, sums, width, n, factor);
}

/* The line that was in a slot before `line` is done with. */
static void retire_line(const stencil_scratch *s, const nf_box *line, int64_t slot)
{
    const cpu_stencil_plan *p = s->call->plan;
    const cpu_stencil_walk *walk = s->item.walk;
    nf_box old = *line;
    if (walk->line_axis >= 0)
        old.axis[walk->line_axis].begin -= (int32_t)walk->ring;
    for (int32_t a = 0; a <= walk->line_axis; a++)
        if (!nf_interval_holds(s->item.own_columns[a], old.axis[a].begin))
            return;
    store_line(s, &old, slot, &s->call->io.dk, 0, p->request->problem->head_dim, p->scale);
    store_line(s, &old, slot, &s->call->io.dv, 1, p->request->problem->value_dim, 1);
}

static void retire(void *context, const nf_box *line, int64_t slot)
{
    retire_line(context, line, slot);
}

/* Fetches the keys and values of the line that will be packed a block of rows from now. */
static void fetch_line(const stencil_scratch *s, const nf_box *line)
{
    const cpu_views *io = &s->call->io;
    const nf_problem *problem = s->call->plan->request->problem;
    const int32_t line_axis = s->item.walk->line_axis;
    nf_box next = *line;
    next.axis[line_axis].begin += (int32_t)s->item.walk->block_rows;
    if (next.axis[line_axis].begin >= cpu_stencil_lines(&s->item).end)
        return;
    fetch_run(&io->k, cpu_stencil_columns(&s->item, &io->k, &next, s->item.kv_head), problem->head_dim);
    fetch_run(&io->v, cpu_stencil_columns(&s->item, &io->v, &next, s->item.kv_head), problem->value_dim);
}

static void pack_line(void *context, const nf_box *line, int64_t slot)
{
    stencil_scratch *s = context;
    const stencil_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const nf_problem *problem = c->plan->request->problem;
    const cpu_stencil_walk *walk = s->item.walk;
    if (walk->line_axis >= 0) {
        retire_line(s, line, slot);
        fetch_line(s, line);
    }
    cpu_stencil_pack_line(&s->item, &s->ring, k, line, slot, &c->io.k, s->item.kv_head, 0, true, problem->head_dim,
                          s->converted, s->pointers);
    cpu_stencil_pack_line(&s->item, &s->ring, k, line, slot, &c->io.v, s->item.kv_head, 1, false, problem->value_dim,
                          s->converted, s->pointers);
    for (int i = 0; i < 2; i++) {
        const int64_t reals = walk->columns * s->ring.sum_width[i];
        memset(cpu_at(k, s->ring.sums[i], slot * reals), 0, (size_t)(reals * k->real_size));
    }
}

/* Row r of a block: q or dout as it is and transposed. */
static void load_rows(const stencil_scratch *s, cpu_run run, const cpu_view *view, int which, int64_t r, int64_t n,
                      int64_t width)
{
    const cpu_kernels *k = s->call->plan->kernels;
    void *rows = cpu_at(k, s->rows[which], r * k->lanes * width);
    load_run(s, run, view, rows, width, n);
    for (int64_t l = 0; l < run.count; l++)
        s->pointers[l] = cpu_at(k, rows, l * width);
    k->pack_line(cpu_at(k, s->transposed[which], r * n * k->lanes), k->lanes, s->pointers, run.count, n);
}

/* Row r of a block, whose dout is loaded: lse, and delta = dout . out - dlse. */
static void load_terms(const stencil_scratch *s, cpu_run out, cpu_run lse, cpu_run dlse, int64_t r)
{
    const stencil_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const int64_t n = c->plan->request->problem->value_dim, width = c->plan->value_dim;
    const bool in_place = c->io.out.dim == 1 && c->io.out.element == k->real_size;
    if (!in_place)
        load_run(s, out, &c->io.out, s->converted, width, n);
    for (int64_t l = 0; l < k->lanes; l++) {
        const int64_t at = r * k->lanes + l;
        const void *row = in_place ? (const void *)(out.base + l * out.step) : cpu_at(k, s->converted, l * width);
        const bool used = l < out.count;
        cpu_set_real(k, s->lse, at, used ? cpu_get_real(k, lse.base + l * lse.step, 0) : 0);
        cpu_set_real(k, s->delta, at, used ? k->dot(row, cpu_at(k, s->rows[1], at * width), n) : 0);
        if (used && c->io.dlse.data)
            cpu_set_real(k, s->delta, at, cpu_get_real(k, s->delta, at) - cpu_get_real(k, dlse.base + l * dlse.step, 0));
    }
}

/* Loads the rows of a block, and fetches those of the block below. */
static void load_block(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t head)
{
    const stencil_call *c = s->call;
    const cpu_views *io = &c->io;
    const nf_problem *problem = c->plan->request->problem;
    const cpu_stencil_item *item = &s->item;
    const int32_t stop = cpu_stencil_line_rows(item).end;
    for (int32_t row = first; row < end; row++) {
        const int64_t r = row - first;
        load_rows(s, cpu_stencil_rows(item, &io->q, outer, row, b, head), &io->q, 0, r, problem->head_dim, c->plan->head_dim);
        load_rows(s, cpu_stencil_rows(item, &io->dout, outer, row, b, head), &io->dout, 1, r, problem->value_dim,
                  c->plan->value_dim);
        load_terms(s, cpu_stencil_rows(item, &io->out, outer, row, b, head),
                   cpu_stencil_rows(item, &io->lse, outer, row, b, head),
                   cpu_stencil_rows(item, &io->dlse, outer, row, b, head), r);
    }
    for (int32_t row = end; row < nf_min32(end + CPU_STENCIL_ROWS, stop); row++) {
        fetch_run(&io->q, cpu_stencil_rows(item, &io->q, outer, row, b, head), problem->head_dim);
        fetch_run(&io->dout, cpu_stencil_rows(item, &io->dout, outer, row, b, head), problem->value_dim);
        fetch_run(&io->out, cpu_stencil_rows(item, &io->out, outer, row, b, head), problem->value_dim);
    }
}

/* Where dq of a block goes, if straight from registers. */
static cpu_targets dq_targets(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b,
                              int64_t head)
{
    cpu_targets targets = {.stream = s->call->stream};
    for (int32_t row = first; row < end; row++) {
        const cpu_run run = cpu_stencil_rows(&s->item, &s->call->io.dq, outer, row, b, head);
        targets.rows[row - first] = run.base;
        for (int64_t l = 0; l < run.count; l++)
            targets.lane[l] = l * run.step;
    }
    return targets;
}

/* A block meets a chunk of lines. */
static void meet_lines(const stencil_scratch *s, int64_t b, const cpu_line *lines, int64_t count, int64_t rows)
{
    const stencil_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_stencil_walk *walk = s->item.walk;
    const cpu_lanes *lanes = &s->item.lanes[b];
    const int32_t last = walk->work.grid->rank - 1, origin = s->item.item.segment[last].hull.begin;
    const int32_t first = s->item.own_columns[last].begin - origin, end = s->item.own_columns[last].end - origin;
    k->stencil_scores(lanes, lines, count, 0, walk->line_stride, s->transposed[0], p->request->problem->head_dim,
                      s->scores);
    k->stencil_scores(lanes, lines, count, 1, walk->line_stride, s->transposed[1], p->request->problem->value_dim,
                      s->dscores);
    k->stencil_gradient(lanes, lines, count, rows, p->scale, s->scores, s->dscores, s->lse, s->delta);
    if (c->io.dk.data)
        k->stencil_scatter(lanes, lines, count, rows, 0, s->dscores, s->rows[0], p->head_dim, first, end);
    if (c->io.dv.data)
        k->stencil_scatter(lanes, lines, count, rows, 1, s->scores, s->rows[1], p->value_dim, first, end);
}

/* One vector of queries in each of rows first .. end - 1. */
static void backward_block(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b,
                           int64_t head, bool dq)
{
    const stencil_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_stencil_item *item = &s->item;
    const int64_t rows = end - first, chunk = item->walk->chunk, line_count = item->lanes[b].slots ? item->line_count : 0;
    cpu_targets targets = {0};
    if (dq)
        targets = dq_targets(s, outer, first, end, b, head);
    load_block(s, outer, first, end, b, head);
    int64_t i = 0;
    do {
        const cpu_line *lines = &item->lines[i];
        const int64_t count = nf_min64(chunk, line_count - i);
        const bool direct = c->direct && i + count == line_count;
        meet_lines(s, b, lines, count, rows);
        if (dq)
            k->stencil_values(&item->lanes[b], lines, count, rows, s->dscores, i == 0, s->dq, p->head_dim,
                              direct ? &targets : NULL, s->scales, NULL);
        i += count;
    } while (i < line_count);
    for (int32_t r = 0; dq && !c->direct && r < rows; r++)
        store_run(s, cpu_stencil_rows(item, &c->io.dq, outer, first + r, b, head), &c->io.dq,
                  cpu_at(k, s->dq, r * k->lanes * p->head_dim), p->head_dim, p->request->problem->head_dim, p->scale);
}

/* Rows first .. end - 1: the lane blocks whose queries are the item's own, or those that only see its keys. */
static void backward_rows(stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, bool own)
{
    const stencil_call *c = s->call;
    const nf_interval own_lanes = s->item.own_rows[s->item.walk->work.grid->rank - 1];
    const int64_t group = nf_problem_group(c->plan->request->problem);
    const bool own_rows = c->io.dq.data && cpu_stencil_owns_rows(&s->item, outer, first);
    const bool dq = own && own_rows;
    if (!dq && !c->io.dk.data && !c->io.dv.data)
        return;
    cpu_stencil_list_lines(&s->item, &s->ring, c->plan->kernels, outer, first, end, !dq);
    for (int64_t h = 0; (dq || s->item.line_count) && h < group; h++)
        for (int64_t b = 0; b < s->item.lane_blocks; b++) {
            const int32_t x = s->item.lane_rows[b];
            if ((own_lanes.begin <= x && x < own_lanes.end) == own)
                backward_block(s, outer, first, end, b, s->item.kv_head * group + h, dq);
        }
}

static void backward_item(stencil_scratch *s, int64_t index)
{
    const stencil_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_stencil_walk *walk = &p->backward;
    cpu_stencil_open(&s->item, walk, p->request->problem, p->kernels->lanes, index);
    const int64_t outer_count = cpu_stencil_outer_count(&s->item);
    const nf_interval rows = cpu_stencil_line_rows(&s->item), own = cpu_stencil_own_line_rows(&s->item);
    const nf_interval lines = cpu_stencil_lines(&s->item);
    int32_t end;
    for (int32_t y = rows.begin; y < rows.end; y = end) {
        end = cpu_stencil_block_end(rows, own, y, (int32_t)walk->block_rows);
        cpu_stencil_advance(&s->item, cpu_stencil_new_lines(&s->item, end).end, pack_line, s);
        for (int64_t o = 0; o < outer_count; o++) {
            nf_box outer;
            cpu_stencil_outer(&s->item, o, &outer);
            backward_rows(s, &outer, y, end, true);
            backward_rows(s, &outer, y, end, false);
        }
    }
    cpu_stencil_advance(&s->item, lines.end, pack_line, s);
    cpu_stencil_advance(&s->item, lines.end + (int32_t)walk->ring, retire, s);
}

/* As the forward's out: dq may go from registers to its tensor if its rows are whole vectors of reals, and past the caches if
 * it is large. */
static stencil_call call_of(const cpu_stencil_plan *plan, const nf_tensor *const io[NF_ROLES])
{
    stencil_call call = {.plan = plan, .io = cpu_views_of(io, plan->request->problem->rank)};
    call.direct = call.io.dq.data && cpu_stencil_direct(plan, &call.io.dq, plan->request->problem->head_dim);
    call.stream = call.direct && cpu_stencil_streams(plan, &call.io.dq, io[NF_DQ]);
    return call;
}

nf_status cpu_stencil_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_stencil_plan *plan = prepared;
    const stencil_call call = call_of(plan, io);
    const int64_t items = plan->backward.items;
    char *base = workspace;
#pragma omp parallel num_threads((int)plan->threads)
    {
        stencil_scratch scratch = {.call = &call};
        cpu_arena arena = {.base = base + (size_t)cpu_thread_index() * plan->thread_bytes};
        carve(&call, &arena, &scratch);
        for (int64_t i = 0; i < plan->backward.block_rows * plan->kernels->lanes; i++)
            cpu_set_real(plan->kernels, scratch.scales, i, plan->scale);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            backward_item(&scratch, i);
    }
    return NF_OK;
}
