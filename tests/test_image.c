/* Pictures: what is written is read again, formats of all kinds are expanded, damaged and hostile files are refused. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "image.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef HAVE_LIBPNG
#include <png.h>
#endif
#ifdef HAVE_LIBJPEG
#include <jpeglib.h>
#endif

#include "denoise_damage.h"
#include "harness.h"
#include "noise.h"

#ifndef HAVE_LIBPNG
#define NEEDS_PNG NF_SKIP("built without libpng")
#else
#define NEEDS_PNG ((void)0)
#endif
#ifndef HAVE_LIBJPEG
#define NEEDS_JPEG NF_SKIP("built without libjpeg")
#else
#define NEEDS_JPEG ((void)0)
#endif

static char folder[] = "/tmp/nearfield-image-XXXXXX";
static char path[sizeof folder + 16];

static void setup(void)
{
    strcpy(strstr(folder, "image-") + 6, "XXXXXX");
    ck_assert(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/file", folder);
}

static void teardown(void)
{
    unlink(path);
    rmdir(folder);
}

static bool read_png(const char *name, nf_message *message)
{
    nf_image image = {0};
    const bool done = nf_image_read_png(&image, name, message);
    nf_image_destroy(&image);
    return done;
}

static bool read_jpeg(const char *name, nf_message *message)
{
    nf_image image = {0};
    const bool done = nf_image_read_jpeg(&image, name, message);
    nf_image_destroy(&image);
    return done;
}

/* A picture of samples that its depth holds exactly. */
static nf_image random_image(int64_t width, int64_t height, int channels, int bits, uint64_t seed)
{
    nf_message message;
    nf_image image;
    nf_random random = {seed};
    const uint64_t top = bits == 8 ? 255 : 65535;
    ck_assert(nf_image_create(&image, width, height, channels, bits, path, &message));
    for (int64_t i = 0; i < width * height * channels; i++)
        image.data[i] = (float)(nf_random_bits(&random) % (top + 1)) / (float)top;
    return image;
}

static void store_image(const nf_image *image)
{
    nf_message message = {""};
    nf_output output;
    ck_assert_msg(nf_output_open(&output, path, &message), "%s", message.text);
    ck_assert_msg(nf_image_write_png(image, &output, &message), "%s", message.text);
    ck_assert_msg(nf_output_commit(&output, &message), "%s", message.text);
}

START_TEST(png_round_trips)
{
    NEEDS_PNG;
    for (int bits = 8; bits <= 16; bits += 8)
        for (int channels = 1; channels <= 4; channels++) {
            nf_message message = {""};
            nf_image back = {0}, image = random_image(13, 7, channels, bits, (uint64_t)(bits + channels));
            store_image(&image);
            ck_assert_msg(nf_image_read_png(&back, path, &message), "%s", message.text);
            ck_assert(back.width == 13 && back.height == 7 && back.channels == channels && back.bits == bits);
            ck_assert_mem_eq(back.data, image.data, sizeof *back.data * 13 * 7 * (size_t)channels);
            nf_image_destroy(&back);
            nf_image_destroy(&image);
        }
}
END_TEST

START_TEST(samples_are_clamped_and_rounded)
{
    NEEDS_PNG;
    const float samples[6] = {-1, 2, NAN, 0.5f, 1.4f / 255, 1.6f / 255},
                stored[6] = {0, 1, 0, 128.0f / 255, 1.0f / 255, 2.0f / 255};
    nf_message message = {""};
    nf_image back = {0}, image = random_image(6, 1, 1, 8, 1);
    memcpy(image.data, samples, sizeof samples);
    store_image(&image);
    ck_assert(nf_image_read_png(&back, path, &message));
    ck_assert_mem_eq(back.data, stored, sizeof stored);
    nf_image_destroy(&back);
    nf_image_destroy(&image);
}
END_TEST

#ifdef HAVE_LIBPNG
/* Writes a 4x4 picture whose bytes are all 0x1b, in any colour type and depth, interlaced, with a palette if it needs
 * one. */
static void store_odd_png(int colour_type, int depth, bool transparent)
{
    static png_color palette[4] = {{10, 20, 30}, {40, 50, 60}, {70, 80, 90}, {255, 0, 128}};
    static png_byte row[8] = {0x1b, 0x1b, 0x1b, 0x1b, 0x1b, 0x1b, 0x1b, 0x1b};
    FILE *const file = fopen(path, "wb");
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, file);
    png_set_IHDR(png, info, 4, 4, depth, colour_type, PNG_INTERLACE_ADAM7, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (colour_type == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, palette, 4);
    if (transparent)
        png_set_tRNS(png, info, (png_bytep) "\xff\x80\x00\xff", 4, NULL);
    png_write_info(png, info);
    const int passes = png_set_interlace_handling(png);
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < 4; y++)
            png_write_row(png, row);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    fclose(file);
}

