/* The stencil algorithm: rows in the lanes, side by side on the last axis; a block of up to four rows along the axis before
 * it shares every column it loads. Nothing invisible is multiplied except in lanes past a border. Lines of columns are
 * packed into a ring that advances with the blocks. */
#ifndef NF_CPU_STENCIL_H
#define NF_CPU_STENCIL_H

#include "backends/cpu/tile.h"

/* One walk over the pairs, rows on one side. An item is a range of rows: lanes on the last axis, blocks of lines on the one
 * before (the line axis; none in 1-D), one after the other on the outer axes. */
typedef struct cpu_stencil_walk {
    nf_work work;
    int32_t line_axis;     /* rank - 2, or -1 */
    int64_t block_rows;    /* CPU_STENCIL_ROWS, or 1 in 1-D */
    int64_t heads;         /* column heads that a ring holds */
    int64_t planes;        /* places of the outer axes a ring holds, at most */
    int64_t ring;          /* lines of each, at most */
    int64_t columns;       /* of a line, at most */
    int64_t line_stride;   /* columns and room for a load past the end, padded off the same cache sets */
    int64_t slots;         /* of a lane, at most */
    int64_t lane_blocks;   /* of an item, at most */
    int64_t chunk;         /* lines whose scores are held at once */
    int64_t items;
    double operations;     /* predicted vector operations of the whole walk */
} cpu_stencil_walk;

typedef struct cpu_stencil_plan {
    const nf_request *request;
    const cpu_kernels *kernels;
    cpu_stencil_walk by_query, by_key;
    int64_t head_dim, value_dim; /* rounded up to lanes */
    double scale;
    int64_t threads;
    size_t thread_bytes;
} cpu_stencil_plan;

/* Predicted vector operations of a walk; infinity if the lines that a block of rows sees are too many to keep. */
double cpu_stencil_operations(const nf_request *request, const cpu_kernels *kernels, nf_side rows);

/* Cuts and sizes one walk whose operations are finite. */
nf_status cpu_stencil_shape(cpu_stencil_walk *walk, const nf_request *request, const cpu_kernels *kernels, nf_side rows);

/* What an item works on: its ring of packed lines, its lane blocks, the lines of the block at hand. */
typedef struct cpu_stencil_item {
    const cpu_stencil_walk *walk;
    nf_work_item item;
    int64_t batch, kv_head;
    cpu_lanes *lanes;
    int64_t lane_blocks;
    int32_t packed_end;                /* line positions below this one are in the ring */
    cpu_line *lines;
    int64_t line_count;
} cpu_stencil_item;

/* The parts of a ring: matrices of one line, and where they lie. */
typedef struct cpu_stencil_ring {
    void *transposed[2], *straight[2];
    int64_t depth[2], width[2];        /* rows of transposed, row length of straight; 0: not kept */
    void *lse, *delta;                 /* NULL: not kept */
} cpu_stencil_ring;

void cpu_stencil_take_item(cpu_arena *arena, const cpu_stencil_walk *walk, cpu_stencil_item *item);
void cpu_stencil_take_ring(cpu_arena *arena, const cpu_stencil_walk *walk, int64_t real, cpu_stencil_ring *ring);

/* Decodes item number index and lays out its lanes. */
void cpu_stencil_open(cpu_stencil_item *item, const cpu_stencil_walk *walk, const nf_problem *problem, int64_t lanes,
                      int64_t index);

/* Rows of the line axis, and what one of them sees. */
nf_interval cpu_stencil_line_rows(const cpu_stencil_item *item);
nf_interval cpu_stencil_line_sees(const cpu_stencil_item *item, int32_t row);

/* Places of the outer axes' rows: how many, and the index-th as a box of one position each. */
int64_t cpu_stencil_outer_count(const cpu_stencil_item *item);
void cpu_stencil_outer(const cpu_stencil_item *item, int64_t index, nf_box *box);

/* Lists the lines that rows first .. end - 1 of the line axis see from one outer place, in the ring of one head. */
void cpu_stencil_list_lines(cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k,
                            const nf_box *outer, int32_t first, int32_t end, int64_t head);

/* Calls pack for every line the next block needs and the ring does not hold: a box of the columns of one line, its head in
 * the ring, its slot. */
typedef void cpu_stencil_pack(void *context, const nf_box *line, int64_t head, int64_t slot);
void cpu_stencil_advance(cpu_stencil_item *item, int32_t first, int32_t end, cpu_stencil_pack *pack, void *context);

/* Lines that the block of rows first .. end - 1 adds to the ring, on the line axis and in all. */
nf_interval cpu_stencil_new_lines(const cpu_stencil_item *item, int32_t first, int32_t end);
int64_t cpu_stencil_plane_count(const cpu_stencil_item *item);
void cpu_stencil_plane(const cpu_stencil_item *item, int64_t plane, nf_box *line);

/* Copies the columns of a line into slot of the ring: which transposed and which straight matrix, -1 for none. */
void cpu_stencil_pack_line(const cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k,
                           const nf_box *line, int64_t slot, const cpu_view *view, int64_t head, int transposed,
                           int straight, int64_t n, void *converted, const void **rows);

/* Rows of a tensor that lie at a constant distance: where the first is, and bytes from one to the next. */
typedef struct cpu_run {
    char *base;
    int64_t step, count;
} cpu_run;

/* The columns of a line; the rows of lane block b of row `row`. */
cpu_run cpu_stencil_columns(const cpu_stencil_item *item, const cpu_view *view, const nf_box *line, int64_t head);
cpu_run cpu_stencil_rows(const cpu_stencil_item *item, const cpu_view *view, const nf_box *outer, int32_t row, int64_t b,
                         int64_t lanes, int64_t head);

/* The rows of lane block b of row `row`: a span, and its box to keep. */
cpu_span cpu_stencil_span(const cpu_stencil_item *item, const nf_box *outer, int32_t row, int64_t b, int64_t lanes,
                          nf_box *box);

size_t cpu_stencil_forward_bytes(const cpu_stencil_plan *plan);
size_t cpu_stencil_backward_bytes(const cpu_stencil_plan *plan);
nf_status cpu_stencil_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
nf_status cpu_stencil_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);

extern const nf_algorithm cpu_algorithm_stencil;

#endif
