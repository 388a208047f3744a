/* Non-local means (Buades, Coll and Morel, "A non-local algorithm for image denoising", CVPR 2005) as neighborhood
 * attention.
 *
 *     out_i = sum_j w_ij x_j / sum_j w_ij,    w_ij = exp(-d_ij^2 / h^2),    d_ij^2 = |p_i - p_j|^2 / n
 *
 * where p_i is the patch of n values around pixel i (all channels), reflected at the borders of the picture without
 * repeating the border pixel, or the n lowest frequencies of it, and j runs over a window around i. White noise of
 * deviation sigma adds 2 sigma^2 to d^2, however many frequencies are compared. Since |p_i|^2 is the same for all j,
 *
 *     w_ij ~ exp(scale q_i . k_j),    q_i = [p_i, 1],    k_j = [p_j, -|p_j|^2 / 2],    scale = 2 / (n h^2):
 *
 * a softmax over a neighborhood with one extra channel. Two things follow from that form. At the borders the window is
 * shifted inwards and stays whole, where the textbook cuts it off; further inside the two agree. And the variant with
 * max(d^2 - 2 sigma^2, 0) is not a dot product, so it is not offered.
 *
 * All patches at once would take hundreds of times the picture's memory: the picture is cut into blocks of queries,
 * each attended to with the ranges of keys it sees. The mean colour of a block's keys is subtracted from its patches,
 * which changes no difference and keeps the products small, so that f32 is accurate. */
#ifndef NF_TOOLS_NLM_H
#define NF_TOOLS_NLM_H

#include <stddef.h>
#include <stdint.h>

#include "denoise_file.h"
#include "nearfield.h"
#include "nlm_patch.h"

/* Bytes of patches of one block unless asked otherwise. A single pixel's keys may take more, but not without limit. */
#define NF_NLM_BLOCK_BYTES ((size_t)64 << 20)
#define NF_NLM_MAX_BLOCK_BYTES ((size_t)1 << 30)
/* The least strength whose weights f32 still resolves, for values in 0..1. */
#define NF_NLM_MIN_STRENGTH 1e-4

typedef struct nf_nlm {
    int rank;                         /* 1..3 */
    int64_t extents[NF_NLM_MAX_RANK]; /* slowest first */
    int64_t window[NF_NLM_MAX_RANK];  /* 1..extent each; odd, or the whole extent */
    int64_t patch[NF_NLM_MAX_RANK];   /* odd */
    int64_t features;                 /* n: the lowest frequencies that are compared; 0: the patch itself */
    int channels;                     /* values per pixel that are compared and averaged */
    int step;                         /* floats from pixel to pixel, >= channels */
    double strength;                  /* h, > 0 */
    size_t block_bytes;               /* 0: NF_NLM_BLOCK_BYTES */
} nf_nlm;

/* Called after each block with the queries finished so far. */
typedef void (*nf_nlm_watcher)(void *user, int64_t done);

typedef struct nf_nlm_report {
    int64_t blocks;
    size_t patch_bytes;  /* of the largest block */
    double pairs, flops; /* visible pairs and useful operations, over all blocks */
    char chosen[96];     /* backend, algorithm and kernel of the first block */
} nf_nlm_report;

/* Filters in to out, both [extents..., step], values in about 0..1; elements of out beyond channels are left alone.
 * watcher and report may be NULL. */
bool nf_nlm_run(const nf_nlm *nlm, nf_context *context, const float *in, float *out, nf_nlm_watcher watcher, void *user,
                nf_nlm_report *report, nf_message *message);

#endif
