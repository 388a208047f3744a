/* The stencil's backward: rows of a block into the workspace, gradients out of it. */
#include <string.h>

#include "backends/cpu/stencil_backward.h"

/* Bytes from one row of the only strand to the next. */
static int64_t row_step(const cpu_stencil_item *item, const cpu_view *view)
{
    return item->strands->axis_class.step * view->axis[item->walk->work.grid->rank - 1] * view->element;
}

stencil_rows cpu_stencil_rows(const stencil_scratch *s, int tensor, const nf_box *outer, int32_t row, int64_t b, int64_t h)
{
    const cpu_stencil_item *item = s->item;
    const cpu_view *view = stencil_row_view(s->call, tensor);
    nf_box box = *outer;
    if (item->walk->line_axis >= 0)
        box.axis[item->walk->line_axis] = (nf_interval){row, row + 1};
    stencil_rows rows = {.base = cpu_stencil_base(item, view, &box, false) + h * view->head * view->element,
                         .at = s->row_at[tensor], .count = item->lanes[b].count};
    if (item->walk->line_axis >= 0)
        rows.step = item->item.axis_class[item->walk->line_axis].step * view->axis[item->walk->line_axis] * view->element;
    if (item->strand_count == 1)
        rows.base += (item->lane_rows[b] - item->lane_rows[0]) * row_step(item, view);
    else
        rows.at += b * s->call->plan->kernels->lanes;
    return rows;
}

void cpu_stencil_find_rows(const stencil_scratch *s)
{
    const int64_t lanes = s->call->plan->kernels->lanes, group = nf_problem_group(s->call->plan->request->problem);
    const cpu_stencil_item *item = s->item;
    const int64_t blocks = item->strand_count == 1 ? nf_min64(item->lane_blocks, 1) : item->lane_blocks;
    for (int i = 0; blocks && i < STENCIL_ROW_TENSORS; i++) {
        const cpu_view *view = stencil_row_view(s->call, i);
        if (!view->data)
            continue;
        for (int64_t b = 0; b < blocks; b++)
            cpu_stencil_lane_offsets(item, view, group, b, s->row_at[i] + b * lanes);
        for (int64_t l = 1; item->strand_count == 1 && l < lanes; l++)
            s->row_at[i][l] = s->row_at[i][0] + l * row_step(item, view);
    }
}

static void point_at(const void **pointers, const stencil_rows *from)
{
    for (int64_t l = 0; l < from->count; l++)
        pointers[l] = from->base + from->at[l];
}

/* Rows of a tensor as reals, `width` apart. */
static void load_run(const stencil_scratch *s, const stencil_rows *from, const cpu_view *view, void *rows, int64_t width,
                     int64_t n)
{
    const void *sources[CPU_MAX_LANES] = {NULL};
    point_at(sources, from);
    s->call->plan->kernels->load_rows(rows, width, sources, view->dtype, view->dim, from->count, n);
}

/* Where a row of a block lies. */
typedef struct block_row {
    stencil_rows q, dout, out, lse, dlse;
} block_row;

static void fetch_rows(const stencil_rows *rows, int64_t bytes)
{
    for (int64_t l = 0; l < rows->count; l++)
        for (int64_t i = 0; i < bytes; i += 64)
            __builtin_prefetch(rows->base + rows->at[l] + i);
}

static void fetch_row(const stencil_call *c, const block_row *row)
{
    const nf_problem *problem = c->plan->request->problem;
    fetch_rows(&row->q, problem->head_dim * c->io.q.element);
    fetch_rows(&row->dout, problem->value_dim * c->io.dout.element);
    fetch_rows(&row->out, problem->value_dim * c->io.out.element);
}

static bool in_place(const stencil_scratch *s, const cpu_view *view)
{
    return view->dim == 1 && view->element == s->call->plan->kernels->real_size;
}

/* Row r of a block: q or dout as it is and transposed. */
static void load_rows(const stencil_scratch *s, const stencil_rows *from, const cpu_view *view, int which, int64_t r, int64_t n,
                      int64_t width)
{
    const cpu_kernels *k = s->call->plan->kernels;
    void *rows = cpu_at(k, s->rows[which], r * k->lanes * width);
    void *transposed = cpu_at(k, s->transposed[which], r * n * k->lanes);
    if (in_place(s, view)) {
        point_at(s->pointers, from);
        k->copy_line(transposed, k->lanes, rows, width, s->pointers, from->count, n);
        return;
    }
    load_run(s, from, view, rows, width, n);
    for (int64_t l = 0; l < from->count; l++)
        s->pointers[l] = cpu_at(k, rows, l * width);
    k->pack_line(transposed, k->lanes, s->pointers, from->count, n);
}

/* One real of each row: sizes are known where they are copied. */
static void gather_reals(char *to, const stencil_rows *from, int64_t size)
{
    for (int64_t l = 0; l < from->count; l++)
        if (size == (int64_t)sizeof(float))
            memcpy(to + l * size, from->base + from->at[l], sizeof(float));
        else
            memcpy(to + l * size, from->base + from->at[l], sizeof(double));
}

