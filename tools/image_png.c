/* PNG files through libpng. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "image.h"

#ifdef HAVE_LIBPNG

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

/* Everything alive while libpng may longjmp, so that no local variable has to survive it. */
typedef struct png_job {
    const char *path;
    nf_message *message;
    png_structp png;
    png_infop info;
    nf_image image;
    png_bytep bytes; /* the whole picture for interlaced reading, one row for writing */
    png_bytepp rows;
} png_job;

static void on_read_error(png_structp png, png_const_charp text)
{
    const png_job *const job = png_get_error_ptr(png);
    nf_message_set(job->message, "%s: not a valid PNG: %s", job->path, text);
    png_longjmp(png, 1);
}

static void on_write_error(png_structp png, png_const_charp text)
{
    const png_job *const job = png_get_error_ptr(png);
    nf_message_set(job->message, "%s: cannot write: %s", job->path, text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

/* Bounds what a small file can make libpng do: its size, the chunks it keeps, the memory of one chunk. */
static void set_limits(png_structp png)
{
    enum { MAX_CHUNKS = 128, MAX_CHUNK_BYTES = 4 << 20 };
    png_set_user_limits(png, NF_IMAGE_MAX_SIDE, NF_IMAGE_MAX_SIDE);
    png_set_chunk_cache_max(png, MAX_CHUNKS);
    png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
}

static void expand_to_samples(png_job *job)
{
    png_set_expand(job->png);
    png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
}

static bool allocate_rows(png_job *job)
{
    const size_t height = (size_t)job->image.height, row = png_get_rowbytes(job->png, job->info);
    job->bytes = malloc(height * row);
    job->rows = malloc(height * sizeof *job->rows);
    if (!job->bytes || !job->rows)
        return nf_message_set(job->message, "%s: not enough memory to decode the picture", job->path);
    for (size_t y = 0; y < height; y++)
        job->rows[y] = job->bytes + y * row;
    return true;
}

static void bytes_to_floats(const png_job *job)
{
    const int64_t per_row = job->image.width * job->image.channels;
    float *to = job->image.data;
    for (int64_t y = 0; y < job->image.height; y++) {
        const png_byte *from = job->rows[y];
        for (int64_t i = 0; i < per_row; i++)
            *to++ = job->image.bits == 8 ? (float)from[i] / 255 : (float)(from[2 * i] << 8 | from[2 * i + 1]) / 65535;
    }
}

static bool decode(png_job *job, FILE *file)
{
    if (setjmp(png_jmpbuf(job->png)))
        return false;
    set_limits(job->png);
    png_init_io(job->png, file);
    png_read_info(job->png, job->info);
    expand_to_samples(job);
    if (!nf_image_create(&job->image, png_get_image_width(job->png, job->info),
                         png_get_image_height(job->png, job->info), png_get_channels(job->png, job->info),
                         png_get_bit_depth(job->png, job->info), job->path, job->message) ||
        !allocate_rows(job))
        return false;
    png_read_image(job->png, job->rows);
    png_read_end(job->png, NULL);
    bytes_to_floats(job);
    return true;
}

bool nf_image_read_png(nf_image *image, const char *path, nf_message *message)
{
    png_job job = {.path = path, .message = message};
    FILE *const file = fopen(path, "rb");
    if (!file)
        return nf_message_set(message, "%s: cannot open: %s", path, strerror(errno));
    job.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &job, on_read_error, on_warning);
    job.info = job.png ? png_create_info_struct(job.png) : NULL;
    const bool done = job.info ? decode(&job, file) : nf_message_set(message, "%s: libpng cannot start", path);
    png_destroy_read_struct(&job.png, &job.info, NULL);
    free(job.rows);
    free(job.bytes);
    fclose(file);
    if (done)
        *image = job.image;
    else
        nf_image_destroy(&job.image);
    return done;
}

/* NaN counts as black. */
static unsigned quantise(float value, unsigned top)
{
    const float clamped = value > 0 ? (value < 1 ? value : 1) : 0;
    return (unsigned)(clamped * (float)top + 0.5f);
}

static void floats_to_bytes(const nf_image *image, int64_t y, png_bytep bytes)
{
    const int64_t per_row = image->width * image->channels;
    const float *const from = image->data + y * per_row;
    for (int64_t i = 0; i < per_row; i++) {
        if (image->bits == 8) {
            bytes[i] = (png_byte)quantise(from[i], 255);
        } else {
            const unsigned sample = quantise(from[i], 65535);
            bytes[2 * i] = (png_byte)(sample >> 8);
            bytes[2 * i + 1] = (png_byte)(sample & 255);
        }
    }
}

static bool encode(png_job *job, const nf_image *image, FILE *file)
{
    static const int colour_types[] = {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB,
                                       PNG_COLOR_TYPE_RGB_ALPHA};
    if (setjmp(png_jmpbuf(job->png)))
        return false;
    png_init_io(job->png, file);
    png_set_IHDR(job->png, job->info, (png_uint_32)image->width, (png_uint_32)image->height, image->bits,
                 colour_types[image->channels - 1], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(job->png, job->info);
    for (int64_t y = 0; y < image->height; y++) {
        floats_to_bytes(image, y, job->bytes);
        png_write_row(job->png, job->bytes);
    }
    png_write_end(job->png, job->info);
    return true;
}

bool nf_image_write_png(const nf_image *image, nf_output *output, nf_message *message)
{
    png_job job = {.path = output->path, .message = message};
    job.bytes = malloc((size_t)(image->width * image->channels) * 2);
    job.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &job, on_write_error, on_warning);
    job.info = job.png ? png_create_info_struct(job.png) : NULL;
    const bool done = job.bytes && job.info ? encode(&job, image, output->file)
                                            : nf_message_set(message, "%s: not enough memory", output->path);
    png_destroy_write_struct(&job.png, &job.info);
    free(job.bytes);
    return done;
}

#else

bool nf_image_read_png(nf_image *image, const char *path, nf_message *message)
{
    (void)image;
    return nf_message_set(message, "%s: reading PNG needs libpng, which this program was built without", path);
}

bool nf_image_write_png(const nf_image *image, nf_output *output, nf_message *message)
{
    (void)image;
    return nf_message_set(message, "%s: writing PNG needs libpng, which this program was built without", output->path);
}

#endif
