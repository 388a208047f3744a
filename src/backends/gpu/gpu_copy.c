/* Copies between host tensors of any strides and dense buffers. */
#include "backends/gpu/gpu_copy.h"

#include <stdbool.h>
#include <string.h>

size_t gpu_tensor_bytes(const nf_tensor *tensor)
{
    size_t bytes = nf_dtype_size(tensor->dtype);
    for (int32_t i = 0; i < tensor->rank; i++)
        bytes *= (size_t)tensor->extents[i];
    return bytes;
}

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

void gpu_gather(void *dense, const nf_tensor *tensor)
{
    copy(tensor, dense, true);
}

void gpu_scatter(const nf_tensor *tensor, const void *dense)
{
    copy(tensor, (char *)dense, false);
}
