/* Laws of repetition: the same problem again, on other threads, in other memory, in another order. All bitwise. */
#include "verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PURPOSE_REPEAT = 44, FAR_TENSORS = 14 };

const int64_t verify_thread_counts[VERIFY_THREAD_COUNTS] = {1, 2, 3, 4, 7};

static verify_outcome not_here(char *why)
{
    *why = 0;
    return VERIFY_SKIP;
}

static void prefix(char *why, const char *format, const char *what)
{
    char rest[VERIFY_WHY];
    memcpy(rest, why, sizeof rest);
    snprintf(why, VERIFY_WHY, format, what);
    const size_t used = strlen(why);
    snprintf(why + used, VERIFY_WHY - used, ": %s", rest);
}

/* Runs the problem of `once` again as call says and compares bitwise. */
static verify_outcome repeat(const verify_engine *engine, const verify_call *call, const nf_problem *problem,
                             const verify_values *once, const char *what, char *why)
{
    verify_values again;
    verify_values_copy(&again, once);
    verify_outcome outcome = verify_under_test(engine, call, problem, &again, why);
    if (outcome == VERIFY_PASS && !verify_same_outputs(&again, once, 0, why))
        outcome = VERIFY_FAIL;
    if (outcome == VERIFY_FAIL)
        prefix(why, "%s", what);
    verify_values_destroy(&again);
    return outcome;
}

static verify_outcome check_twice(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem tame = *problem;
    if (!verify_tame(engine, &tame))
        return not_here(why);
    verify_values once;
    verify_outcome outcome = verify_normal_trial(engine, &tame, seed, true, &once, why);
    const verify_call call = verify_call_plain(engine);
    if (outcome == VERIFY_PASS)
        outcome = repeat(engine, &call, &tame, &once, "the same run again", why);
    verify_values_destroy(&once);
    return outcome;
}

static verify_outcome check_threads(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem tame = *problem;
    if (!verify_tame(engine, &tame))
        return not_here(why);
    verify_values once;
    verify_outcome outcome = verify_normal_trial(engine, &tame, seed, true, &once, why);
    for (int i = 0; i < VERIFY_THREAD_COUNTS && outcome == VERIFY_PASS; i++) {
        verify_call call = verify_call_plain(engine);
        call.context = engine->with_threads[i];
        char what[32];
        snprintf(what, sizeof what, "%d threads", (int)verify_thread_counts[i]);
        outcome = repeat(engine, &call, &tame, &once, what, why);
    }
    verify_values_destroy(&once);
    return outcome;
}

static verify_outcome check_strides(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem tame = *problem;
    if (!verify_tame(engine, &tame))
        return not_here(why);
    verify_values once;
    verify_outcome outcome = verify_normal_trial(engine, &tame, seed, true, &once, why);
    for (int layout = VERIFY_HEADS_FIRST; layout < VERIFY_BROADCAST && outcome == VERIFY_PASS; layout++) {
        verify_call call = verify_call_plain(engine);
        call.layout = (verify_layout)layout;
        call.seed = seed;
        outcome = repeat(engine, &call, &tame, &once, verify_layout_name(call.layout), why);
    }
    verify_values_destroy(&once);
    return outcome;
}

