/* The cuda backend's entry in the registry, and the way in for a program's own device and stream. */
#include "backends/cuda/cu.h"
#include "core/context.h"
#include "core/mem.h"
#include "nearfield_cuda.h"

/* ---- State ------------------------------------------------------------------------------------------------------- */

static void close_state(const nf_context *context, void *opened)
{
    cu_state *state = opened;
    cu_state_release(state);
    nf_release(context, state->modules);
    cu_devices_release(&state->list, context);
    pthread_mutex_destroy(&state->lock);
    nf_release(context, state);
}

static nf_status fill_state(cu_state *state)
{
    nf_status status = cu_api_load(&state->api);
    if (status == NF_OK)
        status = cu_devices_find(&state->list, state->context, &state->api);
    if (status != NF_OK)
        return status;
    state->modules = nf_alloc_array(state->context, (size_t)cu_images.count, sizeof(CUmodule));
    return state->modules ? NF_OK : NF_ERR_MEMORY;
}

/* The driver runs and its devices are known; none is in use yet. */
static nf_status begin_state(const nf_context *context, cu_state **state)
{
    if (cu_images.absent)
        return nf_fail(NF_ERR_UNAVAILABLE, "%s", cu_images.absent);
    cu_state *made = nf_alloc_array(context, 1, sizeof *made);
    if (!made)
        return NF_ERR_MEMORY;
    made->context = context;
    pthread_mutex_init(&made->lock, NULL);
    const nf_status status = fill_state(made);
    if (status != NF_OK) {
        close_state(context, made);
        return status;
    }
    *state = made;
    return NF_OK;
}

static nf_status open_devices(const nf_context *context, void **state)
{
    cu_state *made;
    nf_status status = begin_state(context, &made);
    if (status != NF_OK)
        return status;
    status = cu_devices_choose(&made->list, nf_context_device(context), &made->used);
    if (status != NF_OK) {
        close_state(context, made);
        return status;
    }
    *state = made;
    return NF_OK;
}

/* ---- A program's own stream -------------------------------------------------------------------------------------- */

static nf_status check_stream(const cu_state *state, CUstream stream)
{
    CUcontext owner = NULL;
    const CUresult error = state->api.cuStreamGetCtx(stream, &owner);
    if (error != CUDA_SUCCESS)
        return nf_fail(NF_ERR_ARGUMENT, "stream: is no CUstream: %s", cu_error_name(&state->api, error));
    if (owner != state->cu)
        return nf_fail(NF_ERR_ARGUMENT, "stream: belongs to another context than the primary one of the device");
    return NF_OK;
}

static nf_status take_objects(cu_state *state, int device, CUstream stream)
{
    if (device < 0 || device >= state->list.count)
        return nf_fail(NF_ERR_ARGUMENT, "device: %d must be in 0..%d", device, state->list.count - 1);
    if (*state->list.devices[device].unusable)
        return nf_fail(NF_ERR_UNAVAILABLE, "%s cannot be used: %s", state->list.devices[device].name,
                       state->list.devices[device].unusable);
    state->used = device;
    nf_status status = cu_enter(state);
    if (status != NF_OK)
        return status;
    if (stream)
        status = check_stream(state, stream);
    cu_leave(state);
    state->stream = stream;
    return status;
}

nf_status nf_cuda_use(nf_context *context, int device, CUstream stream)
{
    if (!context)
        return nf_fail(NF_ERR_ARGUMENT, "context: NULL");
    cu_state *state;
    nf_status status = begin_state(context, &state);
    if (status != NF_OK)
        return status;
    status = take_objects(state, device, stream);
    if (status == NF_OK)
        status = nf_context_adopt(context, &nf_backend_cuda, state);
    if (status != NF_OK)
        close_state(context, state);
    return status;
}

/* ---- Entry ------------------------------------------------------------------------------------------------------- */

static void describe(const void *opened, nf_text *text)
{
    const cu_state *state = opened;
    nf_text_printf(text, "  kernels: %d images, made by CUDA %d.%d, for compute capability %d.%d and later%s\n",
                   cu_images.count, cu_images.toolkit / 1000, cu_images.toolkit % 1000 / 10,
                   cu_images.least_capability / 10, cu_images.least_capability % 10,
                   cu_images.warpgroups ? "; of warpgroups for 9.0" : "");
    cu_devices_describe(&state->list, state->used, text);
}

static const char *device_name(const void *opened, int index)
{
    const cu_state *state = opened;
    return index < state->list.count ? state->list.devices[index].name : NULL;
}

static bool uses_gpu(const void *opened)
{
    (void)opened;
    return true;
}

static const nf_algorithm *const algorithms[] = {&cu_wgmma, &cu_mma, &cu_portable, &cu_unfused, &cu_naive, NULL};

const nf_backend nf_backend_cuda = {
    .name = "cuda",
    .summary = "NVIDIA GPUs through the CUDA driver",
    .preferred = true,
    .open = open_devices,
    .close = close_state,
    .describe = describe,
    .device = device_name,
    .gpu = uses_gpu,
    .peak = cu_peak,
    .memory = NF_CUDA,
    .merge = cu_merge,
    .algorithms = algorithms,
};
