/* The tile algorithm: keys (or, for dk and dv, queries) in the lanes, packed panels, register-blocked products, softmax
 * carried from tile to tile. What a plan holds, and the parts that forward and backward share. */
#ifndef NF_CPU_TILE_H
#define NF_CPU_TILE_H

#include "backends/cpu/kernels.h"
#include "backends/cpu/tile_order.h"
#include "backends/cpu/tile_share.h"
#include "core/backend.h"

#if defined(_OPENMP)
#include <omp.h>
static inline int cpu_thread_index(void) { return omp_get_thread_num(); }
static inline int cpu_thread_count(void) { return omp_get_num_threads(); }
#else
static inline int cpu_thread_index(void) { return 0; }
static inline int cpu_thread_count(void) { return 1; }
#endif

enum {
    CPU_TILE_ROWS = 64,             /* rows of a tile: 4x4x4, or ten register blocks of six and one of four */
    CPU_TILE_BLOCKS = (CPU_TILE_ROWS + CPU_BLOCK_ROWS - 1) / CPU_BLOCK_ROWS,
    CPU_SCORE_PAD = 64 / sizeof(float), /* keeps rows of scores off the same cache sets */
    CPU_GROUP_TILES = 16            /* row tiles that may share packed columns */
};

/* One walk over the pairs: rows on one side, columns on the other. */
typedef struct cpu_walk {
    nf_work work;
    int64_t fold;       /* query heads that share a tile's rows */
    int64_t folds;      /* tiles of heads per box: ceil(query heads per kv head / fold) */
    int64_t tile_rows;  /* at most, folded heads included */
    int64_t tiles;      /* row tiles of an item, at most, folds included */
    int64_t columns;    /* of a column tile, at most */
    int64_t items;      /* work items over all batches and key/value heads */
    int32_t lead;       /* axis whose positions lie farthest apart among an item's rows; the others follow in order */
} cpu_walk;

typedef struct cpu_tile_plan {
    const nf_request *request;
    const cpu_kernels *kernels;
    cpu_walk by_query, by_key;     /* by_key only if the problem names backward */
    bool five;                     /* backward takes five products: dq is summed by the walk by key, in turns */
    cpu_order turns;
    size_t turn_bytes, dq_bytes;   /* shared workspace: counters, and sums of dq if dq is not made of reals */
    size_t delta_bytes;            /* and delta of every query */
    int64_t extra_splits;          /* parts the queries are cut into for the gradients of extra tokens */
    int64_t extra_tiles;           /* tiles of extra tokens as rows */
    int64_t head_dim, value_dim;   /* rounded up to lanes: row strides */
    double scale;
    int64_t threads;
    int64_t kept_tiles;            /* column tiles of a head that forward packs once for all its items; 0: none */
    int64_t kept_boxes;            /* boxes of queries that the walk by key loads once for all items of a stream; 0: none */
    bool look_ahead;               /* forward fetches what it will read: the tensors do not fit in a cache */
    size_t thread_bytes;           /* workspace of one thread */
    size_t share_bytes;            /* shared workspace: counters that hand out items */
    size_t extra_bytes;            /* partial gradients of extra tokens */
} cpu_tile_plan;

/* A tensor with its strides by name; data NULL if absent. */
typedef struct cpu_view {
    char *data;
    nf_dtype dtype;
    int64_t element; /* bytes */
    int64_t batch, axis[NF_MAX_RANK], head, dim;
} cpu_view;

cpu_view cpu_view_of(const nf_tensor *tensor, int32_t rank, bool has_dim);

/* All tensors of a call. */
typedef struct cpu_views {
    cpu_view q, k, v, extra_k, extra_v, out, lse, dout, dlse, dq, dk, dv, dextra_k, dextra_v;
} cpu_views;

cpu_views cpu_views_of(const nf_tensor *const io[NF_ROLES], int32_t rank);

/* Where the rows or columns of a tile lie: a box of an item, or a run of a flattened range. */
typedef struct cpu_span {
    int64_t count;
    const nf_work_item *item; /* NULL: a run */
    const nf_box *box;
    nf_side rows;
    bool columns;             /* of the item; else its rows */
    int64_t begin;            /* of the run: first extra token, or first query in row-major order */
    const int64_t *extents;   /* of the run's grid */
    int32_t rank;
    int32_t lead;             /* of the item: as in its walk */
} cpu_span;

/* The axis at a place of the order that a lead gives. */
static inline int32_t cpu_axis_at(int32_t lead, int32_t place)
{
    return place == 0 ? lead : place <= lead ? place - 1 : place;
}

/* Element offsets of a span's positions in a tensor. */
void cpu_span_offsets(const cpu_span *span, const cpu_view *view, int64_t *offsets);

/* Gives each position's row of n elements as reals: in place where the tensor holds such rows, else converted. */
void cpu_fetch_rows(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                    int64_t n, int64_t converted_stride, void *converted, const void **rows);
/* Gives each position's row where it lies. */
void cpu_point_at_rows(const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head, const void **rows);
/* Where the rows of n elements of a box of an item lie: at most as many runs as it has positions, none if elements are not
 * adjacent. Returns their number. */
int64_t cpu_span_runs(const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head, int64_t n,
                      cpu_ahead_run *runs);
