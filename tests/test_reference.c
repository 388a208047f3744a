/* The reference backend, forward: cases worked out by hand, and a dense softmax under a mask by definition. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "attend.h"
#include "harness.h"
#include "oracle.h"

static nf_context *context;

static void setup(void)
{
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_OK);
}

static void teardown(void)
{
    nf_context_destroy(context);
}

static void run(attend *a, nf_direction direction)
{
    attend_run(a, context, "reference", NULL, direction);
}

static void set_all(nf_tensor *tensor, const double *values)
{
    for (int64_t i = 0; i < tensor_count(tensor); i++)
        tensor_set(tensor, i, values[i]);
}

START_TEST(one_token)
{
    attend a;
    attend_create_text(&a, "na1d f64 d2/3 1 scale=0.5");
    set_all(&a.tensor[NF_Q], (const double[]){2, 3});
    set_all(&a.tensor[NF_K], (const double[]){5, 7});
    set_all(&a.tensor[NF_V], (const double[]){-1, 0, 4});
    run(&a, NF_FWD);
    ck_assert_double_eq(tensor_get(&a.tensor[NF_LSE], 0), 15.5);
    ck_assert(tensor_equal(&a.tensor[NF_OUT], &a.tensor[NF_V]));
    attend_destroy(&a);
}
END_TEST

/* Scores 0 and ln 3: weights 1/4 and 3/4. The default scale of head_dim 4 is 1/2. */
START_TEST(two_keys)
{
    attend a;
    attend_create_text(&a, "na1d f64 d4/1 2 w2");
    set_all(&a.tensor[NF_Q], (const double[]){2, 0, 0, 0, 0, 0, 0, 2});
    set_all(&a.tensor[NF_K], (const double[]){0, 0, 0, 0, log(3), 0, 0, 0});
    set_all(&a.tensor[NF_V], (const double[]){8, 16});
    run(&a, NF_FWD);
    ck_assert_double_eq_tol(tensor_get(&a.tensor[NF_OUT], 0), 14, 1e-14);
    ck_assert_double_eq_tol(tensor_get(&a.tensor[NF_LSE], 0), log(4), 1e-15);
    ck_assert_double_eq_tol(tensor_get(&a.tensor[NF_OUT], 1), 12, 1e-14);
    ck_assert_double_eq_tol(tensor_get(&a.tensor[NF_LSE], 1), log(2), 1e-15);
    attend_destroy(&a);
}
END_TEST

/* Causal with q = k = 0 averages the past; an extra token counts as one more key of every query. */
START_TEST(causal_means)
{
    attend a;
    attend_create_text(&a, "na1d f64 d1 4 c1 x1");
    for (int role = NF_Q; role <= NF_EXTRA_V; role++)
        for (int64_t i = 0; i < tensor_count(&a.tensor[role]); i++)
            tensor_set(&a.tensor[role], i, 0);
    set_all(&a.tensor[NF_V], (const double[]){2, 4, 6, 8});
    set_all(&a.tensor[NF_EXTRA_V], (const double[]){10});
    run(&a, NF_FWD);
    const double mean[4] = {6, 16. / 3, 5.5, 6};
    for (int64_t i = 0; i < 4; i++) {
        ck_assert_double_eq_tol(tensor_get(&a.tensor[NF_OUT], i), mean[i], 1e-14);
        ck_assert_double_eq_tol(tensor_get(&a.tensor[NF_LSE], i), log((double)i + 2), 1e-15);
    }
    attend_destroy(&a);
}
END_TEST

/* Large scores neither overflow nor lose the dominant key. */
START_TEST(large_scores)
{
    attend a;
    attend_create_text(&a, "na1d f32 d1 2 scale=1");
    set_all(&a.tensor[NF_Q], (const double[]){100, -100});
    set_all(&a.tensor[NF_K], (const double[]){100, -100});
    set_all(&a.tensor[NF_V], (const double[]){3, 5});
    run(&a, NF_FWD);
    for (int64_t i = 0; i < 2; i++) {
        ck_assert_double_eq(tensor_get(&a.tensor[NF_OUT], i), i ? 5 : 3);
        ck_assert_double_eq(tensor_get(&a.tensor[NF_LSE], i), 10000);
    }
    attend_destroy(&a);
}
END_TEST

