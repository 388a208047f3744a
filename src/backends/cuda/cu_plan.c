/* A plan on a device: what the vendor-neutral plan says, with kernels and memory. The algorithms differ in the shape of
 * the program only. */
#include "backends/cuda/cu.h"
#include "backends/gpu/gpu_copy.h"
#include "backends/gpu/gpu_tables.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/tensor.h"

enum { HOST_ALIGNMENT = 256 }; /* of the parts of host_memory */

typedef struct shape {
    bool scores; /* it has tensors of scores */
    nf_status (*supports)(const gpu_device *device, const nf_request *request);
    void (*cost)(const gpu_device *device, const nf_request *request, double seconds[NF_DIRECTIONS]);
    nf_status (*create)(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                        const nf_tensor layout[NF_ROLES]);
    double penalty; /* times the cost: an H100 takes thrice portable's; unfused and naive are for those who ask */
} shape;

static const shape wgmma = {false, cu_wgmma_supports, cu_wgmma_cost, cu_wgmma_create, 1};
static const shape mma = {false, cu_mma_supports, cu_mma_cost, cu_mma_create, 1};
static const shape portable = {false, gpu_plan_supports, gpu_plan_cost, gpu_plan_create, 3};
static const shape unfused = {true, gpu_unfused_supports, gpu_plan_cost, cu_unfused_create, 10};
static const shape naive = {false, gpu_naive_supports, gpu_plan_cost, gpu_naive_create, 100};

/* ---- Choice ------------------------------------------------------------------------------------------------------ */

static nf_status supports(const cu_state *state, const nf_request *request, const shape *s)
{
    const gpu_device *device = &cu_used_device(state)->limits;
    const int roles = s->scores ? NF_ROLES : NF_SCORES;
    double staged = 0;
    for (int role = 0; role < roles; role++)
        if (request->layout[role].rank && request->layout[role].memory == NF_HOST)
            staged += nf_tensor_bytes(&request->layout[role]);
    if (staged > (double)device->buffer_bytes)
        return nf_fail(NF_ERR_UNSUPPORTED, "tensors of %.3g bytes in host memory exceed the device's memory, %lld",
                       staged, (long long)device->buffer_bytes);
    return s->supports(device, request);
}

static void cost(const cu_state *state, const nf_request *request, const shape *s, double seconds[NF_DIRECTIONS])
{
    s->cost(&cu_used_device(state)->limits, request, seconds);
    for (int i = 0; i < NF_DIRECTIONS; i++)
        seconds[i] *= s->penalty;
}

/* ---- What a plan holds ------------------------------------------------------------------------------------------- */

static void free_device_memory(cu_plan *plan, CUdeviceptr memory)
{
    if (memory)
        plan->state->api.cuMemFree(memory);
}

static void free_in_context(cu_plan *plan)
{
    const cu_api *api = &plan->state->api;
    if (plan->order->pending) /* what was not waited for may still use the memory */
        api->cuEventSynchronize(plan->order->done);
    for (int role = 0; role < NF_ROLES; role++)
        free_device_memory(plan, plan->staged[role]);
    free_device_memory(plan, plan->scratch);
    free_device_memory(plan, plan->tables);
    if (plan->pinned)
        api->cuMemFreeHost(plan->host_memory);
    if (plan->own_order.done)
        api->cuEventDestroy(plan->own_order.done);
    if (plan->stream && plan->stream != plan->state->stream)
        api->cuStreamDestroy(plan->stream);
}

/* Undoes whatever part of a plan exists; its memory began as zeros. */
static void free_plan(cu_plan *plan)
{
    const nf_context *context = plan->request->context;
    if (plan->unboxed)
        free_plan(plan->unboxed);
    if (plan->state->cu && cu_enter(plan->state) == NF_OK) {
        free_in_context(plan);
        cu_leave(plan->state);
    }
    if (!plan->pinned)
        nf_release(context, plan->host_memory);
    gpu_plan_destroy(plan->gpu, context);
    pthread_mutex_destroy(&plan->own_order.lock);
    nf_release(context, plan);
}

