/* Where the vectors of strided tensors lie. */
#include "backends/reference/reference.h"

ref_row ref_row_at(const nf_tensor *tensor, int64_t batch, int32_t axes, const int64_t *index, int64_t head)
{
    int64_t offset = batch * tensor->strides[0] + head * tensor->strides[1 + axes];
    for (int32_t a = 0; a < axes; a++)
        offset += index[a] * tensor->strides[1 + a];
    return (ref_row){.data = (char *)tensor->data + offset * (int64_t)nf_dtype_size(tensor->dtype),
                     .stride = tensor->rank > axes + 2 ? tensor->strides[axes + 2] : 0,
                     .dtype = tensor->dtype};
}
