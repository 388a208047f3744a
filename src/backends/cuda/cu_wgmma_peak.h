/* What tensor cores do at most by products of warpgroups: a loop of them, as cu_peak.cu has of other instructions. */
#ifndef NF_CU_WGMMA_PEAK_H
#define NF_CU_WGMMA_PEAK_H

#if DIMS == 64 /* cu_peak.c loads no others */

enum {
    PEAK_PRODUCTS = 16,
    PEAK_ROW_BYTES = GROUP_ROWS * LINE_BYTES,
    PEAK_BYTES = GROUPS * PEAK_ROW_BYTES + PART_BYTES
};
static_assert(PEAK_BYTES == 32 << 10, "cu_peak.c, too");

/* Numbers near 1, all different: tensor cores are faster, and cooler, on zeros. */
static void fill_lines(cu_address first, int bytes)
{
    for (int i = (int)threadIdx.x; i < bytes / 16; i += CONSUMERS) {
        uint words[4];
        UNROLLED(int w = 0; w < 4; w++) words[w] = ((uint)(4 * i + w) * 2654435761u & 0x007f007fu) | 0x3f003f00u;
        cu_store_16(first + i * 16, words);
    }
    cu_fence_async();
    __syncthreads();
}

KERNEL __launch_bounds__(CONSUMERS, 1) void wgmma_peak(float *results, long rounds)
{
    const cu_address memory = query_lines(0), columns = memory + GROUPS * PEAK_ROW_BYTES;
    float s[STEP / 8][4] = {}, result = 0;
    fill_lines(memory, PEAK_BYTES);
    const cu_lines a = find_lines(memory + GROUP * PEAK_ROW_BYTES, 0), b = find_lines(columns, 0);
    for (long r = 0; r < rounds; r++) {
        cu_wgmma_begin();
        UNROLLED(int i = 0; i < PEAK_PRODUCTS; i++)
        {
            const int at = i * UNIT % PART_DIMS * 2;
            MULTIPLY_LINES(s, lines_on(a, at), lines_on(b, at), true);
        }
        cu_wgmma_commit();
        cu_wgmma_wait<0>();
        cu_wgmma_hold(s);
    }
    EACH_EIGHT(j, STEP) result += s[j][0] + s[j][1] + s[j][2] + s[j][3];
    results[blockIdx.x * blockDim.x + threadIdx.x] = result;
}

#define WGMMA_PEAK_KERNELS(X) X(wgmma_peak)

#else
#define WGMMA_PEAK_KERNELS(X)
#endif

#endif
