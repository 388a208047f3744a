/* Problem strings: round trips, canonical form, hashes, every error of the grammar. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/problem.h"
#include "harness.h"

static uint64_t random_state;

/* xorshift64* */
static uint64_t random_bits(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

/* 0..below-1 */
static int64_t random_below(int64_t below)
{
    return (int64_t)(random_bits() % (uint64_t)below);
}

static void random_range(int64_t extent, int64_t *begin, int64_t *count)
{
    if (random_below(3))
        return;
    *begin = random_below(extent);
    *count = random_below(extent - *begin + 1);
}

static void random_axis(nf_axis *axis)
{
    axis->extent = 1 + random_below(200);
    axis->dilation = random_below(2) ? 1 : 1 + random_below(axis->extent);
    axis->window = 1 + random_below(axis->extent / axis->dilation);
    if (axis->dilation == 1 && random_below(4) == 0)
        axis->window = 0;
    axis->stride = random_below(2) ? 1 : 1 + random_below(nf_axis_window(axis));
    axis->causal = random_below(2);
    random_range(axis->extent, &axis->q_begin, &axis->q_count);
    random_range(axis->extent, &axis->k_begin, &axis->k_count);
}

static void random_cross_axis(nf_axis *axis)
{
    axis->extent = 1 + random_below(100);
    axis->key_extent = axis->extent + 1 + random_below(100);
    axis->causal = random_below(2);
    random_range(axis->key_extent, &axis->k_begin, &axis->k_count);
    if (random_below(2)) {
        axis->q_begin = random_below(axis->key_extent - axis->extent + 1);
        axis->q_count = axis->extent;
    }
}

/* A valid problem, any feature. */
static nf_problem random_problem(void)
{
    nf_problem p;
    nf_problem_init(&p);
    p.direction = (nf_direction)(1 + random_below(3));
    p.dtype = (nf_dtype)random_below(4);
    p.out_dtype = (p.dtype == NF_BF16 || p.dtype == NF_F16) && random_below(2) ? NF_F32 : p.dtype;
    p.rank = (int32_t)(1 + random_below(NF_MAX_RANK));
    p.batch = 1 + random_below(5);
    p.kv_heads = 1 + random_below(4);
    p.heads = p.kv_heads * (1 + random_below(4));
    p.head_dim = 1 + random_below(128);
    p.value_dim = random_below(2) ? p.head_dim : 1 + random_below(128);
    p.extra = random_below(2) ? 0 : random_below(10);
    if (random_below(3) == 0) {
        p.scale_set = 1;
        p.scale = ldexp((double)random_bits() - 0x1p63, (int)random_below(200) - 100);
    }
    if (p.rank == 1 && random_below(3) == 0)
        random_cross_axis(&p.axis[0]);
    else
        for (int32_t a = 0; a < p.rank; a++)
            random_axis(&p.axis[a]);
    return p;
}

/* random_problem leaves no padding unset: nf_problem_init copies a whole struct. */
static bool same_problem(const nf_problem *a, const nf_problem *b)
{
    bool same = a->direction == b->direction && a->dtype == b->dtype && a->out_dtype == b->out_dtype &&
                a->rank == b->rank && a->scale_set == b->scale_set &&
                memcmp(&a->scale, &b->scale, sizeof a->scale) == 0 && a->batch == b->batch && a->heads == b->heads &&
                a->kv_heads == b->kv_heads && a->head_dim == b->head_dim && a->value_dim == b->value_dim &&
                a->extra == b->extra;
    for (int32_t i = 0; i < a->rank; i++)
        same = same && memcmp(&a->axis[i], &b->axis[i], sizeof a->axis[i]) == 0;
    return same;
}

START_TEST(random_problems_round_trip)
{
    random_state = 20240607;
    for (int i = 0; i < 20000; i++) {
        const nf_problem p = random_problem();
        ck_assert_msg(nf_problem_check(&p) == NF_OK, "case %d: %s", i, nf_last_error());
        char text[1024], again[1024];
        size_t length = 0;
        ck_assert_int_eq(nf_problem_format(&p, text, sizeof text, &length), NF_OK);
        ck_assert_uint_eq(length, strlen(text));
        nf_problem back;
        ck_assert_msg(nf_problem_parse(&back, text) == NF_OK, "%s: %s", text, nf_last_error());
        ck_assert_msg(same_problem(&p, &back), "%s", text);
        ck_assert_int_eq(nf_problem_format(&back, again, sizeof again, NULL), NF_OK);
        ck_assert_str_eq(text, again);
    }
}
END_TEST

/* Any string of the alphabet of problem strings is read or refused; what is read can be written and read again. */
START_TEST(noise_is_read_or_refused)
{
    static const char alphabet[] = "na12d3f4 56bwsxqkcdilhoutscalefwbth=:/x.- 0 7";
    random_state = 99;
    int accepted = 0;
    for (int i = 0; i < 200000; i++) {
        char text[48] = "na2d ";
        const int64_t length = 5 + random_below((int64_t)sizeof text - 6);
        for (int64_t j = 5; j < length; j++)
            text[j] = alphabet[random_below((int64_t)sizeof alphabet - 1)];
        nf_problem p, back;
        if (nf_problem_parse(&p, text) != NF_OK)
            continue;
        accepted++;
        char canonical[1024];
        ck_assert_msg(nf_problem_format(&p, canonical, sizeof canonical, NULL) == NF_OK, "%s", text);
        ck_assert_msg(nf_problem_parse(&back, canonical) == NF_OK, "%s -> %s", text, canonical);
        ck_assert_msg(same_problem(&p, &back), "%s -> %s", text, canonical);
    }
    ck_assert_int_gt(accepted, 0);
}
END_TEST

static const struct {
    const char *text, *canonical;
} canonical_forms[] = {
    {"na1d", "na1d f32 b1 h1 w0 fwd"},
    {"na1d 5 d1", "na1d f32 b1 h1 d1 5 w0 fwd"},
    {"na2d f32 b2 h8/2 d64/64 56x56 w7x7 s1x1 dil1x2 c0x1 fwd", "na2d f32 b2 h8/2 d64 56x56 w7 dil1x2 c0x1 fwd"},
    {"na2d both c1x1 dil2 s3x3 w7 56x57 d64/32 h8/8 b1 bf16", "na2d bf16 b1 h8 d64/32 56x57 w7 s3 dil2 c1 both"},
    {"  na3d\t4x5x6 \n d8 w3x4x5 x7 bwd ", "na3d f32 b1 h1 d8 4x5x6 w3x4x5 x7 bwd"},
    {"na1d f16 out=f32 d8 16/64 q48:16 k0:32 c1", "na1d f16 out=f32 b1 h1 d8 16/64 w0 c1 q48:16 k0:32 fwd"},
    {"na1d 64/64 d8", "na1d f32 b1 h1 d8 64 w0 fwd"},
    {"na2d q1:2x3:4 k0:0x5:6 8x11 d1", "na2d f32 b1 h1 d1 8x11 w0 q1:2x3:4 k0:0x5:6 fwd"},
    {"na1d scale=0.50 x0 8 d4 f32 out=f32", "na1d f32 b1 h1 d4 8 w0 scale=0.5 fwd"},
    {"na1d scale=-0 d4 8", "na1d f32 b1 h1 d4 8 w0 scale=-0 fwd"},
    {"na1d scale=1e-3 d4 8", "na1d f32 b1 h1 d4 8 w0 scale=0.001 fwd"},
    {"na4d 1x2x3x4 d007", "na4d f32 b1 h1 d7 1x2x3x4 w0 fwd"},
    {"na1d w9223372036854775807 8 d1", "na1d f32 b1 h1 d1 8 w9223372036854775807 fwd"},
};

START_TEST(canonical_form)
{
    nf_problem p;
    char text[256];
    ck_assert_msg(nf_problem_parse(&p, canonical_forms[_i].text) == NF_OK, "%s", nf_last_error());
    ck_assert_int_eq(nf_problem_format(&p, text, sizeof text, NULL), NF_OK);
    ck_assert_str_eq(text, canonical_forms[_i].canonical);
}
END_TEST

START_TEST(defaults)
{
    nf_problem p;
    ck_assert_int_eq(nf_problem_parse(&p, "na2d bf16 b3 h6 d16 5x7"), NF_OK);
    ck_assert_uint_eq(p.size, sizeof p);
    ck_assert_int_eq(p.direction, NF_FWD);
    ck_assert_int_eq(p.out_dtype, NF_BF16);
    ck_assert_int_eq(p.kv_heads, 6);
    ck_assert_int_eq(p.value_dim, 16);
    ck_assert_int_eq(p.scale_set, 0);
    ck_assert_double_eq(nf_problem_scale(&p), 0.25);
    for (int a = 0; a < 2; a++) {
        ck_assert_int_eq(p.axis[a].window, 0);
        ck_assert_int_eq(p.axis[a].stride, 1);
        ck_assert_int_eq(p.axis[a].dilation, 1);
        ck_assert_int_eq(nf_axis_query_range(&p.axis[a]).count, p.axis[a].extent);
        ck_assert_int_eq(nf_axis_key_range(&p.axis[a]).count, p.axis[a].extent);
    }
    ck_assert_int_eq(nf_problem_check(&p), NF_OK);
    p.scale_set = 1;
    p.scale = 0;
    ck_assert_double_eq(nf_problem_scale(&p), 0);
}
END_TEST

/* Written down once: a change here breaks every recorded hash. */
static const struct {
    const char *text;
    uint64_t hash;
} golden_hashes[] = {
    {"na1d f32 b1 h1 d64 131072 w257 fwd", UINT64_C(0x65eb6e9761a0b188)},
    {"na2d f32 b2 h8/2 d64 56x56 w7 dil1x2 c0x1 both", UINT64_C(0xc7004885a72b7bc3)},
    {"na1d bf16 out=f32 b1 h32/8 d128 1/4096 w0 c1 k0:2048 x4 scale=0.125 fwd", UINT64_C(0x59f06c809c1075b5)},
    {"na4d f64 b1 h1 d3/5 3x4x5x6 w3x2x5x1 s1x2x3x1 bwd", UINT64_C(0x500ea9484ef66fbc)},
};

START_TEST(hashes_are_stable)
{
    nf_problem p;
    uint64_t hash;
    ck_assert_int_eq(nf_problem_parse(&p, golden_hashes[_i].text), NF_OK);
    ck_assert_int_eq(nf_problem_hash(&p, &hash), NF_OK);
    ck_assert_msg(hash == golden_hashes[_i].hash, "%s: 0x%016llx", golden_hashes[_i].text, (unsigned long long)hash);
    char text[256];
    ck_assert_int_eq(nf_problem_format(&p, text, sizeof text, NULL), NF_OK);
    ck_assert_str_eq(text, golden_hashes[_i].text);
    p.batch++;
    uint64_t other;
    ck_assert_int_eq(nf_problem_hash(&p, &other), NF_OK);
    ck_assert(hash != other);
}
END_TEST

static const struct {
    const char *text, *message;
} grammar_errors[] = {
    {"", "an empty problem string; the first word must be na1d, na2d, na3d or na4d"},
    {" \t\n", "an empty problem string; the first word must be na1d, na2d, na3d or na4d"},
    {"f32 na1d", "'f32': the first word must be na1d, na2d, na3d or na4d"},
    {"na5d 4", "'na5d': the first word must be na1d, na2d, na3d or na4d"},
    {"na2dd", "'na2dd': the first word must be na1d, na2d, na3d or na4d"},
    {"na2d na3d", "'na3d': the rank is given twice"},
    {"na2d f32 bf16", "'bf16': the element type is given twice"},
    {"na2d fwd bwd", "'bwd': the direction is given twice"},
    {"na2d 4x4 4x4", "'4x4': the grid is given twice"},
    {"na2d w3 w3", "'w3': the window is given twice"},
    {"na2d s1 s1", "'s1': the stride is given twice"},
    {"na2d dil1 dil2", "'dil2': the dilation is given twice"},
    {"na2d c0 c1", "'c1': the causal flag is given twice"},
    {"na2d x1 x1", "'x1': the number of extra tokens is given twice"},
    {"na1d scale=1 scale=2", "'scale=2': the scale is given twice"},
    {"na1d out=f32 out=f32", "'out=f32': the output type is given twice"},
    {"na1d q0:1 q0:1", "'q0:1': the query range is given twice"},
    {"na1d k0:1 k0:1", "'k0:1': the key range is given twice"},
    {"na1d h1 h1", "'h1': the number of heads is given twice"},
    {"na1d d1 d1", "'d1': the head dimension is given twice"},
    {"na1d b1 b1", "'b1': the batch is given twice"},
    {"na2d win7", "'win7': unknown key; the nearest is 'w'"},
    {"na2d stride2x2", "'stride2x2': unknown key; the nearest is 's'"},
    {"na2d f31", "'f31': unknown key; the nearest is 'f32'"},
    {"na2d bf161", "'bf161': unknown key; the nearest is 'bf16'"},
    {"na2d forward", "'forward': unknown key; the nearest is 'fwd'"},
    {"na2d scal=2", "'scal=2': unknown key; the nearest is 'scale='"},
    {"na2d F32", "'F32': unknown key; the nearest is 'f32'"},
    {"na2d + w3", "'+': unknown key; the nearest is 'b'"},
    {"na2d -w3", "'-w3': unknown key; the nearest is 'b'"},
    {"na2d dill3", "'dill3': unknown key; the nearest is 'dil'"},
    {"na2d w", "'w': a non-negative integer is missing"},
    {"na2d w-3", "'w-3': a non-negative integer is missing"},
    {"na2d w3x", "'w3x': a non-negative integer is missing"},
    {"na2d w3xx3", "'w3xx3': a non-negative integer is missing"},
    {"na2d w3y3", "'w3y3': unexpected characters at the end of the word"},
    {"na2d w3.5", "'w3.5': unexpected characters at the end of the word"},
    {"na3d w3x4", "'w3x4': fewer values than axes"},
    {"na2d w3x4x5", "'w3x4x5': more values than axes"},
    {"na4d w1x1x1x1x1x1x1x1x1x1x1x1x1x1", "'w1x1x1x1x1x1x1x1x1x1x1x1x1x1': more values than axes"},
    {"na2d 56", "'56': fewer values than axes"},
    {"na1d 56x56", "'56x56': more values than axes"},
    {"na2d 4/5x6", "'4/5x6': fewer values than axes"},
    {"na2d 4/5", "'4/5': fewer values than axes"},
    {"na1d 4/5/6", "'4/5/6': unexpected characters at the end of the word"},
    {"na1d 4/", "'4/': a non-negative integer is missing"},
    {"na1d h8/", "'h8/': a non-negative integer is missing"},
    {"na1d h8/2/1", "'h8/2/1': unexpected characters at the end of the word"},
    {"na1d b2/3", "'b2/3': unexpected characters at the end of the word"},
    {"na1d x", "'x': a non-negative integer is missing"},
    {"na1d q3", "'q3': a range is written begin:count"},
    {"na1d q3:", "'q3:': a non-negative integer is missing"},
    {"na1d k:4", "'k:4': a non-negative integer is missing"},
    {"na2d q3:4", "'q3:4': fewer values than axes"},
    {"na1d b9223372036854775808", "'b9223372036854775808': a number exceeds 2^63 - 1"},
    {"na1d d99999999999999999999999", "'d99999999999999999999999': a number exceeds 2^63 - 1"},
    {"na1d scale=", "'scale=': a finite decimal number must follow 'scale='"},
    {"na1d scale=nan", "'scale=nan': a finite decimal number must follow 'scale='"},
    {"na1d scale=inf", "'scale=inf': a finite decimal number must follow 'scale='"},
    {"na1d scale=1e999", "'scale=1e999': a finite decimal number must follow 'scale='"},
    {"na1d scale=0x1p3", "'scale=0x1p3': a finite decimal number must follow 'scale='"},
    {"na1d scale=1,5", "'scale=1,5': a finite decimal number must follow 'scale='"},
    {"na1d out=", "'out=': an element type must follow: f32, f64, bf16 or f16"},
    {"na1d out=f8", "'out=f8': an element type must follow: f32, f64, bf16 or f16"},
    {"na1d w1111111111111111111111111111111111111111111111111",
     "'w111111111111111111111111111111111111111...': a number exceeds 2^63 - 1"},
    {"na1d \xff\xfe", "'\xff\xfe': unknown key; the nearest is 'b'"},
};
enum { GRAMMAR_ERRORS = sizeof grammar_errors / sizeof grammar_errors[0] };

START_TEST(grammar_error)
{
    nf_problem p;
    memset(&p, 0x5a, sizeof p);
    const nf_problem untouched = p;
    ck_assert_int_eq(nf_problem_parse(&p, grammar_errors[_i].text), NF_ERR_PARSE);
    ck_assert_str_eq(nf_last_error(), grammar_errors[_i].message);
    ck_assert(memcmp(&p, &untouched, sizeof p) == 0);
}
END_TEST

START_TEST(overlong_strings_are_refused)
{
    enum { LENGTH = 1 << 20 };
    char *text = malloc(LENGTH + 1);
    memset(text, '1', LENGTH);
    memcpy(text, "na1d w", 6);
    text[LENGTH] = '\0';
    nf_problem p;
    ck_assert_int_eq(nf_problem_parse(&p, text), NF_ERR_PARSE);
    ck_assert_str_eq(nf_last_error(), "a problem string longer than 4096 characters");
    memset(text + 6, ' ', LENGTH - 6);
    ck_assert_int_eq(nf_problem_parse(&p, text), NF_ERR_PARSE);
    free(text);
}
END_TEST

/* The longest string there is fits nf_problem_hash's buffer. */
START_TEST(greatest_numbers_can_be_written)
{
    nf_problem p;
    nf_problem_init(&p);
    p.rank = NF_MAX_RANK;
    p.dtype = NF_BF16;
    p.out_dtype = NF_F32;
    p.direction = NF_BOTH;
    p.scale_set = 1;
    p.scale = -2.2250738585072014e-308;
    p.batch = p.heads = p.head_dim = p.extra = INT64_MAX;
    p.kv_heads = p.value_dim = INT64_MAX - 1;
    for (int a = 0; a < NF_MAX_RANK; a++) {
        nf_axis *x = &p.axis[a];
        x->extent = x->window = x->stride = x->dilation = x->causal = INT64_MAX - a;
        x->q_begin = x->q_count = x->k_begin = x->k_count = INT64_MAX;
    }
    uint64_t hash;
    ck_assert_int_eq(nf_problem_hash(&p, &hash), NF_OK);
    char text[1024];
    nf_problem back;
    ck_assert_int_eq(nf_problem_format(&p, text, sizeof text, NULL), NF_OK);
    ck_assert_int_eq(nf_problem_parse(&back, text), NF_OK);
    ck_assert(same_problem(&p, &back));
}
END_TEST

START_TEST(format_fills_small_buffers)
{
    nf_problem p;
    nf_problem_parse(&p, "na1d f32 d8 16 w3");
    size_t length = 0;
    ck_assert_int_eq(nf_problem_format(&p, NULL, 0, &length), NF_OK);
    ck_assert_uint_eq(length, strlen("na1d f32 b1 h1 d8 16 w3 fwd"));
    char buffer[10];
    size_t again = 0;
    ck_assert_int_eq(nf_problem_format(&p, buffer, sizeof buffer, &again), NF_ERR_SPACE);
    ck_assert_uint_eq(again, length);
    ck_assert_str_eq(buffer, "na1d f32 ");
    ck_assert_str_eq(nf_last_error(), "buffer: the text needs 28 bytes, the capacity is 10");
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("problem");
    tcase_add_test(cases, random_problems_round_trip);
    tcase_add_test(cases, noise_is_read_or_refused);
    tcase_add_loop_test(cases, canonical_form, 0, sizeof canonical_forms / sizeof canonical_forms[0]);
    tcase_add_test(cases, defaults);
    tcase_add_loop_test(cases, hashes_are_stable, 0, sizeof golden_hashes / sizeof golden_hashes[0]);
    tcase_add_loop_test(cases, grammar_error, 0, GRAMMAR_ERRORS);
    tcase_add_test(cases, overlong_strings_are_refused);
    tcase_add_test(cases, greatest_numbers_can_be_written);
    tcase_add_test(cases, format_fills_small_buffers);
    Suite *suite = suite_create("problem");
    suite_add_tcase(suite, cases);
    return nf_test_main(suite);
}
