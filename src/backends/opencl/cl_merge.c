/* nf_merge and its gradients on tensors in the program's buffers: launches of gpu_merge.cl, a part at a time. */
#include <stdio.h>

#include "backends/gpu/gpu_tables.h"
#include "backends/gpu/gpu_text.h"
#include "backends/opencl/cl.h"
#include "backends/opencl/cl_chain.h"
#include "core/mem.h"

enum {
    GROUP_ITEMS = 64,
    MOST_GROUPS = 1 << 16,
    BARRIERS = 2,
    SHARED_TENSORS = 4,  /* out, lse, dout, dlse */
    TENSORS_OF_PART = 4, /* the same of a part */
    MOST_ARGS = 20,
};

/* In the order of the table. */
typedef enum tensor_kind { OUT, LSE, DOUT, DLSE } tensor_kind;

typedef struct merger {
    cl_state *state;
    const nf_merging *merging;
    const nf_context *context;
    cl_context cl;
    cl_program program;
    cl_kernel kernel; /* at hand */
    cl_mem table, scratch;
    cl_command_queue own_queue;
    int64_t rows, dim;
    cl_chain chain;
} merger;

/* ---- Tensors ----------------------------------------------------------------------------------------------------- */

static const nf_tensor *shared_tensor(const nf_merging *m, tensor_kind kind)
{
    const nf_tensor *const tensors[SHARED_TENSORS] = {m->out, m->lse, m->dout, m->dlse};
    return tensors[kind];
}

static const nf_tensor *part_tensor(const nf_merging *m, tensor_kind kind, int64_t part)
{
    const nf_tensor *const *const arrays[TENSORS_OF_PART] = {m->out_parts, m->lse_parts, m->dout_parts, m->dlse_parts};
    return arrays[kind] ? arrays[kind][part] : NULL;
}

static int64_t shared_at(tensor_kind kind)
{
    return GPU_MERGE_TENSORS + (int64_t)kind * GPU_MERGE_WORDS;
}

static int64_t part_at(tensor_kind kind, int64_t part)
{
    return GPU_MERGE_TENSORS + (SHARED_TENSORS + TENSORS_OF_PART * part + (int64_t)kind) * GPU_MERGE_WORDS;
}

static nf_status check_buffers(const merger *m)
{
    static const char *const names[] = {"out", "lse", "dout", "dlse"};
    nf_status status = NF_OK;
    for (int kind = OUT; status == NF_OK && kind <= DLSE; kind++) {
        const nf_tensor *shared = shared_tensor(m->merging, (tensor_kind)kind);
        if (shared)
            status = cl_check_buffer(m->state, m->cl, shared, names[kind]);
        for (int64_t i = 0; status == NF_OK && i < m->merging->count; i++) {
            char name[40];
            const nf_tensor *part = part_tensor(m->merging, (tensor_kind)kind, i);
            snprintf(name, sizeof name, "%s_parts[%lld]", names[kind], (long long)i);
            if (part)
                status = cl_check_buffer(m->state, m->cl, part, name);
        }
    }
    return status;
}

static void describe_tensor(int64_t *words, const nf_tensor *tensor, int32_t axes)
{
    if (!tensor)
        return;
    words[GPU_MERGE_OFFSET] = tensor->offset;
    for (int32_t a = 0; a < axes; a++)
        words[GPU_MERGE_STRIDE_AXIS + a] = tensor->strides[a];
    words[GPU_MERGE_STRIDE_DIM] = tensor->rank > axes ? tensor->strides[axes] : 0;
}

static void fill_table(const merger *m, int64_t *table)
{
    const nf_tensor *out = m->merging->out;
    const int32_t axes = out->rank - 1;
    table[GPU_MERGE_AXES] = axes;
    table[GPU_MERGE_ROWS] = m->rows;
    table[GPU_MERGE_DIM] = m->dim;
    for (int32_t a = 0; a < axes; a++)
        table[GPU_MERGE_EXTENT + a] = out->extents[a];
    for (int kind = OUT; kind <= DLSE; kind++) {
        describe_tensor(table + shared_at((tensor_kind)kind), shared_tensor(m->merging, (tensor_kind)kind), axes);
        for (int64_t i = 0; i < m->merging->count; i++)
            describe_tensor(table + part_at((tensor_kind)kind, i), part_tensor(m->merging, (tensor_kind)kind, i), axes);
    }
}

/* ---- What a call makes ------------------------------------------------------------------------------------------- */

/* One for each type, built by the first call that needs it. */
static nf_status find_program(merger *m)
{
    const bool wide = m->merging->out->dtype == NF_F64;
    if (wide && !cl_used_device(m->state)->limits.fp64)
        return nf_fail(NF_ERR_UNSUPPORTED, "out: dtype f64: the device has no double precision");
    gpu_plan plan = {.shape = "merge", .source = gpu_merge_source};
    snprintf(plan.options, sizeof plan.options, "-DRANK=1 -DIN_TYPE=%d -DOUT_TYPE=%d", (int)m->merging->out->dtype,
             (int)m->merging->out->dtype);
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
    const size_t words = (size_t)part_at(OUT, m->merging->count);
    int64_t *table = nf_alloc_array(m->context, words, sizeof *table);
    if (!table)
        return NF_ERR_MEMORY;
    fill_table(m, table);
    nf_status status = make_buffer(m, &m->table, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, words * sizeof *table, table,
                                   "the tables of merging");
    nf_release(m->context, table);
    if (status != NF_OK || m->merging->dout)
        return status;
    const size_t reals = (size_t)m->rows * (2 + (size_t)m->dim);
    return make_buffer(m, &m->scratch, CL_MEM_READ_WRITE, reals * nf_dtype_size(m->merging->out->dtype), NULL,
                       "the sums of merging");
}

