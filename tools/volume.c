/* NIfTI files through libnifti2 and its libznz. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "volume.h"

#include <stdlib.h>

int64_t nf_volume_voxels(const nf_volume *volume)
{
    return volume->extents[0] * volume->extents[1] * volume->extents[2];
}

void nf_volume_destroy(nf_volume *volume)
{
    free(volume->data);
    free(volume->header);
    *volume = (nf_volume){0};
}

#ifdef HAVE_LIBNIFTI2

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include <nifti2_io.h>

/* The fields that matter, the same for both versions, in this machine's byte order. */
typedef struct nifti_facts {
    int64_t dim[8];
    int64_t datatype, bitpix;
    double voxel_offset, slope, intercept;
} nifti_facts;

static void facts_of_1(nifti_1_header header, bool swapped, nifti_facts *facts)
{
    if (swapped)
        swap_nifti_header(&header, 1);
    *facts = (nifti_facts){.datatype = header.datatype,
                           .bitpix = header.bitpix,
                           .voxel_offset = (double)header.vox_offset,
                           .slope = (double)header.scl_slope,
                           .intercept = (double)header.scl_inter};
    for (int i = 0; i < 8; i++)
        facts->dim[i] = header.dim[i];
}

static void facts_of_2(nifti_2_header header, bool swapped, nifti_facts *facts)
{
    if (swapped)
        swap_nifti_header(&header, 2);
    *facts = (nifti_facts){.datatype = header.datatype,
                           .bitpix = header.bitpix,
                           .voxel_offset = (double)header.vox_offset,
                           .slope = header.scl_slope,
                           .intercept = header.scl_inter};
    for (int i = 0; i < 8; i++)
        facts->dim[i] = header.dim[i];
}

static bool read_bytes(znzFile file, void *to, size_t bytes)
{
    return znzread(to, 1, bytes, file) == bytes;
}

static bool ends_early(const char *path, const char *where, nf_message *message)
{
    return nf_message_set(message, "%s: the file ends early or is damaged: %s", path, where);
}

/* Which version and byte order the first bytes announce. */
static bool read_fixed_header(nf_volume *volume, znzFile file, nifti_2_header *raw, const char *path,
                              nf_message *message)
{
    static const char magic_2[8] = {'n', '+', '2', 0, '\r', '\n', 032, '\n'};
    int32_t size, swapped_size;
    if (!read_bytes(file, raw, sizeof(nifti_1_header)))
        return ends_early(path, "no NIfTI header", message);
    memcpy(&size, raw, sizeof size);
    swapped_size = size;
    nifti_swap_4bytes(1, &swapped_size);
    volume->swapped = size != sizeof(nifti_1_header) && size != sizeof(nifti_2_header);
    const int32_t true_size = volume->swapped ? swapped_size : size;
    if (true_size == sizeof(nifti_1_header)) {
        nifti_1_header first;
        memcpy(&first, raw, sizeof first);
        volume->version = 1;
        if (memcmp(first.magic, "ni1", 4) == 0)
            return nf_message_set(message, "%s: a header with its voxels in another file: only single files are read",
                                  path);
        if (memcmp(first.magic, "n+1", 4) != 0)
            return nf_message_set(message, "%s: not a NIfTI file: magic must be n+1", path);
        return true;
    }
    if (true_size != sizeof(nifti_2_header))
        return nf_message_set(message, "%s: not a NIfTI file: sizeof_hdr is %" PRId32 ", must be 348 or 540", path,
                              size);
    volume->version = 2;
    if (!read_bytes(file, (char *)raw + sizeof(nifti_1_header), sizeof(nifti_2_header) - sizeof(nifti_1_header)))
        return ends_early(path, "no NIfTI-2 header", message);
    if (memcmp(raw->magic, magic_2, sizeof magic_2) != 0)
        return nf_message_set(message, "%s: not a NIfTI-2 file: magic must be n+2", path);
    return true;
}

static bool check_dimensions(nf_volume *volume, const nifti_facts *facts, const char *path, nf_message *message)
{
    int64_t product = 1, dim[8] = {0, 1, 1, 1, 1, 1, 1, 1};
    if (facts->dim[0] < 1 || facts->dim[0] > 7)
        return nf_message_set(message, "%s: dim[0] is %" PRId64 ", must be 1..7", path, facts->dim[0]);
    for (int i = 1; i <= facts->dim[0]; i++) {
        dim[i] = facts->dim[i];
        if (dim[i] < 1 || dim[i] > NF_VOLUME_MAX_VOXELS / product)
            return nf_message_set(
                message, "%s: dim[%d] is %" PRId64 ": must be at least 1 and the product of all at most %" PRId64, path,
                i, dim[i], NF_VOLUME_MAX_VOXELS);
        product *= dim[i];
    }
    for (int i = 0; i < 3; i++)
        volume->extents[i] = dim[3 - i];
    volume->count = dim[4] * dim[5] * dim[6] * dim[7];
    return true;
}

