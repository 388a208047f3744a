/* The stencil algorithm as the core sees it. */
#include "backends/cpu/cpu.h"
#include "backends/cpu/stencil.h"
#include "core/mem.h"

enum { MOST_SLOTS = 128 }; /* beyond this the tile family is ahead */

/* Lanes gather from two vectors of columns, so neighbors' windows must not lie further apart. */
static nf_status check_last_axis(const nf_request *request, int64_t lanes)
{
    const int32_t last = request->problem->rank - 1;
    const nf_axis_table *table = &request->grid->axis[last];
    for (int64_t g = 0; g < table->dilation; g++) {
        const nf_axis_class c = nf_axis_table_class(table, g);
        const nf_interval rows = nf_class_rows(&c, NF_ROWS_QUERIES);
        for (int32_t r = rows.begin; r < rows.end; r++) {
            const nf_interval seen = nf_class_sees(&c, NF_ROWS_QUERIES, r);
            const int32_t far = nf_min32(r + (int32_t)lanes, rows.end) - 1;
            if (nf_interval_size(seen) > MOST_SLOTS)
                return nf_fail(NF_ERR_UNSUPPORTED, "the last axis has %d keys in a window, the stencil takes %d",
                               (int)nf_interval_size(seen), MOST_SLOTS);
            if (nf_class_sees(&c, NF_ROWS_QUERIES, far).begin - seen.begin >= 2 * lanes)
                return nf_fail(NF_ERR_UNSUPPORTED, "windows of %lld neighbors on the last axis lie too far apart",
                               (long long)lanes);
        }
    }
    return NF_OK;
}

static nf_status stencil_supports(const void *state, const nf_request *request)
{
    const nf_problem *problem = request->problem;
    const cpu_kernels *kernels = cpu_kernels_for(state, problem->dtype);
    for (int role = 0; role < NF_ROLES; role++)
        if (request->layout[role].rank && request->layout[role].memory != NF_HOST)
            return nf_fail(NF_ERR_UNSUPPORTED, "%s is in device memory, the cpu backend reads host memory",
                           nf_role_name((nf_role)role));
    if (problem->extra)
        return nf_fail(NF_ERR_UNSUPPORTED, "extra tokens are left to the tile family");
    if (!cpu_stencil_fits(request, kernels, (problem->direction & NF_BWD) != 0))
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "the lines of keys that a block of queries sees are too many to keep packed");
    return check_last_axis(request, kernels->lanes);
}

static void stencil_cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    const cpu_kernels *k = cpu_kernels_for(state, request->problem->dtype);
    const double rate = CPU_OPERATIONS_PER_SECOND * (double)request->threads;
    for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++)
        if (request->problem->direction & direction)
            seconds[direction - 1] = cpu_stencil_operations(request, k, direction == NF_BWD) / rate;
}

static void stencil_release(const nf_request *request, void *prepared)
{
    cpu_stencil_plan *plan = prepared;
    if (!plan)
        return;
    cpu_stencil_release(&plan->forward, request->context);
    cpu_stencil_release(&plan->backward, request->context);
    nf_release(request->context, plan);
}

static nf_status stencil_prepare(const void *state, const nf_request *request, void **prepared)
{
    const nf_problem *problem = request->problem;
    const cpu_kernels *kernels = cpu_kernels_for(state, problem->dtype);
    cpu_stencil_plan *plan = nf_alloc_array(request->context, 1, sizeof *plan);
    if (!plan)
        return NF_ERR_MEMORY;
    *plan = (cpu_stencil_plan){
        .request = request,
        .kernels = kernels,
        .head_dim = (problem->head_dim + kernels->lanes - 1) / kernels->lanes * kernels->lanes,
        .value_dim = (problem->value_dim + kernels->lanes - 1) / kernels->lanes * kernels->lanes,
        .scale = nf_problem_scale(problem),
    };
    nf_status status = cpu_stencil_shape(&plan->forward, request, kernels, false);
    if (status == NF_OK && problem->direction & NF_BWD)
        status = cpu_stencil_shape(&plan->backward, request, kernels, true);
    if (status != NF_OK) {
        stencil_release(request, plan);
        return status;
    }
    plan->threads = nf_max64(nf_min64(request->threads, nf_max64(plan->forward.items, plan->backward.items)), 1);
    if (problem->direction & NF_FWD)
        plan->thread_bytes = cpu_stencil_forward_bytes(plan);
    if (problem->direction & NF_BWD) {
        const size_t backward = cpu_stencil_backward_bytes(plan);
        plan->thread_bytes = backward > plan->thread_bytes ? backward : plan->thread_bytes;
    }
    *prepared = plan;
    return NF_OK;
}

