/* Volumes of floats: NIfTI-1 and NIfTI-2 in single files (.nii, .nii.gz), in and out.
 *
 * The header is checked here, field by field, before anything it says is believed; the library supplies the header
 * structures, the byte order and the compression. As for pictures, a damaged file ends in a message. */
#ifndef NF_TOOLS_VOLUME_H
#define NF_TOOLS_VOLUME_H

#include <stddef.h>
#include <stdint.h>

#include "denoise_file.h"

/* Limits of what is read: a kilobyte of gzip may claim any size. */
#define NF_VOLUME_MAX_VOXELS (INT64_C(1) << 28)
#define NF_VOLUME_MAX_HEADER (INT64_C(16) << 20)

typedef struct nf_volume {
    int64_t extents[3];    /* z, y, x: slowest first, as in memory */
    int64_t count;         /* volumes: the product of dimensions 4 to 7 */
    float *data;           /* [count, z, y, x], scl_slope and scl_inter applied, all finite; owned */
    unsigned char *header; /* everything before the voxels, extensions included, as in the file; owned */
    size_t header_bytes;
    int version;  /* 1 or 2 */
    bool swapped; /* the file has the other byte order */
} nf_volume;

int64_t nf_volume_voxels(const nf_volume *volume); /* of one of them */

/* Reads any real type of at most 64 bits. *volume is set only on success. */
bool nf_volume_read(nf_volume *volume, const char *path, nf_message *message);
/* Frees the arrays; a zeroed volume is fine. */
void nf_volume_destroy(nf_volume *volume);

/* Writes the voxels as float32 behind the header that was read, compressed iff the output's name ends in .gz. */
bool nf_volume_write(const nf_volume *volume, nf_output *output, nf_message *message);

#endif
