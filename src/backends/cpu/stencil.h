/* The stencil algorithm: rows in the lanes, side by side on the last axis; a block of up to four rows along the axis before
 * it shares every column it loads. Nothing invisible is multiplied except in lanes past a border. Lines of columns are
 * packed into a ring that advances with the blocks. */
#ifndef NF_CPU_STENCIL_H
#define NF_CPU_STENCIL_H

#include <stdatomic.h>

#include "backends/cpu/tile.h"

/* What an item of backward alone writes on one axis: gradients of these queries and these keys. */
typedef struct cpu_stencil_share {
    nf_interval rows, columns;
} cpu_stencil_share;

/* One walk over the pairs, queries as rows. An item is a range of rows: lanes on the last axis, blocks of lines on the one
 * before (the line axis; none in 1-D), one after the other on the outer axes. */
typedef struct cpu_stencil_walk {
    nf_work work;
    cpu_stencil_share *shares[NF_MAX_RANK]; /* of backward, per segment; NULL in forward */
    int32_t line_axis;     /* rank - 2, or -1 */
    int64_t block_rows;    /* CPU_STENCIL_ROWS, or 1 in 1-D */
    int64_t planes;        /* places of the outer axes a ring holds, at most */
    int64_t ring;          /* lines of each, at most */
    int64_t strands;       /* of an item; 1 in backward where its last axis is cut */
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
    cpu_stencil_walk forward, backward; /* backward only if the problem names it */
    int64_t head_dim, value_dim; /* rounded up to lanes */
    double scale;
    int64_t threads;
    size_t thread_bytes;
} cpu_stencil_plan;

/* Whether the lines that a block of rows sees are few enough to keep. Where backward's are, forward's are, too. */
bool cpu_stencil_fits(const nf_request *request, const cpu_kernels *kernels, bool backward);

/* Predicted vector operations of a walk that fits, forward or backward. */
double cpu_stencil_operations(const nf_request *request, const cpu_kernels *kernels, bool backward);

/* Cuts and sizes one walk that fits. */
nf_status cpu_stencil_shape(cpu_stencil_walk *walk, const nf_request *request, const cpu_kernels *kernels, bool backward);
void cpu_stencil_release(cpu_stencil_walk *walk, const nf_context *context);

/* Cuts the queries of every class into the groups of spec and its keys where the windows of two groups balance: an item of
 * backward has a group of each as its share. Its rows are then its queries and all that see its keys, its columns its keys
 * and all that its queries see. */
nf_status cpu_stencil_share_out(cpu_stencil_walk *walk, const nf_context *context, const nf_grid *grid,
                                const nf_work_spec *spec);

/* What one batch and key/value head has of the last axis within an item. The columns of all strands lie side by side in the
 * item's lines, as their rows do in its lanes, so that short ones fill vectors together. */
typedef struct cpu_stencil_strand {
    int64_t batch, kv_head;
    nf_axis_class axis_class;
    nf_segment segment;
    int32_t first; /* column */
} cpu_stencil_strand;

/* What an item works on: its ring of packed lines, its lane blocks, the lines of the block at hand. */
typedef struct cpu_stencil_item {
    const cpu_stencil_walk *walk;
    nf_work_item item;
    cpu_stencil_strand *strands;
    int64_t strand_count;
    int64_t columns; /* of all strands */
    int64_t batch, kv_head; /* of the first */
    nf_interval own_rows[NF_MAX_RANK], own_columns[NF_MAX_RANK]; /* all of them in forward */
    cpu_lanes *lanes;
    int32_t *lane_rows;                /* of each lane block: its first row, */
    int32_t *lane_strands;             /* and the strand of that */
    int64_t lane_blocks;
    int32_t packed_end;                /* line positions below this one are in the ring */
    cpu_line *lines;
    int64_t line_count;
} cpu_stencil_item;

/* The parts of a ring: matrices of one line, and where they lie. */
typedef struct cpu_stencil_ring {
    void *transposed[2], *straight, *sums[2];
    int64_t depth[2], width, sum_width[2]; /* rows of transposed, row lengths of the others; 0: not kept */
} cpu_stencil_ring;

void cpu_stencil_take_item(cpu_arena *arena, const cpu_stencil_walk *walk, cpu_stencil_item *item);
void cpu_stencil_take_ring(cpu_arena *arena, const cpu_stencil_walk *walk, int64_t real, cpu_stencil_ring *ring);

/* Decodes item number index and lays out its lanes. */
void cpu_stencil_open(cpu_stencil_item *item, const cpu_stencil_walk *walk, const nf_problem *problem, int64_t lanes,
                      int64_t index);

/* The line axis: rows, the item's own among them, lines of columns, and what a row sees of them. */
nf_interval cpu_stencil_line_rows(const cpu_stencil_item *item);
nf_interval cpu_stencil_own_line_rows(const cpu_stencil_item *item);
nf_interval cpu_stencil_lines(const cpu_stencil_item *item);
nf_interval cpu_stencil_line_sees(const cpu_stencil_item *item, int32_t row);

/* Places of the outer axes' rows: how many, and the index-th as a box of one position each. */
int64_t cpu_stencil_outer_count(const cpu_stencil_item *item);
void cpu_stencil_outer(const cpu_stencil_item *item, int64_t index, nf_box *box);

/* Where the block of at most size rows ends that begins at row `at`: blocks do not mix own rows with others, and are the same
 * wherever rows are cut in whole blocks. */
