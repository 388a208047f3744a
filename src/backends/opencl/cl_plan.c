/* A plan on a device: what the vendor-neutral plan says, made into kernels and buffers. The algorithms differ in the
 * shape of the program only. */
#include <inttypes.h>
#include <math.h>

#include "backends/gpu/gpu_copy.h"
#include "backends/opencl/cl.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/tensor.h"

/* A GPU runs few wide work-items badly, a CPU runs barriers badly. */
static const double penalty_of_wrong_shape = 100;

typedef struct shape {
    bool lanes; /* of the fused ones */
    nf_status (*supports)(const gpu_device *device, const nf_request *request);
    nf_status (*create)(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                        const nf_tensor layout[NF_ROLES]);
    double penalty; /* times the cost of the worse fused one: unfused and naive are for those who ask for them */
} shape;

static const shape lanes = {true, gpu_plan_supports, gpu_plan_create, 0};
static const shape tile = {false, gpu_plan_supports, gpu_plan_create, 0};
static const shape unfused = {false, gpu_unfused_supports, gpu_unfused_create, 10};
static const shape naive = {false, gpu_naive_supports, gpu_naive_create, 100};

static gpu_device device_for(const cl_state *state, const shape *s)
{
    gpu_device device = cl_used_device(state)->limits;
    device.cpu = s->lanes;
    return device;
}

/* ---- Choice ------------------------------------------------------------------------------------------------------ */

static nf_status supports(const cl_state *state, const nf_request *request, const shape *s)
{
    const gpu_device device = device_for(state, s);
    const cl_device *used = cl_used_device(state);
    /* Seen on llvmpipe: NaN of invisible values in visible rows. */
    if (s->lanes && cl_is_cpu(used) && !used->limits.cpu)
        return nf_fail(NF_ERR_UNSUPPORTED, "%s has no vectors, and compiles wide ones wrongly", used->name);
    for (int role = 0; role < NF_ROLES; role++) {
        const nf_tensor *tensor = &request->layout[role];
        const bool scores = role == NF_SCORES || role == NF_DSCORES;
        if (tensor->rank == 0 || (scores && s != &unfused))
            continue;
        if (nf_tensor_bytes(tensor) > (double)device.buffer_bytes)
            return nf_fail(NF_ERR_UNSUPPORTED, "%s of %.3g bytes exceeds the device's largest buffer, %" PRId64,
                           nf_role_name((nf_role)role), nf_tensor_bytes(tensor), device.buffer_bytes);
    }
    return s->supports(&device, request);
}

static void cost_of_fused(const cl_state *state, const nf_request *request, const shape *s,
                          double seconds[NF_DIRECTIONS])
{
    const gpu_device device = device_for(state, s);
    const bool fits = cl_used_device(state)->limits.cpu == s->lanes;
    gpu_plan_cost(&device, request, seconds);
    for (int i = 0; i < NF_DIRECTIONS && !fits; i++)
        seconds[i] *= penalty_of_wrong_shape;
}

static void cost(const cl_state *state, const nf_request *request, const shape *s, double seconds[NF_DIRECTIONS])
{
    double by_tile[NF_DIRECTIONS] = {0};
    if (s->penalty == 0) {
        cost_of_fused(state, request, s, seconds);
        return;
    }
    cost_of_fused(state, request, &lanes, seconds);
    cost_of_fused(state, request, &tile, by_tile);
    for (int i = 0; i < NF_DIRECTIONS; i++)
        seconds[i] = s->penalty * fmax(seconds[i], by_tile[i]);
}

/* ---- What a plan holds ------------------------------------------------------------------------------------------- */

static void release_kernels(cl_plan *plan, cl_kernels *kernels)
{
    for (int i = 0; i < GPU_MAX_LAUNCHES; i++)
        if (kernels->kernel[i])
            plan->state->api.clReleaseKernel(kernels->kernel[i]);
    *kernels = (cl_kernels){0};
}

