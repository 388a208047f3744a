/* A device's limits, measured: launches of cu_peak.cu, timed by events. */
#include "backends/cuda/cu.h"

enum {
    THREADS = 256,
    BLOCKS_PER_UNIT = 4,
    WARP = 32,
    FIRST_ROUNDS = 64,
    MOST_ROUNDS = 1 << 24,
    TRIALS = 5,
    STREAM_PARTS = 8, /* of the device's memory, one is streamed, */
};
static const int64_t stream_bytes_per_unit = 4 << 20; /* or so much, many times what caches hold */
static const double least_seconds = 5e-3;

/* What one round of one thread of a loop is worth: cu_peak.cu, SUMS and TILES. */
static const struct {
    const char *kernel, *basis;
    double flops;
} loops[] = {
    [NF_F32] = {"peak_f32", "f32 multiply-adds", 2.0 * 16},
    [NF_F64] = {"peak_f64", "f64 multiply-adds", 2.0 * 16},
    [NF_BF16] = {"peak_bf16", "mma.sync bf16", 2.0 * 16 * 8 * 16 * 8 / WARP},
    [NF_F16] = {"peak_f16", "mma.sync f16", 2.0 * 16 * 8 * 16 * 8 / WARP},
};

typedef struct measurer {
    cu_state *state;
    const cu_api *api;
    CUmodule module;
    CUstream stream;
    CUdeviceptr results, data;
    unsigned blocks;
} measurer;

static int64_t stream_bytes(const measurer *m)
{
    const gpu_device *device = &cu_used_device(m->state)->limits;
    return nf_min64(device->buffer_bytes / STREAM_PARTS, device->units * stream_bytes_per_unit) / 16 * 16;
}

static nf_status open(measurer *m)
{
    const gpu_plan plan = {.options = "-DPEAK=1"};
    const nf_status status = cu_state_module(m->state, &plan, &m->module);
    if (status != NF_OK)
        return status;
    m->blocks = (unsigned)(nf_max64(cu_used_device(m->state)->limits.units, 1) * BLOCKS_PER_UNIT);
    CUresult error = m->api->cuStreamCreate(&m->stream, CU_STREAM_DEFAULT);
    if (error == CUDA_SUCCESS)
        error = m->api->cuMemAlloc(&m->results, (size_t)m->blocks * THREADS * sizeof(double));
    if (error == CUDA_SUCCESS)
        error = m->api->cuMemAlloc(&m->data, (size_t)stream_bytes(m));
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(m->api, error, "cuda: no memory to measure the device with");
}

static void close_all(measurer *m)
{
    if (m->data)
        m->api->cuMemFree(m->data);
    if (m->results)
        m->api->cuMemFree(m->results);
    if (m->stream)
        m->api->cuStreamDestroy(m->stream);
}

typedef struct timed_launch {
    const measurer *m;
    CUfunction kernel;
    int64_t rounds;
} timed_launch;

static nf_status launch(void *data)
{
    timed_launch *l = data;
    CUdeviceptr results = l->m->results, source = l->m->data;
    void *arguments[] = {&results, &l->rounds, &source};
    const CUresult error =
        l->m->api->cuLaunchKernel(l->kernel, l->m->blocks, 1, 1, THREADS, 1, 1, 0, l->m->stream, arguments, NULL);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(l->m->api, error, "cuda: a kernel that measures the device");
}

static nf_status best_of(timed_launch *l, double *seconds)
{
    nf_status status = NF_OK;
    *seconds = 0;
    for (int i = 0; status == NF_OK && i < TRIALS; i++) {
        double once;
        status = cu_time(l->m->api, l->m->stream, launch, l, &once);
        if (status == NF_OK && (i == 0 || once < *seconds))
            *seconds = once;
    }
    return status;
}

static nf_status find_kernel(timed_launch *l, const char *name)
{
    const CUresult error = l->m->api->cuModuleGetFunction(&l->kernel, l->m->module, name);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(l->m->api, error, "cuda: kernel %s", name);
}

/* As many rounds as take long enough. */
static nf_status measure_flops(const measurer *m, nf_dtype dtype, double *flops)
{
    timed_launch l = {.m = m, .rounds = FIRST_ROUNDS};
    double seconds = 0;
    nf_status status = find_kernel(&l, loops[dtype].kernel);
    while (status == NF_OK && (status = cu_time(m->api, m->stream, launch, &l, &seconds)) == NF_OK &&
           seconds < least_seconds && l.rounds < MOST_ROUNDS)
        l.rounds *= 2;
    if (status == NF_OK)
        status = best_of(&l, &seconds);
    if (status == NF_OK)
        *flops = loops[dtype].flops * (double)l.rounds * THREADS * m->blocks / seconds;
    return status;
}

static nf_status measure_bandwidth(const measurer *m, double *bandwidth)
{
    timed_launch l = {.m = m, .rounds = stream_bytes(m) / 16};
    double seconds = 0;
    nf_status status = find_kernel(&l, "peak_stream");
    if (status == NF_OK)
        status = best_of(&l, &seconds);
    if (status == NF_OK)
        *bandwidth = (double)stream_bytes(m) / seconds;
    return status;
}

nf_status cu_peak(const void *opened, nf_dtype dtype, nf_peak *peak)
{
    measurer m = {.state = (cu_state *)opened};
    m.api = &m.state->api;
    nf_status status = cu_enter(m.state);
    if (status != NF_OK)
        return status;
    status = open(&m);
    if (status == NF_OK)
        status = measure_flops(&m, dtype, &peak->flops);
    if (status == NF_OK)
        status = measure_bandwidth(&m, &peak->bandwidth);
    peak->basis = loops[dtype].basis;
    close_all(&m);
    cu_leave(m.state);
    return status;
}
