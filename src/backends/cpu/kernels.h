/* The kernel table of the cpu backend: everything that is compiled once per instruction set and element type. The driver
 * (forward.c, backward.c) knows shapes and masks, kernels know registers.
 *
 * "real" is the type a table computes in: float for f32, bf16 and f16 problems, double for f64. Matrices:
 *   rows     row-major, a row's length padded to the driver's stride
 *   packed   depth x columns in panels of `panel` columns: panel p starts at p * panel * depth and holds depth rows of
 *            its width, the last width being columns - p * panel rounded up to lanes. Padding is zero. A table may pack
 *            its elements otherwise as long as no more room is taken: only its own products read them.
 *   mask     per row, `mask_words` words of bits: bit c % 32 of word c / 32 is set iff the row sees column c. */
#ifndef NF_CPU_KERNELS_H
#define NF_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "nearfield.h"

enum {
    CPU_MAX_COLUMNS = 256,
    CPU_MASK_WORDS = CPU_MAX_COLUMNS / 32,
    CPU_BLOCK_ROWS = 6, /* rows of a tile that share every column they load */
    CPU_STENCIL_ROWS = 4, /* rows of a stencil block: they share every column they load */
    CPU_FETCH_LINES = 4,  /* values of a stencil fetch ahead so seldom: a call costs more than what it fetches */
    CPU_MAX_LANES = 16
};

/* One vector of rows of a stencil, side by side on the last axis. Lane i sees the columns begin[i] .. begin[i] + size[i] - 1
 * of every line; slot j of lane i is column begin[i] + j. */
typedef struct cpu_lanes {
    int32_t count;                /* lanes in use; the others repeat the last */
    int32_t slots;                /* largest size */
    bool near;                    /* begin is not begin[0] + i: lanes must be permuted */
    bool partial;                 /* some lane is not in use or has fewer slots */
    int32_t begin[CPU_MAX_LANES]; /* begin[i] - begin[0] < 2 lanes */
    int32_t size[CPU_MAX_LANES];
    uint32_t *bits;               /* per slot, if partial: lanes that have it */
} cpu_lanes;

/* All columns of a hull at one place of the other axes, and which rows of a block see them: first .. end - 1. */
typedef struct cpu_line {
    const void *transposed[2]; /* [dim][column]: what scores are made of: k (and v) */
    const void *straight;      /* [column][dim]: what scores are applied to */
    void *sums[2];             /* [column][dim]: of dk and dv; NULL: not wanted */
    int32_t first, end;
    bool mates; /* the next line is its mate: seen by the other rows of a block, and only by them */
} cpu_line;

/* Where the values of a block go: row r of lane l starts at rows[r] + lane[l] bytes. */
typedef struct cpu_targets {
    char *rows[CPU_STENCIL_ROWS];
    int64_t lane[CPU_MAX_LANES];
    bool stream; /* past the caches: all rows are whole, aligned vectors */
} cpu_targets;

/* Memory that will be wanted soon: rows of `bytes` bytes, step apart. Kernels fetch `rate` cache lines of it at a time while
 * they compute, so that packing finds it near. */
typedef struct cpu_ahead_run {
    const char *base;
    int64_t step, rows, bytes;
} cpu_ahead_run;

typedef struct cpu_ahead {
    const cpu_ahead_run *run;
    int64_t runs, rate; /* runs left, the present one included */
    int64_t row, offset; /* reached in the present one */
} cpu_ahead;

/* Cache lines of all runs. */
static inline int64_t cpu_ahead_lines(const cpu_ahead *ahead)
{
    int64_t lines = 0;
    for (int64_t i = 0; i < ahead->runs; i++)
        lines += ahead->run[i].rows * ((ahead->run[i].bytes + 63) / 64);
    return lines;
}

