/* Copies between host tensors of any strides and dense buffers, and the check of a caller's buffers. */
#include <string.h>

#include "backends/opencl/cl.h"

size_t cl_tensor_bytes(const nf_tensor *tensor)
{
    size_t bytes = nf_dtype_size(tensor->dtype);
    for (int32_t i = 0; i < tensor->rank; i++)
        bytes *= (size_t)tensor->extents[i];
    return bytes;
}

/* ---- Strided copies ---------------------------------------------------------------------------------------------- */

/* A run: elements of a tensor with one stride. */
typedef struct run {
    int64_t count, stride; /* in elements */
    size_t size;           /* of an element */
} run;

#define COPY_RUN(type)                                                                                                 \
    for (int64_t i = 0; i < r->count; i++) {                                                                           \
        if (gather)                                                                                                    \
            ((type *)dense)[i] = ((const type *)at)[i * r->stride];                                                    \
        else                                                                                                           \
            ((type *)at)[i * r->stride] = ((const type *)dense)[i];                                                    \
    }

static void copy_run(const run *r, void *dense, void *at, bool gather)
{
    if (r->stride == 1 || r->count == 1) {
        memcpy(gather ? dense : at, gather ? at : dense, (size_t)r->count * r->size);
        return;
    }
    switch (r->size) {
    case sizeof(uint16_t):
        COPY_RUN(uint16_t)
        break;
    case sizeof(uint32_t):
        COPY_RUN(uint32_t)
        break;
    default:
        COPY_RUN(uint64_t)
    }
}

/* The last dimensions that one stride walks through, as a run. Returns how many dimensions are before them. */
static int32_t longest_run(const nf_tensor *tensor, run *r)
{
    int32_t outer = tensor->rank - 1;
    *r = (run){tensor->extents[outer], tensor->strides[outer], nf_dtype_size(tensor->dtype)};
    while (outer > 0 &&
           (tensor->extents[outer - 1] == 1 || r->count == 1 || tensor->strides[outer - 1] == r->count * r->stride)) {
        outer--;
        if (r->count == 1)
            r->stride = tensor->strides[outer];
        r->count *= tensor->extents[outer];
    }
    return outer;
}

static void copy(const nf_tensor *tensor, char *dense, bool gather)
{
    run r;
    const int32_t outer = longest_run(tensor, &r);
    int64_t index[NF_MAX_TENSOR_RANK] = {0};
    char *at = tensor->data;
    for (;;) {
        copy_run(&r, dense, at, gather);
        dense += (size_t)r.count * r.size;
        int32_t a = outer - 1;
        for (; a >= 0 && ++index[a] == tensor->extents[a]; a--) {
            at -= (tensor->extents[a] - 1) * tensor->strides[a] * (int64_t)r.size;
            index[a] = 0;
        }
        if (a < 0)
            return;
        at += tensor->strides[a] * (int64_t)r.size;
    }
}

void cl_gather(void *dense, const nf_tensor *tensor)
{
    copy(tensor, dense, true);
}

void cl_scatter(const nf_tensor *tensor, const void *dense)
{
    copy(tensor, (char *)dense, false);
}

/* ---- The caller's buffers ---------------------------------------------------------------------------------------- */

/* Elements from the start of the buffer to the lowest one, and past the highest one. The core bounds both. */
static void element_range(const nf_tensor *tensor, int64_t *begin, int64_t *end)
{
    *begin = *end = tensor->offset;
    for (int32_t i = 0; i < tensor->rank; i++) {
        const int64_t span = (tensor->extents[i] - 1) * tensor->strides[i];
        *(span < 0 ? begin : end) += span;
    }
    ++*end;
}

nf_status cl_check_buffer(const cl_state *state, cl_context cl, const nf_tensor *tensor, const char *name)
{
    const cl_mem memory = tensor->data;
    cl_context owner = NULL;
    size_t bytes = 0;
    cl_int error = state->api.clGetMemObjectInfo(memory, CL_MEM_CONTEXT, sizeof owner, &owner, NULL);
    if (error == CL_SUCCESS)
        error = state->api.clGetMemObjectInfo(memory, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    if (error != CL_SUCCESS)
        return nf_fail(NF_ERR_TENSOR, "%s: data is no cl_mem: %s", name, cl_error_name(error));
    if (owner != cl)
        return nf_fail(NF_ERR_TENSOR, "%s: its cl_mem belongs to another cl_context", name);
    int64_t begin, end;
    element_range(tensor, &begin, &end);
    if (begin < 0 || (uint64_t)end > bytes / nf_dtype_size(tensor->dtype))
        return nf_fail(NF_ERR_TENSOR, "%s: elements %lld..%lld do not lie in its cl_mem of %zu bytes", name,
                       (long long)begin, (long long)end - 1, bytes);
    return NF_OK;
}