static nf_image odd_png(int colour_type, int depth, bool transparent)
{
    nf_message message = {""};
    nf_image image = {0};
    store_odd_png(colour_type, depth, transparent);
    ck_assert_msg(nf_image_read_png(&image, path, &message), "%s", message.text);
    ck_assert(image.width == 4 && image.height == 4 && image.bits == 8);
    return image;
}

static void check_samples(const nf_image *image, int pixel, const int *samples)
{
    for (int c = 0; c < image->channels; c++)
        ck_assert_float_eq(image->data[pixel * image->channels + c], (float)samples[c] / 255);
}
#endif

START_TEST(palettes_and_few_bits_are_expanded)
{
    NEEDS_PNG;
#ifdef HAVE_LIBPNG
    nf_image image = odd_png(PNG_COLOR_TYPE_GRAY, 2, false); /* 0x1b is 0, 1, 2, 3 */
    ck_assert_int_eq(image.channels, 1);
    for (int x = 0; x < 4; x++)
        check_samples(&image, x, (const int[]){85 * x});
    nf_image_destroy(&image);
    image = odd_png(PNG_COLOR_TYPE_PALETTE, 2, false);
    ck_assert_int_eq(image.channels, 3);
    check_samples(&image, 3, (const int[]){255, 0, 128});
    check_samples(&image, 13, (const int[]){40, 50, 60});
    nf_image_destroy(&image);
    image = odd_png(PNG_COLOR_TYPE_PALETTE, 2, true);
    ck_assert_int_eq(image.channels, 4);
    check_samples(&image, 1, (const int[]){40, 50, 60, 128});
    nf_image_destroy(&image);
#endif
}
END_TEST

/* CRC-32 of every chunk made right, so that changed bytes get past it. */
static void repair_png(unsigned char *bytes, size_t length)
{
    size_t at = 8;
    while (at + 12 <= length) {
        const size_t size =
            (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (size > length - at - 12)
            return;
        uint32_t crc = UINT32_MAX;
        for (size_t i = at + 4; i < at + 8 + size; i++) {
            crc ^= bytes[i];
            for (int bit = 0; bit < 8; bit++)
                crc = (crc >> 1) ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
        }
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + size + (size_t)i] = (unsigned char)(~crc >> (24 - 8 * i));
        at += 12 + size;
    }
}

static unsigned char *small_png(size_t *length)
{
    nf_image image = random_image(6, 5, 3, 8, 7);
    store_image(&image);
    nf_image_destroy(&image);
    return damage_load(path, length);
}

START_TEST(truncated_png_is_refused)
{
    NEEDS_PNG;
    size_t length;
    unsigned char *const bytes = small_png(&length);
    damage_truncate(read_png, path, bytes, length);
    free(bytes);
}
END_TEST

START_TEST(damaged_png_does_not_crash)
{
    NEEDS_PNG;
    size_t length;
    unsigned char *const bytes = small_png(&length);
    damage_flip(read_png, NULL, path, bytes, length, 11, 300);
    damage_flip(read_png, repair_png, path, bytes, length, 12, 700);
    free(bytes);
}
END_TEST

START_TEST(huge_png_is_refused)
{
    NEEDS_PNG;
    static const unsigned char sides[][8] = {{0, 0, 0x80, 1, 0, 0, 0, 1},    /* 32769 x 1 */
                                             {0, 0, 0x80, 0, 0, 0, 0x80, 0}, /* 32768 x 32768: too many pixels */
                                             {0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff},
                                             {0, 0, 0, 0, 0, 0, 0, 1}};
    size_t length;
    unsigned char *const bytes = small_png(&length);
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        memcpy(bytes + 16, sides[i], 8);
        repair_png(bytes, length);
        damage_store(path, bytes, length);
        ck_assert(!damage_try(read_png, path));
    }
    free(bytes);
}
END_TEST

