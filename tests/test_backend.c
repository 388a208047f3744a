/* A whole backend in one file, written against core/backend.h alone; doc/add-a-backend.md walks through it. It runs
 * attention whose scale is 0, where out is the mean of the visible values and lse the logarithm of their number. */
#include "core/backend.h"

#include <math.h>
#include <string.h>

#include "attend.h"
#include "core/context.h"
#include "core/mem.h"
#include "harness.h"
#include "oracle.h"

/* ---- What it supports -------------------------------------------------------------------------------------------- */

static nf_status mean_supports(const void *state, const nf_request *request)
{
    const nf_problem *problem = request->problem;
    (void)state;
    if (!problem->scale_set || problem->scale != 0)
        return nf_fail(NF_ERR_UNSUPPORTED, "scale %g is not 0", nf_problem_scale(problem));
    if (problem->dtype != NF_F32 || problem->extra || problem->direction != NF_FWD)
        return nf_fail(NF_ERR_UNSUPPORTED, "only f32, forward, without extra tokens");
    for (int role = 0; role < NF_ROLES; role++)
        if (request->layout[role].rank && request->layout[role].memory != NF_HOST)
            return nf_fail(NF_ERR_UNSUPPORTED, "%s is not in host memory", nf_role_name((nf_role)role));
    return NF_OK;
}

static void mean_cost(const void *state, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    const nf_problem *problem = request->problem;
    (void)state;
    seconds[NF_FWD - 1] =
        1e-9 * nf_grid_pairs(request->grid) * (double)(problem->batch * problem->heads * problem->value_dim);
}

/* ---- What a plan holds ------------------------------------------------------------------------------------------- */

typedef struct mean_plan {
    const nf_request *request;
    nf_work work;
} mean_plan;

static nf_status mean_prepare(const void *state, const nf_request *request, void **prepared)
{
    const nf_work_spec spec = {
        .rows = NF_ROWS_QUERIES, .group = {8, 4, 4, 4}, .tile = {4, 2, 2, 2}, .columns = {8, 4, 4, 4}};
    (void)state;
    mean_plan *plan = nf_alloc_array(request->context, 1, sizeof *plan);
    if (!plan)
        return NF_ERR_MEMORY;
    plan->request = request;
    const nf_status status = nf_work_create(&plan->work, request->context, request->grid, &spec);
    if (status != NF_OK) {
        nf_release(request->context, plan);
        return status;
    }
    *prepared = plan;
    return NF_OK;
}

static void mean_release(const nf_request *request, void *prepared)
{
    mean_plan *plan = prepared;
    nf_work_destroy(&plan->work, request->context);
    nf_release(request->context, plan);
}

/* A sum and a count for each row of a tile; a group has at least as many rows. */
static size_t mean_workspace(const void *prepared)
{
    const mean_plan *plan = prepared;
    const int64_t row = plan->request->problem->value_dim + 1;
    return (size_t)(plan->work.counts.group_rows * row) * sizeof(double);
}

static void mean_info(const void *prepared, nf_plan_info *info)
{
    const mean_plan *plan = prepared;
    const nf_problem *problem = plan->request->problem;
    const nf_work_counts *counts = &plan->work.counts;
    const double heads = (double)(problem->batch * problem->heads);
    info->kernel = "";
    info->computed_pairs = heads * counts->computed_pairs;
    info->masked_pairs = heads * counts->masked_pairs;
    info->tiles_full = heads * counts->tiles_full;
    info->tiles_partial = heads * counts->tiles_partial;
    info->tiles_absent = heads * counts->tiles_absent;
    for (int32_t a = 0; a < problem->rank; a++) {
        info->query_tile[a] = plan->work.spec.tile[a];
        info->key_tile[a] = plan->work.spec.columns[a];
    }
}

static void mean_describe(const void *prepared, nf_text *text)
{
    const mean_plan *plan = prepared;
    nf_text_printf(text, "  %lld items\n", (long long)plan->work.items);
}

/* ---- Forward ----------------------------------------------------------------------------------------------------- */

typedef struct mean_call {
    const mean_plan *plan;
    const nf_tensor *v, *out, *lse;
    int64_t batch, head;
    double *sums; /* [row of a tile][value_dim], then the count */
} mean_call;

/* The index-th position of a box, row-major, as class positions. */
static void box_position(const nf_box *box, int32_t rank, int64_t index, int32_t *position)
{
    for (int32_t a = rank - 1; a >= 0; a--) {
        const int32_t size = nf_interval_size(box->axis[a]);
        position[a] = box->axis[a].begin + (int32_t)(index % size);
        index /= size;
    }
}

