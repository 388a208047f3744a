/* The opencl backend of a build without it. */
#include "core/backend.h"
#include "nearfield_opencl.h"

static const char reason[] = "disabled at build time";
static const nf_algorithm *const algorithms[] = {NULL};

const nf_backend nf_backend_opencl = {
    .name = "opencl",
    .summary = "any OpenCL 1.2 device",
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

nf_status nf_opencl_use(nf_context *context, struct _cl_context *cl, struct _cl_device_id *device,
                        struct _cl_command_queue *queue)
{
    (void)context;
    (void)cl;
    (void)device;
    (void)queue;
    return nf_fail(NF_ERR_UNAVAILABLE, "opencl is unavailable: %s", reason);
}
