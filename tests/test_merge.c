/* Merging partial results: by hand, against whole attention, in place, with odd strides, and what is refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attend.h"
#include "harness.h"
#include "oracle.h"

enum { MOST_PARTS = 4, MOST_ELEMENTS = 4096 };

/* Parts, result and gradients in one set of buffers; element e of a tensor lies at its own strides. */
typedef struct merging {
    int64_t count;
    nf_tensor out_parts[MOST_PARTS], lse_parts[MOST_PARTS], dout_parts[MOST_PARTS], dlse_parts[MOST_PARTS];
    nf_tensor out, lse, dout, dlse;
    const nf_tensor *out_list[MOST_PARTS], *lse_list[MOST_PARTS], *dout_list[MOST_PARTS], *dlse_list[MOST_PARTS];
    double memory[4 * MOST_PARTS + 4][MOST_ELEMENTS];
} merging;

static void create(merging *m, int64_t count, nf_dtype dtype, int32_t rank, const int64_t *extents)
{
    *m = (merging){.count = count};
    memset(m->memory, 0xff, sizeof m->memory);
    int next = 0;
    for (int64_t i = 0; i < count; i++) {
        ck_assert_int_eq(nf_tensor_init(&m->out_parts[i], m->memory[next++], dtype, rank, extents), NF_OK);
        ck_assert_int_eq(nf_tensor_init(&m->lse_parts[i], m->memory[next++], dtype, rank - 1, extents), NF_OK);
        ck_assert_int_eq(nf_tensor_init(&m->dout_parts[i], m->memory[next++], dtype, rank, extents), NF_OK);
        ck_assert_int_eq(nf_tensor_init(&m->dlse_parts[i], m->memory[next++], dtype, rank - 1, extents), NF_OK);
        m->out_list[i] = &m->out_parts[i];
        m->lse_list[i] = &m->lse_parts[i];
        m->dout_list[i] = &m->dout_parts[i];
        m->dlse_list[i] = &m->dlse_parts[i];
    }
    ck_assert_int_eq(nf_tensor_init(&m->out, m->memory[next++], dtype, rank, extents), NF_OK);
    ck_assert_int_eq(nf_tensor_init(&m->lse, m->memory[next++], dtype, rank - 1, extents), NF_OK);
    ck_assert_int_eq(nf_tensor_init(&m->dout, m->memory[next++], dtype, rank, extents), NF_OK);
    ck_assert_int_eq(nf_tensor_init(&m->dlse, m->memory[next++], dtype, rank - 1, extents), NF_OK);
}

static void fill(nf_tensor *tensor, uint64_t *seed, double amplitude)
{
    for (int64_t i = 0; i < tensor_count(tensor); i++)
        tensor_set(tensor, i, amplitude * oracle_uniform(seed));
}

static void fill_all(merging *m, uint64_t *seed)
{
    for (int64_t i = 0; i < m->count; i++) {
        fill(&m->out_parts[i], seed, 1);
        fill(&m->lse_parts[i], seed, 5);
    }
    fill(&m->dout, seed, 1);
    fill(&m->dlse, seed, 1);
}

static nf_status merge_forward(const merging *m)
{
    return nf_merge(m->count, m->out_list, m->lse_list, &m->out, &m->lse);
}

static nf_status merge_backward(const merging *m)
{
    return nf_merge_backward(m->count, m->out_list, m->lse_list, &m->out, &m->lse, &m->dout, &m->dlse, m->dout_list,
                             m->dlse_list);
}

static void ok(nf_status status)
{
    ck_assert_msg(status == NF_OK, "%s", nf_last_error());
}

