/* Shapes and tile parameters: data of the device and the problem. */
#ifndef NF_GPU_SHAPE_H
#define NF_GPU_SHAPE_H

#include "backends/gpu/gpu_plan.h"

enum { GPU_LANES_PADDING = 8 }; /* NARROW_LINES of gpu_lanes.cl */

/* The parameters of a program, and how the work is cut for it. */
typedef struct gpu_shape {
    bool by_lanes;                                 /* lanes, else tile */
    int32_t rank;                                  /* of the program: the problem's or more */
    int64_t real_size;                             /* bytes of what it computes with, */
    int64_t query_size;                            /* and of what backward keeps of a query */
    int64_t rows;                                  /* of a row tile, at most */
    int64_t columns;                               /* of a column tile, at most */
    int64_t lanes;                                 /* of lanes: of a vector */
    int64_t group_items;                           /* work-items of a group */
    int64_t items_x, chunk, out_dims, local_bytes; /* of tile: see gpu_tile.cl */
    nf_work_spec by_query, by_key;
    double seconds; /* predicted, of the directions that the problem names */
    void (*write_options)(const struct gpu_shape *shape, const nf_problem *problem, nf_text *text); /* of the program */
} gpu_shape;

/* What a walk costs, in multiply-adds of the vectors or scalars that a device computes with. */
typedef struct gpu_walk_cost {
    int64_t rows, together; /* of a row tile; that meet columns together, and no others than one of them sees */
    double pair;            /* of one column and the rows that meet it together */
    double column;          /* of one column of a row tile: to find it */
    double item;            /* to open and end a row tile */
    bool whole_tiles;       /* a tile of columns costs the same however few it has */
} gpu_walk_cost;

/* Cuts the walks of the directions that a problem names for the least cost, by query and by key, into boxes of at most
 * shape->columns columns. Returns the cost, for all batches and heads. groups: how many run side by side in forward. */
double gpu_shape_cut(gpu_shape *shape, const nf_request *request, const gpu_walk_cost *query_cost,
                     const gpu_walk_cost *key_cost, double *groups);

/* NF_ERR_UNSUPPORTED with the reason if the device has no room for any. */
typedef nf_status gpu_chooser(gpu_shape *shape, const gpu_device *device, const nf_request *request);
gpu_chooser gpu_choose_shape;

/* Seconds of each direction that the problem names, in the shape that is chosen for it. */
void gpu_shape_cost(gpu_chooser *choose, const gpu_device *device, const nf_request *request,
                    double seconds[NF_DIRECTIONS]);

/* A plan of this shape, whoever chose it. */
nf_status gpu_plan_create_shaped(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                                 const nf_tensor layout[NF_ROLES], const gpu_shape *shape);

#endif
