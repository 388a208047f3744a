/* Patches and their lowest frequencies, one row of pixels at a time. */
#include "nlm_patch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static int64_t all_values(const nf_patches *p)
{
    return p->patch[0] * p->patch[1] * p->patch[2] * p->channels;
}

/* ---- Preparation ------------------------------------------------------------------------------------------------- */

static int64_t reflect(int64_t i, int64_t extent)
{
    if (extent == 1)
        return 0;
    const int64_t period = 2 * (extent - 1), within = ((i % period) + period) % period;
    return within < period - within ? within : period - within;
}

static bool make_mirrors(nf_patches *p)
{
    for (int a = 0; a < NF_NLM_MAX_RANK; a++) {
        const int64_t radius = p->patch[a] / 2, extent = p->extents[a];
        p->mirror[a] = malloc((size_t)(extent + 2 * radius) * sizeof *p->mirror[a]);
        if (!p->mirror[a])
            return false;
        for (int64_t i = 0; i < extent + 2 * radius; i++)
            p->mirror[a][i] = reflect(i - radius, extent);
    }
    return true;
}

/* The orthonormal cosine transform of n values. */
static float *make_basis(int64_t n)
{
    float *const basis = malloc((size_t)(n * n) * sizeof *basis);
    for (int64_t u = 0; basis && u < n; u++)
        for (int64_t i = 0; i < n; i++)
            basis[u * n + i] = (float)(sqrt((u ? 2.0 : 1.0) / (double)n) *
                                       cos(acos(-1.0) * (double)u * ((double)i + 0.5) / (double)n));
    return basis;
}

static int by_rank(const void *a, const void *b)
{
    const nf_patch_feature *const x = a, *const y = b;
    return x->rank != y->rank ? (x->rank > y->rank) - (x->rank < y->rank)
                              : (x->index > y->index) - (x->index < y->index);
}

static int by_index(const void *a, const void *b)
{
    const nf_patch_feature *const x = a, *const y = b;
    return (x->index > y->index) - (x->index < y->index);
}

/* Where a feature lies in the transform. */
typedef struct frequency {
    int64_t axis[NF_NLM_MAX_RANK], channel;
} frequency;

static frequency frequency_of(const nf_patches *p, int64_t index)
{
    frequency f;
    f.axis[2] = index % p->patch[2];
    f.channel = index / p->patch[2] % p->channels;
    f.axis[1] = index / (p->patch[2] * p->channels) % p->patch[1];
    f.axis[0] = index / (p->patch[2] * p->channels * p->patch[1]);
    return f;
}

static bool choose_features(nf_patches *p)
{
    const int64_t all = all_values(p);
    p->features = malloc((size_t)all * sizeof *p->features);
    if (!p->features)
        return false;
    for (int64_t i = 0; i < all; i++) {
        const frequency f = frequency_of(p, i);
        p->features[i].index = i;
        p->features[i].rank = f.channel ? NF_PATCH_COLOUR_RANK : 0;
        for (int a = 0; a < NF_NLM_MAX_RANK; a++)
            p->features[i].rank += f.axis[a] * f.axis[a];
    }
    qsort(p->features, (size_t)all, sizeof *p->features, by_rank);
    qsort(p->features, (size_t)p->values, sizeof *p->features, by_index); /* those that share a line are neighbours */
    return true;
}

static int64_t longest_line(const nf_patches *p)
{
    return p->extents[2] * p->step + p->extents[2] + p->patch[2];
}

int64_t nf_patches_choose(nf_patches *p, int64_t features)
{
    const int64_t all = all_values(p);
    p->values = features == 0 || features > all ? all : features;
    return p->values;
}

bool nf_patches_prepare(nf_patches *p)
{
    int threads = 1;
#ifdef _OPENMP
    threads = omp_get_max_threads();
#endif
    if (!make_mirrors(p))
        return false;
    if (p->values == all_values(p))
        return true;
    for (int a = 0; a < NF_NLM_MAX_RANK; a++)
        if (!(p->basis[a] = make_basis(p->patch[a])))
            return false;
    p->colour = make_basis(p->channels);
    p->lines = malloc((size_t)(longest_line(p) * threads) * sizeof *p->lines);
    return p->colour && p->lines && choose_features(p);
}

void nf_patches_release(nf_patches *p)
{
    for (int a = 0; a < NF_NLM_MAX_RANK; a++) {
        free(p->mirror[a]);
        free(p->basis[a]);
    }
    free(p->features);
    free(p->colour);
    free(p->lines);
}

/* ---- Whole patches ----------------------------------------------------------------------------------------------- */

static const float *row_at(const nf_patches *p, int64_t z, int64_t y)
{
    return p->in + (z * p->extents[1] + y) * p->extents[2] * p->step;
}

/* The patch of the pixel at z, y, x. */
static void fill_whole(const nf_patches *p, int64_t z, int64_t y, int64_t x, const float *mean, float *to)
{
    for (int64_t i = 0; i < p->patch[0]; i++)
        for (int64_t j = 0; j < p->patch[1]; j++) {
            const float *const row = row_at(p, p->mirror[0][z + i], p->mirror[1][y + j]);
            for (int64_t k = 0; k < p->patch[2]; k++) {
                const float *const from = row + p->mirror[2][x + k] * p->step;
                for (int64_t c = 0; c < p->channels; c++)
                    *to++ = from[c] - mean[c];
            }
        }
}

