/* The table and launches of a merge. */
#include "backends/gpu/gpu_merge.h"

#include <stdio.h>

#include "backends/gpu/gpu_tables.h"

enum {
    MOST_GROUPS = 1 << 16,
    SHARED_TENSORS = 4,  /* out, lse, dout, dlse */
    TENSORS_OF_PART = 4, /* the same of a part */
};

/* In the order of the table. */
typedef enum tensor_kind { OUT, LSE, DOUT, DLSE } tensor_kind;

int64_t gpu_merge_groups(int64_t elements, int64_t items)
{
    return nf_min64((elements - 1) / items + 1, MOST_GROUPS);
}

/* ---- Tensors ----------------------------------------------------------------------------------------------------- */

static const nf_tensor *shared_tensor(const nf_merging *m, tensor_kind kind)
{
    const nf_tensor *const tensors[SHARED_TENSORS] = {m->out, m->lse, m->dout, m->dlse};
    return tensors[kind];
}

static const nf_tensor *part_tensor(const nf_merging *m, tensor_kind kind, int64_t part)
{
    const nf_tensor *const *const arrays[TENSORS_OF_PART] = {m->out_parts, m->lse_parts, m->dout_parts, m->dlse_parts};
    return arrays[kind] ? arrays[kind][part] : NULL;
}

static int64_t shared_at(tensor_kind kind)
{
    return GPU_MERGE_TENSORS + (int64_t)kind * GPU_MERGE_WORDS;
}

static int64_t part_at(tensor_kind kind, int64_t part)
{
    return GPU_MERGE_TENSORS + (SHARED_TENSORS + TENSORS_OF_PART * part + (int64_t)kind) * GPU_MERGE_WORDS;
}

nf_status gpu_merge_each_tensor(const nf_merging *merging,
                                nf_status (*visit)(void *data, const nf_tensor *tensor, const char *name), void *data)
{
    static const char *const names[] = {"out", "lse", "dout", "dlse"};
    nf_status status = NF_OK;
    for (int kind = OUT; status == NF_OK && kind <= DLSE; kind++) {
        const nf_tensor *shared = shared_tensor(merging, (tensor_kind)kind);
        if (shared)
            status = visit(data, shared, names[kind]);
        for (int64_t i = 0; status == NF_OK && i < merging->count; i++) {
            char name[40];
            const nf_tensor *part = part_tensor(merging, (tensor_kind)kind, i);
            snprintf(name, sizeof name, "%s_parts[%lld]", names[kind], (long long)i);
            if (part)
                status = visit(data, part, name);
        }
    }
    return status;
}

/* ---- The program and its memory ---------------------------------------------------------------------------------- */

static int64_t count_rows(const nf_merging *m)
{
    int64_t rows = 1;
    for (int32_t a = 0; a < m->out->rank - 1; a++)
        rows *= m->out->extents[a];
    return rows;
}

static int64_t count_dims(const nf_merging *m)
{
    return m->out->extents[m->out->rank - 1];
}

void gpu_merge_options(const nf_merging *merging, char *options, size_t capacity)
{
    snprintf(options, capacity, "-DRANK=1 -DIN_TYPE=%d -DOUT_TYPE=%d", (int)merging->out->dtype,
             (int)merging->out->dtype);
}

size_t gpu_merge_table_words(const nf_merging *merging)
{
    return (size_t)part_at(OUT, merging->count);
}

static void describe_tensor(int64_t *words, const nf_tensor *tensor, int32_t axes)
{
    if (!tensor)
        return;
    words[GPU_MERGE_OFFSET] = tensor->offset;
    for (int32_t a = 0; a < axes; a++)
        words[GPU_MERGE_STRIDE_AXIS + a] = tensor->strides[a];
    words[GPU_MERGE_STRIDE_DIM] = tensor->rank > axes ? tensor->strides[axes] : 0;
}

