/* A device's limits, measured: launches of cu_peak.cu and cu_wgmma_peak.h, timed by events. */
#include "backends/cuda/cu.h"

enum {
    THREADS = 256,
    BLOCKS_PER_UNIT = 4,
    WARP = 32,
    WARPGROUP = 128,
    MOST_ROUNDS = 1 << 24,
    TRIALS = 5,
    STREAM_PARTS = 8, /* of the device's memory, one is streamed, */
};
static const int64_t stream_bytes_per_unit = 4 << 20; /* or so much, many times what caches hold */
static const double least_seconds = 5e-3;

/* A loop, and what one round of one thread of it is worth: cu_peak.cu, SUMS and TILES, and cu_wgmma_peak.h. */
typedef struct peak_loop {
    const char *kernel, *basis;
    double flops;
    int64_t first_rounds;
    unsigned shared;
    const char *options; /* of the program; NULL: cu_peak.cu's */
} peak_loop;

static const peak_loop loops[] = {
    [NF_F32] = {.kernel = "peak_f32", .basis = "f32 multiply-adds", .flops = 2.0 * 16, .first_rounds = 64},
    [NF_F64] = {.kernel = "peak_f64", .basis = "f64 multiply-adds", .flops = 2.0 * 16, .first_rounds = 64},
    [NF_BF16] = {.kernel = "peak_bf16",
                 .basis = "mma.sync bf16",
                 .flops = 2.0 * 16 * 8 * 16 * 8 / WARP,
                 .first_rounds = 64},
    [NF_F16] = {.kernel = "peak_f16",
                .basis = "mma.sync f16",
                .flops = 2.0 * 16 * 8 * 16 * 8 / WARP,
                .first_rounds = 64},
};
#define WARPGROUP_FLOPS (2.0 * 64 * 128 * 16 * 16 / WARPGROUP)
static const peak_loop warpgroup_loops[] = {
    [NF_BF16] = {"wgmma_peak", "wgmma bf16", WARPGROUP_FLOPS, 4, 32 << 10, "-DWGMMA=1 -DIN_TYPE=2 -DDIMS=64"},
    [NF_F16] = {"wgmma_peak", "wgmma f16", WARPGROUP_FLOPS, 4, 32 << 10, "-DWGMMA=1 -DIN_TYPE=3 -DDIMS=64"},
};

typedef struct measurer {
    cu_state *state;
    const cu_api *api;
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
    unsigned shared;
    int64_t rounds;
} timed_launch;

static nf_status launch(void *data)
{
    timed_launch *l = data;
    CUdeviceptr results = l->m->results, source = l->m->data;
    void *arguments[] = {&results, &l->rounds, &source};
    const CUresult error = l->m->api->cuLaunchKernel(l->kernel, l->m->blocks, 1, 1, THREADS, 1, 1, l->shared,
                                                     l->m->stream, arguments, NULL);
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

static nf_status find_kernel(timed_launch *l, const char *options, const char *name)
{
    CUmodule module;
    const nf_status status = cu_state_module(l->m->state, options ? options : "-DPEAK=1", &module);
    if (status != NF_OK)
        return status;
    const CUresult error = l->m->api->cuModuleGetFunction(&l->kernel, module, name);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(l->m->api, error, "cuda: kernel %s", name);
}

/* As many rounds as take long enough. */
static nf_status measure_flops(const measurer *m, const peak_loop *loop, double *flops)
{
    timed_launch l = {.m = m, .rounds = loop->first_rounds, .shared = loop->shared};
    double seconds = 0;
    nf_status status = find_kernel(&l, loop->options, loop->kernel);
    while (status == NF_OK && (status = cu_time(m->api, m->stream, launch, &l, &seconds)) == NF_OK &&
           seconds < least_seconds && l.rounds < MOST_ROUNDS)
        l.rounds *= 2;
    if (status == NF_OK)
        status = best_of(&l, &seconds);
    if (status == NF_OK)
        *flops = loop->flops * (double)l.rounds * THREADS * m->blocks / seconds;
    return status;
}

static nf_status measure_bandwidth(const measurer *m, double *bandwidth)
{
    timed_launch l = {.m = m, .rounds = stream_bytes(m) / 16};
    double seconds = 0;
    nf_status status = find_kernel(&l, NULL, "peak_stream");
    if (status == NF_OK)
        status = best_of(&l, &seconds);
    if (status == NF_OK)
        *bandwidth = (double)stream_bytes(m) / seconds;
    return status;
}

static const peak_loop *find_loop(const measurer *m, nf_dtype dtype)
{
    const bool narrow = dtype == NF_BF16 || dtype == NF_F16;
    return narrow && cu_used_device(m->state)->limits.warpgroups ? &warpgroup_loops[dtype] : &loops[dtype];
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
        status = measure_flops(&m, find_loop(&m, dtype), &peak->flops);
    if (status == NF_OK)
        status = measure_bandwidth(&m, &peak->bandwidth);
    peak->basis = find_loop(&m, dtype)->basis;
    close_all(&m);
    cu_leave(m.state);
    return status;
}
