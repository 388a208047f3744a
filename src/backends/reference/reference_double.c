/* Attention in double. */
#define REAL double
#define REF(name) ref_double_##name
#define EXP exp
#define LOG log
#define MAX fmax
#include "backends/reference/reference_body.h"

const ref_arithmetic ref_double = {.name = "double",
                                   .real_bytes = sizeof(REAL),
                                   .pair_bytes = sizeof(REF(pair)),
                                   .forward = REF(forward),
                                   .backward = REF(backward)};
