/* The checker must be able to fail: every judge of `nearfield verify` is fed results that are wrong in one way. And it
 * must not fail too early: sums in another order pass. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "nearfield.h"
#include "verify.h"

/* A problem with its data, its truth, `plain`, and a result that is as good as any. */
typedef struct subject {
    nf_problem problem;
    verify_mask mask;
    verify_values truth, plain, unit, fast;
    verify_judge judge;
    char why[VERIFY_WHY];
} subject;

static void run_plain(subject *s, verify_values *result, const verify_plain_options *options)
{
    verify_plain(&s->problem, &s->mask, options, result, &s->unit, &s->judge.score_size);
}

static void create_subject(subject *s, const nf_problem *problem, verify_kind kind, uint64_t seed)
{
    *s = (subject){.problem = *problem};
    verify_random random = verify_random_stream(seed, 0);
    verify_mask_create(&s->mask, &s->problem);
    verify_values_create(&s->unit, &s->problem);
    verify_values_create(&s->fast, &s->problem);
    verify_fill(&s->fast, &s->problem, kind, &random);
    verify_values_copy(&s->truth, &s->fast);
    verify_values_copy(&s->plain, &s->fast);
    const nf_dtype working = verify_working(s->problem.dtype);
    run_plain(s, &s->truth, &(verify_plain_options){.working = NF_F64, .exact = true, .dlse = true});
    run_plain(s, &s->fast, &(verify_plain_options){.working = working, .reversed = true, .dlse = true});
    run_plain(s, &s->plain, &(verify_plain_options){.working = working, .dlse = true});
    s->judge.problem = &s->problem;
    s->judge.truth = &s->truth;
    s->judge.plain = &s->plain;
    s->judge.unit = &s->unit;
    s->judge.well_conditioned = kind == VERIFY_NORMAL;
    if (kind == VERIFY_EQUAL)
        s->judge.equal_terms = s->mask.queries * s->problem.heads;
}

static void create_named(subject *s, const char *text, verify_kind kind)
{
    nf_problem problem;
    ck_assert_int_eq(nf_problem_parse(&problem, text), NF_OK);
    ck_assert_int_eq(nf_problem_check(&problem), NF_OK);
    create_subject(s, &problem, kind, 5);
}

static void destroy(subject *s)
{
    verify_mask_destroy(&s->mask);
    verify_values_destroy(&s->truth);
    verify_values_destroy(&s->plain);
    verify_values_destroy(&s->unit);
    verify_values_destroy(&s->fast);
}

static bool passes(subject *s, int role)
{
    *s->why = 0;
    return verify_judge_role(&s->judge, role, &s->fast.role[role], s->why);
}

static void expect_failure(subject *s, int role, const char *word)
{
    ck_assert_msg(!passes(s, role), "%s passed", nf_role_name((nf_role)role));
    ck_assert_msg(strstr(s->why, word) && strstr(s->why, nf_role_name((nf_role)role)), "\"%s\" lacks \"%s\"", s->why,
                  word);
}

static const int judged[] = {NF_OUT, NF_LSE, NF_DQ, NF_DK, NF_DV, NF_DEXTRA_K, NF_DEXTRA_V};
enum { JUDGED = 7 };

static const char *const typical[] = {
    "na2d f32 b2 h4/2 d17/9 9x8 w5x4 s2x1 dil1x2 c0x1 x2 both", "na1d f64 b1 h2 d32 40 w9 x1 both",
    "na1d bf16 out=f32 b1 h2 d16 40 w9 x1 both", "na2d f16 b1 h1 d24 7x7 w7 x3 both"};
enum { TYPICAL = 4 };

START_TEST(test_good_results_pass)
{
    subject s;
    create_named(&s, typical[_i], VERIFY_NORMAL);
    for (int i = 0; i < JUDGED; i++)
        ck_assert_msg(passes(&s, judged[i]), "%s", s.why);
    destroy(&s);
}
END_TEST

