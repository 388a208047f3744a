/* Run-time detection from CPUID and the registers the operating system saves (XCR0): a hypervisor or valgrind may hide
 * either. */
#include "backends/cpu/isa.h"

#include <stddef.h>
#include <string.h>

#include "config.h"
#include "core/status.h"

#if defined(__x86_64__)
#include <cpuid.h>

typedef struct cpuid_leaf {
    uint32_t a, b, c, d;
} cpuid_leaf;

static cpuid_leaf leaf(uint32_t function, uint32_t index)
{
    cpuid_leaf r = {0};
    if (!__get_cpuid_count(function, index, &r.a, &r.b, &r.c, &r.d))
        return (cpuid_leaf){0};
    return r;
}

static uint64_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

static void detect_x86(bool *avx2, bool *avx512, bool *avx512bf16)
{
    const uint64_t ymm = 0x6, zmm = 0xe6; /* XCR0: SSE and AVX; these and the three AVX-512 parts */
    const uint32_t osxsave = 1u << 27, avx = 1u << 28, fma = 1u << 12, f16c = 1u << 29;
    const uint32_t f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, avx2_bit = 1u << 5, bf16 = 1u << 5;
    const cpuid_leaf one = leaf(1, 0), seven = leaf(7, 0), seven_one = leaf(7, 1);
    const uint64_t saved = has(one.c, osxsave) ? saved_registers() : 0;
    *avx2 = (saved & ymm) == ymm && has(one.c, avx | fma | f16c) && has(seven.b, avx2_bit);
    *avx512 = *avx2 && (saved & zmm) == zmm && has(seven.b, f | dq | bw | vl);
    *avx512bf16 = *avx512 && has(seven_one.a, bf16);
}
#endif

void cpu_isa_detect(cpu_isa ladder[CPU_ISA_RUNGS])
{
    bool avx2 = false, avx512 = false, avx512bf16 = false;
#if defined(__x86_64__)
    detect_x86(&avx2, &avx512, &avx512bf16);
#endif
    ladder[0] = (cpu_isa){.name = "baseline", .f32 = &cpu_kernels_baseline_f32, .f64 = &cpu_kernels_baseline_f64,
                          .usable = true};
    ladder[1] = (cpu_isa){.name = "avx2", .usable = avx2};
    ladder[2] = (cpu_isa){.name = "avx512", .usable = avx512};
    ladder[3] = (cpu_isa){.name = "avx512bf16", .usable = avx512bf16};
#if defined(NF_HAVE_AVX2)
    ladder[1].f32 = &cpu_kernels_avx2_f32;
    ladder[1].f64 = &cpu_kernels_avx2_f64;
#endif
#if defined(NF_HAVE_AVX512)
    ladder[2].f32 = &cpu_kernels_avx512_f32;
    ladder[2].f64 = &cpu_kernels_avx512_f64;
#endif
#if defined(NF_HAVE_AVX512BF16)
    ladder[3].f32 = &cpu_kernels_avx512bf16_f32;
    ladder[3].f64 = &cpu_kernels_avx512bf16_f64;
    ladder[3].bf16 = &cpu_kernels_avx512bf16_bf16;
#endif
    for (int i = 0; i < CPU_ISA_RUNGS; i++)
        if (!ladder[i].bf16)
            ladder[i].bf16 = ladder[i].f32;
}

nf_status cpu_isa_choose(const cpu_isa ladder[CPU_ISA_RUNGS], const char *cap, const cpu_isa **chosen)
{
    int top = CPU_ISA_RUNGS - 1;
    if (cap) {
        while (top >= 0 && strcmp(ladder[top].name, cap) != 0)
            top--;
        if (top < 0)
            return nf_fail(NF_ERR_ARGUMENT, "isa '%s' is none of baseline, avx2, avx512, avx512bf16", cap);
    }
    while (!ladder[top].usable || !ladder[top].f32)
        top--;
    *chosen = &ladder[top];
    return NF_OK;
}
