/* What the files of the stencil's backward share: a call, and one thread's workspace. */
#ifndef NF_CPU_STENCIL_BACKWARD_H
#define NF_CPU_STENCIL_BACKWARD_H

#include "backends/cpu/stencil.h"

/* Whether a gradient goes from registers to its tensor, and past the caches. */
typedef struct stencil_way {
    bool direct, stream;
} stencil_way;

typedef struct stencil_call {
    const cpu_stencil_plan *plan;
    cpu_views io;
    stencil_way dq, sums[2]; /* of dk and dv */
} stencil_call;

/* Workspace of one thread. Index 0 is about q and k, index 1 about dout and v. */
typedef struct stencil_scratch {
    const stencil_call *call;
    cpu_stencil_item items[2], *item, *next; /* at hand, and next or NULL */
    cpu_stencil_ring ring;
    void *rows[2], *transposed[2], *lse, *delta; /* of a block */
    void *dq, *scales, *scores, *dscores;
    void *converted;
    const void **pointers;
    cpu_ahead_run ahead[CPU_AHEAD_RUNS];
} stencil_scratch;

/* Loads the rows first .. end - 1 of lane block b: q and dout as they are and transposed, lse and delta. */
void cpu_stencil_load_block(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b,
                            int64_t head);

/* Reals, `width` apart, times a factor as rows of a tensor. */
void cpu_stencil_store_run(const stencil_scratch *s, cpu_run run, const cpu_view *view, const void *rows, int64_t width,
                           int64_t n, double factor);

/* Moves the sums of the item's own columns of a line to their tensor, dk or dv: they are zero then. */
void cpu_stencil_move_line(const stencil_scratch *s, const nf_box *line, int64_t slot, int which, int64_t n, double factor);

#endif
