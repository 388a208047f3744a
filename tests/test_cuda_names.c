/* What src/backends/cuda/cu_names.h and cu_api.h declare is what NVIDIA's header declares, where that is installed:
 * constants have their values, entry points their parameters and symbols. */
#if __has_include(<cuda.h>)
#include <cuda.h>
#endif

#include <string.h>

#include "backends/cuda/cu_api.h"
#include "harness.h"

#ifdef CUDA_VERSION

#define SAME_VALUE(name, value) _Static_assert((int64_t)(name) == (int64_t)(value), #name);
#define SAME_TYPE(name, symbol, parameters)                                                                            \
    _Static_assert(_Generic(&name, CUresult(*) parameters : 1, default : 0), #name);
CU_CONSTANTS(SAME_VALUE)
CU_FUNCTIONS(SAME_TYPE)

/* Drivers before 12.8 have none but the first version of this. */
static const char first_version[] = "cuEventElapsedTime";

#define EXPANDED(name) #name
#define SAME_SYMBOL(name, symbol, parameters)                                                                          \
    ck_assert(strcmp(EXPANDED(name), symbol) == 0 || strcmp(symbol, first_version) == 0);

START_TEST(equal_the_header){CU_FUNCTIONS(SAME_SYMBOL)} END_TEST

#else

START_TEST(equal_the_header)
{
    NF_SKIP("there is no <cuda.h>");
}
END_TEST

#endif

    int main(void)
{
    TCase *cases = tcase_create("names");
    tcase_add_test(cases, equal_the_header);
    Suite *suite = suite_create("cuda_names");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
