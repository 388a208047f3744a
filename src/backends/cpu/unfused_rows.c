/* The passes over rows of slots, a block of queries of one head at a time: softmax, and its gradient. */
#include <math.h>

#include "backends/cpu/backward.h"
#include "backends/cpu/unfused.h"

enum { BLOCK = CPU_TILE_ROWS };

/* Queries of one head, and their rows of slots. */
typedef struct block {
    int64_t batch, head;
    int64_t extents[NF_MAX_RANK];
    cpu_span span;
    int64_t first_row;
} block;

static int64_t blocks_of_head(const cpu_unfused_plan *plan)
{
    return (plan->queries + BLOCK - 1) / BLOCK;
}

static int64_t count_blocks(const cpu_unfused_plan *plan)
{
    const nf_problem *problem = plan->request->problem;
    return problem->batch * problem->heads * blocks_of_head(plan);
}

static void get_block(const cpu_unfused_plan *plan, int64_t index, block *b)
{
    const nf_problem *problem = plan->request->problem;
    const int64_t stream = index / blocks_of_head(plan), begin = index % blocks_of_head(plan) * BLOCK;
    b->batch = stream / problem->heads;
    b->head = stream % problem->heads;
    b->first_row = stream * plan->queries + begin;
    for (int32_t a = 0; a < problem->rank; a++)
        b->extents[a] = nf_axis_query_range(&problem->axis[a]).count;
    b->span = (cpu_span){
        .count = nf_min64(BLOCK, plan->queries - begin), .begin = begin, .extents = b->extents, .rank = problem->rank};
}

static cpu_unfused_scratch carve_own(const cpu_unfused_plan *plan, char *workspace)
{
    cpu_unfused_scratch s;
    cpu_arena arena = {.base = workspace + (size_t)cpu_thread_index() * plan->thread_bytes};
    cpu_unfused_carve(plan, &arena, &s);
    return s;
}

/* Whether a query, by row-major number, sees any key at all. */
static bool sees_any(const cpu_unfused_plan *plan, int64_t number)
{
    const nf_problem *problem = plan->request->problem;
    if (problem->extra)
        return true;
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        const nf_axis_table *table = &plan->request->grid->axis[a];
        const int64_t count = nf_axis_query_range(&problem->axis[a]).count;
        const int64_t token = table->q_begin + number % count;
        const nf_axis_class c = nf_axis_table_class(table, token % table->dilation);
        number /= count;
        if (nf_interval_size(nf_class_sees(&c, NF_ROWS_QUERIES, (int32_t)(token / table->dilation))) == 0)
            return false;
    }
    return true;
}

static double log_of(const cpu_kernels *k, double x)
{
    return k->real_size == (int64_t)sizeof(float) ? (double)logf((float)x) : log(x);
}

/* Absent slots hold -inf, whose exponential the kernels round up to the smallest normal number: nothing beside the
 * largest weight, 1, of a row that sees a key. A row that sees none is left alone, as none of its slots is ever read.
 */
static void softmax_block(const cpu_unfused_plan *plan, const cpu_unfused_scratch *s, void *scores, double scale,
                          const cpu_view *lse_view, int64_t index)
{
    const cpu_kernels *k = plan->kernels;
    block b;
    get_block(plan, index, &b);
    void *first = cpu_at(k, scores, b.first_row * plan->row), *rows[BLOCK];
    double factors[BLOCK], lse[BLOCK];
    for (int64_t i = 0; i < b.span.count; i++) {
        rows[i] = cpu_at(k, first, i * plan->row);
        cpu_set_real(k, s->max, i, -INFINITY);
        cpu_set_real(k, s->sum, i, 0);
        for (int64_t j = plan->slots; j < plan->row; j++) /* whole vectors are faster */
            cpu_set_real(k, rows[i], j, -INFINITY);
    }
    k->softmax(first, plan->row, b.span.count, plan->row, scale, NULL, 1, s->max, s->sum, s->rows, 0, 0);
    for (int64_t i = 0; i < b.span.count; i++) {
        const double max = cpu_get_real(k, s->max, i), sum = cpu_get_real(k, s->sum, i);
        const bool empty = max == -INFINITY && !sees_any(plan, b.span.begin + i);
        factors[i] = empty ? 1 : 1 / sum;
        lse[i] = empty ? -INFINITY : max + log_of(k, sum);
    }
    k->store_rows(rows, k->real_size == (int64_t)sizeof(float) ? NF_F32 : NF_F64, 1, b.span.count, plan->slots, first,
                  plan->row, factors);
    if (!lse_view->data)
        return;
    int64_t offsets[BLOCK];
    cpu_span_offsets(&b.span, lse_view, offsets);
    for (int64_t i = 0; i < b.span.count; i++)
        cpu_write_scalar(lse_view, b.batch, b.head, offsets[i], lse[i]);
}

void cpu_unfused_softmax(const cpu_unfused_plan *plan, void *scores, double scale, const cpu_view *lse, char *workspace)
{
    const int64_t blocks = count_blocks(plan);
#pragma omp parallel num_threads((int)plan->threads)
    {
        const cpu_unfused_scratch scratch = carve_own(plan, workspace);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < blocks; i++)
            softmax_block(plan, &scratch, scores, scale, lse, i);
    }
}

/* lse and delta lie where softmax keeps max and sum. */
static void gradient_block(const cpu_unfused_plan *plan, const cpu_unfused_scratch *s, void *scores, void *dscores,
                           const cpu_views *io, int64_t index)
{
    const cpu_kernels *k = plan->kernels;
    const nf_problem *problem = plan->request->problem;
    block b;
    get_block(plan, index, &b);
    cpu_fetch_rows(k, &b.span, &io->out, b.batch, b.head, problem->value_dim, plan->wide, s->rows, s->columns);
    cpu_fetch_rows(k, &b.span, &io->dout, b.batch, b.head, problem->value_dim, plan->wide, s->converted, s->more);
    cpu_row_terms(k, &b.span, &io->lse, &io->dlse, b.batch, b.head, problem->value_dim, s->columns, s->more, s->max,
                  s->sum);
    k->gradient(cpu_at(k, scores, b.first_row * plan->row), cpu_at(k, dscores, b.first_row * plan->row), plan->row,
                b.span.count, plan->slots, 1, NULL, 1, s->max, s->sum, false);
}

void cpu_unfused_gradient(const cpu_unfused_plan *plan, void *scores, void *dscores, const cpu_views *io,
                          char *workspace)
{
    const int64_t blocks = count_blocks(plan);
#pragma omp parallel num_threads((int)plan->threads)
    {
        const cpu_unfused_scratch scratch = carve_own(plan, workspace);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < blocks; i++)
            gradient_block(plan, &scratch, scores, dscores, io, i);
    }
}
