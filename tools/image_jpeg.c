/* JPEG files through libjpeg. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "image.h"

#ifdef HAVE_LIBJPEG

#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

/* Everything alive while libjpeg may longjmp, so that no local variable has to survive it. */
typedef struct jpeg_job {
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct jpeg;
    jmp_buf escape;
    const char *path;
    nf_message *message;
    nf_image image;
    JSAMPLE *row;
} jpeg_job;

static jpeg_job *job_of(j_common_ptr jpeg)
{
    return jpeg->client_data;
}

static void on_error(j_common_ptr jpeg)
{
    jpeg_job *const job = job_of(jpeg);
    char text[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, text);
    nf_message_set(job->message, "%s: not a valid JPEG: %s", job->path, text);
    longjmp(job->escape, 1);
}

/* libjpeg only warns when data end early or are damaged, and invents the rest: here that is an error. */
static void on_message(j_common_ptr jpeg, int level)
{
    const int code = jpeg->err->msg_code;
    if (level < 0 && code != JWRN_ADOBE_XFORM && code != JWRN_EXTRANEOUS_DATA)
        on_error(jpeg);
}

static void on_output(j_common_ptr jpeg)
{
    (void)jpeg;
}

/* A progressive file of a few kilobytes can ask for thousands of passes over the whole picture. */
static void on_progress(j_common_ptr jpeg)
{
    enum { MAX_SCANS = 256 };
    jpeg_job *const job = job_of(jpeg);
    if (job->jpeg.input_scan_number <= MAX_SCANS)
        return;
    nf_message_set(job->message, "%s: has more than %d scans", job->path, MAX_SCANS);
    longjmp(job->escape, 1);
}

static bool choose_colours(jpeg_job *job)
{
    struct jpeg_decompress_struct *const jpeg = &job->jpeg;
    if (jpeg->num_components == 1) {
        jpeg->out_color_space = JCS_GRAYSCALE;
    } else if (jpeg->num_components == 3) {
        jpeg->out_color_space = JCS_RGB;
    } else {
        return nf_message_set(job->message, "%s: has %d colour components (CMYK?): only grey and RGB are read",
                              job->path, jpeg->num_components);
    }
    return true;
}

static void read_rows(jpeg_job *job)
{
    const int64_t per_row = job->image.width * job->image.channels;
    float *to = job->image.data;
    while (job->jpeg.output_scanline < job->jpeg.output_height) {
        jpeg_read_scanlines(&job->jpeg, &job->row, 1);
        for (int64_t i = 0; i < per_row; i++)
            *to++ = (float)job->row[i] / 255;
    }
}

static bool decode(jpeg_job *job, FILE *file)
{
    struct jpeg_decompress_struct *const jpeg = &job->jpeg;
    if (setjmp(job->escape))
        return false;
    jpeg_create_decompress(jpeg);
    jpeg->progress = &job->progress;
    jpeg_stdio_src(jpeg, file);
    jpeg_read_header(jpeg, TRUE);
    if (!choose_colours(job) || !nf_image_create(&job->image, jpeg->image_width, jpeg->image_height,
                                                 jpeg->num_components, 8, job->path, job->message))
        return false;
    job->row = malloc((size_t)(job->image.width * job->image.channels));
    if (!job->row)
        return nf_message_set(job->message, "%s: not enough memory to decode the picture", job->path);
    jpeg_start_decompress(jpeg);
    read_rows(job);
    jpeg_finish_decompress(jpeg);
    return true;
}

bool nf_image_read_jpeg(nf_image *image, const char *path, nf_message *message)
{
    FILE *const file = fopen(path, "rb");
    if (!file)
        return nf_message_set(message, "%s: cannot open: %s", path, strerror(errno));
    jpeg_job *const job = calloc(1, sizeof *job);
    if (!job) {
        fclose(file);
        return nf_message_set(message, "%s: not enough memory", path);
    }
    job->path = path;
    job->message = message;
    job->progress.progress_monitor = on_progress;
    job->jpeg.err = jpeg_std_error(&job->errors);
    job->jpeg.client_data = job;
    job->errors.error_exit = on_error;
    job->errors.emit_message = on_message;
    job->errors.output_message = on_output;
    const bool done = decode(job, file);
    jpeg_destroy_decompress(&job->jpeg);
    free(job->row);
    fclose(file);
    if (done)
        *image = job->image;
    else
        nf_image_destroy(&job->image);
    free(job);
    return done;
}

#else

bool nf_image_read_jpeg(nf_image *image, const char *path, nf_message *message)
{
    (void)image;
    return nf_message_set(message, "%s: reading JPEG needs libjpeg, which this program was built without", path);
}

#endif
