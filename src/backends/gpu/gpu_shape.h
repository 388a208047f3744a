/* Shapes and tile parameters: data of the device and the problem. */
#ifndef NF_GPU_SHAPE_H
#define NF_GPU_SHAPE_H

#include "backends/gpu/gpu_plan.h"

enum { GPU_LANES_PADDING = 8 }; /* NARROW_LINES of gpu_lanes.cl */

/* The parameters of a program, and how the work is cut for it. */
typedef struct gpu_shape {
    bool by_lanes;                                 /* lanes, else tile */
    int32_t rank;                                  /* of the program: the problem's or more */
    int64_t real_size;                             /* bytes of what it computes with */
    int64_t rows;                                  /* of a row tile, at most */
    int64_t columns;                               /* of a column tile, at most */
    int64_t lanes;                                 /* of lanes: of a vector */
    int64_t group_items;                           /* work-items of a group */
    int64_t items_x, chunk, out_dims, local_bytes; /* of tile: see gpu_tile.cl */
    nf_work_spec by_query, by_key;
    double seconds; /* predicted, of the directions that the problem names */
} gpu_shape;

/* NF_ERR_UNSUPPORTED with the reason if the device has no room for any. */
nf_status gpu_choose_shape(gpu_shape *shape, const gpu_device *device, const nf_request *request);

/* The options that tell the program. */
void gpu_shape_options(const gpu_shape *shape, const nf_problem *problem, nf_text *text);

#endif
