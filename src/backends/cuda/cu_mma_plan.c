/* The shape of plans for tensor cores: the programs of cu_mma.cu, which keep lines of queries, keys and values in
 * shared memory, padded to DIMS dimensions. */
#include <float.h>
#include <inttypes.h>
#include <math.h>

#include "backends/cuda/cu.h"
#include "backends/gpu/gpu_ahead.h"
#include "backends/gpu/gpu_shape.h"
#include "backends/gpu/gpu_tables.h"
#include "core/problem.h"
#include "core/problem_text.h"

/* What the kernels have as constants, too. */
enum {
    THREADS = 128,
    BLOCK_ROWS = 64, /* 16 of each warp */
    MOST_BLOCKS = 2, /* of them, for which a warp loads its columns once */
    MOST_DIMS_OF_BLOCKS = 128,
    MOST_DIMS = 256,
    MOST_F32_DIMS = 128,
    COLUMNS = 64,
    ELEMENT_BYTES = 2,
    PIECES = 3, /* that f32 is split into (cu_mma_split.h) */
    MOST_F32_DIMS_OF_BLOCKS = 64,
    F32_STEP_ELEMENTS = 2048, /* of columns that are met at once */
    LINES_BYTES = 64 << 10,   /* of lines of a block in forward, at most */
    MOST_STEPS = 4,
    TABLE_BYTES = 16 << 10,          /* of what kernels declare themselves, at most */
    QUERY_BYTES = 2 * sizeof(float), /* that backward keeps: its lse and delta */
    DELTA_QUERIES = 16,              /* of a block, at once */
};

/* Guesses that only rank: multiply-adds of one multiprocessor of an A100, 1024 per cycle at 1.4 GHz, of which kernels
 * like these reach about half. */
static const double MULTIPLIES_PER_SECOND = 7e11;
static const double ONE_BLOCK_SLOWNESS = 1.25; /* shared memory is as busy as the tensor cores */
static const double SOFTMAX_MULTIPLIES = 32;   /* per score */
static const double ITEM_MULTIPLIES = 2e6;     /* to open and end an item: 3 us */
static const double F32_SLOWNESS = 6;          /* products of pieces that take the place of one */

int64_t cu_enough(const int64_t *dims, size_t count, int64_t wanted)
{
    for (size_t i = 0; i < count; i++)
        if (wanted <= dims[i])
            return dims[i];
    return 0;
}

static int64_t program_dims(const nf_problem *p)
{
#define DIMS(n) n,
    static const int64_t dims[] = {GPU_AHEAD_MMA_DIMS(DIMS)}, f32_dims[] = {GPU_AHEAD_MMA_F32_DIMS(DIMS)};
#undef DIMS
    const int64_t wanted = nf_max64(p->head_dim, p->value_dim);
    return p->dtype == NF_F32 ? cu_enough(f32_dims, sizeof f32_dims / sizeof *f32_dims, wanted)
                              : cu_enough(dims, sizeof dims / sizeof *dims, wanted);
}

/* Bytes of lines as products read them, and as f32 waits to be split into them. */
static int64_t bytes_of(const nf_problem *p, int64_t lines, int64_t waiting, int64_t dims)
{
    return p->dtype == NF_F32 ? (lines * PIECES * ELEMENT_BYTES + waiting * (int64_t)sizeof(float)) * dims
                              : lines * ELEMENT_BYTES * dims;
}

/* Of the lines of a block: of its rows, and of a ring of steps of columns (cu_mma_forward.h). */
static int64_t line_bytes(const nf_problem *p, int64_t rows, int64_t dims)
{
    const int64_t f32_step = F32_STEP_ELEMENTS / dims, step = dims > MOST_DIMS_OF_BLOCKS ? COLUMNS / 2 : COLUMNS;
    const int64_t room = LINES_BYTES / (ELEMENT_BYTES * dims) - rows, steps = nf_min64(room / step, MOST_STEPS);
    return p->dtype == NF_F32 ? bytes_of(p, rows + 2 * f32_step, 2 * f32_step, dims)
                              : bytes_of(p, rows + steps * step, 0, dims);
}

