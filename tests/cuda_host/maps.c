/* Maps of tensors, which copies of boxes read. What the driver refuses is as its manual has it, for elements of up to 8
 * bytes that are not packed, and no interleaving. */
#include <string.h>

#include "map.h"
#include "mock.h"

enum { UNIT = 16, MOST_BOX = 256, MOST_STEP = 8, LINE = 128 };
static const uint64_t most_stride = UINT64_C(1) << 40, most_extent = UINT64_C(1) << 32;

/* 0: of none that is known here. */
static int bytes_of(CUtensorMapDataType type)
{
    switch ((int)type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
        return 2;
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
        return 4;
    default:
        return 0;
    }
}

static bool axis_fits(uint64_t extent, uint64_t stride, uint32_t box, uint32_t step)
{
    return extent >= 1 && extent <= most_extent && stride % UNIT == 0 && stride < most_stride && box >= 1 &&
           box <= MOST_BOX && step >= 1 && step <= MOST_STEP;
}

MOCK CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                     const cuuint64_t *extents, const cuuint64_t *strides, const cuuint32_t *box,
                                     const cuuint32_t *steps, CUtensorMapInterleave interleave,
                                     CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                     CUtensorMapFloatOOBfill fill)
{
    const CUresult code = mock_enter("cuTensorMapEncodeTiled");
    const int bytes = bytes_of(type);
    host_map made = {.mark = HOST_MAP_MARK, .rank = (uint8_t)rank, .element_bytes = (uint8_t)bytes};
    if (code != CUDA_SUCCESS)
        return code;
    if ((uintptr_t)map % HOST_MAP_ALIGNMENT || (uintptr_t)address % UNIT || !bytes || rank < 1 ||
        rank > HOST_MAP_RANK || (int)interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
        (int)fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE || (int)promotion > CU_TENSOR_MAP_L2_PROMOTION_L2_256B)
        return INVALID_VALUE;
    if ((int)swizzle != CU_TENSOR_MAP_SWIZZLE_NONE && (int)swizzle != CU_TENSOR_MAP_SWIZZLE_128B)
        return INVALID_VALUE;
    for (cuuint32_t axis = 0; axis < rank; axis++) {
        made.strides[axis] = axis ? strides[axis - 1] : 0;
        if (!axis_fits(extents[axis], made.strides[axis], box[axis], steps[axis]))
            return INVALID_VALUE;
        made.box[axis] = (uint16_t)box[axis];
        made.element_strides[axis] = (uint8_t)steps[axis];
        made.last[axis] = (uint32_t)(extents[axis] - 1);
    }
    const uint32_t line = box[0] * (uint32_t)bytes;
    if (line % UNIT || ((int)swizzle == CU_TENSOR_MAP_SWIZZLE_128B && line > LINE))
        return INVALID_VALUE;
    if (!mock_find_memory(MEMORY, address))
        mock_misuse("cuTensorMapEncodeTiled", "a map of what is no device memory");
    made.address = (uintptr_t)address;
    made.swizzle = (uint8_t)swizzle;
    memset(map, 0, HOST_MAP_BYTES);
    memcpy(map, &made, sizeof made);
    return CUDA_SUCCESS;
}
