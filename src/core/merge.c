/* Merging partial results over disjoint keys, and its gradients: doc/semantics.md, "The value". Works in double, row by
 * row and in blocks along value_dim, so that merging in place reads every element before it is overwritten. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "core/backend.h"
#include "core/context.h"
#include "core/plan.h"
#include "core/status.h"
#include "core/tensor.h"

enum { BLOCK = 128, NAME_CAPACITY = 40 };

/* ---- Checks ------------------------------------------------------------------------------------------------------ */

/* A tensor of out's type and shape, without out's last dimension if lse. */
static nf_status check_like(const nf_tensor *tensor, const char *name, const nf_tensor *out, bool lse)
{
    const nf_status status = nf_tensor_check_data(tensor, name);
    if (status != NF_OK)
        return status;
    const int32_t rank = lse ? out->rank - 1 : out->rank;
    if (tensor->memory != out->memory)
        return nf_fail(NF_ERR_TENSOR, "%s: memory %s must be %s", name, nf_memory_name(tensor->memory),
                       nf_memory_name(out->memory));
    if (tensor->dtype != out->dtype)
        return nf_fail(NF_ERR_TENSOR, "%s: dtype %s must be that of out, %s", name, nf_dtype_name(tensor->dtype),
                       nf_dtype_name(out->dtype));
    if (tensor->rank != rank)
        return nf_fail(NF_ERR_TENSOR, "%s: rank %d must be %d, %s out", name, (int)tensor->rank, (int)rank,
                       lse ? "one less than that of" : "that of");
    for (int32_t a = 0; a < rank; a++)
        if (tensor->extents[a] != out->extents[a])
            return nf_fail(NF_ERR_TENSOR, "%s: extent %d is %" PRId64 ", must be that of out, %" PRId64, name, (int)a,
                           tensor->extents[a], out->extents[a]);
    return NF_OK;
}

static nf_status check_out(const nf_tensor *out, bool on_device)
{
    const nf_status status = nf_tensor_check_data(out, "out");
    if (status != NF_OK)
        return status;
    if (out->dtype != NF_F32 && out->dtype != NF_F64)
        return nf_fail(NF_ERR_TENSOR, "out: dtype %s must be f32 or f64", nf_dtype_name(out->dtype));
    if (!on_device && out->memory != NF_HOST)
        return nf_fail(NF_ERR_TENSOR, "out: memory %s must be host", nf_memory_name(out->memory));
    if (out->rank < 2)
        return nf_fail(NF_ERR_TENSOR, "out: rank %d must be at least 2, as lse has one dimension less", (int)out->rank);
    return check_like(out, "out", out, false);
}

static void name_part(char name[NAME_CAPACITY], const char *array, int64_t index)
{
    snprintf(name, NAME_CAPACITY, "%s[%" PRId64 "]", array, index);
}

static nf_status check_parts(const nf_merging *m, const nf_tensor *const *parts, const char *array, bool lse)
{
    if (!parts)
        return nf_fail(NF_ERR_ARGUMENT, "%s: NULL where an array of %" PRId64 " tensors is required", array, m->count);
    for (int64_t i = 0; i < m->count; i++) {
        char name[NAME_CAPACITY];
        name_part(name, array, i);
        const nf_status status = check_like(parts[i], name, m->out, lse);
        if (status != NF_OK)
            return status;
    }
    return NF_OK;
}

static nf_status check_inputs(const nf_merging *m, bool on_device)
{
    if (m->count < 1)
        return nf_fail(NF_ERR_ARGUMENT, "count %" PRId64 " must be at least 1", m->count);
    nf_status status = check_out(m->out, on_device);
    if (status == NF_OK && m->lse)
        status = check_like(m->lse, "lse", m->out, true);
    if (status == NF_OK)
        status = check_parts(m, m->out_parts, "out_parts", false);
    if (status == NF_OK)
        status = check_parts(m, m->lse_parts, "lse_parts", true);
    return status;
}

/* other may be absent. */
static nf_status check_apart(const nf_tensor *output, const char *name, const nf_tensor *other, const char *other_name)
{
    if (other && nf_tensors_overlap(output, other))
        return nf_fail(NF_ERR_TENSOR, "%s overlaps %s", name, other_name);
    return NF_OK;
}

static bool same_view(const nf_tensor *a, const nf_tensor *b)
{
    for (int32_t i = 0; i < a->rank; i++)
        if (a->extents[i] > 1 && a->strides[i] != b->strides[i])
            return false;
    return a->data == b->data && a->offset == b->offset;
}

