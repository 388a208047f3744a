/* Words of problem strings that reading and writing share. */
#ifndef NF_CORE_PROBLEM_TEXT_H
#define NF_CORE_PROBLEM_TEXT_H

#include "nearfield.h"

enum { NF_PROBLEM_CAPACITY = 1024 }; /* holds any canonical string: some 40 numbers of 20 digits */

/* "fwd", "bwd" or "both". */
const char *nf_direction_name(nf_direction direction);

#endif