int32_t cpu_stencil_block_end(nf_interval rows, nf_interval own, int32_t at, int32_t size);
bool cpu_stencil_owns_rows(const cpu_stencil_item *item, const nf_box *outer, int32_t row);

/* Lists the lines that rows first .. end - 1 of the line axis see from one outer place: all, or the item's own. */
void cpu_stencil_list_lines(cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k,
                            const nf_box *outer, int32_t first, int32_t end, bool own);

/* Lines that a block of rows up to row `end` adds to the ring, on the line axis. */
nf_interval cpu_stencil_new_lines(const cpu_stencil_item *item, int32_t end);

/* All planes of the outer axes that an item sees: how many, and the index-th as a box of one position each. */
int64_t cpu_stencil_plane_count(const cpu_stencil_item *item);
void cpu_stencil_plane(const cpu_stencil_item *item, int64_t plane, nf_box *line);

/* Calls pack for every line below `end` that has not been in the ring: a box of the columns of one line, its slot. */
typedef void cpu_stencil_pack(void *context, const nf_box *line, int64_t slot);
void cpu_stencil_advance(cpu_stencil_item *item, int32_t end, cpu_stencil_pack *pack, void *context);

/* Copies the columns of a line, which lie at those offsets, into slot of the ring: straight, into one of the transposed
 * matrices (-1: none), or both. */
void cpu_stencil_pack_line(const cpu_stencil_item *item, const cpu_stencil_ring *ring, const cpu_kernels *k,
                           const nf_box *line, int64_t slot, const cpu_view *view, const int64_t *at, int transposed,
                           bool straight, int64_t n, void *converted, const void **rows);

/* Rows of a tensor that lie at a constant distance: where the first is, and bytes from one to the next. */
typedef struct cpu_run {
    char *base;
    int64_t step, count;
} cpu_run;

/* The positions of a strand in a box with one place on every axis but the last: columns, or rows. */
cpu_run cpu_stencil_run(const cpu_stencil_item *item, const cpu_stencil_strand *strand, const cpu_view *view,
                        const nf_box *box, int64_t head, bool columns);

/* Of all strands: where a line of columns or of rows begins, and how far in bytes its columns, or the rows of lane block b,
 * lie from there; `group` query heads for each of keys and values. */
char *cpu_stencil_base(const cpu_stencil_item *item, const cpu_view *view, const nf_box *box, bool columns);
void cpu_stencil_column_offsets(const cpu_stencil_item *item, const cpu_view *view, int64_t *offsets);
void cpu_stencil_lane_offsets(const cpu_stencil_item *item, const cpu_view *view, int64_t group, int64_t b,
                              int64_t *offsets);

/* What a walk reads of each line and of each row of queries: tensors, and elements of a position. */
typedef struct cpu_stencil_wants {
    const cpu_view *line[2], *row[3];
    int64_t line_dim[2], row_dim[3];
    int rows;
    int64_t group; /* query heads of an item */
} cpu_stencil_wants;

enum { CPU_AHEAD_RUNS = 48 }; /* that are fetched during a block, at most */

/* What to fetch during block `index` of the `blocks` of a block row that ends at `end`: its share of the lines that the next
 * block row adds, maybe of the next item, and the rows of that row's block of the same index; in about so many steps. */
cpu_ahead cpu_stencil_list_ahead(const cpu_stencil_item *item, const cpu_stencil_item *next, const cpu_stencil_wants *wants,
                                 int32_t end, int64_t index, int64_t blocks, int64_t steps, cpu_ahead_run *runs);

/* How often the values of lane block b, rows of dim, fetch ahead while they meet the listed lines. */
int64_t cpu_stencil_ahead_steps(const cpu_stencil_item *item, const cpu_kernels *k, int64_t b, int64_t dim);

/* Whether rows of n may go from registers to a tensor: they are whole vectors of reals. And if so, whether past the caches:
 * they are aligned, and the tensor is large. */
bool cpu_stencil_direct(const cpu_stencil_plan *plan, const cpu_view *view, int64_t n);
bool cpu_stencil_streams(const cpu_stencil_plan *plan, const cpu_view *view, const nf_tensor *tensor);

/* The items of an execution, which its threads take in chunks: first the one of its own number, so that a small problem is
 * found in the caches that the call before has left it in, then whichever is next. */
typedef struct cpu_stencil_queue {
    int64_t items, threads, chunk;
    _Atomic int64_t first; /* that no thread has, after the first chunks */
} cpu_stencil_queue;

/* What a thread has of it. */
typedef struct cpu_stencil_turn {
    int64_t own, shared; /* its first chunk, -1: taken; where the first chunks of all threads end */
    int64_t item, next; /* at hand, and the one after it, -1: not known yet */
    int64_t end;        /* of the chunk of the latter, or of the former */
    bool known;         /* item was next */
} cpu_stencil_turn;

cpu_stencil_queue cpu_stencil_queue_of(int64_t items, int64_t threads, int64_t most_chunk);

/* Of thread number `thread` of as many as there are in fact. */
cpu_stencil_turn cpu_stencil_turn_of(const cpu_stencil_queue *queue, int64_t thread, int64_t threads);

/* Takes a thread's next item, and the one after that, so that it is fetched in time; false: there is none. */
bool cpu_stencil_take(cpu_stencil_queue *queue, cpu_stencil_turn *turn);

size_t cpu_stencil_forward_bytes(const cpu_stencil_plan *plan);
size_t cpu_stencil_backward_bytes(const cpu_stencil_plan *plan);
nf_status cpu_stencil_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
nf_status cpu_stencil_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);

extern const nf_algorithm cpu_algorithm_stencil;

#endif
