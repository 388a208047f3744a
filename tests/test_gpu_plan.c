/* Plans for devices: their limits are respected or refused with a reason, launches cover the work, tables say what the
 * axis tables say. No device is needed. */
#include "backends/gpu/gpu_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/gpu/gpu_shape.h"
#include "backends/gpu/gpu_tables.h"
#include "core/context.h"
#include "core/io.h"
#include "core/problem.h"
#include "harness.h"

static nf_context *context;

static void setup(void)
{
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
}

static void teardown(void)
{
    nf_context_destroy(context);
}

static const gpu_device cpu = {.cpu = true,
                               .fp64 = true,
                               .units = 2,
                               .group_items = 4096,
                               .local_bytes = 1 << 20,
                               .buffer_bytes = INT64_C(1) << 32,
                               .vector_bytes = 64};
static const gpu_device gpu = {
    .fp64 = true, .units = 64, .group_items = 1024, .local_bytes = 48 << 10, .buffer_bytes = INT64_C(1) << 32};
static const gpu_device ahead = {.fp64 = true,
                                 .units = 132,
                                 .group_items = 1024,
                                 .local_bytes = 48 << 10,
                                 .buffer_bytes = INT64_C(1) << 36,
                                 .ahead = true,
                                 .memory = NF_CUDA};
static const gpu_device small = {
    .units = 1, .group_items = 256, .local_bytes = 32 << 10, .buffer_bytes = INT64_C(1) << 28};
static const gpu_device tiny = {
    .units = 1, .group_items = 16, .local_bytes = 8 << 10, .buffer_bytes = INT64_C(1) << 28};

typedef struct plan_case {
    nf_problem problem;
    nf_grid grid;
    nf_tensor layout[NF_ROLES];
    nf_request request;
    gpu_plan *plan;
} plan_case;

static void open_case(plan_case *c, const char *text)
{
    *c = (plan_case){0};
    ck_assert_msg(nf_problem_parse(&c->problem, text) == NF_OK, "%s: %s", text, nf_last_error());
    ck_assert_msg(nf_problem_check(&c->problem) == NF_OK, "%s: %s", text, nf_last_error());
    ck_assert_int_eq(nf_grid_create(&c->grid, context, &c->problem), NF_OK);
    c->request =
        (nf_request){.context = context, .problem = &c->problem, .grid = &c->grid, .layout = c->layout, .threads = 1};
    for (int role = 0; role < NF_SCORES; role++)
        nf_role_describe(&c->problem, (nf_role)role, &c->layout[role]);
}

static void make_plan(plan_case *c, const gpu_device *device)
{
    ck_assert_msg(gpu_plan_supports(device, &c->request) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(gpu_plan_create(&c->plan, device, &c->request, c->layout) == NF_OK, "%s", nf_last_error());
}

static void close_case(plan_case *c)
{
    gpu_plan_destroy(c->plan, context);
    nf_grid_destroy(&c->grid, context);
}

/* The number after -DNAME= in the options. */
static int64_t option(const gpu_plan *plan, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, "-D%s=", name);
    const char *at = strstr(plan->options, key);
    ck_assert_msg(at, "%s is not in %s", name, plan->options);
    return strtoll(at + strlen(key), NULL, 10);
}

static const char *const problems[] = {
    "na1d f32 h1 d64 2048 both",
    "na1d f32 h8/2 d17/300 33/70 c1 x5 both",
    "na2d bf16 b2 h4 d32 56x56 w7 dil2 both",
    "na3d f32 h1 d128 15x24x40 w9x12x12 s9x8x8",
    "na3d f16 out=f32 h2/1 d3/5 5x6x7 w3 x3 q0:2x1:4x0:7 k1:4x0:6x2:3 both",
    "na4d f32 h1 d1 3x4x5x6 w2 c1x0x1x0 bwd",
};

enum { PROBLEMS = sizeof problems / sizeof *problems };

/* The scratch buffer holds deltas and what groups need; its parts follow each other. */
static void check_scratch(const gpu_plan *plan, const nf_problem *problem)
{
    const int64_t *header = plan->tables;
    const int64_t groups = header[GPU_SCRATCH_GROUPS], each = header[GPU_SCRATCH_GROUP_BYTES];
    const int64_t deltas = problem->direction & NF_BWD ? problem->batch * problem->heads * header[GPU_QUERIES] : 0;
    const int64_t real = problem->dtype == NF_F64 ? 8 : 4, dims = problem->head_dim + problem->value_dim;
    const int64_t partial =
        problem->direction & NF_BWD ? problem->batch * problem->kv_heads * problem->extra * dims : 0;
    ck_assert_int_ge(header[GPU_SCRATCH_PARTIAL], header[GPU_SCRATCH_DELTA] + deltas * real);
    ck_assert_int_ge(header[GPU_SPLITS], 1);
    ck_assert_int_ge(groups, header[GPU_SCRATCH_PARTIAL] + header[GPU_SPLITS] * partial * real);
    const gpu_launches *const directions[] = {&plan->forward, &plan->backward};
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < directions[d]->count; i++)
            ck_assert_uint_ge(plan->scratch_bytes,
                              (size_t)(groups + (each ? (int64_t)directions[d]->launch[i].groups * each : 0)));
}

