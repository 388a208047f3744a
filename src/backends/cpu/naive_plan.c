/* The naive algorithm as the core sees it. */
#include "backends/cpu/naive.h"

#include <string.h>

#include "backends/cpu/cpu.h"
#include "config.h"
#include "core/mem.h"

/* In vector operations, measured: per row of out, per pair, and per vector of its dims, as they are or converted. */
static const double ROW_OPERATIONS = 1200, PAIR_OPERATIONS = 20, VECTOR_OPERATIONS = 3.75, CONVERT_OPERATIONS = 5;
static const double BACKWARD_OVER_FORWARD = 4.5; /* seven products instead of two */

static const cpu_naive_loops *loops_for(const cpu_kernels *kernels)
{
    const bool single = kernels->real_size == (int64_t)sizeof(float);
#if defined(NF_HAVE_AVX512)
    if (strncmp(kernels->isa, "avx512", 6) == 0)
        return single ? &cpu_naive_avx512_f32 : &cpu_naive_avx512_f64;
#endif
#if defined(NF_HAVE_AVX2)
    if (strncmp(kernels->isa, "avx", 3) == 0)
        return single ? &cpu_naive_avx2_f32 : &cpu_naive_avx2_f64;
#endif
    return single ? &cpu_naive_baseline_f32 : &cpu_naive_baseline_f64;
}

static nf_status naive_supports(const void *state, const nf_request *request)
{
    (void)state;
    for (int role = 0; role < NF_ROLES; role++)
        if (request->layout[role].rank && request->layout[role].memory != NF_HOST)
            return nf_fail(NF_ERR_UNSUPPORTED, "%s is in device memory, the cpu backend reads host memory",
                           nf_role_name((nf_role)role));
    return NF_OK;
}

static double count_rows(const nf_problem *problem)
{
    double rows = (double)problem->batch * (double)problem->heads;
    for (int32_t a = 0; a < problem->rank; a++)
        rows *= (double)nf_axis_query_range(&problem->axis[a]).count;
    return rows;
}

static double count_pairs(const nf_request *request)
{
    const nf_problem *problem = request->problem;
    return (double)problem->batch * (double)problem->heads * nf_grid_pairs(request->grid) +
           count_rows(problem) * (double)problem->extra;
}

static void naive_cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    const nf_problem *problem = request->problem;
    const cpu_kernels *kernels = cpu_kernels_for(state, problem->dtype);
    const double vectors = (double)(problem->head_dim + problem->value_dim) / (double)kernels->lanes;
    const bool converted = (int64_t)nf_dtype_size(problem->dtype) != kernels->real_size;
    const double pair = PAIR_OPERATIONS + vectors * (VECTOR_OPERATIONS + (converted ? CONVERT_OPERATIONS : 0));
    seconds[NF_FWD - 1] = (count_rows(problem) * ROW_OPERATIONS + count_pairs(request) * pair) /
                          CPU_OPERATIONS_PER_SECOND / (double)request->threads;
    seconds[NF_BWD - 1] = BACKWARD_OVER_FORWARD * seconds[NF_FWD - 1];
}

cpu_naive_seen cpu_naive_see(const nf_request *request, nf_side rows, int64_t number)
{
    const nf_problem *problem = request->problem;
    cpu_naive_seen seen = {.total = 1};
    for (int32_t a = problem->rank - 1; a >= 0; a--) {
        const nf_axis_table *table = &request->grid->axis[a];
        const bool queries = rows == NF_ROWS_QUERIES;
        const int64_t begin = queries ? table->q_begin : table->k_begin;
        const int64_t count = (queries ? table->q_end : table->k_end) - begin;
        const int64_t token = begin + number % count;
        const nf_axis_class c = nf_axis_table_class(table, token % table->dilation);
        const nf_interval columns = nf_class_sees(&c, rows, (int32_t)(token / table->dilation));
        number /= count;
        seen.first[a] = nf_class_column_index(&c, rows, columns.begin);
        seen.count[a] = nf_interval_size(columns);
        seen.step[a] = c.step;
        seen.total *= seen.count[a];
    }
    return seen;
}

/* Columns that any row of one side sees, at most. */
static int64_t longest_row(const nf_grid *grid, nf_side rows)
{
    int64_t longest = 1;
    for (int32_t a = 0; a < grid->rank; a++) {
        int32_t widest = 0;
        for (int64_t g = 0; g < grid->axis[a].dilation; g++) {
            const nf_axis_class c = nf_axis_table_class(&grid->axis[a], g);
            const nf_interval all = nf_class_rows(&c, rows);
            for (int32_t r = all.begin; r < all.end; r++)
                widest = nf_max32(widest, nf_interval_size(nf_class_sees(&c, rows, r)));
        }
        longest *= widest;
    }
    return longest;
}

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

