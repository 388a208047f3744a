/* The reference backend's entry in the registry: one algorithm, "naive", never chosen unless asked for. Workers share
 * nothing: each takes whole (batch, kv head) pairs, so that results do not depend on their number. */
#include "backends/reference/reference.h"

#include <math.h>

#include "core/mem.h"

/* Measured on one core, per pair and element of head_dim + value_dim, in rows of 64 elements, by double and by long
 * double. */
static const double seconds_per_element[] = {0.7e-9, 2.7e-9};
static const double backward_over_forward = 2.5;
/* Workers beyond the first must fit into this much workspace. */
static const double workspace_goal = 1 << 30;

static size_t round_up(size_t bytes)
{
    return (bytes + NF_ALIGNMENT - 1) / NF_ALIGNMENT * NF_ALIGNMENT;
}

static const ref_arithmetic *arithmetic_of(const nf_problem *problem)
{
    return problem->dtype == NF_F64 ? &ref_long_double : &ref_double;
}

static double double_slot_bytes(const nf_problem *problem)
{
    const ref_arithmetic *arithmetic = arithmetic_of(problem);
    const double real = (double)arithmetic->real_bytes;
    double pairs;
    int64_t most;
    ref_count_pairs(problem, &pairs, &most);
    const double dims = (double)problem->head_dim + (double)problem->value_dim;
    const double keys = (double)ref_keys(problem) + (double)problem->extra;
    const double row_bytes = ((double)most + (double)problem->extra) * (double)arithmetic->pair_bytes + 3 * dims * real;
    return row_bytes + (problem->direction & NF_BWD ? keys * dims * real : 0);
}

static nf_status supports(const void *state, const nf_request *request)
{
    (void)state;
    for (int role = 0; role < NF_ROLES; role++)
        if (request->layout[role].rank && request->layout[role].memory != NF_HOST)
            return nf_fail(NF_ERR_UNSUPPORTED, "reference reads host memory only, but %s is in device memory",
                           nf_role_name((nf_role)role));
    const double bytes = double_slot_bytes(request->problem);
    if (bytes > (double)(SIZE_MAX / 4))
        return nf_fail(NF_ERR_UNSUPPORTED, "reference needs a workspace of %.3g bytes, more than memory can address",
                       bytes);
    return NF_OK;
}

static void cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    (void)state;
    const nf_problem *problem = request->problem;
    double pairs;
    int64_t most;
    ref_count_pairs(problem, &pairs, &most);
    pairs += (double)ref_queries(problem) * (double)problem->extra;
    const double items = (double)problem->batch * (double)problem->kv_heads;
    const double elements = pairs * (double)problem->batch * (double)problem->heads *
                            ((double)problem->head_dim + (double)problem->value_dim);
    seconds[NF_FWD - 1] =
        elements * seconds_per_element[problem->dtype == NF_F64] / fmin(items, (double)request->threads);
    seconds[NF_BWD - 1] = backward_over_forward * seconds[NF_FWD - 1];
}

static nf_status prepare(const void *state, const nf_request *request, void **prepared)
{
    (void)state;
    const nf_problem *problem = request->problem;
    ref_plan *plan = nf_alloc(request->context, sizeof *plan);
    if (!plan)
        return NF_ERR_MEMORY;
    *plan = (ref_plan){.request = request,
                       .arithmetic = arithmetic_of(problem),
                       .scale = nf_problem_scale(problem),
                       .keys = ref_keys(problem),
                       .gradients = (problem->direction & NF_BWD) != 0};
    ref_count_pairs(problem, &plan->pairs, &plan->row_keys);
    plan->pairs += (double)ref_queries(problem) * (double)problem->extra;
    plan->row_keys += problem->extra;
    const size_t dims = (size_t)(problem->head_dim + problem->value_dim);
    const size_t rows = 3 + (plan->gradients ? (size_t)(plan->keys + problem->extra) : 0);
    plan->slot_bytes =
        round_up((size_t)plan->row_keys * plan->arithmetic->pair_bytes + rows * dims * plan->arithmetic->real_bytes);
    const double items = (double)problem->batch * (double)problem->kv_heads;
    const double fit = fmax(workspace_goal / (double)plan->slot_bytes, 1);
    plan->slots = (int)fmin(fmin(items, (double)request->threads), fmin(fit, INT32_MAX));
    *prepared = plan;
    return NF_OK;
}

static void release(const nf_request *request, void *prepared)
{
    nf_release(request->context, prepared);
}

static size_t workspace_bytes(const void *prepared)
{
    const ref_plan *plan = prepared;
    return (size_t)plan->slots * plan->slot_bytes;
}

static void info(const void *prepared, nf_plan_info *figures)
{
    const ref_plan *plan = prepared;
    const nf_problem *problem = plan->request->problem;
    const double pairs = plan->pairs * (double)problem->batch * (double)problem->heads;
    figures->kernel = "";
    figures->useful_pairs = figures->computed_pairs = figures->tiles_full = pairs;
    figures->masked_pairs = figures->tiles_partial = figures->tiles_absent = 0;
    for (int32_t a = 0; a < problem->rank; a++)
        figures->query_tile[a] = figures->key_tile[a] = 1;
}

static void describe(const void *prepared, nf_text *text)
{
    const ref_plan *plan = prepared;
    nf_text_printf(text, "  one query and one key at a time, in %s; %d worker%s\n", plan->arithmetic->name, plan->slots,
                   plan->slots == 1 ? "" : "s");
}

static nf_status run(const ref_plan *plan, const nf_tensor *const io[NF_ROLES], void *workspace, ref_item *item)
{
    const nf_problem *problem = plan->request->problem;
    const ref_call call = {.plan = plan, .problem = problem, .io = io};
    const int64_t items = problem->batch * problem->kv_heads;
#pragma omp parallel for num_threads(plan->slots) schedule(static)
    for (int index = 0; index < plan->slots; index++) {
        void *const memory = (char *)workspace + (size_t)index * plan->slot_bytes;
        for (int64_t i = index; i < items; i += plan->slots)
            item(&call, memory, i / problem->kv_heads, i % problem->kv_heads);
    }
    return NF_OK;
}

static nf_status forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    return run(prepared, io, workspace, ((const ref_plan *)prepared)->arithmetic->forward);
}

static nf_status backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    return run(prepared, io, workspace, ((const ref_plan *)prepared)->arithmetic->backward);
}

static const nf_algorithm naive = {
    .name = "naive",
    .supports = supports,
    .cost = cost,
    .prepare = prepare,
    .release = release,
    .workspace = workspace_bytes,
    .info = info,
    .describe = describe,
    .forward = forward,
    .backward = backward,
    .enqueue = nf_stub_enqueue,
    .pair = &nf_stub_pair,
};

static nf_status open_host(const nf_context *context, void **state)
{
    (void)context;
    *state = NULL;
    return NF_OK;
}

static void describe_device(const void *state, nf_text *text)
{
    (void)state;
    nf_text_printf(text, "  plain loops in double, f64 in long double, on the host; runs every problem\n");
}

static const nf_algorithm *const algorithms[] = {&naive, NULL};

const nf_backend nf_backend_reference = {
    .name = "reference",
    .summary = "plain loops in double, f64 in long double, the truth",
    .open = open_host,
    .close = nf_stub_close,
    .describe = describe_device,
    .device = nf_stub_device,
    .gpu = nf_stub_gpu,
    .peak = nf_stub_peak,
    .merge = nf_stub_merge,
    .algorithms = algorithms,
};