/* Weights 1/4 and 3/4. */
START_TEST(by_hand)
{
    static merging m;
    for (nf_dtype dtype = NF_F32; dtype <= NF_F64; dtype++) {
        const double tolerance = dtype == NF_F64 ? 1e-14 : 1e-6;
        create(&m, 2, dtype, 2, (const int64_t[]){1, 2});
        for (int64_t i = 0; i < 2; i++) {
            tensor_set(&m.out_parts[0], i, i ? 0 : 4);
            tensor_set(&m.out_parts[1], i, 8);
            tensor_set(&m.dout, i, i ? 1 : 2);
        }
        tensor_set(&m.lse_parts[0], 0, 1);
        tensor_set(&m.lse_parts[1], 0, 1 + log(3));
        tensor_set(&m.dlse, 0, 10);
        ok(merge_forward(&m));
        ck_assert_double_eq_tol(tensor_get(&m.lse, 0), 1 + log(4), tolerance);
        ck_assert_double_eq_tol(tensor_get(&m.out, 0), 7, 8 * tolerance);
        ck_assert_double_eq_tol(tensor_get(&m.out, 1), 6, 8 * tolerance);
        ok(merge_backward(&m));
        ck_assert_double_eq_tol(tensor_get(&m.dout_parts[0], 0), 0.5, tolerance);
        ck_assert_double_eq_tol(tensor_get(&m.dout_parts[1], 1), 0.75, tolerance);
        ck_assert_double_eq_tol(tensor_get(&m.dlse_parts[0], 0), 0.25 * (2 * -3 + -6 + 10), 32 * tolerance);
        ck_assert_double_eq_tol(tensor_get(&m.dlse_parts[1], 0), 0.75 * (2 + 2 + 10), 32 * tolerance);
    }
}
END_TEST

/* Parts with lse -inf do not count, whatever their out holds; if none counts, out is 0 and lse -inf. */
START_TEST(empty_parts)
{
    static merging m;
    create(&m, 3, NF_F32, 3, (const int64_t[]){2, 1, 3});
    uint64_t seed = 1;
    fill_all(&m, &seed);
    for (int64_t i = 0; i < 3; i++) {
        tensor_set(&m.lse_parts[i], 1, -INFINITY);
        for (int64_t c = 3; c < 6; c++)
            tensor_set(&m.out_parts[i], c, NAN);
    }
    tensor_set(&m.lse_parts[0], 0, -INFINITY);
    tensor_set(&m.lse_parts[2], 0, -INFINITY);
    tensor_set(&m.out_parts[0], 0, INFINITY);
    ok(merge_forward(&m));
    ok(merge_backward(&m));
    for (int64_t c = 0; c < 3; c++) {
        ck_assert_double_eq(tensor_get(&m.out, c), tensor_get(&m.out_parts[1], c));
        ck_assert_double_eq(tensor_get(&m.out, 3 + c), 0);
        ck_assert_double_eq(tensor_get(&m.dout_parts[1], c), tensor_get(&m.dout, c));
        for (int64_t i = 0; i < 3; i++) {
            ck_assert_double_eq(tensor_get(&m.dout_parts[i], 3 + c), 0);
            ck_assert(i == 1 || tensor_get(&m.dout_parts[i], c) == 0);
        }
    }
    ck_assert_double_eq(tensor_get(&m.lse, 0), tensor_get(&m.lse_parts[1], 0));
    ck_assert_double_eq(tensor_get(&m.lse, 1), -INFINITY);
    ck_assert_double_eq(tensor_get(&m.dlse_parts[1], 0), tensor_get(&m.dlse, 0));
    for (int64_t i = 0; i < 3; i++) {
        ck_assert_double_eq(tensor_get(&m.dlse_parts[i], 1), 0);
        ck_assert(i == 1 || tensor_get(&m.dlse_parts[i], 0) == 0);
    }
}
END_TEST

/* A NaN reaches its own row and no other. */
START_TEST(nan_propagates)
{
    static merging m;
    create(&m, 2, NF_F32, 2, (const int64_t[]){3, 2});
    uint64_t seed = 2;
    fill_all(&m, &seed);
    tensor_set(&m.lse_parts[1], 0, NAN);
    tensor_set(&m.out_parts[1], 2, NAN);
    ok(merge_forward(&m));
    ck_assert(isnan(tensor_get(&m.lse, 0)) && isnan(tensor_get(&m.out, 0)) && isnan(tensor_get(&m.out, 1)));
    ck_assert(isfinite(tensor_get(&m.lse, 1)) && isnan(tensor_get(&m.out, 2)) && isfinite(tensor_get(&m.out, 3)));
    ck_assert(isfinite(tensor_get(&m.lse, 2)) && isfinite(tensor_get(&m.out, 4)) && isfinite(tensor_get(&m.out, 5)));
    ok(merge_backward(&m));
    ck_assert(isnan(tensor_get(&m.dout_parts[0], 0)) && isnan(tensor_get(&m.dlse_parts[1], 0)));
    ck_assert(isfinite(tensor_get(&m.dout_parts[0], 2)) && isnan(tensor_get(&m.dlse_parts[1], 1)));
    ck_assert(isfinite(tensor_get(&m.dout_parts[0], 4)) && isfinite(tensor_get(&m.dlse_parts[1], 2)));
}
END_TEST

