/* Boxes of tensors that kernels copy at once, through maps of the driver (cu_wgmma_boxes.h): a box is a column tile, 64
 * dimensions of it. */
#ifndef NF_CU_BOXES_H
#define NF_CU_BOXES_H

#include "backends/cuda/cu_api.h"
#include "nearfield.h"

enum {
    CU_BOX_AXES = 4,
    CU_BOX_COORDINATES = 5,
    CU_BOX_DIMS = 64,
    CU_BOX_ALIGNMENT = 16 /* of addresses and strides, in bytes */
};

/* What a kernel takes. A coordinate is the sum of the indices that belong to it: those of the axes, and those of batch
 * and head times what lies between two of them. */
typedef struct cu_boxes {
    CUtensorMap map;
    int32_t axis[CU_BOX_AXES]; /* coordinate by axis */
    int32_t batch, head;
    int32_t per_batch, per_head;
} cu_boxes;

/* The same before the tensor's address is known. */
typedef struct cu_box_layout {
    cuuint64_t extents[CU_BOX_COORDINATES], strides[CU_BOX_COORDINATES]; /* in elements and in bytes */
    cuuint32_t box[CU_BOX_COORDINATES], steps[CU_BOX_COORDINATES]; /* what a box spans, every which of it is taken */
    int count;
    cu_boxes boxes; /* but the map */
} cu_box_layout;

/* Indices of one axis that a box can have, so far apart. */
int32_t cu_boxes_most(int64_t step);

/* Boxes of a tensor [batch, axes, heads, dimensions] of 16-bit elements: `tile` of each axis, `step` apart.
 * NF_ERR_UNSUPPORTED with the reason, that begins with name, where no map can describe them. */
nf_status cu_boxes_lay_out(cu_box_layout *layout, const nf_tensor *tensor, const char *name, const int64_t *tile,
                           const int64_t *step);

/* Whether a tensor may lie there. */
int cu_boxes_fit(CUdeviceptr address);

/* The boxes of the tensor that lies there. */
nf_status cu_boxes_encode(const cu_api *api, const cu_box_layout *layout, CUdeviceptr address, cu_boxes *boxes);

#endif