/* The same of dq, and of dk and dv: of both tensors of the rows, and of steps of both tensors of the columns, two in
 * turns (cu_mma_backward.h). */
static int64_t backward_step(const nf_problem *p, int64_t rows, int64_t dims)
{
    const int64_t step = dims <= 64 ? 64 : dims <= MOST_DIMS_OF_BLOCKS ? 32 : 16;
    if (p->dtype == NF_F32)
        return dims < 64 ? 32 : 16;
    return rows > BLOCK_ROWS ? step / 2 : step;
}

static int64_t dq_line_bytes(const nf_problem *p, int64_t rows, int64_t dims)
{
    const int64_t stages = p->dtype == NF_F32 && dims > MOST_F32_DIMS_OF_BLOCKS ? 1 : 2;
    const int64_t columns = 2 * backward_step(p, rows, dims);
    return bytes_of(p, 2 * rows + stages * columns, columns, dims);
}

static int64_t dkv_line_bytes(const nf_problem *p, int64_t dims)
{
    return dq_line_bytes(p, BLOCK_ROWS, dims) + 2 * backward_step(p, BLOCK_ROWS, dims) * QUERY_BYTES;
}

/* Bytes that the hungriest of a plan's launches takes. */
static int64_t most_line_bytes(const nf_problem *p, int64_t rows, int64_t dims)
{
    const int64_t forward = p->direction & NF_FWD ? line_bytes(p, rows, dims) : 0;
    return p->direction & NF_BWD ? nf_max64(forward, nf_max64(dq_line_bytes(p, rows, dims), dkv_line_bytes(p, dims)))
                                 : forward;
}

static int64_t tokens(const nf_problem *p, bool keys)
{
    int64_t product = 1;
    for (int32_t a = 0; a < p->rank; a++)
        product *= keys ? nf_axis_key_range(&p->axis[a]).count : nf_axis_query_range(&p->axis[a]).count;
    return product;
}

double cu_count_rows(const nf_problem *p)
{
    return (double)p->batch * (double)nf_max64(p->heads * tokens(p, false), p->kv_heads * tokens(p, true));
}

static nf_status check_numbers(const gpu_device *device, const nf_problem *p, int64_t most_dims, double least_scale)
{
    const double scale = nf_problem_scale(p);
    if (!device->matrices)
        return nf_fail(NF_ERR_UNSUPPORTED, "the device's compute capability is below 8.0: it has no such tensor cores");
    if (nf_max64(p->head_dim, p->value_dim) > most_dims)
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "head_dim %" PRId64 ", value_dim %" PRId64
                       ": these kernels for tensor cores take at most %" PRId64,
                       p->head_dim, p->value_dim, most_dims);
    if (!(scale >= least_scale && scale <= FLT_MAX / 2))
        return nf_fail(NF_ERR_UNSUPPORTED, "scale %g: these kernels for tensor cores take from %.2g to %.2g", scale,
                       least_scale, (double)FLT_MAX / 2);
    return NF_OK;
}

nf_status cu_check_matrices(const gpu_device *device, const nf_problem *p, int64_t most_dims)
{
    if (p->dtype != NF_BF16 && p->dtype != NF_F16)
        return nf_fail(NF_ERR_UNSUPPORTED, "dtype %s: these kernels for tensor cores take bf16 and f16",
                       nf_dtype_name(p->dtype));
    return check_numbers(device, p, most_dims, FLT_MIN);
}

static nf_status check_problem(const gpu_device *device, const nf_problem *p)
{
    const double rows = cu_count_rows(p);
    if (p->direction & NF_BWD && rows > CU_MOST_ROWS)
        return nf_fail(NF_ERR_UNSUPPORTED, "%.0f queries or keys of all heads: kernels for tensor cores number %d",
                       rows, (int)CU_MOST_ROWS);
    return p->dtype == NF_F32 ? check_numbers(device, p, MOST_F32_DIMS, FLT_MIN * CU_F32_QUERY_SCALE)
                              : cu_check_matrices(device, p, MOST_DIMS);
}

