/* Instruction sets: what the processor and the operating system allow, capped by the context. */
#ifndef NF_CPU_ISA_H
#define NF_CPU_ISA_H

#include "backends/cpu/kernels.h"

/* A rung of the ladder, lowest first. */
typedef struct cpu_isa {
    const char *name;
    const cpu_kernels *f32, *f64; /* NULL: not in this build */
    const cpu_kernels *bf16;      /* for bf16 problems; f32 if the rung has no better */
    bool usable;                  /* by this processor and operating system */
} cpu_isa;

enum { CPU_ISA_RUNGS = 4 };

/* Fills the ladder for this machine. */
void cpu_isa_detect(cpu_isa ladder[CPU_ISA_RUNGS]);

/* The highest built and usable rung not above cap (NULL: no cap). NF_ERR_ARGUMENT if cap names no rung, listing them. */
nf_status cpu_isa_choose(const cpu_isa ladder[CPU_ISA_RUNGS], const char *cap, const cpu_isa **chosen);

#endif
