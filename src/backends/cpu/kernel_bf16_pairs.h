/* Pairs of bf16, included by kernel_bf16.h: rounding rows of floats to them, and packing rows of floats or of elements. */

SIMD_INLINE v32 pair_load(const uint32_t *p)
{
    v32 x;
    memcpy(&x, p, sizeof x);
    return x;
}

SIMD_INLINE void pair_store(uint32_t *p, v32 x)
{
    memcpy(p, &x, sizeof x);
}

/* 32 floats as 16 pairs; lanes from n on are zero. */
SIMD_INLINE v32 pair_round(const float *row, int64_t n)
{
    const __mmask16 low = (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
    const __mmask16 high = (__mmask16)(n >= 32 ? 0xffff : n > 16 ? (1u << (n - 16)) - 1 : 0);
    const __m512 a = _mm512_maskz_loadu_ps(low, row), b = high ? _mm512_maskz_loadu_ps(high, row + 16) : _mm512_setzero_ps();
    return (v32)(__m512i)_mm512_cvtne2ps_pbh(b, a);
}

/* The same from 32 elements. */
SIMD_INLINE v32 pair_take(const uint16_t *row, int64_t n)
{
    return (v32)_mm512_maskz_loadu_epi16(n >= 32 ? UINT32_MAX : (1u << n) - 1, row);
}

enum { PACK_AHEAD = 16 }; /* rows of elements lie too far apart for the hardware to foresee */

SIMD_INLINE void fetch_row(const void *row, int64_t n)
{
    for (int64_t i = 0; i < n; i += 2 * LANES_f32)
        __builtin_prefetch((const uint16_t *)row + i);
}

/* LANES columns of pairs from as many rows of n; columns from `left` on are zero. */
SIMD_INLINE void transpose_columns(uint32_t *to, int64_t stride, const void *const *rows, int64_t left, int64_t n,
                                   bool elements)
{
    const int64_t pairs = (n + 1) / 2;
    for (int64_t i = PACK_AHEAD; elements && i < PACK_AHEAD + LANES_f32 && i < left; i++)
        fetch_row(rows[i], n);
    for (int64_t k = 0; k < n; k += 2 * LANES_f32) {
        v32 square[LANES_f32];
        for (int64_t i = 0; i < LANES_f32; i++) {
            const void *row = i < left ? rows[i] : NULL;
            square[i] = !row       ? (v32){0}
                        : elements ? pair_take((const uint16_t *)row + k, n - k)
                                   : pair_round((const float *)row + k, n - k);
        }
        v32_transpose(square);
        const int64_t some = pairs - k / 2 < LANES_f32 ? pairs - k / 2 : LANES_f32;
        for (int64_t i = 0; i < some; i++)
            pair_store(to + (k / 2 + i) * stride, square[i]);
    }
}

SIMD_INLINE void transpose_pairs(void *packed, const void *const *rows, int64_t count, int64_t n, bool elements)
{
    uint32_t *to = packed;
    for (int64_t first = 0; first < count; first += PANEL_f32) {
        const int64_t left = count - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        for (int64_t j = 0; j < width; j += LANES_f32)
            transpose_columns(to + j, width, rows + first + j, left - j, n, elements);
        to += width * ((n + 1) / 2);
    }
}

static void pack_lines_bf16(void *lines, int64_t stride, const void *const *rows, int64_t count, int64_t n)
{
    for (int64_t j = 0; j < count; j += LANES_f32)
        transpose_columns((uint32_t *)lines + j, stride, rows + j, count - j, n, false);
}

static void pack_transposed_bf16(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    transpose_pairs(packed, rows, count, n, false);
}

static void pack_transposed_elements_bf16(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    transpose_pairs(packed, rows, count, n, true);
}

/* Two rows of at most 16 floats, an element of each in a pair; odd NULL is a row of zeros. */
SIMD_INLINE v32 pair_zip(const float *even, const float *odd, int64_t n)
{
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                         20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __mmask16 some = (__mmask16)(n >= LANES_f32 ? 0xffff : (1u << n) - 1);
    const __m512 high = odd ? _mm512_maskz_loadu_ps(some, odd) : _mm512_setzero_ps();
    const __m512bh both = _mm512_cvtne2ps_pbh(high, _mm512_maskz_loadu_ps(some, even));
    return (v32)_mm512_permutexvar_epi16(zip, (__m512i)both);
}

/* Two rows of at most 16 elements likewise. */
SIMD_INLINE v32 pair_zip_elements(const uint16_t *even, const uint16_t *odd, int64_t n)
{
    const __mmask16 some = (__mmask16)(n >= LANES_f32 ? 0xffff : (1u << n) - 1);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, even));
    const __m512i high = odd ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, odd)) : _mm512_setzero_si512();
    return (v32)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

static void pack_straight_elements_bf16(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    uint32_t *to = packed;
    for (int64_t first = 0; first < n; first += PANEL_f32) {
        const int64_t left = n - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        for (int64_t k = 0; k < count; k += 2, to += width) {
            for (int64_t i = k + PACK_AHEAD; first == 0 && i < k + PACK_AHEAD + 2 && i < count; i++)
                fetch_row(rows[i], n);
            for (int64_t j = 0; j < width; j += LANES_f32) {
                const uint16_t *even = (const uint16_t *)rows[k] + first + j;
                const uint16_t *odd = k + 1 < count ? (const uint16_t *)rows[k + 1] + first + j : NULL;
                pair_store(to + j, pair_zip_elements(even, odd, left - j));
            }
        }
    }
}

static void pack_straight_bf16(void *packed, const void *const *rows, int64_t count, int64_t n)
{
    uint32_t *to = packed;
    for (int64_t first = 0; first < n; first += PANEL_f32) {
        const int64_t left = n - first, width = left < PANEL_f32 ? round_up_f32(left) : PANEL_f32;
        for (int64_t k = 0; k < count; k += 2, to += width)
            for (int64_t j = 0; j < width; j += LANES_f32) {
                const float *even = (const float *)rows[k] + first + j;
                const float *odd = k + 1 < count ? (const float *)rows[k + 1] + first + j : NULL;
                pair_store(to + j, pair_zip(even, odd, left - j));
            }
    }
}
