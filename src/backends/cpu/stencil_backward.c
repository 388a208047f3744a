/* Backward of the stencil, in one walk: for each block of queries scores and their gradients once, then dq into the block
 * and dk and dv into sums that lie in the ring beside their keys and leave it when the last query has seen them. */
#include <string.h>

#include "backends/cpu/stencil_backward.h"

enum { MOST_CHUNK = 4 }; /* items a thread takes at once */

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
    cpu_stencil_take_item(arena, w, &s->items[0]);
    cpu_stencil_take_item(arena, w, &s->items[1]);
    cpu_stencil_take_ring(arena, w, real, &s->ring);
    for (int i = 0; i < 2; i++)
        s->column_at[i] = cpu_take(arena, w->columns * (int64_t)sizeof *s->column_at[i]);
    for (int i = 0; i < STENCIL_ROW_TENSORS; i++)
        s->row_at[i] = cpu_take(arena, w->lane_blocks * k->lanes * (int64_t)sizeof *s->row_at[i]);
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

/* The line that was in a slot before `line` is done with. */
static void retire_line(const stencil_scratch *s, const nf_box *line, int64_t slot)
{
    const cpu_stencil_plan *p = s->call->plan;
    const cpu_stencil_walk *walk = s->item->walk;
    nf_box old = *line;
    if (walk->line_axis >= 0)
        old.axis[walk->line_axis].begin -= (int32_t)walk->ring;
    for (int32_t a = 0; a <= walk->line_axis; a++)
        if (!nf_interval_holds(s->item->own_columns[a], old.axis[a].begin))
            return;
    cpu_stencil_move_line(s, &old, slot, 0, p->request->problem->head_dim, p->scale);
    cpu_stencil_move_line(s, &old, slot, 1, p->request->problem->value_dim, 1);
}

static void retire(void *context, const nf_box *line, int64_t slot)
{
    retire_line(context, line, slot);
}

static void pack_line(void *context, const nf_box *line, int64_t slot)
{
    stencil_scratch *s = context;
    const stencil_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const nf_problem *problem = c->plan->request->problem;
    if (s->item->walk->line_axis >= 0)
        retire_line(s, line, slot);
    cpu_stencil_pack_line(s->item, &s->ring, k, line, slot, &c->io.k, s->column_at[0], 0, true, problem->head_dim,
                          s->converted, s->pointers);
    cpu_stencil_pack_line(s->item, &s->ring, k, line, slot, &c->io.v, s->column_at[1], 1, false, problem->value_dim,
                          s->converted, s->pointers);
}

/* Where dq of a block goes, if straight from registers. */
static cpu_targets dq_targets(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t h)
{
    cpu_targets targets = {.stream = s->call->dq.stream};
    const stencil_rows rows = cpu_stencil_rows(s, STENCIL_DQ, outer, first, b, h);
    for (int32_t r = 0; r < end - first; r++)
        targets.rows[r] = rows.base + r * rows.step;
    for (int64_t l = 0; l < rows.count; l++)
        targets.lane[l] = rows.at[l];
    return targets;
}

