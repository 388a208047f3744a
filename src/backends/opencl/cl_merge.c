/* nf_merge and its gradients on tensors in the program's buffers. */
#include <stdio.h>

#include "backends/gpu/gpu_merge.h"
#include "backends/gpu/gpu_text.h"
#include "backends/opencl/cl.h"
#include "backends/opencl/cl_chain.h"
#include "core/mem.h"

enum { BARRIERS = 2 };

typedef struct merger {
    cl_state *state;
    const nf_merging *merging;
    const nf_context *context;
    cl_context cl;
    cl_program program;
    cl_kernel kernel; /* at hand, */
    const char *name; /* and its name */
    cl_mem table, scratch;
    cl_command_queue own_queue;
    cl_chain chain;
} merger;

static nf_status check_buffer(void *data, const nf_tensor *tensor, const char *name)
{
    const merger *m = data;
    return cl_check_buffer(m->state, m->cl, tensor, name);
}

/* ---- What a call makes ------------------------------------------------------------------------------------------- */

/* One for each type, built by the first call that needs it. */
static nf_status find_program(merger *m)
{
    const bool wide = m->merging->out->dtype == NF_F64;
    if (wide && !cl_used_device(m->state)->limits.fp64)
        return nf_fail(NF_ERR_UNSUPPORTED, "out: dtype f64: the device has no double precision");
    gpu_plan plan = {.shape = "merge", .source = gpu_merge_source};
    gpu_merge_options(m->merging, plan.options, sizeof plan.options);
    nf_status status = NF_OK;
    pthread_mutex_lock(&m->state->lock);
    if (!m->state->merge[wide])
        status = cl_program_create(&m->state->merge[wide], m->state, m->cl, &plan);
    m->program = m->state->merge[wide];
    pthread_mutex_unlock(&m->state->lock);
    return status;
}

static nf_status make_buffer(merger *m, cl_mem *buffer, cl_mem_flags flags, size_t bytes, void *content,
                             const char *what)
{
    cl_int error;
    *buffer = m->state->api.clCreateBuffer(m->cl, flags, bytes, content, &error);
    return error == CL_SUCCESS ? NF_OK : cl_fail(error, "opencl: a buffer of %zu bytes for %s", bytes, what);
}

static nf_status make_buffers(merger *m)
{
    const size_t words = gpu_merge_table_words(m->merging), scratch = gpu_merge_scratch_bytes(m->merging);
    int64_t *table = nf_alloc_array(m->context, words, sizeof *table);
    if (!table)
        return NF_ERR_MEMORY;
    gpu_merge_fill(m->merging, table);
    nf_status status = make_buffer(m, &m->table, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, words * sizeof *table, table,
                                   "the tables of merging");
    nf_release(m->context, table);
    if (status == NF_OK && scratch)
        status = make_buffer(m, &m->scratch, CL_MEM_READ_WRITE, scratch, NULL, "the sums of merging");
    return status;
}

static nf_status open_chain(merger *m, const nf_exec *exec)
{
    m->chain = (cl_chain){.api = &m->state->api,
                          .cl = m->cl,
                          .device = cl_used_device(m->state)->id,
                          .queue = m->state->queue,
                          .foreign = m->state->queue != NULL};
    cl_chain_take(&m->chain, exec);
    m->chain.waits = !(m->chain.foreign || m->chain.signal);
    const nf_status status = cl_chain_check(&m->chain, exec);
    if (status != NF_OK)
        return status;
    m->chain.events =
        nf_alloc_array(m->context, (size_t)(BARRIERS + gpu_merge_launch_count(m->merging)), sizeof *m->chain.events);
    if (!m->chain.events)
        return NF_ERR_MEMORY;
    if (m->chain.queue)
        return NF_OK;
    cl_int error;
    m->own_queue = m->state->api.clCreateCommandQueue(m->cl, m->chain.device, 0, &error);
    m->chain.queue = m->own_queue;
    return error == CL_SUCCESS ? NF_OK : cl_fail(error, "opencl: no command queue");
}

