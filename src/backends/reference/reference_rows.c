/* Reading and writing the vectors of strided tensors as ref_real. */
#include "backends/reference/reference.h"

#include "core/dtype.h"

ref_row ref_row_at(const nf_tensor *tensor, int64_t batch, int32_t axes, const int64_t *index, int64_t head)
{
    int64_t offset = batch * tensor->strides[0] + head * tensor->strides[1 + axes];
    for (int32_t a = 0; a < axes; a++)
        offset += index[a] * tensor->strides[1 + a];
    return (ref_row){.data = (char *)tensor->data + offset * (int64_t)nf_dtype_size(tensor->dtype),
                     .stride = tensor->rank > axes + 2 ? tensor->strides[axes + 2] : 0,
                     .dtype = tensor->dtype};
}

static ref_real read_element(const void *data, int64_t index, nf_dtype dtype)
{
    switch (dtype) {
    case NF_F64:
        return ((const double *)data)[index];
    case NF_BF16:
        return (ref_real)nf_bf16_to_f32(((const uint16_t *)data)[index]);
    case NF_F16:
        return (ref_real)nf_f16_to_f32(((const uint16_t *)data)[index]);
    case NF_F32:
    default:
        return (ref_real)((const float *)data)[index];
    }
}

static void write_element(void *data, int64_t index, nf_dtype dtype, ref_real value)
{
    switch (dtype) {
    case NF_F64:
        ((double *)data)[index] = (double)value;
        break;
    case NF_BF16:
        ((uint16_t *)data)[index] = nf_f64_to_bf16((double)value);
        break;
    case NF_F16:
        ((uint16_t *)data)[index] = nf_f64_to_f16((double)value);
        break;
    case NF_F32:
    default:
        ((float *)data)[index] = (float)value;
    }
}

void ref_read(ref_row row, int64_t count, ref_real *to)
{
    for (int64_t i = 0; i < count; i++)
        to[i] = read_element(row.data, i * row.stride, row.dtype);
}

void ref_write(ref_row row, int64_t count, const ref_real *from)
{
    for (int64_t i = 0; i < count; i++)
        write_element(row.data, i * row.stride, row.dtype, from[i]);
}