static bool is_real_type(int64_t datatype)
{
    switch (datatype) {
    case NIFTI_TYPE_UINT8:
    case NIFTI_TYPE_INT8:
    case NIFTI_TYPE_UINT16:
    case NIFTI_TYPE_INT16:
    case NIFTI_TYPE_UINT32:
    case NIFTI_TYPE_INT32:
    case NIFTI_TYPE_UINT64:
    case NIFTI_TYPE_INT64:
    case NIFTI_TYPE_FLOAT32:
    case NIFTI_TYPE_FLOAT64:
        return true;
    default:
        return false;
    }
}

static bool check_facts(nf_volume *volume, const nifti_facts *facts, const char *path, nf_message *message)
{
    int bytes = 0, swap_size = 0;
    if (!is_real_type(facts->datatype))
        return nf_message_set(message, "%s: datatype is %" PRId64 " (%s), must be a real type of at most 64 bits", path,
                              facts->datatype, nifti_datatype_to_string((int)facts->datatype));
    nifti_datatype_sizes((int)facts->datatype, &bytes, &swap_size);
    if (facts->bitpix != 8 * bytes)
        return nf_message_set(message, "%s: bitpix is %" PRId64 ", must be %d for datatype %" PRId64, path,
                              facts->bitpix, 8 * bytes, facts->datatype);
    const double least = volume->version == 1 ? 352 : 544;
    if (!(facts->voxel_offset >= least && facts->voxel_offset <= (double)NF_VOLUME_MAX_HEADER) ||
        facts->voxel_offset != floor(facts->voxel_offset))
        return nf_message_set(message, "%s: vox_offset is %g, must be a whole number in %.0f..%" PRId64, path,
                              facts->voxel_offset, least, NF_VOLUME_MAX_HEADER);
    if (!isfinite(facts->slope) || !isfinite(facts->intercept))
        return nf_message_set(message, "%s: scl_slope %g and scl_inter %g must be finite", path, facts->slope,
                              facts->intercept);
    volume->header_bytes = (size_t)facts->voxel_offset;
    return check_dimensions(volume, facts, path, message);
}

static bool read_header(nf_volume *volume, nifti_facts *facts, znzFile file, const char *path, nf_message *message)
{
    nifti_2_header raw;
    if (!read_fixed_header(volume, file, &raw, path, message))
        return false;
    const size_t fixed = volume->version == 1 ? sizeof(nifti_1_header) : sizeof(nifti_2_header);
    if (volume->version == 1) {
        nifti_1_header first;
        memcpy(&first, &raw, sizeof first);
        facts_of_1(first, volume->swapped, facts);
    } else {
        facts_of_2(raw, volume->swapped, facts);
    }
    if (!check_facts(volume, facts, path, message))
        return false;
    volume->header = malloc(volume->header_bytes);
    if (!volume->header)
        return nf_message_set(message, "%s: not enough memory", path);
    memcpy(volume->header, &raw, fixed);
    if (!read_bytes(file, volume->header + fixed, volume->header_bytes - fixed))
        return ends_early(path, "no voxels", message);
    return true;
}

#define CONVERT(type)                                                                                                  \
    do {                                                                                                               \
        for (size_t i = 0; i < count; i++) {                                                                           \
            type value;                                                                                                \
            memcpy(&value, from + i * sizeof value, sizeof value);                                                     \
            to[i] = (float)(slope * (double)value + facts->intercept);                                                 \
        }                                                                                                              \
    } while (0)

/* from may have any alignment. A slope of 0 means that the file does not scale. */
static void to_floats(const nifti_facts *raw_facts, const char *from, size_t count, float *to)
{
    const nifti_facts unscaled = {.datatype = raw_facts->datatype}, *facts = raw_facts;
    const double slope = facts->slope != 0 ? facts->slope : 1;
    if (facts->slope == 0)
        facts = &unscaled;
    switch (facts->datatype) {
    case NIFTI_TYPE_UINT8:
        CONVERT(uint8_t);
        break;
    case NIFTI_TYPE_INT8:
        CONVERT(int8_t);
        break;
    case NIFTI_TYPE_UINT16:
        CONVERT(uint16_t);
        break;
    case NIFTI_TYPE_INT16:
        CONVERT(int16_t);
        break;
    case NIFTI_TYPE_UINT32:
        CONVERT(uint32_t);
        break;
    case NIFTI_TYPE_INT32:
        CONVERT(int32_t);
        break;
    case NIFTI_TYPE_UINT64:
        CONVERT(uint64_t);
        break;
    case NIFTI_TYPE_INT64:
        CONVERT(int64_t);
        break;
    case NIFTI_TYPE_FLOAT32:
        CONVERT(float);
        break;
    default:
        CONVERT(double);
        break;
    }
}