/* Any single element off by a hundredth of the largest (a tenth for bf16) is seen in every role. */
START_TEST(test_wrong_elements_fail)
{
    subject s;
    create_named(&s, typical[_i], VERIFY_NORMAL);
    verify_random random = verify_random_stream(9, 0);
    for (int i = 0; i < JUDGED; i++)
        for (int time = 0; time < 20; time++) {
            verify_array *array = &s.fast.role[judged[i]];
            double size = 0;
            for (int64_t j = 0; j < array->count; j++)
                size = fmax(size, fabs(array->data[j]));
            double *element = &array->data[verify_random_below(&random, array->count)], before = *element;
            *element += size * (s.problem.dtype == NF_BF16 ? 0.3 : s.problem.dtype == NF_F16 ? 0.05 : 0.001);
            expect_failure(&s, judged[i], "rule");
            *element = before;
            ck_assert(passes(&s, judged[i]));
        }
    destroy(&s);
}
END_TEST

START_TEST(test_not_finite_fails)
{
    subject s;
    create_named(&s, typical[_i], VERIFY_NORMAL);
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < JUDGED; i++)
        for (int j = 0; j < 3; j++) {
            double *element = &s.fast.role[judged[i]].data[3], before = *element;
            *element = bad[j];
            expect_failure(&s, judged[i], judged[i] == NF_LSE ? "lse rule" : "finite rule");
            *element = before;
        }
    destroy(&s);
}
END_TEST

START_TEST(test_swapped_rows_fail)
{
    subject s;
    create_named(&s, typical[_i], VERIFY_NORMAL);
    for (int i = 0; i < JUDGED; i++) {
        verify_array *array = &s.fast.role[judged[i]];
        for (int64_t c = 0; c < array->dim; c++) {
            const double first = array->data[c];
            array->data[c] = array->data[array->dim + c];
            array->data[array->dim + c] = first;
        }
        expect_failure(&s, judged[i], "rule");
    }
    destroy(&s);
}
END_TEST

/* An error too small for any element, but everywhere. */
START_TEST(test_norm_rule)
{
    subject s;
    create_named(&s, "na1d f32 b1 h1 d256 64 w64 both", VERIFY_NORMAL);
    verify_values *plain = &s.plain;
    for (int64_t i = 0; i < plain->role[NF_OUT].count; i++) { /* a poor plain, so that the other rules are wide */
        plain->role[NF_OUT].data[i] *= 1 + 1e-3;
        s.fast.role[NF_OUT].data[i] *= 1 + 1e-4;
    }
    expect_failure(&s, NF_OUT, "norm rule");
    s.judge.well_conditioned = false;
    ck_assert_msg(passes(&s, NF_OUT), "%s", s.why);
    destroy(&s);
}
END_TEST

/* Rows that see nothing: exactly 0, and -inf. */
START_TEST(test_empty_rows)
{
    subject s;
    create_named(&s, "na1d f32 b1 h1 d8 20 w3 k10:5 both", VERIFY_NORMAL);
    for (int role = NF_OUT; role <= NF_DV; role++)
        if (role == NF_OUT || role == NF_LSE || verify_is_gradient(role))
            ck_assert_msg(passes(&s, role), "%s", s.why);
    ck_assert(isinf(s.fast.role[NF_LSE].data[0]));
    s.fast.role[NF_OUT].data[0] = 1e-30;
    expect_failure(&s, NF_OUT, "zero rule");
    s.fast.role[NF_DQ].data[0] = 1e-30;
    expect_failure(&s, NF_DQ, "zero rule");
    s.fast.role[NF_LSE].data[0] = -1e30;
    expect_failure(&s, NF_LSE, "lse rule");
    destroy(&s);
}
END_TEST

