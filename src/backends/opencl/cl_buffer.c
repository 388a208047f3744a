/* The check of a caller's buffers. */
#include "backends/opencl/cl.h"

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
