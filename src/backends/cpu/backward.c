/* Backward: the passes that the gradients asked for need. */
#include "backends/cpu/backward.h"

size_t cpu_backward_bytes(const cpu_tile_plan *plan)
{
    const size_t dq = cpu_backward_dq_bytes(plan), dkv = cpu_backward_dkv_bytes(plan);
    return dq > dkv ? dq : dkv;
}

void cpu_row_terms(const cpu_kernels *k, const cpu_span *span, const cpu_view *lse_view, const cpu_view *dlse_view,
                   int64_t batch, int64_t head, int64_t n, const void *const *out, const void *const *dout, void *lse,
                   void *delta)
{
    int64_t lse_offset[CPU_MAX_COLUMNS], dlse_offset[CPU_MAX_COLUMNS];
    cpu_span_offsets(span, lse_view, lse_offset);
    if (dlse_view->data)
        cpu_span_offsets(span, dlse_view, dlse_offset);
    for (int64_t i = 0; i < span->count; i++) {
        const double dlse = dlse_view->data ? cpu_read_scalar(dlse_view, batch, head, dlse_offset[i]) : 0;
        cpu_set_real(k, lse, i, cpu_read_scalar(lse_view, batch, head, lse_offset[i]));
        cpu_set_real(k, delta, i, k->dot(out[i], dout[i], n) - dlse);
    }
}

void cpu_load_row_terms(const backward_call *c, const cpu_span *span, int64_t batch, int64_t head,
                        const void *const *out, const void *const *dout, void *lse, void *delta)
{
    cpu_row_terms(c->plan->kernels, span, &c->lse, &c->dlse, batch, head, c->plan->request->problem->value_dim, out, dout,
                  lse, delta);
}

nf_status cpu_tile_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace)
{
    const cpu_tile_plan *plan = prepared;
    const int32_t rank = plan->request->problem->rank;
    char *base = workspace;
    const backward_call call = {
        .plan = plan,
        .q = cpu_view_of(io[NF_Q], rank, true),
        .k = cpu_view_of(io[NF_K], rank, true),
        .v = cpu_view_of(io[NF_V], rank, true),
        .extra_k = cpu_view_of(io[NF_EXTRA_K], 1, true),
        .extra_v = cpu_view_of(io[NF_EXTRA_V], 1, true),
        .out = cpu_view_of(io[NF_OUT], rank, true),
        .lse = cpu_view_of(io[NF_LSE], rank, false),
        .dout = cpu_view_of(io[NF_DOUT], rank, true),
        .dlse = cpu_view_of(io[NF_DLSE], rank, false),
        .dq = cpu_view_of(io[NF_DQ], rank, true),
        .dk = cpu_view_of(io[NF_DK], rank, true),
        .dv = cpu_view_of(io[NF_DV], rank, true),
        .dextra_k = cpu_view_of(io[NF_DEXTRA_K], 1, true),
        .dextra_v = cpu_view_of(io[NF_DEXTRA_V], 1, true),
        .partial = base + (size_t)plan->threads * plan->thread_bytes,
    };
    if (call.dq.data)
        cpu_backward_dq(&call, base);
    if (call.dk.data || call.dv.data)
        cpu_backward_dkv(&call, base);
    if (call.dextra_k.data || call.dextra_v.data)
        cpu_backward_extra(&call, base);
    return NF_OK;
}
