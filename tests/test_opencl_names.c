/* What src/backends/opencl/cl_names.h and cl_api.h declare is what the Khronos headers declare, where those are
 * installed: constants have their values, types their types, entry points their parameters. */
#define CL_TARGET_OPENCL_VERSION 120
#if __has_include(<CL/cl.h>)
#include <CL/cl.h>
#endif

#include "backends/opencl/cl_api.h"
#include "harness.h"

#ifdef CL_VERSION_1_2

/* The headers name most constants by macros. */
#define SAME_VALUE(name, value) _Static_assert((int64_t)(name) == (int64_t)(value), #name);
#define SAME_TYPE(type, name, parameters) _Static_assert(_Generic(&name, type(*) parameters : 1, default : 0), #name);
CL_CONSTANTS(SAME_VALUE)
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
CL_FUNCTIONS(SAME_TYPE)

START_TEST(equal_the_headers)
{
    ck_assert_str_eq(cl_error_name(CL_OUT_OF_RESOURCES), "CL_OUT_OF_RESOURCES");
}
END_TEST

#else

START_TEST(equal_the_headers)
{
    NF_SKIP("there is no <CL/cl.h>");
}
END_TEST

#endif

START_TEST(unknown_errors_have_a_name)
{
    ck_assert_str_eq(cl_error_name(0), "CL_SUCCESS");
    ck_assert_str_eq(cl_error_name(7), "an unknown error");
    ck_assert_str_eq(cl_error_name(-9999), "an unknown error");
    ck_assert_str_eq(cl_error_name(INT32_MIN), "an unknown error");
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("names");
    tcase_add_test(cases, equal_the_headers);
    tcase_add_test(cases, unknown_errors_have_a_name);
    Suite *suite = suite_create("opencl_names");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