static bool is_name(const char *const *names, const char *name)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names;
}

/* Launches are those of the directions, have a kernel of the list, and pass tables first. */
static void check_launches(const gpu_plan *plan, const nf_problem *problem)
{
    const gpu_launches *const directions[] = {&plan->forward, &plan->backward};
    ck_assert_int_eq(plan->forward.count, problem->direction & NF_FWD ? 1 : 0);
    ck_assert_int_eq(plan->backward.count, problem->direction & NF_BWD ? 3 + (problem->extra ? 2 : 0) : 0);
    for (int d = 0; d < 2; d++)
        for (int i = 0; i < directions[d]->count; i++) {
            const gpu_launch *launch = &directions[d]->launch[i];
            ck_assert_msg(is_name(gpu_kernel_names, launch->kernel), "%s is no kernel", launch->kernel);
            ck_assert_uint_ge(launch->groups, 1);
            ck_assert_int_le(launch->args_count, GPU_MAX_ARGS);
            ck_assert_int_eq(launch->args[0].kind, GPU_ARG_TABLES);
            ck_assert_int_eq(launch->args[1].kind, GPU_ARG_SCRATCH);
            for (int a = 2; a < launch->args_count; a++)
                ck_assert_int_eq(launch->args[a].kind, a % 2 ? GPU_ARG_OFFSET : GPU_ARG_TENSOR);
        }
}

START_TEST(plans_are_whole)
{
    const gpu_device *const devices[] = {&cpu, &gpu, &ahead, &small, &tiny};
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (int i = 0; i < PROBLEMS; i++) {
            plan_case c;
            open_case(&c, problems[i]);
            make_plan(&c, devices[d]);
            ck_assert_str_eq(c.plan->shape, devices[d]->cpu ? "lanes" : "tile");
            ck_assert_int_eq(option(c.plan, "RANK"), devices[d]->ahead ? (c.problem.rank > 2 ? 4 : 2) : c.problem.rank);
            check_launches(c.plan, &c.problem);
            check_scratch(c.plan, &c.problem);
            double seconds[NF_DIRECTIONS];
            gpu_plan_cost(devices[d], &c.request, seconds);
            for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++)
                ck_assert(!(c.problem.direction & direction) || seconds[direction - 1] > 0);
            close_case(&c);
        }
}
END_TEST

/* Work-items and local memory of a group stay within the device's. */
START_TEST(limits_are_respected)
{
    const gpu_device *const devices[] = {&gpu, &ahead, &small, &tiny};
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (int i = 0; i < PROBLEMS; i++) {
            plan_case c;
            gpu_shape shape;
            open_case(&c, problems[i]);
            make_plan(&c, devices[d]);
            ck_assert_int_eq(gpu_choose_shape(&shape, devices[d], &c.request), NF_OK);
            ck_assert_int_le(shape.local_bytes, devices[d]->local_bytes);
            ck_assert_int_le(option(c.plan, "ITEMS_X") * option(c.plan, "ITEMS_Y"), devices[d]->group_items);
            ck_assert_int_eq(option(c.plan, "ROWS") % option(c.plan, "ITEMS_Y"), 0);
            ck_assert_int_eq(option(c.plan, "COLUMNS") % option(c.plan, "ITEMS_X"), 0);
            ck_assert_int_eq(option(c.plan, "OUT_DIMS") % option(c.plan, "ITEMS_X"), 0);
            ck_assert_int_eq(option(c.plan, "COLUMNS") % option(c.plan, "CHUNK"), 0);
            close_case(&c);
        }
}
END_TEST