static nf_status make_stream(cu_plan *plan)
{
    const cu_state *state = plan->state;
    CUresult error = CUDA_SUCCESS;
    if (state->stream)
        plan->stream = state->stream;
    else
        error = state->api.cuStreamCreate(&plan->stream, CU_STREAM_DEFAULT);
    if (error == CUDA_SUCCESS && plan->order == &plan->own_order)
        error = state->api.cuEventCreate(&plan->order->done, CU_EVENT_DISABLE_TIMING);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(&state->api, error, "cuda: no stream");
}

/* The images of a plan's kernels. */
typedef struct programs {
    CUmodule module, products;
} programs;

/* A kernel has to be told that a launch will give it more shared memory than kernels may declare. */
static nf_status allow_shared(const cu_plan *plan, CUfunction kernel, const gpu_launch *launch)
{
    const cu_api *api = &plan->state->api;
    if (!launch->local_bytes)
        return NF_OK;
    const CUresult error =
        api->cuFuncSetAttribute(kernel, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)launch->local_bytes);
    return error == CUDA_SUCCESS ? NF_OK
                                 : cu_fail(api, error, "cuda: kernel %s with %zu bytes of shared memory",
                                           launch->kernel, launch->local_bytes);
}

static nf_status find_kernels(cu_plan *plan, const programs *p, const gpu_launches *launches, CUfunction *kernels)
{
    for (int i = 0; i < launches->count; i++) {
        const char *name = launches->launch[i].kernel;
        const CUmodule module = launches->launch[i].of_products ? p->products : p->module;
        const CUresult error = plan->state->api.cuModuleGetFunction(&kernels[i], module, name);
        if (error != CUDA_SUCCESS)
            return cu_fail(&plan->state->api, error, "cuda: kernel %s", name);
        const nf_status status = allow_shared(plan, kernels[i], &launches->launch[i]);
        if (status != NF_OK)
            return status;
    }
    return NF_OK;
}

