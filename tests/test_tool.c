/* Parts of the tool that its scripts cannot reach: numbers and elements, the option parser, statistics, and that the
 * judge of bench notices every kind of wrong result. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../tools/args.h"
#include "../tools/bench_case.h"
#include "../tools/elements.h"
#include "harness.h"

START_TEST(sixteen_bit_elements_round_trip)
{
    static const nf_dtype types[] = {NF_BF16, NF_F16};
    for (int t = 0; t < 2; t++) {
        for (int bits = 0; bits < 65536; bits++) {
            const uint16_t element = (uint16_t)bits;
            uint16_t back;
            const double value = nf_tool_load_element(&element, types[t], 0);
            nf_tool_store_element(&back, types[t], 0, value);
            if (isnan(value))
                ck_assert(isnan(nf_tool_load_element(&back, types[t], 0)));
            else
                ck_assert_uint_eq(back, element);
        }
    }
}
END_TEST

/* Half way between two neighbours goes to the even one; beyond the largest, to infinity. */
START_TEST(sixteen_bit_elements_round_to_even)
{
    static const struct {
        nf_dtype dtype;
        double value;
        unsigned bits;
    } cases[] = {
        {NF_BF16, 1 + 0x1p-8, 0x3f80},  {NF_BF16, 1 + 3 * 0x1p-8, 0x3f82}, {NF_BF16, 1 + 0x1.01p-8, 0x3f81},
        {NF_BF16, 0x1p-134, 0x0000},    {NF_BF16, 3 * 0x1p-134, 0x0002},   {NF_BF16, 0x1.ffp127, 0x7f80},
        {NF_F16, 1 + 0x1p-11, 0x3c00},  {NF_F16, 1 + 3 * 0x1p-11, 0x3c02}, {NF_F16, 65519.99, 0x7bff},
        {NF_F16, 65520, 0x7c00},        {NF_F16, 0x1p-25, 0x0000},         {NF_F16, 0x1.01p-25, 0x0001},
        {NF_F16, -0x1.ffep-15, 0x8400}, {NF_F16, -0.0, 0x8000},            {NF_F16, -HUGE_VAL, 0xfc00},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint16_t bits;
        nf_tool_store_element(&bits, cases[i].dtype, 0, cases[i].value);
        ck_assert_msg(bits == cases[i].bits, "%a: %04x, not %04x", cases[i].value, bits, cases[i].bits);
    }
}
END_TEST

START_TEST(normal_numbers_are_normal_and_seeded)
{
    enum { COUNT = 100001 };
    static double a[COUNT], b[COUNT];
    const int64_t extent = COUNT;
    nf_tensor tensor;
    ck_assert_int_eq(nf_tensor_init(&tensor, a, NF_F64, 1, &extent), NF_OK);
    nf_tool_fill_normal(&tensor, 3);
    double sum = 0, squares = 0;
    for (int i = 0; i < COUNT; i++) {
        sum += a[i];
        squares += a[i] * a[i];
    }
    ck_assert_double_le(fabs(sum / COUNT), 0.02);
    ck_assert_double_le(fabs(squares / COUNT - 1), 0.03);
    tensor.data = b;
    nf_tool_fill_normal(&tensor, 3);
    ck_assert_mem_eq(a, b, sizeof(a));
    nf_tool_fill_normal(&tensor, 4);
    ck_assert_int_ne(memcmp(a, b, sizeof(a)), 0);
}
END_TEST

START_TEST(numbers_are_read_whole)
{
    static const char *const wrong[] = {"", " 1", "1 ", "1x", "x", "+1", "0x10", "1.0", "1e3", "9223372036854775808"};
    static const char *const not_finite[] = {"", " 1", "1 ", "nan", "inf", "1e999", "1x", "--1", "."};
    int64_t whole;
    double real;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        ck_assert_msg(!nf_tool_read_int(wrong[i], &whole), "\"%s\" was read", wrong[i]);
    for (size_t i = 0; i < sizeof(not_finite) / sizeof(*not_finite); i++)
        ck_assert_msg(!nf_tool_read_double(not_finite[i], &real), "\"%s\" was read", not_finite[i]);
    ck_assert(nf_tool_read_int("-9223372036854775808", &whole) && whole == INT64_MIN);
    ck_assert(nf_tool_read_double("-2.5e-1", &real) && real == -0.25);
}
END_TEST

