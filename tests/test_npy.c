/* The .npy reader and writer: round trips, every way a header can be wrong, truncation at every byte, hostile sizes. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../tools/npy.h"
#include "harness.h"

static char directory[] = "/tmp/nearfield-npy-XXXXXX";
static char path[64];

static void setup(void)
{
    strcpy(directory + sizeof(directory) - 7, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/a.npy", directory);
}

static void teardown(void)
{
    unlink(path);
    ck_assert_msg(rmdir(directory) == 0, "files were left in %s", directory);
}

/* A whole file in memory. */
typedef struct image {
    unsigned char bytes[1024];
    size_t length;
} image;

static image make_image(int major, const char *header, size_t data_bytes)
{
    image file = {.bytes = {0x93, 'N', 'U', 'M', 'P', 'Y', (unsigned char)major, 0}};
    const size_t length = strlen(header), digits = major == 1 ? 2 : 4;
    for (size_t i = 0; i < digits; i++)
        file.bytes[8 + i] = (unsigned char)(length >> (8 * i));
    memcpy(file.bytes + 8 + digits, header, length);
    file.length = 8 + digits + length + data_bytes;
    ck_assert(file.length <= sizeof(file.bytes));
    for (size_t i = 0; i < data_bytes; i++)
        file.bytes[8 + digits + length + i] = (unsigned char)i;
    return file;
}

/* Parses a copy that ends where the bytes end, so that a sanitizer sees every step too far. */
static int parse(const void *bytes, size_t length, struct npy *out)
{
    char *copy = malloc(length ? length : 1);
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, length);
    const int result = npy_parse(copy, length, out);
    out->data = NULL;
    free(copy);
    return result;
}

static void refuse(const image *file, const char *reason)
{
    struct npy array;
    ck_assert_int_eq(parse(file->bytes, file->length, &array), -1);
    ck_assert_msg(strstr(array.error, reason), "\"%s\" lacks \"%s\"", array.error, reason);
}

START_TEST(round_trips)
{
    static const npy_type types[] = {NPY_F4, NPY_F8, NPY_F2, NPY_U2};
    static const int64_t extents[NPY_MAX_RANK] = {2, 3, 1, 2, 1, 3, 2};
    unsigned char data[72 * 8];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 7);
    for (size_t t = 0; t < 4; t++) {
        int64_t count = 1;
        for (int rank = 0; rank <= NPY_MAX_RANK; rank++) {
            struct npy_output output;
            struct npy array;
            ck_assert_int_eq(npy_stage(&output, path, types[t], rank, extents, data), 0);
            ck_assert_int_ne(access(path, F_OK), 0);
            ck_assert_int_eq(npy_commit(&output), 0);
            ck_assert_msg(npy_open(path, &array) == 0, "%s", array.error);
            ck_assert_int_eq(array.type, types[t]);
            ck_assert_int_eq(array.rank, rank);
            ck_assert_int_eq(array.count, count);
            ck_assert_mem_eq(array.extents, extents, (size_t)rank * sizeof(*extents));
            ck_assert_mem_eq(array.data, data, (size_t)count * npy_type_size(types[t]));
            if (rank > 0)
                ck_assert_int_eq(array.strides[rank - 1], 1);
            ck_assert_uint_eq((uintptr_t)array.data % 64, 0);
            npy_close(&array);
            unlink(path);
            count *= rank < NPY_MAX_RANK ? extents[rank] : 1;
        }
    }
}
END_TEST

START_TEST(fortran_order_is_strides)
{
    const image file = make_image(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3, 4), }\n", 96);
    struct npy array;
    ck_assert_int_eq(parse(file.bytes, file.length, &array), 0);
    ck_assert_int_eq(array.strides[0], 1);
    ck_assert_int_eq(array.strides[1], 2);
    ck_assert_int_eq(array.strides[2], 6);
    const image c_order = make_image(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }\n", 96);
    ck_assert_int_eq(parse(c_order.bytes, c_order.length, &array), 0);
    ck_assert_int_eq(array.strides[0], 12);
    ck_assert_int_eq(array.strides[1], 4);
    ck_assert_int_eq(array.strides[2], 1);
}
END_TEST

