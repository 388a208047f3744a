/* The primary context of the device, which a program's CUDA runtime uses, too, and the images loaded in it. */
#include <string.h>

#include "backends/cuda/cu.h"
#include "core/log.h"

static nf_status retain(cu_state *state)
{
    pthread_mutex_lock(&state->lock);
    CUresult error = CUDA_SUCCESS;
    if (!state->cu)
        error = state->api.cuDevicePrimaryCtxRetain(&state->cu, cu_used_device(state)->id);
    if (error != CUDA_SUCCESS)
        state->cu = NULL;
    pthread_mutex_unlock(&state->lock);
    return error == CUDA_SUCCESS ? NF_OK
                                 : cu_fail(&state->api, error, "cuda: no context on %s", cu_used_device(state)->name);
}

nf_status cu_enter(cu_state *state)
{
    const nf_status status = retain(state);
    if (status != NF_OK)
        return status;
    const CUresult error = state->api.cuCtxPushCurrent(state->cu);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(&state->api, error, "cuda: the context cannot be made current");
}

void cu_leave(const cu_state *state)
{
    CUcontext left;
    state->api.cuCtxPopCurrent(&left);
}

/* ---- Images ------------------------------------------------------------------------------------------------------ */

static int find_image(const char *options)
{
    for (int i = 0; i < cu_images.count; i++)
        if (strcmp(cu_images.images[i].options, options) == 0)
            return i;
    return -1;
}

/* What is no fault of the device: the driver and the images do not go together. */
static bool is_mismatch(CUresult error)
{
    return error == CUDA_ERROR_INVALID_IMAGE || error == CUDA_ERROR_NO_BINARY_FOR_GPU ||
           error == CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
}

static nf_status load(cu_state *state, int index)
{
    const cu_device *device = cu_used_device(state);
    const CUresult error = state->api.cuModuleLoadData(&state->modules[index], cu_images.images[index].data);
    if (error == CUDA_SUCCESS) {
        nf_log(state->context, NF_LOG_PLANS, "cuda: loaded the image %s", cu_images.images[index].options);
        return NF_OK;
    }
    state->modules[index] = NULL;
    const nf_status status =
        cu_fail(&state->api, error, "cuda: the kernels cannot be loaded on %s, compute capability %d.%d", device->name,
                device->major, device->minor);
    return is_mismatch(error) ? NF_ERR_UNAVAILABLE : status;
}

nf_status cu_state_module(cu_state *state, const char *options, CUmodule *module)
{
    const int index = find_image(options);
    if (index < 0)
        return nf_fail(NF_ERR_UNAVAILABLE, "cuda: this build has no image with %s", options);
    pthread_mutex_lock(&state->lock);
    const nf_status status = state->modules[index] ? NF_OK : load(state, index);
    *module = state->modules[index];
    pthread_mutex_unlock(&state->lock);
    return status;
}

static void unload_all(cu_state *state)
{
    for (int i = 0; i < cu_images.count; i++)
        if (state->modules[i])
            state->api.cuModuleUnload(state->modules[i]);
}

void cu_state_release(cu_state *state)
{
    if (!state->cu)
        return;
    if (state->modules && cu_enter(state) == NF_OK) {
        unload_all(state);
        cu_leave(state);
    }
    state->api.cuDevicePrimaryCtxRelease(cu_used_device(state)->id);
    state->cu = NULL;
}