static int64_t offset_of(const nf_tensor *tensor, const mean_call *call, int64_t head, const nf_work_item *item,
                         const int32_t *position, bool query)
{
    const int32_t rank = call->plan->work.grid->rank;
    int64_t offset = call->batch * tensor->strides[0] + head * tensor->strides[1 + rank];
    for (int32_t a = 0; a < rank; a++) {
        const nf_axis_class *c = &item->axis_class[a];
        const int64_t index = query ? nf_class_row_index(c, NF_ROWS_QUERIES, position[a])
                                    : nf_class_column_index(c, NF_ROWS_QUERIES, position[a]);
        offset += index * tensor->strides[1 + a];
    }
    return offset;
}

static bool sees(const nf_work_item *item, int32_t rank, const int32_t *query, const int32_t *key)
{
    for (int32_t a = 0; a < rank; a++) {
        const nf_interval keys = nf_class_sees(&item->axis_class[a], NF_ROWS_QUERIES, query[a]);
        if (key[a] < keys.begin || key[a] >= keys.end)
            return false;
    }
    return true;
}

static void add_tile(const mean_call *call, const nf_work_item *item, const nf_box *rows, const nf_box *columns,
                     bool full)
{
    const nf_problem *problem = call->plan->request->problem;
    const int64_t kv_head = call->head / nf_problem_group(problem), dim = problem->value_dim;
    for (int64_t r = 0; r < nf_box_volume(rows, problem->rank); r++) {
        double *sum = call->sums + r * (dim + 1);
        int32_t query[NF_MAX_RANK], key[NF_MAX_RANK];
        box_position(rows, problem->rank, r, query);
        for (int64_t c = 0; c < nf_box_volume(columns, problem->rank); c++) {
            box_position(columns, problem->rank, c, key);
            if (!full && !sees(item, problem->rank, query, key))
                continue;
            const float *v = (const float *)call->v->data + offset_of(call->v, call, kv_head, item, key, false);
            for (int64_t i = 0; i < dim; i++)
                sum[i] += (double)v[i * call->v->strides[problem->rank + 2]];
            sum[dim]++;
        }
    }
}

static void store_tile(const mean_call *call, const nf_work_item *item, const nf_box *rows)
{
    const nf_problem *problem = call->plan->request->problem;
    const int64_t dim = problem->value_dim;
    for (int64_t r = 0; r < nf_box_volume(rows, problem->rank); r++) {
        const double *sum = call->sums + r * (dim + 1), count = sum[dim];
        int32_t query[NF_MAX_RANK];
        box_position(rows, problem->rank, r, query);
        float *out = (float *)call->out->data + offset_of(call->out, call, call->head, item, query, true);
        for (int64_t i = 0; i < dim; i++)
            out[i * call->out->strides[problem->rank + 2]] = count > 0 ? (float)(sum[i] / count) : 0;
        if (call->lse)
            ((float *)call->lse->data)[offset_of(call->lse, call, call->head, item, query, true)] = (float)log(count);
    }
}

static void run_item(const mean_call *call, const nf_work_item *item)
{
    const nf_work *work = &call->plan->work;
    const size_t row_bytes = (size_t)(call->plan->request->problem->value_dim + 1) * sizeof(double);
    for (int64_t t = 0; t < nf_work_tile_count(work, item); t++) {
        nf_box rows, columns;
        nf_work_tile(work, item, t, &rows);
        memset(call->sums, 0, (size_t)nf_box_volume(&rows, work->grid->rank) * row_bytes);
        for (int64_t j = 0; j < nf_work_column_tile_count(work, item); j++) {
            nf_work_column_tile(work, item, j, &columns);
            const nf_tile_kind kind = nf_work_classify(work, item, &rows, &columns);
            if (kind != NF_TILE_ABSENT)
                add_tile(call, item, &rows, &columns, kind == NF_TILE_FULL);
        }
        store_tile(call, item, &rows);
    }
}

static nf_status mean_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const mean_plan *plan = prepared;
    const nf_problem *problem = plan->request->problem;
    mean_call call = {.plan = plan, .v = io[NF_V], .out = io[NF_OUT], .lse = io[NF_LSE], .sums = workspace};
    for (call.batch = 0; call.batch < problem->batch; call.batch++)
        for (call.head = 0; call.head < problem->heads; call.head++)
            for (int64_t i = 0; i < plan->work.items; i++) {
                nf_work_item item;
                nf_work_get_item(&plan->work, i, &item);
                run_item(&call, &item);
            }
    return NF_OK;
}

