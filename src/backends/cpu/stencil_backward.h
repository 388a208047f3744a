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

/* What has a row per query. */
enum { STENCIL_Q, STENCIL_DOUT, STENCIL_OUT, STENCIL_LSE, STENCIL_DLSE, STENCIL_DQ, STENCIL_ROW_TENSORS };

static inline const cpu_view *stencil_row_view(const stencil_call *call, int tensor)
{
    const cpu_views *io = &call->io;
    const cpu_view *views[STENCIL_ROW_TENSORS] = {&io->q, &io->dout, &io->out, &io->lse, &io->dlse, &io->dq};
    return views[tensor];
}

/* Workspace of one thread. Index 0 is about q and k, index 1 about dout and v. */
typedef struct stencil_scratch {
    const stencil_call *call;
    cpu_stencil_item items[2], *item, *next; /* at hand, and next or NULL */
    cpu_stencil_ring ring;
    int64_t *column_at[2];                /* of the item at hand, in k and v: offsets of its columns, */
    int64_t *row_at[STENCIL_ROW_TENSORS]; /* and of the rows of its lane blocks, `lanes` each; of one strand, the first's */
    void *rows[2], *transposed[2], *lse, *delta; /* of a block */
    void *dq, *scales, *scores, *dscores;
    void *converted;
    const void **pointers;
    cpu_ahead_run ahead[CPU_AHEAD_RUNS];
} stencil_scratch;

/* The rows of one lane block, of head h of each group, at one place of all axes but the last: `at` bytes from base. */
typedef struct stencil_rows {
    char *base;
    const int64_t *at;
    int64_t count;
    int64_t step; /* bytes to the next row of the line axis */
} stencil_rows;

/* Finds those of the item at hand, before they are asked for. */
void cpu_stencil_find_rows(const stencil_scratch *s);
stencil_rows cpu_stencil_rows(const stencil_scratch *s, int tensor, const nf_box *outer, int32_t row, int64_t b, int64_t h);

/* Loads the rows first .. end - 1 of lane block b: q and dout as they are and transposed, lse and delta. */
void cpu_stencil_load_block(const stencil_scratch *s, const nf_box *outer, int32_t first, int32_t end, int64_t b, int64_t h);

/* Reals, `width` apart, times a factor as rows of dq. */
void cpu_stencil_store_dq(const stencil_scratch *s, const stencil_rows *to, const void *rows, int64_t width, double factor);

/* Moves the sums of the item's own columns of a line to their tensor, dk or dv: they are zero then. */
void cpu_stencil_move_line(const stencil_scratch *s, const nf_box *line, int64_t slot, int which, int64_t n, double factor);

#endif