static void release_program(cl_plan *plan)
{
    for (int operation = 0; operation < NF_OPERATIONS; operation++)
        release_kernels(plan, &plan->kernels[operation]);
    if (plan->program)
        plan->state->api.clReleaseProgram(plan->program);
    if (plan->gpu)
        gpu_plan_destroy(plan->gpu, plan->request->context);
    plan->program = NULL;
    plan->gpu = NULL;
}

static void release_buffer(cl_plan *plan, cl_mem buffer)
{
    if (buffer)
        plan->state->api.clReleaseMemObject(buffer);
}

/* Undoes whatever part of a plan exists; its memory began as zeros. */
static void free_plan(cl_plan *plan)
{
    const nf_context *context = plan->request->context;
    for (int role = 0; role < NF_ROLES; role++)
        release_buffer(plan, plan->staged[role]);
    release_buffer(plan, plan->scratch);
    release_buffer(plan, plan->tables);
    release_program(plan);
    if (plan->pending)
        plan->state->api.clReleaseEvent(plan->pending);
    if (plan->queue)
        plan->state->api.clReleaseCommandQueue(plan->queue);
    pthread_mutex_destroy(&plan->lock);
    nf_release(context, plan);
}

static nf_status make_queue(cl_plan *plan)
{
    cl_state *state = plan->state;
    cl_int error = CL_SUCCESS;
    if (state->queue) {
        error = state->api.clRetainCommandQueue(state->queue);
        plan->queue = error == CL_SUCCESS ? state->queue : NULL;
    } else {
        plan->queue = state->api.clCreateCommandQueue(plan->cl, cl_used_device(state)->id, 0, &error);
    }
    return error == CL_SUCCESS ? NF_OK : cl_fail(error, "opencl: no command queue");
}

/* One kernel object per launch: a kernel holds its arguments. *items is lowered to the work-group that a kernel runs in
 * where that is smaller than its launch. */
static nf_status make_kernels(cl_plan *plan, cl_kernels *kernels, const gpu_launches *launches, int64_t *items)
{
    const cl_api *api = &plan->state->api;
    for (int i = 0; i < launches->count; i++) {
        const gpu_launch *launch = &launches->launch[i];
        cl_int error;
        size_t most = 0;
        kernels->kernel[i] = api->clCreateKernel(plan->program, launch->kernel, &error);
        if (error != CL_SUCCESS)
            return cl_fail(error, "opencl: kernel %s", launch->kernel);
        error = api->clGetKernelWorkGroupInfo(kernels->kernel[i], cl_used_device(plan->state)->id,
                                              CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most, NULL);
        if (error == CL_SUCCESS && most < launch->items && (int64_t)most < *items)
            *items = (int64_t)most;
    }
    return NF_OK;
}

static nf_status make_program(cl_plan *plan, const shape *s, const gpu_device *device, int64_t *items)
{
    *items = device->group_items;
    nf_status status = s->create(&plan->gpu, device, plan->request, plan->layout);
    if (status == NF_OK)
        status = cl_program_create(&plan->program, plan->state, plan->cl, plan->gpu);
    for (int operation = 0; status == NF_OK && operation < NF_OPERATIONS; operation++)
        status =
            make_kernels(plan, &plan->kernels[operation], gpu_plan_launches(plan->gpu, (nf_operation)operation), items);
    return status;
}

/* How large a work-group the registers allow is known only of a kernel that is built. Where that is too small, the plan
 * is made again for such a device; the smallest work-group of all is that of lanes, one work-item. */
static nf_status fit_program(cl_plan *plan, const shape *s)
{
    gpu_device device = device_for(plan->state, s);
    for (;;) {
        int64_t items;
        const nf_status status = make_program(plan, s, &device, &items);
        if (status != NF_OK || items >= device.group_items)
            return status;
        nf_log(plan->request->context, NF_LOG_PLANS,
               "opencl: kernels run in work-groups of %" PRId64 " at most: planned anew", items);
        release_program(plan);
        device.group_items = items;
        if (!device.cpu && s->supports(&device, plan->request) != NF_OK)
            device.cpu = true;
    }
}

