/* A fuzz target: what libFuzzer calls, and where its seeds are, for the replay in the quick suite. */
#ifndef NF_TESTS_FUZZ_H
#define NF_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Returns 0; aborts if an invariant breaks. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* The folder of seeds below tests/fuzz/corpus. */
extern const char nf_fuzz_corpus[];

#endif