static nf_status open_chain(merger *m, const nf_exec *exec)
{
    const int64_t launches = m->merging->dout ? m->merging->count : 2 * m->merging->count + 1;
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
    m->chain.events = nf_alloc_array(m->context, (size_t)(BARRIERS + launches), sizeof *m->chain.events);
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

/* The arguments of one launch. */
typedef struct arguments {
    struct {
        cl_mem buffer; /* NULL: number */
        cl_long number;
    } list[MOST_ARGS];
    cl_uint count;
} arguments;

static void add_buffer(arguments *a, cl_mem buffer)
{
    a->list[a->count++].buffer = buffer;
}

static void add_number(arguments *a, int64_t number)
{
    a->list[a->count].buffer = NULL;
    a->list[a->count++].number = number;
}

/* An absent tensor is the table's buffer at -1. */
static void add_tensor(const merger *m, arguments *a, const nf_tensor *tensor, int64_t at)
{
    add_buffer(a, tensor ? tensor->data : m->table);
    add_number(a, tensor ? at : -1);
}

static void add_shared(const merger *m, arguments *a, tensor_kind kind)
{
    add_tensor(m, a, shared_tensor(m->merging, kind), shared_at(kind));
}

static void add_part(const merger *m, arguments *a, tensor_kind kind, int64_t part)
{
    add_tensor(m, a, part_tensor(m->merging, kind, part), part_at(kind, part));
}

static nf_status use_kernel(merger *m, const char *name)
{
    cl_int error;
    if (m->kernel)
        m->state->api.clReleaseKernel(m->kernel);
    m->kernel = m->state->api.clCreateKernel(m->program, name, &error);
    if (error == CL_SUCCESS)
        return NF_OK;
    m->kernel = NULL;
    return cl_fail(error, "opencl: kernel %s", name);
}

/* Of the kernel at hand, in groups as large as it and the device allow. */
static nf_status launch(merger *m, const char *name, const arguments *a, int64_t elements)
{
    const cl_api *api = &m->state->api;
    for (cl_uint i = 0; i < a->count; i++) {
        const bool buffer = a->list[i].buffer != NULL;
        const cl_int error = buffer ? api->clSetKernelArg(m->kernel, i, sizeof(cl_mem), &a->list[i].buffer)
                                    : api->clSetKernelArg(m->kernel, i, sizeof(cl_long), &a->list[i].number);
        if (error != CL_SUCCESS)
            return cl_fail(error, "opencl: argument %u of kernel %s", (unsigned)i, name);
    }
    size_t most = 0;
    int64_t items = nf_min64(GROUP_ITEMS, cl_used_device(m->state)->limits.group_items);
    if (api->clGetKernelWorkGroupInfo(m->kernel, m->chain.device, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most,
                                      NULL) == CL_SUCCESS)
        items = nf_min64(items, (int64_t)most);
    items = nf_max64(items, 1);
    const int64_t groups = nf_min64((elements - 1) / items + 1, MOST_GROUPS);
    return cl_chain_launch(&m->chain, m->kernel, name, (size_t)groups, (size_t)items);
}

/* The largest lse of all parts is known before the first weight is formed. */
static nf_status launch_forward(merger *m)
{
    nf_status status = use_kernel(m, "merge_max");
    for (int64_t i = 0; status == NF_OK && i < m->merging->count; i++) {
        arguments a = {.list = {{.buffer = m->table}, {.buffer = m->scratch}}, .count = 2};
        add_number(&a, i == 0);
        add_part(m, &a, LSE, i);
        status = launch(m, "merge_max", &a, m->rows);
    }
    if (status == NF_OK)
        status = use_kernel(m, "merge_add");
    for (int64_t i = 0; status == NF_OK && i < m->merging->count; i++) {
        arguments a = {.list = {{.buffer = m->table}, {.buffer = m->scratch}}, .count = 2};
        add_number(&a, i == 0);
        add_part(m, &a, LSE, i);
        add_part(m, &a, OUT, i);
        status = launch(m, "merge_add", &a, m->rows * m->dim);
    }
    if (status == NF_OK)
        status = use_kernel(m, "merge_end");
    arguments a = {.list = {{.buffer = m->table}, {.buffer = m->scratch}}, .count = 2};
    add_shared(m, &a, OUT);
    add_shared(m, &a, LSE);
    return status == NF_OK ? launch(m, "merge_end", &a, m->rows * m->dim) : status;
}

static nf_status launch_backward(merger *m)
{
    nf_status status = use_kernel(m, "merge_backward");
    for (int64_t i = 0; status == NF_OK && i < m->merging->count; i++) {
        arguments a = {.list = {{.buffer = m->table}}, .count = 1};
        add_shared(m, &a, LSE);
        add_shared(m, &a, OUT);
        add_shared(m, &a, DOUT);
        add_shared(m, &a, DLSE);
        add_part(m, &a, LSE, i);
        add_part(m, &a, OUT, i);
        add_part(m, &a, DOUT, i);
        add_part(m, &a, DLSE, i);
        status = launch(m, "merge_backward", &a, m->rows);
    }
    return status;
}

static nf_status run(merger *m)
{
    cl_event shared = NULL;
    nf_status status = cl_chain_begin(&m->chain, NULL);
    if (status == NF_OK)
        status = m->merging->dout ? launch_backward(m) : launch_forward(m);
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
    merger m = {.state = (cl_state *)opened, .merging = merging, .rows = 1};
    const int32_t last = merging->out->rank - 1;
    m.context = m.state->context;
    m.dim = merging->out->extents[last];
    for (int32_t a = 0; a < last; a++)
        m.rows *= merging->out->extents[a];
    nf_status status = cl_state_context(m.state, &m.cl);
    if (status == NF_OK)
        status = check_buffers(&m);
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
