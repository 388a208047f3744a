/* The patches of non-local means: all their values, or their lowest frequencies.
 *
 * A separable orthonormal cosine transform over the patch's axes and channels turns a patch into as many coefficients
 * and keeps all distances. Pictures are smooth and white noise is not: it is the same in all coefficients, while what
 * tells patches apart lies in the lowest, so that comparing few of them is faster and less disturbed by noise (as with
 * the principal components of Tasdizen, "Principal neighborhood dictionaries for nonlocal means image denoising",
 * IEEE TIP 2009, but without an eigenvalue problem). Frequencies are ordered by the sum of their squares over the axes;
 * differences between channels come NF_PATCH_COLOUR_RANK later than their sum. */
#ifndef NF_TOOLS_NLM_PATCH_H
#define NF_TOOLS_NLM_PATCH_H

#include <stdbool.h>
#include <stdint.h>

#define NF_NLM_MAX_RANK 3
#define NF_PATCH_COLOUR_RANK 8

/* One axis, first to first + count - 1. */
typedef struct nf_range {
    int64_t first, count;
} nf_range;

typedef struct nf_patch_feature {
    int64_t rank, index; /* its place in the order; row-major in the transform of a patch: axes 0, 1, channel, axis 2 */
} nf_patch_feature;

/* Patches around the pixels of a picture [extents..., step], reflected at its borders. */
typedef struct nf_patches {
    const float *in;
    int64_t extents[NF_NLM_MAX_RANK], patch[NF_NLM_MAX_RANK];
    int64_t channels, step;
    int64_t values;                         /* compared per patch: `features` of them, or all */
    int64_t *mirror[NF_NLM_MAX_RANK];       /* mirror[a][i + patch / 2] is coordinate i, reflected into the axis */
    nf_patch_feature *features;             /* by index; NULL: the patch itself */
    float *basis[NF_NLM_MAX_RANK], *colour; /* row u is the cosine of frequency u */
    float *lines;                           /* room per thread */
} nf_patches;

/* The caller fills in the fields from in to step, and says how many features a patch has: 0, or more than it has
 * values, means all. Returns what was chosen. */
int64_t nf_patches_choose(nf_patches *patches, int64_t features);
/* False if there is no memory; release in any case. */
bool nf_patches_prepare(nf_patches *patches);
void nf_patches_release(nf_patches *patches);

/* Per pixel of the box, row-major, [p, -|p|^2 / 2]: `values` values and one more. mean, of each channel, is subtracted
 * from the picture before. */
void nf_patches_fill(const nf_patches *patches, const nf_range box[NF_NLM_MAX_RANK], const float *mean, float *keys);

#endif
