/* What an open cpu backend knows. */
#ifndef NF_CPU_CPU_H
#define NF_CPU_CPU_H

#include "backends/cpu/isa.h"
#include "backends/cpu/tile.h"

/* Turns vector operations into seconds: a guess that only ranks algorithms. */
#define CPU_OPERATIONS_PER_SECOND 2e9

typedef struct cpu_state {
    cpu_isa ladder[CPU_ISA_RUNGS];
    const cpu_isa *isa; /* the rung in use */
} cpu_state;

/* The kernels that compute a problem of this element type. */
const cpu_kernels *cpu_kernels_for(const void *state, nf_dtype dtype);

#endif
