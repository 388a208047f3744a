/* Random problems, and one case: a problem, data and strides, all drawn from a seed, run and judged. */
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PURPOSE_QUERIES = 1, PURPOSE_PROBLEM = 31, PURPOSE_CASE = 32, PURPOSE_DATA = 33 };

/* Multiply-adds of a forward: what the reference and plain can do in milliseconds, and in a tenth of a second. */
static const double small_cost = 1.2e6, big_cost = 1.5e7;
/* Beyond this a problem is compared with the reference on some of its queries. */
static const double comparable = 3e7;

static const int64_t usual_dims[] = {1, 3, 17, 32, 48, 64, 80, 96, 128, 256};

typedef struct recipe {
    int32_t rank;
    bool big;   /* enough rows and keys for several tiles of each kind */
    int64_t low[NF_MAX_RANK + 1], high[NF_MAX_RANK + 1]; /* extents, by rank */
} recipe;

static const recipe small_recipe = {.low = {0, 1, 1, 1, 1}, .high = {0, 200, 26, 10, 6}};
static const recipe big_recipe = {.big = true, .low = {0, 300, 24, 8, 5}, .high = {0, 2500, 60, 15, 8}};

static void generate_ranges(nf_axis *axis, const recipe *r, verify_random *random)
{
    const int64_t keys = axis->key_extent ? axis->key_extent : axis->extent;
    if (!axis->key_extent && verify_random_chance(random, r->big ? 60 : 25)) {
        axis->q_begin = verify_random_below(random, axis->extent);
        axis->q_count =
            verify_random_chance(random, 25) ? 0 : verify_random_between(random, 1, axis->extent - axis->q_begin);
        if (r->big && r->rank == 1 && axis->q_count > 300)
            axis->q_count = verify_random_between(random, 100, 300);
    }
    if (verify_random_chance(random, 20)) {
        axis->k_begin = verify_random_below(random, keys);
        axis->k_count = verify_random_chance(random, 25) ? 0 : verify_random_between(random, 1, keys - axis->k_begin);
    }
}

static void generate_axis(nf_axis *axis, const recipe *r, verify_random *random)
{
    axis->extent = verify_random_between(random, r->low[r->rank], r->high[r->rank]);
    const int64_t most_dilation = axis->extent < 5 ? axis->extent : 5;
    axis->dilation = verify_random_chance(random, 35) ? verify_random_between(random, 1, most_dilation) : 1;
    const int64_t widest = axis->extent / axis->dilation;
    axis->window = verify_random_between(random, r->big ? (widest + 1) / 2 : 1, widest);
    if (verify_random_chance(random, 8))
        axis->window = 1;
    else if (verify_random_chance(random, 10))
        axis->window = axis->dilation == 1 && verify_random_chance(random, 50) ? 0 : widest;
    const int64_t window = axis->window ? axis->window : axis->extent;
    axis->stride = verify_random_chance(random, 50) ? 1 : verify_random_between(random, 1, window);
    if (verify_random_chance(random, 10))
        axis->stride = window;
    axis->causal = verify_random_chance(random, 30);
    generate_ranges(axis, r, random);
}

/* Queries that are not the keys' own tokens: aligned to the end of the keys, or placed among them. */
static void generate_cross(nf_axis *axis, const recipe *r, verify_random *random)
{
    axis->extent = verify_random_between(random, 1, r->big ? 200 : 60);
    axis->key_extent = verify_random_between(random, 1, r->big ? 2000 : 200);
    if (axis->key_extent == axis->extent)
        axis->key_extent++;
    axis->window = 0;
    axis->causal = verify_random_chance(random, 60);
    if (verify_random_chance(random, 50) && axis->key_extent > axis->extent) {
        axis->q_begin = verify_random_below(random, axis->key_extent - axis->extent + 1);
        axis->q_count = axis->extent;
    }
    generate_ranges(axis, r, random);
}

static int64_t pick_dim(verify_random *random)
{
    if (verify_random_chance(random, 30))
        return verify_random_between(random, 1, 70);
    return usual_dims[verify_random_below(random, (int64_t)(sizeof usual_dims / sizeof *usual_dims))];
}

static void generate_type(nf_problem *problem, verify_random *random)
{
    static const nf_dtype types[] = {NF_F32, NF_F32, NF_F32, NF_F32, NF_F64, NF_F64, NF_BF16, NF_BF16, NF_F16, NF_F16};
    static const nf_direction directions[] = {NF_FWD, NF_FWD, NF_BWD, NF_BOTH, NF_BOTH};
    problem->direction = directions[verify_random_below(random, 5)];
    problem->dtype = problem->out_dtype = types[verify_random_below(random, 10)];
    if ((problem->dtype == NF_BF16 || problem->dtype == NF_F16) && verify_random_chance(random, 30))
        problem->out_dtype = NF_F32;
}