static nf_status make_kernels(cu_plan *plan, const shape *s)
{
    programs p = {0};
    nf_status status = s->create(&plan->gpu, &cu_used_device(plan->state)->limits, plan->request, plan->layout);
    if (status == NF_OK)
        status = cu_state_module(plan->state, plan->gpu->options, &p.module);
    if (status == NF_OK && plan->gpu->products[0])
        status = cu_state_module(plan->state, plan->gpu->products, &p.products);
    for (int operation = 0; status == NF_OK && operation < NF_OPERATIONS; operation++)
        status =
            find_kernels(plan, &p, gpu_plan_launches(plan->gpu, (nf_operation)operation), plan->kernels[operation]);
    return status;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static nf_status allocate(cu_plan *plan, CUdeviceptr *memory, size_t bytes, const char *what)
{
    const CUresult error = plan->state->api.cuMemAlloc(memory, bytes);
    if (error == CUDA_SUCCESS)
        return NF_OK;
    *memory = 0;
    return cu_fail(&plan->state->api, error, "cuda: %zu bytes of device memory for %s", bytes, what);
}

static nf_status upload_tables(cu_plan *plan)
{
    const cu_api *api = &plan->state->api;
    const gpu_plan *gpu = plan->gpu;
    const nf_status status = allocate(plan, &plan->tables, gpu->table_bytes, "tables");
    if (status != NF_OK)
        return status;
    CUresult error = api->cuMemcpyHtoDAsync(plan->tables, gpu->tables, gpu->table_bytes, plan->stream);
    if (error == CUDA_SUCCESS)
        error = api->cuStreamSynchronize(plan->stream);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(api, error, "cuda: the tables cannot be copied to the device");
}

/* Where a host tensor passes through on its way. Copies from pinned memory run at full speed; where there is none, the
 * driver copies from ours by way of its own. */
static nf_status make_host_memory(cu_plan *plan, size_t bytes)
{
    void *memory = NULL;
    plan->pinned = plan->state->api.cuMemAllocHost(&memory, bytes) == CUDA_SUCCESS;
    if (!plan->pinned)
        memory = nf_alloc(plan->request->context, bytes);
    plan->host_memory = memory;
    return memory ? NF_OK : NF_ERR_MEMORY;
}

static size_t padded_bytes(const nf_tensor *tensor)
{
    return (gpu_tensor_bytes(tensor) + HOST_ALIGNMENT - 1) / HOST_ALIGNMENT * HOST_ALIGNMENT;
}

static nf_status stage_tensors(cu_plan *plan)
{
    const uint32_t touched = gpu_plan_touches(plan->gpu);
    nf_status status = NF_OK;
    size_t offset = 0;
    for (int role = 0; status == NF_OK && role < NF_ROLES; role++) {
        const nf_tensor *tensor = &plan->layout[role];
        if (!tensor->rank || tensor->memory != NF_HOST || !(touched >> role & 1))
            continue;
        status = allocate(plan, &plan->staged[role], gpu_tensor_bytes(tensor), nf_role_name((nf_role)role));
        plan->staged_bytes += padded_bytes(tensor);
    }
    if (status == NF_OK && plan->staged_bytes)
        status = make_host_memory(plan, plan->staged_bytes);
    for (int role = 0; status == NF_OK && role < NF_ROLES; role++)
        if (plan->staged[role]) {
            plan->host[role] = plan->host_memory + offset;
            offset += padded_bytes(&plan->layout[role]);
        }
    return status;
}

static nf_status lay_out_boxes(cu_plan *plan, const gpu_launch *launch)
{
    const int64_t *header = plan->gpu->tables;
    nf_status status = NF_OK;
    for (int i = 0; status == NF_OK && i < launch->args_count; i++) {
        const gpu_arg *arg = &launch->args[i];
        const bool all = arg->kind == GPU_ARG_ALL_BOXES;
        if ((arg->kind != GPU_ARG_BOXES && !all) || !plan->layout[arg->role].rank)
            continue;
        const int walk = arg->role == NF_Q || arg->role == NF_DOUT ? GPU_BY_KEY : GPU_BY_QUERY;
        status = cu_wgmma_lay_out(plan->request, plan->layout, arg, header + walk + GPU_WALK_COLUMNS,
                                  all ? &plan->all_boxes[arg->role] : &plan->boxes[arg->role]);
        plan->boxed |= UINT32_C(1) << arg->role;
    }
    return status;
}

static nf_status build(cu_plan *plan, const shape *s)
{
    nf_status status;
    gpu_plan_layout(plan->layout, plan->request);
    if ((status = make_stream(plan)) != NF_OK || (status = make_kernels(plan, s)) != NF_OK ||
        (status = upload_tables(plan)) != NF_OK)
        return status;
    if (plan->gpu->scratch_bytes)
        status = allocate(plan, &plan->scratch, plan->gpu->scratch_bytes, "scratch");
    for (int i = 0; status == NF_OK && i < plan->gpu->forward.count; i++)
        status = lay_out_boxes(plan, &plan->gpu->forward.launch[i]);
    for (int i = 0; status == NF_OK && i < plan->gpu->backward.count; i++)
        status = lay_out_boxes(plan, &plan->gpu->backward.launch[i]);
    return status == NF_OK ? stage_tensors(plan) : status;
}

/* order: NULL for one of its own. */
static nf_status prepare_in(cu_order *order, const void *state, const nf_request *request, cu_plan **prepared,
                            const shape *s)
{
    cu_plan *plan = nf_alloc_array(request->context, 1, sizeof *plan);
    if (!plan)
        return NF_ERR_MEMORY;
    plan->state = (cu_state *)state;
    plan->request = request;
    plan->order = order ? order : &plan->own_order;
    pthread_mutex_init(&plan->own_order.lock, NULL);
    nf_status status = cu_enter(plan->state);
    if (status == NF_OK) {
        status = build(plan, s);
        cu_leave(plan->state);
    }
    if (status != NF_OK) {
        free_plan(plan);
        return status;
    }
    *prepared = plan;
    return NF_OK;
}

/* A program's tensors may lie anywhere: where boxes cannot be copied from there, kernels run that copy lines. They are
 * at hand before the call, which may be one that is captured. */
static nf_status prepare_unboxed(cu_plan *plan)
{
    uint32_t placed = plan->boxed;
    for (int role = 0; role < NF_ROLES; role++)
        if (plan->staged[role])
            placed &= ~(UINT32_C(1) << role);
    return placed ? prepare_in(plan->order, plan->state, plan->request, &plan->unboxed, &mma) : NF_OK;
}

static nf_status prepare(const void *state, const nf_request *request, void **prepared, const shape *s)
{
    cu_plan *plan = NULL;
    nf_status status = prepare_in(NULL, state, request, &plan, s);
    if (status != NF_OK)
        return status;
    status = prepare_unboxed(plan);
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
    const cu_plan *plan = prepared;
    figures->kernel = cu_used_device(plan->state)->name;
    gpu_plan_info(plan->gpu, plan->request->problem, figures);
}

static void describe(const void *prepared, nf_text *text)
{
    const cu_plan *plan = prepared;
    gpu_plan_describe(plan->gpu, text);
    nf_text_printf(text, "  device bytes: tables %zu, scratch %zu, copies of host tensors %zu%s\n",
                   plan->gpu->table_bytes, plan->gpu->scratch_bytes, plan->staged_bytes,
                   !plan->staged_bytes ? ""
                   : plan->pinned      ? ", by way of pinned memory"
                                       : ", by way of pageable memory");
    if (plan->unboxed)
        nf_text_printf(text, "  where tensors do not lie at multiples of %d bytes mma runs\n", CU_BOX_ALIGNMENT);
}

/* The first role that lies where boxes cannot be copied from, or NF_ROLES. */
static int find_misplaced(const cu_plan *plan, const nf_tensor *const io[NF_ROLES])
{
    int role = 0;
    while (role < NF_ROLES && (!(plan->boxed >> role & 1) || plan->staged[role] || !io[role] ||
                               cu_boxes_fit((CUdeviceptr)(uintptr_t)io[role]->data)))
        role++;
    return role;
}

static void tell_why(cu_plan *plan, int role, const nf_tensor *tensor)
{
    pthread_mutex_lock(&plan->order->lock);
    if (!plan->told)
        nf_log(plan->request->context, NF_LOG_PLANS, "cuda: %s lies at %p, no multiple of %d bytes: mma runs for wgmma",
               nf_role_name((nf_role)role), tensor->data, CU_BOX_ALIGNMENT);
    plan->told = true;
    pthread_mutex_unlock(&plan->order->lock);
}

static nf_status execute(void *prepared, nf_operation operation, const nf_tensor *const io[NF_ROLES],
                         const nf_exec *exec)
{
    cu_plan *plan = prepared;
    const int role = find_misplaced(plan, io);
    if (role == NF_ROLES)
        return cu_execute(plan, operation, io, exec);
    tell_why(plan, role, io[role]);
    return cu_execute(plan->unboxed, operation, io, exec);
}

#include "backends/gpu/gpu_algorithm.h"

GPU_ALGORITHM(cu_, wgmma, &nf_stub_pair, .apart = true)
GPU_ALGORITHM(cu_, mma, &nf_stub_pair)
GPU_ALGORITHM(cu_, portable, &nf_stub_pair)
GPU_ALGORITHM(cu_, unfused, &pair)
GPU_ALGORITHM(cu_, naive, &nf_stub_pair)
