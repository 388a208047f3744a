/* What a program hands over for a call, checked; and the order of the call among what the program has enqueued. */
#include <inttypes.h>

#include "backends/cuda/cu.h"

/* ---- Before ------------------------------------------------------------------------------------------------------ */

nf_status cu_check_stream(const cu_state *state, CUstream stream, bool *capturing)
{
    CUcontext owner = NULL;
    CUstreamCaptureStatus capture = CU_STREAM_CAPTURE_STATUS_NONE;
    CUresult error = state->api.cuStreamGetCtx(stream, &owner);
    if (error != CUDA_SUCCESS)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue is no CUstream: %s", cu_error_name(&state->api, error));
    if (owner != state->cu)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue is a stream of another context than the primary one of %s",
                       cu_used_device(state)->name);
    error = state->api.cuStreamIsCapturing(stream, &capture);
    if (error != CUDA_SUCCESS)
        return cu_fail(&state->api, error, "exec: queue cannot be used");
    *capturing = capture != CU_STREAM_CAPTURE_STATUS_NONE;
    return NF_OK;
}

nf_status cu_check_events(const nf_exec *exec)
{
    for (int64_t i = 0; exec && i < exec->wait_count; i++)
        if (!exec->wait_events[i])
            return nf_fail(NF_ERR_ARGUMENT, "exec: wait_events[%" PRId64 "] is NULL", i);
    return NF_OK;
}

/* Bytes from data to the lowest element, and past the highest one. The core bounds both. */
static void byte_range(const nf_tensor *tensor, int64_t *begin, int64_t *end)
{
    *begin = *end = 0;
    for (int32_t i = 0; i < tensor->rank; i++) {
        const int64_t span = (tensor->extents[i] - 1) * tensor->strides[i];
        *(span < 0 ? begin : end) += span;
    }
    *begin *= (int64_t)nf_dtype_size(tensor->dtype);
    *end = (*end + 1) * (int64_t)nf_dtype_size(tensor->dtype);
}

nf_status cu_check_pointer(const cu_state *state, const nf_tensor *tensor, const char *name)
{
    const cu_api *api = &state->api;
    const cu_device *device = cu_used_device(state);
    const CUdeviceptr data = (CUdeviceptr)(uintptr_t)tensor->data;
    int ordinal = -1;
    unsigned managed = 0;
    CUdeviceptr start = 0;
    size_t bytes = 0;
    CUresult error = api->cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, data);
    if (error == CUDA_SUCCESS)
        error = api->cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, data);
    if (error == CUDA_SUCCESS)
        error = api->cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, data);
    if (error == CUDA_SUCCESS)
        error = api->cuPointerGetAttribute(&bytes, CU_POINTER_ATTRIBUTE_RANGE_SIZE, data);
    if (error != CUDA_SUCCESS)
        return nf_fail(NF_ERR_TENSOR, "%s: data is no CUDA pointer: %s", name, cu_error_name(api, error));
    if (ordinal != device->ordinal && !managed)
        return nf_fail(NF_ERR_TENSOR, "%s: data is memory of CUDA device %d, the context uses %d", name, ordinal,
                       device->ordinal);
    int64_t begin, end;
    byte_range(tensor, &begin, &end);
    const int64_t before = (int64_t)(data - start);
    if (before + begin < 0 || before + end > (int64_t)bytes)
        return nf_fail(NF_ERR_TENSOR, "%s: bytes %" PRId64 "..%" PRId64 " do not lie in its allocation of %zu bytes",
                       name, before + begin, before + end - 1, bytes);
    return NF_OK;
}

/* ---- Order ------------------------------------------------------------------------------------------------------- */

nf_status cu_wait_for(const cu_api *api, CUstream stream, const nf_exec *exec)
{
    CUresult error = CUDA_SUCCESS;
    for (int64_t i = 0; exec && error == CUDA_SUCCESS && i < exec->wait_count; i++)
        error = api->cuStreamWaitEvent(stream, exec->wait_events[i], 0);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(api, error, "cuda: the stream cannot wait for what is before it");
}

nf_status cu_signal(const cu_api *api, CUstream stream, CUevent *signal)
{
    CUresult error = api->cuEventCreate(signal, CU_EVENT_DISABLE_TIMING);
    if (error != CUDA_SUCCESS)
        *signal = NULL;
    else
        error = api->cuEventRecord(*signal, stream);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(api, error, "cuda: the end of the call cannot be signalled");
}

/* ---- Time -------------------------------------------------------------------------------------------------------- */

static nf_status time_between(const cu_api *api, CUstream stream, const CUevent events[2], nf_status (*run)(void *data),
                              void *data, double *seconds)
{
    static const double seconds_per_unit = 1e-3;
    float elapsed = 0;
    CUresult error = api->cuEventRecord(events[0], stream);
    const nf_status status = error == CUDA_SUCCESS ? run(data) : NF_OK;
    if (status != NF_OK)
        return status;
    if (error == CUDA_SUCCESS)
        error = api->cuEventRecord(events[1], stream);
    if (error == CUDA_SUCCESS)
        error = api->cuEventSynchronize(events[1]);
    if (error == CUDA_SUCCESS)
        error = api->cuEventElapsedTime(&elapsed, events[0], events[1]);
    *seconds = seconds_per_unit * elapsed;
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(api, error, "cuda: the device failed while it was timed");
}

nf_status cu_time(const cu_api *api, CUstream stream, nf_status (*run)(void *data), void *data, double *seconds)
{
    CUevent events[2] = {NULL, NULL};
    CUresult error = api->cuEventCreate(&events[0], CU_EVENT_DEFAULT);
    if (error == CUDA_SUCCESS)
        error = api->cuEventCreate(&events[1], CU_EVENT_DEFAULT);
    const nf_status status = error == CUDA_SUCCESS ? time_between(api, stream, events, run, data, seconds)
                                                   : cu_fail(api, error, "cuda: no events to time with");
    for (int i = 0; i < 2; i++)
        if (events[i])
            api->cuEventDestroy(events[i]);
    return status;
}