static void write_options(const gpu_shape *shape, const nf_problem *problem, nf_text *text)
{
    nf_text_printf(text, "-DIN_TYPE=%d -DDIMS=%d", (int)problem->dtype, (int)shape->out_dims);
}

/* With which row tiles may have two blocks: dq of f32 has one at a time. */
static int64_t most_dims_of_blocks(const nf_problem *p)
{
    if (p->dtype != NF_F32)
        return MOST_DIMS_OF_BLOCKS;
    return p->direction & NF_BWD ? 0 : MOST_F32_DIMS_OF_BLOCKS;
}

static gpu_walk_cost walk_cost(const nf_problem *p, int64_t blocks, int64_t dims)
{
    const double slowness = (blocks == 1 ? ONE_BLOCK_SLOWNESS : 1) * (p->dtype == NF_F32 ? F32_SLOWNESS : 1);
    return (gpu_walk_cost){.rows = blocks * BLOCK_ROWS,
                           .together = blocks * BLOCK_ROWS,
                           .pair = (double)(blocks * BLOCK_ROWS) * (2 * (double)dims + SOFTMAX_MULTIPLIES) * slowness,
                           .item = ITEM_MULTIPLIES,
                           .whole_tiles = true};
}

static nf_status choose(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    const int64_t dims = program_dims(p), most = dims <= most_dims_of_blocks(p) ? MOST_BLOCKS : 1;
    gpu_shape tried = {.rank = GPU_MAX_RANK,
                       .real_size = sizeof(float),
                       .query_size = QUERY_BYTES,
                       .columns = COLUMNS,
                       .group_items = THREADS,
                       .out_dims = dims,
                       .write_options = write_options};
    *shape = tried;
    shape->seconds = INFINITY;
    for (int64_t blocks = 1; blocks <= most; blocks++) {
        tried.rows = blocks * BLOCK_ROWS;
        tried.local_bytes = most_line_bytes(p, tried.rows, dims);
        if (tried.group_items > device->group_items || tried.local_bytes + TABLE_BYTES > device->launch_local_bytes)
            continue;
        const gpu_walk_cost by_query = walk_cost(p, blocks, dims), by_key = walk_cost(p, 1, dims);
        double groups;
        const double multiplies = gpu_shape_cut(&tried, request, &by_query, &by_key, &groups);
        tried.seconds = multiplies / fmin((double)nf_max64(device->units, 1), groups) / MULTIPLIES_PER_SECOND;
        if (tried.seconds < shape->seconds)
            *shape = tried;
    }
    if (isfinite(shape->seconds))
        return NF_OK;
    return nf_fail(NF_ERR_UNSUPPORTED,
                   "kernels for tensor cores take %d threads and %" PRId64
                   " bytes of shared memory, the device has %" PRId64 " and %" PRId64,
                   (int)THREADS, most_line_bytes(p, BLOCK_ROWS, dims) + TABLE_BYTES, device->group_items,
                   device->launch_local_bytes);
}

nf_status cu_mma_supports(const gpu_device *device, const nf_request *request)
{
    gpu_shape shape;
    nf_status status = gpu_plan_supports(device, request);
    if (status == NF_OK)
        status = check_problem(device, request->problem);
    return status == NF_OK ? choose(&shape, device, request) : status;
}

