/* Backward: the passes that the gradients asked for need. */
#include <string.h>

#include "backends/cpu/backward.h"

/* Workspace of one thread for a run of queries. */
typedef struct run_scratch {
    const void **out, **dout;
    void *out_converted, *dout_converted;
    void *lse, *delta;
} run_scratch;

static void carve_run(const cpu_tile_plan *p, cpu_arena *arena, run_scratch *s)
{
    const int64_t real = p->kernels->real_size;
    s->out = cpu_take(arena, CPU_MAX_COLUMNS * (int64_t)sizeof *s->out);
    s->dout = cpu_take(arena, CPU_MAX_COLUMNS * (int64_t)sizeof *s->dout);
    s->out_converted = cpu_take(arena, CPU_MAX_COLUMNS * p->value_dim * real);
    s->dout_converted = cpu_take(arena, CPU_MAX_COLUMNS * p->value_dim * real);
    s->lse = cpu_take(arena, CPU_MAX_COLUMNS * real);
    s->delta = cpu_take(arena, CPU_MAX_COLUMNS * real);
}

size_t cpu_backward_bytes(const cpu_tile_plan *plan)
{
    const size_t dq = cpu_backward_dq_bytes(plan), dkv = cpu_backward_dkv_bytes(plan);
    cpu_arena arena = {0};
    run_scratch scratch;
    carve_run(plan, &arena, &scratch);
    const size_t most = dq > dkv ? dq : dkv;
    return most > arena.used ? most : arena.used;
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

void cpu_load_row_terms(const backward_call *c, const cpu_span *span, int64_t batch, int64_t head, void *lse, void *delta)
{
    const cpu_kernels *k = c->plan->kernels;
    int64_t offsets[CPU_MAX_COLUMNS];
    cpu_span_offsets(span, &c->io.lse, offsets);
    for (int64_t i = 0; i < span->count; i++)
        cpu_set_real(k, lse, i, cpu_read_scalar(&c->io.lse, batch, head, offsets[i]));
    cpu_span_offsets(span, &c->delta, offsets);
    for (int64_t i = 0; i < span->count; i++)
        cpu_set_real(k, delta, i, cpu_read_scalar(&c->delta, batch, head, offsets[i]));
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

typedef void visit_run(const backward_call *c, run_scratch *scratch, const cpu_span *run, int64_t batch, int64_t head);

/* Calls a function for every run of queries of every (batch, head), in parallel. */
static void for_query_runs(const backward_call *c, char *workspace, visit_run *visit)
{
    const nf_problem *problem = c->plan->request->problem;
    int64_t extents[NF_MAX_RANK];
    cpu_span first;
    const int64_t queries = query_run(c->plan, extents, 0, &first), heads = problem->heads;
    const int64_t runs = (queries + CPU_MAX_COLUMNS - 1) / CPU_MAX_COLUMNS;
#pragma omp parallel num_threads((int)c->plan->threads)
    {
        run_scratch scratch;
        cpu_arena arena = {.base = workspace + (size_t)cpu_thread_index() * c->plan->thread_bytes};
        carve_run(c->plan, &arena, &scratch);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < problem->batch * heads * runs; i++) {
            int64_t own[NF_MAX_RANK];
            cpu_span run;
            query_run(c->plan, own, i % runs * CPU_MAX_COLUMNS, &run);
            visit(c, &scratch, &run, i / runs / heads, i / runs % heads);
        }
    }
}

/* The sums of dq of a run, next to each other in the workspace. */
static void *run_sums(const backward_call *c, const cpu_span *run, int64_t batch, int64_t head)
{
    const int64_t n = c->plan->request->problem->head_dim;
    return cpu_at(c->plan->kernels, c->dq_sum.data, batch * c->dq_sum.batch + head * c->dq_sum.head + run->begin * n);
}

static void clear_run(const backward_call *c, const cpu_span *run, int64_t batch, int64_t head)
{
    const int64_t n = c->plan->request->problem->head_dim;
    if (c->plan->dq_bytes) {
        memset(run_sums(c, run, batch, head), 0, (size_t)(run->count * n * c->plan->kernels->real_size));
        return;
    }
    for (int64_t d = 0; d < n; d += CPU_MAX_LANES) {
        static const double zeros[CPU_MAX_LANES];
        cpu_view part = c->dq_sum;
        part.data += d * part.dim * part.element;
        cpu_store_rows(c->plan->kernels, run, &part, batch, head, nf_min64(CPU_MAX_LANES, n - d), 0, zeros, 0);
    }
}

/* What the passes expect: delta of every query, and a dq of zeros to add to. */
static void prepare_run(const backward_call *c, run_scratch *s, const cpu_span *run, int64_t batch, int64_t head)
{
    const cpu_tile_plan *p = c->plan;
    const cpu_kernels *k = p->kernels;
    const int64_t n = p->request->problem->value_dim;
    int64_t offsets[CPU_MAX_COLUMNS];
    cpu_fetch_rows(k, run, &c->io.out, batch, head, n, p->value_dim, s->out_converted, s->out);
    cpu_fetch_rows(k, run, &c->io.dout, batch, head, n, p->value_dim, s->dout_converted, s->dout);
    cpu_row_terms(k, run, &c->io.lse, &c->io.dlse, batch, head, n, s->out, s->dout, s->lse, s->delta);
    cpu_span_offsets(run, &c->delta, offsets);
    for (int64_t i = 0; i < run->count; i++)
        cpu_write_scalar(&c->delta, batch, head, offsets[i], cpu_get_real(k, s->delta, i));
    if (c->five)
        clear_run(c, run, batch, head);
}

static void convert_run(const backward_call *c, run_scratch *scratch, const cpu_span *run, int64_t batch, int64_t head)
{
    (void)scratch;
    const int64_t n = c->plan->request->problem->head_dim;
    cpu_store_rows(c->plan->kernels, run, &c->io.dq, batch, head, n, n, run_sums(c, run, batch, head), 1);
}

/* A view of reals in the workspace: n for every query of every head, contiguous, one head after the other. */
static cpu_view reals_view(const cpu_tile_plan *p, char *data, int64_t n)
{
    const nf_problem *problem = p->request->problem;
    int64_t stride = n;
    cpu_view view = {.data = data, .element = p->kernels->real_size, .dim = 1,
                     .dtype = p->kernels->real_size == (int64_t)sizeof(float) ? NF_F32 : NF_F64};
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        view.axis[a] = stride;
        stride *= nf_axis_query_range(&problem->axis[a]).count;
    }
    view.head = stride;
    view.batch = problem->heads * stride;
    return view;
}