static inline void cpu_fetch_ahead(cpu_ahead *ahead)
{
    int64_t left = ahead->rate;
    while (left > 0 && ahead->runs > 0) {
        const cpu_ahead_run *run = ahead->run;
        const char *row = run->base + ahead->row * run->step;
        int64_t offset = ahead->offset;
        for (; left > 0 && offset < run->bytes; left--, offset += 64)
            __builtin_prefetch(row + offset, 0, 2);
        ahead->offset = offset;
        if (offset < run->bytes)
            return;
        ahead->offset = 0;
        if (++ahead->row < run->rows)
            continue;
        ahead->row = 0;
        ahead->run++;
        ahead->runs--;
    }
}

/* What some row of a block of CPU_BLOCK_ROWS rows sees lies in columns begin .. end - 1, and those that see anything
 * are among `rows` rows from the block's row `first` on. Nothing: begin = end, rows = 0. */
typedef struct cpu_reach {
    int32_t begin, end;
    int32_t first, rows;
} cpu_reach;

/* Rows of forward meeting a column tile. */
typedef struct cpu_meeting {
    int64_t rows, columns, head_dim, value_dim;
    const void *q, *k, *v; /* rows, packed transposed or lines, packed straight */
    void *scores;          /* room for the rows' scores and a vector more */
    void *max, *sum, *out; /* carried from tile to tile */
    int64_t q_stride, score_stride, out_stride;
    int64_t k_stride;      /* of lines; 0: packed */
    double scale;
    cpu_ahead *ahead;      /* a table may fetch from it once per block of rows and panel of k or v */
    /* If the rows see the columns in part: */
    const cpu_reach *reach; /* of each block */
    const cpu_reach *runs;  /* of row r, if all it sees is one run of columns: runs[r % mask_rows]; NULL: see mask */
    const uint32_t *mask;   /* of row r: mask + CPU_MASK_WORDS * (r % mask_rows); made only if it is needed */
    int64_t mask_rows;
    bool finite;            /* nothing in v is NaN or infinite */
} cpu_meeting;

/* Some columns and some rows of depth of a matrix: packed, depth x columns; or lines, one for each row of depth (or two, if
 * the table packs pairs), stride reals apart. */
typedef struct cpu_part {
    const void *data;
    int64_t stride;         /* 0: packed */
    int64_t depth, columns; /* of a packed matrix */
    int64_t first_column;   /* a multiple of lanes in a packed matrix */
    int64_t first_row;      /* even */
} cpu_part;

