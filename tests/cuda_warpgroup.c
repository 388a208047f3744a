/* cuda_warpgroup [WITHOUT [IMAGE]] - launches the kernel of cuda_host/warpgroup.cu on libcuda.so.1, with a part left
 * out (0: none), and compares. Says "wrong" or what fails, and exits with 1. IMAGE: a file of nvcc's, for a GPU. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/cuda/cu_api.h"
#include "core/dtype.h"

enum {
    QUERIES = 64,
    KEYS = 128,
    WIDTH = 128,
    LINE_NUMBERS = 64,
    STEPS = 5,
    DILATION = 2,
    ROWS = STEPS * KEYS * DILATION - 500, /* the last step has some of none */
    FIRST = -4 * DILATION,                /* and so has the first */
    BLOCKS = 2,
    SHARED = 2 * 65536 + 16384 + 64,
    THREADS = 256,
    FIRST_VALUES = 3
};

static cu_api api;

static void must(CUresult error, const char *what)
{
    if (error == CUDA_SUCCESS)
        return;
    printf("%s: %s\n", what, cu_error_name(&api, error));
    exit(1);
}

static float number(long index)
{
    return (float)(index * 7919 % 61 - 30) / 32;
}

/* Row x width numbers, 2-dimensional on the device. */
static void map_rows(CUtensorMap *map, CUdeviceptr memory, int rows, int box_rows, int step)
{
    const cuuint64_t extents[] = {WIDTH, (cuuint64_t)rows, 1, 1, 1};
    const cuuint64_t row = WIDTH * sizeof(uint16_t), strides[] = {row, row, row, row};
    const cuuint32_t box[] = {LINE_NUMBERS, (cuuint32_t)(box_rows * step), 1, 1, 1};
    const cuuint32_t steps[] = {1, (cuuint32_t)step, 1, 1, 1};
    must(api.cuTensorMapEncodeTiled(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 5, (void *)(uintptr_t)memory, extents, strides,
                                    box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
         "cuTensorMapEncodeTiled");
}

static uint16_t q[QUERIES][WIDTH], k[ROWS][WIDTH], v[ROWS][WIDTH];
static float out[BLOCKS][QUERIES][WIDTH];

static void fill(uint16_t *numbers, size_t count, long seed)
{
    for (size_t i = 0; i < count; i++)
        numbers[i] = nf_f32_to_bf16(number((long)i + seed));
}

static void add_expected(float sums[WIDTH], int query, int row)
{
    float score = 0;
    for (int j = 0; j < WIDTH; j++)
        score += nf_bf16_to_f32(q[query][j] & 0xfff0) * nf_bf16_to_f32(k[row][j]);
    for (int j = 0; j < WIDTH; j++)
        sums[j] += nf_bf16_to_f32(nf_f32_to_bf16(score)) * nf_bf16_to_f32(v[row][j]);
}

static int count_wrong(void)
{
    int wrong = 0;
    for (int i = 0; i < QUERIES; i++) {
        float truth[WIDTH] = {0};
        for (int row = FIRST; row < FIRST + STEPS * KEYS * DILATION; row += DILATION)
            if (row >= 0 && row < ROWS)
                add_expected(truth, i, row);
        for (int block = 0; block < BLOCKS; block++)
            for (int j = 0; j < WIDTH; j++)
                wrong += !(fabsf(out[block][i][j] - truth[j]) <= 1e-4F * (1 + fabsf(truth[j])));
    }
    return wrong;
}

static CUdeviceptr upload(const void *from, size_t bytes, CUstream stream)
{
    CUdeviceptr memory = 0;
    must(api.cuMemAlloc(&memory, bytes), "cuMemAlloc");
    must(api.cuMemcpyHtoDAsync(memory, from, bytes, stream), "cuMemcpyHtoDAsync");
    return memory;
}

static void launch(CUfunction kernel, CUstream stream, long long without)
{
    CUtensorMap maps[FIRST_VALUES];
    long long first = FIRST, step = DILATION * KEYS, steps = STEPS;
    fill(q[0], QUERIES * WIDTH, 1);
    fill(k[0], ROWS * WIDTH, 2);
    fill(v[0], ROWS * WIDTH, 3);
    CUdeviceptr memory[] = {upload(q, sizeof q, stream), upload(k, sizeof k, stream), upload(v, sizeof v, stream),
                            upload(out, sizeof out, stream)};
    map_rows(&maps[0], memory[0], QUERIES, QUERIES, 1);
    map_rows(&maps[1], memory[1], ROWS, KEYS, DILATION);
    map_rows(&maps[2], memory[2], ROWS, KEYS, DILATION);
    void *arguments[] = {&maps[0], &maps[1], &maps[2], &memory[3], &first, &step, &steps, &without};
    must(api.cuFuncSetAttribute(kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, SHARED), "cuFuncSetAttribute");
    must(api.cuLaunchKernel(kernel, BLOCKS, 1, 1, THREADS, 1, 1, SHARED, stream, arguments, NULL), "cuLaunchKernel");
    must(api.cuMemcpyDtoHAsync(out, memory[3], sizeof out, stream), "cuMemcpyDtoHAsync");
    must(api.cuStreamSynchronize(stream), "cuStreamSynchronize");
    for (int i = 0; i < 4; i++)
        must(api.cuMemFree(memory[i]), "cuMemFree");
}

static const char *read_image(const char *path)
{
    static char image[1 << 20];
    FILE *file = fopen(path, "rb");
    if (!file || fread(image, 1, sizeof image, file) == 0) {
        perror(path);
        exit(1);
    }
    fclose(file);
    return image;
}

int main(int count, char **words)
{
    CUdevice device = 0;
    CUcontext context = NULL;
    CUmodule module = NULL;
    CUfunction kernel = NULL;
    CUstream stream = NULL;
    const char *image = count > 2 ? read_image(words[2]) : "host image warpgroup";
    if (cu_api_load(&api) != NF_OK)
        return 1;
    must(api.cuInit(0), "cuInit");
    must(api.cuDeviceGet(&device, 0), "cuDeviceGet");
    must(api.cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    must(api.cuCtxPushCurrent(context), "cuCtxPushCurrent");
    must(api.cuModuleLoadData(&module, image), "cuModuleLoadData");
    must(api.cuModuleGetFunction(&kernel, module, "attend"), "cuModuleGetFunction");
    must(api.cuStreamCreate(&stream, 1), "cuStreamCreate");
    launch(kernel, stream, count > 1 ? atol(words[1]) : 0);
    const int wrong = count_wrong();
    if (wrong)
        printf("wrong: %d\n", wrong);
    must(api.cuStreamDestroy(stream), "cuStreamDestroy");
    must(api.cuModuleUnload(module), "cuModuleUnload");
    must(api.cuCtxPopCurrent(&context), "cuCtxPopCurrent");
    must(api.cuDevicePrimaryCtxRelease(device), "cuDevicePrimaryCtxRelease");
    return wrong != 0;
}