/* Header, bytes of data, rank it must have. */
static const struct {
    const char *header;
    size_t data;
    int rank;
} accepted[] = {
    {"{'descr': '<f8', 'fortran_order': False, 'shape': (), }\n", 8, 0},
    {"{'descr': '<f2', 'fortran_order': False, 'shape': (5,), }\n", 10, 1},
    {"{'shape': (2, 3), 'descr': '<u2', 'fortran_order': True}       \n", 12, 2},
    {"{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2, 3,)}\n", 24, 2},
    {"{'descr':'<f4','fortran_order':False,'shape':(1,1,1,1,1,1,1)}\n", 4, 7},
    {"  { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 1 , 2 ) , } \n", 8, 2},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1152921504606846976), }\n", 0, 2},
};

START_TEST(accepts_every_version_and_spelling)
{
    for (size_t i = 0; i < sizeof(accepted) / sizeof(*accepted); i++) {
        for (int major = 1; major <= 3; major++) {
            const image file = make_image(major, accepted[i].header, accepted[i].data);
            struct npy array;
            ck_assert_msg(parse(file.bytes, file.length, &array) == 0, "%s: %s", accepted[i].header, array.error);
            ck_assert_int_eq(array.rank, accepted[i].rank);
        }
    }
}
END_TEST

#define TYPED "{'descr': '<f4', 'fortran_order': False, "

static const struct {
    const char *header, *reason;
} malformed[] = {
    {"", "begin with '{'"},
    {"\n", "begin with '{'"},
    {"[]\n", "begin with '{'"},
    {"{}\n", "lacks the key 'descr'"},
    {"{'descr': '<f4'}\n", "lacks the key 'fortran_order'"},
    {"{'descr': '<f4', 'fortran_order': False}\n", "lacks the key 'shape'"},
    {"{'fortran_order': False, 'shape': (1,)}\n", "lacks the key 'descr'"},
    {"{'descr': '<f4', 'descr': '<f4'}\n", "'descr' twice"},
    {"{'descr': '<f4', 'color': 1}\n", "unknown key 'color'"},
    {"{descr: '<f4'}\n", "quoted keys"},
    {"{'descr' '<f4'}\n", "lacks ':'"},
    {"{'descr': '<f4' 'shape': (1,)}\n", "lacks ','"},
    {"{'descr': <f4}\n", "quoted element type"},
    {"{'descr': '<f4}\n", "quoted element type"},
    {"{'de\\scr': '<f4'}\n", "quoted keys"},
    {"{'descr': '>f4'}\n", "'>f4' is not supported; supported are '<f4', '<f8', '<f2', '<u2' (little-endian)"},
    {"{'descr': '|u1'}\n", "'|u1' is not supported"},
    {"{'descr': '<i4'}\n", "'<i4' is not supported"},
    {"{'descr': '<f16'}\n", "'<f16' is not supported"},
    {"{'descr': '<c8'}\n", "'<c8' is not supported"},
    {"{'descr': ''}\n", "'' is not supported"},
    {"{'descr': [('x', '<f4')]}\n", "records"},
    {"{'fortran_order': 0}\n", "True or False"},
    {"{'fortran_order': 'True'}\n", "True or False"},
    {TYPED "'shape': 4}\n", "tuple"},
    {TYPED "'shape': [4]}\n", "tuple"},
    {TYPED "'shape': (4)}\n", "written (4,)"},
    {TYPED "'shape': (,)}\n", "tuple"},
    {TYPED "'shape': (4,,4)}\n", "tuple"},
    {TYPED "'shape': (4 4)}\n", "tuple"},
    {TYPED "'shape': (-4,)}\n", "tuple"},
    {TYPED "'shape': (0x4,)}\n", "tuple"},
    {TYPED "'shape': (4L,)}\n", "tuple"},
    {TYPED "'shape': (4.0,)}\n", "tuple"},
    {TYPED "'shape': (4,\n", "tuple"},
    {TYPED "'shape': (1,1,1,1,1,1,1,1)}\n", "more than 7 dimensions"},
    {TYPED "'shape': (9223372036854775808,)}\n", "exceeds 2^63"},
    {TYPED "'shape': (99999999999999999999999,)}\n", "exceeds 2^63"},
    {TYPED "'shape': (4294967296, 4294967296)}\n", "elements exceeds"},
    {TYPED "'shape': (4294967296, 0, 4294967296)}\n", "elements exceeds"},
    {TYPED "'shape': (9223372036854775807,)}\n", "bytes exceeds"},
    {TYPED "'shape': (2305843009213693951,)}\n", "truncated"},
    {TYPED "'shape': (1,)}", "newline"},
    {TYPED "'shape': (1,)} x\n", "newline"},
    {TYPED "'shape': (1,)}\n\n", "newline"},
    {TYPED "'shape': (1,)}\n ", "newline"},
    {TYPED "'shape': (1,)\n", "lacks ','"},
};

