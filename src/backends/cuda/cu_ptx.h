/* Instructions that no C++ operator names, one wrapper each, for the device. tests/cuda_host/cuda_host.h has a twin of
 * each for the host, on which the same kernels run in tests. */
#ifndef NF_CU_PTX_H
#define NF_CU_PTX_H

static __device__ __forceinline__ float cu_f32_of_f16(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

static __device__ __forceinline__ unsigned short cu_f16_of_f32(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

#endif