/* An output against the parts from index on. in_place: it may be one of them. */
static nf_status check_apart_from_parts(const nf_merging *m, const nf_tensor *output, const char *name, bool in_place,
                                        const nf_tensor *const *parts, const char *array, int64_t index)
{
    for (int64_t i = index; i < m->count; i++) {
        char part[NAME_CAPACITY];
        name_part(part, array, i);
        if (in_place && same_view(output, parts[i]))
            continue;
        const nf_status status = check_apart(output, name, parts[i], part);
        if (status != NF_OK)
            return in_place ? nf_fail(NF_ERR_TENSOR, "%s overlaps %s without being the same view", name, part) : status;
    }
    return NF_OK;
}

static nf_status check_output(const nf_merging *m, const nf_tensor *output, const char *name, bool is_out, bool is_lse)
{
    if (nf_tensor_overlaps_itself(output))
        return nf_fail(NF_ERR_TENSOR, "%s overlaps itself", name);
    nf_status status = check_apart_from_parts(m, output, name, is_out, m->out_parts, "out_parts", 0);
    if (status == NF_OK)
        status = check_apart_from_parts(m, output, name, is_lse, m->lse_parts, "lse_parts", 0);
    return status;
}

static nf_status check_gradient(const nf_merging *m, const nf_tensor *gradient, const char *name)
{
    const struct {
        const nf_tensor *tensor;
        const char *name;
    } inputs[] = {{m->out, "out"}, {m->lse, "lse"}, {m->dout, "dout"}, {m->dlse, "dlse"}};
    nf_status status = check_output(m, gradient, name, false, false);
    for (size_t i = 0; status == NF_OK && i < sizeof inputs / sizeof *inputs; i++)
        status = check_apart(gradient, name, inputs[i].tensor, inputs[i].name);
    return status;
}

static nf_status check_gradients(const nf_merging *m)
{
    nf_status status = check_parts(m, m->dout_parts, "dout_parts", false);
    if (status == NF_OK)
        status = check_parts(m, m->dlse_parts, "dlse_parts", true);
    for (int64_t i = 0; status == NF_OK && i < m->count; i++) {
        char dout[NAME_CAPACITY], dlse[NAME_CAPACITY];
        name_part(dout, "dout_parts", i);
        name_part(dlse, "dlse_parts", i);
        status = check_gradient(m, m->dout_parts[i], dout);
        if (status == NF_OK)
            status = check_gradient(m, m->dlse_parts[i], dlse);
        if (status == NF_OK)
            status = check_apart_from_parts(m, m->dout_parts[i], dout, false, m->dout_parts, "dout_parts", i + 1);
        if (status == NF_OK)
            status = check_apart_from_parts(m, m->dlse_parts[i], dlse, false, m->dlse_parts, "dlse_parts", i + 1);
        if (status == NF_OK)
            status = check_apart_from_parts(m, m->dout_parts[i], dout, false, m->dlse_parts, "dlse_parts", 0);
    }
    return status;
}

/* ---- Elements ---------------------------------------------------------------------------------------------------- */

static void load(const nf_tensor *tensor, int64_t offset, int64_t stride, int64_t count, double *to)
{
    if (tensor->dtype == NF_F64) {
        const double *from = (const double *)tensor->data + offset;
        for (int64_t i = 0; i < count; i++)
            to[i] = from[i * stride];
    } else {
        const float *from = (const float *)tensor->data + offset;
        for (int64_t i = 0; i < count; i++)
            to[i] = (double)from[i * stride];
    }
}

static void store(const nf_tensor *tensor, int64_t offset, int64_t stride, int64_t count, const double *from)
{
    if (tensor->dtype == NF_F64) {
        double *to = (double *)tensor->data + offset;
        for (int64_t i = 0; i < count; i++)
            to[i * stride] = from[i];
    } else {
        float *to = (float *)tensor->data + offset;
        for (int64_t i = 0; i < count; i++)
            to[i * stride] = (float)from[i];
    }
}

static int64_t row_offset(const nf_tensor *tensor, const int64_t *row, int32_t axes)
{
    int64_t offset = 0;
    for (int32_t a = 0; a < axes; a++)
        offset += row[a] * tensor->strides[a];
    return offset;
}

static double load_lse(const nf_tensor *lse, const int64_t *row)
{
    double value;
    load(lse, row_offset(lse, row, lse->rank), 0, 1, &value);
    return value;
}

static void store_lse(const nf_tensor *lse, const int64_t *row, double value)
{
    store(lse, row_offset(lse, row, lse->rank), 0, 1, &value);
}