typedef struct cpu_kernels {
    const char *isa; /* "avx512", as NEARFIELD_ISA names it */
    int64_t real_size; /* bytes of a real */
    int64_t lanes;     /* reals in a vector */
    int64_t panel;     /* columns of a packed panel, a multiple of lanes */
    int64_t value_panel; /* columns of values that the stencil sums at once, at most */
    bool pairs;        /* packed elements are pairs of depth: plain rows are no lines for products */

    /* Converts rows of n elements, stride apart, to rows of reals row_stride apart, zero from n up to whole vectors. */
    void (*load_rows)(void *rows, int64_t row_stride, const void *const *sources, nf_dtype dtype, int64_t stride,
                      int64_t count, int64_t n);
    /* Converts rows of n reals, each times its factor, to rows of elements stride apart. */
    void (*store_rows)(void *const *targets, nf_dtype dtype, int64_t stride, int64_t count, int64_t n, const void *rows,
                       int64_t row_stride, const double *factors);
    /* Adds rows of n reals times factor to rows of reals, stride apart. */
    void (*add_rows)(void *const *targets, int64_t stride, int64_t count, int64_t n, const void *rows, int64_t row_stride,
                     double factor);
    /* True iff no element of any row is NaN or infinite. */
    bool (*all_finite)(const void *const *rows, int64_t count, int64_t n);

    /* Packs with the rows as columns (depth = n), or with the rows as depth (columns = n). */
    void (*pack_transposed)(void *packed, const void *const *rows, int64_t count, int64_t n);
    void (*pack_straight)(void *packed, const void *const *rows, int64_t count, int64_t n);
    /* Packs lines with the rows as columns: room for count rounded up to lanes in each. */
    void (*pack_lines)(void *lines, int64_t stride, const void *const *rows, int64_t count, int64_t n);

    /* The same from dense rows of elements of the problem's type; NULL where a table packs reals only. */
    void (*pack_transposed_elements)(void *packed, const void *const *rows, int64_t count, int64_t n);
    void (*pack_straight_elements)(void *packed, const void *const *rows, int64_t count, int64_t n);

    /* c = a b, or c += a b: a is m x depth rows, b packed depth x n, c m rows with room for n rounded up to lanes. */
    void (*product)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m, int64_t n,
                    int64_t depth, bool accumulate);
    /* c = a b for a part of b; of lines a vector more than the part may be read. */
    void (*product_part)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const cpu_part *b, int64_t m, int64_t n,
                         int64_t depth);
    /* As product with a stored depth x m, a row of depth a_stride apart: c (+)= transpose(a) b. */
    void (*product_transposed)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                               int64_t n, int64_t depth, bool accumulate);
    /* The same with b as plain rows, b_stride apart; NULL where a table packs pairs. */
    void (*product_transposed_rows)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b,
                                    int64_t b_stride, int64_t m, int64_t n, int64_t depth, bool accumulate);
    /* c += a b over the (row, depth) pairs whose mask bit is set only, so that what a row must not see cannot reach it
     * even if it is NaN. Mask of row r: mask + CPU_MASK_WORDS * (r % mask_rows). */
    void (*product_masked)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                           int64_t n, int64_t depth, const uint32_t *mask, int64_t mask_rows);

    void (*product_transposed_masked)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                                      int64_t n, int64_t depth, const uint32_t *mask, int64_t mask_rows);

    /* c = a b within the reach of each block of c's rows; what lies beside it in their columns may be overwritten. */
    void (*product_to_reach)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                             int64_t n, int64_t depth, const cpu_reach *reach);
    /* c += a b, of each block's depth only what it reaches: a is not read beside it, but for zeros to a whole vector. */
    void (*product_from_reach)(void *c, int64_t c_stride, const void *a, int64_t a_stride, const void *b, int64_t m,
                               int64_t n, int64_t depth, const cpu_reach *reach);

    /* One step of softmax over a tile: s = m x n scores before scale. Leaves exp(scale s - max) in s, zero where masked,
     * updates the running max and sum, and scales the running out rows (out_n long) by the change of max. mask NULL:
     * everything is visible. */
    void (*softmax)(void *s, int64_t s_stride, int64_t m, int64_t n, double scale, const uint32_t *mask,
                    int64_t mask_rows, void *max, void *sum, void *out, int64_t out_stride, int64_t out_n);

    /* s = q k^T, softmax of s, out += s v: all rows see all columns, or some see some. */
    void (*attend)(const cpu_meeting *meeting);
    void (*attend_part)(const cpu_meeting *meeting);

    /* p = exp(scale s - lse), ds = p (dp - delta), zero where masked. s becomes p, dp becomes ds. lse and delta belong to
     * rows, or to columns (then with room for whole vectors). */
    void (*gradient)(void *s, void *dp, int64_t stride, int64_t m, int64_t n, double scale, const uint32_t *mask,
                     int64_t mask_rows, const void *lse, const void *delta, bool by_column);

    /* [dim][column] with rows of `stride` columns: room for count rounded up to lanes. */
    void (*pack_line)(void *line, int64_t stride, const void *const *rows, int64_t count, int64_t n);
    /* The same, and the rows as they are, `width` apart with zeros up to whole vectors. */
    void (*copy_line)(void *line, int64_t stride, void *straight, int64_t width, const void *const *rows, int64_t count,
                      int64_t n);

    /* The stencil. A block is `rows` <= CPU_STENCIL_ROWS rows of lanes; scores lie [row][line][slot][lane], row states
     * [row][lane], rows of values [row][lane][dim] with dim a multiple of lanes.
     * s = a . transposed[which] for the pairs that exist; a lies [row][depth][lane], line_stride apart on a dim. */
    void (*stencil_scores)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int which, int64_t line_stride,
                           const void *a, int64_t depth, void *s);
    /* delta = dout . out of count <= lanes rows of dim, whole vectors; zero beyond them. */
    void (*stencil_delta)(void *delta, const void *dout, const void *const *out, int64_t count, int64_t dim);
    /* As gradient above; lse and delta belong to rows. */
    void (*stencil_gradient)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, double scale,
                             void *s, void *ds, const void *lse, const void *delta);
    /* The values of a block: out = s . straight if fresh, else added; if there are targets, written there, times the
     * row's factor, instead of to out. Fetches ahead per lane, value_panel and CPU_FETCH_LINES lines. */
    void (*stencil_values)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, const void *s,
                           bool fresh, void *out, int64_t dim, const cpu_targets *targets, const void *factors,
                           cpu_ahead *ahead);
    /* sums[which] += transpose(s) . a in columns first .. end - 1; a lies [row][lane][dim]. */
    void (*stencil_scatter)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, int which,
                            const void *s, const void *a, int64_t dim, int32_t first, int32_t end);
    /* Rows of dim times factor to rows step bytes apart, maybe past the caches; what was there is zero then. */
    void (*stencil_move)(char *to, int64_t step, bool stream, void *rows, int64_t count, int64_t dim, double factor);

    /* The stencil's forward, one call after the other for lines that are met at once; fresh: the first ones, which find
     * nothing in max, sum and out. Scores lie [row][place][lane], place counting the slots of the lines that the row sees,
     * weights as the table likes; both have room for count * slots places a row, rounded up to lanes, and `lanes` more. */
    void (*stencil_row_scores)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t line_stride,
                               const void *a, int64_t depth, void *s);
    /* Of one line, for `rows` lane blocks in a row, each like lanes: none partial, near, or with fewer slots than lanes; the
     * next begins where one ends. a and s: as above, a block for each row. */
    void (*stencil_run_scores)(const cpu_lanes *lanes, int64_t rows, const cpu_line *line, int64_t line_stride,
                               const void *a, int64_t depth, void *s);
    /* Weights 2^(s - max), s in units of log 2, in p or in place of s: returns which. Updates the running max and sum, and
     * out rows by the change of max. */
    const void *(*stencil_softmax)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, double scale,
                                   bool fresh, void *s, void *p, void *max, void *sum, void *out, int64_t dim);
    /* lse = max + log sum, then sum becomes 1 / sum; -inf and 0 where nothing was seen. */
    void (*stencil_close)(int64_t rows, const void *max, void *sum, void *lse);
    /* As stencil_values. */
    void (*stencil_row_values)(const cpu_lanes *lanes, const cpu_line *lines, int64_t count, int64_t rows, const void *p,
                               bool fresh, void *out, int64_t dim, const cpu_targets *targets, const void *factors,
                               cpu_ahead *ahead);

    /* Sum of a[i] b[i]. */
    double (*dot)(const void *a, const void *b, int64_t n);
} cpu_kernels;

/* Defined if this build has the instruction set. _bf16 computes bf16 problems with bf16 products and float sums. */
extern const cpu_kernels cpu_kernels_baseline_f32, cpu_kernels_baseline_f64;
extern const cpu_kernels cpu_kernels_avx2_f32, cpu_kernels_avx2_f64;
extern const cpu_kernels cpu_kernels_avx512_f32, cpu_kernels_avx512_f64;
extern const cpu_kernels cpu_kernels_avx512bf16_f32, cpu_kernels_avx512bf16_f64, cpu_kernels_avx512bf16_bf16;

#endif