/* A block meets a chunk of lines. */
static void meet_lines(const stencil_scratch *s, int64_t b, const cpu_line *lines, int64_t count, int64_t rows)
{
    const stencil_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_stencil_walk *walk = s->item->walk;
    const cpu_lanes *lanes = &s->item->lanes[b];
    const int32_t last = walk->work.grid->rank - 1, origin = s->item->item.segment[last].hull.begin;
    const bool cut = s->item->strand_count == 1;
    const int32_t first = cut ? s->item->own_columns[last].begin - origin : 0;
    const int32_t end = cut ? s->item->own_columns[last].end - origin : (int32_t)s->item->columns;
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
static void backward_block(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t h,
                           bool dq, cpu_ahead *ahead)
{
    const stencil_call *c = s->call;
    const cpu_stencil_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const cpu_stencil_item *item = s->item;
    const int64_t rows = end - first, chunk = item->walk->chunk, line_count = item->lanes[b].slots ? item->line_count : 0;
    cpu_targets targets = {0};
    if (dq)
        targets = dq_targets(s, outer, first, end, b, h);
    cpu_stencil_load_block(s, outer, first, end, b, h);
    int64_t i = 0;
    do {
        const cpu_line *lines = &item->lines[i];
        const int64_t count = nf_min64(chunk, line_count - i);
        const bool direct = c->dq.direct && i + count == line_count;
        meet_lines(s, b, lines, count, rows);
        if (dq)
            k->stencil_values(&item->lanes[b], lines, count, rows, s->dscores, i == 0, s->dq, p->head_dim,
                              direct ? &targets : NULL, s->scales, ahead);
        i += count;
    } while (i < line_count);
    while (ahead->runs)
        cpu_fetch_ahead(ahead);
    for (int32_t r = 0; dq && !c->dq.direct && r < rows; r++) {
        const stencil_rows to = cpu_stencil_rows(s, STENCIL_DQ, outer, first + r, b, h);
        cpu_stencil_store_dq(s, &to, cpu_at(k, s->dq, r * k->lanes * p->head_dim), p->head_dim, p->scale);
    }
}

/* What to fetch during lane block b of head h of an outer place of a block row. */
static cpu_ahead list_ahead(stencil_scratch *s, int32_t end, int64_t place, int64_t h, int64_t b)
{
    const cpu_stencil_plan *p = s->call->plan;
    const nf_problem *problem = p->request->problem;
    const cpu_views *io = &s->call->io;
    const int64_t d = problem->head_dim, v = problem->value_dim, group = nf_problem_group(problem);
    const cpu_stencil_wants wants = {.line = {&io->k, &io->v}, .line_dim = {d, v}, .row = {&io->q, &io->dout, &io->out},
                                     .row_dim = {d, v, v}, .rows = 3, .group = group};
    const int64_t blocks = cpu_stencil_outer_count(s->item) * group * s->item->lane_blocks;
    return cpu_stencil_list_ahead(s->item, s->next, &wants, end, (place * group + h) * s->item->lane_blocks + b, blocks,
                                  cpu_stencil_ahead_steps(s->item, p->kernels, b, p->head_dim), s->ahead);
}

/* Rows first .. end - 1 of an outer place: the lane blocks whose queries are the item's own, or those that only see its
 * keys. */
static void backward_rows(stencil_scratch *s, int64_t place, int32_t first, int32_t end, bool own)
{
    const stencil_call *c = s->call;
    const nf_interval own_lanes = s->item->own_rows[s->item->walk->work.grid->rank - 1];
    const int64_t group = nf_problem_group(c->plan->request->problem);
    nf_box outer;
    cpu_stencil_outer(s->item, place, &outer);
    const bool dq = own && c->io.dq.data && cpu_stencil_owns_rows(s->item, &outer, first);
    if (!dq && !c->io.dk.data && !c->io.dv.data)
        return;
    cpu_stencil_list_lines(s->item, &s->ring, c->plan->kernels, &outer, first, end, !dq);
    for (int64_t h = 0; (dq || s->item->line_count) && h < group; h++)
        for (int64_t b = 0; b < s->item->lane_blocks; b++) {
            if ((s->item->strand_count > 1 || nf_interval_holds(own_lanes, s->item->lane_rows[b])) != own)
                continue;
            cpu_ahead ahead = list_ahead(s, end, place, h, b);
            backward_block(s, &outer, first, end, b, h, dq, &ahead);
        }
}

static void find_offsets(const stencil_scratch *s)
{
    cpu_stencil_column_offsets(s->item, &s->call->io.k, s->column_at[0]);
    cpu_stencil_column_offsets(s->item, &s->call->io.v, s->column_at[1]);
    cpu_stencil_find_rows(s);
}

static void backward_item(stencil_scratch *s)
{
    const cpu_stencil_walk *walk = s->item->walk;
    const int64_t places = cpu_stencil_outer_count(s->item);
    const nf_interval rows = cpu_stencil_line_rows(s->item), own = cpu_stencil_own_line_rows(s->item);
    const nf_interval lines = cpu_stencil_lines(s->item);
    int32_t end;
    find_offsets(s);
    for (int32_t y = rows.begin; y < rows.end; y = end) {
        end = cpu_stencil_block_end(rows, own, y, (int32_t)walk->block_rows);
        cpu_stencil_advance(s->item, cpu_stencil_new_lines(s->item, end).end, pack_line, s);
        for (int64_t place = 0; place < places; place++) {
            backward_rows(s, place, y, end, true);
            backward_rows(s, place, y, end, false);
        }
    }
    cpu_stencil_advance(s->item, lines.end, pack_line, s);
    cpu_stencil_advance(s->item, lines.end + (int32_t)walk->ring, retire, s);
}

/* Sums that no line uses are zero. */
static void clear_sums(const stencil_scratch *s)
{
    const cpu_stencil_walk *walk = &s->call->plan->backward;
    for (int i = 0; i < 2; i++)
        memset(s->ring.sums[i], 0, (size_t)(walk->planes * walk->ring * walk->columns * s->ring.sum_width[i]
                                            * s->call->plan->kernels->real_size));
}

static void backward_items(stencil_scratch *s, cpu_stencil_queue *queue, cpu_stencil_turn turn)
{
    const cpu_stencil_plan *p = s->call->plan;
    const nf_problem *problem = p->request->problem;
    for (int at = 0; cpu_stencil_take(queue, &turn); at = !at) {
        s->item = &s->items[at];
        if (!turn.known)
            cpu_stencil_open(s->item, &p->backward, problem, p->kernels->lanes, turn.item);
        s->next = turn.next >= 0 ? &s->items[!at] : NULL;
        if (s->next)
            cpu_stencil_open(s->next, &p->backward, problem, p->kernels->lanes, turn.next);
        backward_item(s);
    }
}

/* As the forward's out: a gradient may go from registers to its tensor if its rows are whole vectors of reals, and past the
 * caches if it is large. */
static stencil_way way_of(const cpu_stencil_plan *plan, const cpu_view *view, const nf_tensor *tensor, int64_t n)
{
    stencil_way way = {.direct = view->data && cpu_stencil_direct(plan, view, n)};
    way.stream = way.direct && cpu_stencil_streams(plan, view, tensor);
    return way;
}

static stencil_call call_of(const cpu_stencil_plan *plan, const nf_tensor *const io[NF_ROLES])
{
    const nf_problem *problem = plan->request->problem;
    stencil_call call = {.plan = plan, .io = cpu_views_of(io, problem->rank)};
    call.dq = way_of(plan, &call.io.dq, io[NF_DQ], problem->head_dim);
    call.sums[0] = way_of(plan, &call.io.dk, io[NF_DK], problem->head_dim);
    call.sums[1] = way_of(plan, &call.io.dv, io[NF_DV], problem->value_dim);
    return call;
}

nf_status cpu_stencil_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_stencil_plan *plan = prepared;
    const stencil_call call = call_of(plan, io);
    cpu_stencil_queue queue = cpu_stencil_queue_of(plan->backward.items, plan->threads, MOST_CHUNK);
    char *base = workspace;
#pragma omp parallel num_threads((int)plan->threads)
    {
        stencil_scratch scratch = {.call = &call};
        cpu_arena arena = {.base = base + (size_t)cpu_thread_index() * plan->thread_bytes};
        carve(&call, &arena, &scratch);
        for (int64_t i = 0; i < plan->backward.block_rows * plan->kernels->lanes; i++)
            cpu_set_real(plan->kernels, scratch.scales, i, plan->scale);
        clear_sums(&scratch);
        backward_items(&scratch, &queue, cpu_stencil_turn_of(&queue, cpu_thread_index(), cpu_thread_count()));
    }
    return NF_OK;
}