/* Boxes fit into tiles, and the segments of every axis are all rows once. */
START_TEST(segments_cover_rows)
{
    const gpu_device *const devices[] = {&cpu, &gpu, &ahead, &tiny};
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (int i = 0; i < PROBLEMS; i++) {
            plan_case c;
            open_case(&c, problems[i]);
            make_plan(&c, devices[d]);
            const int64_t *header = c.plan->tables;
            const int32_t *ints = c.plan->tables;
            const int64_t rows =
                c.plan->shape[0] == 'l' ? option(c.plan, "LANES") * option(c.plan, "VECTORS") : option(c.plan, "ROWS");
            int64_t widest = 1, columns = 1;
            for (int32_t a = 0; a < c.problem.rank; a++) {
                int64_t covered = 0, most = 0;
                for (int64_t s = 0; s < header[GPU_BY_QUERY + GPU_WALK_COUNT + a]; s++) {
                    const int32_t *segment =
                        ints + header[GPU_BY_QUERY + GPU_WALK_SEGMENTS + a] + s * GPU_SEGMENT_WORDS;
                    covered += segment[GPU_SEGMENT_COUNT];
                    most = nf_max64(most, segment[GPU_SEGMENT_COUNT]);
                }
                ck_assert_int_eq(covered, nf_axis_query_range(&c.problem.axis[a]).count);
                widest *= most;
                columns *= header[GPU_BY_QUERY + GPU_WALK_COLUMNS + a];
            }
            ck_assert_int_le(widest, rows);
            ck_assert_int_le(columns, option(c.plan, "COLUMNS"));
            close_case(&c);
        }
}
END_TEST

static void refused(const gpu_device *device, const char *text, const char *reason)
{
    plan_case c;
    open_case(&c, text);
    ck_assert_int_eq(gpu_plan_supports(device, &c.request), NF_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(nf_last_error(), reason), "%s: \"%s\" does not say \"%s\"", text, nf_last_error(), reason);
    close_case(&c);
}

START_TEST(refusals_have_reasons)
{
    gpu_device bare = tiny, narrow = cpu;
    refused(&small, "na1d f64 h1 d8 16", "no double precision");
    bare.local_bytes = 1 << 10;
    refused(&bare, "na1d f32 h1 d8 16", "bytes of local memory, the device has 1024");
    bare = tiny;
    bare.group_items = 8;
    refused(&bare, "na1d f32 h1 d8 16", "groups of 16 work-items, the device has 8");
    narrow.buffer_bytes = 1 << 16;
    refused(&narrow, "na1d f32 h1 d512 16", "head_dim 512, value_dim 512");
    refused(&cpu, "na1d f32 h1 d8 16 x2000000000", "extra 2000000000");
}
END_TEST

START_TEST(memory_of_other_devices_is_refused)
{
    plan_case c;
    open_case(&c, "na1d f32 h1 d8 16");
    c.layout[NF_K].memory = NF_CUDA;
    ck_assert_int_eq(gpu_plan_supports(&gpu, &c.request), NF_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(nf_last_error(), "k is in cuda memory"), "%s", nf_last_error());
    ck_assert_int_eq(gpu_plan_supports(&ahead, &c.request), NF_OK);
    c.layout[NF_K].memory = NF_OPENCL;
    ck_assert_int_eq(gpu_plan_supports(&ahead, &c.request), NF_ERR_UNSUPPORTED);
    close_case(&c);
}
END_TEST

/* Pairs with extra tokens are computed, too. */
START_TEST(extra_tokens_count)
{
    plan_case c;
    open_case(&c, "na1d f32 h2 d8 100 x3");
    make_plan(&c, &cpu);
    ck_assert_double_eq(c.plan->counts.useful_pairs, 100 * 103);
    ck_assert_double_eq(c.plan->counts.computed_pairs, 100 * 103);
    close_case(&c);
}
END_TEST

/* ---- Unfused ----------------------------------------------------------------------------------------------------- */

static const char *const small_problems[] = {
    "na1d f32 h1 d64 200 both",
    "na1d f32 h8/2 d17/300 33/70 c1 x5 both",
    "na2d bf16 b2 h4 d32 28x28 w7 dil2 both",
    "na3d f32 h1 d8 5x8x10 w3x4x6 s3x2x2",
    "na3d f16 out=f32 h2/1 d3/5 5x6x7 w3 x3 q0:2x1:4x0:7 k1:4x0:6x2:3 both",
    "na4d f32 h1 d1 3x4x5x6 w2 c1x0x1x0 bwd",
};

/* A plan is made with the axes of its program: those that the problem lacks come first. */
static int32_t first_axis(const plan_case *c)
{
    return (int32_t)option(c->plan, "RANK") - c->problem.rank;
}

