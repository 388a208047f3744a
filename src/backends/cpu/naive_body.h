/* The naive loops, once per element type: naive_*.c include this file for float and again for double (NAIVE_DOUBLE),
 * with NAIVE_TABLE naming the result. What each does stands in naive.h. */
#if defined(NAIVE_DOUBLE)
#define NAME(x) x##_f64
#define REAL double
#else
#define NAME(x) x##_f32
#define REAL float
#endif

/* All rows of a box, in order. */
#define FOR_EACH_ROW(box, row)                                                                                         \
    for (int64_t i0 = 0; i0 < (box)->count[0]; i0++)                                                                   \
        for (int64_t i1 = 0; i1 < (box)->count[1]; i1++)                                                               \
            for (int64_t i2 = 0; i2 < (box)->count[2]; i2++)                                                           \
                for (int64_t i3 = 0; i3 < (box)->count[3]; i3++)                                                       \
                    for (const char *row = NAME(row_at)(box, i0, i1, i2, i3); row; row = NULL)

static inline const char *NAME(row_at)(const cpu_naive_box *box, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return box->first + i0 * box->step[0] + i1 * box->step[1] + i2 * box->step[2] + i3 * box->step[3];
}

static inline const REAL *NAME(reals)(const cpu_naive_box *box, const char *row, int64_t n)
{
    if (!box->converted)
        return (const void *)row;
    const void *source = row;
    box->kernels->load_rows(box->converted, n, &source, box->dtype, box->dim, 1, n);
    return box->converted;
}

static void NAME(scores)(const cpu_naive_box *box, const void *a, int64_t n, void *s)
{
    const REAL *query = a;
    REAL *restrict score = s;
    FOR_EACH_ROW(box, row) {
        const REAL *key = NAME(reals)(box, row, n);
        REAL sum = 0;
        for (int64_t d = 0; d < n; d++)
            sum += query[d] * key[d];
        *score++ = sum;
    }
}

static void NAME(apply)(const cpu_naive_box *box, const void *s, int64_t n, void *y)
{
    const REAL *weight = s;
    REAL *restrict to = y;
    FOR_EACH_ROW(box, row) {
        const REAL *value = NAME(reals)(box, row, n), w = *weight++;
        for (int64_t d = 0; d < n; d++)
            to[d] += w * value[d];
    }
}

static void NAME(gather)(const cpu_naive_box *box, void *s)
{
    REAL *to = s;
    FOR_EACH_ROW(box, row)
        *to++ = *(const REAL *)(const void *)row;
}

const cpu_naive_loops NAIVE_TABLE = {.scores = NAME(scores), .apply = NAME(apply), .gather = NAME(gather)};

#undef FOR_EACH_ROW
#undef NAME
#undef REAL