/* NaN and infinity reach exactly the rows that see them. */
START_TEST(test_poison_must_arrive)
{
    subject s;
    create_named(&s, "na1d f32 b1 h1 d8 60 w5 both", VERIFY_POISON);
    verify_array *out = &s.fast.role[NF_OUT];
    ck_assert_msg(passes(&s, NF_OUT), "%s", s.why);
    int64_t reached = 0;
    for (int64_t i = 0; i < out->count; i++)
        if (!isfinite(out->data[i])) {
            reached++;
            out->data[i] = 0;
        }
    ck_assert_int_gt(reached, 0);
    ck_assert_int_lt(reached, out->count);
    expect_failure(&s, NF_OUT, "finite rule");
    destroy(&s);
}
END_TEST

/* The calibration of verify_rule.c: a kernel that only sums in another order passes, whatever the data. */
START_TEST(test_other_order_passes)
{
    int64_t judgements = 0;
    for (uint64_t seed = 1; seed <= 400; seed++) {
        nf_problem problem;
        subject s;
        verify_generate_cheap(&problem, seed);
        problem.direction = NF_BOTH;
        create_subject(&s, &problem, (verify_kind)(seed % VERIFY_KINDS), seed);
        for (int i = 0; i < JUDGED; i++)
            if (s.fast.role[judged[i]].data) {
                ck_assert_msg(passes(&s, judged[i]), "seed %llu: %s", (unsigned long long)seed, s.why);
                judgements++;
            }
        destroy(&s);
    }
    ck_assert_int_gt(judgements, 1500);
}
END_TEST

/* Fills a role's tensor through its strides with 0, as a complete kernel writes it. */
static void write_all(verify_buffers *buffers, verify_values *values, int role)
{
    memset(values->role[role].data, 0, (size_t)values->role[role].count * sizeof(double));
    verify_buffers_store(buffers, values, role);
}

START_TEST(test_guards_and_poison)
{
    nf_problem problem;
    verify_values values;
    verify_buffers buffers;
    ck_assert_int_eq(nf_problem_parse(&problem, "na2d bf16 b2 h3 d5 4x6 w3 both"), NF_OK);
    verify_values_create(&values, &problem);
    verify_random random = verify_random_stream((uint64_t)_i, 0);
    verify_buffers_create(&buffers, &values, 1u << NF_OUT | 7u << NF_DQ, (verify_layout)_i, &random);
    for (int role = NF_OUT; role <= NF_DV; role++) {
        if (!buffers.tensor[role].data)
            continue;
        ck_assert_int_eq(verify_buffers_unwritten(&buffers, role), values.role[role].count);
        write_all(&buffers, &values, role);
        ck_assert_int_eq(verify_buffers_unwritten(&buffers, role), 0);
        ck_assert_int_eq(verify_buffers_trespassed(&buffers, role), 0);
    }
    const verify_block *block = &buffers.block[buffers.block_of[NF_OUT]];
    uint16_t *elements = (uint16_t *)(void *)block->memory;
    elements[0] = elements[block->count - 1] = 0;
    ck_assert_int_eq(verify_buffers_trespassed(&buffers, NF_OUT), 2);
    verify_buffers_seal(&buffers, NF_OUT);
    ck_assert(verify_buffers_unchanged(&buffers, NF_OUT));
    elements[block->count / 2] ^= 1;
    ck_assert(!verify_buffers_unchanged(&buffers, NF_OUT));
    verify_buffers_destroy(&buffers);
    verify_values_destroy(&values);
}
END_TEST