void cpu_naive_carve(const cpu_naive_plan *p, cpu_arena *arena, cpu_naive_scratch *s)
{
    const int64_t real = p->kernels->real_size;
    s->a = cpu_take(arena, p->wide * real);
    s->a2 = cpu_take(arena, p->wide * real);
    s->y = cpu_take(arena, p->wide * real);
    s->y2 = cpu_take(arena, p->wide * real);
    s->converted = cpu_take(arena, p->wide * real);
    s->s = cpu_take(arena, p->longest * real);
    s->lse = cpu_take(arena, p->longest * real);
    s->delta = cpu_take(arena, p->longest * real);
    s->ds = cpu_take(arena, p->longest * real);
}

static void size_workspace(cpu_naive_plan *plan)
{
    const nf_problem *problem = plan->request->problem;
    plan->longest = longest_row(plan->request->grid, NF_ROWS_QUERIES) + problem->extra;
    if (problem->direction & NF_BWD) {
        plan->longest = nf_max64(plan->longest, longest_row(plan->request->grid, NF_ROWS_KEYS));
        if (problem->extra)
            plan->longest = nf_max64(plan->longest, plan->queries);
        plan->term_bytes =
            (size_t)round_up(problem->batch * problem->heads * plan->queries * plan->kernels->real_size, NF_ALIGNMENT);
    }
    plan->longest = round_up(nf_max64(plan->longest, 1), plan->kernels->lanes);
    cpu_arena arena = {0};
    cpu_naive_scratch scratch;
    cpu_naive_carve(plan, &arena, &scratch);
    plan->thread_bytes = arena.used;
}

static nf_status naive_prepare(const void *state, const nf_request *request, void **prepared)
{
    const nf_problem *problem = request->problem;
    cpu_naive_plan *plan = nf_alloc_array(request->context, 1, sizeof *plan);
    if (!plan)
        return NF_ERR_MEMORY;
    plan->request = request;
    plan->kernels = cpu_kernels_for(state, problem->dtype);
    plan->loops = loops_for(plan->kernels);
    plan->wide = round_up(nf_max64(problem->head_dim, problem->value_dim), plan->kernels->lanes);
    plan->scale = nf_problem_scale(problem);
    plan->threads = request->threads;
    plan->queries = plan->keys = 1;
    for (int32_t a = 0; a < problem->rank; a++) {
        plan->queries *= nf_axis_query_range(&problem->axis[a]).count;
        plan->keys *= nf_axis_key_range(&problem->axis[a]).count;
    }
    size_workspace(plan);
    *prepared = plan;
    return NF_OK;
}

static void naive_release(const nf_request *request, void *prepared)
{
    nf_release(request->context, prepared);
}

static size_t naive_workspace(const void *prepared)
{
    const cpu_naive_plan *plan = prepared;
    return plan->thread_bytes * (size_t)plan->threads + 2 * plan->term_bytes;
}

static void naive_info(const void *prepared, nf_plan_info *info)
{
    const cpu_naive_plan *plan = prepared;
    info->kernel = plan->kernels->isa;
    info->useful_pairs = info->computed_pairs = count_pairs(plan->request);
    info->threads = plan->threads;
    for (int32_t a = 0; a < plan->request->problem->rank; a++)
        info->query_tile[a] = info->key_tile[a] = 1;
}

static void naive_describe(const void *prepared, nf_text *text)
{
    const cpu_naive_plan *plan = prepared;
    nf_text_printf(text, "  loops %s, %s inside, one row at a time, %lld threads, %zu bytes of workspace each\n",
                   plan->kernels->isa, plan->kernels->real_size == (int64_t)sizeof(float) ? "f32" : "f64",
                   (long long)plan->threads, plan->thread_bytes);
}

const nf_algorithm cpu_algorithm_naive = {
    .name = "naive",
    .supports = naive_supports,
    .cost = naive_cost,
    .prepare = naive_prepare,
    .release = naive_release,
    .workspace = naive_workspace,
    .info = naive_info,
    .describe = naive_describe,
    .forward = cpu_naive_forward,
    .backward = cpu_naive_backward,
    .enqueue = nf_stub_enqueue,
    .pair = &nf_stub_pair,
};