START_TEST(refuses_malformed_headers)
{
    for (size_t i = 0; i < sizeof(malformed) / sizeof(*malformed); i++) {
        const image file = make_image(1 + (int)(i % 3), malformed[i].header, 4);
        refuse(&file, malformed[i].reason);
    }
}
END_TEST

START_TEST(refuses_wrong_beginnings)
{
    image file = make_image(1, accepted[0].header, 8);
    const image good = file;
    for (int i = 0; i < 6; i++) {
        file = good;
        file.bytes[i] ^= 1;
        refuse(&file, "not a .npy file");
    }
    static const unsigned char versions[][2] = {{0, 0}, {4, 0}, {1, 1}, {255, 255}};
    for (size_t i = 0; i < 4; i++) {
        file = good;
        memcpy(file.bytes + 6, versions[i], 2);
        refuse(&file, "version");
    }
}
END_TEST

START_TEST(refuses_hostile_header_lengths)
{
    for (int major = 1; major <= 3; major++) {
        image file = make_image(major, accepted[0].header, 8);
        memset(file.bytes + 8, 0xff, major == 1 ? 2 : 4);
        refuse(&file, "truncated: the header has");
    }
    image file = make_image(1, accepted[0].header, 8);
    file.bytes[8]--; /* cuts the newline off */
    refuse(&file, "newline");
}
END_TEST

START_TEST(refuses_every_truncation)
{
    for (int major = 1; major <= 2; major++) {
        const image file = make_image(major, TYPED "'shape': (2, 3), }      \n", 24);
        struct npy array;
        for (size_t length = 0; length < file.length; length++) {
            ck_assert_msg(parse(file.bytes, length, &array) == -1, "accepted %zu of %zu bytes", length, file.length);
            ck_assert_msg(length < 8 || strstr(array.error, "truncated"), "%zu: %s", length, array.error);
        }
        ck_assert_int_eq(parse(file.bytes, file.length, &array), 0);
        image longer = file;
        longer.length++;
        refuse(&longer, "trailing data");
    }
}
END_TEST

/* Whatever one byte becomes, the answer is an array inside the bytes or a sentence. */
START_TEST(survives_every_changed_byte)
{
    const image good = make_image(1, TYPED "'shape': (2, 3), }\n", 24);
    for (size_t i = 0; i < good.length; i++) {
        for (int value = 0; value < 256; value++) {
            image file = good;
            file.bytes[i] = (unsigned char)value;
            struct npy array;
            if (parse(file.bytes, file.length, &array) == 0)
                ck_assert_uint_le((size_t)array.count * npy_type_size(array.type), file.length);
            else
                ck_assert_int_ne(array.error[0], '\0');
        }
    }
}
END_TEST

static void write_file(const void *bytes, size_t length)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(unaligned_data_is_moved)
{
    static const char *const headers[] = {"{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}\n",
                                          "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)} \n",
                                          "{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}  \n"};
    for (size_t i = 0; i < 3; i++) {
        const image file = make_image(1, headers[i], 24);
        struct npy array;
        write_file(file.bytes, file.length);
        ck_assert_int_eq(npy_open(path, &array), 0);
        ck_assert_uint_eq((uintptr_t)array.data % 8, 0);
        ck_assert_mem_eq(array.data, file.bytes + file.length - 24, 24);
        npy_close(&array);
    }
}
END_TEST

