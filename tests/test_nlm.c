/* Non-local means as attention against its textbook definition, and the noise it is measured with. */
#include "nlm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "noise.h"

static nf_context *context;

static void setup(void)
{
    ck_assert_msg(nf_context_create(&context, NULL) == NF_OK, "%s", nf_last_error());
}

static void teardown(void)
{
    nf_context_destroy(context);
}

static int64_t pixels_of(const nf_nlm *nlm)
{
    int64_t pixels = 1;
    for (int a = 0; a < nlm->rank; a++)
        pixels *= nlm->extents[a];
    return pixels;
}

/* Steps, slopes and noise in 0..1. */
static float *make_picture(const nf_nlm *nlm, uint64_t seed)
{
    const int64_t count = pixels_of(nlm) * nlm->step, row = nlm->extents[nlm->rank - 1];
    float *const data = malloc((size_t)count * sizeof *data);
    nf_random random = {seed};
    for (int64_t i = 0; i < count; i++) {
        const int64_t pixel = i / nlm->step, x = pixel % row, y = pixel / row;
        const double base = (x / 5 + y / 4) % 2 ? 0.75 : 0.2;
        data[i] = (float)(base + 0.01 * (double)(x % 7) + 0.15 * (nf_random_uniform(&random) - 0.5));
    }
    return data;
}

static float *run_nlm(const nf_nlm *nlm, const float *in)
{
    const size_t bytes = (size_t)(pixels_of(nlm) * nlm->step) * sizeof *in;
    nf_message message = {""};
    nf_nlm_report report;
    float *const out = malloc(bytes);
    memcpy(out, in, bytes);
    ck_assert_msg(nf_nlm_run(nlm, context, in, out, NULL, NULL, &report, &message), "%s", message.text);
    ck_assert(report.blocks >= 1 && report.pairs > 0);
    return out;
}

/* ---- The definition ------------------------------------------------------------------------------------------------
 */

static int64_t reflected(int64_t i, int64_t extent)
{
    while (extent > 1 && (i < 0 || i >= extent))
        i = i < 0 ? -i : 2 * (extent - 1) - i;
    return extent > 1 ? i : 0;
}

static void position(const nf_nlm *nlm, int64_t pixel, int64_t at[3])
{
    for (int a = nlm->rank - 1; a >= 0; a--) {
        at[a] = pixel % nlm->extents[a];
        pixel /= nlm->extents[a];
    }
}

static int64_t pixel_at(const nf_nlm *nlm, const int64_t at[3])
{
    int64_t pixel = 0;
    for (int a = 0; a < nlm->rank; a++)
        pixel = pixel * nlm->extents[a] + reflected(at[a], nlm->extents[a]);
    return pixel;
}

/* The difference between the patches around two pixels, at one offset and channel. */
static double difference(const nf_nlm *nlm, const float *in, const int64_t i[3], const int64_t j[3],
                         const int64_t offset[3], int c)
{
    int64_t a[3], b[3];
    for (int axis = 0; axis < nlm->rank; axis++) {
        a[axis] = i[axis] + offset[axis] - nlm->patch[axis] / 2;
        b[axis] = j[axis] + offset[axis] - nlm->patch[axis] / 2;
    }
    return (double)in[pixel_at(nlm, a) * nlm->step + c] - (double)in[pixel_at(nlm, b) * nlm->step + c];
}

static double cosine(int64_t n, int64_t frequency, int64_t i)
{
    const double norm = sqrt((frequency ? 2.0 : 1.0) / (double)n);
    return norm * cos(acos(-1.0) * (double)frequency * ((double)i + 0.5) / (double)n);
}

/* One coefficient of the cosine transform of the difference of two patches. */
static double coefficient(const nf_nlm *nlm, const float *in, const int64_t i[3], const int64_t j[3],
                          const int64_t frequency[3], int channel)
{
    nf_nlm patch = *nlm;
    memcpy(patch.extents, nlm->patch, sizeof patch.extents);
    double sum = 0;
    for (int64_t o = 0; o < pixels_of(&patch); o++) {
        int64_t offset[3];
        double wave = 1;
        position(&patch, o, offset);
        for (int axis = 0; axis < nlm->rank; axis++)
            wave *= cosine(nlm->patch[axis], frequency[axis], offset[axis]);
        for (int c = 0; c < nlm->channels; c++)
            sum += wave * cosine(nlm->channels, channel, c) * difference(nlm, in, i, j, offset, c);
    }
    return sum;
}

