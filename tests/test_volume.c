/* Volumes: every type, byte order, scaling and version of NIfTI is read, headers survive, damaged files are refused. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "volume.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "denoise_damage.h"
#include "harness.h"

#ifndef HAVE_LIBNIFTI2
#define NEEDS_NIFTI NF_SKIP("built without libnifti2")
#else
#define NEEDS_NIFTI ((void)0)
#endif

enum { X = 3, Y = 2, Z = 2, VOXELS = X * Y * Z, EXTENSION = 32, ROOM = 1024 };

static char folder[] = "/tmp/nearfield-volume-XXXXXX";
static char path[sizeof folder + 16], packed[sizeof folder + 16];

static void setup(void)
{
    strcpy(strstr(folder, "volume-") + 7, "XXXXXX");
    ck_assert(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/file.nii", folder);
    snprintf(packed, sizeof packed, "%s/file.nii.gz", folder);
}

static void teardown(void)
{
    unlink(path);
    unlink(packed);
    rmdir(folder);
}

/* A file under construction, from the published tables of offsets, independent of any library. */
typedef struct file {
    unsigned char bytes[ROOM];
    size_t length;
    int version;
    bool swapped;
} file;

static void put(file *f, size_t at, const void *value, size_t width)
{
    const unsigned char *const from = value;
    for (size_t i = 0; i < width; i++)
        f->bytes[at + i] = from[f->swapped ? width - 1 - i : i];
}

static void put16(file *f, size_t at, int16_t value)
{
    put(f, at, &value, sizeof value);
}

static void put32(file *f, size_t at, int32_t value)
{
    put(f, at, &value, sizeof value);
}

static void put64(file *f, size_t at, int64_t value)
{
    put(f, at, &value, sizeof value);
}

static void put_float(file *f, size_t at, float value)
{
    put(f, at, &value, sizeof value);
}

static void put_double(file *f, size_t at, double value)
{
    put(f, at, &value, sizeof value);
}

static void put_dim(file *f, size_t index, int64_t value)
{
    if (f->version == 1)
        put16(f, 40 + 2 * index, (int16_t)value);
    else
        put64(f, 16 + 8 * index, value);
}

static size_t voxels_begin(const file *f)
{
    return (f->version == 1 ? 352 : 544) + EXTENSION;
}

/* A header for X x Y x Z voxels, with an extension behind it and a mark in the description. */
static void start_file(file *f, int version, bool swapped, int datatype, int width, double slope, double intercept)
{
    *f = (file){.version = version, .swapped = swapped};
    if (version == 1) {
        put32(f, 0, 348);
        put16(f, 70, (int16_t)datatype);
        put16(f, 72, (int16_t)(8 * width));
        put_float(f, 108, (float)voxels_begin(f));
        put_float(f, 112, (float)slope);
        put_float(f, 116, (float)intercept);
        memcpy(f->bytes + 148, "a mark", 6);
        memcpy(f->bytes + 344, "n+1", 4);
        f->bytes[348] = 1;
    } else {
        put32(f, 0, 540);
        memcpy(f->bytes + 4, "n+2\0\r\n\032\n", 8);
        put16(f, 12, (int16_t)datatype);
        put16(f, 14, (int16_t)(8 * width));
        put64(f, 168, (int64_t)voxels_begin(f));
        put_double(f, 176, slope);
        put_double(f, 184, intercept);
        memcpy(f->bytes + 240, "a mark", 6);
        f->bytes[540] = 1;
    }
    put32(f, voxels_begin(f) - EXTENSION, EXTENSION);
    put_dim(f, 0, 3);
    put_dim(f, 1, X);
    put_dim(f, 2, Y);
    put_dim(f, 3, Z);
    f->length = voxels_begin(f) + (size_t)(VOXELS * width);
}

#define PUT_VOXEL(type, expression)                                                                                    \
    do {                                                                                                               \
        const type voxel = (type)(expression);                                                                         \
        put(f, at, &voxel, sizeof voxel);                                                                              \
        return (double)voxel;                                                                                          \
    } while (0)

