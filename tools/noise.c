/* Noise: a generator, PSNR, and a robust estimate of sigma. */
#include "noise.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_RANK = 3 };

uint64_t nf_random_bits(nf_random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

double nf_random_uniform(nf_random *random)
{
    return ((double)(nf_random_bits(random) >> 11) + 0.5) / 9007199254740992.0; /* 2^53 */
}

void nf_random_normal(nf_random *random, double normal[2])
{
    const double two_pi = 6.283185307179586;
    const double radius = sqrt(-2 * log(nf_random_uniform(random))), angle = two_pi * nf_random_uniform(random);
    normal[0] = radius * cos(angle);
    normal[1] = radius * sin(angle);
}

void nf_noise_add(float *data, int64_t pixels, int channels, int step, double sigma, uint64_t seed)
{
    nf_random random = {seed};
    double normal[2];
    int left = 0;
    for (int64_t i = 0; i < pixels; i++)
        for (int c = 0; c < channels; c++) {
            if (left == 0) {
                nf_random_normal(&random, normal);
                left = 2;
            }
            data[i * step + c] += (float)(sigma * normal[--left]);
        }
}

double nf_noise_psnr(const float *data, const float *truth, int64_t pixels, int channels, int step, double peak)
{
    double sum = 0;
    for (int64_t i = 0; i < pixels; i++)
        for (int c = 0; c < channels; c++) {
            const double difference = (double)data[i * step + c] - (double)truth[i * step + c];
            sum += difference * difference;
        }
    return 10 * log10(peak * peak / (sum / (double)(pixels * channels)));
}

static int compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* |alternating sum| over the block of up to 2 x 2 x 2 elements at first, scaled to the noise's own deviation; negative
 * if they are all equal. */
static float haar_detail(const float *first, const int64_t offsets[8], const int signs[8], int count)
{
    double sum = 0;
    int equal = 1;
    for (int i = 0; i < count; i++) {
        sum += signs[i] * (double)first[offsets[i]];
        equal &= first[offsets[i]] == first[0];
    }
    return equal ? -1 : (float)(fabs(sum) / sqrt((double)count));
}

/* The offsets and signs of a block, from the axes that have two elements. Returns how many there are. */
static int block_corners(const int64_t extents[MAX_RANK], int step, int64_t offsets[8], int signs[8])
{
    int64_t stride = step;
    int count = 1;
    offsets[0] = 0;
    signs[0] = 1;
    for (int a = MAX_RANK - 1; a >= 0; a--) {
        for (int i = 0; i < count && extents[a] > 1; i++) {
            offsets[count + i] = offsets[i] + stride;
            signs[count + i] = -signs[i];
        }
        count *= extents[a] > 1 ? 2 : 1;
        stride *= extents[a];
    }
    return count;
}

double nf_noise_estimate(const float *data, int rank, const int64_t *extents, int channels, int step)
{
    int64_t full[MAX_RANK] = {1, 1, 1}, blocks[MAX_RANK], offsets[8];
    int signs[8];
    for (int a = 0; a < rank; a++)
        full[MAX_RANK - rank + a] = extents[a];
    for (int a = 0; a < MAX_RANK; a++)
        blocks[a] = full[a] > 1 ? full[a] / 2 : 1;
    const int corners = block_corners(full, step, offsets, signs);
    float *const details = malloc((size_t)(blocks[0] * blocks[1] * blocks[2] * channels) * sizeof *details);
    if (!details)
        return -1;
    int64_t count = 0;
    for (int64_t z = 0; z < blocks[0]; z++)
        for (int64_t y = 0; y < blocks[1]; y++)
            for (int64_t x = 0; x < blocks[2]; x++)
                for (int c = 0; c < channels; c++) {
                    const int64_t pixel = (2 * z * full[1] + 2 * y) * full[2] + 2 * x;
                    const float detail = haar_detail(data + pixel * step + c, offsets, signs, corners);
                    if (detail >= 0)
                        details[count++] = detail;
                }
    qsort(details, (size_t)count, sizeof *details, compare_floats);
    const double sigma = count > 0 && corners > 1 ? (double)details[count / 2] / 0.6745 : 0;
    free(details);
    return sigma;
}
