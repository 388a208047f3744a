/* Neighborhood attention on a program's own CUDA memory and stream: nothing is copied to the host and back, and nothing
 * waits before the program does.
 *
 *     cc cuda.c $(pkg-config --cflags --libs nearfield) -I/usr/local/cuda/include -lcuda -o cuda
 *
 * With the CUDA runtime cudaMalloc, cudaMemcpyAsync and a cudaStream_t do as well.
 */
#include <cuda.h>
#include <nearfield_cuda.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEIGHT = 8, WIDTH = 8, HEADS = 2, DIM = 4, VALUE_DIM = 3, TOKENS = HEIGHT * WIDTH, ORDINAL = 0 };

static void require(nf_status status)
{
    if (status != NF_OK) {
        fprintf(stderr, "%s\n%s\n", nf_status_string(status), nf_last_error());
        exit(EXIT_FAILURE);
    }
}

static void require_cuda(CUresult error)
{
    if (error != CUDA_SUCCESS) {
        fprintf(stderr, "CUDA error %d\n", (int)error);
        exit(EXIT_FAILURE);
    }
}

static nf_tensor in_memory(const nf_problem *problem, nf_role role, CUdeviceptr memory)
{
    nf_tensor tensor;
    require(nf_problem_tensor(problem, role, &tensor));
    tensor.memory = NF_CUDA;
    tensor.data = (void *)(uintptr_t)memory;
    return tensor;
}

int main(void)
{
    CUdevice device;
    CUcontext primary;
    CUstream stream;
    CUdeviceptr qk, v, result;
    require_cuda(cuInit(0));
    require_cuda(cuDeviceGet(&device, ORDINAL));
    require_cuda(cuDevicePrimaryCtxRetain(&primary, device));
    require_cuda(cuCtxPushCurrent(primary));
    require_cuda(cuStreamCreate(&stream, CU_STREAM_DEFAULT));

    /* Queries and keys are zeros, so that each query averages the values it sees; channel 0 of those is their row. */
    static float zeros[TOKENS * HEADS * DIM], values[TOKENS][HEADS][VALUE_DIM], out[TOKENS][HEADS][VALUE_DIM];
    for (int token = 0; token < TOKENS; token++)
        for (int head = 0; head < HEADS; head++)
            values[token][head][0] = (float)(token / WIDTH);
    require_cuda(cuMemAlloc(&qk, sizeof zeros));
    require_cuda(cuMemAlloc(&v, sizeof values));
    require_cuda(cuMemAlloc(&result, sizeof out));

    nf_problem problem;
    nf_context *context;
    nf_plan *plan;
    require(nf_problem_parse(&problem, "na2d f32 h2 d4/3 8x8 w3"));
    require(nf_context_create(&context, NULL));
    require(nf_cuda_use(context, ORDINAL, stream));

    const nf_tensor tensor_q = in_memory(&problem, NF_Q, qk);
    const nf_tensor tensor_k = in_memory(&problem, NF_K, qk);
    const nf_tensor tensor_v = in_memory(&problem, NF_V, v);
    const nf_tensor tensor_out = in_memory(&problem, NF_OUT, result);
    nf_io io;
    nf_plan_options options;
    nf_io_init(&io);
    io.q = &tensor_q, io.k = &tensor_k, io.v = &tensor_v, io.out = &tensor_out;
    nf_plan_options_init(&options);
    options.layout = &io;
    require(nf_plan_create(&plan, context, &problem, &options));

    /* In the order of the stream. */
    require_cuda(cuMemcpyHtoDAsync(qk, zeros, sizeof zeros, stream));
    require_cuda(cuMemcpyHtoDAsync(v, values, sizeof values, stream));
    require(nf_forward(plan, &io, NULL));
    require_cuda(cuMemcpyDtoHAsync(out, result, sizeof out, stream));
    require_cuda(cuStreamSynchronize(stream));
    printf("row 0: %.3f  row 1: %.3f  row 4: %.3f  row 7: %.3f\n", (double)out[0][0][0], (double)out[WIDTH + 5][1][0],
           (double)out[4 * WIDTH + 3][0][0], (double)out[7 * WIDTH + 7][1][0]);
    const float deviation = out[0][0][0] - 1.0f;

    nf_plan_destroy(plan);
    nf_context_destroy(context);
    require_cuda(cuMemFree(result));
    require_cuda(cuMemFree(v));
    require_cuda(cuMemFree(qk));
    require_cuda(cuStreamDestroy(stream));
    require_cuda(cuCtxPopCurrent(&primary));
    require_cuda(cuDevicePrimaryCtxRelease(device));
    return deviation > -1e-6f && deviation < 1e-6f ? EXIT_SUCCESS : EXIT_FAILURE;
}