/* Order of the frequencies: squares of all axes; channels other than their sum come 8 later. */
static int64_t order_of(const nf_nlm *nlm, const int64_t frequency[3], int channel)
{
    int64_t order = channel ? 8 : 0;
    for (int axis = 0; axis < nlm->rank; axis++)
        order += frequency[axis] * frequency[axis];
    return order;
}

/* Mean squared difference of the lowest frequencies; equally low ones go by all axes but the last, channel, last axis.
 */
static double feature_distance(const nf_nlm *nlm, const float *in, const int64_t i[3], const int64_t j[3])
{
    const int64_t last = nlm->patch[nlm->rank - 1];
    nf_nlm patch = *nlm;
    memcpy(patch.extents, nlm->patch, sizeof patch.extents);
    const int64_t lines = pixels_of(&patch) / last;
    int64_t left = nlm->features;
    double sum = 0;
    for (int64_t order = 0; left > 0; order++)
        for (int64_t line = 0; line < lines; line++)
            for (int channel = 0; channel < nlm->channels; channel++)
                for (int64_t f = 0; f < last && left > 0; f++) {
                    int64_t frequency[3];
                    position(&patch, line * last + f, frequency);
                    if (order_of(nlm, frequency, channel) != order)
                        continue;
                    const double value = coefficient(nlm, in, i, j, frequency, channel);
                    sum += value * value;
                    left--;
                }
    return sum / (double)nlm->features;
}

/* Mean squared difference of the patches around two pixels. */
static double distance(const nf_nlm *nlm, const float *in, const int64_t i[3], const int64_t j[3])
{
    if (nlm->features)
        return feature_distance(nlm, in, i, j);
    nf_nlm patch = *nlm;
    memcpy(patch.extents, nlm->patch, sizeof patch.extents);
    const int64_t offsets = pixels_of(&patch);
    double sum = 0;
    for (int64_t o = 0; o < offsets; o++) {
        int64_t offset[3];
        position(&patch, o, offset);
        for (int c = 0; c < nlm->channels; c++) {
            const double d = difference(nlm, in, i, j, offset, c);
            sum += d * d;
        }
    }
    return sum / (double)(offsets * nlm->channels);
}

/* Is j in the window of i? Centred as in the textbook; shifted inwards at borders. */
static bool in_window(const nf_nlm *nlm, const int64_t i[3], const int64_t j[3])
{
    for (int a = 0; a < nlm->rank; a++) {
        int64_t first = i[a] - nlm->window[a] / 2;
        if (first > nlm->extents[a] - nlm->window[a])
            first = nlm->extents[a] - nlm->window[a];
        if (first < 0)
            first = 0;
        if (j[a] < first || j[a] >= first + nlm->window[a])
            return false;
    }
    return true;
}

static bool interior(const nf_nlm *nlm, const int64_t i[3])
{
    for (int a = 0; a < nlm->rank; a++)
        if (i[a] < nlm->window[a] / 2 || i[a] + nlm->window[a] / 2 >= nlm->extents[a])
            return false;
    return true;
}

static void define(const nf_nlm *nlm, const float *in, const int64_t i[3], double *value)
{
    double total = 0;
    memset(value, 0, (size_t)nlm->channels * sizeof *value);
    for (int64_t pixel = 0; pixel < pixels_of(nlm); pixel++) {
        int64_t j[3];
        position(nlm, pixel, j);
        if (!in_window(nlm, i, j))
            continue;
        const double weight = exp(-distance(nlm, in, i, j) / (nlm->strength * nlm->strength));
        total += weight;
        for (int c = 0; c < nlm->channels; c++)
            value[c] += weight * (double)in[pixel * nlm->step + c];
    }
    for (int c = 0; c < nlm->channels; c++)
        value[c] /= total;
}

static void check_definition(const nf_nlm *nlm, uint64_t seed)
{
    float *const in = make_picture(nlm, seed), *const out = run_nlm(nlm, in);
    int64_t inside = 0;
    for (int64_t pixel = 0; pixel < pixels_of(nlm); pixel++) {
        double value[4];
        int64_t i[3];
        position(nlm, pixel, i);
        inside += interior(nlm, i);
        define(nlm, in, i, value);
        for (int c = 0; c < nlm->step; c++) {
            const double expected = c < nlm->channels ? value[c] : (double)in[pixel * nlm->step + c];
            ck_assert_msg(fabs((double)out[pixel * nlm->step + c] - expected) <= 1e-4,
                          "pixel %d channel %d: %.7g instead of %.7g", (int)pixel, c,
                          (double)out[pixel * nlm->step + c], expected);
        }
    }
    ck_assert(inside > 0);
    free(in);
    free(out);
}

