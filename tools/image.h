/* Pictures as planes of floats: PNG and JPEG in, PNG out.
 *
 * Whatever the bytes of a file are, reading it ends in a picture or in a message that names the file and the rule it
 * breaks; a file that ends early is never half a picture. Sample values are taken as stored: colour profiles and gamma
 * are neither applied nor kept. */
#ifndef NF_TOOLS_IMAGE_H
#define NF_TOOLS_IMAGE_H

#include <stdint.h>

#include "denoise_file.h"

/* Limits of what is read: a file of a few bytes may claim any size. */
#define NF_IMAGE_MAX_SIDE 32768
#define NF_IMAGE_MAX_PIXELS (INT64_C(1) << 26)

typedef struct nf_image {
    int64_t width, height;
    int channels; /* 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA */
    int bits;     /* per sample in the file: 8 or 16 */
    float *data;  /* [height, width, channels], 0..1; owned */
} nf_image;

/* Channels that are no alpha. */
int nf_image_colours(const nf_image *image);

/* A black picture; false if it is too large or there is no memory. path is for the message. */
bool nf_image_create(nf_image *image, int64_t width, int64_t height, int channels, int bits, const char *path,
                     nf_message *message);
/* Frees the samples; a zeroed picture is fine. */
void nf_image_destroy(nf_image *image);

/* Palettes and 1, 2 and 4 bits are expanded to 8 bits, transparency to alpha. *image is set only on success. */
bool nf_image_read_png(nf_image *image, const char *path, nf_message *message);
/* Grey, or anything libjpeg turns into RGB; CMYK is refused. */
bool nf_image_read_jpeg(nf_image *image, const char *path, nf_message *message);

/* Writes a PNG with the picture's channels and bits; samples are clamped to 0..1 and rounded. */
bool nf_image_write_png(const nf_image *image, nf_output *output, nf_message *message);

#endif