/* Voxel i of a type; unsigned types get large values, signed ones negative ones. */
static double put_voxel(file *f, int datatype, int width, int i)
{
    const size_t at = voxels_begin(f) + (size_t)(i * width);
    const int64_t small = 5 * i - 20;
    switch (datatype) {
    case 2: PUT_VOXEL(uint8_t, 200 + i);
    case 256: PUT_VOXEL(int8_t, small);
    case 512: PUT_VOXEL(uint16_t, 65000 + i);
    case 4: PUT_VOXEL(int16_t, 300 * small);
    case 768: PUT_VOXEL(uint32_t, UINT32_C(0x90000000) + (uint32_t)i * 4096);
    case 8: PUT_VOXEL(int32_t, 65536 * small);
    case 1280: PUT_VOXEL(uint64_t, (UINT64_C(1) << 63) + ((uint64_t)i << 50));
    case 1024: PUT_VOXEL(int64_t, small * (INT64_C(1) << 40));
    case 16: PUT_VOXEL(float, (double)small / 8);
    default: PUT_VOXEL(double, (double)small / 16);
    }
}

static void store(const file *f)
{
    damage_store(path, f->bytes, f->length);
}

static nf_volume load(const char *name)
{
    nf_message message = {""};
    nf_volume volume = {0};
    ck_assert_msg(nf_volume_read(&volume, name, &message), "%s", message.text);
    return volume;
}

static void save(const nf_volume *volume, const char *name)
{
    nf_message message = {""};
    nf_output output;
    ck_assert_msg(nf_output_open(&output, name, &message), "%s", message.text);
    ck_assert_msg(nf_volume_write(volume, &output, &message), "%s", message.text);
    ck_assert_msg(nf_output_commit(&output, &message), "%s", message.text);
}

static const struct {
    int code, width;
} types[] = {{2, 1}, {256, 1}, {512, 2}, {4, 2}, {768, 4}, {8, 4}, {1280, 8}, {1024, 8}, {16, 4}, {64, 8}};

START_TEST(all_types_are_read)
{
    NEEDS_NIFTI;
    for (int version = 1; version <= 2; version++)
        for (int swapped = 0; swapped <= 1; swapped++)
            for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
                file f;
                double expected[VOXELS];
                start_file(&f, version, swapped, types[t].code, types[t].width, 2, 0.5);
                for (int i = 0; i < VOXELS; i++)
                    expected[i] = 2 * put_voxel(&f, types[t].code, types[t].width, i) + 0.5;
                store(&f);
                nf_volume volume = load(path);
                ck_assert(volume.extents[0] == Z && volume.extents[1] == Y && volume.extents[2] == X &&
                          volume.count == 1);
                for (int i = 0; i < VOXELS; i++)
                    ck_assert_float_eq(volume.data[i], (float)expected[i]);
                nf_volume_destroy(&volume);
            }
}
END_TEST

START_TEST(slope_zero_means_unscaled)
{
    NEEDS_NIFTI;
    file f;
    start_file(&f, 1, false, 4, 2, 0, 17);
    const double first = put_voxel(&f, 4, 2, 0);
    store(&f);
    nf_volume volume = load(path);
    ck_assert_float_eq(volume.data[0], (float)first);
    nf_volume_destroy(&volume);
}
END_TEST