#ifdef HAVE_LIBJPEG
/* A gradient of 16x11 pixels, all components alike. */
static unsigned char *make_jpeg(int components, bool progressive, unsigned long *length)
{
    struct jpeg_error_mgr errors;
    struct jpeg_compress_struct jpeg;
    unsigned char *bytes = NULL;
    *length = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, length);
    jpeg.image_width = 16;
    jpeg.image_height = 11;
    jpeg.input_components = components;
    jpeg.in_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 100, TRUE);
    if (progressive)
        jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < 11; y++) {
        JSAMPLE row[16 * 4], *rows[] = {row};
        for (int i = 0; i < 16 * components; i++)
            row[i] = (JSAMPLE)(10 * y + 6 * (i / components));
        jpeg_write_scanlines(&jpeg, rows, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    damage_store(path, bytes, *length);
    return bytes;
}
#endif

START_TEST(jpeg_is_read)
{
    NEEDS_JPEG;
#ifdef HAVE_LIBJPEG
    for (int variant = 0; variant < 4; variant++) {
        const int components = variant % 2 ? 3 : 1;
        nf_message message = {""};
        nf_image image = {0};
        unsigned long length;
        free(make_jpeg(components, variant >= 2, &length));
        ck_assert_msg(nf_image_read_jpeg(&image, path, &message), "%s", message.text);
        ck_assert(image.width == 16 && image.height == 11 && image.channels == components && image.bits == 8);
        for (int i = 0; i < 16 * 11 * components; i++) {
            const int pixel = i / components;
            ck_assert_float_eq_tol(image.data[i] * 255, (float)(10 * (pixel / 16) + 6 * (pixel % 16)), 4);
        }
        nf_image_destroy(&image);
    }
#endif
}
END_TEST

START_TEST(cmyk_jpeg_is_refused)
{
    NEEDS_JPEG;
#ifdef HAVE_LIBJPEG
    nf_message message = {""};
    unsigned long length;
    free(make_jpeg(4, false, &length));
    ck_assert(!read_jpeg(path, &message));
    ck_assert(strstr(message.text, "4 colour components") != NULL);
#endif
}
END_TEST

START_TEST(truncated_jpeg_is_refused)
{
    NEEDS_JPEG;
#ifdef HAVE_LIBJPEG
    for (int variant = 0; variant < 2; variant++) {
        unsigned long length;
        unsigned char *const bytes = make_jpeg(3, variant == 1, &length);
        damage_truncate(read_jpeg, path, bytes, length);
        free(bytes);
    }
#endif
}
END_TEST

START_TEST(damaged_jpeg_does_not_crash)
{
    NEEDS_JPEG;
#ifdef HAVE_LIBJPEG
    for (int variant = 0; variant < 2; variant++) {
        unsigned long length;
        unsigned char *const bytes = make_jpeg(3, variant == 1, &length);
        damage_flip(read_jpeg, NULL, path, bytes, length, (uint64_t)(21 + variant), 600);
        free(bytes);
    }
#endif
}
END_TEST

START_TEST(other_files_are_refused)
{
    nf_message message = {""};
    ck_assert(!read_png("/nonexistent/x.png", &message) && strstr(message.text, "/nonexistent/x.png"));
    ck_assert(!read_jpeg("/nonexistent/x.jpg", &message) && strstr(message.text, "/nonexistent/x.jpg"));
    ck_assert(!read_png(folder, &message) && strstr(message.text, folder));
    ck_assert(!read_jpeg(folder, &message) && strstr(message.text, folder));
}
END_TEST

START_TEST(outputs_appear_when_complete)
{
    nf_message message = {""};
    nf_output output;
    ck_assert(nf_output_open(&output, path, &message));
    ck_assert(access(path, F_OK) != 0);
    nf_output_discard(&output);
    ck_assert(access(path, F_OK) != 0);
    ck_assert(nf_output_open(&output, path, &message));
    ck_assert(nf_output_commit(&output, &message));
    ck_assert(access(path, R_OK) == 0);
    ck_assert(!nf_output_open(&output, folder, &message) && strstr(message.text, "regular file"));
    ck_assert(!nf_output_open(&output, "/nonexistent/x.png", &message) && strstr(message.text, "cannot create"));
    nf_output_discard(&output);
}
END_TEST

int main(void)
{
    Suite *const suite = suite_create("image");
    TCase *const tcase = tcase_create("image");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, png_round_trips);
    tcase_add_test(tcase, samples_are_clamped_and_rounded);
    tcase_add_test(tcase, palettes_and_few_bits_are_expanded);
    tcase_add_test(tcase, truncated_png_is_refused);
    tcase_add_test(tcase, damaged_png_does_not_crash);
    tcase_add_test(tcase, huge_png_is_refused);
    tcase_add_test(tcase, jpeg_is_read);
    tcase_add_test(tcase, cmyk_jpeg_is_refused);
    tcase_add_test(tcase, truncated_jpeg_is_refused);
    tcase_add_test(tcase, damaged_jpeg_does_not_crash);
    tcase_add_test(tcase, other_files_are_refused);
    tcase_add_test(tcase, outputs_appear_when_complete);
    suite_add_tcase(suite, tcase);
    return nf_test_main(suite);
}