/* What threads share at the end of the workspace: partial sums of extra tokens, delta, turns, and sums of dq if they cannot
 * lie in dq itself. */
static void lay_shared(backward_call *c, char *workspace)
{
    const cpu_tile_plan *p = c->plan;
    char *shared = workspace + (size_t)p->threads * p->thread_bytes + p->share_bytes;
    c->partial = shared;
    shared += p->extra_bytes;
    c->delta = reals_view(p, shared, 1);
    c->turns = (_Atomic int32_t *)(void *)(shared + p->delta_bytes);
    c->dq_sum = p->dq_bytes ? reals_view(p, shared + p->delta_bytes + p->turn_bytes, p->request->problem->head_dim)
                            : c->io.dq;
}

nf_status cpu_tile_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_tile_plan *plan = prepared;
    char *base = workspace;
    backward_call call = {.plan = plan, .io = cpu_views_of(io, plan->request->problem->rank)};
    const bool dq = call.io.dq.data, dkv = call.io.dk.data || call.io.dv.data;
    call.five = plan->five && dq && dkv;
    lay_shared(&call, base);
    memset((void *)call.turns, 0, plan->turn_bytes);
    for_query_runs(&call, base, prepare_run);
    if (dq && !call.five)
        cpu_backward_dq(&call, base);
    if (dkv)
        cpu_backward_dkv(&call, base);
    if (call.five && plan->dq_bytes)
        for_query_runs(&call, base, convert_run);
    if (call.io.dextra_k.data || call.io.dextra_v.data)
        cpu_backward_extra(&call, base);
    return NF_OK;
}