static void shuffle(int64_t *order, int64_t count, verify_random *random)
{
    for (int64_t i = 0; i < count; i++) {
        const int64_t j = verify_random_below(random, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

/* to's batches and heads are from's in another order; a query head stays with its key/value head. */
static void reorder(verify_array *to, const verify_array *from, const int64_t *batches, const int64_t *kv_heads,
                    int64_t kv_count)
{
    const int64_t group = from->heads / kv_count;
    for (int64_t b = 0; to->data && b < to->batch; b++)
        for (int64_t t = 0; t < to->tokens; t++)
            for (int64_t h = 0; h < to->heads; h++)
                memcpy(verify_row(to, b, t, h),
                       verify_row(from, batches[b], t, kv_heads[h / group] * group + h % group),
                       (size_t)to->dim * sizeof(double));
}

static verify_outcome check_permute(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem tame = *problem;
    verify_random random = verify_random_stream(seed, PURPOSE_REPEAT);
    if (!verify_tame(engine, &tame))
        return not_here(why);
    if (tame.batch == 1)
        tame.batch = 2;
    if (tame.kv_heads == 1) {
        tame.kv_heads = 3;
        tame.heads *= 3;
    }
    int64_t *batches = verify_alloc(tame.batch, sizeof *batches), *heads = verify_alloc(tame.kv_heads, sizeof *heads);
    shuffle(batches, tame.batch, &random);
    shuffle(heads, tame.kv_heads, &random);
    verify_values values, moved, expected;
    verify_outcome outcome = verify_normal_trial(engine, &tame, seed, true, &values, why);
    verify_values_copy(&moved, &values);
    verify_values_copy(&expected, &values);
    for (int role = 0; role < NF_ROLES; role++)
        reorder(&moved.role[role], &values.role[role], batches, heads, tame.kv_heads);
    for (int role = NF_OUT; role < NF_ROLES; role++)
        reorder(&expected.role[role], &values.role[role], batches, heads, tame.kv_heads);
    if (outcome == VERIFY_PASS)
        outcome = verify_trial(engine, &tame, &moved, true, why);
    if (outcome == VERIFY_PASS && !verify_same_outputs(&moved, &expected, 0, why))
        outcome = VERIFY_FAIL;
    verify_values_destroy(&values);
    verify_values_destroy(&moved);
    verify_values_destroy(&expected);
    free(batches);
    free(heads);
    return outcome;
}

const verify_identity verify_identities_repeat[] = {
    {"run-twice", check_twice},
    {"thread-count", check_threads},
    {"strides", check_strides},
    {"permuted-heads", check_permute},
    {NULL, NULL},
};

/* Tensors whose elements lie more than 2^32 elements apart, in sparse mappings; a small grid with the problem's own
 * types and flags. Which dimension is far is drawn from the seed. */
static verify_outcome check_far(const verify_engine *engine, const nf_problem *problem, uint64_t seed, char *why)
{
    nf_problem small;
    nf_problem_init(&small);
    small.direction = NF_BOTH;
    small.dtype = problem->dtype;
    small.out_dtype = problem->out_dtype;
    small.rank = problem->rank;
    small.batch = small.kv_heads = small.extra = 2;
    small.heads = 4;
    small.head_dim = 3;
    small.value_dim = 5;
    for (int32_t a = 0; a < small.rank; a++) {
        small.axis[a].extent = small.rank > 2 ? 3 : 7;
        small.axis[a].window = 3;
        small.axis[a].causal = problem->axis[a].causal;
        small.axis[a].dilation = small.rank > 2 ? 1 : problem->axis[a].dilation > 1 ? 2 : 1;
    }
    const size_t bytes = (((size_t)1 << 33) + 65536) * nf_dtype_size(small.dtype == NF_F64 ? NF_F64 : NF_F32);
    if (!verify_far_possible(FAR_TENSORS * bytes)) {
        snprintf(why, VERIFY_WHY, "this machine refuses sparse mappings of %zu GB", FAR_TENSORS * bytes >> 30);
        return VERIFY_SKIP;
    }
    verify_values once;
    verify_outcome outcome = verify_normal_trial(engine, &small, seed, true, &once, why);
    verify_call call = verify_call_plain(engine);
    call.layout = VERIFY_FAR;
    call.seed = seed;
    if (outcome == VERIFY_PASS)
        outcome = repeat(engine, &call, &small, &once, "offsets beyond 2^31", why);
    verify_values_destroy(&once);
    return outcome;
}

const verify_identity verify_identities_far[] = {
    {"far-offsets", check_far},
    {NULL, NULL},
};
