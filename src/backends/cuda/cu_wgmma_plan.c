/* The shape of plans for the tensor cores of compute capability 9.0: the programs of cu_wgmma.cu and
 * cu_wgmma_backward.cu. */
#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>

#include "backends/cuda/cu.h"
#include "backends/cuda/cu_boxes.h"
#include "backends/gpu/gpu_ahead.h"
#include "backends/gpu/gpu_shape.h"
#include "backends/gpu/gpu_tables.h"
#include "core/dtype.h"
#include "core/problem.h"
#include "core/problem_text.h"

/* What the kernels have as constants, too. */
enum {
    THREADS = 384,
    ROWS = 128,
    FORWARD_COLUMNS = 128,
    BACKWARD_COLUMNS = 64,          /* registers hold two products of a step */
    LINE_BYTES = 2,                 /* per dimension */
    SLOTS = 2,                      /* of lines of rows: of one tensor in forward, of two in backward */
    RING_DIMS = 512,                /* dimensions of the ring's slots, together */
    FORWARD_TABLE_BYTES = 24 << 10, /* after the lines */
    BACKWARD_TABLE_BYTES = 28 << 10,
    QUERY_BYTES = 2 * sizeof(float), /* that backward keeps: its lse and delta */
    END_THREADS = 128,               /* of launches before and after those with products */
    DELTA_QUERIES = 16,              /* of a block, at once */
    LEAST_DIMS = 64,
    MOST_DIMS = 128
};

/* Guesses that only rank: multiply-adds of one multiprocessor of an H100, 2048 per cycle at 1.7 GHz, of which such
 * kernels reach about half. */
static const double MULTIPLIES_PER_SECOND = 1.9e12;
static const double SOFTMAX_MULTIPLIES = 48; /* per score */
static const double ITEM_MULTIPLIES = 3e6;   /* to open and end an item: 1.5 us, most of it beside other work */

/* Backward has run on the host alone: it is for those who ask for it, until a GPU has. */
static const double BACKWARD_PENALTY = 100;

/* A plan has one direction. */
static bool is_backward(const nf_request *request)
{
    return (request->problem->direction & NF_BWD) != 0;
}

static int64_t columns_of(const nf_request *request)
{
    return is_backward(request) ? BACKWARD_COLUMNS : FORWARD_COLUMNS;
}

static int64_t program_dims(const nf_problem *p)
{
    return nf_max64(p->head_dim, p->value_dim) <= LEAST_DIMS ? LEAST_DIMS : MOST_DIMS;
}

static int64_t local_bytes(const nf_request *request, int64_t dims)
{
    const int64_t tensors = is_backward(request) ? 2 : 1;
    return (tensors * SLOTS * ROWS * dims + RING_DIMS * columns_of(request)) * LINE_BYTES +
           (is_backward(request) ? BACKWARD_TABLE_BYTES : FORWARD_TABLE_BYTES);
}

static void write_options(const gpu_shape *shape, const nf_problem *problem, nf_text *text)
{
    nf_text_printf(text, "-DWGMMA%s=1 -DIN_TYPE=%d -DDIMS=%d", problem->direction & NF_BWD ? "_BACKWARD" : "",
                   (int)problem->dtype, (int)shape->out_dims);
}

