/* The reference backend, backward: central differences, and what must not reach a gradient. */
#include <math.h>

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

static const struct {
    nf_role of, gradient;
} gradients[] = {{NF_Q, NF_DQ}, {NF_K, NF_DK}, {NF_V, NF_DV}, {NF_EXTRA_K, NF_DEXTRA_K}, {NF_EXTRA_V, NF_DEXTRA_V}};

enum { GRADIENTS = sizeof gradients / sizeof *gradients };

/* The scalar whose gradients backward computes: dout . out + dlse . lse, where a row is not empty. */
static double objective(attend *a)
{
    double sum = 0;
    run(a, NF_FWD);
    for (int64_t i = 0; i < tensor_count(&a->tensor[NF_OUT]); i++)
        sum += tensor_get(&a->tensor[NF_DOUT], i) * tensor_get(&a->tensor[NF_OUT], i);
    for (int64_t i = 0; i < tensor_count(&a->tensor[NF_LSE]); i++)
        if (isfinite(tensor_get(&a->tensor[NF_LSE], i)))
            sum += tensor_get(&a->tensor[NF_DLSE], i) * tensor_get(&a->tensor[NF_LSE], i);
    return sum;
}

static void check_differences(attend *a, const char *text, nf_role of, nf_role gradient)
{
    const double step = 1e-5;
    nf_tensor *tensor = &a->tensor[of];
    for (int64_t i = 0; tensor->rank && i < tensor_count(tensor); i++) {
        const double x = tensor_get(tensor, i);
        tensor_set(tensor, i, x + step);
        const double above = objective(a);
        tensor_set(tensor, i, x - step);
        const double below = objective(a);
        tensor_set(tensor, i, x);
        const double want = (above - below) / (2 * step), got = tensor_get(&a->tensor[gradient], i);
        if (!(fabs(got - want) <= 1e-8 * fmax(1, fabs(want))))
            ck_abort_msg("%s: %s[%ld] is %.12g, differences say %.12g", text, nf_role_name(gradient), (long)i, got,
                         want);
    }
}

START_TEST(central_differences)
{
    static const char *const problems[] = {
        "na1d f64 d2 1",
        "na1d f64 b2 h2 d3/2 7 w3",
        "na1d f64 h4/2 d2/3 9 w4 s3 dil2 x2",
        "na1d f64 d2 10 w5 s2 c1 scale=0.7",
        "na1d f64 h2/1 d2 5/8 c1",
        "na1d f64 d2 6/4 c1 x1",
        "na1d f64 d2 10 w3 q2:5 k4:4",
        "na2d f64 h2/1 d2/1 4x5 w3x2 s2x1 dil1x2 c0x1 x1",
        "na3d f64 d1/2 3x2x4 w2 s1x2x1 c1x0x0",
        "na4d f64 d1 2x3x2x3 w2x3x1x2 c0x1x0x0",
        "na2d f64 d2 4x4 w3 k1:2x0:3 q0:3x2:2",
    };
    for (size_t p = 0; p < sizeof problems / sizeof *problems; p++) {
        attend a;
        uint64_t seed = p;
        attend_create_text(&a, problems[p]);
        attend_fill(&a, &seed, 1);
        run(&a, NF_BOTH);
        for (int g = 0; g < GRADIENTS; g++)
            check_differences(&a, problems[p], gradients[g].of, gradients[g].gradient);
        attend_destroy(&a);
    }
}
END_TEST

/* One query, two keys, by hand: p = 1/2 each, dout . v = {1, 3}, delta = 2 - dlse. */
START_TEST(by_hand)
{
    attend a;
    attend_create_text(&a, "na1d f64 d1 1/2 scale=2");
    const struct {
        nf_role role;
        double values[2];
    } given[] = {{NF_Q, {3}}, {NF_K, {5, 5}}, {NF_V, {1, 3}}, {NF_DOUT, {1}}, {NF_DLSE, {0.5}}},
      expected[] = {{NF_DQ, {2 * 0.5 * 5 * (-0.5 + 1.5)}}, {NF_DK, {2 * 0.5 * 3 * -0.5, 2 * 0.5 * 3 * 1.5}},
                    {NF_DV, {0.5, 0.5}}};
    for (size_t r = 0; r < sizeof given / sizeof *given; r++)
        for (int64_t i = 0; i < tensor_count(&a.tensor[given[r].role]); i++)
            tensor_set(&a.tensor[given[r].role], i, given[r].values[i]);
    run(&a, NF_BOTH);
    for (size_t r = 0; r < sizeof expected / sizeof *expected; r++)
        for (int64_t i = 0; i < tensor_count(&a.tensor[expected[r].role]); i++)
            ck_assert_double_eq_tol(tensor_get(&a.tensor[expected[r].role], i), expected[r].values[i], 1e-14);
    attend_destroy(&a);
}
END_TEST

