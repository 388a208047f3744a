/* The shape of plans for the tensor cores of compute capability 9.0: the programs of cu_wgmma.cu, forward. */
#include <float.h>
#include <inttypes.h>
#include <math.h>

#include "backends/cuda/cu.h"
#include "backends/cuda/cu_boxes.h"
#include "backends/gpu/gpu_ahead.h"
#include "backends/gpu/gpu_shape.h"
#include "backends/gpu/gpu_tables.h"
#include "core/problem.h"
#include "core/problem_text.h"

/* What the kernels have as constants, too. */
enum {
    THREADS = 384,
    ROWS = 128,
    COLUMNS = 128,
    LINE_BYTES = 2, /* per dimension */
    QUERY_SLOTS = 2,
    RING_DIMS = 512,        /* dimensions of the ring's slots, together */
    TABLE_BYTES = 24 << 10, /* after the lines */
    LEAST_DIMS = 64,
    MOST_DIMS = 128
};

/* Guesses that only rank: multiply-adds of one multiprocessor of an H100, 2048 per cycle at 1.7 GHz, of which such
 * kernels reach about half. */
static const double MULTIPLIES_PER_SECOND = 1.9e12;
static const double SOFTMAX_MULTIPLIES = 48; /* per score */
static const double ITEM_MULTIPLIES = 3e6;   /* to open and end an item: 1.5 us, most of it beside other work */

static int64_t program_dims(const nf_problem *p)
{
    return nf_max64(p->head_dim, p->value_dim) <= LEAST_DIMS ? LEAST_DIMS : MOST_DIMS;
}

static int64_t local_bytes(int64_t dims)
{
    return (QUERY_SLOTS * ROWS * dims + RING_DIMS * COLUMNS) * LINE_BYTES + TABLE_BYTES;
}

static void write_options(const gpu_shape *shape, const nf_problem *problem, nf_text *text)
{
    nf_text_printf(text, "-DWGMMA=1 -DIN_TYPE=%d -DDIMS=%d", (int)problem->dtype, (int)shape->out_dims);
}

static nf_status choose(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const int64_t dims = program_dims(request->problem);
    gpu_shape made = {.rank = GPU_MAX_RANK,
                      .real_size = sizeof(float),
                      .rows = ROWS,
                      .columns = COLUMNS,
                      .group_items = THREADS,
                      .out_dims = dims,
                      .local_bytes = local_bytes(dims),
                      .write_options = write_options};
    const gpu_walk_cost cost = {.rows = ROWS,
                                .together = ROWS,
                                .pair = ROWS * (2 * (double)dims + SOFTMAX_MULTIPLIES),
                                .item = ITEM_MULTIPLIES,
                                .whole_tiles = true};
    double groups;
    const double multiplies = gpu_shape_cut(&made, request, &cost, &cost, &groups);
    for (int32_t a = 0; a < request->problem->rank; a++) {
        const int32_t most = cu_boxes_most(request->grid->axis[a].dilation);
        made.by_query.columns[a] = nf_min32(made.by_query.columns[a], most);
    }
    made.seconds = multiplies / fmin((double)nf_max64(device->units, 1), groups) / MULTIPLIES_PER_SECOND;
    *shape = made;
    if (made.local_bytes <= device->launch_local_bytes && THREADS <= device->group_items)
        return NF_OK;
    return nf_fail(NF_ERR_UNSUPPORTED,
                   "kernels for products of warpgroups take %d threads and %" PRId64
                   " bytes of shared memory, the device has %" PRId64 " and %" PRId64,
                   (int)THREADS, made.local_bytes, device->group_items, device->launch_local_bytes);
}

void cu_wgmma_cost(const gpu_device *device, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    gpu_shape_cost(choose, device, request, seconds);
}

/* ---- Boxes ------------------------------------------------------------------------------------------------------- */

static const nf_role boxed[] = {NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V};

nf_status cu_wgmma_lay_out(const nf_tensor *tensor, nf_role role, const int64_t *tile, const int64_t *step,
                           cu_box_layout *layout)
{
    static const int64_t run[] = {COLUMNS}, next[] = {1};
    const bool extra = role == NF_EXTRA_K || role == NF_EXTRA_V;
    return cu_boxes_lay_out(layout, tensor, nf_role_name(role), extra ? run : tile, extra ? next : step);
}

static nf_status check_boxes(const nf_request *request, const gpu_shape *shape)
{
    nf_tensor layout[NF_ROLES];
    int64_t tile[GPU_MAX_RANK] = {1, 1, 1, 1}, step[GPU_MAX_RANK] = {1, 1, 1, 1};
    nf_status status = NF_OK;
    gpu_plan_layout(layout, request);
    for (int32_t a = 0; a < request->problem->rank; a++) {
        tile[a] = shape->by_query.columns[a];
        step[a] = request->grid->axis[a].dilation;
    }
    for (size_t i = 0; status == NF_OK && i < sizeof boxed / sizeof *boxed; i++) {
        cu_box_layout boxes;
        if (layout[boxed[i]].rank)
            status = cu_wgmma_lay_out(&layout[boxed[i]], boxed[i], tile, step, &boxes);
    }
    return status;
}

/* ---- Plans ------------------------------------------------------------------------------------------------------- */

nf_status cu_wgmma_supports(const gpu_device *device, const nf_request *request)
{
    gpu_shape shape;
    nf_status status = gpu_plan_supports(device, request);
    if (status == NF_OK && !device->warpgroups)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "the device's compute capability is not 9.0, or this build has no kernels for it");
    if (status == NF_OK && request->problem->direction & NF_BWD)
        return nf_fail(NF_ERR_UNSUPPORTED, "backward has no kernels with products of warpgroups");
    if (status == NF_OK)
        status = cu_check_matrices(device, request->problem, MOST_DIMS);
    if (status == NF_OK)
        status = choose(&shape, device, request);
    return status == NF_OK ? check_boxes(request, &shape) : status;
}

nf_status cu_wgmma_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                          const nf_tensor layout[NF_ROLES])
{
    gpu_shape shape;
    nf_status status = choose(&shape, device, request);
    if (status == NF_OK)
        status = gpu_plan_create_shaped(plan, device, request, layout, &shape);
    if (status != NF_OK)
        return status;
    gpu_launch *forward = &(*plan)->forward.launch[0];
    const size_t items = forward->groups;
    *forward = (gpu_launch){.kernel = "wgmma_forward",
                            .groups = (size_t)nf_min64((int64_t)items, nf_max64(device->units, 1)),
                            .items = THREADS,
                            .local_bytes = (size_t)shape.local_bytes,
                            .outputs = forward->outputs,
                            .args = {{GPU_ARG_TABLES, 0},
                                     {GPU_ARG_SCRATCH, 0},
                                     {GPU_ARG_TENSOR, NF_Q},
                                     {GPU_ARG_OFFSET, NF_Q},
                                     {GPU_ARG_BOXES, NF_K},
                                     {GPU_ARG_BOXES, NF_V},
                                     {GPU_ARG_BOXES, NF_EXTRA_K},
                                     {GPU_ARG_BOXES, NF_EXTRA_V},
                                     {GPU_ARG_TENSOR, NF_OUT},
                                     {GPU_ARG_OFFSET, NF_OUT},
                                     {GPU_ARG_TENSOR, NF_LSE},
                                     {GPU_ARG_OFFSET, NF_LSE}},
                            .args_count = 12};
    (*plan)->shape = "wgmma";
    return NF_OK;
}
