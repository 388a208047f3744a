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
    COLUMNS = 64,
    ELEMENT_BYTES = 2,
    LINES_BYTES = 64 << 10, /* of lines of a block in forward, at most */
    MOST_STEPS = 4,
    TABLE_BYTES = 16 << 10 /* of what kernels declare themselves, at most */
};

/* Guesses that only rank: no GPU has run these kernels. Multiply-adds of one multiprocessor of an A100, 1024 per cycle
 * at 1.4 GHz, of which kernels like these reach about half. */
static const double MULTIPLIES_PER_SECOND = 7e11;
static const double ONE_BLOCK_SLOWNESS = 1.25; /* shared memory is as busy as the tensor cores */
static const double SOFTMAX_MULTIPLIES = 32;   /* per score */
static const double ITEM_MULTIPLIES = 2e6;     /* to open and end an item: 3 us */

static int64_t program_dims(const nf_problem *p)
{
    static const int64_t dims[] = {
#define DIMS(n) n,
        GPU_AHEAD_MMA_DIMS(DIMS)
#undef DIMS
    };
    const int64_t wanted = nf_max64(p->head_dim, p->value_dim);
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        if (wanted <= dims[i])
            return dims[i];
    return 0;
}

/* Bytes of the lines of a block: of its rows, and of a ring of steps of columns (cu_mma_forward.h). */
static int64_t line_bytes(int64_t rows, int64_t dims)
{
    const int64_t line = ELEMENT_BYTES * dims, step = dims > MOST_DIMS_OF_BLOCKS ? COLUMNS / 2 : COLUMNS;
    const int64_t steps = nf_min64((LINES_BYTES - rows * line) / (step * line), MOST_STEPS);
    return (rows + steps * step) * line;
}

static nf_status check_problem(const gpu_device *device, const nf_problem *p)
{
    const double scale = nf_problem_scale(p);
    if (p->direction & NF_BWD)
        return nf_fail(NF_ERR_UNSUPPORTED, "direction %s: kernels for tensor cores compute forward only",
                       nf_direction_name(p->direction));
    if (p->dtype != NF_BF16 && p->dtype != NF_F16)
        return nf_fail(NF_ERR_UNSUPPORTED, "dtype %s: tensor cores multiply bf16 and f16", nf_dtype_name(p->dtype));
    if (!device->matrices)
        return nf_fail(NF_ERR_UNSUPPORTED, "the device's compute capability is below 8.0: it has no such tensor cores");
    if (!program_dims(p))
        return nf_fail(NF_ERR_UNSUPPORTED,
                       "head_dim %" PRId64 ", value_dim %" PRId64 ": kernels for tensor cores take at most 256",
                       p->head_dim, p->value_dim);
    if (!(scale >= FLT_MIN && scale <= FLT_MAX / 2))
        return nf_fail(NF_ERR_UNSUPPORTED, "scale %g: kernels for tensor cores take normal numbers above 0", scale);
    return NF_OK;
}

static void write_options(const gpu_shape *shape, const nf_problem *problem, nf_text *text)
{
    nf_text_printf(text, "-DIN_TYPE=%d -DDIMS=%d", (int)problem->dtype, (int)shape->out_dims);
}

static nf_status choose(gpu_shape *shape, const gpu_device *device, const nf_request *request)
{
    const nf_problem *p = request->problem;
    const int64_t dims = program_dims(p), most = dims <= MOST_DIMS_OF_BLOCKS ? MOST_BLOCKS : 1;
    gpu_shape tried = {.rank = GPU_MAX_RANK,
                       .real_size = sizeof(float),
                       .columns = COLUMNS,
                       .group_items = THREADS,
                       .out_dims = dims,
                       .write_options = write_options};
    *shape = tried;
    shape->seconds = INFINITY;
    for (int64_t blocks = 1; blocks <= most; blocks++) {
        tried.rows = blocks * BLOCK_ROWS;
        tried.local_bytes = line_bytes(tried.rows, dims);
        if (tried.group_items > device->group_items || tried.local_bytes + TABLE_BYTES > device->launch_local_bytes)
            continue;
        const gpu_walk_cost cost = {.rows = tried.rows,
                                    .together = tried.rows,
                                    .pair = (double)tried.rows * (2 * (double)dims + SOFTMAX_MULTIPLIES) *
                                            (blocks == 1 ? ONE_BLOCK_SLOWNESS : 1),
                                    .item = ITEM_MULTIPLIES,
                                    .whole_tiles = true};
        double groups;
        const double multiplies = gpu_shape_cut(&tried, request, &cost, &groups);
        tried.seconds = multiplies / fmin((double)nf_max64(device->units, 1), groups) / MULTIPLIES_PER_SECOND;
        if (tried.seconds < shape->seconds)
            *shape = tried;
    }
    if (isfinite(shape->seconds))
        return NF_OK;
    return nf_fail(NF_ERR_UNSUPPORTED,
                   "kernels for tensor cores take %d threads and %" PRId64
                   " bytes of shared memory, the device has %" PRId64 " and %" PRId64,
                   (int)THREADS, line_bytes(BLOCK_ROWS, dims) + TABLE_BYTES, device->group_items,
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
    for (nf_direction direction = NF_FWD; direction <= NF_BWD; direction++) {
        gpu_shape shape;
        nf_problem problem;
        const nf_request narrow = nf_request_narrow(request, direction, &problem);
        if (request->problem->direction & direction)
            seconds[direction - 1] = choose(&shape, device, &narrow) == NF_OK ? shape.seconds : 0;
    }
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
    gpu_launch *forward = &(*plan)->forward.launch[0];
    forward->kernel = shape.rows == BLOCK_ROWS ? "mma_forward_64" : "mma_forward_128";
    forward->local_bytes = (size_t)shape.local_bytes;
    (*plan)->shape = "mma";
    return NF_OK;
}
