/* Forward and backward, row by row: one team of threads over the rows of out, of dq, and of dk and dv. Every row is one
 * thread's, so that no sum depends on their number. */
#include <math.h>
#include <string.h>

#include "backends/cpu/backward.h"
#include "backends/cpu/naive.h"

enum { ROWS_AT_ONCE = 16 }; /* that a thread takes: causal rows are of unequal length */

typedef struct naive_call {
    const cpu_naive_plan *plan;
    cpu_views io;
    cpu_view lses, deltas; /* of all queries, reals, [batch][head][query] */
} naive_call;

/* Contiguous reals per query of a head. */
static cpu_view terms_view(const cpu_naive_plan *plan, void *reals)
{
    const nf_problem *problem = plan->request->problem;
    cpu_view view = {.data = reals,
                     .element = plan->kernels->real_size,
                     .dim = 1,
                     .head = plan->queries,
                     .batch = plan->queries * problem->heads};
    view.dtype = view.element == (int64_t)sizeof(float) ? NF_F32 : NF_F64;
    int64_t stride = 1;
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        view.axis[a] = stride;
        stride *= nf_axis_query_range(&problem->axis[a]).count;
    }
    return view;
}

static naive_call start_call(const cpu_naive_plan *plan, const nf_tensor *const io[NF_ROLES], char *workspace)
{
    const int32_t rank = plan->request->problem->rank;
    char *terms = workspace + (size_t)plan->threads * plan->thread_bytes;
    return (naive_call){
        .plan = plan,
        .io = cpu_views_of(io, rank),
        .lses = terms_view(plan, terms),
        .deltas = terms_view(plan, terms + plan->term_bytes),
    };
}

static cpu_naive_scratch own_scratch(const cpu_naive_plan *plan, char *workspace)
{
    cpu_naive_scratch s;
    cpu_arena arena = {.base = workspace + (size_t)cpu_thread_index() * plan->thread_bytes};
    cpu_naive_carve(plan, &arena, &s);
    return s;
}

/* The rows of one head of a tensor that a row sees. */
static cpu_naive_box box_of(const cpu_naive_plan *plan, const cpu_naive_scratch *s, const cpu_naive_seen *seen,
                            int32_t rank, const cpu_view *view, int64_t batch, int64_t head)
{
    const bool in_place = view->dim == 1 && view->element == plan->kernels->real_size;
    cpu_naive_box box = {.count = {1, 1, 1, 1},
                         .dtype = view->dtype,
                         .dim = view->dim,
                         .kernels = plan->kernels,
                         .converted = in_place ? NULL : s->converted};
    int64_t offset = batch * view->batch + head * view->head;
    for (int32_t a = 0; a < NF_MAX_RANK; a++)
        box.step[a] = view->element;
    for (int32_t a = 0; a < rank; a++) {
        const int32_t to = a + NF_MAX_RANK - rank;
        offset += seen->first[a] * view->axis[a];
        box.count[to] = seen->total ? seen->count[a] : 0;
        box.step[to] = seen->step[a] * view->axis[a] * view->element;
    }
    box.first = view->data + offset * view->element;
    return box;
}

/* All extra tokens, which every query sees. */
static cpu_naive_seen see_extra(const nf_problem *problem)
{
    return (cpu_naive_seen){.count = {problem->extra}, .step = {1}, .total = problem->extra};
}

/* All queries, which see every extra token. */
static cpu_naive_seen see_all_queries(const nf_problem *problem)
{
    cpu_naive_seen seen = {.total = 1};
    for (int32_t a = 0; a < problem->rank; a++) {
        seen.count[a] = nf_axis_query_range(&problem->axis[a]).count;
        seen.step[a] = 1;
        seen.total *= seen.count[a];
    }
    return seen;
}

/* One position of a grid, as what the spans of the tile algorithm understand. */
static cpu_span position_span(const nf_problem *problem, nf_side rows, int64_t number, int64_t *extents)
{
    for (int32_t a = 0; a < problem->rank; a++)
        extents[a] = rows == NF_ROWS_QUERIES ? nf_axis_query_range(&problem->axis[a]).count
                                             : nf_axis_key_range(&problem->axis[a]).count;
    return (cpu_span){.count = 1, .begin = number, .extents = extents, .rank = problem->rank};
}

/* ---- By query ---------------------------------------------------------------------------------------------------- */

/* s = a . b over all keys of a query, extra tokens last. */
static void score_keys(const naive_call *c, const cpu_naive_scratch *s, const cpu_naive_seen *seen, const cpu_view *b,
                       const cpu_view *extra_b, int64_t batch, int64_t kv_head, const void *a, int64_t n, void *scores)
{
    const cpu_naive_plan *plan = c->plan;
    const nf_problem *problem = plan->request->problem;
    const cpu_naive_box keys = box_of(plan, s, seen, problem->rank, b, batch, kv_head);
    plan->loops->scores(&keys, a, n, scores);
    if (!problem->extra)
        return;
    const cpu_naive_seen all = see_extra(problem);
    const cpu_naive_box extra = box_of(plan, s, &all, 1, extra_b, batch, kv_head);
    plan->loops->scores(&extra, a, n, cpu_at(plan->kernels, scores, seen->total));
}