/* Gradients of a shared head are the sums of those of its copies. */
START_TEST(grouped_heads_sum)
{
    attend a, repeated;
    uint64_t seed = 5;
    attend_create_text(&a, "na1d f64 b2 h4/2 d3/2 6 w3 x1");
    attend_create_text(&repeated, "na1d f64 b2 h4 d3/2 6 w3 x1");
    attend_fill(&a, &seed, 1);
    attend_copy(&repeated, &a, NF_Q);
    attend_copy(&repeated, &a, NF_DOUT);
    attend_copy(&repeated, &a, NF_DLSE);
    for (int g = 1; g < GRADIENTS; g++) {
        nf_tensor *to = &repeated.tensor[gradients[g].of];
        const int64_t dim = to->extents[to->rank - 1];
        for (int64_t i = 0; i < tensor_count(to); i++)
            tensor_set(to, i, tensor_get(&a.tensor[gradients[g].of],
                                         (i / dim / 4 * 2 + i / dim % 4 / 2) * dim + i % dim));
    }
    run(&a, NF_BOTH);
    run(&repeated, NF_BOTH);
    ck_assert(tensor_equal(&a.tensor[NF_DQ], &repeated.tensor[NF_DQ]));
    for (int g = 1; g < GRADIENTS; g++) {
        const nf_tensor *sum = &a.tensor[gradients[g].gradient], *parts = &repeated.tensor[gradients[g].gradient];
        const int64_t dim = sum->extents[sum->rank - 1];
        for (int64_t i = 0; i < tensor_count(sum); i++) {
            const int64_t first = (i / dim / 2 * 4 + i / dim % 2 * 2) * dim + i % dim;
            ck_assert_double_eq_tol(tensor_get(sum, i), tensor_get(parts, first) + tensor_get(parts, first + dim),
                                    1e-14);
        }
    }
    attend_destroy(&a);
    attend_destroy(&repeated);
}
END_TEST

/* Whether some query sees both keys. */
static bool share_query(const nf_axis *axis, int64_t a, int64_t b)
{
    for (int64_t i = 0; i < axis->extent; i++)
        if (oracle_sees(axis, i, a) && oracle_sees(axis, i, b))
            return true;
    return false;
}

static bool has_nan(const nf_tensor *tensor, int64_t row, int64_t dim)
{
    for (int64_t i = 0; i < dim; i++)
        if (isnan(tensor_get(tensor, row * dim + i)))
            return true;
    return false;
}

static void same_row(const attend *a, const attend *clean, nf_role role, int64_t row)
{
    const int64_t dim = role == NF_LSE ? 1 : 2;
    for (int64_t i = row * dim; i < (row + 1) * dim; i++)
        ck_assert_double_eq(tensor_get(&a->tensor[role], i), tensor_get(&clean->tensor[role], i));
}

/* NaN or infinity in a key and value reach the queries that see it and the keys these see, nothing else. */
START_TEST(nan_isolation)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    enum { L = 23, POISONED = 9 };
    for (int b = 0; b < 3; b++) {
        attend a, clean;
        uint64_t seed = 3;
        attend_create_text(&a, "na1d f32 d2 23 w4 s2 dil2");
        attend_create_text(&clean, "na1d f32 d2 23 w4 s2 dil2");
        attend_fill(&a, &seed, 1);
        for (int role = NF_Q; role <= NF_DLSE; role++)
            if (a.tensor[role].rank && role != NF_OUT && role != NF_LSE)
                attend_copy(&clean, &a, (nf_role)role);
        for (int64_t i = 0; i < 2; i++) {
            tensor_set(&a.tensor[NF_K], 2 * POISONED + i, bad[b]);
            tensor_set(&a.tensor[NF_V], 2 * POISONED + i, bad[b]);
        }
        run(&a, NF_BOTH);
        run(&clean, NF_BOTH);
        const nf_axis *axis = &a.problem.axis[0];
        for (int64_t i = 0; i < L; i++) {
            if (oracle_sees(axis, i, POISONED)) {
                ck_assert(has_nan(&a.tensor[NF_OUT], i, 2) && has_nan(&a.tensor[NF_DQ], i, 2));
            } else {
                same_row(&a, &clean, NF_OUT, i);
                same_row(&a, &clean, NF_LSE, i);
                same_row(&a, &clean, NF_DQ, i);
            }
            if (share_query(axis, i, POISONED)) {
                ck_assert(has_nan(&a.tensor[NF_DK], i, 2));
                ck_assert(has_nan(&a.tensor[NF_DV], i, 2) || !isnan(bad[b])); /* exp(-inf) leaves dv finite */
            } else {
                same_row(&a, &clean, NF_DK, i);
                same_row(&a, &clean, NF_DV, i);
            }
        }
        attend_destroy(&a);
        attend_destroy(&clean);
    }
}
END_TEST

/* Empty rows, and keys that no query sees, have zero gradients; dlse of an empty row does not count. */
START_TEST(empty_rows)
{
    attend a;
    uint64_t seed = 4;
    attend_create_text(&a, "na1d f32 d3 20 w3 q0:6 k3:17");
    attend_fill(&a, &seed, 1);
    run(&a, NF_BOTH);
    for (int64_t i = 0; i < 6 * 3; i++)
        ck_assert_int_eq(tensor_get(&a.tensor[NF_DQ], i) == 0, i / 3 < 2);
    for (int64_t j = 0; j < 17 * 3; j++) {
        ck_assert_int_eq(tensor_get(&a.tensor[NF_DV], j) == 0, j / 3 > 3);
        ck_assert(j / 3 <= 3 || tensor_get(&a.tensor[NF_DK], j) == 0);
    }
    attend_destroy(&a);
}
END_TEST

