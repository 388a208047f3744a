/* Softmax over a tile of scores, and its gradient. Included by kernel_body.h. */

/* Raises a row's running max to the largest of its new scores, shrinks its sum and out to match, and gives the base of its
 * exponentials. */
SIMD_INLINE REAL NAME(raise_max)(REAL largest, REAL *max, REAL *sum, REAL *out, int64_t out_n)
{
    const REAL old = *max, new = largest > old ? largest : old;
    /* A row that has seen nothing, or only NaN, has no max: any finite base serves, and NaN must get through. */
    const REAL base = new == (REAL)-INFINITY ? 0 : new;
    if (new != old) {
        const VEC shrink = OP(exp2)(OP(set1)((old - base) * (REAL)SIMD_LOG2_E));
        *max = new;
        *sum *= shrink[0];
        for (int64_t c = 0; c < out_n; c += NAME(LANES))
            OP(store)(out + c, OP(load)(out + c) * shrink);
    }
    return base;
}

/* One row of softmax, columns first .. end - 1; first is a multiple of LANES. */
SIMD_INLINE void NAME(softmax_row)(REAL *row, int64_t first, int64_t end, double scale, const uint32_t *seen, REAL *max,
                                   REAL *sum, REAL *out, int64_t out_n)
{
    const VEC minus_infinity = OP(set1)((REAL)-INFINITY), zero = {0};
    const REAL factor = (REAL)scale, factor2 = (REAL)(scale * SIMD_LOG2_E);
    VEC top = minus_infinity, total = zero;
    for (int64_t c = first; c < end; c += NAME(LANES)) {
        const VEC x = OP(load)(row + c) * factor;
        top = OP(max)(OP(select)(NAME(lane_bits)(seen, c, end), x, minus_infinity), top);
    }
    const REAL base = NAME(raise_max)(OP(largest)(top), max, sum, out, out_n) * (REAL)SIMD_LOG2_E;
    for (int64_t c = first; c < end; c += NAME(LANES)) {
        const VEC p = OP(exp2)(OP(load)(row + c) * factor2 - base);
        const VEC visible = OP(select)(NAME(lane_bits)(seen, c, end), p, zero);
        OP(store)(row + c, visible);
        total += visible;
    }
    *sum += OP(sum)(total);
}

/* Rows of whole vectors without a mask, scale not negative: the exponentials of a row are taken alongside the search for the
 * largest score of the next, so that neither waits for the other's chain of operations. */
static void NAME(softmax_plain)(REAL *s, int64_t s_stride, int64_t m, int64_t n, double scale, REAL *max, REAL *sum,
                                REAL *out, int64_t out_stride, int64_t out_n)
{
    const REAL factor = (REAL)scale, factor2 = (REAL)(scale * SIMD_LOG2_E);
    const VEC minus_infinity = OP(set1)((REAL)-INFINITY);
    VEC top = minus_infinity;
    for (int64_t c = 0; c < n; c += NAME(LANES))
        top = OP(max)(OP(load)(s + c), top);
    for (int64_t r = 0; r < m; r++) {
        REAL *row = s + r * s_stride;
        const REAL *next = r + 1 < m ? row + s_stride : row;
        const REAL largest = OP(largest)(top) * factor;
        const REAL base = NAME(raise_max)(largest, max + r, sum + r, out + r * out_stride, out_n) * (REAL)SIMD_LOG2_E;
        VEC total = {0};
        top = minus_infinity;
        for (int64_t c = 0; c < n; c += NAME(LANES)) {
            const VEC p = OP(exp2)(OP(load)(row + c) * factor2 - base);
            top = OP(max)(OP(load)(next + c), top);
            OP(store)(row + c, p);
            total += p;
        }
        sum[r] += OP(sum)(total);
    }
}

static void NAME(softmax)(void *s, int64_t s_stride, int64_t m, int64_t n, double scale, const uint32_t *mask,
                          int64_t mask_rows, void *max, void *sum, void *out, int64_t out_stride, int64_t out_n)
{
    if (!mask && n % NAME(LANES) == 0 && scale >= 0) {
        NAME(softmax_plain)(s, s_stride, m, n, scale, max, sum, out, out_stride, out_n);
        return;
    }
    for (int64_t r = 0; r < m; r++)
        NAME(softmax_row)((REAL *)s + r * s_stride, 0, n, scale, mask ? mask + CPU_MASK_WORDS * (r % mask_rows) : NULL,
                          (REAL *)max + r, (REAL *)sum + r, (REAL *)out + r * out_stride, out_n);
}

/* One vector of gradient; scale and lse in base 2. Bits NULL: all lanes are visible. */
SIMD_INLINE void NAME(gradient_step)(REAL *s, REAL *dp, VEC scale, VEC lse, VEC delta, const uint32_t *bits)
{
    const VEC zero = {0};
    VEC p = OP(exp2)(OP(load)(s) * scale - lse), ds = p * (OP(load)(dp) - delta);
    if (bits) {
        p = OP(select)(*bits, p, zero);
        ds = OP(select)(*bits, ds, zero);
    }
    OP(store)(s, p);
    OP(store)(dp, ds);
}

static void NAME(gradient)(void *s, void *dp, int64_t stride, int64_t m, int64_t n, double scale, const uint32_t *mask,
                           int64_t mask_rows, const void *lse, const void *delta, bool by_column)
{
    const VEC scale2 = OP(set1)((REAL)(scale * SIMD_LOG2_E));
    const REAL log2_e = (REAL)SIMD_LOG2_E;
    const int64_t open = mask ? 0 : n / NAME(LANES) * NAME(LANES); /* columns that need no bits */
    for (int64_t r = 0; r < m; r++) {
        REAL *row = (REAL *)s + r * stride, *drow = (REAL *)dp + r * stride;
        const uint32_t *seen = mask ? mask + CPU_MASK_WORDS * (r % mask_rows) : NULL;
        const REAL *l = (const REAL *)lse + (by_column ? 0 : r), *d = (const REAL *)delta + (by_column ? 0 : r);
        const VEC row_lse = OP(set1)(*l * log2_e), row_delta = OP(set1)(*d);
        if (!by_column) {
            for (int64_t c = 0; c < open; c += NAME(LANES))
                NAME(gradient_step)(row + c, drow + c, scale2, row_lse, row_delta, NULL);
        } else {
            for (int64_t c = 0; c < open; c += NAME(LANES))
                NAME(gradient_step)(row + c, drow + c, scale2, OP(load)(l + c) * log2_e, OP(load)(d + c), NULL);
        }
        for (int64_t c = open; c < n; c += NAME(LANES)) {
            const uint32_t bits = NAME(lane_bits)(seen, c, n);
            NAME(gradient_step)(row + c, drow + c, scale2, by_column ? OP(load)(l + c) * log2_e : row_lse,
                                by_column ? OP(load)(d + c) : row_delta, &bits);
        }
    }
}
