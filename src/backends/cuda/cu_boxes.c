/* What the driver's tensor maps can describe of a tensor, and the maps. */
#include "backends/cuda/cu_boxes.h"

#include <inttypes.h>

#include "core/dtype.h"

enum { ELEMENT_BYTES = 2, MOST_SPAN = 256, MOST_STEP = 8 };

static const int64_t most_extent = INT32_MAX; /* instructions take coordinates as int; a map has up to 2^32 */
static const int64_t most_stride = INT64_C(1) << 40;

int32_t cu_boxes_most(int64_t step)
{
    return (int32_t)((MOST_SPAN - 1) / step + 1);
}

static nf_status check_stride(const nf_tensor *tensor, int i, const char *name)
{
    const int64_t stride = tensor->strides[i];
    if (stride <= 0 || stride * ELEMENT_BYTES % CU_BOX_ALIGNMENT || stride >= most_stride / ELEMENT_BYTES)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "%s: strides[%d] is %" PRId64
                       ", boxes are copied where it is a positive multiple of %d elements",
                       name, i, stride, CU_BOX_ALIGNMENT / ELEMENT_BYTES);
    return NF_OK;
}

static nf_status add_coordinate(cu_box_layout *layout, const nf_tensor *tensor, int i, const char *name, int64_t tile,
                                int64_t step)
{
    const nf_status status = check_stride(tensor, i, name);
    if (status != NF_OK)
        return status;
    if (tensor->extents[i] > most_extent || step > MOST_STEP || (tile - 1) * step >= MOST_SPAN)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "%s: %" PRId64 " of %" PRId64 " indices, %" PRId64
                       " apart: boxes have at most %d, %d apart, and span %d",
                       name, tile, tensor->extents[i], step, MOST_SPAN, MOST_STEP, MOST_SPAN);
    const int at = layout->count++;
    layout->extents[at] = (cuuint64_t)tensor->extents[i];
    layout->strides[at] = (cuuint64_t)(tensor->strides[i] * ELEMENT_BYTES);
    layout->box[at] = (cuuint32_t)((tile - 1) * step + 1);
    layout->steps[at] = (cuuint32_t)step;
    return NF_OK;
}

/* The coordinate whose indices, continued, are those of index i of the tensor, or 0. */
static int find_continued(const cu_box_layout *layout, const nf_tensor *tensor, int i)
{
    for (int at = 1; at < layout->count; at++)
        if ((cuuint64_t)(tensor->strides[i] * ELEMENT_BYTES) == layout->extents[at] * layout->strides[at] &&
            layout->extents[at] * (cuuint64_t)tensor->extents[i] <= (cuuint64_t)most_extent)
            return at;
    return 0;
}

/* Batch or head: a coordinate of its own, or, where those are scarce, part of another. */
static nf_status add_index(cu_box_layout *layout, const nf_tensor *tensor, int i, const char *name, bool scarce,
                           int32_t *coordinate, int32_t *per_index)
{
    if (tensor->extents[i] == 1)
        return NF_OK;
    const int at = scarce ? find_continued(layout, tensor, i) : 0;
    if (at) {
        *coordinate = at;
        *per_index = (int32_t)layout->extents[at];
        layout->extents[at] *= (cuuint64_t)tensor->extents[i];
        return NF_OK;
    }
    if (layout->count == CU_BOX_COORDINATES)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "%s: boxes have %d coordinates, and strides[%d] continues none of the other indices", name,
                       CU_BOX_COORDINATES, i);
    *coordinate = layout->count;
    *per_index = 1;
    return add_coordinate(layout, tensor, i, name, 1, 1);
}

static void add_nothing(cu_box_layout *layout)
{
    const int at = layout->count++;
    layout->extents[at] = layout->box[at] = layout->steps[at] = 1;
    layout->strides[at] = CU_BOX_ALIGNMENT;
}

nf_status cu_boxes_lay_out(cu_box_layout *layout, const nf_tensor *tensor, const char *name, const int64_t *tile,
                           const int64_t *step)
{
    const int head = tensor->rank - 2, dim = tensor->rank - 1, axes = head - 1;
    cu_box_layout made = {.extents = {(cuuint64_t)tensor->extents[dim]},
                          .box = {CU_BOX_DIMS},
                          .steps = {1},
                          .count = 1,
                          .boxes = {.axis = {1, 1, 1, 1}, .batch = 1, .head = 1}};
    nf_status status = NF_OK;
    if (tensor->extents[dim] > 1 && tensor->strides[dim] != 1)
        return nf_fail(NF_ERR_UNSUPPORTED, "%s: strides[%d] is %" PRId64 ", boxes are copied where it is 1", name, dim,
                       tensor->strides[dim]);
    for (int a = axes - 1; status == NF_OK && a >= 0; a--) {
        if (tensor->extents[1 + a] == 1 && tile[a] == 1)
            continue;
        made.boxes.axis[a] = made.count;
        status = add_coordinate(&made, tensor, 1 + a, name, tile[a], step[a]);
    }
    const int wanted = made.count + (tensor->extents[head] > 1) + (tensor->extents[0] > 1);
    const int scarce = wanted - CU_BOX_COORDINATES; /* batches are joined before heads */
    if (status == NF_OK)
        status = add_index(&made, tensor, head, name, scarce > 1, &made.boxes.head, &made.boxes.per_head);
    if (status == NF_OK)
        status = add_index(&made, tensor, 0, name, scarce > 0, &made.boxes.batch, &made.boxes.per_batch);
    if (status != NF_OK)
        return status;
    while (made.count < CU_BOX_COORDINATES)
        add_nothing(&made);
    *layout = made;
    return NF_OK;
}

int cu_boxes_fit(CUdeviceptr address)
{
    return address % CU_BOX_ALIGNMENT == 0;
}

nf_status cu_boxes_encode(const cu_api *api, const cu_box_layout *layout, CUdeviceptr address, cu_boxes *boxes)
{
    *boxes = layout->boxes;
    const CUresult error = api->cuTensorMapEncodeTiled(
        &boxes->map, CU_TENSOR_MAP_DATA_TYPE_UINT16, CU_BOX_COORDINATES, (void *)(uintptr_t)address, layout->extents,
        layout->strides + 1, layout->box, layout->steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return error == CUDA_SUCCESS ? NF_OK : cu_fail(api, error, "cuda: a tensor cannot be copied in boxes");
}