void gpu_merge_fill(const nf_merging *merging, int64_t *table)
{
    const nf_tensor *out = merging->out;
    const int32_t axes = out->rank - 1;
    table[GPU_MERGE_AXES] = axes;
    table[GPU_MERGE_ROWS] = count_rows(merging);
    table[GPU_MERGE_DIM] = count_dims(merging);
    for (int32_t a = 0; a < axes; a++)
        table[GPU_MERGE_EXTENT + a] = out->extents[a];
    for (int kind = OUT; kind <= DLSE; kind++) {
        describe_tensor(table + shared_at((tensor_kind)kind), shared_tensor(merging, (tensor_kind)kind), axes);
        for (int64_t i = 0; i < merging->count; i++)
            describe_tensor(table + part_at((tensor_kind)kind, i), part_tensor(merging, (tensor_kind)kind, i), axes);
    }
}

size_t gpu_merge_scratch_bytes(const nf_merging *merging)
{
    const int64_t reals = count_rows(merging) * (2 + count_dims(merging));
    return merging->dout ? 0 : (size_t)reals * nf_dtype_size(merging->out->dtype);
}

/* ---- Launches ---------------------------------------------------------------------------------------------------- */

static void add(gpu_merge_launch *launch, gpu_merge_arg arg)
{
    launch->args[launch->count++] = arg;
}

static void add_number(gpu_merge_launch *launch, int64_t number)
{
    add(launch, (gpu_merge_arg){.kind = GPU_MERGE_ARG_NUMBER, .number = number});
}

/* An absent tensor is at -1. */
static void add_tensor(gpu_merge_launch *launch, const nf_tensor *tensor, int64_t at)
{
    add(launch, (gpu_merge_arg){.kind = GPU_MERGE_ARG_TENSOR, .tensor = tensor});
    add_number(launch, tensor ? at : -1);
}

static void add_shared(gpu_merge_launch *launch, const nf_merging *m, tensor_kind kind)
{
    add_tensor(launch, shared_tensor(m, kind), shared_at(kind));
}

static void add_part(gpu_merge_launch *launch, const nf_merging *m, tensor_kind kind, int64_t part)
{
    add_tensor(launch, part_tensor(m, kind, part), part_at(kind, part));
}

static void begin(gpu_merge_launch *launch, const char *kernel, int64_t elements, bool scratch)
{
    *launch = (gpu_merge_launch){.kernel = kernel, .elements = elements};
    add(launch, (gpu_merge_arg){.kind = GPU_MERGE_ARG_TABLE});
    if (scratch)
        add(launch, (gpu_merge_arg){.kind = GPU_MERGE_ARG_SCRATCH});
}

/* The largest lse of all parts is known before the first weight is formed. */
static void forward_launch(const nf_merging *m, int64_t index, gpu_merge_launch *launch)
{
    const int64_t rows = count_rows(m), elements = rows * count_dims(m), part = index % m->count;
    if (index == 2 * m->count) {
        begin(launch, "merge_end", elements, true);
        add_shared(launch, m, OUT);
        add_shared(launch, m, LSE);
        return;
    }
    const bool adds = index >= m->count;
    begin(launch, adds ? "merge_add" : "merge_max", adds ? elements : rows, true);
    add_number(launch, part == 0);
    add_part(launch, m, LSE, part);
    if (adds)
        add_part(launch, m, OUT, part);
}

static void backward_launch(const nf_merging *m, int64_t part, gpu_merge_launch *launch)
{
    begin(launch, "merge_backward", count_rows(m), false);
    add_shared(launch, m, LSE);
    add_shared(launch, m, OUT);
    add_shared(launch, m, DOUT);
    add_shared(launch, m, DLSE);
    add_part(launch, m, LSE, part);
    add_part(launch, m, OUT, part);
    add_part(launch, m, DOUT, part);
    add_part(launch, m, DLSE, part);
}

int64_t gpu_merge_launch_count(const nf_merging *merging)
{
    return merging->dout ? merging->count : 2 * merging->count + 1;
}

static void launch_at(const nf_merging *merging, int64_t index, gpu_merge_launch *launch)
{
    if (merging->dout)
        backward_launch(merging, index, launch);
    else
        forward_launch(merging, index, launch);
}

nf_status gpu_merge_each_launch(const nf_merging *merging, nf_status (*launch)(void *data, const gpu_merge_launch *l),
                                void *data)
{
    nf_status status = NF_OK;
    for (int64_t i = 0; status == NF_OK && i < gpu_merge_launch_count(merging); i++) {
        gpu_merge_launch l;
        launch_at(merging, i, &l);
        status = launch(data, &l);
    }
    return status;
}