/* y = sum of scores times b. */
static void apply_keys(const naive_call *c, const cpu_naive_scratch *s, const cpu_naive_seen *seen, const cpu_view *b,
                       const cpu_view *extra_b, int64_t batch, int64_t kv_head, const void *scores, int64_t n, void *y)
{
    const cpu_naive_plan *plan = c->plan;
    const nf_problem *problem = plan->request->problem;
    const cpu_naive_box keys = box_of(plan, s, seen, problem->rank, b, batch, kv_head);
    memset(y, 0, (size_t)(n * plan->kernels->real_size));
    plan->loops->apply(&keys, scores, n, y);
    if (!problem->extra)
        return;
    const cpu_naive_seen all = see_extra(problem);
    const cpu_naive_box extra = box_of(plan, s, &all, 1, extra_b, batch, kv_head);
    plan->loops->apply(&extra, cpu_at(plan->kernels, scores, seen->total), n, y);
}

static void forward_row(const naive_call *c, const cpu_naive_scratch *s, int64_t index)
{
    const cpu_naive_plan *plan = c->plan;
    const cpu_kernels *k = plan->kernels;
    const nf_problem *problem = plan->request->problem;
    const int64_t number = index % plan->queries, head = index / plan->queries % problem->heads;
    const int64_t batch = index / plan->queries / problem->heads, kv_head = head / nf_problem_group(problem);
    const cpu_naive_seen seen = cpu_naive_see(plan->request, NF_ROWS_QUERIES, number);
    int64_t extents[NF_MAX_RANK];
    const cpu_span span = position_span(problem, NF_ROWS_QUERIES, number, extents);
    const void *q;
    cpu_fetch_rows(k, &span, &c->io.q, batch, head, problem->head_dim, plan->wide, s->a, &q);
    score_keys(c, s, &seen, &c->io.k, &c->io.extra_k, batch, kv_head, q, problem->head_dim, s->s);
    cpu_set_real(k, s->lse, 0, -INFINITY);
    cpu_set_real(k, s->delta, 0, 0);
    k->softmax(s->s, 0, 1, seen.total + problem->extra, plan->scale, NULL, 1, s->lse, s->delta, s->y, 0, 0);
    apply_keys(c, s, &seen, &c->io.v, &c->io.extra_v, batch, kv_head, s->s, problem->value_dim, s->y);
    cpu_store_softmax(k, &span, &c->io.out, &c->io.lse, batch, head, problem->value_dim, plan->wide, s->y, s->lse,
                      s->delta);
}

nf_status cpu_naive_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_naive_plan *plan = prepared;
    const nf_problem *problem = plan->request->problem;
    const naive_call call = start_call(plan, io, workspace);
    const int64_t rows = problem->batch * problem->heads * plan->queries;
#pragma omp parallel num_threads((int)plan->threads)
    {
        const cpu_naive_scratch scratch = own_scratch(plan, workspace);
#pragma omp for schedule(dynamic, ROWS_AT_ONCE)
        for (int64_t i = 0; i < rows; i++)
            forward_row(&call, &scratch, i);
    }
    return NF_OK;
}

/* lse and delta of one query, and its dq if that is asked for. */
static void dq_row(const naive_call *c, const cpu_naive_scratch *s, int64_t index)
{
    const cpu_naive_plan *plan = c->plan;
    const cpu_kernels *k = plan->kernels;
    const nf_problem *problem = plan->request->problem;
    const int64_t number = index % plan->queries, head = index / plan->queries % problem->heads;
    const int64_t batch = index / plan->queries / problem->heads, kv_head = head / nf_problem_group(problem);
    const int64_t size = k->real_size;
    int64_t extents[NF_MAX_RANK];
    const cpu_span span = position_span(problem, NF_ROWS_QUERIES, number, extents);
    const void *q, *out, *dout;
    void *lse = c->lses.data + index * size, *delta = c->deltas.data + index * size;
    cpu_fetch_rows(k, &span, &c->io.out, batch, head, problem->value_dim, plan->wide, s->y, &out);
    cpu_fetch_rows(k, &span, &c->io.dout, batch, head, problem->value_dim, plan->wide, s->a2, &dout);
    cpu_row_terms(k, &span, &c->io.lse, &c->io.dlse, batch, head, problem->value_dim, &out, &dout, lse, delta);
    if (!c->io.dq.data)
        return;
    const cpu_naive_seen seen = cpu_naive_see(plan->request, NF_ROWS_QUERIES, number);
    cpu_fetch_rows(k, &span, &c->io.q, batch, head, problem->head_dim, plan->wide, s->a, &q);
    score_keys(c, s, &seen, &c->io.k, &c->io.extra_k, batch, kv_head, q, problem->head_dim, s->s);
    score_keys(c, s, &seen, &c->io.v, &c->io.extra_v, batch, kv_head, dout, problem->value_dim, s->ds);
    k->gradient(s->s, s->ds, 0, 1, seen.total + problem->extra, plan->scale, NULL, 1, lse, delta, false);
    apply_keys(c, s, &seen, &c->io.k, &c->io.extra_k, batch, kv_head, s->ds, problem->head_dim, s->y);
    cpu_store_rows(k, &span, &c->io.dq, batch, head, problem->head_dim, plan->wide, s->y, plan->scale);
}