/* Commands keep what they use. */
static void release(merger *m)
{
    const cl_api *api = &m->state->api;
    cl_chain_release(&m->chain);
    nf_release(m->context, m->chain.events);
    if (m->kernel)
        api->clReleaseKernel(m->kernel);
    if (m->table)
        api->clReleaseMemObject(m->table);
    if (m->scratch)
        api->clReleaseMemObject(m->scratch);
    if (m->own_queue)
        api->clReleaseCommandQueue(m->own_queue);
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

static nf_status use_kernel(merger *m, const char *name)
{
    cl_int error;
    if (m->name == name)
        return NF_OK;
    if (m->kernel)
        m->state->api.clReleaseKernel(m->kernel);
    m->kernel = m->state->api.clCreateKernel(m->program, name, &error);
    m->name = name;
    if (error == CL_SUCCESS)
        return NF_OK;
    m->kernel = NULL;
    return cl_fail(error, "opencl: kernel %s", name);
}

static cl_int set_argument(const merger *m, cl_uint index, const gpu_merge_arg *arg)
{
    const cl_long number = arg->number;
    cl_mem buffer = m->table;
    if (arg->kind == GPU_MERGE_ARG_NUMBER)
        return m->state->api.clSetKernelArg(m->kernel, index, sizeof number, &number);
    if (arg->kind == GPU_MERGE_ARG_SCRATCH)
        buffer = m->scratch;
    if (arg->kind == GPU_MERGE_ARG_TENSOR && arg->tensor)
        buffer = arg->tensor->data;
    return m->state->api.clSetKernelArg(m->kernel, index, sizeof buffer, &buffer);
}

/* In groups as large as the kernel and the device allow. */
static nf_status launch(void *data, const gpu_merge_launch *l)
{
    merger *const m = data;
    const cl_api *api = &m->state->api;
    const nf_status status = use_kernel(m, l->kernel);
    if (status != NF_OK)
        return status;
    for (int i = 0; i < l->count; i++) {
        const cl_int error = set_argument(m, (cl_uint)i, &l->args[i]);
        if (error != CL_SUCCESS)
            return cl_fail(error, "opencl: argument %d of kernel %s", i, l->kernel);
    }
    size_t most = 0;
    int64_t items = nf_min64(GPU_MERGE_GROUP_ITEMS, cl_used_device(m->state)->limits.group_items);
    if (api->clGetKernelWorkGroupInfo(m->kernel, m->chain.device, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most,
                                      NULL) == CL_SUCCESS)
        items = nf_min64(items, (int64_t)most);
    items = nf_max64(items, 1);
    return cl_chain_launch(&m->chain, m->kernel, l->kernel, (size_t)gpu_merge_groups(l->elements, items),
                           (size_t)items);
}

static nf_status run(merger *m)
{
    cl_event shared = NULL;
    nf_status status = cl_chain_begin(&m->chain, NULL);
    if (status == NF_OK)
        status = gpu_merge_each_launch(m->merging, launch, m);
    if (status == NF_OK)
        status = cl_chain_end(&m->chain, &shared);
    if (status != NF_OK)
        cl_chain_abandon(&m->chain);
    else if (m->chain.signal)
        *m->chain.signal = shared;
    return status;
}

nf_status cl_merge(const void *opened, const nf_merging *merging, const nf_exec *exec)
{
    merger m = {.state = (cl_state *)opened, .merging = merging};
    m.context = m.state->context;
    nf_status status = cl_state_context(m.state, &m.cl);
    if (status == NF_OK)
        status = gpu_merge_each_tensor(merging, check_buffer, &m);
    if (status == NF_OK)
        status = find_program(&m);
    if (status == NF_OK)
        status = open_chain(&m, exec);
    if (status == NF_OK)
        status = make_buffers(&m);
    if (status == NF_OK)
        status = run(&m);
    release(&m);
    return status;
}