static void make_unfused(plan_case *c, const gpu_device *device)
{
    for (int role = NF_SCORES; role <= NF_DSCORES; role++)
        nf_role_describe(&c->problem, (nf_role)role, &c->layout[role]);
    ck_assert_msg(gpu_unfused_supports(device, &c->request) == NF_OK, "%s", nf_last_error());
    ck_assert_msg(gpu_unfused_create(&c->plan, device, &c->request, c->layout) == NF_OK, "%s", nf_last_error());
}

/* An operation takes its own roles, or has no launches where the problem does not name its direction. */
static void check_operation(const plan_case *c, nf_operation operation)
{
    const gpu_launches *launches = gpu_plan_launches(c->plan, operation);
    ck_assert_int_eq(launches->count > 0, (c->problem.direction & nf_operation_direction(operation)) != 0);
    for (int i = 0; i < launches->count; i++) {
        const gpu_launch *launch = &launches->launch[i];
        ck_assert_msg(is_name(gpu_unfused_kernel_names, launch->kernel), "%s is no kernel", launch->kernel);
        ck_assert_uint_ge(launch->groups, 1);
        for (int a = 2; a < launch->args_count; a += 2) {
            const bool none = launch->args[a].kind == GPU_ARG_TABLES;
            ck_assert_int_eq(launch->args[a + 1].kind, none ? GPU_ARG_NONE : GPU_ARG_OFFSET);
            const bool of_pair = launch->args[a].role == NF_SCORES || launch->args[a].role == NF_DSCORES;
            if (operation == NF_FORWARD || operation == NF_BACKWARD)
                ck_assert_int_eq(none, of_pair);
        }
    }
}

/* Whether a key lies in an existing slot of a query, where the query says it does. */
static bool is_slot(const plan_case *c, int32_t axis, int64_t query, int64_t key, int32_t position)
{
    const int64_t *header = c->plan->tables;
    const int32_t *ints = c->plan->tables;
    if (query < 0 || query >= header[GPU_QUERY_EXTENT + axis])
        return false;
    const int32_t *sight = ints + header[GPU_SIGHT + axis] + query * GPU_SIGHT_WORDS;
    const int32_t slot = position - sight[GPU_SIGHT_FIRST];
    return sight[GPU_SIGHT_BEGIN] <= slot && slot < sight[GPU_SIGHT_END] && slot < header[GPU_WINDOW + axis] &&
           sight[GPU_SIGHT_ORIGIN] + slot * header[GPU_STEP + axis] == key;
}

/* Every pair that keys name, and no other, is a slot of a query. */
static void check_sight(const plan_case *c, int32_t axis)
{
    const int64_t *header = c->plan->tables;
    const int32_t *ints = c->plan->tables;
    const int64_t queries = header[GPU_QUERY_EXTENT + axis], keys = header[GPU_KEY_EXTENT + axis];
    int64_t pairs = 0, slots = 0, wrong = 0;
    for (int64_t k = 0; k < keys; k++) {
        const int32_t *inverse = ints + header[GPU_INVERSE + axis] + k * GPU_INVERSE_WORDS;
        for (int32_t i = 0; i < inverse[GPU_INVERSE_COUNT]; i++, pairs++) {
            const int64_t query = inverse[GPU_INVERSE_QUERY] + i * header[GPU_STEP + axis];
            wrong += !is_slot(c, axis, query, k, inverse[GPU_INVERSE_POSITION]);
        }
    }
    for (int64_t q = 0; q < queries; q++) {
        const int32_t *sight = ints + header[GPU_SIGHT + axis] + q * GPU_SIGHT_WORDS;
        slots += sight[GPU_SIGHT_END] - sight[GPU_SIGHT_BEGIN];
    }
    ck_assert_int_eq(wrong, 0);
    ck_assert_int_eq(pairs, slots);
}

START_TEST(unfused_plans_are_whole)
{
    const gpu_device *const devices[] = {&cpu, &gpu, &ahead, &tiny};
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (size_t i = 0; i < sizeof small_problems / sizeof *small_problems; i++) {
            plan_case c;
            open_case(&c, small_problems[i]);
            make_unfused(&c, devices[d]);
            const int64_t *header = c.plan->tables;
            ck_assert_str_eq(c.plan->shape, "unfused");
            ck_assert_int_le(option(c.plan, "ITEMS"), devices[d]->group_items);
            for (int operation = 0; operation < NF_OPERATIONS; operation++)
                check_operation(&c, (nf_operation)operation);
            ck_assert_int_eq(option(c.plan, "RANK"), devices[d]->ahead ? 4 : c.problem.rank);
            for (int32_t a = 0; a < option(c.plan, "RANK"); a++)
                check_sight(&c, a);
            ck_assert(first_axis(&c) == 0 || (header[GPU_WINDOW] == 1 && header[GPU_QUERY_EXTENT] == 1));
            const nf_tensor *scores = &c.layout[NF_SCORES];
            ck_assert_int_eq(header[GPU_SLOTS], scores->extents[scores->rank - 1]);
            ck_assert_uint_ge(c.plan->scratch_bytes, (size_t)(c.problem.batch * c.problem.heads * header[GPU_QUERIES] *
                                                              header[GPU_SLOTS] * 4));
            close_case(&c);
        }
}
END_TEST