/* ---- By key ------------------------------------------------------------------------------------------------------ */

/* Gradients of one key and value, seen by the queries of `seen`. */
static void dkv_row(const naive_call *c, const cpu_naive_scratch *s, const cpu_naive_seen *seen, const cpu_span *span,
                    const cpu_view *keys, const cpu_view *values, const cpu_view *dk, const cpu_view *dv, int64_t batch,
                    int64_t kv_head)
{
    const cpu_naive_plan *plan = c->plan;
    const cpu_kernels *k = plan->kernels;
    const nf_problem *problem = plan->request->problem;
    const int64_t group = nf_problem_group(problem), d = problem->head_dim, e = problem->value_dim;
    const void *key, *value;
    cpu_fetch_rows(k, span, keys, batch, kv_head, d, plan->wide, s->a, &key);
    cpu_fetch_rows(k, span, values, batch, kv_head, e, plan->wide, s->a2, &value);
    memset(s->y, 0, (size_t)(d * k->real_size));
    memset(s->y2, 0, (size_t)(e * k->real_size));
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const cpu_naive_box q = box_of(plan, s, seen, problem->rank, &c->io.q, batch, head);
        const cpu_naive_box dout = box_of(plan, s, seen, problem->rank, &c->io.dout, batch, head);
        const cpu_naive_box lse = box_of(plan, s, seen, problem->rank, &c->lses, batch, head);
        const cpu_naive_box delta = box_of(plan, s, seen, problem->rank, &c->deltas, batch, head);
        plan->loops->gather(&lse, s->lse);
        plan->loops->gather(&delta, s->delta);
        plan->loops->scores(&q, key, d, s->s);
        plan->loops->scores(&dout, value, e, s->ds);
        k->gradient(s->s, s->ds, 0, 1, seen->total, plan->scale, NULL, 1, s->lse, s->delta, true);
        plan->loops->apply(&q, s->ds, d, s->y);
        plan->loops->apply(&dout, s->s, e, s->y2);
    }
    if (dk->data)
        cpu_store_rows(k, span, dk, batch, kv_head, d, plan->wide, s->y, plan->scale);
    if (dv->data)
        cpu_store_rows(k, span, dv, batch, kv_head, e, plan->wide, s->y2, 1);
}

static void key_row(const naive_call *c, const cpu_naive_scratch *s, int64_t index)
{
    const nf_problem *problem = c->plan->request->problem;
    const int64_t keys = c->plan->keys, number = index % keys, stream = index / keys;
    const cpu_naive_seen seen = cpu_naive_see(c->plan->request, NF_ROWS_KEYS, number);
    int64_t extents[NF_MAX_RANK];
    const cpu_span span = position_span(problem, NF_ROWS_KEYS, number, extents);
    dkv_row(c, s, &seen, &span, &c->io.k, &c->io.v, &c->io.dk, &c->io.dv, stream / problem->kv_heads,
            stream % problem->kv_heads);
}

static void extra_row(const naive_call *c, const cpu_naive_scratch *s, int64_t index)
{
    const nf_problem *problem = c->plan->request->problem;
    const int64_t stream = index / problem->extra;
    const cpu_naive_seen seen = see_all_queries(problem);
    const cpu_span span = {.count = 1, .begin = index % problem->extra, .extents = &problem->extra, .rank = 1};
    dkv_row(c, s, &seen, &span, &c->io.extra_k, &c->io.extra_v, &c->io.dextra_k, &c->io.dextra_v,
            stream / problem->kv_heads, stream % problem->kv_heads);
}

nf_status cpu_naive_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_naive_plan *plan = prepared;
    const nf_problem *problem = plan->request->problem;
    const naive_call call = start_call(plan, io, workspace);
    const int64_t streams = problem->batch * problem->kv_heads;
    const int64_t rows = problem->batch * problem->heads * plan->queries;
    const int64_t key_rows = call.io.dk.data || call.io.dv.data ? streams * plan->keys : 0;
    const int64_t extra_rows = call.io.dextra_k.data || call.io.dextra_v.data ? streams * problem->extra : 0;
#pragma omp parallel num_threads((int)plan->threads)
    {
        const cpu_naive_scratch scratch = own_scratch(plan, workspace);
#pragma omp for schedule(dynamic, ROWS_AT_ONCE)
        for (int64_t i = 0; i < rows; i++)
            dq_row(&call, &scratch, i);
#pragma omp for schedule(dynamic, ROWS_AT_ONCE)
        for (int64_t i = 0; i < key_rows; i++)
            key_row(&call, &scratch, i);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < extra_rows; i++)
            extra_row(&call, &scratch, i);
    }
    return NF_OK;
}