/* Writing changes the fields that say how voxels are stored, and nothing else; packed or not. */
START_TEST(headers_survive)
{
    NEEDS_NIFTI;
    for (int variant = 0; variant < 8; variant++) {
        file f;
        const char *const name = variant & 4 ? packed : path;
        start_file(&f, 1 + (variant & 1), variant & 2, 4, 2, 3, -1);
        for (int i = 0; i < VOXELS; i++)
            put_voxel(&f, 4, 2, i);
        store(&f);
        nf_volume volume = load(path), back;
        save(&volume, name);
        back = load(name);
        file expected = f;
        if (f.version == 1) {
            put16(&expected, 70, 16);
            put16(&expected, 72, 32);
            put_float(&expected, 112, 1);
            put_float(&expected, 116, 0);
        } else {
            put16(&expected, 12, 16);
            put16(&expected, 14, 32);
            put_double(&expected, 176, 1);
            put_double(&expected, 184, 0);
        }
        ck_assert_uint_eq(back.header_bytes, voxels_begin(&f));
        ck_assert_mem_eq(back.header, expected.bytes, back.header_bytes);
        ck_assert_mem_eq(back.data, volume.data, VOXELS * sizeof(float));
        nf_volume_destroy(&volume);
        nf_volume_destroy(&back);
    }
    size_t length;
    unsigned char *const bytes = damage_load(packed, &length);
    ck_assert(bytes[0] == 0x1f && bytes[1] == 0x8b);
    free(bytes);
}
END_TEST

START_TEST(series_are_read)
{
    NEEDS_NIFTI;
    file f;
    start_file(&f, 1, false, 2, 1, 0, 0);
    put_dim(&f, 0, 5);
    put_dim(&f, 3, 1);
    put_dim(&f, 4, 1);
    put_dim(&f, 5, 2);
    store(&f);
    nf_volume volume = load(path);
    ck_assert(volume.count == 2 && volume.extents[0] == 1);
    nf_volume_destroy(&volume);
}
END_TEST

typedef struct refusal {
    const char *words;
    size_t at; /* in a NIfTI-1 header */
    char kind; /* what is put there: s int16, i int32, f float, m the magic "ni1" */
    double value;
} refusal;

START_TEST(bad_headers_are_refused)
{
    NEEDS_NIFTI;
    static const refusal refusals[] = {
        {"sizeof_hdr is 349", 0, 'i', 349},
        {"voxels in another file", 344, 'm', 0},
        {"magic must be n+1", 344, 's', 0x2b78},
        {"dim[0] is 0", 40, 's', 0},
        {"dim[0] is 8", 40, 's', 8},
        {"dim[0] is -1", 40, 's', -1},
        {"dim[2] is 0", 44, 's', 0},
        {"dim[3] is -5", 46, 's', -5},
        {"not as many voxels as dim says", 42, 's', 32767},
        {"datatype is 0", 70, 's', 0},
        {"datatype is 1 (", 70, 's', 1},
        {"datatype is 32 (NIFTI_TYPE_COMPLEX64)", 70, 's', 32},
        {"datatype is 128 (NIFTI_TYPE_RGB24)", 70, 's', 128},
        {"datatype is 1536 (NIFTI_TYPE_FLOAT128)", 70, 's', 1536},
        {"datatype is -7", 70, 's', -7},
        {"bitpix is 8, must be 16", 72, 's', 8},
        {"vox_offset is 0", 108, 'f', 0},
        {"vox_offset is 351", 108, 'f', 351},
        {"vox_offset is 352.5", 108, 'f', 352.5},
        {"vox_offset is 1e+30", 108, 'f', 1e30},
        {"vox_offset is nan", 108, 'f', (double)__builtin_nanf("")},
        {"scl_slope inf", 112, 'f', (double)__builtin_inff()},
        {"scl_inter nan", 116, 'f', (double)__builtin_nanf("")},
        {"no voxels", 108, 'f', 1e6},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const refusal *const r = &refusals[i];
        nf_message message = {""};
        nf_volume volume = {0};
        file f;
        start_file(&f, 1, false, 4, 2, 1, 0);
        if (r->kind == 's')
            put16(&f, r->at, (int16_t)r->value);
        else if (r->kind == 'i')
            put32(&f, r->at, (int32_t)r->value);
        else if (r->kind == 'f')
            put_float(&f, r->at, (float)r->value);
        else
            memcpy(f.bytes + r->at, "ni1", 4);
        store(&f);
        ck_assert_msg(!nf_volume_read(&volume, path, &message), "accepted: %s", r->words);
        ck_assert_msg(strstr(message.text, r->words) && strstr(message.text, path), "%s: %s", r->words, message.text);
        ck_assert(volume.data == NULL && volume.header == NULL);
    }
}
END_TEST

