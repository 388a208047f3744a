/* Backward: the passes that the gradients asked for need. */
#include <string.h>

#include "backends/cpu/backward.h"

size_t cpu_backward_bytes(const cpu_tile_plan *plan)
{
    const size_t dq = cpu_backward_dq_bytes(plan), dkv = cpu_backward_dkv_bytes(plan);
    return dq > dkv ? dq : dkv;
}

void cpu_row_terms(const cpu_kernels *k, const cpu_span *span, const cpu_view *lse_view, const cpu_view *dlse_view,
                   int64_t batch, int64_t head, int64_t n, const void *const *out, const void *const *dout, void *lse,
                   void *delta)
{
    int64_t lse_offset[CPU_MAX_COLUMNS], dlse_offset[CPU_MAX_COLUMNS];
    cpu_span_offsets(span, lse_view, lse_offset);
    if (dlse_view->data)
        cpu_span_offsets(span, dlse_view, dlse_offset);
    for (int64_t i = 0; i < span->count; i++) {
        const double dlse = dlse_view->data ? cpu_read_scalar(dlse_view, batch, head, dlse_offset[i]) : 0;
        cpu_set_real(k, lse, i, cpu_read_scalar(lse_view, batch, head, lse_offset[i]));
        cpu_set_real(k, delta, i, k->dot(out[i], dout[i], n) - dlse);
    }
}

void cpu_load_row_terms(const backward_call *c, const cpu_span *span, int64_t batch, int64_t head,
                        const void *const *out, const void *const *dout, void *lse, void *delta)
{
    cpu_row_terms(c->plan->kernels, span, &c->io.lse, &c->io.dlse, batch, head, c->plan->request->problem->value_dim, out, dout,
                  lse, delta);
}

/* All queries of a (batch, head), a run at a time. */
static int64_t query_run(const cpu_tile_plan *p, int64_t *extents, int64_t begin, cpu_span *run)
{
    const nf_problem *problem = p->request->problem;
    int64_t queries = 1;
    for (int32_t a = 0; a < problem->rank; a++)
        queries *= extents[a] = nf_axis_query_range(&problem->axis[a]).count;
    *run = (cpu_span){.count = nf_min64(CPU_MAX_COLUMNS, queries - begin), .begin = begin, .extents = extents,
                      .rank = problem->rank};
    return queries;
}

/* Calls a function for every run of queries of every (batch, head), in parallel. */
static void for_query_runs(const backward_call *c, void (*visit)(const backward_call *c, const cpu_span *run,
                                                                 int64_t batch, int64_t head))
{
    const nf_problem *problem = c->plan->request->problem;
    int64_t extents[NF_MAX_RANK];
    cpu_span first;
    const int64_t queries = query_run(c->plan, extents, 0, &first), heads = problem->heads;
    const int64_t runs = (queries + CPU_MAX_COLUMNS - 1) / CPU_MAX_COLUMNS;
#pragma omp parallel for num_threads((int)c->plan->threads) schedule(static)
    for (int64_t i = 0; i < problem->batch * heads * runs; i++) {
        int64_t own[NF_MAX_RANK];
        cpu_span run;
        query_run(c->plan, own, i % runs * CPU_MAX_COLUMNS, &run);
        visit(c, &run, i / runs / heads, i / runs % heads);
    }
}

static void clear_run(const backward_call *c, const cpu_span *run, int64_t batch, int64_t head)
{
    const int64_t n = c->plan->request->problem->head_dim;
    for (int64_t d = 0; d < n; d += CPU_MAX_LANES) {
        static const double zeros[CPU_MAX_LANES];
        cpu_view part = c->dq_sum;
        part.data += d * part.dim * part.element;
        cpu_store_rows(c->plan->kernels, run, &part, batch, head, nf_min64(CPU_MAX_LANES, n - d), 0, zeros, 0);
    }
}

static void convert_run(const backward_call *c, const cpu_span *run, int64_t batch, int64_t head)
{
    const cpu_kernels *k = c->plan->kernels;
    const int64_t n = c->plan->request->problem->head_dim;
    int64_t offsets[CPU_MAX_COLUMNS];
    cpu_span_offsets(run, &c->dq_sum, offsets);
    for (int64_t i = 0; i < run->count; i++) {
        const cpu_span one = {.count = 1, .begin = run->begin + i, .extents = run->extents, .rank = run->rank};
        const int64_t at = batch * c->dq_sum.batch + head * c->dq_sum.head + offsets[i];
        cpu_store_rows(k, &one, &c->io.dq, batch, head, n, 0, cpu_at(k, c->dq_sum.data, at), 1);
    }
}

/* Where five products sum dq: in dq itself, or in contiguous reals that end the workspace. */
static void lay_dq_sum(backward_call *c, char *workspace)
{
    const cpu_tile_plan *p = c->plan;
    const nf_problem *problem = p->request->problem;
    char *shared = workspace + (size_t)p->threads * p->thread_bytes + p->extra_bytes;
    c->turns = (_Atomic int32_t *)(void *)shared;
    c->dq_sum = c->io.dq;
    if (p->dq_bytes == 0)
        return;
    int64_t stride = problem->heads * problem->head_dim;
    c->dq_sum = (cpu_view){.data = shared + p->turn_bytes, .element = p->kernels->real_size, .head = problem->head_dim,
                           .dtype = p->kernels->real_size == (int64_t)sizeof(float) ? NF_F32 : NF_F64, .dim = 1};
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        c->dq_sum.axis[a] = stride;
        stride *= nf_axis_query_range(&problem->axis[a]).count;
    }
    c->dq_sum.batch = stride;
}

nf_status cpu_tile_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_tile_plan *plan = prepared;
    char *base = workspace;
    backward_call call = {.plan = plan, .io = cpu_views_of(io, plan->request->problem->rank),
                          .partial = base + (size_t)plan->threads * plan->thread_bytes};
    const bool dq = call.io.dq.data, dkv = call.io.dk.data || call.io.dv.data;
    call.five = plan->five && dq && dkv;
    if (call.five) {
        lay_dq_sum(&call, base);
        memset((void *)call.turns, 0, plan->turn_bytes);
        for_query_runs(&call, clear_run);
    }
    if (dq && !call.five)
        cpu_backward_dq(&call, base);
    if (dkv)
        cpu_backward_dkv(&call, base);
    if (call.five && plan->dq_bytes)
        for_query_runs(&call, convert_run);
    if (call.io.dextra_k.data || call.io.dextra_v.data)
        cpu_backward_extra(&call, base);
    return NF_OK;
}
