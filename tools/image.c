/* Pictures in memory. The file formats are in image_png.c and image_jpeg.c. */
#include "image.h"

#include <inttypes.h>
#include <stdlib.h>

int nf_image_colours(const nf_image *image)
{
    return image->channels < 3 ? 1 : 3;
}

bool nf_image_create(nf_image *image, int64_t width, int64_t height, int channels, int bits, const char *path,
                     nf_message *message)
{
    if (width < 1 || height < 1 || width > NF_IMAGE_MAX_SIDE || height > NF_IMAGE_MAX_SIDE ||
        width * height > NF_IMAGE_MAX_PIXELS)
        return nf_message_set(
            message, "%s: the picture is %" PRId64 "x%" PRId64 ": sides must be 1..%d and pixels at most %" PRId64,
            path, width, height, NF_IMAGE_MAX_SIDE, NF_IMAGE_MAX_PIXELS);
    float *const data = calloc((size_t)(width * height * channels), sizeof *data);
    if (!data)
        return nf_message_set(message, "%s: not enough memory for %" PRId64 "x%" PRId64 " pixels", path, width, height);
    *image = (nf_image){.width = width, .height = height, .channels = channels, .bits = bits, .data = data};
    return true;
}

void nf_image_destroy(nf_image *image)
{
    free(image->data);
    *image = (nf_image){0};
}
