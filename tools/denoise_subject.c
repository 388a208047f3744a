/* Pictures and volumes as denoise sees them. */
#include "denoise_subject.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef enum kind { KIND_PNG, KIND_JPEG, KIND_NIFTI, KIND_UNKNOWN } kind;

static bool starts(const unsigned char first[8], const char *with, size_t length)
{
    return memcmp(first, with, length) == 0;
}

static bool look_at(const char *path, kind *found, nf_message *message)
{
    unsigned char first[8] = {0};
    struct stat status;
    FILE *const file = fopen(path, "rb");
    if (!file)
        return nf_message_set(message, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode)) {
        fclose(file);
        return nf_message_set(message, "%s: must be a regular file", path);
    }
    (void)!fread(first, 1, sizeof first, file); /* a short file is of no kind */
    fclose(file);
    if (starts(first, "\x89PNG\r\n\x1a\n", 8))
        *found = KIND_PNG;
    else if (starts(first, "\xff\xd8\xff", 3))
        *found = KIND_JPEG;
    else if (starts(first, "\x1f\x8b", 2) || starts(first, "\x5c\x01\0\0", 4) || starts(first, "\0\0\x01\x5c", 4) ||
             starts(first, "\x1c\x02\0\0", 4) || starts(first, "\0\0\x02\x1c", 4))
        *found = KIND_NIFTI;
    if (*found == KIND_UNKNOWN)
        return nf_message_set(message, "%s: must be a PNG, JPEG or NIfTI file", path);
    return true;
}

static bool crop_image(nf_image *image, const nf_crop *crop, const char *path, nf_message *message)
{
    nf_image part;
    if (crop->width < 1 || crop->height < 1 || crop->x < 0 || crop->y < 0 || crop->width > image->width - crop->x ||
        crop->height > image->height - crop->y)
        return nf_message_set(
            message, "--crop %" PRId64 "x%" PRId64 "+%" PRId64 "+%" PRId64 " must lie inside %s, %" PRId64 "x%" PRId64,
            crop->width, crop->height, crop->x, crop->y, path, image->width, image->height);
    if (!nf_image_create(&part, crop->width, crop->height, image->channels, image->bits, path, message))
        return false;
    const int64_t row = crop->width * image->channels;
    for (int64_t y = 0; y < crop->height; y++)
        memcpy(part.data + y * row, image->data + ((crop->y + y) * image->width + crop->x) * image->channels,
               (size_t)row * sizeof *part.data);
    nf_image_destroy(image);
    *image = part;
    return true;
}

static void describe_image(nf_subject *subject)
{
    const nf_image *const image = &subject->image;
    subject->rank = 2;
    subject->extents[0] = image->height;
    subject->extents[1] = image->width;
    subject->pixels = image->width * image->height;
    subject->count = 1;
    subject->channels = nf_image_colours(image);
    subject->step = image->channels;
    subject->data = image->data;
    subject->unit = 255;
}

/* Maps the volume's least value to 0 and its greatest to 1. */
static void describe_volume(nf_subject *subject)
{
    nf_volume *const volume = &subject->volume;
    subject->rank = 3;
    memcpy(subject->extents, volume->extents, sizeof subject->extents);
    subject->pixels = nf_volume_voxels(volume);
    subject->count = volume->count;
    subject->channels = subject->step = 1;
    subject->data = volume->data;
    const int64_t total = subject->pixels * subject->count;
    float low = volume->data[0], high = low;
    for (int64_t i = 0; i < total; i++) {
        low = volume->data[i] < low ? volume->data[i] : low;
        high = volume->data[i] > high ? volume->data[i] : high;
    }
    subject->low = (double)low;
    subject->unit = high > low ? (double)high - (double)low : 1;
    for (int64_t i = 0; i < total; i++)
        volume->data[i] = (float)(((double)volume->data[i] - subject->low) / subject->unit);
}

bool nf_subject_read(nf_subject *subject, const char *path, const nf_crop *crop, nf_message *message)
{
    kind found = KIND_UNKNOWN;
    *subject = (nf_subject){0};
    if (!look_at(path, &found, message))
        return false;
    subject->is_volume = found == KIND_NIFTI;
    if (subject->is_volume) {
        if (crop)
            return nf_message_set(message, "--crop cuts pictures, and %s is a volume", path);
        if (!nf_volume_read(&subject->volume, path, message))
            return false;
        describe_volume(subject);
        return true;
    }
    if (!(found == KIND_PNG ? nf_image_read_png : nf_image_read_jpeg)(&subject->image, path, message))
        return false;
    if (crop && !crop_image(&subject->image, crop, path, message)) {
        nf_subject_destroy(subject);
        return false;
    }
    describe_image(subject);
    return true;
}

