/* Merging in one allocation. */
#include "merging.h"

#include <math.h>
#include <stdlib.h>

#include "attend.h"
#include "harness.h"
#include "oracle.h"

void merging_create(merging *m, nf_dtype dtype, nf_memory memory)
{
    static const int64_t extents[] = {2, 3, 7};
    int64_t used = 5;
    uint64_t seed = 8;
    for (int t = 0; t < MERGING_TENSORS; t++) {
        nf_tensor *host = &m->host[t], *there = &m->placed[t];
        ck_assert_int_eq(nf_tensor_init(host, NULL, dtype, t % 2 ? 2 : 3, extents), NF_OK);
        host->data = malloc((size_t)tensor_count(host) * nf_dtype_size(dtype));
        for (int64_t i = 0; i < tensor_count(host); i++)
            tensor_set(host, i,
                       t % MERGING_KINDS == 1 && (i == 2 || (i == 1 && t == 1)) ? -INFINITY
                                                                                : 2 * oracle_uniform(&seed));
        *there = *host;
        there->memory = memory;
        m->first[t] = used + tensor_count(host) - 1;
        used += tensor_count(host);
        for (int32_t a = 0; a < host->rank; a++)
            there->strides[a] = -host->strides[a];
    }
    m->bytes = (size_t)used * nf_dtype_size(dtype);
}

void merging_destroy(merging *m)
{
    for (int t = 0; t < MERGING_TENSORS; t++)
        free(m->host[t].data);
}

static nf_tensor view_of(const merging *m, int t, void *image)
{
    nf_tensor view = m->placed[t];
    view.memory = NF_HOST;
    view.data = (char *)image + (size_t)m->first[t] * nf_dtype_size(view.dtype);
    view.offset = 0;
    return view;
}

void merging_fill(const merging *m, void *image)
{
    for (int t = 0; t < MERGING_TENSORS; t++) {
        nf_tensor view = view_of(m, t, image);
        for (int64_t i = 0; i < tensor_count(&view); i++)
            tensor_set(&view, i, tensor_get(&m->host[t], i));
    }
}

void merging_compare(const merging *m, void *image, double tolerance)
{
    for (int t = 0; t < MERGING_TENSORS; t++) {
        const nf_tensor view = view_of(m, t, image);
        for (int64_t i = 0; i < tensor_count(&view); i++) {
            const double is = tensor_get(&view, i), wanted = tensor_get(&m->host[t], i);
            ck_assert_msg(is == wanted || fabs(is - wanted) < tolerance, "tensor %d: %g at %d must be %g", t, is,
                          (int)i, wanted);
        }
    }
}

/* The tensors of the parts by kind. */
typedef const nf_tensor *parts_of[MERGING_KINDS][MERGING_PARTS];

static const nf_tensor *sort(const nf_tensor *tensors, parts_of parts)
{
    for (int kind = 0; kind < MERGING_KINDS; kind++)
        for (int i = 0; i < MERGING_PARTS; i++)
            parts[kind][i] = &tensors[MERGING_KINDS * i + kind];
    return &tensors[MERGING_KINDS * MERGING_PARTS];
}

void merging_run_host(merging *m)
{
    parts_of parts;
    const nf_tensor *out = sort(m->host, parts);
    ck_assert_int_eq(nf_merge(MERGING_PARTS, parts[0], parts[1], out, out + 1), NF_OK);
    ck_assert_int_eq(
        nf_merge_backward(MERGING_PARTS, parts[0], parts[1], out, out + 1, out + 2, out + 3, parts[2], parts[3]),
        NF_OK);
}

void *merging_run(merging *m, nf_context *context, nf_exec *exec, void **forward_done)
{
    parts_of parts;
    const nf_tensor *out = sort(m->placed, parts);
    void *backward_done = NULL;
    exec->signal_event = forward_done;
    ck_assert_msg(nf_merge_on(context, exec, MERGING_PARTS, parts[0], parts[1], out, out + 1) == NF_OK, "%s",
                  nf_last_error());
    exec->wait_count = 1;
    exec->wait_events = forward_done;
    exec->signal_event = &backward_done;
    ck_assert_msg(nf_merge_backward_on(context, exec, MERGING_PARTS, parts[0], parts[1], out, out + 1, out + 2, out + 3,
                                       parts[2], parts[3]) == NF_OK,
                  "%s", nf_last_error());
    return backward_done;
}