START_TEST(huge_volumes_are_refused)
{
    NEEDS_NIFTI;
    static const int64_t dims[][3] = {{INT64_MAX, 1, 1},
                                      {INT64_MAX, INT64_MAX, INT64_MAX},
                                      {1 << 15, 1 << 14, 1},
                                      {INT64_C(1) << 32, INT64_C(1) << 32, 1}};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        nf_message message = {""};
        nf_volume volume;
        file f;
        start_file(&f, 2, false, 2, 1, 1, 0);
        for (size_t a = 0; a < 3; a++)
            put_dim(&f, 1 + a, dims[i][a]);
        store(&f);
        ck_assert(!nf_volume_read(&volume, path, &message));
        ck_assert_msg(strstr(message.text, "the product of all at most"), "%s", message.text);
    }
}
END_TEST

START_TEST(infinite_voxels_are_refused)
{
    NEEDS_NIFTI;
    nf_message message = {""};
    nf_volume volume;
    file f;
    start_file(&f, 1, false, 16, 4, 1, 0);
    put_float(&f, voxels_begin(&f) + 4 * 5, __builtin_nanf(""));
    store(&f);
    ck_assert(!nf_volume_read(&volume, path, &message));
    ck_assert_msg(strstr(message.text, "voxel 5 is nan"), "%s", message.text);
}
END_TEST

static bool read_volume(const char *name, nf_message *message)
{
    nf_volume volume = {0};
    const bool done = nf_volume_read(&volume, name, message);
    nf_volume_destroy(&volume);
    return done;
}

static void make_both(int version)
{
    file f;
    start_file(&f, version, false, 4, 2, 1, 0);
    for (int i = 0; i < VOXELS; i++)
        put_voxel(&f, 4, 2, i);
    store(&f);
    nf_volume volume = load(path);
    save(&volume, packed);
    nf_volume_destroy(&volume);
}

START_TEST(truncated_volumes_are_refused)
{
    NEEDS_NIFTI;
    for (int version = 1; version <= 2; version++) {
        make_both(version);
        for (int both = 0; both < 2; both++) {
            const char *const name = both ? packed : path;
            size_t length;
            unsigned char *const bytes = damage_load(name, &length);
            damage_truncate(read_volume, name, bytes, length);
            free(bytes);
        }
    }
}
END_TEST

START_TEST(damaged_volumes_do_not_crash)
{
    NEEDS_NIFTI;
    for (int version = 1; version <= 2; version++) {
        make_both(version);
        for (int both = 0; both < 2; both++) {
            const char *const name = both ? packed : path;
            size_t length;
            unsigned char *const bytes = damage_load(name, &length);
            damage_flip(read_volume, NULL, name, bytes, length, (uint64_t)(31 + 2 * version + both), 400);
            free(bytes);
        }
    }
}
END_TEST

int main(void)
{
    Suite *const suite = suite_create("volume");
    TCase *const tcase = tcase_create("volume");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, all_types_are_read);
    tcase_add_test(tcase, slope_zero_means_unscaled);
    tcase_add_test(tcase, headers_survive);
    tcase_add_test(tcase, series_are_read);
    tcase_add_test(tcase, bad_headers_are_refused);
    tcase_add_test(tcase, huge_volumes_are_refused);
    tcase_add_test(tcase, infinite_voxels_are_refused);
    tcase_add_test(tcase, truncated_volumes_are_refused);
    tcase_add_test(tcase, damaged_volumes_do_not_crash);
    suite_add_tcase(suite, tcase);
    return nf_test_main(suite);
}