static bool read_voxels(nf_volume *volume, const nifti_facts *facts, znzFile file, const char *path,
                        nf_message *message)
{
    enum { CHUNK = 1 << 16 }; /* voxels */
    static const char where[] = "not as many voxels as dim says";
    const int64_t total = nf_volume_voxels(volume) * volume->count;
    const size_t width = (size_t)facts->bitpix / 8;
    volume->data = malloc((size_t)total * sizeof *volume->data);
    char *const bytes = malloc(CHUNK * width);
    bool done = volume->data && bytes;
    if (!done)
        nf_message_set(message, "%s: not enough memory for %" PRId64 " voxels", path, total);
    for (int64_t at = 0; done && at < total; at += CHUNK) {
        const size_t count = (size_t)(total - at < CHUNK ? total - at : CHUNK);
        float *const to = volume->data + at;
        done = read_bytes(file, bytes, count * width) || ends_early(path, where, message);
        if (done && volume->swapped && width > 1)
            nifti_swap_Nbytes((int64_t)count, (int)width, bytes);
        if (done)
            to_floats(facts, bytes, count, to);
        for (size_t i = 0; done && i < count; i++)
            if (!isfinite(to[i]))
                done = nf_message_set(message, "%s: voxel %" PRId64 " is %g: all must be finite", path, at + (int64_t)i,
                                      (double)to[i]);
    }
    free(bytes);
    return done;
}

/* Reads past the voxels, so that a damaged gzip tail shows; znzread's errors are sizes no read can have. */
static bool check_tail(znzFile file, const char *path, nf_message *message)
{
    char byte;
    return znzread(&byte, 1, 1, file) <= 1 || ends_early(path, "its gzip stream is broken", message);
}

bool nf_volume_read(nf_volume *volume, const char *path, nf_message *message)
{
    nf_volume made = {0};
    nifti_facts facts = {0};
    znzFile file = znzopen(path, "rb", 1); /* reads plain files too, whatever their names */
    if (znz_isnull(file))
        return nf_message_set(message, "%s: cannot open: %s", path, errno ? strerror(errno) : "no reason given");
    bool done = read_header(&made, &facts, file, path, message) && read_voxels(&made, &facts, file, path, message) &&
                check_tail(file, path, message);
    if (znzclose(file) != 0 && done)
        done = ends_early(path, "its gzip stream is broken", message);
    if (done)
        *volume = made;
    else
        nf_volume_destroy(&made);
    return done;
}

/* Only the fields that say how voxels are stored change. */
#define SAY_FLOAT32(type)                                                                                              \
    do {                                                                                                               \
        type fields;                                                                                                   \
        memcpy(&fields, header, sizeof fields);                                                                        \
        if (volume->swapped)                                                                                           \
            swap_nifti_header(&fields, volume->version);                                                               \
        fields.datatype = NIFTI_TYPE_FLOAT32;                                                                          \
        fields.bitpix = 32;                                                                                            \
        fields.scl_slope = 1;                                                                                          \
        fields.scl_inter = 0;                                                                                          \
        if (volume->swapped)                                                                                           \
            swap_nifti_header(&fields, volume->version);                                                               \
        memcpy(header, &fields, sizeof fields);                                                                        \
    } while (0)

static void say_float32(const nf_volume *volume, unsigned char *header)
{
    if (volume->version == 1)
        SAY_FLOAT32(nifti_1_header);
    else
        SAY_FLOAT32(nifti_2_header);
}

static bool write_bytes(znzFile file, const void *from, size_t bytes)
{
    return znzwrite(from, 1, bytes, file) == bytes;
}

static bool write_voxels(const nf_volume *volume, znzFile file)
{
    enum { CHUNK = 1 << 16 };
    const int64_t total = nf_volume_voxels(volume) * volume->count;
    float *const buffer = malloc(CHUNK * sizeof *buffer);
    bool done = buffer != NULL;
    for (int64_t at = 0; done && at < total; at += CHUNK) {
        const int64_t count = total - at < CHUNK ? total - at : CHUNK;
        memcpy(buffer, volume->data + at, (size_t)count * sizeof *buffer);
        if (volume->swapped)
            nifti_swap_4bytes(count, buffer);
        done = write_bytes(file, buffer, (size_t)count * sizeof *buffer);
    }
    free(buffer);
    return done;
}

bool nf_volume_write(const nf_volume *volume, nf_output *output, nf_message *message)
{
    znzFile file = znzopen(output->temporary, "wb", nf_path_ends(output->path, ".gz"));
    unsigned char *const header = malloc(volume->header_bytes);
    bool done = !znz_isnull(file) && header;
    if (done) {
        memcpy(header, volume->header, volume->header_bytes);
        say_float32(volume, header);
        done = write_bytes(file, header, volume->header_bytes) && write_voxels(volume, file);
    }
    if (!znz_isnull(file))
        done = znzclose(file) == 0 && done;
    free(header);
    return done ||
           nf_message_set(message, "%s: cannot write: %s", output->path, errno ? strerror(errno) : "unknown reason");
}

#else

bool nf_volume_read(nf_volume *volume, const char *path, nf_message *message)
{
    (void)volume;
    return nf_message_set(message, "%s: reading NIfTI needs libnifti2, which this program was built without", path);
}

bool nf_volume_write(const nf_volume *volume, nf_output *output, nf_message *message)
{
    (void)volume;
    return nf_message_set(message, "%s: writing NIfTI needs libnifti2, which this program was built without",
                          output->path);
}

#endif