START_TEST(grey_equals_the_definition)
{
    check_definition(&(nf_nlm){.rank = 2,
                               .extents = {23, 19},
                               .window = {7, 7},
                               .patch = {5, 5},
                               .channels = 1,
                               .step = 1,
                               .strength = 0.08},
                     1);
    check_definition(&(nf_nlm){.rank = 2,
                               .extents = {12, 31},
                               .window = {9, 5},
                               .patch = {3, 7},
                               .channels = 1,
                               .step = 2,
                               .strength = 0.2},
                     2);
}
END_TEST

START_TEST(colour_equals_the_definition)
{
    check_definition(&(nf_nlm){.rank = 2,
                               .extents = {17, 20},
                               .window = {7, 7},
                               .patch = {5, 5},
                               .channels = 3,
                               .step = 3,
                               .strength = 0.06},
                     3);
    check_definition(&(nf_nlm){.rank = 2,
                               .extents = {17, 20},
                               .window = {5, 5},
                               .patch = {3, 3},
                               .channels = 3,
                               .step = 4,
                               .strength = 0.1},
                     4);
}
END_TEST

START_TEST(volume_equals_the_definition)
{
    check_definition(&(nf_nlm){.rank = 3,
                               .extents = {7, 9, 8},
                               .window = {5, 5, 5},
                               .patch = {3, 3, 3},
                               .channels = 1,
                               .step = 1,
                               .strength = 0.1},
                     5);
}
END_TEST

START_TEST(a_line_equals_the_definition)
{
    check_definition(
        &(nf_nlm){.rank = 1, .extents = {40}, .window = {11}, .patch = {5}, .channels = 1, .step = 1, .strength = 0.1},
        6);
}
END_TEST

START_TEST(features_equal_the_definition)
{
    static const nf_nlm cases[] = {
        {.rank = 1, .extents = {30}, .window = {9}, .patch = {7}, .channels = 1, .step = 1, .features = 3},
        {.rank = 2, .extents = {11, 12}, .window = {5, 5}, .patch = {5, 3}, .channels = 1, .step = 2, .features = 7},
        {.rank = 2, .extents = {9, 13}, .window = {3, 5}, .patch = {5, 5}, .channels = 3, .step = 4, .features = 11},
        {.rank = 2, .extents = {8, 8}, .window = {3, 3}, .patch = {3, 3}, .channels = 3, .step = 3, .features = 26},
        {.rank = 2, .extents = {4, 3}, .window = {3, 3}, .patch = {9, 9}, .channels = 1, .step = 1, .features = 20},
        {.rank = 3,
         .extents = {5, 6, 7},
         .window = {3, 3, 3},
         .patch = {3, 3, 3},
         .channels = 1,
         .step = 1,
         .features = 11},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nf_nlm nlm = cases[i];
        nlm.strength = 0.15;
        check_definition(&nlm, 20 + i);
    }
}
END_TEST

START_TEST(as_many_features_as_values_are_the_patch)
{
    nf_nlm nlm = {
        .rank = 2, .extents = {20, 20}, .window = {7, 7}, .patch = {5, 5}, .channels = 3, .step = 3, .strength = 0.1};
    float *const in = make_picture(&nlm, 12), *const whole = run_nlm(&nlm, in);
    nlm.features = 1000;
    float *const all = run_nlm(&nlm, in);
    ck_assert_mem_eq(all, whole, 1200 * sizeof *all);
    free(in);
    free(whole);
    free(all);
}
END_TEST

/* Where f32 resolves least: neighbours' weights span e^-1000 and more. */
START_TEST(small_strength_equals_the_definition)
{
    for (double strength = 0.03; strength >= NF_NLM_MIN_STRENGTH; strength /= 3)
        check_definition(&(nf_nlm){.rank = 2,
                                   .extents = {16, 16},
                                   .window = {7, 7},
                                   .patch = {3, 3},
                                   .channels = 1,
                                   .step = 1,
                                   .strength = strength},
                         7);
}
END_TEST