static nf_status choose(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const int64_t dims = program_dims(request->problem);
    gpu_shape made = {.rank = GPU_MAX_RANK,
                      .real_size = sizeof(float),
                      .query_size = QUERY_BYTES,
                      .rows = ROWS,
                      .columns = columns_of(request),
                      .group_items = THREADS,
                      .out_dims = dims,
                      .local_bytes = local_bytes(request, dims),
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
        made.by_key.columns[a] = nf_min32(made.by_key.columns[a], most);
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
    seconds[NF_BWD - 1] *= BACKWARD_PENALTY;
}

/* ---- Boxes ------------------------------------------------------------------------------------------------------- */

/* What launches copy boxes of: forward, and dq, columns that are keys; dk and dv columns that are queries. */
static const gpu_arg forward_boxes[] = {
    {GPU_ARG_BOXES, NF_K}, {GPU_ARG_BOXES, NF_V}, {GPU_ARG_BOXES, NF_EXTRA_K}, {GPU_ARG_BOXES, NF_EXTRA_V}};
static const gpu_arg backward_boxes[] = {
    {GPU_ARG_BOXES, NF_Q}, {GPU_ARG_BOXES, NF_DOUT}, {GPU_ARG_ALL_BOXES, NF_Q}, {GPU_ARG_ALL_BOXES, NF_DOUT}};
enum { BOXES = sizeof forward_boxes / sizeof *forward_boxes };
static_assert(sizeof backward_boxes == sizeof forward_boxes, "launches of both take as many");

/* Tiles of all queries, as see_all_queries of gpu_common.cl cuts them. */
static void cut_all(const nf_tensor *tensor, int64_t most, int64_t *tile)
{
    for (int32_t a = tensor->rank - 4; a >= 0; a--) {
        tile[a] = nf_min64(tensor->extents[1 + a], most);
        most /= tile[a];
    }
}

nf_status cu_wgmma_lay_out(const nf_request *request, const nf_tensor layout[NF_ROLES], const gpu_arg *arg,
                           const int64_t *columns, cu_box_layout *boxes)
{
    const nf_problem *p = request->problem;
    int64_t tile[GPU_MAX_RANK] = {1, 1, 1, 1}, step[GPU_MAX_RANK] = {1, 1, 1, 1};
    if (arg->role == NF_EXTRA_K || arg->role == NF_EXTRA_V)
        tile[0] = columns_of(request);
    else if (arg->kind == GPU_ARG_ALL_BOXES)
        cut_all(&layout[arg->role], columns_of(request), tile);
    else
        for (int32_t a = 0; a < p->rank; a++) {
            tile[a] = columns[a];
            step[a] = request->grid->axis[a].dilation;
        }
    return cu_boxes_lay_out(boxes, &layout[arg->role], nf_role_name(arg->role), tile, step);
}

static nf_status check_boxes(const nf_request *request, const nf_work_spec *walk, const gpu_arg *args)
{
    nf_tensor layout[NF_ROLES];
    int64_t columns[NF_MAX_RANK];
    nf_status status = NF_OK;
    gpu_plan_layout(layout, request);
    for (int32_t a = 0; a < NF_MAX_RANK; a++)
        columns[a] = walk->columns[a];
    for (int i = 0; status == NF_OK && i < BOXES; i++) {
        cu_box_layout boxes;
        if (layout[args[i].role].rank)
            status = cu_wgmma_lay_out(request, layout, &args[i], columns, &boxes);
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
    if (status == NF_OK && is_backward(request) && request->problem->out_dtype != request->problem->dtype)
        return nf_fail(NF_ERR_UNSUPPORTED, "out_dtype %s: boxes of dout are copied where it is %s",
                       nf_dtype_name(request->problem->out_dtype), nf_dtype_name(request->problem->dtype));
    if (status == NF_OK)
        status = cu_check_matrices(device, request->problem, MOST_DIMS);
    if (status == NF_OK)
        status = choose(&shape, device, request);
    if (status == NF_OK)
        status = check_boxes(request, &shape.by_query, forward_boxes);
    return status == NF_OK && is_backward(request) ? check_boxes(request, &shape.by_key, backward_boxes) : status;
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

static void add_tensor(gpu_launch *launch, nf_role role)
{
    launch->args[launch->args_count++] = (gpu_arg){GPU_ARG_TENSOR, role};
    launch->args[launch->args_count++] = (gpu_arg){GPU_ARG_OFFSET, role};
}

static gpu_launch *add_launch(gpu_launches *launches, const char *kernel, int64_t groups, int64_t items,
                              uint32_t outputs)
{
    gpu_launch *launch = &launches->launch[launches->count++];
    *launch = (gpu_launch){.kernel = kernel,
                           .groups = (size_t)nf_max64(groups, 1),
                           .items = (size_t)items,
                           .outputs = outputs,
                           .args = {{.kind = GPU_ARG_TABLES}, {.kind = GPU_ARG_SCRATCH}},
                           .args_count = 2};
    return launch;
}

/* Tensors of rows, boxes of columns, and results: one block per multiprocessor, or fewer. */
typedef struct walk {
    const char *kernel;
    int inputs, results;
    nf_role input[4], result[2];
    const gpu_arg *boxes;
    uint32_t outputs;
} walk;

static void add_walk(gpu_launches *launches, const walk *w, const gpu_device *device, int64_t items, int64_t bytes)
{
    const int64_t groups = nf_min64(items, nf_max64(device->units, 1));
    gpu_launch *launch = add_launch(launches, w->kernel, groups, THREADS, w->outputs);
    launch->local_bytes = (size_t)bytes;
    for (int i = 0; i < w->inputs; i++)
        add_tensor(launch, w->input[i]);
    for (int i = 0; i < BOXES; i++)
        launch->args[launch->args_count++] = w->boxes[i];
    for (int i = 0; i < w->results; i++)
        add_tensor(launch, w->result[i]);
}

static const walk forward = {"wgmma_forward", 1, 2, {NF_Q}, {NF_OUT, NF_LSE}, forward_boxes, UINT32_MAX};
static const walk dq = {"wgmma_backward_dq", 2, 1, {NF_Q, NF_DOUT}, {NF_DQ}, forward_boxes, 1u << NF_DQ};
static const uint32_t of_extra = 1u << NF_DEXTRA_K | 1u << NF_DEXTRA_V;
static const walk dkv = {"wgmma_backward_dkv",
                         4,
                         2,
                         {NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V},
                         {NF_DK, NF_DV},
                         backward_boxes,
                         1u << NF_DK | 1u << NF_DV | 1u << NF_DEXTRA_K | 1u << NF_DEXTRA_V};

static void add_backward(gpu_launches *backward, const gpu_device *device, const nf_problem *p, const int64_t *header,
                         int64_t bytes)
{
    const int64_t heads = p->batch * p->heads, kv_heads = p->batch * p->kv_heads;
    const int64_t runs = (p->extra + ROWS - 1) / ROWS, elements = kv_heads * p->extra * (p->head_dim + p->value_dim);
    gpu_launch *delta = add_launch(backward, "mma_backward_delta",
                                   (heads * header[GPU_QUERIES] - 1) / DELTA_QUERIES + 1, END_THREADS, UINT32_MAX);
    static const nf_role of_delta[] = {NF_OUT, NF_DOUT, NF_LSE, NF_DLSE};
    for (size_t i = 0; i < sizeof of_delta / sizeof *of_delta; i++)
        add_tensor(delta, of_delta[i]);
    add_walk(backward, &dq, device, heads * header[GPU_BY_QUERY + GPU_WALK_ITEMS], bytes);
    add_walk(backward, &dkv, device, kv_heads * (header[GPU_BY_KEY + GPU_WALK_ITEMS] + runs * header[GPU_SPLITS]),
             bytes);
    if (!p->extra)
        return;
    gpu_launch *sum =
        add_launch(backward, "mma_backward_extra_sum", (elements - 1) / END_THREADS + 1, END_THREADS, of_extra);
    add_tensor(sum, NF_DEXTRA_K);
    add_tensor(sum, NF_DEXTRA_V);
}

nf_status cu_wgmma_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                          const nf_tensor layout[NF_ROLES])
{
    const nf_problem *p = request->problem;
    gpu_shape shape;
    nf_status status = choose(&shape, device, request);
    if (status == NF_OK)
        status = gpu_plan_create_shaped(plan, device, request, layout, &shape);
    if (status != NF_OK)
        return status;
    const int64_t *header = (*plan)->tables;
    (*plan)->forward.count = (*plan)->backward.count = 0;
    if (is_backward(request))
        add_backward(&(*plan)->backward, device, p, header, shape.local_bytes);
    else
        add_walk(&(*plan)->forward, &forward, device, p->batch * p->heads * header[GPU_BY_QUERY + GPU_WALK_ITEMS],
                 shape.local_bytes);
    (*plan)->shape = "wgmma";
    return NF_OK;
}
