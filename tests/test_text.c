/* Status sentences, the bounded text writer, numbers, struct sizes and suggestions. */
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/check.h"
#include "core/number.h"
#include "core/status.h"
#include "core/text.h"
#include "harness.h"

START_TEST(every_status_has_a_meaning)
{
    for (int s = NF_OK; s >= NF_ERR_DEVICE; s--) {
        ck_assert_ptr_nonnull(strchr(nf_status_string((nf_status)s), ':'));
        ck_assert(strncmp(nf_status_string((nf_status)s), "unknown", 7) != 0);
    }
    ck_assert_int_eq(strncmp(nf_status_string((nf_status)-99), "unknown", 7), 0);
    ck_assert_int_eq(strncmp(nf_status_string((nf_status)1), "unknown", 7), 0);
}
END_TEST

START_TEST(version_is_that_of_the_header)
{
    char expected[32];
    snprintf(expected, sizeof expected, "%d.%d.%d", NF_VERSION_MAJOR, NF_VERSION_MINOR, NF_VERSION_PATCH);
    ck_assert_str_eq(nf_version(), expected);
}
END_TEST

START_TEST(fail_may_quote_the_last_error)
{
    ck_assert_int_eq(nf_fail(NF_ERR_PARSE, "first"), NF_ERR_PARSE);
    nf_fail(NF_ERR_MEMORY, "second: %s", nf_last_error());
    ck_assert_str_eq(nf_last_error(), "second: first");
}
END_TEST

static void *fail_elsewhere(void *unused)
{
    (void)unused;
    const int empty = nf_last_error()[0] == '\0';
    nf_fail(NF_ERR_DEVICE, "elsewhere");
    return empty && strcmp(nf_last_error(), "elsewhere") == 0 ? NULL : (void *)1;
}

START_TEST(last_error_is_per_thread)
{
    nf_fail(NF_ERR_DEVICE, "here");
    pthread_t thread;
    void *result;
    ck_assert_int_eq(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_null(result);
    ck_assert_str_eq(nf_last_error(), "here");
}
END_TEST

START_TEST(error_sentences_are_bounded)
{
    char word[8192];
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    nf_fail(NF_ERR_PARSE, "%s", word);
    ck_assert_uint_lt(strlen(nf_last_error()), 4096);
}
END_TEST

/* Whatever the capacity: the same length, a prefix of the same text, a NUL, and nothing behind it. */
START_TEST(writer_is_bounded)
{
    const char full[] = "one 2 three";
    for (size_t capacity = 0; capacity <= sizeof full + 2; capacity++) {
        char buffer[32];
        memset(buffer, '#', sizeof buffer);
        nf_text text;
        size_t length = 0;
        ck_assert_int_eq(nf_text_init(&text, capacity ? buffer : NULL, capacity), NF_OK);
        nf_text_printf(&text, "one ");
        nf_text_printf(&text, "%d", 2);
        nf_text_printf(&text, " three");
        const nf_status expected = capacity == 0 || capacity >= sizeof full ? NF_OK : NF_ERR_SPACE;
        ck_assert_int_eq(nf_text_finish(&text, &length), expected);
        ck_assert_uint_eq(length, sizeof full - 1);
        ck_assert_int_eq(buffer[capacity], '#');
        if (capacity) {
            ck_assert_uint_eq(strlen(buffer), capacity < sizeof full ? capacity - 1 : sizeof full - 1);
            ck_assert_int_eq(strncmp(buffer, full, strlen(buffer)), 0);
        }
    }
}
END_TEST

START_TEST(writer_refuses_null_with_capacity)
{
    nf_text text;
    ck_assert_int_eq(nf_text_init(&text, NULL, 1), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "buffer: NULL with a capacity of 1 bytes");
}
END_TEST

static void check_round_trip(double value)
{
    char text[NF_NUMBER_CAPACITY];
    double back;
    nf_number_format(text, value);
    ck_assert_msg(nf_number_parse(text, strlen(text), &back), "%s", text);
    ck_assert_msg(memcmp(&back, &value, sizeof value) == 0, "%s", text);
}

START_TEST(numbers_round_trip)
{
    const double values[] = {0, -0.0, 1, 0.1, 1.0 / 3, 0.125, 1e-320, 5e-324, 1.7976931348623157e308, -2.5, 1e22};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        check_round_trip(values[i]);
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value))
            check_round_trip(value);
    }
    char text[NF_NUMBER_CAPACITY];
    nf_number_format(text, 0.1);
    ck_assert_str_eq(text, "0.1");
}
END_TEST

