/* What denoise works on: a picture or a series of volumes, behind one description in values of 0..1. */
#ifndef NF_TOOLS_DENOISE_SUBJECT_H
#define NF_TOOLS_DENOISE_SUBJECT_H

#include "image.h"
#include "volume.h"

typedef struct nf_subject {
    bool is_volume;
    nf_image image; /* which of the two holds data is up to is_volume */
    nf_volume volume;
    int rank;           /* 2 or 3 */
    int64_t extents[3]; /* slowest first */
    int64_t pixels;     /* of one picture or volume */
    int64_t count;      /* pictures (1) or volumes */
    int channels, step; /* values per pixel that are filtered, and stored */
    float *data;        /* the picture's or volume's own: 0..1 */
    double low, unit;   /* value in the file = low + unit * data; for pictures 0 and 255, whatever their bits */
} nf_subject;

/* A part of a picture. */
typedef struct nf_crop {
    int64_t width, height, x, y;
} nf_crop;

/* Reads what the file's first bytes say it is. crop may be NULL; volumes refuse it. */
bool nf_subject_read(nf_subject *subject, const char *path, const nf_crop *crop, nf_message *message);
void nf_subject_destroy(nf_subject *subject);

/* Can a file of this name hold the subject? */
bool nf_subject_check_name(const nf_subject *subject, const char *path, nf_message *message);

/* Is a pair of the subject's width small enough for nf_subject_write_pair? */
bool nf_subject_check_pair(const nf_subject *subject, const char *path, nf_message *message);

/* A copy of the subject's data; NULL with the message set. */
float *nf_subject_copy(const nf_subject *subject, nf_message *message);

/* Writes data, shaped like the subject's own. */
bool nf_subject_write(nf_subject *subject, float *data, nf_output *output, nf_message *message);
/* Writes a PNG of two data side by side; of volumes, the middle slice of the first, its second axis pointing up, and
 * brightened if most of it is dark. */
bool nf_subject_write_pair(const nf_subject *subject, const float *left, const float *right, nf_output *output,
                           nf_message *message);

#endif
