/* The unfused pair: nf_qk and nf_av against sums over the slots of doc/semantics.md, their gradients against such sums,
 * differences, and nf_backward; and what they refuse. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attend.h"
#include "harness.h"
#include "oracle.h"

typedef nf_status (*call_function)(const nf_plan *plan, const nf_io *io, const nf_exec *exec);

static nf_context *context;
static const char *backend; /* that runs */

static nf_context *create_context(const char *isa, int64_t threads)
{
    nf_context_options options;
    nf_context *made;
    nf_context_options_init(&options);
    options.isa = isa;
    options.num_threads = threads;
    if (nf_context_create(&made, &options) != NF_OK)
        ck_abort_msg("%s", nf_last_error());
    return made;
}

static void setup(void)
{
    backend = "cpu";
    context = create_context(NULL, 2);
}

/* Programs are built once per problem, not once per call. */
static char cache_folder[32];

static void setup_device(void)
{
    strcpy(cache_folder, "/tmp/nearfield-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(cache_folder));
    setenv("NEARFIELD_CACHE_DIR", cache_folder, 1);
    context = create_context(NULL, 2);
    backend = "opencl";
}

/* Asked in a child: drivers do not survive the fork of a test. */
static bool has_device(void)
{
    int status;
    const pid_t child = fork();
    if (child == 0) {
        context = create_context(NULL, 1);
        _exit(nf_backend_available(context, "opencl") != NF_OK);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static void remove_cache(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", cache_folder);
    ck_assert_int_eq(system(command), 0);
}

static void teardown(void)
{
    nf_context_destroy(context);
}

static void teardown_device(void)
{
    teardown();
    remove_cache();
}

/* ---- Cases ------------------------------------------------------------------------------------------------------- */

static void add_scores(attend *a)
{
    for (int role = NF_SCORES; role <= NF_DSCORES; role++) {
        if (nf_problem_tensor(&a->problem, (nf_role)role, &a->tensor[role]) != NF_OK)
            ck_abort_msg("%s", nf_last_error());
        const size_t bytes = (size_t)tensor_count(&a->tensor[role]) * nf_dtype_size(a->tensor[role].dtype);
        a->tensor[role].data = a->memory[role] = malloc(bytes);
        memset(a->memory[role], 0xff, bytes);
    }
}

static void create(attend *a, const char *text, uint64_t *seed)
{
    attend_create_text(a, text);
    add_scores(a);
    attend_fill(a, seed, 1);
}

static void create_random(attend *a, nf_dtype dtype, uint64_t *seed)
{
    static const int64_t longest[] = {0, 60, 12, 6, 4};
    nf_problem p;
    nf_problem_init(&p);
    p.direction = NF_BOTH;
    p.dtype = p.out_dtype = dtype;
    p.rank = (int32_t)oracle_between(seed, 1, 4);
    p.batch = oracle_between(seed, 1, 2);
    p.kv_heads = oracle_between(seed, 1, 2);
    p.heads = p.kv_heads * oracle_between(seed, 1, 3);
    p.head_dim = oracle_between(seed, 1, 20);
    p.value_dim = oracle_between(seed, 1, 20);
    p.extra = oracle_between(seed, 0, 3);
    for (int32_t i = 0; i < p.rank; i++)
        p.axis[i] = p.rank == 1 && oracle_between(seed, 0, 3) == 0 ? oracle_cross_axis(seed, 40)
                                                                   : oracle_axis(seed, longest[p.rank]);
    attend_create(a, &p);
    add_scores(a);
    attend_fill(a, seed, 1);
}

static nf_status try_call(attend *a, const char *algo, call_function call, const nf_io *io)
{
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = backend;
    options.algo = algo;
    options.layout = io;
    nf_plan *plan;
    nf_status status = nf_plan_create(&plan, context, &a->problem, &options);
    if (status != NF_OK)
        ck_abort_msg("%s", nf_last_error());
    status = call(plan, io, NULL);
    nf_plan_destroy(plan);
    return status;
}

static void run(attend *a, call_function call)
{
    nf_io io;
    attend_io(&io, a);
    a->problem.direction = NF_BOTH;
    if (try_call(a, "unfused", call, &io) != NF_OK)
        ck_abort_msg("%s", nf_last_error());
}

static const char *text_of(const attend *a)
{
    static char text[512];
    ck_assert_int_eq(nf_problem_format(&a->problem, text, sizeof text, NULL), NF_OK);
    return text;
}

/* ---- Slots by definition ----------------------------------------------------------------------------------------- */

/* The key token of a slot of one axis, or -1 if the slot does not exist. */
static int64_t slot_key(const nf_axis *axis, int64_t query, int64_t slot)
{
    nf_axis whole = *axis;
    whole.k_begin = whole.k_count = 0;
    const bool cross = axis->key_extent && axis->key_extent != axis->extent;
    const int64_t step = cross ? 1 : axis->dilation;
    int64_t first = cross ? 0 : query % step;
    while (!cross && !oracle_sees(&whole, query, first))
        first += step;
    const int64_t key = first + slot * step;
    return oracle_sees(axis, query, key) ? key : -1;
}

static int64_t window_of(const nf_axis *axis)
{
    return axis->window ? axis->window : axis->key_extent ? axis->key_extent : axis->extent;
}

/* A score by its place: row-major number in scores. */
typedef struct place {
    bool exists, extra;
    int64_t query, key; /* row numbers of [batch, tokens.., heads] in tensors of queries and of keys */
} place;

/* Row-major number of a position in a tensor without its last dimension. */
static int64_t row_number(const nf_tensor *tensor, const int64_t *position)
{
    int64_t full[NF_MAX_TENSOR_RANK] = {0};
    memcpy(full, position, (size_t)(tensor->rank - 1) * sizeof full[0]);
    return tensor_number(tensor, full) / tensor->extents[tensor->rank - 1];
}

static place place_of(const attend *a, int64_t number)
{
    const nf_problem *p = &a->problem;
    int64_t at[NF_MAX_TENSOR_RANK], query[NF_MAX_TENSOR_RANK], key[NF_MAX_TENSOR_RANK];
    tensor_position(&a->tensor[NF_SCORES], number, at);
    int64_t window = 1, rest = at[2 + p->rank];
    place result = {.exists = true};
    for (int32_t i = 0; i < p->rank; i++)
        window *= window_of(&p->axis[i]);
    query[0] = key[0] = at[0];
    for (int32_t i = 0; i < p->rank; i++)
        query[1 + i] = at[2 + i];
    query[1 + p->rank] = at[1];
    result.query = row_number(&a->tensor[NF_Q], query);
    result.extra = rest >= window;
    if (result.extra) {
        key[1] = rest - window;
        key[2] = at[1] * p->kv_heads / p->heads;
        result.key = row_number(&a->tensor[NF_EXTRA_K], key);
        return result;
    }
    for (int32_t i = p->rank - 1; i >= 0; i--) {
        const nf_axis *axis = &p->axis[i];
        const int64_t token = slot_key(axis, oracle_query_begin(axis) + at[2 + i], rest % window_of(axis));
        result.exists = result.exists && token >= 0;
        key[1 + i] = token - oracle_key_begin(axis);
        rest /= window_of(axis);
    }
    key[1 + p->rank] = at[1] * p->kv_heads / p->heads;
    if (result.exists)
        result.key = row_number(&a->tensor[NF_K], key);
    return result;
}

static double scale_of(const nf_problem *p)
{
    return p->scale_set ? p->scale : 1 / sqrt((double)p->head_dim);
}

static double element(const attend *a, nf_role role, int64_t row, int64_t i)
{
    const nf_tensor *tensor = &a->tensor[role];
    return tensor_get(tensor, row * tensor->extents[tensor->rank - 1] + i);
}

static double dot(const attend *a, nf_role x, int64_t x_row, nf_role y, int64_t y_row)
{
    const nf_tensor *tensor = &a->tensor[x];
    double sum = 0;
    for (int64_t i = 0; i < tensor->extents[tensor->rank - 1]; i++)
        sum += element(a, x, x_row, i) * element(a, y, y_row, i);
    return sum;
}

/* Sums in double with the shapes of a case's tensors. */
typedef struct sums {
    double *role[NF_ROLES];
} sums;

static double *zeros(const attend *a, nf_role role)
{
    return a->tensor[role].rank ? calloc((size_t)tensor_count(&a->tensor[role]), sizeof(double)) : NULL;
}

static void add_row(const attend *a, sums *s, nf_role to, int64_t to_row, double factor, nf_role from, int64_t from_row)
{
    const nf_tensor *tensor = &a->tensor[from];
    const int64_t dim = tensor->extents[tensor->rank - 1];
    for (int64_t i = 0; i < dim; i++)
        s->role[to][to_row * dim + i] += factor * element(a, from, from_row, i);
}

static void compare(const attend *a, sums *s, nf_role role, double tolerance)
{
    const nf_tensor *tensor = &a->tensor[role];
    for (int64_t i = 0; s->role[role] && i < tensor_count(tensor); i++) {
        const double got = tensor_get(tensor, i), want = s->role[role][i];
        if (!(got == want || fabs(got - want) <= tolerance * fmax(1, fabs(want))))
            ck_abort_msg("%s: %s[%ld] is %.9g, not %.9g", text_of(a), nf_role_name(role), (long)i, got, want);
    }
    free(s->role[role]);
}

/* Weights of existing slots from a seed; NaN in the others, which must not be read. */
static void fill_slots(attend *a, nf_role role, uint64_t *seed)
{
    for (int64_t i = 0; i < tensor_count(&a->tensor[role]); i++)
        tensor_set(&a->tensor[role], i, place_of(a, i).exists ? oracle_uniform(seed) : NAN);
}

/* ---- Against sums ------------------------------------------------------------------------------------------------ */

static const char *const rungs[] = {"baseline", "avx2", "avx512", "avx512bf16"};
static const nf_dtype types[] = {NF_F64, NF_F32, NF_BF16, NF_F16};
enum { RUNGS = sizeof rungs / sizeof *rungs, TYPES = sizeof types / sizeof *types, CASES = 8 };

/* Of sums of up to a thousand products of numbers below 1. Weights of 16-bit problems may be rounded to their type. */
static double tolerance_of(const attend *a, bool weighs)
{
    const nf_dtype dtype = a->problem.dtype;
    if (dtype == NF_F64)
        return 1e-12;
    return dtype == NF_F32 || !weighs ? 5e-5 : dtype == NF_F16 ? 1e-2 : 8e-2;
}

static void check_qk(attend *a)
{
    sums s = {.role = {[NF_SCORES] = zeros(a, NF_SCORES)}};
    run(a, nf_qk);
    for (int64_t i = 0; i < tensor_count(&a->tensor[NF_SCORES]); i++) {
        const place at = place_of(a, i);
        s.role[NF_SCORES][i] =
            at.exists ? scale_of(&a->problem) * dot(a, NF_Q, at.query, at.extra ? NF_EXTRA_K : NF_K, at.key)
                      : -INFINITY;
    }
    compare(a, &s, NF_SCORES, tolerance_of(a, false));
}

static void check_av(attend *a, uint64_t *seed)
{
    sums s = {.role = {[NF_OUT] = zeros(a, NF_OUT)}};
    fill_slots(a, NF_SCORES, seed);
    run(a, nf_av);
    for (int64_t i = 0; i < tensor_count(&a->tensor[NF_SCORES]); i++) {
        const place at = place_of(a, i);
        if (at.exists)
            add_row(a, &s, NF_OUT, at.query, tensor_get(&a->tensor[NF_SCORES], i), at.extra ? NF_EXTRA_V : NF_V,
                    at.key);
    }
    compare(a, &s, NF_OUT, tolerance_of(a, true));
}

static void check_qk_backward(attend *a, uint64_t *seed)
{
    sums s = {.role = {[NF_DQ] = zeros(a, NF_DQ), [NF_DK] = zeros(a, NF_DK), [NF_DEXTRA_K] = zeros(a, NF_DEXTRA_K)}};
    fill_slots(a, NF_DSCORES, seed);
    run(a, nf_qk_backward);
    for (int64_t i = 0; i < tensor_count(&a->tensor[NF_DSCORES]); i++) {
        const place at = place_of(a, i);
        const double weight = scale_of(&a->problem) * tensor_get(&a->tensor[NF_DSCORES], i);
        if (!at.exists)
            continue;
        add_row(a, &s, NF_DQ, at.query, weight, at.extra ? NF_EXTRA_K : NF_K, at.key);
        add_row(a, &s, at.extra ? NF_DEXTRA_K : NF_DK, at.key, weight, NF_Q, at.query);
    }
    compare(a, &s, NF_DQ, tolerance_of(a, true));
    compare(a, &s, NF_DK, tolerance_of(a, true));
    compare(a, &s, NF_DEXTRA_K, tolerance_of(a, true));
}

static void check_av_backward(attend *a, uint64_t *seed)
{
    sums s = {
        .role = {
            [NF_DSCORES] = zeros(a, NF_DSCORES), [NF_DV] = zeros(a, NF_DV), [NF_DEXTRA_V] = zeros(a, NF_DEXTRA_V)}};
    fill_slots(a, NF_SCORES, seed);
    run(a, nf_av_backward);
    for (int64_t i = 0; i < tensor_count(&a->tensor[NF_SCORES]); i++) {
        const place at = place_of(a, i);
        if (!at.exists)
            continue;
        s.role[NF_DSCORES][i] = dot(a, NF_DOUT, at.query, at.extra ? NF_EXTRA_V : NF_V, at.key);
        add_row(a, &s, at.extra ? NF_DEXTRA_V : NF_DV, at.key, tensor_get(&a->tensor[NF_SCORES], i), NF_DOUT, at.query);
    }
    compare(a, &s, NF_DSCORES, tolerance_of(a, false));
    compare(a, &s, NF_DV, tolerance_of(a, true));
    compare(a, &s, NF_DEXTRA_V, tolerance_of(a, true));
}

static void check_all(attend *a, uint64_t *seed)
{
    check_qk(a);
    check_av(a, seed);
    check_qk_backward(a, seed);
    check_av_backward(a, seed);
}

START_TEST(sums_over_slots)
{
    uint64_t seed = 100 + (uint64_t)_i;
    nf_context_destroy(context);
    context = create_context(rungs[_i / TYPES], 2);
    for (int i = 0; i < CASES; i++) {
        attend a;
        create_random(&a, types[_i % TYPES], &seed);
        check_all(&a, &seed);
        attend_destroy(&a);
    }
}
END_TEST

/* On a device, as far as it has the type. */
START_TEST(device_sums_over_slots)
{
    uint64_t seed = 200 + (uint64_t)_i;
    attend a;
    nf_plan *plan;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.backend = backend;
    create_random(&a, types[_i % TYPES], &seed);
    const nf_status status = nf_plan_create(&plan, context, &a.problem, &options);
    if (status == NF_OK) {
        nf_plan_destroy(plan);
        check_all(&a, &seed);
    }
    attend_destroy(&a);
    if (status != NF_OK)
        NF_SKIP("the device has no such type");
}
END_TEST

/* Large enough for groups of tiles, several column tiles, and parts of the gradients of extra tokens. */
START_TEST(many_tiles)
{
    static const char *const texts[] = {"na2d f32 h2/1 d3 33x30 w15x19 both", "na1d f64 d2 400 w300 s7 c1 x3 both",
                                        "na3d f32 h4/2 d5/2 9x10x11 w7x8x9 c0x1x0 x60 both",
                                        "na2d bf16 d4 31x33 w9x8 s3x2 dil2x3 q3:20x0:0 k5:22x2:25 both"};
    uint64_t seed = 5;
    attend a;
    create(&a, texts[_i], &seed);
    check_all(&a, &seed);
    attend_destroy(&a);
}
END_TEST

/* The document's example of a causal window: what was cut off is -inf, at the end of the slots. */
START_TEST(causal_slots)
{
    static const bool exists[8][4] = {{1, 0, 0, 0}, {1, 1, 0, 0}, {1, 1, 1, 0}, {1, 1, 1, 1},
                                      {1, 1, 1, 0}, {1, 1, 1, 1}, {1, 1, 1, 0}, {1, 1, 1, 1}};
    uint64_t seed = 1;
    attend a;
    create(&a, "na1d f32 d3 8 w4 s2 c1 x1", &seed);
    ck_assert_int_eq(a.tensor[NF_SCORES].extents[3], 5);
    run(&a, nf_qk);
    for (int64_t i = 0; i < 8 * 5; i++) {
        const double score = tensor_get(&a.tensor[NF_SCORES], i);
        ck_assert(i % 5 == 4 || exists[i / 5][i % 5] ? isfinite(score) : score == -INFINITY);
    }
    attend_destroy(&a);
}
END_TEST

/* Parts with disjoint key ranges have the same slots, each existing in one part. */
START_TEST(split_keys)
{
    uint64_t seed = 2, again = 2;
    attend whole, part;
    create(&whole, "na1d f64 d4 30 w7 s2 dil2", &seed);
    run(&whole, nf_qk);
    const int64_t count = tensor_count(&whole.tensor[NF_SCORES]);
    double *merged = malloc((size_t)count * sizeof *merged);
    for (int64_t i = 0; i < count; i++)
        merged[i] = -INFINITY;
    for (int64_t begin = 0; begin < 30; begin += 13) {
        char text[64];
        snprintf(text, sizeof text, "na1d f64 d4 30 w7 s2 dil2 k%d:%d", (int)begin, begin < 26 ? 13 : 4);
        create(&part, text, &again);
        attend_copy(&part, &whole, NF_Q);
        for (int64_t i = 0; i < tensor_count(&part.tensor[NF_K]); i++)
            tensor_set(&part.tensor[NF_K], i, tensor_get(&whole.tensor[NF_K], begin * 4 + i));
        run(&part, nf_qk);
        for (int64_t i = 0; i < count; i++) {
            const double score = tensor_get(&part.tensor[NF_SCORES], i);
            ck_assert(score == -INFINITY || merged[i] == -INFINITY);
            merged[i] = fmax(merged[i], score);
        }
        attend_destroy(&part);
    }
    for (int64_t i = 0; i < count; i++)
        ck_assert_double_eq_tol(merged[i], tensor_get(&whole.tensor[NF_SCORES], i), 1e-14);
    free(merged);
    attend_destroy(&whole);
}
END_TEST

/* ---- Gradients --------------------------------------------------------------------------------------------------- */

/* sum of weights times results, where they exist. */
static double weighted_sum(const attend *a, nf_role result, nf_role weights)
{
    double sum = 0;
    for (int64_t i = 0; i < tensor_count(&a->tensor[result]); i++)
        if (result != NF_SCORES || place_of(a, i).exists)
            sum += tensor_get(&a->tensor[result], i) * tensor_get(&a->tensor[weights], i);
    return sum;
}

static void check_differences(attend *a, call_function call, nf_role of, nf_role gradient, nf_role result,
                              nf_role weights)
{
    const double step = 1e-4;
    nf_tensor *tensor = &a->tensor[of];
    for (int64_t i = 0; tensor->rank && i < tensor_count(tensor); i++) {
        const double x = tensor_get(tensor, i);
        if (of == NF_SCORES && !place_of(a, i).exists)
            continue;
        tensor_set(tensor, i, x + step);
        run(a, call);
        const double above = weighted_sum(a, result, weights);
        tensor_set(tensor, i, x - step);
        run(a, call);
        const double below = weighted_sum(a, result, weights);
        tensor_set(tensor, i, x);
        ck_assert_double_eq_tol(tensor_get(&a->tensor[gradient], i), (above - below) / (2 * step), 1e-9);
    }
}

START_TEST(central_differences)
{
    static const char *const texts[] = {"na1d f64 h2/1 d3/2 11 w5 s2 c1 x2 k2:8", "na2d f64 h2 d2/3 5x4 w3x2 dil1x2",
                                        "na1d f64 d2 4/9 c1 x1", "na3d f64 d2 3x3x4 w2x3x2 c0x1x0 scale=-0.5"};
    uint64_t seed = 20;
    attend a;
    create(&a, texts[_i], &seed);
    fill_slots(&a, NF_DSCORES, &seed);
    run(&a, nf_qk_backward);
    check_differences(&a, nf_qk, NF_Q, NF_DQ, NF_SCORES, NF_DSCORES);
    check_differences(&a, nf_qk, NF_K, NF_DK, NF_SCORES, NF_DSCORES);
    check_differences(&a, nf_qk, NF_EXTRA_K, NF_DEXTRA_K, NF_SCORES, NF_DSCORES);
    fill_slots(&a, NF_SCORES, &seed);
    run(&a, nf_av_backward);
    check_differences(&a, nf_av, NF_SCORES, NF_DSCORES, NF_OUT, NF_DOUT);
    check_differences(&a, nf_av, NF_V, NF_DV, NF_OUT, NF_DOUT);
    check_differences(&a, nf_av, NF_EXTRA_V, NF_DEXTRA_V, NF_OUT, NF_DOUT);
    attend_destroy(&a);
}
END_TEST

/* The softmax of scores in place, or its gradient: dscores becomes p (dscores - sum p dscores). */
static void soften(attend *a, bool gradient)
{
    const nf_tensor *scores = &a->tensor[NF_SCORES];
    const int64_t slots = scores->extents[scores->rank - 1];
    for (int64_t first = 0; first < tensor_count(scores); first += slots) {
        double max = -INFINITY, sum = 0;
        for (int64_t i = first; i < first + slots; i++) {
            const double x = tensor_get(scores, i);
            max = fmax(max, x);
            sum += gradient ? x * tensor_get(&a->tensor[NF_DSCORES], i) : 0;
        }
        for (int64_t i = first; i < first + slots && !gradient; i++)
            sum += max == -INFINITY ? 0 : exp(tensor_get(scores, i) - max);
        for (int64_t i = first; i < first + slots; i++) {
            const double x = tensor_get(scores, i);
            if (gradient)
                tensor_set(&a->tensor[NF_DSCORES], i, x * (tensor_get(&a->tensor[NF_DSCORES], i) - sum));
            else
                tensor_set(&a->tensor[NF_SCORES], i, sum > 0 ? exp(x - max) / sum : 0);
        }
    }
}

/* The pair with a softmax between them is forward, their gradients with its gradient are backward. */
START_TEST(chain_is_fused)
{
    static const char *const texts[] = {"na2d f64 b2 h4/2 d5/3 9x8 w5x4 s2x1 c0x1 x2",
                                        "na1d f64 h2 d7 40 w9 dil3 k4:30", "na1d f64 d3 20/50 c1 k10:30",
                                        "na4d f64 d2 3x4x3x4 w2x3x3x2 q1:2x0:0x0:0x1:2"};
    static const nf_role roles[] = {NF_OUT, NF_DQ, NF_DK, NF_DV, NF_DEXTRA_K, NF_DEXTRA_V};
    uint64_t seed = 30;
    attend pair, fused;
    create(&pair, texts[_i], &seed);
    attend_create_text(&fused, texts[_i]);
    for (int role = NF_Q; role <= NF_DOUT; role++)
        if (fused.tensor[role].rank && role != NF_OUT && role != NF_LSE)
            attend_copy(&fused, &pair, (nf_role)role);
    fused.tensor[NF_DLSE].rank = 0;
    attend_run(&fused, context, "cpu", "tile", NF_BOTH);
    run(&pair, nf_qk);
    soften(&pair, false);
    run(&pair, nf_av);
    run(&pair, nf_av_backward);
    soften(&pair, true);
    run(&pair, nf_qk_backward);
    for (size_t r = 0; r < sizeof roles / sizeof *roles; r++)
        if (pair.tensor[roles[r]].rank)
            ck_assert_msg(tensor_distance(&pair.tensor[roles[r]], &fused.tensor[roles[r]]) <= 1e-12,
                          "%s: %s differs by %g", texts[_i], nf_role_name(roles[r]),
                          tensor_distance(&pair.tensor[roles[r]], &fused.tensor[roles[r]]));
    attend_destroy(&pair);
    attend_destroy(&fused);
}
END_TEST

/* ---- Memory and threads ------------------------------------------------------------------------------------------ */

static void run_all(attend *a)
{
    run(a, nf_qk);
    soften(a, false);
    run(a, nf_av);
    run(a, nf_av_backward);
    run(a, nf_qk_backward);
}

static void check_same_results(const attend *a, const attend *b)
{
    for (int role = NF_OUT; role < NF_ROLES; role++)
        if (role != NF_LSE && a->tensor[role].rank)
            ck_assert_msg(tensor_equal(&a->tensor[role], &b->tensor[role]), "%s", nf_role_name((nf_role)role));
}

/* Scores with the slots outermost and backwards. */
START_TEST(strides)
{
    static const char *const text = "na2d f32 b2 h2/1 d3/5 6x5 w3x4 c1x0 x2";
    uint64_t seed = 40, again = 40;
    attend a, strided;
    create(&a, text, &seed);
    create(&strided, text, &again);
    for (int role = NF_SCORES; role <= NF_DSCORES; role++) {
        nf_tensor *tensor = &strided.tensor[role];
        const int32_t last = tensor->rank - 1;
        const int64_t rows = tensor_count(tensor) / tensor->extents[last];
        for (int32_t i = 0; i < last; i++)
            tensor->strides[i] /= tensor->extents[last];
        tensor->strides[last] = -rows;
        tensor->data = (float *)tensor->data + (tensor->extents[last] - 1) * rows;
    }
    run_all(&a);
    run_all(&strided);
    check_same_results(&a, &strided);
    attend_destroy(&a);
    attend_destroy(&strided);
}
END_TEST

START_TEST(thread_count)
{
    static const char *const text = "na2d f32 h4/2 d7/5 20x19 w9x8 s2 c0x1 x3 both";
    uint64_t seed = 50;
    attend one;
    nf_context_destroy(context);
    context = create_context(NULL, 1);
    create(&one, text, &seed);
    run_all(&one);
    for (int64_t threads = 2; threads <= 4; threads++) {
        uint64_t again = 50;
        attend many;
        nf_context_destroy(context);
        context = create_context(NULL, threads);
        create(&many, text, &again);
        run_all(&many);
        check_same_results(&one, &many);
        attend_destroy(&many);
    }
    attend_destroy(&one);
}
END_TEST

static bool is_finite(const nf_tensor *tensor, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        if (!isfinite(tensor_get(tensor, i)))
            return false;
    return true;
}

/* A window of 4 over 40 tokens: key 20 is seen by queries 19..22, query 20 sees keys 18..21. */
START_TEST(nan_isolation)
{
    const int64_t d = 3, bad = 20;
    uint64_t seed = 60;
    attend a;
    create(&a, "na1d f32 d3 40 w4", &seed);
    for (int64_t i = 0; i < d; i++) {
        tensor_set(&a.tensor[NF_K], bad * d + i, NAN);
        tensor_set(&a.tensor[NF_V], bad * d + i, INFINITY);
    }
    run(&a, nf_qk);
    fill_slots(&a, NF_SCORES, &seed);
    fill_slots(&a, NF_DSCORES, &seed);
    run(&a, nf_av);
    run(&a, nf_qk_backward);
    for (int64_t i = 0; i < 40; i++) {
        ck_assert_int_eq(is_finite(&a.tensor[NF_OUT], i * d, i * d + d), i < 19 || i > 22);
        ck_assert_int_eq(is_finite(&a.tensor[NF_DQ], i * d, i * d + d), i < 19 || i > 22);
    }
    attend_fill(&a, &seed, 1);
    fill_slots(&a, NF_DSCORES, &seed);
    for (int64_t i = 0; i < d; i++) {
        tensor_set(&a.tensor[NF_Q], bad * d + i, NAN);
        tensor_set(&a.tensor[NF_DOUT], bad * d + i, INFINITY);
    }
    run(&a, nf_qk_backward);
    run(&a, nf_av_backward);
    for (int64_t j = 0; j < 40; j++) {
        ck_assert_int_eq(is_finite(&a.tensor[NF_DK], j * d, j * d + d), j < 18 || j > 21);
        ck_assert_int_eq(is_finite(&a.tensor[NF_DV], j * d, j * d + d), j < 18 || j > 21);
    }
    ck_assert(is_finite(&a.tensor[NF_DSCORES], 0, bad * 4));
    attend_destroy(&a);
}
END_TEST

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static void expect(nf_status got, nf_status want, const char *sentence)
{
    ck_assert_msg(got == want && strcmp(nf_last_error(), sentence) == 0, "%d: %s", (int)got, nf_last_error());
}

START_TEST(misuse)
{
    uint64_t seed = 70;
    attend a;
    nf_io io;
    create(&a, "na1d f32 d4 16 w3 x1 both", &seed);
    attend_io(&io, &a);
    expect(try_call(&a, "tile", nf_qk, &io), NF_ERR_UNSUPPORTED,
           "plan: its algorithm keeps no scores; \"unfused\" does");
    expect(try_call(&a, "naive", nf_av_backward, &io), NF_ERR_UNSUPPORTED,
           "plan: its algorithm keeps no scores; \"unfused\" does");
    expect(nf_qk(NULL, &io, NULL), NF_ERR_ARGUMENT, "plan: NULL");
    io.scores = NULL;
    expect(try_call(&a, "unfused", nf_qk, &io), NF_ERR_TENSOR, "scores: NULL, but nf_qk needs it");
    expect(try_call(&a, "unfused", nf_av, &io), NF_ERR_TENSOR, "scores: NULL, but nf_av needs it");
    io.scores = &a.tensor[NF_SCORES];
    io.dscores = NULL;
    expect(try_call(&a, "unfused", nf_qk_backward, &io), NF_ERR_TENSOR, "dscores: NULL, but nf_qk_backward needs it");
    io.dv = io.dextra_v = NULL;
    expect(try_call(&a, "unfused", nf_av_backward, &io), NF_ERR_TENSOR,
           "dv, dextra_v, dscores: at least one must be present");
    io.dscores = io.scores;
    expect(try_call(&a, "unfused", nf_av_backward, &io), NF_ERR_TENSOR, "dscores: an output must not overlap scores");
    attend_io(&io, &a);
    io.dq = io.dk = io.dextra_k = NULL;
    expect(try_call(&a, "unfused", nf_qk_backward, &io), NF_ERR_TENSOR,
           "dq, dk, dextra_k: at least one must be present");
    a.problem.direction = NF_BWD;
    expect(try_call(&a, "unfused", nf_qk, &io), NF_ERR_ARGUMENT, "plan: made for bwd, which does not include fwd");
    a.problem.direction = NF_FWD;
    expect(try_call(&a, "unfused", nf_av_backward, &io), NF_ERR_ARGUMENT,
           "plan: made for fwd, which does not include bwd");
    attend_destroy(&a);
}
END_TEST

START_TEST(other_layouts)
{
    uint64_t seed = 71;
    attend a;
    nf_io io;
    create(&a, "na1d f32 d4 16 w3 both", &seed);
    attend_io(&io, &a);
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.algo = "unfused";
    options.layout = &io;
    nf_plan *plan;
    nf_tensor scores = a.tensor[NF_SCORES];
    io.scores = &scores;
    scores.dtype = NF_F64;
    expect(nf_plan_create(&plan, context, &a.problem, &options), NF_ERR_TENSOR,
           "scores: dtype is f64, the problem needs f32");
    scores = a.tensor[NF_SCORES];
    scores.extents[3] = 4;
    expect(nf_plan_create(&plan, context, &a.problem, &options), NF_ERR_TENSOR,
           "scores: extent 3 is 4, the problem needs 3");
    scores = a.tensor[NF_SCORES];
    scores.strides[2] = 2;
    expect(nf_plan_create(&plan, context, &a.problem, &options), NF_ERR_TENSOR,
           "scores: an output must not overlap itself, its strides make it");
    a.problem.direction = NF_BWD;
    ck_assert_int_eq(nf_plan_create(&plan, context, &a.problem, &options), NF_OK);
    ck_assert_int_eq(nf_av_backward(plan, &io, NULL), NF_OK);
    scores.strides[2] = 3;
    expect(nf_av_backward(plan, &io, NULL), NF_ERR_TENSOR, "scores: stride 2 is 3, the plan was made for 2");
    nf_plan_destroy(plan);
    attend_destroy(&a);
}
END_TEST

START_TEST(too_many_scores)
{
    nf_problem problem;
    nf_tensor tensor;
    nf_plan *plan;
    nf_plan_options options;
    nf_plan_options_init(&options);
    options.algo = "unfused";
    ck_assert_int_eq(nf_problem_parse(&problem, "na1d f32 d1 1000000 w0"), NF_OK);
    ck_assert_int_eq(nf_problem_tensor(&problem, NF_SCORES, &tensor), NF_OK);
    ck_assert_int_eq(tensor.extents[3], 1000000);
    ck_assert_int_eq(nf_plan_create(&plan, context, &problem, &options), NF_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(nf_last_error(), "cpu unfused: its scores would take 3.73e+03 GiB, more than 8"), "%s",
                  nf_last_error());
    ck_assert_int_eq(nf_problem_parse(&problem, "na2d f32 d1 40000x40000 w0"), NF_OK);
    expect(nf_problem_tensor(&problem, NF_DSCORES, &tensor), NF_ERR_ARGUMENT,
           "role: the problem has no dscores, which would exceed 2^57 bytes");
}
END_TEST

static TCase *device_tests(void)
{
    TCase *tests = tcase_create("device");
    tcase_add_checked_fixture(tests, setup_device, teardown_device);
    tcase_add_loop_test(tests, device_sums_over_slots, 0, TYPES);
    tcase_add_test(tests, causal_slots);
    tcase_add_test(tests, strides);
    tcase_add_test(tests, nan_isolation);
    return tests;
}

int main(void)
{
    Suite *suite = suite_create("unfused");
    TCase *tests = tcase_create("pair");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, sums_over_slots, 0, RUNGS * TYPES);
    tcase_add_loop_test(tests, many_tiles, 0, 4);
    tcase_add_test(tests, causal_slots);
    tcase_add_test(tests, split_keys);
    tcase_add_loop_test(tests, central_differences, 0, 4);
    tcase_add_loop_test(tests, chain_is_fused, 0, 4);
    tcase_add_test(tests, strides);
    tcase_add_test(tests, thread_count);
    tcase_add_test(tests, nan_isolation);
    tcase_add_test(tests, misuse);
    tcase_add_test(tests, other_layouts);
    tcase_add_test(tests, too_many_scores);
    suite_add_tcase(suite, tests);
    if (has_device())
        suite_add_tcase(suite, device_tests());
    return nf_test_main(suite);
}