START_TEST(numbers_ignore_the_locale)
{
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "de_DE") &&
        !setlocale(LC_NUMERIC, "fr_FR.UTF-8"))
        NF_SKIP("no locale with a decimal comma is installed");
    check_round_trip(0.5);
}
END_TEST

START_TEST(only_finite_decimals_are_numbers)
{
    const char *const refused[] = {
        "",
        "inf",
        "nan",
        "0x10",
        "1e999",
        "1.2.3",
        "1 ",
        " 1",
        "-",
        "e5",
        "1e",
        "--1",
        "1111111111111111111111111111111111111111111111111111111111111111111111111111111111"};
    double value = 7;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        ck_assert_msg(!nf_number_parse(refused[i], strlen(refused[i]), &value), "%s", refused[i]);
    ck_assert_double_eq(value, 7);
    ck_assert(nf_number_parse("12345", 2, &value));
    ck_assert_double_eq(value, 12);
}
END_TEST

START_TEST(struct_sizes)
{
    struct {
        size_t size;
        unsigned char bytes[5000];
    } newer = {.size = 24};
    ck_assert_int_eq(nf_check_size(&newer, 24, "io", "nf_io"), NF_OK);
    newer.size = 23;
    ck_assert_int_eq(nf_check_size(&newer, 24, "io", "nf_io"), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "io: size 23 is not sizeof(nf_io), 24");
    newer.size = 64;
    ck_assert_int_eq(nf_check_size(&newer, 24, "io", "nf_io"), NF_OK);
    newer.bytes[40 - sizeof(size_t)] = 1;
    ck_assert_int_eq(nf_check_size(&newer, 24, "io", "nf_io"), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "io: byte 40 of nf_io is set, but this library knows only 24 bytes");
    newer.size = (size_t)-1;
    ck_assert_int_eq(nf_check_size(&newer, 24, "io", "nf_io"), NF_ERR_ARGUMENT);
    ck_assert_int_eq(nf_check_size(NULL, 24, "io", "nf_io"), NF_ERR_ARGUMENT);
    ck_assert_str_eq(nf_last_error(), "io: NULL where a nf_io is required");
}
END_TEST

START_TEST(nearest_names)
{
    const char *const names[] = {"cuda", "opencl", "cpu", "reference", NULL};
    ck_assert_str_eq(nf_nearest("cpuu", 4, names, NULL), "cpu");
    ck_assert_str_eq(nf_nearest("opencI", 6, names, NULL), "opencl");
    ck_assert_str_eq(nf_nearest("referense", 9, names, NULL), "reference");
    size_t unlike = 1;
    ck_assert_str_eq(nf_nearest("cuda,cpu", 4, names, &unlike), "cuda");
    ck_assert_uint_eq(unlike, 0);
    char monster[2000];
    memset(monster, 'c', sizeof monster);
    ck_assert_ptr_nonnull(nf_nearest(monster, sizeof monster, names, NULL));
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("text");
    tcase_add_test(cases, every_status_has_a_meaning);
    tcase_add_test(cases, version_is_that_of_the_header);
    tcase_add_test(cases, fail_may_quote_the_last_error);
    tcase_add_test(cases, last_error_is_per_thread);
    tcase_add_test(cases, error_sentences_are_bounded);
    tcase_add_test(cases, writer_is_bounded);
    tcase_add_test(cases, writer_refuses_null_with_capacity);
    tcase_add_test(cases, numbers_round_trip);
    tcase_add_test(cases, numbers_ignore_the_locale);
    tcase_add_test(cases, only_finite_decimals_are_numbers);
    tcase_add_test(cases, struct_sizes);
    tcase_add_test(cases, nearest_names);
    Suite *suite = suite_create("text");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