/* Absent gradients are skipped and absent dlse counts as zero. */
START_TEST(absent_tensors)
{
    attend a, zero;
    uint64_t seed = 8;
    attend_create_text(&a, "na1d f64 h2/1 d2 9 w3 x2");
    attend_create_text(&zero, "na1d f64 h2/1 d2 9 w3 x2");
    attend_fill(&a, &seed, 1);
    for (int role = NF_Q; role <= NF_DOUT; role++)
        if (role != NF_BIAS && role != NF_OUT && role != NF_LSE)
            attend_copy(&zero, &a, (nf_role)role);
    for (int64_t i = 0; i < tensor_count(&zero.tensor[NF_DLSE]); i++)
        tensor_set(&zero.tensor[NF_DLSE], i, 0);
    run(&zero, NF_BOTH);
    a.tensor[NF_DLSE].rank = 0;
    for (int g = 0; g < GRADIENTS; g++) {
        attend only = a;
        for (int other = 0; other < GRADIENTS; other++)
            if (other != g)
                only.tensor[gradients[other].gradient].rank = 0;
        run(&only, NF_BOTH);
        const nf_role role = gradients[g].gradient;
        ck_assert_msg(tensor_equal(&only.tensor[role], &zero.tensor[role]), "%s", nf_role_name(role));
    }
    attend_destroy(&a);
    attend_destroy(&zero);
}
END_TEST

/* Gradients, dout and dlse may run backwards in memory; a stride of 0 in dout repeats it. */
START_TEST(strides)
{
    attend a, strided;
    uint64_t seed = 10;
    const char *const text = "na2d bf16 b2 h4/2 d3/5 4x3 w3x2 x2";
    attend_create_text(&a, text);
    attend_create_text(&strided, text);
    attend_fill(&a, &seed, 1);
    strided.tensor[NF_DOUT].strides[0] = 0;
    for (int role = NF_DLSE; role < NF_SCORES; role++) {
        nf_tensor *tensor = &strided.tensor[role];
        tensor->data = (char *)tensor->data + (tensor_count(tensor) - 1) * (int64_t)nf_dtype_size(tensor->dtype);
        for (int32_t i = 0; i < tensor->rank; i++)
            tensor->strides[i] = -tensor->strides[i];
    }
    const int64_t batch = tensor_count(&a.tensor[NF_DOUT]) / 2;
    for (int64_t i = 0; i < batch; i++)
        tensor_set(&a.tensor[NF_DOUT], i + batch, tensor_get(&a.tensor[NF_DOUT], i));
    for (int role = NF_Q; role <= NF_DLSE; role++)
        if (a.tensor[role].rank && role != NF_OUT && role != NF_LSE)
            attend_copy(&strided, &a, (nf_role)role);
    run(&a, NF_BOTH);
    run(&strided, NF_BOTH);
    for (int role = NF_DQ; role < NF_SCORES; role++)
        ck_assert_msg(tensor_equal(&a.tensor[role], &strided.tensor[role]), "%s", nf_role_name((nf_role)role));
    attend_destroy(&a);
    attend_destroy(&strided);
}
END_TEST

/* The same bits for any number of threads, forward and backward. */
START_TEST(thread_count)
{
    attend one, many;
    uint64_t seed = 9;
    const char *const text = "na2d f32 b3 h6/3 d5/7 6x7 w3x4 s2 c0x1 x1 both";
    attend_create_text(&one, text);
    attend_fill(&one, &seed, 1);
    for (int64_t threads = 1; threads <= 8; threads = 2 * threads + 1) {
        nf_context_options options;
        nf_context *own;
        nf_context_options_init(&options);
        options.num_threads = threads;
        ck_assert_int_eq(nf_context_create(&own, &options), NF_OK);
        if (threads == 1) {
            attend_run(&one, own, "reference", NULL, NF_BOTH);
        } else {
            attend_create_text(&many, text);
            for (int role = NF_Q; role <= NF_DLSE; role++)
                if (many.tensor[role].rank && role != NF_OUT && role != NF_LSE)
                    attend_copy(&many, &one, (nf_role)role);
            attend_run(&many, own, "reference", NULL, NF_BOTH);
            for (int role = NF_OUT; role < NF_SCORES; role++)
                ck_assert(tensor_equal(&one.tensor[role], &many.tensor[role]));
            attend_destroy(&many);
        }
        nf_context_destroy(own);
    }
    attend_destroy(&one);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gradients");
    TCase *tests = tcase_create("backward");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, central_differences);
    tcase_add_test(tests, by_hand);
    tcase_add_test(tests, grouped_heads_sum);
    tcase_add_test(tests, nan_isolation);
    tcase_add_test(tests, empty_rows);
    tcase_add_test(tests, absent_tensors);
    tcase_add_test(tests, strides);
    tcase_add_test(tests, thread_count);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