static nf_status mean_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    (void)prepared;
    (void)io;
    (void)workspace;
    return nf_fail(NF_ERR_UNSUPPORTED, "mean has no backward");
}

/* ---- Its entry --------------------------------------------------------------------------------------------------- */

static const nf_algorithm mean_algorithm = {
    .name = "sum",
    .supports = mean_supports,
    .cost = mean_cost,
    .prepare = mean_prepare,
    .release = mean_release,
    .workspace = mean_workspace,
    .info = mean_info,
    .describe = mean_describe,
    .forward = mean_forward,
    .backward = mean_backward,
    .enqueue = nf_stub_enqueue,
    .pair = &nf_stub_pair,
};

static nf_status mean_open(const nf_context *context, void **state)
{
    (void)context;
    *state = NULL;
    return NF_OK;
}

static const nf_algorithm *const mean_algorithms[] = {&mean_algorithm, NULL};

static const nf_backend mean_backend = {
    .name = "mean",
    .summary = "attention whose scale is 0",
    .preferred = true,
    .open = mean_open,
    .close = nf_stub_close,
    .describe = nf_stub_describe,
    .device = nf_stub_device,
    .gpu = nf_stub_gpu,
    .peak = nf_stub_peak,
    .merge = nf_stub_merge,
    .algorithms = mean_algorithms,
};

/* ---- Tests ------------------------------------------------------------------------------------------------------- */

static nf_context *context;

static void setup(void)
{
    const nf_backend *const backends[] = {&mean_backend, &nf_backend_reference, NULL};
    nf_context_options options;
    nf_context_options_init(&options);
    options.backend = "mean,reference";
    ck_assert_int_eq(nf_context_create_with(&context, &options, backends), NF_OK);
}

static void teardown(void)
{
    nf_context_destroy(context);
}

START_TEST(equals_reference)
{
    static const char *const problems[] = {
        "na1d d1/3 30 w7 s3 dil2 scale=0",        "na1d b2 h4/2 d1/2 25 c1 scale=0",
        "na1d d1 9/31 c1 k3:20 scale=0",          "na2d h2/1 d1/5 7x9 w4x3 s2x1 c0x1 scale=0",
        "na3d d1 5x4x6 w3x2x2 dil1x2x3 scale=0",  "na4d d1/2 3x4x3x5 w2x3x3x2 k1:2x0:3x0:2x2:3 scale=0",
        "na2d d1 8x8 w3 q2:4x5:3 k0:8x6:2 scale=0"};
    for (size_t p = 0; p < sizeof problems / sizeof *problems; p++) {
        attend mean, reference;
        uint64_t seed = p;
        attend_create_text(&mean, problems[p]);
        attend_create_text(&reference, problems[p]);
        attend_fill(&mean, &seed, 1);
        for (int role = NF_Q; role <= NF_V; role++)
            attend_copy(&reference, &mean, (nf_role)role);
        attend_run(&mean, context, "mean", NULL, NF_FWD);
        attend_run(&reference, context, "reference", NULL, NF_FWD);
        ck_assert_msg(tensor_distance(&mean.tensor[NF_OUT], &reference.tensor[NF_OUT]) < 1e-6, "%s", problems[p]);
        ck_assert_msg(tensor_distance(&mean.tensor[NF_LSE], &reference.tensor[NF_LSE]) < 1e-6, "%s", problems[p]);
        attend_destroy(&mean);
        attend_destroy(&reference);
    }
}
END_TEST

static void check_chosen(const char *text, const char *backend, const char *reason)
{
    nf_problem problem;
    nf_plan *plan;
    nf_plan_info info = {.size = sizeof info};
    char description[4096];
    ck_assert_msg(nf_problem_parse(&problem, text) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(nf_plan_create(&plan, context, &problem, NULL) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    ck_assert_str_eq(info.backend, backend);
    ck_assert_int_eq(nf_plan_describe(plan, description, sizeof description, NULL), NF_OK);
    ck_assert_msg(strstr(description, reason) != NULL, "%s", description);
    nf_plan_destroy(plan);
}

/* What it refuses goes to the next backend, and the plan tells why. */
START_TEST(selection)
{
    check_chosen("na1d d2 8 w3 scale=0", "mean", "reference: mean is preferred");
    check_chosen("na1d d4 8 w3", "reference", "mean sum: scale 0.5 is not 0");
    check_chosen("na1d f64 d4 8 w3 scale=0", "reference", "mean sum: only f32");
    check_chosen("na1d d4 8 w3 scale=0 both", "reference", "mean sum for bwd: only f32, forward");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("backend");
    TCase *tests = tcase_create("mean");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, equals_reference);
    tcase_add_test(tests, selection);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
