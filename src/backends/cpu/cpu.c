/* The cpu backend: OpenMP across work items, one instruction set chosen when the context is created. */
#include "backends/cpu/cpu.h"

#include "backends/cpu/naive.h"
#include "backends/cpu/stencil.h"
#include "backends/cpu/unfused.h"
#include "core/context.h"
#include "core/mem.h"

const cpu_kernels *cpu_kernels_for(const void *state, nf_dtype dtype)
{
    const cpu_state *cpu = state;
    return dtype == NF_F64 ? cpu->isa->f64 : dtype == NF_BF16 ? cpu->isa->bf16 : cpu->isa->f32;
}

static nf_status cpu_open(const nf_context *context, void **state)
{
    cpu_state *cpu = nf_alloc_array(context, 1, sizeof *cpu);
    if (!cpu)
        return NF_ERR_MEMORY;
    cpu_isa_detect(cpu->ladder);
    const nf_status status = cpu_isa_choose(cpu->ladder, nf_context_isa(context), &cpu->isa);
    if (status != NF_OK) {
        nf_release(context, cpu);
        return status;
    }
    *state = cpu;
    return NF_OK;
}

static void cpu_close(const nf_context *context, void *state)
{
    nf_release(context, state);
}

static void cpu_describe(const void *state, nf_text *text)
{
    const cpu_state *cpu = state;
    nf_text_printf(text, "  instruction sets:");
    for (int i = 0; i < CPU_ISA_RUNGS; i++)
        nf_text_printf(text, " %s (%s)", cpu->ladder[i].name,
                       !cpu->ladder[i].f32      ? "not in this build"
                       : !cpu->ladder[i].usable ? "not on this machine"
                       : &cpu->ladder[i] == cpu->isa ? "in use" : "available");
    nf_text_printf(text, "\n");
#if defined(_OPENMP)
    nf_text_printf(text, "  threads: OpenMP\n");
#else
    nf_text_printf(text, "  threads: one, built without OpenMP\n");
#endif
}

static const nf_algorithm *const algorithms[] = {&cpu_algorithm_stencil, &cpu_algorithm_tile, &cpu_algorithm_unfused,
                                                &cpu_algorithm_naive, NULL};

const nf_backend nf_backend_cpu = {
    .name = "cpu",
    .summary = "OpenMP and SIMD on the host",
    .preferred = true,
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .device = nf_stub_device,
    .gpu = nf_stub_gpu,
    .peak = nf_stub_peak,
    .merge = nf_stub_merge,
    .algorithms = algorithms,
};
