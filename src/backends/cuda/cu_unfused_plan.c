/* The plan of the algorithm unfused: gpu_unfused.c's, in which kernels for tensor cores (cu_unfused.cu) take the place
 * of those that multiply, with the same arguments, wherever there are such for the problem. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backends/cuda/cu.h"
#include "backends/gpu/gpu_ahead.h"
#include "backends/gpu/gpu_shape.h"
#include "backends/gpu/gpu_slots.h"
#include "backends/gpu/gpu_tables.h"
#include "core/problem.h"

/* What the kernels have as constants, too. */
enum {
    THREADS = 128,
    ROWS = 64,
    COLUMNS = 64,
    WIDEST_OF_COLUMNS = 128, /* dimensions up to which as many are met at once, */
    WIDE_STEP = 32,          /* above, */
    F32_STEP = 16,           /* and of f32 */
    ELEMENT_BYTES = 2,
    PIECES = 3, /* that f32 is split into (cu_mma_split.h) */
    STEPS_AT_HAND = 2,
    PADDING = 8,           /* of a row of scores */
    TABLE_BYTES = 10 << 10 /* of what kernels declare themselves, at most */
};

static const double SCORE_MULTIPLIES = 64; /* to write or read a score, a guess that only ranks boxes */
static const double ITEM_MULTIPLIES = 2e6; /* to open and end an item */

/* Of the least program that is wide enough; 0: there is none. */
static int64_t program_dims(const nf_problem *p)
{
#define DIMS(n) n,
    static const int64_t dims[] = {GPU_AHEAD_UNFUSED_DIMS(DIMS)}, f32_dims[] = {GPU_AHEAD_UNFUSED_F32_DIMS(DIMS)};
#undef DIMS
    const int64_t wanted = nf_max64(p->head_dim, p->value_dim);
    return p->dtype == NF_F32 ? cu_enough(f32_dims, sizeof f32_dims / sizeof *f32_dims, wanted)
                              : cu_enough(dims, sizeof dims / sizeof *dims, wanted);
}

/* ---- Shared memory ----------------------------------------------------------------------------------------------- */

static int64_t step_of(const nf_problem *p, int64_t dims)
{
    if (p->dtype == NF_F32)
        return F32_STEP;
    return dims > WIDEST_OF_COLUMNS ? WIDE_STEP : COLUMNS;
}

static int64_t line_bytes(const nf_problem *p, int64_t lines, int64_t dims)
{
    return lines * dims * ELEMENT_BYTES * (p->dtype == NF_F32 ? PIECES : 1);
}

/* Steps of columns, what f32 copies, and tiles of scores (cu_unfused.h). */
static int64_t columns_bytes(const nf_problem *p, int64_t dims, int64_t tiles)
{
    const int64_t step = step_of(p, dims), raw = p->dtype == NF_F32 ? step * dims * (int64_t)sizeof(float) : 0;
    return line_bytes(p, STEPS_AT_HAND * step, dims) + raw + tiles * ROWS * (step + PADDING) * (int64_t)sizeof(float);
}

static int64_t scores_bytes(const nf_problem *p, int64_t dims)
{
    return line_bytes(p, ROWS, dims) + columns_bytes(p, dims, 1);
}

static int64_t sums_bytes(const nf_problem *p, int64_t dims)
{
    return columns_bytes(p, dims, STEPS_AT_HAND);
}

/* ---- Whether there are kernels ----------------------------------------------------------------------------------- */

/* The scale of f32 has to take back what queries are multiplied by. */
static bool fits(const gpu_device *device, const nf_problem *p)
{
    const int64_t dims = program_dims(p);
    if (!device->matrices || p->dtype == NF_F64 || !dims || cu_count_rows(p) > CU_MOST_ROWS ||
        device->group_items < THREADS)
        return false;
    if (p->dtype == NF_F32 && !(fabs(nf_problem_scale(p)) >= FLT_MIN * CU_F32_QUERY_SCALE))
        return false;
    return nf_max64(scores_bytes(p, dims), sums_bytes(p, dims)) + TABLE_BYTES <= device->launch_local_bytes;
}

/* ---- Walks ------------------------------------------------------------------------------------------------------- */