static void load_block(const nf_tensor *tensor, const int64_t *row, int64_t begin, int64_t count, double *to)
{
    const int64_t stride = tensor->strides[tensor->rank - 1];
    load(tensor, row_offset(tensor, row, tensor->rank - 1) + begin * stride, stride, count, to);
}

static void store_block(const nf_tensor *tensor, const int64_t *row, int64_t begin, int64_t count, const double *from)
{
    const int64_t stride = tensor->strides[tensor->rank - 1];
    store(tensor, row_offset(tensor, row, tensor->rank - 1) + begin * stride, stride, count, from);
}

/* Calls body for every row: position in all dimensions but the last. */
static void each_row(const nf_merging *m, void (*body)(const nf_merging *m, const int64_t *row))
{
    const int32_t axes = m->out->rank - 1;
    int64_t row[NF_MAX_TENSOR_RANK] = {0};
    for (int32_t a = 0; a >= 0;) {
        body(m, row);
        for (a = axes - 1; a >= 0 && ++row[a] == m->out->extents[a]; a--)
            row[a] = 0;
    }
}

/* ---- Merge ------------------------------------------------------------------------------------------------------- */

static double merged_lse(const nf_merging *m, const int64_t *row)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < m->count; i++)
        max = fmax(max, load_lse(m->lse_parts[i], row)); /* a NaN does not win here, but reaches the sum */
    for (int64_t i = 0; i < m->count; i++) {
        const double part = load_lse(m->lse_parts[i], row);
        sum += part == -INFINITY ? 0 : exp(part - max);
    }
    return sum == 0 ? -INFINITY : max + log(sum);
}

static void merge_row(const nf_merging *m, const int64_t *row)
{
    const int64_t dim = m->out->extents[m->out->rank - 1];
    const double lse = merged_lse(m, row);
    for (int64_t begin = 0; begin < dim; begin += BLOCK) {
        const int64_t count = nf_min64(BLOCK, dim - begin);
        double sum[BLOCK] = {0}, part[BLOCK];
        for (int64_t i = 0; i < m->count; i++) {
            const double part_lse = load_lse(m->lse_parts[i], row);
            if (part_lse == -INFINITY)
                continue;
            const double weight = exp(part_lse - lse);
            load_block(m->out_parts[i], row, begin, count, part);
            for (int64_t c = 0; c < count; c++)
                sum[c] += weight * part[c];
        }
        store_block(m->out, row, begin, count, sum);
    }
    if (m->lse)
        store_lse(m->lse, row, lse);
}

static void backward_part(const nf_merging *m, int64_t i, const int64_t *row)
{
    const int64_t dim = m->out->extents[m->out->rank - 1];
    const double part_lse = load_lse(m->lse_parts[i], row);
    const bool counts = part_lse != -INFINITY;
    const double weight = counts ? exp(part_lse - load_lse(m->lse, row)) : 0;
    double sum = m->dlse ? load_lse(m->dlse, row) : 0;
    for (int64_t begin = 0; begin < dim; begin += BLOCK) {
        const int64_t count = nf_min64(BLOCK, dim - begin);
        double out[BLOCK], dout[BLOCK], part[BLOCK];
        load_block(m->out, row, begin, count, out);
        load_block(m->dout, row, begin, count, dout);
        load_block(m->out_parts[i], row, begin, count, part);
        for (int64_t c = 0; c < count; c++) {
            sum += dout[c] * (part[c] - out[c]);
            dout[c] = counts ? weight * dout[c] : 0;
        }
        store_block(m->dout_parts[i], row, begin, count, dout);
    }
    store_lse(m->dlse_parts[i], row, counts ? weight * sum : 0);
}

static void backward_row(const nf_merging *m, const int64_t *row)
{
    for (int64_t i = 0; i < m->count; i++)
        backward_part(m, i, row);
}

/* ---- Entry ------------------------------------------------------------------------------------------------------- */

static nf_status check_forward(const nf_merging *m, bool on_device)
{
    nf_status status = check_inputs(m, on_device);
    if (status == NF_OK)
        status = check_output(m, m->out, "out", true, false);
    if (status == NF_OK && m->lse)
        status = check_output(m, m->lse, "lse", false, true);
    return status == NF_OK ? check_apart(m->out, "out", m->lse, "lse") : status;
}

static nf_status check_backward(const nf_merging *m, bool on_device)
{
    nf_status status = check_inputs(m, on_device);
    if (status == NF_OK)
        status = check_like(m->lse, "lse", m->out, true);
    if (status == NF_OK)
        status = check_like(m->dout, "dout", m->out, false);
    if (status == NF_OK && m->dlse)
        status = check_like(m->dlse, "dlse", m->out, true);
    return status == NF_OK ? check_gradients(m) : status;
}