static void generate_scale(nf_problem *problem, verify_random *random)
{
    static const double scales[] = {0, -0.25, -1, 0.0625, 0.5, 4, 12.5, 0.01};
    if (verify_random_chance(random, 60))
        return;
    problem->scale_set = 1;
    problem->scale = scales[verify_random_below(random, 8)];
}

static void generate(nf_problem *problem, const recipe *base, verify_random *random)
{
    static const int32_t ranks[] = {1, 1, 1, 1, 2, 2, 2, 3, 3, 4};
    recipe r = *base;
    nf_problem_init(problem);
    problem->rank = r.rank = ranks[verify_random_below(random, 10)];
    generate_type(problem, random);
    generate_scale(problem, random);
    problem->batch = verify_random_chance(random, r.big ? 15 : 50) ? verify_random_between(random, 1, 3) : 1;
    problem->kv_heads = verify_random_chance(random, r.big ? 15 : 50) ? verify_random_between(random, 1, 3) : 1;
    problem->heads = problem->kv_heads * (verify_random_chance(random, 40) ? verify_random_between(random, 2, 4) : 1);
    problem->head_dim = pick_dim(random);
    problem->value_dim = verify_random_chance(random, 60) ? problem->head_dim : pick_dim(random);
    problem->extra = verify_random_chance(random, 25) ? verify_random_between(random, 1, 6) : 0;
    for (int32_t a = 0; a < r.rank; a++)
        generate_axis(&problem->axis[a], &r, random);
    if (r.rank == 1 && verify_random_chance(random, 20)) {
        nf_problem fresh;
        nf_problem_init(&fresh);
        problem->axis[0] = fresh.axis[0];
        generate_cross(&problem->axis[0], &r, random);
    }
}

/* Draws until a problem is affordable, giving up heads, batches and channels along the way. */
static void generate_within(nf_problem *problem, const recipe *r, double cost, verify_random *random)
{
    generate(problem, r, random);
    for (int attempt = 0; verify_cost(problem) > cost; attempt++) {
        problem->batch = 1;
        problem->heads = problem->kv_heads = attempt % 2 ? 1 : problem->heads;
        if (problem->head_dim > 16 && verify_cost(problem) > cost)
            problem->head_dim = problem->value_dim = verify_random_between(random, 1, 16);
        if (verify_cost(problem) > cost && attempt % 2)
            generate(problem, r, random);
    }
}

void verify_generate(nf_problem *problem, uint64_t seed)
{
    verify_random random = verify_random_stream(seed, PURPOSE_PROBLEM);
    if (verify_random_chance(&random, 10))
        generate_within(problem, &big_recipe, big_cost, &random);
    else
        generate_within(problem, &small_recipe, small_cost, &random);
}

void verify_generate_cheap(nf_problem *problem, uint64_t seed)
{
    verify_random random = verify_random_stream(seed, PURPOSE_PROBLEM);
    if (verify_random_chance(&random, 25)) /* orders of summation differ only where there are several tiles */
        generate_within(problem, &big_recipe, 2 * small_cost, &random);
    else
        generate_within(problem, &small_recipe, small_cost / 6, &random);
}

void verify_case_derive(verify_case *verify, const verify_engine *engine, const nf_problem *problem, uint64_t seed)
{
    verify_random random = verify_random_stream(seed, PURPOSE_CASE);
    *verify = (verify_case){.problem = *problem, .seed = seed, .call = verify_call_plain(engine)};
    verify->kind =
        verify_random_chance(&random, 20) ? VERIFY_NORMAL : (verify_kind)verify_random_below(&random, VERIFY_KINDS);
    verify->call.layout = (verify_layout)verify_random_below(&random, VERIFY_LAYOUTS);
    verify->call.seed = seed;
    verify->call.lse = verify_random_chance(&random, 70);
    verify->call.dlse = verify_random_chance(&random, 50);
    if (verify_random_chance(&random, 30)) /* any one or more; dq, dk and dv exist in every problem */
        verify->call.gradients = 1u << (NF_DQ + verify_random_below(&random, 3)) |
                                 (unsigned)verify_random_below(&random, 32) << NF_DQ;
}

void verify_restrict_queries(nf_problem *problem, uint64_t seed)
{
    verify_random random = verify_random_stream(seed, PURPOSE_QUERIES);
    for (int round = 0; round < 64 && verify_cost(problem) > comparable; round++) {
        nf_axis *axis = &problem->axis[round % problem->rank];
        const bool cross = axis->key_extent && axis->key_extent != axis->extent;
        const int64_t count = axis->q_count ? axis->q_count : axis->extent - axis->q_begin;
        if (cross || count < 2)
            continue;
        axis->q_begin += verify_random_below(&random, count - count / 2);
        axis->q_count = count / 2;
    }
}

