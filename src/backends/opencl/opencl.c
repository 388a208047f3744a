/* The opencl backend's entry in the registry, and the way in for a program's own OpenCL objects. */
#include "backends/opencl/cl.h"
#include "core/context.h"
#include "core/mem.h"
#include "nearfield_opencl.h"

/* ---- State ------------------------------------------------------------------------------------------------------- */

static void close_state(const nf_context *context, void *opened)
{
    cl_state *state = opened;
    for (size_t i = 0; i < sizeof state->merge / sizeof *state->merge; i++)
        if (state->merge[i])
            state->api.clReleaseProgram(state->merge[i]);
    if (state->queue)
        state->api.clReleaseCommandQueue(state->queue);
    if (state->cl)
        state->api.clReleaseContext(state->cl);
    cl_devices_release(&state->list, context);
    pthread_mutex_destroy(&state->lock);
    nf_release(context, state);
}

/* The loader is open, but no device is known yet. */
static nf_status begin_state(const nf_context *context, cl_state **state)
{
    cl_state *made = nf_alloc_array(context, 1, sizeof *made);
    if (!made)
        return NF_ERR_MEMORY;
    made->context = context;
    pthread_mutex_init(&made->lock, NULL);
    const nf_status status = cl_api_load(&made->api);
    if (status != NF_OK) {
        close_state(context, made);
        return status;
    }
    nf_env_cache_folder(made->cache_folder);
    *state = made;
    return NF_OK;
}

static nf_status open_devices(const nf_context *context, void **state)
{
    cl_state *made;
    nf_status status = begin_state(context, &made);
    if (status != NF_OK)
        return status;
    status = cl_devices_find(&made->list, context, &made->api);
    if (status == NF_OK)
        status = cl_devices_choose(&made->list, nf_context_device(context), &made->used);
    if (status != NF_OK) {
        close_state(context, made);
        return status;
    }
    *state = made;
    return NF_OK;
}

nf_status cl_state_context(cl_state *state, cl_context *cl)
{
    const cl_device *device = cl_used_device(state);
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)device->platform, 0};
    cl_int error = CL_SUCCESS;
    pthread_mutex_lock(&state->lock);
    if (!state->cl)
        state->cl = state->api.clCreateContext(properties, 1, &device->id, NULL, NULL, &error);
    if (error != CL_SUCCESS)
        state->cl = NULL;
    *cl = state->cl;
    pthread_mutex_unlock(&state->lock);
    return error == CL_SUCCESS ? NF_OK : cl_fail(error, "opencl: no context on %s", device->name);
}

/* ---- A program's own objects ------------------------------------------------------------------------------------- */

static nf_status check_device(const cl_state *state, cl_context cl, cl_device_id device)
{
    enum { MOST_DEVICES = 64 };
    cl_device_id devices[MOST_DEVICES];
    size_t bytes = 0;
    const cl_int error = state->api.clGetContextInfo(cl, CL_CONTEXT_DEVICES, sizeof devices, devices, &bytes);
    if (error != CL_SUCCESS)
        return nf_fail(NF_ERR_ARGUMENT, "cl_context: its devices cannot be read: %s", cl_error_name(error));
    for (size_t i = 0; i < bytes / sizeof devices[0]; i++)
        if (devices[i] == device)
            return NF_OK;
    return nf_fail(NF_ERR_ARGUMENT, "device: does not belong to the cl_context");
}

static nf_status check_queue(const cl_state *state, cl_context cl, cl_device_id device, cl_command_queue queue)
{
    cl_context owner = NULL;
    cl_device_id runs_on = NULL;
    if (state->api.clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof owner, &owner, NULL) != CL_SUCCESS ||
        state->api.clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof runs_on, &runs_on, NULL) != CL_SUCCESS ||
        owner != cl || runs_on != device)
        return nf_fail(NF_ERR_ARGUMENT, "queue: does not belong to the cl_context and the device");
    return NF_OK;
}

static nf_status take_objects(cl_state *state, cl_context cl, cl_device_id device, cl_command_queue queue)
{
    cl_platform_id platform = NULL;
    nf_status status = check_device(state, cl, device);
    if (status == NF_OK && queue)
        status = check_queue(state, cl, device, queue);
    if (status != NF_OK)
        return status;
    cl_int error = state->api.clGetDeviceInfo(device, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL);
    if (error != CL_SUCCESS)
        return cl_fail(error, "device: its platform cannot be read");
    state->list.devices = nf_alloc_array(state->context, 1, sizeof *state->list.devices);
    if (!state->list.devices)
        return NF_ERR_MEMORY;
    state->list.count = 1;
    status = cl_device_read(&state->list.devices[0], &state->api, platform, device);
    if (status == NF_OK)
        status = cl_devices_choose(&state->list, "0", &state->used);
    if (status != NF_OK)
        return status;
    if ((error = state->api.clRetainContext(cl)) != CL_SUCCESS)
        return cl_fail(error, "cl_context: cannot be retained");
    state->cl = cl;
    if (queue && (error = state->api.clRetainCommandQueue(queue)) != CL_SUCCESS)
        return cl_fail(error, "queue: cannot be retained");
    state->queue = queue;
    return NF_OK;
}

nf_status nf_opencl_use(nf_context *context, cl_context cl, cl_device_id device, cl_command_queue queue)
{
    if (!context || !cl || !device)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL", !context ? "context" : !cl ? "cl_context" : "device");
    cl_state *state;
    nf_status status = begin_state(context, &state);
    if (status != NF_OK)
        return status;
    status = take_objects(state, cl, device, queue);
    if (status == NF_OK)
        status = nf_context_adopt(context, &nf_backend_opencl, state);
    if (status != NF_OK)
        close_state(context, state);
    return status;
}

/* ---- Entry ------------------------------------------------------------------------------------------------------- */

static void describe(const void *opened, nf_text *text)
{
    const cl_state *state = opened;
    for (int i = 0; i < state->list.count; i++)
        cl_device_describe(&state->list.devices[i], &state->api, i, i == state->used, text);
}

static const char *device_name(const void *opened, int index)
{
    const cl_state *state = opened;
    return index < state->list.count ? state->list.devices[index].name : NULL;
}

static bool uses_gpu(const void *opened)
{
    return (cl_used_device(opened)->type & (CL_DEVICE_TYPE_GPU | CL_DEVICE_TYPE_CPU)) == CL_DEVICE_TYPE_GPU;
}

static const nf_algorithm *const algorithms[] = {&cl_lanes, &cl_tile, &cl_unfused, &cl_naive, NULL};

const nf_backend nf_backend_opencl = {
    .name = "opencl",
    .summary = "any OpenCL 1.2 device",
    .open = open_devices,
    .close = close_state,
    .describe = describe,
    .device = device_name,
    .gpu = uses_gpu,
    .peak = nf_stub_peak,
    .memory = NF_OPENCL,
    .merge = cl_merge,
    .algorithms = algorithms,
};