static nf_status add_walk(gpu_plan *plan, const nf_request *request, const nf_work_spec *spec, int at)
{
    nf_work work;
    nf_status status = nf_work_create(&work, request->context, request->grid, spec);
    if (status != NF_OK)
        return status;
    status = gpu_slots_add_walk(plan, request, &work, at);
    if (at == GPU_BY_QUERY) {
        const double useful = plan->counts.useful_pairs, extra_pairs = useful - work.counts.useful_pairs;
        plan->counts = work.counts;
        plan->counts.useful_pairs = useful;
        plan->counts.computed_pairs += extra_pairs;
    }
    nf_work_destroy(&work, request->context);
    return status;
}

static nf_status add_walks(gpu_plan *plan, const nf_request *request)
{
    const nf_problem *p = request->problem;
    const double dims = (double)program_dims(p);
    const gpu_walk_cost cost = {.rows = ROWS,
                                .together = ROWS,
                                .pair = ROWS * (dims + SCORE_MULTIPLIES),
                                .item = ITEM_MULTIPLIES,
                                .whole_tiles = true};
    gpu_shape shape = {.columns = COLUMNS};
    double groups;
    gpu_shape_cut(&shape, request, &cost, &cost, &groups);
    const nf_status status = add_walk(plan, request, &shape.by_query, GPU_BY_QUERY);
    for (int32_t a = 0; a < p->rank; a++) {
        plan->query_tile[a] = shape.by_query.tile[a];
        plan->key_tile[a] = shape.by_query.columns[a];
    }
    return status == NF_OK && p->direction & NF_BWD ? add_walk(plan, request, &shape.by_key, GPU_BY_KEY) : status;
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

typedef enum rows_kind { QUERIES, KEYS, EXTRA_TOKENS } rows_kind;

static const struct {
    const char *scalar, *kernel;
    rows_kind rows;
    bool scores; /* are written */
} products[] = {
    {"unfused_qk", "unfused_mma_qk", QUERIES, true},
    {"unfused_dout_v", "unfused_mma_dout_v", QUERIES, true},
    {"unfused_av", "unfused_mma_av", QUERIES, false},
    {"unfused_dq", "unfused_mma_dq", QUERIES, false},
    {"unfused_dk", "unfused_mma_dk", KEYS, false},
    {"unfused_dv", "unfused_mma_dv", KEYS, false},
    {"unfused_extra_dk", "unfused_mma_extra_dk", EXTRA_TOKENS, false},
    {"unfused_extra_dv", "unfused_mma_extra_dv", EXTRA_TOKENS, false},
};

/* A group each. */
static int64_t count_items(const gpu_plan *plan, const nf_problem *p, rows_kind rows)
{
    const int64_t *header = plan->tables;
    const int64_t streams = p->batch * p->kv_heads;
    if (rows == QUERIES)
        return p->batch * p->heads * header[GPU_BY_QUERY + GPU_WALK_ITEMS];
    if (rows == KEYS)
        return streams * header[GPU_BY_KEY + GPU_WALK_ITEMS];
    return streams * header[GPU_SPLITS] * ((p->extra + ROWS - 1) / ROWS);
}

static void replace(gpu_plan *plan, const nf_problem *p, gpu_launch *launch)
{
    const int64_t dims = program_dims(p);
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        if (strcmp(launch->kernel, products[i].scalar) != 0)
            continue;
        launch->kernel = products[i].kernel;
        launch->of_products = true;
        launch->groups = (size_t)nf_max64(count_items(plan, p, products[i].rows), 1);
        launch->items = THREADS;
        launch->local_bytes = (size_t)(products[i].scores ? scores_bytes(p, dims) : sums_bytes(p, dims));
        return;
    }
}

static void replace_all(gpu_plan *plan, const nf_problem *p)
{
    gpu_launches *const all[] = {&plan->forward, &plan->backward,    &plan->qk,
                                 &plan->av,      &plan->qk_backward, &plan->av_backward};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (int n = 0; n < all[i]->count; n++)
            replace(plan, p, &all[i]->launch[n]);
    snprintf(plan->products, sizeof plan->products, "-DUNFUSED=1 -DIN_TYPE=%d -DDIMS=%d", (int)p->dtype,
             (int)program_dims(p));
}

nf_status cu_unfused_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                            const nf_tensor layout[NF_ROLES])
{
    gpu_plan *made;
    nf_status status = gpu_unfused_create(&made, device, request, layout);
    if (status != NF_OK)
        return status;
    if (fits(device, request->problem)) {
        status = add_walks(made, request);
        if (status == NF_OK)
            replace_all(made, request->problem);
    }
    if (status == NF_OK)
        *plan = made;
    else
        gpu_plan_destroy(made, request->context);
    return status;
}