/* A random problem; of an odd one-dimensional kind, cross attention. */
static nf_problem random_problem(uint64_t *seed)
{
    nf_problem problem;
    nf_problem_init(&problem);
    static const int64_t longest[] = {30, 8, 5, 4};
    problem.dtype = (nf_dtype)oracle_between(seed, NF_F32, NF_F16);
    problem.out_dtype = problem.dtype >= NF_BF16 && oracle_between(seed, 0, 1) ? NF_F32 : problem.dtype;
    problem.rank = (int32_t)oracle_between(seed, 1, NF_MAX_RANK);
    for (int32_t a = 0; a < problem.rank; a++)
        problem.axis[a] = oracle_axis(seed, longest[problem.rank - 1]);
    if (problem.rank == 1 && oracle_between(seed, 0, 1))
        problem.axis[0] = oracle_cross_axis(seed, 30);
    problem.batch = oracle_between(seed, 1, 2);
    problem.kv_heads = oracle_between(seed, 1, 2);
    problem.heads = problem.kv_heads * oracle_between(seed, 1, 3);
    problem.head_dim = oracle_between(seed, 1, 5);
    problem.value_dim = oracle_between(seed, 1, 5);
    problem.extra = oracle_between(seed, 0, 2);
    problem.scale_set = (int32_t)oracle_between(seed, 0, 1);
    problem.scale = problem.scale_set ? oracle_uniform(seed) : 0;
    ck_assert_msg(nf_problem_check(&problem) == NF_OK, "%s", nf_last_error());
    return problem;
}

static bool sees(const nf_problem *problem, const int64_t *query, const int64_t *key)
{
    for (int32_t a = 0; a < problem->rank; a++)
        if (!oracle_sees(&problem->axis[a], oracle_query_begin(&problem->axis[a]) + query[a],
                         oracle_key_begin(&problem->axis[a]) + key[a]))
            return false;
    return true;
}

static double dot(const nf_tensor *a, int64_t row_a, const nf_tensor *b, int64_t row_b)
{
    const int64_t dim = a->extents[a->rank - 1];
    double sum = 0;
    for (int64_t i = 0; i < dim; i++)
        sum += tensor_get(a, row_a * dim + i) * tensor_get(b, row_b * dim + i);
    return sum;
}

/* Adds one key, unnormalised, to a row. Scores here are small: no maximum is needed. */
static void add_key(const attend *a, int64_t q_row, nf_role k_role, int64_t k_row, double *sum, double *out)
{
    const nf_problem *p = &a->problem;
    const double scale = p->scale_set ? p->scale : 1 / sqrt((double)p->head_dim);
    const double weight = exp(scale * dot(&a->tensor[NF_Q], q_row, &a->tensor[k_role], k_row));
    const nf_tensor *v = &a->tensor[k_role == NF_K ? NF_V : NF_EXTRA_V];
    *sum += weight;
    for (int64_t i = 0; i < p->value_dim; i++)
        out[i] += weight * tensor_get(v, k_row * p->value_dim + i);
}