/* Very different lse neither overflow nor lose the greatest part. */
START_TEST(large_lse)
{
    static merging m;
    create(&m, 2, NF_F32, 2, (const int64_t[]){1, 1});
    for (int64_t i = 0; i < 2; i++) {
        tensor_set(&m.lse_parts[i], 0, i ? 9999 : -9999);
        tensor_set(&m.out_parts[i], 0, (double)i + 1);
    }
    ok(merge_forward(&m));
    ck_assert_double_eq(tensor_get(&m.lse, 0), 9999);
    ck_assert_double_eq(tensor_get(&m.out, 0), 2);
}
END_TEST

/* Every rank, a value_dim longer than any block, lse absent, and strides of every kind, against a plain copy. */
START_TEST(ranks_and_strides)
{
    static merging plain, strided;
    const int64_t extents[NF_MAX_TENSOR_RANK] = {3, 2, 1, 2, 3, 2, 5};
    for (int32_t rank = 2; rank <= NF_MAX_TENSOR_RANK; rank++) {
        int64_t shape[NF_MAX_TENSOR_RANK];
        for (int32_t a = 0; a < rank; a++)
            shape[a] = a == rank - 1 && rank < 5 ? 301 : extents[a];
        uint64_t seed = (uint64_t)rank;
        create(&plain, 3, NF_F32, rank, shape);
        create(&strided, 3, NF_F32, rank, shape);
        fill_all(&plain, &seed);
        nf_tensor *const reversed[] = {&strided.out_parts[1], &strided.out, &strided.dout_parts[2]};
        for (int r = 0; r < 3; r++) {
            reversed[r]->data = (float *)reversed[r]->data + tensor_count(reversed[r]) - 1;
            for (int32_t a = 0; a < rank; a++)
                reversed[r]->strides[a] = -reversed[r]->strides[a];
        }
        for (int32_t a = 0; a < rank - 1; a++) {
            strided.lse_parts[2].strides[a] *= 3;
            strided.lse_parts[0].strides[a] = 0;
        }
        for (int64_t i = 0; i < tensor_count(&plain.lse); i++)
            tensor_set(&plain.lse_parts[0], i, 0.25);
        for (int64_t i = 0; i < 3; i++) {
            for (int64_t e = 0; e < tensor_count(&plain.out); e++)
                tensor_set(&strided.out_parts[i], e, tensor_get(&plain.out_parts[i], e));
            for (int64_t e = 0; e < tensor_count(&plain.lse); e++)
                tensor_set(&strided.lse_parts[i], e, tensor_get(&plain.lse_parts[i], e));
        }
        strided.dout = plain.dout;
        strided.dlse = plain.dlse;
        ok(merge_forward(&plain));
        ok(merge_forward(&strided));
        ck_assert(tensor_equal(&plain.out, &strided.out) && tensor_equal(&plain.lse, &strided.lse));
        ok(merge_backward(&plain));
        ok(merge_backward(&strided));
        for (int64_t i = 0; i < 3; i++) {
            ck_assert(tensor_equal(&plain.dout_parts[i], &strided.dout_parts[i]));
            ck_assert(tensor_equal(&plain.dlse_parts[i], &strided.dlse_parts[i]));
        }
        fill(&strided.out, &seed, 1);
        ok(nf_merge(3, strided.out_list, strided.lse_list, &strided.out, NULL));
        ck_assert(tensor_equal(&plain.out, &strided.out));
    }
}
END_TEST

START_TEST(in_place)
{
    static merging m;
    for (int64_t into = 0; into < 3; into++) {
        uint64_t seed = 4;
        create(&m, 3, NF_F32, 3, (const int64_t[]){2, 3, 300});
        fill_all(&m, &seed);
        ok(merge_forward(&m));
        nf_tensor out = m.out, lse = m.lse;
        m.out = m.out_parts[into];
        m.lse = m.lse_parts[into];
        ok(merge_forward(&m));
        ck_assert(tensor_equal(&m.out, &out) && tensor_equal(&m.lse, &lse));
    }
}
END_TEST