static nf_status make_buffer(cl_plan *plan, cl_mem *buffer, cl_mem_flags flags, size_t bytes, void *content,
                             const char *what)
{
    cl_int error;
    *buffer = plan->state->api.clCreateBuffer(plan->cl, flags, bytes, content, &error);
    return error == CL_SUCCESS ? NF_OK : cl_fail(error, "opencl: a buffer of %zu bytes for %s", bytes, what);
}

static nf_status make_buffers(cl_plan *plan)
{
    enum { LEAST_BYTES = 64 }; /* a buffer must not be empty */
    const gpu_plan *gpu = plan->gpu;
    char nothing[LEAST_BYTES] = {0};
    const bool empty = gpu->table_bytes == 0;
    nf_status status = make_buffer(plan, &plan->tables, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR,
                                   empty ? sizeof nothing : gpu->table_bytes, empty ? nothing : gpu->tables, "tables");
    if (status == NF_OK && gpu->scratch_bytes)
        status = make_buffer(plan, &plan->scratch, CL_MEM_READ_WRITE, gpu->scratch_bytes, NULL, "scratch");
    for (int role = 0; status == NF_OK && role < NF_ROLES; role++) {
        const nf_tensor *tensor = &plan->layout[role];
        if (tensor->rank == 0 || tensor->memory != NF_HOST || !(gpu_plan_touches(gpu) >> role & 1))
            continue;
        const size_t bytes = gpu_tensor_bytes(tensor);
        status = make_buffer(plan, &plan->staged[role], CL_MEM_READ_WRITE, bytes, NULL, nf_role_name((nf_role)role));
        plan->staged_bytes += bytes;
    }
    return status;
}

static nf_status build(cl_plan *plan, const shape *s)
{
    gpu_plan_layout(plan->layout, plan->request);
    nf_status status = cl_state_context(plan->state, &plan->cl);
    if (status != NF_OK || (status = make_queue(plan)) != NF_OK || (status = fit_program(plan, s)) != NF_OK)
        return status;
    return make_buffers(plan);
}

static nf_status prepare(const void *state, const nf_request *request, void **prepared, const shape *s)
{
    cl_plan *plan = nf_alloc_array(request->context, 1, sizeof *plan);
    if (!plan)
        return NF_ERR_MEMORY;
    plan->state = (cl_state *)state;
    plan->request = request;
    pthread_mutex_init(&plan->lock, NULL);
    const nf_status status = build(plan, s);
    if (status != NF_OK) {
        free_plan(plan);
        return status;
    }
    *prepared = plan;
    return NF_OK;
}

/* ---- Slots ------------------------------------------------------------------------------------------------------- */

static void info(const void *prepared, nf_plan_info *figures)
{
    const cl_plan *plan = prepared;
    figures->kernel = cl_used_device(plan->state)->name;
    gpu_plan_info(plan->gpu, plan->request->problem, figures);
}

static void describe(const void *prepared, nf_text *text)
{
    const cl_plan *plan = prepared;
    gpu_plan_describe(plan->gpu, text);
    nf_text_printf(text, "  device bytes: tables %zu, scratch %zu, copies of host tensors %zu\n",
                   plan->gpu->table_bytes, plan->gpu->scratch_bytes, plan->staged_bytes);
}

static nf_status execute(void *plan, nf_operation operation, const nf_tensor *const io[NF_ROLES], const nf_exec *exec)
{
    return cl_execute(plan, operation, io, exec);
}

#include "backends/gpu/gpu_algorithm.h"

GPU_ALGORITHM(cl_, lanes, &nf_stub_pair)
GPU_ALGORITHM(cl_, tile, &nf_stub_pair)
GPU_ALGORITHM(cl_, unfused, &pair)
GPU_ALGORITHM(cl_, naive, &nf_stub_pair)
