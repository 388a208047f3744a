/* The stencil's backward: rows of a block into the workspace, gradients out of it. */
#include <string.h>

#include "backends/cpu/stencil_backward.h"

/* Rows of a tensor as reals, `width` apart. */
static void load_run(const stencil_scratch *s, cpu_run run, const cpu_view *view, void *rows, int64_t width, int64_t n)
{
    const void *sources[CPU_MAX_LANES] = {NULL};
    for (int64_t l = 0; l < run.count; l++)
        sources[l] = run.base + l * run.step;
    s->call->plan->kernels->load_rows(rows, width, sources, view->dtype, view->dim, run.count, n);
}

/* Where a row of a block lies. */
typedef struct block_row {
    cpu_run q, dout, out, lse, dlse;
} block_row;

static void fetch_run(cpu_run run, int64_t bytes)
{
    for (int64_t l = 0; l < run.count; l++)
        for (int64_t i = 0; i < bytes; i += 64)
            __builtin_prefetch(run.base + l * run.step + i);
}

static void fetch_row(const stencil_call *c, const block_row *row)
{
    const nf_problem *problem = c->plan->request->problem;
    fetch_run(row->q, problem->head_dim * c->io.q.element);
    fetch_run(row->dout, problem->value_dim * c->io.dout.element);
    fetch_run(row->out, problem->value_dim * c->io.out.element);
}

static bool in_place(const stencil_scratch *s, const cpu_view *view)
{
    return view->dim == 1 && view->element == s->call->plan->kernels->real_size;
}

/* Row r of a block: q or dout as it is and transposed. */
static void load_rows(const stencil_scratch *s, cpu_run run, const cpu_view *view, int which, int64_t r, int64_t n,
                      int64_t width)
{
    const cpu_kernels *k = s->call->plan->kernels;
    void *rows = cpu_at(k, s->rows[which], r * k->lanes * width);
    void *transposed = cpu_at(k, s->transposed[which], r * n * k->lanes);
    if (in_place(s, view)) {
        for (int64_t l = 0; l < run.count; l++)
            s->pointers[l] = run.base + l * run.step;
        k->copy_line(transposed, k->lanes, rows, width, s->pointers, run.count, n);
        return;
    }
    load_run(s, run, view, rows, width, n);
    for (int64_t l = 0; l < run.count; l++)
        s->pointers[l] = cpu_at(k, rows, l * width);
    k->pack_line(transposed, k->lanes, s->pointers, run.count, n);
}

/* Row r of a block, whose dout is loaded: lse, and delta = dout . out - dlse. */
static void load_terms(const stencil_scratch *s, const block_row *row, int64_t r)
{
    const stencil_call *c = s->call;
    const cpu_kernels *k = c->plan->kernels;
    const int64_t n = c->plan->request->problem->value_dim, width = c->plan->value_dim, at = r * k->lanes;
    const bool direct = in_place(s, &c->io.out) && n == width;
    if (!direct)
        load_run(s, row->out, &c->io.out, s->converted, width, n);
    for (int64_t l = 0; l < row->out.count; l++)
        s->pointers[l] = direct ? (const void *)(row->out.base + l * row->out.step) : cpu_at(k, s->converted, l * width);
    k->stencil_delta(cpu_at(k, s->delta, at), cpu_at(k, s->rows[1], at * width), s->pointers, row->out.count, width);
    for (int64_t l = 0; l < k->lanes; l++)
        cpu_set_real(k, s->lse, at + l, l < row->lse.count ? cpu_get_real(k, row->lse.base + l * row->lse.step, 0) : 0);
    for (int64_t l = 0; c->io.dlse.data && l < row->dlse.count; l++)
        cpu_set_real(k, s->delta, at + l,
                     cpu_get_real(k, s->delta, at + l) - cpu_get_real(k, row->dlse.base + l * row->dlse.step, 0));
}

void cpu_stencil_load_block(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b,
                            int64_t head)
{
    const stencil_call *c = s->call;
    const cpu_views *io = &c->io;
    const nf_problem *problem = c->plan->request->problem;
    block_row rows[CPU_STENCIL_ROWS];
    for (int32_t r = 0; r < end - first; r++)
        rows[r] = (block_row){.q = cpu_stencil_rows(s->item, &io->q, outer, first + r, b, head),
                              .dout = cpu_stencil_rows(s->item, &io->dout, outer, first + r, b, head),
                              .out = cpu_stencil_rows(s->item, &io->out, outer, first + r, b, head),
                              .lse = cpu_stencil_rows(s->item, &io->lse, outer, first + r, b, head),
                              .dlse = cpu_stencil_rows(s->item, &io->dlse, outer, first + r, b, head)};
    fetch_row(c, &rows[0]);
    for (int32_t r = 0; r < end - first; r++) {
        if (r + 1 < end - first)
            fetch_row(c, &rows[r + 1]);
        load_rows(s, rows[r].q, &io->q, 0, r, problem->head_dim, c->plan->head_dim);
        load_rows(s, rows[r].dout, &io->dout, 1, r, problem->value_dim, c->plan->value_dim);
        load_terms(s, &rows[r], r);
    }
}

void cpu_stencil_store_run(const stencil_scratch *s, cpu_run run, const cpu_view *view, const void *rows, int64_t width,
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

void cpu_stencil_move_line(const stencil_scratch *s, const nf_box *line, int64_t slot, int which, int64_t n, double factor)
{
    const cpu_stencil_walk *walk = s->item->walk;
    const cpu_kernels *k = s->call->plan->kernels;
    const cpu_view *view = which ? &s->call->io.dv : &s->call->io.dk;
    const int32_t last = walk->work.grid->rank - 1, origin = s->item->item.segment[last].hull.begin;
    const int64_t width = s->ring.sum_width[which];
    if (!view->data)
        return;
    nf_box own = *line;
    own.axis[last] = s->item->own_columns[last];
    void *sums = cpu_at(k, s->ring.sums[which], (slot * walk->columns + own.axis[last].begin - origin) * width);
    const cpu_run run = cpu_stencil_columns(s->item, view, &own, s->item->kv_head);
    if (s->call->sums[which].direct) {
        k->stencil_move(run.base, run.step, s->call->sums[which].stream, sums, run.count, width, factor);
        return;
    }
    cpu_stencil_store_run(s, run, view, sums, width, n, factor);
    memset(sums, 0, (size_t)(run.count * width * k->real_size));
}