static double objective(merging *m)
{
    double sum = 0;
    ok(merge_forward(m));
    for (int64_t i = 0; i < tensor_count(&m->out); i++)
        sum += tensor_get(&m->dout, i) * tensor_get(&m->out, i);
    for (int64_t i = 0; i < tensor_count(&m->lse); i++)
        sum += tensor_get(&m->dlse, i) * tensor_get(&m->lse, i);
    return sum;
}

static void check_differences(merging *m, nf_tensor *of, const nf_tensor *gradient)
{
    const double step = 1e-5;
    for (int64_t i = 0; i < tensor_count(of); i++) {
        const double x = tensor_get(of, i);
        tensor_set(of, i, x + step);
        const double above = objective(m);
        tensor_set(of, i, x - step);
        const double below = objective(m);
        tensor_set(of, i, x);
        ck_assert_double_eq_tol(tensor_get(gradient, i), (above - below) / (2 * step), 1e-8);
    }
}

START_TEST(central_differences)
{
    static merging m;
    uint64_t seed = 6;
    create(&m, 3, NF_F64, 3, (const int64_t[]){2, 2, 3});
    fill_all(&m, &seed);
    ok(merge_forward(&m));
    ok(merge_backward(&m));
    for (int64_t i = 0; i < 3; i++) {
        check_differences(&m, &m.out_parts[i], &m.dout_parts[i]);
        check_differences(&m, &m.lse_parts[i], &m.dlse_parts[i]);
    }
}
END_TEST

/* ---- Against attention ------------------------------------------------------------------------------------------- */

static nf_problem part_problem(const char *text, int64_t begin, int64_t count)
{
    nf_problem problem;
    ck_assert_msg(nf_problem_parse(&problem, text) == NF_OK, "%s", nf_last_error());
    problem.axis[0].k_begin = begin;
    problem.axis[0].k_count = count;
    return problem;
}

/* Rows begin.. of the first axis, of batch 1. */
static void copy_keys(attend *part, const attend *whole, nf_role role, int64_t begin)
{
    nf_tensor *to = &part->tensor[role];
    const int64_t row = tensor_count(to) / to->extents[1];
    for (int64_t i = 0; i < tensor_count(to); i++)
        tensor_set(to, i, tensor_get(&whole->tensor[role], begin * row + i));
}

static void check_split(nf_context *context, const char *text, const int64_t *begins, int parts)
{
    attend whole, part[MOST_PARTS];
    uint64_t seed = 8;
    attend_create_text(&whole, text);
    attend_fill(&whole, &seed, 1);
    attend_run(&whole, context, "reference", NULL, NF_BOTH);
    const nf_tensor *outs[MOST_PARTS], *lses[MOST_PARTS], *douts[MOST_PARTS], *dlses[MOST_PARTS];
    for (int i = 0; i < parts; i++) {
        const nf_problem problem = part_problem(text, begins[i], begins[i + 1] - begins[i]);
        attend_create(&part[i], &problem);
        attend_copy(&part[i], &whole, NF_Q);
        copy_keys(&part[i], &whole, NF_K, begins[i]);
        copy_keys(&part[i], &whole, NF_V, begins[i]);
        attend_run(&part[i], context, "reference", NULL, NF_FWD);
        outs[i] = &part[i].tensor[NF_OUT];
        lses[i] = &part[i].tensor[NF_LSE];
        douts[i] = &part[i].tensor[NF_DOUT];
        dlses[i] = &part[i].tensor[NF_DLSE];
    }
    attend merged;
    attend_create_text(&merged, text);
    ok(nf_merge(parts, outs, lses, &merged.tensor[NF_OUT], &merged.tensor[NF_LSE]));
    ck_assert_double_lt(tensor_distance(&merged.tensor[NF_OUT], &whole.tensor[NF_OUT]), 1e-14);
    ck_assert_double_lt(tensor_distance(&merged.tensor[NF_LSE], &whole.tensor[NF_LSE]), 1e-14);

    ok(nf_merge_backward(parts, outs, lses, &merged.tensor[NF_OUT], &merged.tensor[NF_LSE], &whole.tensor[NF_DOUT],
                         &whole.tensor[NF_DLSE], douts, dlses));
    nf_tensor *dq = &merged.tensor[NF_DQ];
    for (int64_t i = 0; i < tensor_count(dq); i++)
        tensor_set(dq, i, 0);
    for (int p = 0; p < parts; p++) {
        attend_run(&part[p], context, "reference", NULL, NF_BWD);
        for (int64_t i = 0; i < tensor_count(dq); i++)
            tensor_set(dq, i, tensor_get(dq, i) + tensor_get(&part[p].tensor[NF_DQ], i));
        for (int role = NF_DK; role <= NF_DV; role++) {
            attend expected;
            attend_create(&expected, &part[p].problem);
            copy_keys(&expected, &whole, (nf_role)role, begins[p]);
            ck_assert_double_lt(tensor_distance(&part[p].tensor[role], &expected.tensor[role]), 1e-13);
            attend_destroy(&expected);
        }
    }
    ck_assert_double_lt(tensor_distance(dq, &whole.tensor[NF_DQ]), 1e-13);
    for (int p = 0; p < parts; p++)
        attend_destroy(&part[p]);
    attend_destroy(&whole);
    attend_destroy(&merged);
}

