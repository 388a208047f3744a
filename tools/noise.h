/* Seeded Gaussian noise, and what measures it. The same seed gives the same noise on every machine. */
#ifndef NF_TOOLS_NOISE_H
#define NF_TOOLS_NOISE_H

#include <stdint.h>

typedef struct nf_random {
    uint64_t state; /* any value; the seed */
} nf_random;

/* Uniform 64 bits: splitmix64. */
uint64_t nf_random_bits(nf_random *random);
/* Uniform in (0, 1). */
double nf_random_uniform(nf_random *random);
/* Two independent standard normal variates: Box and Muller's transform. */
void nf_random_normal(nf_random *random, double normal[2]);

/* Adds sigma times a standard normal variate to every element, not clipped. The first `channels` of every `step`
 * elements get noise. */
void nf_noise_add(float *data, int64_t pixels, int channels, int step, double sigma, uint64_t seed);

/* Peak signal-to-noise ratio in dB for a peak of `peak`, over the same elements; infinite for equal data. */
double nf_noise_psnr(const float *data, const float *truth, int64_t pixels, int channels, int step, double peak);

/* The standard deviation of white noise in data, estimated from the finest diagonal Haar coefficients by their median:
 * median(|d|) / 0.6745 (Donoho and Johnstone 1994), pooled over channels. extents: rank of them, slowest first, an axis
 * of one element does not count. Blocks of equal values (masked or saturated regions) are left out. 0 if nothing is
 * left; negative if there is no memory. */
double nf_noise_estimate(const float *data, int rank, const int64_t *extents, int channels, int step);

#endif