/* Compares the row-th row of out and lse with a softmax over all keys under the mask. */
static void check_row(const attend *a, const char *text, int64_t row, double tolerance)
{
    const nf_problem *p = &a->problem;
    const nf_tensor *k = &a->tensor[NF_K];
    const int64_t keys = tensor_count(k) / (p->batch * p->kv_heads * p->head_dim);
    int64_t query[NF_MAX_TENSOR_RANK], key[NF_MAX_TENSOR_RANK];
    tensor_position(&a->tensor[NF_LSE], row, query);
    const int64_t batch = query[0], kv_head = query[1 + p->rank] / (p->heads / p->kv_heads);
    double sum = 0, out[8] = {0};
    for (int64_t j = 0; j < keys; j++) {
        const int64_t k_row = (batch * keys + j) * p->kv_heads + kv_head;
        tensor_position(k, k_row * p->head_dim, key);
        if (sees(p, query + 1, key + 1))
            add_key(a, row, NF_K, k_row, &sum, out);
    }
    for (int64_t e = 0; e < p->extra; e++)
        add_key(a, row, NF_EXTRA_K, (batch * p->extra + e) * p->kv_heads + kv_head, &sum, out);
    const double lse = tensor_get(&a->tensor[NF_LSE], row);
    if (!(lse == log(sum) || fabs(lse - log(sum)) < (p->dtype == NF_F64 ? 1e-13 : 1e-6)))
        ck_abort_msg("%s: row %ld: lse %g, not %g", text, (long)row, lse, log(sum));
    for (int64_t i = 0; i < p->value_dim; i++) {
        const double got = tensor_get(&a->tensor[NF_OUT], row * p->value_dim + i), want = sum > 0 ? out[i] / sum : 0;
        if (!(fabs(got - want) <= tolerance))
            ck_abort_msg("%s: row %ld: out[%ld] is %g, not %g", text, (long)row, (long)i, got, want);
    }
}

START_TEST(masked_dense_softmax)
{
    static const double half_ulp[] = {[NF_F32] = 1e-7, [NF_F64] = 1e-14, [NF_BF16] = 0.004, [NF_F16] = 0.0005};
    uint64_t seed = 11;
    for (int i = 0; i < 300; i++) {
        const nf_problem problem = random_problem(&seed);
        char text[512];
        nf_problem_format(&problem, text, sizeof text, NULL);
        attend a;
        attend_create(&a, &problem);
        attend_fill(&a, &seed, 1);
        run(&a, NF_FWD);
        for (int64_t row = 0; row < tensor_count(&a.tensor[NF_LSE]); row++)
            check_row(&a, text, row, half_ulp[problem.out_dtype]);
        attend_destroy(&a);
    }
}
END_TEST

/* q = k = 0 and a one-hot v turn out into adjacency / degree. */
START_TEST(adjacency_over_degree)
{
    attend a;
    attend_create_text(&a, "na2d f64 d1/30 5x6 w3x2 s2x1 dil1x3 c0x1");
    for (int64_t i = 0; i < 30; i++) {
        tensor_set(&a.tensor[NF_Q], i, 0);
        tensor_set(&a.tensor[NF_K], i, 0);
        for (int64_t j = 0; j < 30; j++)
            tensor_set(&a.tensor[NF_V], i * 30 + j, i == j);
    }
    run(&a, NF_FWD);
    for (int64_t i = 0; i < 30; i++) {
        int degree = 0;
        for (int64_t j = 0; j < 30; j++)
            degree += sees(&a.problem, (const int64_t[]){i / 6, i % 6}, (const int64_t[]){j / 6, j % 6});
        for (int64_t j = 0; j < 30; j++)
            ck_assert_double_eq(tensor_get(&a.tensor[NF_OUT], i * 30 + j),
                                sees(&a.problem, (const int64_t[]){i / 6, i % 6}, (const int64_t[]){j / 6, j % 6})
                                    ? 1. / degree
                                    : 0);
    }
    attend_destroy(&a);
}
END_TEST

/* Every type computes alike: the result is that of f64 on the same inputs, rounded once. */
START_TEST(types_round_once)
{
    static const char *const types[] = {"f32", "bf16", "f16", "bf16 out=f32", "f16 out=f32"};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        char text[128];
        snprintf(text, sizeof text, "na1d %s h2/1 d8 40 w9 s3 x2", types[t]);
        uint64_t seed = t;
        attend a, exact;
        attend_create_text(&a, text);
        attend_create_text(&exact, "na1d f64 h2/1 d8 40 w9 s3 x2");
        attend_fill(&a, &seed, 2);
        for (int role = NF_Q; role <= NF_EXTRA_V; role++)
            attend_copy(&exact, &a, (nf_role)role);
        attend_copy(&exact, &a, NF_DOUT);
        attend_copy(&exact, &a, NF_DLSE);
        run(&a, NF_BOTH);
        run(&exact, NF_BOTH);
        for (int role = NF_OUT; role < NF_SCORES; role++) {
            attend rounded = a;
            void *const copy = malloc((size_t)tensor_count(&a.tensor[role]) * sizeof(double));
            rounded.tensor[role].data = copy;
            attend_copy(&rounded, &exact, (nf_role)role);
            ck_assert_msg(tensor_equal(&a.tensor[role], &rounded.tensor[role]), "%s: %s", text,
                          nf_role_name((nf_role)role));
            free(copy);
        }
        attend_destroy(&a);
        attend_destroy(&exact);
    }
}
END_TEST

