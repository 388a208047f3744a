/* Counting around libcheck, which knows no skipped tests. */
#include "harness.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { EXIT_SKIPPED = 77 };

/* Shared with the forked tests. */
static int *skips;

/* libcheck reads its timeout when a test case is made, which is before nf_test_main; its 4 s are too few for a busy
 * machine. */
__attribute__((constructor)) static void set_patience(void)
{
    setenv("CK_DEFAULT_TIMEOUT", "300", 0);
}

void nf_test_skip(const char *test, const char *format, ...)
{
    /* START_TEST(name) makes a function called name_fn. */
    const size_t length = strlen(test);
    const int suffix = length > 3 && strcmp(test + length - 3, "_fn") == 0 ? 3 : 0;
    printf("SKIP %.*s: ", (int)length - suffix, test);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
    if (skips)
        ++*skips;
}

int nf_test_main(Suite *suite)
{
    skips = mmap(NULL, sizeof *skips, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (skips == MAP_FAILED) {
        perror("mmap");
        return EXIT_FAILURE;
    }
    SRunner *runner = srunner_create(suite);
    fflush(stdout);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner), skipped = *skips;
    const int passed = srunner_ntests_run(runner) - failed - skipped;
    srunner_free(runner);
    munmap(skips, sizeof *skips);
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    if (failed || passed + skipped == 0)
        return EXIT_FAILURE;
    return passed ? EXIT_SUCCESS : EXIT_SKIPPED;
}