/* The same problem and inputs in double precision. */
static void widen(nf_problem *problem, verify_values *values, const nf_problem *from, const verify_values *inputs)
{
    *problem = *from;
    problem->dtype = problem->out_dtype = NF_F64;
    verify_values_create(values, problem);
    for (int role = 0; role < NF_ROLES; role++)
        if (values->role[role].data)
            memcpy(values->role[role].data, inputs->role[role].data,
                   (size_t)inputs->role[role].count * sizeof(double));
}

/* Truth from the reference backend, or for that backend itself from the checker's own computation in double. */
static verify_outcome find_truth(const verify_engine *engine, const verify_case *verify, const verify_mask *mask,
                                 const verify_values *inputs, verify_values *truth, char *why)
{
    nf_problem wide;
    widen(&wide, truth, &verify->problem, inputs);
    if (engine->is_reference) {
        const verify_plain_options options = {.working = NF_F64, .exact = true, .dlse = verify->call.dlse};
        verify_values unit;
        double size;
        verify_values_create(&unit, &wide);
        verify_plain(&wide, mask, &options, truth, &unit, &size);
        verify_values_destroy(&unit);
        return VERIFY_PASS;
    }
    verify_call call = verify_call_plain(engine);
    call.context = engine->truth;
    call.backend = "reference";
    call.algo = NULL;
    call.dlse = verify->call.dlse;
    return verify_execute(&call, &wide, truth, why) == VERIFY_PASS ? VERIFY_PASS : VERIFY_FAIL;
}

/* Terms of the longest sum behind any result. */
static int64_t longest_sum(const nf_problem *problem, const verify_mask *mask)
{
    const int64_t sums[] = {mask->longest + problem->extra, mask->queries * (problem->heads / problem->kv_heads),
                            problem->head_dim, problem->value_dim};
    int64_t longest = 0;
    for (int i = 0; i < 4; i++)
        longest = sums[i] > longest ? sums[i] : longest;
    return longest;
}

static verify_outcome judge_all(const verify_engine *engine, const verify_case *verify, const verify_values *fast,
                                double *worst, char *why)
{
    const nf_problem *problem = &verify->problem;
    verify_mask mask;
    verify_mask_create(&mask, problem);
    verify_values truth = {0}, plain, unit;
    verify_outcome outcome = find_truth(engine, verify, &mask, fast, &truth, why);
    const verify_plain_options options = {.working = verify_working(problem->dtype), .dlse = verify->call.dlse,
                                          .reversed = problem->dtype == NF_F64}; /* not the very sums of the truth */
    verify_judge judge = {.problem = problem, .truth = &truth, .plain = &plain, .unit = &unit,
                          .well_conditioned = verify->kind == VERIFY_NORMAL && verify->call.layout != VERIFY_BROADCAST};
    if ((verify->kind == VERIFY_EQUAL || verify->call.layout == VERIFY_BROADCAST) &&
        problem->dtype == verify_working(problem->dtype))
        judge.equal_terms = longest_sum(problem, &mask);
    verify_values_copy(&plain, fast);
    verify_values_create(&unit, problem);
    if (outcome == VERIFY_PASS)
        verify_plain(problem, &mask, &options, &plain, &unit, &judge.score_size);
    for (int role = NF_OUT; role < NF_ROLES && outcome == VERIFY_PASS; role++) {
        const bool asked =
            verify_is_gradient(role)
                ? problem->direction != NF_FWD && verify->call.gradients >> role & 1
                : role == NF_OUT || (role == NF_LSE && (verify->call.lse || problem->direction != NF_FWD));
        if (asked && fast->role[role].data && !verify_judge_role(&judge, role, &fast->role[role], why))
            outcome = VERIFY_FAIL;
    }
    if (worst && judge.worst > *worst)
        *worst = judge.worst;
    verify_values_destroy(&truth);
    verify_values_destroy(&plain);
    verify_values_destroy(&unit);
    verify_mask_destroy(&mask);
    return outcome;
}

verify_outcome verify_case_run(const verify_engine *engine, const verify_case *verify, double *worst, char *why)
{
    verify_values fast;
    verify_values_create(&fast, &verify->problem);
    verify_random random = verify_random_stream(verify->seed, PURPOSE_DATA);
    verify_fill(&fast, &verify->problem, verify->kind, &random);
    verify_outcome outcome = verify_under_test(engine, &verify->call, &verify->problem, &fast, why);
    if (outcome == VERIFY_PASS)
        outcome = judge_all(engine, verify, &fast, worst, why);
    verify_values_destroy(&fast);
    return outcome;
}