/* Comparisons of the identities: NaN equals nothing, tolerance 0 tells -0 from 0. */
START_TEST(test_comparisons)
{
    const double zero = 0, minus = -0.0, nan = NAN, empty = -INFINITY, one = 1, near = 1 + 1e-9;
    ck_assert(verify_same_rows(&zero, &zero, 1, 0));
    ck_assert(!verify_same_rows(&zero, &minus, 1, 0));
    ck_assert(verify_same_rows(&zero, &minus, 1, 1e-9));
    ck_assert(!verify_same_rows(&nan, &nan, 1, 1));
    ck_assert(!verify_same_rows(&nan, &zero, 1, 1));
    ck_assert(!verify_same_rows(&zero, &nan, 1, 1));
    ck_assert(verify_same_rows(&empty, &empty, 1, 1));
    ck_assert(!verify_same_rows(&one, &empty, 1, 1));
    ck_assert(!verify_same_rows(&one, &near, 1, 0));
    ck_assert(verify_same_rows(&one, &near, 1, 2e-9));
}
END_TEST

START_TEST(test_types)
{
    const nf_dtype small[] = {NF_BF16, NF_F16};
    for (int i = 0; i < 2; i++) {
        for (uint32_t bits = 0; bits < 0x10000; bits++) {
            const uint16_t before = (uint16_t)bits;
            uint16_t after;
            const double value = verify_read(small[i], &before);
            verify_write(small[i], &after, value);
            ck_assert_msg(isnan(value) || after == before, "%x became %x", before, after);
        }
        const double largest = verify_largest(small[i]);
        ck_assert_double_eq(verify_round(small[i], largest), largest);
        ck_assert(isinf(verify_round(small[i], largest * (1 + verify_epsilon(small[i])))));
    }
    ck_assert_double_eq(verify_round(NF_F16, 1 + 0x1p-11), 1);              /* ties go to even */
    ck_assert_double_eq(verify_round(NF_F16, 1 + 3 * 0x1p-11), 1 + 0x1p-9);
    ck_assert_double_eq(verify_round(NF_BF16, 1 + 0x1p-8), 1);
    ck_assert_double_eq(verify_round(NF_F16, 0x1.8p-25), 0x1p-24);
}
END_TEST

/* The same seed and problem make the same case. */
START_TEST(test_seeds_repeat)
{
    const verify_engine engine = {.backend = "cpu"};
    for (uint64_t seed = 1; seed < 200; seed++) {
        nf_problem first, again;
        verify_case one, two;
        char text[400];
        verify_generate(&first, seed);
        ck_assert_int_eq(nf_problem_format(&first, text, sizeof text, NULL), NF_OK);
        ck_assert_int_eq(nf_problem_parse(&again, text), NF_OK);
        ck_assert_msg(nf_problem_check(&again) == NF_OK, "seed %llu: %s", (unsigned long long)seed, nf_last_error());
        verify_case_derive(&one, &engine, &first, seed);
        verify_case_derive(&two, &engine, &again, seed);
        ck_assert(one.kind == two.kind && one.call.layout == two.call.layout && one.call.lse == two.call.lse);
        ck_assert(one.call.gradients == two.call.gradients && one.call.dlse == two.call.dlse);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("verify");
    TCase *judges = tcase_create("judges"), *rest = tcase_create("rest");
    tcase_set_timeout(judges, 120);
    tcase_add_loop_test(judges, test_good_results_pass, 0, TYPICAL);
    tcase_add_loop_test(judges, test_wrong_elements_fail, 0, TYPICAL);
    tcase_add_loop_test(judges, test_not_finite_fails, 0, TYPICAL);
    tcase_add_loop_test(judges, test_swapped_rows_fail, 0, TYPICAL);
    tcase_add_test(judges, test_norm_rule);
    tcase_add_test(judges, test_empty_rows);
    tcase_add_test(judges, test_poison_must_arrive);
    tcase_add_test(judges, test_other_order_passes);
    tcase_add_loop_test(rest, test_guards_and_poison, 0, VERIFY_LAYOUTS);
    tcase_add_test(rest, test_comparisons);
    tcase_add_test(rest, test_types);
    tcase_add_test(rest, test_seeds_repeat);
    suite_add_tcase(suite, judges);
    suite_add_tcase(suite, rest);
    return nf_test_main(suite);
}