/* Splitting the keys and merging is whole attention, forward and backward, empty parts of rows included. */
START_TEST(split_keys_equal_whole)
{
    nf_context *context;
    ok(nf_context_create(&context, NULL));
    check_split(context, "na1d f64 h2/1 d3/2 17", (const int64_t[]){0, 5, 6, 17}, 3);
    check_split(context, "na1d f64 h2/1 d3/2 17 w5 s2 dil2", (const int64_t[]){0, 9, 17}, 2);
    check_split(context, "na1d f64 d3 16 w7 c1", (const int64_t[]){0, 3, 8, 12, 16}, 4);
    check_split(context, "na1d f64 d3 5/16 c1", (const int64_t[]){0, 3, 14, 16}, 3);
    check_split(context, "na2d f64 h2 d3/2 6x5 w3 dil2x1 c0x1", (const int64_t[]){0, 1, 4, 6}, 3);
    nf_context_destroy(context);
}
END_TEST

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

/* A status and sentence, and nothing written. */
static void refused(merging *m, nf_status got, nf_status want, const char *sentence)
{
    ck_assert_msg(got == want && strstr(nf_last_error(), sentence), "status %d, \"%s\", not %d, \"%s\"", (int)got,
                  nf_last_error(), (int)want, sentence);
    for (int64_t i = 0; i < 6; i++)
        ck_assert(isnan(((float *)m->memory[8])[i]) && isnan(((float *)m->memory[2])[i]));
}

static void fresh(merging *m)
{
    uint64_t seed = 7;
    create(m, 2, NF_F32, 2, (const int64_t[]){2, 3});
    fill_all(m, &seed);
}

START_TEST(refusals)
{
    static merging m;
    fresh(&m);
    refused(&m, nf_merge(0, m.out_list, m.lse_list, &m.out, &m.lse), NF_ERR_ARGUMENT, "count 0 must be at least 1");
    refused(&m, nf_merge(-3, m.out_list, m.lse_list, &m.out, &m.lse), NF_ERR_ARGUMENT, "count -3");
    refused(&m, nf_merge(2, NULL, m.lse_list, &m.out, &m.lse), NF_ERR_ARGUMENT, "out_parts: NULL");
    refused(&m, nf_merge(2, m.out_list, NULL, &m.out, &m.lse), NF_ERR_ARGUMENT, "lse_parts: NULL");
    refused(&m, nf_merge(2, m.out_list, m.lse_list, NULL, &m.lse), NF_ERR_ARGUMENT, "out: NULL");
    m.out_list[1] = NULL;
    refused(&m, merge_forward(&m), NF_ERR_ARGUMENT, "out_parts[1]: NULL");

    fresh(&m);
    m.lse_parts[1].size = 8;
    refused(&m, merge_forward(&m), NF_ERR_ARGUMENT, "lse_parts[1]: size 8");
    fresh(&m);
    m.out.dtype = NF_BF16;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out: dtype bf16 must be f32 or f64");
    fresh(&m);
    m.lse.dtype = NF_F64;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "lse: dtype f64 must be that of out, f32");
    fresh(&m);
    m.out_parts[0].memory = NF_CUDA;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out_parts[0]: memory cuda must be host");
    fresh(&m);
    m.lse_parts[0].rank = 2;
    m.lse_parts[0].extents[1] = 1;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "lse_parts[0]: rank 2 must be 1");
    fresh(&m);
    m.out.rank = 1;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out: rank 1 must be at least 2");
    fresh(&m);
    m.out_parts[1].extents[1] = 2;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out_parts[1]: extent 1 is 2, must be that of out, 3");
    fresh(&m);
    m.lse_parts[1].data = NULL;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "lse_parts[1]: data is NULL");
}
END_TEST

