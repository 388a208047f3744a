/* One tensor: description, checks, DLPack. Overlap is in overlap.c. */
#include "core/tensor.h"

#include <inttypes.h>
#include <string.h>

#include "core/check.h"
#include "core/dtype.h"
#include "core/status.h"

/* Greatest distance in bytes between two elements of a tensor: sums of a few of them still fit int64_t. */
static const int64_t LONGEST_SPAN = INT64_C(1) << 60;

const char *nf_memory_name(nf_memory memory)
{
    static const char *const names[] = {[NF_HOST] = "host", [NF_CUDA] = "cuda", [NF_OPENCL] = "opencl"};
    return (unsigned)memory <= NF_OPENCL ? names[memory] : NULL;
}

/* Distance in bytes from the lowest to the highest element; -1 if it is out of bounds. */
static int64_t span_bytes(const nf_tensor *tensor)
{
    int64_t span = 0;
    for (int32_t i = 0; i < tensor->rank; i++) {
        int64_t length;
        const int64_t steps = tensor->extents[i] - 1;
        if (__builtin_mul_overflow(steps, tensor->strides[i], &length) || length < -LONGEST_SPAN ||
            length > LONGEST_SPAN)
            return -1;
        span += length < 0 ? -length : length;
        if (span > LONGEST_SPAN / 8)
            return -1;
    }
    return span * (int64_t)nf_dtype_size(tensor->dtype);
}

nf_status nf_tensor_check(const nf_tensor *tensor, const char *name)
{
    const nf_status status = nf_check_size(tensor, sizeof *tensor, name, "nf_tensor");
    if (status != NF_OK)
        return status;
    if (!nf_dtype_is_valid(tensor->dtype))
        return nf_fail(NF_ERR_TENSOR, "%s: dtype %d is no nf_dtype", name, (int)tensor->dtype);
    if (!nf_memory_name(tensor->memory))
        return nf_fail(NF_ERR_TENSOR, "%s: memory %d is no nf_memory", name, (int)tensor->memory);
    if (tensor->rank < 1 || tensor->rank > NF_MAX_TENSOR_RANK)
        return nf_fail(NF_ERR_TENSOR, "%s: rank %d must lie in 1..%d", name, (int)tensor->rank, NF_MAX_TENSOR_RANK);
    if (tensor->reserved)
        return nf_fail(NF_ERR_TENSOR, "%s: reserved %d must be 0", name, (int)tensor->reserved);
    for (int32_t i = 0; i < tensor->rank; i++)
        if (tensor->extents[i] < 1)
            return nf_fail(NF_ERR_TENSOR, "%s: extent %d is %" PRId64 ", must be at least 1", name, (int)i,
                           tensor->extents[i]);
    if (tensor->memory == NF_OPENCL ? tensor->offset < 0 || tensor->offset > LONGEST_SPAN / 8 : tensor->offset != 0)
        return nf_fail(NF_ERR_TENSOR, "%s: offset %" PRId64 " %s", name, tensor->offset,
                       tensor->memory == NF_OPENCL ? "must lie in 0..2^57" : "must be 0 in memory that has addresses");
    if (span_bytes(tensor) < 0)
        return nf_fail(NF_ERR_TENSOR, "%s: its elements lie more than 2^57 apart", name);
    return NF_OK;
}

nf_status nf_tensor_check_data(const nf_tensor *tensor, const char *name)
{
    const nf_status status = nf_tensor_check(tensor, name);
    if (status != NF_OK)
        return status;
    if (!tensor->data)
        return nf_fail(NF_ERR_TENSOR, "%s: data is NULL", name);
    const size_t size = nf_dtype_size(tensor->dtype);
    if (tensor->memory != NF_OPENCL && (uintptr_t)tensor->data % size)
        return nf_fail(NF_ERR_TENSOR, "%s: data %p is not aligned to its element size, %zu bytes", name, tensor->data,
                       size);
    return NF_OK;
}

double nf_tensor_bytes(const nf_tensor *tensor)
{
    double bytes = (double)nf_dtype_size(tensor->dtype);
    for (int32_t i = 0; i < tensor->rank; i++)
        bytes *= (double)tensor->extents[i];
    return bytes;
}

static nf_status make_contiguous(nf_tensor *tensor, void *data, nf_dtype dtype, int32_t rank, const int64_t *extents,
                                 const char *name)
{
    if (rank < 1 || rank > NF_MAX_TENSOR_RANK)
        return nf_fail(NF_ERR_TENSOR, "%s: rank %d must lie in 1..%d", name, (int)rank, NF_MAX_TENSOR_RANK);
    nf_tensor made = {.size = sizeof made, .data = data, .dtype = dtype, .memory = NF_HOST, .rank = rank};
    int64_t stride = 1;
    for (int32_t i = rank - 1; i >= 0; i--) {
        made.extents[i] = extents[i];
        made.strides[i] = stride;
        if (extents[i] > 0 && __builtin_mul_overflow(stride, extents[i], &stride))
            return nf_fail(NF_ERR_TENSOR, "%s: its number of elements exceeds 2^63 - 1", name);
    }
    const nf_status status = nf_tensor_check(&made, name);
    if (status == NF_OK)
        *tensor = made;
    return status;
}