START_TEST(options_and_words_mix)
{
    const char *text = NULL;
    int64_t count = 7;
    double factor = 0;
    bool flag = false;
    const nf_tool_option options[] = {{"text", NF_TOOL_STRING, &text, .value = "T", .help = ""},
                                      {"count", NF_TOOL_INT, &count, .value = "N", .help = ""},
                                      {"factor", NF_TOOL_DOUBLE, &factor, .value = "F", .help = ""},
                                      {"flag", NF_TOOL_FLAG, &flag, .help = ""},
                                      {0}};
    const nf_tool_command command = {.name = "test", .words = "WORD...", .max_words = -1, .options = options};
    char arguments[][16] = {"test", "one", "--text=a=b", "--count", "-3", "two", "--flag", "--factor=.5", "-", "--", "--x"};
    enum { COUNT = sizeof(arguments) / sizeof(*arguments) };
    char *argv[COUNT];
    for (int i = 0; i < COUNT; i++)
        argv[i] = arguments[i];
    int argc = COUNT;
    ck_assert_int_eq(nf_tool_parse(&command, &argc, argv), NF_TOOL_CONTINUE);
    ck_assert_str_eq(text, "a=b");
    ck_assert_int_eq(count, -3);
    ck_assert_double_eq(factor, 0.5);
    ck_assert(flag);
    ck_assert_int_eq(argc, 5);
    ck_assert_str_eq(argv[1], "one");
    ck_assert_str_eq(argv[2], "two");
    ck_assert_str_eq(argv[3], "-");
    ck_assert_str_eq(argv[4], "--x");
}
END_TEST

START_TEST(nearest_name)
{
    static const char *const names[] = {"run", "bench", "verify"};
    ck_assert_str_eq(nf_tool_nearest("rum", names, 3), "run");
    ck_assert_str_eq(nf_tool_nearest("benhc", names, 3), "bench");
    ck_assert_str_eq(nf_tool_nearest("verfy", names, 3), "verify");
    ck_assert_ptr_null(nf_tool_nearest("frobnicate", names, 3));
    ck_assert_ptr_null(nf_tool_nearest("a word that is longer than any name could be", names, 3));
}
END_TEST

START_TEST(medians)
{
    double odd[] = {5, 1, 3}, even[] = {4, 1, 3, 100};
    const nf_tool_summary a = nf_tool_summarize(odd, 3), b = nf_tool_summarize(even, 4);
    ck_assert(a.median == 3 && a.minimum == 1 && a.maximum == 5);
    ck_assert(b.median == 3.5 && b.minimum == 1 && b.maximum == 100);
}
END_TEST

START_TEST(busy_machines_are_noticed)
{
    const nf_tool_load before = {.wall = 10, .everyone = 100, .ours = 50};
    const nf_tool_load quiet = {.wall = 11, .everyone = 101, .ours = 51};
    const nf_tool_load busy = {.wall = 11, .everyone = 102 + 100, .ours = 51};
    const nf_tool_load unknown = {.wall = 11, .everyone = -1, .ours = 51};
    ck_assert(nf_tool_was_quiet(&before, &quiet));
    ck_assert(!nf_tool_was_quiet(&before, &busy));
    ck_assert(nf_tool_was_quiet(&before, &unknown));
}
END_TEST

/* Samples see extra tokens only in sums, which are coarse. */
static bool is_extra(nf_role role)
{
    return role == NF_DEXTRA_K || role == NF_DEXTRA_V;
}