START_TEST(refused_overlaps)
{
    static merging m;
    fresh(&m);
    m.out.strides[0] = 0;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out overlaps itself");
    fresh(&m);
    m.out.data = (float *)m.out_parts[0].data + 1;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out overlaps out_parts[0] without being the same view");
    fresh(&m);
    m.out.data = m.out_parts[1].data;
    m.out_parts[1].strides[0] = 1;
    m.out_parts[1].strides[1] = 2;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out overlaps out_parts[1]");
    fresh(&m);
    m.out.data = m.lse_parts[1].data;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out overlaps lse_parts[1]");
    fresh(&m);
    m.lse.data = m.out_parts[0].data;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "lse overlaps out_parts[0]");
    fresh(&m);
    m.lse.data = (float *)m.out.data + 4;
    refused(&m, merge_forward(&m), NF_ERR_TENSOR, "out overlaps lse");
}
END_TEST

START_TEST(backward_refusals)
{
    static merging m;
    fresh(&m);
    refused(&m,
            nf_merge_backward(2, m.out_list, m.lse_list, &m.out, NULL, &m.dout, &m.dlse, m.dout_list, m.dlse_list),
            NF_ERR_ARGUMENT, "lse: NULL");
    refused(&m, nf_merge_backward(2, m.out_list, m.lse_list, &m.out, &m.lse, NULL, NULL, m.dout_list, m.dlse_list),
            NF_ERR_ARGUMENT, "dout: NULL");
    refused(&m, nf_merge_backward(2, m.out_list, m.lse_list, &m.out, &m.lse, &m.dout, NULL, NULL, m.dlse_list),
            NF_ERR_ARGUMENT, "dout_parts: NULL");
    m.dlse_list[0] = NULL;
    refused(&m, merge_backward(&m), NF_ERR_ARGUMENT, "dlse_parts[0]: NULL");
    fresh(&m);
    m.dlse.extents[0] = 1;
    refused(&m, merge_backward(&m), NF_ERR_TENSOR, "dlse: extent 0 is 1");
    static const char *const sentences[] = {
        "dout_parts[1] overlaps out_parts[0]",  "dout_parts[1] overlaps lse_parts[1]", "dout_parts[1] overlaps out",
        "dout_parts[1] overlaps lse",           "dout_parts[1] overlaps dout",         "dout_parts[1] overlaps dlse",
        "dout_parts[0] overlaps dout_parts[1]", "dout_parts[1] overlaps dlse_parts[0]"};
    for (int i = 0; i < 8; i++) {
        fresh(&m);
        const nf_tensor *const on[] = {&m.out_parts[0], &m.lse_parts[1], &m.out, &m.lse,
                                       &m.dout, &m.dlse, &m.dout_parts[0], &m.dlse_parts[0]};
        m.dout_parts[1].data = on[i]->data;
        refused(&m, merge_backward(&m), NF_ERR_TENSOR, sentences[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("merge");
    TCase *tests = tcase_create("merge");
    tcase_add_test(tests, by_hand);
    tcase_add_test(tests, empty_parts);
    tcase_add_test(tests, nan_propagates);
    tcase_add_test(tests, large_lse);
    tcase_add_test(tests, ranks_and_strides);
    tcase_add_test(tests, in_place);
    tcase_add_test(tests, central_differences);
    tcase_add_test(tests, split_keys_equal_whole);
    tcase_add_test(tests, refusals);
    tcase_add_test(tests, refused_overlaps);
    tcase_add_test(tests, backward_refusals);
    suite_add_tcase(suite, tests);
    return nf_test_main(suite);
}