/* Launches are those of the directions, of its own kernels; the sums of every row have room. */
START_TEST(naive_plans_are_whole)
{
    const gpu_device *const devices[] = {&cpu, &gpu, &ahead, &tiny};
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (size_t i = 0; i < sizeof small_problems / sizeof *small_problems; i++) {
            plan_case c;
            open_case(&c, small_problems[i]);
            const nf_problem *p = &c.problem;
            ck_assert_msg(gpu_naive_supports(devices[d], &c.request) == NF_OK, "%s", nf_last_error());
            ck_assert_int_eq(gpu_naive_create(&c.plan, devices[d], &c.request, c.layout), NF_OK);
            const int64_t *header = c.plan->tables;
            ck_assert_str_eq(c.plan->shape, "naive");
            ck_assert_int_eq(c.plan->forward.count, p->direction & NF_FWD ? 1 : 0);
            ck_assert_int_eq(c.plan->backward.count, !(p->direction & NF_BWD) ? 0 : p->extra ? 5 : 3);
            ck_assert_int_eq(c.plan->qk.count, 0);
            for (int n = 0; n < c.plan->backward.count; n++)
                ck_assert(is_name(gpu_naive_kernel_names, c.plan->backward.launch[n].kernel));
            const int64_t rows = p->batch * p->heads * header[GPU_QUERIES];
            const int64_t keys = p->batch * p->kv_heads * header[GPU_KEYS], dims = p->head_dim + p->value_dim;
            const int64_t sums = p->direction & NF_BWD ? keys * dims : rows * p->value_dim;
            ck_assert_uint_ge(c.plan->scratch_bytes, (size_t)(header[GPU_SCRATCH_GROUPS] + sums * 4));
            close_case(&c);
        }
}
END_TEST

static void unfused_refused(const gpu_device *device, const char *text, const char *reason)
{
    plan_case c;
    open_case(&c, text);
    ck_assert_int_eq(gpu_unfused_supports(device, &c.request), NF_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(nf_last_error(), reason), "%s: \"%s\" does not say \"%s\"", text, nf_last_error(), reason);
    close_case(&c);
}

START_TEST(unfused_refusals_have_reasons)
{
    gpu_device narrow = ahead;
    narrow.group_items = 32;
    unfused_refused(&narrow, "na1d f32 h1 d8 16", "its groups take 64 work-items, the device has 32");
    unfused_refused(&small, "na1d f64 h1 d8 16", "no double precision");
    unfused_refused(&small, "na1d f32 h1 d8 30000 w0",
                    "its scores would take 3.6e+09 bytes, a buffer of the device has at most 268435456");
    unfused_refused(&gpu, "na2d f32 h1 d8 50000x50000 w0",
                    "a query has 2.5e+09 slots, kernels number at most 2147483647");
}
END_TEST

/* The same problem, device and layout make the same options, tables and launches. */
START_TEST(plans_repeat)
{
    for (int i = 0; i < PROBLEMS; i++) {
        plan_case a, b;
        open_case(&a, problems[i]);
        open_case(&b, problems[i]);
        make_plan(&a, &gpu);
        make_plan(&b, &gpu);
        ck_assert_str_eq(a.plan->options, b.plan->options);
        ck_assert_uint_eq(a.plan->table_bytes, b.plan->table_bytes);
        ck_assert(memcmp(a.plan->tables, b.plan->tables, a.plan->table_bytes) == 0);
        close_case(&a);
        close_case(&b);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gpu_plan");
    TCase *tests = tcase_create("gpu_plan");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, plans_are_whole);
    tcase_add_test(tests, limits_are_respected);
    tcase_add_test(tests, segments_cover_rows);
    tcase_add_test(tests, refusals_have_reasons);
    tcase_add_test(tests, memory_of_other_devices_is_refused);
    tcase_add_test(tests, extra_tokens_count);
    tcase_add_test(tests, plans_repeat);
    tcase_add_test(tests, unfused_plans_are_whole);
    tcase_add_test(tests, naive_plans_are_whole);
    tcase_add_test(tests, unfused_refusals_have_reasons);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