nf_status nf_tensor_init(nf_tensor *tensor, void *data, nf_dtype dtype, int32_t rank, const int64_t *extents)
{
    if (!tensor || !extents)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL", tensor ? "extents" : "tensor");
    return make_contiguous(tensor, data, dtype, rank, extents, "tensor");
}

/* ---- DLPack 1.0
 * ------------------------------------------------------------------------------------------------------ */

typedef struct dl_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t rank;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t *extents;
    const int64_t *strides; /* in elements; NULL: row-major and contiguous */
    uint64_t byte_offset;
} dl_tensor;

enum { DL_FLOAT = 2, DL_BFLOAT = 4 };
enum { DL_CPU = 1, DL_CUDA = 2, DL_CUDA_HOST = 3, DL_OPENCL = 4, DL_CUDA_MANAGED = 13 };

static nf_status convert_type(const dl_tensor *source, nf_dtype *dtype)
{
    static const struct {
        int code, bits;
        nf_dtype dtype;
    } known[] = {{DL_FLOAT, 32, NF_F32}, {DL_FLOAT, 64, NF_F64}, {DL_BFLOAT, 16, NF_BF16}, {DL_FLOAT, 16, NF_F16}};
    if (source->lanes != 1)
        return nf_fail(NF_ERR_TENSOR, "dltensor: lanes %d must be 1", source->lanes);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].code == source->code && known[i].bits == source->bits) {
            *dtype = known[i].dtype;
            return NF_OK;
        }
    return nf_fail(NF_ERR_TENSOR, "dltensor: type code %d with %d bits is none of f32, f64, bf16 and f16", source->code,
                   source->bits);
}

static nf_status convert_device(const dl_tensor *source, nf_memory *memory)
{
    switch (source->device_type) {
    case DL_CPU:
    case DL_CUDA_HOST:
        *memory = NF_HOST;
        return NF_OK;
    case DL_CUDA:
    case DL_CUDA_MANAGED:
        *memory = NF_CUDA;
        return NF_OK;
    case DL_OPENCL:
        *memory = NF_OPENCL;
        return NF_OK;
    default:
        return nf_fail(NF_ERR_TENSOR, "dltensor: device type %d is none of cpu, cuda and opencl",
                       (int)source->device_type);
    }
}

/* The handle of an OpenCL buffer is no address: its offset stays a number, of elements. */
static nf_status set_offset(nf_tensor *tensor, uint64_t byte_offset)
{
    const uint64_t size = nf_dtype_size(tensor->dtype);
    if (byte_offset % size || byte_offset > INT64_MAX)
        return nf_fail(NF_ERR_TENSOR,
                       "dltensor: byte_offset %" PRIu64 " into an OpenCL buffer is no multiple of %" PRIu64,
                       byte_offset, size);
    tensor->offset = (int64_t)(byte_offset / size);
    return NF_OK;
}

nf_status nf_tensor_from_dlpack(nf_tensor *tensor, const void *dltensor)
{
    if (!tensor || !dltensor)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL", tensor ? "dltensor" : "tensor");
    dl_tensor source;
    memcpy(&source, dltensor, sizeof source);
    nf_dtype dtype = NF_F32;
    nf_memory memory = NF_HOST;
    nf_status status = convert_type(&source, &dtype);
    if (status != NF_OK || (status = convert_device(&source, &memory)) != NF_OK)
        return status;
    nf_tensor made;
    const uint64_t moved = memory == NF_OPENCL ? 0 : source.byte_offset;
    char *data = source.data ? (char *)source.data + moved : NULL;
    if (!source.extents)
        return nf_fail(NF_ERR_TENSOR, "dltensor: shape is NULL");
    if ((status = make_contiguous(&made, data, dtype, source.rank, source.extents, "dltensor")) != NF_OK)
        return status;
    made.memory = memory;
    if (memory == NF_OPENCL && (status = set_offset(&made, source.byte_offset)) != NF_OK)
        return status;
    if (source.strides)
        memcpy(made.strides, source.strides, (size_t)source.rank * sizeof made.strides[0]);
    if ((status = nf_tensor_check(&made, "dltensor")) != NF_OK)
        return status;
    *tensor = made;
    return NF_OK;
}
