/* Environment variables: the table, its manual, wrong values, unknown names. */
#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "core/env.h"
#include "fake.h"
#include "harness.h"

static char manual[8192];

static const char *describe(void)
{
    ck_assert_int_eq(nf_environment_describe(manual, sizeof manual, NULL), NF_OK);
    return manual;
}

START_TEST(every_variable_has_a_paragraph)
{
    const char *text = describe();
    for (int i = 0; i < NF_ENVS; i++)
        ck_assert_ptr_nonnull(strstr(text, nf_env_name((nf_env)i)));
    ck_assert_ptr_nonnull(strstr(text, "NEARFIELD_VERBOSE=0|1|2\n"));
    ck_assert_ptr_nonnull(strstr(text, "Default: 0. Now: unset.\n"));
    setenv("NEARFIELD_VERBOSE", "2", 1);
    ck_assert_ptr_nonnull(strstr(describe(), "Default: 0. Now: 2.\n"));
}
END_TEST

START_TEST(describe_reports_its_length)
{
    size_t length = 0;
    ck_assert_int_eq(nf_environment_describe(NULL, 0, &length), NF_OK);
    ck_assert_uint_eq(length, strlen(describe()));
    char small[8];
    ck_assert_int_eq(nf_environment_describe(small, sizeof small, NULL), NF_ERR_SPACE);
    ck_assert_str_eq(small, "NEARFIE");
}
END_TEST

START_TEST(empty_is_unset)
{
    setenv("NEARFIELD_ISA", "", 1);
    ck_assert_ptr_null(nf_env_text(NF_ENV_ISA));
    int64_t value = 5;
    setenv("NEARFIELD_VERBOSE", "", 1);
    ck_assert_int_eq(nf_env_number(NF_ENV_VERBOSE, &value), NF_OK);
    ck_assert_int_eq(value, 5);
}
END_TEST

START_TEST(cache_folder)
{
    char path[NF_PATH_CAPACITY];
    setenv("NEARFIELD_CACHE_DIR", "somewhere", 1);
    ck_assert(nf_env_cache_folder(path));
    ck_assert_str_eq(path, "somewhere");
    setenv("NEARFIELD_CACHE_DIR", "", 1);
    ck_assert(!nf_env_cache_folder(path));
    ck_assert_str_eq(path, "");
    unsetenv("NEARFIELD_CACHE_DIR");
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    setenv("HOME", "/h", 1);
    ck_assert(nf_env_cache_folder(path));
    ck_assert_str_eq(path, "/xdg/nearfield");
    setenv("XDG_CACHE_HOME", "not/absolute", 1);
    ck_assert(nf_env_cache_folder(path));
    ck_assert_str_eq(path, "/h/.cache/nearfield");
    unsetenv("HOME");
    ck_assert(!nf_env_cache_folder(path));
    ck_assert_str_eq(path, "");
}
END_TEST

static const struct {
    const char *name, *value, *message;
} malformed[] = {
    {"NEARFIELD_VERBOSE", "3", "NEARFIELD_VERBOSE '3' must be a number in 0..2"},
    {"NEARFIELD_VERBOSE", "-1", "NEARFIELD_VERBOSE '-1' must be a number in 0..2"},
    {"NEARFIELD_VERBOSE", "yes", "NEARFIELD_VERBOSE 'yes' must be a number in 0..2"},
    {"NEARFIELD_NUM_THREADS", "0", "NEARFIELD_NUM_THREADS '0' must be a number in 1..65536"},
    {"NEARFIELD_NUM_THREADS", "2 ", "NEARFIELD_NUM_THREADS '2 ' must be a number in 1..65536"},
    {"NEARFIELD_NUM_THREADS", "1e3", "NEARFIELD_NUM_THREADS '1e3' must be a number in 1..65536"},
    {"NEARFIELD_NUM_THREADS", "99999999999999999999999",
     "NEARFIELD_NUM_THREADS '99999999999999999999999' must be a number in 1..65536"},
    {"NEARFIELD_BACKEND", "cpuu", "NEARFIELD_BACKEND: 'cpuu' is no backend; the nearest is 'cpu'"},
    {"NEARFIELD_BACKEND", "-open", "NEARFIELD_BACKEND: 'open' is no backend; the nearest is 'opencl'"},
    {"NEARFIELD_BACKEND", "cpu,", "NEARFIELD_BACKEND: a backend name is missing"},
    {"NEARFIELD_BACKEND", "-", "NEARFIELD_BACKEND: a backend name is missing"},
    {"NEARFIELD_BACKEND", "cpu,-cpu", "NEARFIELD_BACKEND: 'cpu' is named twice"},
    {"NEARFIELD_ISA", "avx1024", "isa 'avx1024' is none of baseline, avx2, avx512, avx512bf16"},
};

START_TEST(malformed_values_are_errors)
{
    setenv(malformed[_i].name, malformed[_i].value, 1);
    nf_context *context = NULL;
    ck_assert_int_eq(nf_context_create(&context, NULL), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), malformed[_i].message);
    ck_assert_ptr_null(context);
}
END_TEST

START_TEST(unknown_names_warn_once)
{
    setenv("NEARFIELD_NUM_THREAD", "2", 1);
    setenv("NEARFIELD_BAKEND", "x", 1);
    setenv("NEARFIELD", "not ours", 1);
    log_book book = {.lines = 0};
    nf_context_destroy(fake_context(&book));
    ck_assert_int_eq(book.lines, 2);
    ck_assert_ptr_nonnull(strstr(book.text, "0 environment variable NEARFIELD_NUM_THREAD is unknown; the nearest is "
                                            "NEARFIELD_NUM_THREADS\n"));
    ck_assert_ptr_nonnull(
        strstr(book.text, "0 environment variable NEARFIELD_BAKEND is unknown; the nearest is NEARFIELD_BACKEND\n"));
}
END_TEST

START_TEST(options_beat_the_environment)
{
    setenv("NEARFIELD_NUM_THREADS", "3", 1);
    setenv("NEARFIELD_ISA", "baseline", 1);
    setenv("NEARFIELD_BACKEND", "nonsense", 1);
    setenv("NEARFIELD_DEVICE", "radeon", 1);
    nf_context_options options;
    nf_context_options_init(&options);
    options.num_threads = 5;
    options.backend = "cpu";
    options.device = "1";
    nf_context *context;
    ck_assert_msg(nf_context_create(&context, &options) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_context_threads(context), 5);
    ck_assert_str_eq(nf_context_isa(context), "baseline");
    ck_assert_str_eq(nf_context_device(context), "1");
    nf_context_destroy(context);
    unsetenv("NEARFIELD_BACKEND");
    options.num_threads = 0;
    options.device = "";
    options.isa = "avx2";
    ck_assert_int_eq(nf_context_create(&context, &options), NF_OK);
    ck_assert_int_eq(nf_context_threads(context), 3);
    ck_assert_str_eq(nf_context_isa(context), "avx2");
    ck_assert_str_eq(nf_context_device(context), "radeon");
    nf_context_destroy(context);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("env");
    tcase_add_checked_fixture(cases, clear_environment, clear_environment);
    tcase_add_test(cases, every_variable_has_a_paragraph);
    tcase_add_test(cases, describe_reports_its_length);
    tcase_add_test(cases, empty_is_unset);
    tcase_add_test(cases, cache_folder);
    tcase_add_loop_test(cases, malformed_values_are_errors, 0, sizeof malformed / sizeof malformed[0]);
    tcase_add_test(cases, unknown_names_warn_once);
    tcase_add_test(cases, options_beat_the_environment);
    Suite *suite = suite_create("env");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