/* Query head h reads key/value head h * kv_heads / heads. */
START_TEST(grouped_heads_equal_repeated_heads)
{
    attend a, repeated;
    uint64_t seed = 5;
    attend_create_text(&a, "na2d f32 b2 h6/2 d3/4 4x5 w3 x1");
    attend_create_text(&repeated, "na2d f32 b2 h6 d3/4 4x5 w3 x1");
    attend_fill(&a, &seed, 1);
    static const nf_role shared[] = {NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V};
    attend_copy(&repeated, &a, NF_Q);
    for (int r = 0; r < 4; r++) {
        nf_tensor *to = &repeated.tensor[shared[r]];
        const nf_tensor *from = &a.tensor[shared[r]];
        const int64_t dim = to->extents[to->rank - 1];
        for (int64_t i = 0; i < tensor_count(to); i++) {
            const int64_t token = i / dim / 6, head = i / dim % 6 / 3;
            tensor_set(to, i, tensor_get(from, (token * 2 + head) * dim + i % dim));
        }
    }
    run(&a, NF_FWD);
    run(&repeated, NF_FWD);
    ck_assert(tensor_equal(&a.tensor[NF_OUT], &repeated.tensor[NF_OUT]));
    ck_assert(tensor_equal(&a.tensor[NF_LSE], &repeated.tensor[NF_LSE]));
    attend_destroy(&a);
    attend_destroy(&repeated);
}
END_TEST

/* Rows that see no key give 0 and -inf, unless an extra token is there. */
START_TEST(empty_rows)
{
    attend a;
    uint64_t seed = 6;
    attend_create_text(&a, "na1d f32 d3 10 w3 k0:2");
    attend_fill(&a, &seed, 1);
    run(&a, NF_FWD);
    for (int64_t i = 0; i < 10; i++) {
        ck_assert_int_eq(isfinite(tensor_get(&a.tensor[NF_LSE], i)) != 0, i <= 2);
        for (int64_t c = 0; c < 3; c++)
            ck_assert_int_eq(tensor_get(&a.tensor[NF_OUT], 3 * i + c) != 0, i <= 2);
    }
    ck_assert_double_eq(tensor_get(&a.tensor[NF_LSE], 9), -INFINITY);
    attend_destroy(&a);
}
END_TEST

/* Any strides give what a contiguous copy gives; only the named elements of out are written. */
START_TEST(strides)
{
    enum { B = 2, L = 7, H = 3, D = 4 };
    attend a, strided;
    uint64_t seed = 7;
    attend_create_text(&a, "na1d f32 b2 h3 d4 7 w3");
    attend_create_text(&strided, "na1d f32 b2 h3 d4 7 w3");
    attend_fill(&a, &seed, 1);
    for (int64_t i = 0; i < tensor_count(&a.tensor[NF_V]); i++) /* the same values in every batch, for stride 0 */
        tensor_set(&a.tensor[NF_V], i, tensor_get(&a.tensor[NF_V], i % (L * H * D)));
    float k[B * L * H * D], out[B * H * L * D * 2];
    nf_tensor *tensor = strided.tensor;
    tensor[NF_V].strides[0] = 0;
    tensor[NF_K].data = k + B * L * H * D - 1; /* backwards in every dimension */
    for (int32_t i = 0; i < 4; i++)
        tensor[NF_K].strides[i] = -tensor[NF_K].strides[i];
    const int64_t heads_first[4] = {H * L * D * 2, D * 2, L * D * 2, 2};
    tensor[NF_OUT].data = out;
    for (int32_t i = 0; i < 4; i++)
        tensor[NF_OUT].strides[i] = heads_first[i];
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        out[i] = -99;
    for (int role = NF_Q; role <= NF_V; role++)
        attend_copy(&strided, &a, (nf_role)role);
    run(&a, NF_FWD);
    run(&strided, NF_FWD);
    ck_assert(tensor_equal(&a.tensor[NF_OUT], &tensor[NF_OUT]));
    for (size_t i = 1; i < sizeof out / sizeof *out; i += 2)
        ck_assert_float_eq(out[i], -99);
    attend_destroy(&a);
    attend_destroy(&strided);
}
END_TEST