/* Copies each position's row into rows of reals, zero up to whole vectors. */
void cpu_load_rows(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                   int64_t n, int64_t stride, void *rows);
/* Writes each position's row of reals times a factor: one for all, or one each. */
void cpu_store_rows(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                    int64_t n, int64_t stride, const void *rows, double factor);
void cpu_store_rows_by(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                       int64_t n, int64_t stride, const void *rows, const double *factors);
/* Adds each position's row of reals times factor to a tensor of reals. */
void cpu_add_rows(const cpu_kernels *k, const cpu_span *span, const cpu_view *view, int64_t batch, int64_t head,
                  int64_t n, int64_t stride, const void *rows, double factor);
/* Ends a softmax: out = rows / sum and, if there is an lse, max + log sum. Positions that saw nothing get 0 and -inf. */
void cpu_store_softmax(const cpu_kernels *k, const cpu_span *span, const cpu_view *out, const cpu_view *lse,
                       int64_t batch, int64_t head, int64_t n, int64_t stride, const void *rows, const void *max,
                       const void *sum);
double cpu_read_scalar(const cpu_view *view, int64_t batch, int64_t head, int64_t offset);
void cpu_write_scalar(const cpu_view *view, int64_t batch, int64_t head, int64_t offset, double value);

static inline void cpu_set_real(const cpu_kernels *k, void *reals, int64_t index, double value)
{
    if (k->real_size == (int64_t)sizeof(float))
        ((float *)reals)[index] = (float)value;
    else
        ((double *)reals)[index] = value;
}

static inline double cpu_get_real(const cpu_kernels *k, const void *reals, int64_t index)
{
    return k->real_size == (int64_t)sizeof(float) ? (double)((const float *)reals)[index]
                                                   : ((const double *)reals)[index];
}

/* reals + index */
static inline void *cpu_at(const cpu_kernels *k, const void *reals, int64_t index)
{
    return (char *)(uintptr_t)reals + index * k->real_size;
}

/* One bit per (row, column) of a partial tile: CPU_MASK_WORDS words per row. */
void cpu_build_mask(const nf_work *work, const nf_work_item *item, const nf_box *rows, const nf_box *columns,
                    uint32_t *mask);

/* The first and last column of a partial tile that each row of one head sees. Returns whether they see all between. */
bool cpu_find_runs(const nf_work *work, const nf_work_item *item, const nf_box *rows, const nf_box *columns,
                   cpu_reach *runs);

/* What the blocks of a partial tile's rows see, the rows of each of so many heads following those of the one before. */
void cpu_find_reach(const cpu_reach *runs, int64_t positions, int64_t heads, cpu_reach *reach);

/* A workspace handed out in aligned pieces; base NULL only counts. */
typedef struct cpu_arena {
    char *base;
    size_t used;
} cpu_arena;

void *cpu_take(cpu_arena *arena, int64_t bytes);

/* A row tile of an item being worked on: a box for some of the query heads that share a key/value head. */
typedef struct cpu_row_tile {
    nf_box box;
    int64_t positions;   /* rows of one head */
    int64_t heads, head; /* how many heads are folded in, and the first */
    int64_t first;       /* its first row among the rows of the item */
    nf_tile_kind kind;   /* against the column tile at hand */
} cpu_row_tile;

/* An item being worked on. */
typedef struct cpu_item {
    const cpu_walk *walk;
    int64_t index; /* in the work list */
    int64_t batch, kv_head;
    nf_work_item work;
    cpu_row_tile *tiles;
    int64_t tile_count;
    int64_t column_tile; /* while column tiles are visited: which one */
    nf_box next;         /* and the one that follows, unless this is the last */
    bool last;
} cpu_item;

/* Opens item number `index` of a walk, whose row tiles cover `heads` heads; tiles has room for them. */
void cpu_open_item(cpu_item *item, const cpu_walk *walk, const nf_problem *problem, int64_t heads, cpu_row_tile *tiles,
                   int64_t index);

/* Hands out the items of a walk, its counters in the workspace of an execution. */
cpu_share cpu_share_walk(const cpu_tile_plan *plan, const cpu_walk *walk, char *workspace);

/* The rows of one head of a row tile. */
cpu_span cpu_row_span(const cpu_item *item, const cpu_row_tile *tile);

/* Calls visit for every column tile of the hull, its row tiles classified: any says whether one is present, partial
 * whether one is partial. */
typedef void cpu_visit_columns(void *context, const cpu_span *columns, bool any, bool partial);
void cpu_for_columns(cpu_item *item, cpu_visit_columns *visit, void *context);

/* The same for the extra tokens, which all rows see. */
void cpu_for_extra(const cpu_item *item, const nf_problem *problem, cpu_visit_columns *visit, void *context);

/* Pairs that forward computes for one batch and head, those beyond the blocks' reach left out: counted over so many items
 * spread evenly, exact if there are no more. */
double cpu_reached_pairs(const cpu_walk *walk, int64_t samples);

nf_status cpu_tile_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
nf_status cpu_tile_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);

/* Workspace one thread needs. */
size_t cpu_forward_bytes(const cpu_tile_plan *plan);
size_t cpu_backward_bytes(const cpu_tile_plan *plan);
/* Of a box of queries that backward's walk by key keeps. */
size_t cpu_backward_box_bytes(const cpu_tile_plan *plan);

extern const nf_algorithm cpu_algorithm_tile;

#endif