/* Row r of a block, whose dout is loaded: lse, and delta = dout . out - dlse. */
static void load_terms(const stencil_scratch *s, const block_row *row, int64_t r)
{
    const stencil_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const int64_t n = c->plan->request->problem->value_dim, width = c->plan->value_dim, at = r * k->lanes;
    const bool direct = in_place(s, &c->io.out) && n == width;
    if (!direct)
        load_run(s, &row->out, &c->io.out, s->converted, width, n);
    for (int64_t l = 0; l < row->out.count; l++)
        s->pointers[l] = direct ? (const void *)(row->out.base + row->out.at[l]) : cpu_at(k, s->converted, l * width);
    k->stencil_delta(cpu_at(k, s->delta, at), cpu_at(k, s->rows[1], at * width), s->pointers, row->out.count, width);
    memset(cpu_at(k, s->lse, at), 0, (size_t)(k->lanes * k->real_size));
    gather_reals(cpu_at(k, s->lse, at), &row->lse, k->real_size);
    for (int64_t l = 0; c->io.dlse.data && l < row->dlse.count; l++)
        cpu_set_real(k, s->delta, at + l,
                     cpu_get_real(k, s->delta, at + l) - cpu_get_real(k, row->dlse.base + row->dlse.at[l], 0));
}

void cpu_stencil_load_block(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t h)
{
    const stencil_call *c = s->call;
    const cpu_views *io = &c->io;
    const nf_problem *problem = c->plan->request->problem;
    block_row rows[CPU_STENCIL_ROWS];
    rows[0] = (block_row){.q = cpu_stencil_rows(s, STENCIL_Q, outer, first, b, h),
                          .dout = cpu_stencil_rows(s, STENCIL_DOUT, outer, first, b, h),
                          .out = cpu_stencil_rows(s, STENCIL_OUT, outer, first, b, h),
                          .lse = cpu_stencil_rows(s, STENCIL_LSE, outer, first, b, h),
                          .dlse = cpu_stencil_rows(s, STENCIL_DLSE, outer, first, b, h)};
    for (int32_t r = 1; r < end - first; r++) {
        rows[r] = rows[r - 1];
        rows[r].q.base += rows[0].q.step;
        rows[r].dout.base += rows[0].dout.step;
        rows[r].out.base += rows[0].out.step;
        rows[r].lse.base += rows[0].lse.step;
        rows[r].dlse.base += rows[0].dlse.step;
    }
    fetch_row(c, &rows[0]);
    for (int32_t r = 0; r < end - first; r++) {
        if (r + 1 < end - first)
            fetch_row(c, &rows[r + 1]);
        load_rows(s, &rows[r].q, &io->q, 0, r, problem->head_dim, c->plan->head_dim);
        load_rows(s, &rows[r].dout, &io->dout, 1, r, problem->value_dim, c->plan->value_dim);
        load_terms(s, &rows[r], r);
    }
}

/* Up to CPU_MAX_LANES rows of reals, `width` apart, times a factor. */
static void store_rows(const stencil_scratch *s, void *const *targets, const cpu_view *view, int64_t count, int64_t n,
                       const void *rows, int64_t width, double factor)
{
    double factors[CPU_MAX_LANES];
    for (int i = 0; i < CPU_MAX_LANES; i++)
        factors[i] = factor;
    s->call->plan->kernels->store_rows(targets, view->dtype, view->dim, count, n, rows, width, factors);
}

void cpu_stencil_store_dq(const stencil_scratch *s, const stencil_rows *to, const void *rows, int64_t width, double factor)
{
    void *targets[CPU_MAX_LANES];
    for (int64_t l = 0; l < to->count; l++)
        targets[l] = to->base + to->at[l];
    store_rows(s, targets, &s->call->io.dq, to->count, s->call->plan->request->problem->head_dim, rows, width, factor);
}

static void store_run(const stencil_scratch *s, cpu_run run, const cpu_view *view, const void *rows, int64_t width,
                      int64_t n, double factor)
{
    void *targets[CPU_MAX_LANES];
    for (int64_t x = 0; x < run.count; x += CPU_MAX_LANES) {
        const int64_t count = nf_min64(run.count - x, CPU_MAX_LANES);
        for (int64_t i = 0; i < count; i++)
            targets[i] = run.base + (x + i) * run.step;
        store_rows(s, targets, view, count, n, cpu_at(s->call->plan->kernels, rows, x * width), width, factor);
    }
}

static void move_strand(const stencil_scratch *s, const cpu_stencil_strand *strand, const nf_box *line, int64_t slot,
                        int which, int64_t n, double factor)
{
    const cpu_stencil_walk *walk = s->item->walk;
    const cpu_kernels *k = s->call->plan->kernels;
    const cpu_view *view = which ? &s->call->io.dv : &s->call->io.dk;
    const int32_t last = walk->work.grid->rank - 1, origin = strand->segment.hull.begin;
    const int64_t width = s->ring.sum_width[which];
    nf_box own = *line;
    own.axis[last] = s->item->strand_count == 1 ? s->item->own_columns[last] : strand->segment.hull;
    const int64_t first = strand->first + own.axis[last].begin - origin;
    void *sums = cpu_at(k, s->ring.sums[which], (slot * walk->columns + first) * width);
    const cpu_run run = cpu_stencil_run(s->item, strand, view, &own, strand->kv_head, true);
    if (s->call->sums[which].direct) {
        k->stencil_move(run.base, run.step, s->call->sums[which].stream, sums, run.count, width, factor);
        return;
    }
    store_run(s, run, view, sums, width, n, factor);
    memset(sums, 0, (size_t)(run.count * width * k->real_size));
}

void cpu_stencil_move_line(const stencil_scratch *s, const nf_box *line, int64_t slot, int which, int64_t n, double factor)
{
    const cpu_view *view = which ? &s->call->io.dv : &s->call->io.dk;
    for (int64_t i = 0; view->data && i < s->item->strand_count; i++)
        move_strand(s, &s->item->strands[i], line, slot, which, n, factor);
}