void cu_mma_cost(const gpu_device *device, const nf_request *request, double seconds[NF_DIRECTIONS])
{
    gpu_shape_cost(choose, device, request, seconds);
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

typedef struct kernel {
    const char *name;
    int count;
    nf_role roles[GPU_MAX_ARGS / 2]; /* of its arguments, after tables and scratch */
    uint32_t outputs;
} kernel;

static const kernel delta = {"mma_backward_delta", 4, {NF_OUT, NF_DOUT, NF_LSE, NF_DLSE}, UINT32_MAX};
static const kernel dq[] = {
    {"mma_backward_dq_64", 7, {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_DQ}, 1u << NF_DQ},
    {"mma_backward_dq_128", 7, {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_DQ}, 1u << NF_DQ},
};
static const kernel dkv = {"mma_backward_dkv",
                           8,
                           {NF_Q, NF_K, NF_V, NF_EXTRA_K, NF_EXTRA_V, NF_DOUT, NF_DK, NF_DV},
                           1u << NF_DK | 1u << NF_DV | 1u << NF_DEXTRA_K | 1u << NF_DEXTRA_V};
static const kernel extra_sum = {
    "mma_backward_extra_sum", 2, {NF_DEXTRA_K, NF_DEXTRA_V}, 1u << NF_DEXTRA_K | 1u << NF_DEXTRA_V};

static void add_launch(gpu_launches *launches, const kernel *k, int64_t groups, int64_t lines)
{
    gpu_launch *launch = &launches->launch[launches->count++];
    *launch = (gpu_launch){.kernel = k->name,
                           .groups = (size_t)nf_max64(groups, 1),
                           .items = THREADS,
                           .local_bytes = (size_t)lines,
                           .outputs = k->outputs,
                           .args = {{.kind = GPU_ARG_TABLES}, {.kind = GPU_ARG_SCRATCH}},
                           .args_count = 2};
    for (int i = 0; i < k->count; i++) {
        launch->args[launch->args_count++] = (gpu_arg){GPU_ARG_TENSOR, k->roles[i]};
        launch->args[launch->args_count++] = (gpu_arg){GPU_ARG_OFFSET, k->roles[i]};
    }
}

static void add_backward(gpu_plan *plan, const gpu_shape *shape, const nf_problem *p)
{
    const int64_t *header = plan->tables;
    const int64_t heads = p->batch * p->heads, kv_heads = p->batch * p->kv_heads, dims = shape->out_dims;
    const int64_t runs = (p->extra + BLOCK_ROWS - 1) / BLOCK_ROWS, gradients = dims > MOST_DIMS_OF_BLOCKS ? 2 : 1;
    const int64_t key_items = header[GPU_BY_KEY + GPU_WALK_ITEMS] + runs * header[GPU_SPLITS];
    gpu_launches *backward = &plan->backward;
    backward->count = 0;
    add_launch(backward, &delta, (heads * header[GPU_QUERIES] - 1) / DELTA_QUERIES + 1, 0);
    add_launch(backward, &dq[shape->rows > BLOCK_ROWS], heads * header[GPU_BY_QUERY + GPU_WALK_ITEMS],
               dq_line_bytes(p, shape->rows, dims));
    add_launch(backward, &dkv, gradients * kv_heads * key_items, dkv_line_bytes(p, dims));
    if (p->extra)
        add_launch(backward, &extra_sum, (kv_heads * p->extra * (p->head_dim + p->value_dim) - 1) / THREADS + 1, 0);
}

nf_status cu_mma_create(gpu_plan **plan, const gpu_device *device, const nf_request *request,
                        const nf_tensor layout[NF_ROLES])
{
    gpu_shape shape;
    nf_status status = choose(&shape, device, request);
    if (status == NF_OK)
        status = gpu_plan_create_shaped(plan, device, request, layout, &shape);
    if (status != NF_OK)
        return status;
    if (request->problem->direction & NF_FWD) {
        gpu_launch *forward = &(*plan)->forward.launch[0];
        forward->kernel = shape.rows == BLOCK_ROWS ? "mma_forward_64" : "mma_forward_128";
        forward->local_bytes = (size_t)line_bytes(request->problem, shape.rows, shape.out_dims);
    }
    if (request->problem->direction & NF_BWD)
        add_backward(*plan, &shape, request->problem);
    (*plan)->shape = "mma";
    return NF_OK;
}
