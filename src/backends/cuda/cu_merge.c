/* nf_merge and its gradients on tensors in device memory. What a call needs there it allocates, uses and frees in the
 * order of its stream, so that nothing waits. */
#include "backends/gpu/gpu_merge.h"

#include "backends/cuda/cu.h"
#include "core/mem.h"

typedef struct merger {
    cu_state *state;
    const cu_api *api;
    const nf_merging *merging;
    const nf_exec *exec;
    CUmodule module;
    CUstream stream;
    bool own_stream;
    CUdeviceptr table, scratch; /* one allocation */
} merger;

/* ---- Before ------------------------------------------------------------------------------------------------------ */

static nf_status check_pointer(void *data, const nf_tensor *tensor, const char *name)
{
    return cu_check_pointer(((const merger *)data)->state, tensor, name);
}

static nf_status open_stream(merger *m)
{
    bool capturing = false;
    m->stream = m->exec && m->exec->queue ? m->exec->queue : m->state->stream;
    if (!m->stream) {
        const CUresult error = m->api->cuStreamCreate(&m->stream, CU_STREAM_DEFAULT);
        m->own_stream = error == CUDA_SUCCESS;
        return m->own_stream ? NF_OK : cu_fail(m->api, error, "cuda: no stream");
    }
    const nf_status status = cu_check_stream(m->state, m->stream, &capturing);
    if (status == NF_OK && capturing)
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue is being captured, merging cannot be");
    return status;
}

static nf_status check(merger *m)
{
    char options[128];
    nf_status status = cu_check_events(m->exec);
    if (status == NF_OK)
        status = gpu_merge_each_tensor(m->merging, check_pointer, m);
    if (status == NF_OK)
        status = open_stream(m);
    gpu_merge_options(m->merging, options, sizeof options);
    return status == NF_OK ? cu_state_module(m->state, options, &m->module) : status;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

static nf_status upload(const merger *m, size_t words)
{
    int64_t *table = nf_alloc_array(m->state->context, words, sizeof *table);
    if (!table)
        return NF_ERR_MEMORY;
    gpu_merge_fill(m->merging, table);
    /* From pageable memory: it has been read when this returns. */
    const CUresult error = m->api->cuMemcpyHtoDAsync(m->table, table, words * sizeof *table, m->stream);
    nf_release(m->state->context, table);
    return error == CUDA_SUCCESS ? NF_OK
                                 : cu_fail(m->api, error, "cuda: the tables of merging cannot be copied to the device");
}

static nf_status make_memory(merger *m)
{
    const size_t words = gpu_merge_table_words(m->merging), table = words * sizeof(int64_t);
    const size_t bytes = table + gpu_merge_scratch_bytes(m->merging);
    const CUresult error = m->api->cuMemAllocAsync(&m->table, bytes, m->stream);
    if (error != CUDA_SUCCESS) {
        m->table = 0;
        return cu_fail(m->api, error, "cuda: %zu bytes of device memory for merging", bytes);
    }
    m->scratch = m->table + table;
    return upload(m, words);
}

static nf_status release_memory(merger *m)
{
    const CUresult error = m->table ? m->api->cuMemFreeAsync(m->table, m->stream) : CUDA_SUCCESS;
    m->table = 0;
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(m->api, error, "cuda: the memory of merging cannot be freed");
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

/* All arguments have 64 bits. */
typedef union argument {
    CUdeviceptr memory;
    int64_t number;
} argument;

static argument argument_of(const merger *m, const gpu_merge_arg *arg)
{
    switch (arg->kind) {
    case GPU_MERGE_ARG_NUMBER:
        return (argument){.number = arg->number};
    case GPU_MERGE_ARG_SCRATCH:
        return (argument){.memory = m->scratch};
    case GPU_MERGE_ARG_TENSOR:
        return (argument){.memory = arg->tensor ? (CUdeviceptr)(uintptr_t)arg->tensor->data : m->table};
    default:
        return (argument){.memory = m->table};
    }
}

static nf_status launch(void *data, const gpu_merge_launch *l)
{
    const merger *const m = data;
    argument arguments[GPU_MERGE_MOST_ARGS];
    void *places[GPU_MERGE_MOST_ARGS];
    CUfunction kernel;
    for (int i = 0; i < l->count; i++) {
        arguments[i] = argument_of(m, &l->args[i]);
        places[i] = &arguments[i];
    }
    const unsigned groups = (unsigned)gpu_merge_groups(l->elements, GPU_MERGE_GROUP_ITEMS);
    CUresult error = m->api->cuModuleGetFunction(&kernel, m->module, l->kernel);
    if (error == CUDA_SUCCESS)
        error = m->api->cuLaunchKernel(kernel, groups, 1, 1, GPU_MERGE_GROUP_ITEMS, 1, 1, 0, m->stream, places, NULL);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(m->api, error, "cuda: kernel %s in %u blocks", l->kernel, groups);
}

static nf_status wait_for_all(const merger *m)
{
    const CUresult error = m->api->cuStreamSynchronize(m->stream);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(m->api, error, "cuda: the device failed while merging");
}

static nf_status run(merger *m)
{
    const bool signals = m->exec && m->exec->signal_event;
    CUevent signal = NULL;
    nf_status status = cu_wait_for(m->api, m->stream, m->exec);
    if (status == NF_OK)
        status = make_memory(m);
    if (status == NF_OK)
        status = gpu_merge_each_launch(m->merging, launch, m);
    if (status == NF_OK)
        status = release_memory(m);
    if (status == NF_OK && signals)
        status = cu_signal(m->api, m->stream, &signal);
    if (status == NF_OK && m->own_stream && !signals)
        status = wait_for_all(m);
    if (status == NF_OK && signals)
        *m->exec->signal_event = signal;
    else if (signal)
        m->api->cuEventDestroy(signal);
    return status;
}

/* After a failure nothing is in flight. */
static void settle(merger *m)
{
    if (m->table)
        m->api->cuMemFreeAsync(m->table, m->stream);
    m->api->cuStreamSynchronize(m->stream);
}

nf_status cu_merge(const void *opened, const nf_merging *merging, const nf_exec *exec)
{
    merger m = {.state = (cu_state *)opened, .merging = merging, .exec = exec};
    m.api = &m.state->api;
    nf_status status = cu_enter(m.state);
    if (status != NF_OK)
        return status;
    status = check(&m);
    if (status == NF_OK && (status = run(&m)) != NF_OK)
        settle(&m);
    if (m.own_stream)
        m.api->cuStreamDestroy(m.stream);
    cu_leave(m.state);
    return status;
}