/* A faint texture on a bright ground: without the subtraction of the mean, errors reach 2e-6. */
START_TEST(faint_textures_are_resolved)
{
    const nf_nlm nlm = {
        .rank = 2, .extents = {20, 20}, .window = {7, 7}, .patch = {3, 3}, .channels = 1, .step = 1, .strength = 0.002};
    float *const in = make_picture(&nlm, 11);
    for (int i = 0; i < 400; i++)
        in[i] = 0.9f + 0.01f * in[i];
    float *const out = run_nlm(&nlm, in);
    for (int64_t pixel = 0; pixel < 400; pixel++) {
        double value;
        int64_t i[3];
        position(&nlm, pixel, i);
        define(&nlm, in, i, &value);
        ck_assert_double_eq_tol((double)out[pixel], value, 1e-6);
    }
    free(in);
    free(out);
}
END_TEST

/* Patches wider than the picture reflect more than once; windows may be the whole picture. */
START_TEST(tiny_pictures_equal_the_definition)
{
    for (int64_t side = 1; side <= 4; side++) {
        const nf_nlm nlm = {.rank = 2,
                            .extents = {side, 5},
                            .window = {side, 5},
                            .patch = {9, 9},
                            .channels = 1,
                            .step = 1,
                            .strength = 0.2};
        float *const in = make_picture(&nlm, 8), *const out = run_nlm(&nlm, in);
        for (int64_t pixel = 0; pixel < side * 5; pixel++) {
            double value;
            int64_t i[3];
            position(&nlm, pixel, i);
            define(&nlm, in, i, &value);
            ck_assert_double_eq_tol((double)out[pixel], value, 1e-4);
        }
        free(in);
        free(out);
    }
}
END_TEST

static void check_blocks(int64_t features)
{
    nf_nlm nlm = {.rank = 2,
                  .extents = {61, 50},
                  .window = {11, 11},
                  .patch = {5, 5},
                  .features = features,
                  .channels = 3,
                  .step = 3,
                  .strength = 0.1};
    float *const in = make_picture(&nlm, 9), *const whole = run_nlm(&nlm, in);
    static const size_t limits[] = {1, 100000, 300000};
    for (int i = 0; i < 3; i++) {
        nlm.block_bytes = limits[i];
        float *const parts = run_nlm(&nlm, in);
        for (int64_t j = 0; j < 61 * 50 * 3; j++)
            ck_assert_float_eq_tol(parts[j], whole[j], 1e-5f);
        free(parts);
    }
    free(in);
    free(whole);
}

START_TEST(blocks_equal_whole)
{
    check_blocks(0);
    check_blocks(11);
}
END_TEST

static void count_done(void *user, int64_t done)
{
    int64_t *const last = user;
    ck_assert(done > *last);
    *last = done;
}

START_TEST(progress_reaches_the_end)
{
    const nf_nlm nlm = {.rank = 3,
                        .extents = {6, 10, 9},
                        .window = {3, 3, 3},
                        .patch = {3, 3, 3},
                        .channels = 1,
                        .step = 1,
                        .strength = 0.1,
                        .block_bytes = 40000};
    float *const in = make_picture(&nlm, 10), *const out = malloc(540 * sizeof *out);
    nf_message message = {""};
    nf_nlm_report report;
    int64_t last = 0;
    ck_assert(nf_nlm_run(&nlm, context, in, out, count_done, &last, &report, &message));
    ck_assert(last == 540 && report.blocks > 1 && report.patch_bytes <= 40000);
    ck_assert(report.pairs == 540.0 * 27);
    free(in);
    free(out);
}
END_TEST

START_TEST(constants_stay)
{
    const nf_nlm nlm = {
        .rank = 2, .extents = {30, 30}, .window = {9, 9}, .patch = {5, 5}, .channels = 1, .step = 1, .strength = 0.01};
    float in[900];
    for (int i = 0; i < 900; i++)
        in[i] = 0.7f;
    float *const out = run_nlm(&nlm, in);
    for (int i = 0; i < 900; i++)
        ck_assert_float_eq_tol(out[i], 0.7f, 1e-6f);
    free(out);
}
END_TEST

START_TEST(too_large_windows_are_refused)
{
    const nf_nlm nlm = {.rank = 3,
                        .extents = {1000, 1000, 1000},
                        .window = {101, 101, 101},
                        .patch = {31, 31, 31},
                        .channels = 1,
                        .step = 1,
                        .strength = 0.1};
    nf_message message = {""};
    float pixel = 0;
    ck_assert(!nf_nlm_run(&nlm, context, &pixel, &pixel, NULL, NULL, NULL, &message));
    ck_assert(strstr(message.text, "smaller window or patch") != NULL);
}
END_TEST

