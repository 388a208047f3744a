/* The cuda backend of a build without it. */
#include "core/backend.h"
#include "nearfield_cuda.h"

static const char reason[] = "disabled at build time";
static const nf_algorithm *const algorithms[] = {NULL};

const nf_backend nf_backend_cuda = {
    .name = "cuda",
    .summary = "NVIDIA GPUs through the CUDA driver",
    .preferred = true,
    .built_out = reason,
    .open = nf_stub_open,
    .close = nf_stub_close,
    .describe = nf_stub_describe,
    .device = nf_stub_device,
    .gpu = nf_stub_gpu,
    .peak = nf_stub_peak,
    .merge = nf_stub_merge,
    .algorithms = algorithms,
};

nf_status nf_cuda_use(nf_context *context, int device, struct CUstream_st *stream)
{
    (void)context;
    (void)device;
    (void)stream;
    return nf_fail(NF_ERR_UNAVAILABLE, "cuda is unavailable: %s", reason);
}