void nf_subject_destroy(nf_subject *subject)
{
    nf_image_destroy(&subject->image);
    nf_volume_destroy(&subject->volume);
    subject->data = NULL;
}

bool nf_subject_check_name(const nf_subject *subject, const char *path, nf_message *message)
{
    if (subject->is_volume)
        return nf_path_ends(path, ".nii") || nf_path_ends(path, ".nii.gz") ||
               nf_message_set(message, "%s: a volume is written as .nii or .nii.gz", path);
    return nf_path_ends(path, ".png") || nf_message_set(message, "%s: a picture is written as .png", path);
}

static size_t bytes_of(const nf_subject *subject)
{
    return (size_t)(subject->pixels * subject->count * subject->step) * sizeof(float);
}

float *nf_subject_copy(const nf_subject *subject, nf_message *message)
{
    float *const copy = malloc(bytes_of(subject));
    if (copy)
        memcpy(copy, subject->data, bytes_of(subject));
    else
        nf_message_set(message, "not enough memory for a copy of %zu bytes", bytes_of(subject));
    return copy;
}

bool nf_subject_write(nf_subject *subject, float *data, nf_output *output, nf_message *message)
{
    if (!subject->is_volume) {
        nf_image image = subject->image;
        image.data = data;
        return nf_image_write_png(&image, output, message);
    }
    nf_volume volume = subject->volume;
    volume.data = malloc(bytes_of(subject));
    if (!volume.data)
        return nf_message_set(message, "%s: not enough memory", output->path);
    for (int64_t i = 0; i < subject->pixels * subject->count; i++)
        volume.data[i] = (float)(subject->low + subject->unit * (double)data[i]);
    const bool done = nf_volume_write(&volume, output, message);
    free(volume.data);
    return done;
}

enum { PAIR_GAP = 4 }; /* columns between before and after */

/* Where the picture, or the slice of the volume that is shown, begins. */
static const float *shown(const nf_subject *subject, const float *data)
{
    return subject->is_volume ? data + subject->extents[0] / 2 * subject->extents[1] * subject->extents[2] : data;
}

static int compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* What to show as white: a few bright voxels must not leave the others dark. */
static float white_of(const nf_subject *subject, const float *data, const char *path, nf_message *message)
{
    if (!subject->is_volume)
        return 1;
    const int64_t count = subject->extents[1] * subject->extents[2];
    float *const sorted = malloc((size_t)count * sizeof *sorted);
    if (!sorted) {
        nf_message_set(message, "%s: not enough memory", path);
        return -1;
    }
    memcpy(sorted, shown(subject, data), (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_floats);
    const float white = sorted[(count - 1) * 995 / 1000];
    free(sorted);
    return white > 0 ? white : 1;
}

/* One half of a pair, from its column x on. */
static void place(const nf_subject *subject, const float *data, float white, nf_image *pair, int64_t x)
{
    const int64_t height = subject->extents[subject->rank - 2], width = subject->extents[subject->rank - 1];
    for (int64_t y = 0; y < height; y++) {
        const int64_t from_y = subject->is_volume ? height - 1 - y : y;
        const float *from = shown(subject, data) + from_y * width * subject->step;
        float *to = pair->data + (y * pair->width + x) * pair->channels;
        for (int64_t i = 0; i < width; i++, from += subject->step, to += pair->channels)
            for (int c = 0; c < pair->channels; c++)
                to[c] = from[c] / white;
    }
}

bool nf_subject_check_pair(const nf_subject *subject, const char *path, nf_message *message)
{
    const int64_t height = subject->extents[subject->rank - 2],
                  width = 2 * subject->extents[subject->rank - 1] + PAIR_GAP;
    return (width <= NF_IMAGE_MAX_SIDE && height <= NF_IMAGE_MAX_SIDE && width * height <= NF_IMAGE_MAX_PIXELS) ||
           nf_message_set(message, "%s: would be %" PRId64 "x%" PRId64 ": sides must be at most %d and pixels %" PRId64,
                          path, width, height, NF_IMAGE_MAX_SIDE, NF_IMAGE_MAX_PIXELS);
}

bool nf_subject_write_pair(const nf_subject *subject, const float *left, const float *right, nf_output *output,
                           nf_message *message)
{
    nf_image pair;
    const int64_t height = subject->extents[subject->rank - 2], width = subject->extents[subject->rank - 1];
    const float white = white_of(subject, right, output->path, message);
    if (white < 0 || !nf_image_create(&pair, 2 * width + PAIR_GAP, height, subject->channels, 8, output->path, message))
        return false;
    for (int64_t i = 0; i < pair.width * pair.height * pair.channels; i++)
        pair.data[i] = 1;
    place(subject, left, white, &pair, 0);
    place(subject, right, white, &pair, width + PAIR_GAP);
    const bool done = nf_image_write_png(&pair, output, message);
    nf_image_destroy(&pair);
    return done;
}