/* Computes a problem, lets the judge see it, then each output in turn wrong by a factor, then with a NaN. */
static void judge_notices(const char *text, double pairs, const char *method, double factor)
{
    nf_problem problem;
    bench_data data;
    bench_verdict verdict;
    nf_context *context = nf_tool_context("test", "reference", 0);
    nf_plan *plan = NULL;
    ck_assert_ptr_nonnull(context);
    ck_assert_int_eq(nf_problem_parse(&problem, text), NF_OK);
    ck_assert_int_eq(bench_data_create(&data, &problem, 1), NF_TOOL_OK);
    ck_assert_int_eq(nf_plan_create(&plan, context, &problem, NULL), NF_OK);
    ck_assert_int_eq(bench_execute(plan, &data, NF_FWD, NULL), NF_OK);
    ck_assert_int_eq(bench_execute(plan, &data, NF_BWD, NULL), NF_OK);
    ck_assert_int_eq(bench_check(&data, pairs, &verdict), NF_TOOL_OK);
    ck_assert_msg(verdict.passed, "%s: %s is off by %g", text, verdict.tensor, verdict.error);
    ck_assert_str_eq(verdict.method, method);
    for (int role = 0; role < NF_ROLES; role++) {
        const nf_tensor *tensor = &data.tensors[role];
        if (!tensor->data || !bench_is_output((nf_role)role))
            continue;
        const size_t bytes = nf_tool_tensor_bytes(tensor);
        void *right = malloc(bytes);
        ck_assert_ptr_nonnull(right);
        memcpy(right, tensor->data, bytes);
        for (int wrong = 0; wrong < 2; wrong++) {
            const double scale = wrong ? NAN : is_extra((nf_role)role) ? 2 : factor;
            for (int64_t i = 0; i < nf_tool_tensor_count(tensor); i++)
                nf_tool_store_element(tensor->data, tensor->dtype, i,
                                      scale * nf_tool_load_element(right, tensor->dtype, i));
            ck_assert_int_eq(bench_check(&data, pairs, &verdict), NF_TOOL_OK);
            ck_assert_msg(!verdict.passed, "%s: a wrong %s passed", text, nf_role_name((nf_role)role));
        }
        memcpy(tensor->data, right, bytes);
        free(right);
    }
    nf_plan_destroy(plan);
    bench_data_destroy(&data);
    nf_context_destroy(context);
}

/* So many pairs, if it is told so, that the judge takes samples. */
static const double many = 1e12;

START_TEST(judge_notices_wrong_results)
{
    judge_notices("na2d f32 b2 h4/2 d8/5 9x11 w3x5 s1x2 x3 both", 1, "reference", 1.001);
    judge_notices("na1d f64 h2 d3 40 w7 dil2 c1 both", 1, "reference", 1 + 1e-9);
    judge_notices("na1d bf16 out=f32 h2 d8 40 w7 both", 1, "reference", 1.3);
}
END_TEST

START_TEST(judge_notices_wrong_results_by_samples)
{
    judge_notices("na2d f32 b2 h4/2 d8/5 9x11 w3x5 s1x2 x3 both", many, "samples", 1.001);
    judge_notices("na1d f64 h2 d3 40 w7 dil2 c1 both", many, "samples", 1 + 1e-9);
    judge_notices("na1d f32 d8 20/50 c1 both", many, "samples", 1.001);
    judge_notices("na2d f32 d8 9x11 w5 q2:6x0:11 k1:7x2:9 both", many, "samples", 1.001);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tool");
    TCase *tests = tcase_create("tool");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, sixteen_bit_elements_round_trip);
    tcase_add_test(tests, sixteen_bit_elements_round_to_even);
    tcase_add_test(tests, normal_numbers_are_normal_and_seeded);
    tcase_add_test(tests, numbers_are_read_whole);
    tcase_add_test(tests, options_and_words_mix);
    tcase_add_test(tests, nearest_name);
    tcase_add_test(tests, medians);
    tcase_add_test(tests, busy_machines_are_noticed);
    tcase_add_test(tests, judge_notices_wrong_results);
    tcase_add_test(tests, judge_notices_wrong_results_by_samples);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
