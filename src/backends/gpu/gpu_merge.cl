/* Merging partial results: doc/semantics.md, "The value". Any number of parts, so a launch takes one of them; between
 * launches the scratch buffer holds the rows' largest lse, their sums of weights, and the weighted sums of out.
 *
 * numbers: gpu_tables.h, GPU_MERGE_...; a tensor is named by its place there, -1 if it is absent. */
#define EACH_ELEMENT(i, count)                                                                                         \
    for (long i = GROUP_INDEX * GROUP_SIZE + ITEM_INDEX; i < (count); i += GROUP_COUNT * GROUP_SIZE)

/* Where a row begins in a tensor. */
static long row_place(GLOBAL const long *numbers, long tensor, long row)
{
    GLOBAL const long *strides = numbers + tensor;
    long place = strides[GPU_MERGE_OFFSET];
    for (long a = numbers[GPU_MERGE_AXES] - 1; a >= 0; a--) {
        place += row % numbers[GPU_MERGE_EXTENT + a] * strides[GPU_MERGE_STRIDE_AXIS + a];
        row /= numbers[GPU_MERGE_EXTENT + a];
    }
    return place;
}

static long dim_step(GLOBAL const long *numbers, long tensor)
{
    return numbers[tensor + GPU_MERGE_STRIDE_DIM];
}

KERNEL void merge_max(GLOBAL const long *numbers, GLOBAL REAL *scratch, long is_first, GLOBAL const REAL *lse,
                      long lse_at)
{
    EACH_ELEMENT(row, numbers[GPU_MERGE_ROWS])
    {
        const REAL top = is_first ? -INFINITY : scratch[row], part = lse[row_place(numbers, lse_at, row)];
        scratch[row] = part > top ? part : top; /* a NaN does not win here, but reaches the sum */
    }
}

KERNEL void merge_add(GLOBAL const long *numbers, GLOBAL REAL *scratch, long is_first, GLOBAL const REAL *lse,
                      long lse_at, GLOBAL const REAL *out, long out_at)
{
    const long rows = numbers[GPU_MERGE_ROWS], n = numbers[GPU_MERGE_DIM];
    EACH_ELEMENT(i, rows * n)
    {
        const long row = i / n, dim = i % n;
        const REAL part = lse[row_place(numbers, lse_at, row)];
        REAL sum = is_first ? 0 : scratch[2 * rows + i], weight = 0;
        if (part != -INFINITY) {
            weight = exp(part - scratch[row]);
            sum += weight * out[row_place(numbers, out_at, row) + dim * dim_step(numbers, out_at)];
        }
        scratch[2 * rows + i] = sum;
        if (dim == 0)
            scratch[rows + row] = is_first ? weight : scratch[rows + row] + weight;
    }
}

KERNEL void merge_end(GLOBAL const long *numbers, GLOBAL const REAL *scratch, GLOBAL REAL *out, long out_at,
                      GLOBAL REAL *lse, long lse_at)
{
    const long rows = numbers[GPU_MERGE_ROWS], n = numbers[GPU_MERGE_DIM];
    EACH_ELEMENT(i, rows * n)
    {
        const long row = i / n, dim = i % n;
        const REAL weights = scratch[rows + row];
        out[row_place(numbers, out_at, row) + dim * dim_step(numbers, out_at)] =
            weights == 0 ? 0 : scratch[2 * rows + i] / weights;
        if (dim == 0 && lse_at >= 0)
            lse[row_place(numbers, lse_at, row)] = weights == 0 ? -INFINITY : scratch[row] + log(weights);
    }
}

/* Gradients of one part. */
KERNEL void merge_backward(GLOBAL const long *numbers, GLOBAL const REAL *lse, long lse_at, GLOBAL const REAL *out,
                           long out_at, GLOBAL const REAL *dout, long dout_at, GLOBAL const REAL *dlse, long dlse_at,
                           GLOBAL const REAL *part_lse, long part_lse_at, GLOBAL const REAL *part, long part_at,
                           GLOBAL REAL *dpart, long dpart_at, GLOBAL REAL *dpart_lse, long dpart_lse_at)
{
    EACH_ELEMENT(row, numbers[GPU_MERGE_ROWS])
    {
        const REAL of_part = part_lse[row_place(numbers, part_lse_at, row)];
        const bool counts = of_part != -INFINITY;
        const REAL weight = counts ? exp(of_part - lse[row_place(numbers, lse_at, row)]) : 0;
        const long out_row = row_place(numbers, out_at, row), dout_row = row_place(numbers, dout_at, row);
        const long part_row = row_place(numbers, part_at, row), dpart_row = row_place(numbers, dpart_at, row);
        REAL sum = 0;
        if (dlse_at >= 0)
            sum = dlse[row_place(numbers, dlse_at, row)];
        for (long i = 0; i < numbers[GPU_MERGE_DIM]; i++) {
            const REAL gradient = dout[dout_row + i * dim_step(numbers, dout_at)];
            sum += gradient *
                   (part[part_row + i * dim_step(numbers, part_at)] - out[out_row + i * dim_step(numbers, out_at)]);
            dpart[dpart_row + i * dim_step(numbers, dpart_at)] = counts ? weight * gradient : 0;
        }
        dpart_lse[row_place(numbers, dpart_lse_at, row)] = counts ? weight * sum : 0;
    }
}