/* Elements whose offsets do not fit 32 bits, in mappings that hold only the pages touched. */
START_TEST(far_elements)
{
    enum { TOKENS = 4 };
    const int64_t stride = (INT64_C(1) << 31) + 7;
    const size_t bytes = (size_t)(TOKENS * stride) * sizeof(float);
    attend near, far;
    uint64_t seed = 12;
    attend_create_text(&near, "na1d f32 d3 4 w2 both");
    attend_create_text(&far, "na1d f32 d3 4 w2 both");
    attend_fill(&near, &seed, 1);
    void *mappings[NF_ROLES] = {NULL};
    for (int role = 0; role < NF_ROLES; role++) {
        nf_tensor *tensor = &far.tensor[role];
        if (!tensor->rank)
            continue;
        mappings[role] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mappings[role] == MAP_FAILED)
            NF_SKIP("cannot map %zu bytes without reserving them", bytes);
        tensor->data = mappings[role];
        tensor->strides[1] = stride;
        if (role != NF_OUT && role < NF_DQ && role != NF_LSE)
            attend_copy(&far, &near, (nf_role)role);
    }
    run(&near, NF_BOTH);
    run(&far, NF_BOTH);
    for (int role = NF_OUT; role < NF_ROLES; role++) {
        if (near.tensor[role].rank)
            ck_assert_msg(tensor_equal(&near.tensor[role], &far.tensor[role]), "%s", nf_role_name((nf_role)role));
    }
    for (int role = 0; role < NF_ROLES; role++)
        if (mappings[role])
            munmap(mappings[role], bytes);
    attend_destroy(&near);
    attend_destroy(&far);
}
END_TEST

/* The plan's figures are those of the definition. */
START_TEST(plan_figures)
{
    nf_problem problem;
    nf_plan_options options;
    nf_plan *plan;
    nf_plan_info info = {.size = sizeof info};
    nf_plan_options_init(&options);
    options.backend = "reference";
    ck_assert_int_eq(nf_problem_parse(&problem, "na2d f32 b2 h4/2 d8/4 6x5 w3 c1x0 x2"), NF_OK);
    ck_assert_int_eq(nf_plan_create(&plan, context, &problem, &options), NF_OK);
    ck_assert_int_eq(nf_plan_get_info(plan, &info), NF_OK);
    const double pairs = 8 * ((1 + 2 + 3 * 4) * 5 * 3 + 2 * 30);
    ck_assert_str_eq(info.backend, "reference");
    ck_assert_str_eq(info.algo, "naive");
    ck_assert_double_eq(info.useful_pairs, pairs);
    ck_assert_double_eq(info.computed_pairs, pairs);
    ck_assert_double_eq(info.masked_pairs, 0);
    ck_assert_double_eq(info.forward_flops, 2 * 12 * pairs);
    nf_plan_destroy(plan);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reference");
    TCase *tests = tcase_create("forward");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, one_token);
    tcase_add_test(tests, two_keys);
    tcase_add_test(tests, causal_means);
    tcase_add_test(tests, large_scores);
    tcase_add_test(tests, masked_dense_softmax);
    tcase_add_test(tests, adjacency_over_degree);
    tcase_add_test(tests, types_round_once);
    tcase_add_test(tests, grouped_heads_equal_repeated_heads);
    tcase_add_test(tests, empty_rows);
    tcase_add_test(tests, strides);
    tcase_add_test(tests, far_elements);
    tcase_add_test(tests, plan_figures);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
