/* Attention in long double, for f64. */
#define REAL long double
#define REF(name) ref_long_double_##name
#define EXP expl
#define LOG logl
#define MAX fmaxl
#include "backends/reference/reference_body.h"

const ref_arithmetic ref_long_double = {.name = "long double",
                                        .real_bytes = sizeof(REAL),
                                        .pair_bytes = sizeof(REF(pair)),
                                        .forward = REF(forward),
                                        .backward = REF(backward)};