static void fill_whole_row(const nf_patches *p, int64_t z, int64_t y, nf_range columns, const float *mean, float *keys)
{
    for (int64_t x = 0; x < columns.count; x++)
        fill_whole(p, z, y, columns.first + x, mean, keys + x * (p->values + 1));
}

/* ---- Lowest frequencies ------------------------------------------------------------------------------------------ */

/* The pixels of a row as the frequencies of axes 0 and 1 see them: sums over the rows of its patches. */
static void sum_rows(const nf_patches *p, const frequency *f, int64_t z, int64_t y, int64_t first, int64_t end,
                     float *restrict sums)
{
    memset(sums + first, 0, (size_t)(end - first) * sizeof *sums);
    for (int64_t i = 0; i < p->patch[0]; i++)
        for (int64_t j = 0; j < p->patch[1]; j++) {
            const float *const row = row_at(p, p->mirror[0][z + i], p->mirror[1][y + j]);
            const float weight = p->basis[0][f->axis[0] * p->patch[0] + i] * p->basis[1][f->axis[1] * p->patch[1] + j];
            for (int64_t x = first; x < end; x++)
                sums[x] += weight * row[x];
        }
}

/* One channel of the transform of sums, for the columns and what their patches reach. */
static void mix_channels(const nf_patches *p, const frequency *f, nf_range columns, const float *sums,
                         float *restrict line)
{
    const float *const weights = p->colour + f->channel * p->channels;
    for (int64_t x = 0; x < columns.count + p->patch[2] - 1; x++) {
        const float *const from = sums + p->mirror[2][columns.first + x] * p->step;
        float sum = 0;
        for (int64_t c = 0; c < p->channels; c++)
            sum += weights[c] * from[c];
        line[x] = sum;
    }
}

/* What a constant picture of this colour adds to a feature. */
static float constant_part(const nf_patches *p, const frequency *f, const float *mean)
{
    if (f->axis[0] || f->axis[1] || f->axis[2])
        return 0;
    double sum = 0;
    for (int64_t c = 0; c < p->channels; c++)
        sum += (double)p->colour[f->channel * p->channels + c] * (double)mean[c];
    return (float)(sum * sqrt((double)(p->patch[0] * p->patch[1] * p->patch[2])));
}

static void fill_feature(const nf_patches *p, const frequency *f, nf_range columns, const float *line, float constant,
                         float *to)
{
    const float *const wave = p->basis[2] + f->axis[2] * p->patch[2];
    for (int64_t x = 0; x < columns.count; x++) {
        float sum = -constant;
        for (int64_t k = 0; k < p->patch[2]; k++)
            sum += wave[k] * line[x + k];
        to[x * (p->values + 1)] = sum;
    }
}

static void fill_feature_row(const nf_patches *p, int64_t z, int64_t y, nf_range columns, const float *mean,
                             float *keys)
{
    int thread = 0;
#ifdef _OPENMP
    thread = omp_get_thread_num();
#endif
    float *const sums = p->lines + thread * longest_line(p), *const line = sums + p->extents[2] * p->step;
    const int64_t radius = p->patch[2] / 2, last = columns.first + columns.count - 1 + radius;
    const bool reflected = columns.first < radius || last >= p->extents[2];
    const int64_t begin = reflected ? 0 : columns.first - radius, end = reflected ? p->extents[2] : last + 1;
    int64_t rows_done = -1, line_done = -1;
    for (int64_t i = 0; i < p->values; i++) {
        const frequency f = frequency_of(p, p->features[i].index);
        const int64_t line_index = p->features[i].index / p->patch[2], rows_index = line_index / p->channels;
        if (rows_index != rows_done)
            sum_rows(p, &f, z, y, begin * p->step, end * p->step, sums);
        if (line_index != line_done)
            mix_channels(p, &f, columns, sums, line);
        rows_done = rows_index;
        line_done = line_index;
        fill_feature(p, &f, columns, line, constant_part(p, &f, mean), keys + i);
    }
}

/* ---- Both -------------------------------------------------------------------------------------------------------- */

static void fill_norm(const nf_patches *p, float *key)
{
    double norm = 0;
    for (int64_t i = 0; i < p->values; i++)
        norm += (double)key[i] * (double)key[i];
    key[p->values] = (float)(-norm / 2);
}

void nf_patches_fill(const nf_patches *p, const nf_range box[NF_NLM_MAX_RANK], const float *mean, float *keys)
{
    const int64_t rows = box[0].count * box[1].count, dim = p->values + 1;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t z = box[0].first + row / box[1].count, y = box[1].first + row % box[1].count;
        float *const to = keys + row * box[2].count * dim;
        (p->features ? fill_feature_row : fill_whole_row)(p, z, y, box[2], mean, to);
        for (int64_t x = 0; x < box[2].count; x++)
            fill_norm(p, to + x * dim);
    }
}