static nf_status merge_on_device(const nf_context *context, const nf_exec *exec, const nf_merging *m)
{
    for (int i = 0; i < context->backend_count; i++) {
        const nf_backend *backend = context->backend[i].backend;
        const nf_context_backend *entry;
        if (backend->memory != m->out->memory)
            continue;
        const nf_status status = nf_context_use_backend(context, backend->name, "context", &entry);
        return status == NF_OK ? backend->merge(entry->state, m, exec) : status;
    }
    return nf_fail(NF_ERR_UNSUPPORTED, "out: memory %s: no backend merges there", nf_memory_name(m->out->memory));
}

/* Where tensors lie decides who merges. context may be NULL where they lie in host memory. */
static nf_status merge_anywhere(const nf_context *context, const nf_exec *exec, const nf_merging *m,
                                void (*body)(const nf_merging *m, const int64_t *row))
{
    if (m->out->memory != NF_HOST)
        return merge_on_device(context, exec, m);
    if (exec && (exec->queue || exec->wait_count || exec->signal_event))
        return nf_fail(NF_ERR_ARGUMENT, "exec: queue and events must be NULL, tensors in host memory have none");
    each_row(m, body);
    return NF_OK;
}

static nf_status check_exec(const nf_context *context, const nf_exec *exec)
{
    if (!context)
        return nf_fail(NF_ERR_ARGUMENT, "context: NULL");
    const nf_status status = exec ? nf_exec_check(exec) : NF_OK;
    if (status == NF_OK && exec && exec->timing)
        return nf_fail(NF_ERR_ARGUMENT, "exec: timing must be NULL, merging is not timed");
    return status;
}

nf_status nf_merge(int64_t count, const nf_tensor *const *out_parts, const nf_tensor *const *lse_parts,
                   const nf_tensor *out, const nf_tensor *lse)
{
    const nf_merging m = {.count = count, .out_parts = out_parts, .lse_parts = lse_parts, .out = out, .lse = lse};
    const nf_status status = check_forward(&m, false);
    return status == NF_OK ? merge_anywhere(NULL, NULL, &m, merge_row) : status;
}

nf_status nf_merge_on(nf_context *context, const nf_exec *exec, int64_t count, const nf_tensor *const *out_parts,
                      const nf_tensor *const *lse_parts, const nf_tensor *out, const nf_tensor *lse)
{
    const nf_merging m = {.count = count, .out_parts = out_parts, .lse_parts = lse_parts, .out = out, .lse = lse};
    nf_status status = check_exec(context, exec);
    if (status == NF_OK)
        status = check_forward(&m, true);
    return status == NF_OK ? merge_anywhere(context, exec, &m, merge_row) : status;
}

nf_status nf_merge_backward(int64_t count, const nf_tensor *const *out_parts, const nf_tensor *const *lse_parts,
                            const nf_tensor *out, const nf_tensor *lse, const nf_tensor *dout, const nf_tensor *dlse,
                            const nf_tensor *const *dout_parts, const nf_tensor *const *dlse_parts)
{
    const nf_merging m = {.count = count,
                          .out_parts = out_parts,
                          .lse_parts = lse_parts,
                          .out = out,
                          .lse = lse,
                          .dout = dout,
                          .dlse = dlse,
                          .dout_parts = dout_parts,
                          .dlse_parts = dlse_parts};
    const nf_status status = check_backward(&m, false);
    return status == NF_OK ? merge_anywhere(NULL, NULL, &m, backward_row) : status;
}

nf_status nf_merge_backward_on(nf_context *context, const nf_exec *exec, int64_t count,
                               const nf_tensor *const *out_parts, const nf_tensor *const *lse_parts,
                               const nf_tensor *out, const nf_tensor *lse, const nf_tensor *dout, const nf_tensor *dlse,
                               const nf_tensor *const *dout_parts, const nf_tensor *const *dlse_parts)
{
    const nf_merging m = {.count = count,
                          .out_parts = out_parts,
                          .lse_parts = lse_parts,
                          .out = out,
                          .lse = lse,
                          .dout = dout,
                          .dlse = dlse,
                          .dout_parts = dout_parts,
                          .dlse_parts = dlse_parts};
    nf_status status = check_exec(context, exec);
    if (status == NF_OK)
        status = check_backward(&m, true);
    return status == NF_OK ? merge_anywhere(context, exec, &m, backward_row) : status;
}