/* ---- Noise ---------------------------------------------------------------------------------------------------------
 */

START_TEST(noise_has_its_deviation)
{
    enum { COUNT = 200000 };
    float *const data = calloc(COUNT, sizeof *data);
    double sum = 0, square = 0;
    nf_noise_add(data, COUNT / 2, 2, 2, 0.1, 1);
    for (int i = 0; i < COUNT; i++) {
        sum += (double)data[i];
        square += (double)data[i] * (double)data[i];
    }
    ck_assert_double_eq_tol(sum / COUNT, 0, 1e-3);
    ck_assert_double_eq_tol(sqrt(square / COUNT), 0.1, 1e-3);
    free(data);
}
END_TEST

START_TEST(noise_repeats_and_spares_alpha)
{
    float a[12] = {0}, b[12] = {0}, c[12] = {0};
    nf_noise_add(a, 3, 3, 4, 1, 5);
    nf_noise_add(b, 3, 3, 4, 1, 5);
    nf_noise_add(c, 3, 3, 4, 1, 6);
    ck_assert_mem_eq(a, b, sizeof a);
    ck_assert_mem_ne(a, c, sizeof a);
    for (int i = 3; i < 12; i += 4)
        ck_assert_float_eq(a[i], 0);
}
END_TEST

START_TEST(random_bits_are_splitmix64)
{
    nf_random random = {1234567};
    ck_assert_uint_eq(nf_random_bits(&random), UINT64_C(6457827717110365317));
    ck_assert_uint_eq(nf_random_bits(&random), UINT64_C(3203168211198807973));
}
END_TEST

START_TEST(psnr_of_known_error)
{
    const float truth[4] = {0}, data[4] = {0.1f, 9, -0.1f, 9};
    ck_assert_double_eq_tol(nf_noise_psnr(data, truth, 2, 1, 2, 1), 20, 1e-5);
    ck_assert_double_eq_tol(nf_noise_psnr(data, truth, 2, 1, 2, 10), 40, 1e-5);
    ck_assert(isinf(nf_noise_psnr(truth, truth, 2, 1, 2, 1)));
}
END_TEST

START_TEST(sigma_is_estimated)
{
    const int64_t extents[3] = {40, 50, 60};
    float *const data = calloc(120000, sizeof *data);
    ck_assert_double_eq(nf_noise_estimate(data, 3, extents, 1, 1), 0);
    for (int i = 0; i < 120000; i++) /* a slope is no noise, and half the volume is masked */
        data[i] = i < 60000 ? 0 : (float)(i % 60) * 0.02f;
    nf_noise_add(data + 60000, 60000, 1, 1, 0.05, 3);
    ck_assert_double_eq_tol(nf_noise_estimate(data, 3, extents, 1, 1), 0.05, 0.002);
    ck_assert_double_eq_tol(nf_noise_estimate(data + 60000, 2, (const int64_t[]){1000, 60}, 1, 1), 0.05, 0.002);
    ck_assert_double_eq_tol(nf_noise_estimate(data + 60000, 3, (const int64_t[]){1, 1000, 60}, 1, 1), 0.05, 0.002);
    free(data);
}
END_TEST

int main(void)
{
    Suite *const suite = suite_create("nlm");
    TCase *const tcase = tcase_create("nlm");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, grey_equals_the_definition);
    tcase_add_test(tcase, colour_equals_the_definition);
    tcase_add_test(tcase, volume_equals_the_definition);
    tcase_add_test(tcase, a_line_equals_the_definition);
    tcase_add_test(tcase, features_equal_the_definition);
    tcase_add_test(tcase, as_many_features_as_values_are_the_patch);
    tcase_add_test(tcase, small_strength_equals_the_definition);
    tcase_add_test(tcase, faint_textures_are_resolved);
    tcase_add_test(tcase, tiny_pictures_equal_the_definition);
    tcase_add_test(tcase, blocks_equal_whole);
    tcase_add_test(tcase, progress_reaches_the_end);
    tcase_add_test(tcase, constants_stay);
    tcase_add_test(tcase, too_large_windows_are_refused);
    tcase_add_test(tcase, noise_has_its_deviation);
    tcase_add_test(tcase, noise_repeats_and_spares_alpha);
    tcase_add_test(tcase, random_bits_are_splitmix64);
    tcase_add_test(tcase, psnr_of_known_error);
    tcase_add_test(tcase, sigma_is_estimated);
    suite_add_tcase(suite, tcase);
    return nf_test_main(suite);
}
