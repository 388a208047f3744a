/* What every C test program needs around libcheck: one entry point, skips with a reason, and a countable last line. */
#ifndef NF_TESTS_HARNESS_H
#define NF_TESTS_HARNESS_H

#include <check.h>

/* Runs the suite (forking per test unless CK_FORK=no), prints "N passed, N failed, N skipped" as the last line, and
 * returns the program's exit status: 0 passed, 77 only skips, 1 failed or nothing ran. */
int nf_test_main(Suite *suite);

/* Records that the running test is skipped. Call it through NF_SKIP. */
void nf_test_skip(const char *test, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Inside a START_TEST body: prints "SKIP <test>: reason", counts the test as skipped and leaves it. */
#define NF_SKIP(...)                                                                                                   \
    do {                                                                                                               \
        nf_test_skip(__func__, __VA_ARGS__);                                                                           \
        return;                                                                                                        \
    } while (0)

#endif