START_TEST(open_refuses_what_is_no_array_file)
{
    struct npy array;
    ck_assert_int_eq(npy_open(path, &array), -1);
    ck_assert_ptr_nonnull(strstr(array.error, "No such file"));
    ck_assert_int_eq(npy_open(directory, &array), -1);
    ck_assert_ptr_nonnull(strstr(array.error, "not a regular file"));
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(npy_open(path, &array), -1);
    ck_assert_ptr_nonnull(strstr(array.error, "not a regular file"));
    unlink(path);
    write_file("", 0);
    ck_assert_int_eq(npy_open(path, &array), -1);
    ck_assert_ptr_nonnull(strstr(array.error, "not a .npy file"));
}
END_TEST

START_TEST(stage_refuses_what_is_no_place_for_a_file)
{
    static const struct {
        const char *path, *reason;
    } places[] = {{"/nonexistent/a.npy", "No such file"}, {"/dev/null", "not a regular file"}, {"/", "not a regular"}};
    const int64_t extent = 1;
    const float value = 0;
    for (size_t i = 0; i < 3; i++) {
        struct npy_output output;
        ck_assert_int_eq(npy_stage(&output, places[i].path, NPY_F4, 1, &extent, &value), -1);
        ck_assert_msg(strstr(output.error, places[i].reason), "%s", output.error);
        npy_abandon(&output);
    }
}
END_TEST

/* A target is replaced whole or not at all; a link stays a link. */
START_TEST(writer_replaces_whole_files)
{
    char link[80];
    struct stat status;
    const float values[4] = {1, 2, 3, 4};
    const int64_t extent = 4;
    struct npy_output output;
    snprintf(link, sizeof(link), "%s.link", path);
    write_file("old", 3);
    ck_assert_int_eq(symlink("a.npy", link), 0);
    ck_assert_int_eq(npy_stage(&output, link, NPY_F4, 1, &extent, values), 0);
    npy_abandon(&output);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_eq(status.st_size, 3);
    ck_assert_int_eq(npy_stage(&output, link, NPY_F4, 1, &extent, values), 0);
    ck_assert_int_eq(npy_commit(&output), 0);
    ck_assert_int_eq(lstat(link, &status), 0);
    ck_assert(S_ISLNK(status.st_mode));
    struct npy array;
    ck_assert_int_eq(npy_open(path, &array), 0);
    ck_assert_mem_eq(array.data, values, sizeof(values));
    npy_close(&array);
    unlink(link);
}
END_TEST

START_TEST(writer_leaves_nothing_when_the_disk_is_full)
{
    static const float values[100000];
    const int64_t extent = 100000;
    const struct rlimit limit = {4096, 4096};
    struct npy_output output;
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(npy_stage(&output, path, NPY_F4, 1, &extent, values), -1);
    ck_assert_msg(strstr(output.error, "File too large"), "%s", output.error);
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("npy");
    TCase *tests = tcase_create("npy");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, round_trips);
    tcase_add_test(tests, fortran_order_is_strides);
    tcase_add_test(tests, accepts_every_version_and_spelling);
    tcase_add_test(tests, refuses_malformed_headers);
    tcase_add_test(tests, refuses_wrong_beginnings);
    tcase_add_test(tests, refuses_hostile_header_lengths);
    tcase_add_test(tests, refuses_every_truncation);
    tcase_add_test(tests, survives_every_changed_byte);
    tcase_add_test(tests, unaligned_data_is_moved);
    tcase_add_test(tests, open_refuses_what_is_no_array_file);
    tcase_add_test(tests, stage_refuses_what_is_no_place_for_a_file);
    tcase_add_test(tests, writer_replaces_whole_files);
    tcase_add_test(tests, writer_leaves_nothing_when_the_disk_is_full);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