static size_t stencil_workspace(const void *prepared)
{
    const cpu_stencil_plan *plan = prepared;
    return plan->thread_bytes * (size_t)plan->threads;
}

/* Pairs that lanes compute: visible ones, and slots that other lanes of the vector have; strands fill each other's vectors. */
static double computed_pairs(const cpu_stencil_plan *plan)
{
    const nf_grid *grid = plan->request->grid;
    const nf_work *work = &plan->forward.work;
    const int32_t last = grid->rank - 1;
    double computed = 0, useful = 0;
    for (int64_t i = 0; i < work->segment_count[last]; i++) {
        const nf_segment *segment = &work->segments[last][i];
        const nf_axis_class c = nf_axis_table_class(&grid->axis[last], segment->class_index);
        for (int32_t x = segment->rows.begin; x < segment->rows.end; x += (int32_t)plan->kernels->lanes) {
            const int32_t end = nf_min32(x + (int32_t)plan->kernels->lanes, segment->rows.end);
            int32_t slots = 0;
            for (int32_t r = x; r < end; r++) {
                const int32_t size = nf_interval_size(nf_class_sees(&c, NF_ROWS_QUERIES, r));
                slots = nf_max32(slots, size);
                useful += size;
            }
            computed += (double)(plan->forward.strands == 1 ? plan->kernels->lanes : end - x) * slots;
        }
    }
    return useful > 0 ? work->counts.useful_pairs / useful * computed : 0;
}

static void stencil_info(const void *prepared, nf_plan_info *info)
{
    const cpu_stencil_plan *plan = prepared;
    const nf_problem *problem = plan->request->problem;
    const double heads = (double)(problem->batch * problem->heads);
    info->kernel = plan->kernels->isa;
    info->useful_pairs = heads * plan->forward.work.counts.useful_pairs;
    info->computed_pairs = heads * computed_pairs(plan);
    info->masked_pairs = info->computed_pairs - info->useful_pairs;
    info->threads = plan->threads;
    for (int32_t a = 0; a < problem->rank; a++) {
        info->query_tile[a] = plan->forward.work.spec.tile[a];
        info->key_tile[a] = 1;
    }
}

static void describe_walk(const cpu_stencil_walk *walk, const char *name, nf_text *text)
{
    nf_text_printf(text, "  %s: items of ", name);
    for (int32_t a = 0; a < walk->work.grid->rank; a++)
        nf_text_printf(text, "%s%d", a ? "x" : "", (int)walk->work.spec.group[a]);
    if (walk->strands > 1)
        nf_text_printf(text, " in %lld strands", (long long)walk->strands);
    nf_text_printf(text, ", %lld of them; blocks of %lld; a ring of %lldx%lld lines of %lld keys\n", (long long)walk->items,
                   (long long)walk->block_rows, (long long)walk->planes, (long long)walk->ring, (long long)walk->columns);
}

static void stencil_describe(const void *prepared, nf_text *text)
{
    const cpu_stencil_plan *plan = prepared;
    nf_text_printf(text, "  kernels %s, %lld %s in the lanes, %lld threads, %zu bytes of workspace each\n",
                   plan->kernels->isa, (long long)plan->kernels->lanes,
                   plan->kernels->real_size == (int64_t)sizeof(float) ? "f32" : "f64", (long long)plan->threads,
                   plan->thread_bytes);
    describe_walk(&plan->forward, "forward", text);
    if (plan->backward.items)
        describe_walk(&plan->backward, "backward", text);
}

const nf_algorithm cpu_algorithm_stencil = {
    .name = "stencil",
    .supports = stencil_supports,
    .cost = stencil_cost,
    .prepare = stencil_prepare,
    .release = stencil_release,
    .workspace = stencil_workspace,
    .info = stencil_info,
    .describe = stencil_describe,
    .forward = cpu_stencil_forward,
    .backward = cpu_stencil_backward,
    .enqueue = nf_stub_enqueue,
    .pair = &nf_stub_pair,
};
