/* What the two passes of backward share: dq has queries as rows (backward_dq.c), dk and dv have keys (backward_dkv.c). With
 * seven products no sum is shared between items; with five the pass by key also adds to dq, in turns (tile_order.h). Either
 * way the result does not depend on the number of threads. */
#ifndef NF_CPU_BACKWARD_H
#define NF_CPU_BACKWARD_H

#include "backends/cpu/tile.h"

typedef struct backward_call {
    const cpu_tile_plan *plan;
    cpu_views io;
    bool five;              /* dq is summed by the pass by key */
    cpu_view dq_sum;        /* then where: dq, or reals in the workspace */
    cpu_view delta;         /* dout . out - dlse of every query, reals in the workspace */
    _Atomic int32_t *turns; /* per (batch, head): counters */
    char *partial; /* sums of extra tokens' gradients: [stream][split][tile] */
} backward_call;

size_t cpu_backward_dq_bytes(const cpu_tile_plan *plan);
size_t cpu_backward_dkv_bytes(const cpu_tile_plan *plan);

/* Run one pass over all items, in parallel. workspace holds thread_bytes per thread. */
void cpu_backward_dq(const backward_call *call, char *workspace);
void cpu_backward_dkv(const backward_call *call, char *workspace);
/* Gradients of extra tokens: every query sees them, so queries are cut into a fixed number of parts. */
void cpu_backward_extra(const backward_call *call, char *workspace);

/* lse and delta of each query of one head, as reals. */
void cpu_load_row_terms(const backward_call *c, const cpu_span *span, int64_t batch, int64_t head, void *lse, void *delta);
/* lse and delta = dout . out - dlse of each position from views, as reals; out and dout are the positions' rows, n long,
 * dlse may be absent. */
void cpu_row_terms(const cpu_kernels *k, const cpu_span *span, const cpu_view *lse_view, const cpu_view *dlse_view,
                   int64_t batch, int64_t head, int64_t n, const void *const *out, const void *const *dout, void *lse,
                   void *delta);

#endif
