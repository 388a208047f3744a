/* The unfused algorithm: the scores of all pairs lie in memory, [batch, heads, queries, slots], and every step is a
 * pass over them. Three passes are tiled products, on the walks, panels and kernels of the tile algorithm:
 *
 *   pair       w[query][slot] = factor a[query] . b[key]         q k^T, and dout v^T
 *   apply      y[query] = factor sum over slots of w b[key]      scores v, and dscores k
 *   transpose  y[key] = factor sum over queries of w a[query]    scores^T dout, and dscores^T q
 *
 * Between them, two passes over rows: softmax and its gradient. */
#ifndef NF_CPU_UNFUSED_H
#define NF_CPU_UNFUSED_H

#include "backends/cpu/tile.h"

typedef struct cpu_unfused_plan {
    const nf_request *request;
    const cpu_kernels *kernels;
    cpu_walk by_query, by_key;         /* by_key only if the problem names backward */
    int64_t queries;                   /* of a head */
    int64_t window, slots, row;        /* slots of the grid, with extra tokens, and rounded up to lanes */
    int64_t slot_step[NF_MAX_RANK];    /* from one key of an axis to the next, in slots */
    int64_t wide;                      /* the longer of head_dim and value_dim, rounded up to lanes */
    int64_t extra_tiles, extra_splits; /* of extra tokens as rows, and parts that queries are cut into for them */
    double scale;
    int64_t threads;
    size_t thread_bytes, extra_bytes; /* workspace of one thread; partial sums of extra tokens' gradients */
    size_t score_bytes;               /* of all scores; backward keeps them twice */
} cpu_unfused_plan;

/* Workspace of one thread in any pass. */
typedef struct cpu_unfused_scratch {
    cpu_row_tile *tiles;
    void *rows;                /* of an item: what is loaded, or summed */
    void *packed, *converted;  /* a column tile */
    void *scores, *transposed; /* one tile against another */
    void *max, *sum;           /* of a block of rows */
    uint32_t *mask;
    const void **columns, **more; /* rows of a column tile, or of a block of rows */
} cpu_unfused_scratch;

/* Scores in memory, and one of the three products. Views of extra tokens and of absent results have data NULL. */
typedef struct cpu_unfused_pass {
    const cpu_unfused_plan *plan;
    cpu_view w;          /* dim: from slot to slot */
    cpu_view a;          /* rows of queries: pair, transpose */
    cpu_view b, extra_b; /* rows of keys: pair, apply */
    cpu_view y, extra_y; /* results: of queries for apply, of keys for transpose */
    int64_t dim;
    double factor;
    double absent; /* pair: what slots that do not exist hold */
    char *workspace;
} cpu_unfused_pass;

/* A tensor of scores, and the plan's own. */
cpu_view cpu_unfused_view(const nf_tensor *tensor, int32_t rank);
cpu_view cpu_unfused_own(const cpu_unfused_plan *plan, void *scores);

void cpu_unfused_carve(const cpu_unfused_plan *plan, cpu_arena *arena, cpu_unfused_scratch *scratch);

void cpu_unfused_pair(const cpu_unfused_pass *pass);
void cpu_unfused_apply(const cpu_unfused_pass *pass);
void cpu_unfused_transpose(const cpu_unfused_pass *pass);

/* The plan's own scores, times scale, become their softmax; lse (data NULL if absent) receives the logarithms of the
 * sums. */
void cpu_unfused_softmax(const cpu_unfused_plan *plan, void *scores, double scale, const cpu_view *lse,
                         char *workspace);
/* scores become probabilities by the lse of forward, dscores, which hold dout v^T, their gradient. */
void cpu_unfused_gradient(const cpu_unfused_plan *plan, void *scores, void *dscores, const cpu_views *io,
                          char *workspace);

/* What one query sees of a box of keys: `count` keys along each axis, from element `column` of a row over the box, and
 * from slot `slot`. Axes are moved to the end, unused ones have count 1. */
typedef struct cpu_slots {
    int64_t column, slot;
    int64_t count[NF_MAX_RANK], column_step[NF_MAX_RANK], slot_step[NF_MAX_RANK];
    int64_t keys; /* product of count */
} cpu_slots;

/* s is filled in place: a copy reads pairs of numbers that were just written one by one, and waits for them. */
void cpu_slots_of_box(const cpu_unfused_plan *plan, const nf_work_item *item, const int32_t *query, const nf_box *keys,
                      cpu_slots *s);
/* Extra tokens begin .. begin + count - 1. */
void cpu_slots_of_extra(const cpu_unfused_plan *plan, int64_t begin, int64_t count, cpu_slots *s);
/* How many keys of the grid a query sees. */
int64_t cpu_slots_seen(const nf_work_item *item, int32_t rank, const int32_t *query);
/* The next position of a box, row-major. */
void cpu_slots_next(const nf_box *box, int32_t rank, int32_t *position);

/* Copies the existing slots of a query, `step` elements apart, from or to a row over the box; the other n - keys
 * elements of that row become zero. */
void cpu_slots_put(const cpu_slots *s, int64_t size, const void *row, void *slots, int64_t step);
void cpu_slots_get(const cpu_slots *s, int64_t size, void *row, int64_t n, const void *slots, int64_t step);

/* Slot 0 of a query that lies at an offset. */
static inline char *cpu_unfused_row(const cpu_view *w, int64_t batch, int64_t head, int64_t offset)
{
    return w->data + (batch * w->batch + head * w->head + offset) * w->element;
}

nf_status cpu_unfused_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
nf_status cpu_unfused_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);

extern const nf_pair cpu_unfused_public;
extern const nf_algorithm cpu_algorithm_unfused;

#endif
