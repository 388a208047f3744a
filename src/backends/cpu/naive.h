/* The naive algorithm: one loop nest per row of a result, no tiles, no packing; the baseline that fused kernels are
 * measured against. It is a fair one: the loops over dims are plain C, compiled for the instruction set in use with the
 * flags of the other kernels, and the exponentials are those of the other algorithms. A C compiler may not reorder a
 * sum, so that it vectorises weights times values, but not a dot product. */
#ifndef NF_CPU_NAIVE_H
#define NF_CPU_NAIVE_H

#include "backends/cpu/tile.h"

/* The rows of a tensor that one row of a result sees: a box, its unused axes first, with count 1. */
typedef struct cpu_naive_box {
    const char *first;
    int64_t count[NF_MAX_RANK], step[NF_MAX_RANK]; /* steps in bytes */
    nf_dtype dtype;
    int64_t dim;     /* from element to element of a row */
    void *converted; /* room for one row of reals; NULL: rows are reals already */
    const cpu_kernels *kernels;
} cpu_naive_box;

/* The loop nests, per instruction set and real type. Row j is the j-th of the box, row-major. */
typedef struct cpu_naive_loops {
    void (*scores)(const cpu_naive_box *box, const void *a, int64_t n, void *s); /* s[j] = a . row j */
    void (*apply)(const cpu_naive_box *box, const void *s, int64_t n, void *y);  /* y += sum s[j] row j */
    void (*gather)(const cpu_naive_box *box, void *s);                           /* s[j] = row j, of one real */
} cpu_naive_loops;

extern const cpu_naive_loops cpu_naive_baseline_f32, cpu_naive_baseline_f64;
extern const cpu_naive_loops cpu_naive_avx2_f32, cpu_naive_avx2_f64;
extern const cpu_naive_loops cpu_naive_avx512_f32, cpu_naive_avx512_f64;

/* What one row of a result sees, on either side. */
typedef struct cpu_naive_seen {
    int64_t first[NF_MAX_RANK], count[NF_MAX_RANK], step[NF_MAX_RANK]; /* tensor indices */
    int64_t total;
} cpu_naive_seen;

typedef struct cpu_naive_plan {
    const nf_request *request;
    const cpu_kernels *kernels;
    const cpu_naive_loops *loops;
    int64_t queries, keys; /* of a head */
    int64_t longest;       /* columns that a row sees, at most, rounded up to lanes */
    int64_t wide;          /* the longer of head_dim and value_dim, rounded up to lanes */
    double scale;
    int64_t threads;
    size_t thread_bytes, term_bytes; /* workspace of one thread; of lse, and of delta, of all queries */
} cpu_naive_plan;

/* Workspace of one thread. */
typedef struct cpu_naive_scratch {
    void *a, *a2, *y, *y2, *converted; /* rows */
    void *s, *ds, *lse, *delta;        /* per column */
} cpu_naive_scratch;

void cpu_naive_carve(const cpu_naive_plan *plan, cpu_arena *arena, cpu_naive_scratch *scratch);

/* Columns that row `number`, row-major, sees. */
cpu_naive_seen cpu_naive_see(const nf_request *request, nf_side rows, int64_t number);

nf_status cpu_naive_forward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);
nf_status cpu_naive_backward(const void *prepared, const nf_tensor *const io[NF_ROLES], void *workspace);

extern const nf_algorithm cpu_algorithm_naive;

#endif
